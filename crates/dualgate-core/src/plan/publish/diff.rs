//! What has to change at a provider, so that it says what is wanted: and nothing of anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dualgate_wire::dns::{Name, RecordType};

use super::mark::{Mark, Place, is_mark, is_reserved, mark_name, marked};
use super::{Publication, Set, SetKey, Sets, Wanted};
use crate::model::Text;
use crate::model::site::PublishPolicy;

/// What differs between what is wanted and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What has to be done, in this order.
    pub changes: Vec<Change>,
    /// What cannot be done, as somebody else's records are in the way.
    pub conflicts: Vec<Conflict>,
    /// Ours and kept: no longer wanted, by `policy: upsert-only`; or of a kind that the provider does not take any more.
    pub kept: Vec<SetKey>,
    /// Wanted, and of a kind that the provider does not take.
    pub unfit: Vec<SetKey>,
}

/// A set of records with its marks: all of it belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub kind: Kind,
    /// The records; the same before and after where only the mark is wrong.
    pub record: Edit,
    /// The marks.
    pub marks: Vec<Edit>,
    /// What the records come from.
    pub from: Text,
}

impl Change {
    /// All that changes: who creates writes the mark first, who deletes removes it last. So whoever is interrupted finds his
    /// own again.
    pub fn edits(&self) -> Vec<&Edit> {
        let record = std::iter::once(&self.record);
        let edits: Vec<&Edit> = match self.kind {
            Kind::Create | Kind::Update => self.marks.iter().chain(record).collect(),
            Kind::Delete => record.chain(&self.marks).collect(),
        };
        edits.into_iter().filter(|edit| edit.before != edit.after).collect()
    }
}

/// What becomes of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub key: SetKey,
    /// As it is.
    pub before: Option<Set>,
    /// As it is to be.
    pub after: Option<Set>,
}

/// What is done with a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It goes. First, as it may be in the way of another.
    Delete,
    /// It says something else.
    Update,
    /// It comes.
    Create,
}

impl Kind {
    /// For people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Create => "create",
        }
    }
}

/// Something wanted that is in somebody else's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What is wanted.
    pub key: SetKey,
    /// Who is in the way.
    pub why: Why,
}

/// Why something wanted is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is there without a mark.
    Foreign(SetKey),
    /// It says what is wanted, without a mark.
    Same,
    /// It has the mark of another owner.
    Owner(String),
    /// Something else stands where the mark would.
    Mark(SetKey),
    /// A part of the zone is another server's.
    Delegated(Name),
    /// There is no room for its mark.
    Long,
    /// Its mark would be a wildcard's.
    Reserved,
}

impl Why {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Foreign(_) | Self::Same => "remove it at the provider; dualgate then writes its own",
            Self::Owner(_) => "remove it there, or set `dns.owner` to this owner if nobody else writes under that name",
            Self::Mark(_) => "remove the TXT record at the provider",
            Self::Delegated(_) => "make it a zone of its own in `dns.zones`",
            Self::Long => "use a shorter name",
            Self::Reserved => "use another name",
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Foreign(other) if *other == self.key => {
                f.write_str("it is there and not dualgate's: it is left as it is")
            }
            Why::Foreign(other) => write!(f, "`{other}` is there and not dualgate's: the name is left as it is"),
            Why::Same => f.write_str("somebody else wrote the same: it will not follow"),
            Why::Owner(owner) => write!(f, "it belongs to `{owner}`: it is left as it is"),
            Why::Mark(mark) => write!(f, "`{mark}` would be its mark, and says something else"),
            Why::Delegated(name) => write!(f, "`{name}` is another server's zone"),
            Why::Long => f.write_str("its name is too long to be marked"),
            Why::Reserved => {
                f.write_str("a name that begins with `_wildcard` is reserved: marks of wildcards stand there")
            }
        }
    }
}

/// What has to change. `existing` is what the provider has; `fit` says how the provider would keep a set, or that it cannot.
pub fn diff(publication: &Publication, existing: &Sets, fit: impl Fn(&SetKey, &Set) -> Option<Set>) -> Diff {
    let mut diff = Diff::default();
    let there = There::of(publication, existing);
    let mut wanted: BTreeMap<&SetKey, (Set, &Wanted)> = BTreeMap::new();
    for (key, one) in publication.wanted.iter().filter(|(key, _)| publication.is_ours(&key.name)) {
        match fit(key, &one.set) {
            Some(set) => drop(wanted.insert(key, (set, one))),
            None => diff.unfit.push(key.clone()),
        }
    }
    let mut written: BTreeMap<&Name, Vec<RecordType>> = BTreeMap::new();
    for (key, (set, one)) in &wanted {
        if let Some(why) = there.why_not(publication, key, set) {
            diff.conflicts.push(Conflict { key: (*key).clone(), why });
            continue;
        }
        written.entry(&key.name).or_default().push(key.rtype);
        diff.changes.extend(there.change(publication, key, set, one, &fit));
    }
    for (key, marks) in there.ours.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        let is_kept = match publication.policy {
            // What is wanted does not go because its provider would not take it again.
            _ if publication.wanted.contains_key(key) => true,
            PublishPolicy::Sync => false,
            // Only what is in the way of something that is written goes.
            PublishPolicy::UpsertOnly => {
                !written.get(&key.name).into_iter().flatten().any(|other| excludes(*other, key.rtype))
            }
        };
        if is_kept {
            diff.kept.push(key.clone());
            continue;
        }
        diff.changes.push(there.removal(key, marks));
    }
    diff.changes.sort_by(|one, other| (one.kind, &one.record.key).cmp(&(other.kind, &other.record.key)));
    diff
}

