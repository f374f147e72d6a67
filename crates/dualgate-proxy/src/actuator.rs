//! Makes the data plane equal to its plan.
//!
//! Sockets are opened first; then the plan is swapped in as a whole; then sockets that the plan no longer names are
//! closed. A request sees one plan from its first byte to its last. A socket that cannot be opened is a finding, stays a
//! difference, and so is tried again; the others serve meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::site::EntryProtocol;
use dualgate_core::model::{Digest, ObjectKey};
use dualgate_core::plan::forward::{Forward, ForwardSocket};
use dualgate_core::plan::proxy::{Certificate, Listener, ProxyPlan};
use dualgate_core::route::EntryPointIndex;
use dualgate_core::seam::Actuator;
use foldhash::HashMap;
use foldhash::HashMapExt as _;
use rustls::sign::CertifiedKey;
use tokio::sync::oneshot;

use crate::access::{self, LogSender};
use crate::listener::{self, EntryPointId, ListenError, ListenerState, Presence, Spot};
use crate::metrics::{EntryPointCounters, HistogramSum, describe, quote};
use crate::service;
use crate::state::{Registry, Runtime};
use crate::tls::{CertificateBook, CertificateError, DefaultCertificate, TlsListener, client_config};
use crate::worker::{Command, Common, Purpose, WorkerHandle, start};

/// Why the data plane could not be made as planned.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// TLS could not be set up.
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// There is no default certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A thread could not be started.
    #[error("start a worker: {0}")]
    Worker(io::Error),
    /// The access log cannot be opened.
    #[error("open the access log `{path}`: {error}")]
    AccessLog {
        /// Its path.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// A worker has ended.
    #[error("a worker has ended")]
    WorkerGone,
}

/// One difference between what runs and what is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChange {
    /// A socket is to be opened.
    Listen(Listener),
    /// A socket is to be closed.
    Close(Listener),
    /// A socket for a port of a Service is to be opened.
    Forward(ForwardSocket),
    /// A socket for a port of a Service is to be closed.
    Leave(ForwardSocket),
    /// Routes, backends, certificates or settings change.
    Plan {
        /// How many routes there will be.
        routes: usize,
        /// How many backends.
        backends: usize,
        /// How many certificates.
        certificates: usize,
    },
}

impl ProxyChange {
    /// Whether the node's gates do not serve as planned without it. A Service's socket that cannot be opened is that
    /// Service's concern: whoever may write one must not be able to keep a node from being ready.
    pub fn is_of_gates(&self) -> bool {
        match self {
            Self::Listen(_) | Self::Close(_) | Self::Plan { .. } => true,
            Self::Forward(_) | Self::Leave(_) => false,
        }
    }
}

impl fmt::Display for ProxyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(listener) => write!(f, "+ listen on {} for {}", listener.address, EntryPointId::of(listener)),
            Self::Close(listener) => write!(f, "- listen on {} for {}", listener.address, EntryPointId::of(listener)),
            Self::Forward(socket) => write!(f, "+ forward {socket}"),
            Self::Leave(socket) => write!(f, "- forward {socket}"),
            Self::Plan { routes, backends, certificates } => {
                write!(f, "~ serve {routes} routes to {backends} backends with {certificates} certificates")
            }
        }
    }
}

/// Certificates, and the entry points that they are for.
type Shown = (Arc<[Arc<Certificate>]>, Vec<(EntryPointId, EntryPointIndex)>);

