//! Resolving of what is not ours: questions go to other resolvers, and answers are kept.
//!
//! The same question of several askers is asked once. Each attempt has a socket, a number and a spelling of the name of its
//! own, so that nobody can guess what an answer must look like (RFC 5452; letters as in draft-vixie-dnsext-dns0x20). An
//! upstream that is silent costs [`NEXT`], then the next one is asked, too; after [`STALE_AFTER`] an answer whose time is over
//! is told, if there is one (RFC 8767). Answers that lead into the home network are not told (rebinding).
//!
//! `now` is any clock that does not go back. Nothing is sent here: [`Resolver::next`] says what to do.

mod cache;
mod message;
mod rebind;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use cache::Key;
use cache::{Cache, Found};
pub use message::{DnssecOk, Question};
use message::{IN, Kept, NOERROR, NS, NXDOMAIN, Remark, Reply, SERVFAIL};
use upstream::Upstreams;

use dualgate_wire::dns::Name;

use crate::plan::dns::{ResolverPlan, Upstream};

/// After so long without an answer another upstream is asked, too.
pub const NEXT: Duration = Duration::from_millis(800);
/// After so long an asker gets a stale answer, if there is one (RFC 8767 5).
pub const STALE_AFTER: Duration = Duration::from_millis(1800);
/// After so long an asker hears that there is no answer: just before most ask again.
pub const GIVE_UP: Duration = Duration::from_millis(4500);
/// How often one question is asked.
const ATTEMPTS: u8 = 5;
/// How many questions are open at a time.
const OPEN: usize = 512;
/// How many askers wait for one question.
const ASKERS: usize = 64;
/// How long it is remembered that nobody answers (RFC 9520 3.2), in seconds.
const FAILED: u32 = 5;
/// How long it is remembered that an answer led home.
const BLOCKED: u32 = 60;
/// By which browsers are told to ask the network's own resolver.
const CANARY: &[u8] = b"\x13use-application-dns\x03net\0";
/// Names that are local by definition: reverse zones and `home.arpa`.
const ARPA: &[u8] = b"\x04arpa\0";

/// Whom to ask for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whom to ask, the best first.
    pub upstreams: Vec<SocketAddr>,
    /// Whom to ask for names at or below one, in wire form and small letters.
    pub per_zone: Vec<(Box<[u8]>, Vec<SocketAddr>)>,
    /// Names whose answers may lead into the home network.
    pub rebind_allowed: Vec<Box<[u8]>>,
}

impl Rules {
    /// As planned.
    pub fn of(plan: Option<&ResolverPlan>) -> Self {
        let Some(plan) = plan else { return Self::default() };
        let addresses = |upstreams: &[Upstream]| upstreams.iter().map(|upstream| upstream.address).collect();
        let zone = |(name, upstreams): &(Name, Vec<Upstream>)| (name.as_wire().into(), addresses(upstreams));
        Self {
            upstreams: addresses(&plan.upstreams),
            per_zone: plan.per_zone.iter().map(zone).collect(),
            rebind_allowed: plan.rebind_allowed.iter().map(|name| name.as_wire().into()).collect(),
        }
    }
}

/// How a question is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP, from a socket of its own that hears this upstream only.
    Udp,
    /// TCP, with a length before the message.
    Tcp,
}

/// One question to one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<A> {
    /// Send this, and hand on what comes back.
    Send {
        /// Of which attempt it is.
        attempt: AttemptId,
        /// To whom.
        to: SocketAddr,
        /// How.
        over: Carrier,
        /// What.
        message: Vec<u8>,
    },
    /// Nothing of this attempt is waited for any more.
    Forget(AttemptId),
    /// Tell an asker.
    Answer {
        /// Whom.
        asker: A,
        /// What.
        message: Vec<u8>,
    },
}

/// What has happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions of askers.
    pub asked: u64,
    /// Answered from what was known.
    pub hits: u64,
    /// Answered from what was known and is over.
    pub stale: u64,
    /// Messages to upstreams.
    pub sent: u64,
    /// Answered with a failure.
    pub failed: u64,
    /// Answers of upstreams that led home.
    pub blocked: u64,
    /// Messages that answered nothing that was asked.
    pub foreign: u64,
    /// Questions that were too many.
    pub overflow: u64,
}

/// Asks others. `A` is how its user finds an asker again.
pub struct Resolver<A> {
    rules: Arc<Rules>,
    cache: Cache,
    open: BTreeMap<Arc<Key>, Open<A>>,
    attempts: BTreeMap<AttemptId, Attempt>,
    upstreams: Upstreams,
    actions: VecDeque<Action<A>>,
    numbers: u64,
    random: Box<dyn FnMut() -> u64 + Send>,
    counts: Counts,
}

