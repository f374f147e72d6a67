//! One object at a time: asked for, applied, deleted.

use std::time::Duration;

use dualgate_core::plan::install::FIELD_MANAGER;
use dualgate_core::plan::install::object::ObjectId;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::{Client, Error};
use serde_json::{Value, json};

use super::InstallError;
use crate::access::innermost;
use crate::source::{Ask, Kind};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of fields that somebody else has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// They are told, and nothing is written.
    Refuse,
    /// They are written, and are ours from then on.
    Take,
}

/// A field that somebody else has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Of which object.
    pub id: ObjectId,
    /// Who: the name of a field manager, such as `kubectl-client-side-apply`.
    pub manager: String,
    /// Which field.
    pub field: String,
}

/// How an object is applied.
#[derive(Clone, Copy)]
pub(super) struct Write {
    conflicts: Conflicts,
    persistence: Persistence,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Persistence {
    Kept,
    DryRun,
}

impl Write {
    /// To see what would come of it.
    pub(super) fn tried(conflicts: Conflicts) -> Self {
        Self { conflicts, persistence: Persistence::DryRun }
    }

    /// To make it so.
    pub(super) fn meant(conflicts: Conflicts) -> Self {
        Self { conflicts, persistence: Persistence::Kept }
    }
}

/// Why an object was not applied.
pub(super) enum Refusal {
    /// Others have its fields.
    Conflicts(Vec<Conflict>),
    /// It is not the version that was asked for.
    Outdated,
    /// Anything else.
    Failed(String),
}

impl Refusal {
    pub(super) fn into_error(self, id: &ObjectId) -> InstallError {
        let failed = |why: String| InstallError::Api { what: format!("apply {id}"), why };
        match self {
            Self::Conflicts(conflicts) => match conflicts.into_iter().next() {
                Some(first) => InstallError::Conflict(first),
                None => failed("others have its fields".to_owned()),
            },
            Self::Outdated => failed("it was changed meanwhile; run it again".to_owned()),
            Self::Failed(why) => failed(why),
        }
    }
}

/// What became of a deletion.
pub(super) enum Deletion {
    /// It is gone, or goes.
    Done,
    /// What has its name is another object.
    NotOurs,
}

/// The API server.
pub(super) struct Api(Client);

impl Api {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// The object, if it is there.
    pub(super) async fn get(&self, id: &ObjectId) -> Result<Option<Value>, InstallError> {
        match self.ask(Method::GET, &id.path(), "application/json", &Value::Null).await {
            Ok(object) => Ok(Some(object)),
            Err(answer) if answer.code == 404 => Ok(None),
            Err(answer) => Err(InstallError::Api { what: format!("read {id}"), why: answer.why() }),
        }
    }

    /// A list of objects that are few.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, InstallError> {
        let list = self.read(path, path).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// All objects of a kind, page by page.
    pub(super) async fn pages(&self, kind: Kind, mut page: impl FnMut(&Value)) -> Result<(), InstallError> {
        let mut after = None;
        loop {
            let list = self.read(kind.resource(), &kind.target(&Ask::Page { after })).await?;
            page(&list);
            after = list["metadata"]["continue"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// A token of an account, and when it ends.
    pub(super) async fn token(
        &self,
        namespace: &str,
        account: &str,
        lasts: Duration,
    ) -> Result<(String, String), String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": lasts.as_secs()},
        });
        let answer =
            self.ask(Method::POST, &path, "application/json", &request).await.map_err(|answer| match answer.code {
                404 => format!("{}; run `dualgate install` first", answer.message),
                403 => format!("{}; ask as an administrator of the cluster (--kubeconfig)", answer.message),
                _ => answer.why(),
            })?;
        let word = |field: &str| answer["status"][field].as_str().unwrap_or_default().to_owned();
        match word("token") {
            token if token.is_empty() => Err("the API server answered without a token".to_owned()),
            token => Ok((token, word("expirationTimestamp"))),
        }
    }

    async fn read(&self, what: &str, path: &str) -> Result<Value, InstallError> {
        let answer = self.ask(Method::GET, path, "application/json", &Value::Null).await;
        answer.map_err(|answer| InstallError::Api { what: format!("list {what}"), why: answer.why() })
    }

    /// The object as it is then, or as it would be.
    pub(super) async fn apply(&self, id: &ObjectId, object: &Value, write: Write) -> Result<Value, Refusal> {
        let mut path = format!("{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict", id.path());
        if write.persistence == Persistence::DryRun {
            path.push_str("&dryRun=All");
        }
        if write.conflicts == Conflicts::Take {
            path.push_str("&force=true");
        }
        let answer = self.ask(Method::PATCH, &path, "application/apply-patch+yaml", object).await;
        answer.map_err(|answer| match (answer.code, answer.conflicts(id)) {
            (409, conflicts) if !conflicts.is_empty() => Refusal::Conflicts(conflicts),
            (409, _) => Refusal::Outdated,
            _ => Refusal::Failed(answer.why()),
        })
    }

    /// Deletes an object, if it is still the one of this UID.
    pub(super) async fn delete(&self, id: &ObjectId, uid: Option<&str>) -> Result<Deletion, InstallError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
        });
        match self.ask(Method::DELETE, &id.path(), "application/json", &options).await {
            Ok(_) => Ok(Deletion::Done),
            Err(answer) if answer.code == 404 => Ok(Deletion::Done),
            Err(answer) if answer.code == 409 => Ok(Deletion::NotOurs),
            Err(answer) => Err(InstallError::Api { what: format!("delete {id}"), why: answer.why() }),
        }
    }

    async fn ask(&self, method: Method, path: &str, form: &str, body: &Value) -> Result<Value, Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        let request = request.header(CONTENT_TYPE, form).body(body).map_err(|error| Answer::of(&error))?;
        match tokio::time::timeout(PATIENCE, self.0.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(Answer::from),
            Err(_) => Err(Answer { code: 0, message: format!("no answer within {PATIENCE:?}"), causes: Vec::new() }),
        }
    }
}

/// An answer that is not what was asked for.
struct Answer {
    code: u16,
    message: String,
    /// Message and field of what is the matter.
    causes: Vec<(String, String)>,
}

impl Answer {
    fn of(error: &dyn std::error::Error) -> Self {
        Self { code: 0, message: innermost(error), causes: Vec::new() }
    }

    /// What it said, and what to do.
    fn why(self) -> String {
        let help = match self.code {
            0 => "see whether the server runs, and whether this machine reaches it",
            401 => "the credentials have expired or were revoked: make a new kubeconfig",
            403 => "who installs dualgate needs the rights of a cluster's administrator",
            _ => return self.message,
        };
        format!("{}; {help}", self.message)
    }

    /// `conflict with "kubectl" using apps/v1`, and the field.
    fn conflicts(&self, id: &ObjectId) -> Vec<Conflict> {
        let conflict = |(message, field): &(String, String)| {
            let manager = message.strip_prefix("conflict with \"")?.split('"').next()?;
            Some(Conflict { id: id.clone(), manager: manager.to_owned(), field: field.clone() })
        };
        self.causes.iter().filter_map(conflict).collect()
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => {
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                let causes = causes.into_iter().map(|cause| (cause.message, cause.field)).collect();
                Self { code: status.code, message: status.message, causes }
            }
            error => Self::of(&error),
        }
    }
}
