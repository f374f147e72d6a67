//! The objects by what they are looked up by.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::changes::Change;
use crate::model::object::{Body, EndpointSlice, Ingress, IngressClass, ObjectSet, SecretBody, Service};
use crate::model::{Object, ObjectName};

/// The objects by what they are looked up by.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: Arc<ObjectSet>,
    /// By the Service that they belong to, in the order of their names.
    slices: BTreeMap<ObjectName, Vec<Arc<Object>>>,
}

impl World {
    /// What is there now; `changes` lead from what was there before.
    pub fn update(&mut self, objects: Arc<ObjectSet>, changes: &[Change<'_, Object>]) {
        for (old, new) in changes {
            if let Some((object, service)) = old.and_then(|object| Some((object, service_of(object)?)))
                && let Some(slices) = self.slices.get_mut(&service)
            {
                slices.retain(|slice| !Arc::ptr_eq(slice, object));
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            if let Some((object, service)) = new.and_then(|object| Some((object, service_of(object)?))) {
                let slices = self.slices.entry(service).or_default();
                let at = slices.partition_point(|slice| slice.key < object.key);
                slices.insert(at, object.clone());
                slices.shrink_to_fit();
            }
        }
        self.objects = objects;
    }

    pub fn objects(&self) -> &Arc<ObjectSet> {
        &self.objects
    }

    /// In the order of their names.
    pub fn ingresses(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.of_kind("Ingress").iter()
    }

    /// In the order of their names.
    pub fn ingresses_of(&self, namespace: &str) -> &[Arc<Object>] {
        self.objects.of_namespace("Ingress", namespace)
    }

    pub fn ingress(&self, name: &ObjectName) -> Option<&Arc<Object>> {
        self.objects.get("Ingress", &name.namespace, &name.name)
    }

    /// In the order of their names.
    pub fn classes(&self) -> impl Iterator<Item = (&Object, &IngressClass)> {
        self.objects.of_kind("IngressClass").iter().filter_map(|object| match &object.body {
            Body::IngressClass(class) => Some((&**object, &**class)),
            _ => None,
        })
    }

    pub fn class(&self, name: &str) -> Option<&IngressClass> {
        match &self.objects.get("IngressClass", "", name)?.body {
            Body::IngressClass(class) => Some(class),
            _ => None,
        }
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<(&Object, &Service)> {
        let object = self.objects.get("Service", namespace, name)?;
        match &object.body {
            Body::Service(service) => Some((&**object, &**service)),
            _ => None,
        }
    }

    /// The names of the Services of a namespace, for suggestions.
    pub fn services_of(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.objects.of_namespace("Service", namespace).iter().map(|object| &*object.key.name.name)
    }

    pub fn slices(&self, service: &ObjectName) -> Vec<(&Object, &EndpointSlice)> {
        let slices = self.slices.get(service).into_iter().flatten();
        slices
            .filter_map(|object| match &object.body {
                Body::EndpointSlice(slice) => Some((&**object, &**slice)),
                _ => None,
            })
            .collect()
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<(&Arc<Object>, &SecretBody)> {
        let object = self.objects.get("Secret", namespace, name)?;
        match &object.body {
            Body::Secret(secret) => Some((object, &**secret)),
            _ => None,
        }
    }
}

/// The Service that a slice belongs to.
pub(super) fn service_of(object: &Object) -> Option<ObjectName> {
    let Body::EndpointSlice(slice) = &object.body else { return None };
    Some(ObjectName::new(object.key.name.namespace.clone(), slice.service.as_deref()?))
}

/// What an Ingress says.
pub(super) fn ingress_of(object: &Object) -> Option<&Ingress> {
    match &object.body {
        Body::Ingress(ingress) => Some(ingress),
        _ => None,
    }
}
