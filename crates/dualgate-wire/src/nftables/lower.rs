//! From a rule's matches to the kernel's expressions.
//!
//! A field of TCP is only looked at after it is known that the packet is TCP, and an address of IPv4 only in a packet
//! of IPv4: what a match needs is put before it once, as nft does.

use std::net::IpAddr;

use super::expression::{Base, Comparison, ConnectionKey, Expression, Meta, SetName, SocketKey, Verdict};
use super::rule::{
    Action, End, Fragment, Interface, IpFamily, Mark, Match, MaximumSegment, Meter, Of, Prefixed, Protocol, Reject,
    Rule, Select, SocketTest, Statement,
};
use super::set::{Key, Range, Span, Value, canonical, mask, sorted};
use super::table::Family;

/// A set without a name, which belongs to one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnonymousSet {
    pub(super) key: Key,
    pub(super) ranges: Vec<Range>,
}

impl AnonymousSet {
    pub(super) fn has_intervals(&self) -> bool {
        !self.ranges.iter().all(Range::is_single)
    }
}

/// The expressions of a rule, as a table of this family needs them.
#[must_use]
pub fn lower(family: Family, rule: &Rule) -> Vec<Expression> {
    lower_rule(family, rule).expressions
}

pub(super) fn lower_rule(family: Family, rule: &Rule) -> Lowered {
    let (expressions, sets) = (Vec::new(), Vec::new());
    let mut lowered = Lowered { family, network: None, transport: None, expressions, sets };
    rule.matches.iter().for_each(|test| lowered.test(test));
    rule.statements.iter().for_each(|statement| lowered.statement(*statement));
    if let Some(action) = &rule.action {
        lowered.action(action);
    }
    lowered
}

/// A rule that is being lowered, and what is known of its packets so far.
pub(super) struct Lowered {
    family: Family,
    network: Option<IpFamily>,
    transport: Option<Protocol>,
    pub(super) expressions: Vec<Expression>,
    pub(super) sets: Vec<AnonymousSet>,
}

impl Lowered {
    fn test(&mut self, test: &Match) {
        match test {
            Match::InputInterface(select) => self.interface(Meta::Iifname, select),
            Match::OutputInterface(select) => self.interface(Meta::Oifname, select),
            Match::IpFamily(family) => {
                self.equal(Expression::Meta(Meta::Nfproto), vec![family.number()]);
                self.network = Some(*family);
            }
            Match::Protocol(select) => {
                self.select(Expression::Meta(Meta::L4proto), select);
                self.transport = only(select);
            }
            Match::Ip(end, select) => {
                self.need_network(IpFamily::V4);
                self.select(network(ip_offset(*end), 4), select);
            }
            Match::Ip6(end, select) => {
                self.need_network(IpFamily::V6);
                self.select(network(ip6_offset(*end), 16), select);
            }
            Match::Port(transport, end, select) => {
                transport.protocol().into_iter().for_each(|protocol| self.need_transport(protocol));
                let offset = match end {
                    End::Source => 0,
                    End::Destination => 2,
                };
                self.select(Expression::Payload { base: Base::Transport, offset, length: 2 }, select);
            }
            Match::OriginalPort(select) => {
                self.select(Expression::Connection(ConnectionKey::OriginalProtoDst), select);
            }
            Match::ConnectionState(states) => self.any_bit(ConnectionKey::State, states.bits()),
            Match::ConnectionStatus(status) => self.any_bit(ConnectionKey::Status, status.bits()),
            Match::ConnectionMark(mark) => self.mark(Expression::Connection(ConnectionKey::Mark), *mark),
            Match::PacketMark(mark) => self.mark(Expression::Meta(Meta::Mark), *mark),
            Match::Icmp(select) => {
                self.need_network(IpFamily::V4);
                self.need_transport(Protocol::ICMP);
                self.select(ICMP_TYPE, select);
            }
            Match::Icmp6(select) => {
                self.need_network(IpFamily::V6);
                self.need_transport(Protocol::ICMP6);
                self.select(ICMP_TYPE, select);
            }
            Match::HopLimit(select) => {
                self.need_network(IpFamily::V6);
                self.select(network(7, 1), select);
            }
            Match::Fragment(fragment) => self.fragment(*fragment),
            Match::AddressType(end, kind) => {
                let flags = match end {
                    End::Source => 1,
                    End::Destination => 2,
                };
                self.equal(Expression::AddressType { flags }, kind.number().to_ne_bytes().to_vec());
            }
            Match::TcpFlags { mask, set } => {
                self.need_transport(Protocol::TCP);
                self.push(Expression::Payload { base: Base::Transport, offset: 13, length: 1 });
                self.push(Expression::And(vec![mask.bits()]));
                self.push(Expression::Compare(Comparison::Eq, vec![set.bits()]));
            }
            Match::ArpOperation(operation) => self.equal(network(6, 2), operation.to_be_bytes().to_vec()),
            Match::ArpTarget(select) => self.select(network(24, 4), select),
            Match::ArpSender(select) => self.select(network(ARP_SENDER, 4), select),
            Match::Limit(when, limit) => self.push(Expression::Limit(*when, *limit)),
            Match::Meter(meter) => self.meter(meter),
            Match::Socket(test) => {
                let (key, expected) = match test {
                    SocketTest::Transparent => (SocketKey::Transparent, 1),
                    SocketTest::NotWildcard => (SocketKey::Wildcard, 0),
                };
                self.equal(Expression::Socket(key), vec![expected]);
            }
        }
    }

