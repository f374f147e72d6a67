//! TCP connections of Services: both families, ends and resets, servers that are away, and plans that change meanwhile.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dualgate_core::model::Dual;
use dualgate_core::model::site::ProxySettings;
use dualgate_core::plan::forward::{Forward, Transport};
use dualgate_core::seam::Actuator as _;
use dualgate_proxy::{Proxy, ProxyChange};
use socket2::{Domain, Socket, Type};
use support::service::{Forwarder, LOOPBACKS, ask_over, ask_tcp, forward, free, tcp_echo};
use support::{PATIENCE, dual, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

fn tcp(listen: &[SocketAddr], servers: &[SocketAddr]) -> Forward {
    let servers: Vec<_> = servers.iter().copied().map(dual).collect();
    forward("db", Transport::Tcp, listen, &servers)
}

/// A forward at one address of the family, to one server that the test plays.
async fn one(address: &str) -> (Forwarder, SocketAddr, TcpListener) {
    let (listen, server) = (free(address), TcpListener::bind(address).await.unwrap());
    let forwarder = Forwarder::start(&[tcp(&[listen], &[server.local_addr().unwrap()])]).await;
    (forwarder, listen, server)
}

/// Both ends of a connection through the forwarder.
async fn joined(listen: SocketAddr, server: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(TcpStream::connect(listen), server.accept());
    (client.unwrap(), server.unwrap().0)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// An address where nobody listens, whatever other tests do: it is taken for as long as this process lives.
fn nobody(address: &str) -> SocketAddr {
    let address: SocketAddr = address.parse().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(address).unwrap();
    let taken = socket.local_addr().unwrap();
    std::mem::forget(socket);
    taken
}

#[tokio::test]
async fn clients_and_servers_of_every_pair_of_families_are_joined() {
    let (v4, v6) = (tcp_echo("127.0.0.1:0", "four ").await, tcp_echo("[::1]:0", "six ").await);
    let addresses = LOOPBACKS.map(free);
    for (servers, names) in [
        (Dual::V4(v4), &["four "][..]),
        (Dual::V6(v6), &["six "]),
        (Dual::Both { v4, v6 }, &["four ", "six "]),
        (Dual::Both { v4, v6: nobody("[::1]:0") }, &["four "]),
        (Dual::Both { v4: nobody("127.0.0.1:0"), v6 }, &["six "]),
    ] {
        for listen in [&addresses[..1], &addresses[1..], &addresses[..]] {
            let forwarder = Forwarder::start(&[forward("db", Transport::Tcp, listen, &[servers.into()])]).await;
            for address in listen {
                let name = within(ask_tcp(*address, "hello")).await.unwrap();
                assert!(names.contains(&&*name), "{name} at {address} from {servers}");
            }
            drop(forwarder);
        }
    }
}

#[tokio::test]
async fn a_side_that_has_ended_is_still_sent_to() {
    for address in LOOPBACKS {
        let (forwarder, listen, server) = one(address).await;
        let body = vec![7; 3 << 20];
        for client_first in [true, false] {
            let (client, pod) = joined(listen, &server).await;
            let (mut first, mut second) = if client_first { (client, pod) } else { (pod, client) };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            let mut question = Vec::new();
            within(second.read_to_end(&mut question)).await.unwrap();
            assert_eq!(question, b"question");
            let (answer, mut received) = (body.clone(), Vec::new());
            let answering = tokio::spawn(async move {
                second.write_all(&answer).await.unwrap();
                second.shutdown().await.unwrap();
            });
            within(first.read_to_end(&mut received)).await.unwrap();
            assert_eq!(received, body);
            within(answering).await.unwrap();
        }
        until(|| forwarder.active() == 0).await;
    }
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_for_the_other() {
    for address in LOOPBACKS {
        let (forwarder, listen, server) = one(address).await;
        for client_first in [true, false] {
            let (client, pod) = joined(listen, &server).await;
            let (mut first, mut second) = if client_first { (client, pod) } else { (pod, client) };
            first.write_all(b"half a senten").await.unwrap();
            let mut read = [0; 13];
            within(second.read_exact(&mut read)).await.unwrap();
            first.set_zero_linger().unwrap();
            drop(first);
            let error = within(second.read(&mut read)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        until(|| forwarder.active() == 0).await;
    }
}

#[tokio::test]
async fn much_goes_both_ways_at_once_and_arrives_whole() {
    const LENGTH: usize = 48 << 20;
    let (forwarder, listen, server) = one("127.0.0.1:0").await;
    let (client, pod) = joined(listen, &server).await;
    let pattern = |seed: usize| move |at: usize| (at.wrapping_mul(2_654_435_761) >> 11) as u8 ^ seed as u8;
    let transfer = |stream: TcpStream, sends: usize, gets: usize| async move {
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let mut at = 0;
            while at < LENGTH {
                let chunk: Vec<u8> = (at..(at + 100_000).min(LENGTH)).map(pattern(sends)).collect();
                write.write_all(&chunk).await.unwrap();
                at += chunk.len();
            }
            write.shutdown().await.unwrap();
            write
        });
        let (mut at, mut space) = (0, vec![0; 1 << 20]);
        loop {
            let count = read.read(&mut space).await.unwrap();
            if count == 0 {
                break;
            }
            let expected = pattern(gets);
            assert!(
                space[..count].iter().enumerate().all(|(offset, octet)| *octet == expected(at + offset)),
                "at {at}"
            );
            at += count;
        }
        assert_eq!(at, LENGTH);
        sending.await.unwrap()
    };
    let ends = within(async { tokio::join!(transfer(client, 1, 2), transfer(pod, 2, 1)) }).await;
    for direction in ["in", "out"] {
        let label = format!("direction=\"{direction}\"");
        assert_eq!(forwarder.metric("dualgate_service_bytes_total", &[&label]), LENGTH as u64);
    }
    drop(ends);
    until(|| forwarder.active() == 0).await;
}

#[tokio::test]
async fn what_the_server_does_not_read_waits_at_the_client_and_arrives_later() {
    let (_forwarder, listen, server) = one("127.0.0.1:0").await;
    let (client, mut pod) = joined(listen, &server).await;
    let chunk = vec![1; 1 << 16];
    let mut sent = 0;
    // The sender's turn ends when all buffers on the way are full: nothing moves for a while.
    while let Ok(ready) = timeout(Duration::from_millis(300), client.writable()).await {
        ready.unwrap();
        match client.try_write(&chunk) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(sent < 64 << 20, "somebody takes everything");
    }
    drop(client);
    let mut received = Vec::new();
    within(pod.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received.len(), sent);
}

#[tokio::test]
async fn servers_take_turns_and_one_that_refuses_costs_nobody_a_connection() {
    for address in LOOPBACKS {
        let listen = free(address);
        let servers = [nobody(address), tcp_echo(address, "b").await, tcp_echo(address, "c").await];
        let forwarder = Forwarder::start(&[tcp(&[listen], &servers)]).await;
        let mut names = Vec::new();
        for _ in 0..12 {
            names.push(within(ask_tcp(listen, "x")).await.unwrap());
        }
        let of = |name: &str| names.iter().filter(|other| *other == name).count();
        assert!(of("b") >= 4 && of("c") >= 4 && of("b") + of("c") == 12, "{names:?}");
        assert_eq!(forwarder.refused("unreachable"), 0);
    }
}

/// A listener whose queue is full: the kernel does not answer to who comes then.
fn deaf() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        socket
    });
    let waiting = waiting.collect();
    (listener, waiting, address.as_socket().unwrap())
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_left_out_afterwards() {
    let (_listener, _waiting, deaf) = deaf();
    let (listen, server) = (free("127.0.0.1:0"), tcp_echo("127.0.0.1:0", "well").await);
    let settings = ProxySettings { connect_timeout: Duration::from_secs(2), ..ProxySettings::default() };
    let _forwarder = Forwarder::start_with(&[tcp(&[listen], &[deaf, server])], settings, 1).await;
    let start = Instant::now();
    assert_eq!(within(ask_tcp(listen, "x")).await.unwrap(), "well");
    assert!(start.elapsed() >= Duration::from_secs(2), "the first one was not tried");
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(within(ask_tcp(listen, "x")).await.unwrap(), "well");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "it is tried again at once");
}

