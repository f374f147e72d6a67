//! The cases of `dualgate-core/tests/cases/ingress` from a Kubernetes API: what is written there and read back means what
//! it means in a folder.
//!
//! Three things differ, and nothing else may:
//! - The API server refuses as a whole what the parser of a folder reads in part ([`REFUSED`]).
//! - It gives uid and creation time, and to a Service the addresses and families of its cluster; of a Service that asks
//!   for nothing there, these are not compared.
//! - Kinds, Secrets and EndpointSlices that the source does not ask for are not there, and unknown fields are no finding.

#[path = "../../dualgate-core/tests/ask/mod.rs"]
mod ask;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ask::{ask, cases, check_findings};
use dualgate_core::case::{Case, Families, Through};
use dualgate_core::check;
use dualgate_core::model::object::Body;
use dualgate_core::model::{Code, Family, Object, ObjectKey, ObjectName, ObjectSet, Snapshot, Uid};
use dualgate_core::parse;
use serde_json::{Value, json};
use support::{Cluster, Listener, skipped};

/// Cases with objects that an API server refuses as a whole, and which.
const REFUSED: &[(&str, &[&str])] = &[("left-out.case", &["Ingress default/partly"])];

#[test]
fn every_case_means_the_same_from_a_cluster() {
    let (mut requests, mut failures, mut refused) = (0, Vec::new(), BTreeMap::new());
    for case in cases() {
        for families in Families::ALL {
            let read = support::run(read(&case, families));
            let (folder, cluster, left_out) = match read {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(error) => {
                    failures.push(format!("{} ({families:?}): {error}", case.name));
                    continue;
                }
            };
            let fail = |what: String| format!("{} ({families:?}): {what}", case.name);
            failures.extend(compare(&folder.objects, &cluster.objects).into_iter().map(fail));
            let (expected, found) = (findings(&folder), findings(&cluster));
            if expected != found {
                failures.push(fail(format!("findings: in the folder {expected:#?}, in the cluster {found:#?}")));
            }
            if left_out.is_whole {
                failures.extend(check_findings(&without_fields(&case), &cluster).into_iter().map(fail));
            }
            for request in &case.requests {
                let (in_folder, in_cluster) = (ask(&folder, request), ask(&cluster, request));
                requests += 1;
                if in_folder != in_cluster {
                    failures.push(fail(format!("{in_folder:?} in the folder, {in_cluster:?} in the cluster")));
                }
                if left_out.is_whole && case.through == Through::Everything {
                    failures.extend(in_cluster.into_iter().map(fail));
                }
            }
            if !left_out.refused.is_empty() {
                refused.insert(case.name.clone(), left_out.refused);
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(requests > 250, "only {requests} requests were asked");
    let known =
        |(name, keys): &(&str, &[&str])| ((*name).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect());
    let known: BTreeMap<String, BTreeSet<String>> = REFUSED.iter().map(known).collect();
    match Cluster::any().server() {
        Some(_) => assert_eq!(refused, known, "what the API server refuses"),
        // It has a schema for everything.
        None => println!("the API server refuses {refused:#?}"),
    }
    println!("{requests} requests");
}

/// What of a folder is not in the cluster.
struct LeftOut {
    /// What the API server refused.
    refused: BTreeSet<String>,
    /// Whether nothing was left out that means anything.
    is_whole: bool,
}

/// The case's snapshot from a folder, without what is not in the cluster, and from the cluster.
async fn read(case: &Case, families: Families) -> Result<Option<(Snapshot, Snapshot, LeftOut)>, String> {
    let mut folder = case.snapshot(families)?;
    let cluster = Cluster::any();
    let is_real = cluster.server().is_none();
    let values = values(&case.manifests(families));
    let has = |kind: &str| values.iter().any(|value| value["kind"] == kind);
    let dates_itself = values.iter().any(|value| !value["metadata"]["creationTimestamp"].is_null());
    if is_real && (has("IngressClass") || has("Node") || dates_itself || families != Families::Both) {
        if families == Families::Both {
            skipped(&case.name, "its classes, nodes or dates would be those of the whole real cluster");
        }
        return Ok(None);
    }
    let (mut refused, mut written) = (BTreeSet::new(), BTreeSet::new());
    let there: BTreeSet<ObjectKey> = folder.objects.objects.iter().map(|object| object.key.clone()).collect();
    for value in in_order(values) {
        let Some(key) = key(&value) else { continue };
        let is_of_other_family = match value["addressType"].as_str() {
            Some("IPv4") => !families.has(Family::V4),
            Some("IPv6") => !families.has(Family::V6),
            _ => false,
        };
        if is_of_other_family || !written.insert(key.clone()) {
            continue;
        }
        let value = moved(value, &cluster).await;
        if let Err(why) = cluster.create(&value).await {
            if !matches!(why.status, 400 | 422) {
                return Err(format!("{key}: {why:?}"));
            }
            refused.insert(key);
        }
    }
    let mut listener = Listener::new(&cluster).await;
    let found = listener.until("a first set", |_| true).await;
    let before = folder.objects.objects.len();
    let mut kept = ObjectSet::clone(&folder.objects);
    kept.objects.retain(|object| is_asked_for(object) && !refused.contains(&object.key));
    kept.findings.retain(|finding| {
        let is_of_refused = finding.at.object.as_ref().is_some_and(|key| refused.contains(key) || !there.contains(key));
        finding.code != Code::ObjectField && finding.code != Code::ObjectDuplicate && !is_of_refused
    });
    let meaningless =
        folder.objects.objects.iter().filter(|o| matches!(o.body, Body::Other | Body::Namespace | Body::ConfigMap(_)));
    let is_whole = before - meaningless.count() == kept.objects.len() && refused.is_empty();
    // Messages say where in which file.
    for object in &mut kept.objects {
        Arc::make_mut(object).origin = None;
    }
    folder.objects = Arc::new(kept);
    let objects = Arc::new(back(&found, &folder.objects, &written, &cluster));
    let refused = refused.iter().filter(|key| is_read(key)).map(ToString::to_string).collect();
    let from_cluster = Snapshot { objects, ..folder.clone() };
    Ok(Some((folder, from_cluster, LeftOut { refused, is_whole })))
}

/// Namespaces are read, too; the server or this test has made those that there are.
fn is_read(key: &ObjectKey) -> bool {
    *key.kind != *"Namespace" && dualgate_kube::source::Kind::ALL.iter().any(|kind| *key.kind == *kind.name())
}

fn is_asked_for(object: &Object) -> bool {
    match &object.body {
        Body::Secret(secret) => secret.kind == "kubernetes.io/tls",
        Body::EndpointSlice(slice) => slice.service.is_some(),
        Body::Ingress(_) | Body::IngressClass(_) | Body::Service(_) | Body::Node(_) => true,
        Body::ConfigMap(_) | Body::Namespace | Body::Other => false,
    }
}

/// The documents of a file, lists as their items.
fn values(text: &str) -> Vec<Value> {
    let documents = parse::yaml::documents(text).documents;
    let mut values = Vec::new();
    for document in documents {
        match document.to_json() {
            Value::Object(mut list) if list.contains_key("items") => {
                values.extend(list.remove("items").and_then(|items| items.as_array().cloned()).unwrap_or_default());
            }
            value => values.push(value),
        }
    }
    values
}

/// Ingresses first: the API server would else write the default class into them.
fn in_order(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by_key(|value| value["kind"] != "Ingress");
    values
}

/// The key of an object whose kind the source reads.
fn key(value: &Value) -> Option<ObjectKey> {
    let kind = value["kind"].as_str()?;
    let name = value["metadata"]["name"].as_str()?;
    let is_cluster_wide = matches!(kind, "IngressClass" | "Node" | "Namespace");
    let namespace = if is_cluster_wide { "" } else { value["metadata"]["namespace"].as_str().unwrap_or("default") };
    let key = ObjectKey { kind: kind.into(), name: ObjectName::new(namespace, name) };
    is_read(&key).then_some(key)
}

/// The object in a namespace of this test.
async fn moved(mut value: Value, cluster: &Cluster) -> Value {
    if matches!(value["kind"].as_str(), Some("IngressClass" | "Node")) {
        return value;
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    value["metadata"]["namespace"] = json!(cluster.namespace(&namespace).await);
    value
}

/// What was read, as if it had been written where the case wrote it, when the case wrote it.
fn back(found: &ObjectSet, folder: &ObjectSet, written: &BTreeSet<ObjectKey>, cluster: &Cluster) -> ObjectSet {
    let before: BTreeMap<&ObjectKey, &Arc<Object>> =
        folder.objects.iter().map(|object| (&object.key, object)).collect();
    let mut set = ObjectSet::default();
    for object in &found.objects {
        if matches!(object.body, Body::Namespace) {
            continue;
        }
        let mut object = Object::clone(object);
        let namespace = object.key.name.namespace.clone();
        let Some(namespace) = namespace.strip_suffix(cluster.suffix()) else { continue };
        // A real cluster has nodes and classes of its own.
        if namespace.is_empty() && cluster.server().is_none() {
            continue;
        }
        object.key.name.namespace = namespace.into();
        // Nor do we ask for what its controllers make: EndpointSlices of Services whose pods a case leaves out.
        if !written.contains(&object.key) && cluster.server().is_none() {
            continue;
        }
        if let Some(written) = before.get(&object.key) {
            object.meta.created = written.meta.created;
            align(&mut object.body, &written.body, cluster);
        }
        set.objects.push(Arc::new(object));
    }
    set.objects.sort_by(|a, b| a.key.cmp(&b.key));
    let is_ours = |key: &ObjectKey| key.name.namespace.ends_with(cluster.suffix());
    set.findings =
        found.findings.iter().filter(|finding| finding.at.object.as_ref().is_none_or(is_ours)).cloned().collect();
    for finding in &mut set.findings {
        if let Some(key) = &mut finding.at.object {
            key.name.namespace = key.name.namespace.strip_suffix(cluster.suffix()).unwrap_or_default().into();
        }
    }
    set
}

/// What a cluster gives by itself is as it was before.
fn align(found: &mut Body, written: &Body, cluster: &Cluster) {
    match (found, written) {
        (Body::Service(found), Body::Service(written)) => {
            if written.cluster_ips.is_empty() {
                found.cluster_ips = Box::default();
            }
            if written.families.is_empty() {
                found.families = Box::default();
            }
            found.family_policy = written.family_policy;
        }
        // The default class of a real cluster.
        (Body::Ingress(found), Body::Ingress(written)) if written.class.is_none() && cluster.server().is_none() => {
            found.class = None;
        }
        _ => {}
    }
}

/// What is in one and not in the other, or differs.
fn compare(folder: &ObjectSet, cluster: &ObjectSet) -> Vec<String> {
    let by_key = |set: &ObjectSet| -> BTreeMap<ObjectKey, Object> {
        let plain = |object: &Arc<Object>| {
            let mut object = Object::clone(object);
            (object.origin, object.meta.uid, object.written) = (None, Uid::None, None);
            (object.key.clone(), object)
        };
        set.objects.iter().map(plain).collect()
    };
    let (folder, cluster) = (by_key(folder), by_key(cluster));
    let keys: BTreeSet<&ObjectKey> = folder.keys().chain(cluster.keys()).collect();
    let differ = |key: &&ObjectKey| folder.get(*key) != cluster.get(*key);
    let tell =
        |key: &ObjectKey| format!("{key}: in the folder {:?}, in the cluster {:?}", folder.get(key), cluster.get(key));
    keys.into_iter().filter(differ).map(tell).collect()
}

/// All that is wrong, without where in which file.
fn findings(snapshot: &Snapshot) -> Vec<String> {
    let mut found = snapshot.objects.findings.clone();
    found.extend(check::objects::objects(snapshot));
    let line = |finding: &dualgate_core::model::Finding| {
        let object = finding.at.object.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} {} {object} {}: {}", finding.severity, finding.code, finding.at.field, finding.message)
    };
    let mut lines: Vec<String> = found.iter().map(line).collect();
    lines.sort();
    lines
}

/// The case without what it says of unknown fields.
fn without_fields(case: &Case) -> Case {
    let mut case = case.clone();
    case.findings.retain(|line| !line.starts_with("object-field "));
    if let Some(notes) = &mut case.notes {
        notes.retain(|line| !line.starts_with("object-field "));
    }
    case
}
