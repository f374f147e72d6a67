//! `dualgate install` and `dualgate uninstall`, against an API server in memory.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use dualgate_apiserver::{ApiServer, Options};
use dualgate_core::parse::yaml;
use serde_json::{Value, json};

use crate::support::{Folder, Outcome, dualgate, root};

const SITE: &str = "apiVersion: dualgate.dev/v1alpha1
kind: Site
gates: {internal: {}}
nodes: [{name: home, roles: [server, internal-gate], addresses: [192.168.178.5]}]
";

/// A site beside the kubeconfig of a cluster.
struct Cluster {
    server: ApiServer,
    folder: Folder,
}

impl Cluster {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = ApiServer::start(vec![listener], Options::default()).unwrap();
        let folder = Folder::with(&[("site.yaml", SITE), ("kubeconfig", &server.kubeconfig())]);
        Self { server, folder }
    }

    fn dualgate(&self, args: &[&str]) -> Outcome {
        self.folder.dualgate(&[args, &["--kubeconfig", "kubeconfig"]].concat())
    }

    fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.server.objects().get(kind, "dualgate-system", name)
    }

    /// Applies a part of an object over HTTP.
    fn apply(&self, manager: &str, path: &str, object: &Value) {
        let body = object.to_string();
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        write!(
            stream,
            "PATCH {path}?fieldManager={manager} HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-type: \
             application/apply-patch+yaml\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// An Ingress, a Service and a Node with what dualgate wrote into them, and others with what others did.
    fn write_back(&self) {
        let objects = self.server.objects();
        let metadata = |name: &str| json!({"name": name, "namespace": "apps"});
        objects.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apps"}})).unwrap();
        for (name, manager) in [("shop", "dualgate"), ("wiki", "traefik")] {
            let kind = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata(name)});
            let mut ingress = kind.clone();
            ingress["spec"] = json!({"defaultBackend": {"service": {"name": name, "port": {"number": 80}}}});
            objects.create(ingress).unwrap();
            let mut status = kind;
            status["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.168.178.10"}, {"ip": "fda8::10"}]}});
            self.apply(
                manager,
                &format!("/apis/networking.k8s.io/v1/namespaces/apps/ingresses/{name}/status"),
                &status,
            );
            let kind = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name)});
            let mut service = kind.clone();
            service["spec"] = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
            objects.create(service).unwrap();
            let mut status = kind;
            status["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.168.178.11", "ipMode": "VIP"}]}});
            self.apply(manager, &format!("/api/v1/namespaces/apps/services/{name}/status"), &status);
        }
        for (name, manager) in [("ionos", "dualgate"), ("strato", "admin")] {
            objects.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})).unwrap();
            let labels = json!({"node-role.kubernetes.io/edge": ""});
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
            self.apply(manager, &format!("/api/v1/nodes/{name}"), &node);
        }
    }

    /// Which of those still say something.
    fn say_something(&self) -> Vec<String> {
        let objects = self.server.objects();
        let of = |kind: &str, namespace: &str, pointer: &str| {
            let is = |object: &Value| object.pointer(pointer).is_some_and(|value| *value != json!({}));
            let name = |object: &Value| format!("{kind} {}", object["metadata"]["name"].as_str().unwrap());
            let all = objects.list(kind, Some(namespace).filter(|namespace| !namespace.is_empty()));
            all.iter().filter(|object| is(object)).map(name).collect::<Vec<_>>()
        };
        [
            of("Ingress", "apps", "/status/loadBalancer/ingress"),
            of("Service", "apps", "/status/loadBalancer/ingress"),
            of("Node", "", "/metadata/labels/node-role.kubernetes.io~1edge"),
        ]
        .concat()
    }
}

#[test]
fn manifests_are_printed_without_a_cluster_and_are_what_would_be_applied() {
    let printed = dualgate(&["install", "--site", "examples/home/site.yaml", "--print", "--edge-daemonset", "ionos"]);
    assert_eq!(printed.code, 0);
    assert!(printed.err.starts_with("note: the pod on the edge makes the tunnel"), "{}", printed.err);
    let read = yaml::documents(&printed.out);
    assert_eq!(read.error, None);
    let objects: Vec<Value> = read.documents.iter().map(yaml::Node::to_json).collect();
    let named: Vec<String> = objects
        .iter()
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
        })
        .collect();
    for expected in ["Namespace dualgate-system", "DaemonSet dualgate-home", "DaemonSet dualgate-edge"] {
        assert!(named.iter().any(|name| name == expected), "{expected} in {named:?}");
    }
    let site = objects.iter().find(|object| object["metadata"]["name"] == "dualgate-site").unwrap();
    let file = std::fs::read_to_string(root().join("examples/home/site.yaml")).unwrap();
    assert_eq!(site["data"]["site.yaml"], file.as_str(), "the site file, octet for octet");
    assert_eq!(
        printed.out,
        dualgate(&["install", "--site", "examples/home/site.yaml", "--print", "--edge-daemonset", "ionos"]).out
    );
}

