//! The immutable middle of the river: everything known at one moment.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::object::ObjectSet;
use super::site::Site;

/// Counts snapshots within one process, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Everything known at one moment. Planners read it and nothing else.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which one this is.
    pub generation: Generation,
    /// The site file's content.
    pub site: Arc<Site>,
    /// The source's objects.
    pub objects: Arc<ObjectSet>,
    /// What the world looked like.
    pub facts: Facts,
}

/// What the world looked like when the snapshot was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Wall clock in seconds since 1970, for certificates' validity.
    pub now: i64,
}
