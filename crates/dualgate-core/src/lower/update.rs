//! Bringing what was lowered up to another snapshot: what nothing has touched stays as it is.
//!
//! | what is another one | what is lowered again |
//! |---|---|
//! | the site file, an IngressClass | everything |
//! | an Ingress | it |
//! | a Service | the Ingresses that name it, its backends; if it came or went, those of its namespace that lack one |
//! | an EndpointSlice | the backends of its Service |
//! | a Secret, or whether its certificate is valid | the Ingresses that name it |
//! | the addresses of Services | what is forwarded, which is lowered each time |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::changes::{Change, changes};
use crate::model::object::{Body, Ingress, IngressBackend, ObjectSet};
use crate::model::snapshot::{Facts, Snapshot};
use crate::model::{GateName, Object, ObjectName, Site, Text};
use crate::route::{Action, Route};

use super::service::Resolver;
use super::world::{ingress_of, service_of};
use super::{EntryPoints, Lowered, LoweredIngress, alias, annotation, class, forward, ingress, placement};

/// Names by namespace, to be asked without making a name of one's own.
#[derive(Debug, Default)]
struct Names(BTreeMap<Text, BTreeSet<Text>>);

impl Names {
    fn insert(&mut self, name: &ObjectName) {
        self.0.entry(name.namespace.clone()).or_default().insert(name.name.clone());
    }

    fn of(&self, namespace: &str) -> Option<&BTreeSet<Text>> {
        self.0.get(namespace)
    }

    fn iter(&self) -> impl Iterator<Item = ObjectName> {
        let of_namespace = |(namespace, names): (&Text, &BTreeSet<Text>)| {
            let name = |name: &Text| ObjectName::new(namespace.clone(), name.clone());
            names.iter().map(name).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_namespace)
    }
}

/// What the changes of objects touch.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Whether every Ingress is to be lowered again.
    all: bool,
    services: Names,
    secrets: Names,
    /// Services whose backends are to be made again.
    backends: Names,
}

