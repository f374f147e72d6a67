//! Rules do to packets what they say: seen on the loopback interface.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use dualgate_host::namespace;
use dualgate_host::netfilter::Netfilter;
use dualgate_host::network::{self, Network, Switch, Use};
use dualgate_wire::nftables::{
    Action, Chain, ChainType, Change, ConnectionStates, Counted, Elements, End, Family, HookPoint, Limit, Mark, Match,
    MaximumSegment, Meter, Meters, Prefixed, Reject, Rule, Select, Set, SetKind, Span, Statement, Table, TcpFlags,
    Transport, Unit, When,
};
use ipnet::IpNet;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::examples::hook;

const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Long enough for a packet to cross the loopback interface, which takes microseconds.
const SILENCE: Duration = Duration::from_millis(300);

pub fn a_dropped_port_is_silent_and_counted() {
    for address in BOTH {
        let (open, shut) = (listener(address), listener(address));
        let rule = Rule::new(vec![to_port(port(&shut))], Action::Drop).counted().named("shut");
        let mut netfilter = with_input(vec![rule], vec![]);
        TcpStream::connect_timeout(&at(&open), SILENCE).expect("the other port is open");
        assert_eq!(counted(&mut netfilter, "shut"), Counted::default());
        let refused = TcpStream::connect_timeout(&at(&shut), SILENCE).expect_err("the port is shut");
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        let Counted { packets, octets } = counted(&mut netfilter, "shut");
        assert!(packets >= 1 && octets >= 40 * packets, "{packets} packets, {octets} octets");
        remove(&mut netfilter);
        TcpStream::connect_timeout(&at(&shut), SILENCE).expect("the rule is gone");
    }
}

pub fn a_rejected_port_answers_at_once() {
    for address in BOTH {
        let cases = [
            (Reject::TcpReset, ErrorKind::ConnectionRefused),
            (Reject::PortUnreachable, ErrorKind::ConnectionRefused),
            (
                Reject::AdminProhibited,
                match address {
                    IpAddr::V4(_) => ErrorKind::HostUnreachable,
                    IpAddr::V6(_) => ErrorKind::PermissionDenied,
                },
            ),
        ];
        for (reject, expected) in cases {
            let shut = listener(address);
            let mut netfilter = with_input(vec![Rule::new(vec![to_port(port(&shut))], Action::Reject(reject))], vec![]);
            let refused = TcpStream::connect_timeout(&at(&shut), 20 * SILENCE).expect_err("the port is shut");
            assert_eq!(refused.kind(), expected, "{reject:?} {address}");
            remove(&mut netfilter);
        }
    }
}

