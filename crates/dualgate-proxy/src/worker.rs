//! One core's share of the data plane: a thread with a runtime of its own, its sockets, its connections.
//!
//! Workers share nothing but the running plan and counters. Each accepts from its own sockets; the kernel spreads
//! connections over them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dualgate_core::plan::forward::{ForwardId, Transport};
use dualgate_http::ResponseHead;
use foldhash::HashMap;
use foldhash::HashMapExt as _;
use rustls::ClientConfig;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::access::LogSender;
use crate::connection;
use crate::io::IoShared;
use crate::listener::{ListenerState, Spot};
use crate::metrics::WorkerCounters;
use crate::service::metrics::Refused;
use crate::service::udp::Space;
use crate::service::{self, Flows};
use crate::state::Runtime;
use crate::upstream::{Connector, Pool};

/// How often kept connections are looked through, while there are any.
const SWEEP: Duration = Duration::from_secs(5);
/// How long accepting rests when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// How long a draining worker leaves idle connections open.
const IDLE_PATIENCE: Duration = Duration::from_secs(4);
/// How long connections have to notice that they are cut.
const CUT: Duration = Duration::from_millis(10);
/// Spare memory for requests that a worker keeps.
const KEPT_SCRATCHES: usize = 64;

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Common {
    /// The running plan.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// The access log.
    pub access_log: Arc<ArcSwap<Option<LogSender>>>,
    /// For servers that speak TLS.
    pub client_tls: Arc<ClientConfig>,
    /// Open connections over all workers.
    pub open: Arc<AtomicUsize>,
    /// How many workers there are.
    pub workers: usize,
}

/// What a socket is open for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// An entry point of a gate.
    Gate(Arc<ListenerState>),
    /// A port of a Service.
    Service(Arc<ForwardId>),
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept or receive from this socket.
    Listen(OwnedFd, Purpose),
    /// No longer accept or receive there.
    Close(Spot),
    /// Let connections end; answers when all have, or at the deadline.
    Drain(Duration, oneshot::Sender<usize>),
}

/// One worker, as its connections see it.
#[derive(Debug)]
pub struct Worker {
    /// Connections to servers.
    pub pool: Pool,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    common: Common,
    connector: Connector,
    flows: Flows,
    datagrams: Space,
    io: Rc<IoShared>,
    scratches: RefCell<Vec<Scratch>>,
    drain: Drain,
    open: Cell<usize>,
}

/// Memory for one request on its way to a server.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What is sent.
    pub request: Vec<u8>,
    /// Where the answer's parts are.
    pub answer: ResponseHead,
}

impl Worker {
    /// The running plan.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.common.runtime.load_full()
    }

    /// What its connections share.
    pub fn io(&self) -> &Rc<IoShared> {
        &self.io
    }

    /// Opens connections to servers.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Its flows of datagrams.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Space for one datagram.
    pub fn datagrams(&self) -> &Space {
        &self.datagrams
    }

    /// How many workers there are, at least one.
    pub fn workers(&self) -> usize {
        self.common.workers.max(1)
    }

    /// The access log, if there is one.
    pub fn access_log(&self) -> Option<LogSender> {
        Option::clone(&self.common.access_log.load())
    }

    /// Whether connections should end when their next answer is complete.
    pub fn is_draining(&self) -> bool {
        self.drain.stage.get() != Stage::Off
    }

    /// Whether connections should end though nothing was answered.
    pub fn closes_idle(&self) -> bool {
        self.drain.stage.get() >= Stage::Idle
    }

    /// Returns when the time to drain is over; until then `slot` is to be kept.
    pub async fn cut(&self, slot: &DrainSlot) {
        poll_fn(|cx| {
            if self.drain.stage.get() == Stage::Cut {
                return Poll::Ready(());
            }
            slot.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// A place among those that are woken when connections should end.
    pub fn drain_slot(self: &Rc<Self>) -> DrainSlot {
        DrainSlot { index: self.drain.take(), worker: self.clone() }
    }

    /// Memory for one request.
    pub fn scratch(&self) -> Scratch {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps that memory for the next one.
    pub fn put_back(&self, mut scratch: Scratch) {
        let mut scratches = self.scratches.borrow_mut();
        if scratches.len() < KEPT_SCRATCHES && scratch.request.capacity() <= 64 * 1024 {
            scratch.request.clear();
            scratches.push(scratch);
        }
    }
}

/// How far draining has come.
///
/// An idle connection is not closed at once: its client may be sending a request at this very moment, which would be
/// lost. It is told to close with the next answer, and only who stays silent is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Off,
    /// Answers say that they are the last.
    Answers,
    /// Idle connections are closed, too.
    Idle,
    /// The process is about to end, and connections with it.
    Cut,
}

/// Who is woken when connections should end.
#[derive(Debug, Default)]
struct Drain {
    stage: Cell<Stage>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Drain {
    fn take(&self) -> usize {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.wakers.borrow_mut().push(None);
            self.wakers.borrow().len() - 1
        })
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        let wakers: Vec<Waker> = self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A connection's place among those that are woken when connections should end.
#[derive(Debug)]
pub struct DrainSlot {
    worker: Rc<Worker>,
    index: usize,
}

impl DrainSlot {
    /// Wakes this task then.
    pub fn wait(&self, cx: &mut Context<'_>) {
        let mut wakers = self.worker.drain.wakers.borrow_mut();
        match &mut wakers[self.index] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty @ None => *empty = Some(cx.waker().clone()),
        }
    }
}

impl Drop for DrainSlot {
    fn drop(&mut self) {
        self.worker.drain.wakers.borrow_mut()[self.index] = None;
        self.worker.drain.free.borrow_mut().push(self.index);
    }
}

/// A worker, as the actuator sees it.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Where it is told.
    pub commands: mpsc::Sender<Command>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
}

/// Starts a worker.
pub fn start(index: usize, common: Common) -> io::Result<WorkerHandle> {
    let (commands, inbox) = mpsc::channel(64);
    let counters = Arc::new(WorkerCounters::default());
    let counted = counters.clone();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    // It ends when `commands` is dropped. A runtime of this kind stays on the thread that made it.
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let built = Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default());
        match built {
            Ok(runtime) => {
                drop(tell.send(Ok(())));
                runtime.block_on(run(common, counted, inbox));
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
    Ok(WorkerHandle { commands, counters })
}

async fn run(common: Common, counters: Arc<WorkerCounters>, mut inbox: mpsc::Receiver<Command>) {
    let io = Rc::new(IoShared { counters: counters.io.clone(), ..IoShared::default() });
    let connector = Connector { shared: io.clone(), tls: common.client_tls.clone() };
    let worker = Rc::new(Worker {
        pool: Pool::new(connector.clone()),
        counters,
        common,
        connector,
        flows: Flows::default(),
        datagrams: Space::default(),
        io,
        scratches: RefCell::default(),
        drain: Drain::default(),
        open: Cell::new(0),
    });
    let sweeper = tokio::task::spawn_local(sweep(worker.clone()));
    let mut listening: HashMap<Spot, Vec<AbortHandle>> = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Listen(socket, purpose) => match listen(&worker, socket, purpose) {
                Ok((spot, task)) => listening.entry(spot).or_default().push(task),
                Err(error) => tracing::error!(%error, "a worker cannot use its socket"),
            },
            Command::Close(spot) => {
                listening.remove(&spot).into_iter().flatten().for_each(|task| task.abort());
                match spot.transport {
                    Transport::Tcp => {}
                    // Their answers would keep the socket open, and with it a share of the address's datagrams.
                    Transport::Udp => worker.flows.end_at(spot.address),
                }
            }
            Command::Drain(limit, done) => {
                listening.drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
                let patience = IDLE_PATIENCE.min(limit / 2);
                worker.drain.enter(Stage::Answers);
                wait_until_empty(&worker, patience).await;
                worker.drain.enter(Stage::Idle);
                let left = wait_until_empty(&worker, limit - patience).await;
                // Whose end could be taken for that of what it carries is reset, not closed.
                worker.drain.enter(Stage::Cut);
                wait_until_empty(&worker, CUT).await;
                // Whoever asked may have given up waiting.
                let _ = done.send(left);
            }
        }
    }
    sweeper.abort();
}

