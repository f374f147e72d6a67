//! Which addresses of the LAN move between the home nodes, who may hold them, and how packets to them go on.
//!
//! Pure: reads the site, the addresses that Services have (`Facts::assigned`), and Nodes and EndpointSlices where there are
//! any. `machine::ownership` decides who holds a group, `machine::announcer` says so on the LAN, `host::virtual_ips` does it.
//!
//! Addresses that must be at one node form a [`Group`]: both families of the internal gate, of a Service, of an edge; and
//! Services that share an address. An edge never holds any, and never votes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::lower::ENDPOINTS;
use crate::model::object::{Body, Object, Service, TrafficPolicy};
use crate::model::site::{HomeEnd, Node, Pool, Role, Site};
use crate::model::snapshot::ServiceProxy;
use crate::model::{Code, Finding, GateName, NodeName, ObjectName, Place, Snapshot};
use crate::plan::ipam;

/// UDP port of the heartbeats between home nodes.
pub const PORT: u16 = 9182;

/// A node that says so of itself is no candidate
/// (`node.kubernetes.io/exclude-from-external-load-balancers`, a label of Nodes).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What one node has to do with virtual IPs. The empty plan has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualIpPlan {
    /// The voters, this node among them, in the site file's order. Empty: no part in it.
    pub members: Vec<Member>,
    /// Who should decide for the site, best first.
    pub holders: Vec<NodeName>,
    /// The LAN's subnets: the interface with an address in one of them is the LAN.
    pub subnets: Vec<IpNet>,
    /// The router's addresses: the witness where there are two voters.
    pub router: Vec<IpAddr>,
    /// Sorted by their identifier.
    pub groups: Vec<Group>,
}

/// A node that votes, and may hold addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Where its heartbeats come from and go to, in the LAN.
    pub addresses: Vec<IpAddr>,
}

/// Addresses that are at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which it is.
    pub id: GroupId,
    /// IPv4 before IPv6, sorted, at least one.
    pub addresses: Vec<IpAddr>,
    /// What they are for.
    pub users: Vec<User>,
    /// Who may hold them, best first.
    pub candidates: Vec<NodeName>,
    /// How packets to them go on.
    pub path: DataPath,
}

/// What identifies a group: its lowest address, IPv4 before IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub IpAddr);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a group is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A gate's own addresses.
    Gate(GateName),
    /// An edge's private addresses, which lie in the LAN although it is elsewhere.
    Edge(NodeName),
    /// A Service of type LoadBalancer.
    Service(ObjectName),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(gate) => write!(f, "the {gate} gate"),
            Self::Edge(node) => write!(f, "the edge {node}"),
            Self::Service(service) => write!(f, "Service {service}"),
        }
    }
}

/// How packets to a group's addresses go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// This program listens there: the gate, or the forwarder of Services.
    Local,
    /// kube-proxy translates them.
    Translated,
    /// They are routed into the tunnel.
    Tunnel,
}

impl VirtualIpPlan {
    /// The group that has this address.
    pub fn group_of(&self, address: IpAddr) -> Option<&Group> {
        self.groups.iter().find(|group| group.addresses.contains(&address))
    }
}

/// What this node has to do. A node without the role `virtual-ips`, and an edge, get the empty plan.
pub fn virtual_ips(snapshot: &Snapshot, node: &NodeName) -> VirtualIpPlan {
    let site = &*snapshot.site;
    let members: Vec<Member> = site.nodes.iter().filter_map(|node| member(site, node)).collect();
    if !members.iter().any(|member| member.name == *node) {
        return VirtualIpPlan::default();
    }
    let router = site.lan.router.as_ref().map(|router| router.addresses.clone()).unwrap_or_default();
    let cluster = Cluster::of(snapshot);
    let groups = groups(snapshot, &members, &cluster);
    VirtualIpPlan { holders: holders(site, &members), members, subnets: site.lan.subnets.clone(), router, groups }
}

/// What is wrong on this node with how packets to Services go on.
pub fn findings(snapshot: &Snapshot, plan: &VirtualIpPlan) -> Vec<Finding> {
    let of_services = plan.groups.iter().any(|group| group.path == DataPath::Translated);
    match snapshot.facts.service_proxy {
        ServiceProxy::Ipvs { strict_arp: false } if of_services => {
            let message = "kube-proxy runs with IPVS here and without strictARP: this node answers ARP for every address of a \
                           Service, whoever holds it";
            let help = "set `ipvs.strictARP: true` in kube-proxy's configuration (K3s: \
                        `kube-proxy-arg: [ipvs-strict-arp=true]`), or use another mode than IPVS";
            vec![Finding::new(Code::VirtualIpsStrictArp, Place::default(), message).help(help)]
        }
        ServiceProxy::Ipvs { .. } | ServiceProxy::Absent | ServiceProxy::Translating => Vec::new(),
    }
}

