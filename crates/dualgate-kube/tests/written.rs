//! What is written to a cluster: statuses, labels, Events and the Lease, in our API server or in the one of `KUBECONFIG`.
//!
//! How often, by whom, and what becomes of it while the server fails is counted in `status.rs`, in ours alone.

mod support;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_apiserver::{ApiServer, Request as Asked, Verb};
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::{NodeName, ObjectKey, ObjectName};
use dualgate_core::plan::cluster::{ClusterPlan, EDGE_LABELS, ServiceStatus, Transition};
use dualgate_core::plan::install::{LEASE, NAMESPACE};
use dualgate_core::seam::Source as _;
use dualgate_kube::access::client;
use dualgate_kube::status::{Handle, Wanted, writer};
use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use support::{Cluster, Listener, PATIENCE, has, run, skipped};

const NAME: &str = "what_is_planned_is_said_once_and_taken_back";

const BOTH: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

/// A river that ends at two writers of one cluster.
struct River {
    cluster: Cluster,
    listener: Listener,
    writers: Vec<Handle>,
    plan: ClusterPlan,
    findings: Vec<Finding>,
}

impl River {
    async fn new(cluster: Cluster) -> Self {
        let listener = Listener::new(&cluster).await;
        let mut river =
            Self { cluster, listener, writers: Vec::new(), plan: ClusterPlan::default(), findings: Vec::new() };
        for node in ["home1", "home2"] {
            let (handle, writer) = writer(river.cluster.access(), &NodeName::new(node));
            tokio::spawn(writer.run());
            river.writers.push(handle);
        }
        river
    }

    /// Rounds until the cluster is as wished.
    #[track_caller]
    fn until(&mut self, what: &str, is: impl AsyncFn(&Cluster) -> Result<(), String>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                // A set that has come, or the same one: who writes may be another by now.
                if let Ok(Ok(set)) = tokio::time::timeout(Duration::from_millis(50), self.listener.source.next()).await
                {
                    self.listener.last = set;
                }
                self.round();
                match is(&self.cluster).await {
                    Ok(()) => return,
                    Err(why) => assert!(
                        Instant::now() < deadline,
                        "{caller}: {what}: not within {PATIENCE:?}: {why}; {:?}",
                        self.writers.iter().map(|writer| writer.view().findings()).collect::<Vec<_>>()
                    ),
                }
            }
        }
    }

    fn round(&self) {
        for writer in &self.writers {
            let Some(reign) = writer.reign() else { continue };
            writer.want(Wanted {
                reign,
                writes: Arc::new(self.plan.diff(&self.listener.last)),
                findings: Arc::new(self.findings.clone()),
                objects: self.listener.last.clone(),
            });
        }
    }

    fn plan(&mut self, ingress: &Value, addresses: &[&str]) {
        let addresses: Arc<[IpAddr]> = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        self.plan.ingresses.insert(name(ingress), addresses);
    }

    /// Until an object's status names these.
    #[track_caller]
    fn names(&mut self, object: &Value, addresses: &[&str]) -> impl Future<Output = ()> {
        let expected: Vec<String> = addresses.iter().map(|text| (*text).to_owned()).collect();
        let object = object.clone();
        self.until("the status", async move |cluster| {
            let found = named(&cluster.get(&object).await.unwrap_or_default());
            if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
        })
    }

    fn made(&self) -> u64 {
        self.writers.iter().map(|writer| writer.view().report().made).sum()
    }

    fn holder(&self) -> Option<usize> {
        self.writers.iter().position(|writer| writer.reign().is_some())
    }
}

fn name(object: &Value) -> ObjectName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ObjectName::new(text("namespace"), text("name"))
}

fn named(object: &Value) -> Vec<String> {
    let entries = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["ip"].as_str().unwrap_or("?").to_owned()).collect()
}

/// Who manages fields of an object.
fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["manager"].as_str()).collect()
}

fn ingress(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a", "namespace": namespace},
        "spec": {"ingressClassName": "of-nobody", "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}},
    })
}

/// Of a class of our own, so that no other controller of the cluster gives it addresses.
fn service(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": namespace},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "dualgate.dev/test", "ports": [{"port": 80}]},
    })
}

/// The namespace of dualgate, which this test has for itself; `None` where dualgate is installed.
async fn own_namespace(cluster: &Cluster) -> Option<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cluster.create_outside(&namespace).await {
            Ok(_) => return Some(()),
            Err(refused) if refused.status == 409 => {}
            Err(refused) => panic!("{refused:?}"),
        }
        let found = cluster.get(&namespace).await.unwrap_or_default();
        // Another test's may be on its way out.
        if !found["metadata"]["deletionTimestamp"].is_string() || Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn what_is_planned_is_said_once_and_taken_back() {
    run(async {
        let cluster = Cluster::any();
        if own_namespace(&cluster).await.is_none() {
            return skipped(&format!("kube::{NAME}"), "dualgate is installed in the cluster of KUBECONFIG");
        }
        everything(cluster).await;
    });
}

