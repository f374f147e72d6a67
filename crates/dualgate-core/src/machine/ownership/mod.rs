//! Who of the home nodes has which address: leases by quorum, on a virtual clock, without sockets.
//!
//! Reads the members and wishes of `plan::virtual_ips`, and what other members say. `host::virtual_ips` carries the
//! datagrams, sealed, and hands the deadlines to the announcer. There is no leader for addresses and no log: each
//! *resource* is decided alone, by the same rule.
//!
//! # The rule
//!
//! Each member is a *voter*. It promises a resource to one node at a time, for [`Timing::promise`] of its own clock from
//! when the request came (`lease.rs`). A node *owns* a resource while it has promises of a majority of all voters that
//! have not ended, counting [`Timing::lease`] from when it *sent* each request (`claim.rs`). Two majorities share a voter,
//! a request is sent before it comes, and the difference of the two times is more than what two clocks with 1 % of error
//! each can drift apart meanwhile. So [`Ownership::owned_until`] is past at one node before it begins at another: however
//! datagrams are delayed, lost, doubled, reordered or recorded and sent again, whoever is cut off from whom, and
//! whichever process stands still for how long. The caller compares it with its clock right before each frame.
//!
//! - A voter that has just started may have forgotten a promise: it makes none for as long as one lasts.
//! - A datagram counts once and in its session only (`session.rs`).
//! - A node that gives a resource up stops first and says so then; what it asked for before does not count any more.
//! - Voters promise only to nodes that count the same voters but for one at most: majorities of two such lists share a
//!   voter, too. So members are added and removed one by one, and each change has to reach all nodes before the next.
//! - Two machines of one name never run at the same time. A successor goes on with its predecessor's promises: they are
//!   to the node.
//!
//! # Who asks
//!
//! Nobody asks for what has an owner. What has none is asked for by its first candidate that is alive, by the second
//! after [`Timing::stagger`], and so on. Of two who ask at the same time the better one stays and the other withdraws. What is
//! wished for from now on is left to better candidates for two beats: they may hear of it later. Otherwise all that is
//! created at once would go to the node that assigns addresses, which is the first to know.
//!
//! # One and two members
//!
//! One member owns what it wishes, at once and without a word.
//!
//! Two members own by both votes. If one of them is not heard, a *witness* counts as its vote: the router, which has
//! answered the other one lately. That proves that it is not we who are cut off, and no more; so before a resource is
//! taken this way, the caller asks on the wire whether somebody answers for it ([`Event::Fence`]). An owner goes on with
//! the witness without asking, and without both the other's vote and the witness it stops at its deadline.
//!
//! - *Guaranteed*: one owner at a time, as long as the fence sees the other owner: both are on one LAN, and only their
//!   heartbeats are lost (a firewall, a full queue, a process that stands still).
//! - *Guaranteed*: two that start together, deaf for each other, do not both take it, as long as the caller takes
//!   a question of another node for the same address (an ARP probe, an NS from `::`) for an answer, as RFC 5227 2.1.1
//!   says. The one with the lower name asks first.
//! - *Guaranteed*: an owner that stands still and wakes is not the owner any more, or is seen: what the witness says
//!   lasts two beats, and the question on the wire takes longer.
//! - *Not guaranteed*, and not possible: if the LAN itself is cut and both halves have a router that answers, both halves
//!   have an owner. When they hear each other again, the one with the higher name lets go.
//! - *Not guaranteed*: an owner without the other node and without a router. Two nodes survive one failure.
//!
//! # Bounds
//!
//! With `d` the longest way of a datagram between members that are alive, and a majority of them, on the slowest clock:
//!
//! - an owner that dies is followed within `lease + margin + beat + 4 d`, if all candidates are ready: its last request
//!   came `d` after it was sent, perhaps to some voters only and a `beat` later to none; the promises end, the first
//!   candidate asks, and asks once more if a promise ended later than its own. Mostly it is `lease + margin`. A better
//!   candidate that is alive but not ready makes it one `stagger` longer. For two members it is the same, by the witness;
//! - a resource whose only obstacle is gone has an owner within `2 (lease + margin) + 3 beat + 2 stagger * n + 8 d`, with
//!   `n` members: sessions begin, voters that have just started are silent, votes that were split go back;
//! - a planned move leaves it without an owner for `3 d`; if its target vanishes, for `reserve + 2 d`.
//!
//! Each member sends one datagram per `beat` to each other one, and an answer to each that asks for something; 1,000
//! groups take six datagrams. All tables are bounded by the caller's wishes and by `lease::ROOM`.

