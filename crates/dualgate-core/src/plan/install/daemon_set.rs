//! The pods: one on each home node, and one on each edge that is to run its gate in the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path};

use serde_json::{Value, json};

use super::{EDGE, HOME, NAMESPACE, SITE, SITE_FILE, labels};
use crate::model::NodeName;
use crate::model::site::{HomeEnd, Provider, ProviderAccess, Site};
use crate::model::upstream::{Upstream, UpstreamProtocol};

/// Where state is kept, on the node and in the pod.
pub(super) const STATE: &str = "/var/lib/dualgate";
/// Where the site file is in the pod.
const SITE_FOLDER: &str = "/etc/dualgate";
const TUN: &str = "/dev/net/tun";
/// The authorities that the node believes, as Debian, Ubuntu and Alpine have them: the image has none of its own.
const AUTHORITIES: &str = "/etc/ssl/certs";

/// Addresses are handed over, and the tunnel is taken down, beside the requests that are still open.
const MARGIN_SECONDS: u64 = 15;

/// Whether a pod could write a file there: everything else is read-only.
pub(super) fn can_write(path: &str) -> bool {
    path == "-" || path.starts_with("/dev/std") || is_kept(path)
}

/// Whether a file there is the node's, and stays.
pub(super) fn is_kept(path: &str) -> bool {
    let leads_out = Path::new(path).components().any(|part| part == Component::ParentDir);
    Path::new(path).starts_with(STATE) && !leads_out
}

/// The gates of home. They read the cluster, and are told by nobody.
pub(super) fn home(site: &Site, image: &str, nodes: &[NodeName]) -> Value {
    let tunnelled = site.tunnel.as_ref().is_some_and(|tunnel| tunnel.home_end == HomeEnd::Nodes);
    daemon_set(
        site,
        &Gate { name: HOME, component: "home", source: "cluster", image, nodes, tunnelled, believes: believes(site) },
    )
}

/// Whether somebody is spoken to by TLS whose certificate only authorities vouch for.
fn believes(site: &Site) -> bool {
    let Some(dns) = &site.dns else { return false };
    let of_zones = dns.forward_zones.iter().flat_map(|zone| &zone.to);
    let is_encrypted = |upstream: &Upstream| match upstream.protocol {
        UpstreamProtocol::Plain => false,
        UpstreamProtocol::Tls { .. } | UpstreamProtocol::Https { .. } => dns.forward_authorities.is_none(),
    };
    let is_certified = |provider: &Provider| match &provider.access {
        ProviderAccess::Rfc2136 { .. } => false,
        ProviderAccess::Webhook { url } => url.starts_with("https:"),
        ProviderAccess::Ionos { .. } | ProviderAccess::Cloudflare { .. } => true,
    };
    dns.forward.iter().chain(of_zones).any(is_encrypted) || dns.providers.values().any(is_certified)
}

/// The gates of edges. Home tells them what is public.
pub(super) fn edge(site: &Site, image: &str, nodes: &[NodeName]) -> Value {
    let tunnelled = site.tunnel.is_some();
    daemon_set(site, &Gate { name: EDGE, component: "edge", source: "home", image, nodes, tunnelled, believes: false })
}

struct Gate<'a> {
    name: &'a str,
    component: &'a str,
    source: &'a str,
    image: &'a str,
    nodes: &'a [NodeName],
    /// Whether these nodes hold an end of the tunnel.
    tunnelled: bool,
    /// Whether they need the node's authorities.
    believes: bool,
}

fn daemon_set(site: &Site, gate: &Gate<'_>) -> Value {
    let labels = labels(gate.component);
    let selector = json!({
        "app.kubernetes.io/component": gate.component,
        "app.kubernetes.io/name": "dualgate",
    });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": gate.name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            "revisionHistoryLimit": 3,
            // Two pods of one node would want the same ports of the host, so the old one goes first (no `maxSurge`); the
            // other nodes have its addresses meanwhile, so only one at a time.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod(site, gate)},
        },
    })
}

