//! Probes see what is there, and checks pass and fail with it: on the seed's hosts, with responders in the place of gates.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dualgate_core::case::{Case, Families};
use dualgate_core::model::Snapshot;
use dualgate_core::parse;
use dualgate_host::namespace::Namespace;
use dualgate_host::network::{Network, Use};
use dualgate_lab::checks;
use dualgate_lab::probe::{self, Connection, Connections, Load, Request, Trouble};
use dualgate_lab::report::{Check, Verdict};
use dualgate_lab::topology::{self, Filter, Topology};
use dualgate_lab::trial::{self, chain};
use dualgate_lab::world::World;

fn main() -> ExitCode {
    trial::main(
        "probe",
        &[
            ("an_answer_is_read_however_it_is_framed", an_answer_is_read_however_it_is_framed),
            ("what_comes_instead_of_an_answer_is_told_apart", what_comes_instead_of_an_answer_is_told_apart),
            ("a_ping_is_answered_or_not", a_ping_is_answered_or_not),
            ("what_is_shown_in_a_handshake_is_reported", what_is_shown_in_a_handshake_is_reported),
            ("a_load_counts_what_was_lost_and_for_how_long", a_load_counts_what_was_lost_and_for_how_long),
            ("a_load_sends_again_on_a_kept_connection_that_ended", a_load_sends_again_on_a_kept_connection_that_ended),
            ("a_site_without_gates_fails_where_gates_are_missing", a_site_without_gates_fails_where_gates_are_missing),
            ("a_row_passes_with_the_right_answer_alone", a_row_passes_with_the_right_answer_alone),
            ("a_home_that_lets_the_internet_in_fails", a_home_that_lets_the_internet_in_fails),
        ],
    )
}

const SEED: &str = include_str!("../../../examples/home/site.yaml");
/// For what comes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(200);

fn seed() -> Topology {
    let (site, findings) = parse::site::site("site.yaml", SEED);
    topology::build(&site.unwrap_or_else(|| panic!("{findings:#?}")), dualgate_lab::rehearsal::Tunnel::StandIn).unwrap()
}

