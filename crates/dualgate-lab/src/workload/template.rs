//! What pods are made of, taken from the text of manifests.
//!
//! Core keeps of a workload only who it is, because its dump is shown and kept on disk, and a pod template may hold
//! passwords. The set that is made here stays in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dualgate_core::model::object::{Body, Object};
use dualgate_core::model::{ObjectSet, Text};
use dualgate_core::parse::object::dump;
use dualgate_core::parse::yaml;
use serde_json::Value;

use super::read::WorkloadKind;

/// How deep lists may stand in lists, as for core.
const MAX_LIST_DEPTH: usize = 4;

/// The same objects, with `spec` in the dumps of workloads.
///
/// `read` gives the text of a manifest by its path. As core keeps what a broken file once said, a workload that its file
/// does not show has the `spec` that it had in `previous`.
pub fn with_templates(set: &ObjectSet, read: impl Fn(&str) -> Option<String>, previous: &ObjectSet) -> ObjectSet {
    let is_workload = |object: &&Arc<Object>| WorkloadKind::of(object).is_some();
    let files: BTreeSet<Text> = set.objects.iter().filter(is_workload).filter_map(|object| file(object)).collect();
    let texts: BTreeMap<Text, Vec<Value>> =
        files.into_iter().filter_map(|file| Some((file.clone(), documents(&read(&file)?)))).collect();
    let complete = |object: &Arc<Object>| {
        if !is_workload(&object) {
            return object.clone();
        }
        let written = file(object).and_then(|file| texts.get(&file)?.iter().find(|document| is(document, object)));
        let before = || previous.objects.iter().find(|before| before.key == object.key).map(|before| dump(before));
        match written.cloned().or_else(before) {
            Some(document) => Arc::new(with_spec(object, &document)),
            None => object.clone(),
        }
    };
    ObjectSet { objects: set.objects.iter().map(complete).collect(), findings: set.findings.clone() }
}

fn file(object: &Object) -> Option<Text> {
    object.origin.as_ref().map(|origin| origin.file.clone())
}

/// The same for one object that an API gave: with its `spec`, and how often that has changed. Of a Service, all of it.
pub fn completed(object: Object, value: &Value) -> Object {
    if let Body::Service(_) = object.body {
        // The slices of its pods need more of it than a gate does.
        return Object { written: Some(value.to_string().into()), ..object };
    }
    if WorkloadKind::of(&object).is_none() {
        return object;
    }
    let mut object = with_spec(&object, value);
    let mut dump = dump(&object);
    dump["metadata"]["generation"] = value["metadata"]["generation"].clone();
    object.written = Some(dump.to_string().into());
    object
}

/// Every object of a text; those of lists are objects of their own.
pub fn documents(text: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    for document in yaml::documents(text).documents {
        flatten(document.to_json(), &mut objects, 0);
    }
    objects
}

fn flatten(document: Value, objects: &mut Vec<Value>, depth: usize) {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document {
        Value::Object(mut list) if is_list && depth < MAX_LIST_DEPTH => {
            let Some(Value::Array(items)) = list.remove("items") else { return };
            let item_kind = list["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default();
            for mut item in items {
                // What an API server lists has kind and version only on the list.
                if let Value::Object(item) = &mut item
                    && !item_kind.is_empty()
                    && !item.contains_key("kind")
                {
                    item.insert("kind".into(), item_kind.into());
                    item.insert("apiVersion".into(), list.get("apiVersion").cloned().unwrap_or_default());
                }
                flatten(item, objects, depth + 1);
            }
        }
        document => objects.push(document),
    }
}

fn is(document: &Value, object: &Object) -> bool {
    let dump = dump(object);
    ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"]
        .iter()
        .all(|path| document.pointer(path).and_then(Value::as_str) == dump.pointer(path).and_then(Value::as_str))
}

fn with_spec(object: &Object, document: &Value) -> Object {
    let mut object = object.clone();
    if let Some(spec) = document.get("spec") {
        let mut dump = dump(&object);
        dump["spec"] = spec.clone();
        object.written = Some(dump.to_string().into());
    }
    object
}
