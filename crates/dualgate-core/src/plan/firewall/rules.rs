//! The words that both tables are written in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_wire::nftables::{
    Action, Chain, ChainType, ConnectionStates, Elements, End, Hook, HookPoint, Icmp6Type, IcmpType, Interface,
    IpFamily, Limit, Match, MaximumSegment, Meter, Meters, Policy, Prefixed, Protocol, Rule, Select, Set, SetKind,
    Span, Statement, TcpFlags, Transport, Unit, When,
};
use ipnet::IpNet;

use super::opening::{Opening, Source};
use crate::model::object;
use crate::plan::tunnel::INTERFACE;

/// What is only ever of use within a network: a packet from the Internet that says it came from there lies.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"];
/// Interfaces of pods, as the CNIs that K3s is run with name them.
pub(super) const PODS: [&str; 6] = ["cali*", "cilium*", "cni*", "flannel*", "lxc*", "vxlan*"];
/// Interfaces of other containers and guests of this machine.
pub(super) const GUESTS: [&str; 5] = ["br-*", "docker*", "podman*", "veth*", "virbr*"];
/// The most sources that a limit remembers. Beyond it, further ones are not limited.
const SOURCES: u32 = 65_535;

/// Networks, one list for each family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Networks {
    pub(super) v4: Vec<Span<Ipv4Addr>>,
    pub(super) v6: Vec<Span<Ipv6Addr>>,
}

impl Networks {
    pub(super) fn new<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut networks = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => networks.v4.push(Span::<Ipv4Addr>::prefix(net.network(), net.prefix_len())),
                IpNet::V6(net) => networks.v6.push(Span::<Ipv6Addr>::prefix(net.network(), net.prefix_len())),
            }
        }
        networks
    }

    pub(super) fn of_addresses<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> Self {
        let nets: Vec<IpNet> = addresses.into_iter().map(|address| IpNet::from(*address)).collect();
        Self::new(&nets)
    }

    pub(super) fn private() -> Self {
        let nets: Vec<IpNet> = private().collect();
        Self::new(&nets)
    }

    /// Matches those of a family, if there are any.
    pub(super) fn of(&self, family: IpFamily, end: End) -> Option<Match> {
        match family {
            IpFamily::V4 => (!self.v4.is_empty()).then(|| Match::Ip(end, Select::any(self.v4.clone()))),
            IpFamily::V6 => (!self.v6.is_empty()).then(|| Match::Ip6(end, Select::any(self.v6.clone()))),
        }
    }

    /// A match for each family that has any.
    pub(super) fn matches(&self, end: End) -> impl Iterator<Item = Match> + use<> {
        [self.of(IpFamily::V4, end), self.of(IpFamily::V6, end)].into_iter().flatten()
    }

    /// For each family a match of what is not among them.
    pub(super) fn others(&self, end: End) -> [Match; 2] {
        let v4 = match self.v4.is_empty() {
            true => Match::IpFamily(IpFamily::V4),
            false => Match::Ip(end, Select::any(self.v4.clone()).negated()),
        };
        let v6 = match self.v6.is_empty() {
            true => Match::IpFamily(IpFamily::V6),
            false => Match::Ip6(end, Select::any(self.v6.clone()).negated()),
        };
        [v4, v6]
    }
}

fn private() -> impl Iterator<Item = IpNet> {
    PRIVATE.into_iter().filter_map(|net| net.parse().ok())
}

/// Whether all of it is private.
pub(super) fn is_private(net: &IpNet) -> bool {
    private().any(|block| block.contains(net))
}

/// The link's own addresses, from which Neighbor Discovery speaks.
pub(super) fn link_local() -> Span<Ipv6Addr> {
    Span::<Ipv6Addr>::prefix(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)
}

pub(super) fn chain(name: &str, at: HookPoint, priority: i32, policy: Policy, rules: Vec<Rule>) -> Chain {
    Chain::base(name, Hook { kind: ChainType::Filter, at, priority, policy }, rules)
}

/// Lets through what matches, and counts it under a name.
pub(super) fn accept(matches: Vec<Match>, name: impl Into<String>) -> Rule {
    Rule::new(matches, Action::Accept).counted().named(name)
}

