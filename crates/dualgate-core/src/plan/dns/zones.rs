//! The zones of a view, put together: what objects say, what the site file says, and what every zone has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dualgate_wire::dns::{Name, Rdata, RecordType};

use super::hosts::{Hosts, Targets, hosts};
use super::{Origin, RecordSet, View, Zone, addresses, addresses_of};
use crate::lower::Lowered;
use crate::model::address::is_public;
use crate::model::object::{Body, ServiceType};
use crate::model::site::{Dns, Publish, RecordView, Site, ZoneRecord};
use crate::model::{Code, Finding, GateName, HostPattern, Object, Snapshot};

/// Where a Service says its names; external-dns' words mean the same.
pub(super) const HOSTNAMES: [&str; 3] =
    ["dualgate.dev/hostname", "external-dns.kubernetes.io/hostname", "external-dns.alpha.kubernetes.io/hostname"];

/// How secondaries would keep a zone, in seconds; clients do not look at it.
const REFRESH: u32 = 3600;
const RETRY: u32 = 600;
const EXPIRE: u32 = 1_209_600;

/// What zones were made before: what did not change is the same value again.
#[derive(Debug, Default)]
pub(super) struct Former {
    pub hosts: Hosts,
    pub zones: BTreeMap<Name, Arc<Zone>>,
}

/// All zones of a view; each with the serial number that it had, if it was there.
pub(super) fn zones(snapshot: &Snapshot, lowered: &Lowered, view: View, former: &mut Former) -> Vec<Zone> {
    let site = &snapshot.site;
    let Some(dns) = &site.dns else { return Vec::new() };
    let places = Places::of(dns, view);
    let targets = Targets::of(&addresses::home(site), &addresses::public(snapshot));
    former.hosts.update(site, lowered, view, targets, &places);
    let mut drafts = Drafts::of(site, view, &places, &former.hosts);
    drafts.site_file(dns);
    match view {
        View::Home => drafts.services(snapshot),
        View::Public => {}
    }
    drafts.servers();
    match view {
        View::Home => drafts.reverse(snapshot),
        View::Public => {}
    }
    drafts.finish(&former.zones)
}

/// What is wrong with the names of objects.
pub(super) fn findings(snapshot: &Snapshot, lowered: &Lowered) -> Vec<Finding> {
    let site = &*snapshot.site;
    let Some(dns) = site.dns.as_ref().filter(|dns| !dns.zones.is_empty()) else { return Vec::new() };
    let places = Places::of(dns, View::Home);
    let mut findings = Vec::new();
    let outside = |what: &str, object: &Object, field: &str| {
        let message = format!("`{what}` is in no zone of the site file: dualgate answers nothing about it");
        Finding::new(Code::DnsNoZone, object.place(field), message)
            .help("add its domain to `dns.zones`, or give it a name within one of them")
    };
    let mut said = BTreeSet::new();
    for used in hosts(lowered) {
        let (object, text) = (
            &*used.ingress.object,
            match used.host {
                HostPattern::Exact(host) | HostPattern::Wildcard(host) => host.as_str(),
                HostPattern::Any => continue,
            },
        );
        if places.at(text).is_none() && said.insert((&object.key, used.host)) {
            findings.push(outside(&used.host.to_string(), object, "spec.rules"));
        }
    }
    for (object, key, names) in named_services(snapshot) {
        for name in names.split(',').map(str::trim) {
            let field = format!("metadata.annotations[{key}]");
            match name.parse::<HostPattern>() {
                Ok(HostPattern::Exact(_) | HostPattern::Wildcard(_)) if places.at(name).is_some() => {}
                Ok(HostPattern::Exact(_) | HostPattern::Wildcard(_)) => findings.push(outside(name, object, &field)),
                Ok(HostPattern::Any) => {}
                Err(why) => findings.push(
                    Finding::new(Code::AnnotationInvalid, object.place(&field), why)
                        .help("write host names, with commas between them"),
                ),
            }
        }
    }
    findings
}

/// LoadBalancer Services that have addresses and names.
fn named_services(snapshot: &Snapshot) -> impl Iterator<Item = (&Object, &'static str, &str)> {
    snapshot.facts.assigned.iter().filter(|(_, addresses)| !addresses.is_empty()).filter_map(|(name, _)| {
        let object = snapshot.objects.get("Service", &name.namespace, &name.name)?;
        let Body::Service(service) = &object.body else { return None };
        let written = |key: &&'static str| Some((*key, object.meta.annotations.get(key)?));
        let (key, names) = HOSTNAMES.iter().find_map(written)?;
        (service.kind == ServiceType::LoadBalancer).then_some((&**object, key, names))
    })
}

