//! A bound for answers.

use std::collections::BTreeMap;
use std::time::Duration;

use dualgate_wire::ethernet::Mac;

/// So many stations have a budget of their own.
const ASKERS: usize = 256;
/// Whoever has not asked for so long makes room for others.
const REST: Duration = Duration::from_secs(10);

/// How many answers may leave: so many per second to one station, and so many to all. One that asks without end leaves the
/// others theirs.
#[derive(Debug, Default)]
pub(super) struct Budget {
    all: Bucket,
    /// And when each asked last.
    askers: BTreeMap<Mac, (Bucket, Duration)>,
    /// Of those for whom there is no room: who invents stations shares this one with them.
    others: Bucket,
}

impl Budget {
    /// Takes an answer to a station out of it, if there is one.
    pub(super) fn take(&mut self, asker: Mac, now: Duration, to_one: u32, to_all: u32) -> bool {
        if self.askers.len() >= ASKERS && !self.askers.contains_key(&asker) {
            self.askers.retain(|_, (_, last)| now.saturating_sub(*last) < REST);
        }
        let has_room = self.askers.len() < ASKERS || self.askers.contains_key(&asker);
        let own = if has_room {
            let (bucket, last) = self.askers.entry(asker).or_default();
            *last = now;
            bucket
        } else {
            &mut self.others
        };
        // Who has none left takes none of the others', and who gets none keeps its own.
        let (Some(one), Some(all)) = (own.less_one(now, to_one), self.all.less_one(now, to_all)) else { return false };
        (*own, self.all) = (one, all);
        true
    }
}

/// A token bucket: so many per second, and as many at once.
#[derive(Debug, Default)]
struct Bucket {
    /// When it is full again.
    full_at: Duration,
}

impl Bucket {
    /// The bucket without one more token, if there is one.
    fn less_one(&self, now: Duration, per_second: u32) -> Option<Self> {
        let cost = Duration::from_secs(1).checked_div(per_second)?;
        let full_at = self.full_at.max(now).saturating_add(cost);
        (full_at <= now.saturating_add(Duration::from_secs(1))).then_some(Self { full_at })
    }
}