/// The data plane of this process.
#[derive(Debug)]
pub struct Proxy {
    workers: Vec<WorkerHandle>,
    common: Common,
    registry: Registry,
    book: Arc<ArcSwap<CertificateBook>>,
    keys: HashMap<Digest, Arc<CertifiedKey>>,
    default: DefaultCertificate,
    tls: TlsListener,
    /// What each worker counts for each entry point.
    counters: BTreeMap<EntryPointId, Vec<Arc<EntryPointCounters>>>,
    access_log: Option<dualgate_core::model::site::AccessLog>,
    /// The listeners that are open.
    listening: Vec<Listener>,
    /// The sockets of Services that are open.
    forwarding: BTreeSet<ForwardSocket>,
    /// Their sockets, to be handed to a successor.
    sockets: ListeningSockets,
    /// Sockets of a predecessor that no plan has named yet.
    inherited: BTreeMap<Spot, Vec<OwnedFd>>,
    /// The certificates that are shown, and where.
    shown: Shown,
    /// What is wrong with them.
    refused: Vec<Finding>,
    /// What is wrong with what is served.
    findings: Vec<Finding>,
    /// What ran before and still serves requests: nobody but this thread is to take it apart.
    former: Vec<Arc<Runtime>>,
}

impl Proxy {
    /// Starts `workers` threads that serve nothing yet.
    pub fn start(workers: usize) -> Result<Self, ProxyError> {
        let default = DefaultCertificate::make()?;
        let mut registry = Registry::new(Instant::now());
        let plan = Arc::new(ProxyPlan::default());
        let (book, _) = CertificateBook::new(&plan, &default, &mut HashMap::new(), None);
        let book = Arc::new(ArcSwap::from_pointee(book));
        let common = Common {
            runtime: Arc::new(ArcSwap::from_pointee(registry.compile(plan))),
            access_log: Arc::new(ArcSwap::from_pointee(None)),
            client_tls: client_config()?,
            open: Arc::new(AtomicUsize::new(0)),
            workers: workers.max(1),
        };
        let workers = (0..common.workers)
            .map(|index| start(index, common.clone()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(ProxyError::Worker)?;
        Ok(Self {
            workers,
            common,
            registry,
            tls: TlsListener::new(book.clone())?,
            book,
            keys: HashMap::new(),
            default,
            counters: BTreeMap::new(),
            access_log: None,
            listening: Vec::new(),
            forwarding: BTreeSet::new(),
            sockets: ListeningSockets::default(),
            inherited: BTreeMap::new(),
            shown: Default::default(),
            refused: Vec::new(),
            findings: Vec::new(),
            former: Vec::new(),
        })
    }

    /// What is wrong with what is served, such as a certificate that cannot be used.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Uses these sockets of a predecessor for the listeners of the first plan.
    pub fn inherit(&mut self, sockets: Vec<OwnedFd>) {
        for socket in sockets {
            if let Some(spot) = Spot::of(&socket) {
                self.inherited.entry(spot).or_default().push(socket);
            }
        }
    }

    /// The open sockets, as a successor wants them.
    pub fn sockets(&self) -> ListeningSockets {
        self.sockets.clone()
    }

    /// What other threads may look at while the data plane runs.
    pub fn view(&self) -> ProxyView {
        ProxyView {
            runtime: self.common.runtime.clone(),
            workers: self.workers.iter().map(|worker| worker.counters.clone()).collect(),
            open: self.common.open.clone(),
        }
    }

    /// The counters in Prometheus' text form.
    pub fn entry_point_metrics(&self) -> EntryPointMetrics {
        EntryPointMetrics(self.counters.clone())
    }

    /// Closes all sockets and lets connections end; how many are left after `limit`.
    pub async fn drain(&mut self, limit: Duration) -> usize {
        self.sockets.forget_all();
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            if worker.commands.send(Command::Drain(limit, done)).await.is_ok() {
                waiting.push(answer);
            }
        }
        let mut left = 0;
        for answer in waiting {
            left += answer.await.unwrap_or(0);
        }
        left
    }

    fn running(&self) -> Arc<Runtime> {
        self.common.runtime.load_full()
    }

    /// A socket for every worker, or none.
    fn open(&mut self, socket: Socket<'_>) -> Result<Result<Vec<Command>, Finding>, ProxyError> {
        match socket {
            Socket::Gate(listener) => self.open_gate(listener),
            Socket::Service(socket) => {
                let (spot, forward) = (Spot::of_service(socket), Arc::new(socket.forward.clone()));
                let sockets = self.take_sockets(spot, || listener::open(spot, Presence::MayBeAbsent));
                let command = |fd| Command::Listen(fd, Purpose::Service(forward.clone()));
                let sockets = sockets.map_err(|error| forward_finding(socket, &error));
                Ok(sockets.map(|sockets| sockets.into_iter().map(command).collect()))
            }
        }
    }

    fn open_gate(&mut self, listener: &Listener) -> Result<Result<Vec<Command>, Finding>, ProxyError> {
        let id = EntryPointId::of(listener);
        let tls = match listener.protocol {
            EntryProtocol::Http => None,
            EntryProtocol::Https => Some(self.tls.config(id.clone())?),
        };
        let workers = self.workers.len();
        let counters = self
            .counters
            .entry(id.clone())
            .or_insert_with(|| (0..workers).map(|_| Arc::new(EntryPointCounters::default())).collect())
            .clone();
        let sockets = match self.take_sockets(Spot::of_gate(listener), || listener::listen(listener)) {
            Ok(sockets) => sockets,
            Err(error) => return Ok(Err(listen_finding(&error))),
        };
        let command = |(socket, counters): (OwnedFd, &Arc<EntryPointCounters>)| {
            let state = ListenerState { id: id.clone(), tls: tls.clone(), counters: counters.clone() };
            Command::Listen(socket, Purpose::Gate(Arc::new(state)))
        };
        Ok(Ok(sockets.into_iter().zip(counters.iter().cycle()).map(command).collect()))
    }

    /// At least one socket for every worker. A predecessor with more workers leaves more: all are needed, as the kernel
    /// goes on to queue connections in each.
    fn take_sockets<E>(&mut self, spot: Spot, open: impl Fn() -> Result<OwnedFd, E>) -> Result<Vec<OwnedFd>, E> {
        let mut sockets = self.inherited.remove(&spot).unwrap_or_default();
        while sockets.len() < self.workers.len() {
            sockets.push(open()?);
        }
        self.sockets.remember(spot, &sockets);
        Ok(sockets)
    }

    /// Shows the certificates of this plan; what cannot be shown becomes a finding.
    fn show_certificates(&mut self, plan: &ProxyPlan) {
        let at = plan.listeners.iter().map(|listener| (EntryPointId::of(listener), listener.index)).collect();
        if Arc::ptr_eq(&self.shown.0, &plan.certificates) && self.shown.1 == at {
            return;
        }
        let before = self.book.load();
        let (book, refused) = CertificateBook::new(plan, &self.default, &mut self.keys, Some(&before));
        drop(before);
        self.book.store(Arc::new(book));
        self.shown = (plan.certificates.clone(), at);
        self.refused = refused
            .iter()
            .map(|(certificate, error)| {
                let key = ObjectKey { kind: "Secret".into(), name: certificate.secret.clone() };
                Finding::new(Code::SecretInvalid, Place::object(&key), format!("cannot be shown: {error}"))
                    .help("check that tls.crt and tls.key belong together; the default certificate is shown until then")
            })
            .collect();
    }

    async fn close(&mut self, socket: Socket<'_>) -> Result<(), ProxyError> {
        match socket {
            Socket::Gate(listener) => self.listening.retain(|open| !is_same_socket(open, listener)),
            Socket::Service(socket) => drop(self.forwarding.remove(socket)),
        }
        self.sockets.forget(socket.spot());
        for worker in 0..self.workers.len() {
            self.tell(worker, Command::Close(socket.spot())).await?;
        }
        Ok(())
    }

    fn open_access_log(&mut self, plan: &ProxyPlan) -> Result<(), ProxyError> {
        let wanted = &plan.settings.access_log;
        if *wanted == self.access_log {
            return Ok(());
        }
        let sender: Option<LogSender> = match wanted {
            None => None,
            Some(log) => {
                Some(access::open(log).map_err(|error| ProxyError::AccessLog { path: log.path.clone(), error })?)
            }
        };
        self.common.access_log.store(Arc::new(sender));
        self.access_log = wanted.clone();
        Ok(())
    }

    async fn tell(&self, worker: usize, command: Command) -> Result<(), ProxyError> {
        self.workers[worker].commands.send(command).await.map_err(|_| ProxyError::WorkerGone)
    }
}

impl Actuator for Proxy {
    type Plan = ProxyPlan;
    type Change = ProxyChange;
    type Error = ProxyError;

