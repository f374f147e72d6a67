//! The ordinary stories, one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use dualgate_core::machine::ownership::{Event, MoveRefusal, Ownership, PublishRefusal, Resource};

use super::chaos::group;
use super::world::{Network, Violation, Wanted, World};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Nodes with clocks that run right, 1 ms apart, all up, and one group whose candidates are all, in order.
fn home(count: usize) -> World {
    let mut world = World::new(count, 1);
    for node in &mut world.nodes {
        node.drift = 0;
    }
    world.network = Network::calm(ms(1));
    let candidates = (0..count).collect();
    world.wanted = vec![Wanted { resource: group(1), candidates, unready: BTreeSet::new() }];
    world
}

fn settled(count: usize) -> World {
    let mut world = home(count);
    world.start_all();
    world.run_for(ms(1_500)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(0), "{}", world.who_has_what());
    for node in &mut world.nodes {
        node.events.clear();
    }
    world
}

fn owned_by(world: &mut World, index: usize, limit: Duration) -> Result<Duration, Violation> {
    world.run_until_so(limit, |world| world.owner(&group(1)) == Some(index))
}

fn events(world: &World, index: usize) -> Vec<Event> {
    let of_resources = |event: &Event| !matches!(event, Event::PeerGone(_) | Event::PeerBack(_));
    let events = world.nodes[index].events.iter().map(|(_, event)| event.clone());
    events.filter(of_resources).collect()
}

fn acquired(from: Option<usize>, world: &World) -> Event {
    Event::Acquired { resource: group(1), from: from.map(|from| world.nodes[from].name.clone()) }
}

fn lost(to: Option<usize>, world: &World) -> Event {
    Event::Lost { resource: group(1), to: to.map(|to| world.nodes[to].name.clone()) }
}

fn cut(world: &mut World, from: usize, to: usize) {
    world.network.cut.extend([(from, to), (to, from)]);
}

fn isolate(world: &mut World, index: usize) {
    (0..world.nodes.len()).for_each(|other| cut(world, index, other));
}

fn move_to(world: &mut World, from: usize, to: usize) -> Result<(), MoveRefusal> {
    let to = world.nodes[to].name.clone();
    world.call(from, |machine, now| machine.move_to(&group(1), &to, now)).expect("a node that runs")
}

// -- one ----------------------------------------------------------------------------------------------------------------

#[test]
fn a_node_alone_owns_at_once_and_says_nothing() {
    let mut world = home(1);
    world.start_all();
    assert_eq!(world.owner(&group(1)), Some(0));
    world.run_for(ms(60_000)).unwrap();
    assert_eq!((world.owner(&group(1)), world.sent), (Some(0), 0));
    assert_eq!(events(&world, 0), [acquired(None, &world)]);
}

#[test]
fn a_node_that_is_no_member_owns_nothing() {
    let mut world = settled(3);
    let others = [world.nodes[1].name.clone(), world.nodes[2].name.clone()];
    world.call(0, |machine, now| machine.set_members(&others, now));
    assert_eq!(world.owner(&group(1)), None);
    assert_eq!(events(&world, 0), [lost(None, &world)]);
    for other in [1, 2] {
        world.call(other, |machine, now| machine.set_members(&others, now));
    }
    owned_by(&mut world, 1, ms(700)).unwrap();
}

// -- three --------------------------------------------------------------------------------------------------------------

#[test]
fn the_first_candidate_owns_and_keeps() {
    let mut world = settled(3);
    world.run_for(ms(60_000)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(0));
    assert_eq!(events(&world, 0), []);
    let names: Vec<_> = world.nodes.iter().map(|node| node.machine.as_ref().unwrap().owner(&group(1))).collect();
    assert_eq!(names, vec![Some(world.nodes[0].name.clone()); 3]);
}

#[test]
fn an_owner_that_dies_is_followed_by_the_next_candidate_within_the_bound() {
    for phase in 0..22 {
        let mut world = settled(3);
        world.run_for(ms(phase * 5)).unwrap();
        world.crash(0);
        let took = owned_by(&mut world, 1, ms(571)).unwrap();
        assert!(took >= ms(400), "{took:?}");
        assert_eq!(events(&world, 1), [acquired(None, &world)]);
        world.start(0);
        world.run_for(ms(5_000)).unwrap();
        assert_eq!(world.owner(&group(1)), Some(1), "who comes back takes nothing away");
    }
}

