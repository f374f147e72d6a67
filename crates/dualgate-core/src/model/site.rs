//! The site: what the site file says, checked and with its defaults.
//!
//! Every part of the system is described here, also the parts that other planners act on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dualgate_wire::dns::tsig::Algorithm;
use dualgate_wire::dns::{Name, Rdata};
use ipnet::IpNet;

use super::address::IpRange;
use super::names::{EntryPointName, GateName, Host, NodeName};
use super::public_key::PublicKeys;
use super::upstream::Upstream;

/// A whole site.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// What people call it.
    pub name: String,
    /// The Kubernetes cluster's networks.
    pub cluster: Cluster,
    /// The home network.
    pub lan: Lan,
    /// The machines, in the file's order.
    pub nodes: Vec<Node>,
    /// Addresses for LoadBalancer Services.
    pub pools: Vec<Pool>,
    /// The gates that exist.
    pub gates: BTreeMap<GateName, Gate>,
    /// Which objects are served at which gate.
    pub exposure: Exposure,
    /// Ingress classes that are ours.
    pub classes: Vec<Class>,
    /// Home names for public names.
    pub aliases: Vec<Alias>,
    /// How the gates speak HTTP.
    pub proxy: ProxySettings,
    /// The listener for health, metrics and dumps.
    pub admin: Admin,
    /// WireGuard between home and edge.
    pub tunnel: Option<Tunnel>,
    /// Split-horizon names.
    pub dns: Option<Dns>,
    /// Where certificates come from.
    pub certificates: Option<Certificates>,
    /// What may reach the nodes.
    pub firewall: Option<Firewall>,
}

impl Site {
    /// The gate's addresses that belong to no node, and so move between the nodes that serve it.
    pub fn virtual_addresses(&self, gate: GateName) -> impl Iterator<Item = IpAddr> {
        let own = |address: &IpAddr| {
            self.nodes.iter().any(|node| node.addresses.contains(address) || node.public_addresses.contains(address))
        };
        let addresses = self.gates.get(&gate).map(|gate| gate.addresses.as_slice()).unwrap_or_default();
        addresses.iter().copied().filter(move |a| !a.is_loopback() && !a.is_unspecified() && !own(a))
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}

/// The cluster's networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Pod networks, one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// Service networks, one of each family.
    pub service_cidrs: Vec<IpNet>,
    /// The suffix of Service names, `cluster.local` unless said otherwise.
    pub domain: String,
}

/// The home network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lan {
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// The router.
    pub router: Option<Router>,
    /// What the router's DHCP server hands out.
    pub dhcp: Vec<IpRange>,
}

/// The home router.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// Make, for the steps that a person must click.
    pub kind: RouterKind,
    /// Its addresses in the LAN.
    pub addresses: Vec<IpAddr>,
    /// How it reaches the Internet.
    pub uplink: Uplink,
    /// Its WireGuard keys, where it holds home's end of the tunnel.
    pub public_keys: PublicKeys,
}

/// The make of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    /// AVM FritzBox.
    Fritzbox,
    /// Any other.
    Other,
}

/// How the router reaches the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// IPv4 inside IPv6, through the carrier's NAT (RFC 6333).
    DsLite,
    /// Carrier NAT for IPv4 (RFC 6598).
    Cgnat,
    /// Public addresses of both families.
    DualStack,
    /// IPv4 only.
    Ipv4Only,
    /// IPv6 only.
    Ipv6Only,
}

/// A machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, the Kubernetes node's if it is one.
    pub name: NodeName,
    /// Its addresses in the LAN or in the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Its addresses on the Internet.
    pub public_addresses: Vec<IpAddr>,
    /// Its interface in the LAN, where the file names it: what K3s is told.
    pub interface: Option<String>,
    /// What it does.
    pub roles: Vec<Role>,
    /// Its pod networks, when no cluster says so.
    pub pod_cidrs: Vec<IpNet>,
    /// Its WireGuard keys.
    pub public_keys: PublicKeys,
}

