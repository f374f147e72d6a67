//! What the data plane counts.
//!
//! Each worker counts for itself, without contention; a scrape adds up. Labels are bounded: entry points, classes of
//! status codes, backends of the plan.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that one thread raises and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// One less: for gauges.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// System calls of the connections of one worker.
#[derive(Debug, Default)]
pub struct IoCounters {
    /// Reads that returned something.
    pub reads: Counter,
    /// Writes that took something.
    pub writes: Counter,
    /// Calls that the kernel answered with EAGAIN.
    pub would_block: Counter,
}

impl IoCounters {
    pub(crate) fn read(&self, done: bool) {
        if done { self.reads.increment() } else { self.would_block.increment() }
    }

    pub(crate) fn write(&self, done: bool) {
        if done { self.writes.increment() } else { self.would_block.increment() }
    }
}

/// What one worker counts for one entry point.
#[derive(Debug, Default)]
pub struct EntryPointCounters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open.
    pub open: Counter,
    /// Connections that ended before a request because of what they sent or did not send.
    pub refused: Counter,
    /// Requests by class of status: 1xx … 5xx.
    pub requests: [Counter; 5],
    /// Requests whose answer was broken off.
    pub aborted: Counter,
    /// Octets of requests' bodies.
    pub bytes_in: Counter,
    /// Octets of answers' bodies.
    pub bytes_out: Counter,
    /// Requests by duration.
    pub duration: Histogram,
}

impl EntryPointCounters {
    /// One more connection, for as long as the guard lives.
    pub fn open_guard(self: &Arc<Self>) -> OpenGuard {
        self.accepted.increment();
        self.open.increment();
        OpenGuard(self.clone())
    }
}

/// An open connection.
#[derive(Debug)]
pub struct OpenGuard(Arc<EntryPointCounters>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.decrement();
    }
}

/// What all workers count for one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Requests by class of status.
    pub requests: [Counter; 5],
    /// Connections that could not be opened.
    pub connect_failures: Counter,
    /// Requests sent once more, to another server where there is one.
    pub retries: Counter,
}

/// What one worker counts beyond entry points.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// System calls.
    pub io: Arc<IoCounters>,
    /// Connections ended by a panic.
    pub panics: Counter,
    /// Lines that the access log lost because its writer was behind.
    pub log_lost: Counter,
}

/// The class of a status: 0 for 1xx to 4 for 5xx.
pub fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

/// Upper bounds in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// One more duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].increment();
        self.sum_micros.add(duration.as_micros() as u64);
    }
}

/// Adds up histograms of several workers.
#[derive(Debug, Default)]
pub struct HistogramSum {
    buckets: [u64; BOUNDS.len() + 1],
    sum_micros: u64,
}

impl HistogramSum {
    /// With one worker's.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum_micros += histogram.sum_micros.get();
    }

    /// In Prometheus' text form; `labels` without braces.
    pub fn write(&self, name: &str, labels: &str, out: &mut String) {
        let mut cumulative = 0;
        for (count, bound) in self.buckets.iter().zip(BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()])) {
            cumulative += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum_micros as f64 / 1e6);
        let _ = writeln!(out, "{name}_count{{{labels}}} {cumulative}");
    }
}

/// Writes the head of a metric.
pub fn describe(name: &str, kind: &str, help: &str, out: &mut String) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Quotes a label's value.
pub fn quote(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_cumulatively_and_keeps_the_sum() {
        let histogram = Histogram::default();
        for millis in [1, 3, 400, 60_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let (mut sum, mut text) = (HistogramSum::default(), String::new());
        sum.add(&histogram);
        sum.write("d", "a=\"b\"", &mut text);
        assert!(text.contains("d_bucket{a=\"b\",le=\"0.001\"} 1\n"), "{text}");
        assert!(text.contains("d_bucket{a=\"b\",le=\"0.005\"} 2\n"), "{text}");
        assert!(
            text.ends_with("d_bucket{a=\"b\",le=\"+Inf\"} 4\nd_sum{a=\"b\"} 60.404\nd_count{a=\"b\"} 4\n"),
            "{text}"
        );
    }

    #[test]
    fn classes_are_bounded_whatever_the_status() {
        assert_eq!([100, 200, 404, 599, 999, 0].map(class), [0, 1, 3, 4, 4, 0]);
    }
}
