//! Which rows there are, and what each expects. Pure: it follows from the topology, the site and the objects.

mod applications;
mod names;
mod parts;
mod ways;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_core::lower::{self, Lowered};
use dualgate_core::model::address::is_public;
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::{Family, Snapshot};
use dualgate_core::route::Table;

use super::{Ask, Expectation, Planned, PlannedCheck, Probe};
use crate::topology::{Host, HostKind, POD_BRIDGE, Topology};

/// Every row, in the order in which a person would look: the nodes, the ways between hosts, the applications, and what is
/// not built. A row that no family of the site has is left out.
pub fn plan(topology: &Topology, snapshot: &Snapshot) -> Vec<PlannedCheck> {
    let lowered = lower::snapshot(snapshot);
    let table = Table::new(lowered.routes().cloned());
    let view = View { topology, snapshot, site: &snapshot.site, lowered: &lowered, table: &table };
    let mut rows = ways::rows(&view);
    rows.extend(applications::rows(&view));
    rows.extend(parts::rows(&view));
    rows.extend(names::rows(&view));
    rows.retain(|row| row.v4 != Planned::Absent || row.v6 != Planned::Absent);
    rows
}

/// All that a plan is made from.
struct View<'a> {
    topology: &'a Topology,
    snapshot: &'a Snapshot,
    site: &'a Site,
    lowered: &'a Lowered,
    table: &'a Table,
}

impl<'a> View<'a> {
    fn hosts(&self, kind: HostKind) -> impl Iterator<Item = &'a Host> {
        self.topology.hosts.iter().filter(move |host| host.kind == kind)
    }

    fn host(&self, kind: HostKind) -> Option<&'a Host> {
        self.hosts(kind).next()
    }

    fn home_nodes(&self) -> impl Iterator<Item = (&'a Host, &'a Node)> {
        self.nodes(HostKind::HomeNode)
    }

    fn edges(&self) -> impl Iterator<Item = (&'a Host, &'a Node)> {
        self.nodes(HostKind::Edge)
    }

    fn nodes(&self, kind: HostKind) -> impl Iterator<Item = (&'a Host, &'a Node)> {
        let site = self.site;
        self.hosts(kind).filter_map(move |host| Some((host, site.node(host.node.as_ref()?)?)))
    }
}

/// One row, each family planned for itself.
fn row(id: impl Into<String>, title: impl Into<String>, family: impl Fn(Family) -> Vec<Probe>) -> PlannedCheck {
    let planned = |of| match family(of) {
        probes if probes.is_empty() => Planned::Absent,
        probes => Planned::Look(probes),
    };
    PlannedCheck { id: id.into(), title: title.into(), v4: planned(Family::V4), v6: planned(Family::V6) }
}

fn probe(from: &Host, ask: Ask, expect: Expectation) -> Probe {
    Probe { from: from.name.clone(), ask, expect }
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> {
    addresses.iter().copied().filter(move |address| Family::of(*address) == family)
}

/// A host's addresses that others can use, but for its pods' gateway.
fn addresses(host: &Host, family: Family) -> impl Iterator<Item = IpAddr> {
    let outward = host.interfaces.iter().filter(|interface| interface.name != POD_BRIDGE);
    let addresses = outward.flat_map(|interface| &interface.addresses).map(|net| net.addr());
    addresses.filter(move |address| Family::of(*address) == family && !is_link_local(*address))
}

fn public_addresses(host: &Host, family: Family) -> impl Iterator<Item = IpAddr> {
    addresses(host, family).filter(|address| is_public(*address) && !is_protocol_own(*address))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// 192.0.0.0/24 belongs to protocols, such as DS-Lite's softwire (RFC 6333 5.7); nobody routes it.
fn is_protocol_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [192, 0, 0],
        IpAddr::V6(_) => false,
    }
}

/// Where a listener at "any address" can be asked from its own host.
fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
