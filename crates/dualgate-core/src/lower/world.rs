//! The objects by what they are looked up by.

use std::collections::BTreeMap;

use crate::model::Object;
use crate::model::object::{Body, EndpointSlice, Ingress, IngressClass, ObjectSet, SecretBody, Service};

/// Namespace and name.
type Name<'a> = (&'a str, &'a str);

/// The objects by what they are looked up by.
pub(super) struct World<'a> {
    pub ingresses: Vec<(&'a Object, &'a Ingress)>,
    pub classes: BTreeMap<&'a str, (&'a Object, &'a IngressClass)>,
    services: BTreeMap<Name<'a>, (&'a Object, &'a Service)>,
    slices: BTreeMap<Name<'a>, Vec<(&'a Object, &'a EndpointSlice)>>,
    secrets: BTreeMap<Name<'a>, &'a SecretBody>,
}

impl<'a> World<'a> {
    pub fn new(objects: &'a ObjectSet) -> Self {
        let mut world = Self {
            ingresses: Vec::new(),
            classes: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        for object in &objects.objects {
            let name = (&*object.key.name.namespace, &*object.key.name.name);
            match &object.body {
                Body::Ingress(ingress) => world.ingresses.push((object, ingress)),
                Body::IngressClass(class) => {
                    world.classes.insert(name.1, (object, class));
                }
                Body::Service(service) => {
                    world.services.insert(name, (object, service));
                }
                Body::EndpointSlice(slice) => {
                    if let Some(service) = &slice.service {
                        world.slices.entry((name.0, service)).or_default().push((object, slice));
                    }
                }
                Body::Secret(secret) => {
                    world.secrets.insert(name, secret);
                }
                Body::ConfigMap(_) | Body::Namespace | Body::Node(_) | Body::Other => {}
            }
        }
        world
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<(&'a Object, &'a Service)> {
        self.services.get(&(namespace, name)).copied()
    }

    /// The names of the Services of a namespace, for suggestions.
    pub fn services_of(&self, namespace: &str) -> impl Iterator<Item = &'a str> {
        self.services.keys().filter(move |(of, _)| *of == namespace).map(|(_, name)| *name)
    }

    pub fn slices<'s>(&'s self, namespace: &'s str, service: &'s str) -> &'s [(&'s Object, &'s EndpointSlice)] {
        self.slices.get(&(namespace, service)).map_or(&[], Vec::as_slice)
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<&'a SecretBody> {
        self.secrets.get(&(namespace, name)).copied()
    }
}
