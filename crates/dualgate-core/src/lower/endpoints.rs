//! The servers of a Service port.
//!
//! From the first of these that the Service has:
//!
//! 1. `dualgate.dev/endpoints`,
//! 2. `externalName`,
//! 3. its EndpointSlices.
//!
//! A pod (`targetRef`) is one server, however many addresses, slices and families it appears in. An endpoint
//! without one is a server of its own: nothing says that two of them are the same machine. Where something
//! does, `dualgate.dev/endpoints` can say so (`10.0.0.5:3000+[fd00::5]:3000`). Of several addresses in one
//! endpoint the first is used, as they are interchangeable.
//!
//! Ready endpoints are used; if there are none, those that still serve while they terminate, as kube-proxy
//! does. The ClusterIP is never used: it would hide the pods from the balancer.
//!
//! Whoever may write a Service decides here where a gate connects to. So no server is dualgate's own admin
//! listener, nor an address that means "this host" or nobody in particular. (Names are resolved later, where
//! they are used.)

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::model::address::Family;
use crate::model::exact::exact;
use crate::model::finding::Severity;
use crate::model::object::{
    AddressType, Endpoint, EndpointSlice, PortRef, Protocol, Service, ServicePort, ServiceType,
};
use crate::model::site::Admin;
use crate::model::{Code, Finding, Object, Sockets, Text};
use crate::plan::proxy::{Server, ServerAddress};

use super::annotation::{self, ENDPOINTS};
use super::forward;

/// What the servers of one Service port are made from.
pub(super) struct Endpoints<'a> {
    pub object: &'a Object,
    pub service: &'a Service,
    pub port: &'a ServicePort,
    pub slices: &'a [(&'a Object, &'a EndpointSlice)],
    /// `dualgate.dev/endpoints`.
    pub annotation: Option<&'a str>,
    /// What no server may be.
    pub admin: &'a Admin,
    /// Only pods of this node. Servers of the annotation are on no node.
    pub node: Option<&'a str>,
    /// Who asks.
    pub purpose: Purpose,
}

/// What servers are wanted for: it decides what their absence means.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Requests that an Ingress routes.
    Routes,
    /// Connections to an address of the Service.
    Forward,
}

/// The servers, in the order of their identities; those of the annotation as written.
pub(super) fn servers(of: &Endpoints<'_>, findings: &mut Vec<Finding>) -> Box<[Server]> {
    let mut servers = candidates(of, findings);
    let before = servers.len();
    servers.retain(|server| match refusal(&server.at, of.admin) {
        None => true,
        Some(why) => {
            let message = format!("`{}` is left out: {why}", server.id);
            findings.push(Finding::new(Code::ServiceEndpoints, of.object.place(""), message));
            false
        }
    });
    if before == 0 {
        findings.push(nobody(of));
    }
    exact(servers)
}

fn candidates(of: &Endpoints<'_>, findings: &mut Vec<Finding>) -> Vec<Server> {
    if let Some(text) = of.annotation {
        match written_servers(text, of.port) {
            Ok(servers) => return servers,
            Err(why) => {
                let help = "servers are separated by `,`, the addresses of one server joined by `+`: `10.0.0.5:3000+[fd00::5]:3000`";
                let place = annotation::place(of.object, ENDPOINTS);
                findings.push(Finding::new(Code::AnnotationInvalid, place, why).help(help));
            }
        }
    }
    if of.service.kind == ServiceType::ExternalName {
        return of.service.external_name.iter().map(|name| named_server(name, of.port.port)).collect();
    }
    from_slices(of, findings)
}

/// Why nothing may be forwarded there.
fn refusal(at: &ServerAddress, admin: &Admin) -> Option<&'static str> {
    let ServerAddress::Sockets(sockets) = at else { return None };
    sockets.iter().find_map(|socket| {
        let ip = socket.ip().to_canonical();
        let is_admin = |listen: &SocketAddr| {
            listen.port() == socket.port() && (listen.ip().is_unspecified() || listen.ip().to_canonical() == ip)
        };
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            Some("it is no address of a server")
        } else if admin.listen.iter().any(is_admin) {
            Some("it is the admin listener of dualgate")
        } else {
            None
        }
    })
}

fn nobody(of: &Endpoints<'_>) -> Finding {
    let name = &*of.port.name;
    let label = if name.is_empty() { of.port.port.to_string() } else { format!("{} ({name})", of.port.port) };
    let matched = of.slices.iter().any(|(_, slice)| slice_port(slice, of.port).is_some());
    let ports: BTreeSet<&str> = of.slices.iter().flat_map(|(_, slice)| &slice.ports).map(|port| &*port.name).collect();
    let (why, help) = if of.slices.is_empty() {
        let help = "without a cluster, add an EndpointSlice or the annotation `dualgate.dev/endpoints`";
        ("it has no EndpointSlice".to_owned(), help)
    } else if matched {
        ("no endpoint is ready".to_owned(), "look at the pods' readiness")
    } else if ports.is_empty() {
        ("it selects no pod".to_owned(), "look at its selector and at the pods' labels")
    } else {
        let ports = ports.into_iter().collect::<Vec<_>>().join("`, `");
        let help = "a port of an EndpointSlice has the name of the Service's port";
        let protocol = forward::word(of.port.protocol);
        (format!("its EndpointSlices have no {protocol} port named `{name}`, only `{ports}`"), help)
    };
    let (code, consequence) = match (of.purpose, of.port.protocol) {
        (Purpose::Routes, _) => (Code::IngressNoEndpoints, "requests get 503"),
        (Purpose::Forward, Protocol::Udp) => (Code::ServiceNoEndpoints, "its datagrams are dropped"),
        (Purpose::Forward, Protocol::Tcp | Protocol::Sctp) => {
            (Code::ServiceNoEndpoints, "nobody answers for its addresses")
        }
    };
    let message = format!("port {label}: {why}; {consequence}");
    let mut finding = Finding::new(code, of.object.place(""), message).help(help);
    // A cluster makes the slices of a Service that selects pods; manifests cannot know them.
    if of.slices.is_empty() && of.annotation.is_none() && !of.service.selector.is_empty() {
        finding.severity = Severity::Note;
    }
    finding
}

