//! The kernel's WireGuard, told by netlink what to do: rtnetlink makes the interface, the generic family `wireguard` its
//! keys and peers.
//!
//! The interface carries an alias that says whose it is: one that a process left behind is taken over with its sessions,
//! one of somebody else is refused.

mod netlink;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use dualgate_core::model::{PublicKey, Secret};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use crate::{Config, Peer, PeerStatus, TunnelError};
use netlink::Netlink;

/// What our interfaces are marked with.
const ALIAS: &str = "dualgate";
/// So many networks go into one message; its length field has 16 bits.
const NETWORKS: usize = 256;
/// A peer without keepalive is spoken to by switching it on for a moment.
const MOMENT: u16 = 25;

/// An interface of the kernel's. Dropped, it is removed.
#[derive(Debug)]
pub struct Kernel {
    route: Netlink,
    generic: Netlink,
    family: u16,
    name: String,
    index: u32,
    peers: Vec<Peer>,
}

/// Whether this kernel has WireGuard; asking loads its module.
pub fn probe() -> io::Result<()> {
    family(&mut Netlink::open(Some(rustix::net::netlink::GENERIC))?).map(drop)
}

fn family(generic: &mut Netlink) -> io::Result<u16> {
    let name = GenlCtrlAttrs::FamilyName("wireguard".to_owned());
    let question = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] });
    let answers = match generic.ask(question, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no WireGuard"));
        }
        answers => answers?,
    };
    let id = |attribute: &GenlCtrlAttrs| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    };
    answers.iter().flat_map(|answer| &answer.payload.nlas).find_map(id).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Kernel {
    /// Makes the interface in this thread's network, or takes over the one that was left behind.
    pub fn start(config: &Config) -> Result<Self, TunnelError> {
        let failed = |source| TunnelError::Interface { name: config.interface.clone(), source };
        let mut route = Netlink::open(None).map_err(failed)?;
        let mut generic = Netlink::open(Some(rustix::net::netlink::GENERIC)).map_err(failed)?;
        let family = family(&mut generic).map_err(failed)?;
        let index = match find(&mut route, &config.interface).map_err(failed)? {
            Some(link) if is_ours(&link) => link.header.index,
            Some(_) => return Err(TunnelError::Foreign(config.interface.clone())),
            None => make(&mut route, &config.interface).map_err(failed)?,
        };
        let name = config.interface.clone();
        let mut kernel = Self { route, generic, family, name, index, peers: Vec::new() };
        kernel.set(vec![device(config)])?;
        kernel.peers = kernel.known()?.iter().map(|peer| unconfigured(peer.public_key)).collect();
        kernel.configure(&config.peers)?;
        kernel.route.ask(switched_on(index, config.mtu), 0).map_err(failed)?;
        Ok(kernel)
    }

    /// Makes the peers these.
    pub fn configure(&mut self, peers: &[Peer]) -> Result<(), TunnelError> {
        self.set(changes(&self.peers, peers))?;
        self.peers = peers.to_vec();
        Ok(())
    }

    /// Starts over with a peer at an address: the kernel has no other way to begin a handshake when it is told to.
    pub fn dial(&mut self, key: &PublicKey, address: SocketAddr) -> Result<(), TunnelError> {
        let peer = self.peers.iter().find(|peer| peer.public_key == *key).ok_or(TunnelError::NoPeer(*key))?;
        let keepalive = peer.keepalive.map_or(0, Into::into);
        let moved = Peer { endpoint: Some(address), keepalive: None, ..peer.clone() };
        let mut steps = vec![vec![removed(key)]];
        steps.extend(set_peer(None, &moved).into_iter().map(|peer| vec![peer]));
        steps.push(vec![spoken_to(key, MOMENT)]);
        steps.push(vec![spoken_to(key, keepalive)]);
        self.set(steps.into_iter().map(|peers| vec![WireguardAttribute::Peers(peers)]).collect())
    }

    /// The port and the peers.
    pub fn status(&mut self) -> Result<(u16, Vec<PeerStatus>), TunnelError> {
        let (port, mut known) = self.dump()?;
        let configured = |peer: &Peer| {
            let at = known.iter().position(|known| known.public_key == peer.public_key);
            let known = at.map_or_else(|| unheard(peer.public_key), |at| known.swap_remove(at));
            PeerStatus { keepalive: peer.keepalive, allowed_ips: peer.allowed_ips.clone(), ..known }
        };
        Ok((port, self.peers.iter().map(configured).collect()))
    }

    fn known(&mut self) -> Result<Vec<PeerStatus>, TunnelError> {
        Ok(self.dump()?.1)
    }

    fn dump(&mut self) -> Result<(u16, Vec<PeerStatus>), TunnelError> {
        let question = self.message(WireguardCmd::GetDevice, Vec::new());
        let answers = self.generic.ask(question, NLM_F_DUMP).map_err(|source| self.failed("read the peers", source))?;
        let attributes: Vec<_> = answers.into_iter().flat_map(|answer| answer.payload.attributes).collect();
        Ok(read(&attributes, SystemTime::now()))
    }

    /// Sends each list of attributes as one message.
    fn set(&mut self, messages: Vec<Vec<WireguardAttribute>>) -> Result<(), TunnelError> {
        for attributes in messages {
            let message = self.message(WireguardCmd::SetDevice, attributes);
            self.generic.ask(message, 0).map_err(|source| self.failed("set the peers", source))?;
        }
        Ok(())
    }

    fn message(
        &self,
        cmd: WireguardCmd,
        mut attributes: Vec<WireguardAttribute>,
    ) -> NetlinkMessage<GenlMessage<WireguardMessage>> {
        attributes.insert(0, WireguardAttribute::IfIndex(self.index));
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        message.into()
    }

    fn failed(&self, doing: &str, source: io::Error) -> TunnelError {
        match source.raw_os_error() {
            Some(libc::ENODEV) => TunnelError::Stopped(format!("the interface `{}` was removed", self.name)),
            _ => TunnelError::Kernel { doing: format!("{doing} of `{}`", self.name), source },
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        // It may be gone already.
        let _ = self.route.ask(RouteNetlinkMessage::DelLink(link), 0);
    }
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = attributes;
    link
}

fn find(route: &mut Netlink, name: &str) -> io::Result<Option<LinkMessage>> {
    let question = RouteNetlinkMessage::GetLink(link(vec![LinkAttribute::IfName(name.to_owned())]));
    match route.ask(question, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        answers => Ok(answers?.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })),
    }
}

