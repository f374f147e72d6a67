//! One value of the site that every voter has: the assignments of addresses, as their holder last said.
//!
//! Each member says in each heartbeat which replica it has ([`Part::Head`]). Who has an older one asks one of those who
//! have the newest for it, chunk by chunk ([`Part::Want`]), with at most [`WINDOW`] on the way; what is lost is asked for
//! again. The giver keeps no state. Whoever gets it has it to give.
//!
//! Replicas are ordered by term, then version. Each holder begins a term higher than any that a majority knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::message::{CHUNK, Key, Part};
use crate::model::NodeName;

/// Octets of a replica.
pub const REPLICA_LIMIT: usize = 2 << 20;

/// Terms beyond that are damage: one a second would take nine million years.
pub(super) const TERM_LIMIT: u64 = 1 << 48;

/// Chunks on the way.
const WINDOW: u32 = 128;

/// A value and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Of the holder that said it; grows with each.
    pub term: u64,
    /// Counts what was said in the term.
    pub version: u64,
    /// What was said.
    pub bytes: Arc<[u8]>,
}

/// What a member says that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub seen: u64,
    pub key: Key,
    pub length: u32,
}

/// One member's replica, and what it knows of those of others.
#[derive(Clone, Debug, Default)]
pub(super) struct Replication {
    /// The highest term that any holder was heard to begin.
    pub seen: u64,
    replica: Option<(Key, Replica)>,
    heads: BTreeMap<NodeName, Head>,
    fetch: Option<Fetch>,
}

#[derive(Clone, Debug)]
struct Fetch {
    key: Key,
    from: NodeName,
    bytes: Vec<u8>,
    missing: Vec<bool>,
    left: usize,
    /// Of those that were asked for last: so many have not come.
    on_the_way: u32,
    /// When it is asked for again, if nothing comes.
    again: Duration,
}

