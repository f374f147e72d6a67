//! One request through the gate: route, server, request out, answer back.
//!
//! Written once for all versions of HTTP. A failure before the answer has begun becomes another attempt where that is
//! safe, else an answer of the gate; a failure later breaks the answer off, so that nobody takes half of it for all.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dualgate_core::model::site::{ProxySettings, Underscores};
use dualgate_core::plan::proxy::ServerAddress;
use dualgate_core::route::{Action, RouteIndex};
use dualgate_http::{
    BodyLength, CanonicalPath, HeadError, HeadView, Trailer, check_query, parse_authority, split_query,
};

use crate::answer::Refusal;
use crate::h1::{Body, Outlet};
use crate::headers::{self, Framing, Peer, Target};
use crate::io::Io;
use crate::listener::ListenerState;
use crate::state::{BackendState, Runtime, ServerState};
use crate::timer::Timer;
use crate::transaction::{BodyFailure, BodySink, BodySource, RelayFailure, Reply, ReplyHead, Transaction, relay};
use crate::tunnel::tunnel;
use crate::upstream::{
    AnswerFailure, H1Server, H2Server, Lease, ServerHead, StreamBody, StreamHead, StreamOutlet, read_head,
};
use crate::worker::{Scratch, Worker};
use dualgate_core::model::Text;

/// The most servers that one request is sent to.
const MAX_ATTEMPTS: usize = 3;

/// The client has gone, or does not take the answer.
const CLIENT_GONE: &str = "client-gone";
/// The client has not sent all of its request.
const CLIENT_BROKE_OFF: &str = "client-broke-off";

/// What a request is forwarded with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The running plan, as it was when the request began.
    pub runtime: &'a Arc<Runtime>,
    /// The worker that serves it.
    pub worker: &'a Rc<Worker>,
    /// Where it came in.
    pub listener: &'a ListenerState,
    /// Whose it is.
    pub peer: &'a Peer,
    /// Its deadline.
    pub timer: &'a Timer,
}

/// How a request ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The route that served it.
    pub route: Option<RouteIndex>,
    /// The server that answered.
    pub server: Option<Text>,
    /// The status of the answer; 0 if none began.
    pub status: u16,
    /// Octets of the request's body.
    pub bytes_in: u64,
    /// Why the gate answered itself, or why the answer broke off.
    pub trouble: Option<&'static str>,
    /// Whether the answer was broken off.
    pub aborted: bool,
    /// How often the request was sent once more.
    pub retries: u8,
}

impl Outcome {
    /// The client did not wait for the answer.
    pub fn is_given_up(&self) -> bool {
        self.aborted && matches!(self.trouble, Some(CLIENT_GONE | CLIENT_BROKE_OFF))
    }

    /// The gate answered itself, before a route was looked for; `given` says whether the client took the answer.
    pub fn refused(refusal: &Refusal, given: bool) -> Self {
        Self { status: refusal.status(), trouble: Some(refusal.code()), aborted: !given, ..Self::default() }
    }
}

/// Serves one request.
pub async fn forward<T: Transaction>(cx: Context<'_>, tx: &mut T) -> Outcome {
    let mut outcome = Outcome::default();
    let mut routed = Routed::default();
    let refusal = match routed.find(cx, tx.parts().0) {
        Ok(backend) => {
            outcome.route = routed.route;
            match try_servers(cx, tx, &routed, backend, &mut outcome).await {
                Ok(()) => None,
                Err(End::Refuse(refusal)) => Some(refusal),
                Err(End::Abort(trouble)) => {
                    outcome.trouble = Some(trouble);
                    outcome.aborted = true;
                    None
                }
            }
        }
        Err(refusal) => {
            outcome.route = routed.route;
            Some(refusal)
        }
    };
    if let Some(refusal) = refusal {
        outcome.status = refusal.status();
        outcome.trouble = Some(refusal.code());
        let head_only = tx.parts().0.method() == "HEAD";
        cx.timer.set(cx.runtime.plan.settings.body_idle_timeout);
        let given = cx.timer.limit(refusal.give(head_only, tx.parts().2)).await;
        outcome.aborted = !matches!(given, Ok(Ok(())));
    }
    outcome
}

