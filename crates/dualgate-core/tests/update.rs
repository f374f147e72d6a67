//! What was brought up to a snapshot step by step is as what is made of the snapshot at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use dualgate_core::case::{Case, Families, NOW};
use dualgate_core::check::objects::{self, Lints};
use dualgate_core::lower::{self, Lowered};
use dualgate_core::model::object::Body;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Finding, NodeName, Object, ObjectKey, ObjectSet, Snapshot};
use dualgate_core::plan::dns::DnsPlan;
use dualgate_core::plan::proxy::{Backends, ProxyPlan};
use dualgate_core::plan::{self, NodePlan, Planner};
use dualgate_core::route::{Action, EntryPointIndex, Route, Table};
use dualgate_wire::dns::RecordType;
use proptest::prelude::*;

#[path = "public/mix.rs"]
#[allow(dead_code, reason = "the cut for an edge needs the rest")]
mod mix;

/// Every object of every case about Ingresses: applications, classes, certificates that are valid and that are not, and
/// all that can be wrong with them, in several versions of one name.
static OF_CASES: LazyLock<Vec<Arc<Object>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ingress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let cases = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "case"));
    cases
        .flat_map(|path| {
            Case::parse("case", &text(path)).unwrap().snapshot(Families::Both).unwrap().objects.objects.clone()
        })
        .collect()
});

/// One step: which keys change, to which of their versions or to nothing; and what the world looks like then.
#[derive(Clone, Debug)]
struct Step {
    changes: Vec<(prop::sample::Index, Option<prop::sample::Index>)>,
    now: i64,
    assigned: Vec<prop::sample::Index>,
}

prop_compose! {
    fn step()(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.8, any::<prop::sample::Index>())), 0..12),
        now in prop::sample::select(vec![NOW, NOW, NOW, 0, NOW + 400_000_000]),
        assigned in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) -> Step {
        Step { changes, now, assigned }
    }
}

/// The versions of each key.
fn versions(objects: impl Iterator<Item = Arc<Object>>) -> Vec<(ObjectKey, Vec<Arc<Object>>)> {
    let mut versions: BTreeMap<ObjectKey, Vec<Arc<Object>>> = BTreeMap::new();
    objects.for_each(|object| versions.entry(object.key.clone()).or_default().push(object));
    versions.into_iter().collect()
}

fn facts(step: &Step, objects: &ObjectSet) -> Facts {
    let services: Vec<_> = objects.objects.iter().filter(|object| matches!(object.body, Body::Service(_))).collect();
    let mut assigned = BTreeMap::new();
    for (number, at) in step.assigned.iter().enumerate().filter(|_| !services.is_empty()) {
        let address = format!("192.168.178.{}", 30 + number).parse().unwrap();
        assigned.insert(at.get(&services).key.name.clone(), vec![address]);
    }
    Facts { now: step.now, assigned: Arc::new(assigned.into_iter().collect()), ..Facts::default() }
}

/// A route with what it leads to, whatever the number of that is.
fn resolved(route: &Route, backends: &Backends) -> String {
    let to = match &route.action {
        Action::Forward(index) => format!("{:?}", backends.get(*index).expect("every route has its backend")),
        Action::Unavailable(why) => why.clone(),
    };
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {to}",
        route.host, route.path, route.entry_points, route.reading, route.priority, route.origin
    )
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

fn backends(backends: &Backends) -> Vec<String> {
    sorted(backends.iter().map(|backend| format!("{backend:?}")))
}

fn findings(findings: Vec<Finding>) -> Vec<String> {
    let mut lines = sorted(findings.iter().map(|finding| format!("{finding:?}")));
    lines.dedup();
    lines
}

/// All that anybody could see of what was lowered.
fn of_lowered(lowered: &Lowered) -> Vec<Vec<String>> {
    let ingress = |ingress: &Arc<lower::LoweredIngress>| {
        format!("{:?} {:?} {:?} {:?}", ingress.key(), ingress.membership, ingress.reading, ingress.placement)
    };
    vec![
        lowered.ingresses.iter().map(ingress).collect(),
        lowered.routes().map(|route| resolved(route, lowered.backends())).collect(),
        backends(lowered.backends()),
        lowered.certificates.iter().map(|certificate| format!("{certificate:?}")).collect(),
        lowered.forwards.iter().map(|forward| format!("{forward:?}")).collect(),
        findings(lowered.findings()),
    ]
}

/// What a table answers, for requests that its own routes are made for.
fn answers(table: &Table, plan: &ProxyPlan) -> Vec<String> {
    let mut answers = Vec::new();
    for route in table.routes() {
        let host = route.host.to_string().replace('*', "any");
        let path = if route.path.written().starts_with('/') { route.path.written() } else { "/" };
        for point in (0..4).map(EntryPointIndex) {
            let found = table.find(point, &host, path).map(|index| resolved(table.route(index), &plan.backends));
            answers.push(format!("{point:?} {host}{path}: {found:?}"));
        }
    }
    answers.sort();
    answers
}

