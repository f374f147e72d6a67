//! Which pods there are, on which nodes and with which addresses.
//!
//! The pods so far are an input: a pod stays where it is with what it has, as long as its workload, its template, its node
//! and its networks stay. So a change of one workload moves no pod of another, without any memory in here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dualgate_core::model::object::Body;
use dualgate_core::model::site::{Node, Role, Site};
use dualgate_core::model::{Dual, NodeName, Object, ObjectKey, ObjectName, ObjectSet};
use ipnet::IpNet;

use super::name;
use super::pod::Pod;
use super::read::{Workload, WorkloadKind};
use crate::topology::pod_cidrs;

/// How many pods a node takes: the kubelet's own default.
pub const MAX_PODS: usize = 110;

/// What there should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The nodes and the cluster's networks.
    pub site: &'a Site,
    /// For the labels of Nodes.
    pub objects: &'a ObjectSet,
    /// What wants pods, each key once.
    pub workloads: &'a [Workload],
    /// Other numbers of pods than the manifests say, by workload.
    pub scale: &'a BTreeMap<ObjectKey, u32>,
    /// Pods that are gone: others take their place.
    pub dead_pods: &'a BTreeSet<ObjectName>,
    /// Pods that somebody deleted: they leave, and others take their place.
    pub deleted_pods: &'a BTreeSet<ObjectName>,
    /// Nodes that the cluster has given up. The pods of Deployments move away; the others wait for their node, because
    /// there is never a second pod of a StatefulSet's name, and a DaemonSet's pod belongs to its node.
    pub dead_nodes: &'a BTreeSet<NodeName>,
}

/// The pods of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// In the order of their workloads and serials. The world changes their `ready` and `alive`.
    pub pods: Vec<Pod>,
    /// Those that nobody wants any more and that answer still, until they are among the dead. Their names and addresses are
    /// taken.
    pub leaving: Vec<Pod>,
    /// What could not be placed.
    pub pending: Vec<Pending>,
    /// The serial of the next pod of a workload.
    serials: BTreeMap<ObjectKey, u32>,
    /// The number of the last address that a node gave away: the next one is another, so that nobody who remembers the
    /// former pod meets the new one.
    last: BTreeMap<NodeName, u32>,
}

impl Placement {
    /// Every pod that there is.
    pub fn all(&self) -> Vec<Pod> {
        self.pods.iter().chain(&self.leaving).cloned().collect()
    }

    /// The same, for the world to say how they are.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Pod> {
        self.pods.iter_mut().chain(&mut self.leaving)
    }
}

/// Pods that wait for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What wants them.
    pub workload: ObjectKey,
    /// How many.
    pub pods: u32,
    /// Why they wait, and what to do.
    pub why: String,
}

/// Places what is wanted, moving as little as possible of what is there.
pub fn schedule(wanted: &Wanted<'_>, previous: &Placement) -> Placement {
    let mut scheduler = Scheduler {
        members: members(wanted),
        used: BTreeSet::new(),
        placement: Placement { pods: Vec::new(), leaving: Vec::new(), pending: Vec::new(), ..previous.clone() },
    };
    for workload in wanted.workloads {
        scheduler.keep(wanted, workload, previous);
    }
    scheduler.see_off(wanted, previous);
    for workload in wanted.workloads {
        scheduler.fill(wanted, workload);
    }
    let mut placement = scheduler.placement;
    placement.pods.sort_by(|a, b| (&a.workload, a.serial).cmp(&(&b.workload, b.serial)));
    let is_wanted = |key: &ObjectKey| wanted.workloads.iter().any(|workload| workload.key == *key);
    placement.serials.retain(|key, _| is_wanted(key));
    placement
}

/// A node that can run pods.
struct Member<'a> {
    node: &'a Node,
    labels: BTreeMap<String, String>,
    networks: Dual<IpNet>,
    /// Whether pods that ask for no node come here.
    is_schedulable: bool,
    is_dead: bool,
}

