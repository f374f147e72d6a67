//! Orders from people: a Unix socket in the state directory, which only the owner of the state can open.
//!
//! One JSON line each way. `{"move":{"address":"192.168.178.10","to":"k3s-node2"}}`, `"drain"` or `"undrain"`; the answer is
//! `{"done":"…"}` or `{"refused":"…"}`.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use dualgate_core::model::NodeName;
use serde::{Deserialize, Serialize};

/// The socket's name in the state directory.
const NAME: &str = "virtual-ips.sock";
/// Orders and answers are far shorter.
const MOST: usize = 4096;
/// How long a person's program may take to say its line.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many may be about to say something.
const MOST_OPEN: usize = 16;

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The addresses that this one is together with shall go to another node.
    Move {
        /// One of them.
        address: IpAddr,
        /// Where to.
        to: NodeName,
    },
    /// This node gives away all that another can take, and takes nothing.
    Drain,
    /// It takes again.
    Undrain,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was begun.
    Done(String),
    /// Why not.
    Refused(String),
}

/// Gives an order to the process that runs with this state directory.
///
/// # Errors
///
/// If no process runs there, or it does not answer.
pub fn order(state: &Path, order: &Order) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(state.join(NAME))?;
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MOST as u64)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Where orders come in. Its file stays behind: a successor may have its own there already, and nobody answers at one that
/// was left.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    /// Who has not said all yet.
    open: Vec<Open>,
}

/// A connection whose line is not whole.
#[derive(Debug)]
struct Open {
    stream: UnixStream,
    said: Vec<u8>,
    until: Duration,
}

impl Control {
    /// Listens in this state directory, in the place of a process that has ended.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, open: Vec::new() })
    }

    /// The orders that came, each with where its answer goes. Nobody is waited for.
    pub fn orders(&mut self, now: Duration) -> Vec<(Result<Order, String>, Reply)> {
        while self.open.len() < MOST_OPEN
            && let Ok((stream, _)) = self.listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                self.open.push(Open { stream, said: Vec::new(), until: now + PATIENCE });
            }
        }
        let mut orders = Vec::new();
        for mut open in std::mem::take(&mut self.open) {
            match open.read() {
                Some(order) => orders.push((order, Reply(open.stream))),
                None if now < open.until => self.open.push(open),
                None => {}
            }
        }
        orders
    }

    /// To be waited for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = (self.open.len() < MOST_OPEN).then(|| self.listener.as_fd());
        listener.into_iter().chain(self.open.iter().map(|open| open.stream.as_fd()))
    }
}

impl Open {
    /// The order, once its line is whole, or what is wrong with it.
    fn read(&mut self) -> Option<Result<Order, String>> {
        let mut space = [0; MOST];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) => break,
                Ok(length) => self.said.extend_from_slice(&space[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.said.contains(&b'\n') {
                        break;
                    }
                    return None;
                }
                Err(error) => return Some(Err(error.to_string())),
            }
            if self.said.len() > MOST || self.said.contains(&b'\n') {
                break;
            }
        }
        let line = self.said.split(|octet| *octet == b'\n').next().unwrap_or_default();
        Some(serde_json::from_slice(line).map_err(|error| format!("no order: {error}")))
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Reply(UnixStream);

impl Reply {
    /// Answers. Whoever asked may have gone.
    pub fn send(mut self, answer: &Answer) {
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_keeps_nobody_waiting() {
        let state = std::env::temp_dir().join(format!("dualgate-control-{}", std::process::id()));
        std::fs::create_dir_all(&state).expect("a folder");
        let mut control = Control::open(&state).expect("a socket");
        let idle: Vec<UnixStream> =
            (0..3).map(|_| UnixStream::connect(state.join(NAME)).expect("a connection")).collect();
        let mut slow = UnixStream::connect(state.join(NAME)).expect("a connection");
        slow.write_all(b"\"dra").expect("half a line");
        assert!(control.orders(Duration::ZERO).is_empty());
        slow.write_all(b"in\"\n").expect("the rest");
        let orders: Vec<_> = control.orders(Duration::ZERO).into_iter().map(|(order, _)| order).collect();
        assert_eq!(orders, [Ok(Order::Drain)]);
        assert_eq!(control.open.len(), idle.len());
        assert!(control.orders(PATIENCE).is_empty());
        assert!(control.open.is_empty(), "their time is over");
        std::fs::remove_dir_all(&state).expect("a folder");
    }
}