impl Node {
    /// Whether it has this role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it is an edge: outside home, reached through the tunnel.
    pub fn is_edge(&self) -> bool {
        self.has(Role::ExternalGate) && !self.has(Role::InternalGate) && !self.has(Role::VirtualIps)
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs K3s as a server.
    Server,
    /// Runs K3s as an agent.
    Agent,
    /// Serves the internal gate.
    InternalGate,
    /// Serves the external gate.
    ExternalGate,
    /// Announces virtual IPs on the LAN.
    VirtualIps,
    /// Answers DNS.
    Dns,
    /// Decides for the whole site where no cluster elects one.
    Controller,
}

impl Role {
    /// Every role with its word in the site file.
    pub const WORDS: &[(&str, Self)] = &[
        ("server", Self::Server),
        ("agent", Self::Agent),
        ("internal-gate", Self::InternalGate),
        ("external-gate", Self::ExternalGate),
        ("virtual-ips", Self::VirtualIps),
        ("dns", Self::Dns),
        ("controller", Self::Controller),
    ];

    /// The role that serves this gate.
    pub fn of_gate(gate: GateName) -> Self {
        match gate {
            GateName::Internal => Self::InternalGate,
            GateName::External => Self::ExternalGate,
        }
    }
}

/// Addresses for LoadBalancer Services.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The addresses, of both families.
    pub ranges: Vec<IpRange>,
    /// Whether Services that name no pool may use it.
    pub auto_assign: bool,
    /// Whether addresses ending in .0 and .255 are left out.
    pub avoid_buggy_ips: bool,
    /// Lower comes first among the pools that a Service may use; `None` comes last.
    pub priority: Option<u32>,
    /// The namespaces whose Services may use it. Empty, with no `namespace_labels` either, is all.
    pub namespaces: Vec<String>,
    /// The labels by which further namespaces are named: all of them.
    pub namespace_labels: BTreeMap<String, String>,
    /// The labels that a Service must have to use it; empty is none.
    pub service_labels: BTreeMap<String, String>,
    /// Addresses that are kept for a Service, whether it exists or not.
    pub reserved: Vec<Reservation>,
    /// The nodes that may announce its addresses; empty is every node with the role `virtual-ips`.
    pub nodes: Vec<NodeName>,
    /// The nodes that should, if they can, best first.
    pub preferred_nodes: Vec<NodeName>,
}

/// Addresses of a pool that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which addresses. A Service takes one of each family.
    pub ranges: Vec<IpRange>,
    /// For whom; `None` keeps them from everybody.
    pub service: Option<super::names::ObjectName>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Its virtual IPs. Empty: the addresses of the node that serves it (public ones at the external gate).
    pub addresses: Vec<IpAddr>,
    /// Its entry points, by name.
    pub entry_points: BTreeMap<EntryPointName, EntryPoint>,
}

impl Gate {
    /// Where the gate listens on a node that serves it: its virtual IPs, else the node's own addresses.
    pub fn addresses_on<'a>(&'a self, name: GateName, node: &'a Node) -> &'a [IpAddr] {
        match (self.addresses.as_slice(), name) {
            ([], GateName::Internal) => &node.addresses,
            ([], GateName::External) => &node.public_addresses,
            (own, GateName::Internal | GateName::External) => own,
        }
    }
}

/// One entry point of a gate.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPoint {
    /// TCP port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: EntryProtocol,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted: Vec<IpNet>,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
}

/// What an entry point speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryProtocol {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// TLS with HTTP/1.1 and HTTP/2.
    Https,
}

/// Which objects are served at which gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposure {
    /// The gates for an Ingress that does not say.
    pub default: Vec<GateName>,
    /// Whether Traefik's annotation decides.
    pub traefik_annotation: TraefikAnnotation,
}

