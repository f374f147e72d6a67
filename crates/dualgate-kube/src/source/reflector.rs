//! When a kind is listed, when it is watched, and when it is left in peace: one kind's conversation with the API server,
//! without sockets and clocks.
//!
//! A list is read page by page, then a watch goes on from the list's version, and the next watch from where that one
//! ended. A version is the server's word: it is sent back as it came, and never compared. Every failure costs a pause,
//! which doubles until things have been well for a while; so whatever a server does, it is asked a bounded number of times.
//!
//! A list begins anew only when it must: the server has forgotten the version (410), refuses it, or could not be reached
//! at all, so that it may be another one, with other versions. One request without an answer is not yet that: the
//! connection may have been closed while nobody used it.

use std::time::{Duration, Instant};

use dualgate_core::machine::random::Random;

/// How many objects a page of a list has.
pub(super) const PAGE: u32 = 500;

/// The first pause; half of it is left to chance, so that not all who lost a server come back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// After this time without a failure the next pause is the first one again.
const CALM: Duration = Duration::from_secs(30);

/// How long a page may stay silent: longer than the API server gives itself for an answer (60 s).
const PAGE_SILENCE: Duration = Duration::from_secs(65);
/// How long a page may take.
const PAGE_TIME: Duration = Duration::from_secs(300);

/// The shortest time that a watch is asked to last, and what chance adds to it: watches of several clients do not end
/// together.
const WATCH: Duration = Duration::from_secs(290);
/// See [`WATCH`].
const WATCH_SPREAD: Duration = Duration::from_secs(300);
/// What the server gets beyond that.
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// API servers send a bookmark each minute. A watch that brought one, and then nothing for three, is dead.
const BOOKMARK_SILENCE: Duration = Duration::from_secs(180);
/// A watch that ends before this was refused in a polite way.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// So many requests without any answer, and the server is not there.
const UNANSWERED: u32 = 2;
/// After so many watches that the server refused one after the other, the version is taken for the reason.
const REFUSED_WATCHES: u32 = 5;
/// So long a refusal lasts before it is believed: a server that has just started does not know its roles yet, and refuses what it
/// does not refuse a moment later.
const SURE: Duration = Duration::from_secs(5);

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page of the list; the first one, or what follows this token.
    Page {
        /// The server's word for where the page begins.
        after: Option<String>,
    },
    /// What happens after this version.
    Watch {
        /// The server's word for a moment.
        version: String,
        /// How long the server is to let it last.
        lasting: Duration,
    },
}

/// Why something that was asked came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What kind.
    pub why: Why,
    /// For people.
    pub text: String,
    /// How long the server wants to be left in peace.
    pub retry_after: Option<Duration>,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no connection.
    Unreachable,
    /// The connection ended too early, or was silent for too long.
    Cut,
    /// The server has forgotten the version (410).
    Gone,
    /// It has too much to do, or is broken: 429 and 5xx.
    Busy,
    /// It does not do this for us: 401, 403, 404.
    Refused(Refusal),
    /// Any other answer, and what is none of an API.
    Wrong,
}

/// How it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401: it does not know us.
    Unknown,
    /// 403: it does not let us.
    Forbidden,
    /// 404: it has no such kind.
    Absent,
}

impl Failure {
    pub(super) fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into(), retry_after: None }
    }
}

/// What a page was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// More follow.
    More,
    /// The last one: the list is complete.
    All,
}

/// How things are between a kind and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// Nothing has been answered yet.
    None,
    /// Well, since then.
    Well(Instant),
    /// Not, since then, and why lately.
    Lost(Instant, Failure),
}

/// What was asked, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Lists that were complete.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// What came to nothing.
    pub failures: u64,
    /// What watches brought, without bookmarks.
    pub events: u64,
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant },
    Listing { silent: Instant, end: Instant },
    Watching { since: Instant, silent: Instant, end: Instant },
}

/// One kind's conversation.
#[derive(Debug)]
pub(super) struct Reflector {
    state: State,
    /// Where a watch goes on; `None` is by a list.
    version: Option<String>,
    /// Where the list goes on.
    after: Option<String>,
    pauses: u32,
    refused_watches: u32,
    /// Requests in a row without any answer.
    unanswered: u32,
    random: Random,
    contact: Contact,
    /// The first and the last refusal since anything else came.
    refused: Option<(Instant, Instant)>,
    counters: Counters,
}

