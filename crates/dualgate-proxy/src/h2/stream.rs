//! One stream of HTTP/2 as a transaction.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context as Waiting, Poll, ready};

use bytes::Bytes;
use dualgate_http::{BodyLength, FieldKind, HeadError, HeadView, Trailer};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use crate::access::Record;
use crate::answer::Refusal;
use crate::buffer::Buffer;
use crate::connection::Connection;
use crate::forward::{Context, Outcome, forward};
use crate::io::Io;
use crate::timer::Timer;
use crate::transaction::{BodyFailure, BodySink, BodySource, Piece, Reply, ReplyHead, Transaction};
use crate::upstream::{More, StreamBody, poll_send, send_end};

/// Serves one stream.
pub async fn serve(connection: Rc<Connection>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let _streams = connection.stream_guard();
    let mut record = Record::begin("HTTP/2.0");
    let runtime = connection.runtime();
    let settings = &runtime.plan.settings;
    let timer = Timer::new(settings.body_idle_timeout);
    let (parts, mut stream) = request.into_parts();
    let head = H2Head::new(parts, &stream);
    let sender = Rc::new(RefCell::new(Sender::Waiting(respond)));
    let mut tx = H2Transaction {
        head,
        body: H2Body { body: StreamBody::new(&mut stream, &timer, settings.max_body_bytes), sender: sender.clone() },
        reply: H2Reply { sender, timer: &timer, started: false, body_bytes: 0, announced: None },
    };
    let outcome = match tx.head.fault(settings.max_fields) {
        Some(refusal) => {
            let head_only = tx.head.method() == "HEAD";
            let given = timer.limit(refusal.give(head_only, &mut tx.reply)).await;
            Outcome::refused(&refusal, matches!(given, Ok(Ok(()))))
        }
        None => forward(Context::of(&connection, &runtime, &timer), &mut tx).await,
    };
    record.bytes_out = tx.reply.body_bytes;
    if outcome.is_given_up() {
        connection.gave_up();
    }
    if outcome.aborted {
        tx.reply.sender.borrow_mut().reset(Reason::INTERNAL_ERROR);
    }
    // A client that was answered before it had sent all is told to stop when the stream is dropped, behind the answer
    // (RFC 9113 8.1). A reset by hand would overtake it.
    connection.finished(&runtime, &tx.head, &record, &outcome);
}

/// The head of a request.
#[derive(Debug)]
pub struct H2Head {
    parts: http::request::Parts,
    /// Cookies may come in crumbs; servers want one field (RFC 9113 8.2.3).
    cookie: Option<Vec<u8>>,
    path_and_query: Box<[u8]>,
    authority: Box<[u8]>,
    body: BodyLength,
}

impl H2Head {
    fn new(parts: http::request::Parts, stream: &RecvStream) -> Self {
        let mut crumbs = parts.headers.get_all(http::header::COOKIE).iter();
        let cookie = crumbs.next().map(|first| {
            let mut cookie = first.as_bytes().to_vec();
            for crumb in crumbs {
                cookie.extend_from_slice(b"; ");
                cookie.extend_from_slice(crumb.as_bytes());
            }
            cookie
        });
        let announced = parts.headers.get(http::header::CONTENT_LENGTH);
        let body = match announced.and_then(|length| length.to_str().ok()?.parse().ok()) {
            _ if stream.is_end_stream() => BodyLength::Empty,
            Some(length) => BodyLength::Length(length),
            None => BodyLength::Chunked,
        };
        let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes().into();
        let host = || parts.headers.get(http::header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
        let authority = parts.uri.authority().map_or_else(host, |authority| authority.as_str().as_bytes()).into();
        Self { parts, cookie, path_and_query, authority, body }
    }

    /// What the library lets pass and two parsers could read differently; also, more fields than `most`. Every field
    /// counts as it was sent: a cookie in a thousand crumbs is a thousand fields.
    fn fault(&self, most: usize) -> Option<Refusal> {
        let fields = &self.parts.headers;
        let is_repeated = |name| fields.get_all(name).iter().nth(1).is_some();
        let named = fields.get(http::header::HOST);
        let fault = if fields.len() > most {
            return Some(Refusal::TooManyFields);
        } else if is_repeated(http::header::CONTENT_LENGTH) {
            HeadError::ContentLengthDuplicate
        } else if is_repeated(http::header::HOST) {
            HeadError::HostDuplicate
        } else if self.authority.is_empty() {
            HeadError::HostMissing
        } else if named.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(&self.authority)) {
            HeadError::HostMismatch
        } else {
            return None;
        };
        Some(Refusal::Head(fault))
    }
}

impl HeadView for H2Head {
    fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    fn authority(&self) -> &[u8] {
        &self.authority
    }

