//! One peer: its protocol machine, where it is, and what was configured.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::{PublicKey, Secret};
use gotatun::noise::errors::WireGuardError;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519;

use super::outer::Endpoint;
use crate::{Peer as Config, PeerStatus};

/// This end's identity, as every peer's machine needs it.
pub struct Identity {
    /// The private key.
    pub private: x25519::StaticSecret,
    /// Its public part.
    pub public: x25519::PublicKey,
    /// Answers who asks too often with a cookie first.
    pub limiter: Arc<RateLimiter>,
    /// The session numbers in use.
    pub indices: IndexTable,
}

/// A peer that lives.
pub struct Peer {
    /// As it was configured last.
    pub config: Config,
    /// The protocol.
    pub tunn: Tunn,
    /// Where it is, as far as known.
    pub endpoint: Option<Endpoint>,
    /// What is to be sent to it.
    pub waiting: Vec<Packet>,
    /// The last source address that was found to be its.
    pub known_source: Option<IpAddr>,
}

/// Handshakes that a single address may start in a second before it is asked for a cookie.
const HANDSHAKES: u64 = 100;

impl Identity {
    /// Of a private key.
    pub fn new(private: [u8; 32]) -> Self {
        let private = x25519::StaticSecret::from(private);
        let public = x25519::PublicKey::from(&private);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES));
        Self { private, public, limiter, indices: IndexTable::from_os_rng() }
    }
}

impl Peer {
    /// One that was never spoken to.
    pub fn new(identity: &Identity, config: Config) -> Self {
        let tunn = Tunn::new(
            identity.private.clone(),
            x25519::PublicKey::from(*config.public_key.octets()),
            preshared(&config),
            config.keepalive.map(Into::into),
            identity.indices.clone(),
            identity.limiter.clone(),
        );
        let endpoint = config.endpoint.map(|address| Endpoint { address, source: None });
        Self { config, tunn, endpoint, waiting: Vec::new(), known_source: None }
    }

    /// Its public key.
    pub fn key(&self) -> &PublicKey {
        &self.config.public_key
    }

    /// Takes another configuration over; sessions stay. An endpoint counts only if it is another one than was configured
    /// before: meanwhile the peer may have roamed.
    pub fn configure(&mut self, config: Config) {
        if config.preshared_key != self.config.preshared_key {
            self.tunn.set_preshared_key(preshared(&config));
        }
        if config.keepalive != self.config.keepalive {
            self.tunn.set_persistent_keepalive(config.keepalive.map(Into::into));
        }
        if config.endpoint.is_some() && config.endpoint != self.config.endpoint {
            self.endpoint = config.endpoint.map(|address| Endpoint { address, source: None });
        }
        self.known_source = None;
        self.config = config;
    }

    /// Takes a packet of it; what is authentic tells where it is. Cookies do not.
    pub fn take(&mut self, packet: WgKind, from: Endpoint) -> TunnResult {
        let result = self.tunn.handle_incoming_packet(packet);
        match result {
            TunnResult::WriteToNetwork(_) | TunnResult::WriteToTunnel(_) => self.endpoint = Some(from),
            TunnResult::Done | TunnResult::Err(_) => {}
        }
        result
    }

    /// The next handshake, whether or not one is under way.
    pub fn initiate(&mut self) -> Option<WgKind> {
        self.tunn.format_handshake_initiation(true).map(WgKind::from)
    }

    /// What its timers want to be sent now.
    pub fn tick(&mut self) -> Option<WgKind> {
        self.endpoint?;
        match self.tunn.update_timers() {
            Ok(packet) => {
                if let (Some(WgKind::HandshakeInit(_)), Some(endpoint)) = (&packet, &mut self.endpoint) {
                    // Our own address may be the trouble: leave it to the routes.
                    endpoint.source = None;
                }
                packet
            }
            // After 90 s without an answer the machine rests until there is something to send. Whoever keeps a path open
            // always has: else two ends that were away at the same time would wait for each other for ever.
            Err(WireGuardError::ConnectionExpired) if self.config.keepalive.is_some() => self.initiate(),
            Err(_) => None,
        }
    }

    /// Points it somewhere and starts over.
    pub fn dial(&mut self, address: SocketAddr) -> Option<WgKind> {
        self.endpoint = Some(Endpoint { address, source: None });
        self.initiate()
    }

    /// What is known of it.
    pub fn status(&self) -> PeerStatus {
        let (handshake, sent, received, loss, round_trip) = self.tunn.stats();
        PeerStatus {
            public_key: self.config.public_key,
            endpoint: self.endpoint.map(|endpoint| endpoint.address),
            last_handshake: handshake,
            received: received as u64,
            sent: sent as u64,
            loss: Some(loss),
            round_trip: round_trip.map(|milliseconds| Duration::from_millis(milliseconds.into())),
            keepalive: self.config.keepalive,
            allowed_ips: self.config.allowed_ips.clone(),
        }
    }
}

/// The octets of a preshared key, which were checked to be 32.
fn preshared(config: &Config) -> Option<[u8; 32]> {
    config.preshared_key.as_ref().and_then(octets)
}

/// The octets of a key, for the protocol's machine.
pub fn octets(key: &Secret) -> Option<[u8; 32]> {
    key.expose().try_into().ok()
}
