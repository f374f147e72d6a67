//! Networks and families: masks, overlaps, and a family that is missing where both are used.

use ipnet::IpNet;

use super::Report;
use crate::model::site::{Role, Site};
use crate::model::{Code, Family};

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    one_per_family("cluster.podCIDRs", &site.cluster.pod_cidrs, report);
    one_per_family("cluster.serviceCIDRs", &site.cluster.service_cidrs, report);
    overlaps(site, report);
    node_networks_inside_the_clusters(site, report);
    service_masks(site, report);
    pod_masks(site, report);
    families(site, report);
}

fn family(net: &IpNet) -> Family {
    Family::of(net.addr())
}

fn share(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn one_per_family(field: &str, nets: &[IpNet], report: &mut Report<'_>) {
    for (index, net) in nets.iter().enumerate() {
        if nets[..index].iter().any(|earlier| family(earlier) == family(net)) {
            let message = format!("`{net}` is a second {} network; Kubernetes takes one of each family", family(net));
            report.add(Code::SiteValue, format!("{field}[{index}]"), message, "leave one of them out");
        }
    }
}

/// What a network is for. Pods of a node are part of the cluster's pods, so that these two may overlap.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Lan,
    ClusterPods,
    NodePods,
    Services,
}

fn overlaps(site: &Site, report: &mut Report<'_>) {
    let list = |field: &str, nets: &[IpNet], what: Use| -> Vec<_> {
        nets.iter().enumerate().map(|(index, net)| (format!("{field}[{index}]"), *net, what)).collect()
    };
    let mut all = list("lan.subnets", &site.lan.subnets, Use::Lan);
    all.extend(list("cluster.podCIDRs", &site.cluster.pod_cidrs, Use::ClusterPods));
    all.extend(list("cluster.serviceCIDRs", &site.cluster.service_cidrs, Use::Services));
    for (index, node) in site.nodes.iter().enumerate() {
        all.extend(list(&format!("nodes[{index}].podCIDRs"), &node.pod_cidrs, Use::NodePods));
    }
    for (index, (field, net, what)) in all.iter().enumerate() {
        let part = |other: Use| *what == Use::NodePods && other == Use::ClusterPods;
        let Some((other, with, _)) = all[..index].iter().find(|(_, with, other)| !part(*other) && share(with, net))
        else {
            continue;
        };
        let message = format!("`{net}` overlaps with `{with}` (`{other}`)");
        report.add(
            Code::SiteOverlap,
            field,
            message,
            "networks that route to different places must not share addresses",
        );
    }
}

fn node_networks_inside_the_clusters(site: &Site, report: &mut Report<'_>) {
    let pods = &site.cluster.pod_cidrs;
    for (index, node) in site.nodes.iter().enumerate() {
        for (position, net) in node.pod_cidrs.iter().enumerate() {
            if !pods.is_empty() && !pods.iter().any(|cluster| cluster.contains(net)) {
                let field = format!("nodes[{index}].podCIDRs[{position}]");
                let message = format!("`{net}` of node `{}` lies outside `cluster.podCIDRs`", node.name);
                report.add(Code::SiteOutside, field, message, "use the node's `spec.podCIDRs`");
            }
        }
    }
}

fn service_masks(site: &Site, report: &mut Report<'_>) {
    for (index, net) in site.cluster.service_cidrs.iter().enumerate() {
        let least = match family(net) {
            Family::V4 => 12,
            Family::V6 => 112,
        };
        if net.prefix_len() < least {
            let message = format!("`{net}` is larger than K3s accepts for Services");
            let help = format!("use a prefix of /{least} or longer");
            report.add(Code::SiteTrap, format!("cluster.serviceCIDRs[{index}]"), message, help);
        }
    }
}

/// kube-controller-manager gives each node a /24 and a /64 unless told otherwise, at most 2^16 of them.
fn pod_masks(site: &Site, report: &mut Report<'_>) {
    let members = site.nodes.iter().filter(|node| node.has(Role::Server) || node.has(Role::Agent)).count();
    for (index, net) in site.cluster.pod_cidrs.iter().enumerate() {
        let (of_node, flag) = match family(net) {
            Family::V4 => (24u8, "node-cidr-mask-size-ipv4"),
            Family::V6 => (64, "node-cidr-mask-size-ipv6"),
        };
        let field = format!("cluster.podCIDRs[{index}]");
        let help =
            format!("change the network, or K3s' `kube-controller-manager-arg={flag}=…` before the cluster is made");
        let Some(bits) = u32::from(of_node).checked_sub(u32::from(net.prefix_len())) else {
            let message = format!("`{net}` is smaller than the /{of_node} that each node gets");
            report.add(Code::SiteTrap, field, message, help);
            continue;
        };
        let room = 1u128 << bits;
        if bits > 16 {
            let message =
                format!("`{net}` is too large to be cut into /{of_node} networks of nodes (at most 2^16 of them)");
            report.add(Code::SiteTrap, field, message, help);
        } else if room < members as u128 {
            let message = format!("`{net}` has room for {room} of {members} nodes, as each gets a /{of_node}");
            report.add(Code::SiteTrap, field, message, help);
        }
    }
}

/// When anything in the site has both families, everything that clients or pods rely on needs both.
fn families(site: &Site, report: &mut Report<'_>) {
    let mut groups: Vec<(String, String, Vec<Family>)> = Vec::new();
    let mut group = |field: String, what: String, families: Vec<Family>| groups.push((field, what, families));
    let of_nets = |nets: &[IpNet]| nets.iter().map(family).collect();
    group("lan.subnets".into(), "the LAN".into(), of_nets(&site.lan.subnets));
    group("cluster.podCIDRs".into(), "the pod network".into(), of_nets(&site.cluster.pod_cidrs));
    group("cluster.serviceCIDRs".into(), "the Service network".into(), of_nets(&site.cluster.service_cidrs));
    for (index, node) in site.nodes.iter().enumerate() {
        let of = |addresses: &[std::net::IpAddr]| addresses.iter().copied().map(Family::of).collect();
        group(format!("nodes[{index}].addresses"), format!("node `{}`", node.name), of(&node.addresses));
        let public = format!("the public side of node `{}`", node.name);
        group(format!("nodes[{index}].publicAddresses"), public, of(&node.public_addresses));
    }
    for (index, pool) in site.pools.iter().enumerate() {
        let of = pool.ranges.iter().map(|range| range.family()).collect();
        group(format!("pools[{index}].addresses"), format!("pool `{}`", pool.name), of);
    }
    for (name, gate) in &site.gates {
        let of = gate.addresses.iter().copied().map(Family::of).collect();
        group(format!("gates.{name}.addresses"), format!("the {name} gate"), of);
    }
    let used = |family| groups.iter().any(|(_, _, families)| families.contains(&family));
    if !(used(Family::V4) && used(Family::V6)) {
        return;
    }
    for (field, what, families) in groups.iter().filter(|(_, _, families)| !families.is_empty()) {
        for (missing, present) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            if !families.contains(&missing) {
                let message = format!("{what} has {present} only, while the site uses both families");
                report.add(Code::SiteFamily, field, message, format!("add {missing}, or leave it out everywhere"));
            }
        }
    }
}
