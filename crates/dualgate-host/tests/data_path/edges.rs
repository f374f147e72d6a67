//! A machine of the LAN and an edge, with a node between them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::mpsc::sync_channel;

use dualgate_host::namespace::Namespace;
use dualgate_host::network::{End, Network, Route, Switch, Use};
use dualgate_host::virtual_ips::data_path::{DataPath, DataPathError, Tunnelled};

use crate::lan::{BOTH, Host, Lan, PATIENCE, PORT, V4, V6, net};

/// The node's end of the tunnel, and what is made of its MAC address.
const TUNNEL: &str = "dualgate";
const MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0x101);

/// Behind a node is an edge that has the announced addresses, and that speaks with the node's own address alone.
fn edge(node: &Host) -> Namespace {
    let edge = Namespace::new("edge", || Ok(())).expect("an edge");
    let far = edge.network().try_clone_to_owned().expect("a descriptor");
    let own = [IpAddr::from(node.v4), IpAddr::from(node.v6)];
    node.namespace.run(move || {
        let mut network = Network::open().expect("rtnetlink");
        let here = dualgate_host::namespace::current_network().expect("this network");
        let end = |name, mac, namespace| End { name, mac, mtu: 1500, namespace };
        network.add_veth([&end(TUNNEL, Some(MAC), here.as_fd()), &end("far", None, far.as_fd())]).expect("a cable");
        network.switch(TUNNEL, Switch::On).expect("a cable");
        for to in BOTH {
            network.add_route(TUNNEL, &route(to, None)).expect("a route");
        }
    });
    edge.run(move || {
        let mut network = Network::open().expect("rtnetlink");
        for (address, bits) in [(IpAddr::from(V4), 32), (V6.into(), 128)] {
            network.add_address("far", net(address, bits), Use::Both).expect("an address");
        }
        network.switch("far", Switch::On).expect("a cable");
        for to in own {
            // Of IPv6, a host answers for addresses of the interface alone: WireGuard asks nobody.
            let via = to.is_ipv6().then_some(LINK_LOCAL.into());
            network.add_route("far", &route(to, via)).expect("a route");
        }
    });
    edge
}

fn route(to: IpAddr, via: Option<IpAddr>) -> Route {
    Route { to: to.into(), via, source: None, mtu: None }
}

pub fn the_lan_reaches_an_edge_in_the_name_of_its_node() {
    let lan = Lan::new(&["machine", "node"]);
    let [machine, node] = [0, 1].map(|at| &lan.hosts[at]);
    let edge = edge(node);
    let (tell, told) = sync_channel(8);
    let listener = edge.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a listener of both families"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let peer = stream.and_then(|stream| stream.peer_addr()).expect("a peer");
            tell.send(peer).expect("the test waits");
        }
    });
    let tunnelled = BOTH.map(|address| Tunnelled { address, interface: TUNNEL.to_owned(), source: node.own(address) });
    let path = DataPath { tunnelled: tunnelled.into(), ..DataPath::default() };
    let refused = node.converge(path.clone()).expect_err("it is no router");
    assert!(matches!(refused, DataPathError::NotForwarding { .. }), "{refused}");
    node.set("ipv4/ip_forward", "1");
    node.set("ipv6/conf/all/forwarding", "1");
    assert_eq!(node.converge(path).expect("all else was done"), []);
    lan.hold(1);
    for address in BOTH {
        machine.connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let peer: SocketAddr = told.recv_timeout(PATIENCE).expect("a peer");
        assert_eq!(peer.ip().to_canonical(), node.own(address));
    }
}
