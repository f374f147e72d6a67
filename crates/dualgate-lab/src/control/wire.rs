//! Lines and descriptors on a Unix socket, bounded in size and time.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{NamespaceKind, Refusal};
use crate::report::Status;

/// The most descriptors of one line: one for each kind of namespace.
const MAX_DESCRIPTORS: usize = 8;

/// What comes with a lab's socket.
const LISTENER: &str = "listener";
const MAX_LISTENER_LINE: usize = 64;

/// An answer as a line; the descriptors of `Enter` come with it, in the order of `namespaces`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Said {
    Done { message: String },
    Status { status: Box<Status> },
    Log { text: String },
    Enter { namespaces: Vec<NamespaceKind>, directory: String, environment: Vec<(String, String)> },
    Refused(Refusal),
}

/// Sends a line, with descriptors at its first octet.
pub fn send(stream: &UnixStream, value: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !message.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("the descriptors do not fit into a message"));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&line)], &mut message, SendFlags::NOSIGNAL)?;
    (&mut { stream }).write_all(&line[sent..])
}

/// Hands a lab's socket to the process that will answer at it.
pub fn give_listener(stream: &UnixStream, listener: &UnixListener) -> io::Result<()> {
    send(stream, &LISTENER, &[listener.as_fd()])
}

/// Takes the socket that [`give_listener`] handed over.
pub fn take_listener(stream: &UnixStream) -> io::Result<UnixListener> {
    let (_, descriptors) = receive(stream, MAX_LISTENER_LINE, Duration::from_secs(5))?;
    let listener = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    Ok(listener.into())
}

/// Receives a line of at most `limit` octets within `patience`.
pub fn receive(stream: &UnixStream, limit: usize, patience: Duration) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let deadline = Instant::now() + patience;
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let received = receive_some(stream, &mut buffer, &mut descriptors).map_err(timed_out)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&buffer[..received]);
        let end = line.iter().position(|octet| *octet == b'\n');
        if end.unwrap_or(line.len()) > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the line is longer than {limit} octets")));
        }
        if let Some(end) = end {
            line.truncate(end);
            return Ok((line, descriptors));
        }
    }
}

fn receive_some(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    Ok(received.bytes)
}

/// A socket's time-out looks like a socket that does not wait.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
