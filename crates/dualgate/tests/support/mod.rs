//! What the tests of this folder have in common: a running node, backends that say who they are, and a client.
//!
//! Everything is on loopback. Nothing is waited for without a deadline.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod address;
mod certificate;
mod client;
mod cluster;
mod directory;
mod encrypted;
mod home;
mod node;
mod pod;
pub mod resolver;
pub mod tools;

use std::time::{Duration, Instant};

pub use address::{Reservation, reserve, reserve_pair};
pub use certificate::{Authority, Issued};
pub use client::{Answer, Client};
pub use cluster::Cluster;
pub use directory::Directory;
pub use encrypted::{Encrypted, Kind};
pub use home::{Home, application, gated};
pub use node::{Node, output};
pub use pod::{Pod, Seen};

/// Nothing in these tests takes longer, unless it says so.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks until the answer is yes; `what` says what was waited for, and the last no is shown.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// The same with another deadline.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "{what}: not within {limit:?}: {why}"),
        }
        // The other side is another process: there is nothing to be woken by.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