/// What `traefik.ingress.kubernetes.io/router.entrypoints` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraefikAnnotation {
    /// The Ingress is served at every gate that has one of the named entry points.
    Honour,
    /// It only selects entry points within the gates of the exposure policy.
    Ignore,
}

/// `spec.controller` of dualgate's own classes.
pub const CONTROLLER: &str = "dualgate.dev/ingress-controller";

/// An Ingress class that dualgate serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// The name of the IngressClass, or `None` for every class of the controller.
    pub name: Option<String>,
    /// `spec.controller`.
    pub controller: String,
    /// How its Ingresses are read.
    pub reading: Reading,
    /// Whether it is to be the cluster's default class.
    pub is_default: bool,
}

/// How an Ingress is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reading {
    /// As Ingress v1 specifies.
    Specification,
    /// As Traefik v3 does: prefixes by character, priority by length of the rule.
    Traefik,
}

/// A home name that stands for a public one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alias {
    /// One name for one name.
    Name {
        /// The name in the Ingress.
        of: Host,
        /// The name at home.
        home: Host,
    },
    /// Every name below `of` also below `home`: `grafana.example.org` and `grafana.home.arpa`.
    Domain {
        /// The domain in the Ingresses.
        of: Host,
        /// The domain at home.
        home: Host,
    },
}

/// How the gates speak HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    /// From the first byte of a request's head to its last; also for TLS handshakes.
    pub head_timeout: Duration,
    /// Without a byte of a request's or response's body.
    pub body_idle_timeout: Duration,
    /// Between two requests on a connection.
    pub keep_alive_timeout: Duration,
    /// To open a connection to a server.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// Without a byte on an upgraded connection (WebSocket).
    pub tunnel_idle_timeout: Duration,
    /// After SIGTERM, how long new connections are still accepted.
    pub accept_grace: Duration,
    /// After that, how long open requests may take.
    pub drain_timeout: Duration,
    /// The largest head of a request, in octets.
    pub max_head_bytes: usize,
    /// The most fields in a head.
    pub max_fields: usize,
    /// The largest body of a request, in octets; `None` is no limit.
    pub max_body_bytes: Option<u64>,
    /// The most connections at a time over all entry points of the node.
    pub max_connections: usize,
    /// What becomes of request fields whose name has an underscore.
    pub underscores: Underscores,
    /// Where requests are written down.
    pub access_log: Option<AccessLog>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(3),
            response_timeout: Duration::from_secs(60),
            tunnel_idle_timeout: Duration::from_secs(3600),
            accept_grace: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
            max_head_bytes: 32 * 1024,
            max_fields: 100,
            max_body_bytes: None,
            max_connections: 16_384,
            underscores: Underscores::Reject,
            access_log: None,
        }
    }
}

/// What becomes of request fields whose name has an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// 400.
    Reject,
    /// The field is left out.
    Drop,
    /// The field is handed on, unless it is an alias of a forwarding field.
    Keep,
}

/// Where requests are written down, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A path, or `-` for standard output.
    pub path: String,
    /// The form of a line.
    pub format: AccessLogFormat,
}

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    Json,
    /// The Common Log Format with referer, user agent and duration.
    Common,
}

/// The listener for health, metrics and dumps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens: loopback unless changed.
    pub listen: Vec<SocketAddr>,
}

/// WireGuard between home and edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    /// UDP port at the edge.
    pub port: u16,
    /// Inner MTU in octets.
    pub mtu: u16,
    /// Whether every pair of nodes has a preshared key.
    pub preshared_keys: bool,
    /// Keep-alive of the side behind NAT.
    pub keepalive: Duration,
    /// Who holds home's end.
    pub home_end: HomeEnd,
}

/// Who holds home's end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeEnd {
    /// Every home node is a peer of its own.
    Nodes,
    /// The home router is the one peer.
    Router,
}

