//! What the data plane of one node has to serve.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::object::PortRef;
use crate::model::site::{EntryProtocol, ProxySettings};
use crate::model::snapshot::Generation;
use crate::model::{Digest, Dual, EntryPointName, GateName, HostPattern, ObjectName, Secret};
use crate::route::{EntryPointIndex, EntryPointSet, Table};

/// What the data plane of one node has to serve. The empty plan serves nothing.
#[derive(Clone, Debug, Default)]
pub struct ProxyPlan {
    /// The snapshot that it was made from.
    pub generation: Generation,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Which route serves a request.
    pub table: Arc<Table>,
    /// What routes point to, by `BackendIndex`.
    pub backends: Vec<Arc<Backend>>,
    /// What TLS entry points show.
    pub certificates: Vec<Certificate>,
    /// Time-outs and limits.
    pub settings: ProxySettings,
}

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Which (gate, entry point) pair this is; both families of a pair share it.
    pub index: EntryPointIndex,
    /// The gate.
    pub gate: GateName,
    /// The entry point.
    pub entry_point: EntryPointName,
    /// Address and port.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: EntryProtocol,
    /// Whether the address may be absent from the host when the socket is bound (virtual IPs).
    pub address_may_be_absent: bool,
    /// Peers whose forwarding fields are believed.
    pub trusted: Vec<IpNet>,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
}

/// What identifies a backend: its state (balancer, health, connections) survives plans under this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    /// The Service.
    pub service: ObjectName,
    /// Its port, as a number.
    pub port: u16,
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// One port of a Service with its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which it is.
    pub id: BackendId,
    /// What its servers speak.
    pub scheme: Scheme,
    /// Whether servers see the client's `Host`; otherwise their own address.
    pub pass_host: bool,
    /// The servers that are ready, in a stable order.
    pub servers: Vec<Server>,
    /// The port as the Ingress named it, for people.
    pub port: PortRef,
}

/// What the servers of a backend speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS; the certificate is not verified, as the pods' are self-signed.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// One pod, or one machine: one server, however many addresses it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What identifies it within its backend: the pod's name, else its addresses.
    pub id: Arc<str>,
    /// Where it is.
    pub at: ServerAddress,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// At an address of each of its families.
    Sockets(Dual<SocketAddr>),
    /// At whatever addresses a name has (ExternalName).
    Name {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// One certificate and where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret.
    pub secret: ObjectName,
    /// The names for which it is shown.
    pub hosts: Vec<HostPattern>,
    /// Where.
    pub entry_points: EntryPointSet,
    /// The digest of chain and key: what identifies it.
    pub digest: Digest,
    /// The chain, PEM.
    pub chain: Arc<[u8]>,
    /// The key, PEM.
    pub key: Secret,
    /// `notAfter` of the first certificate, in seconds since 1970.
    pub not_after: i64,
}
