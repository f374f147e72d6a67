//! Asks a LAN who answers for an address, and listens to all answers: an outsider's view of what is announced.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use dualgate_wire::arp::{self, Operation};
use dualgate_wire::bpf;
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Message, Solicitation};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::packet::{PacketSocket, Protocol};
use crate::network::Interface;

/// More than any answer.
const SPACE: usize = 2048;

/// Every station that says within `patience` that the address is its own, asked once from this interface.
///
/// # Errors
///
/// Without CAP_NET_RAW, or if the interface has no address of this family to ask from.
pub fn who_has(interface: &Interface, address: IpAddr, patience: Duration) -> io::Result<BTreeSet<Mac>> {
    let until = Instant::now() + patience;
    let own = Mac(interface.mac.ok_or_else(|| io::Error::other("the interface has no link-layer address"))?);
    let protocol = match address {
        IpAddr::V4(_) => Protocol::Arp,
        IpAddr::V6(_) => Protocol::Ipv6,
    };
    let socket = PacketSocket::open(interface.index, protocol, &bpf::filter(&BTreeSet::from([address])))?;
    let question = question(interface, own, address);
    socket.send(&question.ok_or_else(|| io::Error::other("the interface has no address to ask from"))?)?;
    let mut answers = BTreeSet::new();
    let mut space = [0; SPACE];
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let socket_fd = socket.as_fd();
        match poll(&mut [PollFd::new(&socket_fd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = socket.receive(&mut space)? {
            answers.extend(answer(frame, own, address));
        }
    }
    Ok(answers)
}

fn question(interface: &Interface, own: Mac, address: IpAddr) -> Option<Vec<u8>> {
    let mut frame = Vec::with_capacity(128);
    match address {
        IpAddr::V4(target) => {
            let addresses = interface.addresses.iter().map(ipnet::IpNet::addr);
            let sender: Ipv4Addr = addresses.into_iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })?;
            Header { destination: Mac::BROADCAST, source: own, ether_type: EtherType::Arp }.emit(&mut frame);
            let operation = Operation::Request;
            arp::Packet { operation, sender_mac: own, sender, target_mac: Mac::ZERO, target }.emit(&mut frame);
        }
        IpAddr::V6(target) => {
            let addresses = interface.addresses.iter().map(ipnet::IpNet::addr);
            let source: Ipv6Addr = addresses.into_iter().find_map(|address| match address {
                IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            })?;
            let destination = ndp::solicited_node(target);
            let to = Mac::of_group(destination);
            Header { destination: to, source: own, ether_type: EtherType::Ipv6 }.emit(&mut frame);
            let asked = Solicitation { target, source_link: Some(own), nonce: None };
            ndp::Packet { source, destination, message: Message::Solicitation(asked) }.emit(&mut frame);
        }
    }
    Some(frame)
}

/// Who says to us that the address is its own. What is told to all is no answer: it may be of somebody who took it over
/// just after the question.
fn answer(frame: &[u8], own: Mac, address: IpAddr) -> Option<Mac> {
    let (header, body) = Header::parse(frame).ok()?;
    if header.destination != own {
        return None;
    }
    match (address, header.ether_type) {
        (IpAddr::V4(address), EtherType::Arp) => {
            let packet = arp::Packet::parse(body).ok()?;
            (packet.operation == Operation::Reply && packet.sender == address).then_some(packet.sender_mac)
        }
        (IpAddr::V6(address), EtherType::Ipv6) => match ndp::Packet::parse(body).ok()?.message {
            Message::Advertisement(said) if said.target == address => said.target_link.or(Some(header.source)),
            Message::Advertisement(_) | Message::Solicitation(_) => None,
        },
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}
