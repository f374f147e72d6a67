//! A site becomes hosts and links.
//!
//! ```text
//! internet-client ─┐
//! edges ───────────┼─ internet ─ carrier ─ router ─┐
//!                  ┘                                ├─ lan ─ lan-client
//! edges ─ tunnel ─ home nodes ──────────────────────┘
//! ```
//!
//! Everything on the Internet hangs on a link of its own with single addresses (/32, /128) and a link-local gateway, as at
//! a provider of cloud servers, so that public addresses of any range fit. `tunnel` stands in for WireGuard where the nodes
//! do not bring it themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_core::model::site::{HomeEnd, Node, Role, Site, Uplink};
use dualgate_core::model::{Family, GateName};
use ipnet::{IpNet, Ipv6Net};

use crate::rehearsal::Tunnel;

use super::plan::{Draft, default_route, first_host, on_link, port_name, single};
use super::{Filter, Host, HostKind, Interface, InterfaceKind, Objects, POD_BRIDGE, Route, StandIn, Topology};

/// Why a site is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Nobody is anywhere.
    #[error(
        "the site has no node with an address that is not loopback; the lab builds nodes from `nodes[].addresses` and `nodes[].publicAddresses`"
    )]
    NoNodes,
    /// Home nodes, but no home.
    #[error(
        "`{node}` is a home node, but its address {address} lies in no subnet of `lan.subnets`; add the subnet, or remove the node"
    )]
    Homeless {
        /// The node.
        node: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// Two things want one name.
    #[error(
        "a node is called `{0}`, which is the name of one of the lab's own hosts; rename the node for the rehearsal"
    )]
    Name(String),
    /// No host can have it.
    #[error("the node's name `{0}` is longer than the 64 characters that a host name may have")]
    LongName(String),
}

/// The names of the lab's own hosts.
const OWN: [&str; 7] = ["internet-client", "internet", "carrier", "router", "lan", "tunnel", "lan-client"];

/// The longest name of a host (gethostname(2)).
const HOST_NAME: usize = 64;

/// The gateway's address on every link of a provider.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The carrier's address on the line to the home.
const LINE: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);
const LINE6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// The carrier's own address, which its translation shows to the Internet.
const CARRIER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router's public IPv4 address, where it has one.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The prefix that the provider delegates to the home.
const HOME_PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 1, 0, 0, 0, 0);
/// The line to a home: PPPoE takes 8 octets of Ethernet's 1500.
const LINE_MTU: u32 = 1492;
/// What is left for IPv4 inside IPv6 on such a line (RFC 6333 5.3).
const SOFTWIRE_MTU: u32 = LINE_MTU - 40;
const ETHERNET_MTU: u32 = 1500;
/// The inner MTU of what stands in for the tunnel, unless the site file says another.
const TUNNEL_MTU: u32 = 1392;

/// The whole network of a site.
pub fn build(site: &Site, tunnel: Tunnel) -> Result<Topology, TopologyError> {
    if let Some(node) = site.nodes.iter().find(|node| OWN.contains(&node.name.as_str())) {
        return Err(TopologyError::Name(node.name.to_string()));
    }
    if let Some(node) = site.nodes.iter().find(|node| node.name.as_str().len() > HOST_NAME) {
        return Err(TopologyError::LongName(node.name.to_string()));
    }
    let plan = Plan::new(site, tunnel)?;
    let mut draft = Draft::default();
    plan.internet(&mut draft);
    for node in plan.outside() {
        plan.edge(node, &mut draft);
    }
    if !plan.home.is_empty() {
        plan.uplink(&mut draft);
        plan.lan(&mut draft);
    }
    plan.tunnel(&mut draft);
    plan.settle(&mut draft);
    let stand_ins = plan.stand_ins();
    Ok(Topology { hosts: draft.hosts, links: draft.links, stand_ins })
}

