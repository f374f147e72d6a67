//! What an edge may know: the cut is complete, minimal, and says nothing of what is not public.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dualgate_core::case::{Case, Families};
use dualgate_core::model::address::Family;
use dualgate_core::model::object::{AddressType, Body};
use dualgate_core::model::site::Role;
use dualgate_core::model::snapshot::Facts;
use dualgate_core::model::{Finding, NodeName, Object, ObjectSet, Snapshot, Text};
use dualgate_core::parse::object::dump;
use dualgate_core::plan::proxy::{ProxyPlan, ServerAddress};
use dualgate_core::plan::tunnel::TunnelPlan;
use dualgate_core::plan::{self, public};
use dualgate_core::route::{Action, EntryPointIndex, Route, RoutePart};
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "public/mix.rs"]
mod mix;

/// All of a plan that anybody but a reader of texts could notice, as text.
fn seen(plan: &plan::NodePlan) -> String {
    let plan::NodePlan { proxy, tunnel, firewall, virtual_ips, dns } = plan;
    let ProxyPlan { generation, listeners, table, backends, certificates, forwards, settings, forbidden } = proxy;
    let action = |route: &Route| match &route.action {
        Action::Forward(index) => format!("to {:?}", backends.get(*index).map(|backend| &backend.id)),
        Action::Unavailable(why) => why.to_string(),
    };
    let route =
        |route: &Arc<Route>| Route { action: Action::Unavailable(action(route).into()), ..numbered_by_rule(route) };
    let mut routes: Vec<String> = table.routes().map(|one| format!("{:#?}", route(one))).collect();
    routes.sort();
    let routes = routes.join("\n");
    let mut backends: Vec<_> = backends.iter().collect();
    backends.sort_by_key(|backend| &backend.id);
    let tunnel: &TunnelPlan = tunnel;
    format!(
        "{generation:?}\n{listeners:#?}\n{routes}\n{backends:#?}\n{certificates:#?}\n{forwards:#?}\n{settings:?}\n{forbidden:?}\n{tunnel:#?}\n{firewall:#?}\n{virtual_ips:#?}\n{dns:#?}"
    )
}

/// A path that was left out at home is not there to be counted.
fn numbered_by_rule(route: &Route) -> Route {
    let mut route = route.clone();
    if let RoutePart::Path { path, .. } = &mut route.origin.part {
        *path = 0;
    }
    route
}

fn with_objects(snapshot: &Snapshot, objects: ObjectSet) -> Snapshot {
    let facts = Facts { silent_edges: Arc::default(), ..snapshot.facts.clone() };
    Snapshot { objects: Arc::new(objects), facts, ..snapshot.clone() }
}

/// As it goes over the wire and is read at the edge.
fn told(cut: &ObjectSet) -> ObjectSet {
    let text = public::to_json(cut);
    let values: Vec<Value> = serde_json::from_slice(text.expose()).unwrap();
    public::read(&values)
}

/// The mistakes of a cut, if it has any.
fn faults(snapshot: &Snapshot, edge: &NodeName) -> Vec<String> {
    let cut = public::public(snapshot, edge);
    let is_known = |finding: &&Finding| {
        snapshot.objects.findings.iter().any(|known| known.code == finding.code && known.at.object == finding.at.object)
    };
    let unknown = cut.findings.iter().filter(|finding| !is_known(finding));
    let mut faults: Vec<String> =
        unknown.map(|finding| format!("the cut has a mistake of its own: {finding}")).collect();
    // Whoever answers hears himself.
    let mut of_all = snapshot.clone();
    Arc::make_mut(&mut of_all.facts.silent_edges).remove(edge);
    let whole = seen(&plan::node(&of_all, edge));
    let read = told(&cut);
    if read.objects != cut.objects {
        faults.push("the edge reads something else than home wrote".to_owned());
    }
    let at_edge = with_objects(snapshot, read.clone());
    let from_cut = seen(&plan::node(&at_edge, edge));
    if from_cut != whole {
        let first = whole.lines().zip(from_cut.lines()).find(|(a, b)| a != b);
        faults.push(format!("the cut is not complete, as {first:?} shows"));
    }
    if public::public(&at_edge, edge).objects != cut.objects {
        faults.push("the cut of the cut is another one".to_owned());
    }
    for left_out in 0..read.objects.len() {
        let mut objects = read.objects.clone();
        let object = objects.remove(left_out);
        let without = with_objects(snapshot, ObjectSet { objects, findings: Vec::new() });
        if seen(&plan::node(&without, edge)) == whole && !shares_its_certificate(&object, &without) {
            faults.push(format!("nothing needs {}: {}", object.key, dump(&object)));
        }
    }
    faults
}

