//! Which of an edge's addresses home dials.
//!
//! WireGuard itself never tries another endpoint: where one address of the edge is out of reach, the tunnel stays down
//! although the other one would do. This machine looks at what the tunnel sees of a peer and says when to dial which
//! candidate: the best one first, the next after [`STEP`] without a handshake, and the best one again once the path has died.

use std::net::SocketAddr;
use std::time::Duration;

/// How long a candidate may take to answer a handshake. WireGuard repeats one after 5 s; dialling begins one at once.
pub const STEP: Duration = Duration::from_secs(3);

/// How soon the same candidate is dialled again: the first packet may be lost, or come before the edge listens.
pub const AGAIN: Duration = Duration::from_secs(1);

/// A session that had no handshake for so long has died: a living one renews itself after 120 s, and a renewal may be
/// repeated (REKEY_AFTER_TIME, REKEY_TIMEOUT of WireGuard).
pub const STALE: Duration = Duration::from_secs(135);

/// What is sent without anything coming back for so long goes nowhere: a living peer answers data within 10 s, if only
/// with a keep-alive (KEEPALIVE_TIMEOUT of WireGuard).
pub const SILENT: Duration = Duration::from_secs(20);

/// So many octets may be sent without an answer: keep-alives of a minute, which nobody answers.
const UNANSWERED: u64 = 256;

/// How long a candidate is left alone by doubts: what speaks through the tunnel needs a moment, too.
pub const SETTLING: Duration = Duration::from_secs(10);

/// What the tunnel sees of a peer at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Since the last handshake; `None` is never.
    pub handshake: Option<Duration>,
    /// Octets that came, ever.
    pub received: u64,
    /// Octets that went, ever.
    pub sent: u64,
}

/// The way to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    candidates: Vec<SocketAddr>,
    /// The one that is dialled, and since when.
    at: Option<(usize, Duration)>,
    /// When it was dialled last.
    tried: Duration,
    /// What had come when it last changed, and when that was.
    heard: (u64, Duration),
    /// What had gone at that moment.
    sent: u64,
    /// Whether somebody before us had dialled it, and was answered.
    adopted: bool,
}

impl Dial {
    /// Nothing is dialled yet. `candidates` are in order, the best first.
    pub fn new(candidates: Vec<SocketAddr>) -> Self {
        Self { candidates, at: None, tried: Duration::ZERO, heard: (0, Duration::ZERO), sent: 0, adopted: false }
    }

    /// A session with this candidate stands already: it is not dialled again while it lives.
    pub fn adopt(mut self, endpoint: SocketAddr, now: Duration) -> Self {
        let number = self.candidates.iter().position(|candidate| *candidate == endpoint);
        (self.at, self.adopted) = (number.map(|number| (number, now)), number.is_some());
        self
    }

    /// The candidates.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// The one that is dialled.
    pub fn current(&self) -> Option<SocketAddr> {
        self.candidates.get(self.at?.0).copied()
    }

    /// Looks at the peer at `now`, on any clock that does not go back. What comes is to be dialled at once.
    pub fn look(&mut self, now: Duration, seen: Seen) -> Option<SocketAddr> {
        if seen.received != self.heard.0 {
            self.heard = (seen.received, now);
            self.sent = seen.sent;
        }
        let Some((number, since)) = self.at else { return self.dial(0, now) };
        let dialled_for = now.saturating_sub(since);
        let since_dialled = |age: Duration| age < dialled_for || self.adopted;
        let answered = seen.handshake.is_some_and(|age| since_dialled(age) && age < STALE);
        if answered && !self.is_silent(now, since, seen) {
            return None;
        }
        // A path that carried something and died is looked for from the best candidate on.
        let had_answered = seen.handshake.is_some_and(since_dialled);
        match (had_answered, dialled_for >= STEP) {
            (true, _) => self.dial(0, now),
            (false, true) => self.dial(number + 1, now),
            (false, false) if now.saturating_sub(self.tried) >= AGAIN => {
                self.tried = now;
                self.current()
            }
            (false, false) => None,
        }
    }

    /// Somebody who speaks through the tunnel gets no answer, although packets come: maybe they pass in one direction only.
    /// What comes is to be dialled at once.
    pub fn doubt(&mut self, now: Duration) -> Option<SocketAddr> {
        let (number, since) = self.at?;
        let settled = now.saturating_sub(since) >= SETTLING;
        if settled && self.candidates.len() > 1 { self.dial(number + 1, now) } else { None }
    }

    /// Whether more than keep-alives was sent since anything came, and long enough ago for an answer.
    fn is_silent(&self, now: Duration, dialled: Duration, seen: Seen) -> bool {
        seen.sent.saturating_sub(self.sent) > UNANSWERED && now.saturating_sub(self.heard.1.max(dialled)) >= SILENT
    }

