//! [`Object`] to JSON value: the inverse of reading, for dumps.
//!
//! Of the kinds of which there are tens of thousands, and where nothing was left out, an object is not kept a second time
//! as text: what is read of the JSON that is made here is the same object again. What is absent means the default.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::meta;
use super::service::{FAMILY_POLICIES, PROTOCOLS, TRAFFIC_POLICIES, TYPES};
use crate::model::names::ObjectKey;
use crate::model::object::{
    ADDRESS_ASSIGNED, AddressType, Body, Condition, Endpoint, EndpointPort, EndpointSlice, Ingress, IngressBackend,
    IngressPath, IngressRule, IngressTls, LoadBalancer, Object, PathType, PortRef, Published, Service, ServicePort,
    ServiceType,
};
use crate::model::text::Text;

/// What a dump shows of an object, with the values of Secrets replaced by their digests.
pub fn dump(object: &Object) -> Value {
    match &object.written {
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
        None => made(object),
    }
}

/// The same as text, in one line.
pub fn dump_text(object: &Object) -> Cow<'_, str> {
    match &object.written {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(made(object).to_string()),
    }
}

/// Whether a dump can be made from what was read of a kind.
pub(super) fn is_whole(body: &Body) -> bool {
    match body {
        Body::Ingress(_) | Body::Service(_) | Body::EndpointSlice(_) => true,
        Body::IngressClass(_)
        | Body::Secret(_)
        | Body::ConfigMap(_)
        | Body::Namespace
        | Body::Node(_)
        | Body::Other => false,
    }
}

fn made(object: &Object) -> Value {
    let (version, mut json) = match &object.body {
        Body::Ingress(body) => ("networking.k8s.io/v1", ingress(object, body)),
        Body::Service(body) => ("v1", service(body)),
        Body::EndpointSlice(body) => ("discovery.k8s.io/v1", endpoint_slice(&object.key, body)),
        Body::IngressClass(_)
        | Body::Secret(_)
        | Body::ConfigMap(_)
        | Body::Namespace
        | Body::Node(_)
        | Body::Other => ("", Map::new()),
    };
    json.insert("apiVersion".into(), version.into());
    json.insert("kind".into(), (*object.key.kind).into());
    json.insert("metadata".into(), meta::dump(&object.key, &object.meta));
    Value::Object(json)
}

fn ingress(object: &Object, body: &Ingress) -> Map<String, Value> {
    let Ingress { class, default_backend, tls, rules, published: addresses } = body;
    let mut spec = Map::new();
    // The annotation says it where the field does not.
    if let Some(class) = class.as_deref().filter(|class| meta::class_annotation(&object.meta) != Some(class)) {
        spec.insert("ingressClassName".into(), class.into());
    }
    if let Some(backend) = default_backend {
        spec.insert("defaultBackend".into(), ingress_backend(backend));
    }
    insert_list(&mut spec, "rules", rules.iter().map(ingress_rule));
    insert_list(&mut spec, "tls", tls.iter().map(ingress_tls));
    let mut json = Map::from_iter([("spec".to_owned(), Value::Object(spec))]);
    insert_status(&mut json, addresses, None);
    json
}

fn ingress_rule(rule: &IngressRule) -> Value {
    let IngressRule { index: _, host, paths } = rule;
    let mut json = Map::new();
    let host = host.to_string();
    if host != "*" {
        json.insert("host".into(), host.into());
    }
    if let Some(paths) = paths {
        json.insert("http".into(), json!({ "paths": paths.iter().map(ingress_path).collect::<Vec<_>>() }));
    }
    Value::Object(json)
}

fn ingress_path(path: &IngressPath) -> Value {
    let IngressPath { index: _, path, path_type, backend } = path;
    let path_type = match path_type {
        PathType::Exact => "Exact",
        PathType::Prefix => "Prefix",
        PathType::ImplementationSpecific => "ImplementationSpecific",
    };
    let mut json = json!({ "pathType": path_type, "backend": ingress_backend(backend) });
    if !path.is_empty() {
        json["path"] = path.as_str().into();
    }
    json
}

