//! Which manifests a folder holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest manifest file, in octets.
pub const MAX_FILE_SIZE: u64 = 4 << 20;

/// How many manifest files a folder may hold.
pub const MAX_FILES: usize = 20_000;

/// How large all manifest files together may be, in octets.
pub const MAX_TOTAL_SIZE: u64 = 256 << 20;

/// How many entries of any kind a folder and its subfolders may have.
pub const MAX_ENTRIES: usize = 200_000;

/// How deep subfolders may lie.
pub const MAX_DEPTH: usize = 32;

/// The bounds of one listing.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) files: usize,
    pub(super) entries: usize,
    pub(super) total_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: MAX_FILES, entries: MAX_ENTRIES, total_size: MAX_TOTAL_SIZE }
    }
}

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a folder holds at one moment.
#[derive(Default)]
pub(super) struct Listing {
    /// The manifests; or why they are none that can be read.
    pub(super) files: BTreeMap<PathBuf, Result<Stamp, String>>,
    /// The directories that were read.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Directories that are there but cannot be read: nothing is known of what they hold.
    pub(super) unread: BTreeMap<PathBuf, io::Error>,
    /// The bound that was met, if any.
    pub(super) cut_short: Option<String>,
}

/// Lists `root`; `enter` is told of each directory before it is read.
pub(super) fn list(root: &Path, limits: Limits, enter: &mut dyn FnMut(&Path)) -> Listing {
    let mut walk =
        Walk { listing: Listing::default(), limits, entries: 0, total_size: 0, seen: BTreeSet::new(), enter };
    walk.directory(root, 0);
    walk.listing
}

struct Walk<'a> {
    listing: Listing,
    limits: Limits,
    entries: usize,
    total_size: u64,
    /// Device and inode of each directory, because symbolic links can make circles.
    seen: BTreeSet<(u64, u64)>,
    enter: &'a mut dyn FnMut(&Path),
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return self.cut_short(format!("it holds folders more than {MAX_DEPTH} deep"));
        }
        (self.enter)(path);
        let names = match self.names(path) {
            Ok(names) => names,
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return drop(self.listing.unread.insert(path.to_owned(), error)),
        };
        self.listing.directories.insert(path.to_owned());
        for name in names {
            if self.listing.cut_short.is_some() {
                return;
            }
            self.entry(path.join(name), depth);
        }
    }

    /// In order, so that a limit always cuts at the same place.
    fn names(&mut self, path: &Path) -> io::Result<BTreeSet<std::ffi::OsString>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(path)? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                self.cut_short(format!("it holds more than {} entries", self.limits.entries));
                break;
            }
            let name = entry?.file_name();
            if !name.as_bytes().starts_with(b".") {
                names.insert(name);
            }
        }
        Ok(names)
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if is_manifest(&path) => return self.file(path, Err(format!("it cannot be read: {error}"))),
            Err(error) => return drop(self.listing.unread.insert(path, error)),
        };
        if meta.is_dir() {
            if self.seen.insert((meta.dev(), meta.ino())) {
                self.directory(&path, depth + 1);
            }
        } else if is_manifest(&path) {
            self.total_size = self.total_size.saturating_add(meta.size());
            if self.total_size > self.limits.total_size {
                return self.cut_short(format!("its manifests have more than {} octets", self.limits.total_size));
            }
            let stamp = if !meta.is_file() {
                Err("it is not a regular file".to_owned())
            } else if meta.size() > MAX_FILE_SIZE {
                Err(too_large())
            } else {
                Ok(Stamp::of(&meta))
            };
            self.file(path, stamp);
        }
    }

    fn file(&mut self, path: PathBuf, stamp: Result<Stamp, String>) {
        if self.listing.files.len() >= self.limits.files {
            return self.cut_short(format!("it holds more than {} manifests", self.limits.files));
        }
        self.listing.files.insert(path, stamp);
    }

    fn cut_short(&mut self, why: String) {
        self.listing.cut_short.get_or_insert(why);
    }
}

/// The message for a file above [`MAX_FILE_SIZE`].
pub(super) fn too_large() -> String {
    format!("it is larger than {} MiB", MAX_FILE_SIZE >> 20)
}

/// By its name.
pub(super) fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}
