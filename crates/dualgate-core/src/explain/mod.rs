//! Why a request is answered as it is: the path of one URL through the snapshot.
//!
//! It asks the same table and the same certificates as the data plane, and adds what a person wants to know:
//! which routes came close and why they lost, and which Ingresses name the host but are not served.

mod exposure;
mod names;
mod question;
mod text;

use std::net::SocketAddr;

use serde::Serialize;

use crate::lower::{self, EntryPointRef, EntryPoints, Lowered};
use crate::model::object::{Body, IngressBackend};
use crate::model::site::{Class, EntryProtocol, Role};
use crate::model::{GateName, ObjectName, Place, Snapshot};
use crate::plan::proxy::{self, Backend, ProxyPlan, Scheme, ServerAddress};
use crate::route::{Action, Candidate, Lost, Route, RouteIndex, Table};

pub use exposure::{Exposed, Exposure, exposure};
pub use names::{NameView, RecordView, records};
pub use question::{Question, UrlScheme};

/// How many losing routes with another path or host are listed.
const NEAR_MISSES: usize = 10;

/// Why a request is answered as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub url: String,
    /// The gate.
    pub gate: GateName,
    /// How it ends.
    pub outcome: Outcome,
    /// The same in words.
    pub because: String,
    /// Who takes the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<EntryPointView>,
    /// What a TLS entry point shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateView>,
    /// The route that serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteView>,
    /// Why its Ingress is ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The routes that do not, and why.
    pub lost: Vec<LostView>,
    /// How many more there are that came no closer.
    pub lost_more: usize,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendView>,
    /// What clients of the gate are told about the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<NameView>,
    /// What else a person should know.
    pub hints: Vec<String>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It goes to a server.
    Forwarded,
    /// 404: no route.
    NotFound,
    /// 503: a route, but nobody behind it.
    Unavailable,
    /// Nobody listens there.
    NotListening,
}

/// An entry point with its sockets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntryPointView {
    /// Its name.
    pub name: String,
    /// `http` or `https`.
    pub protocol: &'static str,
    /// Where it listens, on whichever nodes.
    pub listens: Vec<ListenView>,
}

/// A socket of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenView {
    /// The node.
    pub node: String,
    /// Address and port.
    pub address: SocketAddr,
}

/// The certificate that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CertificateView {
    /// The Secret; `None` for the default certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Why this one.
    pub because: String,
    /// `notAfter`, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}

/// One route, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteView {
    /// The host that it is for; `*` is any.
    pub host: String,
    /// The kind of its path match, and the path.
    pub path: String,
    /// The Ingress.
    pub ingress: String,
    /// The part of the Ingress.
    pub part: String,
    /// Where that is written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// Service and port that it names.
    pub backend: String,
    /// Where it is served.
    pub served: String,
}

/// A route that does not serve the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LostView {
    /// The route.
    #[serde(flatten)]
    pub route: RouteView,
    /// Why not.
    pub lost: Lost,
    /// The same in words.
    pub because: String,
}

/// A backend with its servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendView {
    /// Service and port.
    pub service: String,
    /// `http`, `https` or `h2c`.
    pub scheme: &'static str,
    /// Whether servers see the client's Host.
    pub pass_host: bool,
    /// The servers.
    pub servers: Vec<ServerView>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerView {
    /// The pod, or the addresses.
    pub id: String,
    /// Where it is.
    pub at: Vec<String>,
}

/// Explains the answer to one question.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Explanation {
    let lowered = lower::snapshot(snapshot);
    let mut explanation = Explanation {
        url: question.to_string(),
        gate: question.gate,
        outcome: Outcome::NotListening,
        because: String::new(),
        entry_point: None,
        certificate: None,
        route: None,
        class: None,
        lost: Vec::new(),
        lost_more: 0,
        backend: None,
        name: names::name(snapshot, &lowered, question.gate, &question.host),
        hints: Vec::new(),
    };
    let entry_point = match find_entry_point(snapshot, &lowered.entry_points, question) {
        Ok(entry_point) => entry_point,
        Err(because) => return Explanation { because, ..explanation },
    };
    let view = entry_point_view(snapshot, entry_point);
    if view.listens.is_empty() {
        let because = format!("no node of the site listens for the {} gate", question.gate);
        return Explanation { because, entry_point: Some(view), ..explanation };
    }
    explanation.certificate = certificate(snapshot, &lowered, entry_point, question);
    explanation.entry_point = Some(view);
    explanation.hints = hints(snapshot, &lowered, entry_point, question);
    let table = Table::new(lowered.routes().cloned());
    let candidates = table.candidates(entry_point.index, &question.host, &question.path);
    let people = People { snapshot, lowered: &lowered, table: &table };
    (explanation.lost, explanation.lost_more) = people.losers(&candidates);
    match candidates.iter().find(|candidate| candidate.lost.is_none()) {
        None => {
            explanation.outcome = Outcome::NotFound;
            explanation.because = not_found(&candidates, entry_point);
        }
        Some(winner) => {
            let route = table.route(winner.route);
            explanation.route = Some(people.route(winner.route));
            let ours = lowered.ingresses.iter().find(|ingress| ingress.key().name == route.origin.ingress);
            explanation.class = ours.map(|ingress| ingress.membership.to_string());
            (explanation.outcome, explanation.because, explanation.backend) = end(route, &lowered);
        }
    }
    explanation
}