fn named_server(name: &str, port: u16) -> Server {
    let at = match name.parse::<IpAddr>() {
        Ok(address) => ServerAddress::Sockets(SocketAddr::new(address, port).into()),
        Err(_) => ServerAddress::Name { host: name.trim_end_matches('.').to_ascii_lowercase().into(), port },
    };
    Server { id: name.into(), at }
}

/// Reads `dualgate.dev/endpoints`.
pub(crate) fn written_servers(text: &str, port: &ServicePort) -> Result<Vec<Server>, String> {
    let mut seen = BTreeSet::new();
    let mut servers = Vec::new();
    for server in text.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let mut sides: [Option<SocketAddr>; 2] = [None, None];
        for address in server.split('+').map(str::trim) {
            let socket = written_socket(address, port)?;
            let side = &mut sides[usize::from(socket.is_ipv6())];
            if side.replace(socket).is_some() {
                return Err(format!(
                    "`{server}` has two {} addresses; a server has one of each family",
                    Family::of(socket.ip())
                ));
            }
            if !seen.insert(socket) {
                return Err(format!("`{socket}` is written twice"));
            }
        }
        let at = Sockets::new(sides.into_iter().flatten()).ok_or_else(|| format!("`{server}` has no address"))?;
        servers.push(Server { id: at.to_string().into(), at: ServerAddress::Sockets(at) });
    }
    if servers.is_empty() { Err("it is empty; it counts as absent".to_owned()) } else { Ok(servers) }
}

/// `10.0.0.5:3000`, `[fd00::5]:3000`, or an address alone for the Service's target port.
fn written_socket(text: &str, port: &ServicePort) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is not an address with a port, such as `10.0.0.5:3000` or `[fd00::5]:3000`");
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let has_scope = matches!(socket, SocketAddr::V6(v6) if v6.scope_id() != 0);
        return if socket.port() == 0 || has_scope { Err(wrong()) } else { Ok(socket) };
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| wrong())?;
    match &port.target {
        PortRef::Number(number) => Ok(SocketAddr::new(address, *number)),
        PortRef::Name(name) => Err(format!("`{text}` has no port, and the Service's target port is the name `{name}`")),
    }
}

/// What is known of one pod, or of one endpoint without one.
#[derive(Default)]
struct Found {
    ready: Vec<SocketAddr>,
    terminating: Vec<SocketAddr>,
}

fn from_slices(of: &Endpoints<'_>, findings: &mut Vec<Finding>) -> Vec<Server> {
    let mut found: BTreeMap<Text, Found> = BTreeMap::new();
    for &(object, slice) in of.slices {
        match slice.address_type {
            AddressType::V4 | AddressType::V6 => {}
            AddressType::Fqdn => {
                findings.push(Finding::new(
                    Code::ServiceEndpoints,
                    object.place("addressType"),
                    "addressType FQDN is not served; use an ExternalName Service",
                ));
                continue;
            }
        }
        if let Some(port) = slice_port(slice, of.port) {
            let here = |endpoint: &&Endpoint| of.node.is_none() || of.node == endpoint.node.as_deref();
            slice.endpoints.iter().filter(here).for_each(|endpoint| collect(endpoint, port, &mut found));
        }
    }
    let any_ready = found.values().any(|found| !found.ready.is_empty());
    let used = |found: &Found| if any_ready { found.ready.clone() } else { found.terminating.clone() };
    found.iter().filter_map(|(id, found)| server(id, used(found))).collect()
}

fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let of_name = slice.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol)?;
    // A slice that names no number leaves it to the reader: the target port, if that is a number.
    Some(of_name.port.unwrap_or(match port.target {
        PortRef::Number(number) => number,
        PortRef::Name(_) => port.port,
    }))
}

fn collect(endpoint: &Endpoint, port: u16, found: &mut BTreeMap<Text, Found>) {
    let socket = SocketAddr::new(endpoint.address, port);
    let id: Text = match &endpoint.target {
        Some(target) => target.name.clone(),
        None => socket.to_string().into(),
    };
    let entry = found.entry(id).or_default();
    if endpoint.ready {
        entry.ready.push(socket);
    } else if endpoint.serving && endpoint.terminating {
        entry.terminating.push(socket);
    }
}

/// The lowest address of each family: a slice that is being rewritten shows an endpoint twice.
fn server(id: &Text, mut sockets: Vec<SocketAddr>) -> Option<Server> {
    sockets.sort_unstable();
    let at = Sockets::new(sockets)?;
    Some(Server { id: id.clone(), at: ServerAddress::Sockets(at) })
}
