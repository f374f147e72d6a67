//! The edge: everything is shut that is not an opening.
//!
//! ```text
//! arrival  prerouting  before anything else: who speaks from addresses that are home's, or to private ones, lies
//! input    to the host drop, but for essential ICMP, answers and openings
//! forward  through it  nothing between the Internet and the tunnel; translated ports as in `input`
//! output   from it     what is for home leaves by the tunnel, or is refused at once
//! ```

use std::net::IpAddr;

use dualgate_wire::nftables::{
    Action, Chain, ConnectionStatus, End, HookPoint, IpFamily, Match, Meters, Policy, Reject, Rule, Select, Set,
    Transport, Unit,
};
use ipnet::IpNet;

use super::opening::{Opening, Source, Why};
use super::rules::{
    FILTER, GUESTS, Networks, PODS, PerSource, RAW, accept, answers, chain, clamp, drop, errors, from_interface,
    from_tunnel, invalid, is_private, link_local, on_link, open, open_original, pass, ping, port, starts, tcp,
    to_interface, to_tunnel,
};
use super::{EXCHANGE_PORT, FirewallPlan, table};
use crate::model::object::Protocol;
use crate::model::site::{Firewall, Node, Role, Site};
use crate::model::{GateName, Snapshot};
use crate::plan::tunnel::{self, PeerName};

pub(super) fn plan(snapshot: &Snapshot, firewall: &Firewall, node: &Node) -> FirewallPlan {
    let edge = Edge::new(snapshot, node);
    let openings = edge.openings(&snapshot.site, firewall);
    let limits = Limits::new(&snapshot.site);
    let mut table = table();
    table.sets = limits.sets();
    table.chains.extend(edge.arrival());
    table.chains.push(edge.input(&openings, &limits));
    table.chains.extend(edge.forward(&openings));
    table.chains.extend(edge.output());
    table.chains.extend(edge.tunnel.as_ref().filter(|_| edge.has_pods()).map(|_| clamp()));
    FirewallPlan { table: Some(table), openings }
}

struct Edge<'a> {
    node: &'a Node,
    tunnel: Option<Tunnel>,
}

struct Tunnel {
    port: Option<u16>,
    /// What may come by it, and goes into it.
    home: Vec<IpNet>,
    /// The home nodes' own addresses.
    nodes: Vec<IpNet>,
    /// The networks of this edge's own pods.
    pods: Vec<IpNet>,
    /// Addresses that nobody on the Internet has, so that they can be nowhere else.
    private: Vec<IpNet>,
}

impl<'a> Edge<'a> {
    fn new(snapshot: &Snapshot, node: &'a Node) -> Self {
        let site = &*snapshot.site;
        let name = PeerName::Node(node.name.clone());
        let tunnel = tunnel::end(snapshot, &name).interface.map(|interface| {
            let home: Vec<IpNet> = interface.peers.iter().flat_map(|peer| peer.allowed_ips.clone()).collect();
            let nodes = site.nodes.iter().filter(|other| !other.is_edge()).flat_map(|other| &other.addresses);
            let mut private: Vec<IpNet> = home.iter().chain(&site.lan.subnets).copied().filter(is_private).collect();
            private.sort();
            private.dedup();
            // Home's end knows them from whoever says so.
            let ends = interface.peers.iter().filter_map(|peer| tunnel::end(snapshot, &peer.name).interface);
            let own = ends.flat_map(|end| end.peers).filter(|peer| peer.name == name).flat_map(|peer| peer.allowed_ips);
            let mut pods: Vec<IpNet> = own.filter(|net| !node.addresses.contains(&net.addr())).collect();
            pods.sort();
            pods.dedup();
            Tunnel {
                port: interface.listen_port,
                nodes: nodes.map(|address| IpNet::from(*address)).collect(),
                home,
                pods,
                private,
            }
        });
        Self { node, tunnel }
    }

    /// Whether K3s runs pods here.
    fn has_pods(&self) -> bool {
        self.node.has(Role::Agent) || self.node.has(Role::Server)
    }

    /// Its private addresses: nobody outside has a way to them but through the tunnel.
    fn own(&self) -> Vec<IpAddr> {
        self.node.addresses.iter().copied().filter(|address| is_private(&IpNet::from(*address))).collect()
    }

