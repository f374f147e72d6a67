//! What the API fills in where an object says nothing, for the kinds that are built in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{fields, items, text};
use crate::kinds::Kind;

/// Fills in what is missing. What it fills in nobody applied.
pub(super) fn fill(kind: &Kind, object: &mut Value) {
    if kind.custom {
        return;
    }
    let name = text(object, "/metadata/name").to_owned();
    match kind.kind.as_str() {
        "Namespace" => namespace(object, &name),
        "Node" => node(object),
        "Service" => service(object),
        "Secret" => secret(object),
        "Pod" => {
            pod_spec(spec(object));
            set(fields(&mut object["status"]), "phase", json!("Pending"));
        }
        "PersistentVolumeClaim" => {
            set(spec(object), "volumeMode", json!("Filesystem"));
            set(fields(&mut object["status"]), "phase", json!("Pending"));
        }
        "PersistentVolume" => {
            set(spec(object), "volumeMode", json!("Filesystem"));
            set(spec(object), "persistentVolumeReclaimPolicy", json!("Retain"));
            set(fields(&mut object["status"]), "phase", json!("Pending"));
        }
        "Deployment" => deployment(object),
        "DaemonSet" => daemon_set(object),
        "ReplicaSet" => {
            set(spec(object), "replicas", json!(1));
            template(object);
        }
        "StatefulSet" => stateful_set(object),
        "Ingress" => set(fields(&mut object["status"]), "loadBalancer", json!({})),
        "IngressClass" => {
            if let Some(Value::Object(parameters)) = spec(object).get_mut("parameters") {
                set(parameters, "scope", json!("Cluster"));
            }
        }
        "NetworkPolicy" => network_policy(object),
        "EndpointSlice" => ports_with_protocol(object.get_mut("ports")),
        "RoleBinding" | "ClusterRoleBinding" => binding(object),
        _ => {}
    }
}

/// Sets a field that is absent.
fn set(fields: &mut Map<String, Value>, name: &str, value: Value) {
    fields.entry(name).or_insert(value);
}

fn spec(object: &mut Value) -> &mut Map<String, Value> {
    fields(&mut object["spec"])
}

/// Sets a field that is absent in a map that is there.
fn set_in(map: Option<&mut Value>, name: &str, value: Value) {
    if let Some(Value::Object(fields)) = map {
        set(fields, name, value);
    }
}

fn each(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let items = match list {
        Some(Value::Array(items)) => items.as_mut_slice(),
        _ => &mut [],
    };
    items.iter_mut().filter_map(Value::as_object_mut)
}

fn ports_with_protocol(list: Option<&mut Value>) {
    for port in each(list) {
        set(port, "protocol", json!("TCP"));
    }
}

fn namespace(object: &mut Value, name: &str) {
    fields(&mut object["metadata"]["labels"]).insert("kubernetes.io/metadata.name".into(), json!(name));
    set(spec(object), "finalizers", json!(["kubernetes"]));
    set(fields(&mut object["status"]), "phase", json!("Active"));
}

fn node(object: &mut Value) {
    let (one, all) = (text(object, "/spec/podCIDR").to_owned(), items(object, "/spec/podCIDRs").to_vec());
    let spec = spec(object);
    match (one.is_empty(), all.first()) {
        (true, Some(first)) => set(spec, "podCIDR", first.clone()),
        (false, None) => set(spec, "podCIDRs", json!([one])),
        (true, None) | (false, Some(_)) => {}
    }
}

