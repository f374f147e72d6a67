//! Backends: ports of Services.
//!
//! A Service or port that does not exist costs the route: it answers 503, because the name is served and the
//! backend is what is missing. 404 would say that nobody is at home, and would hand the path to a shorter one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::object::{PortRef, Protocol, Service, ServicePort, ServiceType};
use crate::model::{Code, Finding, Object, ObjectName, Site, Text};
use crate::plan::proxy::{self, Backend, BackendId, Scheme, Server};
use crate::route::{Action, BackendIndex, Route};

use super::annotation::OfService;
use super::endpoints::{self, Endpoints, Purpose};
use super::world::World;

/// The backends, as routes ask for them.
#[derive(Debug, Default)]
pub(super) struct Backends {
    list: proxy::Backends,
    known: BTreeMap<BackendId, Known>,
    /// Numbers that nobody has any more.
    free: Vec<BackendIndex>,
}

/// What is known of a backend besides itself.
#[derive(Debug)]
struct Known {
    index: BackendIndex,
    /// How many routes lead there.
    routes: usize,
    /// Hardly any backend has some.
    findings: Option<Box<OfBackend>>,
}

/// What is wrong with a backend.
#[derive(Debug)]
struct OfBackend {
    /// With the annotations of its Service; all backends of the Service say the same.
    annotations: Vec<Finding>,
    servers: Vec<Finding>,
}

/// Backends with what they are made from.
pub(super) struct Resolver<'a> {
    pub site: &'a Site,
    pub world: &'a World,
    pub backends: &'a mut Backends,
}

impl Resolver<'_> {
    /// What happens to requests for port `port` of Service `name`, as a field of an Ingress says.
    pub fn resolve(
        &mut self,
        ingress: &Object,
        field: &dyn Fn() -> String,
        name: &str,
        port: &PortRef,
        findings: &mut Vec<Finding>,
    ) -> Action {
        let namespace = &*ingress.key.name.namespace;
        let Some((object, service)) = self.world.service(namespace, name) else {
            let why = format!("there is no Service `{name}` in namespace `{namespace}`");
            let place = ingress.place(format!("{}.service.name", field()));
            let finding = Finding::new(Code::IngressUnknownService, place, format!("{why}; requests get 503"));
            findings.push(finding.help(known("Services there", self.world.services_of(namespace))));
            return Action::Unavailable(why.into());
        };
        let Some(port_of) = find_port(service, port) else {
            let why = format!("Service `{name}` has no TCP port `{port}`");
            let which = match port {
                PortRef::Number(_) => "number",
                PortRef::Name(_) => "name",
            };
            let place = ingress.place(format!("{}.service.port.{which}", field()));
            let finding = Finding::new(Code::IngressUnknownPort, place, format!("{why}; requests get 503"));
            findings.push(finding.help(known("its ports", service.ports.iter().map(describe))));
            return Action::Unavailable(why.into());
        };
        let id = BackendId { service: object.key.name.clone(), port: port_of.port };
        Action::Forward(self.backends.number(id, self.site, self.world))
    }
}

impl Backends {
    /// The number of a backend, which is made if nobody has asked for it before.
    fn number(&mut self, id: BackendId, site: &Site, world: &World) -> BackendIndex {
        if let Some(known) = self.known.get(&id) {
            return known.index;
        }
        let index = self.free.pop().unwrap_or(BackendIndex(u32::try_from(self.known.len()).unwrap_or(u32::MAX)));
        let made = backend(&id, site, world);
        self.known.insert(id, Known { index, routes: 0, findings: None });
        if let Some(made) = made {
            self.keep(made);
        }
        index
    }

    fn keep(&mut self, (backend, findings): (Backend, OfBackend)) {
        let Some(known) = self.known.get_mut(&backend.id) else { return };
        let is_clean = findings.annotations.is_empty() && findings.servers.is_empty();
        known.findings = (!is_clean).then(|| Box::new(findings));
        if self.list.get(known.index).is_none_or(|before| **before != backend) {
            self.list.set(known.index, Some(Arc::new(backend)));
        }
    }

    /// A map that was filled in the order of its keys is half empty.
    pub fn pack(&mut self) {
        self.known = std::mem::take(&mut self.known).into_iter().collect();
    }

    /// Makes the backends of a Service again: it, or a slice of it, is another one.
    pub fn remake(&mut self, service: &ObjectName, site: &Site, world: &World) {
        let id = |port| BackendId { service: service.clone(), port };
        let of_service: Vec<BackendId> =
            self.known.range(id(0)..=id(u16::MAX)).map(|(known, _)| known.clone()).collect();
        // One whose Service or port is gone is let go of by its routes.
        let made: Vec<_> = of_service.iter().filter_map(|id| backend(id, site, world)).collect();
        made.into_iter().for_each(|made| self.keep(made));
    }

    /// Routes lead there from now on.
    pub fn hold(&mut self, routes: &[Arc<Route>]) {
        for index in forwards(routes) {
            if let Some(known) = self.list.get(index).and_then(|backend| self.known.get_mut(&backend.id)) {
                known.routes += 1;
            }
        }
    }