    fn statement(&mut self, statement: Statement) {
        match statement {
            Statement::Counter => self.push(Expression::Counter),
            Statement::NoTrack => self.push(Expression::NoTrack),
            Statement::MaximumSegment(size) => {
                self.need_transport(Protocol::TCP);
                match size {
                    MaximumSegment::Route => {
                        self.push(Expression::RouteMss);
                        self.push(Expression::ToNetworkOrder);
                    }
                    MaximumSegment::Octets(octets) => self.push(Expression::Immediate(octets.to_be_bytes().to_vec())),
                }
                self.push(Expression::WriteMss);
            }
            Statement::SetPacketMark(mark) => {
                self.push(Expression::Immediate(mark.to_ne_bytes().to_vec()));
                self.push(Expression::SetMark);
            }
            Statement::SetConnectionMark(mark) => {
                self.push(Expression::Immediate(mark.to_ne_bytes().to_vec()));
                self.push(Expression::SetConnectionMark);
            }
            Statement::SetArpSender(address) => {
                self.push(Expression::Immediate(address.octets().to_vec()));
                self.push(Expression::WritePayload { base: Base::Network, offset: ARP_SENDER, length: 4 });
            }
            Statement::Duplicate(to) => {
                self.push(Expression::Immediate(octets(to)));
                self.push(Expression::Duplicate);
            }
            Statement::SaveMark => {
                self.push(Expression::Meta(Meta::Mark));
                self.push(Expression::SetConnectionMark);
            }
            Statement::RestoreMark => {
                self.push(Expression::Connection(ConnectionKey::Mark));
                self.push(Expression::SetMark);
            }
        }
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Accept => self.push(Expression::Verdict(Verdict::Accept)),
            Action::Drop => self.push(Expression::Verdict(Verdict::Drop)),
            Action::Jump(chain) => self.push(Expression::Verdict(Verdict::Jump(chain.clone()))),
            Action::Goto(chain) => self.push(Expression::Verdict(Verdict::Goto(chain.clone()))),
            Action::Return => self.push(Expression::Verdict(Verdict::Return)),
            Action::Reject(Reject::AdminProhibited) => self.push(Expression::Reject { kind: 2, code: 3 }),
            Action::Reject(Reject::PortUnreachable) => self.push(Expression::Reject { kind: 2, code: 1 }),
            Action::Reject(Reject::TcpReset) => {
                self.need_transport(Protocol::TCP);
                self.push(Expression::Reject { kind: 1, code: 0 });
            }
            Action::Masquerade => self.push(Expression::Masquerade),
            Action::Snat { to, port } => self.translate(false, *to, *port),
            Action::Dnat { to, port } => self.translate(true, *to, *port),
        }
    }

    fn push(&mut self, expression: Expression) {
        self.expressions.push(expression);
    }

    fn equal(&mut self, load: Expression, octets: Vec<u8>) {
        self.push(load);
        self.push(Expression::Compare(Comparison::Eq, octets));
    }

    fn need_network(&mut self, family: IpFamily) {
        if self.network == Some(family) {
            return;
        }
        match self.family {
            Family::Ip | Family::Ip6 | Family::Arp => {}
            Family::Inet => self.equal(Expression::Meta(Meta::Nfproto), vec![family.number()]),
            Family::Netdev | Family::Bridge => {
                let ether_type: u16 = match family {
                    IpFamily::V4 => 0x0800,
                    IpFamily::V6 => 0x86dd,
                };
                self.equal(Expression::Meta(Meta::Protocol), ether_type.to_be_bytes().to_vec());
            }
        }
        self.network = Some(family);
    }

    fn need_transport(&mut self, protocol: Protocol) {
        if self.transport != Some(protocol) {
            self.equal(Expression::Meta(Meta::L4proto), vec![protocol.0]);
            self.transport = Some(protocol);
        }
    }

    fn interface(&mut self, meta: Meta, select: &Select<Interface>) {
        self.push(Expression::Meta(meta));
        match select.of() {
            Of::Set(name) => self.lookup(select, SetName::Named(name.clone())),
            Of::Values(names) => match names.as_slice() {
                [name] => self.push(Expression::Compare(equality(select), name.octets())),
                names => {
                    let ranges = sorted(names).iter().map(|name| Range::single(name.octets())).collect();
                    self.anonymous(select, Key::Interface, ranges);
                }
            },
        }
    }

    fn select<T: Value>(&mut self, load: Expression, select: &Select<Span<T>>) {
        let spans = match select.of() {
            Of::Set(name) => {
                self.push(load);
                return self.lookup(select, SetName::Named(name.clone()));
            }
            Of::Values(spans) => canonical(spans),
        };
        match spans.as_slice() {
            [span] => self.compare(load, select, &Range::of(span)),
            spans => {
                self.push(load);
                self.anonymous(select, T::KEY, spans.iter().map(Range::of).collect());
            }
        }
    }

    /// One value, prefix or range. A prefix of whole octets loads only these.
    fn compare<T>(&mut self, load: Expression, select: &Select<T>, range: &Range) {
        if range.is_single() {
            self.push(load);
            return self.push(Expression::Compare(equality(select), range.first.clone()));
        }
        if let (Expression::Payload { base, offset, .. }, Some(bits @ 1..)) = (&load, range.prefix_length()) {
            let octets = bits.div_ceil(8);
            if bits % 8 == 0 {
                self.push(Expression::Payload { base: *base, offset: *offset, length: length(octets) });
                let start = range.first.get(..octets).unwrap_or_default().to_vec();
                return self.push(Expression::Compare(equality(select), start));
            }
            self.push(load);
            self.push(Expression::And(mask(range.first.len(), bits)));
            return self.push(Expression::Compare(equality(select), range.first.clone()));
        }
        self.push(load);
        match select {
            Select::Is(_) => {
                self.push(Expression::Compare(Comparison::Gte, range.first.clone()));
                self.push(Expression::Compare(Comparison::Lte, range.last.clone()));
            }
            Select::IsNot(_) => self.push(Expression::Outside(range.first.clone(), range.last.clone())),
        }
    }

    fn anonymous<T>(&mut self, select: &Select<T>, key: Key, ranges: Vec<Range>) {
        self.sets.push(AnonymousSet { key, ranges });
        self.lookup(select, SetName::Anonymous(self.sets.len() - 1));
    }

    fn lookup<T>(&mut self, select: &Select<T>, set: SetName) {
        self.push(Expression::Lookup { set, inverted: matches!(select, Select::IsNot(_)) });
    }

    fn any_bit(&mut self, key: ConnectionKey, bits: u32) {
        self.push(Expression::Connection(key));
        self.push(Expression::And(bits.to_ne_bytes().to_vec()));
        self.push(Expression::Compare(Comparison::Neq, vec![0; 4]));
    }

    fn mark(&mut self, load: Expression, mark: Mark) {
        self.push(load);
        if mark.mask != u32::MAX {
            self.push(Expression::And(mark.mask.to_ne_bytes().to_vec()));
        }
        self.push(Expression::Compare(Comparison::Eq, mark.value.to_ne_bytes().to_vec()));
    }

    fn fragment(&mut self, fragment: Fragment) {
        match fragment {
            Fragment::IpFollowing => {
                self.need_network(IpFamily::V4);
                self.push(network(6, 2));
                self.push(Expression::And(0x1fff_u16.to_be_bytes().to_vec()));
                self.push(Expression::Compare(Comparison::Neq, vec![0; 2]));
            }
            Fragment::Ip6 => {
                self.need_network(IpFamily::V6);
                self.equal(Expression::HasExtension(44), vec![1]);
            }
        }
    }

    fn meter(&mut self, meter: &Meter) {
        let (family, load, bits, all) = match meter.source {
            Prefixed::Ip(bits) => (IpFamily::V4, network(ip_offset(End::Source), 4), bits, 4),
            Prefixed::Ip6(bits) => (IpFamily::V6, network(ip6_offset(End::Source), 16), bits, 16),
        };
        self.need_network(family);
        self.push(load);
        if usize::from(bits) < all * 8 {
            self.push(Expression::And(mask(all, usize::from(bits))));
        }
        self.push(Expression::Update { set: meter.set.clone(), test: meter.test });
    }

    fn translate(&mut self, destination: bool, to: IpAddr, port: Option<u16>) {
        self.push(Expression::Immediate(octets(to)));
        port.into_iter().for_each(|port| self.push(Expression::ImmediatePort(port)));
        self.push(Expression::Nat { destination, family: IpFamily::of(to), port: port.is_some() });
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Of IPv4 over Ethernet.
const ARP_SENDER: u32 = 14;
const ICMP_TYPE: Expression = Expression::Payload { base: Base::Transport, offset: 0, length: 1 };

const fn network(offset: u32, length: u32) -> Expression {
    Expression::Payload { base: Base::Network, offset, length }
}

const fn ip_offset(end: End) -> u32 {
    match end {
        End::Source => 12,
        End::Destination => 16,
    }
}

const fn ip6_offset(end: End) -> u32 {
    match end {
        End::Source => 8,
        End::Destination => 24,
    }
}

const fn equality<T>(select: &Select<T>) -> Comparison {
    match select {
        Select::Is(_) => Comparison::Eq,
        Select::IsNot(_) => Comparison::Neq,
    }
}

/// The only protocol that passes.
fn only(select: &Select<Span<Protocol>>) -> Option<Protocol> {
    match select {
        Select::Is(Of::Values(spans)) => match canonical(spans).as_slice() {
            [span] if span.is_one() => Some(span.first()),
            _ => None,
        },
        Select::Is(Of::Set(_)) | Select::IsNot(_) => None,
    }
}

fn length(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}
