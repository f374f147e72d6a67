//! The kernel's WireGuard, told by netlink what to do: rtnetlink makes the interface, the generic family `wireguard` its
//! keys and peers.
//!
//! The interface carries an alias that says whose it is: one that a process left behind is taken over with its sessions,
//! one of somebody else is refused.

mod netlink;
mod peers;

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use dualgate_core::model::PublicKey;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardDeviceFlags, WireguardMessage};

use crate::{Config, Peer, PeerStatus, TunnelError};
use netlink::Netlink;
use peers::{There, changes, octets, read, removed, set_peer, spoken_to, unheard};

/// What our interfaces are marked with.
const ALIAS: &str = "dualgate";
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
    at_end: AtEnd,
}

/// What becomes of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    Removed,
    Left,
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
    /// Makes the interface in this thread's network, or takes over the one that was left behind: what is as it should be
    /// is not touched there, so that its sessions go on.
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
        let (name, at_end) = (config.interface.clone(), AtEnd::Removed);
        let mut kernel = Self { route, generic, family, name, index, peers: Vec::new(), at_end };
        let port = config.listen_port.unwrap_or(0);
        let taken = |error: &io::Error| error.raw_os_error() == Some(libc::EADDRINUSE);
        match kernel.set(vec![device(config)]) {
            Err(TunnelError::Kernel { source, .. }) if taken(&source) => {
                return Err(TunnelError::Listen { port, source });
            }
            set => set?,
        }
        kernel.configure(&config.peers)?;
        // The socket of an interface that is off is opened by switching it on.
        match kernel.route.ask(switched_on(index, config.mtu), 0) {
            Err(source) if taken(&source) => Err(TunnelError::Listen { port, source }),
            Err(source) => Err(failed(source)),
            Ok(_) => Ok(kernel),
        }
    }

    /// Makes the peers these.
    pub fn configure(&mut self, peers: &[Peer]) -> Result<(), TunnelError> {
        let (_, there) = self.dump()?;
        self.set(changes(&there, &self.peers, peers))?;
        self.peers = peers.to_vec();
        Ok(())
    }

    /// Ends, and leaves the interface as it is.
    pub fn hand_over(mut self) {
        self.at_end = AtEnd::Left;
    }

    /// Starts over with a peer at an address: the kernel has no other way to begin a handshake when it is told to.
    pub fn dial(&mut self, key: &PublicKey, address: SocketAddr) -> Result<(), TunnelError> {
        let peer = self.peers.iter().find(|peer| peer.public_key == *key).ok_or(TunnelError::NoPeer(*key))?;
        let keepalive = peer.keepalive.map_or(0, Into::into);
        let moved = Peer { endpoint: Some(address), keepalive: None, ..peer.clone() };
        let mut steps = vec![vec![removed(key)]];
        steps.extend(set_peer(&moved).into_iter().map(|peer| vec![peer]));
        steps.push(vec![spoken_to(key, MOMENT)]);
        steps.push(vec![spoken_to(key, keepalive)]);
        self.set(steps.into_iter().map(|peers| vec![WireguardAttribute::Peers(peers)]).collect())
    }

    /// The port and the peers.
    pub fn status(&mut self) -> Result<(u16, Vec<PeerStatus>), TunnelError> {
        let (port, there) = self.dump()?;
        let mut known: Vec<PeerStatus> = there.into_iter().map(|there| there.status).collect();
        let configured = |peer: &Peer| {
            let at = known.iter().position(|known| known.public_key == peer.public_key);
            let known = at.map_or_else(|| unheard(peer.public_key), |at| known.swap_remove(at));
            PeerStatus { keepalive: peer.keepalive, allowed_ips: peer.allowed_ips.clone(), ..known }
        };
        Ok((port, self.peers.iter().map(configured).collect()))
    }

    fn dump(&mut self) -> Result<(u16, Vec<There>), TunnelError> {
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
        if self.at_end == AtEnd::Removed {
            // It may be gone already.
            let _ = self.route.ask(deleted(self.index), 0);
        }
    }
}

fn deleted(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    RouteNetlinkMessage::DelLink(link)
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
    if let Err(error) = route.ask(RouteNetlinkMessage::SetLink(marked), 0) {
        // Without its mark it would be somebody else's for ever.
        let _ = route.ask(deleted(index), 0);
        return Err(error);
    }
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
    let key = octets(&config.private_key).map(clamped);
    let mut attributes: Vec<_> = key.map(WireguardAttribute::PrivateKey).into_iter().collect();
    attributes.extend(config.listen_port.map(WireguardAttribute::ListenPort));
    attributes.push(WireguardAttribute::Flags(WireguardDeviceFlags::empty()));
    attributes
}

/// As the kernel keeps it (RFC 7748 5): it ends all sessions when it is told one that looks different.
const fn clamped(mut key: [u8; 32]) -> [u8; 32] {
    key[0] &= 0xf8;
    key[31] = key[31] & 0x7f | 0x40;
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_as_the_kernel_keeps_it() {
        let key = clamped([0xff; 32]);
        assert_eq!((key[0], key[1], key[31]), (0xf8, 0xff, 0x7f));
        assert_eq!(clamped(key), key);
    }

    #[test]
    fn asking_for_wireguard_says_whether_it_is_there() {
        match probe() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.to_string(), "this kernel has no WireGuard"),
        }
    }
}
