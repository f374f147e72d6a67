//! When what happens: whole frames are in the cases, here they are told in a word.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dualgate_core::machine::announcer::{Announcer, Counters, Event, Heard, Ignored, Link, Timing};
use dualgate_wire::arp::{self, Operation};
use dualgate_wire::bpf;
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Message, Solicitation, solicited_node};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);
const V4: Ipv4Addr = Ipv4Addr::new(192, 168, 178, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10);
const FAMILIES: [&[IpAddr]; 3] = [&[IpAddr::V4(V4)], &[IpAddr::V6(V6)], &[IpAddr::V4(V4), IpAddr::V6(V6)]];
const FOREVER: Duration = Duration::MAX;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn link(mac: Mac) -> Link {
    let link_local = Some("fe80::1".parse().unwrap());
    Link { mac, link_local, addresses: vec!["192.168.178.5".parse().unwrap()] }
}

/// A frame, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Announced,
    Answered,
    Asked,
}
use Word::{Announced, Answered, Asked};

fn word(frame: &[u8]) -> (Word, IpAddr) {
    let (header, payload) = Header::parse(frame).unwrap();
    match header.ether_type {
        EtherType::Arp => {
            let packet = arp::Packet::parse(payload).unwrap();
            match packet.operation {
                _ if packet.sender == packet.target => (Announced, packet.sender.into()),
                Operation::Request => (Asked, packet.target.into()),
                Operation::Reply => (Answered, packet.sender.into()),
            }
        }
        EtherType::Ipv6 => match ndp::Packet::parse(payload).unwrap().message {
            Message::Solicitation(it) => (Asked, it.target.into()),
            Message::Advertisement(it) if it.flags.solicited => (Answered, it.target.into()),
            Message::Advertisement(it) => (Announced, it.target.into()),
        },
        EtherType::Other(_) => panic!("{frame:?}"),
    }
}

struct Lan {
    announcer: Announcer,
    now: Duration,
    sent: Vec<(Duration, Word, IpAddr)>,
    events: Vec<(Duration, Event)>,
}

impl Lan {
    fn new() -> Self {
        Self::with(7)
    }

    fn with(seed: u64) -> Self {
        let announcer = Announcer::new(link(US), seed, Timing::default());
        Self { announcer, now: Duration::ZERO, sent: Vec::new(), events: Vec::new() }
    }

    fn holding(addresses: &[IpAddr]) -> Self {
        let mut lan = Self::new();
        lan.hold(addresses, FOREVER);
        lan
    }

    fn hold(&mut self, addresses: &[IpAddr], until: Duration) {
        addresses.iter().for_each(|address| self.announcer.hold(*address, until, self.now));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(frame) = self.announcer.poll_transmit(self.now) {
            let (word, address) = word(&frame);
            self.sent.push((self.now, word, address));
        }
        while let Some(event) = self.announcer.poll_event() {
            self.events.push((self.now, event));
        }
    }

    /// Up to a moment, waking only when it is asked for.
    fn run_to(&mut self, end: Duration) {
        self.drain();
        while let Some(next) = self.announcer.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.now || self.sent.len() < 1_000_000, "it wakes without end");
            self.now = next.max(self.now);
            self.announcer.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn receive(&mut self, frame: &[u8]) -> Result<(), Ignored> {
        let outcome = self.announcer.receive(frame, self.now);
        self.drain();
        outcome
    }

    /// When something was said of an address, once for each moment.
    fn times(&self, word: Word, address: IpAddr) -> Vec<Duration> {
        let mut times: Vec<Duration> =
            self.sent.iter().filter(|sent| (sent.1, sent.2) == (word, address)).map(|sent| sent.0).collect();
        times.dedup();
        times
    }

    fn forget(&mut self) {
        self.sent.clear();
        self.events.clear();
    }
}

fn arp(operation: Operation, mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination: Mac::BROADCAST, source: mac, ether_type: EtherType::Arp }.emit(&mut frame);
    arp::Packet { operation, sender_mac: mac, sender, target_mac: Mac::ZERO, target }.emit(&mut frame);
    frame
}

