//! Rules: what they match and what they do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::set::Span;

/// If all matches hold, the statements are carried out and the action is taken.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// What must hold, in the order in which it is tried.
    pub matches: Vec<Match>,
    /// What is done besides.
    pub statements: Vec<Statement>,
    /// What becomes of the packet. Without, the following rule is tried.
    pub action: Option<Action>,
    /// A few words that name the rule to people and in metrics.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule that decides.
    #[must_use]
    pub fn new(matches: Vec<Match>, action: Action) -> Self {
        Self { matches, statements: Vec::new(), action: Some(action), comment: None }
    }

    /// A rule that does something and lets the following rules decide.
    #[must_use]
    pub fn passing(matches: Vec<Match>, statements: Vec<Statement>) -> Self {
        Self { matches, statements, action: None, comment: None }
    }

    /// The same, counting the packets and octets that reach its action.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.statements.push(Statement::Counter);
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn named(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// One test of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `iifname`: the interface it came in by.
    InputInterface(Select<Interface>),
    /// `oifname`: the interface it leaves by.
    OutputInterface(Select<Interface>),
    /// `meta nfproto`: IPv4 or IPv6.
    IpFamily(IpFamily),
    /// `meta l4proto`: what IP carries.
    Protocol(Select<Span<Protocol>>),
    /// `ip saddr`, `ip daddr`.
    Ip(End, Select<Span<Ipv4Addr>>),
    /// `ip6 saddr`, `ip6 daddr`.
    Ip6(End, Select<Span<Ipv6Addr>>),
    /// `tcp sport`, `udp dport`, `th dport` and so on.
    Port(Transport, End, Select<Span<u16>>),
    /// `ct original proto-dst`: the port that the connection was made to, before any translation. Holds only where
    /// TCP or UDP was matched before.
    OriginalPort(Select<Span<u16>>),
    /// `ct state`: one of these.
    ConnectionState(ConnectionStates),
    /// `ct status`: has this.
    ConnectionStatus(ConnectionStatus),
    /// `ct mark`.
    ConnectionMark(Mark),
    /// `meta mark`.
    PacketMark(Mark),
    /// `icmp type`.
    Icmp(Select<Span<IcmpType>>),
    /// `icmpv6 type`.
    Icmp6(Select<Span<Icmp6Type>>),
    /// `ip6 hoplimit`.
    HopLimit(Select<Span<u8>>),
    /// `ip frag-off`, `exthdr frag`: a fragment.
    Fragment(Fragment),
    /// `fib saddr type`, `fib daddr type`: what the host's routes say of an address.
    AddressType(End, AddressType),
    /// `tcp flags`.
    TcpFlags {
        /// Those that are looked at.
        mask: TcpFlags,
        /// Those of them that are set; the others are not.
        set: TcpFlags,
    },
    /// `arp operation`: 1 is a request, 2 a reply.
    ArpOperation(u16),
    /// `arp daddr ip`: the address that is asked for.
    ArpTarget(Select<Span<Ipv4Addr>>),
    /// `arp saddr ip`: the address that the sender speaks from.
    ArpSender(Select<Span<Ipv4Addr>>),
    /// `limit rate`: for all packets that come here together.
    Limit(When, Limit),
    /// `update @set { ... }`: the same for each source by itself.
    Meter(Meter),
    /// `socket`: a socket of this host takes the packet.
    Socket(SocketTest),
}

/// One of these values, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select<T> {
    /// One of these.
    Is(Of<T>),
    /// None of these.
    IsNot(Of<T>),
}

/// Where the values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of<T> {
    /// Here. At least one.
    Values(Vec<T>),
    /// In the set of this name, whose type fits.
    Set(String),
}

impl<T> Select<T> {
    /// This value.
    pub fn one(value: impl Into<T>) -> Self {
        Self::Is(Of::Values(vec![value.into()]))
    }

    /// One of these values, of which there is at least one.
    pub fn any<V: Into<T>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::Is(Of::Values(values.into_iter().map(Into::into).collect()))
    }

    /// A value of the set of this name.
    pub fn set(name: impl Into<String>) -> Self {
        Self::Is(Of::Set(name.into()))
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Is(of) => Self::IsNot(of),
            Self::IsNot(of) => Self::Is(of),
        }
    }

    pub(super) const fn of(&self) -> &Of<T> {
        match self {
            Self::Is(of) | Self::IsNot(of) => of,
        }
    }
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// An interface by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interface {
    /// This one.
    Exact(String),
    /// Each whose name starts so; written with a `*` at the end. Only alone, not in a set.
    Prefix(String),
}

impl Interface {
    /// As the kernel compares it: a whole name is 16 octets.
    pub(super) fn octets(&self) -> Vec<u8> {
        match self {
            Self::Exact(name) => {
                let mut octets = name.as_bytes().to_vec();
                octets.resize(16, 0);
                octets
            }
            Self::Prefix(start) => start.as_bytes().to_vec(),
        }
    }
}

impl From<&str> for Interface {
    /// A `*` at the end makes it a prefix, as nft reads it.
    fn from(name: &str) -> Self {
        name.strip_suffix('*').map_or_else(|| Self::Exact(name.to_owned()), |start| Self::Prefix(start.to_owned()))
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The kernel's number, `NFPROTO_*`.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What IP carries, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMPv6.
    pub const ICMP6: Self = Self(58);
}

/// A type of ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpType(pub u8);

/// A type of ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Icmp6Type(pub u8);

/// Whose ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP's.
    Tcp,
    /// UDP's.
    Udp,
    /// Of whichever was matched before.
    Any,
}

