//! Datagrams of Services: who answers whom, servers that are away, bounds, and plans that change meanwhile.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dualgate_core::model::Dual;
use dualgate_core::model::site::ProxySettings;
use dualgate_core::plan::forward::{Forward, Transport};
use support::service::{Forwarder, LOOPBACKS, forward, free, udp_echo};
use support::{PATIENCE, dual, until};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn udp(listen: &[SocketAddr], servers: &[SocketAddr]) -> Forward {
    let servers: Vec<_> = servers.iter().copied().map(dual).collect();
    forward("dns", Transport::Udp, listen, &servers)
}

/// A client that hears only the address that it asks.
async fn client(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    client_at(from, to).await
}

async fn client_at(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// What comes back; `None` if nothing does for a while.
async fn heard(client: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut space = vec![0; 65_535];
    let length = timeout(patience, client.recv(&mut space)).await.ok()?.unwrap();
    Some(space[..length].to_vec())
}

/// The name of the server that sends `text` back.
async fn ask(client: &UdpSocket, text: &str) -> String {
    client.send(text.as_bytes()).await.unwrap();
    let answer = String::from_utf8(heard(client, PATIENCE).await.expect("no answer")).unwrap();
    answer.strip_suffix(text).unwrap_or_else(|| panic!("`{answer}` does not end with `{text}`")).to_owned()
}

const A_WHILE: Duration = Duration::from_millis(150);

#[tokio::test]
async fn clients_and_servers_of_every_pair_of_families_hear_each_other() {
    let (v4, v6) = (udp_echo("127.0.0.1:0", "four ").await, udp_echo("[::1]:0", "six ").await);
    let addresses = LOOPBACKS.map(free);
    for (servers, names) in [
        (Dual::V4(v4), ["four ", "four "]),
        (Dual::V6(v6), ["six ", "six "]),
        // Of a server with both, the client's own family.
        (Dual::Both { v4, v6 }, ["four ", "six "]),
    ] {
        for listen in [&addresses[..1], &addresses[1..], &addresses[..]] {
            let _forwarder = Forwarder::start(&[forward("dns", Transport::Udp, listen, &[servers.into()])]).await;
            for address in listen {
                let client = client(*address).await;
                for _ in 0..3 {
                    assert_eq!(ask(&client, "hello").await, names[usize::from(address.is_ipv6())]);
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let listen = ["127.0.0.2:0", "127.0.0.3:0"].map(free);
    let server = udp_echo("127.0.0.1:0", "a").await;
    let _forwarder = Forwarder::start(&[udp(&listen, &[server])]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for address in listen.iter().cycle().take(6) {
        client.send_to(b"x", address).await.unwrap();
        let (_, from) = timeout(PATIENCE, client.recv_from(&mut [0; 9])).await.unwrap().unwrap();
        assert_eq!(from, *address);
    }
}

#[tokio::test]
async fn datagrams_of_every_size_stay_whole_and_single() {
    for address in LOOPBACKS {
        let (listen, server) = (free(address), udp_echo(address, "").await);
        let _forwarder = Forwarder::start(&[udp(&[listen], &[server])]).await;
        let client = client(listen).await;
        for size in [1, 0, 512, 1232, 1472, 1500, 9000, 0, 65_000] {
            let datagram: Vec<u8> = (0..size).map(|at: usize| (at * 31 + size) as u8).collect();
            client.send(&datagram).await.unwrap();
            assert_eq!(heard(&client, PATIENCE).await, Some(datagram), "{size}");
        }
    }
}

#[tokio::test]
async fn clients_spread_over_servers_and_each_stays_where_it_is() {
    let listen = free("127.0.0.1:0");
    let servers = [udp_echo("127.0.0.1:0", "a").await, udp_echo("127.0.0.1:0", "b").await];
    let mut forwarder = Forwarder::start_with(&[udp(&[listen], &servers)], ProxySettings::default(), 2).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let client = client(listen).await;
        clients.push((ask(&client, "x").await, client));
    }
    let of_a = clients.iter().filter(|(name, _)| name == "a").count();
    assert!((5..=35).contains(&of_a), "{of_a} of 40");
    assert_eq!(forwarder.active(), 40);
    // Another order of the same servers, and another process: whoever asks is sent to the same one.
    let mut reversed = udp(&[listen], &servers);
    reversed.servers.reverse();
    forwarder.change(&[reversed.clone()]).await;
    for (name, client) in &clients {
        assert_eq!(ask(client, "x").await, *name);
    }
    let mut new = Forwarder::idle(2);
    new.proxy.inherit(forwarder.proxy.sockets().copies());
    new.change(&[reversed]).await;
    forwarder.proxy.drain(Duration::from_millis(100)).await;
    for (name, client) in &clients {
        assert_eq!(ask(client, "x").await, *name);
    }
    assert_eq!(new.active(), 40);
}

#[tokio::test]
async fn affinity_is_of_the_address_whatever_the_port() {
    let listen = free("127.0.0.1:0");
    let servers = [udp_echo("127.0.0.1:0", "a").await, udp_echo("127.0.0.1:0", "b").await];
    let mut plan = udp(&[listen], &servers);
    plan.client_affinity = Some(Duration::from_secs(60));
    let _forwarder = Forwarder::start(&[plan]).await;
    let mut names = Vec::new();
    for number in 20..50 {
        let from = format!("127.0.0.{number}:0");
        let name = ask(&client_at(&from, listen).await, "x").await;
        for _ in 0..4 {
            assert_eq!(ask(&client_at(&from, listen).await, "x").await, name, "{from}");
        }
        names.push(name);
    }
    assert!(names.iter().any(|name| name == "a") && names.iter().any(|name| name == "b"), "{names:?}");
}

#[tokio::test]
async fn after_a_server_refused_the_next_datagram_goes_to_another_one() {
    for address in LOOPBACKS {
        let listen = free(address);
        let servers = [free(address), udp_echo(address, "well").await];
        let forwarder = Forwarder::start(&[udp(&[listen], &servers)]).await;
        let mut lost = 0;
        for _ in 0..20 {
            let client = client(listen).await;
            while {
                client.send(b"x").await.unwrap();
                heard(&client, A_WHILE).await.is_none()
            } {
                lost += 1;
                assert!(lost < 10, "clients go on to be sent to a server that is not there");
            }
        }
        assert!(lost <= 2, "{lost} datagrams went to a server that is not there");
        assert_eq!(forwarder.refused("no-endpoints"), 0);
    }
}

#[tokio::test]
async fn a_client_is_moved_when_its_server_goes_and_dropped_while_there_is_none() {
    let listen = free("[::1]:0");
    let servers = [udp_echo("[::1]:0", "a").await, udp_echo("[::1]:0", "b").await];
    let mut forwarder = Forwarder::start(&[udp(&[listen], &servers)]).await;
    let client = client(listen).await;
    let first = ask(&client, "x").await;
    let mut plan = udp(&[listen], &servers);
    plan.servers.retain(|server| *server.id != *format!("dns-{}", usize::from(first == "b")));
    forwarder.change(&[plan]).await;
    assert_ne!(ask(&client, "x").await, first);
    forwarder.change(&[udp(&[listen], &[])]).await;
    client.send(b"x").await.unwrap();
    assert_eq!(heard(&client, A_WHILE).await, None);
    assert_eq!((forwarder.refused("no-endpoints"), forwarder.active()), (1, 0));
    forwarder.change(&[udp(&[listen], &servers)]).await;
    ask(&client, "x").await;
}

#[tokio::test]
async fn nobody_but_the_server_that_was_asked_can_answer() {
    let (listen, server) = (free("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let _forwarder = Forwarder::start(&[udp(&[listen], &[server.local_addr().unwrap()])]).await;
    let client = client(listen).await;
    client.send(b"question").await.unwrap();
    let (_, asked_from) = timeout(PATIENCE, server.recv_from(&mut [0; 9])).await.unwrap().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(b"forged", asked_from).await.unwrap();
    server.send_to(b"answer", asked_from).await.unwrap();
    assert_eq!(heard(&client, PATIENCE).await.unwrap(), b"answer");
    assert_eq!(heard(&client, A_WHILE).await, None);
}

#[tokio::test]
async fn one_forwarded_address_does_not_speak_with_another_for_ever() {
    let listen = ["127.0.0.2:0", "127.0.0.3:0"].map(free);
    let server = udp_echo("127.0.0.1:0", "").await;
    let plan = [
        forward("one", Transport::Udp, &listen[..1], &[dual(server)]),
        forward("two", Transport::Udp, &listen[1..], &[dual(server)]),
    ];
    let forwarder = Forwarder::start(&plan).await;
    // As if it came from the other Service.
    let forger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    forger.set_reuse_port(true).unwrap();
    forger.bind(&listen[0].into()).unwrap();
    forger.send_to(b"hello", &listen[1].into()).unwrap();
    until(|| forwarder.refused("source-range") == 1).await;
    assert_eq!(forwarder.metric("dualgate_service_connections_total", &[]), 0);
}

#[tokio::test]
async fn only_clients_of_the_source_ranges_are_heard() {
    let listen = LOOPBACKS.map(free);
    let server = udp_echo("127.0.0.1:0", "a").await;
    let mut plan = udp(&listen, &[server]);
    plan.source_ranges = vec!["127.0.0.8/29".parse().unwrap()];
    let forwarder = Forwarder::start(&[plan]).await;
    assert_eq!(ask(&client_at("127.0.0.8:0", listen[0]).await, "x").await, "a");
    for (from, to) in [("127.0.0.16:0", listen[0]), ("[::1]:0", listen[1])] {
        let client = client_at(from, to).await;
        client.send(b"x").await.unwrap();
        assert_eq!(heard(&client, A_WHILE).await, None, "{from}");
    }
    assert_eq!(forwarder.refused("source-range"), 2);
}

#[tokio::test]
async fn flows_are_bounded_and_who_was_answered_outlives_who_was_not() {
    let listen = ["127.0.0.1:0", "127.0.0.1:0"].map(free);
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let plan = [
        forward("answers", Transport::Udp, &listen[..1], &[dual(udp_echo("127.0.0.1:0", "a").await)]),
        forward("silent", Transport::Udp, &listen[1..], &[dual(silent.local_addr().unwrap())]),
    ];
    let settings = ProxySettings { max_connections: 10, ..ProxySettings::default() };
    let forwarder = Forwarder::start_with(&plan, settings, 1).await;
    let answers = ["service=\"apps/answers\""];
    let active = |service: &[&str]| forwarder.metric("dualgate_service_connections_active", service);
    let mut served = Vec::new();
    for _ in 0..4 {
        let client = client(listen[0]).await;
        ask(&client, "x").await;
        served.push(client);
    }
    for number in 1..=30 {
        client(listen[1]).await.send(b"x").await.unwrap();
        until(|| forwarder.metric("dualgate_service_connections_total", &["apps/silent"]) == number).await;
    }
    assert_eq!((forwarder.active(), active(&answers)), (10, 4));
    assert_eq!(forwarder.metric("dualgate_service_flows_evicted_total", &["apps/silent"]), 24);
    // Among equals the one goes that rested longest: that is the second once the first has asked again.
    ask(&served[0], "x").await;
    let mut later = Vec::new();
    for _ in 0..9 {
        let client = client(listen[0]).await;
        ask(&client, "x").await;
        later.push(client);
    }
    let begun = forwarder.metric("dualgate_service_connections_total", &answers);
    ask(&served[0], "x").await;
    assert_eq!(forwarder.metric("dualgate_service_connections_total", &answers), begun, "it has kept its flow");
    ask(&served[1], "x").await;
    assert_eq!(forwarder.metric("dualgate_service_connections_total", &answers), begun + 1);
    assert_eq!((forwarder.active(), active(&answers)), (10, 10));
}

#[tokio::test]
async fn thousands_of_flows_are_kept_apart() {
    const CLIENTS: u64 = 3000;
    let descriptors = dualgate_host::raise_descriptor_limit();
    if descriptors < CLIENTS * 2 {
        eprintln!("SKIPPED: service_udp::thousands_of_flows_are_kept_apart: only {descriptors} file descriptors");
        return;
    }
    let (listen, server) = (free("127.0.0.1:0"), udp_echo("127.0.0.1:0", "").await);
    let forwarder = Forwarder::start_with(&[udp(&[listen], &[server])], ProxySettings::default(), 2).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(listen).await);
    }
    for round in 0..2 {
        for (number, client) in clients.iter().enumerate() {
            let text = format!("{round} {number}");
            assert_eq!(ask(client, &text).await, "");
        }
        assert_eq!(forwarder.active(), CLIENTS);
    }
    assert_eq!(forwarder.metric("dualgate_service_flows_evicted_total", &[]), 0);
}

#[tokio::test]
async fn a_service_that_goes_falls_silent_and_one_that_comes_back_answers_at_once() {
    let (listen, server) = (free("127.0.0.1:0"), udp_echo("127.0.0.1:0", "a").await);
    let plan = [udp(&[listen], &[server])];
    let mut forwarder = Forwarder::start_with(&plan, ProxySettings::default(), 2).await;
    for _ in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..10 {
            let client = client(listen).await;
            assert_eq!(ask(&client, "x").await, "a");
            clients.push(client);
        }
        forwarder.change(&[]).await;
        until(|| std::net::UdpSocket::bind(listen).is_ok()).await;
        forwarder.change(&plan).await;
        for client in &clients {
            // What was sent while nobody listened came back as an error.
            let _ = client.take_error();
            assert_eq!(ask(client, "x").await, "a");
        }
    }
}

#[tokio::test]
async fn a_worker_that_ends_waits_a_moment_for_answers_and_not_for_flows_that_rest() {
    let (listen, server) = (free("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let mut forwarder = Forwarder::start(&[udp(&[listen], &[server.local_addr().unwrap()])]).await;
    let (asks, rests) = (client(listen).await, client(listen).await);
    let mut peers = Vec::new();
    for client in [&rests, &asks] {
        client.send(b"question").await.unwrap();
        peers.push(timeout(PATIENCE, server.recv_from(&mut [0; 9])).await.unwrap().unwrap().1);
    }
    server.send_to(b"answer", peers[0]).await.unwrap();
    assert_eq!(heard(&rests, PATIENCE).await.unwrap(), b"answer");
    let start = Instant::now();
    let draining = forwarder.proxy.drain(Duration::from_secs(10));
    let answering = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.send_to(b"answer", peers[1]).await.unwrap();
        heard(&asks, PATIENCE).await
    };
    let (left, heard) = tokio::join!(draining, answering);
    assert_eq!((left, heard.as_deref()), (0, Some(&b"answer"[..])));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn plans_change_under_load_without_a_lost_answer() {
    let listen = LOOPBACKS.map(free);
    let servers = [udp_echo("127.0.0.1:0", "a").await, udp_echo("[::1]:0", "b").await];
    let mut forwarder = Forwarder::start_with(&[udp(&listen, &servers)], ProxySettings::default(), 2).await;
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (done, asked, address) = (done.clone(), asked.clone(), listen[number % 2]);
            tokio::spawn(async move {
                let kept = client(address).await;
                while !done.load(Relaxed) {
                    ask(&kept, "hello").await;
                    ask(&client(address).await, "hello").await;
                    asked.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let other = free("127.0.0.1:0");
    for round in 0..60_usize {
        let mut plan = vec![udp(&listen, &servers)];
        plan[0].servers.rotate_left(round % 2);
        plan[0].servers.truncate(1 + usize::from(round % 5 != 0));
        if round % 3 == 0 {
            plan.insert(0, forward("other", Transport::Udp, &[other], &[dual(servers[0])]));
        }
        forwarder.change(&plan).await;
        let before = asked.load(Relaxed);
        until(|| asked.load(Relaxed) > before + 4).await;
    }
    done.store(true, Relaxed);
    for client in clients {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
}