/// Home nodes with the role and an address in the LAN.
fn member(site: &Site, node: &Node) -> Option<Member> {
    let addresses: Vec<IpAddr> = node.addresses.iter().copied().filter(|address| in_lan(site, *address)).collect();
    let votes = node.has(Role::VirtualIps) && !node.is_edge() && !addresses.is_empty();
    votes.then(|| Member { name: node.name.clone(), addresses })
}

fn in_lan(site: &Site, address: IpAddr) -> bool {
    site.lan.subnets.iter().any(|subnet| subnet.contains(&address))
}

/// Nodes with the role `controller` first.
fn holders(site: &Site, members: &[Member]) -> Vec<NodeName> {
    let mut names: Vec<&NodeName> = members.iter().map(|member| &member.name).collect();
    names.sort_by_key(|name| !site.node(name).is_some_and(|node| node.has(Role::Controller)));
    names.into_iter().cloned().collect()
}

/// What the cluster says of nodes and of where Services have pods.
struct Cluster<'a> {
    /// Nodes that must not hold addresses of Services.
    excluded: BTreeSet<&'a str>,
    /// By Service: the nodes with a pod that serves; `None` in it is a pod of unknown place.
    pods: BTreeMap<(&'a str, &'a str), BTreeSet<Option<&'a str>>>,
}

impl<'a> Cluster<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut cluster = Self { excluded: BTreeSet::new(), pods: BTreeMap::new() };
        for object in snapshot.objects.of_kind("Node") {
            let unavailable = matches!(&object.body, Body::Node(node) if node.network_unavailable);
            if unavailable || object.meta.labels.contains_key(EXCLUDED) {
                cluster.excluded.insert(&object.key.name.name);
            }
        }
        let assigned = snapshot.facts.assigned.iter();
        let meant: BTreeSet<_> = assigned.map(|(name, _)| (&*name.namespace, &*name.name)).collect();
        let slices = if meant.is_empty() { &[] } else { snapshot.objects.of_kind("EndpointSlice") };
        for object in slices {
            let Body::EndpointSlice(slice) = &object.body else { continue };
            let Some(service) = &slice.service else { continue };
            let name = (&*object.key.name.namespace, service.as_str());
            if meant.contains(&name) {
                let serving = slice.endpoints.iter().filter(|endpoint| endpoint.ready || endpoint.serving);
                cluster.pods.entry(name).or_default().extend(serving.map(|endpoint| endpoint.node.as_deref()));
            }
        }
        cluster
    }

    /// Whether this node may hold a Service's address: with `externalTrafficPolicy: Local` only where its pods are, and
    /// nobody holds the address of a Service without any.
    fn admits(&self, node: &NodeName, object: &Object, service: &Service) -> bool {
        if self.excluded.contains(node.as_str()) {
            return false;
        }
        if object.meta.annotations.contains_key(ENDPOINTS) {
            return true;
        }
        let name = &object.key.name;
        let Some(pods) = self.pods.get(&(&*name.namespace, &*name.name)) else { return false };
        match service.traffic_policy {
            TrafficPolicy::Cluster => !pods.is_empty(),
            TrafficPolicy::Local => pods.contains(&Some(node.as_str())),
        }
    }
}

/// A group while it is put together.
struct Draft {
    addresses: BTreeSet<IpAddr>,
    users: Vec<User>,
    candidates: BTreeSet<NodeName>,
    preferred: Vec<NodeName>,
    path: DataPath,
}

fn groups(snapshot: &Snapshot, members: &[Member], cluster: &Cluster<'_>) -> Vec<Group> {
    let site = &*snapshot.site;
    let mut drafts = vec![of_gate(site, members)];
    drafts.extend(of_edges(site, members));
    drafts.retain(|draft| !draft.addresses.is_empty());
    let taken: BTreeSet<IpAddr> = drafts.iter().flat_map(|draft| draft.addresses.iter().copied()).collect();
    let services = of_services(snapshot, members, cluster);
    drafts.extend(joined(services.into_iter().filter(|draft| draft.addresses.is_disjoint(&taken))));
    let mut groups: Vec<Group> = drafts.into_iter().filter_map(Draft::finish).collect();
    groups.sort_by_key(|group| group.id);
    groups
}

