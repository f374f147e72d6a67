//! The keys of K3s' `config.yaml` that are written, each with where K3s documents it and what changing it means.
//!
//! A key of the file is the option of the same name without `--` (docs.k3s.io, "Configuration File"), so a key that is
//! no option would stop K3s from starting. What must be equal on all servers is listed on "High Availability Embedded
//! etcd", section "Required Flags"; K3s compares it when a server joins.

/// What may be done with a key once the cluster exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// Changed on this node alone, by a restart of K3s.
    Free,
    /// Changed on all servers, by a restart of all.
    Equal,
    /// Not changed, and the same on all servers.
    FixedAndEqual,
    /// Not changed as long as the node is part of the cluster.
    Fixed,
}

impl Later {
    /// As a sentence of the file, if there is something to say.
    pub fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Free => None,
            Self::Equal => Some("The same on all servers."),
            Self::FixedAndEqual => Some("The same on all servers; cannot be changed once the cluster exists."),
            Self::Fixed => Some("Cannot be changed once the node has joined."),
        }
    }
}

/// A key of `config.yaml`.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What changing it means.
    pub later: Later,
    /// The page of docs.k3s.io that documents it.
    pub documented: &'static str,
}

macro_rules! keys {
    ($($constant:ident = $name:literal $later:ident $documented:literal;)+) => {
        $(pub(super) const $constant: &Key = &Key { name: $name, later: Later::$later, documented: $documented };)+

        /// Every key that can be written, in the order of the file.
        pub const KEYS: &[&Key] = &[$($constant),+];
    };
}

keys! {
    // Starts etcd; where etcd has data already it means nothing.
    CLUSTER_INIT = "cluster-init" Free "datastore/ha-embedded";
    // The supervisor to join by; afterwards K3s remembers all servers.
    SERVER = "server" Free "cli/agent";
    // The object's name in Kubernetes; a second name is a second node.
    NODE_NAME = "node-name" Fixed "cli/agent";
    // Encrypts what joining servers fetch, so that it is the cluster.
    TOKEN_FILE = "token-file" Equal "cli/token";
    // With it an agent joins, and reads nothing of the servers'.
    AGENT_TOKEN_FILE = "agent-token-file" Equal "cli/token";
    // One address of each family; the first is the primary one.
    NODE_IP = "node-ip" Free "networking/basic-network-options";
    // Where VXLAN leaves, and whose MTU counts.
    FLANNEL_IFACE = "flannel-iface" Free "networking/basic-network-options";
    // Dual-stack "must be configured when the cluster is first created".
    CLUSTER_CIDR = "cluster-cidr" FixedAndEqual "networking/basic-network-options";
    SERVICE_CIDR = "service-cidr" FixedAndEqual "networking/basic-network-options";
    CLUSTER_DOMAIN = "cluster-domain" FixedAndEqual "cli/server";
    FLANNEL_BACKEND = "flannel-backend" Equal "networking/basic-network-options";
    // Pods with addresses that are not routed reach the Internet by the node's.
    FLANNEL_IPV6_MASQ = "flannel-ipv6-masq" Equal "networking/basic-network-options";
    // Kubernetes cuts the pod network into one for each node, and keeps what it cut.
    CONTROLLER_MANAGER_ARG = "kube-controller-manager-arg" FixedAndEqual "cli/server";
    // `servicelb` is compared when a server joins.
    DISABLE = "disable" Equal "installation/packaged-components";
    // Names in the certificate of the API; K3s makes another one after a restart.
    TLS_SAN = "tls-san" Free "cli/server";
    SECRETS_ENCRYPTION = "secrets-encryption" Equal "security/secrets-encryption";
    WRITE_KUBECONFIG_MODE = "write-kubeconfig-mode" Free "cli/server";
    NODE_LABEL = "node-label" Free "cli/agent";
    // "Only at registration": afterwards `kubectl taint`.
    NODE_TAINT = "node-taint" Fixed "cli/agent";
}
