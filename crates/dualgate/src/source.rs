//! Where objects come from, and how that is: written by whoever watches the source, read by the river and the admin
//! listener. It is known before there is any object.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_kube::source::{KindReport, Report as ClusterReport, View};
use serde::{Deserialize, Serialize};

/// Shared between the task that watches the source and those who ask.
#[derive(Clone, Default)]
pub struct SourceStatus(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    source: Source,
    failed: Option<Finding>,
}

#[derive(Default)]
enum Source {
    #[default]
    Unopened,
    Folder(String),
    Home,
    Cluster(View),
}

/// What `dualgate status` shows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Such as `folder manifests`.
    pub name: String,
    /// How the cluster is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReport>,
}

impl SourceStatus {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        // Whoever panicked while holding it left a whole value behind.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn opened(&self, source: Source) {
        self.with(|inner| *inner = Inner { source, failed: None });
    }

    /// A folder is watched.
    pub fn folder(&self, directory: &Path) {
        self.opened(Source::Folder(directory.display().to_string()));
    }

    /// Home is heard.
    pub fn home(&self) {
        self.opened(Source::Home);
    }

    /// A cluster is watched.
    pub fn cluster(&self, view: View) {
        self.opened(Source::Cluster(view));
    }

    /// It cannot be watched.
    pub fn failed(&self, error: &anyhow::Error) {
        let finding = Finding::new(Code::Unreadable, Place::default(), format!("the source cannot be read: {error:#}"));
        self.with(|inner| inner.failed = Some(finding.help("it is tried again every second")));
    }

    /// What keeps it from yielding a first set; later sets bring their findings with them.
    pub fn findings(&self) -> Vec<Finding> {
        self.with(|inner| {
            let of_cluster = match &inner.source {
                Source::Cluster(view) => view.findings(),
                Source::Unopened | Source::Folder(_) | Source::Home => Vec::new(),
            };
            inner.failed.iter().cloned().chain(of_cluster).collect()
        })
    }

    /// How it is.
    pub fn report(&self) -> Report {
        self.with(|inner| match &inner.source {
            Source::Unopened => Report::default(),
            Source::Folder(directory) => Report { name: format!("folder {directory}"), cluster: None },
            Source::Home => Report { name: "home".to_owned(), cluster: None },
            Source::Cluster(view) => {
                let cluster = view.report();
                Report { name: format!("cluster {}", cluster.server), cluster: Some(cluster) }
            }
        })
    }
}

impl Report {
    /// A line for people; `None` before it was opened.
    pub fn line(&self) -> Option<String> {
        let state = match &self.cluster {
            None => "",
            Some(cluster) if cluster.connected => ", connected",
            Some(cluster) if cluster.troubles.is_empty() => ", not connected yet",
            Some(_) => ", not connected",
        };
        (!self.name.is_empty()).then(|| format!("{}{state}", self.name))
    }

    /// The metrics of a cluster; nothing for other sources.
    pub fn write_metrics(&self, out: &mut String) {
        let Some(cluster) = &self.cluster else { return };
        let gauge = |out: &mut String, name: &str, help: &str, value: Option<u64>| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
            if let Some(value) = value {
                let _ = writeln!(out, "{name} {value}");
            }
        };
        let is_connected = "1 while every kind of the Kubernetes API is watched.";
        gauge(out, "dualgate_cluster_connected", is_connected, Some(u64::from(cluster.connected)));
        let age = "Since the Kubernetes API last told of a change; absent before it has.";
        gauge(out, "dualgate_cluster_newest_event_seconds", age, cluster.newest_event_seconds);
        let mut family = |name: &str, kind: &str, help: &str, value: fn(&KindReport) -> u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for of in &cluster.kinds {
                let _ = writeln!(out, "{name}{{kind=\"{}\"}} {}", of.kind, value(of));
            }
        };
        family("dualgate_cluster_objects", "gauge", "Objects that were read.", |of| of.objects as u64);
        family("dualgate_cluster_lists_total", "counter", "Lists that were read as a whole.", |of| of.lists);
        family("dualgate_cluster_watches_total", "counter", "Watches that were begun.", |of| of.watches);
        family("dualgate_cluster_events_total", "counter", "Changes that watches told of.", |of| of.events);
        family("dualgate_cluster_failures_total", "counter", "Requests that came to nothing.", |of| of.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(connected: bool, troubles: &[&str]) -> Report {
        let kinds =
            vec![KindReport { kind: "Ingress".into(), objects: 7, lists: 1, watches: 2, failures: 3, events: 4 }];
        let troubles = troubles.iter().map(|text| (*text).to_owned()).collect();
        let server = "https://[::1]:6443/".to_owned();
        let cluster = ClusterReport { server, connected, troubles, newest_event_seconds: Some(5), kinds };
        Report { name: "cluster https://[::1]:6443/".into(), cluster: Some(cluster) }
    }

    #[test]
    fn a_person_reads_what_the_source_is_and_whether_it_is_there() {
        assert_eq!(Report::default().line(), None);
        let folder = Report { name: "folder manifests".into(), cluster: None };
        assert_eq!(folder.line().unwrap(), "folder manifests");
        assert_eq!(report(true, &[]).line().unwrap(), "cluster https://[::1]:6443/, connected");
        assert_eq!(report(false, &[]).line().unwrap(), "cluster https://[::1]:6443/, not connected yet");
        assert_eq!(report(false, &["x"]).line().unwrap(), "cluster https://[::1]:6443/, not connected");
    }

    #[test]
    fn each_kind_is_counted() {
        let mut out = String::new();
        report(false, &[]).write_metrics(&mut out);
        for line in [
            "dualgate_cluster_connected 0",
            "dualgate_cluster_newest_event_seconds 5",
            "dualgate_cluster_objects{kind=\"Ingress\"} 7",
            "dualgate_cluster_lists_total{kind=\"Ingress\"} 1",
            "dualgate_cluster_watches_total{kind=\"Ingress\"} 2",
            "dualgate_cluster_failures_total{kind=\"Ingress\"} 3",
            "dualgate_cluster_events_total{kind=\"Ingress\"} 4",
        ] {
            assert!(out.lines().any(|found| found == line), "{line}:\n{out}");
        }
        let mut nothing = String::new();
        Report::default().write_metrics(&mut nothing);
        assert_eq!(nothing, "");
    }
}