#[test]
fn an_owner_that_is_cut_off_stops_before_another_begins() {
    let mut world = settled(3);
    isolate(&mut world, 0);
    let took = world.run_until_so(ms(551), |world| world.owner(&group(1)).is_none()).unwrap();
    owned_by(&mut world, 1, ms(571) - took).unwrap();
    world.run_for(ms(10)).unwrap();
    assert_eq!(events(&world, 0), [lost(None, &world)]);
    world.network.cut.clear();
    world.run_for(ms(2_000)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(1));
}

#[test]
fn an_owner_that_stood_still_learns_of_it_before_it_does_anything_else() {
    let mut world = settled(3);
    let until = world.now + ms(5_000);
    world.freeze(0, until);
    owned_by(&mut world, 1, ms(571)).unwrap();
    world.run_until(until + ms(300)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(1));
    assert_eq!(events(&world, 0), [lost(None, &world)]);
}

#[test]
fn a_node_in_the_minority_owns_nothing() {
    let mut world = home(3);
    world.start(0);
    world.run_for(ms(5_000)).unwrap();
    assert_eq!(world.owner(&group(1)), None);
    world.start(2);
    owned_by(&mut world, 0, ms(800)).unwrap();
}

#[test]
fn one_direction_that_fails_is_enough_to_lose_and_to_be_followed() {
    let mut world = settled(3);
    world.network.cut.extend([(0, 1), (0, 2)]);
    owned_by(&mut world, 1, ms(571)).unwrap();
    world.run_for(ms(3_000)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(1));
}

#[test]
fn an_owner_goes_on_with_one_of_its_two_voters() {
    let mut world = settled(3);
    world.crash(2);
    world.run_for(ms(5_000)).unwrap();
    world.start(2);
    world.run_for(ms(5_000)).unwrap();
    assert_eq!((world.owner(&group(1)), events(&world, 0)), (Some(0), vec![]));
}

#[test]
fn a_successor_on_the_same_node_goes_on_at_once() {
    let mut world = settled(3);
    world.crash(0);
    world.start(0);
    let took = owned_by(&mut world, 0, ms(100)).unwrap();
    assert!(took <= ms(5), "{took:?}");
    world.run_for(ms(2_000)).unwrap();
    assert_eq!(events(&world, 0), [acquired(None, &world)]);
    let peer = &world.nodes[0].name;
    let told: Vec<Event> = world.nodes[1].events.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(told, [Event::PeerGone(peer.clone()), Event::PeerBack(peer.clone())]);
}

#[test]
fn who_is_not_ready_is_passed_over_and_takes_nothing_later() {
    let mut world = home(3);
    world.wanted[0].unready = [0].into();
    world.start_all();
    owned_by(&mut world, 1, ms(800)).unwrap();
    world.wanted[0].unready.clear();
    world.wish_all();
    world.run_for(ms(2_000)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(1));
}

#[test]
fn what_nobody_could_serve_is_owned_as_soon_as_somebody_can() {
    let mut world = home(3);
    world.wanted[0].unready = [0, 1, 2].into();
    world.start_all();
    world.run_for(ms(3_000)).unwrap();
    assert_eq!(world.owner(&group(1)), None);
    world.wanted[0].unready = [0, 1].into();
    world.wish_all();
    let took = owned_by(&mut world, 2, ms(200)).unwrap();
    assert!(took <= ms(90), "two better candidates wait 40 ms each: {took:?}");
}

#[test]
fn members_that_are_added_one_by_one_take_nothing_from_an_owner() {
    let mut world = settled(3);
    let all: Vec<_> = world.nodes.iter().map(|node| node.name.clone()).collect();
    let mut four = all.clone();
    four.push(dualgate_core::model::NodeName::new("node9"));
    for index in 0..3 {
        world.call(index, |machine, now| machine.set_members(&four, now));
        world.run_for(ms(2_000)).unwrap();
        assert_eq!(world.owner(&group(1)), Some(0), "after {index}");
    }
    assert_eq!(events(&world, 0), []);
    let others = [all[1].clone(), dualgate_core::model::NodeName::new("a"), dualgate_core::model::NodeName::new("b")];
    world.call(1, |machine, now| machine.set_members(&others, now));
    world.call(2, |machine, now| machine.set_members(&others, now));
    world.run_for(ms(2_000)).unwrap();
    assert_eq!(world.owner(&group(1)), None, "who counts other voters promises nothing");
}

