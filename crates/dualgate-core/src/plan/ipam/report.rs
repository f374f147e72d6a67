//! What a round came to, for those who act on it and for people.

use std::collections::BTreeMap;

use super::book::{Conflict, Unshared};
use super::claim::{Claim, Refusal, Why};
use super::pools::{Barred, PoolIndex};
use super::round::Round;
use super::{Assigned, Count, Held, Missing, PoolUse, ServiceUse};
use crate::model::object::{FamilyPolicy, Protocol};
use crate::model::{Code, Family, Finding, Text};
use crate::parse::object::nearest;

/// The result, with the findings that there were before.
pub(super) fn report(round: &Round<'_>, mut findings: Vec<Finding>) -> Assigned {
    let counts = counts(round);
    let names: BTreeMap<PoolIndex, Text> =
        round.pools.all().map(|pool| (pool, round.pools.name(pool).into())).collect();
    let report = Report { round, counts: &counts };
    let mut services = Vec::new();
    let mut assignments = Vec::new();
    for claim in &round.claims {
        let grants = || claim.families.iter().filter_map(|family| claim.held(*family));
        let held = grants().map(|grant| Held {
            address: grant.address,
            pool: names[&grant.pool].clone(),
            reason: grant.reason,
        });
        let missing = claim.missing.iter().map(|(family, why)| {
            let (told, finding) = report.missing(claim, *family, why);
            // One word is enough where both families lack for the same reason.
            findings.extend(finding.filter(|finding| findings.last() != Some(finding)));
            Missing { family: *family, why: told }
        });
        let service = claim.name().clone();
        let used = ServiceUse { addresses: held.collect(), missing: missing.collect(), service };
        if !used.addresses.is_empty() {
            assignments.push((used.service.clone(), grants().map(|grant| grant.address).collect()));
        }
        services.push(used);
    }
    let pools = round.pools.all().map(|pool| PoolUse {
        name: names[&pool].clone(),
        v4: counts[&(pool, Family::V4)],
        v6: counts[&(pool, Family::V6)],
    });
    Assigned { assignments: assignments.into_iter().collect(), findings, pools: pools.collect(), services }
}

fn counts(round: &Round<'_>) -> BTreeMap<(PoolIndex, Family), Count> {
    let mut counts = BTreeMap::new();
    for pool in round.pools.all() {
        for family in [Family::V4, Family::V6] {
            let (all, open) = round.pools.size(pool, family);
            counts.insert((pool, family), Count { used: 0, reserved: all.saturating_sub(open), free: open });
        }
    }
    let claims = round.claims.iter().enumerate();
    let grants = claims.flat_map(|(who, claim)| claim.held.iter().map(move |grant| (who, grant)));
    for (_, grant) in grants.filter(|(who, grant)| round.book.first(grant.address) == Some(*who)) {
        let Some(count) = counts.get_mut(&(grant.pool, Family::of(grant.address))) else { continue };
        count.used += 1;
        let from = if round.pools.reserved(grant.address).is_some() { &mut count.reserved } else { &mut count.free };
        *from = from.saturating_sub(1);
    }
    counts
}

struct Report<'r, 'a> {
    round: &'r Round<'a>,
    counts: &'r BTreeMap<(PoolIndex, Family), Count>,
}

