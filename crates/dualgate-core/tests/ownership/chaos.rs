//! One seed is one world: for some rounds, everything goes wrong that can, then nothing more, then an owner dies.
//!
//! While things go wrong nobody may own what another owns. Once they do not any more, everything has an owner within the
//! bound that the machine's documentation states, keeps it, and all have the newest replica; and when an owner dies, its
//! resources have another one within the bound for that.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dualgate_core::machine::ownership::{Ownership, Resource};
use dualgate_core::plan::virtual_ips::GroupId;

use super::world::{Network, Random, Violation, Wanted, World};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a world went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub virtual_time: Duration,
    pub datagrams: u64,
    /// The longest time without an owner after one died, and what it could have been.
    pub failover: (Duration, Duration),
    /// The longest time until all had an owner again, and what it could have been.
    pub settling: (Duration, Duration),
}

pub fn group(number: u8) -> Resource {
    Resource::Group(GroupId(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))))
}

/// Runs the world of a seed.
pub fn run(seed: u64, story: bool) -> (Result<Summary, Violation>, Vec<String>) {
    let mut random = Random(seed);
    let count = *random.pick(&[1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5]);
    let mut world = World::new(count, random.next());
    world.story = story.then(Vec::new);
    let mut summary = Summary::default();
    let result = live(&mut world, &mut summary);
    (summary.virtual_time, summary.datagrams) = (world.now, world.sent);
    (result.map(|()| summary), world.story.take().unwrap_or_default())
}

fn live(world: &mut World, summary: &mut Summary) -> Result<(), Violation> {
    let count = world.nodes.len();
    let resources = [Resource::Holder, group(1), group(2), group(3)];
    world.wanted = resources
        .map(|resource| Wanted { resource, candidates: candidates(count, &mut world.random), unready: BTreeSet::new() })
        .to_vec();
    let nodes = world.nodes.iter().map(|node| node.drift).collect::<Vec<_>>();
    world.tell(|| format!("{count} nodes, drifts {nodes:?}"));
    for _ in 0..1 + world.random.below(3) {
        go_wrong(world)?;
        settle(world, summary)?;
        if count > 2 {
            lose_an_owner(world, summary)?;
        }
    }
    Ok(())
}

/// Some of the nodes, in some order, at least one.
fn candidates(count: usize, random: &mut Random) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        nodes.swap(at, random.below(at as u64 + 1) as usize);
    }
    if random.percent(20) {
        nodes.truncate(1 + random.below(count as u64) as usize);
    }
    nodes
}

// -- all that can go wrong ----------------------------------------------------------------------------------------------

fn go_wrong(world: &mut World) -> Result<(), Violation> {
    weather(world);
    let until = world.now + world.random.between(ms(1_000), ms(6_000));
    while world.now < until {
        misfortune(world);
        let pause = world.random.between(ms(5), ms(400));
        world.run_for(pause)?;
    }
    Ok(())
}

fn weather(world: &mut World) {
    let random = &mut world.random;
    let delay = *random.pick(&[(0, 300), (0, 300), (100, 2_000), (1_000, 20_000), (0, 200_000)]);
    let delay = (Duration::from_micros(delay.0), Duration::from_micros(delay.1));
    let loss_percent = *random.pick(&[0, 0, 0, 2, 10, 40]);
    let doubled_percent = *random.pick(&[0, 0, 5, 30]);
    let cut = std::mem::take(&mut world.network.cut);
    world.network = Network { delay, loss_percent, doubled_percent, cut };
    world.tell(|| format!("weather {delay:?}, {loss_percent} % lost, {doubled_percent} % doubled"));
}

