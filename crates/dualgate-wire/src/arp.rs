//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use crate::ethernet::Mac;

/// Octets of a packet.
pub const LENGTH: usize = 28;

/// Ethernet, IPv4, and the lengths of their addresses.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Question or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target?
    Request,
    /// The sender is here.
    Reply,
}

/// What somebody says or asks about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Question or answer.
    pub operation: Operation,
    /// Whose the sender's address is said to be.
    pub sender_mac: Mac,
    /// The sender. `0.0.0.0` in a probe, which claims nothing (RFC 5227 1.1).
    pub sender: Ipv4Addr,
    /// Without meaning in a question.
    pub target_mac: Mac,
    /// Whom it is about.
    pub target: Ipv4Addr,
}

/// Why some octets are no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// It is shorter than one.
    #[error("the ARP packet is cut off")]
    Truncated,
    /// It is about other addresses than those of Ethernet and IPv4.
    #[error("the ARP packet is not about IPv4 over Ethernet")]
    Addresses,
    /// Neither question nor answer, such as those of RARP.
    #[error("ARP operation {0} is neither request nor reply")]
    Operation(u16),
}

impl Packet {
    /// Reads a packet. What follows it is padding.
    pub fn parse(octets: &[u8]) -> Result<Self, ArpError> {
        let octets: &[u8; LENGTH] = octets.first_chunk().ok_or(ArpError::Truncated)?;
        let (fixed, rest) = octets.split_at(FIXED.len());
        if fixed != FIXED {
            return Err(ArpError::Addresses);
        }
        let (operation, rest) = chunk(rest)?;
        let operation = match u16::from_be_bytes(operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ArpError::Operation(other)),
        };
        let (sender_mac, rest) = chunk(rest)?;
        let (sender, rest) = chunk::<4>(rest)?;
        let (target_mac, rest) = chunk(rest)?;
        let (target, _) = chunk::<4>(rest)?;
        Ok(Self {
            operation,
            sender_mac: Mac(sender_mac),
            sender: sender.into(),
            target_mac: Mac(target_mac),
            target: target.into(),
        })
    }

    /// Appends the packet.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out.extend_from_slice(&FIXED);
        out.extend_from_slice(&operation.to_be_bytes());
        out.extend_from_slice(&self.sender_mac.0);
        out.extend_from_slice(&self.sender.octets());
        out.extend_from_slice(&self.target_mac.0);
        out.extend_from_slice(&self.target.octets());
    }
}

fn chunk<const N: usize>(octets: &[u8]) -> Result<([u8; N], &[u8]), ArpError> {
    let (chunk, rest) = octets.split_first_chunk().ok_or(ArpError::Truncated)?;
    Ok((*chunk, rest))
}
