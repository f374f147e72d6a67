//! What is in force, written down as the transaction that puts it there: whoever has to restore it needs no planner.

use std::io;
use std::path::{Path, PathBuf};

use dualgate_core::plan::firewall::{FirewallPlan, Ways};
use dualgate_wire::nftables::{Batch, Change, Dialect, Purpose};

use super::{FirewallError, delete, held};
use crate::netfilter::NetfilterError;

/// The transaction that makes the kernel's table so, whatever it was.
pub(super) fn transaction(plan: &FirewallPlan, dialect: Dialect) -> Result<Vec<u8>, FirewallError> {
    let change = plan.table.clone().map_or_else(delete, Change::Replace);
    let batch = Batch::encode(&[change], dialect, Purpose::Apply).map_err(NetfilterError::from)?;
    Ok(batch.bytes().to_vec())
}

/// What was written down.
pub(super) struct Record {
    /// What it leaves open to people.
    pub(super) ways: Ways,
    /// The transaction that puts it in force.
    pub(super) transaction: Vec<u8>,
}

/// Writes down what is in force.
pub(super) fn write(state: &Path, plan: &FirewallPlan, dialect: Dialect) -> Result<(), FirewallError> {
    write_trial(state, plan, dialect)?;
    keep_trial(state)
}

/// Writes down what will be in force if it is confirmed: a line of JSON, and the transaction.
pub(super) fn write_trial(state: &Path, plan: &FirewallPlan, dialect: Dialect) -> Result<(), FirewallError> {
    let path = trial(state);
    let ways = held::to_value(&plan.ways()).to_string();
    held::write(&path, &[ways.as_bytes(), b"\n", &transaction(plan, dialect)?])
        .map_err(|source| FirewallError::Record { what: "write", path, source })
}

/// It was confirmed.
pub(super) fn keep_trial(state: &Path) -> Result<(), FirewallError> {
    let path = path(state);
    std::fs::rename(trial(state), &path).map_err(|source| FirewallError::Record { what: "write", path, source })
}

/// It was not.
pub(super) fn forget_trial(state: &Path) {
    // What is left there is overwritten by the next one, and read by nobody.
    let _ = std::fs::remove_file(trial(state));
}

/// What was written down, if anything; what cannot be understood was not.
pub(super) fn read(state: &Path) -> Result<Option<Record>, FirewallError> {
    let path = path(state);
    match std::fs::read(&path) {
        Ok(octets) => Ok(parse(&octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FirewallError::Record { what: "read", path, source }),
    }
}

fn parse(octets: &[u8]) -> Option<Record> {
    let end = octets.iter().position(|octet| *octet == b'\n')?;
    let (ways, transaction) = octets.split_at(end);
    let ways = held::from_value(&serde_json::from_slice(ways).ok()?)?;
    Some(Record { ways, transaction: transaction.get(1..)?.to_vec() })
}

fn path(state: &Path) -> PathBuf {
    state.join("firewall.rules")
}

fn trial(state: &Path) -> PathBuf {
    state.join("firewall.trial")
}
