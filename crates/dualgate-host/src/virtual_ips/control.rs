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
const MOST: u64 = 4096;
/// How long a person's program may take to say its line: it has been written before the connection is accepted.
const PATIENCE: Duration = Duration::from_millis(20);

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
    BufReader::new(stream.take(MOST)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Where orders come in. Its file stays behind: a successor may have its own there already, and nobody answers at one that
/// was left.
#[derive(Debug)]
pub struct Control(UnixListener);

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
        Ok(Self(listener))
    }

    /// The orders that wait, each with where its answer goes.
    pub fn orders(&self) -> Vec<(Result<Order, String>, Reply)> {
        let mut orders = Vec::new();
        while let Ok((stream, _)) = self.0.accept() {
            let order = read(&stream).unwrap_or_else(|error| Err(error.to_string()));
            orders.push((order, Reply(stream)));
        }
        orders
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

fn read(stream: &UnixStream) -> io::Result<Result<Order, String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line).map_err(|error| format!("no order: {error}")))
}
