//! Lists: now or of a version that was, whole or in pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Api, Target};
use crate::failure::{Cause, Failure};
use crate::selector::Selector;
use crate::store::{Compacted, Entry, Key, Section};

/// What a list request asks for, as its query has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) selector: Selector,
    pub(crate) limit: Option<usize>,
    /// The token of the page before.
    pub(crate) resume: Option<String>,
    /// Empty if none is given.
    pub(crate) resource_version: String,
    pub(crate) match_version: Option<MatchVersion>,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatchVersion {
    Exact,
    NotOlderThan,
}

/// A list, or a page of it.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Arc<Entry>>,
    pub(crate) version: u64,
    pub(crate) resume: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Api {
    pub(crate) fn list(&self, place: &Target, options: &ListOptions) -> Result<List, Failure> {
        let resource = place.kind.resource();
        let namespace = Some(place.namespace.as_str()).filter(|name| !name.is_empty());
        let token = options.resume.as_deref().map(Token::read).transpose()?;
        let version = match &token {
            Some(_) if !matches!(options.resource_version.as_str(), "" | "0") => {
                return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
            }
            Some(Token { version: ANY, .. }) => self.store.version(),
            Some(token) => token.version,
            None => self.listed_version(options)?,
        };
        // A list "of any version" is a real API server's cache, which knows no pages.
        let is_of_any = options.resource_version == "0" && options.match_version != Some(MatchVersion::Exact);
        let limit = options.limit.filter(|limit| *limit > 0 && !is_of_any).unwrap_or(usize::MAX);
        let behind = token.as_ref().map(|token| &token.last);
        let section = Section { resource: &resource, namespace, version, behind, limit };
        let selector = &options.selector;
        let page = self.store.page(&section, |entry| selector.matches(&entry.value));
        let page = page.map_err(|compacted| match &token {
            // Who can live with gaps may go on from there.
            Some(token) => {
                Failure { resume: Some(Token { version: ANY, last: token.last.clone() }.write()), ..expired(compacted) }
            }
            None => expired(compacted),
        })?;
        let resume = page.last.map(|last| Token { version, last }.write());
        let remaining = (resume.is_some() && selector.is_empty()).then_some(page.remaining);
        Ok(List { items: page.items, version, resume, remaining })
    }

    fn listed_version(&self, options: &ListOptions) -> Result<u64, Failure> {
        let current = self.store.version();
        let asked = self.known_version(&options.resource_version)?;
        let refuse = |why: &str| {
            let cause = Cause::forbidden("resourceVersionMatch", why);
            Err(Failure::invalid_options("ListOptions", &cause))
        };
        match (options.match_version, asked) {
            (Some(_), None) => refuse("resourceVersionMatch is forbidden unless resourceVersion is provided"),
            (Some(MatchVersion::Exact), Some(0)) => {
                refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
            }
            (Some(MatchVersion::Exact), Some(asked)) => Ok(asked),
            // The rule of before there was a choice.
            (None, Some(asked)) if asked > 0 && options.limit.is_some_and(|limit| limit > 0) => Ok(asked),
            _ => Ok(current),
        }
    }

    /// A version that is or was; `None` for an empty text.
    pub(crate) fn known_version(&self, text: &str) -> Result<Option<u64>, Failure> {
        if text.is_empty() {
            return Ok(None);
        }
        let Ok(asked) = text.parse::<u64>() else {
            let cause = Cause::invalid("resourceVersion", &json!(text), "not a number");
            return Err(Failure::invalid_options("ListOptions", &cause));
        };
        let current = self.store.version();
        if asked > current { Err(Failure::too_large_version(asked, current)) } else { Ok(Some(asked)) }
    }
}

/// A version that is forgotten, in the words of etcd's compaction.
pub(crate) fn expired(compacted: Compacted) -> Failure {
    Failure::expired(format!("too old resource version: {} ({})", compacted.asked, compacted.oldest))
}

/// In a token: whatever version there is when it comes.
const ANY: u64 = 0;

/// Where the next page begins, and of which version it is.
struct Token {
    version: u64,
    last: Key,
}

impl Token {
    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!([self.version, self.last.0, self.last.1]).to_string())
    }

    fn read(text: &str) -> Result<Self, Failure> {
        let read = || {
            let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let last = (token[1].as_str()?.to_owned(), token[2].as_str()?.to_owned());
            Some(Self { version: token[0].as_u64()?, last })
        };
        read().ok_or_else(|| Failure::bad_request("continue key is not valid: it is of no list of this server"))
    }
}
