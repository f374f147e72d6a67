//! Watches: what happens from a version on, one line of JSON each, until somebody ends it.
//!
//! A watch keeps no queue. It remembers how far it has come in the history, and reads on from there when told that there
//! is more; one that comes too late for the history gets 410, as from etcd.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, sleep_until};

use super::answer::{self, Answer, Cut, Form};
use super::query::Query;
use crate::api::{ListOptions, MatchVersion, Target, expired};
use crate::failure::{Cause, Failure};
use crate::faults::Held;
use crate::selector::Selector;
use crate::shared::Shared;
use crate::store::{Change, Happened};

/// Without `timeoutSeconds`: the shortest that a real API server takes.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Chunks that wait for a client; then the watch itself waits.
const AHEAD: usize = 4;
/// Events in one chunk at most.
const AT_ONCE: usize = 256;

struct Watch {
    shared: Arc<Shared>,
    place: Target,
    selector: Selector,
    form: Form,
    bookmarks: bool,
    /// Everything up to here was said.
    version: u64,
    /// Since the last fault was set that counts them.
    events: usize,
    out: Sender<Result<Bytes, Cut>>,
}

/// The watch is over.
struct Ended;

pub(super) fn start(shared: &Arc<Shared>, place: &Target, query: &Query, form: Form) -> Result<Answer, Failure> {
    let selector = selector(place, query)?;
    let bookmarks = query.is_set("allowWatchBookmarks");
    let initial = initial(query)?;
    let timeout = query.timeout()?.unwrap_or(TIMEOUT);
    let (version, listed) = shared.look(|api| {
        let asked = api.known_version(query.text("resourceVersion"))?;
        let options = ListOptions { selector: selector.clone(), ..ListOptions::default() };
        match (initial, asked) {
            (Initial::Never, asked) => Ok((asked.filter(|asked| *asked > 0).unwrap_or(api.store.version()), None)),
            (Initial::IfNoVersion, Some(asked)) if asked > 0 => Ok((asked, None)),
            (Initial::IfNoVersion | Initial::Always, _) => {
                let list = api.list(place, &options)?;
                Ok((list.version, Some(list.items)))
            }
        }
    })?;
    // A version that is forgotten already is told by the status code.
    shared.look(|api| api.store.changes(&place.kind.resource(), version).map(drop).map_err(expired))?;
    let (out, events) = mpsc::channel(AHEAD);
    let mut watch =
        Watch { shared: shared.clone(), place: place.clone(), selector, form, bookmarks, version, events: 0, out };
    tokio::spawn(async move {
        let said = match listed {
            None => Ok(()),
            Some(items) => watch.say_initial(&items, initial).await,
        };
        if said.is_ok() {
            // It has ended, however it did.
            let _ = watch.run(Instant::now() + timeout).await;
        }
    });
    Ok(answer::events(events))
}

/// Whether a watch begins with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initial {
    IfNoVersion,
    /// `sendInitialEvents=true`: and a bookmark behind it.
    Always,
    Never,
}

