//! What Traefik would route differently, or the specification where an Ingress is read as Traefik reads it.
//!
//! Nothing is guessed: every object is lowered in both readings, and both tables are asked the same requests.
//! The requests of a route are its path, and its path with and without a slash, with one more character, and
//! with one more element.

use std::collections::BTreeMap;

use crate::lower::{self, Lowered, LoweredIngress};
use crate::model::site::{Reading, Site};
use crate::model::{Code, Finding, HostPattern, ObjectName, Snapshot};
use crate::route::{Action, EntryPointIndex, PathPattern, Route, Table};

use super::objects::Ingresses;

/// How many examples a finding gives.
const EXAMPLES: usize = 3;

pub(super) fn differences(snapshot: &Snapshot, lowered: &Lowered, ingresses: &Ingresses<'_>) -> Vec<Finding> {
    let specification = World::read(snapshot, Reading::Specification);
    let traefik = World::read(snapshot, Reading::Traefik);
    let mut routes: BTreeMap<&ObjectName, Vec<&Route>> = BTreeMap::new();
    for route in specification.table.routes() {
        routes.entry(&route.origin.ingress).or_default().push(route);
    }
    let of_ingress = |ingress: &LoweredIngress| {
        let (here, there) = match ingress.reading {
            Reading::Specification => (&specification, &traefik),
            Reading::Traefik => (&traefik, &specification),
        };
        let asked = routes.get(&ingress.key.name)?.iter();
        let mut examples: Vec<String> = asked.flat_map(|route| compare(route, here, there, ingress.reading)).collect();
        examples.sort();
        examples.dedup();
        let more = examples.len().saturating_sub(EXAMPLES);
        examples.truncate(EXAMPLES);
        let object = ingresses.get(&ingress.key.name).filter(|_| !examples.is_empty())?;
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let other = match ingress.reading {
            Reading::Specification => "Traefik would route it differently",
            Reading::Traefik => "by the specification it would be routed differently",
        };
        let message = format!("{other}: {}{more}", examples.join("; "));
        Some(Finding::new(Code::IngressReading, object.place(""), message))
    };
    lowered.ingresses.iter().filter_map(of_ingress).collect()
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
        let mut lowered = lower::lower(&site, &snapshot.objects, &snapshot.facts);
        let table = Table::new(std::mem::take(&mut lowered.routes));
        Self { lowered, table }
    }

    /// Who serves a request, for people.
    fn serve(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> String {
        let Some(index) = self.table.find(entry_point, host, path) else { return "404".to_owned() };
        match &self.table.route(index).action {
            Action::Forward(backend) => self.lowered.backends[backend.0 as usize].id.to_string(),
            Action::Unavailable(_) => "503".to_owned(),
        }
    }
}

/// The requests of a route that end differently.
fn compare(route: &Route, here: &World, there: &World, reading: Reading) -> Vec<String> {
    let Some(entry_point) = route.entry_points.iter().next() else { return Vec::new() };
    let host = match &route.host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("any.{suffix}"),
        HostPattern::Any => "any.invalid".to_owned(),
    };
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