/// How an attempt to get an answer ended without one.
enum End {
    /// The gate answers itself.
    Refuse(Refusal),
    /// No answer is possible any more.
    Abort(&'static str),
}

/// Where a request goes.
#[derive(Debug, Default)]
struct Routed {
    route: Option<RouteIndex>,
    host: Vec<u8>,
    path_and_query: Vec<u8>,
}

impl Routed {
    /// Finds the backend, from the one canonical form of host and path that is also what servers see.
    fn find<'r>(&mut self, cx: Context<'r>, head: &impl HeadView) -> Result<&'r BackendState, Refusal> {
        let settings = &cx.runtime.plan.settings;
        check_fields(head, settings.underscores, settings.max_fields)?;
        if head.method() == "CONNECT" {
            return Err(Refusal::Head(HeadError::Connect));
        }
        if !head.authority().is_empty() {
            let authority = parse_authority(head.authority()).map_err(|_| Refusal::Head(HeadError::HostInvalid))?;
            authority.normalised_host(&mut self.host);
        }
        let host = std::str::from_utf8(&self.host).unwrap_or_default();
        let (raw, query) = split_query(head.path_and_query());
        let mut scratch = Vec::new();
        let path = match raw {
            b"*" => "/",
            raw => CanonicalPath::new(raw, &mut scratch).map_err(Refusal::Path)?.as_str(),
        };
        self.path_and_query.extend_from_slice(if raw == b"*" { raw } else { path.as_bytes() });
        if let Some(query) = query {
            check_query(query).map_err(Refusal::Path)?;
            self.path_and_query.push(b'?');
            self.path_and_query.extend_from_slice(query);
        }
        let table = &cx.runtime.plan.table;
        let entry_point = cx.runtime.listener(&cx.listener.id).ok_or(Refusal::NoRoute)?.index;
        let index = table.find(entry_point, host, path).ok_or(Refusal::NoRoute)?;
        self.route = Some(index);
        match (head.body(), settings.max_body_bytes) {
            // Whoever announces too much is told before anybody is bothered with a part of it.
            (BodyLength::Length(length), Some(most)) if length > most => return Err(Refusal::TooLarge),
            _ => {}
        }
        match &table.route(index).action {
            Action::Forward(backend) => cx.runtime.backend(*backend).ok_or(Refusal::Unavailable),
            Action::Unavailable(_) => Err(Refusal::Unavailable),
        }
    }
}

fn check_fields(head: &impl HeadView, underscores: Underscores, most: usize) -> Result<(), Refusal> {
    let (mut underscore, mut count) = (false, 0);
    head.for_each_field(&mut |name, _| {
        count += 1;
        underscore |= name.contains(&b'_');
    });
    if count > most {
        return Err(Refusal::TooManyFields);
    }
    match underscores {
        Underscores::Reject if underscore => Err(Refusal::Underscore),
        Underscores::Reject | Underscores::Drop | Underscores::Keep => Ok(()),
    }
}

async fn try_servers<T: Transaction>(
    cx: Context<'_>,
    tx: &mut T,
    routed: &Routed,
    backend: &BackendState,
    outcome: &mut Outcome,
) -> Result<(), End> {
    let settings = &cx.runtime.plan.settings;
    let counters = &backend.shared.counters;
    let mut tried = Vec::new();
    let mut last = Refusal::NoEndpoints;
    for attempt in 0..MAX_ATTEMPTS {
        let Some(server) = backend.pick(Instant::now(), &tried) else { break };
        if attempt > 0 {
            counters.retries.increment();
            outcome.retries += 1;
        }
        outcome.server = Some(server.id.clone());
        // The connector has its own limit; the client's deadline does not run meanwhile.
        let lease = match cx.worker.pool.open(server, settings.connect_timeout).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(backend = %backend.backend.id, %error, "server not reached");
                counters.connect_failures.increment();
                server.health.failed(Instant::now());
                tried.push(server.uid);
                last = Refusal::Unreachable;
                continue;
            }
        };
        let attempt = Attempt { routed, backend, server };
        let answered = match lease {
            Lease::H1(connection) => over_h1(cx, tx, &attempt, connection, outcome).await,
            Lease::H2(place) => over_h2(cx, tx, &attempt, place, outcome).await,
        };
        match answered {
            Ok(()) => {
                server.health.succeeded();
                return Ok(());
            }
            Err(Broken::Silent { reused }) => {
                // A kept connection that the server closed says nothing of its health; a fresh one does.
                cx.worker.pool.forget(server);
                if !reused {
                    server.health.failed(Instant::now());
                    tried.push(server.uid);
                }
                last = Refusal::BadAnswer;
                if !is_repeatable(tx.parts().0) {
                    break;
                }
            }
            Err(Broken::Refused) => {
                tried.push(server.uid);
                last = Refusal::BadAnswer;
                if !tx.parts().0.body().is_empty() {
                    break;
                }
            }
            Err(Broken::Ended(end)) => {
                if matches!(end, End::Refuse(Refusal::SlowServer)) {
                    // If it is dead, no kept connection to it is of use, and opening one will tell.
                    cx.worker.pool.forget(server);
                }
                return Err(end);
            }
        }
    }
    Err(End::Refuse(last))
}

