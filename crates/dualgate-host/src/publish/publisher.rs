//! Keeps zones at their providers as wanted: a task for each zone, which writes when something changes here and looks again
//! and again whether somebody has changed something there.
//!
//! Who writes is decided elsewhere: what is not wanted of this node is not looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualgate_core::model::finding::Place;
use dualgate_core::model::{Code, Finding};
use dualgate_core::plan::publish::{Kind, Publication, findings};
use dualgate_wire::dns::Name;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Failure, Synced, open, sync};

/// Changes that follow each other within this time are written together.
const HOLD: Duration = Duration::from_millis(500);
/// After a failure it is tried again after this time, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(2);
/// At the latest.
const LONGEST: Duration = Duration::from_secs(300);
/// A provider that wants to be left alone for longer is asked all the same.
const LEFT_ALONE: Duration = Duration::from_secs(3600);

/// The zones that this node writes.
#[derive(Debug)]
pub struct Publisher {
    zones: BTreeMap<Name, Keeping>,
    told: Told,
    heard: watch::Receiver<u64>,
}

impl Default for Publisher {
    fn default() -> Self {
        let (changed, heard) = watch::channel(0);
        Self { zones: BTreeMap::new(), told: Told { zones: Arc::default(), changed }, heard }
    }
}

#[derive(Debug)]
struct Keeping {
    wanted: watch::Sender<Publication>,
    task: JoinHandle<()>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    /// What this node writes from now on; nothing where another one does. Needs a local runtime.
    pub fn want(&mut self, publications: Vec<Publication>) {
        let is_gone = |zone: &Name| !publications.iter().any(|publication| publication.zone == *zone);
        self.zones.retain(|zone, _| !is_gone(zone));
        self.told.keep(|zone| !is_gone(zone));
        for publication in publications {
            if let Some(keeping) = self.zones.get(&publication.zone) {
                keeping.wanted.send_if_modified(|wanted| {
                    let is_other = *wanted != publication;
                    *wanted = publication;
                    is_other
                });
                continue;
            }
            let zone = publication.zone.clone();
            let (wanted, heard) = watch::channel(publication);
            let task = tokio::task::spawn_local(keep(heard, self.told.clone()));
            self.zones.insert(zone, Keeping { wanted, task });
        }
    }

    /// For whoever shows how it is.
    pub fn view(&self) -> View {
        View(self.told.clone())
    }

    /// What is wrong at this moment.
    pub fn findings(&self) -> Vec<Finding> {
        self.told.lock().values().flat_map(|zone| zone.findings.iter().cloned()).collect()
    }

    /// Waits until something else is wrong.
    pub async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Writes one zone for as long as it is wanted.
async fn keep(mut wanted: watch::Receiver<Publication>, told: Told) {
    let mut failures = 0_u32;
    loop {
        sleep(HOLD).await;
        let publication = wanted.borrow_and_update().clone();
        let synced = match open(&publication) {
            Ok(provider) => sync(&provider, &publication).await,
            Err(failure) => Err(failure),
        };
        let is_well = synced.as_ref().is_ok_and(|synced| synced.refused.is_empty());
        failures = if is_well { 0 } else { failures.saturating_add(1) };
        let grown = RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
        let pause = match &synced {
            Ok(_) if is_well => publication.provider.interval,
            Ok(_) => grown,
            Err(failure) => failure.after.map_or(grown, |after| after.max(grown).min(LEFT_ALONE)),
        };
        let is_away = synced.as_ref().is_err_and(|failure| !failure.is_refusal);
        told.tell(&publication, synced);
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Who cannot be written to is not asked more often as more changes here.
                    if !is_away || wanted.borrow().provider != publication.provider {
                        break;
                    }
                }
            }
        }
    }
}

/// What is known of the zones.
#[derive(Clone, Debug)]
struct Told {
    zones: Arc<Mutex<BTreeMap<Name, Zone>>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Zone {
    report: Report,
    findings: Vec<Finding>,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Zone>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, wanted: impl Fn(&Name) -> bool) {
        self.lock().retain(|zone, _| wanted(zone));
    }

    fn tell(&self, publication: &Publication, synced: Result<Synced, Failure>) {
        let mut zones = self.lock();
        let zone = zones.entry(publication.zone.clone()).or_default();
        let report = &mut zone.report;
        (report.zone, report.provider) = (publication.zone.to_string(), publication.name.to_string());
        report.wanted = publication.wanted.len();
        let place = || Place { field: format!("dns.providers.{}", publication.name), ..Place::default() };
        let found: Vec<Finding> = match synced {
            Ok(synced) => {
                for (kind, key) in &synced.made {
                    tracing::info!(provider = %publication.name, "{} {key}", kind.as_str());
                    match kind {
                        Kind::Create => report.created += 1,
                        Kind::Update => report.updated += 1,
                        Kind::Delete => report.deleted += 1,
                    }
                }
                (report.synced, report.error) = (Some(seconds()), None);
                report.conflicts = synced.left.conflicts.len();
                report.refused = synced.refused.keys().map(ToString::to_string).collect();
                report.kept = synced.left.kept.iter().map(ToString::to_string).collect();
                report.unfit = synced.left.unfit.iter().map(ToString::to_string).collect();
                let refused = synced.refused.into_iter().map(|(key, failure)| {
                    let message = format!("{key} at {}: {}", publication.name, failure.what);
                    Finding::new(Code::DnsPublish, place(), message).help(failure.help)
                });
                findings(publication, &synced.left).into_iter().chain(refused).collect()
            }
            Err(failure) => {
                report.failures += 1;
                report.error = Some(failure.what.clone());
                vec![Finding::new(Code::DnsPublish, place(), failure.what).help(failure.help)]
            }
        };
        if zone.findings != found {
            zone.findings = found;
            drop(zones);
            self.changed.send_modify(|number| *number += 1);
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Tells how the zones are.
#[derive(Clone, Debug)]
pub struct View(Told);

impl View {
    /// At this moment; zones that another node writes are not among them.
    pub fn report(&self) -> Vec<Report> {
        self.0.lock().values().map(|zone| zone.report.clone()).collect()
    }
}

/// A zone at its provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The zone.
    pub zone: String,
    /// The provider.
    pub provider: String,
    /// When it last was as wanted, in seconds since 1970.
    pub synced: Option<u64>,
    /// Why it could not be written the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Sets of records that are wanted.
    pub wanted: usize,
    /// Sets that somebody else has.
    pub conflicts: usize,
    /// Sets that the provider refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Ours, no longer wanted, and kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// Wanted, and of a type that the provider does not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<String>,
    /// Sets that were created since the start.
    pub created: u64,
    /// Sets that were set back or changed.
    pub updated: u64,
    /// Sets that were removed.
    pub deleted: u64,
    /// How often it could not be read or written.
    pub failures: u64,
}