fn is_ours(link: &LinkMessage) -> bool {
    let says = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfAlias(alias) => alias == ALIAS,
        _ => false,
    };
    let is_wireguard = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Wireguard)),
        _ => false,
    };
    link.attributes.iter().any(says) && link.attributes.iter().any(is_wireguard)
}

/// Makes the interface and marks it.
fn make(route: &mut Netlink, name: &str) -> io::Result<u32> {
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]);
    let new = RouteNetlinkMessage::NewLink(link(vec![LinkAttribute::IfName(name.to_owned()), kind]));
    route.ask(new, NLM_F_CREATE | NLM_F_EXCL)?;
    let index = find(route, name)?.ok_or(io::ErrorKind::NotFound)?.header.index;
    let mut marked = link(vec![LinkAttribute::IfAlias(ALIAS.to_owned())]);
    marked.header.index = index;
    route.ask(RouteNetlinkMessage::SetLink(marked), 0)?;
    Ok(index)
}

fn switched_on(index: u32, mtu: u16) -> RouteNetlinkMessage {
    let mut on = link(vec![LinkAttribute::Mtu(mtu.into())]);
    on.header.index = index;
    on.header.change_mask = LinkFlags::Up;
    on.header.flags = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(on)
}

/// Everything but the peers.
fn device(config: &Config) -> Vec<WireguardAttribute> {
    let mut attributes: Vec<_> = octets(&config.private_key).map(WireguardAttribute::PrivateKey).into_iter().collect();
    attributes.extend(config.listen_port.map(WireguardAttribute::ListenPort));
    attributes.push(WireguardAttribute::Flags(WireguardDeviceFlags::empty()));
    attributes
}

