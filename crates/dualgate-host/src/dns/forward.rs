//! Questions to other resolvers: does what `core::machine::resolver` says.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualgate_core::machine::dns::{Question, Responder};
use dualgate_core::machine::resolver::{Action, AttemptId, Carrier, Counts, OPEN, Resolver};
use dualgate_core::plan::dns::{Upstream, UpstreamProtocol};
use rustix::net::{SendFlags, sendto};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::encrypted::{Connections, Trust};
use super::{Waiting, Way, tcp};

/// How many octets of answers are kept.
const CACHE: usize = 16 << 20;
/// What came of attempts, and was not yet looked at.
const EVENTS: usize = 1024;
/// How many open questions one address may have: a quarter of all.
const SHARE: usize = OPEN / 4;
/// Larger than any datagram that we ask for.
const SPACE: usize = 4096;

/// How it is, for whoever shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// What has happened.
    pub counts: Counts,
    /// How many answers are kept.
    pub answers: usize,
    /// How many octets they take.
    pub octets: usize,
    /// Upstreams that do not answer.
    pub away: Vec<Arc<Upstream>>,
}

/// What came of an attempt.
pub(super) enum Event {
    /// A message.
    Arrived {
        /// Of which attempt.
        attempt: AttemptId,
        /// What came.
        message: Vec<u8>,
        /// For how many seconds somebody on the way has kept it.
        age: u32,
    },
    /// Nothing more comes.
    Failed(AttemptId),
}

/// What is ours, whom to ask for the rest, and whom of them to believe.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What is ours, and whom to ask for the rest.
    pub responder: Arc<Responder>,
    /// Whom to believe; nothing where nobody is spoken to encrypted.
    pub trust: Option<Arc<Trust>>,
}

/// Forwards for as long as it is not aborted.
pub(super) async fn forward(
    mut questions: mpsc::Receiver<(Question, Waiting)>,
    mut known: watch::Receiver<Arc<Known>>,
    told: Arc<Mutex<Forwarding>>,
) {
    let started = Instant::now();
    let mut resolver = Resolver::new(CACHE, Box::new(random));
    let (happened, mut events) = mpsc::channel(EVENTS);
    let mut connections = Connections::new(happened.clone());
    // What is known at the start is a change, too.
    known.mark_changed();
    let mut attempts: BTreeMap<AttemptId, AbortHandle> = BTreeMap::new();
    let mut shares = Shares::default();
    loop {
        let due = resolver.due().map(|due| started + due);
        tokio::select! {
            asked = questions.recv() => match asked {
                Some((question, asker)) => {
                    // Whoever is handed on by what is answered now is helped by whom to ask now.
                    if known.has_changed().is_ok_and(|changed| changed) {
                        follow(&mut known, &mut resolver, &mut connections);
                    }
                    if shares.take(asker.from.ip()) {
                        resolver.ask(question, asker, started.elapsed());
                    } else {
                        resolver.turn_away(question, asker, started.elapsed());
                    }
                }
                None => return,
            },
            Some(event) = events.recv() => match event {
                Event::Arrived { attempt, message, age } => resolver.arrived(attempt, &message, age, started.elapsed()),
                Event::Failed(attempt) => resolver.failed(attempt, started.elapsed()),
            },
            Ok(()) = known.changed() => follow(&mut known, &mut resolver, &mut connections),
            () = until(due) => resolver.pass(started.elapsed()),
        }
        while let Some(action) = resolver.action() {
            match action {
                Action::Send { attempt, to, message, .. } if to.protocol != UpstreamProtocol::Plain => {
                    if !connections.ask(attempt, &to, message) {
                        resolver.failed(attempt, started.elapsed());
                    }
                }
                Action::Send { attempt, to, over, message } => {
                    let task = tokio::task::spawn_local(ask(attempt, to, over, message, happened.clone()));
                    attempts.insert(attempt, task.abort_handle());
                }
                Action::Forget(attempt) => {
                    if let Some(task) = attempts.remove(&attempt) {
                        task.abort();
                    }
                }
                Action::Answer { asker, message } => {
                    shares.give_back(asker.from.ip());
                    tell(asker, message);
                }
            }
        }
        let (answers, octets) = resolver.kept();
        *told.lock().unwrap_or_else(PoisonError::into_inner) =
            Forwarding { counts: resolver.counts(), answers, octets, away: resolver.away() };
    }
}

