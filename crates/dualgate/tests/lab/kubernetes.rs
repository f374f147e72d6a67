//! A site whose objects lie in a Kubernetes API: what is applied there is served, and what becomes of the API is nobody's
//! business who only wants an answer.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dualgate_apiserver::Request;
use dualgate_core::model::object::FIELD_MANAGER;
use dualgate_core::plan::cluster::EDGE_LABELS;
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::kubernetes::{Ask, KUBECONFIG, Kubernetes};
use dualgate_lab::lab::{Lab, Origin};
use dualgate_lab::probe::{self, Connections, Load, Running};
use dualgate_lab::trial::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::site::{example, get, has, ip, logs, pass, start_with, status, until};

pub const TRIALS: &[Trial] = &[
    ("what_is_applied_to_a_kubernetes_api_is_served_at_home_and_from_the_internet", applied),
    ("an_api_that_is_away_costs_no_request_and_is_followed_when_it_is_back", away),
    ("statuses_name_the_addresses_that_answer", statuses),
    ("who_writes_statuses_is_killed_and_another_one_goes_on_without_a_write_too_many", followed),
    ("the_tunnel_is_there_while_the_cluster_has_never_answered", never_answered),
    ("kubectl_applies_into_a_running_lab", kubectl),
];

/// The ways that clients take: over both families, from both sides.
pub const WAYS: [(&str, &str); 4] = [
    ("lan-client", "192.168.178.10"),
    ("lan-client", "fda8:a1db:5685::10"),
    ("internet-client", "203.0.113.10"),
    ("internet-client", "2001:db8:1::10"),
];
const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];
const GRAFANA: &str = "grafana.yourdomain.com";
const WHOAMI: &str = "whoami.yourdomain.com";
const LIMIT: Duration = Duration::from_secs(20);

/// The seed's site with a Kubernetes API.
pub fn seed(directory: &Path) -> Lab {
    start_with(directory, &example(), Patience::default(), Origin::Kubernetes)
}

pub fn api(lab: &Lab) -> &Arc<Kubernetes> {
    lab.kubernetes().expect("a Kubernetes API")
}

#[track_caller]
pub fn ask(lab: &Lab, ask: Ask) -> Value {
    api(lab).ask(&ask).unwrap_or_else(|error| panic!("{error}\n{}", logs(lab)))
}

/// What a gate answers, if it answers.
pub fn code(lab: &Lab, (from, gate): (&str, &str), host: &str) -> Option<u16> {
    let request = probe::Request::new(SocketAddr::new(ip(gate), 80), host);
    let host = lab.host(from)?;
    probe::get(&host, &request, Duration::from_secs(2)).ok().map(|answer| answer.status)
}

/// Waits until all ways are answered so.
#[track_caller]
pub fn all_answer(lab: &Lab, host: &str, expected: u16) {
    for way in WAYS {
        until(&format!("{host} at {} answers {expected}", way.1), lab, LIMIT, || {
            code(lab, way, host) == Some(expected)
        });
    }
}

fn scale(lab: &Lab, replicas: u32) {
    let path = "/apis/apps/v1/namespaces/apps/deployments/whoami";
    ask(lab, Ask::merge(path, json!({"spec": {"replicas": replicas}})));
}

const SECOND: &str = "second.yourdomain.com";

/// Another Ingress for the pods of whoami, public over Traefik's annotation.
fn second() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "second",
            "namespace": "apps",
            "annotations": {"traefik.ingress.kubernetes.io/router.entrypoints": "web,websecure"},
        },
        "spec": {"rules": [{"host": SECOND, "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "whoami", "port": {"name": "http"}}}},
        ]}}]},
    })
}

const PAPERLESS: &str = "/apis/networking.k8s.io/v1/namespaces/paperless/ingresses/paperless-ngx";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses";

