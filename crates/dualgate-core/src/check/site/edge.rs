//! The edge and the way to it: tunnel, MTU, what the provider's firewall must let in, K3s out there.

use std::net::IpAddr;

use super::role::any_contains;
use super::{Report, enumerate};
use crate::model::object::Protocol;
use crate::model::site::{EntryProtocol, Node, Role, Site, Tunnel, Uplink};
use crate::model::{Code, Family, Finding, GateName, Severity};

/// Largest inner MTU that fits DS-Lite over PPPoE, whichever family carries it: 1492 - 40 - 60.
const SAFE_MTU: u16 = 1392;
/// Largest inner MTU over IPv6 on Ethernet: 1500 - 80.
const LARGEST_MTU: u16 = 1420;
/// RFC 8200 5.
const IPV6_MTU: u16 = 1280;

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    let edges: Vec<(usize, &Node)> = site.nodes.iter().enumerate().filter(|(_, node)| node.is_edge()).collect();
    let home = || site.nodes.iter().any(|node| !node.is_edge());
    home_has_no_public_address(site, report);
    match (&site.tunnel, edges.first()) {
        (None, Some((index, edge))) if home() && !stands_at_home(site, edge) => {
            let message = format!("nothing connects home with the edge `{}`", edge.name);
            report.add(Code::SiteMissing, format!("nodes[{index}]"), message, "add `tunnel: {}`");
        }
        (Some(_), None) => {
            let message = "there is a tunnel, but no node outside home that it could lead to";
            report.add(
                Code::SiteRole,
                "tunnel",
                message,
                "give the edge the role `external-gate`, or leave `tunnel` out",
            );
        }
        (Some(tunnel), Some(_)) => {
            mtu(site, tunnel, report);
            udp_ports(site, tunnel, report);
            for (index, edge) in edges {
                reachable_from_home(site, index, edge, report);
                inside_the_lan(site, index, edge, report);
                kubernetes_at_the_edge(site, tunnel, index, edge, report);
            }
            provider_firewall(site, tunnel, report);
        }
        (None, _) => {}
    }
}

/// Families in which the router's own uplink has a public address.
fn uplink_has(uplink: Uplink, family: Family) -> bool {
    match (uplink, family) {
        (Uplink::DualStack, Family::V4 | Family::V6)
        | (Uplink::Ipv4Only, Family::V4)
        | (Uplink::DsLite | Uplink::Cgnat | Uplink::Ipv6Only, Family::V6) => true,
        (Uplink::DsLite | Uplink::Cgnat | Uplink::Ipv6Only, Family::V4) | (Uplink::Ipv4Only, Family::V6) => false,
    }
}

fn uplink(site: &Site) -> Uplink {
    site.lan.router.as_ref().map_or(Uplink::DualStack, |router| router.uplink)
}

/// An external gate on the LAN itself, whose public addresses the home line can have.
fn stands_at_home(site: &Site, node: &Node) -> bool {
    let line_has = |address: &IpAddr| uplink_has(uplink(site), Family::of(*address));
    let on_lan = node.addresses.iter().any(|address| any_contains(&site.lan.subnets, *address));
    on_lan && node.public_addresses.iter().all(line_has)
}

fn home_has_no_public_address(site: &Site, report: &mut Report<'_>) {
    for (index, node) in site.nodes.iter().enumerate().filter(|(_, node)| !node.is_edge()) {
        for (position, address) in node.public_addresses.iter().enumerate() {
            if !uplink_has(uplink(site), Family::of(*address)) {
                let field = format!("nodes[{index}].publicAddresses[{position}]");
                let message =
                    format!("the home line has no public {} address that could be `{address}`", Family::of(*address));
                report.add(Code::SiteTrap, field, message, "such traffic must come in at an edge");
            }
        }
    }
}

fn mtu(site: &Site, tunnel: &Tunnel, report: &mut Report<'_>) {
    let v6 = site.nodes.iter().flat_map(|node| &node.addresses).any(IpAddr::is_ipv6);
    let mtu = tunnel.mtu;
    if mtu < IPV6_MTU && v6 {
        let message = format!("an MTU of {mtu} is too small for IPv6, which needs {IPV6_MTU}");
        report.add(Code::SiteValue, "tunnel.mtu", message, format!("use {SAFE_MTU}"));
    } else if mtu > LARGEST_MTU {
        let message = format!("an MTU of {mtu} does not fit: WireGuard over IPv6 adds 80 octets to at most 1500");
        report.add(Code::SiteTrap, "tunnel.mtu", message, format!("use {SAFE_MTU}"));
    } else if mtu > SAFE_MTU && uplink(site) == Uplink::DsLite {
        let message = format!("an MTU of {mtu} loses large packets on DS-Lite over PPPoE, where IPv4 has 1452 octets");
        report.add(Code::SiteTrap, "tunnel.mtu", message, format!("use {SAFE_MTU}, unless the line was measured"));
    }
}

fn udp_ports(site: &Site, tunnel: &Tunnel, report: &mut Report<'_>) {
    let gate = site.gates.get(&GateName::External);
    let http3 = gate.is_some_and(|gate| {
        gate.entry_points.values().any(|point| point.protocol == EntryProtocol::Https && point.port == tunnel.port)
    });
    let dns = tunnel.port == 53 && site.dns.as_ref().is_some_and(|dns| dns.public);
    let user = match (http3, dns) {
        (true, _) => "HTTP/3 of the external gate",
        (false, true) => "public DNS",
        (false, false) => return,
    };
    let message = format!("the tunnel and {user} both want UDP port {}", tunnel.port);
    report.add(Code::SitePort, "tunnel.port", message, "give the tunnel another port");
}

