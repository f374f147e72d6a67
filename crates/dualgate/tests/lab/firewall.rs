//! What the firewall does to packets: seen from the Internet, from home and from an edge that was taken over.
//!
//! Where nothing listens, a port that is open answers "refused" and one that is shut is silent. So a sweep shows what
//! the rules say, without a listener on every port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::model::object::Protocol;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::site;
use dualgate_core::plan::firewall::{FirewallPlan, Source, Why, firewall};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{Firewall, FirewallError, inspect};
use dualgate_host::namespace::Namespace;
use dualgate_host::network::{Network, Route, Use};
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{self, Trouble};
use dualgate_lab::rehearsal::Tunnel;
use dualgate_lab::topology;
use dualgate_lab::trial::{Trial, chain};
use dualgate_lab::world::World;
use socket2::{Domain, Socket, Type};

use crate::site::{example, get, ip, seed};

pub const TRIALS: &[Trial] = &[
    ("a_sweep_of_all_tcp_ports_of_the_edge_finds_the_plans_and_no_other", every_tcp_port),
    ("a_sweep_of_all_udp_ports_of_the_edge_is_counted_as_planned", every_udp_port),
    ("nobody_outside_speaks_from_homes_addresses_or_to_private_ones", lies),
    ("nothing_is_forwarded_between_the_internet_and_the_tunnel", no_router),
    ("what_is_for_home_never_leaves_by_another_way", no_leak),
    ("an_edge_that_was_taken_over_reaches_the_pods_of_public_routes_alone", hostile_edge),
    ("with_the_firewall_in_place_the_seeds_applications_answer_as_before", flows),
    ("ports_that_other_software_publishes_are_shut_unless_the_site_opens_them", published),
    ("rules_of_iptables_go_on_beside_ours", iptables),
    ("a_flush_of_all_rules_leaves_the_edge_guarded", flush),
    ("a_change_on_trial_is_kept_by_the_command_or_undone", commands),
];

const EDGE: &str = "ionos";
const CLIENT: &str = "internet-client";
const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
const SILENCE: Duration = Duration::from_millis(400);

/// The seed's network with a segment in place of WireGuard, and nothing running on it.
struct Site {
    world: World,
    snapshot: Snapshot,
    guards: Vec<(&'static str, Firewall)>,
}

impl Site {
    fn build(directory: &Path, edit: impl Fn(String) -> String) -> Self {
        let text = std::fs::read_to_string(example().join("site.yaml")).expect("the seed's site file");
        Self::of(directory, &edit(text), "")
    }

    fn of(directory: &Path, text: &str, objects: &str) -> Self {
        dualgate_host::raise_descriptor_limit();
        let (site, findings) = site::site("site.yaml", text);
        let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
        let mut topology = topology::build(&site, Tunnel::StandIn).expect("a topology");
        let interfaces = topology.hosts.iter_mut().flat_map(|host| &mut host.interfaces);
        interfaces.filter(|interface| interface.name == "tunnel0").for_each(|one| one.name = "dualgate".to_owned());
        let ends = topology.links.iter_mut().flat_map(|link| &mut link.ends);
        ends.filter(|(_, interface)| interface == "tunnel0").for_each(|(_, name)| *name = "dualgate".to_owned());
        let world = World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let objects = match objects {
            "" => ObjectSet::default(),
            objects => assemble([&file("objects.yaml", objects)].into_iter()),
        };
        let (site, objects) = (Arc::new(site), Arc::new(objects));
        let snapshot = Snapshot { generation: Generation(1), site, objects, facts: Facts::default() };
        let site = Self { world, snapshot, guards: Vec::new() };
        // A bridge takes its ports into use when the kernel comes round to it.
        for (node, address) in [("k3s-node1", "192.168.178.5"), ("k3s-node2", "fda8:a1db:5685::6")] {
            until("the links are up", || site.dials(EDGE, node, address, 7999).is_ok());
        }
        until("the LAN is up", || site.dials("lan-client", "k3s-node1", "192.168.178.5", 7999).is_ok());
        until("the Internet is up", || PUBLIC.iter().all(|to| site.dials(CLIENT, EDGE, to, 7999).is_ok()));
        site
    }

    fn host(&self, name: &str) -> Arc<Namespace> {
        self.world.host(name).expect("a host that is on")
    }

    fn plan(&self, node: &str) -> Arc<FirewallPlan> {
        Arc::new(firewall(&self.snapshot, &NodeName::new(node)))
    }