fn world(topology: Topology, directory: &Path) -> World {
    World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Puts the internal gate's addresses on a node, as no node of these worlds runs anything that would take them.
fn hold_virtual_ips(world: &World) {
    let hold = || {
        let mut network = Network::open()?;
        ["192.168.178.10/32", "fda8:a1db:5685::10/128"]
            .into_iter()
            .try_for_each(|address| network.add_address("eth0", address.parse().expect("an address"), Use::Answer))
    };
    world.host("k3s-node1").unwrap().run(hold).unwrap();
}

/// What a responder was asked: the head of the request, and by whom.
struct Asked {
    head: String,
    peer: SocketAddr,
}

/// Answers every connection in a host: one answer for each head that comes, until there is none.
fn respond(
    host: &Namespace,
    at: &str,
    answer: impl Fn(&Asked) -> Option<String> + Send + Sync + 'static,
) -> SocketAddr {
    let at: SocketAddr = at.parse().unwrap();
    let listener = host.run(move || TcpListener::bind(at)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Asked) -> Option<String>) {
    let peer = stream.peer_addr().unwrap();
    let (mut read, mut space) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut space) {
        read.extend_from_slice(&space[..count]);
        if read.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
            let Some(answer) = answer(&Asked { head, peer }) else { return };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn with_length(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn an_answer_is_read_however_it_is_framed(directory: &Path) {
    let world = world(seed(), directory);
    let (client, node) = (world.host("lan-client").unwrap(), world.host("k3s-node1").unwrap());
    let at = respond(&node, "192.168.178.5:0", |asked| {
        Some(match asked.head.split(' ').nth(1).unwrap() {
            "/length" => with_length("200 OK", "hello"),
            "/chunked" => {
                let head = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nX-Pod: p\r\n\r\n";
                format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{head}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
            }
            "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            path => panic!("{path}"),
        })
    });
    let closing = respond(&node, "192.168.178.5:0", {
        let once = AtomicBool::new(false);
        move |_| (!once.swap(true, Ordering::Relaxed)).then(|| "HTTP/1.0 200 OK\r\n\r\nhello".to_owned())
    });
    let request = Request::new(at, "grafana.example.org");
    let mut connection = Connection::open(&client, &request, PATIENCE).unwrap();
    for (path, status, body) in [("/length", 200, "hello"), ("/chunked", 201, "hello"), ("/empty", 204, "")] {
        let answer = connection.get(&request.clone().path(path), PATIENCE).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
        assert_eq!(answer.local.ip(), "192.168.178.50".parse::<IpAddr>().unwrap());
        assert_eq!(answer.field("x-pod"), (path == "/chunked").then_some("p"));
        assert!(connection.keeps(), "{path}");
    }
    // Without a length it ends with the connection: here, never.
    let until_close = Request::new(closing, "x");
    assert_eq!(probe::get(&client, &until_close, SHORT), Err(Trouble::Silent(SHORT.as_millis())));
}

fn what_comes_instead_of_an_answer_is_told_apart(directory: &Path) {
    let world = world(seed(), directory);
    let host = |name: &str| world.host(name).unwrap();
    let (client, node) = (host("lan-client"), host("k3s-node1"));
    let get = |at: SocketAddr| probe::get(&client, &Request::new(at, "x"), PATIENCE).map(|answer| answer.status);
    let closed = "192.168.178.5:7".parse().unwrap();
    assert_eq!(probe::tcp(&client, closed, PATIENCE), Err(Trouble::Refused));
    assert_eq!(get(closed), Err(Trouble::Refused));
    let nowhere = "192.168.178.99:80".parse().unwrap();
    assert_eq!(probe::tcp(&client, nowhere, SHORT), Err(Trouble::Silent(200)));
    let internet = host("internet-client");
    let private = "192.168.178.5:80".parse().unwrap();
    assert!(matches!(probe::tcp(&internet, private, PATIENCE), Err(Trouble::Unreachable(_))));
    assert_eq!(get(respond(&node, "192.168.178.5:0", |_| None)), Err(Trouble::Ended));
    let garbage = respond(&node, "192.168.178.5:0", |_| Some("SSH-2.0-OpenSSH\r\n\r\n".to_owned()));
    assert!(matches!(get(garbage), Err(Trouble::Broken(_))));
    assert_eq!(probe::tcp(&client, garbage, PATIENCE), Ok(()));
    // Nobody listens where a host has no address: that says nothing about the way.
    let foreign: IpAddr = "192.168.178.6".parse().unwrap();
    assert!(matches!(probe::dial(&client, &node, foreign, PATIENCE), Err(Trouble::Failed(_))));
    let dialled = probe::dial(&client, &node, "192.168.178.5".parse().unwrap(), PATIENCE).unwrap();
    assert_eq!(dialled.local, dialled.peer);
    let outward = probe::dial(&client, &internet, "198.51.100.7".parse().unwrap(), PATIENCE).unwrap();
    assert_eq!(
        (outward.local.ip(), outward.peer.ip()),
        ("192.168.178.50".parse().unwrap(), "192.0.2.1".parse().unwrap())
    );
}

fn a_ping_is_answered_or_not(directory: &Path) {
    let world = world(seed(), directory);
    let client = world.host("lan-client").unwrap();
    for address in ["192.168.178.5", "fda8:a1db:5685::5", "192.168.178.1"] {
        let took =
            probe::ping(&client, address.parse().unwrap(), PATIENCE).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert!(took < PATIENCE);
    }
    for address in ["192.168.178.99", "fda8:a1db:5685::99"] {
        assert_eq!(probe::ping(&client, address.parse().unwrap(), SHORT), Err(Trouble::Silent(200)), "{address}");
    }
    let internet = world.host("internet-client").unwrap();
    let there = |address: &str| probe::ping(&internet, address.parse().unwrap(), PATIENCE);
    assert!(there("203.0.113.10").is_ok() && there("2001:db8:1::10").is_ok());
    // Without net/ipv4/ping_group_range nothing is known about the network.
    let bare = Namespace::new("bare", || Ok(())).unwrap();
    assert!(matches!(probe::ping(&bare, "192.168.178.5".parse().unwrap(), SHORT), Err(Trouble::Failed(_))));
}

fn what_is_shown_in_a_handshake_is_reported(directory: &Path) {
    let world = world(seed(), directory);
    let (client, node) = (world.host("lan-client").unwrap(), world.host("k3s-node1").unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["grafana.example.org".to_owned(), "*.home.arpa".to_owned()];
    let made = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
    let der = made.der().to_vec();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![made.der().clone()], key).unwrap());
    let listener = node.run(|| TcpListener::bind("192.168.178.5:443")).unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = rustls::ServerConnection::new(config).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        let mut space = [0; 4096];
        let count = stream.read(&mut space).unwrap();
        stream.write_all(with_length("200 OK", "over TLS").as_bytes()).unwrap();
        let name = stream.conn.server_name().map(str::to_owned);
        (name, String::from_utf8_lossy(&space[..count]).into_owned())
    });
    let answer = probe::get(&client, &Request::new(at, "grafana.example.org").over_tls(), PATIENCE).unwrap();
    let (name, head) = server.join().unwrap();
    assert_eq!(name.as_deref(), Some("grafana.example.org"));
    assert!(head.contains("Host: grafana.example.org\r\n"), "{head}");
    let shown = answer.certificate.as_ref().unwrap();
    assert_eq!((answer.text().as_str(), shown.self_signed, &shown.names, &shown.der), ("over TLS", true, &names, &der));
    assert!(shown.speaks_for("grafana.example.org") && shown.speaks_for("x.home.arpa"));
    assert!(!shown.speaks_for("example.org") && !shown.speaks_for("x.y.home.arpa"));
    // Plain HTTP on the port of TLS is no handshake.
    let plain = respond(&node, "192.168.178.5:0", |_| None);
    assert!(probe::get(&client, &Request::new(plain, "x").over_tls(), PATIENCE).is_err());
}

