//! Lints: what is allowed but will not do what its author meant.

pub mod objects;
pub mod site;
