//! What was measured, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use dualgate_lab::probe::Loss;
use serde_json::{Value, json};

use crate::measure::{Outcome, Watch};
use crate::prober::Gap;
use crate::subject::Fault;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Everything that was measured.
pub struct Results {
    runs: u32,
    started: Instant,
    busy: [Option<(u64, u64)>; 2],
    load: Vec<String>,
    /// By fault and family; subjects in the order of their first result.
    faults: BTreeMap<(Fault, usize), Vec<Row>>,
    failures: Vec<String>,
    watched: Vec<Value>,
    requests: Vec<Value>,
    services: Vec<((&'static str, &'static str), Vec<f64>)>,
    idle: BTreeMap<&'static str, Vec<(f64, f64)>>,
    notes: Vec<String>,
}

/// What one subject lost, run by run.
struct Row {
    subject: String,
    /// Milliseconds.
    without: Vec<f64>,
    /// Probes.
    lost: Vec<f64>,
}

impl Results {
    pub fn new(runs: u32) -> Self {
        let mut results = Self {
            runs,
            started: Instant::now(),
            busy: [cpu(), None],
            load: Vec::new(),
            faults: BTreeMap::new(),
            failures: Vec::new(),
            watched: Vec::new(),
            requests: Vec::new(),
            services: Vec::new(),
            idle: BTreeMap::new(),
            notes: Vec::new(),
        };
        results.load.extend(load());
        results
    }

    pub fn add(&mut self, subject: String, fault: Fault, outcome: &Outcome) {
        if let Some(refused) = &outcome.refused {
            self.add_gaps(format!("{subject}, TCP"), fault, refused);
        }
        self.add_gaps(subject, fault, &outcome.gaps);
    }

    fn add_gaps(&mut self, subject: String, fault: Fault, gaps: &[Gap; 2]) {
        for (family, gap) in gaps.iter().enumerate() {
            let rows = self.faults.entry((fault, family)).or_default();
            let at = rows.iter().position(|row| row.subject == subject).unwrap_or_else(|| {
                rows.push(Row { subject: subject.clone(), without: Vec::new(), lost: Vec::new() });
                rows.len() - 1
            });
            rows[at].without.push(milliseconds(gap.without));
            rows[at].lost.push(gap.lost as f64);
        }
    }

    pub fn failed(&mut self, subject: String, fault: Fault, why: String) {
        self.failures.push(format!("{subject}: {}: {why}", fault.words()));
    }

    pub fn watched(&mut self, subject: String, watch: &Watch) {
        let (asked, answers, overlaps) = (watch.asked(), watch.answers, watch.overlaps);
        let when = watch.when.clone();
        let silence = |(fault, times): (&Fault, &Vec<f64>)| json!({"fault": fault.words(), "ms": figures(times)});
        let silences: Vec<Value> = watch.silences.iter().map(silence).collect();
        self.watched.push(json!({
            "subject": subject, "asked": asked, "answers": answers, "overlaps": overlaps, "when": when,
            "longestSilences": silences,
        }));
    }

    pub fn requests(&mut self, what: &str, family: &str, done: u64, loss: &Loss) {
        self.requests.push(json!({
            "during": what, "family": family, "times": done, "sent": loss.sent, "failed": loss.failed,
            "sentAgain": loss.sent_again, "notSent": loss.not_sent, "slowestMs": milliseconds(loss.slowest),
        }));
    }

    pub fn service(&mut self, what: &'static str, family: &'static str, took: Duration) {
        let known = self.services.iter().position(|(key, _)| *key == (what, family));
        let at = known.unwrap_or_else(|| {
            self.services.push(((what, family), Vec::new()));
            self.services.len() - 1
        });
        self.services[at].1.push(milliseconds(took));
    }

    pub fn idle(&mut self, what: &'static str, percent: f64, octets: u64) {
        self.idle.entry(what).or_default().push((percent, octets as f64 / f64::from(1 << 20)));
    }

    pub fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    pub fn finish(&mut self) {
        self.busy[1] = cpu();
        self.load.extend(load());
    }

