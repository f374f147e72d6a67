//! The pools as they can be used: what of them may be handed out, to whom, and in which order.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::space::{Space, address, is_buggy, number};
use crate::model::object::Body;
use crate::model::site::{Pool, Site};
use crate::model::{Family, GateName, IpRange, Object, ObjectName, Snapshot, Texts};

/// The label that says what a namespace is called.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pool, by its place in the site file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolIndex(usize);

/// Why an address is not to be had, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Barred {
    /// Somebody else has it, such as "the router's".
    Owned(String),
    /// No pool has it.
    OutsidePools,
    /// Nobody on the LAN would ask for it.
    OutsideLan(PoolIndex),
    /// Its pool leaves out what ends in .0 and .255.
    Buggy(PoolIndex),
}

/// All pools of a site.
pub(super) struct Pools<'a> {
    grounds: Vec<Ground<'a>>,
    /// Those that are used unasked, in their order; those of one group are of equal rank.
    groups: Vec<Vec<PoolIndex>>,
    /// What is never handed out, and whose it is.
    owned: Vec<(IpRange, String)>,
    /// By first address; they do not overlap.
    reserved: BTreeMap<IpAddr, Reserved<'a>>,
    of_service: BTreeMap<&'a ObjectName, BTreeMap<Family, (PoolIndex, Space)>>,
    /// The labels of the namespaces that there is an object of, by name.
    namespaces: BTreeMap<&'a str, &'a Texts>,
}

struct Reserved<'a> {
    last: IpAddr,
    service: Option<&'a ObjectName>,
}

struct Ground<'a> {
    pool: &'a Pool,
    v4: Part,
    v6: Part,
}

