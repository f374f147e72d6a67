//! A whole site on one machine: "rehearse your site before you touch it".
//!
//! From a site file and manifests comes a [`topology::Topology`] (pure): hosts, links, addresses, routes, filters. The world
//! makes it so with network namespaces and netlink, one real `dualgate run` on every node, and an echo backend for every
//! pod. [`report::Status`] says what it is like; nothing here ever touches the machine's own network.

pub mod capture;
pub mod checks;
pub mod cluster;
pub mod control;
pub mod echo;
pub mod init;
pub mod kubernetes;
pub mod lab;
pub mod names;
mod narrow;
pub mod node;
pub mod probe;
pub mod process;
pub mod rehearsal;
pub mod report;
pub mod screen;
pub mod station;
pub mod topology;
pub mod trial;
pub mod workload;
pub mod world;
