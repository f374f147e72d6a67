//! What a service manager is told: that this process is ready, that it reads its configuration again, that it stops, and how
//! it is, in a line (`sd_notify(3)`).
//!
//! Each is a datagram to the socket that `NOTIFY_SOCKET` names: a path, or with a leading `@` a name without a file. Without
//! a service manager nothing is told. Nobody waits for it: one that does not listen misses a line.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

/// The longest line about how it is; `systemctl status` shows one line.
const LONGEST: usize = 400;

/// What can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// It serves; or it has read its configuration again.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It has begun to end.
    Stopping,
    /// How it is, for people.
    Status(&'a str),
}

/// The service manager that started this process, if there is one.
#[derive(Debug)]
pub struct NotifySocket(Option<UnixDatagram>);

impl NotifySocket {
    /// The one that the environment names.
    pub fn of_environment() -> io::Result<Self> {
        Self::at(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// There is none.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// The one that listens at a socket, as `NOTIFY_SOCKET` writes it.
    pub fn at(name: Option<&OsStr>) -> io::Result<Self> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Self(None)) };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(Path::new(name))?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is no path and no `@name`")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(socket)))
    }

    /// Whether anybody hears it.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Tells all of this at once.
    pub fn tell(&self, words: &[Word<'_>]) -> io::Result<()> {
        let Some(socket) = &self.0 else { return Ok(()) };
        socket.send(message(words, monotonic()).as_bytes()).map(|_| ())
    }
}

/// Microseconds of the clock by which systemd tells a second reload from the answer to the first.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
        .saturating_add(u64::try_from(now.tv_nsec / 1000).unwrap_or(0))
}

fn message(words: &[Word<'_>], now: u64) -> String {
    let mut message = String::new();
    for word in words {
        let _ = match word {
            Word::Ready => writeln!(message, "READY=1"),
            Word::Reloading => writeln!(message, "RELOADING=1\nMONOTONIC_USEC={now}"),
            Word::Stopping => writeln!(message, "STOPPING=1"),
            Word::Status(text) => writeln!(message, "STATUS={}", line(text)),
        };
    }
    message
}

/// A line end would begin another word.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_a_line_and_a_text_cannot_become_a_word() {
        let words = [Word::Reloading, Word::Ready, Word::Status("two peers\nSTOPPING=1"), Word::Stopping];
        let expected = "RELOADING=1\nMONOTONIC_USEC=7\nREADY=1\nSTATUS=two peers STOPPING=1\nSTOPPING=1\n";
        assert_eq!(message(&words, 7), expected);
    }

    #[test]
    fn a_name_that_is_neither_path_nor_abstract_is_refused_and_none_is_nobody() {
        assert!(NotifySocket::at(Some(OsStr::new("vsock:2:1234"))).is_err());
        assert!(!NotifySocket::at(None).unwrap().is_there());
        assert!(NotifySocket::nobody().tell(&[Word::Ready]).is_ok());
    }
}
