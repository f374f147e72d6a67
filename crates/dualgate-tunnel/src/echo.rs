//! Echo requests of exact sizes through the tunnel, and their answers (RFC 792, RFC 4443 4.1).
//!
//! They are never cut, whatever the host believes of the path: neither its routes nor anybody's errors of ICMP count here,
//! the interface's MTU alone does. A raw socket where that is allowed (CAP_NET_RAW), else a datagram socket of ICMP, which
//! `net.ipv4.ping_group_range` may allow.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, Socket, Type};

use crate::userspace::{checksum, option};

/// `ICMP_FILTER` of `linux/icmp.h`: a bit for each type that is not wanted.
const ICMP_FILTER: libc::c_int = 1;
/// `ICMPV6_FILTER` of `linux/icmpv6.h`: as before, for 256 types.
const ICMPV6_FILTER: libc::c_int = 1;
/// Octets of the ICMP header.
const HEADER: usize = 8;
/// Octets of what tells an answer from others: whose it is, and how large it was sent.
const MARK: usize = 8 + 2;
/// No MTU is larger.
const LARGEST: usize = 9216;

/// A socket that asks on one interface, from one address.
#[derive(Debug)]
pub struct Echo {
    socket: Socket,
    kind: Kind,
    is_v4: bool,
    /// Tells our answers from those of others.
    whose: [u8; 8],
}

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It sees every answer that reaches the host.
    Raw,
    /// It sees its own, and the kernel fills in identifier and checksum.
    Datagram,
}

/// An answer that came back as large as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers.
    pub from: IpAddr,
    /// To what.
    pub id: u16,
}

impl Echo {
    /// Opens one, in the network of the calling thread. `from` may be the unspecified address: then routes choose.
    pub fn open(interface: &str, from: IpAddr) -> io::Result<Self> {
        let open = |kind: Kind| Self::open_as(kind, interface, from);
        open(Kind::Raw).or_else(|raw| {
            open(Kind::Datagram).map_err(|datagram| {
                let text = format!("echo requests cannot be sent from {from}: {raw} (raw), {datagram} (datagram)");
                io::Error::new(raw.kind(), text)
            })
        })
    }

