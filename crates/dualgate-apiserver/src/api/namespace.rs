//! Namespaces: they take objects while they live, and take them along when they go.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, Caller, Deleted, Part, Preconditions, Target, items, text};
use crate::failure::Failure;
use crate::store::{Entry, Key};

const RESOURCE: &str = "namespaces";

impl Api {
    /// Whether something may be created there.
    pub(super) fn namespace_must_take(&self, target: &Target) -> Result<(), Failure> {
        if !target.kind.is_namespaced() {
            return Ok(());
        }
        let namespace = self.namespace(&target.namespace);
        let Some(live) = self.store.find(RESOURCE, &namespace.key()) else {
            return Err(namespace.not_found());
        };
        if text(&live.value, "/metadata/deletionTimestamp").is_empty() {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", target.namespace);
        Err(Failure::forbidden(&target.kind, &target.name, &why))
    }

    /// Deletes what is in it first. What waits for finalizers holds it up.
    pub(super) fn delete_namespace(
        &mut self,
        target: &Target,
        live: &Arc<Entry>,
        mut marked: Value,
        caller: &Caller,
    ) -> Deleted {
        marked["status"]["phase"] = json!("Terminating");
        let mut waiting = self.commit(target, marked, Some(live), caller);
        for resource in self.store.resources_in(&target.name) {
            let Some(kind) = self.kinds.iter().find(|kind| kind.resource() == *resource).cloned() else { continue };
            let keys: Vec<Key> = self.store.all(&resource, Some(&target.name)).map(|(key, _)| key.clone()).collect();
            for (namespace, name) in keys {
                let inside = Target { kind: kind.clone(), namespace, name, part: Part::Main };
                // It was there a moment ago, and nothing is asked of it: nothing can be wrong.
                let _ = self.delete(&inside, &Preconditions::default(), caller);
            }
        }
        self.end_namespace(&target.name, caller);
        match self.store.find(RESOURCE, &target.key()) {
            Some(still_there) => {
                waiting.clone_from(still_there);
                Deleted::Waiting(waiting)
            }
            None => Deleted::Gone(waiting),
        }
    }

    /// Takes a namespace away that is marked, empty, and waits for nothing.
    pub(super) fn end_namespace(&mut self, name: &str, caller: &Caller) {
        let target = self.namespace(name);
        let Some(live) = self.store.find(RESOURCE, &target.key()) else { return };
        let waits = !items(&live.value, "/metadata/finalizers").is_empty();
        if !waits && self.is_free_to_go(&target, &live.value.clone()) {
            self.remove(&target, caller);
        }
    }

    fn namespace(&self, name: &str) -> Target {
        let kind = self.kinds.by_path("", "v1", RESOURCE);
        let kind = kind.unwrap_or_else(|| unreachable!("the table of kinds has namespaces"));
        Target { kind, namespace: String::new(), name: name.to_owned(), part: Part::Main }
    }
}
