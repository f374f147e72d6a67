//! The certificates of `tls` sections.
//!
//! `tls[].hosts` are the names for which the Secret is shown; without them, the hosts of the Ingress's rules;
//! without those, the names in the certificate itself. Each name has one certificate at an entry point: one
//! that is valid and covers the name goes first, then the oldest Ingress, then namespace and name. A Secret
//! that cannot be used costs its certificate; the routes stay, with the default certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::model::moment::date;
use crate::model::object::{Ingress, SecretBody};
use crate::model::site::Site;
use crate::model::{Code, Created, Digest, Finding, HostPattern, Object, ObjectName, Place, Secret};
use crate::route::EntryPointSet;

use super::LoweredIngress;
use super::alias;
use super::world::{World, ingress_of};

/// A certificate and where it is shown, over the whole site.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteCertificate {
    /// The Secret.
    pub secret: ObjectName,
    /// The names for which it is shown, and where each is; in the order of names.
    pub hosts: Vec<(HostPattern, EntryPointSet)>,
    /// The digest of chain and key: what identifies it.
    pub digest: Digest,
    /// The chain, PEM.
    pub chain: Arc<[u8]>,
    /// The key, PEM.
    pub key: Secret,
    /// `notBefore` of the first certificate, in seconds since 1970.
    pub not_before: i64,
    /// `notAfter` of the first certificate, in seconds since 1970.
    pub not_after: i64,
    /// The names in the first certificate.
    pub names: Vec<HostPattern>,
}

impl SiteCertificate {
    fn covers(&self, host: &HostPattern) -> bool {
        self.names.iter().any(|name| match host {
            HostPattern::Exact(host) => name.matches(host.as_str()),
            HostPattern::Wildcard(_) | HostPattern::Any => name == host,
        })
    }

    fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// One host of one Ingress that asks for one Secret.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    host: HostPattern,
    entry_points: EntryPointSet,
    secret: ObjectName,
    /// Whether the certificate has the name.
    covers: bool,
    /// The section, as its index was written.
    section: u16,
}

/// A claim among those of other Ingresses. The order is the precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    /// `false` goes first: valid, and covering the host.
    unfit: bool,
    created: Created,
    ingress: ObjectName,
    /// Among those of its Ingress.
    position: usize,
    section: u16,
    entry_points: EntryPointSet,
    secret: ObjectName,
}

/// What the Ingresses ask for, and which certificate is shown for each name.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// Seconds since 1970.
    now: i64,
    /// Those that any Ingress names, by Secret.
    read: BTreeMap<ObjectName, Known>,
    hosts: BTreeMap<HostPattern, Vec<Standing>>,
    /// By Secret: the names for which it is shown.
    shown: BTreeMap<ObjectName, BTreeMap<HostPattern, EntryPointSet>>,
    list: BTreeMap<ObjectName, Arc<SiteCertificate>>,
    /// What is to be looked at again.
    touched: BTreeSet<HostPattern>,
    changed: BTreeSet<ObjectName>,
}

/// A Secret that was read.
#[derive(Debug)]
struct Known {
    object: Arc<Object>,
    valid: bool,
    /// Without hosts; an error is why it cannot be used.
    read: Result<Arc<SiteCertificate>, String>,
}

impl Certificates {
    /// A Secret is another one, or gone.
    pub fn forget(&mut self, secret: &ObjectName) {
        self.read.remove(secret);
    }

    /// The time is another one: the Secrets whose certificates became valid, or ceased to be.
    pub fn pass(&mut self, now: i64) -> BTreeSet<ObjectName> {
        self.now = now;
        let mut turned = BTreeSet::new();
        for (name, known) in &mut self.read {
            let valid = known.read.as_ref().is_ok_and(|certificate| certificate.is_valid_at(now));
            if std::mem::replace(&mut known.valid, valid) != valid {
                turned.insert(name.clone());
            }
        }
        turned
    }

