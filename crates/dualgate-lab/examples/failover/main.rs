//! How long a virtual IP does not answer when something happens to its owner: dualgate beside keepalived, in one lab, in one
//! interleaved run.
//!
//! ```text
//! cargo build --release -p dualgate
//! cargo run --release -p dualgate-lab --example failover -- --binary target/release/dualgate --runs 100
//! ```
//!
//! A client on the LAN pings both addresses once each millisecond. "Time without answers" is from the last probe that was
//! answered before a loss to the first one that was answered after it, by the clock of the sender; 0 if none was lost. After a
//! process was killed its host's kernel goes on to answer pings: there, connections to the gate tell, each 2 ms ("TCP").
//! Meanwhile who has the addresses is asked for again and again, and all that is said of them is captured at the switch: if a
//! station speaks for an address after another one has taken it, two answered. Progress goes to stderr, the table to stdout.

mod load;
mod measure;
mod prober;
mod services;
mod subject;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dualgate_core::model::GateName;
use dualgate_lab::cluster::Patience;
use dualgate_lab::init;
use dualgate_lab::lab::{Lab, Options, Origin};

use crate::load::PLANNED;
use crate::measure::Watch;
use crate::subject::{Failure, Fault, Keepalived, Ours, Subject};
use crate::table::Results;

const INSIDE: &str = "DUALGATE_FAILOVER_INSIDE";
const USAGE: &str = "usage: failover [--binary PATH] [--runs N] [--peer-runs N] [--minutes N] [--output text|json] [--only PART]\n\
                     parts: idle, faults, requests (of it: moves, upgrades, restarts), services\n\
                     --peer-runs: keepalived takes part in so many of the runs; --minutes: no run of faults begins later";
/// keepalived's own default, and as fast as VRRPv3 is set up by people who want to lose little.
const ADVERTS: [&str; 2] = ["1", "0.11"];

/// One part of the measurement.
type Part<'a> = &'a dyn Fn(&mut Results) -> Result<(), Failure>;

struct Arguments {
    binary: PathBuf,
    runs: u32,
    /// In so many of them the peers take part.
    peer_runs: u32,
    /// No run of faults begins later than so long after the first one.
    limit: Duration,
    json: bool,
    only: Option<String>,
}