#[test]
fn idle_members_say_little() {
    let mut world = settled(3);
    let before = world.sent;
    world.run_for(ms(110_000)).unwrap();
    // Each of three tells both others each beat, and they answer the owner.
    let expected = 1_000 * (3 * 2 + 2);
    let sent = world.sent - before;
    assert!(sent <= expected * 101 / 100 && sent >= expected * 99 / 100, "{sent}");
}

// -- moves --------------------------------------------------------------------------------------------------------------

#[test]
fn a_planned_move_leaves_nobody_without_an_owner_for_longer_than_two_round_trips() {
    for (count, to) in [(2, 1), (3, 2), (5, 4)] {
        let mut world = settled(count);
        move_to(&mut world, 0, to).unwrap();
        world.run_until_so(ms(10), |world| world.owner(&group(1)).is_none()).unwrap();
        let took = owned_by(&mut world, to, ms(4)).unwrap();
        assert!(took <= ms(4), "{took:?}");
        world.run_for(ms(2_000)).unwrap();
        assert_eq!(events(&world, 0), [lost(Some(to), &world)]);
        assert_eq!(events(&world, to), [acquired(Some(0), &world)]);
    }
}

#[test]
fn a_move_to_who_is_not_ready_does_not_happen() {
    let mut world = settled(3);
    world.wanted[0].unready = [2].into();
    world.wish(2);
    move_to(&mut world, 0, 2).unwrap();
    world.run_for(ms(500)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(0));
    assert_eq!(events(&world, 0), [Event::Stayed { resource: group(1), to: world.nodes[2].name.clone() }]);
}

#[test]
fn a_move_is_refused_with_its_reason() {
    let mut world = settled(3);
    let name = |index: usize| dualgate_core::model::NodeName::new(format!("node{index}"));
    assert_eq!(move_to(&mut world, 1, 2), Err(MoveRefusal::NotOwner { owner: Some(name(0)) }));
    assert_eq!(move_to(&mut world, 0, 0), Err(MoveRefusal::Already(name(0))));
    world.crash(2);
    world.run_for(ms(600)).unwrap();
    assert_eq!(move_to(&mut world, 0, 2), Err(MoveRefusal::PeerGone(name(2))));
    world.wanted[0].candidates = vec![0, 1];
    world.wish_all();
    assert_eq!(move_to(&mut world, 0, 2), Err(MoveRefusal::NotCandidate(name(2))));
    let refusal = MoveRefusal::NotOwner { owner: Some(name(0)) };
    assert_eq!(refusal.to_string(), "this node does not have it; ask `node0`");
}

#[test]
fn what_its_target_does_not_take_comes_back() {
    let mut world = settled(3);
    move_to(&mut world, 0, 2).unwrap();
    world.run_until_so(ms(10), |world| world.owner(&group(1)).is_none()).unwrap();
    world.crash(2);
    let took = owned_by(&mut world, 0, ms(400)).unwrap();
    assert!(took <= ms(270), "{took:?}");
}

#[test]
fn an_owner_that_may_not_own_any_more_hands_over_to_the_best_that_is_ready() {
    let mut world = settled(4);
    world.wanted[0].candidates = vec![1, 2, 3];
    world.wanted[0].unready = [1].into();
    world.wish_all();
    owned_by(&mut world, 2, ms(20)).unwrap();
    world.run_for(ms(2_000)).unwrap();
    assert_eq!(events(&world, 0), [lost(Some(2), &world)]);
    assert_eq!(events(&world, 2), [acquired(Some(0), &world)]);
}

#[test]
fn an_owner_that_may_not_own_any_more_lets_go_if_nobody_is_ready() {
    let mut world = settled(3);
    world.wanted[0].unready = [0, 1, 2].into();
    world.wish_all();
    world.run_for(ms(400)).unwrap();
    assert_eq!(world.owner(&group(1)), None);
    assert_eq!(events(&world, 0), [lost(None, &world)]);
}

/// Three nodes, of which the owner was told first that nobody wants the group any more.
fn given_up() -> (World, Vec<Wanted>) {
    let mut world = settled(3);
    let wanted = std::mem::take(&mut world.wanted);
    world.wish(0);
    assert_eq!(world.owner(&group(1)), None);
    assert_eq!(events(&world, 0), [lost(None, &world)]);
    (world, wanted)
}