struct Plan<'s> {
    site: &'s Site,
    /// Nodes in the LAN.
    home: Vec<&'s Node>,
    router: Vec<IpNet>,
    uplink: Uplink,
    /// The home's prefix on the Internet.
    global: Option<Ipv6Net>,
    tunnel: Tunnel,
}

impl<'s> Plan<'s> {
    fn new(site: &'s Site, tunnel: Tunnel) -> Result<Self, TopologyError> {
        let real = |node: &&Node| node.addresses.iter().chain(&node.public_addresses).any(|a| !a.is_loopback());
        if !site.nodes.iter().any(|node| real(&node)) {
            return Err(TopologyError::NoNodes);
        }
        let home: Vec<&Node> = site.nodes.iter().filter(real).filter(|node| !is_outside(site, node)).collect();
        for node in &home {
            if let Some(address) = node.addresses.iter().find(|address| subnet(site, **address).is_none()) {
                return Err(TopologyError::Homeless { node: node.name.to_string(), address: *address });
            }
        }
        let named = site.lan.router.as_ref().map(|router| router.addresses.clone()).unwrap_or_default();
        let router = if named.is_empty() { first_free(site) } else { named };
        let router = router.into_iter().filter_map(|address| Some(with_prefix(address, subnet(site, address)?)));
        let uplink = site.lan.router.as_ref().map_or(Uplink::DsLite, |router| router.uplink);
        let mut plan = Self { site, home, router: router.collect(), uplink, global: None, tunnel };
        plan.global = plan.global_prefix();
        Ok(plan)
    }

    /// The LAN's own prefix if it is a global one, else one that is delegated. Without IPv6 there is none.
    fn global_prefix(&self) -> Option<Ipv6Net> {
        let subnets = self.site.lan.subnets.iter().filter_map(|subnet| match subnet {
            IpNet::V6(subnet) => Some(*subnet),
            IpNet::V4(_) => None,
        });
        let subnets: Vec<Ipv6Net> = subnets.collect();
        if subnets.is_empty() || self.uplink == Uplink::Ipv4Only {
            return None;
        }
        let own = subnets.iter().find(|subnet| !subnet.addr().is_unique_local());
        own.copied().or_else(|| Ipv6Net::new(HOME_PREFIX, 64).ok())
    }

