//! The river: from the source to the actuators, for as long as the process lives.
//!
//! A round begins when the objects or the site file change, or when something of the last round is missing. It ends
//! with the world made as planned, or with a finding and everything as it was.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dualgate_core::check::objects::Lints;
use dualgate_core::model::finding::{Code, Finding, Place, Severity};
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::plan::proxy::ProxyPlan;
use dualgate_core::plan::tunnel::{PeerName, TunnelPlan};
use dualgate_core::plan::{self, Planner};
use dualgate_core::seam::{Actuator as _, Source};
use dualgate_host::Store;
use dualgate_host::dns::Dns;
use dualgate_host::exchange::{Heard, LocalFacts, Phase};
use dualgate_host::memory;
use dualgate_kube::access::Access;
use dualgate_proxy::Proxy;
use dualgate_tunnel::Keeper;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::SourceArgument;
use crate::cluster::Cluster;
use crate::describe;
use crate::exchange::{self, Tellers};
use crate::file_version::FileVersion;
use crate::inputs::{now, open_cluster, open_folder, read_site};
use crate::last_good::LastGood;
use crate::publishing::Publishing;
use crate::source::SourceStatus;
use crate::state::{Origin, Round, State};
use crate::virtual_ips::{Served, VirtualIps};
use crate::wall::Wall;

/// How often what is missing is tried again.
const RESYNC: Duration = Duration::from_secs(5);
/// How often the site file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a plan is made without a change: certificates expire.
const REPLAN: Duration = Duration::from_secs(3600);
/// How long changes must rest before mistakes between objects are looked for; at the latest after [`LINT_AT_LATEST`].
const LINT_AFTER: Duration = Duration::from_millis(500);
/// See [`LINT_AFTER`].
const LINT_AT_LATEST: Duration = Duration::from_secs(5);

/// What flows.
pub struct River {
    node: NodeName,
    site_path: PathBuf,
    site: Arc<Site>,
    /// Tells the source when the site file changes.
    sites: watch::Sender<Arc<Site>>,
    site_findings: Vec<Finding>,
    site_version: Option<FileVersion>,
    objects: watch::Receiver<Option<Arc<ObjectSet>>>,
    origin: Origin,
    current: Option<Arc<ObjectSet>>,
    generation: Generation,
    desired: Option<Arc<ProxyPlan>>,
    snapshot: Option<Snapshot>,
    findings: Vec<Finding>,
    planner: Planner,
    /// Mistakes between objects: they cost more to find than a plan, and can wait until changes rest.
    lints: Lints,
    linted: Vec<Finding>,
    lint_at: Option<Instant>,
    lint_by: Option<Instant>,
    proxy: Proxy,
    tunnel: Rc<Keeper>,
    tunnel_plan: Arc<TunnelPlan>,
    virtual_ips: VirtualIps,
    dns: Dns,
    cluster: Cluster,
    publishing: Publishing,
    wall: Wall,
    tellers: Tellers,
    /// What home has told this edge.
    heard: watch::Receiver<Heard>,
    /// What home hears of this edge.
    facts: watch::Sender<LocalFacts>,
    last_good: LastGood,
    state: State,
}

/// What a river is made from.
pub struct Spring {
    /// Which node this is.
    pub node: NodeName,
    /// The site file.
    pub site_path: PathBuf,
    /// What it says.
    pub site: Site,
    /// What is wrong with it.
    pub site_findings: Vec<Finding>,
    /// Where objects come from.
    pub source: SourceArgument,
    /// How to reach the cluster, if they come from one.
    pub kubeconfig: Option<PathBuf>,
    /// The data plane.
    pub proxy: Proxy,
    /// The tunnel.
    pub tunnel: Rc<Keeper>,
    /// The virtual IPs.
    pub virtual_ips: VirtualIps,
    /// The DNS.
    pub dns: Dns,
    /// The state directory.
    pub directory: PathBuf,
    /// How long a change of the firewall that shuts somebody out can be confirmed.
    pub confirm: Duration,
    /// Where the last good state is kept.
    pub store: Option<Store>,
    /// What others see.
    pub state: State,
}