fn ndp(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, message: Message) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination: Mac::of_group(destination), source: mac, ether_type: EtherType::Ipv6 }.emit(&mut frame);
    ndp::Packet { source, destination, message }.emit(&mut frame);
    frame
}

/// Somebody asks for an address.
fn question(address: IpAddr) -> Vec<u8> {
    question_of(THEM, address)
}

/// From this station.
fn question_of(asker: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => arp(Operation::Request, asker, Ipv4Addr::new(192, 168, 178, 20), target),
        IpAddr::V6(target) => {
            let message = Message::Solicitation(Solicitation { target, source_link: Some(asker), nonce: None });
            ndp(asker, "fe80::2".parse().unwrap(), solicited_node(target), message)
        }
    }
}

/// Another station says that an address is its own.
fn claim(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(Operation::Reply, mac, address, address),
        IpAddr::V6(target) => {
            let flags = ndp::Flags { router: false, solicited: false, overriding: true };
            let message = Message::Advertisement(ndp::Advertisement { target, flags, target_link: Some(mac) });
            ndp(mac, target, ndp::ALL_NODES, message)
        }
    }
}

#[test]
fn an_address_is_announced_six_times_in_four_seconds_and_then_every_half_to_whole_minute() {
    for addresses in FAMILIES {
        let mut lan = Lan::holding(addresses);
        lan.run_to(at(3_600_000));
        for address in addresses {
            let times = lan.times(Announced, *address);
            assert_eq!(times[..6], [0, 100, 300, 1000, 2000, 4000].map(at));
            let gaps: Vec<Duration> = times[5..].windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().all(|gap| (at(30_000)..=at(60_000)).contains(gap)), "{gaps:?}");
            assert!((60..=120).contains(&gaps.len()), "{gaps:?}");
            let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
            assert!(*longest - *shortest > at(15_000), "the times are spread: {gaps:?}");
            let frames = lan.sent.iter().filter(|sent| (sent.1, sent.2) == (Announced, *address)).count();
            assert_eq!(frames, 2 * times.len(), "each time in both forms");
        }
    }
}

#[test]
fn who_gave_an_address_away_hears_when_its_taker_speaks_for_it() {
    for address in FAMILIES[2].iter().copied() {
        let mut lan = Lan::new();
        lan.announcer.watch([address]);
        lan.hold(&[address], FOREVER);
        lan.run_to(at(500));
        lan.announcer.release(address);
        assert_eq!(lan.announcer.spoken_for(address), None, "what this node said itself is nobody else's word");
        assert_eq!(lan.receive(&claim(THEM, address)), Err(Ignored::NotHeld));
        assert_eq!(lan.announcer.spoken_for(address), Some(at(500)));
        lan.announcer.watch([]);
        assert_eq!(lan.announcer.spoken_for(address), None);
    }
}

#[test]
fn the_seed_alone_decides_the_jitter() {
    let times = |seed| {
        let mut lan = Lan::with(seed);
        lan.hold(FAMILIES[2], FOREVER);
        lan.run_to(at(600_000));
        lan.sent
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
}

#[test]
fn each_address_is_asked_about_after_a_second_and_then_every_half_to_whole_minute() {
    for addresses in FAMILIES {
        let mut lan = Lan::holding(addresses);
        lan.run_to(at(3_600_000));
        for address in addresses {
            let times = lan.times(Asked, *address);
            assert_eq!(times[0], at(1000));
            let mut gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.all(|gap| (at(30_000)..=at(60_000)).contains(&gap)), "{times:?}");
            assert!((60..=120).contains(&times.len()));
        }
    }
}

#[test]
fn a_link_that_flaps_begins_the_announcements_and_the_questions_anew() {
    let mut lan = Lan::holding(FAMILIES[2]);
    lan.run_to(at(100_000));
    lan.announcer.set_link(None, at(100_000));
    lan.forget();
    lan.run_to(at(200_000));
    assert_eq!((&lan.sent, &lan.events), (&vec![], &vec![]), "a link that is down carries nothing");
    lan.announcer.set_link(Some(link(US)), at(200_000));
    lan.run_to(at(205_000));
    for address in FAMILIES[2] {
        let expected = [200_000, 200_100, 200_300, 201_000, 202_000, 204_000].map(at);
        assert_eq!(lan.times(Announced, *address), expected);
        assert_eq!(lan.times(Asked, *address), [at(201_000)]);
    }
}

