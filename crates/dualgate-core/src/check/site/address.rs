//! Who has which address: nodes, router, DHCP, pools and the gates' virtual IPs.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Report;
use crate::model::address::is_public;
use crate::model::site::{Pool, RouterKind, Site};
use crate::model::{Code, Family, GateName, IpRange};
use crate::plan::ipam::ends;

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    let claims = claims(site);
    duplicate_node_addresses(site, report);
    repeated_gate_addresses(site, report);
    public_addresses(site, report);
    outside_the_lan(site, &claims, report);
    in_use(site, &claims, report);
    handed_out_by_dhcp(site, &claims, report);
    pools_share(site, report);
    for (index, pool) in site.pools.iter().enumerate() {
        alike_but_unequal(index, pool, report);
    }
}

/// Addresses that dualgate would announce on the LAN: those of pools, and virtual IPs of the internal gate.
struct Claim {
    range: IpRange,
    field: String,
    what: String,
    /// Whether its pool leaves out what ends in .0 and .255.
    avoids_ends: bool,
}

fn claims(site: &Site) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (index, pool) in site.pools.iter().enumerate() {
        for (position, range) in pool.ranges.iter().enumerate() {
            let field = format!("pools[{index}].addresses[{position}]");
            let what = format!("pool `{}`", pool.name);
            claims.push(Claim { range: *range, field, what, avoids_ends: pool.avoid_buggy_ips });
        }
    }
    let gate = site.gates.get(&GateName::Internal);
    for address in site.virtual_addresses(GateName::Internal) {
        let position = gate.and_then(|gate| gate.addresses.iter().position(|own| *own == address)).unwrap_or_default();
        let field = format!("gates.internal.addresses[{position}]");
        let what = "the internal gate".to_owned();
        claims.extend(single(address).map(|range| Claim { range, field, what, avoids_ends: false }));
    }
    claims
}

fn single(address: IpAddr) -> Option<IpRange> {
    IpRange::new(address, address)
}

/// The addresses that both ranges have.
fn shared(a: &IpRange, b: &IpRange) -> Option<IpRange> {
    if a.overlaps(b) { IpRange::new(a.first().max(b.first()), a.last().min(b.last())) } else { None }
}

fn range_of(net: &IpNet) -> Option<IpRange> {
    IpRange::new(net.network(), net.broadcast())
}

fn duplicate_node_addresses(site: &Site, report: &mut Report<'_>) {
    let mut seen: Vec<(IpAddr, String)> = Vec::new();
    for (index, node) in site.nodes.iter().enumerate() {
        let own = node.addresses.iter().enumerate().map(|(at, address)| (format!("addresses[{at}]"), *address));
        let public = node.public_addresses.iter().enumerate();
        let public = public.map(|(at, address)| (format!("publicAddresses[{at}]"), *address));
        // Loopback is every node's own.
        for (field, address) in own.chain(public).filter(|(_, address)| !address.is_loopback()) {
            let field = format!("nodes[{index}].{field}");
            match seen.iter().find(|(taken, _)| *taken == address) {
                Some((_, by)) => {
                    let message = format!("`{address}` is written a second time, first as `{by}`");
                    report.add(Code::SiteDuplicate, field, message, "an address belongs to one node");
                }
                None => seen.push((address, field)),
            }
        }
    }
}

fn public_addresses(site: &Site, report: &mut Report<'_>) {
    for (index, node) in site.nodes.iter().enumerate() {
        for (position, address) in node.public_addresses.iter().enumerate().filter(|(_, a)| !is_public(**a)) {
            let field = format!("nodes[{index}].publicAddresses[{position}]");
            let message = format!("`{address}` cannot be reached from the Internet");
            report.add(Code::SiteValue, field, message, "write the public address; a private one goes to `addresses`");
        }
    }
    let Some(gate) = site.gates.get(&GateName::External) else { return };
    for (position, address) in gate.addresses.iter().enumerate() {
        if !is_public(*address) && !address.is_loopback() && !address.is_unspecified() {
            let message = format!("`{address}` cannot be reached from the Internet");
            let help = "leave `addresses` out to listen on the edge's `publicAddresses`";
            report.add(Code::SiteTrap, format!("gates.external.addresses[{position}]"), message, help);
        }
    }
}

