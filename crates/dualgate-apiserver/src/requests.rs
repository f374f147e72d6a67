//! What was asked of the server, so that tests can count it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::USER_AGENT;

use crate::api::{Part, Target};

/// So many are remembered; then the oldest are forgotten.
const REMEMBERED: usize = 200_000;

/// What a request wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object, or something about the server.
    Get,
    /// Objects of a kind.
    List,
    /// What happens to them.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH in any language but apply.
    Patch,
    /// Server-side apply.
    Apply,
    /// One object.
    Delete,
    /// All that match.
    DeleteCollection,
    /// No method of this API.
    Other,
}

/// One request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it wanted.
    pub verb: Verb,
    /// The path as it came, without the query.
    pub path: String,
    /// What stood behind the path's `?`; empty if nothing did.
    pub query: String,
    /// `ingresses.networking.k8s.io`; empty if it was about no objects.
    pub resource: String,
    /// `status`, or empty.
    pub subresource: &'static str,
    /// Empty for all namespaces, and for what lies in none.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    /// As the query names it; empty if it does not.
    pub field_manager: String,
    /// Who asked; empty where that does not count or is not known.
    pub user: String,
    /// As the client calls itself.
    pub user_agent: String,
    /// How it was answered.
    pub code: u16,
}

/// All of them, in the order of their answers. A watch is answered when it begins.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    answered: Mutex<VecDeque<Request>>,
    more: Condvar,
}

impl Verb {
    /// Whether it is meant to change objects.
    pub fn is_write(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Patch | Self::Apply | Self::Delete | Self::DeleteCollection => true,
            Self::Get | Self::List | Self::Watch | Self::Other => false,
        }
    }
}

impl Request {
    pub(crate) fn unanswered<B>(request: &http::Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager="));
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            verb: Verb::Other,
            path: request.uri().path().to_owned(),
            query: query.to_owned(),
            resource: String::new(),
            subresource: "",
            namespace: String::new(),
            name: String::new(),
            field_manager: manager.unwrap_or_default().to_owned(),
            user: String::new(),
            user_agent: user_agent.unwrap_or_default().to_owned(),
            code: 0,
        }
    }

    pub(crate) fn is_about(&mut self, target: &Target) {
        self.resource = target.kind.resource();
        self.namespace.clone_from(&target.namespace);
        self.name.clone_from(&target.name);
        self.subresource = match target.part {
            Part::Main => "",
            Part::Status => "status",
        };
    }

    /// Whether it is a write that was not refused.
    pub fn has_written(&self) -> bool {
        self.verb.is_write() && (200..300).contains(&self.code)
    }
}

impl Requests {
    pub(crate) fn push(&self, request: Request) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.len() == REMEMBERED {
            answered.pop_front();
        }
        answered.push_back(request);
        drop(answered);
        self.more.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn forget(&self) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut(&[Request]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(answered.make_contiguous()) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            answered = self.more.wait_timeout(answered, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
