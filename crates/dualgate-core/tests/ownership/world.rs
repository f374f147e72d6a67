//! A LAN with nodes on a virtual clock: datagrams take their time, get lost, doubled and recorded; nodes stand still,
//! die and come back; their clocks begin somewhere and run wrong. After each event, nobody may own what another owns.
//!
//! What a caller of the machine has to do is done here as the keeper does it, so a rule that only the caller could break
//! is visible here as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::machine::ownership::{Event, Ownership, Resource, Timing, Wish};
use dualgate_core::model::NodeName;

/// Datagrams that an attacker keeps.
const RECORDED: usize = 4_000;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + Duration::from_nanos(self.below((high.saturating_sub(low)).as_nanos() as u64 + 1))
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// How datagrams fare.
#[derive(Clone, Debug)]
pub struct Network {
    pub delay: (Duration, Duration),
    pub loss_percent: u64,
    pub doubled_percent: u64,
    /// From one to another node nothing passes; the other way is another matter.
    pub cut: BTreeSet<(usize, usize)>,
}

impl Network {
    pub fn calm(delay: Duration) -> Self {
        Self { delay: (delay / 2, delay), loss_percent: 0, doubled_percent: 0, cut: BTreeSet::new() }
    }
}

/// What is to have an owner, as the site's plan says.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub resource: Resource,
    pub candidates: Vec<usize>,
    /// Nodes that could not serve it.
    pub unready: BTreeSet<usize>,
}

pub struct Node {
    pub name: NodeName,
    pub machine: Option<Ownership>,
    /// Its clock showed `.1` at the true time `.0`.
    clock: (Duration, Duration),
    /// How wrong it runs, in parts per million.
    pub drift: i64,
    pub still_until: Option<Duration>,
    pub sees_router: bool,
    /// Of its process: what was meant for an earlier one does not come.
    life: u64,
    timer: Option<Duration>,
    /// What it was told that it owns.
    pub held: BTreeMap<Resource, Option<NodeName>>,
    pub events: Vec<(Duration, Event)>,
    disk: Option<(u64, u64, Arc<[u8]>)>,
    fences: BTreeMap<Resource, Fence>,
}

struct Fence {
    until: Duration,
    seen: bool,
}

#[derive(Debug)]
enum What {
    Datagram { to: usize, bytes: Vec<u8> },
    Timer { node: usize, life: u64, due: Duration },
    Witness { node: usize, life: u64 },
    Fenced { node: usize, life: u64, resource: Resource },
}

/// At one moment, what has come is received before timers are looked at: callers read their sockets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Received,
    Due,
}

/// Something that must not be.
#[derive(Debug)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub struct World {
    pub now: Duration,
    pub random: Random,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub wanted: Vec<Wanted>,
    pub timing: Timing,
    queue: BTreeMap<(Duration, Turn, u64), What>,
    sequence: u64,
    recorded: VecDeque<(usize, Vec<u8>)>,
    pub sent: u64,
    /// Calls of machines.
    pub called: u64,
    /// Since the last check.
    acquired: Vec<Resource>,
    pub violation: Option<String>,
    /// What was done to the world, and what came of it; kept only while somebody wants to read it.
    pub story: Option<Vec<String>>,
}

