//! A voter's promises.
//!
//! A promise of a resource is to one node, until a moment of the voter's own clock; meanwhile nobody else gets one. It
//! holds from when the request *came* for [`Timing::promise`](super::Timing::promise), and the claimant counts a shorter
//! time from when it *sent* the request: whatever the network and the clocks' origins, it stops believing first.
//!
//! A promise is to a node's name and not to its process: a successor on the same node goes on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Resource;
use super::message::Refusal;
use crate::model::NodeName;

/// Promises that are kept at most; a site has a thousand groups, not a hundred thousand.
const ROOM: usize = 16_384;

/// All promises of one voter.
#[derive(Clone, Debug)]
pub(super) struct Voter {
    promises: BTreeMap<Resource, Promise>,
    /// Promises that an earlier process of this node made have ended by then.
    pub silent_until: Duration,
}

#[derive(Clone, Debug)]
struct Promise {
    to: NodeName,
    until: Duration,
    /// It said that it owns it.
    owning: bool,
    /// The last request of it that counted.
    order: Order,
    /// Kept for the target of a planned move.
    reserved: Option<(NodeName, Duration)>,
}

/// Orders the requests of a node; those of another session are of a later one, as nothing else is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub session: u64,
    pub counter: u64,
}

/// What a voter says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted,
    /// Not before then.
    Refused(Refusal, Duration),
    /// A later request has overtaken it: nothing is said.
    Overtaken,
}

impl Order {
    fn is_after(self, other: Self) -> bool {
        self.session != other.session || self.counter > other.counter
    }
}

impl Voter {
    pub fn new(silent_until: Duration) -> Self {
        Self { promises: BTreeMap::new(), silent_until }
    }

    /// Somebody asks for a promise that lasts `lasts` from `now`.
    pub fn claim(
        &mut self,
        from: &NodeName,
        resource: Resource,
        owning: bool,
        order: Order,
        lasts: Duration,
        now: Duration,
    ) -> Verdict {
        if now < self.silent_until {
            return Verdict::Refused(Refusal::Starting, self.silent_until);
        }
        let is_full = self.promises.len() >= ROOM;
        let Some(promise) = self.promises.get_mut(&resource) else {
            if is_full {
                return Verdict::Refused(Refusal::Unable, now + lasts);
            }
            let promise = Promise { to: from.clone(), until: now + lasts, owning, order, reserved: None };
            self.promises.insert(resource, promise);
            return Verdict::Granted;
        };
        let is_same = promise.to == *from;
        if is_same && !order.is_after(promise.order) {
            return Verdict::Overtaken;
        }
        if !is_same && now < promise.until {
            let to = promise.to.clone();
            let why = if promise.owning { Refusal::Owned(to) } else { Refusal::Claimed(to) };
            return Verdict::Refused(why, promise.until);
        }
        if let Some((target, until)) =
            promise.reserved.as_ref().filter(|(target, until)| target != from && now < *until)
        {
            return Verdict::Refused(Refusal::Reserved(target.clone()), *until);
        }
        let until = if is_same { promise.until.max(now + lasts) } else { now + lasts };
        *promise = Promise { to: from.clone(), until, owning, order, reserved: None };
        Verdict::Granted
    }

    /// Somebody does not need its promise any more; for a while the resource is kept for `to`. Whether that freed it.
    pub fn release(
        &mut self,
        from: &NodeName,
        resource: Resource,
        to: Option<(NodeName, Duration)>,
        order: Order,
        now: Duration,
    ) -> bool {
        let Some(promise) = self.promises.get_mut(&resource).filter(|promise| promise.to == *from) else {
            return false;
        };
        if !order.is_after(promise.order) {
            return false;
        }
        promise.order = order;
        // A repeated release says nothing more; the reservation is not to last longer by it.
        if promise.until <= now {
            return false;
        }
        (promise.until, promise.owning, promise.reserved) = (now, false, to);
        true
    }

    /// From when on `me` could have it from this voter, and whether somebody else has it in reserve until then.
    pub fn free_for(&self, me: &NodeName, resource: Resource) -> (Duration, bool) {
        let Some(promise) = self.promises.get(&resource) else { return (Duration::ZERO, false) };
        let promised = if promise.to == *me { Duration::ZERO } else { promise.until };
        match &promise.reserved {
            Some((target, until)) if target != me && *until > promised => (*until, true),
            Some(_) | None => (promised, false),
        }
    }

