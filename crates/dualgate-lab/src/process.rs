//! The processes of the lab: started in a host, ended with it, and all of them waited for.
//!
//! The lab's first process inherits every orphan in there; one thread waits for whatever ends, so that nothing stays as a
//! zombie, and nobody else may wait for a child.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// How often is looked for orphans while there is no child.
const LOOK: Duration = Duration::from_millis(200);

/// Everything that was started.
#[derive(Clone, Debug, Default)]
pub struct Processes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    children: Mutex<HashMap<i32, Option<ExitStatus>>>,
    changed: Condvar,
}

/// A process that was started in a host.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    processes: Processes,
}

impl Processes {
    /// Begins to wait for what ends, on a thread of its own.
    pub fn start() -> io::Result<Self> {
        let processes = Self::default();
        let reaper = processes.clone();
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper.reap())?;
        Ok(processes)
    }

    /// Starts a command in a host. Its output goes to `log`.
    pub fn spawn(&self, host: &Namespace, mut command: Command, log: &Path) -> io::Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Held until the child is known: what waits for it must not come first.
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = host.run(move || command.spawn())?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        children.insert(pid.as_raw_nonzero().get(), None);
        self.0.changed.notify_all();
        Ok(Process { pid, processes: self.clone() })
    }

    fn reap(&self) {
        loop {
            let ended = wait(WaitOptions::empty());
            let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
            match ended {
                Ok(Some((pid, status))) => {
                    if let Some(child) = children.get_mut(&pid.as_raw_nonzero().get()) {
                        *child = Some(ExitStatus::from_raw(status.as_raw()));
                    }
                    self.0.changed.notify_all();
                }
                // Interrupted, or no child at all.
                Ok(None) | Err(_) => {
                    let _ = self.0.changed.wait_timeout(children, LOOK);
                }
            }
        }
    }
}

impl Process {
    /// Its number, as processes of the lab see it.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let children = self.processes.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.get(&self.pid()).copied().flatten()
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            // It may have ended this moment; its number is not given away before the reaper has seen that.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits until it has ended; `None` if it has not by then.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut children = self.processes.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let ended = children.get(&self.pid()).copied().flatten();
            let left = deadline.saturating_duration_since(Instant::now());
            if ended.is_some() || left.is_zero() {
                return ended;
            }
            let waited = self.processes.0.changed.wait_timeout(children, left);
            children = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(2));
        self.processes.0.children.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid());
    }
}

/// Kills every process whose network is this one, whoever started it: what remains of a host that is switched off.
pub fn kill_all_in(network: BorrowedFd<'_>) -> io::Result<()> {
    let own = rustix::fs::fstat(network)?.st_ino;
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let pid: Option<Pid> = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // Processes come and go while they are listed.
        let Some(pid) = pid.filter(|pid| !pid.is_init()) else { continue };
        let network: PathBuf = entry.path().join("ns/net");
        if std::fs::metadata(network).is_ok_and(|found| found.ino() == own) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}