mod arrive;
mod claim;
mod lease;
mod message;
mod moves;
mod replica;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use self::claim::Claim;
use self::lease::{Order, Voter};
use self::message::{Header, Part, VOTERS, encode};
use self::moves::Reason;
use self::replica::Replication;
pub use self::replica::{REPLICA_LIMIT, Replica};
use self::session::Peer;
use crate::machine::random::Random;
use crate::model::NodeName;
use crate::plan::virtual_ips::GroupId;

/// Datagrams that wait for the caller at most; the oldest go first.
const WAITING: usize = 4_096;

/// What one node at a time owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The right to assign addresses for the site.
    Holder,
    /// The addresses of a group.
    Group(GroupId),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder => f.write_str("the assignment of addresses"),
            Self::Group(group) => group.fmt(f),
        }
    }
}

/// What is to have an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub resource: Resource,
    /// Who may own it, best first. A node that is not in it never owns it.
    pub candidates: Vec<NodeName>,
    /// Whether this node could serve it now.
    pub ready: bool,
}

/// The times of the protocol, the same at all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an owner counts a promise, from its request on.
    pub lease: Duration,
    /// Between two heartbeats: a fifth of the lease.
    pub beat: Duration,
    /// How much longer a voter keeps its promise: more than 2.03 % of the lease, so that clocks may err by 1 % each.
    pub margin: Duration,
    /// How much longer each worse candidate waits: more than a request and its answer take.
    pub stagger: Duration,
    /// How long voters keep a resource for the target of a planned move.
    pub reserve: Duration,
    /// How long the caller asks on the wire after an [`Event::Fence`]: longer than an owner by the witness may stand still
    /// and still be the owner, which is two beats.
    pub fence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(550),
            beat: Duration::from_millis(110),
            margin: Duration::from_millis(15),
            stagger: Duration::from_millis(40),
            reserve: Duration::from_millis(250),
            fence: Duration::from_millis(250),
        }
    }
}

impl Timing {
    /// How long a voter keeps a promise.
    pub fn promise(&self) -> Duration {
        self.lease + self.margin
    }

    /// How long it may take until all have heard of what is to have an owner.
    fn news(&self) -> Duration {
        self.beat * 2
    }

    /// How long the witness counts: it is asked of nobody, so it need not last.
    fn by_witness(&self) -> Duration {
        self.beat * 2
    }

    /// How long members that hear each other are silent at most, but for losses.
    fn quiet(&self) -> Duration {
        self.beat * 3 / 2
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node owns it, until [`Ownership::owned_until`].
    Acquired {
        /// Which.
        resource: Resource,
        /// Whose open flows are to be relayed: the move was planned.
        from: Option<NodeName>,
    },
    /// This node does not own it any more.
    Lost {
        /// Which.
        resource: Resource,
        /// Who has it, as far as known.
        to: Option<NodeName>,
    },
    /// A planned move did not come about: the target did not say that it is ready.
    Stayed {
        /// Which.
        resource: Resource,
        /// The target.
        to: NodeName,
    },
    /// A newer replica has come from another member.
    Replicated(Replica),
    /// A member is not heard any more, or its process was replaced.
    PeerGone(NodeName),
    /// A member is heard.
    PeerBack(NodeName),
    /// Two members: ask on the wire, for [`Timing::fence`], whether somebody answers or asks for it, too; then say so at
    /// once with [`Ownership::fence`]. What is said before that time or twice as late does not count.
    Fence(Resource),
}

/// Why a resource is not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefusal {
    /// Another node is to be asked.
    #[error("this node does not have it{}", owner.as_ref().map_or(String::new(), |owner| format!("; ask `{owner}`")))]
    NotOwner {
        /// Who has it, as far as known.
        owner: Option<NodeName>,
    },
    /// It may not be there.
    #[error("`{0}` is no candidate for it: see `dualgate vip explain`")]
    NotCandidate(NodeName),
    /// It would not come back.
    #[error("`{0}` is not heard")]
    PeerGone(NodeName),
    /// It is there already.
    #[error("`{0}` has it already")]
    Already(NodeName),
}

