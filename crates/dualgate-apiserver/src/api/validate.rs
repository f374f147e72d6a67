//! What is refused with 422: the mistakes that people make, in the words of a real API server. It is no schema.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Target, items, text};
use crate::failure::Cause;

/// What is wrong with an object that is to be written; `live` is what it takes the place of.
pub(super) fn object(target: &Target, object: &Value, live: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata(target, object, live);
    if target.kind.custom {
        return causes;
    }
    match target.kind.kind.as_str() {
        "Ingress" => ingress(object, &mut causes),
        "IngressClass" => ingress_class(object, live, &mut causes),
        "Service" => service(object, &mut causes),
        "Secret" => secret(object, live, &mut causes),
        "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet" => workload(object, live, &mut causes),
        "Pod" => pod_spec("spec", &object["spec"], &mut causes),
        "Lease" => lease(object, &mut causes),
        "EndpointSlice" => endpoint_slice(object, live, &mut causes),
        "RoleBinding" | "ClusterRoleBinding" => binding(object, live, &mut causes),
        "CustomResourceDefinition" => definition(target, object, &mut causes),
        _ => {}
    }
    causes
}

fn metadata(target: &Target, object: &Value, live: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = target.kind.kind.as_str();
    let name = &target.name;
    let is_rbac = target.kind.group == "rbac.authorization.k8s.io";
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if live.is_some() {
        // It was checked when it was created.
    } else if is_rbac {
        if name.contains(['/', '%']) || name == "." || name == ".." {
            causes.push(Cause::invalid("metadata.name", &json!(name), "may not contain '/' or '%'"));
        }
    } else if target.kind.is("Namespace") || target.kind.is("Service") {
        let may_begin_with_a_digit = kind == "Namespace";
        let begins_right = may_begin_with_a_digit || name.starts_with(|letter: char| letter.is_ascii_lowercase());
        if !is_label(name) || !begins_right {
            let why = if may_begin_with_a_digit { RFC_1123_LABEL } else { RFC_1035_LABEL };
            causes.push(Cause::invalid("metadata.name", &json!(name), why));
        }
    } else if !is_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), RFC_1123_SUBDOMAIN));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
        match value.as_str() {
            Some(value) if value.is_empty() || is_name_part(value) => {}
            _ => causes.push(Cause::invalid("metadata.labels", value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character")),
        }
    }
    for key in object["metadata"]["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !is_qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
    }
    causes
}

const RFC_1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const RFC_1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const RFC_1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

fn is_label(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let fits = !text.is_empty() && text.len() <= 63;
    fits && text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && text.chars().all(|letter| is_letter(letter) || letter == '-')
}

