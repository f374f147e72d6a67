//! Connections to servers that wait for the next request.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashMap;
use foldhash::HashMapExt as _;
use h2::client::SendRequest;

use super::connect::{ConnectError, Connector};
use super::h1::H1Server;
use super::h2::{H2Server, open};
use crate::state::ServerState;
use dualgate_core::plan::proxy::Scheme;

/// How many connections to one server a worker keeps.
const KEPT_PER_SERVER: usize = 64;
/// How long a connection is kept without a request: below the 60 s and more at which most servers close theirs.
const KEPT_FOR: Duration = Duration::from_secs(55);

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    connector: Connector,
    h1: RefCell<HashMap<u64, Vec<Idle>>>,
    h2: RefCell<HashMap<u64, Shared>>,
}

/// An HTTP/2 connection, which many requests use at a time.
#[derive(Debug)]
struct Shared {
    sender: SendRequest<Bytes>,
    server: Arc<ServerState>,
    used: Instant,
}

#[derive(Debug)]
struct Idle {
    connection: Box<H1Server>,
    server: Arc<ServerState>,
    since: Instant,
}

/// A connection for one request.
#[derive(Debug)]
pub enum Lease {
    /// HTTP/1.1, plain or over TLS: boxed, as it is handed around.
    H1(Box<H1Server>),
    /// A place on an HTTP/2 connection.
    H2(H2Server),
}

impl Pool {
    /// Empty.
    pub fn new(connector: Connector) -> Self {
        Self { connector, h1: RefCell::new(HashMap::new()), h2: RefCell::new(HashMap::new()) }
    }

    /// A connection to `server`: a kept one, or a new one within `limit`.
    pub async fn open(&self, server: &Arc<ServerState>, limit: Duration) -> Result<Lease, ConnectError> {
        match server.scheme {
            Scheme::Http | Scheme::Https => {
                if let Some(kept) = self.take(server.uid) {
                    return Ok(Lease::H1(kept));
                }
                let io = self.connector.connect(server, limit).await?;
                io.watch_server();
                Ok(Lease::H1(Box::new(H1Server::new(io))))
            }
            Scheme::H2c => {
                let kept = self.h2.borrow_mut().get_mut(&server.uid).map(|shared| {
                    shared.used = Instant::now();
                    shared.sender.clone()
                });
                if let Some(kept) = kept
                    && let Ok(ready) = kept.ready().await
                {
                    return Ok(Lease::H2(H2Server::new(ready, true)));
                }
                let io = self.connector.connect(server, limit).await?;
                io.watch_server();
                let sender = open(io, limit)
                    .await
                    .map_err(|error| ConnectError::Refused { server: server.id.clone(), error })?;
                let shared = Shared { sender: sender.clone(), server: server.clone(), used: Instant::now() };
                self.h2.borrow_mut().insert(server.uid, shared);
                Ok(Lease::H2(H2Server::new(sender, false)))
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub fn keep(&self, server: &Arc<ServerState>, mut connection: Box<H1Server>) {
        if server.is_retired() || !connection.rest() {
            return;
        }
        let mut shelves = self.h1.borrow_mut();
        let shelf = shelves.entry(server.uid).or_default();
        if shelf.len() < KEPT_PER_SERVER {
            shelf.push(Idle { connection, server: server.clone(), since: Instant::now() });
        }
    }

    /// Drops every kept connection to a server that has just broken one.
    pub fn forget(&self, server: &ServerState) {
        self.h1.borrow_mut().remove(&server.uid);
        self.h2.borrow_mut().remove(&server.uid);
    }

    /// Closes what has waited too long and what leads to servers that are gone. Requests that run end first.
    pub fn sweep(&self, now: Instant) {
        let is_wanted = |since, server: &ServerState| now.duration_since(since) < KEPT_FOR && !server.is_retired();
        self.h2.borrow_mut().retain(|_, shared| is_wanted(shared.used, &shared.server));
        let mut shelves = self.h1.borrow_mut();
        shelves.retain(|_, shelf| {
            shelf.retain(|idle| is_wanted(idle.since, &idle.server) && idle.connection.is_quiet());
            !shelf.is_empty()
        });
    }

    /// The connection that was used last: its server is the least likely to have closed it.
    fn take(&self, uid: u64) -> Option<Box<H1Server>> {
        let mut shelves = self.h1.borrow_mut();
        let shelf = shelves.get_mut(&uid)?;
        while let Some(mut idle) = shelf.pop() {
            if idle.connection.is_quiet() {
                idle.connection.reuse();
                return Some(idle.connection);
            }
        }
        None
    }
}
