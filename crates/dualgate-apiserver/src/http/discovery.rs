//! What clients ask before they ask for objects: which groups, versions and resources there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::kinds::{Kind, Kinds};

/// Which release of Kubernetes it behaves as.
pub(crate) const VERSION: &str = "v1.36.0";

pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

pub(super) fn groups(kinds: &Kinds) -> Value {
    let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.group.as_str()).filter(|name| !name.is_empty()).collect();
    let groups: Vec<Value> = names.into_iter().filter_map(|name| described(kinds, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let mut group = described(kinds, name)?;
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

fn described(kinds: &Kinds, name: &str) -> Option<Value> {
    let of_group = kinds.iter().filter(|kind| kind.group == name && !name.is_empty());
    let versions: BTreeSet<&str> = of_group.map(|kind| kind.version.as_str()).collect();
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    // `v1` before `v1beta1`: the shortest is the most stable.
    let preferred = versions.iter().min_by_key(|version| version.len()).map(version)?;
    let versions: Vec<Value> = versions.iter().map(version).collect();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

pub(super) fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let of_version = kinds.iter().filter(|kind| kind.group == group && kind.version == version);
    let by_name: BTreeMap<String, Value> = of_version.flat_map(|kind| described_resources(kind)).collect();
    if by_name.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resources: Vec<Value> = by_name.into_values().collect();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

fn described_resources(kind: &Kind) -> Vec<(String, Value)> {
    const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let resource = |name: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": kind.is_namespaced(), "kind": kind.kind, "verbs": verbs});
    let mut main = resource(&kind.plural, &VERBS);
    main["singularName"] = json!(kind.singular());
    if !kind.short_names.is_empty() {
        main["shortNames"] = json!(kind.short_names);
    }
    if ["pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets"].contains(&kind.plural.as_str())
    {
        main["categories"] = json!(["all"]);
    }
    let mut resources = vec![(kind.plural.clone(), main)];
    if kind.has_status() {
        let name = format!("{}/status", kind.plural);
        resources.push((name.clone(), resource(&name, &["get", "patch", "update"])));
    }
    resources
}

/// The schema of nothing, so that clients which look for one find that there is none: `kubectl` then checks nothing.
pub(super) fn open_api() -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": {}})
}

/// The same as the protobuf message `openapi.v2.Document`: `swagger` is its field 1, `info` with `title` and `version` 2.
pub(super) fn open_api_protobuf() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let info = [field(1, b"Kubernetes"), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info)].concat()
}
