//! What a person would check of a site: each application at home and from the Internet, the ways between the hosts, and
//! what must not be reachable.
//!
//! [`plan`] (pure) says which rows there are and what each expects: it follows from the site, the objects and the topology,
//! with the routing table that the gates use. [`look`] asks from the hosts of a lab. [`judge`] (pure) compares what was
//! seen with what was expected; no row passes without having been asked.

mod judge;
mod look;
mod plan;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dualgate_core::model::Family;
use dualgate_wire::ethernet::Mac;

use crate::probe::{Answer, Dialled, Request, Resolved, Trouble};

pub use self::judge::judge;
pub use self::look::look;
pub use self::plan::plan;

/// One row of the table of checks, before it is looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCheck {
    /// Stable, for programs: `home/grafana.example.org`.
    pub id: String,
    /// For people.
    pub title: String,
    /// What is to be done over IPv4.
    pub v4: Planned,
    /// What is to be done over IPv6.
    pub v6: Planned,
}

/// What is to be done for one family of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// The site has nothing of this family here.
    Absent,
    /// The part does not exist; what is there instead.
    NotBuilt(String),
    /// All of these must be as expected.
    Look(Vec<Probe>),
}

/// One question from one host, and the answer that it should get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The host that asks.
    pub from: String,
    /// What it asks.
    pub ask: Ask,
    /// What should come back.
    pub expect: Expectation,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A request.
    Get(Request),
    /// An echo request over ICMP to another host of the lab.
    Ping {
        /// The host.
        at: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// A connection to another host of the lab, which listens for it.
    Dial {
        /// The host that listens.
        at: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// A connection to whoever listens there.
    Connect(SocketAddr),
    /// The addresses of a name.
    Resolve {
        /// Who is asked.
        server: SocketAddr,
        /// Of which name.
        name: String,
        /// Of which family.
        family: Family,
    },
    /// ARP or Neighbor Discovery: who has this address?
    WhoHas {
        /// The interface that is asked from.
        interface: String,
        /// The address.
        address: IpAddr,
    },
}

/// What should come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// `dualgate run` says that it is ready.
    Ready,
    /// `dualgate run` says that it has heard of all of these through WireGuard, and lately.
    Heard(Vec<String>),
    /// An echo.
    Echo,
    /// This pod answers, without a gate in between.
    Pod(String),
    /// The other side sees one of these addresses: a translation's.
    SeenAs(Vec<IpAddr>),
    /// The other side sees the very address that was spoken from.
    SeenAsItself,
    /// Nothing gets through.
    Blocked,
    /// Somebody of this Service answers, and was told the client's own address.
    Served {
        /// `namespace/name`.
        service: String,
        /// Who that may be.
        by: Servers,
    },
    /// One of these stations answers, and nobody else does.
    OneOf(Vec<(Mac, String)>),
    /// These addresses, and no others; without any, the name is not known.
    Addresses(Vec<IpAddr>),
    /// 404: the gate does not know the host.
    NotFound,
    /// A certificate that speaks for the host.
    Certificate {
        /// The host.
        host: String,
        /// The one that a Secret holds for it.
        promised: Option<Promised>,
    },
}

/// Who may answer for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// These pods.
    Pods(Vec<String>),
    /// Somebody whose name is not known: a machine that is no pod.
    Anyone,
    /// Nobody, and why: the row fails, and says so.
    Nobody(String),
}

/// A certificate of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promised {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// The first certificate of its chain.
    pub der: Vec<u8>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An answer of HTTP.
    Answer(Box<Answer>),
    /// An echo.
    Echo,
    /// A connection between two hosts of the lab.
    Dialled(Dialled),
    /// A connection to whoever listens there.
    Connected,
    /// What a name leads to.
    Resolved(Resolved),
    /// Everybody who said that the address is theirs.
    Stations(BTreeSet<Mac>),
    /// Something else instead.
    Trouble(Trouble),
    /// A host that takes part is off.
    Off(String),
}

/// `k3s-node1 to k3s-node2 (192.168.178.6)`.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to ", self.from)?;
        match &self.ask {
            Ask::Get(request) => request.to.fmt(f),
            Ask::Ping { at, address } | Ask::Dial { at, address } => write!(f, "{at} ({address})"),
            Ask::Connect(to) => to.fmt(f),
            Ask::Resolve { server, name, family } => write!(f, "{server} about {name} ({family})"),
            Ask::WhoHas { address, .. } => write!(f, "whoever has {address}"),
        }
    }
}