    fn openings(&self, site: &Site, firewall: &Firewall) -> Vec<Opening> {
        let public = |protocol, port, why| Opening::here(protocol, port, Source::Everywhere, why);
        let mut openings = vec![public(Protocol::Tcp, firewall.ssh_port, Why::Ssh)];
        let gate = site.gates.get(&GateName::External).filter(|_| self.node.has(Role::ExternalGate));
        let points = gate.into_iter().flat_map(|gate| &gate.entry_points);
        openings.extend(points.map(|(name, point)| public(Protocol::Tcp, point.port, Why::EntryPoint(name.clone()))));
        openings.extend(self.through_tunnel());
        if site.dns.as_ref().is_some_and(|dns| dns.public) && self.node.has(Role::Dns) {
            openings.extend([Protocol::Udp, Protocol::Tcp].map(|protocol| public(protocol, 53, Why::Dns)));
        }
        openings.extend([68, 546].map(|port| public(Protocol::Udp, port, Why::Dhcp)));
        openings.extend(firewall.allow.iter().enumerate().map(|(index, allow)| {
            let from = match allow.from.as_slice() {
                [] => Source::Everywhere,
                nets => Source::Networks(nets.to_vec()),
            };
            Opening::here(allow.protocol, allow.port, from, Why::Allow(index))
        }));
        openings
    }

    fn through_tunnel(&self) -> Vec<Opening> {
        let Some(tunnel) = &self.tunnel else { return Vec::new() };
        let outer = tunnel.port.map(|port| Opening::here(Protocol::Udp, port, Source::Everywhere, Why::Tunnel));
        let home = |protocol, port, why| Opening::here(protocol, port, Source::Tunnel(tunnel.nodes.clone()), why);
        let mut openings: Vec<Opening> = outer.into_iter().collect();
        openings.push(home(Protocol::Tcp, EXCHANGE_PORT, Why::Exchange));
        if self.has_pods() {
            openings.push(home(Protocol::Tcp, 10_250, Why::Kubelet));
            openings.push(home(Protocol::Udp, 8472, Why::Flannel));
        }
        if self.node.has(Role::Server) {
            openings.push(home(Protocol::Tcp, 6443, Why::ApiServer));
            openings.extend([2379, 2380].map(|port| home(Protocol::Tcp, port, Why::Etcd)));
        }
        openings
    }

    /// Needed only where addresses have one place: with a tunnel.
    fn arrival(&self) -> Option<Chain> {
        let tunnel = self.tunnel.as_ref()?;
        let mut rules = vec![pass(vec![from_interface("lo")])];
        rules.extend(self.of_pods(from_interface));
        let mut home = Networks::new(&tunnel.home);
        home.v6.push(link_local());
        rules.extend(home.others(End::Source).map(|other| drop(vec![from_tunnel(), other], "tunnel-source")));
        rules.push(pass(vec![from_tunnel()]));
        let own = self.own();
        let mut hidden = tunnel.private.clone();
        hidden.extend(tunnel.pods.iter().copied().filter(is_private));
        hidden.extend(own.iter().map(|address| IpNet::from(*address)));
        rules.extend(Networks::new(&hidden).matches(End::Source).map(|lie| drop(vec![lie], "spoofed")));
        let to_own = Networks::of_addresses(&own).matches(End::Destination);
        rules.extend(to_own.map(|to| drop(vec![to], "private-destination")));
        Some(chain("arrival", HookPoint::Prerouting, RAW, Policy::Accept, rules))
    }

    /// Lets the interfaces of pods pass, if there can be any.
    fn of_pods(&self, interface: fn(&str) -> Match) -> impl Iterator<Item = Rule> {
        PODS.into_iter().filter(|_| self.has_pods()).map(move |name| pass(vec![interface(name)]))
    }

    fn input(&self, openings: &[Opening], limits: &Limits) -> Chain {
        let mut rules = vec![pass(vec![from_interface("lo")])];
        rules.extend(on_link());
        rules.extend(errors());
        rules.extend([answers(), invalid()]);
        for family in [IpFamily::V4, IpFamily::V6] {
            rules.push(limits.ping.rule(family, ping(family, [])));
            rules.push(accept(ping(family, []), "ping"));
        }
        for opening in openings {
            match &opening.why {
                Why::Ssh => rules.extend(limits.ssh.rules(&[port(opening), vec![starts()]].concat())),
                Why::EntryPoint(_) => rules.extend(limits.clients.rules(&[port(opening), vec![starts()]].concat())),
                Why::Dhcp => {
                    rules.push(lease(opening));
                    continue;
                }
                Why::Tunnel
                | Why::Dns
                | Why::Exchange
                | Why::Kubelet
                | Why::Flannel
                | Why::ApiServer
                | Why::Etcd
                | Why::Allow(_)
                | Why::Former(_)
                | Why::PublicRoutes => {}
            }
            rules.extend(open(opening));
        }
        rules.push(drop(Vec::new(), "shut"));
        chain("input", HookPoint::Input, FILTER, Policy::Drop, rules)
    }

