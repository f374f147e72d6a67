//! Linux namespaces, without root where the kernel allows it (namespaces(7), user_namespaces(7)).
//!
//! [`enter`] moves a process that has one thread into a user, mount, network and PID namespace of its own. In there,
//! [`Namespace`] is one host: a thread with a network, a mount table and a host name of its own. Whatever the thread opens
//! or starts belongs to that host, for ever; when the thread and all that it started have ended, the host is gone.
//! Nothing here ever changes what the process came from.

#![expect(unsafe_code, reason = "unshare(2) is declared unsafe")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel forbids it.
    #[error("the kernel does not let this user make namespaces. {help}")]
    Forbidden {
        /// What a person can do.
        help: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else went wrong.
    #[error("{doing}")]
    Failed {
        /// What was to be done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> NamespaceError {
    move |source| NamespaceError::Failed { doing, source }
}

/// Where AppArmor restricts user namespaces they can be made, and then nothing is allowed in them.
fn refused(doing: &'static str) -> impl FnOnce(io::Error) -> NamespaceError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => forbidden(source),
        _ => NamespaceError::Failed { doing, source },
    }
}

/// Whether a user namespace was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// This user is root of a user namespace of its own.
    Rootless,
    /// This process was privileged already.
    Root,
}

/// Moves this process into namespaces of its own: user (unless it is root and user namespaces are forbidden), mount,
/// network, IPC and host name; and the processes that it starts into a PID namespace of their own, whose first one is its
/// init: when that ends, by whatever signal, the kernel ends all others.
///
/// The process must have one thread. It keeps its user: files that it makes are the user's.
pub fn enter() -> Result<Privilege, NamespaceError> {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let rest =
        UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    let privilege = match unshare(rest | UnshareFlags::NEWUSER) {
        Ok(()) => {
            map_user(user.as_raw(), group.as_raw()).map_err(refused("become root of the user namespace"))?;
            Privilege::Rootless
        }
        Err(error) if user.is_root() => {
            tracing::debug!(%error, "no user namespace; this process is root");
            unshare(rest).map_err(forbidden)?;
            Privilege::Root
        }
        Err(error) => return Err(forbidden(error)),
    };
    // Otherwise mounts in here would be seen outside.
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(|error| refused("make mounts private")(error.into()))?;
    Ok(privilege)
}

/// Shows only the processes of this PID namespace in /proc; to be called by its init.
///
/// Where parts of /proc are hidden, as in some containers, the kernel refuses; then /proc stays as it is.
pub fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

/// An empty file system in memory at `path`, for this mount namespace.
pub fn mount_empty(path: &str) -> io::Result<()> {
    Ok(mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))?)
}

/// Shows `source` at `target` as well, with all that is mounted below it, for this mount namespace.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount_bind_recursive(source, target)?)
}

/// A handle of a namespace that the calling thread is in, by its name below `/proc/thread-self/ns`.
pub fn handle(kind: &str) -> io::Result<OwnedFd> {
    Ok(File::open(Path::new("/proc/thread-self/ns").join(kind))?.into())
}

/// Root of the user namespace is the user who came in; nobody else exists in there.
fn map_user(user: u32, group: u32) -> io::Result<()> {
    // A user without privilege may map the own group only after giving up setgroups(2).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags never hold FILES, the one that could take descriptors away from other threads' `OwnedFd`s.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

fn forbidden(source: io::Error) -> NamespaceError {
    let setting = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    let help = if rustix::process::geteuid().is_root() {
        "This process is root already: in a container, start that with `--privileged`"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run this as root"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "User namespaces are switched off: `sudo sysctl kernel.unprivileged_userns_clone=1`, or run this as root"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "User namespaces are limited to none: `sudo sysctl user.max_user_namespaces=10000`, or run this as root"
    } else {
        "In a container, allow user namespaces (`--security-opt seccomp=unconfined`, or `--privileged`); else run this as root"
    };
    NamespaceError::Forbidden { help: help.to_owned(), source }
}

type Job = Box<dyn FnOnce() + Send>;

/// A host: a thread in a network, a mount table and a host name of its own.
#[derive(Debug)]
pub struct Namespace {
    jobs: Option<SyncSender<Job>>,
    network: OwnedFd,
    thread: Option<JoinHandle<()>>,
    name: String,
}

impl Namespace {
    /// Starts it. `prepare` runs first in it, and if that fails there is no host.
    pub fn new(name: &str, prepare: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Self, NamespaceError> {
        let (jobs, waiting) = sync_channel::<Job>(16);
        let (started, outcome) = sync_channel(1);
        let host_name = name.to_owned();
        let live = move || {
            let ready = settle(&host_name).and_then(|network| prepare().map(|()| network));
            let lives = ready.is_ok();
            // Whoever started this waits for it.
            let _ = started.send(ready);
            if lives {
                waiting.into_iter().for_each(|job: Job| job());
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(live).map_err(failed("start a thread"))?;
        let network = outcome.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let network = network.map_err(failed("make a host's namespaces"))?;
        Ok(Self { jobs: Some(jobs), network, thread: Some(thread), name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network, to put interfaces into.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// Runs a job in it and waits for the outcome. The job must not block for long: others wait for their turn.
    ///
    /// # Panics
    /// If the job panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = sync_channel(1);
        let job = move || {
            // The caller waits for it.
            let _ = done.send(job());
        };
        if let Some(jobs) = &self.jobs {
            // A thread that is gone is seen below.
            let _ = jobs.send(Box::new(job));
        }
        outcome.recv().expect("a job in a namespace panicked")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends when it has no more jobs; a panic was told to whoever gave the job.
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into namespaces of its own; what remains is the handle of its network.
fn settle(host_name: &str) -> io::Result<OwnedFd> {
    unshare(UnshareFlags::FS | UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS)?;
    rustix::system::sethostname(host_name.as_bytes())?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private)?;
    current_network()
}

/// The network that the calling thread is in.
pub fn current_network() -> io::Result<OwnedFd> {
    handle("net")
}

/// Runs `job` in another network and comes back, on a thread that ends afterwards.
pub fn in_network<T: Send>(network: BorrowedFd<'_>, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let visit = || {
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
            job()
        };
        scope.spawn(visit).join().unwrap_or_else(|_| Err(io::Error::other("a job in a network panicked")))
    })
}

/// A network of its own without anything in it, known by its handle alone: for a pod.
pub fn network() -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let make = || {
            unshare(UnshareFlags::NEWNET)?;
            current_network()
        };
        scope.spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("a job in a network panicked")))
    })
}