    fn guard(&mut self, node: &'static str) {
        let plan = self.plan(node);
        let firewall = self.host(node).run(move || {
            let mut firewall = Firewall::open(None)?;
            converge(&mut firewall, &plan)?;
            Ok::<_, FirewallError>(firewall)
        });
        self.guards.push((node, firewall.unwrap_or_else(|error| panic!("{node}: {}", chain(&error)))));
    }

    fn counted(&self, node: &str, rule: &'static str) -> u64 {
        let plan = self.plan(node);
        let seen = self.host(node).run(move || inspect(&plan)).expect("a listing");
        seen.counters.iter().filter(|counter| counter.rule == rule).map(|counter| counter.counted.packets).sum()
    }

    /// How many packets a rule counts meanwhile.
    fn counts(&self, node: &str, rule: &'static str, act: impl FnOnce()) -> u64 {
        let before = self.counted(node, rule);
        act();
        // What crossed the links is there when it was sent; the queue of a busy core may be a moment late.
        std::thread::park_timeout(Duration::from_millis(50));
        self.counted(node, rule) - before
    }

    fn network(&self, host: &str, job: impl FnOnce(&mut Network) + Send + 'static) {
        self.host(host).run(move || job(&mut Network::open().expect("rtnetlink")));
    }

    /// One datagram; the host may have another address for it.
    fn send(&self, from: &str, source: Option<&str>, to: &str, port: u16) {
        let to = SocketAddr::new(ip(to), port);
        let any = if to.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
        let source = SocketAddr::new(source.map_or(any, ip), 0);
        let sent = self.host(from).run(move || std::net::UdpSocket::bind(source)?.send_to(b"?", to));
        sent.unwrap_or_else(|error| panic!("{from} -> {to}: {error}"));
    }

    /// Whether a connection to a host that listens there comes about.
    fn dials(&self, from: &str, at: &str, address: &str, port: u16) -> Result<(), Trouble> {
        let to = SocketAddr::new(ip(address), port);
        let listener = self.host(at).run(move || std::net::TcpListener::bind(to)).expect("a listener");
        let dialled = probe::tcp(&self.host(from), to, SILENCE);
        drop(listener);
        dialled
    }
}

fn converge(firewall: &mut Firewall, plan: &Arc<FirewallPlan>) -> Result<(), FirewallError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let observed = firewall.observe().await?;
        firewall.apply(plan, &Firewall::diff(&observed, plan)).await
    })
}

fn every_tcp_port(directory: &Path) {
    let mut site = Site::build(directory, |text| text);
    site.guard(EDGE);
    let open = |opening: &&dualgate_core::plan::firewall::Opening| {
        opening.protocol == Protocol::Tcp && opening.from == Source::Everywhere
    };
    let mut planned: Vec<u16> = site.plan(EDGE).openings.iter().filter(open).map(|opening| opening.port).collect();
    planned.sort_unstable();
    assert_eq!(planned, [22, 53, 80, 443]);
    let all: Vec<u16> = (1..=u16::MAX).collect();
    for address in PUBLIC {
        assert_eq!(sweep(&site.host(CLIENT), ip(address), &all), planned, "{address}");
    }
    // From home everything that the edge is asked through the tunnel, and nothing else.
    let (some, _) = all.split_at(11_000);
    for address in ["192.168.178.201", "fda8:a1db:5685::201"] {
        assert_eq!(sweep(&site.host("k3s-node2"), ip(address), some), [22, 53, 80, 443, 9181, 10_250], "{address}");
    }
}

/// Those of the TCP ports that answer, be it by a refusal.
fn sweep(from: &Namespace, address: IpAddr, ports: &[u16]) -> Vec<u16> {
    let mut answered = Vec::new();
    for some in ports.chunks(8192) {
        let some = some.to_vec();
        let domain = Domain::for_address(SocketAddr::new(address, 0));
        let dial = move |port: u16| -> io::Result<(u16, Socket)> {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // In progress, as it does not wait.
            let _ = socket.connect(&SocketAddr::new(address, port).into());
            Ok((port, socket))
        };
        let sockets: Vec<_> = from.run(move || some.into_iter().map(dial).collect());
        std::thread::park_timeout(SILENCE);
        for socket in sockets {
            let (port, socket) = socket.expect("a socket");
            let refused = socket.take_error().expect("its state").is_some();
            if refused || socket.peer_addr().is_ok() {
                answered.push(port);
            }
        }
    }
    answered
}