/// Two Ingresses may show one certificate for all of its names, and neither need be there for the other to do so.
fn shares_its_certificate(object: &Object, others: &Snapshot) -> bool {
    let Body::Ingress(ingress) = &object.body else { return false };
    let of_others = |secret: &Option<Text>| {
        others.objects.of_namespace("Ingress", &object.key.name.namespace).iter().any(|other| match &other.body {
            Body::Ingress(other) => other.tls.iter().any(|tls| tls.secret == *secret),
            _ => false,
        })
    };
    !ingress.tls.is_empty() && ingress.tls.iter().all(|tls| of_others(&tls.secret))
}

fn edges(snapshot: &Snapshot) -> Vec<NodeName> {
    snapshot.site.nodes.iter().filter(|node| node.is_edge()).map(|node| node.name.clone()).collect()
}

#[test]
fn the_cut_of_every_case_is_complete_and_minimal() {
    let (mut edges_seen, mut objects, mut failures) = (0, 0, Vec::new());
    for case in cases() {
        for families in Families::ALL {
            let snapshot = case.snapshot(families).unwrap();
            for edge in edges(&snapshot) {
                edges_seen += 1;
                objects += public::public(&snapshot, &edge).objects.len();
                let name = format!("{} ({families:?})", case.name);
                failures.extend(faults(&snapshot, &edge).into_iter().map(|fault| format!("{name}: {fault}")));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(edges_seen >= 3 * 30 && objects > 100, "{edges_seen} edges, {objects} objects");
}

/// The cases are about what is served at home, mostly. Everything public, the same is served at the edge.
#[test]
fn the_cut_is_complete_and_minimal_when_everything_is_public() {
    let (mut objects, mut failures) = (0, Vec::new());
    for case in cases() {
        for families in Families::ALL {
            let mut snapshot = case.snapshot(families).unwrap();
            let site = Arc::make_mut(&mut snapshot.site);
            site.exposure.default = site.gates.keys().copied().collect();
            for edge in edges(&snapshot) {
                objects += public::public(&snapshot, &edge).objects.len();
                let name = format!("{} ({families:?})", case.name);
                failures.extend(faults(&snapshot, &edge).into_iter().map(|fault| format!("{name}: {fault}")));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(objects > 3 * 300, "{objects} objects");
}

#[test]
fn only_an_edge_is_told_anything() {
    let snapshot = example(Families::Both);
    for node in &snapshot.site.nodes {
        let cut = public::public(&snapshot, &node.name);
        assert_eq!(cut.objects.is_empty(), !node.has(Role::ExternalGate), "{}", node.name);
    }
    assert!(public::public(&snapshot, &NodeName::new("nobody")).objects.is_empty());
}

/// A text to be read by people: nothing is in it that they would not expect.
#[test]
fn the_cut_holds_the_fields_that_matter_and_no_other() {
    let snapshot = example(Families::Both);
    let cut = public::public(&snapshot, &NodeName::new("edge"));
    let found: Vec<Value> = cut.objects.iter().map(|object| dump(object)).collect();
    let slice = |number: u8, family: &str, address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("grafana-{number}"), "namespace": "apps",
                "labels": {"kubernetes.io/service-name": "grafana"},
            },
            "addressType": family, "ports": [{"name": "http", "port": 3000}],
            "endpoints": [{"addresses": [address], "targetRef": {"name": "grafana-0"}}],
        })
    };
    let expected = [
        slice(1, "IPv4", "10.42.1.7"),
        slice(2, "IPv6", "fd01::1:7"),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {
                "name": "grafana", "namespace": "apps", "creationTimestamp": "2026-01-02T03:04:05Z",
                "annotations": {
                    "dualgate.dev/gates": "external",
                    "traefik.ingress.kubernetes.io/router.entrypoints": "websecure",
                },
            },
            "spec": {
                "ingressClassName": "dualgate",
                "rules": [{"host": "grafana.example.org", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "grafana", "port": {"name": "http"}}}},
                ]}}],
            },
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "dualgate"}, "spec": {"controller": "dualgate.dev/ingress-controller"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "grafana", "namespace": "apps"},
            "spec": {"ports": [{"name": "http", "port": 80, "appProtocol": "http"}]},
        }),
    ];
    assert_eq!(found, expected, "{found:#?}");
}

