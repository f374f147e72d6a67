//! Names: what clients at home and on the Internet are told, and that nothing of home is told outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use dualgate_core::model::Family;
use dualgate_core::model::site::{Node, Role};
use dualgate_core::plan::dns::{self, DnsPlan, Origin};
use dualgate_wire::dns::{Name, Rdata, RecordType};

use super::{Ask, Expectation, Host, HostKind, PlannedCheck, Probe, View};
use super::{probe, row};

pub(super) fn rows(view: &View<'_>) -> Vec<PlannedCheck> {
    let home = plan_of(view, view.home_nodes().map(|(_, node)| node));
    let public = plan_of(view, view.edges().map(|(_, node)| node));
    let (lan, internet) = (view.host(HostKind::LanClient), view.host(HostKind::InternetClient));
    vec![
        row("names/home", "names at home lead to the gate that serves them", |family| {
            lan.map(|client| told(client, &home, family)).unwrap_or_default()
        }),
        row("names/internet", "names outside lead to the edge", |family| {
            internet.map(|client| told(client, &public, family)).unwrap_or_default()
        }),
        row("names/stay-home", "no name of home is told outside", |family| {
            internet.map(|client| untold(client, &home, &public, family)).unwrap_or_default()
        }),
    ]
}

/// What any of the nodes that answer answers: they all say the same.
fn plan_of<'a>(view: &View<'_>, nodes: impl Iterator<Item = &'a Node>) -> DnsPlan {
    let mut answering = nodes.filter(|node| node.has(Role::Dns));
    let plan = answering.next().map(|node| dns::select(view.snapshot, view.lowered, &node.name));
    plan.unwrap_or_default()
}

/// Each name of an Ingress, asked at the first server of the family.
fn told(client: &Host, plan: &DnsPlan, family: Family) -> Vec<Probe> {
    let names = names(plan, family).into_iter();
    names.filter_map(|(name, addresses)| ask(client, plan, family, &name, addresses)).collect()
}

/// Each name that home knows and the Internet must not.
fn untold(client: &Host, home: &DnsPlan, public: &DnsPlan, family: Family) -> Vec<Probe> {
    let known = names(public, family);
    let hidden = names(home, family).into_keys().filter(|name| !known.contains_key(name));
    hidden.filter_map(|name| ask(client, public, family, &name, Vec::new())).collect()
}

fn ask(client: &Host, plan: &DnsPlan, family: Family, name: &Name, addresses: Vec<IpAddr>) -> Option<Probe> {
    let server = server(plan, family)?;
    // What stands for every label of a wildcard.
    let name = name.to_string().replace("*.", "anything.");
    Some(probe(client, Ask::Resolve { server, name, family }, Expectation::Addresses(addresses)))
}

fn server(plan: &DnsPlan, family: Family) -> Option<SocketAddr> {
    plan.listen.iter().copied().find(|address| Family::of(address.ip()) == family)
}

/// The names of Ingresses with their addresses of the family.
fn names(plan: &DnsPlan, family: Family) -> BTreeMap<Name, Vec<IpAddr>> {
    let rtype = match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    };
    let sets = plan.zones.iter().flat_map(|zone| &zone.sets);
    let told = sets.filter_map(|(name, sets)| {
        let set = sets.iter().find(|set| set.rtype == rtype && matches!(set.origin, Origin::Ingress(_)))?;
        let mut addresses: Vec<IpAddr> = set.data.iter().filter_map(address).collect();
        addresses.sort_unstable();
        Some((name.clone(), addresses))
    });
    told.collect()
}

fn address(data: &Rdata) -> Option<IpAddr> {
    match data {
        Rdata::A(address) => Some((*address).into()),
        Rdata::Aaaa(address) => Some((*address).into()),
        _ => None,
    }
}
