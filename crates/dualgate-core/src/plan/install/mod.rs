//! What is installed into a cluster: the objects of Kubernetes under which dualgate runs there.
//!
//! A function of the site and of three choices (the image, which edges run in the cluster, and which home nodes do not). What they are applied with
//! and how they are told from those of others is in [`apply_set`]; what of them is different in a cluster is in
//! [`changes`]; whether they run is in [`rollout`]. None of these talks to a cluster: `dualgate-kube` does.

pub mod apply_set;
pub mod changes;
mod daemon_set;
pub mod object;
mod rights;
pub mod rollout;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::NodeName;
use crate::model::site::{CONTROLLER, Node, Provider, ProviderAccess, Role, Site};

/// The namespace of everything that is dualgate's own.
pub const NAMESPACE: &str = "dualgate-system";
/// The name under which dualgate writes fields (`metadata.managedFields`).
pub const FIELD_MANAGER: &str = "dualgate";
/// The Lease of who writes for the whole site.
pub const LEASE: &str = "dualgate";
/// The ConfigMap that holds the site file.
pub const SITE: &str = "dualgate-site";
/// The site file's key in it, and its name in the pods.
pub const SITE_FILE: &str = "site.yaml";
/// The DaemonSet of the home nodes, and its account.
pub const HOME: &str = "dualgate-home";
/// The DaemonSet of the edges, and its account.
pub const EDGE: &str = "dualgate-edge";
/// The IngressClass where the site file gives it no name.
pub const CLASS: &str = "dualgate";

/// What the API server allows in a ConfigMap.
const MAX_CONFIG_MAP: usize = 1 << 20;

/// What is chosen beside the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The container image.
    pub image: String,
    /// The text of the site file.
    pub site_file: String,
    /// The edges, K3s agents, whose gate runs as a pod.
    pub edges: Vec<NodeName>,
    /// The home nodes on which dualgate runs as a service of the host, and so no pod.
    pub services: Vec<NodeName>,
}

/// What is to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installation {
    /// The objects, each behind those that it needs.
    pub objects: Vec<Value>,
    /// The nodes that each DaemonSet is for.
    pub nodes: BTreeMap<&'static str, Vec<NodeName>>,
}

/// Why a site cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// No node of home is in the cluster.
    #[error("no home node of the site is in a cluster; give those that run K3s the role `server` or `agent`")]
    NoHomeNode,
    /// There is no such node.
    #[error("the site has no node `{0}`")]
    NoSuchNode(NodeName),
    /// It is not an edge.
    #[error("`{0}` is no edge: its gate is the internal one, and runs with those of the home nodes")]
    NoEdge(NodeName),
    /// No pod would be there anyway.
    #[error("no pod would run on `{0}` anyway: it is an edge, or runs no K3s")]
    NoPod(NodeName),
    /// It runs no K3s.
    #[error(
        "the edge `{0}` runs no K3s, so that no pod can be there; give it the role `agent`, or install dualgate on it as a service"
    )]
    NoAgent(NodeName),
    /// Nobody could write it.
    #[error("the access log `{0}` cannot be written in a pod; use `-`, or a file below `{state}`", state = daemon_set::STATE)]
    AccessLog(String),
    /// Nobody could read it.
    #[error("`{0}` is not to be seen in a pod; put it below `{state}` on every home node", state = daemon_set::STATE)]
    Unseen(String),
    /// A ConfigMap cannot hold it.
    #[error("the site file has {0} octets; a ConfigMap holds {MAX_CONFIG_MAP}")]
    TooLarge(usize),
}

