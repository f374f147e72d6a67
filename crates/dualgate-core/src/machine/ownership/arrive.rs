//! What other members say, and what this one answers.

use std::time::Duration;

use super::claim::Stage;
use super::lease::{Order, Verdict};
use super::message::{Header, Part, Refusal, decode};
use super::replica::Head;
use super::session::Arrival;
use super::{Event, Ownership, Resource};
use crate::model::NodeName;

/// What a part belongs to.
struct Context {
    from: NodeName,
    order: Order,
    /// When its datagram was sent, on the sender's clock.
    sent: Duration,
    /// When what it answers was sent, on ours.
    asked: Option<Duration>,
    /// The sender counts the same voters, but for one.
    is_agreed: bool,
    /// That the answers belong to this datagram was said.
    is_said: bool,
}

impl Ownership {
    pub(super) fn arrive(&mut self, plaintext: &[u8], now: Duration) {
        let Some((header, parts)) = decode(plaintext) else {
            self.ignored.malformed += 1;
            return;
        };
        let fresh = self.random.nonce();
        let Some(peer) = self.peers.get_mut(&header.sender) else {
            self.ignored.strangers += 1;
            return;
        };
        let was_alive = peer.is_alive();
        match peer.arrive(&header, fresh, self.timing.quiet(), now) {
            Arrival::Fresh => {}
            Arrival::First { restarted } => self.welcome(&header.sender, was_alive, restarted, now),
            Arrival::Challenge(nonce) => return self.challenge(&header.sender, nonce, now),
            Arrival::Replayed => {
                self.ignored.replayed += 1;
                return;
            }
            Arrival::Stale => {
                self.ignored.stale += 1;
                return;
            }
        }
        self.hear(&header, parts, now);
    }

    /// A session has begun: the other side hears at once what there is to say.
    fn welcome(&mut self, name: &NodeName, was_alive: bool, restarted: bool, now: Duration) {
        if was_alive && restarted {
            self.events.push_back(Event::PeerGone(name.clone()));
        }
        if restarted {
            self.replication.forget(name);
        }
        if !was_alive || restarted {
            self.events.push_back(Event::PeerBack(name.clone()));
        }
        self.count_alive(now);
        self.beat_to(name, now);
        self.wake_at(now);
    }

    fn hear(&mut self, header: &Header, parts: Vec<Part>, now: Duration) {
        let Some(peer) = self.peers.get(&header.sender) else { return };
        let mut context = Context {
            from: header.sender.clone(),
            order: Order { session: peer.session_of(), counter: header.counter },
            sent: header.sent,
            asked: None,
            is_agreed: is_agreed(&self.voters, &header.voters),
            is_said: false,
        };
        for part in parts {
            self.hear_part(part, &mut context, now);
        }
    }

    fn hear_part(&mut self, part: Part, context: &mut Context, now: Duration) {
        match part {
            Part::Claim { resource, owning } => self.hear_claim(resource, owning, context, now),
            Part::Release { resource, to } => self.hear_release(resource, to, context, now),
            Part::Answer { sent } if sent <= now => {
                context.asked = Some(sent);
                if let Some(peer) = self.peers.get_mut(&context.from) {
                    peer.round_trip = Some(now - sent);
                }
            }
            // Of a clock that is not ours.
            Part::Answer { .. } => context.asked = None,
            Part::Granted(resource) => {
                if let Some(asked) = context.asked {
                    self.granted(&context.from, resource, asked, now);
                }
            }
            Part::Refused { resource, why, free_in } => {
                if let Some(asked) = context.asked {
                    self.refused(&context.from, resource, why, free_in, asked, now);
                }
            }
            Part::Offer(resource) => self.offered(&context.from, resource),
            Part::Accept(resource) => self.answered(&context.from, resource, true, now),
            Part::Decline(resource) => self.answered(&context.from, resource, false, now),
            Part::Head { seen, key, length } => {
                let is_new_term = self.replication.seen < seen;
                self.replication.heard(&context.from, Head { seen, key, length });
                if is_new_term {
                    // The holder that begins it waits for this.
                    let head = self.head_part();
                    self.say(&context.from, head);
                }
                self.look_at_term(now);
                self.ask_for_replica(now);
            }
            Part::Want { key, first, wanted } => {
                for chunk in self.replication.give(key, first, wanted) {
                    self.say(&context.from, chunk);
                }
            }
            Part::Chunk { key, index, bytes } => {
                let patience = self.timing.stagger;
                if let Some(replica) = self.replication.take(key, index, &bytes, patience, now) {
                    self.events.push_back(Event::Replicated(replica));
                    self.say_head();
                    self.look_at_term(now);
                }
                self.ask_for_replica(now);
            }
        }
    }

    fn hear_claim(&mut self, resource: Resource, owning: bool, context: &mut Context, now: Duration) {
        if owning {
            self.hear_owner(resource, &context.from, now);
        }
        if self.claims.get(&resource).is_some_and(|claim| claim.is_owning()) {
            // An owner that has just started owns by the promises of others, and must not give its own away.
            self.renew(resource, now);
        }
        let verdict = if context.is_agreed {
            let lasts = self.timing.promise();
            self.voter.claim(&context.from, resource, owning, context.order, lasts, now)
        } else {
            Verdict::Refused(Refusal::Unable, now + self.timing.beat)
        };
        let answer = match verdict {
            Verdict::Granted => Part::Granted(resource),
            Verdict::Refused(why, until) => Part::Refused { resource, why, free_in: until.saturating_sub(now) },
            Verdict::Overtaken => return,
        };
        if !context.is_said {
            context.is_said = true;
            self.say(&context.from, Part::Answer { sent: context.sent });
        }
        self.say(&context.from, answer);
    }

    /// Somebody says that it owns what we may be after.
    fn hear_owner(&mut self, resource: Resource, from: &NodeName, now: Duration) {
        let is_lower = *from < self.me;
        let is_one_of_two = self.other().is_some();
        let Some(claim) = self.claims.get_mut(&resource) else { return };
        claim.given = None;
        match claim.stage {
            Stage::Asking { .. } => self.withdraw(resource, now, now),
            // Both halves of a cut LAN had an owner.
            Stage::Owning(_) if is_one_of_two && is_lower && now < claim.witness => {
                self.let_go(resource, Some(from.clone()), now);
            }
            Stage::Idle | Stage::Fencing(_) | Stage::Owning(_) => {}
        }
    }

    fn hear_release(&mut self, resource: Resource, to: Option<NodeName>, context: &Context, now: Duration) {
        let is_for_us = to.as_ref() == Some(&self.me);
        let reserved = to.map(|to| (to, now + self.timing.reserve));
        let is_freed = self.voter.release(&context.from, resource, reserved, context.order, now);
        if is_for_us && (is_freed || self.voter.free_for(&self.me, resource).0 <= now) {
            self.take_over(&context.from, resource, now);
        } else if is_freed {
            // Whoever waits for this voter, or for the one that withdrew, need not wait any longer.
            if self.claims.get(&resource).is_some_and(|claim| claim.is_asking()) {
                self.ask_again_at(resource, now);
            }
            self.wake_at(now);
        }
    }
}

/// Whether two sorted lists differ by one entry at most.
fn is_agreed(ours: &[u64], theirs: &[u64]) -> bool {
    let only = |these: &[u64], those: &[u64]| these.iter().filter(|voter| !those.contains(voter)).count();
    only(ours, theirs) + only(theirs, ours) <= 1
}