/// Drops what matches, and counts it under a name.
pub(super) fn drop(matches: Vec<Match>, name: impl Into<String>) -> Rule {
    Rule::new(matches, Action::Drop).counted().named(name)
}

/// Lets through what matches, without a count: it says nothing about anybody.
pub(super) fn pass(matches: Vec<Match>) -> Rule {
    Rule::new(matches, Action::Accept)
}

pub(super) fn from_interface(name: &str) -> Match {
    Match::InputInterface(Select::one(Interface::from(name)))
}

pub(super) fn to_interface(name: &str) -> Match {
    Match::OutputInterface(Select::one(Interface::from(name)))
}

pub(super) fn from_tunnel() -> Match {
    from_interface(INTERFACE)
}

pub(super) fn to_tunnel() -> Match {
    to_interface(INTERFACE)
}

/// Lets through what belongs to a connection that was let through, also errors of it.
pub(super) fn answers() -> Rule {
    let states = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
    accept(vec![Match::ConnectionState(states)], "established")
}

/// Drops what belongs to nothing and starts nothing.
pub(super) fn invalid() -> Rule {
    drop(vec![Match::ConnectionState(ConnectionStates::INVALID)], "invalid")
}

pub(super) fn starts() -> Match {
    Match::ConnectionState(ConnectionStates::NEW)
}

/// What a link of IPv6 does not work without (RFC 4890 4.4.1). Connection tracking does not follow it: this stands before
/// any look at its states.
pub(super) fn on_link() -> [Rule; 2] {
    let from_link = Match::Ip6(End::Source, Select::one(link_local()));
    [
        // Routers, neighbours and their certificates: never from beyond the link, as the hop limit proves.
        accept(
            vec![icmp6(&[133, 134, 135, 136, 148, 149]), Match::HopLimit(Select::one(255_u8))],
            "neighbor-discovery",
        ),
        accept(vec![icmp6(&[130, 131, 132, 143]), from_link], "multicast-listener"),
    ]
}

/// Errors, without which the path's MTU stays unknown: unreachable, too big, time exceeded, parameter problem.
pub(super) fn errors() -> [Rule; 2] {
    let icmp = Match::Icmp(Select::any([3, 11, 12].map(|number| Span::one(IcmpType(number)))));
    [accept(vec![icmp6(&[1, 2, 3, 4])], "icmp6-error"), accept(vec![icmp], "icmp-error")]
}

fn icmp6(types: &[u8]) -> Match {
    Match::Icmp6(Select::any(types.iter().map(|number| Span::one(Icmp6Type(*number)))))
}

/// Echo requests of either family that also match this.
pub(super) fn ping(family: IpFamily, also: impl IntoIterator<Item = Match>) -> Vec<Match> {
    let echo = match family {
        IpFamily::V4 => Match::Icmp(Select::one(IcmpType(8))),
        IpFamily::V6 => Match::Icmp6(Select::one(Icmp6Type(128))),
    };
    also.into_iter().chain([echo]).collect()
}

/// A limit for each source: an address of IPv4, a /64 of IPv6, which is as much as one customer has at least.
pub(super) struct PerSource {
    pub(super) name: &'static str,
    pub(super) test: Meters,
}

impl PerSource {
    pub(super) fn rate(name: &'static str, rate: u32, per: Unit, burst: u32) -> Self {
        Self { name, test: Meters::Rate(When::Over, Limit { rate, per, burst }) }
    }

    /// That of SSH.
    pub(super) fn ssh() -> Self {
        Self::rate("ssh", 30, Unit::Minute, 30)
    }

    pub(super) fn sets(&self) -> [Set; 2] {
        let timeout_seconds = match self.test {
            Meters::Rate(..) => Some(120),
            Meters::ConnectionsOver(_) => None,
        };
        let kind = SetKind::Dynamic { size: SOURCES, timeout_seconds };
        let set = |family: &str, elements| Set { name: format!("{}{family}", self.name), kind, elements };
        [set("4", Elements::Ip(Vec::new())), set("6", Elements::Ip6(Vec::new()))]
    }

