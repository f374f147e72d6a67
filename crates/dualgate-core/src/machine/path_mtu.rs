//! How large a packet may be on the path to one peer of the tunnel.
//!
//! WireGuard never learns it: its datagrams may be cut, where they are too large they are often dropped without a word,
//! and errors of ICMP are as often dropped, or forged. So packets of exact sizes are sent through the tunnel to a peer
//! that answers with as many octets, and what counts is what comes back (RFC 4821, RFC 8899): one answer tells of both
//! directions.
//!
//! **A loss is not narrowness.** Every probe is a pair: one of the size in question, and a small one. A size counts as
//! too large only after [`CERTAIN`] pairs of which the small one was answered alone. Where neither is answered, nothing is
//! learned, and it is tried again, less and less often.
//!
//! **What is found** stays, for each outer family, until it is disproved: [`Timing::watch`] after an answer the size in use
//! is looked at again, and [`Timing::widen`] after a search whether more passes. Another outer address begins anew.
//!
//! An end whose route is narrow cuts its large answers into pieces. Such an answer tells of one direction only, which is
//! enough: each end sees to what it sends.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::model::Family;

/// The least that a link of IPv6 takes (RFC 8200 5): nothing below it is looked for.
pub const FLOOR: u16 = 1280;
/// What always passes, if anything does.
pub const SMALL: u16 = 96;
/// Sizes that are tried are multiples of it: WireGuard fills up to it, so that those between are no different.
pub const STEP: u16 = 16;
/// So many losses while small packets pass make a size too large.
pub const CERTAIN: u32 = 8;
/// So many, once it is known that some size is too large.
pub const LIKELY: u32 = 3;
/// So many pairs without any answer, and the peer is said to give none.
const MUTE: u32 = 3;
/// Probes that are remembered.
const MOST_SENT: usize = 64;

/// When what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an answer may take until it counts as lost.
    pub answer: Duration,
    /// How long the size in use is believed.
    pub watch: Duration,
    /// How long a size is believed to be too large.
    pub widen: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { answer: Duration::from_secs(1), watch: Duration::from_secs(30), widen: Duration::from_secs(600) }
    }
}

/// A packet to be sent through the tunnel and answered by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// By it its answer is told from others.
    pub id: u16,
    /// Its whole size, with its IP header.
    pub octets: u16,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Unknown,
    /// The peer answers nothing at all, so that nothing is known of sizes.
    Unanswered,
    /// The whole MTU passes.
    Whole(u16),
    /// So many octets pass, and those of the MTU do not.
    Narrow(u16),
    /// Not even [`FLOOR`] passes.
    TooNarrow,
}

/// The path to one peer.
#[derive(Clone, Debug)]
pub struct PathMtu {
    most: u16,
    timing: Timing,
    /// By outer family.
    known: BTreeMap<Family, Verdict>,
    /// The peer's outer address, while it is there.
    at: Option<IpAddr>,
    step: Step,
    /// When the last search ended; `None` makes the next look a search.
    searched: Option<Duration>,
    next_id: u16,
}

#[derive(Clone, Debug)]
enum Step {
    /// Until then nothing is sent.
    Rest(Duration),
    /// A size is tried.
    Try(Aim, Attempt),
}

/// Why a size is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// It is the one in use.
    Watch,
    /// The largest that passes is looked for: `low` passes, `high` does not.
    Search { low: Option<u16>, high: Option<u16> },
}

/// The pairs of one size.
#[derive(Clone, Debug)]
struct Attempt {
    octets: u16,
    /// The latest pair; `None` before the first.
    pair: Option<Pair>,
    losses: u32,
    /// Pairs without any answer, one after the other.
    mute: u32,
    /// All that was sent: an answer that comes late counts as well.
    sent: VecDeque<u16>,
    passed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    small: u16,
    sent: Duration,
    answered: bool,
}

impl Attempt {
    fn new(octets: u16) -> Self {
        Self { octets, pair: None, losses: 0, mute: 0, sent: VecDeque::new(), passed: false }
    }
}

impl PathMtu {
    /// Of a tunnel with this MTU. Nothing is known yet.
    pub fn new(most: u16, timing: Timing) -> Self {
        Self {
            most,
            timing,
            known: BTreeMap::new(),
            at: None,
            step: Step::Rest(Duration::ZERO),
            searched: None,
            next_id: 0,
        }
    }

    /// The tunnel's MTU.
    pub fn most(&self) -> u16 {
        self.most
    }

