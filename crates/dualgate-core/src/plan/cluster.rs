//! What is written back to the cluster: where an Ingress is served, which addresses a Service has, which nodes are edges.
//!
//! One home node at a time writes it (`machine::lease`), when and how often `machine::writes` says. What stands there
//! comes back as objects, with whose it is; so the difference is between this plan and the objects, and is empty once
//! they say what is planned.
//!
//! **Ingress** `status.loadBalancer`: the addresses of the gates at which it has a route to a backend. The internal
//! gate's come before the external one's, IPv4 before IPv6.
//!
//! **Service** `status.loadBalancer`: the addresses that it was assigned, and a condition that says why some are missing.
//!
//! **Node** labels of edges, which a kubelet may not give itself (NodeRestriction).
//!
//! Whatever is not ours is not touched; what was ours and is not planned any more is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::dns::silent;
use super::ipam::{self, ServiceUse};
use crate::lower::{Lowered, LoweredIngress};
use crate::model::changes::changes;
use crate::model::object::{Body, Object, Service};
use crate::model::site::{Node, Role, Site};
use crate::model::{Family, GateName, NodeName, ObjectKey, ObjectName, ObjectSet, Snapshot};
use crate::route::{Action, EntryPointSet};

mod write;

pub use write::{Fields, Transition, Write};

/// The labels of an edge. A kubelet can set neither: the first is a role, and the second has a prefix that is kept from
/// it, so that others may rely on it where security depends on it.
pub const EDGE_LABELS: [&str; 2] = ["node-role.kubernetes.io/edge", "node-restriction.kubernetes.io/dualgate-edge"];

/// What is written back to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterPlan {
    /// The addresses of every Ingress that is served.
    pub ingresses: BTreeMap<ObjectName, Arc<[IpAddr]>>,
    /// Every Service that gets its addresses from us.
    pub services: BTreeMap<ObjectName, ServiceStatus>,
    /// The labels of every edge.
    pub labels: BTreeMap<NodeName, BTreeMap<&'static str, &'static str>>,
}

/// What a Service's status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceStatus {
    /// What it says: others are about to be assigned.
    AsItIs,
    /// This.
    Says {
        /// Its addresses, in the order of its families.
        addresses: Arc<[IpAddr]>,
        /// Why not more.
        transition: Arc<Transition>,
    },
}

/// What is written back for a snapshot.
pub fn cluster(snapshot: &Snapshot, lowered: &Lowered) -> ClusterPlan {
    ClusterPlan {
        ingresses: ingresses(snapshot, lowered),
        services: services(snapshot),
        labels: labels(&snapshot.site),
    }
}

impl ClusterPlan {
    /// What is to be written so that the objects say what is planned, in their order.
    pub fn diff(&self, objects: &ObjectSet) -> Vec<Arc<Write>> {
        // Both are in the order of names, so nobody is looked for.
        let mut planned = self.ingresses.iter().peekable();
        let of_ingress = objects.of_kind("Ingress").iter().filter_map(|object| {
            let name = &object.key.name;
            let mut addresses = planned.next_if(|(planned, _)| *planned == name);
            if addresses.is_none() {
                while planned.next_if(|(planned, _)| *planned < name).is_some() {}
                addresses = planned.next_if(|(planned, _)| *planned == name);
            }
            let Body::Ingress(ingress) = &object.body else { return None };
            write::of_ingress(object, ingress, addresses.map(|(_, addresses)| addresses))
        });
        let mut writes: Vec<Write> = of_ingress.collect();
        writes.extend(objects.of_kind("Node").iter().filter_map(|object| {
            let planned = self.labels.get(&NodeName::new(object.key.name.name.clone()));
            write::of_node(object, planned.cloned().unwrap_or_default())
        }));
        writes.extend(
            objects
                .of_kind("Service")
                .iter()
                .filter_map(|object| of_service(object, self.services.get(&object.key.name))),
        );
        writes.into_iter().map(Arc::new).collect()
    }
}

fn of_service(object: &Object, planned: Option<&ServiceStatus>) -> Option<Write> {
    let Body::Service(service) = &object.body else { return None };
    match planned {
        Some(ServiceStatus::AsItIs) => None,
        Some(ServiceStatus::Says { addresses, transition }) => {
            write::of_service(object, service, addresses, transition)
        }
        None => write::nothing(object),
    }
}

/// What is to be written, from one snapshot to the next: [`cluster`] and [`ClusterPlan::diff`] for what changed, so that a
/// change costs work for itself.
#[derive(Debug, Default)]
pub struct Memo {
    site: Option<Arc<Site>>,
    objects: Arc<ObjectSet>,
    silent: BTreeSet<NodeName>,
    ingresses: Vec<Arc<LoweredIngress>>,
    services: BTreeMap<ObjectName, ServiceStatus>,
    writes: BTreeMap<ObjectKey, Arc<Write>>,
}

