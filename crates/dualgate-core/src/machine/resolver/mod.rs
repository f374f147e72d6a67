//! Resolving of what is not ours: questions go to other resolvers, and answers are kept.
//!
//! The same question of several askers is asked once. Each attempt has a socket, a number and a spelling of the name of its
//! own, so that nobody can guess what an answer must look like (RFC 5452; letters as in draft-vixie-dnsext-dns0x20). An
//! upstream that is silent costs [`NEXT`], then the next one is asked, too; after [`STALE_AFTER`] an answer whose time is over
//! is told, if there is one (RFC 8767). Answers that lead into the home network are not told (rebinding).
//!
//! Where a chain begins in our zones and comes back to a name that is ours, our zones say the rest; where these lead out again,
//! the rest is asked for. Whoever asks hears the whole chain at once. A chain that begins elsewhere leads where others say.
//!
//! `now` is any clock that does not go back. Nothing is sent here: [`Resolver::next`] says what to do.

mod cache;
mod message;
mod rebind;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use cache::Key;
use cache::{Cache, Found};
use dualgate_wire::dns::{Name, Rcode, RecordType, suffixes};
use message::{Asked, Kept, Letters, Padding, Remark, Reply};
use upstream::Upstreams;

use crate::machine::dns::{Question, Responder, Verdict};
use crate::plan::dns::{Upstream, UpstreamProtocol};

/// After so long without an answer another upstream is asked, too.
pub const NEXT: Duration = Duration::from_millis(800);
/// After so long an asker gets a stale answer, if there is one (RFC 8767 5).
pub const STALE_AFTER: Duration = Duration::from_millis(1800);
/// After so long an asker hears that there is no answer: just before most ask again.
pub const GIVE_UP: Duration = Duration::from_millis(4500);
/// How often one question is asked.
const ATTEMPTS: u8 = 5;
/// How many questions are open at a time.
pub const OPEN: usize = 512;
/// How many askers wait for one question.
const ASKERS: usize = 64;
/// How long it is remembered that nobody answers (RFC 9520 3.2), in seconds.
const FAILED: u32 = 5;
/// What a stale answer says that it may be kept for (RFC 8767 4), in seconds.
const STALE_TTL: u32 = 30;
/// How long it is remembered that an answer led home.
const BLOCKED: u32 = 60;
/// By which browsers are told to ask the network's own resolver.
const CANARY: &[u8] = b"\x13use-application-dns\x03net\0";
/// Names that are local by definition (RFC 8375). Reverse zones are not: whoever has addresses of his own has one.
const HOME_ARPA: &[u8] = b"\x04home\x04arpa\0";
/// By which clients look for an encrypted way to the resolver that they know (RFC 9462 4). Another one's answer would lead them
/// past this one.
const RESOLVER_ARPA: &[u8] = b"\x08resolver\x04arpa\0";

/// How a question is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP, from a socket of its own that hears this upstream only.
    Udp,
    /// A connection: TCP, or what the upstream is spoken to by.
    Connection,
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
        to: Arc<Upstream>,
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
    /// Answers of upstreams that led home, and were not told.
    pub blocked: u64,
    /// Messages that answered nothing that was asked.
    pub foreign: u64,
    /// Questions that were too many.
    pub overflow: u64,
}

/// Numbers that nobody can foresee; `None` where there are none: then nobody is asked.
pub type Random = Box<dyn FnMut() -> Option<u64> + Send>;

/// Asks others. `A` is how its user finds an asker again.
pub struct Resolver<A> {
    responder: Arc<Responder>,
    cache: Cache,
    open: BTreeMap<Arc<Key>, Open<A>>,
    attempts: BTreeMap<AttemptId, Attempt>,
    upstreams: Upstreams,
    actions: VecDeque<Action<A>>,
    numbers: u64,
    random: Random,
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
    order: Vec<Arc<Upstream>>,
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
    upstream: Arc<Upstream>,
    over: Carrier,
    /// Why a connection is made to whom datagrams are sent usually.
    why: Option<Why>,
    id: u16,
    /// In the letters that were sent.
    name: Box<[u8]>,
    letters: Letters,
    until: Duration,
}

/// Why a question is asked once more by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The answer has the name in other letters: anybody could have written it.
    Letters,
    /// The answer was cut.
    Length,
}

impl Attempt {
    fn asked(&self) -> Asked<'_> {
        let rtype = self.key.as_ref().map_or(RecordType::NS, |key| key.rtype);
        Asked { id: self.id, name: &self.name, letters: self.letters, rtype }
    }
}

