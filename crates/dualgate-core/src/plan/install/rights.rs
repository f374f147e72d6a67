//! What the pods may do in the cluster: accounts and roles, each with the least that its part needs.
//!
//! The pods of the home nodes read what gates are made of, and the one of them that has the Lease writes what it comes to.
//! An edge is told by home what is public and asks nobody: its account has no rights and no token.

use serde_json::{Value, json};

use super::{EDGE, HOME, LEASE, NAMESPACE, labels};
use crate::model::NodeName;
use crate::model::site::Site;

/// What gates are made of: complete lists, kept up to date.
pub const READ: [(&str, &[&str]); 3] = [
    ("", &["namespaces", "nodes", "secrets", "services"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingressclasses", "ingresses"]),
];

/// Accounts and roles of a site, and of the edges that run as pods.
pub(super) fn rights(site: &Site, edges: &[NodeName]) -> Vec<Value> {
    let mut objects = vec![account(HOME, "home", true)];
    if !edges.is_empty() {
        objects.push(account(EDGE, "edge", false));
    }
    for (name, rules) in [("dualgate-read", read()), ("dualgate-write", write(site))] {
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels("rights")}, "rules": rules,
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": labels("rights")},
            "roleRef": reference("ClusterRole", name), "subjects": [subject(HOME)],
        }));
    }
    let metadata = json!({"name": "dualgate-lease", "namespace": NAMESPACE, "labels": labels("rights")});
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": lease(),
    }));
    objects.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": reference("Role", "dualgate-lease"), "subjects": [subject(HOME)],
    }));
    objects
}

fn account(name: &str, component: &str, has_token: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels(component)},
        "automountServiceAccountToken": has_token,
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

fn subject(account: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE})
}

fn read() -> Vec<Value> {
    let rule = |(group, resources): &(&str, &[&str])| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    READ.iter().map(rule).collect()
}

/// Where a gate is, is written into statuses. A label that an agent may not give itself is written to the edges alone.
fn write(site: &Site) -> Vec<Value> {
    let mut rules = vec![
        json!({"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]}),
        json!({"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch"]}),
        json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}),
    ];
    let edges = site.nodes.iter().filter(|node| node.is_edge());
    let edges: Vec<&str> = edges.map(|node| node.name.as_str()).collect();
    if !edges.is_empty() {
        rules.push(json!({"apiGroups": [""], "resources": ["nodes"], "resourceNames": edges, "verbs": ["patch"]}));
    }
    rules
}

/// A rule cannot name what is yet to be created.
fn lease() -> Value {
    json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [LEASE],
            "verbs": ["get", "update"],
        },
    ])
}