#[tokio::test]
async fn without_a_server_a_connection_is_reset_at_once_and_counted() {
    for (servers, reason) in [(vec![], "no-endpoints"), (vec![nobody("127.0.0.1:0"), nobody("[::1]:0")], "unreachable")]
    {
        let listen = LOOPBACKS.map(free);
        let forwarder = Forwarder::start(&[tcp(&listen, &servers)]).await;
        for address in listen {
            assert!(is_reset(address).await);
        }
        assert_eq!((forwarder.refused(reason), forwarder.active()), (2, 0));
        assert_eq!(forwarder.metric("dualgate_service_connections_total", &[]), 0);
    }
}

/// Whether a connection is reset; the client may learn of it while it connects.
async fn is_reset(address: SocketAddr) -> bool {
    let reading = async { TcpStream::connect(address).await?.read(&mut [0; 1]).await };
    matches!(within(reading).await, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

/// Asks from one address of 127.0.0.0/8.
async fn ask_from(client: &str, to: SocketAddr) -> std::io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0))?;
    within(async { ask_over(socket.connect(to).await?, "x").await }).await
}

#[tokio::test]
async fn a_client_with_affinity_stays_at_its_server_while_that_is_there() {
    let listen = free("127.0.0.1:0");
    let (a, b) = (tcp_echo("127.0.0.1:0", "a").await, tcp_echo("127.0.0.1:0", "b").await);
    let with = |servers: &[SocketAddr]| {
        let mut forward = tcp(&[listen], servers);
        forward.client_affinity = Some(Duration::from_secs(600));
        forward
    };
    let mut forwarder = Forwarder::start(&[with(&[a])]).await;
    let clients: Vec<String> = (10..40).map(|number| format!("127.0.0.{number}")).collect();
    for client in &clients {
        assert_eq!(ask_from(client, listen).await.unwrap(), "a");
    }
    // Another one comes: nobody moves. It is a newcomer that is sent there.
    forwarder.change(&[with(&[a, b])]).await;
    for client in clients.iter().chain(&clients) {
        assert_eq!(ask_from(client, listen).await.unwrap(), "a");
    }
    let mut newcomers = Vec::new();
    for number in 40..80 {
        let client = format!("127.0.0.{number}");
        let name = ask_from(&client, listen).await.unwrap();
        assert_eq!(ask_from(&client, listen).await.unwrap(), name, "{client}");
        newcomers.push(name);
    }
    assert!(newcomers.iter().any(|name| name == "a") && newcomers.iter().any(|name| name == "b"), "{newcomers:?}");
    // Its server goes: a client has to move, and stays there.
    let mut left = with(&[a, b]);
    left.servers.remove(0);
    forwarder.change(&[left]).await;
    for client in clients.iter().chain(&clients) {
        assert_eq!(ask_from(client, listen).await.unwrap(), "b");
    }
}

