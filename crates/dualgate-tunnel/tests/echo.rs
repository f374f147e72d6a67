//! Echoes between two hosts: whole or not at all, whatever the routes say, by each kind of socket.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_host::namespace::{Namespace, mount_empty};
use dualgate_host::network::{self, Network, NetworkError, Route, Switch, Use};
use dualgate_lab::trial;
use dualgate_tunnel::{Answer, Echo, Kind};

const MTU: u16 = 1392;
const FAMILIES: [(&str, &str); 2] = [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")];

fn main() -> ExitCode {
    trial::main(
        "echo",
        &[
            ("a_raw_socket_asks_with_whole_packets", |_| whole(Kind::Raw)),
            ("a_datagram_socket_asks_with_whole_packets", |_| whole(Kind::Datagram)),
            ("nobody_hears_the_answers_of_others", nobody_hears_the_answers_of_others),
            ("without_a_right_to_ask_it_is_said_why", without_a_right_to_ask_it_is_said_why),
        ],
    )
}

/// Two hosts with a wire, on which the routes are narrower than the wire.
fn pair() -> [Arc<Namespace>; 2] {
    let host = |name: &str| Arc::new(Namespace::new(name, || mount_empty("/run")).unwrap());
    let hosts = [host("home"), host("edge")];
    let ends = hosts.each_ref().map(|host| network::End {
        name: "wire",
        mac: None,
        mtu: u32::from(MTU),
        namespace: host.network(),
    });
    Network::open().unwrap().add_veth([&ends[0], &ends[1]]).unwrap();
    for (host, own, other) in [(&hosts[0], 0, 1), (&hosts[1], 1, 0)] {
        let up = move || -> Result<(), NetworkError> {
            let mut network = Network::open()?;
            network.switch("wire", Switch::On)?;
            for addresses in FAMILIES.map(|(home, edge)| [home, edge]) {
                let [own, to]: [IpAddr; 2] = [own, other].map(|end: usize| addresses[end].parse().unwrap());
                network.add_address("wire", own.into(), Use::Both)?;
                network.add_route("wire", &Route { to: to.into(), via: None, source: Some(own), mtu: Some(1300) })?;
            }
            Ok(())
        };
        host.run(up).unwrap();
    }
    hosts
}

fn allow_datagrams(host: &Namespace) {
    host.run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")).unwrap();
}

fn open(host: &Namespace, kind: Kind, from: &str) -> Echo {
    let from = from.parse().unwrap();
    host.run(move || Echo::open_as(kind, "wire", from)).unwrap()
}

/// Asks until it is answered: the first one may meet an unfinished neighbour.
fn ask(echo: &Echo, to: IpAddr, id: u16, octets: u16) -> Option<Answer> {
    (0..5).find_map(|_| {
        echo.ask(to, id, octets).unwrap();
        answer(echo, |answer| answer.id == id)
    })
}

/// The next such answer within a moment. Those of earlier questions may still come.
fn answer(echo: &Echo, such: impl Fn(&Answer) -> bool) -> Option<Answer> {
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        match echo.answer().filter(&such) {
            Some(answer) => return Some(answer),
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
    None
}

/// How many parts of packets have reached a host.
fn parts(host: &Namespace) -> (String, String) {
    let read = |file| host.run(move || std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))).unwrap();
    let four = read("snmp");
    let mut lines = four.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let four = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ReasmReqds").unwrap().1;
    let six = read("snmp6");
    let six = six.lines().find(|line| line.starts_with("Ip6ReasmReqds")).unwrap();
    (four.to_owned(), six.split_whitespace().last().unwrap().to_owned())
}

fn whole(kind: Kind) {
    let [home, edge] = pair();
    allow_datagrams(&home);
    for (from, to) in FAMILIES {
        let (echo, to) = (open(&home, kind, from), to.parse().unwrap());
        for (id, octets) in [(1, 96), (2, 1280), (3, 1301), (u16::MAX, MTU)] {
            assert_eq!(ask(&echo, to, id, octets), Some(Answer { from: to, id }), "{to} {octets}");
        }
        let refused = echo.ask(to, 5, MTU + 1).expect_err("it does not fit the wire");
        assert_eq!(refused.raw_os_error(), Some(90), "message too long: {refused}");
    }
    assert_eq!(parts(&edge), ("0".to_owned(), "0".to_owned()), "what was asked came in parts");
    assert_ne!(parts(&home).0, "0", "the edge's own route is narrow: its answers come in parts");
}

fn nobody_hears_the_answers_of_others(_: &Path) {
    let [home, _edge] = pair();
    for (from, to) in FAMILIES {
        let (one, other, to) = (open(&home, Kind::Raw, from), open(&home, Kind::Raw, from), to.parse().unwrap());
        assert_eq!(ask(&one, to, 7, 1000), Some(Answer { from: to, id: 7 }));
        assert_eq!(answer(&other, |_| true), None);
    }
}

fn without_a_right_to_ask_it_is_said_why(_: &Path) {
    let [home, _edge] = pair();
    let nowhere = home.run(|| Echo::open("wire", "10.8.0.9".parse().unwrap())).expect_err("nobody's address");
    assert!(nowhere.to_string().contains("10.8.0.9"), "{nowhere}");
    let no_wire = home.run(|| Echo::open("nothing", "10.8.0.1".parse().unwrap()));
    assert!(no_wire.is_err());
}
