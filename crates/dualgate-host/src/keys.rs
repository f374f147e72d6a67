//! Keys on disk: this node's private key of WireGuard, a preshared key for each pair that it is part of, and the one that
//! the home nodes' heartbeats are sealed with.
//!
//! They lie below the state directory, each in a file of its own in the form of `wg genkey` (base64 and a line end), so
//! that `wg`, networkd and NixOS can read the same files:
//!
//! ```text
//! STATE/wireguard/private                 this node's key
//! STATE/wireguard/private+next            the key that it changes to
//! STATE/wireguard/preshared/a+b           the key of the pair of `a` and `b`; at both nodes the same file
//! STATE/wireguard/preshared/a+b+next      the key that the pair changes to
//! STATE/heartbeat                         the key of the home nodes' heartbeats; at all of them the same file
//! STATE/heartbeat+next                    the key that they change to
//! ```
//!
//! Folders have the mode 0700 and files 0600, and all belong to the user who runs this; otherwise they are refused, not
//! repaired: whoever could read a key may have done so. A file is written beside its place, synced and renamed, so that
//! whatever stops in the middle leaves the key of before. Keys are [`Secret`]s everywhere else: they are never printed,
//! logged or taken as an argument.
//!
//! **Rotation without an outage.** WireGuard gives an address to one peer only, so two keys of one node cannot both
//! carry traffic; but its peers can know the next key before it is used:
//!
//! 1. [`Keys::prepare`] makes the next key beside the one in use. Nothing changes yet.
//! 2. The next public key goes into the site file behind the one in use (`publicKeys: [current, next]`). Each peer now
//!    has it as a peer without addresses, which may shake hands but carries nothing.
//! 3. [`Keys::finish`] at the node: the next key is in use, and the one before is gone. With the first handshake the
//!    peers move the addresses over: one round trip. Who moves it is the tunnel's actuator, or a person.
//! 4. The former public key is removed from the site file.
//!
//! A preshared key changes alike: the next one is copied to both nodes, both finish, and it counts from the next
//! handshake on. Sessions that stand are not cut by either.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::agreement::{self, X25519};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dualgate_core::model::{PublicKey, PublicKeys, Secret};
use dualgate_core::plan::tunnel::Pair;
use rustix::fs::{FlockOperation, flock};

const DIRECTORY: &str = "wireguard";
const PRIVATE: &str = "private";
const PRESHARED: &str = "preshared";
const HEARTBEAT: &str = "heartbeat";

/// What the file of a next key ends with; `+` is part of no node's name, and once of a pair's.
const NEXT: &str = "+next";

/// What a temporary file's name starts with.
const TEMPORARY: &str = ".tmp-";

/// More than a key in base64 with a line end.
const MAX_SIZE: u64 = 256;

/// Why a key cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A folder cannot be made or looked at.
    #[error("open the key folder `{path}`")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read or replace keys.
    #[error(
        "`{path}` has the mode {mode:04o}, so that others can get at a key: run `chmod {right:04o} {path}`, and change \
         the key if others were there"
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What they should be.
        right: u32,
    },
    /// It belongs to another user.
    #[error("`{path}` belongs to the user {owner}, not to {user}, who runs this: run `chown {user} {path}`")]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A file cannot be read.
    #[error("read the key `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written. What was there before is still there.
    #[error("write the key `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else. What, is not shown: it may be secret.
    #[error("`{0}` holds no WireGuard key: 32 octets in base64, as `wg genkey` prints them")]
    NoKey(PathBuf),
    /// Another key has this place.
    #[error(
        "`{0}` holds another key already: to change it, use `dualgate keys rotate` (for that of the heartbeats with \
         --heartbeat); to give it up, remove the file"
    )]
    Exists(PathBuf),
    /// There is none.
    #[error("there is no key `{0}`: make one with `dualgate keys init`, a preshared one with --preshared-with")]
    Missing(PathBuf),
    /// No rotation is prepared.
    #[error("there is no next key `{0}`: prepare one with `dualgate keys rotate`, without --finish and --cancel")]
    NotRotating(PathBuf),
    /// Another process writes here.
    #[error("another process changes the keys in `{0}` at this moment: try again")]
    Busy(PathBuf),
    /// A name that is none of a node: it cannot be part of a path.
    #[error("`{0}` is no pair of node names")]
    Name(String),
    /// The system has no random numbers, or the cryptography does not work.
    #[error("make a key")]
    Crypto,
}

