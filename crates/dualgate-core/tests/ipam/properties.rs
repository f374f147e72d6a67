//! What holds for every site and all Services, in a home so small that everything collides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dualgate_core::model::object::{Body, FamilyPolicy, Service, ServiceType, TrafficPolicy};
use dualgate_core::model::site::{Pool, Site};
use dualgate_core::model::{Assignments, Family, Object, ObjectName, ObjectSet, Snapshot};
use dualgate_core::plan::ipam::{Assigned, CLASS, assign};
use proptest::prelude::*;
use proptest::sample::select;

use super::{read_objects, read_site, snapshot};

/// The last parts of addresses that anything here is about.
const HOSTS: std::ops::Range<u8> = 8..20;

fn address() -> impl Strategy<Value = String> {
    (HOSTS, any::<bool>()).prop_map(|(host, v4)| if v4 { v4_of(host) } else { v6_of(host) })
}

fn v4_of(host: u8) -> String {
    format!("192.168.178.{host}")
}

/// The same number, in hexadecimal.
fn v6_of(host: u8) -> String {
    format!("fda8::{host:x}")
}

fn pool(index: usize) -> impl Strategy<Value = String> {
    let range = (HOSTS, 0..5u8, any::<bool>()).prop_map(|(first, more, v4)| {
        let of = if v4 { v4_of } else { v6_of };
        format!("'{}-{}'", of(first), of((first + more).min(HOSTS.end - 1)))
    });
    let reserved = (address(), prop::option::of(0..6u8)).prop_map(|(address, service)| match service {
        Some(service) => format!("{{addresses: ['{address}'], service: {}}}", name(service)),
        None => format!("{{addresses: ['{address}']}}"),
    });
    let keys = (
        select(vec!["", ", autoAssign: false"]),
        select(vec!["", ", priority: 1", ", priority: 2"]),
        select(vec!["", ", namespaces: [a]", ", namespaces: [b]"]),
        select(vec!["", ", serviceLabels: {tier: web}"]),
    );
    (prop::collection::vec(range, 1..4), prop::collection::vec(reserved, 0..2), keys).prop_map(
        move |(ranges, reserved, (auto, priority, namespaces, labels))| {
            format!(
                "- {{name: p{index}, addresses: [{}], reserved: [{}]{auto}{priority}{namespaces}{labels}}}\n",
                ranges.join(", "),
                reserved.join(", "),
            )
        },
    )
}

fn sites() -> impl Strategy<Value = Site> {
    let dhcp = select(vec!["", "192.168.178.18-192.168.178.30, 'fda8::12'"]);
    (pool(0), pool(1), pool(2), 0..3usize, dhcp).prop_map(|(a, b, c, count, dhcp)| {
        let pools: String = [a, b, c].into_iter().take(count + 1).collect();
        read_site(&format!(
            "lan: {{subnets: [192.168.178.0/24, 'fda8::/64'], router: {{addresses: [192.168.178.1]}}, dhcp: [{dhcp}]}}\n\
             nodes: [{{name: node1, roles: [internal-gate, virtual-ips], addresses: [192.168.178.9, 'fda8::9']}}]\npools:\n{pools}"
        ))
    })
}

fn name(number: u8) -> String {
    format!("{}/s{number}", if number.is_multiple_of(2) { "a" } else { "b" })
}

/// A Service as a line of a case.
fn service(number: u8) -> impl Strategy<Value = String> {
    let policy = select(vec!["", " policy=Prefer", " policy=Prefer", " policy=Require"]);
    let families = select(vec!["", "", " families=IPv4", " families=IPv6"]);
    let ports = select(vec!["80", "443", "53/UDP", "80,443", "53/UDP,53"]);
    let key = select(vec!["", "", " dualgate.dev/allow-shared-ip=k", " dualgate.dev/allow-shared-ip=l"]);
    let traffic = select(vec!["", "", " traffic=Local selects=web", " traffic=Local selects=dns"]);
    let asked = prop_oneof![
        4 => Just(String::new()),
        1 => address().prop_map(|address| format!(" dualgate.dev/addresses={address}")),
        1 => HOSTS.prop_map(|host| format!(" metallb.io/loadBalancerIPs={},{}", v6_of(host), v4_of(host))),
    ];
    let wish = select(vec!["", "", "", " dualgate.dev/address-pool=p0", " dualgate.dev/address-pool=p9"]);
    let rest = select(vec!["", " label=tier:web", " created=2025", " type=ClusterIP", " class=other.example/class"]);
    (policy, families, ports, key, traffic, asked, wish, rest).prop_map(
        move |(policy, families, ports, key, traffic, asked, wish, rest)| {
            format!("{} ports={ports}{policy}{families}{key}{traffic}{asked}{wish}{rest}\n", name(number))
        },
    )
}

