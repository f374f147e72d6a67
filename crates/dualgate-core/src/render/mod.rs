//! What a person puts on a machine, written from the site file: the configuration of K3s, the unit of the host's service
//! manager, what has to be copied to an edge.
//!
//! Pure, as a planner is: values in, text out. Nothing here acts on a machine, and nothing secret is in it: a key is
//! named by its place, and whoever writes the files puts it there.

pub mod bundle;
pub mod elf;
pub mod k3s;
pub mod router_steps;
pub mod unit;