fn applied(directory: &Path) {
    let lab = seed(directory);
    for (from, gate) in WAYS {
        let answer = get(&lab, from, gate, GRAFANA);
        assert_eq!(answer.status, 200, "{from} -> {gate}: {}", answer.text());
        assert!(answer.echo().is_some_and(|echo| echo.pod.starts_with("grafana-")), "{}", answer.text());
    }
    // Another Ingress, there and gone.
    assert_eq!(WAYS.map(|way| code(&lab, way, SECOND)), [Some(404); 4]);
    ask(&lab, Ask::apply(&format!("{INGRESSES}/second"), "test", second()));
    all_answer(&lab, SECOND, 200);
    ask(&lab, Ask::delete(format!("{INGRESSES}/second")));
    all_answer(&lab, SECOND, 404);
    // No pods, and pods again; the Deployment says so.
    scale(&lab, 0);
    all_answer(&lab, WHOAMI, 503);
    scale(&lab, 2);
    all_answer(&lab, WHOAMI, 200);
    let deployment = || ask(&lab, Ask::get("/apis/apps/v1/namespaces/apps/deployments/whoami"));
    until("the Deployment says so", &lab, LIMIT, || {
        let deployment = deployment();
        let (generation, status) = (&deployment["metadata"]["generation"], &deployment["status"]);
        status["readyReplicas"] == 2 && status["replicas"] == 2 && status["observedGeneration"] == *generation
    });
    // A pod that is deleted answers until others have its place: nothing is lost.
    let running = traffic(&lab, WHOAMI);
    let names = || lab.cluster().pods().into_iter().filter(|pod| pod.workload == "apps/whoami" && pod.ready);
    let names = || names().map(|pod| pod.name).collect::<Vec<_>>();
    let deleted = names().swap_remove(0);
    let name = deleted.split_once('/').unwrap().1.to_owned();
    ask(&lab, Ask::delete(format!("/api/v1/namespaces/apps/pods/{name}")));
    until("another pod is ready", &lab, LIMIT, || names().len() == 2 && !names().contains(&deleted));
    pass(Duration::from_millis(1500));
    assert!(lab.cluster().pods().iter().all(|pod| pod.name != deleted), "it has ended");
    nothing_lost(&lab, running);
    nodes_are_told(&lab);
}

/// Every node has a Node with its pod networks, its addresses of both families, and is ready.
fn nodes_are_told(lab: &Lab) {
    let nodes = ask(lab, Ask::get("/api/v1/nodes"));
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 4, "{nodes:?}");
    for node in nodes {
        let own = lab.site().nodes.iter().find(|own| node["metadata"]["name"] == own.name.as_str()).unwrap();
        let addresses: Vec<&str> =
            node["status"]["addresses"].as_array().unwrap().iter().filter_map(|a| a["address"].as_str()).collect();
        assert_eq!(addresses, own.addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(node["spec"]["podCIDRs"].as_array().map(Vec::len), Some(2), "{node}");
        assert_eq!(node["status"]["conditions"][0]["status"], "True", "{node}");
    }
}

/// Requests on every way, each on a connection of its own, until they are stopped.
pub fn traffic(lab: &Lab, host: &str) -> Vec<(String, Running)> {
    let start = |(from, address): (&str, &str)| {
        let load = Load {
            request: probe::Request::new(SocketAddr::new(ip(address), 80), host),
            pace: Duration::from_millis(20),
            connections: Connections::Fresh,
            patience: Duration::from_secs(8),
            at_most: Duration::from_secs(60),
        };
        (format!("{from} -> {address}"), load.start(lab.host(from).expect("a client")))
    };
    WAYS.map(start).into()
}

#[track_caller]
pub fn nothing_lost(lab: &Lab, traffic: Vec<(String, Running)>) {
    for (way, running) in traffic {
        let loss = running.stop();
        println!("{way}: {loss}");
        assert!(loss.sent > 20, "{way}: only {} requests were sent", loss.sent);
        assert_eq!(loss.failed, 0, "{way}: {loss}\n{}", logs(lab));
    }
}

/// Whether a node says that what it serves is old.
fn is_stale(lab: &Lab, node: &str) -> bool {
    status(lab, node)["findings"].to_string().contains("\"stale\"")
}

