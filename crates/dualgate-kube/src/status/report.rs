//! How the writer is, for `dualgate status`, metrics and findings.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualgate_core::machine::lease::Lease;
use dualgate_core::machine::writes::{Counts, Writes};
use dualgate_core::model::Finding;
use serde::{Deserialize, Serialize};

/// Shared between the writer and those who ask.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    report: Report,
    of_writes: Vec<Finding>,
    trouble: Option<Finding>,
    event_trouble: Option<Finding>,
}

/// How the writer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who holds the Lease, as far as was seen: a node and a number of its process. Empty is nobody, or not known.
    pub holder: String,
    /// For how long this process has held it; `None` while others may.
    pub holds_seconds: Option<u64>,
    /// Objects that do not say what is planned.
    pub wanted: usize,
    /// Writes that were made by this process.
    pub made: u64,
    /// Writes of this process that were not made.
    pub failed: u64,
    /// How often another controller set one back.
    pub set_back: u64,
    /// Events that were made or counted up by this process.
    pub events: u64,
    /// Requests about the Lease.
    pub lease_requests: u64,
    /// The objects that another controller sets back.
    pub contests: Vec<ContestReport>,
}

/// An object that another controller sets back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContestReport {
    /// The object.
    pub object: String,
    /// The field manager of the other one; empty where it is not known.
    pub other: String,
    /// How often it did.
    pub times: u32,
    /// When it is tried again.
    pub again_seconds: u64,
}

impl View {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        // Whoever panicked while holding it left a whole value behind.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How it is at this moment.
    pub fn report(&self) -> Report {
        self.with(|inner| inner.report.clone())
    }

    /// What does not work.
    pub fn findings(&self) -> Vec<Finding> {
        self.with(|inner| {
            let troubles = inner.trouble.iter().chain(&inner.event_trouble);
            inner.of_writes.iter().chain(troubles).cloned().collect()
        })
    }

    /// What is counted.
    pub(super) fn update(&self, lease: &Lease, counts: Counts, events: u64, now: Duration) {
        self.with(|inner| {
            inner.report = Report {
                holder: lease.holder().unwrap_or_default().to_owned(),
                holds_seconds: lease.since(now).map(|since| now.saturating_sub(since).as_secs()),
                made: counts.made,
                failed: counts.failed,
                set_back: counts.contested,
                events,
                ..std::mem::take(&mut inner.report)
            };
        });
    }

    /// What all that is to be written is looked at for.
    pub(super) fn survey(&self, writes: &Writes, now: Duration) {
        let contests = writes.contests().map(|contest| ContestReport {
            object: contest.object.to_string(),
            other: contest.other.as_deref().unwrap_or_default().to_owned(),
            times: contest.times,
            again_seconds: contest.again.saturating_sub(now).as_secs(),
        });
        let (contests, wanted, of_writes) = (contests.collect(), writes.count_wanted(), writes.findings());
        self.with(|inner| {
            (inner.report.contests, inner.report.wanted) = (contests, wanted);
            inner.of_writes = of_writes;
        });
    }

    pub(super) fn count_lease_request(&self) {
        self.with(|inner| inner.report.lease_requests += 1);
    }

    pub(super) fn trouble(&self, trouble: Option<Finding>) {
        self.with(|inner| inner.trouble = trouble);
    }

    pub(super) fn event_trouble(&self, trouble: Option<Finding>) {
        self.with(|inner| inner.event_trouble = trouble);
    }
}

impl ContestReport {
    /// A line for people.
    pub fn line(&self) -> String {
        let Self { object, other, times, again_seconds } = self;
        let other = if other.is_empty() { "another controller".to_owned() } else { format!("`{other}`") };
        format!("{object} is left to {other}, which set it back {times} times; it is tried again in {again_seconds} s")
    }
}

impl Report {
    /// A line for people.
    pub fn line(&self) -> String {
        let node = self.holder.rsplit_once('_').map_or(self.holder.as_str(), |(node, _)| node);
        let who = match (self.holds_seconds, node) {
            (Some(seconds), _) => format!("this node, for {seconds} s"),
            (None, "") => "nobody yet".to_owned(),
            (None, node) => node.to_owned(),
        };
        let mut line = format!("{who}; {} writes and {} Events by this node", self.made, self.events);
        for (count, what) in
            [(self.wanted as u64, "to be written"), (self.failed, "failed"), (self.set_back, "set back")]
        {
            if count > 0 {
                let _ = write!(line, ", {count} {what}");
            }
        }
        line
    }

    /// As metrics.
    pub fn write_metrics(&self, out: &mut String) {
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let holds = u64::from(self.holds_seconds.is_some());
        one("dualgate_status_leader", "gauge", "1 while this node writes statuses.", holds);
        one("dualgate_status_wanted", "gauge", "Objects that do not say what is planned.", self.wanted as u64);
        one(
            "dualgate_status_contested",
            "gauge",
            "Objects that another controller sets back.",
            self.contests.len() as u64,
        );
        one("dualgate_status_writes_total", "counter", "Writes that were made.", self.made);
        one("dualgate_status_failures_total", "counter", "Writes that were not made.", self.failed);
        one("dualgate_status_set_back_total", "counter", "Writes that another controller set back.", self.set_back);
        one("dualgate_status_events_total", "counter", "Events that were made or counted up.", self.events);
        one("dualgate_status_lease_requests_total", "counter", "Requests about the Lease.", self.lease_requests);
    }
}
