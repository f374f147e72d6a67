//! Answers: a body at once, or one that goes on until the watch ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Deleted, List};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::store::Entry;

/// How objects are written into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `as=PartialObjectMetadata`.
    Metadata,
}

/// A stream was cut on purpose: the connection ends with it.
#[derive(Debug, thiserror::Error)]
#[error("the stream was cut")]
pub(crate) struct Cut;

/// The body of an answer.
pub(crate) enum Content {
    Whole(Option<Bytes>),
    Events(Events),
}

/// Chunks as the watch says them.
pub(crate) struct Events {
    chunks: mpsc::Receiver<Result<Bytes, Cut>>,
    is_cut: bool,
}

pub(crate) type Answer = Response<Content>;

impl Body for Content {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

impl Events {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.is_cut {
            return Poll::Ready(Some(Err(Cut)));
        }
        match ready!(self.chunks.poll_recv(context)) {
            None => Poll::Ready(None),
            Some(Ok(chunk)) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Some(Err(Cut)) => {
                // What was said before is sent while nothing follows; an error throws it away.
                self.is_cut = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

pub(super) fn with_type(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Content::Whole(Some(body.into())));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(super) fn json(code: u16, body: impl Into<Bytes>) -> Answer {
    with_type(code, "application/json", body)
}

pub(super) fn events(chunks: mpsc::Receiver<Result<Bytes, Cut>>) -> Answer {
    let mut answer = Response::new(Content::Events(Events { chunks, is_cut: false }));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn failure(failure: &Failure) -> Answer {
    let mut answer = json(failure.code, failure.to_json().to_string());
    if let Some(seconds) = failure.details["retryAfterSeconds"].as_u64() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// What became of one object that was to be deleted.
pub(super) fn deleted(kind: &Kind, name: &str, deleted: &Deleted) -> Answer {
    match deleted {
        Deleted::Gone(entry) if !kind.deletion_answers_the_object() => {
            let uid = &entry.value["metadata"]["uid"];
            let details = json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": uid});
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            json(200, status.to_string())
        }
        Deleted::Gone(entry) | Deleted::Waiting(entry) => json(200, object(kind, entry, Form::Whole)),
    }
}

/// An object with its type, from the bytes that were made when it was written.
pub(super) fn object(kind: &Kind, entry: &Entry, form: Form) -> Bytes {
    match form {
        Form::Whole => typed(&kind.api_version(), &kind.kind, &entry.json),
        Form::Metadata => metadata_of(entry),
    }
}

fn typed(api_version: &str, kind: &str, json: &[u8]) -> Bytes {
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",");
    let mut bytes = BytesMut::with_capacity(head.len() + json.len());
    bytes.put_slice(head.as_bytes());
    // Every object has metadata, so that something follows the brace.
    bytes.put_slice(&json[1..]);
    bytes.freeze()
}

fn metadata_of(entry: &Entry) -> Bytes {
    typed(
        "meta.k8s.io/v1",
        "PartialObjectMetadata",
        json!({"metadata": entry.value["metadata"]}).to_string().as_bytes(),
    )
}

pub(super) fn list(kind: &Kind, list: &List, form: Form) -> Bytes {
    let mut metadata = json!({"resourceVersion": list.version.to_string()});
    if let Some(resume) = &list.resume {
        metadata["continue"] = json!(resume);
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let (api_version, name) = match form {
        Form::Whole => (kind.api_version(), format!("{}List", kind.kind)),
        Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
    };
    let head = format!("{{\"kind\":\"{name}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    let size: usize = list.items.iter().map(|item| item.json.len() + 100).sum();
    let mut bytes = BytesMut::with_capacity(head.len() + size + 3);
    bytes.put_slice(head.as_bytes());
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            bytes.put_u8(b',');
        }
        match form {
            // Items of built-in kinds do not say what they are.
            Form::Whole if !kind.custom => bytes.put_slice(&item.json),
            Form::Whole | Form::Metadata => bytes.put_slice(&object(kind, item, form)),
        }
    }
    bytes.put_slice(b"]}\n");
    bytes.freeze()
}

/// One line of a watch.
pub(super) fn event(what: &str, object: &[u8]) -> Bytes {
    let head = format!("{{\"type\":\"{what}\",\"object\":");
    let mut bytes = BytesMut::with_capacity(head.len() + object.len() + 2);
    bytes.put_slice(head.as_bytes());
    bytes.put_slice(object);
    bytes.put_slice(b"}\n");
    bytes.freeze()
}

pub(super) fn value(code: u16, value: &Value) -> Answer {
    json(code, value.to_string())
}

/// Answers never fail; hyper wants to be told so.
pub(crate) type Answered = Result<Answer, Infallible>;
