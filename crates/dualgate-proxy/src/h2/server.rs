//! A connection of HTTP/2: its streams side by side, each a task.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as H2Connection};

use super::meter::Metered;
use super::stream;
use crate::buffer::Buffer;
use crate::connection::Connection;
use crate::io::{Adapter, Io, Outbox};
use crate::timer::Timer;

/// The most streams at a time.
const STREAMS: u32 = 100;
/// The window of a stream: what an upload can be ahead of its server.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The window of a connection: the most that all its uploads together can make us keep.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What a stream's answer can be ahead of its client.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that were reset and not yet taken: more is an attack (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Faults of the client that are answered with a reset: more is an attack (CVE-2025-8671).
const FAULTS: usize = 200;
/// How long the last streams may take to be told that no more are welcome.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves a connection until it ends. `buffer` holds what was read so far.
pub async fn serve(connection: Rc<Connection>, io: Io, buffer: Buffer, timer: Timer) {
    let runtime = connection.runtime();
    let settings = &runtime.plan.settings;
    timer.set(settings.head_timeout);
    let adapter = Adapter::new(io, buffer);
    let outbox = adapter.outbox();
    let handshake = Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(FAULTS))
        .handshake::<_, Bytes>(Metered::new(adapter));
    let keep_alive = settings.keep_alive_timeout;
    let Ok(Ok(h2)) = timer.limit(handshake).await else {
        connection.counters().refused.increment();
        return;
    };
    drop(runtime);
    outbox.gather();
    let mut h2 = Turns { h2, outbox };
    let mut stage = Stage::Open;
    loop {
        let patience = match stage {
            Stage::Open => keep_alive,
            Stage::Leaving => GOODBYE,
        };
        match next(&connection, &mut h2, &timer, patience, stage).await {
            Next::Stream(_) if connection.is_abused() => {
                h2.h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                stage = Stage::Leaving;
            }
            Next::Stream(stream) => {
                let (connection, (request, respond)) = (connection.clone(), *stream);
                tokio::task::spawn_local(stream::serve(connection, request, respond));
            }
            Next::Leave => {
                h2.h2.graceful_shutdown();
                stage = Stage::Leaving;
            }
            Next::End => break,
        }
    }
    timer.set(GOODBYE);
    let _ = timer.limit(poll_fn(|cx| h2.outbox.poll_write_out(cx))).await;
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The client has been told to go, and may not have heard of it: what it still sends is served.
    Leaving,
}

/// A connection whose frames leave at the end of each turn.
struct Turns {
    h2: H2Connection<Metered<Adapter>, Bytes>,
    outbox: Rc<Outbox>,
}

type Stream = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

impl Turns {
    /// The next stream; `None` is the end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Stream, h2::Error>>> {
        let accepted = self.h2.poll_accept(cx);
        if accepted.is_pending() {
            // A turn ends when there is nothing left to be done. What the socket does not take wakes this task again.
            if let Poll::Ready(Err(error)) = self.outbox.poll_write_out(cx) {
                tracing::debug!(%error, "HTTP/2 connection broke");
                return Poll::Ready(None);
            }
        }
        accepted
    }
}

enum Next {
    Stream(Box<Stream>),
    /// The client is to be told to go.
    Leave,
    End,
}

async fn next(connection: &Rc<Connection>, h2: &mut Turns, timer: &Timer, patience: Duration, stage: Stage) -> Next {
    let mut drained = pin!(connection.drained());
    let event = poll_fn(|cx| {
        if let Poll::Ready(accepted) = h2.poll_accept(cx) {
            return Poll::Ready(match accepted {
                Some(Ok(stream)) => Next::Stream(Box::new(stream)),
                Some(Err(error)) => {
                    tracing::debug!(client = %connection.peer.address, %error, "HTTP/2 connection ended");
                    Next::End
                }
                None => Next::End,
            });
        }
        match stage {
            Stage::Open => drained.as_mut().poll(cx).map(|()| Next::Leave),
            Stage::Leaving => Poll::Pending,
        }
    });
    let mut event = pin!(event);
    timer.set(patience);
    loop {
        match (timer.limit(event.as_mut()).await, stage) {
            (Ok(event), _) => return event,
            // Streams have deadlines of their own; only a connection without any is idle.
            (Err(_), _) if connection.has_streams() => timer.set(patience),
            (Err(_), Stage::Open) => return Next::Leave,
            (Err(_), Stage::Leaving) => return Next::End,
        }
    }
}
