//! Questions for each second of a processor, beside Knot DNS and NSD: `cargo bench -p dualgate --bench dns`.
//!
//! First one of 10,000 names goes or comes while others are asked for. Then each server has one thread on the first processor
//! and the same zone; `dnsperf` asks from the second one. The servers take turns, several rounds, so that what else the
//! machine does meets all of them. What counts is what a server's own processes used. A peer that is not installed is left
//! out, and said so.

mod servers;

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dualgate_core::case::{Case, Families};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::plan;
use dualgate_host::dns::Dns;

use servers::{Kind, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names of the zone that is asked for; each has an address of both families.
const NAMES: usize = 200;
/// Names of the zone that changes.
const MANY: usize = 10_000;
const ROUNDS: usize = 5;
/// How often one of them goes or comes.
const CHANGES: usize = 10;
/// Seconds of a round.
const ROUND: u32 = 4;

fn main() -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("dualgate-bench-dns-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = change().and_then(|()| beside(&directory));
    std::fs::remove_dir_all(&directory)?;
    measured
}

/// All servers in turn.
fn beside(directory: &Path) -> anyhow::Result<()> {
    if !is_there("dnsperf") {
        bail!("there is no dnsperf: install Debian's package `dnsperf`, and `knot` and `nsd` for the peers");
    }
    let questions = directory.join("questions");
    let all = (0..NAMES).flat_map(|number| ["A", "AAAA"].map(|rtype| format!("n{number}.example.org {rtype}\n")));
    std::fs::write(&questions, all.collect::<String>())?;
    let mut kinds = vec![Kind::Dualgate];
    for (kind, program) in [(Kind::Knot, "knotd"), (Kind::Nsd, "nsd")] {
        match is_there(program) {
            true => kinds.push(kind),
            false => println!("SKIPPED: {kind}: there is no {program}"),
        }
    }
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    for round in 1..=ROUNDS {
        for (kind, rates) in kinds.iter().zip(&mut rates) {
            let server = Server::start(*kind, directory, NAMES)?;
            let before = server.processor_seconds()?;
            let answered = load(&questions, server.port)?;
            let used = server.processor_seconds()? - before;
            rates.push(answered as f64 / used);
            println!(
                "round {round}: {kind}: {answered} answers, {:.0} for each second of a processor",
                answered as f64 / used
            );
        }
    }
    let median = |rates: &[f64]| {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let own = median(&rates[0]);
    for (kind, rates) in kinds.iter().zip(&rates) {
        let rate = median(rates);
        println!(
            "{kind}: {rate:.0} answers for each second of a processor (median); dualgate has {:.2} of it",
            own / rate
        );
    }
    Ok(())
}

/// Asks for a while; how many answers came.
fn load(questions: &Path, port: u16) -> anyhow::Result<u64> {
    let (port, seconds) = (port.to_string(), ROUND.to_string());
    let mut command = servers::pinned(1, "dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &port, "-c", "8", "-q", "200", "-l", &seconds, "-d"]).arg(questions);
    let output = command.stderr(Stdio::null()).output().context("start dnsperf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |what: &str| {
        let line = text.lines().find(|line| line.contains(what))?;
        line.split_once(':')?.1.split_whitespace().next()?.parse::<u64>().ok()
    };
    let noerror = text.lines().find(|line| line.contains("Response codes")).unwrap_or_default();
    match number("Queries completed") {
        Some(completed) if noerror.contains("NOERROR") && !noerror.contains("REFUSED") => Ok(completed),
        _ => bail!("dnsperf: {text}"),
    }
}

/// Of many Ingresses one goes or comes, while every name is asked for in turn.
fn change() -> anyhow::Result<()> {
    let node = NodeName::new("home1");
    let case = Case::parse("bench", &ingresses()).map_err(anyhow::Error::msg)?;
    let whole = case.snapshot(Families::Both).map_err(anyhow::Error::msg)?;
    let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let (mut planner, mut dns) = (plan::Planner::default(), Dns::new(1));
    let mut longest = (0.0_f64, 0.0_f64);
    let mut asking = None;
    for round in 0..=CHANGES {
        let gone = (round % 2 == 1).then(|| format!("app{}", round * 7 + 3));
        let objects = whole.objects.objects.iter().filter(|object| gone.as_deref() != Some(&*object.key.name.name));
        let objects = Arc::new(ObjectSet { objects: objects.cloned().collect(), findings: Vec::new() });
        let facts = Facts { now: whole.facts.now + round as i64, ..whole.facts.clone() };
        let snapshot = Snapshot { generation: Generation(round as u64 + 1), objects, facts, ..whole.clone() };
        let began = Instant::now();
        let mut plan = planner.plan(&snapshot, &node).dns;
        let planned = began.elapsed();
        plan.listen = vec![address];
        let began = Instant::now();
        dns.plan(plan);
        dns.converge();
        let changed = began.elapsed();
        if round == 0 {
            asking = Some(Asking::start(address)?);
        } else {
            longest = (longest.0.max(planned.as_secs_f64()), longest.1.max(changed.as_secs_f64()));
            park_timeout(Duration::from_millis(50));
        }
    }
    let (asked, failed) = asking.map(Asking::end).unwrap_or_default();
    println!(
        "one of {MANY} names goes or comes: all is planned in {:.1} ms, and answered from {:.1} ms later (longest of \
         {CHANGES}); of {asked} questions meanwhile {failed} failed",
        longest.0 * 1e3,
        longest.1 * 1e3
    );
    Ok(())
}

/// Asks for one name after the other, one at a time.
struct Asking(Arc<AtomicBool>, JoinHandle<(usize, usize)>);

impl Asking {
    fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let end = Arc::new(AtomicBool::new(false));
        let is_over = end.clone();
        let asking = spawn(move || {
            let (mut asked, mut failed) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                // A multiple of seven never goes.
                let answered = ask(&socket, asked as u16, asked * 7 % (MANY - MANY % 7));
                asked += 1;
                failed += usize::from(answered != Some(true));
            }
            (asked, failed)
        });
        Ok(Self(end, asking))
    }

    fn end(self) -> (usize, usize) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap_or_default()
    }
}

/// Whether the name leads somewhere; `None` without an answer.
fn ask(socket: &UdpSocket, id: u16, number: usize) -> Option<bool> {
    let [high, low] = id.to_be_bytes();
    let mut question = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [&*format!("app{number}"), "example", "org"] {
        question.push(u8::try_from(label.len()).ok()?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&question).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    let answer = answer.get(..length).filter(|answer| answer.len() > 12)?;
    Some(answer[..2] == [high, low] && answer[3] & 15 == 0 && answer[7] == 1)
}

fn ingresses() -> String {
    let site = "dns: {zones: [{name: example.org, publish: edge}]}\nexposure: {default: [internal, external]}";
    let mut text = format!("== site\n{site}\n== services\nweb http=80\n== objects\n");
    for number in 0..MANY {
        let _ = writeln!(
            text,
            "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: app{number}, namespace: default}}
spec: {{rules: [{{host: app{number}.example.org, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{name: http}}}}}}}}]}}}}]}}"
        );
    }
    text
}

fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.any(|folder| folder.join(program).is_file())
}