/// The zones of the site file that a view has.
pub(super) struct Places(Vec<Place>);

struct Place {
    name: Name,
    /// As text, to find zones by.
    host: String,
    /// Its number in the site file.
    number: usize,
    is_whole: bool,
    ttl: u32,
}

impl Places {
    fn of(dns: &Dns, view: View) -> Self {
        let mut places: Vec<Place> = Vec::new();
        for (number, zone) in dns.zones.iter().enumerate() {
            let is_here = match (view, &zone.publish) {
                (View::Home, _) | (View::Public, Publish::Edge | Publish::Provider(_)) => true,
                (View::Public, Publish::HomeOnly) => false,
            };
            let is_whole = match zone.publish {
                Publish::HomeOnly | Publish::Edge => true,
                Publish::Provider(_) => false,
            };
            let known = places.iter().any(|known| known.host == zone.name.as_str());
            if let (true, false, Ok(name)) = (is_here, known, zone.name.as_str().parse()) {
                places.push(Place { name, host: zone.name.to_string(), number, is_whole, ttl: seconds(zone.ttl) });
            }
        }
        Self(places)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of the one with the longest name that holds this one.
    pub fn at(&self, host: &str) -> Option<usize> {
        longest(self.0.iter().map(|place| place.host.as_str()), host)
    }

    /// How long what its objects say is kept by those who ask.
    pub fn ttl(&self, number: usize) -> u32 {
        self.0.get(number).map_or(0, |place| place.ttl)
    }
}

fn longest<'a>(zones: impl Iterator<Item = &'a str>, host: &str) -> Option<usize> {
    let within = |zone: &str| host.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let of = zones.enumerate().filter(|(_, zone)| within(zone));
    of.max_by_key(|(_, zone)| zone.len()).map(|(at, _)| at)
}

/// The zones of a view while they are put together.
struct Drafts<'a> {
    site: &'a Site,
    view: View,
    zones: Vec<Draft<'a>>,
}

/// A zone of the site file, or one that only has names for addresses.
struct Draft<'a> {
    name: Name,
    host: String,
    number: Option<usize>,
    is_whole: bool,
    ttl: u32,
    /// What the hosts of Ingresses have.
    hosts: &'a BTreeMap<Name, Arc<[RecordSet]>>,
    /// What is said instead, of some names.
    sets: BTreeMap<Name, Vec<RecordSet>>,
}

static NO_HOSTS: BTreeMap<Name, Arc<[RecordSet]>> = BTreeMap::new();

impl Draft<'_> {
    fn get(&self, name: &Name) -> Option<&[RecordSet]> {
        self.sets.get(name).map(Vec::as_slice).or_else(|| self.hosts.get(name).map(|sets| &**sets))
    }

    /// What is said of a name, to be changed.
    fn entry(&mut self, name: &Name) -> &mut Vec<RecordSet> {
        let hosts = self.hosts;
        let of_host = || hosts.get(name).map(|sets| sets.to_vec()).unwrap_or_default();
        self.sets.entry(name.clone()).or_insert_with(of_host)
    }

    /// Adds records to those of their name and type.
    fn add(&mut self, name: &Name, ttl: u32, data: Rdata, origin: &Origin) {
        let sets = self.entry(name);
        let rtype = data.record_type();
        match sets.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) => {
                set.ttl = set.ttl.min(ttl);
                if !set.data.contains(&data) {
                    set.data = set.data.iter().cloned().chain([data]).collect();
                }
            }
            None => sets.push(RecordSet { rtype, ttl, data: [data].into(), origin: origin.clone() }),
        }
    }

    fn addresses(&mut self, name: &Name, addresses: &[IpAddr], origin: &Origin) {
        let ttl = self.ttl;
        addresses.iter().for_each(|address| self.add(name, ttl, Rdata::from(*address), origin));
    }

    /// Whether a name leads somewhere already.
    fn leads(&self, name: &Name) -> bool {
        self.get(name).is_some_and(|sets| sets.iter().any(|set| leads(set.rtype)))
    }
}

fn leads(rtype: RecordType) -> bool {
    [RecordType::A, RecordType::AAAA, RecordType::CNAME].contains(&rtype)
}

fn seconds(ttl: Duration) -> u32 {
    // RFC 2181 8: 31 bits.
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(u32::MAX >> 1)
}

