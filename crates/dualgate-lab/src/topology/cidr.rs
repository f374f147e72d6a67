//! Which pod networks a node has.

use dualgate_core::model::site::{Node, Role, Site};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The prefixes that K3s cuts from the cluster's networks (`--node-cidr-mask-size-ipv4`, `-ipv6`).
const NODE_PREFIX: u8 = 24;
const NODE_PREFIX6: u8 = 64;

/// The pod networks of a node, one of each family that the cluster has: as the site file says, else the node's share of the
/// cluster's. A node that is no member of the cluster has none.
pub fn pod_cidrs(site: &Site, node: &Node) -> Vec<IpNet> {
    if !node.pod_cidrs.is_empty() {
        return node.pod_cidrs.clone();
    }
    let Some(index) = members(site).position(|member| member.name == node.name) else { return Vec::new() };
    site.cluster.pod_cidrs.iter().filter_map(|cluster| share(*cluster, index)).collect()
}

/// The nodes that run pods: those with K3s on them, else those at home, else all.
pub fn members(site: &Site) -> Box<dyn Iterator<Item = &Node> + '_> {
    let runs_k3s = |node: &&Node| node.has(Role::Server) || node.has(Role::Agent);
    if site.nodes.iter().any(|node| runs_k3s(&node)) {
        return Box::new(site.nodes.iter().filter(runs_k3s));
    }
    if site.nodes.iter().any(|node| !node.is_edge()) {
        return Box::new(site.nodes.iter().filter(|node| !node.is_edge()));
    }
    Box::new(site.nodes.iter())
}

/// The part of a cluster's network that the node of this number gets.
fn share(cluster: IpNet, index: usize) -> Option<IpNet> {
    match cluster {
        IpNet::V4(net) if net.prefix_len() <= NODE_PREFIX => {
            let offset = u32::try_from(index).ok()?.checked_shl(32 - u32::from(NODE_PREFIX))?;
            let first = u32::from(net.network()).checked_add(offset)?;
            let share = Ipv4Net::new(first.into(), NODE_PREFIX).ok()?;
            net.contains(&share).then_some(share.into())
        }
        IpNet::V6(net) if net.prefix_len() <= NODE_PREFIX6 => {
            let offset = u128::try_from(index).ok()?.checked_shl(128 - u32::from(NODE_PREFIX6))?;
            let first = u128::from(net.network()).checked_add(offset)?;
            let share = Ipv6Net::new(first.into(), NODE_PREFIX6).ok()?;
            net.contains(&share).then_some(share.into())
        }
        // Smaller than one share: all of it for the only node.
        small => (index == 0).then_some(small),
    }
}
