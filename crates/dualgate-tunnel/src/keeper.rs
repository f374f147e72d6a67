//! Keeps the tunnel as planned, for as long as the process lives: interface, addresses, routes, keys, whom to dial.
//!
//! It starts from a plan and the key folder alone and has a thread of its own, so that neither a cluster that is away nor a
//! busy gate keeps the tunnel down. What it cannot do is a finding, and is tried again; what others see is its [`Report`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_core::machine::dial::{Dial, STALE, Seen};
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::{PublicKey, PublicKeys, Secret};
use dualgate_core::plan::tunnel::{Interface, Pair, Peer as Planned, PeerName, TunnelPlan};
use dualgate_host::keys::{Key, Keys, KeysError, Slot};
use dualgate_host::network::{Network, NetworkError, Route, Use};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::engine::{Config, Engine, Peer, PeerStatus, TunnelError};
use crate::path::{PathState, Paths};

/// How often peers are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the keys on disk are looked at.
const KEYS: Duration = Duration::from_secs(2);
/// How often addresses and routes are put in place again: a node whose own address goes for a moment loses the routes that
/// speak from it.
const SET_UP: Duration = Duration::from_secs(5);
/// How long what failed rests before it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// A peer that was heard before and had no handshake for so long is said to be away: WireGuard gives its session up then
/// (REJECT_AFTER_TIME).
const AWAY: Duration = Duration::from_secs(180);

/// The file in the key folder that says where peers were heard last.
const HEARD: &str = "heard.json";

/// The keeper of one node's tunnel. Dropped, it takes the tunnel along.
#[derive(Debug)]
pub struct Keeper {
    wish: Arc<Wish>,
    report: Arc<Mutex<Report>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What is wanted of the keeper: the last plan counts, none waits.
#[derive(Debug, Default)]
struct Wish {
    /// `None` ends it.
    plan: Mutex<Option<Arc<TunnelPlan>>>,
    /// Peers that do not answer those who speak through the tunnel.
    doubted: Mutex<BTreeSet<PeerName>>,
    changed: Condvar,
    /// A successor goes on with the interface.
    succeeded: AtomicBool,
}

impl Wish {
    fn set(&self, plan: Option<Arc<TunnelPlan>>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        self.changed.notify_all();
    }

    /// The plan, once it is another than `known` or it is time to look again.
    fn next(&self, known: &Arc<TunnelPlan>) -> Option<Arc<TunnelPlan>> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |plan: &mut Option<Arc<TunnelPlan>>| plan.as_ref().is_some_and(|plan| Arc::ptr_eq(plan, known));
        let (plan, _) = self.changed.wait_timeout_while(plan, LOOK, same).unwrap_or_else(PoisonError::into_inner);
        plan.clone()
    }
}

/// How the tunnel is, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The interface's name; `None` where there is no tunnel.
    pub interface: Option<String>,
    /// What moves the packets: `kernel`, `tun` or `packet`.
    pub backend: Option<String>,
    /// Why that.
    pub why: String,
    /// The UDP port.
    pub listen_port: u16,
    /// In octets.
    pub mtu: u16,
    /// The other ends.
    pub peers: Vec<PeerReport>,
    /// What is wrong.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// How one peer is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its node's name, or `router`.
    pub name: String,
    /// Its public key in use.
    pub public_key: String,
    /// Where it was heard last, or is dialled.
    pub endpoint: Option<SocketAddr>,
    /// Where it may be dialled, best first.
    pub candidates: Vec<SocketAddr>,
    /// Since the last handshake, in seconds.
    pub last_handshake_seconds: Option<u64>,
    /// Octets received.
    pub received: u64,
    /// Octets sent.
    pub sent: u64,
    /// How long the last handshake took, in milliseconds, where it is known.
    pub round_trip_ms: Option<u64>,
    /// The share of its packets that did not arrive, where it is known.
    pub loss: Option<f32>,
    /// What comes from it and goes to it.
    pub allowed_ips: Vec<String>,
    /// The largest packet that is sent to it, in octets.
    pub mtu: u16,
    /// Whether that is known to pass: `unknown`, `unanswered`, `whole`, `narrow` or `too-narrow`.
    pub path: PathState,
    /// Why it is not known.
    pub path_unknown_because: Option<String>,
}

