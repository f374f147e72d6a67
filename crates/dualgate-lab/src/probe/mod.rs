//! Probes: blocking clients that speak from a host of the lab.
//!
//! A probe makes its socket in the host, which takes microseconds, and does everything else on the calling thread, with a
//! deadline: the host's thread never waits for the network. What comes back is what was seen; whether that is right,
//! [`crate::checks`] and tests decide.

mod certificate;
mod http;
mod load;
mod name;
mod neighbour;
mod ping;
mod tcp;

use std::io;

pub use self::certificate::Shown;
pub use self::http::{Answer, Connection, Echo, Request, get};
pub use self::load::{Connections, Failure, Load, Loss, Running};
pub use self::name::{Resolved, resolve};
pub use self::neighbour::who_has;
pub use self::ping::ping;
pub use self::tcp::{Dialled, dial, tcp};

/// What a probe met instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The address is reached, and nobody listens on the port.
    #[error("refused")]
    Refused,
    /// There is no way: the host itself or a router on the way says so.
    #[error("unreachable ({0})")]
    Unreachable(String),
    /// Nothing came until the deadline.
    #[error("silence for {0} ms")]
    Silent(u128),
    /// The connection ended before the first octet of an answer.
    #[error("the connection ended without an answer")]
    Ended,
    /// What came is no answer.
    #[error("{0}")]
    Broken(String),
    /// The probe itself could not be made; nothing is known about the network.
    #[error("{0}")]
    Failed(String),
}

impl Trouble {
    /// What the kernel's word means for a probe that had `patience`.
    fn of(error: &io::Error, patience: std::time::Duration) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silent(patience.as_millis()),
            io::ErrorKind::HostUnreachable => Self::Unreachable("no way to the host".to_owned()),
            io::ErrorKind::NetworkUnreachable => Self::Unreachable("no way to the network".to_owned()),
            // What the kernel makes of "administratively prohibited" (RFC 4443 3.1).
            io::ErrorKind::PermissionDenied => Self::Unreachable("prohibited".to_owned()),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Failed(error.to_string()),
        }
    }
}
