//! What is looked at now and then: interfaces, sockets, the router, and whether addresses of one group are together.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::plan::virtual_ips::PORT;
use dualgate_wire::ethernet::Mac;

use super::{CONFLICT, GATHER, LOOK, PATIENCE, SEALED_OTHERWISE, Work, resource};
use crate::network::Interface;
use crate::virtual_ips::control::Control;
use crate::virtual_ips::heartbeat::Sockets;
use crate::virtual_ips::lan::Lan;
use crate::virtual_ips::trouble;

impl Work {
    /// Looks at interfaces, keys and sockets.
    pub(super) fn look(&mut self, now: Duration) {
        (self.look_at, self.hold_at) = (now + LOOK, now);
        self.news = true;
        self.troubles.clear();
        self.sealed_otherwise.retain(|_, at| now.saturating_sub(*at) < SEALED_OTHERWISE);
        self.troubles.extend(self.sealed_otherwise.keys().filter(|_| self.ring.has_key()).map(trouble::other_key));
        if self.plan.members.is_empty() {
            (self.sockets, self.control, self.deaf) = (Sockets::default(), None, None);
            self.lans.clear();
            self.place.clear();
            return;
        }
        self.look_at_lans(now);
        if !self.conflicts.is_empty() {
            self.meet();
        }
        let own = self.plan.members.iter().find(|member| member.name == self.node);
        let own: Vec<IpAddr> = own.map(|member| member.addresses.clone()).unwrap_or_default();
        if self.plan.members.len() > 1 {
            self.disk.look_at_keys();
            self.troubles.extend(self.ring.trouble());
            let others = self.plan.members.iter().filter(|member| member.name != self.node);
            let others: BTreeSet<IpAddr> = others.flat_map(|member| member.addresses.iter().copied()).collect();
            self.deaf = self.sockets.settle(&own, others, PORT).err().map(|error| {
                let since = self.deaf.as_ref().map_or(now, |(since, _)| *since);
                if now.saturating_sub(since) < PATIENCE {
                    // A predecessor that is about to end holds it for a moment.
                    self.look_at = now + Duration::from_millis(20);
                }
                (since, error.to_string())
            });
            let deaf = self.deaf.iter().filter(|(since, _)| now.saturating_sub(*since) >= PATIENCE);
            self.troubles.extend(deaf.map(|(_, why)| trouble::port(why)));
        }
        if self.control.is_none() && self.deaf.is_none() {
            match Control::open(&self.state) {
                Ok(control) => self.control = Some(control),
                Err(error) => self.troubles.push(trouble::control(&error)),
            }
        }
        self.troubles.extend(self.road.trouble());
        if self.plan.members.len() == 2 {
            for address in self.plan.router.clone() {
                if let Some(lan) = self.lan_of_net(address) {
                    lan.announcer.probe(address, now);
                }
            }
        }
        self.conflicts.retain(|_, at| now.saturating_sub(*at) < CONFLICT);
        self.walk();
        self.stand(now);
        self.gather(now);
    }

    /// Addresses of one group that came to different nodes are brought together again, where the first of them is.
    fn gather(&mut self, now: Duration) {
        let mut moves = Vec::new();
        for group in self.plan.groups.iter().filter(|group| group.addresses.len() > 1) {
            let Some(place) = self.ownership.owner(&resource(group.addresses[0])).filter(|owner| *owner != self.node)
            else {
                continue;
            };
            let here = |address: &&IpAddr| {
                let settled = self.held.get(*address).is_some_and(|held| now.saturating_sub(held.since) >= GATHER);
                settled && self.ownership.owned_until(&resource(**address)).is_some_and(|until| until > now)
            };
            moves.extend(group.addresses[1..].iter().filter(here).map(|address| (*address, place.clone())));
        }
        for (address, place) in moves {
            if let Err(refusal) = self.ownership.move_to(&resource(address), &place, now) {
                tracing::debug!(%address, %place, %refusal, "an address stays apart from its group");
            }
        }
    }

