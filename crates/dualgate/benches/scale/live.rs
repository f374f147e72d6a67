//! The same seen from outside: `dualgate run` in a process of its own, fed by a Kubernetes API or from a folder.
//!
//! A change counts from the moment that the API server has it, or the file is written, until a request is answered by it.
//! CPU time is that of the whole process, everything included: what it hears, plans, serves, looks for, and does at rest; what
//! it takes to write all objects to disk, once in minutes, is told by itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use dualgate_apiserver::{ApiServer, Failure, Options, Request, Verb};
use serde_json::Value;

use crate::objects::{Application, CHANGES, Change, KeyPair, Size, class};
use crate::support::{Client, Directory, Pod, Reservation, reserve};
use crate::{memory, milliseconds, site_text, spread, which};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long after a change what it leads to may take, before the next one: lints, and what is written.
const REST: Duration = Duration::from_millis(1200);
/// What is asked while others change: how often, and for how long.
const PACE: Duration = Duration::from_millis(2);
const ASKED: u32 = 3000;
/// How often something changes meanwhile.
const CHANGED: Duration = Duration::from_millis(100);

/// Where its objects come from.
#[derive(Clone, Copy)]
pub enum Kind {
    /// From a Kubernetes API.
    Cluster,
    /// From a folder with a file for each application.
    Folder,
}

/// Runs it, and prints.
pub fn run(kind: Kind, size: Size, pairs: &[KeyPair; 2]) -> anyhow::Result<()> {
    let pod = Pod::start("pod", &[Ipv4Addr::LOCALHOST.into()]);
    let scene = Scene { size, pod: pod.addresses[0], feed: Feed::new(kind)? };
    scene.feed.put(&class(), None, "class.yaml")?;
    for (number, namespace) in size.namespaces().enumerate() {
        scene.feed.put(&namespace, None, &format!("namespace-{number}.yaml"))?;
    }
    for (number, secret) in size.secrets(&pairs[0]).enumerate() {
        scene.feed.put(&secret, None, &format!("secret-{number}.yaml"))?;
    }
    for number in 0..size.ingresses {
        scene.write(number, None, &size.application(number, Some(scene.pod)))?;
    }
    let start = Instant::now();
    let node = Node::start(&scene.feed)?;
    let listed = scene.feed.wait_until_listed(start)?;
    until("ready", || Ok(node.ask_admin("/readyz")? == 200))?;
    let ready = Instant::now();
    println!(
        "ready {:.0} ms after its start, {:.0} ms after the last object was there to be read; {}",
        milliseconds(ready - start),
        milliseconds(ready.saturating_duration_since(listed)),
        node.memory()
    );
    if let Some(count) = scene.feed.wait_until_published(size.ingresses)? {
        let (took, memory) = (milliseconds(ready.elapsed()), node.memory());
        println!("the addresses of {count} Ingresses are written back {took:.0} ms later; {memory}");
    }
    let background = settle(&node)?;
    println!("at rest: {:.1} ms of CPU each second; {:.1?} since its start; {}", background, node.cpu(), node.memory());
    for change in &CHANGES {
        scene.measure(&node, change.name, |turn| scene.change(&node, change, turn))?;
    }
    scene.measure(&node, "a Secret is rotated", |turn| scene.rotate(&node, pairs, turn))?;
    println!("at the end: {}", node.memory());
    scene.ask_meanwhile(&node)
}

struct Scene {
    size: Size,
    pod: SocketAddr,
    feed: Feed,
}

impl Scene {
    /// Makes changes one after the other; each says how long it took to be seen.
    fn measure(
        &self,
        node: &Node,
        name: &str,
        change: impl Fn(usize) -> anyhow::Result<Duration>,
    ) -> anyhow::Result<()> {
        let (mut walls, before, kept) = (Vec::new(), node.cpu(), node.disk_cpu()?);
        for turn in 0..self.size.changes {
            walls.push(change(turn).with_context(|| name.to_owned())?);
            // What follows counts, too.
            std::thread::park_timeout(REST);
        }
        let each = |all: Duration| milliseconds(all) / self.size.changes as f64;
        // Once in minutes, whatever changes.
        let disk = node.disk_cpu()?.saturating_sub(kept);
        let cpu = each(node.cpu().saturating_sub(before).saturating_sub(disk));
        let beside = match disk.is_zero() {
            true => String::new(),
            false => format!(", beside {:.0} ms to write all objects to disk", milliseconds(disk)),
        };
        println!("{name}: wall {}; CPU {cpu:.2} ms on average{beside}", spread(&mut walls));
        Ok(())
    }

