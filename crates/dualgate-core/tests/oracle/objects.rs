//! What holds for any text given as manifests.

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

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check_text(text);
    }
}

/// The same, for text.
pub fn check_text(text: &str) {
    let files = [file::file("objects.yaml", text)];
    let objects = Arc::new(file::assemble(files.iter()));
    assert!(objects.objects.is_sorted_by(|one, other| one.key < other.key), "sorted, each key once");
    let site = Arc::new(site::read("site.yaml", SITE).site.expect("the site of this file"));
    let snapshot = Snapshot { generation: Generation(1), site, objects, facts: Facts { now: 1_800_000_000 } };
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
