//! The announcer: answers for virtual IPs on one LAN, in both families, and notices who else does.
//!
//! It takes whole Ethernet frames and gives whole Ethernet frames. For an address that is held it answers whoever asks,
//! tells the LAN again and again where the address is, defends it, and asks whether somebody else has it. Each hold has a
//! deadline: past it nothing that claims the address leaves this machine, whatever was queued before. Who may hold what
//! is decided elsewhere (`ownership`); which stations are friends the shell knows.
//!
//! Sources: RFC 826 and 5227 (ARP), RFC 4861 7.2 (Neighbour Discovery), RFC 7527 (probes that come back), RFC 9131
//! (routers are told, too).

mod conflict;
mod frame;
mod pace;
mod receive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use dualgate_wire::arp::{ArpError, Operation};
use dualgate_wire::ethernet::{Mac, Truncated};
use dualgate_wire::ndp::{self, NdpError, Nonce};

use conflict::Conflicts;
use frame::Outgoing;
use pace::Budget;

use crate::machine::random::Random;

/// So many frames wait to be sent, at most.
const QUEUE: usize = 4096;

/// So many events wait to be looked at, at most.
const EVENTS: usize = 4096;

/// Of so many questions the numbers are known again when they come back.
const NONCES: usize = 256;

/// The interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its own address on the LAN, which all frames come from.
    pub mac: Mac,
    /// Where questions about IPv6 addresses come from; without it they come from `::`.
    pub link_local: Option<Ipv6Addr>,
    /// The node's own addresses, where [`Announcer::probe`] asks from.
    pub addresses: Vec<IpAddr>,
}

/// When things happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When an address is announced after it was acquired, counted from that moment.
    pub burst: Vec<Duration>,
    /// How long after that it is announced again and again.
    pub refresh: RangeInclusive<Duration>,
    /// How long after one defence the next one may be (DEFEND_INTERVAL of RFC 5227).
    pub defend: Duration,
    /// When the first question for somebody else with the address is sent, after it was acquired or the link came up.
    pub first_question: Duration,
    /// How long after that it is asked again and again.
    pub question: RangeInclusive<Duration>,
    /// How long an answer may take to count as one to that question.
    pub answer: Duration,
    /// How often a conflict that lasts is told again.
    pub repeat: Duration,
    /// After so much silence a conflict is over.
    pub silence: Duration,
    /// How far the questions of a probe are apart.
    pub probe_step: Duration,
    /// How many there are.
    pub probe_questions: u32,
    /// When a probe ends without an answer.
    pub probe_end: Duration,
    /// So many answers leave per second, and as many at once.
    pub answers_per_second: u32,
    /// So many of them to one station.
    pub answers_to_one: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            burst: [0, 100, 300, 1000, 2000, 4000].map(Duration::from_millis).to_vec(),
            refresh: Duration::from_secs(30)..=Duration::from_secs(60),
            defend: Duration::from_secs(10),
            first_question: Duration::from_secs(1),
            question: Duration::from_secs(30)..=Duration::from_secs(60),
            answer: Duration::from_secs(1),
            repeat: Duration::from_secs(60),
            silence: Duration::from_secs(120),
            probe_step: Duration::from_millis(40),
            probe_questions: 3,
            probe_end: Duration::from_millis(150),
            answers_per_second: 1000,
            answers_to_one: 250,
        }
    }
}

/// What there is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another station has an address that is held here. Told once for each of them, and again while it lasts.
    Conflict {
        /// The address.
        address: IpAddr,
        /// The station.
        mac: Mac,
        /// How it was noticed last.
        heard: Heard,
    },
    /// Nobody else has the address any more, or it is no longer held here.
    ConflictOver {
        /// The address.
        address: IpAddr,
    },
    /// A probe has ended.
    Answered {
        /// What was asked about.
        address: IpAddr,
        /// Who has it; `None` if nobody answered in time.
        mac: Option<Mac>,
    },
}

/// How somebody else was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It spoke by itself.
    Passive,
    /// It answered a question.
    Active,
}

