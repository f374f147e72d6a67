//! The tunnel between hosts of their own: what comes through, who may come, and what it survives.

mod common;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use common::{End, INTERFACE, MTU, Pair, backends, bulk, eventually, transfer};
use dualgate_core::model::Secret;
use dualgate_core::parse;
use dualgate_host::network::{Network, Use};
use dualgate_lab::topology;
use dualgate_lab::trial::{self, chain};
use dualgate_lab::world::World;
use dualgate_tunnel::{Backend, Engine, Peer, TunnelError};

fn main() -> ExitCode {
    trial::main(
        "tunnel",
        &[
            // First, as it is the longest.
            ("a_home_that_waited_long_dials_again", a_home_that_waited_long_dials_again),
            ("both_families_go_through_a_cable", |_| both_families([Backend::Packet; 2])),
            ("both_families_go_through_a_tun_device", |_| both_families([Backend::Tun; 2])),
            ("both_families_go_through_the_kernel", |_| both_families([Backend::Kernel; 2])),
            ("the_kernel_dials_a_cable", |_| both_families([Backend::Kernel, Backend::Packet])),
            ("the_kernel_dials_a_tun_device", |_| both_families([Backend::Kernel, Backend::Tun])),
            ("a_cable_dials_the_kernel", |_| both_families([Backend::Packet, Backend::Kernel])),
            ("a_tun_device_dials_the_kernel", |_| both_families([Backend::Tun, Backend::Kernel])),
            ("datagrams_of_every_size_arrive_whole", datagrams_of_every_size_arrive_whole),
            ("a_peer_with_another_preshared_key_is_nobody", a_peer_with_another_preshared_key_is_nobody),
            ("a_peer_that_moves_is_followed", a_peer_that_moves_is_followed),
            ("an_edge_that_restarts_is_found_again", an_edge_that_restarts_is_found_again),
            ("home_dials_out_through_the_router", home_dials_out_through_the_router),
            ("peers_change_and_sessions_stay", peers_change_and_sessions_stay),
            ("networks_move_between_peers", networks_move_between_peers),
            ("a_successor_goes_on_with_the_kernels_sessions", a_successor_goes_on_with_the_kernels_sessions),
            ("an_interface_is_handed_over_or_goes", an_interface_is_handed_over_or_goes),
            ("a_port_that_is_taken_is_named", a_port_that_is_taken_is_named),
            ("a_source_that_is_not_the_peers_is_dropped", a_source_that_is_not_the_peers_is_dropped),
            ("an_address_of_nobody_is_refused_at_once", an_address_of_nobody_is_refused_at_once),
            ("an_interface_of_somebody_else_is_left_alone", an_interface_of_somebody_else_is_left_alone),
            ("an_interface_that_is_taken_away_is_told", an_interface_that_is_taken_away_is_told),
            ("the_socket_says_everything_but_secrets", the_socket_says_everything_but_secrets),
            ("wg_reads_every_backend", wg_reads_every_backend),
            ("wireguard_go", wireguard_go),
        ],
    )
}

/// Each inner family over each outer one; home dials.
fn both_families(backends: [Backend; 2]) {
    for backend in backends {
        if let Err(why) = common::works(backend) {
            common::skip(&why);
        }
    }
    for outer in ["10.9.0.2", "fd09::2"] {
        let pair = Pair::new();
        let (home, mut edge) = pair.join(backends, outer);
        for inner in ["10.8.0.2", "fd08::2"] {
            transfer(&pair.home, &pair.edge, inner, bulk());
        }
        for inner in ["10.8.0.1", "fd08::1"] {
            transfer(&pair.edge, &pair.home, inner, bulk());
        }
        let interface = pair.home.run(|| Network::open()?.interface(INTERFACE)).unwrap();
        assert_eq!(interface.mtu, u32::from(MTU));
        let status = edge.status().unwrap();
        assert_eq!(status.choice.backend, backends[1]);
        assert_eq!(status.listen_port, 51820);
        let peer = &status.peers[0];
        let seen = peer.endpoint.unwrap().ip();
        assert_eq!(seen, common::outer_home(outer).parse::<IpAddr>().unwrap());
        assert!(peer.last_handshake.unwrap() < Duration::from_secs(60));
        assert!(peer.received > 2 * bulk() as u64 && peer.sent > 2 * bulk() as u64, "{peer:?}");
        assert!(peer.loss.is_none_or(|loss| loss < 0.05), "{peer:?}");
        drop((home, edge));
        assert!(pair.home.run(|| Network::open()?.interface(INTERFACE)).is_err(), "the interface goes with its engine");
    }
}

