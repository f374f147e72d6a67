//! The objects by what they are looked up by.

use std::sync::Arc;

use crate::model::changes::Change;
use crate::model::object::{Body, EndpointSlice, Ingress, IngressClass, ObjectSet, SecretBody, Service};
use crate::model::{Object, ObjectName};

/// The objects by what they are looked up by.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: Arc<ObjectSet>,
    /// Those of a Service, in the order of its name, then of theirs.
    slices: Vec<Arc<Object>>,
}

impl World {
    /// What is there now; `changes` lead from what was there before.
    pub fn update(&mut self, objects: Arc<ObjectSet>, changes: &[Change<'_, Object>]) {
        for slice in changes.iter().filter_map(|(old, _)| *old) {
            if let Some(Ok(at)) = by_service(slice).map(|place| self.spot(place)) {
                self.slices.remove(at);
            }
        }
        for slice in changes.iter().filter_map(|(_, new)| *new) {
            if let Some(Err(at)) = by_service(slice).map(|place| self.spot(place)) {
                self.slices.insert(at, slice.clone());
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
        let (Ok(first) | Err(first)) = self.spot((&service.namespace, &service.name, ""));
        let of_service = self.slices[first..].iter().map_while(|object| match &object.body {
            Body::EndpointSlice(slice) => Some((&**object, &**slice)),
            _ => None,
        });
        of_service
            .take_while(|(object, slice)| {
                object.key.name.namespace == service.namespace && slice.service.as_ref() == Some(&service.name)
            })
            .collect()
    }

    fn spot(&self, place: Place<'_>) -> Result<usize, usize> {
        self.slices.binary_search_by(|slice| by_service(slice).cmp(&Some(place)))
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<(&Arc<Object>, &SecretBody)> {
        let object = self.objects.get("Secret", namespace, name)?;
        match &object.body {
            Body::Secret(secret) => Some((object, &**secret)),
            _ => None,
        }
    }
}

/// Namespace, Service and name of a slice that belongs to one.
type Place<'o> = (&'o str, &'o str, &'o str);

fn by_service(object: &Object) -> Option<Place<'_>> {
    let Body::EndpointSlice(slice) = &object.body else { return None };
    Some((&object.key.name.namespace, slice.service.as_deref()?, &object.key.name.name))
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
