//! What the tunnel is to others: configuration in, status out.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dualgate_core::model::{PublicKey, Secret};
use dualgate_host::network::{Network, NetworkError};
use ipnet::IpNet;

use crate::kernel::{self, Kernel};
use crate::userspace::{MACS, Userspace};

/// How long the interface of a process that has just died may still be there.
const LEFTOVER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Why there is no tunnel, or why it does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// There is such an interface, and it is not ours.
    #[error("the interface `{0}` is there already and belongs to somebody else: remove it, or end what made it")]
    Foreign(String),
    /// It cannot be made.
    #[error("make the interface `{name}`")]
    Interface {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host's network cannot be looked at.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The UDP port cannot be had.
    #[error("listen on the UDP port {port}")]
    Listen {
        /// Which one; 0 is any.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's WireGuard does not do as it is told.
    #[error("{doing}")]
    Kernel {
        /// What was to be done.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A key is not one.
    #[error("{0} has not 32 octets")]
    Key(&'static str),
    /// The same peer twice.
    #[error("the peer {0} stands there twice")]
    Twice(PublicKey),
    /// The same network at two peers: WireGuard would give it to one of them, silently.
    #[error("{network} is allowed to both {one} and {other}")]
    Shared {
        /// The network.
        network: IpNet,
        /// A peer.
        one: PublicKey,
        /// Another peer.
        other: PublicKey,
    },
    /// There is no such peer.
    #[error("there is no peer {0}")]
    NoPeer(PublicKey),
    /// The engine ended, because its interface was taken away.
    #[error("the tunnel's engine has stopped: {0}")]
    Stopped(String),
}

/// What moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's WireGuard.
    Kernel,
    /// WireGuard in this process, behind a TUN device with offload.
    Tun,
    /// WireGuard in this process, behind a cable and a packet socket.
    Packet,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Tun => "tun",
            Self::Packet => "packet",
        })
    }
}

/// A backend, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which one.
    pub backend: Backend,
    /// Why not a better one, or why it is the best.
    pub why: String,
}

impl Backend {
    /// The best that works here, in the network of the calling thread.
    pub fn choose() -> Choice {
        let kernel = match kernel::probe() {
            Ok(()) => return Choice { backend: Self::Kernel, why: "this kernel has WireGuard".to_owned() },
            Err(error) => format!("the kernel's WireGuard: {error}"),
        };
        match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
            Ok(_) => Choice { backend: Self::Tun, why: kernel },
            Err(error) => Choice { backend: Self::Packet, why: format!("{kernel}; /dev/net/tun: {error}") },
        }
    }
}

/// One end of the tunnel.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface's name.
    pub interface: String,
    /// 32 octets.
    pub private_key: Secret,
    /// The UDP port; `None` is any.
    pub listen_port: Option<u16>,
    /// The interface's MTU in octets.
    pub mtu: u16,
    /// The other ends.
    pub peers: Vec<Peer>,
    /// What moves the packets; `None` leaves it to [`Backend::choose`].
    pub backend: Option<Backend>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub public_key: PublicKey,
    /// 32 octets, mixed into every handshake.
    pub preshared_key: Option<Secret>,
    /// Where to dial. The peer may be elsewhere: the engine follows it, and comes back here only when this changes.
    pub endpoint: Option<SocketAddr>,
    /// How often to speak when nothing else does, in seconds. Who has it dials for ever.
    pub keepalive: Option<NonZeroU16>,
    /// What comes from it and goes to it. No other peer has one of these networks.
    pub allowed_ips: Vec<IpNet>,
}

/// How the tunnel is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What moves the packets, and why.
    pub choice: Choice,
    /// The interface's name.
    pub interface: String,
    /// The UDP port.
    pub listen_port: u16,
    /// Where `wg show` asks, when the kernel does not answer it.
    pub socket: Option<PathBuf>,
    /// The peers, as they were configured.
    pub peers: Vec<PeerStatus>,
}

/// How a peer is.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Who it is.
    pub public_key: PublicKey,
    /// Where it was heard last, or is to be dialled.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the last handshake was completed.
    pub last_handshake: Option<Duration>,
    /// Octets received from it.
    pub received: u64,
    /// Octets sent to it.
    pub sent: u64,
    /// The share of its packets that did not arrive, where the backend counts it.
    pub loss: Option<f32>,
    /// How long the last handshake took, where the backend measures it.
    pub round_trip: Option<Duration>,
    /// As configured.
    pub keepalive: Option<NonZeroU16>,
    /// As configured.
    pub allowed_ips: Vec<IpNet>,
}

/// A running tunnel. Dropped, it takes its interface along; [`Engine::hand_over`] does not.
#[derive(Debug)]
pub struct Engine {
    driver: Driver,
    choice: Choice,
    interface: String,
}

#[derive(Debug)]
enum Driver {
    Kernel(Kernel),
    Userspace(Userspace),
}