#[test]
fn what_its_owner_has_no_use_for_any_more_is_nobodys_until_the_others_have_heard() {
    let (mut world, _) = given_up();
    world.run_for(ms(240)).unwrap();
    assert_eq!(world.owner(&group(1)), None);
    // Others still have a use for it, as the folders of nodes may differ.
    owned_by(&mut world, 1, ms(110)).unwrap();
    assert_eq!(events(&world, 1), [acquired(None, &world)]);
}

#[test]
fn what_was_given_up_by_mistake_is_its_owners_again_at_once() {
    let (mut world, wanted) = given_up();
    world.run_for(ms(20)).unwrap();
    world.wanted = wanted;
    world.wish(0);
    owned_by(&mut world, 0, ms(5)).unwrap();
}

#[test]
fn a_node_that_drains_gives_all_away_and_takes_nothing() {
    let mut world = settled(3);
    world.wanted.push(Wanted { resource: Resource::Holder, candidates: vec![0, 1, 2], unready: BTreeSet::new() });
    world.wanted.push(Wanted { resource: group(2), candidates: vec![0], unready: BTreeSet::new() });
    world.wish_all();
    world.run_for(ms(500)).unwrap();
    world.call(0, Ownership::drain);
    let is_drained = |world: &World| world.nodes[0].machine.as_ref().unwrap().is_drained();
    assert!(!is_drained(&world));
    let took = world.run_until_so(ms(100), is_drained).unwrap();
    assert!(took <= ms(10), "{took:?}");
    // The next holder waits until a majority knows its term.
    world.run_for(ms(5)).unwrap();
    assert_eq!([group(1), Resource::Holder].map(|of| world.owner(&of)), [Some(1), Some(1)]);
    assert_eq!(world.owner(&group(2)), Some(0), "nobody else can take it");
    world.crash(1);
    world.run_for(ms(700)).unwrap();
    assert_eq!([group(1), Resource::Holder].map(|of| world.owner(&of)), [Some(2), Some(2)]);
    world.call(0, |machine, _| machine.undrain());
    world.start(1);
    world.run_for(ms(700)).unwrap();
    world.crash(2);
    owned_by(&mut world, 0, ms(571)).unwrap();
}

// -- two ----------------------------------------------------------------------------------------------------------------

#[test]
fn two_nodes_own_by_both_votes() {
    let mut world = settled(2);
    world.run_for(ms(10_000)).unwrap();
    assert_eq!((world.owner(&group(1)), events(&world, 0)), (Some(0), vec![]));
}

#[test]
fn the_other_of_two_takes_over_once_the_router_answers_and_nobody_else_does() {
    let mut world = settled(2);
    world.crash(0);
    let took = owned_by(&mut world, 1, ms(571)).unwrap();
    assert!(took >= ms(450), "{took:?}");
    assert_eq!(events(&world, 1), [Event::Fence(group(1)), acquired(None, &world)]);
    world.start(0);
    world.run_for(ms(5_000)).unwrap();
    assert_eq!(world.owner(&group(1)), Some(1));
    assert_eq!(events(&world, 1).len(), 2, "whoever comes back and knows nothing takes nothing away");
}

#[test]
fn one_of_two_without_a_router_stops_and_takes_nothing() {
    let mut world = settled(2);
    for node in &mut world.nodes {
        node.sees_router = false;
    }
    world.run_for(ms(500)).unwrap();
    cut(&mut world, 0, 1);
    world.run_until_so(ms(551), |world| world.owner(&group(1)).is_none()).unwrap();
    world.run_for(ms(5_000)).unwrap();
    assert_eq!(world.owner(&group(1)), None);
    world.nodes[1].sees_router = true;
    owned_by(&mut world, 1, ms(1_500)).unwrap();
}

#[test]
fn two_that_are_deaf_for_each_other_have_one_owner() {
    let mut world = settled(2);
    cut(&mut world, 0, 1);
    world.run_for(ms(20_000)).unwrap();
    assert_eq!((world.owner(&group(1)), events(&world, 0)), (Some(0), vec![]));
    assert!(events(&world, 1).iter().all(|event| *event == Event::Fence(group(1))), "{:?}", events(&world, 1));
    world.network.cut.clear();
    world.run_for(ms(5_000)).unwrap();
    assert_eq!((world.owner(&group(1)), events(&world, 0)), (Some(0), vec![]));
}

