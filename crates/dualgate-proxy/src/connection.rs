//! One connection of a client: from accept to the version of HTTP that it speaks.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use dualgate_core::model::site::EntryProtocol;
use dualgate_core::plan::proxy::Listener;
use dualgate_http::HeadView;
use dualgate_wire::proxy_protocol::{self, Header};
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use crate::access::{Line, Record};
use crate::answer::Refusal;
use crate::buffer::Buffer;
use crate::forward::{Context, Outcome};
use crate::h2::Allowance;
use crate::headers::{Peer, Trust};
use crate::io::Io;
use crate::listener::ListenerState;
use crate::metrics::{EntryPointCounters, class};
use crate::state::Runtime;
use crate::timer::Timer;
use crate::tls::ServerSession;
use crate::worker::{DrainSlot, Worker};
use crate::{h1, h2};

/// What every HTTP/2 connection starts with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many requests a client may give up at once: twice as many as it can have open.
const GIVE_UP_BURST: f64 = 200.0;
/// How many a second besides.
const GIVE_UP_RATE: f64 = 20.0;

/// A connection of a client.
#[derive(Debug)]
pub struct Connection {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// Where it came in.
    pub listener: Arc<ListenerState>,
    /// Whose it is.
    pub peer: Peer,
    slot: DrainSlot,
    streams: Cell<usize>,
    /// Streams that their client gave up.
    given_up: RefCell<Allowance>,
    abused: Cell<bool>,
}

/// An open stream of HTTP/2.
#[derive(Debug)]
pub struct StreamGuard(Rc<Connection>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        if std::thread::panicking() {
            self.0.worker.counters.panics.increment();
        }
    }
}

impl Connection {
    /// The running plan.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.worker.runtime()
    }

    /// What is counted for its entry point.
    pub fn counters(&self) -> &EntryPointCounters {
        &self.listener.counters
    }

    /// Waits for the first bytes of the next request; `false` when there will be none.
    pub async fn wait_for_bytes(&self, io: &Io, buffer: &mut Buffer) -> bool {
        poll_fn(|cx| {
            if self.worker.closes_idle() {
                return Poll::Ready(false);
            }
            self.slot.wait(cx);
            io.poll_read(cx, buffer).map(|read| matches!(read, Ok(1..)))
        })
        .await
    }

    /// Returns when the worker wants its connections to end.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            if self.worker.is_draining() {
                return Poll::Ready(());
            }
            self.slot.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// One more stream, for as long as the guard lives.
    pub fn stream_guard(self: &Rc<Self>) -> StreamGuard {
        self.streams.set(self.streams.get() + 1);
        StreamGuard(self.clone())
    }

    /// A client gave a request up that it had sent. What was begun for nothing costs it less than us (CVE-2023-44487).
    pub fn gave_up(&self) {
        if !self.given_up.borrow_mut().spend(Instant::now()) {
            self.abused.set(true);
        }
    }

    /// Whether the client has given up more than an honest one does.
    pub fn is_abused(&self) -> bool {
        self.abused.get()
    }

    /// Whether any stream is open.
    pub fn has_streams(&self) -> bool {
        self.streams.get() > 0
    }

    /// Counts a request and writes it down.
    pub fn finished(&self, runtime: &Runtime, head: &impl HeadView, record: &Record, outcome: &Outcome) {
        let duration = record.elapsed();
        let counters = self.counters();
        // Without an answer there is no status; `aborted` counts it.
        let answered = outcome.status != 0;
        if answered {
            counters.requests[class(outcome.status)].increment();
        }
        counters.duration.observe(duration);
        counters.bytes_in.add(outcome.bytes_in);
        counters.bytes_out.add(record.bytes_out);
        if outcome.aborted {
            counters.aborted.increment();
        }
        let route = outcome.route.map(|index| runtime.plan.table.route(index));
        if let Some(backend) = route.and_then(|route| runtime.backend_of(route)).filter(|_| answered) {
            backend.shared.counters.requests[class(outcome.status)].increment();
        }
        if let Some(log) = self.worker.access_log() {
            let line = Line { peer: &self.peer, listener: &self.listener, head, record, duration, route, outcome };
            if !log.write(&line) {
                self.worker.counters.log_lost.increment();
            }
        }
    }
}

impl<'a> Context<'a> {
    /// For a request on this connection.
    pub fn of(connection: &'a Connection, runtime: &'a Arc<Runtime>, timer: &'a Timer) -> Self {
        Self { runtime, worker: &connection.worker, listener: &connection.listener, peer: &connection.peer, timer }
    }
}

