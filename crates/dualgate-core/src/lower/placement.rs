//! Where an Ingress is served: at which entry points of which gates, and why there.
//!
//! `dualgate.dev/gates` decides about the gates. Without it, Traefik's `router.entrypoints` means every gate
//! that has an entry point of such a name, if the site file honours it; without that, the gates are
//! those of the site file's `exposure.default`. An Ingress that asks for middlewares, none of which runs
//! here, is public only if `dualgate.dev/gates` says so: one of them may be its only guard. Within the gates, `router.entrypoints` selects the entry points;
//! without it they are all of them. `router.tls` leaves only those that speak TLS.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::model::site::{Site, TraefikAnnotation};
use crate::model::{Code, EntryPointName, Finding, GateName, Object};
use crate::route::EntryPointSet;

use super::annotation::{self, ENTRY_POINTS, GATES, Middlewares, OfIngress};
use super::entry_points::EntryPoints;

/// Where an Ingress is served, and why there.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Where.
    pub entry_points: EntryPointSet,
    /// Why.
    pub reason: Reason,
}

/// What decided about an Ingress's gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The site file's `exposure.default`.
    Policy,
    /// Traefik's `router.entrypoints`.
    TraefikAnnotation,
    /// `dualgate.dev/gates`.
    GatesAnnotation,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "the site file's exposure.default",
            Self::TraefikAnnotation => ENTRY_POINTS,
            Self::GatesAnnotation => GATES,
        })
    }
}

pub(super) fn place(
    site: &Site,
    entry_points: &EntryPoints,
    object: &Object,
    annotations: &OfIngress,
    findings: &mut Vec<Finding>,
) -> Placement {
    let (gates, reason) = gates(site, annotations);
    for gate in gates.iter().filter(|gate| !site.gates.contains_key(gate)) {
        if reason == Reason::GatesAnnotation {
            let message = format!("the site has no {gate} gate");
            findings.push(Finding::new(Code::IngressUnknownEntryPoint, annotation::place(object, GATES), message));
        }
    }
    let in_gates = entry_points.those(|pair| gates.contains(&pair.gate));
    let selected = match &annotations.entry_points {
        None => in_gates,
        Some((key, names)) => {
            unknown_names(entry_points, object, key, names, findings);
            in_gates.and(entry_points.those(|pair| names.contains(&pair.name)))
        }
    };
    let over_tls = over_tls(entry_points, selected, object, annotations, findings);
    if over_tls.is_empty() && !site.gates.is_empty() {
        findings.push(nowhere(object, annotations, selected, &gates));
    }
    note_exposure(site, entry_points, over_tls, reason, object, annotations, findings);
    Placement { entry_points: over_tls, reason }
}

fn gates(site: &Site, annotations: &OfIngress) -> (BTreeSet<GateName>, Reason) {
    if let Some(gates) = &annotations.gates {
        return (gates.iter().copied().collect(), Reason::GatesAnnotation);
    }
    let (mut gates, reason): (BTreeSet<GateName>, _) =
        match (&annotations.entry_points, site.exposure.traefik_annotation) {
            (Some((_, names)), TraefikAnnotation::Honour) => {
                let has = |gate: &GateName| names.iter().any(|name| site.gates[gate].entry_points.contains_key(name));
                (site.gates.keys().copied().filter(has).collect(), Reason::TraefikAnnotation)
            }
            (Some(_), TraefikAnnotation::Ignore) | (None, TraefikAnnotation::Honour | TraefikAnnotation::Ignore) => {
                (site.exposure.default.iter().copied().collect(), Reason::Policy)
            }
        };
    match annotations.middlewares {
        Middlewares::None => {}
        Middlewares::Missing => drop(gates.remove(&GateName::External)),
    }
    (gates, reason)
}

fn unknown_names(
    entry_points: &EntryPoints,
    object: &Object,
    key: &str,
    names: &[EntryPointName],
    findings: &mut Vec<Finding>,
) {
    for name in names.iter().filter(|name| !entry_points.iter().any(|pair| pair.name == **name)) {
        let known: BTreeSet<&str> = entry_points.iter().map(|pair| pair.name.as_str()).collect();
        let known = known.into_iter().collect::<Vec<_>>().join("`, `");
        let message = format!("no gate has an entry point `{name}`");
        let finding = Finding::new(Code::IngressUnknownEntryPoint, annotation::place(object, key), message);
        findings.push(finding.help(format!("the entry points of the site are `{known}`")));
    }
}

fn over_tls(
    entry_points: &EntryPoints,
    selected: EntryPointSet,
    object: &Object,
    annotations: &OfIngress,
    findings: &mut Vec<Finding>,
) -> EntryPointSet {
    let Some(key) = &annotations.tls else { return selected };
    let plain = selected.without(entry_points.https());
    if !plain.is_empty() {
        let message = format!(
            "`{key}` makes the Ingress answer only over TLS: plain HTTP gets 404 ({})",
            entry_points.describe(plain)
        );
        findings.push(
            Finding::new(Code::IngressTlsOnly, annotation::place(object, key), message)
                .help("TLS entry points speak TLS without it; remove it to serve plain HTTP too"),
        );
    }
    selected.without(plain)
}

fn nowhere(object: &Object, annotations: &OfIngress, selected: EntryPointSet, gates: &BTreeSet<GateName>) -> Finding {
    let at = match &annotations.entry_points {
        Some((key, _)) => annotation::place(object, key),
        None if annotations.gates.is_some() => annotation::place(object, GATES),
        None => object.place(""),
    };
    let gates = gates.iter().map(|gate| gate.as_str()).collect::<Vec<_>>().join(", ");
    let message = if !selected.is_empty() {
        "none of its entry points speaks TLS; it is served nowhere".to_owned()
    } else if gates.is_empty() {
        "it is served nowhere: no gate is left".to_owned()
    } else {
        format!("it is served nowhere: no entry point is left (gates: {gates})")
    };
    Finding::new(Code::IngressUnknownEntryPoint, at, message)
}

/// Says what an annotation makes public that the policy would not.
fn note_exposure(
    site: &Site,
    entry_points: &EntryPoints,
    placed: EntryPointSet,
    reason: Reason,
    object: &Object,
    annotations: &OfIngress,
    findings: &mut Vec<Finding>,
) {
    let public = placed.and(entry_points.of_gate(GateName::External));
    if public.is_empty() || site.exposure.default.contains(&GateName::External) {
        return;
    }
    let key = match (reason, &annotations.entry_points) {
        (Reason::TraefikAnnotation, Some((key, _))) => key,
        (Reason::GatesAnnotation, _) | (Reason::TraefikAnnotation, None) => GATES,
        (Reason::Policy, _) => return,
    };
    let message = format!("`{key}` makes it public ({})", entry_points.describe(public));
    findings.push(
        Finding::new(Code::IngressExposed, annotation::place(object, key), message).help(
            "`dualgate exposure` lists everything that is public; `dualgate.dev/gates: internal` keeps it at home",
        ),
    );
}
