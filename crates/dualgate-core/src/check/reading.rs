//! What Traefik would route differently, or the specification where an Ingress is read as Traefik reads it.
//!
//! Nothing is guessed: every object is lowered in both readings, and both tables are asked the same requests.
//! The requests of a route are its path, and its path with and without a slash, with one more character, and
//! with one more element.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::by_host::ByHost;
use super::objects::Pending;
use crate::lower::{self, Lowered, LoweredIngress};
use crate::model::object::{Body, IngressBackend};
use crate::model::site::{Reading, Site};
use crate::model::{Code, Finding, Host, HostPattern, Object, ObjectKey, ObjectName, ObjectSet, Snapshot};
use crate::route::{Action, EntryPointIndex, PathPattern, Route, Table};

/// How many examples a finding gives.
const EXAMPLES: usize = 3;

/// How many Ingresses are looked at at a time, where they share no host: it bounds the memory that this takes.
const BATCH: usize = 100;

/// What is read differently, by Ingress.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<ObjectName, Finding>);

impl Readings {
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.0.values().cloned()
    }

    /// Looks again at the Ingresses that changed, and at those of their hosts.
    pub(super) fn compare_again(
        &mut self,
        (snapshot, lowered, by_host): (&Snapshot, &Lowered, &ByHost),
        pending: &Pending,
    ) {
        let touched = &pending.touched;
        // What a Service is decides also about routes that only the other reading has.
        let has_touched = |ingress: &&Arc<LoweredIngress>| match &ingress.object.body {
            Body::Ingress(body) => touched.has_service_of(&ingress.key().name.namespace, body),
            _ => false,
        };
        let near = touched.namespaces_of_services().flat_map(|namespace| lowered.of_namespace(namespace));
        let mut hosts = Hosts::of(near.filter(has_touched).map(|ingress| &*ingress.object));
        pending.hosts.iter().for_each(|host| hosts.insert(host));
        pending.ingresses.iter().for_each(|ingress| drop(self.0.remove(ingress)));
        let again: Vec<&Arc<LoweredIngress>> = hosts.reached(lowered, by_host);
        let (mut rest, mut size) = (again.as_slice(), BATCH);
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            let part = part((snapshot, lowered, by_host), batch);
            // Where many share a host, each part holds them all: then as many are looked at.
            (rest, size) = (after, part.objects.of_kind("Ingress").len().max(BATCH));
            for ingress in batch {
                self.0.remove(&ingress.key().name);
            }
            self.0.extend(differences(&part, batch));
        }
    }
}

/// Hosts that requests are asked for.
#[derive(Default)]
struct Hosts {
    any: bool,
    precise: BTreeSet<Host>,
    wildcard: BTreeSet<Host>,
    /// What is above the precise ones: a wildcard for it is one for them.
    above: BTreeSet<Box<str>>,
}