/// Serves a connection from its first byte.
pub async fn serve(worker: Rc<Worker>, listener: Arc<ListenerState>, tcp: TcpStream, address: SocketAddr) {
    let _open = listener.counters.open_guard();
    let runtime = worker.runtime();
    let Some(plan) = runtime.listener(&listener.id) else { return };
    let _ = tcp.set_nodelay(true);
    let timer = Timer::new(runtime.plan.settings.head_timeout);
    let io = Io::plain(tcp, worker.io());
    let mut buffer = Buffer::default();
    let Some(address) = client_address(plan, &io, &mut buffer, &timer, address).await else {
        listener.counters.refused.increment();
        return;
    };
    let trust = if is_in(&plan.trusted, address) { Trust::Proxy } else { Trust::Client };
    let peer = Peer { address, trust, protocol: plan.protocol, forwarding: RefCell::default() };
    drop(runtime);
    let connection = Rc::new(Connection {
        slot: worker.drain_slot(),
        worker,
        listener,
        peer,
        streams: Cell::new(0),
        given_up: RefCell::new(Allowance::new(GIVE_UP_BURST, GIVE_UP_RATE, Instant::now())),
        abused: Cell::new(false),
    });
    let io = match connection.listener.tls.clone() {
        Some(config) => match start_tls(&connection, io, &mut buffer, &timer, config).await {
            Some(io) => io,
            None => return,
        },
        None => io,
    };
    match first_bytes(&connection, &io, &mut buffer, &timer).await {
        First::Http1 => h1::serve(connection, io, buffer, timer).await,
        First::Http2 => h2::serve(connection, io, buffer, timer).await,
        First::Nothing => {}
        First::Broken => connection.counters().refused.increment(),
    }
}

/// The connection with TLS on top, or `None` if it ended. Who begins with a method is told that TLS is spoken here.
async fn start_tls(
    connection: &Connection,
    io: Io,
    buffer: &mut Buffer,
    timer: &Timer,
    config: Arc<ServerConfig>,
) -> Option<Io> {
    if buffer.is_empty() {
        match timer.limit(io.read(buffer)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => return None,
            Ok(Err(_)) | Err(_) => {
                connection.counters().refused.increment();
                return None;
            }
        }
    }
    if buffer.filled().first().is_some_and(u8::is_ascii_uppercase) {
        h1::refuse(connection, &io, buffer, timer, &mut Vec::new(), Refusal::WithoutTls).await;
        return None;
    }
    match ServerSession::new(config) {
        Ok(session) => Some(io.into_tls_server(session, buffer)),
        Err(error) => {
            tracing::warn!(%error, "TLS could not be set up");
            None
        }
    }
}

/// The version of HTTP that a connection turned out to speak.
enum First {
    Http1,
    Http2,
    /// It ended before it said anything: a health check, or a browser in advance.
    Nothing,
    /// Its TLS handshake failed, or it said nothing in time.
    Broken,
}

async fn first_bytes(connection: &Connection, io: &Io, buffer: &mut Buffer, timer: &Timer) -> First {
    loop {
        if !buffer.is_empty() {
            let start = &buffer.filled()[..buffer.len().min(PREFACE.len())];
            return match connection.peer.protocol {
                EntryProtocol::Https if io.alpn().as_deref() == Some(b"h2") => First::Http2,
                EntryProtocol::Http if start == PREFACE => First::Http2,
                EntryProtocol::Http if PREFACE.starts_with(start) => match timer.limit(io.read(buffer)).await {
                    Ok(Ok(1..)) => continue,
                    Ok(Ok(0) | Err(_)) | Err(_) => First::Broken,
                },
                EntryProtocol::Https | EntryProtocol::Http => First::Http1,
            };
        }
        match timer.limit(poll_fn(|cx| io.poll_read(cx, buffer))).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => return First::Nothing,
            Ok(Err(error)) => {
                tracing::debug!(client = %connection.peer.address, %error, "connection ended before a request");
                return First::Broken;
            }
            Err(_) => return First::Broken,
        }
    }
}

/// The client's address: the connection's, or what the PROXY header of a trusted peer says.
async fn client_address(
    plan: &Listener,
    io: &Io,
    buffer: &mut Buffer,
    timer: &Timer,
    address: SocketAddr,
) -> Option<SocketAddr> {
    if !is_in(&plan.proxy_protocol, address) {
        return Some(address);
    }
    loop {
        if !buffer.is_empty() {
            match proxy_protocol::parse(buffer.filled()) {
                Ok(proxy_protocol::Progress::Complete { value: header, length }) => {
                    buffer.consume(length);
                    return Some(source(&header).unwrap_or(address));
                }
                Ok(proxy_protocol::Progress::Incomplete) => {}
                Err(error) => {
                    tracing::debug!(peer = %address, %error, "no PROXY header");
                    return None;
                }
            }
        }
        if !matches!(timer.limit(io.read(buffer)).await, Ok(Ok(1..))) {
            return None;
        }
    }
}

/// The client that a PROXY header names; a health check of the proxy itself names none.
fn source(header: &Header) -> Option<SocketAddr> {
    match header {
        Header::Proxied { source, .. } => Some(*source),
        Header::Local | Header::Unknown => None,
    }
}

fn is_in(nets: &[IpNet], address: SocketAddr) -> bool {
    let address = address.ip().to_canonical();
    nets.iter().any(|net| net.contains(&address))
}
