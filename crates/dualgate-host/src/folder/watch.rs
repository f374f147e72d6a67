//! Being told of changes by the kernel (inotify), and knowing which files are being written.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::{Change, Touched, Watching, list};

/// A file that was written to and not closed counts as complete after this time: some writers never close.
pub(super) const WRITING: Duration = Duration::from_secs(1);

/// Events that are taken in one go; what is left is there at the next.
const MAX_EVENTS: usize = 100_000;

/// What can happen to folders and symbolic links, whatever their name.
const FOLDERS: ReadFlags = ReadFlags::CREATE
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO)
    .union(ReadFlags::ISDIR);

/// What is known of changes since the last look.
pub(super) struct Watch {
    mode: Mode,
    /// When files were last written to that were not closed since.
    writing: BTreeMap<PathBuf, Instant>,
    touched: Touched,
    change: Change,
}

enum Mode {
    Notified { inotify: AsyncFd<OwnedFd>, directories: BTreeMap<i32, PathBuf> },
    Polled,
}

impl Watch {
    /// Needs a runtime.
    pub(super) fn new(watching: Watching) -> Self {
        let mode = match watching {
            Watching::Polled => Mode::Polled,
            Watching::Notified => match open() {
                Ok(inotify) => Mode::Notified { inotify, directories: BTreeMap::new() },
                Err(error) => polled(&error),
            },
        };
        Self { mode, writing: BTreeMap::new(), touched: Touched::new(), change: Change::Nothing }
    }

    pub(super) fn watching(&self) -> Watching {
        match self.mode {
            Mode::Notified { .. } => Watching::Notified,
            Mode::Polled => Watching::Polled,
        }
    }

    /// Watches a directory; call it before reading the directory, so that nothing falls in between.
    pub(super) fn directory(&mut self, path: &Path) {
        let Mode::Notified { inotify, directories } = &mut self.mode else { return };
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify.get_ref(), path, flags) {
            Ok(watch) => drop(directories.insert(watch, path.to_owned())),
            // Reading the directory tells the same with more words.
            Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => self.mode = polled(&error.into()),
        }
    }

    /// Stops watching directories that are not among `directories` any more.
    pub(super) fn keep_directories(&mut self, keep: &Touched) {
        let Mode::Notified { inotify, directories } = &mut self.mode else { return };
        directories.retain(|watch, path| {
            let kept = keep.contains(path);
            if !kept {
                // The kernel may have removed it already, with the directory.
                let _ = inotify::remove_watch(inotify.get_ref(), *watch);
            }
            kept
        });
    }

    /// Waits until something may have changed; then `drain` tells.
    pub(super) async fn changed(&mut self) {
        match &self.mode {
            Mode::Notified { inotify, .. } => match inotify.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => self.mode = polled(&error),
            },
            Mode::Polled => std::future::pending().await,
        }
    }

    /// Takes in what the kernel told.
    pub(super) fn drain(&mut self, now: Instant) {
        let complete = |since: &Instant| *since + WRITING <= now;
        let touched = self.writing.iter().filter(|(_, since)| complete(since)).map(|(path, _)| path.clone());
        self.touched.extend(touched);
        self.writing.retain(|_, since| !complete(since));
        let Mode::Notified { inotify, directories } = &self.mode else { return };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(inotify.get_ref(), &mut buffer);
        for _ in 0..MAX_EVENTS {
            match reader.next() {
                Ok(event) => {
                    let directory = directories.get(&event.wd());
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let seen = Seen { events: event.events(), path: directory.zip(name).map(|(d, n)| d.join(n)) };
                    if seen.note(now, &mut self.writing, &mut self.touched) == Change::Something {
                        self.change = Change::Something;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => {
                    self.mode = polled(&error.into());
                    return self.change = Change::Something;
                }
            }
        }
    }

    /// Whether something is worth a look since this was last asked.
    pub(super) fn take_change(&mut self) -> Change {
        std::mem::replace(&mut self.change, Change::Nothing)
    }

    /// What something happened to since this was last asked.
    pub(super) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Whether somebody is writing this file at the moment.
    pub(super) fn is_being_written(&self, path: &Path) -> bool {
        self.writing.contains_key(path)
    }

    /// When a file that is being written counts as complete.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.writing.values().min().map(|since| *since + WRITING)
    }
}

/// One event.
struct Seen {
    events: ReadFlags,
    path: Option<PathBuf>,
}

impl Seen {
    fn note(self, now: Instant, writing: &mut BTreeMap<PathBuf, Instant>, touched: &mut Touched) -> Change {
        if self.events.contains(ReadFlags::QUEUE_OVERFLOW) {
            writing.clear();
            return Change::Something;
        }
        let Some(path) = self.path else {
            let is_own_doing = self.events.contains(ReadFlags::IGNORED);
            return if is_own_doing { Change::Nothing } else { Change::Something };
        };
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        // An editor's own files; but `..data` is how Kubernetes swaps a whole folder.
        let is_hidden = name.starts_with(b".") && !name.starts_with(b"..");
        let may_be_folder = self.events.intersects(FOLDERS);
        if is_hidden || !(may_be_folder || list::is_manifest(&path)) {
            return Change::Nothing;
        }
        if self.events == ReadFlags::MODIFY {
            writing.insert(path, now);
            return Change::Nothing;
        }
        writing.remove(&path);
        touched.insert(path);
        Change::Something
    }
}

#[expect(deprecated, reason = "its successor is unsafe for the sake of other types; an `OwnedFd` stays what it is")]
fn open() -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    AsyncFd::new(inotify)
}

fn polled(error: &std::io::Error) -> Mode {
    tracing::warn!(%error, "the kernel cannot tell of changes; looking every second instead");
    Mode::Polled
}
