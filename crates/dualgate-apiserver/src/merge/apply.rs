//! The values behind server-side apply: which fields a value has, what differs between two, what both make together, and
//! what is left without some. The rules are those of `sigs.k8s.io/structured-merge-diff`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Element, Fields};
use super::shape::{Applied, Shape};

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: Fields,
    pub(crate) modified: Fields,
    pub(crate) removed: Fields,
}

/// The fields of an object: its leaves, and the items of lists that are maps or sets.
pub(crate) fn fields_of(value: &Value, shape: &Shape) -> Fields {
    let mut fields = Fields::default();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let (element, shape) = (Element::Field(name.clone()), shape.field(name));
                if is_leaf(member, shape) {
                    fields.insert(element);
                } else {
                    fields.insert_below(element, fields_of(member, shape));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let element = element_of(item, shape);
                if item.is_object() {
                    fields.insert_below(element.clone(), fields_of(item, shape));
                }
                fields.insert(element);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    fields
}

/// Whether a value is owned as a whole.
fn is_leaf(value: &Value, shape: &Shape) -> bool {
    match value {
        Value::Object(members) => shape.apply == Applied::Atomic || members.is_empty(),
        Value::Array(items) => !matches!(shape.apply, Applied::Set | Applied::By(_)) || items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn element_of(item: &Value, shape: &Shape) -> Element {
    let Applied::By(keys) = &shape.apply else { return Element::Value(item.to_string()) };
    let key = |(name, default): &(String, Option<String>)| {
        let value = item.get(name).cloned().or_else(|| default.clone().map(Value::String));
        Some((name.clone(), value?))
    };
    let keys: BTreeMap<String, Value> = keys.iter().filter_map(key).collect();
    Element::Key(Value::Object(keys.into_iter().collect::<Map<_, _>>()).to_string())
}

/// What is different in `after`. A container that comes or goes counts itself, too.
pub(crate) fn compare(before: &Value, after: &Value, shape: &Shape) -> Comparison {
    let mut comparison = Comparison::default();
    let (old, new) = (children(before, shape), children(after, shape));
    for (element, value) in &new {
        let shape = below(shape, element);
        match old.get(element) {
            None => {
                comparison.added.insert(element.clone());
                comparison.added.insert_below(element.clone(), all_of(value, shape));
            }
            Some(former) => comparison.differ(element, former, value, shape),
        }
    }
    for (element, value) in old.iter().filter(|(element, _)| !new.contains_key(element)) {
        comparison.removed.insert(element.clone());
        comparison.removed.insert_below(element.clone(), all_of(value, below(shape, element)));
    }
    comparison
}

impl Comparison {
    fn differ(&mut self, element: &Element, before: &Value, after: &Value, shape: &Shape) {
        if before == after {
            return;
        }
        let is_item = !matches!(element, Element::Field(_));
        let is_whole = |value: &Value| if is_item { !value.is_object() } else { is_leaf(value, shape) };
        let is_same_sort = before.is_object() == after.is_object() && before.is_array() == after.is_array();
        if !is_same_sort || (is_whole(before) && is_whole(after)) {
            self.modified.insert(element.clone());
            return;
        }
        let within = compare(before, after, shape);
        self.added.insert_below(element.clone(), within.added);
        self.modified.insert_below(element.clone(), within.modified);
        self.removed.insert_below(element.clone(), within.removed);
    }
}

/// All fields below a value, containers included.
fn all_of(value: &Value, shape: &Shape) -> Fields {
    let mut fields = Fields::default();
    for (element, child) in children(value, shape) {
        fields.insert_below(element.clone(), all_of(child, below(shape, &element)));
        fields.insert(element);
    }
    fields
}

/// What a value is made of, one level down; nothing if it counts as a whole.
fn children<'a>(value: &'a Value, shape: &Shape) -> BTreeMap<Element, &'a Value> {
    match value {
        Value::Object(members) if shape.apply != Applied::Atomic => {
            members.iter().map(|(name, member)| (Element::Field(name.clone()), member)).collect()
        }
        Value::Array(items) if matches!(shape.apply, Applied::Set | Applied::By(_)) => {
            items.iter().map(|item| (element_of(item, shape), item)).collect()
        }
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            BTreeMap::new()
        }
    }
}