/// Why a frame came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// The link is down.
    #[error("the link is down")]
    LinkDown,
    /// It is from here.
    #[error("it is from this machine")]
    Own,
    /// The sender's address on the LAN is that of a group, or of nobody.
    #[error("the sender is no station")]
    NoStation,
    /// It was sent to another station.
    #[error("it is for another station")]
    NotForUs,
    /// Neither ARP nor one of the two messages of Neighbour Discovery.
    #[error("it is neither ARP nor Neighbour Solicitation or Advertisement")]
    Other,
    /// It is about an address that is neither held nor asked about.
    #[error("its address is not held here")]
    NotHeld,
    /// It is about an address whose deadline has passed.
    #[error("the deadline of its address has passed")]
    Expired,
    /// It would be one answer too many.
    #[error("too many questions at once")]
    Flooded,
    /// It cannot be read.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its header.
    #[error(transparent)]
    Ethernet(#[from] Truncated),
    /// Its ARP packet.
    #[error(transparent)]
    Arp(#[from] ArpError),
    /// Its message of Neighbour Discovery.
    #[error(transparent)]
    Ndp(#[from] NdpError),
}

/// How many frames of each kind were sent, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// To one who asked.
    pub answers: u64,
    /// To all: gratuitous ARP, unsolicited advertisements, and defences against one who looks whether an address is free.
    pub announcements: u64,
    /// Whether somebody else has an address.
    pub questions: u64,
}

/// One LAN interface.
#[derive(Debug)]
pub struct Announcer {
    link: Option<Link>,
    timing: Timing,
    random: Random,
    held: BTreeMap<IpAddr, Held>,
    watched: BTreeSet<IpAddr>,
    /// When another station said last that it has a watched address.
    spoken: BTreeMap<IpAddr, Duration>,
    probes: BTreeMap<IpAddr, Probe>,
    nonces: VecDeque<Nonce>,
    budget: Budget,
    queue: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    counters: Counters,
}

/// An address that is held.
#[derive(Debug)]
struct Held {
    /// From here on nothing claims it.
    until: Duration,
    /// Seen past its deadline: it waits to be held again, or released.
    lapsed: bool,
    /// When it was acquired, or the link came up.
    began: Duration,
    /// How many announcements of the burst are done.
    announced: usize,
    announce_at: Duration,
    ask_at: Duration,
    asked: Option<Duration>,
    defended: Option<Duration>,
    conflicts: Conflicts,
}

/// A question that somebody waits for.
#[derive(Debug)]
struct Probe {
    began: Duration,
    asked: u32,
}

impl Announcer {
    /// An interface that is up. `seed` decides the jitter, and the numbers of questions.
    pub fn new(link: Link, seed: u64, timing: Timing) -> Self {
        Self {
            link: Some(link),
            timing,
            random: Random::new(seed),
            held: BTreeMap::new(),
            watched: BTreeSet::new(),
            spoken: BTreeMap::new(),
            probes: BTreeMap::new(),
            nonces: VecDeque::new(),
            budget: Budget::default(),
            queue: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The interface went down, came up, or has other addresses. Up again, or with another address on the LAN, everything
    /// that is held is announced as if it were acquired at `now`.
    pub fn set_link(&mut self, link: Option<Link>, now: Duration) {
        let mac = |link: &Option<Link>| link.as_ref().map(|link| link.mac);
        let moved = mac(&self.link) != mac(&link);
        self.link = link;
        if moved {
            self.queue.clear();
            let first_question = self.timing.first_question;
            self.held.values_mut().for_each(|held| held.begin(now, first_question));
            self.handle_timeout(now);
        }
    }

    /// Holds an address until a moment, which later calls move. At first, and again once its deadline had passed, it is
    /// announced at once. What is no host's address is not held.
    pub fn hold(&mut self, address: IpAddr, until: Duration, now: Duration) {
        if !is_host(address) {
            return;
        }
        let first_question = self.timing.first_question;
        let held = self.held.entry(address).or_insert_with(Held::lapsed);
        let acquired = held.lapsed || now >= held.until;
        held.until = until;
        if acquired {
            held.lapsed = false;
            held.begin(now, first_question);
            self.look_after(address, now);
        }
    }

    /// Is silent about an address from here on.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(held) = self.held.remove(&address)
            && !held.conflicts.is_empty()
        {
            self.tell(Event::ConflictOver { address });
        }
    }

    /// Replaces the addresses that may be held here one day: their groups are joined beforehand.
    pub fn watch(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.watched = addresses.into_iter().collect();
        self.spoken.retain(|address, _| self.watched.contains(address));
    }

    /// When another station said last, so that it was heard here, that it has an address that is watched.
    pub fn spoken_for(&self, address: IpAddr) -> Option<Duration> {
        self.spoken.get(&address).copied()
    }

    /// The solicited-node groups of what is held and watched, which the interface has to join.
    pub fn groups(&self) -> BTreeSet<Ipv6Addr> {
        let addresses = self.held.keys().chain(&self.watched);
        addresses.filter_map(|address| v6(*address)).map(ndp::solicited_node).collect()
    }

    /// Every address that a frame may be about: held, watched or asked about. The packet socket's filter is made of them
    /// (`dualgate_wire::bpf::filter`).
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.held.keys().chain(&self.watched).chain(self.probes.keys()).copied().collect()
    }

    /// Asks whether another station has an address, or looks whether it could have one that is watched. [`Event::Answered`] tells at the first answer, or after
    /// [`Timing::probe_end`]; one that runs already answers for both. Nobody has what is no host's address.
    pub fn probe(&mut self, address: IpAddr, now: Duration) {
        self.probes.entry(address).or_insert(Probe { began: now, asked: 0 });
        self.go_on_asking(address, now);
    }

    /// The next frame to send, at `now`. The queue is empty when there is none.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        let link = self.link.as_ref()?;
        while let Some(outgoing) = self.queue.pop_front() {
            if outgoing.claims().is_some_and(|address| !is_held(&self.held, address, now)) {
                continue;
            }
            match outgoing.kind() {
                frame::Kind::Answer => self.counters.answers += 1,
                frame::Kind::Announcement => self.counters.announcements += 1,
                frame::Kind::Question => self.counters.questions += 1,
            }
            return Some(outgoing.frame(link.mac));
        }
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many frames were sent.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When [`Announcer::handle_timeout`] is to be called next, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let up = self.link.is_some();
        let held = self.held.values().filter(|held| !held.lapsed);
        let due = held.flat_map(|held| {
            let speaks = up.then_some(held.announce_at.min(held.ask_at));
            let conflict = held.conflicts.next(&self.timing).map(|next| next.min(held.until));
            [speaks, conflict]
        });
        let probes = self.probes.values().map(|probe| Some(probe.next(&self.timing)));
        due.chain(probes).flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        let addresses: Vec<IpAddr> = self.held.keys().copied().collect();
        for address in addresses {
            self.look_after(address, now);
        }
        let probes: Vec<IpAddr> = self.probes.keys().copied().collect();
        for address in probes {
            self.go_on_asking(address, now);
        }
    }

    fn look_after(&mut self, address: IpAddr, now: Duration) {
        let Some(held) = self.held.get_mut(&address) else { return };
        if held.lapsed || now >= held.until {
            held.lapsed = true;
            let over = held.conflicts.forget();
            if over {
                self.tell(Event::ConflictOver { address });
            }
            return;
        }
        let (lasting, over) = held.conflicts.look(now, &self.timing);
        let up = self.link.is_some();
        let announce = up && now >= held.announce_at;
        if announce {
            held.announced += 1;
            // What could not be announced in time is not made up for.
            let at = |step: usize| self.timing.burst.get(step).map(|after| held.began.saturating_add(*after));
            while at(held.announced).is_some_and(|due| due <= now) {
                held.announced += 1;
            }
            let refresh = || now.saturating_add(self.random.within(&self.timing.refresh));
            held.announce_at = at(held.announced).unwrap_or_else(refresh);
        }
        let ask = up && now >= held.ask_at;
        if ask {
            held.asked = Some(now);
            held.ask_at = now.saturating_add(self.random.within(&self.timing.question));
        }
        if announce {
            self.announce(address);
        }
        if ask {
            self.ask(address, Asker::Nobody);
        }
        for (mac, heard) in lasting {
            self.tell(Event::Conflict { address, mac, heard });
        }
        if over {
            self.tell(Event::ConflictOver { address });
        }
    }

    fn go_on_asking(&mut self, address: IpAddr, now: Duration) {
        let Some(probe) = self.probes.get_mut(&address) else { return };
        if now >= probe.began.saturating_add(self.timing.probe_end) {
            self.probes.remove(&address);
            self.tell(Event::Answered { address, mac: None });
        } else if now >= probe.next(&self.timing) {
            // Some answer only whom they can place in their network, some are asked best as if by a newcomer. Who would take
            // the address asks as a newcomer first: another one that asks the same is to hear of it.
            let asker = match (self.watched.contains(&address), probe.asked.is_multiple_of(2)) {
                (true, true) => Asker::Newcomer,
                (true, false) | (false, true) => Asker::Node,
                (false, false) => Asker::Nobody,
            };
            while probe.next(&self.timing) <= now {
                probe.asked += 1;
            }
            self.ask(address, asker);
        }
    }

    /// Tells everybody where an address is, in all forms.
    fn announce(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.send(Outgoing::Gratuitous { address, form: Operation::Request });
                self.send(Outgoing::Gratuitous { address, form: Operation::Reply });
            }
            IpAddr::V6(address) => {
                self.send(Outgoing::Unsolicited { address, to: ndp::ALL_NODES });
                self.send(Outgoing::Unsolicited { address, to: ndp::ALL_ROUTERS });
            }
        }
    }

    fn ask(&mut self, address: IpAddr, asker: Asker) {
        let Some(link) = self.link.as_ref().filter(|_| is_host(address)) else { return };
        let question = match (address, asker) {
            (IpAddr::V4(target), Asker::Newcomer | Asker::Nobody) => {
                Outgoing::Request { target, sender: Ipv4Addr::UNSPECIFIED }
            }
            (IpAddr::V4(target), Asker::Node) => Outgoing::Request { target, sender: nearest(&link.addresses, target) },
            (IpAddr::V6(target), asker) => match link.link_local.filter(|_| asker != Asker::Newcomer) {
                Some(source) => Outgoing::Solicitation { target, source },
                None => {
                    let nonce = self.random.octets();
                    self.nonces.truncate(NONCES - 1);
                    self.nonces.push_front(nonce);
                    Outgoing::Detection { target, nonce }
                }
            },
        };
        self.send(question);
    }

    fn send(&mut self, outgoing: Outgoing) {
        // A shell that sends what there is never comes near the bound; what is said again anyway may be lost.
        if self.queue.len() < QUEUE {
            self.queue.push_back(outgoing);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Whom a question comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// `0.0.0.0` or `::`: one who would take the address if nobody has it.
    Newcomer,
    /// `0.0.0.0`, so that nobody learns from the question. IPv6 asks from the link-local address if there is one.
    Nobody,
    /// An address of the node.
    Node,
}

impl Held {
    fn lapsed() -> Self {
        Self {
            until: Duration::ZERO,
            lapsed: true,
            began: Duration::ZERO,
            announced: 0,
            announce_at: Duration::ZERO,
            ask_at: Duration::ZERO,
            asked: None,
            defended: None,
            conflicts: Conflicts::default(),
        }
    }

    fn begin(&mut self, now: Duration, first_question: Duration) {
        (self.began, self.announced, self.announce_at) = (now, 0, now);
        self.ask_at = now.saturating_add(first_question);
    }
}

impl Probe {
    fn next(&self, timing: &Timing) -> Duration {
        let after = if self.asked < timing.probe_questions {
            timing.probe_step.saturating_mul(self.asked).min(timing.probe_end)
        } else {
            timing.probe_end
        };
        self.began.saturating_add(after)
    }
}

fn is_held(held: &BTreeMap<IpAddr, Held>, address: IpAddr, now: Duration) -> bool {
    held.get(&address).is_some_and(|held| now < held.until)
}

fn is_host(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

/// The node's address that has the longest beginning in common with the target.
fn nearest(addresses: &[IpAddr], target: Ipv4Addr) -> Ipv4Addr {
    let own = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    own.min_by_key(|own| u32::from(*own) ^ u32::from(target)).unwrap_or(Ipv4Addr::UNSPECIFIED)
}