    /// What the `tls` section of one Ingress asks for, served over TLS at `entry_points`.
    pub fn claims(
        &mut self,
        (site, world): (&Site, &World),
        (object, ingress): (&Object, &Ingress),
        (https, internal): (EntryPointSet, EntryPointSet),
        findings: &mut Vec<Finding>,
    ) -> Box<[Claim]> {
        let mut claims = Vec::new();
        for tls in &ingress.tls {
            let Some(name) = &tls.secret else { continue };
            let place = || object.place(format!("spec.tls[{}].secretName", tls.index));
            let namespace = &object.key.name.namespace;
            let Some((secret, body)) = world.secret(namespace, name) else {
                let message =
                    format!("there is no Secret `{name}` in namespace `{namespace}`; the default certificate is shown");
                let help = "of a cluster only Secrets of the type `kubernetes.io/tls` are read";
                findings.push(Finding::new(Code::IngressUnknownSecret, place(), message).help(help));
                continue;
            };
            let certificate = match self.read(secret, body) {
                Ok(certificate) => certificate,
                Err(why) => {
                    let message = format!("Secret `{name}`: {why}; the default certificate is shown");
                    findings.push(Finding::new(Code::SecretInvalid, place(), message));
                    continue;
                }
            };
            let hosts = hosts(&tls.hosts, ingress, &certificate);
            findings.extend(mismatch(&certificate, &hosts, &place));
            claims.extend(hosts.into_iter().map(|host| Claim {
                covers: certificate.covers(&host),
                host,
                entry_points: https,
                secret: secret.key.name.clone(),
                section: tls.index,
            }));
        }
        self.claim_aliases(site, internal, &mut claims);
        claims.into()
    }

    /// Home names, as far as the certificate covers them: at the internal gate.
    fn claim_aliases(&self, site: &Site, internal: EntryPointSet, claims: &mut Vec<Claim>) {
        let mut further = Vec::new();
        for claim in claims.iter() {
            let Some(Ok(certificate)) = self.read.get(&claim.secret).map(|known| &known.read) else { continue };
            let homes = alias::homes(site, &claim.host, &[]);
            further.extend(homes.into_iter().filter(|home| certificate.covers(home)).map(|host| Claim {
                host,
                entry_points: claim.entry_points.and(internal),
                ..claim.clone()
            }));
        }
        claims.extend(further);
    }

    fn read(&mut self, object: &Arc<Object>, body: &SecretBody) -> Result<Arc<SiteCertificate>, String> {
        let name = &object.key.name;
        if let Some(known) = self.read.get(name)
            && Arc::ptr_eq(&known.object, object)
        {
            return known.read.clone();
        }
        let read = read(name, body).map(Arc::new);
        let valid = read.as_ref().is_ok_and(|certificate| certificate.is_valid_at(self.now));
        self.read.insert(name.clone(), Known { object: object.clone(), valid, read: read.clone() });
        self.changed.insert(name.clone());
        read
    }

    /// An Ingress asks for something else than before.
    pub fn replace(&mut self, object: &Object, before: &[Claim], after: &[Claim]) {
        let name = &object.key.name;
        for claim in before {
            if let Some(standings) = self.hosts.get_mut(&claim.host) {
                standings.retain(|standing| standing.ingress != *name);
            }
            if let Some(shown) = self.shown.get_mut(&claim.secret) {
                shown.remove(&claim.host);
            }
            self.changed.insert(claim.secret.clone());
            self.touched.insert(claim.host.clone());
        }
        for (position, claim) in after.iter().enumerate() {
            let standing = Standing {
                unfit: !claim.covers || !self.read.get(&claim.secret).is_some_and(|known| known.valid),
                created: object.meta.created,
                ingress: name.clone(),
                position,
                section: claim.section,
                entry_points: claim.entry_points,
                secret: claim.secret.clone(),
            };
            let standings = self.hosts.entry(claim.host.clone()).or_default();
            let at = standings.partition_point(|other| *other < standing);
            standings.insert(at, standing);
            // Nearly every name has one.
            standings.shrink_to_fit();
            self.touched.insert(claim.host.clone());
        }
    }

