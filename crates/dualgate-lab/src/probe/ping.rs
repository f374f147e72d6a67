//! Echo requests over ICMP's datagram sockets, which need no privilege where `net/ipv4/ping_group_range` allows them.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use super::Trouble;
use super::tcp::left;

const PAYLOAD: &[u8] = b"dualgate lab";

/// Asks once, and says how long the answer took.
pub fn ping(from: &Namespace, to: IpAddr, patience: Duration) -> Result<Duration, Trouble> {
    let started = Instant::now();
    let socket = open(from, to).map_err(|error| {
        Trouble::Failed(format!("{} cannot ping (net/ipv4/ping_group_range): {error}", from.name()))
    })?;
    exchange(&socket, to, started + patience).map_err(|error| Trouble::of(&error, patience))?;
    Ok(started.elapsed())
}

fn open(from: &Namespace, to: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    from.run(move || Socket::new(domain, Type::DGRAM, Some(protocol)))
}

/// The kernel fills in identifier and checksum, and hands up only what belongs to this socket.
fn exchange(mut socket: &Socket, to: IpAddr, until: Instant) -> io::Result<()> {
    let (request, reply) = match to {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    };
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 1];
    message.extend(PAYLOAD);
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.send(&message)?;
    let mut answer = [0; 128];
    loop {
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left(until)))?;
        match socket.read(&mut answer) {
            Ok(length) if answer[0] == reply && answer[..length].ends_with(PAYLOAD) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