impl<A> fmt::Debug for Resolver<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("open", &self.open.len()).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// A question that waits for its answer.
struct Open<A> {
    askers: Vec<(Question, A)>,
    /// Whom to ask, in turn.
    order: Vec<SocketAddr>,
    attempts: u8,
    since: Duration,
    /// When another upstream is asked.
    next: Option<Duration>,
    /// Whether those who have waited long enough were told something stale.
    told_stale: bool,
}

struct Attempt {
    /// `None`: only whether an upstream is there is asked.
    key: Option<Arc<Key>>,
    upstream: SocketAddr,
    over: Carrier,
    id: u16,
    /// In the letters that were sent.
    name: Box<[u8]>,
    until: Duration,
}

impl<A> Resolver<A> {
    /// Keeps answers of so many octets. `random` gives numbers that nobody can foresee.
    pub fn new(cache: usize, random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        Self {
            rules: Arc::default(),
            cache: Cache::new(cache),
            open: BTreeMap::new(),
            attempts: BTreeMap::new(),
            upstreams: Upstreams::default(),
            actions: VecDeque::new(),
            numbers: 0,
            random,
            counts: Counts::default(),
        }
    }

    /// Whom to ask from now on. Open questions go on as they began; what is known is forgotten.
    pub fn follow(&mut self, rules: Arc<Rules>) {
        if *rules == *self.rules {
            return;
        }
        let all = rules.upstreams.iter().chain(rules.per_zone.iter().flat_map(|(_, upstreams)| upstreams));
        self.upstreams.are(all.copied());
        self.rules = rules;
        self.cache.clear();
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many answers are kept, and how many octets they take.
    pub fn kept(&self) -> (usize, usize) {
        self.cache.size()
    }

    /// Upstreams that do not answer.
    pub fn away(&self) -> Vec<SocketAddr> {
        self.upstreams.away().collect()
    }

    /// Somebody asks.
    pub fn ask(&mut self, question: Question, asker: A, now: Duration) {
        self.counts.asked += 1;
        let name: Box<[u8]> = question.name.to_ascii_lowercase().into();
        let dnssec_ok = question.edns.unwrap_or(DnssecOk::No);
        let (rtype, class, checking_disabled) = (question.rtype, question.class, question.checking_disabled);
        let key = Key { name, rtype, class, dnssec_ok, checking_disabled };
        if is_below(&key.name, CANARY) {
            return self.tell(&Kept::made(NXDOMAIN, 0), &question, asker, None);
        }
        if let Some(open) = self.open.get_mut(&key) {
            if open.askers.len() < ASKERS {
                open.askers.push((question, asker));
            } else {
                self.refuse(&question, asker);
            }
            return;
        }
        let order = self.order(&key.name);
        let is_hopeless = order.iter().all(|upstream| self.upstreams.is_away(*upstream));
        match self.cache.find(&key, now) {
            Some(Found::Fresh(kept, age)) => {
                self.counts.hits += 1;
                let mut message = Vec::new();
                kept.answer(&question, age, None, &mut message);
                self.actions.push_back(Action::Answer { asker, message });
            }
            Some(Found::Stale(kept)) if is_hopeless => {
                // Whoever asks next may get something better.
                self.counts.stale += 1;
                let mut message = Vec::new();
                kept.answer(&question, 0, Some(Remark::Stale), &mut message);
                self.actions.push_back(Action::Answer { asker, message });
                self.begin(key, Vec::new(), order, now);
            }
            _ => self.begin(key, vec![(question, asker)], order, now),
        }
    }

    /// What came back for an attempt.
    pub fn arrived(&mut self, id: AttemptId, message: &[u8], now: Duration) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let (rtype, class) = attempt.key.as_ref().map_or((NS, IN), |key| (key.rtype, key.class));
        let reply = message::reply(message, attempt.id, &attempt.name, rtype, class);
        match (reply, attempt.over) {
            (Reply::Foreign, _) => self.counts.foreign += 1,
            (Reply::OtherLetters | Reply::Truncated, Carrier::Udp) => self.again_by_tcp(id, now),
            // A connection has shown that it is the upstream who speaks; cut answers make no sense there.
            (Reply::OtherLetters | Reply::Truncated | Reply::Refused, _) => self.end_attempt(id, true, now),
            (Reply::Answer(kept), _) => self.answered(id, kept, now),
        }
    }

    /// An attempt cannot succeed any more: its upstream is not there, or has closed.
    pub fn failed(&mut self, id: AttemptId, now: Duration) {
        self.end_attempt(id, false, now);
    }

