//! What others learn of the thread's work.

use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::machine::ownership::{PeerView, Resource};
use dualgate_core::model::NodeName;
use dualgate_core::plan::virtual_ips::{DataPath, Group};
use dualgate_wire::ethernet::Mac;

use super::lan::Lan;
use super::report::{Conflict, GroupReport, LinkReport, PeerReport, Report};
use super::trouble;
use super::work::{Work, resource};

/// How the thread's work is at this moment.
pub fn of(work: &Work, now: Duration) -> Report {
    let on = !work.plan.members.is_empty();
    let groups = work.plan.groups.iter().map(|group| group_report(work, group, now)).collect();
    let peers: Vec<PeerReport> = work.ownership.peers().into_iter().map(|peer| peer_report(work, &peer, now)).collect();
    let conflicts: Vec<Conflict> = work.conflicts.iter().map(|(about, at)| conflict(work, about, now, *at)).collect();
    let mut findings = work.troubles.clone();
    let heard = 1 + peers.iter().filter(|peer| peer.alive).count();
    let voters = work.plan.members.len();
    if voters > 2 && heard * 2 <= voters && work.ring.has_key() && now > work.settled {
        findings.push(trouble::alone(heard, voters));
    }
    let whose = |conflict: &Conflict| match &conflict.node {
        Some(node) => format!("the home node {node}"),
        None => format!("a device with the address {} on the LAN", conflict.mac),
    };
    for conflict in &conflicts {
        let users = work.plan.groups.iter().filter(|group| group.addresses.contains(&conflict.address));
        let users = users.flat_map(|group| &group.users);
        findings.extend(users.map(|user| trouble::conflict(conflict.address, user, &whose(conflict))));
    }
    let is_taker = |name: &NodeName| peers.iter().any(|peer| peer.alive && peer.name == name.as_str());
    let movable = work.plan.groups.iter().filter(|group| group.candidates.iter().any(is_taker));
    let movable: Vec<&IpAddr> = movable.flat_map(|group| &group.addresses).collect();
    let is_here = |address: &&IpAddr| work.ownership.owned_until(&resource(**address)).is_some_and(|until| until > now);
    let given = work.held.iter().filter(|(_, held)| held.left.is_some());
    let holder = work.ownership.owner(&Resource::Holder).map(|holder| holder.to_string());
    Report {
        on,
        assigned_by: holder,
        drained: work.ownership.is_drained(),
        assigned: (*work.assigned).clone(),
        groups,
        peers,
        links: work.lans.values().map(link_report).collect(),
        conflicts,
        to_give: movable.into_iter().filter(is_here).copied().collect(),
        given: given.map(|(address, _)| *address).collect(),
        refused: work.refused + work.ownership.ignored().malformed,
        findings,
    }
}

fn group_report(work: &Work, group: &Group, now: Duration) -> GroupReport {
    let first = group.addresses.first();
    let given = |address: &IpAddr| work.held.get(address).and_then(|held| held.given.clone());
    let owner = first.and_then(|address| work.ownership.owner(&resource(*address)).or_else(|| given(address)));
    let is_held = |address: &IpAddr| work.ownership.owned_until(&resource(*address)).is_some_and(|until| until > now);
    let of_addresses = || group.addresses.iter().filter_map(|address| work.held.get(address));
    let why_not = work.why_not(group);
    let held = group.addresses.iter().all(is_held);
    GroupReport {
        addresses: group.addresses.clone(),
        users: group.users.iter().map(ToString::to_string).collect(),
        path: match group.path {
            DataPath::Local => "local",
            DataPath::Translated => "translated",
            DataPath::Tunnel => "tunnel",
        }
        .to_owned(),
        owner: owner.map(|owner| owner.to_string()),
        held,
        candidates: group.candidates.iter().map(ToString::to_string).collect(),
        ready: why_not.is_none(),
        why_not: why_not.unwrap_or_default(),
        acquired: of_addresses().map(|held| held.acquired).max().unwrap_or_default(),
        relayed_to: of_addresses().find_map(|held| held.relayed.as_ref()).filter(|_| held).map(ToString::to_string),
    }
}

fn peer_report(work: &Work, peer: &PeerView, now: Duration) -> PeerReport {
    let age = peer.last_heard.map(|at| now.saturating_sub(at).as_millis());
    let heard_ms = age.map(|age| u64::try_from(age).unwrap_or(u64::MAX));
    let round_trip_us = peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let other_key = work.sealed_otherwise.contains_key(&peer.name);
    PeerReport { name: peer.name.to_string(), alive: peer.alive, heard_ms, round_trip_us, other_key }
}

fn link_report(lan: &Lan) -> LinkReport {
    let counters = lan.announcer.counters();
    LinkReport {
        name: lan.name.clone(),
        mac: lan.mac(),
        up: lan.is_up(),
        answered: counters.answers,
        gratuitous: counters.announcements,
    }
}

fn conflict(work: &Work, (address, mac): &(IpAddr, Mac), now: Duration, at: Duration) -> Conflict {
    let node = work.neighbours.get(mac).map(ToString::to_string);
    let heard_seconds = now.saturating_sub(at).as_secs();
    Conflict { address: *address, mac: mac.to_string(), node, heard_seconds }
}
