//! One round of assigning: who has addresses keeps them, and whoever lacks some tries in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Reason;
use super::book::{Book, Tenant, Who};
use super::claim::{Claim, Grant, Refusal, Why};
use super::pools::{PoolIndex, Pools};
use crate::model::object::FamilyPolicy;
use crate::model::{Family, Snapshot};

/// One round of assigning.
pub(super) struct Round<'a> {
    pub(super) pools: Pools<'a>,
    pub(super) book: Book<'a>,
    /// By name.
    pub(super) claims: Vec<Claim<'a>>,
    /// What each of them brings to an address.
    tenants: Vec<Tenant<'a>>,
    /// Whose turn it is.
    turns: Vec<Who>,
    /// What is asked for by address, and so given to nobody else unasked.
    asked: BTreeSet<IpAddr>,
}

/// Whose turn comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It asks for an address.
    Asks,
    /// The site file reserves one for it.
    Reserved,
    /// It had one.
    Had,
    Fresh,
}

impl<'a> Round<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, claims: Vec<Claim<'a>>) -> Self {
        let pools = Pools::of(snapshot);
        let rank = |claim: &Claim<'_>| {
            if claim.asks.addresses.is_some() {
                Rank::Asks
            } else if claim.families.iter().any(|family| pools.reservation(claim.name(), *family).is_some()) {
                Rank::Reserved
            } else if claim.former.is_empty() {
                Rank::Fresh
            } else {
                Rank::Had
            }
        };
        let mut turns: Vec<Who> = (0..claims.len()).collect();
        // The claims are in order of their names, and the sort is stable.
        turns.sort_by_cached_key(|who| (rank(&claims[*who]), claims[*who].object.meta.created));
        let mut asked = BTreeSet::new();
        for claim in &claims {
            // Whoever may not have it keeps it from nobody.
            let addresses = claim.families.iter().filter_map(|family| claim.asked(*family));
            asked.extend(addresses.filter(|address| permitted(&pools, claim, *address).is_ok()));
        }
        Self { tenants: claims.iter().map(Claim::tenant).collect(), asked, turns, pools, book: Book::default(), claims }
    }

    pub(super) fn run(&mut self) {
        let turns = self.turns.clone();
        for who in &turns {
            self.keep(*who);
        }
        // Those that need both families and have kept one may have to give it back: before others look for it.
        for who in &turns {
            if self.claims[*who].policy == FamilyPolicy::RequireDualStack && !self.claims[*who].held.is_empty() {
                self.complete(*who);
            }
        }
        // Again after the first time, as an address that somebody took may be one to share, and so that everybody is told
        // of how it ended. Nobody gives anything back any more, so this comes to an end.
        while turns.iter().filter(|who| self.complete(**who)).count() > 0 {}
    }

    /// Keeps what is still valid.
    fn keep(&mut self, who: Who) {
        for turn in 0..self.claims[who].families.len() {
            let claim = &self.claims[who];
            let family = claim.families[turn];
            let Some(address) = claim.former.iter().copied().find(|address| Family::of(*address) == family) else {
                continue;
            };
            let wished = match (claim.asked(family), self.reservation(claim, family)) {
                (Some(asked), _) => asked == address,
                (None, Some(pool)) => {
                    self.pools.reserved(address) == Some(Some(claim.name()))
                        && self.pools.of_address(address) == Ok(pool)
                }
                (None, None) => true,
            };
            if !wished {
                continue;
            }
            if let Ok(pool) = self.check(who, address) {
                self.hold(who, Grant { address, pool, reason: Reason::Kept });
            }
        }
    }

    /// Looks for what is missing; whether something was found.
    fn complete(&mut self, who: Who) -> bool {
        let claim = &self.claims[who];
        let lacking: Vec<Family> =
            claim.families.iter().copied().filter(|family| claim.held(*family).is_none()).collect();
        if lacking.is_empty() {
            return false;
        }
        let mut found: Vec<Grant> = Vec::new();
        let mut missing: BTreeMap<Family, Why> = BTreeMap::new();
        let mut unasked: Vec<Family> = Vec::new();
        for family in lacking {
            let claim = &self.claims[who];
            if let Some(address) = claim.asked(family) {
                match self.check(who, address) {
                    Ok(pool) => found.push(Grant { address, pool, reason: Reason::Asked }),
                    Err(refusal) => {
                        missing.insert(family, Why::Refused(address, refusal));
                    }
                }
            } else if let Some(pool) = self.reservation(claim, family) {
                let held = |address| self.book.is_held(address);
                match self.pools.reserved_free(claim.name(), family, held) {
                    Some((pool, address)) => found.push(Grant { address, pool, reason: Reason::Reserved }),
                    None => {
                        missing.insert(family, Why::Exhausted(vec![pool]));
                    }
                }
            } else {
                unasked.push(family);
            }
        }
        self.choose(who, unasked, &mut found, &mut missing);
        self.settle(who, found, missing)
    }

    /// Takes what was found, or gives everything back where both families are needed and one is missing.
    fn settle(&mut self, who: Who, found: Vec<Grant>, mut missing: BTreeMap<Family, Why>) -> bool {
        if self.claims[who].policy == FamilyPolicy::RequireDualStack && !missing.is_empty() {
            for grant in std::mem::take(&mut self.claims[who].held) {
                self.book.release(who, grant.address);
                self.pools.released(grant.pool, grant.address);
            }
            for family in &self.claims[who].families {
                missing.entry(*family).or_insert(Why::Other);
            }
            self.claims[who].missing = missing;
            return false;
        }
        self.claims[who].missing = missing;
        let progress = !found.is_empty();
        found.into_iter().for_each(|grant| self.hold(who, grant));
        progress
    }

    fn hold(&mut self, who: Who, grant: Grant) {
        let joinable = self.pools.reserved(grant.address).is_none();
        self.book.hold(who, &self.tenants[who], grant.pool, grant.address, joinable);
        self.claims[who].held.push(grant);
    }

    /// Whether a Service can have this address; of which pool it is.
    fn check(&self, who: Who, address: IpAddr) -> Result<PoolIndex, Refusal> {
        let pool = permitted(&self.pools, &self.claims[who], address)?;
        self.book.admits(address, &self.tenants[who]).map_err(Refusal::Held)?;
        Ok(pool)
    }

    /// The pool with a reservation for a Service that it may use.
    fn reservation(&self, claim: &Claim<'_>, family: Family) -> Option<PoolIndex> {
        let (pool, _) = self.pools.reservation(claim.name(), family)?;
        let wanted = claim.asks.pool.as_ref().is_none_or(|asked| self.pools.name(pool) == asked.value);
        wanted.then_some(pool)
    }

    /// Addresses that nobody asks for: one to share, else free ones.
    fn choose(
        &mut self,
        who: Who,
        mut families: Vec<Family>,
        found: &mut Vec<Grant>,
        missing: &mut BTreeMap<Family, Why>,
    ) {
        if families.is_empty() {
            return;
        }
        let groups = match self.candidates(who, found) {
            Ok(groups) => groups,
            Err(why) => return missing.extend(families.into_iter().map(|family| (family, why.clone()))),
        };
        families.retain(|family| {
            let mut pools = groups.iter().flatten();
            let join = |pool: &PoolIndex| Some((self.book.joinable(&self.tenants[who], *pool, *family)?, *pool));
            let joined = pools.find_map(join);
            found.extend(joined.map(|(address, pool)| Grant { address, pool, reason: Reason::Shared }));
            joined.is_none()
        });
        for group in &groups {
            let whole = group
                .iter()
                .copied()
                .find(|pool| families.len() > 1 && families.iter().all(|family| self.free(*pool, *family).is_some()));
            families.retain(|family| {
                let mut pools = whole.iter().chain(group).copied();
                let free = pools.find_map(|pool| Some((self.free(pool, *family)?, pool)));
                found.extend(free.map(|(address, pool)| Grant { address, pool, reason: Reason::Free }));
                free.is_none()
            });
        }
        missing.extend(families.into_iter().map(|family| {
            let pools = groups.iter().flatten().copied().filter(|pool| self.pools.has(*pool, family));
            let pools: BTreeSet<PoolIndex> = pools.collect();
            let why = if pools.is_empty() { Why::NoFamily } else { Why::Exhausted(pools.into_iter().collect()) };
            (family, why)
        }));
    }

    /// The pools to choose from, by rank: first those that the Service has an address of already.
    fn candidates(&self, who: Who, found: &[Grant]) -> Result<Vec<Vec<PoolIndex>>, Why> {
        let claim = &self.claims[who];
        if let Some(asked) = &claim.asks.pool {
            let pool = self.pools.find(asked.value).ok_or(Why::UnknownPool)?;
            return if self.pools.is_for(pool, claim.object) {
                Ok(vec![vec![pool]])
            } else {
                Err(Why::ForeignPool(pool))
            };
        }
        let own = claim.held.iter().chain(found).map(|grant| grant.pool);
        let mut groups = vec![own.filter(|pool| self.pools.is_for(*pool, claim.object)).collect()];
        groups.extend(self.pools.unasked(claim.object));
        if groups.iter().all(Vec::is_empty) { Err(Why::NoPool) } else { Ok(groups) }
    }

    fn free(&mut self, pool: PoolIndex, family: Family) -> Option<IpAddr> {
        self.pools.free(pool, family, |address| self.book.is_held(address) || self.asked.contains(&address))
    }
}

/// Whether a Service may have this address, whoever has it; of which pool it is.
fn permitted(pools: &Pools<'_>, claim: &Claim<'_>, address: IpAddr) -> Result<PoolIndex, Refusal> {
    let pool = pools.of_address(address).map_err(Refusal::Barred)?;
    match pools.reserved(address) {
        Some(Some(service)) if service == claim.name() => {}
        Some(service) => return Err(Refusal::Reserved(pool, service.cloned())),
        None if !pools.is_for(pool, claim.object) => return Err(Refusal::ForeignPool(pool)),
        None => {}
    }
    if claim.asks.pool.as_ref().is_some_and(|asked| pools.name(pool) != asked.value) {
        return Err(Refusal::OtherPool(pool));
    }
    Ok(pool)
}
