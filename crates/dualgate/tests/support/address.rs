//! Ports that nobody else gets while a test needs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// The loopback addresses of both families.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An address that the kernel gives to nobody who asks for just any port, as a bound socket holds it.
///
/// The socket never listens and allows others, so a gate can listen there meanwhile. Without it, two gates of two tests
/// could be given the same port one after the other, and share its connections.
pub struct Reservation {
    /// Where to listen.
    pub address: SocketAddr,
    _held: Socket,
}

/// A port on a loopback address.
pub fn reserve(address: IpAddr) -> Reservation {
    hold(SocketAddr::new(address, 0)).expect("a loopback address has a free port")
}

/// The same port on both loopback addresses.
pub fn reserve_pair() -> [Reservation; 2] {
    let attempt = || {
        let v4 = hold(SocketAddr::new(LOOPBACK[0], 0)).ok()?;
        let v6 = hold(SocketAddr::new(LOOPBACK[1], v4.address.port())).ok()?;
        Some([v4, v6])
    };
    (0..100).find_map(|_| attempt()).expect("some port is free for both families")
}

fn hold(address: SocketAddr) -> std::io::Result<Reservation> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A port that is named must be free; one that the kernel chooses is.
    socket.bind(&address.into())?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let address = socket.local_addr()?.as_socket().expect("an address of the family that was asked for");
    Ok(Reservation { address, _held: socket })
}
