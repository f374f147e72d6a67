//! The loop: packets from the interface to peers, datagrams of peers to the interface, timers, and what is asked of it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dualgate_core::model::PublicKey;
use gotatun::noise::TunnResult;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Job;
use super::allowed::AllowedIps;
use super::inner::{Inner, SPACE};
use super::ip::Header;
use super::merge::{Merged, Merger};
use super::offload::{Kind, Offload};
use super::outer::{Endpoint, Outer, Received};
use super::peer::{Identity, Peer, octets};
use super::split::split;
use super::unreachable::{self, Budget};
use crate::{Config, Peer as PeerConfig, PeerStatus, TunnelError};

/// How often the protocol looks at its timers.
const TICK: Duration = Duration::from_millis(250);
/// Packets of one direction before the other has its turn.
const BATCH: usize = 64;
/// The length of a padding that the other end may have added.
const LEAST: usize = 20;

/// The engine.
pub struct Worker {
    identity: Identity,
    peers: Vec<Peer>,
    /// The peer of each of our session numbers.
    sessions: HashMap<u32, usize>,
    allowed: AllowedIps,
    inner: Inner,
    outer: Outer,
    mtu: MtuWatcher,
    merger: Merger<Packet>,
    space: Vec<u8>,
    unreachable: Budget,
    next_tick: Instant,
}

impl Worker {
    /// With its peers, not yet running.
    pub fn new(config: &Config, inner: Inner, outer: Outer) -> Result<Self, TunnelError> {
        let private = octets(&config.private_key).ok_or(TunnelError::Key("the private key"))?;
        let now = Instant::now();
        let mut worker = Self {
            identity: Identity::new(private),
            peers: Vec::new(),
            sessions: HashMap::new(),
            allowed: AllowedIps::default(),
            inner,
            outer,
            mtu: MtuWatcher::new(config.mtu),
            merger: Merger::new(),
            space: vec![0; SPACE],
            unreachable: Budget::new(now),
            next_tick: now,
        };
        worker.configure(&config.peers)?;
        Ok(worker)
    }

