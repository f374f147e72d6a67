//! EndpointSlices of the Services that select pods, as kube-controller-manager writes them.

use std::collections::{BTreeMap, BTreeSet};

use dualgate_core::lower::ENDPOINTS;
use dualgate_core::model::object::{Body, Object, Protocol, Service, ServicePort, ServiceType};
use dualgate_core::model::{Family, ObjectSet};
use dualgate_core::parse::object::dump;
use serde_json::{Map, Value, json};

use super::name;
use super::pod::Pod;

/// Who writes them: the label `endpointslice.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "dualgate-lab";

/// How many endpoints a slice holds: the controller's own default.
pub const MAX_ENDPOINTS: usize = 100;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The slices of every Service that selects pods, unless its endpoints are written: in EndpointSlices of others or in the
/// annotation `dualgate.dev/endpoints`.
///
/// A Service that says nothing of families has those of its pods. (A cluster would give it only its first family; but then
/// its gates would not reach it over the other one, and a lab shows both.) Without pods there is one empty slice of each
/// family that the Service names, else of IPv4.
pub fn endpoint_slices(objects: &ObjectSet, pods: &[Pod]) -> Vec<Value> {
    let written: BTreeSet<(&str, &str)> = objects.objects.iter().filter_map(|object| written_for(object)).collect();
    let mut slices = Vec::new();
    for object in &objects.objects {
        let Body::Service(service) = &object.body else { continue };
        let key = (&*object.key.name.namespace, &*object.key.name.name);
        let is_ours = service.kind != ServiceType::ExternalName
            && !service.selector.is_empty()
            && !object.meta.annotations.contains_key(ENDPOINTS)
            && !written.contains(&key);
        if is_ours {
            of_service(object, service, pods, &mut slices);
        }
    }
    slices
}

/// The slices as text of a manifest.
pub fn manifest(slices: &[Value]) -> String {
    let documents: Vec<String> = slices.iter().map(|slice| format!("{slice:#}\n")).collect();
    format!(
        "# Written by the lab, as a cluster would: its nodes, and which pods are ready. It is written again with every change.\n{}",
        documents.join("---\n")
    )
}

/// The Service whose endpoints an object writes; the lab's own slices write none.
fn written_for(object: &Object) -> Option<(&str, &str)> {
    let Body::EndpointSlice(slice) = &object.body else { return None };
    let is_own = object.meta.labels.get(MANAGED_LABEL).is_some_and(|manager| manager == MANAGED_BY);
    let service = slice.service.as_deref().filter(|_| !is_own)?;
    Some((&object.key.name.namespace, service))
}

fn of_service(object: &Object, service: &Service, pods: &[Pod], slices: &mut Vec<Value>) {
    let mut own: Vec<&Pod> = pods.iter().filter(|pod| pod.is_selected_by(object, service)).collect();
    own.sort_by(|a, b| a.name.cmp(&b.name));
    let mut any = false;
    for family in families(object, &own) {
        // Pods whose named ports have different numbers cannot share a slice.
        let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for pod in &own {
            if let Some(endpoint) = endpoint(object, pod, family) {
                let ports = ports(service, pod);
                groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
            }
        }
        for (ports, endpoints) in groups.into_values() {
            for (number, endpoints) in endpoints.chunks(MAX_ENDPOINTS).enumerate() {
                slices.push(slice(object, family, number, &ports, endpoints));
                any = true;
            }
        }
    }
    if !any {
        let named = named_families(object);
        let families = if named.is_empty() { vec![Family::V4] } else { named };
        slices.extend(families.into_iter().map(|family| slice(object, family, 0, &json!([]), &[])));
    }
}

/// The families that a Service has.
fn families(object: &Object, pods: &[&Pod]) -> Vec<Family> {
    let has = |family: &Family| pods.iter().any(|pod| pod.addresses.of(*family).is_some());
    let of_pods: Vec<Family> = [Family::V4, Family::V6].into_iter().filter(has).collect();
    let named = named_families(object);
    match dump(object)["spec"]["ipFamilyPolicy"].as_str() {
        Some("SingleStack") if named.is_empty() => of_pods.into_iter().take(1).collect(),
        Some("SingleStack") => named.into_iter().take(1).collect(),
        Some("PreferDualStack" | "RequireDualStack") => of_pods,
        Some(_) | None if named.is_empty() => of_pods,
        Some(_) | None => named,
    }
}

/// `spec.ipFamilies`.
fn named_families(object: &Object) -> Vec<Family> {
    let spec = dump(object);
    let named = spec["spec"]["ipFamilies"].as_array().into_iter().flatten();
    let family = |name: &Value| match name.as_str() {
        Some("IPv4") => Some(Family::V4),
        Some("IPv6") => Some(Family::V6),
        Some(_) | None => None,
    };
    named.filter_map(family).collect()
}

/// The ports of a Service that a pod has.
fn ports(service: &Service, pod: &Pod) -> Value {
    let port = |port: &ServicePort| {
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        let mut json = json!({ "name": port.name, "port": pod.target(port)?, "protocol": protocol });
        if let Some(app) = &port.app_protocol {
            json["appProtocol"] = app.as_str().into();
        }
        Some(json)
    };
    service.ports.iter().filter_map(port).collect()
}

fn endpoint(object: &Object, pod: &Pod, family: Family) -> Option<Value> {
    let address = pod.addresses.of(family)?;
    let is_published = dump(object)["spec"]["publishNotReadyAddresses"] == Value::Bool(true);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": (pod.ready && !pod.terminating) || is_published,
            "serving": pod.ready,
            "terminating": pod.terminating,
        },
        "nodeName": pod.node.as_str(),
        "targetRef": { "kind": "Pod", "namespace": &*pod.name.namespace, "name": &*pod.name.name },
    });
    if pod.subdomain.as_deref() == Some(&*object.key.name.name) {
        endpoint["hostname"] = (*pod.name.name).into();
    }
    Some(endpoint)
}

fn slice(object: &Object, family: Family, number: usize, ports: &Value, endpoints: &[Value]) -> Value {
    let (namespace, service) = (&*object.key.name.namespace, &*object.key.name.name);
    let parts = [namespace, service, &family.to_string(), &ports.to_string(), &number.to_string()];
    let mut labels: Map<String, Value> = object.meta.labels.iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(SERVICE_LABEL.into(), service.into());
    labels.insert(MANAGED_LABEL.into(), MANAGED_BY.into());
    if dump(object)["spec"]["clusterIP"] == "None" {
        labels.insert(HEADLESS_LABEL.into(), "".into());
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name::generated(&format!("{service}-"), name::digest(&parts)),
            "namespace": namespace,
            "labels": labels,
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}
