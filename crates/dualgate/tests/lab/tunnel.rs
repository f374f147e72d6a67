//! The tunnel of a whole site: it heals by itself, and its keys change under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use dualgate_core::model::{Family, PublicKey};
use dualgate_core::parse::yaml;
use dualgate_host::keys::{Keys, Slot};
use dualgate_host::namespace::Namespace;
use dualgate_host::network::{Network, Route};
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{self, Connections, Load, Request};
use dualgate_lab::trial::Trial;
use socket2::{Domain, Socket, Type};

use crate::site::{ip, logs, seed, status, until};

pub const TRIALS: &[Trial] = &[
    ("a_tunnel_whose_ipv6_dies_goes_on_over_ipv4", falls_back),
    ("the_keys_of_a_node_change_without_a_lost_request", rotation),
    ("everything_may_start_again_in_any_order", any_order),
    ("a_path_that_loses_large_packets_without_a_word_is_used_with_smaller_ones", narrows),
    ("a_path_is_narrow_over_one_outer_family_alone_and_widens_again", over_one_family),
];

const HOST: &str = "whoami.yourdomain.com";
const PUBLIC: &str = "203.0.113.10";

/// The peers of a node's tunnel by name.
fn peers(lab: &Lab, node: &str) -> BTreeMap<String, serde_json::Value> {
    let status = status(lab, node);
    let peers = status["tunnel"]["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().map(|peer| (peer["name"].as_str().unwrap_or_default().to_owned(), peer)).collect()
}

fn answers(lab: &Lab) -> bool {
    let Some(client) = lab.host("internet-client") else { return false };
    let request = Request::new(SocketAddr::new(PUBLIC.parse().unwrap(), 80), HOST);
    probe::get(&client, &request, Duration::from_secs(2)).is_ok_and(|answer| answer.status == 200)
}

fn traffic(lab: &Lab) -> probe::Running {
    let load = Load {
        request: Request::new(SocketAddr::new(PUBLIC.parse().unwrap(), 80), HOST),
        pace: Duration::from_millis(20),
        connections: Connections::Fresh,
        patience: Duration::from_secs(8),
        at_most: Duration::from_secs(120),
    };
    load.start(lab.host("internet-client").unwrap())
}

fn falls_back(directory: &Path) {
    let lab = seed(directory);
    let endpoint =
        |node: &str| peers(&lab, node).remove("ionos").and_then(|peer| Some(peer["endpoint"].as_str()?.to_owned()));
    until("home dials over IPv6 first", &lab, Duration::from_secs(5), || {
        endpoint("k3s-node2").is_some_and(|endpoint| endpoint.starts_with("[2001:db8:1::10]"))
    });
    let traffic = traffic(&lab);
    // The Internet forgets the edge's IPv6 address.
    let gone = Route { to: "2001:db8:1::10/128".parse().unwrap(), via: None, source: None, mtu: None };
    let forget = move || Network::open().unwrap().remove_route("ionos", &gone).unwrap();
    lab.host("internet").unwrap().run(forget);
    for node in ["k3s-node1", "k3s-node2", "k3s-node3"] {
        until("home goes over to IPv4", &lab, Duration::from_secs(60), || {
            endpoint(node).is_some_and(|endpoint| endpoint.starts_with("203.0.113.10:"))
        });
    }
    until("the application answers again", &lab, Duration::from_secs(10), || answers(&lab));
    let loss = traffic.stop();
    println!("{loss}");
    assert!(loss.longest_gap < Duration::from_secs(60), "{loss}");
}

/// Writes these public keys of a node into the site file of every node.
fn publish(lab: &Lab, directory: &Path, node: &str, keys: &[PublicKey]) {
    for host in lab.topology().hosts.iter().filter(|host| host.node.is_some()) {
        let file = directory.join("hosts").join(&host.name).join("run/dualgate/site.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut site = yaml::documents(&text).documents[0].to_json();
        for known in site["nodes"].as_array_mut().unwrap() {
            if known["name"] == node {
                known["publicKeys"] = keys.iter().map(ToString::to_string).collect();
            }
        }
        lab.nodes().write_site(&host.name, &site.to_string()).unwrap();
    }
}

fn rotation(directory: &Path) {
    let lab = seed(directory);
    let node = "k3s-node2";
    let keys = Keys::open(&directory.join("hosts").join(node).join("run/dualgate/state")).unwrap();
    let current = keys.current(&Slot::Private).unwrap().public().unwrap();
    let traffic = traffic(&lab);
    keys.prepare(&Slot::Private, None).unwrap();
    let next = keys.next(&Slot::Private).unwrap().unwrap().public().unwrap();
    publish(&lab, directory, node, &[current, next]);
    // Every node looks at its site file once a second.
    park_until(Instant::now() + Duration::from_secs(3));
    keys.finish(&Slot::Private).unwrap();
    until("the edge hears the next key", &lab, Duration::from_secs(30), || {
        let edge = peers(&lab, "ionos");
        let peer = &edge[node];
        peer["public_key"] == next.to_string() && peer["last_handshake_seconds"].as_u64().is_some_and(|age| age < 30)
    });
    publish(&lab, directory, node, &[next]);
    park_until(Instant::now() + Duration::from_secs(3));
    until("the edge believes the node by its next key", &lab, Duration::from_secs(30), || {
        let connected = status(&lab, "ionos")["exchange"]["connected"].clone();
        connected.as_array().is_some_and(|nodes| nodes.iter().any(|known| known == node))
    });
    let loss = traffic.stop();
    println!("{loss}");
    assert_eq!(loss.failed, 0, "{loss}\n{}", logs(&lab));
    let on_node =
        lab.cluster().pods().into_iter().find(|pod| pod.node == node && pod.workload == "apps/whoami").unwrap();
    assert!(loss.pods.keys().any(|pod| on_node.name.ends_with(pod.as_str())), "nothing went through the node's tunnel");
}

fn park_until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        park_timeout(left);
    }
}