/// Split-horizon names.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Where home nodes answer; empty is where the internal gate does.
    pub addresses: Vec<SocketAddr>,
    /// The zones.
    pub zones: Vec<Zone>,
    /// Resolvers for everything else, at home.
    pub forward: Vec<Upstream>,
    /// The file of those who may certify resolvers; `None` is the system's.
    pub forward_authorities: Option<PathBuf>,
    /// Resolvers for some domains, at home.
    pub forward_zones: Vec<ForwardZone>,
    /// Domains of others that may lead to private addresses.
    pub rebind_allowed: Vec<Host>,
    /// Whether the edge answers the Internet on port 53.
    pub public: bool,
    /// Where zones live that others answer for, by the names that zones call them by.
    pub providers: BTreeMap<String, Provider>,
    /// Under which name the records there are dualgate's; `None` is the site's.
    pub owner: Option<String>,
}

/// Where zones live that others answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// How it is spoken to.
    pub access: ProviderAccess,
    /// The zone there that holds ours; `None` is the one of the same name.
    pub zone: Option<Host>,
    /// What happens to records that are no longer wanted.
    pub policy: PublishPolicy,
    /// How often it is looked whether records are as they should be.
    pub interval: Duration,
}

/// How a provider is spoken to. Secrets stand in files of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderAccess {
    /// A name server that takes changes (RFC 2136) and hands out its zones (RFC 5936), both with a key (RFC 8945).
    Rfc2136 {
        /// Where it is.
        server: SocketAddr,
        /// The name of the key.
        key: Name,
        /// What the key is for.
        algorithm: Algorithm,
        /// Where the key's secret is, in base64.
        secret_file: String,
    },
    /// A webhook of external-dns.
    Webhook {
        /// Where it is.
        url: String,
    },
    /// IONOS' DNS API.
    Ionos {
        /// Where the API key is.
        token_file: String,
        /// Where the API is; `None` is where everybody finds it.
        url: Option<String>,
    },
    /// Cloudflare's API.
    Cloudflare {
        /// Where the token is.
        token_file: String,
        /// Where the API is; `None` is where everybody finds it.
        url: Option<String>,
    },
}

/// What happens to records at a provider that are no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishPolicy {
    /// They go.
    Sync,
    /// Names that are gone stay; what is wanted of others is written.
    UpsertOnly,
}

/// Resolvers for a domain and everything below it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardZone {
    /// The domain.
    pub name: Host,
    /// The resolvers.
    pub to: Vec<Upstream>,
}

/// One zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: Host,
    /// Where its public view lives.
    pub publish: Publish,
    /// Time to live of the records made from objects.
    pub ttl: Duration,
    /// Records beyond those that follow from objects.
    pub records: Vec<ZoneRecord>,
}

/// A record that the site file brings.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneRecord {
    /// Its name, within the zone.
    pub name: Name,
    /// What it says.
    pub data: Rdata,
    /// Its time to live; `None` is the zone's.
    pub ttl: Option<Duration>,
    /// Who sees it.
    pub view: RecordView,
}

/// Who sees a record of the site file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordView {
    /// Clients at home.
    Home,
    /// The Internet.
    Public,
    /// Everybody.
    Both,
}

/// Where the public view of a zone lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Nowhere: known at home only.
    HomeOnly,
    /// The edge answers for it.
    Edge,
    /// At a provider with an API.
    Provider(String),
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The ACME directory.
    pub directory: String,
    /// Contact for the account.
    pub email: Option<String>,
    /// The challenges to use, best first.
    pub challenges: Vec<Challenge>,
}

/// An ACME challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 8555 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 8.4.
    Dns01,
}

/// What may reach the nodes, beyond what the other parts need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// The port of SSH at the edge.
    pub ssh_port: u16,
    /// Further ports open at the edge.
    pub allow: Vec<Allow>,
}

/// A port open at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// TCP or UDP.
    pub protocol: super::object::Protocol,
    /// The port.
    pub port: u16,
    /// From where; empty is from everywhere.
    pub from: Vec<IpNet>,
}
