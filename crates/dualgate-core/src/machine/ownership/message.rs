//! What voters say to each other, as octets.
//!
//! A datagram is a header and parts, at most [`LIMIT`] octets. Numbers are big-endian, names are a length octet and text,
//! a resource is an octet for its kind and the octets of its address: ids are exact, so there is nothing to collide.
//! Each datagram stands for itself: a part that it does not have says nothing. Who wrote it, and that nobody changed it,
//! is the seal's matter and not this one's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::Resource;
use crate::model::NodeName;
use crate::plan::virtual_ips::GroupId;

/// Octets of a datagram before it is sealed.
pub(super) const LIMIT: usize = 1_100;
/// Octets of a replica in one part.
pub(super) const CHUNK: usize = 480;
/// Octets that a datagram of requests leaves free, so that the answer to all of them is one datagram, too.
const ANSWER: usize = 32;
/// So many voters fit into each header, and so many there may be.
pub(super) const VOTERS: usize = 32;

const VERSION: u8 = 1;
const NAME: usize = 253;

/// What each datagram begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub sender: NodeName,
    /// Of the sender's process.
    pub incarnation: u64,
    /// The sender's nonce for the receiver.
    pub mine: u64,
    /// The receiver's nonce, as far as the sender knows; 0 if it does not.
    pub yours: u64,
    /// Grows with each datagram to this receiver.
    pub counter: u64,
    /// When, on the sender's clock, in whole microseconds.
    pub sent: Duration,
    /// Digests of the names that the sender counts as voters, sorted.
    pub voters: Vec<u64>,
}

/// The order of replicas, and enough to tell two apart that should not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub term: u64,
    pub version: u64,
    pub digest: u64,
}

/// Why a voter does not promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is promised to somebody who owns it.
    Owned(NodeName),
    /// It is promised to somebody who asks for it, too.
    Claimed(NodeName),
    /// It is kept for the target of a planned move.
    Reserved(NodeName),
    /// The voter has just started and may have forgotten a promise.
    Starting,
    /// The voter counts other voters, or has no room.
    Unable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Promise me this.
    Claim {
        resource: Resource,
        owning: bool,
    },
    /// I do not own or want this any more; keep it for `to`.
    Release {
        resource: Resource,
        to: Option<NodeName>,
    },
    /// What follows in this datagram answers the one that was sent at this moment of your clock.
    Answer {
        sent: Duration,
    },
    Granted(Resource),
    Refused {
        resource: Resource,
        why: Refusal,
        free_in: Duration,
    },
    /// Would you take this?
    Offer(Resource),
    Accept(Resource),
    Decline(Resource),
    /// The replica that I have, and the highest term that I know of.
    Head {
        seen: u64,
        key: Key,
        length: u32,
    },
    /// Send those chunks: bit 0 is the chunk `first`.
    Want {
        key: Key,
        first: u32,
        wanted: u128,
    },
    Chunk {
        key: Key,
        index: u32,
        bytes: Vec<u8>,
    },
}

/// Parts as datagrams: each is filled up to [`LIMIT`], and repeats the [`Part::Answer`] that its parts belong to.
/// `header` is asked once per datagram.
pub(super) fn encode(parts: &[Part], mut header: impl FnMut() -> Header) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let (mut current, mut room_from) = begin(&header());
    let mut answer: Option<Vec<u8>> = None;
    let mut one = Vec::new();
    for part in parts {
        one.clear();
        part.write(&mut one);
        let limit = if answer.is_some() || one.len() > CHUNK { LIMIT } else { LIMIT - ANSWER };
        if current.len() + one.len() > limit && current.len() > room_from {
            datagrams.push(std::mem::take(&mut current));
            (current, room_from) = begin(&header());
            if let Some(answer) = answer.as_ref().filter(|_| !matches!(part, Part::Answer { .. })) {
                current.extend_from_slice(answer);
                room_from = current.len();
            }
        }
        if matches!(part, Part::Answer { .. }) {
            answer = Some(one.clone());
        }
        current.extend_from_slice(&one);
    }
    datagrams.push(current);
    datagrams
}

fn begin(header: &Header) -> (Vec<u8>, usize) {
    let mut octets = Vec::with_capacity(LIMIT);
    octets.push(VERSION);
    write_name(&mut octets, &header.sender);
    for number in [header.incarnation, header.mine, header.yours, header.counter, micros(header.sent)] {
        octets.extend_from_slice(&number.to_be_bytes());
    }
    octets.push(header.voters.len().min(VOTERS) as u8);
    for voter in header.voters.iter().take(VOTERS) {
        octets.extend_from_slice(&voter.to_be_bytes());
    }
    let length = octets.len();
    (octets, length)
}

