//! What K3s does on a real site: runs the pods that the manifests want, and tells in EndpointSlices which of them are ready.
//!
//! A pod is a network of its own behind its node's bridge, and an echo backend in it. What the cluster knows comes as late as
//! in Kubernetes: of a node that is gone it hears after [`Patience::node`], and only then are its pods not ready.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use dualgate_core::model::finding::Finding;
use dualgate_core::model::object::{Body, Object};
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::{NodeName, ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse;
use dualgate_core::seam::Source as _;
use dualgate_host::FolderSource;
use dualgate_host::folder::FolderError;
use dualgate_host::namespace::{self, Namespace};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};

use crate::echo::{self, Backend};
use crate::report::PodStatus;
use crate::topology::{self, Interface, POD_BRIDGE, default_route, first_host};
use crate::trial::chain;
use crate::workload::{self, Placement, Pod, Wanted, Workload};
use crate::world::World;

/// How often the cluster looks at its pods and nodes when nobody calls it.
const LOOK: Duration = Duration::from_millis(100);
/// The file that holds what a cluster itself writes, beside the manifests: Nodes and EndpointSlices.
const SLICES: &str = "lab-cluster.yaml";

/// How long the cluster takes to hear of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// That a pod has ended; another one is started then.
    pub pod: Duration,
    /// That a node is gone: its pods are not ready from then on (`node-monitor-grace-period`).
    pub node: Duration,
    /// That it stays away: its pods are started elsewhere (`tolerationSeconds` of `not-ready`), counted from `node`.
    pub eviction: Duration,
}

impl Default for Patience {
    /// As Kubernetes does unless it is told otherwise.
    fn default() -> Self {
        Self { pod: Duration::from_secs(1), node: Duration::from_secs(40), eviction: Duration::from_secs(300) }
    }
}

/// The cluster of a lab.
#[derive(Debug)]
pub struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    site: Arc<Site>,
    manifests: PathBuf,
    patience: Patience,
    /// Where the pods' backends run.
    runtime: Handle,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the manifests say, once somebody has read them.
    read: Option<Arc<ObjectSet>>,
    objects: Arc<ObjectSet>,
    workloads: Vec<Workload>,
    findings: Vec<Finding>,
    placement: Placement,
    scale: BTreeMap<ObjectKey, u32>,
    running: BTreeMap<ObjectName, Running>,
    dead: BTreeMap<ObjectName, Instant>,
    /// The hosts of the nodes that were on at the last look.
    hosts: BTreeMap<NodeName, Weak<Namespace>>,
    /// Nodes that are off, since when.
    lost: BTreeMap<NodeName, Instant>,
    slices: Option<String>,
    failure: Option<String>,
    /// Why the manifests cannot be read.
    unread: Option<String>,
    stopped: bool,
}

/// A pod that runs.
#[derive(Debug)]
struct Running {
    network: OwnedFd,
    /// What it listens on, for whom; another Service may want more.
    ports: BTreeSet<u16>,
    /// `None` once it was killed.
    backend: Option<Backend>,
}

