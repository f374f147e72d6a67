//! What was answered, for as long as it may be told; and for a day longer, should nobody answer any more (RFC 8767).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dualgate_wire::dns::{Name, Rcode, RecordType};

use super::message::Kept;

/// How long an answer is kept beyond its time (RFC 8767 5).
const STALE: Duration = Duration::from_secs(86_400);

/// What was asked, by which an answer is found again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The name.
    pub name: Name,
    /// The record type.
    pub rtype: RecordType,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
    /// Whether unvalidated answers are welcome.
    pub checking_disabled: bool,
}

/// Answers within a number of octets: what was not asked for again goes first.
#[derive(Debug)]
pub struct Cache {
    entries: BTreeMap<Arc<Key>, Entry>,
    /// In the order in which they were kept, or spared.
    order: VecDeque<Arc<Key>>,
    octets: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    since: Duration,
    /// Whether it was asked for since it was last looked at.
    used: bool,
}

/// What is known.
#[derive(Debug)]
pub enum Found {
    /// An answer of so many seconds.
    Fresh(Arc<Kept>, u32),
    /// One whose time is over.
    Stale(Arc<Kept>),
}

impl Cache {
    /// Of so many octets at most.
    pub fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new(), octets: 0, limit }
    }

    /// What is known at `now`.
    pub fn find(&mut self, key: &Key, now: Duration) -> Option<Found> {
        let entry = self.entries.get_mut(key)?;
        let age = now.saturating_sub(entry.since);
        let ttl = Duration::from_secs(entry.kept.ttl.into());
        entry.used = true;
        if age < ttl {
            return Some(Found::Fresh(entry.kept.clone(), u32::try_from(age.as_secs()).unwrap_or(u32::MAX)));
        }
        let may_be_told = age < ttl + STALE && entry.kept.code != Rcode::ServFail;
        may_be_told.then(|| Found::Stale(entry.kept.clone()))
    }

    /// Keeps an answer, instead of what there was; also one that may not be kept takes the place of that.
    pub fn keep(&mut self, key: &Arc<Key>, kept: Arc<Kept>, now: Duration) {
        if kept.ttl == 0 || size(key, &kept) > self.limit {
            // Its place in the order goes when its turn comes.
            if self.entries.contains_key(key) {
                self.put(key, Arc::new(Kept::made(Rcode::ServFail, 0)), now);
            }
            return;
        }
        self.put(key, kept, now);
    }

    fn put(&mut self, key: &Arc<Key>, kept: Arc<Kept>, now: Duration) {
        let size = size(key, &kept);
        let entry = Entry { kept, since: now, used: false };
        match self.entries.insert(key.clone(), entry) {
            Some(former) => self.octets -= self::size(key, &former.kept),
            None => self.order.push_back(key.clone()),
        }
        self.octets += size;
        while self.octets > self.limit {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                Some(entry) => {
                    self.octets -= self::size(&oldest, &entry.kept);
                    self.entries.remove(&oldest);
                }
                None => {}
            }
        }
    }

    /// Forgets everything: other upstreams may know other things.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.octets = 0;
    }

    /// How many answers are kept, and how many octets they take.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.octets)
    }
}

fn size(key: &Key, kept: &Kept) -> usize {
    // The key is counted once; the maps' own nodes are about as large as what they point to.
    2 * size_of::<Entry>() + size_of::<Key>() + key.name.as_wire().len() + kept.size()
}
