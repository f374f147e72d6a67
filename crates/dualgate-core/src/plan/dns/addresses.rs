//! Where names lead to, where they are answered, and who is asked about others.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dualgate_wire::dns::{Name, Rdata, RecordType};
use ipnet::IpNet;

use super::{ResolverPlan, Upstream, Zone, addresses_of};
use crate::model::address::is_public;
use crate::model::site::{Node, Publish, Role, Site};
use crate::model::{GateName, Host, NodeName, Object, Snapshot};

const PORT: u16 = 53;

/// The addresses of the internal gate: its virtual IPs, else those of the nodes that serve it. IPv4 before IPv6.
pub(super) fn home(site: &Site) -> Vec<IpAddr> {
    let gate = site.gates.get(&GateName::Internal);
    let own: Vec<IpAddr> = gate.map(|gate| gate.addresses.clone()).unwrap_or_default();
    let own: Vec<IpAddr> = own.into_iter().filter(|address| !address.is_unspecified()).collect();
    if gate.is_some() && own.is_empty() {
        return sorted(serving(site, Role::InternalGate).flat_map(|node| node.addresses.iter().copied()));
    }
    sorted(own.into_iter())
}

/// On a Node: home does not hear this edge, so that nobody is to be led to it. Home tells it to the other edges.
pub const SILENT: &str = "dualgate.dev/silent";

/// The public addresses of the external gate: its own, else those of the nodes that serve it. Those of edges that are silent
/// are left out, unless none is left.
pub(super) fn public(snapshot: &Snapshot) -> Vec<IpAddr> {
    heard(&snapshot.site, &silent(snapshot))
}

/// The edges that home does not hear.
pub(crate) fn silent(snapshot: &Snapshot) -> BTreeSet<&NodeName> {
    let is_said = |object: &Arc<Object>| object.meta.annotations.get(SILENT) == Some("true");
    let said = snapshot.objects.of_kind("Node").iter().filter(|object| is_said(object));
    let said: BTreeSet<&str> = said.map(|object| &*object.key.name.name).collect();
    let edges = snapshot.site.nodes.iter().filter(|node| node.is_edge()).map(|node| &node.name);
    edges.filter(|edge| snapshot.facts.silent_edges.contains(*edge) || said.contains(edge.as_str())).collect()
}

/// An address that several edges have is silent when all of them are.
fn heard(site: &Site, silent: &BTreeSet<&NodeName>) -> Vec<IpAddr> {
    let (gone, there): (Vec<&Node>, Vec<&Node>) = site.nodes.iter().partition(|node| silent.contains(&node.name));
    let of = |nodes: &[&Node]| nodes.iter().flat_map(|node| node.public_addresses.iter().copied()).collect();
    let (gone, there): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = (of(&gone), of(&there));
    let all = all_public(site);
    let is_heard = |address: &IpAddr| !gone.contains(address) || there.contains(address);
    let heard: Vec<IpAddr> = all.iter().copied().filter(is_heard).collect();
    if heard.is_empty() { all } else { heard }
}

/// The silent edges that an edge has to know of, as it would lead clients there.
pub(crate) fn silent_for<'a>(snapshot: &'a Snapshot, node: &Node) -> BTreeSet<&'a NodeName> {
    let site = &*snapshot.site;
    let answers = site.dns.as_ref().is_some_and(|dns| {
        node.has(Role::Dns) && dns.public && dns.zones.iter().any(|zone| zone.publish == Publish::Edge)
    });
    if !answers {
        return BTreeSet::new();
    }
    let mut silent = silent(snapshot);
    silent.remove(&node.name);
    let told = heard(site, &silent);
    let matters = |edge: &&NodeName| {
        let mut others = silent.clone();
        others.remove(edge);
        heard(site, &others) != told
    };
    silent.iter().copied().filter(matters).collect()
}

fn all_public(site: &Site) -> Vec<IpAddr> {
    let Some(gate) = site.gates.get(&GateName::External) else { return Vec::new() };
    let own = gate.addresses.iter().copied().filter(|address| is_public(*address));
    let own = sorted(own);
    if !own.is_empty() {
        return own;
    }
    let of_nodes = serving(site, Role::ExternalGate).flat_map(|node| node.public_addresses.iter().copied());
    sorted(of_nodes.filter(|address| is_public(*address)))
}

fn serving(site: &Site, role: Role) -> impl Iterator<Item = &Node> {
    site.nodes.iter().filter(move |node| node.has(role))
}

fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Where home answers, whichever of its nodes holds the address.
pub(super) fn at_home(site: &Site) -> Vec<SocketAddr> {
    let written = site.dns.as_ref().map(|dns| dns.addresses.clone()).unwrap_or_default();
    if !written.is_empty() {
        return written;
    }
    let shared: Vec<IpAddr> = sorted(site.virtual_addresses(GateName::Internal));
    shared.into_iter().map(|address| SocketAddr::new(address, PORT)).collect()
}

