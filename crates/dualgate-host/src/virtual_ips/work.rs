//! The thread of the virtual IPs: both machines, their sockets, and what the host needs besides.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::machine::announcer::Event as Seen;
use dualgate_core::machine::ownership::{Event, Ownership, Resource, Timing, Wish as Candidacy};
use dualgate_core::model::{Assignments, Finding, NodeName};
use dualgate_core::plan::virtual_ips::{Group, GroupId, PORT, VirtualIpPlan};
use dualgate_wire::ethernet::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::network::Network;

use super::assigned;
use super::control::{Answer, Control, Order, Reply};
use super::heartbeat::{self, Sockets};
use super::keeper::{Known, Leave, Told, Wanted, Wish};
use super::lan::Lan;
use super::links::Links;
use super::ring::Ring;
use super::road::{Road, data_path};
use super::tell;
use super::trouble;

/// How often keys on disk, sockets that could not be had and the router are looked at, and others learn how it is.
const LOOK: Duration = Duration::from_millis(500);
/// How long a port that is taken may be the former process's, which is about to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an address waits for the relay of open connections before it is announced all the same. It takes a few
/// milliseconds; meanwhile the former owner still gets what comes, and serves it.
const RELAY: Duration = Duration::from_secs(1);
/// How long a node may take to take over what it is given.
const ORDER: Duration = Duration::from_millis(1500);
/// Within this time every neighbour has heard of an owner: it has said so several times.
const HEARD: Duration = Duration::from_secs(3);
/// How long the holder's office is asked about: a little longer than counts.
const FENCE: Duration = Duration::from_millis(260);
/// How long the router's answer proves that the LAN is there.
const WITNESS: Duration = Duration::from_secs(3);
/// How long a heartbeat that does not open is remembered.
const SEALED_OTHERWISE: Duration = Duration::from_secs(5);
/// A conflict is told again each minute while it lasts; after this time it is over.
const CONFLICT: Duration = Duration::from_secs(180);
/// How long the best candidate of something that has just come is waited for.
const FIRST: Duration = Duration::from_millis(250);
/// How long addresses of one group may be at different nodes.
const GATHER: Duration = Duration::from_secs(1);
/// How long after the start others may take to be heard.
const SETTLING: Duration = Duration::from_secs(5);
/// How many datagrams are taken at a time.
const AT_ONCE: usize = 256;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) node: NodeName,
    state: PathBuf,
    wish: Arc<Wish>,
    told: Arc<Told>,
    pub(super) plan: Arc<VirtualIpPlan>,
    pub(super) ready: Arc<BTreeMap<GroupId, String>>,
    pub(super) ownership: Ownership,
    pub(super) ring: Ring,
    sockets: Sockets,
    /// Since when the heartbeats' sockets cannot be had, and why.
    pub(super) deaf: Option<(Duration, String)>,
    control: Option<Control>,
    links: Links,
    network: Network,
    /// By the kernel's number.
    pub(super) lans: BTreeMap<u32, Lan>,
    /// Which interface an address belongs to.
    place: BTreeMap<IpAddr, u32>,
    pub(super) road: Road,
    /// By address: each is a resource of its own, so that whoever is told other groups still agrees on its owner.
    pub(super) held: BTreeMap<IpAddr, Held>,
    /// Since when an address is planned.
    planned: BTreeMap<IpAddr, Duration>,
    /// Others that answered for addresses that are held here, and when they were heard.
    pub(super) conflicts: BTreeMap<(IpAddr, Mac), Duration>,
    /// Two voters: what is asked on the wire before it is taken.
    fences: BTreeSet<IpAddr>,
    /// When it has been waited long enough for whoever else has the office of the holder.
    office_at: Option<Duration>,
    /// Orders that are under way.
    pending: Vec<Pending>,
    pub(super) assigned: Arc<Assignments>,
    pub(super) refused: u64,
    /// Members whose heartbeats do not open, and when one came last.
    pub(super) sealed_otherwise: BTreeMap<NodeName, Duration>,
    pub(super) troubles: Vec<Finding>,
    /// The home nodes by their link-layer addresses, as far as the kernel knows them.
    pub(super) neighbours: BTreeMap<Mac, NodeName>,
    /// Until then it is no wonder that nobody was heard yet.
    pub(super) settled: Duration,
    seed: u64,
    look_at: Duration,
    /// It was told to give everything away, as it is about to end.
    ends: bool,
    /// Others should hear how it is.
    news: bool,
}

