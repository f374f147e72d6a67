//! Virtual IPs beside the gates: what is planned, assigned and ready goes to their keeper; what is agreed on comes back as
//! facts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::model::finding::Place;
use dualgate_core::model::site::Site;
use dualgate_core::model::snapshot::Facts;
use dualgate_core::model::{Code, Finding, NodeName, ObjectName, ServiceProxy, Snapshot};
use dualgate_core::plan::forward::Transport;
use dualgate_core::plan::ipam;
use dualgate_core::plan::proxy::ProxyPlan;
use dualgate_core::plan::virtual_ips::{DataPath, Group, GroupId, User, VirtualIpPlan};
use dualgate_host::dns::Dns;
use dualgate_host::virtual_ips::service_proxy::Detector;
use dualgate_host::virtual_ips::{Keeper, Known, Leave, View};
use dualgate_tunnel::Report as TunnelReport;
use tokio::sync::watch;

/// A peer of the tunnel that had no handshake for so many seconds is away.
const AWAY: u64 = 180;
/// Home nodes hear of a change one after the other: so long they may differ without a word.
const SAME_WITHIN: Duration = Duration::from_secs(10);
/// So many Services in which they differ are named.
const NAMED: usize = 5;

/// The virtual IPs of this node.
pub struct VirtualIps {
    keeper: Keeper,
    known: watch::Receiver<Known>,
    plan: Arc<VirtualIpPlan>,
    /// Without the right to look, nobody else is assumed to carry packets for Services.
    detector: Option<Detector>,
    service_proxy: ServiceProxy,
    ready: BTreeMap<GroupId, String>,
    /// Since when this node's objects come to other addresses than those that were assigned, and whether it was told.
    differs: Option<(Instant, bool)>,
}

impl VirtualIps {
    /// Nothing is planned yet.
    pub fn start(state: &Path, node: &NodeName) -> io::Result<Self> {
        let keeper = Keeper::start(state, node)?;
        let (known, plan) = (keeper.known(), Arc::default());
        let mut detector = Detector::open().ok();
        let service_proxy = detector.as_mut().and_then(|detector| detector.detect().ok()).unwrap_or_default();
        Ok(Self { keeper, known, plan, detector, service_proxy, ready: BTreeMap::new(), differs: None })
    }

    /// For whoever shows how they are.
    pub fn view(&self) -> View {
        self.keeper.view()
    }

    /// What planners have to know, besides the time.
    pub fn facts(&self, now: i64) -> Facts {
        let assigned = self.known.borrow().assigned.clone();
        Facts { now, assigned, service_proxy: self.service_proxy, ..Facts::default() }
    }

    /// The holder gives addresses to Services that have none, and says so to all; others wait to hear. While something of
    /// the source cannot be read, nobody loses what it has: its Service may be just there.
    pub fn assign(&self, snapshot: &mut Snapshot, is_from_source: bool) {
        if !self.known.borrow().holds || !is_from_source || (is_broken(snapshot) && loses(snapshot)) {
            return;
        }
        let assigned = Arc::new(ipam::assign(snapshot).assignments);
        if assigned != snapshot.facts.assigned {
            self.keeper.publish(assigned.clone());
            snapshot.facts.assigned = assigned;
        }
    }

    /// Whether this node decides for all: it assigns addresses. Where nobody votes, it is the first home node of the site.
    pub fn assigns(&self, site: &Site, node: &NodeName) -> bool {
        match self.plan.members.is_empty() {
            true => site.nodes.iter().find(|node| !node.is_edge()).is_some_and(|first| first.name == *node),
            false => self.known.borrow().holds,
        }
    }

    /// Whether the node that assigns addresses reads something else than this one, and has for a while.
    pub fn differences(&mut self, snapshot: &Snapshot) -> Option<Finding> {
        let follows = !self.plan.members.is_empty() && !self.known.borrow().holds;
        let found = if follows { ipam::differences(snapshot) } else { Vec::new() };
        if found.is_empty() {
            self.differs = None;
            return None;
        }
        let (since, told) = self.differs.get_or_insert((Instant::now(), false));
        *told = since.elapsed() >= SAME_WITHIN;
        told.then(|| differ(&found, self.view().report().assigned_by.as_deref()))
    }

