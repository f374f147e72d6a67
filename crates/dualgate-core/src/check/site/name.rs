//! Names: zones, aliases, resolvers and certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dualgate_wire::dns::RecordType;

use super::{Report, enumerate};
use crate::model::address::is_public as is_public_address;
use crate::model::site::{
    Alias, CONTROLLER, Certificates, Challenge, Class, Dns, EntryProtocol, Gate, Publish, RecordView, Role, RouterKind,
    Site, ZoneRecord,
};
use crate::model::{Code, GateName, Host};

pub(super) fn check(site: &Site, report: &mut Report<'_>) {
    aliases(site, report);
    classes(site, report);
    unique_local(site, report);
    dns_roles(site, report);
    if let Some(dns) = &site.dns {
        zones(dns, report);
        records(dns, report);
        listening(site, dns, report);
        elsewhere(dns, report);
        providers(dns, report);
        public_dns(site, dns, report);
        forward_loops(site, dns, report);
        fritzbox(site, dns, report);
    }
    if let Some(certificates) = &site.certificates {
        challenges(site, certificates, report);
    }
}

/// Names that look private but belong to somebody else or to nobody, and what is known about them.
fn not_ours(host: &Host) -> Option<&'static str> {
    match host.as_str().rsplit('.').next().unwrap_or_default() {
        "local" => Some("`.local` is for multicast DNS (RFC 6762)"),
        "home" | "lan" | "localdomain" | "corp" | "intranet" | "private" => {
            Some("nobody has reserved this ending for homes")
        }
        _ if within(host, "fritz.box") => Some("`fritz.box` is answered by the FritzBox itself"),
        _ => None,
    }
}

/// Endings that are reserved for use at home, so that no public certificate and no public view can exist.
fn home_only(host: &Host) -> bool {
    within(host, "home.arpa") || within(host, "internal")
}

