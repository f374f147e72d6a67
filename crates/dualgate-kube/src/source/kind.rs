//! Which kinds are read, which part of them, and what goes without them.

use super::reflector::Ask;
use super::reflector::PAGE;

/// A kind that is read. The order is that of an `ObjectSet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `networking.k8s.io/v1`
    Ingress,
    /// `networking.k8s.io/v1`
    IngressClass,
    /// `v1`
    Namespace,
    /// `v1`
    Node,
    /// `v1`
    Secret,
    /// `v1`
    Service,
}

/// Whether objects are yielded while a kind cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Not before it was listed once.
    Required,
    /// Without it, if the server refuses it; the text says what is missing then.
    Desired(&'static str),
}

impl Kind {
    /// Every kind that is read.
    pub const ALL: [Self; 7] = [
        Self::EndpointSlice,
        Self::Ingress,
        Self::IngressClass,
        Self::Namespace,
        Self::Node,
        Self::Secret,
        Self::Service,
    ];

    /// `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndpointSlice => "EndpointSlice",
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Secret => "Secret",
            Self::Service => "Service",
        }
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Ingress | Self::IngressClass => "networking.k8s.io",
            Self::Namespace | Self::Node | Self::Secret | Self::Service => "",
        }
    }

    /// What the kind is called in paths and in the rules of a role.
    pub fn resource(self) -> &'static str {
        match self {
            Self::EndpointSlice => "endpointslices",
            Self::Ingress => "ingresses",
            Self::IngressClass => "ingressclasses",
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Secret => "secrets",
            Self::Service => "services",
        }
    }

    /// `apiVersion`: items of lists do not carry theirs.
    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Ingress | Self::IngressClass => "networking.k8s.io/v1",
            Self::Namespace | Self::Node | Self::Secret | Self::Service => "v1",
        }
    }

    fn selector(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::EndpointSlice => Some(("labelSelector", "kubernetes.io/service-name")),
            Self::Secret => Some(("fieldSelector", "type=kubernetes.io/tls")),
            Self::Ingress | Self::IngressClass | Self::Namespace | Self::Node | Self::Service => None,
        }
    }

    pub(super) fn need(self) -> Need {
        match self {
            Self::EndpointSlice | Self::Ingress | Self::IngressClass | Self::Service => Need::Required,
            Self::Namespace => Need::Desired("no namespace has labels by which a pool is for it"),
            Self::Node => Need::Desired(
                "the site file alone says which pod networks a node has, and no label or condition of a node counts",
            ),
            Self::Secret => Need::Desired("the default certificate is shown for every host"),
        }
    }

    /// The path and query that ask this.
    pub(crate) fn target(self, ask: &Ask) -> String {
        let mut query = Query(match self.group() {
            "" => format!("/api/{}/{}", self.api_version(), self.resource()),
            _ => format!("/apis/{}/{}", self.api_version(), self.resource()),
        });
        match ask {
            Ask::Page { after } => {
                query.add("limit", &PAGE.to_string());
                if let Some(after) = after {
                    query.add("continue", after);
                }
            }
            Ask::Watch { version, lasting } => {
                query.add("watch", "true");
                query.add("allowWatchBookmarks", "true");
                query.add("timeoutSeconds", &lasting.as_secs().to_string());
                query.add("resourceVersion", version);
            }
        }
        if let Some((name, value)) = self.selector() {
            query.add(name, value);
        }
        query.0
    }
}

struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        for octet in value.bytes() {
            match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.0.push(octet.into()),
                _ => self.0.push_str(&format!("%{octet:02X}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_asked_fits_into_a_url_whatever_the_servers_words_are() {
        let page = Kind::Secret.target(&Ask::Page { after: Some("a+b/c= &ä".into()) });
        assert_eq!(
            page,
            "/api/v1/secrets?limit=500&continue=a%2Bb%2Fc%3D%20%26%C3%A4&fieldSelector=type%3Dkubernetes.io%2Ftls"
        );
        let watch = Kind::EndpointSlice.target(&Ask::Watch { version: "7".into(), lasting: Duration::from_secs(300) });
        assert_eq!(
            watch,
            "/apis/discovery.k8s.io/v1/endpointslices?watch=true&allowWatchBookmarks=true&timeoutSeconds=300\
             &resourceVersion=7&labelSelector=kubernetes.io%2Fservice-name"
        );
        assert_eq!(Kind::Ingress.target(&Ask::Page { after: None }), "/apis/networking.k8s.io/v1/ingresses?limit=500");
    }

    #[test]
    fn the_kinds_stand_in_the_order_of_an_object_set() {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert!(names.is_sorted());
    }
}
