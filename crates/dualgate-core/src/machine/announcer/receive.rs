//! What a frame means: a ladder of reasons to ignore it, and at its end an answer, a conflict, or what a probe waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dualgate_wire::arp::{self, Operation};
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Advertisement, Message, NdpError, Solicitation, solicited_node};

use super::frame::Outgoing;
use super::{Announcer, Event, Heard, Ignored, Malformed, is_held};

/// How somebody said that an address is its own.
#[derive(Clone, Copy)]
enum Claim {
    /// By answering.
    Answer,
    /// By answering a probe.
    Probed,
    /// By asking from it.
    Question,
}

impl Announcer {
    /// Takes a frame, with its Ethernet header. What comes of it are frames to send and events; why nothing came of it is
    /// the error.
    pub fn receive(&mut self, frame: &[u8], now: Duration) -> Result<(), Ignored> {
        let Some(link) = &self.link else { return Err(Ignored::LinkDown) };
        let mac = link.mac;
        let (header, payload) = Header::parse(frame).map_err(Malformed::from)?;
        is_foreign(header.source, mac)?;
        match header.ether_type {
            EtherType::Arp => {
                let packet = arp::Packet::parse(payload).map_err(Malformed::from)?;
                self.receive_arp(&header, &packet, mac, now)
            }
            EtherType::Ipv6 => {
                let packet = ndp::Packet::parse(payload).map_err(|error| match error {
                    NdpError::NotIcmpv6 | NdpError::Type(_) => Ignored::Other,
                    error => Ignored::Malformed(error.into()),
                })?;
                match &packet.message {
                    Message::Solicitation(question) => self.receive_question(&header, &packet, question, mac, now),
                    Message::Advertisement(claim) => self.receive_advertisement(&header, claim, mac, now),
                }
            }
            EtherType::Other(_) => Err(Ignored::Other),
        }
    }

    fn receive_arp(&mut self, header: &Header, packet: &arp::Packet, mac: Mac, now: Duration) -> Result<(), Ignored> {
        is_foreign(packet.sender_mac, mac)?;
        let sender = IpAddr::V4(packet.sender);
        match packet.operation {
            Operation::Reply => self.claimed(sender, packet.sender_mac, Claim::Answer, now),
            // Gratuitous: nobody is asked.
            Operation::Request if packet.sender == packet.target => {
                self.claimed(sender, packet.sender_mac, Claim::Question, now)
            }
            Operation::Request if packet.sender.is_unspecified() && self.is_wanted(packet.target.into(), now) => {
                self.answered(packet.target.into(), packet.sender_mac);
                Ok(())
            }
            Operation::Request => {
                let claimed = self.claimed(sender, packet.sender_mac, Claim::Question, now);
                self.answer_arp(header.destination, packet, mac, now).or_else(|ignored| claimed.map_err(|_| ignored))
            }
        }
    }

    fn answer_arp(&mut self, destination: Mac, packet: &arp::Packet, mac: Mac, now: Duration) -> Result<(), Ignored> {
        if destination != Mac::BROADCAST && destination != mac {
            return Err(Ignored::NotForUs);
        }
        let address: Ipv4Addr = packet.target;
        self.may_answer(address.into(), packet.sender_mac, now)?;
        self.send(Outgoing::Reply { address, to: packet.sender_mac, asker: packet.sender });
        Ok(())
    }

    fn receive_question(
        &mut self,
        header: &Header,
        packet: &ndp::Packet,
        question: &Solicitation,
        mac: Mac,
        now: Duration,
    ) -> Result<(), Ignored> {
        let station = question.source_link.unwrap_or(header.source);
        is_foreign(station, mac)?;
        let link_local = self.link.as_ref().and_then(|link| link.link_local);
        // A bridge that rewrites Ethernet addresses may send a question back to us (RFC 7527 4).
        if question.nonce.is_some_and(|nonce| self.nonces.contains(&nonce)) || link_local == Some(packet.source) {
            return Err(Ignored::Own);
        }
        if packet.source.is_unspecified() && self.is_wanted(question.target.into(), now) {
            self.answered(question.target.into(), station);
            return Ok(());
        }
        let claimed = self.claimed(packet.source.into(), station, Claim::Question, now);
        let answered = self.answer_ndp(header.destination, packet, question.target, station, mac, now);
        answered.or_else(|ignored| claimed.map_err(|_| ignored))
    }