fn datagrams_of_every_size_arrive_whole(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let _ends = pair.connect(backend, "fd09::2");
        for (home, edge) in [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")] {
            let bind = |ip: &'static str| move || UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0));
            let (from, to) = (pair.home.run(bind(home)).unwrap(), pair.edge.run(bind(edge)).unwrap());
            to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            from.connect(to.local_addr().unwrap()).unwrap();
            // The larger ones are fragments.
            for size in [0, 1, 2, 15, 16, 17, 500, 1300, 1343, 1344, 1345, 1364, 1365, 1400, 2000, 9000, 60_000] {
                let sent: Vec<u8> = (0..size).map(|at: usize| (at * 31 + size) as u8).collect();
                let mut space = vec![0; 65_536];
                // The first ones may meet an unfinished neighbour.
                let received = (0..5).find_map(|_| {
                    from.send(&sent).unwrap();
                    to.recv(&mut space).ok()
                });
                assert_eq!(received, Some(size), "{backend} {edge}");
                assert_eq!(space[..size], sent);
            }
        }
    }
}

fn a_peer_with_another_preshared_key_is_nobody(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let mut other = pair.config(End::Home, backend, Some("10.9.0.2"));
        other.peers[0].preshared_key = Some(Secret::new([7; 32]));
        let mut edge = pair.start(End::Edge, &pair.config(End::Edge, backend, None));
        let mut home = pair.start(End::Home, &other);
        let (key, address) = (other.peers[0].public_key, other.peers[0].endpoint.unwrap());
        for _ in 0..10 {
            home.dial(&key, address).unwrap();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert_eq!(home.status().unwrap().peers[0].last_handshake, None);
        // The right key, given live, is enough.
        home.configure(&pair.config(End::Home, backend, Some("10.9.0.2")).peers).unwrap();
        home.dial(&key, address).unwrap();
        eventually("a handshake", || home.status().unwrap().peers[0].last_handshake.is_some());
        assert!(edge.status().unwrap().peers[0].received > 0);
    }
}

fn a_peer_that_moves_is_followed(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (_home, mut edge) = pair.connect(backend, "10.9.0.2");
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        let change = |network: &mut Network| {
            network.remove_address("wire", "10.9.0.1/24".parse().unwrap())?;
            network.add_address("wire", "10.9.0.7/24".parse().unwrap(), Use::Both)
        };
        pair.home.run(move || Network::open().and_then(|mut network| change(&mut network))).unwrap();
        let started = Instant::now();
        transfer(&pair.home, &pair.edge, "fd08::2", bulk());
        println!("a home with another address is back after {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(3));
        assert_eq!(edge.status().unwrap().peers[0].endpoint.unwrap().ip(), "10.9.0.7".parse::<IpAddr>().unwrap());
        // What comes from the edge finds the way as well.
        transfer(&pair.edge, &pair.home, "10.8.0.1", bulk());
    }
}