    /// What is known of the path over an outer family.
    pub fn verdict(&self, outer: Family) -> Verdict {
        self.known.get(&outer).copied().unwrap_or_default()
    }

    /// The largest packet to send over an outer family.
    pub fn mtu(&self, outer: Family) -> u16 {
        match self.verdict(outer) {
            Verdict::Unknown | Verdict::Unanswered | Verdict::Whole(_) => self.most,
            Verdict::Narrow(octets) => octets,
            Verdict::TooNarrow => self.floor(),
        }
    }

    /// An answer of the right size came.
    pub fn answered(&mut self, id: u16) {
        let Step::Try(_, attempt) = &mut self.step else { return };
        attempt.passed |= attempt.sent.contains(&id);
        if let Some(pair) = attempt.pair.as_mut().filter(|pair| pair.small == id) {
            pair.answered = true;
        }
    }

    /// Something does not get through: what is known is looked at at once.
    pub fn doubt(&mut self, now: Duration) {
        if matches!(self.step, Step::Rest(_)) {
            (self.step, self.searched) = (Step::Rest(now), None);
        }
    }

    /// Looks at the path at `now`, on any clock that does not go back. `at` is where the peer is outside, while it is heard.
    /// What comes is to be sent at once.
    pub fn look(&mut self, now: Duration, at: Option<IpAddr>) -> Vec<Probe> {
        if at != self.at {
            (self.at, self.step, self.searched) = (at, Step::Rest(now), None);
        }
        let Some(outer) = at.map(Family::of) else { return Vec::new() };
        // Each turn ends a step or begins one; a search has no more sizes than this.
        for _ in 0..u16::BITS {
            match std::mem::replace(&mut self.step, Step::Rest(now)) {
                Step::Rest(until) if now < until => {
                    self.step = Step::Rest(until);
                    return Vec::new();
                }
                Step::Rest(_) => self.step = self.begin(outer),
                Step::Try(aim, attempt) if attempt.passed => self.step = self.passed(outer, aim, attempt.octets, now),
                Step::Try(aim, attempt) => {
                    if let Some(probes) = self.go_on(outer, aim, attempt, now) {
                        return probes;
                    }
                }
            }
        }
        Vec::new()
    }

    /// The least size of interest.
    fn floor(&self) -> u16 {
        FLOOR.min(self.most)
    }

    fn begin(&self, outer: Family) -> Step {
        match self.verdict(outer) {
            Verdict::Whole(octets) | Verdict::Narrow(octets) if self.searched.is_some() => {
                Step::Try(Aim::Watch, Attempt::new(octets))
            }
            Verdict::Whole(_) | Verdict::Narrow(_) | Verdict::Unknown | Verdict::Unanswered | Verdict::TooNarrow => {
                Step::Try(Aim::Search { low: None, high: None }, Attempt::new(self.most))
            }
        }
    }