impl World {
    /// So many nodes, none running yet.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let node = |index: usize| Node {
            name: NodeName::new(format!("node{index}")),
            machine: None,
            clock: (Duration::ZERO, Duration::from_millis(random.below(1_000_000_000))),
            drift: *random.pick(&[-10_000, -10_000, -3_000, 0, 3_000, 10_000, 10_000]),
            still_until: None,
            sees_router: true,
            life: 0,
            timer: None,
            held: BTreeMap::new(),
            events: Vec::new(),
            disk: None,
            fences: BTreeMap::new(),
        };
        let nodes = (0..count).map(node).collect();
        Self {
            now: Duration::from_secs(1),
            random,
            nodes,
            network: Network::calm(Duration::from_millis(1)),
            wanted: Vec::new(),
            timing: Timing::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            recorded: VecDeque::new(),
            sent: 0,
            called: 0,
            acquired: Vec::new(),
            violation: None,
            story: None,
        }
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>12.6} {}", self.now.as_secs_f64(), what()));
        }
    }

    // -- what is done to nodes --------------------------------------------------------------------------------------

    pub fn start(&mut self, index: usize) {
        self.tell(|| format!("start node{index}"));
        let (incarnation, seed) = (self.random.next(), self.random.next());
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        node.life += 1;
        (node.timer, node.still_until) = (None, None);
        node.machine = Some(Ownership::new(node.name.clone(), incarnation, seed, self.timing, now));
        let life = node.life;
        if let Some((term, version, bytes)) = node.disk.clone() {
            self.call(index, |machine, _| machine.restore(term, version, bytes));
        }
        let members: Vec<NodeName> = self.nodes.iter().map(|node| node.name.clone()).collect();
        self.call(index, |machine, now| machine.set_members(&members, now));
        self.wish(index);
        if self.nodes.len() == 2 {
            self.push(self.now, What::Witness { node: index, life });
        }
    }

    pub fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].machine.is_none() {
                self.start(index);
            }
        }
    }

    /// The process ends, without a word.
    pub fn crash(&mut self, index: usize) {
        self.tell(|| format!("crash node{index}"));
        let node = &mut self.nodes[index];
        node.machine = None;
        node.held.clear();
        node.fences.clear();
        node.life += 1;
        (node.timer, node.still_until) = (None, None);
    }

    /// The machine restarts: its clock begins again.
    pub fn reset_clock(&mut self, index: usize) {
        let uptime = Duration::from_millis(self.random.below(20_000));
        self.nodes[index].clock = (self.now, uptime);
    }

    pub fn freeze(&mut self, index: usize, until: Duration) {
        self.tell(|| format!("freeze node{index} until {until:?}"));
        self.nodes[index].still_until = Some(until);
    }

    /// What came meanwhile comes when it would have woken.
    pub fn thaw(&mut self, index: usize) {
        (self.nodes[index].still_until, self.nodes[index].timer) = (None, None);
        self.call(index, |machine, now| machine.handle_timeout(now));
    }

    /// Tells a node what is wanted.
    pub fn wish(&mut self, index: usize) {
        self.wish_but(index, None);
    }

    /// The same, but for one resource of which it knows nothing.
    pub fn wish_but(&mut self, index: usize, unknown: Option<Resource>) {
        let wish = |wanted: &Wanted| Wish {
            resource: wanted.resource,
            candidates: wanted.candidates.iter().map(|index| self.nodes[*index].name.clone()).collect(),
            ready: !wanted.unready.contains(&index),
        };
        let wanted = self.wanted.iter().filter(|wanted| Some(wanted.resource) != unknown);
        let wishes: Vec<Wish> = wanted.map(wish).collect();
        self.call(index, |machine, now| machine.set_wishes(wishes, now));
    }

    pub fn wish_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.wish(index);
        }
    }

    /// Calls a machine, and does what its caller has to do. A node that stands still or is dead is not called.
    pub fn call<T>(&mut self, index: usize, what: impl FnOnce(&mut Ownership, Duration) -> T) -> Option<T> {
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        if node.still_until.is_some_and(|until| self.now < until) {
            return None;
        }
        let machine = node.machine.as_mut()?;
        let result = what(machine, now);
        self.called += 1;
        self.serve(index);
        Some(result)
    }

    // -- time -------------------------------------------------------------------------------------------------------

    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_until(self.now + time)
    }

    pub fn run_until(&mut self, until: Duration) -> Result<(), Violation> {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            let what = entry.remove();
            self.happen(what);
            self.check()?;
        }
        self.now = self.now.max(until);
        self.check()
    }

    /// Runs until something is so, and says how long that took; or says what is missing.
    pub fn run_until_so(&mut self, limit: Duration, is_so: impl Fn(&Self) -> bool) -> Result<Duration, Violation> {
        let (start, step) = (self.now, Duration::from_millis(1));
        while !is_so(self) {
            if self.now >= start + limit {
                return Err(Violation(format!("not within {limit:?} of {start:?}: {}", self.who_has_what())));
            }
            self.run_for(step)?;
        }
        Ok(self.now - start)
    }

    fn happen(&mut self, what: What) {
        let index = match &what {
            What::Datagram { to, .. } => *to,
            What::Timer { node, .. } | What::Witness { node, .. } | What::Fenced { node, .. } => *node,
        };
        if let Some(until) = self.nodes[index].still_until.filter(|until| self.now < *until) {
            // Sockets and timers wait for a process that stands still.
            return self.push(until, what);
        }
        let life = self.nodes[index].life;
        match what {
            What::Datagram { bytes, .. } => {
                self.call(index, |machine, now| machine.receive(&bytes, now));
            }
            // One that was set anew does not ring.
            What::Timer { life: of, due, .. } if of == life && self.nodes[index].timer == Some(due) => {
                self.nodes[index].timer = None;
                self.call(index, |machine, now| machine.handle_timeout(now));
            }
            What::Witness { life: of, .. } if of == life => {
                let sees = self.nodes[index].sees_router;
                self.call(index, |machine, now| {
                    machine.set_witness(sees.then_some(now + Duration::from_millis(2_000)))
                });
                self.push(self.now + Duration::from_millis(100), what);
            }
            What::Fenced { life: of, resource, .. } if of == life => {
                if let Some(fence) = self.nodes[index].fences.remove(&resource) {
                    self.tell(|| format!("node{index} has asked for {resource}: {}", fence.seen));
                    self.call(index, |machine, now| machine.fence(resource, fence.seen, now));
                }
            }
            What::Timer { .. } | What::Witness { .. } | What::Fenced { .. } => {}
        }
        self.look_at_the_wire();
    }

    // -- what a caller does -----------------------------------------------------------------------------------------

    fn serve(&mut self, index: usize) {
        while let Some((to, bytes)) = self.nodes[index].machine.as_mut().and_then(Ownership::poll_transmit) {
            assert!(bytes.len() <= 1_100);
            self.transmit(index, &to, bytes);
        }
        while let Some(event) = self.nodes[index].machine.as_mut().and_then(Ownership::poll_event) {
            self.tell(|| format!("  node{index}: {event:?}"));
            self.react(index, &event);
            self.nodes[index].events.push((self.now, event));
        }
        if self.nodes[index].events.len() > 20_000 {
            self.nodes[index].events.clear();
        }
        let now = self.clock(index);
        let due = self.nodes[index].machine.as_ref().and_then(Ownership::poll_timeout);
        let Some(due) = due.map(|due| self.true_time(index, due.max(now))) else { return };
        let node = &mut self.nodes[index];
        if node.timer.is_none_or(|timer| due < timer) {
            node.timer = Some(due);
            let life = node.life;
            self.push(due, What::Timer { node: index, life, due });
        }
    }

    fn react(&mut self, index: usize, event: &Event) {
        let now = self.clock(index);
        match event {
            Event::Acquired { resource, from } => {
                self.acquired.push(*resource);
                if self.nodes[index].held.insert(*resource, from.clone()).is_some() {
                    self.violate(format!("node{index} acquired {resource} twice"));
                }
            }
            Event::Lost { resource, .. } => {
                if self.nodes[index].held.remove(resource).is_none() {
                    self.violate(format!("node{index} lost {resource}, which it did not have"));
                }
            }
            Event::Replicated(replica) => {
                let before = self.nodes[index].disk.as_ref().map(|(term, version, _)| (*term, *version));
                if before > Some((replica.term, replica.version)) {
                    self.violate(format!("node{index} got an older replica"));
                }
                self.nodes[index].disk = Some((replica.term, replica.version, replica.bytes.clone()));
            }
            Event::Fence(resource) => {
                let until = self.true_time(index, now + self.timing.fence);
                let fence = Fence { until, seen: false };
                self.nodes[index].fences.insert(*resource, fence);
                let life = self.nodes[index].life;
                self.push(until, What::Fenced { node: index, life, resource: *resource });
            }
            Event::Stayed { .. } | Event::PeerGone(_) | Event::PeerBack(_) => {}
        }
    }

    /// The holder says something to all.
    pub fn publish(&mut self, index: usize, bytes: Arc<[u8]>) -> bool {
        let result = self.call(index, |machine, now| machine.publish(bytes, now));
        let Some(Ok(replica)) = result else { return false };
        self.nodes[index].disk = Some((replica.term, replica.version, replica.bytes));
        true
    }

    fn transmit(&mut self, from: usize, to: &NodeName, bytes: Vec<u8>) {
        self.sent += 1;
        let Some(to) = self.nodes.iter().position(|node| node.name == *to) else { return };
        self.recorded.push_back((to, bytes.clone()));
        if self.recorded.len() > RECORDED {
            self.recorded.pop_front();
        }
        if self.network.cut.contains(&(from, to)) {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.network.doubled_percent));
        for _ in 0..copies {
            if !self.random.percent(self.network.loss_percent) {
                let (low, high) = self.network.delay;
                let at = self.now + self.random.between(low, high);
                self.push(at, What::Datagram { to, bytes: bytes.clone() });
            }
        }
    }

    /// An attacker sends again what it heard: a stretch of the past, in its order.
    pub fn replay(&mut self, most: u64) {
        let count = self.recorded.len() as u64;
        let start = self.random.below(count) as usize;
        let length = self.random.below(most) as usize;
        let mut at = self.now;
        let datagrams: Vec<(usize, Vec<u8>)> = self.recorded.iter().skip(start).take(length).cloned().collect();
        for (to, bytes) in datagrams {
            at += Duration::from_micros(self.random.below(300));
            self.push(at, What::Datagram { to, bytes });
        }
    }

    fn push(&mut self, at: Duration, what: What) {
        self.sequence += 1;
        let turn = match what {
            What::Datagram { .. } => Turn::Received,
            What::Timer { .. } | What::Witness { .. } | What::Fenced { .. } => Turn::Due,
        };
        self.queue.insert((at, turn, self.sequence), what);
    }

    // -- clocks -----------------------------------------------------------------------------------------------------

    /// What a node's clock shows.
    pub fn clock(&self, index: usize) -> Duration {
        let node = &self.nodes[index];
        let passed = (self.now - node.clock.0).as_nanos() as i64;
        node.clock.1 + Duration::from_nanos((passed + passed * node.drift / 1_000_000) as u64)
    }

    /// When a node's clock shows that, not earlier.
    fn true_time(&self, index: usize, shown: Duration) -> Duration {
        let node = &self.nodes[index];
        let shown = shown.saturating_sub(node.clock.1).as_nanos() as i64;
        let rate = 1_000_000 + node.drift;
        node.clock.0 + Duration::from_nanos((shown - shown * node.drift / rate + 2) as u64)
    }

    // -- what must hold ---------------------------------------------------------------------------------------------

    /// Whether a node may act as the owner at this moment; one that stands still could when it wakes.
    pub fn owns(&self, index: usize, resource: &Resource) -> bool {
        let until = self.nodes[index].machine.as_ref().and_then(|machine| machine.owned_until(resource));
        until.is_some_and(|until| self.clock(index) < until)
    }

    pub fn owners(&self, resource: &Resource) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.owns(*index, resource)).collect()
    }

    pub fn owner(&self, resource: &Resource) -> Option<usize> {
        self.owners(resource).first().copied()
    }

    pub fn all_owned(&self) -> bool {
        self.wanted.iter().all(|wanted| self.owner(&wanted.resource).is_some())
    }

    pub fn who_has_what(&self) -> String {
        let line = |wanted: &Wanted| format!("{}: {:?}", wanted.resource, self.owners(&wanted.resource));
        self.wanted.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn violate(&mut self, what: String) {
        self.tell(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    fn check(&mut self) -> Result<(), Violation> {
        // Where there are many, whatever changed, and each of the others now and then.
        let count = self.wanted.len();
        let turn = self.sequence as usize;
        let in_turn = (0..count.min(16)).map(|at| self.wanted[(turn * 16 + at) % count].resource);
        let resources: Vec<Resource> = in_turn.chain(std::mem::take(&mut self.acquired)).collect();
        for resource in resources {
            let mut owners = (0..self.nodes.len()).filter(|index| self.owns(*index, &resource));
            let (first, second) = (owners.next(), owners.next());
            if second.is_some() {
                self.violate(format!("{resource} has the owners {:?}", self.owners(&resource)));
            }
            if let Some(index) = first.filter(|index| !self.nodes[*index].held.contains_key(&resource)) {
                self.violate(format!("node{index} owns {resource} and was not told"));
            }
        }
        self.violation.as_ref().map_or(Ok(()), |what| Err(Violation(format!("at {:?}: {what}", self.now))))
    }

    /// Whoever asks on the wire sees who answers, and who asks, too.
    fn look_at_the_wire(&mut self) {
        if self.nodes.len() != 2 {
            return;
        }
        for index in 0..self.nodes.len() {
            for resource in self.nodes[index].fences.keys().copied().collect::<Vec<_>>() {
                let is_there = |other: usize| {
                    let node = &self.nodes[other];
                    let is_awake = node.still_until.is_none_or(|until| until <= self.now);
                    let asks = node.fences.get(&resource).is_some_and(|fence| self.now <= fence.until);
                    other != index && is_awake && (asks || self.owns(other, &resource))
                };
                let seen = (0..self.nodes.len()).any(is_there);
                let now = self.now;
                if let Some(fence) = self.nodes[index].fences.get_mut(&resource).filter(|fence| now <= fence.until) {
                    fence.seen |= seen;
                }
            }
        }
    }
}
