//! The real `dualgate run` of every node, in the node's host, exactly as on a real one.
//!
//! A node that ends by itself is started again, as a service manager would.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use rustix::process::Signal;

use crate::kubernetes::ACCOUNT;
use crate::probe::{self, Trouble};
use crate::process::{Process, Processes};
use crate::topology::Objects;
use crate::world::World;

/// How long a node that ended by itself waits before it is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_millis(500);
/// How much of a log is shown.
const LOG: u64 = 256 * 1024;

/// The nodes' processes.
#[derive(Debug)]
pub struct Nodes {
    world: Arc<World>,
    processes: Processes,
    program: PathBuf,
    directory: PathBuf,
    admin: Vec<SocketAddr>,
    running: Mutex<BTreeMap<String, Node>>,
}

#[derive(Debug)]
struct Node {
    process: Option<Process>,
    /// Those from which it took over, until they have ended.
    former: Vec<Process>,
    /// When it is started again.
    restart: Option<Instant>,
    /// How it ended last by itself.
    ended: Option<String>,
    restarts: u32,
}

impl Nodes {
    /// None runs yet. `program` is the `dualgate` binary; `admin` is where each node's admin listener is.
    pub fn new(
        world: Arc<World>,
        processes: Processes,
        program: PathBuf,
        directory: &Path,
        admin: Vec<SocketAddr>,
    ) -> Self {
        let directory = directory.to_owned();
        Self { world, processes, program, directory, admin, running: Mutex::default() }
    }

    /// Gives a node its site file.
    pub fn write_site(&self, host: &str, text: &str) -> io::Result<()> {
        let file = self.world.run_directory(host).join("dualgate/site.yaml");
        let part = file.with_extension("part");
        std::fs::write(&part, text)?;
        std::fs::rename(part, file)
    }

    /// Starts a node's process.
    pub fn start(&self, host: &str) -> io::Result<()> {
        let process = self.spawn(host, &[])?;
        let node = Node { process: Some(process), former: Vec::new(), restart: None, ended: None, restarts: 0 };
        self.lock().insert(host.to_owned(), node);
        Ok(())
    }

    /// Starts a successor of a node's process: it takes over from that one, which then ends by itself.
    pub fn succeed(&self, host: &str) -> io::Result<()> {
        let successor = self.spawn(host, &["--take-over"])?;
        if let Some(node) = self.lock().get_mut(host) {
            node.former.extend(node.process.replace(successor));
        }
        Ok(())
    }

    /// Whether a process of a node has a successor and has not ended yet.
    pub fn is_succeeded(&self, host: &str) -> bool {
        let former_runs = |node: &Node| node.former.iter().any(|process| process.ended().is_none());
        self.lock().get(host).is_some_and(former_runs)
    }

