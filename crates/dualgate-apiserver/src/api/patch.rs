//! Patches: part of an object, in one of four languages.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, Caller, Part, Target, Written, defaults, fields, text, untyped, update, without_nulls};
use crate::failure::{Cause, Failure};
use crate::managed::{self, Contested};
use crate::merge::{json_merge, json_patch, shape, strategic};
use crate::store::Entry;

/// A change in words.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' own: lists are merged by keys.
    Strategic(Value),
    /// Server-side apply: everything that this manager wants.
    Apply(Value, OnConflict),
}

/// What an apply does about fields of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnConflict {
    Refuse,
    TakeOver,
}

impl Api {
    pub(crate) fn patch(&mut self, target: &Target, patch: Patch, caller: &Caller) -> Result<Written, Failure> {
        let patch = match patch {
            Patch::Apply(wanted, on_conflict) => return self.apply(target, wanted, on_conflict, caller),
            Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_) => patch,
        };
        let live = self.find(target)?;
        let mut object = live.value.clone();
        object["apiVersion"] = json!(target.kind.api_version());
        object["kind"] = json!(target.kind.kind);
        let patched = match patch {
            Patch::Json(operations) => json_patch::patch(object, &operations).map_err(|why| {
                let cause = Cause::invalid("patch", &operations, &why.to_string());
                Failure::invalid(&target.kind, &target.name, &[cause])
            })?,
            Patch::Merge(patch) | Patch::Apply(patch, _) => json_merge::patch(object, patch),
            Patch::Strategic(_) if target.kind.custom => {
                let supported =
                    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
                return Err(Failure::unsupported_media_type("application/strategic-merge-patch+json", &supported));
            }
            Patch::Strategic(patch) => strategic::patch(object, patch, shape::of(&target.kind))
                .map_err(|why| Failure::bad_request(why.to_string()))?,
        };
        let object = untyped(&target.kind, patched)?;
        self.update(target, &live, object, caller)
    }

    fn apply(
        &mut self,
        target: &Target,
        wanted: Value,
        on_conflict: OnConflict,
        caller: &Caller,
    ) -> Result<Written, Failure> {
        let given = text(&wanted, "/metadata/name");
        if !given.is_empty() && given != target.name {
            let message = format!("metadata.name of the patch ({given}) is not the name on the URL ({})", target.name);
            return Err(Failure::bad_request(message));
        }
        if wanted.pointer("/metadata/managedFields").is_some_and(|fields| fields != &json!([])) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        if text(&wanted, "/apiVersion").is_empty() || text(&wanted, "/kind").is_empty() {
            return Err(Failure::bad_request("an apply patch must say its `apiVersion` and `kind`"));
        }
        let mut wanted = untyped(&target.kind, wanted)?;
        without_nulls(&mut wanted);
        if let Some(secret) = wanted.as_object_mut().filter(|_| target.kind.is("Secret")) {
            defaults::encode(secret);
        }
        match self.find(target) {
            Ok(live) => self.apply_to(target, &live, wanted, on_conflict, caller),
            Err(failure) if target.part == Part::Status => Err(failure),
            Err(_) => {
                let metadata = fields(&mut wanted["metadata"]);
                metadata.insert("name".into(), json!(target.name));
                if target.kind.is_namespaced() {
                    metadata.insert("namespace".into(), json!(target.namespace));
                }
                let mut object = self.prepared(target, wanted.clone(), caller)?;
                managed::applied_at_creation(target, &wanted, &mut object, caller);
                self.insert(target, object, caller)
            }
        }
    }

    fn apply_to(
        &mut self,
        target: &Target,
        live: &Arc<Entry>,
        wanted: Value,
        on_conflict: OnConflict,
        caller: &Caller,
    ) -> Result<Written, Failure> {
        let version = text(&wanted, "/metadata/resourceVersion").to_owned();
        let applied = managed::apply(target, &live.value, wanted, on_conflict, caller);
        let (mut merged, fields) = applied.map_err(|Contested(causes)| Failure::contested(&causes))?;
        merged["metadata"]["resourceVersion"] = json!(version);
        let mut object = update::merged(target, live, merged)?;
        managed::write(&mut object, &live.value, fields);
        self.put(target, live, object, caller)
    }
}