fn outside_the_lan(site: &Site, claims: &[Claim], report: &mut Report<'_>) {
    let subnets: Vec<IpRange> = site.lan.subnets.iter().filter_map(range_of).collect();
    if subnets.is_empty() {
        return;
    }
    let inside = |range: &IpRange| subnets.iter().any(|net| net.contains(range.first()) && net.contains(range.last()));
    for claim in claims.iter().filter(|claim| !inside(&claim.range)) {
        let message = format!("`{}` of {} lies outside the LAN", claim.range, claim.what);
        report.add(
            Code::SiteOutside,
            &claim.field,
            message,
            "nobody on the LAN would ask for it: use addresses of `lan.subnets`",
        );
    }
    for (index, range) in site.lan.dhcp.iter().enumerate().filter(|(_, range)| !inside(range)) {
        let message = format!("`{range}` lies outside the LAN");
        report.add(Code::SiteOutside, format!("lan.dhcp[{index}]"), message, "write the range that the router shows");
    }
    let router = site.lan.router.iter().flat_map(|router| router.addresses.iter().enumerate());
    for (index, address) in router {
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if !link_local && !subnets.iter().any(|net| net.contains(*address)) {
            let message = format!("`{address}` of the router lies outside the LAN");
            report.add(
                Code::SiteOutside,
                format!("lan.router.addresses[{index}]"),
                message,
                "write its address in the LAN",
            );
        }
    }
    for (index, node) in
        site.nodes.iter().enumerate().filter(|(_, node)| node.has(crate::model::site::Role::VirtualIps))
    {
        for (position, address) in node.addresses.iter().enumerate() {
            if !subnets.iter().any(|net| net.contains(*address)) {
                let field = format!("nodes[{index}].addresses[{position}]");
                let message =
                    format!("`{address}` of node `{}`, which announces virtual IPs, lies outside the LAN", node.name);
                report.add(
                    Code::SiteOutside,
                    field,
                    message,
                    "add its subnet to `lan.subnets`, or take the role `virtual-ips` away",
                );
            }
        }
    }
}

/// Addresses that somebody has already.
fn in_use(site: &Site, claims: &[Claim], report: &mut Report<'_>) {
    let mut taken: Vec<(IpAddr, String)> = Vec::new();
    for node in &site.nodes {
        taken.extend(node.addresses.iter().map(|address| (*address, format!("the address of node `{}`", node.name))));
    }
    let router = site.lan.router.iter().flat_map(|router| &router.addresses);
    taken.extend(router.map(|address| (*address, "the router's address".to_owned())));
    for claim in claims {
        for (address, whose) in taken.iter().filter(|(address, _)| claim.range.contains(*address)) {
            let message = format!("`{}` of {} holds `{address}`, {whose}", claim.range, claim.what);
            report.add(
                Code::SiteOverlap,
                &claim.field,
                message,
                "two machines would answer for one address: choose another",
            );
        }
        for net in &site.lan.subnets {
            for address in ends(net).filter(|address| claim.range.contains(*address) && !claim.avoids_ends) {
                let message = format!(
                    "`{}` of {} holds `{address}`, which no machine of `{net}` can have",
                    claim.range, claim.what
                );
                report.add(
                    Code::SiteOverlap,
                    &claim.field,
                    message,
                    "leave out the first address, and the last of IPv4",
                );
            }
        }
    }
    gate_on_a_node(site, report);
}

fn repeated_gate_addresses(site: &Site, report: &mut Report<'_>) {
    for (name, gate) in &site.gates {
        for (position, address) in gate.addresses.iter().enumerate() {
            if gate.addresses[..position].contains(address) {
                let message = format!("`{address}` is written a second time");
                let field = format!("gates.{name}.addresses[{position}]");
                report.add(Code::SiteDuplicate, field, message, "leave one of them out");
            }
        }
    }
}

/// A gate's address may be a node's own only where that node alone serves the gate.
fn gate_on_a_node(site: &Site, report: &mut Report<'_>) {
    for (name, gate) in &site.gates {
        let serving = || site.nodes.iter().filter(|node| node.has(crate::model::site::Role::of_gate(*name)));
        for (position, address) in gate.addresses.iter().enumerate().filter(|(_, a)| !a.is_loopback()) {
            let field = format!("gates.{name}.addresses[{position}]");
            let owner = site
                .nodes
                .iter()
                .find(|node| node.addresses.contains(address) || node.public_addresses.contains(address));
            if let Some(owner) = owner
                && serving().any(|node| node.name != owner.name)
            {
                let message = format!("`{address}` of the {name} gate is the address of node `{}`", owner.name);
                let help = "use an address that no machine has, or leave `addresses` out to listen on each node's own";
                report.add(Code::SiteOverlap, field, message, help);
            }
        }
    }
}

