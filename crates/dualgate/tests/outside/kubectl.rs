//! `kubectl` against the API in memory: what it makes of it is what a user makes of it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use dualgate_apiserver::{ApiServer, Options, Request, Verb};
use serde_json::{Value, json};

use super::LIMIT;
use super::support::Directory;
use super::support::tools::{Said, Tool, has, run};

const KUBECTL: &[Tool] = &[Tool::Program("kubectl")];

/// An API server, and a `kubectl` that knows it and nothing else.
struct Cluster {
    server: ApiServer,
    directory: Directory,
}

impl Cluster {
    fn start() -> Self {
        let server = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], Options::default()).unwrap();
        let directory = Directory::new();
        directory.write("kubeconfig", &server.kubeconfig());
        Self { server, directory }
    }

    fn arguments(&self, of: &[&str]) -> Vec<String> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let own = ["--kubeconfig", &path("kubeconfig"), "--cache-dir", &path("cache")].map(str::to_owned);
        own.into_iter().chain(of.iter().map(|argument| (*argument).to_owned())).collect()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let arguments = self.arguments(arguments);
        run(LIMIT, "kubectl", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What it prints when it succeeds.
    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "kubectl {arguments:?}: {said:?}");
        said.out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let out = self.kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Ends when it is dropped.
struct Watching(Child, BufReader<ChildStdout>);

