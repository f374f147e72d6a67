//! Ownership on a virtual clock: ordinary stories, and as many worlds where everything goes wrong as fit the time.
//!
//! `DUALGATE_SIMULATION_SECONDS` says how long (20 without it), `DUALGATE_SIMULATION_SEED` runs one world alone and tells
//! its story. `cargo run --release -p dualgate-core --example simulate` does the same for as long as one likes.

#![expect(clippy::disallowed_methods, reason = "a clock says how many worlds fit; none of them sees it")]

#[path = "ownership/chaos.rs"]
mod chaos;
#[path = "ownership/many.rs"]
mod many;
#[path = "ownership/stories.rs"]
mod stories;
#[path = "ownership/world.rs"]
mod world;

use std::time::{Duration, Instant};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nobody_owns_what_another_owns_whatever_happens() {
    if let Some(seed) = number("DUALGATE_SIMULATION_SEED") {
        let (result, story) = chaos::run(seed, true);
        println!("{}", story.join("\n"));
        println!("{:?}", result.unwrap_or_else(|violation| panic!("seed {seed}: {violation}")));
        return;
    }
    let limit = Duration::from_secs(number("DUALGATE_SIMULATION_SECONDS").unwrap_or(20));
    let start = Instant::now();
    let mut seeds = 0;
    while seeds < 20 || start.elapsed() < limit {
        let (result, _) = chaos::run(seeds, false);
        if let Err(violation) = result {
            panic!(
                "seed {seeds}: {violation}\n\
                 DUALGATE_SIMULATION_SEED={seeds} cargo test -p dualgate-core --test ownership nobody -- --nocapture"
            );
        }
        seeds += 1;
    }
    println!("{seeds} worlds");
}