    /// A map that was filled in the order of its keys is half empty.
    pub fn pack(&mut self) {
        self.hosts = std::mem::take(&mut self.hosts).into_iter().collect();
        for shown in self.shown.values_mut() {
            *shown = std::mem::take(shown).into_iter().collect();
        }
    }

    /// The certificates in the order of their Secrets' names, each host given to one; `None` if they are as they were.
    pub fn settle(&mut self) -> Option<Vec<Arc<SiteCertificate>>> {
        for host in std::mem::take(&mut self.touched) {
            let Some(standings) = self.hosts.get(&host) else { continue };
            for standing in standings {
                // Whatever was shown for the name before.
                if let Some(shown) = self.shown.get_mut(&standing.secret) {
                    shown.remove(&host);
                }
                self.changed.insert(standing.secret.clone());
            }
            let mut own: BTreeMap<&ObjectName, EntryPointSet> = BTreeMap::new();
            let mut taken = EntryPointSet::default();
            for standing in standings {
                let set = own.entry(&standing.secret).or_default();
                *set = set.or(standing.entry_points.without(taken));
                taken = taken.or(standing.entry_points);
            }
            for (secret, set) in own.into_iter().filter(|(_, set)| !set.is_empty()) {
                self.shown.entry(secret.clone()).or_default().insert(host.clone(), set);
            }
            if standings.is_empty() {
                self.hosts.remove(&host);
            }
        }
        let changed = std::mem::take(&mut self.changed);
        let is_other = !changed.is_empty();
        for secret in changed {
            self.make(secret);
        }
        is_other.then(|| self.list.values().cloned().collect())
    }

    fn make(&mut self, secret: ObjectName) {
        let shown = self.shown.get(&secret).filter(|shown| !shown.is_empty());
        let (Some(shown), Some(Ok(read))) = (shown, self.read.get(&secret).map(|known| &known.read)) else {
            self.list.remove(&secret);
            if shown.is_none() {
                self.shown.remove(&secret);
            }
            return;
        };
        let hosts = shown.iter().map(|(host, set)| (host.clone(), *set)).collect();
        let certificate = SiteCertificate { hosts, ..SiteCertificate::clone(read) };
        if self.list.get(&secret).is_none_or(|before| **before != certificate) {
            self.list.insert(secret, Arc::new(certificate));
        }
    }

    /// What is wrong with them together, and with them now.
    pub fn findings(&self, world: &World, ingresses: &[Arc<LoweredIngress>]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (host, standings) in self.hosts.iter().filter(|(_, standings)| standings.len() > 1) {
            for (position, loser) in standings.iter().enumerate() {
                let mut free = loser.entry_points;
                for winner in &standings[..position] {
                    if free.intersects(winner.entry_points) && winner.secret != loser.secret {
                        findings.extend(twice(world, host, loser, winner));
                    }
                    free = free.without(winner.entry_points);
                }
            }
        }
        if self.read.values().any(|known| !known.valid && known.read.is_ok()) {
            findings.extend(ingresses.iter().flat_map(|ingress| self.invalid(&ingress.object)));
        }
        findings
    }

    /// The sections of an Ingress whose certificate is not valid now.
    fn invalid(&self, object: &Object) -> Vec<Finding> {
        let sections = ingress_of(object).into_iter().flat_map(|ingress| &ingress.tls);
        let finding = |section: &crate::model::object::IngressTls| {
            let name = ObjectName::new(object.key.name.namespace.clone(), section.secret.as_deref()?);
            let certificate = self.read.get(&name).filter(|known| !known.valid)?.read.as_ref().ok()?;
            let (verb, at) = if self.now > certificate.not_after {
                ("expired", certificate.not_after)
            } else {
                ("is not valid before", certificate.not_before)
            };
            let place = object.place(format!("spec.tls[{}].secretName", section.index));
            Some(Finding::new(Code::CertificateExpired, place, format!("the certificate {verb} {}", date(at))))
        };
        sections.filter_map(finding).collect()
    }
}

