//! Names by hash, and what is said of them, encoded.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use dualgate_wire::dns::{Name, Rdata, RecordType, encode, suffixes};
use foldhash::fast::FixedState;

use crate::plan::dns::{RecordSet, Zone};

/// Where octets stand in the table's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Octets {
    at: u32,
    length: u32,
}

/// All zones of a view.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// What it was made from, in the order of `zones`.
    of: Vec<Arc<Zone>>,
    store: Vec<u8>,
    nodes: Vec<Node>,
    sets: Vec<Set>,
    zones: Vec<ZoneEntry>,
    /// One more than the number of a node; 0 is free. The number of slots is a power of two.
    slots: Vec<u32>,
    /// How many labels the longest name has: what is longer needs no look.
    deepest: usize,
}

/// What is known of one name.
#[derive(Debug)]
pub(super) struct Node {
    /// Of its name.
    pub hash: u64,
    /// What it is in its zone.
    pub kind: Kind,
    name: Octets,
    zone: u32,
    first: u32,
    count: u32,
    /// One more than the number of `*` below it; 0 is none.
    wildcard: u32,
}

impl Node {
    /// The octets of its name.
    pub fn length(&self) -> usize {
        self.name.length as usize
    }
}

/// What a name is in its zone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Its beginning, with the addresses of its servers.
    Apex {
        /// Records with their owners.
        glue: Octets,
        /// How many.
        records: u16,
    },
    /// The beginning of another zone, which is elsewhere.
    Cut {
        /// Records with their owners.
        glue: Octets,
        /// How many.
        records: u16,
    },
    /// Any other.
    Plain,
}

/// The records of one name and type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    rtype: RecordType,
    /// How many.
    pub records: u16,
    /// As they go into an answer.
    pub at: Octets,
}

impl Set {
    /// The octets of a CNAME's target: all behind the fixed part of its one record.
    pub fn target_length(&self) -> usize {
        self.at.length as usize - FIXED
    }
}

/// Owner, type, class, time to live and length.
const FIXED: usize = 12;

/// A zone as answers need it.
#[derive(Debug)]
pub(super) struct ZoneEntry {
    /// Of its name.
    pub hash: u64,
    /// The octets of its name.
    pub apex_length: usize,
    /// Its SOA with the time to live of what is not there.
    pub negative: Octets,
    is_whole: bool,
    has_cuts: bool,
}