/// How an attempt with one server failed.
enum Broken {
    /// It closed the connection without a single octet: another attempt may be made.
    Silent { reused: bool },
    /// It did not begin with the request: whatever that does, it may be sent again.
    Refused,
    /// There will be no other attempt.
    Ended(End),
}

/// Whether sending a request twice has the effect of sending it once (RFC 9110 9.2.2), and it can be sent again.
fn is_repeatable(head: &impl HeadView) -> bool {
    head.body().is_empty() && matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// What one attempt needs.
struct Attempt<'a> {
    routed: &'a Routed,
    backend: &'a BackendState,
    server: &'a Arc<ServerState>,
}

impl Attempt<'_> {
    /// The value of `Host`, if it is not the client's.
    fn own_host(&self) -> Option<Vec<u8>> {
        if self.backend.backend.pass_host {
            return None;
        }
        let mut host = Vec::new();
        match &self.server.at {
            ServerAddress::Name { host: name, port } => headers::write_host(name, *port, &mut host),
            ServerAddress::Sockets(sockets) => {
                let socket = sockets.iter().next()?;
                headers::write_host(&socket.ip().to_string(), socket.port(), &mut host);
            }
        }
        Some(host)
    }
}

/// Why an exchange with a server ended early.
enum Fault {
    /// The server says that it has not begun with the request (RFC 9113 8.7).
    Refused,
    /// The server closed the connection without a single octet.
    Silent,
    /// The head of its answer is broken.
    Answer,
    /// Its answer broke off.
    Midway,
    /// The request's body failed.
    Body(BodyFailure),
    /// The client has gone, or does not take the answer.
    Client,
    /// The deadline passed.
    Expired,
}

/// How far the request had come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// The client has to send more.
    Part,
    /// The server has to take more.
    Stuck,
    /// So many octets were all of its body.
    All(u64),
}

/// The server's side of an upload, which notes when it is the server that is waited for.
struct Noted<'a, S> {
    sink: &'a mut S,
    sent: &'a Cell<Sent>,
}

impl<S> Noted<'_, S> {
    async fn stuck_until(&mut self, step: impl AsyncFnOnce(&mut S) -> io::Result<()>) -> io::Result<()> {
        self.sent.set(Sent::Stuck);
        step(self.sink).await?;
        self.sent.set(Sent::Part);
        Ok(())
    }
}

impl<S: BodySink> BodySink for Noted<'_, S> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.stuck_until(async |sink| sink.data(data).await).await
    }

    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()> {
        self.stuck_until(async |sink| sink.end(trailers).await).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stuck_until(async |sink| sink.flush().await).await
    }
}

impl Fault {
    /// Of a stream without an answer: a reset is a word of the server, anything else the end of its connection.
    fn of_stream(error: h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Self::Refused,
            Some(_) if error.is_reset() => Self::Answer,
            Some(_) | None => Self::Silent,
        }
    }

    fn judge(self, sent: Sent, started: bool, reused: bool) -> Broken {
        let end = match self {
            Self::Refused if !started => return Broken::Refused,
            Self::Silent if !started => return Broken::Silent { reused },
            Self::Answer if !started => End::Refuse(Refusal::BadAnswer),
            Self::Refused | Self::Silent | Self::Answer | Self::Midway => End::Abort("server-broke-off"),
            Self::Expired if started => End::Abort("timeout"),
            Self::Expired if sent == Sent::Part => End::Refuse(Refusal::SlowClient),
            Self::Expired => End::Refuse(Refusal::SlowServer),
            Self::Client => End::Abort(CLIENT_GONE),
            Self::Body(failure) => match Option::<Refusal>::from(failure) {
                Some(refusal) if !started => End::Refuse(refusal),
                Some(_) | None => End::Abort(CLIENT_BROKE_OFF),
            },
        };
        Broken::Ended(end)
    }
}

impl From<AnswerFailure> for Fault {
    fn from(failure: AnswerFailure) -> Self {
        match failure {
            AnswerFailure::Nothing => Self::Silent,
            AnswerFailure::Io(_) | AnswerFailure::Head(_) => Self::Answer,
        }
    }
}