/// The shape one step further. Items share their list's, in which they are the map.
fn below<'a>(shape: &'a Shape, element: &Element) -> &'a Shape {
    match element {
        Element::Field(name) => shape.field(name),
        Element::Key(_) | Element::Value(_) => shape,
    }
}

/// `live` with everything that `wanted` says.
pub(crate) fn merge(live: &Value, wanted: &Value, shape: &Shape) -> Value {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) if shape.apply != Applied::Atomic => {
            let mut merged = live.clone();
            for (name, value) in wanted {
                let value = live.get(name).map_or_else(|| value.clone(), |live| merge(live, value, shape.field(name)));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(wanted)) if matches!(shape.apply, Applied::Set | Applied::By(_)) => {
            Value::Array(merge_items(live, wanted, shape))
        }
        _ => wanted.clone(),
    }
}

/// In the order of `wanted`; what only `live` has stays where it was among its neighbours.
fn merge_items(live: &[Value], wanted: &[Value], shape: &Shape) -> Vec<Value> {
    let by_element: BTreeMap<Element, &Value> = live.iter().map(|item| (element_of(item, shape), item)).collect();
    let wanted: Vec<(Element, &Value)> = wanted.iter().map(|item| (element_of(item, shape), item)).collect();
    let is_wanted = |element: &Element| wanted.iter().any(|(of, _)| of == element);
    let combined = |(element, item): &(Element, &Value)| match by_element.get(element) {
        Some(live) if live.is_object() => merge_item(live, item, shape),
        _ => (*item).clone(),
    };
    let (mut merged, mut next) = (Vec::new(), 0);
    for item in live {
        let element = element_of(item, shape);
        if !is_wanted(&element) {
            merged.push(item.clone());
        } else if let Some(at) = wanted.iter().position(|(of, _)| *of == element).filter(|at| *at >= next) {
            merged.extend(wanted[next..=at].iter().map(combined));
            next = at + 1;
        }
    }
    merged.extend(wanted[next..].iter().map(combined));
    merged
}

fn merge_item(live: &Value, wanted: &Value, shape: &Shape) -> Value {
    let (Value::Object(live), Value::Object(wanted)) = (live, wanted) else { return wanted.clone() };
    let mut merged = live.clone();
    for (name, value) in wanted {
        let value = live.get(name).map_or_else(|| value.clone(), |live| merge(live, value, shape.field(name)));
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// A value without these fields.
pub(crate) fn without(value: &Value, fields: &Fields, shape: &Shape) -> Value {
    match value {
        Value::Object(members) => {
            let left = members.iter().filter(|(name, _)| !fields.contains(&Element::Field((*name).clone())));
            let cut = |(name, member): (&String, &Value)| {
                let below = fields.below(&Element::Field(name.clone()));
                let member = below.map_or_else(|| member.clone(), |below| without(member, below, shape.field(name)));
                (name.clone(), member)
            };
            Value::Object(left.map(cut).collect())
        }
        Value::Array(items) if matches!(shape.apply, Applied::Set | Applied::By(_)) => {
            let left = items.iter().map(|item| (element_of(item, shape), item));
            let left = left.filter(|(element, _)| !fields.contains(element));
            let cut = |(element, item): (Element, &Value)| match fields.below(&element) {
                Some(below) => without(item, below, shape),
                None => item.clone(),
            };
            Value::Array(left.map(cut).collect())
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What an apply leaves of `merged`: without what the manager applied before, does not want any more, and nobody else owns.
pub(crate) fn prune(merged: &Value, last: &Fields, owned: &Fields, shape: &Shape) -> Value {
    if last.is_empty() {
        return merged.clone();
    }
    let all = fields_of(merged, shape).with_named();
    let pruned = without(merged, &last.with_named(), shape);
    // What is owned stays, with what it needs to lie in.
    let kept = fields_of(&pruned, shape).with_named().union(&owned.with_named());
    let pruned = without(merged, &all.difference(&kept), shape);
    // And what never was this manager's stays, too.
    let gone = all.difference(&fields_of(&pruned, shape).with_named());
    without(merged, &gone.intersection(&last.with_named()), shape)
}
