//! Addresses of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One thing that exists in IPv4, in IPv6, or in both.
///
/// Never empty, so nobody has to ask what "neither" would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dual<T> {
    /// Only IPv4.
    V4(T),
    /// Only IPv6.
    V6(T),
    /// Both families.
    Both {
        /// The IPv4 side.
        v4: T,
        /// The IPv6 side.
        v6: T,
    },
}

impl<T> Dual<T> {
    /// From two optional sides; `None` when both are missing.
    pub fn new(v4: Option<T>, v6: Option<T>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Both { v4, v6 }),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 side.
    pub fn v4(&self) -> Option<&T> {
        match self {
            Self::V4(v4) | Self::Both { v4, .. } => Some(v4),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 side.
    pub fn v6(&self) -> Option<&T> {
        match self {
            Self::V6(v6) | Self::Both { v6, .. } => Some(v6),
            Self::V4(_) => None,
        }
    }

    /// The side of `family`.
    pub fn of(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4(),
            Family::V6 => self.v6(),
        }
    }

    /// Both sides, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.v4().into_iter().chain(self.v6())
    }

    /// The same shape with other contents.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Dual<U> {
        match self {
            Self::V4(v4) => Dual::V4(f(v4)),
            Self::V6(v6) => Dual::V6(f(v6)),
            Self::Both { v4, v6 } => Dual::Both { v4: f(v4), v6: f(v6) },
        }
    }
}

impl Dual<IpAddr> {
    /// The first address of each family; `None` for an empty list.
    pub fn from_addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let (mut v4, mut v6) = (None, None);
        for address in addresses {
            match address {
                IpAddr::V4(_) => v4 = v4.or(Some(address)),
                IpAddr::V6(_) => v6 = v6.or(Some(address)),
            }
        }
        Self::new(v4, v6)
    }

    /// The same addresses with a port.
    pub fn with_port(self, port: u16) -> Dual<SocketAddr> {
        self.map(|address| SocketAddr::new(address, port))
    }
}

/// Where one thing is reached: a socket of IPv4, of IPv6, or of both. As a [`Dual`] of sockets, but in less than half of its
/// memory, as there are tens of thousands; it has no scopes and no flow labels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sockets {
    v4: Option<(Ipv4Addr, u16)>,
    v6: Option<(Ipv6Addr, u16)>,
}

impl Sockets {
    /// From at most one socket of each family; `None` when there is none.
    pub fn new(sockets: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut found = Self { v4: None, v6: None };
        for socket in sockets {
            match socket.ip() {
                IpAddr::V4(address) => found.v4 = found.v4.or(Some((address, socket.port()))),
                IpAddr::V6(address) => found.v6 = found.v6.or(Some((address, socket.port()))),
            }
        }
        (found.v4.is_some() || found.v6.is_some()).then_some(found)
    }

    /// The socket of `family`.
    pub fn of(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.v4.map(SocketAddr::from),
            Family::V6 => self.v6.map(SocketAddr::from),
        }
    }

    /// Those that there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let Self { v4, v6 } = *self;
        v4.map(SocketAddr::from).into_iter().chain(v6.map(SocketAddr::from))
    }
}

impl From<SocketAddr> for Sockets {
    fn from(socket: SocketAddr) -> Self {
        match socket.ip() {
            IpAddr::V4(address) => Self { v4: Some((address, socket.port())), v6: None },
            IpAddr::V6(address) => Self { v4: None, v6: Some((address, socket.port())) },
        }
    }
}

impl From<Dual<SocketAddr>> for Sockets {
    fn from(sockets: Dual<SocketAddr>) -> Self {
        match sockets {
            Dual::V4(one) | Dual::V6(one) => one.into(),
            Dual::Both { v4, v6 } => Self { v4: Self::from(v4).v4, v6: Self::from(v6).v6 },
        }
    }
}

/// Both, separated by `+`.
impl fmt::Display for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(at, socket)| {
            let separator = if at == 0 { "" } else { "+" };
            write!(f, "{separator}{socket}")
        })
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: fmt::Display> fmt::Display for Dual<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(one) | Self::V6(one) => one.fmt(f),
            Self::Both { v4, v6 } => write!(f, "{v4}, {v6}"),
        }
    }
}

/// An inclusive range of addresses of one family, written `first-last`, as a CIDR or as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    /// From both ends; `None` when the families differ or the ends are the wrong way round.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (Family::of(first) == Family::of(last) && first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of both ends.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether `address` lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.first <= address && address <= self.last
    }

    /// Whether both ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses it holds, saturating at `u128::MAX`.
    pub fn count(&self) -> u128 {
        match (self.first, self.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(u32::from(b) - u32::from(a)) + 1,
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(b) - u128::from(a)).saturating_add(1),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
        }
    }
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some((first, last)) = text.split_once('-') {
            let first: IpAddr = parse_ip(first)?;
            let last: IpAddr = parse_ip(last)?;
            if Family::of(first) != Family::of(last) {
                return Err(format!("`{text}` starts in one IP family and ends in the other"));
            }
            return Self::new(first, last).ok_or_else(|| format!("`{text}` ends before it starts"));
        }
        if text.contains('/') {
            let net: ipnet::IpNet = text.parse().map_err(|_| format!("`{text}` is not a CIDR"))?;
            let (first, last) = match net {
                ipnet::IpNet::V4(net) => (IpAddr::V4(net.network()), IpAddr::V4(net.broadcast())),
                ipnet::IpNet::V6(net) => (IpAddr::V6(net.network()), IpAddr::V6(net.broadcast())),
            };
            return Ok(Self { first, last });
        }
        let one = parse_ip(text)?;
        Ok(Self { first: one, last: one })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("`{}` is not an IP address", text.trim()))
}

/// Whether the address may be reached from the Internet: not private, ULA, link-local, loopback,
/// shared (RFC 6598) or unspecified. Documentation ranges count as public, so that examples work.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(is_shared(a)
                || a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_unspecified()
                || a.is_multicast())
        }
        IpAddr::V6(a) => {
            !(a.is_unique_local()
                || a.is_loopback()
                || a.is_unicast_link_local()
                || a.is_unspecified()
                || a.is_multicast()
                || is_embedded_private(a))
        }
    }
}

/// 100.64.0.0/10, the addresses of carrier NAT (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64
}

fn is_embedded_private(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some_and(|v4| !is_public(IpAddr::V4(v4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_ipv6_pool_is_seventeen_addresses_not_eleven() {
        let v4: IpRange = "192.168.178.10-192.168.178.20".parse().unwrap();
        let v6: IpRange = "fda8:a1db:5685::10-fda8:a1db:5685::20".parse().unwrap();
        assert_eq!((v4.count(), v6.count()), (11, 17));
    }

    #[test]
    fn a_range_needs_one_family_and_its_ends_in_order() {
        assert!("192.168.178.20-192.168.178.10".parse::<IpRange>().is_err());
        assert!("192.168.178.20-fd00::1".parse::<IpRange>().is_err());
    }

    #[test]
    fn carrier_nat_and_unique_local_addresses_are_not_public() {
        for private in ["100.64.0.1", "192.168.178.5", "fda8::1", "fe80::1", "::1", "::ffff:10.0.0.1"] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        assert!(is_public("203.0.113.10".parse().unwrap()) && is_public("2001:db8:1::10".parse().unwrap()));
    }
}