    async fn observe(&mut self) -> Result<ProxyPlan, ProxyError> {
        let running = self.running();
        let open = |forward: &Forward| forward.narrowed(|socket| self.forwarding.contains(&socket));
        Ok(ProxyPlan {
            listeners: self.listening.clone(),
            forwards: running.plan.forwards.iter().filter_map(open).collect(),
            ..(*running.plan).clone()
        })
    }

    fn diff(observed: &ProxyPlan, desired: &ProxyPlan) -> Vec<ProxyChange> {
        let missing =
            |from: &[Listener], listener: &Listener| !from.iter().any(|other| is_same_socket(other, listener));
        let closed = observed.listeners.iter().filter(|listener| missing(&desired.listeners, listener));
        let opened = desired.listeners.iter().filter(|listener| missing(&observed.listeners, listener));
        let mut changes: Vec<ProxyChange> = closed.cloned().map(ProxyChange::Close).collect();
        changes.extend(opened.cloned().map(ProxyChange::Listen));
        let sockets = |plan: &ProxyPlan| plan.forwards.iter().flat_map(Forward::sockets).collect::<BTreeSet<_>>();
        let (open, wanted) = (sockets(observed), sockets(desired));
        changes.extend(open.difference(&wanted).cloned().map(ProxyChange::Leave));
        changes.extend(wanted.difference(&open).cloned().map(ProxyChange::Forward));
        if observed.generation != desired.generation {
            changes.push(ProxyChange::Plan {
                routes: desired.table.len(),
                backends: desired.backends.len(),
                certificates: desired.certificates.len(),
            });
        }
        changes
    }

