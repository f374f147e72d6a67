//! How fast the tunnel is, beside others: one TCP stream between two hosts of their own, each candidate in its turn.
//!
//! `cargo run --release -p dualgate-tunnel --example throughput -- [--seconds N] [--rounds N] [--only NAME,NAME]
//! [--other PATH]...`
//!
//! `packet`, `tun` and `kernel` are this engine, as far as they work here. boringtun-cli and wireguard-go take part if they are
//! installed, in the system or in `target/tools/bin`; other builds by `--other PATH`. The last of them is what the ratios are
//! to. All run on the cores of one machine, so only ratios mean anything.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code)]
mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use common::{End, Pair, Process, Userspace};
use dualgate_host::network::{Network, NetworkError, Use};
use dualgate_lab::init;
use dualgate_tunnel::Backend;

const INSIDE: &str = "DUALGATE_THROUGHPUT";
/// The kernel counts CPU time in these (USER_HZ, the same on every architecture that matters).
const TICKS: f64 = 100.0;
/// Where `cargo install --root target/tools` puts programs.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin");
const BLOCK: usize = 256 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let ["engine", end, backend, outer] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return engine(end, backend, outer);
    }
    init::alone(INSIDE, |_| {
        measure(&Options::read(&arguments));
        Ok(ExitCode::SUCCESS)
    })
}

struct Options {
    seconds: f64,
    rounds: usize,
    only: Vec<String>,
    others: Vec<PathBuf>,
}

impl Options {
    fn read(arguments: &[String]) -> Self {
        let mut read = Self { seconds: 2.0, rounds: 3, only: Vec::new(), others: Vec::new() };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { panic!("{pair:?}: a value is missing") };
            match name.as_str() {
                "--seconds" => read.seconds = value.parse().expect("a number of seconds"),
                "--rounds" => read.rounds = value.parse().expect("a number of rounds"),
                "--only" => read.only = value.split(',').map(str::to_owned).collect(),
                "--other" => read.others.push(value.into()),
                _ => panic!("`{name}`: --seconds, --rounds, --only and --other are known"),
            }
        }
        read
    }
}

/// Who is measured.
#[derive(Clone, Debug)]
enum Candidate {
    Plain,
    Ours(Backend),
    Other(Userspace),
}

fn candidates(options: &Options) -> Vec<(String, Candidate)> {
    let mut all = vec![("no tunnel".to_owned(), Candidate::Plain)];
    all.extend(common::backends().into_iter().map(|backend| (backend.to_string(), Candidate::Ours(backend))));
    let installed = ["boringtun-cli", "wireguard-go"].map(|name| vec![name.into(), Path::new(TOOLS).join(name)]);
    for places in installed.into_iter().chain(options.others.iter().map(|path| vec![path.clone()])) {
        match places.iter().find_map(|place| Userspace::find(place)) {
            Some(found) => all.push((found.to_string(), Candidate::Other(found))),
            None => {
                println!("SKIPPED: throughput: {} (or `wg`, or /dev/net/tun) is not there", places[0].display());
            }
        }
    }
    all.retain(|(name, _)| options.only.is_empty() || options.only.contains(name));
    all
}

/// One stream.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    gigabits: f64,
    /// Octets for a second of CPU time of both ends' engines.
    per_cpu: f64,
    /// The share of it that is not the kernel's: cryptography, cutting, merging.
    own: f64,
    retransmits: u64,
    /// The larger one's, in MiB.
    resident: f64,
}

const FLOWS: [(&str, bool, &str); 4] = [
    ("IPv4 up", true, "10.8.0.2"),
    ("IPv4 down", false, "10.8.0.1"),
    ("IPv6 up", true, "fd08::2"),
    ("IPv6 down", false, "fd08::1"),
];

