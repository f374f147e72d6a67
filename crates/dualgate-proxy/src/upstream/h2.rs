//! A server that speaks HTTP/2 with prior knowledge, such as gRPC.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dualgate_http::{BodyLength, FieldKind, Trailer, is_forbidden_trailer};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::time::timeout;

use crate::buffer::Buffer;
use crate::io::{Adapter, Io};
use crate::timer::Timer;
use crate::transaction::{BodyFailure, BodySink, BodySource, Piece, ReplyHead};

/// The window of each stream and, four times, of the connection.
const WINDOW: u32 = 1 << 20;

/// A place on a connection.
#[derive(Debug)]
pub struct H2Server {
    /// Sends one request.
    pub sender: SendRequest<Bytes>,
    /// Whether the connection had carried requests before.
    pub reused: bool,
}

impl H2Server {
    /// On this connection.
    pub fn new(sender: SendRequest<Bytes>, reused: bool) -> Self {
        Self { sender, reused }
    }
}

/// Starts HTTP/2 on a connection.
pub async fn open(io: Io, limit: Duration) -> io::Result<SendRequest<Bytes>> {
    let handshake = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_header_list_size(64 * 1024)
        .enable_push(false)
        .handshake(Adapter::new(io, Buffer::default()));
    let (sender, connection) =
        timeout(limit, handshake).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to a server ended");
        }
    });
    sender.ready().await.map_err(io::Error::other)
}

/// A body that is read from an HTTP/2 stream.
#[derive(Debug)]
pub struct StreamBody<'c> {
    stream: &'c mut RecvStream,
    timer: &'c Timer,
    lent: Bytes,
    trailers: Vec<Trailer>,
    left: u64,
}

impl<'c> StreamBody<'c> {
    /// Longer than `limit` octets is too large.
    pub fn new(stream: &'c mut RecvStream, timer: &'c Timer, limit: Option<u64>) -> Self {
        Self { stream, timer, lent: Bytes::new(), trailers: Vec::new(), left: limit.unwrap_or(u64::MAX) }
    }

    fn give_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        if !lent.is_empty() {
            // The stream may be gone: then the window no longer matters.
            let _ = self.stream.flow_control().release_capacity(lent.len());
        }
    }
}

impl BodySource for StreamBody<'_> {
    async fn next(&mut self) -> Result<Piece<'_>, BodyFailure> {
        self.give_back();
        while let Some(data) = self.stream.data().await {
            self.lent = data?;
            if self.lent.is_empty() {
                continue;
            }
            self.timer.progress();
            self.left = self.left.checked_sub(self.lent.len() as u64).ok_or(BodyFailure::TooLarge)?;
            return Ok(Piece::Data(&self.lent));
        }
        if let Some(trailers) = self.stream.trailers().await? {
            self.trailers = trailers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
                .filter(|(name, _)| !is_forbidden_trailer(name))
                .collect();
        }
        Ok(Piece::End(&self.trailers))
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }
}

/// A body that is written to an HTTP/2 stream.
#[derive(Debug)]
pub struct StreamOutlet<'c> {
    stream: &'c mut SendStream<Bytes>,
    timer: &'c Timer,
    ended: bool,
}

impl<'c> StreamOutlet<'c> {
    /// To this stream, which the head may already have ended.
    pub fn new(stream: &'c mut SendStream<Bytes>, timer: &'c Timer, ended: bool) -> Self {
        Self { stream, timer, ended }
    }
}

impl BodySink for StreamOutlet<'_> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let count = poll_fn(|cx| poll_send(self.stream, cx, rest, More::Something)).await?;
            rest = &rest[count..];
            self.timer.progress();
        }
        Ok(())
    }

    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) { Ok(()) } else { send_end(self.stream, trailers) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether anything follows a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More of it, or trailers.
    Something,
    /// It is the last, and ends the stream.
    Nothing,
}

/// Sends as much of `data` as the windows allow; how much that was.
pub fn poll_send(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    data: &[u8],
    more: More,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(data.len());
    let capacity = loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            capacity => break capacity,
        }
    };
    // Only what leaves now is copied: what waits for a window waits where it is.
    let now = &data[..capacity.min(data.len())];
    let ends = now.len() == data.len() && more == More::Nothing;
    let sent = stream.send_data(Bytes::copy_from_slice(now), ends);
    Poll::Ready(sent.map(|()| now.len()).map_err(io::Error::other))
}

/// Ends a stream.
pub fn send_end(stream: &mut SendStream<Bytes>, trailers: &[Trailer]) -> io::Result<()> {
    if trailers.is_empty() {
        return stream.send_data(Bytes::new(), true).map_err(io::Error::other);
    }
    let mut map = HeaderMap::with_capacity(trailers.len());
    for (name, value) in trailers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    stream.send_trailers(map).map_err(io::Error::other)
}

/// The head of an answer as what the client's side takes.
#[derive(Debug)]
pub struct StreamHead<'a> {
    status: u16,
    fields: &'a HeaderMap,
    length: BodyLength,
}

impl<'a> StreamHead<'a> {
    /// To a request of this method.
    pub fn new(head: &'a Response<RecvStream>, method: &str) -> Self {
        let announced = head.headers().get(http::header::CONTENT_LENGTH);
        let never_has_one = method == "HEAD" || matches!(head.status().as_u16(), 204 | 304);
        let length = match announced.and_then(|value| value.to_str().ok()?.parse().ok()) {
            _ if never_has_one || head.body().is_end_stream() => BodyLength::Empty,
            Some(length) => BodyLength::Length(length),
            None => BodyLength::Chunked,
        };
        Self { status: head.status().as_u16(), fields: head.headers(), length }
    }

    /// Of an answer that another follows.
    pub fn interim(head: &'a Response<()>) -> Self {
        Self { status: head.status().as_u16(), fields: head.headers(), length: BodyLength::Empty }
    }
}

impl ReplyHead for StreamHead<'_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut lengths = 0;
        for (name, value) in self.fields {
            let kind = FieldKind::of(name.as_str().as_bytes());
            // The library has seen to it that they are all the same.
            lengths += usize::from(kind == FieldKind::ContentLength);
            if !kind.is_hop_by_hop() && (kind != FieldKind::ContentLength || lengths == 1) {
                visit(name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }

    fn length(&self) -> BodyLength {
        self.length
    }

    fn may_have_trailers(&self) -> bool {
        true
    }
}
