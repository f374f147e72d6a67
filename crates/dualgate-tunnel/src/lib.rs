//! The WireGuard engine: one interface with its peers.
//!
//! [`Engine::start`] makes the interface in the network of the calling thread, by the best means that is there
//! ([`Backend::choose`]): the kernel's WireGuard, or WireGuard in this process behind a TUN device, or behind a cable with
//! a packet socket where nothing else is allowed. Addresses and routes are not its business, nor whom to dial when: that
//! is decided by whoever reads [`Engine::status`].

mod echo;
mod engine;
mod keeper;
mod kernel;
mod path;
mod userspace;

pub use echo::{Answer, Echo, Kind};
pub(crate) use engine::check;
pub use engine::{Backend, Choice, Config, Engine, Peer, PeerStatus, Status, TunnelError};
pub use keeper::{Keeper, PeerReport, Report, View};
pub use path::PathState;
