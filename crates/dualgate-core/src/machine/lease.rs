//! Who of several home nodes writes to the cluster: the holder of a Lease (`coordination.k8s.io/v1`).
//!
//! As `client-go` elects leaders: the holder renews the Lease every [`RETRY`], and writes only for [`DEADLINE`] after the
//! renewal that it sent last and that came through. Others read it as often, and take it once it has not changed for its
//! duration *by their own clock*, whatever times stand in it. So clocks may differ; all that counts is that none runs half as
//! fast again as another. Every change names the version that it replaces, so of two who take it, one does.
//!
//! Without a clock and without a connection: requests come out of [`Lease::poll_request`], and what became of them goes
//! into [`Lease::handle_answer`]. One is under way at a time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::model::Text;
use crate::parse::time;

/// How long a Lease lasts that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long its holder writes without a renewal. What it sent by then has the rest of [`DURATION`] to end.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is renewed, or looked at.
pub const RETRY: Duration = Duration::from_secs(2);

/// What stands in a Lease is not believed beyond this: somebody's typing error must not stop writing for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// What is to be asked of the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The Lease.
    Read,
    /// To create it.
    Create(Value),
    /// To replace it, if its `resourceVersion` is still this one's.
    Replace(Value),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The Lease as it is: read, created or replaced.
    Is(Value),
    /// There is none.
    Absent,
    /// Somebody else was faster.
    Conflict,
    /// No answer, or one that says that it could not be done. It may have been done all the same.
    Failed,
}

/// One candidate's view of the Lease.
#[derive(Clone, Debug)]
pub struct Lease {
    me: Text,
    namespace: &'static str,
    name: &'static str,
    /// How often it asks while another one holds it: not all at the same moment.
    retry: Duration,
    seen: Option<Seen>,
    under_way: Option<UnderWay>,
    next: Duration,
    /// What is to follow at once.
    intent: Intent,
    /// When the last renewal was sent that came through.
    renewed: Option<Duration>,
    /// Since when this one holds it without a break.
    since: Option<Duration>,
    is_leaving: bool,
}

#[derive(Clone, Debug)]
struct Seen {
    object: Value,
    /// When it was first seen as it is.
    at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sent: Duration,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Read,
    Take,
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Read,
    Take,
    Create,
}

impl Lease {
    /// A candidate. `me` is another one for each process: one that was restarted must not take itself for its predecessor.
    /// `seed` spreads the candidates in time.
    pub fn new(namespace: &'static str, name: &'static str, me: impl Into<Text>, seed: u64, now: Duration) -> Self {
        Self {
            me: me.into(),
            namespace,
            name,
            retry: RETRY + Duration::from_millis(seed % 400),
            seen: None,
            under_way: None,
            next: now,
            intent: Intent::Read,
            renewed: None,
            since: None,
            is_leaving: false,
        }
    }

    /// Whether this one may begin to write.
    pub fn holds(&self, now: Duration) -> bool {
        !self.is_leaving && self.renewed.is_some_and(|renewed| now < renewed + DEADLINE)
    }

    /// When everything that it has sent must have ended; others may write from then on.
    pub fn ends(&self) -> Option<Duration> {
        self.renewed.map(|renewed| renewed + DURATION)
    }

    /// Since when it holds the Lease without a break.
    pub fn since(&self, now: Duration) -> Option<Duration> {
        self.since.filter(|_| self.holds(now))
    }

