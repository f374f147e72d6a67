//! The objects of one kind: what is known now, and what a list that is still being read says.
//!
//! While a list is read, what was known before stays; it is exchanged as a whole when the list is complete. An object
//! that says the same as before stays the same value, so that whoever compares pointers sees what changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::{Interner, Object, ObjectKey, ObjectName};
use dualgate_core::parse;
use serde::Deserialize;
use serde_json::Value;

use super::kind::Kind;

/// Whether anybody would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Something,
}

/// What a watch said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Something happened to an object; the version is that of this moment.
    Event(Change, String),
    /// Nothing happened until this version.
    Bookmark(String),
    /// The watch is over, because of this.
    Error { status: u16, text: String },
}

/// What cannot be part of a list or a watch.
#[derive(Debug, thiserror::Error)]
#[error("it is no answer of a Kubernetes API: {0}")]
pub(super) struct Nonsense(String);

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Store {
    kind: Kind,
    known: Content,
    /// Of a list that is not complete.
    staged: Content,
}

#[derive(Debug, Default)]
struct Content {
    /// In the order of their names, each once.
    objects: Vec<Held>,
    findings: BTreeMap<ObjectName, Vec<Finding>>,
}

#[derive(Clone, Debug)]
struct Held {
    object: Arc<Object>,
    /// Of the octets that it was read from in a list; 0 when it came by a watch. The same octets need not be read again.
    digest: u64,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: std::borrow::Cow<'a, str>,
}

/// The end of a page.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub metadata: PageMetadata,
}

/// Its `metadata`.
#[derive(Debug, Deserialize)]
pub(super) struct PageMetadata {
    #[serde(rename = "resourceVersion")]
    pub version: String,
    #[serde(rename = "continue")]
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl Page {
    pub(super) fn parse(rest: &[u8]) -> Result<Self, Nonsense> {
        let page: Self = serde_json::from_slice(rest).map_err(|error| Nonsense(error.to_string()))?;
        // "0" is any version: what would follow it, nobody knows.
        match page.metadata.version.as_str() {
            "" | "0" => Err(Nonsense("a list without `resourceVersion`".to_owned())),
            _ => Ok(page),
        }
    }
}

impl Store {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, known: Content::default(), staged: Content::default() }
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.staged = Content::default();
    }

    /// An item of the list.
    pub(super) fn stage(&mut self, octets: &[u8], texts: &mut Interner) -> Result<(), Nonsense> {
        let wrong = |error: serde_json::Error| Nonsense(error.to_string());
        let Item { metadata } = serde_json::from_slice(octets).map_err(wrong)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(octets);
        let digest = hasher.finish().max(1);
        let name = ObjectName::new(&*metadata.namespace, &*metadata.name);
        let former = self.known.get(&name);
        if let Some(same) = former.filter(|former| former.digest == digest) {
            if let Some(findings) = self.known.findings.get(&name) {
                self.staged.findings.insert(name.clone(), findings.clone());
            }
            self.staged.set(&name, Some(same.clone()));
            return Ok(());
        }
        let value = serde_json::from_slice(octets).map_err(wrong)?;
        let (object, findings) = read(self.kind, &name, value, former, texts);
        self.staged.put(name, object.map(|object| Held { object, digest }), findings);
        Ok(())
    }

    /// The list is complete: it counts from now on.
    pub(super) fn commit(&mut self) -> Change {
        let mut staged = std::mem::take(&mut self.staged);
        staged.objects.shrink_to_fit();
        let is_same = staged.findings == self.known.findings
            && staged.objects.len() == self.known.objects.len()
            && staged.objects.iter().zip(&self.known.objects).all(|(new, old)| same(new, old));
        self.known = staged;
        if is_same { Change::Nothing } else { Change::Something }
    }

    /// What a watch tells.
    pub(super) fn told(&mut self, octets: &[u8], texts: &mut Interner) -> Result<Told, Nonsense> {
        let event: Event = serde_json::from_slice(octets).map_err(|error| Nonsense(error.to_string()))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &event.object["metadata"];
        if event.kind == "ERROR" {
            let status = event.object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            return Ok(Told::Error { status, text: text(&event.object["message"]) });
        }
        let (version, name) = (text(&metadata["resourceVersion"]), text(&metadata["name"]));
        if version.is_empty() {
            return Err(Nonsense(format!("an event `{}` without `resourceVersion`", event.kind)));
        }
        let is_there = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => true,
            "DELETED" => false,
            "BOOKMARK" => return Ok(Told::Bookmark(version)),
            // Of a later Kubernetes; it said that time has passed.
            _ => return Ok(Told::Event(Change::Nothing, version)),
        };
        if name.is_empty() {
            return Err(Nonsense(format!("an event `{}` without a name", event.kind)));
        }
        let name = ObjectName::new(text(&metadata["namespace"]), name);
        let (object, findings) = match is_there {
            true => read(self.kind, &name, event.object, self.known.get(&name), texts),
            false => (None, Vec::new()),
        };
        Ok(Told::Event(self.known.put(name, object.map(|object| Held { object, digest: 0 }), findings), version))
    }

    pub(super) fn len(&self) -> usize {
        self.known.objects.len()
    }

    /// In the order of their names.
    pub(super) fn objects(&self) -> impl Iterator<Item = Arc<Object>> {
        self.known.objects.iter().map(|held| held.object.clone())
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.known.findings.values().flatten()
    }
}

