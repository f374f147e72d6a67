//! A pod: what runs, and what it answers to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dualgate_core::model::object::{
    Body, IngressBackend, Object, PortRef, Protocol, Service, ServicePort, ServiceType,
};
use dualgate_core::model::{Dual, NodeName, ObjectKey, ObjectName, ObjectSet};

use super::read::ContainerPort;
use crate::echo::Identity;
use crate::report::PodStatus;

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its namespace and name.
    pub name: ObjectName,
    /// What wants it.
    pub workload: ObjectKey,
    /// Its number within its workload: of a StatefulSet the ordinal, else how many came before it.
    pub serial: u32,
    /// The node that it runs on.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Dual<IpAddr>,
    /// Its labels: those of the template, and those that Kubernetes adds.
    pub labels: BTreeMap<String, String>,
    /// The ports of its containers.
    pub ports: Vec<ContainerPort>,
    /// The headless Service that gives it a name, in a StatefulSet.
    pub subdomain: Option<String>,
    /// The digest of the template that it was made from.
    pub template: u64,
    /// Whether the cluster takes it for ready. False at first: the world says when.
    pub ready: bool,
    /// Whether it answers in truth. False at first: the world says when.
    pub alive: bool,
    /// Whether it is to end: it answers for a while, and gets no requests if others can have them.
    pub terminating: bool,
}

impl Pod {
    /// What `lab status` shows.
    pub fn status(&self) -> PodStatus {
        PodStatus {
            name: self.name.to_string(),
            workload: self.workload.name.to_string(),
            node: self.node.to_string(),
            addresses: self.addresses.iter().copied().collect(),
            ready: self.ready && !self.terminating,
            alive: self.alive,
            terminating: self.terminating,
        }
    }

    /// The TCP ports that its echo backend listens on: those of its containers, and those that Services lead to.
    pub fn listens(&self, objects: &ObjectSet) -> BTreeSet<u16> {
        let tcp = |port: &&ContainerPort| port.protocol == Protocol::Tcp;
        let mut ports: BTreeSet<u16> = self.ports.iter().filter(tcp).map(|port| port.port).collect();
        for (_, service) in self.services(objects) {
            let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            ports.extend(tcp.filter_map(|port| self.target(port)));
        }
        ports
    }

    /// Who its echo backend says it is.
    pub fn identity(&self, objects: &ObjectSet) -> Identity {
        let services: Vec<String> =
            self.services(objects).map(|(object, _)| object.key.name.name.to_string()).collect();
        let leads_here = |object: &Object| {
            let is_near = object.key.name.namespace == self.name.namespace;
            is_near && backends(object).any(|backend| services.iter().any(|service| service == backend))
        };
        let ingress = objects.objects.iter().find(|object| leads_here(object));
        Identity {
            pod: self.name.name.to_string(),
            namespace: Some(self.name.namespace.to_string()),
            ingress: ingress.map(|object| object.key.name.name.to_string()),
            services,
            node: Some(self.node.to_string()),
            addresses: self.addresses.iter().copied().collect(),
        }
    }

    /// The Services that select it.
    fn services<'a>(&'a self, objects: &'a ObjectSet) -> impl Iterator<Item = (&'a Object, &'a Service)> {
        objects.objects.iter().filter_map(|object| {
            let Body::Service(service) = &object.body else { return None };
            self.is_selected_by(object, service).then_some((&**object, &**service))
        })
    }

    /// Whether it is an endpoint of a Service.
    pub(super) fn is_selected_by(&self, object: &Object, service: &Service) -> bool {
        service.kind != ServiceType::ExternalName
            && !service.selector.is_empty()
            && object.key.name.namespace == self.name.namespace
            && service.selector.iter().all(|(name, value)| self.labels.get(name).is_some_and(|label| label == value))
    }

    /// The port that a Service's port leads to. A name is the first container port of that name and protocol.
    pub(super) fn target(&self, port: &ServicePort) -> Option<u16> {
        match &port.target {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => {
                let named = |own: &&ContainerPort| own.name.as_deref() == Some(name) && own.protocol == port.protocol;
                self.ports.iter().find(named).map(|own| own.port)
            }
        }
    }
}

/// The Services that an Ingress names.
fn backends(object: &Object) -> impl Iterator<Item = &str> {
    let ingress = if let Body::Ingress(ingress) = &object.body { Some(&**ingress) } else { None };
    let all = ingress.into_iter().flat_map(|ingress| {
        let paths = ingress.rules.iter().filter_map(|rule| rule.paths.as_ref()).flatten();
        ingress.default_backend.iter().chain(paths.map(|path| &path.backend))
    });
    all.filter_map(|backend| match backend {
        IngressBackend::Service { name, .. } => Some(&**name),
        IngressBackend::Resource { .. } => None,
    })
}
