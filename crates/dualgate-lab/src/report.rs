//! What a lab is like at one moment: what `dualgate lab status` prints and what tests look at.

use serde::{Deserialize, Serialize};

/// The lab at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The lab's name, the site's unless said otherwise.
    pub name: String,
    /// The site's name.
    pub site: String,
    /// Where the site file was read from, or that it is the built-in example.
    #[serde(default)]
    pub origin: String,
    /// Since the lab was asked for, in milliseconds.
    pub uptime_ms: u64,
    /// From the start until every node was ready, in milliseconds; `None` before.
    pub setup_ms: Option<u64>,
    /// Every host, in the order of the picture: the Internet's first, home's last.
    pub hosts: Vec<HostStatus>,
    /// Every link.
    pub links: Vec<LinkStatus>,
    /// Every pod.
    pub pods: Vec<PodStatus>,
    /// The Kubernetes API, where the objects come from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesStatus>,
    /// What stands in for parts of dualgate that are not built.
    pub stand_ins: Vec<StandIn>,
    /// What the lab's cluster cannot do, and why: pods without a place, workloads that cannot be read.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// What a person would check, at its last look.
    pub checks: Vec<Check>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// Someone on the Internet.
    InternetClient,
    /// The Internet: it routes.
    Internet,
    /// A node outside home, with public addresses.
    Edge,
    /// The carrier's network translation, for DS-Lite and carrier NAT.
    Carrier,
    /// The home router.
    Router,
    /// The switch of the LAN, or of what stands in for the tunnel.
    Switch,
    /// A node at home.
    HomeNode,
    /// Someone at home.
    LanClient,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its name: `lab exec NAME`.
    pub name: String,
    /// What it is for.
    pub kind: HostKind,
    /// Whether it is powered on.
    pub on: bool,
    /// Its addresses with prefix lengths, by interface: `eth0 192.168.178.5/24`.
    pub addresses: Vec<String>,
    /// Virtual IPs that it holds at this moment.
    pub virtual_ips: Vec<std::net::IpAddr>,
    /// The roles of its node; empty for others.
    pub roles: Vec<String>,
    /// What its `dualgate run` says of itself: `ready`, or why not; `None` where none runs.
    pub dualgate: Option<String>,
}

/// One link: a cable between two hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name: `lab cut NAME`.
    pub name: String,
    /// The hosts at both ends.
    pub ends: [String; 2],
    /// Whether it carries anything.
    pub state: LinkState,
}

/// Whether a link carries anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It does.
    Up,
    /// It was cut.
    Cut,
    /// A host at one end is off.
    Off,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// `namespace/name`.
    pub name: String,
    /// The workload that wants it: `namespace/name` of the Deployment.
    pub workload: String,
    /// The node that it runs on.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Whether the cluster takes it for ready: what the EndpointSlices say.
    pub ready: bool,
    /// Whether it answers in truth.
    pub alive: bool,
    /// Whether it is to end, and answers for a last moment.
    #[serde(default)]
    pub terminating: bool,
}

/// What stands in for a part that is not built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandIn {
    /// The part: `tunnel`.
    pub part: String,
    /// What is there instead, as a sentence.
    pub instead: String,
}

/// One row of the table of checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Stable, for programs: `home/grafana.example.org`.
    pub id: String,
    /// What is checked, for people: `grafana.example.org at home`.
    pub title: String,
    /// What is seen over IPv4.
    pub v4: Verdict,
    /// What is seen over IPv6.
    pub v6: Verdict,
}

/// What a check came to in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "detail")]
pub enum Verdict {
    /// As it should be; what was seen.
    Pass(String),
    /// Not as it should be; what was seen instead.
    Fail(String),
    /// The part that it checks does not exist yet.
    NotBuilt(String),
    /// The site has nothing of this family here.
    Absent,
    /// It was not looked yet.
    Waiting,
}

/// The Kubernetes API of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// The node that it listens at.
    pub node: String,
    /// Its URL over each family.
    pub servers: Vec<String>,
    /// The kubeconfig on every host.
    pub kubeconfig: String,
    /// Whether its node is off.
    pub away: bool,
}
