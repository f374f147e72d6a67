//! What the firewall's keys mean together with the rest of the site.

use ipnet::IpNet;

use super::Report;
use crate::model::object::Protocol;
use crate::model::site::{Allow, Firewall, Node, Role, Site};
use crate::model::{Code, GateName};
use crate::plan::firewall::EXCHANGE_PORT;

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    let edges = || site.nodes.iter().enumerate().filter(|(_, node)| node.is_edge());
    let Some(firewall) = &site.firewall else {
        for (index, edge) in edges() {
            let message =
                format!("the edge `{}` has no firewall of ours: what listens there is open to all", edge.name);
            let help = "add `firewall: {}`, unless another firewall guards it";
            report.add(Code::FirewallOff, format!("nodes[{index}]"), message, help);
        }
        return;
    };
    if edges().next().is_none() {
        if let Some(allow) = firewall.allow.first() {
            let message = format!("{} is opened at edges, and the site has none", name(allow));
            report.add(Code::FirewallUseless, "firewall.allow[0]", message, "leave it out");
        }
        return;
    }
    for (index, allow) in firewall.allow.iter().enumerate() {
        let field = format!("firewall.allow[{index}]");
        if let Some(why) = opened_before(site, firewall, index) {
            let message = format!("{} is open already: {why}", name(allow));
            report.add(Code::FirewallUseless, field, message, "leave it out");
        } else if let Some(what) = sensitive(site, allow).filter(|_| is_everywhere(&allow.from)) {
            let message = format!("{} opens {what} to the Internet", name(allow));
            report.add(Code::FirewallOpen, field, message, "name in `from` who may come in, such as the LAN's subnets");
        }
    }
}

fn name(allow: &Allow) -> String {
    let protocol = match allow.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    format!("{protocol} port {}", allow.port)
}

fn is_everywhere(from: &[IpNet]) -> bool {
    from.is_empty() || from.iter().any(|net| net.prefix_len() == 0)
}

/// What opens this port to all of the same sources anyway.
fn opened_before(site: &Site, firewall: &Firewall, index: usize) -> Option<String> {
    let allow = firewall.allow.get(index)?;
    let edge = |role: Role| site.nodes.iter().any(|node: &Node| node.is_edge() && node.has(role));
    let points = site.gates.get(&GateName::External).into_iter().flat_map(|gate| &gate.entry_points);
    let mut always = vec![(Protocol::Tcp, firewall.ssh_port, "it is SSH's".to_owned())];
    always.extend(points.map(|(name, point)| (Protocol::Tcp, point.port, format!("it is the entry point `{name}`'s"))));
    always.extend(site.tunnel.iter().map(|tunnel| (Protocol::Udp, tunnel.port, "it is the tunnel's".to_owned())));
    if site.dns.as_ref().is_some_and(|dns| dns.public) && edge(Role::Dns) {
        always.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, 53, "it is public DNS's".to_owned())));
    }
    let by_itself = always.into_iter().find(|(protocol, port, _)| (*protocol, *port) == (allow.protocol, allow.port));
    if let Some((_, _, why)) = by_itself {
        return Some(why);
    }
    let covers = |other: &Allow| {
        let has = |net: &IpNet| other.from.iter().any(|with| with.contains(net));
        let whole = other.from.is_empty() || (!allow.from.is_empty() && allow.from.iter().all(has));
        (other.protocol, other.port) == (allow.protocol, allow.port) && whole
    };
    let position = firewall.allow.iter().take(index).position(covers)?;
    Some(format!("`firewall.allow[{position}]` does it"))
}

/// What nobody on the Internet should reach.
fn sensitive(site: &Site, allow: &Allow) -> Option<&'static str> {
    match (allow.protocol, allow.port) {
        (Protocol::Tcp, port) if site.admin.listen.iter().any(|at| at.port() == port) => Some("the admin listener"),
        (Protocol::Tcp, EXCHANGE_PORT) => Some("the exchange between nodes"),
        (Protocol::Tcp, 2379 | 2380) => Some("etcd"),
        (Protocol::Tcp, 6443) => Some("the API server of Kubernetes"),
        (Protocol::Tcp, 10_250) => Some("the kubelet"),
        (Protocol::Udp, 8472) => Some("Flannel's VXLAN, which has no password,"),
        (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, _) => None,
    }
}
