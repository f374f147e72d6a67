//! The applications: every host and path that an Ingress names, at each gate, with and without TLS.
//!
//! What is expected is what the gates' own table says, asked for each entry point. A path that only a regular expression
//! matches is left out: nobody knows an example of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dualgate_core::lower::EntryPointRef;
use dualgate_core::model::site::{EntryProtocol, Role};
use dualgate_core::model::{Family, GateName, HostPattern};
use dualgate_core::plan::proxy::{self, ProxyPlan, Server, ServerAddress};
use dualgate_core::route::{Action, EntryPointIndex, PathPattern, RouteIndex};
use dualgate_http::Scheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Ask, Expectation, HostKind, PlannedCheck, Probe, View, addresses, probe, row};
use crate::checks::{Promised, Servers};
use crate::probe::Request;
use crate::topology::Host;

/// What stands for every host and for the label of a wildcard.
const SOME_LABEL: &str = "anything";
const SOME_HOST: &str = "anything.invalid";

pub(super) fn rows(view: &View<'_>) -> Vec<PlannedCheck> {
    let gates = GateName::ALL.map(|gate| Gate::of(view, gate));
    let targets = targets(view);
    let mut rows = Vec::new();
    for gate in &gates {
        rows.extend(targets.iter().filter_map(|target| gate.served(view, target, Scheme::Http)));
    }
    for gate in gates.iter().filter(|gate| gate.name == GateName::External) {
        rows.extend(targets.iter().filter_map(|target| gate.unserved(view, target)));
    }
    for gate in &gates {
        rows.extend(targets.iter().filter_map(|target| gate.served(view, target, Scheme::Https)));
    }
    let mut hosts = BTreeSet::new();
    for target in targets.iter().filter(|target| target.has_name && hosts.insert(target.host.as_str())) {
        rows.push(certificate(view, &gates, target));
    }
    rows
}

/// Whether a server's name is that of a pod, and not its address.
pub(super) fn is_pod(server: &Server) -> bool {
    match &server.at {
        ServerAddress::Name { .. } => false,
        ServerAddress::Sockets(sockets) => !sockets.iter().any(|socket| server.id.contains(&socket.to_string())),
    }
}

/// A host and a path that are asked for.
struct Target {
    /// As it is asked for.
    host: String,
    path: String,
    /// As an Ingress names it.
    shown: String,
    /// Whether a certificate could name it.
    has_name: bool,
}

fn targets(view: &View<'_>) -> Vec<Target> {
    let mut targets: BTreeMap<(HostPattern, &str), Target> = BTreeMap::new();
    for route in view.lowered.routes() {
        let path = match &route.path {
            PathPattern::Exact(path) | PathPattern::Characters(path) | PathPattern::Prefix { written: path } => path,
            PathPattern::Regex(_) => continue,
            PathPattern::Rest => "/",
        };
        let path = if path.starts_with('/') { path } else { "/" };
        let (host, has_name) = match &route.host {
            HostPattern::Exact(host) => (host.to_string(), true),
            HostPattern::Wildcard(suffix) => (format!("{SOME_LABEL}.{suffix}"), true),
            HostPattern::Any => (SOME_HOST.to_owned(), false),
        };
        let pattern = route.host.to_string();
        let shown = if path == "/" { pattern } else { format!("{pattern}{path}") };
        let target = Target { host, path: path.to_owned(), shown, has_name };
        targets.entry((route.host.clone(), path)).or_insert(target);
    }
    targets.into_values().collect()
}

/// A gate, as it is asked.
struct Gate<'a> {
    name: GateName,
    /// Who asks, and at which address.
    ways: Vec<(&'a Host, IpAddr)>,
    entry_points: Vec<&'a EntryPointRef>,
    /// Of any node that serves it: they all show the same certificates.
    plan: ProxyPlan,
}

impl<'a> Gate<'a> {
    fn of(view: &View<'a>, name: GateName) -> Self {
        let nodes = || view.site.nodes.iter().filter(|node| node.has(Role::of_gate(name)));
        let client = view.host(match name {
            GateName::Internal => HostKind::LanClient,
            GateName::External => HostKind::InternetClient,
        });
        let mut ways: Vec<(&Host, IpAddr)> = Vec::new();
        for (node, gate) in nodes().filter_map(|node| Some((node, view.site.gates.get(&name)?))) {
            let itself = view.topology.hosts.iter().find(|host| host.node.as_ref() == Some(&node.name));
            let own = match name {
                GateName::Internal => &node.addresses,
                GateName::External => &node.public_addresses,
            };
            for address in proxy::addresses(name, gate, node).0 {
                // Every address of the node, written as one.
                let any = own.iter().copied().filter(|own| Family::of(*own) == Family::of(*address));
                let meant: Vec<IpAddr> = if address.is_unspecified() { any.collect() } else { vec![*address] };
                let way = |at: IpAddr| Some((if at.is_loopback() { itself? } else { client? }, at));
                ways.extend(meant.into_iter().filter_map(way));
            }
        }
        let mut known = BTreeSet::new();
        ways.retain(|(from, at)| known.insert((from.name.clone(), *at)));
        let entry_points = view.lowered.entry_points.iter().filter(|pair| pair.gate == name).collect();
        let plan = nodes().next().map(|node| proxy::select(view.snapshot, view.lowered, &node.name));
        Self { name, ways, entry_points, plan: plan.unwrap_or_default() }
    }

