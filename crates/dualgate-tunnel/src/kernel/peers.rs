//! Peers as the kernel's WireGuard is told and tells them: attributes of its messages, nothing but values.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use dualgate_core::model::{PublicKey, Secret};
use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardPeer,
    WireguardPeerAttribute, WireguardPeerFlags,
};

use crate::{Peer, PeerStatus};

/// So many networks go into one message; its length field has 16 bits.
const NETWORKS: usize = 256;
/// A session ends after so long (REJECT_AFTER_TIME): who was heard since may still be where that was.
const SESSION: Duration = Duration::from_secs(180);

/// A peer as the kernel has it.
#[derive(Clone, Debug, PartialEq)]
pub struct There {
    /// How it is, with what the kernel was told.
    pub status: PeerStatus,
    preshared_key: Option<Secret>,
}

/// The messages that make what is there into `after`. Who goes, goes first: its networks may be for who comes. What is as it
/// should be is left out, as packets are lost while networks are replaced. `before` is what was configured last.
pub fn changes(there: &[There], before: &[Peer], after: &[Peer]) -> Vec<Vec<WireguardAttribute>> {
    let stays = |key: &PublicKey| after.iter().any(|other| other.public_key == *key);
    let keys = there.iter().map(|there| &there.status.public_key);
    let gone: Vec<WireguardPeer> = keys.filter(|key| !stays(key)).map(removed).collect();
    let mut messages = Vec::new();
    if !gone.is_empty() {
        messages.push(vec![WireguardAttribute::Peers(gone)]);
    }
    let wanted: BTreeSet<IpNet> = after.iter().flat_map(|peer| &peer.allowed_ips).map(IpNet::trunc).collect();
    for peer in after {
        let pieces = match there.iter().find(|there| there.status.public_key == peer.public_key) {
            None => set_peer(peer),
            Some(there) => {
                let known = before.iter().find(|known| known.public_key == peer.public_key);
                change_peer(there, known, peer, &wanted)
            }
        };
        messages.extend(pieces.into_iter().map(|peer| vec![WireguardAttribute::Peers(vec![peer])]));
    }
    messages
}

/// What differs at a peer that is there.
fn change_peer(there: &There, known: Option<&Peer>, peer: &Peer, wanted: &BTreeSet<IpNet>) -> Vec<WireguardPeer> {
    let (status, mut differs) = (&there.status, Vec::new());
    if there.preshared_key != peer.preshared_key {
        differs.push(preshared(peer));
    }
    if status.keepalive != peer.keepalive {
        differs.push(WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.map_or(0, Into::into)));
    }
    // The peer may have roamed: it is called back only to where it was not told to be before.
    let is_told = |endpoint: &SocketAddr| match known {
        Some(known) => known.endpoint == Some(*endpoint),
        None => status.endpoint.is_some() && status.last_handshake.is_some_and(|age| age < SESSION),
    };
    differs.extend(peer.endpoint.filter(|endpoint| !is_told(endpoint)).map(WireguardPeerAttribute::Endpoint));
    let has: BTreeSet<IpNet> = status.allowed_ips.iter().copied().collect();
    let gets: BTreeSet<IpNet> = peer.allowed_ips.iter().map(IpNet::trunc).collect();
    // What another peer gets is taken from this one by that; the rest can only be replaced as a whole.
    let is_replaced = has.difference(&gets).any(|network| !wanted.contains(network));
    let mut networks: Vec<IpNet> = gets.into_iter().filter(|network| is_replaced || !has.contains(network)).collect();
    if is_replaced {
        differs.insert(0, WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps));
    }
    if differs.is_empty() && networks.is_empty() {
        return Vec::new();
    }
    networks.sort_unstable();
    in_pieces(&peer.public_key, differs, &networks)
}

/// One peer as messages.
pub fn set_peer(peer: &Peer) -> Vec<WireguardPeer> {
    let mut attributes = vec![
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        preshared(peer),
        WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.map_or(0, Into::into)),
    ];
    attributes.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
    in_pieces(&peer.public_key, attributes, &peer.allowed_ips)
}

fn preshared(peer: &Peer) -> WireguardPeerAttribute {
    WireguardPeerAttribute::PresharedKey(peer.preshared_key.as_ref().and_then(octets).unwrap_or(octets_of_none()))
}