/// What a name leads to.
pub(super) enum Found<'t> {
    /// It is there.
    Node(&'t Node),
    /// A wildcard stands for it.
    Wildcard(&'t Node),
    /// It is beyond a cut of a zone.
    Cut(&'t Node),
    /// It is not there.
    Missing(&'t ZoneEntry),
    /// It is not ours to say.
    Outside,
}

fn hash(name: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(name)
}

impl Table {
    /// With all that is said of these zones; what `before` has of it already is copied.
    pub fn new(zones: &[Arc<Zone>], before: &Self) -> Self {
        let names: usize = zones.iter().map(|zone| zone.sets.len() + 8).sum();
        let mut table = Self {
            slots: vec![0; (names * 2).next_power_of_two()],
            nodes: Vec::with_capacity(names),
            sets: Vec::with_capacity(before.sets.len() + 8),
            store: Vec::with_capacity(names * 64 + before.store.len()),
            ..Self::default()
        };
        // The longest first, so that what lies in two zones belongs to the deeper one.
        let mut ordered: Vec<&Arc<Zone>> = zones.iter().collect();
        ordered.sort_by_key(|zone| std::cmp::Reverse(zone.name.labels().count()));
        for zone in ordered {
            table.add(zone, before);
        }
        table
    }

    /// What a name in small letters leads to.
    pub fn find(&self, name: &[u8], rtype: RecordType) -> Found<'_> {
        if let Some(node) = self.look_up(name, hash(name)) {
            return self.at(node, name, rtype);
        }
        let labels = suffixes(name).count() - 1;
        let above = suffixes(name).skip(1.max(labels.saturating_sub(self.deepest)));
        let Some(encloser) = above.into_iter().find_map(|above| self.look_up(above, hash(above))) else {
            return Found::Outside;
        };
        let zone = &self.zones[encloser.zone as usize];
        if let Some(cut) = self.cut(encloser, name, zone) {
            return Found::Cut(cut);
        }
        match self.nodes.get((encloser.wildcard as usize).wrapping_sub(1)) {
            Some(wildcard) => Found::Wildcard(wildcard),
            None if zone.is_whole => Found::Missing(zone),
            None => Found::Outside,
        }
    }

    fn at<'t>(&'t self, node: &'t Node, name: &[u8], rtype: RecordType) -> Found<'t> {
        let zone = &self.zones[node.zone as usize];
        if let Some(cut) = self.cut(node, name, zone) {
            // RFC 4035 3.1.4.1: what the parent knows of the child.
            let is_parents = rtype == RecordType::DS && cut.length() == name.len();
            return if is_parents { Found::Node(node) } else { Found::Cut(cut) };
        }
        if node.count == 0 && !zone.is_whole { Found::Outside } else { Found::Node(node) }
    }

    /// The highest cut at or above a name within its zone.
    fn cut(&self, node: &Node, name: &[u8], zone: &ZoneEntry) -> Option<&Node> {
        if !zone.has_cuts {
            return None;
        }
        let within = suffixes(name).filter(|above| above.len() > zone.apex_length && above.len() <= name.len());
        let of_zone = within.filter_map(|above| self.look_up(above, hash(above)));
        of_zone.filter(|above| above.zone == node.zone && matches!(above.kind, Kind::Cut { .. })).last()
    }

    fn look_up(&self, name: &[u8], hash: u64) -> Option<&Node> {
        self.number(name, hash).and_then(|number| self.nodes.get(number))
    }

    fn number(&self, name: &[u8], hash: u64) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let number = (*self.slots.get(at)? as usize).checked_sub(1)?;
            let node = self.nodes.get(number)?;
            if node.hash == hash && self.octets(node.name) == name {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }

    /// The zone that answers: the parent's side of a beginning for what the parent knows (DS).
    pub fn zone(&self, node: &Node, name: &[u8], rtype: RecordType) -> &ZoneEntry {
        let own = &self.zones[node.zone as usize];
        if rtype != RecordType::DS || own.apex_length != name.len() {
            return own;
        }
        let above = suffixes(name).skip(1).find_map(|above| self.look_up(above, hash(above)));
        above.map_or(own, |above| &self.zones[above.zone as usize])
    }

    /// The sets of a name, in the order of their types.
    pub fn sets(&self, node: &Node) -> &[Set] {
        &self.sets[node.first as usize..(node.first + node.count) as usize]
    }

    /// The set of a type.
    pub fn set(&self, node: &Node, rtype: RecordType) -> Option<&Set> {
        self.sets(node).iter().find(|set| set.rtype == rtype)
    }

    pub fn octets(&self, octets: Octets) -> &[u8] {
        &self.store[octets.at as usize..(octets.at + octets.length) as usize]
    }

    fn add(&mut self, zone: &Arc<Zone>, before: &Self) {
        self.of.push(zone.clone());
        let number = self.zones.len() as u32;
        let minimum = match zone.soa.data.first() {
            Some(Rdata::Soa { minimum, .. }) => *minimum,
            Some(_) | None => 0,
        };
        let start = self.store.len();
        // RFC 2308 3: the lesser of both.
        encode(RecordType::SOA, zone.soa.ttl.min(minimum), zone.soa.data.iter(), &mut self.store);
        let negative = self.since(start);
        let cuts: BTreeSet<&Name> = (zone.sets.iter())
            .filter(|(name, sets)| **name != zone.name && sets.iter().any(|set| set.rtype == RecordType::NS))
            .map(|(name, _)| name)
            .collect();
        self.zones.push(ZoneEntry {
            hash: hash(zone.name.as_wire()),
            apex_length: zone.name.as_wire().len(),
            negative,
            is_whole: zone.is_whole,
            has_cuts: !cuts.is_empty(),
        });
        if !zone.sets.contains_key(&zone.name) {
            self.node(number, zone.name.as_wire(), &[], Kind::Plain);
        }
        let former = before.of.iter().position(|former| former.name == zone.name);
        let mut old = former.iter().flat_map(|number| &before.of[*number].sets).peekable();
        for (name, sets) in &zone.sets {
            let is_known = loop {
                match old.peek() {
                    Some((_, known)) if Arc::ptr_eq(known, sets) => break true,
                    Some((other, _)) if *other <= name => drop(old.next()),
                    Some(_) | None => break false,
                }
            };
            let is_plain = *name != zone.name && !cuts.contains(name);
            if is_known && is_plain && former.is_some_and(|former| self.copy(number, name.as_wire(), before, former)) {
                continue;
            }
            let kind = self.kind(zone, name, sets, cuts.contains(name));
            self.node(number, name.as_wire(), sets, kind);
        }
        self.join(number, zone);
    }

    /// Takes over what another table says of a name that is nothing but one of these zones, if it does.
    fn copy(&mut self, zone: u32, name: &[u8], before: &Self, of: usize) -> bool {
        let hash = hash(name);
        let Some(node) = before.look_up(name, hash).filter(|node| node.zone as usize == of) else { return false };
        match node.kind {
            Kind::Plain => {}
            Kind::Apex { .. } | Kind::Cut { .. } => return false,
        }
        if self.look_up(name, hash).is_some() {
            return true;
        }
        // A name's octets stand together: the name itself, then its sets.
        let (sets, start) = (before.sets(node), node.name.at as usize);
        let end = sets.last().map_or(node.name, |set| set.at);
        let shift = (self.store.len() as u32).wrapping_sub(node.name.at);
        self.store.extend_from_slice(&before.store[start..(end.at + end.length) as usize]);
        let moved = |octets: Octets| Octets { at: octets.at.wrapping_add(shift), length: octets.length };
        let first = self.sets.len() as u32;
        self.sets.extend(sets.iter().map(|set| Set { at: moved(set.at), ..*set }));
        self.push(Node {
            name: moved(node.name),
            zone,
            first,
            count: node.count,
            wildcard: 0,
            hash,
            kind: Kind::Plain,
        });
        true
    }

    fn kind(&mut self, zone: &Zone, name: &Name, sets: &[RecordSet], is_cut: bool) -> Kind {
        if !is_cut && *name != zone.name {
            return Kind::Plain;
        }
        let start = self.store.len();
        let mut records = 0;
        let servers = sets.iter().filter(|set| set.rtype == RecordType::NS).flat_map(|set| &*set.data);
        for data in servers {
            let Rdata::Ns(server) = data else { continue };
            // A referral needs the addresses of servers beyond the cut only; of others the client can ask us.
            let of_server = zone.sets.get(server).filter(|_| !is_cut || server.is_within(name));
            for set in of_server.into_iter().flat_map(|sets| &**sets) {
                if [RecordType::A, RecordType::AAAA].contains(&set.rtype) {
                    for data in set.data.iter() {
                        let mut record = Vec::new();
                        encode(set.rtype, set.ttl, [data], &mut record);
                        self.store.extend_from_slice(server.as_wire());
                        self.store.extend_from_slice(&record[2..]);
                        records += 1;
                    }
                }
            }
        }
        let glue = self.since(start);
        if is_cut { Kind::Cut { glue, records } } else { Kind::Apex { glue, records } }
    }

    /// Names that have nothing but something below them exist, too; and each name knows the `*` below it.
    fn join(&mut self, zone: u32, of: &Zone) {
        let apex = of.name.as_wire().len();
        let mut wildcards: Vec<(usize, usize)> = Vec::new();
        for name in of.sets.keys() {
            let own = name.as_wire();
            for above in suffixes(own).skip(1).take_while(|above| above.len() > apex) {
                if self.look_up(above, hash(above)).is_some() {
                    break;
                }
                self.node(zone, above, &[], Kind::Plain);
            }
            if name.is_wildcard()
                && let Some(above) = suffixes(own).nth(1)
                && let (Some(at), Some(above)) = (self.number(own, hash(own)), self.number(above, hash(above)))
            {
                wildcards.push((above, at));
            }
        }
        for (above, wildcard) in wildcards {
            self.nodes[above].wildcard = wildcard as u32 + 1;
        }
    }

    fn node(&mut self, zone: u32, name: &[u8], sets: &[RecordSet], kind: Kind) {
        let hash = hash(name);
        if self.look_up(name, hash).is_some() {
            return;
        }
        let start = self.store.len();
        self.store.extend_from_slice(name);
        let name = self.since(start);
        let first = self.sets.len() as u32;
        for set in sets {
            let start = self.store.len();
            let records = encode(set.rtype, set.ttl, set.data.iter(), &mut self.store);
            let at = self.since(start);
            self.sets.push(Set { rtype: set.rtype, records, at });
        }
        let count = self.sets.len() as u32 - first;
        self.push(Node { hash, kind, name, zone, first, count, wildcard: 0 });
    }

    fn push(&mut self, node: Node) {
        self.deepest = self.deepest.max(suffixes(self.octets(node.name)).count() - 1);
        self.nodes.push(node);
        if self.nodes.len() * 2 > self.slots.len() {
            self.slots = vec![0; (self.nodes.len() * 4).next_power_of_two()];
            (0..self.nodes.len()).for_each(|number| self.take_slot(number));
        } else {
            self.take_slot(self.nodes.len() - 1);
        }
    }

    fn take_slot(&mut self, number: usize) {
        let mask = self.slots.len() - 1;
        let mut at = self.nodes[number].hash as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = number as u32 + 1;
    }

    fn since(&self, start: usize) -> Octets {
        Octets { at: start as u32, length: (self.store.len() - start) as u32 }
    }
}
