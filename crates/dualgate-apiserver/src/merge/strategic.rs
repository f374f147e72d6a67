//! Strategic merge patches: JSON merge patches that know which lists are maps or sets, with a few directives whose names
//! begin with `$`. `kubectl apply` and `kubectl label` send them.

use serde_json::{Map, Value};

use super::shape::{Shape, Strategic};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_SET: &str = "$deleteFromPrimitiveList/";

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StrategicError {
    #[error("a strategic merge patch is a map, and so is what it patches")]
    NoMap,
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoKey { item: String, key: String },
    #[error("invalid value for `$patch`: {0}")]
    UnknownDirective(String),
}

/// What `target` is after `patch`.
pub(crate) fn patch(target: Value, patch: Value, shape: &Shape) -> Result<Value, StrategicError> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => Ok(Value::Object(patch_map(target, patch, shape)?)),
        _ => Err(StrategicError::NoMap),
    }
}

type Fields = Map<String, Value>;

fn patch_map(mut target: Fields, mut patch: Fields, shape: &Shape) -> Result<Fields, StrategicError> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(word)) if word == "merge" => {}
        Some(Value::String(word)) if word == "replace" => return Ok(patch),
        Some(Value::String(word)) if word == "delete" => return Ok(Fields::new()),
        Some(other) => return Err(StrategicError::UnknownDirective(other.to_string())),
    }
    if let Some(Value::Array(retained)) = patch.remove(RETAIN_KEYS) {
        target.retain(|name, _| retained.iter().any(|of| of == name));
    }
    for (name, items) in taken(&mut patch, DELETE_FROM_SET) {
        if let (Some(Value::Array(present)), Value::Array(items)) = (target.get_mut(&name), items) {
            present.retain(|item| !items.contains(item));
        }
    }
    let orders = taken(&mut patch, SET_ORDER);
    for (name, change) in patch {
        let before = target.remove(&name);
        if let Some(after) = patch_field(before, change, shape.field(&name))? {
            target.insert(name, after);
        }
    }
    for (name, order) in orders {
        if let (Some(Value::Array(items)), Value::Array(order)) = (target.get_mut(&name), order) {
            sort(items, &order, &shape.field(&name).strategic);
        }
    }
    Ok(target)
}

/// Takes out the fields of a directive, by the names behind it.
fn taken(patch: &mut Fields, directive: &str) -> Vec<(String, Value)> {
    let names: Vec<String> = patch.keys().filter(|name| name.starts_with(directive)).cloned().collect();
    let of = |name: String| Some((name[directive.len()..].to_owned(), patch.remove(&name)?));
    names.into_iter().filter_map(of).collect()
}

