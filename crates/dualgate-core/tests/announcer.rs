//! The announcer on a virtual clock: frames octet by octet as text cases, its timing, and what holds for any input.

#[path = "announcer/cases.rs"]
mod cases;
#[path = "oracle/announcer.rs"]
mod oracle;
#[path = "announcer/time.rs"]
mod time;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_at_any_time_keep_the_promises(input in prop::collection::vec(any::<u8>(), 0..600)) {
        oracle::check(&input);
    }

    #[test]
    fn frames_that_are_almost_right_keep_the_promises(
        steps in prop::collection::vec((0..16u8, any::<u8>(), any::<u8>(), any::<u8>()), 0..60),
    ) {
        let octets: Vec<u8> = steps.iter().flat_map(|(step, a, b, c)| [*step, *a, *b, *c]).collect();
        oracle::check(&octets);
    }
}