/// Parts between dots may be of any length here, as Kubernetes has it.
fn is_subdomain(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_part = |part: &str| {
        part.starts_with(is_letter)
            && part.ends_with(is_letter)
            && part.chars().all(|letter| is_letter(letter) || letter == '-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_name_part(text: &str) -> bool {
    let is_end = |letter: char| letter.is_ascii_alphanumeric();
    let fits = !text.is_empty() && text.len() <= 63;
    fits && text.starts_with(is_end)
        && text.ends_with(is_end)
        && text.chars().all(|letter| is_end(letter) || "-_.".contains(letter))
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(key),
    }
}

fn ingress(object: &Value, causes: &mut Vec<Cause>) {
    let rules = items(object, "/spec/rules");
    if rules.is_empty() && object["spec"]["defaultBackend"].is_null() {
        causes.push(Cause::invalid("spec", &json!("[]"), "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(backend) = object["spec"].get("defaultBackend") {
        ingress_backend("spec.defaultBackend", backend, causes);
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        let host = text(rule, "/host");
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if !host.is_empty() && !is_subdomain(plain) {
            causes.push(Cause::invalid(&format!("{at}.host"), &json!(host), RFC_1123_SUBDOMAIN));
        }
        let Some(http) = rule.get("http") else { continue };
        if items(http, "/paths").is_empty() {
            causes.push(Cause::required(&format!("{at}.http.paths"), ""));
        }
        for (index, path) in items(http, "/paths").iter().enumerate() {
            ingress_path(&format!("{at}.http.paths[{index}]"), path, causes);
        }
    }
}

fn ingress_path(at: &str, path: &Value, causes: &mut Vec<Cause>) {
    let (field, value) = (format!("{at}.pathType"), text(path, "/pathType"));
    match value {
        "" => causes.push(Cause::required(&field, "pathType must be specified")),
        "Exact" | "Prefix" if !text(path, "/path").starts_with('/') => {
            causes.push(Cause::invalid(&format!("{at}.path"), &path["path"], "must be an absolute path"));
        }
        "Exact" | "Prefix" => {
            for mark in ["//", "/./", "/../", "%2f", "%2F"] {
                if text(path, "/path").contains(mark) {
                    causes.push(Cause::invalid(
                        &format!("{at}.path"),
                        &path["path"],
                        &format!("must not contain '{mark}'"),
                    ));
                }
            }
        }
        "ImplementationSpecific" => {}
        other => {
            causes.push(Cause::unsupported(&field, other, &["Exact", "ImplementationSpecific", "Prefix"]));
        }
    }
    ingress_backend(&format!("{at}.backend"), &path["backend"], causes);
}

fn ingress_backend(at: &str, backend: &Value, causes: &mut Vec<Cause>) {
    match (backend.get("service"), backend.get("resource")) {
        (None, None) => causes.push(Cause::required(at, "port name or number is required")),
        (Some(_), Some(_)) => {
            causes.push(Cause::invalid(at, backend, "cannot set both resource and service backends"));
        }
        (None, Some(_)) => {}
        (Some(service), None) => {
            if text(service, "/name").is_empty() {
                causes.push(Cause::required(&format!("{at}.service.name"), ""));
            }
            let (name, number) = (text(service, "/port/name"), service.pointer("/port/number"));
            if name.is_empty() && number.is_none_or(|number| number == 0) {
                causes.push(Cause::required(at, "port name or number is required"));
            }
        }
    }
}

fn ingress_class(object: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    let controller = text(object, "/spec/controller");
    if let Some(live) = live {
        immutable("spec.controller", &object["spec"]["controller"], &live["spec"]["controller"], causes);
    } else if controller.is_empty() {
        causes.push(Cause::required("spec.controller", ""));
    } else if !controller.contains('/') {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        causes.push(Cause::invalid("spec.controller", &json!(controller), why));
    }
}

fn service(object: &Value, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = text(object, "/spec/type");
    if !TYPES.contains(&kind) {
        causes.push(Cause::unsupported("spec.type", kind, &TYPES));
    }
    if kind == "ExternalName" && text(object, "/spec/externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    let ports = items(object, "/spec/ports");
    let is_headless = text(object, "/spec/clusterIP") == "None";
    if ports.is_empty() && kind != "ExternalName" && !is_headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        if !port["port"].as_u64().is_some_and(|port| (1..=65_535).contains(&port)) {
            causes.push(Cause::invalid(&format!("{at}.port"), &port["port"], "must be between 1 and 65535, inclusive"));
        }
        if text(port, "/name").is_empty() && ports.len() > 1 {
            causes.push(Cause::required(&format!("{at}.name"), ""));
        }
        if !["TCP", "UDP", "SCTP"].contains(&text(port, "/protocol")) {
            causes.push(Cause::unsupported(
                &format!("{at}.protocol"),
                text(port, "/protocol"),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        let is_same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        if ports[..index].iter().any(|other| is_same(&other)) {
            causes.push(Cause::invalid(&at, port, "Duplicate value"));
        }
    }
    let policy = text(object, "/spec/ipFamilyPolicy");
    const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        causes.push(Cause::unsupported("spec.ipFamilyPolicy", policy, &POLICIES));
    }
}

fn secret(object: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    for (name, value) in object["data"].as_object().into_iter().flatten() {
        if value.as_str().is_none_or(|text| STANDARD.decode(text).is_err()) {
            causes.push(Cause::invalid(&format!("data[{name}]"), &json!("<value omitted>"), "illegal base64 data"));
        }
    }
    if text(object, "/type") == "kubernetes.io/tls" {
        for name in ["tls.crt", "tls.key"] {
            if object["data"].get(name).is_none() {
                causes.push(Cause::required(&format!("data[{name}]"), ""));
            }
        }
    }
    if let Some(live) = live {
        immutable("type", &object["type"], &live["type"], causes);
    }
}

fn workload(object: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let selector = &spec["selector"];
    if selector.as_object().is_none_or(|selector| selector.is_empty()) {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    if wanted.any(|(name, value)| labels.get(name) != Some(value)) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    pod_spec("spec.template.spec", &spec["template"]["spec"], causes);
    if let Some(live) = live {
        immutable("spec.selector", selector, &live["spec"]["selector"], causes);
    }
}

fn pod_spec(at: &str, spec: &Value, causes: &mut Vec<Cause>) {
    let containers = items(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(&format!("{at}.containers"), ""));
    }
    let volumes = items(spec, "/volumes");
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{at}.{list}[{index}]");
            for name in ["name", "image"] {
                if text(container, &format!("/{name}")).is_empty() {
                    causes.push(Cause::required(&format!("{at}.{name}"), ""));
                }
            }
            for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
                if !volumes.iter().any(|volume| volume["name"] == mount["name"]) {
                    let message = format!("{at}.volumeMounts[{index}].name");
                    causes.push(Cause::not_found(&message, text(mount, "/name")));
                }
            }
        }
    }
}

fn lease(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if let Some(seconds) = spec.get("leaseDurationSeconds").filter(|seconds| seconds.as_i64().is_none_or(|of| of <= 0))
    {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if let Some(count) = spec.get("leaseTransitions").filter(|count| count.as_i64().is_none_or(|of| of < 0)) {
        causes.push(Cause::invalid("spec.leaseTransitions", count, "must be greater than or equal to 0"));
    }
    if spec.get("holderIdentity").is_some_and(|holder| holder == "") {
        causes.push(Cause::invalid("spec.holderIdentity", &json!(""), "must not be empty"));
    }
}

fn endpoint_slice(object: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
    match text(object, "/addressType") {
        "" => causes.push(Cause::required("addressType", "")),
        given if !TYPES.contains(&given) => causes.push(Cause::unsupported("addressType", given, &TYPES)),
        given => {
            for (index, endpoint) in items(object, "/endpoints").iter().enumerate() {
                let at = format!("endpoints[{index}].addresses");
                let addresses = items(endpoint, "/addresses");
                if addresses.is_empty() {
                    causes.push(Cause::required(&at, "must contain at least 1 address"));
                }
                let is_right = |address: &Value| match (given, address.as_str()) {
                    ("IPv4", Some(text)) => text.parse::<std::net::Ipv4Addr>().is_ok(),
                    ("IPv6", Some(text)) => text.parse::<std::net::Ipv6Addr>().is_ok(),
                    (_, text) => text.is_some(),
                };
                for address in addresses.iter().filter(|address| !is_right(address)) {
                    causes.push(Cause::invalid(&at, address, &format!("must be a valid {given} address")));
                }
            }
        }
    }
    if let Some(live) = live {
        immutable("addressType", &object["addressType"], &live["addressType"], causes);
    }
}

fn binding(object: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    for name in ["kind", "name"] {
        if text(object, &format!("/roleRef/{name}")).is_empty() {
            causes.push(Cause::required(&format!("roleRef.{name}"), ""));
        }
    }
    for (index, subject) in items(object, "/subjects").iter().enumerate() {
        if text(subject, "/kind") == "ServiceAccount" && text(subject, "/namespace").is_empty() {
            causes.push(Cause::required(&format!("subjects[{index}].namespace"), ""));
        }
    }
    if let Some(live) = live
        && object["roleRef"] != live["roleRef"]
    {
        causes.push(Cause::invalid("roleRef", &object["roleRef"], "cannot change roleRef"));
    }
}

fn definition(target: &Target, object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    for name in ["group", "scope"] {
        if text(spec, &format!("/{name}")).is_empty() {
            causes.push(Cause::required(&format!("spec.{name}"), ""));
        }
    }
    for name in ["plural", "kind"] {
        if text(spec, &format!("/names/{name}")).is_empty() {
            causes.push(Cause::required(&format!("spec.names.{name}"), ""));
        }
    }
    let expected = format!("{}.{}", text(spec, "/names/plural"), text(spec, "/group"));
    if target.name != expected {
        let why = format!("must be spec.names.plural+\".\"+spec.group, which is {expected:?}");
        causes.push(Cause::invalid("metadata.name", &json!(target.name), &why));
    }
    if items(spec, "/versions").iter().filter(|version| version["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
}

fn immutable(field: &str, value: &Value, live: &Value, causes: &mut Vec<Cause>) {
    if value != live {
        causes.push(Cause::invalid(field, value, "field is immutable"));
    }
}
