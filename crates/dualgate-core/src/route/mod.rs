//! Which route serves a request: the table that the data plane asks.
//!
//! Built once per plan, immutable afterwards. Looking up takes one hash of the host and one hash per path
//! element, however many routes there are; precedence is the order of [`Precedence`].

mod host;
mod precedence;
mod table;

use std::fmt;

use crate::model::site::Reading;
use crate::model::{Created, HostPattern, ObjectName, Text};

pub use precedence::{Lost, Precedence, TraefikPrecedence, compare, traefik_rule};
pub use table::{Candidate, Table};

/// The number of a (gate, entry point) pair within one plan: 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPointIndex(pub u8);

/// A set of (gate, entry point) pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPointSet(u64);

impl EntryPointSet {
    /// How many pairs a plan can have.
    pub const CAPACITY: usize = 64;

    /// With one more pair; an index beyond the capacity is ignored.
    pub fn with(self, index: EntryPointIndex) -> Self {
        Self(self.0 | 1u64.checked_shl(u32::from(index.0)).unwrap_or(0))
    }

    /// Whether the pair is in the set.
    pub fn contains(self, index: EntryPointIndex) -> bool {
        self.0 & 1u64.checked_shl(u32::from(index.0)).unwrap_or(0) != 0
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both sets share a pair.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The pairs that are in both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The pairs that are in either set.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The pairs that are not in the other set.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The pairs, lowest first.
    pub fn iter(self) -> impl Iterator<Item = EntryPointIndex> {
        (0..Self::CAPACITY as u8).map(EntryPointIndex).filter(move |index| self.contains(*index))
    }
}

impl FromIterator<EntryPointIndex> for EntryPointSet {
    fn from_iter<I: IntoIterator<Item = EntryPointIndex>>(indices: I) -> Self {
        indices.into_iter().fold(Self::default(), Self::with)
    }
}

/// The number of a backend within one plan. It stays what it is for as long as routes lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub u32);

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The hosts that it serves.
    pub host: HostPattern,
    /// The paths that it serves.
    pub path: PathPattern,
    /// Where it is served.
    pub entry_points: EntryPointSet,
    /// `router.priority`: the higher goes first among the routes of one host.
    pub priority: Option<i64>,
    /// Whose it is.
    pub origin: RouteOrigin,
    /// What happens to its requests.
    pub action: Action,
}

/// What happens to the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// They go to a backend.
    Forward(BackendIndex),
    /// They are answered 503; the text says why, for people.
    Unavailable(Text),
}

/// Where a route comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteOrigin {
    /// `creationTimestamp`.
    pub created: Created,
    /// The Ingress.
    pub ingress: ObjectName,
    /// Which part of it.
    pub part: RoutePart,
    /// How its Ingress is read.
    pub reading: Reading,
    /// The Service or the resource that it names, for people.
    pub service: Text,
}

/// Which part of an Ingress a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePart {
    /// `spec.rules[rule].http.paths[path]`.
    Path {
        /// Index of the rule.
        rule: u16,
        /// Index of the path.
        path: u16,
    },
    /// `spec.rules[rule]` without `http`: the whole host goes to the default backend.
    Rule {
        /// Index of the rule.
        rule: u16,
    },
    /// `spec.defaultBackend`.
    DefaultBackend,
}

impl fmt::Display for RoutePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { rule, path } => write!(f, "spec.rules[{rule}].http.paths[{path}]"),
            Self::Rule { rule } => write!(f, "spec.rules[{rule}]"),
            Self::DefaultBackend => f.write_str("spec.defaultBackend"),
        }
    }
}

/// Which paths a route serves. All compare canonical paths.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// The whole path, byte for byte.
    Exact(Text),
    /// Element by element; kept without the trailing slash, `written` as the user wrote it.
    Prefix {
        /// The length as written decides the precedence (`/foo/` before `/foo`).
        written: Text,
    },
    /// Any path that starts with these characters (Traefik's `PathPrefix`).
    Characters(Text),
    /// Any path that a regular expression finds (Traefik's `PathRegexp`).
    Regex(Box<PathRegex>),
    /// What no rule of the Ingress matched: below every other pattern.
    Rest,
}

/// A compiled regular expression with a bound on its size.
#[derive(Clone, Debug)]
pub struct PathRegex {
    source: String,
    compiled: regex_lite::Regex,
}

impl PathRegex {
    /// The largest pattern, in octets.
    pub const MAX_LEN: usize = 512;

    /// Compiles; the error says what is wrong with the pattern.
    pub fn new(source: &str) -> Result<Self, String> {
        if source.len() > Self::MAX_LEN {
            return Err(format!("the pattern has {} octets, more than {}", source.len(), Self::MAX_LEN));
        }
        let compiled =
            regex_lite::RegexBuilder::new(source).size_limit(1 << 18).build().map_err(|error| error.to_string())?;
        Ok(Self { source: source.to_owned(), compiled })
    }

    /// The pattern as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it finds a match in `path`.
    pub fn matches(&self, path: &str) -> bool {
        self.compiled.is_match(path)
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.written() == other.written()
    }
}

impl Eq for PathPattern {}

impl PathPattern {
    /// As the user wrote it; `/` for the rest.
    pub fn written(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix { written: path } | Self::Characters(path) => path,
            Self::Regex(regex) => regex.source(),
            Self::Rest => "/",
        }
    }

    /// The word for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exact(_) => "Exact",
            Self::Prefix { .. } => "Prefix",
            Self::Characters(_) => "PathPrefix",
            Self::Regex(_) => "PathRegexp",
            Self::Rest => "default",
        }
    }

    /// Whether a canonical path matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix { written } => {
                let prefix = written.strip_suffix('/').unwrap_or(written);
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Characters(prefix) => path.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.matches(path),
            Self::Rest => true,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => f.write_str("(default backend)"),
            Self::Exact(_) | Self::Prefix { .. } | Self::Characters(_) | Self::Regex(_) => {
                write!(f, "{} {}", self.kind(), self.written())
            }
        }
    }
}

/// The number of a route within its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex {
    /// The number of its host.
    host: u32,
    /// Its number there.
    route: u32,
}
