//! What the running process knows of itself: written by the river, read by the admin listener.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dualgate_core::model::finding::Finding;
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{NodeName, ObjectSet};
use dualgate_core::parse::object;
use dualgate_core::plan::proxy::ProxyPlan;
use dualgate_host::dns::View as DnsView;
use dualgate_host::publish::publisher::{Report as PublishReport, View as PublishView};
use dualgate_host::virtual_ips::{Conflict, GroupReport, LinkReport, Report as VirtualIpReport, View as VirtualIpView};
use dualgate_kube::status::{Report as StatusReport, View as StatusView};
use dualgate_proxy::{EntryPointMetrics, ProxyView};
use dualgate_tunnel::{Report as TunnelReport, View as TunnelView};
use serde::Serialize;

use crate::last_good::View as LastGoodView;
use crate::source::{self, SourceStatus};
use crate::{describe, dns, exchange, publishing, wall};

/// Shared between the river and the admin listener.
#[derive(Clone)]
pub struct State(Arc<Mutex<Inner>>);

struct Inner {
    node: NodeName,
    state: PathBuf,
    site: String,
    started: Instant,
    phase: Phase,
    origin: Origin,
    source: SourceStatus,
    /// Of a node that takes part in writing statuses.
    statuses: Option<StatusView>,
    /// Zones at providers.
    published: Option<PublishView>,
    /// Where something is kept on disk.
    last_good: Option<LastGoodView>,
    generation: Generation,
    findings: Vec<Finding>,
    objects: Arc<ObjectSet>,
    plan: Arc<ProxyPlan>,
    missing: Vec<String>,
    failures: u64,
    /// Whether all is done that needs nobody else.
    begun: bool,
    reloads: u64,
    view: ProxyView,
    metrics: EntryPointMetrics,
    tunnel: TunnelView,
    virtual_ips: VirtualIpView,
    dns: DnsView,
    exchange: exchange::Report,
    firewall: wall::Report,
    /// The plan of what runs beside the gates, described.
    beside: BTreeSet<String>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has no plan yet.
    Starting,
    /// It serves.
    Serving,
    /// It lets connections end.
    Draining,
}

/// Where the objects came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From nowhere yet.
    Nothing,
    /// From the source.
    Source,
    /// From the last good state on disk: the source is away.
    Disk,
}

/// What a round of the river came to.
pub struct Round {
    /// Which snapshot.
    pub generation: Generation,
    /// Where its objects came from.
    pub origin: Origin,
    /// The objects.
    pub objects: Arc<ObjectSet>,
    /// The plan; it is described when somebody asks.
    pub plan: Arc<ProxyPlan>,
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// What of the plan could not be made so.
    pub missing: Vec<String>,
    /// The counters after this round.
    pub metrics: EntryPointMetrics,
}

/// What `dualgate status` shows.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Report {
    /// The site.
    pub site: String,
    /// The node.
    pub node: String,
    /// Its state directory.
    #[serde(default)]
    pub state: PathBuf,
    /// `starting`, `serving` or `draining`.
    pub phase: String,
    /// `nothing`, `source` or `disk`.
    pub objects_from: String,
    /// The source, and how it is.
    #[serde(default)]
    pub source: source::Report,
    /// Who writes statuses to the cluster, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statuses: Option<StatusReport>,
    /// Whether it serves all that it should.
    pub ready: bool,
    /// Why not.
    pub not_ready: Vec<String>,
    /// The snapshot that is served.
    pub generation: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// How many objects there are.
    pub objects: usize,
    /// Open connections.
    pub connections: usize,
    /// The plan, described.
    pub plan: BTreeSet<String>,
    /// This node's end of the tunnel.
    #[serde(default)]
    pub tunnel: TunnelReport,
    /// The addresses of the LAN that move between the home nodes.
    #[serde(default)]
    pub virtual_ips: VirtualIpReport,
    /// Zones at providers that this node writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishReport>,
    /// Names that are asked for here.
    #[serde(default)]
    pub dns: dns::Report,
    /// Who tells whom what is public.
    #[serde(default)]
    pub exchange: exchange::Report,
    /// What it lets in, counted.
    #[serde(default)]
    pub firewall: wall::Report,
    /// What is wrong.
    pub findings: Vec<serde_json::Value>,
}

/// What a service manager wants to know.
pub struct Service {
    /// Whether all is done that needs nobody else.
    pub begun: bool,
    /// Whether the tunnel's interface is there, where there is to be one.
    pub tunnel_made: bool,
    /// How often the site file was read again because somebody asked for it.
    pub reloads: u64,
    /// How it is, in a line.
    pub status: String,
}