impl<'a> Drafts<'a> {
    fn of(site: &'a Site, view: View, places: &Places, hosts: &'a Hosts) -> Self {
        let draft = |(number, place): (usize, &Place)| Draft {
            name: place.name.clone(),
            host: place.host.clone(),
            number: Some(place.number),
            is_whole: place.is_whole,
            ttl: place.ttl,
            hosts: hosts.of_zone(number).unwrap_or(&NO_HOSTS),
            sets: BTreeMap::new(),
        };
        Self { site, view, zones: places.0.iter().enumerate().map(draft).collect() }
    }

    /// The zone with the longest name that holds this one.
    fn at(&self, host: &str) -> Option<usize> {
        longest(self.zones.iter().map(|zone| zone.host.as_str()), host)
    }

    /// What the site file says of a name's addresses is all that is said of them.
    fn site_file(&mut self, dns: &Dns) {
        for zone in &mut self.zones {
            let Some(number) = zone.number else { continue };
            let records = dns.zones[number].records.iter().enumerate();
            // The zone itself has an SOA, and so cannot be a CNAME.
            let fits = |record: &ZoneRecord| record.data.record_type() != RecordType::CNAME || record.name != zone.name;
            let seen: Vec<_> = records.filter(|(_, record)| sees(self.view, record.view) && fits(record)).collect();
            for (_, record) in seen.iter().filter(|(_, record)| leads(record.data.record_type())) {
                zone.entry(&record.name).retain(|set| matches!(set.origin, Origin::SiteFile { .. }));
            }
            for (index, record) in seen {
                let ttl = record.ttl.map_or(zone.ttl, seconds);
                let origin = Origin::SiteFile { zone: number, record: index };
                zone.add(&record.name, ttl, record.data.clone(), &origin);
            }
            // A name that stands for another has nothing else (RFC 1034 3.6.2).
            for sets in zone.sets.values_mut() {
                if sets.iter().any(|set| set.rtype == RecordType::CNAME) {
                    sets.retain(|set| set.rtype == RecordType::CNAME);
                }
            }
        }
    }

    fn services(&mut self, snapshot: &Snapshot) {
        for (object, _, names) in named_services(snapshot) {
            let service = &object.key.name;
            for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()) {
                let Some(zone) = self.at(&name) else { continue };
                let (true, Ok(name)) = (name.parse::<HostPattern>().is_ok(), name.parse()) else { continue };
                let zone = &mut self.zones[zone];
                let of_service = Origin::Service(service.clone());
                let shared = zone.get(&name).is_some_and(|sets| {
                    sets.iter().any(|set| leads(set.rtype) && !matches!(set.origin, Origin::Service(_)))
                });
                if !shared {
                    zone.addresses(&name, snapshot.facts.assigned.of(service), &of_service);
                }
            }
        }
    }

    /// Whoever answers is a name server of the zone, unless the site file names others.
    fn servers(&mut self) {
        let servers = match self.view {
            View::Home => vec![addresses::home_server(self.site)],
            View::Public => addresses::public_servers(self.site),
        };
        for zone in self.zones.iter_mut().filter(|zone| zone.is_whole) {
            let apex = zone.name.clone();
            if zone.get(&apex).is_some_and(|sets| sets.iter().any(|set| set.rtype == RecordType::NS)) {
                continue;
            }
            for (number, addresses) in (1..).zip(&servers) {
                let Some(server) = apex.child(format!("ns{number}").as_bytes()) else { continue };
                zone.add(&apex, zone.ttl, Rdata::Ns(server.clone()), &Origin::Zone);
                if !zone.leads(&server) {
                    zone.addresses(&server, addresses, &Origin::Zone);
                }
            }
        }
    }

    /// Names for virtual IPs: names that exist, and lead there.
    fn reverse(&mut self, snapshot: &Snapshot) {
        let mut names: BTreeMap<IpAddr, (Name, Origin)> = BTreeMap::new();
        // Hosts of Ingresses are names of what is behind a gate, not of the gate.
        for zone in &self.zones {
            for (name, sets) in zone.sets.iter().filter(|(name, _)| !name.is_wildcard()) {
                for set in sets.iter().filter(|set| leads(set.rtype)) {
                    let origin = match &set.origin {
                        Origin::Service(_) => set.origin.clone(),
                        Origin::Zone => Origin::Gate(GateName::Internal),
                        Origin::Ingress(_) | Origin::Gate(_) | Origin::SiteFile { .. } => continue,
                    };
                    for address in addresses_of(set) {
                        names.entry(address).or_insert_with(|| (name.clone(), origin.clone()));
                    }
                }
            }
        }
        let assigned = snapshot.facts.assigned.iter().flat_map(|(_, addresses)| addresses.iter().copied());
        let virtual_ips: BTreeSet<IpAddr> = self.site.virtual_addresses(GateName::Internal).chain(assigned).collect();
        for address in virtual_ips {
            let Some((target, origin)) = names.get(&address) else { continue };
            let name = Name::reverse(address);
            let zone = self.reverse_zone(address, &name);
            let ttl = zone.ttl;
            zone.add(&name, ttl, Rdata::Ptr(target.clone()), origin);
        }
    }

    /// The zone of the site file that holds it, else one of its subnet, of which only this name is ours.
    fn reverse_zone(&mut self, address: IpAddr, name: &Name) -> &mut Draft<'a> {
        let text = name.to_string();
        let at = self.at(&text).unwrap_or_else(|| {
            let subnet = self.site.lan.subnets.iter().find(|subnet| subnet.contains(&address));
            let usual = if address.is_ipv4() { 24 } else { 64 };
            let apex = Name::reverse_prefix(address, subnet.map_or(usual, |subnet| subnet.prefix_len().min(usual)));
            let ttl = self.zones.iter().map(|zone| zone.ttl).min().unwrap_or(60);
            let host = apex.to_string();
            let (hosts, sets) = (&NO_HOSTS, BTreeMap::new());
            let draft = Draft { name: apex, host, number: None, is_whole: false, ttl, hosts, sets };
            self.zones.push(draft);
            self.zones.len() - 1
        });
        &mut self.zones[at]
    }

    fn finish(self, former: &BTreeMap<Name, Arc<Zone>>) -> Vec<Zone> {
        let view = self.view;
        let finish = |draft: Draft<'_>| {
            let former = former.get(&draft.name).map(|zone| &**zone);
            finish(draft, view, former)
        };
        let mut zones: Vec<Zone> = self.zones.into_iter().map(finish).collect();
        zones.sort_by(|one, other| one.name.cmp(&other.name));
        zones
    }
}