impl Touched {
    /// What these changes touch.
    pub(crate) fn by(changes: &[Change<'_, Object>]) -> Self {
        let mut touched = Self::default();
        touched.add(changes);
        touched
    }

    /// What further changes touch.
    pub(crate) fn add(&mut self, changes: &[Change<'_, Object>]) {
        for object in changes.iter().flat_map(|(old, new)| [*old, *new]).flatten() {
            let name = &object.key.name;
            match &object.body {
                Body::IngressClass(_) => self.all = true,
                Body::Service(_) => {
                    self.services.insert(name);
                    self.backends.insert(name);
                }
                Body::EndpointSlice(_) => service_of(object).iter().for_each(|service| self.backends.insert(service)),
                Body::Secret(_) => self.secrets.insert(name),
                Body::Ingress(_) | Body::ConfigMap(_) | Body::Namespace | Body::Node(_) | Body::Other => {}
            }
        }
    }

    /// The namespaces whose Ingresses may name a Service or a Secret that is touched.
    fn namespaces(&self) -> BTreeSet<&str> {
        self.services.0.keys().chain(self.secrets.0.keys()).map(|namespace| &**namespace).collect()
    }

    /// The namespaces that have a Service that is touched.
    pub(crate) fn namespaces_of_services(&self) -> impl Iterator<Item = &str> {
        self.services.0.keys().map(|namespace| &**namespace)
    }

    /// Whether an Ingress names what is touched.
    fn is_named(&self, namespace: &str, ingress: &Ingress) -> bool {
        let secrets = self.secrets.of(namespace);
        let shown = |name: &Text| secrets.is_some_and(|secrets| secrets.contains(&**name));
        self.has_service_of(namespace, ingress) || ingress.tls.iter().filter_map(|tls| tls.secret.as_ref()).any(shown)
    }

    /// Whether an Ingress names a Service that is touched.
    pub(crate) fn has_service_of(&self, namespace: &str, ingress: &Ingress) -> bool {
        names(&self.services, namespace, ingress)
    }

    /// Whether an Ingress names a Service that is touched, or an EndpointSlice of which is.
    pub(crate) fn has_backend_of(&self, namespace: &str, ingress: &Ingress) -> bool {
        names(&self.backends, namespace, ingress)
    }
}

/// Whether an Ingress names one of these Services.
fn names(services: &Names, namespace: &str, ingress: &Ingress) -> bool {
    let Some(services) = services.of(namespace) else { return false };
    let paths = ingress.rules.iter().flat_map(|rule| rule.paths.iter().flatten());
    paths.map(|path| &path.backend).chain(&ingress.default_backend).any(|backend| match backend {
        IngressBackend::Service { name, .. } => services.contains(&**name),
        IngressBackend::Resource { .. } => false,
    })
}

impl Lowered {
    /// Brings it up to a snapshot.
    pub fn update_to(&mut self, snapshot: &Snapshot) {
        self.update(&snapshot.site, &snapshot.objects, &snapshot.facts);
    }

    /// Brings it up to these objects of a site.
    pub fn update(&mut self, site: &Arc<Site>, objects: &Arc<ObjectSet>, facts: &Facts) {
        if self.site.as_ref().is_none_or(|known| !Arc::ptr_eq(known, site)) {
            *self = Self { site: Some(site.clone()), entry_points: EntryPoints::of(site), ..Self::default() };
        }
        let before = self.world.objects().clone();
        let changes = changes(&before.objects, &objects.objects, |object| &object.key);
        let mut touched = Touched::by(&changes);
        self.world.update(objects.clone(), &changes);
        touched.secrets.iter().for_each(|secret| self.shown.forget(&secret));
        self.shown.pass(facts.now).iter().for_each(|turned| touched.secrets.insert(turned));
        self.lower_again(site, self.to_lower(&changes, &touched));
        touched.backends.iter().for_each(|service| self.backends.remake(&service, site, &self.world));
        if let Some(certificates) = self.shown.settle() {
            self.certificates = certificates;
        }
        if before.objects.is_empty() {
            self.backends.pack();
            self.shown.pack();
        }
        self.of_forwards.clear();
        self.forwards = forward::forwards(site, facts, &self.world, &self.backends, &mut self.of_forwards);
    }

    /// The Ingresses that are to be lowered, by name; nothing for those that are gone.
    fn to_lower(&self, changes: &[Change<'_, Object>], touched: &Touched) -> BTreeMap<ObjectName, Option<Arc<Object>>> {
        let is_ingress = |object: &&Arc<Object>| matches!(object.body, Body::Ingress(_));
        let mut found: BTreeMap<ObjectName, Option<Arc<Object>>> = BTreeMap::new();
        for (old, new) in changes {
            if let Some(object) = new.or(*old).filter(is_ingress) {
                found.insert(object.key.name.clone(), new.cloned());
            }
        }
        let mut add = |object: &Arc<Object>| found.insert(object.key.name.clone(), Some(object.clone()));
        if touched.all {
            self.world.ingresses().for_each(|object| drop(add(object)));
            return found;
        }
        for namespace in touched.namespaces() {
            let of_namespace = self.world.ingresses_of(namespace).iter();
            let is_named = |ingress: &Ingress| touched.is_named(namespace, ingress);
            of_namespace.filter(|object| ingress_of(object).is_some_and(is_named)).for_each(|object| drop(add(object)));
            if touched.services.of(namespace).is_some() {
                let lacking = self.of_namespace(namespace).iter().filter(|ingress| ingress.lacks_something());
                lacking
                    .filter_map(|ingress| self.world.ingress(&ingress.key().name))
                    .for_each(|object| drop(add(object)));
            }
        }
        found
    }

    fn lower_again(&mut self, site: &Site, found: BTreeMap<ObjectName, Option<Arc<Object>>>) {
        if found.is_empty() {
            return;
        }
        let mut stay = std::mem::take(&mut self.ingresses).into_iter().peekable();
        let mut ingresses = Vec::with_capacity(stay.len() + found.len());
        for (name, object) in found {
            ingresses.extend(std::iter::from_fn(|| stay.next_if(|ingress| ingress.key().name < name)));
            let before = stay.next_if(|ingress| ingress.key().name == name);
            self.unclassed.remove(&name);
            let mut after = object.and_then(|object| self.one(site, &object));
            if let (Some(before), Some(after)) = (&before, &mut after) {
                after.share_routes(before);
            }
            let after = after.map(Arc::new);
            ingresses.extend(self.replace(before, after));
        }
        ingresses.extend(stay);
        self.ingresses = ingresses;
    }

    /// What counts from now on.
    fn replace(
        &mut self,
        before: Option<Arc<LoweredIngress>>,
        after: Option<Arc<LoweredIngress>>,
    ) -> Option<Arc<LoweredIngress>> {
        let object = after.as_ref().or(before.as_ref()).map(|ingress| ingress.object.clone())?;
        let claims = |ingress: &Option<Arc<LoweredIngress>>| match ingress {
            Some(ingress) => ingress.claims.to_vec(),
            None => Vec::new(),
        };
        // Also where they read alike: the certificate may be another one.
        self.shown.replace(&object, &claims(&before), &claims(&after));
        if let (Some(before), Some(after)) = (&before, &after)
            && before.is_as(after)
        {
            return Some(before.clone());
        }
        // What is still needed is never let go of in between.
        after.iter().for_each(|ingress| self.backends.hold(&ingress.routes));
        before.iter().for_each(|ingress| self.backends.release(&ingress.routes));
        after
    }

    /// Lowers one Ingress; nothing if it is not ours.
    fn one(&mut self, site: &Site, object: &Arc<Object>) -> Option<LoweredIngress> {
        let ingress = ingress_of(object)?;
        let (membership, reading) = match class::membership(site, &self.world, object, ingress) {
            class::Verdict::Ours(membership, reading) => (membership, reading),
            class::Verdict::NotOurs => return None,
            class::Verdict::NoSuchClass(finding) => {
                self.unclassed.insert(object.key.name.clone(), finding);
                return None;
            }
        };
        let (entry_points, mut findings) = (&self.entry_points, Vec::new());
        let annotations = annotation::OfIngress::read(object, &mut findings);
        let placement = placement::place(site, entry_points, object, &annotations, &mut findings);
        let mut part = ingress::Part { object, ingress, reading, annotations: &annotations, placement: &placement };
        let mut resolver = Resolver { site, world: &self.world, backends: &mut self.backends };
        let mut routes = part.routes(&mut resolver, &mut findings);
        routes.extend(alias::routes(site, entry_points, &routes));
        let https = placement.entry_points.and(entry_points.https());
        let internal = entry_points.of_gate(GateName::Internal);
        let claims = self.shown.claims((site, &self.world), (object, ingress), (https, internal), &mut findings);
        Some(LoweredIngress {
            object: object.clone(),
            membership,
            reading,
            placement,
            routes: routes.into_iter().map(Arc::new).collect(),
            claims,
            findings: findings.into(),
        })
    }
}

impl LoweredIngress {
    /// Whether it is as another one of the same object.
    fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object) && self == other
    }

    /// Routes that read as before are the same values: mostly all of them, as when its status was written.
    fn share_routes(&mut self, before: &Self) {
        let alike = self.routes.iter_mut().zip(&before.routes).filter(|(route, before)| route == before);
        alike.for_each(|(route, before)| route.clone_from(before));
    }

    /// Whether it has the very routes of another one.
    pub(crate) fn has_routes_of(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Arc<Route>, &Arc<Route>)| Arc::ptr_eq(one, other);
        self.routes.len() == other.routes.len() && self.routes.iter().zip(&other.routes).all(is_same)
    }

    /// Whether only the status of its object tells it from another one.
    pub(crate) fn reads_as(&self, other: &Self) -> bool {
        let Self { object, membership, reading, placement, routes: _, claims, findings } = self;
        let has_spec_of = |ingress: &Ingress| ingress_of(&other.object).is_some_and(|other| ingress.has_spec_of(other));
        self.has_routes_of(other)
            && (membership, reading, placement) == (&other.membership, &other.reading, &other.placement)
            && (claims, findings) == (&other.claims, &other.findings)
            && (&object.meta, &object.origin) == (&other.object.meta, &other.object.origin)
            && ingress_of(object).is_some_and(has_spec_of)
    }

    /// Whether a route has no backend: what could be meant is told by what else there is.
    fn lacks_something(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.action, Action::Unavailable(_)))
    }
}