fn pod(site: &Site, gate: &Gate<'_>) -> Value {
    let reads_cluster = gate.name == HOME;
    json!({
        "serviceAccountName": gate.name,
        "automountServiceAccountToken": reads_cluster,
        "enableServiceLinks": false,
        "priorityClassName": "system-node-critical",
        "hostNetwork": true,
        // The node's own resolvers: the cluster's are pods, which a gate must not wait for, and a gate that answers DNS
        // would ask itself.
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": grace_seconds(site),
        // The nodes are named below; no taint says more than that.
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
            "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": gate.nodes}],
        }]}}},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container(site, gate)],
        "volumes": volumes(gate),
    })
}

/// SIGTERM begins the drain, so that no hook is needed before it.
fn grace_seconds(site: &Site) -> u64 {
    let drain = site.proxy.accept_grace + site.proxy.drain_timeout;
    drain.as_millis().div_ceil(1000) as u64 + MARGIN_SECONDS
}

/// No ports are listed: the scheduler would keep the pod off a node where another one claims 80, although a gate
/// listens on its own addresses only.
fn container(site: &Site, gate: &Gate<'_>) -> Value {
    let mut container = json!({
        "name": "dualgate",
        "image": gate.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "run", "--site", format!("{SITE_FOLDER}/{SITE_FILE}"), "--source", gate.source, "--node", "$(NODE_NAME)",
        ],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            // Also for `kubectl exec POD -- dualgate keys show-public`.
            {"name": "STATE_DIRECTORY", "value": STATE},
        ],
        "workingDir": SITE_FOLDER,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            // Root with these three capabilities and no more. Another user would need them from the file, which
            // `allowPrivilegeEscalation: false` forbids: Kubernetes knows no ambient capabilities.
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"]},
        },
        "volumeMounts": mounts(gate),
    });
    if let Some(listener) = probed(site) {
        let probe = |path: &str, period: u32, failures: u32| {
            json!({
                "httpGet": {"host": listener.ip(), "port": listener.port(), "path": path},
                "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures,
            })
        };
        container["readinessProbe"] = probe("/readyz", 5, 2);
        container["livenessProbe"] = probe("/livez", 10, 6);
    }
    container
}

/// Where the kubelet, which is in the same network, asks. An address of one node would be wrong at the others, so
/// loopback is taken if it is there.
fn probed(site: &Site) -> Option<SocketAddr> {
    let listeners = &site.admin.listen;
    let listener = listeners.iter().find(|listener| listener.ip().is_loopback()).or_else(|| listeners.first())?;
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(SocketAddr::new(ip, listener.port()))
}

fn volumes(gate: &Gate<'_>) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": "site", "configMap": {"name": SITE}}),
        json!({"name": "state", "hostPath": {"path": STATE, "type": "DirectoryOrCreate"}}),
    ];
    if gate.tunnelled {
        volumes.push(json!({"name": "tun", "hostPath": {"path": TUN, "type": "CharDevice"}}));
    }
    if gate.believes {
        // Without a type: a node without the folder is no reason not to serve.
        volumes.push(json!({"name": "authorities", "hostPath": {"path": AUTHORITIES}}));
    }
    volumes
}

/// The site's folder as a whole: a file of its own (`subPath`) would stay as it was when the ConfigMap changes.
fn mounts(gate: &Gate<'_>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"name": "site", "mountPath": SITE_FOLDER, "readOnly": true}),
        json!({"name": "state", "mountPath": STATE}),
    ];
    if gate.tunnelled {
        mounts.push(json!({"name": "tun", "mountPath": TUN}));
    }
    if gate.believes {
        mounts.push(json!({"name": "authorities", "mountPath": AUTHORITIES, "readOnly": true}));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_writes_only_where_it_may() {
        for path in ["-", "/dev/stdout", "/var/lib/dualgate/access.log"] {
            assert!(can_write(path), "{path}");
        }
        for path in ["/var/log/access.log", "access.log", "/var/lib/dualgate/../x", "/var/lib/dualgates"] {
            assert!(!can_write(path), "{path}");
        }
    }
}
