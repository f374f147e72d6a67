//! `cargo xtask bench`: what dualgate and its peers spend on the same work, side by side.
//!
//! `bench/README.md` says how to run it and what its figures mean.

pub mod backend;
mod candidate;
mod client;
mod figures;
mod workload;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::Usage;
use crate::workspace::Workspace;
use candidate::{Candidate, Program, Setting};
use figures::{Row, Run, Table};
use workload::{WORKLOADS, Workload};

const USAGE: &str = "\
What dualgate, nginx and HAProxy spend on the same work.

Usage: cargo xtask bench [OPTIONS]

Options:
  --only NAMES         Workloads, joined by commas (all of them below) [default: h1,tls,h2]
  --rounds N           Counted runs of each candidate [default: 5]
  --seconds N          Length of a counted run [default: 3]
  --profile NAME       Cargo profile of dualgate [default: dist]
  --without-dualgate   Only the peers
  --output FORMAT      `text`, or `json` with every run [default: text]

Workloads:
";

/// Programs of the system, and the Debian packages that have them.
const NEEDED: &[(&str, &str)] =
    &[("haproxy", "haproxy"), ("h2load", "nghttp2-client"), ("nginx", "nginx"), ("openssl", "openssl"), ("wrk", "wrk")];

#[derive(Debug, PartialEq, Eq)]
struct Options {
    workloads: Vec<&'static Workload>,
    rounds: usize,
    seconds: u64,
    /// The profile of dualgate, unless it is left out.
    profile: Option<String>,
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

/// Runs the benchmark and prints its figures.
pub fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(*argument, "-h" | "--help")) {
        print!("{}", usage());
        return Ok(());
    }
    let options = Options::read(arguments)?;
    find_programs()?;
    eprintln!("building the back end");
    let backend = workspace.binary("xtask", "release")?;
    let mut programs = vec![Program::Nginx, Program::Haproxy];
    if let Some(profile) = &options.profile {
        eprintln!("building dualgate with profile {profile}");
        programs.insert(0, Program::Dualgate(workspace.binary("dualgate", profile)?));
    }

    let folder = workspace.target.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("create `{}`", folder.display()))?;
    candidate::make_certificate(&folder)?;
    let (_backend, endpoints) = candidate::start_backend(&backend)?;
    let workers = std::thread::available_parallelism()?.get();
    let setting = Setting { templates: workspace.root.join("bench"), folder, endpoints, workers };
    let candidates: Vec<Candidate> =
        programs.iter().map(|program| Candidate::start(program, &setting)).collect::<Result<_>>()?;

    let mut tables = Vec::new();
    for workload in &options.workloads {
        let table = measure(workload, &candidates, &setting, &options)?;
        if options.output == Output::Text {
            println!("{}", table.text());
        }
        tables.push(table);
    }
    let versions: Vec<(&str, &str)> = candidates.iter().map(|c| (c.name, c.version.as_str())).collect();
    match options.output {
        Output::Text => println!("{}", footer(&options, workers, &versions)),
        Output::Json => println!("{:#}", report(&options, workers, &versions, &tables)),
    }
    Ok(())
}

fn usage() -> String {
    let lines = WORKLOADS.iter().map(|workload| format!("  {:<20} {}\n", workload.name, workload.about));
    lines.fold(USAGE.to_owned(), |text, line| text + &line)
}

impl Options {
    fn read(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            workloads: WORKLOADS.iter().filter(|workload| workload.usual).collect(),
            rounds: 5,
            seconds: 3,
            profile: Some("dist".to_owned()),
            output: Output::Text,
        };
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("`{argument}` needs a value"));
            match argument {
                "--only" => options.workloads = value()?.split(',').map(named).collect::<Result<_>>()?,
                "--rounds" => options.rounds = at_least_one(argument, value()?)?,
                "--seconds" => options.seconds = at_least_one(argument, value()?)? as u64,
                "--profile" => options.profile = Some(value()?.to_owned()),
                "--without-dualgate" => options.profile = None,
                "--output" => {
                    options.output = match value()? {
                        "text" => Output::Text,
                        "json" => Output::Json,
                        other => bail!("`{other}` is no output: `text` or `json`"),
                    }
                }
                other => bail!("`{other}` is no option\n\n{}", usage()),
            }
        }
        Ok(options)
    }
}

