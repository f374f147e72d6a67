//! Neighbour Solicitation and Advertisement: the two messages of IPv6 that say who is where (RFC 4861 4.3, 4.4).
//!
//! [`Packet::parse`] takes a whole IPv6 packet and checks what RFC 4861 7.1.1 and 7.1.2 demand; what passes may be
//! believed as far as anything on a link may. Packets with extension headers are somebody else's.

use std::net::Ipv6Addr;

use crate::ethernet::Mac;

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All routers of the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// What no router lets pass: who sent it is on this link.
const HOP_LIMIT: u8 = 255;
const IPV6_HEADER: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Octets of either message without options.
const MESSAGE: usize = 24;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const NONCE: u8 = 14;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A number by which a sender knows its own questions (RFC 3971 5.3.2, RFC 7527), of the usual length.
pub type Nonce = [u8; 6];

/// A message and its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who says it. `::` looks whether an address is free (RFC 4862 5.4.2).
    pub source: Ipv6Addr,
    /// Whom it is for.
    pub destination: Ipv6Addr,
    /// What is said.
    pub message: Message,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target?
    Solicitation(Solicitation),
    /// The target is here.
    Advertisement(Advertisement),
}

/// Who has the target?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Whom it is about.
    pub target: Ipv6Addr,
    /// Where the source is.
    pub source_link: Option<Mac>,
    /// The question's number. One of another length than [`Nonce`] is not read.
    pub nonce: Option<Nonce>,
}

/// The target is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Whom it is about.
    pub target: Ipv6Addr,
    /// R, S and O.
    pub flags: Flags,
    /// Where the target is.
    pub target_link: Option<Mac>,
}

/// The flags of an advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// R: the sender is a router.
    pub router: bool,
    /// S: it answers a question.
    pub solicited: bool,
    /// O: it overrides what a neighbour knows.
    pub overriding: bool,
}

/// Why some octets are no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdpError {
    /// Not IPv6, or not ICMPv6 right behind its header.
    #[error("the packet is not ICMPv6 directly over IPv6")]
    NotIcmpv6,
    /// Another message of ICMPv6.
    #[error("ICMPv6 type {0} is neither Neighbour Solicitation nor Advertisement")]
    Type(u8),
    /// It ends too early.
    #[error("the packet is cut off")]
    Truncated,
    /// It may come from elsewhere.
    #[error("the hop limit is {0}, not 255: the packet may not be from this link")]
    HopLimit(u8),
    /// Something changed on its way.
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    /// A code that does not exist.
    #[error("the ICMPv6 code is {0}, not 0")]
    Code(u8),
    /// The target is no single host's.
    #[error("the target {0} is no host's address")]
    Target(Ipv6Addr),
    /// The source is a group, or `::` where that is not allowed.
    #[error("the source {0} is not allowed here")]
    Source(Ipv6Addr),
    /// An advertisement to a group says that it answers.
    #[error("an advertisement to a group has the solicited flag")]
    Solicited,
    /// An option of length 0, or one that is longer than the packet.
    #[error("an option has no length or too much of it")]
    OptionLength,
    /// A link-layer address that is not Ethernet's.
    #[error("the link-layer address is not one of Ethernet")]
    LinkLayer,
}

/// The group that those listen to who may have `address` (RFC 4291 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    (PREFIX | (u128::from(address) & 0x00ff_ffff)).into()
}

