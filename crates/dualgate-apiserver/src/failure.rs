//! Why a request is refused: a `Status` with the code, reason and words of a real API server, because clients act on
//! each of them.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// A refusal. Its JSON form is a `Status` of `v1`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The status code of HTTP.
    pub code: u16,
    /// The word that clients compare.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the `Status`, or null.
    pub details: Value,
    /// Goes on a list that expired: where to go on if gaps do not matter.
    pub(crate) resume: Option<String>,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    reason: &'static str,
    message: String,
    field: String,
}

impl Cause {
    pub(crate) fn required(field: &str, why: &str) -> Self {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        Self { reason: "FieldValueRequired", message: format!("Required value{why}"), field: field.to_owned() }
    }

    pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Self {
        let message = format!("Invalid value: {value}: {why}");
        Self { reason: "FieldValueInvalid", message, field: field.to_owned() }
    }

    pub(crate) fn unsupported(field: &str, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", message, field: field.to_owned() }
    }

    pub(crate) fn forbidden(field: &str, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.to_owned() }
    }

    pub(crate) fn not_found(field: &str, value: &str) -> Self {
        Self { reason: "FieldValueNotFound", message: format!("Not found: {value:?}"), field: field.to_owned() }
    }

    /// A field that somebody else applied.
    pub(crate) fn conflict(field: String, manager: &str) -> Self {
        Self { reason: "FieldManagerConflict", message: format!("conflict with {manager}"), field }
    }

    fn to_json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: Value::Null, resume: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }

    pub(crate) fn no_such_path() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource".to_owned());
        failure.details = json!({});
        failure
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource())).about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// Server-side apply met fields of others. Each has its cause.
    pub(crate) fn contested(causes: &[Cause]) -> Self {
        let (count, plural) = (causes.len(), if causes.len() == 1 { "" } else { "s" });
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for cause in causes {
            match lines.iter_mut().find(|(message, _)| *message == cause.message) {
                Some((_, fields)) => fields.push(&cause.field),
                None => lines.push((cause.message.clone(), vec![&cause.field])),
            }
        }
        let who = lines.iter().map(|(message, fields)| match fields.as_slice() {
            [field] => format!("{message}: {field}"),
            fields => {
                let message = message.replacen("conflict", "conflicts", 1);
                format!("{message}:\n- {}", fields.join("\n- "))
            }
        });
        let message = format!("Apply failed with {count} conflict{plural}: {}", who.collect::<Vec<_>>().join("\n"));
        let mut failure = Self::new(409, "Conflict", message);
        failure.details = json!({"causes": causes.iter().map(Cause::to_json).collect::<Vec<_>>()});
        failure
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let words: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let words = if let [one] = words.as_slice() { one.clone() } else { format!("[{}]", words.join(", ")) };
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        let message = format!("{}{group} {name:?} is invalid: {words}", kind.kind);
        let mut failure = Self::new(422, "Invalid", message);
        let causes: Vec<Value> = causes.iter().map(Cause::to_json).collect();
        failure.details = json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        failure
    }

    /// The options of a request contradict themselves.
    pub(crate) fn invalid_options(of: &str, cause: &Cause) -> Self {
        let message = format!("{of}.meta.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
        let mut failure = Self::new(422, "Invalid", message);
        failure.details = json!({"group": "meta.k8s.io", "kind": of, "causes": [cause.to_json()]});
        failure
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", kind.resource())).about(kind, name)
    }

    /// Nobody knows who asks.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    /// Whoever asks may not do that.
    pub(crate) fn not_allowed(message: String, details: Value) -> Self {
        Self { details, ..Self::new(403, "Forbidden", message) }
    }

    /// A version that the history does not reach back to.
    pub(crate) fn expired(message: String) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A version that does not exist yet.
    pub(crate) fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        failure.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        failure
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(crate) fn unsupported_media_type(given: &str, supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({given:?}) - accepted media types include: {}",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// What a server says that has other sorrows.
    pub(crate) fn of_code(code: u16, retry_after: Option<u32>) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden: an injected fault"),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            500 => ("InternalError", "Internal error occurred: an injected fault"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("Unknown", "an injected fault"),
        };
        let mut failure = Self::new(code, reason, message.to_owned());
        if let Some(seconds) = retry_after {
            failure.details = json!({"retryAfterSeconds": seconds});
        }
        failure
    }

    /// As the body of an answer.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(resume) = &self.resume {
            metadata["continue"] = json!(resume);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