impl Memo {
    /// What is to be written so that the objects say what is planned, in their order.
    pub fn writes(&mut self, snapshot: &Snapshot, lowered: &Lowered) -> Vec<Arc<Write>> {
        if !self.site.as_ref().is_some_and(|site| Arc::ptr_eq(site, &snapshot.site)) {
            *self = Self { site: Some(snapshot.site.clone()), ..Self::default() };
        }
        let silent = silent(snapshot).into_iter().cloned().collect();
        if self.silent != silent {
            // They are looked at again, all of them.
            (self.silent, self.ingresses) = (silent, Vec::new());
        }
        let mut found = self.of_ingresses(snapshot, lowered);
        found.extend(self.of_nodes(snapshot));
        let services = services(snapshot);
        found.extend(self.of_services(snapshot, &services));
        for (key, write) in found {
            match write {
                Some(write) => drop(self.writes.insert(key, Arc::new(write))),
                None => drop(self.writes.remove(&key)),
            }
        }
        self.services = services;
        self.ingresses.clone_from(&lowered.ingresses);
        self.objects = snapshot.objects.clone();
        self.writes.values().cloned().collect()
    }

    /// The objects of a kind that are others than before, or gone.
    fn changed<'a>(&'a self, snapshot: &'a Snapshot, kind: &str) -> impl Iterator<Item = &'a ObjectKey> {
        let (before, after) = (self.objects.of_kind(kind), snapshot.objects.of_kind(kind));
        let changes = changes(before, after, |object| &object.key);
        changes.into_iter().filter_map(|(old, new)| new.or(old)).map(|object| &object.key)
    }

    fn of_ingresses(&self, snapshot: &Snapshot, lowered: &Lowered) -> Vec<(ObjectKey, Option<Write>)> {
        let of_lowered = changes(&self.ingresses, &lowered.ingresses, |ingress| &ingress.key().name);
        let of_lowered = of_lowered.into_iter().filter_map(|(old, new)| new.or(old)).map(|ingress| ingress.key());
        let touched: BTreeSet<&ObjectKey> = of_lowered.chain(self.changed(snapshot, "Ingress")).collect();
        let mut served = Served::new(snapshot, lowered);
        let mut write = |key: &ObjectKey| {
            let object = object(snapshot, key)?;
            let Body::Ingress(ingress) = &object.body else { return None };
            let at = lowered.ingresses.binary_search_by(|ingress| ingress.key().name.cmp(&key.name));
            let lowered = at.ok().and_then(|at| lowered.ingresses.get(at));
            let addresses = lowered.map(|lowered| served.addresses(lowered));
            write::of_ingress(object, ingress, addresses.as_ref())
        };
        touched.into_iter().map(|key| (key.clone(), write(key))).collect()
    }

    fn of_nodes(&self, snapshot: &Snapshot) -> Vec<(ObjectKey, Option<Write>)> {
        let mut labels = labels(&snapshot.site);
        let mut write = |key: &ObjectKey| {
            let planned = labels.remove(&NodeName::new(key.name.name.clone()));
            write::of_node(object(snapshot, key)?, planned.unwrap_or_default())
        };
        self.changed(snapshot, "Node").map(|key| (key.clone(), write(key))).collect()
    }

    fn of_services(
        &self,
        snapshot: &Snapshot,
        told: &BTreeMap<ObjectName, ServiceStatus>,
    ) -> Vec<(ObjectKey, Option<Write>)> {
        let names = told.keys().chain(self.services.keys());
        let others = names.filter(|name| told.get(*name) != self.services.get(*name));
        let changed = self.changed(snapshot, "Service").map(|key| &key.name);
        let touched: BTreeSet<&ObjectName> = others.chain(changed).collect();
        let write = |name: &ObjectName| {
            let object = snapshot.objects.get("Service", &name.namespace, &name.name)?;
            of_service(object, told.get(name))
        };
        let key = |name: &ObjectName| ObjectKey { kind: "Service".into(), name: name.clone() };
        touched.into_iter().map(|name| (key(name), write(name))).collect()
    }
}

fn object<'a>(snapshot: &'a Snapshot, key: &ObjectKey) -> Option<&'a Arc<Object>> {
    snapshot.objects.get(&key.kind, &key.name.namespace, &key.name.name)
}

fn ingresses(snapshot: &Snapshot, lowered: &Lowered) -> BTreeMap<ObjectName, Arc<[IpAddr]>> {
    let mut served = Served::new(snapshot, lowered);
    let told = lowered.ingresses.iter().map(|ingress| (ingress.key().name.clone(), served.addresses(ingress)));
    told.filter(|(_, addresses)| !addresses.is_empty()).collect()
}

/// Where Ingresses are served.
struct Served<'a> {
    site: &'a Site,
    silent: BTreeSet<&'a NodeName>,
    gates: [(GateName, EntryPointSet); 2],
    /// Nearly all Ingresses are served at the same few sets of gates.
    shared: BTreeMap<[bool; 2], Arc<[IpAddr]>>,
}