impl Reflector {
    /// Lists at once.
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            state: State::Waiting { until: now },
            version: None,
            after: None,
            pauses: 0,
            refused_watches: 0,
            unanswered: 0,
            random: Random::new(seed),
            contact: Contact::None,
            refused: None,
            counters: Counters::default(),
        }
    }

    pub(super) fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether it is refused, and was so when it was asked some time ago already.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some_and(|(first, last)| first + SURE <= last)
    }

    /// The kubeconfig was read again: it is asked at once if it is lost. That is so once in a while, so pauses go on growing.
    pub(super) fn renewed(&mut self, now: Instant) {
        if let (Contact::Lost(..), State::Waiting { until }) = (&self.contact, &mut self.state) {
            *until = now.min(*until);
        }
    }

    /// Another kind has found the server again, or is known to it again: it is asked at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        let could_help = |why| matches!(why, Why::Unreachable | Why::Refused(Refusal::Unknown));
        if matches!(&self.contact, Contact::Lost(_, failure) if could_help(failure.why))
            && let State::Waiting { until } = &mut self.state
        {
            (*until, self.pauses) = (now.min(*until), 0);
        }
    }

    /// What is to be asked now. What was asked before is over.
    pub(super) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        match self.state {
            State::Waiting { until } if until <= now => {}
            State::Waiting { .. } | State::Listing { .. } | State::Watching { .. } => return None,
        }
        self.unanswered += 1;
        let Some(version) = self.version.clone() else {
            self.state = State::Listing { silent: now + PAGE_SILENCE, end: now + PAGE_TIME };
            return Some(Ask::Page { after: self.after.clone() });
        };
        let lasting = Duration::from_secs((WATCH + self.random.below(WATCH_SPREAD)).as_secs());
        self.counters.watches += 1;
        let end = now + lasting + WATCH_GRACE;
        self.state = State::Watching { since: now, silent: now + PAGE_SILENCE, end };
        Some(Ask::Watch { version, lasting })
    }

    /// When something is to be done without being told.
    pub(super) fn poll_timeout(&self) -> Instant {
        match self.state {
            State::Waiting { until } => until,
            State::Listing { silent, end } | State::Watching { silent, end, .. } => silent.min(end),
        }
    }

    /// Gives up what is overdue.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { .. } => {}
            State::Listing { silent, end } | State::Watching { silent, end, .. } => {
                if silent.min(end) <= now {
                    self.handle_failure(Failure::new(Why::Cut, "it stayed silent for too long"), now);
                }
            }
        }
    }

    /// The server begins to answer.
    pub(super) fn handle_head(&mut self, now: Instant) {
        self.unanswered = 0;
        match &mut self.state {
            State::Waiting { .. } => {}
            State::Listing { silent, .. } => *silent = now + PAGE_SILENCE,
            // Whoever watches a quiet cluster waits for long.
            State::Watching { silent, end, .. } => {
                *silent = *end;
                self.well(now);
            }
        }
    }

    /// Something came.
    pub(super) fn handle_octets(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { .. } => {}
            State::Listing { silent, .. } => *silent = now + PAGE_SILENCE,
            // Until it has brought a bookmark, it may not know of them.
            State::Watching { silent, end, .. } if *silent == *end => {}
            State::Watching { silent, .. } => *silent = now + BOOKMARK_SILENCE,
        }
    }

    /// A page is there as a whole.
    pub(super) fn handle_page(&mut self, version: String, next: Option<String>, now: Instant) -> Listed {
        self.unanswered = 0;
        self.after = next.filter(|next| !next.is_empty());
        if self.after.is_none() {
            self.version = Some(version);
            self.counters.lists += 1;
        }
        self.state = State::Waiting { until: now };
        self.well(now);
        if self.after.is_some() { Listed::More } else { Listed::All }
    }

    /// Something happened, and this is the version now.
    pub(super) fn handle_event(&mut self, version: String) {
        self.counters.events += 1;
        self.refused_watches = 0;
        self.version = Some(version);
    }

    /// Nothing happened, and this is the version now.
    pub(super) fn handle_bookmark(&mut self, version: String, now: Instant) {
        self.refused_watches = 0;
        self.version = Some(version);
        if let State::Watching { silent, .. } = &mut self.state {
            *silent = now + BOOKMARK_SILENCE;
        }
    }

    /// The watch has ended as it should.
    pub(super) fn handle_end(&mut self, now: Instant) {
        match self.state {
            State::Watching { since, .. } if now < since + SHORT_WATCH => {
                self.handle_failure(Failure::new(Why::Cut, "the watch ended at once"), now);
            }
            State::Watching { .. } | State::Waiting { .. } => self.state = State::Waiting { until: now },
            State::Listing { .. } => self.handle_failure(Failure::new(Why::Cut, "the list ended in the middle"), now),
        }
    }

    /// What was asked came to nothing.
    pub(super) fn handle_failure(&mut self, failure: Failure, now: Instant) {
        self.counters.failures += 1;
        let is_watch = matches!(self.state, State::Watching { .. });
        match failure.why {
            Why::Unreachable | Why::Gone | Why::Wrong => self.list_anew(),
            Why::Cut if self.unanswered >= UNANSWERED => self.list_anew(),
            Why::Busy if is_watch => {
                self.unanswered = 0;
                self.refused_watches += 1;
                if self.refused_watches >= REFUSED_WATCHES {
                    self.list_anew();
                }
            }
            Why::Busy | Why::Refused(_) => self.unanswered = 0,
            Why::Cut => {}
        }
        if matches!(self.contact, Contact::Well(since) if since + CALM <= now) {
            self.pauses = 0;
        }
        self.refused = match failure.why {
            Why::Refused(Refusal::Forbidden | Refusal::Absent) => {
                Some((self.refused.map_or(now, |(first, _)| first), now))
            }
            Why::Refused(Refusal::Unknown) | Why::Unreachable | Why::Cut | Why::Gone | Why::Busy | Why::Wrong => None,
        };
        let longest = if self.refused.is_some() && !self.is_refused() { SURE / 2 } else { LONGEST_PAUSE };
        let pause = self.pause().min(longest).max(failure.retry_after.unwrap_or_default().min(LONGEST_ASKED));
        self.state = State::Waiting { until: now + pause };
        let since = match self.contact {
            Contact::Lost(since, _) => since,
            Contact::None | Contact::Well(_) => now,
        };
        self.contact = Contact::Lost(since, failure);
    }

    fn list_anew(&mut self) {
        (self.version, self.after, self.refused_watches) = (None, None, 0);
    }

    fn pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        pause / 2 + self.random.below(pause / 2)
    }

    fn well(&mut self, now: Instant) {
        self.refused = None;
        if !matches!(self.contact, Contact::Well(_)) {
            self.contact = Contact::Well(now);
        }
    }
}

#[cfg(test)]
mod tests;
