//! What `wg show` asks: the cross-platform interface of WireGuard, for reading (wireguard.com/xplatform).
//!
//! It answers `get=1` and refuses `set=1`: the plan says what is, and nobody else. Keys that are secret are left out. Where
//! the directory of these sockets cannot be written, there is none, and nothing else misses it.

use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::PeerStatus;

/// Where `wg` looks.
const DIRECTORY: &str = "/var/run/wireguard";
/// Who asks must do so within this time; the next one waits.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST: usize = 4096;
/// EPERM.
const REFUSED: &str = "errno=1\n\n";

/// The socket, and the thread that answers there.
#[derive(Debug)]
pub struct Uapi {
    path: PathBuf,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Uapi {
    /// Listens for an interface. `look` says the port and the peers.
    pub fn listen(
        interface: &str,
        look: impl Fn() -> Option<(u16, Vec<PeerStatus>)> + Send + 'static,
    ) -> io::Result<Self> {
        let path = Path::new(DIRECTORY).join(format!("{interface}.sock"));
        let listener = bind(&path)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let (stopped, file) = (rustix::io::dup(&stop)?, path.clone());
        let run = move || {
            serve(&listener, &stopped, &look);
            // In the thread's own view of the files; somebody may have removed it.
            let _ = std::fs::remove_file(file);
        };
        let thread = std::thread::Builder::new().name("tunnel-uapi".to_owned()).spawn(run)?;
        Ok(Self { path, stop, thread: Some(thread) })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Uapi {
    fn drop(&mut self) {
        // A counter that is full has woken it already.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic was printed.
            let _ = thread.join();
        }
    }
}

/// Takes the place of a socket that nobody listens on any more.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match DirBuilder::new().mode(0o700).create(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve(listener: &UnixListener, stop: &OwnedFd, look: &dyn Fn() -> Option<(u16, Vec<PeerStatus>)>) {
    loop {
        let mut waiting = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !waiting[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let answered = listener.accept().and_then(|(stream, _)| answer(stream, look));
        if let Err(error) = answered {
            tracing::debug!(%error, "somebody who asked like `wg show` got no answer");
        }
    }
}

fn answer(mut stream: UnixStream, look: &dyn Fn() -> Option<(u16, Vec<PeerStatus>)>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = Vec::new();
    let mut space = [0; 512];
    while !question.ends_with(b"\n\n") && question.len() < LONGEST {
        match stream.read(&mut space)? {
            0 => break,
            length => question.extend_from_slice(&space[..length]),
        }
    }
    let status = if question == b"get=1\n\n" { look() } else { None };
    let text = status.map_or_else(|| REFUSED.to_owned(), |(port, peers)| describe(port, &peers, SystemTime::now()));
    stream.write_all(text.as_bytes())
}

fn describe(port: u16, peers: &[PeerStatus], now: SystemTime) -> String {
    let mut text = format!("listen_port={port}\n");
    for peer in peers {
        let key: String = peer.public_key.octets().iter().map(|octet| format!("{octet:02x}")).collect();
        let handshake = peer.last_handshake.and_then(|age| now.checked_sub(age));
        let handshake = handshake.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "public_key={key}");
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        let _ = writeln!(text, "last_handshake_time_sec={}", handshake.as_secs());
        let _ = writeln!(text, "last_handshake_time_nsec={}", handshake.subsec_nanos());
        let _ = writeln!(text, "tx_bytes={}\nrx_bytes={}", peer.sent, peer.received);
        let keepalive = peer.keepalive.map_or(0, u16::from);
        let _ = writeln!(text, "persistent_keepalive_interval={keepalive}");
        for network in &peer.allowed_ips {
            let _ = writeln!(text, "allowed_ip={network}");
        }
    }
    text + "errno=0\n\n"
}

#[cfg(test)]
mod tests {
    use dualgate_core::model::PublicKey;

    use super::*;

    #[test]
    fn an_answer_has_everything_but_secrets() {
        let peer = PeerStatus {
            public_key: PublicKey::new([0xab; 32]),
            endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
            last_handshake: Some(Duration::from_secs(10)),
            received: 7,
            sent: 8,
            loss: None,
            round_trip: None,
            keepalive: None,
            allowed_ips: vec!["10.8.0.2/32".parse().unwrap()],
        };
        let text = describe(51820, &[peer], SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        let expected = format!(
            "listen_port=51820\npublic_key={}\nendpoint=[2001:db8::1]:51820\nlast_handshake_time_sec=90\n\
             last_handshake_time_nsec=0\ntx_bytes=8\nrx_bytes=7\npersistent_keepalive_interval=0\n\
             allowed_ip=10.8.0.2/32\nerrno=0\n\n",
            "ab".repeat(32)
        );
        assert_eq!(text, expected);
    }

    fn ask(question: &[u8]) -> String {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(question).unwrap();
        one.shutdown(std::net::Shutdown::Write).unwrap();
        answer(other, &|| Some((7, Vec::new()))).unwrap();
        let mut text = String::new();
        one.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn reading_is_answered_and_changing_is_refused() {
        assert_eq!(ask(b"get=1\n\n"), "listen_port=7\nerrno=0\n\n");
        assert_eq!(ask(b"set=1\nlisten_port=1\n\n"), REFUSED);
        assert_eq!(ask(b"nonsense"), REFUSED);
        assert_eq!(ask(&[b'x'; LONGEST]), REFUSED);
    }
}
