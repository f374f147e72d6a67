//! Which upstreams answer: those that keep silent are asked last, and looked at now and then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// So many questions in a row without an answer, and an upstream counts as away.
const SILENCES: u8 = 3;
/// How often an upstream that is away is looked at.
const PROBE: Duration = Duration::from_secs(5);

/// How the upstreams are.
#[derive(Debug, Default)]
pub struct Upstreams(BTreeMap<SocketAddr, Health>);

#[derive(Debug, Default)]
struct Health {
    silences: u8,
    probe: Option<Duration>,
}

impl Upstreams {
    /// These, and what is known of them.
    pub fn are(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        let mut former = std::mem::take(&mut self.0);
        self.0 = addresses.map(|address| (address, former.remove(&address).unwrap_or_default())).collect();
    }

    /// Whether it counts as away.
    pub fn is_away(&self, upstream: SocketAddr) -> bool {
        self.0.get(&upstream).is_some_and(|health| health.probe.is_some())
    }

    /// Those that are away.
    pub fn away(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter(|(_, health)| health.probe.is_some()).map(|(address, _)| *address)
    }

    /// It said something.
    pub fn answered(&mut self, upstream: SocketAddr) {
        if let Some(health) = self.0.get_mut(&upstream) {
            *health = Health::default();
        }
    }

    /// It said nothing, or cannot be reached.
    pub fn was_silent(&mut self, upstream: SocketAddr, now: Duration) {
        if let Some(health) = self.0.get_mut(&upstream) {
            health.silences = health.silences.saturating_add(1);
            if health.silences >= SILENCES {
                health.probe.get_or_insert(now + PROBE);
            }
        }
    }

    /// When one is to be looked at.
    pub fn due(&self) -> Option<Duration> {
        self.0.values().filter_map(|health| health.probe).min()
    }

    /// Those that are to be looked at now; each once.
    pub fn probes(&mut self, now: Duration) -> Vec<SocketAddr> {
        let due = self.0.iter_mut().filter(|(_, health)| health.probe.is_some_and(|probe| probe <= now));
        let probed = due.map(|(address, health)| {
            health.probe = Some(now + PROBE);
            *address
        });
        probed.collect()
    }
}