/// Where a node listens.
pub(super) fn listen(site: &Site, node: &Node) -> Vec<SocketAddr> {
    let at = |addresses: &[IpAddr]| addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
    if node.is_edge() {
        return at(&node.public_addresses);
    }
    match at_home(site) {
        none if none.is_empty() => at(&node.addresses),
        shared => shared,
    }
}

/// The name servers of the public view: each edge that answers, with its addresses.
pub(super) fn public_servers(site: &Site) -> Vec<Vec<IpAddr>> {
    let edges = serving(site, Role::Dns).filter(|node| node.is_edge());
    let public = |node: &Node| sorted(node.public_addresses.iter().copied().filter(|address| is_public(*address)));
    edges.map(public).filter(|addresses| !addresses.is_empty()).collect()
}

/// The addresses of home's name server: one that moves, or those of every node.
pub(super) fn home_server(site: &Site) -> Vec<IpAddr> {
    match at_home(site) {
        none if none.is_empty() => {
            let nodes = serving(site, Role::Dns).filter(|node| !node.is_edge());
            sorted(nodes.flat_map(|node| node.addresses.iter().copied()))
        }
        shared => sorted(shared.into_iter().map(|socket| socket.ip())),
    }
}

/// Who is asked about everything else; `None` where the site file names nobody.
pub(super) fn resolver(site: &Site, zones: &[Arc<Zone>]) -> Option<ResolverPlan> {
    let dns = site.dns.as_ref()?;
    if dns.forward.is_empty() && dns.forward_zones.is_empty() {
        return None;
    }
    let name = |host: &Host| host.as_str().parse::<Name>().ok();
    let mut per_zone: Vec<(Name, Vec<Arc<Upstream>>)> =
        dns.forward_zones.iter().filter_map(|zone| Some((name(&zone.name)?, upstreams(&zone.to)))).collect();
    // What the site file says comes first.
    for (part, servers) in zones.iter().flat_map(|zone| handed_on(zone)) {
        if !per_zone.iter().any(|(name, _)| *name == part) {
            per_zone.push((part, servers));
        }
    }
    per_zone.sort_by_key(|(name, _)| (std::cmp::Reverse(name.labels().count()), name.clone()));
    let rebind_allowed = dns.rebind_allowed.iter().filter_map(name).collect();
    Some(ResolverPlan {
        upstreams: upstreams(&dns.forward),
        per_zone,
        rebind_allowed,
        certificate_authorities: dns.forward_authorities.clone(),
        clients: clients(site),
    })
}

/// The parts of a zone that it hands to other servers, where it knows their addresses: these are asked.
fn handed_on(zone: &Zone) -> impl Iterator<Item = (Name, Vec<Arc<Upstream>>)> {
    let servers = zone
        .sets
        .iter()
        .filter(|(name, _)| **name != zone.name)
        .flat_map(|(name, sets)| sets.iter().filter(|set| set.rtype == RecordType::NS).map(move |set| (name, set)));
    servers.filter_map(|(name, set)| {
        let known = set.data.iter().filter_map(|data| match data {
            Rdata::Ns(server) => zone.sets.get(server),
            _ => None,
        });
        let addresses =
            known.flat_map(|sets| &**sets).flat_map(addresses_of).map(|address| SocketAddr::new(address, PORT));
        let upstreams: Vec<_> = addresses.map(Upstream::plain).collect();
        (!upstreams.is_empty()).then(|| (name.clone(), upstreams))
    })
}

fn upstreams(resolvers: &[Upstream]) -> Vec<Arc<Upstream>> {
    resolvers.iter().cloned().map(Arc::new).collect()
}

/// The LAN, the pods, the nodes themselves (an edge through the tunnel), and this machine. Where the LAN is unknown it is
/// taken to be what homes have.
fn clients(site: &Site) -> Vec<IpNet> {
    let fixed = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<IpNet>>();
    let mut clients = fixed(&["127.0.0.0/8", "::1/128"]);
    let lan = &site.lan.subnets;
    match lan.is_empty() {
        true => {
            clients.extend(fixed(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]));
        }
        false => clients.extend(lan),
    }
    clients.extend(fixed(&["fe80::/10"]));
    clients.extend(&site.cluster.pod_cidrs);
    clients.extend(site.nodes.iter().flat_map(|node| node.pod_cidrs.iter().copied()));
    clients.extend(site.nodes.iter().flat_map(|node| node.addresses.iter().copied().map(IpNet::from)));
    clients.sort();
    clients.dedup();
    clients
}
