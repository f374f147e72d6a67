//! The objects of now, and the changes that led to them as far back as the history goes. One number counts all changes.
//!
//! It knows nothing of what objects mean. A page of a former version is made from now by undoing what came after.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

/// Namespace and name; the namespace is empty for objects of the cluster.
pub(crate) type Key = (String, String);

/// One object in one version. It is never changed.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    /// Without `apiVersion` and `kind`: those depend on who asks.
    pub(crate) value: Value,
    /// The same as JSON, made once.
    pub(crate) json: Bytes,
    /// Since when it is so.
    pub(crate) version: u64,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Added,
    Modified,
    Deleted,
}

/// One step of the history.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    /// `ingresses.networking.k8s.io`.
    pub(crate) resource: Arc<str>,
    pub(crate) key: Key,
    pub(crate) happened: Happened,
    /// What it is then; of a deleted one, what it was at last, with the version of the deletion.
    pub(crate) object: Arc<Entry>,
    pub(crate) before: Option<Arc<Entry>>,
}

/// The history does not reach back that far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) asked: u64,
    /// The oldest version that is left.
    pub(crate) oldest: u64,
}

/// Part of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Entry>>,
    /// The last key, if there is more behind it.
    pub(crate) last: Option<Key>,
    /// How many that is.
    pub(crate) remaining: usize,
}

/// Which part of a list.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// As it was then.
    pub(crate) version: u64,
    /// Only what comes behind this key.
    pub(crate) behind: Option<&'a Key>,
    pub(crate) limit: usize,
}

#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Arc<str>, BTreeMap<Key, Arc<Entry>>>,
    version: u64,
    history: VecDeque<Change>,
    /// The version before the first change of the history.
    compacted: u64,
    longest_history: usize,
}

impl Store {
    pub(crate) fn new(longest_history: usize) -> Self {
        let (objects, history) = (BTreeMap::new(), VecDeque::new());
        Self { objects, version: 1, history, compacted: 1, longest_history }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn find(&self, resource: &str, key: &Key) -> Option<&Arc<Entry>> {
        self.objects.get(resource)?.get(key)
    }

    pub(crate) fn all<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> {
        let objects = self.objects.get(resource).into_iter();
        objects.flat_map(move |objects| within(objects, namespace))
    }

    /// The resources that have objects in a namespace.
    pub(crate) fn resources_in(&self, namespace: &str) -> Vec<Arc<str>> {
        let used = self.objects.iter().filter(|(_, objects)| within(objects, Some(namespace)).next().is_some());
        used.map(|(resource, _)| resource.clone()).collect()
    }

    /// Puts an object in place of the one of this key, as the next version.
    pub(crate) fn put(&mut self, resource: &str, key: &Key, value: Value) -> Arc<Entry> {
        let entry = self.next(value);
        let resource = self.resource(resource);
        let before = self.objects.entry(resource.clone()).or_default().insert(key.clone(), entry.clone());
        let happened = if before.is_some() { Happened::Modified } else { Happened::Added };
        self.remember(Change {
            version: self.version,
            resource,
            key: key.clone(),
            happened,
            object: entry.clone(),
            before,
        });
        entry
    }

    /// Takes an object away, as the next version.
    pub(crate) fn remove(&mut self, resource: &str, key: &Key) -> Option<Arc<Entry>> {
        let before = self.objects.get_mut(resource)?.remove(key)?;
        let object = self.next(before.value.clone());
        let (resource, before) = (self.resource(resource), Some(before));
        let happened = Happened::Deleted;
        let change =
            Change { version: self.version, resource, key: key.clone(), happened, object: object.clone(), before };
        self.remember(change);
        Some(object)
    }

    fn next(&mut self, mut value: Value) -> Arc<Entry> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = Value::String(self.version.to_string());
        let json = Bytes::from(value.to_string());
        Arc::new(Entry { value, json, version: self.version })
    }

    /// One allocation for each resource's name, however many changes it sees.
    fn resource(&mut self, name: &str) -> Arc<str> {
        match self.objects.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => Arc::from(name),
        }
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > self.longest_history {
            self.compacted = self.history.pop_front().map_or(self.compacted, |oldest| oldest.version);
        }
    }

    /// Forgets how it came to this.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
    }

    /// What happened to a resource after a version.
    pub(crate) fn changes(
        &self,
        resource: &str,
        after: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Change>, Compacted> {
        if after < self.compacted {
            return Err(Compacted { asked: after, oldest: self.compacted });
        }
        let from = self.history.partition_point(|change| change.version <= after);
        Ok(self.history.range(from..).filter(move |change| *change.resource == *resource))
    }

    /// A section of a list, of those that match.
    pub(crate) fn page(&self, section: &Section<'_>, matches: impl Fn(&Entry) -> bool) -> Result<Page, Compacted> {
        let former = self.former(section)?;
        let matching = self.at(section, &former).filter(|(_, entry)| matches(entry));
        let mut matching = matching.peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < section.limit {
            let Some((key, entry)) = matching.next() else { break };
            items.push(entry.clone());
            last = Some(key);
        }
        let last = matching.peek().is_some().then(|| last.cloned()).flatten();
        Ok(Page { items, last, remaining: matching.count() })
    }

    /// The section's objects of its version, in order: those that did not change since, and what the others were.
    fn at<'a>(
        &'a self,
        section: &Section<'a>,
        former: &'a BTreeMap<&'a Key, Option<&'a Arc<Entry>>>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> {
        let (namespace, behind) = (section.namespace, section.behind);
        let is_meant = move |key: &Key| {
            behind.is_none_or(|last| key > last) && namespace.is_none_or(|namespace| key.0 == namespace)
        };
        let now =
            self.objects.get(section.resource).into_iter().flat_map(move |objects| from(objects, namespace, behind));
        let now = now.filter(|(key, _)| !former.contains_key(key));
        let then = former.iter().filter_map(move |(key, entry)| is_meant(key).then_some((*key, (*entry)?)));
        let (mut now, mut then) = (now.peekable(), then.peekable());
        std::iter::from_fn(move || match (now.peek(), then.peek()) {
            (Some((left, _)), Some((right, _))) if left > right => then.next(),
            (None, _) => then.next(),
            (Some(_), _) => now.next(),
        })
    }

    /// What was different at the section's version: the state of each object that changed after it.
    fn former(&self, section: &Section<'_>) -> Result<BTreeMap<&Key, Option<&Arc<Entry>>>, Compacted> {
        let changes = self.changes(section.resource, section.version)?;
        // The first change after the version says what was there before it.
        Ok(changes.rev().map(|change| (&change.key, change.before.as_ref())).collect())
    }
}

