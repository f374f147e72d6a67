//! What one member asks for and owns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::Verdict;
use super::message::{Part, Refusal};
use super::moves::Moving;
use super::session::Peer;
use super::{Event, Notice, Ownership, Resource, Wish};
use crate::model::NodeName;

/// A request that is given up and repeated in the same microsecond is not told apart from the one before.
const TICK: Duration = Duration::from_micros(1);

/// One resource, as its claimant sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    is_wished: bool,
    /// Since when.
    wished_since: Duration,
    pub candidates: Vec<NodeName>,
    is_ready: bool,
    is_candidate: bool,
    pub stage: Stage,
    /// Until when each voter's promise counts, on our clock.
    votes: BTreeMap<NodeName, Duration>,
    /// Until when the witness counts, where there are two voters.
    pub witness: Duration,
    /// Answers to requests that were sent before do not count: it was given up since.
    counts_from: Duration,
    /// Not asked for before.
    not_before: Duration,
    /// Its owner moves it here.
    taking: Option<NodeName>,
    /// It was moved away, and nobody said yet that it has come.
    pub given: Option<Duration>,
    pub moving: Option<Moving>,
    /// Draining: nobody takes it; asked again then.
    pub stays_until: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// Two voters: the caller asks on the wire since then.
    Fencing(Duration),
    /// Asked for since `since`, and again at `again`.
    Asking { since: Duration, again: Duration },
    /// Owned, until then.
    Owning(Duration),
}

/// How a resource is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ask,
    Fence,
}

impl Claim {
    pub fn wish(&mut self, wish: Wish, me: &NodeName, now: Duration) {
        let is_candidate = wish.candidates.contains(me);
        let was_fit = self.is_fit();
        if !self.is_wished {
            self.wished_since = now;
        }
        (self.is_wished, self.is_ready, self.is_candidate) = (true, wish.ready, is_candidate);
        self.candidates = wish.candidates;
        if self.is_fit() && !was_fit {
            self.not_before = self.not_before.max(now);
        }
    }

    fn unwish(&mut self) {
        (self.is_wished, self.is_ready) = (false, false);
    }

    /// Whether this node could own it.
    pub fn is_fit(&self) -> bool {
        self.is_wished && self.is_ready && self.is_candidate
    }

    pub fn is_owning(&self) -> bool {
        matches!(self.stage, Stage::Owning(_))
    }

    pub fn is_asking(&self) -> bool {
        matches!(self.stage, Stage::Asking { .. })
    }

    pub fn is_active(&self) -> bool {
        self.is_asking() || self.is_owning()
    }

    pub fn owned_until(&self) -> Option<Duration> {
        match self.stage {
            Stage::Owning(until) => Some(until),
            Stage::Idle | Stage::Fencing(_) | Stage::Asking { .. } => None,
        }
    }

    /// Whether nobody wishes it any more, and no answer of before can come.
    pub fn is_forgotten(&self, before: Duration) -> bool {
        !self.is_wished && self.stage == Stage::Idle && self.counts_from < before
    }
}

impl Ownership {
    /// Looks at one resource: has its time come?
    pub(super) fn look_at(&mut self, resource: Resource, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        let patience = self.timing.reserve + self.timing.lease;
        claim.given.take_if(|given| *given + patience <= now);
        match claim.stage {
            Stage::Owning(until) => {
                self.wake_at(until);
                self.look_at_move(resource, now);
            }
            Stage::Fencing(asked) => self.go_on_fencing(resource, asked, now),
            Stage::Asking { since, again } => self.go_on_asking(resource, since, again, now),
            Stage::Idle => {}
        }
        if self.claims.get(&resource).is_some_and(|claim| claim.stage == Stage::Idle) {
            self.look_whether_to_ask(resource, now);
        }
    }

    fn go_on_fencing(&mut self, resource: Resource, asked: Duration, now: Duration) {
        let over = asked + self.timing.fence * 2;
        let is_heard = self.other().and_then(|other| self.peers.get(other)?.heard).is_some_and(|heard| asked <= heard);
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        if is_heard || over <= now {
            claim.stage = Stage::Idle;
        } else {
            self.wake_at(over);
        }
    }

