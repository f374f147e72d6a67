//! The servers, each as its own configuration wants it: one thread, the same zone, no limit of rate.

use std::fmt::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long one may take to load its zone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This repository's.
    Dualgate,
    /// Knot DNS.
    Knot,
    /// NSD.
    Nsd,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dualgate => "dualgate",
            Self::Knot => "Knot DNS",
            Self::Nsd => "NSD",
        })
    }
}

/// A server that answers.
pub struct Server {
    child: Child,
    /// Where, on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Starts it on the first processor, and waits until it answers.
    pub fn start(kind: Kind, directory: &Path, names: usize) -> anyhow::Result<Self> {
        let port = free_port()?;
        let folder = directory.join(format!("{kind:?}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("manifests"))?;
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text);
        let path = |name: &str| folder.join(name).display().to_string();
        write("zone", zone(names))?;
        let mut command = match kind {
            Kind::Dualgate => {
                write("site.yaml", site(port, free_port()?, names))?;
                let mut command = pinned(0, env!("CARGO_BIN_EXE_dualgate"));
                command.args(["run", "--workers", "1", "--node", "here", "--site", &path("site.yaml")]);
                command.args(["--state", &path("state")]);
                command
            }
            Kind::Knot => {
                write("knot.conf", knot(port, &path("")))?;
                let mut command = pinned(0, "knotd");
                command.args(["-c", &path("knot.conf")]);
                command
            }
            Kind::Nsd => {
                write("nsd.conf", nsd(port, &path("")))?;
                let mut command = pinned(0, "nsd");
                command.args(["-d", "-c", &path("nsd.conf")]);
                command
            }
        };
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().with_context(|| format!("start {kind}"))?;
        let mut server = Self { child, port };
        server.wait(kind)?;
        Ok(server)
    }

    fn wait(&mut self, kind: Kind) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let question = b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x02n0\x07example\x03org\0\0\x01\0\x01";
        let mut answer = [0; 512];
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("{kind} has ended: {status}");
            }
            let asked = socket.send_to(question, ("127.0.0.1", self.port)).and_then(|_| socket.recv(&mut answer));
            // An answer without an error, with a record.
            if asked.is_ok_and(|length| length > 12 && answer[3] & 15 == 0 && answer[7] == 1) {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        bail!("{kind} does not answer on port {}", self.port)
    }

    /// What it and the processes that it has started have used.
    pub fn processor_seconds(&self) -> anyhow::Result<f64> {
        let mut stats = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process may end meanwhile.
            let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some((_, rest)) = text.rsplit_once(") ") else { continue };
            let fields: Vec<&str> = rest.split(' ').collect();
            let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            stats.push((pid, number(1) as u32, number(11) + number(12)));
        }
        let mut family = vec![self.child.id()];
        while let Some(child) =
            stats.iter().find(|(pid, parent, _)| family.contains(parent) && !family.contains(pid)).map(|(pid, ..)| *pid)
        {
            family.push(child);
        }
        let ticks: u64 = stats.iter().filter(|(pid, ..)| family.contains(pid)).map(|(.., ticks)| ticks).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it takes the processes along that it has started.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// A program on one processor.
pub fn pinned(processor: u32, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &processor.to_string(), program]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A site whose DNS answers for so many names.
pub fn site(port: u16, admin: u16, names: usize) -> String {
    let mut text = format!(
        "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: bench\nnodes:\n- {{name: here, roles: [dns], addresses: [127.0.0.1]}}\n\
         gates: {{internal: {{addresses: [127.0.0.1]}}}}\nadmin: {{listen: ['127.0.0.1:{admin}']}}\nproxy: {{acceptGrace: 0s}}\ndns:\n  addresses: ['127.0.0.1:{port}']\n  \
         zones:\n  - name: example.org\n    records:\n"
    );
    for number in 0..names {
        let host = number % 250;
        let _ = writeln!(text, "    - {{name: n{number}, type: A, value: 192.0.2.{host}}}");
        let _ = writeln!(text, "    - {{name: n{number}, type: AAAA, value: '2001:db8::{host:x}'}}");
    }
    text
}

fn zone(names: usize) -> String {
    let mut text =
        "$ORIGIN example.org.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n".to_owned();
    for number in 0..names {
        let host = number % 250;
        let _ = writeln!(text, "n{number} A 192.0.2.{host}\nn{number} AAAA 2001:db8::{host:x}");
    }
    text
}

fn knot(port: u16, folder: &str) -> String {
    format!(
        "server:\n    listen: 127.0.0.1@{port}\n    rundir: {folder}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         database:\n    storage: {folder}\ntemplate:\n  - id: default\n    storage: {folder}\n    zonefile-sync: -1\n\
         zone:\n  - domain: example.org\n    file: zone\n"
    )
}

fn nsd(port: u16, folder: &str) -> String {
    format!(
        "server:\n    server-count: 1\n    ip-address: 127.0.0.1@{port}\n    username: \"\"\n    zonesdir: \"{folder}\"\n    \
         zonelistfile: \"{folder}zone.list\"\n    xfrdfile: \"{folder}xfrd.state\"\n    pidfile: \"{folder}nsd.pid\"\n    \
         logfile: \"{folder}log\"\n    rrl-ratelimit: 0\nremote-control:\n    control-enable: no\n\
         zone:\n    name: example.org\n    zonefile: zone\n"
    )
}
