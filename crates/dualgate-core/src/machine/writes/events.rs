//! Findings as Events of the objects that they are about, without flooding.
//!
//! One Event per object and code, for errors and warnings only. What is found again, or still found when its Event is
//! about to be forgotten by the API server, is counted up in that Event. [`EACH`] and [`BURST`] bound the rate whatever is
//! found; what was found first is said first.
//!
//! Events of `v1`, not of `events.k8s.io/v1`: both are one store, but only in the former do all versions of
//! `kubectl describe` find a time and a count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::finding::{Code, Finding, Severity};
use crate::model::{Digest, ObjectKey, ObjectSet, Text, Uid};
use crate::parse::{object, time};

/// How many Events may be written at once after a rest.
pub const BURST: u32 = 20;

/// How often one more may be.
pub const EACH: Duration = Duration::from_secs(6);

/// How long an Event stays as it is.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// What is still found is said again before the API server forgets it (an hour, unless changed).
const REMIND: Duration = Duration::from_secs(50 * 60);

/// The pauses after failures: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest message that the API server takes in every version, in octets.
const LONGEST_MESSAGE: usize = 1024;

/// What is to be asked of the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// To create an Event.
    Create {
        /// Its namespace.
        namespace: Text,
        /// The Event.
        event: Value,
    },
    /// To count one up: a merge patch.
    Count {
        /// Its namespace.
        namespace: Text,
        /// Its name.
        name: String,
        /// What changes.
        patch: Value,
    },
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was made.
    Made,
    /// There is one already: a predecessor said it within the hour.
    Exists,
    /// There is none any more.
    Gone,
    /// It will not be made, however often it is asked for: its namespace ends, for example.
    Refused,
    /// It could not be made.
    Failed,
}

/// What is said, and when.
#[derive(Clone, Debug)]
pub struct Events {
    /// Who says it.
    node: Text,
    said: BTreeMap<Id, Said>,
    /// When which is to be said.
    agenda: BTreeSet<(Duration, Id)>,
    under_way: Option<Id>,
    /// Until when the rate has been used up.
    used: Duration,
    pause: Duration,
    failures: u32,
    made: u64,
}

/// Also which object of that name: `kubectl describe` asks for the Events of a UID.
type Id = (ObjectKey, Uid, Code);

#[derive(Clone, Debug)]
struct Said {
    message: String,
    /// Whether it is found at present.
    is_found: bool,
    /// Whether the Event exists, as far as is known.
    exists: bool,
    count: u32,
    /// When it was said first, in seconds since 1970.
    first: i64,
    /// When it was said last.
    last: Option<Duration>,
    /// Where it stands in the agenda.
    at: Option<Duration>,
}

impl Events {
    /// Nothing was said yet.
    pub fn new(node: impl Into<Text>) -> Self {
        Self {
            node: node.into(),
            said: BTreeMap::new(),
            agenda: BTreeSet::new(),
            under_way: None,
            used: Duration::ZERO,
            pause: Duration::ZERO,
            failures: 0,
            made: 0,
        }
    }