    fn go_on_asking(&mut self, resource: Resource, since: Duration, again: Duration, now: Duration) {
        let over = since + self.timing.lease * 2;
        if over <= now || (self.quorum_since.is_none() && self.other().is_some()) {
            let rank = self.claims.get(&resource).map_or(0, |claim| self.rank(claim)) as u32;
            let wait = self.timing.stagger * (1 + rank) + self.random.below(self.timing.stagger * 3);
            self.withdraw(resource, now + wait, now);
        } else if again <= now {
            self.ask(resource, now);
        } else {
            self.wake_at(again.min(over));
        }
    }

    fn look_whether_to_ask(&mut self, resource: Resource, now: Duration) {
        let Some((due, way)) = self.claims.get(&resource).and_then(|claim| self.due(resource, claim, now)) else {
            return;
        };
        if due > now {
            self.wake_at(due);
            return;
        }
        match way {
            Way::Ask => self.begin_asking(resource, None, now),
            Way::Fence => {
                self.claims.entry(resource).and_modify(|claim| claim.stage = Stage::Fencing(now));
                self.wake_at(now + self.timing.fence * 2);
                self.events.push_back(Event::Fence(resource));
            }
        }
    }

    /// When it is to be asked for, unless something else happens.
    fn due(&self, resource: Resource, claim: &Claim, now: Duration) -> Option<(Duration, Way)> {
        if !claim.is_fit() || (self.draining && claim.given.is_none()) {
            return None;
        }
        let (free, is_reserved) = self.voter.free_for(&self.me, resource);
        let after_the_giver = if is_reserved && claim.given.is_none() { self.timing.stagger } else { Duration::ZERO };
        let from = claim.not_before.max(free + after_the_giver);
        if let Some(silent) = self.silent_since(now) {
            self.witness.filter(|until| now < *until)?;
            let is_known = self.other().and_then(|other| self.peers.get(other)?.heard).is_some();
            let waits = self.is_higher_of_two() && !is_known;
            let head_start = if waits { self.timing.lease } else { Duration::ZERO };
            let due = from.max(silent + self.timing.lease).max(self.voter.silent_until) + head_start;
            // The question takes a while, and is over when it may be taken.
            return Some((due.saturating_sub(self.timing.fence), Way::Fence));
        }
        let from = from.max(self.quorum_since?);
        Some(match self.rank(claim) as u32 {
            0 => (from, Way::Ask),
            rank => (from.max(claim.wished_since + self.timing.news()) + self.timing.stagger * rank, Way::Ask),
        })
    }

    /// Two members: since when the other one is not heard, if it should have been.
    fn silent_since(&self, now: Duration) -> Option<Duration> {
        let peer = self.peers.get(self.other()?)?;
        let heard = peer.heard.unwrap_or(peer.since);
        (!peer.is_alive() || now.saturating_sub(heard) >= self.timing.beat * 2).then_some(heard)
    }

    fn is_higher_of_two(&self) -> bool {
        self.other().is_some_and(|other| *other < self.me)
    }

    /// How many better candidates are alive.
    fn rank(&self, claim: &Claim) -> usize {
        if claim.given.is_some() {
            return 0;
        }
        let better = claim.candidates.iter().take_while(|name| **name != self.me);
        better.filter(|name| self.peers.get(*name).is_some_and(Peer::is_alive)).count()
    }

    /// Asks for a resource; `from`: its owner moves it here.
    pub(super) fn begin_asking(&mut self, resource: Resource, from: Option<NodeName>, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        claim.stage = Stage::Asking { since: now, again: now };
        claim.taking = from;
        self.notices.remove(&resource);
        self.ask(resource, now);
    }

    fn ask(&mut self, resource: Resource, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        let again = now + if claim.taking.is_some() { self.timing.stagger / 2 } else { self.timing.beat };
        if let Stage::Asking { again: at, .. } = &mut claim.stage {
            *at = again;
        }
        self.wake_at(again);
        self.renew(resource, now);
        let still = self.claims.get(&resource).is_some_and(Claim::is_asking);
        if still {
            self.say_to_all(&Part::Claim { resource, owning: false });
        }
    }

    /// Counts the votes that need no word: our own, and the witness's.
    pub(super) fn renew(&mut self, resource: Resource, now: Duration) {
        let order = self.own_order();
        let is_quiet =
            self.other().and_then(|other| self.peers.get(other)).is_some_and(|peer| self.is_quiet(peer, now));
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        let until = now + self.timing.lease;
        let (owning, lasts) = (claim.is_owning(), self.timing.promise());
        if self.voter.claim(&self.me, resource, owning, order, lasts, now) == Verdict::Granted {
            claim.votes.insert(self.me.clone(), until);
        }
        if let Some(witness) = self.witness.filter(|witness| owning && is_quiet && now < *witness) {
            claim.witness = witness.min(now + self.timing.by_witness());
        }
        self.count(resource, now);
    }