    /// What starts and waits for processes here: there is one such thing in a lab.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    fn spawn(&self, host: &str, more: &[&str]) -> io::Result<Process> {
        let off = || io::Error::new(io::ErrorKind::NotConnected, format!("`{host}` is off"));
        let namespace = self.world.host(host).ok_or_else(off)?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--site", "/run/dualgate/site.yaml"]);
        // With a tunnel, an edge has nothing but what home tells it.
        let plan = self.world.topology().hosts.iter().find(|known| known.name == host);
        let source: &[&str] = match plan.map(|plan| plan.objects).unwrap_or_default() {
            Objects::Manifests => &["folder:/run/dualgate/manifests"],
            Objects::Kubernetes => &["cluster", "--kubeconfig", ACCOUNT],
            Objects::Told => &["home"],
        };
        command.arg("--source").args(source);
        command.args(["--state", "/run/dualgate/state", "--node", host]).args(more);
        command.current_dir("/");
        self.processes.spawn(&namespace, command, &self.log_file(host))
    }

    /// Ends a node's process at once, without a word to it: what a power cut does.
    pub fn kill(&self, host: &str) {
        // Dropping it kills it, and waits.
        let node = self.lock().remove(host);
        drop(node);
    }

    /// Sends a node's process a signal.
    pub fn signal(&self, host: &str, signal: Signal) {
        if let Some(process) = self.lock().get(host).and_then(|node| node.process.as_ref()) {
            process.signal(signal);
        }
    }

    /// The process of a node, if one runs.
    pub fn pid(&self, host: &str) -> Option<i32> {
        Some(self.lock().get(host)?.process.as_ref()?.pid())
    }

    /// Starts again what ended by itself.
    pub fn look_after(&self, now: Instant) {
        for (host, node) in self.lock().iter_mut() {
            node.former.retain(|process| process.ended().is_none());
            if let Some(status) = node.process.as_ref().and_then(Process::ended) {
                node.ended = Some(format!("ended: {status}"));
                (node.process, node.restart) = (None, Some(now + RESTART));
            }
            if node.restart.is_some_and(|due| due <= now) {
                node.restarts += 1;
                node.restart = None;
                match self.spawn(host, &[]) {
                    Ok(process) => node.process = Some(process),
                    Err(error) => (node.ended, node.restart) = (Some(error.to_string()), Some(now + RESTART)),
                }
            }
        }
    }

    /// What a node says of itself: `ready`, or why not. `None` where none is meant to run.
    pub fn state(&self, host: &str) -> Option<String> {
        {
            let running = self.lock();
            let node = running.get(host)?;
            if node.process.is_none() {
                let ended = node.ended.as_deref().unwrap_or("not started");
                return Some(format!("{ended}; started again {} times; see `dualgate lab log {host}`", node.restarts));
            }
        }
        let namespace = self.world.host(host)?;
        Some(self.ask(&namespace).unwrap_or_else(|trouble| format!("does not answer: {trouble}")))
    }

    /// The peers of a node's tunnel that it never heard of; none where it has no tunnel, or cannot be asked.
    pub fn unheard_peers(&self, host: &str) -> Vec<String> {
        let status = self.status(host);
        let peers = status["tunnel"]["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let unheard = peers.iter().filter(|peer| peer["last_handshake_seconds"].is_null());
        unheard.filter_map(|peer| Some(peer["name"].as_str()?.to_owned())).collect()
    }

    /// The virtual IPs that a node says it holds; none where it cannot be asked.
    pub fn held(&self, host: &str) -> Vec<IpAddr> {
        let status = self.status(host);
        let groups = status["virtual_ips"]["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let held = groups.iter().filter(|group| group["held"] == true);
        let addresses = held.filter_map(|group| group["addresses"].as_array()).flatten();
        addresses.filter_map(|address| address.as_str()?.parse().ok()).collect()
    }

    /// What a node's admin listener says of the node; nothing while it does not answer.
    fn status(&self, host: &str) -> serde_json::Value {
        let Some(namespace) = self.world.host(host) else { return serde_json::Value::Null };
        let status = self.fetch(&namespace, "/status").unwrap_or_default();
        serde_json::from_str(&status).unwrap_or_default()
    }

    fn ask(&self, host: &Namespace) -> Result<String, Trouble> {
        self.fetch(host, "/readyz")
    }

    /// What a node's admin listener says.
    fn fetch(&self, host: &Namespace, path: &str) -> Result<String, Trouble> {
        // A wildcard is asked at loopback.
        let reachable = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
            IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
            IpAddr::V4(_) | IpAddr::V6(_) => *address,
        };
        // Without an admin listener, one that runs is all that can be known.
        let Some(admin) = self.admin.first().map(reachable) else { return Ok("ready".to_owned()) };
        let request = probe::Request::new(admin, admin.to_string()).path(path);
        let answer = probe::get(host, &request, PATIENCE)?;
        Ok(answer.text().trim().to_owned())
    }

    /// What a node has logged lately.
    pub fn log(&self, host: &str) -> io::Result<String> {
        let mut file = File::open(self.log_file(host))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn log_file(&self, host: &str) -> PathBuf {
        self.directory.join("hosts").join(host).join("dualgate.log")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Node>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
