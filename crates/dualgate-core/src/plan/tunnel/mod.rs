//! What one end of the WireGuard tunnel is: interface, peers, what goes through which, and routes.
//!
//! Pure: reads the site, and the pod networks of Node objects where there are any; the site file alone is enough to
//! start. The actuator in `host` makes it so, by the kernel or in user space. Nothing secret is in here: private keys
//! are named by their public part, preshared keys by their pair.
//!
//! **Who is a peer of whom.** Every edge with every home node, so that no node is a single way out; or every edge with
//! the home router (`homeEnd: router`), and then the home nodes have an empty plan. Home dials, as nobody can come in
//! there: only home's end knows endpoints and keeps the path open.
//!
//! **Public keys** stand in the site file (`nodes[].publicKeys`, `lan.router.publicKeys`). Who may be a peer is policy,
//! and it is needed before the first packet passes: no exchange through the tunnel could tell it.
//!
//! **AllowedIPs** are routing and admission at once, and WireGuard gives an address to whoever claimed it last. So they
//! are computed here, from one list of claims for the whole site ([`claims`]): two peers never share an address, and no
//! network with an edge's public address in it goes through the tunnel that needs this address outside.
//!
//! - At the edge, a home node has its own addresses and its pods' networks: the external gate dials pods, each through
//!   the node that runs it.
//! - At home, an edge has its private addresses, and its pods' networks if it is part of the cluster.
//! - **Virtual IPs are nobody's.** One that moves would go to the node that had it before until each peer has heard of
//!   the move. The edge has no need of them: it dials pods. A packet to one finds no peer and is refused at once.
//! - Other machines of the LAN are nobody's, either: only home nodes talk with the edge. An edge's private address
//!   inside the LAN is routed on the home nodes; answering ARP and NDP for it towards other machines is the business of
//!   the virtual IPs, and there they would be translated or left out.

pub(crate) mod claims;
pub mod export;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::model::public_key::PublicKeys;
use crate::model::site::{HomeEnd, Node, Site, Tunnel, Uplink};
use crate::model::{Family, Finding, NodeName, Snapshot};
use claims::Claim;

/// The name of the interface on every node.
pub const INTERFACE: &str = "dualgate";

/// One end of the tunnel. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPlan {
    /// The interface with all that hangs on it; `None` where the tunnel is off.
    pub interface: Option<Interface>,
}

/// A WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: &'static str,
    /// The UDP port to listen on; `None` lets the kernel choose, as home dials.
    pub listen_port: Option<u16>,
    /// The private keys to use, named by their public part; `Unknown` is whichever lies on disk.
    pub private_key: PublicKeys,
    /// Addresses that have no other place than this interface: an edge's private ones. Home's are on the LAN already.
    pub addresses: Vec<IpAddr>,
    /// In octets.
    pub mtu: u16,
    /// In the site file's order.
    pub peers: Vec<Peer>,
    /// Sorted by destination.
    pub routes: Vec<Route>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub name: PeerName,
    /// Its own addresses on the inner side, as far as they go through the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Its keys. While it rotates, the next key is a peer without addresses, until the first handshake with it.
    pub public_keys: PublicKeys,
    /// The preshared key, if there is one.
    pub preshared_key: Option<Pair>,
    /// Where to dial, best first; empty where it dials us.
    pub endpoints: Vec<SocketAddr>,
    /// How often to speak when nothing else does, in seconds.
    pub keepalive: Option<NonZeroU16>,
    /// What comes from it and goes to it, sorted.
    pub allowed_ips: Vec<IpNet>,
}

/// A route into the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// The address to speak from, which the other end admits; `None` where this end's are not known.
    pub source: Option<IpAddr>,
    /// In octets.
    pub mtu: u16,
}

/// An end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerName {
    /// A node.
    Node(NodeName),
    /// The home router.
    Router,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Router => f.write_str("router"),
        }
    }
}

/// Two ends that share a preshared key. It has one name, whoever of them says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    first: PeerName,
    second: PeerName,
}