    /// Runs until nobody can ask any more. An error means that the interface is gone.
    pub fn run(&mut self, jobs: &Receiver<Job>, wake: &OwnedFd) -> io::Result<()> {
        loop {
            loop {
                match jobs.try_recv() {
                    Ok(job) => job(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let now = Instant::now();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.tick();
            }
            let moved = self.outgoing()? + self.incoming();
            if moved == 0 {
                self.wait(wake)?;
            }
        }
    }

    /// Waits for a packet, a question, or the next tick.
    fn wait(&self, wake: &OwnedFd) -> io::Result<()> {
        let mut waiting: Vec<PollFd<'_>> =
            self.outer.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        waiting.push(PollFd::from_borrowed_fd(self.inner.as_fd(), PollFlags::IN));
        waiting.push(PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN));
        let patience = self.next_tick.saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut waiting, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // What was read is only that somebody woke us; nothing to read is as well.
        let _ = rustix::io::read(wake, &mut [0; 8]);
        Ok(())
    }

    fn tick(&mut self) {
        // No peer need be there for the limit to be counted anew.
        self.identity.limiter.try_reset_count();
        self.sessions.retain(|index, _| self.identity.indices.in_use(*index));
        for number in 0..self.peers.len() {
            if let Some(packet) = self.peers[number].tick() {
                self.enqueue(number, packet);
                self.send(number);
            }
        }
    }

    /// Moves packets from the interface to peers. How many.
    fn outgoing(&mut self) -> io::Result<usize> {
        let mut space = std::mem::take(&mut self.space);
        let mut count = 0;
        let outcome = loop {
            match self.inner.read(&mut space) {
                Ok(Some(frame)) => count += self.encrypt(frame.offload, frame.packet),
                Ok(None) => break Ok(count),
                Err(error) => break Err(error),
            }
            if count >= BATCH {
                break Ok(count);
            }
        };
        self.space = space;
        (0..self.peers.len()).for_each(|number| self.send(number));
        outcome
    }

    /// Encrypts what a frame stands for. How many packets, at least one.
    fn encrypt(&mut self, offload: Offload, frame: &mut [u8]) -> usize {
        let Some(header) = Header::read(frame) else { return 1 };
        let peer = self.allowed.find(header.destination).filter(|number| self.peers[*number].endpoint.is_some());
        let Some(number) = peer else {
            self.refuse(frame);
            return 1;
        };
        let mut count = 0;
        let Self { peers, mtu, sessions, .. } = self;
        let peer = &mut peers[number];
        let cut = split(offload, &mut frame[..header.total], |packet: BytesMut| {
            count += 1;
            if let Some(packet) = peer.tunn.handle_outgoing_packet(Packet::from_bytes(packet), Some(mtu)) {
                remember(sessions, &packet, number);
                peer.waiting.push(packet.into());
            }
        });
        if cut.is_err() {
            tracing::debug!(?offload, "a frame that is not what the kernel said of it");
        }
        count.max(1)
    }

    /// Tells the host that nobody is there.
    fn refuse(&mut self, packet: &[u8]) {
        if self.unreachable.take(Instant::now())
            && let Some(answer) = unreachable::answer(packet)
        {
            // The sender would wait; it would have without us.
            let _ = self.inner.write(Offload::default(), &[IoSlice::new(&answer)]);
        }
    }

    fn enqueue(&mut self, number: usize, packet: WgKind) {
        remember(&mut self.sessions, &packet, number);
        self.peers[number].waiting.push(packet.into());
    }

    /// Sends what waits for a peer.
    fn send(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        if peer.waiting.is_empty() {
            return;
        }
        if let Some(endpoint) = &mut peer.endpoint
            && let Err(error) = self.outer.send(endpoint, &peer.waiting)
        {
            tracing::debug!(%error, to = %endpoint.address, peer = %peer.config.public_key, "datagrams were dropped");
        }
        peer.waiting.clear();
    }

    /// Moves datagrams of peers to the interface. How many.
    fn incoming(&mut self) -> usize {
        let mut count = 0;
        for socket in 0..self.outer.count() {
            let mut batch = 0;
            while batch < BATCH {
                match self.outer.receive(socket) {
                    Ok(Some(received)) => batch += self.decrypt(received),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "receive a datagram");
                        break;
                    }
                }
            }
            self.deliver();
            count += batch;
        }
        count
    }

    fn decrypt(&mut self, mut received: Received) -> usize {
        let mut count = 0;
        while !received.octets.is_empty() {
            let length = received.segment.min(received.octets.len());
            self.take(received.octets.split_to(length), received.from);
            count += 1;
        }
        count.max(1)
    }

    /// Takes one datagram.
    fn take(&mut self, datagram: BytesMut, from: Endpoint) {
        let packet = match self.identity.limiter.verify_packet(from.address, Packet::from_bytes(datagram)) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(WgKind::CookieReply(cookie))) => {
                let cookie: Packet = cookie.into();
                // A lost cookie is asked for again.
                let _ = self.outer.send(&mut from.clone(), &[cookie]);
                return;
            }
            Err(_) => return,
        };
        let Some(number) = self.peer_of(&packet) else { return };
        match self.peers[number].take(packet, from) {
            TunnResult::Done | TunnResult::Err(_) => {}
            TunnResult::WriteToNetwork(packet) => {
                self.enqueue(number, packet);
                let Self { peers, mtu, sessions, .. } = self;
                let Peer { tunn, waiting, .. } = &mut peers[number];
                for packet in tunn.get_queued_packets(mtu) {
                    remember(sessions, &packet, number);
                    waiting.push(packet.into());
                }
                self.send(number);
            }
            TunnResult::WriteToTunnel(packet) => self.admit(number, packet),
        }
    }

    fn peer_of(&self, packet: &WgKind) -> Option<usize> {
        let index = match packet {
            WgKind::HandshakeInit(packet) => {
                let Identity { private, public, .. } = &self.identity;
                let key = parse_handshake_anon(private, public, packet).ok()?.peer_static_public;
                return self.peers.iter().position(|peer| *peer.key().octets() == key);
            }
            WgKind::HandshakeResp(packet) => packet.receiver_idx.get(),
            WgKind::CookieReply(packet) => packet.receiver_idx.get(),
            WgKind::Data(packet) => packet.header.receiver_idx.get(),
        };
        self.sessions.get(&index).copied()
    }

    /// Takes a decrypted packet, if its source is the peer's.
    fn admit(&mut self, number: usize, mut packet: Packet) {
        // Without octets it only kept the path open.
        let Some(header) = Header::read(&packet) else { return };
        let peer = &mut self.peers[number];
        if peer.known_source != Some(header.source) {
            if self.allowed.find(header.source) != Some(number) {
                tracing::debug!(source = %header.source, peer = %peer.key(), "a packet from an address that is not the peer's");
                return;
            }
            peer.known_source = Some(header.source);
        }
        packet.truncate(header.total.max(LEAST));
        self.merger.push(packet);
    }

    /// Gives the interface what was decrypted.
    fn deliver(&mut self) {
        let Self { merger, inner, .. } = self;
        merger.flush(|merged| {
            let offload = merged.offload();
            let is_udp = offload.segments.is_some_and(|segments| segments.kind == Kind::Udp);
            if is_udp && !inner.takes_merged_udp() {
                return each(inner, merged);
            }
            if let Err(error) = inner.write(offload, &merged.parts()) {
                if is_udp && error.kind() == io::ErrorKind::InvalidInput {
                    inner.refuse_merged_udp();
                    return each(inner, merged);
                }
                tracing::debug!(%error, "the interface takes no packets");
            }
        });
    }

    /// Makes the peers these. One that stays keeps its sessions and its place.
    pub fn configure(&mut self, peers: &[PeerConfig]) -> Result<(), TunnelError> {
        let mut known: BTreeMap<PublicKey, (usize, Peer)> = BTreeMap::new();
        crate::check(peers)?;
        for (number, peer) in std::mem::take(&mut self.peers).into_iter().enumerate() {
            known.insert(*peer.key(), (number, peer));
        }
        let mut places = HashMap::new();
        for (number, config) in peers.iter().enumerate() {
            let peer = match known.remove(&config.public_key) {
                Some((before, mut peer)) => {
                    peer.configure(config.clone());
                    places.insert(before, number);
                    peer
                }
                None => Peer::new(&self.identity, config.clone()),
            };
            self.peers.push(peer);
        }
        let sessions = std::mem::take(&mut self.sessions).into_iter();
        self.sessions = sessions.filter_map(|(index, before)| Some((index, *places.get(&before)?))).collect();
        let networks =
            peers.iter().enumerate().flat_map(|(number, peer)| peer.allowed_ips.iter().map(move |ip| (*ip, number)));
        self.allowed = AllowedIps::new(networks);
        self.next_tick = Instant::now();
        Ok(())
    }

    /// Points a peer to an address and starts a handshake.
    pub fn dial(&mut self, key: &PublicKey, address: SocketAddr) -> Result<(), TunnelError> {
        let number = self.peers.iter().position(|peer| peer.key() == key).ok_or(TunnelError::NoPeer(*key))?;
        if let Some(packet) = self.peers[number].dial(address) {
            self.enqueue(number, packet);
            self.send(number);
        }
        Ok(())
    }

    /// What is known of each.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers.iter().map(Peer::status).collect()
    }
}

/// Remembers whose handshake has which session number.
fn remember(sessions: &mut HashMap<u32, usize>, packet: &WgKind, peer: usize) {
    match packet {
        WgKind::HandshakeInit(packet) => drop(sessions.insert(packet.sender_idx.get(), peer)),
        WgKind::HandshakeResp(packet) => drop(sessions.insert(packet.sender_idx.get(), peer)),
        WgKind::CookieReply(_) | WgKind::Data(_) => {}
    }
}

/// Writes packets one by one.
fn each(inner: &mut Inner, merged: &Merged<'_, Packet>) {
    for packet in merged.packets() {
        // An interface that takes none is switched off.
        let _ = inner.write(Offload::default(), &[IoSlice::new(packet)]);
    }
}