fn an_edge_that_restarts_is_found_again(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (mut home, edge) = pair.connect(backend, "fd09::2");
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        drop(edge);
        let _edge = pair.start(End::Edge, &pair.config(End::Edge, backend, None));
        let peer = home.status().unwrap().peers[0].clone();
        home.dial(&peer.public_key, peer.endpoint.unwrap()).unwrap();
        let started = Instant::now();
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        transfer(&pair.edge, &pair.home, "fd08::1", bulk());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

/// The protocol's machine gives up after 90 seconds; a home that is to keep the path open must not.
fn a_home_that_waited_long_dials_again(_: &Path) {
    let wait = |backend: Backend| {
        let pair = Pair::new();
        let home = pair.start(End::Home, &pair.config(End::Home, backend, Some("10.9.0.2")));
        (backend, pair, home)
    };
    let waiting: Vec<(Backend, Pair, Engine)> = backends().into_iter().map(wait).collect();
    std::thread::park_timeout(Duration::from_secs(93));
    for (backend, pair, _home) in waiting {
        let mut edge = pair.start(End::Edge, &pair.config(End::Edge, backend, None));
        eventually("a handshake", || edge.status().unwrap().peers[0].last_handshake.is_some());
    }
}

const SEED: &str = include_str!("../../../examples/home/site.yaml");

fn home_dials_out_through_the_router(directory: &Path) {
    let (site, findings) = parse::site::site("site.yaml", SEED);
    let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
    let topology = topology::build(&site, dualgate_lab::rehearsal::Tunnel::StandIn).unwrap();
    let world = World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let pair = Pair::of(world.host("k3s-node1").unwrap(), world.host("ionos").unwrap());
    let ways = [("203.0.113.10", true), ("2001:db8:1::10", false)];
    for (backend, (outer, translated)) in backends().into_iter().flat_map(|backend| ways.map(|way| (backend, way))) {
        let (_home, mut edge) = pair.connect(backend, outer);
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        transfer(&pair.edge, &pair.home, "fd08::1", bulk());
        let seen = edge.status().unwrap().peers[0].endpoint.unwrap();
        println!("the edge sees home at {seen}");
        assert!(!seen.ip().to_string().starts_with("192.168."), "{seen}");
        assert_eq!(seen.is_ipv4(), translated);
    }
}

fn peers_change_and_sessions_stay(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (mut home, mut edge) = pair.connect(backend, "10.9.0.2");
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        let before = edge.status().unwrap().peers[0].clone();
        let mut peers = pair.config(End::Edge, backend, None).peers;
        let mut other = peers[0].clone();
        (other.public_key, other.allowed_ips) = (common::key(77).1, vec!["10.8.7.0/24".parse().unwrap()]);
        // In front, so that places change; and the next preshared key.
        peers.insert(0, other);
        peers[1].preshared_key = Some(Secret::new([9; 32]));
        edge.configure(&peers).unwrap();
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        let status = edge.status().unwrap();
        assert_eq!(status.peers.len(), 2);
        assert!(status.peers[1].received > before.received);
        assert!(status.peers[1].last_handshake.unwrap() >= before.last_handshake.unwrap(), "no other handshake");
        // Without its network, a peer gets nothing more.
        peers[1].allowed_ips.clear();
        edge.configure(&peers).unwrap();
        let refused =
            pair.edge.run(|| TcpStream::connect_timeout(&"10.8.0.1:7000".parse().unwrap(), Duration::from_secs(2)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::HostUnreachable);
        assert!(matches!(home.dial(&common::key(77).1, "10.9.0.2:1".parse().unwrap()), Err(TunnelError::NoPeer(_))));
    }
}

/// A virtual address that changes its node, or a key that is rotated: a network goes from one peer to another, and back.
fn networks_move_between_peers(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (_home, mut edge) = pair.connect(backend, "fd09::2");
        transfer(&pair.edge, &pair.home, "fd08::1", bulk());
        let here = pair.config(End::Edge, backend, None).peers.remove(0);
        let there = Peer { public_key: common::key(77).1, allowed_ips: Vec::new(), ..here.clone() };
        let away = [
            Peer { allowed_ips: Vec::new(), ..here.clone() },
            Peer { allowed_ips: here.allowed_ips.clone(), ..there.clone() },
        ];
        let back = [here.clone(), there];
        for _ in 0..3 {
            edge.configure(&away).unwrap();
            let reached = pair
                .edge
                .run(|| TcpStream::connect_timeout(&"[fd08::1]:7000".parse().unwrap(), Duration::from_secs(2)));
            assert_ne!(reached.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{backend}: home has answered");
            edge.configure(&back).unwrap();
            transfer(&pair.edge, &pair.home, "fd08::1", 1000);
            transfer(&pair.edge, &pair.home, "10.8.0.1", 1000);
        }
        let status = edge.status().unwrap();
        assert_eq!(status.peers.iter().map(|peer| peer.last_handshake.is_some()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(status.peers[0].allowed_ips, here.allowed_ips);
    }
}

/// Upgrades of both ends, one after the other, while a datagram goes each way every two milliseconds.
fn a_successor_goes_on_with_the_kernels_sessions(_: &Path) {
    if let Err(why) = common::works(Backend::Kernel) {
        common::skip(&why);
    }
    let pair = Pair::new();
    let (mut home, mut edge) = pair.connect(Backend::Kernel, "fd09::2");
    let flows = [
        common::Flow::start(&pair.home, &pair.edge, "10.8.0.2"),
        common::Flow::start(&pair.edge, &pair.home, "fd08::1"),
    ];
    std::thread::park_timeout(Duration::from_millis(500));
    let before = edge.status().unwrap().peers[0].clone();
    for round in 0..6 {
        let (end, engine) = if round % 2 == 0 { (End::Home, &mut home) } else { (End::Edge, &mut edge) };
        let mut config = pair.config(end, Backend::Kernel, (end == End::Home).then_some("fd09::2"));
        // The successor may have read another site file: a peer more, and a key for the next handshake.
        let other = Peer {
            public_key: common::key(70 + round).1,
            allowed_ips: vec!["10.8.7.0/24".parse().unwrap()],
            ..config.peers[0].clone()
        };
        config.peers.insert(0, other);
        config.peers[1].preshared_key = Some(Secret::new([round; 32]));
        let successor = pair.start(end, &config);
        std::mem::replace(engine, successor).hand_over();
        let peers = engine.status().unwrap().peers;
        assert_eq!(
            peers.iter().map(|peer| peer.public_key).collect::<Vec<_>>(),
            config.peers.iter().map(|peer| peer.public_key).collect::<Vec<_>>()
        );
        assert_eq!((peers[0].last_handshake, peers[1].last_handshake.is_some()), (None, true));
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let after = edge.status().unwrap().peers[1].clone();
    assert!(after.last_handshake.unwrap() > before.last_handshake.unwrap(), "one handshake has served all");
    assert!(after.received > before.received && after.sent > before.sent, "{before:?} {after:?}");
    for flow in flows {
        let (sent, lost) = flow.stop();
        println!("{lost} of {sent} datagrams lost");
        assert!(sent > 200 && lost == 0, "{lost} of {sent} datagrams lost");
    }
    drop((home, edge));
    assert!(pair.home.run(|| Network::open()?.interface(INTERFACE)).is_err(), "the last one takes it along");
}

fn an_interface_is_handed_over_or_goes(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (home, _edge) = pair.connect(backend, "10.9.0.2");
        home.hand_over();
        let left = pair.home.run(|| Network::open()?.interface(INTERFACE));
        assert_eq!(left.is_ok(), backend == Backend::Kernel, "{backend}");
        let _again = pair.start(End::Home, &pair.config(End::Home, backend, Some("10.9.0.2")));
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
    }
}

fn a_port_that_is_taken_is_named(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let _taken = pair.edge.run(|| UdpSocket::bind("[::]:51820")).unwrap();
        let config = pair.config(End::Edge, backend, None);
        let refused = pair.edge.run(move || Engine::start(&config));
        assert!(matches!(refused, Err(TunnelError::Listen { port: 51820, .. })), "{backend}: {refused:?}");
        assert!(pair.edge.run(|| Network::open()?.interface(INTERFACE)).is_err(), "{backend}");
    }
}

fn a_source_that_is_not_the_peers_is_dropped(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (_home, _edge) = pair.connect(backend, "10.9.0.2");
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        let bind = |ip: &'static str| move || UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0));
        let to = pair.edge.run(bind("10.8.0.2")).unwrap();
        to.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        pair.home
            .run(|| {
                Network::open()
                    .and_then(|mut net| net.add_address(INTERFACE, "10.8.66.6/32".parse().unwrap(), Use::Both))
            })
            .unwrap();
        let mut space = [0; 8];
        for (ip, arrives) in [("10.8.66.6", false), ("10.8.0.1", true), ("10.8.66.6", false)] {
            pair.home.run(bind(ip)).unwrap().send_to(b"hello", to.local_addr().unwrap()).unwrap();
            assert_eq!(to.recv(&mut space).is_ok(), arrives, "{ip}");
        }
    }
}

fn an_address_of_nobody_is_refused_at_once(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (_home, _edge) = pair.connect(backend, "10.9.0.2");
        for nobody in ["10.8.99.9:80", "[fd08::9999]:80"] {
            let nobody: SocketAddr = nobody.parse().unwrap();
            let started = Instant::now();
            let refused = pair.home.run(move || TcpStream::connect_timeout(&nobody, Duration::from_secs(5)));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::HostUnreachable, "{backend} {nobody}");
            // The kernel's refuses while the connection is being made and its socket cannot be told yet; so what is
            // refused is the repetition after a second.
            let limit = if backend == Backend::Kernel { 3 } else { 1 };
            assert!(started.elapsed() < Duration::from_secs(limit), "{backend} {nobody}: {:?}", started.elapsed());
        }
    }
}

