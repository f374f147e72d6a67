//! The edge's side: hears what home tells, and hands it on as a source.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::moment::utc;
use dualgate_core::model::{Digest, NodeName, ObjectSet};
use dualgate_core::plan::public;
use dualgate_core::seam::Source;
use rustix::net::sockopt::{set_ip_freebind, set_ipv6_freebind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::cut::ToldGeneration;
use super::message::{LocalFacts, Message, facts, read};
use super::refusal::{Refusal, Refusals};
use super::session::{End, Receiver, Sender, answer};
use super::{HANDSHAKE, Identity, KEEP_ALIVE, MAX_TOLD, MAX_UNPROVEN, PATIENCE, Peer, VERSION, now};

/// How long nobody is let in after the kernel could not.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why nobody can be heard.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be had.
    #[error("listen for home at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an edge has heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// As what the set was told that was yielded last.
    pub taken: Option<ToldGeneration>,
    /// That set.
    pub set: Option<Arc<ObjectSet>>,
    /// The home nodes that are connected, the most senior first.
    pub from: Vec<HeardFrom>,
}

impl Heard {
    /// As what a set was told; `None` for one that came from elsewhere.
    pub fn generation_of(&self, set: &Arc<ObjectSet>) -> Option<&ToldGeneration> {
        self.taken.as_ref().filter(|_| self.set.as_ref().is_some_and(|heard| Arc::ptr_eq(heard, set)))
    }
}

/// A home node that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardFrom {
    /// Which it is.
    pub node: NodeName,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// What it told last.
    pub told: Option<ToldGeneration>,
}

/// Hears home. As a source it yields what the most senior home node tells, and then every other thing it tells.
///
/// Each connection is a task of its own, so that none waits for another; the tasks are the listener's and end with it.
/// Everything else happens while somebody waits for [`Source::next`].
pub struct Listener {
    sockets: Vec<TcpListener>,
    accept_at: Instant,
    shared: Arc<Shared>,
    sessions: JoinSet<()>,
    /// Those who have not proved yet who they are.
    unproven: Vec<AbortHandle>,
    said: mpsc::Sender<Said>,
    events: mpsc::Receiver<Said>,
    /// By seniority.
    lines: Vec<Option<Line>>,
    taken: Option<Told>,
    /// Since when nobody who is connected has told anything.
    away: Option<(Instant, i64)>,
    differs_since: Option<Instant>,
    yielded: Option<Arc<ObjectSet>>,
    heard: watch::Sender<Heard>,
}

/// What every connection needs.
struct Shared {
    identity: Identity,
    home: Vec<Peer>,
    facts: watch::Receiver<LocalFacts>,
    refusals: Arc<Refusals>,
}

/// A connection to a home node.
struct Line {
    task: AbortHandle,
    address: SocketAddr,
    since: i64,
    told: Option<Told>,
}

/// What was told.
#[derive(Clone)]
struct Told {
    generation: ToldGeneration,
    digest: Digest,
    set: Arc<ObjectSet>,
}

/// What a connection says to the listener.
struct Said {
    task: Id,
    /// Who it is, by seniority.
    home: usize,
    what: What,
}

enum What {
    Proved(SocketAddr),
    Told(Told),
}