fn measure(options: &Options) {
    let candidates = candidates(options);
    let mut figures: BTreeMap<(usize, usize), Vec<Figures>> = BTreeMap::new();
    for round in 0..options.rounds {
        for (number, (name, candidate)) in candidates.iter().enumerate() {
            let streams = run(candidate, options.seconds);
            let shown: Vec<String> = streams.iter().map(|stream| format!("{:.2}", stream.gigabits)).collect();
            println!("round {}: {name}: {} Gbit/s", round + 1, shown.join(" "));
            for (flow, stream) in streams.into_iter().enumerate() {
                figures.entry((number, flow)).or_default().push(stream);
            }
        }
    }
    let reference = candidates.len() - 1;
    println!("\nmedians of {} rounds of {} s; ratios to {}", options.rounds, options.seconds, candidates[reference].0);
    println!(
        "{:<34} {:<10} {:>7} {:>6} {:>9} {:>6} {:>5} {:>9} {:>8}",
        "", "", "Gbit/s", "ratio", "GB/CPU s", "ratio", "own", "retrans", "RSS MiB"
    );
    for (number, (name, _)) in candidates.iter().enumerate() {
        for (flow, (label, ..)) in FLOWS.iter().enumerate() {
            let median = |number: usize, of: fn(&Figures) -> f64| {
                let mut values: Vec<f64> = figures[&(number, flow)].iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let (speed, cpu) = (median(number, |f| f.gigabits), median(number, |f| f.per_cpu / 1e9));
            println!(
                "{name:<34} {label:<10} {speed:>7.2} {:>6.2} {cpu:>9.3} {:>6.2} {:>5.2} {:>9} {:>8.0}",
                speed / median(reference, |f| f.gigabits),
                cpu / median(reference, |f| f.per_cpu / 1e9),
                median(number, |f| f.own),
                median(number, |f| f.retransmits as f64),
                median(number, |f| f.resident),
            );
        }
    }
}

fn run(candidate: &Candidate, seconds: f64) -> Vec<Figures> {
    let pair = Pair::new();
    let outer = "fd09::2";
    let start = |end: End| match candidate {
        Candidate::Plain => {
            plain(&pair, end);
            None
        }
        Candidate::Ours(backend) => Some(spawn(&pair, end, *backend, outer)),
        Candidate::Other(other) => Some(other.start(&pair, end, (end == End::Home).then_some(outer))),
    };
    let ends: Vec<Process> = [End::Edge, End::Home].into_iter().filter_map(start).collect();
    let flow = |(_, up, address): &(&str, bool, &str)| stream(&pair, *up, address, seconds, &ends);
    FLOWS.iter().map(flow).collect()
}

/// The inner addresses on the wire itself.
fn plain(pair: &Pair, end: End) {
    let number = if end == End::Home { 1 } else { 2 };
    let up = move || -> Result<(), NetworkError> {
        let mut network = Network::open()?;
        network.add_address("wire", format!("10.8.0.{number}/24").parse().unwrap(), Use::Both)?;
        network.add_address("wire", format!("fd08::{number}/64").parse().unwrap(), Use::Both)
    };
    pair.host(end).run(up).unwrap();
}

/// Ours in a process of its own, so that its CPU time is.
fn spawn(pair: &Pair, end: End, backend: Backend, outer: &str) -> Process {
    let name = if end == End::Home { "home" } else { "edge" };
    let arguments = ["engine".to_owned(), name.to_owned(), backend.to_string(), outer.to_owned()];
    let mut child = pair
        .host(end)
        .run(move || {
            Command::new("/proc/self/exe").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        })
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    pair.address(end);
    Process(child)
}

fn engine(end: &str, backend: &str, outer: &str) -> ExitCode {
    let end = if end == "home" { End::Home } else { End::Edge };
    let known = [Backend::Kernel, Backend::Tun, Backend::Packet];
    let backend = known.into_iter().find(|known| known.to_string() == backend).unwrap();
    let config = common::config(end, backend, (end == End::Home).then_some(outer));
    let _engine = dualgate_tunnel::Engine::start(&config).unwrap();
    println!("ready");
    // Until whoever started it goes.
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

/// One TCP stream for some seconds.
fn stream(pair: &Pair, up: bool, address: &str, seconds: f64, engines: &[Process]) -> Figures {
    let (from, to) = if up { (&pair.home, &pair.edge) } else { (&pair.edge, &pair.home) };
    let address: IpAddr = address.parse().unwrap();
    let listener = to.run(move || TcpListener::bind(SocketAddr::new(address, 0))).unwrap();
    let server = listener.local_addr().unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut block = vec![0; BLOCK];
        let (mut octets, started) = (0_u64, Instant::now());
        while let Ok(length @ 1..) = stream.read(&mut block) {
            octets += length as u64;
        }
        (octets, started.elapsed())
    });
    let mut stream = from.run(move || TcpStream::connect_timeout(&server, Duration::from_secs(15))).unwrap();
    let block = vec![0x5a; BLOCK];
    // The window opens first.
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(300) {
        stream.write_all(&block).unwrap();
    }
    let before = (cpu(engines), from.run(retransmits));
    let (mut sent, started) = (0_u64, Instant::now());
    while started.elapsed().as_secs_f64() < seconds {
        stream.write_all(&block).unwrap();
        sent += BLOCK as u64;
    }
    let after = (cpu(engines), from.run(retransmits));
    drop(stream);
    let (received, took) = receiver.join().unwrap();
    let gigabits = received as f64 * 8.0 / took.as_secs_f64() / 1e9;
    let [own, kernel] = [0, 1].map(|at| after.0[at] - before.0[at]);
    Figures {
        gigabits,
        per_cpu: if engines.is_empty() { f64::NAN } else { sent as f64 / (own + kernel).max(1.0 / TICKS) },
        own: own / (own + kernel),
        retransmits: after.1 - before.1,
        resident: engines.iter().map(|engine| resident(engine.0.id())).fold(0.0, f64::max),
    }
}

/// Seconds of CPU time of these processes so far: their own, and the kernel's for them.
fn cpu(engines: &[Process]) -> [f64; 2] {
    let of = |process: &Process| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime and stime (proc(5)).
        [11, 12].map(|at| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS)
    };
    engines
        .iter()
        .map(of)
        .fold([0.0; 2], |[own, kernel], [more_own, more_kernel]| [own + more_own, kernel + more_kernel])
}

fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// TCP segments that were sent again, in the network of this thread.
fn retransmits() -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/thread-self/net/snmp")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