fn service(object: &mut Value) {
    let spec = spec(object);
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    for port in each(spec.get_mut("ports")) {
        set(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        let is_unset = matches!(port.get("targetPort"), None | Some(Value::Null)) || port["targetPort"] == json!("");
        if is_unset && kind != "ExternalName" {
            port.insert("targetPort".into(), number);
        }
    }
    let is_balanced = kind == "LoadBalancer";
    let status = fields(&mut object["status"]);
    set(status, "loadBalancer", json!({}));
    if !is_balanced {
        status.insert("loadBalancer".into(), json!({}));
    }
}

fn secret(object: &mut Value) {
    let fields = fields(object);
    set(fields, "type", json!("Opaque"));
    encode(fields);
}

/// `stringData` is only a way to write `data`.
pub(crate) fn encode(secret: &mut Map<String, Value>) {
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = fields(secret.entry("data").or_insert_with(|| json!({})));
    for (name, text) in texts {
        data.insert(name, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
    }
}

fn deployment(object: &mut Value) {
    let spec = spec(object);
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
    set(spec, "strategy", json!({}));
    let strategy = fields(&mut spec["strategy"]);
    set(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        let rolling = fields(&mut strategy["rollingUpdate"]);
        set(rolling, "maxUnavailable", json!("25%"));
        set(rolling, "maxSurge", json!("25%"));
    }
    template(object);
}

fn daemon_set(object: &mut Value) {
    let spec = spec(object);
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "updateStrategy", json!({}));
    let strategy = fields(&mut spec["updateStrategy"]);
    set(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        let rolling = fields(&mut strategy["rollingUpdate"]);
        set(rolling, "maxUnavailable", json!(1));
        set(rolling, "maxSurge", json!(0));
    }
    template(object);
}

fn stateful_set(object: &mut Value) {
    let spec = spec(object);
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "podManagementPolicy", json!("OrderedReady"));
    set(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    set(spec, "updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    for claim in each(spec.get_mut("volumeClaimTemplates")) {
        set(claim, "apiVersion", json!("v1"));
        set(claim, "kind", json!("PersistentVolumeClaim"));
        set(claim, "status", json!({"phase": "Pending"}));
        set_in(claim.get_mut("spec"), "volumeMode", json!("Filesystem"));
    }
    template(object);
}

fn template(object: &mut Value) {
    let template = fields(spec(object).entry("template").or_insert_with(|| json!({})));
    set(template, "metadata", json!({}));
    if let Some(Value::Object(spec)) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    // The name of before, which is still written beside it.
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "serviceAccount", account);
    }
    let is_on_the_host = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["containers", "initContainers"] {
        for of in each(spec.get_mut(list)) {
            container(of);
            for port in each(of.get_mut("ports")).filter(|_| is_on_the_host) {
                let number = port.get("containerPort").cloned().unwrap_or_default();
                set(port, "hostPort", number);
            }
        }
    }
    each(spec.get_mut("volumes")).for_each(volume);
}

fn container(container: &mut Map<String, Value>) {
    set(container, "resources", json!({}));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let is_latest = !image.contains('@') && (name.ends_with(":latest") || !name.contains(':'));
    set(container, "imagePullPolicy", json!(if is_latest { "Always" } else { "IfNotPresent" }));
    ports_with_protocol(container.get_mut("ports"));
    for variable in each(container.get_mut("env")) {
        set_in(variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")), "apiVersion", json!("v1"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(Value::Object(probe)) = container.get_mut(probe) else { continue };
        for (name, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            set(probe, name, json!(value));
        }
        set_in(probe.get_mut("httpGet"), "scheme", json!("HTTP"));
        set_in(probe.get_mut("httpGet"), "path", json!("/"));
        set_in(probe.get_mut("grpc"), "service", json!(""));
    }
    let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") else { return };
    for hook in lifecycle.values_mut() {
        set_in(hook.get_mut("httpGet"), "scheme", json!("HTTP"));
        set_in(hook.get_mut("httpGet"), "path", json!("/"));
    }
}

fn volume(volume: &mut Map<String, Value>) {
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        set_in(volume.get_mut(source), "defaultMode", json!(0o644));
    }
    set_in(volume.get_mut("hostPath"), "type", json!(""));
    let Some(projected) = volume.get_mut("projected") else { return };
    for source in each(projected.get_mut("sources")) {
        set_in(source.get_mut("serviceAccountToken"), "expirationSeconds", json!(3600));
    }
}

fn network_policy(object: &mut Value) {
    let spec = spec(object);
    let mut types = vec!["Ingress"];
    if spec.get("egress").is_some_and(|rules| rules.as_array().is_some_and(|rules| !rules.is_empty())) {
        types.push("Egress");
    }
    set(spec, "policyTypes", json!(types));
    set(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        for rule in each(spec.get_mut(direction)) {
            ports_with_protocol(rule.get_mut("ports"));
        }
    }
}

fn binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    set_in(object.get_mut("roleRef"), "apiGroup", json!(GROUP));
    for subject in each(object.get_mut("subjects")) {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            set(subject, "apiGroup", json!(GROUP));
        }
    }
}
