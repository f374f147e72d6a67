//! A cluster whose objects are in a Kubernetes API: it reads them there as controllers and kubelets do, and writes what
//! became of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Shared, State, wanted};
use crate::kubernetes::{
    Ask, ClientError, DAEMON_SET, DEPLOYMENT, ENDPOINT_SLICE, Kind, Kubernetes, Mirror, NODE, POD, Part, Piece,
    STATEFUL_SET, Seen, Teller, path,
};
use crate::workload::{self, Workload, WorkloadKind};

/// The API, and what was seen of it and is to be written into it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) api: Arc<Kubernetes>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) teller: Arc<Teller>,
}

impl Desk {
    pub(super) fn new(api: Arc<Kubernetes>) -> Self {
        Self { api, mirror: Arc::default(), teller: Arc::default() }
    }

    /// Why nothing is read or written.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.api.is_away() {
            let node = self.api.status().node;
            return Some(format!("the Kubernetes API is away with {node}: what runs goes on, nothing is scheduled"));
        }
        self.mirror.trouble().or_else(|| self.teller.trouble())
    }

    /// Wants another number of pods, as `kubectl scale` does. A DaemonSet has none.
    pub(super) fn scale(&self, workload: &Workload, replicas: u32) -> Result<(), ClientError> {
        let kind = match workload.kind {
            WorkloadKind::Deployment => &DEPLOYMENT,
            WorkloadKind::StatefulSet => &STATEFUL_SET,
            WorkloadKind::DaemonSet => return Ok(()),
        };
        let name = &workload.key.name;
        let patch = json!({"spec": {"replicas": replicas}});
        self.api.ask(&Ask::merge(path(kind, &name.namespace, &name.name), patch)).map(drop)
    }
}

impl Shared {
    /// Takes what was seen in the API.
    pub(super) fn see(&self, seen: Seen) {
        let mut state = self.lock();
        state.deleted.extend(seen.deleted);
        state.read = Some(Arc::new(seen.objects));
        drop(state);
        self.changed.notify_all();
    }

    /// What the API is to hold of the cluster itself.
    pub(super) fn tell(&self, state: &mut State, desk: &Desk) {
        let mut pieces = Vec::new();
        for (node, json) in self.nodes(state) {
            let (mut own, status) = split(json);
            own["metadata"]["labels"] = workload::node_labels(node);
            pieces.push(piece(&NODE, Part::Own, own));
            pieces.push(piece(&NODE, Part::Status, status));
        }
        for pod in &state.placement.pods {
            let (own, status) = split(workload::pod_record(pod, &state.objects));
            pieces.push(piece(&POD, Part::Own, own));
            pieces.push(piece(&POD, Part::Status, status));
        }
        let slices = workload::endpoint_slices(&state.objects, &state.placement.all());
        pieces.extend(slices.into_iter().map(|slice| piece(&ENDPOINT_SLICE, Part::Own, slice)));
        let (no_pods, no_nodes) = (BTreeSet::new(), BTreeSet::new());
        let wanted = wanted(&self.site, state, &no_pods, &no_pods, &no_nodes);
        for workload in &state.workloads {
            let status = workload::workload_status(&wanted, workload, &state.placement.pods);
            pieces.push(piece(kind(workload.kind), Part::Status, status));
        }
        desk.teller.want(pieces);
        state.placed = state.placed || desk.teller.is_told();
    }
}

fn kind(kind: WorkloadKind) -> &'static Kind {
    match kind {
        WorkloadKind::Deployment => &DEPLOYMENT,
        WorkloadKind::StatefulSet => &STATEFUL_SET,
        WorkloadKind::DaemonSet => &DAEMON_SET,
    }
}

/// An object without its status, and its status alone: each is written at its own place.
fn split(mut object: Value) -> (Value, Value) {
    let status = object.as_object_mut().and_then(|object| object.remove("status")).unwrap_or_default();
    let name = |field: &str| object["metadata"][field].clone();
    let mut metadata = json!({"name": name("name")});
    if object["metadata"]["namespace"].is_string() {
        metadata["namespace"] = name("namespace");
    }
    let status = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": metadata,
        "status": status,
    });
    (object, status)
}

fn piece(kind: &'static Kind, part: Part, value: Value) -> Piece {
    let name = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    Piece { kind, namespace: name("namespace"), name: name("name"), part, value }
}