#[test]
fn a_site_without_a_node_in_a_cluster_is_refused_with_what_to_do() {
    let outcome = dualgate(&["install", "--site", "examples/laptop/site.yaml", "--print"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.contains("give those that run K3s the role `server` or `agent`"), "{}", outcome.err);
}

#[test]
fn it_shows_what_would_change_and_does_it_only_when_told_to() {
    let cluster = Cluster::start();
    let shown = cluster.dualgate(&["install", "--dry-run"]);
    assert_eq!((shown.code, &*shown.err), (1, ""));
    assert!(
        shown.out.contains("\n+ DaemonSet dualgate-system/dualgate-home\n    + apiVersion: apps/v1\n"),
        "{}",
        shown.out
    );
    assert!(shown.out.ends_with("11 to create, 0 to change, 0 to remove, 0 as wanted\n"), "{}", shown.out);
    let unasked = cluster.dualgate(&["install"]);
    assert_eq!(unasked.code, 2);
    assert!(unasked.err.contains("--yes does it unasked"), "{}", unasked.err);
    assert_eq!(cluster.get("DaemonSet", "dualgate-home"), None);

    let done = cluster.dualgate(&["install", "--yes"]);
    assert_eq!((done.code, &*done.err), (0, ""));
    assert!(done.out.contains("created Namespace dualgate-system\ncreated ServiceAccount"), "{}", done.out);
    let set = cluster.get("DaemonSet", "dualgate-home").unwrap();
    let image = concat!("localhost/dualgate:", env!("CARGO_PKG_VERSION"));
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], image);

    let again = cluster.dualgate(&["install"]);
    assert_eq!((again.code, &*again.out, &*again.err), (0, "11 objects as wanted\n", ""));
}

#[test]
fn a_change_is_shown_by_its_lines_and_as_json() {
    let cluster = Cluster::start();
    assert_eq!(cluster.dualgate(&["install", "--yes"]).code, 0);
    let shown = cluster.dualgate(&["install", "--image", "other:1", "--dry-run"]);
    let lines: Vec<&str> = shown.out.lines().filter(|line| line.contains("image: ")).collect();
    let image = concat!("    -           image: localhost/dualgate:", env!("CARGO_PKG_VERSION"));
    assert_eq!((shown.code, &lines[..]), (1, &[image, "    +           image: other:1"][..]), "{}", shown.out);
    let shown = cluster.dualgate(&["install", "--image", "other:1", "--dry-run", "--output", "json"]).json();
    assert_eq!(shown["changes"].as_array().unwrap().len(), 1);
    assert_eq!((&shown["changes"][0]["action"], &shown["unchanged"]), (&json!("update"), &json!(10)));
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "resource": "daemonsets", "namespace": "dualgate-system",
        "name": "dualgate-home",
    });
    assert_eq!(shown["changes"][0]["object"], expected);
    let done = cluster.dualgate(&["install", "--image", "other:1", "--yes", "--output", "json"]);
    assert_eq!(
        (done.code, done.json()["done"].clone()),
        (0, json!(["changed DaemonSet dualgate-system/dualgate-home"]))
    );
}

#[test]
fn fields_of_others_are_told_and_nothing_is_applied() {
    let cluster = Cluster::start();
    assert_eq!(cluster.dualgate(&["install", "--yes"]).code, 0);
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"site.yaml": "theirs"},
        "metadata": {"name": "dualgate-site", "namespace": "dualgate-system"},
    });
    cluster.server.objects().as_manager("editor").apply(theirs).unwrap();
    let refused = cluster.dualgate(&["install", "--yes"]);
    assert_eq!(refused.code, 2);
    let told = "! ConfigMap dualgate-system/dualgate-site: .data.site.yaml belongs to `editor`\n";
    assert!(refused.out.contains(told) && refused.err.contains("--force-conflicts"), "{}{}", refused.out, refused.err);
    assert_eq!(cluster.get("ConfigMap", "dualgate-site").unwrap()["data"]["site.yaml"], "theirs");
    assert_eq!(cluster.dualgate(&["install", "--dry-run"]).code, 1);
    assert_eq!(cluster.dualgate(&["install", "--yes", "--force-conflicts"]).code, 0);
    assert_eq!(cluster.get("ConfigMap", "dualgate-site").unwrap()["data"]["site.yaml"], SITE);
}

#[test]
fn waiting_in_vain_says_what_is_missing() {
    let cluster = Cluster::start();
    let waited = cluster.dualgate(&["install", "--yes", "--wait", "--timeout", "1s"]);
    assert_eq!(waited.code, 1);
    assert!(waited.out.ends_with("not yet: dualgate-home: the cluster has not looked at it yet\n"), "{}", waited.out);
}