/// All that dualgate does in a cluster.
async fn everything(cluster: Cluster) -> Cluster {
    let namespace = cluster.namespace("written").await;
    let node = format!("edge{}", cluster.suffix());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
    let (ingress, service) = (ingress(&namespace), service(&namespace));
    cluster.create(&ingress).await.unwrap();
    cluster.create(&service).await.unwrap();
    cluster.create_outside(&node).await.unwrap();
    let mut river = River::new(cluster).await;
    let written = addresses(&mut river, &ingress).await;
    let written = service_and_node(&mut river, &service, &node, written).await;
    river.findings = vec![missing_service(&ingress)];
    told(&mut river, &ingress).await;
    followed(&mut river, &ingress, written).await;
    river.cluster
}

/// A right: verb, group, resource, and the one object that it is for; empty is any.
type Right = (String, String, String, String);

/// All that the roles of an installation give.
fn granted(server: &ApiServer) -> BTreeSet<Right> {
    let objects = server.objects();
    let roles = [objects.list("ClusterRole", None), objects.list("Role", Some(NAMESPACE))].concat();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        let names = Some(texts(rule, "resourceNames")).filter(|names| !names.is_empty());
        let names = names.unwrap_or_else(|| vec![String::new()]);
        for verb in texts(rule, "verbs") {
            for resource in texts(rule, "resources") {
                let right =
                    |name: &String| (verb.clone(), texts(rule, "apiGroups")[0].clone(), resource.clone(), name.clone());
                rights.extend(names.iter().map(right));
            }
        }
    }
    rights
}

/// What a request needed, in the same words.
fn used(request: &Asked, granted: &BTreeSet<Right>) -> Right {
    let verb = match request.verb {
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Watch => "watch",
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch | Verb::Apply => "patch",
        Verb::Delete | Verb::DeleteCollection | Verb::Other => "delete",
    };
    let (resource, group) = request.resource.split_once('.').unwrap_or((&request.resource, ""));
    let resource = if request.subresource.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}/{}", request.subresource)
    };
    let right = (verb.to_owned(), group.to_owned(), resource, request.name.clone());
    let of_any = (right.0.clone(), right.1.clone(), right.2.clone(), String::new());
    if granted.contains(&right) { right } else { of_any }
}

#[test]
fn what_is_installed_may_do_all_of_it_and_nothing_else() {
    const SITE: &str = "apiVersion: dualgate.dev/v1alpha1
kind: Site
gates: {internal: {}, external: {}}
nodes:
  - {name: home1, roles: [server, internal-gate], addresses: [192.168.178.5]}
  - {name: edge, roles: [agent, external-gate], addresses: [10.44.0.2], publicAddresses: [192.0.2.1]}
";
    run(async {
        let cluster = everything(Cluster::guarded(SITE).await).await;
        // An Event is counted up after five minutes (`machine::writes::events`, on a clock of its tests).
        let account = client(&cluster.access()).await.unwrap();
        let count = Request::builder().method("PATCH").uri("/api/v1/namespaces/written/events/none");
        let count = count.header("content-type", "application/merge-patch+json").body(Body::from(b"{}".to_vec()));
        assert_eq!(account.send(count.unwrap()).await.unwrap().status(), 404);
        let server = cluster.server().unwrap();
        let granted = granted(server);
        let asked = server.requests();
        let asked: Vec<&Asked> = asked.iter().filter(|request| request.user.ends_with(":dualgate-home")).collect();
        let refused: Vec<_> = asked.iter().filter(|request| [401, 403].contains(&request.code)).collect();
        assert_eq!(refused, Vec::<&&Asked>::new());
        let used: BTreeSet<Right> = asked.iter().map(|request| used(request, &granted)).collect();
        assert_eq!(used, granted);
    });
}

/// An Ingress's addresses: said, changed, contested, taken back.
async fn addresses(river: &mut River, ingress: &Value) -> u64 {
    let key = format!("Ingress {}", name(ingress));
    river.plan(ingress, &BOTH);
    river.names(ingress, &BOTH).await;
    let found = river.cluster.get(ingress).await.unwrap();
    assert!(managers(&found).contains(&"dualgate"), "{found:#}");
    river.plan(ingress, &PUBLIC);
    river.names(ingress, &PUBLIC).await;
    river.plan.ingresses.clear();
    river.names(ingress, &[]).await;
    let found = river.cluster.get(ingress).await.unwrap();
    assert!(!managers(&found).contains(&"dualgate"), "{found:#}");
    assert_eq!((river.made(), found["metadata"]["generation"].as_u64()), (3, Some(1)), "one write for each change");

    // What another one has written is replaced, and what it sets back is its own.
    let theirs = json!({"loadBalancer": {"ingress": [{"ip": "192.168.178.1"}]}});
    river.cluster.status(ingress, "traefik", theirs.clone()).await.unwrap();
    river.plan(ingress, &BOTH);
    river.names(ingress, &BOTH).await;
    let view = river.writers[river.holder().unwrap()].view();
    let seen = async |_: &Cluster| match view.report().wanted {
        0 => Ok(()),
        wanted => Err(format!("{wanted} wanted")),
    };
    river.until("it is seen to stand", seen).await;
    river.cluster.status(ingress, "traefik", theirs).await.unwrap();
    let contest = async |_: &Cluster| {
        let found = view.findings().into_iter().find(|finding| finding.code == Code::StatusContested);
        let found = found.ok_or_else(|| format!("{:?}", view.report()))?;
        if found.message.contains("`traefik`") { Ok(()) } else { Err(found.to_string()) }
    };
    river.until("the contest is told", contest).await;
    assert_eq!(named(&river.cluster.get(ingress).await.unwrap()), ["192.168.178.1"]);
    assert!(has(&river.listener.last, &key));
    river.made()
}

