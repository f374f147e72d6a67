//! What is in force, written down as the transaction that puts it there: whoever has to restore it needs no planner.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dualgate_core::plan::firewall::FirewallPlan;
use dualgate_wire::nftables::{Batch, Change, Dialect, Purpose};

use super::{FirewallError, delete};
use crate::netfilter::NetfilterError;

/// The transaction that makes the kernel's table so, whatever it was.
pub(super) fn transaction(plan: &FirewallPlan, dialect: Dialect) -> Result<Vec<u8>, FirewallError> {
    let change = plan.table.clone().map_or_else(delete, Change::Replace);
    let batch = Batch::encode(&[change], dialect, Purpose::Apply).map_err(NetfilterError::from)?;
    Ok(batch.bytes().to_vec())
}

/// Writes down what is in force.
pub(super) fn write(state: &Path, plan: &FirewallPlan, dialect: Dialect) -> Result<(), FirewallError> {
    write_trial(state, plan, dialect)?;
    keep_trial(state)
}

/// Writes down what will be in force if it is confirmed.
pub(super) fn write_trial(state: &Path, plan: &FirewallPlan, dialect: Dialect) -> Result<(), FirewallError> {
    let path = trial(state);
    let octets = transaction(plan, dialect)?;
    let whole = || -> io::Result<()> {
        std::fs::create_dir_all(state)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&octets)
    };
    whole().map_err(|source| FirewallError::Record { what: "write", path: path.clone(), source })
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

/// What was written down, if anything.
pub(super) fn read(state: &Path) -> Result<Option<Vec<u8>>, FirewallError> {
    let path = path(state);
    match std::fs::read(&path) {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FirewallError::Record { what: "read", path, source }),
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("firewall.rules")
}

fn trial(state: &Path) -> PathBuf {
    state.join("firewall.trial")
}
