//! Which of two matching routes goes first: the specification's tie-breaks as the order of a type.
//!
//! Ingress v1 and Traefik v3 order routes differently, and their orders cannot be merged into one: Traefik
//! lets a long rule for any host win against a short rule for this host, the specification does not. So
//! each reading names its own winner, and the order of the specification decides between the two.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use crate::model::site::Reading;
use crate::model::{Created, HostPattern, ObjectName};

use super::{PathPattern, Route, RoutePart};

/// The order of Ingress v1; the lesser goes first. The fields are compared from top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence<'a> {
    /// "Precise host, then wildcard, then all hosts": `IngressRule.host` and the concepts page.
    host: HostTier,
    /// "DefaultBackend is the backend that should handle requests that don't match any rule."
    rest: bool,
    /// Ours: `router.priority`, for the routes of one host; absent is 0.
    priority: Reverse<i64>,
    /// "If two paths are equally matched, precedence goes to Exact." An exact match has the full length.
    exact: Reverse<bool>,
    /// "Precedence will be given first to the longest matching path", as it is written: `/foo/` before `/foo`.
    length: Reverse<usize>,
    /// Ours: among equal lengths, the narrower kind of match.
    kind: Kind,
    /// Ours, as the specification is silent: the oldest Ingress; those of unknown age last.
    age: Created,
    /// Ours: then by namespace and name.
    ingress: &'a ObjectName,
    /// Ours: then in the order of the rules.
    part: RoutePart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostTier {
    Exact,
    Wildcard,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Elements,
    Characters,
    Regex,
    Rest,
}

impl<'a> Precedence<'a> {
    /// Of a route.
    pub fn of(route: &'a Route) -> Self {
        let kind = match &route.path {
            PathPattern::Exact(_) => Kind::Exact,
            PathPattern::Prefix { .. } => Kind::Elements,
            PathPattern::Characters(_) => Kind::Characters,
            PathPattern::Regex(_) => Kind::Regex,
            PathPattern::Rest => Kind::Rest,
        };
        Self {
            host: match route.host {
                HostPattern::Exact(_) => HostTier::Exact,
                HostPattern::Wildcard(_) => HostTier::Wildcard,
                HostPattern::Any => HostTier::Any,
            },
            rest: kind == Kind::Rest,
            priority: Reverse(route.priority.unwrap_or(0)),
            exact: Reverse(kind == Kind::Exact),
            length: Reverse(route.path.written().len()),
            kind,
            age: route.origin.created,
            ingress: &route.origin.ingress,
            part: route.origin.part,
        }
    }

    /// Why this one comes after `winner`; the first field that differs.
    fn reason(&self, winner: &Self) -> Lost {
        if self.host != winner.host {
            Lost::LessSpecificHost
        } else if self.rest != winner.rest {
            Lost::DefaultBackend
        } else if self.priority != winner.priority {
            Lost::LowerPriority
        } else if self.exact != winner.exact {
            Lost::NotExact
        } else if self.length != winner.length {
            Lost::ShorterPath
        } else if self.kind != winner.kind {
            Lost::BroaderMatch
        } else if self.age != winner.age {
            Lost::Younger
        } else if self.ingress != winner.ingress {
            Lost::LaterName
        } else {
            Lost::LaterRule
        }
    }
}

/// The order of Traefik v3: the higher priority goes first, wherever the host; where Traefik's own order is
/// left to chance, the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraefikPrecedence<'a> {
    priority: Reverse<i64>,
    tie: Precedence<'a>,
}

impl<'a> TraefikPrecedence<'a> {
    /// Of a route.
    pub fn of(route: &'a Route) -> Self {
        Self { priority: Reverse(traefik_priority(route)), tie: Precedence::of(route) }
    }
}

/// What Traefik gives a router of `defaultBackend`: below everything else.
const DEFAULT_BACKEND_PRIORITY: i64 = i32::MIN as i64;