#[test]
fn a_mac_that_changes_begins_the_announcements_anew_and_speaks_for_itself() {
    let mut lan = Lan::holding(FAMILIES[2]);
    lan.run_to(at(100_000));
    lan.forget();
    let changed = Mac([2, 0, 0, 0, 0, 0xaa]);
    lan.announcer.set_link(Some(link(changed)), at(100_000));
    let frame = lan.announcer.poll_transmit(lan.now).unwrap();
    assert_eq!(Header::parse(&frame).unwrap().0.source, changed);
    lan.run_to(at(104_000));
    let times = lan.times(Announced, V4.into());
    assert_eq!(times, [100_000, 100_100, 100_300, 101_000, 102_000, 104_000].map(at));
    assert_eq!(lan.receive(&question(V4.into())), Ok(()));
    assert_eq!(lan.receive(&claim(changed, V4.into())), Err(Ignored::Own));
}

#[test]
fn a_late_wake_up_sends_one_announcement_and_not_all_that_were_missed() {
    let mut lan = Lan::holding(FAMILIES[0]);
    lan.forget();
    lan.now = at(1500);
    lan.announcer.handle_timeout(lan.now);
    lan.drain();
    lan.run_to(at(4000));
    assert_eq!(lan.times(Announced, V4.into()), [1500, 2000, 4000].map(at));
}

#[test]
fn who_slept_past_the_deadline_stays_silent_whatever_was_queued() {
    for addresses in FAMILIES {
        let mut lan = Lan::new();
        addresses.iter().for_each(|address| lan.announcer.hold(*address, at(550), lan.now));
        for address in addresses {
            assert_eq!(lan.announcer.receive(&question(*address), at(1)), Ok(()));
        }
        // Announcements and answers wait in the queue; the process is frozen here, and wakes at its deadline.
        lan.now = at(550);
        lan.drain();
        assert_eq!(lan.sent, []);
        for address in addresses {
            assert_eq!(lan.receive(&question(*address)), Err(Ignored::Expired));
            assert_eq!(lan.receive(&claim(THEM, *address)), Err(Ignored::Expired));
        }
        lan.run_to(at(600_000));
        assert_eq!((&lan.sent, &lan.events), (&vec![], &vec![]));
        assert_eq!(lan.announcer.poll_timeout(), None, "an address that has lapsed wakes nobody");
    }
}

#[test]
fn an_address_is_answered_for_up_to_the_last_moment_before_its_deadline() {
    let mut lan = Lan::new();
    lan.hold(FAMILIES[0], at(550));
    lan.now = at(550) - Duration::from_nanos(1);
    assert_eq!(lan.receive(&question(V4.into())), Ok(()));
    assert_eq!(lan.sent.last(), Some(&(lan.now, Answered, V4.into())));
}

#[test]
fn a_lease_that_is_renewed_all_the_time_is_announced_once() {
    let mut lan = Lan::new();
    for beat in 0..100 {
        lan.run_to(at(beat * 110));
        lan.hold(FAMILIES[2], at(beat * 110 + 550));
    }
    assert_eq!(lan.times(Announced, V4.into()), [0, 100, 300, 1000, 2000, 4000].map(at));
    assert_eq!(lan.times(Announced, V6.into()), [0, 100, 300, 1000, 2000, 4000].map(at));
}

#[test]
fn a_lease_that_lapsed_and_came_back_is_announced_anew() {
    let mut lan = Lan::new();
    lan.hold(FAMILIES[2], at(550));
    lan.run_to(at(5000));
    lan.forget();
    lan.hold(FAMILIES[2], FOREVER);
    lan.run_to(at(5300));
    assert_eq!(lan.times(Announced, V4.into()), [5000, 5100, 5300].map(at));
    assert_eq!(lan.times(Announced, V6.into()), [5000, 5100, 5300].map(at));
}

