//! What holds for all objects and whatever others do.

use dualgate_core::case::Families;
use dualgate_core::model::Family;
use dualgate_core::plan::cluster::{Fields, Write};
use proptest::prelude::*;
use proptest::sample::select;

use super::World;

const POOLS: [&str; 3] = [
    "",
    "pools: [{name: home, addresses: [192.168.178.11-192.168.178.12, 'fda8:a1db:5685::11']}]",
    "pools: [{name: home, addresses: [192.168.178.13, 'fda8:a1db:5685::13'], namespaces: [apps]}]\n\
     gates: {internal: {}, external: {addresses: [0.0.0.0, '::']}}",
];

const CLASSES: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: dualgate, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}
spec: {controller: dualgate.dev/ingress-controller}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: nginx}, spec: {controller: k8s.io/ingress-nginx}}
";

/// A site that has nothing to do with any of it; Services that ask for us are still told that they get nothing.
const NOTHING: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: none\nlan: {subnets: [192.168.178.0/24]}\n\
    nodes: [{name: home1, roles: [server], addresses: [192.168.178.5]}]\n\
    gates: {}\ningressClasses: [{name: none, controller: example.org/none}]";

fn ingress() -> impl Strategy<Value = String> {
    (
        0..3u8,
        select(vec!["", "ingressClassName: dualgate, ", "ingressClassName: nginx, "]),
        select(vec!["", "internal", "external", "internal,external"]),
        select(vec!["grafana", "missing"]),
    )
        .prop_map(|(number, class, gates, service)| {
            let annotation = match gates {
                "" => String::new(),
                gates => format!(", annotations: {{dualgate.dev/gates: '{gates}'}}"),
            };
            format!(
                "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: i{number}{annotation}}}, \
                 spec: {{{class}defaultBackend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}}}"
            )
        })
}

fn service() -> impl Strategy<Value = String> {
    let of = |keys: &'static [&'static str]| select(keys);
    (
        0..3u8,
        of(&["default", "apps"]),
        of(&["LoadBalancer", "LoadBalancer", "ClusterIP"]),
        of(&["", ", loadBalancerClass: dualgate.dev/load-balancer", ", loadBalancerClass: example.org/other"]),
        of(&["Single", "Prefer", "Require"]),
    )
        .prop_map(|(number, namespace, kind, class, policy)| {
            let policy = if policy == "Single" { "SingleStack" } else { &format!("{policy}DualStack") };
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: s{number}, namespace: {namespace}}}, spec: {{type: \
                 {kind}{class}, ipFamilyPolicy: {policy}, ports: [{{port: 80}}]}}}}"
            )
        })
}

#[derive(Clone, Debug)]
enum Step {
    Site(&'static str),
    Object(String),
    Delete(usize),
    Others(usize, &'static str, &'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let node = select(vec!["edge", "home1", "gone"]).prop_map(|name| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{node-role.kubernetes.io/edge: ''}}}}}}"
        )
    });
    let value = select(vec!["10.0.0.1", "lb.example.org", "192.168.178.10", "192.168.178.11 fda8:a1db:5685::11"]);
    prop_oneof![
        1 => select(&POOLS[..]).prop_map(Step::Site),
        3 => ingress().prop_map(Step::Object),
        3 => service().prop_map(Step::Object),
        1 => node.prop_map(Step::Object),
        1 => any::<usize>().prop_map(Step::Delete),
        2 => (any::<usize>(), select(vec!["traefik", "metallb"]), value).prop_map(|(at, who, what)| Step::Others(at, who, what)),
    ]
}

fn take(world: &mut World, step: &Step) {
    let keys: Vec<String> = world.api.values().keys().filter(|key| !key.contains("grafana")).cloned().collect();
    match step {
        Step::Site(keys) => world.set_site(keys),
        Step::Object(text) => world.put("objects", text),
        Step::Delete(at) if !keys.is_empty() => world.api.delete(&keys[at % keys.len()]),
        Step::Others(at, who, what) => {
            let published = |key: &&String| key.starts_with("Ingress") || key.starts_with("Service");
            let keys: Vec<&String> = keys.iter().filter(published).collect();
            if !keys.is_empty() {
                world.others(&format!("{who} {} {what}", keys[at % keys.len()]));
            }
        }
        Step::Delete(_) => {}
    }
}

/// Whether an object may be written at all.
fn may_be_written(world: &World, write: &Write) -> bool {
    let value = &world.api.values()[&write.object.to_string()];
    let gives = match &write.fields {
        Fields::Status { addresses, transition } => !addresses.is_empty() || transition.is_some(),
        Fields::Labels(labels) => !labels.is_empty(),
    };
    let spec = &value["spec"];
    let may_be_given = match value["kind"].as_str().unwrap() {
        "Ingress" => spec["ingressClassName"] != "nginx" && spec["defaultBackend"]["service"]["name"] == "grafana",
        "Service" => spec["type"] == "LoadBalancer" && spec["loadBalancerClass"] != "example.org/other",
        _ => value["metadata"]["name"] == "edge",
    };
    // What takes something back takes back what we gave.
    may_be_given || !gives
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// [`World::settle`] sees to it that nothing is left to be written, and that nothing else was touched.
    #[test]
    fn whatever_others_do_writing_comes_to_an_end_and_only_what_is_ours_is_written(
        families in select(&Families::ALL[..]),
        steps in prop::collection::vec(step(), 1..14),
    ) {
        let mut world = World::new(families, POOLS[1]);
        world.put("services", "grafana 80");
        world.put("objects", CLASSES);
        for step in &steps {
            take(&mut world, step);
            for write in world.settle() {
                prop_assert!(may_be_written(&world, &write), "{write} after {step:?}");
                if let Fields::Status { addresses, .. } = &write.fields {
                    let has = |family| addresses.iter().any(|address| Family::of(*address) == family);
                    prop_assert!(families.has(Family::V4) || !has(Family::V4), "{write}");
                    prop_assert!(families.has(Family::V6) || !has(Family::V6), "{write}");
                    let ingress = *write.object.kind == *"Ingress" && !addresses.is_empty();
                    prop_assert!(!ingress || families != Families::Both || has(Family::V4) && has(Family::V6), "{write}");
                }
            }
        }
        world.set_site(NOTHING);
        for key in world.api.values().keys().filter(|key| key.starts_with("Service")).cloned().collect::<Vec<_>>() {
            world.api.delete(&key);
        }
        world.settle();
        prop_assert_eq!(world.api.count_ours(), 0, "{:#?}", world.api.set());
    }
}
