//! Creating objects.

use serde_json::{Value, json};

use super::{Api, Caller, How, Target, Written, defaults, fields, text, untyped, validate, without_nulls};
use crate::failure::Failure;
use crate::managed;

impl Api {
    /// Creates an object below a target whose name is empty: the object brings it, or wants one to be generated.
    pub(crate) fn create(&mut self, place: &Target, object: Value, caller: &Caller) -> Result<Written, Failure> {
        let mut object = untyped(&place.kind, object)?;
        let target = self.named(place, &mut object)?;
        let mut object = self.prepared(&target, object, caller)?;
        managed::created(&target, &mut object, caller);
        self.insert(&target, object, caller)
    }

    /// The object with its defaults, but without who manages what, and without what only this cluster can add.
    pub(super) fn prepared(&mut self, target: &Target, mut object: Value, caller: &Caller) -> Result<Value, Failure> {
        let kind = &target.kind;
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.namespace_must_take(target)?;
        if self.find(target).is_ok() {
            return Err(Failure::already_exists(kind, &target.name));
        }
        without_nulls(&mut object);
        if kind.has_status() && !kind.is("Node") && !kind.is("PersistentVolume") {
            fields(&mut object).remove("status");
        }
        let uid = self.random.uid();
        let metadata = fields(&mut object["metadata"]);
        for given_by_the_server in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
            metadata.remove(given_by_the_server);
        }
        metadata.insert("uid".into(), json!(uid));
        metadata.insert("creationTimestamp".into(), json!(caller.now.to_string()));
        if kind.counts_generations() {
            metadata.insert("generation".into(), json!(1));
        }
        defaults::fill(kind, &mut object);
        Ok(object)
    }

    /// Adds what nobody is said to manage, and refuses what is wrong; `live` is what is there now.
    pub(super) fn complete(
        &mut self,
        target: &Target,
        object: &mut Value,
        live: Option<&Value>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        if live.is_none() {
            self.admit(target, object, caller);
        }
        let mut causes = validate::object(target, object, live);
        if target.kind.is("Service") && causes.is_empty() {
            causes = self.allocate(target, object, live);
        }
        if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(&target.kind, &target.name, &causes)) }
    }

    /// Completes an object that is prepared, and puts it there.
    pub(super) fn insert(&mut self, target: &Target, mut object: Value, caller: &Caller) -> Result<Written, Failure> {
        self.complete(target, &mut object, None, caller)?;
        let entry = self.commit(target, object, None, caller);
        Ok(Written { entry, how: How::Created })
    }

    /// Namespace and name, as path and object agree on them.
    fn named(&mut self, place: &Target, object: &mut Value) -> Result<Target, Failure> {
        let kind = &place.kind;
        let metadata = fields(&mut object["metadata"]);
        if kind.is_namespaced() {
            let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
            if !given.is_empty() && given != place.namespace {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            metadata.insert("namespace".into(), json!(place.namespace));
        } else {
            metadata.remove("namespace");
        }
        let mut name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty()
            && let Some(prefix) = metadata.get("generateName").and_then(Value::as_str).filter(|text| !text.is_empty())
        {
            name = format!("{prefix}{}", self.random.suffix());
        }
        if !place.name.is_empty() && !name.is_empty() && name != place.name {
            let message =
                format!("the name of the object ({name}) does not match the name on the URL ({})", place.name);
            return Err(Failure::bad_request(message));
        }
        if name.is_empty() {
            name.clone_from(&place.name);
        }
        if !name.is_empty() {
            metadata.insert("name".into(), json!(name));
        }
        Ok(Target { name, ..place.clone() })
    }

    /// What admission adds to an object that is created.
    fn admit(&self, target: &Target, object: &mut Value, caller: &Caller) {
        if target.kind.is("Ingress") {
            self.default_class(object);
        }
        if target.kind.is("CustomResourceDefinition") {
            super::crd::establish(object, caller.now);
        }
    }

    /// The newest of the default IngressClasses, for an Ingress that names none.
    fn default_class(&self, ingress: &mut Value) {
        let annotation = "/metadata/annotations/kubernetes.io~1ingress.class";
        if !text(ingress, "/spec/ingressClassName").is_empty() || ingress.pointer(annotation).is_some() {
            return;
        }
        let is_default = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";
        let classes = self.store.all("ingressclasses.networking.k8s.io", None);
        let defaults = classes.filter(|(_, class)| text(&class.value, is_default) == "true");
        let newest = defaults.max_by_key(|(key, class)| {
            (text(&class.value, "/metadata/creationTimestamp"), std::cmp::Reverse(key.1.as_str()))
        });
        if let Some((key, _)) = newest {
            ingress["spec"]["ingressClassName"] = json!(key.1);
        }
    }
}
