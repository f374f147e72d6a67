//! The cluster of a lab: what manifests make run, where, and what EndpointSlices say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dualgate_core::lower;
use dualgate_core::model::object::{AddressType, Body, EndpointSlice};
use dualgate_core::model::snapshot::Facts;
use dualgate_core::model::{Dual, NodeName, ObjectKey, ObjectName, ObjectSet, Site};
use dualgate_core::parse;
use dualgate_core::plan::proxy::{Backend, Server, ServerAddress};
use dualgate_lab::topology::pod_cidrs;
use dualgate_lab::workload::{
    MAX_PODS, Placement, Pod, Wanted, Workload, endpoint_slices, manifest, schedule, with_templates, workloads,
};
use proptest::prelude::*;

const GRAFANA: &str = include_str!("../../../examples/home/manifests/grafana.yaml");
const CLASS: &str = include_str!("../../../examples/home/manifests/ingress-class.yaml");
const PAPERLESS: &str = include_str!("../../../examples/home/manifests/paperless-ngx.yaml");
const WHOAMI: &str = include_str!("../../../examples/home/manifests/whoami.yaml");

/// Which families a cluster has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Families {
    V4,
    V6,
    Both,
}

const ALL: [Families; 3] = [Families::V4, Families::V6, Families::Both];

impl Families {
    fn list(self, v4: &str, v6: &str) -> String {
        match self {
            Self::V4 => format!("['{v4}']"),
            Self::V6 => format!("['{v6}']"),
            Self::Both => format!("['{v4}', '{v6}']"),
        }
    }

    /// What of both there is.
    fn dual<T>(self, v4: T, v6: T) -> Dual<T> {
        match self {
            Self::V4 => Dual::V4(v4),
            Self::V6 => Dual::V6(v6),
            Self::Both => Dual::Both { v4, v6 },
        }
    }
}

fn site_of(text: &str) -> Site {
    let (site, findings) = parse::site::site("site.yaml", text);
    site.unwrap_or_else(|| panic!("{findings:?}"))
}

/// Three nodes at home, and an edge that is an agent.
fn site(families: Families) -> Site {
    let node = |n: u8| {
        let addresses = families.list(&format!("192.168.178.{n}"), &format!("fda8:a1db:5685::{n}"));
        format!("- {{name: k3s-node{}, roles: [server, internal-gate, virtual-ips], addresses: {addresses}}}\n", n - 4)
    };
    site_of(&format!(
        "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: test
cluster: {{podCIDRs: {pods}, serviceCIDRs: {services}}}
lan: {{subnets: {lan}}}
nodes:
{nodes}- {{name: ionos, roles: [agent, external-gate], addresses: {edge}, publicAddresses: {public}}}
gates: {{internal: {{addresses: {gate}}}, external: {{}}}}
",
        pods = families.list("10.42.0.0/16", "fd01::/48"),
        services = families.list("10.43.0.0/16", "fd02::/112"),
        lan = families.list("192.168.178.0/24", "fda8:a1db:5685::/64"),
        nodes = [5, 6, 7].map(node).concat(),
        edge = families.list("192.168.178.201", "fda8:a1db:5685::201"),
        public = families.list("203.0.113.10", "2001:db8:1::10"),
        gate = families.list("192.168.178.10", "fda8:a1db:5685::10"),
    ))
}

/// The objects of some manifests, as the lab has them.
fn objects(texts: &[&str]) -> ObjectSet {
    let paths: Vec<String> = (0..texts.len()).map(|number| format!("{number}.yaml")).collect();
    let files: Vec<_> = paths.iter().zip(texts).map(|(path, text)| parse::file::file(path, text)).collect();
    let set = parse::file::assemble(files.iter());
    let read = |path: &str| paths.iter().position(|own| own == path).map(|number| texts[number].to_owned());
    with_templates(&set, read, &ObjectSet::default())
}

fn deployment(name: &str, replicas: u32) -> String {
    workload("Deployment", name, &format!("replicas: {replicas}"), "")
}

fn workload(kind: &str, name: &str, spec: &str, pod: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}, namespace: apps}}
spec:
  {spec}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {pod}
      containers: [{{name: main, image: main, ports: [{{name: http, containerPort: 8080}}]}}]
---
"
    )
}

/// A cluster over time.
struct Cluster {
    site: Site,
    objects: ObjectSet,
    workloads: Vec<Workload>,
    scale: BTreeMap<ObjectKey, u32>,
    dead_pods: BTreeSet<ObjectName>,
    deleted_pods: BTreeSet<ObjectName>,
    dead_nodes: BTreeSet<NodeName>,
    placement: Placement,
}