fn away(directory: &Path) {
    let lab = seed(directory);
    all_answer(&lab, WHOAMI, 200);
    let holds = |node: &&str| lab.nodes().held(node).contains(&ip(WAYS[0].1));
    let other = *NODES.iter().find(|node| !holds(node)).unwrap();
    let kept = lab.state_directory(other).join("objects.json");
    until("what it serves is on its disk", &lab, LIMIT, || kept.exists());
    // The server is away, and a node is started again that holds nothing: it has what it had.
    let running = traffic(&lab, WHOAMI);
    api(&lab).faults().down();
    pass(Duration::from_millis(500));
    lab.nodes().signal(other, Signal::KILL);
    until("it serves what it had, and says so", &lab, LIMIT, || {
        lab.nodes().state(other).as_deref() == Some("ready") && is_stale(&lab, other)
    });
    nothing_lost(&lab, running);
    // It is back: what is applied is served, and nobody is behind.
    api(&lab).faults().up();
    ask(&lab, Ask::apply(&format!("{INGRESSES}/second"), "test", second()));
    all_answer(&lab, SECOND, 200);
    until("nobody is behind", &lab, LIMIT, || NODES.iter().all(|node| !is_stale(&lab, node)));
    // Its node fails: the API is away for everyone, home goes on, and the objects are there when it is back.
    println!("{}", lab.fail(NODES[0]).unwrap());
    assert!(api(&lab).is_away());
    for way in WAYS {
        until("the others answer", &lab, LIMIT, || code(&lab, way, SECOND) == Some(200));
    }
    lab.heal(NODES[0]).unwrap();
    lab.wait_until_ready(LIMIT).unwrap_or_else(|missing| panic!("{missing}\n{}", logs(&lab)));
    let second = ask(&lab, Ask::get(format!("{INGRESSES}/second")));
    assert_eq!(second["spec"]["rules"][0]["host"], SECOND);
}

const BALANCED: &str = "/api/v1/namespaces/apps/services/balanced";

/// A Service that wants addresses of both families.
fn balanced() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "balanced", "namespace": "apps"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "whoami"},
            "ports": [{"name": "http", "port": 8080, "targetPort": "http"}],
        },
    })
}

/// The addresses that an object's status names.
pub fn named(lab: &Lab, path: &str) -> Vec<String> {
    let status = ask(lab, Ask::get(path))["status"]["loadBalancer"]["ingress"].take();
    status.as_array().into_iter().flatten().filter_map(|entry| entry["ip"].as_str().map(str::to_owned)).collect()
}

#[track_caller]
pub fn until_named(lab: &Lab, path: &str, addresses: &[&str]) {
    until(&format!("{path} names {addresses:?}"), lab, LIMIT, || named(lab, path) == addresses);
}

/// The objects that nodes have written to, one for each write that was made.
fn written(lab: &Lab) -> Vec<String> {
    let is_ours = |request: &Request| request.field_manager == FIELD_MANAGER && request.has_written();
    // Who holds the Lease is written all the time.
    let is_said = |request: &Request| !matches!(&*request.resource, "leases.coordination.k8s.io" | "events");
    let requests = api(lab).requests().into_iter().filter(|request| is_ours(request) && is_said(request));
    requests.map(|request| request.path).collect()
}

fn lease(lab: &Lab) -> Value {
    ask(lab, Ask::get("/apis/coordination.k8s.io/v1/namespaces/dualgate-system/leases/dualgate"))["spec"].take()
}

