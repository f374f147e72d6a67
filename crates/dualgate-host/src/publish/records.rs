//! APIs that have a record as a thing of its own, with an identifier: what of their records has to change for some edits.

use std::collections::{BTreeMap, BTreeSet};

use dualgate_core::plan::publish::{Edit, Set, SetKey, Sets};
use dualgate_wire::dns::Rdata;

/// A record of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The API's name for it.
    pub id: String,
    /// The set that it belongs to.
    pub key: SetKey,
    /// Time to live in seconds.
    pub ttl: u32,
    /// What it says; `None` if that cannot be read here, or is told to nobody. Beside one that says something it stays as it
    /// is.
    pub data: Option<Rdata>,
}

/// The sets that records make up.
pub fn sets(records: &[Record]) -> Sets {
    let mut sets = Sets::new();
    for record in records.iter().filter(|record| counts(records, record)) {
        let set = sets.entry(record.key.clone()).or_insert_with(|| Set { ttl: record.ttl, data: BTreeSet::new() });
        // One time to live that is wrong makes the set wrong.
        if set.ttl != record.ttl {
            set.ttl = set.ttl.min(record.ttl);
        }
        set.data.extend(record.data.clone());
    }
    sets
}

/// Whether a record is one of its set.
fn counts(records: &[Record], record: &Record) -> bool {
    let says = |other: &Record| other.data.is_some() && other.key == record.key;
    record.data.is_some() || !records.iter().any(says)
}

/// What is done with records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Those that go.
    pub delete: Vec<String>,
    /// Those that say something else.
    pub replace: Vec<(String, SetKey, u32, Rdata)>,
    /// Those that come.
    pub create: Vec<(SetKey, u32, Rdata)>,
}

/// What has to be done with the records of one set.
pub fn steps(records: &[Record], edit: &Edit) -> Steps {
    let of_set = records.iter().filter(|record| record.key == edit.key && counts(records, record));
    let of_set: Vec<&Record> = of_set.collect();
    let mut steps = Steps::default();
    let Some(after) = &edit.after else {
        steps.delete = of_set.iter().map(|record| record.id.clone()).collect();
        return steps;
    };
    let mut missing: BTreeSet<&Rdata> = after.data.iter().collect();
    let mut free: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in of_set {
        match record.data.as_ref().filter(|data| missing.remove(data)) {
            Some(data) if record.ttl != after.ttl => {
                steps.replace.push((record.id.clone(), edit.key.clone(), after.ttl, data.clone()));
            }
            Some(_) => {}
            None => drop(free.insert(&record.id, record)),
        }
    }
    let mut free = free.into_keys();
    for data in missing {
        match free.next() {
            Some(id) => steps.replace.push((id.to_owned(), edit.key.clone(), after.ttl, data.clone())),
            None => steps.create.push((edit.key.clone(), after.ttl, data.clone())),
        }
    }
    steps.delete.extend(free.map(str::to_owned));
    steps
}

#[cfg(test)]
mod tests {
    use dualgate_wire::dns::RecordType;

    use super::*;

    fn record(id: &str, ttl: u32, last: u8) -> Record {
        let key = SetKey::new("a.example.org".parse().unwrap(), RecordType::A);
        Record { id: id.to_owned(), key, ttl, data: Some(Rdata::A([192, 0, 2, last].into())) }
    }

    fn set(ttl: u32, last: &[u8]) -> Set {
        Set { ttl, data: last.iter().map(|last| Rdata::A([192, 0, 2, *last].into())).collect() }
    }

    #[test]
    fn records_that_say_what_is_wanted_stay_and_others_are_used_again() {
        let there = [record("one", 60, 1), record("two", 60, 2), record("three", 60, 3)];
        let edit = |after| Edit { key: there[0].key.clone(), before: None, after };
        assert_eq!(steps(&there, &edit(Some(set(60, &[3, 2, 1])))), Steps::default());
        let found = steps(&there, &edit(Some(set(60, &[2, 4]))));
        assert_eq!(found.delete, ["three"], "of those that are too many the last one goes");
        assert_eq!(found.replace.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["one"]);
        assert!(found.create.is_empty());
        let found = steps(&there[..1], &edit(Some(set(30, &[1, 2]))));
        assert_eq!((found.replace.len(), found.create.len(), found.delete.len()), (1, 1, 0));
        assert_eq!(steps(&there, &edit(None)).delete, ["one", "two", "three"]);
        assert_eq!(sets(&there)[&there[0].key], set(60, &[1, 2, 3]));
    }

    #[test]
    fn what_says_nothing_stays_beside_what_does() {
        let off = Record { data: None, ..record("off", 30, 0) };
        let there = [record("one", 60, 1), off.clone()];
        assert_eq!(sets(&there)[&off.key], set(60, &[1]));
        let edit = |after| Edit { key: off.key.clone(), before: None, after };
        assert_eq!(steps(&there, &edit(None)).delete, ["one"]);
        assert_eq!(steps(&there, &edit(Some(set(60, &[1])))), Steps::default());
        // Alone it is a set that says nothing, and is set right.
        assert_eq!(sets(&there[1..])[&off.key], set(30, &[]));
        assert_eq!(steps(&there[1..], &edit(Some(set(60, &[1])))).replace.len(), 1);
    }
}