impl Cluster {
    fn new(site: Site, texts: &[&str]) -> Self {
        let mut cluster = Self {
            site,
            objects: ObjectSet::default(),
            workloads: Vec::new(),
            scale: BTreeMap::new(),
            dead_pods: BTreeSet::new(),
            deleted_pods: BTreeSet::new(),
            dead_nodes: BTreeSet::new(),
            placement: Placement::default(),
        };
        cluster.apply(texts);
        cluster
    }

    fn apply(&mut self, texts: &[&str]) {
        self.objects = objects(texts);
        let (workloads, findings) = workloads(&self.objects);
        assert_eq!(findings, []);
        self.workloads = workloads;
        self.settle();
    }

    fn scale(&mut self, kind: &str, name: &str, replicas: u32) {
        self.scale.insert(key(kind, name), replicas);
        self.settle();
    }

    fn settle(&mut self) {
        let wanted = Wanted {
            site: &self.site,
            objects: &self.objects,
            workloads: &self.workloads,
            scale: &self.scale,
            dead_pods: &self.dead_pods,
            deleted_pods: &self.deleted_pods,
            dead_nodes: &self.dead_nodes,
        };
        self.placement = schedule(&wanted, &self.placement);
    }

    /// Every pod runs.
    fn ready(mut self) -> Self {
        for pod in &mut self.placement.pods {
            (pod.ready, pod.alive) = (true, true);
        }
        self
    }

    fn pods(&self) -> &[Pod] {
        &self.placement.pods
    }

    fn pods_of(&self, name: &str) -> Vec<Pod> {
        self.pods().iter().filter(|pod| *pod.workload.name.name == *name).cloned().collect()
    }

    /// The pods of a workload on each node, by the nodes' names.
    fn spread(&self, name: &str) -> Vec<(String, usize)> {
        let mut count = BTreeMap::new();
        for pod in self.pods_of(name) {
            *count.entry(pod.node.to_string()).or_default() += 1;
        }
        count.into_iter().collect()
    }

    /// The slices, read by core as from a file; nothing is wrong with them.
    fn slices(&self) -> Vec<(String, EndpointSlice)> {
        let file = parse::file::file("slices.yaml", &manifest(&endpoint_slices(&self.objects, self.pods())));
        assert_eq!(file.findings, []);
        let slice = |object: &std::sync::Arc<dualgate_core::model::Object>| match &object.body {
            Body::EndpointSlice(slice) => (object.key.name.to_string(), (**slice).clone()),
            other => panic!("{other:?}"),
        };
        file.objects.iter().map(slice).collect()
    }

    /// What core makes of the manifests together with the slices.
    fn backends(&self) -> Vec<Backend> {
        let slices = parse::file::file("slices.yaml", &manifest(&endpoint_slices(&self.objects, self.pods())));
        let mut set = self.objects.clone();
        set.objects.extend(slices.objects);
        set.objects.sort_by(|a, b| a.key.cmp(&b.key));
        let lowered = lower::lower(&Arc::new(self.site.clone()), &Arc::new(set), &Facts::default());
        lowered.backends().iter().map(|backend| (**backend).clone()).collect()
    }
}

