//! Datagrams between home nodes: sealed with one key that all of them have, over both families.
//!
//! Sealing makes a datagram unreadable and unforgeable for others in the LAN. That an old one has no effect is the business
//! of `core::machine::ownership`, whose messages name the sessions that they belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use dualgate_core::model::{Family, Secret};
use dualgate_wire::bpf::{self, Instruction};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The first octet of every datagram.
const VERSION: u8 = 1;
/// What is authenticated with every datagram, so that nothing else that is sealed with this key passes for one.
const CONTEXT: &[u8] = b"dualgate heartbeat";
/// Network control (RFC 4594 3.2): these datagrams are few, and must not wait behind others.
const NETWORK_CONTROL: u32 = 48 << 2;
/// What may wait in a socket: of 1,000 groups, all that three members say in a second.
const BUFFER: usize = 1 << 20;
/// Larger than any datagram.
pub const SPACE: usize = 2048;

/// The key of the site's home nodes.
pub struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// From 32 octets; `None` if they are not.
    pub fn new(key: &Secret) -> Option<Self> {
        // Exposed to the cipher.
        UnboundKey::new(&AES_256_GCM_SIV, key.expose()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Seals a datagram. `None` if the system has no random numbers.
    ///
    /// The nonce is random: this cipher stays safe even should one come twice (RFC 8452).
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut body = plain.to_vec();
        let aad = Aad::from(CONTEXT);
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body).ok()?;
        let mut datagram = Vec::with_capacity(1 + NONCE_LEN + body.len());
        datagram.push(VERSION);
        datagram.extend_from_slice(&nonce);
        datagram.append(&mut body);
        Some(datagram)
    }

    /// Opens a datagram in place; `None` if it was not sealed with this key.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        let ([VERSION], rest) = datagram.split_first_chunk_mut::<1>()? else { return None };
        let (nonce, body) = rest.split_first_chunk_mut::<NONCE_LEN>()?;
        let plain = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(CONTEXT), body).ok()?;
        Some(plain)
    }
}

/// This node's sockets, one of each family that it has. They let through what comes from other members' addresses, and the
/// kernel drops all else: no stranger keeps this process busy.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<Family, (IpAddr, Socket)>,
    from: BTreeSet<IpAddr>,
    /// Which one is read next: they take turns.
    turn: usize,
}

impl Sockets {
    /// Speaks from the first of `own` of each family, at `port`, and hears those at `others`. Addresses may be absent at the
    /// moment. A family whose socket cannot be had costs the other one nothing.
    ///
    /// # Errors
    ///
    /// If a port is taken.
    pub fn settle(&mut self, own: &[IpAddr], others: BTreeSet<IpAddr>, port: u16) -> io::Result<()> {
        let mut outcome = Ok(());
        for family in [Family::V4, Family::V6] {
            let first = own.iter().copied().find(|address| Family::of(*address) == family);
            if self.open.get(&family).map(|(address, _)| *address) != first {
                self.open.remove(&family);
                match first.map(|address| (address, socket(address, port, &others))) {
                    Some((address, Ok(socket))) => drop(self.open.insert(family, (address, socket))),
                    Some((_, Err(error))) => outcome = outcome.and(Err(error)),
                    None => {}
                }
            }
        }
        if others != self.from {
            for (_, socket) in self.open.values() {
                outcome = outcome.and(hear_only(socket, &others));
            }
            self.from = others;
        }
        outcome
    }

    /// To be waited for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().map(|(_, socket)| socket.as_fd())
    }

    /// Sends the same over every family that both ends have; whether it left by any.
    pub fn send(&self, datagram: &[u8], to: &[IpAddr], port: u16) -> bool {
        let mut left = false;
        for (family, (_, socket)) in &self.open {
            let to = to.iter().find(|address| Family::of(**address) == *family);
            let to = to.map(|address| SocketAddr::new(*address, port));
            left |= to.is_some_and(|to| socket.send_to(datagram, &to.into()).is_ok());
        }
        left
    }

    /// The next datagram that waits at any of them, and whose address it came from.
    pub fn receive<'a>(&mut self, space: &'a mut [u8]) -> Option<(&'a mut [u8], IpAddr)> {
        let sockets: Vec<&Socket> = self.open.values().map(|(_, socket)| socket).collect();
        let first = self.turn;
        self.turn = first.wrapping_add(1);
        let next = (0..sockets.len()).find_map(|number| {
            let socket = sockets[first.wrapping_add(number) % sockets.len()];
            // What ICMP says of others' absence is no news here.
            let (length, _, from) = recvfrom(socket, &mut *space, RecvFlags::empty()).ok()?;
            Some((length, SocketAddr::try_from(from?).ok()?.ip()))
        });
        let (length, from) = next?;
        Some((&mut space[..length], from))
    }
}