impl Keeper {
    /// Starts with nothing planned, in the network of the calling thread. `state` holds the key folder.
    pub fn start(state: &Path) -> std::io::Result<Self> {
        let report = Arc::new(Mutex::new(Report::default()));
        let mut work = Work::new(state.to_owned(), report.clone());
        let wish = Arc::new(Wish { plan: Mutex::new(Some(work.plan.clone())), ..Wish::default() });
        let wanted = wish.clone();
        let keep = move || {
            while let Some(plan) = wanted.next(&work.plan) {
                work.plan = plan;
                work.doubted = std::mem::take(&mut *wanted.doubted.lock().unwrap_or_else(PoisonError::into_inner));
                work.round();
            }
            if let Some(running) = work.running.take().filter(|_| wanted.succeeded.load(Ordering::Relaxed)) {
                running.engine.hand_over();
            }
        };
        let thread = std::thread::Builder::new().name("tunnel".to_owned()).spawn(keep)?;
        Ok(Self { wish, report, thread: Some(thread) })
    }

    /// When it ends, the interface stays for a successor, where it is the kernel's.
    pub fn hand_over(&self) {
        self.wish.succeeded.store(true, Ordering::Relaxed);
    }

    /// What is to be from now on.
    pub fn plan(&self, plan: Arc<TunnelPlan>) {
        self.wish.set(Some(plan));
    }

