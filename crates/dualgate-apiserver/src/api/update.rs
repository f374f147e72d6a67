//! Replacing objects, whole or their status alone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, Caller, Effect, How, Part, Target, Written, defaults, fields, text, untyped, without_nulls};
use crate::failure::{Cause, Failure};
use crate::managed;
use crate::store::Entry;

/// What the server alone writes.
const KEPT: [&str; 5] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl Api {
    /// Puts an object in place of the one that is there.
    pub(crate) fn replace(&mut self, target: &Target, object: Value, caller: &Caller) -> Result<Written, Failure> {
        let object = untyped(&target.kind, object)?;
        let live = match self.find(target) {
            Ok(live) => live,
            Err(_) if target.part == Part::Main && target.kind.update_may_create() => {
                return self.create(target, object, caller);
            }
            Err(failure) => return Err(failure),
        };
        if text(&object, "/metadata/resourceVersion").is_empty() && target.kind.updates_name_a_version() {
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(Failure::invalid(&target.kind, &target.name, &[cause]));
        }
        self.update(target, &live, object, caller)
    }

    /// Makes `live` what `object` says, as far as the target's part goes. The manager comes to own what it changed.
    pub(super) fn update(
        &mut self,
        target: &Target,
        live: &Arc<Entry>,
        object: Value,
        caller: &Caller,
    ) -> Result<Written, Failure> {
        let mut object = merged(target, live, object)?;
        managed::updated(target, &live.value, &mut object, caller);
        self.put(target, live, object, caller)
    }

    /// Completes an object that is merged, and writes it; if it only waited for its last finalizer, it is gone.
    pub(super) fn put(
        &mut self,
        target: &Target,
        live: &Arc<Entry>,
        mut object: Value,
        caller: &Caller,
    ) -> Result<Written, Failure> {
        self.complete(target, &mut object, Some(&live.value), caller)?;
        if target.kind.counts_generations() && is_changed(&object, &live.value) {
            let generation = live.value["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        let entry = self.commit(target, object, Some(live), caller);
        if caller.effect == Effect::Write && self.is_free_to_go(target, &entry.value) {
            self.remove(target, caller);
        }
        Ok(Written { entry, how: How::Updated })
    }
}

/// The object that is to be there, with its defaults, but without who manages what.
pub(super) fn merged(target: &Target, live: &Entry, mut object: Value) -> Result<Value, Failure> {
    identity(target, live, &object)?;
    without_nulls(&mut object);
    let metadata = fields(&mut object["metadata"]);
    for name in KEPT.into_iter().chain(["name", "namespace", "resourceVersion"]) {
        match live.value["metadata"].get(name) {
            Some(value) => metadata.insert(name.to_owned(), value.clone()),
            None => metadata.remove(name),
        };
    }
    match target.part {
        Part::Main => {
            keep(&mut object, &live.value, "status", target.kind.has_status());
        }
        Part::Status => {
            let status = object.get("status").cloned();
            let metadata = object["metadata"].take();
            object = live.value.clone();
            if !target.kind.custom {
                object["metadata"] = metadata;
            }
            match status {
                Some(status) => fields(&mut object).insert("status".into(), status),
                None => fields(&mut object).remove("status"),
            };
        }
    }
    defaults::fill(&target.kind, &mut object);
    Ok(object)
}

/// Whether the request is about this very object in this very version.
fn identity(target: &Target, live: &Entry, object: &Value) -> Result<(), Failure> {
    let (kind, name) = (&target.kind, &target.name);
    let given = text(object, "/metadata/name");
    if !given.is_empty() && given != name {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(Failure::bad_request(message));
    }
    let given = text(object, "/metadata/namespace");
    if kind.is_namespaced() && !given.is_empty() && given != target.namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    let (uid, live_uid) = (text(object, "/metadata/uid"), text(&live.value, "/metadata/uid"));
    if !uid.is_empty() && uid != live_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}");
        return Err(Failure::conflict(kind, name, &why));
    }
    let version = text(object, "/metadata/resourceVersion");
    if !version.is_empty() && version != "0" && version != live.version.to_string() {
        return Err(Failure::conflict(kind, name, MODIFIED));
    }
    Ok(())
}

/// Leaves a field as it is, if it is not this request's.
fn keep(object: &mut Value, live: &Value, name: &str, kept: bool) {
    if !kept {
        return;
    }
    match live.get(name) {
        Some(value) => fields(object).insert(name.to_owned(), value.clone()),
        None => fields(object).remove(name),
    };
}

/// Whether something changed that `generation` counts: anything but metadata and status, or that it is to go.
fn is_changed(object: &Value, live: &Value) -> bool {
    let desired = |object: &Value| {
        let mut object = object.clone();
        let fields = fields(&mut object);
        fields.remove("metadata");
        fields.remove("status");
        object
    };
    desired(object) != desired(live)
}
