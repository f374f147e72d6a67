//! Kubernetes' words end here: Ingresses, Services, EndpointSlices and Secrets become routes, backends and
//! certificates.
//!
//! The result speaks of the whole site; `plan` selects what one node has to serve. What cannot be
//! lowered is left out as narrowly as possible, and a finding says so: an unknown Service costs one path (it
//! answers 503), a wrong annotation costs that annotation, a bad Secret costs its certificate.

mod alias;
mod annotation;
mod class;
mod endpoints;
mod entry_points;
mod ingress;
mod placement;
mod rule_path;
mod service;
mod tls;
mod world;

use std::sync::Arc;

use crate::model::object::ObjectSet;
use crate::model::site::Reading;
use crate::model::snapshot::{Facts, Snapshot};
use crate::model::{Finding, ObjectKey, Site};
use crate::plan::proxy::Backend;
use crate::route::Route;

pub use annotation::{ENDPOINTS, ENTRY_POINTS, GATES, IGNORED_HELP};
pub use class::Membership;
pub use entry_points::{EntryPointRef, EntryPoints};
pub use placement::{Placement, Reason};
pub use tls::SiteCertificate;

/// What the objects mean for the whole site.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The (gate, entry point) pairs and their numbers.
    pub entry_points: EntryPoints,
    /// The Ingresses that are ours, in the order of their names.
    pub ingresses: Vec<LoweredIngress>,
    /// Their routes, in the order of the Ingresses and their rules.
    pub routes: Vec<Route>,
    /// What the routes point to.
    pub backends: Vec<Arc<Backend>>,
    /// The certificates of their `tls` sections.
    pub certificates: Vec<SiteCertificate>,
    /// What was wrong.
    pub findings: Vec<Finding>,
}

/// An Ingress that is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredIngress {
    /// Which it is.
    pub key: ObjectKey,
    /// Why it is ours.
    pub membership: Membership,
    /// How it is read.
    pub reading: Reading,
    /// Where it is served, and why there.
    pub placement: Placement,
}

/// Lowers a snapshot.
pub fn snapshot(snapshot: &Snapshot) -> Lowered {
    lower(&snapshot.site, &snapshot.objects, snapshot.facts)
}

/// Lowers the objects of a site.
pub fn lower(site: &Site, objects: &ObjectSet, facts: Facts) -> Lowered {
    let world = world::World::new(objects);
    let entry_points = EntryPoints::of(site);
    let mut backends = service::Backends::new(&world);
    let mut certificates = tls::Certificates::new(&world, facts);
    let mut lowered = Lowered::default();
    for &(object, ingress) in &world.ingresses {
        let (membership, reading) = match class::membership(site, &world, object, ingress) {
            class::Verdict::Ours(membership, reading) => (membership, reading),
            class::Verdict::NotOurs => continue,
            class::Verdict::NoSuchClass(finding) => {
                lowered.findings.push(finding);
                continue;
            }
        };
        let annotations = annotation::OfIngress::read(object, &mut lowered.findings);
        let placement = placement::place(site, &entry_points, object, &annotations, &mut lowered.findings);
        let mut part = ingress::Part { object, ingress, reading, annotations: &annotations, placement: &placement };
        let routes = part.routes(&mut backends, &mut lowered.findings);
        lowered.routes.extend(alias::routes(site, &entry_points, &routes));
        lowered.routes.extend(routes);
        let tls_points = placement.entry_points.and(entry_points.https());
        certificates.claim(object, ingress, tls_points, &mut lowered.findings);
        lowered.ingresses.push(LoweredIngress { key: object.key.clone(), membership, reading, placement });
    }
    certificates.claim_aliases(site, &entry_points);
    (lowered.backends, lowered.findings) = backends.finish(lowered.findings);
    lowered.certificates = certificates.finish(&mut lowered.findings);
    lowered.entry_points = entry_points;
    lowered
}