    fn change(&self, node: &Node, change: &Change, turn: usize) -> anyhow::Result<Duration> {
        let number = which(turn, self.size);
        let usual = self.size.application(number, Some(self.pod));
        let mut other = usual.clone();
        (change.make)(&mut other);
        let (before, after) = if turn.is_multiple_of(2) { (&usual, &other) } else { (&other, &usual) };
        let (path, status) = change.seen;
        let status = if turn.is_multiple_of(2) { status } else { 200 };
        self.write(number, Some(before), after)?;
        let start = Instant::now();
        until("the change is seen", || Ok(ask(node.web.address, &self.size.host(number), path)? == status))?;
        Ok(start.elapsed())
    }

    fn rotate(&self, node: &Node, pairs: &[KeyPair; 2], turn: usize) -> anyhow::Result<Duration> {
        let (app, pair) = (which(turn, self.size), &pairs[1 - turn % 2]);
        let number = app % self.size.certificates;
        let before = self.size.secret(number, &pairs[turn % 2]);
        self.feed.put(&self.size.secret(number, pair), Some(&before), &format!("secret-{number}.yaml"))?;
        let start = Instant::now();
        until("the certificate is shown", || {
            let client = Client::connect_tls(node.websecure.address, &self.size.host(app))?;
            Ok(client.certificate() == Some(&pair.der))
        })?;
        Ok(start.elapsed())
    }

    fn write(&self, number: usize, before: Option<&Application>, after: &Application) -> anyhow::Result<()> {
        self.feed.write(before, after, &format!("app-{number}.yaml"))
    }

    /// Requests at a fixed pace for an application that stays, first alone, then while others change.
    fn ask_meanwhile(&self, node: &Node) -> anyhow::Result<()> {
        let asked = ASKED.min(u32::try_from(self.size.changes * 300)?);
        let mut alone = self.ask_at_pace(node, asked)?;
        let (over, troubles) = (AtomicBool::new(false), Mutex::new(None));
        let mut changes = 0;
        let among = std::thread::scope(|scope| {
            let among = scope.spawn(|| {
                let found = self.ask_at_pace(node, asked);
                over.store(true, Ordering::Relaxed);
                found
            });
            while !over.load(Ordering::Relaxed) {
                if let Err(error) = self.change(node, &CHANGES[0], changes) {
                    *troubles.lock().expect("nobody panics") = Some(error);
                    break;
                }
                changes += 1;
                std::thread::park_timeout(CHANGED);
            }
            among.join().map_err(|_| anyhow!("the client has panicked"))?
        });
        if let Some(error) = troubles.into_inner()? {
            return Err(error);
        }
        println!("requests alone: {}; while {changes} changes are made: {}", spread(&mut alone), spread(&mut among?));
        Ok(())
    }

    /// How long each took since it should have been asked.
    fn ask_at_pace(&self, node: &Node, asked: u32) -> anyhow::Result<Vec<Duration>> {
        let host = self.size.host(self.size.ingresses - 1);
        let mut client = Client::connect(node.web.address)?;
        let start = Instant::now();
        let mut times = Vec::new();
        for number in 0..asked {
            let due = start + PACE * number;
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            let status = client.get(&host, "/")?.status;
            if status != 200 {
                bail!("a request for an application that stays is answered with {status}");
            }
            times.push(due.elapsed());
        }
        Ok(times)
    }
}

/// Where the objects are.
enum Feed {
    Cluster(ApiServer),
    Folder(Directory),
}

impl Feed {
    fn new(kind: Kind) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Cluster => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                Self::Cluster(ApiServer::start(vec![listener], Options::default()).context("API server")?)
            }
            Kind::Folder => Self::Folder(Directory::new()),
        })
    }

    /// One object, alone in its file.
    fn put(&self, object: &Value, before: Option<&Value>, file: &str) -> anyhow::Result<()> {
        match self {
            Self::Cluster(server) => put(server, object, before),
            Self::Folder(directory) => {
                directory.write(file, &object.to_string());
                Ok(())
            }
        }
    }

    fn write(&self, before: Option<&Application>, after: &Application, file: &str) -> anyhow::Result<()> {
        match self {
            Self::Cluster(server) => {
                for object in after.objects() {
                    let same_kind = |other: &&Value| other["kind"] == object["kind"];
                    put(server, object, before.and_then(|before| before.objects().find(same_kind)))?;
                }
                if let (None, Some(gone)) = (&after.ingress, before.and_then(|before| before.ingress.as_ref())) {
                    let text = |key: &str| gone["metadata"][key].as_str().unwrap_or_default();
                    server.objects().delete("Ingress", text("namespace"), text("name")).map_err(wrong)?;
                }
            }
            Self::Folder(directory) => {
                let documents: Vec<String> = after.objects().map(Value::to_string).collect();
                directory.write(file, &documents.join("\n---\n"));
            }
        }
        Ok(())
    }

    /// When the last object had been sent. A folder is there from the start.
    fn wait_until_listed(&self, start: Instant) -> anyhow::Result<Instant> {
        match self {
            Self::Cluster(server) => server
                .wait_for(PATIENCE, |requests| {
                    let watched = requests.iter().filter(|request| request.verb == Verb::Watch && request.code == 200);
                    (watched.count() >= KINDS).then(Instant::now)
                })
                .context("not every kind is watched"),
            Self::Folder(_) => Ok(start),
        }
    }

    /// Until so many statuses were written; a folder has none.
    fn wait_until_published(&self, ingresses: usize) -> anyhow::Result<Option<usize>> {
        let Self::Cluster(server) = self else { return Ok(None) };
        let is_status = |request: &&Request| request.subresource == "status" && request.has_written();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let written = server.count(|request| is_status(&request));
            if written >= ingresses {
                return Ok(Some(written));
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        bail!("not every status was written after {PATIENCE:?}")
    }
}

