//! What a name leads to in each view, and why.

use std::fmt;

use dualgate_wire::dns::Name;
use serde::Serialize;

use crate::lower::Lowered;
use crate::model::site::{Publish, Site};
use crate::model::{GateName, Snapshot};
use crate::plan::dns::{self, View, Zone};

/// What a view says of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameView {
    /// `home` or `public`.
    pub view: String,
    /// In words: who answers, and what.
    pub because: String,
    /// The records, in the order of their types.
    pub records: Vec<RecordView>,
}

/// A record as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordView {
    /// The view.
    pub view: String,
    /// The zone.
    pub zone: String,
    /// The name.
    pub name: String,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The type.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as a zone file has it.
    pub data: String,
    /// Where it comes from.
    pub from: String,
}

/// Every record of a view, in the order of zones, names and types.
pub fn records(zones: &[Zone], view: View) -> Vec<RecordView> {
    zones.iter().flat_map(|zone| zone.sets.keys().flat_map(move |name| of_name(zone, name, view))).collect()
}

fn of_name(zone: &Zone, name: &Name, view: View) -> Vec<RecordView> {
    let lines = zone.of(name).iter().flat_map(|set| {
        set.data.iter().map(|data| RecordView {
            view: view.to_string(),
            zone: zone.name.to_string(),
            name: name.to_string(),
            ttl: set.ttl,
            rtype: set.rtype.to_string(),
            data: data.to_string(),
            from: set.origin.to_string(),
        })
    });
    lines.collect()
}

/// What clients of a gate are told about a host; `None` where the site has no names, or it is no name.
pub(super) fn name(snapshot: &Snapshot, lowered: &Lowered, gate: GateName, host: &str) -> Option<NameView> {
    let site = &snapshot.site;
    site.dns.as_ref()?;
    let name: Name = host.parse().ok()?;
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let view = match gate {
        GateName::Internal => View::Home,
        GateName::External => View::Public,
    };
    let zones = dns::zones(snapshot, lowered, view);
    let zone = zones.iter().filter(|zone| name.is_within(&zone.name)).max_by_key(|zone| zone.name.labels().count());
    let (because, records) = match zone {
        None => (outside(site, view, &name), Vec::new()),
        Some(zone) => match zone.find(&name) {
            Some(owner) => (found(site, zone, &name, owner), of_name(zone, owner, view)),
            None => (missing(site, zone, view), Vec::new()),
        },
    };
    Some(NameView { view: view.to_string(), because, records })
}

fn found(site: &Site, zone: &Zone, name: &Name, owner: &Name) -> String {
    let by = if owner == name { String::new() } else { format!(" as `{owner}`") };
    match publish(site, zone) {
        Some(Publish::Provider(provider)) => format!("zone `{}` at {provider}, answered here{by}", zone.name),
        Some(Publish::Edge | Publish::HomeOnly) | None => format!("zone `{}`{by}", zone.name),
    }
}

fn missing(site: &Site, zone: &Zone, view: View) -> String {
    match (publish(site, zone), view) {
        (Some(Publish::Provider(provider)), _) => {
            format!("nothing here about it: whatever {provider} has in zone `{}`", zone.name)
        }
        (Some(Publish::Edge | Publish::HomeOnly) | None, View::Home) => {
            format!("no such name in zone `{}`: no gate and no record has it", zone.name)
        }
        (Some(Publish::Edge | Publish::HomeOnly) | None, View::Public) => {
            format!("no such name in zone `{}`: the external gate does not serve it", zone.name)
        }
    }
}

fn publish<'s>(site: &'s Site, zone: &Zone) -> Option<&'s Publish> {
    let zones = site.dns.iter().flat_map(|dns| &dns.zones);
    let name = zone.name.to_string();
    zones.into_iter().find(|known| known.name.as_str() == name).map(|known| &known.publish)
}

fn outside(site: &Site, view: View, name: &Name) -> String {
    let at_home_only = site.dns.iter().flat_map(|dns| &dns.zones).any(|zone| {
        zone.publish == Publish::HomeOnly && zone.name.as_str().parse::<Name>().is_ok_and(|zone| name.is_within(&zone))
    });
    let forward: Vec<String> = site.dns.iter().flat_map(|dns| &dns.forward).map(ToString::to_string).collect();
    match view {
        View::Public if at_home_only => "its zone is known at home only".to_owned(),
        View::Public => "in no zone of the site file: refused at the edge".to_owned(),
        View::Home if forward.is_empty() => {
            "in no zone of the site file, and `dns.forward` is empty: refused".to_owned()
        }
        View::Home => format!("in no zone of the site file: asked for at {}", forward.join(", ")),
    }
}

impl fmt::Display for NameView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name         {} view: {}", self.view, self.because)?;
        for record in &self.records {
            writeln!(f, "  {:10} {} ({} s, {})", record.rtype, record.data, record.ttl, record.from)?;
        }
        Ok(())
    }
}
