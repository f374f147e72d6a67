//! One request and what became of it, in the words of the machines.

use std::time::Duration;

use dualgate_core::machine::lease;
use dualgate_core::machine::writes::events;
use dualgate_core::machine::writes::{self, Send};
use dualgate_core::model::ObjectKey;
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::object::FIELD_MANAGER;
use dualgate_core::plan::install::{LEASE, NAMESPACE};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::Reign;
use crate::access::AccessError;

/// The largest answer that is read.
const LARGEST: usize = 4 << 20;

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// What is asked.
pub(super) enum Asked {
    /// About the Lease.
    Lease(lease::Request),
    /// To write, at this second.
    Write(Reign, Send, i64),
    /// To make or count up an Event.
    Event(Reign, events::Request),
}

/// What became of it.
pub(super) enum Answered {
    Lease(lease::Answer, Option<Finding>),
    Write(Reign, ObjectKey, writes::Answer),
    Event(Reign, events::Answer, Option<Finding>),
}

/// An answer of the API server.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Value,
}

impl Asked {
    pub(super) async fn send(self, client: Client, limit: Duration) -> Answered {
        match self {
            Self::Lease(asked) => {
                let (method, path, body) = of_lease(&asked);
                let answer = ask(&client, limit, method, path, JSON, body).await;
                let (answer, trouble) = lease_answer(&asked, answer);
                Answered::Lease(answer, trouble)
            }
            Self::Write(reign, Send { write, force }, now) => {
                let path = format!("{}?fieldManager={FIELD_MANAGER}&force={force}", write.path());
                let body = write.body(now);
                let answer = ask(&client, limit, Method::PATCH, path, APPLY, Some(&body)).await;
                Answered::Write(reign, write.object.clone(), write_answer(answer))
            }
            Self::Event(reign, asked) => {
                let (method, path, content, body) = of_event(&asked);
                let answer = ask(&client, limit, method.clone(), path, content, Some(body)).await;
                let (answer, trouble) = event_answer(&method, answer);
                Answered::Event(reign, answer, trouble)
            }
        }
    }
}

fn of_lease(asked: &lease::Request) -> (Method, String, Option<&Value>) {
    let all = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    match asked {
        lease::Request::Read => (Method::GET, format!("{all}/{LEASE}"), None),
        lease::Request::Create(object) => (Method::POST, format!("{all}?fieldManager={FIELD_MANAGER}"), Some(object)),
        lease::Request::Replace(object) => {
            (Method::PUT, format!("{all}/{LEASE}?fieldManager={FIELD_MANAGER}"), Some(object))
        }
    }
}

fn lease_answer(asked: &lease::Request, answer: Option<Answer>) -> (lease::Answer, Option<Finding>) {
    let Some(Answer { status, body, .. }) = answer else { return (lease::Answer::Failed, None) };
    let verb = match asked {
        lease::Request::Read => "get",
        lease::Request::Create(_) => "create",
        lease::Request::Replace(_) => "update",
    };
    match (status, asked) {
        (StatusCode::OK | StatusCode::CREATED, _) => (lease::Answer::Is(body), None),
        (StatusCode::CONFLICT, _) => (lease::Answer::Conflict, None),
        (StatusCode::NOT_FOUND, lease::Request::Read | lease::Request::Replace(_)) => (lease::Answer::Absent, None),
        (StatusCode::NOT_FOUND, lease::Request::Create(_)) => {
            let message = format!("the namespace `{NAMESPACE}` does not exist, so nobody writes statuses");
            let finding = Finding::new(Code::ClusterForbidden, Place::default(), message);
            (lease::Answer::Failed, Some(finding.help("run `dualgate install`: it makes the namespace")))
        }
        (StatusCode::FORBIDDEN, _) => {
            (lease::Answer::Failed, Some(forbidden(verb, "leases", "nobody writes statuses")))
        }
        _ => (lease::Answer::Failed, None),
    }
}

