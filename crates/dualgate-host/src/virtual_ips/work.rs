//! The thread of the virtual IPs: both machines, their sockets, and what the host needs besides.
//!
//! It waits for nothing but its sockets and the time: files are read and written elsewhere (`disk.rs`), and so are rules and
//! routes (`road.rs`).

mod look;
mod orders;

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
use super::disk::Disk;
use super::heartbeat::{self, Sockets};
use super::keeper::{Known, Leave, Told, Wanted, Wish};
use super::lan::Lan;
use super::links::Links;
use super::ring::Ring;
use super::road::{Road, data_path};
use super::tell;

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
/// How long a node that was given an address may take until it is heard to speak for it.
pub(super) const HANDED: Duration = Duration::from_secs(4);
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
/// How long datagrams are taken before anything else is done: less than a heartbeat.
const RECEIVING: Duration = Duration::from_millis(40);
/// So many datagrams are taken before they are answered.
const AT_ONCE: usize = 64;
/// How long a lease that was prolonged may wait until the announcer knows, and news until others do.
const PACE: Duration = Duration::from_millis(20);

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
    disk: Disk,
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
    /// All is given away that another node takes, as others were told.
    drained: bool,
    /// Others should hear how it is.
    news: bool,
    tell_at: Duration,
    /// What the host should do with packets may be something else.
    walks: bool,
    /// When the announcer is told of leases again; at once, if any began or ended.
    hold_at: Duration,
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
    /// When it was given away, as long as nobody else was heard to speak for it.
    pub left: Option<Duration>,
    /// Since when that one has it again.
    circular: Option<Duration>,
    /// Whether it is announced.
    announced: bool,
}