impl Hosts {
    /// Those of Ingresses.
    fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut hosts = Self::default();
        for object in objects {
            let Body::Ingress(ingress) = &object.body else { continue };
            hosts.any |= ingress.default_backend.is_some();
            ingress.rules.iter().for_each(|rule| hosts.insert(&rule.host));
        }
        hosts
    }

    /// The Ingresses for which a change of these hosts is one.
    fn reached<'l>(&self, lowered: &'l Lowered, by_host: &ByHost) -> Vec<&'l Arc<LoweredIngress>> {
        // What a wildcard is above of is not to be found by the host.
        if self.any || !self.wildcard.is_empty() {
            return lowered.ingresses.iter().filter(|ingress| self.reach(&ingress.object)).collect();
        }
        let is_example = |pattern: &HostPattern, host: &Host| example(pattern) == host.as_str();
        let patterns = self.precise.iter().flat_map(|host| {
            let above = host.as_str().split_once('.').and_then(|(_, above)| above.parse().ok());
            let wildcard = above.map(HostPattern::Wildcard).filter(|wildcard| is_example(wildcard, host));
            let any = Some(HostPattern::Any).filter(|any| is_example(any, host));
            [Some(HostPattern::Exact(host.clone())), wildcard, any].into_iter().flatten()
        });
        by_name(patterns.collect(), lowered, by_host)
    }

    /// The Ingresses at which a request for one of these hosts may end.
    fn ends<'l>(&self, lowered: &'l Lowered, by_host: &ByHost) -> Vec<&'l Arc<LoweredIngress>> {
        let above = self.above.iter().filter_map(|above| above.parse().ok()).map(HostPattern::Wildcard);
        let precise = self.precise.iter().cloned().map(HostPattern::Exact);
        by_name(precise.chain(above).chain([HostPattern::Any]).collect(), lowered, by_host)
    }

    /// A host, and the one that is asked for in the place of a pattern.
    fn insert(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Any => self.any = true,
            HostPattern::Exact(host) => {
                self.above.extend(host.as_str().split_once('.').map(|(_, above)| above.into()));
                self.precise.insert(host.clone());
            }
            HostPattern::Wildcard(suffix) => drop(self.wildcard.insert(suffix.clone())),
        }
        if let Ok(HostPattern::Exact(example)) = example(pattern).parse() {
            self.above.extend(example.as_str().split_once('.').map(|(_, above)| above.into()));
            self.precise.insert(example);
        }
    }

    /// Whether a change of these hosts is one for an Ingress.
    fn reach(&self, object: &Object) -> bool {
        let Body::Ingress(ingress) = &object.body else { return false };
        let above =
            |host: &Host| host.as_str().split_once('.').is_some_and(|(_, suffix)| self.wildcard.contains(suffix));
        self.any
            || ingress.rules.iter().any(|rule| match &rule.host {
                HostPattern::Exact(host) => self.precise.contains(host) || above(host),
                pattern @ HostPattern::Wildcard(suffix) => {
                    self.wildcard.contains(suffix) || self.precise.contains(example(pattern).as_str())
                }
                pattern @ HostPattern::Any => self.precise.contains(example(pattern).as_str()),
            })
    }
}

/// The Ingresses of these hosts, each once, in the order of their names.
fn by_name<'l>(hosts: BTreeSet<HostPattern>, lowered: &'l Lowered, by_host: &ByHost) -> Vec<&'l Arc<LoweredIngress>> {
    let found = hosts.iter().flat_map(|host| by_host.of(host, lowered).map(|ingress| (&ingress.key().name, ingress)));
    found.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The snapshot with only those objects that decide about requests of these Ingresses.
fn part((snapshot, lowered, by_host): (&Snapshot, &Lowered, &ByHost), ingresses: &[&Arc<LoweredIngress>]) -> Snapshot {
    let hosts = Hosts::of(ingresses.iter().map(|ingress| &*ingress.object));
    let all = &snapshot.objects;
    let mut objects: BTreeMap<&ObjectKey, &Arc<Object>> =
        all.of_kind("IngressClass").iter().map(|object| (&object.key, object)).collect();
    for object in hosts.ends(lowered, by_host).into_iter().map(|ingress| &ingress.object) {
        let Body::Ingress(ingress) = &object.body else { continue };
        objects.insert(&object.key, object);
        let paths = ingress.rules.iter().flat_map(|rule| rule.paths.iter().flatten()).map(|path| &path.backend);
        for backend in paths.chain(&ingress.default_backend) {
            let IngressBackend::Service { name, .. } = backend else { continue };
            let service = all.get("Service", &object.key.name.namespace, name);
            objects.extend(service.map(|service| (&service.key, service)));
        }
    }
    let objects = ObjectSet { objects: objects.into_values().cloned().collect(), findings: Vec::new() };
    Snapshot { objects: Arc::new(objects), ..snapshot.clone() }
}