fn write_answer(answer: Option<Answer>) -> writes::Answer {
    let Some(answer) = answer else { return writes::Answer::Away(None) };
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => writes::Answer::Made,
        StatusCode::CONFLICT => writes::Answer::Conflict,
        StatusCode::NOT_FOUND => writes::Answer::Gone,
        StatusCode::FORBIDDEN => writes::Answer::Forbidden,
        // The token has just run out: the next one is read from its file.
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            writes::Answer::Away(answer.retry_after)
        }
        status if status.is_client_error() => writes::Answer::Refused(words(&answer)),
        _ => writes::Answer::Away(answer.retry_after),
    }
}

fn of_event(asked: &events::Request) -> (Method, String, &'static str, &Value) {
    let all = |namespace: &str| format!("/api/v1/namespaces/{namespace}/events");
    match asked {
        events::Request::Create { namespace, event } => {
            (Method::POST, format!("{}?fieldManager={FIELD_MANAGER}", all(namespace)), JSON, event)
        }
        events::Request::Count { namespace, name, patch } => {
            (Method::PATCH, format!("{}/{name}?fieldManager={FIELD_MANAGER}", all(namespace)), MERGE, patch)
        }
    }
}

fn event_answer(method: &Method, answer: Option<Answer>) -> (events::Answer, Option<Finding>) {
    let Some(answer) = answer else { return (events::Answer::Failed, None) };
    let is_patch = *method == Method::PATCH;
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => (events::Answer::Made, None),
        StatusCode::CONFLICT if !is_patch => (events::Answer::Exists, None),
        StatusCode::NOT_FOUND if is_patch => (events::Answer::Gone, None),
        StatusCode::FORBIDDEN if ends(&answer) => (events::Answer::Refused, None),
        StatusCode::FORBIDDEN => {
            let verb = if is_patch { "patch" } else { "create" };
            (events::Answer::Failed, Some(forbidden(verb, "events", "findings are told in no Events")))
        }
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            (events::Answer::Failed, None)
        }
        status if status.is_client_error() => {
            tracing::debug!("no Event: {}", words(&answer));
            (events::Answer::Refused, None)
        }
        _ => (events::Answer::Failed, None),
    }
}

/// Whether it is refused because its namespace ends.
fn ends(answer: &Answer) -> bool {
    let causes = answer.body["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    causes.iter().any(|cause| cause["reason"] == "NamespaceTerminating")
}

/// `None` is no answer in time.
async fn ask(
    client: &Client,
    limit: Duration,
    method: Method,
    path: String,
    content: &str,
    body: Option<&Value>,
) -> Option<Answer> {
    let text = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method.clone()).uri(&path).header(CONTENT_TYPE, content);
    let request = request.body(Body::from(text)).ok()?;
    let answer = async {
        let (head, body) = client.send(request).await?.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = Limited::new(body, LARGEST).collect().await.map_err(kube::Error::Service)?.to_bytes();
        let body = serde_json::from_slice(&text).unwrap_or_default();
        Ok::<_, kube::Error>(Answer { status: head.status, retry_after: retry_after.map(Duration::from_secs), body })
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => {
            if !answer.status.is_success() {
                tracing::debug!(%method, path, status = answer.status.as_u16(), "{}", words(&answer));
            }
            Some(answer)
        }
        Ok(Err(error)) => {
            tracing::debug!(%method, path, %error, "no answer of the API server");
            None
        }
        Err(_) => {
            tracing::debug!(%method, path, "no answer of the API server in time");
            None
        }
    }
}

/// What it says of its refusal, in one line.
fn words(answer: &Answer) -> String {
    const LONGEST: usize = 300;
    let message = answer.body["message"].as_str().unwrap_or_default();
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if line.is_empty() { answer.status.to_string() } else { line }
}

fn forbidden(verb: &str, resource: &str, so: &str) -> Finding {
    let message = format!("it may not `{verb}` `{resource}`, so {so}");
    let finding = Finding::new(Code::ClusterForbidden, Place::default(), message);
    finding.help("run `dualgate install` again: it grants the rights that are needed")
}

/// Nothing says where the API server is.
pub(super) fn no_access(error: &AccessError) -> Finding {
    let mut message = format!("nobody writes statuses from here: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Finding::new(Code::ClusterWrite, Place::default(), message).help("it is tried again every few seconds")
}