    fn outside(&self) -> impl Iterator<Item = &'s Node> {
        self.site.nodes.iter().filter(|node| is_outside(self.site, node))
    }

    fn has(&self, family: Family) -> bool {
        let addresses = self.site.nodes.iter().flat_map(|node| node.addresses.iter().chain(&node.public_addresses));
        let subnets = self.site.lan.subnets.iter().map(|subnet| Family::of(subnet.addr()));
        addresses.map(|address| Family::of(*address)).chain(subnets).any(|one| one == family)
    }

    /// Whether home reaches the Internet over this family.
    fn goes_out(&self, family: Family) -> bool {
        match (family, self.uplink) {
            (Family::V4, Uplink::Ipv6Only) => false,
            (Family::V4, _) => self.router.iter().any(|net| net.addr().is_ipv4()),
            (Family::V6, _) => self.global.is_some(),
        }
    }

    fn internet(&self, draft: &mut Draft) {
        draft.host("internet-client", HostKind::InternetClient);
        draft.host("internet", HostKind::Internet);
        let client = self.client_addresses();
        self.attach(draft, "internet-client", "eth0", &client);
    }

    /// Documentation addresses that the site does not use itself.
    fn client_addresses(&self) -> Vec<IpAddr> {
        let taken: Vec<IpAddr> = self.site.nodes.iter().flat_map(|node| node.public_addresses.clone()).collect();
        let free = |candidates: [IpAddr; 3]| candidates.into_iter().find(|address| !taken.contains(address));
        let v4 = [[198, 51, 100, 7], [198, 51, 100, 8], [198, 51, 100, 9]].map(IpAddr::from);
        let v6 = [7, 8, 9].map(|last| IpAddr::from([0x2001, 0xdb8, 0x7, 0, 0, 0, 0, last]));
        let mut addresses = Vec::new();
        addresses.extend(free(v4).filter(|_| self.has(Family::V4)));
        addresses.extend(free(v6).filter(|_| self.has(Family::V6)));
        addresses
    }

    /// Hangs a host on the Internet: single addresses, a link-local gateway.
    fn attach(&self, draft: &mut Draft, host: &str, interface: &str, addresses: &[IpAddr]) {
        let near = Interface {
            name: interface.to_owned(),
            mtu: ETHERNET_MTU,
            addresses: addresses.iter().map(|address| single(*address)).collect(),
            routes: gateways(addresses),
            ..Interface::default()
        };
        let far = Interface {
            name: port_name(host),
            mtu: ETHERNET_MTU,
            addresses: vec![single(GATEWAY.into()), with_prefix(GATEWAY6.into(), 64)],
            routes: addresses.iter().map(|address| on_link(single(*address))).collect(),
            ..Interface::default()
        };
        draft.cable(&format!("internet/{host}"), (host, near), ("internet", far));
    }

    fn edge(&self, node: &Node, draft: &mut Draft) {
        draft.node(node, HostKind::Edge);
        draft.get(node.name.as_str()).objects = match self.tunnel {
            Tunnel::Real => Objects::Told,
            Tunnel::StandIn => Objects::Manifests,
        };
        self.attach(draft, node.name.as_str(), "eth0", &self.public_addresses(node));
    }

    fn public_addresses(&self, node: &Node) -> Vec<IpAddr> {
        let mut addresses = node.public_addresses.clone();
        let first = self.site.nodes.iter().find(|other| other.has(Role::ExternalGate));
        if first.is_some_and(|first| first.name == node.name) {
            addresses.extend(self.site.virtual_addresses(GateName::External));
        }
        addresses
    }

    /// The carrier and the home router, and the line between them.
    fn uplink(&self, draft: &mut Draft) {
        let translated = matches!(self.uplink, Uplink::DsLite | Uplink::Cgnat);
        let wan = match self.uplink {
            // The address of a DS-Lite router on its softwire (RFC 6333 5.7).
            Uplink::DsLite => Some(Ipv4Addr::new(192, 0, 0, 2)),
            Uplink::Cgnat => Some(Ipv4Addr::new(100, 64, 0, 2)),
            Uplink::DualStack | Uplink::Ipv4Only => Some(ROUTER),
            Uplink::Ipv6Only => None,
        };
        let wan = wan.filter(|_| self.goes_out(Family::V4));
        draft.host("carrier", HostKind::Carrier);
        draft.host("router", HostKind::Router);
        self.carrier(draft, wan, translated);
        self.line(draft, wan);
        if translated {
            draft.get("carrier").filter = Filter::Router { outside: "eth0".to_owned(), masquerade: true };
        }
        let masquerade = matches!(self.uplink, Uplink::Cgnat | Uplink::DualStack | Uplink::Ipv4Only);
        draft.get("router").filter = Filter::Router { outside: "wan0".to_owned(), masquerade };
    }

    fn carrier(&self, draft: &mut Draft, wan: Option<Ipv4Addr>, translated: bool) {
        let addresses: Vec<IpAddr> = wan.iter().map(|_| CARRIER.into()).collect();
        self.attach(draft, "carrier", "eth0", &addresses);
        let behind = wan.filter(|_| !translated).map(|wan| single(wan.into()));
        for prefix in self.global.map(IpNet::V6).into_iter().chain(behind) {
            let via = match prefix {
                IpNet::V4(_) => Some(CARRIER.into()),
                IpNet::V6(_) => Some(draft.link_local("carrier", "eth0")),
            };
            let port = draft.interface("internet", &port_name("carrier"));
            port.routes.push(Route { to: prefix, via, source: None, mtu: None });
        }
        // Packets on their way out need a gateway also where the carrier itself has no address.
        let outside = draft.interface("carrier", "eth0");
        outside.routes = vec![default_route(GATEWAY.into()), default_route(GATEWAY6.into())];
    }

    fn line(&self, draft: &mut Draft, wan: Option<Ipv4Addr>) {
        let softwire = (self.uplink == Uplink::DsLite).then_some(SOFTWIRE_MTU);
        let mut near = Interface { name: "wan0".to_owned(), mtu: LINE_MTU, ..Interface::default() };
        near.addresses.extend(wan.map(|wan| single(wan.into())));
        near.routes.extend(wan.map(|_| Route { mtu: softwire, ..default_route(LINE.into()) }));
        near.routes.extend(self.global.map(|_| default_route(LINE6.into())));
        let mut far = Interface { name: "home0".to_owned(), mtu: LINE_MTU, ..Interface::default() };
        far.addresses = vec![single(LINE.into()), with_prefix(LINE6.into(), 64)];
        draft.cable("carrier/router", ("router", near), ("carrier", far));
        let mut back = Vec::new();
        back.extend(wan.map(|wan| Route { mtu: softwire, ..on_link(single(wan.into())) }));
        if let (Some(wan), Uplink::DsLite) = (wan, self.uplink) {
            // Inside the softwire the home's own addresses travel; the carrier translates them.
            let subnets = self.site.lan.subnets.iter().filter(|subnet| subnet.addr().is_ipv4());
            back.extend(subnets.map(|subnet| Route {
                to: *subnet,
                via: Some(wan.into()),
                source: None,
                mtu: softwire,
            }));
        }
        let router = draft.link_local("router", "wan0");
        back.extend(self.global.map(|global| Route { to: global.into(), via: Some(router), source: None, mtu: None }));
        draft.interface("carrier", "home0").routes = back;
    }

    fn lan(&self, draft: &mut Draft) {
        draft.switch("lan");
        self.join(draft, "router", "lan0", self.router.clone(), Vec::new());
        let mut own = vec![with_prefix(GATEWAY6.into(), 64)];
        let first = |global: &Ipv6Net| Ipv6Addr::from(u128::from(global.network()) | 1);
        own.extend(self.global.map(|global| with_prefix(first(&global).into(), global.prefix_len())));
        let lan0 = draft.interface("router", "lan0");
        let has_own = |net: &IpNet| lan0.addresses.iter().any(|one| one.contains(&net.addr()));
        own.retain(|net| !has_own(net) && !self.is_taken(net.addr()));
        lan0.addresses.extend(own);
        for node in &self.home {
            draft.node(node, HostKind::HomeNode);
            let name = node.name.as_str();
            let addresses = node.addresses.iter().filter_map(|a| Some(with_prefix(*a, subnet(self.site, *a)?)));
            self.join(draft, name, "eth0", addresses.collect(), self.routes_out());
            self.give_global_address(draft, name);
            if !node.public_addresses.is_empty() {
                self.attach(draft, name, "wan0", &node.public_addresses);
            }
        }
        draft.host("lan-client", HostKind::LanClient);
        self.join(draft, "lan-client", "eth0", self.lan_client(), self.routes_out());
        for subnet in self.site.lan.subnets.iter().filter(|subnet| subnet.addr().is_ipv6()) {
            draft.give_address("lan-client", "eth0", *subnet);
        }
        self.give_global_address(draft, "lan-client");
    }

    fn join(&self, draft: &mut Draft, host: &str, name: &str, addresses: Vec<IpNet>, routes: Vec<Route>) {
        let near = Interface { name: name.to_owned(), mtu: ETHERNET_MTU, addresses, routes, ..Interface::default() };
        draft.plug("lan", host, near);
    }

    fn routes_out(&self) -> Vec<Route> {
        let v4 = self.router.iter().map(IpNet::addr).find(IpAddr::is_ipv4);
        let v6 = self.global.map(|_| IpAddr::from(GATEWAY6));
        let v4 = v4.filter(|_| self.goes_out(Family::V4));
        v4.into_iter().chain(v6).map(default_route).collect()
    }

    /// What the router's announcement of the prefix would make the host configure (RFC 4862 5.5.3).
    fn give_global_address(&self, draft: &mut Draft, host: &str) {
        if let Some(global) = self.global.filter(|global| global.prefix_len() == 64) {
            draft.give_address(host, "eth0", global.into());
        }
    }

    /// An IPv4 address that the router's DHCP server would hand out.
    fn lan_client(&self) -> Vec<IpNet> {
        let taken = |address: &IpAddr| self.is_taken(*address);
        let subnets = self.site.lan.subnets.iter().filter(|subnet| subnet.addr().is_ipv4());
        let address = |net: &IpNet| {
            let range = self.site.lan.dhcp.iter().find(|range| net.contains(&range.first()));
            let start = range.map_or(net.network(), dualgate_core::model::IpRange::first);
            let candidates = net.hosts().skip_while(move |host| *host <= start).skip(28).take(200);
            let free = candidates.chain(net.hosts()).find(|address| !taken(address))?;
            Some(with_prefix(free, net.prefix_len()))
        };
        subnets.filter_map(address).take(1).collect()
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        let nodes = self.site.nodes.iter().any(|node| node.addresses.contains(&address));
        let gates = self.site.gates.values().any(|gate| gate.addresses.contains(&address));
        let pools = self.site.pools.iter().flat_map(|pool| &pool.ranges).any(|range| range.contains(address));
        nodes || gates || pools || self.router.iter().any(|net| net.addr() == address)
    }

    /// What stands in for WireGuard: a segment that only edges and home's end are on.
    fn tunnel(&self, draft: &mut Draft) {
        let edges: Vec<&Node> = self.outside().collect();
        if self.home.is_empty() || edges.is_empty() || self.tunnel == Tunnel::Real {
            return;
        }
        let mtu = self.site.tunnel.as_ref().map_or(TUNNEL_MTU, |tunnel| tunnel.mtu.into());
        let by_router = self.site.tunnel.as_ref().is_some_and(|tunnel| tunnel.home_end == HomeEnd::Router);
        draft.switch("tunnel");
        let tunnel0 = || Interface { name: "tunnel0".to_owned(), mtu, ..Interface::default() };
        for edge in &edges {
            let addresses = edge.addresses.iter().map(|address| single(*address)).collect();
            draft.plug("tunnel", edge.name.as_str(), Interface { addresses, ..tunnel0() });
        }
        let ends: Vec<&str> =
            if by_router { vec!["router"] } else { self.home.iter().map(|n| n.name.as_str()).collect() };
        for end in &ends {
            draft.plug("tunnel", end, tunnel0());
        }
        for edge in &edges {
            for node in &self.home {
                let end = if by_router { "router" } else { node.name.as_str() };
                self.join_through_tunnel(draft, edge, node, end);
            }
        }
    }

    fn join_through_tunnel(&self, draft: &mut Draft, edge: &Node, node: &Node, end: &str) {
        let (here, there) = (edge.name.as_str(), draft.link_local(end, "tunnel0"));
        let back = draft.link_local(here, "tunnel0");
        let near = node.addresses.iter().map(|address| single(*address));
        for to in near.chain(self.pod_cidrs(node)) {
            let via = if to.addr().is_ipv6() { Some(there) } else { self.end_address(node, end) };
            let source = same_family(&edge.addresses, to);
            draft.route(here, "tunnel0", Route { to, via, source, mtu: None });
        }
        let far: Vec<IpNet> =
            edge.addresses.iter().map(|address| single(*address)).chain(self.pod_cidrs(edge)).collect();
        for to in far {
            let via = if to.addr().is_ipv6() { Some(back) } else { same_family(&edge.addresses, to) };
            let source = if end == "router" { None } else { same_family(&node.addresses, to) };
            draft.route(end, "tunnel0", Route { to, via, source, mtu: None });
            if end == "router" {
                let via = same_family(&self.router.iter().map(IpNet::addr).collect::<Vec<_>>(), to);
                let source = same_family(&node.addresses, to);
                draft.route(node.name.as_str(), "eth0", Route { to, via, source, mtu: None });
            }
        }
    }

    /// Who answers ARP on the segment for a home node: itself, or the router.
    fn end_address(&self, node: &Node, end: &str) -> Option<IpAddr> {
        match end {
            "router" => self.router.iter().map(IpNet::addr).find(IpAddr::is_ipv4),
            _ => node.addresses.iter().copied().find(IpAddr::is_ipv4),
        }
    }

    /// Pod networks and settings, when every host is there.
    fn settle(&self, draft: &mut Draft) {
        let home: Vec<&Node> = self.home.clone();
        for node in &home {
            for other in home.iter().filter(|other| other.name != node.name) {
                self.route_to_pods(draft, node.name.as_str(), "eth0", other);
            }
            if self.site.tunnel.as_ref().is_some_and(|tunnel| tunnel.home_end == HomeEnd::Router) {
                self.route_to_pods(draft, "router", "lan0", node);
            }
        }
        for node in home.iter().copied().chain(self.outside()) {
            let cidrs: Vec<IpNet> = self.pod_cidrs(node).collect();
            if !cidrs.is_empty() {
                draft.get(node.name.as_str()).interfaces.push(pod_bridge(&cidrs));
                draft.get(node.name.as_str()).pod_cidrs = cidrs;
            }
        }
        let router: Vec<IpAddr> = self.router.iter().map(IpNet::addr).collect();
        let announced = self.announced();
        for host in &mut draft.hosts {
            for interface in &mut host.interfaces {
                let known = |net: &IpNet| self.has(Family::of(net.addr()));
                interface.addresses.retain(known);
                interface.routes.retain(|route| known(&route.to));
            }
            match host.kind {
                HostKind::LanClient if !announced.is_empty() => host.resolvers.clone_from(&announced),
                HostKind::LanClient | HostKind::HomeNode => host.resolvers.clone_from(&router),
                HostKind::InternetClient
                | HostKind::Internet
                | HostKind::Edge
                | HostKind::Carrier
                | HostKind::Router
                | HostKind::Switch => {}
            }
            host.settings = self.settings(host);
        }
    }

    /// The resolvers that the router announces in the LAN: dualgate, where the site has it answer names.
    fn announced(&self) -> Vec<IpAddr> {
        let node = self.home.iter().find(|node| node.has(Role::Dns));
        let (Some(dns), Some(node)) = (&self.site.dns, node) else { return Vec::new() };
        let written: Vec<IpAddr> = dns.addresses.iter().filter(|at| at.port() == 53).map(|at| at.ip()).collect();
        match (written.is_empty(), self.site.virtual_addresses(GateName::Internal).collect::<Vec<_>>()) {
            (false, _) => written,
            (true, shared) if !shared.is_empty() => shared,
            (true, _) => node.addresses.clone(),
        }
    }

    fn route_to_pods(&self, draft: &mut Draft, host: &str, interface: &str, node: &Node) {
        for to in self.pod_cidrs(node) {
            if let Some(via) = same_family(&node.addresses, to) {
                draft.route(host, interface, Route { to, via: Some(via), source: None, mtu: None });
            }
        }
    }

    /// The pod networks of a node: as the site file says, else as K3s cuts them from the cluster's.
    fn pod_cidrs(&self, node: &Node) -> impl Iterator<Item = IpNet> + use<> {
        super::cidr::pod_cidrs(self.site, node).into_iter()
    }

    fn settings(&self, host: &Host) -> Vec<(String, String)> {
        let on = |family| if self.has(family) { "0" } else { "1" };
        let mut settings = vec![
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/ping_group_range", "0 0"),
            ("net/ipv6/conf/all/disable_ipv6", on(Family::V6)),
            ("net/ipv6/conf/default/disable_ipv6", on(Family::V6)),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/addr_gen_mode", "0"),
        ];
        let forwards = !matches!(host.kind, HostKind::InternetClient | HostKind::LanClient | HostKind::Switch);
        if forwards {
            settings.extend([("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")]);
        }
        settings.into_iter().map(|(path, value)| (path.to_owned(), value.to_owned())).collect()
    }

    fn stand_ins(&self) -> Vec<StandIn> {
        let mut list = Vec::new();
        let mut say = |part: &str, instead: &str| {
            list.push(StandIn { part: part.to_owned(), instead: instead.to_owned() });
        };
        if self.outside().next().is_some() && !self.home.is_empty() && self.tunnel == Tunnel::StandIn {
            say("tunnel", "a plain segment with plain routes joins the edge and home; nothing on it is encrypted");
        }
        if self.site.firewall.is_none() {
            say("firewall", "the site file has none: the nodes let everything in that reaches them");
        }
        let used = |node: &&Node| node.addresses.iter().chain(&node.public_addresses).any(|a| !a.is_loopback());
        for node in self.site.nodes.iter().filter(|node| !used(node)) {
            say(node.name.as_str(), "it is left out: it has no address but loopback");
        }
        if self.announced().is_empty() {
            say("names", "no home node answers DNS; the checks ask by address, with the name in the request");
        }
        say("certificates", "each gate shows its self-signed one, unless a Secret holds another");
        say("flannel", "nodes route each other's pod networks directly, as K3s does with flannel-backend=host-gw");
        if !self.home.is_empty() && self.site.lan.router.is_none() {
            say(
                "router",
                "the site file names none (`lan.router`): the lab takes the subnet's first address, and DS-Lite",
            );
        }
        list
    }
}

