//! What is counted of questions: by every thread for itself, added up for whoever looks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dualgate_core::machine::dns::{Outcome, Transport};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one thread counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By transport, then by outcome.
    answered: [[Counter; Outcome::WORDS.len()]; 2],
    /// Handed on to other resolvers.
    pub forwarded: Counter,
    /// Messages that are not answered: no questions.
    pub silent: Counter,
    /// Answers that were not sent, as too many of them went to the same network.
    pub dropped: Counter,
    /// Answers that were cut for the same reason: whoever really asks comes back by TCP.
    pub slipped: Counter,
    /// Answers and questions that found no room.
    pub lost: Counter,
    /// Connections that were too many.
    pub refused_connections: Counter,
    /// Nanoseconds from receiving to sending, of the questions answered here.
    taken: Counter,
}

impl Counters {
    /// One more was answered.
    pub fn answered(&self, over: Transport, of: Outcome) {
        self.answered[index(over)][of as usize].add(1);
    }

    /// So many questions took so long together.
    pub fn took(&self, each: Duration, count: usize) {
        let nanoseconds = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        self.taken.add(nanoseconds.saturating_mul(count as u64));
    }
}

fn index(over: Transport) -> usize {
    match over {
        Transport::Udp => 0,
        Transport::Tcp => 1,
    }
}

/// All threads' numbers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// By transport and outcome.
    pub answered: Vec<(Transport, Outcome, u64)>,
    /// Handed on to other resolvers.
    pub forwarded: u64,
    /// Messages that are no questions.
    pub silent: u64,
    /// Answers not sent, as too many went to the same network.
    pub dropped: u64,
    /// Answers cut for the same reason.
    pub slipped: u64,
    /// Answers and questions that found no room.
    pub lost: u64,
    /// Connections that were too many.
    pub refused_connections: u64,
    /// Nanoseconds from receiving to sending.
    pub nanoseconds: u64,
}

impl Sums {
    pub(super) fn of<'a>(counters: impl Iterator<Item = &'a Counters> + Clone) -> Self {
        let sum = |read: fn(&Counters) -> &Counter| counters.clone().map(|one| read(one).get()).sum();
        let mut answered = Vec::new();
        for over in [Transport::Udp, Transport::Tcp] {
            for (_, of) in Outcome::WORDS {
                let count = counters.clone().map(|one| one.answered[index(over)][of as usize].get()).sum();
                answered.push((over, of, count));
            }
        }
        Self {
            answered,
            forwarded: sum(|one| &one.forwarded),
            silent: sum(|one| &one.silent),
            dropped: sum(|one| &one.dropped),
            slipped: sum(|one| &one.slipped),
            lost: sum(|one| &one.lost),
            refused_connections: sum(|one| &one.refused_connections),
            nanoseconds: sum(|one| &one.taken),
        }
    }
}