fn an_interface_of_somebody_else_is_left_alone(_: &Path) {
    let pair = Pair::new();
    pair.home.run(|| Network::open().and_then(|mut network| network.add_bridge(INTERFACE, None))).unwrap();
    for backend in backends() {
        let config = pair.config(End::Home, backend, None);
        let refused = pair.home.run(move || Engine::start(&config));
        assert!(matches!(refused, Err(TunnelError::Foreign(_))), "{refused:?}");
    }
    assert!(pair.home.run(|| Network::open()?.interface(INTERFACE)).is_ok());
}

fn an_interface_that_is_taken_away_is_told(_: &Path) {
    for backend in backends() {
        let pair = Pair::new();
        let (mut home, _edge) = pair.connect(backend, "10.9.0.2");
        pair.home.run(|| Network::open().and_then(|mut network| network.remove(INTERFACE))).unwrap();
        eventually("the engine to say so", || matches!(home.status(), Err(TunnelError::Stopped(_))));
        drop(home);
        let _again = pair.start(End::Home, &pair.config(End::Home, backend, None));
    }
}

fn the_socket_says_everything_but_secrets(_: &Path) {
    let pair = Pair::new();
    let (mut home, _edge) = pair.connect(Backend::Packet, "10.9.0.2");
    let socket = home.status().unwrap().socket.unwrap();
    let ask = move || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"get=1\n\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = pair.home.run(ask).unwrap();
    assert!(!answer.contains("private") && !answer.contains("preshared"), "{answer}");
    assert!(answer.contains("endpoint=10.9.0.2:51820\n") && answer.ends_with("errno=0\n\n"), "{answer}");
    drop(home);
    let gone = || std::path::Path::new("/run/wireguard").read_dir().map(Iterator::count);
    assert_eq!(pair.home.run(gone).unwrap(), 0, "the socket goes with its engine");
}