    /// This peer does not answer those who speak through the tunnel: another way to it is tried, if there is one.
    pub fn doubt(&self, peer: PeerName) {
        self.wish.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    /// A handle that tells how it is, for whoever shows it.
    pub fn view(&self) -> View {
        View(self.report.clone())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wish.set(None);
        if let Some(thread) = self.thread.take() {
            // It ends at once when nobody can plan any more, and its interface with it.
            let _ = thread.join();
        }
    }
}

/// Tells how the tunnel is.
#[derive(Clone, Debug)]
pub struct View(Arc<Mutex<Report>>);

impl View {
    /// How it is.
    pub fn report(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The keeper's thread.
#[derive(Debug)]
struct Work {
    state: PathBuf,
    plan: Arc<TunnelPlan>,
    running: Option<Running>,
    started: Instant,
    retry_at: Option<Instant>,
    trouble: Option<Finding>,
    doubted: BTreeSet<PeerName>,
    ring: Option<KeyRing>,
    report: Arc<Mutex<Report>>,
}

/// The keys of this node, as they lay on disk.
#[derive(Clone, Debug)]
struct KeyRing {
    read: Instant,
    private: Key,
    public: PublicKey,
    /// By pair; an error is why there is none.
    preshared: BTreeMap<Pair, Result<Secret, String>>,
    folder: PathBuf,
}

/// A tunnel that is there.
#[derive(Debug)]
struct Running {
    engine: Engine,
    /// What its interface was made from; another one needs another interface.
    made: (PublicKey, Option<u16>, u16),
    peers: Vec<Peer>,
    addresses: Vec<IpNet>,
    routes: Vec<Route>,
    /// When they were put in place last, and what could not be.
    set_up_at: Option<Instant>,
    missing: Vec<Finding>,
    dials: BTreeMap<PeerName, Dial>,
    paths: Paths,
    heard: Heard,
}

impl Work {
    fn new(state: PathBuf, report: Arc<Mutex<Report>>) -> Self {
        let (plan, started) = (Arc::default(), Instant::now());
        Self {
            state,
            plan,
            running: None,
            started,
            retry_at: None,
            trouble: None,
            doubted: BTreeSet::new(),
            ring: None,
            report,
        }
    }

    fn round(&mut self) {
        let now = Instant::now();
        let plan = self.plan.clone();
        let Some(interface) = &plan.interface else {
            (self.running, self.trouble, self.retry_at) = (None, None, None);
            self.tell(Report::default());
            return;
        };
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let mut findings = Vec::new();
        match self.keep(interface, now, &mut findings) {
            Ok(mut report) => {
                (self.retry_at, self.trouble) = (None, None);
                report.findings = findings;
                self.tell(report);
            }
            Err(trouble) => {
                if matches!(trouble, Trouble::Tunnel(TunnelError::Stopped(_))) {
                    self.running = None;
                }
                let finding = trouble.finding(interface.name);
                if self.trouble.as_ref() != Some(&finding) {
                    tracing::warn!(code = finding.code.id(), help = finding.help, "{}", finding.message);
                }
                findings.push(finding.clone());
                (self.retry_at, self.trouble) = (Some(now + RETRY), Some(finding));
                self.tell(Report { interface: Some(interface.name.to_owned()), findings, ..Report::default() });
            }
        }
    }

    /// The keys on disk, looked at again from time to time: they may be made or changed while this runs.
    fn keys(&mut self, interface: &Interface, now: Instant) -> Result<KeyRing, KeysError> {
        let pairs: BTreeSet<&Pair> = interface.peers.iter().filter_map(|peer| peer.preshared_key.as_ref()).collect();
        let is_fresh =
            |ring: &&KeyRing| now.duration_since(ring.read) < KEYS && ring.preshared.keys().eq(pairs.iter().copied());
        if let Some(ring) = self.ring.as_ref().filter(is_fresh) {
            return Ok(ring.clone());
        }
        let keys = Keys::open(&self.state)?;
        let private = keys.current(&Slot::Private)?;
        let read = |pair: &Pair| {
            let key = keys.current(&Slot::Preshared(pair.clone()));
            (pair.clone(), key.map(|key| key.secret().clone()).map_err(|error| error.to_string()))
        };
        let ring = KeyRing {
            read: now,
            public: private.public()?,
            private,
            preshared: pairs.into_iter().map(read).collect(),
            folder: keys.path().to_owned(),
        };
        Ok(self.ring.insert(ring).clone())
    }

    fn tell(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// Makes everything as planned, and looks at the peers.
    fn keep(&mut self, interface: &Interface, now: Instant, findings: &mut Vec<Finding>) -> Result<Report, Trouble> {
        let KeyRing { private, public, preshared, folder, .. } = self.keys(interface, now)?;
        check_own_key(interface, public, findings);
        let made = (public, interface.listen_port, interface.mtu);
        if self.running.as_ref().is_some_and(|running| running.made != made) {
            // A name is taken until its interface is gone.
            self.running = None;
        }
        let seen = self.running.as_mut().map(|running| running.engine.status()).transpose()?;
        let seen: Vec<PeerStatus> = seen.map(|status| status.peers).unwrap_or_default();
        let peers = peers(interface, &preshared, &seen, findings);
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let engine = Engine::start(&Config {
                    interface: interface.name.to_owned(),
                    private_key: private.secret().clone(),
                    listen_port: interface.listen_port,
                    mtu: interface.mtu,
                    peers: peers.clone(),
                    backend: None,
                })?;
                let running = Running {
                    engine,
                    made,
                    peers: peers.clone(),
                    addresses: Vec::new(),
                    routes: Vec::new(),
                    set_up_at: None,
                    missing: Vec::new(),
                    dials: BTreeMap::new(),
                    paths: Paths::default(),
                    heard: Heard::read(&folder),
                };
                let running = self.running.insert(running);
                running.dial_back(interface)?;
                running
            }
        };
        if running.peers != peers {
            running.engine.configure(&peers)?;
            running.peers = peers;
        }
        running.dial(interface, &self.doubted, self.started)?;
        let (status, elapsed) = (running.engine.status()?, self.started.elapsed());
        running.heard.note(&status.peers);
        running.paths.round(interface, |planned| outside(planned, &status.peers), elapsed);
        // Routes are as narrow as the paths.
        running.set_up(interface, now, findings)?;
        let peers: Vec<PeerReport> =
            interface.peers.iter().map(|planned| running.report(interface, planned, &status.peers)).collect();
        findings.extend(peers.iter().filter_map(away));
        findings.extend(running.paths.findings());
        Ok(Report {
            interface: Some(status.interface.clone()),
            backend: Some(status.choice.backend.to_string()),
            why: status.choice.why.clone(),
            listen_port: status.listen_port,
            mtu: interface.mtu,
            peers,
            findings: Vec::new(),
        })
    }
}

impl Running {
    /// Addresses and routes, if they are others than before or it is time to look: others may have taken them away. One
    /// that cannot be had is a finding and costs only itself.
    fn set_up(&mut self, interface: &Interface, now: Instant, findings: &mut Vec<Finding>) -> Result<(), TunnelError> {
        let addresses: Vec<IpNet> = interface.addresses.iter().map(|address| IpNet::from(*address)).collect();
        let routes = self.routes(interface);
        let same = (&self.addresses, &self.routes) == (&addresses, &routes);
        if same && self.set_up_at.is_some_and(|at| now.duration_since(at) < SET_UP) {
            findings.extend(self.missing.iter().cloned());
            return Ok(());
        }
        let mut network = Network::open()?;
        let name = interface.name;
        // What is gone already is as wanted.
        for route in self.routes.iter().filter(|route| !routes.iter().any(|other| other.to == route.to)) {
            let _ = network.remove_route(name, route);
        }
        for address in self.addresses.iter().filter(|address| !addresses.contains(address)) {
            let _ = network.remove_address(name, *address);
        }
        let addressed = addresses.iter().map(|address| network.add_address(name, *address, Use::Both));
        let mut failed: Vec<NetworkError> = addressed.filter_map(Result::err).collect();
        failed.extend(routes.iter().filter_map(|route| network.add_route(name, route).err()));
        self.missing = failed.iter().map(unset).collect();
        findings.extend(self.missing.iter().cloned());
        (self.addresses, self.routes, self.set_up_at) = (addresses, routes, Some(now));
        Ok(())
    }

