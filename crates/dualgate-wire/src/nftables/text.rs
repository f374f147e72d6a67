//! A table in nft's words.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::rule::{
    Action, ConnectionStates, End, Fragment, Icmp6Type, IcmpType, Interface, IpFamily, Limit, Mark, Match,
    MaximumSegment, Meter, Meters, Of, Prefixed, Protocol, Reject, Rule, Select, SocketTest, Statement, TcpFlags,
    Transport, When,
};
use super::set::{Elements, Range, Set, SetKind, Span, Value, canonical, mask, sorted};
use super::table::{Chain, Family, Hook, HookPoint, Ownership, Table};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        match self.ownership {
            Ownership::Shared => {}
            Ownership::Owner => writeln!(f, "\tflags owner")?,
            Ownership::OwnerPersist => writeln!(f, "\tflags owner,persist")?,
        }
        if let Some(comment) = &self.comment {
            writeln!(f, "\tcomment \"{comment}\"")?;
        }
        let mut first = true;
        for set in &self.sets {
            separate(f, &mut first)?;
            write_set(f, set)?;
        }
        for chain in &self.chains {
            separate(f, &mut first)?;
            write_chain(f, chain)?;
        }
        writeln!(f, "}}")
    }
}

fn separate(f: &mut Formatter<'_>, first: &mut bool) -> fmt::Result {
    if !std::mem::take(first) {
        writeln!(f)?;
    }
    Ok(())
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        })
    }
}

fn write_set(f: &mut Formatter<'_>, set: &Set) -> fmt::Result {
    writeln!(f, "\tset {} {{\n\t\ttype {}", set.name, set.elements.key().name())?;
    match set.kind {
        SetKind::Values => {}
        SetKind::Intervals => writeln!(f, "\t\tflags interval")?,
        SetKind::Dynamic { size, timeout_seconds: None } => writeln!(f, "\t\tsize {size}\n\t\tflags dynamic")?,
        SetKind::Dynamic { size, timeout_seconds: Some(timeout) } => {
            writeln!(f, "\t\tsize {size}\n\t\tflags dynamic,timeout\n\t\ttimeout {}", duration(timeout))?;
        }
    }
    let elements = elements(&set.elements, set.kind);
    if !elements.is_empty() {
        writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
    }
    writeln!(f, "\t}}")
}

/// Each element in nft's words, in order.
fn elements(elements: &Elements, kind: SetKind) -> Vec<String> {
    match elements {
        Elements::Ip(spans) => spans_text(&kind.ordered(spans)),
        Elements::Ip6(spans) => spans_text(&kind.ordered(spans)),
        Elements::Port(spans) => spans_text(&kind.ordered(spans)),
        Elements::Mark(marks) => sorted(marks).iter().map(|mark| format!("{mark:#010x}")).collect(),
        Elements::Ether(addresses) => sorted(addresses).into_iter().map(ether).collect(),
        Elements::Interface(names) => sorted(names).iter().map(|name| format!("\"{name}\"")).collect(),
    }
}

fn spans_text<T: Value>(spans: &[Span<T>]) -> Vec<String> {
    spans.iter().map(ToString::to_string).collect()
}

/// In nft's units, the larger ones first.
fn duration(seconds: u32) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String =
        parts.iter().filter(|(number, _)| *number != 0).map(|(number, unit)| format!("{number}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn ether(address: [u8; 6]) -> String {
    address.map(|octet| format!("{octet:02x}")).join(":")
}

impl<T: Value> Display for Span<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match Range::of(self).prefix_length() {
            _ if self.is_one() => write!(f, "{}", self.first()),
            Some(bits) => write!(f, "{}/{bits}", self.first()),
            None => write!(f, "{}-{}", self.first().bound(), self.last().bound()),
        }
    }
}

