//! The client's side of an HTTP/1.x connection: one request after the other.

use std::rc::Rc;
use std::time::Duration;

use dualgate_http::{BodyLength, HeadLimits, HeadView, Progress, RequestHead, RequestView, Version};

use super::body::Body;
use super::outlet::Outlet;
use super::reply::{H1Reply, Persistence};
use crate::access::Record;
use crate::answer::Refusal;
use crate::buffer::Buffer;
use crate::connection::Connection;
use crate::forward::{Context, Outcome, forward};
use crate::headers::Framing;
use crate::io::Io;
use crate::timer::Timer;
use crate::transaction::{Reply, Transaction};

/// What is read of a body that nobody wants, before the connection is closed instead.
const DISCARD: usize = 64 * 1024;
/// How long a client may take to read the last answer before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// What an idle connection keeps of the memory for heads.
const KEPT: usize = 4096;

/// Serves a connection until it ends. `buffer` holds what was read so far.
pub async fn serve(connection: Rc<Connection>, io: Io, mut buffer: Buffer, timer: Timer) {
    let mut request = H1Head::default();
    let mut out = Vec::new();
    loop {
        match next_head(&connection, &io, &mut buffer, &timer, &mut request).await {
            Next::Head => {}
            Next::End => break,
            Next::Refuse(refusal) => {
                refuse(&connection, &io, &mut buffer, &timer, &mut out, refusal).await;
                break;
            }
        }
        match one_request(&connection, &io, &mut buffer, &timer, &request, &mut out).await {
            Persistence::Keep => {}
            Persistence::Reset => return io.reset(),
            Persistence::KeepOnceContinued | Persistence::Close => {
                linger(&io, &mut buffer, &timer).await;
                break;
            }
        }
        // An idle connection holds no memory.
        buffer.release(io.pool());
        for kept in [&mut out, &mut request.bytes] {
            if kept.capacity() > KEPT {
                *kept = Vec::new();
            }
        }
    }
}

/// What comes next on a connection.
enum Next {
    /// A request.
    Head,
    /// Nothing.
    End,
    /// Something that is answered by closing.
    Refuse(Refusal),
}

/// Whether the time for a head runs.
#[derive(PartialEq, Eq)]
enum Deadline {
    Unset,
    Runs,
}

async fn next_head(connection: &Connection, io: &Io, buffer: &mut Buffer, timer: &Timer, request: &mut H1Head) -> Next {
    if buffer.is_empty() {
        // An idle connection keeps no plan alive.
        timer.set(connection.runtime().plan.settings.keep_alive_timeout);
        match timer.limit(connection.wait_for_bytes(io, buffer)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Next::End,
        }
    }
    let runtime = connection.runtime();
    let settings = &runtime.plan.settings;
    let limits =
        HeadLimits { max_bytes: settings.max_head_bytes, max_fields: settings.max_fields, ..HeadLimits::default() };
    let mut deadline = Deadline::Unset;
    loop {
        match request.index.parse(buffer.filled(), &limits) {
            Ok(Progress::Complete { len }) => {
                request.bytes.clear();
                request.bytes.extend_from_slice(&buffer.filled()[..len]);
                buffer.consume(len);
                return Next::Head;
            }
            Ok(Progress::Partial) => {}
            Err(error) => return Next::Refuse(Refusal::Head(error)),
        }
        if deadline == Deadline::Unset {
            // Most heads arrive whole and need none.
            timer.set(settings.head_timeout);
            deadline = Deadline::Runs;
        }
        match timer.limit(io.read(buffer)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Next::End,
            Err(_) => return Next::Refuse(Refusal::SlowClient),
        }
    }
}