impl River {
    /// Starts to watch the source.
    pub fn new(spring: Spring) -> Self {
        let (found, objects) = watch::channel(None);
        let (told, heard) = watch::channel(Heard::default());
        let (facts, said) = watch::channel(facts_of(&spring.node));
        let site = Arc::new(spring.site);
        let (sites, known) = watch::channel(site.clone());
        let ear = Ear { sites: known, node: spring.node.clone(), state: spring.directory.clone(), said, told };
        let cluster = Cluster::start(&spring.source, spring.kubeconfig.as_deref(), &site, &spring.node);
        spring.state.statuses(cluster.view());
        let publishing = Publishing::default();
        spring.state.published(publishing.view());
        let last_good = LastGood::new(spring.store);
        spring.state.last_good(last_good.view());
        let watched = Watched { source: spring.source, kubeconfig: spring.kubeconfig, status: spring.state.source() };
        tokio::task::spawn_local(watch_source(watched, ear, found));
        Self {
            wall: Wall::new(spring.directory.clone(), spring.confirm),
            tellers: Tellers::new(spring.node.clone(), spring.directory),
            heard,
            facts,
            node: spring.node,
            site_version: FileVersion::of(&spring.site_path),
            site_path: spring.site_path,
            site,
            sites,
            site_findings: spring.site_findings,
            objects,
            origin: Origin::Nothing,
            current: None,
            generation: Generation(0),
            desired: None,
            snapshot: None,
            findings: Vec::new(),
            planner: Planner::default(),
            lints: Lints::default(),
            linted: Vec::new(),
            lint_at: None,
            lint_by: None,
            proxy: spring.proxy,
            tunnel: spring.tunnel,
            tunnel_plan: Arc::default(),
            virtual_ips: spring.virtual_ips,
            dns: spring.dns,
            cluster,
            publishing,
            last_good,
            state: spring.state,
        }
    }

    /// Flows until `stop`; returns the data plane and the DNS, still serving, and the virtual IPs, still held.
    pub async fn flow(
        mut self,
        stop: impl Future<Output = ()>,
        mut reload: watch::Receiver<u64>,
    ) -> (Proxy, Dns, VirtualIps) {
        let mut stop = std::pin::pin!(stop);
        let mut look = ticks(LOOK);
        let mut resync = ticks(RESYNC);
        let mut replan = ticks(REPLAN);
        replan.reset();
        self.plan_from_site().await;
        self.start_from_disk().await;
        self.state.begun();
        loop {
            let lint = self.lint_at;
            tokio::select! {
                () = &mut stop => break,
                Ok(()) = self.objects.changed() => {
                    let found = self.objects.borrow_and_update().clone();
                    self.take_objects(found).await;
                }
                Ok(()) = reload.changed() => {
                    let asked = *reload.borrow_and_update();
                    self.reload_site().await;
                    self.state.reloaded(asked);
                }
                _ = look.tick() => {
                    if FileVersion::of(&self.site_path) != self.site_version {
                        self.reload_site().await;
                    }
                    self.virtual_ips.tunnelled(&self.tunnel.view().report());
                    let known = self.snapshot.as_ref().map(|snapshot| snapshot.facts.silent_edges.clone());
                    if known.is_some_and(|known| *known != self.tellers.silent().into_iter().collect()) {
                        self.round().await;
                    }
                }
                _ = resync.tick() => {
                    self.tellers.unheard().into_iter().for_each(|edge| self.tunnel.doubt(PeerName::Node(edge)));
                    self.wall.converge().await;
                    match self.tellers.has_old_keys() | self.virtual_ips.look() {
                        true => self.round().await,
                        false => self.converge().await,
                    }
                    // What changes took for a while is free by now.
                    memory::give_back();
                }
                () = self.wall.changed() => {
                    let before = self.wall.findings();
                    self.wall.converge().await;
                    if self.wall.findings() != before {
                        self.converge().await;
                    }
                }
                () = self.virtual_ips.changed() => self.round().await,
                () = self.cluster.changed() => self.round().await,
                () = self.publishing.changed() => self.converge().await,
                _ = replan.tick() => self.round().await,
                () = self.last_good.is_due() => {
                    if let Some(objects) = &self.current {
                        self.last_good.write(objects, self.generation);
                    }
                }
                () = until(lint) => self.lint().await,
            }
        }
        self.last_good.end(self.current.as_ref(), self.generation).await;
        self.cluster.leave().await;
        (self.proxy, self.dns, self.virtual_ips)
    }

