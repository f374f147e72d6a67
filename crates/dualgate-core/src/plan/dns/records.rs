//! Which hosts the gates serve, and how.

use std::collections::BTreeSet;

use crate::lower::{Lowered, LoweredIngress};
use crate::model::site::EntryProtocol;
use crate::model::{GateName, HostPattern};
use crate::route::EntryPointSet;

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
    let mut uses: Vec<HostUse<'_>> = Vec::with_capacity(lowered.ingresses.len());
    for ingress in &lowered.ingresses {
        let first = uses.len();
        for route in &ingress.routes {
            let [internal, external] = [&gates[0], &gates[1]].map(|gate| gate.served(&route.host, route.entry_points));
            if route.host == HostPattern::Any || (internal, external) == (Served::Not, Served::Not) {
                continue;
            }
            let one = HostUse { ingress, host: &route.host, internal, external };
            match uses[first..].iter_mut().rev().find(|known| known.host == one.host) {
                Some(known) => known.merge(&one),
                None => uses.push(one),
            }
        }
    }
    uses
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