    fn dial(&mut self, number: usize, now: Duration) -> Option<SocketAddr> {
        let number = number.checked_rem(self.candidates.len())?;
        (self.at, self.tried, self.adopted) = (Some((number, now)), now, false);
        self.candidates.get(number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6: &str = "[2001:db8:1::10]:56527";
    const V4: &str = "203.0.113.10:56527";

    /// A peer whose candidates answer or do not, on a virtual clock that ticks each second.
    struct Peer {
        dial: Dial,
        now: u64,
        reachable: Vec<SocketAddr>,
        endpoint: Option<SocketAddr>,
        handshake: Option<u64>,
        received: u64,
        sent: u64,
        dialled: Vec<(u64, SocketAddr)>,
    }

    impl Peer {
        fn new(reachable: &[&str]) -> Self {
            let candidates = [V6, V4].map(|text| text.parse().unwrap()).to_vec();
            Self {
                dial: Dial::new(candidates),
                now: 0,
                reachable: reachable.iter().map(|text| text.parse().unwrap()).collect(),
                endpoint: None,
                handshake: None,
                received: 0,
                sent: 0,
                dialled: Vec::new(),
            }
        }

        /// So many seconds with traffic: a working path shakes hands every 120 s and answers everything.
        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                let age = self.handshake.map(|at| Duration::from_secs(self.now - at));
                let seen = Seen { handshake: age, received: self.received, sent: self.sent };
                let dialled = self.dial.look(Duration::from_secs(self.now), seen);
                if let Some(endpoint) = dialled {
                    if self.endpoint != Some(endpoint) {
                        self.dialled.push((self.now, endpoint));
                    }
                    self.endpoint = Some(endpoint);
                }
                self.now += 1;
                self.sent += 148;
                let works = self.endpoint.is_some_and(|endpoint| self.reachable.contains(&endpoint));
                let due = dialled.is_some() || self.handshake.is_none_or(|at| self.now - at >= 120);
                if works && due {
                    self.handshake = Some(self.now);
                }
                self.received += u64::from(works);
            }
        }
    }

    #[test]
    fn a_path_that_works_is_dialled_once() {
        let mut peer = Peer::new(&[V6, V4]);
        peer.run(3600);
        assert_eq!(peer.dialled, [(0, V6.parse().unwrap())]);
    }

    #[test]
    fn the_next_candidate_is_dialled_when_the_best_does_not_answer() {
        let mut peer = Peer::new(&[V4]);
        peer.run(600);
        assert_eq!(peer.dialled, [(0, V6.parse().unwrap()), (3, V4.parse().unwrap())]);
    }

    #[test]
    fn nobody_answers_and_all_are_dialled_in_turn_for_ever() {
        let mut peer = Peer::new(&[]);
        peer.run(13);
        let turn: Vec<u64> = peer.dialled.iter().map(|(at, _)| *at).collect();
        assert_eq!(turn, [0, 3, 6, 9, 12]);
        peer.reachable = vec![V6.parse().unwrap()];
        peer.run(12);
        assert_eq!(peer.endpoint, Some(V6.parse().unwrap()));
        let count = peer.dialled.len();
        peer.run(1000);
        assert_eq!(peer.dialled.len(), count);
    }

    #[test]
    fn a_path_that_dies_under_traffic_is_left_within_half_a_minute() {
        let mut peer = Peer::new(&[V6, V4]);
        peer.run(200);
        peer.reachable = vec![V4.parse().unwrap()];
        peer.run(30);
        assert_eq!(peer.endpoint, Some(V4.parse().unwrap()), "{:?}", peer.dialled);
        peer.run(100);
        let (last, _) = peer.dialled.last().unwrap();
        assert!(*last < 230, "{:?}", peer.dialled);
    }

    #[test]
    fn a_silent_peer_to_whom_nothing_is_sent_is_left_alone_until_its_session_is_stale() {
        let mut dial = Dial::new(vec![V6.parse().unwrap()]);
        assert!(dial.look(Duration::ZERO, Seen::default()).is_some());
        let seen = |age| Seen { handshake: Some(Duration::from_secs(age)), received: 92, sent: 148 };
        assert_eq!(dial.look(Duration::from_secs(1), seen(0)), None);
        assert_eq!(dial.look(Duration::from_secs(60), seen(59)), None);
        assert!(dial.look(Duration::from_secs(137), seen(136)).is_some());
    }

    #[test]
    fn a_doubt_leads_to_the_next_candidate_but_not_at_once() {
        let mut dial = Dial::new([V6, V4].map(|text| text.parse().unwrap()).to_vec());
        assert_eq!(dial.doubt(Duration::from_secs(99)), None);
        dial.look(Duration::from_secs(100), Seen::default());
        assert_eq!(dial.doubt(Duration::from_secs(109)), None);
        assert_eq!(dial.doubt(Duration::from_secs(110)), Some(V4.parse().unwrap()));
        assert_eq!(dial.doubt(Duration::from_secs(111)), None);
        let mut only = Dial::new(vec![V6.parse().unwrap()]);
        only.look(Duration::ZERO, Seen::default());
        assert_eq!(only.doubt(Duration::from_secs(60)), None);
    }

    #[test]
    fn a_candidate_that_does_not_answer_at_once_is_dialled_again_before_the_next_one() {
        let mut dial = Dial::new([V6, V4].map(|text| text.parse().unwrap()).to_vec());
        let dialled: Vec<Option<SocketAddr>> =
            [0, 500, 1000, 1500, 2000, 3000].map(|at| dial.look(Duration::from_millis(at), Seen::default())).to_vec();
        let (v6, v4) = (Some(V6.parse().unwrap()), Some(V4.parse().unwrap()));
        assert_eq!(dialled, [v6, None, v6, None, v6, v4]);
    }

    #[test]
    fn without_candidates_nothing_is_dialled() {
        let mut dial = Dial::new(Vec::new());
        assert_eq!(dial.look(Duration::from_secs(9), Seen::default()), None);
    }

    #[test]
    fn a_session_that_a_predecessor_began_is_left_as_it_is_and_dialled_again_once_it_has_died() {
        let candidates: Vec<SocketAddr> = [V6, V4].map(|text| text.parse().unwrap()).to_vec();
        let mut dial = Dial::new(candidates.clone()).adopt(candidates[1], Duration::ZERO);
        let seen = |age| Seen { handshake: Some(Duration::from_secs(age)), received: 1, sent: 1 };
        assert_eq!(dial.look(Duration::from_secs(1), seen(60)), None);
        assert_eq!(dial.current(), Some(candidates[1]));
        assert_eq!(dial.look(Duration::from_secs(80), seen(139)), Some(candidates[0]), "it has died");
    }
}
