//! What a person has to set elsewhere so that names work: at the home router, and where the domain is registered.
//!
//! No router offers an interface for it that can be relied on (a FRITZ!Box' TR-064 reads the DNS server that it announces,
//! and cannot set it), so it is written down, with the values of this site.

use std::fmt;
use std::net::IpAddr;

use dualgate_wire::dns::{Rdata, RecordType};
use ipnet::IpNet;
use serde::Serialize;

use crate::lower::Lowered;
use crate::model::Snapshot;
use crate::model::site::{Publish, Role, RouterKind, Site};
use crate::plan::dns::{self, View, listen};

/// What is to be set at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where, and what for.
    pub title: String,
    /// One after the other.
    pub steps: Vec<String>,
}

/// All places, in the order in which to go through them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Steps(pub Vec<Place>);

/// The steps for a site.
pub fn steps(snapshot: &Snapshot, lowered: &Lowered) -> Steps {
    let site = &*snapshot.site;
    let Some(dns) = &site.dns else { return Steps(Vec::new()) };
    let mut places = Vec::new();
    let resolvers = resolvers(site);
    if !resolvers.is_empty() {
        places.push(match site.lan.router.as_ref().map(|router| router.kind) {
            Some(RouterKind::Fritzbox) => fritzbox(site, &resolvers),
            Some(RouterKind::Other) | None => other(&resolvers),
        });
        places.extend(fallback(site, &resolvers));
    }
    if dns.public {
        places.extend(registrar(snapshot, lowered));
    }
    Steps(places)
}

/// Where home answers on port 53: what a router can announce.
fn resolvers(site: &Site) -> Vec<IpAddr> {
    let home = site.nodes.iter().find(|node| node.has(Role::Dns) && !node.is_edge());
    let sockets = home.map(|node| listen(site, node)).unwrap_or_default();
    sockets.into_iter().filter(|socket| socket.port() == 53).map(|socket| socket.ip()).collect()
}

fn of_family(addresses: &[IpAddr], is_family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    addresses.iter().copied().find(is_family)
}

fn fritzbox(site: &Site, resolvers: &[IpAddr]) -> Place {
    let network = "Heimnetz > Netzwerk > Netzwerkeinstellungen (Home Network > Network > Network Settings)";
    let mut steps = vec![format!("Open {network} and show all settings.")];
    if let Some(v4) = of_family(resolvers, IpAddr::is_ipv4) {
        steps.push(format!("IPv4-Adressen (IPv4 Addresses): set `Lokaler DNS-Server` (Local DNS server) to {v4}."));
    }
    if let Some(v6) = of_family(resolvers, IpAddr::is_ipv6) {
        let subnet = site.lan.subnets.iter().find(|subnet| subnet.contains(&v6));
        if let Some(IpNet::V6(net)) = subnet.filter(|net| is_unique_local(net)) {
            steps.push(format!(
                "IPv6-Adressen (IPv6 Addresses): always assign unique local addresses (ULA), with the prefix {net}; \
                 otherwise {v6} is out of reach as soon as there is IPv6 from the Internet."
            ));
        }
        steps.push(format!(
            "IPv6-Adressen: set `Lokaler DNSv6-Server` (Local DNSv6 server) to {v6}, and tick `DNSv6-Server auch über \
             Router Advertisement bekanntgeben (RFC 5006)`: some devices learn it in no other way."
        ));
    }
    steps.push("Apply, and let devices join the network again: they keep the old server until then.".to_owned());
    Place { title: "At the FRITZ!Box: let devices ask dualgate".to_owned(), steps }
}

fn is_unique_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.addr().is_unique_local(),
    }
}

fn other(resolvers: &[IpAddr]) -> Place {
    let mut steps = Vec::new();
    if let Some(v4) = of_family(resolvers, IpAddr::is_ipv4) {
        steps.push(format!("DHCP: announce {v4} as the one DNS server (option 6)."));
    }
    if let Some(v6) = of_family(resolvers, IpAddr::is_ipv6) {
        steps.push(format!("Router advertisements and DHCPv6: announce {v6} as the one DNS server (RDNSS, RFC 8106)."));
    }
    steps.push("Let devices join the network again: they keep the old server until then.".to_owned());
    Place { title: "At the router: let devices ask dualgate".to_owned(), steps }
}

/// Where devices go on asking the router.
fn fallback(site: &Site, resolvers: &[IpAddr]) -> Option<Place> {
    let dns = site.dns.as_ref()?;
    let router = site.lan.router.as_ref()?;
    if router.kind != RouterKind::Fritzbox {
        return None;
    }
    let zones: Vec<&str> = dns.zones.iter().map(|zone| zone.name.as_str()).collect();
    let shown: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
    let mut steps = vec![
        format!(
            "Internet > Zugangsdaten > DNS-Server (Account Information > DNS Server): use {}.",
            shown.join(" and ")
        ),
        format!(
            "Heimnetz > Netzwerk > Netzwerkeinstellungen, DNS-Rebind-Schutz (DNS rebind protection): add {}. Without it \
             the box leaves out every answer with an address of home.",
            zones.join(", ")
        ),
    ];
    if dns.forward.iter().any(|resolver| router.addresses.contains(&resolver.address.ip())) {
        steps.insert(
            0,
            "In the site file, let `dns.forward` name resolvers of the Internet and not the box: they would ask each other \
             in a circle."
                .to_owned(),
        );
    }
    let title = "Only if devices have to go on asking the FRITZ!Box (guests always do, and get the public answers)";
    Some(Place { title: title.to_owned(), steps })
}

/// The delegation of what the edge answers.
fn registrar(snapshot: &Snapshot, lowered: &Lowered) -> Vec<Place> {
    let published = |name: &str| {
        let zones = snapshot.site.dns.iter().flat_map(|dns| &dns.zones);
        zones.into_iter().any(|zone| zone.publish == Publish::Edge && zone.name.as_str() == name)
    };
    let zones = dns::zones(snapshot, lowered, View::Public).into_iter();
    zones
        .filter(|zone| zone.is_whole && published(&zone.name.to_string()))
        .map(|zone| {
            let servers = zone.of(&zone.name).iter().filter(|set| set.rtype == RecordType::NS);
            let mut steps = Vec::new();
            for data in servers.flat_map(|set| set.data.iter()) {
                let Rdata::Ns(server) = data else { continue };
                let sets = zone.of(server).iter();
                let addresses: Vec<String> =
                    sets.flat_map(dns::addresses_of).map(|address| address.to_string()).collect();
                steps.push(match addresses.as_slice() {
                    [] => format!("Name server `{server}`."),
                    _ => format!("Name server `{server}` with the addresses (glue) {}.", addresses.join(" and ")),
                });
            }
            if steps.len() == 1 {
                let one = "Many registries want two name servers for a domain of its own; for a part of one \
                           (`home.example.org`) an NS record at the provider of the domain is enough.";
                steps.push(one.to_owned());
            }
            steps.push("Open port 53, UDP and TCP, in the provider's own firewall of the edge.".to_owned());
            Place { title: format!("Where `{}` is registered: let the Internet ask the edge", zone.name), steps }
        })
        .collect()
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "nothing is to be set elsewhere: no home node answers DNS, and no edge does");
        }
        for (index, place) in self.0.iter().enumerate() {
            writeln!(f, "{}{}", if index > 0 { "\n" } else { "" }, place.title)?;
            for (number, step) in (1..).zip(&place.steps) {
                writeln!(f, "  {number}. {step}")?;
            }
        }
        Ok(())
    }
}
