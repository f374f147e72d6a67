//! The API as a client sees it: by HTTP, one request after the other.

#[path = "../support/mod.rs"]
mod support;

mod apply;
mod faults;
mod lists;
mod objects;
mod rights;
mod watches;
