//! What has to be done: one file per actuator, each a pure function of the snapshot.
//!
//! Planners alone know about roles. A node without a role gets the empty plan, and converging to the empty
//! plan is how a role is switched off.

pub mod cluster;
pub mod dns;
pub mod firewall;
pub mod forward;
pub mod install;
pub mod ipam;
pub mod proxy;
pub mod public;
pub mod publish;
pub mod tunnel;
pub mod virtual_ips;

use crate::lower::{self, Lowered};
use crate::model::{Finding, NodeName, Snapshot};

/// What one node has to do.
#[derive(Clone, Debug, Default)]
pub struct NodePlan {
    /// What its data plane serves.
    pub proxy: proxy::ProxyPlan,
    /// Its end of the tunnel.
    pub tunnel: tunnel::TunnelPlan,
    /// What it lets in.
    pub firewall: firewall::FirewallPlan,
    /// The addresses of the LAN that it may come to hold.
    pub virtual_ips: virtual_ips::VirtualIpPlan,
    /// What it answers to those who ask for names.
    pub dns: dns::DnsPlan,
}

/// The plan of one node.
pub fn node(snapshot: &Snapshot, node: &NodeName) -> NodePlan {
    select(snapshot, &lower::snapshot(snapshot), node)
}

/// The plan of one node, from the snapshot and what it was lowered to: for those who plan several nodes.
pub fn select(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> NodePlan {
    NodePlan {
        proxy: proxy::select(snapshot, lowered, node),
        dns: dns::select(snapshot, lowered, node),
        ..beside(snapshot, lowered, node)
    }
}

/// What the node does beside its gates.
fn beside(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> NodePlan {
    NodePlan {
        proxy: proxy::ProxyPlan::default(),
        tunnel: tunnel::tunnel(snapshot, node),
        firewall: firewall::select(snapshot, lowered, node),
        virtual_ips: virtual_ips::virtual_ips(snapshot, node),
        dns: dns::DnsPlan::default(),
    }
}

/// Plans one node again and again: what does not change from one snapshot to the next is made once.
#[derive(Debug, Default)]
pub struct Planner {
    lowered: Lowered,
    proxy: proxy::Memo,
    dns: dns::Memo,
}

impl Planner {
    /// The plan of the node, as [`node`] makes it.
    pub fn plan(&mut self, snapshot: &Snapshot, node: &NodeName) -> NodePlan {
        self.lowered.update_to(snapshot);
        NodePlan {
            proxy: self.proxy.select(snapshot, &self.lowered, node),
            dns: self.dns.select(snapshot, &self.lowered, node),
            ..beside(snapshot, &self.lowered, node)
        }
    }

    /// What the last snapshot was lowered to.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
    }
}

/// What was wrong with the objects that the plans are made from.
pub fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    lower::snapshot(snapshot).findings()
}
