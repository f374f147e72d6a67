//! Which objects of a cluster are this installation's: an ApplySet (KEP-3659) with an inventory.
//!
//! The parent is a ConfigMap. What belongs to it carries its id as a label, and is also in the inventory that the parent
//! holds, by kind, name and UID. Both are needed: a label may have been copied to an object of somebody else, and what has
//! a name of ours may have been made anew by somebody else. Before anything is applied, the inventory names what was
//! there and what is to come; only when that is done, what has gone is taken out. So whatever ends an installation in its
//! middle, the next one knows all that may be there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::object::ObjectId;
use super::{NAMESPACE, labels};

/// The label of what belongs to a set.
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";
const ID: &str = "applyset.kubernetes.io/id";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";

/// The ConfigMap that is the set's parent.
pub const PARENT: &str = "dualgate-inventory";
const INVENTORY: &str = "inventory.json";
const TOOL: &str = "dualgate";

/// What takes with it more than itself when it goes.
const PROTECTED: [&str; 3] = ["CustomResourceDefinition", "Namespace", "PersistentVolumeClaim"];

/// What an installation has made, or is about to make: each object with its UID, once that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<ObjectId, Option<String>>);

/// Why a parent cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParentError {
    /// Somebody else's set.
    #[error("the ConfigMap {NAMESPACE}/{PARENT} belongs to `{0}`, not to dualgate")]
    OtherTool(String),
    /// It is not what was written.
    #[error("the inventory in the ConfigMap {NAMESPACE}/{PARENT} cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    id: ObjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

/// The set's parent.
pub fn parent_id() -> ObjectId {
    ObjectId {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        resource: "configmaps".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: PARENT.to_owned(),
    }
}

/// The set's id, as `kubectl` computes it.
pub fn id() -> String {
    id_of(&parent_id())
}

fn id_of(parent: &ObjectId) -> String {
    let text = [&*parent.name, &parent.namespace, &parent.kind, parent.group()].join(".");
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(text)))
}

/// An object as a member of the set.
pub fn member(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["labels"][PART_OF] = id().into();
    object
}

/// The set that an object of a cluster says to belong to.
pub fn set_of(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][PART_OF].as_str()
}

/// Whether an object is removed only when that was asked for by name.
pub fn is_protected(id: &ObjectId) -> bool {
    PROTECTED.contains(&id.kind.as_str())
}

