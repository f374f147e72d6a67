//! What people notice of planned moves and upgrades, and what the role costs while nothing happens.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use dualgate_lab::probe::{Connections, Load, Request};
use rustix::process::Signal;

use crate::measure::{pass, wait};
use crate::subject::{Failure, Fault, NODES, Ours, Subject as _};
use crate::table::Results;

const HOST: &str = "whoami.yourdomain.com";
/// Requests of both families together.
const REQUESTS: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);
/// The kernel counts a process's time in hundredths of a second (USER_HZ).
const TICKS: f64 = 100.0;

/// What happens to nodes under load: as it is asked for, and in words.
pub const PLANNED: [(&str, &str, Fault); 3] = [
    ("moves", "moves", Fault::Move),
    ("upgrades", "upgrades by take-over", Fault::TakeOver),
    ("restarts", "restarts", Fault::Restart),
];

/// Keep-alive requests while addresses are moved and nodes upgraded, until there were enough.
pub fn requests(
    ours: &Ours,
    addresses: [IpAddr; 2],
    results: &mut Results,
    wants: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let settled = || ours.missing().is_empty();
    for (_, what, fault) in PLANNED.into_iter().filter(|(name, ..)| wants(name)) {
        wait("the nodes are in place", LIMIT, settled)?;
        let client = ours.host("lan-client").ok_or("the LAN's client is off")?;
        let start = |address: IpAddr| {
            let request = Request::new(SocketAddr::new(address, 80), HOST);
            let (pace, patience) = (Duration::from_millis(4), Duration::from_secs(5));
            Load { request, pace, connections: Connections::Kept(16), patience, at_most: 3 * LIMIT }
                .start(client.clone())
        };
        let running = addresses.map(start);
        let (started, mut done) = (Instant::now(), 0_u64);
        while running.iter().map(|load| load.so_far().sent).sum::<u64>() < REQUESTS && started.elapsed() < 2 * LIMIT {
            wait("somebody answers", LIMIT, || !ours.answering(addresses[0]).is_empty())?;
            let owner = ours.answering(addresses[0]).into_iter().next().ok_or("nobody answers any more")?;
            eprintln!("{} ms: {what}: {owner}", started.elapsed().as_millis());
            ours.hit(fault, &owner)?;
            let gone = || match fault {
                Fault::TakeOver => ours.is_over(fault, &owner),
                _ => !ours.answering(addresses[0]).contains(&owner),
            };
            wait("it has moved", LIMIT, gone)?;
            wait("the nodes are in place", LIMIT, settled)?;
            done += 1;
            pass(Duration::from_millis(300));
        }
        let losses = running.map(|load| load.stop());
        for (family, loss) in ["IPv4", "IPv6"].into_iter().zip(&losses) {
            eprintln!("{done} {what}: {family}: {loss}");
            results.requests(what, family, done, loss);
        }
    }
    Ok(())
}

/// CPU and memory of the nodes with and without the role.
pub fn idle(ours: &Ours, site: &Path, results: &mut Results) -> Result<(), Failure> {
    let text = std::fs::read_to_string(site)?;
    let ready = || {
        ours.0.tend();
        NODES.iter().all(|node| ours.0.nodes().state(node).as_deref() == Some("ready"))
    };
    wait("the nodes are in place", LIMIT, || ours.missing().is_empty())?;
    for (what, text) in [("without", text.replace(", virtual-ips", "")), ("with", text.clone())] {
        // Fresh processes: what was allocated before is not counted.
        std::fs::write(site, text)?;
        ours.0.tend();
        NODES.iter().for_each(|node| ours.0.nodes().signal(node, Signal::KILL));
        wait("the nodes have ended", LIMIT, || !ready())?;
        wait("the nodes are ready", LIMIT, ready)?;
        pass(Duration::from_secs(5));
        eprintln!("idle for {} s {what} the role virtual-ips", IDLE.as_secs());
        let before = NODES.map(|node| used(ours, node));
        pass(IDLE);
        let after = NODES.map(|node| used(ours, node));
        for (before, after) in before.into_iter().zip(after) {
            let (before, after) = (before?, after?);
            let cpu = (after.0 - before.0) / IDLE.as_secs_f64() * 100.0;
            results.idle(what, cpu, after.1);
        }
    }
    wait("the nodes are in place", LIMIT, || ours.missing().is_empty())
}

/// Seconds of CPU and octets of memory of a node's process so far.
fn used(ours: &Ours, node: &str) -> Result<(f64, u64), Failure> {
    let pid = ours.0.nodes().pid(node).ok_or("it does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no such file")?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or("no such field");
    let seconds = (number(11)? + number(12)?) / TICKS;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no such line")?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").trim().parse()?;
    Ok((seconds, kib * 1024))
}