impl Content {
    fn spot(&self, name: &ObjectName) -> Result<usize, usize> {
        self.objects.binary_search_by(|held| held.object.key.name.cmp(name))
    }

    fn get(&self, name: &ObjectName) -> Option<&Held> {
        Some(&self.objects[self.spot(name).ok()?])
    }

    /// What there was of this name before.
    fn set(&mut self, name: &ObjectName, held: Option<Held>) -> Option<Held> {
        match (self.spot(name), held) {
            (Ok(at), Some(held)) => Some(std::mem::replace(&mut self.objects[at], held)),
            (Ok(at), None) => Some(self.objects.remove(at)),
            (Err(at), Some(held)) => {
                self.objects.insert(at, held);
                None
            }
            (Err(_), None) => None,
        }
    }

    fn put(&mut self, name: ObjectName, held: Option<Held>, findings: Vec<Finding>) -> Change {
        let had = match findings.is_empty() {
            true => self.findings.remove(&name),
            false => self.findings.insert(name.clone(), findings.clone()),
        };
        let before = self.set(&name, held.clone());
        let is_same = match (&before, &held) {
            (Some(before), Some(held)) => same(before, held),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same && had.unwrap_or_default() == findings { Change::Nothing } else { Change::Something }
    }
}

fn same(a: &Held, b: &Held) -> bool {
    Arc::ptr_eq(&a.object, &b.object)
}

/// An object that the parser refuses stays as it was, as one does whose file is broken.
fn read(
    kind: Kind,
    name: &ObjectName,
    mut value: Value,
    former: Option<&Held>,
    texts: &mut Interner,
) -> (Option<Arc<Object>>, Vec<Finding>) {
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
        fields.insert("kind".to_owned(), kind.name().into());
    }
    if kind == Kind::Node {
        trim_node(&mut value);
    }
    let parsed = parse::object::object(&value, None);
    // An API server has left out what it does not know; what we do not know is of a later Kubernetes.
    let mut findings = parsed.findings;
    findings.retain(|finding| finding.code != Code::ObjectField);
    let object = match (parsed.objects.into_iter().next(), former) {
        (Some(object), Some(former)) if *former.object == object => Some(former.object.clone()),
        (Some(mut object), _) => {
            object.intern(texts);
            Some(Arc::new(object))
        }
        (None, Some(former)) => {
            let key = ObjectKey { kind: kind.name().into(), name: name.clone() };
            let message = format!("the last good version of {key} is served");
            findings.push(Finding::new(Code::Stale, Place::object(&key), message));
            Some(former.object.clone())
        }
        (None, None) => None,
    };
    (object, findings)
}