/// The first message has the attributes, and each as many networks as fit.
fn in_pieces(key: &PublicKey, attributes: Vec<WireguardPeerAttribute>, networks: &[IpNet]) -> Vec<WireguardPeer> {
    let key = WireguardPeerAttribute::PublicKey(*key.octets());
    let mut pieces = networks.chunks(NETWORKS);
    let piece = |networks: &[IpNet]| WireguardPeerAttribute::AllowedIps(networks.iter().map(allowed).collect());
    let first = std::iter::once(key.clone()).chain(attributes).chain([piece(pieces.next().unwrap_or_default())]);
    let first = WireguardPeer(first.collect());
    std::iter::once(first).chain(pieces.map(|networks| WireguardPeer(vec![key.clone(), piece(networks)]))).collect()
}

/// A peer that goes.
pub fn removed(key: &PublicKey) -> WireguardPeer {
    let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
    WireguardPeer(vec![WireguardPeerAttribute::PublicKey(*key.octets()), flags])
}

/// With its keepalive switched on, the kernel speaks to it at once.
pub fn spoken_to(key: &PublicKey, keepalive: u16) -> WireguardPeer {
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
pub fn octets(key: &Secret) -> Option<[u8; 32]> {
    key.expose().try_into().ok()
}

/// The port and the peers of a dump. A peer with many networks stands in several messages.
pub fn read(attributes: &[WireguardAttribute], now: SystemTime) -> (u16, Vec<There>) {
    let mut port = 0;
    let mut peers: Vec<There> = Vec::new();
    for attribute in attributes {
        match attribute {
            WireguardAttribute::ListenPort(number) => port = *number,
            WireguardAttribute::Peers(list) => {
                for peer in list.iter().filter_map(|peer| read_peer(peer, now)) {
                    match peers.last_mut().filter(|last| last.status.public_key == peer.status.public_key) {
                        Some(last) => last.status.allowed_ips.extend(peer.status.allowed_ips),
                        None => peers.push(peer),
                    }
                }
            }
            _ => {}
        }
    }
    (port, peers)
}

fn read_peer(attributes: &WireguardPeer, now: SystemTime) -> Option<There> {
    let key = |attribute: &WireguardPeerAttribute| match attribute {
        WireguardPeerAttribute::PublicKey(octets) => Some(PublicKey::new(*octets)),
        _ => None,
    };
    let mut peer = unheard(attributes.iter().find_map(key)?);
    let mut preshared_key = None;
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
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = NonZeroU16::new(*seconds),
            WireguardPeerAttribute::PresharedKey(octets) if *octets != octets_of_none() => {
                preshared_key = Some(Secret::new(*octets));
            }
            WireguardPeerAttribute::AllowedIps(networks) => {
                peer.allowed_ips = networks.iter().filter_map(network).collect()
            }
            _ => {}
        }
    }
    Some(There { status: peer, preshared_key })
}

fn network(attributes: &WireguardAllowedIp) -> Option<IpNet> {
    let address = attributes.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::IpAddr(address) => Some(*address),
        _ => None,
    });
    let length = attributes.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::Cidr(length) => Some(*length),
        _ => None,
    });
    IpNet::new(address?, length?).ok()
}