fn every_udp_port(directory: &Path) {
    let mut site = Site::build(directory, |text| text);
    site.guard(EDGE);
    for address in PUBLIC {
        let to = ip(address);
        let all = || {
            let from = site.host(CLIENT);
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = from.run(move || std::net::UdpSocket::bind(any)).expect("a socket");
            for port in 1..=u16::MAX {
                // What an open port without a listener answers comes back as an error of a later call.
                let sent = (0..3).any(|_| socket.send_to(b"?", SocketAddr::new(to, port)).is_ok());
                assert!(sent, "{address}:{port}");
                if port % 256 == 0 {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
            }
        };
        let before = ["tunnel", "dns"].map(|rule| site.counted(EDGE, rule));
        let shut = site.counts(EDGE, "shut", all);
        let after = ["tunnel", "dns"].map(|rule| site.counted(EDGE, rule));
        assert_eq!((after[0] - before[0], after[1] - before[1]), (1, 1), "{address}");
        assert_eq!(shut, u64::from(u16::MAX) - 2, "{address}");
        // In several parts it is no other: they are put together first.
        let large = || {
            let from = site.host(CLIENT);
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let sent = from.run(move || std::net::UdpSocket::bind(any)?.send_to(&[0; 4000], (to, 9000)));
            assert_eq!(sent.expect("a datagram"), 4000);
        };
        assert_eq!(site.counts(EDGE, "shut", large), 1, "{address}");
    }
}

fn lies(directory: &Path) {
    let mut site = Site::build(directory, |text| text);
    site.guard(EDGE);
    let cases = [
        (PUBLIC[0], ["192.168.178.5", "10.42.0.9", "192.168.178.201"]),
        (PUBLIC[1], ["fda8:a1db:5685::5", "fd01::9", "fda8:a1db:5685::201"]),
    ];
    for (public, sources) in cases {
        for source in sources {
            let address = ipnet::IpNet::from(ip(source));
            site.network(CLIENT, move |network| network.add_address("eth0", address, Use::Both).expect("an address"));
            for port in [80, 9181, 10_250] {
                let counted = site.counts(EDGE, "spoofed", || site.send(CLIENT, Some(source), public, port));
                assert_eq!(counted, 1, "{source} -> {public}:{port}");
            }
            site.network(CLIENT, move |network| network.remove_address("eth0", address).expect("it is there"));
        }
    }
    // Somebody on the provider's network has a way to the edge's private addresses.
    for (private, via) in [("192.168.178.201", PUBLIC[0]), ("fda8:a1db:5685::201", PUBLIC[1])] {
        lead(&site, private, via);
        let counted = site.counts(EDGE, "private-destination", || site.send(CLIENT, None, private, 10_250));
        assert_eq!(counted, 1, "{private}");
    }
}

/// The Internet's routers send what is for this address to the edge.
fn lead(site: &Site, to: &str, via: &str) {
    let route = Route { to: ipnet::IpNet::from(ip(to)), via: Some(ip(via)), source: None, mtu: None };
    site.network("internet", move |network| network.add_route(EDGE, &route).expect("a route"));
}

fn no_router(directory: &Path) {
    let mut site = Site::build(directory, |text| text);
    let home = [
        ("192.168.178.5", PUBLIC[0]),
        ("10.42.0.1", PUBLIC[0]),
        ("fda8:a1db:5685::5", PUBLIC[1]),
        ("fd01::1", PUBLIC[1]),
    ];
    for (address, via) in home {
        lead(&site, address, via);
    }
    // Without a firewall the edge is a router, and only answers go astray.
    let reaches = |site: &Site, address: &str| {
        let to = SocketAddr::new(ip(address), 7000);
        let listener = site.host("k3s-node1").run(move || std::net::UdpSocket::bind(to)).expect("a socket");
        listener.set_read_timeout(Some(SILENCE)).expect("a setting");
        site.send(CLIENT, None, address, 7000);
        listener.recv(&mut [0; 8]).is_ok()
    };
    for (address, _) in home {
        assert!(reaches(&site, address), "the way to {address} is there");
    }
    site.guard(EDGE);
    for (address, _) in home {
        let counted = site.counts(EDGE, "to-tunnel", || assert!(!reaches(&site, address), "{address}"));
        assert_eq!(counted, 1, "{address}");
    }
    // Nor is the edge a way out for home.
    for (outside, via) in [("198.51.100.7", "192.168.178.201"), ("2001:db8:7::7", "fda8:a1db:5685::201")] {
        let source = Some(if ip(outside).is_ipv4() { ip("192.168.178.5") } else { ip("fda8:a1db:5685::5") });
        let route = Route { to: ipnet::IpNet::from(ip(outside)), via: Some(ip(via)), source, mtu: None };
        site.network("k3s-node1", move |network| {
            let next = Route { to: ipnet::IpNet::from(ip(via)), via: None, source, mtu: None };
            // It may be there already.
            let _ = network.add_route("dualgate", &next);
            network.add_route("dualgate", &route).expect("a route");
        });
        let counted = site.counts(EDGE, "from-tunnel", || site.send("k3s-node1", None, outside, 9));
        assert_eq!(counted, 1, "{outside}");
    }
}

fn no_leak(directory: &Path) {
    let mut site = Site::build(directory, |text| {
        text.replace("roles: [agent, external-gate, dns]", "roles: [external-gate, dns]")
    });
    site.guard(EDGE);
    // The tunnel is not there yet: what is for a pod would go to the provider's router.
    site.network(EDGE, |network| network.remove("dualgate").expect("it is there"));
    for address in ["10.42.0.9", "192.168.178.5", "fd01::9", "fda8:a1db:5685::5"] {
        let to = SocketAddr::new(ip(address), 80);
        let started = Instant::now();
        let refused = probe::tcp(&site.host(EDGE), to, Duration::from_secs(5)).expect_err("there is no way");
        assert_eq!(refused, Trouble::Refused, "{address}");
        assert!(started.elapsed() < Duration::from_secs(1), "{address}: the gate is told at once");
    }
    assert!(site.counted(EDGE, "home-outside-tunnel") >= 4);
}

const PODS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps, annotations: {dualgate.dev/endpoints: '10.42.0.1:3000+[fd01::1]:3000'}}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: apps, annotations: {dualgate.dev/gates: external}}
spec: {ingressClassName: dualgate, defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: dualgate}
spec: {controller: dualgate.dev/ingress-controller}
";

