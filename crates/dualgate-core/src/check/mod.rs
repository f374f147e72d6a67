//! Lints: what is allowed but will not do what its author meant.

mod by_host;
pub mod objects;
mod reading;
mod service_ports;
pub mod site;
