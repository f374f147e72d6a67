//! A home node: what comes from an edge reaches the pods behind public routes, on their ports, and nothing else.
//!
//! The LAN is trusted; nothing else is looked at. Where home nodes hold the tunnel, its interface tells what comes from
//! an edge. Where the router does, the edges' addresses do, of which WireGuard at the router lets no other in; what else
//! of the LAN an edge reaches is then for the router to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dualgate_wire::nftables::{
    Action, Chain, Elements, End, HookPoint, IpFamily, Match, Policy, Rule, Select, Set, SetKind,
};
use ipnet::IpNet;

use super::opening::{Opening, Source, Why};
use super::rules::{
    FILTER, Networks, accept, answers, chain, clamp, drop, from_tunnel, invalid, link_local, on_link, open, ping, port,
};
use super::{FirewallPlan, table};
use crate::lower::Lowered;
use crate::model::object::Protocol;
use crate::model::site::{HomeEnd, Node, Role};
use crate::model::{Family, GateName, Snapshot};
use crate::plan::proxy::ServerAddress;
use crate::plan::tunnel::{self, Interface, PeerName};
use crate::route;

pub(super) fn plan(snapshot: &Snapshot, lowered: &Lowered, node: &Node) -> FirewallPlan {
    let Some(home) = Home::new(snapshot, node) else { return FirewallPlan::default() };
    let mut openings = home.cluster(snapshot);
    openings.extend(home.pods(lowered));
    let mut table = table();
    table.sets = openings.iter().filter(|opening| opening.why == Why::PublicRoutes).flat_map(sets).collect();
    let judge = || -> Vec<Rule> {
        home.comes_from_edge().into_iter().map(|test| Rule::new(vec![test], Action::Goto(CHAIN.to_owned()))).collect()
    };
    table.chains.push(chain("input", HookPoint::Input, FILTER, Policy::Accept, judge()));
    table.chains.push(chain("forward", HookPoint::Forward, FILTER, Policy::Accept, judge()));
    table.chains.push(home.judgement(&openings));
    match home.end {
        HomeEnd::Nodes => table.chains.push(clamp()),
        HomeEnd::Router => {}
    }
    FirewallPlan { table: Some(table), openings }
}

const CHAIN: &str = "from_edge";

struct Home<'a> {
    node: &'a Node,
    /// Who holds the tunnel.
    end: HomeEnd,
    /// What the edges may speak from.
    edges: Vec<IpNet>,
    /// What is reached through this node.
    behind: Vec<IpNet>,
}

impl<'a> Home<'a> {
    /// Nothing, if no edge reaches this node.
    fn new(snapshot: &Snapshot, node: &'a Node) -> Option<Self> {
        let end = snapshot.site.tunnel.as_ref()?.home_end;
        let name = match end {
            HomeEnd::Nodes => PeerName::Node(node.name.clone()),
            HomeEnd::Router => PeerName::Router,
        };
        let interface: Interface = tunnel::end(snapshot, &name).interface?;
        let edges = interface.peers.iter().flat_map(|peer| peer.allowed_ips.clone()).collect();
        let behind = interface.peers.iter().filter_map(|edge| {
            let other = tunnel::end(snapshot, &edge.name).interface?;
            other.peers.into_iter().find(|peer| peer.name == name)
        });
        let mut behind: Vec<IpNet> = behind.flat_map(|peer| peer.allowed_ips).collect();
        behind.sort();
        behind.dedup();
        Some(Self { node, end, edges, behind })
    }

    fn comes_from_edge(&self) -> Vec<Match> {
        match self.end {
            HomeEnd::Nodes => vec![from_tunnel()],
            HomeEnd::Router => Networks::new(&self.edges).matches(End::Source).collect(),
        }
    }

    /// What an edge that is part of the cluster needs.
    fn cluster(&self, snapshot: &Snapshot) -> Vec<Opening> {
        let is_server = self.node.has(Role::Server);
        if !is_server && !self.node.has(Role::Agent) {
            return Vec::new();
        }
        let edges = |role: Role| -> Vec<IpNet> {
            let edges = snapshot.site.nodes.iter().filter(|node| node.is_edge() && node.has(role));
            edges.flat_map(|edge| &edge.addresses).map(|address| IpNet::from(*address)).collect()
        };
        let servers = edges(Role::Server);
        let members = [edges(Role::Agent), servers.clone()].concat();
        // The node's own ports, not those of what it forwards to.
        let to = self.node.addresses.clone();
        let open = |protocol, port, from: &[IpNet], why| {
            let from = self.source(from);
            Opening { protocol, port, from, to: to.clone(), why }
        };
        let mut openings = Vec::new();
        if !members.is_empty() {
            openings.push(open(Protocol::Udp, 8472, &members, Why::Flannel));
            if is_server {
                openings.push(open(Protocol::Tcp, 6443, &members, Why::ApiServer));
            }
        }
        if !servers.is_empty() {
            openings.push(open(Protocol::Tcp, 10_250, &servers, Why::Kubelet));
            let etcd = [2379, 2380].into_iter().filter(|_| is_server);
            openings.extend(etcd.map(|port| open(Protocol::Tcp, port, &servers, Why::Etcd)));
        }
        openings
    }

