//! The pure heart of dualgate.
//!
//! Values in, values out: no clock, no file system, no sockets, no globals. The river runs through it
//! from top to bottom:
//!
//! ```text
//! parse   text and JSON  -> Site, Object      the one parser for every source
//! lower   Kubernetes words -> our few words   routes, backends, certificates
//! plan    Snapshot -> what one node must do   one file per actuator
//! route   (host, path) -> route               the table that the data plane asks
//! render  Site -> files for a person          what other programs are configured with
//! ```
//!
//! What a user got wrong is a [`model::Finding`], never an error that stops something else.

pub mod case;
pub mod check;
pub mod explain;
pub mod lower;
pub mod machine;
pub mod model;
pub mod parse;
pub mod plan;
pub mod render;
pub mod route;
pub mod seam;
pub mod yaml;