    /// Who said that it owns it, and has the promise.
    pub fn owner(&self, resource: Resource, now: Duration) -> Option<&NodeName> {
        self.promises.get(&resource).filter(|promise| promise.owning && now < promise.until).map(|promise| &promise.to)
    }

    /// Forgets what ended so long ago that no request of that time can come any more.
    pub fn forget(&mut self, ended_before: Duration) {
        self.promises.retain(|_, promise| {
            let reserved = promise.reserved.as_ref().map_or(Duration::ZERO, |(_, until)| *until);
            promise.until.max(reserved) >= ended_before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_millis(565);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text)
    }

    fn order(counter: u64) -> Order {
        Order { session: 1, counter }
    }

    fn claim(voter: &mut Voter, from: &str, counter: u64, now: u64) -> Verdict {
        voter.claim(&name(from), Resource::Holder, true, order(counter), LASTS, ms(now))
    }

    fn release(voter: &mut Voter, from: &str, to: Option<&str>, counter: u64, now: u64) -> bool {
        let to = to.map(|to| (name(to), ms(now + 250)));
        voter.release(&name(from), Resource::Holder, to, order(counter), ms(now))
    }

    #[test]
    fn a_promise_is_to_one_until_it_ends() {
        let mut voter = Voter::new(ms(0));
        assert_eq!(claim(&mut voter, "a", 1, 1_000), Verdict::Granted);
        let refused = Verdict::Refused(Refusal::Owned(name("a")), ms(1_565));
        assert_eq!(claim(&mut voter, "b", 1, 1_564), refused);
        assert_eq!(claim(&mut voter, "b", 1, 1_565), Verdict::Granted);
        assert_eq!(claim(&mut voter, "a", 2, 1_566), Verdict::Refused(Refusal::Owned(name("b")), ms(2_130)));
    }

    #[test]
    fn a_voter_that_has_just_started_promises_nothing() {
        let mut voter = Voter::new(ms(1_565));
        assert_eq!(claim(&mut voter, "a", 1, 1_564), Verdict::Refused(Refusal::Starting, ms(1_565)));
        assert_eq!(claim(&mut voter, "a", 2, 1_565), Verdict::Granted);
    }

    #[test]
    fn a_release_frees_at_once_but_an_overtaken_one_does_not() {
        let mut voter = Voter::new(ms(0));
        claim(&mut voter, "a", 5, 1_000);
        assert!(!release(&mut voter, "a", None, 4, 1_001));
        assert!(!release(&mut voter, "b", None, 6, 1_001));
        assert!(release(&mut voter, "a", None, 6, 1_001));
        assert_eq!(claim(&mut voter, "a", 5, 1_002), Verdict::Overtaken);
        assert_eq!(claim(&mut voter, "b", 1, 1_002), Verdict::Granted);
    }

    #[test]
    fn what_is_reserved_is_for_the_target_for_a_while() {
        let mut voter = Voter::new(ms(0));
        claim(&mut voter, "a", 1, 1_000);
        assert!(release(&mut voter, "a", Some("b"), 2, 1_010));
        assert!(!release(&mut voter, "a", Some("b"), 3, 1_200), "repeated, and no longer for it");
        let refused = Verdict::Refused(Refusal::Reserved(name("b")), ms(1_260));
        assert_eq!(claim(&mut voter, "c", 1, 1_259), refused);
        assert_eq!(claim(&mut voter, "a", 4, 1_259), refused);
        assert_eq!(claim(&mut voter.clone(), "c", 2, 1_260), Verdict::Granted);
        assert_eq!(claim(&mut voter, "b", 1, 1_100), Verdict::Granted);
    }

    #[test]
    fn a_successor_on_the_same_node_goes_on_with_the_promise() {
        let mut voter = Voter::new(ms(0));
        claim(&mut voter, "a", 900, 1_000);
        let other = Order { session: 2, counter: 1 };
        let verdict = voter.claim(&name("a"), Resource::Holder, true, other, LASTS, ms(1_100));
        assert_eq!(verdict, Verdict::Granted);
    }
}
