//! The thread for files: a disk may take its time, heartbeats may not. It writes what is assigned and reads the keys.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use dualgate_core::machine::ownership::Replica;

use super::assigned;
use super::keeper::Wish;
use crate::keys::{self, Key, KeysError};

/// The key of the heartbeats as it lies on disk, and the next one.
pub type Keys = (Result<Key, KeysError>, Result<Option<Key>, KeysError>);

/// What is to be done with files, and what came of it. The last order counts, none waits behind another.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// Its bell rings when keys were read.
    wish: Arc<Wish>,
}

#[derive(Debug, Default)]
struct Orders {
    replica: Option<Replica>,
    reads: bool,
    keys: Option<Keys>,
    ends: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Disk {
    /// Starts with nothing to do.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start(state: &Path, wish: Arc<Wish>) -> io::Result<Self> {
        let shared = Arc::new(Shared { orders: Mutex::default(), changed: Condvar::new(), wish });
        let (work, state) = (shared.clone(), state.to_owned());
        let thread =
            std::thread::Builder::new().name("virtual-ips-disk".to_owned()).spawn(move || run(&work, state))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps what is assigned.
    pub fn keep(&self, replica: Option<Replica>) {
        if replica.is_some() {
            self.shared.order(|orders| orders.replica = replica);
        }
    }

    /// Reads the keys, which may be made or changed while this runs.
    pub fn look_at_keys(&self) {
        self.shared.order(|orders| orders.reads = true);
    }

    /// The keys, if they were read since the last call.
    pub fn keys(&self) -> Option<Keys> {
        self.shared.lock().keys.take()
    }
}

impl Drop for Disk {
    /// What is to be kept is kept first.
    fn drop(&mut self) {
        self.shared.order(|orders| orders.ends = true);
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, state: PathBuf) {
    loop {
        let rests = |orders: &mut Orders| orders.replica.is_none() && !orders.reads && !orders.ends;
        let waited = shared.changed.wait_while(shared.lock(), rests);
        let mut orders = waited.unwrap_or_else(PoisonError::into_inner);
        let (replica, reads, ends) = (orders.replica.take(), std::mem::take(&mut orders.reads), orders.ends);
        drop(orders);
        if let Some(error) = replica.and_then(|replica| assigned::write(&state, &replica).err()) {
            tracing::warn!(%error, "the addresses that are assigned were not written");
        }
        if ends {
            return;
        }
        if reads {
            let keys = keys::heartbeat(&state);
            shared.lock().keys = Some(keys);
            shared.wish.ring();
        }
    }
}