fn patch_field(before: Option<Value>, change: Value, shape: &Shape) -> Result<Option<Value>, StrategicError> {
    Ok(match change {
        Value::Null => None,
        Value::Object(change) => {
            let is_deletion = change.get(PATCH).is_some_and(|word| word == "delete");
            let before = match before {
                Some(Value::Object(fields)) => fields,
                _ => Fields::new(),
            };
            let after = patch_map(before, change, shape)?;
            (!is_deletion).then_some(Value::Object(after))
        }
        Value::Array(changes) => {
            let before = match before {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            Some(Value::Array(match &shape.strategic {
                Strategic::Replace => changes,
                Strategic::Set => with_all(before, changes),
                Strategic::By(key) => patch_items(before, changes, key, shape)?,
            }))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(change),
    })
}

fn with_all(mut set: Vec<Value>, more: Vec<Value>) -> Vec<Value> {
    for item in more {
        if !set.contains(&item) {
            set.push(item);
        }
    }
    set
}

fn patch_items(
    mut items: Vec<Value>,
    changes: Vec<Value>,
    key: &str,
    shape: &Shape,
) -> Result<Vec<Value>, StrategicError> {
    let is_replacement = |change: &Value| change.get(PATCH).is_some_and(|word| word == "replace");
    if changes.iter().any(is_replacement) {
        return Ok(changes.into_iter().filter(|change| !is_replacement(change)).collect());
    }
    for change in changes {
        let Value::Object(change) = change else { return Err(StrategicError::NoMap) };
        let Some(value) = change.get(key).cloned() else {
            return Err(StrategicError::NoKey { item: Value::Object(change).to_string(), key: key.to_owned() });
        };
        let is_it = |item: &Value| item.get(key) == Some(&value);
        if change.get(PATCH).is_some_and(|word| word == "delete") {
            items.retain(|item| !is_it(item));
            continue;
        }
        match items.iter_mut().find(|item| is_it(item)) {
            Some(item) => {
                let Value::Object(before) = item.take() else { return Err(StrategicError::NoMap) };
                *item = Value::Object(patch_map(before, change, shape)?);
            }
            None => items.push(Value::Object(patch_map(Fields::new(), change, shape)?)),
        }
    }
    Ok(items)
}

/// Brings items into the order that a patch names. Those that it does not know stay in front of the one they preceded.
fn sort(items: &mut Vec<Value>, order: &[Value], strategic: &Strategic) {
    let place = |item: &Value| match strategic {
        Strategic::By(key) => order.iter().position(|of| of.get(key) == item.get(key)),
        Strategic::Set | Strategic::Replace => order.iter().position(|of| of == item),
    };
    let (mut known, unknown): (Vec<_>, Vec<_>) =
        items.drain(..).enumerate().partition(|(_, item): &(usize, Value)| place(item).is_some());
    known.sort_by_key(|(_, item)| place(item));
    let (mut known, mut unknown) = (known.into_iter().peekable(), unknown.into_iter().peekable());
    loop {
        let next = match (known.peek(), unknown.peek()) {
            (Some((at, _)), Some((other, _))) if other < at => unknown.next(),
            (Some(_), _) => known.next(),
            (None, _) => unknown.next(),
        };
        let Some((_, item)) = next else { return };
        items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kinds;
    use crate::merge::shape;

    #[track_caller]
    fn check(kind: &str, target: Value, change: Value, expected: Value) {
        let shape = shape::of(&Kinds::new().by_word(kind).unwrap());
        assert_eq!(patch(target, change.clone(), shape), Ok(expected), "{change}");
    }

    #[test]
    fn ports_of_a_service_are_told_apart_by_number() {
        check(
            "Service",
            json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}, {"port": 9}]}}),
            json!({"spec": {
                "$setElementOrder/ports": [{"port": 443}, {"port": 80}, {"port": 1}],
                "ports": [{"port": 80, "name": "http"}, {"port": 9, "$patch": "delete"}, {"port": 1}],
            }}),
            json!({"spec": {"ports": [{"port": 443}, {"port": 80, "nodePort": 30080, "name": "http"}, {"port": 1}]}}),
        );
    }

    #[test]
    fn what_another_added_stays_where_it_was() {
        check(
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "side"}, {"name": "a"}, {"name": "b"}]}}}}),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "x"}],
            }}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "side"}, {"name": "b"}, {"name": "a", "image": "x"}]}}}}),
        );
    }

    #[test]
    fn a_strategy_keeps_only_the_keys_that_are_named() {
        check(
            "Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
    }

    #[test]
    fn sets_grow_and_shrink_and_other_lists_are_replaced() {
        check(
            "Ingress",
            json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"rules": [{"host": "x"}], "tls": [{"secretName": "x"}]}}),
            json!({
                "metadata": {"finalizers": ["c", "b"], "$deleteFromPrimitiveList/finalizers": ["a"]},
                "spec": {"rules": [{"host": "y"}], "tls": null},
            }),
            json!({"metadata": {"finalizers": ["b", "c"]}, "spec": {"rules": [{"host": "y"}]}}),
        );
    }

    #[test]
    fn a_map_can_be_replaced_or_deleted() {
        check(
            "Service",
            json!({"metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        );
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let shape = shape::of(&Kinds::new().by_word("Service").unwrap());
        let refused = patch(json!({"spec": {}}), json!({"spec": {"ports": [{"name": "http"}]}}), shape);
        assert_eq!(refused, Err(StrategicError::NoKey { item: "{\"name\":\"http\"}".into(), key: "port".into() }));
    }
}
