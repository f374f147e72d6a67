//! Lints: what is allowed but will not do what its author meant.

mod by_host;
pub mod objects;
mod reading;
pub mod site;
