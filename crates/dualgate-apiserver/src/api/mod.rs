//! What requests mean: the semantics of a Kubernetes API without HTTP. It has no clock; whoever calls brings `now`.

mod crd;
mod create;
mod defaults;
mod delete;
mod list;
mod namespace;
mod patch;
mod service;
mod update;
mod validate;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::kinds::{Kind, Kinds};
use crate::random::Random;
use crate::store::{Entry, Key, Store};
use crate::time::Timestamp;

pub(crate) use delete::{Deleted, Preconditions};
pub(crate) use list::{List, ListOptions, MatchVersion, expired};
pub(crate) use patch::{OnConflict, Patch};

/// All objects, and the rules for them.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) kinds: Kinds,
    given: service::Given,
    random: Random,
}

/// One object, or the place where one is to be.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: Arc<Kind>,
    /// Empty for objects of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) part: Part,
}

/// Which part of an object a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The subresource `status`.
    Status,
}

/// Who writes, when, and whether it counts.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) manager: String,
    pub(crate) now: Timestamp,
    pub(crate) effect: Effect,
}

/// Whether a write is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Write,
    /// `dryRun=All`: everything but the write itself.
    DryRun,
}

/// What a write led to.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) entry: Arc<Entry>,
    pub(crate) how: How,
}

/// How an object came to be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Created,
    /// Or left as it was.
    Updated,
}

impl Target {
    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    pub(crate) fn not_found(&self) -> Failure {
        Failure::not_found(&self.kind, &self.name)
    }
}

impl Api {
    pub(crate) fn new(longest_history: usize, seed: u64) -> Self {
        Self {
            store: Store::new(longest_history),
            kinds: Kinds::new(),
            given: service::Given::default(),
            random: Random::new(seed),
        }
    }

    pub(crate) fn find(&self, target: &Target) -> Result<Arc<Entry>, Failure> {
        self.store.find(&target.kind.resource(), &target.key()).cloned().ok_or_else(|| target.not_found())
    }

    /// Writes what was decided, unless it is what is there already or nothing is to be written.
    fn commit(&mut self, target: &Target, value: Value, live: Option<&Arc<Entry>>, caller: &Caller) -> Arc<Entry> {
        if let Some(live) = live.filter(|live| live.value == value) {
            return live.clone();
        }
        if caller.effect == Effect::DryRun {
            let version = live.map_or(0, |live| live.version);
            let json = value.to_string().into();
            return Arc::new(Entry { value, json, version });
        }
        let entry = self.store.put(&target.kind.resource(), &target.key(), value);
        if target.kind.is("Service") {
            self.given.replace(&target.key(), live.map(|live| &live.value), Some(&entry.value));
        }
        if target.kind.is("CustomResourceDefinition") {
            self.kinds.define(&entry.value);
        }
        entry
    }
}

/// Takes `apiVersion` and `kind` off, which must be the ones of the path.
fn untyped(kind: &Kind, mut object: Value) -> Result<Value, Failure> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Failure::bad_request(format!("the body is no {}: it is no JSON object", kind.kind)));
    };
    let (api_version, of_kind) = (fields.remove("apiVersion"), fields.remove("kind"));
    let is_other = |given: &Option<Value>, expected: &str| given.as_ref().is_some_and(|given| given != expected);
    if is_other(&api_version, &kind.api_version()) || is_other(&of_kind, &kind.kind) {
        let word = |value: Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(Failure::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: the path is for {} of {}",
            word(of_kind),
            word(api_version),
            kind.kind,
            kind.kind,
            kind.api_version()
        )));
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    if !metadata.is_object() {
        return Err(Failure::bad_request(format!("the body is no {}: `metadata` is no JSON object", kind.kind)));
    }
    let maps =
        ["/metadata/labels", "/metadata/annotations", "/spec", "/spec/names", "/spec/template", "/status", "/data"];
    // Of a custom kind only the metadata are known.
    let known = if kind.custom { &maps[..2] } else { &maps[..] };
    for pointer in known {
        let is_map = |value: &Value| value.is_object() || value.is_null();
        if !object.pointer(pointer).is_none_or(is_map) {
            let field = pointer[1..].replace('/', ".");
            return Err(Failure::bad_request(format!("the body is no {}: `{field}` is no JSON object", kind.kind)));
        }
    }
    Ok(object)
}

/// A text of an object, empty if it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A list of an object, empty if it is not there.
pub(crate) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Removes fields that are null: an absent field and a null one are the same in every kind.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fields(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    object.as_object_mut().unwrap_or_else(|| unreachable!("it was made one"))
}
