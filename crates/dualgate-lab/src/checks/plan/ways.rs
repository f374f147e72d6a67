//! Nodes, and the ways between hosts: which must be open, and which must not.

use std::net::{IpAddr, SocketAddr};

use dualgate_core::model::site::{EntryProtocol, Role, Uplink};
use dualgate_core::model::{Family, GateName};
use dualgate_core::plan::proxy::ServerAddress;
use dualgate_core::route::Action;

use super::{Ask, Expectation, Host, HostKind, PlannedCheck, Probe, View};
use super::{addresses, loopback, of_family, probe, public_addresses, row};
use crate::probe::Request;

/// How many pods an edge is asked to reach.
const MAX_PODS: usize = 8;

pub(super) fn rows(view: &View<'_>) -> Vec<PlannedCheck> {
    let mut rows = ready(view);
    rows.push(row("lan/nodes", "home nodes reach each other", |family| between_nodes(view, family)));
    rows.push(row("lan/router", "home reaches its router", |family| to_router(view, family)));
    rows.push(row("uplink/home", "home reaches the Internet", |family| outward(view, family)));
    rows.push(row("shut/home", "the Internet does not reach home", |family| inward(view, family)));
    rows.push(row("edge/nodes", "the edge reaches the home nodes", |family| from_edge(view, family)));
    rows.push(row("edge/pods", "the edge reaches the pods", |family| edge_to_pods(view, family)));
    rows
}

/// The admin listener is for its own machine: each node asks itself.
fn ready(view: &View<'_>) -> Vec<PlannedCheck> {
    let nodes = view.topology.hosts.iter().filter(|host| host.node.is_some());
    let of_node = nodes.map(|host| {
        let asked = |family| {
            let here = addresses(host, family).next().is_some();
            let listens = view.site.admin.listen.iter().filter(|at| here && Family::of(at.ip()) == family);
            let ask = listens.map(|at| SocketAddr::new(loopback(at.ip()), at.port()));
            ask.map(|at| probe(host, Ask::Get(Request::new(at, at.to_string()).path("/readyz")), Expectation::Ready))
                .collect()
        };
        row(format!("ready/{}", host.name), format!("{} is ready", host.name), asked)
    });
    of_node.collect()
}

fn between_nodes(view: &View<'_>, family: Family) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (from, _) in view.home_nodes() {
        let others = view.home_nodes().filter(|(to, _)| to.name != from.name);
        probes.extend(others.flat_map(|(to, node)| pings(from, to, &node.addresses, family)));
    }
    probes
}

fn pings(from: &Host, to: &Host, addresses: &[IpAddr], family: Family) -> Vec<Probe> {
    let ask = of_family(addresses, family).map(|address| Ask::Ping { at: to.name.clone(), address });
    ask.map(|ask| probe(from, ask, Expectation::Echo)).collect()
}

fn to_router(view: &View<'_>, family: Family) -> Vec<Probe> {
    let Some(router) = view.host(HostKind::Router) else { return Vec::new() };
    let in_lan = |address: &IpAddr| view.site.lan.subnets.iter().any(|subnet| subnet.contains(address));
    let asked: Vec<IpAddr> = addresses(router, family).filter(in_lan).take(1).collect();
    let home = view.home_nodes().map(|(host, _)| host).chain(view.host(HostKind::LanClient));
    home.flat_map(|from| pings(from, router, &asked, family)).collect()
}

/// Somebody on the Internet is dialled, and says whom it sees.
fn outward(view: &View<'_>, family: Family) -> Vec<Probe> {
    let Some(client) = view.host(HostKind::InternetClient) else { return Vec::new() };
    let Some(address) = addresses(client, family).next() else { return Vec::new() };
    let uplink = view.site.lan.router.as_ref().map_or(Uplink::DsLite, |router| router.uplink);
    let translator = match (family, uplink) {
        (Family::V4, Uplink::DsLite | Uplink::Cgnat) => Some(HostKind::Carrier),
        (Family::V4, Uplink::DualStack | Uplink::Ipv4Only) => Some(HostKind::Router),
        (Family::V6, Uplink::DsLite | Uplink::Cgnat | Uplink::DualStack | Uplink::Ipv6Only) => None,
        (Family::V4, Uplink::Ipv6Only) | (Family::V6, Uplink::Ipv4Only) => return Vec::new(),
    };
    // A node with public addresses of its own goes out with those.
    let nodes = view.home_nodes().filter(|(_, node)| of_family(&node.public_addresses, family).next().is_none());
    let home = nodes.map(|(host, _)| host).chain(view.host(HostKind::LanClient));
    let home = home.filter(|host| match family {
        Family::V4 => addresses(host, family).next().is_some(),
        Family::V6 => public_addresses(host, family).next().is_some(),
    });
    let expect = match translator {
        Some(kind) => Expectation::SeenAs(view.hosts(kind).flat_map(|host| public_addresses(host, family)).collect()),
        None => Expectation::SeenAsItself,
    };
    let dial = || Ask::Dial { at: client.name.clone(), address };
    home.map(|from| probe(from, dial(), expect.clone())).collect()
}