    /// Opens one of a kind.
    pub fn open_as(kind: Kind, interface: &str, from: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match from {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let type_ = match kind {
            Kind::Raw => Type::RAW,
            Kind::Datagram => Type::DGRAM,
        };
        let socket = Socket::new(domain, type_, Some(protocol))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        // Not cut, and not believing what others say of the path.
        if from.is_ipv4() {
            option::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        } else {
            option::set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
            option::set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
        }
        if kind == Kind::Raw {
            wake_for_answers_only(&socket, from);
        }
        Ok(Self { socket, kind, is_v4: from.is_ipv4(), whose: random() })
    }

    /// Asks once, with a packet of so many octets in all.
    pub fn ask(&self, to: IpAddr, id: u16, octets: u16) -> io::Result<()> {
        let message = request(self.is_v4, &self.whose, id, octets);
        sendto(&self.socket, &message, SendFlags::DONTWAIT, &SocketAddr::new(to, 0))?;
        Ok(())
    }

    /// The next answer to us; `None` if none waits.
    pub fn answer(&self) -> Option<Answer> {
        let mut space = [0; LARGEST];
        loop {
            let (length, _, from) = match recvfrom(&self.socket, &mut space[..], RecvFlags::DONTWAIT) {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            };
            let from = SocketAddr::try_from(from?).ok()?.ip();
            let message = match (self.kind, self.is_v4) {
                (Kind::Raw, true) => above_ipv4(&space[..length]),
                (Kind::Raw, false) | (Kind::Datagram, _) => Some(&space[..length]),
            };
            if let Some(id) = message.and_then(|message| read(self.is_v4, &self.whose, message)) {
                return Some(Answer { from, id });
            }
        }
    }
}

/// Octets of the IP header.
fn ip_header(is_v4: bool) -> usize {
    if is_v4 { 20 } else { 40 }
}

/// Types of echo request and echo reply.
fn types(is_v4: bool) -> (u8, u8) {
    if is_v4 { (8, 0) } else { (128, 129) }
}

fn request(is_v4: bool, whose: &[u8; 8], id: u16, octets: u16) -> Vec<u8> {
    let mut message = vec![types(is_v4).0, 0, 0, 0, whose[0], whose[1]];
    message.extend(id.to_be_bytes());
    message.extend(whose);
    message.extend(octets.to_be_bytes());
    message.resize(usize::from(octets).saturating_sub(ip_header(is_v4)).max(HEADER + MARK), 0);
    if is_v4 {
        // For IPv6 the kernel does it, as the addresses count as well.
        let sum = !checksum::sum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What an answer to us answers, if it is as large as what was sent.
fn read(is_v4: bool, whose: &[u8; 8], message: &[u8]) -> Option<u16> {
    let (header, data) = message.split_at_checked(HEADER)?;
    let (mark, _) = data.split_at_checked(MARK)?;
    let octets = u16::from_be_bytes([mark[8], mark[9]]);
    let is_ours = header[..2] == [types(is_v4).1, 0] && mark[..8] == *whose;
    let is_whole = message.len() + ip_header(is_v4) == usize::from(octets);
    (is_ours && is_whole).then(|| u16::from_be_bytes([header[6], header[7]]))
}

fn above_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    packet.get(length..)
}

/// What else comes is read and left alone if the kernel does not filter it.
fn wake_for_answers_only(socket: &Socket, from: IpAddr) {
    let reply = types(from.is_ipv4()).1;
    let _ = match from {
        IpAddr::V4(_) => option::set_octets(socket.as_fd(), libc::SOL_RAW, ICMP_FILTER, &(!1_u32).to_ne_bytes()),
        IpAddr::V6(_) => {
            let mut unwanted = [u32::MAX; 8];
            unwanted[usize::from(reply / 32)] &= !(1 << (reply % 32));
            option::set_octets(
                socket.as_fd(),
                libc::SOL_ICMPV6,
                ICMPV6_FILTER,
                &unwanted.map(u32::to_ne_bytes).concat(),
            )
        }
    };
}

/// What nobody guesses who does not see it.
fn random() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: [u8; 8] = *b"ourselve";

    /// As a peer answers: the same with another type.
    fn answered(is_v4: bool, mut message: Vec<u8>) -> Vec<u8> {
        message[0] = types(is_v4).1;
        message
    }

    #[test]
    fn a_request_has_the_size_that_was_asked_for_and_a_right_checksum() {
        for octets in [96, 1280, 1391, 1392] {
            let four = request(true, &WHOSE, 7, octets);
            assert_eq!(four.len() + 20, usize::from(octets));
            assert_eq!(checksum::sum(&four, 0), 0xffff);
            assert_eq!(request(false, &WHOSE, 7, octets).len() + 40, usize::from(octets));
        }
    }

    #[test]
    fn an_answer_counts_if_it_is_ours_and_whole() {
        for is_v4 in [true, false] {
            let message = answered(is_v4, request(is_v4, &WHOSE, 513, 1392));
            assert_eq!(read(is_v4, &WHOSE, &message), Some(513));
            assert_eq!(read(is_v4, b"somebody", &message), None);
            assert_eq!(read(is_v4, &WHOSE, &message[..1000]), None);
            assert_eq!(read(is_v4, &WHOSE, &request(is_v4, &WHOSE, 513, 1392)), None, "a request is no answer");
            for length in 0..HEADER + MARK {
                assert_eq!(read(is_v4, &WHOSE, &message[..length]), None);
            }
        }
    }

    #[test]
    fn what_is_no_ipv4_is_nothing() {
        assert_eq!(above_ipv4(&[]), None);
        assert_eq!(above_ipv4(&[0x4f, 0, 0]), None);
        assert_eq!(above_ipv4(&[[0x45; 20].as_slice(), &[1, 2]].concat()), Some([1, 2].as_slice()));
    }
}
