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
mod forward;
mod ingress;
mod placement;
mod rule_path;
mod service;
mod tls;
mod update;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::object::{IngressBackend, ObjectSet};
use crate::model::site::Reading;
use crate::model::snapshot::{Facts, Snapshot};
use crate::model::{Finding, Object, ObjectKey, ObjectName, Site};
use crate::plan::proxy::Backends;
use crate::route::{Route, RoutePart};

pub(crate) use annotation::OfLoadBalancer;
pub use annotation::{ENDPOINTS, ENTRY_POINTS, GATES, IGNORED_HELP};
pub use class::Membership;
pub(crate) use endpoints::written_servers;
pub use entry_points::{EntryPointRef, EntryPoints};
pub use forward::SiteForward;
pub use placement::{Placement, Reason};
pub(crate) use service::find_port;
pub use tls::SiteCertificate;
pub(crate) use update::Touched;

/// What the objects mean for the whole site.
///
/// It can be made of a snapshot, and it can be brought up to another one ([`Lowered::update`]): then what did not change is
/// not looked at again, and is the same value as before. Both ways end alike, but for the numbers of backends.
#[derive(Debug, Default)]
pub struct Lowered {
    /// The (gate, entry point) pairs and their numbers.
    pub entry_points: EntryPoints,
    /// The Ingresses that are ours, in the order of their names.
    pub ingresses: Vec<Arc<LoweredIngress>>,
    /// The certificates of their `tls` sections, in the order of their Secrets.
    pub certificates: Vec<Arc<SiteCertificate>>,
    /// The ports of LoadBalancer Services that we forward.
    pub forwards: Vec<SiteForward>,
    site: Option<Arc<Site>>,
    world: world::World,
    backends: service::Backends,
    shown: tls::Certificates,
    /// What is wrong with Ingresses that are nobody's.
    unclassed: BTreeMap<ObjectName, Finding>,
    of_forwards: Vec<Finding>,
}

/// An Ingress that is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredIngress {
    /// What it was lowered from.
    pub object: Arc<Object>,
    /// Why it is ours.
    pub membership: Membership,
    /// How it is read.
    pub reading: Reading,
    /// Where it is served, and why there.
    pub placement: Placement,
    /// Its routes, in the order of its rules, those under home names last.
    pub routes: Box<[Arc<Route>]>,
    claims: Box<[tls::Claim]>,
    /// What is wrong with it alone.
    findings: Box<[Finding]>,
}

impl LoweredIngress {
    /// Which it is.
    pub fn key(&self) -> &ObjectKey {
        &self.object.key
    }

    /// Where the requests of one of its parts are to go.
    pub fn backend(&self, part: RoutePart) -> Option<&IngressBackend> {
        let ingress = world::ingress_of(&self.object)?;
        match part {
            RoutePart::Path { rule, path } => {
                let rule = ingress.rules.iter().find(|known| known.index == rule)?;
                let path = rule.paths.iter().flatten().find(|known| known.index == path)?;
                Some(&path.backend)
            }
            RoutePart::Rule { .. } | RoutePart::DefaultBackend => ingress.default_backend.as_ref(),
        }
    }
}

impl Lowered {
    /// The Ingresses of a namespace that are ours, in the order of their names.
    pub fn of_namespace(&self, namespace: &str) -> &[Arc<LoweredIngress>] {
        let start = self.ingresses.partition_point(|ingress| *ingress.key().name.namespace < *namespace);
        let count = self.ingresses[start..].partition_point(|ingress| *ingress.key().name.namespace == *namespace);
        &self.ingresses[start..start + count]
    }

    /// An Ingress that is ours.
    pub fn ingress(&self, name: &ObjectName) -> Option<&Arc<LoweredIngress>> {
        let of_namespace = self.of_namespace(&name.namespace);
        let at = of_namespace.binary_search_by(|ingress| ingress.key().name.name.cmp(&name.name)).ok()?;
        of_namespace.get(at)
    }

