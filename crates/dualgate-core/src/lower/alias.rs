//! The site's home names for public names.
//!
//! A home name is served at the internal gate only: it means nothing outside, and a name like
//! `grafana.home.arpa` must not be answered on the Internet. It has the same routes as the name that it
//! stands for. A home name that an Ingress names itself has those routes too; age decides between equals.

use crate::model::site::{Alias, Site};
use crate::model::{GateName, Host, HostPattern};
use crate::route::Route;

use super::entry_points::EntryPoints;

/// The further routes of one Ingress under home names.
pub(super) fn routes(site: &Site, entry_points: &EntryPoints, routes: &[Route]) -> Vec<Route> {
    if site.aliases.is_empty() {
        return Vec::new();
    }
    let internal = entry_points.of_gate(GateName::Internal);
    let written: Vec<&HostPattern> = routes.iter().map(|route| &route.host).collect();
    let mut further = Vec::new();
    for route in routes {
        let served = route.entry_points.and(internal);
        for home in homes(site, &route.host, &written) {
            if !served.is_empty() && !further.iter().any(|f: &Route| f.host == home && f.origin == route.origin) {
                further.push(Route { host: home, entry_points: served, ..route.clone() });
            }
        }
    }
    further
}

/// The home names of a host pattern; `written` are all patterns of its Ingress.
pub(super) fn homes(site: &Site, pattern: &HostPattern, written: &[&HostPattern]) -> Vec<HostPattern> {
    site.aliases.iter().filter_map(|alias| home(alias, pattern, written)).filter(|home| home != pattern).collect()
}

fn home(alias: &Alias, pattern: &HostPattern, written: &[&HostPattern]) -> Option<HostPattern> {
    match (alias, pattern) {
        (Alias::Name { of, home }, HostPattern::Exact(host)) => (host == of).then(|| HostPattern::Exact(home.clone())),
        // A wildcard covers the name unless the Ingress has the name itself.
        (Alias::Name { of, home }, HostPattern::Wildcard(_)) => {
            let itself = HostPattern::Exact(of.clone());
            (pattern.matches(of.as_str()) && !written.contains(&&itself)).then(|| HostPattern::Exact(home.clone()))
        }
        (Alias::Domain { of, home }, HostPattern::Exact(host)) => below(host, of, home).map(HostPattern::Exact),
        (Alias::Domain { of, home }, HostPattern::Wildcard(suffix)) => {
            if suffix == of { Some(home.clone()) } else { below(suffix, of, home) }.map(HostPattern::Wildcard)
        }
        (Alias::Name { .. } | Alias::Domain { .. }, HostPattern::Any) => None,
    }
}

/// `grafana.example.org` below `example.org` as `grafana.home.arpa`.
fn below(host: &Host, of: &Host, home: &Host) -> Option<Host> {
    let labels = host.as_str().strip_suffix(of.as_str())?;
    if labels.ends_with('.') { format!("{labels}{home}").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of(alias: &Alias, pattern: &str) -> Option<String> {
        home(alias, &pattern.parse().unwrap(), &[]).map(|home| home.to_string())
    }

    #[test]
    fn a_domain_alias_maps_every_name_below_and_its_wildcards() {
        let alias = Alias::Domain { of: "example.org".parse().unwrap(), home: "home.arpa".parse().unwrap() };
        for (written, expected) in [
            ("grafana.example.org", Some("grafana.home.arpa")),
            ("a.b.example.org", Some("a.b.home.arpa")),
            ("*.example.org", Some("*.home.arpa")),
            ("*.b.example.org", Some("*.b.home.arpa")),
            ("example.org", None),
            ("badexample.org", None),
            ("*.badexample.org", None),
            ("", None),
        ] {
            assert_eq!(home_of(&alias, written).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn a_name_alias_is_covered_by_a_wildcard_unless_the_ingress_has_the_name() {
        let alias = Alias::Name { of: "a.example.org".parse().unwrap(), home: "a.home.arpa".parse().unwrap() };
        assert_eq!(home_of(&alias, "a.example.org").as_deref(), Some("a.home.arpa"));
        assert_eq!(home_of(&alias, "*.example.org").as_deref(), Some("a.home.arpa"));
        assert_eq!(home_of(&alias, "b.example.org"), None);
        let (wildcard, exact) = ("*.example.org".parse().unwrap(), "a.example.org".parse().unwrap());
        assert_eq!(home(&alias, &wildcard, &[&wildcard, &exact]), None);
    }
}
