//! What nft says of a table, where it is installed.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};

use dualgate_wire::nftables::Table;

/// Runs nft in this thread's network, with this text as its input; nothing where it is not installed.
pub fn nft(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let required = std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
            assert!(!required, "nft is not installed");
            eprintln!("SKIPPED: host::netfilter_nft: nft is not installed");
            return None;
        }
        child => child.expect("start nft"),
    };
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("give nft its input");
    Some(child.wait_with_output().expect("wait for nft"))
}

/// nft reads the words of a table's `Display`, and what it makes of them is listed as the table that is there.
///
/// Both go through the same nft, so that its version does not matter.
pub fn same_for_nft(table: &Table) {
    let Some(ours) = list(table) else { return };
    let (family, text) = (table.family.to_string(), table.to_string());
    let delete = format!("delete table {family} {}\n", table.name);
    let read = nft(&["-f", "-"], &(delete + &text)).expect("nft is installed");
    assert!(read.status.success(), "{}\n{text}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(list(table).expect("nft is installed"), ours);
}

fn list(table: &Table) -> Option<String> {
    let listed = nft(&["list", "table", &table.family.to_string(), &table.name], "")?;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    Some(String::from_utf8(listed.stdout).expect("nft writes UTF-8"))
}