    /// The tunnel waits for nobody: the site file and the keys on disk are enough; objects only refine it. Nor does the
    /// firewall of an edge; that of a home node lets pass what objects make public, so that without them it would cut it.
    async fn plan_from_site(&mut self) {
        let nothing = self.snapshot(Arc::default());
        self.plan_tunnel(plan::tunnel::tunnel(&nothing, &self.node));
        if self.site.node(&self.node).is_some_and(Node::is_edge) {
            self.wall.plan(plan::firewall::firewall(&nothing, &self.node)).await;
        }
    }

    /// What is known at this moment.
    fn snapshot(&self, objects: Arc<ObjectSet>) -> Snapshot {
        let silent_edges = Arc::new(self.tellers.silent().into_iter().collect());
        let facts = Facts { silent_edges, ..self.virtual_ips.facts(now()) };
        Snapshot { generation: self.generation, site: self.site.clone(), objects, facts }
    }

    fn plan_tunnel(&mut self, plan: TunnelPlan) {
        if plan != *self.tunnel_plan {
            self.tunnel_plan = Arc::new(plan);
            self.tunnel.plan(self.tunnel_plan.clone());
        }
    }

    /// A gate that starts while its source is away serves what it served last. The source usually answers at once; a
    /// moment's patience avoids serving old routes for an instant.
    async fn start_from_disk(&mut self) {
        let first = tokio::time::timeout(Duration::from_secs(1), self.objects.wait_for(Option::is_some));
        if first.await.is_ok_and(|found| found.is_ok()) {
            self.objects.mark_changed();
            return;
        }
        let Some(store) = self.last_good.store() else { return };
        match store.load() {
            Ok(Some(saved)) => {
                tracing::warn!(
                    objects = saved.objects.objects.len(),
                    "the source is away: serving the last good state"
                );
                self.origin = Origin::Disk;
                for problem in &saved.keys {
                    tracing::warn!(digest = %problem.digest, fault = ?problem.fault, "a secret is missing from the last good state");
                }
                self.current = Some(saved.objects);
                self.round().await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "the last good state cannot be used"),
        }
    }

    async fn take_objects(&mut self, found: Option<Arc<ObjectSet>>) {
        let Some(found) = found else { return };
        if self.origin != Origin::Source {
            tracing::info!(objects = found.objects.len(), "objects read");
        }
        self.origin = Origin::Source;
        self.current = Some(found);
        self.last_good.changed();
        self.round().await;
    }

    async fn reload_site(&mut self) {
        self.site_version = FileVersion::of(&self.site_path);
        let (site, mut findings) = match read_site(&self.site_path) {
            Ok(read) => read,
            Err(error) => {
                let place = Place { file: Some(self.site_path.display().to_string().into()), ..Place::default() };
                (None, vec![Finding::new(Code::Unreadable, place, format!("{error:#}"))])
            }
        };
        match site.filter(|site| site.node(&self.node).is_some() || self.left_out(&mut findings)) {
            Some(site) => {
                tracing::info!("the site file was read again");
                self.site = Arc::new(site);
                self.sites.send_replace(self.site.clone());
            }
            None => {
                let place = Place { file: Some(self.site_path.display().to_string().into()), ..Place::default() };
                findings.push(Finding::new(
                    Code::Stale,
                    place,
                    "the site file cannot be used; the last good one stays",
                ));
            }
        }
        self.site_findings = findings;
        if self.current.is_none() {
            self.plan_from_site().await;
            self.converge().await;
        }
        self.round().await;
    }