fn a_load_counts_what_was_lost_and_for_how_long(directory: &Path) {
    let world = world(seed(), directory);
    let (client, node) = (world.host("lan-client").unwrap(), world.host("k3s-node1").unwrap());
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let at = respond(&node, "192.168.178.5:0", move |_| {
        let down = is_broken.load(Ordering::Relaxed);
        Some(if down { with_length("503 No", "") } else { with_length("200 OK", r#"{"pod": "grafana-1"}"#) })
    });
    for connections in [Connections::Fresh, Connections::Kept(2)] {
        let load = Load {
            request: Request::new(at, "x"),
            pace: Duration::from_millis(5),
            connections,
            patience: PATIENCE,
            at_most: Duration::from_secs(20),
        };
        let running = load.start(client.clone());
        until(|| running.so_far().answered >= 20);
        assert_eq!(running.so_far().failed, 0, "{}", running.so_far());
        broken.store(true, Ordering::Relaxed);
        until(|| running.so_far().failed >= 20);
        broken.store(false, Ordering::Relaxed);
        let before = running.so_far().answered;
        until(|| running.so_far().answered >= before + 5);
        let loss = running.stop();
        assert_eq!(loss.sent, loss.answered + loss.failed);
        assert_eq!(loss.failures[0].why, "status 503");
        assert_eq!(loss.pods.get("grafana-1"), Some(&loss.answered));
        assert!(loss.longest_gap >= Duration::from_millis(5) * 19 && loss.longest_gap < loss.ran, "{loss}");
        assert!(loss.slowest > Duration::ZERO && loss.slowest < PATIENCE, "{loss}");
        assert_eq!(loss.sent_again, 0);
    }
    let alone = Load {
        request: Request::new("192.168.178.5:7".parse().unwrap(), "x"),
        pace: Duration::from_millis(5),
        connections: Connections::Fresh,
        patience: PATIENCE,
        at_most: Duration::from_millis(50),
    };
    let running = alone.start(client);
    until(|| running.so_far().failed + running.so_far().not_sent == 10);
    let loss = running.stop();
    assert_eq!((loss.sent, loss.answered, loss.failures.len()), (loss.failed, 0, loss.failed.min(8) as usize));
    assert!(loss.failed > 0, "{loss:?}");
    assert_eq!(loss.longest_gap, loss.ran, "never a success");
}

fn a_load_sends_again_on_a_kept_connection_that_ended(directory: &Path) {
    let world = world(seed(), directory);
    let (client, node) = (world.host("lan-client").unwrap(), world.host("k3s-node1").unwrap());
    let turn = std::sync::atomic::AtomicU32::new(0);
    // Every third request ends its connection without an answer.
    let at = respond(&node, "192.168.178.5:0", move |_| {
        (turn.fetch_add(1, Ordering::Relaxed) % 3 != 2).then(|| with_length("200 OK", ""))
    });
    let load = Load {
        request: Request::new(at, "x"),
        pace: Duration::from_millis(2),
        connections: Connections::Kept(1),
        patience: PATIENCE,
        at_most: Duration::from_secs(20),
    };
    let running = load.start(client);
    until(|| running.so_far().sent_again >= 3);
    let loss = running.stop();
    assert_eq!((loss.failed, loss.sent), (0, loss.answered), "{loss}");
}

#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Two applications; only Grafana is public. Names and addresses of the pods are those of the case's Services.
const APPLICATIONS: &str = "\
== services
apps/grafana 80
apps/paperless 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: grafana, namespace: apps, annotations: {dualgate.dev/gates: 'internal,external'}}
spec:
  rules:
  - host: grafana.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: grafana, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: paperless, namespace: apps}
spec:
  rules:
  - host: paperless.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: paperless, port: {number: 80}}}}]}
