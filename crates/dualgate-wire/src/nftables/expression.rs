//! The expressions of the kernel's nf_tables machine.
//!
//! A rule is a list of them: one loads a field into a register, the next compares, and so on. `Display` is the form
//! that `nft --debug=netlink` prints, so that the two can be compared.

use std::fmt;

use super::attribute::Writer;
use super::rule::{IpFamily, Limit, Meters, When};

const NAME: u16 = 1;
const DATA: u16 = 2;
const LIST_ELEMENT: u16 = 1;

/// The register that is compared and written from.
const VALUE: u32 = 1;
/// The one for the port of a translation.
const PORT: u32 = 2;
/// The one whose content decides.
const VERDICT: u32 = 0;

/// One step of a rule. Loads go to register 1, where comparisons look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads a property of the packet that is not in its octets.
    Meta(Meta),
    /// Sets the packet's mark.
    SetMark,
    /// Loads octets of the packet.
    Payload {
        /// Counted from where.
        base: Base,
        /// The first.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Goes on if this comparison holds.
    Compare(Comparison, Vec<u8>),
    /// Goes on if the value is outside of this range.
    Outside(Vec<u8>, Vec<u8>),
    /// Keeps these bits.
    And(Vec<u8>),
    /// Goes on if the value is in the set.
    Lookup {
        /// The set.
        set: SetName,
        /// Goes on if it is not.
        inverted: bool,
    },
    /// Loads a property of the connection.
    Connection(ConnectionKey),
    /// Sets the connection's mark.
    SetConnectionMark,
    /// Loads the type of an address of the packet.
    AddressType {
        /// `NFTA_FIB_F_*`.
        flags: u32,
    },
    /// Loads whether the packet has an IPv6 extension header.
    HasExtension(u8),
    /// Loads a property of the socket that takes the packet.
    Socket(SocketKey),
    /// Goes on within or beyond a rate.
    Limit(When, Limit),
    /// Does so for each value by itself.
    Update {
        /// The dynamic set.
        set: String,
        /// What is kept for each value.
        test: Meters,
    },
    /// Loads the largest segment that fits the route.
    RouteMss,
    /// Turns two octets from the host's order into the network's.
    ToNetworkOrder,
    /// Loads a constant.
    Immediate(Vec<u8>),
    /// Loads a port into register 2.
    ImmediatePort(u16),
    /// Writes the segment size of a TCP option.
    WriteMss,
    /// Counts.
    Counter,
    /// Does not follow the connection.
    NoTrack,
    /// Writes octets of the packet, which no checksum covers.
    WritePayload {
        /// Counted from where.
        base: Base,
        /// The first.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Sends a copy to the neighbour whose address is in register 1.
    Duplicate,
    /// Decides.
    Verdict(Verdict),
    /// Refuses.
    Reject {
        /// `NFT_REJECT_*`.
        kind: u32,
        /// `NFT_REJECT_ICMPX_*`.
        code: u8,
    },
    /// Translates to the outgoing interface's address.
    Masquerade,
    /// Translates to the address in register 1 and the port in register 2.
    Nat {
        /// Which end.
        destination: bool,
        /// Of which family the address is.
        family: IpFamily,
        /// Whether the port changes.
        port: bool,
    },
}

/// Properties of a packet that are not in its octets, `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Protocol = 1,
    Mark = 3,
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

/// Where offsets are counted from, `NFT_PAYLOAD_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Network = 1,
    Transport = 2,
}

/// Comparisons, `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq = 0,
    Neq = 1,
    Lte = 3,
    Gte = 5,
}

/// Properties of a connection, `NFT_CT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKey {
    State = 0,
    Status = 2,
    Mark = 3,
    OriginalProtoDst = 12,
}

/// Properties of a socket, `NFT_SOCKET_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKey {
    Transparent = 0,
    Wildcard = 2,
}

/// Which set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetName {
    /// One with a name.
    Named(String),
    /// The rule's own, by its place among them.
    Anonymous(usize),
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

impl Verdict {
    const fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }
}