impl Engine {
    /// Makes the interface in the network of the calling thread, switches it on, and starts.
    pub fn start(config: &Config) -> Result<Self, TunnelError> {
        check(&config.peers)?;
        if config.private_key.expose().len() != 32 {
            return Err(TunnelError::Key("the private key"));
        }
        let choice = match config.backend {
            Some(backend) => Choice { backend, why: "it was asked for".to_owned() },
            None => Backend::choose(),
        };
        let driver = match choice.backend {
            Backend::Kernel => Driver::Kernel(Kernel::start(config)?),
            backend @ (Backend::Tun | Backend::Packet) => {
                refuse_foreign(&config.interface)?;
                Driver::Userspace(Userspace::start(backend, config)?)
            }
        };
        tracing::info!(interface = config.interface, backend = %choice.backend, why = choice.why, "the tunnel's interface is there");
        Ok(Self { driver, choice, interface: config.interface.clone() })
    }

    /// Makes the peers these. Sessions of peers that stay go on; a preshared key counts from the next handshake on.
    pub fn configure(&mut self, peers: &[Peer]) -> Result<(), TunnelError> {
        check(peers)?;
        match &mut self.driver {
            Driver::Kernel(kernel) => kernel.configure(peers),
            Driver::Userspace(userspace) => userspace.configure(peers),
        }
    }

    /// Points a peer to an address and starts a handshake at once, whatever was configured.
    pub fn dial(&mut self, peer: &PublicKey, address: SocketAddr) -> Result<(), TunnelError> {
        match &mut self.driver {
            Driver::Kernel(kernel) => kernel.dial(peer, address),
            Driver::Userspace(userspace) => userspace.dial(*peer, address),
        }
    }

    /// Ends, and leaves the interface to a successor, where it can be left: the kernel's goes on with its sessions, and
    /// [`Engine::start`] in another process takes it over as it is. An interface of this process goes with it.
    pub fn hand_over(self) {
        match self.driver {
            Driver::Kernel(kernel) => kernel.hand_over(),
            Driver::Userspace(userspace) => drop(userspace),
        }
    }

    /// How it is now.
    pub fn status(&mut self) -> Result<Status, TunnelError> {
        let (listen_port, socket, peers) = match &mut self.driver {
            Driver::Kernel(kernel) => {
                let (port, peers) = kernel.status()?;
                (port, None, peers)
            }
            Driver::Userspace(userspace) => {
                (userspace.port(), userspace.socket().map(ToOwned::to_owned), userspace.peers()?)
            }
        };
        Ok(Status { choice: self.choice.clone(), interface: self.interface.clone(), listen_port, socket, peers })
    }
}

/// Refuses an interface of somebody else. One of our own may still be there for a moment after its process died.
fn refuse_foreign(name: &str) -> Result<(), TunnelError> {
    let deadline = Instant::now() + LEFTOVER;
    loop {
        let interfaces = Network::open()?.interfaces()?;
        match interfaces.iter().find(|interface| interface.name == name) {
            None => return Ok(()),
            Some(ours) if ours.mac == Some(MACS[0]) && Instant::now() < deadline => std::thread::park_timeout(LOOK),
            Some(_) => return Err(TunnelError::Foreign(name.to_owned())),
        }
    }
}

/// What no backend could make work.
pub(crate) fn check(peers: &[Peer]) -> Result<(), TunnelError> {
    let mut owners: BTreeMap<IpNet, PublicKey> = BTreeMap::new();
    let mut keys: Vec<PublicKey> = peers.iter().map(|peer| peer.public_key).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(TunnelError::Twice(pair[0]));
    }
    for peer in peers {
        if peer.preshared_key.as_ref().is_some_and(|key| key.expose().len() != 32) {
            return Err(TunnelError::Key("a preshared key"));
        }
        for network in &peer.allowed_ips {
            let before = owners.insert(network.trunc(), peer.public_key);
            if let Some(one) = before.filter(|before| *before != peer.public_key) {
                return Err(TunnelError::Shared { network: *network, one, other: peer.public_key });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(octet: u8, allowed: &[&str]) -> Peer {
        Peer {
            public_key: PublicKey::new([octet; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: allowed.iter().map(|network| network.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_network_belongs_to_one_peer() {
        assert!(check(&[peer(1, &["10.0.0.0/8", "10.0.0.0/8"]), peer(2, &["10.1.0.0/16", "fd00::/8"])]).is_ok());
        let shared = check(&[peer(1, &["10.0.0.0/8"]), peer(2, &["10.1.2.3/8"])]);
        assert!(matches!(shared, Err(TunnelError::Shared { .. })), "{shared:?}");
    }

    #[test]
    fn a_peer_stands_there_once_and_keys_have_32_octets() {
        assert!(matches!(check(&[peer(1, &[]), peer(2, &[]), peer(1, &[])]), Err(TunnelError::Twice(_))));
        let short = Peer { preshared_key: Some(Secret::new([7; 31])), ..peer(1, &[]) };
        assert!(matches!(check(&[short]), Err(TunnelError::Key(_))));
    }
}