/// A key of 32 octets: private or preshared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Secret);

impl Key {
    /// A private key of Curve25519, clamped as RFC 7748 5 says.
    pub fn private() -> Result<Self, KeysError> {
        let mut octets = random()?;
        octets[0] &= 248;
        octets[31] = octets[31] & 127 | 64;
        Ok(Self(Secret::new(octets)))
    }

    /// A preshared key: any 32 octets.
    pub fn preshared() -> Result<Self, KeysError> {
        Ok(Self(Secret::new(random()?)))
    }

    /// Reads all there is, which is a key in base64 or none.
    pub fn read(from: impl io::Read) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        let size = from.take(MAX_SIZE + 1).read_to_end(&mut text)?;
        Ok(if size as u64 > MAX_SIZE { None } else { Self::from_base64(&Secret::new(text)) })
    }

    /// Reads base64, with white space around it.
    pub fn from_base64(text: &Secret) -> Option<Self> {
        // Into another secret.
        let octets = STANDARD.decode(text.expose().trim_ascii()).ok()?;
        let is_key = octets.len() == 32 && octets.iter().any(|octet| *octet != 0);
        is_key.then(|| Self(Secret::new(octets)))
    }

    /// As `wg genkey` prints it, without a line end.
    pub fn to_base64(&self) -> Secret {
        // Into another secret.
        Secret::new(STANDARD.encode(self.0.expose()).into_bytes())
    }

    /// The octets, for netlink and the tunnel in user space.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// The public part of a private key.
    pub fn public(&self) -> Result<PublicKey, KeysError> {
        // The library needs the octets to multiply with.
        let private = agreement::PrivateKey::from_private_key(&X25519, self.0.expose());
        let public = private.map_err(|_| KeysError::Crypto)?.compute_public_key().map_err(|_| KeysError::Crypto)?;
        public.as_ref().try_into().map(PublicKey::new).map_err(|_| KeysError::Crypto)
    }
}

fn random() -> Result<[u8; 32], KeysError> {
    let mut octets = [0; 32];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| KeysError::Crypto)?;
    Ok(octets)
}

/// Which key is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// This node's private key.
    Private,
    /// The preshared key of a pair.
    Preshared(Pair),
    /// The key of the home nodes' heartbeats.
    Heartbeat,
}

impl Slot {
    fn make(&self) -> Result<Key, KeysError> {
        match self {
            Self::Private => Key::private(),
            Self::Preshared(_) | Self::Heartbeat => Key::preshared(),
        }
    }
}

/// What became of a wish for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Written,
    /// It was there.
    Already,
}

