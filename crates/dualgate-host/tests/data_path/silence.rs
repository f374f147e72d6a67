//! What the kernel says of virtual IPs on the LAN: nothing. Judged by frames.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use dualgate_host::virtual_ips::data_path::DataPath;
use dualgate_wire::arp::{self, Operation};
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Message};

use crate::lan::{BOTH, Echo, Host, LAN, Lan, PATIENCE, SILENCE, V4, V6};

/// What a host says about neighbours.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// It asks, and so tells where this address is.
    Asks(IpAddr),
    /// It has this address.
    Has(IpAddr),
}

fn said(frames: &[Vec<u8>], by: Mac) -> Vec<Said> {
    let one = |frame: &Vec<u8>| {
        let (header, body) = Header::parse(frame).ok()?;
        match header.ether_type {
            _ if header.source != by => None,
            EtherType::Arp => {
                let packet = arp::Packet::parse(body).ok()?;
                Some(match packet.operation {
                    Operation::Request => Said::Asks(packet.sender.into()),
                    Operation::Reply => Said::Has(packet.sender.into()),
                })
            }
            EtherType::Ipv6 => match ndp::Packet::parse(body).ok()? {
                ndp::Packet { source, message: Message::Solicitation(_), .. } => Some(Said::Asks(source.into())),
                ndp::Packet { message: Message::Advertisement(claim), .. } => Some(Said::Has(claim.target.into())),
            },
            EtherType::Other(_) => None,
        }
    };
    frames.iter().filter_map(one).collect()
}

pub fn a_node_that_stands_by_says_nothing_and_serves_when_packets_come() {
    let lan = Lan::new(&["client", "one", "two"]);
    let [client, one, two] = [0, 1, 2].map(|at| &lan.hosts[at]);
    // Without silence the kernel answers for IPv4 itself: what is tested here is needed.
    let loud = DataPath { silent: [].into(), own: [].into(), ..one.path() };
    one.converge(loud).expect("a path");
    one.serve(b'1');
    assert_eq!(Echo::new(client.connect(V4.into()).expect("a connection")).ask().expect("an answer"), b'1');
    assert!(said(&client.seen(), one.mac).contains(&Said::Has(V4.into())));
    for (node, name) in [(one, b'1'), (two, b'2')] {
        node.converge(node.path()).expect("a path");
        if name == b'2' {
            node.serve(name);
        }
    }
    forget(client);
    for address in BOTH {
        let refused = client.connect_within(address, 4 * SILENCE).expect_err("nobody holds it");
        assert!(matches!(refused.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable), "{refused}");
    }
    let frames = client.seen();
    for node in [one, two] {
        let answers: Vec<_> =
            said(&frames, node.mac).into_iter().filter(|said| BOTH.iter().any(|ip| *said == Said::Has(*ip))).collect();
        assert_eq!(answers, []);
    }
    // Who holds it is served by a listener that was there all the time.
    for (holder, name) in [(1, b'1'), (2, b'2')] {
        lan.hold(holder);
        for address in BOTH {
            assert_eq!(Echo::new(reached(client, address)).ask().expect("an answer"), name, "{address}");
        }
    }
}

/// A neighbour that did not answer is asked again after a while.
fn reached(client: &Host, address: IpAddr) -> std::net::TcpStream {
    let begin = Instant::now();
    loop {
        match client.connect(address) {
            Ok(stream) => return stream,
            Err(error) if begin.elapsed() > PATIENCE => panic!("{address}: {error}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// The host knows none of its neighbours.
fn forget(host: &Host) {
    host.namespace.run(|| {
        let mut network = dualgate_host::network::Network::open().expect("rtnetlink");
        for to in [dualgate_host::network::Switch::Off, dualgate_host::network::Switch::On] {
            network.switch(LAN, to).expect("a cable");
        }
    });
    // IPv6 addresses go with the interface.
    let own = host.v6;
    host.namespace.run(move || {
        let mut network = dualgate_host::network::Network::open().expect("rtnetlink");
        let use_ = dualgate_host::network::Use::Both;
        network.add_address(LAN, crate::lan::net(own.into(), 64), use_).expect("an address");
    });
}

pub fn a_node_asks_for_neighbours_in_its_own_name() {
    let lan = Lan::new(&["client", "one"]);
    let [client, one] = [0, 1].map(|at| &lan.hosts[at]);
    one.serve(b'1');
    let mut path = one.path();
    let names = std::mem::take(&mut path.own);
    one.converge(path.clone()).expect("a path");
    lan.hold(1);
    let asked = |address: IpAddr| {
        forget(one);
        client.seen();
        let served = client.connect_within(address, PATIENCE);
        let outcome = served.map(|stream| Echo::new(stream).ask().expect("an answer"));
        let frames = client.seen();
        (outcome.ok(), said(&frames, one.mac))
    };
    // Without a name of its own, the kernel asks in the name of the virtual IP: what is tested here is needed.
    let (_, before) = asked(V4.into());
    assert!(before.contains(&Said::Asks(V4.into())), "{before:?}");
    path.own = names;
    one.converge(path).expect("a path");
    for (address, own) in [(IpAddr::from(V4), IpAddr::from(one.v4)), (V6.into(), one.v6.into())] {
        let (server, said) = asked(address);
        assert_eq!(server, Some(b'1'), "{address}: the neighbour answers, and so does the listener");
        let questions: Vec<_> = said.iter().filter(|said| matches!(said, Said::Asks(_))).collect();
        assert!(!questions.is_empty(), "{address}: {said:?}");
        let as_itself = |said: &Said| match said {
            Said::Asks(IpAddr::V4(from)) => *from == Ipv4Addr::UNSPECIFIED || IpAddr::from(*from) == own,
            Said::Asks(IpAddr::V6(from)) => {
                from.is_unspecified() || from.is_unicast_link_local() || IpAddr::from(*from) == own
            }
            Said::Has(_) => true,
        };
        assert!(questions.iter().all(|said| as_itself(said)), "{address}: {said:?}");
    }
}