fn statuses(directory: &Path) {
    let lab = seed(directory);
    // A public Ingress names both gates, one that stays at home the internal one; each address answers from its side.
    let gates = WAYS.map(|(_, gate)| gate);
    until_named(&lab, &format!("{INGRESSES}/grafana"), &gates);
    until_named(&lab, PAPERLESS, &gates[..2]);
    all_answer(&lab, GRAFANA, 200);
    // A Service is given one of each family, which its status names and the LAN can use.
    ask(&lab, Ask::apply(BALANCED, "test", balanced()));
    until("the Service has addresses", &lab, LIMIT, || named(&lab, BALANCED).len() == 2);
    let addresses = named(&lab, BALANCED);
    let families: Vec<bool> = addresses.iter().map(|address| ip(address).is_ipv4()).collect();
    assert_eq!(families, [true, false], "{addresses:?}");
    for address in &addresses {
        let request = probe::Request::new(SocketAddr::new(ip(address), 8080), WHOAMI);
        until(&format!("{address} answers"), &lab, LIMIT, || {
            let answer = probe::get(&lab.host("lan-client").unwrap(), &request, Duration::from_secs(2));
            answer.is_ok_and(|answer| answer.echo().is_some_and(|echo| echo.pod.starts_with("whoami-")))
        });
    }
    let condition = ask(&lab, Ask::get(BALANCED))["status"]["conditions"][0].take();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Assigned")), "{condition}");
    // The edge is one, and says so where a kubelet may not.
    until("the edge has its labels", &lab, LIMIT, || {
        let labels = ask(&lab, Ask::get("/api/v1/nodes/ionos"))["metadata"]["labels"].take();
        EDGE_LABELS.iter().all(|label| labels[label] == "true")
    });
    // An Ingress that goes to another class, and one that loses its Service, lose their addresses, and one is told why.
    let path = format!("{INGRESSES}/second");
    ask(&lab, Ask::apply(&path, "test", second()));
    until_named(&lab, &path, &gates);
    ask(&lab, Ask::merge(&*path, json!({"spec": {"ingressClassName": "somebody-elses"}})));
    until_named(&lab, &path, &[]);
    ask(&lab, Ask::merge(&*path, json!({"spec": {"ingressClassName": "dualgate"}})));
    until_named(&lab, &path, &gates);
    ask(&lab, Ask::delete("/api/v1/namespaces/apps/services/whoami"));
    until_named(&lab, &path, &[]);
    until("an Event says why", &lab, LIMIT, || {
        let events = ask(&lab, Ask::get("/api/v1/namespaces/apps/events"))["items"].take();
        let is =
            |event: &Value| event["involvedObject"]["name"] == "second" && event["reason"] == "IngressUnknownService";
        events.as_array().is_some_and(|events| events.iter().any(is))
    });
    let mut expected = vec![format!("{path}/status"); 4];
    expected.extend([format!("{INGRESSES}/grafana/status"), format!("{PAPERLESS}/status")]);
    let mut found = written(&lab);
    found.retain(|path| expected.contains(path));
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "one write for each change");
    // The nodes have the rights that `dualgate install` gives, and needed no others.
    let asked = api(&lab).requests();
    let by_nodes: Vec<&Request> = asked.iter().filter(|request| request.user.ends_with(":dualgate-home")).collect();
    assert!(by_nodes.len() > 20, "{by_nodes:#?}");
    let refused: Vec<_> = by_nodes.iter().filter(|request| [401, 403].contains(&request.code)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

fn followed(directory: &Path) {
    let lab = seed(directory);
    let path = format!("{INGRESSES}/second");
    ask(&lab, Ask::apply(&path, "test", second()));
    until_named(&lab, &path, &WAYS.map(|(_, gate)| gate));
    let first = lease(&lab);
    let holder = first["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let node = NODES.iter().find(|node| holder.starts_with(*node)).unwrap_or_else(|| panic!("{first}"));
    let before = written(&lab);
    // Its successor has another name on the same node, too: whoever follows waits for the end of the Lease.
    lab.nodes().signal(node, Signal::KILL);
    until("another one has the Lease", &lab, Duration::from_secs(60), || lease(&lab)["holderIdentity"] != *holder);
    let second = lease(&lab);
    assert_eq!(second["leaseTransitions"], json!(first["leaseTransitions"].as_u64().unwrap_or_default() + 1));
    // All that was said stands; what changes is said, once.
    ask(
        &lab,
        Ask::merge(
            &*path,
            json!({"metadata": {"annotations": {
                "traefik.ingress.kubernetes.io/router.entrypoints": null,
            }}}),
        ),
    );
    until_named(&lab, &path, &WAYS.map(|(_, gate)| gate)[..2]);
    let after = written(&lab);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()..], [format!("{path}/status")]);
    assert_eq!(lease(&lab)["holderIdentity"], second["holderIdentity"]);
}