fn within<'a>(
    objects: &'a BTreeMap<Key, Arc<Entry>>,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> {
    from(objects, namespace, None)
}

fn from<'a>(
    objects: &'a BTreeMap<Key, Arc<Entry>>,
    namespace: Option<&'a str>,
    behind: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> {
    let first = Bound::Included((namespace.unwrap_or_default().to_owned(), String::new()));
    let first = behind.map_or(first, |key| Bound::Excluded(key.clone()));
    objects
        .range((first, Bound::Unbounded))
        .take_while(move |(key, _)| namespace.is_none_or(|namespace| key.0 == namespace))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        ("apps".to_owned(), name.to_owned())
    }

    fn store(names: &[&str]) -> Store {
        let mut store = Store::new(100);
        for name in names {
            store.put("pods", &key(name), json!({"metadata": {"name": name}}));
        }
        store
    }

    fn names(store: &Store, version: u64, behind: Option<&Key>, limit: usize) -> (Vec<String>, usize) {
        let section = Section { resource: "pods", namespace: Some("apps"), version, behind, limit };
        let page = store.page(&section, |_| true).unwrap();
        let name = |entry: &Arc<Entry>| entry.value["metadata"]["name"].as_str().unwrap().to_owned();
        (page.items.iter().map(name).collect(), page.remaining)
    }

    #[test]
    fn pages_of_a_version_stay_what_they_were() {
        let mut store = store(&["a", "b", "c", "d"]);
        let then = store.version();
        assert_eq!(names(&store, then, None, 2), (vec!["a".into(), "b".into()], 2));
        store.remove("pods", &key("c"));
        store.put("pods", &key("bb"), json!({"metadata": {"name": "bb"}}));
        store.put("pods", &key("d"), json!({"metadata": {"name": "D"}}));
        assert_eq!(names(&store, then, Some(&key("b")), 9), (vec!["c".into(), "d".into()], 0));
        assert_eq!(names(&store, store.version(), Some(&key("b")), 9), (vec!["bb".into(), "D".into()], 0));
    }

    #[test]
    fn a_namespace_is_a_range_of_its_own() {
        let mut store = store(&["a"]);
        for namespace in ["app", "apps2", ""] {
            store.put("pods", &(namespace.to_owned(), "x".to_owned()), json!({"metadata": {}}));
        }
        assert_eq!(store.all("pods", Some("apps")).count(), 1);
        assert_eq!(store.all("pods", None).count(), 4);
        assert_eq!(store.resources_in("apps2").len(), 1);
        assert_eq!(store.resources_in("none").len(), 0);
    }

    #[test]
    fn changes_tell_what_was_before_and_end_where_the_history_does() {
        let mut store = store(&["a", "b"]);
        store.remove("pods", &key("a"));
        let seen: Vec<_> = store.changes("pods", 1).unwrap().map(|change| (change.version, change.happened)).collect();
        assert_eq!(seen, [(2, Happened::Added), (3, Happened::Added), (4, Happened::Deleted)]);
        let last = store.changes("pods", 3).unwrap().next().unwrap().clone();
        assert_eq!(last.object.value["metadata"]["resourceVersion"], "4");
        assert_eq!(last.before.unwrap().value["metadata"]["resourceVersion"], "2");
        store.compact();
        assert_eq!(store.changes("pods", 3).err(), Some(Compacted { asked: 3, oldest: 4 }));
        assert_eq!(store.changes("pods", 4).unwrap().count(), 0);
    }

    #[test]
    fn the_history_is_no_longer_than_told() {
        let mut store = Store::new(2);
        for name in ["a", "b", "c"] {
            store.put("pods", &key(name), json!({"metadata": {}}));
        }
        assert_eq!(store.changes("pods", 1).err(), Some(Compacted { asked: 1, oldest: 2 }));
        assert_eq!(store.changes("pods", 2).unwrap().count(), 2);
    }
}