/// The key folder of a node.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// Where a state directory has its keys.
    pub fn directory(state: &Path) -> PathBuf {
        state.join(DIRECTORY)
    }

    /// Where a state directory has the key of the heartbeats.
    pub fn heartbeat(state: &Path) -> PathBuf {
        state.join(HEARTBEAT)
    }

    /// Makes the folders if need be. Ones that others can enter, or that belong to somebody else, are refused.
    pub fn create(state: &Path) -> Result<Self, KeysError> {
        let directory = Self::directory(state);
        let path = directory.join(PRESHARED);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| KeysError::Open { path, source })?;
        Self::open(state)
    }

    /// The folders that are there. Before the first key there are none: [`KeysError::Missing`].
    pub fn open(state: &Path) -> Result<Self, KeysError> {
        let directory = Self::directory(state);
        // Whoever can write there can put another folder in its place.
        for (path, forbidden, right) in
            [(state, 0o022, 0o700), (&directory, 0o077, 0o700), (&directory.join(PRESHARED), 0o077, 0o700)]
        {
            let meta = fs::metadata(path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => KeysError::Missing(directory.join(PRIVATE)),
                _ => KeysError::Open { path: path.to_owned(), source },
            })?;
            guarded(path, &meta, forbidden, right)?;
        }
        Ok(Self { directory })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The key in use.
    pub fn current(&self, slot: &Slot) -> Result<Key, KeysError> {
        let path = self.file(slot)?;
        read(&path)?.ok_or(KeysError::Missing(path))
    }

    /// The key that comes next, while a rotation is prepared.
    pub fn next(&self, slot: &Slot) -> Result<Option<Key>, KeysError> {
        read(&self.next_file(slot)?)
    }

    /// This node's public keys, as the site file should name them.
    pub fn public(&self) -> Result<PublicKeys, KeysError> {
        let current = self.current(&Slot::Private)?.public()?;
        Ok(match self.next(&Slot::Private)? {
            None => PublicKeys::Current(current),
            Some(next) => PublicKeys::Rotating { current, next: next.public()? },
        })
    }

    /// The names of the pairs that have a preshared key, sorted.
    pub fn pairs(&self) -> Result<Vec<String>, KeysError> {
        let path = self.directory.join(PRESHARED);
        let entries = fs::read_dir(&path).map_err(|source| KeysError::Open { path, source })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut pairs: Vec<String> =
            names.filter(|name| !name.starts_with('.') && name.matches('+').count() == 1).collect();
        pairs.sort();
        Ok(pairs)
    }

    /// Makes a key, unless there is one.
    pub fn init(&self, slot: &Slot) -> Result<Outcome, KeysError> {
        let _lock = self.lock()?;
        let path = self.file(slot)?;
        match read(&path)? {
            Some(_) => Ok(Outcome::Already),
            None => write(&path, &slot.make()?).map(|()| Outcome::Written),
        }
    }

    /// Takes a key that was made elsewhere. Another one that is there already is kept, and that is an error.
    pub fn adopt(&self, slot: &Slot, key: &Key) -> Result<Outcome, KeysError> {
        let _lock = self.lock()?;
        let path = self.file(slot)?;
        match read(&path)? {
            Some(own) if own == *key => Ok(Outcome::Already),
            Some(_) => Err(KeysError::Exists(path)),
            None => write(&path, key).map(|()| Outcome::Written),
        }
    }

    /// Puts a next key beside the one in use, unless there is one: one made here, or one that the other node made.
    pub fn prepare(&self, slot: &Slot, made: Option<&Key>) -> Result<Outcome, KeysError> {
        let _lock = self.lock()?;
        self.current(slot)?;
        let path = self.next_file(slot)?;
        match (read(&path)?, made) {
            (None, None) => write(&path, &slot.make()?).map(|()| Outcome::Written),
            (None, Some(made)) => write(&path, made).map(|()| Outcome::Written),
            (Some(own), Some(made)) if own != *made => Err(KeysError::Exists(path)),
            (Some(_), Some(_) | None) => Ok(Outcome::Already),
        }
    }

    /// Puts the next key in the place of the one in use, which is gone then: in one step, or not at all.
    pub fn finish(&self, slot: &Slot) -> Result<(), KeysError> {
        let _lock = self.lock()?;
        let (path, next) = (self.file(slot)?, self.next_file(slot)?);
        // What cannot be used must not take the place of what can.
        read(&next)?.ok_or_else(|| KeysError::NotRotating(next.clone()))?;
        let renamed = fs::rename(&next, &path).and_then(|()| sync_folder(&path));
        renamed.map_err(|source| KeysError::Write { path, source })
    }

    /// Removes the next key.
    pub fn cancel(&self, slot: &Slot) -> Result<(), KeysError> {
        let _lock = self.lock()?;
        let next = self.next_file(slot)?;
        match fs::remove_file(&next).and_then(|()| sync_folder(&next)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeysError::NotRotating(next)),
            Err(source) => Err(KeysError::Write { path: next, source }),
        }
    }

    /// Where the key in use lies.
    pub fn file(&self, slot: &Slot) -> Result<PathBuf, KeysError> {
        match slot {
            Slot::Private => Ok(self.directory.join(PRIVATE)),
            Slot::Preshared(pair) => Ok(self.directory.join(PRESHARED).join(file_name(pair)?)),
            Slot::Heartbeat => Ok(self.directory.with_file_name(HEARTBEAT)),
        }
    }

    fn next_file(&self, slot: &Slot) -> Result<PathBuf, KeysError> {
        let mut path = self.file(slot)?.into_os_string();
        path.push(NEXT);
        Ok(path.into())
    }

    /// Held until it is dropped; the kernel drops it with the process.
    fn lock(&self) -> Result<File, KeysError> {
        let path = &self.directory;
        let directory = File::open(path).map_err(|source| KeysError::Open { path: path.clone(), source })?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|_| KeysError::Busy(path.clone()))?;
        Ok(directory)
    }
}

