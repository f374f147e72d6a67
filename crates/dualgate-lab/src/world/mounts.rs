//! What a host sees of the file system: the machine's, but for an own `/run` and an own `/etc/resolv.conf`.
//!
//! `/run` holds the sockets by which programs would ask the machine's own resolver and services; a host has none of them.
//! What it has there is its own, and the cluster's objects, which every host sees.

use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::mount::{mount_bind, mount_bind_recursive};

use crate::topology::{Host, Objects};

const RESOLV: &str = "/etc/resolv.conf";

/// The directory that is `/run` on a host.
pub fn run_directory(directory: &Path, host: &str) -> PathBuf {
    directory.join("hosts").join(host).join("run")
}

/// The directory that every host sees as `/run/dualgate/manifests`.
pub fn manifests_directory(directory: &Path) -> PathBuf {
    directory.join("manifests")
}

/// Writes what the host will see; what is returned mounts it, and is to be called in the host.
pub fn prepare(directory: &Path, host: &Host) -> io::Result<impl FnOnce() -> io::Result<()> + Send + use<>> {
    let run = run_directory(directory, &host.name);
    let shared = manifests_directory(directory);
    let own = run.join("dualgate");
    std::fs::create_dir_all(&own)?;
    let seen = match host.objects {
        Objects::Manifests => Some(own.join("manifests")),
        Objects::Kubernetes | Objects::Told => None,
    };
    std::fs::create_dir_all(&shared)?;
    seen.as_ref().map_or(Ok(()), std::fs::create_dir_all)?;
    let resolv = run.with_file_name("resolv.conf");
    std::fs::write(&resolv, resolvers(host))?;
    let place = place_of_resolv(Path::new(RESOLV));
    if let Place::InRun(path) = &place {
        let path = run.join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, resolvers(host))?;
    }
    Ok(move || {
        if let Place::File(path) = &place {
            mount_bind(&resolv, path)?;
        }
        if let Some(seen) = &seen {
            mount_bind_recursive(&shared, seen)?;
        }
        Ok(mount_bind_recursive(&run, "/run")?)
    })
}

fn resolvers(host: &Host) -> String {
    let mut text = format!("# The resolvers of the lab's host {}.\n", host.name);
    text.extend(host.resolvers.iter().map(|address| format!("nameserver {address}\n")));
    text
}

/// Where programs find `resolv.conf`.
enum Place {
    /// A file, to be covered.
    File(PathBuf),
    /// Below `/run`, which is covered as a whole.
    InRun(PathBuf),
    /// Nowhere.
    Absent,
}

fn place_of_resolv(path: &Path) -> Place {
    let target = match std::fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("/")).join(target),
        Err(_) => path.to_owned(),
    };
    let mut plain = PathBuf::new();
    for part in target.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::Normal(_) => plain.push(part),
        }
    }
    match plain.strip_prefix("/run").or_else(|_| plain.strip_prefix("/var/run")) {
        Ok(below) => Place::InRun(below.to_owned()),
        Err(_) if plain.exists() => Place::File(plain),
        Err(_) => Place::Absent,
    }
}