    /// A site file without this node would switch everything off that this node does: it is taken for half written.
    fn left_out(&self, findings: &mut Vec<Finding>) -> bool {
        let place = Place { file: Some(self.site_path.display().to_string().into()), ..Place::default() };
        let message = format!("it has no node `{}`, which is this one", self.node);
        findings.push(Finding::new(Code::SiteMissing, place, message));
        false
    }

    /// A new snapshot and its plan.
    async fn round(&mut self) {
        let Some(objects) = self.current.clone() else { return };
        self.generation = Generation(self.generation.0 + 1);
        let mut snapshot = self.snapshot(objects.clone());
        self.virtual_ips.assign(&mut snapshot, self.origin == Origin::Source);
        let plan = self.planner.plan(&snapshot, &self.node);
        self.findings = self.site_findings.clone();
        self.findings.extend(objects.findings.iter().cloned());
        if self.origin == Origin::Disk {
            let text = "the source is away: the last good state from disk is served";
            self.findings.push(Finding::new(Code::Stale, Place::default(), text));
        }
        self.desired = Some(Arc::new(plan.proxy));
        self.plan_tunnel(plan.tunnel);
        self.findings.extend(plan::virtual_ips::findings(&snapshot, &plan.virtual_ips));
        self.virtual_ips.plan(plan.virtual_ips);
        self.findings.extend(self.virtual_ips.differences(&snapshot));
        self.dns.plan(plan.dns);
        self.wall.plan(plan.firewall).await;
        self.tellers.tell(&snapshot, self.planner.lowered());
        self.cluster.plan(&snapshot, self.planner.lowered(), self.origin == Origin::Source);
        self.publish(&snapshot);
        self.lints.follow(&snapshot, self.planner.lowered());
        let is_first = self.snapshot.replace(snapshot).is_none();
        self.converge().await;
        if is_first {
            // Whoever starts it wants to hear at once, but to serve before.
            self.lint().await;
        } else {
            let now = Instant::now();
            let by = *self.lint_by.get_or_insert(now + LINT_AT_LATEST);
            self.lint_at = Some((now + LINT_AFTER).min(by));
        }
    }

    /// One node writes to providers: the one that writes statuses, where there is a cluster; else the one that assigns addresses.
    /// What comes from the disk may be of yesterday.
    fn publish(&mut self, snapshot: &Snapshot) {
        let writes = self.cluster.writes().unwrap_or_else(|| self.virtual_ips.assigns(&self.site, &self.node));
        let writes = writes && self.origin == Origin::Source;
        self.publishing.plan(snapshot, self.planner.lowered(), &self.node, writes);
    }

    /// Looks for mistakes between objects.
    async fn lint(&mut self) {
        (self.lint_at, self.lint_by) = (None, None);
        if let Some(snapshot) = &self.snapshot {
            self.linted = self.lints.of(snapshot, self.planner.lowered());
            self.converge().await;
        }
    }

