//! Datagrams of a Service's clients, at one address, for one worker.
//!
//! Each client has a [`Flow`]: a socket that is connected to its server. So an answer is taken only from who was asked, and
//! goes only to who asked, from the address that it was asked at. Nothing waits: what finds no room in a socket is lost, as
//! datagrams are. A server whose kernel says that nobody listens there is left out for a while; the client's next datagram
//! goes to another one.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dualgate_core::model::Family;
use dualgate_core::plan::forward::ForwardId;
use dualgate_core::plan::proxy::ServerAddress;
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::ForwardState;
use super::flows::Flow;
use super::metrics::Refused;
use crate::state::ServerState;
use crate::worker::Worker;

/// The largest datagram.
const LARGEST: usize = 65_535;
/// So many datagrams are taken from a socket before others have their turn.
const BURST: usize = 64;

/// Space for one datagram, which all sockets of a worker share: none is kept across a wait.
#[derive(Debug)]
pub struct Space(RefCell<Box<[u8]>>);

impl Default for Space {
    fn default() -> Self {
        Self(RefCell::new(vec![0; LARGEST].into_boxed_slice()))
    }
}

/// Receives at one address for as long as it is not aborted.
pub async fn serve(worker: Rc<Worker>, forward: Arc<ForwardId>, socket: UdpSocket) {
    let Ok(address) = socket.local_addr() else { return };
    let inlet = Rc::new(Inlet { worker, forward, socket, address });
    loop {
        if let Err(error) = inlet.socket.readable().await {
            tracing::error!(%error, forward = %inlet.forward, "a worker cannot use its socket");
            return;
        }
        inlet.receive();
        tokio::task::yield_now().await;
    }
}

/// Where datagrams of clients come in.
struct Inlet {
    worker: Rc<Worker>,
    forward: Arc<ForwardId>,
    socket: UdpSocket,
    address: SocketAddr,
}

impl Inlet {
    fn receive(self: &Rc<Self>) {
        let mut space = self.worker.datagrams().0.borrow_mut();
        for _ in 0..BURST {
            match self.socket.try_recv_from(&mut space[..]) {
                Ok((length, client)) => self.hand_on(&space[..length], client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, forward = %self.forward, "receive"),
            }
        }
    }

    fn hand_on(self: &Rc<Self>, datagram: &[u8], client: SocketAddr) {
        if let Some(flow) = self.worker.flows().get(&(self.address, client)) {
            // Nobody tells a client that its server has gone: it would go on sending there.
            if !flow.server.is_retired() && self.send(&flow, datagram).is_ok() {
                return;
            }
            self.worker.flows().end(&flow);
        }
        if let Some(flow) = self.begin(client) {
            let _ = self.send(&flow, datagram);
        }
    }

    /// Sends to the server; an error says that it is not there.
    fn send(&self, flow: &Flow, datagram: &[u8]) -> Result<(), NotThere> {
        let counters = &flow.shared.counters;
        match SockRef::from(&flow.socket).send(datagram) {
            Ok(_) => {
                counters.received.add(datagram.len() as u64);
                self.worker.flows().asked(flow);
                Ok(())
            }
            Err(error) if is_of_the_server(&error) => {
                flow.server.health.failed(Instant::now());
                Err(NotThere)
            }
            Err(error) => {
                tracing::debug!(%error, forward = %self.forward, server = %flow.server.id, "a datagram is lost");
                counters.refuse(Refused::Lost);
                Ok(())
            }
        }
    }

    fn begin(self: &Rc<Self>, client: SocketAddr) -> Option<Rc<Flow>> {
        let runtime = self.worker.runtime();
        let forward = runtime.forward(&self.forward)?;
        let refuse = |why| forward.shared.counters.refuse(why);
        // An answer to port 0 cannot be sent; one to an address that is forwarded would be asked anew, for ever.
        if client.port() == 0 || runtime.takes_datagrams(client) || !forward.admits(client) {
            refuse(Refused::SourceRange);
            return None;
        }
        let flows = self.worker.flows();
        let most = (runtime.plan.settings.max_connections / self.worker.workers()).max(1);
        while flows.len() >= most && flows.evict() {}
        let (server, socket) = match self.reach(forward, client) {
            Ok(reached) => reached,
            Err(why) => {
                refuse(why);
                return None;
            }
        };
        let flow = Flow::new((self.address, client), socket, server, forward.shared.clone());
        let task = tokio::task::spawn_local(answers(self.clone(), flow.clone()));
        flows.add(&flow, task.abort_handle());
        Some(flow)
    }

    fn reach(&self, forward: &ForwardState, client: SocketAddr) -> Result<(Arc<ServerState>, UdpSocket), Refused> {
        let mut tried = Vec::new();
        while let Some(server) = forward.choose(client, Instant::now(), &tried) {
            match connect(server, Family::of(client.ip())) {
                Ok(socket) => return Ok((server.clone(), socket)),
                Err(error) if is_exhaustion(&error) => {
                    // A flow gives its socket up for the next client that asks.
                    self.worker.flows().evict();
                    return Err(Refused::Limit);
                }
                Err(error) => {
                    tracing::debug!(%error, forward = %self.forward, server = %server.id, "server not reached");
                    tried.push(server.uid);
                }
            }
        }
        Err(if tried.is_empty() { Refused::NoEndpoints } else { Refused::Unreachable })
    }

    /// Hands on what has arrived for a client; an error says that the server is not there.
    fn answer(&self, flow: &Flow) -> Result<(), NotThere> {
        let counters = &flow.shared.counters;
        let client = flow.key.1.into();
        let mut space = self.worker.datagrams().0.borrow_mut();
        for _ in 0..BURST {
            match flow.socket.try_recv(&mut space[..]) {
                Ok(length) => {
                    flow.server.health.succeeded();
                    self.worker.flows().answered(flow);
                    match SockRef::from(&self.socket).send_to(&space[..length], &client) {
                        Ok(_) => counters.sent.add(length as u64),
                        Err(_) => counters.refuse(Refused::Lost),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, forward = %self.forward, server = %flow.server.id, "no answer");
                    flow.server.health.failed(Instant::now());
                    return Err(NotThere);
                }
            }
        }
        Ok(())
    }
}

/// The server's kernel, or a router, said so.
struct NotThere;

/// Whether an error says that a server cannot be reached, not that one datagram was lost.
fn is_of_the_server(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    )
}

/// Hands on the answers of one flow until it ends.
async fn answers(inlet: Rc<Inlet>, flow: Rc<Flow>) {
    while let Ok(Ok(())) = flow.timer.limit(flow.socket.readable()).await {
        if inlet.answer(&flow).is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    inlet.worker.flows().end(&flow);
}

/// A socket that speaks with one server alone, over the client's family where the server has it.
fn connect(server: &ServerState, family: Family) -> io::Result<UdpSocket> {
    let address = match &server.at {
        ServerAddress::Sockets(sockets) => sockets.of(family).or_else(|| sockets.iter().next()),
        // Only an ExternalName Service has a name for a server, and that has no addresses of its own.
        ServerAddress::Name { .. } => None,
    };
    let Some(address) = address else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Whether the process or the machine has no file descriptor left (EMFILE, ENFILE), or no port (EADDRINUSE, EAGAIN).
fn is_exhaustion(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::WouldBlock)
}