/// What runs beside the gates and tells how it is by itself, and where it keeps what it knows.
pub struct Beside {
    /// The state directory.
    pub state: PathBuf,
    /// The tunnel.
    pub tunnel: TunnelView,
    /// The virtual IPs.
    pub virtual_ips: VirtualIpView,
    /// The DNS.
    pub dns: DnsView,
}

impl State {
    /// Of a process that begins.
    pub fn new(site: String, node: NodeName, proxy: (ProxyView, EntryPointMetrics), beside: Beside) -> Self {
        let (view, metrics) = proxy;
        let Beside { state, tunnel, virtual_ips, dns } = beside;
        Self(Arc::new(Mutex::new(Inner {
            node,
            state,
            site,
            started: Instant::now(),
            phase: Phase::Starting,
            origin: Origin::Nothing,
            source: SourceStatus::default(),
            statuses: None,
            published: None,
            last_good: None,
            generation: Generation(0),
            findings: Vec::new(),
            objects: Arc::default(),
            plan: Arc::default(),
            missing: Vec::new(),
            failures: 0,
            begun: false,
            reloads: 0,
            view,
            metrics,
            tunnel,
            virtual_ips,
            dns,
            exchange: exchange::Report::default(),
            firewall: wall::Report::default(),
            beside: BTreeSet::new(),
        })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        // Whoever panicked while holding it left a whole value behind: every change is one assignment.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where objects come from.
    pub fn source(&self) -> SourceStatus {
        self.with(|inner| inner.source.clone())
    }

    /// Who shows how zones at providers are.
    pub fn published(&self, view: PublishView) {
        self.with(|inner| inner.published = Some(view));
    }

    /// Who shows how the last good state is written, if it is kept.
    pub fn last_good(&self, view: Option<LastGoodView>) {
        self.with(|inner| inner.last_good = view);
    }

    /// Who shows how statuses are written, if they are.
    pub fn statuses(&self, view: Option<StatusView>) {
        self.with(|inner| inner.statuses = view);
    }

    /// A round was applied.
    pub fn applied(&self, round: Round) {
        self.with(|inner| {
            inner.phase = if inner.phase == Phase::Draining { Phase::Draining } else { Phase::Serving };
            inner.generation = round.generation;
            inner.origin = round.origin;
            inner.objects = round.objects;
            inner.plan = round.plan;
            inner.findings = round.findings;
            inner.missing = round.missing;
            inner.metrics = round.metrics;
        });
    }

    /// What is wrong while there are no objects yet.
    pub fn found(&self, findings: Vec<Finding>) {
        self.with(|inner| inner.findings = findings);
    }

    /// A round failed: what ran before goes on.
    pub fn failed(&self, finding: Finding) {
        self.with(|inner| {
            inner.failures += 1;
            inner.findings.retain(|known| known.message != finding.message);
            inner.findings.push(finding);
        });
    }

    /// How the exchange between nodes is, and the firewall; and the plan of what runs beside the gates.
    pub fn neighbours(&self, exchange: exchange::Report, firewall: wall::Report, beside: BTreeSet<String>) {
        self.with(|inner| (inner.exchange, inner.firewall, inner.beside) = (exchange, firewall, beside));
    }

    /// All is done that needs nobody else.
    pub fn begun(&self) {
        self.with(|inner| inner.begun = true);
    }

    /// The site file was read again because somebody asked for it, the so manieth time.
    pub fn reloaded(&self, asked: u64) {
        self.with(|inner| inner.reloads = asked);
    }

    /// Whether connections are being let go.
    pub fn is_draining(&self) -> bool {
        self.with(|inner| inner.phase == Phase::Draining)
    }

    /// What a service manager wants to know.
    pub fn service(&self) -> Service {
        let not_ready = self.not_ready();
        let status = match not_ready.as_slice() {
            [] => "ready".to_owned(),
            why => format!("not ready: {}", why.join("; ")),
        };
        self.with(|inner| {
            let tunnel = inner.tunnel.report();
            let tunnel_made = tunnel.interface.is_none() || tunnel.backend.is_some();
            Service { begun: inner.begun, tunnel_made, reloads: inner.reloads, status }
        })
    }

    /// Connections are being let go.
    pub fn draining(&self) {
        self.with(|inner| inner.phase = Phase::Draining);
    }

    /// Why it is not ready; empty when it is.
    pub fn not_ready(&self) -> Vec<String> {
        self.with(|inner| match inner.phase {
            Phase::Starting => vec!["no plan has been applied yet".to_owned()],
            Phase::Draining => vec!["draining".to_owned()],
            Phase::Serving => inner.missing.clone(),
        })
    }

    /// What `dualgate status` shows.
    pub fn report(&self) -> Report {
        let not_ready = self.not_ready();
        let findings = self.findings();
        self.with(|inner| Report {
            site: inner.site.clone(),
            node: inner.node.to_string(),
            state: inner.state.clone(),
            phase: word(&inner.phase),
            objects_from: word(&inner.origin),
            source: inner.source.report(),
            statuses: inner.statuses.as_ref().map(StatusView::report),
            ready: not_ready.is_empty(),
            not_ready,
            generation: inner.generation.0,
            uptime_seconds: inner.started.elapsed().as_secs(),
            objects: inner.objects.objects.len(),
            connections: inner.view.open_connections(),
            plan: describe::proxy(&inner.plan).union(&inner.beside).cloned().collect(),
            tunnel: inner.tunnel.report(),
            virtual_ips: inner.virtual_ips.report(),
            published: inner.published.as_ref().map(PublishView::report).unwrap_or_default(),
            dns: dns::Report::of(&inner.dns.report()),
            exchange: inner.exchange.clone(),
            firewall: inner.firewall.clone(),
            findings: findings.iter().filter_map(|finding| serde_json::to_value(finding).ok()).collect(),
        })
    }

    /// The objects as a dump that holds no secret.
    pub fn dump(&self) -> serde_json::Value {
        let objects = self.with(|inner| inner.objects.clone());
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": objects.objects.iter().map(|object| object::dump(object)).collect::<Vec<_>>(),
        })
    }

    /// All counters in Prometheus' text form.
    pub fn metrics(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::with_capacity(16 * 1024);
        let (view, metrics) = self.with(|inner| (inner.view.clone(), inner.metrics.clone()));
        metrics.write(&mut out);
        view.write_metrics(&mut out);
        self.with(|inner| {
            let mut gauge = |name: &str, help: &str, value: u64| {
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
            };
            gauge("dualgate_snapshot_generation", "The snapshot that is served.", inner.generation.0);
            gauge("dualgate_snapshot_objects", "Objects of the snapshot.", inner.objects.objects.len() as u64);
            gauge(
                "dualgate_snapshot_stale",
                "1 while the state on disk is served.",
                u64::from(inner.origin == Origin::Disk),
            );
            gauge("dualgate_uptime_seconds", "Since the start.", inner.started.elapsed().as_secs());
            let _ = writeln!(
                out,
                "# HELP dualgate_apply_failures_total Plans that could not be applied.\n\
                 # TYPE dualgate_apply_failures_total counter\ndualgate_apply_failures_total {}",
                inner.failures
            );
            let mut codes = BTreeMap::new();
            inner.last_good.iter().for_each(|view| view.write_metrics(&mut out));
            inner.source.report().write_metrics(&mut out);
            inner.statuses.iter().for_each(|view| view.report().write_metrics(&mut out));
            let of_tunnel = inner.tunnel.report();
            write_tunnel(&mut out, &of_tunnel);
            let of_virtual_ips = inner.virtual_ips.report();
            write_virtual_ips(&mut out, &of_virtual_ips);
            write_firewall(&mut out, &inner.firewall);
            dns::write_metrics(&mut out, &inner.dns.report());
            inner.published.iter().for_each(|view| publishing::write_metrics(&mut out, &view.report()));
            inner
                .findings
                .iter()
                .chain(&of_tunnel.findings)
                .chain(&of_virtual_ips.findings)
                .for_each(|finding| *codes.entry(finding.code).or_insert(0u64) += 1);
            let _ = writeln!(out, "# HELP dualgate_findings Findings by code.\n# TYPE dualgate_findings gauge");
            for (code, count) in codes {
                let _ = writeln!(out, "dualgate_findings{{code=\"{code}\",severity=\"{}\"}} {count}", code.severity());
            }
        });
        out
    }

    /// What is wrong at the moment.
    pub fn findings(&self) -> Vec<Finding> {
        self.with(|inner| {
            let mut findings = inner.findings.clone();
            findings.extend(inner.tunnel.report().findings);
            findings.extend(inner.virtual_ips.report().findings);
            findings
        })
    }
}

/// The tunnel's metrics; nothing where there is none.
fn write_tunnel(out: &mut String, tunnel: &TunnelReport) {
    use std::fmt::Write as _;
    let Some(backend) = &tunnel.backend else { return };
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    };
    family(
        "dualgate_tunnel_info",
        "gauge",
        "What moves the tunnel's packets.",
        vec![(format!("backend=\"{backend}\""), 1.0)],
    );
    let of_peers = |value: fn(&dualgate_tunnel::PeerReport) -> Option<f64>| {
        let line = |peer: &dualgate_tunnel::PeerReport| Some((format!("peer=\"{}\"", peer.name), value(peer)?));
        tunnel.peers.iter().filter_map(line).collect::<Vec<_>>()
    };
    let age = of_peers(|peer| peer.last_handshake_seconds.map(|seconds| seconds as f64));
    family("dualgate_tunnel_last_handshake_seconds", "gauge", "Since the last handshake with the peer.", age);
    let received = of_peers(|peer| Some(peer.received as f64));
    family("dualgate_tunnel_received_bytes_total", "counter", "Octets received from the peer.", received);
    let sent = of_peers(|peer| Some(peer.sent as f64));
    family("dualgate_tunnel_sent_bytes_total", "counter", "Octets sent to the peer.", sent);
    let mtu = of_peers(|peer| peer.path.is_known().then_some(f64::from(peer.mtu)));
    family("dualgate_tunnel_peer_mtu_bytes", "gauge", "The largest packet that is sent to the peer, probed.", mtu);
}

