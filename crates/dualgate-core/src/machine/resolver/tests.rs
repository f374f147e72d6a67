//! What an asker hears, whatever upstreams do, on a virtual clock.

use dualgate_wire::dns::Opt;

use super::*;
use crate::machine::dns::Chain;
use crate::plan::dns::{DnsPlan, ResolverPlan};

const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;
const HOME: &str = "192.168.178.1";
const OTHER: &str = "2001:db8::53";

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn wire(name: &str) -> Box<[u8]> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire.into()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn upstream(text: &str) -> Arc<Upstream> {
    Arc::new(text.parse().unwrap())
}

/// A resolver and those around it. Askers are numbers.
struct World {
    resolver: Resolver<u32>,
    now: Duration,
    sent: Vec<(AttemptId, Arc<Upstream>, Carrier, Vec<u8>)>,
    told: Vec<(u32, Vec<u8>)>,
    forgotten: Vec<AttemptId>,
}

impl World {
    fn new() -> Self {
        Self::with(ResolverPlan { upstreams: vec![upstream(HOME), upstream(OTHER)], ..ResolverPlan::default() })
    }

    fn with(plan: ResolverPlan) -> Self {
        let mut seed = 7_u64;
        let random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(seed ^ seed >> 29)
        };
        let mut resolver = Resolver::new(1 << 20, Box::new(random));
        resolver.follow(Arc::new(Responder::new(&DnsPlan { resolver: Some(plan), ..DnsPlan::default() })));
        Self { resolver, now: millis(1000), sent: vec![], told: vec![], forgotten: vec![] }
    }

    fn act(&mut self) {
        while let Some(action) = self.resolver.action() {
            match action {
                Action::Send { attempt, to, over, message } => self.sent.push((attempt, to, over, message)),
                Action::Forget(attempt) => self.forgotten.push(attempt),
                Action::Answer { asker, message } => self.told.push((asker, message)),
            }
        }
    }

    fn ask(&mut self, asker: u32, name: &str) {
        self.ask_as(question(name, 1), asker);
    }

    fn ask_as(&mut self, question: Question, asker: u32) {
        self.resolver.ask(question, asker, self.now);
        self.act();
    }

    /// Lets time pass, and does what is due in it.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.resolver.due().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.resolver.pass(self.now);
            self.act();
        }
        self.now = until;
    }

    /// The upstream of the last message that was sent answers it.
    fn answer(&mut self, records: &[Record]) {
        let (attempt, _, _, query) = self.sent.last().unwrap().clone();
        self.arrive(attempt, &reply(&query, 0, records));
    }

    fn arrive(&mut self, attempt: AttemptId, message: &[u8]) {
        self.resolver.arrived(attempt, message, 0, self.now);
        self.act();
    }

    fn upstreams_asked(&self) -> Vec<String> {
        self.sent.iter().map(|(_, to, ..)| to.to_string()).collect()
    }

    /// The only one who was told something, the code, and the addresses with their times to live.
    #[track_caller]
    fn only_told(&mut self) -> (u32, u8, Vec<(u32, Vec<u8>)>) {
        assert_eq!(self.told.len(), 1, "{:?}", self.told);
        let (asker, message) = self.told.pop().unwrap();
        (asker, message[3] & 0xf, records(&message))
    }
}

fn question(text: &str, rtype: u16) -> Question {
    Question {
        id: 99,
        name: name(text),
        written: wire(text),
        chain: Chain::default(),
        rtype: RecordType(rtype),
        checking_disabled: false,
        opt: Some(Opt { dnssec_ok: false, cookie: None, error: None }),
        limit: 1232,
    }
}

/// Section, type, time to live, data.
type Record = (usize, u16, u32, Vec<u8>);

fn a(ttl: u32, address: [u8; 4]) -> Record {
    (0, 1, ttl, address.to_vec())
}