    fn answer_ndp(
        &mut self,
        destination: Mac,
        packet: &ndp::Packet,
        address: Ipv6Addr,
        to: Mac,
        mac: Mac,
        now: Duration,
    ) -> Result<(), Ignored> {
        let group = solicited_node(address);
        let asked = [address, group, ndp::ALL_NODES].contains(&packet.destination);
        if !asked || !(destination == mac || destination.is_group()) {
            return Err(Ignored::NotForUs);
        }
        self.may_answer(address.into(), to, now)?;
        self.send(if packet.source.is_unspecified() {
            Outgoing::Unsolicited { address, to: ndp::ALL_NODES }
        } else {
            Outgoing::Solicited { address, to, asker: packet.source }
        });
        Ok(())
    }

    fn receive_advertisement(
        &mut self,
        header: &Header,
        claim: &Advertisement,
        mac: Mac,
        now: Duration,
    ) -> Result<(), Ignored> {
        let station = claim.target_link.unwrap_or(header.source);
        is_foreign(station, mac)?;
        self.claimed(claim.target.into(), station, Claim::Answer, now)
    }

    fn may_answer(&mut self, address: IpAddr, asker: Mac, now: Duration) -> Result<(), Ignored> {
        self.is_held(address, now)?;
        let allowed = self.budget.take(asker, now, self.timing.answers_to_one, self.timing.answers_per_second);
        if allowed { Ok(()) } else { Err(Ignored::Flooded) }
    }

    fn is_held(&self, address: IpAddr, now: Duration) -> Result<(), Ignored> {
        match (is_held(&self.held, address, now), self.held.contains_key(&address)) {
            (true, _) => Ok(()),
            (false, true) => Err(Ignored::Expired),
            (false, false) => Err(Ignored::NotHeld),
        }
    }

    /// Whether this node asks for an address because it would take it. Another station that looks whether the address is free
    /// would, too: to each, the other's question is an answer (RFC 5227 2.1.1, RFC 4862 5.4.3).
    fn is_wanted(&self, address: IpAddr, now: Duration) -> bool {
        self.probes.contains_key(&address) && self.watched.contains(&address) && self.is_held(address, now).is_err()
    }

    /// A probe has its answer.
    fn answered(&mut self, address: IpAddr, mac: Mac) -> bool {
        let probed = self.probes.remove(&address).is_some();
        if probed {
            self.tell(Event::Answered { address, mac: Some(mac) });
        }
        probed
    }

    /// Another station says that an address is its own.
    fn claimed(&mut self, address: IpAddr, mac: Mac, claim: Claim, now: Duration) -> Result<(), Ignored> {
        let probed = self.answered(address, mac);
        if self.watched.contains(&address) {
            self.spoken.insert(address, now);
        }
        match self.is_held(address, now) {
            Ok(()) => {
                self.defend(address, mac, if probed { Claim::Probed } else { claim }, now);
                Ok(())
            }
            Err(_) if probed => Ok(()),
            Err(ignored) => Err(ignored),
        }
    }

    fn defend(&mut self, address: IpAddr, mac: Mac, claim: Claim, now: Duration) {
        let Some(held) = self.held.get_mut(&address) else { return };
        let recently = |at: Option<Duration>, within| at.is_some_and(|at| now < at.saturating_add(within));
        let heard = match claim {
            Claim::Probed => Heard::Active,
            Claim::Answer if recently(held.asked, self.timing.answer) => Heard::Active,
            Claim::Answer | Claim::Question => Heard::Passive,
        };
        let tell = held.conflicts.hear(mac, heard, now);
        let defend = !recently(held.defended, self.timing.defend);
        if defend {
            held.defended = Some(now);
            self.announce(address);
        }
        if tell {
            self.tell(Event::Conflict { address, mac, heard });
        }
    }
}

/// Whether a frame can be from that station, and is not ours.
fn is_foreign(station: Mac, mac: Mac) -> Result<(), Ignored> {
    match station {
        station if station == mac => Err(Ignored::Own),
        station if !station.is_station() => Err(Ignored::NoStation),
        _ => Ok(()),
    }
}
