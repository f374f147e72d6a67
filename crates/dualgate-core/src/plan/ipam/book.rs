//! Who holds which address, and with whom it may be shared.

#[expect(clippy::disallowed_types, reason = "only asked by address, never gone through")]
use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use foldhash::fast::FixedState;

use super::pools::PoolIndex;
use crate::model::object::Protocol;
use crate::model::{Family, Texts};

/// A port of a Service.
pub(super) type Port = (Protocol, u16);

/// A Service, by its place among those that are assigned to.
pub(super) type Who = usize;

/// Services with an equal one may have one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sharing<'a> {
    /// What they call it.
    pub(super) key: &'a str,
    /// Where packets go on: to any pod (`Cluster`), or to the pods of one node (`Local`), which must be the same pods
    /// for all, or some of the Services would have none there.
    pub(super) selector: Option<&'a Texts>,
}

/// What a Service brings to an address.
#[derive(Clone, Debug)]
pub(super) struct Tenant<'a> {
    pub(super) sharing: Option<Sharing<'a>>,
    /// Empty where it shares nothing.
    pub(super) ports: BTreeSet<Port>,
}

/// Why an address cannot be shared with who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) with: Who,
    pub(super) why: Unshared,
}

/// What stands between two Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unshared {
    /// They have no sharing key, or not the same.
    Key,
    /// They have `externalTrafficPolicy: Local` and different pods, or only one of them has it.
    Pods,
    /// Both use this port.
    Port(Port),
}

#[expect(clippy::disallowed_types, reason = "only asked by address, never gone through")]
type Map<T> = HashMap<IpAddr, T, FixedState>;

/// Who holds which address.
#[derive(Default)]
pub(super) struct Book<'a> {
    held: Map<Entry<'a>>,
    /// Addresses that others may join.
    shared: BTreeMap<(Sharing<'a>, PoolIndex, Family), Shared>,
}

struct Entry<'a> {
    pool: PoolIndex,
    sharing: Option<Sharing<'a>>,
    ports: BTreeMap<Port, Who>,
    /// At least one.
    tenants: Vec<Who>,
}

/// Addresses that were taken with one key, in that order. As they only fill up, each port remembers where it may still
/// fit, and nobody looks through all of them twice.
#[derive(Default)]
struct Shared {
    addresses: Vec<IpAddr>,
    from: BTreeMap<Port, usize>,
}

impl<'a> Book<'a> {
    pub(super) fn is_held(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address)
    }

    /// Of the Services that have an address, the one that came first.
    pub(super) fn first(&self, address: IpAddr) -> Option<Who> {
        self.held.get(&address)?.tenants.first().copied()
    }

    /// Whether a Service may have an address beside those that have it.
    pub(super) fn admits(&self, address: IpAddr, tenant: &Tenant<'_>) -> Result<(), Conflict> {
        let Some(entry) = self.held.get(&address) else { return Ok(()) };
        let conflict = |why| Err(Conflict { with: entry.tenants[0], why });
        match (entry.sharing, tenant.sharing) {
            (Some(theirs), Some(ours)) if theirs == ours => {}
            (Some(theirs), Some(ours)) if theirs.key == ours.key => return conflict(Unshared::Pods),
            (Some(_) | None, Some(_) | None) => return conflict(Unshared::Key),
        }
        match tenant.ports.iter().find_map(|port| Some((port, entry.ports.get(port)?))) {
            Some((port, with)) => Err(Conflict { with: *with, why: Unshared::Port(*port) }),
            None => Ok(()),
        }
    }

    /// Somebody may join those that hold it: not if it is reserved.
    pub(super) fn hold(&mut self, who: Who, tenant: &Tenant<'a>, pool: PoolIndex, address: IpAddr, joinable: bool) {
        let entry = self.held.entry(address).or_insert_with(|| Entry {
            pool,
            sharing: tenant.sharing,
            ports: BTreeMap::new(),
            tenants: Vec::new(),
        });
        let fresh = entry.tenants.is_empty();
        entry.tenants.push(who);
        entry.ports.extend(tenant.ports.iter().map(|port| (*port, who)));
        if let Some(sharing) = tenant.sharing.filter(|_| fresh && joinable) {
            self.shared.entry((sharing, pool, Family::of(address))).or_default().addresses.push(address);
        }
    }

    pub(super) fn release(&mut self, who: Who, address: IpAddr) {
        let Some(entry) = self.held.get_mut(&address) else { return };
        entry.tenants.retain(|tenant| *tenant != who);
        entry.ports.retain(|_, of| *of != who);
        let shared = entry.sharing.and_then(|sharing| self.shared.get_mut(&(sharing, entry.pool, Family::of(address))));
        if let Some(shared) = shared {
            shared.from.clear();
            if entry.tenants.is_empty() {
                shared.addresses.retain(|other| *other != address);
            }
        }
        if entry.tenants.is_empty() {
            self.held.remove(&address);
        }
    }

    /// An address of the pool that the Service may join.
    pub(super) fn joinable(&mut self, tenant: &Tenant<'a>, pool: PoolIndex, family: Family) -> Option<IpAddr> {
        let shared = self.shared.get_mut(&(tenant.sharing?, pool, family))?;
        let from = tenant.ports.iter().filter_map(|port| shared.from.get(port)).max().copied().unwrap_or_default();
        for (position, address) in shared.addresses.iter().enumerate().skip(from) {
            let entry = self.held.get(address)?;
            let mut taken = tenant.ports.iter().filter(|port| entry.ports.contains_key(port)).peekable();
            if taken.peek().is_none() {
                return Some(*address);
            }
            for port in taken {
                let from = shared.from.entry(*port).or_default();
                if *from == position {
                    *from = position + 1;
                }
            }
        }
        None
    }
}