#[tokio::test]
async fn only_clients_of_the_source_ranges_are_served() {
    let listen = LOOPBACKS.map(free);
    let server = tcp_echo("127.0.0.1:0", "a").await;
    let mut limited = tcp(&listen, &[server]);
    limited.source_ranges = vec!["127.0.0.8/29".parse().unwrap()];
    let mut forwarder = Forwarder::start(&[limited.clone()]).await;
    for (client, admitted) in [("127.0.0.8", true), ("127.0.0.15", true), ("127.0.0.16", false), ("127.0.0.7", false)] {
        let answer = ask_from(client, listen[0]).await;
        assert_eq!(answer.is_ok(), admitted, "{client}: {answer:?}");
    }
    assert!(is_reset(listen[1]).await, "no range of IPv6 is named");
    assert_eq!(forwarder.refused("source-range"), 3);
    limited.source_ranges = vec!["::1/128".parse().unwrap()];
    forwarder.change(&[limited]).await;
    assert_eq!(within(ask_tcp(listen[1], "x")).await.unwrap(), "a");
}

#[tokio::test]
async fn connections_of_services_count_against_the_most_that_there_may_be() {
    let (listen, server) = (free("127.0.0.1:0"), tcp_echo("127.0.0.1:0", "").await);
    let settings = ProxySettings { max_connections: 2, ..ProxySettings::default() };
    let forwarder = Forwarder::start_with(&[tcp(&[listen], &[server])], settings, 1).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(b"x").await.unwrap();
        within(client.read_exact(&mut [0; 1])).await.unwrap();
        held.push(client);
    }
    assert!(is_reset(listen).await);
    assert_eq!(forwarder.refused("limit"), 1);
    held.pop();
    until(|| forwarder.active() == 1).await;
    assert_eq!(within(ask_tcp(listen, "x")).await.unwrap(), "");
}

