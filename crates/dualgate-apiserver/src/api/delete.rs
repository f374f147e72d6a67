//! Deleting objects: at once, or when their finalizers are gone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, Caller, Effect, Part, Target, items, text};
use crate::failure::Failure;
use crate::selector::Selector;
use crate::store::Entry;

/// What must still be true of an object that is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// It is gone; this was the last.
    Gone(Arc<Entry>),
    /// It is marked, and waits for its finalizers.
    Waiting(Arc<Entry>),
}

impl Api {
    pub(crate) fn delete(
        &mut self,
        target: &Target,
        preconditions: &Preconditions,
        caller: &Caller,
    ) -> Result<Deleted, Failure> {
        let live = self.find(target)?;
        preconditions.hold(target, &live)?;
        if caller.effect == Effect::DryRun {
            return Ok(Deleted::Gone(live));
        }
        let mut object = live.value.clone();
        if text(&object, "/metadata/deletionTimestamp").is_empty() {
            object["metadata"]["deletionTimestamp"] = json!(caller.now.to_string());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            if target.kind.counts_generations() {
                object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_u64().unwrap_or(1) + 1);
            }
        }
        if target.kind.is("Namespace") {
            return Ok(self.delete_namespace(target, &live, object, caller));
        }
        if !items(&object, "/metadata/finalizers").is_empty() {
            return Ok(Deleted::Waiting(self.commit(target, object, Some(&live), caller)));
        }
        Ok(Deleted::Gone(self.remove(target, caller).unwrap_or(live)))
    }

    /// Deletes all that match; gives what each was at last.
    pub(crate) fn delete_all(
        &mut self,
        place: &Target,
        selector: &Selector,
        caller: &Caller,
    ) -> Result<Vec<Arc<Entry>>, Failure> {
        let namespace = place.kind.is_namespaced().then_some(place.namespace.as_str()).filter(|name| !name.is_empty());
        let resource = place.kind.resource();
        let all = self.store.all(&resource, namespace);
        let matching = all.filter(|(_, entry)| selector.matches(&entry.value));
        let targets: Vec<Target> = matching
            .map(|(key, _)| Target { namespace: key.0.clone(), name: key.1.clone(), part: Part::Main, ..place.clone() })
            .collect();
        let delete = |target: &Target| match self.delete(target, &Preconditions::default(), caller)? {
            Deleted::Gone(entry) | Deleted::Waiting(entry) => Ok(entry),
        };
        targets.iter().map(delete).collect()
    }

    /// Whether an object that is being deleted has nothing left to wait for.
    pub(super) fn is_free_to_go(&self, target: &Target, object: &Value) -> bool {
        let is_marked = !text(object, "/metadata/deletionTimestamp").is_empty();
        let waits = !items(object, "/metadata/finalizers").is_empty();
        let is_empty = !target.kind.is("Namespace") || self.store.resources_in(&target.name).is_empty();
        is_marked && !waits && is_empty
    }

    /// Takes it away, and what depends on it.
    pub(super) fn remove(&mut self, target: &Target, caller: &Caller) -> Option<Arc<Entry>> {
        let removed = self.store.remove(&target.kind.resource(), &target.key())?;
        if target.kind.is("Service") {
            self.given.replace(&target.key(), Some(&removed.value), None);
        }
        if target.kind.is("CustomResourceDefinition") {
            self.undefine(&removed.value);
        }
        if target.kind.is_namespaced() {
            self.end_namespace(&target.namespace, caller);
        }
        Some(removed)
    }
}

impl Preconditions {
    /// As `DeleteOptions` has them.
    pub(crate) fn from_options(options: &Value) -> Self {
        let word = |name: &str| options["preconditions"][name].as_str().map(str::to_owned);
        Self { uid: word("uid"), resource_version: word("resourceVersion") }
    }

    fn hold(&self, target: &Target, live: &Entry) -> Result<(), Failure> {
        let uid = text(&live.value, "/metadata/uid");
        if let Some(given) = self.uid.as_deref().filter(|given| *given != uid) {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
            return Err(Failure::conflict(&target.kind, &target.name, &why));
        }
        let version = live.version.to_string();
        if let Some(given) = self.resource_version.as_deref().filter(|given| *given != version) {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {given}, ResourceVersion in object meta: {version}"
            );
            return Err(Failure::conflict(&target.kind, &target.name, &why));
        }
        Ok(())
    }
}
