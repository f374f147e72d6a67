//! Resolvers that are spoken to encrypted: DNS over TLS and over HTTPS.

use std::sync::mpsc;
use std::time::Duration;

use super::support::resolver::{Upstream, by_tcp, by_udp, by_udp_within};
use super::support::{Authority, Directory, Encrypted, Home, Kind, Node, Reservation, eventually, reserve_pair};
use super::{A, addresses, ips};

const NAME: &str = "dns.example.net";
const SERVFAIL: u8 = 2;

/// A home that asks encrypted.
struct Asking {
    node: Node,
    home: Home,
    reserved: [Reservation; 2],
}

impl Asking {
    fn of(authority: &Authority, resolvers: &[String]) -> Self {
        let (home, reserved) = (Home::new(), reserve_pair());
        home.directory.write("authorities.pem", &authority.pem());
        write_site(&home, &reserved, resolvers);
        Self { node: Node::serve(&home), home, reserved }
    }

    fn asks_from_now_on(&self, resolvers: &[String]) {
        write_site(&self.home, &self.reserved, resolvers);
    }

    #[track_caller]
    fn is_told(&self, name: &str) {
        assert_eq!(addresses(by_udp(self.reserved[0].address, name, A)), ips(&["203.0.113.99"]), "{name}");
    }
}

fn write_site(home: &Home, reserved: &[Reservation; 2], resolvers: &[String]) {
    let resolvers: Vec<String> = resolvers.iter().map(|resolver| format!("'{resolver}'")).collect();
    let dns = format!(
        "dns:\n  addresses: ['{}', '{}']\n  zones: [{{name: example.org}}]\n  forward: [{}]\n  forwardAuthorities: {}\n",
        reserved[0].address,
        reserved[1].address,
        resolvers.join(", "),
        home.directory.join("authorities.pem").display(),
    );
    let site = home.site(&dns).replace("external-gate, controller]", "external-gate, controller, dns]");
    home.directory.write("site.yaml", &site);
}

#[test]
fn questions_go_through_one_connection_and_their_length_tells_little() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        for name in ["www.example.net", "a.example.net", "a-much-longer-name-than-all-the-others.example.net"] {
            home.is_told(name);
            assert_eq!(addresses(by_tcp(home.reserved[1].address, name, A)), ips(&["203.0.113.99"]));
        }
        assert_eq!((upstream.connections(), upstream.asked()), (1, vec![128; 3]), "{kind:?}");
        assert_eq!(home.node.metric("dualgate_dns_upstream_queries_total"), 3.0);
    }
}

#[test]
fn an_answer_that_takes_long_keeps_no_other_one_waiting() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        let at = home.reserved[0].address;
        let slow = std::thread::spawn(move || by_udp_within(Duration::from_secs(10), at, "slow.example.net", A));
        eventually("the slow question is asked", || match upstream.asked().len() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        });
        home.is_told("quick.example.net");
        assert_eq!(addresses(slow.join().unwrap()), ips(&["203.0.113.99"]));
        assert_eq!(upstream.connections(), 1, "{kind:?}");
    }
}

#[test]
fn a_question_that_is_never_answered_costs_no_other_one_its_answer() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        let at = home.reserved[0].address;
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || tell.send(by_udp_within(Duration::from_secs(10), at, "never.example.net", A)));
        let mut asked = 0;
        let never = loop {
            home.is_told(&format!("other{asked}.example.net"));
            asked += 1;
            if let Ok(answer) = told.recv_timeout(Duration::from_millis(100)) {
                break answer;
            }
        };
        assert_eq!(never.unwrap().code, SERVFAIL);
        assert!(asked > 10, "{asked}");
        assert_eq!(upstream.connections(), 1, "{kind:?}");
    }
}

#[test]
fn a_new_connection_may_take_as_long_as_whoever_asks() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        home.is_told("tardy.example.net");
        assert_eq!(upstream.connections(), 1, "{kind:?}");
    }
}

#[test]
fn what_is_answered_with_the_last_words_of_a_connection_counts() {
    let authority = Authority::new();
    let upstream = Encrypted::start(Kind::Https, &authority.issue(&[NAME]));
    upstream.answer_once();
    let home = Asking::of(&authority, &[upstream.url(NAME)]);
    for round in 1..=3 {
        home.is_told(&format!("round{round}.example.net"));
        assert_eq!(upstream.asked().len(), round, "nothing is asked twice");
    }
}

#[test]
fn a_connection_that_goes_deaf_is_followed_by_another_one() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        home.is_told("before.example.net");
        upstream.grow_deaf();
        home.is_told("after.example.net");
        assert_eq!(upstream.connections(), 2, "{kind:?}");
        home.is_told("later.example.net");
        assert_eq!(upstream.connections(), 2, "{kind:?}");
    }
}