fn find_entry_point<'l>(
    snapshot: &Snapshot,
    entry_points: &'l EntryPoints,
    question: &Question,
) -> Result<&'l EntryPointRef, String> {
    if !snapshot.site.gates.contains_key(&question.gate) {
        return Err(format!("the site has no {} gate", question.gate));
    }
    let of_gate = || entry_points.iter().filter(|pair| pair.gate == question.gate);
    let Some(found) = of_gate().find(|pair| pair.point.port == question.port) else {
        let known: Vec<_> = of_gate().map(|pair| format!("{} on {}", pair.name, pair.point.port)).collect();
        return Err(format!(
            "the {} gate has no entry point on port {} ({})",
            question.gate,
            question.port,
            if known.is_empty() { "it has none at all".to_owned() } else { known.join(", ") }
        ));
    };
    match (found.point.protocol, question.scheme) {
        (EntryProtocol::Http, UrlScheme::Http) | (EntryProtocol::Https, UrlScheme::Https) => Ok(found),
        (EntryProtocol::Http, UrlScheme::Https) => {
            Err(format!("the entry point `{}` on port {} speaks plain HTTP, no TLS", found.name, found.point.port))
        }
        (EntryProtocol::Https, UrlScheme::Http) => {
            Err(format!("the entry point `{}` on port {} speaks TLS only", found.name, found.point.port))
        }
    }
}

fn entry_point_view(snapshot: &Snapshot, entry_point: &EntryPointRef) -> EntryPointView {
    let gate = &snapshot.site.gates[&entry_point.gate];
    let nodes = snapshot.site.nodes.iter().filter(|node| node.has(Role::of_gate(entry_point.gate)));
    let listens = nodes.flat_map(|node| {
        let (addresses, _) = proxy::addresses(entry_point.gate, gate, node);
        addresses.iter().map(|address| ListenView {
            node: node.name.to_string(),
            address: SocketAddr::new(*address, entry_point.point.port),
        })
    });
    EntryPointView {
        name: entry_point.name.to_string(),
        protocol: match entry_point.point.protocol {
            EntryProtocol::Http => "http",
            EntryProtocol::Https => "https",
        },
        listens: listens.collect(),
    }
}

fn certificate(
    snapshot: &Snapshot,
    lowered: &Lowered,
    entry_point: &EntryPointRef,
    question: &Question,
) -> Option<CertificateView> {
    match entry_point.point.protocol {
        EntryProtocol::Http => return None,
        EntryProtocol::Https => {}
    }
    let node = snapshot.site.nodes.iter().find(|node| node.has(Role::of_gate(entry_point.gate)))?;
    let plan: ProxyPlan = proxy::select(snapshot, lowered, &node.name);
    let default = |because: String| CertificateView { secret: None, because, not_after: None };
    let Some(name) = question.server_name() else {
        return Some(default("an address is no server name: the default certificate".to_owned()));
    };
    Some(match plan.certificate(entry_point.index, name) {
        Some(certificate) => {
            let host = certificate.hosts.iter().filter(|host| host.matches(name)).min();
            let host = host.map(ToString::to_string).unwrap_or_default();
            CertificateView {
                secret: Some(certificate.secret.to_string()),
                because: format!("a tls section names it for `{host}`"),
                not_after: Some(certificate.not_after),
            }
        }
        None => default(format!("no usable tls section names `{name}`: the default certificate")),
    })
}

fn not_found(candidates: &[Candidate], entry_point: &EntryPointRef) -> String {
    let here = format!("entry point `{}` of the {} gate", entry_point.name, entry_point.gate);
    match candidates.first().and_then(|candidate| candidate.lost) {
        Some(Lost::OtherEntryPoint) => format!("404: a route matches, but it is not served at {here}"),
        Some(Lost::OtherPath) => "404: the host is known, but none of its paths matches".to_owned(),
        Some(_) | None => format!("404: no route at {here} has this host"),
    }
}