/// Why something is not replicated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishRefusal {
    /// Only the holder speaks for the site.
    #[error("this node is not the holder")]
    NotHolder,
    /// More than [`REPLICA_LIMIT`].
    #[error("{0} octets are more than {REPLICA_LIMIT}")]
    TooLarge(usize),
}

/// What is known of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its name.
    pub name: NodeName,
    /// Whether it is heard, and hears us.
    pub alive: bool,
    /// When it was last heard.
    pub last_heard: Option<Duration>,
    /// From a request to its answer, the last time.
    pub round_trip: Option<Duration>,
    /// Term and version of its replica, as it last said.
    pub replica: Option<(u64, u64)>,
}

/// Datagrams that were ignored, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Not of this version, or damaged.
    pub malformed: u64,
    /// Of a node that is no member.
    pub strangers: u64,
    /// Came before.
    pub replayed: u64,
    /// Of a session that has ended.
    pub stale: u64,
    /// Not sent, because the caller took too few.
    pub unsent: u64,
}

/// One member.
#[derive(Clone, Debug)]
pub struct Ownership {
    me: NodeName,
    incarnation: u64,
    random: Random,
    timing: Timing,
    now: Duration,
    /// Sorted; empty, or without this node, is no part in it.
    members: Vec<NodeName>,
    /// Of the members' names, sorted.
    voters: Vec<u64>,
    peers: BTreeMap<NodeName, Peer>,
    voter: Voter,
    claims: BTreeMap<Resource, Claim>,
    /// What was given up lately: said again in the next heartbeats.
    notices: BTreeMap<Resource, Notice>,
    /// Of requests to this node's own voter.
    own_requests: u64,
    /// Since when a majority is alive.
    quorum_since: Option<Duration>,
    witness: Option<Duration>,
    draining: bool,
    replication: Replication,
    holding: Option<Holding>,
    next_beat: Duration,
    wake: Duration,
    /// No lease of this node ends before.
    lapses: Duration,
    outbox: BTreeMap<NodeName, Vec<Part>>,
    transmit: VecDeque<(NodeName, Vec<u8>)>,
    events: VecDeque<Event>,
    ignored: Ignored,
}

#[derive(Clone, Debug)]
struct Notice {
    to: Option<NodeName>,
    until: Duration,
}

/// This node owns [`Resource::Holder`].
#[derive(Clone, Debug)]
struct Holding {
    term: u64,
    version: u64,
    from: Option<NodeName>,
    /// A majority knows the term, and what they know is here: the caller was told.
    told: bool,
    /// It does not wait any longer for a replica of which it has only heard.
    patient_until: Duration,
}

