//! Which hosts the gates serve, and how; and what a view says of them, kept from one snapshot to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dualgate_wire::dns::{Name, Rdata, RecordType, ServiceBinding};

use super::zones::{Places, fit};
use super::{Origin, RecordSet, View};
use crate::lower::{Lowered, LoweredIngress, SiteCertificate};
use crate::model::changes::changes;
use crate::model::site::EntryProtocol;
use crate::model::{GateName, HostPattern, ObjectName, Site};
use crate::route::EntryPointSet;

/// What both gates speak on an entry point for HTTPS.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// How a gate serves a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Served {
    /// Not at all.
    Not,
    /// Somehow.
    Plainly,
    /// All of it by HTTPS on port 443, with a certificate: a client may be sent there at once (RFC 9460 9.5).
    Securely,
}

impl Served {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Not, one) | (one, Self::Not) => one,
            (one, other) => one.min(other),
        }
    }
}

/// A host of an Ingress.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostUse<'a> {
    /// Whose.
    pub ingress: &'a LoweredIngress,
    /// Which.
    pub host: &'a HostPattern,
    /// At the internal gate.
    pub internal: Served,
    /// At the external gate.
    pub external: Served,
}

impl HostUse<'_> {
    /// With what another route or Ingress adds.
    pub fn merge(&mut self, other: &HostUse<'_>) {
        (self.internal, self.external) = (self.internal.and(other.internal), self.external.and(other.external));
    }
}

/// The hosts of every Ingress, in the order of Ingresses; one that several have is there several times.
pub(super) fn hosts(lowered: &Lowered) -> Vec<HostUse<'_>> {
    let gates = GateName::ALL.map(|gate| AtGate::of(lowered, gate));
    lowered.ingresses.iter().flat_map(|ingress| of_ingress(ingress, &gates)).collect()
}

fn of_ingress<'a>(ingress: &'a LoweredIngress, gates: &[AtGate<'_>; 2]) -> Vec<HostUse<'a>> {
    let mut uses: Vec<HostUse<'a>> = Vec::with_capacity(1);
    for route in &ingress.routes {
        let [internal, external] = [&gates[0], &gates[1]].map(|gate| gate.served(&route.host, route.entry_points));
        if route.host == HostPattern::Any || (internal, external) == (Served::Not, Served::Not) {
            continue;
        }
        let one = HostUse { ingress, host: &route.host, internal, external };
        match uses.iter_mut().rev().find(|known| known.host == one.host) {
            Some(known) => known.merge(&one),
            None => uses.push(one),
        }
    }
    uses
}

/// Where a host is: the number of its zone, and its name.
fn place(host: &HostPattern, places: &Places) -> Option<(usize, Name)> {
    let text = match host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Any => return None,
    };
    Some((places.at(&text)?, text.parse().ok()?))
}

/// What a view says of the hosts of Ingresses. What no change touches stays the same value.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    with: With,
    ingresses: Vec<Arc<LoweredIngress>>,
    /// Whose a name is, in the order of Ingresses.
    uses: BTreeMap<(usize, Name), Vec<Use>>,
    /// The records of each zone.
    sets: Vec<BTreeMap<Name, Arc<[RecordSet]>>>,
}

/// What all of it depends on.
#[derive(Debug, Default)]
struct With {
    site: Option<Arc<Site>>,
    view: View,
    certificates: Vec<Arc<SiteCertificate>>,
    targets: Targets,
}

