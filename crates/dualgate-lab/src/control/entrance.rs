//! A way into a host: its namespaces as descriptors, and what a process finds there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

/// A namespace of a host, in the order in which a process can join them: the user namespace gives the right to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceKind {
    /// Who is root.
    User,
    /// Which processes there are; for the children of who joins.
    Pid,
    /// Shared memory and queues.
    Ipc,
    /// The network.
    Network,
    /// The host name.
    HostName,
    /// What is mounted where.
    Mount,
}

/// A way into a host.
#[derive(Debug)]
pub struct Entrance {
    /// Its namespaces.
    pub namespaces: Vec<(NamespaceKind, OwnedFd)>,
    /// The directory to begin in, where the one that a process has does not exist.
    pub directory: String,
    /// What is added to the environment.
    pub environment: Vec<(String, String)>,
}

impl Entrance {
    /// Moves this process into the host; its children run there. Its working directory is `/` afterwards.
    ///
    /// The process must have one thread, as the kernel demands for a user namespace.
    pub fn join(&self) -> io::Result<()> {
        let mut namespaces: Vec<_> = self.namespaces.iter().collect();
        namespaces.sort_by_key(|(kind, _)| *kind);
        for (kind, namespace) in namespaces {
            // The kernel refuses to join the user namespace that a process is in: that of a lab which runs as root.
            if is_own(*kind, namespace)? {
                continue;
            }
            let joined = move_into_link_name_space(namespace.as_fd(), Some(kind.of_link()));
            joined.map_err(|error| {
                let error = io::Error::from(error);
                io::Error::new(error.kind(), format!("join the {kind:?} namespace: {error}"))
            })?;
        }
        Ok(())
    }
}

fn is_own(kind: NamespaceKind, namespace: &OwnedFd) -> io::Result<bool> {
    let own = File::open(format!("/proc/self/ns/{}", kind.file()))?;
    let (own, other) = (rustix::fs::fstat(own)?, rustix::fs::fstat(namespace)?);
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

impl NamespaceKind {
    fn of_link(self) -> LinkNameSpaceType {
        match self {
            Self::User => LinkNameSpaceType::User,
            Self::Pid => LinkNameSpaceType::ProcessID,
            Self::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Self::Network => LinkNameSpaceType::Network,
            Self::HostName => LinkNameSpaceType::HostNameAndNISDomainName,
            Self::Mount => LinkNameSpaceType::Mount,
        }
    }

    /// Its name below /proc/PID/ns, where it can be opened.
    pub fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Network => "net",
            Self::HostName => "uts",
            Self::Mount => "mnt",
        }
    }
}