fn listen(worker: &Rc<Worker>, socket: OwnedFd, purpose: Purpose) -> io::Result<(Spot, AbortHandle)> {
    let spot = Spot::of(&socket).ok_or(io::ErrorKind::InvalidInput)?;
    let task = match (purpose, spot.transport) {
        (Purpose::Service(forward), Transport::Udp) => {
            let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
            tokio::task::spawn_local(service::udp::serve(worker.clone(), forward, socket))
        }
        (purpose, Transport::Tcp) => {
            let socket = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
            tokio::task::spawn_local(accept(worker.clone(), socket, purpose))
        }
        (Purpose::Gate(_), Transport::Udp) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok((spot, task.abort_handle()))
}

async fn accept(worker: Rc<Worker>, socket: tokio::net::TcpListener, purpose: Purpose) {
    loop {
        match socket.accept().await {
            Ok((tcp, address)) => {
                let guard = OpenConnection::new(&worker);
                if worker.common.open.load(Relaxed) > worker.runtime().plan.settings.max_connections {
                    refuse(&worker, &purpose, &tcp);
                    continue;
                }
                let (worker, purpose) = (worker.clone(), purpose.clone());
                tokio::task::spawn_local(async move {
                    let guard = guard;
                    match purpose {
                        Purpose::Gate(listener) => connection::serve(worker, listener, tcp, address).await,
                        Purpose::Service(forward) => service::tcp::serve(worker, &forward, tcp, address).await,
                    }
                    drop(guard);
                });
            }
            Err(error) => {
                tracing::debug!(%error, ?purpose, "accept");
                if !is_of_one_connection(&error) {
                    // Mostly, file descriptors ran out: soon there may be some again.
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

/// There are as many connections as there may be.
fn refuse(worker: &Worker, purpose: &Purpose, tcp: &tokio::net::TcpStream) {
    match purpose {
        Purpose::Gate(listener) => listener.counters.refused.increment(),
        Purpose::Service(forward) => {
            // A client that reads an end takes it for one.
            let _ = tcp.set_zero_linger();
            if let Some(forward) = worker.runtime().forward(forward) {
                forward.shared.counters.refuse(Refused::Limit);
            }
        }
    }
}

/// Whether accepting failed because of the client that would have been accepted: the next may be waiting already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Counts a connection for as long as it is open, and a panic that ends it.
#[derive(Debug)]
struct OpenConnection(Rc<Worker>);

impl OpenConnection {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.common.open.fetch_add(1, Relaxed);
        Self(worker.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.common.open.fetch_sub(1, Relaxed);
        if std::thread::panicking() {
            self.0.counters.panics.increment();
        }
    }
}

/// Waits until no connection is open and no datagram waits for its answer; how many connections are left at the deadline.
async fn wait_until_empty(worker: &Rc<Worker>, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    let is_busy = || worker.open.get() > 0 || worker.flows.await_answers();
    while is_busy() && Instant::now() < deadline {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    worker.open.get()
}

/// Looks through the kept connections. The pauses are the same whether there is something to do or not: a timer every
/// few seconds is no load.
async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.pool.sweep(Instant::now());
    }
}