/// A node that has nothing of the cluster, neither from it nor on its disk.
fn never_answered(directory: &Path) {
    use rustix::process::Signal;

    let lab = seed(directory);
    all_answer(&lab, WHOAMI, 200);
    let holds = |node: &&str| lab.nodes().held(node).contains(&ip(WAYS[0].1));
    let node = *NODES.iter().find(|node| !holds(node)).unwrap();
    let kept = lab.state_directory(node).join("objects.json");
    until("what it serves is on its disk", &lab, LIMIT, || kept.exists());
    api(&lab).faults().down();
    lab.nodes().signal(node, Signal::STOP);
    std::fs::remove_file(&kept).expect("what was kept");
    lab.nodes().signal(node, Signal::KILL);
    until("its tunnel is up all the same", &lab, LIMIT, || {
        let status = status(&lab, node);
        let peers = status["tunnel"]["peers"].as_array().map_or(0, Vec::len);
        status["objects_from"] == "nothing" && status["tunnel"]["backend"].is_string() && peers == 1
    });
    api(&lab).faults().up();
    until("it serves once the cluster answers", &lab, LIMIT, || {
        status(&lab, node)["objects_from"] == "source" && lab.nodes().state(node).as_deref() == Some("ready")
    });
}

const APP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: live}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: live}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: hello, image: hello, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: live}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: hello
  namespace: live
  annotations: {traefik.ingress.kubernetes.io/router.entrypoints: 'web,websecure'}
spec:
  rules:
  - host: hello.yourdomain.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: hello, port: {number: 80}}}}]}
";

/// Runs kubectl on a host, as `dualgate lab exec` does; what it says goes into a file beside another.
fn run(lab: &Lab, host: &str, file: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("kubectl");
    command.args(arguments).env("KUBECONFIG", KUBECONFIG).env("KUBECACHEDIR", "/run/dualgate/kube-cache");
    let output = file.with_extension("out");
    let _ = std::fs::remove_file(&output);
    let process = lab.nodes().processes().spawn(&lab.host(host).unwrap(), command, &output).expect("kubectl starts");
    let status = process.wait(Duration::from_secs(30)).unwrap_or_else(|| panic!("kubectl {arguments:?} does not end"));
    (status.code(), std::fs::read_to_string(&output).unwrap())
}

fn kubectl(directory: &Path) {
    if !has("kubectl_applies_into_a_running_lab", &["kubectl"]) {
        return;
    }
    let lab = seed(directory);
    // A host has a `/run` of its own.
    let file = lab.state_directory("k3s-node2").with_file_name("app.yaml");
    std::fs::write(&file, APP).unwrap();
    let kubectl = |host: &str, arguments: &[&str]| {
        let (code, said) = run(&lab, host, &file, arguments);
        assert_eq!(code, Some(0), "kubectl {arguments:?}: {said}");
        said
    };
    let path = "/run/dualgate/app.yaml";
    // From a node, and from somebody else at home over the other family.
    kubectl("k3s-node2", &["apply", "-f", path]);
    all_answer(&lab, "hello.yourdomain.com", 200);
    kubectl("lan-client", &["--context", "lab-other-family", "-n", "live", "rollout", "status", "deployment/hello"]);
    let names = kubectl("lan-client", &["get", "pods", "-n", "live", "-o", "name"]);
    assert_eq!(names.lines().count(), 2, "{names}");
    kubectl("k3s-node3", &["-n", "live", "patch", "deployment", "hello", "-p", "{\"spec\": {\"replicas\": 0}}"]);
    all_answer(&lab, "hello.yourdomain.com", 503);
    // What the lab loaded at its start, it loaded as kubectl does.
    let manifest = example().join("manifests/grafana.yaml").display().to_string();
    let said = kubectl("k3s-node1", &["apply", "-f", &manifest]);
    assert!(said.lines().all(|line| line.ends_with("unchanged")), "{said}");
    // What was written back, kubectl shows.
    let addresses = ["-n", "apps", "get", "ingress", "grafana", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"];
    let gates = WAYS.map(|(_, gate)| gate).join(" ");
    until("the status names the gates", &lab, LIMIT, || kubectl("lan-client", &addresses) == gates);
    kubectl("k3s-node2", &["delete", "--ignore-not-found", "-f", path]);
    all_answer(&lab, "hello.yourdomain.com", 404);
}
