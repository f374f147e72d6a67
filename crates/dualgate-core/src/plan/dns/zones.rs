//! The zones of a view, put together: what objects say, what the site file says, and what every zone has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dualgate_wire::dns::{Name, Rdata, RecordType, ServiceBinding};

use super::records::{HostUse, Served, hosts};
use super::{Origin, RecordSet, View, Zone, addresses, addresses_of};
use crate::lower::Lowered;
use crate::model::address::is_public;
use crate::model::object::{Body, ServiceType};
use crate::model::site::{Dns, Publish, RecordView, Site, ZoneRecord};
use crate::model::{Code, Finding, GateName, HostPattern, Object, Snapshot};

/// Where a Service says its names; external-dns' words mean the same.
pub(super) const HOSTNAMES: [&str; 3] =
    ["dualgate.dev/hostname", "external-dns.kubernetes.io/hostname", "external-dns.alpha.kubernetes.io/hostname"];

/// What both gates speak on an entry point for HTTPS.
const ALPN: [&str; 2] = ["h2", "http/1.1"];
/// How secondaries would keep a zone, in seconds; clients do not look at it.
const REFRESH: u32 = 3600;
const RETRY: u32 = 600;
const EXPIRE: u32 = 1_209_600;

/// All zones of a view.
pub(super) fn zones(snapshot: &Snapshot, lowered: &Lowered, view: View) -> Vec<Zone> {
    let site = &*snapshot.site;
    let Some(dns) = &site.dns else { return Vec::new() };
    let mut drafts = Drafts::of(site, dns, view);
    drafts.hosts(lowered);
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
    drafts.finish()
}

