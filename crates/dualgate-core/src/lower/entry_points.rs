//! The numbers of the (gate, entry point) pairs: the same for every node of a site.

use crate::model::site::{EntryPoint, EntryProtocol, Site};
use crate::model::{EntryPointName, GateName};
use crate::route::{EntryPointIndex, EntryPointSet};

/// The (gate, entry point) pairs of a site, numbered in the order of gates and names. Pairs beyond
/// [`EntryPointSet::CAPACITY`] have no number and serve nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntryPoints {
    pairs: Vec<EntryPointRef>,
}

/// One (gate, entry point) pair.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPointRef {
    /// Its number.
    pub index: EntryPointIndex,
    /// The gate.
    pub gate: GateName,
    /// The name of the entry point.
    pub name: EntryPointName,
    /// What the site file says about it.
    pub point: EntryPoint,
}

impl EntryPoints {
    /// Of a site.
    pub fn of(site: &Site) -> Self {
        let pairs = site.gates.iter().flat_map(|(gate, body)| body.entry_points.iter().map(move |p| (*gate, p)));
        let numbered = (0..EntryPointSet::CAPACITY as u8).zip(pairs).map(|(number, (gate, (name, point)))| {
            EntryPointRef { index: EntryPointIndex(number), gate, name: name.clone(), point: point.clone() }
        });
        Self { pairs: numbered.collect() }
    }

    /// The pairs, lowest number first.
    pub fn iter(&self) -> impl Iterator<Item = &EntryPointRef> {
        self.pairs.iter()
    }

    /// The pairs of a set, lowest number first.
    pub fn of_set(&self, set: EntryPointSet) -> impl Iterator<Item = &EntryPointRef> {
        self.pairs.iter().filter(move |pair| set.contains(pair.index))
    }

    /// The set of those for which `predicate` holds.
    pub fn those(&self, predicate: impl Fn(&EntryPointRef) -> bool) -> EntryPointSet {
        self.pairs.iter().filter(|pair| predicate(pair)).map(|pair| pair.index).collect()
    }

    /// The pairs of a gate.
    pub fn of_gate(&self, gate: GateName) -> EntryPointSet {
        self.those(|pair| pair.gate == gate)
    }

    /// The pairs that speak TLS.
    pub fn https(&self) -> EntryPointSet {
        self.those(|pair| match pair.point.protocol {
            EntryProtocol::Https => true,
            EntryProtocol::Http => false,
        })
    }

    /// A set for people: `internal: web, websecure; external: websecure`.
    pub fn describe(&self, set: EntryPointSet) -> String {
        let gate = |gate: GateName| {
            let names: Vec<_> =
                self.of_set(set).filter(|pair| pair.gate == gate).map(|pair| pair.name.as_str()).collect();
            (!names.is_empty()).then(|| format!("{gate}: {}", names.join(", ")))
        };
        let gates: Vec<_> = GateName::ALL.into_iter().filter_map(gate).collect();
        if gates.is_empty() { "nowhere".to_owned() } else { gates.join("; ") }
    }
}
