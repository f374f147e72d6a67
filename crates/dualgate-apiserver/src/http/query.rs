//! What the query of a request says.

use std::time::Duration;

use serde_json::json;

use super::path::decoded;
use crate::api::{Effect, ListOptions, MatchVersion};
use crate::failure::{Cause, Failure};
use crate::kinds::Kind;
use crate::selector::Selector;

/// The parameters, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        };
        let pairs: Option<Vec<_>> = pairs.map(pair).collect();
        pairs.map(Self).ok_or_else(|| Failure::bad_request("the query of the URL is no text"))
    }

    /// Empty if it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let text = self.text(name);
        let unreadable = |_| {
            let message = format!("unable to decode query parameter: {name}: invalid value {text:?}: not a number");
            Failure::bad_request(message)
        };
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(unreadable) }
    }

    pub(super) fn selector(&self, kind: &Kind) -> Result<Selector, Failure> {
        Selector::parse(kind, self.text("labelSelector"), self.text("fieldSelector"))
    }

    /// The one object that a `fieldSelector` is about; empty for none, and for a selector that cannot be read.
    pub(super) fn name(&self, kind: &Kind) -> String {
        self.selector(kind).ok().and_then(|selector| selector.name().map(str::to_owned)).unwrap_or_default()
    }

    pub(super) fn list(&self, kind: &Kind) -> Result<ListOptions, Failure> {
        let match_version = self.match_version()?;
        Ok(ListOptions {
            selector: self.selector(kind)?,
            limit: self.number("limit")?.map(|limit| limit as usize),
            resume: Some(self.text("continue")).filter(|token| !token.is_empty()).map(str::to_owned),
            resource_version: self.text("resourceVersion").to_owned(),
            match_version,
        })
    }

    pub(super) fn match_version(&self) -> Result<Option<MatchVersion>, Failure> {
        match self.text("resourceVersionMatch") {
            "" => Ok(None),
            "Exact" => Ok(Some(MatchVersion::Exact)),
            "NotOlderThan" => Ok(Some(MatchVersion::NotOlderThan)),
            other => {
                let cause = Cause::unsupported("resourceVersionMatch", other, &["Exact", "NotOlderThan"]);
                Err(Failure::invalid_options("ListOptions", &cause))
            }
        }
    }

    pub(super) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        Ok(self.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    pub(super) fn effect(&self) -> Result<Effect, Failure> {
        match self.text("dryRun") {
            "" => Ok(Effect::Write),
            "All" => Ok(Effect::DryRun),
            other => {
                let cause = Cause::unsupported("dryRun", other, &["All"]);
                Err(Failure::invalid_options("PatchOptions", &cause))
            }
        }
    }

    /// The field manager of an apply must be named; of other writes it may be the program's name.
    pub(super) fn applier(&self) -> Result<&str, Failure> {
        let manager = self.text("fieldManager");
        let is_printable = |letter: char| !letter.is_control();
        if manager.is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Failure::invalid_options("PatchOptions", &cause));
        }
        if manager.len() > 128 || !manager.chars().all(is_printable) {
            let cause = Cause::invalid("fieldManager", &json!(manager), "must be 128 printable characters at most");
            return Err(Failure::invalid_options("PatchOptions", &cause));
        }
        Ok(manager)
    }
}