fn traefik_priority(route: &Route) -> i64 {
    match (&route.path, route.priority) {
        (PathPattern::Rest, _) => DEFAULT_BACKEND_PRIORITY,
        (_, Some(priority)) if priority != 0 => priority,
        (_, _) => i64::try_from(traefik_rule(route).len()).unwrap_or(i64::MAX),
    }
}

/// The rule that Traefik v3.7 writes for a route; its length is its priority.
pub fn traefik_rule(route: &Route) -> String {
    let matcher = match &route.path {
        PathPattern::Exact(_) => "Path",
        PathPattern::Prefix { .. } | PathPattern::Characters(_) | PathPattern::Rest => "PathPrefix",
        PathPattern::Regex(_) => "PathRegexp",
    };
    let path = match route.path.written() {
        "" => None,
        written => Some(format!("{matcher}(`{written}`)")),
    };
    let host = match &route.host {
        HostPattern::Any => None,
        host @ (HostPattern::Exact(_) | HostPattern::Wildcard(_)) => Some(format!("Host(`{host}`)")),
    };
    host.into_iter().chain(path).collect::<Vec<_>>().join(" && ")
}

/// The order of two matching routes of one table; `Less` goes first. Among routes of one reading it is a
/// total order; across readings it is only asked between the two winners.
pub fn compare(a: &Route, b: &Route) -> Ordering {
    match (a.origin.reading, b.origin.reading) {
        (Reading::Traefik, Reading::Traefik) => TraefikPrecedence::of(a).cmp(&TraefikPrecedence::of(b)),
        (Reading::Specification, _) | (_, Reading::Specification) => Precedence::of(a).cmp(&Precedence::of(b)),
    }
}

/// Why a route does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// Its host is similar, but does not match.
    OtherHost,
    /// It is not served at this entry point.
    OtherEntryPoint,
    /// Its path does not match.
    OtherPath,
    /// The winner's host is more specific.
    LessSpecificHost,
    /// It is a default backend, and a rule matches.
    DefaultBackend,
    /// The winner's `router.priority` is higher.
    LowerPriority,
    /// The winner matches exactly.
    NotExact,
    /// The winner's path is longer.
    ShorterPath,
    /// The winner's path is as long, and matches by element.
    BroaderMatch,
    /// The winner's rule is the longer text (Traefik's reading).
    ShorterRule,
    /// The same host and path; the winner's Ingress is older.
    Younger,
    /// The same host, path and age; the winner's Ingress comes first by namespace and name.
    LaterName,
    /// The same host and path in the same Ingress; the winner's rule comes first.
    LaterRule,
}

impl Lost {
    /// Why `loser`, which matches too, comes after `winner`.
    pub fn against(loser: &Route, winner: &Route) -> Self {
        let both_traefik = loser.origin.reading == Reading::Traefik && winner.origin.reading == Reading::Traefik;
        if both_traefik && traefik_priority(loser) != traefik_priority(winner) {
            return match (&loser.path, loser.priority.is_some() || winner.priority.is_some()) {
                (PathPattern::Rest, _) => Self::DefaultBackend,
                (_, true) => Self::LowerPriority,
                (_, false) => Self::ShorterRule,
            };
        }
        Precedence::of(loser).reason(&Precedence::of(winner))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherHost => "its host does not match",
            Self::OtherEntryPoint => "it is not served at this entry point",
            Self::OtherPath => "its path does not match",
            Self::LessSpecificHost => "its host is less specific",
            Self::DefaultBackend => "it is a default backend, and a rule matches",
            Self::LowerPriority => "its router.priority is lower",
            Self::NotExact => "an exact path goes first",
            Self::ShorterPath => "its path is shorter",
            Self::BroaderMatch => "its path is as long, but a match by path element goes first",
            Self::ShorterRule => "its rule is the shorter text, as Traefik counts",
            Self::Younger => "same host and path, and its Ingress is younger",
            Self::LaterName => "same host and path, and its Ingress comes later by namespace and name",
            Self::LaterRule => "same host and path, and an earlier rule of its Ingress has them",
        })
    }
}
