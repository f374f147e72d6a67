//! One core's share of the data plane: a thread with a runtime of its own, its sockets, its connections.
//!
//! Workers share nothing but the running plan and counters. Each accepts from its own sockets; the kernel spreads
//! connections over them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dualgate_http::ResponseHead;
use foldhash::HashMap;
use foldhash::HashMapExt as _;
use rustls::ClientConfig;
use std::net::SocketAddr;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::access::LogSender;
use crate::connection;
use crate::io::IoShared;
use crate::listener::ListenerState;
use crate::metrics::WorkerCounters;
use crate::state::Runtime;
use crate::upstream::{Connector, Pool};

/// How often kept connections are looked through, while there are any.
const SWEEP: Duration = Duration::from_secs(5);
/// How long accepting rests when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// How long a draining worker leaves idle connections open.
const IDLE_PATIENCE: Duration = Duration::from_secs(4);
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
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept from this socket.
    Listen(TcpListener, Arc<ListenerState>),
    /// No longer accept at this address.
    Close(SocketAddr),
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
        self.drain.stage.get() == Stage::Idle
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Off,
    /// Answers say that they are the last.
    Answers,
    /// Idle connections are closed, too.
    Idle,
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
    let worker = Rc::new(Worker {
        pool: Pool::new(Connector { shared: io.clone(), tls: common.client_tls.clone() }),
        counters,
        common,
        io,
        scratches: RefCell::default(),
        drain: Drain::default(),
        open: Cell::new(0),
    });
    let sweeper = tokio::task::spawn_local(sweep(worker.clone()));
    let mut listening: HashMap<SocketAddr, Vec<AbortHandle>> = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Listen(socket, listener) => match listen(&worker, socket, listener) {
                Ok((address, task)) => listening.entry(address).or_default().push(task),
                Err(error) => tracing::error!(%error, "a worker cannot use its socket"),
            },
            Command::Close(address) => {
                listening.remove(&address).into_iter().flatten().for_each(|task| task.abort());
            }
            Command::Drain(limit, done) => {
                listening.drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
                let patience = IDLE_PATIENCE.min(limit / 2);
                worker.drain.enter(Stage::Answers);
                wait_until_empty(&worker, patience).await;
                worker.drain.enter(Stage::Idle);
                let left = wait_until_empty(&worker, limit - patience).await;
                // Whoever asked may have given up waiting.
                let _ = done.send(left);
            }
        }
    }
    sweeper.abort();
}

fn listen(
    worker: &Rc<Worker>,
    socket: TcpListener,
    listener: Arc<ListenerState>,
) -> io::Result<(SocketAddr, AbortHandle)> {
    let address = socket.local_addr()?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let task = tokio::task::spawn_local(accept(worker.clone(), socket, listener));
    Ok((address, task.abort_handle()))
}

async fn accept(worker: Rc<Worker>, socket: tokio::net::TcpListener, listener: Arc<ListenerState>) {
    loop {
        match socket.accept().await {
            Ok((tcp, address)) => {
                let guard = OpenConnection::new(&worker);
                if worker.common.open.load(Relaxed) > worker.runtime().plan.settings.max_connections {
                    listener.counters.refused.increment();
                    continue;
                }
                let (worker, listener) = (worker.clone(), listener.clone());
                tokio::task::spawn_local(async move {
                    let guard = guard;
                    connection::serve(worker, listener, tcp, address).await;
                    drop(guard);
                });
            }
            Err(error) => {
                tracing::debug!(%error, entry_point = %listener.id, "accept");
                if !is_of_one_connection(&error) {
                    // Mostly, file descriptors ran out: soon there may be some again.
                    tokio::time::sleep(EXHAUSTED).await;
                }
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

/// Waits until no connection is open; how many are left at the deadline.
async fn wait_until_empty(worker: &Rc<Worker>, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while worker.open.get() > 0 && Instant::now() < deadline {
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