fn key(kind: &str, name: &str) -> ObjectKey {
    ObjectKey { kind: kind.into(), name: ObjectName::new("apps", name) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nodes(counts: &[(&str, usize)]) -> Vec<(String, usize)> {
    counts.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
}

#[test]
fn the_seeds_grafana_is_one_pod_and_one_server_with_an_address_of_each_family() {
    for families in ALL {
        let cluster = Cluster::new(site(families), &[GRAFANA, CLASS]).ready();
        let [pod] = cluster.pods() else { panic!("{:?}", cluster.pods()) };
        assert_eq!(pod.addresses, families.dual(ip("10.42.0.2"), ip("fd01::2")), "{families:?}");
        assert_eq!(pod.node, NodeName::new("k3s-node1"));
        let status = pod.status();
        assert!(status.name.starts_with("apps/grafana-") && status.ready && status.alive, "{status:?}");
        assert_eq!((&*status.workload, &*status.node), ("apps/grafana", "k3s-node1"));
        assert_eq!(pod.listens(&cluster.objects), BTreeSet::from([3000]));
        let identity = pod.identity(&cluster.objects);
        assert_eq!((identity.ingress.as_deref(), &*identity.services), (Some("grafana"), &["grafana".to_owned()][..]));
        assert_eq!(identity.node.as_deref(), Some("k3s-node1"));

        let [backend] = &*cluster.backends() else { panic!("{:?}", cluster.backends()) };
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let at = ServerAddress::Sockets(families.dual(socket("10.42.0.2:3000"), socket("[fd01::2]:3000")).into());
        assert_eq!(*backend.servers, [Server { id: pod.name.name.clone(), at }], "{families:?}");
    }
}

#[test]
fn slices_are_written_as_the_controller_of_kubernetes_writes_them() {
    let cluster = Cluster::new(site(Families::Both), &[GRAFANA, CLASS]).ready();
    let slices = endpoint_slices(&cluster.objects, cluster.pods());
    let pod = &*cluster.pods()[0].name.name;
    let [v4, v6] = &*slices else { panic!("{slices:?}") };
    let expected = |family: &str, address: &str, name: &serde_json::Value| {
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": "apps",
                "labels": {
                    "kubernetes.io/service-name": "grafana",
                    "endpointslice.kubernetes.io/managed-by": "dualgate-lab",
                },
            },
            "addressType": family,
            "endpoints": [{
                "addresses": [address],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "k3s-node1",
                "targetRef": {"kind": "Pod", "namespace": "apps", "name": pod},
            }],
            "ports": [{"name": "", "port": 3000, "protocol": "TCP"}],
        })
    };
    assert_eq!(*v4, expected("IPv4", "10.42.0.2", &v4["metadata"]["name"]));
    assert_eq!(*v6, expected("IPv6", "fd01::2", &v6["metadata"]["name"]));
    assert_ne!(v4["metadata"]["name"], v6["metadata"]["name"]);
    assert!(v4["metadata"]["name"].as_str().unwrap().starts_with("grafana-"));
}

#[test]
fn the_homes_manifests_run_with_named_ports_and_headless_services() {
    for families in ALL {
        let cluster = Cluster::new(site(families), &[GRAFANA, PAPERLESS, WHOAMI, CLASS]).ready();
        assert_eq!(cluster.placement.pending, []);
        let servers: Vec<_> = cluster.backends().into_iter().map(|b| (b.id.to_string(), b.servers.len())).collect();
        let expected = [("apps/grafana:80", 1), ("apps/whoami:80", 3), ("paperless/paperless-ngx:80", 1)];
        assert_eq!(servers, expected.map(|(id, count)| (id.to_owned(), count)), "{families:?}");
        let ports: BTreeMap<String, BTreeSet<u16>> = ["paperless-ngx", "redis", "postgres"]
            .map(|name| (name.to_owned(), cluster.pods_of(name)[0].listens(&cluster.objects)))
            .into();
        let expected = [("paperless-ngx", 8000), ("redis", 6379), ("postgres", 5432)];
        assert_eq!(ports, expected.map(|(name, port)| (name.to_owned(), BTreeSet::from([port]))).into());
        assert_eq!(&*cluster.pods_of("postgres")[0].name.name, "postgres-0");
        let headless = endpoint_slices(&cluster.objects, cluster.pods());
        let headless: Vec<_> = headless
            .iter()
            .filter(|slice| slice["metadata"]["labels"]["service.kubernetes.io/headless"] == "")
            .collect();
        assert!(!headless.is_empty() && headless.iter().all(|slice| slice["endpoints"][0]["hostname"] == "postgres-0"));
        assert_eq!(cluster.spread("whoami"), nodes(&[("k3s-node1", 1), ("k3s-node2", 1), ("k3s-node3", 1)]));
    }
}

#[test]
fn pods_are_not_ready_until_the_world_says_so() {
    for families in ALL {
        let mut cluster = Cluster::new(site(families), &[GRAFANA, CLASS]);
        assert!(cluster.pods().iter().all(|pod| !pod.ready && !pod.alive));
        assert!(cluster.backends()[0].servers.is_empty());
        assert!(cluster.slices().iter().all(|(_, slice)| !slice.endpoints[0].ready && !slice.endpoints[0].serving));
        cluster = cluster.ready();
        cluster.settle();
        assert!(cluster.pods()[0].ready && cluster.pods()[0].alive, "what the world said stays");
    }
}