    /// Whether an owner may count the witness instead of the other one of two: it has not answered lately, or has just
    /// started and cannot.
    fn is_quiet(&self, peer: &Peer, now: Duration) -> bool {
        let heard = peer.heard.unwrap_or(Duration::ZERO);
        now.saturating_sub(heard) >= self.timing.beat * 3 || peer.starting_until.is_some_and(|until| now < until)
    }

    /// Whether the votes are a majority, and until when.
    fn count(&mut self, resource: Resource, now: Duration) {
        let needed = self.majority();
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        let mut votes: Vec<Duration> = self.members.iter().filter_map(|name| claim.votes.get(name)).copied().collect();
        if self.members.len() == 2 {
            votes.push(claim.witness);
            // Whom we promised it to, before we started, is only the other one, and that one has promised it to us.
            let theirs = claim.votes.iter().find(|(name, _)| **name != self.me).map(|(_, until)| *until);
            votes.extend(theirs.filter(|_| now < self.voter.silent_until && !claim.votes.contains_key(&self.me)));
        }
        votes.sort_unstable_by(|a, b| b.cmp(a));
        let Some(until) = votes.get(needed - 1).copied().filter(|until| now < *until) else { return };
        match claim.stage {
            Stage::Asking { .. } => self.win(resource, until, now),
            Stage::Owning(before) => claim.stage = Stage::Owning(before.max(until)),
            Stage::Idle | Stage::Fencing(_) => {}
        }
    }

    fn win(&mut self, resource: Resource, until: Duration, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        claim.stage = Stage::Owning(until);
        (claim.given, claim.stays_until, claim.moving) = (None, None, None);
        let from = claim.taking.take();
        self.lapses = self.lapses.min(until);
        self.wake_at(until);
        // Its own voter is to know that it is owned, as the others are.
        let (order, lasts) = (self.own_order(), self.timing.promise());
        self.voter.claim(&self.me, resource, true, order, lasts, now);
        self.say_to_all(&Part::Claim { resource, owning: true });
        self.tell_acquired(resource, from, now);
    }

    /// A voter has promised it, answering what was sent at `sent`.
    pub(super) fn granted(&mut self, from: &NodeName, resource: Resource, sent: Duration, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        if !claim.is_active() || sent < claim.counts_from {
            return;
        }
        let until = sent + self.timing.lease;
        let vote = claim.votes.entry(from.clone()).or_default();
        *vote = until.max(*vote);
        self.count(resource, now);
    }

    /// A voter has not.
    pub(super) fn refused(
        &mut self,
        from: &NodeName,
        resource: Resource,
        why: Refusal,
        free_in: Duration,
        sent: Duration,
        now: Duration,
    ) {
        let free = now + free_in.min(self.timing.promise());
        if let (Refusal::Starting, Some(peer)) = (&why, self.peers.get_mut(from)) {
            peer.starting_until = Some(free);
        }
        let Some(claim) = self.claims.get(&resource) else { return };
        let Stage::Asking { again, .. } = claim.stage else { return };
        if sent < claim.counts_from {
            return;
        }
        let is_taking = claim.taking.is_some();
        match why {
            // What was released is on its way to that voter, and whoever else asks has lost.
            Refusal::Owned(_) | Refusal::Claimed(_) | Refusal::Reserved(_) if is_taking => {}
            Refusal::Owned(_) | Refusal::Reserved(_) => self.withdraw(resource, free, now),
            Refusal::Claimed(rival) if self.is_better(claim, &rival) => {
                self.ask_again_at(resource, again.min(now + self.timing.stagger));
            }
            Refusal::Claimed(_) => self.withdraw(resource, now + self.timing.stagger * 2, now),
            Refusal::Starting if now < self.voter.silent_until => {
                self.withdraw(resource, free.max(self.voter.silent_until), now);
            }
            Refusal::Starting => self.ask_again_at(resource, again.min(free)),
            Refusal::Unable => {}
        }
    }

    pub(super) fn ask_again_at(&mut self, resource: Resource, at: Duration) {
        let claim = self.claims.get_mut(&resource);
        if let Some(Claim { stage: Stage::Asking { again, .. }, .. }) = claim {
            *again = at;
        }
        self.wake_at(at);
    }

