//! What the kernel and we say about a frame besides its octets: `struct virtio_net_hdr` of linux/virtio_net.h.

/// Octets of it on the wire.
pub const LENGTH: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const ECN: u8 = 0x80;

/// What is left to be done with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum that is to be completed.
    pub checksum: Option<Checksum>,
    /// How the frame is to be cut.
    pub segments: Option<Segments>,
}

/// A checksum of everything from `start` on, to be stored at `start + offset`, where the pseudo-header's sum stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where the header of TCP or UDP begins.
    pub start: u16,
    /// Where in it the checksum stands.
    pub offset: u16,
}

/// A frame that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Of which protocol.
    pub kind: Kind,
    /// Octets of payload in each but the last.
    pub size: u16,
    /// Octets of all headers.
    pub header: u16,
}

/// The protocol of a frame that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

impl Offload {
    /// Reads it; `None` if it wants what nobody offered.
    pub fn read(octets: [u8; LENGTH]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
        let checksum = (octets[0] & NEEDS_CHECKSUM != 0).then(|| Checksum { start: word(6), offset: word(8) });
        let kind = match octets[1] & !ECN {
            0 => return Some(Self { checksum, segments: None }),
            1 => Kind::Tcp4,
            4 => Kind::Tcp6,
            5 => Kind::Udp,
            _ => return None,
        };
        Some(Self { checksum, segments: Some(Segments { kind, header: word(2), size: word(4) }) })
    }

    /// Writes it for a frame that has `link` octets in front of its IP header.
    pub fn write(&self, link: u16) -> [u8; LENGTH] {
        let mut octets = [0; LENGTH];
        if let Some(checksum) = self.checksum {
            octets[0] = NEEDS_CHECKSUM;
            octets[6..8].copy_from_slice(&(checksum.start + link).to_ne_bytes());
            octets[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        if let Some(segments) = self.segments {
            octets[1] = match segments.kind {
                Kind::Tcp4 => 1,
                Kind::Tcp6 => 4,
                Kind::Udp => 5,
            };
            octets[2..4].copy_from_slice(&(segments.header + link).to_ne_bytes());
            octets[4..6].copy_from_slice(&segments.size.to_ne_bytes());
        }
        octets
    }

    /// The same for the frame without the `link` octets in front of its IP header.
    pub fn without(mut self, link: u16) -> Option<Self> {
        if let Some(checksum) = &mut self.checksum {
            checksum.start = checksum.start.checked_sub(link)?;
        }
        if let Some(segments) = &mut self.segments {
            segments.header = segments.header.checked_sub(link)?;
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp] {
            let offload = Offload {
                checksum: Some(Checksum { start: 40, offset: 16 }),
                segments: Some(Segments { kind, size: 1340, header: 72 }),
            };
            assert_eq!(Offload::read(offload.write(0)), Some(offload));
            assert_eq!(Offload::read(offload.write(14)).and_then(|read| read.without(14)), Some(offload));
        }
        assert_eq!(Offload::read([0; LENGTH]), Some(Offload::default()));
    }

    #[test]
    fn fragmentation_that_nobody_offered_is_refused() {
        let mut octets = [0; LENGTH];
        octets[1] = 3;
        assert_eq!(Offload::read(octets), None);
    }

    #[test]
    fn a_checksum_inside_the_link_header_is_refused() {
        let offload = Offload { checksum: Some(Checksum { start: 8, offset: 2 }), segments: None };
        assert_eq!(offload.without(14), None);
    }
}
