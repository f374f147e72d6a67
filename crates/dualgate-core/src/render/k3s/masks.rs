//! How large a network each node gets from the pods'.
//!
//! kube-controller-manager cuts a /24 and a /64 for each node, and refuses to start where a pod network cannot be cut so:
//! it is smaller, or holds more than 2^16 of them. Then another size is asked for, with room for 2^8 nodes if that leaves
//! a node its addresses.

use ipnet::IpNet;

use crate::model::site::{Role, Site};

/// kube-controller-manager cuts into at most 2^16 networks.
const MOST: u8 = 16;
/// As many nodes have room where the size is chosen here: 2^8.
const ROOM: u8 = 8;

/// How a pod network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// As always.
    Usual,
    /// Each node gets a network with this prefix length.
    Into(u8),
    /// There is not enough for all nodes.
    TooSmall,
}

/// How this one is cut.
pub(super) fn cut(site: &Site, net: &IpNet) -> Cut {
    // A node of IPv4 needs at least 14 addresses, one of IPv6 has no use for fewer than 2^8.
    let (usual, least) = if net.addr().is_ipv4() { (24, 28) } else { (64, 120) };
    let members = site.nodes.iter().filter(|node| node.has(Role::Server) || node.has(Role::Agent)).count();
    let prefix = net.prefix_len();
    let fits = |size: u8| size.checked_sub(prefix).is_some_and(|bits| bits <= MOST && 1_usize << bits >= members);
    let other = match prefix.saturating_add(MOST) < usual {
        true => prefix.saturating_add(MOST),
        false => prefix.saturating_add(ROOM).min(least),
    };
    match (fits(usual), fits(other)) {
        (true, _) => Cut::Usual,
        (false, true) => Cut::Into(other),
        (false, false) => Cut::TooSmall,
    }
}

/// What kube-controller-manager is told; empty where the usual sizes fit.
pub(super) fn arguments(site: &Site) -> Vec<String> {
    let argument = |net: &IpNet| match cut(site, net) {
        Cut::Into(size) => {
            let family = if net.addr().is_ipv4() { 4 } else { 6 };
            Some(format!("node-cidr-mask-size-ipv{family}={size}"))
        }
        Cut::Usual | Cut::TooSmall => None,
    };
    site.cluster.pod_cidrs.iter().filter_map(argument).collect()
}
