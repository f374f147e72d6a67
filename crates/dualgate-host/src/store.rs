//! The state directory: the last good objects, so that a start without the source serves at once.
//!
//! `objects.json` holds what the source said, without secrets: it may be shown to others. The values of
//! Secrets lie beside it in `keys/`, each in a file of its own that is named by its digest and that nobody
//! else may read. Everything is written to a temporary file first, so that whatever stops in the middle
//! leaves the state of before.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgate_core::model::object::Body;
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{Digest, ObjectSet, Secret};
use dualgate_core::parse::object::{Parsed, dump_text, object_with};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

/// The version of the form of `objects.json`.
const VERSION: u64 = 1;

const OBJECTS: &str = "objects.json";
const KEYS: &str = "keys";

/// What a temporary file's name starts with.
const TEMPORARY: &str = ".tmp-";

/// The largest `objects.json` that is read back.
const MAX_SIZE: u64 = 512 << 20;

/// The largest value of a Secret: the API server's limit of a whole Secret.
const MAX_KEY_SIZE: u64 = 1 << 20;

/// Why the state could not be kept or read. Serving goes on in every case.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or looked at.
    #[error("open state directory `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read keys.
    #[error(
        "state directory `{path}` has the mode {mode:04o}: it holds keys, so only its owner may enter; `chmod 700` it"
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("state directory `{path}` belongs to the user {owner}, not to {user}, who runs this")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A file cannot be written: a full disk, for example. What was there before is still there.
    #[error("write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is there but cannot be read.
    #[error("read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file ends in the middle, or is no JSON at all.
    #[error("`{path}` is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file has a form that this version does not know: it was written by another version.
    #[error("`{path}` has the form {version}; this version reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its form.
        version: String,
    },
}

/// The state directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

/// What was kept.
#[derive(Debug)]
pub struct Saved {
    /// The generation of the snapshot that the objects were part of.
    pub generation: Generation,
    /// The objects; their findings are those of reading them again.
    pub objects: Arc<ObjectSet>,
    /// Keys that are missing or damaged: the Secrets that need them lack those values.
    pub keys: Vec<KeyProblem>,
}

/// A value of a Secret that is not there as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// The value's digest.
    pub digest: Digest,
    /// What is wrong.
    pub fault: KeyFault,
}

/// What is wrong with a file of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// There is no such file.
    Missing,
    /// It cannot be read.
    Unreadable,
    /// It holds something else.
    Altered,
}