    fn source(&self, from: &[IpNet]) -> Source {
        match self.end {
            HomeEnd::Nodes => Source::Tunnel(from.to_vec()),
            HomeEnd::Router => Source::Networks(from.to_vec()),
        }
    }

    /// The servers behind the external gate's routes that are reached through this node.
    fn pods(&self, lowered: &Lowered) -> Vec<Opening> {
        let external = lowered.entry_points.of_gate(GateName::External);
        let routes = lowered.routes().filter(|route| route.entry_points.intersects(external));
        let mut is_public: Vec<bool> = Vec::new();
        for route in routes {
            let route::Action::Forward(index) = &route.action else { continue };
            let at = index.0 as usize;
            is_public.resize(is_public.len().max(at + 1), false);
            is_public[at] = true;
        }
        let mut ports: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
        let backends = lowered.backends().numbered();
        let public = backends.filter(|(index, _)| is_public.get(index.0 as usize) == Some(&true));
        for server in public.flat_map(|(_, backend)| &backend.servers) {
            let ServerAddress::Sockets(sockets) = &server.at else { continue };
            for socket in sockets.iter().filter(|socket| self.behind.iter().any(|net| net.contains(&socket.ip()))) {
                ports.entry(socket.port()).or_default().insert(socket.ip());
            }
        }
        let opening = |(port, to): (u16, BTreeSet<IpAddr>)| Opening {
            protocol: Protocol::Tcp,
            port,
            from: self.source(&self.edges),
            to: to.into_iter().collect(),
            why: Why::PublicRoutes,
        };
        ports.into_iter().map(opening).collect()
    }

    fn judgement(&self, openings: &[Opening]) -> Chain {
        let mut sources = Networks::new(&self.edges);
        sources.v6.push(link_local());
        let mut rules: Vec<Rule> = sources.others(End::Source).map(|other| drop(vec![other], "tunnel-source")).into();
        rules.extend(on_link());
        rules.extend([answers(), invalid()]);
        let own = Networks::of_addresses(&self.node.addresses);
        for family in [IpFamily::V4, IpFamily::V6] {
            let to = own.of(family, End::Destination);
            rules.extend(to.map(|to| accept(ping(family, [to]), "ping")));
        }
        for opening in openings {
            if opening.why == Why::PublicRoutes {
                rules.extend(to_pods(opening));
            } else {
                rules.extend(open(opening));
            }
        }
        rules.push(drop(Vec::new(), "from-edge"));
        Chain::regular(CHAIN, rules)
    }
}

/// Pods come and go; they are in sets, so that rules and their counters stay.
fn to_pods(opening: &Opening) -> Vec<Rule> {
    let rule = |set: &Set| {
        let to = match opening.to.iter().find(|to| set_name(opening, **to) == set.name)? {
            IpAddr::V4(_) => Match::Ip(End::Destination, Select::set(set.name.as_str())),
            IpAddr::V6(_) => Match::Ip6(End::Destination, Select::set(set.name.as_str())),
        };
        Some(accept([vec![to], port(opening)].concat(), opening.name()))
    };
    sets(opening).iter().filter_map(rule).collect()
}

/// One for each family that the opening has addresses of.
fn sets(opening: &Opening) -> Vec<Set> {
    let Networks { v4, v6 } = Networks::of_addresses(&opening.to);
    let of = |family, elements| {
        let first = opening.to.iter().find(|to| Family::of(**to) == family)?;
        Some(Set { name: set_name(opening, *first), kind: SetKind::Values, elements })
    };
    [of(Family::V4, Elements::Ip(v4)), of(Family::V6, Elements::Ip6(v6))].into_iter().flatten().collect()
}

fn set_name(opening: &Opening, to: IpAddr) -> String {
    let family = if to.is_ipv4() { "4" } else { "6" };
    format!("pods{family}_{}", opening.port)
}