    /// When [`Resolver::pass`] is to be called.
    pub fn due(&self) -> Option<Duration> {
        let open = self.open.values().map(|open| {
            let stale = if open.told_stale { GIVE_UP } else { STALE_AFTER };
            open.next.unwrap_or(Duration::MAX).min(open.since + stale).min(open.since + GIVE_UP)
        });
        let attempts = self.attempts.values().filter(|attempt| attempt.key.is_none()).map(|attempt| attempt.until);
        open.chain(attempts).chain(self.upstreams.due()).min()
    }

    /// Time has passed.
    pub fn pass(&mut self, now: Duration) {
        for upstream in self.upstreams.probes(now) {
            self.send(None, b"\0".as_slice().into(), upstream, Carrier::Udp, now + NEXT);
        }
        let over = |attempt: &Attempt| attempt.key.is_none() && attempt.until <= now;
        let over: Vec<AttemptId> = self.attempts.iter().filter(|(_, one)| over(one)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| drop(self.forget(id)));
        let keys: Vec<Arc<Key>> = self.open.keys().cloned().collect();
        for key in keys {
            let Some(open) = self.open.get(&key) else { continue };
            let age = now.saturating_sub(open.since);
            let (is_next, is_stale) = (open.next.is_some_and(|next| next <= now), !open.told_stale);
            if age >= GIVE_UP {
                self.give_up(&key, now);
                continue;
            }
            if age >= STALE_AFTER && is_stale {
                self.tell_stale(&key, now);
            }
            if is_next {
                self.silent(&key, now);
                self.attempt(&key, now);
            }
        }
    }

    /// What is to be done next.
    pub fn action(&mut self) -> Option<Action<A>> {
        self.actions.pop_front()
    }

    /// Whom to ask, who is there first.
    fn order(&self, name: &[u8]) -> Vec<SocketAddr> {
        let zones = self.rules.per_zone.iter().filter(|(zone, _)| is_below(name, zone));
        let closest = zones.max_by_key(|(zone, _)| zone.len()).map(|(_, upstreams)| upstreams);
        let mut order = closest.unwrap_or(&self.rules.upstreams).clone();
        order.sort_by_key(|upstream| self.upstreams.is_away(*upstream));
        order
    }

    fn begin(&mut self, key: Key, askers: Vec<(Question, A)>, order: Vec<SocketAddr>, now: Duration) {
        if order.is_empty() || self.open.len() >= OPEN {
            return askers.into_iter().for_each(|(question, asker)| self.refuse(&question, asker));
        }
        let key = Arc::new(key);
        let open = Open { askers, order, attempts: 0, since: now, next: None, told_stale: false };
        self.open.insert(key.clone(), open);
        self.attempt(&key, now);
    }

    /// Asks the next upstream in turn.
    fn attempt(&mut self, key: &Arc<Key>, now: Duration) {
        let Some(open) = self.open.get_mut(key) else { return };
        let upstream = open.order[usize::from(open.attempts) % open.order.len()];
        open.attempts += 1;
        open.next = (open.attempts < ATTEMPTS).then_some(now + NEXT);
        let name = self.spell(&key.name);
        self.send(Some(key.clone()), name, upstream, Carrier::Udp, now + GIVE_UP);
    }

    /// The name in letters that nobody can guess.
    fn spell(&mut self, name: &[u8]) -> Box<[u8]> {
        let (mut bits, mut left) = (0, 0);
        let mut spelt: Box<[u8]> = name.into();
        // A length is at most 63 and no letter.
        for octet in spelt.iter_mut().filter(|octet| octet.is_ascii_lowercase()) {
            if left == 0 {
                (bits, left) = ((self.random)(), u64::BITS);
            }
            if bits & 1 == 1 {
                *octet = octet.to_ascii_uppercase();
            }
            (bits, left) = (bits >> 1, left - 1);
        }
        spelt
    }

    fn send(&mut self, key: Option<Arc<Key>>, name: Box<[u8]>, to: SocketAddr, over: Carrier, until: Duration) {
        let id = (self.random)() as u16;
        self.numbers += 1;
        self.counts.sent += 1;
        let attempt = AttemptId(self.numbers);
        let (rtype, class, edns) = key.as_ref().map_or((NS, IN, (DnssecOk::No, false)), |key| {
            (key.rtype, key.class, (key.dnssec_ok, key.checking_disabled))
        });
        let message = message::query(id, &name, rtype, class, edns);
        self.attempts.insert(attempt, Attempt { key, upstream: to, over, id, name, until });
        self.actions.push_back(Action::Send { attempt, to, over, message });
    }

    fn forget(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.attempts.remove(&id)?;
        self.actions.push_back(Action::Forget(id));
        Some(attempt)
    }

    fn again_by_tcp(&mut self, id: AttemptId, now: Duration) {
        let Some(attempt) = self.forget(id) else { return };
        self.upstreams.answered(attempt.upstream);
        let open = attempt.key.as_ref().and_then(|key| self.open.get_mut(key));
        if let Some(open) = open {
            // It speaks: it gets its time for the connection.
            open.next = open.next.map(|_| now + NEXT);
            self.send(attempt.key, attempt.name, attempt.upstream, Carrier::Tcp, attempt.until);
        }
    }