    fn forward(&self, openings: &[Opening]) -> Vec<Chain> {
        let mut rules = vec![answers()];
        if let Some(tunnel) = &self.tunnel {
            if self.has_pods() {
                let nets = Networks::new(&tunnel.pods);
                rules.extend(nets.matches(End::Destination).map(|to| accept(vec![from_tunnel(), to], "pods")));
                rules.extend(PODS.map(|name| accept(vec![from_interface(name), to_tunnel()], "pods")));
            }
            rules.push(drop(vec![from_tunnel()], "from-tunnel"));
            rules.push(drop(vec![to_tunnel()], "to-tunnel"));
        }
        let translated = vec![Match::ConnectionStatus(ConnectionStatus::Dnat), starts()];
        rules.push(Rule::new(translated, Action::Jump("published".to_owned())));
        vec![chain("forward", HookPoint::Forward, FILTER, Policy::Accept, rules), published(openings), guests()]
    }

    /// That a server is not there must be told at once, and not be looked for on the Internet. A connection hears a reset
    /// while it is being opened, and of ICMP only when it tries again.
    fn output(&self) -> Option<Chain> {
        let tunnel = self.tunnel.as_ref()?;
        let mut rules = vec![pass(vec![to_interface("lo")]), pass(vec![to_tunnel()])];
        rules.extend(self.of_pods(to_interface));
        let refuse = |test: Match, name| {
            let reject = |tests, reject| Rule::new(tests, Action::Reject(reject)).counted().named(name);
            [reject(vec![tcp(), test.clone()], Reject::TcpReset), reject(vec![test], Reject::AdminProhibited)]
        };
        let home = Networks::new(&tunnel.private).matches(End::Destination);
        rules.extend(home.flat_map(|to| refuse(to, "home-outside-tunnel")));
        let own = Networks::of_addresses(&self.own()).matches(End::Source);
        rules.extend(own.flat_map(|from| refuse(from, "private-source")));
        Some(chain("output", HookPoint::Output, FILTER, Policy::Accept, rules))
    }
}

/// What other software translates to its containers is open only if the port that it came to is. Containers of this
/// machine may go on; they have private addresses.
fn published(openings: &[Opening]) -> Chain {
    let guests = Networks::private().matches(End::Source);
    let mut rules: Vec<Rule> = guests.map(|from| Rule::new(vec![from], Action::Jump("guests".to_owned()))).collect();
    let public = |opening: &&Opening| match opening.from {
        Source::Everywhere | Source::Networks(_) => opening.why != Why::Dhcp,
        Source::Tunnel(_) => false,
    };
    rules.extend(openings.iter().filter(public).flat_map(open_original));
    rules.push(drop(Vec::new(), "published"));
    Chain::regular("published", rules)
}

fn guests() -> Chain {
    let names = PODS.into_iter().chain(GUESTS);
    Chain::regular("guests", names.map(|name| pass(vec![from_interface(name)])).collect())
}

/// Servers of DHCP answer from their own port (RFC 2131 4.1), those of DHCPv6 from the link (RFC 8415 7.2).
fn lease(opening: &Opening) -> Rule {
    let from = |port: u16| Match::Port(Transport::Udp, End::Source, Select::one(port));
    let mut matches = match opening.port {
        68 => vec![Match::IpFamily(IpFamily::V4), from(67)],
        _ => vec![Match::Ip6(End::Source, Select::one(link_local()))],
    };
    matches.extend(port(opening));
    accept(matches, opening.name())
}

/// What one source may have.
struct Limits {
    ping: PerSource,
    ssh: PerSource,
    clients: PerSource,
}

impl Limits {
    fn new(site: &Site) -> Self {
        // Four at least must come together to take all connections that the gate has.
        let most = u32::try_from(site.proxy.max_connections / 4).unwrap_or(u32::MAX).max(1);
        Self {
            ping: PerSource::rate("ping", 20, Unit::Second, 40),
            ssh: PerSource::ssh(),
            clients: PerSource { name: "clients", test: Meters::ConnectionsOver(most) },
        }
    }

    fn sets(&self) -> Vec<Set> {
        [&self.ping, &self.ssh, &self.clients].iter().flat_map(|limit| limit.sets()).collect()
    }
}
