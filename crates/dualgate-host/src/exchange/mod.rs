//! The exchange between nodes: home tells the edge what is public, and the edge says how it is.
//!
//! Home dials, as nobody can come in there: each home node opens one TCP connection through the tunnel to each edge,
//! and keeps it open. What goes through:
//!
//! ```text
//! home -> edge   Told    the whole public cut of the objects, each time it is another one
//! edge -> home   Facts   what the edge serves, and from which generation
//! both           Ping    when there was nothing else to say for 5 s; after 15 s of silence the other one is gone
//! ```
//!
//! **Who may speak.** Both ends know each other's WireGuard keys from the site file, and the same keys prove here who
//! they are: Noise KK, with the pair's preshared key if it has one (`session.rs`). WireGuard is Noise with the same hash,
//! for which alone a static key may be shared between two protocols. The tunnel would be proof enough today; but it
//! proves an address, and a router may be its home end, or somebody else's WireGuard.
//!
//! **Whose word counts.** The edge listens to every home node, and takes what the most senior one tells that is
//! connected: the first in the site file. When that one goes, the next one's last word is taken, which is there
//! already. There is no election, because there is nothing to agree on: all home nodes read the same cluster, so that
//! whoever speaks says the same a moment sooner or later. Home nodes that read folders which differ are a mistake, and
//! a finding (`home-differs`) says so.
//!
//! **What is kept.** Nothing here: the edge's store keeps what [`Listener`] yields, as for every source.
//!
//! Nothing that is said is old: within a session Noise counts the frames, a session cannot be replayed, and what was
//! told counts only as long as nobody who is connected says otherwise.

mod cut;
mod listener;
mod message;
mod refusal;
mod session;
mod teller;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualgate_core::model::{NodeName, PublicKey};

use crate::keys::Key;

pub use cut::{Author, Cut, CutTooLarge, ToldGeneration};
pub use listener::{Heard, HeardFrom, ListenError, Listener};
pub use message::{LocalFacts, Phase};
pub use refusal::{Refusal, Refusals};
pub use teller::{Link, PeerFacts, Sign, Teller};

/// Where the edge listens, on its private addresses.
pub use dualgate_core::plan::firewall::EXCHANGE_PORT as PORT;

/// The version of what is said, and how. Two that differ do not talk.
pub const VERSION: u16 = 1;

/// The most that one cut may have, in octets.
pub const MAX_TOLD: usize = 64 << 20;

/// The most that an edge says of itself, in octets.
const MAX_FACTS: usize = 1 << 20;

/// After how long without a word one says that one is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// After how long without a word the other end is gone.
const DEAD: Duration = Duration::from_secs(15);
/// How long the other end may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many connections may be in the middle of that.
const MAX_UNPROVEN: usize = 16;
/// After how long without home, or with home nodes that differ, it is worth a finding.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The site's name.
    pub site: String,
    /// Its own.
    pub node: NodeName,
    /// Its private key.
    pub private: Key,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// By what it is known, in the order in which it is tried: several while keys change.
    pub keys: Vec<PeerKey>,
}

/// By what another node is known.
#[derive(Clone, Debug)]
pub struct PeerKey {
    /// Its public key.
    pub public: PublicKey,
    /// What both share, if they share something. A pair that does never does without.
    pub preshared: Option<Key>,
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