fn services() -> impl Strategy<Value = Vec<String>> {
    let all: Vec<_> = (0..10).map(service).collect();
    (all, 1..=10usize).prop_map(|(services, count)| services.into_iter().take(count).collect())
}

/// Whatever was written down, be it nonsense.
fn had() -> impl Strategy<Value = Assignments> {
    let addresses = prop::collection::vec(address().prop_map(|address| address.parse().unwrap()), 0..3);
    let service = (0..12u8, addresses).prop_map(|(number, addresses): (u8, Vec<IpAddr>)| {
        let full = name(number);
        let (namespace, name) = full.split_once('/').unwrap();
        (ObjectName::new(namespace, name), addresses)
    });
    prop::collection::vec(service, 0..8).prop_map(Assignments::from_iter)
}

fn run(site: &Site, lines: &[String], had: &Assignments) -> (Snapshot, Assigned) {
    let snapshot = snapshot(site.clone(), read_objects(&lines.concat()), had);
    let assigned = assign(&snapshot);
    (snapshot, assigned)
}

/// The Services that addresses are for.
fn ours(snapshot: &Snapshot) -> BTreeMap<&ObjectName, (&Object, &Service)> {
    let mut ours = BTreeMap::new();
    for object in &snapshot.objects.objects {
        if let Body::Service(service) = &object.body
            && service.kind == ServiceType::LoadBalancer
            && service.load_balancer_class().is_none_or(|class| **class == *CLASS)
        {
            ours.insert(&object.key.name, (&**object, &**service));
        }
    }
    ours
}

/// The pool that may hand out an address, found one by one.
fn pool_of(site: &Site, address: IpAddr) -> Option<&Pool> {
    let owned = site.gates.values().any(|gate| gate.addresses.contains(&address))
        || site.nodes.iter().any(|node| node.addresses.contains(&address))
        || site.lan.dhcp.iter().any(|range| range.contains(address));
    site.pools.iter().find(|pool| pool.ranges.iter().any(|range| range.contains(address))).filter(|_| !owned)
}

fn reserved_for(site: &Site, address: IpAddr) -> Option<Option<&ObjectName>> {
    let mut all = site.pools.iter().flat_map(|pool| &pool.reserved);
    all.find(|kept| kept.ranges.iter().any(|range| range.contains(address))).map(|kept| kept.service.as_ref())
}

fn is_for(pool: &Pool, object: &Object) -> bool {
    assert!(pool.namespace_labels.is_empty(), "the cases look at these");
    let labels = pool.service_labels.iter().all(|(key, value)| object.meta.labels.get(key) == Some(value));
    labels && (pool.namespaces.is_empty() || pool.namespaces.contains(&object.key.name.namespace.to_string()))
}

fn annotation<'o>(object: &'o Object, word: &str) -> Option<&'o str> {
    let found = object.meta.annotations.iter().find(|(key, _)| key.ends_with(word));
    found.map(|(_, value)| value)
}

fn asked(object: &Object, family: Family) -> Option<IpAddr> {
    let text = annotation(object, "/addresses").or_else(|| annotation(object, "/loadBalancerIPs"))?;
    text.split(',').map(|part| part.parse().unwrap()).find(|address| Family::of(*address) == family)
}

