//! The long run of `tests/ownership`: worlds in which everything goes wrong, on all cores, until the time is over.
//!
//! ```text
//! cargo run --release -p dualgate-core --example simulate -- --seconds 3600
//! cargo run --release -p dualgate-core --example simulate -- --seed 42
//! ```
//!
//! `--seed N` alone tells the story of one world; with `--seconds` it is the first of many.

#![expect(clippy::disallowed_methods, reason = "a program, to which the rules of the pure library do not apply")]

#[path = "../tests/ownership/chaos.rs"]
mod chaos;
#[path = "../tests/ownership/world.rs"]
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaos::Summary;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut seed) = (None, None);
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|text| text.parse::<u64>().ok());
        match (argument.as_str(), number) {
            ("--seconds", Some(number)) => seconds = Some(number),
            ("--seed", Some(number)) => seed = Some(number),
            _ => {
                eprintln!("usage: simulate [--seconds N] [--seed N]");
                return ExitCode::from(2);
            }
        }
    }
    match (seconds, seed) {
        (None, Some(seed)) => tell(seed),
        (seconds, seed) => many(Duration::from_secs(seconds.unwrap_or(60)), seed.unwrap_or(0)),
    }
}

/// One world, told.
fn tell(seed: u64) -> ExitCode {
    let (result, story) = chaos::run(seed, true);
    println!("{}", story.join("\n"));
    match result {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(limit: Duration, first: u64) -> ExitCode {
    let start = Instant::now();
    let (next, is_failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new(Summary::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while start.elapsed() < limit && !is_failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    match chaos::run(seed, false).0 {
                        Ok(summary) => add(&mut total.lock().expect("a sum"), summary),
                        Err(violation) => {
                            is_failed.store(true, Ordering::Relaxed);
                            println!("seed {seed}: {violation}");
                            println!(
                                "its story: cargo run --release -p dualgate-core --example simulate -- --seed {seed}"
                            );
                        }
                    }
                }
            });
        }
    });
    let worlds = next.load(Ordering::Relaxed) - first;
    let total = *total.lock().expect("a sum");
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    println!(
        "{worlds} worlds in {minutes:.1} minutes ({:.0} a minute): {:.1} hours of virtual time, {} datagrams; \
         longest failover {:?} of {:?}, longest settling {:?} of {:?}",
        worlds as f64 / minutes,
        total.virtual_time.as_secs_f64() / 3600.0,
        total.datagrams,
        total.failover.0,
        total.failover.1,
        total.settling.0,
        total.settling.1,
    );
    if is_failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn add(total: &mut Summary, one: Summary) {
    total.virtual_time += one.virtual_time;
    total.datagrams += one.datagrams;
    for (total, one) in [(&mut total.failover, one.failover), (&mut total.settling, one.settling)] {
        if one.0 > total.0 {
            *total = one;
        }
    }
}