/// Whether something that came is still to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    None,
    Some,
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
            told,
            plan: Arc::default(),
            ready: Arc::default(),
            ring: Ring::default(),
            sockets: Sockets::default(),
            deaf: None,
            control: None,
            disk: Disk::start(state, wish.clone())?,
            wish,
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
            drained: false,
            news: true,
            tell_at: Duration::ZERO,
            walks: false,
            hold_at: Duration::ZERO,
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
            match self.hear(now) {
                Backlog::None => self.ownership.handle_timeout(clock()),
                Backlog::Some => self.ownership.handle_timeout_while_receiving(clock()),
            }
            self.lans.values_mut().for_each(|lan| lan.handle_timeout(clock()));
            self.follow();
            self.untangle(clock());
            self.see_off(clock());
            if std::mem::take(&mut self.walks) {
                self.walk();
            }
            self.hold(clock());
            self.answer(clock());
            self.say();
            self.tell(clock());
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
        let told = self.news.then_some(self.tell_at);
        let deadlines = deadlines.chain([self.ownership.poll_timeout(), Some(self.look_at), self.office_at, told]);
        let left = deadlines.flatten().min().unwrap_or(self.look_at).saturating_sub(clock());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut descriptors = vec![self.wish.bell.as_fd(), self.links.as_fd(), self.road.bell()];
        descriptors.extend(self.control.iter().flat_map(Control::descriptors));
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
            (self.news, self.hold_at) = (true, now);
        }
        if let Some((current, next)) = self.disk.keys() {
            self.ring.take(current, next, &self.state);
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
                ready: ready || self.stays(group, *address, now),
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

    /// Whether an address that is held here stays although its group is not served: another one has just joined it, and is
    /// about to be.
    fn stays(&self, group: &Group, address: IpAddr, now: Duration) -> bool {
        let newest = group.addresses.iter().filter_map(|other| self.planned.get(other)).max().copied();
        let is_joined = newest.is_some_and(|at| now < at + GATHER) && self.planned.get(&address).copied() < newest;
        let is_held = self.ownership.owned_until(&resource(address)).is_some_and(|until| until > now);
        let may_serve = self.ready.get(&group.id).is_none_or(String::is_empty);
        is_joined && is_held && may_serve && group.candidates.contains(&self.node)
    }

    /// Whether somebody else may be about to take a group that has just come: who has one of its addresses, else its best
    /// candidate. Nodes read changes one after the other, and nobody takes anything back later.
    fn yields(&mut self, group: &Group, now: Duration) -> bool {
        let since = group.addresses.iter().filter_map(|address| self.planned.get(address)).max();
        let until = since.map_or(now, |since| *since + FIRST);
        let owner = group.addresses.iter().find_map(|address| self.ownership.owner(&resource(*address)));
        let best = owner.as_ref().or(group.candidates.first()).filter(|best| **best != self.node);
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

    /// Takes what came in, and says whether that was all.
    fn hear(&mut self, now: Duration) -> Backlog {
        let mut space = [0; heartbeat::SPACE];
        let (mut backlog, until) = (Backlog::None, clock() + RECEIVING);
        for number in 1_usize.. {
            let Some((datagram, from)) = self.sockets.receive(&mut space) else { break };
            self.hear_member(datagram, from, now);
            if number.is_multiple_of(AT_ONCE) {
                self.say();
            }
            if clock() >= until {
                backlog = Backlog::Some;
                break;
            }
        }
        self.lans.values_mut().for_each(|lan| lan.hear(&clock));
        for (order, reply) in self.control.iter_mut().flat_map(|control| control.orders(now)).collect::<Vec<_>>() {
            let begun = order.and_then(|order| self.begin(&order, now).map(|()| order));
            match begun {
                Ok(order) => self.pending.push(Pending { order, reply, until: now + ORDER }),
                Err(why) => reply.send(&Answer::Refused(why)),
            }
        }
        backlog
    }

    fn hear_member(&mut self, datagram: &[u8], from: IpAddr, now: Duration) {
        let Some(member) = self.plan.members.iter().find(|member| member.addresses.contains(&from)) else {
            self.refused += 1;
            return;
        };
        match self.ring.open(datagram) {
            Some(plain) => self.ownership.receive(&plain, clock()),
            None => {
                self.refused += 1;
                self.sealed_otherwise.insert(member.name.clone(), now);
            }
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
            (self.news, self.hold_at) = (true, now);
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
                (held.since, held.acquired, held.given, held.left) = (now, held.acquired + 1, None, None);
                if from.is_some() {
                    held.relayed.clone_from(&from);
                }
                tracing::info!(%address, from = from.map(|from| from.to_string()), "an address came to this node");
                self.walks = true;
            }
            Event::Lost { resource: Resource::Group(GroupId(address)), to } => {
                tracing::info!(%address, to = to.as_ref().map(ToString::to_string), "an address left this node");
                if let Some(held) = self.held.get_mut(&address) {
                    held.left = to.is_some().then_some(now);
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
                    self.walks = true;
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
    fn hold(&mut self, now: Duration) {
        if now < self.hold_at {
            return;
        }
        self.hold_at = now + PACE;
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
                self.hold_at = now;
                continue;
            }
            if !std::mem::replace(&mut held.announced, true) && held.relayed.is_some() && !self.road.is_done() {
                tracing::warn!(%address, "its open connections may break: the kernel takes long to hand their packets on");
            }
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
        self.walks |= untangled;
    }

    /// What was given away is gone once its taker speaks for it. Until then neighbours send here, and this node serves them: it
    /// must not end before.
    fn see_off(&mut self, now: Duration) {
        let before = std::mem::replace(&mut self.drained, self.ownership.is_drained());
        self.news |= before != self.drained;
        for (address, held) in &mut self.held {
            let Some(left) = held.left else { continue };
            let lan = self.place.get(address).and_then(|index| self.lans.get(index));
            let is_heard = lan.and_then(|lan| lan.announcer.spoken_for(*address)).is_some_and(|at| at >= left);
            if is_heard || lan.is_none() || now.saturating_sub(left) >= HANDED {
                (held.left, self.news) = (None, true);
            }
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
        self.disk.keep(self.ownership.replica());
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

    fn tell(&mut self, now: Duration) {
        if !self.news || now < self.tell_at {
            return;
        }
        (self.news, self.tell_at) = (false, now + PACE);
        let report = tell::of(self, now);
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