fn misfortune(world: &mut World) {
    let index = world.random.below(world.nodes.len() as u64) as usize;
    let wanted = world.random.below(world.wanted.len() as u64) as usize;
    match world.random.below(100) {
        0..10 => die(world, index),
        10..16 => {
            // A successor takes over.
            if world.nodes[index].machine.is_some() {
                world.crash(index);
                world.start(index);
            }
        }
        16..24 => {
            let still = world.random.between(ms(1), ms(1_500));
            let owner = world.owner(&world.wanted[wanted].resource).filter(|_| world.random.percent(50));
            world.freeze(owner.unwrap_or(index), world.now + still);
        }
        24..34 => isolate(world, index),
        34..40 if world.nodes.len() == 2 => deafen(world),
        34..40 => {
            let other = world.random.below(world.nodes.len() as u64) as usize;
            world.tell(|| format!("cut {index} -> {other}"));
            world.network.cut.insert((index, other));
        }
        40..52 => {
            world.tell(|| "heal".to_owned());
            world.network.cut.clear();
        }
        52..56 => weather(world),
        56..62 => betray(world, wanted),
        62..70 => {
            let to = world.nodes[index].name.clone();
            let resource = world.wanted[wanted].resource;
            if let Some(owner) = world.owner(&resource) {
                world.tell(|| format!("move {resource} from node{owner} to {to}"));
                let _refusal = world.call(owner, |machine, now| machine.move_to(&resource, &to, now));
            }
        }
        70..74 => {
            world.tell(|| format!("drain node{index}"));
            world.call(index, Ownership::drain);
        }
        74..77 => {
            world.call(index, |machine, _| machine.undrain());
        }
        77..81 => {
            let unready = &mut world.wanted[wanted].unready;
            if !unready.remove(&index) {
                unready.insert(index);
            }
            world.tell(|| format!("ready or not: node{index}"));
            world.wish(index);
        }
        81..84 => {
            let count = world.nodes.len();
            world.wanted[wanted].candidates = candidates(count, &mut world.random);
            world.tell(|| "other candidates".to_owned());
            // Some hear of it earlier.
            for index in 0..count {
                if world.random.percent(70) {
                    world.wish(index);
                }
            }
        }
        84..88 => {
            world.nodes[index].sees_router = !world.nodes[index].sees_router;
        }
        88..92 => publish(world),
        92..95 => {
            // Its Service is deleted, as this node hears first.
            let resource = world.wanted[wanted].resource;
            let index = world.owner(&resource).filter(|_| world.random.percent(80)).unwrap_or(index);
            world.tell(|| format!("node{index} has no use for {resource}"));
            world.wish_but(index, Some(resource));
        }
        95..98 => {
            world.tell(|| "replay".to_owned());
            world.replay(600);
        }
        _ => {
            let octets = (0..world.random.below(200)).map(|_| world.random.next() as u8).collect::<Vec<u8>>();
            world.call(index, |machine, now| machine.receive(&octets, now));
        }
    }
}

fn die(world: &mut World, index: usize) {
    if world.nodes[index].machine.is_none() {
        world.start(index);
        return;
    }
    world.crash(index);
    if world.random.percent(30) {
        world.reset_clock(index);
    }
    if world.random.percent(50) {
        world.start(index);
    }
}

fn isolate(world: &mut World, index: usize) {
    world.tell(|| format!("isolate node{index}"));
    for other in 0..world.nodes.len() {
        world.network.cut.extend([(index, other), (other, index)]);
    }
}

/// Two that do not hear each other, and of which each sees the router.
fn deafen(world: &mut World) {
    isolate(world, 0);
    for node in &mut world.nodes {
        node.sees_router = true;
    }
}

/// An owner is cut off, while those who promised it something lose their memory.
fn betray(world: &mut World, wanted: usize) {
    let resource = world.wanted[wanted].resource;
    let Some(owner) = world.owner(&resource) else { return };
    isolate(world, owner);
    for other in (0..world.nodes.len()).filter(|other| *other != owner) {
        if world.random.percent(60) && world.nodes[other].machine.is_some() {
            world.crash(other);
            world.start(other);
        }
    }
}

fn publish(world: &mut World) {
    let Some(holder) = world.owner(&Resource::Holder) else { return };
    let length = *world.random.pick(&[0, 10, 480, 3_000, 20_000]);
    let fill = world.random.next() as u8;
    let published = world.publish(holder, vec![fill; length].into());
    world.tell(|| format!("publish {length} at node{holder}: {published}"));
}

