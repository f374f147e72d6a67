//! `dualgate install` and `dualgate uninstall`, against an API server in memory.

use std::net::TcpListener;

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
fn a_cluster_that_cannot_be_asked_is_told() {
    let folder = Folder::with(&[("site.yaml", SITE)]);
    let outcome = folder.dualgate(&["install", "--dry-run", "--kubeconfig", "missing"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.contains("read the kubeconfig `missing`"), "{}", outcome.err);
}