#[test]
fn a_scaled_workload_keeps_its_pods_and_gives_up_the_last_ones() {
    for families in ALL {
        let text = [deployment("a", 2), deployment("b", 2)].concat();
        let mut cluster = Cluster::new(site(families), &[&text]).ready();
        let before = cluster.placement.clone();
        cluster.scale("Deployment", "a", 5);
        let kept: Vec<Pod> = cluster.pods_of("a").into_iter().take(2).chain(cluster.pods_of("b")).collect();
        assert_eq!(kept, before.pods, "{families:?}");
        assert_eq!(cluster.spread("a"), nodes(&[("k3s-node1", 2), ("k3s-node2", 2), ("k3s-node3", 1)]));
        let grown: BTreeSet<IpAddr> = addresses(cluster.pods()).into_iter().collect();
        cluster.scale("Deployment", "a", 2);
        assert_eq!(cluster.pods(), before.pods);
        cluster.scale("Deployment", "a", 3);
        let newest = cluster.pods_of("a").pop().unwrap();
        assert!(newest.addresses.iter().all(|address| !grown.contains(address)), "an address rests a while");
        cluster.scale("Deployment", "a", 0);
        assert_eq!(cluster.pods(), cluster.pods_of("b"));
    }
}

#[test]
fn a_pod_that_answers_leaves_in_order() {
    for families in ALL {
        let text = [deployment("a", 2), workload("StatefulSet", "db", "replicas: 1", "")].concat();
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: apps}\n\
            spec: {selector: {app: a}, ports: [{port: 80}]}\n";
        let mut cluster = Cluster::new(site(families), &[&text, service]).ready();
        let [first, second] = &*cluster.pods_of("a") else { panic!("{:?}", cluster.pods()) };
        let (first, second) = (first.name.clone(), second.name.clone());
        // One is scaled away, one was deleted, and so was the only one of its name.
        cluster.deleted_pods = [first.clone(), cluster.pods_of("db")[0].name.clone()].into();
        cluster.scale("Deployment", "a", 1);
        cluster.deleted_pods.clear();
        let leaving =
            |cluster: &Cluster| cluster.placement.leaving.iter().map(|pod| pod.name.to_string()).collect::<Vec<_>>();
        assert_eq!(cluster.pods_of("a").iter().map(|pod| &pod.name).collect::<Vec<_>>(), [&second]);
        assert_eq!(leaving(&cluster), [first.to_string(), "apps/db-0".to_owned()]);
        assert!(cluster.pods_of("db").is_empty(), "there are never two of a name");
        assert_eq!(cluster.placement.pending, [], "it is nobody's fault");
        let slices = endpoint_slices(&cluster.objects, &cluster.placement.all());
        let conditions = |name: &ObjectName| {
            let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
            let of_pod = endpoints.filter(|endpoint| endpoint["targetRef"]["name"] == *name.name);
            of_pod.map(|endpoint| endpoint["conditions"].clone()).collect::<Vec<_>>()
        };
        let per_pod = if families == Families::Both { 2 } else { 1 };
        let gone = serde_json::json!({"ready": false, "serving": true, "terminating": true});
        assert_eq!(conditions(&first), vec![gone; per_pod], "{families:?}");
        cluster.scale("Deployment", "a", 3);
        let all = cluster.placement.all();
        assert_eq!(addresses(&all).len(), all.len() * per_pod, "what leaves keeps its addresses");
        // It has ended.
        cluster.dead_pods = cluster.placement.leaving.iter().map(|pod| pod.name.clone()).collect();
        cluster.settle();
        assert_eq!(leaving(&cluster), [""; 0]);
        assert_eq!((cluster.pods_of("a").len(), cluster.pods_of("db").len()), (3, 1));
    }
}

#[test]
fn a_change_of_one_workload_replaces_its_pods_and_no_others() {
    for families in ALL {
        let other = deployment("b", 3);
        let mut cluster = Cluster::new(site(families), &[&deployment("a", 3), &other]);
        let before = cluster.placement.clone();
        let changed = deployment("a", 3).replace("image: main", "image: other");
        cluster.apply(&[&changed, &other]);
        assert_eq!(cluster.pods_of("b"), before.pods[3..]);
        let names = |pods: &[Pod]| pods.iter().map(|pod| pod.name.clone()).collect::<BTreeSet<_>>();
        assert!(names(&cluster.pods_of("a")).is_disjoint(&names(&before.pods)), "{families:?}");
        cluster.apply(&[&other]);
        assert_eq!(cluster.pods(), &before.pods[3..]);
    }
}

