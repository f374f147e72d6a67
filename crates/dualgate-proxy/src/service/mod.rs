//! Services of type LoadBalancer without kube-proxy: what comes to their addresses goes to their pods, unread.
//!
//! [`tcp`] joins connections, [`udp`] relays datagrams. Both take their servers from [`ForwardState`]; what must outlive
//! plans (turns, affinity, counters) is in [`ForwardShared`], by the forward's identity. Pods see the node's address, as
//! behind kube-proxy with `externalTrafficPolicy: Cluster`.

mod affinity;
mod flows;
pub mod metrics;
pub mod tcp;
pub mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use dualgate_core::plan::forward::{Forward, Transport};
use tokio::sync::watch;

use crate::state::{ServerState, in_turn};

use affinity::{Affinity, by_hash};
pub use flows::Flows;
use metrics::ForwardCounters;

/// A forward with its state.
#[derive(Debug)]
pub struct ForwardState {
    /// What the plan says of it.
    pub forward: Forward,
    /// Its servers, in the plan's order.
    pub servers: Vec<Arc<ServerState>>,
    /// What outlives the plan.
    pub shared: Arc<ForwardShared>,
}

impl ForwardState {
    /// Whether this client may use it.
    pub fn admits(&self, client: SocketAddr) -> bool {
        let address = client.ip().to_canonical();
        let ranges = &self.forward.source_ranges;
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
    }

    /// The server for a client, none of `tried`; one that is not well only where no other is left.
    ///
    /// Connections take turns. Where turns would part what belongs together (a client with affinity, the datagrams of one
    /// socket) the client's address decides, so that a successor of this process, or another node that holds the address,
    /// chooses the same server.
    pub fn choose(&self, client: SocketAddr, now: Instant, tried: &[u64]) -> Option<&Arc<ServerState>> {
        let shared = &self.shared;
        let address = client.ip().to_canonical();
        match (self.forward.client_affinity, self.forward.id.transport) {
            (Some(limit), _) => {
                let kept = shared.affinity.server_of(address, now, limit);
                let usable = |server: &&Arc<ServerState>| server.health.is_well(now) && !tried.contains(&server.uid);
                let kept = self.servers.iter().filter(usable).find(|server| Some(server.uid) == kept);
                let chosen = kept.or_else(|| by_hash(&self.servers, &octets(address, 0), now, tried))?;
                shared.affinity.keep(address, chosen.uid, now, limit);
                Some(chosen)
            }
            (None, Transport::Udp) => by_hash(&self.servers, &octets(address, client.port()), now, tried),
            (None, Transport::Tcp) => in_turn(&self.servers, &shared.next, now, tried),
        }
    }
}

/// A client as octets, the same for an IPv4 address in either form.
fn octets(address: IpAddr, port: u16) -> [u8; 18] {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut octets = [0; 18];
    octets[..16].copy_from_slice(&address.octets());
    octets[16..].copy_from_slice(&port.to_be_bytes());
    octets
}

/// What a forward keeps from plan to plan.
#[derive(Debug)]
pub struct ForwardShared {
    next: AtomicUsize,
    affinity: Affinity,
    /// Whether a plan names it.
    named: watch::Sender<bool>,
    /// What is counted for it.
    pub counters: ForwardCounters,
}

impl Default for ForwardShared {
    fn default() -> Self {
        Self {
            next: AtomicUsize::new(0),
            affinity: Affinity::default(),
            named: watch::Sender::new(true),
            counters: ForwardCounters::default(),
        }
    }
}

impl ForwardShared {
    /// No plan names it any more.
    pub fn dismiss(&self) {
        self.named.send_replace(false);
    }

    /// Returns when no plan names it any more.
    pub async fn dismissed(&self) {
        // The sender lives as long as `self`: there is no error to wait for.
        let _ = self.named.subscribe().wait_for(|named| !named).await;
    }
}
