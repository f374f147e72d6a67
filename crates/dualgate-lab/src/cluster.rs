//! What K3s does on a real site: runs the pods that the objects want, and tells which of them are ready.
//!
//! A pod is a network of its own behind its node's bridge, and an echo backend in it. What the cluster knows comes as late as
//! in Kubernetes: of a node that is gone it hears after [`Patience::node`], and only then are its pods not ready.
//!
//! The objects are manifests in a folder, or lie in a Kubernetes API; what becomes of them is the same.

mod folder;
mod kubernetes;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use dualgate_core::model::finding::Finding;
use dualgate_core::model::object::Body;
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::{NodeName, ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse;
use dualgate_host::FolderSource;
use dualgate_host::folder::FolderError;
use dualgate_host::namespace::Namespace;
use serde_json::Value;
use tokio::runtime::{Builder, Handle};

use self::kubernetes::Desk;
use self::pods::Running;
use crate::kubernetes::{Attendance, ClientError, DeletedPod, Kubernetes};
use crate::report::PodStatus;
use crate::topology;
use crate::workload::{self, Heard, Placement, Pod, Wanted, Workload};
use crate::world::World;

/// How often the cluster looks at its pods and nodes when nobody calls it.
const LOOK: Duration = Duration::from_millis(100);

/// How long the cluster takes to hear of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// That a pod has ended; another one is started then.
    pub pod: Duration,
    /// That a node is gone: its pods are not ready from then on (`node-monitor-grace-period`).
    pub node: Duration,
    /// That it stays away: its pods are started elsewhere (`tolerationSeconds` of `not-ready`), counted from `node`.
    pub eviction: Duration,
    /// How long a pod that is to end answers still: what a program takes to end in order.
    pub termination: Duration,
}

impl Default for Patience {
    /// As Kubernetes does unless it is told otherwise.
    fn default() -> Self {
        Self {
            pod: Duration::from_secs(1),
            node: Duration::from_secs(40),
            eviction: Duration::from_secs(300),
            termination: Duration::from_secs(1),
        }
    }
}

/// Where the objects are.
#[derive(Clone, Debug)]
pub enum Registry {
    /// Manifests in a folder.
    Folder {
        /// The folder.
        source: PathBuf,
        /// What the nodes read: the manifests are in there, and the cluster writes beside them.
        shared: PathBuf,
    },
    /// A Kubernetes API.
    Kubernetes(Arc<Kubernetes>),
}

/// The cluster of a lab.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    /// While it looks at an API.
    _attendance: Option<Attendance>,
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    site: Arc<Site>,
    place: Place,
    patience: Patience,
    /// Where the pods' backends run.
    runtime: Handle,
    state: Mutex<State>,
    changed: Condvar,
}

/// Where what becomes of the objects is written.
#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Kubernetes(Desk),
}

#[derive(Debug, Default)]
struct State {
    /// What the objects are, once somebody has read them.
    read: Option<Arc<ObjectSet>>,
    /// Whether anything was read yet.
    has_read: bool,
    objects: Arc<ObjectSet>,
    workloads: Vec<Workload>,
    findings: Vec<Finding>,
    placement: Placement,
    /// In a folder nobody can write down another number of pods: it is remembered here.
    scale: BTreeMap<ObjectKey, u32>,
    running: BTreeMap<ObjectName, Running>,
    dead: BTreeMap<ObjectName, Instant>,
    /// Pods that were deleted since the last look.
    deleted: Vec<DeletedPod>,
    /// Since when pods have been leaving.
    leaving: BTreeMap<ObjectName, Instant>,
    /// The hosts of the nodes that were on at the last look.
    hosts: BTreeMap<NodeName, Weak<Namespace>>,
    /// Nodes that are off, since when.
    lost: BTreeMap<NodeName, Instant>,
    /// What was written beside the manifests.
    written: String,
    /// Whether the first pods run and everybody could know.
    placed: bool,
    failure: Option<String>,
    /// Why the manifests cannot be read.
    unread: Option<String>,
    stopped: bool,
}

