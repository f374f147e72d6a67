//! TCP: whether an address can be reached, and who the other side sees.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use super::Trouble;

/// Opens a connection, and ends it at once.
pub fn tcp(from: &Namespace, to: SocketAddr, patience: Duration) -> Result<(), Trouble> {
    connect(from, to, patience).map(drop)
}

/// Who is who of a connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The address that the dialling host spoke from.
    pub local: SocketAddr,
    /// The address that the other side saw.
    pub peer: SocketAddr,
}

/// Listens in the host `at`, on an address of its own and a port that the kernel chooses, and connects to it from another
/// host: so an attempt that fails was stopped on the way, not for want of a listener.
pub fn dial(from: &Namespace, at: &Namespace, address: IpAddr, patience: Duration) -> Result<Dialled, Trouble> {
    let listen = || -> io::Result<(Socket, SocketAddr)> {
        let socket = stream(at, address)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(address, 0).into())?;
        socket.listen(8)?;
        // It also bounds accept(2).
        socket.set_read_timeout(Some(patience))?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket, address))
    };
    let (listener, to) =
        listen().map_err(|error| Trouble::Failed(format!("{} cannot listen on {address}: {error}", at.name())))?;
    let stream = connect(from, to, patience)?;
    let local = stream.local_addr().map_err(|error| Trouble::of(&error, patience))?;
    let (_, peer) = listener.accept().map_err(|error| Trouble::of(&error, patience))?;
    let peer = peer.as_socket().ok_or_else(|| Trouble::Failed("a peer without an address".to_owned()))?;
    Ok(Dialled { local, peer })
}

/// Connects from a host, on this thread.
pub(super) fn connect(from: &Namespace, to: SocketAddr, patience: Duration) -> Result<TcpStream, Trouble> {
    let failed = |error: io::Error| Trouble::Failed(format!("{} cannot make a socket: {error}", from.name()));
    let socket = stream(from, to.ip()).map_err(failed)?;
    let patience = patience.max(Duration::from_millis(1));
    socket.connect_timeout(&to.into(), patience).map_err(|error| Trouble::of(&error, patience))?;
    Ok(socket.into())
}

/// What is left until then; at least something, so that no call waits for ever.
pub(super) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn stream(host: &Namespace, address: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    host.run(move || Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))
}