impl Cluster {
    /// Starts it. `source` is the folder of the manifests; what the nodes read is in `manifests`.
    pub fn start(
        world: Arc<World>,
        site: Arc<Site>,
        source: &Path,
        manifests: &Path,
        patience: Patience,
    ) -> Result<Self, FolderError> {
        let unreadable = |source_error: io::Error| FolderError::Read { path: source.to_owned(), source: source_error };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unreadable)?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = Arc::new(Shared {
            world,
            site,
            manifests: manifests.to_owned(),
            patience,
            runtime: runtime.handle().clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let folder = FolderSource::new(source)?;
        let reader = shared.clone();
        let read = move || reader.read(folder);
        std::thread::Builder::new().name("manifests".to_owned()).spawn(read).map_err(unreadable)?;
        let keeper = shared.clone();
        let serve = move || runtime.block_on(stopped);
        std::thread::Builder::new().name("pods".to_owned()).spawn(serve).map_err(unreadable)?;
        let keep = move || {
            keeper.keep();
            drop(stop);
        };
        std::thread::Builder::new().name("cluster".to_owned()).spawn(keep).map_err(unreadable)?;
        Ok(Self(shared))
    }

    /// Waits until the manifests were read and their pods run; false if that takes longer.
    pub fn wait_until_placed(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.0.lock();
        while state.slices.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What is known of the objects, with the EndpointSlices that the lab writes.
    pub fn objects(&self) -> Arc<ObjectSet> {
        let state = self.0.lock();
        let written = parse::file::file(SLICES, state.slices.as_deref().unwrap_or_default());
        let mut objects = parse::file::assemble(std::iter::once(&written));
        objects.objects.extend(state.objects.objects.iter().cloned());
        objects.objects.sort_by(|one, other| one.key.cmp(&other.key));
        objects.findings.extend(state.objects.findings.iter().cloned());
        Arc::new(objects)
    }

    /// What is wrong with workloads.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.lock().findings.clone()
    }

    /// What the cluster cannot do at the moment: place a pod, or run it.
    pub fn troubles(&self) -> Vec<String> {
        let state = self.0.lock();
        let waiting = |pending: &workload::Pending| {
            format!("{} of {} wait for a place: {}", pending.pods, pending.workload.name, pending.why)
        };
        state.placement.pending.iter().map(waiting).chain(state.failure.clone()).chain(state.unread.clone()).collect()
    }

    /// Every pod.
    pub fn pods(&self) -> Vec<PodStatus> {
        self.0.lock().placement.pods.iter().map(Pod::status).collect()
    }

    /// The workloads, `namespace/name`.
    pub fn workloads(&self) -> Vec<String> {
        self.0.lock().workloads.iter().map(|workload| workload.key.name.to_string()).collect()
    }

    /// Ends a pod as SIGKILL does. Whether there was one.
    pub fn kill(&self, name: &str) -> bool {
        let state = &mut *self.0.lock();
        let Some(pod) = state.placement.pods.iter_mut().find(|pod| pod.name.to_string() == name) else { return false };
        pod.alive = false;
        if let Some(running) = state.running.get_mut(&pod.name) {
            running.backend = None;
        }
        state.dead.insert(pod.name.clone(), Instant::now());
        self.0.changed.notify_all();
        true
    }

    /// Wants another number of pods. Whether there is such a workload.
    pub fn scale(&self, name: &str, replicas: u32) -> bool {
        let state = &mut *self.0.lock();
        let found = state.workloads.iter().find(|workload| workload.key.name.to_string() == name);
        let Some(key) = found.map(|workload| workload.key.clone()) else { return false };
        state.scale.insert(key, replicas);
        self.0.changed.notify_all();
        true
    }

    /// Looks at the nodes at once: one was switched on or off.
    pub fn nudge(&self) {
        self.0.changed.notify_all();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the manifests whenever they change.
    fn read(&self, mut folder: FolderSource) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.lock().unread = Some(format!("start a runtime for the manifests: {error}"));
                return;
            }
        };
        let mut previous = Arc::<ObjectSet>::default();
        loop {
            let objects = match runtime.block_on(folder.next()) {
                Ok(objects) => objects,
                Err(error) => {
                    self.lock().unread = Some(chain(&error));
                    std::thread::park_timeout(Duration::from_secs(1));
                    continue;
                }
            };
            let text = |file: &str| std::fs::read_to_string(file).ok();
            previous = Arc::new(workload::with_templates(&objects, text, &previous));
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            state.unread = None;
            state.read = Some(previous.clone());
            drop(state);
            self.changed.notify_all();
        }
    }

    fn keep(&self) {
        let mut state = self.lock();
        while !state.stopped {
            if state.read.is_some() || !state.workloads.is_empty() {
                self.round(&mut state, Instant::now());
            }
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One look at everything.
    fn round(&self, state: &mut State, now: Instant) {
        let mut failure = None;
        if let Some(objects) = state.read.take() {
            (state.workloads, state.findings) = workload::workloads(&objects);
            state.objects = objects;
        }
        self.see_nodes(state, now);
        let gone = |since: &&Instant| now.duration_since(**since) >= self.patience.node + self.patience.eviction;
        let dead_nodes = state.lost.iter().filter(|(_, since)| gone(since)).map(|(node, _)| node.clone()).collect();
        let noticed = |since: &Instant| now.duration_since(*since) >= self.patience.pod;
        let dead_pods: BTreeSet<ObjectName> =
            state.dead.iter().filter(|(_, since)| noticed(since)).map(|(pod, _)| pod.clone()).collect();
        let wanted = Wanted {
            site: &self.site,
            objects: &state.objects,
            workloads: &state.workloads,
            scale: &state.scale,
            dead_pods: &dead_pods,
            dead_nodes: &dead_nodes,
        };
        state.placement = workload::schedule(&wanted, &state.placement);
        let placed: BTreeSet<ObjectName> = state.placement.pods.iter().map(|pod| pod.name.clone()).collect();
        // Another one has its place now, of a StatefulSet under the same name.
        state.dead.retain(|pod, _| placed.contains(pod) && !dead_pods.contains(pod));
        state.running.retain(|pod, _| !dead_pods.contains(pod));
        state.running.retain(|pod, _| placed.contains(pod));
        for pod in &mut state.placement.pods {
            if let Err(error) = self.run_pod(pod, &state.objects, &mut state.running, &state.dead) {
                failure = Some(format!("run {}: {error}", pod.name));
            }
            let lost = state.lost.get(&pod.node).map(|since| now.duration_since(*since));
            pod.ready = match lost {
                // The cluster has not heard of it.
                Some(since) if since < self.patience.node => pod.ready,
                Some(_) => false,
                None => pod.alive || (pod.ready && state.dead.contains_key(&pod.name)),
            };
        }
        if let Err(error) = self.tell(state) {
            failure = Some(format!("write EndpointSlices: {error}"));
        }
        state.failure = failure;
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
        for pod in state.placement.pods.iter_mut().filter(|pod| pod.node == *node) {
            pod.alive = false;
            state.running.remove(&pod.name);
        }
    }

    /// Starts a pod that does not run, if its node is on.
    fn run_pod(
        &self,
        pod: &mut Pod,
        objects: &ObjectSet,
        running: &mut BTreeMap<ObjectName, Running>,
        dead: &BTreeMap<ObjectName, Instant>,
    ) -> Result<(), String> {
        let is_on = self.world.host(pod.node.as_str()).is_some();
        if dead.contains_key(&pod.name) || !is_on {
            return Ok(());
        }
        let ports = pod.listens(objects);
        let failed = |error: io::Error| error.to_string();
        if let Some(running) = running.get_mut(&pod.name) {
            if let Some(backend) = &running.backend {
                let more: BTreeSet<u16> = ports.difference(&running.ports).copied().collect();
                self.serve(backend, pod, &more, &running.network).map_err(failed)?;
                running.ports.extend(more);
            }
            return Ok(());
        }
        let network = self.plug_in(pod)?;
        let backend = Backend::new(pod.identity(objects));
        self.serve(&backend, pod, &ports, &network).map_err(failed)?;
        pod.alive = true;
        running.insert(pod.name.clone(), Running { network, ports, backend: Some(backend) });
        Ok(())
    }

    /// A network for a pod, behind its node's bridge.
    fn plug_in(&self, pod: &Pod) -> Result<OwnedFd, String> {
        let host = self.world.topology().hosts.iter().find(|host| host.name == pod.node.as_str());
        let cidrs = host.map(|host| host.pod_cidrs.as_slice()).unwrap_or_default();
        let cidr = |address: &IpAddr| cidrs.iter().find(|cidr| cidr.contains(address)).copied();
        let nets = pod.addresses.iter().filter_map(|address| IpNet::new(*address, cidr(address)?.prefix_len()).ok());
        let gateways = pod.addresses.iter().filter_map(|address| first_host(cidr(address)?));
        let eth0 = Interface {
            name: "eth0".to_owned(),
            mtu: 1500,
            addresses: nets.collect(),
            routes: gateways.map(default_route).collect(),
            ..Interface::default()
        };
        let network = namespace::network().map_err(|error| error.to_string())?;
        self.world.hang(pod.node.as_str(), POD_BRIDGE, &port_name(pod), network, &eth0).map_err(|error| chain(&error))
    }

    /// Lets a backend answer on these ports of its pod.
    fn serve(&self, backend: &Backend, pod: &Pod, ports: &BTreeSet<u16>, network: &OwnedFd) -> io::Result<()> {
        let any = |address: &IpAddr| match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let everywhere: Vec<IpAddr> = pod.addresses.iter().map(any).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let open = || -> io::Result<Vec<TcpListener>> {
            let all = ports.iter().flat_map(|port| everywhere.iter().map(|ip| SocketAddr::new(*ip, *port)));
            all.map(|address| echo::listen(address).map(TcpListener::from)).collect()
        };
        let listeners = namespace::in_network(network.as_fd(), open)?;
        let _context = self.runtime.enter();
        for listener in listeners {
            backend.serve(listener).map_err(|error| io::Error::other(chain(&error)))?;
        }
        Ok(())
    }

    /// The Nodes of the cluster, but those that the manifests have: their pod networks, and whether they were heard lately.
    fn nodes(&self, state: &State) -> Vec<Value> {
        let written = |name: &NodeName| {
            let is_it =
                |object: &Arc<Object>| matches!(object.body, Body::Node(_)) && *object.key.name.name == *name.as_str();
            state.objects.objects.iter().any(is_it)
        };
        let members = topology::members(&self.site).filter(|node| !written(&node.name));
        let node = |node: &Node| {
            let cidrs: Vec<String> = topology::pod_cidrs(&self.site, node).iter().map(ToString::to_string).collect();
            let address = |address: &IpAddr| json!({"type": "InternalIP", "address": address.to_string()});
            let lost = state.lost.get(&node.name).is_some_and(|since| since.elapsed() >= self.patience.node);
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": node.name.as_str()},
                "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
                "status": {
                    "addresses": node.addresses.iter().map(address).collect::<Vec<_>>(),
                    "conditions": [{"type": "Ready", "status": if lost { "Unknown" } else { "True" }}],
                },
            })
        };
        members.map(node).collect()
    }

    /// Writes the Nodes and EndpointSlices, if they changed.
    fn tell(&self, state: &mut State) -> io::Result<()> {
        let mut objects = self.nodes(state);
        objects.extend(workload::endpoint_slices(&state.objects, &state.placement.pods));
        let text = workload::manifest(&objects);
        if state.slices.as_ref() != Some(&text) {
            let part = self.manifests.join(format!(".{SLICES}"));
            std::fs::write(&part, &text)?;
            std::fs::rename(part, self.manifests.join(SLICES))?;
            state.slices = Some(text);
        }
        Ok(())
    }
}

/// `veth` and a checksum of the pod's name, as container networks call their interfaces.
fn port_name(pod: &Pod) -> String {
    let name = pod.name.to_string();
    let sum = name.bytes().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("veth{sum:08x}")
}
