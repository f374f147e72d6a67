//! Backends: ports of Services.
//!
//! A Service or port that does not exist costs the route: it answers 503, because the name is served and the
//! backend is what is missing. 404 would say that nobody is at home, and would hand the path to a shorter one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::object::{PortRef, Protocol, Service, ServicePort, ServiceType};
use crate::model::{Code, Finding, Object, Site};
use crate::plan::proxy::{Backend, BackendId, Scheme, Server};
use crate::route::{Action, BackendIndex};

use super::annotation::OfService;
use super::endpoints::{self, Endpoints, Purpose};
use super::world::World;

/// The backends, as routes ask for them.
pub(super) struct Backends<'a> {
    site: &'a Site,
    world: &'a World<'a>,
    list: Vec<Arc<Backend>>,
    known: BTreeMap<BackendId, BackendIndex>,
    annotations: BTreeMap<&'a str, BTreeMap<&'a str, Arc<OfService>>>,
    findings: Vec<Finding>,
}

impl<'a> Backends<'a> {
    pub fn new(site: &'a Site, world: &'a World<'a>) -> Self {
        let (list, findings) = (Vec::new(), Vec::new());
        Self { site, world, list, known: BTreeMap::new(), annotations: BTreeMap::new(), findings }
    }

    /// The backends, and `findings` with theirs.
    pub fn finish(self, mut findings: Vec<Finding>) -> (Vec<Arc<Backend>>, Vec<Finding>) {
        findings.extend(self.findings);
        (self.list, findings)
    }

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
            return Action::Unavailable(why);
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
            return Action::Unavailable(why);
        };
        let id = BackendId { service: object.key.name.clone(), port: port_of.port };
        if let Some(index) = self.known.get(&id) {
            return Action::Forward(*index);
        }
        let backend = self.backend(id.clone(), object, service, &port_of, port);
        let index = BackendIndex(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Arc::new(backend));
        self.known.insert(id, index);
        Action::Forward(index)
    }

    fn backend(
        &mut self,
        id: BackendId,
        object: &'a Object,
        service: &'a Service,
        port: &ServicePort,
        named: &PortRef,
    ) -> Backend {
        let annotations = self.annotations(object);
        let slices = self.world.slices(&object.key.name.namespace, &object.key.name.name);
        let (annotation, admin) = (annotations.endpoints.as_deref(), &self.site.admin);
        let purpose = Purpose::Routes;
        let endpoints = Endpoints { object, service, port, slices, annotation, admin, node: None, purpose };
        let servers = endpoints::servers(&endpoints, &mut self.findings);
        Backend {
            id,
            scheme: annotations.scheme.unwrap_or_else(|| scheme(port)),
            pass_host: annotations.pass_host.unwrap_or(true),
            servers,
            port: named.clone(),
        }
    }

    /// The servers of a port that is forwarded; of one node's pods, if one is named.
    pub fn servers_of_forward(
        &mut self,
        object: &'a Object,
        service: &Service,
        port: &ServicePort,
        node: Option<&str>,
        findings: &mut Vec<Finding>,
    ) -> Vec<Server> {
        let annotations = self.annotations(object);
        let slices = self.world.slices(&object.key.name.namespace, &object.key.name.name);
        let (annotation, admin) = (annotations.endpoints.as_deref(), &self.site.admin);
        let purpose = Purpose::Forward;
        endpoints::servers(&Endpoints { object, service, port, slices, annotation, admin, node, purpose }, findings)
    }

    /// Read once for each Service, so that its findings appear once.
    fn annotations(&mut self, object: &'a Object) -> Arc<OfService> {
        let of_namespace = self.annotations.entry(&object.key.name.namespace).or_default();
        let read = || Arc::new(OfService::read(object, &mut self.findings));
        of_namespace.entry(&object.key.name.name).or_insert_with(read).clone()
    }
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
            name: String::new(),
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
