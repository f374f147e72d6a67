//! Questions for each second of a processor, beside Knot DNS and NSD: `cargo bench -p dualgate --bench dns`.
//!
//! Each server has one thread on the first processor and the same zone; `dnsperf` asks from the second one. The servers take
//! turns, several rounds, so that what else the machine does meets all of them. What counts is what a server's own processes
//! used. Then a zone of 10,000 names is changed while it is asked for. A peer that is not installed is left out, and said so.

mod servers;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, Snapshot};
use dualgate_core::{parse, plan};
use dualgate_host::dns::Dns;

use servers::{Kind, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names of the zone that is asked for; each has an address of both families.
const NAMES: usize = 200;
/// Names of the zone that changes.
const MANY: usize = 10_000;
const ROUNDS: usize = 5;
/// Seconds of a round.
const ROUND: u32 = 4;

fn main() -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("dualgate-bench-dns-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = beside(&directory).and_then(|()| change());
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

/// A zone of many names changes: what the plan, and what the exchange of what is answered takes.
fn change() -> anyhow::Result<()> {
    let node = NodeName::new("here");
    let snapshot = |generation: u64, last: &str| -> anyhow::Result<Snapshot> {
        let text = servers::site(1, 1, MANY).replace("192.0.2.199}", &format!("{last}}}"));
        let (site, findings) = parse::site::site("site.yaml", &text);
        let site = site.with_context(|| format!("the site of the benchmark is wrong: {findings:?}"))?;
        let facts = Facts { now: 1_800_000_000 + generation as i64, ..Facts::default() };
        Ok(Snapshot { generation: Generation(generation), site: Arc::new(site), objects: Arc::default(), facts })
    };
    let (mut planner, mut dns) = (plan::Planner::default(), Dns::new(1));
    let mut longest = (0.0_f64, 0.0_f64);
    for round in 0..6 {
        let snapshot = snapshot(round + 1, if round % 2 == 0 { "198.51.100.1" } else { "198.51.100.2" })?;
        let began = Instant::now();
        let mut plan = planner.plan(&snapshot, &node).dns;
        let planned = began.elapsed();
        // Port 0 is any that is free.
        plan.listen = vec!["127.0.0.1:0".parse()?];
        let began = Instant::now();
        dns.plan(plan);
        dns.converge();
        let changed = began.elapsed();
        if round > 0 {
            longest = (longest.0.max(planned.as_secs_f64()), longest.1.max(changed.as_secs_f64()));
        }
    }
    println!(
        "a zone of {MANY} names changes: planned in {:.1} ms, and answered from {:.1} ms later (longest of 5)",
        longest.0 * 1e3,
        longest.1 * 1e3
    );
    Ok(())
}

fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.any(|folder| folder.join(program).is_file())
}
