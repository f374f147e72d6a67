//! Packets for tests.

use super::checksum::{self, TCP, UDP};
use super::offload::{Checksum, Offload};

/// A flow.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    version: u8,
    protocol: u8,
}

impl Sample {
    pub fn tcp4() -> Self {
        Self { version: 4, protocol: TCP }
    }

    pub fn tcp6() -> Self {
        Self { version: 6, protocol: TCP }
    }

    pub fn udp4() -> Self {
        Self { version: 4, protocol: UDP }
    }

    pub fn udp6() -> Self {
        Self { version: 6, protocol: UDP }
    }

    /// Packets that follow each other, with payloads of these lengths.
    pub fn stream(&self, lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut sequence = u32::MAX - 50;
        let mut packets = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let payload: Vec<u8> = (0..*length).map(|at| (at * 3 + number) as u8).collect();
            let above = self.above(sequence, &payload);
            sequence = sequence.wrapping_add(*length as u32);
            let mut packet = self.ip(number as u16, above.len());
            packet.extend(above);
            self.fill(&mut packet);
            packets.push(packet);
        }
        packets
    }

    fn ip(&self, number: u16, above: usize) -> Vec<u8> {
        if self.version == 4 {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, self.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            header[2..4].copy_from_slice(&(above as u16 + 20).to_be_bytes());
            header[4..6].copy_from_slice(&number.wrapping_sub(1).to_be_bytes());
            header
        } else {
            let mut header = vec![0x60, 0, 0, 7, 0, 0, self.protocol, 64];
            header[4..6].copy_from_slice(&(above as u16).to_be_bytes());
            header.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            header.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            header
        }
    }

    fn above(&self, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x10, 0x01, 0x20, 0x02];
        if self.protocol == TCP {
            header.extend(sequence.to_be_bytes());
            // With the timestamps option.
            header.extend([0, 0, 0, 9, 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        } else {
            header.extend((payload.len() as u16 + 8).to_be_bytes());
            header.extend([0, 0]);
        }
        header.extend(payload);
        header
    }

    /// Makes the checksums right.
    pub fn fill(&self, packet: &mut [u8]) {
        let (transport, at) = self.places();
        if self.version == 4 {
            checksum::fill_ipv4(&mut packet[..20]);
        }
        let (ip, above) = packet.split_at_mut(transport);
        above[at..at + 2].fill(0);
        let checksum = !checksum::sum(above, checksum::pseudo(ip, self.protocol, above.len()));
        above[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn places(&self) -> (usize, usize) {
        (if self.version == 4 { 20 } else { 40 }, if self.protocol == TCP { 16 } else { 6 })
    }
}

/// The packet as the kernel hands it over when we are to complete its checksum.
pub fn with_partial_checksum(whole: &[u8]) -> (Vec<u8>, Offload) {
    let mut packet = whole.to_vec();
    let version = packet[0] >> 4;
    let (transport, protocol) = if version == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let at = if protocol == TCP { 16 } else { 6 };
    let (ip, above) = packet.split_at_mut(transport);
    let sum = checksum::pseudo(ip, protocol, above.len());
    above[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (packet, Offload { checksum: Some(Checksum { start: transport as u16, offset: at as u16 }), segments: None })
}