fn differences(part: &Snapshot, ingresses: &[&Arc<LoweredIngress>]) -> BTreeMap<ObjectName, Finding> {
    let specification = World::read(part, Reading::Specification);
    let traefik = World::read(part, Reading::Traefik);
    let mut routes: BTreeMap<&ObjectName, Vec<&Route>> = BTreeMap::new();
    for route in specification.table.routes() {
        routes.entry(&route.origin.ingress).or_default().push(route);
    }
    let of_ingress = |ingress: &&Arc<LoweredIngress>| {
        let (here, there) = match ingress.reading {
            Reading::Specification => (&specification, &traefik),
            Reading::Traefik => (&traefik, &specification),
        };
        let name = &ingress.key().name;
        let asked = routes.get(name)?.iter();
        let mut examples: Vec<String> = asked.flat_map(|route| compare(route, here, there, ingress.reading)).collect();
        examples.sort();
        examples.dedup();
        if examples.is_empty() {
            return None;
        }
        let more = examples.len().saturating_sub(EXAMPLES);
        examples.truncate(EXAMPLES);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let other = match ingress.reading {
            Reading::Specification => "Traefik would route it differently",
            Reading::Traefik => "by the specification it would be routed differently",
        };
        let message = format!("{other}: {}{more}", examples.join("; "));
        Some((name.clone(), Finding::new(Code::IngressReading, ingress.object.place(""), message)))
    };
    ingresses.iter().filter_map(of_ingress).collect()
}

/// All objects in one reading.
struct World {
    lowered: Lowered,
    table: Table,
}

impl World {
    fn read(snapshot: &Snapshot, reading: Reading) -> Self {
        let mut site = Site::clone(&snapshot.site);
        site.classes.iter_mut().for_each(|class| class.reading = reading);
        site.aliases.clear();
        let lowered = lower::lower(&Arc::new(site), &snapshot.objects, &snapshot.facts);
        let table = Table::new(lowered.routes().cloned());
        Self { lowered, table }
    }

    /// Who serves a request, for people.
    fn serve(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> String {
        let Some(index) = self.table.find(entry_point, host, path) else { return "404".to_owned() };
        match &self.table.route(index).action {
            Action::Forward(index) => {
                self.lowered.backends().get(*index).map_or_else(|| "503".to_owned(), |backend| backend.id.to_string())
            }
            Action::Unavailable(_) => "503".to_owned(),
        }
    }
}

/// The host that is asked for.
fn example(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("any.{suffix}"),
        HostPattern::Any => "any.invalid".to_owned(),
    }
}

/// The requests of a route that end differently.
fn compare(route: &Route, here: &World, there: &World, reading: Reading) -> Vec<String> {
    let Some(entry_point) = route.entry_points.iter().next() else { return Vec::new() };
    let host = example(&route.host);
    let other = match reading {
        Reading::Specification => "with Traefik",
        Reading::Traefik => "by the specification",
    };
    let ask = |path: String| {
        let (a, b) = (here.serve(entry_point, &host, &path), there.serve(entry_point, &host, &path));
        (a != b).then(|| format!("`{host}{path}` goes to {a}, {other} to {b}"))
    };
    requests(&route.path).into_iter().filter_map(ask).collect()
}

fn requests(path: &PathPattern) -> Vec<String> {
    let path = match path {
        PathPattern::Exact(path) | PathPattern::Prefix { written: path } | PathPattern::Characters(path) => path,
        PathPattern::Regex(_) => return Vec::new(),
        PathPattern::Rest => "/",
    };
    let bare = path.strip_suffix('/').unwrap_or(path);
    let more = [format!("{bare}/"), format!("{bare}/x"), format!("{path}x")];
    let bare = (!bare.is_empty()).then(|| bare.to_owned());
    bare.into_iter().chain(more).filter(|path| path.starts_with('/')).collect()
}

#[cfg(test)]
mod tests {

    use crate::case::{Case, Families};

    #[test]
    fn a_difference_is_told_by_requests_that_end_differently() {
        let text = "\
== site
ingressClasses: [{controller: dualgate.dev/ingress-controller}, {name: traefik, compat: traefik}]
== services
web 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: here, namespace: default}
spec:
  rules: [{host: a.example.org, http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: there, namespace: default}
spec:
  ingressClassName: traefik
  rules: [{host: b.example.org, http: {paths: [{path: /api/, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
";
        let snapshot = Case::parse("test", text).unwrap().snapshot(Families::Both).unwrap();
        let messages: Vec<String> =
            crate::check::objects::objects(&snapshot).into_iter().map(|finding| finding.message).collect();
        assert_eq!(
            messages,
            [
                "Traefik would route it differently: `a.example.org/apix` goes to 404, with Traefik to default/web:80",
                "by the specification it would be routed differently: `b.example.org/api` goes to 404, by the specification to default/web:80",
            ]
        );
    }
}