impl Expression {
    /// Writes it as an element of a rule. `anonymous` says what a set without a name is called in this batch.
    pub(super) fn write(&self, writer: &mut Writer, anonymous: impl Fn(usize) -> (&'static str, u32)) {
        writer.nested(LIST_ELEMENT, |writer| {
            writer.text(NAME, self.kernel_name());
            writer.nested(DATA, |writer| self.write_data(writer, anonymous));
        });
    }

    const fn kernel_name(&self) -> &'static str {
        match self {
            Self::Meta(_) | Self::SetMark => "meta",
            Self::Payload { .. } | Self::WritePayload { .. } => "payload",
            Self::Compare(..) => "cmp",
            Self::Outside(..) => "range",
            Self::And(_) => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Connection(_) | Self::SetConnectionMark => "ct",
            Self::AddressType { .. } => "fib",
            Self::HasExtension(_) | Self::WriteMss => "exthdr",
            Self::Socket(_) => "socket",
            Self::Limit(..) => "limit",
            Self::Update { .. } => "dynset",
            Self::RouteMss => "rt",
            Self::ToNetworkOrder => "byteorder",
            Self::Immediate(_) | Self::ImmediatePort(_) | Self::Verdict(_) => "immediate",
            Self::Counter => "counter",
            Self::NoTrack => "notrack",
            Self::Duplicate => "dup",
            Self::Reject { .. } => "reject",
            Self::Masquerade => "masq",
            Self::Nat { .. } => "nat",
        }
    }

