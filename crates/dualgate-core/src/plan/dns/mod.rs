//! Which names a node answers for, and what it answers: split-horizon names that follow the same objects as the gates.
//!
//! Pure: reads the routes and certificates that were lowered, the addresses of gates, edges and Services, and the site
//! file's records. `machine::dns` answers from it; `host::dns` has the sockets.
//!
//! **Two views.** At home a name leads to the internal gate if it is served there, else to the edges. The public view has
//! what the external gate serves and nothing else: it is made without a look at home's addresses, and whatever is not
//! public is taken out of it at its end, of every type.
//!
//! **The whole name.** Whoever is answered here about a name is answered about every type of it, so that no address and
//! no HTTPS record of the other view comes in beside. In a zone that lives at a provider this goes for the names that
//! are ours; everything else of the zone is asked for there.

mod addresses;
mod hosts;
mod zones;

pub use addresses::SILENT;
pub(crate) use addresses::{silent, silent_for};

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use dualgate_wire::dns::{Name, Rdata, RecordType};
use ipnet::IpNet;

use crate::lower::{self, Lowered};
use crate::model::site::{Node, Publish, Role, Site};
pub use crate::model::upstream::{Upstream, UpstreamProtocol};
use crate::model::{Finding, GateName, NodeName, ObjectName, Snapshot};

/// What one node answers. The empty plan has no part in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsPlan {
    /// Where it listens, over UDP and TCP. An address may be absent: another node holds it at the moment.
    pub listen: Vec<SocketAddr>,
    /// Whom it answers.
    pub view: View,
    /// In the order of their names.
    pub zones: Vec<Arc<Zone>>,
    /// How everything else is answered; `None` refuses it.
    pub resolver: Option<ResolverPlan>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// Clients at home.
    #[default]
    Home,
    /// The Internet.
    Public,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Home => "home",
            Self::Public => "public",
        })
    }
}

/// What is known of a domain and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: Name,
    /// Whether all of it is ours. Otherwise the names in `sets` are, and all else is asked for where the zone lives.
    pub is_whole: bool,
    /// Its start. A whole zone has it among its sets, too; any zone has it in answers that say what is not there.
    pub soa: RecordSet,
    /// The records of each name, in the order of their types; those of the zone itself included.
    pub sets: BTreeMap<Name, Arc<[RecordSet]>>,
}

impl Zone {
    /// Grows with every change of the zone.
    pub fn serial(&self) -> u32 {
        match self.soa.data.first() {
            Some(Rdata::Soa { serial, .. }) => *serial,
            Some(_) | None => 0,
        }
    }

    /// What is said of a name; nothing for one that is not there.
    pub fn of(&self, name: &Name) -> &[RecordSet] {
        self.sets.get(name).map(|sets| &**sets).unwrap_or_default()
    }

    /// What says something about a name: the name itself, or the wildcard that stands for it (RFC 4592).
    pub fn find(&self, name: &Name) -> Option<&Name> {
        if let Some((known, _)) = self.sets.get_key_value(name) {
            return Some(known);
        }
        // What has something below it exists, and no wildcard stands for it.
        if self.is_above_others(name) {
            return None;
        }
        let above = std::iter::successors(name.parent(), Name::parent).take_while(|above| above.is_within(&self.name));
        for above in above {
            if let Some((wildcard, _)) = above.child(b"*").and_then(|wildcard| self.sets.get_key_value(&wildcard)) {
                return Some(wildcard);
            }
            if self.sets.contains_key(&above) || self.is_above_others(&above) {
                return None;
            }
        }
        None
    }

    fn is_above_others(&self, name: &Name) -> bool {
        let after = self.sets.range((std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded)).next();
        after.is_some_and(|(next, _)| next.is_within(name))
    }

    /// The same with another serial number.
    pub fn with_serial(mut self, number: u32) -> Self {
        let data = self.soa.data.iter().cloned().map(|data| match data {
            Rdata::Soa { server, mailbox, refresh, retry, expire, minimum, .. } => {
                Rdata::Soa { server, mailbox, serial: number, refresh, retry, expire, minimum }
            }
            other => other,
        });
        self.soa.data = data.collect();
        if let Some(apex) = self.sets.get_mut(&self.name) {
            let soa = |set: &RecordSet| if set.rtype == RecordType::SOA { &self.soa } else { set }.clone();
            *apex = apex.iter().map(soa).collect();
        }
        self
    }
}

/// The records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    /// The type.
    pub rtype: RecordType,
    /// Time to live in seconds.
    pub ttl: u32,
    /// At least one.
    pub data: Arc<[Rdata]>,
    /// Where they come from.
    pub origin: Origin,
}

