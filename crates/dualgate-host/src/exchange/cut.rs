//! What home says: one public cut, ready for every edge.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dualgate_core::model::moment::utc;
use dualgate_core::model::{Digest, NodeName, ObjectSet, Secret};
use dualgate_core::plan::public;
use serde::{Deserialize, Serialize};

use super::{Identity, MAX_TOLD, VERSION, message};

/// Which cut it is, among all that were ever told: who wrote it, since when that one has been writing, and its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToldGeneration {
    /// The home node that wrote it.
    pub authority: NodeName,
    /// When its process started to write, in microseconds since 1970: the count begins again with each.
    pub since: i64,
    /// Counts the cuts that differ, from 1.
    pub counter: u64,
}

impl fmt::Display for ToldGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}` since {}", self.counter, self.authority, utc(self.since.div_euclid(1_000_000)))
    }
}

/// A public cut as it is told. It holds keys, so it prints only what identifies it.
#[derive(Debug)]
pub struct Cut {
    /// Which it is.
    pub generation: ToldGeneration,
    /// Of the objects: two cuts that say the same have the same.
    pub digest: Digest,
    /// How many objects it has.
    pub objects: usize,
    /// What goes over the wire.
    pub(super) message: Secret,
}

/// More is public than can be told.
#[derive(Debug, thiserror::Error)]
#[error("what is public has {octets} octets; an edge can be told {MAX_TOLD}")]
pub struct CutTooLarge {
    /// Its size.
    pub octets: usize,
}

/// Writes the cuts of a home node, and counts them.
#[derive(Debug)]
pub struct Author {
    site: String,
    node: NodeName,
    since: i64,
    last: Option<Arc<Cut>>,
}

impl Author {
    /// Begins to count.
    pub fn new(identity: &Identity) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Self { site: identity.site.clone(), node: identity.node.clone(), since, last: None }
    }

    /// What `core::plan::public` gives, for the wire; the cut of before if it says the same.
    pub fn write(&mut self, set: &ObjectSet) -> Result<Arc<Cut>, CutTooLarge> {
        let objects = public::to_json(set);
        let digest = objects.digest();
        if let Some(last) = self.last.as_ref().filter(|last| last.digest == digest) {
            return Ok(last.clone());
        }
        let counter = self.last.as_ref().map_or(0, |last| last.generation.counter) + 1;
        let generation = ToldGeneration { authority: self.node.clone(), since: self.since, counter };
        let (site, told) = (self.site.clone(), generation.clone());
        let head = message::Told { version: VERSION, site, generation: told, digest, objects: [] };
        let message = message::told(&head, &objects);
        // Exposed to be counted.
        let octets = message.expose().len();
        if octets > MAX_TOLD {
            return Err(CutTooLarge { octets });
        }
        let cut = Arc::new(Cut { generation, digest, objects: set.objects.len(), message });
        self.last = Some(cut.clone());
        Ok(cut)
    }
}