/// The messages that make `before` into `after`. Who goes, goes first: its networks may be for who comes.
fn changes(before: &[Peer], after: &[Peer]) -> Vec<Vec<WireguardAttribute>> {
    let stays = |peer: &Peer| after.iter().any(|other| other.public_key == peer.public_key);
    let gone: Vec<WireguardPeer> =
        before.iter().filter(|peer| !stays(peer)).map(|peer| removed(&peer.public_key)).collect();
    let mut messages = Vec::new();
    if !gone.is_empty() {
        messages.push(vec![WireguardAttribute::Peers(gone)]);
    }
    for peer in after {
        let known = before.iter().find(|other| other.public_key == peer.public_key);
        messages.extend(set_peer(known, peer).into_iter().map(|peer| vec![WireguardAttribute::Peers(vec![peer])]));
    }
    messages
}

/// One peer as messages; the endpoint only if it is another one than was configured, as the peer may have roamed.
fn set_peer(known: Option<&Peer>, peer: &Peer) -> Vec<WireguardPeer> {
    let key = WireguardPeerAttribute::PublicKey(*peer.public_key.octets());
    let mut pieces = peer.allowed_ips.chunks(NETWORKS);
    let none = octets_of_none();
    let mut first = vec![
        key.clone(),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        WireguardPeerAttribute::PresharedKey(peer.preshared_key.as_ref().and_then(octets).unwrap_or(none)),
        WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.map_or(0, Into::into)),
        WireguardPeerAttribute::AllowedIps(pieces.next().unwrap_or_default().iter().map(allowed).collect()),
    ];
    let endpoint = peer.endpoint.filter(|endpoint| known.and_then(|known| known.endpoint) != Some(*endpoint));
    first.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
    let more = pieces.map(|piece| {
        WireguardPeer(vec![key.clone(), WireguardPeerAttribute::AllowedIps(piece.iter().map(allowed).collect())])
    });
    std::iter::once(WireguardPeer(first)).chain(more).collect()
}

fn removed(key: &PublicKey) -> WireguardPeer {
    let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
    WireguardPeer(vec![WireguardPeerAttribute::PublicKey(*key.octets()), flags])
}

/// With its keepalive switched on, the kernel speaks to it at once.
fn spoken_to(key: &PublicKey, keepalive: u16) -> WireguardPeer {
    WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(*key.octets()),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
        WireguardPeerAttribute::PersistentKeepalive(keepalive),
    ])
}

fn allowed(network: &IpNet) -> WireguardAllowedIp {
    let family = match network {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(network.network()),
        WireguardAllowedIpAttr::Cidr(network.prefix_len()),
    ])
}

/// The kernel means "no preshared key" by zeros.
const fn octets_of_none() -> [u8; 32] {
    [0; 32]
}

/// For the kernel.
fn octets(key: &Secret) -> Option<[u8; 32]> {
    key.expose().try_into().ok()
}

/// The port and the peers of a dump. A peer with many networks stands in several messages.
fn read(attributes: &[WireguardAttribute], now: SystemTime) -> (u16, Vec<PeerStatus>) {
    let mut port = 0;
    let mut peers: Vec<PeerStatus> = Vec::new();
    for attribute in attributes {
        match attribute {
            WireguardAttribute::ListenPort(number) => port = *number,
            WireguardAttribute::Peers(list) => {
                for peer in list.iter().filter_map(|peer| read_peer(peer, now)) {
                    if !peers.iter().any(|known| known.public_key == peer.public_key) {
                        peers.push(peer);
                    }
                }
            }
            _ => {}
        }
    }
    (port, peers)
}

fn read_peer(attributes: &WireguardPeer, now: SystemTime) -> Option<PeerStatus> {
    let key = |attribute: &WireguardPeerAttribute| match attribute {
        WireguardPeerAttribute::PublicKey(octets) => Some(PublicKey::new(*octets)),
        _ => None,
    };
    let mut peer = unheard(attributes.iter().find_map(key)?);
    for attribute in attributes.iter() {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::LastHandshake(at) if at.seconds > 0 => {
                let since = Duration::new(at.seconds.unsigned_abs(), u32::try_from(at.nano_seconds).unwrap_or(0));
                let since = SystemTime::UNIX_EPOCH + since;
                peer.last_handshake = Some(now.duration_since(since).unwrap_or_default());
            }
            WireguardPeerAttribute::RxBytes(octets) => peer.received = *octets,
            WireguardPeerAttribute::TxBytes(octets) => peer.sent = *octets,
            _ => {}
        }
    }
    Some(peer)
}