    async fn apply(&mut self, desired: &Arc<ProxyPlan>, changes: &[ProxyChange]) -> Result<(), ProxyError> {
        self.open_access_log(desired)?;
        let (mut leaving, mut coming) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                ProxyChange::Close(listener) => leaving.push(Socket::Gate(listener)),
                ProxyChange::Listen(listener) => coming.push(Socket::Gate(listener)),
                ProxyChange::Leave(socket) => leaving.push(Socket::Service(socket)),
                ProxyChange::Forward(socket) => coming.push(Socket::Service(socket)),
                ProxyChange::Plan { .. } => {}
            }
        }
        // An address that changes hands must be free before it is taken.
        let taken: BTreeSet<Spot> = coming.iter().map(Socket::spot).collect();
        let (handed, left): (Vec<Socket<'_>>, _) =
            leaving.into_iter().partition(|socket| taken.contains(&socket.spot()));
        for socket in handed {
            self.close(socket).await?;
        }
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for socket in coming {
            match self.open(socket)? {
                Ok(commands) => opened.push((socket, commands)),
                Err(finding) => failed.push(finding),
            }
        }
        self.show_certificates(desired);
        self.findings = self.refused.iter().cloned().chain(failed).collect();
        let runtime = self.registry.compile(desired.clone());
        self.former.push(self.common.runtime.swap(Arc::new(runtime)));
        self.former.retain(|runtime| Arc::strong_count(runtime) > 1);
        for (socket, commands) in opened {
            for (number, command) in commands.into_iter().enumerate() {
                self.tell(number % self.workers.len(), command).await?;
            }
            match socket {
                Socket::Gate(listener) => self.listening.push(listener.clone()),
                Socket::Service(socket) => drop(self.forwarding.insert(socket.clone())),
            }
        }
        for socket in left {
            self.close(socket).await?;
        }
        // What the predecessor served and this plan does not.
        self.inherited.clear();
        Ok(())
    }
}

/// A socket that a change opens or closes.
#[derive(Clone, Copy)]
enum Socket<'a> {
    Gate(&'a Listener),
    Service(&'a ForwardSocket),
}

impl Socket<'_> {
    fn spot(&self) -> Spot {
        match self {
            Self::Gate(listener) => Spot::of_gate(listener),
            Self::Service(socket) => Spot::of_service(socket),
        }
    }
}