// -- and then nothing ---------------------------------------------------------------------------------------------------

fn settle(world: &mut World, summary: &mut Summary) -> Result<(), Violation> {
    let count = world.nodes.len();
    let delay = *world.random.pick(&[Duration::from_micros(200), ms(1), ms(5), ms(15)]);
    world.network = Network::calm(delay);
    world.tell(|| "calm".to_owned());
    for index in 0..count {
        world.thaw(index);
        world.nodes[index].sees_router = true;
    }
    for wanted in &mut world.wanted {
        wanted.unready.clear();
    }
    world.start_all();
    world.wish_all();
    for index in 0..count {
        world.call(index, |machine, _| machine.undrain());
    }
    // What was under way in bad weather is still to come.
    world.run_for(ms(200))?;
    let timing = world.timing;
    let bound = slow(timing.promise() * 2 + timing.beat * 3 + timing.stagger * 2 * count as u32 + delay * 8);
    // Who owns something by what it was promised in bad weather may yet lose it.
    let lapse = slow(timing.promise());
    world.run_for(lapse)?;
    let took = world.run_until_so(bound - lapse, World::all_owned)? + lapse;
    longest(&mut summary.settling, took, bound);
    let owners: Vec<Option<usize>> = world.wanted.iter().map(|wanted| world.owner(&wanted.resource)).collect();
    publish(world);
    world.run_for(ms(800))?;
    let then: Vec<Option<usize>> = world.wanted.iter().map(|wanted| world.owner(&wanted.resource)).collect();
    if owners != then {
        return Err(Violation(format!("owners changed without a cause from {owners:?} to {then:?}")));
    }
    agree(world)
}

/// All know the owners, who are candidates, and have the same replica.
fn agree(world: &World) -> Result<(), Violation> {
    let machines: Vec<&Ownership> = world.nodes.iter().filter_map(|node| node.machine.as_ref()).collect();
    for wanted in &world.wanted {
        let owner = world.owner(&wanted.resource).filter(|owner| wanted.candidates.contains(owner));
        let name = owner.map(|owner| world.nodes[owner].name.clone());
        if name.is_none() || machines.iter().any(|machine| machine.owner(&wanted.resource) != name) {
            return Err(Violation(format!("not all know that {name:?} owns {}", wanted.resource)));
        }
    }
    let replicas: Vec<_> = machines.iter().map(|machine| machine.replica()).collect();
    if replicas.iter().any(|replica| *replica != replicas[0]) {
        let places: Vec<_> = replicas.iter().flatten().map(|replica| (replica.term, replica.version)).collect();
        return Err(Violation(format!("the replicas differ: {places:?}")));
    }
    Ok(())
}

fn lose_an_owner(world: &mut World, summary: &mut Summary) -> Result<(), Violation> {
    let wanted = world.random.pick(&world.wanted).clone();
    let Some(owner) = world.owner(&wanted.resource) else { return Ok(()) };
    // Not always right after its heartbeat.
    let pause = world.random.between(ms(0), ms(110));
    world.run_for(pause)?;
    match world.random.below(3) {
        0 => world.crash(owner),
        1 => isolate(world, owner),
        _ => world.freeze(owner, world.now + ms(3_000)),
    }
    let mut lost = world.wanted.clone();
    lost.retain(|wanted| wanted.candidates.iter().any(|candidate| *candidate != owner));
    let (timing, delay) = (world.timing, world.network.delay.1);
    let bound = slow(timing.promise() + timing.beat + delay * 4);
    let is_followed =
        |world: &World| lost.iter().all(|wanted| world.owner(&wanted.resource).is_some_and(|by| by != owner));
    let took = world.run_until_so(bound, is_followed)?;
    longest(&mut summary.failover, took, bound);
    Ok(())
}

/// As long on the slowest clock.
fn slow(time: Duration) -> Duration {
    time * 102 / 100
}

fn longest(so_far: &mut (Duration, Duration), took: Duration, bound: Duration) {
    if took > so_far.0 {
        *so_far = (took, bound);
    }
}
