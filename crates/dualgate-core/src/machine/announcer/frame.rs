//! What is sent, and its octets. A frame is made at the moment when it leaves, with the address that the interface has then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_wire::arp::{self, Operation};
use dualgate_wire::ethernet::{EtherType, HEADER, Header, Mac};
use dualgate_wire::ndp::{self, Advertisement, Flags, Message, Nonce, Solicitation, solicited_node};

/// The longest frame of all: an IPv6 header, and a message with one option.
const LONGEST: usize = HEADER + 40 + 32;

/// A frame that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Gratuitous ARP, as question or answer.
    Gratuitous { address: Ipv4Addr, form: Operation },
    /// The answer to one who asked by ARP, or probes.
    Reply { address: Ipv4Addr, to: Mac, asker: Ipv4Addr },
    /// A question by ARP; from `0.0.0.0` it is a probe.
    Request { target: Ipv4Addr, sender: Ipv4Addr },
    /// An advertisement that answers.
    Solicited { address: Ipv6Addr, to: Mac, asker: Ipv6Addr },
    /// An advertisement to a group.
    Unsolicited { address: Ipv6Addr, to: Ipv6Addr },
    /// A question about an IPv6 address.
    Solicitation { target: Ipv6Addr, source: Ipv6Addr },
    /// The same from `::`, as Duplicate Address Detection asks.
    Detection { target: Ipv6Addr, nonce: Nonce },
}

/// What a frame counts as.
pub(super) enum Kind {
    Answer,
    Announcement,
    Question,
}

impl Outgoing {
    /// The address that it claims. A question claims none.
    pub(super) fn claims(&self) -> Option<IpAddr> {
        match self {
            Self::Gratuitous { address, .. } | Self::Reply { address, .. } => Some(IpAddr::V4(*address)),
            Self::Solicited { address, .. } | Self::Unsolicited { address, .. } => Some(IpAddr::V6(*address)),
            Self::Request { .. } | Self::Solicitation { .. } | Self::Detection { .. } => None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Reply { .. } | Self::Solicited { .. } => Kind::Answer,
            Self::Gratuitous { .. } | Self::Unsolicited { .. } => Kind::Announcement,
            Self::Request { .. } | Self::Solicitation { .. } | Self::Detection { .. } => Kind::Question,
        }
    }

    /// The whole frame, from the station `mac`.
    pub(super) fn frame(&self, mac: Mac) -> Vec<u8> {
        match *self {
            Self::Gratuitous { address, form } => arp(mac, form, address, (Mac::BROADCAST, Mac::BROADCAST), address),
            Self::Reply { address, to, asker } => arp(mac, Operation::Reply, address, (to, to), asker),
            Self::Request { target, sender } => {
                arp(mac, Operation::Request, sender, (Mac::BROADCAST, Mac::ZERO), target)
            }
            Self::Solicited { address, to, asker } => {
                let flags = Flags { router: false, solicited: true, overriding: true };
                advertisement(mac, address, (to, asker), flags)
            }
            // RFC 9131 lets O unset towards routers for an address that nobody had. Ours may have been elsewhere.
            Self::Unsolicited { address, to } => {
                let flags = Flags { router: false, solicited: false, overriding: true };
                advertisement(mac, address, (Mac::of_group(to), to), flags)
            }
            Self::Solicitation { target, source } => {
                solicitation(mac, source, Solicitation { target, source_link: Some(mac), nonce: None })
            }
            Self::Detection { target, nonce } => {
                let question = Solicitation { target, source_link: None, nonce: Some(nonce) };
                solicitation(mac, Ipv6Addr::UNSPECIFIED, question)
            }
        }
    }
}

/// `to` is where the frame goes, and the target's hardware address.
fn arp(mac: Mac, operation: Operation, sender: Ipv4Addr, to: (Mac, Mac), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = header(mac, to.0, EtherType::Arp);
    arp::Packet { operation, sender_mac: mac, sender, target_mac: to.1, target }.emit(&mut frame);
    frame
}

fn advertisement(mac: Mac, address: Ipv6Addr, to: (Mac, Ipv6Addr), flags: Flags) -> Vec<u8> {
    let message = Message::Advertisement(Advertisement { target: address, flags, target_link: Some(mac) });
    let mut frame = header(mac, to.0, EtherType::Ipv6);
    ndp::Packet { source: address, destination: to.1, message }.emit(&mut frame);
    frame
}

fn solicitation(mac: Mac, source: Ipv6Addr, question: Solicitation) -> Vec<u8> {
    let destination = solicited_node(question.target);
    let mut frame = header(mac, Mac::of_group(destination), EtherType::Ipv6);
    ndp::Packet { source, destination, message: Message::Solicitation(question) }.emit(&mut frame);
    frame
}

fn header(source: Mac, destination: Mac, ether_type: EtherType) -> Vec<u8> {
    let mut frame = Vec::with_capacity(LONGEST);
    Header { destination, source, ether_type }.emit(&mut frame);
    frame
}
