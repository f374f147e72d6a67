//! The tunnel's ends: their public keys, and that no two of them have the same addresses.

use super::{Report, enumerate};
use crate::model::site::{HomeEnd, Site};
use crate::model::{Code, PublicKey, PublicKeys};
use crate::plan::tunnel::claims::{Claim, Fault, Origin, What, Why, faults_of_site};
use crate::plan::tunnel::{PeerName, ends};

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    let Some(tunnel) = &site.tunnel else { return };
    repeated_keys(site, report);
    if tunnel.home_end == HomeEnd::Router && site.lan.router.is_none() {
        let message = "the router holds home's end of the tunnel, but there is none in `lan`";
        report.add(Code::SiteMissing, "tunnel.homeEnd", message, "describe it in `lan.router`");
        return;
    }
    if !site.nodes.iter().any(|node| node.is_edge()) {
        return;
    }
    let ends = ends(site, tunnel);
    let unknown = ends.iter().filter(|end| end.keys == PublicKeys::Unknown);
    let unknown: Vec<String> = unknown.map(|end| format!("`{}`", end.name)).collect();
    if !unknown.is_empty() {
        let message = format!("the public key of {} is not known: no tunnel leads there yet", enumerate(&unknown));
        let keys = if ends.iter().any(|end| end.name == PeerName::Router) { ", `lan.router.publicKeys`" } else { "" };
        let help = format!("run `dualgate keys init` there, and write what it prints to `nodes[].publicKeys`{keys}");
        report.note(Code::TunnelKey, "tunnel", message, help);
    }
    for fault in faults_of_site(site).iter().filter(|fault| !is_told_elsewhere(site, fault)) {
        if let Origin::Site(field) = &fault.claim.at {
            report.add(fault.code(), field, fault.to_string(), fault.help());
        }
    }
}

fn repeated_keys(site: &Site, report: &mut Report<'_>) {
    let mut seen: Vec<(PublicKey, String)> = Vec::new();
    let nodes = site.nodes.iter().enumerate().map(|(index, node)| (format!("nodes[{index}]"), node.public_keys));
    let router = site.lan.router.as_ref().map(|router| ("lan.router".to_owned(), router.public_keys));
    for (owner, keys) in nodes.chain(router) {
        for (position, key) in keys.iter().enumerate() {
            let field = format!("{owner}.publicKeys[{position}]");
            match seen.iter().find(|(taken, _)| *taken == key) {
                Some((_, first)) => {
                    let message = format!("the key `{key}` is written a second time, first as `{first}`");
                    report.add(Code::SiteDuplicate, field, message, "each end has a key of its own");
                }
                None => seen.push((key, field)),
            }
        }
    }
}

/// An address that two nodes have, pod networks that overlap, or that overlap with the LAN: other rules say so.
fn is_told_elsewhere(site: &Site, fault: &Fault) -> bool {
    let in_lan = |claim: &Claim| {
        let share = |net: &ipnet::IpNet| net.contains(&claim.net) || claim.net.contains(net);
        site.lan.subnets.iter().any(share)
    };
    match &fault.why {
        Why::Endpoint(address) => fault.claim.what == What::Address && fault.claim.net.addr() == *address,
        Why::Taken(with) => fault.claim.what == with.what || (in_lan(&fault.claim) && in_lan(with)),
    }
}