fn soa(ttl: u32, minimum: u32) -> Record {
    (1, 6, ttl, [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat())
}

/// An upstream's answer, with OPT.
fn reply(query: &[u8], code: u8, records: &[Record]) -> Vec<u8> {
    let end = query.len() - 11;
    let mut reply = query[..end].to_vec();
    (reply[2], reply[3]) = (0x81, 0x80 | code);
    let count = |section| records.iter().filter(|(of, ..)| *of == section).count() as u8;
    (reply[7], reply[9], reply[11]) = (count(0), count(1), count(2) + 1);
    for section in 0..3 {
        for (_, rtype, ttl, data) in records.iter().filter(|(of, ..)| *of == section) {
            reply.extend_from_slice(&[0xc0, 12]);
            reply.extend_from_slice(&rtype.to_be_bytes());
            reply.extend_from_slice(&[0, 1]);
            reply.extend_from_slice(&ttl.to_be_bytes());
            reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
            reply.extend_from_slice(data);
        }
    }
    reply.extend_from_slice(&query[end..]);
    reply
}

/// Times to live and data of what was told, all sections but OPT.
fn records(message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let name = message[12..].iter().position(|octet| *octet == 0).unwrap();
    let mut rest = &message[12 + name + 5..];
    let mut records = Vec::new();
    while rest.len() > 11 && rest[0] == 0xc0 {
        let (head, after) = rest.split_at(12);
        let (data, after) = after.split_at(usize::from(u16::from_be_bytes([head[10], head[11]])));
        records.push((u32::from_be_bytes(head[6..10].try_into().unwrap()), data.to_vec()));
        rest = after;
    }
    records
}

#[test]
fn an_answer_is_told_in_the_askers_letters_and_number_and_kept_while_its_time_runs() {
    let mut world = World::new();
    world.ask_as(Question { written: wire("WWW.example.org"), ..question("www.example.org", 1) }, 1);
    let sent = world.sent[0].3.clone();
    assert_eq!((world.sent[0].1.to_string().as_str(), world.sent[0].2), (HOME, Carrier::Udp));
    assert_ne!(sent[12..29], *wire("www.example.org"), "the letters are mixed");
    world.answer(&[a(300, [203, 0, 113, 7])]);
    let told = world.told[0].1.clone();
    assert_eq!(told[..12], [0, 99, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(told[12..29], *wire("WWW.example.org"));
    assert_eq!(world.only_told(), (1, 0, vec![(300, vec![203, 0, 113, 7])]));
    world.pass(millis(100_500));
    world.ask(2, "www.example.org");
    assert_eq!(world.only_told(), (2, 0, vec![(200, vec![203, 0, 113, 7])]));
    assert_eq!(world.sent.len(), 1, "it was known");
    world.pass(millis(200_000));
    world.ask(3, "www.example.org");
    assert_eq!((world.told.len(), world.sent.len()), (0, 2), "its time is over");
}

#[test]
fn what_was_kept_on_the_way_lasts_shorter() {
    let mut world = World::new();
    for (asker, age, left) in [(1, 100, vec![200]), (2, 400, vec![0])] {
        world.ask(asker, &format!("www{asker}.example.org"));
        let (attempt, _, _, query) = world.sent.last().unwrap().clone();
        world.resolver.arrived(attempt, &reply(&query, 0, &[a(300, [203, 0, 113, 7])]), age, world.now);
        world.act();
        let (to, code, records) = world.only_told();
        assert_eq!((to, code, records.iter().map(|(ttl, _)| *ttl).collect()), (asker, 0, left));
    }
    world.ask(3, "www1.example.org");
    assert_eq!(world.only_told(), (3, 0, vec![(200, vec![203, 0, 113, 7])]));
    world.ask(4, "www2.example.org");
    assert_eq!((world.told.len(), world.sent.len()), (0, 3), "it was over when it came");
}

#[test]
fn questions_go_on_to_whom_to_ask_now() {
    let plan = |upstreams| DnsPlan {
        resolver: Some(ResolverPlan { upstreams, ..ResolverPlan::default() }),
        ..DnsPlan::default()
    };
    let mut world = World::with(plan(vec![upstream(HOME)]).resolver.unwrap());
    world.ask(1, "www.example.org");
    world.resolver.follow(Arc::new(Responder::new(&plan(vec![upstream(OTHER)]))));
    world.pass(millis(0));
    assert_eq!(world.upstreams_asked(), [HOME, OTHER]);
    let (former, _, _, query) = world.sent[0].clone();
    world.arrive(former, &reply(&query, 0, &[a(300, [203, 0, 113, 66])]));
    assert_eq!(world.told, [], "it is none any more");
    world.answer(&[a(300, [203, 0, 113, 7])]);
    assert_eq!(world.only_told(), (1, 0, vec![(300, vec![203, 0, 113, 7])]));
    // Also after the former ones were asked as often as may be.
    let mut late = World::with(plan(vec![upstream(HOME)]).resolver.unwrap());
    late.ask(1, "www.example.org");
    late.pass(NEXT * 5);
    late.sent.clear();
    late.resolver.follow(Arc::new(Responder::new(&plan(vec![upstream(OTHER)]))));
    late.pass(millis(0));
    assert_eq!(late.upstreams_asked(), [OTHER]);
    // And to nobody where there is nobody.
    world.ask(2, "www2.example.org");
    world.resolver.follow(Arc::new(Responder::new(&plan(vec![]))));
    world.pass(NEXT);
    assert_eq!(world.only_told(), (2, SERVFAIL, vec![]));
}

#[test]
fn the_same_question_of_many_is_asked_once() {
    let mut world = World::new();
    (0..ASKERS as u32).for_each(|asker| world.ask(asker, "www.example.org"));
    assert_eq!((world.sent.len(), world.told.len()), (1, 0));
    world.ask(1000, "www.example.org");
    assert_eq!(world.only_told(), (1000, SERVFAIL, vec![]), "no queue is endless");
    world.answer(&[a(300, [203, 0, 113, 7])]);
    assert_eq!(world.told.len(), ASKERS);
    assert_eq!(world.forgotten, [world.sent[0].0]);
}

#[test]
fn nothing_that_is_guessed_counts() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    let (attempt, _, _, query) = world.sent[0].clone();
    let good = reply(&query, 0, &[a(300, [203, 0, 113, 66])]);
    let mut forged: Vec<Vec<u8>> = vec![Vec::new(), good[..11].to_vec(), query.clone()];
    for place in [0, 1, 4, 12, 13 + 16, good.len().min(12 + 17 + 1)] {
        let mut message = good.clone();
        message[place] ^= 0x10;
        forged.push(message);
    }
    for message in &forged {
        world.arrive(attempt, message);
        assert_eq!(world.told, [], "{message:?}");
    }
    assert_eq!(world.resolver.counts().foreign, forged.len() as u64);
    world.arrive(attempt, &good);
    assert_eq!(world.only_told().1, 0);
    // Too late.
    world.arrive(attempt, &good);
    assert_eq!(world.told, []);
}

#[test]
fn other_letters_and_cut_answers_are_asked_for_again_by_tcp() {
    for letters in [true, false] {
        let mut world = World::new();
        world.ask(1, "www.example.org");
        let (attempt, _, _, query) = world.sent[0].clone();
        let mut message = reply(&query, 0, &[]);
        match letters {
            true => message[13..29].make_ascii_lowercase(),
            false => message[2] |= 2,
        }
        world.arrive(attempt, &message);
        assert_eq!((world.told.len(), world.sent.len()), (0, 2));
        assert_eq!((world.sent[1].1.to_string().as_str(), world.sent[1].2), (HOME, Carrier::Connection));
        world.answer(&[a(300, [203, 0, 113, 7])]);
        assert_eq!(world.only_told(), (1, 0, vec![(300, vec![203, 0, 113, 7])]));
    }
}

#[test]
fn a_silent_upstream_costs_little_and_is_asked_last_until_it_is_back() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    world.pass(NEXT);
    assert_eq!(world.upstreams_asked(), [HOME, OTHER]);
    world.answer(&[a(1, [203, 0, 113, 7])]);
    assert_eq!(world.only_told().1, 0);
    assert_eq!(world.forgotten.len(), 2, "the other attempt is over, too");
    for number in 0..2 {
        world.ask(1, &format!("www{number}.example.org"));
        world.pass(NEXT);
        let of_other = |(_, to, ..): &&(AttemptId, Arc<Upstream>, Carrier, Vec<u8>)| **to == *upstream(OTHER);
        let (attempt, _, _, query) = world.sent.iter().rfind(of_other).unwrap().clone();
        world.arrive(attempt, &reply(&query, 0, &[a(1, [203, 0, 113, 7])]));
    }
    assert!(world.resolver.away().is_empty(), "perhaps it knows nothing of these names");
    world.pass(NEXT);
    assert_eq!(world.resolver.away(), [upstream(HOME)]);
    world.sent.clear();
    world.ask(1, "more.example.org");
    assert_eq!(world.upstreams_asked(), [OTHER]);
    world.answer(&[a(1, [203, 0, 113, 7])]);
    world.sent.clear();
    while world.sent.is_empty() && world.now < millis(20_000) {
        world.pass(millis(100));
    }
    assert_eq!(world.upstreams_asked(), [HOME], "it is looked at");
    world.answer(&[]);
    assert!(world.resolver.away().is_empty());
    world.sent.clear();
    world.ask(1, "again.example.org");
    assert_eq!(world.upstreams_asked(), [HOME]);
}

#[test]
fn a_name_that_nobody_knows_anything_of_takes_no_upstream_away() {
    let mut world = World::with(ResolverPlan { upstreams: vec![upstream(HOME)], ..ResolverPlan::default() });
    world.ask(1, "www.example.org");
    world.answer(&[a(60, [203, 0, 113, 7])]);
    world.told.clear();
    world.pass(millis(100_000));
    world.sent.clear();
    world.ask(2, "dead.example.org");
    // It is asked whether it is there, and says so.
    while world.now < millis(104_000) {
        world.pass(millis(10));
        let is_probe = |(_, _, _, query): &&(AttemptId, Arc<Upstream>, Carrier, Vec<u8>)| query[12] == 0;
        for (attempt, _, _, query) in world.sent.iter().filter(is_probe).cloned().collect::<Vec<_>>() {
            world.arrive(attempt, &reply(&query, 0, &[]));
        }
        assert!(world.resolver.away().is_empty());
    }
    world.sent.clear();
    world.ask(3, "www.example.org");
    assert_eq!(
        (world.told.len(), world.upstreams_asked()),
        (0, vec![HOME.to_owned()]),
        "nothing stale is told at once"
    );
    world.answer(&[a(60, [203, 0, 113, 8])]);
    assert_eq!(world.only_told(), (3, 0, vec![(60, vec![203, 0, 113, 8])]));
}

/// Answers all datagrams in large letters; who is asked by a connection is as it was.
fn answer_in_large_letters(world: &mut World) {
    let sent = world.sent.clone();
    for (attempt, _, _, query) in sent.iter().filter(|(_, _, over, _)| *over == Carrier::Udp) {
        let mut message = reply(query, 0, &[a(300, [203, 0, 113, 7])]);
        message[13..30].make_ascii_uppercase();
        world.arrive(*attempt, &message);
    }
}

#[test]
fn who_hears_no_tcp_and_writes_names_in_other_letters_is_asked_without_any() {
    for is_refused in [true, false] {
        let mut world = World::with(ResolverPlan { upstreams: vec![upstream(HOME)], ..ResolverPlan::default() });
        for (turn, sent) in [(1, 3), (2, 1)] {
            world.sent.clear();
            world.ask(turn, &format!("www{turn}.example.org"));
            if turn == 1 {
                answer_in_large_letters(&mut world);
                assert_eq!((world.sent.len(), world.told.len()), (2, 0), "anybody could have written it");
                match is_refused {
                    true => world.resolver.failed(world.sent[1].0, world.now),
                    // Its packets are dropped.
                    false => world.pass(NEXT),
                }
                world.act();
            }
            let (_, _, carrier, query) = world.sent.last().unwrap().clone();
            assert_eq!((world.sent.len(), carrier), (sent, Carrier::Udp));
            assert!(!query[13..30].iter().any(u8::is_ascii_uppercase));
            answer_in_large_letters(&mut world);
            assert_eq!(world.only_told(), (turn, 0, vec![(300, vec![203, 0, 113, 7])]));
        }
        // After an hour it is believed to have learnt.
        world.pass(Duration::from_secs(3600));
        world.sent.clear();
        world.ask(3, "www3.example.org");
        assert!(world.sent[0].3[13..30].iter().any(u8::is_ascii_uppercase));
    }
}

#[test]
fn a_former_upstream_of_a_zone_says_nothing_of_it_though_it_is_one_of_another() {
    let plan = |home: &str| DnsPlan {
        resolver: Some(ResolverPlan {
            upstreams: vec![upstream(HOME)],
            per_zone: vec![(name("example.org"), vec![upstream(home)])],
            ..ResolverPlan::default()
        }),
        ..DnsPlan::default()
    };
    let mut world = World::with(plan(HOME).resolver.unwrap());
    world.ask(1, "www.example.org");
    let (former, _, _, query) = world.sent[0].clone();
    world.resolver.follow(Arc::new(Responder::new(&plan(OTHER))));
    world.pass(millis(0));
    world.arrive(former, &reply(&query, 0, &[a(300, [203, 0, 113, 66])]));
    assert_eq!((world.told.len(), world.upstreams_asked()), (0, vec![HOME.to_owned(), OTHER.to_owned()]));
}

#[test]
fn an_upstream_that_answers_no_question_is_asked_last_though_it_speaks() {
    let mut world = World::new();
    let answer = |world: &mut World, by: &str, is_probe: bool| {
        let of = |(_, to, _, query): &&(AttemptId, Arc<Upstream>, Carrier, Vec<u8>)| {
            **to == *upstream(by) && (query[12] == 0) == is_probe
        };
        let sent: Vec<_> = world.sent.iter().filter(of).cloned().collect();
        for (attempt, _, _, query) in sent {
            world.arrive(attempt, &reply(&query, 0, &[a(1, [203, 0, 113, 7])]));
        }
    };
    for number in 0..12 {
        world.ask(number, &format!("www{number}.example.org"));
        world.pass(NEXT);
        answer(&mut world, OTHER, false);
        answer(&mut world, HOME, true);
        world.pass(millis(1));
        answer(&mut world, HOME, true);
    }
    assert_eq!(world.resolver.away(), [upstream(HOME)]);
    world.sent.clear();
    world.ask(20, "more.example.org");
    assert_eq!(world.upstreams_asked(), [OTHER]);
    world.answer(&[a(1, [203, 0, 113, 7])]);
    // Now and then it has another chance.
    while !world.resolver.away().is_empty() && world.now < millis(60_000) {
        world.pass(millis(100));
        answer(&mut world, HOME, true);
    }
    assert!(world.resolver.away().is_empty());
}

#[test]
fn whoever_answers_is_there_though_it_says_nothing_to_a_look() {
    let mut world = World::with(ResolverPlan { upstreams: vec![upstream(HOME)], ..ResolverPlan::default() });
    for number in 0..3 {
        world.ask(number, &format!("dead{number}.example.org"));
    }
    world.pass(NEXT);
    world.pass(millis(100));
    assert!(world.sent.iter().any(|(_, _, _, query)| query[12] == 0), "it is looked at");
    world.ask(4, "www.example.org");
    world.answer(&[a(60, [203, 0, 113, 7])]);
    world.pass(NEXT);
    assert!(world.resolver.away().is_empty());
}

#[test]
fn what_was_known_is_told_when_too_much_is_asked_and_nothing_else_is_asked_of_who_asks_too_much() {
    let mut world = World::new();
    world.ask(0, "www.example.org");
    world.answer(&[a(60, [203, 0, 113, 7])]);
    world.told.clear();
    world.resolver.turn_away(question("www.example.org", 1), 1, world.now);
    world.resolver.turn_away(question("www2.example.org", 1), 2, world.now);
    world.act();
    let codes: Vec<(u32, u8)> = world.told.drain(..).map(|(asker, message)| (asker, message[3] & 0xf)).collect();
    assert_eq!((codes, world.sent.len()), (vec![(1, 0), (2, SERVFAIL)], 1));
    world.pass(millis(61_000));
    (0..OPEN as u32).for_each(|number| world.ask(number, &format!("n{number}.example.net")));
    assert_eq!(world.told, []);
    world.ask(9999, "www.example.org");
    assert_eq!(world.only_told(), (9999, 0, vec![(30, vec![203, 0, 113, 7])]));
}

#[test]
fn an_answer_that_may_not_be_kept_ends_what_was_known() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    world.answer(&[a(60, [203, 0, 113, 7])]);
    world.pass(millis(61_000));
    world.ask(2, "www.example.org");
    let (attempt, _, _, query) = world.sent.last().unwrap().clone();
    // A denial without SOA.
    world.arrive(attempt, &reply(&query, NXDOMAIN, &[]));
    world.told.clear();
    world.ask(3, "www.example.org");
    world.pass(GIVE_UP);
    assert_eq!(world.only_told().1, SERVFAIL, "what is gone does not come back");
}