fn of_gate(site: &Site, members: &[Member]) -> Draft {
    let serves = |member: &&Member| site.node(&member.name).is_some_and(|node| node.has(Role::InternalGate));
    Draft {
        addresses: site.virtual_addresses(GateName::Internal).filter(|address| in_lan(site, *address)).collect(),
        users: vec![User::Gate(GateName::Internal)],
        candidates: members.iter().filter(serves).map(|member| member.name.clone()).collect(),
        preferred: Vec::new(),
        path: DataPath::Local,
    }
}

/// Where home nodes hold the tunnel, one of them answers for an edge's addresses in the LAN; a router that holds it does so
/// itself.
fn of_edges(site: &Site, members: &[Member]) -> Vec<Draft> {
    let by_nodes = site.tunnel.as_ref().is_some_and(|tunnel| tunnel.home_end == HomeEnd::Nodes);
    let edges = site.nodes.iter().filter(|node| by_nodes && node.is_edge());
    let draft = |edge: &Node| Draft {
        addresses: edge.addresses.iter().copied().filter(|address| in_lan(site, *address)).collect(),
        users: vec![User::Edge(edge.name.clone())],
        candidates: members.iter().map(|member| member.name.clone()).collect(),
        preferred: Vec::new(),
        path: DataPath::Tunnel,
    };
    edges.map(draft).collect()
}

fn of_services(snapshot: &Snapshot, members: &[Member], cluster: &Cluster<'_>) -> Vec<Draft> {
    let site = &*snapshot.site;
    let path = match snapshot.facts.service_proxy {
        ServiceProxy::Absent => DataPath::Local,
        ServiceProxy::Translating | ServiceProxy::Ipvs { .. } => DataPath::Translated,
    };
    let mut drafts = Vec::new();
    for (name, assigned) in snapshot.facts.assigned.iter() {
        let Some(object) = snapshot.objects.get("Service", &name.namespace, &name.name) else { continue };
        let Body::Service(service) = &object.body else { continue };
        let addresses: BTreeSet<IpAddr> = assigned.iter().copied().filter(|address| in_lan(site, *address)).collect();
        if !ipam::is_ours(service) || addresses.is_empty() {
            continue;
        }
        let pools: Vec<&Pool> = site.pools.iter().filter(|pool| holds_any(pool, &addresses)).collect();
        let allowed = |name: &NodeName| pools.iter().all(|pool| pool.nodes.is_empty() || pool.nodes.contains(name));
        let candidates = members.iter().map(|member| &member.name);
        let candidates = candidates.filter(|name| allowed(name) && cluster.admits(name, object, service));
        drafts.push(Draft {
            users: vec![User::Service(object.key.name.clone())],
            candidates: candidates.cloned().collect(),
            preferred: pools.iter().flat_map(|pool| pool.preferred_nodes.clone()).collect(),
            addresses,
            path,
        });
    }
    drafts
}

fn holds_any(pool: &Pool, addresses: &BTreeSet<IpAddr>) -> bool {
    pool.ranges.iter().any(|range| addresses.iter().any(|address| range.contains(*address)))
}

/// Drafts that share an address become one, whose candidates all of them admit.
fn joined(drafts: impl Iterator<Item = Draft>) -> Vec<Draft> {
    let mut joined: Vec<Option<Draft>> = Vec::new();
    let mut at: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for mut draft in drafts {
        let touched: BTreeSet<usize> = draft.addresses.iter().filter_map(|address| at.get(address).copied()).collect();
        for index in touched {
            let Some(other) = joined[index].take() else { continue };
            draft.addresses.extend(other.addresses);
            draft.users.extend(other.users);
            draft.preferred.extend(other.preferred);
            // One that nobody could serve, such as a Service without pods, keeps nobody from serving the others.
            draft.candidates = match (draft.candidates.is_empty(), other.candidates.is_empty()) {
                (true, _) => other.candidates,
                (false, true) => draft.candidates,
                (false, false) => draft.candidates.intersection(&other.candidates).cloned().collect(),
            };
        }
        at.extend(draft.addresses.iter().map(|address| (*address, joined.len())));
        joined.push(Some(draft));
    }
    joined.into_iter().flatten().collect()
}

impl Draft {
    fn finish(self) -> Option<Group> {
        let addresses: Vec<IpAddr> = self.addresses.into_iter().collect();
        let id = GroupId(*addresses.first()?);
        let rank = |name: &NodeName| self.preferred.iter().position(|preferred| preferred == name);
        let mut candidates: Vec<NodeName> = self.candidates.into_iter().collect();
        // Spread: each group has an order of its own, which all nodes agree on without a word.
        candidates.sort_by_cached_key(|name| (rank(name).unwrap_or(usize::MAX), weight(name, id)));
        let mut users = self.users;
        users.sort();
        Some(Group { id, addresses, users, candidates, path: self.path })
    }
}

