//! How often something may happen: so many times at once, and so many a second besides.

use std::time::Instant;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Allowance {
    left: f64,
    burst: f64,
    rate: f64,
    since: Instant,
}

impl Allowance {
    /// A full one.
    pub fn new(burst: f64, rate: f64, now: Instant) -> Self {
        Self { left: burst, burst, rate, since: now }
    }

    /// It happened once more; `false` if that was too often.
    pub fn spend(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * self.rate;
        self.left = (self.left + gained).min(self.burst) - 1.0;
        self.since = now;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_allowed_once_and_the_rate_always() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(3.0, 10.0, now);
        assert_eq!([(); 4].map(|()| allowance.spend(now)), [true, true, true, false]);
        now += Duration::from_millis(250);
        assert_eq!([(); 3].map(|()| allowance.spend(now)), [true, false, false]);
        for _ in 0..100 {
            now += Duration::from_secs(1);
            assert!(allowance.spend(now), "ten a second are allowed");
        }
    }
}
