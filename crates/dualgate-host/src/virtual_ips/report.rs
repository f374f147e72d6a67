//! How the virtual IPs are, for people and metrics.

use std::net::IpAddr;

use dualgate_core::model::{Assignments, Finding};
use serde::{Deserialize, Serialize};

/// What one node knows of the virtual IPs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether this node has a part in it.
    pub on: bool,
    /// Who assigns addresses to Services, as far as it is known here.
    pub assigned_by: Option<String>,
    /// Whether this node gives everything away and takes nothing.
    pub drained: bool,
    /// The addresses that Services have, as far as it is known here.
    #[serde(default)]
    pub assigned: Assignments,
    /// Addresses that are at one node together.
    pub groups: Vec<GroupReport>,
    /// The other voters.
    pub peers: Vec<PeerReport>,
    /// The interfaces of the LAN.
    pub links: Vec<LinkReport>,
    /// Others that answer for addresses of ours.
    pub conflicts: Vec<Conflict>,
    /// Datagrams that were not sealed with this site's key, or made no sense.
    pub refused: u64,
    /// Addresses that are held here and that another node, which is heard, may hold, too.
    #[serde(skip)]
    pub to_give: Vec<IpAddr>,
    /// Addresses that were given to another node of which no word was heard on the LAN yet: what comes for them comes here.
    #[serde(skip)]
    pub given: Vec<IpAddr>,
    /// What is wrong.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Addresses that are at one node together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// What they are for.
    pub users: Vec<String>,
    /// How packets to them go on at their owner: `local`, `translated` by kube-proxy, or into the `tunnel`.
    pub path: String,
    /// Who holds them, as far as it is known here.
    pub owner: Option<String>,
    /// Whether that is this node.
    pub held: bool,
    /// Who may hold them, best first.
    pub candidates: Vec<String>,
    /// Whether this node could take them.
    pub ready: bool,
    /// Why it could not; empty if it could.
    pub why_not: String,
    /// How often it came to this node, since the start.
    pub acquired: u64,
    /// The former owner, while it is still handed its open connections.
    pub relayed_to: Option<String>,
}

/// Another voter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// Whether it is heard, and hears this node.
    pub alive: bool,
    /// Milliseconds since it was heard.
    pub heard_ms: Option<u64>,
    /// Microseconds from a heartbeat to its answer.
    pub round_trip_us: Option<u64>,
    /// Whether its heartbeats are sealed with another key than this node's.
    pub other_key: bool,
}

/// An interface of the LAN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its name.
    pub name: String,
    /// Its link-layer address, which is said to be that of the addresses held.
    pub mac: String,
    /// Whether it can send and receive.
    pub up: bool,
    /// Questions for addresses of ours that were answered.
    pub answered: u64,
    /// Frames that told of addresses unasked.
    pub gratuitous: u64,
}

/// Somebody else answers for an address of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Whose link-layer address was told.
    pub mac: String,
    /// The home node that has it, if one has.
    pub node: Option<String>,
    /// Seconds since it was heard last.
    pub heard_seconds: u64,
}