fn initial(query: &Query) -> Result<Initial, Failure> {
    let forbid = |field: &str, why: &str| Err(Failure::invalid_options("ListOptions", &Cause::forbidden(field, why)));
    let matches = query.match_version()?;
    match query.text("sendInitialEvents") {
        "" if matches.is_some() => forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        "" => Ok(Initial::IfNoVersion),
        _ if matches != Some(MatchVersion::NotOlderThan) => {
            forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        "true" | "1" => Ok(Initial::Always),
        _ => Ok(Initial::Never),
    }
}

/// A watch of one object is one of its collection, by name.
fn selector(place: &Target, query: &Query) -> Result<Selector, Failure> {
    if place.name.is_empty() {
        return query.selector(&place.kind);
    }
    Selector::parse(&place.kind, "", &format!("metadata.name={}", place.name))
}

impl Watch {
    async fn say_initial(&mut self, items: &[Arc<crate::store::Entry>], initial: Initial) -> Result<(), Ended> {
        self.wait_while_held().await?;
        for chunk in items.chunks(AT_ONCE) {
            let lines: Vec<Bytes> = chunk
                .iter()
                .map(|item| answer::event("ADDED", &answer::object(&self.place.kind, item, self.form)))
                .collect();
            self.say(&lines).await?;
        }
        if initial == Initial::Always && self.bookmarks {
            let end = json!({"k8s.io/initial-events-end": "true"});
            self.say_bookmark(&json!({"resourceVersion": self.version.to_string(), "annotations": end})).await?;
        }
        Ok(())
    }

    async fn run(&mut self, end: Instant) -> Result<(), Ended> {
        let (mut versions, mut faults) = (self.shared.versions(), self.shared.faults.watch());
        let mut bookmark = Instant::now() + self.shared.options.bookmark_interval;
        loop {
            // What changes from here on is looked at in the next round.
            faults.borrow_and_update();
            versions.borrow_and_update();
            self.wait_while_held().await?;
            self.say_changes().await?;
            let out = self.out.clone();
            tokio::select! {
                changed = versions.changed() => changed.map_err(|_| Ended)?,
                changed = faults.changed() => changed.map_err(|_| Ended)?,
                () = out.closed() => return Err(Ended),
                () = sleep_until(bookmark), if self.bookmarks => {
                    bookmark = Instant::now() + self.shared.options.bookmark_interval;
                    self.say_bookmark(&json!({"resourceVersion": self.version.to_string()})).await?;
                }
                () = sleep_until(end) => {
                    if self.bookmarks {
                        self.say_bookmark(&json!({"resourceVersion": self.version.to_string()})).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn say_changes(&mut self) -> Result<(), Ended> {
        loop {
            let resource = self.place.kind.resource();
            let read = self.shared.look(|api| {
                let current = api.store.version();
                let changes = api.store.changes(&resource, self.version)?;
                let changes: Vec<Change> = changes.take(AT_ONCE).cloned().collect();
                // Fewer than asked for: there is nothing further up to now.
                let reached = if changes.len() < AT_ONCE { current } else { changes[AT_ONCE - 1].version };
                Ok((changes, reached, reached == current))
            });
            let (changes, reached, is_all) = match read {
                Ok(read) => read,
                Err(compacted) => {
                    let status = expired(compacted).to_json().to_string();
                    self.say(&[answer::event("ERROR", status.as_bytes())]).await?;
                    return Err(Ended);
                }
            };
            let lines: Vec<Bytes> = changes.iter().filter_map(|change| self.line(change)).collect();
            self.say(&lines).await?;
            self.version = reached;
            if is_all {
                return Ok(());
            }
        }
    }

    /// What a change is to this watch: an object that stops to match is deleted for it.
    fn line(&self, change: &Change) -> Option<Bytes> {
        if !self.place.namespace.is_empty() && change.key.0 != self.place.namespace {
            return None;
        }
        let matched = change.before.as_ref().is_some_and(|before| self.selector.matches(&before.value));
        let matches = change.happened != Happened::Deleted && self.selector.matches(&change.object.value);
        let what = match (matched, matches) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(answer::event(what, &answer::object(&self.place.kind, &change.object, self.form)))
    }

    async fn say_bookmark(&self, metadata: &serde_json::Value) -> Result<(), Ended> {
        let kind = &self.place.kind;
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        let line = answer::event("BOOKMARK", object.to_string().as_bytes());
        self.out.send(Ok(line)).await.map_err(|_| Ended)
    }

    /// Says lines as one chunk, up to where the watch is to be cut.
    async fn say(&mut self, lines: &[Bytes]) -> Result<(), Ended> {
        let left = self.shared.faults.events_left(self.events);
        let said = &lines[..lines.len().min(left.unwrap_or(usize::MAX))];
        self.events += said.len();
        if !said.is_empty() {
            let mut chunk = BytesMut::with_capacity(said.iter().map(Bytes::len).sum());
            said.iter().for_each(|line| chunk.extend_from_slice(line));
            self.out.send(Ok(chunk.freeze())).await.map_err(|_| Ended)?;
        }
        if left.is_some_and(|left| left <= lines.len()) {
            // The client may be gone before it can be told.
            let _ = self.out.send(Err(Cut)).await;
            return Err(Ended);
        }
        Ok(())
    }

    async fn wait_while_held(&self) -> Result<(), Ended> {
        let mut faults = self.shared.faults.watch();
        let free = faults.wait_for(|state| state.held == Held::Free);
        tokio::select! {
            free = free => free.map(drop).map_err(|_| Ended),
            () = self.out.closed() => Err(Ended),
        }
    }
}
