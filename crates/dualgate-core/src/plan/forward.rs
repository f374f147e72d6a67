//! What one node forwards to the pods of Services of type LoadBalancer, where no kube-proxy does.
//!
//! Every home node that may hold virtual IPs forwards all of them, whether it holds them at the moment or not: a take-over
//! is frames on the LAN and nothing else. `lower::forward` reads the Services; the data plane listens
//! (`dualgate-proxy`, `service`). With kube-proxy, and at an edge, there is nothing to forward.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::lower::Lowered;
use crate::model::object::{Protocol, TrafficPolicy};
use crate::model::site::{Node, Role};
use crate::model::{ObjectName, Text};

use super::proxy::Server;

/// One port of a Service, with where it is reached and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Which it is.
    pub id: ForwardId,
    /// The port's name; empty when the Service has only one.
    pub port_name: Text,
    /// Where to listen, in the order of the Service's addresses. They may be absent from the host: they move.
    pub listen: Vec<SocketAddr>,
    /// The servers that are ready, in a stable order. Those of a [`TrafficPolicy::Local`] Service are pods of this node.
    pub servers: Vec<Server>,
    /// Whose pods serve it.
    pub policy: TrafficPolicy,
    /// How long a client that stays away is still sent to the server that it had; `None` is no affinity.
    pub client_affinity: Option<Duration>,
    /// Who may use it; empty is everybody.
    pub source_ranges: Vec<IpNet>,
}

/// What identifies a forward: its state (turns, health, affinity, counters) survives plans under this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardId {
    /// The Service.
    pub service: ObjectName,
    /// Its port, as a number.
    pub port: u16,
    /// What is forwarded.
    pub transport: Transport,
}

impl fmt::Display for ForwardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.service, self.port, self.transport)
    }
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Of a Service's port; SCTP is not forwarded.
    pub fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Tcp => Some(Self::Tcp),
            Protocol::Udp => Some(Self::Udp),
            Protocol::Sctp => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One socket of a forward.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardSocket {
    /// Where.
    pub address: SocketAddr,
    /// For what.
    pub forward: ForwardId,
}

impl fmt::Display for ForwardSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for Service {}", self.forward.transport, self.address, self.forward.service)
    }
}

impl Forward {
    /// Its sockets.
    pub fn sockets(&self) -> impl Iterator<Item = ForwardSocket> {
        self.listen.iter().map(|address| ForwardSocket { address: *address, forward: self.id.clone() })
    }

    /// The same with only those sockets for which `is_open` holds; `None` if there is none.
    pub fn narrowed(&self, is_open: impl Fn(ForwardSocket) -> bool) -> Option<Self> {
        let open = self.sockets().filter(|socket| is_open(socket.clone()));
        let listen: Vec<SocketAddr> = open.map(|socket| socket.address).collect();
        (!listen.is_empty()).then(|| Self { listen, ..self.clone() })
    }
}

/// What a node forwards.
pub(super) fn select(lowered: &Lowered, node: &Node) -> Vec<Forward> {
    if !node.has(Role::VirtualIps) || node.is_edge() {
        return Vec::new();
    }
    lowered.forwards.iter().map(|forward| forward.at(&node.name)).collect()
}
