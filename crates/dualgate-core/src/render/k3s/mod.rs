//! `/etc/rancher/k3s/config.yaml` of one node of the site.
//!
//! Who a node is follows from its roles: the first `server` of the site file starts the cluster (another one where it is
//! asked for), further servers join it, an `agent` at home joins as well, and an edge that is an `agent` joins through the
//! tunnel. An edge without this role is no part of the cluster, and has nothing to configure.
//!
//! What Kubernetes needs twice is written once in the site file: networks, addresses, interfaces. The first network of
//! `cluster.podCIDRs` names the primary family, and everything follows its order. Secrets are named by their files.

mod findings;
mod keys;
mod masks;
mod page;

use std::net::IpAddr;

use ipnet::IpNet;

pub use keys::{KEYS, Key, Later};

use crate::model::site::{Node, Role, Site};
use crate::model::{Code, Family, Finding, GateName, NodeName, Severity};
use crate::parse::site::Marks;
use crate::plan::tunnel::INTERFACE;

/// Where K3s looks for it.
pub const PATH: &str = "/etc/rancher/k3s/config.yaml";
/// Where servers have their token, which an edge must never have.
pub const SERVER_TOKEN: &str = "/etc/rancher/k3s/token";
/// Where agents have theirs, and servers a copy of it.
pub const AGENT_TOKEN: &str = "/etc/rancher/k3s/agent-token";
/// The port of K3s' supervisor and of the Kubernetes API.
pub const API_PORT: u16 = 6443;
/// The label by which an edge says itself what it is. Nothing of security may follow from it: the node can change it.
pub const EDGE_LABEL: &str = "dualgate.dev/role=edge";
/// The taint that keeps off an edge what does not ask to be there.
pub const EDGE_TAINT: &str = "dualgate.dev/edge=true:NoSchedule";

/// What is asked for beside the site file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The server that starts the cluster, if not the first one of the site file.
    pub first: Option<NodeName>,
    /// Further names and addresses by which the API is called.
    pub tls_san: Vec<String>,
    /// Further labels, `key=value`.
    pub node_label: Vec<String>,
    /// Further taints, `key=value:effect`.
    pub node_taint: Vec<String>,
}

/// What a node is to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The server that starts the cluster.
    FirstServer,
    /// A server that joins this one.
    Server(NodeName),
    /// An agent at home that joins this server.
    Agent(NodeName),
    /// An agent behind the tunnel that joins this server.
    EdgeAgent(NodeName),
}