#[tokio::test]
async fn a_connection_without_an_octet_for_too_long_is_reset_on_both_sides() {
    let (listen, server) = (free("[::1]:0"), TcpListener::bind("[::1]:0").await.unwrap());
    let settings = ProxySettings { tunnel_idle_timeout: Duration::from_millis(1500), ..ProxySettings::default() };
    let _forwarder = Forwarder::start_with(&[tcp(&[listen], &[server.local_addr().unwrap()])], settings, 1).await;
    let (mut client, mut pod) = joined(listen, &server).await;
    let start = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        pod.write_all(b"x").await.unwrap();
        within(client.read_exact(&mut [0; 1])).await.unwrap();
    }
    for end in [&mut client, &mut pod] {
        let error = within(end.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert!(start.elapsed() >= Duration::from_millis(3500), "an octet did not move the deadline");
}

#[tokio::test]
async fn plans_change_under_load_without_a_lost_connection() {
    let listen = [free("127.0.0.1:0"), free("[::1]:0")];
    let servers = [tcp_echo("127.0.0.1:0", "a").await, tcp_echo("[::1]:0", "b").await];
    let mut forwarder = Forwarder::start_with(&[tcp(&listen, &servers)], ProxySettings::default(), 2).await;
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (done, asked, address) = (done.clone(), asked.clone(), listen[number % 2]);
            tokio::spawn(async move {
                // One connection lives through all plans, others come and go.
                let mut kept = TcpStream::connect(address).await.unwrap();
                kept.read_exact(&mut [0; 1]).await.unwrap();
                while !done.load(Relaxed) {
                    ask_tcp(address, "hello").await.unwrap();
                    kept.write_all(b"ping").await.unwrap();
                    kept.read_exact(&mut [0; 4]).await.unwrap();
                    asked.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let other = free("127.0.0.1:0");
    for round in 0..60_usize {
        let mut plan = vec![tcp(&listen, &servers)];
        if round % 3 == 0 {
            plan[0].servers.rotate_left(1);
        }
        if round % 2 == 0 {
            plan.insert(0, forward("other", Transport::Tcp, &[other], &[dual(servers[0])]));
        }
        if round % 5 == 0 {
            plan[0].servers.truncate(1);
        }
        forwarder.change(&plan).await;
        let before = asked.load(Relaxed);
        until(|| asked.load(Relaxed) > before + 4).await;
    }
    done.store(true, Relaxed);
    for client in clients {
        within(client).await.unwrap();
    }
    assert!(asked.load(Relaxed) > 240);
}

#[tokio::test]
async fn a_service_that_goes_is_closed_at_once_and_its_connections_end_after_the_drain_time() {
    let (listen, server) = (free("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let settings = ProxySettings { drain_timeout: Duration::from_secs(3), ..ProxySettings::default() };
    let plan = [tcp(&[listen], &[server.local_addr().unwrap()])];
    let mut forwarder = Forwarder::start_with(&plan, settings, 1).await;
    let (mut client, mut pod) = joined(listen, &server).await;
    let start = Instant::now();
    forwarder.change(&[]).await;
    until(|| std::net::TcpStream::connect(listen).is_err()).await;
    client.write_all(b"still here").await.unwrap();
    within(pod.read_exact(&mut [0; 10])).await.unwrap();
    for end in [&mut client, &mut pod] {
        let error = within(end.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert!(start.elapsed() >= Duration::from_secs(3));
    // It may come back.
    forwarder.change(&plan).await;
    joined(listen, &server).await;
}

#[tokio::test]
async fn a_successor_takes_the_sockets_over_without_a_lost_connection() {
    let (listen, server) = (free("127.0.0.1:0"), tcp_echo("127.0.0.1:0", "a").await);
    let plan = [tcp(&[listen], &[server])];
    let mut old = Forwarder::start_with(&plan, ProxySettings::default(), 2).await;
    let mut kept = TcpStream::connect(listen).await.unwrap();
    kept.read_exact(&mut [0; 1]).await.unwrap();
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ends, asks) = (done.clone(), asked.clone());
    let asking = tokio::spawn(async move {
        while !ends.load(Relaxed) {
            assert_eq!(ask_tcp(listen, "x").await.unwrap(), "a");
            asks.fetch_add(1, Relaxed);
        }
    });
    until(|| asked.load(Relaxed) > 20).await;
    let mut new = Forwarder::idle(1);
    new.proxy.inherit(old.proxy.sockets().copies());
    new.change(&plan).await;
    let draining = old.proxy.drain(Duration::from_secs(3));
    let going_on = async {
        for _ in 0..4 {
            kept.write_all(b"y").await.unwrap();
            within(kept.read_exact(&mut [0; 1])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Whoever read an end here could take what it got for all there was.
        within(kept.read(&mut [0; 1])).await.unwrap_err().kind()
    };
    let (left, ended) = tokio::join!(draining, going_on);
    assert_eq!((left, ended), (1, ErrorKind::ConnectionReset), "the kept connection");
    let before = asked.load(Relaxed);
    until(|| asked.load(Relaxed) > before + 20).await;
    done.store(true, Relaxed);
    within(asking).await.unwrap();
    assert!(old.metric("dualgate_service_connections_total", &[]) >= 20);
    assert!(new.metric("dualgate_service_connections_total", &[]) >= 20);
}

#[tokio::test]
async fn what_is_observed_is_what_is_open_and_the_rest_is_tried_again() {
    let listen = [free("127.0.0.1:0"), free("[::1]:0")];
    let server = tcp_echo("127.0.0.1:0", "a").await;
    let in_the_way = std::net::TcpListener::bind(listen[1]).unwrap();
    let mut forwarder = Forwarder::start(&[]).await;
    let plan = forwarder.plan(&[tcp(&listen, &[server])]);
    let changes = Proxy::diff(&forwarder.proxy.observe().await.unwrap(), &plan);
    let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            format!("+ forward tcp {} for Service apps/db", listen[0]),
            format!("+ forward tcp {} for Service apps/db", listen[1]),
            "~ serve 0 routes to 0 backends with 0 certificates".to_owned(),
        ]
    );
    forwarder.proxy.apply(&plan, &changes).await.unwrap();
    let observed = forwarder.proxy.observe().await.unwrap();
    assert_eq!(observed.forwards[0].listen, listen[..1]);
    assert_eq!(ask_tcp(listen[0], "x").await.unwrap(), "a");
    let [finding] = forwarder.proxy.findings() else { panic!("{:?}", forwarder.proxy.findings()) };
    let text = finding.to_string();
    assert!(text.starts_with("Service apps/db spec.ports: error[listener-failed]: listen on [::1]:"), "{text}");
    let left = Proxy::diff(&observed, &plan);
    assert!(matches!(&left[..], [ProxyChange::Forward(socket)] if socket.address == listen[1]), "{left:?}");
    drop(in_the_way);
    forwarder.proxy.apply(&plan, &left).await.unwrap();
    let observed = forwarder.proxy.observe().await.unwrap();
    assert_eq!((&*observed.forwards[0].listen, Proxy::diff(&observed, &plan).len()), (&listen[..], 0));
    assert_eq!(ask_tcp(listen[1], "x").await.unwrap(), "a");
}

#[tokio::test]
async fn hundreds_of_connections_at_a_time_are_served() {
    let (listen, server) = (free("127.0.0.1:0"), tcp_echo("127.0.0.1:0", "").await);
    let forwarder = Forwarder::start_with(&[tcp(&[listen], &[server])], ProxySettings::default(), 2).await;
    let mut clients = Vec::new();
    for number in 0..150_u8 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(&[number]).await.unwrap();
        clients.push((number, client));
    }
    for (number, client) in &mut clients {
        let mut echo = [0];
        within(client.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, [*number]);
    }
    assert_eq!(forwarder.active(), 150);
    drop(clients);
    until(|| forwarder.active() == 0).await;
    assert_eq!(forwarder.metric("dualgate_service_connections_total", &["service=\"apps/db\""]), 150);
}
