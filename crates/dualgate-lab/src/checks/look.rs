//! Asks what was planned, several at a time, and judges what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dualgate_host::namespace::Namespace;

use super::judge::{judge, worst};
use super::{Ask, Expectation, Observation, Planned, PlannedCheck, Probe};
use crate::probe::{self, Trouble};
use crate::report::{Check, Verdict};

/// How long an answer may take that should come.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long is waited for what should not come: in a lab the slowest answer takes a few milliseconds.
const BLOCKED: Duration = Duration::from_millis(300);
/// After this time nothing more is asked: the rest is `Waiting`.
const LONGEST: Duration = Duration::from_secs(10);
/// Most of a look is waiting.
const WORKERS: usize = 24;

/// Looks at every row. `hosts` knows the hosts that are on.
pub fn look(planned: &[PlannedCheck], hosts: &dyn Fn(&str) -> Option<Arc<Namespace>>) -> Vec<Check> {
    let questions = Questions::of(planned);
    let hosts = questions.hosts(hosts);
    let seen = questions.ask(&hosts);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let verdict = |of: &Planned| match of {
        Planned::Absent => Verdict::Absent,
        Planned::NotBuilt(instead) => Verdict::NotBuilt(instead.clone()),
        Planned::Look(probes) => {
            let judged = probes.iter().map(|probe| {
                let seen = questions.number(probe).and_then(|number| seen.get(&number));
                seen.map_or(Verdict::Waiting, |seen| judge(probe, seen, now))
            });
            worst(&judged.collect::<Vec<_>>())
        }
    };
    let check = |check: &PlannedCheck| Check {
        id: check.id.clone(),
        title: check.title.clone(),
        v4: verdict(&check.v4),
        v6: verdict(&check.v6),
    };
    planned.iter().map(check).collect()
}

/// What is to be asked, each once: several rows may want to know the same.
struct Questions<'p> {
    /// Those that take longest first.
    probes: Vec<&'p Probe>,
    numbers: BTreeMap<String, usize>,
}

type Hosts = BTreeMap<String, Option<Arc<Namespace>>>;

impl<'p> Questions<'p> {
    fn of(planned: &'p [PlannedCheck]) -> Self {
        let families = planned.iter().flat_map(|check| [&check.v4, &check.v6]);
        let probes = families.flat_map(|planned| match planned {
            Planned::Look(probes) => probes.as_slice(),
            Planned::Absent | Planned::NotBuilt(_) => &[],
        });
        let mut probes: Vec<&Probe> = probes.collect();
        probes.sort_by_key(|probe| probe.expect != Expectation::Blocked);
        let mut questions = Self { probes: Vec::new(), numbers: BTreeMap::new() };
        for probe in probes {
            let number = questions.probes.len();
            questions.numbers.entry(key(probe)).or_insert_with(|| {
                questions.probes.push(probe);
                number
            });
        }
        questions
    }

    fn number(&self, probe: &Probe) -> Option<usize> {
        self.numbers.get(&key(probe)).copied()
    }

    fn hosts(&self, find: &dyn Fn(&str) -> Option<Arc<Namespace>>) -> Hosts {
        let mut hosts = Hosts::new();
        for probe in &self.probes {
            let at = match &probe.ask {
                Ask::Dial { at, .. } | Ask::Ping { at, .. } => Some(at),
                Ask::Get(_) | Ask::Connect(_) | Ask::Resolve { .. } | Ask::WhoHas { .. } => None,
            };
            for name in [&probe.from].into_iter().chain(at) {
                hosts.entry(name.clone()).or_insert_with(|| find(name));
            }
        }
        hosts
    }

    fn ask(&self, hosts: &Hosts) -> BTreeMap<usize, Observation> {
        let (started, next) = (Instant::now(), AtomicUsize::new(0));
        let work = || {
            let mut seen = Vec::new();
            while started.elapsed() < LONGEST {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(probe) = self.probes.get(number) else { break };
                seen.push((number, observe(probe, hosts)));
            }
            seen
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS.min(self.probes.len())).map(|_| scope.spawn(work)).collect();
            // A worker that panicked has seen nothing: its rows are `Waiting`.
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        })
    }
}

/// What is asked, whatever is expected of it.
fn key(probe: &Probe) -> String {
    format!("{} {:?} {}", probe.from, probe.ask, probe.expect == Expectation::Blocked)
}

fn observe(probe: &Probe, hosts: &Hosts) -> Observation {
    let host = |name: &String| hosts.get(name).and_then(Option::as_ref).ok_or_else(|| Observation::Off(name.clone()));
    let from = match host(&probe.from) {
        Ok(from) => from,
        Err(off) => return off,
    };
    let patience = if probe.expect == Expectation::Blocked { BLOCKED } else { PATIENCE };
    let seen: Result<Observation, Trouble> = match &probe.ask {
        Ask::Get(request) => probe::get(from, request, patience).map(|answer| Observation::Answer(Box::new(answer))),
        Ask::Ping { at, address } => match host(at) {
            Ok(_) => probe::ping(from, *address, patience).map(|_| Observation::Echo),
            Err(off) => return off,
        },
        Ask::WhoHas { interface, address } => {
            probe::who_has(from, interface, *address, BLOCKED).map(Observation::Stations)
        }
        Ask::Resolve { server, name, family } => {
            probe::resolve(from, *server, name, *family, patience).map(Observation::Resolved)
        }
        Ask::Connect(to) => probe::tcp(from, *to, patience).map(|()| Observation::Connected),
        Ask::Dial { at, address } => match host(at) {
            Ok(at) => probe::dial(from, at, *address, patience).map(Observation::Dialled),
            Err(off) => return off,
        },
    };
    seen.unwrap_or_else(Observation::Trouble)
}