/// The metrics of virtual IPs; nothing where this node has no part in them.
fn write_virtual_ips(out: &mut String, report: &VirtualIpReport) {
    use std::fmt::Write as _;
    if !report.on {
        return;
    }
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, u64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let of_groups = |value: fn(&GroupReport) -> u64| {
        let line = |group: &GroupReport| {
            let addresses = group.addresses.iter();
            addresses.map(|address| (format!("address=\"{address}\""), value(group))).collect::<Vec<_>>()
        };
        report.groups.iter().flat_map(line).collect::<Vec<_>>()
    };
    let held = of_groups(|group| u64::from(group.held));
    family("dualgate_virtual_ip_held", "gauge", "1 where this node answers for the address.", held);
    let ready = of_groups(|group| u64::from(group.ready));
    family("dualgate_virtual_ip_ready", "gauge", "1 where this node could serve the address.", ready);
    let acquired = of_groups(|group| group.acquired);
    family("dualgate_virtual_ip_acquired_total", "counter", "How often the address came to this node.", acquired);
    let conflict = |conflict: &Conflict| (format!("address=\"{}\"", conflict.address), 1);
    let conflicts = report.conflicts.iter().map(conflict).collect::<BTreeMap<_, _>>().into_iter().collect();
    family("dualgate_virtual_ip_conflict", "gauge", "1 where somebody else answers for the address.", conflicts);
    let voters = report.peers.iter().map(|peer| (format!("peer=\"{}\"", peer.name), u64::from(peer.alive))).collect();
    family("dualgate_virtual_ip_voter_alive", "gauge", "1 where the other home node is heard.", voters);
    let of_links = |value: fn(&LinkReport) -> u64| {
        report.links.iter().map(|link| (format!("interface=\"{}\"", link.name), value(link))).collect::<Vec<_>>()
    };
    let answered = of_links(|link| link.answered);
    family("dualgate_virtual_ip_answers_total", "counter", "Questions of ARP and NDP that were answered.", answered);
    let said = of_links(|link| link.gratuitous);
    family("dualgate_virtual_ip_announcements_total", "counter", "Frames that told of an address unasked.", said);
    let refused = vec![(String::new(), report.refused)];
    family("dualgate_virtual_ip_refused_total", "counter", "Heartbeats that were not of this site.", refused);
}

/// What the firewall has counted; nothing where there is none.
fn write_firewall(out: &mut String, firewall: &wall::Report) {
    use std::fmt::Write as _;
    if firewall.protection.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&wall::Count) -> u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for count in &firewall.counters {
            let _ = writeln!(out, "{name}{{chain=\"{}\",rule=\"{}\"}} {}", count.chain, count.rule, value(count));
        }
    };
    family("dualgate_firewall_packets_total", "Packets that a rule of the firewall met.", |count| count.packets);
    family("dualgate_firewall_bytes_total", "Octets of these packets.", |count| count.bytes);
}

fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