    /// The routes, in the order of the Ingresses and their rules.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.ingresses.iter().flat_map(|ingress| &ingress.routes)
    }

    /// What the routes point to.
    pub fn backends(&self) -> &Backends {
        self.backends.list()
    }

    /// What is wrong.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.unclassed.values().cloned().collect();
        findings.extend(self.ingresses.iter().flat_map(|ingress| &ingress.findings).cloned());
        findings.extend(self.of_forwards.iter().cloned());
        findings.extend(self.backends.findings());
        findings.extend(self.shown.findings(&self.world, &self.ingresses));
        findings
    }
}

/// Lowers a snapshot.
pub fn snapshot(snapshot: &Snapshot) -> Lowered {
    lower(&snapshot.site, &snapshot.objects, &snapshot.facts)
}

/// Lowers the objects of a site.
pub fn lower(site: &Arc<Site>, objects: &Arc<ObjectSet>, facts: &Facts) -> Lowered {
    let mut lowered = Lowered::default();
    lowered.update(site, objects, facts);
    lowered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::case::{Case, Families};
    use crate::route::Action;

    /// Words that annotations are made of, and whatever else.
    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("web".to_owned()),
            Just("websecure".to_owned()),
            Just("internal".to_owned()),
            Just("true".to_owned()),
            Just("10.0.0.1:80".to_owned()),
            Just("[::1]:80".to_owned()),
            Just("PathRegexp".to_owned()),
            "[0-9]{1,20}",
            ".{0,8}",
        ];
        prop::collection::vec(word, 0..4).prop_flat_map(|words| {
            prop::sample::select(vec![",", "+", " ", ""]).prop_map(move |separator| words.join(separator))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_annotations_say_every_route_has_a_backend_or_says_why_not(
            of_ingress in prop::collection::vec((prop::sample::select(vec![
                "dualgate.dev/gates",
                "traefik.ingress.kubernetes.io/router.entrypoints",
                "traefik.ingress.kubernetes.io/router.priority",
                "traefik.ingress.kubernetes.io/router.pathmatcher",
                "traefik.ingress.kubernetes.io/router.tls",
                "traefik.ingress.kubernetes.io/router.tls.options",
            ]), text()), 0..6),
            of_service in prop::collection::vec((prop::sample::select(vec![
                "dualgate.dev/endpoints",
                "traefik.ingress.kubernetes.io/service.serversscheme",
                "traefik.ingress.kubernetes.io/service.passhostheader",
            ]), text()), 0..3),
            path in "/.{0,8}",
        ) {
            let annotations = |pairs: Vec<(&str, String)>| pairs.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<serde_json::Map<_, _>>();
            let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "namespace": "default", "annotations": annotations(of_service)},
                "spec": {"ports": [{"port": 80}]},
            });
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let ingress = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": "web", "namespace": "default", "annotations": annotations(of_ingress)},
                "spec": {"defaultBackend": backend, "rules": [{"host": "a.example.org", "http": {"paths": [
                    {"path": path, "pathType": "ImplementationSpecific", "backend": backend},
                ]}}]},
            });
            let case = Case::parse("test", &format!("== objects\n{service}\n---\n{ingress}\n")).unwrap();
            let lowered = super::snapshot(&case.snapshot(Families::Both).unwrap());
            prop_assert!(lowered.routes().next().is_some(), "{:?}", lowered.findings());
            for route in lowered.routes() {
                match &route.action {
                    Action::Forward(backend) => prop_assert!(lowered.backends().get(*backend).is_some()),
                    Action::Unavailable(why) => prop_assert!(!why.is_empty()),
                }
                let nowhere = lowered.findings().iter().any(|f| f.code == crate::model::Code::IngressUnknownEntryPoint);
                prop_assert!(!route.entry_points.is_empty() || nowhere);
            }
        }
    }
}
