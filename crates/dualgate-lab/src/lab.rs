//! A lab: the world, the cluster and the nodes of one site, and what a person can do to them.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_core::model::finding::{Finding, Severity};
use dualgate_core::model::site::{Node, Role, Site};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{GateName, NodeName, Snapshot};
use dualgate_core::parse;
use dualgate_core::plan::tunnel::INTERFACE;
use dualgate_host::folder::FolderError;
use dualgate_host::keys::KeysError;
use dualgate_host::namespace::{self, Namespace};
use ipnet::IpNet;

use crate::checks::{self, PlannedCheck};
use crate::cluster::{Cluster, Patience, Registry};
use crate::control::{Entrance, NamespaceKind, Operator, Refusal};
use crate::kubernetes::{self, ClientError, KUBECONFIG, Kubernetes};
use crate::names::Resolver;
use crate::node::Nodes;
use crate::process::{Processes, kill_all_in};
use crate::rehearsal::{PublicKeys, Tunnel, make_heartbeat_key, make_keys, site_file};
use crate::report::{Check, HostKind, HostStatus, LinkStatus, Status, Verdict};
use crate::station::{Machine, Station};
use crate::topology::{self, Host, Topology, TopologyError};
use crate::trial::chain;
use crate::world::{World, WorldError};

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file cannot be read.
    #[error("read `{path}`")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The site file has mistakes.
    #[error("the site file `{path}` cannot be used (see `dualgate check`):{mistakes}")]
    Site {
        /// Which one.
        path: PathBuf,
        /// Its errors, a line each.
        mistakes: String,
    },
    /// The site is no network.
    #[error("the site cannot be rehearsed: {0}")]
    Topology(#[from] TopologyError),
    /// The network cannot be made.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The manifests cannot be read.
    #[error("open the folder of manifests (name another with --source folder:DIR)")]
    Folder(#[from] FolderError),
    /// Its keys cannot be made.
    #[error("make the keys of the lab's nodes")]
    Keys(#[from] KeysError),
    /// A node cannot be started.
    #[error("start the node `{node}`")]
    Node {
        /// Which one.
        node: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The Kubernetes API cannot be filled.
    #[error("load the manifests into the lab's Kubernetes API")]
    Kubernetes(#[from] ClientError),
    /// Nobody at home could hold it.
    #[error("the site has no home node that a Kubernetes API could run on: leave out --kubernetes")]
    NoServer,
    /// Something of the process.
    #[error("{0}")]
    Process(&'static str, #[source] io::Error),
}

/// Where the nodes of a lab get their objects from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// From the folder of manifests.
    #[default]
    Folder,
    /// From a Kubernetes API of the lab, into which the manifests are loaded at its start.
    Kubernetes,
}

/// What a lab is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name; the site's if there is none.
    pub name: Option<String>,
    /// The site file.
    pub site: PathBuf,
    /// What people are told where the site comes from.
    pub origin: String,
    /// The folder of manifests.
    pub source: PathBuf,
    /// What the manifests are to the nodes.
    pub objects: Origin,
    /// The `dualgate` binary.
    pub program: PathBuf,
    /// For the lab's files: empty, in memory ([`crate::init::settle`]).
    pub directory: PathBuf,
    /// How soon the cluster hears of things.
    pub patience: Patience,
}

/// A running lab. Dropping it ends what it started.
#[derive(Debug)]
pub struct Lab {
    name: String,
    origin: String,
    site: Arc<Site>,
    site_file: PathBuf,
    /// Made for the lab.
    keys: PublicKeys,
    started: Instant,
    seen: Mutex<Seen>,
    /// Held while hosts and links change: one after the other.
    changing: Mutex<()>,
    nodes: Nodes,
    cluster: Cluster,
    kubernetes: Option<Arc<Kubernetes>>,
    /// Manifests that the Kubernetes API did not take.
    refused: Vec<String>,
    /// What the router asks for names.
    resolver: Mutex<Option<Resolver>>,
    world: Arc<World>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When every node was ready for the first time.
    setup: Option<Duration>,
    checks: Vec<Check>,
    site_text: String,
    /// The site as the nodes know it, once it has changed.
    site: Option<Arc<Site>>,
}

impl Lab {
    /// Builds everything and starts every node; it does not wait until they are ready. The process must be the first one
    /// of its namespaces ([`crate::init`]).
    pub fn start(options: &Options) -> Result<Self, LabError> {
        let started = Instant::now();
        let text = std::fs::read_to_string(&options.site)
            .map_err(|source| LabError::Read { path: options.site.clone(), source })?;
        let site = Arc::new(read_site(&options.site, &text)?);
        let tunnel = Tunnel::of(&site);
        let mut topology = topology::build(&site, tunnel)?;
        let manifests = options.directory.join("manifests");
        match options.objects {
            Origin::Folder => share(&options.source, &manifests)?,
            Origin::Kubernetes => topology.ask_kubernetes(),
        }
        let world = Arc::new(World::build(topology, &options.directory)?);
        let (registry, refused) = registry(options, &world, &site, manifests)?;
        let kubernetes = match &registry {
            Registry::Folder { .. } => None,
            Registry::Kubernetes(api) => Some(api.clone()),
        };
        let cluster = Cluster::start(world.clone(), site.clone(), registry, options.patience)?;
        let processes = Processes::start().map_err(|error| LabError::Process("start a thread", error))?;
        let admin = site.admin.listen.clone();
        let nodes = Nodes::new(world.clone(), processes, options.program.clone(), &options.directory, admin);
        // The nodes' first look finds the EndpointSlices, as on a cluster that runs.
        cluster.wait_until_placed(Duration::from_secs(10));
        let state = |node: &NodeName| world.run_directory(node.as_str()).join("dualgate/state");
        let keys = match tunnel {
            Tunnel::Real => make_keys(&site, state)?,
            Tunnel::StandIn => PublicKeys::new(),
        };
        make_heartbeat_key(&site, state)?;
        for host in &world.topology().hosts {
            let programs = world.run_directory(&host.name).join("dualgate/bin");
            let linked = std::fs::create_dir_all(&programs)
                .and_then(|()| std::os::unix::fs::symlink(&options.program, programs.join("dualgate")));
            linked.map_err(|error| LabError::Process("put `dualgate` on the hosts' path", error))?;
        }
        let lab = Self {
            name: options.name.clone().unwrap_or_else(|| site.name.clone()),
            origin: options.origin.clone(),
            site,
            site_file: options.site.clone(),
            keys,
            started,
            changing: Mutex::new(()),
            seen: Mutex::new(Seen { site_text: text.clone(), ..Seen::default() }),
            nodes,
            cluster,
            kubernetes,
            refused,
            resolver: Mutex::default(),
            world,
        };
        lab.keep_resolver();
        for node in lab.node_hosts() {
            let failed = |source| LabError::Node { node: node.name.clone(), source };
            let text = site_file(&text, &lab.keys).map_err(failed)?;
            lab.nodes.write_site(&node.name, &text).map_err(failed)?;
            lab.nodes.start(&node.name).map_err(failed)?;
        }
        Ok(lab)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was built from.
    pub fn topology(&self) -> &Topology {
        self.world.topology()
    }

    /// The site.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Its cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its Kubernetes API, if it has one.
    pub fn kubernetes(&self) -> Option<&Arc<Kubernetes>> {
        self.kubernetes.as_ref()
    }

    /// Its nodes' processes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The state directory of a node.
    pub fn state_directory(&self, node: &str) -> PathBuf {
        self.world.run_directory(node).join("dualgate/state")
    }

    /// A host that is on.
    pub fn host(&self, name: &str) -> Option<Arc<Namespace>> {
        self.world.host(name)
    }

    /// Switches another machine of the LAN on, which the site knows nothing of.
    pub fn add_station(&self, machine: &Machine) -> io::Result<Station> {
        Station::start(&self.world, machine)
    }

    /// Waits until every node that is on is ready, and each edge has heard of those at home; what is missing if that takes longer.
    pub fn wait_until_ready(&self, limit: Duration) -> Result<Duration, String> {
        let deadline = Instant::now() + limit;
        loop {
            self.tend();
            let mut waiting = self.not_ready();
            if waiting.is_empty() {
                waiting = self.unheard();
            }
            if waiting.is_empty() {
                waiting = self.unheld();
            }
            if waiting.is_empty() {
                let mut seen = self.lock();
                return Ok(*seen.setup.get_or_insert(self.started.elapsed()));
            }
            if Instant::now() >= deadline {
                return Err(waiting.join("; "));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What has to be done from time to time: nodes that ended are started again, changes of the site file reach the nodes.
    pub fn tend(&self) {
        self.nodes.look_after(Instant::now());
        self.keep_resolver();
        let Ok(text) = std::fs::read_to_string(&self.site_file) else { return };
        let mut seen = self.lock();
        if seen.site_text == text {
            return;
        }
        for node in self.node_hosts() {
            let written = site_file(&text, &self.keys).and_then(|text| self.nodes.write_site(&node.name, &text));
            if let Err(error) = written {
                tracing::warn!(node = node.name, %error, "the site file did not reach the node");
            }
        }
        let (changed, _) = parse::site::site("site.yaml", &text);
        // A file that cannot be used leaves the nodes with the one before.
        if let Some(changed) = changed {
            seen.site = Some(Arc::new(changed));
        }
        seen.site_text = text;
    }

    /// The router's resolver runs wherever the router is on.
    fn keep_resolver(&self) {
        let router = self.world.topology().hosts.iter().find(|host| host.kind == HostKind::Router);
        let Some((router, now)) = router.and_then(|host| Some((host, self.world.host(&host.name)?))) else { return };
        let mut running = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_some_and(|resolver| Arc::ptr_eq(&resolver.at, &now)) {
            return;
        }
        let interfaces = router.interfaces.iter().filter(|interface| interface.name == "lan0");
        let addresses = interfaces.flat_map(|interface| &interface.addresses).map(IpNet::addr);
        // A link-local address is no address without its interface.
        let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let addresses: Vec<IpAddr> = addresses.filter(|address| !is_link_local(address)).collect();
        *running = None;
        match Resolver::start(now, &addresses, &self.site) {
            Ok(resolver) => *running = Some(resolver),
            Err(error) => tracing::warn!(%error, "the router of the lab has no resolver"),
        }
    }

    /// The site and the objects at this moment, as every node knows them.
    pub fn snapshot(&self) -> Snapshot {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        Snapshot {
            generation: Generation(1),
            site: self.lock().site.clone().unwrap_or_else(|| self.site.clone()),
            objects: self.cluster.objects(),
            facts: Facts { now, ..Facts::default() },
        }
    }

    fn planned(&self) -> Vec<PlannedCheck> {
        checks::plan(self.world.topology(), &self.snapshot())
    }

    fn not_ready(&self) -> Vec<String> {
        let state = |host: &Host| (host.name.clone(), self.nodes.state(&host.name));
        let states = self.node_hosts().map(state).filter_map(|(name, state)| Some((name, state?)));
        states.filter(|(_, state)| state != "ready").map(|(name, state)| format!("{name}: {state}")).collect()
    }

    /// The ends of the tunnel that are on and have not heard of each other.
    fn unheard(&self) -> Vec<String> {
        let edges = self.node_hosts().filter(|host| host.kind == HostKind::Edge);
        let of_edge = |edge: &Host| {
            let peers = self.nodes.unheard_peers(&edge.name).into_iter();
            let peers = peers.filter(|peer| self.world.host(peer).is_some());
            peers.map(|peer| format!("{} has not heard of {peer}", edge.name)).collect::<Vec<_>>()
        };
        edges.flat_map(of_edge).collect()
    }

    /// The addresses of the LAN that a home node could hold, and none does.
    fn unheld(&self) -> Vec<String> {
        let held: Vec<IpAddr> = self.node_hosts().flat_map(|host| self.nodes.held(&host.name)).collect();
        let gate = self.site.virtual_addresses(GateName::Internal);
        // Through the tunnel of the nodes, and only while the edge is there.
        let is_reached = |edge: &&Node| edge.is_edge() && self.world.host(edge.name.as_str()).is_some();
        let by_tunnel =
            Tunnel::of(&self.site) == Tunnel::Real && self.site.nodes.iter().any(|node| node.has(Role::VirtualIps));
        let edges = self.site.nodes.iter().filter(is_reached).filter(|_| by_tunnel).flat_map(|edge| &edge.addresses);
        let in_lan = |address: &IpAddr| self.site.lan.subnets.iter().any(|subnet| subnet.contains(address));
        let missing = gate.chain(edges.copied()).filter(|address| in_lan(address) && !held.contains(address));
        missing.map(|address| format!("nobody holds {address}")).collect()
    }

    fn node_hosts(&self) -> impl Iterator<Item = &Host> {
        self.world.topology().hosts.iter().filter(|host| host.node.is_some())
    }

    /// The Kubernetes API is where its node is.
    fn follow(&self) -> Result<(), Refusal> {
        let followed = self.kubernetes.as_ref().map_or(Ok(()), |kubernetes| kubernetes.follow());
        followed.map_err(|error| Refusal::new(format!("open the Kubernetes API again: {error}"), String::new()))
    }

    /// Something was changed: what was seen before says nothing any more.
    fn forget_checks(&self) {
        for check in &mut self.lock().checks {
            for verdict in [&mut check.v4, &mut check.v6] {
                if matches!(verdict, Verdict::Pass(_) | Verdict::Fail(_)) {
                    *verdict = Verdict::Waiting;
                }
            }
        }
    }

    fn change(&self) -> std::sync::MutexGuard<'_, ()> {
        self.forget_checks();
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_names(&self) -> impl Iterator<Item = &str> {
        self.world.topology().hosts.iter().map(|host| host.name.as_str())
    }

    fn known_host(&self, name: &str) -> Result<&Host, Refusal> {
        let found = self.world.topology().hosts.iter().find(|host| host.name == name);
        found.ok_or_else(|| Refusal::unknown("host", name, self.host_names()))
    }

    fn on(&self, name: &str) -> Result<Arc<Namespace>, Refusal> {
        self.known_host(name)?;
        let help = format!("switch it on with `dualgate lab heal {name}`");
        self.world.host(name).ok_or_else(|| Refusal::new(format!("`{name}` is off"), help))
    }

    /// What the cluster of the lab cannot do, and why.
    fn troubles(&self) -> Vec<String> {
        let findings = self.cluster.findings().into_iter();
        let said = findings.map(|finding| match finding.help.is_empty() {
            true => format!("{}: {}", finding.at, finding.message),
            false => format!("{}: {}; {}", finding.at, finding.message, finding.help),
        });
        self.refused.iter().cloned().chain(said).chain(self.cluster.troubles()).collect()
    }

    fn host_status(&self, host: &Host) -> HostStatus {
        let addresses = host.interfaces.iter().flat_map(|interface| {
            interface.addresses.iter().map(move |address| format!("{} {address}", interface.name))
        });
        let on = self.world.host(&host.name).is_some();
        let node = host.node.as_ref().and_then(|name| self.site.node(name));
        // What the node itself puts there, once its tunnel is up.
        let brought = node.filter(|_| host.kind == HostKind::Edge && !self.keys.is_empty());
        let brought = brought.iter().flat_map(|node| &node.addresses);
        let addresses = addresses.chain(brought.map(|address| format!("{INTERFACE} {}", IpNet::from(*address))));
        let role =
            |role: &Role| Role::WORDS.iter().find(|(_, known)| known == role).map(|(word, _)| (*word).to_owned());
        HostStatus {
            name: host.name.clone(),
            kind: host.kind,
            on,
            addresses: addresses.collect(),
            virtual_ips: if on { self.nodes.held(&host.name) } else { Vec::new() },
            roles: node.map(|node| node.roles.iter().filter_map(role).collect()).unwrap_or_default(),
            dualgate: if on { self.nodes.state(&host.name) } else { None },
        }
    }
}

impl Operator for Lab {
    fn status(&self) -> Status {
        let topology = self.world.topology();
        let states = self.world.links();
        let link = |(link, state): (&topology::Link, _)| LinkStatus {
            name: link.name.clone(),
            ends: link.ends.each_ref().map(|(host, _)| host.clone()),
            state,
        };
        let seen = self.lock();
        let (setup, checks) = (seen.setup, seen.checks.clone());
        drop(seen);
        Status {
            name: self.name.clone(),
            site: self.site.name.clone(),
            origin: self.origin.clone(),
            uptime_ms: milliseconds(self.started.elapsed()),
            setup_ms: setup.map(milliseconds),
            hosts: topology.hosts.iter().map(|host| self.host_status(host)).collect(),
            links: topology.links.iter().zip(states).map(link).collect(),
            pods: self.cluster.pods(),
            kubernetes: self.kubernetes.as_ref().map(|kubernetes| kubernetes.status()),
            stand_ins: topology.stand_ins.clone(),
            troubles: self.troubles(),
            checks,
        }
    }

    fn look(&self) {
        self.tend();
        let planned = self.planned();
        let looked = checks::look(&planned, &|name| self.world.host(name));
        self.lock().checks = looked;
    }

    fn fail(&self, name: &str) -> Result<String, Refusal> {
        let host = self.known_host(name)?;
        let _one_at_a_time = self.change();
        let Some(namespace) = self.world.host(name) else {
            return Err(Refusal::new(format!("`{name}` is off already"), String::new()));
        };
        // Nothing that it still wants to say gets out: first the cables, then the processes.
        self.world.switch_off(name).map_err(broken)?;
        self.nodes.kill(name);
        kill_all_in(namespace.network()).map_err(|error| Refusal::new(error.to_string(), String::new()))?;
        drop(namespace);
        self.follow()?;
        self.cluster.nudge();
        Ok(match host.kind {
            HostKind::HomeNode | HostKind::Edge => {
                format!("{name} has no power; its pods are gone, the cluster hears of it after its grace period")
            }
            _ => format!("{name} has no power"),
        })
    }

    fn heal(&self, what: &str) -> Result<String, Refusal> {
        let _one_at_a_time = self.change();
        let topology = self.world.topology();
        if topology.links.iter().any(|link| link.name == what) {
            return match self.world.mend(what).map_err(broken)? {
                true => Ok(format!("{what} is mended")),
                false => Err(Refusal::new(format!("the link `{what}` is not cut"), String::new())),
            };
        }
        let Some(host) = topology.hosts.iter().find(|host| host.name == what) else {
            let links = topology.links.iter().map(|link| link.name.as_str());
            return Err(Refusal::unknown("host or link", what, self.host_names().chain(links)));
        };
        if !self.world.switch_on(what).map_err(broken)? {
            return Err(Refusal::new(format!("`{what}` is on"), String::new()));
        }
        self.follow()?;
        self.cluster.nudge();
        if host.node.is_some() {
            let started = self.nodes.start(what);
            started.map_err(|error| Refusal::new(format!("start dualgate on `{what}`: {error}"), String::new()))?;
        }
        Ok(format!("{what} is on"))
    }

    fn cut(&self, link: &str) -> Result<String, Refusal> {
        let links = || self.world.topology().links.iter().map(|link| link.name.as_str());
        if !links().any(|known| known == link) {
            return Err(Refusal::unknown("link", link, links()));
        }
        let _one_at_a_time = self.change();
        match self.world.cut(link).map_err(broken)? {
            true => Ok(format!("{link} is cut; mend it with `dualgate lab heal {link}`")),
            false => Err(Refusal::new(format!("the link `{link}` is cut already"), String::new())),
        }
    }

    fn kill(&self, pod: &str) -> Result<String, Refusal> {
        if self.cluster.kill(pod) {
            self.forget_checks();
            return Ok(format!("{pod} is killed; its workload starts another"));
        }
        let pods = self.cluster.pods();
        Err(Refusal::unknown("pod", pod, pods.iter().map(|pod| pod.name.as_str())))
    }

    fn scale(&self, workload: &str, replicas: u32) -> Result<String, Refusal> {
        let scaled = self.cluster.scale(workload, replicas);
        if scaled.map_err(|error| Refusal::new(chain(&error), String::new()))? {
            self.forget_checks();
            return Ok(format!("{workload} has {replicas} replicas from now on"));
        }
        let workloads = self.cluster.workloads();
        Err(Refusal::unknown("workload", workload, workloads.iter().map(String::as_str)))
    }

    fn log(&self, host: &str) -> Result<String, Refusal> {
        self.known_host(host)?;
        let nodes: Vec<&str> = self.node_hosts().map(|node| node.name.as_str()).collect();
        let help = format!("dualgate runs on {}", nodes.join(", "));
        self.nodes.log(host).map_err(|error| Refusal::new(format!("`{host}` has no log: {error}"), help))
    }

    fn enter(&self, host: &str) -> Result<Entrance, Refusal> {
        let namespace = self.on(host)?;
        let open = || -> io::Result<Vec<_>> {
            let of_thread = [NamespaceKind::Network, NamespaceKind::HostName, NamespaceKind::Mount];
            let of_lab = [NamespaceKind::User, NamespaceKind::Pid, NamespaceKind::Ipc];
            let all = of_lab.into_iter().chain(of_thread);
            all.map(|kind| Ok((kind, namespace::handle(kind.file())?))).collect()
        };
        let opened = namespace.run(open);
        let namespaces = opened.map_err(|error| Refusal::new(format!("open `{host}`: {error}"), String::new()))?;
        // `dualgate` is the lab's own there, and finds the node's site, manifests and state by itself.
        let path = std::env::var("PATH").unwrap_or_default();
        let of_node = self.known_host(host)?.node.is_some();
        let mut environment =
            vec![("DUALGATE_LAB_HOST", host.to_owned()), ("PATH", format!("/run/dualgate/bin:{path}"))];
        environment.extend(of_node.then(|| ("STATE_DIRECTORY", "/run/dualgate/state".to_owned())));
        if self.kubernetes.is_some() {
            environment.push(("KUBECONFIG", KUBECONFIG.to_owned()));
            // What kubectl remembers of an API by its address, it must not remember of a real one.
            environment.push(("KUBECACHEDIR", "/run/dualgate/kube-cache".to_owned()));
        }
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let directory = if of_node { "/run/dualgate" } else { "/" };
        Ok(Entrance { namespaces, directory: directory.to_owned(), environment })
    }

    fn down(&self) {
        for node in self.node_hosts() {
            self.nodes.kill(&node.name);
        }
    }
}

/// Reads the site file; its errors are told as `dualgate check` would.
fn read_site(path: &Path, text: &str) -> Result<Site, LabError> {
    let (site, findings) = parse::site::site(&path.display().to_string(), text);
    site.ok_or_else(|| {
        let errors = findings.iter().filter(|finding: &&Finding| finding.severity == Severity::Error);
        let mistakes: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
        LabError::Site { path: path.to_owned(), mistakes: mistakes.concat() }
    })
}

/// Where the cluster's objects are, and what a Kubernetes API did not take of the manifests.
fn registry(
    options: &Options,
    world: &Arc<World>,
    site: &Site,
    shared: PathBuf,
) -> Result<(Registry, Vec<String>), LabError> {
    match options.objects {
        Origin::Folder => Ok((Registry::Folder { source: options.source.clone(), shared }, Vec::new())),
        Origin::Kubernetes => {
            let failed = |error| LabError::Process("start a Kubernetes API", error);
            let api = Kubernetes::start(world.clone(), site).map_err(failed)?.ok_or(LabError::NoServer)?;
            for host in &world.topology().hosts {
                api.write_kubeconfigs(&world.run_directory(&host.name)).map_err(failed)?;
            }
            let refused = api.load(kubernetes::manifests(&options.source)?)?;
            Ok((Registry::Kubernetes(api), refused))
        }
    }
}

/// Shows the manifests to the nodes, in a folder beside which the lab writes its own.
fn share(source: &Path, manifests: &Path) -> Result<(), LabError> {
    let unreadable = |error| LabError::Read { path: source.to_owned(), source: error };
    let name = source.file_name().unwrap_or(std::ffi::OsStr::new("manifests"));
    let place = manifests.join(name);
    std::fs::create_dir_all(&place).map_err(unreadable)?;
    namespace::bind(source, &place).map_err(unreadable)
}

fn broken(error: WorldError) -> Refusal {
    Refusal::new(chain(&error), "the lab may be half built now: `dualgate lab down`, and start it again")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
