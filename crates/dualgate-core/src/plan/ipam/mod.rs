//! Which addresses the Services of type LoadBalancer get from the site file's pools.
//!
//! Pure: reads the site, the Services, and the addresses that they have (`Facts::assigned`; where these say nothing of a
//! Service, its status does). One holder runs it and publishes the result, which is the next run's fact.
//!
//! **Who is meant.** Services without a `loadBalancerClass`, or with [`CLASS`].
//!
//! **What stays.** An address that a Service has is kept as long as it is valid: a pool that is for the Service has it, it
//! is what is asked for, and it is nobody else's. Nothing better that comes later moves it. What is not valid any more is
//! released, and each family is replaced for itself.
//!
//! **What is given.** First what a Service asks for by address, then what the site file reserves for it, then the lowest
//! free address of the first pool that is for it: by `priority`, pools for certain namespaces or labels before pools for
//! all, then as the file has them. Among pools of equal rank, one that has both families goes before two that have one
//! each. A Service that may share an address does so where its ports are free. Addresses that are asked for or reserved
//! are given to nobody else.
//!
//! **Whose turn it is.** Who has addresses comes before who asks for some, then reservations, then age and name. So the
//! order of the objects changes nothing, and a Service that is added moves no other.
//!
//! **Families.** `SingleStack` is the first family. `PreferDualStack` takes what there is, and the other family when it can
//! be had. `RequireDualStack` takes both or none. A Service that names no family has that of the first of
//! `cluster.serviceCIDRs`, as in Kubernetes.

mod book;
mod claim;
mod pools;
mod report;
mod round;
mod space;

use std::net::IpAddr;

use crate::model::object::{Service, ServiceType};
use crate::model::{Assignments, Family, Finding, ObjectName, Snapshot, Text};

pub(crate) use pools::ends;
pub(crate) use space::Space;

/// Our `loadBalancerClass`.
pub const CLASS: &str = "dualgate.dev/load-balancer";

/// Which Service has which addresses, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// What is published: each Service with its addresses in the order of its families.
    pub assignments: Assignments,
    /// Who does not get what it asks for, and what annotations get wrong; by Service.
    pub findings: Vec<Finding>,
    /// The pools, in the site file's order.
    pub pools: Vec<PoolUse>,
    /// Every Service that is meant, by name.
    pub services: Vec<ServiceUse>,
}

/// How much of a pool is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool's name.
    pub name: Text,
    /// Its IPv4 addresses.
    pub v4: Count,
    /// Its IPv6 addresses.
    pub v6: Count,
}

/// How many addresses of a pool are in which state. What others have, such as the gates, is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// A Service has it.
    pub used: u128,
    /// It is reserved, and not used.
    pub reserved: u128,
    /// Anybody may get it. Saturates at `u128::MAX`.
    pub free: u128,
}

/// What a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUse {
    /// Whom it is about.
    pub service: ObjectName,
    /// In the order of its families.
    pub addresses: Vec<Held>,
    /// Families that it wants and has not.
    pub missing: Vec<Missing>,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub address: IpAddr,
    /// The name of its pool.
    pub pool: Text,
    /// How the Service came to have it.
    pub reason: Reason,
}

/// How a Service came to have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It had it before.
    Kept,
    /// It asks for it.
    Asked,
    /// The site file reserves it.
    Reserved,
    /// It joined Services with its sharing key.
    Shared,
    /// It was the lowest free one.
    Free,
}

/// A family that a Service wants and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The family.
    pub family: Family,
    /// Why, for people.
    pub why: String,
}

/// Assigns addresses.
pub fn assign(snapshot: &Snapshot) -> Assigned {
    let mut findings = Vec::new();
    let claims = claim::claims(snapshot, &mut findings);
    if snapshot.site.pools.is_empty() {
        let services = claims.iter().map(|claim| claim.without_pools(&mut findings)).collect();
        return Assigned { findings, services, ..Assigned::default() };
    }
    let mut round = round::Round::new(snapshot, claims);
    round.run();
    report::report(&round, findings)
}

/// In which Services what was assigned is not what this snapshot comes to, in words: the node that assigns has other objects or
/// pools. Nothing where the two agree; each change makes them differ for a moment.
pub fn differences(snapshot: &Snapshot) -> Vec<String> {
    let (own, theirs) = (assign(snapshot).assignments, &snapshot.facts.assigned);
    let shown = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let missing = own.iter().filter(|(name, _)| theirs.of(name).is_empty());
    let missing = missing.map(|(name, _)| format!("{name} has no address, and would get one here"));
    let others = theirs.iter().filter_map(|(name, addresses)| match own.of(name) {
        [] => Some(format!("{name} has {}, and would have none here", shown(addresses))),
        here if here != addresses => {
            Some(format!("{name} has {}, and would have {} here", shown(addresses), shown(here)))
        }
        _ => None,
    });
    missing.chain(others).collect()
}

/// Whether a Service gets its addresses from us.
pub fn is_ours(service: &Service) -> bool {
    service.kind == ServiceType::LoadBalancer && service.load_balancer_class().is_none_or(|class| **class == *CLASS)
}
