//! Direct access to the objects, for tests and labs. Each write gives a version and tells the watches, as a request does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, Caller, Deleted, Effect, ListOptions, OnConflict, Part, Patch, Preconditions, Target, Written};
use crate::failure::Failure;
use crate::http::now;
use crate::kinds::Kind;
use crate::shared::Shared;
use crate::store::Entry;

/// The objects of a server. What is written this way has the field manager `objects`, unless another is named.
#[derive(Clone)]
pub struct Objects {
    shared: Arc<Shared>,
    manager: String,
}

impl Objects {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, manager: "objects".to_owned() }
    }

    /// The same objects, written by somebody else: `kubelet`.
    pub fn as_manager(&self, name: &str) -> Self {
        Self { shared: self.shared.clone(), manager: name.to_owned() }
    }

    /// Server-side apply by force: the object becomes what is said here, as far as it is said. Gives what is there then.
    ///
    /// An object that says no namespace is of `default`.
    pub fn apply(&self, object: Value) -> Result<Value, Failure> {
        self.write(object, Part::Main, |api, target, object, caller| {
            api.patch(target, Patch::Apply(object, OnConflict::TakeOver), caller)
        })
    }

    /// Several, in their order.
    pub fn apply_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<Vec<Value>, Failure> {
        objects.into_iter().map(|object| self.apply(object)).collect()
    }

    /// Creates what must not be there yet.
    pub fn create(&self, object: Value) -> Result<Value, Failure> {
        self.write(object, Part::Main, |api, target, object, caller| {
            api.create(&Target { name: String::new(), ..target.clone() }, object, caller)
        })
    }

    /// Puts an object in the place of another. One that says its `resourceVersion` must say the current one.
    pub fn replace(&self, object: Value) -> Result<Value, Failure> {
        self.write(object, Part::Main, |api, target, object, caller| api.replace(target, object, caller))
    }

    /// A JSON merge patch of everything but the status.
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Result<Value, Failure> {
        self.merge(kind, namespace, name, Part::Main, patch)
    }

    /// A JSON merge patch of the status: `json!({"loadBalancer": {…}})`.
    pub fn patch_status(&self, kind: &str, namespace: &str, name: &str, status: Value) -> Result<Value, Failure> {
        self.merge(kind, namespace, name, Part::Status, json!({"status": status}))
    }

    /// Deletes an object, and what a namespace has in it. It stays as long as it has finalizers.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        let caller = self.caller();
        self.shared.change(|api| {
            let target = target(api, kind, namespace, name)?;
            api.delete(&target, &Preconditions::default(), &caller).map(|deleted| match deleted {
                Deleted::Gone(_) | Deleted::Waiting(_) => {}
            })
        })
    }

    /// One object; `kind` is any of its names, `Ingress`, `ingresses` or `ing`. The namespace of what lies in none is empty.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.look(|api| found(api, kind, namespace, name))
    }

    /// All of a kind, or those of a namespace; none of a kind that is not known.
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> Vec<Value> {
        self.shared.look(|api| {
            let Ok(place) = target(api, kind, namespace.unwrap_or_default(), "") else { return Vec::new() };
            let listed = api.list(&place, &ListOptions::default());
            listed.map_or_else(|_| Vec::new(), |list| list.items.iter().map(|item| typed(&place.kind, item)).collect())
        })
    }

    /// The version of everything.
    pub fn version(&self) -> u64 {
        self.shared.look(|api| api.store.version())
    }

    /// Looks at one object after each change, until it finds what it looks for or the time is over.
    pub fn wait_for<T>(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        limit: Duration,
        mut look: impl FnMut(Option<&Value>) -> Option<T>,
    ) -> Option<T> {
        self.shared.wait_for(limit, |api| look(found(api, kind, namespace, name).as_ref()))
    }

    fn merge(&self, kind: &str, namespace: &str, name: &str, part: Part, patch: Value) -> Result<Value, Failure> {
        let caller = self.caller();
        self.shared.change(|api| {
            let target = Target { part, ..target(api, kind, namespace, name)? };
            let written = api.patch(&target, Patch::Merge(patch), &caller)?;
            Ok(typed(&target.kind, &written.entry))
        })
    }

    fn write(
        &self,
        object: Value,
        part: Part,
        write: impl FnOnce(&mut Api, &Target, Value, &Caller) -> Result<Written, Failure>,
    ) -> Result<Value, Failure> {
        let caller = self.caller();
        self.shared.change(|api| {
            let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (api_version, kind) = (word("/apiVersion"), word("/kind"));
            let kind =
                api.kinds.by_kind(&api_version, &kind).ok_or_else(|| unknown(&format!("{kind} of {api_version}")))?;
            let namespace = match word("/metadata/namespace") {
                _ if !kind.is_namespaced() => String::new(),
                given if given.is_empty() => "default".to_owned(),
                given => given,
            };
            let target = Target { kind, namespace, name: word("/metadata/name"), part };
            let written = write(api, &target, object, &caller)?;
            Ok(typed(&target.kind, &written.entry))
        })
    }

    fn caller(&self) -> Caller {
        Caller { manager: self.manager.clone(), now: now(), effect: Effect::Write }
    }
}

fn unknown(kind: &str) -> Failure {
    Failure::bad_request(format!("no matches for kind {kind:?}: apply its CustomResourceDefinition first"))
}

fn target(api: &Api, kind: &str, namespace: &str, name: &str) -> Result<Target, Failure> {
    let kind = api.kinds.by_word(kind).ok_or_else(|| unknown(kind))?;
    Ok(Target { kind, namespace: namespace.to_owned(), name: name.to_owned(), part: Part::Main })
}

fn found(api: &Api, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let target = target(api, kind, namespace, name).ok()?;
    api.find(&target).ok().map(|entry| typed(&target.kind, &entry))
}

fn typed(kind: &Kind, entry: &Entry) -> Value {
    let mut object = entry.value.clone();
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object
}
