//! The Kubernetes API: where objects come from, and where statuses, labels and what is installed go to.
//!
//! Objects cross this crate as JSON and are read by the one parser of every source (`core::parse::object`); no type of
//! Kubernetes is modelled here a second time. What is written was decided in core.

pub mod access;
pub mod install;
pub mod source;
pub mod status;

pub use kube::Client;