const EXAMPLE: &str = "\
== objects
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: dualgate, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}, labels: {team: home}}
spec: {controller: dualgate.dev/ingress-controller, parameters: {kind: ConfigMap, name: hidden}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: grafana
  namespace: apps
  uid: 5b1e2f00
  creationTimestamp: '2026-01-02T03:04:05Z'
  labels: {hidden: label}
  annotations:
    dualgate.dev/gates: internal,external
    traefik.ingress.kubernetes.io/router.entrypoints: websecure
    traefik.ingress.kubernetes.io/router.middlewares: hidden-auth@kubernetescrd
    cert-manager.io/cluster-issuer: hidden
spec:
  tls: [{hosts: [grafana.example.org], secretName: hidden-is-absent}]
  rules:
  - host: grafana.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: grafana, port: {name: http}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: grafana, namespace: apps, labels: {hidden: label}, annotations: {hidden: annotation}}
spec:
  clusterIP: 10.43.0.9
  selector: {hidden: selector}
  ports: [{name: http, port: 80, targetPort: 3000, nodePort: 30080}, {name: hidden, port: 9090}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: grafana-hidden4, namespace: apps, labels: {kubernetes.io/service-name: grafana}}
addressType: IPv4
ports: [{name: http, port: 3000}, {name: hidden, port: 9090}]
endpoints:
- {addresses: [10.42.1.7], nodeName: hidden, zone: hidden, hostname: hidden, targetRef: {kind: Pod, name: grafana-0, namespace: apps, uid: hidden}}
- {addresses: [10.42.1.8], conditions: {ready: false}, nodeName: hidden, targetRef: {kind: Pod, name: hidden, namespace: apps}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: grafana-hidden6, namespace: apps, labels: {kubernetes.io/service-name: grafana}}
addressType: IPv6
ports: [{name: http, port: 3000}, {name: hidden, port: 9090}]
endpoints:
- {addresses: ['fd01::1:7'], nodeName: hidden, targetRef: {kind: Pod, name: grafana-0, namespace: apps}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: hidden, namespace: apps}
spec:
  rules:
  - host: hidden.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: hidden, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: apps}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: hidden, namespace: apps}
data: {hidden: value}
---
apiVersion: v1
kind: Node
metadata: {name: home1, labels: {hidden: label}}
spec: {podCIDRs: [10.42.1.0/24]}
";

fn example(families: Families) -> Snapshot {
    let site = "== site\ningressClasses: [{controller: dualgate.dev/ingress-controller}]\n";
    Case::parse("example", &format!("{site}{EXAMPLE}")).unwrap().snapshot(families).unwrap()
}

#[test]
fn the_edge_learns_which_pods_are_behind_which_node_if_the_site_file_does_not_say() {
    let tunnel = "== site\nfirewall: {}\ntunnel: {port: 56527}\n";
    let text = format!("{tunnel}{EXAMPLE}");
    let snapshot = Case::parse("tunnel", &text).unwrap().snapshot(Families::Both).unwrap();
    let edge = NodeName::new("edge");
    let cut = public::public(&snapshot, &edge);
    let nodes: Vec<Value> =
        cut.objects.iter().filter(|object| matches!(object.body, Body::Node(_))).map(|object| dump(object)).collect();
    let expected = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "home1"}, "spec": {"podCIDRs": ["10.42.1.0/24"]},
    });
    assert_eq!(nodes, [expected]);
    assert_eq!(faults(&snapshot, &edge), Vec::<String>::new());
}