fn unheard(public_key: PublicKey) -> PeerStatus {
    PeerStatus {
        public_key,
        endpoint: None,
        last_handshake: None,
        received: 0,
        sent: 0,
        loss: None,
        round_trip: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    }
}

fn unconfigured(public_key: PublicKey) -> Peer {
    Peer { public_key, preshared_key: None, endpoint: None, keepalive: None, allowed_ips: Vec::new() }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
    use netlink_packet_generic::GenlHeader;
    use netlink_packet_wireguard::WireguardTimeSpec;

    use super::*;

    fn peer(octet: u8, networks: usize) -> Peer {
        Peer {
            public_key: PublicKey::new([octet; 32]),
            preshared_key: Some(Secret::new([octet + 1; 32])),
            endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
            keepalive: std::num::NonZeroU16::new(25),
            allowed_ips: (0..networks).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()).collect(),
        }
    }

    fn peers_of(messages: &[Vec<WireguardAttribute>]) -> Vec<WireguardPeer> {
        let peers = |attribute: &WireguardAttribute| match attribute {
            WireguardAttribute::Peers(peers) => peers.clone(),
            _ => Vec::new(),
        };
        messages.iter().flatten().flat_map(peers).collect()
    }

    fn flags(peer: &WireguardPeer) -> Option<WireguardPeerFlags> {
        peer.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
    }

    fn endpoint(peer: &WireguardPeer) -> Option<SocketAddr> {
        peer.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => Some(*endpoint),
            _ => None,
        })
    }

    #[test]
    fn who_goes_is_removed_first_and_who_stays_keeps_where_it_is() {
        let peers = peers_of(&changes(&[peer(1, 1), peer(3, 1)], &[peer(3, 2), peer(5, 1)]));
        let flags: Vec<_> = peers.iter().filter_map(flags).collect();
        let replace = WireguardPeerFlags::ReplaceAllowedIps;
        assert_eq!(flags, [WireguardPeerFlags::RemoveMe, replace, replace]);
        assert_eq!(peers.iter().map(|peer| endpoint(peer).is_some()).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(peers_of(&changes(&[], &[])), []);
    }

    #[test]
    fn no_message_is_larger_than_its_length_field_can_say() {
        let messages = changes(&[], &[peer(1, 2000)]);
        assert_eq!(messages.len(), 8);
        assert!(messages.iter().all(|message| message.as_slice().buffer_len() < 65_000));
        assert_eq!(
            peers_of(&messages).iter().filter(|peer| flags(peer).is_some()).count(),
            1,
            "only the first replaces"
        );
    }

    #[test]
    fn a_dump_is_read_as_it_would_be_written() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut heard = set_peer(None, &peer(1, 1)).remove(0);
        heard.0.extend([
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 990, nano_seconds: 0 }),
            WireguardPeerAttribute::RxBytes(7),
            WireguardPeerAttribute::TxBytes(8),
        ]);
        let continued = set_peer(None, &peer(1, 300)).remove(1);
        let silent = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([3; 32]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec::default()),
        ]);
        let attributes = vec![
            WireguardAttribute::ListenPort(51820),
            WireguardAttribute::Peers(vec![heard, continued]),
            WireguardAttribute::Peers(vec![silent]),
        ];
        let message = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes };
        let mut octets = vec![0; message.buffer_len()];
        message.emit(&mut octets);
        let header = GenlHeader { cmd: 0, version: 1 };
        let message = WireguardMessage::parse_with_param(&octets, header).unwrap();
        let expected = PeerStatus {
            endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
            last_handshake: Some(Duration::from_secs(10)),
            received: 7,
            sent: 8,
            ..unheard(PublicKey::new([1; 32]))
        };
        assert_eq!(read(&message.attributes, now), (51820, vec![expected, unheard(PublicKey::new([3; 32]))]));
    }

    #[test]
    fn asking_for_wireguard_says_whether_it_is_there() {
        match probe() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.to_string(), "this kernel has no WireGuard"),
        }
    }
}