    /// What else the machine had to do.
    fn machine(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = match self.busy {
            [Some(before), Some(after)] => {
                let (used, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
                format!("{:.0} % busy", used as f64 / (all.max(1)) as f64 * 100.0)
            }
            _ => "how busy is not known".to_owned(),
        };
        let load = self.load.join(" at the start, ");
        let minutes = self.started.elapsed().as_secs_f64() / 60.0;
        format!("{cores} cores, {busy}; load {load} at the end; {minutes:.0} minutes")
    }

    pub fn json(&self) -> Value {
        let fault = |((fault, family), rows): (&(Fault, usize), &Vec<Row>)| {
            let row = |Row { subject, without, lost }: &Row| {
                json!({
                    "fault": fault.words(), "family": FAMILIES[*family], "subject": subject, "runs": without.len(),
                    "withoutAnswersMs": figures(without), "lostProbes": figures(lost),
                })
            };
            rows.iter().map(row).collect::<Vec<_>>()
        };
        let services = self.services.iter().map(|((what, family), times)| {
            json!({"what": what, "family": family, "runs": times.len(), "ms": figures(times)})
        });
        json!({
            "runs": self.runs,
            "machine": self.machine(),
            "faults": self.faults.iter().flat_map(fault).collect::<Vec<_>>(),
            "failures": self.failures,
            "answering": self.watched,
            "requests": self.requests,
            "services": services.collect::<Vec<_>>(),
            "idle": self.idle,
            "notes": self.notes,
        })
    }

    fn show_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return Ok(());
        }
        writeln!(f, "\ntime without answers, ms; ratio of the medians to dualgate's")?;
        writeln!(
            f,
            "{:44} {:6} {:18} {:>5} {:>8} {:>8} {:>8} {:>7} {:>15}",
            "", "", "", "runs", "median", "p99", "max", "ratio", "lost med/max"
        )?;
        for ((fault, family), rows) in &self.faults {
            let ours = rows.first().map_or(0.0, |row| rank(&row.without, 0.5));
            for Row { subject, without, lost } in rows {
                let median = rank(without, 0.5);
                let ratio = if ours > 0.0 { format!("{:.1}", median / ours) } else { "-".to_owned() };
                writeln!(
                    f,
                    "{:44} {:6} {:18} {:>5} {:>8.0} {:>8.0} {:>8.0} {:>7} {:>15}",
                    fault.words(),
                    FAMILIES[*family],
                    subject,
                    without.len(),
                    median,
                    rank(without, 0.99),
                    rank(without, 1.0),
                    ratio,
                    format!("{:.0}/{:.0}", rank(lost, 0.5), rank(lost, 1.0)),
                )?;
            }
        }
        Ok(())
    }

    fn show_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.watched {
            writeln!(
                f,
                "\n{}: of {} questions {} answers were captured; a former owner spoke again {} times",
                text(&row["subject"]),
                row["asked"],
                row["answers"],
                row["overlaps"]
            )?;
            for when in row["when"].as_array().into_iter().flatten().take(10) {
                writeln!(f, "  {}", text(when))?;
            }
            writeln!(f, "  longest time between two answers to questions (one each 20 ms and more), median and max:")?;
            for row in row["longestSilences"].as_array().into_iter().flatten() {
                let [median, max] = ["median", "max"].map(|name| row["ms"][name].as_f64().unwrap_or_default());
                writeln!(f, "  {:44} {median:>6.0} ms {max:>6.0} ms", text(&row["fault"]))?;
            }
        }
        if !self.requests.is_empty() {
            writeln!(f, "\nkeep-alive requests on 16 connections of each family")?;
        }
        for row in &self.requests {
            writeln!(
                f,
                "{:>4} {:24} {:6} {:>6} sent, {} failed, {} sent again, slowest {:.0} ms",
                row["times"],
                text(&row["during"]),
                text(&row["family"]),
                row["sent"],
                row["failed"],
                row["sentAgain"],
                row["slowestMs"].as_f64().unwrap_or_default()
            )?;
        }
        if !self.services.is_empty() {
            writeln!(
                f,
                "\na Service of type LoadBalancer, ms{:38} {:>5} {:>8} {:>8} {:>8}",
                "", "runs", "median", "p99", "max"
            )?;
        }
        for ((what, family), times) in &self.services {
            let [median, p99, max] = [0.5, 0.99, 1.0].map(|part| rank(times, part));
            writeln!(f, "{what:64} {family:6} {:>5} {median:>8.0} {p99:>8.0} {max:>8.0}", times.len())?;
        }
        if !self.idle.is_empty() {
            writeln!(f, "\nidle nodes, each for 30 s")?;
        }
        for (what, nodes) in &self.idle {
            let cpu: Vec<String> = nodes.iter().map(|(cpu, _)| format!("{cpu:.1}")).collect();
            let memory: Vec<String> = nodes.iter().map(|(_, memory)| format!("{memory:.1}")).collect();
            writeln!(
                f,
                "{what:8} the role virtual-ips: CPU {} % of a core; RSS {} MiB",
                cpu.join(", "),
                memory.join(", ")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine())?;
        self.show_faults(f)?;
        self.show_rest(f)?;
        for failure in &self.failures {
            writeln!(f, "\nnot measured: {failure}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn figures(values: &[f64]) -> Value {
    json!({"median": rank(values, 0.5), "p99": rank(values, 0.99), "max": rank(values, 1.0)})
}

/// The nearest rank.
fn rank(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

/// Ticks in use and all ticks, of all cores.
fn cpu() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: u64 = ticks.iter().take(8).sum();
    Some((all - idle, all))
}