fn reachable_from_home(site: &Site, index: usize, edge: &Node, report: &mut Report<'_>) {
    // With DS-Lite and carrier NAT home can still open connections over IPv4.
    let (only, family) = match uplink(site) {
        Uplink::Ipv4Only => ("IPv4", Family::V4),
        Uplink::Ipv6Only => ("IPv6", Family::V6),
        Uplink::DsLite | Uplink::Cgnat | Uplink::DualStack => return,
    };
    if !edge.public_addresses.is_empty() && !edge.public_addresses.iter().any(|a| Family::of(*a) == family) {
        let message =
            format!("home reaches the Internet over {only} only, where the edge `{}` has no address", edge.name);
        let field = format!("nodes[{index}].publicAddresses");
        report.add(Code::SiteMissing, field, message, format!("add a public {only} address of the edge"));
    }
}

/// Someone at home has to answer for the edge's private address.
fn inside_the_lan(site: &Site, index: usize, edge: &Node, report: &mut Report<'_>) {
    let inside = |address: &&IpAddr| any_contains(&site.lan.subnets, **address);
    let addresses: Vec<String> = edge.addresses.iter().filter(inside).map(|a| format!("`{a}`")).collect();
    if addresses.is_empty() {
        return;
    }
    let message =
        format!("{} of the edge `{}` lie in the LAN's subnets but behind the tunnel", enumerate(&addresses), edge.name);
    let help = "a home node answers for them (ARP, NDP), as for virtual IPs; keep them out of DHCP and pools";
    report.note(Code::SiteTrap, format!("nodes[{index}].addresses"), message, help);
}

fn kubernetes_at_the_edge(site: &Site, tunnel: &Tunnel, index: usize, edge: &Node, report: &mut Report<'_>) {
    let role = |role: Role| {
        let position = edge.roles.iter().position(|own| *own == role).unwrap_or_default();
        format!("nodes[{index}].roles[{position}]")
    };
    if edge.has(Role::Server) {
        let message = format!(
            "the edge `{}` is a K3s server, so the cluster's token and state lie on a cloud machine",
            edge.name
        );
        report.add(Code::SiteTrap, role(Role::Server), message, "use `agent`, or no K3s at all, at the edge");
    }
    if !edge.has(Role::Agent) {
        return;
    }
    let message =
        format!("`{}` cannot set its own label node-role.kubernetes.io/edge: K3s refuses to start with it", edge.name);
    let help = format!("run `kubectl label node {} node-role.kubernetes.io/edge=true` once at home", edge.name);
    report.note(Code::K3sLabel, role(Role::Agent), message, help);
    let v6 = site.nodes.iter().flat_map(|node| &node.addresses).any(IpAddr::is_ipv6);
    let inner = tunnel.mtu.saturating_sub(if v6 { 70 } else { 50 });
    if v6 && inner < IPV6_MTU {
        let message = format!(
            "VXLAN over IPv6 takes 70 octets, so that pods would have an MTU of {inner}; IPv6 needs {IPV6_MTU}"
        );
        let finding = Finding::new(Code::K3sMtu, report.marks.place("tunnel.mtu"), message);
        let finding = Finding { severity: Severity::Warning, ..finding };
        report.findings.push(finding.help(format!("use {SAFE_MTU}")));
    } else {
        let (family, cost) = if v6 { ("IPv6", 70) } else { ("IPv4", 50) };
        let message =
            format!("VXLAN over {family} takes {cost} octets: Flannel's MTU through the tunnel is at most {inner}");
        report.note(
            Code::K3sMtu,
            "tunnel.mtu",
            message,
            "K3s derives it from the interface; check it when pods hang on large answers",
        );
    }
}

/// It lies outside the machine, so that nobody but a person can open it.
fn provider_firewall(site: &Site, tunnel: &Tunnel, report: &mut Report<'_>) {
    let firewall = site.firewall.as_ref();
    let mut tcp = vec![firewall.map_or(22, |firewall| firewall.ssh_port)];
    let mut udp = vec![tunnel.port];
    for point in site.gates.get(&GateName::External).into_iter().flat_map(|gate| gate.entry_points.values()) {
        tcp.push(point.port);
        if point.protocol == EntryProtocol::Https {
            udp.push(point.port);
        }
    }
    if site.dns.as_ref().is_some_and(|dns| dns.public) {
        tcp.push(53);
        udp.push(53);
    }
    for allow in firewall.into_iter().flat_map(|firewall| &firewall.allow) {
        match allow.protocol {
            Protocol::Tcp => tcp.push(allow.port),
            Protocol::Udp => udp.push(allow.port),
            Protocol::Sctp => {}
        }
    }
    let list = |mut ports: Vec<u16>| {
        ports.sort_unstable();
        ports.dedup();
        enumerate(&ports.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let message = format!("the provider's own firewall must let in ICMP; TCP {}; UDP {}", list(tcp), list(udp));
    let help = "it lies outside the machine: open these in the provider's panel, for every family that the edge has";
    report.note(Code::SiteTrap, "gates.external", message, help);
}
