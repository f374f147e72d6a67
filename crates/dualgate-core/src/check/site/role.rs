//! Roles and gates that belong together, and the ports on which they listen.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Report;
use crate::model::site::{EntryPoint, Role, Site};
use crate::model::{Code, Family, GateName};
use crate::route::EntryPointSet;

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    if site.nodes.is_empty() {
        report.add(Code::SiteMissing, "nodes", "the site has no node", "add the machines");
    }
    nodes(site, report);
    gates(site, report);
    virtual_ips(site, report);
    controllers(site, report);
    entry_points(site, report);
    ports(site, report);
    admin(site, report);
}

fn word(role: Role) -> &'static str {
    Role::WORDS.iter().find(|(_, known)| *known == role).map(|(word, _)| *word).unwrap_or_default()
}

fn role_field(site: &Site, node: usize, role: Role) -> String {
    let position = site.nodes[node].roles.iter().position(|own| *own == role).unwrap_or_default();
    format!("nodes[{node}].roles[{position}]")
}

fn nodes(site: &Site, report: &mut Report<'_>) {
    let mut names = BTreeSet::new();
    for (index, node) in site.nodes.iter().enumerate() {
        if !names.insert(&node.name) {
            let message = format!("node `{}` is written a second time", node.name);
            report.add(Code::SiteDuplicate, format!("nodes[{index}].name"), message, "a node has one entry");
        }
        if node.addresses.is_empty() {
            let message = format!("node `{}` has no address", node.name);
            report.add(
                Code::SiteMissing,
                format!("nodes[{index}].addresses"),
                message,
                "add its addresses of both families",
            );
        }
        for (position, role) in node.roles.iter().enumerate() {
            if node.roles[..position].contains(role) {
                let message = format!("role `{}` is written a second time", word(*role));
                report.add(
                    Code::SiteDuplicate,
                    format!("nodes[{index}].roles[{position}]"),
                    message,
                    "leave one of them out",
                );
            }
        }
        if node.has(Role::Server) && node.has(Role::Agent) {
            let message = format!("node `{}` is both `server` and `agent`", node.name);
            report.add(
                Code::SiteRole,
                role_field(site, index, Role::Agent),
                message,
                "a server of K3s is an agent as well: keep `server`",
            );
        }
    }
}

fn gates(site: &Site, report: &mut Report<'_>) {
    if site.gates.is_empty() {
        report.add(Code::SiteMissing, "gates", "the site has no gate", "add `internal`, `external` or both");
    }
    for name in GateName::ALL {
        let role = Role::of_gate(name);
        let serving: Vec<usize> = (0..site.nodes.len()).filter(|index| site.nodes[*index].has(role)).collect();
        match (site.gates.get(&name), serving.first()) {
            (Some(_), None) => {
                let message = format!("no node serves the {name} gate");
                report.add(
                    Code::SiteRole,
                    format!("gates.{name}"),
                    message,
                    format!("give a node the role `{}`", word(role)),
                );
            }
            (None, Some(first)) => {
                let message =
                    format!("node `{}` serves the {name} gate, which `gates` does not have", site.nodes[*first].name);
                report.add(Code::SiteRole, role_field(site, *first, role), message, format!("add `gates.{name}`"));
            }
            (Some(gate), Some(_)) => {
                for index in serving.iter().filter(|index| gate.addresses_on(name, &site.nodes[**index]).is_empty()) {
                    no_address(site, name, *index, report);
                }
            }
            (None, None) => {}
        }
    }
    for (index, name) in site.exposure.default.iter().enumerate() {
        if !site.gates.contains_key(name) && !site.gates.is_empty() {
            let message = format!("Ingresses that do not say are for the {name} gate, which `gates` does not have");
            report.add(
                Code::SiteRole,
                format!("exposure.default[{index}]"),
                message,
                "set `exposure.default` to a gate that exists",
            );
        }
    }
}

fn no_address(site: &Site, gate: GateName, node: usize, report: &mut Report<'_>) {
    let (field, help) = match gate {
        // A node without any address is told already.
        GateName::Internal => return,
        GateName::External => ("publicAddresses", "add its public addresses of both families"),
    };
    let message = format!("node `{}` serves the {gate} gate but has no `{field}`", site.nodes[node].name);
    report.add(Code::SiteMissing, format!("nodes[{node}].{field}"), message, help);
}

fn virtual_ips(site: &Site, report: &mut Report<'_>) {
    let announcing = || site.nodes.iter().filter(|node| node.has(Role::VirtualIps));
    let addresses: Vec<IpAddr> = site.virtual_addresses(GateName::Internal).collect();
    let missing = announcing().next().is_none();
    let help = "give the home nodes the role `virtual-ips`";
    if let Some(address) = addresses.first().filter(|_| missing) {
        let message = format!("no node announces `{address}` on the LAN");
        report.add(Code::SiteRole, "gates.internal.addresses", message, help);
    }
    if missing && !site.pools.is_empty() {
        report.add(Code::SiteRole, "pools", "no node announces the pools' addresses on the LAN", help);
    }
    for (index, node) in site.nodes.iter().enumerate() {
        if node.has(Role::VirtualIps) && !node.has(Role::InternalGate) && !addresses.is_empty() {
            let message =
                format!("node `{}` may take the internal gate's virtual IPs, but does not serve that gate", node.name);
            let help = "give it the role `internal-gate` as well";
            report.add(Code::SiteRole, role_field(site, index, Role::VirtualIps), message, help);
        }
    }
    if announcing().count() == 2 {
        let message = "with two nodes for the virtual IPs neither has a majority when the other is gone";
        let second = site.nodes.iter().rposition(|node| node.has(Role::VirtualIps)).unwrap_or_default();
        report.add(
            Code::SiteTrap,
            role_field(site, second, Role::VirtualIps),
            message,
            "use one node, or three and more",
        );
    }
}

