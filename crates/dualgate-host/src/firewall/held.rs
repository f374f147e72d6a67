//! A change that shuts somebody out and is not confirmed: what is remembered of it, also when processes end.
//!
//! It is written down before the trial begins, and goes when the change is confirmed. Whatever else ends a trial (its
//! time, a signal, a power cut) leaves it there: who finds it, and no trial, does not make the change.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dualgate_core::model::object::Protocol;
use dualgate_core::plan::firewall::{Purpose, Way, Ways};
use serde_json::{Value, json};

use super::FirewallError;

/// A change that is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it was to leave open to people.
    pub refused: Ways,
    /// What stays open besides.
    pub kept: Vec<Way>,
    /// Whom it would shut out, in words.
    pub who: String,
}

impl Held {
    /// What was written down, if anything.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(state: &Path) -> Result<Option<Self>, FirewallError> {
        let path = path(state);
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged: remove it");
        let read = || -> io::Result<Self> {
            let value = serde_json::from_slice(&std::fs::read(&path)?).map_err(io::Error::other)?;
            Self::parse(&value).ok_or_else(invalid)
        };
        match read() {
            Ok(held) => Ok(Some(held)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FirewallError::Record { what: "read", path: path.clone(), source }),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, state: &Path) -> Result<(), FirewallError> {
        let path = path(state);
        let kept = Ways::These(self.kept.clone());
        let value = json!({"refused": to_value(&self.refused), "kept": to_value(&kept), "who": self.who});
        write(&path, &[value.to_string().as_bytes()]).map_err(|source| FirewallError::Record {
            what: "write",
            path,
            source,
        })
    }

    /// It is confirmed, or no longer wanted.
    pub fn forget(state: &Path) -> Result<(), FirewallError> {
        let path = path(state);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FirewallError::Record { what: "remove", path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn parse(value: &Value) -> Option<Self> {
        let Ways::These(kept) = from_value(&value["kept"])? else { return None };
        Some(Self { refused: from_value(&value["refused"])?, kept, who: value["who"].as_str()?.to_owned() })
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("firewall.held")
}

/// Writes a file, all of it or nothing, for its owner alone.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let part = path.with_added_extension("part");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    parts.iter().try_for_each(|octets| file.write_all(octets))?;
    // A machine that is switched off because somebody is locked out must find it.
    file.sync_all()?;
    std::fs::rename(part, path)
}

pub(super) fn to_value(ways: &Ways) -> Value {
    let way = |Way { protocol, port, from, purpose }: &Way| {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let purpose = match purpose {
            Purpose::Ssh => "ssh",
            Purpose::Allowed => "allowed",
        };
        let from: Vec<String> = from.iter().map(ToString::to_string).collect();
        json!({"protocol": protocol, "port": port, "from": from, "purpose": purpose})
    };
    match ways {
        Ways::All => json!("all"),
        Ways::These(ways) => ways.iter().map(way).collect(),
    }
}

pub(super) fn from_value(value: &Value) -> Option<Ways> {
    if value == "all" {
        return Some(Ways::All);
    }
    let way = |value: &Value| {
        let protocol = match value["protocol"].as_str()? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        let purpose = match value["purpose"].as_str()? {
            "ssh" => Purpose::Ssh,
            "allowed" => Purpose::Allowed,
            _ => return None,
        };
        let from: Option<_> = value["from"].as_array()?.iter().map(|net| net.as_str()?.parse().ok()).collect();
        Some(Way { protocol, port: value["port"].as_u64()?.try_into().ok()?, from: from?, purpose })
    };
    value.as_array()?.iter().map(way).collect::<Option<_>>().map(Ways::These)
}