/// How many questions of each asker are open: one that asks without end takes no other one's answers.
#[derive(Default)]
struct Shares(BTreeMap<IpAddr, usize>);

impl Shares {
    /// One more, which is given back with its answer; whether that is within an asker's share.
    fn take(&mut self, from: IpAddr) -> bool {
        let open = self.0.entry(from).or_default();
        *open += 1;
        *open <= SHARE
    }

    fn give_back(&mut self, from: IpAddr) {
        if let Some(open) = self.0.get_mut(&from) {
            *open -= 1;
            if *open == 0 {
                self.0.remove(&from);
            }
        }
    }
}

fn follow(known: &mut watch::Receiver<Arc<Known>>, resolver: &mut Resolver<Waiting>, connections: &mut Connections) {
    let known = known.borrow_and_update().clone();
    resolver.follow(known.responder.clone());
    connections.follow(known.responder.resolver().all().cloned().collect(), known.trust.clone());
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn tell(asker: Waiting, message: Vec<u8>) {
    match asker.way {
        // What finds no room is lost, as datagrams are.
        Way::Udp(socket) => drop(sendto(socket.as_fd(), &message, SendFlags::DONTWAIT, &asker.from)),
        // There is room for as many as may wait; whoever has gone needs no answer.
        Way::Tcp(answers, permit) => drop(answers.try_send((message, permit))),
    }
}

/// One attempt, in a socket of its own: the kernel gives it a port that nobody can foresee.
async fn ask(attempt: AttemptId, to: Arc<Upstream>, over: Carrier, message: Vec<u8>, happened: mpsc::Sender<Event>) {
    let asked = match over {
        Carrier::Udp => by_udp(attempt, to.address, &message, &happened).await,
        Carrier::Connection => by_tcp(attempt, to.address, &message, &happened).await,
    };
    if let Err(error) = asked {
        tracing::debug!(%error, upstream = %to, "an upstream of the DNS cannot be asked");
        let _ = happened.send(Event::Failed(attempt)).await;
    }
}

async fn by_udp(attempt: AttemptId, to: SocketAddr, message: &[u8], happened: &mpsc::Sender<Event>) -> io::Result<()> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // From then on the kernel hands over what comes from there, and nothing else.
    socket.connect(to).await?;
    socket.send(message).await?;
    let mut space = [0; SPACE];
    // Forged answers may come before the right one; the machine says when it is enough.
    loop {
        let length = socket.recv(&mut space).await?;
        if happened.send(Event::Arrived { attempt, message: space[..length].to_vec(), age: 0 }).await.is_err() {
            return Ok(());
        }
    }
}

async fn by_tcp(attempt: AttemptId, to: SocketAddr, message: &[u8], happened: &mpsc::Sender<Event>) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let framed = tcp::framed(message).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&framed).await?;
    let answer = tcp::message(&mut stream).await?;
    let _ = happened.send(Event::Arrived { attempt, message: answer, age: 0 }).await;
    Ok(())
}

/// From the system's generator: numbers and letters of questions must not be guessed.
fn random() -> Option<u64> {
    let mut octets = [0; 8];
    match aws_lc_rs::rand::fill(&mut octets) {
        Ok(()) => Some(u64::from_ne_bytes(octets)),
        Err(_) => {
            tracing::error!("the system has no random numbers: no other resolver is asked");
            None
        }
    }
}

/// Nothing waits longer: questions that find no place are lost.
pub(super) const WAITING: usize = 1024;

/// How long the cookies' secret is used.
pub(super) const SECRET: Duration = Duration::from_secs(3600);
