//! What is said beside the octets of a datagram: control messages (cmsg(3)).

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct cmsghdr`: a length of the machine's word, level, type.
const WORD: usize = size_of::<usize>();
const HEADER: usize = (WORD + 8).next_multiple_of(WORD);

/// Control messages of one datagram.
#[derive(Debug)]
pub struct Control {
    octets: [u8; Self::SIZE],
    length: usize,
}

/// What the kernel says of what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is several datagrams of this length.
    Segment(usize),
    /// It was sent to this address of ours.
    Local(IpAddr),
}

impl Default for Control {
    fn default() -> Self {
        Self { octets: [0; Self::SIZE], length: 0 }
    }
}

impl Control {
    /// Room for all that is used here, and more.
    pub const SIZE: usize = 128;

    /// Says how long each datagram is (UDP_SEGMENT).
    pub fn push_segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Says from which address to send (IP_PKTINFO, IPV6_PKTINFO).
    pub fn push_source(&mut self, source: IpAddr) {
        match source {
            // Index of the interface, the address to send from, the address in the header.
            IpAddr::V4(source) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&source.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(source) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&source.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// As the kernel wants it.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let room = &mut self.octets[self.length..];
        room[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.length += HEADER + data.len().next_multiple_of(WORD);
    }

    /// Reads what the kernel wrote; what it did not mean for us is left out.
    pub fn read(octets: &[MaybeUninit<u8>]) -> Vec<Note> {
        let octets = initialised(octets);
        let mut rest = octets;
        let mut notes = Vec::new();
        while let Some((length, level, kind)) = header(rest) {
            let Some(data) = rest.get(HEADER..length) else { break };
            notes.extend(note(level, kind, data));
            rest = rest.get(length.next_multiple_of(WORD)..).unwrap_or_default();
        }
        notes
    }
}

fn header(octets: &[u8]) -> Option<(usize, i32, i32)> {
    let length = usize::from_ne_bytes(*octets.first_chunk()?);
    let number = |at: usize| octets.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes);
    Some((length, number(WORD)?, number(WORD + 4)?)).filter(|_| length >= HEADER)
}

fn note(level: i32, kind: i32, data: &[u8]) -> Option<Note> {
    match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            Some(Note::Segment(usize::try_from(i32::from_ne_bytes(*data.first_chunk()?)).ok()?))
        }
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // The address that the datagram is routed to, which is the one to answer from.
            Some(Note::Local(Ipv4Addr::from(*data.get(4..)?.first_chunk::<4>()?).into()))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            Some(Note::Local(Ipv6Addr::from(*data.first_chunk::<16>()?).into()))
        }
        _ => None,
    }
}

#[expect(unsafe_code, reason = "the caller hands over octets that were zero before the kernel wrote")]
fn initialised(octets: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: every caller makes the buffer with `MaybeUninit::new(0)`; the kernel only overwrites octets.
    unsafe { octets.assume_init_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uninit(octets: &[u8]) -> Vec<MaybeUninit<u8>> {
        octets.iter().map(|octet| MaybeUninit::new(*octet)).collect()
    }

    #[test]
    fn what_is_said_is_understood() {
        let mut control = Control::default();
        control.push_source("192.0.2.1".parse().unwrap());
        control.push_source("2001:db8::1".parse().unwrap());
        control.push(libc::SOL_UDP, libc::UDP_GRO, &1424_i32.to_ne_bytes());
        let notes = [
            Note::Local("192.0.2.1".parse().unwrap()),
            Note::Local("2001:db8::1".parse().unwrap()),
            Note::Segment(1424),
        ];
        assert_eq!(Control::read(&uninit(control.octets())), notes);
    }

    #[test]
    fn octets_that_break_off_say_nothing() {
        let mut control = Control::default();
        control.push(libc::SOL_UDP, libc::UDP_GRO, &1424_i32.to_ne_bytes());
        for length in 0..HEADER + 4 {
            assert_eq!(Control::read(&uninit(&control.octets()[..length])), [], "{length}");
        }
        assert_eq!(Control::read(&uninit(&[0; 64])), []);
    }
}
