//! Tables that the tests of this crate print and lower, and that those of `dualgate-host` give to a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_wire::nftables::{
    Action, AddressType, Chain, ChainType, ConnectionStates, ConnectionStatus, Elements, End, Family, Fragment, Hook,
    HookPoint, Icmp6Type, IcmpType, IpFamily, Limit, Mark, Match, MaximumSegment, Meter, Meters, Policy, Prefixed,
    Protocol, Reject, Rule, Select, Set, SetKind, SocketTest, Span, Statement, Table, TcpFlags, Transport, Unit, When,
};

/// What a home router does: answers come in, nothing else; IPv4 takes its address.
pub fn router() -> Table {
    let mut table = Table::new(Family::Inet, "router");
    let answers = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
    let from_outside = || Match::InputInterface(Select::one("wan"));
    let forward = vec![
        Rule::new(vec![from_outside(), Match::ConnectionState(answers)], Action::Accept),
        Rule::new(vec![from_outside()], Action::Drop).counted().named("unasked"),
    ];
    let out = vec![Match::OutputInterface(Select::one("wan")), Match::IpFamily(IpFamily::V4)];
    let translate = vec![Rule::new(out, Action::Masquerade)];
    table.chains = vec![
        Chain::base("forward", hook(ChainType::Filter, HookPoint::Forward, 0), forward),
        Chain::base("postrouting", hook(ChainType::Nat, HookPoint::Postrouting, 100), translate),
    ];
    table
}

pub fn hook(kind: ChainType, at: HookPoint, priority: i32) -> Hook {
    Hook { kind, at, priority, policy: Policy::Accept }
}

/// Keeps the kernel from answering for addresses that an announcer answers for.
pub fn arp() -> Table {
    let mut table = Table::new(Family::Arp, "quiet");
    let virtual_ips = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 7)].map(Span::one).to_vec();
    table.sets.push(Set { name: "vips".into(), kind: SetKind::Values, elements: Elements::Ip(virtual_ips) });
    let rules = vec![
        Rule::new(vec![Match::ArpOperation(1), Match::ArpTarget(Select::set("vips"))], Action::Drop),
        Rule::new(vec![Match::ArpTarget(Select::one(Ipv4Addr::new(192, 0, 2, 9)))], Action::Drop).counted(),
        Rule::new(vec![Match::ArpOperation(2)], Action::Accept),
    ];
    table.chains.push(Chain::base("input", hook(ChainType::Filter, HookPoint::Input, 0), rules));
    let own = Statement::SetArpSender(Ipv4Addr::new(192, 0, 2, 2));
    let speaks =
        vec![Match::OutputInterface(Select::one("lan")), Match::ArpOperation(1), Match::ArpSender(Select::set("vips"))];
    let output = vec![Rule::passing(speaks, vec![own])];
    table.chains.push(Chain::base("output", hook(ChainType::Filter, HookPoint::Output, 0), output));
    table
}

/// Hands what began elsewhere to a neighbour.
pub fn relays() -> [Table; 2] {
    let (four, six) = (Ipv4Addr::new(192, 0, 2, 2), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let relay = |matches: [Match; 3], to: IpAddr| Rule {
        statements: vec![Statement::Counter, Statement::Duplicate(to)],
        ..Rule::new(matches.to_vec(), Action::Drop)
    };
    let flags = |mask: TcpFlags, set| Match::TcpFlags { mask, set };
    let both = |to: Match, neighbour: IpAddr| {
        let (new, invalid) = (ConnectionStates::NEW, ConnectionStates::INVALID);
        let middle = [to.clone(), flags(TcpFlags::SYN, TcpFlags::NONE), Match::ConnectionState(new)];
        let end = [to, flags(TcpFlags::FIN.or(TcpFlags::SYN), TcpFlags::FIN), Match::ConnectionState(invalid)];
        vec![relay(middle, neighbour), relay(end, neighbour)]
    };
    let table = |family, rules| {
        let mut table = Table::new(family, "relay");
        table.chains.push(Chain::base("prerouting", hook(ChainType::Filter, HookPoint::Prerouting, -150), rules));
        table
    };
    let to4 = Match::Ip(End::Destination, Select::one(Ipv4Addr::new(192, 0, 2, 9)));
    let to6 = Match::Ip6(End::Destination, Select::one(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9)));
    [table(Family::Ip, both(to4, four.into())), table(Family::Ip6, both(to6, six.into()))]
}

