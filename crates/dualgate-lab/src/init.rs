//! The lab's first process.
//!
//! An outer process enters namespaces ([`dualgate_host::namespace::enter`]) and starts the program once more. That process is
//! PID 1 in there: when it ends, by whatever signal, the kernel ends everything else in the lab, and with the last process
//! the namespaces go. It ends with the outer process.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use dualgate_host::namespace::{self, NamespaceError};
use rustix::process::{Signal, getpid, set_parent_process_death_signal};

use crate::trial::chain;

/// Where the lab keeps its files: in memory, seen by nobody outside.
const DIRECTORY: &str = "/run/lab";

/// Why there is no first process.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There are no namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The program cannot be started again.
    #[error("start the lab's first process")]
    Start(#[source] io::Error),
    /// It is not what it should be.
    #[error("this is not the first process of a PID namespace; start the lab with `dualgate lab`")]
    NotFirst,
    /// Its own files have no place.
    #[error("mount {0}")]
    Mount(&'static str, #[source] io::Error),
}

/// Enters namespaces and starts `command` as their first process. The calling process must have one thread.
pub fn start(command: &mut Command) -> Result<Child, InitError> {
    namespace::enter()?;
    command.spawn().map_err(InitError::Start)
}

/// A whole program that runs in namespaces of its own: it starts itself again as their first process, with the same arguments,
/// and does `body` there, with the directory for the lab's files. `marker` is the environment variable by which that process
/// knows what it is. Whatever fails is said on standard error, with its causes.
pub fn alone(marker: &str, body: impl FnOnce(&Path) -> Result<ExitCode, Box<dyn std::error::Error>>) -> ExitCode {
    let outcome = if std::env::var_os(marker).is_some() {
        settle().map_err(Into::into).and_then(|directory| body(&directory))
    } else {
        let mut command = Command::new("/proc/self/exe");
        let child = start(command.args(std::env::args_os().skip(1)).env(marker, "1"));
        let code = child.and_then(|mut child| child.wait().map_err(InitError::Start)).map(|status| status.code());
        let known = |code: Option<i32>| code.and_then(|code| u8::try_from(code).ok());
        code.map(|code| known(code).map_or(ExitCode::FAILURE, ExitCode::from)).map_err(Into::into)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{}", chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// To be called by the first process before anything else: it dies with its parent, sees its own processes alone, and has a
/// `/run` in memory. What is returned is the directory for the lab's files.
pub fn settle() -> Result<PathBuf, InitError> {
    if !getpid().is_init() {
        return Err(InitError::NotFirst);
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| InitError::Start(error.into()))?;
    if let Err(error) = namespace::mount_proc() {
        tracing::debug!(%error, "/proc stays as it is");
    }
    namespace::mount_empty("/run").map_err(|error| InitError::Mount("/run", error))?;
    std::fs::create_dir_all(DIRECTORY).map_err(|error| InitError::Mount(DIRECTORY, error))?;
    Ok(Path::new(DIRECTORY).to_owned())
}