/// The objects of a site.
///
/// # Errors
///
/// If no cluster could run it.
pub fn install(site: &Site, options: &Options) -> Result<Installation, InstallError> {
    let mut home = home_nodes(site);
    let edges = edges(site, &options.edges)?;
    if home.is_empty() {
        return Err(InstallError::NoHomeNode);
    }
    for name in &options.services {
        site.node(name).ok_or_else(|| InstallError::NoSuchNode(name.clone()))?;
        if !home.contains(name) {
            return Err(InstallError::NoPod(name.clone()));
        }
    }
    home.retain(|node| !options.services.contains(node));
    if options.site_file.len() > MAX_CONFIG_MAP {
        return Err(InstallError::TooLarge(options.site_file.len()));
    }
    if let Some(log) = &site.proxy.access_log
        && !daemon_set::can_write(&log.path)
    {
        return Err(InstallError::AccessLog(log.path.clone()));
    }
    if let Some(file) = files(site).into_iter().find(|file| !daemon_set::is_kept(file)) {
        return Err(InstallError::Unseen(file));
    }
    let mut objects = vec![namespace()];
    objects.extend(rights::rights(site, &edges));
    objects.extend(classes(site));
    objects.push(site_file(&options.site_file));
    let mut nodes = BTreeMap::new();
    if !home.is_empty() {
        objects.push(daemon_set::home(site, &options.image, &home));
        nodes.insert(HOME, home);
    }
    if !edges.is_empty() {
        objects.push(daemon_set::edge(site, &options.image, &edges));
        nodes.insert(EDGE, edges);
    }
    Ok(Installation { objects, nodes })
}

/// What is read of the node besides the site file.
fn files(site: &Site) -> Vec<String> {
    let Some(dns) = &site.dns else { return Vec::new() };
    let of_provider = |provider: &Provider| match &provider.access {
        ProviderAccess::Rfc2136 { secret_file, .. } => Some(secret_file.clone()),
        ProviderAccess::Ionos { token_file, .. } | ProviderAccess::Cloudflare { token_file, .. } => {
            Some(token_file.clone())
        }
        ProviderAccess::Webhook { .. } => None,
    };
    let authorities = dns.forward_authorities.iter().map(|path| path.display().to_string());
    dns.providers.values().filter_map(of_provider).chain(authorities).collect()
}

fn is_member(node: &Node) -> bool {
    node.has(Role::Server) || node.has(Role::Agent)
}

fn home_nodes(site: &Site) -> Vec<NodeName> {
    let home = site.nodes.iter().filter(|node| !node.is_edge() && is_member(node));
    home.map(|node| node.name.clone()).collect()
}

fn edges(site: &Site, named: &[NodeName]) -> Result<Vec<NodeName>, InstallError> {
    for name in named {
        let node = site.node(name).ok_or_else(|| InstallError::NoSuchNode(name.clone()))?;
        if !node.is_edge() {
            return Err(InstallError::NoEdge(name.clone()));
        }
        if !is_member(node) {
            return Err(InstallError::NoAgent(name.clone()));
        }
    }
    let known = site.nodes.iter().map(|node| &node.name).filter(|name| named.contains(name));
    Ok(known.cloned().collect())
}

fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "dualgate",
        "app.kubernetes.io/name": "dualgate",
    })
}

/// The host's network, its devices and its state are what these pods are for, and what only `privileged` lets pass.
fn namespace() -> Value {
    let mut labels = labels("namespace");
    for mode in ["enforce", "audit", "warn"] {
        labels[format!("pod-security.kubernetes.io/{mode}")] = "privileged".into();
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
}

fn site_file(text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": SITE, "namespace": NAMESPACE, "labels": labels("site")},
        "data": {SITE_FILE: text},
    })
}

/// The classes of our own controller. Those of others, such as Traefik's, are theirs: where dualgate serves them as
/// well, it needs nothing in the cluster to do so.
fn classes(site: &Site) -> Vec<Value> {
    let ours = || site.classes.iter().filter(|class| class.controller == CONTROLLER);
    let is_named = ours().any(|class| class.name.is_some());
    let mut made = BTreeMap::new();
    // A class without a name stands for all of them; beside one with a name it adds nothing, unless it is the default.
    for class in ours().filter(|class| class.name.is_some() || class.is_default || !is_named) {
        *made.entry(class.name.as_deref().unwrap_or(CLASS)).or_default() |= class.is_default;
    }
    made.into_iter().map(|(name, is_default)| ingress_class(name, is_default)).collect()
}

fn ingress_class(name: &str, is_default: bool) -> Value {
    let mut metadata = json!({"name": name, "labels": labels("ingress-class")});
    if is_default {
        metadata["annotations"] = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": metadata, "spec": {"controller": CONTROLLER},
    })
}