impl Pair {
    /// The pair of these two, in either order.
    pub fn new(one: PeerName, other: PeerName) -> Self {
        if one.to_string() <= other.to_string() {
            Self { first: one, second: other }
        } else {
            Self { first: other, second: one }
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.first, self.second)
    }
}

/// The end of a node.
pub fn tunnel(snapshot: &Snapshot, node: &NodeName) -> TunnelPlan {
    end(snapshot, &PeerName::Node(node.clone()))
}

/// Any end, also the home router's, which somebody else makes so ([`export`]).
pub fn end(snapshot: &Snapshot, own: &PeerName) -> TunnelPlan {
    let site = &*snapshot.site;
    let interface = site.tunnel.as_ref().and_then(|tunnel| {
        let local = ends(site, tunnel).into_iter().find(|end| end.name == *own)?;
        Some(interface(tunnel, &local, &ends(site, tunnel), &claims::settled(snapshot)))
    });
    TunnelPlan { interface: interface.filter(|interface| !interface.peers.is_empty()) }
}

/// What is wrong with what Node objects say of the tunnel's networks; `check::site` looks at the site alone.
pub fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    claims::findings(snapshot)
}

/// An end as the site describes it.
pub(crate) struct End<'a> {
    pub(crate) name: PeerName,
    pub(crate) side: Side<'a>,
    pub(crate) keys: PublicKeys,
    /// Its addresses on the inner side.
    addresses: &'a [IpAddr],
}

/// Where an end stands.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    /// At home, behind NAT.
    Home(Uplink),
    /// Outside, with public addresses.
    Edge(&'a Node),
}

/// Every end, in the site file's order; the router last.
pub(crate) fn ends<'a>(site: &'a Site, tunnel: &Tunnel) -> Vec<End<'a>> {
    let uplink = site.lan.router.as_ref().map_or(Uplink::DualStack, |router| router.uplink);
    let of_node = |node: &'a Node| {
        let side = match (node.is_edge(), tunnel.home_end) {
            (true, HomeEnd::Nodes | HomeEnd::Router) => Side::Edge(node),
            (false, HomeEnd::Nodes) => Side::Home(uplink),
            (false, HomeEnd::Router) => return None,
        };
        let name = PeerName::Node(node.name.clone());
        Some(End { name, side, keys: node.public_keys, addresses: &node.addresses })
    };
    let router = match (tunnel.home_end, &site.lan.router) {
        (HomeEnd::Router, Some(router)) => Some(End {
            name: PeerName::Router,
            side: Side::Home(uplink),
            keys: router.public_keys,
            addresses: &router.addresses,
        }),
        (HomeEnd::Router, None) | (HomeEnd::Nodes, _) => None,
    };
    site.nodes.iter().filter_map(of_node).chain(router).collect()
}

fn interface(tunnel: &Tunnel, own: &End<'_>, ends: &[End<'_>], claims: &[Claim]) -> Interface {
    let source = |family| own.addresses.iter().copied().find(|address| Family::of(*address) == family);
    // Towards a family without an own address here, packets would carry a source that the other end does not admit.
    let speaks = |net: &IpNet| own.addresses.is_empty() || source(Family::of(net.addr())).is_some();
    let mut peers: Vec<Peer> = ends.iter().filter_map(|other| peer(tunnel, own, other)).collect();
    let mut routes = Vec::new();
    for peer in &mut peers {
        let own = claims.iter().filter(|claim| claim.owner == peer.name).map(|claim| claim.net);
        peer.allowed_ips = own.filter(speaks).collect();
        peer.allowed_ips.sort();
        peer.addresses.retain(|address| peer.allowed_ips.iter().any(|net| net.contains(address)));
        let route = |to: &IpNet| Route { to: *to, source: source(Family::of(to.addr())), mtu: tunnel.mtu };
        routes.extend(peer.allowed_ips.iter().map(route));
    }
    routes.sort();
    Interface {
        name: INTERFACE,
        listen_port: matches!(own.side, Side::Edge(_)).then_some(tunnel.port),
        private_key: own.keys,
        addresses: match own.side {
            Side::Edge(_) => own.addresses.to_vec(),
            Side::Home(_) => Vec::new(),
        },
        mtu: tunnel.mtu,
        peers,
        routes,
    }
}

