//! What people hear of the source: how it is, what was asked, and what is wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::moment::utc;
use serde::{Deserialize, Serialize};

use super::Trouble;
use super::feed::Feed;
use super::kind::{Kind, Need};
use super::reflector::Contact;

/// How a source is, at any moment.
#[derive(Clone, Debug)]
pub struct View(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    report: Report,
    findings: Vec<Finding>,
    newest: Option<Instant>,
}

/// How a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The URL of the API server.
    pub server: String,
    /// Whether every kind that it lets us read was read, and is being watched.
    pub connected: bool,
    /// What has kept it from that, since when: empty while it is connected, and for the first moments.
    pub troubles: Vec<String>,
    /// Seconds since something last happened to an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_event_seconds: Option<u64>,
    /// The kinds that are read.
    pub kinds: Vec<KindReport>,
}

/// How a kind is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// `kind`.
    pub kind: String,
    /// How many objects there are.
    pub objects: usize,
    /// Lists that were complete.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// Requests that came to nothing.
    pub failures: u64,
    /// What watches brought.
    pub events: u64,
}

impl View {
    pub(super) fn new(server: &str) -> Self {
        let report = Report { server: server.to_owned(), ..Report::default() };
        Self(Arc::new(Mutex::new(Inner { report, findings: Vec::new(), newest: None })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        // Whoever panicked while holding it left a whole value behind.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How it is now.
    pub fn report(&self) -> Report {
        self.with(|inner| {
            let newest_event_seconds = inner.newest.map(|newest| newest.elapsed().as_secs());
            Report { newest_event_seconds, ..inner.report.clone() }
        })
    }

    /// What is wrong between us and the server; a set has these findings, too, once there is one.
    pub fn findings(&self) -> Vec<Finding> {
        self.with(|inner| inner.findings.clone())
    }

    pub(super) fn server(&self, server: &str) {
        self.with(|inner| inner.report.server = server.to_owned());
    }

    pub(super) fn update(&self, feeds: &[Feed], troubles: &[Trouble]) {
        let is_well = |feed: &Feed| feed.was_listed() && matches!(feed.reflector.contact(), Contact::Well(_));
        let kind = |feed: &Feed| {
            let counters = feed.reflector.counters();
            KindReport {
                kind: feed.kind.name().to_owned(),
                objects: feed.store.len(),
                lists: counters.lists,
                watches: counters.watches,
                failures: counters.failures,
                events: counters.events,
            }
        };
        self.with(|inner| {
            inner.report.connected = feeds.iter().all(is_well);
            inner.report.kinds = feeds.iter().map(kind).collect();
            inner.report.troubles = troubles.iter().map(|trouble| trouble.finding.message.clone()).collect();
            inner.newest = feeds.iter().filter_map(|feed| feed.newest).max();
            if !troubles.iter().map(|trouble| &trouble.finding).eq(&inner.findings) {
                inner.findings = troubles.iter().map(|trouble| trouble.finding.clone()).collect();
            }
        });
    }
}

pub(super) fn away(server: &str, silent: &[Kind], since: i64, why: &str) -> Finding {
    let names: Vec<&str> = silent.iter().map(|kind| kind.name()).collect();
    let what = if silent.len() == Kind::ALL.len() { String::new() } else { format!(" for {}", names.join(", ")) };
    let message = format!("the Kubernetes API {server} has not answered{what} since {}: {why}", utc(since));
    let todo = match why {
        _ if why.contains("received fatal alert") => {
            "it does not take the certificate of the kubeconfig: make a new one; it is read again by itself".to_owned()
        }
        _ if why.contains("invalid peer certificate") => {
            "its certificate is none that the kubeconfig says to believe: see `certificate-authority-data` and `server` \
             there; it is read again by itself"
                .to_owned()
        }
        _ => format!("see whether it runs and this node reaches it: `curl -k {server}readyz`"),
    };
    Finding::new(Code::ClusterAway, Place::default(), message).help(format!("what it said last stays; {todo}"))
}

pub(super) fn unknown(server: &str, why: &str) -> Finding {
    let message = format!("the Kubernetes API {server} does not know who asks (401): {why}");
    let help = "the credentials have expired or were revoked: make a new kubeconfig; it is read again by itself";
    Finding::new(Code::ClusterForbidden, Place::default(), message).help(help)
}

pub(super) fn forbidden(server: &str, kind: Kind, was_listed: bool, why: &str) -> Finding {
    let message = format!("the Kubernetes API {server} lets nobody here read {}: {why}", kind.resource());
    let group = if kind.group().is_empty() { "core".to_owned() } else { format!("`{}`", kind.group()) };
    let rule = format!("grant the verbs `list` and `watch` of `{}` (API group {group})", kind.resource());
    let without = match (was_listed, kind.need()) {
        (true, _) => "what was read before stays".to_owned(),
        (false, Need::Required) => "until then nothing of this cluster is served".to_owned(),
        (false, Need::Desired(without)) => format!("until then {without}"),
    };
    Finding::new(Code::ClusterForbidden, Place::default(), message).help(format!("{rule}; {without}"))
}

pub(super) fn absent(server: &str, kind: Kind, why: &str) -> Finding {
    let message = format!("what answers at {server} has no {} of `{}`: {why}", kind.resource(), kind.api_version());
    Finding::new(Code::ClusterForbidden, Place::default(), message)
        .help("a Kubernetes API of version 1.21 or later is needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://192.168.178.5:6443/";

    #[test]
    fn a_refusal_names_verbs_and_resource_and_what_goes_without() {
        let finding = forbidden(SERVER, Kind::Secret, false, "secrets is forbidden");
        assert_eq!(
            finding.message,
            "the Kubernetes API https://192.168.178.5:6443/ lets nobody here read secrets: secrets is forbidden"
        );
        assert_eq!(
            finding.help,
            "grant the verbs `list` and `watch` of `secrets` (API group core); until then the default certificate is \
             shown for every host"
        );
        let finding = forbidden(SERVER, Kind::Ingress, false, "");
        assert!(
            finding.help.contains("`ingresses` (API group `networking.k8s.io`); until then nothing"),
            "{finding:?}"
        );
        assert!(forbidden(SERVER, Kind::Ingress, true, "").help.ends_with("what was read before stays"));
    }

    #[test]
    fn who_is_away_is_said_with_the_time() {
        let all = away(SERVER, &Kind::ALL, 1_795_339_801, "Connection refused (os error 111)");
        assert_eq!(
            all.message,
            "the Kubernetes API https://192.168.178.5:6443/ has not answered since 2026-11-22T09:30:01Z: Connection \
             refused (os error 111)"
        );
        let some = away(SERVER, &[Kind::Ingress, Kind::Node], 0, "x");
        assert!(some.message.contains("has not answered for Ingress, Node since 1970-01-01"), "{some:?}");
    }
}
