//! Sets of fields, as `fieldsV1` of managed fields writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of a map.
    Field(String),
    /// An item of a list, by its keys: a JSON object.
    Key(String),
    /// An item of a set: its JSON.
    Value(String),
}

/// Paths. A path can be in a set without those below it, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<Element, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    is_member: bool,
    below: Fields,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the path that ends with this element, here.
    pub(crate) fn insert(&mut self, element: Element) {
        self.0.entry(element).or_default().is_member = true;
    }

    /// Adds what is below an element.
    pub(crate) fn insert_below(&mut self, element: Element, below: Self) {
        if below.is_empty() {
            return;
        }
        let node = self.0.entry(element).or_default();
        node.below = if node.below.is_empty() { below } else { std::mem::take(&mut node.below).union(&below) };
    }

    pub(crate) fn contains(&self, element: &Element) -> bool {
        self.0.get(element).is_some_and(|node| node.is_member)
    }

    pub(crate) fn below(&self, element: &Element) -> Option<&Self> {
        self.0.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Takes out a path of one name, and everything below it.
    pub(crate) fn remove_below(&mut self, name: &str) {
        self.0.remove(&Element::Field(name.to_owned()));
    }

    /// Takes out one path; what is below it stays.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        let [name, rest @ ..] = path else { return };
        let element = Element::Field((*name).to_owned());
        let Some(node) = self.0.get_mut(&element) else { return };
        if rest.is_empty() {
            node.is_member = false;
        } else {
            node.below.remove(rest);
        }
        if !node.is_member && node.below.is_empty() {
            self.0.remove(&element);
        }
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        if self.0.is_empty() {
            return other.clone();
        }
        for (element, theirs) in &other.0 {
            let node = self.0.entry(element.clone()).or_default();
            node.is_member |= theirs.is_member;
            node.below = std::mem::take(&mut node.below).union(&theirs.below);
        }
        self
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.filtered(|element, node| match other.0.get(element) {
            None => node.clone(),
            Some(theirs) => {
                Node { is_member: node.is_member && !theirs.is_member, below: node.below.difference(&theirs.below) }
            }
        })
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.filtered(|element, node| match other.0.get(element) {
            None => Node::default(),
            Some(theirs) => {
                Node { is_member: node.is_member && theirs.is_member, below: node.below.intersection(&theirs.below) }
            }
        })
    }

    /// With every named field on the way to a member.
    pub(crate) fn with_named(&self) -> Self {
        self.filtered(|element, node| Node {
            is_member: node.is_member || matches!(element, Element::Field(_)),
            below: node.below.with_named(),
        })
    }

    fn filtered(&self, of: impl Fn(&Element, &Node) -> Node) -> Self {
        let nodes = self.0.iter().map(|(element, node)| (element.clone(), of(element, node)));
        Self(nodes.filter(|(_, node)| node.is_member || !node.below.is_empty()).collect())
    }

    /// Each path as messages write it: `.spec.ports[port=80,protocol="TCP"].nodePort`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, above: &str, paths: &mut Vec<String>) {
        for (element, node) in &self.0 {
            let path = format!("{above}{}", element.shown());
            if node.is_member {
                paths.push(path.clone());
            }
            node.below.collect(&path, paths);
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        for (element, node) in &self.0 {
            let mut below = node.below.to_json();
            if node.is_member && !node.below.is_empty() {
                below["."] = json!({});
            }
            fields.insert(element.written(), below);
        }
        Value::Object(fields)
    }

    /// Reads `fieldsV1`. What cannot be read is in nobody's set.
    pub(crate) fn from_json(json: &Value) -> Self {
        let fields = json.as_object().into_iter().flatten();
        let node = |(name, below): (&String, &Value)| {
            let element = Element::read(name)?;
            let below_it = Self::from_json(below);
            Some((element, Node { is_member: below.get(".").is_some() || below_it.is_empty(), below: below_it }))
        };
        Self(fields.filter_map(node).collect())
    }
}

impl Element {
    fn written(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("f", name) => Some(Self::Field(name.to_owned())),
            ("k", keys) => Some(Self::Key(keys.to_owned())),
            ("v", value) => Some(Self::Value(value.to_owned())),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Value(value) => format!("[={value}]"),
            Self::Key(keys) => {
                let mut shown = String::from("[");
                let keys: Value = serde_json::from_str(keys).unwrap_or_default();
                for (index, (name, value)) in keys.as_object().into_iter().flatten().enumerate() {
                    // A `String` takes whatever is written to it.
                    let _ = write!(shown, "{}{name}={value}", if index == 0 { "" } else { "," });
                }
                shown + "]"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: Value) -> Fields {
        Fields::from_json(&json)
    }

    #[test]
    fn what_is_read_is_written_again() {
        let json = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:type": {}},
        });
        assert_eq!(fields(json.clone()).to_json(), json);
        assert_eq!(
            fields(json).paths(),
            [
                ".metadata.finalizers[=\"a/b\"]",
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
                ".spec.type",
            ]
        );
    }

    #[test]
    fn sets_are_combined_member_by_member() {
        let one = fields(json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}}));
        let other = fields(json!({"f:a": {"f:x": {}, "f:y": {}}, "f:c": {}}));
        assert_eq!(
            one.clone().union(&other),
            fields(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}, "f:c": {}}))
        );
        assert_eq!(one.difference(&other), fields(json!({"f:a": {}, "f:b": {}})));
        assert_eq!(one.intersection(&other), fields(json!({"f:a": {"f:x": {}}})));
        assert_eq!(other.with_named(), fields(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:c": {}})));
    }
}