pub fn sets_decide_by_source_and_port() {
    let listener = listener(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let blocked = Elements::Ip(vec![Span::between(Ipv4Addr::new(127, 0, 1, 5), Ipv4Addr::new(127, 0, 1, 9))]);
    let sets = vec![Set { name: "blocked".into(), kind: SetKind::Intervals, elements: blocked }];
    let ports = [port(&listener), 1, 2];
    let matches = vec![
        Match::Ip(End::Destination, Select::set("blocked")),
        Match::Port(Transport::Tcp, End::Destination, Select::any(ports)),
    ];
    let _netfilter = with_input(vec![Rule::new(matches, Action::Reject(Reject::TcpReset))], sets);
    for (last, open) in [(4, true), (5, false), (7, false), (9, false), (10, true)] {
        let address = SocketAddr::from(([127, 0, 1, last], port(&listener)));
        assert_eq!(TcpStream::connect_timeout(&address, SILENCE).is_ok(), open, "{address}");
    }
}

pub fn a_destination_is_translated() {
    for address in BOTH {
        let listener = listener(address);
        let mut table = Table::new(Family::Inet, "test");
        let action = Action::Dnat { to: address, port: Some(port(&listener)) };
        let output = hook(ChainType::Nat, HookPoint::Output, -100);
        table.chains.push(Chain::base("output", output, vec![Rule::new(vec![to_port(1)], action)]));
        let mut netfilter = Netfilter::open().expect("nftables");
        netfilter.apply(&[Change::Replace(table)]).expect("a translation");
        let mut client = TcpStream::connect_timeout(&SocketAddr::new(address, 1), SILENCE).expect("a translated port");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(b"hello").expect("write");
        let mut words = [0; 5];
        server.read_exact(&mut words).expect("read");
        assert_eq!(&words, b"hello");
        remove(&mut netfilter);
    }
}

pub fn each_source_has_its_own_limit() {
    let limit = Limit { rate: 1, per: Unit::Hour, burst: 3 };
    let dynamic = SetKind::Dynamic { size: 100, timeout_seconds: Some(60) };
    let sets = vec![
        Set { name: "four".into(), kind: dynamic, elements: Elements::Ip(vec![]) },
        Set { name: "six".into(), kind: dynamic, elements: Elements::Ip6(vec![]) },
    ];
    let receiver = |address: IpAddr| UdpSocket::bind((address, 0)).expect("a socket");
    let (four, six) = (receiver(BOTH[0]), receiver(BOTH[1]));
    let over = |receiver: &UdpSocket, set: &str, source| {
        let to = Select::one(receiver.local_addr().expect("its address").port());
        let meter = Meter { set: set.into(), source, test: Meters::Rate(When::Over, limit) };
        let matches = vec![Match::Port(Transport::Udp, End::Destination, to), Match::Meter(meter)];
        Rule::new(matches, Action::Drop).counted().named(set)
    };
    let rules = vec![over(&four, "four", Prefixed::Ip(32)), over(&six, "six", Prefixed::Ip6(64))];
    let mut netfilter = with_input(rules, sets);
    // The second source is not held back by what the first one did.
    for source in [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)] {
        assert_eq!(delivered(&four, source.into()), 3, "{source}");
    }
    assert_eq!(counted(&mut netfilter, "four").packets, 14);
    assert_eq!(delivered(&six, BOTH[1]), 3);
    assert_eq!(counted(&mut netfilter, "six").packets, 7);
}

/// How many of ten packets from this source arrive.
fn delivered(receiver: &UdpSocket, source: IpAddr) -> usize {
    let sender = UdpSocket::bind((source, 0)).expect("a socket");
    let to = receiver.local_addr().expect("its address");
    (0..10).for_each(|_| assert_eq!(sender.send_to(b"x", to).expect("send"), 1));
    // What has crossed the loopback interface is there when `send_to` returns.
    receiver.set_nonblocking(true).expect("a setting");
    (0..20).take_while(|_| receiver.recv(&mut [0; 8]).is_ok()).count()
}

pub fn connections_are_counted_for_each_source() {
    let listener = listener(BOTH[0]);
    let dynamic = SetKind::Dynamic { size: 100, timeout_seconds: None };
    let sets = vec![Set { name: "clients".into(), kind: dynamic, elements: Elements::Ip(vec![]) }];
    let meter = Meter { set: "clients".into(), source: Prefixed::Ip(32), test: Meters::ConnectionsOver(2) };
    let matches = vec![to_port(port(&listener)), Match::Meter(meter)];
    let _netfilter = with_input(vec![Rule::new(matches, Action::Reject(Reject::TcpReset))], sets);
    let connect = || TcpStream::connect_timeout(&at(&listener), SILENCE);
    let (_one, _two) = (connect().expect("the first"), connect().expect("the second"));
    assert_eq!(connect().expect_err("a third").kind(), ErrorKind::ConnectionRefused);
}

