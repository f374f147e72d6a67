//! Packets that follow each other in one flow become one frame, which the kernel takes in one go.
//!
//! The rules are those of the kernel's own GRO: nothing is merged that could not be cut again into the same packets, and no
//! packet overtakes another of its flow. A checksum that is wrong stays wrong: such a packet goes alone.

use std::io::IoSlice;

use super::checksum::{self, TCP, UDP};
use super::ip::Header;
use super::offload::{Checksum, Kind, Offload, Segments};

/// The kernel cuts a frame into at most so many.
const MOST: usize = 64;
const LARGEST: usize = 65_535;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const DONT_FRAGMENT: u8 = 0x40;

/// Packets that wait to be merged. `P` is a packet's octets.
pub struct Merger<P> {
    groups: Vec<Group<P>>,
    /// Emptied, to be used again.
    spare: Vec<Vec<P>>,
    head: Vec<u8>,
}

struct Group<P> {
    packets: Vec<P>,
    shape: Option<Shape>,
    /// Whether the next of its flow may join.
    open: bool,
    /// Octets of payload so far.
    payload: usize,
}

/// What a packet is, as far as merging goes.
#[derive(Clone, Copy)]
struct Shape {
    transport: Transport,
    /// Octets of the IP header.
    ip: usize,
    /// Octets of all headers.
    headers: usize,
    /// Octets of payload.
    payload: usize,
    /// Whether it may be merged with others at all.
    plain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// One frame, of one packet or several.
pub struct Merged<'a, P> {
    packets: &'a [P],
    shape: Option<Shape>,
    payload: usize,
    head: &'a mut Vec<u8>,
}

impl<P: AsRef<[u8]>> Merger<P> {
    /// Without any packet.
    pub fn new() -> Self {
        Self { groups: Vec::new(), spare: Vec::new(), head: Vec::new() }
    }

    /// Adds a whole IP packet, without padding.
    pub fn push(&mut self, packet: P) {
        let Some(shape) = Shape::of(packet.as_ref()) else { return self.alone(packet, None) };
        let same = |group: &&mut Group<P>| group.is_flow_of(packet.as_ref(), &shape);
        let Some(group) = self.groups.iter_mut().rev().find(same) else { return self.alone(packet, Some(shape)) };
        if group.admits(packet.as_ref(), &shape) {
            group.open = shape.payload == group.first_payload() && !shape.ends(packet.as_ref());
            group.payload += shape.payload;
            group.packets.push(packet);
        } else {
            group.open = false;
            self.alone(packet, Some(shape));
        }
    }

    /// Gives every frame to `write` and forgets it.
    pub fn flush(&mut self, mut write: impl FnMut(&mut Merged<'_, P>)) {
        for mut group in self.groups.drain(..) {
            let Group { packets, shape, payload, .. } = &group;
            write(&mut Merged { packets, shape: *shape, payload: *payload, head: &mut self.head });
            group.packets.clear();
            self.spare.push(group.packets);
        }
    }

    fn alone(&mut self, packet: P, shape: Option<Shape>) {
        let open = shape.is_some_and(|shape| shape.plain && !shape.ends(packet.as_ref()));
        let payload = shape.map_or(0, |shape| shape.payload);
        let mut packets = self.spare.pop().unwrap_or_default();
        packets.push(packet);
        self.groups.push(Group { packets, shape, open, payload });
    }
}

impl<P: AsRef<[u8]>> Group<P> {
    fn first(&self) -> &[u8] {
        self.packets[0].as_ref()
    }

    fn first_payload(&self) -> usize {
        self.shape.map_or(0, |shape| shape.payload)
    }

    fn is_flow_of(&self, packet: &[u8], shape: &Shape) -> bool {
        let Some(own) = self.shape else { return false };
        let first = self.first();
        let addresses = if own.ip == 20 { 12..20 } else { 8..40 };
        own.transport == shape.transport
            && own.ip == shape.ip
            && first[addresses.clone()] == packet[addresses]
            && first[own.ip..own.ip + 4] == packet[own.ip..own.ip + 4]
    }

    /// Whether a packet of the same flow continues it.
    fn admits(&self, packet: &[u8], shape: &Shape) -> bool {
        let Some(own) = self.shape else { return false };
        self.open
            && shape.plain
            && own.headers == shape.headers
            && shape.payload <= own.payload
            && self.packets.len() < MOST
            && own.headers + self.payload + shape.payload <= LARGEST
            && same_ip(self.first(), packet, own.ip)
            && match own.transport {
                Transport::Tcp => self.continues(packet, own.ip, own.headers),
                Transport::Udp => true,
            }
    }

