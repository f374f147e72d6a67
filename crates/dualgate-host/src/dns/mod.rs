//! The DNS of this host: questions come in by UDP and TCP, and are answered as planned.
//!
//! ```text
//! UDP: a thread a core ─┐                                         ┌─> answer, by the same socket
//!                       ├─> core::machine::dns::Responder (shared) ┤
//! TCP: one thread ──────┘                                         └─> core::machine::resolver ─> upstreams
//! ```
//!
//! Sockets are opened first, then what is answered is swapped in as a whole, then what is planned no more is closed. A socket
//! that cannot be opened is a finding and tried again. Another process may listen at the same addresses: a successor that
//! takes over.

mod batch;
mod counters;
mod encrypted;
mod forward;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use dualgate_core::machine::dns::{Question, Responder};
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::plan::dns::{DnsPlan, UpstreamProtocol};
use dualgate_wire::dns::cookie::CookieSecret;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use counters::Counters;
pub use counters::Sums;
use encrypted::Trust;
pub use forward::Forwarding;
use forward::Known;
use tcp::{Connections, Told};
use udp::UdpThread;

/// How many octets of questions the kernel keeps until they are received: bursts wait here.
const RECEIVED: usize = 1 << 20;
/// How many connections it keeps until they are accepted.
const BACKLOG: i32 = 256;

/// The DNS of one node.
#[derive(Debug)]
pub struct Dns {
    /// How many threads answer by UDP.
    threads: usize,
    plan: Arc<DnsPlan>,
    /// What the running responder was made from.
    answered: Option<Arc<DnsPlan>>,
    /// Before what runs, so that at the end each thread is the last to hold its sockets, and closes them emptied.
    open: BTreeMap<SocketAddr, Open>,
    running: Option<Running>,
    /// Whom of the resolvers to believe, and why nobody.
    trust: Option<Arc<Trust>>,
    distrust: Option<String>,
    findings: Vec<Finding>,
    told: Arc<Mutex<Seen>>,
}

/// The sockets at one address.
#[derive(Debug)]
struct Open {
    /// One for each thread.
    udp: Vec<Arc<UdpSocket>>,
    tcp: Arc<TcpListener>,
}

type Listeners = BTreeMap<SocketAddr, Arc<TcpListener>>;

/// What runs once there is something to answer.
#[derive(Debug)]
struct Running {
    threads: Vec<UdpThread>,
    common: Arc<Common>,
    /// What is answered, for whoever asks others.
    known: watch::Sender<Arc<Known>>,
    /// What is accepted at; the thread ends with it.
    listeners: Option<watch::Sender<Listeners>>,
    thread: Option<JoinHandle<()>>,
}

/// What all threads share.
#[derive(Debug)]
struct Common {
    responder: ArcSwap<Responder>,
    secret: ArcSwap<CookieSecret>,
    rates: udp::Rates,
    questions: mpsc::Sender<(Question, Waiting)>,
}

/// Who waits for an answer of another resolver.
#[derive(Debug)]
struct Waiting {
    from: SocketAddr,
    way: Way,
}

/// How an answer gets back.
#[derive(Debug)]
enum Way {
    Udp(Arc<UdpSocket>),
    Tcp(mpsc::Sender<Told>, OwnedSemaphorePermit),
}

/// What others may look at.
#[derive(Debug, Default)]
struct Seen {
    counters: Vec<Arc<Counters>>,
    forwarding: Arc<Mutex<Forwarding>>,
    plan: Arc<DnsPlan>,
    listening: Vec<SocketAddr>,
}