    /// The planned routes, none wider than the path to its peer.
    fn routes(&self, interface: &Interface) -> Vec<Route> {
        let narrow = |to: &IpNet| {
            let peer = interface.peers.iter().find(|peer| peer.allowed_ips.contains(to))?;
            self.paths.narrow(&peer.name)
        };
        let route = |planned: &dualgate_core::plan::tunnel::Route| Route {
            to: planned.to,
            via: None,
            source: planned.source,
            mtu: Some(narrow(&planned.to).unwrap_or(planned.mtu).into()),
        };
        interface.routes.iter().map(route).collect()
    }

    fn report(&self, interface: &Interface, planned: &Planned, seen: &[PeerStatus]) -> PeerReport {
        let mut report = peer_report(planned, seen, self.dials.get(&planned.name));
        report.mtu = self.paths.narrow(&planned.name).unwrap_or(interface.mtu);
        (report.path, report.path_unknown_because) = self.paths.state(&planned.name);
        report
    }

    /// Dials those who dial us, where they were heard last: after a restart their side believes in a session that is gone,
    /// and the way through their router is still open.
    fn dial_back(&mut self, interface: &Interface) -> Result<(), TunnelError> {
        let status = self.engine.status()?;
        for planned in interface.peers.iter().filter(|peer| peer.endpoints.is_empty()) {
            for key in planned.public_keys.iter() {
                let living = |peer: &PeerStatus| peer.public_key == key && is_alive(peer);
                if status.peers.iter().any(living) {
                    continue;
                }
                if let Some(endpoint) = self.heard.at.get(&key.to_string()) {
                    self.engine.dial(&key, *endpoint)?;
                }
            }
        }
        Ok(())
    }

