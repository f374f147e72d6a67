//! One TLS connection, over buffers of ours.
//!
//! rustls does the protocol on slices; this file moves bytes between it and the socket. A record costs one read, and
//! what is encrypted at once leaves in one write. An idle session holds no buffer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, Error, ServerConfig};

use crate::buffer::{Buffer, BufferPool};
use crate::io::Socket;

/// The server's side.
pub type ServerSession = Session<UnbufferedServerConnection>;
/// The client's side.
pub type ClientSession = Session<UnbufferedClientConnection>;

/// The most plaintext that one write encrypts: a large buffer, less the overhead of its records.
const MAX_WRITE: usize = 112 * 1024;
/// What a record may need beyond its plaintext.
const RECORD_OVERHEAD: usize = 256;

/// What rustls' two kinds of connection have in common.
pub trait Engine {
    /// Their own data.
    type Data;
    /// Looks at what arrived.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// Whether the handshake is still going on.
    fn is_handshaking(&self) -> bool;
    /// What the handshake agreed on.
    fn alpn(&self) -> Option<&[u8]>;
}

impl Engine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }
}

impl Engine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }
}

/// A TLS connection without its socket.
pub struct Session<E> {
    engine: E,
    /// Records that arrived.
    inbound: Buffer,
    /// Records to be sent.
    outbound: Buffer,
    /// Decrypted while nobody was reading.
    plain: Buffer,
    /// What the peer sends.
    reading: Half,
    /// What we send.
    writing: Half,
}

impl<E> fmt::Debug for Session<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("reading", &self.reading)
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

/// One direction; the other may go on when it has ended. After a failure both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Open,
    Ended,
}

/// Where a session stands after looking at what arrived.
enum Stand {
    /// More records are needed before anything else can happen.
    NeedsRecords,
    /// Application data may be written.
    Writable,
    /// Nothing more will be read.
    Ended,
}

impl ServerSession {
    /// Waits for a client's hello.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::with(UnbufferedServerConnection::new(config)?))
    }
}

impl ClientSession {
    /// Will say hello to `name`.
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::with(UnbufferedClientConnection::new(config, name)?))
    }
}

impl<E: Engine> Session<E> {
    fn with(engine: E) -> Self {
        Self {
            engine,
            inbound: Buffer::default(),
            outbound: Buffer::default(),
            plain: Buffer::default(),
            reading: Half::Open,
            writing: Half::Open,
        }
    }