#[test]
fn what_a_resolver_leaves_open_is_asked_of_others_as_soon_as_the_site_file_names_them() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let (former, now) = (Encrypted::start(kind, &authority.issue(&[NAME])), Upstream::start());
        let home = Asking::of(&authority, &[former.url(NAME)]);
        let at = home.reserved[0].address;
        let asker = std::thread::spawn(move || by_udp_within(Duration::from_secs(10), at, "never.example.net", A));
        eventually("it is asked", || match former.asked().len() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        });
        home.asks_from_now_on(&[now.address.to_string()]);
        assert_eq!(addresses(asker.join().unwrap()), ips(&["203.0.113.99"]), "{kind:?}");
    }
}

#[test]
fn whoever_has_no_right_certificate_is_asked_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    for kind in [Kind::Tls, Kind::Https] {
        for issued in [authority.issue(&["somebody.example.net"]), other.issue(&[NAME])] {
            let wrong = Encrypted::start(kind, &issued);
            let home = Asking::of(&authority, &[wrong.url(NAME)]);
            let answer = by_udp(home.reserved[0].address, "www.example.net", A).unwrap();
            assert_eq!((answer.code, answer.addresses.len()), (SERVFAIL, 0), "{kind:?}");
            assert_eq!(wrong.asked().len(), 0);
            // Somebody else who is right is asked instead.
            let right = Encrypted::start(kind, &authority.issue(&[NAME]));
            let home = Asking::of(&authority, &[wrong.url(NAME), right.url(NAME)]);
            home.is_told("www.example.net");
            assert_eq!((wrong.asked().len(), right.asked().len()), (0, 1));
        }
    }
}

#[test]
fn a_resolver_by_its_address_has_a_certificate_for_that() {
    let authority = Authority::new();
    let upstream = Encrypted::start(Kind::Tls, &authority.issue(&["127.0.0.1"]));
    let home = Asking::of(&authority, &[format!("tls://{}", upstream.address)]);
    home.is_told("www.example.net");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_resolver_that_dies_is_followed_by_the_next_one() {
    let authority = Authority::new();
    for (first, second) in [(Kind::Tls, Kind::Https), (Kind::Https, Kind::Tls)] {
        let issued = authority.issue(&[NAME]);
        let (dies, lives) = (Encrypted::start(first, &issued), Encrypted::start(second, &issued));
        let home = Asking::of(&authority, &[dies.url(NAME), lives.url(NAME)]);
        home.is_told("before.example.net");
        assert_eq!((dies.asked().len(), lives.asked().len()), (1, 0));
        drop(dies);
        home.is_told("after.example.net");
        home.is_told("later.example.net");
        assert_eq!((lives.connections(), lives.asked().len()), (1, 2), "{first:?}");
    }
}

#[test]
fn a_connection_that_the_resolver_closes_is_made_again() {
    let authority = Authority::new();
    for kind in [Kind::Tls, Kind::Https] {
        let upstream = Encrypted::start(kind, &authority.issue(&[NAME]));
        let home = Asking::of(&authority, &[upstream.url(NAME)]);
        for round in 1..=3 {
            home.is_told(&format!("round{round}.example.net"));
            assert_eq!(upstream.connections(), round, "{kind:?}");
            upstream.close_connections();
        }
    }
}

#[test]
fn authorities_that_cannot_be_read_are_a_finding_until_they_can() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let upstream = Encrypted::start(Kind::Tls, &authority.issue(&[NAME]));
    let (home, reserved) = (Home::new(), reserve_pair());
    let file = directory.path().join("none.pem");
    let dns = format!(
        "dns:\n  addresses: ['{}']\n  zones: [{{name: example.org}}]\n  forward: ['{}']\n  forwardAuthorities: {}\n",
        reserved[0].address,
        upstream.url(NAME),
        file.display(),
    );
    let site = home.site(&dns).replace("external-gate, controller]", "external-gate, controller, dns]");
    home.directory.write("site.yaml", &site);
    let node = Node::serve(&home);
    node.wait_for_finding("unreadable", "none.pem");
    let answer = by_udp(reserved[0].address, "www.example.net", A).unwrap();
    assert_eq!(answer.code, SERVFAIL);
    std::fs::write(&file, authority.pem()).unwrap();
    node.wait_until_no_finding("unreadable");
    eventually("it is believed", || match by_udp(reserved[0].address, "www.example.net", A) {
        Ok(answer) if answer.code == 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