fn twice(world: &World, host: &HostPattern, loser: &Standing, winner: &Standing) -> Option<Finding> {
    let why = match (loser.unfit, winner.unfit, loser.created == winner.created) {
        (true, false, _) => "it is valid and covers the name",
        (_, _, false) => "its Ingress is older",
        (_, _, true) => "its Ingress comes first by namespace and name",
    };
    let message =
        format!("`{host}` also has the Secret `{}` (Ingress {}), which is shown: {why}", winner.secret, winner.ingress);
    let place = world.ingress(&loser.ingress)?.place(format!("spec.tls[{}].secretName", loser.section));
    Some(Finding::new(Code::IngressOverlap, place, message))
}

fn hosts(written: &[HostPattern], ingress: &Ingress, certificate: &SiteCertificate) -> Vec<HostPattern> {
    let named = |host: &&HostPattern| **host != HostPattern::Any;
    let mut hosts: Vec<HostPattern> = written.iter().filter(named).cloned().collect();
    if hosts.is_empty() {
        hosts = ingress.rules.iter().map(|rule| &rule.host).filter(named).cloned().collect();
    }
    if hosts.is_empty() {
        hosts.clone_from(&certificate.names);
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The hosts that the certificate does not have.
fn mismatch(certificate: &SiteCertificate, hosts: &[HostPattern], place: &dyn Fn() -> Place) -> Option<Finding> {
    let uncovered: Vec<String> =
        hosts.iter().filter(|host| !certificate.covers(host)).map(|host| format!("`{host}`")).collect();
    if uncovered.is_empty() {
        return None;
    }
    let names = certificate.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { "no name at all".to_owned() } else { names };
    let message = format!("the certificate does not cover {}; it covers {names}", uncovered.join(", "));
    Some(Finding::new(Code::CertificateMismatch, place(), message))
}

/// Reads chain and key; the error says what is wrong with the Secret.
fn read(name: &ObjectName, body: &SecretBody) -> Result<SiteCertificate, String> {
    let part = |key: &str| match (body.data.get(key), body.digests.contains_key(key)) {
        (Some(value), _) => Ok(value),
        (None, true) => Err(format!("the value of `{key}` is not at hand, only its digest")),
        (None, false) => Err(format!("it has no `{key}`")),
    };
    let (chain, key) = (part("tls.crt")?, part("tls.key")?);
    // The key is only looked at here to see that it is one.
    if !blocks(key.expose()).is_ok_and(|blocks| blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY"))) {
        return Err("`tls.key` is no private key in PEM".to_owned());
    }
    let chain_bytes: Arc<[u8]> = chain.expose().into();
    let blocks = blocks(&chain_bytes)?;
    let certificates: Vec<&Pem> = blocks.iter().filter(|block| block.label == "CERTIFICATE").collect();
    let Some(first) = certificates.first() else {
        return Err("`tls.crt` has no certificate in PEM".to_owned());
    };
    for (number, certificate) in certificates.iter().enumerate() {
        if certificate.parse_x509().is_err() {
            return Err(format!("certificate {} of `tls.crt` cannot be read", number + 1));
        }
    }
    let leaf = first.parse_x509().map_err(|_| "certificate 1 of `tls.crt` cannot be read".to_owned())?;
    let alternatives = leaf.subject_alternative_name().map_err(|_| "its subjectAltName cannot be read".to_owned())?;
    let names = alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names);
    let mut names: Vec<HostPattern> = names
        .filter_map(|name| if let GeneralName::DNSName(name) = name { name.parse().ok() } else { None })
        .filter(|name| *name != HostPattern::Any)
        .collect();
    names.sort();
    names.dedup();
    Ok(SiteCertificate {
        secret: name.clone(),
        hosts: Vec::new(),
        digest: Digest::of_parts([&*chain_bytes, key.expose()]),
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        names,
        chain: chain_bytes.clone(),
        key: key.clone(),
    })
}

fn blocks(text: &[u8]) -> Result<Vec<Pem>, String> {
    Pem::iter_from_buffer(text).collect::<Result<_, _>>().map_err(|_| "`tls.crt` is not PEM".to_owned())
}