fn write_chain(f: &mut Formatter<'_>, chain: &Chain) -> fmt::Result {
    writeln!(f, "\tchain {} {{", chain.name)?;
    if let Some(hook) = &chain.hook {
        writeln!(f, "\t\t{hook}")?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{rule}")?;
    }
    writeln!(f, "\t}}")
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, at, priority, policy } = self;
        write!(f, "type {} hook {} ", kind.name(), at.name())?;
        if let HookPoint::Ingress { device } = at {
            write!(f, "device \"{device}\" ")?;
        }
        write!(f, "priority {priority}; policy {};", policy.name())
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.matches.iter().map(ToString::to_string).collect();
        words.extend(self.statements.iter().map(ToString::to_string));
        words.extend(self.action.iter().map(ToString::to_string));
        words.extend(self.comment.iter().map(|comment| format!("comment \"{comment}\"")));
        f.write_str(&words.join(" "))
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputInterface(select) => write!(f, "iifname {}", interfaces(select)),
            Self::OutputInterface(select) => write!(f, "oifname {}", interfaces(select)),
            Self::IpFamily(family) => write!(f, "meta nfproto {}", family_name(*family)),
            Self::Protocol(select) => write!(f, "meta l4proto {}", values(select)),
            Self::Ip(end, select) => write!(f, "ip {} {}", address(*end), values(select)),
            Self::Ip6(end, select) => write!(f, "ip6 {} {}", address(*end), values(select)),
            Self::Port(transport, end, select) => {
                let transport = match transport {
                    Transport::Tcp => "tcp",
                    Transport::Udp => "udp",
                    Transport::Any => "th",
                };
                let port = match end {
                    End::Source => "sport",
                    End::Destination => "dport",
                };
                write!(f, "{transport} {port} {}", values(select))
            }
            Self::OriginalPort(select) => write!(f, "ct original proto-dst {}", values(select)),
            Self::ConnectionState(states) => write!(f, "ct state {}", state_names(*states)),
            Self::ConnectionStatus(status) => write!(f, "ct status {}", format!("{status:?}").to_lowercase()),
            Self::ConnectionMark(mark) => write!(f, "ct mark {mark}"),
            Self::PacketMark(mark) => write!(f, "meta mark {mark}"),
            Self::Icmp(select) => write!(f, "icmp type {}", values(select)),
            Self::Icmp6(select) => write!(f, "icmpv6 type {}", values(select)),
            Self::HopLimit(select) => write!(f, "ip6 hoplimit {}", values(select)),
            Self::Fragment(Fragment::IpFollowing) => f.write_str("ip frag-off & 8191 != 0"),
            Self::Fragment(Fragment::Ip6) => f.write_str("exthdr frag exists"),
            Self::AddressType(end, kind) => write!(f, "fib {} type {}", address(*end), kind.name()),
            // The short form is for a list of flags only.
            Self::TcpFlags { mask, set } if mask.bits().is_power_of_two() => {
                write!(f, "tcp flags & {} == {}", flag_names(*mask), flag_names(*set))
            }
            Self::TcpFlags { mask, set } => write!(f, "tcp flags {} / {}", flag_names(*set), flag_names(*mask)),
            Self::ArpOperation(1) => f.write_str("arp operation request"),
            Self::ArpOperation(2) => f.write_str("arp operation reply"),
            Self::ArpOperation(number) => write!(f, "arp operation {number}"),
            Self::ArpTarget(select) => write!(f, "arp daddr ip {}", values(select)),
            Self::ArpSender(select) => write!(f, "arp saddr ip {}", values(select)),
            Self::Limit(when, limit) => write!(f, "limit rate {}", rate(*when, *limit)),
            Self::Meter(meter) => write_meter(f, meter),
            Self::Socket(SocketTest::Transparent) => f.write_str("socket transparent 1"),
            Self::Socket(SocketTest::NotWildcard) => f.write_str("socket wildcard 0"),
        }
    }
}

const fn address(end: End) -> &'static str {
    match end {
        End::Source => "saddr",
        End::Destination => "daddr",
    }
}

const fn family_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    }
}

fn interfaces(select: &Select<Interface>) -> String {
    let names = |names: &[Interface]| sorted(names).iter().map(|name| format!("\"{name}\"")).collect();
    chosen(select, names)
}

impl Display for Interface {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(start) => write!(f, "{start}*"),
        }
    }
}

fn values<T: Value>(select: &Select<Span<T>>) -> String {
    chosen(select, |spans| spans_text(&canonical(spans)))
}

fn chosen<T>(select: &Select<T>, text: impl Fn(&[T]) -> Vec<String>) -> String {
    let of = match select.of() {
        Of::Set(name) => format!("@{name}"),
        Of::Values(values) => match text(values).as_slice() {
            [one] => one.clone(),
            several => format!("{{ {} }}", several.join(", ")),
        },
    };
    match select {
        Select::Is(_) => of,
        Select::IsNot(_) => format!("!= {of}"),
    }
}

fn state_names(states: ConnectionStates) -> String {
    let names = ConnectionStates::NAMED.into_iter().filter(|(state, _)| states.bits() & state.bits() != 0);
    names.map(|(_, name)| name).collect::<Vec<_>>().join(",")
}

