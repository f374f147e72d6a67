//! Frames that stand for several become the packets that they stand for, with complete checksums.
//!
//! The kernel hands them to an interface that says it can cut TCP and UDP itself. The other way is [`super::merge`].

use bytes::{BufMut as _, BytesMut};

use super::checksum::{self, TCP, UDP};
use super::offload::{Checksum, Kind, Offload, Segments};

/// WireGuard pads to a multiple of this; room for it saves a copy.
const PADDING: usize = 16;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The frame and what is said about it do not go together.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Gives each packet of a frame to `emit`, in order. The frame begins with its IP header and has no padding.
pub fn split(offload: Offload, frame: &mut [u8], mut emit: impl FnMut(BytesMut)) -> Result<(), Malformed> {
    match offload.segments {
        Some(segments) => cut(segments, offload.checksum, frame, emit),
        None => {
            if let Some(checksum) = offload.checksum {
                complete(checksum, frame)?;
            }
            emit(packet(&[frame]));
            Ok(())
        }
    }
}

fn packet(parts: &[&[u8]]) -> BytesMut {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut packet = BytesMut::with_capacity(length.next_multiple_of(PADDING));
    parts.iter().for_each(|part| packet.put_slice(part));
    packet
}

/// Completes a checksum whose field holds the sum of the pseudo-header.
fn complete(Checksum { start, offset }: Checksum, frame: &mut [u8]) -> Result<(), Malformed> {
    let covered = frame.get_mut(usize::from(start)..).ok_or(Malformed)?;
    let checksum = !checksum::sum(covered, 0);
    let field = covered.get_mut(usize::from(offset)..usize::from(offset) + 2).ok_or(Malformed)?;
    // In UDP, zero means that there is none (RFC 768).
    let checksum = if offset == 6 && checksum == 0 { 0xffff } else { checksum };
    field.copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

fn cut(
    segments: Segments,
    checksum: Option<Checksum>,
    frame: &[u8],
    mut emit: impl FnMut(BytesMut),
) -> Result<(), Malformed> {
    let transport = usize::from(checksum.ok_or(Malformed)?.start);
    let version = frame.first().ok_or(Malformed)? >> 4;
    let (expected, ip) = match segments.kind {
        Kind::Tcp4 => (4, 20),
        Kind::Tcp6 => (6, 40),
        Kind::Udp => (version, if version == 4 { 20 } else { 40 }),
    };
    if version != expected || transport < ip {
        return Err(Malformed);
    }
    let headers = transport
        + match segments.kind {
            Kind::Tcp4 | Kind::Tcp6 => usize::from(frame.get(transport + 12).ok_or(Malformed)? >> 4) * 4,
            Kind::Udp => UDP_HEADER,
        };
    let least = if segments.kind == Kind::Udp { UDP_HEADER } else { TCP_HEADER };
    if headers < transport + least || headers >= frame.len() || segments.size == 0 {
        return Err(Malformed);
    }
    let (head, payload) = frame.split_at(headers);
    let pieces = payload.chunks(segments.size.into());
    let count = pieces.len();
    for (number, piece) in pieces.enumerate() {
        let mut packet = packet(&[head, piece]);
        fix_ip(&mut packet, transport, number);
        let place = Place { number, last: number + 1 == count, before: number * usize::from(segments.size) };
        match segments.kind {
            Kind::Tcp4 | Kind::Tcp6 => fix_tcp(&mut packet, transport, place),
            Kind::Udp => fix_udp(&mut packet, transport),
        }
        emit(packet);
    }
    Ok(())
}

struct Place {
    number: usize,
    last: bool,
    /// Octets of payload in front of it.
    before: usize,
}

fn fix_ip(packet: &mut [u8], transport: usize, number: usize) {
    let total = packet.len();
    if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        let identification = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(number as u16);
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        checksum::fill_ipv4(&mut packet[..transport]);
    } else {
        packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
    }
}

