//! What a Kubernetes API is told of a cluster: its Nodes, its Pods, and how its workloads are.

use std::net::IpAddr;

use dualgate_core::model::object::Object;
use dualgate_core::model::site::{Node, Role};
use dualgate_core::model::{ObjectKey, ObjectSet};
use dualgate_core::parse::object::dump;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::pod::Pod;
use super::read::{Workload, WorkloadKind};
use super::schedule::{Wanted, replicas};

/// Whether the cluster hears of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It does.
    Lately,
    /// It has not for longer than it is patient.
    NotLately,
}

/// A Node, as its kubelet and the cluster's controllers write it.
pub fn node(node: &Node, pod_cidrs: &[IpNet], heard: Heard) -> Value {
    let cidrs: Vec<String> = pod_cidrs.iter().map(ToString::to_string).collect();
    let address = |address: &IpAddr| json!({"type": "InternalIP", "address": address.to_string()});
    let ready = match heard {
        Heard::Lately => "True",
        Heard::NotLately => "Unknown",
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name.as_str()},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        "status": {
            "addresses": node.addresses.iter().map(address).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
}

/// What a kubelet of K3s puts on its Node. Which node is an edge, an agent may not say itself.
pub fn node_labels(node: &Node) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": node.name.as_str(), "kubernetes.io/os": "linux"});
    if node.has(Role::Server) {
        labels["node-role.kubernetes.io/control-plane"] = "true".into();
    }
    labels
}

/// A Pod with its status.
pub fn pod(pod: &Pod, objects: &ObjectSet) -> Value {
    let spec = find(objects, &pod.workload).map(|object| dump(object)["spec"]["template"]["spec"].take());
    let mut spec = spec.filter(Value::is_object).unwrap_or_else(|| json!({}));
    spec["nodeName"] = pod.node.as_str().into();
    let container = |container: &Value| {
        json!({
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": pod.ready,
            "restartCount": 0,
            "state": if pod.alive { json!({"running": {}}) } else { json!({"waiting": {"reason": "ContainerCreating"}}) },
        })
    };
    let containers: Vec<Value> = spec["containers"].as_array().into_iter().flatten().map(container).collect();
    let ips: Vec<Value> = pod.addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let condition = |kind: &str| json!({"type": kind, "status": if pod.ready { "True" } else { "False" }});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": &*pod.name.name,
            "namespace": &*pod.name.namespace,
            "labels": pod.labels,
        },
        "spec": spec,
        "status": {
            "phase": if pod.alive || pod.ready { "Running" } else { "Pending" },
            "podIP": ips.first().map(|first| first["ip"].clone()),
            "podIPs": ips,
            "conditions": [condition("Ready"), condition("ContainersReady")],
            "containerStatuses": containers,
        },
    })
}

/// The status of a workload, with who it is of.
pub fn workload_status(wanted: &Wanted<'_>, workload: &Workload, pods: &[Pod]) -> Value {
    let own = || pods.iter().filter(|pod| pod.workload == workload.key);
    let (all, ready) = (own().count(), own().filter(|pod| pod.ready).count());
    let replicas = usize::try_from(replicas(wanted, workload)).unwrap_or(usize::MAX);
    let status = match workload.kind {
        WorkloadKind::Deployment => json!({
            "replicas": all,
            "updatedReplicas": all,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": replicas.saturating_sub(ready),
            "conditions": [
                {"type": "Available", "status": if ready >= replicas { "True" } else { "False" }},
            ],
        }),
        WorkloadKind::StatefulSet => json!({
            "replicas": all,
            "currentReplicas": all,
            "updatedReplicas": all,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }),
        WorkloadKind::DaemonSet => json!({
            "desiredNumberScheduled": all,
            "currentNumberScheduled": all,
            "updatedNumberScheduled": all,
            "numberReady": ready,
            "numberAvailable": ready,
            "numberMisscheduled": 0,
        }),
    };
    let mut fields: Map<String, Value> = status.as_object().cloned().unwrap_or_default();
    let object = find(wanted.objects, &workload.key);
    let generation = object.map(|object| dump(object)["metadata"]["generation"].take());
    fields.insert("observedGeneration".into(), generation.filter(Value::is_number).unwrap_or_else(|| json!(0)));
    json!({
        "apiVersion": "apps/v1",
        "kind": &*workload.key.kind,
        "metadata": {"name": &*workload.key.name.name, "namespace": &*workload.key.name.namespace},
        "status": fields,
    })
}

/// The object of a workload; core calls a kind that it does not read by its group, too.
fn find<'a>(objects: &'a ObjectSet, key: &ObjectKey) -> Option<&'a Object> {
    let is_it = |object: &&std::sync::Arc<Object>| {
        let namespace = &object.key.name.namespace;
        let namespace = if namespace.is_empty() { "default" } else { &**namespace };
        object.key.kind.strip_suffix(".apps") == Some(&*key.kind)
            && namespace == &*key.name.namespace
            && object.key.name.name == key.name.name
    };
    objects.objects.iter().find(is_it).map(|object| &**object)
}
