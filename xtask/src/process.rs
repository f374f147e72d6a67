//! Programs that xtask runs: started, waited for, ended with all their children, and what they cost.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A process that ends with this value.
pub struct Running {
    name: String,
    child: Child,
}

/// What a process tree has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Memory, pages that are shared counted in parts (PSS).
    pub memory: u64,
}

impl Running {
    /// Starts a program.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The standard output, once.
    pub fn stdout(&mut self) -> Result<std::process::ChildStdout> {
        self.child.stdout.take().with_context(|| format!("{} has no standard output", self.name))
    }

    /// Waits until `ready` says so; an error if the process ends before, or if it takes too long.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let mut ended = None;
        let child = &mut self.child;
        let done = wait(Duration::from_secs(10), || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || ready()
        });
        match ended {
            Some(status) => bail!("{} ended: {status}", self.name),
            None if done => Ok(()),
            None => bail!("{} was not ready after 10 s", self.name),
        }
    }

    /// What it and its children have used.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First asked, so that a process ends its children; then made to.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let child = &mut self.child;
        if !asked || !wait(Duration::from_secs(3), || !matches!(child.try_wait(), Ok(None))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Below the ports that the kernel hands out by itself: nobody else is given one of these between looking and using.
const PORTS: RangeInclusive<u16> = 20_000..=31_999;

/// Ports of loopback that nobody listens on now.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // Two runs at a time begin in different places.
    let first = std::process::id() as usize % PORTS.len();
    let candidates = PORTS.skip(first).chain(PORTS.take(first));
    // All are held until all are known, so no two are the same.
    let listeners = candidates.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let listeners: Vec<TcpListener> = listeners.take(N).collect();
    let ports: Vec<u16> = listeners.iter().map(|held| Ok(held.local_addr()?.port())).collect::<Result<_>>()?;
    ports.try_into().ok().context("no port is free")
}

/// The answer, head and body, to a GET over HTTP/1.1 on loopback.
pub fn ask(port: u16, host: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits for something that cannot be waited on; false if it takes longer than `limit`.
#[expect(clippy::disallowed_methods, reason = "no event tells that another program is ready")]
fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn usage(root: u32) -> Result<Usage> {
    let mut stats = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("read `/proc`")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while we look.
        if let Some(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| Stat::read(&stat))
        {
            stats.insert(pid, stat);
        }
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut usage = Usage::default();
    let mut ticks = 0;
    for pid in tree(root, &stats) {
        ticks += stats[&pid].ticks;
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        usage.memory += memory.and_then(|memory| proportional(&memory)).unwrap_or_default();
    }
    usage.cpu = Duration::from_micros(ticks * 1_000_000 / ticks_per_second);
    Ok(usage)
}

/// The part of `/proc/PID/stat` that counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time in clock ticks.
    ticks: u64,
}

impl Stat {
    /// The second field is a name in parentheses that may hold anything, so fields count from its end (proc(5)).
    fn read(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        Some(Self { parent: u32::try_from(number(4)?).ok()?, ticks: number(14)? + number(15)? })
    }
}

/// The processes that descend from `root`, itself first.
fn tree(root: u32, stats: &BTreeMap<u32, Stat>) -> Vec<u32> {
    let mut members: Vec<u32> = stats.contains_key(&root).then_some(root).into_iter().collect();
    let mut at = 0;
    while at < members.len() {
        let parent = members[at];
        members.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    members
}

/// Bytes from the `Pss:` line.
fn proportional(smaps: &str) -> Option<u64> {
    let line = smaps.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let stat = "7 (a) (b c) S 3 7 7 0 -1 4194560 1 2 3 4 50 25 9 9 20 0 1 0 1 1 1";
        assert_eq!(Stat::read(stat), Some(Stat { parent: 3, ticks: 75 }));
    }

    #[test]
    fn children_of_children_count() {
        let stat = |parent| Stat { parent, ticks: 1 };
        let stats = BTreeMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (7, stat(5)), (9, stat(1))]);
        assert_eq!(tree(5, &stats), [5, 6, 7]);
        assert_eq!(tree(4, &stats), Vec::<u32>::new());
    }

    #[test]
    fn memory_is_the_proportional_share() {
        assert_eq!(proportional("Rss: 900 kB\nPss:   12 kB\nPss_Dirty: 3 kB\n"), Some(12 * 1024));
    }

    #[test]
    fn free_ports_are_different() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.memory > 0, "{usage:?}");
    }
}
