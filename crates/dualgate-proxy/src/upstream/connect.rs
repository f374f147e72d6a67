//! Opening a connection to one server, over whichever of its addresses answers.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::{Family, Text};
use dualgate_core::plan::proxy::{Scheme, ServerAddress};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::io::{Io, IoShared};
use crate::state::ServerState;
use crate::tls::ClientSession;

/// How long the preferred family has before the other is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered in time.
    #[error("connect to {server}: timed out")]
    TimedOut {
        /// The server.
        server: Text,
    },
    /// The name has no address.
    #[error("resolve {server}: {error}")]
    Resolve {
        /// The server.
        server: Text,
        /// Why.
        error: io::Error,
    },
    /// It was refused, or TLS was.
    #[error("connect to {server}: {error}")]
    Refused {
        /// The server.
        server: Text,
        /// Why.
        error: io::Error,
    },
    /// TLS could not be set up.
    #[error("set up TLS to {server}: {error}")]
    Tls {
        /// The server.
        server: Text,
        /// Why.
        error: rustls::Error,
    },
}

/// Opens connections for one worker.
#[derive(Clone, Debug)]
pub struct Connector {
    /// What its connections share.
    pub shared: Rc<IoShared>,
    /// For servers that speak TLS.
    pub tls: Arc<ClientConfig>,
}

impl Connector {
    /// A connection to `server` that requests can be sent over, within `limit`.
    pub async fn connect(&self, server: &ServerState, limit: Duration) -> Result<Io, ConnectError> {
        let timed_out = |_| ConnectError::TimedOut { server: server.id.clone() };
        timeout(limit, self.open(server)).await.map_err(timed_out)?
    }

    /// A TCP connection to `server` and no more, within `limit`.
    pub async fn reach(&self, server: &ServerState, limit: Duration) -> Result<Io, ConnectError> {
        let timed_out = |_| ConnectError::TimedOut { server: server.id.clone() };
        let tcp = timeout(limit, self.connect_tcp(server)).await.map_err(timed_out)??;
        let refused = |error| ConnectError::Refused { server: server.id.clone(), error };
        tcp.set_nodelay(true).map_err(refused)?;
        Ok(Io::plain(tcp, &self.shared))
    }

    async fn open(&self, server: &ServerState) -> Result<Io, ConnectError> {
        let name = || server.id.clone();
        let tcp = self.connect_tcp(server).await?;
        tcp.set_nodelay(true).map_err(|error| ConnectError::Refused { server: name(), error })?;
        match server.scheme {
            Scheme::Http | Scheme::H2c => Ok(Io::plain(tcp, &self.shared)),
            Scheme::Https => {
                let session = ClientSession::new(self.tls.clone(), server_name(server))
                    .map_err(|error| ConnectError::Tls { server: name(), error })?;
                let io = Io::tls_client(tcp, session, &self.shared);
                io.handshake().await.map_err(|error| ConnectError::Refused { server: name(), error })?;
                Ok(io)
            }
        }
    }

    async fn connect_tcp(&self, server: &ServerState) -> Result<TcpStream, ConnectError> {
        let addresses = self.addresses(server).await?;
        let refused = |error| ConnectError::Refused { server: server.id.clone(), error };
        let tcp = race(&addresses).await.map_err(refused)?;
        if let Ok(peer) = tcp.peer_addr() {
            server.prefer(Family::of(peer.ip()));
        }
        Ok(tcp)
    }

    /// The addresses of a server, the family that answered last in front.
    async fn addresses(&self, server: &ServerState) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut addresses: Vec<SocketAddr> = match &server.at {
            ServerAddress::Sockets(sockets) => sockets.iter().collect(),
            ServerAddress::Name { host, port } => tokio::net::lookup_host((&**host, *port))
                .await
                .map_err(|error| ConnectError::Resolve { server: server.id.clone(), error })?
                .take(MAX_ADDRESSES)
                .collect(),
        };
        addresses.retain(|address| !is_forbidden(&server.forbidden, *address));
        addresses.sort_by_key(|address| Family::of(address.ip()) != server.preferred());
        Ok(addresses)
    }
}

/// Whether an address is one of `forbidden`, which may be wildcards.
fn is_forbidden(forbidden: &[SocketAddr], address: SocketAddr) -> bool {
    let reaches = |listener: &SocketAddr| {
        let ip = address.ip().to_canonical();
        listener.ip() == ip || (listener.ip().is_unspecified() && ip.is_loopback())
    };
    forbidden.iter().any(|listener| listener.port() == address.port() && reaches(listener))
}

/// The first of `addresses` that answers; each gets a head start over the next.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let Some((first, rest)) = addresses.split_first() else {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    };
    if rest.is_empty() {
        return TcpStream::connect(first).await;
    }
    let mut first = pin!(TcpStream::connect(first));
    tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            Ok(stream) => Ok(stream),
            Err(_) => Box::pin(race(rest)).await,
        },
        () = sleep(HEAD_START) => {
            let rest: Pin<Box<dyn Future<Output = io::Result<TcpStream>>>> = Box::pin(race(rest));
            either(first, rest).await
        }
    }
}

/// The first that succeeds; the error of the one that failed last.
async fn either(
    mut one: Pin<&mut impl Future<Output = io::Result<TcpStream>>>,
    mut other: Pin<Box<dyn Future<Output = io::Result<TcpStream>> + '_>>,
) -> io::Result<TcpStream> {
    tokio::select! {
        outcome = &mut one => match outcome {
            Ok(stream) => Ok(stream),
            Err(_) => other.await,
        },
        outcome = &mut other => match outcome {
            Ok(stream) => Ok(stream),
            Err(_) => one.await,
        },
    }
}

fn server_name(server: &ServerState) -> ServerName<'static> {
    let address = |socket: SocketAddr| ServerName::from(socket.ip());
    match &server.at {
        ServerAddress::Sockets(sockets) => {
            sockets.iter().next().map_or_else(|| ServerName::from(IpAddr::from([0, 0, 0, 0])), address)
        }
        ServerAddress::Name { host, .. } => {
            ServerName::try_from(host.to_string()).unwrap_or_else(|_| ServerName::from(IpAddr::from([0, 0, 0, 0])))
        }
    }
}