fn any_order(directory: &Path) {
    let lab = seed(directory);
    for order in [["ionos", "router", "k3s-node2"], ["k3s-node2", "ionos", "router"], ["router", "k3s-node2", "ionos"]]
    {
        order.iter().for_each(|host| drop(lab.fail(host).unwrap()));
        for host in order {
            lab.heal(host).unwrap();
            park_until(Instant::now() + Duration::from_millis(300));
        }
        until("every node hears the edge", &lab, Duration::from_secs(40), || {
            let edge = peers(&lab, "ionos");
            edge.len() == 3
                && edge.values().all(|peer| peer["last_handshake_seconds"].as_u64().is_some_and(|age| age < 40))
        });
        until("the application answers", &lab, Duration::from_secs(20), || answers(&lab));
    }
}

/// What is known of the path between two ends, and how large packets are.
fn path(lab: &Lab, node: &str, peer: &str) -> (String, u64) {
    let peer = peers(lab, node).remove(peer).unwrap_or_default();
    (peer["path"].as_str().unwrap_or_default().to_owned(), peer["mtu"].as_u64().unwrap_or_default())
}

fn is(lab: &Lab, node: &str, peer: &str, state: &str, mtu: u64) -> bool {
    path(lab, node, peer) == (state.to_owned(), mtu)
}

fn found(lab: &Lab, node: &str) -> Vec<String> {
    let findings = status(lab, node)["findings"].as_array().cloned().unwrap_or_default();
    let of_paths = findings.iter().filter(|finding| finding["code"] == "tunnel-mtu");
    of_paths.map(|finding| finding.to_string()).collect()
}

/// Much there, much back, on a connection that is open.
fn transfer(stream: &mut TcpStream, patience: Duration) -> io::Result<()> {
    const MUCH: usize = 1 << 20;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let head = format!("POST /?size={MUCH} HTTP/1.1\r\nHost: pod\r\nContent-Length: {MUCH}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'x'; MUCH])?;
    let (mut answer, mut space) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let read = stream.read(&mut space)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&space[..read]);
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|head| answer.len() - head - 4);
        if body == Some(MUCH) {
            return if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
    }
}

