//! The PROXY protocol, versions 1 and 2: how a proxy tells whose connection it hands on.
//!
//! The first bytes of a connection are given to [`parse`], again and again as more arrive; what follows the
//! header is the connection's own. Whether a peer may say such things is for the caller to decide, before.
//! Source: the specification of HAProxy, `doc/proxy-protocol.txt`, revision of 2020-03-05.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
pub const V1_MAX: usize = 107;

/// The longest header of version 2 that is read: addresses and up to 500 octets more, which are skipped.
pub const V2_MAX: usize = 536;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// What a proxy says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// It is the proxy's own, such as a health check.
    Local,
    /// It is somebody's, but not of a family that has IP addresses.
    Unknown,
    /// It is a client's.
    Proxied {
        /// What the client speaks to the proxy.
        transport: Transport,
        /// The client. An IPv4 address in IPv6 form is an IPv4 address.
        source: SocketAddr,
        /// What the client connected to, in the same form.
        destination: SocketAddr,
    },
}

/// What runs over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Which form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text. It has no words for UDP and for the proxy's own connections: these are unknown.
    V1,
    /// Binary.
    V2,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// So far it may be one; more bytes are needed.
    Incomplete,
    /// It is complete.
    Complete {
        /// What was read.
        value: T,
        /// How many bytes it took; what follows is not part of it.
        length: usize,
    },
}

/// Why some bytes are no header. The connection cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyError {
    /// It starts like something else.
    #[error("no PROXY protocol header")]
    NotAHeader,
    /// It is longer than any header that makes sense.
    #[error("the PROXY protocol header is too long")]
    TooLong,
    /// The line of version 1 is not as it should be.
    #[error("the PROXY protocol line cannot be read: {0}")]
    Line(&'static str),
    /// The version is not 1 or 2.
    #[error("the PROXY protocol has no version {0}")]
    Version(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("the PROXY protocol has no command {0}")]
    Command(u8),
    /// A family or transport that does not exist.
    #[error("the PROXY protocol has no family and transport {0:#04x}")]
    Family(u8),
    /// The length does not hold the addresses.
    #[error("the PROXY protocol header ends within its addresses")]
    Truncated,
}

/// Reads the header that `bytes` start with.
pub fn parse(bytes: &[u8]) -> Result<Progress<Header>, ProxyError> {
    if starts_alike(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if starts_alike(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::NotAHeader)
    }
}

/// Appends a header to `out`.
pub fn emit(header: &Header, version: Version, out: &mut Vec<u8>) {
    match version {
        Version::V1 => emit_v1(header, out),
        Version::V2 => emit_v2(header, out),
    }
}

fn starts_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Progress<Header>, ProxyError> {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_MAX { Err(ProxyError::TooLong) } else { Ok(Progress::Incomplete) };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| ProxyError::Line("it is not text"))?;
    // The caller has seen the prefix, as the line is at least as long.
    let rest = line.strip_prefix("PROXY ").ok_or(ProxyError::Line("it ends too early"))?;
    let length = end + 2;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Ok(Progress::Complete { value: Header::Unknown, length });
    }
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or(ProxyError::Line("it ends too early"));
    let family = word()?;
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(ProxyError::Line("it has too many words"));
    }
    let address = match family {
        "TCP4" => |text: &str| text.parse().map(IpAddr::V4),
        "TCP6" => |text: &str| text.parse().map(IpAddr::V6),
        _ => return Err(ProxyError::Line("its family is none of `TCP4`, `TCP6`, `UNKNOWN`")),
    };
    let address = |text| address(text).map_err(|_| ProxyError::Line("an address is not of its family"));
    let value = Header::Proxied {
        transport: Transport::Stream,
        source: socket(address(source)?, port(source_port)?),
        destination: socket(address(destination)?, port(destination_port)?),
    };
    Ok(Progress::Complete { value, length })
}

/// Digits only, without leading zeros: `parse` alone would take `+80`.
fn port(text: &str) -> Result<u16, ProxyError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or(ProxyError::Line("a port is not a number from 0 to 65535"))
}