";

fn snapshot() -> Snapshot {
    let case = Case::parse("applications", APPLICATIONS).unwrap();
    let mut snapshot = case.snapshot(Families::Both).unwrap();
    let site = SEED.replace("yourdomain.com", "example.org");
    snapshot.site = Arc::new(parse::site::site("site.yaml", &site).0.unwrap());
    snapshot
}

fn look(world: &World) -> Vec<Check> {
    let planned = checks::plan(world.topology(), &snapshot());
    let started = Instant::now();
    let checks = checks::look(&planned, &|name| world.host(name));
    println!("looked at {} rows in {:?}", checks.len(), started.elapsed());
    for check in &checks {
        println!("{}: {:?} {:?}", check.id, check.v4, check.v6);
    }
    checks
}

fn row<'a>(checks: &'a [Check], id: &str) -> [&'a Verdict; 2] {
    let check = checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no row {id}"));
    [&check.v4, &check.v6]
}

#[track_caller]
fn passes(checks: &[Check], id: &str) {
    for verdict in row(checks, id) {
        assert!(matches!(verdict, Verdict::Pass(_)), "{id}: {verdict:?}");
    }
}

#[track_caller]
fn fails(checks: &[Check], id: &str, because: &str) {
    for verdict in row(checks, id) {
        assert!(matches!(verdict, Verdict::Fail(why) if why.contains(because)), "{id}: {verdict:?}");
    }
}

fn a_site_without_gates_fails_where_gates_are_missing(directory: &Path) {
    let world = world(seed(), directory);
    // Somebody has the addresses, and nobody listens there.
    hold_virtual_ips(&world);
    let checks = look(&world);
    for id in ["lan/nodes", "lan/router", "uplink/home", "shut/home", "edge/nodes"] {
        passes(&checks, id);
    }
    for id in ["ready/k3s-node1", "ready/ionos"] {
        fails(&checks, id, "`dualgate run` does not answer");
    }
    for id in ["home/grafana.example.org", "home-https/paperless.example.org", "internet/grafana.example.org"] {
        fails(&checks, id, "refused; nobody listens there");
    }
    fails(&checks, "stays-home/paperless.example.org", "refused");
    fails(&checks, "certificate/grafana.example.org", "refused");
    fails(&checks, "edge/pods", "look at the pod grafana-1");
    fails(&checks, "firewall", "it must not");
    for verdict in row(&checks, "virtual-ips") {
        assert!(matches!(verdict, Verdict::Fail(why) if why.contains("whoever has")), "{verdict:?}");
    }
    for verdict in row(&checks, "tunnel") {
        assert!(matches!(verdict, Verdict::NotBuilt(_)), "{verdict:?}");
    }
    // Nobody answers, so that it is not known either what is not told.
    for id in ["names/home", "names/internet", "names/stay-home"] {
        for verdict in row(&checks, id) {
            assert!(matches!(verdict, Verdict::Fail(_)), "{id}: {verdict:?}");
        }
    }
    world.switch_off("k3s-node2").unwrap();
    let checks = look(&world);
    fails(&checks, "lan/nodes", "k3s-node2 is off");
    fails(&checks, "ready/k3s-node2", "k3s-node2 is off; `dualgate lab heal k3s-node2`");
    fails(&checks, "edge/nodes", "k3s-node2 is off");
    passes(&checks, "shut/home");
}