    /// A size that has not passed until now: waits, tries it again, or gives it up (`None`).
    fn go_on(&mut self, outer: Family, aim: Aim, mut attempt: Attempt, now: Duration) -> Option<Vec<Probe>> {
        if let Some(pair) = attempt.pair {
            let patience = match pair.answered {
                true => self.timing.answer,
                false => (self.timing.answer * 2_u32.saturating_pow(attempt.mute.min(16))).min(self.timing.watch),
            };
            if now.saturating_sub(pair.sent) < patience {
                self.step = Step::Try(aim, attempt);
                return Some(Vec::new());
            }
            if pair.answered {
                (attempt.losses, attempt.mute) = (attempt.losses + 1, 0);
            } else {
                attempt.mute += 1;
                if attempt.mute >= MUTE && self.verdict(outer) == Verdict::Unknown {
                    self.known.insert(outer, Verdict::Unanswered);
                }
            }
            let enough = match aim {
                Aim::Watch | Aim::Search { high: None, .. } => CERTAIN,
                Aim::Search { high: Some(_), .. } => LIKELY,
            };
            if attempt.losses >= enough {
                self.step = self.failed(outer, aim, attempt.octets, now);
                return None;
            }
        }
        let (large, small) = (self.id(), self.id());
        attempt.pair = Some(Pair { small, sent: now, answered: false });
        if attempt.sent.len() == MOST_SENT {
            attempt.sent.pop_front();
        }
        attempt.sent.push_back(large);
        let probes = vec![Probe { id: large, octets: attempt.octets }, Probe { id: small, octets: SMALL }];
        self.step = Step::Try(aim, attempt);
        Some(probes)
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    fn passed(&mut self, outer: Family, aim: Aim, octets: u16, now: Duration) -> Step {
        match aim {
            Aim::Watch => {
                let due = self.searched.is_none_or(|at| now.saturating_sub(at) >= self.timing.widen);
                match due && octets < self.most {
                    true => self.search(outer, Some(octets), None, now),
                    false => Step::Rest(now + self.timing.watch),
                }
            }
            Aim::Search { high, .. } => self.search(outer, Some(octets), high, now),
        }
    }

    fn failed(&mut self, outer: Family, aim: Aim, octets: u16, now: Duration) -> Step {
        match aim {
            Aim::Watch => self.search(outer, None, Some(octets), now),
            Aim::Search { low, .. } => self.search(outer, low, Some(octets), now),
        }
    }

    /// The next size of a search, or its end.
    fn search(&mut self, outer: Family, low: Option<u16>, high: Option<u16>, now: Duration) -> Step {
        let found = match (low, high) {
            (Some(low), _) if low >= self.most => Verdict::Whole(self.most),
            (_, None) => return Self::attempt(low, high, self.most),
            (None, Some(high)) if high <= self.floor() => Verdict::TooNarrow,
            (None, Some(_)) => return Self::attempt(low, high, self.floor()),
            (Some(low), Some(high)) => match between(low, high) {
                Some(octets) => return Self::attempt(Some(low), Some(high), octets),
                None => Verdict::Narrow(low),
            },
        };
        self.known.insert(outer, found);
        self.searched = Some(now);
        Step::Rest(now + self.timing.watch)
    }

    fn attempt(low: Option<u16>, high: Option<u16>, octets: u16) -> Step {
        Step::Try(Aim::Search { low, high }, Attempt::new(octets))
    }
}

/// The middle one of the multiples of [`STEP`] between two sizes.
fn between(low: u16, high: u16) -> Option<u16> {
    let (first, behind) = (low / STEP + 1, high.div_ceil(STEP));
    (first < behind).then(|| (first + (behind - 1 - first) / 2) * STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 500;
    const V6: &str = "2001:db8:1::10";
    const V4: &str = "203.0.113.10";

    /// A network between two ends, on a virtual clock that ticks each half second.
    struct Net {
        path: PathMtu,
        /// In milliseconds.
        now: u64,
        at: Option<IpAddr>,
        /// The largest that passes, there and back.
        widest: u16,
        /// Of a thousand packets, there and back.
        lost: u32,
        /// Nothing passes.
        cut: bool,
        /// Nobody answers echoes.
        mute: bool,
        delay: u64,
        chance: u32,
        answers: Vec<(u64, u16)>,
        sent: Vec<(u64, u16)>,
        verdicts: Vec<(u64, Verdict)>,
    }

    impl Net {
        fn new(widest: u16) -> Self {
            Self {
                path: PathMtu::new(1392, Timing::default()),
                now: 0,
                at: Some(V6.parse().unwrap()),
                widest,
                lost: 0,
                cut: false,
                mute: false,
                delay: 30,
                chance: 1,
                answers: Vec::new(),
                sent: Vec::new(),
                verdicts: Vec::new(),
            }
        }

        fn is_lost(&mut self) -> bool {
            self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.chance >> 16) % 1000 < self.lost
        }

        fn run(&mut self, seconds: u64) {
            let end = self.now + seconds * 1000;
            while self.now < end {
                let now = self.now;
                let (due, later) = self.answers.iter().partition(|(at, _)| *at <= now);
                self.answers = later;
                let due: Vec<(u64, u16)> = due;
                due.into_iter().for_each(|(_, id)| self.path.answered(id));
                for probe in self.path.look(Duration::from_millis(now), self.at) {
                    self.sent.push((now, probe.octets));
                    let passes = !self.cut && !self.mute && probe.octets <= self.widest;
                    if passes && !self.is_lost() && !self.is_lost() {
                        self.answers.push((now + self.delay, probe.id));
                    }
                }
                let verdict = self.verdict();
                if self.verdicts.last().map(|(_, last)| *last) != Some(verdict) {
                    self.verdicts.push((now, verdict));
                }
                self.now += TICK;
            }
        }

        fn verdict(&self) -> Verdict {
            self.at.map_or(Verdict::Unknown, |at| self.path.verdict(Family::of(at)))
        }

        /// The verdicts in order.
        fn said(&self) -> Vec<Verdict> {
            self.verdicts.iter().map(|(_, verdict)| *verdict).collect()
        }
    }

    #[test]
    fn a_path_that_takes_all_costs_two_pairs_a_minute() {
        let mut net = Net::new(1500);
        net.run(3600);
        assert_eq!(net.said(), [Verdict::Unknown, Verdict::Whole(1392)]);
        let pairs = net.sent.len() / 2;
        assert!((118..=121).contains(&pairs), "{pairs}");
        assert!(net.sent.iter().all(|(_, octets)| [1392, SMALL].contains(octets)));
    }

    #[test]
    fn a_narrow_path_is_found_to_the_step_within_half_a_minute() {
        for widest in FLOOR..1392 {
            let mut net = Net::new(widest);
            net.run(30);
            assert_eq!(net.said(), [Verdict::Unknown, Verdict::Narrow(widest / STEP * STEP)], "{widest}");
        }
    }

    #[test]
    fn an_mtu_that_is_no_multiple_of_the_step_is_tried_as_it_is() {
        for (most, widest, expected) in [
            (1420, 1420, Verdict::Whole(1420)),
            (1420, 1419, Verdict::Narrow(1408)),
            (1281, 1280, Verdict::Narrow(1280)),
            (1280, 1300, Verdict::Whole(1280)),
            (1280, 1279, Verdict::TooNarrow),
            (1000, 1000, Verdict::Whole(1000)),
            (1000, 999, Verdict::TooNarrow),
        ] {
            let mut net = Net { path: PathMtu::new(most, Timing::default()), ..Net::new(widest) };
            net.run(60);
            assert_eq!(net.verdict(), expected, "{most} {widest}");
        }
    }

    #[test]
    fn less_than_ipv6_needs_is_said_and_the_mtu_stays_at_what_it_needs() {
        let mut net = Net::new(1240);
        net.run(60);
        assert_eq!(net.said(), [Verdict::Unknown, Verdict::TooNarrow]);
        assert_eq!(net.path.mtu(Family::V6), 1280);
        net.widest = 1400;
        net.run(90);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
    }

    #[test]
    fn a_path_that_becomes_narrow_is_noticed_within_a_minute_and_again_when_it_becomes_narrower() {
        let mut net = Net::new(1500);
        net.run(1000);
        net.widest = 1340;
        net.run(60);
        assert_eq!(net.verdict(), Verdict::Narrow(1328));
        net.widest = 1300;
        net.run(60);
        assert_eq!(net.verdict(), Verdict::Narrow(1296));
        assert_eq!(net.said().len(), 4);
    }

    #[test]
    fn a_path_that_widens_is_noticed_within_eleven_minutes_by_and_by_too() {
        let mut net = Net::new(1300);
        net.run(100);
        net.widest = 1350;
        net.run(700);
        assert_eq!(net.verdict(), Verdict::Narrow(1344));
        net.widest = 1500;
        net.run(700);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
        assert_eq!(net.said().len(), 4);
    }

    #[test]
    fn a_doubt_makes_a_rest_end() {
        let mut net = Net::new(1300);
        net.run(100);
        net.widest = 1500;
        net.path.doubt(Duration::from_millis(net.now));
        net.run(5);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
        net.widest = 1300;
        net.path.doubt(Duration::from_millis(net.now));
        net.run(30);
        assert_eq!(net.verdict(), Verdict::Narrow(1296));
    }

    #[test]
    fn losses_make_no_path_narrow() {
        for lost in [10, 50, 100, 200] {
            let mut net = Net { lost, chance: lost, ..Net::new(1500) };
            net.run(24 * 3600);
            assert_eq!(net.said(), [Verdict::Unknown, Verdict::Whole(1392)], "{lost} of 1000");
        }
    }

    #[test]
    fn losses_hide_no_narrow_path() {
        for lost in [10, 50, 100] {
            let mut net = Net { lost, chance: lost, ..Net::new(1340) };
            net.run(120);
            let Verdict::Narrow(octets) = net.verdict() else { panic!("{lost} of 1000: {:?}", net.said()) };
            assert!((FLOOR..=1328).contains(&octets), "{octets}");
        }
    }

    #[test]
    fn an_outage_makes_no_path_narrow_whenever_it_begins_and_ends() {
        for began in (0..150).step_by(7) {
            for took in [1, 2, 3, 5, 10, 30, 120] {
                let mut net = Net::new(1500);
                net.run(began);
                net.cut = true;
                net.run(took);
                net.cut = false;
                net.run(200);
                let narrow = net.said().iter().any(|said| matches!(said, Verdict::Narrow(_) | Verdict::TooNarrow));
                assert!(!narrow, "{began} {took} {:?}", net.verdicts);
                assert_eq!(net.verdict(), Verdict::Whole(1392), "{began} {took}");
            }
        }
    }

    #[test]
    fn a_line_that_is_there_and_away_in_turn_is_not_narrow() {
        let mut net = Net::new(1500);
        for _ in 0..1000 {
            net.cut = !net.cut;
            net.run(3);
        }
        let narrow = net.said().iter().any(|said| matches!(said, Verdict::Narrow(_) | Verdict::TooNarrow));
        assert!(!narrow, "{:?}", net.verdicts);
    }

    #[test]
    fn an_outage_during_a_search_only_delays_it() {
        for began in 0..15 {
            let mut net = Net::new(1340);
            net.run(began);
            net.cut = true;
            net.run(20);
            net.cut = false;
            net.run(120);
            assert_eq!(net.verdict(), Verdict::Narrow(1328), "{began}");
        }
    }

    #[test]
    fn answers_that_take_longer_than_expected_count_all_the_same() {
        for delay in [900, 1000, 1800, 2500] {
            let mut net = Net { delay, ..Net::new(1500) };
            net.run(600);
            assert!(!net.said().iter().any(|said| matches!(said, Verdict::Narrow(_))), "{delay}: {:?}", net.verdicts);
            assert_eq!(net.verdict(), Verdict::Whole(1392), "{delay}");
        }
    }

    #[test]
    fn a_peer_that_answers_nothing_is_asked_less_and_less_often() {
        let mut net = Net { mute: true, ..Net::new(1500) };
        net.run(3600);
        assert_eq!(net.said(), [Verdict::Unknown, Verdict::Unanswered]);
        assert_eq!(net.path.mtu(Family::V6), 1392);
        assert!(net.sent.len() / 2 < 130, "{}", net.sent.len());
        net.mute = false;
        net.run(31);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
    }

    #[test]
    fn each_outer_family_has_a_verdict_of_its_own_which_is_kept() {
        let mut net = Net::new(1320);
        net.run(60);
        assert_eq!(net.verdict(), Verdict::Narrow(1312));
        (net.at, net.widest) = (Some(V4.parse().unwrap()), 1500);
        assert_eq!(net.verdict(), Verdict::Unknown);
        net.run(5);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
        (net.at, net.widest) = (Some(V6.parse().unwrap()), 1320);
        net.run(1);
        assert_eq!((net.verdict(), net.path.mtu(Family::V6)), (Verdict::Narrow(1312), 1312));
        net.run(60);
        assert_eq!(net.verdict(), Verdict::Narrow(1312));
        // It is looked at at once.
        (net.at, net.widest) = (Some("2001:db8:2::10".parse().unwrap()), 1500);
        net.run(5);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
    }

    #[test]
    fn an_answer_over_the_path_before_tells_nothing_of_the_next_one() {
        let mut net = Net { delay: 1500, ..Net::new(1500) };
        net.run(1);
        assert!(!net.answers.is_empty());
        (net.at, net.widest) = (Some(V4.parse().unwrap()), 1300);
        net.run(60);
        assert_eq!(net.verdict(), Verdict::Narrow(1296));
    }

    #[test]
    fn nothing_is_sent_to_a_peer_that_is_away_and_at_once_when_it_is_back() {
        let mut net = Net { at: None, ..Net::new(1500) };
        net.run(600);
        assert!(net.sent.is_empty());
        net.at = Some(V6.parse().unwrap());
        net.run(2);
        assert_eq!(net.verdict(), Verdict::Whole(1392));
    }

    #[test]
    fn a_peer_is_never_asked_more_often_than_its_firewall_allows() {
        for widest in [1200, 1290, 1310, 1340, 1500] {
            let mut net = Net::new(widest);
            net.run(120);
            for (from, _) in &net.sent {
                let second = net.sent.iter().filter(|(at, _)| (*from..from + 1000).contains(at)).count();
                assert!(second <= 4, "{widest}: {second} in a second");
            }
        }
    }

    #[test]
    fn middles_are_multiples_strictly_between() {
        assert_eq!(between(1280, 1392), Some(1328));
        assert_eq!(between(1280, 1296), None);
        assert_eq!(between(1280, 1297), Some(1296));
        assert_eq!(between(1280, 1281), None);
        assert_eq!(between(1296, 1328), Some(1312));
    }
}
