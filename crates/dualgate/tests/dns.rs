//! Names: `dualgate run` answers for what is served here, and asks others for the rest.

mod support;

#[path = "dns/encrypted.rs"]
mod encrypted;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use support::resolver::{Resolved, Upstream, by_tcp, by_udp, by_udp_within};
use support::{Home, Node, Reservation, application, eventually, reserve_pair};

const A: u16 = 1;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
/// Names of ours that stand for somebody else's; the second of these stands for one of ours.
const OUT: &str =
    "{name: out, type: CNAME, value: www.example.net}, {name: there, type: CNAME, value: back.example.net}";

/// A home whose DNS answers for `example.org` and asks an upstream for everything else.
struct Names {
    home: Home,
    upstream: Upstream,
    at: [SocketAddr; 2],
    reserved: Option<[Reservation; 2]>,
}

impl Names {
    fn new() -> Self {
        let reserved = reserve_pair();
        let names = Self {
            home: Home::new(),
            upstream: Upstream::start(),
            at: [reserved[0].address, reserved[1].address],
            reserved: Some(reserved),
        };
        let dns = format!(
            "dns:\n  addresses: ['{}', '{}']\n  zones: [{{name: example.org, records: [{OUT}]}}]\n  forward: ['{}']\n",
            names.at[0], names.at[1], names.upstream.address
        );
        let site = names.home.site(&dns).replace("external-gate, controller]", "external-gate, controller, dns]");
        names.home.directory.write("site.yaml", &site);
        names.home.manifest("web", &application("web", &[]));
        names
    }
}

#[track_caller]
fn addresses(answer: Result<Resolved, String>) -> Vec<IpAddr> {
    let answer = answer.unwrap();
    assert_eq!((answer.code, answer.truncated), (0, false), "{answer:?}");
    answer.addresses
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn names_of_ingresses_are_answered_here_and_others_elsewhere() {
    let names = Names::new();
    let node = Node::serve(&names.home);
    for at in names.at {
        for ask in [by_udp, by_tcp] {
            assert_eq!(addresses(ask(at, "web.example.org", A)), ips(&["127.0.0.1"]), "{at}");
            assert_eq!(addresses(ask(at, "WEB.Example.ORG", AAAA)), ips(&["::1"]), "{at}");
            let none = ask(at, "nobody.example.org", A).unwrap();
            assert_eq!((none.code, none.authoritative), (NXDOMAIN, true), "{at}");
            assert_eq!(addresses(ask(at, "www.example.net", A)), ips(&["203.0.113.99"]), "{at}");
            assert_eq!(addresses(ask(at, "long.example.net", A)), ips(&["203.0.113.99"]), "{at}");
        }
    }
    // Once by UDP, and once more by TCP for the long one.
    assert_eq!(names.upstream.asked(), 3);
    assert_eq!(node.metric("dualgate_dns_cache_hits_total"), 6.0);
    assert_eq!(node.metric("dualgate_dns_queries_total"), 12.0);
    let status = node.document("/status").unwrap();
    assert_eq!(status["dns"]["listening"].as_array().unwrap().len(), 2, "{status}");
    assert_eq!(status["dns"]["forwarding"]["hits"], 6, "{status}");
}

#[test]
fn a_client_hears_where_a_name_leads_at_once_whoever_knows_it() {
    let names = Names::new();
    let _node = Node::serve(&names.home);
    for at in names.at {
        for ask in [by_udp, by_tcp] {
            assert_eq!(addresses(ask(at, "out.example.org", A)), ips(&["203.0.113.99"]), "{at}");
            // What others know of our names is not what this view says of them.
            assert_eq!(addresses(ask(at, "there.example.org", A)), ips(&["127.0.0.1"]), "{at}");
            assert_eq!(addresses(ask(at, "there.example.org", AAAA)), ips(&["::1"]), "{at}");
            // Their own names are theirs.
            assert_eq!(addresses(ask(at, "back.example.net", A)), ips(&["203.0.113.99"]), "{at}");
        }
    }
    assert_eq!(names.upstream.asked(), 3, "each of them once");
}

#[test]
fn a_name_comes_and_goes_with_its_ingress() {
    let names = Names::new();
    let _node = Node::serve(&names.home);
    let is = |name: &str, expected: u8| {
        eventually(&format!("{name} with code {expected}"), || match by_udp(names.at[0], name, A)? {
            answer if answer.code == expected => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
    };
    is("more.example.org", NXDOMAIN);
    names.home.manifest("more", &application("more", &[]));
    is("more.example.org", 0);
    names.home.remove("more");
    is("more.example.org", NXDOMAIN);
    is("web.example.org", 0);
}

#[test]
fn an_address_that_is_taken_is_a_finding_and_heals_when_it_is_free() {
    let mut names = Names::new();
    names.reserved = None;
    let taken = UdpSocket::bind(names.at[0]).unwrap();
    let node = Node::serve(&names.home);
    node.wait_for_finding("listener-failed", &format!("listen on {} for DNS", names.at[0]));
    assert_eq!(addresses(by_udp(names.at[1], "web.example.org", A)), ips(&["127.0.0.1"]));
    drop(taken);
    node.wait_until_no_finding("listener-failed");
    assert_eq!(addresses(by_udp(names.at[0], "web.example.org", A)), ips(&["127.0.0.1"]));
}

#[test]
fn a_successor_leaves_no_question_without_an_answer() {
    let names = Names::new();
    let mut first = Node::serve(&names.home);
    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..4)
        .map(|number: usize| {
            let (stop, at) = (stop.clone(), names.at[number % 2]);
            std::thread::spawn(move || {
                let (mut asked, mut again) = (0, 0);
                while !stop.load(Relaxed) {
                    let name = if asked % 2 == 0 { "web.example.org" } else { "www.example.net" };
                    let ask = || by_udp_within(Duration::from_secs(3), at, name, A);
                    // One that waited in a socket that was closed is asked once more, as every resolver's client does.
                    let answer = ask().or_else(|_| {
                        again += 1;
                        ask()
                    });
                    assert_eq!(answer.as_ref().map(|answer| answer.code), Ok(0), "{answer:?}");
                    asked += 1;
                }
                (asked, again)
            })
        })
        .collect();
    let second = Node::start(&names.home, &["--take-over"]);
    assert_eq!(first.wait().code(), Some(0));
    second.wait_until_ready();
    let asked = || -> f64 { second.metric("dualgate_dns_queries_total") };
    eventually("the successor is asked", || if asked() > 10.0 { Ok(()) } else { Err("not yet".to_owned()) });
    stop.store(true, Relaxed);
    let counts: Vec<(u32, u32)> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
    let (asked, again) = counts.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{asked} questions, {again} of them asked twice");
    assert!(asked > 20 && again <= 4, "{counts:?}");
}