fn members<'a>(wanted: &Wanted<'a>) -> Vec<Member<'a>> {
    let runs_k3s = |node: &Node| node.has(Role::Server) || node.has(Role::Agent);
    let nodes = &wanted.site.nodes;
    let is_schedulable: &dyn Fn(&Node) -> bool = if nodes.iter().any(|node| !node.is_edge() && runs_k3s(node)) {
        &|node| !node.is_edge() && runs_k3s(node)
    } else if nodes.iter().any(|node| !node.is_edge()) {
        &|node| !node.is_edge()
    } else {
        &|_| true
    };
    let member = |node: &'a Node| {
        Some(Member {
            node,
            labels: labels(node, wanted.objects),
            networks: networks(wanted.site, node)?,
            is_schedulable: is_schedulable(node),
            is_dead: wanted.dead_nodes.contains(&node.name),
        })
    };
    nodes.iter().filter_map(member).collect()
}

/// Of the node's pod networks those of the families that the cluster has, one of each.
fn networks(site: &Site, node: &Node) -> Option<Dual<IpNet>> {
    let own = pod_cidrs(site, node);
    let has = |v4: bool| site.cluster.pod_cidrs.iter().any(|net| net.addr().is_ipv4() == v4);
    let of = |v4: bool| own.iter().find(|net| net.addr().is_ipv4() == v4).filter(|_| has(v4)).copied();
    Dual::new(of(true), of(false))
}

