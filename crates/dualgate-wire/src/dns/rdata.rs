//! The data of records: typed, to octets, and as zone files show it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Name, RecordType};

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rdata {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A name server.
    Ns(Name),
    /// Another name for the same.
    Cname(Name),
    /// A name for an address.
    Ptr(Name),
    /// The start of a zone; times in seconds.
    Soa {
        /// The server where the zone comes from.
        server: Name,
        /// A mail address; its first label is what is before the `@`.
        mailbox: Name,
        /// Grows with each change.
        serial: u32,
        /// How often a copy asks for changes.
        refresh: u32,
        /// How often it asks when nobody answers.
        retry: u32,
        /// When it gives up.
        expire: u32,
        /// How long it is remembered that something is not there (RFC 2308).
        minimum: u32,
    },
    /// A mail server.
    Mx {
        /// The lowest is tried first.
        preference: u16,
        /// Its name.
        exchange: Name,
    },
    /// Texts of at most 255 octets each.
    Txt(Vec<Box<[u8]>>),
    /// Where a service is (RFC 2782).
    Srv {
        /// The lowest is tried first.
        priority: u16,
        /// Its share among those of one priority.
        weight: u16,
        /// Its port.
        port: u16,
        /// Its name.
        target: Name,
    },
    /// Who may issue certificates (RFC 8659).
    Caa {
        /// 128: whoever does not know the tag must not issue.
        flags: u8,
        /// Such as `issue`.
        tag: Box<[u8]>,
        /// Such as the name of an authority.
        value: Box<[u8]>,
    },
    /// Where a service is, and how it is spoken to (RFC 9460).
    Svcb(ServiceBinding),
    /// The same for HTTP.
    Https(ServiceBinding),
    /// Any other type, as octets (RFC 3597).
    Other(RecordType, Box<[u8]>),
}

/// What SVCB and HTTPS records say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceBinding {
    /// 0 is another name for the same, else the lowest is tried first.
    pub priority: u16,
    /// Where the service is; the root says: at the name of the record.
    pub target: Name,
    /// The parameters' values by their numbers.
    pub parameters: BTreeMap<u16, Box<[u8]>>,
}

impl ServiceBinding {
    /// `mandatory`: the parameters without which it is of no use.
    pub const MANDATORY: u16 = 0;
    /// `alpn`: the protocols that are spoken.
    pub const ALPN: u16 = 1;
    /// `no-default-alpn`: only those.
    pub const NO_DEFAULT_ALPN: u16 = 2;
    /// `port`.
    pub const PORT: u16 = 3;
    /// `ipv4hint`: addresses to begin with.
    pub const IPV4_HINT: u16 = 4;
    /// `ech`: a key for the greeting.
    pub const ECH: u16 = 5;
    /// `ipv6hint`.
    pub const IPV6_HINT: u16 = 6;

    /// Of a service at the name of the record itself, which speaks these protocols at these addresses.
    pub fn here(alpn: &[&str], hints: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut parameters: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for protocol in alpn {
            let value = parameters.entry(Self::ALPN).or_default();
            value.push(protocol.len() as u8);
            value.extend_from_slice(protocol.as_bytes());
        }
        for hint in hints {
            match hint {
                IpAddr::V4(v4) => parameters.entry(Self::IPV4_HINT).or_default().extend(v4.octets()),
                IpAddr::V6(v6) => parameters.entry(Self::IPV6_HINT).or_default().extend(v6.octets()),
            }
        }
        let parameters = parameters.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { priority: 1, target: Name::root(), parameters }
    }

    /// The addresses of both hints.
    pub fn hints(&self) -> impl Iterator<Item = IpAddr> {
        let of = |key: u16| self.parameters.get(&key).map(|value| &**value).unwrap_or_default();
        let v4 = of(Self::IPV4_HINT).as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets));
        let v6 = of(Self::IPV6_HINT).as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets));
        v4.chain(v6)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.priority.to_be_bytes());
        out.extend_from_slice(self.target.as_wire());
        for (key, value) in &self.parameters {
            out.extend_from_slice(&key.to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

impl From<IpAddr> for Rdata {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::A(v4),
            IpAddr::V6(v6) => Self::Aaaa(v6),
        }
    }
}