/// Every address at home is dialled, though somebody listens there; and what translates for home is tried on the gate's
/// ports.
fn inward(view: &View<'_>, family: Family) -> Vec<Probe> {
    let Some(from) = view.host(HostKind::InternetClient) else { return Vec::new() };
    if addresses(from, family).next().is_none() {
        return Vec::new();
    }
    let mut probes = Vec::new();
    for host in view.home_nodes().map(|(host, _)| host).chain(view.host(HostKind::LanClient)) {
        let node = host.node.as_ref().and_then(|node| view.site.node(node));
        // Those are meant to be reached.
        let left_out = |address: &IpAddr| node.is_some_and(|node| node.public_addresses.contains(address));
        let dialled = addresses(host, family).filter(|address| !left_out(address));
        let ask = dialled.map(|address| Ask::Dial { at: host.name.clone(), address });
        probes.extend(ask.map(|ask| probe(from, ask, Expectation::Blocked)));
    }
    let ports = gate_ports(view);
    for host in view.hosts(HostKind::Router).chain(view.hosts(HostKind::Carrier)) {
        for address in public_addresses(host, family) {
            let to = ports.iter().map(|port| SocketAddr::new(address, *port));
            probes.extend(to.map(|to| probe(from, Ask::Connect(to), Expectation::Blocked)));
        }
    }
    probes
}

fn gate_ports(view: &View<'_>) -> Vec<u16> {
    let internal = view.lowered.entry_points.iter().filter(|pair| pair.gate == GateName::Internal);
    let mut ports: Vec<u16> = internal
        .map(|pair| match pair.point.protocol {
            EntryProtocol::Http | EntryProtocol::Https => pair.point.port,
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn from_edge(view: &View<'_>, family: Family) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (from, edge) in view.edges().filter(|(_, edge)| of_family(&edge.addresses, family).next().is_some()) {
        let nodes = view.home_nodes().filter(|(_, node)| node.name != edge.name);
        probes.extend(nodes.flat_map(|(to, node)| pings(from, to, &node.addresses, family)));
    }
    probes
}

/// One pod of each Service that is public: what the edge's gate has to reach.
fn edge_to_pods(view: &View<'_>, family: Family) -> Vec<Probe> {
    let public = view.lowered.entry_points.of_gate(GateName::External);
    let mut pods: Vec<(String, SocketAddr)> = Vec::new();
    for route in view.lowered.routes().filter(|route| route.entry_points.intersects(public)) {
        let Action::Forward(index) = &route.action else { continue };
        let Some(backend) = view.lowered.backends().get(*index) else { continue };
        let servers = &backend.servers;
        let pod =
            servers.iter().filter(|server| super::applications::is_pod(server)).find_map(|server| match &server.at {
                ServerAddress::Sockets(sockets) => Some((server.id.to_string(), sockets.of(family)?)),
                ServerAddress::Name { .. } => None,
            });
        pods.extend(pod.filter(|pod| pods.len() < MAX_PODS && !pods.contains(pod)));
    }
    let edges = view
        .edges()
        .filter(|(_, node)| node.has(Role::ExternalGate) && of_family(&node.addresses, family).next().is_some());
    let asked = edges.flat_map(|(from, _)| {
        let ask = |(pod, at): &(String, SocketAddr)| {
            probe(from, Ask::Get(Request::new(*at, at.to_string())), Expectation::Pod(pod.clone()))
        };
        pods.iter().map(ask).collect::<Vec<_>>()
    });
    asked.collect()
}
