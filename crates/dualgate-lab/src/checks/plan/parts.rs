//! The virtual IPs, the tunnel and the firewall; and parts of dualgate that are not built: each has its row, so that nobody takes what stands in for the thing.

use std::net::{IpAddr, SocketAddr};

use dualgate_core::model::Family;
use dualgate_core::model::site::{Node, Role};
use dualgate_core::plan::virtual_ips;
use dualgate_wire::ethernet::Mac;

use super::{Ask, Expectation, Host, HostKind, Planned, PlannedCheck, View};
use super::{loopback, probe, row};
use crate::probe::Request;

pub(super) fn rows(view: &View<'_>) -> Vec<PlannedCheck> {
    let has_home = view.home_nodes().next().is_some();
    let tunnelled: Vec<IpAddr> =
        view.edges().filter(|_| has_home).flat_map(|(_, node)| node.addresses.clone()).collect();
    let public: Vec<IpAddr> = view.edges().flat_map(|(_, node)| node.public_addresses.clone()).collect();
    vec![virtual_ips(view), tunnel(view, &tunnelled), firewall(view, &public)]
}

/// Each address of the LAN that moves is answered for by one home node: the internal gate's, and those of edges.
fn virtual_ips(view: &View<'_>) -> PlannedCheck {
    let interface = "eth0";
    let mac = |host: &Host| host.interfaces.iter().find(|one| one.name == interface)?.mac.map(Mac);
    let members = view.home_nodes().filter(|(_, node)| node.has(Role::VirtualIps));
    let stations: Vec<(Mac, String)> = members.filter_map(|(host, _)| Some((mac(host)?, host.name.clone()))).collect();
    let home = view.site.nodes.iter().find(|node| node.has(Role::VirtualIps));
    let plan = home.map(|node| virtual_ips::virtual_ips(view.snapshot, &node.name)).unwrap_or_default();
    let addresses: Vec<IpAddr> = plan.groups.iter().flat_map(|group| group.addresses.clone()).collect();
    row("virtual-ips", "one home node answers for each virtual IP", |family| {
        let Some(client) = view.host(HostKind::LanClient) else { return Vec::new() };
        let ask = |address| Ask::WhoHas { interface: interface.to_owned(), address };
        let of_family = addresses.iter().copied().filter(|address| Family::of(*address) == family);
        of_family.map(|address| probe(client, ask(address), Expectation::OneOf(stations.clone()))).collect()
    })
}

/// Every edge hears every home node through WireGuard; where something stands in for it, that is said.
fn tunnel(view: &View<'_>, tunnelled: &[IpAddr]) -> PlannedCheck {
    let (id, title) = ("tunnel", "what passes between edge and home is encrypted");
    if view.topology.stand_ins.iter().any(|stand_in| stand_in.part == "tunnel") {
        return not_built(view, id, title, "tunnel", tunnelled);
    }
    let peers: Vec<String> = view.home_nodes().map(|(host, _)| host.name.clone()).collect();
    row(id, title, |family| {
        let passes = tunnelled.iter().any(|address| Family::of(*address) == family);
        let edges = view.edges().filter(|_| passes && !peers.is_empty());
        let ask = |(host, _): (&Host, &Node)| {
            let at = view.site.admin.listen.first()?;
            let at = SocketAddr::new(loopback(at.ip()), at.port());
            let ask = Ask::Get(Request::new(at, at.to_string()).path("/status"));
            Some(probe(host, ask, Expectation::Heard(peers.clone())))
        };
        edges.filter_map(ask).collect()
    })
}

/// A port that the site file opens for nobody is shut at every edge, also when somebody listens there.
fn firewall(view: &View<'_>, public: &[IpAddr]) -> PlannedCheck {
    let (id, title) = ("firewall", "nothing else is open at the edge");
    if view.site.firewall.is_none() {
        return not_built(view, id, title, "firewall", public);
    }
    row(id, title, |family| {
        let Some(client) = view.host(HostKind::InternetClient) else { return Vec::new() };
        let doors = view.edges().flat_map(|(edge, node)| node.public_addresses.iter().map(move |at| (edge, *at)));
        let doors = doors.filter(|(_, address)| Family::of(*address) == family);
        let ask = |(edge, address): (&Host, IpAddr)| {
            probe(client, Ask::Dial { at: edge.name.clone(), address }, Expectation::Blocked)
        };
        doors.map(ask).collect()
    })
}

/// A row for each family that the part would have addresses of.
fn not_built(view: &View<'_>, id: &str, title: &str, part: &str, of: &[IpAddr]) -> PlannedCheck {
    let stand_in = view.topology.stand_ins.iter().find(|stand_in| stand_in.part == part);
    let instead = stand_in.map_or_else(|| "nothing stands in for it".to_owned(), |stand_in| stand_in.instead.clone());
    let planned = |family| match of.iter().any(|address| Family::of(*address) == family) {
        true => Planned::NotBuilt(instead.clone()),
        false => Planned::Absent,
    };
    PlannedCheck { id: id.to_owned(), title: title.to_owned(), v4: planned(Family::V4), v6: planned(Family::V6) }
}
