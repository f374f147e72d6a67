//! Pure wire formats: bytes to typed meaning and back.
//!
//! Nothing here panics on any input, allocates by what an input claims, or reads beyond its budget.

pub mod arp;
pub mod bpf;
pub mod conntrack;
pub mod dns;
pub mod ethernet;
pub mod ndp;
mod netlink;
pub mod nftables;
pub mod proxy_protocol;