#[test]
fn that_an_answer_is_authentic_is_believed_of_encrypted_upstreams_alone() {
    for (to, expected) in [(HOME, 0), ("tls://192.0.2.53#dns.example.org", 0x20)] {
        let mut world = World::with(ResolverPlan { upstreams: vec![upstream(to)], ..ResolverPlan::default() });
        let opt = Some(Opt { dnssec_ok: true, cookie: None, error: None });
        world.ask_as(Question { opt, ..question("www.example.org", 1) }, 1);
        let (attempt, _, _, query) = world.sent[0].clone();
        // Without EDNS and its padding.
        let mut message = query[..12 + 17 + 4].to_vec();
        (message[2], message[3], message[11]) = (0x81, 0xa0, 0);
        world.arrive(attempt, &message);
        assert_eq!(world.told[0].1[3] & 0x20, expected, "{to}");
    }
}

#[test]
fn nobody_is_led_past_this_resolver() {
    let mut world = World::new();
    world.ask_as(question("_dns.resolver.arpa", 64), 1);
    assert_eq!((world.only_told(), world.sent.len()), ((1, 0, vec![]), 0));
}

#[test]
fn a_refusal_is_asked_of_the_next_and_told_when_all_refuse() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    for refused in 0..2 {
        assert_eq!(world.told, [], "after {refused}");
        let (attempt, _, _, query) = world.sent.last().unwrap().clone();
        world.arrive(attempt, &reply(&query, 5, &[]));
    }
    assert_eq!(world.upstreams_asked(), [HOME, OTHER]);
    assert_eq!(world.only_told(), (1, SERVFAIL, vec![]));
    assert!(world.resolver.away().is_empty(), "who refuses is there");
    world.ask(2, "www.example.org");
    assert_eq!((world.only_told(), world.sent.len()), ((2, SERVFAIL, vec![]), 2), "it is remembered");
    world.pass(millis(5_100));
    world.ask(3, "www.example.org");
    assert_eq!((world.told.len(), world.sent.len()), (0, 3), "but not for long");
}