/// All that anybody could see of a plan.
fn of_plan(plan: &NodePlan) -> Vec<Vec<String>> {
    let NodePlan { proxy, tunnel, firewall, virtual_ips, dns } = plan;
    let ProxyPlan { generation, listeners, table, backends: of_proxy, certificates, forwards, settings, forbidden } =
        proxy;
    vec![
        sorted(table.routes().map(|route| resolved(route, of_proxy))),
        answers(table, proxy),
        backends(of_proxy),
        certificates.iter().map(|certificate| format!("{certificate:?}")).collect(),
        vec![format!("{generation:?} {listeners:?} {forwards:?} {settings:?} {forbidden:?}")],
        vec![format!("{tunnel:?}"), format!("{firewall:?}"), format!("{virtual_ips:?}")],
        of_dns(dns),
    ]
}

/// All but the serial numbers: they tell when the planner saw a change.
fn of_dns(plan: &DnsPlan) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?} {:?}", plan.listen, plan.view, plan.resolver)];
    for zone in &plan.zones {
        lines.push(format!("{} {}", zone.name, zone.is_whole));
        for (name, sets) in &zone.sets {
            let sets = sets.iter().filter(|set| set.rtype != RecordType::SOA);
            lines.extend(sets.map(|set| format!("{name} {set:?}")));
        }
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_comes_to_the_same_as_at_once(
        mixes in prop::collection::vec(mix::mix(), 3),
        of_cases in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        with_all_cases in prop::bool::weighted(0.1),
        steps in prop::collection::vec(step(), 1..10),
    ) {
        let mixed: Vec<Snapshot> =
            mixes.iter().map(|mix| Case::parse("mix", &mix.case()).unwrap().snapshot(Families::Both).unwrap()).collect();
        let site = mixed[0].site.clone();
        let of_mixes = mixed.iter().flat_map(|snapshot| snapshot.objects.objects.iter().cloned());
        let few = of_cases.iter().map(|at| at.get(&OF_CASES).clone());
        let all = OF_CASES.iter().filter(|_| with_all_cases).cloned();
        let versions = versions(of_mixes.chain(few).chain(all));
        let mut objects: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        if with_all_cases {
            objects.extend(versions.iter().map(|(key, versions)| (key.clone(), versions[0].clone())));
        }
        let nodes: Vec<NodeName> = site.nodes.iter().map(|node| node.name.clone()).collect();
        let mut planners: Vec<Planner> = nodes.iter().map(|_| Planner::default()).collect();
        let mut lints = Lints::default();
        for (generation, step) in (1..).zip(&steps) {
            for (key, version) in &step.changes {
                let (key, versions) = key.get(&versions);
                match version {
                    Some(version) => drop(objects.insert(key.clone(), version.get(versions).clone())),
                    None => drop(objects.remove(key)),
                }
            }
            let set = Arc::new(ObjectSet { objects: objects.values().cloned().collect(), findings: Vec::new() });
            let facts = facts(step, &set);
            let snapshot = Snapshot { generation: Generation(generation), site: site.clone(), objects: set, facts };
            for (node, planner) in nodes.iter().zip(&mut planners) {
                let planned = planner.plan(&snapshot, node);
                prop_assert_eq!(of_plan(&planned), of_plan(&plan::node(&snapshot, node)), "{}", node);
            }
            let lowered = planners[0].lowered();
            prop_assert_eq!(of_lowered(lowered), of_lowered(&lower::snapshot(&snapshot)));
            prop_assert_eq!(findings(lints.of(&snapshot, lowered)), findings(objects::objects(&snapshot)));
        }
    }
}

#[test]
fn a_change_of_one_application_leaves_everything_else_the_same_value() {
    let text = "\
== services
one 80
two 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: one, namespace: default}
spec: {rules: [{host: one.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: two, namespace: default}
spec: {rules: [{host: two.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}]}}]}
";
    let snapshot = |text: &str| Case::parse("test", text).unwrap().snapshot(Families::Both).unwrap();
    let (before, other) = (snapshot(text), snapshot(&text.replace("path: /,", "path: /new,")));
    let objects = before.objects.objects.iter().map(|object| match &*object.key.name.name {
        "two" if &*object.key.kind == "Ingress" => other.objects.get("Ingress", "default", "two").unwrap().clone(),
        _ => object.clone(),
    });
    let after = Snapshot {
        objects: Arc::new(ObjectSet { objects: objects.collect(), findings: Vec::new() }),
        ..before.clone()
    };
    let (node, mut planner) = (NodeName::new("home1"), Planner::default());
    let first = planner.plan(&before, &node).proxy;
    let ingresses = planner.lowered().ingresses.clone();
    let second = planner.plan(&after, &node).proxy;
    let same: Vec<bool> =
        ingresses.iter().zip(&planner.lowered().ingresses).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
    assert_eq!(same, [true, false]);
    assert!(Arc::ptr_eq(&first.certificates, &second.certificates) && !Arc::ptr_eq(&first.table, &second.table));
    assert!(first.backends.pages().iter().zip(second.backends.pages()).all(|(one, other)| Arc::ptr_eq(one, other)));
    assert!(Arc::ptr_eq(&planner.plan(&after, &node).proxy.table, &second.table), "nothing changed");
}
