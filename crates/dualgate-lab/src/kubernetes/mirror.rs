//! What the API holds, kept equal by watching it: whole sets, as a source gives them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualgate_core::model::{ObjectName, ObjectSet};
use dualgate_core::parse;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::client::{Ask, ClientError};
use super::kind::{Kind, WATCHED};
use super::{Kubernetes, path};
use crate::trial::chain;
use crate::workload;

/// Changes that come together are told together.
const HOLD_OFF: Duration = Duration::from_millis(10);
/// How long an API that is away is left alone.
const PAUSE: Duration = Duration::from_millis(200);

/// The objects of the API, of the kinds that a cluster looks at.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By resource: its objects by their paths. A resource is here once it was listed.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    deleted: Vec<DeletedPod>,
    trouble: Option<String>,
}

/// A pod that somebody deleted. Its name may be another's by now, its address is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeletedPod {
    pub(crate) name: ObjectName,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What a look at the API gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Everything, as core reads it; workloads with their `spec`.
    pub(crate) objects: ObjectSet,
    /// The pods that were deleted since the last look.
    pub(crate) deleted: Vec<DeletedPod>,
}

impl Mirror {
    /// Whether an object is there, of a kind that is watched; `None` before the first list.
    pub(super) fn holds(&self, kind: &Kind, path: &str) -> Option<bool> {
        Some(self.lock().objects.get(kind.plural)?.contains_key(path))
    }

    /// Why nothing comes from the API at the moment.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The next look, once everything was listed and something has changed.
    pub(super) async fn next(&self) -> Seen {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(HOLD_OFF).await;
            if let Some(seen) = self.look() {
                return seen;
            }
        }
    }

    /// Everything, once it was listed.
    fn look(&self) -> Option<Seen> {
        let state = &mut *self.lock();
        let is_listed = state.objects.len() == WATCHED.len();
        is_listed.then(|| Seen { objects: set(&state.objects), deleted: std::mem::take(&mut state.deleted) })
    }

    /// Keeps the objects of one kind equal to the API's, for ever.
    pub(super) async fn follow(self: Arc<Self>, api: Arc<Kubernetes>, kind: &'static Kind) {
        loop {
            let trouble = match self.list_and_watch(&api, kind).await {
                Ok(()) => continue,
                // The history is too short: the objects are listed again at once.
                Err(error) if error.is(410) => continue,
                Err(error) => format!("watch {} at the Kubernetes API: {}", kind.plural, chain(&error)),
            };
            tracing::debug!(trouble);
            self.lock().trouble = Some(trouble);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list_and_watch(&self, api: &Kubernetes, kind: &'static Kind) -> Result<(), ClientError> {
        let list = kind.everywhere();
        let mut connection = api.connection().await?;
        let mut answer = connection.ask(&Ask::get(&*list)).await?;
        let version = answer["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        let items = answer["items"].take();
        self.replace(kind, items.as_array().cloned().unwrap_or_default());
        let mut watch = connection.watch(&format!("{list}?watch=true&resourceVersion={version}")).await?;
        while let Some(event) = watch.next().await? {
            let object = &event["object"];
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.put(kind, object),
                Some("DELETED") => self.remove(kind, object),
                Some("ERROR") => return Ok(()),
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn replace(&self, kind: &'static Kind, items: Vec<Value>) {
        let state = &mut *self.lock();
        let now: BTreeMap<String, Value> = items.into_iter().map(|item| whole(kind, item)).collect();
        let before = state.objects.insert(kind.plural, now).unwrap_or_default();
        let now = &state.objects[kind.plural];
        let gone = before.iter().filter(|(path, _)| !now.contains_key(*path));
        if kind.is_pod() {
            state.deleted.extend(gone.map(|(_, pod)| deleted(pod)));
        }
        state.trouble = None;
        self.changed.notify_one();
    }

    fn put(&self, kind: &'static Kind, object: &Value) {
        let (path, object) = whole(kind, object.clone());
        self.lock().objects.entry(kind.plural).or_default().insert(path, object);
        self.changed.notify_one();
    }

    fn remove(&self, kind: &'static Kind, object: &Value) {
        let state = &mut *self.lock();
        let (path, object) = whole(kind, object.clone());
        state.objects.entry(kind.plural).or_default().remove(&path);
        if kind.is_pod() {
            state.deleted.push(deleted(&object));
        }
        self.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object with its path, with the kind that items of a list lack, and without what nobody here reads.
fn whole(kind: &Kind, mut object: Value) -> (String, Value) {
    object["apiVersion"] = json!(kind.api_version);
    object["kind"] = json!(kind.kind);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (path(kind, name("namespace"), name("name")), object)
}

fn deleted(pod: &Value) -> DeletedPod {
    let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let addresses = addresses.filter_map(|address| address["ip"].as_str()?.parse().ok());
    DeletedPod { name: ObjectName::new(name("namespace"), name("name")), addresses: addresses.collect() }
}

fn set(objects: &BTreeMap<&'static str, BTreeMap<String, Value>>) -> ObjectSet {
    let mut set = ObjectSet::default();
    for value in WATCHED.iter().filter(|kind| !kind.is_pod()).flat_map(|kind| objects[kind.plural].values()) {
        let parsed = parse::object::object(value, None);
        set.findings.extend(parsed.findings);
        set.objects.extend(parsed.objects.into_iter().map(|object| Arc::new(workload::completed(object, value))));
    }
    set.objects.sort_by(|one, other| one.key.cmp(&other.key));
    set
}