#[test]
fn a_dead_pod_has_a_successor_with_another_name_and_other_addresses() {
    for families in ALL {
        let text = [deployment("a", 3), workload("StatefulSet", "db", "replicas: 2", "")].concat();
        let mut cluster = Cluster::new(site(families), &[&text]);
        let (before, dead) = (cluster.placement.clone(), [cluster.pods()[1].clone(), cluster.pods_of("db")[0].clone()]);
        cluster.dead_pods = dead.iter().map(|pod| pod.name.clone()).collect();
        cluster.settle();
        assert_eq!((cluster.pods_of("a").len(), cluster.pods_of("db").len()), (3, 2));
        let stayed = before.pods.iter().filter(|pod| !dead.contains(pod));
        assert!(stayed.clone().all(|pod| cluster.pods().contains(pod)));
        let successor = cluster.pods_of("a").pop().unwrap();
        assert!(before.pods.iter().all(|pod| pod.name != successor.name));
        assert!(addresses(&before.pods).is_disjoint(&successor.addresses.iter().copied().collect()), "{families:?}");
        let ordinal = &cluster.pods_of("db")[0];
        assert_eq!((&*ordinal.name.name, ordinal.addresses == dead[1].addresses), ("db-0", false));
    }
}

#[test]
fn pods_of_deployments_leave_a_dead_node_and_the_others_wait_for_it() {
    for families in ALL {
        let text = [
            deployment("a", 3),
            workload("DaemonSet", "agent", "minReadySeconds: 0", ""),
            workload("StatefulSet", "db", "replicas: 3", ""),
        ];
        let mut cluster = Cluster::new(site(families), &[&text.concat()]);
        let each = nodes(&[("k3s-node1", 1), ("k3s-node2", 1), ("k3s-node3", 1)]);
        for name in ["a", "agent", "db"] {
            assert_eq!(cluster.spread(name), each, "{name}");
        }
        let before = cluster.placement.clone();
        cluster.dead_nodes.insert(NodeName::new("k3s-node2"));
        cluster.settle();
        assert_eq!(cluster.spread("a").iter().map(|(node, _)| &**node).collect::<Vec<_>>(), ["k3s-node1", "k3s-node3"]);
        assert_eq!(cluster.pods_of("a").len(), 3);
        for name in ["agent", "db"] {
            assert_eq!(cluster.spread(name), each, "{name} {families:?}");
        }
        let moved = cluster.placement.clone();
        cluster.dead_nodes.clear();
        cluster.settle();
        assert_eq!(cluster.placement, moved, "nothing moves back by itself");
        assert_ne!(before, moved);
    }
}

#[test]
fn pods_go_where_they_ask_to_and_say_why_they_wait() {
    let site = site(Families::Both);
    let text = [
        workload("Deployment", "pinned", "replicas: 2", "nodeName: k3s-node3"),
        workload("Deployment", "edge", "replicas: 1", "nodeSelector: {node-role.kubernetes.io/edge: 'true'}"),
        workload("DaemonSet", "everywhere", "minReadySeconds: 0", "nodeSelector: {kubernetes.io/os: linux}"),
        workload("Deployment", "nowhere", "replicas: 2", "nodeSelector: {disk: ssd}"),
        workload("Deployment", "gone", "replicas: 1", "nodeName: k3s-node9"),
    ];
    let mut cluster = Cluster::new(site, &[&text.concat()]);
    assert_eq!(cluster.spread("pinned"), nodes(&[("k3s-node3", 2)]));
    assert_eq!(cluster.spread("edge"), nodes(&[("ionos", 1)]));
    assert_eq!(cluster.spread("everywhere").len(), 4);
    let pending: Vec<_> =
        cluster.placement.pending.iter().map(|p| (p.workload.to_string(), p.pods, p.why.clone())).collect();
    let gone = "the site has no node `k3s-node9` that runs pods, which `nodeName` asks for";
    let nowhere = "no node has the labels of `nodeSelector`: write them into a manifest of the Node";
    assert_eq!(
        pending,
        [("Deployment apps/gone".into(), 1, gone.into()), ("Deployment apps/nowhere".into(), 2, nowhere.into())]
    );
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: k3s-node2, labels: {disk: ssd}}\n";
    cluster.apply(&[&text.concat(), node]);
    assert_eq!(cluster.spread("nowhere"), nodes(&[("k3s-node2", 2)]));
}

