//! Sockets to listen on, and what workers know of them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dualgate_core::model::{EntryPointName, GateName};
use dualgate_core::plan::forward::{ForwardSocket, Transport};
use dualgate_core::plan::proxy::Listener;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::metrics::EntryPointCounters;

/// How many connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// How many octets of datagrams it keeps until they are received.
const RECEIVED: usize = 1 << 20;

/// Which (gate, entry point) pair a listener belongs to. Its number may differ from plan to plan, this does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPointId {
    /// The gate.
    pub gate: GateName,
    /// The entry point.
    pub entry_point: EntryPointName,
}

impl EntryPointId {
    /// Of a planned listener.
    pub fn of(listener: &Listener) -> Self {
        Self { gate: listener.gate, entry_point: listener.entry_point.clone() }
    }
}

impl fmt::Display for EntryPointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gate, self.entry_point)
    }
}

/// What one worker knows of one listener.
#[derive(Debug)]
pub struct ListenerState {
    /// Which it is.
    pub id: EntryPointId,
    /// How TLS is set up, where it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// What the worker counts for the entry point.
    pub counters: Arc<EntryPointCounters>,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for entry point {id}: {error}")]
pub struct ListenError {
    /// For which entry point.
    pub id: EntryPointId,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub error: io::Error,
}

/// Opens one socket; every worker has its own on the same address.
pub fn listen(listener: &Listener) -> Result<OwnedFd, ListenError> {
    let presence = if listener.address_may_be_absent { Presence::MayBeAbsent } else { Presence::Required };
    let error = |error| ListenError { id: EntryPointId::of(listener), address: listener.address, error };
    open(Spot::of_gate(listener), presence).map_err(error)
}

/// Where a socket listens; TCP and UDP have ports of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// What comes in.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

impl Spot {
    /// Of an entry point.
    pub fn of_gate(listener: &Listener) -> Self {
        Self { transport: Transport::Tcp, address: listener.address }
    }

    /// Of a port of a Service.
    pub fn of_service(socket: &ForwardSocket) -> Self {
        Self { transport: socket.forward.transport, address: socket.address }
    }

    /// Of an open socket, if it is one to listen with.
    pub fn of(socket: &OwnedFd) -> Option<Self> {
        let socket = SockRef::from(socket);
        let address = socket.local_addr().ok()?.as_socket()?;
        let transport = match socket.r#type().ok()? {
            Type::STREAM => Transport::Tcp,
            Type::DGRAM => Transport::Udp,
            _ => return None,
        };
        Some(Self { transport, address })
    }
}

/// Whether the host must have an address that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// The address comes and goes: a virtual IP.
    MayBeAbsent,
}

/// Opens a socket that does not block; several may be open at one spot.
pub fn open(spot: Spot, presence: Presence) -> io::Result<OwnedFd> {
    let (kind, protocol) = match spot.transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(spot.address), kind, Some(protocol))?;
    if spot.address.is_ipv6() {
        // Each family has its own socket, so that one never shadows the other.
        socket.set_only_v6(true)?;
    }
    match (presence, spot.address) {
        (Presence::Required, _) => {}
        (Presence::MayBeAbsent, SocketAddr::V4(_)) => socket.set_freebind_v4(true)?,
        (Presence::MayBeAbsent, SocketAddr::V6(_)) => socket.set_freebind_v6(true)?,
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    match spot.transport {
        Transport::Tcp => {
            socket.set_reuse_address(true)?;
            socket.bind(&spot.address.into())?;
            socket.listen(BACKLOG)?;
        }
        Transport::Udp => {
            // Bursts wait here while the worker does something else; the kernel may grant less.
            let _ = socket.set_recv_buffer_size(RECEIVED);
            socket.bind(&spot.address.into())?;
        }
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    use dualgate_core::model::site::EntryProtocol;
    use dualgate_core::route::EntryPointIndex;

    fn listener(address: &str) -> Listener {
        Listener {
            index: EntryPointIndex(0),
            gate: GateName::Internal,
            entry_point: EntryPointName::new("web"),
            address: address.parse().unwrap(),
            protocol: EntryProtocol::Http,
            address_may_be_absent: false,
            trusted: vec![],
            proxy_protocol: vec![],
        }
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_address() {
        let first = TcpListener::from(listen(&listener("127.0.0.1:0")).unwrap());
        let port = first.local_addr().unwrap().port();
        listen(&listener(&format!("127.0.0.1:{port}"))).unwrap();
    }

    #[test]
    fn the_ipv6_wildcard_leaves_ipv4_alone() {
        let v6 = TcpListener::from(listen(&listener("[::]:0")).unwrap());
        let port = v6.local_addr().unwrap().port();
        let v4 = TcpListener::bind(("0.0.0.0", port));
        assert!(v4.is_ok(), "{v4:?}");
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named() {
        let error = listen(&listener("203.0.113.7:80")).unwrap_err().to_string();
        assert!(error.starts_with("listen on 203.0.113.7:80 for entry point internal/web: "), "{error}");
    }
}
