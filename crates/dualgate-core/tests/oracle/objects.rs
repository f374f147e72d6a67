//! What holds for any text given as manifests, and as the value of an annotation.

use std::sync::Arc;

use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, Snapshot};
use dualgate_core::parse::{file, site};
use dualgate_core::{check, lower, plan};

const SITE: &str = "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: fuzz
nodes:
- {name: home, addresses: [192.168.178.5], roles: [internal-gate]}
- {name: edge, addresses: [10.44.0.1], publicAddresses: [203.0.113.10], roles: [external-gate]}
gates: {internal: {}, external: {}}
";

/// Every annotation that is read, and one that is not.
const KEYS: [&str; 10] = [
    "dualgate.dev/gates",
    "dualgate.dev/endpoints",
    "traefik.ingress.kubernetes.io/router.entrypoints",
    "traefik.ingress.kubernetes.io/router.priority",
    "traefik.ingress.kubernetes.io/router.pathmatcher",
    "traefik.ingress.kubernetes.io/router.tls",
    "traefik.ingress.kubernetes.io/router.middlewares",
    "traefik.ingress.kubernetes.io/service.serversscheme",
    "traefik.ingress.kubernetes.io/service.passhostheader",
    "example.org/other",
];

/// Panics if a property does not hold.
#[allow(dead_code, reason = "each fuzz target uses its part")]
pub fn check(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_text(text);
    }
}

/// The first line says which annotation by its number, the rest is its value.
#[allow(dead_code, reason = "each fuzz target uses its part")]
pub fn check_annotation(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (number, value) = text.split_once('\n').unwrap_or(("0", text));
    let key = KEYS[number.trim().parse::<usize>().unwrap_or(0) % KEYS.len()];
    let annotations = serde_json::json!({ key: value });
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "apps", "annotations": annotations},
        "spec": {"ports": [{"port": 80}]},
    });
    let ingress = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "apps", "annotations": annotations},
        "spec": {"rules": [{"host": "web.example.org", "http": {"paths": [{
            "path": "/a(b", "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        }]}}]},
    });
    check_text(&format!("{service}\n---\n{ingress}\n"));
}

fn check_text(text: &str) {
    let files = [file::file("objects.yaml", text)];
    let objects = Arc::new(file::assemble(files.iter()));
    assert!(objects.objects.is_sorted_by(|one, other| one.key < other.key), "sorted, each key once");
    let site = Arc::new(site::read("site.yaml", SITE).site.expect("the site of this file"));
    let snapshot =
        Snapshot { generation: Generation(1), site, objects, facts: Facts { now: 1_800_000_000, ..Facts::default() } };
    let lowered = lower::snapshot(&snapshot);
    let _ = check::objects::objects(&snapshot);
    for node in ["home", "edge"] {
        let plan = plan::select(&snapshot, &lowered, &NodeName::new(node)).proxy;
        let here = plan.listeners.iter().map(|listener| listener.index).collect();
        for route in plan.table.routes() {
            assert!(route.entry_points.intersects(here), "{node} has a route that it does not serve");
        }
    }
}