fn end(route: &Route, lowered: &Lowered) -> (Outcome, String, Option<BackendView>) {
    match &route.action {
        Action::Unavailable(why) => (Outcome::Unavailable, format!("503: {why}"), None),
        Action::Forward(index) => {
            let Some(backend) = lowered.backends().get(*index) else {
                return (Outcome::Unavailable, "503: there is no such backend".to_owned(), None);
            };
            let view = backend_view(backend);
            match backend.servers.len() {
                0 => (Outcome::Unavailable, format!("503: {} has no endpoint that is ready", backend.id), Some(view)),
                1 => (Outcome::Forwarded, format!("it goes to the one server of {}", backend.id), Some(view)),
                n => (Outcome::Forwarded, format!("it goes to one of the {n} servers of {}", backend.id), Some(view)),
            }
        }
    }
}

fn backend_view(backend: &Backend) -> BackendView {
    let servers = backend.servers.iter().map(|server| ServerView {
        id: server.id.to_string(),
        at: match &server.at {
            ServerAddress::Sockets(sockets) => sockets.iter().map(|socket| socket.to_string()).collect(),
            ServerAddress::Name { host, port } => vec![format!("{host}:{port}")],
        },
    });
    BackendView {
        service: backend.id.to_string(),
        scheme: match backend.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        },
        pass_host: backend.pass_host,
        servers: servers.collect(),
    }
}

/// Ingresses that name the host but have no route, and home names.
fn hints(snapshot: &Snapshot, lowered: &Lowered, entry_point: &EntryPointRef, question: &Question) -> Vec<String> {
    let mut hints = Vec::new();
    for object in &snapshot.objects.objects {
        let Body::Ingress(ingress) = &object.body else { continue };
        let names_host = ingress.rules.iter().any(|rule| rule.host.matches(&question.host));
        if names_host && !lowered.ingresses.iter().any(|ours| *ours.key() == object.key) {
            let class = ingress.class.as_deref().map_or("no class".to_owned(), |class| format!("class `{class}`"));
            let ours: Vec<_> = snapshot.site.classes.iter().map(class_for_people).collect();
            hints.push(format!("{} matches the host, but {class} is not ours ({})", object.key, ours.join(", ")));
        }
    }
    for alias in &snapshot.site.aliases {
        let (home, of) = match alias {
            crate::model::site::Alias::Name { of, home } => (home, of),
            crate::model::site::Alias::Domain { of, home } => (home, of),
        };
        let below =
            question.host.strip_suffix(home.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if below && entry_point.gate == GateName::External {
            hints.push(format!("`{home}` is the home name of `{of}`; home names are served at the internal gate only"));
        }
    }
    hints
}

fn class_for_people(class: &Class) -> String {
    match &class.name {
        Some(name) => format!("`{name}` of {}", class.controller),
        None => format!("every class of {}", class.controller),
    }
}

/// Turns routes into what people read.
struct People<'a> {
    snapshot: &'a Snapshot,
    lowered: &'a Lowered,
    table: &'a Table,
}

impl People<'_> {
    fn route(&self, index: RouteIndex) -> RouteView {
        let route = self.table.route(index);
        let origin = &route.origin;
        let backend = self.lowered.ingress(&origin.ingress).and_then(|ingress| ingress.backend(origin.part));
        RouteView {
            host: route.host.to_string(),
            path: route.path.to_string(),
            ingress: origin.ingress.to_string(),
            part: origin.part.to_string(),
            at: place(self.snapshot, &origin.ingress, &origin.part.to_string()),
            backend: backend.map(IngressBackend::to_string).unwrap_or_default(),
            served: self.lowered.entry_points.describe(route.entry_points),
        }
    }

    /// The losers, those that match first; of the others only a few.
    fn losers(&self, candidates: &[Candidate]) -> (Vec<LostView>, usize) {
        let near = |lost: &Lost| matches!(lost, Lost::OtherPath | Lost::OtherHost);
        let (mut views, mut near_misses) = (Vec::new(), 0);
        for (index, lost) in candidates.iter().filter_map(|candidate| Some((candidate.route, candidate.lost?))) {
            near_misses += usize::from(near(&lost));
            if near_misses <= NEAR_MISSES {
                views.push(LostView { route: self.route(index), lost, because: lost.to_string() });
            }
        }
        (views, near_misses.saturating_sub(NEAR_MISSES))
    }
}

/// File and line of a field of an Ingress, if it came from a file.
fn place(snapshot: &Snapshot, ingress: &ObjectName, field: &str) -> String {
    let found = snapshot
        .objects
        .objects
        .iter()
        .find(|object| object.key.name == *ingress && matches!(object.body, Body::Ingress(_)));
    match found.map(|object| object.place(field)) {
        Some(Place { file: Some(file), line: Some(line), .. }) => format!("{file}:{line}"),
        Some(Place { file: Some(file), line: None, .. }) => file.to_string(),
        Some(Place { file: None, .. }) | None => String::new(),
    }
}

#[cfg(test)]
mod tests;