#[test]
fn a_lease_that_comes_back_right_after_a_freeze_is_announced_anew() {
    let mut lan = Lan::new();
    lan.hold(FAMILIES[2], at(550));
    lan.forget();
    // No timer ran in between: somebody else may have had the address.
    lan.now = at(1050);
    lan.hold(FAMILIES[2], FOREVER);
    lan.run_to(at(1150));
    assert_eq!(lan.times(Announced, V4.into()), [1050, 1150].map(at));
    assert_eq!(lan.times(Announced, V6.into()), [1050, 1150].map(at));
}

#[test]
fn what_waits_for_an_address_that_is_released_is_not_sent() {
    let mut lan = Lan::new();
    lan.announcer.hold(V4.into(), FOREVER, lan.now);
    assert_eq!(lan.announcer.receive(&question(V4.into()), lan.now), Ok(()));
    lan.announcer.release(V4.into());
    lan.run_to(at(600_000));
    assert_eq!(lan.sent, []);
}

#[test]
fn what_waits_when_the_link_goes_down_is_not_sent_when_it_is_up_again() {
    let mut lan = Lan::holding(FAMILIES[0]);
    lan.run_to(at(10_000));
    lan.forget();
    assert_eq!(lan.announcer.receive(&question(V4.into()), lan.now), Ok(()));
    lan.announcer.set_link(None, lan.now);
    lan.announcer.set_link(Some(link(US)), lan.now);
    lan.drain();
    assert!(lan.times(Answered, V4.into()).is_empty());
}

/// So many stations ask in turn, 20,000 times a second for two seconds; how many answers each got.
fn flood(lan: &mut Lan, address: IpAddr, stations: u16) -> Vec<u32> {
    let mut answered = vec![0; usize::from(stations)];
    for tick in 0..40_000_u64 {
        lan.now = at(10_000) + Duration::from_micros(tick * 50);
        let number = (tick % u64::from(stations)) as u16;
        let [high, low] = number.to_be_bytes();
        match lan.receive(&question_of(Mac([2, 0, 0, 1, high, low]), address)) {
            Ok(()) => answered[usize::from(number)] += 1,
            Err(Ignored::Flooded) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    answered
}

#[test]
fn a_flood_is_answered_a_thousand_times_a_second() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::holding(&[address]);
        lan.run_to(at(10_000));
        lan.forget();
        let answered: u32 = flood(&mut lan, address, 20).iter().sum();
        assert_eq!(answered, 2999, "a bucket of 1,000, and 1,000 a second for two seconds");
        assert_eq!(lan.sent.iter().filter(|sent| sent.1 == Answered).count(), 2999);
        lan.now += Duration::from_millis(5);
        assert_eq!(lan.receive(&question(address)), Ok(()), "afterwards it goes on");
    }
}

#[test]
fn who_asks_without_end_leaves_the_others_their_answers() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::holding(&[address]);
        lan.run_to(at(10_000));
        assert_eq!(flood(&mut lan, address, 1), [749], "a bucket of 250, and 250 a second for two seconds");
        assert_eq!(lan.receive(&question(address)), Ok(()), "another one is answered all the same");
    }
}

#[test]
fn who_invents_stations_leaves_those_that_were_there_their_answers() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::holding(&[address]);
        lan.run_to(at(10_000));
        assert_eq!(lan.receive(&question(address)), Ok(()));
        let answered: u32 = flood(&mut lan, address, 40_000).iter().sum();
        assert!(answered < 1100, "{answered}: those for whom there is no room share one budget");
        assert_eq!(lan.receive(&question(address)), Ok(()));
    }
}

#[test]
fn an_address_is_defended_at_once_but_once_in_ten_seconds_and_for_ever() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::holding(&[address]);
        lan.run_to(at(10_000));
        let mut defences = Vec::new();
        for tick in 0..600u64 {
            lan.run_to(at(10_000 + tick * 100));
            let announced = lan.announcer.counters().announcements;
            assert_eq!(lan.receive(&claim(THEM, address)), Ok(()));
            if lan.announcer.counters().announcements > announced {
                defences.push(lan.now);
            }
        }
        assert_eq!(defences, [10_000, 20_000, 30_000, 40_000, 50_000, 60_000].map(at));
    }
}