impl Part {
    /// In words.
    pub fn word(&self) -> &'static str {
        match self {
            Self::FirstServer => "the first server",
            Self::Server(_) => "a further server",
            Self::Agent(_) => "an agent",
            Self::EdgeAgent(_) => "an agent at the edge",
        }
    }

    /// Which of K3s' two programs runs: `k3s server` or `k3s agent`.
    pub fn program(&self) -> &'static str {
        match self {
            Self::FirstServer | Self::Server(_) => "server",
            Self::Agent(_) | Self::EdgeAgent(_) => "agent",
        }
    }
}

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true`.
    Yes,
    /// One text.
    Text(String),
    /// Several.
    List(Vec<String>),
}

/// A key with its value and why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which key.
    pub key: &'static Key,
    /// Its value.
    pub value: Value,
    /// One or two sentences.
    pub why: String,
}

/// The configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whose.
    pub node: NodeName,
    /// The site's name.
    pub site: String,
    /// What it is to the cluster.
    pub part: Part,
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The configuration; `None` when a finding is an error, as K3s keeps what it was first told.
    pub config: Option<Config>,
    /// What is wrong, and what is to be known.
    pub findings: Vec<Finding>,
    /// What a person does with it, in order.
    pub steps: Vec<String>,
}

/// Writes the configuration of a node of the site. `marks` says where its fields were written.
pub fn k3s(site: &Site, marks: &Marks, node: &NodeName, wishes: &Wishes) -> Rendered {
    let Some(index) = site.nodes.iter().position(|known| known.name == *node) else {
        let message = format!("the site has no node `{node}`");
        let finding = Finding::new(Code::K3sRole, marks.place("nodes"), message).help("name one with --node");
        return Rendered { config: None, findings: vec![finding], steps: Vec::new() };
    };
    let subject = Subject { site, marks, wishes, index, node: &site.nodes[index] };
    let part = match subject.part() {
        Ok(part) => part,
        Err(finding) => return Rendered { config: None, findings: vec![*finding], steps: Vec::new() },
    };
    let mut findings = findings::of(&subject, &part);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        // They tell what to do with a file that there is not.
        findings.retain(|finding| finding.severity != Severity::Note);
        return Rendered { config: None, findings, steps: Vec::new() };
    }
    let config = Config { node: node.clone(), site: site.name.clone(), entries: subject.entries(&part), part };
    Rendered { steps: config.steps(), config: Some(config), findings }
}

/// What is looked at.
struct Subject<'a> {
    site: &'a Site,
    marks: &'a Marks,
    wishes: &'a Wishes,
    index: usize,
    node: &'a Node,
}

impl<'a> Subject<'a> {
    fn servers(&self) -> impl Iterator<Item = &'a Node> {
        self.site.nodes.iter().filter(|node| node.has(Role::Server))
    }

    /// What the node is to the cluster.
    fn part(&self) -> Result<Part, Box<Finding>> {
        let node = self.node;
        let refused = |field: &str, message: String, help: &str| {
            Err(Box::new(Finding::new(Code::K3sRole, self.marks.place(field), message).help(help)))
        };
        if !node.has(Role::Server) && !node.has(Role::Agent) {
            let help = match node.is_edge() {
                true => {
                    "an edge needs none of it: `dualgate edge bundle` makes what it needs. To have it in the cluster all \
                     the same, add `agent` to its roles here"
                }
                false => "add `server` or `agent` to its roles here",
            };
            let message = format!("`{}` is no part of the K3s cluster", node.name);
            return refused(&format!("nodes[{}].roles", self.index), message, help);
        }
        let first = match &self.wishes.first {
            None => self.servers().next(),
            Some(name) => match self.servers().find(|server| server.name == *name) {
                Some(first) => Some(first),
                None => {
                    let message = format!("`{name}` cannot be the first server: it is no node with the role `server`");
                    return refused("nodes", message, "name one that is with --first");
                }
            },
        };
        let Some(first) = first else {
            let message = "no node has the role `server`: there is nothing to join".to_owned();
            return refused("nodes", message, "add `server` to the roles of a home node");
        };
        Ok(match (node.has(Role::Server), node.is_edge()) {
            (true, _) if first.name == node.name => Part::FirstServer,
            (true, _) => Part::Server(first.name.clone()),
            (false, true) => Part::EdgeAgent(first.name.clone()),
            (false, false) => Part::Agent(first.name.clone()),
        })
    }

    /// The families of the cluster, the primary one first.
    fn families(&self) -> Vec<Family> {
        self.site.cluster.pod_cidrs.iter().map(|net| Family::of(net.addr())).collect()
    }

    /// One of each family, in this order.
    fn in_order<T: Copy>(&self, all: &[T], family: impl Fn(T) -> Family) -> Vec<T> {
        self.families()
            .into_iter()
            .filter_map(|wanted| all.iter().copied().find(|one| family(*one) == wanted))
            .collect()
    }

    fn addresses_of(&self, node: &Node) -> Vec<IpAddr> {
        self.in_order(&node.addresses, Family::of)
    }

    fn nets(&self, nets: &[IpNet]) -> String {
        join(self.in_order(nets, |net| Family::of(net.addr())))
    }

    /// Where K3s of a server is reached: at home, and through the tunnel as well, which leads to each home node.
    fn api_of(&self, server: &NodeName) -> String {
        let address = self.site.node(server).and_then(|server| self.addresses_of(server).first().copied());
        let host = match address {
            Some(IpAddr::V4(v4)) => v4.to_string(),
            Some(IpAddr::V6(v6)) => format!("[{v6}]"),
            None => server.to_string(),
        };
        format!("https://{host}:{API_PORT}")
    }

    fn interface(&self, part: &Part) -> Option<&'a str> {
        match part {
            Part::EdgeAgent(_) => Some(INTERFACE),
            Part::FirstServer | Part::Server(_) | Part::Agent(_) => self.node.interface.as_deref(),
        }
    }

    fn entries(&self, part: &Part) -> Vec<Entry> {
        let mut entries = self.joining(part);
        entries.extend(self.addresses(part));
        match part {
            Part::FirstServer | Part::Server(_) => {
                entries.extend(self.networks());
                entries.extend(self.of_servers());
            }
            Part::Agent(_) | Part::EdgeAgent(_) => {}
        }
        entries.extend(self.labels(part));
        entries
    }

    fn joining(&self, part: &Part) -> Vec<Entry> {
        let mut entries = Vec::new();
        match part {
            Part::FirstServer if self.servers().count() > 1 => {
                let why = "Starts the cluster with etcd. On a machine that takes the place of this one, this line would \
                           start a second cluster: write its file with --first and another server.";
                entries.push(yes(keys::CLUSTER_INIT, why));
            }
            // SQLite, which needs no quorum; `cluster-init` moves it into etcd when a second server comes.
            Part::FirstServer => {}
            Part::Server(first) | Part::Agent(first) => {
                let why = format!("Joins by {first}; afterwards K3s remembers all servers.");
                entries.push(text(keys::SERVER, self.api_of(first), why));
            }
            Part::EdgeAgent(first) => {
                let why = format!("Joins by {first}, through the tunnel; afterwards K3s remembers all servers.");
                entries.push(text(keys::SERVER, self.api_of(first), why));
            }
        }
        entries.push(text(keys::NODE_NAME, self.node.name.to_string(), "The node's name in the site file.".to_owned()));
        match part {
            Part::FirstServer | Part::Server(_) => {
                let why = "Whoever has it has the cluster: it never lies on an edge.".to_owned();
                entries.push(text(keys::TOKEN_FILE, SERVER_TOKEN.to_owned(), why));
                let why = "What agents join with instead.".to_owned();
                entries.push(text(keys::AGENT_TOKEN_FILE, AGENT_TOKEN.to_owned(), why));
            }
            Part::Agent(_) | Part::EdgeAgent(_) => {
                let why = "The agents' token, never the servers'.".to_owned();
                entries.push(text(keys::TOKEN_FILE, AGENT_TOKEN.to_owned(), why));
            }
        }
        entries
    }

    fn addresses(&self, part: &Part) -> Vec<Entry> {
        let own = self.addresses_of(self.node);
        let why = match own.as_slice() {
            [first, _, ..] => format!("Both families; {} is the primary one, as in cluster-cidr.", Family::of(*first)),
            [_] | [] => "One family, as in cluster-cidr.".to_owned(),
        };
        let mut entries = vec![text(keys::NODE_IP, join(own), why)];
        if let Some(interface) = self.interface(part) {
            let why = match part {
                Part::EdgeAgent(_) => "The tunnel, which `dualgate run` makes: K3s starts after it.",
                Part::FirstServer | Part::Server(_) | Part::Agent(_) => "The interface that has these addresses.",
            };
            entries.push(text(keys::FLANNEL_IFACE, interface.to_owned(), why.to_owned()));
        }
        entries
    }

    fn networks(&self) -> Vec<Entry> {
        let cluster = &self.site.cluster;
        let pods = self.nets(&cluster.pod_cidrs);
        let mut entries = vec![
            text(keys::CLUSTER_CIDR, pods, "The pods' networks; the first family is the primary one.".to_owned()),
            text(keys::SERVICE_CIDR, self.nets(&cluster.service_cidrs), "The Services' networks.".to_owned()),
            text(keys::CLUSTER_DOMAIN, cluster.domain.clone(), "The suffix of Services' names.".to_owned()),
            text(keys::FLANNEL_BACKEND, "vxlan".to_owned(), "How pods of two nodes reach each other.".to_owned()),
        ];
        if cluster.pod_cidrs.iter().any(is_unique_local) {
            let why = "The pods' IPv6 addresses are not routed on the Internet: they go out by the node's.";
            entries.push(yes(keys::FLANNEL_IPV6_MASQ, why));
        }
        let masks = masks::arguments(self.site);
        if !masks.is_empty() {
            let why = "How large a network each node gets: the usual size does not fit the pods' network.".to_owned();
            entries.push(Entry { key: keys::CONTROLLER_MANAGER_ARG, value: Value::List(masks), why });
        }
        entries
    }

    fn of_servers(&self) -> Vec<Entry> {
        let parts = ["servicelb", "traefik"].map(str::to_owned).to_vec();
        let why = "dualgate does their work. A ServiceLB left on fights it over every Service's address.".to_owned();
        let names = "Names and addresses by which the API is called, the virtual IPs too.".to_owned();
        vec![
            Entry { key: keys::DISABLE, value: Value::List(parts), why },
            Entry { key: keys::TLS_SAN, value: Value::List(self.names()), why: names },
            yes(keys::SECRETS_ENCRYPTION, "Secrets lie encrypted in the datastore."),
            text(keys::WRITE_KUBECONFIG_MODE, "0600".to_owned(), "The administrator's key is root's alone.".to_owned()),
        ]
    }

    /// By what the API is called: what was asked for, the servers, and the addresses that move between them.
    fn names(&self) -> Vec<String> {
        let mut names = self.wishes.tls_san.clone();
        for server in self.servers() {
            names.push(server.name.to_string());
            names.extend(self.addresses_of(server).iter().map(ToString::to_string));
        }
        names.extend(self.site.virtual_addresses(GateName::Internal).map(|address| address.to_string()));
        let mut seen = Vec::new();
        names.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        names
    }

    fn labels(&self, part: &Part) -> Vec<Entry> {
        let edge = |own: &str| matches!(part, Part::EdgeAgent(_)).then(|| own.to_owned());
        let labels: Vec<String> = edge(EDGE_LABEL).into_iter().chain(self.wishes.node_label.iter().cloned()).collect();
        let taints: Vec<String> = edge(EDGE_TAINT).into_iter().chain(self.wishes.node_taint.iter().cloned()).collect();
        let mut entries = Vec::new();
        if !labels.is_empty() {
            let why = "Labels that the node sets itself; K3s adds them at each start and removes none.".to_owned();
            entries.push(Entry { key: keys::NODE_LABEL, value: Value::List(labels), why });
        }
        if !taints.is_empty() {
            let why = "Keeps off the node what does not ask for it. Later: `kubectl taint node`.".to_owned();
            entries.push(Entry { key: keys::NODE_TAINT, value: Value::List(taints), why });
        }
        entries
    }
}

/// RFC 4193.
fn is_unique_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.addr().is_unique_local(),
    }
}

fn join<T: ToString>(parts: Vec<T>) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn yes(key: &'static Key, why: &str) -> Entry {
    Entry { key, value: Value::Yes, why: why.to_owned() }
}

fn text(key: &'static Key, value: String, why: String) -> Entry {
    Entry { key, value: Value::Text(value), why }
}