impl Replication {
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref().map(|(_, replica)| replica)
    }

    pub fn head(&self) -> Head {
        let (key, length) =
            self.replica.as_ref().map_or((Key::default(), 0), |(key, replica)| (*key, replica.bytes.len()));
        Head { seen: self.seen, key, length: length as u32 }
    }

    pub fn head_of(&self, peer: &NodeName) -> Option<Head> {
        self.heads.get(peer).copied()
    }

    /// Takes a replica if it is newer. Whether it was.
    pub fn install(&mut self, replica: Replica) -> bool {
        if replica.term > TERM_LIMIT || replica.bytes.len() > REPLICA_LIMIT {
            return false;
        }
        let key = Key { term: replica.term, version: replica.version, digest: digest(&replica.bytes) };
        self.seen = self.seen.max(key.term);
        if self.replica.as_ref().is_some_and(|(have, _)| *have >= key) {
            return false;
        }
        self.replica = Some((key, replica));
        self.fetch.take_if(|fetch| fetch.key <= key);
        true
    }

    /// A member said what it has.
    pub fn heard(&mut self, peer: &NodeName, head: Head) {
        if head.seen.max(head.key.term) > TERM_LIMIT || head.length as usize > REPLICA_LIMIT {
            return;
        }
        self.seen = self.seen.max(head.seen);
        self.heads.insert(peer.clone(), head);
    }

    /// A member is gone, or another process of it has come.
    pub fn forget(&mut self, peer: &NodeName) {
        self.heads.remove(peer);
        self.fetch.take_if(|fetch| fetch.from == *peer);
    }

    /// Whether somebody has a newer replica.
    pub fn is_behind(&self) -> bool {
        self.best().is_some()
    }

    /// When [`Replication::ask`] has something to ask for at the latest.
    pub fn due(&self) -> Option<Duration> {
        self.fetch.as_ref().map(|fetch| fetch.again)
    }

    /// What is to be asked for, and of whom; again after `patience` without anything.
    pub fn ask(&mut self, patience: Duration, now: Duration) -> Option<(NodeName, Part)> {
        if let Some((from, head)) = self.best()
            && self.fetch.as_ref().is_none_or(|fetch| fetch.key < head.key)
        {
            self.fetch = Some(Fetch::new(from.clone(), head, now));
        }
        let fetch = self.fetch.as_mut()?;
        if fetch.on_the_way > 0 && now < fetch.again {
            return None;
        }
        if fetch.on_the_way > 0 {
            // Nothing came for a while: maybe somebody else is easier to reach.
            let has_it = |(_, head): &(&NodeName, &Head)| head.key == fetch.key;
            let mut others = self.heads.iter().filter(has_it).map(|(name, _)| name);
            let next = others.clone().find(|name| **name > fetch.from).or_else(|| others.next());
            fetch.from = next.unwrap_or(&fetch.from).clone();
        }
        fetch.again = now + patience;
        let wanted = fetch.want();
        Some((fetch.from.clone(), wanted))
    }

    /// The chunks that somebody wants, if this is the replica that they are of.
    pub fn give(&self, key: Key, first: u32, wanted: u128) -> Vec<Part> {
        let Some((have, replica)) = &self.replica else { return Vec::new() };
        if *have != key {
            return Vec::new();
        }
        let chunk = |index: u32| {
            let start = usize::try_from(index).ok()?.checked_mul(CHUNK)?;
            let bytes = replica.bytes.get(start..)?;
            let bytes = bytes[..bytes.len().min(CHUNK)].to_vec();
            (index == 0 || !bytes.is_empty()).then_some(Part::Chunk { key, index, bytes })
        };
        (0..WINDOW).filter(|bit| wanted >> bit & 1 == 1).filter_map(|bit| chunk(first.checked_add(bit)?)).collect()
    }

    /// A chunk has come. The replica, once it is whole.
    pub fn take(&mut self, key: Key, index: u32, bytes: &[u8], patience: Duration, now: Duration) -> Option<Replica> {
        let fetch = self.fetch.as_mut().filter(|fetch| fetch.key == key)?;
        fetch.take(index, bytes, now + patience);
        if fetch.left > 0 {
            return None;
        }
        let fetch = self.fetch.take()?;
        let replica = Replica { term: key.term, version: key.version, bytes: fetch.bytes.into() };
        if digest(&replica.bytes) != key.digest {
            return None;
        }
        self.install(replica.clone()).then_some(replica)
    }

    /// Who has the newest replica, if it is newer than ours.
    fn best(&self) -> Option<(&NodeName, Head)> {
        let have = self.head().key;
        let newer = self.heads.iter().filter(|(_, head)| head.key > have);
        newer.max_by(|(_, a), (_, b)| a.key.cmp(&b.key)).map(|(name, head)| (name, *head))
    }
}

impl Fetch {
    fn new(from: NodeName, head: Head, now: Duration) -> Self {
        let length = head.length as usize;
        let chunks = length.div_ceil(CHUNK).max(1);
        let bytes = vec![0; length];
        Self { key: head.key, from, bytes, missing: vec![true; chunks], left: chunks, on_the_way: 0, again: now }
    }

    fn want(&mut self) -> Part {
        let first = self.missing.iter().position(|missing| *missing).unwrap_or(0);
        let window = self.missing[first..].iter().take(WINDOW as usize).enumerate();
        let wanted = window.fold(0_u128, |bits, (bit, missing)| bits | u128::from(*missing) << bit);
        self.on_the_way = wanted.count_ones();
        Part::Want { key: self.key, first: first as u32, wanted }
    }

    fn take(&mut self, index: u32, bytes: &[u8], again: Duration) {
        let start = (index as usize).saturating_mul(CHUNK);
        let is_missing = self.missing.get_mut(index as usize);
        let Some(missing) = is_missing.filter(|missing| **missing) else { return };
        let Some(place) = self.bytes.get_mut(start..) else { return };
        let length = place.len().min(CHUNK);
        if length != bytes.len() {
            return;
        }
        place[..length].copy_from_slice(bytes);
        *missing = false;
        self.left -= 1;
        self.on_the_way = self.on_the_way.saturating_sub(1);
        self.again = again;
    }
}

/// Tells two values apart that have the same place in the order, which only a lost memory can make.
fn digest(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}
