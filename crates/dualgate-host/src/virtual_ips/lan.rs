//! One interface of the LAN: its packet sockets, the multicast groups that it listens to, and the announcer on it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use dualgate_core::machine::announcer::{Announcer, Link, Timing};
use dualgate_wire::bpf;
use dualgate_wire::ethernet::Mac;
use socket2::{Domain, Socket, Type};

use crate::network::Interface;

use super::packet::{PacketSocket, Protocol};

/// More than any frame of ARP or Neighbor Discovery.
const SPACE: usize = 2048;
/// How many frames are taken at a time, so that a flood cannot keep the thread from everything else.
const AT_ONCE: usize = 256;

/// One interface of the LAN.
#[derive(Debug)]
pub struct Lan {
    /// The kernel's number for it, which a rename does not change.
    pub index: u32,
    /// As it is called at the moment.
    pub name: String,
    /// What it is at the moment; `None` is down.
    link: Option<Link>,
    /// What is said on it.
    pub announcer: Announcer,
    sockets: Vec<PacketSocket>,
    /// What the sockets let through.
    about: BTreeSet<IpAddr>,
    /// None on a host without IPv6, where nobody asks by multicast.
    membership: Option<Socket>,
    joined: BTreeSet<Ipv6Addr>,
}

impl Lan {
    /// Begins at an interface.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub fn open(interface: &Interface, seed: u64, now: Duration) -> io::Result<Self> {
        let membership = Socket::new(Domain::IPV6, Type::DGRAM, None).ok();
        let nothing = Link { mac: Mac::ZERO, link_local: None, addresses: Vec::new() };
        // A fence counts only what was asked for long enough (ownership's `Timing::fence`).
        let timing = Timing { probe_questions: 6, probe_end: Duration::from_millis(260), ..Timing::default() };
        let mut announcer = Announcer::new(nothing, seed, timing);
        announcer.set_link(None, now);
        let mut lan = Self {
            index: interface.index,
            name: interface.name.clone(),
            announcer,
            link: None,
            sockets: Vec::new(),
            about: BTreeSet::new(),
            membership,
            joined: BTreeSet::new(),
        };
        lan.look(interface, now);
        Ok(lan)
    }

    /// The interface is as this now.
    pub fn look(&mut self, interface: &Interface, now: Duration) {
        self.name.clone_from(&interface.name);
        let link = link(interface);
        if link != self.link {
            self.link = link.clone();
            self.announcer.set_link(link, now);
            // The kernel forgets memberships of an interface that was taken away and came back.
            self.joined.clear();
        }
    }

    /// Whether it is up.
    pub const fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it can also be heard and spoken on.
    pub const fn can_speak(&self) -> bool {
        self.is_up() && !self.sockets.is_empty()
    }

    /// Its addresses at the moment.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.link.iter().flat_map(|link| &link.addresses)
    }

    /// Its link-layer address, as people write it.
    pub fn mac(&self) -> String {
        self.link.as_ref().map(|link| link.mac.to_string()).unwrap_or_default()
    }

    /// Listens for what is about these addresses: those that this node may come to hold, and the others that it asks for.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or if the interface went.
    pub fn listen(&mut self, may_hold: &BTreeSet<IpAddr>, others: &BTreeSet<IpAddr>) -> io::Result<()> {
        self.announcer.watch(may_hold.clone());
        let about: BTreeSet<IpAddr> = may_hold.union(others).copied().collect();
        if self.sockets.is_empty() || about != self.about {
            let filter = bpf::filter(&about);
            // The former ones go once these are there: nothing is missed.
            let open = |protocol| PacketSocket::open(self.index, protocol, &filter);
            self.sockets = vec![open(Protocol::Arp)?, open(Protocol::Ipv6)?];
            self.about = about;
        }
        let groups = self.announcer.groups();
        if let Some(membership) = &self.membership {
            for group in self.joined.difference(&groups) {
                // It is gone when the interface is.
                let _ = membership.leave_multicast_v6(group, self.index);
            }
            let join = |group: &Ipv6Addr| match membership.join_multicast_v6(group, self.index) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::AddrInUse,
            };
            // One that failed is tried again: an interface without IPv6 may get it later.
            self.joined = groups.into_iter().filter(|group| self.joined.contains(group) || join(group)).collect();
        }
        Ok(())
    }

    /// Does what is due, if anything is: with a thousand addresses, to look after each of them takes a while.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.announcer.poll_timeout().is_some_and(|due| due <= now) {
            self.announcer.handle_timeout(now);
        }
    }

    /// To be waited for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(PacketSocket::as_fd)
    }

    /// Takes what waits, and answers it.
    pub fn hear(&mut self, clock: &dyn Fn() -> Duration) {
        let mut space = [0; SPACE];
        for number in 0..self.sockets.len() {
            let mut taken = 0;
            while taken < AT_ONCE {
                match self.sockets[number].receive(&mut space) {
                    Ok(Some(frame)) => {
                        taken += 1;
                        // Why a frame came to nothing is of no interest here.
                        let _ = self.announcer.receive(frame, clock());
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(interface = self.name, %error, "the interface cannot be heard");
                        break;
                    }
                }
            }
        }
        self.say(clock);
    }

    /// Sends what is to be sent. The clock is asked for each frame: between two of them the process may have been frozen.
    pub fn say(&mut self, clock: &dyn Fn() -> Duration) {
        while let Some(frame) = self.announcer.poll_transmit(clock()) {
            let Some(socket) = self.sockets.first() else { return };
            if let Err(error) = socket.send(&frame) {
                tracing::debug!(interface = self.name, %error, "a frame did not leave");
            }
        }
    }
}

fn link(interface: &Interface) -> Option<Link> {
    let mac = interface.mac.filter(|_| interface.up && interface.carrier)?;
    let addresses: Vec<IpAddr> = interface.addresses.iter().map(ipnet::IpNet::addr).collect();
    let link_local = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    Some(Link { mac: mac.into(), link_local, addresses })
}
