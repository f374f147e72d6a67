//! A thousand groups: what they cost, and that they fail over and move as few do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::machine::ownership::{Event, Ownership, Resource};
use dualgate_core::plan::virtual_ips::GroupId;

use super::world::{Wanted, World};

const GROUPS: u32 = 1_000;

fn group(number: u32) -> Resource {
    let v4 = IpAddr::from(0x0a00_0000_u32.wrapping_add(number).to_be_bytes());
    let v6 = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(number)).to_be_bytes());
    Resource::Group(GroupId(if number % 10 == 9 { v6 } else { v4 }))
}

fn wanted() -> Vec<Wanted> {
    let wanted = |number: u32| Wanted {
        resource: group(number),
        candidates: (0..3).map(|place| (place + number as usize) % 3).collect(),
        unready: BTreeSet::new(),
    };
    (0..GROUPS).map(wanted).collect()
}

fn home() -> World {
    let mut world = World::new(3, 7);
    world.wanted = wanted();
    world.start_all();
    world
}

fn each_has(world: &World, owner: impl Fn(usize) -> usize) -> bool {
    let mut wanted = world.wanted.iter();
    wanted.all(|wanted| world.owner(&wanted.resource) == Some(owner(wanted.candidates[0])))
}

#[test]
fn a_thousand_groups_are_spread_fail_over_and_move_as_few_do() {
    let mut world = home();
    world.run_until_so(Duration::from_millis(800), |world| each_has(world, |first| first)).unwrap();
    world.run_for(Duration::from_millis(500)).unwrap();
    world.crash(0);
    world
        .run_until_so(Duration::from_millis(600), |world| each_has(world, |first| if first == 0 { 1 } else { first }))
        .unwrap();
    world.start(0);
    world.run_for(Duration::from_millis(1_000)).unwrap();
    world.call(1, Ownership::drain);
    world
        .run_until_so(Duration::from_millis(100), |world| {
            world.wanted.iter().all(|wanted| world.owner(&wanted.resource).is_some_and(|owner| owner != 1))
        })
        .unwrap();
    world.run_for(Duration::from_millis(5)).unwrap();
    assert!(world.nodes[1].machine.as_ref().unwrap().is_drained());
}

#[test]
fn what_one_member_hears_of_before_the_others_is_spread_all_the_same() {
    let mut world = World::new(3, 7);
    world.start_all();
    world.run_for(Duration::from_millis(1_500)).unwrap();
    world.wanted = wanted();
    for node in 0..3 {
        world.wish(node);
        world.run_for(Duration::from_millis(80)).unwrap();
    }
    world.run_until_so(Duration::from_millis(300), |world| each_has(world, |first| first)).unwrap();
}

#[test]
fn a_thousand_groups_take_six_datagrams_and_few_wake_ups() {
    let mut world = home();
    world.run_for(Duration::from_millis(1_500)).unwrap();
    let (sent, called, beats) = (world.sent, world.called, 50);
    world.run_for(world.timing.beat * beats).unwrap();
    let (sent, called) = (world.sent - sent, world.called - called);
    // A third of the groups each way, and the answers to another third.
    let per_pair = sent / u64::from(beats) / 6;
    assert!(per_pair <= 6, "{per_pair} datagrams from each to each, every beat");
    // Each datagram is one call, and each node wakes for its heartbeat, and now and then besides.
    let woken = (called - sent) / u64::from(beats) / 3;
    assert!(woken <= 2, "{woken} wake-ups of each, every beat");
}

/// A machine that is too busy: each node stands still again and again, mostly for less than a lease and now and then for
/// more, and finds in its socket what came meanwhile.
#[test]
fn a_thousand_groups_settle_on_nodes_that_stand_still_again_and_again() {
    let mut world = home();
    for _ in 0..40 {
        let index = world.random.below(3) as usize;
        let (low, high) = if world.random.percent(10) { (550, 900) } else { (150, 540) };
        let stall = world.random.between(Duration::from_millis(low), Duration::from_millis(high));
        world.freeze(index, world.now + stall);
        let pause = world.random.between(Duration::from_millis(100), Duration::from_millis(300));
        world.run_for(pause).unwrap();
    }
    let unowned = world.wanted.iter().filter(|wanted| world.owner(&wanted.resource).is_none()).count();
    assert!(unowned < GROUPS as usize, "nobody owns anything");
    world.run_until_so(Duration::from_secs(2), World::all_owned).unwrap();
}

/// Silence is told by a timer, once what came meanwhile was received.
#[test]
fn a_peer_whose_word_waits_in_the_socket_is_not_silent() {
    let mut world = home();
    world.run_for(Duration::from_millis(1_500)).unwrap();
    world.nodes.iter_mut().for_each(|node| node.events.clear());
    world.freeze(0, world.now + Duration::from_millis(2_000));
    world.run_for(Duration::from_millis(2_500)).unwrap();
    let of_first = || world.nodes[0].events.iter().map(|(_, event)| event);
    assert!(of_first().any(|event| matches!(event, Event::Lost { .. })), "its own leases have ended");
    let gone = of_first().filter(|event| matches!(event, Event::PeerGone(_))).count();
    assert_eq!(gone, 0, "others spoke all the time");
    assert!(world.all_owned());
}
