//! What is public, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::lower;
use crate::model::{GateName, ObjectName, Snapshot};

use super::place;

/// What is public: everything that the external gate serves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exposure {
    /// The routes, by host and path.
    pub routes: Vec<Exposed>,
}

/// One public route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Exposed {
    /// The host; `*` is any.
    pub host: String,
    /// The kind of its path match, and the path.
    pub path: String,
    /// The entry points of the external gate.
    pub entry_points: Vec<String>,
    /// The Ingress.
    pub ingress: String,
    /// What decided so.
    pub why: String,
    /// Where that is written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
}

/// Lists what is public.
pub fn exposure(snapshot: &Snapshot) -> Exposure {
    let lowered = lower::snapshot(snapshot);
    let public = lowered.entry_points.of_gate(GateName::External);
    let reasons: BTreeMap<&ObjectName, String> =
        lowered.ingresses.iter().map(|ingress| (&ingress.key().name, ingress.placement.reason.to_string())).collect();
    let exposed = lowered.routes().filter(|route| route.entry_points.intersects(public)).map(|route| Exposed {
        host: route.host.to_string(),
        path: route.path.to_string(),
        entry_points: lowered.entry_points.of_set(route.entry_points.and(public)).map(|p| p.name.to_string()).collect(),
        ingress: route.origin.ingress.to_string(),
        why: reasons.get(&route.origin.ingress).cloned().unwrap_or_default(),
        at: place(snapshot, &route.origin.ingress, &route.origin.part.to_string()),
    });
    let mut routes: Vec<Exposed> = exposed.collect();
    routes.sort();
    Exposure { routes }
}