#[test]
fn an_edge_learns_which_other_one_home_does_not_hear_if_it_would_lead_there() {
    let site = |publish: &str| {
        format!(
            "== site
apiVersion: dualgate.dev/v1alpha1
kind: Site
lan: {{subnets: [192.168.178.0/24]}}
nodes:
- {{name: home1, roles: [server, internal-gate], addresses: [192.168.178.5]}}
- {{name: edge, roles: [external-gate, dns], addresses: [192.168.178.201], publicAddresses: [203.0.113.10]}}
- {{name: other, roles: [external-gate, dns], addresses: [192.168.178.202], publicAddresses: [203.0.113.20]}}
gates: {{internal: {{}}, external: {{}}}}
ingressClasses: [{{controller: dualgate.dev/ingress-controller}}]
dns: {{public: true, zones: [{{name: example.org, publish: {publish}}}]}}
{EXAMPLE}"
        )
    };
    let nodes = |publish: &str, silent: &[&str]| {
        let mut snapshot = Case::parse("silent", &site(publish)).unwrap().snapshot(Families::V4).unwrap();
        snapshot.facts.silent_edges = Arc::new(silent.iter().map(|name| NodeName::new(*name)).collect());
        let edge = NodeName::new("edge");
        assert_eq!(faults(&snapshot, &edge), Vec::<String>::new());
        let cut = public::public(&snapshot, &edge);
        let nodes = cut.objects.iter().filter(|object| matches!(object.body, Body::Node(_)));
        nodes.map(|object| dump(object)).collect::<Vec<Value>>()
    };
    let expected = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "other", "annotations": {"dualgate.dev/silent": "true"}},
    });
    assert_eq!(nodes("edge", &["other"]), [expected]);
    for (publish, silent) in [("edge", &[][..]), ("edge", &["edge"]), ("home-only", &["other"])] {
        assert_eq!(nodes(publish, silent), [json!(null); 0], "{publish} {silent:?}");
    }
}

/// Only a folder can hold such a Service. The first port with the number counts, whoever names which.
#[test]
fn of_two_ports_with_one_number_the_edge_gets_the_one_that_home_serves() {
    let ingress = |name: &str, gates: &str, port: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: apps, annotations: {{dualgate.dev/gates: '{gates}'}}}}
spec: {{defaultBackend: {{service: {{name: web, port: {{name: {port}}}}}}}}}
---
"
        )
    };
    let text = format!(
        "== objects
{}{}apiVersion: v1
kind: Service
metadata: {{name: web, namespace: apps}}
spec: {{ports: [{{name: one, port: 80}}, {{name: two, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web, namespace: apps, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: one, port: 8001}}, {{name: two, port: 8002}}]
endpoints: [{{addresses: [10.42.0.1]}}]
",
        ingress("a-private", "internal", "one"),
        ingress("b-public", "external", "two"),
    );
    let snapshot = Case::parse("ports", &text).unwrap().snapshot(Families::V4).unwrap();
    let edge = NodeName::new("edge");
    let cut = with_objects(&snapshot, public::public(&snapshot, &edge));
    let servers = |snapshot: &Snapshot| {
        let backends = plan::node(snapshot, &edge).proxy.backends;
        backends.iter().map(|backend| format!("{:?}", backend.servers)).collect::<Vec<_>>()
    };
    assert_eq!(servers(&cut), servers(&snapshot));
    assert!(servers(&cut)[0].contains("10.42.0.1:8001"), "{:?}", servers(&cut));
}

#[test]
fn what_no_cut_holds_is_not_read_whoever_sent_it() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "home1"}});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
    let chart = json!({"apiVersion": "example.org/v1", "kind": "Chart", "metadata": {"name": "x"}});
    let set = public::read(&[config, node, chart, Value::Null, json!(7)]);
    let keys: Vec<String> = set.objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(keys, ["Node home1"]);
    assert_eq!(set.findings.len(), 2, "{:?}", set.findings);
}