/// What a gate would answer: an echo of `pod`, or 404 for hosts that it does not know.
fn gate(asked: &Asked, known: &[(&str, &str)], client: Option<&str>) -> String {
    let host = asked.head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
    let own = asked.peer.ip().to_string();
    match known.iter().find(|(name, _)| *name == host) {
        Some((_, pod)) => {
            let client = client.unwrap_or(&own);
            with_length("200 OK", &format!(r#"{{"pod": "{pod}", "node": "k3s-node3", "client": "{client}"}}"#))
        }
        None => with_length("404 Not Found", "not found\n"),
    }
}

fn a_row_passes_with_the_right_answer_alone(directory: &Path) {
    let world = world(seed(), directory);
    hold_virtual_ips(&world);
    let (node, edge) = (world.host("k3s-node1").unwrap(), world.host("ionos").unwrap());
    let home = [("grafana.example.org", "grafana-1"), ("paperless.example.org", "paperless-1")];
    for at in ["192.168.178.10:80", "[fda8:a1db:5685::10]:80"] {
        respond(&node, at, move |asked| Some(gate(asked, &home, None)));
    }
    let leaky = Arc::new(AtomicBool::new(false));
    for at in ["203.0.113.10:80", "[2001:db8:1::10]:80", "203.0.113.10:443", "[2001:db8:1::10]:443"] {
        let leaky = leaky.clone();
        respond(&edge, at, move |asked| {
            let known = if leaky.load(Ordering::Relaxed) { &home[..] } else { &home[..1] };
            Some(gate(asked, known, leaky.load(Ordering::Relaxed).then_some("192.168.178.201")))
        });
    }
    for at in ["127.0.0.1:9180", "[::1]:9180"] {
        respond(&node, at, |_| Some(with_length("200 OK", "ready\n")));
        respond(&edge, at, |_| Some(with_length("503 Service Unavailable", "not ready: no plan\n")));
    }
    let checks = look(&world);
    passes(&checks, "ready/k3s-node1");
    fails(&checks, "ready/ionos", "not ready: no plan");
    passes(&checks, "home/paperless.example.org");
    passes(&checks, "internet/grafana.example.org");
    let told = "200 from grafana-1 on k3s-node3, told 192.168.178.50".to_owned();
    assert_eq!(row(&checks, "home/grafana.example.org")[0], &Verdict::Pass(told));
    // The responder on port 443 speaks no TLS: a row that asks there is not satisfied with the port being open.
    fails(&checks, "internet-https/grafana.example.org", "443: ");
    fails(&checks, "stays-home/paperless.example.org", ":443: ");
    leaky.store(true, Ordering::Relaxed);
    let checks = look(&world);
    fails(&checks, "stays-home/paperless.example.org", "it should not be public");
    fails(&checks, "internet/grafana.example.org", "told 192.168.178.201 and not");
    passes(&checks, "home/grafana.example.org");
}

fn a_home_that_lets_the_internet_in_fails(directory: &Path) {
    let mut topology = seed();
    for host in topology.hosts.iter_mut().filter(|host| host.name == "router" || host.name == "carrier") {
        host.filter = Filter::Open;
    }
    let checks = look(&world(topology, directory));
    let [v4, v6] = row(&checks, "shut/home");
    assert!(
        matches!(v6, Verdict::Fail(why) if why.contains("internet-client to k3s-node1") && why.contains("a connection; it must not")),
        "{v6:?}"
    );
    assert!(matches!(v4, Verdict::Pass(_)), "private addresses lead nowhere: {v4:?}");
    let [v4, v6] = row(&checks, "uplink/home");
    assert!(matches!(v4, Verdict::Fail(_)), "nobody translates: {v4:?}");
    assert!(matches!(v6, Verdict::Pass(_)), "{v6:?}");
}