impl<'a> Served<'a> {
    fn new(snapshot: &'a Snapshot, lowered: &Lowered) -> Self {
        let gates = GateName::ALL.map(|gate| (gate, lowered.entry_points.of_gate(gate)));
        Self { site: &snapshot.site, silent: silent(snapshot), gates, shared: BTreeMap::new() }
    }

    fn addresses(&mut self, ingress: &LoweredIngress) -> Arc<[IpAddr]> {
        let routes = ingress.routes.iter().filter(|route| matches!(route.action, Action::Forward(_)));
        let set = routes.fold(EntryPointSet::default(), |set, route| set.or(route.entry_points));
        let at = self.gates.map(|(_, points)| points.intersects(set));
        let gates = self.gates.iter().zip(at).filter(|(_, at)| *at);
        let of_gates = || gates.flat_map(|((gate, _), _)| published(self.site, *gate, &self.silent)).collect();
        self.shared.entry(at).or_insert_with(of_gates).clone()
    }
}

/// Where clients reach a gate, IPv4 first: its virtual IPs, else the addresses of the nodes that serve it. Behind an
/// address that is only the node's own, such as the private one of a cloud server, are the public ones of its family. Edges
/// that home does not hear are left out, unless none is left; so it is with names.
fn published(site: &Site, gate: GateName, silent: &BTreeSet<&NodeName>) -> Vec<IpAddr> {
    let Some(of_gate) = site.gates.get(&gate) else { return Vec::new() };
    let nodes = || site.nodes.iter().filter(|node| node.has(Role::of_gate(gate)));
    let is_heard = |node: &&Node| !silent.contains(&node.name);
    let is_any_heard = nodes().any(|node| is_heard(&node));
    let mut addresses = BTreeSet::new();
    for node in nodes().filter(|node| is_heard(node) || !is_any_heard) {
        let known = match gate {
            GateName::Internal => &node.addresses,
            GateName::External => &node.public_addresses,
        };
        for address in of_gate.addresses_on(gate, node) {
            let stands_for_known = address.is_unspecified() || node.addresses.contains(address);
            let same_family = |known: &&IpAddr| Family::of(**known) == Family::of(*address) || is_any(*address);
            match stands_for_known && !known.contains(address) {
                true => addresses.extend(known.iter().filter(same_family)),
                false => drop(addresses.insert(*address)),
            }
        }
    }
    // The order of addresses is IPv4 before IPv6.
    addresses.into_iter().filter(|address| !address.is_loopback()).collect()
}

/// Whether it is `::`, which takes both families.
fn is_any(address: IpAddr) -> bool {
    address.is_ipv6() && address.is_unspecified()
}

fn services(snapshot: &Snapshot) -> BTreeMap<ObjectName, ServiceStatus> {
    let used = ipam::assign(snapshot).services;
    let mut used: BTreeMap<&ObjectName, &ServiceUse> = used.iter().map(|used| (&used.service, used)).collect();
    let mut told = BTreeMap::new();
    for object in snapshot.objects.of_kind("Service") {
        let Body::Service(service) = &object.body else { continue };
        let Some(used) = used.remove(&object.key.name) else { continue };
        if let Some(status) = service_status(snapshot, object, service, used) {
            told.insert(object.key.name.clone(), status);
        }
    }
    told
}

/// `None` for a Service that another load balancer may serve, and that we have nothing for.
fn service_status(snapshot: &Snapshot, object: &Object, service: &Service, used: &ServiceUse) -> Option<ServiceStatus> {
    let addresses: Vec<IpAddr> = used.addresses.iter().map(|held| held.address).collect();
    if snapshot.facts.assigned.of(&object.key.name) != addresses {
        return Some(ServiceStatus::AsItIs);
    }
    let is_served_by_others = !service.published.is_empty() && !object.managed.is_load_balancer_ours;
    let may_be_others = service.load_balancer_class().is_none();
    if addresses.is_empty() && may_be_others && (snapshot.site.pools.is_empty() || is_served_by_others) {
        return None;
    }
    let missing = used.missing.iter().map(|missing| format!("no {}: {}", missing.family, missing.why));
    let missing = missing.collect::<Vec<_>>().join("; ");
    let (is_true, reason, message) = match (addresses.is_empty(), missing.is_empty()) {
        (true, _) => (false, "NoAddress", missing),
        (false, false) => (true, "FamilyMissing", missing),
        (false, true) => (true, "Assigned", of_pools(used)),
    };
    let transition = Transition { is_true, reason, message };
    Some(ServiceStatus::Says { addresses: addresses.into(), transition: transition.into() })
}

fn of_pools(used: &ServiceUse) -> String {
    let pools: BTreeSet<&str> = used.addresses.iter().map(|held| &*held.pool).collect();
    let pools: Vec<&str> = pools.into_iter().collect();
    format!("from pool `{}`", pools.join("`, `"))
}

fn labels(site: &Site) -> BTreeMap<NodeName, BTreeMap<&'static str, &'static str>> {
    let edges = site.nodes.iter().filter(|node| node.is_edge());
    edges.map(|node| (node.name.clone(), EDGE_LABELS.iter().map(|key| (*key, "true")).collect())).collect()
}
