//! What a path leads to.

use crate::api::{Part, Target};
use crate::kinds::Kinds;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    /// `/version`.
    Version,
    /// `/openapi/v2`.
    OpenApi,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/VERSION`, `/apis/GROUP/VERSION`.
    Resources { group: String, version: String },
    /// Where one asks what one may do.
    AccessReview,
    /// Where tokens of a ServiceAccount are handed out.
    Token(Place),
    /// All objects of a kind, or those of a namespace; the name is empty.
    Collection(Target),
    /// One object, or its status.
    Object(Target),
    /// Where objects of a kind would be that there is none of.
    NoSuchKind(Place),
    /// Anywhere else.
    Nowhere,
}

/// What a path says, whether there is something or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    /// `ingresses`, `ingresses/status`.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Endpoint {
    pub(crate) fn find(kinds: &Kinds, path: &str) -> Self {
        let segments: Option<Vec<String>> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let Some(segments) = segments else { return Self::Nowhere };
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        match words[..] {
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["version"] => Self::Version,
            ["openapi", "v2"] => Self::OpenApi,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group(group.to_owned()),
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => Self::AccessReview,
            ["api", version] => Self::Resources { group: String::new(), version: version.to_owned() },
            ["apis", group, version] => Self::Resources { group: group.to_owned(), version: version.to_owned() },
            ["api", "v1", "namespaces", _, "serviceaccounts", _, "token"] => Self::Token(Place::said("", &words[2..])),
            ["api", version, ref rest @ ..] => {
                objects(kinds, "", version, rest).unwrap_or_else(|| Self::NoSuchKind(Place::said("", rest)))
            }
            ["apis", group, version, ref rest @ ..] => {
                objects(kinds, group, version, rest).unwrap_or_else(|| Self::NoSuchKind(Place::said(group, rest)))
            }
            _ => Self::Nowhere,
        }
    }
}

impl Place {
    /// By the words alone, as an API server reads them before it looks for a kind.
    fn said(group: &str, words: &[&str]) -> Self {
        let (namespace, words) = match words {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            words => ("", words),
        };
        let word = |index: usize| words.get(index).copied().unwrap_or_default().to_owned();
        let resource = if word(2).is_empty() { word(0) } else { format!("{}/{}", word(0), word(2)) };
        Self { group: group.to_owned(), resource, namespace: namespace.to_owned(), name: word(1) }
    }
}

fn objects(kinds: &Kinds, group: &str, version: &str, rest: &[&str]) -> Option<Endpoint> {
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let [plural, rest @ ..] = rest else { return None };
    let kind = kinds.by_path(group, version, plural)?;
    if !kind.is_namespaced() && !namespace.is_empty() {
        return None;
    }
    let target =
        |name: &str, part| Target { kind: kind.clone(), namespace: namespace.to_owned(), name: name.to_owned(), part };
    match rest {
        [] => Some(Endpoint::Collection(target("", Part::Main))),
        [_, ..] if kind.is_namespaced() && namespace.is_empty() => None,
        [name] => Some(Endpoint::Object(target(name, Part::Main))),
        [name, "status"] if kind.has_status() => Some(Endpoint::Object(target(name, Part::Status))),
        _ => None,
    }
}

/// Without its percent signs.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match byte {
            b'%' => bytes.push((digit()? * 16 + digit()?) as u8),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> String {
        let show = |what: &str, target: &Target| {
            format!("{what} {} {:?} {:?} {:?}", target.kind.kind, target.namespace, target.name, target.part)
        };
        match Endpoint::find(&Kinds::new(), path) {
            Endpoint::Collection(target) => show("all", &target),
            Endpoint::Object(target) => show("one", &target),
            Endpoint::NoSuchKind(Place { group, resource, namespace, name }) => {
                format!("none {group:?} {resource} {namespace:?} {name:?}")
            }
            Endpoint::Token(Place { resource, namespace, name, .. }) => format!("{resource} {namespace:?} {name:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_lead_to_objects() {
        let cases = [
            ("/api/v1/namespaces", "all Namespace \"\" \"\" Main"),
            ("/api/v1/namespaces/apps", "one Namespace \"\" \"apps\" Main"),
            ("/api/v1/namespaces/apps/status", "one Namespace \"\" \"apps\" Status"),
            ("/api/v1/namespaces/apps/services", "all Service \"apps\" \"\" Main"),
            ("/api/v1/services", "all Service \"\" \"\" Main"),
            ("/api/v1/namespaces/apps/serviceaccounts/web/token", "serviceaccounts/token \"apps\" \"web\""),
            ("/api/v1/nodes/node1/status", "one Node \"\" \"node1\" Status"),
            (
                "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/web%2Dsite",
                "one Ingress \"apps\" \"web-site\" Main",
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(shown(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_lead_nowhere_and_say_what_was_looked_for() {
        let cases = [
            ("/", "Nowhere"),
            ("/metrics", "Nowhere"),
            ("/openapi/v3", "Nowhere"),
            ("/api/v1/namespaces/apps/services/%zz", "Nowhere"),
            ("/api/v1/services/web", "none \"\" services \"\" \"web\""),
            ("/api/v1/namespaces/apps/nodes", "none \"\" nodes \"apps\" \"\""),
            ("/api/v1/namespaces/apps/secrets/x/status", "none \"\" secrets/status \"apps\" \"x\""),
            ("/api/v2/services", "none \"\" services \"\" \"\""),
            ("/apis/networking.k8s.io/v1beta1/ingresses", "none \"networking.k8s.io\" ingresses \"\" \"\""),
        ];
        for (path, expected) in cases {
            assert_eq!(shown(path), expected, "{path}");
        }
    }
}