/// Reads a datagram. `None`: it is none of this version, or damaged.
pub(super) fn decode(octets: &[u8]) -> Option<(Header, Vec<Part>)> {
    if octets.len() > LIMIT {
        return None;
    }
    let mut reader = Reader(octets);
    if reader.octet()? != VERSION {
        return None;
    }
    let sender = reader.name()?;
    let [incarnation, mine, yours, counter] = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    let sent = reader.moment()?;
    let voters = reader.octet()?;
    if usize::from(voters) > VOTERS {
        return None;
    }
    let voters = (0..voters).map(|_| reader.number()).collect::<Option<Vec<u64>>>()?;
    let mut parts = Vec::new();
    while !reader.0.is_empty() {
        parts.push(Part::read(&mut reader)?);
    }
    Some((Header { sender, incarnation, mine, yours, counter, sent, voters }, parts))
}

impl Part {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Claim { resource, owning: false } => tagged(to, 1, resource),
            Self::Claim { resource, owning: true } => tagged(to, 2, resource),
            Self::Release { resource, to: None } => tagged(to, 3, resource),
            Self::Release { resource, to: Some(target) } => {
                tagged(to, 4, resource);
                write_name(to, target);
            }
            Self::Answer { sent } => {
                to.push(5);
                to.extend_from_slice(&micros(*sent).to_be_bytes());
            }
            Self::Granted(resource) => tagged(to, 6, resource),
            Self::Refused { resource, why, free_in } => {
                tagged(to, 7, resource);
                to.extend_from_slice(&u32::try_from(free_in.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
                why.write(to);
            }
            Self::Offer(resource) => tagged(to, 8, resource),
            Self::Accept(resource) => tagged(to, 9, resource),
            Self::Decline(resource) => tagged(to, 10, resource),
            Self::Head { seen, key, length } => {
                to.push(11);
                to.extend_from_slice(&seen.to_be_bytes());
                key.write(to);
                to.extend_from_slice(&length.to_be_bytes());
            }
            Self::Want { key, first, wanted } => {
                to.push(12);
                key.write(to);
                to.extend_from_slice(&first.to_be_bytes());
                to.extend_from_slice(&wanted.to_be_bytes());
            }
            Self::Chunk { key, index, bytes } => {
                to.push(13);
                key.write(to);
                to.extend_from_slice(&index.to_be_bytes());
                let bytes = &bytes[..bytes.len().min(CHUNK)];
                to.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                to.extend_from_slice(bytes);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.octet()? {
            1 => Self::Claim { resource: reader.resource()?, owning: false },
            2 => Self::Claim { resource: reader.resource()?, owning: true },
            3 => Self::Release { resource: reader.resource()?, to: None },
            4 => Self::Release { resource: reader.resource()?, to: Some(reader.name()?) },
            5 => Self::Answer { sent: reader.moment()? },
            6 => Self::Granted(reader.resource()?),
            7 => {
                let resource = reader.resource()?;
                let free_in = Duration::from_micros(reader.short()?.into());
                Self::Refused { resource, why: Refusal::read(reader)?, free_in }
            }
            8 => Self::Offer(reader.resource()?),
            9 => Self::Accept(reader.resource()?),
            10 => Self::Decline(reader.resource()?),
            11 => Self::Head { seen: reader.number()?, key: Key::read(reader)?, length: reader.short()? },
            12 => {
                let (key, first) = (Key::read(reader)?, reader.short()?);
                Self::Want { key, first, wanted: u128::from_be_bytes(reader.array()?) }
            }
            13 => {
                let (key, index) = (Key::read(reader)?, reader.short()?);
                let length = usize::from(u16::from_be_bytes(reader.array()?));
                Self::Chunk { key, index, bytes: reader.take(length).filter(|_| length <= CHUNK)?.to_vec() }
            }
            _ => return None,
        })
    }
}

impl Refusal {
    fn write(&self, to: &mut Vec<u8>) {
        let (tag, name) = match self {
            Self::Owned(name) => (1, Some(name)),
            Self::Claimed(name) => (2, Some(name)),
            Self::Reserved(name) => (3, Some(name)),
            Self::Starting => (4, None),
            Self::Unable => (5, None),
        };
        to.push(tag);
        if let Some(name) = name {
            write_name(to, name);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.octet()? {
            1 => Self::Owned(reader.name()?),
            2 => Self::Claimed(reader.name()?),
            3 => Self::Reserved(reader.name()?),
            4 => Self::Starting,
            5 => Self::Unable,
            _ => return None,
        })
    }
}

impl Key {
    fn write(&self, to: &mut Vec<u8>) {
        for number in [self.term, self.version, self.digest] {
            to.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { term: reader.number()?, version: reader.number()?, digest: reader.number()? })
    }
}

fn tagged(to: &mut Vec<u8>, tag: u8, resource: &Resource) {
    to.push(tag);
    match resource {
        Resource::Holder => to.push(0),
        Resource::Group(GroupId(IpAddr::V4(address))) => {
            to.push(4);
            to.extend_from_slice(&address.octets());
        }
        Resource::Group(GroupId(IpAddr::V6(address))) => {
            to.push(6);
            to.extend_from_slice(&address.octets());
        }
    }
}

/// A name that is too long for Kubernetes is none of ours: it is cut, and nobody will know it.
fn write_name(to: &mut Vec<u8>, name: &NodeName) {
    let text = name.as_str().as_bytes();
    let text = &text[..text.len().min(NAME)];
    to.push(text.len() as u8);
    to.extend_from_slice(text);
}

fn micros(moment: Duration) -> u64 {
    u64::try_from(moment.as_micros()).unwrap_or(u64::MAX)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn octet(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn short(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn moment(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_micros)
    }

    fn name(&mut self) -> Option<NodeName> {
        let length = usize::from(self.octet()?);
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (1..=NAME).contains(&length).then(|| NodeName::new(text))
    }

    fn resource(&mut self) -> Option<Resource> {
        Some(match self.octet()? {
            0 => Resource::Holder,
            4 => Resource::Group(GroupId(Ipv4Addr::from(self.array::<4>()?).into())),
            6 => Resource::Group(GroupId(Ipv6Addr::from(self.array::<16>()?).into())),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            sender: NodeName::new("k3s-node1"),
            incarnation: 1,
            mine: 2,
            yours: 3,
            counter: 4,
            sent: Duration::from_micros(5),
            voters: vec![6, 7, 8],
        }
    }

    fn group(number: u8) -> Resource {
        Resource::Group(GroupId(Ipv4Addr::new(192, 0, 2, number).into()))
    }

    fn all() -> Vec<Part> {
        let v6 = Resource::Group(GroupId("2001:db8::1".parse().unwrap()));
        let name = || NodeName::new("k3s-node2");
        let key = Key { term: 1, version: 2, digest: 3 };
        let refused = |why| Part::Refused { resource: group(1), why, free_in: Duration::from_millis(7) };
        vec![
            Part::Claim { resource: Resource::Holder, owning: false },
            Part::Claim { resource: v6, owning: true },
            Part::Release { resource: group(1), to: None },
            Part::Release { resource: group(1), to: Some(name()) },
            Part::Answer { sent: Duration::from_micros(9) },
            Part::Granted(group(2)),
            refused(Refusal::Owned(name())),
            refused(Refusal::Claimed(name())),
            refused(Refusal::Reserved(name())),
            refused(Refusal::Starting),
            refused(Refusal::Unable),
            Part::Offer(group(3)),
            Part::Accept(group(3)),
            Part::Decline(group(3)),
            Part::Head { seen: 4, key, length: 5 },
            Part::Want { key, first: 6, wanted: 1 << 127 | 1 },
            Part::Chunk { key, index: 7, bytes: vec![8; 9] },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let datagrams = encode(&all(), header);
        assert_eq!(datagrams.len(), 1);
        assert_eq!(decode(&datagrams[0]), Some((header(), all())));
    }

    #[test]
    fn what_is_cut_anywhere_is_refused_or_a_shorter_whole() {
        let datagram = encode(&all(), header).remove(0);
        for length in 0..datagram.len() {
            if let Some((_, parts)) = decode(&datagram[..length]) {
                assert_eq!(parts, all()[..parts.len()]);
            }
        }
    }

    #[test]
    fn many_parts_are_split_and_each_datagram_repeats_what_it_answers() {
        let answer = Part::Answer { sent: Duration::from_secs(1) };
        let mut parts = vec![answer.clone()];
        parts.extend((0..=255).cycle().take(1_000).map(|number| Part::Granted(group(number))));
        let datagrams = encode(&parts, header);
        assert!(datagrams.len() > 5 && datagrams.iter().all(|datagram| datagram.len() <= LIMIT));
        let read: Vec<Vec<Part>> = datagrams.iter().map(|datagram| decode(datagram).unwrap().1).collect();
        assert!(read.iter().all(|parts| parts[0] == answer));
        assert_eq!(read.iter().map(|parts| parts.len() - 1).sum::<usize>(), 1_000);
    }

    #[test]
    fn the_longest_header_leaves_room_for_the_longest_part() {
        let long = NodeName::new("n".repeat(NAME));
        let mut header = header();
        (header.sender, header.voters) = (long.clone(), vec![0; VOTERS]);
        let refused = Part::Refused { resource: group(1), why: Refusal::Owned(long), free_in: Duration::ZERO };
        let chunk = Part::Chunk { key: Key::default(), index: 0, bytes: vec![0; CHUNK] };
        let datagrams = encode(&[Part::Answer { sent: Duration::ZERO }, refused, chunk], || header.clone());
        assert!(datagrams.iter().all(|datagram| datagram.len() <= LIMIT && decode(datagram).is_some()));
    }
}
