//! Who is connected to this host, as the kernel lists it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dualgate_core::plan::firewall::{By, Connection};
use dualgate_core::plan::tunnel::INTERFACE;

use super::FirewallError;
use crate::network::Network;

/// The states of TCP in a listing (`include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// A socket of the listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Listens(SocketAddr),
    Connects { local: SocketAddr, remote: SocketAddr },
}

/// The TCP connections that others have opened to this host, in the network of the calling thread: each is to an
/// address and port that something listens on.
///
/// # Errors
///
/// If the kernel does not list them.
pub fn connections() -> Result<Vec<Connection>, FirewallError> {
    // That of the process may be another network.
    let files = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")));
    let mut text = String::new();
    for file in files {
        match file {
            Ok(lines) => text.push_str(&lines),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !text.is_empty() => {}
            Err(error) => return Err(FirewallError::Connections(error)),
        }
    }
    let inner = Network::open().and_then(|mut network| network.interfaces());
    let inner = inner.map_err(|error| FirewallError::Connections(io::Error::other(error)))?;
    let inner = inner.into_iter().filter(|interface| interface.name == INTERFACE);
    let inner: BTreeSet<IpAddr> = inner.flat_map(|it| it.addresses).map(|address| address.addr()).collect();
    Ok(inbound(&text.lines().filter_map(socket).collect::<Vec<_>>(), &inner))
}

/// What comes by the tunnel is for one of its inner addresses, to which nobody outside has a way.
fn inbound(sockets: &[Socket], inner: &BTreeSet<IpAddr>) -> Vec<Connection> {
    let listening: BTreeSet<SocketAddr> = sockets
        .iter()
        .filter_map(|socket| match socket {
            Socket::Listens(at) => Some(*at),
            Socket::Connects { .. } => None,
        })
        .collect();
    // One that listens on every address of IPv6 may have those of IPv4, too.
    let anywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let is_listening = |to: SocketAddr| {
        let anywhere = anywhere.into_iter().filter(|any| any.is_ipv6() || to.is_ipv4());
        anywhere.chain([to.ip()]).any(|address| listening.contains(&SocketAddr::new(address, to.port())))
    };
    let connection = |socket: &Socket| match *socket {
        Socket::Connects { local, remote } if is_listening(local) => {
            let is_own = remote.ip().is_loopback() || remote.ip() == local.ip();
            let by = if inner.contains(&local.ip()) { By::Tunnel } else { By::Outside };
            (!is_own).then(|| Connection { remote: remote.ip(), local, by })
        }
        Socket::Connects { .. } | Socket::Listens(_) => None,
    };
    let mut found: Vec<Connection> = sockets.iter().filter_map(connection).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// `  0: 0100007F:0016 0200007F:A1B2 01 ...`; nothing for a head, and for states of no interest.
fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (address(words.next()?)?, address(words.next()?)?, words.next()?);
    match state {
        LISTEN => Some(Socket::Listens(local)),
        ESTABLISHED => Some(Socket::Connects { local, remote }),
        _ => None,
    }
}

/// Words of an address as the host has them in memory, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            // A socket for both families has addresses of IPv4 in this form.
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const LISTING: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0A7100CB:0016 076433C6:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0A7100CB:0016 086433C6:A1B3 06 00000000:00000000 00:00000000 00000000     0        0 0 3
   3: 0A7100CB:0019 076433C6:A1B8 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   4: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   3: 0A7100CB:B0B0 076433C6:01BB 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   4: 0100007F:0016 0100007F:A1B4 01 00000000:00000000 00:00000000 00000000     0        0 4 1
   5: C9B2A8C0:0016 05B2A8C0:A1B5 01 00000000:00000000 00:00000000 00000000     0        0 5 1
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: B80D0120000001000000000010000000:0016 B80D0120000007000000000007000000:A1B6 01 00000000:00000000
   2: 0000000000000000FFFF00000A7100CB:0050 0000000000000000FFFF0000076433C6:A1B7 01 00000000:00000000
";

    fn connection(remote: &str, local: &str, by: By) -> Connection {
        Connection { remote: remote.parse().unwrap(), local: local.parse().unwrap(), by }
    }

    #[test]
    fn connections_that_others_have_opened_are_found_in_the_listing() {
        let sockets: Vec<_> = LISTING.lines().filter_map(socket).collect();
        let found = inbound(&sockets, &BTreeSet::from(["192.168.178.201".parse().unwrap()]));
        let mut expected = [
            connection("198.51.100.7", "203.0.113.10:22", By::Outside),
            connection("192.168.178.5", "192.168.178.201:22", By::Tunnel),
            connection("2001:db8:7::7", "[2001:db8:1::10]:22", By::Outside),
            connection("198.51.100.7", "203.0.113.10:80", By::Outside),
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_socket_is_passed_over() {
        for line in ["", "0:", "0: 00:16", "0: zz000000:0016 00000000:0000 0A", "0: 00000000:10016 00000000:0000 0A"] {
            assert_eq!(socket(line), None, "{line}");
        }
    }
}
