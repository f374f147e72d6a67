//! Planned moves: the owner asks who is ready, stops, and has the voters keep the resource for the one that it chose.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::Claim;
use super::message::Part;
use super::session::Peer;
use super::{Event, MoveRefusal, Ownership, Resource};
use crate::model::NodeName;

/// A move that waits for its target's word.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub reason: Reason,
    /// Best first.
    targets: Vec<NodeName>,
    /// Who would take it, and who would not.
    answers: BTreeMap<NodeName, bool>,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody asked for it.
    Asked,
    /// This node may not own it any more, or cannot serve it.
    Unfit,
    /// This node gives everything away.
    Draining,
}

impl Moving {
    pub fn waits_for(&self, name: &NodeName) -> bool {
        self.targets.contains(name) && !self.answers.contains_key(name)
    }
}

impl Ownership {
    /// Moves a resource that this node owns. It stays, and [`Event::Stayed`] says so, if the target is not ready.
    pub fn move_to(&mut self, resource: &Resource, to: &NodeName, now: Duration) -> Result<(), MoveRefusal> {
        let now = self.advance(now);
        let owner = self.owner(resource);
        if owner.as_ref() == Some(to) {
            return Err(MoveRefusal::Already(to.clone()));
        }
        let claim = self.claims.get(resource).filter(|claim| claim.is_owning());
        let Some(claim) = claim else { return Err(MoveRefusal::NotOwner { owner }) };
        if !claim.candidates.contains(to) {
            return Err(MoveRefusal::NotCandidate(to.clone()));
        }
        if !self.peers.get(to).is_some_and(Peer::is_alive) {
            return Err(MoveRefusal::PeerGone(to.clone()));
        }
        self.offer(*resource, vec![to.clone()], Reason::Asked, now);
        self.flush(now);
        Ok(())
    }

    /// Gives everything away that somebody else can take, and takes nothing more.
    pub fn drain(&mut self, now: Duration) {
        let now = self.advance(now);
        self.draining = true;
        for (resource, claim) in self.claims.clone() {
            if claim.is_owning() {
                self.claims.entry(resource).and_modify(|claim| claim.stays_until = None);
            } else {
                self.let_go(resource, None, now);
            }
        }
        self.tick(now);
    }

    /// Takes part again.
    pub fn undrain(&mut self) {
        self.draining = false;
        for claim in self.claims.values_mut() {
            claim.moving.take_if(|moving| moving.reason == Reason::Draining);
            claim.stays_until = None;
        }
        self.wake = Duration::ZERO;
    }

    /// Whether all is given away, and has come, that somebody else can take.
    pub fn is_drained(&self) -> bool {
        let is_left = |claim: &Claim| claim.given.is_some() || (claim.is_owning() && claim.stays_until.is_none());
        self.draining && !self.claims.values().any(is_left)
    }

    /// This node may not own it any more: the best candidate that is ready gets it, or nobody.
    pub(super) fn hand_over(&mut self, resource: Resource, now: Duration) {
        let is_moving = |claim: &Claim| claim.moving.as_ref().is_some_and(|moving| moving.reason == Reason::Unfit);
        if self.claims.get(&resource).is_some_and(|claim| !is_moving(claim)) {
            self.offer(resource, self.targets(resource), Reason::Unfit, now);
        }
    }

    pub(super) fn look_at_move(&mut self, resource: Resource, now: Duration) {
        let over = self.timing.beat * 3;
        let Some(claim) = self.claims.get(&resource) else { return };
        if let Some(moving) = &claim.moving {
            let over = moving.since + over;
            if over <= now {
                self.decide(resource, true, now);
            } else {
                self.wake_at(over);
            }
        } else if self.draining {
            match claim.stays_until {
                Some(until) if now < until => self.wake_at(until),
                None | Some(_) => self.offer(resource, self.targets(resource), Reason::Draining, now),
            }
        }
    }

    /// Candidates that are alive, best first.
    fn targets(&self, resource: Resource) -> Vec<NodeName> {
        let candidates = self.claims.get(&resource).into_iter().flat_map(|claim| &claim.candidates);
        candidates.filter(|name| self.peers.get(*name).is_some_and(Peer::is_alive)).cloned().collect()
    }

    fn offer(&mut self, resource: Resource, targets: Vec<NodeName>, reason: Reason, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        for target in &targets {
            self.outbox.entry(target.clone()).or_default().push(Part::Offer(resource));
        }
        claim.moving = Some(Moving { reason, targets, answers: BTreeMap::new(), since: now });
        self.wake_at(now + self.timing.beat * 3);
        self.decide(resource, false, now);
    }

    /// The owner asks whether this node would take it.
    pub(super) fn offered(&mut self, from: &NodeName, resource: Resource) {
        let would = !self.draining && self.claims.get(&resource).is_some_and(Claim::is_fit);
        self.say(from, if would { Part::Accept(resource) } else { Part::Decline(resource) });
    }

    /// A candidate has answered.
    pub(super) fn answered(&mut self, from: &NodeName, resource: Resource, would: bool, now: Duration) {
        let moving = self.claims.get_mut(&resource).and_then(|claim| claim.moving.as_mut());
        let Some(moving) = moving.filter(|moving| moving.waits_for(from)) else { return };
        moving.answers.insert(from.clone(), would);
        self.decide(resource, false, now);
    }

    /// The best candidate that would take it gets it, once no better one may still say so.
    fn decide(&mut self, resource: Resource, is_over: bool, now: Duration) {
        let Some(claim) = self.claims.get_mut(&resource).filter(|claim| claim.is_owning()) else { return };
        let Some(moving) = &claim.moving else { return };
        let may = |target: &&NodeName| moving.answers.get(*target).copied().unwrap_or(!is_over);
        if let Some(best) = moving.targets.iter().find(may).cloned() {
            if moving.answers.contains_key(&best) {
                self.give(resource, best, now);
            }
            return;
        }
        let (reason, target) = (moving.reason, moving.targets.first().cloned());
        claim.moving = None;
        match reason {
            Reason::Asked => self.events.extend(target.map(|to| Event::Stayed { resource, to })),
            Reason::Unfit => self.let_go(resource, None, now),
            Reason::Draining => {
                claim.stays_until = Some(now + self.timing.lease);
                self.wake_at(now + self.timing.lease);
            }
        }
    }

    fn give(&mut self, resource: Resource, to: NodeName, now: Duration) {
        self.tell_lost(resource, Some(to.clone()));
        self.give_back(resource, Some(to), now);
        if let Some(claim) = self.claims.get_mut(&resource) {
            claim.given = Some(now);
        }
    }

    /// The owner has stopped, and this node is the one that it chose.
    pub(super) fn take_over(&mut self, from: &NodeName, resource: Resource, now: Duration) {
        let is_idle = |claim: &Claim| claim.is_fit() && !claim.is_active();
        if !self.draining && self.claims.get(&resource).is_some_and(is_idle) {
            self.begin_asking(resource, Some(from.clone()), now);
        }
    }
}
