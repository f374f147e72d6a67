//! What holds for whatever an announcer hears, is told, and waits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dualgate_core::machine::announcer::{Announcer, Event, Link, Timing};
use dualgate_wire::arp::{self, Operation};
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Flags, Message, Nonce, Solicitation};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 178, 5);

/// An announcer, and what it was told last.
struct Bench {
    announcer: Announcer,
    up: bool,
    until: BTreeMap<IpAddr, Duration>,
    now: Duration,
}

/// Panics if a property does not hold. The input is steps of four octets: what, and three choices; `0` takes the octets
/// that follow as a frame.
pub fn check(input: &[u8]) {
    frame(input);
    let announcer = Announcer::new(link(0), 1, Timing::default());
    let mut bench = Bench { announcer, up: true, until: BTreeMap::new(), now: Duration::from_secs(1) };
    let mut rest = input;
    while let Some(([step, a, b, c], after)) = rest.split_first_chunk() {
        rest = after;
        if *step == 0 {
            let (octets, after) = rest.split_at(rest.len().min(usize::from(*a)));
            rest = after;
            frame(octets);
            _ = bench.announcer.receive(octets, bench.now);
        } else {
            bench.step(*step, *a, *b, *c);
        }
        bench.look();
    }
}

/// What can be read is written as it was, and read again as the same.
fn frame(octets: &[u8]) {
    let Ok((header, payload)) = Header::parse(octets) else { return };
    let mut out = Vec::new();
    header.emit(&mut out);
    assert_eq!(out, octets[..out.len()]);
    if let Ok(packet) = arp::Packet::parse(payload) {
        let mut out = Vec::new();
        packet.emit(&mut out);
        assert_eq!(out, payload[..arp::LENGTH]);
    }
    if let Ok(packet) = ndp::Packet::parse(payload) {
        let mut out = Vec::new();
        packet.emit(&mut out);
        assert_eq!(ndp::Packet::parse(&out), Ok(packet));
    }
}

fn link(choice: u8) -> Link {
    let link_local = (choice & 1 == 0).then_some(LINK_LOCAL);
    Link { mac: US, link_local, addresses: vec![OWN.into()] }
}

/// A few addresses, so that much collides.
fn address(choice: u8) -> IpAddr {
    let last = choice % 5;
    if choice & 0x80 == 0 { v4(last).into() } else { v6(last).into() }
}

fn v4(last: u8) -> Ipv4Addr {
    if last == 0 { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::new(192, 168, 178, last) }
}

fn v6(last: u8) -> Ipv6Addr {
    if last == 0 { Ipv6Addr::UNSPECIFIED } else { Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()) }
}

fn mac(choice: u8) -> Mac {
    match choice % 6 {
        0 => US,
        1 => Mac::BROADCAST,
        2 => Mac::ZERO,
        other => Mac([2, 0, 0, 0, 0, other]),
    }
}

impl Bench {
    fn step(&mut self, step: u8, a: u8, b: u8, c: u8) {
        let now = self.now;
        match step % 10 {
            0 | 1 => self.now += Duration::from_millis(u64::from(a) * u64::from(b) * 7),
            2 => self.hold(address(a), now + Duration::from_secs(b.into())),
            3 => {
                self.announcer.release(address(a));
                self.until.remove(&address(a));
            }
            4 => {
                self.up = a & 3 != 0;
                self.announcer.set_link(self.up.then(|| link(b)), now);
            }
            5 => self.announcer.probe(address(a), now),
            6 => self.announcer.watch([address(a), address(b), address(c)]),
            7 => self.announcer.handle_timeout(now),
            8 => _ = self.announcer.receive(&arp_frame(a, b, c), now),
            _ => _ = self.announcer.receive(&ndp_frame(a, b, c), now),
        }
    }

    fn hold(&mut self, address: IpAddr, until: Duration) {
        self.announcer.hold(address, until, self.now);
        self.until.insert(address, until);
    }

    fn look(&mut self) {
        for sent in 0.. {
            assert!(sent < 100, "a step has few consequences");
            let Some(octets) = self.announcer.poll_transmit(self.now) else { break };
            self.sent(&octets);
        }
        while let Some(event) = self.announcer.poll_event() {
            match event {
                Event::Conflict { mac, .. } | Event::Answered { mac: Some(mac), .. } => {
                    assert!(mac.is_station() && mac != US, "{event:?}");
                }
                Event::ConflictOver { .. } | Event::Answered { mac: None, .. } => {}
            }
        }
        // Who does what is due has done it.
        if self.announcer.poll_timeout().is_some_and(|at| at <= self.now) {
            self.announcer.handle_timeout(self.now);
            assert!(self.announcer.poll_timeout().is_none_or(|at| at > self.now));
        }
    }

    /// What leaves can be read, is from here, and claims only what is held.
    fn sent(&self, octets: &[u8]) {
        assert!(self.up, "nothing is sent over a link that is down");
        let (header, payload) = Header::parse(octets).expect("a header");
        assert_eq!(header.source, US);
        let claimed: Option<IpAddr> = match header.ether_type {
            EtherType::Arp => {
                let packet = arp::Packet::parse(payload).expect("ARP");
                assert_eq!(packet.sender_mac, US);
                [Ipv4Addr::UNSPECIFIED, OWN].iter().all(|own| *own != packet.sender).then_some(packet.sender.into())
            }
            EtherType::Ipv6 => match ndp::Packet::parse(payload).expect("a message").message {
                Message::Solicitation(_) => None,
                Message::Advertisement(claim) => {
                    assert!(claim.flags.overriding && !claim.flags.router && claim.target_link == Some(US));
                    Some(claim.target.into())
                }
            },
            EtherType::Other(number) => panic!("{number:04x} is never sent"),
        };
        if let Some(address) = claimed {
            assert!(self.until.get(&address).is_some_and(|until| self.now < *until), "{address} is not held");
        }
    }
}

fn arp_frame(a: u8, b: u8, c: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination: mac(c / 6), source: mac(c), ether_type: EtherType::Arp }.emit(&mut frame);
    let operation = if a & 0x80 == 0 { Operation::Request } else { Operation::Reply };
    let (sender, target) = (v4(a % 5), v4(b % 5));
    arp::Packet { operation, sender_mac: mac(b / 5), sender, target_mac: Mac::ZERO, target }.emit(&mut frame);
    frame
}

fn ndp_frame(a: u8, b: u8, c: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination: mac(c / 6), source: mac(c), ether_type: EtherType::Ipv6 }.emit(&mut frame);
    let (source, target) = (v6(a % 5), v6(b % 5));
    let link = (b & 0x40 == 0).then_some(mac(b / 5));
    let nonce: Option<Nonce> = (a & 0x20 == 0).then_some([a; 6]);
    let message = if a & 0x80 == 0 {
        Message::Solicitation(Solicitation { target, source_link: link, nonce })
    } else {
        let flags = Flags { router: false, solicited: a & 0x40 == 0, overriding: true };
        Message::Advertisement(ndp::Advertisement { target, flags, target_link: link })
    };
    let destination = if b & 0x80 == 0 { ndp::solicited_node(target) } else { target };
    ndp::Packet { source, destination, message }.emit(&mut frame);
    frame
}