#[test]
fn while_nobody_answers_what_is_over_is_told() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    world.answer(&[a(60, [203, 0, 113, 7])]);
    world.told.clear();
    world.pass(millis(3_600_000));
    world.ask(2, "www.example.org");
    world.pass(STALE_AFTER - millis(1));
    assert_eq!(world.told, []);
    world.pass(millis(1));
    let extended = world.told[0].1.clone();
    assert_eq!(extended[extended.len() - 8..], [0, 6, 0, 15, 0, 2, 0, 3], "RFC 8914: stale");
    assert_eq!(world.only_told(), (2, 0, vec![(30, vec![203, 0, 113, 7])]));
    world.ask(3, "unknown.example.org");
    world.pass(GIVE_UP);
    assert_eq!(world.only_told(), (3, SERVFAIL, vec![]));
    assert_eq!(world.resolver.away().len(), 2);
    world.ask(4, "www.example.org");
    assert_eq!(world.only_told().0, 4, "nobody waits for those who are away");
    world.answer(&[a(60, [203, 0, 113, 8])]);
    world.ask(5, "www.example.org");
    assert_eq!(world.only_told(), (5, 0, vec![(60, vec![203, 0, 113, 8])]), "it was asked all the same");
    world.pass(millis(2 * 86_400_000));
    world.ask(6, "www.example.org");
    assert_eq!(world.told, [], "after a day it is no answer any more");
}

