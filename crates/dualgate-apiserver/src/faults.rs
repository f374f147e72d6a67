//! What can go wrong with an API server, at a word.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::failure::Failure;
use crate::requests::Verb;
use crate::shared::Shared;

/// Switches faults on and off while the server runs.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

/// Answers that are given in place of real ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code: 429, 500, 503, …
    pub code: u16,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// Only requests that want this.
    pub verb: Option<Verb>,
    /// Only requests whose path has this in it; empty is in all.
    pub path: String,
    /// So many requests.
    pub times: usize,
}

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) reach: Reach,
    /// Counts up whenever all connections are to end.
    pub(crate) cuts: u64,
    pub(crate) held: Held,
    events_until_cut: Option<usize>,
    list_delay: Duration,
    refusals: Vec<Refusal>,
}

/// Whether somebody who connects is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    #[default]
    Up,
    Down,
}

/// Whether watches say what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Held {
    #[default]
    Free,
    Held,
}

/// Where the state is kept; everything that depends on it can wait for it to change.
#[derive(Debug, Default)]
pub(crate) struct FaultState(watch::Sender<State>);

impl Faults {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The server is away: connections are cut, and whoever connects is cut off at once.
    pub fn down(&self) {
        self.change(|state| {
            state.reach = Reach::Down;
            state.cuts += 1;
        });
    }

    /// The server is there again.
    pub fn up(&self) {
        self.change(|state| state.reach = Reach::Up);
    }

    /// Ends every connection, whatever is going on in it; the next ones are let in.
    pub fn cut_connections(&self) {
        self.change(|state| state.cuts += 1);
    }

    /// Cuts each watch off once it has said so many events since it began. A running one that said more ends at once.
    pub fn cut_watches_after(&self, events: usize) {
        self.change(|state| state.events_until_cut = Some(events));
    }

    /// Watches are open and say nothing, not even bookmarks, until they are released.
    pub fn hold_watches(&self) {
        self.change(|state| state.held = Held::Held);
    }

    /// Watches say what they did not say, and go on.
    pub fn release_watches(&self) {
        self.change(|state| state.held = Held::Free);
    }

    /// Answers the next requests that fit with a failure. Several refusals are used up in the order they were given.
    pub fn refuse(&self, refusal: Refusal) {
        self.change(|state| state.refusals.push(refusal));
    }

    /// Lists take so much longer.
    pub fn slow_lists(&self, delay: Duration) {
        self.change(|state| state.list_delay = delay);
    }

    /// Forgets the history: versions of before are answered with 410, also in watches that have not come further.
    pub fn compact(&self) {
        self.shared.change(|api| api.store.compact());
    }

    /// Nothing is wrong any more.
    pub fn clear(&self) {
        self.change(|state| *state = State { cuts: state.cuts, ..State::default() });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.faults.0.send_modify(change);
    }
}

impl Refusal {
    /// The next request, whatever it is.
    pub fn once(code: u16) -> Self {
        Self { code, retry_after: None, verb: None, path: String::new(), times: 1 }
    }

    fn fits(&self, verb: Verb, path: &str) -> bool {
        self.times > 0 && self.verb.is_none_or(|of| of == verb) && path.contains(&self.path)
    }
}

impl FaultState {
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// How many events a watch may still say that has said so many.
    pub(crate) fn events_left(&self, said: usize) -> Option<usize> {
        self.0.borrow().events_until_cut.map(|limit| limit.saturating_sub(said))
    }

    pub(crate) async fn delay(&self, verb: Verb, always: Duration) {
        let delay = always + if verb == Verb::List { self.0.borrow().list_delay } else { Duration::ZERO };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    pub(crate) fn next_answer(&self, verb: Verb, path: &str) -> Option<Failure> {
        let mut failure = None;
        self.0.send_if_modified(|state| {
            let fitting = state.refusals.iter_mut().find(|refusal| refusal.fits(verb, path));
            if let Some(refusal) = fitting {
                refusal.times -= 1;
                failure = Some(Failure::of_code(refusal.code, refusal.retry_after));
            }
            state.refusals.retain(|refusal| refusal.times > 0);
            false
        });
        failure
    }
}
