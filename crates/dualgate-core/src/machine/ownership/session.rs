//! Who is at the other end, and whether a datagram is of this conversation.
//!
//! A session is a pair of nonces, one of each side. Either side sends the nonce that it chose and the one that it heard;
//! a datagram counts only if both are those of the session and its counter is fresh. A session begins with proof: who
//! hears of a nonce that it does not know answers with a *challenge*, a nonce that it never used before, and believes
//! whoever repeats it. So a recorded datagram of any age, of an earlier process of either side as well, proves nothing.
//!
//! ```text
//! a: my nonce is 5            ->
//!                             <-  b: my nonce is 9, yours 5       a knows b: it repeated 5
//! a: my nonce is 5, yours 9   ->                                  b knows a: it repeated 9
//! ```

use std::time::Duration;

use super::message::Header;

/// The other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// What whoever is there now has to repeat to be believed.
    challenge: u64,
    session: Option<Session>,
    /// Of datagrams to it, over all sessions.
    counter: u64,
    /// When it became a member here.
    pub since: Duration,
    /// When it was last heard in a session.
    pub heard: Option<Duration>,
    /// Of its process, in the last session.
    incarnation: Option<u64>,
    /// From a request to its answer, the last time.
    pub round_trip: Option<Duration>,
    /// It said that it has just started, until then.
    pub starting_until: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Session {
    mine: u64,
    theirs: u64,
    /// The highest counter that came, and which of the 128 up to it.
    newest: u64,
    seen: u128,
}

/// What a datagram is to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Fresh, of the session.
    Fresh,
    /// Fresh, and the first of a session; `restarted`: the other process is not the one of the session before.
    First { restarted: bool },
    /// Not of the session: its sender is to be challenged, with this nonce of its repeated.
    Challenge(u64),
    /// Came before, or is too old to tell.
    Replayed,
    /// Of a session that has ended, while another is alive.
    Stale,
}

impl Peer {
    pub fn new(challenge: u64, now: Duration) -> Self {
        Self {
            challenge,
            session: None,
            counter: 0,
            since: now,
            heard: None,
            incarnation: None,
            round_trip: None,
            starting_until: None,
        }
    }

    /// Whether there is a session: it was heard within the time that sessions last.
    pub fn is_alive(&self) -> bool {
        self.session.is_some()
    }

    /// When a session that lasts `lasts` after the last word is over.
    pub fn silent_at(&self, lasts: Duration) -> Option<Duration> {
        self.is_alive().then(|| self.heard.unwrap_or(self.since) + lasts)
    }

    /// The nonces of the next datagram to it in the session, and its counter.
    pub fn next(&mut self) -> Option<(u64, u64, u64)> {
        let session = self.session.as_ref()?;
        self.counter += 1;
        Some((session.mine, session.theirs, self.counter))
    }

    /// The same, of a datagram that asks for a session.
    pub fn next_challenge(&mut self) -> (u64, u64) {
        self.counter += 1;
        (self.challenge, self.counter)
    }

    /// What orders the requests of one session.
    pub fn session_of(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.theirs)
    }

    /// The other side was silent for too long.
    pub fn end(&mut self) {
        self.session = None;
        self.starting_until = None;
    }

    /// A datagram has come. `fresh` is a nonce that was never used, `quiet` how long a living session is silent at most.
    pub fn arrive(&mut self, header: &Header, fresh: u64, quiet: Duration, now: Duration) -> Arrival {
        if let Some(session) = &mut self.session
            && session.theirs == header.mine
            && session.mine == header.yours
        {
            if !session.accept(header.counter) {
                return Arrival::Replayed;
            }
            self.heard = Some(now);
            return Arrival::Fresh;
        }
        if header.yours == self.challenge {
            let restarted = self.incarnation.is_some_and(|incarnation| incarnation != header.incarnation);
            let session = Session { mine: self.challenge, theirs: header.mine, newest: header.counter, seen: 1 };
            self.session = Some(session);
            self.challenge = fresh;
            self.incarnation = Some(header.incarnation);
            (self.heard, self.starting_until) = (Some(now), None);
            return Arrival::First { restarted };
        }
        // Whoever knows no nonce has just started, or a recording of it has come: a challenge tells. Anything else is
        // worth a challenge only if the session seems to be over, or else each recording would end a session.
        let is_quiet = self.session.is_none() || self.heard.is_none_or(|heard| now.saturating_sub(heard) >= quiet);
        if header.yours == 0 || is_quiet { Arrival::Challenge(header.mine) } else { Arrival::Stale }
    }
}

impl Session {
    fn accept(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            let by = counter - self.newest;
            self.seen = if by < 128 { self.seen << by } else { 0 };
            (self.newest, self.seen) = (counter, self.seen | 1);
            return true;
        }
        let age = self.newest - counter;
        if age >= 128 || self.seen >> age & 1 == 1 {
            return false;
        }
        self.seen |= 1 << age;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;

    const QUIET: Duration = Duration::from_millis(165);

    fn header(mine: u64, yours: u64, counter: u64) -> Header {
        let sender = NodeName::new("a");
        Header { sender, incarnation: 7, mine, yours, counter, sent: Duration::ZERO, voters: Vec::new() }
    }

    fn at(peer: &mut Peer, header: &Header, millis: u64) -> Arrival {
        peer.arrive(header, 1_000 + header.counter, QUIET, Duration::from_millis(millis))
    }

    #[test]
    fn a_session_begins_when_the_challenge_is_repeated() {
        let mut peer = Peer::new(9, Duration::ZERO);
        assert_eq!(at(&mut peer, &header(5, 0, 1), 0), Arrival::Challenge(5));
        assert_eq!(at(&mut peer, &header(5, 8, 2), 0), Arrival::Challenge(5));
        assert_eq!(at(&mut peer, &header(5, 9, 3), 0), Arrival::First { restarted: false });
        assert_eq!(peer.next(), Some((9, 5, 1)));
    }

    #[test]
    fn each_datagram_counts_once_in_any_order() {
        let mut peer = Peer::new(9, Duration::ZERO);
        at(&mut peer, &header(5, 9, 3), 0);
        let arrivals: Vec<Arrival> =
            [3, 5, 4, 4, 300, 299, 5, 172].map(|counter| at(&mut peer, &header(5, 9, counter), 1)).to_vec();
        let (fresh, again) = (Arrival::Fresh, Arrival::Replayed);
        assert_eq!(arrivals, [again, fresh, fresh, again, fresh, fresh, again, again]);
    }

    #[test]
    fn a_recording_of_an_earlier_session_ends_none() {
        let mut peer = Peer::new(9, Duration::ZERO);
        at(&mut peer, &header(5, 9, 1), 0);
        let fresh = peer.challenge;
        assert_eq!(at(&mut peer, &header(6, fresh, 1), 10), Arrival::First { restarted: false });
        assert_eq!(at(&mut peer, &header(5, 9, 1), 20), Arrival::Stale);
        assert_eq!(at(&mut peer, &header(5, 9, 2), 20), Arrival::Stale);
        assert_eq!(at(&mut peer, &header(4, 0, 1), 20), Arrival::Challenge(4));
        assert_eq!(peer.session_of(), 6);
    }
}