    fn path_and_query(&self) -> &[u8] {
        &self.path_and_query
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.parts.headers {
            let kind = FieldKind::of(name.as_str().as_bytes());
            if !kind.is_hop_by_hop() && kind != FieldKind::Host && *name != http::header::COOKIE {
                visit(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        if let Some(cookie) = &self.cookie {
            visit(b"cookie", cookie);
        }
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        if name == "cookie" {
            return self.cookie.as_deref();
        }
        self.parts.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn body(&self) -> BodyLength {
        self.body
    }
}

/// The sending half of a stream, which both halves of the transaction watch.
enum Sender {
    Waiting(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    Ended(SendStream<Bytes>),
    Gone,
}

impl Sender {
    fn reset(&mut self, reason: Reason) {
        match self {
            Self::Waiting(respond) => respond.send_reset(reason),
            Self::Body(stream) | Self::Ended(stream) => stream.send_reset(reason),
            Self::Gone => {}
        }
    }

    fn poll_send(&mut self, cx: &mut Waiting<'_>, data: &[u8], more: More) -> Poll<io::Result<usize>> {
        let Self::Body(stream) = self else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let count = ready!(poll_send(stream, cx, data, more))?;
        if more == More::Nothing
            && count == data.len()
            && let Self::Body(stream) = std::mem::replace(self, Self::Gone)
        {
            *self = Self::Ended(stream);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_reset(&mut self, cx: &mut Waiting<'_>) -> Poll<()> {
        match self {
            Self::Waiting(respond) => respond.poll_reset(cx).map(drop),
            Self::Body(stream) => stream.poll_reset(cx).map(drop),
            Self::Ended(_) | Self::Gone => Poll::Pending,
        }
    }
}

struct H2Body<'c> {
    body: StreamBody<'c>,
    sender: Rc<RefCell<Sender>>,
}

impl BodySource for H2Body<'_> {
    async fn next(&mut self) -> Result<Piece<'_>, BodyFailure> {
        self.body.next().await
    }

    async fn gone(&mut self) {
        poll_fn(|cx| self.sender.borrow_mut().poll_reset(cx)).await;
    }
}

struct H2Reply<'c> {
    sender: Rc<RefCell<Sender>>,
    timer: &'c Timer,
    started: bool,
    body_bytes: u64,
    /// What the head said that the body has, so that its last piece can end the stream.
    announced: Option<u64>,
}

impl H2Reply<'_> {
    fn response(head: &dyn ReplyHead) -> io::Result<Response<()>> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status()).map_err(io::Error::other)?;
        let fields = response.headers_mut();
        let mut refused = None;
        head.for_each_field(&mut |name, value| match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(fields.try_append(name, value)),
            (Err(error), _) => refused = Some(io::Error::other(error)),
            (_, Err(error)) => refused = Some(io::Error::other(error)),
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(response),
        }
    }
}

impl Reply for H2Reply<'_> {
    fn started(&self) -> bool {
        self.started
    }

    fn interim(&mut self, head: &dyn ReplyHead) -> io::Result<()> {
        // RFC 9113 8.6.
        if head.status() == 101 {
            return Ok(());
        }
        match &mut *self.sender.borrow_mut() {
            Sender::Waiting(respond) => respond.send_informational(Self::response(head)?).map_err(io::Error::other),
            Sender::Body(_) | Sender::Ended(_) | Sender::Gone => Ok(()),
        }
    }

    fn head(&mut self, head: &dyn ReplyHead) -> io::Result<()> {
        let mut response = Self::response(head)?;
        crate::headers::complete(response.headers_mut());
        let ends = head.length().is_empty();
        self.announced = match head.length() {
            BodyLength::Length(length) if !head.may_have_trailers() => Some(length),
            BodyLength::Length(_) | BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        let mut sender = self.sender.borrow_mut();
        let Sender::Waiting(respond) = &mut *sender else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let stream = respond.send_response(response, ends).map_err(io::Error::other)?;
        *sender = if ends { Sender::Ended(stream) } else { Sender::Body(stream) };
        self.started = true;
        Ok(())
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

impl BodySink for H2Reply<'_> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let total = self.body_bytes + data.len() as u64;
        let more = if self.announced == Some(total) { More::Nothing } else { More::Something };
        let mut rest = data;
        while !rest.is_empty() {
            let count = poll_fn(|cx| self.sender.borrow_mut().poll_send(cx, rest, more)).await?;
            rest = &rest[count..];
            self.body_bytes += count as u64;
            self.timer.progress();
        }
        Ok(())
    }

    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()> {
        let mut sender = self.sender.borrow_mut();
        match std::mem::replace(&mut *sender, Sender::Gone) {
            Sender::Body(mut stream) => {
                let outcome = send_end(&mut stream, trailers);
                *sender = Sender::Ended(stream);
                outcome
            }
            other @ (Sender::Waiting(_) | Sender::Ended(_) | Sender::Gone) => {
                *sender = other;
                Ok(())
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct H2Transaction<'c> {
    head: H2Head,
    body: H2Body<'c>,
    reply: H2Reply<'c>,
}

impl<'c> Transaction for H2Transaction<'c> {
    type Head = H2Head;
    type Body = H2Body<'c>;
    type Reply = H2Reply<'c>;

    fn parts(&mut self) -> (&H2Head, &mut H2Body<'c>, &mut H2Reply<'c>) {
        (&self.head, &mut self.body, &mut self.reply)
    }

    fn upgrade(&self) -> Option<&[u8]> {
        None
    }

    fn tunnel(&mut self) -> Option<(&Io, &mut Buffer)> {
        None
    }
}