    /// Of two who ask, the better candidate stays.
    fn is_better(&self, claim: &Claim, rival: &NodeName) -> bool {
        let place = |name: &NodeName| claim.candidates.iter().position(|candidate| candidate == name);
        place(rival).is_none_or(|theirs| place(&self.me).is_some_and(|ours| ours < theirs))
    }

    /// Does not ask any more, or own: the votes go back.
    pub(super) fn withdraw(&mut self, resource: Resource, not_before: Duration, now: Duration) {
        self.give_back(resource, None, now);
        if let Some(claim) = self.claims.get_mut(&resource) {
            claim.not_before = claim.not_before.max(not_before);
        }
        self.wake_at(not_before.max(now));
    }

    /// Nothing here has a use for it any more. The others are about to hear the same, some of them later than this node:
    /// voters keep it for this one for a moment, so that nobody takes what is about to end.
    pub(super) fn unwish(&mut self, resource: Resource, now: Duration) {
        if self.claims.get(&resource).is_some_and(Claim::is_owning) {
            self.tell_lost(resource, None);
            self.give_back(resource, Some(self.me.clone()), now);
        } else {
            self.let_go(resource, None, now);
        }
        self.claims.entry(resource).and_modify(Claim::unwish);
    }

    /// Gives a resource up, whatever it was to us.
    pub(super) fn let_go(&mut self, resource: Resource, to: Option<NodeName>, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        match claim.stage {
            Stage::Idle => {}
            Stage::Fencing(_) => claim.stage = Stage::Idle,
            Stage::Asking { .. } => self.give_back(resource, None, now),
            Stage::Owning(_) => {
                self.tell_lost(resource, to.clone());
                self.give_back(resource, None, now);
            }
        }
    }

    /// Voters may promise it to others; for a while they keep it for `to`.
    pub(super) fn give_back(&mut self, resource: Resource, to: Option<NodeName>, now: Duration) {
        let order = self.own_order();
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        claim.stage = Stage::Idle;
        claim.votes.clear();
        (claim.witness, claim.counts_from) = (Duration::ZERO, now + TICK);
        (claim.taking, claim.moving, claim.stays_until) = (None, None, None);
        let reserved = to.clone().map(|to| (to, now + self.timing.reserve));
        self.voter.release(&self.me, resource, reserved, order, now);
        self.say_to_all(&Part::Release { resource, to: to.clone() });
        self.notices.insert(resource, Notice { to, until: now + self.timing.beat * 3 });
        self.wake_at(now);
    }

    /// Two members: what came of [`Event::Fence`], after [`Timing::fence`](super::Timing::fence) and at once. Also, while
    /// this node is the owner: somebody else answers for it.
    pub fn fence(&mut self, resource: Resource, answered_by_somebody_else: bool, now: Duration) {
        let now = self.advance(now);
        let is_higher = self.is_higher_of_two();
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        match (claim.stage, answered_by_somebody_else) {
            (Stage::Fencing(_), true) => {
                let patience = self.timing.lease * if is_higher { 2 } else { 1 } + self.random.below(self.timing.beat);
                claim.stage = Stage::Idle;
                claim.not_before = claim.not_before.max(now + patience);
            }
            // An answer that comes too early has not asked long enough, and one that comes late may be old.
            (Stage::Fencing(asked), false)
                if asked + self.timing.fence <= now && now < asked + self.timing.fence * 2 =>
            {
                self.take_with_witness(resource, now);
            }
            (Stage::Owning(_), true) if is_higher && now < claim.witness => {
                self.let_go(resource, None, now);
                self.claims.entry(resource).and_modify(|claim| claim.not_before = now + self.timing.lease * 2);
            }
            (Stage::Owning(_) | Stage::Fencing(_), true | false)
            | (Stage::Idle | Stage::Asking { .. }, true | false) => {}
        }
        self.tick(now);
    }

    fn take_with_witness(&mut self, resource: Resource, now: Duration) {
        let is_silent = self.silent_since(now).is_some_and(|heard| heard + self.timing.lease <= now);
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        claim.stage = Stage::Idle;
        let Some(witness) = self.witness.filter(|witness| now < *witness && is_silent) else { return };
        if !claim.is_fit() || self.draining {
            return;
        }
        claim.stage = Stage::Asking { since: now, again: now + self.timing.beat };
        claim.witness = witness.min(now + self.timing.by_witness());
        self.notices.remove(&resource);
        self.renew(resource, now);
    }
}
