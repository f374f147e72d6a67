//! What can be wrong with the virtual IPs of a node, as findings.

use std::fmt::Display;
use std::io;
use std::path::Path;

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::{NodeName, ObjectKey, ObjectName};
use dualgate_core::plan::virtual_ips::{PORT, User};

use crate::keys::KeysError;
use crate::network::NetworkError;

fn failed(message: String) -> Finding {
    Finding::new(Code::VirtualIpsFailed, Place::default(), message)
}

/// There is no key, or none that can be used.
pub fn key(error: &KeysError, path: &Path) -> Finding {
    let finding = |message| Finding::new(Code::VirtualIpsKey, Place::default(), message);
    match error {
        KeysError::Missing(_) => finding(format!(
            "this node has no key of the heartbeats (`{}`), so it holds no virtual IP: the other home nodes do not know it",
            path.display()
        ))
        .help(
            "make the key at one home node with `dualgate keys init --heartbeat`, and take its file to the others, where \
             `dualgate keys init --adopt-heartbeat FILE` reads it",
        ),
        error => finding(format!("the key of the heartbeats cannot be read: {error}")),
    }
}

/// The next key cannot be used.
pub fn next_key(error: &KeysError) -> Finding {
    let message = format!("the next key of the heartbeats cannot be used; the one before goes on: {error}");
    Finding::new(Code::VirtualIpsKey, Place::default(), message)
}

/// Another home node has another key.
pub fn other_key(node: &NodeName) -> Finding {
    let message = format!("{node} has another key of the heartbeats than this node: they do not hear each other");
    let help = "take the file `heartbeat` of a node that is right to the other one: `dualgate keys rotate --heartbeat \
                --adopt-heartbeat FILE`, then `--finish`";
    Finding::new(Code::VirtualIpsKey, Place::default(), message).help(help)
}

/// The thread has ended by a fault of ours.
pub fn died() -> Finding {
    failed("the thread of the virtual IPs has died of a fault: this node holds none".to_owned())
        .help("restart dualgate on this node, and report the panic that its log shows")
}

/// The heartbeats' port cannot be had.
pub fn port(why: &str) -> Finding {
    failed(format!("UDP port {PORT} of the heartbeats cannot be opened: {why}"))
        .help("see what else uses it: `ss -lup`")
}

/// Orders cannot come in.
pub fn control(error: &io::Error) -> Finding {
    failed(format!("`dualgate vip move` and `drain` do not reach this node: {error}"))
}

/// Interfaces cannot be listed.
pub fn network(error: &NetworkError) -> Finding {
    failed(format!("{error}: {}", error.source))
}

/// An interface cannot be used.
pub fn interface(name: &str, error: &io::Error) -> Finding {
    let finding = failed(format!("the interface `{name}` cannot be used for virtual IPs: {error}"));
    match error.kind() {
        io::ErrorKind::PermissionDenied => finding.help("dualgate needs CAP_NET_RAW to answer ARP and NDP"),
        _ => finding,
    }
}

/// The host does not take the routes or rules.
pub fn road(error: &impl Display) -> Finding {
    failed(format!("packets to virtual IPs would not be served here: {error}"))
        .help("dualgate needs CAP_NET_ADMIN for routes and nftables; it is tried again")
}

/// A majority of the voters is not heard.
pub fn alone(heard: usize, of: usize) -> Finding {
    let message =
        format!("this node hears {heard} of {of} voters (itself included): without a majority it holds no virtual IP");
    let help = "look at the other home nodes and at the LAN between them; `dualgate vip list` shows who was heard";
    Finding::new(Code::VirtualIpsAlone, Place::default(), message).help(help)
}

/// Somebody else has an address that is for this.
pub fn conflict(address: std::net::IpAddr, user: &User, whose: &str) -> Finding {
    let object = |kind: &str, name: ObjectName| Place::object(&ObjectKey { kind: kind.into(), name });
    let place = match user {
        User::Service(name) => object("Service", name.clone()),
        User::Edge(node) => object("Node", ObjectName::new("", node.as_str())),
        User::Gate(gate) => Place { field: format!("gates.{gate}.addresses"), ..Place::default() },
    };
    let message = format!("{whose} answers for {address}, too: clients reach one of the two by chance");
    let help = "give that device another address, or take this one out of the pool (`reserved`) or the gate";
    Finding::new(Code::VirtualIpsConflict, place, message).help(help)
}