#[test]
fn a_denial_lasts_as_long_as_its_soa_says() {
    for (code, answers) in [(3, vec![soa(900, 60)]), (0, vec![soa(60, 900)])] {
        let mut world = World::new();
        world.ask(1, "none.example.org");
        let (attempt, _, _, query) = world.sent[0].clone();
        world.arrive(attempt, &reply(&query, code, &answers));
        assert_eq!(world.only_told().1, code);
        world.pass(millis(59_000));
        world.ask(2, "none.example.org");
        assert_eq!(world.only_told().1, code);
        world.pass(millis(1_001));
        world.ask(3, "none.example.org");
        assert_eq!((world.told.len(), world.sent.len()), (0, 2));
        // Without one it is not kept.
        world.answer(&[]);
        world.told.clear();
        world.ask(4, "none.example.org");
        assert_eq!(world.sent.len(), 3);
    }
}

#[test]
fn answers_that_lead_home_are_not_told_but_for_local_names() {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let hint = |key: u8, address: &[u8]| {
        [&[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, key, 0, address.len() as u8], address].concat()
    };
    let leads: Vec<(u16, Vec<u8>)> = vec![
        (1, vec![192, 168, 178, 10]),
        (1, vec![10, 0, 0, 1]),
        (1, vec![127, 0, 0, 1]),
        (1, vec![169, 254, 1, 1]),
        (1, vec![0, 0, 0, 0]),
        (28, v6("::1")),
        (28, v6("fda8:a1db:5685::10")),
        (28, v6("fe80::1")),
        (28, v6("::ffff:192.168.178.10")),
        (65, hint(4, &[192, 168, 178, 10])),
        (65, hint(6, &v6("fda8:a1db:5685::10"))),
    ];
    for (rtype, data) in leads {
        let rebind_allowed = vec![name("nas.example.org")];
        let (upstreams, per_zone) = (vec![upstream(HOME)], vec![(name("corp.example"), vec![upstream(OTHER)])]);
        let plan = ResolverPlan { upstreams, per_zone, rebind_allowed, ..ResolverPlan::default() };
        let mut world = World::with(plan);
        world.ask_as(question("evil.example.org", rtype), 1);
        world.answer(&[(0, rtype, 300, data.clone())]);
        assert_eq!(world.only_told(), (1, 0, vec![]), "{data:?}");
        world.ask_as(question("x.8.b.d.0.1.0.0.2.ip6.arpa", rtype), 1);
        world.answer(&[(0, rtype, 300, data.clone())]);
        assert_eq!(world.only_told(), (1, 0, vec![]), "{data:?} of a reverse zone");
        assert_eq!(world.resolver.counts().blocked, 2);
        for name in ["nas.example.org", "a.nas.example.org", "x.corp.example", "printer.home.arpa"] {
            world.ask_as(question(name, rtype), 2);
            world.answer(&[(0, rtype, 300, data.clone())]);
            assert_eq!(world.only_told(), (2, 0, vec![(300, data.clone())]), "{name}");
        }
    }
    let mut world = World::new();
    world.ask_as(question("good.example.org", 65), 1);
    world.answer(&[(0, 65, 300, hint(4, &[203, 0, 113, 7]))]);
    assert_eq!(world.only_told().2.len(), 1);
}

