//! Who has which addresses behind the tunnel: one list for the whole site, without overlaps.
//!
//! Addresses of nodes come before networks of pods, and otherwise the site file's order decides: who comes later loses
//! what is taken, and a finding says so. Both ends compute the same list.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{End, PeerName, Side, ends};
use crate::model::object::{Body, NodeBody};
use crate::model::site::{HomeEnd, Node, Role, Site, Tunnel};
use crate::model::{Code, Finding, Object, ObjectSet, Place, Snapshot};

/// Addresses behind one end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) owner: PeerName,
    pub(crate) net: IpNet,
    pub(crate) what: What,
    pub(crate) at: Origin,
}

/// What the addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A node's own.
    Address,
    /// Its pods'.
    Pods,
}

/// Who says so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// A field of the site file.
    Site(String),
    /// A Node object.
    Object(Place),
}

/// A claim that cannot be had.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) claim: Claim,
    pub(crate) why: Why,
}

/// Why not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    /// Another end has some of it.
    Taken(Claim),
    /// The tunnel's own packets go there.
    Endpoint(IpAddr),
}

impl Fault {
    pub(crate) fn code(&self) -> Code {
        match self.why {
            Why::Taken(_) => Code::TunnelOverlap,
            Why::Endpoint(_) => Code::TunnelLoop,
        }
    }

    pub(crate) fn help(&self) -> &'static str {
        match self.why {
            Why::Taken(_) => "an address lies behind one end of the tunnel: change one of the two",
            Why::Endpoint(_) => "the tunnel would run inside itself: use private addresses behind the tunnel",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { owner, net, .. } = &self.claim;
        match &self.why {
            Why::Taken(with) => {
                write!(f, "`{net}` of `{owner}` overlaps with `{}` of `{}`, which keeps it", with.net, with.owner)
            }
            Why::Endpoint(address) => write!(f, "`{net}` of `{owner}` holds `{address}`, the edge's public address"),
        }
    }
}

/// What each end has, without faults.
pub(super) fn settled(snapshot: &Snapshot) -> Vec<Claim> {
    settle(&snapshot.site, Some(&snapshot.objects)).0
}

/// What a site alone gets wrong, for `check::site`. What other rules say of the same fields is left out there.
pub(crate) fn faults_of_site(site: &Site) -> Vec<Fault> {
    settle(site, None).1
}

pub(super) fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let faults = settle(&snapshot.site, Some(&snapshot.objects)).1;
    let mut findings: Vec<Finding> = faults.iter().filter_map(of_objects).collect();
    findings.extend(unknown_pods(snapshot));
    findings
}

/// As a finding, if an object is part of it.
fn of_objects(fault: &Fault) -> Option<Finding> {
    let with = match &fault.why {
        Why::Taken(with) => Some(&with.at),
        Why::Endpoint(_) => None,
    };
    let place = match (&fault.claim.at, with) {
        (Origin::Object(place), _) | (Origin::Site(_), Some(Origin::Object(place))) => place.clone(),
        (Origin::Site(_), Some(Origin::Site(_)) | None) => return None,
    };
    Some(Finding::new(fault.code(), place, fault.to_string()).help(fault.help()))
}

/// Home nodes whose pods the edge cannot reach, as nobody says where they are.
fn unknown_pods(snapshot: &Snapshot) -> Option<Finding> {
    let site = &*snapshot.site;
    let tunnel = site.tunnel.as_ref()?;
    let has_edge = site.nodes.iter().any(Node::is_edge);
    let is_member = |node: &Node| !node.is_edge() && (node.has(Role::Server) || node.has(Role::Agent));
    let unknown = |index, node: &Node| is_member(node) && pods(index, node, Some(&snapshot.objects)).is_empty();
    let nodes = site.nodes.iter().enumerate().filter(|(index, node)| unknown(*index, node));
    let names: Vec<String> = nodes.map(|(_, node)| format!("`{}`", node.name)).collect();
    let covered = whole_cluster(site, tunnel, Some(&snapshot.objects)).is_some() && !site.cluster.pod_cidrs.is_empty();
    if names.is_empty() || !has_edge || covered {
        return None;
    }
    let place = Place { field: "nodes".to_owned(), ..Place::default() };
    let message =
        format!("the edge cannot reach the pods of {}: nobody says which networks they have", names.join(", "));
    let help = "give the source the Node objects, or write `podCIDRs` of each node into the site file";
    Some(Finding::new(Code::TunnelPods, place, message).help(help))
}