impl Report<'_, '_> {
    /// Why a family is missing, and a finding if somebody should know.
    fn missing(&self, claim: &Claim<'_>, family: Family, why: &Why) -> (String, Option<Finding>) {
        let pool_field = claim.asks.pool.as_ref().map_or("spec.type", |asked| asked.field.as_str());
        let (code, field, told, help) = match why {
            Why::Refused(address, refusal) => {
                let field = claim.asks.addresses.as_ref().map_or("spec.type", |asked| asked.field.as_str());
                let (code, told, help) = self.refusal(claim, refusal);
                (code, field, format!("`{address}` {told}"), help)
            }
            Why::UnknownPool => {
                let asked = claim.asks.pool.as_ref().map_or("", |asked| asked.value);
                let names = self.round.pools.names();
                let help = match nearest(asked, &names) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("the pools are `{}`", names.join("`, `")),
                };
                (Code::AddressPoolUnknown, pool_field, format!("there is no pool `{asked}`"), help)
            }
            Why::ForeignPool(pool) => {
                let told = format!("pool `{}` is for other Services", self.round.pools.name(*pool));
                (Code::AddressPoolRefused, pool_field, told, FOREIGN.to_owned())
            }
            Why::NoPool => (Code::AddressPoolRefused, "spec.type", self.no_pool(claim), NO_POOL.to_owned()),
            Why::NoFamily => {
                let told = format!("no pool that it may use has {family} addresses");
                (Code::AddressFamily, pool_field, told, format!("add {family} addresses to a pool"))
            }
            Why::Exhausted(pools) => {
                let told = format!("no free {family} address: {}", self.exhausted(pools, family));
                (
                    Code::AddressPoolExhausted,
                    pool_field,
                    told,
                    "add addresses to a pool, or remove a Service".to_owned(),
                )
            }
            Why::NotInCluster => {
                let told = format!("the cluster has no {family} Services (`cluster.serviceCIDRs`)");
                let help = "set `ipFamilyPolicy: PreferDualStack`".to_owned();
                (Code::AddressFamily, "spec.ipFamilyPolicy", told, help)
            }
            Why::Other => return ("`RequireDualStack` takes both families or none".to_owned(), None),
        };
        let (consequence, is_worth_it) = match (claim.policy, why) {
            (FamilyPolicy::RequireDualStack, _) => ("; `RequireDualStack` takes both families or none", true),
            (FamilyPolicy::SingleStack, _) | (FamilyPolicy::PreferDualStack, Why::Refused(..)) => ("", true),
            (FamilyPolicy::PreferDualStack, _) => ("", claim.held.is_empty()),
        };
        let message = format!("{told}{consequence}");
        let finding = || Finding::new(code, claim.object.place(field), message).help(help);
        (told, is_worth_it.then(finding))
    }

    /// What is said of the address; and what to do.
    fn refusal(&self, claim: &Claim<'_>, refusal: &Refusal) -> (Code, String, String) {
        let name = |pool: &PoolIndex| self.round.pools.name(*pool);
        match refusal {
            Refusal::Barred(Barred::Owned(whose)) => {
                (Code::AddressTaken, format!("is {whose}"), "ask for an address that is free".to_owned())
            }
            Refusal::Barred(Barred::OutsidePools) => {
                let help = "add it to `pools`, or ask for an address of a pool".to_owned();
                (Code::AddressOutsidePools, "is in no pool".to_owned(), help)
            }
            Refusal::Barred(Barred::OutsideLan(pool)) => {
                let told = format!("of pool `{}` lies outside the LAN", name(pool));
                (Code::AddressOutsidePools, told, "nobody there would ask for it: use one of `lan.subnets`".to_owned())
            }
            Refusal::Barred(Barred::Buggy(pool)) => {
                let told = format!("ends in .0 or .255, which pool `{}` leaves out (`avoidBuggyIPs`)", name(pool));
                (Code::AddressOutsidePools, told, "ask for another address".to_owned())
            }
            Refusal::OtherPool(pool) => {
                let asked = claim.asks.pool.as_ref().map_or("", |asked| asked.value);
                let told = format!("is of pool `{}`, and pool `{asked}` is asked for as well", name(pool));
                (Code::AddressRequest, told, "leave one of the two out".to_owned())
            }
            Refusal::ForeignPool(pool) => {
                let told = format!("is of pool `{}`, which is for other Services", name(pool));
                (Code::AddressPoolRefused, told, FOREIGN.to_owned())
            }
            Refusal::Reserved(pool, Some(service)) => {
                let told = format!("of pool `{}` is reserved for Service {service}", name(pool));
                (Code::AddressTaken, told, "ask for another address".to_owned())
            }
            Refusal::Reserved(pool, None) => {
                let told = format!("of pool `{}` is reserved", name(pool));
                (Code::AddressTaken, told, "name the Service in the reservation, or ask for another address".to_owned())
            }
            Refusal::Held(conflict) => self.held(*conflict),
        }
    }

    fn held(&self, Conflict { with, why }: Conflict) -> (Code, String, String) {
        let other = self.round.claims[with].name();
        let (told, help) = match why {
            Unshared::Key => (
                format!("is that of Service {other}"),
                "ask for another address, or give both one `dualgate.dev/allow-shared-ip`",
            ),
            Unshared::Pods => (
                format!("is that of Service {other}, which has other pods"),
                "with `externalTrafficPolicy: Local`, Services that share an address need one selector",
            ),
            Unshared::Port((protocol, port)) => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                };
                (
                    format!("is shared with Service {other}, which has {protocol} port {port}"),
                    "use another port or address",
                )
            }
        };
        (Code::AddressTaken, told, help.to_owned())
    }

    fn no_pool(&self, claim: &Claim<'_>) -> String {
        let pools = &self.round.pools;
        let why = |pool: PoolIndex| {
            let is_for = pools.is_for(pool, claim.object);
            let why = if is_for && !pools.hands_out_unasked(pool) { "only on request" } else { "for other Services" };
            format!("`{}` is {why}", pools.name(pool))
        };
        let reasons: Vec<String> = pools.all().map(why).collect();
        format!("no pool is for it: {}", reasons.join(", "))
    }

    fn exhausted(&self, pools: &[PoolIndex], family: Family) -> String {
        let one = |pool: &PoolIndex| {
            let count = self.counts[&(*pool, family)];
            let reserved = if count.reserved > 0 { format!(", {} reserved", count.reserved) } else { String::new() };
            let asked = if count.free > 0 { format!(", {} asked for by others", count.free) } else { String::new() };
            format!("pool `{}` has {} in use{reserved}{asked}", self.round.pools.name(*pool), count.used)
        };
        pools.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

const FOREIGN: &str = "see its `namespaces`, `namespaceLabels` and `serviceLabels`";
const NO_POOL: &str = "ask for a pool with `dualgate.dev/address-pool`, or change `autoAssign`, `namespaces`, `namespaceLabels` or \
     `serviceLabels`";