    fn entry_points(&self, scheme: Scheme) -> impl Iterator<Item = &EntryPointRef> {
        self.entry_points.iter().copied().filter(move |pair| scheme_of(pair) == scheme)
    }

    /// The ways to the gate that its askers can go.
    fn ways(&self, family: Family) -> impl Iterator<Item = (&'a Host, IpAddr)> {
        let goes = move |from: &Host, at: &IpAddr| at.is_loopback() || addresses(from, family).next().is_some();
        self.ways.iter().copied().filter(move |(from, at)| Family::of(*at) == family && goes(from, at))
    }

    fn served(&self, view: &View<'_>, target: &Target, scheme: Scheme) -> Option<PlannedCheck> {
        let found = self.entry_points(scheme).filter_map(|pair| Some((pair, find(view, pair.index, target)?)));
        let found: Vec<_> = found.map(|(pair, route)| (pair, expected(view, route))).collect();
        if found.is_empty() {
            return None;
        }
        let (id, title) = match (self.name, scheme) {
            (GateName::Internal, Scheme::Http) => ("home", "at home"),
            (GateName::External, Scheme::Http) => ("internet", "from the Internet"),
            (GateName::Internal, Scheme::Https) => ("home-https", "at home over HTTPS"),
            (GateName::External, Scheme::Https) => ("internet-https", "from the Internet over HTTPS"),
        };
        let probes = |family| {
            let ways = self.ways(family);
            let asked = ways
                .flat_map(|way| found.iter().map(move |(pair, expect)| self.probe(way, pair, target, expect.clone())));
            asked.collect()
        };
        Some(row(format!("{id}/{}", target.shown), format!("{} {title}", target.shown), probes))
    }

    /// What no entry point of the gate serves.
    fn unserved(&self, view: &View<'_>, target: &Target) -> Option<PlannedCheck> {
        if self.entry_points.iter().any(|pair| find(view, pair.index, target).is_some()) {
            return None;
        }
        let probes = |family| {
            let asked = self.ways(family).flat_map(|way| {
                self.entry_points.iter().map(move |pair| self.probe(way, pair, target, Expectation::NotFound))
            });
            asked.collect()
        };
        Some(row(format!("stays-home/{}", target.shown), format!("{} stays at home", target.shown), probes))
    }

    fn probe(&self, way: (&Host, IpAddr), pair: &EntryPointRef, target: &Target, expect: Expectation) -> Probe {
        let (from, address) = way;
        let to = SocketAddr::new(address, pair.point.port);
        let request = Request { to, scheme: scheme_of(pair), host: target.host.clone(), path: target.path.clone() };
        probe(from, Ask::Get(request), expect)
    }
}

/// The certificate of a host, at every gate that serves it over TLS.
fn certificate(view: &View<'_>, gates: &[Gate<'_>], target: &Target) -> PlannedCheck {
    let probes = |family| {
        let mut probes = Vec::new();
        for gate in gates {
            let served = gate.entry_points(Scheme::Https).filter(|pair| find(view, pair.index, target).is_some());
            for pair in served {
                let host = target.host.clone();
                let expect = Expectation::Certificate { promised: promised(&gate.plan, pair.index, &host), host };
                probes.extend(gate.ways(family).map(|way| gate.probe(way, pair, target, expect.clone())));
            }
        }
        probes
    };
    let shown = target.shown.strip_suffix(target.path.as_str()).unwrap_or(&target.shown);
    row(format!("certificate/{shown}"), format!("certificate of {shown}"), probes)
}

fn promised(plan: &ProxyPlan, entry_point: EntryPointIndex, host: &str) -> Option<Promised> {
    let certificate = plan.certificate(entry_point, host)?;
    let first = CertificateDer::pem_slice_iter(&certificate.chain).next()?.ok()?;
    Some(Promised { secret: certificate.secret.to_string(), der: first.to_vec() })
}

fn find(view: &View<'_>, entry_point: EntryPointIndex, target: &Target) -> Option<RouteIndex> {
    view.table.find(entry_point, &target.host, &target.path)
}

fn expected(view: &View<'_>, route: RouteIndex) -> Expectation {
    let route = view.table.route(route);
    match &route.action {
        Action::Unavailable(why) => {
            Expectation::Served { service: route.origin.service.to_string(), by: Servers::Nobody(why.to_string()) }
        }
        Action::Forward(index) => {
            let backend = view.lowered.backends().get(*index);
            let service = backend.map(|backend| backend.id.service.to_string()).unwrap_or_default();
            let by = match backend.map(|backend| &*backend.servers).unwrap_or_default() {
                [] => Servers::Nobody(format!("no pod of {service} is ready")),
                servers if servers.iter().all(is_pod) => {
                    Servers::Pods(servers.iter().map(|server| server.id.to_string()).collect())
                }
                _ => Servers::Anyone,
            };
            Expectation::Served { service, by }
        }
    }
}

fn scheme_of(pair: &EntryPointRef) -> Scheme {
    match pair.point.protocol {
        EntryProtocol::Http => Scheme::Http,
        EntryProtocol::Https => Scheme::Https,
    }
}