/// Ingress, IngressClass, Service, EndpointSlice, Secret, Namespace, Node.
const KINDS: usize = 7;

fn put(server: &ApiServer, object: &Value, before: Option<&Value>) -> anyhow::Result<()> {
    if before == Some(object) {
        return Ok(());
    }
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // The server gives them.
        metadata.retain(|key, _| key != "resourceVersion" && key != "uid");
    }
    let objects = server.objects();
    let done = if before.is_some() { objects.replace(object) } else { objects.create(object) };
    done.map(drop).map_err(wrong)
}

fn wrong(failure: Failure) -> anyhow::Error {
    anyhow!("the API server: {failure:?}")
}

/// Until nothing of the start is left to be done; how many milliseconds of CPU each second takes then.
fn settle(node: &Node) -> anyhow::Result<f64> {
    let end = Instant::now() + PATIENCE;
    let mut before = node.cpu();
    while Instant::now() < end {
        let start = Instant::now();
        std::thread::park_timeout(Duration::from_secs(3));
        let now = node.cpu();
        let each_second = milliseconds(now.saturating_sub(before)) / start.elapsed().as_secs_f64();
        if each_second < 25.0 {
            return Ok(each_second);
        }
        before = now;
    }
    bail!("it does not come to rest")
}

/// The status of an answer.
fn ask(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<u16> {
    Ok(Client::connect(address)?.get(host, path)?.status)
}

fn until(what: &str, look: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if look().unwrap_or(false) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
    bail!("{what}: it has not happened after {PATIENCE:?}")
}

/// A running `dualgate run`; it is killed with its value.
struct Node {
    child: Child,
    web: Reservation,
    websecure: Reservation,
    admin: Reservation,
    _directory: Directory,
}

impl Node {
    fn start(feed: &Feed) -> anyhow::Result<Self> {
        let directory = Directory::new();
        let [web, websecure, admin] = [(); 3].map(|()| reserve(Ipv4Addr::LOCALHOST.into()));
        directory.write("site.yaml", &site_text(&web, &websecure, &admin));
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
        command.args(["run", "--node", "home1", "--workers", "2", "--site"]).arg(directory.join("site.yaml"));
        command.arg("--state").arg(directory.join("state"));
        match feed {
            Feed::Cluster(server) => {
                directory.write("kubeconfig", &server.kubeconfig());
                command.args(["--source", "cluster", "--kubeconfig"]).arg(directory.join("kubeconfig"));
            }
            Feed::Folder(folder) => {
                command.arg("--source").arg(format!("folder:{}", folder.path().display()));
            }
        }
        let child = command.stderr(Stdio::null()).spawn().context("start the binary")?;
        Ok(Self { child, web, websecure, admin, _directory: directory })
    }

    fn ask_admin(&self, path: &str) -> anyhow::Result<u16> {
        ask(self.admin.address, &self.admin.address.to_string(), path)
    }

    /// The time that it was on a processor, of all its threads.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name of the program is in parentheses; proc_pid_stat(5) counts from 1, and in hundredths of a second.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(14 - 3).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The part of it that went into writing the last good state.
    fn disk_cpu(&self) -> anyhow::Result<Duration> {
        let name = "dualgate_last_good_cpu_seconds_total ";
        let answer = Client::connect(self.admin.address)?.get(&self.admin.address.to_string(), "/metrics")?;
        let text = answer.text();
        let seconds = text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        seconds.map(Duration::from_secs_f64).with_context(|| format!("no metric `{name}`"))
    }

    fn memory(&self) -> String {
        memory(&format!("/proc/{}/status", self.child.id()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
