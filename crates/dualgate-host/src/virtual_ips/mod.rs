//! Virtual IPs on this host: who holds them is agreed with the other home nodes, the LAN is told, and packets to them are
//! served here.
//!
//! ```text
//! plan ──────────> keeper ──> core::machine::ownership <──> heartbeats (UDP, sealed)
//! ready groups ──>   │                 │
//!                    │                 └─> core::machine::announcer <──> packet sockets (ARP, NDP), one a LAN interface
//!                    └─> data path: local routes, silence of the kernel, relays
//! ```
//!
//! The keeper is one thread, which nothing else in the process can hold up. Whether it may answer for an address is asked
//! right before each frame leaves, against a clock that goes on while the machine sleeps: a process that was frozen says
//! nothing of what it has lost meanwhile.

mod assigned;
pub mod control;
pub mod data_path;
mod disk;
mod heartbeat;
mod keeper;
mod lan;
mod links;
pub mod packet;
mod question;
mod report;
mod ring;
mod road;
pub mod service_proxy;
mod tell;
mod trouble;
mod work;

pub use keeper::{Keeper, Known, Leave, View};
pub use question::who_has;
pub use report::{Conflict, GroupReport, LinkReport, PeerReport, Report};