    /// Who holds it, as far as was seen; `None` is nobody, or not known.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.holder()
    }

    /// How often it has changed hands, as far as was seen.
    pub fn transitions(&self) -> i64 {
        self.seen.as_ref().and_then(|seen| seen.object["spec"]["leaseTransitions"].as_i64()).unwrap_or(0)
    }

    /// Gives it up, if it is held; then it is over once [`Lease::is_over`].
    pub fn leave(&mut self, now: Duration) {
        (self.is_leaving, self.next) = (true, now);
    }

    /// Whether there is nothing left to give up.
    pub fn is_over(&self) -> bool {
        self.is_leaving && self.renewed.is_none() && self.under_way.is_none()
    }

    /// When something may be to be asked.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (self.under_way.is_none() && !self.is_over()).then_some(self.next)
    }

    /// What is to be asked at `now`; `wall` is in microseconds since 1970, only to be shown.
    pub fn poll_request(&mut self, now: Duration, wall: i64) -> Option<Request> {
        if self.under_way.is_some() || now < self.next || self.is_over() {
            return None;
        }
        if self.renewed.is_some_and(|renewed| now >= renewed + DEADLINE) {
            // From here on it is a candidate as the others.
            (self.renewed, self.since, self.intent) = (None, None, Intent::Read);
        }
        if self.is_leaving && self.renewed.is_none() {
            return None;
        }
        let (what, request) = match (&self.seen, self.intent) {
            (Some(seen), _) if self.is_leaving => (What::Release, Request::Replace(self.released(seen, wall))),
            (Some(seen), Intent::Take) => (What::Take, Request::Replace(self.taken(Some(seen), wall))),
            (_, Intent::Create) => (What::Take, Request::Create(self.taken(None, wall))),
            (_, Intent::Read | Intent::Take) => (What::Read, Request::Read),
        };
        self.under_way = Some(UnderWay { sent: now, what });
        Some(request)
    }

    /// What became of it.
    pub fn handle_answer(&mut self, now: Duration, answer: Answer) {
        let Some(UnderWay { sent, what }) = self.under_way.take() else { return };
        match (answer, what) {
            // Given up, or not to be reached: then it ends by itself.
            (_, What::Release) => self.renewed = None,
            (Answer::Is(object), What::Read) => self.read(object, now),
            (Answer::Is(object), What::Take) => self.taken_over(object, sent, now),
            (Answer::Absent, What::Read | What::Take) => {
                (self.seen, self.renewed, self.since) = (None, None, None);
                (self.intent, self.next) = (Intent::Create, now);
            }
            // A holder looks at once who was faster, and goes on if nobody was: somebody may have labelled the Lease.
            (Answer::Conflict, What::Read | What::Take) if self.renewed.is_some() => {
                (self.intent, self.next) = (Intent::Read, now);
            }
            (Answer::Conflict | Answer::Failed, What::Read | What::Take) => {
                (self.intent, self.next) = (Intent::Read, now + self.retry);
            }
        }
    }

    fn taken_over(&mut self, object: Value, sent: Duration, now: Duration) {
        self.see(object, now);
        self.renewed = Some(sent);
        self.since.get_or_insert(sent);
        // Whoever leaves has waited for this answer only.
        let next = if self.is_leaving { now } else { sent + RETRY };
        (self.intent, self.next) = (Intent::Take, next);
    }

    fn read(&mut self, object: Value, now: Duration) {
        self.see(object, now);
        let Some(seen) = &self.seen else { return };
        let is_mine = seen.holder() == Some(&*self.me);
        if !is_mine {
            (self.renewed, self.since) = (None, None);
        }
        (self.intent, self.next) = match is_mine || seen.is_free(now) {
            true => (Intent::Take, now),
            false => (Intent::Read, now + self.retry),
        };
    }

    fn see(&mut self, object: Value, now: Duration) {
        // Whoever renews makes another version; the times that are written may be anything.
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let same = |seen: &Seen| version(&seen.object) == version(&object);
        let at = self.seen.as_ref().filter(|seen| same(seen)).map_or(now, |seen| seen.at);
        self.seen = Some(Seen { object, at });
    }

    /// The Lease with this one as its holder. What else stands there is left.
    fn taken(&self, seen: Option<&Seen>, wall: i64) -> Value {
        let mut object = match seen {
            Some(seen) => seen.object.clone(),
            None => json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": self.name, "namespace": self.namespace },
            }),
        };
        let time = time::rfc3339_micros(wall);
        let spec = &mut object["spec"];
        if seen.is_none_or(|seen| seen.holder() != Some(&*self.me)) {
            let transitions = seen.map_or(0, |_| spec["leaseTransitions"].as_i64().unwrap_or(0).saturating_add(1));
            spec["leaseTransitions"] = transitions.clamp(0, i64::from(i32::MAX)).into();
            spec["acquireTime"] = time.as_str().into();
        }
        spec["holderIdentity"] = (*self.me).into();
        spec["leaseDurationSeconds"] = DURATION.as_secs().into();
        spec["renewTime"] = time.into();
        object
    }

    /// The Lease without a holder: whoever looks next takes it.
    fn released(&self, seen: &Seen, wall: i64) -> Value {
        let mut object = seen.object.clone();
        let spec = &mut object["spec"];
        // An empty one would be refused.
        spec.as_object_mut().map(|spec| spec.remove("holderIdentity"));
        spec["leaseDurationSeconds"] = 1.into();
        spec["renewTime"] = time::rfc3339_micros(wall).into();
        object
    }
}

impl Seen {
    fn holder(&self) -> Option<&str> {
        self.object["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty())
    }

    fn is_free(&self, now: Duration) -> bool {
        let seconds = self.object["spec"]["leaseDurationSeconds"].as_u64();
        let duration = seconds.map_or(DURATION, Duration::from_secs).min(LONGEST);
        self.holder().is_none() || now >= self.at + duration
    }
}