impl Ground<'_> {
    fn part(&self, family: Family) -> &Part {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// One family of a pool.
struct Part {
    /// What may be handed out at all.
    all: Space,
    /// What of it is not reserved.
    open: Space,
    /// Below it, everything open is held.
    from: u128,
}

impl<'a> Pools<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let site = &*snapshot.site;
        let owned = owned(snapshot);
        let reserved = reserved(site);
        let kept: Vec<IpRange> = reserved.iter().filter_map(|(first, kept)| IpRange::new(*first, kept.last)).collect();
        let mut earlier: Vec<IpRange> = owned.iter().map(|(range, _)| *range).collect();
        let mut grounds = Vec::new();
        for pool in &site.pools {
            let part = |family| {
                let mut all = Space::of(&pool.ranges, family).without(&Space::of(&earlier, family));
                if !site.lan.subnets.is_empty() {
                    let subnets: Vec<IpRange> = site.lan.subnets.iter().filter_map(range_of).collect();
                    all = all.and(&Space::of(&subnets, family));
                }
                Part { open: all.without(&Space::of(&kept, family)), all, from: 0 }
            };
            grounds.push(Ground { pool, v4: part(Family::V4), v6: part(Family::V6) });
            // An address belongs to the first pool that has it.
            earlier.extend(&pool.ranges);
        }
        let (groups, namespaces) = (groups(site), namespaces(snapshot));
        let mut pools = Self { groups, grounds, owned, reserved, of_service: BTreeMap::new(), namespaces };
        pools.reservations(site);
        pools
    }

    /// Of two reservations for a Service the first one counts.
    fn reservations(&mut self, site: &'a Site) {
        for (index, pool) in site.pools.iter().enumerate() {
            for reservation in &pool.reserved {
                let Some(service) = &reservation.service else { continue };
                for range in &reservation.ranges {
                    let own = self.grounds[index].part(range.family()).all.and(&Space::of([range], range.family()));
                    let is_its_own = self.reserved(range.first()) == Some(Some(service));
                    if is_its_own && !own.is_empty() {
                        let of_service = self.of_service.entry(service).or_default();
                        of_service.entry(range.family()).or_insert((PoolIndex(index), own));
                    }
                }
            }
        }
    }

    pub(super) fn name(&self, index: PoolIndex) -> &'a str {
        &self.grounds[index.0].pool.name
    }

    pub(super) fn names(&self) -> Vec<&'a str> {
        self.grounds.iter().map(|ground| ground.pool.name.as_str()).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = PoolIndex> + use<> {
        (0..self.grounds.len()).map(PoolIndex)
    }

    pub(super) fn find(&self, name: &str) -> Option<PoolIndex> {
        self.grounds.iter().position(|ground| ground.pool.name == name).map(PoolIndex)
    }

    /// The pools that a Service gets addresses from unasked, best first, by rank.
    pub(super) fn unasked(&self, object: &Object) -> Vec<Vec<PoolIndex>> {
        let may = |index: &PoolIndex| self.is_for(*index, object);
        self.groups.iter().map(|group| group.iter().copied().filter(may).collect()).collect()
    }

    /// Whether it may use this pool.
    pub(super) fn is_for(&self, index: PoolIndex, object: &Object) -> bool {
        let pool = self.grounds[index.0].pool;
        let labels = &object.meta.labels;
        self.is_for_namespace(pool, &object.key.name.namespace)
            && pool.service_labels.iter().all(|(key, value)| labels.get(key) == Some(value.as_str()))
    }

    /// Whether Services of this namespace may use it: it is named, or has all the labels.
    fn is_for_namespace(&self, pool: &Pool, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        // The API server gives each namespace its name as a label; a manifest need not have it.
        let label = |key: &str| match key {
            NAME_LABEL => Some(namespace),
            _ => labels?.get(key),
        };
        let is_named = pool.namespaces.iter().any(|own| own == namespace);
        let is_labelled = || pool.namespace_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()));
        match (pool.namespaces.is_empty(), pool.namespace_labels.is_empty()) {
            (true, true) => true,
            (false, true) => is_named,
            (true | false, false) => is_named || is_labelled(),
        }
    }

    pub(super) fn hands_out_unasked(&self, index: PoolIndex) -> bool {
        self.grounds[index.0].pool.auto_assign
    }

    /// Whether it can have addresses of this family.
    pub(super) fn has(&self, index: PoolIndex, family: Family) -> bool {
        !self.grounds[index.0].part(family).all.is_empty()
    }

    /// The pool that an address is of.
    pub(super) fn of_address(&self, of: IpAddr) -> Result<PoolIndex, Barred> {
        let (family, number) = (Family::of(of), number(of));
        let found = self.grounds.iter().position(|ground| ground.part(family).all.contains(number)).map(PoolIndex);
        match found {
            Some(index) if self.leaves_out(index, of) => Err(Barred::Buggy(index)),
            Some(index) => Ok(index),
            None => Err(self.barred(of)),
        }
    }

    fn barred(&self, of: IpAddr) -> Barred {
        if let Some((_, whose)) = self.owned.iter().find(|(range, _)| range.contains(of)) {
            return Barred::Owned(whose.clone());
        }
        let holds = |ground: &Ground<'_>| ground.pool.ranges.iter().any(|range| range.contains(of));
        match self.grounds.iter().position(holds) {
            Some(index) => Barred::OutsideLan(PoolIndex(index)),
            None => Barred::OutsidePools,
        }
    }

    fn leaves_out(&self, index: PoolIndex, of: IpAddr) -> bool {
        self.grounds[index.0].pool.avoid_buggy_ips && is_buggy(of)
    }

    /// Whether an address is reserved, and for whom.
    pub(super) fn reserved(&self, of: IpAddr) -> Option<Option<&'a ObjectName>> {
        let (_, kept) = self.reserved.range(..=of).next_back()?;
        (Family::of(kept.last) == Family::of(of) && of <= kept.last).then_some(kept.service)
    }

    /// What is reserved for a Service.
    pub(super) fn reservation(&self, service: &ObjectName, family: Family) -> Option<(PoolIndex, &Space)> {
        self.of_service.get(service)?.get(&family).map(|(index, space)| (*index, space))
    }

    /// The lowest address of a reservation that nobody holds.
    pub(super) fn reserved_free(
        &self,
        service: &ObjectName,
        family: Family,
        held: impl Fn(IpAddr) -> bool,
    ) -> Option<(PoolIndex, IpAddr)> {
        let (index, space) = self.reservation(service, family)?;
        let mut from = 0;
        loop {
            let number = space.next(from)?;
            let free = address(family, number);
            if !held(free) && !self.leaves_out(index, free) {
                return Some((index, free));
            }
            from = number.checked_add(1)?;
        }
    }

    /// The lowest address of a pool that is neither reserved nor held.
    pub(super) fn free(&mut self, index: PoolIndex, family: Family, held: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let ground = &mut self.grounds[index.0];
        let avoids = ground.pool.avoid_buggy_ips;
        let part = match family {
            Family::V4 => &mut ground.v4,
            Family::V6 => &mut ground.v6,
        };
        loop {
            let number = part.open.next(part.from)?;
            part.from = number;
            let free = address(family, number);
            if !(held(free) || (avoids && is_buggy(free))) {
                return Some(free);
            }
            part.from = number.checked_add(1)?;
        }
    }

    /// An address is free again.
    pub(super) fn released(&mut self, index: PoolIndex, of: IpAddr) {
        let ground = &mut self.grounds[index.0];
        let part = match of {
            IpAddr::V4(_) => &mut ground.v4,
            IpAddr::V6(_) => &mut ground.v6,
        };
        part.from = part.from.min(number(of));
    }

    /// How many addresses it has that may be handed out, and how many of them are not reserved.
    pub(super) fn size(&self, index: PoolIndex, family: Family) -> (u128, u128) {
        let (part, pool) = (self.grounds[index.0].part(family), self.grounds[index.0].pool);
        let count = |space: &Space| match family {
            Family::V4 if pool.avoid_buggy_ips => space.count() - space.count_buggy(),
            Family::V4 | Family::V6 => space.count(),
        };
        (count(&part.all), count(&part.open))
    }
}

