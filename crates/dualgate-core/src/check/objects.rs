//! Lints over all objects together: what each object means alone was said while it was lowered; here is what
//! they mean to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::lower::{self, Lowered, LoweredIngress, Touched};
use crate::model::changes::changes;
use crate::model::{Code, Finding, HostPattern, Object, ObjectName, ObjectSet, Snapshot};
use crate::plan;
use crate::route::{Lost, Route, RoutePart, compare};

use super::by_host::{self, ByHost};
use super::reading::Readings;
use super::service_ports;

/// Everything that is worth saying about the objects of a snapshot, in the order of files and objects.
pub fn objects(snapshot: &Snapshot) -> Vec<Finding> {
    Lints::default().of(snapshot, &lower::snapshot(snapshot))
}

/// Lints one snapshot after the other: what Ingresses mean to each other is looked at again for the hosts of those that
/// changed. Another site file makes every Ingress another value.
#[derive(Debug, Default)]
pub struct Lints {
    /// Those of the last snapshot.
    objects: Arc<ObjectSet>,
    /// What they were lowered to.
    ingresses: Vec<Arc<LoweredIngress>>,
    pending: Pending,
    by_host: ByHost,
    overlaps: BTreeMap<HostPattern, Vec<Overlap>>,
    readings: Readings,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The Ingresses that are others than they were, or gone.
    pub(super) ingresses: BTreeSet<ObjectName>,
    /// The hosts that they were about.
    pub(super) hosts: BTreeSet<HostPattern>,
    /// What changes of other objects touch.
    pub(super) touched: Touched,
}

/// A route that never serves, and why.
#[derive(Debug)]
struct Overlap {
    ingress: ObjectName,
    part: RoutePart,
    finding: Finding,
}

impl Lints {
    /// Hears of a snapshot without looking for mistakes yet, so that nothing of the one before has to be kept until then.
    pub fn follow(&mut self, snapshot: &Snapshot, lowered: &Lowered) {
        let before = std::mem::take(&mut self.ingresses);
        let mut of_ingresses = changes(&before, &lowered.ingresses, |ingress| &ingress.key().name);
        // Most changes of Ingresses are our own: their status.
        of_ingresses.retain(|(old, new)| !old.zip(*new).is_some_and(|(old, new)| old.reads_as(new)));
        self.by_host.update(&of_ingresses);
        let pending = &mut self.pending;
        pending.hosts.extend(of_ingresses.iter().filter_map(|(old, _)| *old).flat_map(|old| by_host::hosts(old)));
        let changed = of_ingresses.iter().filter_map(|(old, new)| new.or(*old));
        pending.ingresses.extend(changed.map(|ingress| ingress.key().name.clone()));
        pending.touched.add(&changes(&self.objects.objects, &snapshot.objects.objects, |object| &object.key));
        self.objects = snapshot.objects.clone();
        self.ingresses = lowered.ingresses.clone();
    }

    /// Everything that is worth saying about the objects of a snapshot, as [`objects`] says it.
    pub fn of(&mut self, snapshot: &Snapshot, lowered: &Lowered) -> Vec<Finding> {
        self.follow(snapshot, lowered);
        let mut pending = std::mem::take(&mut self.pending);
        let changed = pending.ingresses.iter().filter_map(|name| lowered.ingress(name));
        pending.hosts.extend(changed.flat_map(|ingress| by_host::hosts(ingress)));
        self.overlap_again(&snapshot.objects, lowered, &pending.hosts);
        self.readings.compare_again((snapshot, lowered, &self.by_host), &pending);
        let mut findings = self.overlaps();
        findings.extend(self.readings.findings());
        findings.extend(lowered.findings());
        findings.extend(plan::tunnel::findings(snapshot));
        findings.extend(plan::dns::findings(snapshot, lowered));
        findings.extend(plan::ipam::assign(snapshot).findings);
        findings.extend(service_ports::findings(snapshot));
        findings.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
        findings.dedup();
        findings
    }

    /// A home name has the routes of its name: one finding is enough.
    fn overlaps(&self) -> Vec<Finding> {
        let mut told: BTreeSet<(&ObjectName, RoutePart)> = BTreeSet::new();
        let all = self.overlaps.values().flatten();
        all.filter(|overlap| told.insert((&overlap.ingress, overlap.part)))
            .map(|overlap| overlap.finding.clone())
            .collect()
    }

    /// The same host and path more than once where both are served: only the first in precedence ever is. Routes
    /// with different priorities are left out, as somebody has decided there.
    fn overlap_again(&mut self, objects: &ObjectSet, lowered: &Lowered, hosts: &BTreeSet<HostPattern>) {
        for host in hosts {
            self.overlaps.remove(host);
            let found = self.overlaps_of(host, objects, lowered);
            if !found.is_empty() {
                self.overlaps.insert(host.clone(), found);
            }
        }
    }

    fn overlaps_of(&self, host: &HostPattern, objects: &ObjectSet, lowered: &Lowered) -> Vec<Overlap> {
        let of_ingresses = self.by_host.of(host, lowered).flat_map(|ingress| &ingress.routes);
        let mut groups: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
        for route in of_ingresses.filter(|route| route.host == *host) {
            let key = (route.path.kind(), route.path.written(), route.priority);
            groups.entry(key).or_default().push(route);
        }
        let mut found = Vec::new();
        for mut group in groups.into_values().filter(|group| group.len() > 1) {
            group.sort_by(|a, b| compare(a, b));
            for (position, loser) in group.iter().enumerate() {
                let mut earlier = group[..position].iter();
                let Some(winner) = earlier.find(|winner| winner.entry_points.intersects(loser.entry_points)) else {
                    continue;
                };
                let (ingress, part) = (loser.origin.ingress.clone(), loser.origin.part);
                found.extend(overlap(lowered, objects, loser, winner).map(|finding| Overlap {
                    ingress,
                    part,
                    finding,
                }));
            }
        }
        found
    }
}

fn ingress<'a>(objects: &'a ObjectSet, name: &ObjectName) -> Option<&'a Arc<Object>> {
    objects.get("Ingress", &name.namespace, &name.name)
}

/// An Ingress for people, with its place if it came from a file.
fn describe(objects: &ObjectSet, name: &ObjectName) -> String {
    let place = ingress(objects, name).map(|object| object.place(""));
    match place.and_then(|place| Some((place.file?, place.line?))) {
        Some((file, line)) => format!("Ingress {name} ({file}:{line})"),
        None => format!("Ingress {name}"),
    }
}

fn overlap(lowered: &Lowered, objects: &ObjectSet, loser: &Route, winner: &Route) -> Option<Finding> {
    let object = ingress(objects, &loser.origin.ingress)?;
    let both = lowered.entry_points.describe(loser.entry_points.and(winner.entry_points));
    let what = match loser.origin.part {
        RoutePart::Path { .. } | RoutePart::Rule { .. } => format!("`{}` {}", loser.host, loser.path),
        RoutePart::DefaultBackend => "the default backend".to_owned(),
    };
    let message = match Lost::against(loser, winner) {
        Lost::LaterRule => format!("{what} is written twice; {} counts ({both})", winner.origin.part),
        Lost::Younger => {
            format!("{what} is that of {}, which is older ({both})", describe(objects, &winner.origin.ingress))
        }
        _ => format!(
            "{what} is that of {}, which comes first by namespace and name ({both})",
            describe(objects, &winner.origin.ingress)
        ),
    };
    let help = "give them different hosts, paths or gates, or set `router.priority`";
    Some(Finding::new(Code::IngressOverlap, object.place(loser.origin.part.to_string()), message).help(help))
}