/// What K3s puts on a node, and what the manifest of the Node says.
fn labels(node: &Node, objects: &ObjectSet) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> =
        [("kubernetes.io/hostname", node.name.as_str()), ("kubernetes.io/os", "linux")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    if node.has(Role::Server) {
        labels.insert("node-role.kubernetes.io/control-plane".into(), "true".into());
    }
    if node.is_edge() {
        labels.insert("node-role.kubernetes.io/edge".into(), "true".into());
    }
    let is_its =
        |object: &&Arc<Object>| matches!(object.body, Body::Node(_)) && *object.key.name.name == *node.name.as_str();
    if let Some(object) = objects.objects.iter().find(is_its) {
        labels.extend(object.meta.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    labels
}

impl Member<'_> {
    fn suits(&self, workload: &Workload) -> bool {
        match &workload.node {
            // Past the scheduler.
            Some(name) => self.node.name == *name,
            None if workload.node_selector.is_empty() => self.is_schedulable,
            None => workload.node_selector.iter().all(|(name, value)| self.labels.get(name) == Some(value)),
        }
    }

    /// The addresses of this number, if the networks reach so far.
    fn addresses(&self, number: u32) -> Option<Dual<IpAddr>> {
        let of = |net: &IpNet| address(*net, number);
        match self.networks {
            Dual::V4(v4) => of(&v4).map(Dual::V4),
            Dual::V6(v6) => of(&v6).map(Dual::V6),
            Dual::Both { v4, v6 } => Some(Dual::Both { v4: of(&v4)?, v6: of(&v6)? }),
        }
    }

    fn holds(&self, addresses: &Dual<IpAddr>) -> bool {
        let inside = |net: Option<&IpNet>, address: Option<&IpAddr>| match (net, address) {
            (Some(net), Some(address)) => net.contains(address),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        inside(self.networks.v4(), addresses.v4()) && inside(self.networks.v6(), addresses.v6())
    }
}

/// Number 1 is the bridge's, and the last one of IPv4 is the broadcast address.
fn address(net: IpNet, number: u32) -> Option<IpAddr> {
    match net {
        IpNet::V4(net) => {
            let address: Ipv4Addr = u32::from(net.network()).checked_add(number)?.into();
            (net.contains(&address) && address != net.broadcast()).then_some(address.into())
        }
        IpNet::V6(net) => {
            let address: Ipv6Addr = u128::from(net.network()).checked_add(number.into())?.into();
            net.contains(&address).then_some(address.into())
        }
    }
}

/// The first number that a pod can have.
const FIRST: u32 = 2;
/// The last number that is tried in a network without end.
const LAST: u32 = 0xfffe;

struct Scheduler<'a> {
    members: Vec<Member<'a>>,
    used: BTreeSet<IpAddr>,
    placement: Placement,
}

impl Scheduler<'_> {
    /// The pods of a workload that can stay. The youngest are the first that are too many.
    fn keep(&mut self, wanted: &Wanted<'_>, workload: &Workload, previous: &Placement) {
        let can_stay = |pod: &&Pod| {
            pod.workload == workload.key
                && pod.template == workload.template
                && !wanted.dead_pods.contains(&pod.name)
                && !wanted.deleted_pods.contains(&pod.name)
                && self.members.iter().any(|member| {
                    let waits = !member.is_dead || workload.kind != WorkloadKind::Deployment;
                    let fits = workload.kind != WorkloadKind::DaemonSet || member.suits(workload);
                    member.node.name == pod.node && waits && fits && member.holds(&pod.addresses)
                })
        };
        let mut pods: Vec<Pod> = previous.pods.iter().filter(can_stay).cloned().collect();
        pods.sort_by_key(|pod| pod.serial);
        let replicas = replicas(wanted, workload);
        match workload.kind {
            WorkloadKind::Deployment => pods.truncate(replicas as usize),
            WorkloadKind::StatefulSet => pods.retain(|pod| pod.serial < replicas),
            WorkloadKind::DaemonSet => {}
        }
        self.used.extend(pods.iter().flat_map(|pod| pod.addresses.iter().copied()));
        self.placement.pods.extend(pods);
    }

    /// The pods that have to go and answer still: they do so for a while, as long as their node lives.
    fn see_off(&mut self, wanted: &Wanted<'_>, previous: &Placement) {
        let stays = |pod: &Pod| self.placement.pods.iter().any(|other| other.name == pod.name);
        let answers = |pod: &&Pod| {
            let on_live_node = |member: &Member<'_>| member.node.name == pod.node && !member.is_dead;
            pod.alive && !wanted.dead_pods.contains(&pod.name) && self.members.iter().any(on_live_node) && !stays(pod)
        };
        let leaving = previous.pods.iter().chain(&previous.leaving).filter(answers);
        let leaving: Vec<Pod> = leaving.map(|pod| Pod { terminating: true, ..pod.clone() }).collect();
        self.used.extend(leaving.iter().flat_map(|pod| pod.addresses.iter().copied()));
        self.placement.leaving = leaving;
    }

    /// Makes the pods that a workload lacks.
    fn fill(&mut self, wanted: &Wanted<'_>, workload: &Workload) {
        let own: Vec<&Pod> = self.placement.pods.iter().filter(|pod| pod.workload == workload.key).collect();
        let replicas = replicas(wanted, workload);
        match workload.kind {
            WorkloadKind::Deployment => {
                let missing = replicas.saturating_sub(u32::try_from(own.len()).unwrap_or(u32::MAX));
                for made in 0..missing {
                    if !self.make(workload, None, None) {
                        return self.wait(workload, missing - made);
                    }
                }
            }
            WorkloadKind::StatefulSet => {
                // There is never a second pod of a name: the next one waits until the last one has left.
                let leaving = self.placement.leaving.iter().filter(|pod| pod.workload == workload.key);
                let there: BTreeSet<u32> = own.iter().copied().chain(leaving).map(|pod| pod.serial).collect();
                for ordinal in (0..replicas).filter(|ordinal| !there.contains(ordinal)) {
                    if !self.make(workload, Some(ordinal), None) {
                        let made = self.placement.pods.iter().filter(|pod| pod.workload == workload.key).count();
                        return self.wait(workload, replicas.saturating_sub(u32::try_from(made).unwrap_or(replicas)));
                    }
                }
            }
            WorkloadKind::DaemonSet => {
                let there: BTreeSet<NodeName> = own.iter().map(|pod| pod.node.clone()).collect();
                let suits = |member: &&Member<'_>| member.suits(workload) && !member.is_dead;
                let nodes = self.members.iter().filter(suits).map(|member| member.node.name.clone());
                let lacking: Vec<NodeName> = nodes.filter(|node| !there.contains(node)).collect();
                let left_out = lacking.iter().filter(|node| !self.make(workload, None, Some(node))).count();
                if left_out > 0 || !self.members.iter().any(|member| member.suits(workload)) {
                    self.wait(workload, u32::try_from(left_out.max(1)).unwrap_or(u32::MAX));
                }
            }
        }
    }

    /// Makes one pod, if there is a place for it: where its workload has the fewest, then where there are the fewest.
    fn make(&mut self, workload: &Workload, ordinal: Option<u32>, only: Option<&NodeName>) -> bool {
        let pods_on = |node: &NodeName| self.placement.pods.iter().filter(|pod| pod.node == *node).count();
        let own_on = |node: &NodeName| {
            self.placement.pods.iter().filter(|pod| pod.node == *node && pod.workload == workload.key).count()
        };
        let free = self.members.iter().filter(|member| {
            let name = &member.node.name;
            !member.is_dead
                && member.suits(workload)
                && only.is_none_or(|only| only == name)
                && pods_on(name) < MAX_PODS
        });
        let free = free.filter_map(|member| Some((member, self.next_number(member)?)));
        let best = free.min_by_key(|(member, _)| (own_on(&member.node.name), pods_on(&member.node.name)));
        let Some((member, number)) = best else { return false };
        let Some(addresses) = member.addresses(number) else { return false };
        let node = member.node.name.clone();
        let (serial, name) = self.name(workload, ordinal);
        let mut labels = workload.labels.clone();
        match workload.kind {
            WorkloadKind::Deployment => {
                labels.insert("pod-template-hash".into(), name::encoded(workload.template, 10));
            }
            WorkloadKind::StatefulSet => {
                labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
                labels.insert("apps.kubernetes.io/pod-index".into(), serial.to_string());
            }
            WorkloadKind::DaemonSet => {}
        }
        self.used.extend(addresses.iter().copied());
        self.placement.last.insert(node.clone(), number);
        self.placement.pods.push(Pod {
            name: ObjectName::new(workload.key.name.namespace.clone(), name),
            workload: workload.key.clone(),
            serial,
            node,
            addresses,
            labels,
            ports: workload.ports.clone(),
            subdomain: workload.subdomain.clone(),
            template: workload.template,
            ready: false,
            alive: false,
            terminating: false,
        });
        true
    }

    /// The next number whose addresses are free: after the last one that was given away, and round again.
    fn next_number(&self, member: &Member<'_>) -> Option<u32> {
        let last = self.placement.last.get(&member.node.name).copied().unwrap_or(FIRST - 1);
        let is_free = |number: &u32| {
            let addresses = member.addresses(*number);
            addresses.is_some_and(|addresses| addresses.iter().all(|address| !self.used.contains(address)))
        };
        (last + 1..=LAST).take_while(|number| member.addresses(*number).is_some()).chain(FIRST..=last).find(is_free)
    }

    /// `name-0`, `name-x2x9k` or `name-5f6d8c9b7c-x2x9k`, which no other pod has.
    fn name(&mut self, workload: &Workload, ordinal: Option<u32>) -> (u32, String) {
        let (namespace, own) = (&*workload.key.name.namespace, &*workload.key.name.name);
        if let Some(ordinal) = ordinal {
            return (ordinal, format!("{own}-{ordinal}"));
        }
        let base = match workload.kind {
            WorkloadKind::Deployment => format!("{own}-{}-", name::encoded(workload.template, 10)),
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => format!("{own}-"),
        };
        let next = self.placement.serials.entry(workload.key.clone()).or_default();
        loop {
            let serial = *next;
            *next = next.wrapping_add(1);
            let digest = name::digest(&[&workload.key.kind, namespace, own, &serial.to_string()]);
            let name = name::generated(&base, digest);
            let is_taken = |pod: &Pod| {
                *pod.name.name == *name && *pod.name.namespace == *namespace
                    || pod.serial == serial && pod.workload == workload.key
            };
            if !self.placement.pods.iter().chain(&self.placement.leaving).any(is_taken) {
                return (serial, name);
            }
        }
    }

    fn wait(&mut self, workload: &Workload, pods: u32) {
        let suitable = || self.members.iter().filter(|member| member.suits(workload));
        let why = if self.members.is_empty() {
            "no node has a network for pods: give `cluster.podCIDRs` in the site file".to_owned()
        } else if suitable().next().is_none() {
            match &workload.node {
                Some(node) => format!("the site has no node `{node}` that runs pods, which `nodeName` asks for"),
                None => "no node has the labels of `nodeSelector`: write them into a manifest of the Node".to_owned(),
            }
        } else if suitable().all(|member| member.is_dead) {
            "every node that suits is down".to_owned()
        } else {
            format!("every node that suits is full: {MAX_PODS} pods, or every address is taken")
        };
        self.placement.pending.push(Pending { workload: workload.key.clone(), pods, why });
    }
}

pub(super) fn replicas(wanted: &Wanted<'_>, workload: &Workload) -> u32 {
    wanted.scale.get(&workload.key).copied().unwrap_or(workload.replicas)
}
