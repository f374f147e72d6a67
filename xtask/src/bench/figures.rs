//! From single runs to medians, ranges and ratios, and how they are printed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::client::Seen;
use crate::process::Usage;

/// One counted run of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// What the client saw.
    pub seen: Seen,
    /// What the candidate used meanwhile; the memory is that at the end.
    pub usage: Usage,
}

impl Run {
    /// CPU seconds for 100,000 requests.
    pub fn cost(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 100_000.0 / self.seen.requests as f64
    }

    fn rate(&self) -> f64 {
        self.seen.requests as f64 / self.seen.duration.as_secs_f64()
    }
}

/// The runs of one candidate under one workload, one a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The candidate.
    pub name: String,
    /// Whether others are compared with it.
    pub is_peer: bool,
    /// In the order of the rounds.
    pub runs: Vec<Run>,
}

/// The rows of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The workload's name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// One for each candidate.
    pub rows: Vec<Row>,
}

/// A median with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Some(Self { median, min, max })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl Row {
    fn spread(&self, of: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(of))
    }

    /// Round by round, what it costs of what the other costs.
    fn ratio(&self, other: &Self) -> Option<Spread> {
        Spread::of(self.runs.iter().zip(&other.runs).map(|(run, other)| run.cost() / other.cost()))
    }
}

impl Table {
    /// The peer that costs less.
    fn better_peer(&self) -> Option<&Row> {
        let cost = |row: &Row| row.spread(Run::cost).map_or(f64::INFINITY, |spread| spread.median);
        self.rows.iter().filter(|row| row.is_peer).min_by(|a, b| cost(a).total_cmp(&cost(b)))
    }

    /// For a person.
    pub fn text(&self) -> String {
        let better = self.better_peer();
        let against = better.map_or(String::new(), |peer| format!("ratio to {}", peer.name));
        let mut text = format!(
            "{}: {}\n  {:<12} {:>22}  {:>22}  {:>10}  {:>8}  {:>8}  {:>7}\n",
            self.name, self.about, "", "CPU s/100k requests", against, "requests/s", "p50 µs", "p99 µs", "MiB"
        );
        for row in &self.rows {
            let median = |of: &dyn Fn(&Run) -> f64| row.spread(of).map_or(f64::NAN, |spread| spread.median);
            let ratio = better.and_then(|peer| row.ratio(peer));
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  {:<12} {:>22}  {:>22}  {:>10.0}  {:>8.0}  {:>8.0}  {:>7.1}",
                row.name,
                range(row.spread(Run::cost)),
                range(ratio),
                median(&Run::rate),
                median(&|run| run.seen.p50.as_secs_f64() * 1e6),
                median(&|run| run.seen.p99.as_secs_f64() * 1e6),
                median(&|run| run.usage.memory as f64 / f64::from(1 << 20)),
            );
        }
        text
    }

    /// For a program: the medians, and every run.
    pub fn json(&self) -> Value {
        let better = self.better_peer();
        let rows = self.rows.iter().map(|row| {
            let runs = row.runs.iter().map(|run| {
                json!({
                    "requests": run.seen.requests,
                    "seconds": run.seen.duration.as_secs_f64(),
                    "cpu_seconds": run.usage.cpu.as_secs_f64(),
                    "p50_seconds": run.seen.p50.as_secs_f64(),
                    "p99_seconds": run.seen.p99.as_secs_f64(),
                    "memory_bytes": run.usage.memory,
                })
            });
            json!({
                "candidate": row.name,
                "cpu_seconds_per_100k_requests": row.spread(Run::cost).map(Spread::json),
                "ratio_to_better_peer": better.and_then(|peer| row.ratio(peer)).map(Spread::json),
                "requests_per_second": row.spread(Run::rate).map(Spread::json),
                "runs": runs.collect::<Vec<_>>(),
            })
        });
        json!({
            "workload": self.name,
            "about": self.about,
            "better_peer": better.map(|peer| &peer.name),
            "candidates": rows.collect::<Vec<_>>(),
        })
    }
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or(String::new(), |Spread { median, min, max }| format!("{median:.2} [{min:.2}-{max:.2}]"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(cpu: u64) -> Run {
        let second = Duration::from_secs(1);
        let seen = Seen { requests: 100_000, duration: second, p50: second, p99: second };
        Run { seen, usage: Usage { cpu: Duration::from_secs(cpu), memory: 3 << 20 } }
    }

    fn row(name: &str, is_peer: bool, costs: &[u64]) -> Row {
        Row { name: name.into(), is_peer, runs: costs.iter().copied().map(run).collect() }
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        // The machine got slower by ten from round to round; the ratio did not.
        let (ours, peer) = (row("dualgate", false, &[1, 10, 100]), row("nginx", true, &[2, 20, 200]));
        assert_eq!(ours.ratio(&peer), Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
    }

    #[test]
    fn the_better_peer_is_the_one_to_beat() {
        let rows = vec![row("dualgate", false, &[1]), row("nginx", true, &[4]), row("haproxy", true, &[2])];
        let table = Table { name: "h1", about: "plain", rows };
        assert_eq!(table.better_peer().map(|row| row.name.as_str()), Some("haproxy"));
        let line = table.text().lines().find(|line| line.contains("dualgate")).unwrap().to_owned();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["dualgate", "1.00", "[1.00-1.00]", "0.50", "[0.50-0.50]", "100000", "1000000", "1000000", "3.0"]
        );
        assert_eq!(table.json()["candidates"][1]["ratio_to_better_peer"]["median"], 2.0);
    }
}