fn settle(site: &Site, objects: Option<&ObjectSet>) -> (Vec<Claim>, Vec<Fault>) {
    let outside: Vec<IpAddr> =
        site.nodes.iter().filter(|node| node.is_edge()).flat_map(|node| &node.public_addresses).copied().collect();
    let (mut kept, mut faults): (Vec<Claim>, _) = (Vec::new(), Vec::new());
    for claim in claims(site, objects) {
        let endpoint = outside.iter().find(|address| claim.net.contains(*address));
        let taken = kept.iter().find(|with| with.owner != claim.owner && share(&with.net, &claim.net));
        let has_it = kept.iter().any(|own| own.owner == claim.owner && own.net.contains(&claim.net));
        match (endpoint, taken) {
            (Some(address), _) => faults.push(Fault { claim, why: Why::Endpoint(*address) }),
            (None, Some(with)) => {
                let why = Why::Taken(with.clone());
                faults.push(Fault { claim, why });
            }
            (None, None) if has_it => {}
            (None, None) => kept.push(claim),
        }
    }
    (kept, faults)
}

fn share(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn claims(site: &Site, objects: Option<&ObjectSet>) -> Vec<Claim> {
    let Some(tunnel) = &site.tunnel else { return Vec::new() };
    let owner = |node: &Node| match (node.is_edge(), tunnel.home_end) {
        (false, HomeEnd::Router) => PeerName::Router,
        (true, HomeEnd::Router) | (_, HomeEnd::Nodes) => PeerName::Node(node.name.clone()),
    };
    let mut claims = Vec::new();
    for (index, node) in site.nodes.iter().enumerate() {
        for (position, address) in node.addresses.iter().enumerate() {
            let at = Origin::Site(format!("nodes[{index}].addresses[{position}]"));
            claims.push(Claim { owner: owner(node), net: IpNet::from(*address), what: What::Address, at });
        }
    }
    for (index, node) in site.nodes.iter().enumerate() {
        for (net, at) in pods(index, node, objects) {
            claims.push(Claim { owner: owner(node), net, what: What::Pods, at });
        }
    }
    if let Some(owner) = whole_cluster(site, tunnel, objects) {
        for (position, net) in site.cluster.pod_cidrs.iter().enumerate() {
            let at = Origin::Site(format!("cluster.podCIDRs[{position}]"));
            claims.push(Claim { owner: owner.clone(), net: *net, what: What::Pods, at });
        }
    }
    claims
}

/// The one end of home, when no home node says where its pods are: then they can only be behind that one.
fn whole_cluster(site: &Site, tunnel: &Tunnel, objects: Option<&ObjectSet>) -> Option<PeerName> {
    let mut home = site.nodes.iter().enumerate().filter(|(_, node)| !node.is_edge());
    if home.any(|(index, node)| !pods(index, node, objects).is_empty()) {
        return None;
    }
    let mut ends = ends(site, tunnel).into_iter().filter(|end: &End<'_>| matches!(end.side, Side::Home(_)));
    match (ends.next(), ends.next()) {
        (Some(only), None) => Some(only.name),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

/// The pod networks of the node at `index`: the Node object's, else the site file's. An edge outside the cluster has
/// none.
fn pods(index: usize, node: &Node, objects: Option<&ObjectSet>) -> Vec<(IpNet, Origin)> {
    if node.is_edge() && !node.has(Role::Agent) && !node.has(Role::Server) {
        return Vec::new();
    }
    match objects.and_then(|objects| node_object(objects, node)) {
        Some((object, body)) if !body.pod_cidrs.is_empty() => {
            let origin = Origin::Object(object.place("spec.podCIDRs"));
            body.pod_cidrs.iter().map(|net| (net.trunc(), origin.clone())).collect()
        }
        Some(_) | None => {
            let origin = |position| Origin::Site(format!("nodes[{index}].podCIDRs[{position}]"));
            node.pod_cidrs.iter().enumerate().map(|(position, net)| (*net, origin(position))).collect()
        }
    }
}

fn node_object<'a>(objects: &'a ObjectSet, node: &Node) -> Option<(&'a Object, &'a NodeBody)> {
    let object = objects.get("Node", "", node.name.as_str())?;
    match &object.body {
        Body::Node(body) => Some((&**object, &**body)),
        _ => None,
    }
}

/// The pods' networks with the address of the home node that has them: what a router needs as static routes.
pub(super) fn pod_routes(snapshot: &Snapshot) -> Vec<(IpNet, IpAddr)> {
    let home = snapshot.site.nodes.iter().enumerate().filter(|(_, node)| !node.is_edge());
    let of_node = |(index, node): (usize, &Node)| {
        let nets = pods(index, node, Some(&snapshot.objects)).into_iter().map(|(net, _)| net);
        nets.filter_map(|net| Some((net, via(node, &net)?))).collect::<Vec<_>>()
    };
    let routes: Vec<_> = home.clone().flat_map(of_node).collect();
    if !routes.is_empty() {
        return routes;
    }
    // Each node of the cluster forwards to the others.
    let to_any = |net: &IpNet| home.clone().find_map(|(_, node)| Some((*net, via(node, net)?)));
    snapshot.site.cluster.pod_cidrs.iter().filter_map(to_any).collect()
}

fn via(node: &Node, net: &IpNet) -> Option<IpAddr> {
    node.addresses.iter().find(|address| address.is_ipv4() == net.addr().is_ipv4()).copied()
}
