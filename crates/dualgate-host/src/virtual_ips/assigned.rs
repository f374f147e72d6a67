//! Which Service has which address, over a restart of every node: a file in the state directory.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgate_core::machine::ownership::Replica;
use dualgate_core::model::Assignments;
use serde::{Deserialize, Serialize};

const NAME: &str = "assignments.json";

/// The last state that the holder told.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    term: u64,
    version: u64,
    assignments: Assignments,
}

/// What was kept; nothing if there is no such file, an error if it cannot be used.
pub fn read(state: &Path) -> io::Result<Option<Replica>> {
    let text = match std::fs::read(path(state)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Kept { term, version, assignments } = serde_json::from_slice(&text)?;
    Ok(Some(Replica { term, version, bytes: encode(&assignments) }))
}

/// Keeps it, also when the power fails: all of it, or what was there before.
pub fn write(state: &Path, replica: &Replica) -> io::Result<()> {
    let assignments = decode(&replica.bytes)?;
    let text = serde_json::to_vec(&Kept { term: replica.term, version: replica.version, assignments })?;
    let part = path(state).with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&part, path(state))?;
    File::open(state)?.sync_all()
}

/// As members tell each other.
pub fn encode(assignments: &Assignments) -> Arc<[u8]> {
    // A map of names to addresses always has a JSON form.
    serde_json::to_vec(assignments).unwrap_or_default().into()
}

/// What a member told.
pub fn decode(bytes: &[u8]) -> serde_json::Result<Assignments> {
    serde_json::from_slice(bytes)
}

fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}
