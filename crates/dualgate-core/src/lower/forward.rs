//! Ports of Services of type LoadBalancer that we forward ourselves, because nobody else does.
//!
//! No Ingress needs to name them. Which addresses they have is a fact (`Facts::assigned`); without any, nothing here costs
//! time. What a gate listens on stays the gate's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::model::object::{Protocol, Service, ServicePort, ServiceType, TrafficPolicy};
use crate::model::site::{Node, Role, Site};
use crate::model::snapshot::{Facts, ServiceProxy};
use crate::model::{Code, Finding, NodeName, Object};
use crate::plan::forward::{Forward, ForwardId, Transport};
use crate::plan::proxy::{self, Server, ServerAddress};

use super::annotation::OfService;
use super::service::{Backends, servers_of_forward};
use super::world::World;

/// One port of a Service, for every node that forwards it.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteForward {
    /// With the servers of the whole site.
    forward: Forward,
    /// For whom nodes use their own pods only: those. Empty where any node uses any pod.
    local: BTreeMap<NodeName, Vec<Server>>,
}

impl SiteForward {
    /// As one node forwards it.
    pub fn at(&self, node: &NodeName) -> Forward {
        let servers = match self.forward.policy {
            TrafficPolicy::Cluster => self.forward.servers.clone(),
            TrafficPolicy::Local => self.local.get(node).cloned().unwrap_or_default(),
        };
        Forward { servers, ..self.forward.clone() }
    }
}

/// Who listens where, for messages.
type Taken = BTreeMap<(Transport, SocketAddr), String>;

/// The ports of all Services that have addresses.
pub(super) fn forwards(
    site: &Site,
    facts: &Facts,
    world: &World,
    backends: &Backends,
    findings: &mut Vec<Finding>,
) -> Vec<SiteForward> {
    match facts.service_proxy {
        ServiceProxy::Absent => {}
        ServiceProxy::Translating | ServiceProxy::Ipvs { .. } => return Vec::new(),
    }
    let ours: BTreeSet<IpAddr> = facts.assigned.iter().flat_map(|(_, addresses)| addresses).copied().collect();
    if ours.is_empty() {
        return Vec::new();
    }
    let mut taken = of_gates(site);
    let nodes: Vec<&Node> = site.nodes.iter().filter(|node| forwards_at(node)).collect();
    let mut forwards = Vec::new();
    for (name, addresses) in facts.assigned.iter() {
        let Some((object, service)) = world.service(&name.namespace, &name.name) else { continue };
        if service.kind != ServiceType::LoadBalancer {
            continue;
        }
        if !backends.has(name) {
            OfService::read(object, findings);
        }
        for port in &service.ports {
            let Some(id) = identity(object, port, findings) else { continue };
            let listen = listen(&id, addresses, object, &mut taken, findings);
            if listen.is_empty() {
                continue;
            }
            let mut servers = servers_of_forward((site, world), (object, service), port, None, findings);
            servers.retain(|server| !leads_back(server, &ours, object, findings));
            let local = match service.traffic_policy {
                TrafficPolicy::Cluster => BTreeMap::new(),
                TrafficPolicy::Local => local(&nodes, (site, world), (object, service), port, &ours),
            };
            let forward = Forward {
                id,
                port_name: port.name.clone(),
                listen,
                servers,
                policy: service.traffic_policy,
                client_affinity: service.client_affinity,
                source_ranges: service.source_ranges().to_vec(),
            };
            forwards.push(SiteForward { forward, local });
        }
    }
    forwards
}

fn forwards_at(node: &Node) -> bool {
    node.has(Role::VirtualIps) && !node.is_edge()
}

fn identity(object: &Object, port: &ServicePort, findings: &mut Vec<Finding>) -> Option<ForwardId> {
    let Some(transport) = Transport::of(port.protocol) else {
        let message = format!("port {} is not forwarded: dualgate forwards TCP and UDP, not SCTP", port.port);
        findings.push(
            Finding::new(Code::ServicePort, object.place("spec.ports"), message)
                .help("run kube-proxy, which forwards SCTP, or reach the pods themselves"),
        );
        return None;
    };
    Some(ForwardId { service: object.key.name.clone(), port: port.port, transport })
}

/// Where it is listened for: at each address that nobody has before it.
fn listen(
    id: &ForwardId,
    addresses: &[IpAddr],
    object: &Object,
    taken: &mut Taken,
    findings: &mut Vec<Finding>,
) -> Vec<SocketAddr> {
    let mut listen = Vec::new();
    for address in addresses.iter().map(|address| SocketAddr::new(*address, id.port)) {
        if let Some(other) = taken.get(&(id.transport, address)) {
            let message = format!("port {} is not forwarded at {}: {other} listens there", id.port, address.ip());
            findings.push(
                Finding::new(Code::ServicePort, object.place("spec.ports"), message)
                    .help("give the Service another address, or another port"),
            );
            continue;
        }
        taken.insert((id.transport, address), format!("Service {}", id.service));
        listen.push(address);
    }
    listen
}

/// What the gates listen on at the nodes that forward.
fn of_gates(site: &Site) -> Taken {
    let mut taken = Taken::new();
    for (name, gate) in &site.gates {
        let nodes = site.nodes.iter().filter(|node| forwards_at(node) && node.has(Role::of_gate(*name)));
        for address in nodes.flat_map(|node| proxy::addresses(*name, gate, node).0) {
            for (entry_point, point) in &gate.entry_points {
                let socket = SocketAddr::new(*address, point.port);
                taken.insert((Transport::Tcp, socket), format!("the entry point {name}/{entry_point}"));
            }
        }
    }
    taken
}

/// A server at an address that is forwarded would be this program: each connection would make another one.
fn leads_back(server: &Server, ours: &BTreeSet<IpAddr>, object: &Object, findings: &mut Vec<Finding>) -> bool {
    let leads_back = match &server.at {
        ServerAddress::Sockets(sockets) => sockets.iter().any(|socket| ours.contains(&socket.ip().to_canonical())),
        ServerAddress::Name { .. } => false,
    };
    if leads_back {
        let message = format!("`{}` is left out: it is the address of a LoadBalancer Service", server.id);
        findings.push(Finding::new(Code::ServiceEndpoints, object.place(""), message));
    }
    leads_back
}

/// The pods of each node. What is wrong with them was said for the Service as a whole.
fn local(
    nodes: &[&Node],
    (site, world): (&Site, &World),
    (object, service): (&Object, &Service),
    port: &ServicePort,
    ours: &BTreeSet<IpAddr>,
) -> BTreeMap<NodeName, Vec<Server>> {
    let mut said = Vec::new();
    let mut of = |node: &NodeName| {
        let node = Some(node.as_str());
        let mut servers = servers_of_forward((site, world), (object, service), port, node, &mut said);
        servers.retain(|server| !leads_back(server, ours, object, &mut Vec::new()));
        servers
    };
    nodes.iter().map(|node| (node.name.clone(), of(&node.name))).collect()
}

/// The word for a protocol in messages.
pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}
