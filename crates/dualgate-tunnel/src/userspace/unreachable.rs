//! What the host is told when a packet has no peer: that nobody is there, so that nobody waits (as the kernel's WireGuard
//! does).

use std::time::{Duration, Instant};

use super::checksum;
use super::ip::Header;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// So much of the packet is quoted.
const QUOTED: usize = 512;
/// Answers in a second; a scan of the whole network must not become a flood.
const MOST: u32 = 50;

/// Counts answers.
#[derive(Debug)]
pub struct Budget {
    since: Instant,
    spent: u32,
}

impl Budget {
    /// Full.
    pub fn new(now: Instant) -> Self {
        Self { since: now, spent: 0 }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.spent += 1;
        self.spent <= MOST
    }
}

/// The answer to a packet; `None` to what is itself an answer, or is for many.
pub fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let header = Header::read(packet)?;
    let quoted = &packet[..header.total.min(QUOTED)];
    let above = &quoted[header.length.min(quoted.len())..];
    let is_error = match header.next {
        ICMP => above.first().is_none_or(|kind| !matches!(kind, 0 | 8)),
        ICMPV6 => above.first().is_none_or(|kind| *kind < 128),
        _ => false,
    };
    let is_first = packet[0] >> 4 == 6 || (packet[6] & 0x1f == 0 && packet[7] == 0);
    if is_error || !is_first || header.destination.is_multicast() || header.source.is_unspecified() {
        return None;
    }
    Some(if packet[0] >> 4 == 4 { answer4(packet, quoted) } else { answer6(packet, quoted) })
}

/// Destination unreachable, host (RFC 792), in the name of who cannot be reached.
fn answer4(packet: &[u8], quoted: &[u8]) -> Vec<u8> {
    let mut answer = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0];
    answer.extend_from_slice(&packet[16..20]);
    answer.extend_from_slice(&packet[12..16]);
    answer.extend_from_slice(&[3, 1, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(quoted);
    let total = (answer.len() as u16).to_be_bytes();
    answer[2..4].copy_from_slice(&total);
    checksum::fill_ipv4(&mut answer[..20]);
    let sum = !checksum::sum(&answer[20..], 0);
    answer[22..24].copy_from_slice(&sum.to_be_bytes());
    answer
}

/// Destination unreachable, address (RFC 4443 3.1).
fn answer6(packet: &[u8], quoted: &[u8]) -> Vec<u8> {
    let length = (quoted.len() as u16 + 8).to_be_bytes();
    let mut answer = vec![0x60, 0, 0, 0, length[0], length[1], ICMPV6, 64];
    answer.extend_from_slice(&packet[24..40]);
    answer.extend_from_slice(&packet[8..24]);
    answer.extend_from_slice(&[1, 3, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(quoted);
    let sum = !checksum::sum(&answer[40..], checksum::pseudo(&answer, ICMPV6, answer.len() - 40));
    answer[42..44].copy_from_slice(&sum.to_be_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    #[test]
    fn an_answer_goes_back_with_right_checksums_and_quotes() {
        let packet = Sample::tcp4().stream(&[900]).remove(0);
        let four = answer(&packet).unwrap();
        assert_eq!((&four[12..16], &four[16..20]), (&packet[16..20], &packet[12..16]));
        assert_eq!(checksum::sum(&four[..20], 0), 0xffff);
        assert_eq!(checksum::sum(&four[20..], 0), 0xffff);
        assert_eq!(four[28..], packet[..QUOTED]);
        let packet = Sample::udp6().stream(&[9]).remove(0);
        let six = answer(&packet).unwrap();
        assert_eq!(six[48..], packet[..]);
        assert_eq!(checksum::sum(&six[40..], checksum::pseudo(&six, ICMPV6, six.len() - 40)), 0xffff);
    }

    #[test]
    fn an_error_is_not_answered_by_an_error() {
        let packet = Sample::tcp6().stream(&[900]).remove(0);
        let six = answer(&packet).unwrap();
        assert_eq!(answer(&six), None);
        let four = answer(&Sample::tcp4().stream(&[9]).remove(0)).unwrap();
        assert_eq!(answer(&four), None);
        let mut multicast = packet;
        multicast[24] = 0xff;
        assert_eq!(answer(&multicast), None);
    }

    #[test]
    fn a_flood_is_answered_only_so_often() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), 50);
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