#[test]
fn a_full_cluster_lets_pods_wait() {
    for families in ALL {
        let mut cluster = Cluster::new(site(families), &[&deployment("a", u32::MAX)]);
        assert_eq!(cluster.pods().len(), 3 * MAX_PODS);
        let [pending] = &*cluster.placement.pending else { panic!("{:?}", cluster.placement.pending) };
        assert_eq!(pending.pods, u32::MAX - 3 * MAX_PODS as u32);
        assert_eq!(
            addresses(cluster.pods()).len(),
            cluster.pods().len() * if families == Families::Both { 2 } else { 1 }
        );
        cluster.scale("Deployment", "a", 1);
        assert_eq!((cluster.pods().len(), &*cluster.placement.pending), (1, &[][..]));
    }
}

#[test]
fn the_networks_of_nodes_are_those_of_the_site_file_where_it_has_them() {
    let text = "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: test
cluster: {podCIDRs: [10.42.0.0/16, 'fd01::/48'], serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}
lan: {subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64']}
nodes:
- {name: one, roles: [server, internal-gate, controller], addresses: [192.168.178.5], podCIDRs: [10.42.9.0/29, 'fd01:0:0:9::/64']}
gates: {internal: {}}
";
    let mut cluster = Cluster::new(site_of(text), &[&deployment("a", 5)]);
    let mut v4: Vec<_> = cluster.pods().iter().map(|pod| pod.addresses.v4().unwrap().to_string()).collect();
    v4.sort();
    assert_eq!(v4, ["10.42.9.2", "10.42.9.3", "10.42.9.4", "10.42.9.5", "10.42.9.6"]);
    let dead = cluster.pods()[0].clone();
    cluster.dead_pods.insert(dead.name);
    cluster.settle();
    let newest = cluster.pods().last().unwrap();
    assert_eq!(newest.addresses, dead.addresses, "the only address that is left");

    let without = Cluster::new(
        site_of(
            &text
                .replace(
                    "cluster: {podCIDRs: [10.42.0.0/16, 'fd01::/48'], serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}\n",
                    "",
                )
                .replace(", podCIDRs: [10.42.9.0/29, 'fd01:0:0:9::/64']", ""),
        ),
        &[&deployment("a", 1)],
    );
    assert_eq!((without.pods(), without.placement.pending[0].pods), (&[][..], 1));
}

#[test]
fn a_service_has_the_families_that_it_names() {
    let service = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: apps}}\nspec: {{{spec}, selector: {{app: a}}, ports: [{{port: 80, targetPort: http}}]}}\n"
        )
    };
    let types = |spec: &str, replicas| {
        let cluster = Cluster::new(site(Families::Both), &[&deployment("a", replicas), &service(spec)]).ready();
        cluster.slices().into_iter().map(|(_, slice)| (slice.address_type, slice.endpoints.len())).collect::<Vec<_>>()
    };
    let (v4, v6) = (AddressType::V4, AddressType::V6);
    for (spec, expected) in [
        ("type: ClusterIP", vec![(v4, 1), (v6, 1)]),
        ("ipFamilyPolicy: PreferDualStack", vec![(v4, 1), (v6, 1)]),
        ("ipFamilyPolicy: SingleStack", vec![(v4, 1)]),
        ("ipFamilyPolicy: SingleStack, ipFamilies: [IPv6]", vec![(v6, 1)]),
        ("ipFamilies: [IPv6]", vec![(v6, 1)]),
    ] {
        assert_eq!(types(spec, 1), expected, "{spec}");
    }
    assert_eq!(types("type: ClusterIP", 0), [(v4, 0)], "as Kubernetes, which leaves one empty slice");
    assert_eq!(types("ipFamilies: [IPv6]", 0), [(v6, 0)]);
}

#[test]
fn a_slice_holds_a_hundred_pods_that_have_the_same_ports() {
    for families in ALL {
        let other = workload("Deployment", "b", "replicas: 2", "").replace("app: b", "app: a").replace("8080", "9090");
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: apps}\nspec: {selector: {app: a}, ports: [{name: web, port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}, {name: other, port: 81, targetPort: missing}]}\n";
        let cluster = Cluster::new(site(families), &[&deployment("a", 201), &other, service]).ready();
        let slices = cluster.slices();
        let mut sizes: Vec<_> = slices
            .iter()
            .map(|(_, slice)| {
                (
                    slice.ports.iter().map(|port| (port.name.to_string(), port.port.unwrap())).collect(),
                    slice.endpoints.len(),
                )
            })
            .collect::<Vec<(Vec<(String, u16)>, usize)>>();
        sizes.sort();
        let of_family = [(8080, 1), (8080, 100), (8080, 100), (9090, 2)];
        let times = if families == Families::Both { 2 } else { 1 };
        let expected: Vec<_> = of_family
            .iter()
            .flat_map(|&(port, size)| std::iter::repeat_n((vec![("web".to_owned(), port)], size), times))
            .collect();
        assert_eq!(sizes, expected, "a port whose name no container has is left out");
        let names: BTreeSet<_> = slices.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), slices.len());
        assert!(
            manifest(&endpoint_slices(&cluster.objects, cluster.pods()))
                .contains("\"appProtocol\": \"kubernetes.io/h2c\"")
        );
    }
}