impl With {
    fn is_as(&self, other: &Self) -> bool {
        let same_site = match (&self.site, &other.site) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let certificates = self.certificates.iter().zip(&other.certificates);
        same_site
            && self.view == other.view
            && self.targets == other.targets
            && self.certificates.len() == other.certificates.len()
            && certificates.into_iter().all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// How an Ingress has a host served.
#[derive(Clone, Debug)]
struct Use {
    ingress: ObjectName,
    internal: Served,
    external: Served,
}

impl Hosts {
    /// Brings it up to what was lowered, for these zones of the site.
    pub fn update(&mut self, site: &Arc<Site>, lowered: &Lowered, view: View, targets: Targets, places: &Places) {
        let certificates = lowered.certificates.clone();
        let with = With { site: Some(site.clone()), view, certificates, targets };
        if !self.with.is_as(&with) {
            *self = Self { with, sets: vec![BTreeMap::new(); places.len()], ..Self::default() };
        }
        let before = std::mem::replace(&mut self.ingresses, lowered.ingresses.clone());
        let changed = changes(&before, &lowered.ingresses, |ingress| &ingress.object.key.name);
        if changed.is_empty() {
            return;
        }
        let gates = GateName::ALL.map(|gate| AtGate::of(lowered, gate));
        let mut touched: BTreeSet<(usize, Name)> = BTreeSet::new();
        for (old, new) in changed {
            for route in old.iter().flat_map(|ingress| &ingress.routes) {
                let Some(at) = place(&route.host, places) else { continue };
                let name = old.map(|ingress| &ingress.key().name);
                if let Some(uses) = self.uses.get_mut(&at) {
                    uses.retain(|used| Some(&used.ingress) != name);
                    touched.insert(at);
                }
            }
            for used in new.iter().flat_map(|ingress| of_ingress(ingress, &gates)) {
                if let Some(at) = self.add(&used, places) {
                    touched.insert(at);
                }
            }
        }
        touched.into_iter().for_each(|at| self.settle(at, places));
    }

    /// The records of a zone, by its number.
    pub fn of_zone(&self, number: usize) -> Option<&BTreeMap<Name, Arc<[RecordSet]>>> {
        self.sets.get(number)
    }

    fn add(&mut self, used: &HostUse<'_>, places: &Places) -> Option<(usize, Name)> {
        match self.with.view {
            View::Public if used.external == Served::Not => return None,
            View::Public | View::Home => {}
        }
        let at = place(used.host, places)?;
        let ingress = used.ingress.key().name.clone();
        let uses = self.uses.entry(at.clone()).or_default();
        let index = uses.partition_point(|known| known.ingress <= ingress);
        uses.insert(index, Use { ingress, internal: used.internal, external: used.external });
        Some(at)
    }

    /// What is said of a name from now on.
    fn settle(&mut self, at: (usize, Name), places: &Places) {
        let (uses, view) = (self.uses.get(&at).map(Vec::as_slice).unwrap_or_default(), self.with.view);
        let merged = uses.iter().cloned().reduce(|first, used| {
            // Of those that decide, the first one is named.
            let decides = view == View::Home && first.internal == Served::Not && used.internal != Served::Not;
            Use {
                ingress: if decides { used.ingress } else { first.ingress },
                internal: first.internal.and(used.internal),
                external: first.external.and(used.external),
            }
        });
        let said = merged.map(|merged| self.with.targets.sets(view, &merged, places.ttl(at.0)));
        let sets = said.map(|sets| fit(sets, view)).unwrap_or_default();
        let (zone, name) = at;
        if uses.is_empty() {
            self.uses.remove(&(zone, name.clone()));
        }
        let Some(zone) = self.sets.get_mut(zone) else { return };
        match sets.is_empty() {
            true => drop(zone.remove(&name)),
            false => match zone.get_mut(&name) {
                Some(known) if **known == *sets => {}
                Some(known) => *known = sets.into(),
                None => drop(zone.insert(name, sets.into())),
            },
        }
    }
}

/// Where hosts lead to; what many hosts share is one value.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Targets {
    home: Target,
    public: Target,
}

#[derive(Debug, Default, PartialEq)]
struct Target {
    /// By type, in the order of types.
    addresses: Vec<(RecordType, Arc<[Rdata]>)>,
    https: Arc<[Rdata]>,
}

impl Target {
    fn of(addresses: &[IpAddr]) -> Self {
        let of = |rtype: RecordType| -> (RecordType, Arc<[Rdata]>) {
            let data = addresses.iter().copied().map(Rdata::from).filter(|data| data.record_type() == rtype);
            (rtype, data.collect())
        };
        let mut sets = vec![of(RecordType::A), of(RecordType::AAAA)];
        sets.retain(|(_, data)| !data.is_empty());
        let https = Rdata::Https(ServiceBinding::here(&ALPN, addresses.iter().copied()));
        Self { addresses: sets, https: [https].into() }
    }

    fn sets(&self, served: Served, ttl: u32, origin: &Origin) -> Vec<RecordSet> {
        if self.addresses.is_empty() {
            return Vec::new();
        }
        let set = |rtype, data: &Arc<[Rdata]>| RecordSet { rtype, ttl, data: data.clone(), origin: origin.clone() };
        let mut sets = Vec::with_capacity(3);
        sets.extend(self.addresses.iter().map(|(rtype, data)| set(*rtype, data)));
        match served {
            Served::Securely => sets.push(set(RecordType::HTTPS, &self.https)),
            Served::Plainly | Served::Not => {}
        }
        sets
    }
}

impl Targets {
    /// Of the addresses of the internal gate, and of the external one.
    pub fn of(home: &[IpAddr], public: &[IpAddr]) -> Self {
        Self { home: Target::of(home), public: Target::of(public) }
    }

    fn sets(&self, view: View, used: &Use, ttl: u32) -> Vec<RecordSet> {
        let origin = Origin::Ingress(used.ingress.clone());
        match (view, used.internal, used.external) {
            (View::Home, internal @ (Served::Plainly | Served::Securely), _) => self.home.sets(internal, ttl, &origin),
            (View::Home, Served::Not, external) | (View::Public, _, external) if external != Served::Not => {
                self.public.sets(external, ttl, &origin)
            }
            (View::Home, Served::Not, _) | (View::Public, ..) => Vec::new(),
        }
    }
}

/// A gate as clients find it.
struct AtGate<'a> {
    all: EntryPointSet,
    /// HTTPS on port 443.
    https: EntryPointSet,
    /// The hosts with a certificate there.
    certified: BTreeSet<&'a HostPattern>,
}

impl<'a> AtGate<'a> {
    fn of(lowered: &'a Lowered, gate: GateName) -> Self {
        let https = lowered
            .entry_points
            .those(|pair| pair.gate == gate && pair.point.port == 443 && pair.point.protocol == EntryProtocol::Https);
        let shown = lowered.certificates.iter().flat_map(|certificate| &certificate.hosts);
        let certified = shown.filter(|(_, at)| at.intersects(https)).map(|(host, _)| host).collect();
        Self { all: lowered.entry_points.of_gate(gate), https, certified }
    }

    fn served(&self, host: &HostPattern, at: EntryPointSet) -> Served {
        if !at.intersects(self.all) {
            Served::Not
        } else if at.intersects(self.https) && self.is_certified(host) {
            Served::Securely
        } else {
            Served::Plainly
        }
    }

    fn is_certified(&self, host: &HostPattern) -> bool {
        if self.certified.is_empty() {
            return false;
        }
        let by_wildcard = match host {
            HostPattern::Exact(exact) => exact
                .as_str()
                .split_once('.')
                .and_then(|(_, suffix)| suffix.parse().ok())
                .is_some_and(|suffix| self.certified.contains(&HostPattern::Wildcard(suffix))),
            HostPattern::Wildcard(_) | HostPattern::Any => false,
        };
        self.certified.contains(host) || by_wildcard
    }
}