impl Store {
    /// Makes the directory if need be. One that others can enter, or that belongs to somebody else, is refused.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        let failed = |source| StoreError::Open { path: directory.clone(), source };
        let keys = directory.join(KEYS);
        for path in [&directory, &keys] {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            let meta = fs::metadata(path).map_err(failed)?;
            let user = rustix::process::geteuid().as_raw();
            if meta.uid() != user {
                return Err(StoreError::Foreign { path: path.clone(), owner: meta.uid(), user });
            }
            if meta.mode() & 0o077 != 0 {
                return Err(StoreError::Exposed { path: path.clone(), mode: meta.mode() & 0o7777 });
            }
        }
        let store = Self { directory };
        // While another process writes, they are no leftovers.
        if let Ok(_lock) = store.lock() {
            store.remove_leftovers();
        }
        Ok(store)
    }

    /// Keeps the objects. Keys go first and are removed last, so that the objects on disk always have theirs.
    ///
    /// Fails when another process is writing at the same moment, as at a hand-over: try again later.
    pub fn save(&self, set: &ObjectSet, generation: Generation) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut wanted = BTreeSet::new();
        for object in &set.objects {
            let Body::Secret(secret) = &object.body else { continue };
            wanted.extend(secret.digests.values().map(Digest::to_string));
            for value in secret.data.values() {
                self.save_key(value)?;
            }
        }
        sync_directory(&self.directory.join(KEYS))?;
        self.write(&self.directory.join(OBJECTS), document(set, generation).as_bytes())?;
        sync_directory(&self.directory)?;
        self.remove_keys_but(&wanted);
        Ok(())
    }

    /// What was kept last; `None` when nothing was kept yet.
    pub fn load(&self) -> Result<Option<Saved>, StoreError> {
        let path = self.directory.join(OBJECTS);
        let bytes = match read(&path, MAX_SIZE) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        let document: Value = match serde_json::from_slice(&bytes) {
            Ok(document) => document,
            Err(error) => return Err(StoreError::Damaged { path, why: error.to_string() }),
        };
        let damaged = |why: &str| StoreError::Damaged { path: path.clone(), why: why.to_owned() };
        match &document["version"] {
            Value::Null => return Err(damaged("it has no `version`")),
            version if *version != VERSION => {
                return Err(StoreError::Version { path, version: version.to_string() });
            }
            _ => {}
        }
        let Some(generation) = document["generation"].as_u64() else { return Err(damaged("it has no `generation`")) };
        let Some(dumps) = document["objects"].as_array() else { return Err(damaged("it has no `objects`")) };
        let (objects, keys) = self.parse(dumps);
        Ok(Some(Saved { generation: Generation(generation), objects: Arc::new(objects), keys }))
    }

    fn parse(&self, dumps: &[Value]) -> (ObjectSet, Vec<KeyProblem>) {
        let problems = std::cell::RefCell::new(Vec::new());
        let key = |digest: &Digest| match self.load_key(digest) {
            Ok(secret) => Some(secret),
            Err(fault) => {
                problems.borrow_mut().push(KeyProblem { digest: *digest, fault });
                None
            }
        };
        let mut set = ObjectSet::default();
        for dump in dumps {
            let Parsed { objects, findings, .. } = object_with(dump, None, &key);
            set.objects.extend(objects.into_iter().map(Arc::new));
            set.findings.extend(findings);
        }
        set.objects.sort_by(|a, b| a.key.cmp(&b.key));
        set.objects.dedup_by(|a, b| a.key == b.key);
        (set, problems.into_inner())
    }

    /// Held until it is dropped; the kernel drops it with the process.
    fn lock(&self) -> Result<File, StoreError> {
        let failed = |source| StoreError::Write { path: self.directory.clone(), source };
        let directory = File::open(&self.directory).map_err(failed)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        Ok(directory)
    }

    fn key_path(&self, digest: &str) -> PathBuf {
        self.directory.join(KEYS).join(digest)
    }

    /// A file of this name that is as it should be is left alone: most keys never change.
    fn save_key(&self, value: &Secret) -> Result<(), StoreError> {
        let digest = value.digest();
        if self.load_key(&digest).is_ok() {
            return Ok(());
        }
        // Exposed to a file that only its owner can read: what this directory is for.
        self.write(&self.key_path(&digest.to_string()), value.expose())
    }

    fn load_key(&self, digest: &Digest) -> Result<Secret, KeyFault> {
        let bytes = read(&self.key_path(&digest.to_string()), MAX_KEY_SIZE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyFault::Missing,
            _ => KeyFault::Unreadable,
        })?;
        let secret = Secret::new(bytes);
        if secret.digest() == *digest { Ok(secret) } else { Err(KeyFault::Altered) }
    }

    /// A key that stays behind is tried again at the next save.
    fn remove_keys_but(&self, wanted: &BTreeSet<String>) {
        for path in entries(&self.directory.join(KEYS)) {
            let is_wanted = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| wanted.contains(name));
            if !is_wanted && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a key that nobody needs could not be removed");
            }
        }
    }

    /// Temporary files of a process that was stopped in the middle.
    fn remove_leftovers(&self) {
        for path in entries(&self.directory).into_iter().chain(entries(&self.directory.join(KEYS))) {
            let is_leftover =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(TEMPORARY));
            if is_leftover && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a leftover file could not be removed");
            }
        }
    }

    /// All of a file, or what was there before.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let temporary = path.with_file_name(format!("{TEMPORARY}{name}"));
        let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
        written.map_err(|source| {
            // On a full disk the rest of it would only be in the way.
            let _ = fs::remove_file(&temporary);
            StoreError::Write { path: path.to_owned(), source }
        })
    }
}

/// One line per object, so that two of them can be compared.
fn document(set: &ObjectSet, generation: Generation) -> String {
    let mut text = format!("{{\"version\":{VERSION},\"generation\":{},\"objects\":[", generation.0);
    for (index, object) in set.objects.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(&dump_text(object));
    }
    text.push_str("\n]}\n");
    text
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| StoreError::Write { path: path.to_owned(), source })
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than anything written here"));
    }
    Ok(bytes)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}