/// The other end of a pair; ends of the same side are no peers.
fn peer(tunnel: &Tunnel, own: &End<'_>, other: &End<'_>) -> Option<Peer> {
    let (endpoints, keepalive) = match (own.side, other.side) {
        (Side::Home(uplink), Side::Edge(edge)) => (candidates(tunnel, uplink, edge), seconds(tunnel)),
        (Side::Edge(_), Side::Home(_)) => (Vec::new(), None),
        (Side::Home(_), Side::Home(_)) | (Side::Edge(_), Side::Edge(_)) => return None,
    };
    Some(Peer {
        name: other.name.clone(),
        addresses: other.addresses.to_vec(),
        public_keys: other.keys,
        preshared_key: tunnel.preshared_keys.then(|| Pair::new(own.name.clone(), other.name.clone())),
        endpoints,
        keepalive,
        allowed_ips: Vec::new(),
    })
}

/// IPv6 first, as it needs no carrier's NAT; a family that the line does not have comes last, for the site file may
/// be wrong about the line, and a try costs little.
fn candidates(tunnel: &Tunnel, uplink: Uplink, edge: &Node) -> Vec<SocketAddr> {
    let lacks = |family: Family| match (uplink, family) {
        (Uplink::Ipv4Only, Family::V6) | (Uplink::Ipv6Only, Family::V4) => true,
        (Uplink::Ipv4Only, Family::V4) | (Uplink::Ipv6Only, Family::V6) => false,
        (Uplink::DsLite | Uplink::Cgnat | Uplink::DualStack, Family::V4 | Family::V6) => false,
    };
    let mut addresses = edge.public_addresses.clone();
    addresses.sort_by_key(|address| {
        let family = Family::of(*address);
        (lacks(family), std::cmp::Reverse(family))
    });
    addresses.into_iter().map(|address| SocketAddr::new(address, tunnel.port)).collect()
}

/// WireGuard counts whole seconds in 16 bits.
fn seconds(tunnel: &Tunnel) -> Option<NonZeroU16> {
    let seconds = tunnel.keepalive.as_secs_f64().ceil();
    // A float becomes the nearest u16.
    NonZeroU16::new(seconds as u16)
}

/// One fact a line, for people and for comparison.
impl fmt::Display for TunnelPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            None => writeln!(f, "off"),
            Some(interface) => interface.fmt(f),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {} mtu {}", self.name, self.mtu)?;
        match self.listen_port {
            Some(port) => writeln!(f, " port {port}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "private key {}", Keys(self.private_key))?;
        self.addresses.iter().try_for_each(|address| writeln!(f, "address {address}"))?;
        for peer in &self.peers {
            writeln!(f, "peer {}", peer.name)?;
            writeln!(f, "  public key {}", Keys(peer.public_keys))?;
            if let Some(pair) = &peer.preshared_key {
                writeln!(f, "  preshared key {pair}")?;
            }
            peer.endpoints.iter().try_for_each(|endpoint| writeln!(f, "  endpoint {endpoint}"))?;
            if let Some(seconds) = peer.keepalive {
                writeln!(f, "  keepalive {seconds} s")?;
            }
            peer.allowed_ips.iter().try_for_each(|net| writeln!(f, "  allowed {net}"))?;
        }
        for Route { to, source, mtu } in &self.routes {
            write!(f, "route {to}")?;
            if let Some(source) = source {
                write!(f, " from {source}")?;
            }
            writeln!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

struct Keys(PublicKeys);

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PublicKeys::Unknown => f.write_str("unknown"),
            PublicKeys::Current(key) => key.fmt(f),
            PublicKeys::Rotating { current, next } => write!(f, "{current}, next {next}"),
        }
    }
}