async fn service_and_node(river: &mut River, service: &Value, node: &Value, written: u64) -> u64 {
    let says = |addresses: &[&str], is_true| ServiceStatus::Says {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        transition: Transition { is_true, reason: "Test", message: "of a test".to_owned() }.into(),
    };
    river.plan.services.insert(name(service), says(&BOTH, true));
    river.names(service, &BOTH).await;
    let found = river.cluster.get(service).await.unwrap();
    assert_eq!(found["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP", "{found:#}");
    let condition = &found["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Test")), "{found:#}");
    // Without addresses it says why, and since when.
    river.plan.services.insert(name(service), says(&[], false));
    river.names(service, &[]).await;
    let found = river.cluster.get(service).await.unwrap();
    assert_eq!(found["status"]["conditions"][0]["status"], "False", "{found:#}");
    river.plan.services.clear();
    let (service, edge) = (service.clone(), node.clone());
    let taken_back = async move |cluster: &Cluster| {
        let found = cluster.get(&service).await.unwrap_or_default();
        let is_empty = found["status"]["conditions"].as_array().is_none_or(Vec::is_empty);
        if is_empty && !managers(&found).contains(&"dualgate") { Ok(()) } else { Err(format!("{found:#}")) }
    };
    river.until("nothing is ours any more", taken_back).await;

    let labels = EDGE_LABELS.iter().map(|label| (*label, "true")).collect();
    river.plan.labels.insert(NodeName::new(name(node).name), labels);
    let labelled = async move |cluster: &Cluster| {
        let found = cluster.get(&edge).await.unwrap_or_default();
        let labels = &found["metadata"]["labels"];
        if EDGE_LABELS.iter().all(|label| labels[label] == "true") { Ok(()) } else { Err(found.to_string()) }
    };
    river.until("the labels of an edge", labelled).await;
    river.plan.labels.clear();
    let edge = node.clone();
    let plain = async move |cluster: &Cluster| {
        let found = cluster.get(&edge).await.unwrap_or_default();
        let labels = &found["metadata"]["labels"];
        if EDGE_LABELS.iter().all(|label| labels[label].is_null()) { Ok(()) } else { Err(found.to_string()) }
    };
    river.until("no labels of an edge", plain).await;
    assert_eq!(river.made(), written + 5, "one write for each change");
    river.made()
}

fn missing_service(ingress: &Value) -> Finding {
    let key = ObjectKey { kind: "Ingress".into(), name: name(ingress) };
    let place = Place::field(&key, "spec.defaultBackend");
    Finding::new(Code::IngressUnknownService, place, "there is no Service `a`").help("make it")
}

/// A finding is an Event of its object, as `kubectl describe` looks for it.
async fn told(river: &mut River, ingress: &Value) {
    let uid = river.cluster.get(ingress).await.unwrap()["metadata"]["uid"].clone();
    let event =
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"namespace": ingress["metadata"]["namespace"]}});
    let said = async move |cluster: &Cluster| {
        let events = cluster.list(&event).await;
        let is = |event: &&Value| event["involvedObject"]["uid"] == uid && event["reason"] == "IngressUnknownService";
        let found: Vec<&Value> = events.iter().filter(is).collect();
        match found[..] {
            [event] if event["type"] == "Warning" && event["count"] == 1 => Ok(()),
            _ => Err(format!("{events:#?}")),
        }
    };
    river.until("one Event", said).await;
}

/// Who holds the Lease leaves, and the other one goes on.
async fn followed(river: &mut River, ingress: &Value, written: u64) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE, "namespace": NAMESPACE},
    });
    let holder = river.holder().unwrap();
    let before = river.cluster.get(&lease).await.unwrap();
    let identity = before["spec"]["holderIdentity"].as_str().unwrap_or_default();
    assert!(identity.starts_with(&format!("home{}_", holder + 1)), "{before:#}");
    let leaver = river.writers.remove(holder);
    leaver.leave().await;
    river.plan(ingress, &PUBLIC);
    river.names(ingress, &PUBLIC).await;
    let after = river.cluster.get(&lease).await.unwrap();
    assert!(
        after["spec"]["holderIdentity"].as_str().is_some_and(|now| !now.is_empty() && now != identity),
        "{after:#}"
    );
    assert_eq!(river.made() + leaver.view().report().made, written + 1);
}