fn parse_v2(bytes: &[u8]) -> Result<Progress<Header>, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else {
        return Ok(Progress::Incomplete);
    };
    let [.., version_command, family, high, low] = *fixed;
    if version_command >> 4 != 2 {
        return Err(ProxyError::Version(version_command >> 4));
    }
    let declared = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED + declared > V2_MAX {
        return Err(ProxyError::TooLong);
    }
    let is_local = match version_command & 0x0f {
        0 => true,
        1 => false,
        command => return Err(ProxyError::Command(command)),
    };
    // The family of a local connection means nothing.
    let family = if is_local { Family::Other } else { Family::of(family)? };
    if declared < family.length() {
        return Err(ProxyError::Truncated);
    }
    let Some(block) = rest.get(..declared) else { return Ok(Progress::Incomplete) };
    let value = match (is_local, family) {
        (true, _) => Header::Local,
        (false, Family::Other) => Header::Unknown,
        (false, Family::V4(transport)) => addresses::<4>(block, transport, |octets| IpAddr::from(*octets))?,
        (false, Family::V6(transport)) => addresses::<16>(block, transport, |octets| IpAddr::from(*octets))?,
    };
    Ok(Progress::Complete { value, length: V2_FIXED + declared })
}

/// The byte of family and transport.
#[derive(Clone, Copy)]
enum Family {
    V4(Transport),
    V6(Transport),
    /// Unix sockets, and what is not specified.
    Other,
}

impl Family {
    fn of(byte: u8) -> Result<Self, ProxyError> {
        let transport = match byte & 0x0f {
            0 => None,
            1 => Some(Transport::Stream),
            2 => Some(Transport::Datagram),
            _ => return Err(ProxyError::Family(byte)),
        };
        match (byte >> 4, transport) {
            (1, Some(transport)) => Ok(Self::V4(transport)),
            (2, Some(transport)) => Ok(Self::V6(transport)),
            (0 | 3, _) | (1 | 2, None) => Ok(Self::Other),
            (_, _) => Err(ProxyError::Family(byte)),
        }
    }

    /// How many octets the addresses and ports take.
    fn length(self) -> usize {
        match self {
            Self::V4(_) => 12,
            Self::V6(_) => 36,
            Self::Other => 0,
        }
    }
}

/// Source, destination, source port, destination port; what follows are extensions.
fn addresses<const N: usize>(
    block: &[u8],
    transport: Transport,
    address: fn(&[u8; N]) -> IpAddr,
) -> Result<Header, ProxyError> {
    let (source, block) = block.split_first_chunk::<N>().ok_or(ProxyError::Truncated)?;
    let (destination, block) = block.split_first_chunk::<N>().ok_or(ProxyError::Truncated)?;
    let &[a, b, c, d] = block.first_chunk::<4>().ok_or(ProxyError::Truncated)?;
    Ok(Header::Proxied {
        transport,
        source: socket(address(source), u16::from_be_bytes([a, b])),
        destination: socket(address(destination), u16::from_be_bytes([c, d])),
    })
}

/// An IPv4 address in IPv6 form would else slip past rules for IPv4.
fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// Both ends in one family, as the wire needs it.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn of(source: IpAddr, destination: IpAddr) -> Self {
        let v6 = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(source, destination),
            (source, destination) => Self::V6(v6(source), v6(destination)),
        }
    }
}

fn emit_v1(header: &Header, out: &mut Vec<u8>) {
    let line = match *header {
        Header::Proxied { transport: Transport::Stream, source, destination } => {
            let (from, to) = (source.port(), destination.port());
            match Pair::of(source.ip(), destination.ip()) {
                Pair::V4(source, destination) => format!("PROXY TCP4 {source} {destination} {from} {to}\r\n"),
                Pair::V6(source, destination) => format!("PROXY TCP6 {source} {destination} {from} {to}\r\n"),
            }
        }
        Header::Proxied { transport: Transport::Datagram, .. } | Header::Local | Header::Unknown => {
            "PROXY UNKNOWN\r\n".to_owned()
        }
    };
    out.extend_from_slice(line.as_bytes());
}

fn emit_v2(header: &Header, out: &mut Vec<u8>) {
    out.extend_from_slice(V2_SIGNATURE);
    match *header {
        Header::Local => out.extend_from_slice(&[0x20, 0x00, 0, 0]),
        Header::Unknown => out.extend_from_slice(&[0x21, 0x00, 0, 0]),
        Header::Proxied { transport, source, destination } => {
            let transport = match transport {
                Transport::Stream => 1,
                Transport::Datagram => 2,
            };
            match Pair::of(source.ip(), destination.ip()) {
                Pair::V4(source, destination) => {
                    out.extend_from_slice(&[0x21, 0x10 | transport, 0, 12]);
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
                Pair::V6(source, destination) => {
                    out.extend_from_slice(&[0x21, 0x20 | transport, 0, 36]);
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}