/// A peer of which nothing is known.
pub fn unheard(public_key: PublicKey) -> PeerStatus {
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

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
    use netlink_packet_generic::GenlHeader;
    use netlink_packet_wireguard::{WireguardCmd, WireguardMessage, WireguardTimeSpec};

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

    /// As the kernel has it once it was configured so.
    fn there(peer: &Peer) -> There {
        let status = PeerStatus {
            endpoint: peer.endpoint,
            keepalive: peer.keepalive,
            allowed_ips: peer.allowed_ips.clone(),
            ..unheard(peer.public_key)
        };
        There { status, preshared_key: peer.preshared_key.clone() }
    }

    fn networks(peer: &WireguardPeer) -> usize {
        let count = |attribute: &WireguardPeerAttribute| match attribute {
            WireguardPeerAttribute::AllowedIps(networks) => networks.len(),
            _ => 0,
        };
        peer.iter().map(count).sum()
    }

    #[test]
    fn who_goes_is_removed_first_and_who_comes_is_told_everything() {
        let peers = peers_of(&changes(&[there(&peer(1, 1))], &[peer(1, 1)], &[peer(5, 2)]));
        let flags: Vec<_> = peers.iter().filter_map(flags).collect();
        assert_eq!(flags, [WireguardPeerFlags::RemoveMe, WireguardPeerFlags::ReplaceAllowedIps]);
        assert_eq!(peers.iter().map(|peer| endpoint(peer).is_some()).collect::<Vec<_>>(), [false, true]);
        assert_eq!(peers_of(&changes(&[], &[], &[])), []);
    }

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        let before = [peer(1, 2), peer(3, 0)];
        let present = before.each_ref().map(there);
        assert_eq!(peers_of(&changes(&present, &before, &before)), []);
        // One more network, and another preshared key.
        let after = [Peer { preshared_key: None, ..peer(1, 3) }, peer(3, 0)];
        let told = peers_of(&changes(&present, &before, &after));
        assert_eq!(
            told.iter().map(|peer| (networks(peer), flags(peer), endpoint(peer))).collect::<Vec<_>>(),
            [(1, None, None)]
        );
        // One less can only be told by telling all.
        let told = peers_of(&changes(&present, &before, &[peer(1, 1), peer(3, 0)]));
        let replaced = Some(WireguardPeerFlags::ReplaceAllowedIps);
        assert_eq!(told.iter().map(|peer| (networks(peer), flags(peer))).collect::<Vec<_>>(), [(1, replaced)]);
    }

    #[test]
    fn a_network_that_moves_is_told_to_who_gets_it() {
        let before = [peer(1, 2), Peer { allowed_ips: Vec::new(), ..peer(3, 0) }];
        let after = [Peer { allowed_ips: before[0].allowed_ips[..1].to_vec(), ..peer(1, 0) }, {
            Peer { allowed_ips: before[0].allowed_ips[1..].to_vec(), ..peer(3, 0) }
        }];
        let told = peers_of(&changes(&before.each_ref().map(there), &before, &after));
        assert_eq!(told.iter().map(|peer| (networks(peer), flags(peer))).collect::<Vec<_>>(), [(1, None)]);
    }

    #[test]
    fn a_peer_that_was_heard_elsewhere_is_called_back_only_when_it_is_told_to_be_elsewhere() {
        let other = Peer { endpoint: Some("203.0.113.9:1".parse().unwrap()), ..peer(1, 0) };
        let mut heard = there(&other);
        let called = |there: &There, before: &[Peer]| {
            peers_of(&changes(std::slice::from_ref(there), before, &[peer(1, 0)])).iter().find_map(endpoint)
        };
        assert_eq!(called(&heard, &[peer(1, 0)]), None, "it has roamed");
        assert_eq!(called(&heard, std::slice::from_ref(&other)), peer(1, 0).endpoint, "it is told to be elsewhere");
        // Taken over: what was told before is not known.
        assert_eq!(called(&heard, &[]), peer(1, 0).endpoint);
        heard.status.last_handshake = Some(Duration::from_secs(9));
        assert_eq!(called(&heard, &[]), None);
    }

    #[test]
    fn no_message_is_larger_than_its_length_field_can_say() {
        let messages = changes(&[], &[], &[peer(1, 2000)]);
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
        let mut pieces = set_peer(&peer(1, 300));
        pieces[0].0.extend([
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 990, nano_seconds: 0 }),
            WireguardPeerAttribute::RxBytes(7),
            WireguardPeerAttribute::TxBytes(8),
        ]);
        let continued = pieces.remove(1);
        let silent = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([3; 32]),
            WireguardPeerAttribute::PresharedKey([0; 32]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec::default()),
        ]);
        let attributes = vec![
            WireguardAttribute::ListenPort(51820),
            WireguardAttribute::Peers(pieces),
            WireguardAttribute::Peers(vec![continued, silent]),
        ];
        let message = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes };
        let mut octets = vec![0; message.buffer_len()];
        message.emit(&mut octets);
        let header = GenlHeader { cmd: 0, version: 1 };
        let message = WireguardMessage::parse_with_param(&octets, header).unwrap();
        let mut expected = there(&peer(1, 300));
        expected.status.last_handshake = Some(Duration::from_secs(10));
        (expected.status.received, expected.status.sent) = (7, 8);
        let silent = There { status: unheard(PublicKey::new([3; 32])), preshared_key: None };
        assert_eq!(read(&message.attributes, now), (51820, vec![expected, silent]));
    }
}