#[test]
fn a_service_whose_endpoints_are_written_is_left_alone() {
    let service = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: apps{more}}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let slice = |service: &str, manager: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-x, namespace: apps, labels: {{kubernetes.io/service-name: {service}, endpointslice.kubernetes.io/managed-by: {manager}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.0.0.1]}}]\nports: [{{port: 80}}]\n---\n"
        )
    };
    let text = [
        deployment("a", 1),
        service("annotated", ", annotations: {dualgate.dev/endpoints: '10.0.0.1:80'}"),
        service("written", ""),
        slice("written", "somebody"),
        service("own", ""),
        slice("own", "dualgate-lab"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: bare, namespace: apps}\nspec: {ports: [{port: 80}]}\n---\n".into(),
        "apiVersion: v1\nkind: Service\nmetadata: {name: outside, namespace: apps}\nspec: {type: ExternalName, externalName: example.org, selector: {app: a}}\n".into(),
    ];
    let cluster = Cluster::new(site(Families::V4), &[&text.concat()]);
    let slices = cluster.slices();
    assert_eq!(slices.iter().map(|(_, slice)| slice.service.as_deref()).collect::<Vec<_>>(), [Some("own")]);
    // Port 80 of the Services that select it, besides its container's own.
    assert_eq!(cluster.pods()[0].listens(&cluster.objects), BTreeSet::from([80, 8080]));
}

#[test]
fn what_cannot_be_read_is_said_with_its_place_and_costs_only_itself() {
    let good = deployment("good", 1);
    let cases = [
        (
            "replicas: 1",
            "replicas: many",
            "0.yaml:5:3: Deployment.apps apps/good spec.replicas: error[object-invalid]: \"many\" is no number of pods; 1 is taken",
            1,
        ),
        (
            "containerPort: 8080",
            "containerPort: 0",
            "0.yaml:11:67: Deployment.apps apps/good spec.template.spec.containers[0].ports[0].containerPort: error[object-invalid]: 0 is no port from 1 to 65535; it is left out",
            1,
        ),
        (
            "containerPort: 8080",
            "containerPort: 80, protocol: ICMP",
            "0.yaml:11:86: Deployment.apps apps/good spec.template.spec.containers[0].ports[0].protocol: error[object-invalid]: `ICMP` is no protocol of a port; it is left out",
            1,
        ),
        (
            "{matchLabels: {app: good}}",
            "{}",
            "0.yaml:6:3: Deployment.apps apps/good spec.selector: error[object-invalid]: `selector` is required",
            0,
        ),
        (
            "matchLabels: {app: good}",
            "matchLabels: {app: bad}",
            "0.yaml:6:14: Deployment.apps apps/good spec.selector.matchLabels: error[object-invalid]: it selects `app: bad`, which is no label of its pods",
            0,
        ),
        (
            "apps/v1",
            "apps/v1beta1",
            "0.yaml:1:1: Deployment.apps apps/good apiVersion: error[object-invalid]: Kubernetes has no Deployment in this version",
            0,
        ),
        (
            "    spec:\n",
            "    spec:\n      hostNetwork: true\n",
            "0.yaml:10:7: Deployment.apps apps/good spec.template.spec.hostNetwork: warning[object-invalid]: its pods use the node's own network; the lab does not run them",
            0,
        ),
        (
            "containers: [",
            "containers: []\n      others: [",
            "0.yaml:11:7: Deployment.apps apps/good spec.template.spec.containers: error[object-invalid]: `containers` is required",
            0,
        ),
    ];
    for (written, instead, expected, pods) in cases {
        let broken = good.replacen(written, instead, 1);
        assert_ne!(broken, good, "{written}");
        let (read, findings) = workloads(&objects(&[&broken, &deployment("other", 1)]));
        assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        assert_eq!(read.len(), pods + 1, "{instead}");
    }
}

