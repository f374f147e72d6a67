//! A folder of Kubernetes manifests as a source of objects.
//!
//! Every `*.yaml`, `*.yml` and `*.json` below the folder counts, except in names that start with a dot. The
//! folder is watched; each change yields the complete set. What a file once said well stays until it says
//! something else well, or is really gone: half-written files, typing errors and unreadable files are
//! findings, and cost no route.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::machine::hold_off::HoldOff;
use dualgate_core::model::ObjectSet;
use dualgate_core::seam::Source;
use tokio::time::{Instant, timeout_at};

use self::scan::Scanner;
use self::watch::Watch;

mod list;
mod scan;
mod watch;

pub use self::list::{MAX_DEPTH, MAX_ENTRIES, MAX_FILE_SIZE, MAX_FILES, MAX_TOTAL_SIZE};

/// How often the folder is looked at where the kernel does not tell of changes.
pub const POLL: Duration = Duration::from_secs(1);

/// How often it is looked at where the kernel does: not every file system and every symbolic link tells.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why a folder is no source.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("read folder `{path}`")]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("`{path}` is not a folder")]
    NotAFolder {
        /// What was named.
        path: PathBuf,
    },
}

/// A watched folder.
pub struct FolderSource {
    root: PathBuf,
    scanner: Scanner,
    /// Made on first use, because it belongs to the runtime that waits.
    watch: Option<Watch>,
    watching: Watching,
    hold_off: HoldOff<Instant>,
    look_at: Instant,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// The kernel tells.
    Notified,
    /// By looking every [`POLL`].
    Polled,
}

impl FolderSource {
    /// A folder that exists, watched as the system allows.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, FolderError> {
        Self::watched(directory, Watching::Notified)
    }

    /// A folder that exists. `Notified` becomes `Polled` where the kernel cannot notify.
    pub fn watched(directory: impl Into<PathBuf>, watching: Watching) -> Result<Self, FolderError> {
        let root = directory.into();
        check(&root)?;
        let now = Instant::now();
        Ok(Self {
            scanner: Scanner::new(root.clone()),
            root,
            watch: None,
            watching,
            hold_off: HoldOff::due_at(now),
            look_at: now,
        })
    }

    /// How changes are noticed.
    pub fn watching(&self) -> Watching {
        self.watch.as_ref().map_or(self.watching, Watch::watching)
    }

    /// Reads what changed; the set, if that changes it.
    fn look(&mut self, now: Instant) -> Result<Option<ObjectSet>, FolderError> {
        let watch = self.watch.get_or_insert_with(|| Watch::new(self.watching));
        let is_first = !self.scanner.has_scanned();
        let set = self.scanner.scan(now, watch);
        if is_first {
            check(&self.root)?;
        }
        self.hold_off.passed(now);
        if watch.take_change() == Change::Something {
            self.hold_off.triggered(Instant::now());
        }
        let period = match (watch.watching(), self.scanner.is_root_lost()) {
            (Watching::Notified, false) => LOOK_AGAIN,
            (Watching::Polled, _) | (Watching::Notified, true) => POLL,
        };
        self.look_at = now + period;
        Ok(set)
    }
}

impl Source for FolderSource {
    type Error = FolderError;

    /// Reading is done on the calling thread: milliseconds, unless the folder changes as a whole.
    async fn next(&mut self) -> Result<Arc<ObjectSet>, FolderError> {
        loop {
            let now = Instant::now();
            let wake = [self.hold_off.due(), self.scanner.wake_at(), self.watch.as_ref().and_then(Watch::wake_at)];
            let wake = wake.into_iter().flatten().fold(self.look_at, Instant::min);
            if wake <= now {
                if let Some(set) = self.look(now)? {
                    return Ok(Arc::new(set));
                }
                // A file that stays as it is must not be asked for again at once.
                tokio::task::yield_now().await;
                continue;
            }
            let Some(watch) = &mut self.watch else { continue };
            if timeout_at(wake, watch.changed()).await.is_ok() {
                watch.drain(Instant::now());
                if watch.take_change() == Change::Something {
                    self.hold_off.triggered(Instant::now());
                }
            }
        }
    }
}

fn check(root: &Path) -> Result<(), FolderError> {
    let read = |source| FolderError::Read { path: root.to_owned(), source };
    if !std::fs::metadata(root).map_err(read)?.is_dir() {
        return Err(FolderError::NotAFolder { path: root.to_owned() });
    }
    std::fs::read_dir(root).map_err(read).map(drop)
}

/// Whether something that counts has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    Something,
}

/// Paths that something happened to.
type Touched = BTreeSet<PathBuf>;
