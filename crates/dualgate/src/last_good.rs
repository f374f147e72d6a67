//! The last good objects, written to disk beside the river: all of them each time, on a thread of its own, and never for
//! more than a small part of the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualgate_core::model::ObjectSet;
use dualgate_core::model::snapshot::Generation;
use dualgate_host::Store;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::river::Chain;

/// How long after a change what there is is written; the first set of a process is written at once.
const AFTER: Duration = Duration::from_secs(1);
/// How many times as long as writing took of a processor, it is not written again.
const REST: u32 = 1000;

/// How writing goes, for whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Written>>);

/// What became of writing so far.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// When it was done last, in seconds since 1970.
    at: Option<u64>,
    failures: u64,
    /// What it took of a processor, in all.
    took: Duration,
}

impl View {
    /// The metrics; nothing where nothing is kept.
    pub fn write_metrics(&self, out: &mut String) {
        use std::fmt::Write as _;
        let Written { at, failures, took } = *self.lock();
        let mut one = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let written = "When the last good state was last written to disk; 0 before it was.";
        one("dualgate_last_good_written_timestamp_seconds", "gauge", written, at.unwrap_or_default() as f64);
        let failed = "Times that the last good state could not be written to disk.";
        one("dualgate_last_good_failures_total", "counter", failed, failures as f64);
        let time = "Time of a processor that writing it took.";
        one("dualgate_last_good_cpu_seconds_total", "counter", time, took.as_secs_f64());
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept, and when it is written next.
pub struct LastGood {
    store: Option<Arc<Store>>,
    view: View,
    due: Option<Instant>,
    /// Known once something was written.
    rests_until: Option<Instant>,
    /// Ends with the time that it took of a processor.
    writing: Option<JoinHandle<Duration>>,
}

impl LastGood {
    /// In this store; without one, nothing is kept.
    pub fn new(store: Option<Store>) -> Self {
        let view = View::default();
        Self { store: store.map(Arc::new), view, due: None, rests_until: None, writing: None }
    }

    /// For whoever shows how it goes; nothing where nothing is kept.
    pub fn view(&self) -> Option<View> {
        self.store.is_some().then(|| self.view.clone())
    }

    /// Where it is kept.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_deref()
    }

    /// There is something else to be kept.
    pub fn changed(&mut self) {
        let now = Instant::now();
        // Until the first set is on disk, a start without the source has nothing to serve.
        self.due.get_or_insert(self.rests_until.map_or(now, |until| until.max(now + AFTER)));
    }

    /// Waits until it is time to write.
    pub async fn is_due(&mut self) {
        self.written().await;
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Writes. A full disk costs only that.
    pub fn write(&mut self, objects: &Arc<ObjectSet>, generation: Generation) {
        self.due = None;
        if let Some(store) = self.store.clone() {
            let (objects, view) = (objects.clone(), self.view.clone());
            self.writing = Some(tokio::task::spawn_blocking(move || save(&store, &objects, generation, &view)));
        }
    }

    /// Writes what was not written yet, before the end.
    pub async fn end(&mut self, objects: Option<&Arc<ObjectSet>>, generation: Generation) {
        self.written().await;
        if let (Some(objects), Some(_)) = (objects, self.due) {
            self.write(objects, generation);
            self.written().await;
        }
    }

    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let took = writing.await.unwrap_or_default();
        self.writing = None;
        let until = Instant::now() + took * REST;
        self.rests_until = Some(until);
        self.due = self.due.map(|due| due.max(until));
    }
}

fn save(store: &Store, objects: &ObjectSet, generation: Generation, view: &View) -> Duration {
    let start = thread_time();
    let saved = store.save(objects, generation);
    let took = thread_time().saturating_sub(start);
    let mut written = view.lock();
    written.took += took;
    match saved {
        Ok(()) => written.at = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok(),
        Err(error) => {
            written.failures += 1;
            tracing::warn!(error = %Chain(&error), "the last good state was not written");
        }
    }
    took
}

/// How long this thread has run on a processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