    /// The numbers are `NFTA_<NAME>_*`, in the header's order.
    fn write_data(&self, writer: &mut Writer, anonymous: impl Fn(usize) -> (&'static str, u32)) {
        match self {
            Self::Meta(key) => {
                writer.u32(1, VALUE);
                writer.u32(2, *key as u32);
            }
            Self::SetMark => {
                writer.u32(2, Meta::Mark as u32);
                writer.u32(3, VALUE);
            }
            Self::Payload { base, offset, length } => write_payload(writer, 1, (*base, *offset, *length)),
            Self::WritePayload { base, offset, length } => write_payload(writer, 5, (*base, *offset, *length)),
            Self::Compare(comparison, octets) => {
                writer.u32(1, VALUE);
                writer.u32(2, *comparison as u32);
                value(writer, 3, octets);
            }
            Self::Outside(first, last) => {
                writer.u32(1, VALUE);
                writer.u32(2, Comparison::Neq as u32);
                value(writer, 3, first);
                value(writer, 4, last);
            }
            Self::And(mask) => write_and(writer, mask),
            Self::Lookup { set, inverted } => write_lookup(writer, set, *inverted, anonymous),
            Self::Connection(key) => {
                writer.u32(1, VALUE);
                writer.u32(2, *key as u32);
                if *key == ConnectionKey::OriginalProtoDst {
                    writer.u8(3, 0);
                }
            }
            Self::SetConnectionMark => {
                writer.u32(2, ConnectionKey::Mark as u32);
                writer.u32(4, VALUE);
            }
            Self::AddressType { flags } => {
                writer.u32(1, VALUE);
                writer.u32(2, FIB_RESULT_ADDRTYPE);
                writer.u32(3, *flags);
            }
            Self::HasExtension(kind) => write_extension(writer, 1, (*kind, 0, 1), (EXTHDR_PRESENT, EXTHDR_IPV6)),
            Self::WriteMss => write_extension(writer, 7, (TCP_OPTION_MSS, 2, 2), (0, EXTHDR_TCP_OPTION)),
            Self::Socket(key) => {
                writer.u32(1, *key as u32);
                writer.u32(2, VALUE);
            }
            Self::Limit(when, limit) => write_limit(writer, *when, *limit),
            Self::Update { set, test } => write_update(writer, set, *test),
            Self::RouteMss => {
                writer.u32(1, VALUE);
                writer.u32(2, ROUTE_TCPMSS);
            }
            Self::ToNetworkOrder => {
                writer.u32(1, VALUE);
                writer.u32(2, VALUE);
                writer.u32(3, 1);
                writer.u32(4, 2);
                writer.u32(5, 2);
            }
            Self::Immediate(octets) => {
                writer.u32(1, VALUE);
                value(writer, 2, octets);
            }
            Self::ImmediatePort(port) => {
                writer.u32(1, PORT);
                value(writer, 2, &port.to_be_bytes());
            }
            Self::Duplicate => writer.u32(1, VALUE),
            Self::Counter | Self::NoTrack | Self::Masquerade => {}
            Self::Verdict(verdict) => write_verdict(writer, verdict),
            Self::Reject { kind, code } => {
                writer.u32(1, *kind);
                writer.u8(2, *code);
            }
            Self::Nat { destination, family, port } => {
                writer.u32(1, u32::from(*destination));
                writer.u32(2, u32::from(family.number()));
                writer.u32(3, VALUE);
                if *port {
                    writer.u32(5, PORT);
                    writer.u32(7, NAT_PORT_GIVEN);
                }
            }
        }
    }
}

const FIB_RESULT_ADDRTYPE: u32 = 3;
const EXTHDR_PRESENT: u32 = 1;
const EXTHDR_IPV6: u32 = 0;
const EXTHDR_TCP_OPTION: u32 = 1;
const TCP_OPTION_MSS: u8 = 2;
const ROUTE_TCPMSS: u32 = 3;
const NAT_PORT_GIVEN: u32 = 2;
const DYNSET_UPDATE: u32 = 1;

fn value(writer: &mut Writer, kind: u16, octets: &[u8]) {
    writer.nested(kind, |writer| writer.attribute(1, octets));
}

/// `register` is `NFTA_PAYLOAD_DREG` or `NFTA_PAYLOAD_SREG`.
fn write_payload(writer: &mut Writer, register: u16, (base, offset, length): (Base, u32, u32)) {
    writer.u32(register, VALUE);
    writer.u32(2, base as u32);
    writer.u32(3, offset);
    writer.u32(4, length);
}

fn write_and(writer: &mut Writer, mask: &[u8]) {
    writer.u32(1, VALUE);
    writer.u32(2, VALUE);
    writer.u32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    value(writer, 4, mask);
    value(writer, 5, &vec![0; mask.len()]);
}

fn write_lookup(writer: &mut Writer, set: &SetName, inverted: bool, anonymous: impl Fn(usize) -> (&'static str, u32)) {
    let (name, id) = match set {
        SetName::Named(name) => (name.as_str(), None),
        SetName::Anonymous(index) => {
            let (name, id) = anonymous(*index);
            (name, Some(id))
        }
    };
    writer.text(1, name);
    writer.u32(2, VALUE);
    if let Some(id) = id {
        writer.u32(4, id);
    }
    if inverted {
        writer.u32(5, 1);
    }
}

/// `register` is `NFTA_EXTHDR_DREG` or `NFTA_EXTHDR_SREG`.
fn write_extension(writer: &mut Writer, register: u16, place: (u8, u32, u32), (flags, operation): (u32, u32)) {
    writer.u32(register, VALUE);
    writer.u8(2, place.0);
    writer.u32(3, place.1);
    writer.u32(4, place.2);
    if flags != 0 {
        writer.u32(5, flags);
    }
    writer.u32(6, operation);
}

fn write_limit(writer: &mut Writer, when: When, limit: Limit) {
    writer.u64(1, u64::from(limit.rate));
    writer.u64(2, limit.per.seconds());
    writer.u32(3, limit.burst);
    writer.u32(4, 0);
    writer.u32(5, u32::from(when == When::Over));
}

fn write_update(writer: &mut Writer, set: &str, test: Meters) {
    writer.text(1, set);
    writer.u32(3, DYNSET_UPDATE);
    writer.u32(4, VALUE);
    writer.nested(7, |writer| match test {
        Meters::Rate(when, limit) => {
            writer.text(NAME, "limit");
            writer.nested(DATA, |writer| write_limit(writer, when, limit));
        }
        Meters::ConnectionsOver(count) => {
            writer.text(NAME, "connlimit");
            writer.nested(DATA, |writer| {
                writer.u32(1, count);
                writer.u32(2, 1);
            });
        }
    });
}

fn write_verdict(writer: &mut Writer, verdict: &Verdict) {
    writer.u32(1, VERDICT);
    writer.nested(2, |writer| {
        writer.nested(2, |writer| {
            writer.attribute(1, &verdict.code().to_be_bytes());
            if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
                writer.text(2, chain);
            }
        });
    });
}

/// Octets as nft shows them: words in the host's order.
struct Words<'a>(&'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, chunk) in self.0.chunks(4).enumerate() {
            let mut word = [0; 4];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            write!(f, "{}0x{:08x}", if at == 0 { "" } else { " " }, u32::from_ne_bytes(word))?;
        }
        Ok(())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(key) => write!(f, "[ meta load {} => reg 1 ]", format!("{key:?}").to_lowercase()),
            Self::SetMark => f.write_str("[ meta set mark with reg 1 ]"),
            Self::Payload { base, offset, length } => {
                let base = format!("{base:?}").to_lowercase();
                write!(f, "[ payload load {length}b @ {base} header + {offset} => reg 1 ]")
            }
            Self::Compare(comparison, octets) => {
                write!(f, "[ cmp {} reg 1 {} ]", format!("{comparison:?}").to_lowercase(), Words(octets))
            }
            Self::Outside(first, last) => write!(f, "[ range neq reg 1 {} {} ]", Words(first), Words(last)),
            Self::And(mask) => {
                write!(f, "[ bitwise reg 1 = ( reg 1 & {} ) ^ {} ]", Words(mask), Words(&vec![0; mask.len()]))
            }
            Self::Lookup { set, inverted } => {
                let name = match set {
                    SetName::Named(name) => name,
                    SetName::Anonymous(_) => "__set%d",
                };
                write!(f, "[ lookup reg 1 set {name} {}]", if *inverted { "0x1 " } else { "" })
            }
            Self::Connection(ConnectionKey::OriginalProtoDst) => {
                f.write_str("[ ct load proto_dst => reg 1 , dir original ]")
            }
            Self::Connection(key) => write!(f, "[ ct load {} => reg 1 ]", format!("{key:?}").to_lowercase()),
            Self::SetConnectionMark => f.write_str("[ ct set mark with reg 1 ]"),
            Self::AddressType { flags } => {
                write!(f, "[ fib {} type => reg 1 ]", if *flags == 1 { "saddr" } else { "daddr" })
            }
            Self::HasExtension(kind) => write!(f, "[ exthdr load ipv6 1b @ {kind} + 0 present => reg 1 ]"),
            Self::Socket(key) => write!(f, "[ socket load {} => reg 1 ]", format!("{key:?}").to_lowercase()),
            Self::Limit(when, limit) => write!(f, "[ {} ]", Rate(*when, *limit)),
            Self::Update { set, test: Meters::Rate(when, limit) } => {
                write!(f, "[ dynset update reg_key 1 set {set} expr [ {} ] ]", Rate(*when, *limit))
            }
            Self::Update { set, test: Meters::ConnectionsOver(count) } => {
                write!(f, "[ dynset update reg_key 1 set {set} expr [ connlimit count {count} flags 1 ] ]")
            }
            Self::RouteMss => f.write_str("[ rt load tcpmss => reg 1 ]"),
            Self::ToNetworkOrder => f.write_str("[ byteorder reg 1 = hton(reg 1, 2, 2) ]"),
            Self::Immediate(octets) => write!(f, "[ immediate reg 1 {} ]", Words(octets)),
            Self::ImmediatePort(port) => write!(f, "[ immediate reg 2 {} ]", Words(&port.to_be_bytes())),
            Self::WriteMss => f.write_str("[ exthdr write tcpopt reg 1 => 2b @ 2 + 2 ]"),
            Self::Counter => f.write_str("[ counter pkts 0 bytes 0 ]"),
            Self::NoTrack => f.write_str("[ notrack ]"),
            Self::WritePayload { base, offset, length } => {
                let base = format!("{base:?}").to_lowercase();
                let checksum = "csum_type 0 csum_off 0 csum_flags 0x0";
                write!(f, "[ payload write reg 1 => {length}b @ {base} header + {offset} {checksum} ]")
            }
            Self::Duplicate => f.write_str("[ dup sreg_addr 1 ]"),
            Self::Verdict(verdict) => match verdict {
                Verdict::Accept => f.write_str("[ immediate reg 0 accept ]"),
                Verdict::Drop => f.write_str("[ immediate reg 0 drop ]"),
                Verdict::Return => f.write_str("[ immediate reg 0 return ]"),
                Verdict::Jump(chain) => write!(f, "[ immediate reg 0 jump -> {chain} ]"),
                Verdict::Goto(chain) => write!(f, "[ immediate reg 0 goto -> {chain} ]"),
            },
            Self::Reject { kind, code } => write!(f, "[ reject type {kind} code {code} ]"),
            Self::Masquerade => f.write_str("[ masq ]"),
            Self::Nat { destination, family, port } => {
                let kind = if *destination { "dnat" } else { "snat" };
                let family = match family {
                    IpFamily::V4 => "ip",
                    IpFamily::V6 => "ip6",
                };
                let port = if *port { " proto_min reg 2 flags 0x2" } else { "" };
                write!(f, "[ nat {kind} {family} addr_min reg 1{port} ]")
            }
        }
    }
}

/// A rate in the same form.
struct Rate(When, Limit);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(when, Limit { rate, per, burst }) = self;
        let flags = u32::from(*when == When::Over);
        write!(f, "limit rate {rate}/{} burst {burst} type packets flags 0x{flags:x}", per.name())
    }
}
