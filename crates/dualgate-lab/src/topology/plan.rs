//! A topology while it is drawn: hosts are found by name, MAC addresses are numbered.

use std::net::{IpAddr, Ipv6Addr};

use dualgate_core::model::site::Node;
use ipnet::IpNet;

use super::{Filter, Host, HostKind, Interface, InterfaceKind, Link, Objects, Route};

/// The bridge of a switch.
const BRIDGE: &str = "br0";

/// Hosts and links so far.
#[derive(Default)]
pub struct Draft {
    pub hosts: Vec<Host>,
    pub links: Vec<Link>,
    ports: u16,
}

impl Draft {
    pub fn host(&mut self, name: &str, kind: HostKind) {
        self.hosts.push(Host {
            name: name.to_owned(),
            kind,
            node: None,
            interfaces: Vec::new(),
            settings: Vec::new(),
            filter: Filter::Open,
            resolvers: Vec::new(),
            pod_cidrs: Vec::new(),
            objects: Objects::Manifests,
        });
    }

    pub fn node(&mut self, node: &Node, kind: HostKind) {
        self.host(node.name.as_str(), kind);
        self.get(node.name.as_str()).node = Some(node.name.clone());
    }

    pub fn switch(&mut self, name: &str) {
        self.host(name, HostKind::Switch);
        let bridge =
            Interface { name: BRIDGE.to_owned(), kind: InterfaceKind::Bridge, mtu: 1500, ..Interface::default() };
        self.get(name).interfaces.push(bridge);
    }

    /// The host of this name, which was drawn before.
    pub fn get(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.name == name).expect("hosts are drawn before what hangs on them")
    }

    pub fn interface(&mut self, host: &str, name: &str) -> &mut Interface {
        let interfaces = &mut self.get(host).interfaces;
        interfaces.iter_mut().find(|one| one.name == name).expect("interfaces are drawn before what hangs on them")
    }

    /// Joins two hosts; the second end is where the link is cut.
    pub fn cable(&mut self, name: &str, near: (&str, Interface), far: (&str, Interface)) {
        let ends = [&near, &far].map(|(host, interface)| ((*host).to_owned(), interface.name.clone()));
        for (host, mut interface) in [near, far] {
            self.ports += 1;
            let [high, low] = self.ports.to_be_bytes();
            interface.mac = Some([2, 0xd6, 0, 0, high, low]);
            self.get(host).interfaces.push(interface);
        }
        self.links.push(Link { name: name.to_owned(), ends });
    }

    /// Plugs a host into a switch.
    pub fn plug(&mut self, switch: &str, host: &str, near: Interface) {
        let far = Interface {
            name: port_name(host),
            kind: InterfaceKind::Port { bridge: BRIDGE.to_owned() },
            mtu: near.mtu,
            ..Interface::default()
        };
        self.cable(&format!("{switch}/{host}"), (host, near), (switch, far));
    }

    /// Adds a route, once.
    pub fn route(&mut self, host: &str, interface: &str, route: Route) {
        let routes = &mut self.interface(host, interface).routes;
        if !routes.contains(&route) {
            routes.push(route);
        }
    }

    /// The link-local address that the kernel makes from the interface's MAC address.
    pub fn link_local(&mut self, host: &str, interface: &str) -> IpAddr {
        link_local(self.interface(host, interface).mac.unwrap_or_default())
    }

    /// The address that a host makes for itself from a prefix (RFC 4291 2.5.1, appendix A).
    pub fn give_address(&mut self, host: &str, interface: &str, prefix: IpNet) {
        let IpAddr::V6(network) = prefix.network() else { return };
        let interface = self.interface(host, interface);
        let address = u128::from(network) | identifier(interface.mac.unwrap_or_default());
        let address = IpNet::new(Ipv6Addr::from(address).into(), prefix.prefix_len());
        interface.addresses.extend(address.ok().filter(|address| !interface.addresses.contains(address)));
    }
}

pub fn link_local(mac: [u8; 6]) -> IpAddr {
    Ipv6Addr::from((0xfe80 << 112) | identifier(mac)).into()
}

fn identifier([a, b, c, d, e, f]: [u8; 6]) -> u128 {
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]).into()
}

/// One address as a network.
pub fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

pub fn on_link(to: IpNet) -> Route {
    Route { to, via: None, source: None, mtu: None }
}

pub fn default_route(via: IpAddr) -> Route {
    let any = match via {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let to = IpNet::new(any, 0).unwrap_or_else(|_| single(any));
    Route { to, via: Some(via), source: None, mtu: None }
}

/// The first address of a network that a host may have: the gateway's.
pub fn first_host(net: IpNet) -> Option<IpAddr> {
    net.hosts().find(|host| *host != net.network())
}

/// The name of an interface that leads to a host: the host's name, as far as it fits into the kernel's 15 octets.
pub fn port_name(host: &str) -> String {
    // These mean something else where interfaces and settings are named.
    let is_taken = ["lo", "br0", "all", "default"].contains(&host);
    if host.len() <= 15 && host.is_ascii() && !is_taken {
        return host.to_owned();
    }
    // What is cut off is told apart by a checksum.
    let sum = host.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let head: String = host.chars().filter(char::is_ascii).take(8).collect();
    format!("{head}-{:06x}", sum & 0xff_ffff)
}
