//! What the kernel's own settings must be so that packets go on as planned. They are looked at, never changed.

use std::io;
use std::path::Path;

use super::{DataPath, DataPathError};

const FORWARDING_V4: &str = "net/ipv4/ip_forward";
const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";
/// Whether connection tracking follows flows that it has not seen begin.
const LOOSE: &str = "net/netfilter/nf_conntrack_tcp_loose";

/// Whether this host, as it is, carries such packets.
///
/// # Errors
///
/// If a setting is in the way: which one.
pub(super) fn settings(path: &DataPath) -> Result<(), DataPathError> {
    let tunnelled = |of: fn(&std::net::IpAddr) -> bool| path.tunnelled.iter().any(|edge| of(&edge.address));
    for (needed, setting) in
        [(tunnelled(|to| to.is_ipv4()), FORWARDING_V4), (tunnelled(|to| to.is_ipv6()), FORWARDING_V6)]
    {
        if needed && read(setting)?.as_deref() == Some("0") {
            return Err(DataPathError::NotForwarding { setting: name(setting) });
        }
    }
    if !path.relays.is_empty() && read(LOOSE)?.as_deref() == Some("0") {
        return Err(DataPathError::StrictTracking { setting: name(LOOSE) });
    }
    Ok(())
}

fn name(setting: &str) -> String {
    setting.replace('/', ".")
}

/// The setting's value in the network of the calling thread; nothing where there is no such setting.
pub fn read(setting: &str) -> Result<Option<String>, DataPathError> {
    match std::fs::read_to_string(Path::new("/proc/sys").join(setting)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataPathError::Setting { setting: name(setting), source }),
    }
}