impl Arguments {
    fn read() -> Option<Self> {
        let own = std::env::current_exe().ok()?;
        let beside = own.parent()?.parent()?.join("dualgate");
        let mut read =
            Self { binary: beside, runs: 100, peer_runs: 1000, limit: Duration::MAX, json: false, only: None };
        let number = |value: String| value.parse().ok().filter(|number| (1..=1000).contains(number));
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next()?;
            match argument.as_str() {
                "--binary" => read.binary = value.into(),
                "--runs" => read.runs = number(value)?,
                "--peer-runs" => read.peer_runs = number(value)?,
                "--minutes" => read.limit = Duration::from_secs(60) * number(value)?,
                "--output" => read.json = value == "json",
                "--only" => read.only = Some(value),
                _ => return None,
            }
        }
        read.binary = read.binary.canonicalize().ok()?;
        Some(read)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    /// Whether it is to be measured what happens to requests then.
    fn wants_requests(&self, fault: &str) -> bool {
        self.wants("requests") || self.wants(fault)
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    init::alone(INSIDE, |directory| measured(&arguments, directory))
}

fn measured(arguments: &Arguments, directory: &Path) -> Result<ExitCode, Failure> {
    let mut results = Results::new(arguments.runs);
    let (ours, manifests) = start(arguments, directory)?;
    let addresses: Vec<_> = ours.0.site().virtual_addresses(GateName::Internal).collect();
    let addresses = <[_; 2]>::try_from(addresses).map_err(|_| "the internal gate needs an address of each family")?;
    let site = directory.join("home/site.yaml");
    let parts: [(&str, Part<'_>); 4] = [
        ("idle", &|results| load::idle(&ours, &site, results)),
        ("faults", &|results| faults(arguments, &ours, addresses, directory, results)),
        ("requests", &|results| load::requests(&ours, addresses, results, |fault| arguments.wants_requests(fault))),
        ("services", &|results| services::measure(&ours, &manifests, arguments.runs, results)),
    ];
    let is_wanted = |name: &str| match name {
        "requests" => PLANNED.iter().any(|(fault, ..)| arguments.wants_requests(fault)),
        other => arguments.wants(other),
    };
    for (name, part) in parts.into_iter().filter(|(name, _)| is_wanted(name)) {
        // What the other parts have to tell is told all the same.
        if let Err(failure) = part(&mut results) {
            results.note(format!("{name}: ended early: {failure}"));
        }
    }
    results.finish();
    match arguments.json {
        true => println!("{}", results.json()),
        false => println!("{results}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A lab of the example's site, whose manifests and site file can be changed.
fn start(arguments: &Arguments, directory: &Path) -> Result<(Ours, PathBuf), Failure> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home");
    let home = directory.join("home");
    let manifests = home.join("manifests");
    std::fs::create_dir_all(&manifests)?;
    std::fs::copy(example.join("site.yaml"), home.join("site.yaml"))?;
    for file in std::fs::read_dir(example.join("manifests"))? {
        let file = file?;
        std::fs::copy(file.path(), manifests.join(file.file_name()))?;
    }
    let options = Options {
        name: None,
        site: home.join("site.yaml"),
        origin: "a measurement".to_owned(),
        source: manifests.clone(),
        objects: Origin::Folder,
        program: arguments.binary.clone(),
        directory: directory.to_owned(),
        patience: Patience::default(),
    };
    let lab = Lab::start(&options)?;
    let took = lab.wait_until_ready(Duration::from_secs(30))?;
    eprintln!("the lab is ready after {} ms", took.as_millis());
    Ok((Ours(lab), manifests))
}

/// Every fault at every subject, in turns.
fn faults(
    arguments: &Arguments,
    ours: &Ours,
    addresses: [std::net::IpAddr; 2],
    directory: &Path,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut peers = Vec::new();
    for (number, advert) in ADVERTS.into_iter().enumerate() {
        let folder = directory.join(format!("keepalived{number}"));
        let (topology, processes) = (ours.topology().clone(), ours.0.nodes().processes().clone());
        match Keepalived::start(topology, &addresses, advert, processes, &folder) {
            Ok(peer) => peers.push(peer),
            Err(error) => results.note(format!("keepalived is not measured: {error}")),
        }
    }
    let mut subjects: Vec<(&dyn Subject, Watch)> = vec![(ours, Watch::start(ours, addresses)?)];
    for peer in &peers {
        subjects.push((peer, Watch::start(peer, addresses)?));
    }
    let does: Vec<Vec<Fault>> = subjects
        .iter()
        .map(|(subject, _)| Fault::ALL.into_iter().filter(|fault| subject.does(*fault)).collect())
        .collect();
    let (runs, peer_runs, first) = (arguments.runs, arguments.peer_runs.min(arguments.runs), Instant::now());
    for run in (1..=runs).take_while(|_| first.elapsed() < arguments.limit) {
        let began = Instant::now();
        // Spread over all runs.
        let is_with_peers = run * peer_runs / runs > (run - 1) * peer_runs / runs;
        for (number, fault) in turns(if is_with_peers { &does } else { does.get(..1).unwrap_or_default() }) {
            let Some((subject, watch)) = subjects.get_mut(number) else { continue };
            match watch.measure(*subject, fault) {
                Ok(outcome) => {
                    eprintln!("run {run} of {runs}: {}: {}: {outcome}", subject.name(), fault.words());
                    results.add(subject.name(), fault, &outcome);
                }
                Err(failure) => {
                    eprintln!("run {run} of {runs}: {}: {}: {failure}", subject.name(), fault.words());
                    results.failed(subject.name(), fault, failure.to_string());
                }
            }
        }
        eprintln!("run {run} of {runs} took {} s", began.elapsed().as_secs());
    }
    for (subject, mut watch) in subjects {
        watch.account();
        results.watched(subject.name(), &watch);
    }
    Ok(())
}

/// Every fault at every subject, each in its order. Subjects take turns as far as they can: while one recovers from a fault,
/// which takes seconds, another one is measured.
fn turns(does: &[Vec<Fault>]) -> Vec<(usize, Fault)> {
    let mut left: Vec<_> = does.iter().map(|faults| faults.iter().copied()).collect();
    let mut turns: Vec<(usize, Fault)> = Vec::new();
    loop {
        let last = turns.last().map(|(number, _)| *number);
        let most =
            |number: &usize| (Some(*number) != last, left.get(*number).map_or(0, |faults| faults.clone().count()));
        let open = (0..left.len()).filter(|number| most(number).1 > 0);
        let Some(next) = open.rev().max_by_key(most) else { return turns };
        turns.extend(left.get_mut(next).and_then(Iterator::next).map(|fault| (next, fault)));
    }
}