fn connect(from: &Namespace, to: SocketAddr) -> TcpStream {
    from.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))
        .unwrap_or_else(|error| panic!("{to}: {error}"))
}

/// The largest segments that are announced to an address, at any interface of a host, while something is done.
fn announced(host: &Namespace, to: IpAddr, act: impl FnOnce()) -> BTreeSet<u16> {
    const EVERY_FRAME: i32 = 3;
    let protocol = i32::from((EVERY_FRAME as u16).to_be());
    let mut frames =
        host.run(move || Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol.into()))).expect("a packet socket");
    frames.set_nonblocking(true).expect("a setting");
    act();
    let (mut seen, mut space) = (BTreeSet::new(), [0; 256]);
    while let Ok(length) = frames.read(&mut space) {
        seen.extend(segment(&space[..length], to));
    }
    seen
}

/// What a packet that opens a connection to an address announces.
fn segment(packet: &[u8], to: IpAddr) -> Option<u16> {
    let tcp = match (packet.first()? >> 4, to) {
        (4, IpAddr::V4(to)) if packet.get(9)? == &6 && packet.get(16..20)? == to.octets() => packet.get(20..)?,
        (6, IpAddr::V6(to)) if packet.get(6)? == &6 && packet.get(24..40)? == to.octets() => packet.get(40..)?,
        _ => return None,
    };
    // Linux puts this option first.
    match tcp.get(13..24)? {
        [flags, .., 2, 4, high, low] if flags & 2 != 0 => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

const HOME: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];

fn narrows(directory: &Path) {
    let lab = seed(directory);
    until("every path is known to take the whole MTU", &lab, Duration::from_secs(20), || {
        HOME.iter().all(|node| is(&lab, node, "ionos", "whole", 1392) && is(&lab, "ionos", node, "whole", 1392))
    });
    let pod = lab.cluster().pods().into_iter().find(|pod| pod.workload == "apps/whoami").expect("a pod");
    let pods: Vec<SocketAddr> = pod.addresses.iter().map(|address| SocketAddr::new(*address, 80)).collect();
    assert_eq!(pods.len(), 2, "{pod:?}");
    let edge = lab.host("ionos").expect("it is on");
    let mut before: Vec<TcpStream> = pods.iter().map(|pod| connect(&edge, *pod)).collect();
    for stream in &mut before {
        transfer(stream, Duration::from_secs(5)).expect("the path is wide");
    }
    // 1400 octets outside are 1320 inside: 80 are WireGuard's over IPv6, which fills up to 16.
    lab.narrow_line(Family::V6, Some(1400)).expect("the line");
    let narrowed = Instant::now();
    for pod in &pods {
        let hangs = transfer(&mut connect(&edge, *pod), Duration::from_secs(2)).expect_err("nobody knows yet");
        assert_eq!(hangs.kind(), io::ErrorKind::WouldBlock, "{pod}: {hangs}");
    }
    until("every end knows what passes", &lab, Duration::from_secs(100), || {
        HOME.iter().all(|node| is(&lab, node, "ionos", "narrow", 1312) && is(&lab, "ionos", node, "narrow", 1312))
    });
    println!("known after {:?}", narrowed.elapsed());
    let findings = found(&lab, &pod.node);
    assert!(findings.len() == 1 && findings[0].contains("`tunnel.mtu: 1312`"), "{findings:?}");
    for (pod, before) in pods.iter().zip(&mut before) {
        let segments = announced(&edge, pod.ip(), || {
            transfer(&mut connect(&edge, *pod), Duration::from_secs(10))
                .unwrap_or_else(|error| panic!("{pod}: {error}"));
        });
        let headers = if pod.is_ipv4() { 40 } else { 60 };
        assert_eq!(segments, BTreeSet::from([1312 - headers]), "{pod}");
        transfer(before, Duration::from_secs(20)).unwrap_or_else(|error| panic!("open before, {pod}: {error}"));
    }
    forwarded(&lab);
}

/// What a home node forwards into the tunnel announces no more, whoever opens it.
fn forwarded(lab: &Lab) {
    for (edge, node, headers) in
        [("192.168.178.201", "192.168.178.6", 40), ("fda8:a1db:5685::201", "fda8:a1db:5685::6", 60)]
    {
        let to = ip(edge);
        let route = Route { to: ipnet::IpNet::from(to), via: Some(ip(node)), source: None, mtu: None };
        let client = lab.host("lan-client").expect("it is on");
        client.run(move || Network::open()?.add_route("eth0", &route)).expect("a route");
        let segments = announced(&lab.host("k3s-node2").expect("it is on"), to, || {
            // The edge lets nobody of the LAN in.
            assert!(probe::tcp(&client, SocketAddr::new(to, 80), Duration::from_millis(500)).is_err());
        });
        assert_eq!(segments, BTreeSet::from([1500 - headers, 1312 - headers]), "{edge}: before and behind the node");
    }
}

fn over_one_family(directory: &Path) {
    let lab = seed(directory);
    let node = "k3s-node2";
    let over = |start: &str| {
        let endpoint = peers(&lab, node).remove("ionos").unwrap_or_default()["endpoint"].clone();
        endpoint.as_str().is_some_and(|endpoint| endpoint.starts_with(start))
    };
    let (v6, v4) = ("[2001:db8:1::10]", "203.0.113.10:");
    until("the path is wide", &lab, Duration::from_secs(20), || is(&lab, node, "ionos", "whole", 1392));
    lab.narrow_line(Family::V6, Some(1400)).expect("the line");
    lab.fail(node).unwrap();
    lab.heal(node).unwrap();
    until("it is narrow from the start", &lab, Duration::from_secs(60), || {
        over(v6) && is(&lab, node, "ionos", "narrow", 1312)
    });
    // The Internet forgets one of the edge's addresses, then the other.
    let route = |address: &str| Route { to: ipnet::IpNet::from(ip(address)), via: None, source: None, mtu: None };
    let (gone, back) = (route("2001:db8:1::10"), route("2001:db8:1::10"));
    let internet = lab.host("internet").expect("it is on");
    internet.run(move || Network::open()?.remove_route("ionos", &gone)).expect("it is there");
    until("IPv4 takes the whole MTU", &lab, Duration::from_secs(90), || {
        over(v4) && is(&lab, node, "ionos", "whole", 1392)
    });
    assert_eq!(found(&lab, node), [""; 0]);
    // Both wide: what was known is looked at when the way is taken again.
    lab.narrow_line(Family::V6, None).expect("the line");
    let gone = route("203.0.113.10");
    let swap = move || {
        let mut network = Network::open()?;
        network.add_route("ionos", &back)?;
        network.remove_route("ionos", &gone)
    };
    internet.run(swap).expect("routes");
    until("IPv6 is taken again, as it was known", &lab, Duration::from_secs(90), || {
        over(v6) && ["narrow", "whole"].contains(&path(&lab, node, "ionos").0.as_str())
    });
    until("IPv6 takes the whole MTU again", &lab, Duration::from_secs(30), || {
        over(v6) && is(&lab, node, "ionos", "whole", 1392)
    });
    // Where datagrams of IPv4 may be cut, but parts of them are lost.
    lab.narrow_line(Family::V4, Some(1400)).expect("the line");
    let (gone, back) = (route("2001:db8:1::10"), route("203.0.113.10"));
    let swap = move || {
        let mut network = Network::open()?;
        network.add_route("ionos", &back)?;
        network.remove_route("ionos", &gone)
    };
    internet.run(swap).expect("routes");
    // 60 are WireGuard's over IPv4.
    until("IPv4 is narrow", &lab, Duration::from_secs(120), || over(v4) && is(&lab, node, "ionos", "narrow", 1328));
}