#[test]
fn names_of_a_zone_are_asked_of_its_own_upstreams() {
    let (upstreams, per_zone) = (vec![upstream(HOME)], vec![(name("corp.example"), vec![upstream(OTHER)])]);
    let mut world = World::with(ResolverPlan { upstreams, per_zone, ..ResolverPlan::default() });
    for name in ["corp.example", "a.b.corp.example", "notcorp.example", "example"] {
        world.ask(1, name);
    }
    assert_eq!(world.upstreams_asked(), [OTHER, OTHER, HOME, HOME]);
}

#[test]
fn browsers_are_told_to_ask_here() {
    let mut world = World::new();
    world.ask(1, "use-application-dns.net");
    assert_eq!(world.only_told(), (1, NXDOMAIN, vec![]));
    assert!(world.sent.is_empty());
}

#[test]
fn nothing_is_asked_that_can_be_guessed() {
    let mut world = World::new();
    world.resolver.random = Box::new(|| None);
    world.ask(1, "www.example.org");
    assert_eq!((world.only_told(), world.sent.len()), ((1, SERVFAIL, vec![]), 0));
}

#[test]
fn what_does_not_fit_is_cut_and_said_so() {
    let mut world = World::new();
    let many: Vec<Record> = (0..100).map(|octet| a(300, [203, 0, 113, octet])).collect();
    world.ask_as(Question { opt: None, limit: 512, ..question("www.example.org", 1) }, 1);
    world.answer(&many);
    let message = world.told.pop().unwrap().1;
    assert_eq!((message[2] & 2, &message[6..12], message.len()), (2, &[0; 6][..], 12 + 17 + 4));
    world.ask_as(Question { limit: 65_535, ..question("www.example.org", 1) }, 2);
    assert_eq!(world.only_told().2.len(), 100);
}