impl Ownership {
    /// A member that starts at `now`. `incarnation` and `seed` are random, other ones for each process.
    pub fn new(me: NodeName, incarnation: u64, seed: u64, timing: Timing, now: Duration) -> Self {
        Self {
            me,
            incarnation,
            random: Random::new(seed ^ incarnation.rotate_left(32)),
            timing,
            now,
            members: Vec::new(),
            voters: Vec::new(),
            peers: BTreeMap::new(),
            voter: Voter::new(now + timing.promise()),
            claims: BTreeMap::new(),
            notices: BTreeMap::new(),
            own_requests: 0,
            quorum_since: None,
            witness: None,
            draining: false,
            replication: Replication::default(),
            holding: None,
            next_beat: now,
            wake: now,
            lapses: Duration::MAX,
            outbox: BTreeMap::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            ignored: Ignored::default(),
        }
    }

    /// Who votes, this node among them; if it is not, it owns nothing and promises nothing. At most 32 count.
    pub fn set_members(&mut self, members: &[NodeName], now: Duration) {
        let now = self.advance(now);
        let mut members = members.to_vec();
        members.sort();
        members.dedup();
        members.truncate(VOTERS);
        if !members.contains(&self.me) {
            members.clear();
        }
        if members == self.members {
            return;
        }
        let gone: Vec<NodeName> = self.peers.keys().filter(|name| !members.contains(name)).cloned().collect();
        for name in gone {
            if self.peers.remove(&name).is_some_and(|peer| peer.is_alive()) {
                self.events.push_back(Event::PeerGone(name.clone()));
            }
            self.replication.forget(&name);
        }
        for name in members.iter().filter(|name| **name != self.me) {
            let challenge = self.random.nonce();
            self.peers.entry(name.clone()).or_insert_with(|| Peer::new(challenge, now));
        }
        self.voters = members.iter().map(digest).collect();
        self.voters.sort_unstable();
        self.members = members;
        if self.members.len() == 1 {
            // Nobody else can have a promise of it.
            self.voter.silent_until = Duration::ZERO;
        }
        self.quorum_since = None;
        self.count_alive(now);
        if self.members.is_empty() {
            for resource in self.claims.keys().copied().collect::<Vec<_>>() {
                self.let_go(resource, None, now);
            }
        }
        self.next_beat = now;
        self.tick(now);
    }

    /// What is to have an owner: all of it, each time.
    pub fn set_wishes(&mut self, wishes: Vec<Wish>, now: Duration) {
        let now = self.advance(now);
        let mut wishes: BTreeMap<Resource, Wish> = wishes.into_iter().map(|wish| (wish.resource, wish)).collect();
        for resource in self.claims.keys().copied().collect::<Vec<_>>() {
            if !wishes.contains_key(&resource) {
                self.unwish(resource, now);
            }
        }
        while let Some((resource, wish)) = wishes.pop_first() {
            let claim = self.claims.entry(resource).or_default();
            claim.wish(wish, &self.me, now);
            let (is_fit, is_owning) = (claim.is_fit(), claim.is_owning());
            match (is_fit, is_owning) {
                (true, _) => claim.moving = claim.moving.take().filter(|moving| moving.reason != Reason::Unfit),
                (false, true) => self.hand_over(resource, now),
                (false, false) => self.let_go(resource, None, now),
            }
        }
        self.tick(now);
    }

    /// Two members: the router has answered, which counts until then.
    pub fn set_witness(&mut self, reachable_until: Option<Duration>) {
        self.witness = reachable_until;
        self.wake = Duration::ZERO;
    }

    /// A sealed datagram was opened. What is no datagram of a member is counted and ignored.
    pub fn receive(&mut self, plaintext: &[u8], now: Duration) {
        let now = self.advance(now);
        self.arrive(plaintext, now);
        self.flush(now);
    }

    /// What is to be sent, and to whom: at most 1,100 octets each. Called until it has nothing, after each other call.
    pub fn poll_transmit(&mut self) -> Option<(NodeName, Vec<u8>)> {
        self.transmit.pop_front()
    }