fn hostile_edge(directory: &Path) {
    let text = std::fs::read_to_string(example().join("site.yaml")).expect("the seed's site file");
    let text = text.replace("roles: [agent, external-gate, dns]", "roles: [external-gate, dns]");
    let mut site = Site::of(directory, &text, PODS);
    let lan =
        [("192.168.178.50", "192.168.178.5"), ("192.168.178.6", "192.168.178.5"), ("192.168.178.10", "192.168.178.5")];
    for (to, via) in lan {
        let route = Route {
            to: ipnet::IpNet::from(ip(to)),
            via: Some(ip(via)),
            source: Some(ip("192.168.178.201")),
            mtu: None,
        };
        site.network(EDGE, move |network| {
            // The lab has another way to a node, which a hostile edge would not take.
            let _ = network.remove_route("dualgate", &Route { via: Some(ip("192.168.178.6")), ..route.clone() });
            network.add_route("dualgate", &route).expect("a route");
        });
    }
    // No node of this world takes the gate's address by itself.
    let hold = || Network::open()?.add_address("eth0", "192.168.178.10/32".parse().expect("an address"), Use::Answer);
    site.host("k3s-node1").run(hold).expect("the virtual IP");
    let pods = [("10.42.0.1", 3000), ("fd01::1", 3000)];
    let shut = [
        ("k3s-node1", "10.42.0.1", 3001),
        ("k3s-node1", "fd01::1", 3001),
        ("k3s-node1", "192.168.178.5", 22),
        ("k3s-node1", "fda8:a1db:5685::5", 22),
        ("k3s-node1", "192.168.178.5", 6443),
        ("k3s-node1", "192.168.178.5", 10_250),
        ("k3s-node1", "192.168.178.5", 9181),
        ("k3s-node1", "192.168.178.10", 80),
        ("lan-client", "192.168.178.50", 445),
        ("k3s-node2", "192.168.178.6", 22),
    ];
    for (host, address, port) in shut {
        // Nodes alone would let all of it in.
        if host == "k3s-node1" {
            site.dials(EDGE, host, address, port).unwrap_or_else(|trouble| panic!("{address}:{port}: {trouble}"));
        }
    }
    for node in ["k3s-node1", "k3s-node2", "k3s-node3", EDGE] {
        site.guard(node);
    }
    for (address, port) in pods {
        site.dials(EDGE, "k3s-node1", address, port).unwrap_or_else(|trouble| panic!("{address}:{port}: {trouble}"));
    }
    for (host, address, port) in shut {
        let counted = site.counts("k3s-node1", "from-edge", || {
            let refused = site.dials(EDGE, host, address, port).expect_err("it is shut");
            assert!(matches!(refused, Trouble::Silent(_)), "{address}:{port}: {refused}");
        });
        assert!(counted >= 1, "{address}:{port}");
    }
    // Home reaches its edge as before, and the LAN its nodes.
    site.dials("k3s-node1", EDGE, "192.168.178.201", 9181).expect("the exchange");
    site.dials("lan-client", "k3s-node1", "192.168.178.5", 22).expect("the LAN is trusted");
}

