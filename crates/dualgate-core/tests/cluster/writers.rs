//! Several home nodes on one API server, on a virtual clock: who writes, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::machine::lease::{self, Lease};
use dualgate_core::machine::writes::{Answer, Send, Writes};
use dualgate_core::model::{ObjectKey, ObjectName, ObjectSet};
use dualgate_core::plan::cluster::ClusterPlan;
use serde_json::{Value, json};

use super::api::Api;

/// One step of the world.
const TICK: Duration = Duration::from_millis(100);

/// After this an unanswered request counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);

const INGRESSES: [&str; 3] = ["a", "b", "c"];

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn in_thousand(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }
}

/// What may go wrong, in thousandths of all requests, and of all ticks of a node.
#[derive(Clone, Copy)]
struct Weather {
    lost: u64,
    slow: u64,
    freezes: u64,
}

const FAIR: Weather = Weather { lost: 0, slow: 0, freezes: 0 };
const FOUL: Weather = Weather { lost: 80, slow: 80, freezes: 1 };

#[derive(Clone)]
enum Body {
    Lease(lease::Request),
    Write(Send),
}

enum Reply {
    Lease(lease::Answer),
    Write(ObjectKey, Answer),
}

struct Request {
    node: usize,
    /// Which life of the node's writer it belongs to.
    reign: u64,
    /// How often the Lease had changed hands when it was sent.
    transitions: i64,
    arrives: Duration,
    answered: Duration,
    body: Option<Body>,
    reply: Option<Reply>,
}

struct Node {
    lease: Lease,
    writes: Writes,
    /// Its clock goes by so many millionths of the true one, and began elsewhere.
    rate: u64,
    offset: Duration,
    frozen_until: Duration,
    reign: u64,
    seen: usize,
    is_alive: bool,
}

impl Node {
    fn new(number: u64, random: &mut Random) -> Self {
        let offset = Duration::from_millis(random.below(100_000_000));
        let rate = 970_000 + random.below(60_000);
        let now = clock(offset, rate, Duration::ZERO);
        Self {
            lease: Lease::new("dualgate-system", "dualgate", format!("home{number}"), random.next(), now),
            writes: Writes::default(),
            rate,
            offset,
            frozen_until: Duration::ZERO,
            reign: 0,
            seen: 0,
            is_alive: true,
        }
    }

    fn now(&self, time: Duration) -> Duration {
        clock(self.offset, self.rate, time)
    }
}

fn clock(offset: Duration, rate: u64, time: Duration) -> Duration {
    offset + Duration::from_micros(time.as_millis() as u64 * rate / 1000)
}

/// What is watched: the plan and the objects at a time.
struct View {
    at: Duration,
    plan: Arc<ClusterPlan>,
    objects: Arc<ObjectSet>,
}

struct World {
    random: Random,
    time: Duration,
    weather: Weather,
    api: Api,
    lease: Option<Value>,
    version: u64,
    nodes: Vec<Node>,
    requests: Vec<Request>,
    plan: ClusterPlan,
    views: Vec<View>,
    /// How often the plan changed for an Ingress.
    changes: usize,
    /// How many writes the API server made.
    made: usize,
    /// The reign of whoever wrote last.
    last_writer: i64,
}

