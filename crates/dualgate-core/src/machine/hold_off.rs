//! When to act on changes: one change at once, a burst when it pauses.

use std::ops::Add;
use std::time::Duration;

/// A pause of this length ends a burst.
const QUIET: Duration = Duration::from_millis(20);

/// A burst is acted on at least this often.
const LONGEST: Duration = Duration::from_millis(200);

/// Acts on the trailing edge only: what comes after a quiet time waits for nothing. `T` is the caller's clock.
#[derive(Clone, Debug)]
pub struct HoldOff<T> {
    passed: Option<T>,
    waiting: Option<Waiting<T>>,
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    first: T,
    due: T,
}

impl<T: Copy + Ord + Add<Duration, Output = T>> HoldOff<T> {
    /// Due at this time.
    pub fn due_at(due: T) -> Self {
        Self { passed: None, waiting: Some(Waiting { first: due, due }) }
    }

    /// Something changed.
    pub fn triggered(&mut self, now: T) {
        let in_burst = self.waiting.is_some() || self.passed.is_some_and(|passed| now < passed + QUIET);
        let first = self.waiting.as_ref().map_or(now, |waiting| waiting.first);
        let due = if in_burst { (now + QUIET).min(first + LONGEST) } else { now };
        self.waiting = Some(Waiting { first, due });
    }

    /// When to act.
    pub fn due(&self) -> Option<T> {
        self.waiting.as_ref().map(|waiting| waiting.due)
    }

    /// All that changed until now was acted on.
    pub fn passed(&mut self, now: T) {
        self.passed = Some(now);
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_single_change_passes_at_once_and_a_burst_when_it_pauses() {
        let start = Duration::from_secs(7);
        let mut hold_off = HoldOff::due_at(start);
        hold_off.passed(start);
        assert_eq!(hold_off.due(), None);
        hold_off.triggered(start + millis(100));
        assert_eq!(hold_off.due(), Some(start + millis(100)));
        hold_off.passed(start + millis(100));
        for at in [105, 110, 125] {
            hold_off.triggered(start + millis(at));
            assert_eq!(hold_off.due(), Some(start + millis(at + 20)));
        }
        hold_off.passed(start + millis(145));
        hold_off.triggered(start + millis(165));
        assert_eq!(hold_off.due(), Some(start + millis(165)), "a quiet time has passed");
    }

    #[test]
    fn an_endless_burst_is_acted_on_in_time() {
        let start = Duration::from_secs(7);
        let mut hold_off = HoldOff::due_at(start);
        hold_off.passed(start);
        let mut acted = Vec::new();
        for at in (5..1000).step_by(10) {
            let now = start + millis(at);
            if hold_off.due().is_some_and(|due| due <= now) {
                acted.push(at);
                hold_off.passed(now);
            }
            hold_off.triggered(now);
        }
        assert!((4..=5).contains(&acted.len()), "{acted:?}");
    }
}
