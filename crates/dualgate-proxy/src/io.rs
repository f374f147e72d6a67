//! The one place where bytes cross a socket.
//!
//! [`Io`] is a TCP connection, plain or with TLS on top. Both directions can be used at the same time from one task,
//! because every method takes `&self` and holds no borrow across an await. Each system call is counted here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::{Buffer, BufferPool};
use crate::metrics::IoCounters;
use crate::tls::{ClientSession, ServerSession};

/// How long a tunnel is silent before the kernel asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// How often it asks again.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How often in all.
const PROBES: u32 = 3;

/// The same of a server that owes an answer: it may be gone with its machine.
const SERVER_PROBE: Duration = Duration::from_secs(3);
/// So often in all, where nothing shorter is asked for ([`Io::give_up_after`]): a line may be away for half a minute.
const SERVER_PROBES: u32 = 10;

/// What connections of one worker share for their input and output.
#[derive(Debug, Default)]
pub struct IoShared {
    /// Free buffers.
    pub pool: BufferPool,
    /// System calls.
    pub counters: std::sync::Arc<IoCounters>,
}

/// A connection.
#[derive(Debug)]
pub struct Io {
    stream: RefCell<Stream>,
    shared: Rc<IoShared>,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    TlsServer(Box<ServerSession>, Socket),
    TlsClient(Box<ClientSession>, Socket),
}

/// A TCP socket that counts its system calls.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// Octets written.
    sent: u64,
    shared: Rc<IoShared>,
}

impl Socket {
    fn new(tcp: TcpStream, shared: &Rc<IoShared>) -> Self {
        Self { tcp, sent: 0, shared: shared.clone() }
    }

    /// The free buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    /// Reads once into `buffer`; 0 is the end. No buffer is taken while there is nothing to read.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        ready!(self.tcp.poll_read_ready(cx))?;
        let outcome = buffer.poll_fill(&self.shared.pool, cx, |cx, free| Pin::new(&mut self.tcp).poll_read(cx, free));
        self.shared.counters.read(outcome.is_ready());
        outcome
    }

    /// Writes once.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.shared.counters.write(outcome.is_ready());
        if let Poll::Ready(Ok(count)) = outcome {
            self.sent += count as u64;
        }
        outcome
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) | Self::TlsServer(_, socket) | Self::TlsClient(_, socket) => socket,
        }
    }
}

impl Io {
    /// Without TLS.
    pub fn plain(tcp: TcpStream, shared: &Rc<IoShared>) -> Self {
        Self::new(Stream::Plain(Socket::new(tcp, shared)), shared)
    }

    /// As TLS client, before the handshake.
    pub fn tls_client(tcp: TcpStream, session: ClientSession, shared: &Rc<IoShared>) -> Self {
        Self::new(Stream::TlsClient(Box::new(session), Socket::new(tcp, shared)), shared)
    }

    fn new(stream: Stream, shared: &Rc<IoShared>) -> Self {
        Self { stream: RefCell::new(stream), shared: shared.clone() }
    }

    /// Turns a plain connection, of which `read` was already read, into the server's side of TLS.
    pub fn into_tls_server(self, mut session: ServerSession, read: &mut Buffer) -> Self {
        let Self { stream, shared } = self;
        let stream = match stream.into_inner() {
            Stream::Plain(socket) => {
                session.take_in(&shared.pool, read);
                Stream::TlsServer(Box::new(session), socket)
            }
            other @ (Stream::TlsServer(..) | Stream::TlsClient(..)) => other,
        };
        Self::new(stream, &shared)
    }