/// Sends the body of a request, then watches whether the client is still there. Ends only with what is the client's
/// fault: when the server stops reading, its answer decides.
async fn upload(body: &mut impl BodySource, sink: &mut impl BodySink, sent: &Cell<Sent>, done: impl Fn()) -> Fault {
    match relay(body, &mut Noted { sink, sent }).await {
        Ok(bytes) => sent.set(Sent::All(bytes)),
        Err(RelayFailure::Source(failure)) => return Fault::Body(failure),
        Err(RelayFailure::Sink) => std::future::pending().await,
    }
    done();
    body.gone().await;
    Fault::Client
}

/// Hands the body of an answer on. Where it breaks off, what came before is handed on all the same.
async fn download(body: &mut impl BodySource, reply: &mut impl Reply) -> Result<(), Fault> {
    match relay(body, reply).await {
        Ok(_) => Ok(()),
        Err(RelayFailure::Source(_)) => match reply.flush().await {
            Ok(()) => Err(Fault::Midway),
            Err(_) => Err(Fault::Client),
        },
        Err(RelayFailure::Sink) => Err(Fault::Client),
    }
}

/// Runs both directions until the answer is complete or something fails.
async fn exchange<D>(
    timer: &Timer,
    upload: impl Future<Output = Fault>,
    download: impl Future<Output = Result<D, Fault>>,
) -> Result<D, Fault> {
    let (mut upload, mut download) = (pin!(upload), pin!(download));
    let both = poll_fn(|cx| match upload.as_mut().poll(cx) {
        Poll::Ready(fault) => Poll::Ready(Err(fault)),
        Poll::Pending => download.as_mut().poll(cx),
    });
    timer.limit(both).await.unwrap_or(Err(Fault::Expired))
}

/// What an HTTP/1.1 server's answer leaves behind.
enum After {
    /// The connection, usable again or not.
    Http { persistent: bool },
    /// Another protocol.
    Tunnel,
}

/// How long a server's kernel may be silent to a request: one that another server could answer as well moves on.
fn patience(head: &impl HeadView, becomes_tunnel: bool, settings: &ProxySettings) -> Option<Duration> {
    (is_repeatable(head) && !becomes_tunnel).then_some(settings.connect_timeout)
}

/// An answer that has begun cannot move to another server: its rest is waited for, as the server may come back.
fn wait_for_rest(io: &Io, patience: &mut Option<Duration>, arrived: &[u8], length: BodyLength) {
    if !is_whole(arrived, length) && patience.take().is_some() {
        io.give_up_after(None);
    }
}

/// Whether a body has arrived together with its head, as far as can be told at a glance.
fn is_whole(arrived: &[u8], length: BodyLength) -> bool {
    match length {
        BodyLength::Empty => true,
        BodyLength::Length(octets) => arrived.len() as u64 >= octets,
        BodyLength::Chunked => arrived.ends_with(b"\r\n0\r\n\r\n"),
        BodyLength::UntilClose => false,
    }
}

async fn over_h1<T: Transaction>(
    cx: Context<'_>,
    tx: &mut T,
    attempt: &Attempt<'_>,
    mut connection: Box<H1Server>,
    outcome: &mut Outcome,
) -> Result<(), Broken> {
    let settings = &cx.runtime.plan.settings;
    let upgrade = tx.upgrade().map(<[u8]>::to_vec);
    let reused = connection.was_reused();
    let own_host = attempt.own_host();
    let (head, body, reply) = tx.parts();
    let mut scratch = cx.worker.scratch();
    let Scratch { request, answer } = &mut scratch;
    let target = Target {
        path_and_query: &attempt.routed.path_and_query,
        host: own_host.as_deref().unwrap_or(head.authority()),
        upgrade: upgrade.as_deref(),
        underscores: settings.underscores,
    };
    headers::write_request(head, cx.peer, &target, request);
    let framing = Framing::of(head.body());
    connection.give_up_after(patience(head, upgrade.is_some(), settings));
    let H1Server { io, buffer, patience, .. } = &mut *connection;
    let (sent, answering) = (Cell::new(Sent::Part), Cell::new(false));
    cx.timer.set(settings.body_idle_timeout);
    let mut outlet = Outlet::new(io, cx.timer, request, framing);
    let sending = upload(body, &mut outlet, &sent, || {
        if !answering.get() {
            cx.timer.set(settings.response_timeout);
        }
    });
    let receiving = async {
        let mut spoke = false;
        let len = loop {
            let len = match read_head(io, buffer, answer).await {
                Err(AnswerFailure::Nothing) if spoke => return Err(Fault::Answer),
                read => read?,
            };
            let view = answer.view(&buffer.filled()[..len]);
            if !view.is_interim() {
                break len;
            }
            reply.interim(&ServerHead { view, length: BodyLength::Empty }).map_err(|_| Fault::Client)?;
            reply.flush().await.map_err(|_| Fault::Client)?;
            buffer.consume(len);
            spoke = true;
            cx.timer.progress();
        };
        let view = answer.view(&buffer.filled()[..len]);
        let switches = view.status() == 101;
        if switches && !is_agreed(upgrade.as_deref(), view.upgrade()) {
            return Err(Fault::Answer);
        }
        let (length, persistent) = (view.body(head.method()), view.keep_alive());
        outcome.status = view.status();
        reply.head(&ServerHead { view, length }).map_err(|_| Fault::Client)?;
        buffer.consume(len);
        answering.set(true);
        cx.timer.set(settings.body_idle_timeout);
        if switches {
            reply.end(&[]).await.map_err(|_| Fault::Client)?;
            return Ok(After::Tunnel);
        }
        wait_for_rest(io, patience, buffer.filled(), length);
        let mut answer_body = Body::new(io, cx.timer, buffer, length, None);
        download(&mut answer_body, reply).await?;
        Ok(After::Http { persistent: answer_body.finish() && persistent && length != BodyLength::UntilClose })
    };
    let after = exchange(cx.timer, sending, receiving).await;
    if let Sent::All(bytes) = sent.get() {
        outcome.bytes_in = bytes;
    }
    let after = after.map_err(|fault| fault.judge(sent.get(), reply.started(), reused));
    cx.worker.put_back(scratch);
    match after? {
        After::Tunnel => {
            cx.timer.set(settings.tunnel_idle_timeout);
            if let Some((client, read)) = tx.tunnel() {
                tunnel((client, read), (io, buffer), cx.timer).await;
            }
        }
        After::Http { persistent } => {
            connection.set_persistent(persistent && matches!(sent.get(), Sent::All(_)));
            cx.worker.pool.keep(attempt.server, connection);
        }
    }
    Ok(())
}

