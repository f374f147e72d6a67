//! Writes what was planned for the cluster (`core::plan::cluster`): statuses, labels, Events. Of several home nodes the
//! holder of the Lease does.
//!
//! What is written and when is decided by machines of core; here are their clock and their connection. The writer is a
//! task beside the river, which hands it what is to be said and never waits for it:
//!
//! ```text
//! river ── writes, findings ──> Writer ─┬─ machine::lease  ─┐
//!   ^                                   ├─ machine::writes  ├─> requests ─> API server
//!   └───────── who holds it ────────────┴─ machine::events ─┘
//! ```
//!
//! Every request has a time-out, and those of a holder end with its Lease. The clock does not stop while the machine sleeps:
//! whoever wakes up knows that others may write by now.

use std::future::pending;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualgate_core::machine::lease::{self, Lease};
use dualgate_core::machine::writes::Writes;
use dualgate_core::machine::writes::events::Events;
use dualgate_core::model::{Finding, NodeName, ObjectSet};
use dualgate_core::plan::cluster::Write;
use dualgate_core::plan::install::{LEASE, NAMESPACE};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::request::{Answered, Asked};
use crate::access::{self, Access};

mod report;
mod request;

pub use self::report::{ContestReport, Report, View};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the API server may take to hear that the Lease is given up.
const LEAVE: Duration = Duration::from_secs(3);

/// How often it is tried to find out where the API server is.
const ACCESS: Duration = Duration::from_secs(5);

/// After so long without the API server it is looked for anew: certificates and tokens change.
const RENEW: Duration = Duration::from_secs(30);

/// The longest that nothing is looked at, so that what is reported is of this moment.
const LOOK: Duration = Duration::from_secs(1);

/// What takes a look at all that is to be written is told at most so often.
const SURVEY: Duration = Duration::from_millis(100);

/// What the holder is to say.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In which reign: what was meant for an earlier one is out of date.
    pub reign: Reign,
    /// All that differs from what is planned.
    pub writes: Arc<Vec<Arc<Write>>>,
    /// All that is wrong.
    pub findings: Arc<Vec<Finding>>,
    /// The objects that both are about.
    pub objects: Arc<ObjectSet>,
}

/// Counts how often this process has begun to hold the Lease, from 1; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reign(u64);

/// The river's end of a writer.
pub struct Handle {
    wanted: watch::Sender<Wanted>,
    reign: watch::Receiver<Option<Reign>>,
    leave: watch::Sender<bool>,
    view: View,
}

/// Writes while it holds the Lease. It does nothing before [`Writer::run`] is polled.
pub struct Writer {
    access: Access,
    client: Option<kube::Client>,
    /// Since when nothing was to be learnt of the Lease.
    away: Option<Duration>,
    lease: Lease,
    is_leaving: bool,
    writes: Writes,
    events: Events,
    reigns: Reign,
    asked: JoinSet<Answered>,
    wanted: watch::Receiver<Wanted>,
    reign: watch::Sender<Option<Reign>>,
    leave: watch::Receiver<bool>,
    view: View,
    /// When all that is to be written was looked at.
    surveyed: Option<Duration>,
}

/// A writer of a home node, and the end by which the river holds it.
pub fn writer(access: Access, node: &NodeName) -> (Handle, Writer) {
    let (want, wanted) = watch::channel(Wanted::default());
    let (reigns, reign) = watch::channel(None);
    let (leaving, leave) = watch::channel(false);
    let view = View::default();
    // Another one for each process: a successor must not take itself for its predecessor.
    let random = RandomState::new().hash_one(node.as_str());
    let me = format!("{node}_{random:016x}");
    let writer = Writer {
        access,
        client: None,
        away: None,
        lease: Lease::new(NAMESPACE, LEASE, me, random, now()),
        is_leaving: false,
        writes: Writes::default(),
        events: Events::new(node.as_str()),
        reigns: Reign::default(),
        asked: JoinSet::new(),
        wanted,
        reign: reigns,
        leave,
        view: view.clone(),
        surveyed: None,
    };
    (Handle { wanted: want, reign, leave: leaving, view }, writer)
}

impl Handle {
    /// In which reign this process writes; `None` while others do.
    pub fn reign(&self) -> Option<Reign> {
        *self.reign.borrow()
    }

    /// Waits until that changes. It is never over.
    pub async fn changed(&mut self) {
        if self.reign.changed().await.is_err() {
            pending().await
        }
    }

    /// Says what is to be said from now on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// For whoever shows how it is.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Gives the Lease up, so that another node goes on at once; ends within seconds, whatever the API server does.
    pub async fn leave(&self) {
        let holds = self.reign().is_some();
        self.leave.send_replace(true);
        if holds {
            // Whoever is not told waits for the end of the Lease.
            let _ = tokio::time::timeout(LEAVE, self.wanted.closed()).await;
        }
    }
}