    /// The interfaces that have an address of this node's in one of the LAN's subnets.
    fn look_at_lans(&mut self, now: Duration) {
        let interfaces = match self.network.interfaces() {
            Ok(interfaces) => interfaces,
            Err(error) => return self.troubles.push(trouble::network(&error)),
        };
        let own: BTreeSet<IpAddr> =
            self.plan.members.iter().filter(|m| m.name == self.node).flat_map(|m| m.addresses.clone()).collect();
        let has_own = |interface: &&Interface| interface.addresses.iter().any(|address| own.contains(&address.addr()));
        let chosen: Vec<_> = interfaces.iter().filter(has_own).collect();
        // An interface without its address for a moment keeps its place: its announcer knows what it has said.
        let kept = |index: &u32| interfaces.iter().find(|interface| interface.index == *index);
        self.lans.retain(|index, _| kept(index).is_some());
        for interface in &chosen {
            if !self.lans.contains_key(&interface.index) {
                match Lan::open(interface, self.seed ^ u64::from(interface.index), now) {
                    Ok(lan) => drop(self.lans.insert(interface.index, lan)),
                    Err(error) => self.troubles.push(trouble::interface(&interface.name, &error)),
                }
            }
        }
        for (index, lan) in &mut self.lans {
            if let Some(interface) = interfaces.iter().find(|interface| interface.index == *index) {
                lan.look(interface, now);
            }
        }
        self.settle(&chosen);
    }

    /// Which address belongs to which interface, and what each one listens for.
    fn settle(&mut self, chosen: &[&Interface]) {
        let may_hold: BTreeSet<IpAddr> = self.plan.groups.iter().flat_map(|group| group.addresses.clone()).collect();
        let router: BTreeSet<IpAddr> = self.plan.router.iter().copied().collect();
        let subnet = |address: IpAddr| self.plan.subnets.iter().find(|subnet| subnet.contains(&address));
        let place = |address: &IpAddr| {
            let subnet = subnet(*address)?;
            let here = |interface: &&&Interface| interface.addresses.iter().any(|own| subnet.contains(&own.addr()));
            Some((*address, chosen.iter().find(here)?.index))
        };
        let known = std::mem::take(&mut self.place);
        self.place = may_hold.union(&router).filter_map(place).collect();
        for address in may_hold.union(&router) {
            // As above: what has a place keeps it.
            if let Some(index) = known.get(address).filter(|index| self.lans.contains_key(index)) {
                self.place.entry(*address).or_insert(*index);
            }
        }
        for (index, lan) in &mut self.lans {
            let here = |addresses: &BTreeSet<IpAddr>| -> BTreeSet<IpAddr> {
                addresses.iter().copied().filter(|address| self.place.get(address) == Some(index)).collect()
            };
            if let Err(error) = lan.listen(&here(&may_hold), &here(&router)) {
                self.troubles.push(trouble::interface(&lan.name, &error));
            }
        }
    }

    /// Conflicts with home nodes are told by their names.
    fn meet(&mut self) {
        let Ok(table) = std::fs::read_to_string("/proc/thread-self/net/arp") else { return };
        let rows = table.lines().skip(1).filter_map(|row| {
            let mut columns = row.split_whitespace();
            let address: IpAddr = columns.next()?.parse().ok()?;
            let member = self.plan.members.iter().find(|member| member.addresses.contains(&address))?;
            Some((mac(columns.nth(2)?)?, member.name.clone()))
        });
        self.neighbours = rows.collect();
    }

    pub(super) fn lan_of_net(&mut self, address: IpAddr) -> Option<&mut Lan> {
        self.lans.get_mut(self.place.get(&address)?)
    }
}

fn mac(text: &str) -> Option<Mac> {
    let octets: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    Some(Mac(octets.try_into().ok()?))
}
