//! The little of an IP header that a tunnel has to know.

use std::net::IpAddr;

/// A packet's header (RFC 791 3.1, RFC 8200 3), whose lengths were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Octets of the header itself, without extension headers.
    pub length: usize,
    /// Octets of the whole packet; what follows is padding.
    pub total: usize,
    /// What comes next; an extension header in IPv6 counts as such.
    pub next: u8,
}

impl Header {
    /// Reads it; `None` if the octets are no IP packet, or too few.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header = match packet.first()? >> 4 {
            4 => Self::read4(packet.first_chunk()?, packet[0]),
            6 => Self::read6(packet.first_chunk()?),
            _ => return None,
        };
        (header.length <= header.total && header.total <= packet.len() && header.length >= 20).then_some(header)
    }

    fn read4(octets: &[u8; 20], first: u8) -> Self {
        let address = |at: usize| IpAddr::from([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Self {
            source: address(12),
            destination: address(16),
            length: usize::from(first & 0xf) * 4,
            total: usize::from(u16::from_be_bytes([octets[2], octets[3]])),
            next: octets[9],
        }
    }

    fn read6(octets: &[u8; 40]) -> Self {
        let address = |at: usize| {
            let mut address = [0; 16];
            address.copy_from_slice(&octets[at..at + 16]);
            IpAddr::from(address)
        };
        Self {
            source: address(8),
            destination: address(24),
            length: 40,
            total: 40 + usize::from(u16::from_be_bytes([octets[4], octets[5]])),
            next: octets[6],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[3] = 40;
        assert_eq!(Header::read(&packet).map(|header| (header.length, header.total)), Some((20, 40)));
        packet[3] = 41;
        assert_eq!(Header::read(&packet), None);
        packet[3] = 19;
        assert_eq!(Header::read(&packet), None);
        packet[0] = 0x44;
        packet[3] = 40;
        assert_eq!(Header::read(&packet), None);
        packet[0] = 0x4f;
        assert_eq!(Header::read(&packet), None);
        packet[0] = 0x60;
        packet[5] = 0;
        assert_eq!(Header::read(&packet).map(|header| header.total), Some(40));
        packet[5] = 1;
        assert_eq!(Header::read(&packet), None);
        assert_eq!(Header::read(&[]), None);
        assert_eq!(Header::read(&[0x60; 39]), None);
        assert_eq!(Header::read(&[0x75; 40]), None);
    }
}