#[test]
fn keys_are_in_the_text_for_the_wire_and_nowhere_else() {
    let case = cases().into_iter().find(|case| case.name == "certificates.case").unwrap();
    let mut snapshot = case.snapshot(Families::Both).unwrap();
    let site = Arc::make_mut(&mut snapshot.site);
    site.exposure.default = site.gates.keys().copied().collect();
    let cut = public::public(&snapshot, &NodeName::new("edge"));
    let secrets = cut.objects.iter().filter(|object| matches!(object.body, Body::Secret(_))).count();
    assert!(secrets > 1, "{secrets} Secrets");
    let text = public::to_json(&cut);
    let key = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t";
    assert!(std::str::from_utf8(text.expose()).unwrap().contains(key), "no key in the text for the wire");
    for shown in [format!("{text:?}"), format!("{cut:?}"), format!("{:?}", told(&cut))] {
        assert!(!shown.contains(key) && !shown.contains("PRIVATE KEY"), "a key is shown");
    }
}

#[test]
fn a_change_that_is_not_public_changes_nothing_for_the_edge() {
    let before = public::public(&example(Families::Both), &NodeName::new("edge"));
    let other = EXAMPLE.replace("hidden.example.org", "other.example.org").replace("10.42.1.8", "10.42.1.9");
    let site = "== site\ningressClasses: [{controller: dualgate.dev/ingress-controller}]\n";
    let other = Case::parse("other", &format!("{site}{other}")).unwrap().snapshot(Families::Both).unwrap();
    let after = public::public(&other, &NodeName::new("edge"));
    assert_eq!(before.objects, after.objects);
    assert!(public::to_json(&before) == public::to_json(&after));
}

/// What the edge would learn and must not.
fn hidden_words(text: &str) -> Vec<&'static str> {
    mix::private_words().filter(|word| text.contains(word)).collect()
}

fn answers(plan: &ProxyPlan) -> Vec<String> {
    let mut answers = Vec::new();
    let points: std::collections::BTreeSet<EntryPointIndex> = plan.listeners.iter().map(|l| l.index).collect();
    for route in plan.table.routes() {
        for point in &points {
            let path = route.path.written();
            let host = route.host.to_string().replace('*', "any");
            let found = plan.table.find(*point, &host, if path.is_empty() { "/" } else { path });
            let action = found.map(|index| match &plan.table.route(index).action {
                Action::Forward(backend) => format!("{:?}", plan.backends.get(*backend).unwrap().servers),
                Action::Unavailable(why) => why.to_string(),
            });
            let shown = plan.certificate(*point, &host).map(|certificate| certificate.secret.to_string());
            answers.push(format!("{point:?} {host}{path}: {action:?} {shown:?}"));
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_mixed_the_cut_is_complete_minimal_and_silent_about_the_rest(
        mix in mix::mix(),
        families in prop::sample::select(Families::ALL.to_vec()),
    ) {
        let text = mix.case();
        let snapshot = Case::parse("mix", &text).unwrap().snapshot(families).unwrap();
        let edge = NodeName::new("edge");
        let found = faults(&snapshot, &edge);
        prop_assert!(found.is_empty(), "{}\n{text}", found.join("\n"));
        let cut = public::public(&snapshot, &edge);
        let wire = public::to_json(&cut);
        let wire = std::str::from_utf8(wire.expose()).unwrap();
        let hidden = hidden_words(wire);
        prop_assert!(hidden.is_empty(), "the edge learns of {hidden:?}\n{wire}\n{text}");
        let at_edge = with_objects(&snapshot, told(&cut));
        prop_assert_eq!(answers(&plan::node(&snapshot, &edge).proxy), answers(&plan::node(&at_edge, &edge).proxy));
        for server in plan::node(&at_edge, &edge).proxy.backends.iter().flat_map(|backend| &backend.servers) {
            let ServerAddress::Sockets(sockets) = &server.at else { continue };
            prop_assert!(sockets.iter().all(|socket| families.has(Family::of(socket.ip())) || mix.writes_endpoints()));
        }
        let slices = cut.objects.iter().filter_map(|object| match &object.body {
            Body::EndpointSlice(slice) => Some(slice.address_type),
            _ => None,
        });
        for family in slices {
            let family = if family == AddressType::V4 { Family::V4 } else { Family::V6 };
            prop_assert!(families.has(family));
        }
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ingress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        Case::parse(&name, &fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().map(|path| read(path)).collect()
}