    /// Whether the TCP header is what the cutter would make of the first one's.
    fn continues(&self, packet: &[u8], at: usize, end: usize) -> bool {
        let (first, next) = (&self.first()[at..end], &packet[at..end]);
        let number = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        number(next) == number(first).wrapping_add(self.payload as u32)
            && first[8..13] == next[8..13]
            && (first[13] ^ next[13]) & !PSH == 0
            && first[14..16] == next[14..16]
            && first[18..] == next[18..]
    }
}

/// Whether two IP headers differ in nothing but length, checksum, and the identification that counts up.
fn same_ip(first: &[u8], next: &[u8], length: usize) -> bool {
    if length == 20 {
        first[..2] == next[..2] && first[6..10] == next[6..10]
    } else {
        first[..4] == next[..4] && first[6..8] == next[6..8]
    }
}

impl Shape {
    /// `None` if it is neither TCP nor UDP right behind the IP header.
    fn of(packet: &[u8]) -> Option<Self> {
        let header = Header::read(packet)?;
        let fits = header.total == packet.len() && (packet[0] >> 4 == 6 || header.length == 20);
        let whole = packet[0] >> 4 == 6 || (packet[6] & !DONT_FRAGMENT == 0 && packet[7] == 0);
        if !fits || !whole {
            return None;
        }
        let above = &packet[header.length..];
        let (transport, length) = match header.next {
            TCP => (Transport::Tcp, usize::from(above.get(12)? >> 4) * 4),
            UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let least = if transport == Transport::Tcp { 20 } else { 8 };
        let payload = above.len().checked_sub(length).filter(|_| length >= least)?;
        let mut shape = Self { transport, ip: header.length, headers: header.length + length, payload, plain: false };
        shape.plain = payload > 0 && shape.is_plain(packet, above);
        Some(shape)
    }

    fn is_plain(&self, packet: &[u8], above: &[u8]) -> bool {
        let (fits, protocol) = match self.transport {
            Transport::Tcp => (above[13] & !PSH == ACK, TCP),
            Transport::Udp => {
                (usize::from(u16::from_be_bytes([above[4], above[5]])) == above.len() && above[6..8] != [0; 2], UDP)
            }
        };
        // The cutter counts identifications up; who forbids fragments does not look at them (RFC 6864 4.1).
        let countable = self.ip == 40 || packet[6] == DONT_FRAGMENT;
        fits && countable && checksum::sum(above, checksum::pseudo(packet, protocol, above.len())) == 0xffff
    }

    /// Whether nothing may be added behind it.
    fn ends(&self, packet: &[u8]) -> bool {
        self.transport == Transport::Tcp && packet[self.ip + 13] & PSH != 0
    }
}

impl<P: AsRef<[u8]>> Merged<'_, P> {
    /// The packets of which it is made.
    pub fn packets(&self) -> &[P] {
        self.packets
    }

    /// What the kernel has to do with it.
    pub fn offload(&self) -> Offload {
        let Some(shape) = self.shape.filter(|_| self.packets.len() > 1) else { return Offload::default() };
        let (kind, offset) = match (shape.transport, shape.ip) {
            (Transport::Tcp, 20) => (Kind::Tcp4, 16),
            (Transport::Tcp, _) => (Kind::Tcp6, 16),
            (Transport::Udp, _) => (Kind::Udp, 6),
        };
        Offload {
            checksum: Some(Checksum { start: shape.ip as u16, offset }),
            segments: Some(Segments { kind, size: shape.payload as u16, header: shape.headers as u16 }),
        }
    }