    /// Makes the world as desired, if it is not.
    async fn converge(&mut self) {
        let (Some(desired), Some(objects)) = (self.desired.clone(), self.current.clone()) else {
            self.tell_before_objects();
            return;
        };
        let applied = async {
            let observed = self.proxy.observe().await?;
            let changes = Proxy::diff(&observed, &desired);
            if !changes.is_empty() {
                self.proxy.apply(&desired, &changes).await?;
            }
            let open = self.proxy.observe().await?;
            let left = Proxy::diff(&open, &desired);
            Ok::<_, dualgate_proxy::ProxyError>((changes, left, open))
        };
        match applied.await {
            Ok((changes, left, open)) => {
                self.dns.converge();
                self.virtual_ips.served(&Served::of(&desired, &open, &self.dns), &self.tunnel.view().report());
                let news = changes.iter().filter(|change| !left.contains(change));
                news.for_each(|change| tracing::info!(generation = desired.generation.0, "{change}"));
                let mut findings = self.findings.clone();
                findings.extend(self.linted.iter().cloned());
                findings.extend(self.proxy.findings().iter().cloned());
                findings.extend(self.dns.findings().iter().cloned());
                findings.extend(self.tellers.findings());
                findings.extend(self.wall.findings());
                findings.extend(self.troubles_of_source());
                findings.extend(self.cluster.findings());
                findings.extend(self.publishing.findings());
                self.cluster.found(&findings);
                self.say(&objects, &desired, &findings);
                let (exchange, firewall) = (self.exchange(), self.wall.report());
                let beside = self.describe_beside();
                self.state.neighbours(exchange, firewall, beside);
                log_findings(&findings, &self.state.findings());
                self.state.applied(Round {
                    generation: desired.generation,
                    origin: self.origin,
                    objects,
                    plan: desired.clone(),
                    findings,
                    missing: left.iter().filter(|change| change.is_of_gates()).map(ToString::to_string).collect(),
                    metrics: self.proxy.entry_point_metrics(),
                });
            }
            Err(error) => {
                tracing::error!(%error, "the plan could not be applied; what ran before goes on");
                self.state.failed(Finding::new(Code::Stale, Place::default(), error.to_string()));
            }
        }
    }

    /// Tunnel, firewall and exchange are there before any object is.
    fn tell_before_objects(&mut self) {
        let mut findings = self.site_findings.clone();
        findings.extend(self.tellers.findings());
        findings.extend(self.wall.findings());
        findings.extend(self.troubles_of_source());
        log_findings(&findings, &self.state.findings());
        self.state.found(findings);
        let (exchange, firewall) = (self.exchange(), self.wall.report());
        self.state.neighbours(exchange, firewall, self.describe_beside());
    }

    fn describe_beside(&self) -> BTreeSet<String> {
        let virtual_ips = self.virtual_ips.planned();
        describe::beside(&self.tunnel_plan, self.wall.planned(), virtual_ips, self.dns.planned())
    }

    /// Why the source has said nothing yet; once it has, it says what is wrong with it.
    fn troubles_of_source(&self) -> Vec<Finding> {
        match self.origin {
            Origin::Source => Vec::new(),
            Origin::Nothing | Origin::Disk => self.state.source().findings(),
        }
    }

    /// Tells home how this edge is.
    fn say(&self, objects: &Arc<ObjectSet>, desired: &ProxyPlan, findings: &[Finding]) {
        let worth = |finding: &&Finding| finding.severity != Severity::Note;
        let facts = LocalFacts {
            phase: Phase::Serving,
            applied: self.heard.borrow().generation_of(objects).cloned(),
            findings: u32::try_from(findings.iter().filter(worth).count()).unwrap_or(u32::MAX),
            listening: desired.listeners.iter().map(|listener| listener.address).collect(),
            ..facts_of(&self.node)
        };
        self.facts.send_if_modified(|said| {
            let same = LocalFacts { now: said.now, ..facts.clone() } == *said;
            *said = facts;
            !same
        });
    }

    fn exchange(&self) -> exchange::Report {
        let heard = self.heard.borrow();
        exchange::Report {
            edges: self.tellers.report(),
            told_by: heard.taken.as_ref().map(ToString::to_string),
            connected: heard.from.iter().map(|from| from.node.to_string()).collect(),
        }
    }
}

/// An error with its causes.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Says what is newly wrong, and only that.
fn log_findings(findings: &[Finding], known: &[Finding]) {
    let order = |a: &Finding, b: &Finding| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message));
    let mut known: Vec<&Finding> = known.iter().collect();
    known.sort_by(|a, b| order(a, b));
    let is_known = |finding: &&Finding| known.binary_search_by(|other| order(other, finding)).is_ok();
    for finding in findings.iter().filter(|finding| !is_known(finding)) {
        let (code, help) = (finding.code.id(), finding.help.as_str());
        match finding.severity {
            Severity::Error | Severity::Warning => tracing::warn!(code, help, "{}: {}", finding.at, finding.message),
            Severity::Note => tracing::debug!(code, help, "{}: {}", finding.at, finding.message),
        }
    }
}

