//! The routes of one Ingress.

use crate::model::object::{Ingress, IngressBackend, IngressPath, PathType};
use crate::model::site::Reading;
use crate::model::{Code, Finding, HostPattern, Object, Text};
use crate::route::{Action, PathPattern, PathRegex, Route, RouteOrigin, RoutePart};

use super::annotation::{OfIngress, PathMatcher};
use super::placement::Placement;
use super::rule_path;
use super::service::Resolver;

/// One Ingress with what was found out about it.
pub(super) struct Part<'a> {
    pub object: &'a Object,
    pub ingress: &'a Ingress,
    pub reading: Reading,
    pub annotations: &'a OfIngress,
    pub placement: &'a Placement,
}

impl Part<'_> {
    /// Its routes, in the order of its rules, the default backend last.
    pub fn routes(&mut self, backends: &mut Resolver<'_>, findings: &mut Vec<Finding>) -> Vec<Route> {
        let mut routes = Vec::new();
        for rule in &self.ingress.rules {
            match &rule.paths {
                Some(paths) => routes.extend(paths.iter().filter_map(|path| {
                    let part = RoutePart::Path { rule: rule.index, path: path.index };
                    let pattern = self.pattern(path, part, findings)?;
                    Some(self.route(rule.host.clone(), pattern, part, &path.backend, backends, findings))
                })),
                None => {
                    routes.extend(self.whole_host(
                        &rule.host,
                        RoutePart::Rule { rule: rule.index },
                        backends,
                        findings,
                    ));
                }
            }
        }
        routes.extend(self.default_route(backends, findings));
        routes
    }

    /// "If `http` is unspecified, the rule defaults to a http catch-all": to this Ingress's default backend; the
    /// host-less route of the default backend is there anyway. Traefik leaves such rules out.
    fn whole_host(
        &self,
        host: &HostPattern,
        part: RoutePart,
        backends: &mut Resolver<'_>,
        findings: &mut Vec<Finding>,
    ) -> Option<Route> {
        let backend = self.ingress.default_backend.as_ref()?;
        match (self.reading, host) {
            (Reading::Traefik, _) | (Reading::Specification, HostPattern::Any) => None,
            (Reading::Specification, HostPattern::Exact(_) | HostPattern::Wildcard(_)) => {
                Some(self.route(host.clone(), PathPattern::Rest, part, backend, backends, findings))
            }
        }
    }

    /// Traefik reads `defaultBackend` only where there are no rules.
    fn default_route(&self, backends: &mut Resolver<'_>, findings: &mut Vec<Finding>) -> Option<Route> {
        if self.reading == Reading::Traefik && !self.ingress.rules.is_empty() {
            return None;
        }
        let backend = self.ingress.default_backend.as_ref()?;
        let part = RoutePart::DefaultBackend;
        Some(self.route(HostPattern::Any, PathPattern::Rest, part, backend, backends, findings))
    }

    fn route(
        &self,
        host: HostPattern,
        path: PathPattern,
        part: RoutePart,
        backend: &IngressBackend,
        backends: &mut Resolver<'_>,
        findings: &mut Vec<Finding>,
    ) -> Route {
        let field = || match part {
            RoutePart::Path { .. } => format!("{part}.backend"),
            RoutePart::Rule { .. } | RoutePart::DefaultBackend => "spec.defaultBackend".to_owned(),
        };
        let (service, action) = match backend {
            IngressBackend::Service { name, port } => {
                let action = backends.resolve(self.object, &field, name, port, findings);
                (name.clone(), action)
            }
            IngressBackend::Resource { what } => (what.clone(), self.refuse_resource(&field(), what, findings)),
        };
        Route {
            host,
            path,
            entry_points: self.placement.entry_points,
            priority: self.annotations.priority,
            origin: self.origin(part, service),
            action,
        }
    }

    fn origin(&self, part: RoutePart, service: Text) -> RouteOrigin {
        let (created, ingress) = (self.object.meta.created, self.object.key.name.clone());
        RouteOrigin { created, ingress, part, reading: self.reading, service }
    }

    fn refuse_resource(&self, field: &str, what: &str, findings: &mut Vec<Finding>) -> Action {
        let why = format!("the backend is the resource {what}; only Services can be backends");
        let place = self.object.place(format!("{field}.resource"));
        findings.push(Finding::new(Code::IngressResourceBackend, place, format!("{why}; requests get 503")));
        Action::Unavailable(why.into())
    }

    /// `None` when the path cannot match anything.
    fn pattern(&self, path: &IngressPath, part: RoutePart, findings: &mut Vec<Finding>) -> Option<PathPattern> {
        let written = rule_path::canonical(&path.path);
        match (path.path_type, self.reading) {
            (PathType::Exact, _) => Some(PathPattern::Exact(written)),
            (PathType::Prefix, Reading::Specification) => Some(PathPattern::Prefix { written }),
            (PathType::Prefix, Reading::Traefik) => Some(PathPattern::Characters(written)),
            (PathType::ImplementationSpecific, reading) => match self.annotations.path_matcher {
                Some(PathMatcher::Path) => Some(PathPattern::Exact(written)),
                Some(PathMatcher::PathRegexp) => self.regex(&path.path, part, findings),
                Some(PathMatcher::PathPrefix) | None => Some(PathPattern::Characters(match reading {
                    // Every path begins with a slash; Traefik counts the characters that are there.
                    Reading::Specification if written.is_empty() => "/".into(),
                    Reading::Specification | Reading::Traefik => written,
                })),
            },
        }
    }

    fn regex(&self, source: &str, part: RoutePart, findings: &mut Vec<Finding>) -> Option<PathPattern> {
        match PathRegex::new(source) {
            Ok(regex) => Some(PathPattern::Regex(Box::new(regex))),
            Err(error) => {
                let message = format!("`{source}` is not a regular expression: {error}; the path is left out");
                let place = self.object.place(format!("{part}.path"));
                findings.push(Finding::new(Code::ObjectInvalid, place, message));
                None
            }
        }
    }
}