    /// Dials who is to be dialled.
    fn dial(
        &mut self,
        interface: &Interface,
        doubted: &BTreeSet<PeerName>,
        started: Instant,
    ) -> Result<(), TunnelError> {
        // The clock is read last: a handshake right after a dial must not look older than the dial.
        let (status, now) = (self.engine.status()?, started.elapsed());
        self.dials.retain(|name, _| interface.peers.iter().any(|peer| peer.name == *name));
        for planned in interface.peers.iter().filter(|peer| !peer.endpoints.is_empty()) {
            let Some(seen) = carrier(planned, &status.peers) else { continue };
            let standing = seen.endpoint.filter(|_| is_alive(seen));
            let fresh = || match standing {
                Some(endpoint) => Dial::new(planned.endpoints.clone()).adopt(endpoint, started.elapsed()),
                None => Dial::new(planned.endpoints.clone()),
            };
            let dial = self.dials.entry(planned.name.clone()).or_insert_with(fresh);
            if dial.candidates() != planned.endpoints {
                *dial = fresh();
            }
            let looked = Seen { handshake: seen.last_handshake, received: seen.received, sent: seen.sent };
            let doubt = |dial: &mut Dial| if doubted.contains(&planned.name) { dial.doubt(now) } else { None };
            let dialled = dial.look(now, looked).or_else(|| doubt(dial));
            if let Some(endpoint) = dialled {
                tracing::debug!(peer = %planned.name, %endpoint, "dialled");
                // While its key changes, it may have either.
                for key in planned.public_keys.iter() {
                    self.engine.dial(&key, endpoint)?;
                }
            }
            if dialled.is_some() || doubted.contains(&planned.name) {
                self.paths.doubt(&planned.name, now);
            }
        }
        Ok(())
    }
}

/// Where peers were heard last, also over a restart. It is a hint: who is really there, WireGuard finds out.
#[derive(Debug)]
struct Heard {
    file: PathBuf,
    /// By public key.
    at: BTreeMap<String, SocketAddr>,
}

impl Heard {
    fn read(keys: &Path) -> Self {
        let file = keys.join(HEARD);
        let text = std::fs::read(&file).unwrap_or_default();
        Self { file, at: serde_json::from_slice(&text).unwrap_or_default() }
    }

    /// Keeps what is different; a full disk costs only the hint.
    fn note(&mut self, peers: &[PeerStatus]) {
        let heard = peers.iter().filter(|peer| peer.last_handshake.is_some());
        let heard = heard.filter_map(|peer| Some((peer.public_key.to_string(), peer.endpoint?)));
        let mut now = self.at.clone();
        now.extend(heard);
        if now == self.at {
            return;
        }
        self.at = now;
        let part = self.file.with_extension("part");
        let written = serde_json::to_vec(&self.at).map_err(std::io::Error::from);
        let written =
            written.and_then(|text| std::fs::write(&part, text)).and_then(|()| std::fs::rename(&part, &self.file));
        if let Err(error) = written {
            tracing::debug!(%error, "where peers were heard was not written");
        }
    }
}

/// The site file should name the key that this node has.
fn check_own_key(interface: &Interface, own: PublicKey, findings: &mut Vec<Finding>) {
    let help = format!("write `publicKeys: [\"{own}\"]` at this node in the site file, at every node");
    let known: Vec<PublicKey> = interface.private_key.iter().collect();
    if !known.is_empty() && !known.contains(&own) {
        let message = format!("this node's WireGuard key is {own}, and the site file names another: nobody answers it");
        findings.push(Finding::new(Code::TunnelFailed, Place::default(), message).help(help));
    }
}

/// The engine's peers. One whose keys are not all there is left out, with a finding: never without its preshared key.
fn peers(
    interface: &Interface,
    preshared: &BTreeMap<Pair, Result<Secret, String>>,
    seen: &[PeerStatus],
    findings: &mut Vec<Finding>,
) -> Vec<Peer> {
    let mut peers = Vec::new();
    for planned in &interface.peers {
        let preshared_key = match planned.preshared_key.as_ref().map(|pair| preshared.get(pair)) {
            None | Some(None) => None,
            Some(Some(Ok(key))) => Some(key.clone()),
            Some(Some(Err(why))) => {
                let message = format!("the peer {} is left out: {why}", planned.name);
                let help = "the same file lies at both nodes; or switch `tunnel.presharedKeys` off";
                findings.push(Finding::new(Code::TunnelFailed, Place::default(), message).help(help));
                continue;
            }
        };
        let in_use = in_use(planned.public_keys, seen);
        for public_key in planned.public_keys.iter() {
            let allowed_ips = if Some(public_key) == in_use { planned.allowed_ips.clone() } else { Vec::new() };
            peers.push(Peer {
                public_key,
                preshared_key: preshared_key.clone(),
                endpoint: None,
                keepalive: planned.keepalive,
                allowed_ips,
            });
        }
    }
    peers
}

/// Which of a peer's keys carries its traffic: the next one from its first handshake on.
fn in_use(keys: PublicKeys, seen: &[PeerStatus]) -> Option<PublicKey> {
    let age = |key: PublicKey| seen.iter().find(|peer| peer.public_key == key)?.last_handshake;
    match keys {
        PublicKeys::Unknown => None,
        PublicKeys::Current(key) => Some(key),
        PublicKeys::Rotating { current, next } => match (age(current), age(next)) {
            (Some(current_age), Some(next_age)) if next_age < current_age => Some(next),
            (None, Some(_)) => Some(next),
            (Some(_) | None, Some(_) | None) => Some(current),
        },
    }
}

/// Whether its session can carry packets.
fn is_alive(peer: &PeerStatus) -> bool {
    peer.last_handshake.is_some_and(|age| age < STALE)
}

/// What the engine says of the key that carries a peer's traffic.
fn carrier<'a>(planned: &Planned, seen: &'a [PeerStatus]) -> Option<&'a PeerStatus> {
    let key = in_use(planned.public_keys, seen)?;
    seen.iter().find(|peer| peer.public_key == key)
}

