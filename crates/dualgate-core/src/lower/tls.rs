//! The certificates of `tls` sections.
//!
//! `tls[].hosts` are the names for which the Secret is shown; without them, the hosts of the Ingress's rules;
//! without those, the names in the certificate itself. Each name has one certificate at an entry point: one
//! that is valid and covers the name goes first, then the oldest Ingress, then namespace and name. A Secret
//! that cannot be used costs its certificate; the routes stay, with the default certificate.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::model::moment::date;
use crate::model::object::{Ingress, SecretBody};
use crate::model::site::Site;
use crate::model::{Code, Digest, Finding, GateName, HostPattern, Object, ObjectName, Place, Secret};
use crate::route::EntryPointSet;

use super::alias;
use super::entry_points::EntryPoints;
use super::world::World;

/// A certificate and where it is shown, over the whole site.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteCertificate {
    /// The Secret.
    pub secret: ObjectName,
    /// The names for which it is shown, and where each is.
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
struct Claim {
    host: HostPattern,
    entry_points: EntryPointSet,
    secret: ObjectName,
    /// `false` goes first: valid, and covering the host.
    unfit: bool,
    /// Unknown age last.
    created: i64,
    ingress: ObjectName,
    place: Place,
}

impl Claim {
    fn precedence(&self, other: &Self) -> Ordering {
        let key = |claim: &Self| (claim.unfit, claim.created);
        key(self).cmp(&key(other)).then_with(|| self.ingress.cmp(&other.ingress))
    }
}

/// Collects what the Ingresses ask for.
pub(super) struct Certificates<'a> {
    world: &'a World<'a>,
    /// Seconds since 1970.
    now: i64,
    /// By Secret; an error is why it cannot be used.
    read: BTreeMap<ObjectName, Result<SiteCertificate, String>>,
    claims: Vec<Claim>,
}

impl<'a> Certificates<'a> {
    pub fn new(world: &'a World<'a>, now: i64) -> Self {
        Self { world, now, read: BTreeMap::new(), claims: Vec::new() }
    }

    /// The `tls` section of one Ingress, served over TLS at `entry_points`.
    pub fn claim(
        &mut self,
        object: &Object,
        ingress: &Ingress,
        entry_points: EntryPointSet,
        findings: &mut Vec<Finding>,
    ) {
        for tls in &ingress.tls {
            let Some(name) = &tls.secret else { continue };
            let place = object.place(format!("spec.tls[{}].secretName", tls.index));
            let namespace = &object.key.name.namespace;
            let Some(body) = self.world.secret(namespace, name) else {
                let message =
                    format!("there is no Secret `{name}` in namespace `{namespace}`; the default certificate is shown");
                let help = "of a cluster only Secrets of the type `kubernetes.io/tls` are read";
                findings.push(Finding::new(Code::IngressUnknownSecret, place, message).help(help));
                continue;
            };
            let secret = ObjectName::new(namespace.clone(), name.as_str());
            let read = self.read.entry(secret.clone()).or_insert_with(|| read(&secret, body));
            let certificate = match read {
                Ok(certificate) => certificate,
                Err(why) => {
                    let message = format!("Secret `{name}`: {why}; the default certificate is shown");
                    findings.push(Finding::new(Code::SecretInvalid, place, message));
                    continue;
                }
            };
            let hosts = hosts(&tls.hosts, ingress, certificate);
            findings.extend(lints(certificate, &hosts, self.now, &place));
            let valid = certificate.is_valid_at(self.now);
            self.claims.extend(hosts.into_iter().map(|host| Claim {
                unfit: !valid || !certificate.covers(&host),
                host,
                entry_points,
                secret: secret.clone(),
                created: object.meta.created.unwrap_or(i64::MAX),
                ingress: object.key.name.clone(),
                place: place.clone(),
            }));
        }
    }

    /// Home names, as far as the certificate covers them: at the internal gate.
    pub fn claim_aliases(&mut self, site: &Site, entry_points: &EntryPoints) {
        let internal = entry_points.of_gate(GateName::Internal);
        let mut further = Vec::new();
        for claim in &self.claims {
            let Some(Ok(certificate)) = self.read.get(&claim.secret) else { continue };
            let homes = alias::homes(site, &claim.host, &[]);
            further.extend(homes.into_iter().filter(|home| certificate.covers(home)).map(|host| Claim {
                host,
                entry_points: claim.entry_points.and(internal),
                secret: claim.secret.clone(),
                ingress: claim.ingress.clone(),
                place: claim.place.clone(),
                ..*claim
            }));
        }
        self.claims.extend(further);
    }

    /// The certificates in the order of their Secrets' names, each host given to one.
    pub fn finish(mut self, findings: &mut Vec<Finding>) -> Vec<SiteCertificate> {
        self.claims.sort_by(Claim::precedence);
        let mut taken: BTreeMap<&HostPattern, Vec<&Claim>> = BTreeMap::new();
        for claim in &self.claims {
            let earlier = taken.entry(&claim.host).or_default();
            let mut free = claim.entry_points;
            for winner in earlier.iter() {
                let both = free.and(winner.entry_points);
                if !both.is_empty() && winner.secret != claim.secret {
                    findings.push(twice(claim, winner));
                }
                free = free.without(winner.entry_points);
            }
            if let (false, Some(Ok(certificate))) = (free.is_empty(), self.read.get_mut(&claim.secret)) {
                certificate.hosts.push((claim.host.clone(), free));
            }
            earlier.push(claim);
        }
        self.read.into_values().filter_map(Result::ok).filter(|certificate| !certificate.hosts.is_empty()).collect()
    }
}

fn twice(loser: &Claim, winner: &Claim) -> Finding {
    let why = match (loser.unfit, winner.unfit, loser.created == winner.created) {
        (true, false, _) => "it is valid and covers the name",
        (_, _, false) => "its Ingress is older",
        (_, _, true) => "its Ingress comes first by namespace and name",
    };
    let message = format!(
        "`{}` also has the Secret `{}` (Ingress {}), which is shown: {why}",
        loser.host, winner.secret, winner.ingress
    );
    Finding::new(Code::IngressOverlap, loser.place.clone(), message)
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

fn lints(certificate: &SiteCertificate, hosts: &[HostPattern], now: i64, place: &Place) -> Vec<Finding> {
    let mut findings = Vec::new();
    let uncovered: Vec<String> =
        hosts.iter().filter(|host| !certificate.covers(host)).map(|host| format!("`{host}`")).collect();
    if !uncovered.is_empty() {
        let names = certificate.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { "no name at all".to_owned() } else { names };
        let message = format!("the certificate does not cover {}; it covers {names}", uncovered.join(", "));
        findings.push(Finding::new(Code::CertificateMismatch, place.clone(), message));
    }
    let when = if now > certificate.not_after {
        Some(("expired", certificate.not_after))
    } else if now < certificate.not_before {
        Some(("is not valid before", certificate.not_before))
    } else {
        None
    };
    if let Some((verb, at)) = when {
        let message = format!("the certificate {verb} {}", date(at));
        findings.push(Finding::new(Code::CertificateExpired, place.clone(), message));
    }
    findings
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
