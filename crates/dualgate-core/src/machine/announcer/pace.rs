//! Jitter, and a bound for answers.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Numbers that look random (SplitMix64): enough to keep stations apart, nothing to keep a secret with.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration between two, in milliseconds.
    pub(super) fn within(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let width = range.end().saturating_sub(*range.start()).as_millis() as u64;
        range.start().saturating_add(Duration::from_millis(self.next() % width.saturating_add(1)))
    }

    pub(super) fn octets(&mut self) -> [u8; 6] {
        let [octets @ .., _, _] = self.next().to_be_bytes();
        octets
    }
}

/// A token bucket: so many per second, and as many at once.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Duration,
}

impl Bucket {
    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Duration, per_second: u32) -> bool {
        let Some(cost) = Duration::from_secs(1).checked_div(per_second) else { return false };
        let full_at = self.full_at.max(now).saturating_add(cost);
        let taken = full_at <= now.saturating_add(Duration::from_secs(1));
        if taken {
            self.full_at = full_at;
        }
        taken
    }
}
