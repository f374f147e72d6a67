//! A thousand groups: what they cost, and that they fail over and move as few do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dualgate_core::machine::ownership::{Ownership, Resource};
use dualgate_core::plan::virtual_ips::GroupId;

use super::world::{Wanted, World};

const GROUPS: u32 = 1_000;

fn group(number: u32) -> Resource {
    let v4 = IpAddr::from(0x0a00_0000_u32.wrapping_add(number).to_be_bytes());
    let v6 = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(number)).to_be_bytes());
    Resource::Group(GroupId(if number % 10 == 9 { v6 } else { v4 }))
}

fn home() -> World {
    let mut world = World::new(3, 7);
    let wanted = |number: u32| Wanted {
        resource: group(number),
        candidates: (0..3).map(|place| (place + number as usize) % 3).collect(),
        unready: BTreeSet::new(),
    };
    world.wanted = (0..GROUPS).map(wanted).collect();
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