fn within(host: &Host, domain: &str) -> bool {
    host.as_str().strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn home_name(host: &Host, field: &str, report: &mut Report<'_>) {
    if let Some(reason) = not_ours(host) {
        let message = format!("`{host}` is not a name for a home: {reason}");
        report.add(Code::SiteTrap, field, message, "use `home.arpa` (RFC 8375) or a domain of your own");
    }
}

fn aliases(site: &Site, report: &mut Report<'_>) {
    let mut homes = BTreeSet::new();
    for (index, alias) in site.aliases.iter().enumerate() {
        let (Alias::Name { of, home } | Alias::Domain { of, home }) = alias;
        let field = format!("aliases[{index}].home");
        home_name(home, &field, report);
        if of == home {
            report.add(Code::SiteValue, &field, format!("`{home}` is its own alias"), "leave it out");
        }
        if !homes.insert(home) {
            let message = format!("`{home}` stands for two names");
            report.add(Code::SiteDuplicate, &field, message, "a home name stands for one public name");
        }
    }
}

fn classes(site: &Site, report: &mut Report<'_>) {
    for (index, class) in site.classes.iter().enumerate() {
        let same = |earlier: &&Class| earlier.name == class.name && earlier.controller == class.controller;
        if site.classes[..index].iter().any(|earlier| same(&earlier)) {
            let what = class.name.as_deref().unwrap_or(&class.controller);
            let message = format!("class `{what}` is written a second time");
            report.add(Code::SiteDuplicate, format!("ingressClasses[{index}]"), message, "leave one of them out");
        }
        default_class(site, index, class, report);
    }
}

fn default_class(site: &Site, index: usize, class: &Class, report: &mut Report<'_>) {
    let field = format!("ingressClasses[{index}].default");
    if class.is_default && class.controller != CONTROLLER {
        let message = format!("`{}` makes its own classes, and decides which is the default", class.controller);
        report.add(Code::SiteValue, &field, message, "leave it out, or make a class of dualgate's the default");
    }
    if class.is_default && site.classes[..index].iter().any(|earlier| earlier.is_default) {
        report.add(Code::SiteDuplicate, &field, "a second default class", "a cluster has one default class");
    }
}

/// RFC 6724 prefers IPv4 to fc00::/7, and a FritzBox stops announcing its ULA prefix.
fn unique_local(site: &Site, report: &mut Report<'_>) {
    let Some(gate) = site.gates.get(&GateName::Internal) else { return };
    let has_v4 = gate.addresses.iter().any(IpAddr::is_ipv4);
    let router = site.lan.router.as_ref().map(|router| router.kind);
    for address in site.virtual_addresses(GateName::Internal) {
        let IpAddr::V6(v6) = address else { continue };
        let position = gate.addresses.iter().position(|own| *own == address).unwrap_or_default();
        let mut facts = Vec::new();
        if has_v4 {
            facts.push("clients with both families prefer IPv4 to it (RFC 6724)".to_owned());
        }
        if router == Some(RouterKind::Fritzbox) {
            facts.push("a FritzBox stops announcing its prefix once it has IPv6 from the Internet".to_owned());
        }
        if !v6.is_unique_local() || facts.is_empty() {
            continue;
        }
        let message = format!("`{address}` is a unique local address: {}", enumerate(&facts));
        let help = match router {
            Some(RouterKind::Fritzbox) => "set the FritzBox to always assign unique local addresses, with this prefix",
            Some(RouterKind::Other) | None => "",
        };
        report.note(Code::SiteTrap, format!("gates.internal.addresses[{position}]"), message, help);
    }
}

fn dns_roles(site: &Site, report: &mut Report<'_>) {
    let serving = site.nodes.iter().position(|node| node.has(Role::Dns));
    match (&site.dns, serving) {
        (Some(_), None) => {
            report.add(
                Code::SiteRole,
                "dns",
                "no node answers DNS",
                "give the home nodes, and for public zones the edge, the role `dns`",
            );
        }
        (None, Some(index)) => {
            let message = format!("node `{}` answers DNS, but the site has no `dns`", site.nodes[index].name);
            report.add(Code::SiteRole, format!("nodes[{index}].roles"), message, "add `dns` with its zones");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn zones(dns: &Dns, report: &mut Report<'_>) {
    let mut names = BTreeSet::new();
    for (index, zone) in dns.zones.iter().enumerate() {
        let field = |key: &str| format!("dns.zones[{index}].{key}");
        home_name(&zone.name, &field("name"), report);
        if !names.insert(&zone.name) {
            let message = format!("zone `{}` is written a second time", zone.name);
            report.add(Code::SiteDuplicate, field("name"), message, "leave one of them out");
        }
        if home_only(&zone.name) && zone.publish != Publish::HomeOnly {
            let message = format!("`{}` can have no public view", zone.name);
            report.add(Code::SiteValue, field("publish"), message, "use `home-only`");
        }
    }
}

fn records(dns: &Dns, report: &mut Report<'_>) {
    for (number, zone) in dns.zones.iter().enumerate() {
        for (index, record) in zone.records.iter().enumerate() {
            let at = format!("dns.zones[{number}].records[{index}]");
            let is_public = zone.publish != Publish::HomeOnly && record.view != RecordView::Home;
            if let (true, Some(private)) =
                (is_public, record.data.addresses().into_iter().find(|a| !is_public_address(*a)))
            {
                let message = format!("`{private}` is an address of home: it is left out of the public view");
                report.add(Code::DnsPrivateAddress, format!("{at}.value"), message, "set `view: home`");
            }
            if zone.publish == Publish::HomeOnly && record.view == RecordView::Public {
                let message = format!("`{}` has no public view: nobody sees the record", zone.name);
                report.add(Code::DnsRecord, format!("{at}.view"), message, "set another view, or publish the zone");
            }
            let meets = |other: &ZoneRecord| {
                record.view == RecordView::Both || other.view == RecordView::Both || other.view == record.view
            };
            let others = zone.records.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
            let excluded = others.filter(|other| other.name == record.name && meets(other)).count() > 0;
            if record.data.record_type() != RecordType::CNAME {
                continue;
            }
            let (message, help) = if record.name.to_string() == zone.name.as_str() {
                let message = format!("`{}` is the zone itself, which cannot be a CNAME: it is left out", record.name);
                (message, "write addresses (RFC 1034 3.6.2)")
            } else if excluded {
                let message = format!("`{}` is a CNAME and something else: only the CNAME counts", record.name);
                (message, "leave one of them out, or write addresses (RFC 1034 3.6.2)")
            } else {
                continue;
            };
            report.add(Code::DnsRecord, at, message, help);
        }
    }
}

/// Nobody answers ARP or NDP for an address that is neither a node's nor a virtual IP.
fn listening(site: &Site, dns: &Dns, report: &mut Report<'_>) {
    let held: BTreeSet<IpAddr> = site
        .nodes
        .iter()
        .flat_map(|node| node.addresses.iter().copied())
        .chain(site.virtual_addresses(GateName::Internal))
        .collect();
    for (index, socket) in dns.addresses.iter().enumerate() {
        if !socket.ip().is_loopback() && !held.contains(&socket.ip()) {
            let message = format!("`{}` is no address of a node or of the internal gate: nobody has it", socket.ip());
            let help = "write one of `gates.internal.addresses`, or leave `addresses` out";
            report.add(Code::SiteRole, format!("dns.addresses[{index}]"), message, help);
        }
    }
}

fn elsewhere(dns: &Dns, report: &mut Report<'_>) {
    for (index, zone) in dns.zones.iter().enumerate() {
        if let (Publish::Provider(provider), true) = (&zone.publish, dns.forward.is_empty()) {
            let message = format!(
                "whatever else `{}` has at {provider} is refused at home: `dns.forward` names nobody to ask",
                zone.name
            );
            report.add(
                Code::SiteTrap,
                format!("dns.zones[{index}].publish"),
                message,
                "name a resolver of the router or of the Internet",
            );
        }
    }
    let mut names = BTreeSet::new();
    for (index, zone) in dns.forward_zones.iter().enumerate() {
        let field = format!("dns.forwardZones[{index}]");
        if !names.insert(&zone.name) {
            report.add(
                Code::SiteDuplicate,
                format!("{field}.name"),
                format!("`{}` is written a second time", zone.name),
                "leave one of them out",
            );
        }
        if zone.to.is_empty() {
            report.add(
                Code::SiteMissing,
                format!("{field}.to"),
                format!("nobody is asked about `{}`", zone.name),
                "name a resolver",
            );
        }
    }
}

/// Zones and providers that do not meet.
fn providers(dns: &Dns, report: &mut Report<'_>) {
    let mut used = BTreeSet::new();
    for (index, zone) in dns.zones.iter().enumerate() {
        let Publish::Provider(name) = &zone.publish else { continue };
        used.insert(name.as_str());
        let field = format!("dns.zones[{index}].publish");
        let Some(provider) = dns.providers.get(name) else {
            let message =
                format!("`dns.providers` has no `{name}`: nobody writes the records of `{}` there", zone.name);
            match dns.providers.is_empty() {
                true => {
                    report.note(Code::SiteTrap, field, message, "add it, or carry them over with `dualgate dns export`")
                }
                false => report.add(Code::SiteMissing, field, message, "name one of `dns.providers`"),
            }
            continue;
        };
        let holds = |there: &Host| zone.name == *there || zone.name.as_str().ends_with(&format!(".{there}"));
        if let Some(there) = provider.zone.as_ref().filter(|there| !holds(there)) {
            let message = format!("zone `{}` is no part of `{there}`, the zone of `{name}`", zone.name);
            report.add(
                Code::SiteValue,
                field,
                message,
                format!("set `dns.providers.{name}.zone` to a zone that holds it"),
            );
        }
    }
    for name in dns.providers.keys().filter(|name| !used.contains(name.as_str())) {
        let message = format!("no zone lives at `{name}`");
        let help = format!("set `publish: provider:{name}` of a zone, or leave it out");
        report.add(Code::SiteTrap, format!("dns.providers.{name}"), message, help);
    }
}

fn public_dns(site: &Site, dns: &Dns, report: &mut Report<'_>) {
    let at_edge = dns.zones.iter().position(|zone| zone.publish == Publish::Edge);
    let wants_dns01 = site.certificates.as_ref().is_some_and(|own| own.challenges.contains(&Challenge::Dns01));
    match (at_edge, dns.public) {
        (Some(index), false) => {
            let message = format!(
                "`{}` is published at the edge, but `dns.public` is off: port 53 stays closed",
                dns.zones[index].name
            );
            report.add(Code::SiteRole, format!("dns.zones[{index}].publish"), message, "set `dns.public: true`");
        }
        (Some(index), true) if !site.nodes.iter().any(|node| node.has(Role::ExternalGate) && node.has(Role::Dns)) => {
            let message = format!("`{}` is published at the edge, where no node answers DNS", dns.zones[index].name);
            report.add(Code::SiteRole, format!("dns.zones[{index}].publish"), message, "give the edge the role `dns`");
        }
        (None, true) if !wants_dns01 => {
            let message = "port 53 is open to the Internet, but no zone is published at the edge";
            report.add(Code::SiteTrap, "dns.public", message, "set it to `false`, or a zone to `publish: edge`");
        }
        (Some(_) | None, true) | (None, false) => {}
    }
}

fn forward_loops(site: &Site, dns: &Dns, report: &mut Report<'_>) {
    let own: BTreeSet<IpAddr> = (site.nodes.iter().filter(|node| node.has(Role::Dns)))
        .flat_map(|node| node.addresses.iter().chain(&node.public_addresses).copied())
        .chain(site.virtual_addresses(GateName::Internal))
        .collect();
    let everything = dns.forward.iter().enumerate().map(|(index, at)| (format!("dns.forward[{index}]"), at));
    let of_zones = dns.forward_zones.iter().enumerate().flat_map(|(zone, forward)| {
        forward.to.iter().enumerate().map(move |(index, at)| (format!("dns.forwardZones[{zone}].to[{index}]"), at))
    });
    for (field, resolver) in everything.chain(of_zones) {
        if resolver.address.port() == 53 && own.contains(&resolver.address.ip()) {
            let message =
                format!("`{}` is dualgate itself, so that questions would go round in a circle", resolver.address.ip());
            report.add(Code::SiteTrap, field, message, "name a resolver of the router or of the Internet");
        }
    }
}

fn fritzbox(site: &Site, dns: &Dns, report: &mut Report<'_>) {
    let fritzbox = site.lan.router.as_ref().is_some_and(|router| router.kind == RouterKind::Fritzbox);
    if !fritzbox || dns.zones.is_empty() {
        return;
    }
    let resolvers: Vec<String> =
        site.virtual_addresses(GateName::Internal).map(|address| format!("`{address}`")).collect();
    let zones: Vec<String> = dns.zones.iter().map(|zone| format!("`{}`", zone.name)).collect();
    let resolvers =
        if resolvers.is_empty() { "the nodes with the role `dns`".to_owned() } else { enumerate(&resolvers) };
    let help = format!(
        "announce {resolvers} as local DNS server, for IPv6 also by router advertisement, and except {} from its rebind protection",
        enumerate(&zones)
    );
    report.note(
        Code::SiteTrap,
        "dns.zones",
        "a FritzBox has no DNS records of one's own: clients must ask dualgate",
        help,
    );
}

fn challenges(site: &Site, certificates: &Certificates, report: &mut Report<'_>) {
    let gate = site.gates.get(&GateName::External);
    let listens = |port: u16, protocol: EntryProtocol| {
        let has =
            |gate: &Gate| gate.entry_points.values().any(|point| (point.port, point.protocol) == (port, protocol));
        gate.is_some_and(has)
    };
    let dns = site.dns.as_ref();
    let provider = dns.is_some_and(|dns| dns.zones.iter().any(|zone| matches!(zone.publish, Publish::Provider(_))));
    for (index, challenge) in certificates.challenges.iter().enumerate() {
        let (works, message, help) = match challenge {
            Challenge::Http01 => (
                listens(80, EntryProtocol::Http),
                "`http-01` needs an entry point for HTTP on port 80 of the external gate",
                "add it, or leave the challenge out",
            ),
            Challenge::TlsAlpn01 => (
                listens(443, EntryProtocol::Https),
                "`tls-alpn-01` needs an entry point for HTTPS on port 443 of the external gate",
                "add it, or leave the challenge out",
            ),
            Challenge::Dns01 => (
                provider || dns.is_some_and(|dns| dns.public),
                "`dns-01` needs a zone at a provider, or public DNS at the edge",
                "set a zone's `publish: provider:NAME`, or `dns.public: true`",
            ),
        };
        if !works {
            report.add(Code::SiteRole, format!("certificates.challenges[{index}]"), message, help);
        }
    }
    if certificates.challenges.is_empty() {
        report.add(
            Code::SiteMissing,
            "certificates.challenges",
            "no challenge is left to prove a name with",
            "leave `challenges` out",
        );
    }
}