    /// What is to be from now on.
    pub fn plan(&mut self, plan: VirtualIpPlan) {
        if plan != *self.plan {
            self.plan = Arc::new(plan);
            self.keeper.plan(self.plan.clone());
        }
    }

    /// What is planned.
    pub fn planned(&self) -> &VirtualIpPlan {
        &self.plan
    }

    /// What of all that is to listen is open, and how the tunnel is: only what can be served is announced.
    pub fn served(&mut self, served: &Served, tunnel: &TunnelReport) {
        let why_not = |group: &Group| match group.path {
            DataPath::Local => missing(group, &served.desired, &served.open),
            DataPath::Translated => String::new(),
            DataPath::Tunnel => unheard(group, tunnel),
        };
        let ready: BTreeMap<GroupId, String> =
            self.plan.groups.iter().map(|group| (group.id, why_not(group))).collect();
        if ready != self.ready {
            self.ready = ready;
            self.keeper.ready(self.ready.clone());
        }
    }

    /// How the tunnel is: an edge's addresses are announced while it is reached.
    pub fn tunnelled(&mut self, tunnel: &TunnelReport) {
        let groups = self.plan.groups.iter().filter(|group| group.path == DataPath::Tunnel);
        let changed: Vec<(GroupId, String)> = groups
            .map(|group| (group.id, unheard(group, tunnel)))
            .filter(|(id, why_not)| self.ready.get(id) != Some(why_not))
            .collect();
        if !changed.is_empty() {
            self.ready.extend(changed);
            self.keeper.ready(self.ready.clone());
        }
    }

    /// Waits until something else is agreed on.
    pub async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // Its thread has ended: nothing will change any more.
            std::future::pending().await
        }
    }

    /// Looks who carries packets for Services here; whether that is somebody else than before, or home nodes have differed for
    /// too long.
    pub fn look(&mut self) -> bool {
        let found = self.detector.as_mut().and_then(|detector| detector.detect().ok()).unwrap_or(self.service_proxy);
        let is_late = self.differs.is_some_and(|(since, told)| !told && since.elapsed() >= SAME_WITHIN);
        std::mem::replace(&mut self.service_proxy, found) != found || is_late
    }

    /// Others take over what they can.
    pub async fn drain(&self) {
        self.keeper.drain().await;
    }

    /// The end of its part.
    pub fn leave(self, how: Leave) {
        self.keeper.leave(how);
    }
}

/// `found` is not empty.
fn differ(found: &[String], holder: Option<&str>) -> Finding {
    let holder = holder.unwrap_or("another node");
    let more = found.len().saturating_sub(NAMED);
    let and_more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let named = found.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let message = format!("this node does not read the same as {holder}, which assigns addresses: {named}{and_more}");
    let help = "make the manifests and the `pools` of all home nodes equal";
    Finding::new(Code::VirtualIpsDiffer, Place::default(), message).help(help)
}

/// Whether the source has something that was never read: a file that is broken since the start.
fn is_broken(snapshot: &Snapshot) -> bool {
    snapshot.objects.findings.iter().any(|finding| matches!(finding.code, Code::Syntax | Code::Unreadable))
}

/// Whether a Service that has addresses is not there.
fn loses(snapshot: &Snapshot) -> bool {
    let is_there = |name: &ObjectName| snapshot.objects.get("Service", &name.namespace, &name.name).is_some();
    snapshot.facts.assigned.iter().any(|(name, _)| !is_there(name))
}

/// What is to listen on this node, and what does.
pub struct Served {
    desired: BTreeSet<Socket>,
    open: BTreeSet<Socket>,
}

impl Served {
    /// Of gates, Services and the DNS.
    pub fn of(desired: &ProxyPlan, open: &ProxyPlan, dns: &Dns) -> Self {
        let both = |address: SocketAddr| [Transport::Tcp, Transport::Udp].map(|transport| (transport, address));
        let (mut desired, mut open) = (sockets(desired), sockets(open));
        desired.extend(dns.planned().listen.iter().copied().flat_map(both));
        open.extend(dns.listening().flat_map(both));
        Self { desired, open }
    }
}