/// Rendezvous hashing: a node that comes or goes moves no other node's share.
fn weight(node: &NodeName, group: GroupId) -> [u8; 32] {
    Sha256::digest(format!("{node}#{group}")).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::snapshot::{Facts, Generation};
    use crate::model::{Assignments, Object, ObjectSet};
    use crate::parse;

    const SITE: &str = "\
apiVersion: dualgate.dev/v1alpha1
kind: Site
name: home
cluster: {podCIDRs: [10.42.0.0/16, 'fd01::/48']}
lan:
  subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64']
  router: {addresses: [192.168.178.1], uplink: ds-lite}
nodes:
- {name: n1, roles: [internal-gate, virtual-ips], addresses: [192.168.178.5, 'fda8:a1db:5685::5']}
- {name: n2, roles: [internal-gate, virtual-ips, controller], addresses: [192.168.178.6, 'fda8:a1db:5685::6']}
- {name: n3, roles: [virtual-ips], addresses: [192.168.178.7, 'fda8:a1db:5685::7']}
- {name: edge, roles: [external-gate], addresses: [192.168.178.201, 'fda8:a1db:5685::201'], publicAddresses: [203.0.113.10]}
pools:
- {name: home, addresses: [192.168.178.11-192.168.178.19, 'fda8:a1db:5685::11-fda8:a1db:5685::1a']}
gates:
  internal: {addresses: [192.168.178.10, 'fda8:a1db:5685::10']}
  external: {}
tunnel: {}
";

    fn object(json: serde_json::Value) -> Arc<Object> {
        let parsed = parse::object::object(&json, None);
        assert_eq!(parsed.findings, [], "{json}");
        parsed.objects.into_iter().next().expect("an object").into()
    }

    fn service(name: &str, policy: &str) -> Arc<Object> {
        object(serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "apps"},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
        }))
    }

    fn pods(service: &str, nodes: &[&str]) -> Arc<Object> {
        let pods = nodes.iter().map(|node| serde_json::json!({"addresses": ["10.42.0.7"], "nodeName": node}));
        object(serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "namespace": "apps", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": pods.collect::<Vec<_>>(), "ports": [{"port": 80}],
        }))
    }

    fn snapshot(site: &str, objects: Vec<Arc<Object>>, assigned: &[(&str, &[&str])]) -> Snapshot {
        let (site, findings) = parse::site::site("site.yaml", site);
        let site = site.unwrap_or_else(|| panic!("{findings:?}"));
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
        let assigned = assigned.iter().map(|(name, list)| (ObjectName::new("apps", *name), addresses(list)));
        let facts = Facts { assigned: Arc::new(Assignments::from_iter(assigned)), ..Facts::default() };
        let mut objects = objects;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
        Snapshot { generation: Generation(1), site: Arc::new(site), objects, facts }
    }

    fn shown(plan: &VirtualIpPlan) -> Vec<String> {
        let show = |group: &Group| {
            let mut candidates: Vec<&str> = group.candidates.iter().map(NodeName::as_str).collect();
            candidates.sort_unstable();
            let users: Vec<String> = group.users.iter().map(ToString::to_string).collect();
            format!("{:?} for {} at {} ({:?})", group.addresses, users.join(", "), candidates.join(" "), group.path)
        };
        plan.groups.iter().map(show).collect()
    }

    fn plan(snapshot: &Snapshot) -> VirtualIpPlan {
        virtual_ips(snapshot, &NodeName::new("n1"))
    }

    #[test]
    fn the_gate_moves_among_its_nodes_and_the_edges_addresses_among_all() {
        let plan = plan(&snapshot(SITE, Vec::new(), &[]));
        assert_eq!(
            shown(&plan),
            [
                "[192.168.178.10, fda8:a1db:5685::10] for the internal gate at n1 n2 (Local)",
                "[192.168.178.201, fda8:a1db:5685::201] for the edge edge at n1 n2 n3 (Tunnel)",
            ]
        );
        assert_eq!(plan.holders.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["n2", "n1", "n3"]);
        assert_eq!(plan.members.len(), 3);
    }

    #[test]
    fn a_router_that_holds_the_tunnel_answers_for_the_edge_itself() {
        let site = SITE.replace("tunnel: {}", "tunnel: {homeEnd: router}");
        assert_eq!(plan(&snapshot(&site, Vec::new(), &[])).groups.len(), 1);
    }

    #[test]
    fn the_edge_and_nodes_without_the_role_have_no_part_in_it() {
        let snapshot = snapshot(SITE, Vec::new(), &[]);
        assert_eq!(virtual_ips(&snapshot, &NodeName::new("edge")), VirtualIpPlan::default());
        assert_eq!(virtual_ips(&snapshot, &NodeName::new("nobody")), VirtualIpPlan::default());
    }

    #[test]
    fn the_policy_local_leaves_nodes_with_pods_and_no_pods_leave_nobody() {
        let objects = vec![
            service("all", "Cluster"),
            service("here", "Local"),
            service("none", "Cluster"),
            pods("all", &["elsewhere"]),
            pods("here", &["n3"]),
        ];
        let assigned: [(&str, &[&str]); 3] =
            [("all", &["192.168.178.11"]), ("here", &["fda8:a1db:5685::12"]), ("none", &["192.168.178.13"])];
        let plan = plan(&snapshot(SITE, objects, &assigned));
        assert_eq!(
            shown(&plan)[1..],
            [
                "[192.168.178.11] for Service apps/all at n1 n2 n3 (Local)",
                "[192.168.178.13] for Service apps/none at  (Local)",
                "[192.168.178.201, fda8:a1db:5685::201] for the edge edge at n1 n2 n3 (Tunnel)",
                "[fda8:a1db:5685::12] for Service apps/here at n3 (Local)",
            ]
        );
    }

    #[test]
    fn services_that_share_an_address_are_at_one_node_which_all_of_them_admit() {
        let objects =
            vec![service("a", "Local"), service("b", "Local"), pods("a", &["n1", "n2"]), pods("b", &["n2", "n3"])];
        let both: &[&str] = &["192.168.178.11", "fda8:a1db:5685::11"];
        let plan = plan(&snapshot(SITE, objects, &[("a", both), ("b", &both[..1])]));
        assert_eq!(
            shown(&plan)[1],
            "[192.168.178.11, fda8:a1db:5685::11] for Service apps/a, Service apps/b at n2 (Local)"
        );
    }

    #[test]
    fn a_service_without_pods_that_joins_an_address_keeps_nobody_from_holding_it() {
        let objects = vec![service("a", "Cluster"), service("b", "Cluster"), pods("a", &["n1"])];
        let shared: &[&str] = &["192.168.178.11"];
        let plan = plan(&snapshot(SITE, objects, &[("a", shared), ("b", shared)]));
        assert_eq!(shown(&plan)[1], "[192.168.178.11] for Service apps/a, Service apps/b at n1 n2 n3 (Local)");
    }

    #[test]
    fn labels_conditions_and_pools_leave_nodes_out_and_preferred_ones_come_first() {
        let node = |name: &str, labels, conditions| {
            object(serde_json::json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "status": {"conditions": conditions},
            }))
        };
        let excluded = node("n1", serde_json::json!({EXCLUDED: ""}), serde_json::json!([]));
        let objects = vec![excluded, service("a", "Cluster"), pods("a", &["n1"])];
        let mut snapshot = snapshot(SITE, objects, &[("a", &["192.168.178.11"])]);
        assert_eq!(shown(&plan(&snapshot))[1], "[192.168.178.11] for Service apps/a at n2 n3 (Local)");
        let mut site = (*snapshot.site).clone();
        site.pools[0].preferred_nodes = vec![NodeName::new("n3")];
        snapshot.site = Arc::new(site.clone());
        assert_eq!(plan(&snapshot).groups[1].candidates.first(), Some(&NodeName::new("n3")));
        site.pools[0].nodes = vec![NodeName::new("n2")];
        snapshot.site = Arc::new(site);
        assert_eq!(shown(&plan(&snapshot))[1], "[192.168.178.11] for Service apps/a at n2 (Local)");
    }

    #[test]
    fn a_node_that_leaves_moves_no_other_nodes_groups() {
        let names: Vec<NodeName> = ["n1", "n2", "n3", "n4"].map(NodeName::new).to_vec();
        let order = |names: &[NodeName], last: u8| {
            let draft = Draft {
                addresses: BTreeSet::from([IpAddr::from([192, 168, 178, last])]),
                users: Vec::new(),
                candidates: names.iter().cloned().collect(),
                preferred: Vec::new(),
                path: DataPath::Local,
            };
            draft.finish().expect("a group").candidates
        };
        let first: Vec<NodeName> = (0..64).map(|last| order(&names, last)[0].clone()).collect();
        for name in &names {
            let share = first.iter().filter(|first| *first == name).count();
            assert!((6..=28).contains(&share), "{name} is first for {share} of 64");
        }
        for (last, first) in (0..64).zip(&first).filter(|(_, first)| **first != names[3]) {
            assert_eq!(order(&names[..3], last)[0], *first);
        }
    }
}
