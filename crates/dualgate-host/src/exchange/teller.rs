//! Home's side: keeps a connection to one edge, and tells it what is public.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::NodeName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::cut::{Cut, ToldGeneration};
use super::message::{LocalFacts, Message, PING, read};
use super::refusal::Refusal;
use super::session::{End, Receiver, Sender, Session, dial};
use super::{HANDSHAKE, Identity, KEEP_ALIVE, MAX_FACTS, Peer, now};

/// How long a connection may take to open: candidates of the other family wait behind it.
const CONNECT: Duration = Duration::from_secs(3);
/// How long to wait after the first failure; twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How long to wait at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is known of an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerFacts {
    /// Which it is.
    pub node: NodeName,
    /// Whether it is there.
    pub link: Link,
    /// What this connection has told it last.
    pub told: Option<ToldGeneration>,
    /// What it said of itself last, in this connection or one before.
    pub facts: Option<LocalFacts>,
}

impl PeerFacts {
    /// Whether it serves what it was told last.
    pub fn is_up_to_date(&self) -> bool {
        let applied = self.facts.as_ref().and_then(|facts| facts.applied.as_ref());
        matches!(self.link, Link::Connected { .. }) && self.told.is_some() && applied == self.told.as_ref()
    }
}

/// Whether an edge is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is.
    Connected {
        /// Since when, in seconds since 1970.
        since: i64,
        /// Where.
        at: SocketAddr,
    },
    /// It is not.
    Away {
        /// Since when, in seconds since 1970.
        since: i64,
        /// Why the last try failed.
        why: String,
        /// What came back.
        sign: Sign,
    },
}

/// What comes back from an edge that is not connected: a sign of life, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing: it is off, or there is no way to it.
    None,
    /// Its host is there, and nobody listens: its dualgate does not run.
    NobodyListens,
    /// It is there.
    Life,
}

/// Keeps a connection to one edge.
pub struct Teller {
    identity: Arc<Identity>,
    edge: Peer,
    addresses: Vec<SocketAddr>,
    cuts: watch::Receiver<Option<Arc<Cut>>>,
    facts: watch::Sender<PeerFacts>,
}

impl Teller {
    /// For an edge at these addresses, which are tried one after the other. Nothing is done yet.
    pub fn new(
        identity: Arc<Identity>,
        edge: Peer,
        addresses: Vec<SocketAddr>,
        cuts: watch::Receiver<Option<Arc<Cut>>>,
    ) -> (Self, watch::Receiver<PeerFacts>) {
        let link = Link::Away { since: now(), why: "not tried yet".to_owned(), sign: Sign::Life };
        let known = PeerFacts { node: edge.node.clone(), link, told: None, facts: None };
        let (facts, seen) = watch::channel(known);
        (Self { identity, edge, addresses, cuts, facts }, seen)
    }