/// Something that listens.
type Socket = (Transport, SocketAddr);

/// Everything that listens.
fn sockets(plan: &ProxyPlan) -> BTreeSet<Socket> {
    let gates = plan.listeners.iter().map(|listener| (Transport::Tcp, listener.address));
    let services = plan.forwards.iter().flat_map(|forward| forward.sockets());
    gates.chain(services.map(|socket| (socket.forward.transport, socket.address))).collect()
}

fn missing(group: &Group, desired: &BTreeSet<Socket>, open: &BTreeSet<Socket>) -> String {
    let here = |sockets: &BTreeSet<Socket>| -> BTreeSet<Socket> {
        sockets.iter().copied().filter(|(_, socket)| group.addresses.contains(&socket.ip())).collect()
    };
    let (desired, open) = (here(desired), here(open));
    let missing: Vec<String> =
        desired.difference(&open).map(|(transport, socket)| format!("{transport} {socket}")).collect();
    match (desired.is_empty(), missing.is_empty()) {
        (true, _) => "nothing is to listen there".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!("{} cannot be listened at", missing.join(", ")),
    }
}

fn unheard(group: &Group, tunnel: &TunnelReport) -> String {
    let heard = |node: &NodeName| {
        let peer = tunnel.peers.iter().find(|peer| peer.name == node.as_str());
        peer.and_then(|peer| peer.last_handshake_seconds).is_some_and(|age| age < AWAY)
    };
    let edges = group.users.iter().filter_map(|user| match user {
        User::Edge(node) => Some(node),
        User::Gate(_) | User::Service(_) => None,
    });
    let away: Vec<String> = edges.filter(|node| !heard(node)).map(ToString::to_string).collect();
    match away.is_empty() {
        true => String::new(),
        false => format!("the tunnel of this node does not reach {}", away.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use dualgate_core::model::GateName;
    use dualgate_tunnel::PeerReport;

    use super::*;

    fn group(path: DataPath, user: User) -> Group {
        let addresses = ["192.168.1.10", "fd00::10"].map(|text| text.parse().expect("an address")).to_vec();
        Group { id: GroupId(addresses[0]), addresses, users: vec![user], candidates: Vec::new(), path }
    }

    fn open(text: &[&str]) -> BTreeSet<Socket> {
        text.iter().map(|text| (Transport::Tcp, text.parse().expect("a socket's address"))).collect()
    }

    #[test]
    fn an_address_is_ready_once_everything_listens_that_should() {
        let gate = group(DataPath::Local, User::Gate(GateName::Internal));
        let desired = open(&["192.168.1.10:80", "[fd00::10]:80", "192.168.1.99:80"]);
        assert_eq!(missing(&gate, &desired, &desired), "");
        assert_eq!(missing(&gate, &desired, &open(&["192.168.1.10:80"])), "tcp [fd00::10]:80 cannot be listened at");
        assert_eq!(missing(&gate, &open(&["192.168.1.99:80"]), &BTreeSet::new()), "nothing is to listen there");
    }

    #[test]
    fn differences_are_named_up_to_a_number() {
        let found: Vec<String> = (0..7).map(|number| format!("apps/s{number} has no address")).collect();
        let finding = differ(&found, Some("k3s-node1"));
        assert!(finding.message.contains("the same as k3s-node1, which assigns addresses: apps/s0 has"), "{finding}");
        assert!(finding.message.ends_with("apps/s4 has no address; and 2 more"), "{finding}");
        assert!(!differ(&found[..5], None).message.contains("more"));
    }

    #[test]
    fn an_edges_address_is_ready_while_the_tunnel_reaches_the_edge() {
        let edge = group(DataPath::Tunnel, User::Edge(NodeName::new("ionos")));
        let peer = |age| PeerReport { name: "ionos".to_owned(), last_handshake_seconds: age, ..PeerReport::default() };
        let report = |age| TunnelReport { peers: vec![peer(age)], ..TunnelReport::default() };
        assert_eq!(unheard(&edge, &report(Some(5))), "");
        for away in [report(None), report(Some(AWAY)), TunnelReport::default()] {
            assert_eq!(unheard(&edge, &away), "the tunnel of this node does not reach ionos");
        }
    }
}
