//! TLS through real sockets: which certificate, which version, what happens when the handshake goes wrong, and that
//! bodies pass as they do without it.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use dualgate_core::model::site::EntryProtocol;
use dualgate_core::plan::proxy::{Certificate, Scheme, ServerAddress};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use support::tls::{Made, offer, shown, usual};
use support::{Client, Gate, Plan, Pod, Script, dual, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn plan(pod: &Pod, certificates: Vec<Certificate>) -> Plan {
    Plan { protocol: EntryProtocol::Https, certificates, ..Plan::default() }.site("a.example", &[pod.address])
}

fn over_tls(pod: &Pod) -> Vec<ServerAddress> {
    vec![ServerAddress::Sockets(dual(pod.address))]
}

#[tokio::test]
async fn both_versions_are_served_and_the_pod_is_told_of_https() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    for version in [&TLS12, &TLS13] {
        let mut client = gate.tls_client(&offer(&[version], &["http/1.1"]), "a.example").await.unwrap();
        for _ in 0..2 {
            let answer = client.get("a.example", "/").await;
            assert_eq!(answer.status(), 200);
            let told = ["X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "proto=https"];
            assert!(told.iter().all(|field| answer.body.contains(field)), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn alpn_decides_and_a_client_without_a_protocol_of_ours_is_told_so() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["x", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = gate.tls_client(&offer(rustls::ALL_VERSIONS, offered), "a.example").await.unwrap();
        let found = client.stream.get_ref().1.alpn_protocol();
        assert_eq!(found, agreed.map(str::as_bytes), "{offered:?}");
    }
    let mut without = gate.tls_client(&offer(rustls::ALL_VERSIONS, &[]), "a.example").await.unwrap();
    assert_eq!(without.get("a.example", "/").await.status(), 200);
    let refused = gate.tls_client(&offer(rustls::ALL_VERSIONS, &["x"]), "a.example").await.err().unwrap();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test]
async fn the_name_chooses_exact_before_wildcard_before_default() {
    let pod = Pod::start("one").await;
    let (exact, wildcard, elsewhere) =
        (Made::new(&["a.example"]), Made::new(&["*.example"]), Made::new(&["b.example"]));
    let certificates = vec![
        wildcard.planned(&["*.example"]),
        exact.planned(&["a.example"]),
        elsewhere.planned_at(&["b.example", "c.test"], 1),
    ];
    let gate = Gate::start(&plan(&pod, certificates)).await;
    for (name, made) in
        [("a.example", &exact), ("A.Example", &exact), ("b.example", &wildcard), ("x.example", &wildcard)]
    {
        let client = gate.tls_client(&usual(), name).await.unwrap();
        assert_eq!(shown(&client), &made.der, "{name}");
    }
    for name in ["a.b.example", "c.test", "example", "localhost", "127.0.0.1"] {
        let client = gate.tls_client(&usual(), name).await.unwrap();
        assert!(![&exact, &wildcard, &elsewhere].iter().any(|made| made.der == *shown(&client)), "{name}");
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_a_ticket() {
    let pod = Pod::start("one").await;
    let gate = Gate::start_with(&plan(&pod, vec![]), 2).await;
    for version in [&TLS12, &TLS13] {
        let config = offer(&[version], &["http/1.1"]);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut client = gate.tls_client(&config, "a.example").await.unwrap();
            client.get("a.example", "/").await;
            kinds.push(client.stream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_changed_while_connections_are_open() {
    let pod = Pod::start("one").await;
    let (old, young) = (Made::new(&["a.example"]), Made::new(&["a.example"]));
    let mut gate = Gate::start(&plan(&pod, vec![old.planned(&["a.example"])])).await;
    let mut open = gate.tls_client(&usual(), "a.example").await.unwrap();
    assert_eq!(open.get("a.example", "/").await.status(), 200);
    gate.change(&plan(&pod, vec![young.planned(&["a.example"])])).await;
    assert_eq!(open.get("a.example", "/").await.status(), 200, "an open connection goes on");
    let next = gate.tls_client(&usual(), "a.example").await.unwrap();
    assert_eq!((shown(&open), shown(&next)), (&old.der, &young.der));
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_by_its_deadline() {
    let pod = Pod::start("one").await;
    let mut plan = plan(&pod, vec![]);
    plan.settings.head_timeout = Duration::from_millis(300);
    let gate = Gate::start(&plan).await;
    let hello = client_hello();
    for sent in [0, 1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
        let begun = Instant::now();
        let mut client = gate.client().await;
        client.stream.write_all(&hello[..sent]).await.unwrap();
        client.rest().await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(3), "{sent}: {took:?}");
    }
    until(|| gate.proxy.view().open_connections() == 0).await;
}

/// The deadline is one for all of the handshake.
#[tokio::test]
async fn a_handshake_that_drips_ends_by_its_deadline() {
    let pod = Pod::start("one").await;
    let mut plan = plan(&pod, vec![]);
    plan.settings.head_timeout = Duration::from_millis(400);
    let gate = Gate::start(&plan).await;
    let begun = Instant::now();
    let mut client = gate.client().await;
    for byte in client_hello() {
        if client.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_no_tls_gets_an_alert_and_an_end() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    for garbage in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"\x80\x2e\x01\x00\x02", b"\x00\x00\x00\x00\x00\x00", &[0xff; 4000]]
    {
        let mut client = gate.client().await;
        client.stream.write_all(garbage).await.unwrap();
        let mut alert = Vec::new();
        // An end by a reset is an end, too.
        let _ = client.stream.read_to_end(&mut alert).await;
        assert!(matches!(alert.as_slice(), [] | [0x15, 3, _, 0, 2, 2, _]), "{garbage:?}: {alert:?}");
    }
    assert_eq!(gate.tls_client(&usual(), "a.example").await.unwrap().get("a.example", "/").await.status(), 200);
}

#[tokio::test]
async fn http_without_tls_is_told_what_is_spoken_here() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    let mut client = gate.client().await;
    let answer = client.get("a.example", "/").await;
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
    assert!(answer.body.contains("HTTPS"), "{answer:?}");
    assert_eq!(client.rest().await, "");
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_handshake_leaves_nothing_behind() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    let hello = client_hello();
    for sent in [1, 100, hello.len()] {
        let mut client = gate.client().await;
        client.stream.write_all(&hello[..sent]).await.unwrap();
        drop(client);
    }
    until(|| gate.proxy.view().open_connections() == 0).await;
    assert_eq!(gate.tls_client(&usual(), "a.example").await.unwrap().get("a.example", "/").await.status(), 200);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    const SIZE: usize = 20 * 1024 * 1024;
    let script = |head: &str, _| {
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        match head.starts_with("GET") {
            true => Script::default().then(&reply).then_bytes(vec![b'x'; SIZE]),
            false => Script::reply(OK),
        }
    };
    let (plain, tls) = (Pod::scripted(script).await, Pod::tls(script).await);
    let plan = plan(&plain, vec![]).site_at("b.example", Scheme::Https, over_tls(&tls));
    let gate = Gate::start(&plan).await;
    for (version, host) in [(&TLS12, "a.example"), (&TLS13, "a.example"), (&TLS13, "b.example")] {
        let mut client = gate.tls_client(&offer(&[version], &[]), host).await.unwrap();
        assert_eq!(client.get(host, "/").await.body.len(), SIZE, "{host}");
        client.send(&format!("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        client.send(&"y".repeat(SIZE)).await;
        assert_eq!(client.answer().await.body, "ok", "{host}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_pod_back() {
    const SIZE: usize = 128 * 1024 * 1024;
    let script = |_: &str, _| {
        Script::default().then(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).then_bytes(vec![0; SIZE])
    };
    let (plain, tls) = (Pod::scripted(script).await, Pod::tls(script).await);
    let plan = plan(&plain, vec![]).site_at("b.example", Scheme::Https, over_tls(&tls));
    let gate = Gate::start(&plan).await;
    for (pod, host) in [(&plain, "a.example"), (&tls, "b.example")] {
        let mut client = gate.tls_client(&usual(), host).await.unwrap();
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let mut before = u64::MAX;
        while before != pod.sent.load(Relaxed) {
            before = pod.sent.load(Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < SIZE as u64 / 2, "{before} octets are under way to {host}");
    }
}

#[tokio::test]
async fn a_pod_with_tls_keeps_its_connection() {
    let pod = Pod::tls(|_, _| Script::reply(OK)).await;
    let gate = Gate::start(&Plan::default().site_at("a.example", Scheme::Https, over_tls(&pod))).await;
    let mut client = gate.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("a.example", "/").await.body, "ok");
    }
    assert_eq!(pod.connections.load(Relaxed), 1);
}

/// Nothing was sent, so a request of any method may go elsewhere.
#[tokio::test]
async fn a_pod_whose_handshake_fails_or_stalls_is_passed_over() {
    let (plain, alive) = (Pod::start("no TLS here").await, Pod::tls(|_, _| Script::reply(OK)).await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for broken in [plain.address, silent.local_addr().unwrap()] {
        let servers = [broken, alive.address].map(|address| ServerAddress::Sockets(dual(address)));
        let mut plan = Plan::default().site_at("a.example", Scheme::Https, servers.to_vec());
        plan.settings.connect_timeout = Duration::from_millis(500);
        let gate = Gate::start(&plan).await;
        let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(gate.client().await.ask(request).await.status(), 200, "{broken}");
    }
    let mut plan = Plan::default().site("a.example", &[]).site_at(
        "b.example",
        Scheme::Https,
        vec![ServerAddress::Sockets(dual(silent.local_addr().unwrap()))],
    );
    plan.settings.connect_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    assert_eq!(gate.client().await.get("b.example", "/").await.status(), 502);
}

/// Closing with unread bytes would reset the connection, and the client would lose the answer.
#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let pod =
        Pod::scripted(|_, _| Script::default().then("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"))
            .await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    for _ in 0..10 {
        let client = gate.tls_client(&usual(), "a.example").await.unwrap();
        let (read, mut write) = tokio::io::split(client.stream);
        write.write_all(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 500000\r\n\r\n").await.unwrap();
        for _ in 0..50 {
            // It may be told to stop at any time.
            if write.write_all(&[b'x'; 10_000]).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut client = Client::over(tokio::io::join(read, write));
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.body.as_str()), (413, "big"));
    }
}

/// Each direction of a tunnel ends by itself, over TLS as without.
#[tokio::test]
async fn a_tunnel_goes_on_in_one_direction_when_the_other_has_ended() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .then_half_close()
            .then_await_octets(1_000_000)
            .then_await_end()
    })
    .await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    let mut client = gate.tls_client(&usual(), "a.example").await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(client.ask(request).await.status(), 101);
    assert_eq!(client.rest().await, "", "the pod has ended its half");
    client.stream.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
    client.stream.shutdown().await.unwrap();
    until(|| pod.ends.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn half_a_request_without_goodbye_is_none() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = Gate::start(&plan(&pod, vec![])).await;
    let mut client = gate.tls_client(&usual(), "a.example").await.unwrap();
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    until(|| pod.requests.load(Relaxed) == 1).await;
    let (mut tcp, _) = client.stream.into_inner();
    tcp.shutdown().await.unwrap();
    until(|| pod.ends.load(Relaxed) == 1).await;
}

/// The first flight of a client, as bytes.
fn client_hello() -> Vec<u8> {
    let name = "a.example".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(&usual()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