fn ingress_backend(backend: &IngressBackend) -> Value {
    match backend {
        IngressBackend::Service { name, port: PortRef::Number(number) } => {
            json!({ "service": { "name": name, "port": { "number": number } } })
        }
        IngressBackend::Service { name, port: PortRef::Name(port) } => {
            json!({ "service": { "name": name, "port": { "name": port } } })
        }
        IngressBackend::Resource { what } => {
            let (kind, name) = what.split_once('/').unwrap_or((what, ""));
            json!({ "resource": { "kind": kind, "name": name } })
        }
    }
}

fn ingress_tls(tls: &IngressTls) -> Value {
    let IngressTls { index: _, hosts, secret } = tls;
    let mut json = Map::new();
    insert_list(&mut json, "hosts", hosts.iter().map(|host| host.to_string().into()));
    if let Some(secret) = secret {
        json.insert("secretName".into(), secret.as_str().into());
    }
    Value::Object(json)
}

fn service(body: &Service) -> Map<String, Value> {
    let Service {
        kind,
        selector,
        ports,
        cluster_ips,
        external_name,
        family_policy,
        families,
        load_balancer,
        traffic_policy,
        client_affinity,
        published: addresses,
        address_assigned,
    } = body;
    let mut spec = Map::new();
    insert_word(&mut spec, "type", &TYPES, *kind);
    insert_word(&mut spec, "ipFamilyPolicy", &FAMILY_POLICIES, *family_policy);
    insert_word(&mut spec, "externalTrafficPolicy", &TRAFFIC_POLICIES, *traffic_policy);
    if !selector.is_empty() {
        spec.insert("selector".into(), meta::texts(selector));
    }
    insert_list(&mut spec, "ports", ports.iter().map(service_port));
    if let [first, ..] = &**cluster_ips {
        spec.insert("clusterIP".into(), first.to_string().into());
        insert_list(&mut spec, "clusterIPs", cluster_ips.iter().map(address));
    } else if ports.is_empty() && *kind != ServiceType::ExternalName {
        // Only a headless one may be without.
        spec.insert("clusterIP".into(), "None".into());
    }
    let none = LoadBalancer::default();
    let LoadBalancer { class, ip, source_ranges } = load_balancer.as_deref().unwrap_or(&none);
    let text = |text: &Option<Text>| text.as_deref().map(Value::from);
    let timeout = client_affinity.map(|time| json!({ "clientIP": { "timeoutSeconds": time.as_secs() } }));
    for (key, value) in [
        ("externalName", text(external_name)),
        ("loadBalancerClass", text(class)),
        ("loadBalancerIP", ip.as_ref().map(address)),
        ("sessionAffinity", client_affinity.map(|_| "ClientIP".into())),
        ("sessionAffinityConfig", timeout),
    ] {
        spec.extend(value.map(|value| (key.to_owned(), value)));
    }
    insert_list(&mut spec, "ipFamilies", families.iter().map(|family| family.to_string().into()));
    insert_list(&mut spec, "loadBalancerSourceRanges", source_ranges.iter().map(|range| range.to_string().into()));
    let mut json = Map::from_iter([("spec".to_owned(), Value::Object(spec))]);
    insert_status(&mut json, addresses, address_assigned.as_deref());
    json
}

fn service_port(port: &ServicePort) -> Value {
    let ServicePort { name, port, target, protocol, app_protocol } = port;
    let mut json = Map::from_iter([("port".to_owned(), (*port).into())]);
    insert_word(&mut json, "protocol", &PROTOCOLS, *protocol);
    if !name.is_empty() {
        json.insert("name".into(), name.as_str().into());
    }
    match target {
        PortRef::Number(number) if number == port => {}
        PortRef::Number(number) => drop(json.insert("targetPort".into(), (*number).into())),
        PortRef::Name(name) => drop(json.insert("targetPort".into(), name.as_str().into())),
    }
    if let Some(app_protocol) = app_protocol {
        json.insert("appProtocol".into(), app_protocol.as_str().into());
    }
    json.into()
}

