//! The state directory: the last good objects, so that a start without the source serves at once.
//!
//! `objects.json` holds what the source said, without secrets: it may be shown to others. The values of
//! Secrets lie beside it in `keys/`, each in a file of its own that is named by its digest and that nobody
//! else may read. Everything is written to a temporary file first, so that whatever stops in the middle
//! leaves the state of before.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgate_core::model::object::Body;
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{Digest, Interner, ObjectSet, Secret};
use dualgate_core::parse::object::{Parsed, dump_text, object_with};
use rustix::fs::{FlockOperation, flock};
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The version of the form of `objects.json`.
const VERSION: u64 = 1;

const OBJECTS: &str = "objects.json";
const KEYS: &str = "keys";

/// What a temporary file's name starts with.
const TEMPORARY: &str = ".tmp-";

/// How much of a file is read or written at once, in octets.
const PIECE: usize = 64 << 10;

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
        self.write(&self.directory.join(OBJECTS), |file| write_document(set, generation, file))?;
        sync_directory(&self.directory)?;
        self.remove_keys_but(&wanted);
        Ok(())
    }

    /// What was kept last; `None` when nothing was kept yet.
    pub fn load(&self) -> Result<Option<Saved>, StoreError> {
        let path = self.directory.join(OBJECTS);
        let file = match open(&path, MAX_SIZE) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        let mut keys = Vec::new();
        let mut set = ObjectSet::default();
        let mut texts = Interner::default();
        let document = Document::read(file, |dump| self.add(&dump, &mut set, &mut keys, &mut texts));
        let document = match document {
            Ok(document) => document,
            Err(error) if error.is_io() => return Err(StoreError::Read { path, source: error.into() }),
            Err(error) => return Err(StoreError::Damaged { path, why: error.to_string() }),
        };
        let damaged = |why: &str| StoreError::Damaged { path: path.clone(), why: why.to_owned() };
        match &document.version {
            None => return Err(damaged("it has no `version`")),
            Some(version) if *version != VERSION => {
                return Err(StoreError::Version { path, version: version.to_string() });
            }
            Some(_) => {}
        }
        let Some(generation) = document.generation.as_ref().and_then(Value::as_u64) else {
            return Err(damaged("it has no `generation`"));
        };
        if !document.has_objects {
            return Err(damaged("it has no `objects`"));
        }
        set.objects.sort_by(|a, b| a.key.cmp(&b.key));
        set.objects.dedup_by(|a, b| a.key == b.key);
        Ok(Some(Saved { generation: Generation(generation), objects: Arc::new(set), keys }))
    }

    /// Reads one object that was kept.
    fn add(&self, dump: &Value, set: &mut ObjectSet, problems: &mut Vec<KeyProblem>, texts: &mut Interner) {
        let problems = std::cell::RefCell::new(problems);
        let key = |digest: &Digest| match self.load_key(digest) {
            Ok(secret) => Some(secret),
            Err(fault) => {
                problems.borrow_mut().push(KeyProblem { digest: *digest, fault });
                None
            }
        };
        let Parsed { mut objects, findings, .. } = object_with(dump, None, &key);
        objects.iter_mut().for_each(|object| object.intern(texts));
        set.objects.extend(objects.into_iter().map(Arc::new));
        set.findings.extend(findings);
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
        self.write(&self.key_path(&digest.to_string()), |file| file.write_all(value.expose()))
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
    fn write(&self, path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), StoreError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let temporary = path.with_file_name(format!("{TEMPORARY}{name}"));
        let written = write_new(&temporary, fill).and_then(|()| fs::rename(&temporary, path));
        written.map_err(|source| {
            // On a full disk the rest of it would only be in the way.
            let _ = fs::remove_file(&temporary);
            StoreError::Write { path: path.to_owned(), source }
        })
    }
}

/// `objects.json`, object by object: as a whole it would be larger than all that is kept in memory.
#[derive(Default)]
struct Document {
    version: Option<Value>,
    generation: Option<Value>,
    has_objects: bool,
}

impl Document {
    /// Hands each object to `found`. Of a version that is not ours nobody knows what objects are, so there are none.
    fn read(file: File, found: impl FnMut(Value)) -> Result<Self, serde_json::Error> {
        let mut document = Self::default();
        let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(PIECE, file));
        json.deserialize_any(Fields { document: &mut document, found })?;
        json.end()?;
        Ok(document)
    }
}

struct Fields<'a, F> {
    document: &'a mut Document,
    found: F,
}

impl<'de, F: FnMut(Value)> Visitor<'de> for Fields<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the objects that were kept")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(field) = fields.next_key::<String>()? {
            match field.as_str() {
                "version" => self.document.version = Some(fields.next_value()?),
                "generation" => self.document.generation = Some(fields.next_value()?),
                "objects" if self.document.version.as_ref().is_none_or(|version| *version == VERSION) => {
                    fields.next_value_seed(Objects(&mut self.found))?;
                    self.document.has_objects = true;
                }
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Objects<'a, F>(&'a mut F);

impl<'de, F: FnMut(Value)> DeserializeSeed<'de> for Objects<'_, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Value)> Visitor<'de> for Objects<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while let Some(object) = objects.next_element()? {
            (self.0)(object);
        }
        Ok(())
    }
}

/// One line for each object, so that two files can be compared.
fn write_document(set: &ObjectSet, generation: Generation, file: &mut dyn Write) -> io::Result<()> {
    write!(file, "{{\"version\":{VERSION},\"generation\":{},\"objects\":[", generation.0)?;
    for (index, object) in set.objects.iter().enumerate() {
        file.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        file.write_all(dump_text(object).as_bytes())?;
    }
    file.write_all(b"\n]}\n")
}

fn write_new(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut file = BufWriter::with_capacity(PIECE, file);
    fill(&mut file)?;
    file.into_inner()?.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| StoreError::Write { path: path.to_owned(), source })
}

/// A file of ours, which nobody else changes.
fn open(path: &Path, limit: u64) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than anything written here"));
    }
    Ok(file)
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, limit)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}