impl Rdata {
    /// The type of its records.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Ns(_) => RecordType::NS,
            Self::Cname(_) => RecordType::CNAME,
            Self::Ptr(_) => RecordType::PTR,
            Self::Soa { .. } => RecordType::SOA,
            Self::Mx { .. } => RecordType::MX,
            Self::Txt(_) => RecordType::TXT,
            Self::Srv { .. } => RecordType::SRV,
            Self::Caa { .. } => RecordType::CAA,
            Self::Svcb(_) => RecordType::SVCB,
            Self::Https(_) => RecordType::HTTPS,
            Self::Other(rtype, _) => *rtype,
        }
    }

    /// The addresses that it tells, whatever its type.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::A(v4) => vec![IpAddr::V4(*v4)],
            Self::Aaaa(v6) => vec![IpAddr::V6(*v6)],
            Self::Svcb(binding) | Self::Https(binding) => binding.hints().collect(),
            Self::Ns(_)
            | Self::Cname(_)
            | Self::Ptr(_)
            | Self::Soa { .. }
            | Self::Mx { .. }
            | Self::Txt(_)
            | Self::Srv { .. }
            | Self::Caa { .. }
            | Self::Other(..) => Vec::new(),
        }
    }

    /// Appends its octets, without compression.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::A(v4) => out.extend(v4.octets()),
            Self::Aaaa(v6) => out.extend(v6.octets()),
            Self::Ns(name) | Self::Cname(name) | Self::Ptr(name) => out.extend_from_slice(name.as_wire()),
            Self::Soa { server, mailbox, serial, refresh, retry, expire, minimum } => {
                out.extend_from_slice(server.as_wire());
                out.extend_from_slice(mailbox.as_wire());
                [serial, refresh, retry, expire, minimum].iter().for_each(|number| out.extend(number.to_be_bytes()));
            }
            Self::Mx { preference, exchange } => {
                out.extend(preference.to_be_bytes());
                out.extend_from_slice(exchange.as_wire());
            }
            Self::Txt(texts) => {
                for text in texts {
                    out.push(text.len() as u8);
                    out.extend_from_slice(text);
                }
            }
            Self::Srv { priority, weight, port, target } => {
                [priority, weight, port].iter().for_each(|number| out.extend(number.to_be_bytes()));
                out.extend_from_slice(target.as_wire());
            }
            Self::Caa { flags, tag, value } => {
                out.extend([*flags, tag.len() as u8]);
                out.extend_from_slice(tag);
                out.extend_from_slice(value);
            }
            Self::Svcb(binding) | Self::Https(binding) => binding.encode(out),
            Self::Other(_, octets) => out.extend_from_slice(octets),
        }
    }
}

impl fmt::Display for Rdata {
    /// As zone files show it; names have their last dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(v4) => v4.fmt(f),
            Self::Aaaa(v6) => v6.fmt(f),
            Self::Ns(name) | Self::Cname(name) | Self::Ptr(name) => Absolute(name).fmt(f),
            Self::Soa { server, mailbox, serial, refresh, retry, expire, minimum } => {
                let (server, mailbox) = (Absolute(server), Absolute(mailbox));
                write!(f, "{server} {mailbox} {serial} {refresh} {retry} {expire} {minimum}")
            }
            Self::Mx { preference, exchange } => write!(f, "{preference} {}", Absolute(exchange)),
            Self::Txt(texts) => {
                for (index, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { " " } else { "" }, Quoted(text))?;
                }
                Ok(())
            }
            Self::Srv { priority, weight, port, target } => {
                write!(f, "{priority} {weight} {port} {}", Absolute(target))
            }
            Self::Caa { flags, tag, value } => {
                write!(f, "{flags} {} {}", String::from_utf8_lossy(tag), Quoted(value))
            }
            Self::Svcb(binding) | Self::Https(binding) => binding.fmt(f),
            Self::Other(_, octets) => {
                write!(f, "\\# {}", octets.len())?;
                if !octets.is_empty() {
                    f.write_str(" ")?;
                }
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Display for ServiceBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.priority, Absolute(&self.target))?;
        for (key, value) in &self.parameters {
            match (*key, &**value) {
                (Self::ALPN, value) => {
                    let mut rest = value;
                    let mut protocols = Vec::new();
                    while let [length, after @ ..] = rest {
                        let (protocol, after) = after.split_at(after.len().min(usize::from(*length)));
                        protocols.push(String::from_utf8_lossy(protocol));
                        rest = after;
                    }
                    write!(f, " alpn={}", protocols.join(","))?;
                }
                (Self::NO_DEFAULT_ALPN, []) => f.write_str(" no-default-alpn")?,
                (Self::PORT, [high, low]) => write!(f, " port={}", u16::from_be_bytes([*high, *low]))?,
                (Self::IPV4_HINT, value) => write!(f, " ipv4hint={}", list(value.as_chunks::<4>().0))?,
                (Self::IPV6_HINT, value) => write!(f, " ipv6hint={}", list(value.as_chunks::<16>().0))?,
                (key, []) => write!(f, " key{key}")?,
                (key, value) => write!(f, " key{key}={}", Quoted(value))?,
            }
        }
        Ok(())
    }
}

fn list<const N: usize>(addresses: &[[u8; N]]) -> String
where
    IpAddr: From<[u8; N]>,
{
    let shown: Vec<String> = addresses.iter().map(|octets| IpAddr::from(*octets).to_string()).collect();
    shown.join(",")
}

/// A name with its last dot.
struct Absolute<'a>(&'a Name);

impl fmt::Display for Absolute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.as_wire() == [0] { f.write_str(".") } else { write!(f, "{}.", self.0) }
    }
}

/// Octets in quotation marks.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for octet in self.0 {
            match octet {
                b'"' | b'\\' => write!(f, "\\{}", char::from(*octet))?,
                0x20..=0x7e => write!(f, "{}", char::from(*octet))?,
                _ => write!(f, "\\{octet:03}")?,
            }
        }
        f.write_str("\"")
    }
}