    /// Nothing good comes of this attempt; the next upstream is asked at once, if nobody else is being asked.
    fn end_attempt(&mut self, id: AttemptId, spoke: bool, now: Duration) {
        let Some(attempt) = self.forget(id) else { return };
        match spoke {
            true => self.upstreams.answered(attempt.upstream),
            false => self.upstreams.was_silent(attempt.upstream, now),
        }
        let Some(key) = attempt.key else { return };
        let waits = self.attempts.values().any(|other| other.key.as_ref() == Some(&key));
        let Some(open) = self.open.get(&key) else { return };
        match (waits, usize::from(open.attempts) < open.order.len()) {
            (true, _) => {}
            (false, true) => self.attempt(&key, now),
            // Each was asked, and none of them knows.
            (false, false) => self.give_up(&key, now),
        }
    }

    fn answered(&mut self, id: AttemptId, mut kept: Kept, now: Duration) {
        let Some(attempt) = self.forget(id) else { return };
        self.upstreams.answered(attempt.upstream);
        let Some(key) = attempt.key else { return };
        let mut remark = None;
        if !self.may_lead_home(&key.name) && rebind::points_home(&kept) {
            self.counts.blocked += 1;
            (kept, remark) = (Kept::made(NOERROR, BLOCKED), Some(Remark::Blocked));
        }
        for (question, asker) in self.close(&key) {
            self.tell(&kept, &question, asker, remark);
        }
        self.cache.keep(&key, kept, now);
    }

    /// Names for which the home network is the right answer: local ones, and those that the site file names or has
    /// forwarders of their own for.
    fn may_lead_home(&self, name: &[u8]) -> bool {
        let named = self.rules.rebind_allowed.iter().chain(self.rules.per_zone.iter().map(|(zone, _)| zone));
        is_below(name, ARPA) || named.into_iter().any(|zone| is_below(name, zone))
    }

    /// The attempts for this question have been silent for a while.
    fn silent(&mut self, key: &Arc<Key>, now: Duration) {
        let last = self.attempts.values().rfind(|attempt| attempt.key.as_ref() == Some(key));
        if let Some(upstream) = last.map(|attempt| attempt.upstream) {
            self.upstreams.was_silent(upstream, now);
        }
    }

    fn tell_stale(&mut self, key: &Arc<Key>, now: Duration) {
        let Some(open) = self.open.get_mut(key) else { return };
        open.told_stale = true;
        let Some(Found::Stale(kept)) = self.cache.find(key, now) else { return };
        for (question, asker) in std::mem::take(&mut open.askers) {
            self.counts.stale += 1;
            let mut message = Vec::new();
            kept.answer(&question, 0, Some(Remark::Stale), &mut message);
            self.actions.push_back(Action::Answer { asker, message });
        }
    }

    fn give_up(&mut self, key: &Arc<Key>, now: Duration) {
        self.silent(key, now);
        self.tell_stale(key, now);
        let failed = Kept::made(SERVFAIL, FAILED);
        for (question, asker) in self.close(key) {
            self.counts.failed += 1;
            self.tell(&failed, &question, asker, Some(Remark::Unreachable));
        }
        if self.cache.find(key, now).is_none() {
            self.cache.keep(key, failed, now);
        }
    }

    /// Ends a question; who waited for its answer.
    fn close(&mut self, key: &Arc<Key>) -> Vec<(Question, A)> {
        let of = |attempt: &Attempt| attempt.key.as_ref() == Some(key);
        let attempts: Vec<AttemptId> = self.attempts.iter().filter(|(_, one)| of(one)).map(|(id, _)| *id).collect();
        attempts.into_iter().for_each(|id| drop(self.forget(id)));
        self.open.remove(key).map(|open| open.askers).unwrap_or_default()
    }

    fn refuse(&mut self, question: &Question, asker: A) {
        self.counts.overflow += 1;
        self.tell(&Kept::made(SERVFAIL, 0), question, asker, None);
    }

    fn tell(&mut self, kept: &Kept, question: &Question, asker: A, remark: Option<Remark>) {
        let mut message = Vec::new();
        kept.answer(question, 0, remark, &mut message);
        self.actions.push_back(Action::Answer { asker, message });
    }
}

/// Whether a name is this zone's, or below it; both in wire form and small letters.
fn is_below(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == zone {
            return true;
        }
        match rest.split_first() {
            Some((length @ 1..=63, after)) => match after.get(usize::from(*length)..) {
                Some(after) => rest = after,
                None => return false,
            },
            _ => return false,
        }
    }
}