pub fn marks_are_kept_with_the_connection() {
    let listener = listener(BOTH[0]);
    let mut table = Table::new(Family::Inet, "test");
    let marked = |mark| Match::PacketMark(Mark::exactly(mark));
    let answers = Match::Port(Transport::Tcp, End::Source, Select::one(port(&listener)));
    let input = vec![
        Rule::passing(vec![to_port(port(&listener))], vec![Statement::SetPacketMark(0x1234), Statement::SaveMark]),
        Rule::passing(vec![Match::ConnectionMark(Mark { value: 0x1200, mask: 0xff00 })], vec![Statement::Counter])
            .named("saved"),
    ];
    let output = vec![
        Rule::passing(vec![answers.clone()], vec![Statement::RestoreMark]),
        Rule::passing(vec![answers, marked(0x1234)], vec![Statement::Counter]).named("restored"),
    ];
    table.chains.push(Chain::base("input", hook(ChainType::Filter, HookPoint::Input, 0), input));
    table.chains.push(Chain::base("output", hook(ChainType::Filter, HookPoint::Output, 0), output));
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.apply(&[Change::Replace(table)]).expect("marks");
    TcpStream::connect_timeout(&at(&listener), SILENCE).expect("a connection");
    for rule in ["saved", "restored"] {
        assert!(counted(&mut netfilter, rule).packets > 0, "{rule}");
    }
}

pub fn answers_pass_a_filter_that_nobody_else_passes() {
    for address in BOTH {
        let listener = listener(address);
        let answers = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
        let to_client = Match::Port(Transport::Tcp, End::Source, Select::one(port(&listener)));
        let rules = vec![
            Rule::new(vec![to_client.clone(), Match::ConnectionState(answers)], Action::Accept)
                .counted()
                .named("answers"),
            Rule::new(vec![to_client], Action::Drop),
            Rule::new(vec![to_port(port(&listener)), Match::ConnectionState(answers)], Action::Accept),
            Rule::new(vec![to_port(port(&listener)), Match::ConnectionState(ConnectionStates::NEW)], Action::Accept)
                .counted()
                .named("new"),
            Rule::new(vec![to_port(port(&listener))], Action::Drop),
        ];
        let mut netfilter = with_input(rules, vec![]);
        let mut client = TcpStream::connect_timeout(&at(&listener), SILENCE).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        server.write_all(b"hello").expect("write");
        client.read_exact(&mut [0; 5]).expect("read");
        assert_eq!(counted(&mut netfilter, "new").packets, 1);
        assert!(counted(&mut netfilter, "answers").packets >= 2);
        remove(&mut netfilter);
    }
}

/// Two hosts on a cable. One has an address that it must not answer for, as another one announces it.
pub fn the_kernel_does_not_answer_for_a_virtual_address() {
    let here = namespace::current_network().expect("this network");
    let there = namespace::network().expect("another network");
    let end = |name, namespace| network::End { name, mac: None, mtu: 1500, namespace };
    let mut network = Network::open().expect("rtnetlink");
    network.add_veth([&end("left", here.as_fd()), &end("right", there.as_fd())]).expect("a cable");
    let address = |last: u8| IpNet::new(Ipv4Addr::new(192, 0, 2, last).into(), 24).expect("an address");
    network.add_address("left", address(1), Use::Both).expect("an address");
    network.switch("left", Switch::On).expect("a cable");
    let (own, virtual_ip) = (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3));
    let prepare = || {
        let mut network = Network::open().map_err(std::io::Error::other)?;
        for last in [2, 3] {
            network.add_address("right", address(last), Use::Both).map_err(std::io::Error::other)?;
        }
        network.switch("right", Switch::On).map_err(std::io::Error::other)?;
        let mut table = Table::new(Family::Arp, "test");
        let rule = Rule::new(vec![Match::ArpTarget(Select::one(virtual_ip))], Action::Drop).counted().named("silent");
        table.chains.push(Chain::base("input", hook(ChainType::Filter, HookPoint::Input, 0), vec![rule]));
        let mut netfilter = Netfilter::open().map_err(std::io::Error::other)?;
        netfilter.apply(&[Change::Replace(table)]).map_err(std::io::Error::other)?;
        Ok(netfilter)
    };
    let mut netfilter = namespace::in_network(there.as_fd(), prepare).expect("the other host");
    let connect =
        |to: Ipv4Addr, wait| TcpStream::connect_timeout(&(to, 9).into(), wait).expect_err("nobody listens").kind();
    assert_eq!(connect(own, 20 * SILENCE), ErrorKind::ConnectionRefused);
    assert_eq!(connect(virtual_ip, SILENCE), ErrorKind::TimedOut);
    let rules = netfilter.rules(Family::Arp, "test").expect("a listing");
    assert!(rules.iter().any(|rule| rule.counted.is_some_and(|counted| counted.packets > 0)), "{rules:?}");
}