impl Listener {
    /// Listens at the edge's private addresses, which may come later than we do. `home` are the home nodes in the site
    /// file's order; `facts` is what they are told of us.
    pub fn bind(
        addresses: &[SocketAddr],
        identity: Identity,
        home: Vec<Peer>,
        facts: watch::Receiver<LocalFacts>,
    ) -> Result<Self, ListenError> {
        let bind =
            |address: &SocketAddr| socket(*address).map_err(|source| ListenError::Bind { address: *address, source });
        let (said, events) = mpsc::channel(home.len().max(1));
        let (sockets, mut failed) = (addresses.iter().map(bind)).partition::<Vec<_>, _>(Result::is_ok);
        // A family that this machine does not have costs only itself.
        let sockets: Vec<TcpListener> = sockets.into_iter().filter_map(Result::ok).collect();
        if let (true, Some(Err(error))) = (sockets.is_empty(), failed.pop()) {
            return Err(error);
        }
        Ok(Self {
            sockets,
            accept_at: Instant::now(),
            lines: home.iter().map(|_| None).collect(),
            shared: Arc::new(Shared { identity, home, facts, refusals: Arc::default() }),
            sessions: JoinSet::new(),
            unproven: Vec::new(),
            said,
            events,
            taken: None,
            away: Some((Instant::now(), now())),
            differs_since: None,
            yielded: None,
            heard: watch::Sender::default(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// What it has heard, and from whom.
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// How often somebody was refused, and why.
    pub fn refusals(&self) -> Arc<Refusals> {
        self.shared.refusals.clone()
    }

    /// Whoever has not proved who he is counts, whatever he says.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        if self.unproven.len() >= MAX_UNPROVEN {
            self.shared.refusals.add(Refusal::TooMany);
            let [high, low] = VERSION.to_be_bytes();
            // The connection is gone either way.
            let _ = stream.try_write(&[Refusal::TooMany.octet(), high, low]);
            return;
        }
        let (shared, said) = (self.shared.clone(), self.said.clone());
        self.unproven.push(self.sessions.spawn(async move {
            let end = session(stream, address, &shared, &said).await;
            match end {
                // Once is worth a look; whoever tries again and again must not fill the log.
                End::Refused(refusal) if shared.refusals.add(refusal) == 0 => {
                    tracing::warn!(%address, reason = refusal.id(), "a connection for home is refused: {refusal}");
                }
                End::Refused(refusal) => {
                    tracing::debug!(%address, reason = refusal.id(), "a connection for home is refused: {refusal}");
                }
                End::RefusedThere(_) | End::Version(_) | End::Io(_) | End::Closed => {
                    tracing::info!(%address, "a connection for home has ended: {end}");
                }
            }
        }));
    }

    fn note(&mut self, Said { task, home, what }: Said) {
        match what {
            What::Proved(address) => {
                let Some(at) = self.unproven.iter().position(|unproven| unproven.id() == task) else { return };
                let task = self.unproven.swap_remove(at);
                tracing::info!(node = %self.shared.home[home].node, %address, "a home node is connected");
                let line = Line { task, address, since: now(), told: None };
                if let Some(before) = self.lines[home].replace(line) {
                    // It has come again before its former connection was found dead.
                    before.task.abort();
                }
            }
            What::Told(told) => {
                if let Some(line) = self.lines[home].as_mut().filter(|line| line.task.id() == task) {
                    line.told = Some(told);
                }
            }
        }
    }

    fn forget(&mut self, task: Id) {
        self.unproven.retain(|unproven| unproven.id() != task);
        for line in &mut self.lines {
            line.take_if(|line| line.task.id() == task);
        }
    }

    /// What there is to hand on, if it is another thing than before.
    fn settle(&mut self, at: Instant) -> Option<Arc<ObjectSet>> {
        let mut told = self.lines.iter().flatten().filter_map(|line| line.told.as_ref());
        match told.next() {
            Some(senior) => {
                let differs = told.any(|other| other.digest != senior.digest);
                self.differs_since = differs.then(|| self.differs_since.unwrap_or(at));
                self.away = None;
                let is_same = |taken: &Told| (&taken.generation, taken.digest) == (&senior.generation, senior.digest);
                if !self.taken.as_ref().is_some_and(is_same) {
                    tracing::info!(generation = %senior.generation, objects = senior.set.objects.len(), "home has told");
                    self.taken = Some(senior.clone());
                }
            }
            None => {
                self.differs_since = None;
                self.away.get_or_insert_with(|| (at, now()));
            }
        }
        let set = self.taken.clone().and_then(|taken| self.compose(&taken, at));
        self.publish();
        set
    }

    /// The set that was taken, with what is to be said about it.
    fn compose(&mut self, taken: &Told, at: Instant) -> Option<Arc<ObjectSet>> {
        let mut findings = taken.set.findings.clone();
        findings.extend(self.finding(taken, at));
        let is_same = |before: &Arc<ObjectSet>| before.objects == taken.set.objects && before.findings == findings;
        if self.yielded.as_ref().is_some_and(is_same) {
            return None;
        }
        let set = Arc::new(ObjectSet { objects: taken.set.objects.clone(), findings });
        self.yielded = Some(set.clone());
        Some(set)
    }

    fn finding(&self, taken: &Told, at: Instant) -> Option<Finding> {
        let has_passed = |since: Instant| at.duration_since(since) >= PATIENCE;
        if let Some((_, since)) = self.away.filter(|(since, _)| has_passed(*since)) {
            let message =
                format!("home is away since {}; what is served is generation {}", utc(since), taken.generation);
            let help = "look at the tunnel, and at the log of the home nodes: it says why they are not connected";
            return Some(Finding::new(Code::Stale, Place::default(), message).help(help));
        }
        if self.differs_since.is_some_and(has_passed) {
            let names = self.lines.iter().zip(&self.shared.home).filter_map(|(line, peer)| {
                let told = line.as_ref()?.told.as_ref()?;
                (told.digest != taken.digest).then(|| format!("`{}`", peer.node))
            });
            let names: Vec<String> = names.collect();
            let authority = &taken.generation.authority;
            let message = format!("{} tells something else than `{authority}`, whose word counts", names.join(", "));
            let help = "home nodes must read the same cluster, or the same folder";
            return Some(Finding::new(Code::HomeDiffers, Place::default(), message).help(help));
        }
        None
    }

    fn publish(&self) {
        let from = |(line, peer): (&Option<Line>, &Peer)| {
            let Line { address, since, told, .. } = line.as_ref()?;
            let told = told.as_ref().map(|told| told.generation.clone());
            Some(HeardFrom { node: peer.node.clone(), address: *address, since: *since, told })
        };
        let from: Vec<HeardFrom> = self.lines.iter().zip(&self.shared.home).filter_map(from).collect();
        let taken = self.taken.as_ref().map(|taken| taken.generation.clone());
        self.heard.send_if_modified(|heard| {
            let same_set = match (&heard.set, &self.yielded) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let is_same = same_set && heard.taken == taken && heard.from == from;
            if !is_same {
                *heard = Heard { taken, set: self.yielded.clone(), from };
            }
            !is_same
        });
    }

    /// When there will be something to say although nothing happens.
    fn wake_at(&self, at: Instant) -> Option<Instant> {
        let since = self.away.map(|(since, _)| since).into_iter().chain(self.differs_since);
        since.map(|since| since + PATIENCE).filter(|due| *due > at).min()
    }
}

impl Source for Listener {
    type Error = ListenError;

    /// Waits until home has told something, and then until it tells something else.
    async fn next(&mut self) -> Result<Arc<ObjectSet>, ListenError> {
        loop {
            let at = Instant::now();
            if let Some(set) = self.settle(at) {
                return Ok(set);
            }
            let (wake, may_accept) = (self.wake_at(at), self.accept_at <= at);
            tokio::select! {
                biased;
                // The listener holds a sender, so there is always one.
                Some(said) = self.events.recv() => self.note(said),
                Some(ended) = self.sessions.join_next_with_id(), if !self.sessions.is_empty() => match ended {
                    Ok((task, ())) => self.forget(task),
                    Err(error) => self.forget(error.id()),
                },
                accepted = accept(&self.sockets), if may_accept => match accepted {
                    Ok((stream, address)) => self.admit(stream, address),
                    Err(error) => {
                        tracing::warn!(%error, "nobody can be let in for a moment");
                        self.accept_at = Instant::now() + ACCEPT_AGAIN;
                    }
                },
                () = until(Some(self.accept_at)), if !may_accept => {}
                () = until(wake), if wake.is_some() => {}
            }
        }
    }
}

/// One connection, until it ends.
async fn session(stream: TcpStream, address: SocketAddr, shared: &Shared, said: &mpsc::Sender<Said>) -> End {
    if let Err(error) = stream.set_nodelay(true) {
        return error.into();
    }
    let answered = timeout(HANDSHAKE, answer(stream, &shared.identity, &shared.home)).await;
    let (home, session) = match answered {
        Ok(Ok(answered)) => answered,
        Ok(Err(end)) => return end,
        Err(_) => return Refusal::Late.into(),
    };
    let task = tokio::task::id();
    let (mut to, mut from) = (session.to, session.from);
    // Without a listener this task is gone, too.
    let _ = said.send(Said { task, home, what: What::Proved(address) }).await;
    tokio::select! {
        end = hear(&mut from, shared, (task, home), said) => end,
        end = report(&mut to, shared.facts.clone()) => end,
    }
}

/// Hears what home tells.
async fn hear<S: AsyncRead>(
    from: &mut Receiver<S>,
    shared: &Shared,
    (task, home): (Id, usize),
    said: &mpsc::Sender<Said>,
) -> End {
    loop {
        let text = match from.message(MAX_TOLD).await {
            Ok(text) => text,
            Err(end) => return end,
        };
        let told = match read(&text) {
            Some(Message::Ping) => continue,
            Some(Message::Told(told)) => told,
            Some(Message::Facts(_)) | None => return Refusal::Malformed.into(),
        };
        if told.version != VERSION {
            return Refusal::Version.into();
        }
        if told.site != shared.identity.site {
            return Refusal::Site.into();
        }
        // Nobody speaks for another.
        if told.generation.authority != shared.home[home].node {
            return Refusal::UnknownNode.into();
        }
        let set = Arc::new(public::read(&told.objects));
        let what = What::Told(Told { generation: told.generation, digest: told.digest, set });
        let _ = said.send(Said { task, home, what }).await;
    }
}

/// Says how we are when that changes, and that we still are.
async fn report<S: AsyncWrite>(to: &mut Sender<S>, mut known: watch::Receiver<LocalFacts>) -> End {
    loop {
        let said = LocalFacts { now: now(), ..known.borrow_and_update().clone() };
        if let Err(end) = to.send(&facts(said)).await {
            return end;
        }
        match timeout(KEEP_ALIVE, known.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // Nobody says how we are any more; home must still know that we are.
            Ok(Err(_)) => tokio::time::sleep(KEEP_ALIVE).await,
        }
    }
}

/// The address may not be there yet: the tunnel brings it.
fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    match address {
        SocketAddr::V4(_) => set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => set_ipv6_freebind(&socket, true)?,
    }
    socket.bind(address)?;
    socket.listen(MAX_UNPROVEN as u32)
}

/// The first connection at any of the sockets.
async fn accept(sockets: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        for socket in sockets {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