#[test]
fn memory_is_bounded_and_what_is_asked_for_stays() {
    let mut world = World::new();
    world.ask(1, "often.example.org");
    world.answer(&[a(80_000, [203, 0, 113, 7])]);
    for number in 0..20_000 {
        world.ask(1, &format!("n{number}.example.org"));
        world.answer(&[a(80_000, [203, 0, 113, 7])]);
        if number % 100 == 0 {
            world.ask(1, "often.example.org");
        }
    }
    let (entries, octets) = world.resolver.kept();
    assert!((1000..19_000).contains(&entries) && octets <= 1 << 20, "{entries} of {octets} octets");
    let sent = world.sent.len();
    world.ask(1, "often.example.org");
    assert_eq!(world.sent.len(), sent);
    // Open questions, too.
    world.told.clear();
    (0..1000).for_each(|number| world.ask(1, &format!("open{number}.example.org")));
    assert_eq!(world.told.len(), 1000 - OPEN);
}

#[test]
fn no_message_of_an_upstream_panics() {
    let mut world = World::new();
    world.ask(1, "www.example.org");
    let (attempt, _, _, query) = world.sent[0].clone();
    let good = reply(&query, 0, &[a(300, [203, 0, 113, 7]), soa(60, 60)]);
    for end in 0..good.len() {
        world.arrive(attempt, &good[..end]);
    }
    let mut seed = 1_u32;
    for _ in 0..50_000 {
        let mut message = good.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = 29 + 4 + (seed >> 8) as usize % (message.len() - 33);
            message[place] = seed as u8;
        }
        world.now += millis(10_000);
        world.pass(millis(10));
        world.ask(1, "www.example.org");
        let asked = world.sent.iter().rfind(|(.., query)| query.len() > 40).cloned();
        if let Some((attempt, _, _, query)) = asked {
            message[..2].copy_from_slice(&query[..2]);
            message[12..29].copy_from_slice(&query[12..29]);
            world.arrive(attempt, &message);
        }
        world.sent.clear();
        world.told.clear();
        world.forgotten.clear();
    }
}
