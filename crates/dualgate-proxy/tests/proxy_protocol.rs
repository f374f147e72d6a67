//! The PROXY protocol at an entry point: whom it is believed, and what becomes of the client's address.

mod support;

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use dualgate_core::model::site::EntryProtocol;
use support::tls::usual;
use support::{Client, Gate, Plan, Pod};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n";

/// An entry point at `address` that expects headers from `peers`.
async fn gate(pod: &Pod, address: IpAddr, peers: &str, trusted: &[&str]) -> Gate {
    let mut plan = Plan { address, ..Plan::default() }.site("a.example", &[pod.address]);
    plan.proxy_protocol = vec![peers.parse().unwrap()];
    plan.trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
    plan.settings.head_timeout = Duration::from_millis(500);
    Gate::start(&plan).await
}

fn loopback() -> IpAddr {
    [127, 0, 0, 1].into()
}

/// A header of version 2: command PROXY or LOCAL, family, addresses and what follows them.
fn version2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[0x20 | command, family]);
    header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend_from_slice(rest);
    header
}

fn v4() -> Vec<u8> {
    [&[198, 51, 100, 7][..], &[203, 0, 113, 1], &4711u16.to_be_bytes(), &443u16.to_be_bytes()].concat()
}

fn v6() -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("2001:db8::1"), &4711u16.to_be_bytes(), &443u16.to_be_bytes()].concat()
}

/// The value of `X-Forwarded-For` that the pod saw.
async fn seen_behind(gate: &Gate, header: &[u8]) -> String {
    let mut client = gate.client().await;
    client.stream.write_all(header).await.unwrap();
    let answer = client.ask(REQUEST).await;
    let line = answer.body.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: "));
    line.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[tokio::test]
async fn the_client_is_whom_the_header_of_a_trusted_peer_names() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "127.0.0.0/8", &[]).await;
    let extension = [0x04, 0, 3, 1, 2, 3];
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version2(1, 0x11, &v4()), "198.51.100.7"),
        (version2(1, 0x21, &v6()), "2001:db8::7"),
        (version2(1, 0x11, &[&v4()[..], &extension].concat()), "198.51.100.7"),
        (version2(0, 0, &[]), "127.0.0.1"),
    ] {
        assert_eq!(seen_behind(&gate, &header).await, client, "{header:?}");
    }
}

#[tokio::test]
async fn a_header_may_come_in_any_pieces() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "127.0.0.0/8", &[]).await;
    for header in [b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n".to_vec(), version2(1, 0x21, &v6())] {
        let mut client = gate.client().await;
        client.stream.set_nodelay(true).unwrap();
        for byte in &header {
            client.stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(client.ask(REQUEST).await.status(), 200);
    }
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_cannot_name_its_client() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "192.0.2.0/24", &[]).await;
    assert_eq!(seen_behind(&gate, b"").await, "127.0.0.1", "without a header it is a client like others");
    for header in [b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n".to_vec(), version2(1, 0x11, &v4())] {
        let mut client = gate.client().await;
        client.stream.write_all(&header).await.unwrap();
        let answer = client.ask(REQUEST).await;
        assert_eq!(answer.status(), 400, "{header:?}");
    }
    assert_eq!(pod.requests.load(Relaxed), 1);
}

#[tokio::test]
async fn a_trusted_peer_without_a_whole_header_is_not_served() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "127.0.0.0/8", &[]).await;
    let long = format!("PROXY TCP4 {} 1.1.1.1 1 2\r\n", "1".repeat(200));
    let truncated = version2(1, 0x21, &v4());
    for header in [&b""[..], b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP9 1 2 3 4\r\n", long.as_bytes(), &truncated] {
        let mut client = gate.client().await;
        client.stream.write_all(header).await.unwrap();
        client.stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let begun = Instant::now();
        assert_eq!(client.rest().await, "", "{header:?}");
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn a_header_that_stalls_or_drips_ends_by_its_deadline() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "127.0.0.0/8", &[]).await;
    let header = version2(1, 0x11, &v4());
    for sent in [0, 1, 12, 16, header.len() - 1] {
        let begun = Instant::now();
        let mut client = gate.client().await;
        client.stream.write_all(&header[..sent]).await.unwrap();
        assert_eq!(client.rest().await, "");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(3), "{sent}: {took:?}");
    }
    let begun = Instant::now();
    let mut client = gate.client().await;
    for byte in b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n" {
        if client.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(client.rest().await, "");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// Whether forwarding fields are believed is decided by the client that the header names, not by who sent it.
#[tokio::test]
async fn trust_in_fields_is_that_of_the_named_client() {
    let pod = Pod::start("one").await;
    let gate = gate(&pod, loopback(), "127.0.0.0/8", &["198.51.100.0/24"]).await;
    let named = |address| format!("PROXY TCP4 {address} 203.0.113.1 4711 80\r\n");
    assert_eq!(seen_behind(&gate, named("198.51.100.7").as_bytes()).await, "9.9.9.9, 198.51.100.7");
    assert_eq!(seen_behind(&gate, named("198.51.101.7").as_bytes()).await, "198.51.101.7");
}

#[tokio::test]
async fn peers_over_ipv6_are_told_apart_too() {
    let pod = Pod::start("one").await;
    let header = version2(1, 0x21, &v6());
    let trusting = gate(&pod, "::1".parse().unwrap(), "::1/128", &[]).await;
    assert_eq!(seen_behind(&trusting, &header).await, "2001:db8::7");
    let distrusting = gate(&pod, "::1".parse().unwrap(), "2001:db8::/32", &[]).await;
    assert_eq!(seen_behind(&distrusting, b"").await, "::1");
}

#[tokio::test]
async fn tls_follows_the_header() {
    let pod = Pod::start("one").await;
    let mut plan = Plan { protocol: EntryProtocol::Https, ..Plan::default() }.site("a.example", &[pod.address]);
    plan.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
    let gate = Gate::start(&plan).await;
    let mut tcp = TcpStream::connect(gate.address).await.unwrap();
    tcp.write_all(b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n").await.unwrap();
    let name = "a.example".to_owned().try_into().unwrap();
    let mut client = Client::over(TlsConnector::from(usual()).connect(name, tcp).await.unwrap());
    let answer = client.ask(REQUEST).await;
    assert!(answer.body.contains("X-Forwarded-For: 198.51.100.7\r\n"), "{answer:?}");
    assert!(answer.body.contains("X-Forwarded-Proto: https\r\n"), "{answer:?}");
}
