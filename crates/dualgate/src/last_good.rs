//! The last good objects, written to disk beside the river: all of them each time, on a thread of its own, and never for
//! more than a small part of the time.

use std::sync::Arc;
use std::time::Duration;

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

/// What is kept, and when it is written next.
pub struct LastGood {
    store: Option<Arc<Store>>,
    due: Option<Instant>,
    /// Known once something was written.
    rests_until: Option<Instant>,
    /// Ends with the time that it took of a processor.
    writing: Option<JoinHandle<Duration>>,
}

impl LastGood {
    /// In this store; without one, nothing is kept.
    pub fn new(store: Option<Store>) -> Self {
        Self { store: store.map(Arc::new), due: None, rests_until: None, writing: None }
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
            let objects = objects.clone();
            self.writing = Some(tokio::task::spawn_blocking(move || save(&store, &objects, generation)));
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

fn save(store: &Store, objects: &ObjectSet, generation: Generation) -> Duration {
    let start = thread_time();
    if let Err(error) = store.save(objects, generation) {
        tracing::warn!(error = %Chain(&error), "the last good state was not written");
    }
    thread_time().saturating_sub(start)
}

/// How long this thread has run on a processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
