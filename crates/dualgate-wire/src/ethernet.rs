//! Ethernet II: who sends to whom, and what is inside. Tags of VLANs are not looked into.

use std::fmt;
use std::net::Ipv6Addr;

/// Octets of a header.
pub const HEADER: usize = 14;

/// The address of a station, or of a group of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Nobody.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether it is a group's, such as everybody's.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it can be that of one station.
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }

    /// Where packets to a multicast address go (RFC 2464 7).
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// 0x0806.
    Arp,
    /// 0x86dd.
    Ipv6,
    /// Anything else, or the length of an IEEE 802.3 frame.
    Other(u16),
}

impl From<u16> for EtherType {
    fn from(number: u16) -> Self {
        match number {
            0x0806 => Self::Arp,
            0x86dd => Self::Ipv6,
            other => Self::Other(other),
        }
    }
}

impl From<EtherType> for u16 {
    fn from(ether_type: EtherType) -> Self {
        match ether_type {
            EtherType::Arp => 0x0806,
            EtherType::Ipv6 => 0x86dd,
            EtherType::Other(number) => number,
        }
    }
}

/// What stands before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whom it is for.
    pub destination: Mac,
    /// Whose it is.
    pub source: Mac,
    /// What is inside.
    pub ether_type: EtherType,
}

/// A frame that ends within its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame ends within its Ethernet header")]
pub struct Truncated;

impl Header {
    /// The header of a frame, and what follows it.
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), Truncated> {
        let (destination, rest) = frame.split_first_chunk().ok_or(Truncated)?;
        let (source, rest) = rest.split_first_chunk().ok_or(Truncated)?;
        let (number, payload) = rest.split_first_chunk().ok_or(Truncated)?;
        let ether_type = EtherType::from(u16::from_be_bytes(*number));
        Ok((Self { destination: Mac(*destination), source: Mac(*source), ether_type }, payload))
    }

    /// Appends the header. Whoever sends a frame that is shorter than 60 octets leaves the padding to the driver.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.destination.0);
        out.extend_from_slice(&self.source.0);
        out.extend_from_slice(&u16::from(self.ether_type).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_no_station_and_neither_is_nobody() {
        let stations = [Mac([2, 0, 0, 0, 0, 1]), Mac([0, 0, 0, 0, 0, 1])];
        let others = [Mac::BROADCAST, Mac::ZERO, Mac([1, 0, 0x5e, 0, 0, 1]), Mac([0x33, 0x33, 0, 0, 0, 1])];
        assert!(stations.iter().all(|mac| mac.is_station()));
        assert!(others.iter().all(|mac| !mac.is_station()));
    }

    #[test]
    fn a_multicast_address_gives_its_last_four_octets_to_the_group() {
        let mac = Mac::of_group("ff02::1:ff0a:b0c".parse().unwrap());
        assert_eq!(mac.to_string(), "33:33:ff:0a:0b:0c");
    }
}