#[test]
fn a_conflict_is_told_at_once_and_every_minute_and_is_over_after_two_minutes_of_silence() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::holding(&[address]);
        for second in 10..=100 {
            lan.run_to(at(second * 1000));
            assert_eq!(lan.receive(&claim(THEM, address)), Ok(()));
        }
        lan.run_to(at(1_000_000));
        let conflict = Event::Conflict { address, mac: THEM, heard: Heard::Passive };
        let told: Vec<(u64, Event)> = lan.events.iter().map(|(at, event)| (at.as_secs(), *event)).collect();
        // What is heard within a second of a question counts as its answer.
        let told: Vec<(u64, Event)> = told.into_iter().map(|(at, event)| (at, passive(event))).collect();
        assert_eq!(
            told,
            [(10, conflict), (70, conflict), (130, conflict), (190, conflict), (220, Event::ConflictOver { address })]
        );
        lan.forget();
        assert_eq!(lan.receive(&claim(THEM, address)), Ok(()));
        assert_eq!(lan.events, [(at(1_000_000), conflict)], "it is told anew");
    }
}

fn passive(event: Event) -> Event {
    match event {
        Event::Conflict { address, mac, heard: _ } => Event::Conflict { address, mac, heard: Heard::Passive },
        other @ (Event::ConflictOver { .. } | Event::Answered { .. }) => other,
    }
}

#[test]
fn a_conflict_is_over_when_the_last_of_the_stations_is_quiet() {
    let mut lan = Lan::holding(FAMILIES[0]);
    lan.run_to(at(10_000));
    assert_eq!(lan.receive(&claim(THEM, V4.into())), Ok(()));
    lan.run_to(at(50_000));
    assert_eq!(lan.receive(&claim(Mac([2, 0, 0, 0, 0, 3]), V4.into())), Ok(()));
    lan.run_to(at(300_000));
    let over: Vec<Duration> = lan
        .events
        .iter()
        .filter(|told| told.1 == Event::ConflictOver { address: V4.into() })
        .map(|told| told.0)
        .collect();
    assert_eq!(over, [at(170_000)]);
}

#[test]
fn invented_stations_are_told_of_up_to_a_bound() {
    let mut lan = Lan::holding(FAMILIES[0]);
    lan.run_to(at(10_000));
    for number in 0..=255 {
        assert_eq!(lan.receive(&claim(Mac([2, 0, 0, 0, 1, number]), V4.into())), Ok(()));
    }
    assert_eq!(lan.events.len(), 8);
}

#[test]
fn an_answer_that_comes_long_after_the_question_was_not_asked_for() {
    let mut lan = Lan::holding(FAMILIES[0]);
    lan.run_to(at(1999));
    assert_eq!(lan.receive(&claim(THEM, V4.into())), Ok(()));
    lan.run_to(at(2000));
    assert_eq!(lan.receive(&claim(Mac([2, 0, 0, 0, 0, 3]), V4.into())), Ok(()));
    let heard: Vec<Heard> = lan.events.iter().filter_map(|(_, event)| heard(*event)).collect();
    assert_eq!(heard, [Heard::Active, Heard::Passive]);
}

fn heard(event: Event) -> Option<Heard> {
    match event {
        Event::Conflict { heard, .. } => Some(heard),
        Event::ConflictOver { .. } | Event::Answered { .. } => None,
    }
}

#[test]
fn a_probe_asks_three_times_and_ends_after_150_ms_also_without_a_link() {
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        let mut lan = Lan::new();
        lan.announcer.probe(address, lan.now);
        lan.run_to(at(10_000));
        assert_eq!(lan.times(Asked, address), [0, 40, 80].map(at));
        assert_eq!(lan.events, [(at(150), Event::Answered { address, mac: None })]);
        assert_eq!(lan.announcer.poll_timeout(), None);
    }
}

#[test]
fn probes_of_many_addresses_do_not_disturb_each_other() {
    let mut lan = Lan::new();
    let pool: Vec<Ipv4Addr> = (10..=250).map(|last| Ipv4Addr::new(192, 168, 178, last)).collect();
    pool.iter().for_each(|address| lan.announcer.probe((*address).into(), lan.now));
    assert_eq!(lan.announcer.addresses().len(), pool.len());
    lan.run_to(at(100));
    assert_eq!(lan.receive(&claim(THEM, V4.into())), Ok(()));
    lan.run_to(at(1000));
    assert_eq!(lan.sent.len(), 3 * pool.len());
    let answered: Vec<&(Duration, Event)> = lan.events.iter().filter(|(_, event)| is_answer(*event)).collect();
    assert_eq!(answered, [&(at(100), Event::Answered { address: V4.into(), mac: Some(THEM) })]);
    assert_eq!(lan.events.len(), pool.len());
}