pub fn the_largest_segment_is_clamped() {
    let mut table = Table::new(Family::Inet, "test");
    let opens = Match::TcpFlags { mask: TcpFlags::SYN.or(TcpFlags::RST), set: TcpFlags::SYN };
    let clamp = Statement::MaximumSegment(MaximumSegment::Octets(1300));
    let output = hook(ChainType::Filter, HookPoint::Output, -150);
    table.chains.push(Chain::base("output", output, vec![Rule::passing(vec![opens], vec![clamp])]));
    // Every frame, as ETH_P_ALL in the network's order.
    let all = rustix::net::Protocol::from_raw(u32::from(3_u16.to_be()).try_into().expect("not zero"));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let frames = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).expect("a packet socket");
    let segments = |address| {
        let listener = listener(address);
        TcpStream::connect_timeout(&at(&listener), SILENCE).expect("a connection");
        let mut frame = [0; 256];
        let sizes =
            std::iter::from_fn(|| recv(&frames, &mut frame, RecvFlags::TRUNC).ok().map(|_| largest_segment(&frame)));
        sizes.flatten().collect::<BTreeSet<u16>>()
    };
    let free = BOTH.map(segments);
    assert!(free.iter().flatten().all(|size| *size > 1300) && !free.iter().any(BTreeSet::is_empty), "{free:?}");
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.apply(&[Change::Replace(table)]).expect("a clamp");
    assert_eq!(BOTH.map(segments), [BTreeSet::from([1300]), BTreeSet::from([1300])]);
}

/// What a frame that opens a TCP connection says of its sender's largest segment.
fn largest_segment(frame: &[u8]) -> Option<u16> {
    let (ether_type, packet) = (frame.get(12..14)?, frame.get(14..)?);
    let segment = match ether_type {
        [0x08, 0x00] if packet.get(9)? == &6 => packet.get(usize::from(packet[0] & 0xf) * 4..)?,
        [0x86, 0xdd] if packet.get(6)? == &6 => packet.get(40..)?,
        _ => return None,
    };
    // Linux puts this option first.
    match segment.get(13..24)? {
        [flags, .., 2, 4, high, low] if flags & 2 != 0 => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

fn with_input(rules: Vec<Rule>, sets: Vec<Set>) -> Netfilter {
    let mut table = Table::new(Family::Inet, "test");
    table.sets = sets;
    table.chains.push(Chain::base("input", hook(ChainType::Filter, HookPoint::Input, 0), rules));
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.apply(&[Change::Replace(table)]).unwrap_or_else(|error| panic!("{error}"));
    netfilter
}

fn remove(netfilter: &mut Netfilter) {
    netfilter.apply(&[Change::Delete { family: Family::Inet, name: "test".into() }]).expect("the table goes");
}

fn counted(netfilter: &mut Netfilter, comment: &str) -> Counted {
    let rules = netfilter.rules(Family::Inet, "test").expect("a listing");
    let rule = rules.into_iter().find(|rule| rule.comment.as_deref() == Some(comment)).expect("the rule");
    rule.counted.expect("a counter")
}

fn listener(address: IpAddr) -> TcpListener {
    TcpListener::bind((address, 0)).expect("a port")
}

fn at(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("its address")
}

fn port(listener: &TcpListener) -> u16 {
    at(listener).port()
}

fn to_port(port: u16) -> Match {
    Match::Port(Transport::Tcp, End::Destination, Select::one(port))
}