/// Where a peer is, while it is heard.
fn outside(planned: &Planned, seen: &[PeerStatus]) -> Option<IpAddr> {
    let peer = carrier(planned, seen)?;
    peer.endpoint.filter(|_| peer.last_handshake.is_some_and(|age| age < AWAY)).map(|endpoint| endpoint.ip())
}

fn peer_report(planned: &Planned, seen: &[PeerStatus], dial: Option<&Dial>) -> PeerReport {
    let known = planned.public_keys.current().map(|key| key.to_string()).unwrap_or_default();
    let mut report = PeerReport {
        name: planned.name.to_string(),
        public_key: known,
        candidates: planned.endpoints.clone(),
        allowed_ips: planned.allowed_ips.iter().map(ToString::to_string).collect(),
        endpoint: dial.and_then(Dial::current),
        ..PeerReport::default()
    };
    if let Some(peer) = carrier(planned, seen) {
        report.public_key = peer.public_key.to_string();
        report.endpoint = peer.endpoint.or(report.endpoint);
        report.last_handshake_seconds = peer.last_handshake.map(|age| age.as_secs());
        (report.received, report.sent) = (peer.received, peer.sent);
        report.round_trip_ms = peer.round_trip.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        report.loss = peer.loss;
    }
    report
}

fn unset(error: &NetworkError) -> Finding {
    let message = format!("the tunnel cannot {error}: {}", error.source);
    let help = "is that IP family switched off here, or does this node lack the address that the site file gives it?";
    Finding::new(Code::TunnelFailed, Place::default(), message).help(help)
}

fn away(peer: &PeerReport) -> Option<Finding> {
    let silent = Duration::from_secs(peer.last_handshake_seconds?);
    let message = format!("nothing was heard of {} for {} s", peer.name, silent.as_secs());
    let help = "look at its power and its line; `dualgate tunnel status` shows which addresses are tried";
    (silent >= AWAY).then(|| Finding::new(Code::TunnelAway, Place::default(), message).help(help))
}

/// Why the tunnel is not as planned.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

impl Trouble {
    fn finding(&self, interface: &str) -> Finding {
        let mut text = format!("the tunnel's interface `{interface}` is not there: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let help = match self {
            Self::Keys(_) => "",
            Self::Tunnel(_) => "dualgate needs CAP_NET_ADMIN for the tunnel; it is tried again",
        };
        Finding::new(Code::TunnelFailed, Place::default(), text).help(help)
    }
}