async fn one_request(
    connection: &Connection,
    io: &Io,
    buffer: &mut Buffer,
    timer: &Timer,
    request: &H1Head,
    out: &mut Vec<u8>,
) -> Persistence {
    let runtime = connection.runtime();
    let view = request.view();
    let mut record = Record::begin(match view.version() {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    });
    let persistence = match view.keep_alive() && !connection.worker.is_draining() {
        true if view.expects_continue() => Persistence::KeepOnceContinued,
        true => Persistence::Keep,
        false => Persistence::Close,
    };
    let version = view.version();
    let body = Body::new(io, timer, buffer, view.body(), runtime.plan.settings.max_body_bytes);
    let reply = H1Reply::new(Outlet::new(io, timer, out, Framing::Plain), version, persistence);
    let mut tx = H1Transaction { head: request, body, reply };
    let outcome: Outcome = forward(Context::of(connection, &runtime, timer), &mut tx).await;
    record.bytes_out = tx.reply.body_bytes();
    let H1Transaction { mut body, reply, .. } = tx;
    let mut persistence = match reply.finish() {
        Persistence::Reset => Persistence::Reset,
        _ if outcome.aborted || outcome.status == 101 => Persistence::Close,
        persistence => persistence,
    };
    if persistence == Persistence::Keep && !body.is_done() {
        timer.set(runtime.plan.settings.body_idle_timeout);
        if !timer.limit(body.discard(DISCARD)).await.unwrap_or(false) {
            persistence = Persistence::Close;
        }
    }
    body.finish();
    connection.finished(&runtime, request, &record, &outcome);
    persistence
}

/// Answers what is no request, and ends the connection.
pub async fn refuse(
    connection: &Connection,
    io: &Io,
    buffer: &mut Buffer,
    timer: &Timer,
    out: &mut Vec<u8>,
    refusal: Refusal,
) {
    connection.counters().refused.increment();
    let record = Record::begin("HTTP/1.1");
    let runtime = connection.runtime();
    timer.set(LINGER);
    let outlet = Outlet::new(io, timer, out, Framing::Plain);
    let mut reply = H1Reply::new(outlet, Version::Http11, Persistence::Close);
    let given = timer.limit(refusal.give(false, &mut reply)).await;
    let outcome = Outcome::refused(&refusal, matches!(given, Ok(Ok(()))));
    connection.finished(&runtime, &NoHead, &record, &outcome);
    linger(io, buffer, timer).await;
}

/// Says goodbye and reads on for a moment: closing with unread bytes would reset the connection, and the client would
/// lose the answer.
async fn linger(io: &Io, buffer: &mut Buffer, timer: &Timer) {
    timer.set(LINGER);
    let mut left = 16 * DISCARD;
    let goodbye = async {
        if io.shutdown().await.is_err() {
            return;
        }
        while let Ok(count @ 1..) = io.read(buffer).await {
            buffer.consume(buffer.len());
            match left.checked_sub(count) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timer.limit(goodbye).await;
}

/// A request's head, with its own copy of the bytes: the buffer goes on to the body.
#[derive(Debug, Default)]
pub struct H1Head {
    index: RequestHead,
    bytes: Vec<u8>,
}

impl H1Head {
    fn view(&self) -> RequestView<'_> {
        self.index.view(&self.bytes)
    }
}

impl HeadView for H1Head {
    fn method(&self) -> &str {
        self.view().method()
    }

    fn authority(&self) -> &[u8] {
        self.view().authority()
    }

    fn path_and_query(&self) -> &[u8] {
        self.view().path_and_query()
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.view().for_each_field(visit);
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.view().end_to_end_fields().find(|field| field.is(name)).map(|field| field.value)
    }

    fn body(&self) -> BodyLength {
        self.view().body()
    }
}

/// What is recorded of bytes that were no request.
struct NoHead;

impl HeadView for NoHead {
    fn method(&self) -> &str {
        "-"
    }

    fn authority(&self) -> &[u8] {
        b""
    }

    fn path_and_query(&self) -> &[u8] {
        b"-"
    }

    fn for_each_field(&self, _visit: &mut dyn FnMut(&[u8], &[u8])) {}

    fn field(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn body(&self) -> BodyLength {
        BodyLength::Empty
    }
}

struct H1Transaction<'c> {
    head: &'c H1Head,
    body: Body<'c>,
    reply: H1Reply<'c>,
}

impl<'c> Transaction for H1Transaction<'c> {
    type Head = H1Head;
    type Body = Body<'c>;
    type Reply = H1Reply<'c>;

    fn parts(&mut self) -> (&H1Head, &mut Body<'c>, &mut H1Reply<'c>) {
        (self.head, &mut self.body, &mut self.reply)
    }

    fn upgrade(&self) -> Option<&[u8]> {
        self.head.view().upgrade()
    }

    fn tunnel(&mut self) -> Option<(&Io, &mut Buffer)> {
        Some(self.body.tunnel())
    }
}
