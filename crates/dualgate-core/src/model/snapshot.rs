//! The immutable middle of the river: everything known at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::assignment::Assignments;
use super::names::NodeName;
use super::object::ObjectSet;
use super::site::Site;

/// Counts snapshots within one process, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Everything known at one moment. Planners read it and nothing else.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which one this is.
    pub generation: Generation,
    /// The site file's content.
    pub site: Arc<Site>,
    /// The source's objects.
    pub objects: Arc<ObjectSet>,
    /// What the world looked like.
    pub facts: Facts,
}

/// What the world looked like when the snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Wall clock in seconds since 1970, for certificates' validity.
    pub now: i64,
    /// The addresses that Services have.
    pub assigned: Arc<Assignments>,
    /// Who carries packets for Services to pods on this node.
    pub service_proxy: ServiceProxy,
    /// The edges that home has not heard for a while: whoever comes to one of them gets no further.
    pub silent_edges: Arc<BTreeSet<NodeName>>,
}

/// Who carries packets for Services (cluster IPs, LoadBalancer addresses) to pods on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceProxy {
    /// Nobody: dualgate forwards itself.
    #[default]
    Absent,
    /// kube-proxy with iptables or nftables: the address need not be on any interface.
    Translating,
    /// kube-proxy with IPVS: the address is on every node's `kube-ipvs0`.
    Ipvs {
        /// Whether the kernel keeps silent about it (`strictARP`): otherwise every node answers ARP.
        strict_arp: bool,
    },
}
