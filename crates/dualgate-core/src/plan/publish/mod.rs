//! What is to stand at providers: the public view of each zone that lives at one.
//!
//! Pure: the wanted records come from `plan::dns`, those that are there from whoever reads the provider; [`diff`] says what
//! has to change. `host::publish` speaks to providers.
//!
//! **Only ours.** Beside each set of records stands a mark, a TXT record as external-dns writes it. What has no mark of this
//! owner was made by somebody else and is never touched: it becomes a [`Conflict`]. So is a name of which somebody else has a
//! part: half of its answers would lead elsewhere.

mod diff;
mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dualgate_wire::dns::{Name, Rdata, RecordType};

pub use diff::{Change, Conflict, Diff, Edit, Kind, diff};
pub use mark::{Mark, mark_name};

use super::dns::{Origin, View, zones};
use crate::lower::Lowered;
use crate::model::finding::{Place, Severity};
use crate::model::site::{Dns, Provider, Publish, PublishPolicy, Site};
use crate::model::{Code, Finding, ObjectKey, ObjectSet, Snapshot, Text};

/// What a set of records is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetKey {
    /// The name.
    pub name: Name,
    /// The type.
    pub rtype: RecordType,
}

impl SetKey {
    /// Of this name and type.
    pub fn new(name: Name, rtype: RecordType) -> Self {
        Self { name, rtype }
    }
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.rtype)
    }
}

/// All records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Time to live in seconds.
    pub ttl: u32,
    /// At least one.
    pub data: BTreeSet<Rdata>,
}

/// The sets of a zone.
pub type Sets = BTreeMap<SetKey, Set>;

/// A set that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The records.
    pub set: Set,
    /// What they come from, as their mark says: `ingress/apps/grafana`.
    pub from: Text,
}

/// The public view of one zone, and where it is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The zone of the site.
    pub zone: Name,
    /// The zone at the provider: the same one, or one above.
    pub at: Name,
    /// What the provider is called.
    pub name: Text,
    /// Where it is.
    pub provider: Arc<Provider>,
    /// Whose records they are.
    pub owner: Text,
    /// Whether marks of this owner count where external-dns puts them: only if the site file names the owner.
    pub takes_over: bool,
    /// What happens to what is not wanted.
    pub policy: PublishPolicy,
    /// What is to be there.
    pub wanted: Arc<BTreeMap<SetKey, Wanted>>,
    /// Zones below, which are written to elsewhere or by another entry.
    pub except: Vec<Name>,
}

impl Publication {
    /// Whether a name there is one of this zone.
    pub fn is_ours(&self, name: &Name) -> bool {
        name.is_within(&self.zone) && !self.except.iter().any(|zone| name.is_within(zone))
    }
}

/// What is published where, in the order of zones.
pub fn publish(snapshot: &Snapshot, lowered: &Lowered) -> Vec<Publication> {
    let site = &*snapshot.site;
    let Some(dns) = site.dns.as_ref().filter(|dns| !dns.providers.is_empty()) else { return Vec::new() };
    let owner = owner(site, dns);
    let all: Vec<Name> = dns.zones.iter().filter_map(|zone| zone.name.as_str().parse().ok()).collect();
    let policy = |provider: &Provider| match is_broken(&snapshot.objects) {
        // What cannot be read may be just what is missing.
        true => PublishPolicy::UpsertOnly,
        false => provider.policy,
    };
    let publication = |zone: super::dns::Zone| {
        let written = dns.zones.iter().find(|written| written.name.as_str() == zone.name.to_string())?;
        let Publish::Provider(name) = &written.publish else { return None };
        let provider = dns.providers.get(name)?;
        let at = provider.zone.as_ref().and_then(|at| at.as_str().parse().ok());
        let at = at.filter(|at| zone.name.is_within(at)).unwrap_or_else(|| zone.name.clone());
        let below = all.iter().filter(|other| **other != zone.name && other.is_within(&zone.name));
        Some(Publication {
            at,
            name: name.as_str().into(),
            owner: owner.clone(),
            takes_over: dns.owner.is_some(),
            policy: policy(provider),
            provider: Arc::new(provider.clone()),
            wanted: Arc::new(wanted(&zone)),
            except: below.cloned().collect(),
            zone: zone.name,
        })
    };
    zones(snapshot, lowered, View::Public).into_iter().filter_map(publication).collect()
}

/// The owner's name stands in a list with commas.
fn owner(site: &Site, dns: &Dns) -> Text {
    let name = dns.owner.as_deref().unwrap_or(&site.name);
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect::<String>()
        .into()
}

/// Whether something of the source was never read.
fn is_broken(objects: &ObjectSet) -> bool {
    let is_there = |key: &ObjectKey| objects.of_kind(&key.kind).iter().any(|object| object.key == *key);
    objects.findings.iter().any(|finding| match (finding.code, &finding.at.object) {
        (Code::Syntax | Code::Unreadable, _) => true,
        // An object that was refused as a whole.
        (Code::ObjectInvalid, Some(key)) => {
            matches!(&*key.kind, "Ingress" | "IngressClass" | "Service") && !is_there(key)
        }
        // It does not even say what it is.
        (Code::ObjectInvalid, None) => finding.severity == Severity::Error,
        _ => false,
    })
}

/// Start and name servers of a zone are its provider's.
fn wanted(zone: &super::dns::Zone) -> BTreeMap<SetKey, Wanted> {
    let of_provider = |name: &Name, rtype| rtype == RecordType::SOA || rtype == RecordType::NS && *name == zone.name;
    let sets = zone.sets.iter().flat_map(|(name, sets)| sets.iter().map(move |set| (name, set)));
    sets.filter(|(name, set)| !of_provider(name, set.rtype))
        .map(|(name, set)| {
            let records = Set { ttl: set.ttl, data: set.data.iter().cloned().collect() };
            (SetKey::new(name.clone(), set.rtype), Wanted { set: records, from: resource(&set.origin) })
        })
        .collect()
}

/// external-dns' way to name what a record comes from.
fn resource(origin: &Origin) -> Text {
    match origin {
        Origin::Ingress(name) => format!("ingress/{}/{}", name.namespace, name.name).into(),
        Origin::Service(name) => format!("service/{}/{}", name.namespace, name.name).into(),
        Origin::Gate(gate) => format!("gate/{gate}").into(),
        Origin::SiteFile { .. } => "site-file".into(),
        Origin::Zone => "zone".into(),
    }
}

/// What a diff found that somebody has to decide.
pub fn findings(publication: &Publication, diff: &Diff) -> Vec<Finding> {
    let place = || Place { field: "dns.zones".to_owned(), ..Place::default() };
    let said = |conflict: &Conflict| {
        let message = format!("{} at {}: {conflict}", conflict.key, publication.name);
        Finding::new(Code::DnsForeign, place(), message).help(conflict.why.help())
    };
    diff.conflicts.iter().map(said).collect()
}