impl World {
    fn new(seed: u64, nodes: u64) -> Self {
        let mut random = Random(seed);
        let mut api = Api::default();
        for name in INGRESSES {
            api.put(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": name, "namespace": "default"}, "spec": {"rules": [{"host": "a.example.org"}]},
            }));
        }
        let nodes = (0..nodes).map(|number| Node::new(number, &mut random)).collect();
        let mut world = Self {
            random,
            time: Duration::ZERO,
            weather: FAIR,
            api,
            lease: None,
            version: 0,
            nodes,
            requests: Vec::new(),
            plan: ClusterPlan::default(),
            views: Vec::new(),
            changes: 0,
            made: 0,
            last_writer: 0,
        };
        world.watch();
        world
    }

    /// The plan changes for one Ingress.
    fn change(&mut self) {
        let name = INGRESSES[self.random.below(3) as usize];
        self.changes += 1;
        let number = self.changes as u16;
        let addresses = [[10, 0, (number >> 8) as u8, number as u8].into()];
        let v6 = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into();
        let addresses = addresses.into_iter().chain([v6]).collect();
        self.plan.ingresses.insert(ObjectName::new("default", name), addresses);
        self.watch();
    }

    fn watch(&mut self) {
        let view = View { at: self.time, plan: Arc::new(self.plan.clone()), objects: Arc::new(self.api.set()) };
        self.views.push(view);
    }

    fn run(&mut self, time: Duration) {
        let end = self.time + time;
        while self.time < end {
            self.time += TICK;
            self.arrive();
            for number in 0..self.nodes.len() {
                self.live(number);
            }
            self.only_one_holds();
        }
    }

    /// Never two at a time, by their own clocks. Who is frozen writes nothing before it looks at its clock.
    fn only_one_holds(&self) {
        let awake = self.nodes.iter().filter(|node| node.is_alive && node.frozen_until <= self.time);
        let holders = awake.filter(|node| node.lease.holds(node.now(self.time))).count();
        assert!(holders <= 1, "{holders} hold the Lease at {:?}", self.time);
    }

    fn holder(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.is_alive && node.lease.holds(node.now(self.time)))
    }

    /// Requests that reach the API server.
    fn arrive(&mut self) {
        let (mut requests, time) = (std::mem::take(&mut self.requests), self.time);
        for request in requests.iter_mut().filter(|request| request.arrives <= time) {
            match request.body.take() {
                None => {}
                Some(Body::Lease(asked)) => request.reply = Some(Reply::Lease(self.serve_lease(asked))),
                Some(Body::Write(send)) => {
                    assert!(request.transitions >= self.last_writer, "a former holder writes at {:?}", self.time);
                    self.last_writer = request.transitions;
                    self.made += 1;
                    let answer = match self.api.try_apply(&send.write, send.force, 0) {
                        Ok(()) => Answer::Made,
                        Err(_) => Answer::Conflict,
                    };
                    self.watch();
                    request.reply = Some(Reply::Write(send.write.object.clone(), answer));
                }
            }
        }
        self.requests = requests;
    }

    fn serve_lease(&mut self, asked: lease::Request) -> lease::Answer {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match (asked, self.lease.clone()) {
            (lease::Request::Read, Some(object)) => lease::Answer::Is(object),
            (lease::Request::Read | lease::Request::Replace(_), None) => lease::Answer::Absent,
            (lease::Request::Create(_), Some(_)) => lease::Answer::Conflict,
            (lease::Request::Create(object), None) => self.store(object),
            (lease::Request::Replace(object), Some(stored)) if version(&object) == version(&stored) => {
                self.store(object)
            }
            (lease::Request::Replace(_), Some(_)) => lease::Answer::Conflict,
        }
    }

    fn store(&mut self, mut object: Value) -> lease::Answer {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(object.clone());
        lease::Answer::Is(object)
    }

    fn live(&mut self, number: usize) {
        let freezes = self.random.in_thousand(self.weather.freezes);
        let node = &mut self.nodes[number];
        if freezes && node.frozen_until < self.time {
            node.frozen_until = self.time + Duration::from_millis(self.random.below(40_000));
        }
        if !node.is_alive || node.frozen_until > self.time {
            return;
        }
        let now = node.now(self.time);
        self.hear(number, now);
        let node = &mut self.nodes[number];
        if !node.lease.holds(now) && node.reign % 2 == 1 {
            node.writes.forget_all();
            node.reign += 1;
        }
        let node = &mut self.nodes[number];
        if node.lease.holds(now) && node.reign.is_multiple_of(2) {
            (node.reign, node.seen) = (node.reign + 1, 0);
        }
        self.look(number, now);
        let wall = (now.as_micros() as i64) * 3;
        while let Some(request) = self.nodes[number].lease.poll_request(now, wall) {
            self.send(number, Body::Lease(request));
        }
        if self.nodes[number].lease.holds(now) {
            while let Some(send) = self.nodes[number].writes.poll_write(now) {
                self.send(number, Body::Write(send));
            }
        }
    }

    /// Answers that have come.
    fn hear(&mut self, number: usize, now: Duration) {
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|request| request.node == number && request.answered <= self.time);
        self.requests = others;
        for request in mine {
            let node = &mut self.nodes[number];
            match (request.reply, request.body) {
                (Some(Reply::Lease(answer)), _) => node.lease.handle_answer(now, answer),
                (None, Some(Body::Lease(_))) => node.lease.handle_answer(now, lease::Answer::Failed),
                (Some(Reply::Write(key, answer)), _) if request.reign == node.reign => {
                    node.writes.handle_answer(&key, answer, now);
                }
                (None, Some(Body::Write(send))) if request.reign == node.reign => {
                    node.writes.handle_answer(&send.write.object, Answer::Away(None), now);
                }
                _ => {}
            }
        }
    }

    /// What the holder sees of the plan and the objects: up to half a second late.
    fn look(&mut self, number: usize, now: Duration) {
        let node = &mut self.nodes[number];
        let late = Duration::from_millis(100 + 200 * number as u64);
        let known = self.views.iter().rposition(|view| view.at + late <= self.time);
        if let Some(known) = known
            && node.lease.holds(now)
            && node.seen <= known
        {
            node.seen = known + 1;
            let view = &self.views[known];
            node.writes.want(&view.plan.diff(&view.objects), now);
        }
    }

    fn send(&mut self, number: usize, body: Body) {
        let slow = self.random.in_thousand(self.weather.slow);
        let delay =
            |random: &mut Random| Duration::from_millis(if slow { random.below(4500) } else { random.below(40) });
        let (there, back) = (delay(&mut self.random), delay(&mut self.random));
        let (lost_there, lost_back) =
            (self.random.in_thousand(self.weather.lost), self.random.in_thousand(self.weather.lost));
        let timeout = self.time + TIMEOUT;
        let arrives = if lost_there { Duration::MAX } else { self.time + there };
        let answered = if lost_there || lost_back { timeout } else { (arrives + back).min(timeout) };
        let transitions = self.nodes[number].lease.transitions();
        let reign = self.nodes[number].reign;
        let node = number;
        let mut request = Request { node, reign, transitions, arrives, answered, body: Some(body), reply: None };
        if arrives > timeout {
            request.arrives = Duration::MAX;
        }
        self.requests.push(request);
    }

    /// Whether every object says what is planned.
    fn is_settled(&self) -> bool {
        self.plan.diff(&self.api.set()).is_empty()
    }

    fn contested(&self) -> u64 {
        self.nodes.iter().map(|node| node.writes.counts().contested).sum()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_of_three_writes_each_change_once() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3);
        world.run(SECOND * 5);
        for _ in 0..60 {
            world.change();
            world.run(SECOND * 10);
            assert!(world.is_settled());
        }
        assert_eq!((world.made, world.contested()), (world.changes, 0));
        let transitions = world.lease.as_ref().map(|lease| lease["spec"]["leaseTransitions"].clone());
        assert_eq!(transitions, Some(0.into()), "nobody but the first has held it");
    }
}