/// A Node says much, and says it again every few minutes with another time of day.
fn trim_node(value: &mut Value) {
    keep(value, &["apiVersion", "kind", "metadata", "spec", "status"]);
    keep(&mut value["spec"], &["podCIDR", "podCIDRs"]);
    keep(&mut value["status"], &["addresses", "conditions"]);
    for condition in value["status"]["conditions"].as_array_mut().into_iter().flatten() {
        keep(condition, &["type", "status"]);
    }
}

fn keep(value: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| names.contains(&name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: u16) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "apps", "uid": format!("of-{name}"), "resourceVersion": format!("r{port}"),
                "managedFields": [{"manager": "x"}]},
            "spec": {"type": "ClusterIP", "ports": [{"port": port, "protocol": "TCP", "targetPort": port}]},
        })
    }

    fn event(kind: &str, object: Value) -> Vec<u8> {
        json!({"type": kind, "object": object}).to_string().into_bytes()
    }

    fn listed(store: &mut Store, items: &[Value]) -> Change {
        store.begin();
        items.iter().for_each(|item| store.stage(item.to_string().as_bytes(), &mut Interner::default()).unwrap());
        store.commit()
    }

    fn names(store: &Store) -> Vec<String> {
        store.objects().map(|object| object.key.to_string()).collect()
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_not_before() {
        let mut store = Store::new(Kind::Service);
        assert_eq!(listed(&mut store, &[service("b", 1), service("a", 2)]), Change::Something);
        assert_eq!(names(&store), ["Service apps/a", "Service apps/b"]);
        store.begin();
        store.stage(service("c", 3).to_string().as_bytes(), &mut Interner::default()).unwrap();
        assert_eq!(names(&store), ["Service apps/a", "Service apps/b"], "no flap while it is read");
        store.begin();
        store.stage(service("a", 2).to_string().as_bytes(), &mut Interner::default()).unwrap();
        assert_eq!(store.commit(), Change::Something);
        assert_eq!(names(&store), ["Service apps/a"], "what the first attempt read is forgotten");
    }

    #[test]
    fn what_says_the_same_stays_the_same_value() {
        let mut store = Store::new(Kind::Service);
        listed(&mut store, &[service("a", 1), service("b", 1)]);
        let before: Vec<_> = store.objects().collect();
        assert_eq!(listed(&mut store, &[service("a", 1), service("b", 1)]), Change::Nothing);
        let mut touched = service("b", 1);
        touched["metadata"]["resourceVersion"] = "r2".into();
        touched["metadata"]["managedFields"] = json!([]);
        let told = store.told(&event("MODIFIED", touched), &mut Interner::default()).unwrap();
        assert_eq!(told, Told::Event(Change::Nothing, "r2".into()));
        assert!(before.iter().zip(store.objects()).all(|(before, now)| Arc::ptr_eq(before, &now)));
        assert_eq!(listed(&mut store, &[service("a", 1), service("b", 7)]), Change::Something);
        let now: Vec<_> = store.objects().collect();
        assert!(Arc::ptr_eq(&before[0], &now[0]) && !Arc::ptr_eq(&before[1], &now[1]));
    }

    #[test]
    fn a_watch_adds_changes_and_removes() {
        let mut store = Store::new(Kind::Service);
        let mut tell = |kind, object| store.told(&event(kind, object), &mut Interner::default()).unwrap();
        assert_eq!(tell("ADDED", service("a", 1)), Told::Event(Change::Something, "r1".into()));
        assert_eq!(tell("MODIFIED", service("a", 2)), Told::Event(Change::Something, "r2".into()));
        assert_eq!(tell("DELETED", service("a", 3)), Told::Event(Change::Something, "r3".into()));
        assert_eq!(tell("DELETED", service("a", 4)), Told::Event(Change::Nothing, "r4".into()));
        let bookmark = json!({"kind": "Service", "metadata": {"resourceVersion": "r9"}});
        assert_eq!(tell("BOOKMARK", bookmark), Told::Bookmark("r9".into()));
        let gone = json!({"kind": "Status", "code": 410, "message": "too old resource version", "reason": "Expired"});
        assert_eq!(tell("ERROR", gone), Told::Error { status: 410, text: "too old resource version".into() });
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn what_is_refused_is_a_finding_of_that_object_and_the_rest_is_served() {
        let mut store = Store::new(Kind::Service);
        let mut wrong = service("b", 1);
        wrong["spec"]["ports"] = json!([{"port": 70_000}]);
        wrong["spec"]["loadBalancerSourceRanges"] = json!(["everywhere"]);
        listed(&mut store, &[service("a", 1), wrong.clone(), service("c", 1)]);
        assert_eq!(names(&store), ["Service apps/a", "Service apps/c"]);
        let codes: Vec<_> = store.findings().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::ObjectInvalid]);
        listed(&mut store, &[service("a", 1), service("b", 1)]);
        assert_eq!((store.findings().count(), store.len()), (0, 2));
        store.told(&event("MODIFIED", wrong), &mut Interner::default()).unwrap();
        let codes: Vec<_> = store.findings().map(|finding| finding.code).collect();
        assert_eq!((codes.as_slice(), store.len()), (&[Code::ObjectInvalid, Code::Stale][..], 2));
        store.told(&event("DELETED", service("b", 9)), &mut Interner::default()).unwrap();
        assert_eq!((store.findings().count(), store.len()), (0, 1));
    }

    #[test]
    fn fields_of_a_later_kubernetes_are_no_mistake() {
        let mut store = Store::new(Kind::Service);
        let mut later = service("a", 1);
        later["spec"]["ofALaterVersion"] = json!({"x": 1});
        listed(&mut store, &[later]);
        assert_eq!((store.findings().count(), store.len()), (0, 1));
    }

    #[test]
    fn the_heartbeat_of_a_node_is_no_change() {
        let node = |time: &str, ready: &str| {
            json!({
                "metadata": {"name": "k3s-node1", "uid": "u", "resourceVersion": time},
                "spec": {"podCIDRs": ["10.42.0.0/24"], "providerID": "k3s://k3s-node1"},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "192.168.178.5"}],
                    "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": time}],
                    "images": [{"names": ["a"], "sizeBytes": 7}],
                },
            })
        };
        let mut store = Store::new(Kind::Node);
        listed(&mut store, &[node("1", "True")]);
        assert_eq!(
            store.told(&event("MODIFIED", node("2", "True")), &mut Interner::default()).unwrap(),
            Told::Event(Change::Nothing, "2".into())
        );
        assert_eq!(
            store.told(&event("MODIFIED", node("3", "False")), &mut Interner::default()).unwrap(),
            Told::Event(Change::Something, "3".into())
        );
        assert!(store.objects().all(|node| parse::object::dump(&node)["status"].get("images").is_none()));
    }

    #[test]
    fn what_is_no_answer_of_an_api_is_told_apart() {
        let mut store = Store::new(Kind::Service);
        assert!(store.stage(br#"{"spec":{}}"#, &mut Interner::default()).is_err());
        assert!(
            store.told(br#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#, &mut Interner::default()).is_err()
        );
        assert!(store.told(br#"{"type":"ADDED"}"#, &mut Interner::default()).is_err());
        assert!(Page::parse(br#"{"metadata":{"resourceVersion":""}}"#).is_err());
        assert!(Page::parse(br#"{"metadata":{"resourceVersion":"0"}}"#).is_err());
        assert!(Page::parse(br#"{"kind":"ServiceList"}"#).is_err());
        let page =
            Page::parse(br#"{"kind":"ServiceList","metadata":{"resourceVersion":"x","continue":"y"},"items":[]}"#)
                .unwrap();
        assert_eq!((page.metadata.version.as_str(), page.metadata.next.as_deref()), ("x", Some("y")));
    }
}
