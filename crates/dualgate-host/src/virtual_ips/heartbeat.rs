//! Datagrams between home nodes: sealed with one key that all of them have, over both families.
//!
//! Sealing makes a datagram unreadable and unforgeable for others in the LAN. That an old one has no effect is the business
//! of `core::machine::ownership`, whose messages name the sessions that they belong to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use dualgate_core::model::{Family, Secret};
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

/// The first octet of every datagram.
const VERSION: u8 = 1;
/// What is authenticated with every datagram, so that nothing else that is sealed with this key passes for one.
const CONTEXT: &[u8] = b"dualgate heartbeat";
/// Network control (RFC 4594 3.2): these datagrams are few, and must not wait behind others.
const NETWORK_CONTROL: u32 = 48 << 2;
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

/// This node's sockets, one of each family that it has.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<Family, (IpAddr, Socket)>);

impl Sockets {
    /// Speaks from the first address of each family, at `port`. The addresses may be absent at the moment.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn open(addresses: &[IpAddr], port: u16) -> io::Result<Self> {
        let mut sockets = BTreeMap::new();
        for address in addresses {
            if let Entry::Vacant(place) = sockets.entry(Family::of(*address)) {
                place.insert((*address, socket(*address, port)?));
            }
        }
        Ok(Self(sockets))
    }

    /// Whether they speak from the first of these addresses of each family.
    pub fn are_at(&self, addresses: &[IpAddr]) -> bool {
        let first = |family: Family| addresses.iter().find(|address| Family::of(**address) == family);
        let here = |family: Family| self.0.get(&family).map(|(address, _)| address);
        [Family::V4, Family::V6].into_iter().all(|family| first(family) == here(family))
    }

    /// To be waited for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().map(|(_, socket)| socket.as_fd())
    }

    /// Sends the same over every family that both ends have; whether it left by any.
    pub fn send(&self, datagram: &[u8], to: &[IpAddr], port: u16) -> bool {
        let mut left = false;
        for (family, (_, socket)) in &self.0 {
            let to = to.iter().find(|address| Family::of(**address) == *family);
            let to = to.map(|address| SocketAddr::new(*address, port));
            left |= to.is_some_and(|to| socket.send_to(datagram, &to.into()).is_ok());
        }
        left
    }

    /// The next datagram that waits at any of them, and whose address it came from.
    pub fn receive<'a>(&self, space: &'a mut [u8]) -> Option<(&'a mut [u8], IpAddr)> {
        let next = self.0.values().find_map(|(_, socket)| {
            // What ICMP says of others' absence is no news here.
            let (length, _, from) = recvfrom(socket, &mut *space, RecvFlags::empty()).ok()?;
            Some((length, SocketAddr::try_from(from?).ok()?.ip()))
        });
        let (length, from) = next?;
        Some((&mut space[..length], from))
    }
}

fn socket(address: IpAddr, port: u16) -> io::Result<Socket> {
    let domain = match address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
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