/// Where records come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A host of an Ingress; the first of them by name.
    Ingress(ObjectName),
    /// A name of a LoadBalancer Service.
    Service(ObjectName),
    /// The address of a gate.
    Gate(GateName),
    /// A record of the site file.
    SiteFile {
        /// The number of the zone, from 0.
        zone: usize,
        /// The number of the record in it, from 0.
        record: usize,
    },
    /// What every zone has.
    Zone,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingress(name) => write!(f, "Ingress {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Gate(gate) => write!(f, "the {gate} gate"),
            Self::SiteFile { zone, record } => write!(f, "dns.zones[{zone}].records[{record}]"),
            Self::Zone => f.write_str("the zone itself"),
        }
    }
}

/// How names that are not ours are answered, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverPlan {
    /// Who is asked, best first.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Who is asked about some domains, the longest name first.
    pub per_zone: Vec<(Name, Vec<Arc<Upstream>>)>,
    /// Domains that may lead to private addresses.
    pub rebind_allowed: Vec<Name>,
    /// The file of those who may certify resolvers that are spoken to encrypted; `None` is the system's.
    pub certificate_authorities: Option<PathBuf>,
    /// Whose questions are handed on: never everybody's.
    pub clients: Vec<IpNet>,
}

impl ResolverPlan {
    /// Everybody who may be asked.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().chain(self.per_zone.iter().flat_map(|(_, upstreams)| upstreams))
    }
}

/// What a node answers.
pub fn dns(snapshot: &Snapshot, node: &NodeName) -> DnsPlan {
    select(snapshot, &lower::snapshot(snapshot), node)
}

/// The same, from the snapshot and what it was lowered to.
pub fn select(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> DnsPlan {
    Memo::default().select(snapshot, lowered, node)
}

/// Where a node listens for questions.
pub fn listen(site: &Site, node: &Node) -> Vec<SocketAddr> {
    addresses::listen(site, node)
}

/// All zones of a view with their records, whoever answers for them: also those that are published elsewhere.
pub fn zones(snapshot: &Snapshot, lowered: &Lowered, view: View) -> Vec<Zone> {
    zones::zones(snapshot, lowered, view, &mut zones::Former::default())
}

/// Names that objects ask for and that lie in no zone, and addresses that were kept out of the public view.
pub fn findings(snapshot: &Snapshot, lowered: &Lowered) -> Vec<Finding> {
    zones::findings(snapshot, lowered)
}

/// What was planned before, for one node: a zone that did not change keeps its serial number and is the same value, and so
/// does each name of one that did.
#[derive(Debug, Default)]
pub struct Memo {
    former: zones::Former,
}

impl Memo {
    /// What a node answers. The serial number of a zone is the moment of its last change in seconds since 1970, as far as
    /// this memory reaches back; without one it is now. So it grows through restarts, and on every node for itself.
    pub fn select(&mut self, snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> DnsPlan {
        let site = &snapshot.site;
        let (Some(dns), Some(node)) = (&site.dns, site.node(node)) else { return DnsPlan::default() };
        if !node.has(Role::Dns) || node.is_edge() && !dns.public {
            return DnsPlan::default();
        }
        let view = view_of(node);
        let mut zones = zones::zones(snapshot, lowered, view, &mut self.former);
        let published: Vec<Name> = (dns.zones.iter().filter(|zone| zone.publish == Publish::Edge))
            .filter_map(|zone| zone.name.as_str().parse().ok())
            .collect();
        zones.retain(|zone| match view {
            View::Home => true,
            View::Public => published.contains(&zone.name),
        });
        let zones: Vec<Arc<Zone>> = zones.into_iter().map(|zone| self.settle(zone, snapshot.facts.now)).collect();
        let resolver = match view {
            View::Home => addresses::resolver(site, &zones),
            View::Public => None,
        };
        DnsPlan { listen: addresses::listen(site, node), view, zones, resolver }
    }

    fn settle(&mut self, zone: Zone, now: i64) -> Arc<Zone> {
        let now = u32::try_from(now.max(1)).unwrap_or(u32::MAX);
        let serial = match self.former.zones.get(&zone.name) {
            Some(before) if **before == zone => return before.clone(),
            Some(before) => now.max(before.serial().saturating_add(1)),
            None => now,
        };
        let zone = Arc::new(zone.with_serial(serial));
        self.former.zones.insert(zone.name.clone(), zone.clone());
        zone
    }
}

fn view_of(node: &Node) -> View {
    if node.is_edge() { View::Public } else { View::Home }
}

/// The addresses that a record set tells.
pub fn addresses_of(set: &RecordSet) -> impl Iterator<Item = IpAddr> {
    set.data.iter().flat_map(Rdata::addresses)
}