#[test]
fn what_was_installed_is_removed_but_for_the_namespace() {
    let cluster = Cluster::start();
    let nothing = cluster.dualgate(&["uninstall"]);
    assert_eq!((nothing.code, &*nothing.err), (0, ""));
    assert!(nothing.out.starts_with("there is nothing of dualgate"), "{}", nothing.out);
    assert_eq!(cluster.dualgate(&["install", "--yes"]).code, 0);
    let shown = cluster.dualgate(&["uninstall", "--dry-run"]);
    assert_eq!((shown.code, shown.out.lines().filter(|line| line.starts_with("- ")).count()), (1, 10), "{}", shown.out);
    let done = cluster.dualgate(&["uninstall", "--yes"]);
    assert_eq!((done.code, &*done.err), (0, ""), "{}", done.out);
    assert_eq!(cluster.get("DaemonSet", "dualgate-home"), None);
    assert!(cluster.server.objects().get("Namespace", "", "dualgate-system").is_some());
    assert_eq!(cluster.dualgate(&["uninstall", "--yes", "--prune-protected"]).code, 0);
    assert!(cluster.server.objects().get("Namespace", "", "dualgate-system").is_none());
}

#[test]
fn what_was_written_into_objects_of_others_is_taken_back() {
    let cluster = Cluster::start();
    assert_eq!(cluster.dualgate(&["install", "--yes"]).code, 0);
    cluster.write_back();
    let all = ["Ingress shop", "Ingress wiki", "Service shop", "Service wiki", "Node ionos", "Node strato"];
    assert_eq!(cluster.say_something(), all);
    let shown = cluster.dualgate(&["uninstall", "--dry-run"]);
    let lines: Vec<&str> = shown.out.lines().filter(|line| line.starts_with("~ ")).collect();
    let expected = [
        "~ Ingress apps/shop: what dualgate wrote into its status is taken back",
        "~ Node ionos: what dualgate wrote into its labels is taken back",
        "~ Service apps/shop: what dualgate wrote into its status is taken back",
    ];
    assert_eq!((shown.code, &lines[..]), (1, &expected[..]), "{}", shown.out);
    assert!(shown.out.ends_with("0 to create, 3 to change, 10 to remove, 0 as wanted\n"), "{}", shown.out);
    assert_eq!(cluster.say_something(), all, "nothing but shown");

    let done = cluster.dualgate(&["uninstall", "--yes", "--prune-protected"]);
    assert_eq!((done.code, &*done.err), (0, ""), "{}", done.out);
    assert!(
        done.out.ends_with("taking back what was written into 3 objects\nremoved Namespace dualgate-system\n"),
        "{}",
        done.out
    );
    assert_eq!(cluster.say_something(), ["Ingress wiki", "Service wiki", "Node strato"]);
    assert!(cluster.server.objects().get("Namespace", "", "dualgate-system").is_none());
    let again = cluster.dualgate(&["uninstall", "--yes"]);
    assert!(again.code == 0 && again.out.starts_with("there is nothing of dualgate"), "{}{}", again.out, again.err);
}

#[test]
fn an_uninstall_that_was_killed_is_ended_by_the_next_one() {
    let cluster = Cluster::start();
    cluster.write_back();
    // The set is gone already; only the namespace is there, and the Lease of a node that died.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dualgate-system"}});
    cluster.server.objects().create(namespace).unwrap();
    let shown = cluster.dualgate(&["uninstall", "--dry-run", "--output", "json"]);
    let taken: Vec<Value> = shown.json()["takenBack"].as_array().unwrap().clone();
    assert_eq!((shown.code, &taken[0]), (1, &json!({"object": "Ingress apps/shop", "of": "status"})));
    let done = cluster.dualgate(&["uninstall", "--yes", "--output", "json"]);
    assert_eq!((done.code, &done.json()["left"]), (0, &json!([])), "{}", done.out);
    assert_eq!(cluster.say_something(), ["Ingress wiki", "Service wiki", "Node strato"]);
    assert_eq!(cluster.get("Lease", "dualgate"), None);
}

#[test]
fn without_the_namespace_nobody_can_write_and_it_says_what_to_do() {
    let cluster = Cluster::start();
    cluster.write_back();
    let done = cluster.dualgate(&["uninstall", "--yes"]);
    assert_eq!((done.code, &*done.err), (1, ""), "{}", done.out);
    let told = "not yet: Ingress apps/shop: the Lease of who writes needs the namespace `dualgate-system`";
    assert!(done.out.contains(told), "{}", done.out);
    assert_eq!(cluster.say_something().len(), 6);
}

#[test]
fn a_cluster_that_cannot_be_asked_is_told() {
    let folder = Folder::with(&[("site.yaml", SITE)]);
    let outcome = folder.dualgate(&["install", "--dry-run", "--kubeconfig", "missing"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.contains("read the kubeconfig `missing`"), "{}", outcome.err);
}