/// Nothing passes before the filter is there: it is attached first.
fn socket(address: IpAddr, port: u16, from: &BTreeSet<IpAddr>) -> io::Result<Socket> {
    let domain = match address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    hear_only(&socket, from)?;
    // A wish: what comes while this process stands still is to wait here.
    if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        let _ = set_socket_recv_buffer_size(&socket, BUFFER);
    }
    match address {
        IpAddr::V4(_) => {
            socket.set_freebind_v4(true)?;
            socket.set_tos_v4(NETWORK_CONTROL)?;
        }
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
            socket.set_tclass_v6(NETWORK_CONTROL)?;
        }
    }
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(socket)
}

fn hear_only(socket: &Socket, from: &BTreeSet<IpAddr>) -> io::Result<()> {
    let is_v4 = socket.domain()? == Domain::IPV4;
    let from = from.iter().copied().filter(|address| address.is_ipv4() == is_v4).collect();
    let of = |one: &Instruction| SockFilter::new(one.code, one.jt, one.jf, one.k);
    socket.attach_filter(&bpf::senders(&from).iter().map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(octet: u8) -> Seal {
        Seal::new(&Secret::new(vec![octet; 32])).expect("a key")
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_with_no_other() {
        let mut datagram = seal(1).seal(b"beat").expect("random numbers");
        assert!(!datagram.windows(4).any(|part| part == b"beat"));
        assert_eq!(seal(2).open(&mut datagram.clone()), None);
        assert_eq!(seal(1).open(&mut datagram), Some(&b"beat"[..]));
        assert!(Seal::new(&Secret::new(vec![1; 31])).is_none());
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Sends from an address of this machine, and waits until it has left.
    fn say(from: &str, to: &str, port: u16, what: &[u8]) {
        let socket = std::net::UdpSocket::bind((ip(from), 0)).expect("a socket");
        socket.send_to(what, (ip(to), port)).expect("a datagram");
    }

    /// What has come, and whose it is.
    fn heard(sockets: &mut Sockets) -> Vec<(IpAddr, Vec<u8>)> {
        let mut space = [0; SPACE];
        std::iter::from_fn(|| sockets.receive(&mut space).map(|(what, from)| (from, what.to_vec()))).collect()
    }

    #[test]
    fn only_members_are_heard_and_both_families_take_turns() {
        let port =
            std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let (own, mut sockets) = ([ip("127.0.0.1"), ip("::1")], Sockets::default());
        sockets.settle(&own, [ip("127.0.0.2"), ip("::1")].into(), port).expect("sockets");
        for (from, to) in [("127.0.0.3", "127.0.0.1"), ("127.0.0.2", "127.0.0.1"), ("::1", "::1")] {
            say(from, to, port, b"one");
            say(from, to, port, b"two");
        }
        let (v4, v6) = (ip("127.0.0.2"), ip("::1"));
        let expected = [(v4, b"one"), (v6, b"one"), (v4, b"two"), (v6, b"two")];
        assert_eq!(heard(&mut sockets), expected.map(|(from, what)| (from, what.to_vec())));
        sockets.settle(&own, [ip("127.0.0.3"), ip("fd00::1")].into(), port).expect("the same sockets");
        for (from, to) in [("127.0.0.3", "127.0.0.1"), ("127.0.0.2", "127.0.0.1"), ("::1", "::1")] {
            say(from, to, port, b"three");
        }
        assert_eq!(heard(&mut sockets), [(ip("127.0.0.3"), b"three".to_vec())]);
    }

    #[test]
    fn a_port_that_is_taken_over_one_family_leaves_the_other_one_open() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let (own, mut sockets) = ([ip("127.0.0.1"), ip("::1")], Sockets::default());
        sockets.settle(&own, [ip("::1"), ip("127.0.0.1")].into(), port).expect_err("it is taken");
        say("::1", "::1", port, b"beat");
        assert_eq!(heard(&mut sockets), [(ip("::1"), b"beat".to_vec())]);
        drop(taken);
        sockets.settle(&own, [ip("::1"), ip("127.0.0.1")].into(), port).expect("both");
        say("127.0.0.1", "127.0.0.1", port, b"beat");
        assert_eq!(heard(&mut sockets), [(ip("127.0.0.1"), b"beat".to_vec())]);
    }

    #[test]
    fn a_datagram_with_one_other_bit_does_not_open() {
        let datagram = seal(1).seal(b"beat").expect("random numbers");
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal(1).open(&mut changed), None, "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert_eq!(seal(1).open(&mut datagram[..length].to_vec()), None, "{length} octets");
        }
    }
}