    /// Tells, for as long as there is somebody who gives it cuts. Whoever owns it spawns it; dropped, it is gone.
    pub async fn run(mut self) {
        let tries = self.addresses.len() * self.edge.keys.len();
        if tries == 0 {
            let why = "the site file names no address or no public key of it".to_owned();
            self.facts.send_modify(|facts| facts.link = Link::Away { since: now(), why, sign: Sign::Life });
            while self.cuts.changed().await.is_ok() {}
            return;
        }
        let (mut number, mut wait) = (0, FIRST_WAIT);
        loop {
            let address = self.addresses[number % self.addresses.len()];
            let key = number / self.addresses.len() % self.edge.keys.len();
            let end = match self.connect(address, key).await {
                Ok(session) => {
                    let start = Instant::now();
                    // Without an end, nobody has anything to tell any more.
                    let Some(end) = self.converse(session, address).await else { return };
                    // Who lets us in and throws us out again must not be asked at once each time.
                    if start.elapsed() > LONGEST_WAIT {
                        wait = FIRST_WAIT;
                    }
                    end
                }
                Err(end) => {
                    number = (number + 1) % tries;
                    end
                }
            };
            self.away(&end);
            let mut given_up = self.cuts.clone();
            tokio::select! {
                () = sleep(with_jitter(wait)) => {}
                () = gone(&mut given_up) => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn connect(&self, address: SocketAddr, key: usize) -> Result<Session<TcpStream>, End> {
        let stream = timeout(CONNECT, TcpStream::connect(address)).await.map_err(|_| Refusal::Silent)??;
        stream.set_nodelay(true)?;
        let session = dial(stream, &self.identity, &self.edge.keys[key]);
        timeout(HANDSHAKE, session).await.map_err(|_| Refusal::Late)?
    }

    /// `None` when there is nobody who gives cuts any more.
    async fn converse(&mut self, session: Session<TcpStream>, at: SocketAddr) -> Option<End> {
        let Session { mut to, mut from } = session;
        tracing::info!(edge = %self.edge.node, address = %at, "connected to the edge");
        self.facts.send_modify(|facts| {
            facts.link = Link::Connected { since: now(), at };
            facts.told = None;
        });
        tokio::select! {
            end = tell(&mut to, &mut self.cuts, &self.facts) => end.err(),
            end = hear(&mut from, &self.edge.node, &self.facts) => Some(end),
        }
    }

    fn away(&self, end: &End) {
        let (why, sign) = (end.to_string(), end.sign());
        let is_there = |sign| sign == Sign::Life;
        self.facts.send_if_modified(|facts| {
            let since = match &facts.link {
                Link::Connected { .. } => now(),
                Link::Away { why: before, .. } if *before == why => return false,
                // Absence counts from its beginning, whatever was before.
                Link::Away { sign: before, .. } if is_there(*before) != is_there(sign) => now(),
                Link::Away { since, .. } => *since,
            };
            tracing::warn!(edge = %self.edge.node, why, "the edge is not told anything; it is tried again");
            facts.link = Link::Away { since, why: why.clone(), sign };
            true
        });
    }
}

/// Tells each cut once. `Ok` when there is nobody who gives them any more.
async fn tell<S: AsyncWrite>(
    to: &mut Sender<S>,
    cuts: &mut watch::Receiver<Option<Arc<Cut>>>,
    facts: &watch::Sender<PeerFacts>,
) -> Result<(), End> {
    let mut told: Option<ToldGeneration> = None;
    loop {
        let cut = cuts.borrow_and_update().clone();
        if let Some(cut) = cut.filter(|cut| told.as_ref() != Some(&cut.generation)) {
            // Exposed to the session, which seals it.
            to.send(cut.message.expose()).await?;
            told = Some(cut.generation.clone());
            facts.send_modify(|facts| facts.told.clone_from(&told));
        }
        match timeout(KEEP_ALIVE, cuts.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => to.send(PING).await?,
        }
    }
}

/// Hears what the edge says of itself.
async fn hear<S: AsyncRead>(from: &mut Receiver<S>, edge: &NodeName, facts: &watch::Sender<PeerFacts>) -> End {
    loop {
        let text = match from.message(MAX_FACTS).await {
            Ok(text) => text,
            Err(end) => return end,
        };
        match read(&text) {
            Some(Message::Ping) => {}
            Some(Message::Facts(said)) if said.node == *edge => facts.send_modify(|facts| facts.facts = Some(said)),
            Some(Message::Facts(_) | Message::Told(_)) | None => return Refusal::Malformed.into(),
        }
    }
}

async fn gone(cuts: &mut watch::Receiver<Option<Arc<Cut>>>) {
    while cuts.changed().await.is_ok() {}
}

/// Half of it at least, so that home nodes that lost an edge together do not come back together.
fn with_jitter(wait: Duration) -> Duration {
    let mut octet = [128];
    // Without random numbers it is three quarters.
    let _ = aws_lc_rs::rand::fill(&mut octet);
    wait / 2 + wait / 2 * u32::from(octet[0]) / 255
}
