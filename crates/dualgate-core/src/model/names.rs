//! Names: each kind of name is a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::Text;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// From text that the caller has checked.
            pub fn new(text: impl Into<Text>) -> Self {
                Self(text.into())
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a node, as in the site file and in `kubectl get nodes`.
    NodeName
);
name_type!(
    /// The name of an entry point, such as `web` or `websecure`.
    EntryPointName
);

/// One of the two gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateName {
    /// On the home nodes, behind the virtual IPs.
    Internal,
    /// On the edge, on its public addresses.
    External,
}

impl GateName {
    /// Both gates.
    pub const ALL: [Self; 2] = [Self::Internal, Self::External];

    /// As written in the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "internal" => Ok(Self::Internal),
            "external" => Ok(Self::External),
            other => Err(format!("`{other}` is not a gate: `internal` or `external`")),
        }
    }
}

/// A namespaced Kubernetes name, shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// `metadata.namespace`; empty for kinds without one.
    pub namespace: Text,
    /// `metadata.name`.
    pub name: Text,
}

impl ObjectName {
    /// From both parts.
    pub fn new(namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Kind and name of an object: what identifies it. Shown as `Ingress apps/grafana`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `kind`, such as `Ingress`.
    pub kind: Text,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A DNS host name in lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(pub(super) Text);

impl Host {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = String;

    /// Checks RFC 1123 as the API server does: labels of `a-z0-9-`, at most 63 octets each, 253 in all.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.is_empty() || text.len() > 253 {
            return Err(format!("`{text}` is not a host name: it must have 1 to 253 characters"));
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(format!("`{text}` is an IP address; a host name is needed"));
        }
        for label in text.split('.') {
            let bytes = label.as_bytes();
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            if bytes.is_empty()
                || bytes.len() > 63
                || !bytes.iter().all(inner)
                || bytes[0] == b'-'
                || bytes[bytes.len() - 1] == b'-'
            {
                return Err(format!(
                    "`{text}` is not a host name: each label has 1 to 63 letters, digits or inner hyphens (IDNA names are written in their xn-- form)"
                ));
            }
        }
        Ok(Self(text.into()))
    }
}

/// For look-ups by text.
impl std::borrow::Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which hosts a rule applies to.
///
/// The order is the precedence of Ingress v1: a precise host before a wildcard before any host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Exactly this host.
    Exact(Host),
    /// `*.suffix`: exactly one label before the suffix.
    Wildcard(Host),
    /// Every host (an empty `host`).
    Any,
}

impl HostPattern {
    /// Whether `host` (lower case, without port and trailing dot) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == host,
            Self::Wildcard(suffix) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix.as_str())
            }
            Self::Any => true,
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(suffix) => suffix.parse().map(Self::Wildcard),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        match pattern {
            HostPattern::Exact(host) => host.into(),
            HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
            HostPattern::Any => Self::new(),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let pattern: HostPattern = "*.foo.com".parse().unwrap();
        assert!(pattern.matches("bar.foo.com"));
        assert!(!pattern.matches("foo.com") && !pattern.matches("baz.bar.foo.com") && !pattern.matches(".foo.com"));
    }

    #[test]
    fn hosts_are_lower_case_without_trailing_dot_and_never_addresses() {
        assert_eq!("Grafana.Example.ORG.".parse::<Host>().unwrap().as_str(), "grafana.example.org");
        for wrong in ["", "*", "a..b", "-a.b", "10.0.0.1", "a_b.c", "a:80"] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn precedence_of_patterns_is_their_order() {
        let mut patterns: Vec<HostPattern> =
            ["", "*.foo.com", "a.foo.com"].iter().map(|p| p.parse().unwrap()).collect();
        patterns.sort();
        assert_eq!(patterns.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.foo.com", "*.foo.com", "*"]);
    }
}