fn sees(view: View, record: RecordView) -> bool {
    match (view, record) {
        (View::Home, RecordView::Home | RecordView::Both) | (View::Public, RecordView::Public | RecordView::Both) => {
            true
        }
        (View::Home, RecordView::Public) | (View::Public, RecordView::Home) => false,
    }
}

fn finish(draft: Draft<'_>, view: View, former: Option<&Zone>) -> Zone {
    let Draft { name, is_whole, ttl, hosts, sets: said, .. } = draft;
    let mut sets = hosts.clone();
    let is_same = |name: &Name, of_name: &[RecordSet]| {
        former.and_then(|zone| zone.sets.get(name)).filter(|known| ***known == *of_name).cloned()
    };
    for (name, of_name) in said {
        let mut of_name = fit(of_name, view);
        of_name.sort_by_key(|set| set.rtype);
        match of_name.is_empty() {
            true => drop(sets.remove(&name)),
            false => {
                let of_name = is_same(&name, &of_name).unwrap_or_else(|| of_name.into());
                sets.insert(name, of_name);
            }
        }
    }
    let apex = sets.get(&name).map(|sets| sets.to_vec()).unwrap_or_default();
    let servers = apex.iter().filter(|set| set.rtype == RecordType::NS).flat_map(|set| &*set.data);
    let server = servers.into_iter().find_map(|data| match data {
        Rdata::Ns(server) => Some(server.clone()),
        _ => None,
    });
    let soa = Rdata::Soa {
        server: server.unwrap_or_else(|| name.clone()),
        mailbox: name.child(b"hostmaster").unwrap_or_else(|| name.clone()),
        serial: former.map_or(0, Zone::serial),
        refresh: REFRESH,
        retry: RETRY,
        expire: EXPIRE,
        minimum: ttl,
    };
    let soa = RecordSet { rtype: RecordType::SOA, ttl, data: [soa].into(), origin: Origin::Zone };
    if is_whole {
        let mut apex = apex;
        apex.push(soa.clone());
        apex.sort_by_key(|set| set.rtype);
        let apex = is_same(&name, &apex).unwrap_or_else(|| apex.into());
        sets.insert(name.clone(), apex);
    }
    Zone { name, is_whole, soa, sets }
}

/// Whatever came in by whatever way: what cannot be reached from the Internet does not leave home. A record of which a
/// part is private goes as a whole.
pub(super) fn fit(mut sets: Vec<RecordSet>, view: View) -> Vec<RecordSet> {
    match view {
        View::Home => return sets,
        View::Public => {}
    }
    let is_fit = |data: &Rdata| data.addresses().into_iter().all(is_public);
    for set in sets.iter_mut().filter(|set| !set.data.iter().all(is_fit)) {
        set.data = set.data.iter().filter(|data| is_fit(data)).cloned().collect();
    }
    sets.retain(|set| !set.data.is_empty());
    sets
}