/// What is remembered of an address.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// When it came here last.
    since: Duration,
    /// How often it did.
    pub acquired: u64,
    /// Who had it before, and still has connections of it.
    pub relayed: Option<NodeName>,
    /// Whom it was given to: known here before that node has said so.
    pub given: Option<NodeName>,
    /// Since when that one has it again.
    circular: Option<Duration>,
    /// Whether it is announced.
    announced: bool,
}

/// An order that is under way, and who waits for it.
#[derive(Debug)]
struct Pending {
    order: Order,
    reply: Reply,
    /// Until then it can come about.
    until: Duration,
}

/// The time since the machine started, asleep or not.
pub(super) fn clock() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn random() -> io::Result<u64> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(u64::from_ne_bytes(octets))
}

impl Work {
    pub fn new(state: &Path, node: &NodeName, wish: Arc<Wish>, told: Arc<Told>) -> io::Result<Self> {
        let (incarnation, seed) = (random()?, random()?);
        let mut work = Self {
            node: node.clone(),
            state: state.to_owned(),
            ownership: Ownership::new(node.clone(), incarnation, seed, Timing::default(), clock()),
            wish,
            told,
            plan: Arc::default(),
            ready: Arc::default(),
            ring: Ring::default(),
            sockets: Sockets::default(),
            deaf: None,
            control: None,
            links: Links::open()?,
            network: Network::open().map_err(|error| error.source)?,
            lans: BTreeMap::new(),
            place: BTreeMap::new(),
            road: Road::start()?,
            held: BTreeMap::new(),
            planned: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            fences: BTreeSet::new(),
            office_at: None,
            pending: Vec::new(),
            assigned: Arc::default(),
            refused: 0,
            sealed_otherwise: BTreeMap::new(),
            troubles: Vec::new(),
            neighbours: BTreeMap::new(),
            settled: clock() + SETTLING,
            seed,
            look_at: Duration::ZERO,
            ends: false,
            news: true,
        };
        match assigned::read(state) {
            Ok(Some(kept)) => {
                work.assigned = Arc::new(assigned::decode(&kept.bytes).unwrap_or_default());
                work.ownership.restore(kept.term, kept.version, kept.bytes);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the addresses that were assigned cannot be read"),
        }
        // Before the first plan is made: a successor would close the sockets of addresses that it does not know.
        work.know();
        Ok(work)
    }

    /// Until it is told to leave.
    pub fn run(mut self) {
        // Frames in time matter more than anything else here; without the right to it, it is as it is.
        let _ = rustix::process::setpriority_process(None, -10);
        loop {
            let wanted = self.wish.take();
            if let Some(how) = wanted.leave {
                return self.leave(how);
            }
            let now = clock();
            self.want(wanted, now);
            if self.links.changed() || now >= self.look_at {
                self.look(now);
            }
            self.hear(now);
            self.ownership.handle_timeout(clock());
            self.lans.values_mut().for_each(|lan| lan.announcer.handle_timeout(clock()));
            self.follow();
            self.untangle(clock());
            self.hold();
            self.answer(clock());
            self.say();
            if self.news {
                self.news = false;
                self.tell();
            }
            self.wait();
        }
    }

    fn leave(mut self, how: Leave) {
        self.lans.clear();
        match how {
            Leave::Clean => self.road.clear(),
            Leave::Succeeded => {}
        }
    }

    fn wait(&self) {
        let deadlines = self.lans.values().map(|lan| lan.announcer.poll_timeout());
        let deadlines = deadlines.chain([self.ownership.poll_timeout(), Some(self.look_at), self.office_at]);
        let left = deadlines.flatten().min().unwrap_or(self.look_at).saturating_sub(clock());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut descriptors = vec![self.wish.bell.as_fd(), self.links.as_fd(), self.road.bell()];
        descriptors.extend(self.control.iter().map(|control| control.as_fd()));
        descriptors.extend(self.sockets.descriptors());
        descriptors.extend(self.lans.values().flat_map(Lan::descriptors));
        let mut waited: Vec<PollFd<'_>> =
            descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
        // Interrupted is as good as over.
        let _ = poll(&mut waited, Some(&timeout));
    }

    /// Takes up what changed of what is wanted.
    fn want(&mut self, wanted: Wanted, now: Duration) {
        let other_plan = !Arc::ptr_eq(&wanted.plan, &self.plan);
        let other_ready = !Arc::ptr_eq(&wanted.ready, &self.ready);
        if other_plan {
            let members: Vec<NodeName> = wanted.plan.members.iter().map(|member| member.name.clone()).collect();
            self.ownership.set_members(&members, now);
            self.plan = wanted.plan;
            self.fall_silent();
            let known = std::mem::take(&mut self.planned);
            let addresses = self.plan.groups.iter().flat_map(|group| &group.addresses);
            self.planned = addresses.map(|address| (*address, known.get(address).copied().unwrap_or(now))).collect();
            self.look_at = now;
        }
        self.ready = wanted.ready;
        if other_plan || other_ready || self.road.rang() {
            self.walk();
            self.stand(now);
            self.news = true;
        }
        if let Some(assigned) = wanted.publish
            && assigned != self.assigned
        {
            match self.ownership.publish(assigned::encode(&assigned), now) {
                Ok(_) => {
                    self.assigned = assigned;
                    self.keep();
                }
                // Another node is the holder by now, and will say what it gives.
                Err(refusal) => tracing::debug!(%refusal, "addresses were not published"),
            }
        }
        if wanted.drain && !std::mem::replace(&mut self.ends, true) {
            self.ownership.drain(now);
        }
    }

    /// Addresses that nobody has any more are not answered for from here on: before others hear that they may take them.
    fn fall_silent(&mut self) {
        let planned: BTreeSet<&IpAddr> = self.plan.groups.iter().flat_map(|group| &group.addresses).collect();
        for address in self.held.keys().filter(|address| !planned.contains(address)) {
            self.lans.values_mut().for_each(|lan| lan.announcer.release(*address));
        }
    }

    /// What the host should do with packets.
    fn walk(&mut self) {
        let relays = self.held.iter().filter_map(|(address, held)| Some((*address, held.relayed.clone()?))).collect();
        self.road.want(data_path(&self.plan, &self.node, &relays, &self.road_interfaces()));
    }

    /// The LAN's interfaces by name, with this node's addresses on each: its own ARP requests come from there.
    fn road_interfaces(&self) -> Vec<(String, Vec<IpAddr>)> {
        let own = self.plan.members.iter().filter(|member| member.name == self.node).flat_map(|own| &own.addresses);
        let own: BTreeSet<&IpAddr> = own.collect();
        let here = |lan: &Lan| lan.addresses().filter(|address| own.contains(address)).copied().collect();
        self.lans.values().map(|lan| (lan.name.clone(), here(lan))).collect()
    }

    /// For which addresses this node stands, and which it could serve.
    fn stand(&mut self, now: Duration) {
        let mut wishes = Vec::new();
        let plan = self.plan.clone();
        for group in &plan.groups {
            let ready = self.why_not(group).is_none() && !self.yields(group, now);
            let of = |address: &IpAddr| Candidacy {
                resource: resource(*address),
                candidates: group.candidates.clone(),
                ready,
            };
            wishes.extend(group.addresses.iter().map(of));
        }
        if !self.plan.members.is_empty() {
            let candidates = self.plan.holders.clone();
            wishes.push(Candidacy { resource: Resource::Holder, candidates, ready: true });
        }
        self.ownership.set_wishes(wishes, now);
        let planned: BTreeSet<&IpAddr> = self.plan.groups.iter().flat_map(|group| &group.addresses).collect();
        self.held.retain(|address, _| planned.contains(address));
    }

    /// Whether the best candidate of a group that has just come may be about to take it: nodes read changes one after the
    /// other, and nobody takes anything back later.
    fn yields(&mut self, group: &Group, now: Duration) -> bool {
        let since = group.addresses.iter().filter_map(|address| self.planned.get(address)).max();
        let until = since.map_or(now, |since| *since + FIRST);
        let best = group.candidates.first().filter(|best| **best != self.node);
        let is_alive = |best: &NodeName| self.ownership.peers().iter().any(|peer| peer.name == *best && peer.alive);
        let yields = now < until && best.is_some_and(is_alive);
        if yields {
            self.look_at = self.look_at.min(until);
        }
        yields
    }

    /// What keeps this node from serving a group.
    pub(super) fn why_not(&self, group: &Group) -> Option<String> {
        if !group.candidates.contains(&self.node) {
            return Some("it is no candidate".to_owned());
        }
        match self.ready.get(&group.id) {
            None => return Some("nothing listens there yet".to_owned()),
            Some(why) if !why.is_empty() => return Some(why.clone()),
            Some(_) => {}
        }
        let lan = |address: &IpAddr| self.lans.get(self.place.get(address)?);
        let absent = |address: &&IpAddr| !lan(address).is_some_and(Lan::can_speak);
        if let Some(address) = group.addresses.iter().find(absent) {
            return Some(format!("no interface of this node in the subnet of {address} is up and can be used"));
        }
        self.road.why_not(group)
    }

    /// Looks at interfaces, keys and sockets.
    fn look(&mut self, now: Duration) {
        self.look_at = now + LOOK;
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
            self.ring.look(&self.state);
            self.troubles.extend(self.ring.trouble());
            if !self.sockets.are_at(&own) {
                self.sockets = Sockets::default();
                self.deaf = match Sockets::open(&own, PORT) {
                    Ok(sockets) => {
                        self.sockets = sockets;
                        None
                    }
                    Err(error) => {
                        let since = self.deaf.as_ref().map_or(now, |(since, _)| *since);
                        if now.saturating_sub(since) < PATIENCE {
                            // A predecessor that is about to end holds it for a moment.
                            self.look_at = now + Duration::from_millis(20);
                        }
                        Some((since, error.to_string()))
                    }
                };
            }
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
        let has_own = |interface: &&crate::network::Interface| {
            interface.addresses.iter().any(|address| own.contains(&address.addr()))
        };
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
    fn settle(&mut self, chosen: &[&crate::network::Interface]) {
        let may_hold: BTreeSet<IpAddr> = self.plan.groups.iter().flat_map(|group| group.addresses.clone()).collect();
        let router: BTreeSet<IpAddr> = self.plan.router.iter().copied().collect();
        let subnet = |address: IpAddr| self.plan.subnets.iter().find(|subnet| subnet.contains(&address));
        let place = |address: &IpAddr| {
            let subnet = subnet(*address)?;
            let here = |interface: &&&crate::network::Interface| {
                interface.addresses.iter().any(|own| subnet.contains(&own.addr()))
            };
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

    fn lan_of_net(&mut self, address: IpAddr) -> Option<&mut Lan> {
        self.lans.get_mut(self.place.get(&address)?)
    }

    /// Takes what came in.
    fn hear(&mut self, now: Duration) {
        let mut space = [0; heartbeat::SPACE];
        for _ in 0..AT_ONCE {
            let Some((datagram, from)) = self.sockets.receive(&mut space) else { break };
            let Some(member) = self.plan.members.iter().find(|member| member.addresses.contains(&from)) else {
                self.refused += 1;
                continue;
            };
            match self.ring.open(datagram) {
                Some(plain) => self.ownership.receive(&plain, clock()),
                None => {
                    self.refused += 1;
                    self.sealed_otherwise.insert(member.name.clone(), now);
                }
            }
        }
        self.lans.values_mut().for_each(|lan| lan.hear(&clock));
        for (order, reply) in self.control.iter().flat_map(Control::orders).collect::<Vec<_>>() {
            let begun = order.and_then(|order| self.begin(&order, now).map(|()| order));
            match begun {
                Ok(order) => self.pending.push(Pending { order, reply, until: now + ORDER }),
                Err(why) => reply.send(&Answer::Refused(why)),
            }
        }
    }

    fn begin(&mut self, order: &Order, now: Duration) -> Result<(), String> {
        self.news = true;
        match order {
            Order::Move { address, to } => {
                let unknown = || format!("no gate, edge or Service has {address} (see `dualgate vip list`)");
                let group = self.plan.group_of(*address).ok_or_else(unknown)?;
                let mut asked: Vec<IpAddr> = group.addresses.clone();
                // The one that was named decides; those beside it may be elsewhere for a moment.
                asked.sort_by_key(|other| other != address);
                for (number, other) in asked.iter().enumerate() {
                    match self.ownership.move_to(&resource(*other), to, now) {
                        Err(refusal) if number == 0 => return Err(format!("{address} stays: {refusal}")),
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            Order::Drain => self.ownership.drain(now),
            Order::Undrain => self.ownership.undrain(),
        }
        Ok(())
    }

    /// Answers the orders that have come about, and those that have not in time.
    fn answer(&mut self, now: Duration) {
        for Pending { order, reply, until } in std::mem::take(&mut self.pending) {
            match self.outcome(&order, now >= until) {
                Some(answer) => reply.send(&answer),
                None => self.pending.push(Pending { order, reply, until }),
            }
        }
        if let Some(until) = self.pending.iter().map(|pending| pending.until).min() {
            self.look_at = self.look_at.min(until);
        }
    }

    /// What became of an order; nothing yet while it may still come about.
    fn outcome(&self, order: &Order, late: bool) -> Option<Answer> {
        let held = |group: &&Group| {
            let owned = |address: &IpAddr| self.ownership.owned_until(&resource(*address));
            group.addresses.iter().any(|address| owned(address).is_some_and(|until| until > clock()))
        };
        match order {
            Order::Move { address, to } => {
                let Some(group) = self.plan.group_of(*address) else {
                    return Some(Answer::Refused(format!("nobody has {address} any more")));
                };
                match (held(&group), late) {
                    (false, _) => {
                        let verb = if group.addresses.len() > 1 { "are" } else { "is" };
                        Some(Answer::Done(format!("{} {verb} at {to} now", shown(&group.addresses))))
                    }
                    (true, true) => Some(Answer::Refused(format!(
                        "{address} stays: {to} did not take it; is it drained, or can it not serve it? (`dualgate vip \
                         explain {address}` there)"
                    ))),
                    (true, false) => None,
                }
            }
            Order::Drain => {
                let left: Vec<String> =
                    self.plan.groups.iter().filter(held).map(|group| shown(&group.addresses)).collect();
                match (left.as_slice(), late) {
                    ([], _) => Some(Answer::Done(format!("{} holds no address now, and takes none", self.node))),
                    (left, true) => Some(Answer::Done(format!(
                        "{} takes no address any more, and keeps {}, which no other node can take",
                        self.node,
                        left.join("; ")
                    ))),
                    (_, false) => None,
                }
            }
            Order::Undrain => Some(Answer::Done(format!("{} takes addresses again", self.node))),
        }
    }

    /// Follows what the machines say.
    fn follow(&mut self) {
        let now = clock();
        if self.office_at.is_some_and(|at| at <= now) {
            self.office_at = None;
            self.ownership.fence(Resource::Holder, false, now);
        }
        while let Some(event) = self.ownership.poll_event() {
            self.news = true;
            self.happened(event, now);
        }
        let seen: Vec<Seen> = self
            .lans
            .values_mut()
            .flat_map(|lan| std::iter::from_fn(|| lan.announcer.poll_event()).collect::<Vec<_>>())
            .collect();
        for event in seen {
            self.saw(event, now);
        }
    }

    fn happened(&mut self, event: Event, now: Duration) {
        match event {
            Event::Acquired { resource: Resource::Holder, .. } => {
                tracing::info!("this node assigns addresses");
                self.know();
            }
            Event::Lost { resource: Resource::Holder, .. } => self.know(),
            Event::Acquired { resource: Resource::Group(GroupId(address)), from } => {
                let held = self.held.entry(address).or_default();
                (held.since, held.acquired, held.given) = (now, held.acquired + 1, None);
                if from.is_some() {
                    held.relayed.clone_from(&from);
                }
                tracing::info!(%address, from = from.map(|from| from.to_string()), "an address came to this node");
                self.walk();
            }
            Event::Lost { resource: Resource::Group(GroupId(address)), to } => {
                tracing::info!(%address, to = to.as_ref().map(ToString::to_string), "an address left this node");
                if let Some(held) = self.held.get_mut(&address) {
                    held.given = to;
                }
            }
            Event::Replicated(replica) => match assigned::decode(&replica.bytes) {
                Ok(assigned) => {
                    self.assigned = Arc::new(assigned);
                    self.keep();
                }
                Err(error) => tracing::warn!(%error, "the holder's assignments cannot be read"),
            },
            Event::PeerGone(peer) => {
                tracing::info!(%peer, "a home node is silent");
                let of_peer = self.held.values_mut().filter(|held| held.relayed.as_ref() == Some(&peer));
                let relayed: Vec<&mut Held> = of_peer.collect();
                if !relayed.is_empty() {
                    relayed.into_iter().for_each(|held| held.relayed = None);
                    self.walk();
                }
            }
            Event::PeerBack(peer) => tracing::info!(%peer, "a home node is heard again"),
            Event::Fence(Resource::Group(GroupId(address))) => {
                self.fences.insert(address);
                if let Some(lan) = self.lan_of_net(address) {
                    lan.announcer.probe(address, now);
                }
            }
            Event::Stayed { resource, to } => {
                tracing::warn!(%resource, %to, "a planned move did not come about: the node was not ready");
            }
            // Nobody answers ARP for an office. A node that holds it alone decides for itself alone.
            Event::Fence(Resource::Holder) => self.office_at = Some(now + FENCE),
        }
    }

    fn saw(&mut self, event: Seen, now: Duration) {
        match event {
            Seen::Conflict { address, mac, heard } => {
                self.news = true;
                if self.plan.members.len() == 2 {
                    // The other one of two, perhaps, that does not hear this one.
                    self.ownership.fence(resource(address), true, now);
                }
                if self.conflicts.insert((address, mac), now).is_none() {
                    tracing::warn!(%address, %mac, ?heard, "somebody else answers for an address of this node");
                }
            }
            Seen::ConflictOver { address } => self.conflicts.retain(|(of, _), _| *of != address),
            Seen::Answered { address, mac } => {
                if mac.is_some() && self.plan.router.contains(&address) {
                    self.ownership.set_witness(Some(now + WITNESS));
                }
                if self.fences.remove(&address) {
                    self.ownership.fence(resource(address), mac.is_some(), now);
                }
            }
        }
    }

    /// Announces what is held, for as long as it is.
    fn hold(&mut self) {
        for (address, held) in &mut self.held {
            let now = clock();
            let until = self.ownership.owned_until(&resource(*address)).filter(|until| *until > now);
            let lan = self.place.get(address).and_then(|index| self.lans.get_mut(index));
            let Some(until) = until else {
                if std::mem::take(&mut held.announced) {
                    lan.into_iter().for_each(|lan| lan.announcer.release(*address));
                }
                continue;
            };
            if held.relayed.is_some() && !self.road.is_done() && now < held.since + RELAY {
                self.look_at = self.look_at.min(held.since + RELAY);
                continue;
            }
            held.announced = true;
            lan.into_iter().for_each(|lan| lan.announcer.hold(*address, until, now));
        }
    }

    /// A relay to the node that holds the address by now would lead packets of unknown flows in a circle, until their hop
    /// limit ends that. It stays until every neighbour has heard who holds the address.
    fn untangle(&mut self, now: Duration) {
        let ownership = &self.ownership;
        let mut untangled = false;
        for (address, held) in self.held.iter_mut().filter(|(_, held)| held.relayed.is_some()) {
            let circular = held.relayed == ownership.owner(&resource(*address));
            let since = *held.circular.get_or_insert(now);
            match circular {
                true if now.saturating_sub(since) >= HEARD => {
                    (held.relayed, held.circular, untangled) = (None, None, true);
                }
                true => {}
                false => held.circular = None,
            }
        }
        if untangled {
            self.walk();
        }
    }

    /// Sends what is to be sent.
    fn say(&mut self) {
        while let Some((to, plain)) = self.ownership.poll_transmit() {
            let Some(member) = self.plan.members.iter().find(|member| member.name == to) else { continue };
            if let Some(datagram) = self.ring.seal(&plain) {
                // One that does not leave is as one that was lost.
                self.sockets.send(&datagram, &member.addresses, PORT);
            }
        }
        self.lans.values_mut().for_each(|lan| lan.say(&clock));
    }

    /// Keeps what was assigned on disk, and tells the planners.
    fn keep(&mut self) {
        if let Some(replica) = self.ownership.replica()
            && let Err(error) = assigned::write(&self.state, &replica)
        {
            tracing::warn!(%error, "the addresses that are assigned were not written");
        }
        self.know();
    }

    fn know(&mut self) {
        let holds = self.ownership.owned_until(&Resource::Holder).is_some_and(|until| until > clock());
        let known = Known { assigned: self.assigned.clone(), holds };
        self.told.known.send_if_modified(|before| {
            let changed = *before != known;
            *before = known.clone();
            changed
        });
        self.news = true;
    }

    fn tell(&mut self) {
        let report = tell::of(self, clock());
        let mut told = self.told.report();
        for finding in report.findings.iter().filter(|finding| !told.findings.contains(finding)) {
            tracing::warn!(code = finding.code.id(), help = finding.help, "{}", finding.message);
        }
        *told = report;
    }
}

/// What is leased: an address by itself.
pub(super) fn resource(address: IpAddr) -> Resource {
    Resource::Group(GroupId(address))
}

fn mac(text: &str) -> Option<Mac> {
    let octets: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    Some(Mac(octets.try_into().ok()?))
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
