//! What a request says of itself besides path and query: its body, who sends it, and what it takes as an answer.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::answer::Form;
use super::protobuf;
use crate::failure::Failure;

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(super) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// Its body may be YAML; only the YAML that is JSON is read here.
pub(super) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Without its parameters.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    text(headers, &CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
}

pub(super) fn user_agent(headers: &HeaderMap) -> &str {
    text(headers, &USER_AGENT)
}

/// The bearer token that is shown.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, &AUTHORIZATION).split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) fn form(headers: &HeaderMap) -> Form {
    let wanted = text(headers, &ACCEPT);
    let is_partial = wanted.contains("as=PartialObjectMetadata");
    if is_partial { Form::Metadata } else { Form::Whole }
}

pub(super) fn accepts<'a>(headers: &'a HeaderMap, word: &str) -> Option<&'a str> {
    text(headers, &ACCEPT).split(',').map(str::trim).find(|accepted| accepted.contains(word))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The object of a request that brings one.
pub(super) fn body(headers: &HeaderMap, body: &Bytes) -> Result<Value, Failure> {
    match content_type(headers) {
        "" | JSON => json(body),
        PROTOBUF => protobuf::read(body),
        other => Err(Failure::unsupported_media_type(other, &[JSON])),
    }
}

pub(super) fn json(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: it is no JSON: {error}")))
}

/// The options of a deletion, which may be absent.
pub(super) fn options(headers: &HeaderMap, bytes: &Bytes) -> Result<Value, Failure> {
    if bytes.is_empty() { Ok(Value::Null) } else { body(headers, bytes) }
}
