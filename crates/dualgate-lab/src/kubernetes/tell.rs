//! What a cluster's own parts write into the API: Nodes, Pods, EndpointSlices, and how workloads are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::client::{Ask, ClientError, Connection};
use super::kind::Kind;
use super::mirror::Mirror;
use super::{Kubernetes, MANAGER, path};
use crate::trial::chain;

/// How often what was written is looked after, and how long an API that is away is left alone.
const LOOK: Duration = Duration::from_millis(500);

/// A part of an object, as the cluster wants it to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) part: Part,
    /// With `apiVersion`, `kind` and `metadata`.
    pub(crate) value: Value,
}

/// A part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status. The object is the cluster's own: it is made, and taken away when it is not wanted any more.
    Own,
    /// The status; the object may be somebody else's.
    Status,
}

/// Writes what is wanted, whenever that changes, and again what somebody took away.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<Arc<Vec<Piece>>>,
    /// Whether all of it is written.
    is_told: bool,
    trouble: Option<String>,
}

impl Teller {
    /// What is to be in the API from now on.
    pub(crate) fn want(&self, pieces: Vec<Piece>) {
        let state = &mut *self.lock();
        if state.wanted.as_deref() != Some(&pieces) {
            (state.wanted, state.is_told) = (Some(Arc::new(pieces)), false);
            self.changed.notify_one();
        }
    }

    /// Whether everything that is wanted was written.
    pub(crate) fn is_told(&self) -> bool {
        self.lock().is_told
    }

    /// Why something was not written.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Writes, for ever.
    pub(super) async fn tell(self: Arc<Self>, api: Arc<Kubernetes>, mirror: Arc<Mirror>) {
        let (mut connection, mut applied) = (None, BTreeMap::new());
        loop {
            let wanted = self.lock().wanted.clone();
            if let Some(wanted) = wanted {
                let told = round(&api, &mut connection, &mirror, &mut applied, &wanted).await;
                let trouble = told.unwrap_or_else(|error| {
                    connection = None;
                    Some(format!("write to the Kubernetes API: {}", chain(&error)))
                });
                let state = &mut *self.lock();
                let is_current = state.wanted.as_ref().is_some_and(|now| Arc::ptr_eq(now, &wanted));
                state.is_told = is_current && trouble.is_none();
                state.trouble = trouble;
            }
            // In time or not: both is a reason to look.
            let _ = timeout(LOOK, self.changed.notified()).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the API so; what it refused, if it refused something.
async fn round(
    api: &Kubernetes,
    connection: &mut Option<Connection>,
    mirror: &Mirror,
    applied: &mut BTreeMap<String, (Part, Value)>,
    wanted: &[Piece],
) -> Result<Option<String>, ClientError> {
    let mut refusals = Vec::new();
    let paths: BTreeSet<String> = wanted.iter().map(Piece::path).collect();
    let gone: Vec<(String, Part)> = applied
        .iter()
        .filter(|(path, _)| !paths.contains(*path))
        .map(|(path, (part, _))| (path.clone(), *part))
        .collect();
    for (path, part) in gone {
        if part == Part::Own {
            refusals.extend(send(api, connection, &Ask::delete(&*path)).await?);
        }
        applied.remove(&path);
    }
    for piece in wanted {
        let path = piece.path();
        let is_written = applied.get(&path).is_some_and(|(_, before)| *before == piece.value);
        // A pod that somebody deleted is not wanted any more; whoever wants it hears of that first.
        let is_lost = piece.part == Part::Own && !piece.kind.is_pod() && mirror.holds(piece.kind, &path) == Some(false);
        if is_lost {
            // With the object its status went.
            applied.remove(&format!("{path}/status"));
        } else if is_written {
            continue;
        }
        match send(api, connection, &Ask::apply(&path, MANAGER, piece.value.clone())).await? {
            Some(refusal) => refusals.push(refusal),
            None => drop(applied.insert(path, (piece.part, piece.value.clone()))),
        }
    }
    Ok(refusals.into_iter().next())
}

/// Sends a request; why it was refused, if it was. What is not there needs nothing.
async fn send(api: &Kubernetes, kept: &mut Option<Connection>, ask: &Ask) -> Result<Option<String>, ClientError> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => api.connection().await?,
    };
    let answer = connection.ask(ask).await;
    match answer {
        Ok(_) => {}
        Err(error @ ClientError::Refused { .. }) if error.is(404) => {}
        Err(error @ ClientError::Refused { .. }) => {
            *kept = Some(connection);
            return Ok(Some(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    *kept = Some(connection);
    Ok(None)
}

impl Piece {
    fn path(&self) -> String {
        let path = path(self.kind, &self.namespace, &self.name);
        match self.part {
            Part::Own => path,
            Part::Status => format!("{path}/status"),
        }
    }
}