    /// What the handshake agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.engine.alpn()
    }

    /// Whether nothing is on its way through it.
    pub fn holds_nothing(&self) -> bool {
        self.inbound.is_empty() && self.plain.is_empty() && self.outbound.is_empty()
    }

    /// Records that were read before there was a session.
    pub fn take_in(&mut self, pool: &BufferPool, read: &mut Buffer) {
        self.inbound.extend(pool, read.filled());
        read.consume(read.len());
        read.release(pool);
    }

    /// Reads plaintext into `buffer`; 0 is the end. Does the handshake first.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.plain.is_empty() {
                let count = self.plain.len();
                buffer.extend(socket.pool(), self.plain.filled());
                self.plain.consume(count);
                self.plain.release(socket.pool());
                return Poll::Ready(Ok(count));
            }
            let before = buffer.len();
            let stand = self.advance(socket.pool(), Some(buffer));
            self.inbound.release(socket.pool());
            if !self.outbound.is_empty() {
                match self.poll_flush(cx, socket) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) if stand.is_ok() => return Poll::Ready(Err(error)),
                    // A handshake cannot go on before its flight has left; anything else can.
                    Poll::Pending if self.engine.is_handshaking() && stand.is_ok() => return Poll::Pending,
                    Poll::Ready(Err(_)) | Poll::Pending => {}
                }
            }
            if buffer.len() > before {
                return Poll::Ready(Ok(buffer.len() - before));
            }
            match stand? {
                Stand::Ended => return Poll::Ready(Ok(0)),
                Stand::NeedsRecords | Stand::Writable => {}
            }
            if ready!(socket.poll_read(cx, &mut self.inbound))? == 0 {
                self.reading = Half::Ended;
                // Without a close_notify the end may be an attacker's: data that needs its end to be true says so
                // itself (a length, a last chunk).
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Encrypts and writes some of `bytes`. Does the handshake first.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut Socket, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx, socket))?;
        ready!(self.poll_flush(cx, socket))?;
        let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
        self.encrypt(socket.pool(), bytes)?;
        match self.poll_flush(cx, socket) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Writes the records that wait.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let count = ready!(socket.poll_write(cx, self.outbound.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbound.consume(count);
        }
        self.outbound.release(socket.pool());
        Poll::Ready(Ok(()))
    }

    /// Says goodbye.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<()>> {
        if self.writing == Half::Open && !self.engine.is_handshaking() {
            let goodbye = |traffic: &mut WriteTraffic<'_, E::Data>, free: &mut [u8]| traffic.queue_close_notify(free);
            // A session that cannot say it has failed, and its end is known already.
            let _ = self.write_traffic(socket.pool(), RECORD_OVERHEAD, goodbye);
            self.writing = Half::Ended;
        }
        ready!(self.poll_flush(cx, socket))?;
        socket.poll_shutdown(cx)
    }

    /// Does the handshake.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<()>> {
        while self.engine.is_handshaking() {
            let stand = self.advance(socket.pool(), None);
            ready!(self.poll_flush(cx, socket))?;
            if matches!(stand?, Stand::Ended) {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.engine.is_handshaking() && ready!(socket.poll_read(cx, &mut self.inbound))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets rustls look at what arrived until it wants something from outside. Plaintext goes to `target`, or is kept.
    fn advance(&mut self, pool: &BufferPool, target: Option<&mut Buffer>) -> io::Result<Stand> {
        if self.reading == Half::Ended {
            return Ok(Stand::Ended);
        }
        let stand = self.process(pool, target);
        self.end_after(stand)
    }

    /// A session that has failed is not to be asked again.
    fn end_after<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            (self.reading, self.writing) = (Half::Ended, Half::Ended);
        }
        outcome
    }

    fn process(&mut self, pool: &BufferPool, mut target: Option<&mut Buffer>) -> io::Result<Stand> {
        loop {
            let status = self.engine.process(self.inbound.filled_mut());
            let mut used = status.discard;
            let mut stand = None;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        used += record.discard;
                        target.as_deref_mut().unwrap_or(&mut self.plain).extend(pool, record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(pool, &mut self.outbound, |free| data.encode(free))?;
                }
                // What was encoded stands in `outbound`, in order.
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::BlockedHandshake) => stand = Some(Stand::NeedsRecords),
                Ok(ConnectionState::WriteTraffic(_)) => stand = Some(Stand::Writable),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.reading = Half::Ended;
                    stand = Some(Stand::Ended);
                }
                Ok(_) => return Err(io::Error::other("early data was not offered")),
                Err(error) => {
                    self.inbound.consume(used);
                    return Err(self.last_words(pool, error));
                }
            }
            self.inbound.consume(used);
            if let Some(stand) = stand {
                return Ok(stand);
            }
        }
    }

    /// Encodes what tells the peer of a failure: an alert, behind what of our flight was made before it.
    fn last_words(&mut self, pool: &BufferPool, error: rustls::Error) -> io::Error {
        // Records that could not be read fail once more when they are looked at once more, and another alert would be
        // made. Before them nothing waits.
        let is_repeated =
            matches!(error, Error::InvalidMessage(_) | Error::DecryptError | Error::PeerSentOversizedRecord);
        loop {
            let status = self.engine.process(self.inbound.filled_mut());
            let used = status.discard;
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { break };
            if encode(pool, &mut self.outbound, |free| data.encode(free)).is_err() {
                break;
            }
            self.inbound.consume(used);
            if is_repeated {
                break;
            }
        }
        invalid(error)
    }

    fn encrypt(&mut self, pool: &BufferPool, bytes: &[u8]) -> io::Result<()> {
        let room = bytes.len() + RECORD_OVERHEAD + bytes.len() / 64;
        self.write_traffic(pool, room, |traffic, free| traffic.encrypt(bytes, free))
    }

    /// Lets rustls write into `outbound`, of which it is given `room` bytes or as many as it wants.
    fn write_traffic(
        &mut self,
        pool: &BufferPool,
        room: usize,
        write: impl FnMut(&mut WriteTraffic<'_, E::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if self.writing == Half::Ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.try_write_traffic(pool, room, write);
        self.end_after(written)
    }

    fn try_write_traffic(
        &mut self,
        pool: &BufferPool,
        mut room: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, E::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            let status = self.engine.process(self.inbound.filled_mut());
            let mut used = status.discard;
            let mut done = false;
            let state = match status.state {
                Ok(state) => state,
                Err(error) => {
                    self.inbound.consume(used);
                    return Err(self.last_words(pool, error));
                }
            };
            match state {
                ConnectionState::WriteTraffic(mut traffic) => {
                    match write(&mut traffic, self.outbound.free(pool, room)) {
                        Ok(count) => {
                            self.outbound.commit(count);
                            done = true;
                        }
                        Err(EncryptError::InsufficientSize(needed)) => room = needed.required_size,
                        Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
                    }
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        used += record.discard;
                        self.plain.extend(pool, record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(pool, &mut self.outbound, |free| data.encode(free))?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                // The peer has ended its half; ours is still open.
                ConnectionState::PeerClosed => self.reading = Half::Ended,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.inbound.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

/// Lets rustls encode what it has, with as much room as it wants.
fn encode(
    pool: &BufferPool,
    outbound: &mut Buffer,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let mut room = RECORD_OVERHEAD;
    loop {
        match encode(outbound.free(pool, room)) {
            Ok(count) => {
                outbound.commit(count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(io::Error::other(error)),
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
