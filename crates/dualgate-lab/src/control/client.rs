//! The other side: finds labs, asks, understands the answer.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::process::getuid;

use super::name::listed;
use super::wire::{self, Said};
use super::{Answer, Entrance, LabName, Refusal, Request};

/// The longest answer.
const MAX_ANSWER: usize = 16 << 20;
/// How long an answer may take: a host that is switched on starts its `dualgate run`.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a lab cannot be asked, or does not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none.
    #[error("no lab is running: start one with `dualgate lab`")]
    NoLab,
    /// There are several, and none was named.
    #[error("several labs are running: say which with --name ({})", joined(.0))]
    Several(Vec<LabName>),
    /// There is none of this name.
    #[error("no lab `{name}` is running: there is {}", joined(.running))]
    Unknown {
        /// The name.
        name: LabName,
        /// Those that there are.
        running: Vec<LabName>,
    },
    /// One of this name runs already.
    #[error("a lab `{0}` runs already: end it with `dualgate lab down --name {0}`, or give this one another --name")]
    Taken(LabName),
    /// Somebody else listens there.
    #[error("what listens as lab `{0}` belongs to another user")]
    Stranger(LabName),
    /// The lab refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not answer, or nonsense.
    #[error("ask the lab `{name}`")]
    Ask {
        /// Its name.
        name: LabName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sockets cannot be used.
    #[error("{doing}")]
    Socket {
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn joined(names: &[LabName]) -> String {
    names.iter().map(LabName::as_str).collect::<Vec<_>>().join(", ")
}

/// Takes a name: the socket to listen on.
pub fn bind(name: &LabName) -> Result<UnixListener, ControlError> {
    let bound = name.address(getuid().as_raw()).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ControlError::Taken(name.clone()),
        _ => ControlError::Socket { doing: "listen on the lab's control socket", source },
    })
}

/// This user's labs on this machine, sorted.
pub fn running() -> Result<Vec<LabName>, ControlError> {
    let table = std::fs::read("/proc/net/unix");
    let table = table.map_err(|source| ControlError::Socket { doing: "read /proc/net/unix", source })?;
    // Other programs' names may be any octets.
    Ok(listed(&String::from_utf8_lossy(&table), getuid().as_raw()))
}

/// The lab that is meant: the one named, else the only one.
pub fn choose(named: Option<&LabName>, running: Vec<LabName>) -> Result<LabName, ControlError> {
    match (named, running.as_slice()) {
        (_, []) => Err(ControlError::NoLab),
        (Some(name), _) if running.contains(name) => Ok(name.clone()),
        (Some(name), _) => Err(ControlError::Unknown { name: name.clone(), running }),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(ControlError::Several(running)),
    }
}

/// Asks a lab. After [`Request::Down`] it waits until the lab has ended.
pub fn ask(name: &LabName, request: &Request) -> Result<Answer, ControlError> {
    let failed = |source| ControlError::Ask { name: name.clone(), source };
    let user = getuid().as_raw();
    let stream = name.address(user).and_then(|address| UnixStream::connect_addr(&address)).map_err(failed)?;
    if owner(&stream).map_err(failed)? != user {
        return Err(ControlError::Stranger(name.clone()));
    }
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    wire::send(&stream, request, &[]).map_err(failed)?;
    let (line, descriptors) = wire::receive(&stream, MAX_ANSWER, PATIENCE).map_err(failed)?;
    let said = serde_json::from_slice(&line).map_err(|error| failed(error.into()))?;
    if *request == Request::Down && matches!(said, Said::Done { .. }) {
        match wire::receive(&stream, MAX_ANSWER, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(failed(error)),
            // It ends with the lab.
            Ok(_) | Err(_) => {}
        }
    }
    match said {
        Said::Done { message } => Ok(Answer::Done { message }),
        Said::Status { status } => Ok(Answer::Status(status)),
        Said::Log { text } => Ok(Answer::Log { text }),
        Said::Refused(refusal) => Err(refusal.into()),
        Said::Enter { namespaces, directory, environment } if namespaces.len() == descriptors.len() => {
            let namespaces = namespaces.into_iter().zip(descriptors).collect();
            Ok(Answer::Enter(Entrance { namespaces, directory, environment }))
        }
        Said::Enter { .. } => Err(failed(io::Error::other("descriptors are missing in its answer"))),
    }
}

/// Abstract sockets have no owner but who listens on them.
fn owner(stream: &UnixStream) -> io::Result<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    let copy = stream.try_clone()?;
    copy.set_nonblocking(true)?;
    let user = tokio::net::UnixStream::from_std(copy)?.peer_cred()?.uid();
    // Both descriptors are one socket.
    stream.set_nonblocking(false)?;
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_that_is_meant_is_the_named_one_or_the_only_one() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<LabName>>();
        let chosen = |named: Option<&str>, running: &[&str]| {
            let named = named.map(|name| name.parse().unwrap());
            choose(named.as_ref(), names(running)).map(|name| name.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None, &["home"]), Ok("home".into()));
        assert_eq!(chosen(Some("b"), &["a", "b"]), Ok("b".into()));
        assert_eq!(chosen(None, &[]), Err("no lab is running: start one with `dualgate lab`".into()));
        assert_eq!(chosen(Some("a"), &[]), Err("no lab is running: start one with `dualgate lab`".into()));
        assert_eq!(chosen(None, &["a", "b"]), Err("several labs are running: say which with --name (a, b)".into()));
        assert_eq!(chosen(Some("c"), &["a", "b"]), Err("no lab `c` is running: there is a, b".into()));
    }
}