fn handed_out_by_dhcp(site: &Site, claims: &[Claim], report: &mut Report<'_>) {
    for claim in claims.iter().chain(&edges_on_the_lan(site)) {
        for (index, dhcp) in site.lan.dhcp.iter().enumerate() {
            if let Some(both) = shared(&claim.range, dhcp) {
                let message =
                    format!("the router's DHCP server hands out `{both}` of {} (`lan.dhcp[{index}]`)", claim.what);
                let help = "take it out of one of the two; the DHCP range is set in the router";
                report.add(Code::SiteOverlap, &claim.field, message, help);
            }
        }
        // The default holds where nothing else is said.
        let fritzbox = site.lan.router.as_ref().is_some_and(|router| router.kind == RouterKind::Fritzbox);
        let Some(both) = fritzbox_default(site).and_then(|dhcp| shared(&claim.range, &dhcp)) else { continue };
        if fritzbox && !site.lan.dhcp.iter().any(|range| range.family() == Family::V4) {
            let message = format!("a FritzBox hands out `{both}` of {} unless that was changed", claim.what);
            let help = "start its DHCP range behind these addresses (Home Network > Network > IPv4 Settings), and say so in `lan.dhcp`";
            report.add(Code::SiteTrap, &claim.field, message, help);
        }
    }
}

/// The private addresses of edges inside the LAN: a home node answers for them, as for virtual IPs.
fn edges_on_the_lan(site: &Site) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (index, edge) in site.nodes.iter().enumerate().filter(|(_, node)| node.is_edge()) {
        for (position, address) in edge.addresses.iter().enumerate() {
            let field = format!("nodes[{index}].addresses[{position}]");
            let what = format!("node `{}`", edge.name);
            claims.extend(single(*address).map(|range| Claim { range, field, what, avoids_ends: false }));
        }
    }
    claims
}

/// .20 to .200 of its /24.
fn fritzbox_default(site: &Site) -> Option<IpRange> {
    let net = site.lan.subnets.iter().find_map(|net| match net {
        IpNet::V4(net) if net.prefix_len() == 24 => Some(*net),
        IpNet::V4(_) | IpNet::V6(_) => None,
    })?;
    let host = |net: Ipv4Net, last| net.hosts().nth(last).map(IpAddr::V4);
    IpRange::new(host(net, 19)?, host(net, 199)?)
}

fn pools_share(site: &Site, report: &mut Report<'_>) {
    let mut names: Vec<&str> = Vec::new();
    let mut earlier: Vec<(IpRange, String, &str)> = Vec::new();
    for (index, pool) in site.pools.iter().enumerate() {
        if names.contains(&pool.name.as_str()) {
            let message = format!("pool `{}` is written a second time", pool.name);
            report.add(
                Code::SiteDuplicate,
                format!("pools[{index}].name"),
                message,
                "give each pool a name of its own",
            );
        }
        names.push(&pool.name);
        for (position, range) in pool.ranges.iter().enumerate() {
            let field = format!("pools[{index}].addresses[{position}]");
            for (other, at, whose) in &earlier {
                if let Some(both) = shared(range, other) {
                    let message = format!("`{both}` is also in pool `{whose}` (`{at}`)");
                    report.add(Code::SiteOverlap, &field, message, "an address belongs to one pool");
                }
            }
            for address in site.virtual_addresses(GateName::Internal).filter(|address| range.contains(*address)) {
                let message =
                    format!("`{address}` is the internal gate's own, so pool `{}` never hands it out", pool.name);
                report.note(Code::SiteOverlap, &field, message, "");
            }
            earlier.push((*range, field, &pool.name));
        }
    }
}

/// `.10-.20` and `::10-::20` look like pairs, but IPv6 is written in hexadecimal.
fn alike_but_unequal(index: usize, pool: &Pool, report: &mut Report<'_>) {
    for v4 in pool.ranges.iter().filter(|range| range.family() == Family::V4) {
        for (position, v6) in pool.ranges.iter().enumerate().filter(|(_, range)| range.family() == Family::V6) {
            let alike = last_part(v4.first()) == last_part(v6.first()) && last_part(v4.last()) == last_part(v6.last());
            if alike && v4.count() != v6.count() {
                let message = format!("`{v6}` is {} addresses, while `{v4}` is {}", v6.count(), v4.count());
                let help = match as_many(v6, v4.count()) {
                    Some(same) => format!("IPv6 is written in hexadecimal; as many are `{same}`"),
                    None => "IPv6 is written in hexadecimal".to_owned(),
                };
                report.add(Code::SiteTrap, format!("pools[{index}].addresses[{position}]"), message, help);
            }
        }
    }
}

/// The last part of an address as it is written.
fn last_part(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.octets()[3].to_string(),
        IpAddr::V6(address) => format!("{:x}", address.segments()[7]),
    }
}

fn as_many(range: &IpRange, count: u128) -> Option<IpRange> {
    let IpAddr::V6(first) = range.first() else { return None };
    let last = u128::from(first).checked_add(count.checked_sub(1)?)?;
    IpRange::new(range.first(), IpAddr::V6(last.into()))
}
