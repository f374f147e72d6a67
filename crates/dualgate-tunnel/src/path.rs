//! The path to each peer: how large a packet may be, found out by echoes through the tunnel.
//!
//! What is asked when, and what answers mean, [`PathMtu`] knows; here are the sockets, and what is told of it. A host that
//! may not send echoes goes on with the MTU of the site file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dualgate_core::machine::path_mtu::{FLOOR, PathMtu, Probe, Timing, Verdict};
use dualgate_core::model::Family;
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::plan::tunnel::{Interface, Peer as Planned, PeerName};
use serde::{Deserialize, Serialize};

use crate::echo::Echo;

/// What is known of the path to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Nothing yet, or nothing can be known.
    #[default]
    Unknown,
    /// The peer answers no echoes.
    Unanswered,
    /// The tunnel's MTU passes.
    Whole,
    /// Only smaller packets pass.
    Narrow,
    /// Less passes than IPv6 needs.
    TooNarrow,
}

impl PathState {
    /// Whether probes have told what passes.
    pub fn is_known(self) -> bool {
        match self {
            Self::Unknown | Self::Unanswered => false,
            Self::Whole | Self::Narrow | Self::TooNarrow => true,
        }
    }
}

/// The paths of one interface.
#[derive(Debug, Default)]
pub struct Paths {
    peers: BTreeMap<PeerName, Path>,
    /// By the address to speak from.
    sockets: BTreeMap<IpAddr, Echo>,
}

#[derive(Debug)]
struct Path {
    machine: PathMtu,
    /// Whom to ask, and from where.
    ends: Option<(IpAddr, IpAddr)>,
    /// Over which family it goes outside; the last one, while the peer is away.
    outer: Option<Family>,
    /// Why nothing can be asked.
    trouble: Option<String>,
    /// What the log has said.
    told: Verdict,
}

impl Paths {
    /// Asks who is to be asked, and hears the answers. `heard` says where a peer is outside, while it is there.
    pub fn round(&mut self, interface: &Interface, heard: impl Fn(&Planned) -> Option<IpAddr>, now: Duration) {
        self.peers.retain(|name, _| interface.peers.iter().any(|peer| peer.name == *name));
        for socket in self.sockets.values() {
            while let Some(answer) = socket.answer() {
                let asked = self.peers.values_mut().filter(|path| path.ends.is_some_and(|(to, _)| to == answer.from));
                asked.for_each(|path| path.machine.answered(answer.id));
            }
        }
        for planned in &interface.peers {
            let fresh = || Path::new(interface.mtu);
            let path = self.peers.entry(planned.name.clone()).or_insert_with(fresh);
            path.ends = ends(interface, planned);
            let at = heard(planned).filter(|_| path.ends.is_some());
            path.outer = at.map(Family::of).or(path.outer);
            let probes = path.machine.look(now, at);
            if let Some((to, from)) = path.ends.filter(|_| !probes.is_empty()) {
                path.trouble =
                    ask(&mut self.sockets, interface.name, to, from, &probes).err().map(|error| error.to_string());
            }
            path.tell(&planned.name);
        }
        let in_use = |from: &IpAddr| self.peers.values().any(|path| path.ends.is_some_and(|(_, one)| one == *from));
        self.sockets.retain(|from, _| in_use(from));
    }

    /// Something does not get through to this peer.
    pub fn doubt(&mut self, peer: &PeerName, now: Duration) {
        if let Some(path) = self.peers.get_mut(peer) {
            path.machine.doubt(now);
        }
    }

    /// The largest packet to send to a peer, if that is less than planned.
    pub fn narrow(&self, peer: &PeerName) -> Option<u16> {
        let path = self.peers.get(peer)?;
        let octets = path.machine.mtu(path.outer?);
        (octets < path.machine.most()).then_some(octets)
    }

    /// What is known of the path to a peer, and if nothing is, why.
    pub fn state(&self, peer: &PeerName) -> (PathState, Option<String>) {
        let Some(path) = self.peers.get(peer) else { return (PathState::Unknown, None) };
        let why = match (&path.trouble, path.ends) {
            (Some(trouble), _) => Some(trouble.clone()),
            (None, None) => Some("there is no address of its own to ask it at".to_owned()),
            (None, Some(_)) => None,
        };
        match path.verdict() {
            Verdict::Unknown => (PathState::Unknown, why),
            Verdict::Unanswered => {
                (PathState::Unanswered, why.or_else(|| Some("it answers no echo requests".to_owned())))
            }
            Verdict::Whole(_) => (PathState::Whole, None),
            Verdict::Narrow(_) => (PathState::Narrow, None),
            Verdict::TooNarrow => (PathState::TooNarrow, None),
        }
    }

