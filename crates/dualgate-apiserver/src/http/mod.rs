//! The API over HTTP: paths and queries in, JSON and streams of events out.

mod access;
mod answer;
mod discovery;
mod handle;
mod path;
mod protobuf;
mod query;
mod watch;

pub(crate) use answer::Answered;
pub(crate) use handle::{handle, now};