impl Dns {
    /// Answers nothing yet; with so many threads for UDP once it does.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            plan: Arc::default(),
            answered: None,
            open: BTreeMap::new(),
            running: None,
            trust: None,
            distrust: None,
            findings: Vec::new(),
            told: Arc::default(),
        }
    }

    /// What is to be from now on, once [`Dns::converge`] is called.
    pub fn plan(&mut self, plan: DnsPlan) {
        if plan != *self.plan {
            self.plan = Arc::new(plan);
        }
    }

    /// What is planned.
    pub fn planned(&self) -> &DnsPlan {
        &self.plan
    }

    /// Where it listens.
    pub fn listening(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.keys().copied()
    }

    /// What of the plan cannot be had.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// A handle that tells how it is, for whoever shows it.
    pub fn view(&self) -> View {
        View(self.told.clone())
    }

    /// Makes it as planned, as far as that is possible.
    pub fn converge(&mut self) {
        self.findings.clear();
        if self.plan.listen.is_empty() && self.running.is_none() {
            return;
        }
        if let Err(error) = self.run() {
            let message = format!("the DNS cannot be started: {error}");
            let finding = Finding::new(Code::ListenerFailed, Place::default(), message);
            return self.findings.push(finding.help("free memory or descriptors; it is tried again"));
        }
        let mut changed = false;
        for address in &self.plan.listen {
            if self.open.contains_key(address) {
                continue;
            }
            match open(*address, self.threads) {
                Ok((udp, tcp)) => {
                    tracing::info!(%address, "DNS is answered");
                    self.open.insert(*address, Open { udp, tcp: Arc::new(tcp) });
                    changed = true;
                }
                Err(error) => {
                    let message = format!("listen on {address} for DNS: {error}");
                    let finding = Finding::new(Code::ListenerFailed, Place::default(), message);
                    let help = "another DNS server may listen there, or at every address: stop it, or have it listen elsewhere";
                    self.findings.push(finding.help(help));
                }
            }
        }
        let believed = self.trust.is_some();
        self.believe();
        let is_trust_another = believed != self.trust.is_some();
        let Some(running) = &self.running else { return };
        let is_planned = |address: &SocketAddr| self.plan.listen.contains(address);
        let gone: Vec<SocketAddr> = self.open.keys().copied().filter(|address| !is_planned(address)).collect();
        if is_trust_another || self.answered.as_ref().is_none_or(|answered| !Arc::ptr_eq(answered, &self.plan)) {
            let responder = Arc::new(running.common.responder.load().followed_by(&self.plan));
            let known = Known { responder: responder.clone(), trust: self.trust.clone() };
            running.known.send_replace(Arc::new(known));
            running.common.responder.store(responder);
            self.answered = Some(self.plan.clone());
        }
        for address in gone {
            tracing::info!(%address, "DNS is answered no more");
            self.open.remove(&address);
            changed = true;
        }
        if changed {
            for (number, thread) in running.threads.iter().enumerate() {
                thread.hear(self.open.values().filter_map(|open| open.udp.get(number).cloned()).collect());
            }
            let listeners = self.open.iter().map(|(address, open)| (*address, open.tcp.clone())).collect();
            running.listeners.iter().for_each(|sender| drop(sender.send_replace(Clone::clone(&listeners))));
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.plan, told.listening) = (self.plan.clone(), self.open.keys().copied().collect());
    }

    /// Whom of the planned resolvers to believe: read again with each plan that has others, and until it can be read.
    fn believe(&mut self) {
        let planned = self.plan.resolver.as_ref();
        let known = self.answered.as_ref().and_then(|answered| answered.resolver.as_ref());
        if planned != known || self.answered.is_none() || self.distrust.is_some() {
            (self.trust, self.distrust) = (None, None);
            let all = planned.iter().flat_map(|plan| {
                plan.upstreams.iter().chain(plan.per_zone.iter().flat_map(|(_, upstreams)| upstreams))
            });
            if all.into_iter().any(|upstream| upstream.protocol != UpstreamProtocol::Plain) {
                let authorities = planned.and_then(|plan| plan.certificate_authorities.as_deref());
                match Trust::load(authorities) {
                    Ok(trust) => self.trust = Some(Arc::new(trust)),
                    Err(error) => self.distrust = Some(error.to_string()),
                }
            }
        }
        if let Some(why) = &self.distrust {
            let message = format!("no resolver is asked by TLS or HTTPS, as none could be believed: {why}");
            let finding = Finding::new(Code::Unreadable, Place::default(), message);
            let help = "install the system's certificates of authorities (`ca-certificates`), or name a file with them in \
                `dns.forwardAuthorities`; in a pod that is one below /var/lib/dualgate";
            self.findings.push(finding.help(help));
        }
    }

    /// Starts what answers, if it does not run yet.
    fn run(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (questions, asked) = mpsc::channel(forward::WAITING);
        let (tell, known) = watch::channel(Arc::default());
        let (listeners, wanted) = watch::channel(Listeners::new());
        let common = Arc::new(Common {
            responder: ArcSwap::from_pointee(Responder::new(&DnsPlan::default())),
            secret: ArcSwap::from_pointee(CookieSecret { current: key()?, previous: None }),
            rates: udp::Rates::new()?,
            questions,
        });
        let threads = (0..self.threads).map(|number| UdpThread::start(number, common.clone()));
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        let counters = Arc::new(Counters::default());
        let forwarding = Arc::new(Mutex::default());
        let work = Connected { common: common.clone(), counters: counters.clone(), told: forwarding.clone() };
        let start = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(work.run(asked, known, wanted)),
            Err(error) => tracing::error!(%error, "the thread of the DNS's connections cannot start"),
        };
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(start)?;
        let all = threads.iter().map(|thread| thread.counters.clone()).chain([counters]);
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            (told.counters, told.forwarding) = (all.collect(), forwarding);
        }
        self.running = Some(Running { threads, common, known: tell, listeners: Some(listeners), thread: Some(thread) });
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Those who answer by UDP end with what waits answered; then the connections' thread, which they hand questions to.
        self.threads.clear();
        self.listeners = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