    /// Hears everything that is found at present.
    pub fn want<'a>(&mut self, findings: impl Iterator<Item = &'a Finding>, objects: &ObjectSet, now: Duration) {
        let mut found: BTreeMap<Id, (String, u32)> = BTreeMap::new();
        for finding in findings.filter(|finding| finding.severity != Severity::Note) {
            let Some(key) = finding.at.object.as_ref().filter(|key| object::api_version(&key.kind).is_some()) else {
                continue;
            };
            found.entry((key.clone(), uid(objects, key), finding.code)).or_insert_with(|| (text(finding), 0)).1 += 1;
        }
        let gone: Vec<Id> = self.said.keys().filter(|id| !found.contains_key(*id)).cloned().collect();
        gone.iter().for_each(|id| self.is_gone(id, now));
        for (id, (mut message, times)) in found {
            if times > 1 {
                let _ = write!(message, " (and {} more)", times - 1);
            }
            match self.said.get(&id) {
                Some(said) if said.is_found && said.message == message => {}
                Some(_) => self.is_found(&id, message, now),
                None => {
                    self.said.insert(id.clone(), Said::new(message));
                    self.schedule(&id, Some(now));
                }
            }
        }
    }

    /// What is to be asked at `now`; `wall` is in seconds since 1970.
    pub fn poll_request(&mut self, now: Duration, wall: i64) -> Option<Request> {
        if self.poll_timeout()? > now {
            return None;
        }
        let (_, id) = self.agenda.first()?.clone();
        self.schedule(&id, None);
        let said = self.said.get_mut(&id)?;
        self.used = self.used.max(now) + EACH;
        said.last = Some(now);
        said.count += 1;
        if said.count == 1 || !said.exists {
            (said.count, said.first) = (1, wall);
        }
        self.under_way = Some(id.clone());
        Some(request(&self.node, &id, &self.said[&id], wall))
    }

    /// When something may be to be asked.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let (at, _) = self.agenda.first().filter(|_| self.under_way.is_none())?;
        Some((*at).max(self.pause).max(self.used.saturating_sub(EACH * (BURST - 1))))
    }

    /// What became of it.
    pub fn handle_answer(&mut self, answer: Answer, now: Duration) {
        let Some(id) = self.under_way.take() else { return };
        let Some(said) = self.said.get_mut(&id) else { return };
        let again = match answer {
            Answer::Made | Answer::Exists => {
                self.failures = 0;
                self.made += u64::from(answer == Answer::Made);
                said.exists = true;
                now + REMIND
            }
            Answer::Gone => {
                said.exists = false;
                now
            }
            Answer::Refused => {
                said.count -= 1;
                now + REMIND
            }
            Answer::Failed => {
                said.count -= 1;
                self.pause = now + super::doubled(PAUSE, self.failures);
                self.failures = self.failures.saturating_add(1);
                now
            }
        };
        if said.is_found && said.at.is_none() {
            self.schedule(&id, Some(again));
        }
    }

    /// The Lease is lost: others say it.
    pub fn forget_all(&mut self) {
        *self = Self { made: self.made, ..Self::new(self.node.clone()) };
    }

    /// How many were written, over all Leases.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// It is found again, or in other words.
    fn is_found(&mut self, id: &Id, message: String, now: Duration) {
        let Some(said) = self.said.get_mut(id) else { return };
        (said.is_found, said.message) = (true, message);
        let at = said.last.map_or(now, |last| now.max(last + AGAIN));
        self.schedule(id, Some(at));
    }

    /// It is not found any more. It is remembered for as long as its Event may be there.
    fn is_gone(&mut self, id: &Id, now: Duration) {
        let Some(said) = self.said.get_mut(id) else { return };
        said.is_found = false;
        let is_old = said.last.is_none_or(|last| now >= last + REMIND);
        self.schedule(id, None);
        if is_old && self.under_way.as_ref() != Some(id) {
            self.said.remove(id);
        }
    }

    fn schedule(&mut self, id: &Id, at: Option<Duration>) {
        let Some(said) = self.said.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut said.at, at) {
            self.agenda.remove(&(before, id.clone()));
        }
        self.agenda.extend(at.map(|at| (at, id.clone())));
    }
}

impl Said {
    fn new(message: String) -> Self {
        Self { message, is_found: true, exists: false, count: 0, first: 0, last: None, at: None }
    }
}

fn uid(objects: &ObjectSet, key: &ObjectKey) -> Uid {
    let found = objects.objects.binary_search_by(|object| object.key.cmp(key));
    found.map_or(Uid::None, |index| objects.objects[index].meta.uid.clone())
}

fn text(finding: &Finding) -> String {
    let mut text = String::new();
    if !finding.at.field.is_empty() {
        let _ = write!(text, "{}: ", finding.at.field);
    }
    text.push_str(&finding.message);
    if !finding.help.is_empty() {
        let _ = write!(text, "; {}", finding.help);
    }
    // Room is left for how many more there are.
    let room = LONGEST_MESSAGE - 40;
    if text.len() > room {
        text.truncate((0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
        text.push('…');
    }
    text
}

fn request(node: &str, id: &Id, said: &Said, wall: i64) -> Request {
    let (key, uid, code) = id;
    // Events of what has no namespace lie in `default`.
    let namespace = if key.name.namespace.is_empty() { "default".into() } else { key.name.namespace.clone() };
    let (name, now) = (name(id), time::rfc3339(wall));
    if said.exists {
        let patch = json!({ "count": said.count, "lastTimestamp": now, "message": said.message });
        return Request::Count { namespace, name, patch };
    }
    let mut involved = json!({
        "apiVersion": object::api_version(&key.kind), "kind": &*key.kind, "name": &*key.name.name,
    });
    for (field, value) in [("namespace", key.name.namespace.to_string()), ("uid", uid.to_string())] {
        if !value.is_empty() {
            involved[field] = value.into();
        }
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": &*namespace },
        "involvedObject": involved, "type": "Warning", "reason": reason(*code), "message": said.message,
        "count": 1, "firstTimestamp": now, "lastTimestamp": now,
        "source": { "component": "dualgate", "host": node },
        "reportingComponent": "dualgate", "reportingInstance": node,
    });
    Request::Create { namespace, event }
}

/// The same for the same object and code, whoever says it.
fn name((key, uid, code): &Id) -> String {
    let digest = Digest::of(format!("{key} {uid} {code}").as_bytes()).to_string();
    // At most 253 characters, of which the last before the point is none of `.` and `-`.
    let object: String = key.name.name.chars().take(200).collect();
    format!("{}.{:.16}", object.trim_end_matches(['.', '-']), digest)
}

/// `ingress-unknown-service` is `IngressUnknownService`.
fn reason(code: Code) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    code.id().split('-').map(capital).collect()
}