/// What is wrong with the names of objects.
pub(super) fn findings(snapshot: &Snapshot, lowered: &Lowered) -> Vec<Finding> {
    let site = &*snapshot.site;
    let Some(dns) = site.dns.as_ref().filter(|dns| !dns.zones.is_empty()) else { return Vec::new() };
    let drafts = Drafts::of(site, dns, View::Home);
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
        if drafts.at(text).is_none() && said.insert((&object.key, used.host)) {
            findings.push(outside(&used.host.to_string(), object, "spec.rules"));
        }
    }
    for (object, key, names) in named_services(snapshot) {
        for name in names.split(',').map(str::trim) {
            let field = format!("metadata.annotations[{key}]");
            match name.parse::<HostPattern>() {
                Ok(HostPattern::Exact(_) | HostPattern::Wildcard(_)) if drafts.at(name).is_some() => {}
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

/// The zones of a view while they are put together.
struct Drafts<'a> {
    site: &'a Site,
    view: View,
    zones: Vec<Draft>,
}

struct Draft {
    name: Name,
    /// As text, to find zones by.
    host: String,
    /// Its number in the site file.
    number: Option<usize>,
    is_whole: bool,
    ttl: u32,
    sets: BTreeMap<Name, Vec<RecordSet>>,
}

impl Draft {
    /// Adds records to those of their name and type.
    fn add(&mut self, name: &Name, ttl: u32, data: Rdata, origin: &Origin) {
        let sets = self.sets.entry(name.clone()).or_default();
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
        self.sets.get(name).is_some_and(|sets| sets.iter().any(|set| leads(set.rtype)))
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
    fn of(site: &'a Site, dns: &Dns, view: View) -> Self {
        let mut drafts = Self { site, view, zones: Vec::new() };
        for (number, zone) in dns.zones.iter().enumerate() {
            let is_here = match (view, &zone.publish) {
                (View::Home, _) | (View::Public, Publish::Edge | Publish::Provider(_)) => true,
                (View::Public, Publish::HomeOnly) => false,
            };
            let is_whole = match zone.publish {
                Publish::HomeOnly | Publish::Edge => true,
                Publish::Provider(_) => false,
            };
            let known = drafts.zones.iter().any(|known| known.host == zone.name.as_str());
            if let (true, false, Ok(name)) = (is_here, known, zone.name.as_str().parse()) {
                drafts.zones.push(Draft {
                    name,
                    host: zone.name.to_string(),
                    number: Some(number),
                    is_whole,
                    ttl: seconds(zone.ttl),
                    sets: BTreeMap::new(),
                });
            }
        }
        drafts
    }

    /// The zone with the longest name that holds this one.
    fn at(&self, host: &str) -> Option<usize> {
        let within = |zone: &Draft| {
            host.strip_suffix(zone.host.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let of = self.zones.iter().enumerate().filter(|(_, zone)| within(zone));
        of.max_by_key(|(_, zone)| zone.host.len()).map(|(at, _)| at)
    }

    fn hosts(&mut self, lowered: &Lowered) {
        let mut named: Vec<(usize, Name, HostUse<'_>)> = Vec::new();
        let mut text = String::new();
        for used in hosts(lowered) {
            match self.view {
                View::Public if used.external == Served::Not => continue,
                View::Public | View::Home => {}
            }
            let host = match used.host {
                HostPattern::Exact(host) => host.as_str(),
                HostPattern::Wildcard(suffix) => {
                    text.clear();
                    text.extend(["*.", suffix.as_str()]);
                    &text
                }
                HostPattern::Any => continue,
            };
            if let (Some(zone), Ok(name)) = (self.at(host), host.parse()) {
                named.push((zone, name, used));
            }
        }
        // Stable: of several Ingresses with one host, the first one stays the first.
        named.sort_by(|(zone, name, _), (other, another, _)| zone.cmp(other).then_with(|| name.cmp(another)));
        let view = self.view;
        named.dedup_by(|(zone, name, used), (other, another, first)| {
            let same = zone == other && name == another;
            if same {
                // Of those that decide, the first one is named.
                if view == View::Home && first.internal == Served::Not && used.internal != Served::Not {
                    first.ingress = used.ingress;
                }
                first.merge(used);
            }
            same
        });
        let targets = Targets::of(self.site);
        let mut sets: Vec<Vec<(Name, Vec<RecordSet>)>> = self.zones.iter().map(|_| Vec::new()).collect();
        for (zone, name, used) in named {
            let of_host = targets.sets(self.view, &used, self.zones[zone].ttl);
            if !of_host.is_empty() {
                sets[zone].push((name, of_host));
            }
        }
        for (zone, sets) in self.zones.iter_mut().zip(sets) {
            zone.sets = sets.into_iter().collect();
        }
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
                if let Some(sets) = zone.sets.get_mut(&record.name) {
                    sets.retain(|set| matches!(set.origin, Origin::SiteFile { .. }));
                }
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
                let shared = zone.sets.get(&name).is_some_and(|sets| {
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
            if zone.sets.get(&apex).is_some_and(|sets| sets.iter().any(|set| set.rtype == RecordType::NS)) {
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
    fn reverse_zone(&mut self, address: IpAddr, name: &Name) -> &mut Draft {
        let text = name.to_string();
        let at = self.at(&text).unwrap_or_else(|| {
            let subnet = self.site.lan.subnets.iter().find(|subnet| subnet.contains(&address));
            let usual = if address.is_ipv4() { 24 } else { 64 };
            let apex = Name::reverse_prefix(address, subnet.map_or(usual, |subnet| subnet.prefix_len().min(usual)));
            let ttl = self.zones.iter().map(|zone| zone.ttl).min().unwrap_or(60);
            let host = apex.to_string();
            let draft = Draft { name: apex, host, number: None, is_whole: false, ttl, sets: BTreeMap::new() };
            self.zones.push(draft);
            self.zones.len() - 1
        });
        &mut self.zones[at]
    }

    fn finish(self) -> Vec<Zone> {
        let view = self.view;
        let mut zones: Vec<Zone> = self.zones.into_iter().map(|draft| finish(draft, view)).collect();
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

fn finish(mut draft: Draft, view: View) -> Zone {
    match view {
        View::Home => {}
        View::Public => keep_private_addresses_out(&mut draft),
    }
    let servers = draft.sets.get(&draft.name).into_iter().flatten().filter(|set| set.rtype == RecordType::NS);
    let server = servers.flat_map(|set| &*set.data).find_map(|data| match data {
        Rdata::Ns(server) => Some(server.clone()),
        _ => None,
    });
    let mailbox = draft.name.child(b"hostmaster").unwrap_or_else(|| draft.name.clone());
    let soa = Rdata::Soa {
        server: server.unwrap_or_else(|| draft.name.clone()),
        mailbox,
        serial: 0,
        refresh: REFRESH,
        retry: RETRY,
        expire: EXPIRE,
        minimum: draft.ttl,
    };
    let soa = RecordSet { rtype: RecordType::SOA, ttl: draft.ttl, data: [soa].into(), origin: Origin::Zone };
    if draft.is_whole {
        draft.sets.entry(draft.name.clone()).or_default().push(soa.clone());
    }
    for sets in draft.sets.values_mut() {
        sets.sort_by_key(|set| set.rtype);
    }
    Zone { name: draft.name, is_whole: draft.is_whole, soa, sets: draft.sets }
}

/// Whatever came in by whatever way: what cannot be reached from the Internet does not leave home. A record of which a
/// part is private goes as a whole.
fn keep_private_addresses_out(draft: &mut Draft) {
    let is_fit = |data: &Rdata| data.addresses().into_iter().all(is_public);
    for sets in draft.sets.values_mut() {
        for set in sets.iter_mut().filter(|set| !set.data.iter().all(is_fit)) {
            set.data = set.data.iter().filter(|data| is_fit(data)).cloned().collect();
        }
        sets.retain(|set| !set.data.is_empty());
    }
    draft.sets.retain(|_, sets| !sets.is_empty());
}

/// Where hosts lead to; what many hosts share is one value.
struct Targets {
    home: Target,
    public: Target,
}

struct Target {
    /// By type, in the order of types.
    addresses: Vec<(RecordType, Arc<[Rdata]>)>,
    https: Arc<[Rdata]>,
}

impl Target {
    fn of(addresses: &[IpAddr]) -> Self {
        let of = |rtype: RecordType| -> (RecordType, Arc<[Rdata]>) {
            let data = addresses.iter().copied().map(Rdata::from).filter(|data| data.record_type() == rtype);
            (rtype, data.collect())
        };
        let mut sets = vec![of(RecordType::A), of(RecordType::AAAA)];
        sets.retain(|(_, data)| !data.is_empty());
        let https = Rdata::Https(ServiceBinding::here(&ALPN, addresses.iter().copied()));
        Self { addresses: sets, https: [https].into() }
    }

    fn sets(&self, served: Served, ttl: u32, origin: &Origin) -> Vec<RecordSet> {
        if self.addresses.is_empty() {
            return Vec::new();
        }
        let set = |rtype, data: &Arc<[Rdata]>| RecordSet { rtype, ttl, data: data.clone(), origin: origin.clone() };
        let mut sets = Vec::with_capacity(3);
        sets.extend(self.addresses.iter().map(|(rtype, data)| set(*rtype, data)));
        match served {
            Served::Securely => sets.push(set(RecordType::HTTPS, &self.https)),
            Served::Plainly | Served::Not => {}
        }
        sets
    }
}

impl Targets {
    fn of(site: &Site) -> Self {
        Self { home: Target::of(&addresses::home(site)), public: Target::of(&addresses::public(site)) }
    }

    fn sets(&self, view: View, used: &HostUse<'_>, ttl: u32) -> Vec<RecordSet> {
        let origin = Origin::Ingress(used.ingress.key().name.clone());
        match (view, used.internal, used.external) {
            (View::Home, internal @ (Served::Plainly | Served::Securely), _) => self.home.sets(internal, ttl, &origin),
            (View::Home, Served::Not, external) | (View::Public, _, external) if external != Served::Not => {
                self.public.sets(external, ttl, &origin)
            }
            (View::Home, Served::Not, _) | (View::Public, ..) => Vec::new(),
        }
    }
}