/// The thread of connections and of questions to others.
struct Connected {
    common: Arc<Common>,
    counters: Arc<Counters>,
    told: Arc<Mutex<Forwarding>>,
}

impl Connected {
    /// Until nobody wants anything any more.
    async fn run(
        self,
        asked: mpsc::Receiver<(Question, Waiting)>,
        known: watch::Receiver<Arc<Known>>,
        mut wanted: watch::Receiver<Listeners>,
    ) {
        let connections = Connections::new(self.common.clone(), self.counters);
        tokio::task::spawn_local(forward::forward(asked, known, self.told));
        let mut accepting: BTreeMap<SocketAddr, (Arc<TcpListener>, JoinSet<()>)> = BTreeMap::new();
        let mut renew = interval(forward::SECRET);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renew.reset();
        loop {
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                _ = renew.tick() => self.common.renew_secret(),
            }
            let wanted = wanted.borrow_and_update().clone();
            accepting
                .retain(|address, (listener, _)| wanted.get(address).is_some_and(|one| Arc::ptr_eq(one, listener)));
            for (address, listener) in wanted {
                if accepting.contains_key(&address) {
                    continue;
                }
                match listener.try_clone().and_then(tokio::net::TcpListener::from_std) {
                    Ok(open) => {
                        let mut task = JoinSet::new();
                        task.spawn_local(connections.clone().accept(open));
                        accepting.insert(address, (listener, task));
                    }
                    Err(error) => tracing::error!(%error, %address, "DNS is not answered by TCP"),
                }
            }
        }
    }
}

impl Common {
    /// Cookies of before stay good for as long again.
    fn renew_secret(&self) {
        if let Ok(current) = key() {
            let previous = Some(self.secret.load().current);
            self.secret.store(Arc::new(CookieSecret { current, previous }));
        }
    }
}

fn key() -> io::Result<[u8; 16]> {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(key)
}

/// Opens what listens at an address, whether it is there or not: virtual IPs come and go.
fn open(address: SocketAddr, threads: usize) -> io::Result<(Vec<Arc<UdpSocket>>, TcpListener)> {
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    tcp.listen(BACKLOG)?;
    let udp = (0..threads).map(|_| {
        let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
        // The kernel may grant less.
        let _ = socket.set_recv_buffer_size(RECEIVED);
        Ok(Arc::new(UdpSocket::from(socket)))
    });
    Ok((udp.collect::<io::Result<_>>()?, tcp.into()))
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Tells how the DNS is.
#[derive(Clone, Debug)]
pub struct View(Arc<Mutex<Seen>>);

/// How the DNS is.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// What it answers by itself, and whom it asks for the rest.
    pub plan: Arc<DnsPlan>,
    /// What has been asked.
    pub sums: Sums,
    /// What others were asked.
    pub forwarding: Forwarding,
}

impl View {
    /// How it is.
    pub fn report(&self) -> Report {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            listening: seen.listening.clone(),
            plan: seen.plan.clone(),
            sums: Sums::of(seen.counters.iter().map(|counters| &**counters)),
            forwarding: seen.forwarding.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