/// The key of the heartbeats in a state directory, and the one that comes next while it changes. Neither needs the folders of
/// WireGuard's keys.
pub fn heartbeat(state: &Path) -> (Result<Key, KeysError>, Result<Option<Key>, KeysError>) {
    let path = Keys::heartbeat(state);
    let mut next = path.clone().into_os_string();
    next.push(NEXT);
    (read(&path).and_then(|key| key.ok_or(KeysError::Missing(path))), read(Path::new(&next)))
}

/// Reads a key that lies somewhere else, such as `/etc/wireguard/private.key`; as careful with it as with our own.
pub fn read_file(path: &Path) -> Result<Key, KeysError> {
    read(path)?.ok_or_else(|| KeysError::Read { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// Writes a file with secrets in it, for its owner alone: all of it, or what was there before.
pub fn write_file(path: &Path, text: &Secret) -> Result<(), KeysError> {
    // Exposed to a file that only its owner can read.
    write_octets(path, text.expose()).map_err(|source| KeysError::Write { path: path.to_owned(), source })
}

/// Names come from a site file or from arguments: none may lead out of the folder.
fn file_name(pair: &Pair) -> Result<String, KeysError> {
    let name = pair.to_string();
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
    };
    let both = name.split_once('+').is_some_and(|(one, other)| is_name(one) && is_name(other));
    if both && name.len() + NEXT.len() + TEMPORARY.len() < 256 { Ok(name) } else { Err(KeysError::Name(name)) }
}

fn guarded(path: &Path, meta: &Metadata, forbidden: u32, right: u32) -> Result<(), KeysError> {
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(KeysError::Foreign { path: path.to_owned(), owner: meta.uid(), user });
    }
    if meta.mode() & forbidden != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o7777, right });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Key>, KeysError> {
    let failed = |source| KeysError::Read { path: path.to_owned(), source };
    // A FIFO in its place must not make us wait.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(KeysError::NoKey(path.to_owned()));
    }
    guarded(path, &meta, 0o077, 0o600)?;
    let key = Key::read(file).map_err(failed)?;
    key.map(Some).ok_or_else(|| KeysError::NoKey(path.to_owned()))
}

fn write(path: &Path, key: &Key) -> Result<(), KeysError> {
    // Exposed to a file that only its owner can read: what this folder is for.
    let text = [key.to_base64().expose(), b"\n"].concat();
    write_octets(path, &text).map_err(|source| KeysError::Write { path: path.to_owned(), source })
}

fn write_octets(path: &Path, octets: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let temporary = path.with_file_name(format!("{TEMPORARY}{name}"));
    let written = write_new(&temporary, octets).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // On a full disk the rest of it would only be in the way.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path))
}

fn write_new(path: &Path, octets: &[u8]) -> io::Result<()> {
    // What a process left that was stopped in the middle.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

/// A rename is only kept for sure once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