fn is_answer(event: Event) -> bool {
    match event {
        Event::Answered { mac, .. } => mac.is_some(),
        Event::Conflict { .. } | Event::ConflictOver { .. } => false,
    }
}

#[test]
fn without_a_link_local_address_questions_come_from_nobody_and_are_known_when_they_come_back() {
    let mut lan = Lan::new();
    lan.announcer.set_link(Some(Link { link_local: None, ..link(US) }), lan.now);
    lan.announcer.hold(V6.into(), FOREVER, lan.now);
    while lan.announcer.poll_transmit(lan.now).is_some() {}
    lan.now = at(1000);
    lan.announcer.handle_timeout(lan.now);
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| lan.announcer.poll_transmit(at(1000))).collect();
    let mut frame = frames.into_iter().find(|frame| word(frame).0 == Asked).expect("a question");
    let packet = ndp::Packet::parse(&frame[14..]).unwrap();
    assert_eq!((packet.source, packet.destination), (Ipv6Addr::UNSPECIFIED, solicited_node(V6)));
    let Message::Solicitation(question) = packet.message else { panic!("{packet:?}") };
    assert!(question.nonce.is_some() && question.source_link.is_none());
    // An access point sends it back under its own address: RFC 7527 tells it from somebody else's.
    frame[6..12].copy_from_slice(&THEM.0);
    assert_eq!(lan.receive(&frame), Err(Ignored::Own));
    let others = Message::Solicitation(Solicitation { nonce: Some([9; 6]), ..question });
    lan.forget();
    assert_eq!(lan.receive(&ndp(THEM, Ipv6Addr::UNSPECIFIED, solicited_node(V6), others)), Ok(()));
    assert_eq!(lan.times(Announced, V6.into()), [at(1000)]);
}

#[test]
fn the_groups_of_what_is_held_and_what_may_be_held_are_to_be_joined() {
    let mut lan = Lan::holding(FAMILIES[2]);
    let group: Ipv6Addr = "ff02::1:ff00:10".parse().unwrap();
    assert_eq!(lan.announcer.groups(), BTreeSet::from([group]));
    lan.announcer.watch(["2001:db8::1:2:3", "fd00::10", "192.168.178.11"].map(|address| address.parse().unwrap()));
    let both = BTreeSet::from([group, "ff02::1:ff02:3".parse().unwrap()]);
    assert_eq!(lan.announcer.groups(), both);
    lan.announcer.release(V6.into());
    assert_eq!(lan.announcer.groups(), both, "it is still watched");
    lan.announcer.watch([]);
    assert_eq!(lan.announcer.groups(), BTreeSet::new());
}

#[test]
fn the_filter_is_made_of_all_that_a_frame_may_be_about() {
    let mut lan = Lan::holding(FAMILIES[2]);
    let (watched, probed): (IpAddr, IpAddr) = ("fd00::11".parse().unwrap(), "192.168.178.1".parse().unwrap());
    lan.announcer.watch([watched]);
    lan.announcer.probe(probed, lan.now);
    assert_eq!(lan.announcer.addresses(), BTreeSet::from([V4.into(), V6.into(), watched, probed]));
    lan.run_to(at(1000));
    assert_eq!(lan.announcer.addresses(), BTreeSet::from([V4.into(), V6.into(), watched]));
    assert!(bpf::filter(&lan.announcer.addresses()).len() < 50);
}

#[test]
fn what_was_sent_is_counted() {
    let mut lan = Lan::holding(FAMILIES[2]);
    lan.run_to(at(10_000));
    lan.receive(&question(V4.into())).unwrap();
    lan.receive(&question(V6.into())).unwrap();
    let counters = lan.announcer.counters();
    assert_eq!(counters, Counters { answers: 2, announcements: 24, questions: 2 });
}
