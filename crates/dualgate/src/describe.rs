//! A plan as lines for people: what `status` shows, and what `plan` compares.

use std::collections::BTreeSet;

use dualgate_core::plan::NodePlan;
use dualgate_core::plan::dns::DnsPlan;
use dualgate_core::plan::firewall::FirewallPlan;
use dualgate_core::plan::forward::Forward;
use dualgate_core::plan::proxy::{Backend, Listener, ProxyPlan, Scheme, Server, ServerAddress};
use dualgate_core::plan::tunnel::{Peer, TunnelPlan};
use dualgate_core::plan::virtual_ips::{Group, VirtualIpPlan};
use dualgate_core::route::{Action, EntryPointSet, Route};

/// One line for each thing that a node's plan asks for; equal plans give equal lines.
pub fn node(plan: &NodePlan) -> BTreeSet<String> {
    let mut lines = proxy(&plan.proxy);
    lines.extend(beside(&plan.tunnel, &plan.firewall, &plan.virtual_ips, &plan.dns));
    lines
}

/// The lines of what a node does beside its gates.
pub fn beside(
    tunnel: &TunnelPlan,
    firewall: &FirewallPlan,
    virtual_ips: &VirtualIpPlan,
    dns: &DnsPlan,
) -> BTreeSet<String> {
    let peers = tunnel.interface.iter().flat_map(|interface| {
        let port = interface.listen_port.map(|port| format!(" on UDP port {port}")).unwrap_or_default();
        let own = format!("tunnel {}{port}, MTU {}", interface.name, interface.mtu);
        std::iter::once(own).chain(interface.peers.iter().map(peer))
    });
    let openings = firewall.openings.iter().map(ToString::to_string);
    peers.chain(openings).chain(virtual_ips.groups.iter().map(group)).chain(names(dns)).collect()
}

/// Where names are asked for, and which zones are answered for.
fn names(dns: &DnsPlan) -> impl Iterator<Item = String> {
    let listen = dns.listen.iter().map(|address| format!("DNS at {address}"));
    let zones = dns.zones.iter().map(|zone| format!("zone {} with {} names", zone.name, zone.sets.len()));
    listen.chain(zones)
}

fn group(group: &Group) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let addresses = list(group.addresses.iter().map(ToString::to_string).collect());
    let users = list(group.users.iter().map(ToString::to_string).collect());
    let candidates = list(group.candidates.iter().map(ToString::to_string).collect());
    let candidates =
        if candidates.is_empty() { "held by nobody".to_owned() } else { format!("held by one of {candidates}") };
    format!("virtual IP {addresses} for {users}, {candidates}")
}

fn peer(peer: &Peer) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let networks = list(peer.allowed_ips.iter().map(ToString::to_string).collect());
    let endpoints = list(peer.endpoints.iter().map(ToString::to_string).collect());
    let dialled = if endpoints.is_empty() { "dials us".to_owned() } else { format!("at {endpoints}") };
    let keys = list(peer.public_keys.iter().map(|key| key.to_string()).collect());
    let keys = if keys.is_empty() { "no key".to_owned() } else { format!("key {keys}") };
    format!("tunnel peer {} {dialled}: {networks} ({keys})", peer.name)
}

/// The lines of a data plane's plan.
pub fn proxy(plan: &ProxyPlan) -> BTreeSet<String> {
    let listeners = plan.listeners.iter().map(listener);
    let routes = plan.table.routes().map(|one| route(plan, one));
    let backends = plan.backends.iter().map(|one| backend(one));
    let certificates = plan.certificates.iter().map(|certificate| {
        let hosts = certificate.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let places = places(plan, certificate.entry_points);
        format!(
            "certificate {} for {hosts} at {places} (sha256 {:.12})",
            certificate.secret,
            certificate.digest.to_string()
        )
    });
    let forwards = plan.forwards.iter().flat_map(forward);
    listeners.chain(routes).chain(backends).chain(certificates).chain(forwards).collect()
}

fn forward(forward: &Forward) -> impl Iterator<Item = String> {
    let servers = servers(&forward.servers);
    forward.sockets().map(move |socket| format!("forward {socket}: {servers}"))
}

fn listener(listener: &Listener) -> String {
    format!("listen {} for {}/{} ({:?})", listener.address, listener.gate, listener.entry_point, listener.protocol)
        .replace("(Http)", "(http)")
        .replace("(Https)", "(https)")
}

fn route(plan: &ProxyPlan, route: &Route) -> String {
    let target = match &route.action {
        Action::Forward(index) => {
            plan.backends.get(*index).map_or_else(|| "nowhere".to_owned(), |backend| backend.id.to_string())
        }
        Action::Unavailable(why) => format!("503 ({why})"),
    };
    let places = places(plan, route.entry_points);
    format!("route {} {} at {places} -> {target} (Ingress {})", route.host, route.path, route.origin.ingress)
}

fn backend(backend: &Backend) -> String {
    let scheme = match backend.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "h2c",
    };
    format!("backend {} {scheme}: {}", backend.id, servers(&backend.servers))
}

fn servers(servers: &[Server]) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|server| match &server.at {
            ServerAddress::Sockets(sockets) => sockets.to_string(),
            ServerAddress::Name { host, port } => format!("{host}:{port}"),
        })
        .collect();
    if servers.is_empty() { "no endpoint".to_owned() } else { servers.join(", ") }
}

fn places(plan: &ProxyPlan, entry_points: EntryPointSet) -> String {
    let places: BTreeSet<String> = plan
        .listeners
        .iter()
        .filter(|listener| entry_points.contains(listener.index))
        .map(|listener| format!("{}/{}", listener.gate, listener.entry_point))
        .collect();
    places.into_iter().collect::<Vec<_>>().join(",")
}