/// A table that says everything that can be said.
pub fn every_word() -> Table {
    let mut table = Table::new(Family::Inet, "every_word");
    table.comment = Some("all of it".into());
    table.sets = sets();
    table.chains = vec![
        Chain::regular("other", vec![Rule::new(vec![], Action::Return)]),
        Chain::base("input", hook(ChainType::Filter, HookPoint::Input, 0), input()),
        Chain::base("forward", hook(ChainType::Filter, HookPoint::Forward, -150), forward()),
        Chain::base("raw", hook(ChainType::Filter, HookPoint::Prerouting, -300), raw()),
        Chain::base("reroute", hook(ChainType::Route, HookPoint::Output, -150), vec![]),
        Chain::base("prerouting", hook(ChainType::Nat, HookPoint::Prerouting, -100), translations()),
        Chain::base("postrouting", hook(ChainType::Nat, HookPoint::Postrouting, 100), sources()),
        Chain::base("arrivals", hook(ChainType::Filter, HookPoint::Ingress { device: "lo".into() }, -500), vec![]),
    ];
    table
}

fn sets() -> Vec<Set> {
    let set = |name: &str, kind, elements| Set { name: name.into(), kind, elements };
    let [one, ten] = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(10, 0, 0, 0)];
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    let dynamic = |timeout_seconds| SetKind::Dynamic { size: 65535, timeout_seconds };
    vec![
        set("bad4", SetKind::Intervals, Elements::Ip(vec![Span::<Ipv4Addr>::prefix(ten, 8), Span::one(one)])),
        set("bad6", SetKind::Intervals, Elements::Ip6(vec![Span::<Ipv6Addr>::prefix(documentation, 32)])),
        set(
            "last",
            SetKind::Intervals,
            Elements::Ip(vec![Span::between(Ipv4Addr::new(240, 0, 0, 0), Ipv4Addr::BROADCAST)]),
        ),
        set("ports", SetKind::Values, Elements::Port([443, 80].map(Span::one).to_vec())),
        set("marks", SetKind::Values, Elements::Mark(vec![0x10])),
        set("macs", SetKind::Values, Elements::Ether(vec![[2, 0, 0, 0, 0, 1]])),
        set("lans", SetKind::Values, Elements::Interface(vec!["br0".into()])),
        set("sources4", dynamic(Some(60)), Elements::Ip(vec![])),
        set("sources6", dynamic(Some(60)), Elements::Ip6(vec![])),
        set("connections", dynamic(None), Elements::Ip(vec![])),
    ]
}