    /// The free buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    /// What the TLS handshake agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        match &*self.stream.borrow() {
            Stream::Plain(_) => None,
            Stream::TlsServer(session, _) => session.alpn().map(<[u8]>::to_vec),
            Stream::TlsClient(session, _) => session.alpn().map(<[u8]>::to_vec),
        }
    }

    /// Does the handshake of TLS, where it is spoken.
    pub async fn handshake(&self) -> io::Result<()> {
        poll_fn(|cx| match &mut *self.stream.borrow_mut() {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::TlsServer(session, socket) => session.poll_handshake(cx, socket),
            Stream::TlsClient(session, socket) => session.poll_handshake(cx, socket),
        })
        .await
    }

    /// Whether nothing has arrived on an idle connection; bytes or an end mean that it cannot be used again.
    pub fn is_quiet(&self) -> bool {
        let stream = self.stream.borrow();
        let holds_nothing = match &*stream {
            Stream::Plain(_) => true,
            Stream::TlsServer(session, _) => session.holds_nothing(),
            Stream::TlsClient(session, _) => session.holds_nothing(),
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        holds_nothing && stream.socket().tcp.poll_read_ready(&mut cx).is_pending()
    }

    /// Lets the kernel ask now and then whether the peer is still there: for connections that may be silent for long.
    pub fn keep_alive(&self) {
        let often = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
        // Without it, only the idle time-out notices.
        let _ = SockRef::from(&self.stream.borrow().socket().tcp).set_tcp_keepalive(&often);
    }

    /// Lets the kernel ask soon and often whether a server is still there: one that is gone with its machine closes nothing.
    pub fn watch_server(&self) {
        let often = TcpKeepalive::new().with_time(SERVER_PROBE).with_interval(SERVER_PROBE).with_retries(SERVER_PROBES);
        // Without it, only the deadlines notice.
        let _ = SockRef::from(&self.stream.borrow().socket().tcp).set_tcp_keepalive(&often);
    }

    /// How long what is sent may stay without an acknowledgement of the peer's kernel, before the connection counts as
    /// dead; `None` leaves that to the kernel, which tries for a quarter of an hour.
    pub fn give_up_after(&self, limit: Option<Duration>) {
        // Without it, only the deadlines notice.
        let _ = SockRef::from(&self.stream.borrow().socket().tcp).set_tcp_user_timeout(limit);
    }

    /// Octets that the peer's kernel or ours has taken so far: what moves while a peer reads slowly.
    pub fn sent(&self) -> u64 {
        self.stream.borrow().socket().sent
    }

    /// Reads more into `buffer`; 0 is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let outcome = match &mut *self.stream.borrow_mut() {
            Stream::Plain(socket) => socket.poll_read(cx, buffer),
            Stream::TlsServer(session, socket) => session.poll_read(cx, socket, buffer),
            Stream::TlsClient(session, socket) => session.poll_read(cx, socket, buffer),
        };
        if outcome.is_pending() {
            // Whoever waits holds no memory: long polls, event streams and tunnels wait for most of their lives.
            buffer.release(self.pool());
        }
        outcome
    }

    /// Writes some of `bytes`. What TLS took in is written by the next call or by [`Io::poll_flush`].
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.stream.borrow_mut() {
            Stream::Plain(socket) => socket.poll_write(cx, bytes),
            Stream::TlsServer(session, socket) => session.poll_write(cx, socket, bytes),
            Stream::TlsClient(session, socket) => session.poll_write(cx, socket, bytes),
        }
    }

    /// Writes what TLS holds back.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.stream.borrow_mut() {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::TlsServer(session, socket) => session.poll_flush(cx, socket),
            Stream::TlsClient(session, socket) => session.poll_flush(cx, socket),
        }
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.stream.borrow_mut() {
            Stream::Plain(socket) => socket.poll_shutdown(cx),
            Stream::TlsServer(session, socket) => session.poll_shutdown(cx, socket),
            Stream::TlsClient(session, socket) => session.poll_shutdown(cx, socket),
        }
    }

    /// Reads more into `buffer`; 0 is the end.
    pub async fn read(&self, buffer: &mut Buffer) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[count..];
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends the connection so that the peer cannot take what it got for all: by a reset, without a goodbye of TLS.
    pub fn reset(self) {
        // Without the option it ends as others do: there is nothing better to be done.
        let _ = self.stream.borrow().socket().tcp.set_zero_linger();
    }

    /// Says that nothing more will be written.
    pub async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }
}

/// As much as an outbox gathers before it insists on writing.
const GATHERED: usize = 64 * 1024;

/// When an outbox writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushing {
    /// Whenever it is asked to.
    Asked,
    /// When its owner says so, at the end of a turn.
    Turn,
}

/// What a library has written and the socket has not.
///
/// `h2` flushes after every larger frame. Gathered here, the frames of all streams of a turn are one TLS write.
#[derive(Debug)]
pub struct Outbox {
    io: Io,
    waiting: RefCell<Buffer>,
    flushing: Cell<Flushing>,
}

impl Outbox {
    /// From now on [`Outbox::poll_write_out`] is called at the end of each turn, and nothing is written before.
    pub fn gather(&self) {
        self.flushing.set(Flushing::Turn);
    }

    /// Writes what waits.
    pub fn poll_write_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.borrow_mut();
        while !waiting.is_empty() {
            let count = ready!(self.io.poll_write(cx, waiting.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            waiting.consume(count);
        }
        waiting.release(self.io.pool());
        self.io.poll_flush(cx)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.borrow().len() >= GATHERED {
            ready!(self.poll_write_out(cx))?;
        }
        let count = bytes.len().min(GATHERED);
        self.waiting.borrow_mut().extend(self.io.pool(), &bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flushing.get() {
            Flushing::Turn if self.waiting.borrow().len() < GATHERED => Poll::Ready(Ok(())),
            Flushing::Turn | Flushing::Asked => self.poll_write_out(cx),
        }
    }
}

/// [`Io`] for libraries that want tokio's traits, starting with bytes that were read before.
#[derive(Debug)]
pub struct Adapter {
    outbox: Rc<Outbox>,
    read: Buffer,
}

impl Adapter {
    /// Around `io`.
    pub fn new(io: Io, read: Buffer) -> Self {
        let outbox = Outbox { io, waiting: RefCell::default(), flushing: Cell::new(Flushing::Asked) };
        Self { outbox: Rc::new(outbox), read }
    }

    /// Where its writes are gathered.
    pub fn outbox(&self) -> Rc<Outbox> {
        self.outbox.clone()
    }
}

impl AsyncRead for Adapter {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { outbox, read } = &mut *self;
        if read.is_empty() {
            ready!(outbox.io.poll_read(cx, read))?;
        }
        let count = read.len().min(target.remaining());
        target.put_slice(&read.filled()[..count]);
        read.consume(count);
        read.release(outbox.io.pool());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Adapter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outbox.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outbox.poll_write_out(cx))?;
        self.outbox.io.poll_shutdown(cx)
    }
}