impl Watching {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = Command::new("kubectl");
        command.args(cluster.arguments(arguments)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    /// The first word of the next line. The test's own end is the deadline: what kills it ends the child's output, too.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home/manifests");
    folder.display().to_string()
}

#[test]
fn kubectl_applies_the_example_and_takes_it_away() {
    if !has("kubectl_applies_the_example_and_takes_it_away", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    let created = cluster.kubectl(&["apply", "-f", &example()]);
    assert!(created.lines().all(|line| line.ends_with(" created")), "{created}");
    assert!(created.contains("ingress.networking.k8s.io/whoami created"), "{created}");
    let version = cluster.server.objects().version();
    let again = cluster.kubectl(&["apply", "-f", &example()]);
    assert!(again.contains("ingress.networking.k8s.io/whoami unchanged"), "{again}");
    assert_eq!(cluster.server.objects().version(), version, "the same again writes nothing: {again}");

    let service = cluster.json(&["-n", "apps", "get", "svc", "whoami"]);
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(service["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    let described = cluster.kubectl(&["-n", "apps", "describe", "ingress", "whoami"]);
    assert!(described.contains("whoami.yourdomain.com"), "{described}");
    let all = cluster.kubectl(&["get", "all,ingresses", "--all-namespaces"]);
    assert!(
        all.contains("deployment.apps/grafana") && all.contains("ingress.networking.k8s.io/paperless-ngx"),
        "{all}"
    );

    // The namespace takes the others along.
    cluster.kubectl(&["delete", "--ignore-not-found", "-f", &example()]);
    for kind in ["Deployment", "Service", "Ingress", "IngressClass", "Secret"] {
        assert_eq!(cluster.server.objects().list(kind, None), Vec::<Value>::new());
    }
    assert_eq!(cluster.server.objects().get("Namespace", "", "apps"), None);
}

#[test]
fn kubectl_changes_objects_in_every_language_of_patches() {
    if !has("kubectl_changes_objects_in_every_language_of_patches", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl(&["apply", "-f", &example()]);
    cluster.kubectl(&["-n", "apps", "label", "service", "whoami", "tier=front"]);
    cluster.kubectl(&["-n", "apps", "annotate", "ingress", "whoami", "dualgate.dev/gates-"]);
    let strategic = r#"{"spec": {"ports": [{"port": 80, "appProtocol": "http"}, {"port": 81, "name": "more"}]}}"#;
    cluster.kubectl(&["-n", "apps", "patch", "service", "whoami", "-p", strategic]);
    let merge = r#"{"spec": {"sessionAffinity": "ClientIP"}}"#;
    cluster.kubectl(&["-n", "apps", "patch", "service", "whoami", "--type=merge", "-p", merge]);
    let steps = r#"[{"op": "replace", "path": "/spec/rules/0/host", "value": "who.example.org"}]"#;
    cluster.kubectl(&["-n", "apps", "patch", "ingress", "whoami", "--type=json", "-p", steps]);

    let service = cluster.server.objects().get("Service", "apps", "whoami").unwrap();
    assert_eq!(service["metadata"]["labels"], json!({"tier": "front"}));
    assert_eq!(service["spec"]["sessionAffinity"], "ClientIP");
    let ports = service["spec"]["ports"].as_array().unwrap();
    let shown: Vec<_> = ports.iter().map(|port| (&port["port"], &port["name"], &port["appProtocol"])).collect();
    assert_eq!(shown, [(&json!(80), &json!("http"), &json!("http")), (&json!(81), &json!("more"), &Value::Null)]);
    let ingress = cluster.server.objects().get("Ingress", "apps", "whoami").unwrap();
    assert_eq!(ingress["spec"]["rules"][0]["host"], "who.example.org");
    assert_eq!(ingress["metadata"]["annotations"].get("dualgate.dev/gates"), None);
    let selected = cluster.kubectl(&["get", "services", "--all-namespaces", "-l", "tier=front", "-o", "name"]);
    assert_eq!(selected, "service/whoami\n");
    let selected =
        cluster.kubectl(&["-n", "apps", "get", "ingress", "--field-selector", "metadata.name=grafana", "-o", "name"]);
    assert_eq!(selected, "ingress.networking.k8s.io/grafana\n");
}

#[test]
fn kubectl_applies_on_the_server_and_is_told_of_conflicts() {
    if !has("kubectl_applies_on_the_server_and_is_told_of_conflicts", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    let apply = |more: &[&str]| cluster.run(&[&["apply", "--server-side", "-f", &example()], more].concat());
    assert_eq!(apply(&[]).code, Some(0), "{:?}", apply(&[]));
    let version = cluster.server.objects().version();
    assert_eq!(apply(&[]).code, Some(0));
    assert_eq!(cluster.server.objects().version(), version, "the same again writes nothing");

    let other = cluster.server.objects().as_manager("helm");
    let change = json!({"spec": {"replicas": 1}, "metadata": {"labels": {"by": "helm"}}});
    other.patch("Deployment", "apps", "whoami", change).unwrap();
    let refused = apply(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("conflict with \"helm\" using apps/v1"), "{refused:?}");
    assert!(refused.err.contains(".spec.replicas"), "{refused:?}");
    let forced = apply(&["--force-conflicts"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let deployment = cluster.server.objects().get("Deployment", "apps", "whoami").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["metadata"]["labels"], json!({"by": "helm"}), "what nobody contests stays");
}

#[test]
fn kubectl_goes_from_applying_itself_to_applying_on_the_server() {
    if !has("kubectl_goes_from_applying_itself_to_applying_on_the_server", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "apps"]);
    let before = Path::new(&example()).join("whoami.yaml").display().to_string();
    cluster.kubectl(&["apply", "-f", &before]);
    cluster.kubectl(&["apply", "--server-side", "-f", &before]);
    cluster.directory.write("changed.yaml", &changed());
    cluster.kubectl(&["apply", "--server-side", "-f", &cluster.directory.join("changed.yaml").display().to_string()]);
    let ingress = cluster.server.objects().get("Ingress", "apps", "whoami").unwrap();
    assert_eq!(ingress["spec"]["rules"][0]["host"], "changed.example.org");
}

/// The example's `whoami` under another name in DNS.
fn changed() -> String {
    let path = Path::new(&example()).join("whoami.yaml");
    std::fs::read_to_string(path).unwrap().replace("whoami.yourdomain.com", "changed.example.org")
}

#[test]
fn kubectl_watches_what_others_change() {
    if !has("kubectl_watches_what_others_change", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "apps"]);
    let objects = cluster.server.objects();
    let config_map = |name: &str, value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "apps"}, "data": {"of": value}});
    objects.apply(config_map("first", "1")).unwrap();
    let mut watching = Watching::start(&cluster, &["-n", "apps", "get", "configmaps", "-w", "-o", "name"]);
    assert_eq!(watching.next(), "configmap/first");
    objects.apply(config_map("second", "1")).unwrap();
    assert_eq!(watching.next(), "configmap/second");
    objects.apply(config_map("first", "2")).unwrap();
    assert_eq!(watching.next(), "configmap/first");
    let is_watch = |request: &Request| request.verb == Verb::Watch && request.code == 200;
    assert_eq!(cluster.server.count(is_watch), 1);
}

#[test]
fn kubectl_shows_the_words_of_a_refusal() {
    if !has("kubectl_shows_the_words_of_a_refusal", KUBECTL) {
        return;
    }
    let cluster = Cluster::start();
    let without_type = changed().replace("pathType: Prefix", "# no type");
    cluster.directory.write("wrong.yaml", &without_type);
    let path = cluster.directory.join("wrong.yaml").display().to_string();
    let missing = cluster.run(&["apply", "-f", &path]);
    assert!(missing.err.contains("namespaces \"apps\" not found"), "{missing:?}");
    cluster.kubectl(&["create", "namespace", "apps"]);
    let refused = cluster.run(&["apply", "-f", &path]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("spec.rules[0].http.paths[0].pathType: Required value"), "{refused:?}");
    assert!(cluster.run(&["get", "ingress", "none"]).err.contains("(NotFound)"));
}
