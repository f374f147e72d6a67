//! What holds for a member that is told anything, by the wire, its peers or its caller.
//!
//! An input is a list of steps: an octet that says what happens, an octet that says how long the rest of the step is, and
//! the rest. Two peers whose nonces are right say whatever the input holds, so that parts are reached and not only headers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::machine::ownership::{Event, Ownership, REPLICA_LIMIT, Resource, Timing, Wish};
use dualgate_core::model::NodeName;
use dualgate_core::plan::virtual_ips::GroupId;

const NAMES: [&str; 3] = ["node0", "node1", "node2"];
/// Version, length of the name, the name, the incarnation.
const NONCE: usize = 1 + 1 + 5 + 8;
/// The nonces, the counter, the time.
const VOTERS: usize = NONCE + 8 + 8 + 8 + 8;
const DATAGRAM: usize = 1_100;

struct Member {
    machine: Ownership,
    now: Duration,
    /// Its last nonce for each peer, and the digests of its voters.
    nonces: BTreeMap<NodeName, Vec<u8>>,
    voters: Vec<u8>,
    counter: u64,
    held: BTreeSet<Resource>,
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let now = Duration::from_secs(1);
    let machine = Ownership::new(NodeName::new("node0"), 7, 9, Timing::default(), now);
    let (nonces, voters, held) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    let mut member = Member { machine, now, nonces, voters, counter: 0, held };
    member.members(3);
    member.wishes(&[0, 1]);
    let mut rest = input;
    while let [what, length, tail @ ..] = rest {
        let (step, next) = tail.split_at(usize::from(*length).min(tail.len()));
        member.step(*what, step);
        rest = next;
    }
}

impl Member {
    fn step(&mut self, what: u8, step: &[u8]) {
        let number = step.first().copied().unwrap_or(0);
        let resource = resource(number);
        match what % 12 {
            0 => self.machine.receive(step, self.now),
            1 => self.hear("node1", step),
            2 => self.hear("node2", step),
            3 => {
                self.now += Duration::from_millis(u64::from(number));
                self.machine.handle_timeout(self.now);
            }
            4 => self.wishes(step),
            5 => {
                let _refusal = self.machine.publish(vec![number; 40 * step.len()].into(), self.now);
            }
            6 => self.machine.drain(self.now),
            7 => self.machine.undrain(),
            8 => {
                let to = NodeName::new(NAMES[usize::from(number) % 3]);
                let _refusal = self.machine.move_to(&resource, &to, self.now);
            }
            9 => self.machine.set_witness((number > 0).then(|| self.now + Duration::from_millis(number.into()))),
            10 => self.machine.fence(resource, step.len() > 1, self.now),
            _ => self.members(usize::from(number) % 4),
        }
        self.look();
    }

    fn members(&mut self, count: usize) {
        let names: Vec<NodeName> = NAMES[..count.min(3)].iter().copied().map(NodeName::new).collect();
        self.machine.set_members(&names, self.now);
        self.look();
    }

    fn wishes(&mut self, numbers: &[u8]) {
        let candidates: Vec<NodeName> = NAMES.into_iter().map(NodeName::new).collect();
        let wish = |number: &u8| {
            let skipped = usize::from(number / 64) % 3;
            Wish { resource: resource(*number), candidates: candidates[skipped..].to_vec(), ready: number % 32 != 31 }
        };
        self.machine.set_wishes(numbers.iter().map(wish).collect(), self.now);
        self.look();
    }

    /// A peer that knows the nonces says something.
    fn hear(&mut self, from: &str, parts: &[u8]) {
        let Some(nonce) = self.nonces.get(&NodeName::new(from)).cloned() else { return };
        self.counter += 1;
        let mut datagram = vec![1, from.len() as u8];
        datagram.extend_from_slice(from.as_bytes());
        datagram.extend_from_slice(&3_u64.to_be_bytes());
        datagram.extend_from_slice(&5_u64.to_be_bytes());
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        datagram.extend_from_slice(&(self.now.as_micros() as u64).to_be_bytes());
        datagram.extend_from_slice(&self.voters);
        datagram.extend_from_slice(parts);
        self.machine.receive(&datagram, self.now);
    }

    fn look(&mut self) {
        while let Some((to, datagram)) = self.machine.poll_transmit() {
            assert!(datagram.len() <= DATAGRAM, "{} octets", datagram.len());
            self.nonces.insert(to, datagram[NONCE..NONCE + 8].to_vec());
            let count = usize::from(datagram[VOTERS]);
            self.voters = datagram[VOTERS..=VOTERS + 8 * count].to_vec();
        }
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Acquired { resource, .. } => assert!(self.held.insert(resource), "{resource} acquired twice"),
                Event::Lost { resource, .. } => assert!(self.held.remove(&resource), "{resource} lost, and not had"),
                Event::Replicated(replica) => assert!(replica.bytes.len() <= REPLICA_LIMIT),
                Event::Stayed { .. } | Event::PeerGone(_) | Event::PeerBack(_) | Event::Fence(_) => {}
            }
        }
        for resource in (0..=255).map(resource) {
            let Some(until) = self.machine.owned_until(&resource).filter(|until| self.now < *until) else { continue };
            assert!(self.held.contains(&resource), "{resource} is owned, and nobody was told");
            assert!(until <= self.now + Timing::default().lease, "{resource} is owned for longer than a lease");
            assert_eq!(self.machine.owner(&resource), Some(NodeName::new("node0")));
        }
        assert!(self.machine.peers().len() <= 2);
        assert!(self.machine.poll_timeout().is_none_or(|at| at <= self.now + Timing::default().promise() * 4));
    }
}

fn resource(number: u8) -> Resource {
    match number % 8 {
        0 => Resource::Holder,
        7 => Resource::Group(GroupId(IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]))),
        other => Resource::Group(GroupId(IpAddr::from([192, 0, 2, other]))),
    }
}