#[test]
fn a_workload_without_namespace_or_in_a_list_is_read_too() {
    let text = deployment("a", 1).replace(", namespace: apps", "").replace("---\n", "");
    let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n-{}", &indented[1..]);
    for text in [text.clone(), list] {
        let (read, findings) = workloads(&objects(&[&text]));
        assert_eq!((read.len(), findings), (1, vec![]), "{text}");
        assert_eq!(read[0].key.to_string(), "Deployment default/a");
    }
}

#[test]
fn a_workload_whose_file_broke_keeps_what_it_was() {
    let whole = objects(&[&deployment("a", 2)]);
    let file = parse::file::file("0.yaml", &deployment("a", 2));
    let set = parse::file::assemble([&file].into_iter());
    assert_eq!(workloads(&with_templates(&set, |_| Some("{".into()), &whole)), workloads(&whole));
    assert_eq!(workloads(&with_templates(&set, |_| None, &whole)), workloads(&whole));
}

#[test]
fn the_nodes_networks_are_those_of_the_topology() {
    for families in ALL {
        let cluster = Cluster::new(site(families), &[&deployment("a", 9)]);
        for pod in cluster.pods() {
            let networks = pod_cidrs(&cluster.site, cluster.site.node(&pod.node).unwrap());
            assert_eq!(networks.len(), pod.addresses.iter().count());
            for address in pod.addresses.iter() {
                assert!(networks.iter().any(|net| net.contains(address)), "{address} on {}", pod.node);
            }
        }
    }
}

fn addresses(pods: &[Pod]) -> BTreeSet<IpAddr> {
    pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect()
}

/// What can happen to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Scale(usize, u32),
    KillPod(usize),
    Node(usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3usize, 0..9u32).prop_map(|(which, replicas)| Event::Scale(which, replicas)),
        (0..30usize).prop_map(Event::KillPod),
        (0..3usize, any::<bool>()).prop_map(|(node, dies)| Event::Node(node, dies)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_two_pods_share_a_name_or_an_address_and_nothing_else_moves(
        families in prop::sample::select(ALL.to_vec()),
        events in prop::collection::vec(event(), 1..25),
    ) {
        let text = [deployment("a", 3), workload("StatefulSet", "b", "replicas: 3", ""), deployment("c", 3)].concat();
        let mut cluster = Cluster::new(site(families), &[&text]);
        let keys = [key("Deployment", "a"), key("StatefulSet", "b"), key("Deployment", "c")];
        for event in events {
            let before = cluster.placement.pods.clone();
            match &event {
                Event::Scale(which, replicas) => drop(cluster.scale.insert(keys[*which].clone(), *replicas)),
                Event::KillPod(which) => cluster.dead_pods.extend(before.get(*which).map(|pod| pod.name.clone())),
                Event::Node(node, true) => drop(cluster.dead_nodes.insert(NodeName::new(format!("k3s-node{}", node + 1)))),
                Event::Node(node, false) => drop(cluster.dead_nodes.remove(&NodeName::new(format!("k3s-node{}", node + 1)))),
            }
            cluster.settle();
            cluster.dead_pods.clear();
            let pods = cluster.pods();
            let per_pod = if families == Families::Both { 2 } else { 1 };
            prop_assert_eq!(addresses(pods).len(), pods.len() * per_pod);
            prop_assert_eq!(pods.iter().map(|pod| &pod.name).collect::<BTreeSet<_>>().len(), pods.len());
            for other in &keys {
                let of = |pods: &[Pod]| pods.iter().filter(|pod| pod.workload == *other).cloned().collect::<Vec<_>>();
                let is_touched = match &event {
                    Event::Scale(which, _) => keys[*which] == *other,
                    Event::KillPod(which) => before.get(*which).is_some_and(|pod| pod.workload == *other),
                    // A node that comes back takes what waited for a place.
                    Event::Node(_, _) => true,
                };
                let had = of(&before);
                if !is_touched && cluster.dead_nodes.is_empty() {
                    prop_assert_eq!(of(pods), had);
                }
                let is_up = cluster.dead_nodes.len() < 3;
                let wanted = cluster.scale.get(other).copied().unwrap_or(3) as usize;
                prop_assert!(!is_up || of(pods).len() == wanted, "{} of {}", of(pods).len(), wanted);
            }
        }
    }
}