fn forward_finding(socket: &ForwardSocket, error: &io::Error) -> Finding {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, perhaps at every address: find it with `ss -lntup`, let it listen at the node's own \
             addresses only, or give the Service another port"
        }
        _ => "it is tried again every few seconds",
    };
    let key = ObjectKey { kind: "Service".into(), name: socket.forward.service.clone() };
    let message = format!("listen on {}/{} for {}: {error}", socket.address, socket.forward.transport, socket.forward);
    Finding::new(Code::ListenerFailed, Place::field(&key, "spec.ports"), message).help(help)
}

fn listen_finding(error: &ListenError) -> Finding {
    let help = match error.error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: find it with `ss -ltnp`, stop it, or give the entry point another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has the address: check the gate's addresses, or whether IPv6 is switched off"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, or the sysctl net.ipv4.ip_unprivileged_port_start"
        }
        _ => "it is tried again every few seconds",
    };
    let field = format!("gates.{}.entryPoints.{}", error.id.gate, error.id.entry_point);
    let place = Place { field, ..Place::default() };
    Finding::new(Code::ListenerFailed, place, error.to_string()).help(help)
}

/// Whether one open socket serves both; everything else of a listener is looked up in the running plan.
fn is_same_socket(one: &Listener, other: &Listener) -> bool {
    one.address == other.address
        && one.protocol == other.protocol
        && one.gate == other.gate
        && one.entry_point == other.entry_point
}

/// The listening sockets of a data plane, for a successor.
#[derive(Clone, Debug, Default)]
pub struct ListeningSockets(Arc<Mutex<BTreeMap<Spot, Vec<OwnedFd>>>>);

impl ListeningSockets {
    /// Copies of all of them.
    pub fn copies(&self) -> Vec<OwnedFd> {
        self.lock().values().flatten().filter_map(|socket| socket.try_clone().ok()).collect()
    }

    fn remember(&self, spot: Spot, sockets: &[OwnedFd]) {
        let copies = sockets.iter().filter_map(|socket| socket.try_clone().ok()).collect();
        self.lock().insert(spot, copies);
    }

    fn forget(&self, spot: Spot) {
        self.lock().remove(&spot);
    }

    fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Spot, Vec<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What other threads may look at while the data plane runs.
#[derive(Clone, Debug)]
pub struct ProxyView {
    runtime: Arc<ArcSwap<Runtime>>,
    workers: Vec<Arc<crate::metrics::WorkerCounters>>,
    open: Arc<AtomicUsize>,
}

impl ProxyView {
    /// The plan that is served.
    pub fn plan(&self) -> Arc<ProxyPlan> {
        self.runtime.load().plan.clone()
    }

    /// System calls so far: reads, writes, and calls answered with EAGAIN.
    pub fn system_calls(&self) -> (u64, u64, u64) {
        self.workers.iter().fold((0, 0, 0), |(reads, writes, blocked), worker| {
            (reads + worker.io.reads.get(), writes + worker.io.writes.get(), blocked + worker.io.would_block.get())
        })
    }