impl Transport {
    pub(super) const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Tcp => Some(Protocol::TCP),
            Self::Udp => Some(Protocol::UDP),
            Self::Any => None,
        }
    }
}

/// States of connection tracking; one of them must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionStates(u32);

impl ConnectionStates {
    /// Belongs to nothing and starts nothing.
    pub const INVALID: Self = Self(1);
    /// Belongs to a connection that was answered.
    pub const ESTABLISHED: Self = Self(2);
    /// Starts a connection that another one announced, or reports an error of one.
    pub const RELATED: Self = Self(4);
    /// Starts a connection.
    pub const NEW: Self = Self(8);
    /// Is not followed.
    pub const UNTRACKED: Self = Self(64);
    pub(super) const NAMED: [(Self, &'static str); 5] = [
        (Self::INVALID, "invalid"),
        (Self::ESTABLISHED, "established"),
        (Self::RELATED, "related"),
        (Self::NEW, "new"),
        (Self::UNTRACKED, "untracked"),
    ];

    /// These and those.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }
}

/// What connection tracking has done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionStatus {
    /// Its source was translated.
    Snat,
    /// Its destination was translated.
    Dnat,
}

impl ConnectionStatus {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Snat => 0x10,
            Self::Dnat => 0x20,
        }
    }
}

/// A mark, as far as the mask goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The bits.
    pub value: u32,
    /// Those that are looked at.
    pub mask: u32,
}

impl Mark {
    /// Exactly this mark.
    #[must_use]
    pub const fn exactly(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }
}

/// Part of a packet that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// IPv4: not the first part. It has no ports.
    IpFollowing,
    /// IPv6: any part. Sees fragments only where they have not been put together, as in the hook `prerouting` before
    /// priority -400.
    Ip6,
}

/// What the host's routes say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// One host, elsewhere.
    Unicast,
    /// This host's.
    Local,
    /// All of a network.
    Broadcast,
    /// A group.
    Multicast,
}

impl AddressType {
    /// The kernel's number, `RTN_*`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Multicast => 5,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
        }
    }
}

/// Flags of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// None of those that are looked at.
    pub const NONE: Self = Self(0);
    /// Ends.
    pub const FIN: Self = Self(1);
    /// Opens.
    pub const SYN: Self = Self(2);
    /// Breaks off.
    pub const RST: Self = Self(4);
    /// Acknowledges.
    pub const ACK: Self = Self(16);
    pub(super) const NAMED: [(Self, &'static str); 4] =
        [(Self::FIN, "fin"), (Self::SYN, "syn"), (Self::RST, "rst"), (Self::ACK, "ack")];

    /// These and those.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }
}

/// Which packets a limit matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Those within it.
    Within,
    /// Those over it.
    Over,
}

/// So many packets per unit of time, and a few more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Packets, at least one.
    pub rate: u32,
    /// Per this.
    pub per: Unit,
    /// How many may come at once beyond the rate, at least one.
    pub burst: u32,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
}

impl Unit {
    pub(super) const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }
}

/// A test that each source has for itself. It needs a dynamic set of the right type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// The set that remembers the sources.
    pub set: String,
    /// What counts as one source.
    pub source: Prefixed,
    /// What is tested.
    pub test: Meters,
}

/// What counts as one source: all addresses that share these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefixed {
    /// IPv4: so many bits, at most 32.
    Ip(u8),
    /// IPv6: so many bits, at most 128.
    Ip6(u8),
}

/// What is tested for each source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meters {
    /// The rate of packets.
    Rate(When, Limit),
    /// More connections than this at once.
    ConnectionsOver(u32),
}

/// What kind of socket takes the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketTest {
    /// One with `IP_TRANSPARENT`.
    Transparent,
    /// One that is bound to a certain address.
    NotWildcard,
}

/// What is done besides deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// Counts packets and octets.
    Counter,
    /// Rewrites the largest segment that a TCP connection announces, if it is larger.
    MaximumSegment(MaximumSegment),
    /// `meta mark set`: marks the packet.
    SetPacketMark(u32),
    /// `ct mark set`: marks the connection.
    SetConnectionMark(u32),
    /// `ct mark set meta mark`: the connection keeps the packet's mark.
    SaveMark,
    /// `meta mark set ct mark`: the packet gets the connection's mark.
    RestoreMark,
    /// Does not follow the connection. In chains before priority -200 only.
    NoTrack,
    /// `arp saddr ip set`: has the sender of an ARP message speak from this address.
    SetArpSender(Ipv4Addr),
    /// `dup to`: sends a copy, with both its addresses, to this neighbour. In tables of IPv4 or of IPv6 only.
    Duplicate(IpAddr),
}

/// The largest segment of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaximumSegment {
    /// What fits the route.
    Route,
    /// This many octets.
    Octets(u16),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the next table.
    Accept,
    /// It ends, silently.
    Drop,
    /// It ends, and the sender is told.
    Reject(Reject),
    /// On with this chain, then back.
    Jump(String),
    /// On with this chain.
    Goto(String),
    /// Back to where the jump was.
    Return,
    /// The source becomes this host's address of the interface it leaves by.
    Masquerade,
    /// The source becomes this.
    Snat {
        /// The address.
        to: IpAddr,
        /// The port, if it changes.
        port: Option<u16>,
    },
    /// The destination becomes this.
    Dnat {
        /// The address.
        to: IpAddr,
        /// The port, if it changes.
        port: Option<u16>,
    },
}

/// What the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// ICMP or ICMPv6: forbidden by administration. In tables that see both families only, as the next one.
    AdminProhibited,
    /// ICMP or ICMPv6: nobody listens on this port.
    PortUnreachable,
    /// A TCP reset. Matches TCP only.
    TcpReset,
}
