//! Which Ingresses are about which hosts, so that nobody passes all of them to find those of one host.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::lower::{Lowered, LoweredIngress};
use crate::model::changes::Change;
use crate::model::object::Body;
use crate::model::{HostPattern, ObjectName};

/// Hosts with the Ingresses that are about them: by a rule, by a route under a home name, or, about any host, by a default
/// backend.
#[derive(Debug, Default)]
pub(super) struct ByHost(BTreeSet<(HostPattern, ObjectName)>);

impl ByHost {
    /// Brings it up to the Ingresses of now.
    pub(super) fn update(&mut self, changes: &[Change<'_, LoweredIngress>]) {
        let entries = |ingress: &'_ Arc<LoweredIngress>| {
            let name = ingress.key().name.clone();
            hosts(ingress).map(move |host| (host, name.clone())).collect::<Vec<_>>()
        };
        let before = changes.iter().filter_map(|(old, _)| *old).flat_map(entries);
        before.for_each(|entry| {
            self.0.remove(&entry);
        });
        let after = changes.iter().filter_map(|(_, new)| *new).flat_map(entries);
        // What is made in one go is packed.
        match self.0.is_empty() {
            true => self.0 = after.collect(),
            false => self.0.extend(after),
        }
    }

    /// The Ingresses of a host as it is written in them, in the order of their names.
    pub(super) fn of<'l>(
        &self,
        host: &HostPattern,
        lowered: &'l Lowered,
    ) -> impl Iterator<Item = &'l Arc<LoweredIngress>> {
        let first = (host.clone(), ObjectName::new("", ""));
        let of_host = self.0.range(first..).take_while(move |(other, _)| other == host);
        of_host.filter_map(|(_, name)| lowered.ingress(name))
    }
}

/// The hosts that an Ingress is about.
pub(super) fn hosts(ingress: &LoweredIngress) -> impl Iterator<Item = HostPattern> {
    let body = match &ingress.object.body {
        Body::Ingress(body) => Some(body),
        _ => None,
    };
    let of_rules = body.into_iter().flat_map(|body| &body.rules).map(|rule| rule.host.clone());
    let of_default = body.and_then(|body| body.default_backend.as_ref()).map(|_| HostPattern::Any);
    let of_routes = ingress.routes.iter().map(|route| route.host.clone());
    of_rules.chain(of_default).chain(of_routes)
}
