//! Listening sockets handed from a running process to its successor.
//!
//! Closing a socket that others listen beside loses the connections in its queue; handing it over loses none. The running
//! process listens on a Unix socket in its state directory, which only its owner can enter. A successor connects, receives
//! every listening socket, and says so once it serves from them; then the old process lets its connections end.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sockets in one message; the kernel takes up to 253.
const BATCH: usize = 64;
/// The most sockets that are taken over.
const MOST: usize = 16 * 1024;
/// How long the other side may take for one step.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a successor may take until it serves.
const START: Duration = Duration::from_secs(120);
/// A message with sockets; more follow.
const SOCKETS: u8 = b's';
/// No more follow.
const END: u8 = b'e';
/// The successor serves.
const SERVING: u8 = b'!';

/// Why sockets did not change hands.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The Unix socket cannot be used.
    #[error("use the hand-over socket `{path}`")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other side broke off, or said something else.
    #[error("exchange sockets")]
    Exchange(#[from] io::Error),
}

/// Where a process with this state directory can be asked.
pub fn path(state: &Path) -> PathBuf {
    state.join("handover.sock")
}

/// Offers sockets to successors, on a thread of its own. `sockets` is asked when one comes; `served` is called when it
/// serves, and then nothing more is offered.
pub fn offer(
    state: &Path,
    sockets: impl Fn() -> Vec<OwnedFd> + Send + 'static,
    served: impl FnOnce() + Send + 'static,
) -> Result<(), HandoverError> {
    let path = path(state);
    let failed = |source| HandoverError::Socket { path: path.clone(), source };
    // Whoever calls holds the lock of the state directory: a socket that is there is left over.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let offering = move || {
        for stream in listener.incoming() {
            let handed = stream.and_then(|stream| hand_over(stream, &sockets()));
            match handed {
                Ok(()) => return served(),
                Err(error) => tracing::warn!(%error, "a successor did not take over"),
            }
        }
    };
    std::thread::Builder::new().name("handover".to_owned()).spawn(offering).map_err(HandoverError::Exchange)?;
    Ok(())
}

fn hand_over(mut stream: UnixStream, sockets: &[OwnedFd]) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(START))?;
    for batch in sockets.chunks(BATCH) {
        let descriptors: Vec<_> = batch.iter().map(OwnedFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("the sockets do not fit into a message"));
        }
        sendmsg(stream.as_fd(), &[IoSlice::new(&[SOCKETS])], &mut message, SendFlags::NOSIGNAL)?;
    }
    stream.write_all(&[END])?;
    let mut said = [0];
    stream.read_exact(&mut said)?;
    if said != [SERVING] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

/// Sockets taken over, and the word that is still to be said.
#[derive(Debug)]
pub struct Taken {
    /// The sockets.
    pub sockets: Vec<OwnedFd>,
    stream: UnixStream,
}

impl Taken {
    /// The sockets, to be served from.
    pub fn copies(&self) -> Result<Vec<OwnedFd>, HandoverError> {
        Ok(self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?)
    }

    /// Tells the old process that its connections may end.
    pub fn serving(mut self) -> Result<(), HandoverError> {
        Ok(self.stream.write_all(&[SERVING])?)
    }
}

/// Takes the sockets of the process that runs with this state directory.
pub fn take(state: &Path) -> Result<Taken, HandoverError> {
    let path = path(state);
    let stream = UnixStream::connect(&path).map_err(|source| HandoverError::Socket { path, source })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut sockets = Vec::new();
    while let Some(batch) = receive(&stream)? {
        sockets.extend(batch);
        if sockets.len() > MOST {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
    }
    Ok(Taken { sockets, stream })
}

/// One message; `None` is the end.
fn receive(stream: &UnixStream) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut kind = [0];
    let received = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut kind)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            sockets.extend(descriptors);
        }
    }
    match kind {
        [SOCKETS] => Ok(Some(sockets)),
        [END] => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::sync_channel;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dualgate-handover-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_successor_accepts_what_was_queued_before_it_came() {
        let state = directory("queue");
        let sockets: Vec<_> = (0..BATCH + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let last = sockets[BATCH + 2].local_addr().unwrap();
        let _queued = std::net::TcpStream::connect(last).unwrap();
        let (tell, told) = sync_channel(1);
        let offered: Vec<_> = sockets.iter().map(|socket| OwnedFd::from(socket.try_clone().unwrap())).collect();
        let clones = move || offered.iter().map(|socket| socket.try_clone().unwrap()).collect();
        offer(&state, clones, move || tell.send(()).unwrap()).unwrap();
        let taken = take(&state).unwrap();
        drop(sockets);
        assert_eq!(taken.sockets.len(), BATCH + 3);
        let mut taken_over = taken.copies().unwrap().into_iter().map(TcpListener::from);
        let mine = taken_over.find(|socket| socket.local_addr().unwrap() == last).unwrap();
        mine.accept().unwrap();
        assert!(told.try_recv().is_err(), "nothing ends before the successor serves");
        taken.serving().unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        std::fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn a_successor_that_dies_changes_nothing_and_another_can_come() {
        let state = directory("dies");
        let socket = TcpListener::bind("[::1]:0").unwrap();
        let (tell, told) = sync_channel(1);
        offer(&state, move || vec![socket.try_clone().unwrap().into()], move || tell.send(()).unwrap()).unwrap();
        drop(take(&state).unwrap());
        let second = take(&state).unwrap();
        assert!(told.try_recv().is_err());
        second.serving().unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        std::fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn without_a_running_process_the_path_is_named() {
        let state = directory("nobody");
        let error = take(&state).unwrap_err().to_string();
        assert!(error.contains("handover.sock"), "{error}");
        std::fs::remove_dir_all(state).unwrap();
    }
}