#[test]
fn of_two_that_start_deaf_for_each_other_the_lower_name_owns() {
    for seed in 0..50 {
        let mut world = home(2);
        world.random.0 = seed;
        cut(&mut world, 0, 1);
        let order = [(0, 1), (1, 0)][(seed % 2) as usize];
        world.start(order.0);
        let pause = world.random.between(ms(0), ms(1_200));
        world.run_for(pause).unwrap();
        world.start(order.1);
        world.run_for(ms(10_000)).unwrap();
        let first = if pause < ms(500) { Some(0) } else { world.owner(&group(1)) };
        assert!(first.is_some() && world.owner(&group(1)) == first, "{seed}, {pause:?}: {}", world.who_has_what());
    }
}

// -- the replica --------------------------------------------------------------------------------------------------------

fn with_holder(count: usize) -> World {
    let mut world = home(count);
    world.wanted =
        vec![Wanted { resource: Resource::Holder, candidates: (0..count).collect(), unready: BTreeSet::new() }];
    world.start_all();
    world.run_for(ms(1_500)).unwrap();
    assert_eq!(world.owner(&Resource::Holder), Some(0));
    world
}

fn versions(world: &World) -> Vec<Option<(u64, u64, usize)>> {
    let of =
        |machine: &Ownership| machine.replica().map(|replica| (replica.term, replica.version, replica.bytes.len()));
    world.nodes.iter().map(|node| node.machine.as_ref().and_then(of)).collect()
}

#[test]
fn what_the_holder_publishes_is_at_all_members_soon() {
    let mut world = with_holder(3);
    assert!(world.publish(0, vec![1; 700].into()));
    world.run_for(ms(10)).unwrap();
    assert_eq!(versions(&world), vec![Some((1, 1, 700)); 3]);
    assert!(world.publish(0, vec![2; 0].into()));
    world.run_for(ms(10)).unwrap();
    assert_eq!(versions(&world), vec![Some((1, 2, 0)); 3]);
}

#[test]
fn two_mebibytes_arrive_although_a_tenth_is_lost() {
    let mut world = with_holder(3);
    world.network.loss_percent = 10;
    assert!(world.publish(0, vec![7; 2 << 20].into()));
    let arrived = |world: &World| versions(world).iter().all(|version| *version == Some((1, 1, 2 << 20)));
    world.run_until_so(ms(20_000), arrived).unwrap();
    let too_large = world.call(0, |machine, now| machine.publish(vec![7; (2 << 20) + 1].into(), now));
    assert_eq!(too_large, Some(Err(PublishRefusal::TooLarge((2 << 20) + 1))));
}

#[test]
fn each_holder_begins_a_term_above_all_that_were_and_has_what_they_said() {
    let mut world = with_holder(3);
    cut(&mut world, 0, 1);
    world.publish(0, vec![1; 5_000].into());
    world.run_for(ms(4)).unwrap();
    assert_eq!(versions(&world), [Some((1, 1, 5_000)), None, Some((1, 1, 5_000))]);
    world.crash(0);
    world.run_until_so(ms(700), |world| world.owner(&Resource::Holder) == Some(1)).unwrap();
    assert_eq!(versions(&world)[1], Some((1, 1, 5_000)), "it came to one of the voters before the holder died");
    assert!(!world.publish(2, vec![9].into()), "only the holder speaks");
    assert!(world.publish(1, vec![2; 10].into()));
    world.run_for(ms(50)).unwrap();
    world.start(0);
    world.run_for(ms(50)).unwrap();
    assert_eq!(versions(&world), vec![Some((2, 1, 10)); 3]);
}

#[test]
fn what_only_a_disk_knew_outlives_all_processes() {
    let mut world = with_holder(3);
    world.publish(0, vec![1; 100].into());
    world.run_for(ms(50)).unwrap();
    for index in 0..3 {
        world.crash(index);
    }
    world.start_all();
    world.run_for(ms(1_500)).unwrap();
    assert_eq!(versions(&world), vec![Some((1, 1, 100)); 3]);
    assert!(world.publish(0, vec![2; 3].into()));
    world.run_for(ms(50)).unwrap();
    assert_eq!(versions(&world), vec![Some((2, 1, 3)); 3]);
}
