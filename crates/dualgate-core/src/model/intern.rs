//! Which texts of an object are likely to stand in others too.

use super::names::{Host, HostPattern, ObjectKey, ObjectName};
use super::object::{
    Body, Endpoint, EndpointPort, EndpointSlice, Ingress, IngressBackend, IngressPath, IngressRule, IngressTls,
    Managed, Meta, Object, PortRef, Published, Service, ServicePort,
};
use super::text::{Interner, Text};

impl Object {
    /// Makes its texts one with those that are known. Whoever keeps many objects does it with each.
    pub fn intern(&mut self, known: &mut Interner) {
        let Self { key: ObjectKey { kind, name }, meta, body, origin: _, managed, written: _ } = self;
        known.intern(kind);
        object_name(name, known);
        let Meta { labels, annotations, created: _, uid: _ } = meta;
        labels.texts_mut().chain(annotations.texts_mut()).for_each(|text| known.intern(text));
        match body {
            Body::Ingress(body) => ingress(body, known),
            Body::Service(body) => service(body, known),
            Body::EndpointSlice(body) => endpoint_slice(body, known),
            // Of these there are few.
            Body::IngressClass(_)
            | Body::Secret(_)
            | Body::ConfigMap(_)
            | Body::Namespace
            | Body::Node(_)
            | Body::Other => {}
        }
        let Managed { is_status_ours: _, is_load_balancer_ours: _, load_balancer, labels: _ } = managed;
        optional(load_balancer, known);
    }
}

fn object_name(name: &mut ObjectName, known: &mut Interner) {
    let ObjectName { namespace, name } = name;
    known.intern(namespace);
    known.intern(name);
}

fn ingress(ingress: &mut Ingress, known: &mut Interner) {
    let Ingress { class, default_backend, tls, rules, published: addresses } = ingress;
    optional(class, known);
    default_backend.iter_mut().for_each(|backend| ingress_backend(backend, known));
    for IngressTls { index: _, hosts, secret } in tls {
        hosts.iter_mut().for_each(|host| host_pattern(host, known));
        optional(secret, known);
    }
    for IngressRule { index: _, host, paths } in rules {
        host_pattern(host, known);
        for IngressPath { index: _, path, path_type: _, backend } in paths.iter_mut().flatten() {
            known.intern(path);
            ingress_backend(backend, known);
        }
    }
    published(addresses, known);
}

fn ingress_backend(backend: &mut IngressBackend, known: &mut Interner) {
    match backend {
        IngressBackend::Service { name, port } => {
            known.intern(name);
            port_ref(port, known);
        }
        IngressBackend::Resource { what } => known.intern(what),
    }
}

fn service(service: &mut Service, known: &mut Interner) {
    service.selector.texts_mut().for_each(|text| known.intern(text));
    for ServicePort { name, port: _, target, protocol: _, app_protocol } in &mut service.ports {
        known.intern(name);
        port_ref(target, known);
        optional(app_protocol, known);
    }
    optional(&mut service.external_name, known);
    if let Some(load_balancer) = &mut service.load_balancer {
        optional(&mut load_balancer.class, known);
    }
    published(&mut service.published, known);
}

fn endpoint_slice(slice: &mut EndpointSlice, known: &mut Interner) {
    let EndpointSlice { service, address_type: _, endpoints, ports } = slice;
    optional(service, known);
    for Endpoint { address: _, ready: _, serving: _, terminating: _, target, node } in endpoints {
        target.iter_mut().for_each(|name| object_name(name, known));
        optional(node, known);
    }
    for EndpointPort { name, port: _, protocol: _ } in ports {
        known.intern(name);
    }
}

fn port_ref(port: &mut PortRef, known: &mut Interner) {
    match port {
        PortRef::Number(_) => {}
        PortRef::Name(name) => known.intern(name),
    }
}

fn host_pattern(pattern: &mut HostPattern, known: &mut Interner) {
    match pattern {
        HostPattern::Exact(Host(host)) | HostPattern::Wildcard(Host(host)) => known.intern(host),
        HostPattern::Any => {}
    }
}

fn published(addresses: &mut [Published], known: &mut Interner) {
    for published in addresses {
        match published {
            Published::Ip(_) => {}
            Published::Hostname(name) => known.intern(name),
        }
    }
}

fn optional(text: &mut Option<Text>, known: &mut Interner) {
    text.iter_mut().for_each(|text| known.intern(text));
}