#[test]
fn a_holder_that_dies_is_followed_within_its_lease_and_one_that_leaves_at_once() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3);
        world.run(SECOND * 5);
        let first = world.holder().expect("a holder");
        world.nodes[first].is_alive = false;
        world.change();
        world.run(SECOND * 14);
        assert!(world.holder().is_none() && !world.is_settled(), "its Lease lasts");
        world.run(SECOND * 6);
        let second = world.holder().expect("another holder");
        assert!(world.is_settled());
        let now = world.nodes[second].now(world.time);
        world.nodes[second].lease.leave(now);
        world.change();
        world.run(SECOND * 4);
        let third = world.holder().expect("the last one");
        assert!(third != second && third != first && world.is_settled());
        assert!(world.nodes[second].lease.is_over());
        assert_eq!((world.made, world.contested()), (world.changes, 0));
    }
}

#[test]
fn whatever_clocks_networks_and_processes_do_never_two_write_and_all_is_written_in_the_end() {
    let mut total = BTreeMap::<&str, usize>::new();
    for seed in 0..12 {
        let mut world = World::new(seed, 3);
        world.weather = FOUL;
        for _ in 0..40 {
            if world.random.in_thousand(500) {
                world.change();
            }
            let time = Duration::from_millis(world.random.below(20_000));
            world.run(time);
        }
        world.weather = FAIR;
        // What was frozen wakes up, what was sent ends, what was written without an answer is seen.
        world.run(SECOND * 150);
        assert!(world.holder().is_some() && world.is_settled(), "seed {seed}");
        let failed: u64 = world.nodes.iter().map(|node| node.writes.counts().failed).sum();
        let transitions = world.lease.as_ref().and_then(|lease| lease["spec"]["leaseTransitions"].as_i64());
        let transitions = transitions.unwrap_or(0) as usize;
        let most = world.changes + failed as usize + transitions * INGRESSES.len();
        assert!(world.made <= most, "seed {seed}: {} writes for {} changes", world.made, world.changes);
        *total.entry("changes").or_default() += world.changes;
        *total.entry("writes").or_default() += world.made;
        *total.entry("holders").or_default() += transitions;
    }
    assert!(total["holders"] >= 12, "the weather was too fair: {total:?}");
}

#[test]
fn a_label_that_somebody_puts_on_the_lease_costs_the_holder_nothing() {
    let mut world = World::new(7, 3);
    world.run(SECOND * 5);
    let holder = world.holder();
    for number in 0..20 {
        world.version += 1;
        let lease = world.lease.as_mut().unwrap();
        lease["metadata"]["resourceVersion"] = world.version.to_string().into();
        lease["metadata"]["labels"] = json!({ "number": number.to_string() });
        world.run(SECOND * 3);
        assert_eq!(world.holder(), holder);
    }
    assert_eq!(world.lease.unwrap()["metadata"]["labels"]["number"], "19", "and stays");
}

#[test]
fn a_lease_that_is_deleted_is_made_again() {
    let mut world = World::new(8, 3);
    world.run(SECOND * 5);
    world.lease = None;
    world.change();
    world.run(SECOND * 8);
    assert!(world.holder().is_some() && world.is_settled());
}