fn named(name: &str) -> Result<&'static Workload> {
    let names = || WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    let workload = WORKLOADS.iter().find(|workload| workload.name == name);
    workload.with_context(|| format!("`{name}` is no workload: {}", names()))
}

fn at_least_one(option: &str, value: &str) -> Result<usize> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.with_context(|| format!("{option} is a number from 1, not `{value}`"))
}

/// All programs must be there before anything is built. Nothing is installed here.
fn find_programs() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let missing: Vec<_> =
        NEEDED.iter().filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).is_file())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |of: fn(&(&str, &str)) -> String| missing.iter().map(|needed| of(needed)).collect::<Vec<_>>().join(" ");
    bail!(
        "these programs are not in PATH: {}\n  on Debian: apt-get install {}\n  (nginx and haproxy are in /usr/sbin)",
        list(|needed| needed.0.to_owned()),
        list(|needed| needed.1.to_owned())
    )
}

/// Every candidate once a round, each time after a run that is not counted, in an order that turns round.
fn measure(
    workload: &'static Workload,
    candidates: &[Candidate],
    setting: &Setting,
    options: &Options,
) -> Result<Table> {
    let mut rows: Vec<Row> = candidates
        .iter()
        .map(|candidate| Row { name: candidate.name.to_owned(), is_peer: candidate.is_peer, runs: Vec::new() })
        .collect();
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let candidate = &candidates[number];
            eprintln!("{}: round {} of {}: {}", workload.name, round + 1, options.rounds, candidate.name);
            let run = counted_run(workload, candidate, setting, options.seconds);
            rows[number].runs.push(run.with_context(|| format!("{} under {}", candidate.name, workload.name))?);
        }
    }
    Ok(Table { name: workload.name, about: workload.about, rows })
}

fn counted_run(workload: &Workload, candidate: &Candidate, setting: &Setting, seconds: u64) -> Result<Run> {
    let port = candidate.port(workload.scheme);
    let client = |seconds| client::run(workload, port, seconds, &setting.templates, &setting.folder);
    client(1)?;
    let before = candidate.process.usage()?;
    let seen = client(seconds)?;
    let after = candidate.process.usage()?;
    let cpu = after.cpu.checked_sub(before.cpu).context("a process of the candidate ended during the run")?;
    Ok(Run { seen, usage: Usage { cpu, memory: after.memory } })
}

fn footer(options: &Options, workers: usize, versions: &[(&str, &str)]) -> String {
    let versions: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "median [least-most] of {} rounds of {} s, {workers} workers each; ratios within a round\n{}{}; {}",
        options.rounds,
        options.seconds,
        versions.join(", "),
        options.profile.as_ref().map_or(String::new(), |profile| format!(" (dualgate: profile {profile})")),
        machine()
    )
}

fn report(options: &Options, workers: usize, versions: &[(&str, &str)], tables: &[Table]) -> Value {
    json!({
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": workers,
        "profile": options.profile,
        "machine": machine(),
        "versions": versions.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        "workloads": tables.iter().map(Table::json).collect::<Vec<_>>(),
    })
}

/// Processor and kernel, for whoever compares figures later.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpu}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read = Options::read(&["--only", "h2,h1", "--rounds", "3", "--without-dualgate", "--output", "json"]);
        let expected = Options {
            workloads: vec![named("h2").unwrap(), named("h1").unwrap()],
            rounds: 3,
            seconds: 3,
            profile: None,
            output: Output::Json,
        };
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn a_wrong_option_is_named() {
        let error = |arguments: &[&str]| Options::read(arguments).unwrap_err().to_string();
        assert!(error(&["--only", "h3"]).starts_with("`h3` is no workload: h1, tls, h2"));
        assert_eq!(error(&["--rounds", "0"]), "--rounds is a number from 1, not `0`");
        assert_eq!(error(&["--seconds"]), "`--seconds` needs a value");
        assert!(error(&["--fast"]).starts_with("`--fast` is no option"));
    }
}