/// Whether a node is not in the LAN: an edge, or a node with public addresses alone.
fn is_outside(site: &Site, node: &Node) -> bool {
    let in_lan = node.addresses.iter().any(|address| subnet(site, *address).is_some());
    node.is_edge() || (!in_lan && !node.public_addresses.is_empty())
}

/// The length of the LAN's subnet that holds this address.
fn subnet(site: &Site, address: IpAddr) -> Option<u8> {
    site.lan.subnets.iter().find(|subnet| subnet.contains(&address)).map(IpNet::prefix_len)
}

fn first_free(site: &Site) -> Vec<IpAddr> {
    let taken = |address: &IpAddr| site.nodes.iter().any(|node| node.addresses.contains(address));
    site.lan
        .subnets
        .iter()
        .filter_map(|subnet| subnet.hosts().filter(|a| *a != subnet.network()).find(|a| !taken(a)))
        .collect()
}

fn with_prefix(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).unwrap_or_else(|_| single(address))
}

/// A default route for each family that there is.
fn gateways(addresses: &[IpAddr]) -> Vec<Route> {
    let v4 = addresses.iter().find(|address| address.is_ipv4()).map(|_| default_route(GATEWAY.into()));
    let v6 = addresses.iter().find(|address| address.is_ipv6()).map(|_| default_route(GATEWAY6.into()));
    v4.into_iter().chain(v6).collect()
}

fn same_family(addresses: &[IpAddr], net: IpNet) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == net.addr().is_ipv4())
}

fn pod_bridge(cidrs: &[IpNet]) -> Interface {
    let first = |net: &IpNet| first_host(*net).map(|address| with_prefix(address, net.prefix_len()));
    Interface {
        name: POD_BRIDGE.to_owned(),
        kind: InterfaceKind::Bridge,
        mtu: ETHERNET_MTU,
        addresses: cidrs.iter().filter_map(first).collect(),
        ..Interface::default()
    }
}
