//! What a pool of addresses says beside its addresses: the nodes that announce them, and what is reserved.

use std::collections::BTreeMap;

use super::Report;
use crate::model::site::{Pool, Reservation, Role, Site};
use crate::model::{Code, Family, IpRange, NodeName, ObjectName};
use crate::parse::object::nearest;
use crate::plan::ipam::Space;

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    for (index, pool) in site.pools.iter().enumerate() {
        let field = format!("pools[{index}]");
        nodes(site, pool, &format!("{field}.nodes"), &pool.nodes, report);
        nodes(site, pool, &format!("{field}.preferredNodes"), &pool.preferred_nodes, report);
        never_preferred(site, pool, &field, report);
    }
    if let Some(first) = site.pools.first()
        && site.lan.subnets.is_empty()
    {
        let message =
            format!("nobody says in which network the addresses of pool `{}` lie: no node announces them", first.name);
        report.add(Code::SiteMissing, "pools", message, "add `lan.subnets`");
    }
    reservations(site, report);
}

fn nodes(site: &Site, pool: &Pool, field: &str, names: &[NodeName], report: &mut Report<'_>) {
    for (position, name) in names.iter().enumerate() {
        let field = format!("{field}[{position}]");
        if names[..position].contains(name) {
            report.add(
                Code::SiteDuplicate,
                field,
                format!("`{name}` is written a second time"),
                "leave one of them out",
            );
            continue;
        }
        let Some(node) = site.node(name) else {
            let all: Vec<&str> = site.nodes.iter().map(|node| node.name.as_str()).collect();
            let help = match nearest(name.as_str(), &all) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the nodes are `{}`", all.join("`, `")),
            };
            report.add(Code::SiteValue, field, format!("there is no node `{name}`"), help);
            continue;
        };
        if !node.has(Role::VirtualIps) {
            let message =
                format!("node `{name}` announces nothing of pool `{}`: it has no role `virtual-ips`", pool.name);
            report.add(Code::SiteRole, field, message, "give it the role, or leave it out here");
        }
    }
}

/// Only where the node could announce.
fn never_preferred(site: &Site, pool: &Pool, field: &str, report: &mut Report<'_>) {
    let could = |name: &NodeName| site.node(name).is_some_and(|node| node.has(Role::VirtualIps));
    let outside = |name: &&NodeName| !pool.nodes.is_empty() && !pool.nodes.contains(name) && could(name);
    for (position, name) in pool.preferred_nodes.iter().enumerate().filter(|(_, name)| outside(name)) {
        let message = format!("`{name}` is preferred, but not among the `nodes` of pool `{}`", pool.name);
        report.add(Code::SiteTrap, format!("{field}.preferredNodes[{position}]"), message, "add it to `nodes`");
    }
}

/// A range that is reserved.
struct Reserved<'a> {
    range: IpRange,
    reservation: &'a Reservation,
    field: String,
}

fn reservations(site: &Site, report: &mut Report<'_>) {
    let mut earlier: Vec<Reserved<'_>> = Vec::new();
    let mut of_service: BTreeMap<(&ObjectName, Family), String> = BTreeMap::new();
    for (index, pool) in site.pools.iter().enumerate() {
        for (position, reservation) in pool.reserved.iter().enumerate() {
            for (part, range) in reservation.ranges.iter().enumerate() {
                let field = format!("pools[{index}].reserved[{position}].addresses[{part}]");
                let reserved = Reserved { range: *range, reservation, field };
                outside(pool, &reserved, report);
                twice(&earlier, &reserved, report);
                second_of_a_service(&mut of_service, &reserved, report);
                earlier.push(reserved);
            }
        }
    }
}

/// Ranges of a pool may touch, so that a reservation may lie in two of them.
fn outside(pool: &Pool, reserved: &Reserved<'_>, report: &mut Report<'_>) {
    let family = reserved.range.family();
    let whole = Space::of(pool.ranges.iter(), family);
    let rest = Space::of([&reserved.range], family).without(&whole);
    if !rest.is_empty() {
        let message = format!("`{}` lies outside of pool `{}`", reserved.range, pool.name);
        report.add(Code::SiteOutside, &reserved.field, message, "reserve addresses of the pool itself");
    }
}

fn twice(earlier: &[Reserved<'_>], reserved: &Reserved<'_>, report: &mut Report<'_>) {
    if let Some(other) = earlier.iter().find(|other| other.range.overlaps(&reserved.range)) {
        let message = format!("`{}` is reserved a second time, first in `{}`", reserved.range, other.field);
        report.add(Code::SiteOverlap, &reserved.field, message, "an address is kept for one Service");
    }
}

fn second_of_a_service<'a>(
    of_service: &mut BTreeMap<(&'a ObjectName, Family), String>,
    reserved: &Reserved<'a>,
    report: &mut Report<'_>,
) {
    let Some(service) = &reserved.reservation.service else { return };
    let family = reserved.range.family();
    match of_service.get(&(service, family)) {
        Some(first) => {
            let message =
                format!("a second {family} reservation for Service `{service}`, first in `{first}`, which counts");
            report.add(Code::SiteDuplicate, &reserved.field, message, "a Service has one address of each family");
        }
        None => {
            of_service.insert((service, family), reserved.field.clone());
        }
    }
}