/// Whether a server changes to the protocol that the client named (RFC 9110 7.8).
fn is_agreed(asked: Option<&[u8]>, agreed: Option<&[u8]>) -> bool {
    asked.zip(agreed).is_some_and(|(asked, agreed)| asked.eq_ignore_ascii_case(agreed))
}

async fn over_h2<T: Transaction>(
    cx: Context<'_>,
    tx: &mut T,
    attempt: &Attempt<'_>,
    mut place: H2Server,
    outcome: &mut Outcome,
) -> Result<(), Broken> {
    let settings = &cx.runtime.plan.settings;
    let own_host = attempt.own_host();
    let (head, body, reply) = tx.parts();
    let host = own_host.as_deref().unwrap_or(head.authority());
    let ends = head.body().is_empty();
    let Some(request) =
        headers::stream_request(head, cx.peer, host, &attempt.routed.path_and_query, settings.underscores)
    else {
        return Err(Broken::Ended(End::Refuse(Refusal::Head(HeadError::FieldValue))));
    };
    let silent = |_| Broken::Silent { reused: place.reused };
    let (mut answer, mut stream) = place.sender.send_request(request, ends).map_err(silent)?;
    let (sent, answering) = (Cell::new(Sent::Part), Cell::new(false));
    cx.timer.set(settings.body_idle_timeout);
    let mut outlet = StreamOutlet::new(&mut stream, cx.timer, ends);
    let sending = upload(body, &mut outlet, &sent, || {
        if !answering.get() {
            cx.timer.set(settings.response_timeout);
        }
    });
    let receiving = async {
        while let Some(interim) = poll_fn(|cx| answer.poll_informational(cx)).await {
            let interim = interim.map_err(Fault::of_stream)?;
            reply.interim(&StreamHead::interim(&interim)).map_err(|_| Fault::Client)?;
            reply.flush().await.map_err(|_| Fault::Client)?;
            cx.timer.progress();
        }
        let mut answer = answer.await.map_err(Fault::of_stream)?;
        let server_head = StreamHead::new(&answer, head.method());
        outcome.status = server_head.status();
        let is_empty = server_head.length() == BodyLength::Empty;
        reply.head(&server_head).map_err(|_| Fault::Client)?;
        answering.set(true);
        cx.timer.set(settings.body_idle_timeout);
        if is_empty {
            return reply.end(&[]).await.map_err(|_| Fault::Client);
        }
        let mut answer_body = StreamBody::new(answer.body_mut(), cx.timer, None);
        download(&mut answer_body, reply).await?;
        Ok(())
    };
    let ended = exchange(cx.timer, sending, receiving).await;
    if let Sent::All(bytes) = sent.get() {
        outcome.bytes_in = bytes;
    }
    ended.map_err(|fault| fault.judge(sent.get(), reply.started(), place.reused))
}