fn endpoint_slice(key: &ObjectKey, body: &EndpointSlice) -> Map<String, Value> {
    // The Service is a label.
    let EndpointSlice { service: _, address_type, endpoints, ports } = body;
    let address_type = match address_type {
        AddressType::V4 => "IPv4",
        AddressType::V6 => "IPv6",
        AddressType::Fqdn => "FQDN",
    };
    let mut json = Map::from_iter([("addressType".to_owned(), address_type.into())]);
    insert_list(&mut json, "endpoints", endpoints.iter().map(|one| endpoint(key, one)));
    insert_list(&mut json, "ports", ports.iter().map(endpoint_port));
    json
}

fn endpoint(key: &ObjectKey, endpoint: &Endpoint) -> Value {
    let Endpoint { address: at, ready, serving, terminating, target, node } = endpoint;
    let mut json = json!({ "addresses": [address(at)] });
    let mut conditions = Map::new();
    // What is absent means this.
    for (name, value, absent) in
        [("ready", ready, true), ("serving", serving, *ready), ("terminating", terminating, false)]
    {
        if *value != absent {
            conditions.insert(name.into(), (*value).into());
        }
    }
    if !conditions.is_empty() {
        json["conditions"] = conditions.into();
    }
    if let Some(target) = target {
        let mut target_ref = json!({ "name": &*target.name });
        if target.namespace != key.name.namespace {
            target_ref["namespace"] = (*target.namespace).into();
        }
        json["targetRef"] = target_ref;
    }
    if let Some(node) = node {
        json["nodeName"] = node.as_str().into();
    }
    json
}

fn endpoint_port(port: &EndpointPort) -> Value {
    let EndpointPort { name, port, protocol } = port;
    let mut json = Map::new();
    insert_word(&mut json, "protocol", &PROTOCOLS, *protocol);
    if !name.is_empty() {
        json.insert("name".into(), name.as_str().into());
    }
    if let Some(port) = port {
        json.insert("port".into(), (*port).into());
    }
    json.into()
}

fn insert_status(json: &mut Map<String, Value>, addresses: &[Published], condition: Option<&Condition>) {
    let mut status = Map::new();
    if !addresses.is_empty() {
        let published = |published: &Published| match published {
            Published::Ip(address) => json!({ "ip": address }),
            Published::Hostname(name) => json!({ "hostname": **name }),
        };
        status.insert("loadBalancer".into(), json!({ "ingress": addresses.iter().map(published).collect::<Vec<_>>() }));
    }
    if let Some(Condition { is_true, reason, message, since }) = condition {
        let is_true = if *is_true { "True" } else { "False" };
        let condition = json!({
            "type": ADDRESS_ASSIGNED, "status": is_true, "reason": **reason, "message": **message,
            "lastTransitionTime": **since,
        });
        status.insert("conditions".into(), json!([condition]));
    }
    if !status.is_empty() {
        json.insert("status".into(), status.into());
    }
}

/// The word that is read as this value, unless it is the default.
fn insert_word<T: PartialEq + Default>(
    json: &mut Map<String, Value>,
    key: &str,
    words: &[(&'static str, T)],
    value: T,
) {
    let word = words.iter().find(|(_, known)| *known == value && value != T::default());
    json.extend(word.map(|(word, _)| (key.to_owned(), Value::from(*word))));
}

fn insert_list(json: &mut Map<String, Value>, key: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if !items.is_empty() {
        json.insert(key.into(), items.into());
    }
}

fn address(address: &IpAddr) -> Value {
    address.to_string().into()
}