impl Cluster {
    /// Starts it.
    pub fn start(
        world: Arc<World>,
        site: Arc<Site>,
        registry: Registry,
        patience: Patience,
    ) -> Result<Self, FolderError> {
        let path = match &registry {
            Registry::Folder { source, .. } => source.clone(),
            Registry::Kubernetes(_) => PathBuf::new(),
        };
        let unreadable = |source: io::Error| FolderError::Read { path: path.clone(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unreadable)?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let place = match &registry {
            Registry::Folder { shared, .. } => Place::Folder(shared.clone()),
            Registry::Kubernetes(api) => Place::Kubernetes(Desk::new(api.clone())),
        };
        let shared = Arc::new(Shared {
            world,
            site,
            place,
            patience,
            runtime: runtime.handle().clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let attendance = match (&registry, &shared.place) {
            (Registry::Folder { source, .. }, _) => {
                let (folder, reader) = (FolderSource::new(source)?, shared.clone());
                let read = move || reader.read(folder);
                std::thread::Builder::new().name("manifests".to_owned()).spawn(read).map_err(unreadable)?;
                None
            }
            (Registry::Kubernetes(api), Place::Kubernetes(desk)) => {
                let reader = Arc::downgrade(&shared);
                let see = move |seen| {
                    if let Some(reader) = reader.upgrade() {
                        reader.see(seen);
                    }
                };
                Some(api.attend(&desk.mirror, &desk.teller, see))
            }
            (Registry::Kubernetes(_), Place::Folder(_)) => None,
        };
        let keeper = shared.clone();
        let serve = move || runtime.block_on(stopped);
        std::thread::Builder::new().name("pods".to_owned()).spawn(serve).map_err(unreadable)?;
        let keep = move || {
            keeper.keep();
            drop(stop);
        };
        std::thread::Builder::new().name("cluster".to_owned()).spawn(keep).map_err(unreadable)?;
        Ok(Self { shared, _attendance: attendance })
    }

    /// Waits until the objects were read, their pods run and the cluster has told of them; false if that takes longer.
    pub fn wait_until_placed(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.placed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What is known of the objects, with what the lab writes.
    pub fn objects(&self) -> Arc<ObjectSet> {
        let state = self.shared.lock();
        let written = parse::file::file(folder::FILE, &state.written);
        let mut objects = parse::file::assemble(std::iter::once(&written));
        objects.objects.extend(state.objects.objects.iter().cloned());
        objects.objects.sort_by(|one, other| one.key.cmp(&other.key));
        objects.findings.extend(state.objects.findings.iter().cloned());
        Arc::new(objects)
    }

    /// What is wrong with workloads.
    pub fn findings(&self) -> Vec<Finding> {
        self.shared.lock().findings.clone()
    }

    /// What the cluster cannot do at the moment: place a pod, run it, or tell of it.
    pub fn troubles(&self) -> Vec<String> {
        let state = self.shared.lock();
        let waiting = |pending: &workload::Pending| {
            format!("{} of {} wait for a place: {}", pending.pods, pending.workload.name, pending.why)
        };
        let place = match &self.shared.place {
            Place::Folder(_) => None,
            Place::Kubernetes(desk) => desk.trouble(),
        };
        let waiting = state.placement.pending.iter().map(waiting);
        waiting.chain(state.failure.clone()).chain(state.unread.clone()).chain(place).collect()
    }

    /// Every pod.
    pub fn pods(&self) -> Vec<PodStatus> {
        self.shared.lock().placement.all().iter().map(Pod::status).collect()
    }

    /// The workloads, `namespace/name`.
    pub fn workloads(&self) -> Vec<String> {
        self.shared.lock().workloads.iter().map(|workload| workload.key.name.to_string()).collect()
    }

    /// Ends a pod as SIGKILL does. Whether there was one.
    pub fn kill(&self, name: &str) -> bool {
        let state = &mut *self.shared.lock();
        let Some(pod) = state.placement.all_mut().find(|pod| pod.name.to_string() == name) else { return false };
        pod.alive = false;
        let name = pod.name.clone();
        if let Some(running) = state.running.get_mut(&name) {
            running.kill();
        }
        state.dead.insert(name, Instant::now());
        self.shared.changed.notify_all();
        true
    }

    /// Wants another number of pods. Whether there is such a workload.
    pub fn scale(&self, name: &str, replicas: u32) -> Result<bool, ClientError> {
        let mut state = self.shared.lock();
        let found = state.workloads.iter().find(|workload| workload.key.name.to_string() == name);
        let Some(workload) = found.cloned() else { return Ok(false) };
        match &self.shared.place {
            Place::Folder(_) => drop(state.scale.insert(workload.key, replicas)),
            Place::Kubernetes(desk) => {
                drop(state);
                desk.scale(&workload, replicas)?;
            }
        }
        self.shared.changed.notify_all();
        Ok(true)
    }

    /// Looks at the nodes at once: one was switched on or off.
    pub fn nudge(&self) {
        self.shared.changed.notify_all();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl State {
    /// Whether the objects have a Node.
    fn has_node(&self, name: &NodeName) -> bool {
        let mut objects = self.objects.objects.iter();
        objects.any(|object| matches!(object.body, Body::Node(_)) && *object.key.name.name == *name.as_str())
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) {
        let mut state = self.lock();
        while !state.stopped {
            if state.read.is_some() || state.has_read {
                self.round(&mut state, Instant::now());
            }
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One look at everything.
    fn round(&self, state: &mut State, now: Instant) {
        self.see_nodes(state, now);
        if let Place::Kubernetes(desk) = &self.place
            && desk.api.is_away()
        {
            // Controllers do nothing without it. What runs goes on.
            return;
        }
        let mut failure = None;
        if let Some(objects) = state.read.take() {
            (state.workloads, state.findings) = workload::workloads(&objects);
            (state.objects, state.has_read) = (objects, true);
        }
        self.place(state, now);
        let placement = &mut state.placement;
        for pod in &mut placement.pods {
            if let Err(error) = self.run_pod(pod, &state.objects, &mut state.running, &state.dead) {
                failure = Some(format!("run {}: {error}", pod.name));
            }
        }
        for pod in placement.all_mut() {
            let lost = state.lost.get(&pod.node).map(|since| now.duration_since(*since));
            pod.ready = match lost {
                // The cluster has not heard of it.
                Some(since) if since < self.patience.node => pod.ready,
                Some(_) => false,
                None => pod.alive || (pod.ready && state.dead.contains_key(&pod.name)),
            };
        }
        match &self.place {
            Place::Folder(folder) => {
                if let Err(error) = self.write(state, folder) {
                    failure = Some(format!("write EndpointSlices: {error}"));
                }
            }
            Place::Kubernetes(desk) => self.tell(state, desk),
        }
        state.failure = failure;
    }

    /// Decides which pods there are, and where.
    fn place(&self, state: &mut State, now: Instant) {
        let gone = |since: &&Instant| now.duration_since(**since) >= self.patience.node + self.patience.eviction;
        let dead_nodes = state.lost.iter().filter(|(_, since)| gone(since)).map(|(node, _)| node.clone()).collect();
        let past = |since: &Instant, patience: Duration| now.duration_since(*since) >= patience;
        let ended = |(pod, since): (&ObjectName, &Instant), patience| past(since, patience).then(|| pod.clone());
        let killed = state.dead.iter().filter_map(|dead| ended(dead, self.patience.pod));
        let left = state.leaving.iter().filter_map(|leaving| ended(leaving, self.patience.termination));
        let dead_pods: BTreeSet<ObjectName> = killed.chain(left).collect();
        let deleted = std::mem::take(&mut state.deleted);
        let is_deleted = |pod: &&Pod| {
            let is_it = |deleted: &DeletedPod| {
                deleted.name == pod.name && deleted.addresses.iter().any(|ip| pod.addresses.iter().any(|own| own == ip))
            };
            deleted.iter().any(is_it)
        };
        let deleted_pods = state.placement.pods.iter().filter(is_deleted).map(|pod| pod.name.clone()).collect();
        let wanted = wanted(&self.site, state, &dead_pods, &deleted_pods, &dead_nodes);
        let placement = workload::schedule(&wanted, &state.placement);
        state.placement = placement;
        let placed: BTreeSet<ObjectName> = state.placement.all().into_iter().map(|pod| pod.name).collect();
        // Another one has its place now, of a StatefulSet under the same name.
        state.dead.retain(|pod, _| placed.contains(pod) && !dead_pods.contains(pod));
        state.running.retain(|pod, _| placed.contains(pod) && !dead_pods.contains(pod));
        let leaving: BTreeSet<&ObjectName> = state.placement.leaving.iter().map(|pod| &pod.name).collect();
        state.leaving.retain(|pod, _| leaving.contains(pod));
        for pod in leaving {
            state.leaving.entry(pod.clone()).or_insert(now);
        }
    }

    /// Notes which nodes are off. What ran on them is gone.
    fn see_nodes(&self, state: &mut State, now: Instant) {
        let nodes: BTreeSet<NodeName> = self.site.nodes.iter().map(|node| node.name.clone()).collect();
        for node in nodes {
            if let Some(host) = self.world.host(node.as_str()) {
                let before = state.hosts.insert(node.clone(), Arc::downgrade(&host));
                // It may have been off and on again since the last look.
                let is_another = before.is_some_and(|before| before.as_ptr() != Arc::as_ptr(&host));
                if state.lost.remove(&node).is_some() || is_another {
                    self.forget_pods_on(state, &node);
                }
            } else if !state.lost.contains_key(&node) {
                self.forget_pods_on(state, &node);
                state.lost.insert(node, now);
            }
        }
    }

    fn forget_pods_on(&self, state: &mut State, node: &NodeName) {
        for pod in state.placement.all_mut().filter(|pod| pod.node == *node) {
            pod.alive = false;
            state.running.remove(&pod.name);
        }
    }

    /// The Nodes of the cluster: their pod networks, and whether they were heard lately.
    fn nodes(&self, state: &State) -> impl Iterator<Item = (&Node, Value)> {
        topology::members(&self.site).map(|node| {
            let lost = state.lost.get(&node.name).is_some_and(|since| since.elapsed() >= self.patience.node);
            let heard = if lost { Heard::NotLately } else { Heard::Lately };
            (node, workload::node(node, &topology::pod_cidrs(&self.site, node), heard))
        })
    }
}

/// What there should be.
fn wanted<'a>(
    site: &'a Site,
    state: &'a State,
    dead_pods: &'a BTreeSet<ObjectName>,
    deleted_pods: &'a BTreeSet<ObjectName>,
    dead_nodes: &'a BTreeSet<NodeName>,
) -> Wanted<'a> {
    let State { objects, workloads, scale, .. } = state;
    Wanted { site, objects, workloads, scale, dead_pods, deleted_pods, dead_nodes }
}