    /// What is wrong with the paths.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.peers.iter().filter_map(|(name, path)| path.finding(name))
    }
}

impl Path {
    fn new(mtu: u16) -> Self {
        let machine = PathMtu::new(mtu, Timing::default());
        Self { machine, ends: None, outer: None, trouble: None, told: Verdict::Unknown }
    }

    fn verdict(&self) -> Verdict {
        self.outer.map(|outer| self.machine.verdict(outer)).unwrap_or_default()
    }

    /// Says once what has changed and matters.
    fn tell(&mut self, peer: &PeerName) {
        let (verdict, Some(outer)) = (self.verdict(), self.outer) else { return };
        let before = std::mem::replace(&mut self.told, verdict);
        if before == verdict {
            return;
        }
        let was_narrow = matches!(before, Verdict::Narrow(_) | Verdict::TooNarrow);
        match verdict {
            Verdict::Narrow(octets) => {
                tracing::info!(%peer, %outer, octets, "larger packets are lost on the way: no larger ones are sent");
            }
            Verdict::TooNarrow => {
                tracing::info!(%peer, %outer, octets = FLOOR, "not even packets of this size arrive");
            }
            Verdict::Whole(octets) if was_narrow => {
                tracing::info!(%peer, %outer, octets, "packets of the whole MTU arrive again");
            }
            Verdict::Whole(octets) => tracing::debug!(%peer, %outer, octets, "packets of the whole MTU arrive"),
            Verdict::Unknown | Verdict::Unanswered => tracing::debug!(%peer, %outer, "nothing is known of the path"),
        }
    }

    fn finding(&self, peer: &PeerName) -> Option<Finding> {
        let (most, outer) = (self.machine.most(), self.outer?);
        let (message, help) = match self.verdict() {
            Verdict::Unknown | Verdict::Unanswered | Verdict::Whole(_) => return None,
            Verdict::Narrow(octets) => (
                format!(
                    "packets of more than {octets} octets are lost on the way to {peer} over {outer}; \
                     none of the {most} that the site file allows are sent to it"
                ),
                format!("write `tunnel.mtu: {octets}` into the site file, or find what loses them on this line"),
            ),
            Verdict::TooNarrow => (
                format!(
                    "packets of {} octets are lost on the way to {peer} over {outer}, and IPv6 needs them: large \
                     answers will not arrive",
                    FLOOR.min(most)
                ),
                "find what loses them on this line; unless it is the peer that answers no large echo requests"
                    .to_owned(),
            ),
        };
        Some(Finding::new(Code::TunnelMtu, Place::default(), message).help(help))
    }
}

/// Whom to ask, and from where: one family is enough, as both have the same size outside.
fn ends(interface: &Interface, peer: &Planned) -> Option<(IpAddr, IpAddr)> {
    let route = |to: &IpAddr| interface.routes.iter().find(|route| route.to.contains(to));
    let mut reached = peer.addresses.iter().filter_map(|to| Some((*to, route(to)?.source)));
    let first = reached.clone().find(|(to, _)| to.is_ipv4());
    let (to, from) = first.or_else(|| reached.next())?;
    let any = match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Some((to, from.unwrap_or(any)))
}

/// A socket that fails is opened again for the next probes: its interface or its address may be another.
fn ask(
    sockets: &mut BTreeMap<IpAddr, Echo>,
    interface: &str,
    to: IpAddr,
    from: IpAddr,
    probes: &[Probe],
) -> std::io::Result<()> {
    let socket = match sockets.entry(from) {
        Entry::Occupied(socket) => socket.into_mut(),
        Entry::Vacant(none) => none.insert(Echo::open(interface, from)?),
    };
    // The small one comes last: where that fails as well, nothing can be sent.
    let mut outcome = Ok(());
    for probe in probes {
        outcome = socket.ask(to, probe.id, probe.octets);
    }
    if outcome.is_err() {
        sockets.remove(&from);
    }
    outcome
}