impl Packet {
    /// Reads an IPv6 packet. What follows its payload is padding.
    pub fn parse(packet: &[u8]) -> Result<Self, NdpError> {
        let (header, rest) = packet.split_first_chunk::<IPV6_HEADER>().ok_or(NdpError::Truncated)?;
        if header[0] >> 4 != 6 || header[6] != ICMPV6 {
            return Err(NdpError::NotIcmpv6);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let body = rest.get(..length).ok_or(NdpError::Truncated)?;
        match body.first() {
            None => return Err(NdpError::Truncated),
            Some(&SOLICITATION | &ADVERTISEMENT) => {}
            Some(other) => return Err(NdpError::Type(*other)),
        }
        if header[7] != HOP_LIMIT {
            return Err(NdpError::HopLimit(header[7]));
        }
        let (fixed, options) = body.split_first_chunk::<MESSAGE>().ok_or(NdpError::Truncated)?;
        let (source, destination) = (address(header, 8), address(header, 24));
        // With the checksum in its place, the sum of everything is that of nothing.
        if checksum(source, destination, body) != 0 {
            return Err(NdpError::Checksum);
        }
        if fixed[1] != 0 {
            return Err(NdpError::Code(fixed[1]));
        }
        let target = address(fixed, 8);
        if target.is_multicast() || target.is_unspecified() {
            return Err(NdpError::Target(target));
        }
        if source.is_multicast() {
            return Err(NdpError::Source(source));
        }
        let options = Options::parse(options)?;
        let message = if fixed[0] == SOLICITATION {
            solicitation(source, destination, target, &options)?
        } else {
            advertisement(source, destination, target, fixed[4], &options)?
        };
        Ok(Self { source, destination, message })
    }

    /// Appends the IPv6 packet, with its checksum.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let mut body = [0; MESSAGE + 16];
        let length = self.message.emit(&mut body);
        let body = &mut body[..length];
        let sum = checksum(self.source, self.destination, body).to_be_bytes();
        body[2..4].copy_from_slice(&sum);
        let payload = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        out.extend_from_slice(&[0x60, 0, 0, 0, payload[0], payload[1], ICMPV6, HOP_LIMIT]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
        out.extend_from_slice(body);
    }
}

impl Message {
    /// Writes it without its checksum; the length comes back.
    fn emit(&self, body: &mut [u8; MESSAGE + 16]) -> usize {
        let (kind, flags, target, link, nonce) = match self {
            Self::Solicitation(it) => {
                (SOLICITATION, 0, it.target, it.source_link.map(|mac| (SOURCE_LINK, mac)), it.nonce)
            }
            Self::Advertisement(it) => {
                (ADVERTISEMENT, it.flags.octet(), it.target, it.target_link.map(|mac| (TARGET_LINK, mac)), None)
            }
        };
        (body[0], body[4]) = (kind, flags);
        body[8..24].copy_from_slice(&target.octets());
        let options = [link.map(|(kind, mac)| (kind, mac.0)), nonce.map(|nonce| (NONCE, nonce))];
        let mut length = MESSAGE;
        for (kind, value) in options.into_iter().flatten() {
            (body[length], body[length + 1]) = (kind, 1);
            body[length + 2..length + 8].copy_from_slice(&value);
            length += 8;
        }
        length
    }
}

impl Flags {
    fn octet(self) -> u8 {
        let of = |set, bit| if set { bit } else { 0 };
        of(self.router, ROUTER) | of(self.solicited, SOLICITED) | of(self.overriding, OVERRIDE)
    }
}

fn solicitation(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    options: &Options,
) -> Result<Message, NdpError> {
    let source_link = options.link(options.source_link)?;
    // Who has no address yet asks the group, and cannot be answered by itself (RFC 4861 7.1.1).
    if source.is_unspecified() && (source_link.is_some() || destination != solicited_node(destination)) {
        return Err(NdpError::Source(source));
    }
    Ok(Message::Solicitation(Solicitation { target, source_link, nonce: options.nonce }))
}

fn advertisement(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    flags: u8,
    options: &Options,
) -> Result<Message, NdpError> {
    if source.is_unspecified() {
        return Err(NdpError::Source(source));
    }
    let has = |bit| flags & bit != 0;
    let flags = Flags { router: has(ROUTER), solicited: has(SOLICITED), overriding: has(OVERRIDE) };
    if flags.solicited && destination.is_multicast() {
        return Err(NdpError::Solicited);
    }
    let target_link = options.link(options.target_link)?;
    Ok(Message::Advertisement(Advertisement { target, flags, target_link }))
}

/// The first option of each kind that matters.
#[derive(Default)]
struct Options {
    source_link: Option<Link>,
    target_link: Option<Link>,
    nonce: Option<Nonce>,
}

/// A link-layer address as it stands there.
#[derive(Clone, Copy)]
enum Link {
    Ethernet(Mac),
    Other,
}

impl Options {
    fn parse(mut rest: &[u8]) -> Result<Self, NdpError> {
        let mut options = Self::default();
        while !rest.is_empty() {
            let [kind, units, ..] = *rest else { return Err(NdpError::OptionLength) };
            if units == 0 {
                return Err(NdpError::OptionLength);
            }
            let (option, after) = rest.split_at_checked(usize::from(units) * 8).ok_or(NdpError::OptionLength)?;
            let value: Option<[u8; 6]> = option[2..].try_into().ok();
            let link = value.map_or(Link::Other, |octets| Link::Ethernet(Mac(octets)));
            match kind {
                SOURCE_LINK => _ = options.source_link.get_or_insert(link),
                TARGET_LINK => _ = options.target_link.get_or_insert(link),
                NONCE => options.nonce = options.nonce.or(value),
                _ => {}
            }
            rest = after;
        }
        Ok(options)
    }

    fn link(&self, link: Option<Link>) -> Result<Option<Mac>, NdpError> {
        match link {
            None => Ok(None),
            Some(Link::Ethernet(mac)) => Ok(Some(mac)),
            Some(Link::Other) => Err(NdpError::LinkLayer),
        }
    }
}

fn address<const N: usize>(octets: &[u8; N], at: usize) -> Ipv6Addr {
    let mut address = [0; 16];
    address.copy_from_slice(&octets[at..at + 16]);
    address.into()
}

/// The checksum of ICMPv6 over pseudo-header and message (RFC 8200 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |octets: &[u8]| -> u32 {
        let (pairs, odd) = octets.as_chunks::<2>();
        let last = odd.first().map_or(0, |octet| u32::from(*octet) << 8);
        pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>() + last
    };
    // At most 65,535 octets of payload: the sum fits by far.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(body);
    sum += (length & 0xffff) + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
