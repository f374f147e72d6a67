//! What every request, every watch and the tests' own hands share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::api::Api;
use crate::faults::FaultState;
use crate::requests::Requests;
use crate::server::Options;
use crate::users::Users;

#[derive(Debug)]
pub(crate) struct Shared {
    api: Mutex<Api>,
    changed: Condvar,
    version: watch::Sender<u64>,
    pub(crate) faults: FaultState,
    pub(crate) requests: Requests,
    pub(crate) users: Users,
    pub(crate) options: Options,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        let api = Api::new(options.history, seed);
        let version = watch::Sender::new(api.store.version());
        Self {
            api: Mutex::new(api),
            changed: Condvar::new(),
            version,
            faults: FaultState::default(),
            requests: Requests::default(),
            users: Users::default(),
            options,
        }
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Api) -> T) -> T {
        look(&self.lock())
    }

    /// Changes objects, and tells all who wait for that.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Api) -> T) -> T {
        let mut api = self.lock();
        let changed = change(&mut api);
        self.version.send_replace(api.store.version());
        drop(api);
        self.changed.notify_all();
        changed
    }

    /// Told of every change; the number may stay the same.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut(&Api) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut api = self.lock();
        loop {
            if let Some(found) = look(&api) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            api = self.changed.wait_timeout(api, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Api> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
