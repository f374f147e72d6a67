//! What each Service of type LoadBalancer wants.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::book::{Sharing, Tenant};
use super::pools::{Barred, PoolIndex};
use super::{Missing, Reason, ServiceUse, is_ours};
use crate::lower::OfLoadBalancer;
use crate::model::object::{Body, FamilyPolicy, Service, TrafficPolicy};
use crate::model::site::Site;
use crate::model::{Code, Family, Finding, Object, ObjectName, Severity, Snapshot};

/// What a Service wants, and what it has so far.
pub(super) struct Claim<'a> {
    pub(super) object: &'a Object,
    pub(super) policy: FamilyPolicy,
    /// Those that it wants, in order; those that it cannot have are in `missing`.
    pub(super) families: Vec<Family>,
    pub(super) asks: OfLoadBalancer<'a>,
    /// What it had.
    pub(super) former: Cow<'a, [IpAddr]>,
    pub(super) service: &'a Service,
    /// At most one of each family.
    pub(super) held: Vec<Grant>,
    pub(super) missing: BTreeMap<Family, Why>,
}

/// An address that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) address: IpAddr,
    pub(super) pool: PoolIndex,
    pub(super) reason: Reason,
}

/// Why it has no address of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// What it asks for is not to be had.
    Refused(IpAddr, Refusal),
    /// It asks for a pool that does not exist.
    UnknownPool,
    /// It asks for a pool that is for others.
    ForeignPool(PoolIndex),
    /// No pool is for it.
    NoPool,
    /// No pool that is for it has addresses of the family.
    NoFamily,
    /// These have nothing left.
    Exhausted(Vec<PoolIndex>),
    /// The cluster has no such Services.
    NotInCluster,
    /// It needs both, and the other one is missing.
    Other,
}

/// Why it cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody can.
    Barred(Barred),
    /// It is of another pool than it asks for.
    OtherPool(PoolIndex),
    /// Its pool is for others.
    ForeignPool(PoolIndex),
    /// It is reserved: for another Service, or from all.
    Reserved(PoolIndex, Option<ObjectName>),
    /// Another Service has it.
    Held(super::book::Conflict),
}

impl<'a> Claim<'a> {
    pub(super) fn name(&self) -> &'a ObjectName {
        &self.object.key.name
    }

    /// What it has in this family.
    pub(super) fn held(&self, family: Family) -> Option<&Grant> {
        self.held.iter().find(|grant| Family::of(grant.address) == family)
    }

    /// What it asks for in this family.
    pub(super) fn asked(&self, family: Family) -> Option<IpAddr> {
        let asked = self.asks.addresses.as_ref()?;
        asked.value.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// What it brings to an address.
    pub(super) fn tenant(&self) -> Tenant<'a> {
        let selector = match self.service.traffic_policy {
            TrafficPolicy::Cluster => None,
            TrafficPolicy::Local => Some(&self.service.selector),
        };
        let sharing = self.asks.sharing.as_ref().map(|asked| Sharing { key: asked.value, selector });
        let ports = self.service.ports.iter().map(|port| (port.protocol, port.port));
        // Whoever shares nothing collides with everybody.
        Tenant { sharing, ports: ports.filter(|_| sharing.is_some()).collect() }
    }

    /// A site without pools assigns nothing; another load balancer may.
    pub(super) fn without_pools(&self, findings: &mut Vec<Finding>) -> ServiceUse {
        let why = "the site file has no `pools`".to_owned();
        let message = format!("it gets no address: {why}");
        let finding = Finding::new(Code::AddressPoolExhausted, self.object.place("spec.type"), message);
        findings.push(Finding {
            severity: Severity::Note,
            ..finding.help("add a pool, unless another load balancer serves it")
        });
        let missing = self.families.iter().map(|family| Missing { family: *family, why: why.clone() }).collect();
        ServiceUse { service: self.name().clone(), addresses: Vec::new(), missing }
    }
}

/// The claims of all Services that are ours, by name.
pub(super) fn claims<'a>(snapshot: &'a Snapshot, findings: &mut Vec<Finding>) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for object in snapshot.objects.of_kind("Service") {
        let Body::Service(service) = &object.body else { continue };
        if is_ours(service) {
            claims.push(claim(&snapshot.site, object, service, findings));
        }
    }
    claims.sort_by_key(|claim| claim.name());
    // Both are in order, so nobody is looked for.
    let mut assigned = snapshot.facts.assigned.iter().peekable();
    for claim in &mut claims {
        while assigned.next_if(|(name, _)| *name < claim.name()).is_some() {}
        if let Some((_, addresses)) =
            assigned.next_if(|(name, addresses)| *name == claim.name() && !addresses.is_empty())
        {
            claim.former = addresses.into();
        }
    }
    claims
}

fn claim<'a>(site: &Site, object: &'a Object, service: &'a Service, findings: &mut Vec<Finding>) -> Claim<'a> {
    let asks = OfLoadBalancer::read(object, service, findings);
    let (families, missing) = families(site, service);
    let claim = Claim {
        object,
        service,
        policy: service.family_policy,
        families,
        asks,
        former: service.published_addresses().collect(),
        held: Vec::new(),
        missing,
    };
    let asked = claim.asks.addresses.iter().flat_map(|asked| asked.value.iter().map(move |address| (asked, address)));
    let has = |address: IpAddr| claim.families.is_empty() || claim.families.contains(&Family::of(address));
    for (asked, address) in asked.filter(|(_, address)| !has(**address)) {
        let message = format!("it asks for `{address}`, and has no {}", Family::of(*address));
        let finding = Finding::new(Code::AddressFamily, object.place(asked.field.as_str()), message);
        findings.push(finding.help("set `spec.ipFamilies`, or `ipFamilyPolicy: PreferDualStack` for both"));
    }
    claim
}

/// The families that a Service wants, in order, and those that it needs and the cluster does not have.
fn families(site: &Site, service: &Service) -> (Vec<Family>, BTreeMap<Family, Why>) {
    let of_cluster = || site.cluster.service_cidrs.iter().map(|net| Family::of(net.addr()));
    let of_lan = || site.lan.subnets.iter().map(|net| Family::of(net.addr()));
    let first = service.families.first().copied();
    let first = first.or_else(|| of_cluster().next()).or_else(|| of_lan().next()).unwrap_or(Family::V4);
    let other = match first {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    // A Service that names both has them from an API server, which knows.
    let has_other =
        service.families.contains(&other) || of_cluster().next().is_none() || of_cluster().any(|of| of == other);
    match (service.family_policy, has_other) {
        (FamilyPolicy::SingleStack, _) | (FamilyPolicy::PreferDualStack, false) => (vec![first], BTreeMap::new()),
        (FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack, true) => (vec![first, other], BTreeMap::new()),
        (FamilyPolicy::RequireDualStack, false) => {
            (Vec::new(), BTreeMap::from([(first, Why::Other), (other, Why::NotInCluster)]))
        }
    }
}