fn input() -> Vec<Rule> {
    let accept = |matches| Rule::new(matches, Action::Accept);
    let four = |last| Ipv4Addr::new(192, 0, 2, last);
    let ten = Span::<Ipv4Addr>::prefix(Ipv4Addr::new(10, 0, 0, 0), 8);
    let odd = Span::<Ipv4Addr>::prefix(Ipv4Addr::new(100, 64, 0, 0), 10);
    let link_local = Span::<Ipv6Addr>::prefix(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let limit = Limit { rate: 5, per: Unit::Second, burst: 7 };
    let meter = |set: &str, source, test| Match::Meter(Meter { set: set.into(), source, test });
    let flags = TcpFlags::FIN.or(TcpFlags::SYN).or(TcpFlags::RST).or(TcpFlags::ACK);
    let dport = |select| Match::Port(Transport::Tcp, End::Destination, select);
    vec![
        accept(vec![Match::InputInterface(Select::one("lo"))]),
        accept(vec![Match::InputInterface(Select::one("eth*"))]).counted().named("hello"),
        accept(vec![Match::InputInterface(Select::any(["b", "a"]))]),
        accept(vec![Match::InputInterface(Select::one("wan").negated())]),
        accept(vec![Match::InputInterface(Select::set("lans"))]),
        accept(vec![Match::ConnectionState(ConnectionStates::NEW.or(ConnectionStates::UNTRACKED))]),
        Rule::new(vec![Match::ConnectionState(ConnectionStates::INVALID)], Action::Drop),
        accept(vec![Match::ConnectionStatus(ConnectionStatus::Dnat)]),
        accept(vec![Match::ConnectionMark(Mark::exactly(0x12))]),
        accept(vec![Match::PacketMark(Mark { value: 0x10, mask: 0xff })]),
        accept(vec![Match::Protocol(Select::one(Protocol::TCP))]),
        accept(vec![
            Match::Protocol(Select::any([Protocol::UDP, Protocol::TCP])),
            Match::Port(Transport::Any, End::Destination, Select::one(53)),
        ]),
        accept(vec![Match::Ip(End::Source, Select::one(ten)), dport(Select::any([443, 80]))]),
        accept(vec![Match::Ip(End::Source, Select::one(odd))]),
        accept(vec![Match::Ip(End::Destination, Select::one(Span::between(four(4), four(9))))]),
        accept(vec![Match::Ip(End::Source, Select::one(Span::between(four(4), four(9))).negated())]),
        accept(vec![Match::Ip(End::Source, Select::one(four(1)).negated())]),
        accept(vec![Match::Ip(End::Source, Select::any([ten, Span::one(four(1)), Span::between(four(4), four(9))]))]),
        accept(vec![Match::Ip(End::Source, Select::set("bad4").negated())]),
        accept(vec![Match::Ip6(End::Destination, Select::set("bad6"))]),
        accept(vec![Match::Ip6(End::Source, Select::one(Ipv6Addr::LOCALHOST))]),
        accept(vec![
            Match::Ip6(End::Source, Select::one(link_local)),
            Match::Icmp6(Select::any([
                Span::one(Icmp6Type(1)),
                Span::one(Icmp6Type(2)),
                Span::between(Icmp6Type(133), Icmp6Type(136)),
            ])),
            Match::HopLimit(Select::one(255)),
        ]),
        accept(vec![Match::Icmp6(Select::one(Icmp6Type(128)))]),
        accept(vec![
            Match::Icmp(Select::any([IcmpType(11), IcmpType(3), IcmpType(8)])),
            Match::Limit(When::Within, limit),
        ]),
        Rule::new(vec![dport(Select::one(Span::between(1000, 2000)))], Action::Reject(Reject::TcpReset)),
        Rule::new(vec![dport(Select::set("ports").negated())], Action::Reject(Reject::AdminProhibited)),
        Rule::new(
            vec![Match::Port(Transport::Udp, End::Source, Select::any([1, 2]).negated())],
            Action::Reject(Reject::PortUnreachable),
        ),
        Rule::new(
            vec![dport(Select::one(80)), Match::OriginalPort(Select::one(Span::between(30000, 32767)))],
            Action::Drop,
        ),
        Rule::new(vec![Match::Limit(When::Over, limit)], Action::Drop),
        Rule::new(vec![meter("sources4", Prefixed::Ip(32), Meters::Rate(When::Over, limit))], Action::Drop),
        Rule::new(vec![meter("sources6", Prefixed::Ip6(64), Meters::Rate(When::Over, limit))], Action::Drop).counted(),
        Rule::new(vec![meter("connections", Prefixed::Ip(24), Meters::ConnectionsOver(20))], Action::Drop),
        accept(vec![Match::AddressType(End::Destination, AddressType::Local)]),
        accept(vec![Match::TcpFlags { mask: flags, set: TcpFlags::SYN }]),
        accept(vec![Match::Socket(SocketTest::Transparent)]),
        accept(vec![Match::Socket(SocketTest::NotWildcard)]),
        Rule::new(vec![Match::Fragment(Fragment::IpFollowing)], Action::Goto("other".into())),
        Rule::new(vec![Match::Fragment(Fragment::Ip6)], Action::Jump("other".into())),
        Rule::passing(vec![], vec![Statement::SaveMark]),
        Rule::passing(vec![], vec![Statement::RestoreMark]),
        Rule::passing(vec![], vec![Statement::SetPacketMark(0x10)]),
        Rule::passing(vec![], vec![Statement::SetConnectionMark(0x1234_5678)]),
    ]
}

fn forward() -> Vec<Rule> {
    let opens = Match::TcpFlags { mask: TcpFlags::SYN.or(TcpFlags::RST), set: TcpFlags::SYN };
    let clamp = |size| vec![Statement::MaximumSegment(size)];
    vec![
        Rule::passing(vec![Match::OutputInterface(Select::one("wg0")), opens.clone()], clamp(MaximumSegment::Route)),
        Rule::passing(vec![opens], clamp(MaximumSegment::Octets(1300))),
    ]
}

fn raw() -> Vec<Rule> {
    let port = Match::Port(Transport::Udp, End::Destination, Select::one(1));
    vec![Rule::passing(vec![port], vec![Statement::NoTrack])]
}

fn translations() -> Vec<Rule> {
    let port = || Match::Port(Transport::Tcp, End::Destination, Select::one(80));
    let (four, six) = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into());
    vec![
        Rule::new(vec![port()], Action::Dnat { to: four, port: Some(81) }),
        Rule::new(vec![port()], Action::Dnat { to: six, port: Some(81) }),
        Rule::new(vec![Match::IpFamily(IpFamily::V6)], Action::Dnat { to: six, port: None }),
    ]
}

fn sources() -> Vec<Rule> {
    let to = Ipv4Addr::new(192, 0, 2, 1).into();
    vec![
        Rule::new(vec![Match::OutputInterface(Select::one("wan")), Match::IpFamily(IpFamily::V4)], Action::Masquerade),
        Rule::new(vec![Match::IpFamily(IpFamily::V4)], Action::Snat { to, port: None }),
    ]
}
