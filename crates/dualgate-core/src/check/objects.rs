//! Lints over all objects together: what each object means alone was said while it was lowered; here is what
//! they mean to each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::lower::{self, Lowered};
use crate::model::object::Body;
use crate::model::{Code, Finding, Object, ObjectName, Snapshot};
use crate::plan;
use crate::route::{Lost, Route, RoutePart, compare};

use super::reading;

/// Everything that is worth saying about the objects of a snapshot, in the order of files and objects.
pub fn objects(snapshot: &Snapshot) -> Vec<Finding> {
    let lowered = lower::snapshot(snapshot);
    let ingresses = Ingresses::of(snapshot);
    let mut findings = overlaps(&lowered, &ingresses);
    findings.extend(reading::differences(snapshot, &lowered, &ingresses));
    findings.extend(lowered.findings);
    findings.extend(plan::tunnel::findings(snapshot));
    findings.extend(plan::ipam::assign(snapshot).findings);
    findings.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
    findings.dedup();
    findings
}

/// The Ingress objects by name.
pub(super) struct Ingresses<'a>(BTreeMap<&'a ObjectName, &'a Object>);

impl<'a> Ingresses<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let ingresses = snapshot.objects.objects.iter().filter(|object| matches!(object.body, Body::Ingress(_)));
        Self(ingresses.map(|object| (&object.key.name, &**object)).collect())
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&'a Object> {
        self.0.get(name).copied()
    }

    /// An Ingress for people, with its place if it came from a file.
    fn describe(&self, name: &ObjectName) -> String {
        let place = self.get(name).map(|object| object.place(""));
        match place.and_then(|place| Some((place.file?, place.line?))) {
            Some((file, line)) => format!("Ingress {name} ({file}:{line})"),
            None => format!("Ingress {name}"),
        }
    }
}

/// The same host and path more than once where both are served: only the first in precedence ever is. Routes
/// with different priorities are left out, as somebody has decided there.
fn overlaps(lowered: &Lowered, ingresses: &Ingresses<'_>) -> Vec<Finding> {
    let mut groups: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
    for route in &lowered.routes {
        let key = (&route.host, route.path.kind(), route.path.written(), route.priority);
        groups.entry(key).or_default().push(route);
    }
    // A home name has the routes of its name: one finding is enough.
    let mut told: BTreeSet<(&ObjectName, RoutePart)> = BTreeSet::new();
    let mut findings = Vec::new();
    for mut group in groups.into_values().filter(|group| group.len() > 1) {
        group.sort_by(|a, b| compare(a, b));
        for (position, loser) in group.iter().enumerate() {
            let mut earlier = group[..position].iter();
            let Some(winner) = earlier.find(|winner| winner.entry_points.intersects(loser.entry_points)) else {
                continue;
            };
            if told.insert((&loser.origin.ingress, loser.origin.part)) {
                findings.extend(overlap(lowered, ingresses, loser, winner));
            }
        }
    }
    findings
}

fn overlap(lowered: &Lowered, ingresses: &Ingresses<'_>, loser: &Route, winner: &Route) -> Option<Finding> {
    let object = ingresses.get(&loser.origin.ingress)?;
    let both = lowered.entry_points.describe(loser.entry_points.and(winner.entry_points));
    let what = match loser.origin.part {
        RoutePart::Path { .. } | RoutePart::Rule { .. } => format!("`{}` {}", loser.host, loser.path),
        RoutePart::DefaultBackend => "the default backend".to_owned(),
    };
    let message = match Lost::against(loser, winner) {
        Lost::LaterRule => format!("{what} is written twice; {} counts ({both})", winner.origin.part),
        Lost::Younger => {
            format!("{what} is that of {}, which is older ({both})", ingresses.describe(&winner.origin.ingress))
        }
        _ => format!(
            "{what} is that of {}, which comes first by namespace and name ({both})",
            ingresses.describe(&winner.origin.ingress)
        ),
    };
    let help = "give them different hosts, paths or gates, or set `router.priority`";
    Some(Finding::new(Code::IngressOverlap, object.place(loser.origin.part.to_string()), message).help(help))
}