impl<A> Resolver<A> {
    /// Keeps answers of so many octets.
    pub fn new(cache: usize, random: Random) -> Self {
        Self {
            responder: Arc::default(),
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

    /// What is ours, and whom to ask for the rest from now on. With other upstreams, what is known is forgotten, and open
    /// questions go on to those.
    pub fn follow(&mut self, responder: Arc<Responder>) {
        let former = std::mem::replace(&mut self.responder, responder);
        if former.resolver() == self.responder.resolver() {
            return;
        }
        let upstreams: BTreeSet<Arc<Upstream>> = self.responder.resolver().all().cloned().collect();
        // What those say who are not asked for the name any more is not kept.
        let is_former = |attempt: &Attempt| match &attempt.key {
            Some(key) => !self.order(&key.name).contains(&attempt.upstream),
            None => !upstreams.contains(&attempt.upstream),
        };
        let former: Vec<AttemptId> =
            self.attempts.iter().filter(|(_, one)| is_former(one)).map(|(id, _)| *id).collect();
        former.into_iter().for_each(|id| drop(self.forget(id)));
        self.upstreams.are(upstreams.into_iter());
        self.cache.clear();
        let mut open = std::mem::take(&mut self.open);
        for (key, open) in &mut open {
            // Those are asked at once.
            (open.order, open.attempts, open.next) = (self.order(&key.name), 0, Some(Duration::ZERO));
        }
        self.open = open;
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
    pub fn away(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.away().cloned().collect()
    }

    /// Somebody asks.
    pub fn ask(&mut self, question: Question, asker: A, now: Duration) {
        self.counts.asked += 1;
        self.look(question, asker, now);
    }

    /// Somebody asks who has more open questions than it may have: it gets what is known, and nobody else is asked.
    pub fn turn_away(&mut self, question: Question, asker: A, now: Duration) {
        self.counts.asked += 1;
        let key = key(&question);
        match self.find(&key, now) {
            Some(Found::Fresh(kept, age)) if age < kept.whole || self.goes_home(&question) => {
                self.counts.hits += 1;
                self.tell(&kept, question, asker, Telling { age, ..Telling::fresh(now) });
            }
            _ => self.refuse(question, asker, now),
        }
    }

    /// Answers from what is known, or asks.
    fn look(&mut self, question: Question, asker: A, now: Duration) {
        let key = key(&question);
        let made = [(CANARY, Rcode::NxDomain), (RESOLVER_ARPA, Rcode::NoError)];
        if let Some((_, code)) = made.into_iter().find(|(zone, _)| is_below(&key.name, zone)) {
            return self.tell(&Kept::made(code, 0), question, asker, Telling::fresh(now));
        }
        if let Some(open) = self.open.get_mut(&key) {
            if open.askers.len() < ASKERS {
                open.askers.push((question, asker));
            } else {
                self.refuse(question, asker, now);
            }
            return;
        }
        let order = self.order(&key.name);
        let is_hopeless = order.iter().all(|upstream| self.upstreams.is_away(upstream));
        match self.find(&key, now) {
            Some(Found::Fresh(kept, age)) if age < kept.whole || self.goes_home(&question) => {
                self.counts.hits += 1;
                self.tell(&kept, question, asker, Telling { age, ..Telling::fresh(now) });
            }
            Some(Found::Stale(kept)) if is_hopeless || self.open.len() >= OPEN => {
                // Whoever asks next may get something better.
                self.counts.stale += 1;
                self.begin(key, Vec::new(), order, now);
                self.tell(&kept, question, asker, Telling::stale(now));
            }
            _ => self.begin(key, vec![(question, asker)], order, now),
        }
    }

    /// What is known, unless our zones have come or gone where it led.
    fn find(&mut self, key: &Key, now: Duration) -> Option<Found> {
        let found = self.cache.find(key, now)?;
        let (Found::Fresh(kept, _) | Found::Stale(kept)) = &found;
        (kept.home == self.leads_home(kept, key)).then_some(found)
    }

    fn leads_home(&self, kept: &Kept, key: &Key) -> Option<usize> {
        kept.leads_home(|name| self.responder.is_ours(name, key.rtype))
    }

    /// What came back for an attempt, after somebody on the way had kept it for `age` seconds (RFC 8484 5.1).
    pub fn arrived(&mut self, id: AttemptId, message: &[u8], age: u32, now: Duration) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        match (attempt.asked().reply(message), attempt.over) {
            (Reply::Foreign, _) => self.counts.foreign += 1,
            (Reply::OtherLetters, Carrier::Udp) => self.again_by_connection(id, Why::Letters, now),
            (Reply::Truncated, Carrier::Udp) => self.again_by_connection(id, Why::Length, now),
            // Cut answers make no sense on a connection.
            (Reply::OtherLetters | Reply::Truncated | Reply::Refused, _) => self.end_attempt(id, true, now),
            (Reply::Answer(mut kept), _) => {
                kept.grow_older(age);
                self.answered(id, kept, now);
            }
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
            let over = carrier(&upstream);
            // Without numbers it is looked at the next time.
            let root = (b"\0".as_slice().into(), Letters::Any);
            let _ = self.send(None, root, upstream, over, now + NEXT);
        }
        let over = |attempt: &Attempt| attempt.key.is_none() && attempt.until <= now;
        let over: Vec<AttemptId> = self.attempts.iter().filter(|(_, one)| over(one)).map(|(id, _)| *id).collect();
        for probe in over.into_iter().filter_map(|id| self.forget(id)).collect::<Vec<_>>() {
            self.upstreams.is_not_there(&probe.upstream);
        }
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
                self.open.get_mut(&key).into_iter().for_each(|open| open.told_stale = true);
            }
            if is_next && !self.is_without_connections(&key, now) {
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
    fn order(&self, name: &Name) -> Vec<Arc<Upstream>> {
        let plan = self.responder.resolver();
        let closest = plan.per_zone.iter().find(|(zone, _)| name.is_within(zone)).map(|(_, upstreams)| upstreams);
        let mut order = closest.unwrap_or(&plan.upstreams).clone();
        order.sort_by_key(|upstream| self.upstreams.is_away(upstream));
        order
    }

    fn begin(&mut self, key: Key, askers: Vec<(Question, A)>, order: Vec<Arc<Upstream>>, now: Duration) {
        if order.is_empty() || self.open.len() >= OPEN {
            return askers.into_iter().for_each(|(question, asker)| self.refuse(question, asker, now));
        }
        let key = Arc::new(key);
        let open = Open { askers, order, attempts: 0, since: now, next: None, told_stale: false };
        self.open.insert(key.clone(), open);
        self.attempt(&key, now);
    }

    /// Asks the next upstream in turn.
    fn attempt(&mut self, key: &Arc<Key>, now: Duration) {
        let Some(open) = self.open.get_mut(key) else { return };
        let Some(upstream) = open.order.iter().cycle().nth(open.attempts.into()).cloned() else {
            return self.give_up(key, now);
        };
        open.attempts += 1;
        open.next = (open.attempts < ATTEMPTS).then_some(now + NEXT);
        let over = carrier(&upstream);
        let spelt = match over {
            Carrier::Udp if self.upstreams.keeps_letters(&upstream, now) => {
                self.spell(key.name.as_wire()).map(|name| (name, Letters::AsSent))
            }
            Carrier::Udp | Carrier::Connection => Some(as_it_is(key)),
        };
        let sent = spelt.and_then(|name| self.send(Some(key.clone()), name, upstream, over, now + GIVE_UP));
        if sent.is_none() {
            // What can be guessed is not asked.
            self.give_up(key, now);
        }
    }

    /// The name in letters that nobody can guess.
    fn spell(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        let (mut bits, mut left) = (0, 0);
        let mut spelt: Box<[u8]> = name.into();
        // A length is at most 63 and no letter.
        for octet in spelt.iter_mut().filter(|octet| octet.is_ascii_lowercase()) {
            if left == 0 {
                (bits, left) = ((self.random)()?, u64::BITS);
            }
            if bits & 1 == 1 {
                *octet = octet.to_ascii_uppercase();
            }
            (bits, left) = (bits >> 1, left - 1);
        }
        Some(spelt)
    }

    fn send(
        &mut self,
        key: Option<Arc<Key>>,
        (name, letters): (Box<[u8]>, Letters),
        to: Arc<Upstream>,
        over: Carrier,
        until: Duration,
    ) -> Option<()> {
        let id = (self.random)()? as u16;
        self.numbers += 1;
        self.counts.sent += 1;
        let id_of = AttemptId(self.numbers);
        let (dnssec_ok, checking_disabled) =
            key.as_ref().map_or((false, false), |key| (key.dnssec_ok, key.checking_disabled));
        let padding = match to.protocol {
            UpstreamProtocol::Plain => Padding::None,
            UpstreamProtocol::Tls { .. } | UpstreamProtocol::Https { .. } => Padding::Padded,
        };
        let attempt = Attempt { key, upstream: to.clone(), over, why: None, id, name, letters, until };
        let message = attempt.asked().message(dnssec_ok, checking_disabled, padding);
        self.attempts.insert(id_of, attempt);
        self.actions.push_back(Action::Send { attempt: id_of, to, over, message });
        Some(())
    }

    fn forget(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.attempts.remove(&id)?;
        self.actions.push_back(Action::Forget(id));
        Some(attempt)
    }

    fn again_by_connection(&mut self, id: AttemptId, why: Why, now: Duration) {
        let Some(attempt) = self.forget(id) else { return };
        self.upstreams.answered(&attempt.upstream);
        let Some(key) = attempt.key else { return };
        let Some(open) = self.open.get_mut(&key) else { return };
        // It speaks: it gets its time for the connection.
        open.next = open.next.map(|_| now + NEXT);
        let (to, over) = (attempt.upstream, Carrier::Connection);
        if self.send(Some(key.clone()), as_it_is(&key), to, over, attempt.until).is_none() {
            return self.give_up(&key, now);
        }
        self.attempts.values_mut().next_back().into_iter().for_each(|attempt| attempt.why = Some(why));
    }

    /// Nothing good comes of this attempt; the next upstream is asked at once, if nobody else is being asked.
    fn end_attempt(&mut self, id: AttemptId, spoke: bool, now: Duration) {
        let Some(attempt) = self.forget(id) else { return };
        match (spoke, &attempt.key, attempt.why) {
            (true, None, _) => self.upstreams.is_there(&attempt.upstream, now),
            (true, ..) => self.upstreams.answered(&attempt.upstream),
            (false, None, _) => self.upstreams.is_not_there(&attempt.upstream),
            // It hears datagrams alone, and writes names as it likes: there is no other way to ask it.
            (false, Some(key), Some(Why::Letters)) => {
                self.upstreams.changes_letters(&attempt.upstream, now);
                let (to, over) = (attempt.upstream.clone(), Carrier::Udp);
                let _ = self.send(Some(key.clone()), as_it_is(key), to, over, attempt.until);
            }
            (false, Some(_), Some(Why::Length) | None) => self.upstreams.was_silent(&attempt.upstream, now),
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
        let Some(key) = attempt.key else { return self.upstreams.is_there(&attempt.upstream, now) };
        self.upstreams.answered(&attempt.upstream);
        if attempt.upstream.protocol == UpstreamProtocol::Plain {
            // Whoever is on the way can say so.
            kept.authenticated = false;
        }
        if !self.may_lead_home(&key.name) && rebind::points_home(&kept) {
            kept.is_blocked = true;
            (kept.ttl, kept.whole) = (kept.ttl.min(BLOCKED), kept.whole.min(BLOCKED));
        }
        self.leads_home(&kept, &key).into_iter().for_each(|aliases| kept.ends_at_home(aliases));
        let kept = Arc::new(kept);
        self.cache.keep(&key, kept.clone(), now);
        for (question, asker) in self.close(&key) {
            self.tell(&kept, question, asker, Telling::fresh(now));
        }
    }

    /// Names for which the home network is the right answer: local ones, and those that the site file names or has
    /// forwarders of their own for.
    fn may_lead_home(&self, name: &Name) -> bool {
        let plan = self.responder.resolver();
        let mut named = plan.rebind_allowed.iter().chain(plan.per_zone.iter().map(|(zone, _)| zone));
        is_below(name, HOME_ARPA) || named.any(|zone| name.is_within(zone))
    }

    /// Whether an upstream that writes names as it likes was asked by a connection, and is silent there; then it is asked by
    /// datagrams, and nobody else yet.
    fn is_without_connections(&mut self, key: &Arc<Key>, now: Duration) -> bool {
        let is_silent = |one: &Attempt| one.key.as_ref() == Some(key) && one.why == Some(Why::Letters);
        let silent: Vec<AttemptId> =
            self.attempts.iter().filter(|(_, one)| is_silent(one)).map(|(id, _)| *id).collect();
        silent.iter().for_each(|id| self.failed(*id, now));
        if let Some(open) = self.open.get_mut(key).filter(|_| !silent.is_empty()) {
            open.next = open.next.map(|_| now + NEXT);
        }
        !silent.is_empty()
    }

    /// The attempts for this question have been silent for a while.
    fn silent(&mut self, key: &Arc<Key>, now: Duration) {
        let last = self.attempts.values().rfind(|attempt| attempt.key.as_ref() == Some(key));
        if let Some(upstream) = last.map(|attempt| attempt.upstream.clone()) {
            self.upstreams.was_silent(&upstream, now);
        }
    }

    fn tell_stale(&mut self, key: &Arc<Key>, now: Duration) {
        let Some(Found::Stale(kept)) = self.find(key, now) else { return };
        let Some(open) = self.open.get_mut(key) else { return };
        for (question, asker) in std::mem::take(&mut open.askers) {
            self.counts.stale += 1;
            self.tell(&kept, question, asker, Telling::stale(now));
        }
    }

    fn give_up(&mut self, key: &Arc<Key>, now: Duration) {
        self.silent(key, now);
        self.tell_stale(key, now);
        let failed = Arc::new(Kept::made(Rcode::ServFail, FAILED));
        let askers = self.close(key);
        if self.find(key, now).is_none() {
            self.cache.keep(key, failed.clone(), now);
        }
        for (question, asker) in askers {
            self.counts.failed += 1;
            self.tell(&failed, question, asker, Telling { remark: Some(Remark::Unreachable), ..Telling::fresh(now) });
        }
    }

    /// Ends a question; who waited for its answer.
    fn close(&mut self, key: &Arc<Key>) -> Vec<(Question, A)> {
        let of = |attempt: &Attempt| attempt.key.as_ref() == Some(key);
        let attempts: Vec<AttemptId> = self.attempts.iter().filter(|(_, one)| of(one)).map(|(id, _)| *id).collect();
        attempts.into_iter().for_each(|id| drop(self.forget(id)));
        self.open.remove(key).map(|open| open.askers).unwrap_or_default()
    }

    fn refuse(&mut self, question: Question, asker: A, now: Duration) {
        self.counts.overflow += 1;
        self.tell(&Kept::made(Rcode::ServFail, 0), question, asker, Telling::fresh(now));
    }

    /// Whether our zones say what is behind a name of ours. A name of others leads where others say: otherwise whoever owns one
    /// could lead a browser to what is known at home only.
    fn goes_home(&self, question: &Question) -> bool {
        let first = question.chain.first().unwrap_or(&question.name);
        self.responder.is_ours(first, question.rtype) || self.may_lead_home(first)
    }

    /// Tells an asker what was answered; where that leads from our zones back to a name of ours, what these say, and so on.
    fn tell(&mut self, kept: &Kept, mut question: Question, asker: A, telling: Telling) {
        let mut message = Vec::new();
        match kept.home.filter(|_| self.goes_home(&question)) {
            None if kept.is_blocked => {
                self.counts.blocked += 1;
                let blocked = Telling { remark: Some(Remark::Blocked), ..telling };
                Kept::made(Rcode::NoError, BLOCKED).answer(&question, blocked, &mut message);
            }
            None => kept.answer(&question, telling, &mut message),
            Some(aliases) => {
                kept.follow(aliases, telling, &mut question);
                match self.responder.resume(&question, &mut message) {
                    Verdict::Forward(question) => return self.look(question, asker, telling.now),
                    Verdict::Answer { .. } | Verdict::Silence => {}
                }
            }
        }
        self.actions.push_back(Action::Answer { asker, message });
    }
}

/// When something is told, and how old it is.
#[derive(Clone, Copy)]
struct Telling {
    now: Duration,
    /// In seconds.
    age: u32,
    remark: Option<Remark>,
}

impl Telling {
    fn fresh(now: Duration) -> Self {
        Self { now, age: 0, remark: None }
    }

    fn stale(now: Duration) -> Self {
        Self { now, age: 0, remark: Some(Remark::Stale) }
    }

    /// What is left of a time to live.
    fn left(self, ttl: u32) -> u32 {
        if self.remark == Some(Remark::Stale) { STALE_TTL } else { ttl.saturating_sub(self.age) }
    }
}

/// What is asked of others, and by what an answer is found again.
fn key(question: &Question) -> Key {
    let dnssec_ok = question.opt.is_some_and(|opt| opt.dnssec_ok);
    let (rtype, checking_disabled) = (question.rtype, question.checking_disabled);
    Key { name: question.name.clone(), rtype, dnssec_ok, checking_disabled }
}

/// A name in small letters; in which it comes back says nothing.
fn as_it_is(key: &Key) -> (Box<[u8]>, Letters) {
    (key.name.as_wire().into(), Letters::Any)
}

/// How an upstream is asked first.
fn carrier(upstream: &Upstream) -> Carrier {
    match upstream.protocol {
        UpstreamProtocol::Plain => Carrier::Udp,
        UpstreamProtocol::Tls { .. } | UpstreamProtocol::Https { .. } => Carrier::Connection,
    }
}

/// Whether a name is this one, or below it; the latter in wire form and small letters.
fn is_below(name: &Name, zone: &[u8]) -> bool {
    suffixes(name.as_wire()).any(|suffix| suffix == zone)
}