fn wanted(service: &Service) -> Vec<Family> {
    let first = service.families.first().copied().unwrap_or(Family::V4);
    let other = if first == Family::V4 { Family::V6 } else { Family::V4 };
    match service.family_policy {
        FamilyPolicy::SingleStack => vec![first],
        FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack => vec![first, other],
    }
}

/// Whether two Services may have one address.
fn may_share((a, of_a): (&Object, &Service), (b, of_b): (&Object, &Service)) -> bool {
    let key = |object| annotation(object, "/allow-shared-ip");
    let pods = match (of_a.traffic_policy, of_b.traffic_policy) {
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster) => true,
        (TrafficPolicy::Local, TrafficPolicy::Local) => of_a.selector == of_b.selector,
        (TrafficPolicy::Cluster, TrafficPolicy::Local) | (TrafficPolicy::Local, TrafficPolicy::Cluster) => false,
    };
    let collide = of_a.ports.iter().any(|a| of_b.ports.iter().any(|b| (a.protocol, a.port) == (b.protocol, b.port)));
    key(a).is_some() && key(a) == key(b) && pods && !collide
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_address_is_one_that_its_service_may_have((site, lines, had) in (sites(), services(), had())) {
        let (snapshot, assigned) = run(&site, &lines, &had);
        let ours = ours(&snapshot);
        let mut owners: BTreeMap<IpAddr, Vec<&ObjectName>> = BTreeMap::new();
        for (name, addresses) in assigned.assignments.iter() {
            let (object, service) = ours[name];
            let families: Vec<Family> = addresses.iter().map(|address| Family::of(*address)).collect();
            let mut in_order = wanted(service);
            in_order.retain(|family| families.contains(family));
            prop_assert_eq!(&families, &in_order, "{}", name);
            prop_assert!(families.len() == 2 || service.family_policy != FamilyPolicy::RequireDualStack, "{name}");
            for address in addresses {
                let pool = pool_of(&site, *address);
                prop_assert!(pool.is_some(), "{address} of {name}");
                let pool = pool.unwrap();
                let asked = asked(object, Family::of(*address));
                prop_assert!(asked.is_none_or(|asked| asked == *address), "{name} asks for {asked:?}");
                prop_assert!(annotation(object, "/address-pool").is_none_or(|of| of == pool.name), "{address} of {name}");
                match reserved_for(&site, *address) {
                    Some(service) => prop_assert_eq!(service, Some(name)),
                    None => prop_assert!(is_for(pool, object), "{address} of {name}"),
                }
                owners.entry(*address).or_default().push(name);
            }
        }
        for (address, names) in &owners {
            for (index, name) in names.iter().enumerate() {
                for other in &names[..index] {
                    prop_assert!(may_share(ours[*name], ours[*other]), "{address}: {name} and {other}");
                }
            }
        }
    }

    #[test]
    fn whoever_goes_without_would_find_nothing((site, lines, had) in (sites(), services(), had())) {
        let (snapshot, assigned) = run(&site, &lines, &had);
        let ours = ours(&snapshot);
        let held: BTreeSet<IpAddr> = assigned.assignments.iter().flat_map(|(_, addresses)| addresses).copied().collect();
        let everything_asked: BTreeSet<IpAddr> =
            ours.values().flat_map(|(object, _)| [Family::V4, Family::V6].map(|family| asked(object, family))).flatten().collect();
        for (name, (object, service)) in &ours {
            let has = assigned.assignments.of(name);
            let lacks: Vec<Family> =
                wanted(service).into_iter().filter(|family| !has.iter().any(|address| Family::of(*address) == *family)).collect();
            let told = assigned.services.iter().find(|used| used.service == **name).unwrap();
            let mut missing: Vec<Family> = told.missing.iter().map(|missing| missing.family).collect();
            missing.sort_by_key(|family| wanted(service).iter().position(|wanted| wanted == family));
            prop_assert_eq!(&missing, &lacks, "{}", name);
            let has_finding = assigned.findings.iter().any(|finding| finding.at.object.as_ref() == Some(&object.key));
            prop_assert!(has_finding || !has.is_empty(), "{name} has nothing, and nobody is told");
            if annotation(object, "/address-pool").is_some() || service.family_policy == FamilyPolicy::RequireDualStack {
                continue;
            }
            for family in lacks.into_iter().filter(|family| asked(object, *family).is_none()) {
                let free = HOSTS.map(|host| if family == Family::V4 { v4_of(host) } else { v6_of(host) }).map(|text| text.parse().unwrap());
                for address in free.filter(|address| !held.contains(address) && !everything_asked.contains(address)) {
                    let pool = pool_of(&site, address).filter(|pool| pool.auto_assign && is_for(pool, object));
                    prop_assert!(pool.is_none() || reserved_for(&site, address).is_some(), "{address} would be there for {name}");
                }
            }
        }
    }

    #[test]
    fn what_is_assigned_is_assigned_again((site, lines, had) in (sites(), services(), had())) {
        let (_, once) = run(&site, &lines, &had);
        let (_, twice) = run(&site, &lines, &once.assignments);
        prop_assert_eq!(&twice.assignments, &once.assignments);
        prop_assert_eq!(&twice.findings, &once.findings);
        prop_assert_eq!(&twice.pools, &once.pools);
    }

    #[test]
    fn a_service_that_comes_or_goes_moves_no_other((site, lines, had, at) in (sites(), services(), had(), any::<prop::sample::Index>())) {
        let at = at.index(lines.len());
        let mut fewer = lines.clone();
        let line = fewer.remove(at);
        let (_, before) = run(&site, &fewer, &had);
        let (_, with) = run(&site, &lines, &before.assignments);
        for (name, addresses) in before.assignments.iter() {
            prop_assert_eq!(addresses, with.assignments.of(name), "{} comes", line);
        }
        let (_, without) = run(&site, &fewer, &with.assignments);
        for (name, addresses) in with.assignments.iter().filter(|(name, _)| !line.starts_with(&format!("{name} "))) {
            let kept = addresses.iter().all(|address| without.assignments.of(name).contains(address));
            prop_assert!(kept, "{line} goes: {name} had {addresses:?}");
        }
    }

    #[test]
    fn the_order_of_the_objects_changes_nothing((site, lines, had) in (sites(), services(), had())) {
        let (snapshot, assigned) = run(&site, &lines, &had);
        let mut objects = snapshot.objects.objects.clone();
        objects.reverse();
        let len = objects.len();
        objects.rotate_left(len / 3);
        let shuffled = Arc::new(ObjectSet { objects, findings: Vec::new() });
        let again = assign(&Snapshot { objects: shuffled, ..snapshot });
        let sorted = |assigned: &Assigned| {
            let mut findings: Vec<String> = assigned.findings.iter().map(ToString::to_string).collect();
            findings.sort();
            findings
        };
        prop_assert_eq!(sorted(&again), sorted(&assigned));
        prop_assert_eq!((again.assignments, again.pools, again.services), (assigned.assignments, assigned.pools, assigned.services));
    }

    #[test]
    fn every_address_of_a_pool_is_counted_once((site, lines, had) in (sites(), services(), had())) {
        let (_, assigned) = run(&site, &lines, &had);
        let held: BTreeSet<IpAddr> = assigned.assignments.iter().flat_map(|(_, addresses)| addresses).copied().collect();
        for (pool, used) in site.pools.iter().zip(&assigned.pools) {
            for (of, count) in [(v4_of as fn(u8) -> String, used.v4), (v6_of, used.v6)] {
                let all = HOSTS.map(|host| of(host).parse().unwrap());
                let all: Vec<IpAddr> = all.filter(|address| pool_of(&site, *address).is_some_and(|of| of.name == pool.name)).collect();
                let number = |what: &dyn Fn(&IpAddr) -> bool| all.iter().filter(|address| what(address)).count() as u128;
                prop_assert_eq!(count.used, number(&|address| held.contains(address)));
                prop_assert_eq!(count.reserved, number(&|address| !held.contains(address) && reserved_for(&site, *address).is_some()));
                prop_assert_eq!(count.used + count.reserved + count.free, all.len() as u128);
            }
        }
    }
}