    /// Open connections.
    pub fn open_connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The counters of workers and backends in Prometheus' text form.
    pub fn write_metrics(&self, out: &mut String) {
        let (reads, writes, blocked) = self.system_calls();
        describe("dualgate_proxy_io_calls_total", "counter", "System calls on connections.", out);
        for (call, count) in [("read", reads), ("write", writes), ("would_block", blocked)] {
            let _ = writeln!(out, "dualgate_proxy_io_calls_total{{call=\"{call}\"}} {count}");
        }
        describe("dualgate_proxy_panics_total", "counter", "Connections ended by a fault in dualgate.", out);
        let panics: u64 = self.workers.iter().map(|worker| worker.panics.get()).sum();
        let _ = writeln!(out, "dualgate_proxy_panics_total {panics}");
        describe("dualgate_access_log_lost_lines_total", "counter", "Lines that the access log lost.", out);
        let lost: u64 = self.workers.iter().map(|worker| worker.log_lost.get()).sum();
        let _ = writeln!(out, "dualgate_access_log_lost_lines_total {lost}");
        let runtime = self.runtime.load();
        describe("dualgate_backend_requests_total", "counter", "Requests by backend and class of status.", out);
        self.for_each_backend(&runtime, |backend, counters| {
            for (class, count) in counters.requests.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let (class, count) = (class + 1, count.get());
                let _ = writeln!(
                    out,
                    "dualgate_backend_requests_total{{backend=\"{backend}\",status=\"{class}xx\"}} {count}"
                );
            }
        });
        describe("dualgate_backend_connect_failures_total", "counter", "Connections that could not be opened.", out);
        self.for_each_backend(&runtime, |backend, counters| {
            let count = counters.connect_failures.get();
            let _ = writeln!(out, "dualgate_backend_connect_failures_total{{backend=\"{backend}\"}} {count}");
        });
        describe("dualgate_backend_retries_total", "counter", "Requests that were sent once more.", out);
        self.for_each_backend(&runtime, |backend, counters| {
            let count = counters.retries.get();
            let _ = writeln!(out, "dualgate_backend_retries_total{{backend=\"{backend}\"}} {count}");
        });
        service::metrics::write(&runtime, out);
    }

    fn for_each_backend(&self, runtime: &Runtime, mut visit: impl FnMut(&str, &crate::metrics::BackendCounters)) {
        for backend in runtime.backends() {
            visit(&quote(&backend.backend.id.to_string()), &backend.shared.counters);
        }
    }
}

/// The counters of entry points.
#[derive(Clone, Debug)]
pub struct EntryPointMetrics(BTreeMap<EntryPointId, Vec<Arc<EntryPointCounters>>>);

impl EntryPointMetrics {
    /// In Prometheus' text form.
    pub fn write(&self, out: &mut String) {
        type Read = fn(&EntryPointCounters) -> u64;
        let plain: [(&str, &str, &str, Read); 6] = [
            ("dualgate_connections_accepted_total", "counter", "Connections accepted.", |c| c.accepted.get()),
            ("dualgate_connections_open", "gauge", "Connections open.", |c| c.open.get()),
            ("dualgate_connections_refused_total", "counter", "Connections ended before a request.", |c| {
                c.refused.get()
            }),
            ("dualgate_requests_aborted_total", "counter", "Requests whose answer was broken off.", |c| {
                c.aborted.get()
            }),
            ("dualgate_request_body_bytes_total", "counter", "Octets of requests' bodies.", |c| c.bytes_in.get()),
            ("dualgate_response_body_bytes_total", "counter", "Octets of answers' bodies.", |c| c.bytes_out.get()),
        ];
        for (name, kind, help, read) in plain {
            describe(name, kind, help, out);
            for (id, counters) in &self.0 {
                let sum: u64 = counters.iter().map(|counters| read(counters)).sum();
                let _ = writeln!(out, "{name}{{{}}} {sum}", labels(id));
            }
        }
        describe("dualgate_requests_total", "counter", "Requests by class of status.", out);
        for (id, counters) in &self.0 {
            for class in 0..5 {
                let sum: u64 = counters.iter().map(|counters| counters.requests[class].get()).sum();
                let _ = writeln!(out, "dualgate_requests_total{{{},status=\"{}xx\"}} {sum}", labels(id), class + 1);
            }
        }
        describe("dualgate_request_duration_seconds", "histogram", "From a request's head to its answer's end.", out);
        for (id, counters) in &self.0 {
            let mut sum = HistogramSum::default();
            counters.iter().for_each(|counters| sum.add(&counters.duration));
            sum.write("dualgate_request_duration_seconds", &labels(id), out);
        }
    }
}

fn labels(id: &EntryPointId) -> String {
    format!("gate=\"{}\",entry_point=\"{}\"", id.gate, quote(id.entry_point.as_str()))
}
