//! Numbers that nobody foresees, from the caller's seed: for jitter and for nonces, not for keys.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// `seed` is random, another one for each process.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Never 0, which says "none".
    pub fn nonce(&mut self) -> u64 {
        self.next() | 1
    }

    /// Six of them.
    pub fn octets(&mut self) -> [u8; 6] {
        let [octets @ .., _, _] = self.next().to_be_bytes();
        octets
    }

    /// A duration between two, in milliseconds.
    pub fn within(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let width = range.end().saturating_sub(*range.start()).as_millis() as u64;
        range.start().saturating_add(Duration::from_millis(self.next() % width.saturating_add(1)))
    }

    /// From nothing to just under `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next() % limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_limit_and_differ() {
        let mut random = Random::new(7);
        let drawn: Vec<Duration> = (0..1000).map(|_| random.below(Duration::from_secs(1))).collect();
        assert!(drawn.iter().all(|drawn| *drawn < Duration::from_secs(1)));
        let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(*low < Duration::from_millis(50) && *high > Duration::from_millis(950), "{low:?} to {high:?}");
        assert_eq!(random.below(Duration::ZERO), Duration::ZERO);
        assert_ne!(random.nonce(), 0);
        let range = Duration::from_secs(30)..=Duration::from_secs(60);
        assert!((0..1000).map(|_| random.within(&range)).all(|drawn| range.contains(&drawn)));
        assert_ne!(random.octets(), random.octets());
    }
}