fn flag_names(flags: TcpFlags) -> String {
    let names = TcpFlags::NAMED.into_iter().filter(|(flag, _)| flags.bits() & flag.bits() != 0);
    let names: Vec<_> = names.map(|(_, name)| name).collect();
    if names.is_empty() { "0x0".to_owned() } else { names.join(",") }
}

impl Display for Mark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#010x}", self.value),
            mask => write!(f, "& {mask:#010x} == {:#010x}", self.value),
        }
    }
}

fn rate(when: When, limit: Limit) -> String {
    let over = match when {
        When::Within => "",
        When::Over => "over ",
    };
    format!("{over}{}/{} burst {} packets", limit.rate, limit.per.name(), limit.burst)
}

fn write_meter(f: &mut Formatter<'_>, meter: &Meter) -> fmt::Result {
    write!(f, "update @{} {{ ", meter.set)?;
    match meter.source {
        Prefixed::Ip(bits) => {
            f.write_str("ip saddr")?;
            if bits < 32 {
                write!(f, " & {}", Ones::<4>(bits))?;
            }
        }
        Prefixed::Ip6(bits) => {
            f.write_str("ip6 saddr")?;
            if bits < 128 {
                write!(f, " & {}", Ones::<16>(bits))?;
            }
        }
    }
    match meter.test {
        Meters::Rate(when, limit) => write!(f, " limit rate {} }}", rate(when, limit)),
        Meters::ConnectionsOver(count) => write!(f, " ct count over {count} }}"),
    }
}

/// An address whose first bits are ones.
struct Ones<const OCTETS: usize>(u8);

impl<const OCTETS: usize> Display for Ones<OCTETS> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let octets = mask(OCTETS, usize::from(self.0));
        let v4 = <[u8; 4]>::try_from(octets.as_slice()).map(|octets| IpAddr::V4(octets.into()));
        let v6 = || <[u8; 16]>::try_from(octets.as_slice()).map(|octets| IpAddr::V6(octets.into()));
        v4.or_else(|_| v6()).map_or(Ok(()), |address| write!(f, "{address}"))
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter => f.write_str("counter"),
            Self::MaximumSegment(MaximumSegment::Route) => f.write_str("tcp option maxseg size set rt mtu"),
            Self::MaximumSegment(MaximumSegment::Octets(octets)) => write!(f, "tcp option maxseg size set {octets}"),
            Self::SetPacketMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::SetConnectionMark(mark) => write!(f, "ct mark set {mark:#010x}"),
            Self::SaveMark => f.write_str("ct mark set meta mark"),
            Self::RestoreMark => f.write_str("meta mark set ct mark"),
            Self::NoTrack => f.write_str("notrack"),
            Self::SetArpSender(address) => write!(f, "arp saddr ip set {address}"),
            Self::Duplicate(to) => write!(f, "dup to {to}"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject(Reject::AdminProhibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::Reject(Reject::PortUnreachable) => f.write_str("reject"),
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Snat { to, port } => write!(f, "snat {}", target(*to, *port)),
            Self::Dnat { to, port } => write!(f, "dnat {}", target(*to, *port)),
        }
    }
}

fn target(to: IpAddr, port: Option<u16>) -> String {
    match (to, port) {
        (IpAddr::V4(to), None) => format!("ip to {to}"),
        (IpAddr::V4(to), Some(port)) => format!("ip to {to}:{port}"),
        (IpAddr::V6(to), None) => format!("ip6 to {to}"),
        (IpAddr::V6(to), Some(port)) => format!("ip6 to [{to}]:{port}"),
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMP6 => f.write_str("ipv6-icmp"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

impl Display for IcmpType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "echo-reply",
            3 => "destination-unreachable",
            4 => "source-quench",
            5 => "redirect",
            8 => "echo-request",
            9 => "router-advertisement",
            10 => "router-solicitation",
            11 => "time-exceeded",
            12 => "parameter-problem",
            number => return write!(f, "{number}"),
        })
    }
}

impl Display for Icmp6Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "destination-unreachable",
            2 => "packet-too-big",
            3 => "time-exceeded",
            4 => "parameter-problem",
            128 => "echo-request",
            129 => "echo-reply",
            130 => "mld-listener-query",
            131 => "mld-listener-report",
            132 => "mld-listener-done",
            133 => "nd-router-solicit",
            134 => "nd-router-advert",
            135 => "nd-neighbor-solicit",
            136 => "nd-neighbor-advert",
            137 => "nd-redirect",
            143 => "mld2-listener-report",
            number => return write!(f, "{number}"),
        })
    }
}