fn wg_reads_every_backend(_: &Path) {
    if !common::is_there(Path::new("wg")) {
        common::lacks("wg");
    }
    for backend in backends() {
        let pair = Pair::new();
        let _ends = pair.connect(backend, "10.9.0.2");
        let shown = pair.home.run(|| Command::new("wg").args(["show", INTERFACE]).output()).unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let peer = format!("peer: {}", common::key(2).1);
        for line in [&peer, "latest handshake: ", "every 25 seconds", "fd08::2/128", "endpoint: 10.9.0.2:51820"] {
            assert!(shown.contains(line), "{backend}: {line} in {shown}");
        }
    }
}

fn wireguard_go(_: &Path) {
    if let Err(why) = common::works(Backend::Tun) {
        common::skip(&why);
    }
    let found = common::Userspace::find(Path::new("wireguard-go"));
    let wireguard_go = found.unwrap_or_else(|| common::lacks("wireguard-go, or wg,"));
    for outer in ["10.9.0.2", "fd09::2"] {
        let pair = Pair::new();
        let theirs = wireguard_go.start(&pair, End::Edge, None);
        let mut home = pair.start(End::Home, &pair.config(End::Home, Backend::Packet, Some(outer)));
        for inner in ["10.8.0.2", "fd08::2"] {
            transfer(&pair.home, &pair.edge, inner, bulk());
        }
        transfer(&pair.edge, &pair.home, "fd08::1", bulk());
        assert!(home.status().unwrap().peers[0].last_handshake.is_some());
        drop((home, theirs));
        // And with roles exchanged: it dials us.
        let pair = Pair::new();
        let _ours = pair.start(End::Edge, &pair.config(End::Edge, Backend::Packet, None));
        let _theirs = wireguard_go.start(&pair, End::Home, Some(outer));
        transfer(&pair.home, &pair.edge, "10.8.0.2", bulk());
        transfer(&pair.edge, &pair.home, "10.8.0.1", bulk());
    }
}
