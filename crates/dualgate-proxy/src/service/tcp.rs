//! One TCP connection of a Service's client: joined with one to a server, unread, until both have ended.
//!
//! An end of one side is told to the other, which may go on (half-close). A connection that breaks is reset on both sides:
//! nobody takes what it got for all there was. What neither side reads waits in its sender: at most one buffer of the
//! worker's pool lies here for each direction.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dualgate_core::plan::forward::ForwardId;
use tokio::net::TcpStream;

use super::ForwardState;
use super::metrics::Refused;
use crate::buffer::{Buffer, LARGE, SMALL};
use crate::io::Io;
use crate::metrics::Counter;
use crate::timer::Timer;
use crate::worker::Worker;

/// So many servers are tried at most.
const ATTEMPTS: usize = 4;

/// Serves a connection from its first octet to its last.
pub async fn serve(worker: Rc<Worker>, id: &ForwardId, tcp: TcpStream, client: SocketAddr) {
    let _ = tcp.set_nodelay(true);
    let io = Io::plain(tcp, worker.io());
    let runtime = worker.runtime();
    let Some(forward) = runtime.forward(id).cloned() else { return io.reset() };
    let settings = &runtime.plan.settings;
    let (connect_timeout, drain_timeout) = (settings.connect_timeout, settings.drain_timeout);
    let idle_timeout = settings.tunnel_idle_timeout;
    // The connection may outlive the plan.
    drop(runtime);
    let counters = &forward.shared.counters;
    let server = match forward.admits(client) {
        true => reach(&worker, &forward, client, connect_timeout).await,
        false => Err(Refused::SourceRange),
    };
    let server = match server {
        Ok(server) => server,
        Err(why) => {
            tracing::debug!(%client, forward = %id, ?why, "connection refused");
            counters.refuse(why);
            return io.reset();
        }
    };
    let (_open, slot) = (counters.open(), worker.drain_slot());
    let timer = Timer::new(idle_timeout);
    let joined = async {
        let up = one_way(&io, &server, &counters.received, &timer);
        let down = one_way(&server, &io, &counters.sent, &timer);
        tokio::try_join!(up, down)
    };
    io.keep_alive();
    server.keep_alive();
    let dismissed = async {
        forward.shared.dismissed().await;
        tokio::time::sleep(drain_timeout).await;
    };
    let ended = tokio::select! {
        joined = timer.limit(joined) => matches!(joined, Ok(Ok(_))),
        () = dismissed => false,
        () = worker.cut(&slot) => false,
    };
    if !ended {
        server.reset();
        io.reset();
    }
}

/// A connection to a server: another one is tried as long as none has taken an octet.
async fn reach(worker: &Worker, forward: &ForwardState, client: SocketAddr, limit: Duration) -> Result<Io, Refused> {
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        let Some(server) = forward.choose(client, Instant::now(), &tried) else { break };
        match worker.connector().reach(server, limit).await {
            Ok(io) => {
                server.health.succeeded();
                return Ok(io);
            }
            Err(error) => {
                tracing::debug!(forward = %forward.forward.id, %error, "server not reached");
                server.health.failed(Instant::now());
                tried.push(server.uid);
            }
        }
    }
    Err(if tried.is_empty() { Refused::NoEndpoints } else { Refused::Unreachable })
}

async fn one_way(from: &Io, to: &Io, moved: &Counter, timer: &Timer) -> io::Result<()> {
    let mut buffer = Buffer::default();
    while from.read(&mut buffer).await? > 0 {
        let count = buffer.len();
        to.write_all(buffer.filled()).await?;
        moved.add(count as u64);
        buffer.consume(count);
        timer.progress();
        if count >= SMALL {
            // There is more than one read's worth. The large buffer goes back when the sender pauses.
            buffer.free(from.pool(), LARGE);
        }
    }
    buffer.release(from.pool());
    to.shutdown().await
}