    /// Drops what is beyond the limit.
    pub(super) fn rule(&self, family: IpFamily, mut matches: Vec<Match>) -> Rule {
        let (family, source) = match family {
            IpFamily::V4 => ("4", Prefixed::Ip(32)),
            IpFamily::V6 => ("6", Prefixed::Ip6(64)),
        };
        let set = format!("{}{family}", self.name);
        matches.push(Match::Meter(Meter { set, source, test: self.test }));
        drop(matches, format!("{}-limit", self.name))
    }

    pub(super) fn rules(&self, matches: &[Match]) -> [Rule; 2] {
        [IpFamily::V4, IpFamily::V6].map(|family| self.rule(family, matches.to_vec()))
    }
}

/// The rules of an opening: one for each family that its ends have.
pub(super) fn open(opening: &Opening) -> impl Iterator<Item = Rule> {
    let port = port(opening);
    ends(opening).into_iter().map(move |ends| accept([ends, port.clone()].concat(), opening.name()))
}

/// The same for packets whose destination was translated: it is the port that they came to.
pub(super) fn open_original(opening: &Opening) -> impl Iterator<Item = Rule> {
    let original =
        vec![Match::Protocol(Select::one(number(opening.protocol))), Match::OriginalPort(Select::one(opening.port))];
    ends(opening).into_iter().map(move |ends| accept([ends, original.clone()].concat(), opening.name()))
}

/// What tells where a packet comes from and goes to: once if that is anywhere, else for each family.
fn ends(opening: &Opening) -> Vec<Vec<Match>> {
    let (interface, from) = match &opening.from {
        Source::Everywhere => (None, None),
        Source::Networks(nets) => (None, Some(Networks::new(nets))),
        Source::Tunnel(nets) => (Some(from_tunnel()), Some(Networks::new(nets))),
    };
    let to = (!opening.to.is_empty()).then(|| Networks::of_addresses(&opening.to));
    if from.is_none() && to.is_none() {
        return vec![Vec::new()];
    }
    let of = |family| {
        let mut matches: Vec<Match> = interface.iter().cloned().collect();
        for (end, nets) in [(End::Source, &from), (End::Destination, &to)] {
            if let Some(nets) = nets {
                matches.push(nets.of(family, end)?);
            }
        }
        Some(matches)
    };
    [IpFamily::V4, IpFamily::V6].into_iter().filter_map(of).collect()
}

pub(super) fn port(opening: &Opening) -> Vec<Match> {
    let port = Select::one(opening.port);
    match opening.protocol {
        object::Protocol::Tcp => vec![Match::Port(Transport::Tcp, End::Destination, port)],
        object::Protocol::Udp => vec![Match::Port(Transport::Udp, End::Destination, port)],
        object::Protocol::Sctp => {
            let protocol = Match::Protocol(Select::one(number(opening.protocol)));
            vec![protocol, Match::Port(Transport::Any, End::Destination, port)]
        }
    }
}

pub(super) fn tcp() -> Match {
    Match::Protocol(Select::one(number(object::Protocol::Tcp)))
}

fn number(protocol: object::Protocol) -> Span<Protocol> {
    Span::one(match protocol {
        object::Protocol::Tcp => Protocol::TCP,
        object::Protocol::Udp => Protocol::UDP,
        object::Protocol::Sctp => Protocol(132),
    })
}

/// Connections that are forwarded through the tunnel announce segments that fit it, whatever becomes of ICMP on the way:
/// the MTU of the route there and of the route back, which are as narrow as the path (`machine::path_mtu`).
pub(super) fn clamp() -> Chain {
    let opens = Match::TcpFlags { mask: TcpFlags::SYN.or(TcpFlags::RST), set: TcpFlags::SYN };
    let rule = |interface: Match| {
        let fits = Statement::MaximumSegment(MaximumSegment::Route);
        Rule::passing(vec![interface, opens.clone()], vec![fits])
    };
    let rules = vec![rule(from_tunnel()), rule(to_tunnel())];
    chain("clamp", HookPoint::Forward, MANGLE, Policy::Accept, rules)
}

/// Before connection tracking.
pub(super) const RAW: i32 = -300;
/// After connection tracking, before the filters.
pub(super) const MANGLE: i32 = -150;
/// Where the filters of the host are.
pub(super) const FILTER: i32 = 0;