/// What an edge needs to hear home.
struct Ear {
    sites: watch::Receiver<Arc<Site>>,
    node: NodeName,
    state: PathBuf,
    said: watch::Receiver<LocalFacts>,
    told: watch::Sender<Heard>,
}

fn facts_of(node: &NodeName) -> LocalFacts {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    LocalFacts {
        node: node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: Phase::Starting,
        applied: None,
        findings: 0,
        listening: Vec::new(),
        now,
    }
}

/// What is watched, and where to say how it is.
struct Watched {
    source: SourceArgument,
    kubeconfig: Option<PathBuf>,
    status: SourceStatus,
}

/// Hands on every set that the source yields; a source that is away is tried again.
async fn watch_source(watched: Watched, mut ear: Ear, found: watch::Sender<Option<Arc<ObjectSet>>>) {
    let mut complained = false;
    loop {
        let ended = match &watched.source {
            SourceArgument::Folder(directory) => match open_folder(directory) {
                Ok(mut folder) => {
                    watched.status.folder(directory);
                    hand_on(&mut folder, &found, |_| {}).await
                }
                Err(error) => Err(error),
            },
            SourceArgument::Cluster(context) => {
                let access = Access { kubeconfig: watched.kubeconfig.clone(), context: context.clone() };
                match open_cluster(&access).await {
                    Ok(mut cluster) => {
                        watched.status.cluster(cluster.view());
                        hand_on(&mut cluster, &found, |_| {}).await
                    }
                    Err(error) => Err(error),
                }
            }
            SourceArgument::Home => {
                watched.status.home();
                hear_home(&mut ear, &found).await
            }
        };
        match ended {
            Ok(()) => return,
            Err(error) => {
                watched.status.failed(&error);
                if !complained {
                    complained = true;
                    tracing::warn!("{error:#}; it is tried again every second");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Hears home for as long as the site file names the same nodes with the same keys; then it is to be called again.
async fn hear_home(ear: &mut Ear, found: &watch::Sender<Option<Arc<ObjectSet>>>) -> anyhow::Result<()> {
    while !found.is_closed() {
        let site = ear.sites.borrow_and_update().clone();
        let mut listener = exchange::listen(&site, &ear.node, &ear.state, ear.said.clone())?;
        let heard = listener.heard();
        let _copying = Copying(tokio::task::spawn_local(copy(listener.heard(), ear.told.clone())));
        let told = |_: &Arc<ObjectSet>| drop(ear.told.send_replace(heard.borrow().clone()));
        let others = |now: &Arc<Site>| !exchange::hears_the_same(&site, now, &ear.node);
        let used = exchange::keys_on_disk(&ear.state);
        let others_on_disk = async {
            while exchange::keys_on_disk(&ear.state) == used {
                tokio::time::sleep(RESYNC).await;
            }
        };
        tokio::select! {
            ended = hand_on(&mut listener, found, told) => return ended,
            changed = ear.sites.wait_for(others) => match changed {
                Ok(_) => {}
                // The river has ended.
                Err(_) => return Ok(()),
            },
            () = others_on_disk => {}
        }
    }
    Ok(())
}

/// Tells who is connected also when nothing is told.
async fn copy(mut heard: watch::Receiver<Heard>, told: watch::Sender<Heard>) {
    while heard.changed().await.is_ok() {
        told.send_replace(heard.borrow_and_update().clone());
    }
}

/// A task that ends with this.
struct Copying(tokio::task::JoinHandle<()>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends well when nobody wants to know any more.
async fn hand_on<S: Source>(
    source: &mut S,
    found: &watch::Sender<Option<Arc<ObjectSet>>>,
    before: impl Fn(&Arc<ObjectSet>),
) -> anyhow::Result<()> {
    loop {
        let set = source.next().await?;
        before(&set);
        if found.send(Some(set)).is_err() {
            return Ok(());
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