fn flows(directory: &Path) {
    let lab = seed(directory);
    let pods = |node: &str| firewall(&lab.snapshot(), &NodeName::new(node)).openings;
    let nodes = ["k3s-node1", "k3s-node2", "k3s-node3"];
    assert!(nodes.iter().any(|node| pods(node).iter().any(|opening| opening.why == Why::PublicRoutes)));
    let guards: Vec<Option<Firewall>> =
        [EDGE, "k3s-node1", "k3s-node2", "k3s-node3"].map(|node| guarded(&lab, node)).into();
    for (from, gate) in [
        ("lan-client", "192.168.178.10"),
        ("lan-client", "fda8:a1db:5685::10"),
        (CLIENT, PUBLIC[0]),
        (CLIENT, PUBLIC[1]),
    ] {
        let answer = get(&lab, from, gate, "grafana.yourdomain.com");
        assert_eq!(answer.status, 200, "{from} -> {gate}: {}", answer.text());
    }
    let admin = SocketAddr::new(ip(PUBLIC[0]), 9180);
    let client = lab.host(CLIENT).expect("a host that is on");
    assert!(matches!(probe::tcp(&client, admin, SILENCE), Err(Trouble::Silent(_))), "the admin listener is shut");
    probe::ping(&client, ip(PUBLIC[0]), Duration::from_secs(2)).expect("echo is answered");
    probe::ping(&client, ip(PUBLIC[1]), Duration::from_secs(2)).expect("echo is answered");
    drop(guards);
}

/// The node's firewall with the pods that run: its own process's if that has one, else made here.
fn guarded(lab: &Lab, node: &'static str) -> Option<Firewall> {
    let snapshot = lab.snapshot();
    let plan = Arc::new(firewall(&snapshot, &NodeName::new(node)));
    let host = lab.host(node).expect("a host that is on");
    let made = host.run(move || {
        let mut firewall = Firewall::open(None)?;
        converge(&mut firewall, &plan).map(|()| firewall)
    });
    match made {
        Ok(firewall) => Some(firewall),
        Err(FirewallError::Taken { .. }) => None,
        Err(error) => panic!("{node}: {}", chain(&error)),
    }
}

/// As kube-proxy writes a Service of type NodePort: the pod is the Internet client, for want of a better one.
const NODE_PORT: &str = "
table ip kube-proxy {
	chain nodeports {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport { 30080, 30081 } dnat to 198.51.100.7
	}
	chain masquerading {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat masquerade
	}
}
";

fn published(directory: &Path) {
    if !has("published", "nft") {
        return;
    }
    let mut site = Site::build(directory, |text| {
        text.replace("  allow: []", "  allow: [{protocol: tcp, port: 30081, from: [198.51.100.0/24]}]")
    });
    run_in(&site.host(EDGE), "nft", &["-f", "-"], NODE_PORT);
    let reaches = |site: &Site, port| {
        let listen = SocketAddr::new(ip("198.51.100.7"), port);
        let pod = site.host(CLIENT).run(move || std::net::TcpListener::bind(listen)).expect("a listener");
        let reached = probe::tcp(&site.host(CLIENT), SocketAddr::new(ip(PUBLIC[0]), port), SILENCE);
        drop(pod);
        reached
    };
    reaches(&site, 30_080).expect("a NodePort is open to the whole Internet");
    site.guard(EDGE);
    let counted = site.counts(EDGE, "published", || {
        let shut = reaches(&site, 30_080).expect_err("nobody asked for it");
        assert!(matches!(shut, Trouble::Silent(_)), "{shut}");
    });
    assert!(counted >= 1);
    reaches(&site, 30_081).expect("the site file opens it");
}

