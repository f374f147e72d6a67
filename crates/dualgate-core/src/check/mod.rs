//! Lints: what is allowed but will not do what its author meant.

pub mod objects;
mod reading;
pub mod site;