fn controllers(site: &Site, report: &mut Report<'_>) {
    let mut first = None;
    for (index, node) in site.nodes.iter().enumerate().filter(|(_, node)| node.has(Role::Controller)) {
        let Some(first) = first.replace(&node.name) else { continue };
        let message = format!("node `{}` is a second controller, after `{first}`", node.name);
        report.add(Code::SiteRole, role_field(site, index, Role::Controller), message, "one node decides for the site");
    }
}

fn entry_points(site: &Site, report: &mut Report<'_>) {
    let pairs: usize = site.gates.values().map(|gate| gate.entry_points.len()).sum();
    if pairs > EntryPointSet::CAPACITY {
        let message = format!("the gates have {pairs} entry points; at most {} are possible", EntryPointSet::CAPACITY);
        report.add(Code::SiteValue, "gates", message, "leave some out");
    }
    for (name, gate) in &site.gates {
        if gate.entry_points.is_empty() {
            let message = format!("the {name} gate has no entry point");
            report.add(
                Code::SiteMissing,
                format!("gates.{name}.entryPoints"),
                message,
                "leave `entryPoints` out for `web` and `websecure`",
            );
        }
        for (entry, point) in &gate.entry_points {
            let field = format!("gates.{name}.entryPoints.{entry}");
            believes_everybody(&field, point, report);
        }
    }
}

fn believes_everybody(field: &str, point: &EntryPoint, report: &mut Report<'_>) {
    let lists = [("trustedProxies", &point.trusted), ("proxyProtocol", &point.proxy_protocol)];
    for (key, nets) in lists {
        for (index, net) in nets.iter().enumerate().filter(|(_, net)| net.prefix_len() == 0) {
            let message = format!("`{net}` lets everybody say which client a request comes from");
            let field = format!("{field}.{key}[{index}]");
            report.add(Code::SiteTrap, field, message, "name the proxies in front of this entry point");
        }
    }
}

/// A TCP listener of one node, with the key that asks for it.
struct Listener {
    at: SocketAddr,
    field: String,
    what: String,
}

fn ports(site: &Site, report: &mut Report<'_>) {
    let mut told = BTreeSet::new();
    for node in &site.nodes {
        let listeners = listeners(site, node);
        for (index, listener) in listeners.iter().enumerate() {
            let Some(other) =
                listeners[..index].iter().find(|other| other.field != listener.field && collide(other.at, listener.at))
            else {
                continue;
            };
            if told.insert((listener.field.clone(), other.field.clone())) {
                let message = format!("{} and {} both listen on `{}`", listener.what, other.what, listener.at);
                report.add(Code::SitePort, &listener.field, message, "give one of them another address or port");
            }
        }
    }
}

fn listeners(site: &Site, node: &crate::model::site::Node) -> Vec<Listener> {
    let mut all = Vec::new();
    for (name, gate) in site.gates.iter().filter(|(name, _)| node.has(Role::of_gate(**name))) {
        for (entry, point) in &gate.entry_points {
            for address in gate.addresses_on(*name, node) {
                let at = SocketAddr::new(*address, point.port);
                let field = format!("gates.{name}.entryPoints.{entry}");
                all.push(Listener { at, field, what: format!("entry point `{entry}` of the {name} gate") });
            }
        }
    }
    if let Some(firewall) = site.firewall.as_ref().filter(|_| node.has(Role::ExternalGate)) {
        for address in &node.public_addresses {
            let at = SocketAddr::new(*address, firewall.ssh_port);
            all.push(Listener { at, field: "firewall.sshPort".to_owned(), what: "SSH".to_owned() });
        }
    }
    for (index, at) in site.admin.listen.iter().enumerate() {
        all.push(Listener { at: *at, field: format!("admin.listen[{index}]"), what: "the admin listener".to_owned() });
    }
    all
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && (a.ip() == b.ip() || (any && Family::of(a.ip()) == Family::of(b.ip())))
}

fn admin(site: &Site, report: &mut Report<'_>) {
    let gates: Vec<IpAddr> = site.gates.values().flat_map(|gate| gate.addresses.iter().copied()).collect();
    let public = |address| site.nodes.iter().any(|node| node.public_addresses.contains(&address));
    for (index, at) in site.admin.listen.iter().enumerate() {
        let address = at.ip();
        if address.is_loopback() {
            continue;
        }
        let reached_by = if address.is_unspecified() {
            "everybody who reaches a node"
        } else if public(address) {
            "the Internet"
        } else if gates.contains(&address) {
            "the clients of a gate"
        } else {
            continue;
        };
        let message = format!("`{at}` opens the admin listener to {reached_by}");
        let help = "use loopback, or an address that only operators reach";
        report.add(Code::SiteTrap, format!("admin.listen[{index}]"), message, help);
    }
}

/// Whether any of the networks holds the address.
pub(super) fn any_contains(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}