fn fix_tcp(packet: &mut [u8], transport: usize, place: Place) {
    let tcp = &mut packet[transport..];
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(place.before as u32);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !place.last {
        tcp[13] &= !FIN_PSH;
    }
    if place.number > 0 {
        // The sender has answered to congestion once (RFC 3168 6.1.2).
        tcp[13] &= !CWR;
    }
    fill(packet, transport, TCP, 16);
}

fn fix_udp(packet: &mut [u8], transport: usize) {
    let length = (packet.len() - transport) as u16;
    packet[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
    fill(packet, transport, UDP, 6);
}

/// Writes the whole checksum of TCP or UDP.
fn fill(packet: &mut [u8], transport: usize, protocol: u8, offset: usize) {
    let (ip, covered) = packet.split_at_mut(transport);
    covered[offset..offset + 2].fill(0);
    let checksum = !checksum::sum(covered, checksum::pseudo(ip, protocol, covered.len()));
    let checksum = if protocol == UDP && checksum == 0 { 0xffff } else { checksum };
    covered[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::merge::Merger;
    use super::super::sample::{self, Sample};
    use super::*;

    fn packets(offload: Offload, frame: &mut [u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut packets = Vec::new();
        split(offload, frame, |packet| packets.push(packet.to_vec())).map(|()| packets)
    }

    #[test]
    fn what_was_merged_is_cut_into_the_same_packets() {
        for sample in [Sample::tcp4(), Sample::tcp6(), Sample::udp4(), Sample::udp6()] {
            let sent = sample.stream(&[1300, 1300, 1300, 77]);
            let mut merger = Merger::new();
            sent.iter().for_each(|packet| merger.push(packet.clone()));
            let mut written = Vec::new();
            merger.flush(|merged| {
                let mut frame: Vec<u8> = merged.parts().iter().flat_map(|part| part.to_vec()).collect();
                written.push(packets(merged.offload(), &mut frame).unwrap());
            });
            assert_eq!(written, std::slice::from_ref(&sent), "{sample:?}");
        }
    }

    #[test]
    fn a_checksum_that_the_kernel_left_to_us_is_completed() {
        for sample in [Sample::tcp4(), Sample::tcp6(), Sample::udp4(), Sample::udp6()] {
            let whole = sample.stream(&[333]).remove(0);
            let (mut frame, offload) = sample::with_partial_checksum(&whole);
            assert_ne!(frame, whole);
            assert_eq!(packets(offload, &mut frame), Ok(vec![whole]));
        }
    }

    #[test]
    fn only_the_last_piece_says_push_and_only_the_first_says_that_the_window_was_reduced() {
        let mut frame = Sample::tcp4().stream(&[200]).remove(0);
        frame[33] |= FIN_PSH | CWR;
        let offload = Offload {
            checksum: Some(Checksum { start: 20, offset: 16 }),
            segments: Some(Segments { kind: Kind::Tcp4, size: 90, header: 52 }),
        };
        let flags = packets(offload, &mut frame).unwrap().iter().map(|packet| packet[33]).collect::<Vec<_>>();
        assert_eq!(flags, [0x10 | CWR, 0x10, 0x10 | FIN_PSH]);
    }

    #[test]
    fn no_frame_and_no_claim_about_it_panics() {
        let whole = Sample::tcp4().stream(&[90]).remove(0);
        for length in 0..whole.len() {
            for (start, size) in [(20, 10), (20, 0), (0, 10), (60, 10), (u16::MAX, 10)] {
                for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp] {
                    for first in [0x45, 0x60] {
                        let mut frame = whole[..length].to_vec();
                        frame.iter_mut().take(1).for_each(|octet| *octet = first);
                        let checksum = Some(Checksum { start, offset: 16 });
                        let segments = Some(Segments { kind, size, header: 52 });
                        let _ = packets(Offload { checksum, segments }, &mut frame);
                        let _ = packets(Offload { checksum, segments: None }, &mut frame);
                    }
                }
            }
        }
    }
}