    /// Its octets, in pieces.
    pub fn parts(&mut self) -> Vec<IoSlice<'_>> {
        let Some(shape) = self.shape.filter(|_| self.packets.len() > 1) else {
            return self.packets.iter().map(|packet| IoSlice::new(packet.as_ref())).collect();
        };
        self.head.clear();
        self.head.extend_from_slice(&self.packets[0].as_ref()[..shape.headers]);
        let length = shape.headers - shape.ip + self.payload;
        let (ip, above) = self.head.split_at_mut(shape.ip);
        if shape.ip == 20 {
            ip[2..4].copy_from_slice(&((length + 20) as u16).to_be_bytes());
            checksum::fill_ipv4(ip);
        } else {
            ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let last = self.packets[self.packets.len() - 1].as_ref();
        let (at, protocol) = match shape.transport {
            Transport::Tcp => {
                above[13] = last[shape.ip + 13];
                (16, TCP)
            }
            Transport::Udp => {
                above[4..6].copy_from_slice(&(length as u16).to_be_bytes());
                (6, UDP)
            }
        };
        above[at..at + 2].copy_from_slice(&checksum::pseudo(ip, protocol, length).to_be_bytes());
        let payloads = self.packets.iter().map(|packet| IoSlice::new(&packet.as_ref()[shape.headers..]));
        std::iter::once(IoSlice::new(self.head)).chain(payloads).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    /// How many packets are in each frame.
    fn frames(packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<usize> {
        let mut merger = Merger::new();
        packets.into_iter().for_each(|packet| merger.push(packet));
        let mut counts = Vec::new();
        merger.flush(|merged| counts.push(merged.packets().len()));
        counts
    }

    #[test]
    fn a_shorter_packet_ends_its_frame() {
        for sample in [Sample::tcp4(), Sample::tcp6(), Sample::udp4(), Sample::udp6()] {
            assert_eq!(frames(sample.stream(&[100, 100, 60, 100, 100])), [3, 2], "{sample:?}");
            assert_eq!(frames(sample.stream(&[100, 120, 120])), [1, 2], "{sample:?}");
        }
    }

    #[test]
    fn flows_are_merged_each_for_itself() {
        let one = Sample::tcp4().stream(&[100, 100]);
        let other = Sample::tcp6().stream(&[100, 100]);
        let mixed = [one[0].clone(), other[0].clone(), one[1].clone(), other[1].clone()];
        assert_eq!(frames(mixed), [2, 2]);
    }

    #[test]
    fn a_gap_ends_a_frame_and_nothing_overtakes() {
        let mut stream = Sample::tcp4().stream(&[100; 4]);
        stream.remove(1);
        assert_eq!(frames(stream), [1, 2]);
        let stream = Sample::tcp4().stream(&[100; 3]);
        let swapped = [stream[1].clone(), stream[0].clone(), stream[2].clone()];
        assert_eq!(frames(swapped), [1, 1, 1]);
    }

    #[test]
    fn what_the_cutter_could_not_make_again_goes_alone() {
        let change = |at: usize, to: fn(&mut u8)| {
            let mut stream = Sample::tcp4().stream(&[100; 3]);
            to(&mut stream[1][at]);
            Sample::tcp4().fill(&mut stream[1]);
            frames(stream)
        };
        assert_eq!(change(1, |tos| *tos = 2), [1, 1, 1], "another traffic class");
        assert_eq!(change(8, |ttl| *ttl -= 1), [1, 1, 1], "another hop limit");
        assert_eq!(change(6, |flags| *flags = 0), [1, 1, 1], "it may be fragmented");
        assert_eq!(change(33, |flags| *flags |= 1), [1, 1, 1], "FIN");
        assert_eq!(change(33, |flags| *flags |= 0x20), [1, 1, 1], "URG");
        assert_eq!(change(34, |window| *window ^= 1), [1, 1, 1], "another window");
        assert_eq!(change(51, |option| *option ^= 1), [1, 1, 1], "another option");
        assert_eq!(change(33, |flags| *flags |= 8), [2, 1], "PSH ends a frame and stays");
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        for sample in [Sample::tcp4(), Sample::tcp6(), Sample::udp4(), Sample::udp6()] {
            let mut stream = sample.stream(&[100; 3]);
            if let Some(last) = stream[1].last_mut() {
                *last ^= 1;
            }
            assert_eq!(frames(stream), [1, 1, 1], "{sample:?}");
        }
    }

    #[test]
    fn fragments_and_headers_that_lie_go_alone() {
        let mut stream = Sample::tcp4().stream(&[100; 3]);
        stream[1][7] = 1;
        stream[2].truncate(30);
        assert_eq!(frames(stream), [1, 1, 1]);
        assert_eq!(frames([vec![], vec![0x45; 20], vec![0x60; 60]]), [1, 1, 1]);
    }

    #[test]
    fn no_frame_is_larger_than_a_length_field_can_say() {
        let counts = frames(Sample::tcp4().stream(&[1340; 60]));
        assert_eq!(counts, [48, 12]);
        assert_eq!(frames(Sample::udp4().stream(&[10; 100])), [64, 36]);
    }
}