impl Writer {
    /// Writes until it is told to leave, or nobody is left to tell it.
    pub async fn run(mut self) {
        loop {
            self.find_api_server().await;
            let now = now();
            let is_told_to_leave = *self.leave.borrow() || self.client.is_none();
            if is_told_to_leave && !self.is_leaving {
                self.is_leaving = true;
                self.lease.leave(now);
            }
            self.reign_begins_or_ends(now);
            if self.lease.is_over() {
                return;
            }
            self.ask(now);
            let tell_again = self.tell(now);
            let wake = tokio::time::sleep(self.next(now).min(tell_again).saturating_sub(now));
            tokio::select! {
                Some(answered) = self.asked.join_next() => self.hear(answered),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.take_wanted(),
                    // The river is gone without a word; the Lease ends by itself.
                    Err(_) => return,
                },
                Ok(()) = self.leave.changed() => {}
                () = wake => {}
            }
        }
    }

    /// Tells how it is; when to do so again.
    fn tell(&mut self, now: Duration) -> Duration {
        self.view.update(&self.lease, self.writes.counts(), self.events.made(), now);
        match self.surveyed.map(|surveyed| surveyed + SURVEY).filter(|due| *due > now) {
            Some(due) => due,
            None => {
                self.view.survey(&self.writes, now);
                self.surveyed = Some(now);
                now + LOOK
            }
        }
    }

    /// There is nothing to do before somebody says where it is; without one, it was told to leave.
    async fn find_api_server(&mut self) {
        while self.client.is_none() && !*self.leave.borrow() {
            match access::client(&self.access).await {
                Ok(client) => self.client = Some(client),
                Err(error) => {
                    self.view.trouble(Some(request::no_access(&error)));
                    let _ = tokio::time::timeout(ACCESS, self.leave.changed()).await;
                }
            }
        }
    }

    fn reign_begins_or_ends(&mut self, now: Duration) {
        let (holds, held) = (self.lease.holds(now), self.reign.borrow().is_some());
        match (holds, held) {
            (true, false) => {
                self.reigns = Reign(self.reigns.0 + 1);
                tracing::info!("this node writes statuses: it holds the Lease");
                self.reign.send_replace(Some(self.reigns));
            }
            (false, true) => {
                tracing::info!("this node does not write statuses any more: it does not hold the Lease");
                self.end_reign();
            }
            (true, true) | (false, false) => {}
        }
    }

    /// What is under way may be made or not; whoever writes next will see.
    fn end_reign(&mut self) {
        self.writes.forget_all();
        self.events.forget_all();
        self.reign.send_replace(None);
    }

    fn look_at_answer(&mut self, answer: &lease::Answer, now: Duration) {
        match answer {
            lease::Answer::Failed => {
                if now.saturating_sub(*self.away.get_or_insert(now)) >= RENEW {
                    (self.client, self.away) = (None, None);
                }
            }
            lease::Answer::Is(_) | lease::Answer::Absent | lease::Answer::Conflict => self.away = None,
        }
    }

    /// Asks everything that is to be asked at this moment.
    fn ask(&mut self, now: Duration) {
        let Some(client) = self.client.clone() else { return };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = wall.as_secs() as i64;
        if let Some(asked) = self.lease.poll_request(now, wall.as_micros() as i64) {
            self.asked.spawn(Asked::Lease(asked).send(client.clone(), TIMEOUT));
        }
        let (Some(reign), Some(ends)) = (*self.reign.borrow(), self.lease.ends()) else { return };
        if !self.lease.holds(now) {
            return;
        }
        let limit = TIMEOUT.min(ends.saturating_sub(now));
        while let Some(send) = self.writes.poll_write(now) {
            tracing::info!(force = send.force, "{}", send.write);
            self.asked.spawn(Asked::Write(reign, send, seconds).send(client.clone(), limit));
        }
        if let Some(event) = self.events.poll_request(now, seconds) {
            self.asked.spawn(Asked::Event(reign, event).send(client, limit));
        }
    }

    fn next(&self, now: Duration) -> Duration {
        let of_writes = self.reign.borrow().and_then(|_| self.writes.poll_timeout());
        let of_events = self.reign.borrow().and_then(|_| self.events.poll_timeout());
        let next = [self.lease.poll_timeout(), of_writes, of_events].into_iter().flatten().min();
        next.unwrap_or(now + LOOK)
    }

    fn hear(&mut self, answered: Result<Answered, tokio::task::JoinError>) {
        let now = now();
        let Ok(answered) = answered else {
            // Which one panicked is not known: all begins anew.
            self.lease.handle_answer(now, lease::Answer::Failed);
            return self.end_reign();
        };
        let reign = *self.reign.borrow();
        match answered {
            Answered::Lease(answer, trouble) => {
                self.view.count_lease_request();
                self.view.trouble(trouble);
                self.look_at_answer(&answer, now);
                self.lease.handle_answer(now, answer);
            }
            Answered::Write(of, object, answer) if Some(of) == reign => {
                self.writes.handle_answer(&object, answer, now);
            }
            Answered::Event(of, answer, trouble) if Some(of) == reign => {
                self.view.event_trouble(trouble);
                self.events.handle_answer(answer, now);
            }
            Answered::Write(..) | Answered::Event(..) => {}
        }
    }

    fn take_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        if Some(wanted.reign) != *self.reign.borrow() {
            return;
        }
        let now = now();
        self.writes.want(&wanted.writes, now);
        let contested = self.writes.findings();
        self.events.want(wanted.findings.iter().chain(&contested), &wanted.objects, now);
    }
}

/// Since the machine was started, also while it slept.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