    /// What has changed. Called until it has nothing, after each other call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Ownership::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let silent = self.peers.values().filter_map(|peer| peer.silent_at(self.timing.lease)).min();
        (!self.members.is_empty()).then(|| self.wake.min(silent.unwrap_or(Duration::MAX)))
    }

    /// The time has come, or something else has, and all that came was received: who has not been heard by now was silent. A
    /// process that stood still finds in its sockets what others said meanwhile.
    pub fn handle_timeout(&mut self, now: Duration) {
        let now = self.advance(now);
        self.look_at_peers(now);
        self.tick_if_due(now);
    }

    /// The same while more has come than was received: nobody counts as silent for now.
    pub fn handle_timeout_while_receiving(&mut self, now: Duration) {
        let now = self.advance(now);
        self.tick_if_due(now);
    }

    /// Until when this node owns it: whoever acts as its owner compares this with the clock right before.
    pub fn owned_until(&self, resource: &Resource) -> Option<Duration> {
        let is_told = *resource != Resource::Holder || self.holding.as_ref().is_some_and(|holding| holding.told);
        self.claims.get(resource)?.owned_until().filter(|_| is_told)
    }

    /// Who owns it, as far as known here.
    pub fn owner(&self, resource: &Resource) -> Option<NodeName> {
        let own = self.owned_until(resource).filter(|until| self.now < *until).map(|_| &self.me);
        own.or_else(|| self.voter.owner(*resource, self.now).filter(|owner| **owner != self.me)).cloned()
    }

    /// The other members.
    pub fn peers(&self) -> Vec<PeerView> {
        let view = |(name, peer): (&NodeName, &Peer)| {
            let key = self.replication.head_of(name).map(|head| (head.key.term, head.key.version));
            PeerView {
                name: name.clone(),
                alive: peer.is_alive(),
                last_heard: peer.heard,
                round_trip: peer.round_trip,
                replica: key.filter(|(term, _)| *term > 0),
            }
        };
        self.peers.iter().map(view).collect()
    }

    /// Datagrams that were ignored so far.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// The newest replica here.
    pub fn replica(&self) -> Option<Replica> {
        self.replication.replica().cloned()
    }

    /// What an earlier process of this node had, from its disk.
    pub fn restore(&mut self, term: u64, version: u64, bytes: Arc<[u8]>) {
        self.replication.install(Replica { term, version, bytes });
    }

    /// By the holder: all members are to have this. Returns its place in the order.
    pub fn publish(&mut self, bytes: Arc<[u8]>, now: Duration) -> Result<Replica, PublishRefusal> {
        let now = self.advance(now);
        if bytes.len() > REPLICA_LIMIT {
            return Err(PublishRefusal::TooLarge(bytes.len()));
        }
        let is_holder = self.owned_until(&Resource::Holder).is_some_and(|until| now < until);
        let Some(holding) = self.holding.as_mut().filter(|_| is_holder) else { return Err(PublishRefusal::NotHolder) };
        if self.replication.seen > holding.term {
            // Somebody came back with the word of a holder that no majority knew.
            (holding.term, holding.version) = (self.replication.seen + 1, 0);
        }
        holding.version += 1;
        let replica = Replica { term: holding.term, version: holding.version, bytes };
        self.replication.install(replica.clone());
        self.say_head();
        self.flush(now);
        Ok(replica)
    }

    /// It is `now`. A lease that has ended has ended, before anything is said or answered.
    fn advance(&mut self, now: Duration) -> Duration {
        self.now = self.now.max(now);
        if self.lapses <= self.now {
            self.lapse(self.now);
        }
        self.now
    }

    fn lapse(&mut self, now: Duration) {
        let leases = |claims: &BTreeMap<Resource, Claim>| -> Vec<(Resource, Duration)> {
            claims.iter().filter_map(|(resource, claim)| Some((*resource, claim.owned_until()?))).collect()
        };
        for (resource, _) in leases(&self.claims).into_iter().filter(|(_, until)| *until <= now) {
            let to = self.voter.owner(resource, now).filter(|owner| **owner != self.me).cloned();
            self.tell_lost(resource, to);
            self.withdraw(resource, now, now);
        }
        self.lapses = leases(&self.claims).into_iter().map(|(_, until)| until).min().unwrap_or(Duration::MAX);
    }

    fn tick_if_due(&mut self, now: Duration) {
        if self.wake <= now {
            self.tick(now);
        }
    }

    fn tick(&mut self, now: Duration) {
        self.wake = now + self.timing.beat;
        if self.members.is_empty() {
            self.flush(now);
            return;
        }
        for resource in self.claims.keys().copied().collect::<Vec<_>>() {
            self.look_at(resource, now);
        }
        if self.next_beat <= now {
            self.next_beat = now + self.timing.beat;
            self.beat(now);
        }
        self.look_at_term(now);
        self.ask_for_replica(now);
        self.wake_at(self.next_beat);
        self.flush(now);
    }

    /// The next tick is not later than that.
    fn wake_at(&mut self, at: Duration) {
        self.wake = self.wake.min(at);
    }

    fn look_at_peers(&mut self, now: Duration) {
        let mut ended = Vec::new();
        for (name, peer) in &mut self.peers {
            if peer.silent_at(self.timing.lease).is_some_and(|silent| silent <= now) {
                peer.end();
                ended.push(name.clone());
            }
        }
        for name in ended {
            self.replication.forget(&name);
            self.events.push_back(Event::PeerGone(name));
            self.count_alive(now);
            self.wake_at(now);
        }
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    fn count_alive(&mut self, now: Duration) {
        let alive = self.peers.values().filter(|peer| peer.is_alive()).count() + 1;
        match self.quorum_since {
            None if alive >= self.majority() => self.quorum_since = Some(now),
            Some(_) if alive < self.majority() => self.quorum_since = None,
            None | Some(_) => {}
        }
    }

    fn beat(&mut self, now: Duration) {
        let held: Vec<Resource> =
            self.claims.iter().filter(|(_, claim)| claim.is_active()).map(|(id, _)| *id).collect();
        for resource in &held {
            self.renew(*resource, now);
        }
        self.notices.retain(|_, notice| now < notice.until);
        self.voter.forget(now.saturating_sub(self.timing.lease));
        self.claims.retain(|_, claim| !claim.is_forgotten(now.saturating_sub(self.timing.lease)));
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.beat_to(&name, now);
        }
    }

    /// One heartbeat: all that a member has to know of this one.
    fn beat_to(&mut self, name: &NodeName, now: Duration) {
        if !self.peers.get(name).is_some_and(Peer::is_alive) {
            self.challenge(name, 0, now);
            return;
        }
        let mut parts = vec![self.head_part()];
        for (resource, claim) in &self.claims {
            let (resource, owning) = (*resource, claim.is_owning());
            if claim.is_asking() || owning {
                parts.push(Part::Claim { resource, owning });
            }
            if claim.moving.as_ref().is_some_and(|moving| moving.waits_for(name)) {
                parts.push(Part::Offer(resource));
            }
        }
        let release =
            |(resource, notice): (&Resource, &Notice)| Part::Release { resource: *resource, to: notice.to.clone() };
        parts.extend(self.notices.iter().map(release));
        self.outbox.entry(name.clone()).or_default().extend(parts);
    }

    /// Asks for a session.
    fn challenge(&mut self, name: &NodeName, yours: u64, now: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (mine, counter) = peer.next_challenge();
        let header = self.header(mine, yours, counter, now);
        for datagram in encode(&[], || header.clone()) {
            self.send(name.clone(), datagram);
        }
    }

    fn header(&self, mine: u64, yours: u64, counter: u64, sent: Duration) -> Header {
        let (sender, voters) = (self.me.clone(), self.voters.clone());
        Header { sender, incarnation: self.incarnation, mine, yours, counter, sent, voters }
    }

    fn say(&mut self, to: &NodeName, part: Part) {
        self.outbox.entry(to.clone()).or_default().push(part);
    }

    fn say_to_all(&mut self, part: &Part) {
        for name in self.peers.iter().filter(|(_, peer)| peer.is_alive()).map(|(name, _)| name) {
            self.outbox.entry(name.clone()).or_default().push(part.clone());
        }
    }

    fn say_head(&mut self) {
        let head = self.head_part();
        self.say_to_all(&head);
    }

    fn head_part(&self) -> Part {
        let head = self.replication.head();
        Part::Head { seen: head.seen, key: head.key, length: head.length }
    }

    /// What was said becomes datagrams. What was said to nobody is not said.
    fn flush(&mut self, now: Duration) {
        while let Some((name, parts)) = self.outbox.pop_first() {
            let base = self.header(0, 0, 0, now);
            let Some(peer) = self.peers.get_mut(&name).filter(|peer| peer.is_alive()) else { continue };
            let next = || {
                let (mine, yours, counter) = peer.next().unwrap_or_default();
                Header { mine, yours, counter, ..base.clone() }
            };
            for datagram in encode(&parts, next) {
                self.send(name.clone(), datagram);
            }
        }
    }

    fn send(&mut self, to: NodeName, datagram: Vec<u8>) {
        if self.transmit.len() >= WAITING {
            self.transmit.pop_front();
            self.ignored.unsent += 1;
        }
        self.transmit.push_back((to, datagram));
    }

    /// This node's own voter has its own order.
    fn own_order(&mut self) -> Order {
        self.own_requests += 1;
        Order { session: 0, counter: self.own_requests }
    }

    /// The other one of two members.
    fn other(&self) -> Option<&NodeName> {
        let [a, b] = self.members.as_slice() else { return None };
        Some(if *a == self.me { b } else { a })
    }

    /// A holder begins a term, and is told once a majority knows it and what they have is here.
    fn begin_term(&mut self, from: Option<NodeName>, now: Duration) {
        let term = self.replication.seen + 1;
        self.replication.seen = term;
        let patient_until = now + self.timing.lease * 2;
        self.holding = Some(Holding { term, version: 0, from, told: false, patient_until });
        self.say_head();
        self.look_at_term(now);
    }

    fn look_at_term(&mut self, now: Duration) {
        let Some(claim) = self.claims.get(&Resource::Holder).filter(|claim| claim.is_owning()) else { return };
        let is_alone = self.other().is_some() && now < claim.witness;
        let needed = if is_alone { 1 } else { self.majority() };
        let Some(holding) = self.holding.as_mut().filter(|holding| !holding.told) else { return };
        let knows = |name: &&NodeName| self.replication.head_of(name).is_some_and(|head| head.seen >= holding.term);
        let knowing = 1 + self.peers.keys().filter(knows).count();
        if knowing < needed || (self.replication.is_behind() && now < holding.patient_until) {
            return;
        }
        holding.told = true;
        let from = holding.from.take();
        self.events.push_back(Event::Acquired { resource: Resource::Holder, from });
    }

    fn ask_for_replica(&mut self, now: Duration) {
        if let Some((from, part)) = self.replication.ask(self.timing.stagger, now) {
            self.say(&from, part);
        }
        if let Some(due) = self.replication.due() {
            self.wake_at(due);
        }
    }

    fn tell_acquired(&mut self, resource: Resource, from: Option<NodeName>, now: Duration) {
        match resource {
            Resource::Holder => self.begin_term(from, now),
            Resource::Group(_) => self.events.push_back(Event::Acquired { resource, from }),
        }
    }

    fn tell_lost(&mut self, resource: Resource, to: Option<NodeName>) {
        let was_told = match resource {
            Resource::Holder => self.holding.take().is_some_and(|holding| holding.told),
            Resource::Group(_) => true,
        };
        if was_told {
            self.events.push_back(Event::Lost { resource, to });
        }
    }
}

fn digest(name: &NodeName) -> u64 {
    let digest = Sha256::digest(name.as_str());
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}