/// What is reserved, by first address. Of two reservations of an address the first one counts.
fn reserved(site: &Site) -> BTreeMap<IpAddr, Reserved<'_>> {
    let mut reserved: BTreeMap<IpAddr, Reserved<'_>> = BTreeMap::new();
    for reservation in site.pools.iter().flat_map(|pool| &pool.reserved) {
        for range in &reservation.ranges {
            let before = reserved.range(..=range.last()).next_back();
            if before.is_none_or(|(_, kept)| kept.last < range.first()) {
                reserved.insert(range.first(), Reserved { last: range.last(), service: reservation.service.as_ref() });
            }
        }
    }
    reserved
}

/// By priority; of one priority, those that are for certain Services first.
fn groups(site: &Site) -> Vec<Vec<PoolIndex>> {
    let mut groups: BTreeMap<(bool, Option<u32>, bool), Vec<PoolIndex>> = BTreeMap::new();
    for (index, pool) in site.pools.iter().enumerate().filter(|(_, pool)| pool.auto_assign) {
        let is_for_all =
            pool.namespaces.is_empty() && pool.namespace_labels.is_empty() && pool.service_labels.is_empty();
        let rank = (pool.priority.is_none(), pool.priority, is_for_all);
        groups.entry(rank).or_default().push(PoolIndex(index));
    }
    groups.into_values().collect()
}

fn namespaces(snapshot: &Snapshot) -> BTreeMap<&str, &Texts> {
    let objects = snapshot.objects.of_kind("Namespace").iter();
    objects.map(|object| (&*object.key.name.name, &object.meta.labels)).collect()
}

/// Addresses that others have.
fn owned(snapshot: &Snapshot) -> Vec<(IpRange, String)> {
    let site = &*snapshot.site;
    let mut owned: Vec<(IpAddr, String)> = Vec::new();
    for name in GateName::ALL {
        let addresses = site.gates.get(&name).map(|gate| gate.addresses.as_slice()).unwrap_or_default();
        owned.extend(addresses.iter().map(|address| (*address, format!("the {name} gate's"))));
    }
    for node in &site.nodes {
        let addresses = node.addresses.iter().chain(&node.public_addresses);
        owned.extend(addresses.map(|address| (*address, format!("node `{}`'s", node.name))));
    }
    let router = site.lan.router.iter().flat_map(|router| &router.addresses);
    owned.extend(router.map(|address| (*address, "the router's".to_owned())));
    for object in snapshot.objects.of_kind("Node") {
        if let Body::Node(node) = &object.body {
            owned.extend(node.addresses.iter().map(|address| (*address, format!("node `{}`'s", object.key.name))));
        }
    }
    for net in &site.lan.subnets {
        let ends = ends(net).map(|address| (address, format!("one that no machine of `{net}` can have")));
        owned.extend(ends);
    }
    let single = |(address, whose)| Some((IpRange::new(address, address)?, whose));
    let dhcp = site.lan.dhcp.iter().map(|range| (*range, "one that the router's DHCP server hands out".to_owned()));
    owned.into_iter().filter_map(single).chain(dhcp).collect()
}

/// The network's own address (in IPv6 the routers' anycast address) and IPv4's broadcast address.
pub(crate) fn ends(net: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let last = matches!(net, IpNet::V4(_)).then(|| net.broadcast());
    let has_ends = net.prefix_len() + 1 < net.max_prefix_len();
    [Some(net.network()), last].into_iter().flatten().filter(move |_| has_ends)
}

fn range_of(net: &IpNet) -> Option<IpRange> {
    IpRange::new(net.network(), net.broadcast())
}