    /// Routes do not lead there any more.
    pub fn release(&mut self, routes: &[Arc<Route>]) {
        for index in forwards(routes) {
            let Some(backend) = self.list.get(index) else { continue };
            let id = backend.id.clone();
            let Some(known) = self.known.get_mut(&id) else { continue };
            known.routes -= 1;
            if known.routes == 0 {
                self.known.remove(&id);
                self.list.set(index, None);
                self.free.push(index);
            }
        }
    }

    pub fn list(&self) -> &proxy::Backends {
        &self.list
    }

    /// What is wrong with those to which routes lead; with each Service's annotations, once.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut said = None;
        for (id, of) in self.known.iter().filter_map(|(id, known)| Some((id, known.findings.as_deref()?))) {
            if said != Some(&id.service) {
                findings.extend(of.annotations.iter().cloned());
                said = Some(&id.service);
            }
            findings.extend(of.servers.iter().cloned());
        }
        findings
    }

    /// Whether a route leads to the Service.
    pub fn has(&self, service: &ObjectName) -> bool {
        let id = |port| BackendId { service: service.clone(), port };
        self.known.range(id(0)..=id(u16::MAX)).next().is_some()
    }
}

fn forwards(routes: &[Arc<Route>]) -> impl Iterator<Item = BackendIndex> {
    routes.iter().filter_map(|route| match route.action {
        Action::Forward(index) => Some(index),
        Action::Unavailable(_) => None,
    })
}

/// `None` where the Service or its port is not there. Of two ports with one number, which only a folder can hold, the
/// first counts.
fn backend(id: &BackendId, site: &Site, world: &World) -> Option<(Backend, OfBackend)> {
    let (object, service) = world.service(&id.service.namespace, &id.service.name)?;
    let port = find_port(service, &PortRef::Number(id.port))?;
    let mut findings = OfBackend { annotations: Vec::new(), servers: Vec::new() };
    let annotations = OfService::read(object, &mut findings.annotations);
    let slices = world.slices(&id.service);
    let of = Endpoints {
        object,
        service,
        port: &port,
        slices: &slices,
        annotation: annotations.endpoints.as_deref(),
        admin: &site.admin,
        node: None,
        purpose: Purpose::Routes,
    };
    let servers = endpoints::servers(&of, &mut findings.servers);
    let backend = Backend {
        id: id.clone(),
        scheme: annotations.scheme.unwrap_or_else(|| scheme(&port)),
        pass_host: annotations.pass_host.unwrap_or(true),
        servers,
    };
    Some((backend, findings))
}

/// The servers of a port that is forwarded; of one node's pods, if one is named.
pub(super) fn servers_of_forward(
    (site, world): (&Site, &World),
    (object, service): (&Object, &Service),
    port: &ServicePort,
    node: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Vec<Server> {
    // What is wrong with them is said once for each Service.
    let annotations = OfService::read(object, &mut Vec::new());
    let slices = world.slices(&object.key.name);
    let (annotation, admin) = (annotations.endpoints.as_deref(), &site.admin);
    let purpose = Purpose::Forward;
    let of = Endpoints { object, service, port, slices: &slices, annotation, admin, node, purpose };
    endpoints::servers(&of, findings).into_vec()
}

/// An ExternalName Service needs no ports; then the number of the Ingress is the port.
pub(crate) fn find_port(service: &Service, port: &PortRef) -> Option<ServicePort> {
    let found = service.ports.iter().find(|candidate| {
        candidate.protocol == Protocol::Tcp
            && match port {
                PortRef::Number(number) => candidate.port == *number,
                PortRef::Name(name) => candidate.name == *name,
            }
    });
    match (found, service.kind, port) {
        (Some(found), _, _) => Some(found.clone()),
        (None, ServiceType::ExternalName, PortRef::Number(number)) if service.ports.is_empty() => Some(ServicePort {
            name: Text::EMPTY,
            port: *number,
            target: port.clone(),
            protocol: Protocol::Tcp,
            app_protocol: None,
        }),
        (None, _, _) => None,
    }
}

/// What the servers speak when no annotation says so: `appProtocol`, else as Traefik guesses. Ingress v1 is
/// silent here, and it is a property of the Service, so it does not depend on how the Ingress is read.
fn scheme(port: &ServicePort) -> Scheme {
    match port.app_protocol.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("https" | "kubernetes.io/wss") => Scheme::Https,
        Some("h2c" | "kubernetes.io/h2c") => Scheme::H2c,
        Some("http" | "kubernetes.io/ws") => Scheme::Http,
        Some(_) | None if port.port == 443 || port.name.starts_with("https") => Scheme::Https,
        Some(_) | None => Scheme::Http,
    }
}

fn describe(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

fn known<T: std::fmt::Display>(what: &str, names: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = names.map(|name| name.to_string()).collect();
    let more = names.len().saturating_sub(10);
    names.truncate(10);
    match (names.is_empty(), more) {
        (true, _) => format!("{what}: none"),
        (false, 0) => format!("{what}: {}", names.join(", ")),
        (false, more) => format!("{what}: {} and {more} more", names.join(", ")),
    }
}