/// What the provider has of the zone.
struct There<'a> {
    all: &'a Sets,
    /// What we have marked, with the places of the marks.
    ours: BTreeMap<SetKey, Vec<SetKey>>,
    /// What other owners have marked.
    theirs: BTreeMap<SetKey, String>,
    /// What is neither ours nor a mark of ours, by name.
    foreign: BTreeMap<&'a Name, Vec<RecordType>>,
}

impl<'a> There<'a> {
    fn of(publication: &Publication, all: &'a Sets) -> Self {
        let mut ours: BTreeMap<SetKey, Vec<SetKey>> = BTreeMap::new();
        let mut theirs = BTreeMap::new();
        let mut marks = BTreeSet::new();
        for place in [Place::Ours, Place::Usual] {
            for (key, set) in all.iter().filter(|(key, _)| key.rtype == RecordType::TXT) {
                let (Mark::Of(owner), Some(of)) = (Mark::read(set), marked(&key.name, place)) else { continue };
                let is_start = of.rtype == RecordType::SOA || of.rtype == RecordType::NS && of.name == publication.at;
                // What has a mark is a record and no mark; so is what stands where a record is wanted.
                let is_record =
                    place == Place::Usual && (ours.contains_key(key) || publication.wanted.contains_key(key));
                let is_ours = publication.is_ours(&key.name) && publication.is_ours(&of.name);
                if !is_ours || is_start || is_record || is_mark(&of, place) {
                    continue;
                }
                // Whoever did not name his owner did not ask for what another program marked with the same one.
                if owner == *publication.owner && (place == Place::Ours || publication.takes_over) {
                    ours.entry(of).or_default().push(key.clone());
                    marks.insert(key);
                } else {
                    theirs.insert(of, owner);
                }
            }
        }
        let mut foreign: BTreeMap<&Name, Vec<RecordType>> = BTreeMap::new();
        let of_others = all.keys().filter(|key| !marks.contains(key) && !ours.contains_key(key));
        of_others.for_each(|key| foreign.entry(&key.name).or_default().push(key.rtype));
        Self { all, ours, theirs, foreign }
    }

    /// Who is in the way of a wanted set.
    fn why_not(&self, publication: &Publication, key: &SetKey, set: &Set) -> Option<Why> {
        if is_reserved(&key.name) {
            return Some(Why::Reserved);
        }
        let Some(mark) = mark_name(key) else { return Some(Why::Long) };
        if is_mark(key, Place::Ours) {
            return Some(Why::Mark(key.clone()));
        }
        let is_marked = self.ours.contains_key(key);
        if !is_marked {
            // Also without the records: who writes the mark first is about to write them.
            if let Some(owner) = self.theirs.get(key) {
                return Some(Why::Owner(owner.clone()));
            }
            if let Some(there) = self.all.get(key) {
                return Some(if there.data == set.data { Why::Same } else { Why::Foreign(key.clone()) });
            }
        }
        if self.all.contains_key(&mark) && !self.ours.get(key).is_some_and(|marks| marks.contains(&mark)) {
            return Some(Why::Mark(mark));
        }
        let others = self.foreign.get(&key.name).map(Vec::as_slice).unwrap_or_default();
        if let Some(other) = others.iter().find(|other| excludes(key.rtype, **other)) {
            return Some(Why::Foreign(SetKey::new(key.name.clone(), *other)));
        }
        let above = std::iter::successors(Some(key.name.clone()), Name::parent);
        let mut above = above.take_while(|name| name.is_within(&publication.at) && *name != publication.at);
        let is_cut = |name: &Name| self.foreign.get(name).is_some_and(|types| types.contains(&RecordType::NS));
        above.find(is_cut).map(Why::Delegated)
    }

    fn change(
        &self,
        publication: &Publication,
        key: &SetKey,
        set: &Set,
        wanted: &Wanted,
        fit: impl Fn(&SetKey, &Set) -> Option<Set>,
    ) -> Option<Change> {
        let mark = mark_name(key)?;
        let written = Mark::write(&publication.owner, &wanted.from, set.ttl);
        let written = fit(&mark, &written).unwrap_or(written);
        let before = self.all.get(key).cloned();
        let kind = if before.is_some() { Kind::Update } else { Kind::Create };
        let record = Edit { key: key.clone(), before, after: Some(set.clone()) };
        let own = Edit { before: self.all.get(&mark).cloned(), key: mark.clone(), after: Some(written) };
        let former = self.ours.get(key).into_iter().flatten().filter(|at| **at != mark).map(|at| self.gone(at));
        let marks = std::iter::once(own).chain(former).collect();
        let change = Change { kind, record, marks, from: wanted.from.clone() };
        (!change.edits().is_empty()).then_some(change)
    }

    fn removal(&self, key: &SetKey, marks: &[SetKey]) -> Change {
        let marks = marks.iter().map(|mark| self.gone(mark)).collect();
        Change { kind: Kind::Delete, record: self.gone(key), marks, from: "".into() }
    }

    fn gone(&self, key: &SetKey) -> Edit {
        Edit { key: key.clone(), before: self.all.get(key).cloned(), after: None }
    }
}

/// Whether a set of one type is not to stand beside another's of the other type.
fn excludes(one: RecordType, other: RecordType) -> bool {
    match (one, other) {
        // What signs a zone stands beside everything.
        (_, RecordType::RRSIG | RecordType::NSEC) => false,
        (RecordType::CNAME, _) | (_, RecordType::CNAME) => true,
        (one, other) => leads(one) && leads(other),
    }
}

/// What says where a name leads to.
fn leads(rtype: RecordType) -> bool {
    [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB].contains(&rtype)
}