/// Who an object is, among all that ever had its name.
pub fn uid(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

impl Inventory {
    /// What a parent of a cluster holds.
    ///
    /// # Errors
    ///
    /// If the parent is another tool's, or if it cannot be read.
    pub fn read(parent: &Value) -> Result<Self, ParentError> {
        let tool = parent["metadata"]["annotations"][TOOLING].as_str().unwrap_or("somebody else");
        if tool.split('/').next() != Some(TOOL) {
            return Err(ParentError::OtherTool(tool.to_owned()));
        }
        let text = parent["data"][INVENTORY].as_str().unwrap_or("[]");
        let entries: Vec<Entry> =
            serde_json::from_str(text).map_err(|error| ParentError::Unreadable(error.to_string()))?;
        Ok(Self(entries.into_iter().map(|entry| (entry.id, entry.uid)).collect()))
    }

    /// With what is about to be made; what is known already keeps its UID.
    pub fn and_coming<'a>(&self, coming: impl IntoIterator<Item = &'a ObjectId>) -> Self {
        let mut entries = self.0.clone();
        for id in coming {
            entries.entry(id.clone()).or_default();
        }
        Self(entries)
    }

    /// Remembers what an object of the set is now.
    pub fn made(&mut self, id: ObjectId, uid: Option<&str>) {
        self.0.insert(id, uid.map(str::to_owned));
    }

    /// Forgets what is gone.
    pub fn gone(&mut self, id: &ObjectId) {
        self.0.remove(id);
    }

    /// The UID of an object, once it is known.
    pub fn uid(&self, id: &ObjectId) -> Option<&str> {
        self.0.get(id)?.as_deref()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was made and is not among these: the last first, as what needs others was made behind them.
    pub fn without<'a>(&'a self, wanted: &BTreeSet<ObjectId>) -> Vec<&'a ObjectId> {
        let mut left: Vec<&ObjectId> = self.0.keys().filter(|id| !wanted.contains(id)).collect();
        left.sort_by_key(|id| std::cmp::Reverse((super::object::rank(id), *id)));
        left
    }

    /// Whether an object of the cluster is the one that was made. Without a UID its making was begun and not reported, and
    /// then the label, which was applied with it, says so.
    pub fn holds(&self, id: &ObjectId, live: &Value) -> bool {
        let Some(known) = self.0.get(id) else { return false };
        let same = known.as_deref().is_none_or(|known| uid(live) == Some(known));
        same && set_of(live) == Some(&*self::id())
    }

    /// The parent that holds this. With a `version`, it is written only if the parent still has that one.
    pub fn parent(&self, version: Option<&str>) -> Value {
        let entries = self.0.iter().map(|(id, uid)| Entry { id: id.clone(), uid: uid.clone() });
        // One line an object, for people.
        let lines: Vec<String> = entries.map(|entry| json!(entry).to_string()).collect();
        let text = if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) };
        let group_kind = |id: &ObjectId| match id.group() {
            "" => id.kind.clone(),
            group => format!("{}.{group}", id.kind),
        };
        let kinds: BTreeSet<String> = self.0.keys().map(group_kind).collect();
        let elsewhere = |id: &&ObjectId| !id.namespace.is_empty() && id.namespace != NAMESPACE;
        let namespaces: BTreeSet<&str> = self.0.keys().filter(elsewhere).map(|id| &*id.namespace).collect();
        let join = |parts: Vec<&str>| parts.join(",");
        let mut labels = labels("inventory");
        labels[ID] = id().into();
        let mut parent = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": PARENT, "namespace": NAMESPACE, "labels": labels,
                "annotations": {
                    TOOLING: format!("{TOOL}/v{}", env!("CARGO_PKG_VERSION")),
                    GROUP_KINDS: join(kinds.iter().map(String::as_str).collect()),
                    NAMESPACES: join(namespaces.into_iter().collect()),
                },
            },
            "data": {INVENTORY: text},
        });
        if let Some(version) = version {
            parent["metadata"]["resourceVersion"] = version.into();
        }
        parent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str) -> ObjectId {
        let api_version = if kind == "DaemonSet" { "apps/v1" } else { "v1" };
        let metadata = json!({"name": name, "namespace": "a"});
        ObjectId::of(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})).unwrap()
    }

    fn live(uid: &str, set: &str) -> Value {
        json!({"metadata": {"uid": uid, "labels": {PART_OF: set}}})
    }

    #[test]
    fn the_id_is_the_one_that_kubectl_computes() {
        let parent = ObjectId {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            resource: "secrets".to_owned(),
            namespace: "test".to_owned(),
            name: "my-set".to_owned(),
        };
        assert_eq!(id_of(&parent), "applyset-0eFHV8ySqp7XoShsGvyWFQD3s96yqwHmzc4e0HR1dsY-v1");
    }

    #[test]
    fn what_a_parent_holds_is_read_back_and_told_in_the_words_of_the_convention() {
        let mut inventory = Inventory::default().and_coming([&object("DaemonSet", "x"), &object("ConfigMap", "y")]);
        inventory.made(object("ConfigMap", "y"), Some("1-2"));
        let parent = inventory.parent(Some("7"));
        assert_eq!(Inventory::read(&parent), Ok(inventory.clone()));
        assert_eq!(parent["metadata"]["annotations"][GROUP_KINDS], "ConfigMap,DaemonSet.apps");
        assert_eq!(parent["metadata"]["annotations"][NAMESPACES], "a");
        assert_eq!(parent["metadata"]["labels"][ID], id());
        assert_eq!(parent["metadata"]["labels"].get(PART_OF), None, "it is no member of itself");
        assert_eq!(parent["metadata"]["resourceVersion"], "7");
        assert_eq!(inventory.and_coming([&object("ConfigMap", "y")]), inventory, "a known UID stays");
        assert_eq!(Inventory::read(&Inventory::default().parent(None)), Ok(Inventory::default()));
    }

    #[test]
    fn a_parent_of_another_tool_is_left_alone() {
        let mut parent = Inventory::default().parent(None);
        parent["metadata"]["annotations"][TOOLING] = "kubectl/v1.36".into();
        assert_eq!(Inventory::read(&parent), Err(ParentError::OtherTool("kubectl/v1.36".into())));
        assert!(matches!(Inventory::read(&json!({})), Err(ParentError::OtherTool(_))));
        let mut parent = Inventory::default().parent(None);
        parent["data"][INVENTORY] = "{".into();
        assert!(matches!(Inventory::read(&parent), Err(ParentError::Unreadable(_))));
    }

    #[test]
    fn an_object_is_ours_by_inventory_and_label_together() {
        let (known, coming, other) = (object("ConfigMap", "k"), object("ConfigMap", "c"), object("ConfigMap", "o"));
        let mut inventory = Inventory::default().and_coming([&known, &coming]);
        inventory.made(known.clone(), Some("1"));
        assert!(inventory.holds(&known, &live("1", &id())));
        assert!(!inventory.holds(&known, &live("2", &id())), "made anew by somebody else");
        assert!(!inventory.holds(&known, &live("1", "another")), "given to another set");
        assert!(inventory.holds(&coming, &live("3", &id())), "made, and not reported");
        assert!(!inventory.holds(&coming, &live("3", "")), "there before it was made");
        assert!(!inventory.holds(&other, &live("4", &id())), "a label alone");
    }

    #[test]
    fn what_needs_others_goes_before_them() {
        let [set, map] = [object("DaemonSet", "a"), object("ConfigMap", "z")];
        let inventory = Inventory::default().and_coming([&map, &set]);
        assert_eq!(inventory.without(&BTreeSet::new()), [&set, &map]);
        assert_eq!(inventory.without(&BTreeSet::from([set.clone()])), [&map]);
    }
}
