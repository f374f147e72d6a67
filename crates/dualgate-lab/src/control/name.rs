//! A lab's name, and where a lab of this name listens.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::str::FromStr;

/// What the names of all labs' sockets begin with.
const PREFIX: &str = "dualgate-lab/";
/// A socket's name has room for 107 octets.
const MAX_LENGTH: usize = 63;

/// The name of a lab: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

impl LabName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this user's lab of this name listens.
    pub(super) fn address(&self, user: u32) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("{PREFIX}{user}/{}", self.0))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text {
            "" => Err("a lab's name is not empty".to_owned()),
            _ if text.len() > MAX_LENGTH => Err(format!("a lab's name has at most {MAX_LENGTH} characters")),
            _ if text.chars().all(allowed) => Ok(Self(text.to_owned())),
            _ => Err(format!("`{text}` is no name for a lab: letters, digits, `-`, `_` and `.` are")),
        }
    }
}

/// The labs of a user in the kernel's table of Unix sockets (/proc/net/unix), sorted.
pub(super) fn listed(table: &str, user: u32) -> Vec<LabName> {
    /// `__SO_ACCEPTCON`: the socket listens.
    const LISTENS: u32 = 0x1_0000;
    let mine = format!("@{PREFIX}{user}/");
    let names = table.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let flags = u32::from_str_radix(columns.nth(3)?, 16).ok()?;
        let path = columns.nth(3)?;
        if flags & LISTENS == 0 { None } else { path.strip_prefix(&mine)?.parse().ok() }
    });
    let mut names: Vec<LabName> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_sockets_name() {
        assert_eq!("home-2.test_a".parse(), Ok(LabName("home-2.test_a".into())));
        for wrong in ["", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(wrong.parse::<LabName>().is_err(), "{wrong}");
        }
        let longest: LabName = "x".repeat(MAX_LENGTH).parse().unwrap();
        assert!(longest.address(u32::MAX).is_ok());
    }

    #[test]
    fn the_kernels_table_tells_listening_labs_of_one_user() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 43105 @dualgate-lab/1000/home
0000000000000000: 00000003 00000000 00000000 0001 03 43106 @dualgate-lab/1000/home
0000000000000000: 00000002 00000000 00010000 0001 01 43107 @dualgate-lab/1000/a
0000000000000000: 00000002 00000000 00010000 0001 01 43108 @dualgate-lab/1001/other
0000000000000000: 00000002 00000000 00010000 0001 01 43109 /run/dualgate-lab/1000/file
0000000000000000: 00000003 00000000 00000000 0001 03 43110
";
        let names = |user| listed(table, user).iter().map(LabName::to_string).collect::<Vec<_>>();
        assert_eq!(
            (names(1000), names(1001), names(0)),
            (vec!["a".into(), "home".into()], vec!["other".into()], vec![])
        );
    }
}