fn iptables(directory: &Path) {
    if !has("iptables", "iptables-nft") {
        return;
    }
    let mut site = Site::build(directory, |text| text);
    let edge = site.host(EDGE);
    let rule = |words: &str| run_in(&edge, "iptables-nft", &words.split(' ').collect::<Vec<_>>(), "");
    rule("-A INPUT -p tcp --dport 443 -j REJECT --reject-with tcp-reset");
    rule("-A INPUT -p tcp --dport 9000 -j ACCEPT");
    rule("-t nat -A PREROUTING -p tcp --dport 8443 -j REDIRECT --to-ports 80");
    site.guard(EDGE);
    let listing = run_in(&edge, "iptables-nft", &["-S", "INPUT"], "");
    assert!(listing.contains("--dport 443") && listing.contains("--dport 9000"), "{listing}");
    let port = |port| probe::tcp(&site.host(CLIENT), SocketAddr::new(ip(PUBLIC[0]), port), SILENCE);
    assert_eq!(port(443), Err(Trouble::Refused), "their rejection stands");
    assert!(matches!(port(9000), Err(Trouble::Silent(_))), "their accept opens nothing that we shut");
    assert_eq!(port(80), Err(Trouble::Refused), "our opening reaches the host");
    // What is redirected to an open port of the host itself reaches it.
    assert_eq!(port(8443), Err(Trouble::Refused));
}

fn flush(directory: &Path) {
    if !has("flush", "nft") {
        return;
    }
    let mut site = Site::build(directory, |text| text);
    site.guard(EDGE);
    run_in(&site.host(EDGE), "nft", &["flush", "ruleset"], "");
    let (name, mut firewall) = site.guards.pop().expect("the edge's");
    let plan = site.plan(name);
    // With owners nothing is to be done; without, the next round restores it.
    let restored = site.host(name).run(move || converge(&mut firewall, &plan).map(|()| firewall));
    site.guards.push((name, restored.expect("a round")));
    let shut = probe::tcp(&site.host(CLIENT), SocketAddr::new(ip(PUBLIC[0]), 9180), SILENCE);
    assert!(matches!(shut, Err(Trouble::Silent(_))), "{shut:?}");
}

/// The program itself, on the edge.
fn commands(directory: &Path) {
    let site = Site::build(directory, |text| text);
    let state = directory.join("state");
    let file = example().join("site.yaml");
    let (state, file) = (state.to_str().expect("a path").to_owned(), file.to_str().expect("a path").to_owned());
    let edge = site.host(EDGE);
    let start = |arguments: &[&str]| -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
        command.arg("firewall").args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        edge.run(move || command.spawn()).expect("the program runs")
    };
    let ends = |mut child: Child| -> ExitStatus { child.wait().expect("it ends") };
    let about = ["--site", &file, "--node", EDGE];
    let status = || ends(start(&[&["status"], &about[..]].concat())).code();
    let apply = |time: &str| start(&[&["apply", "--state", &state, "--confirm", time], &about[..]].concat());
    let confirm = || ends(start(&["confirm", "--state", &state])).code();
    assert_eq!(status(), Some(1), "there are no rules");
    assert_eq!(confirm(), Some(2), "nothing is on trial");
    let applying = apply("600s");
    until("the rules are on trial", || status() == Some(0));
    assert_eq!(confirm(), Some(0));
    assert_eq!(ends(applying).code(), Some(0));
    assert_eq!(status(), Some(0), "they stay");
    assert_eq!(ends(apply("600s")).code(), Some(0), "nothing is to be changed");
    // Somebody else's hand on the kernel's rules, then a trial whose process is killed.
    let deleted = edge.run(|| {
        let mut firewall = Firewall::open(None)?;
        converge(&mut firewall, &Arc::new(FirewallPlan::default()))
    });
    deleted.expect("no rules");
    let mut applying = apply("1s");
    until("the rules are on trial", || status() == Some(0));
    applying.kill().expect("it is killed");
    assert_eq!(applying.wait().expect("it is gone").code(), None);
    until("they are undone", || status() == Some(1));
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether a program is there; without it a test says so.
fn has(test: &str, program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok() {
        return true;
    }
    let required = std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "{program} is not installed");
    println!("SKIPPED: lab::firewall_{test}: {program} is not installed");
    false
}

/// Runs a program on a host, and gives what it printed.
#[track_caller]
fn run_in(host: &Namespace, program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = host.run(move || command.spawn()).unwrap_or_else(|error| panic!("{program}: {error}"));
    io::Write::write_all(&mut child.stdin.take().expect("its input"), input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
