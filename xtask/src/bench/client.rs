//! The clients, wrk and h2load: how they are started and what they print.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::workload::{Client, Workload};

/// What a client saw in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Answers that came whole and in order.
    pub requests: u64,
    /// How long it took.
    pub duration: Duration,
    /// Half of the requests took no longer.
    pub p50: Duration,
    /// 99 of 100 requests took no longer.
    pub p99: Duration,
}

/// Runs a client for some seconds against a port of a candidate.
pub fn run(workload: &Workload, port: u16, seconds: u64, scripts: &Path, folder: &Path) -> Result<Seen> {
    let scheme = workload.scheme.as_str();
    let url = format!("{scheme}://localhost:{port}{}", workload.path);
    match workload.client {
        Client::Wrk { connections, close } => {
            let mut wrk = Command::new("wrk");
            wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
            wrk.arg("-s").arg(scripts.join("wrk.lua"));
            if close {
                wrk.args(["-H", "Connection: close"]);
            }
            read_wrk(&output(wrk.arg(url))?)
        }
        Client::H2load { connections, streams } => {
            let log = folder.join("h2load.log");
            // It only ever appends.
            let _ = std::fs::remove_file(&log);
            let mut h2load = Command::new("h2load");
            h2load.args(["-t1", &format!("-c{connections}"), &format!("-m{streams}"), &format!("-D{seconds}")]);
            h2load.arg(format!("--connect-to=127.0.0.1:{port}")).arg("--log-file").arg(&log);
            let printed = output(h2load.arg(url))?;
            let log = std::fs::read_to_string(&log).context("read h2load's log")?;
            read_h2load(&printed, &log)
        }
    }
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} ended with {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// Reads the line that `bench/wrk.lua` prints: requests, duration, failed, p50, p99; times in microseconds.
fn read_wrk(printed: &str) -> Result<Seen> {
    let line = printed.lines().find_map(|line| line.strip_prefix("figures "));
    let figures: Vec<u64> = line.iter().flat_map(|line| line.split(' ')).filter_map(|part| part.parse().ok()).collect();
    let [requests, duration, failed, p50, p99] = figures[..] else { bail!("wrk printed no figures:\n{printed}") };
    if failed > 0 || requests == 0 {
        bail!("{failed} failed and {requests} answered requests:\n{printed}");
    }
    let [duration, p50, p99] = [duration, p50, p99].map(Duration::from_micros);
    Ok(Seen { requests, duration, p50, p99 })
}

/// Reads h2load's summary, and its log for the latencies: start, status, microseconds.
fn read_h2load(printed: &str, log: &str) -> Result<Seen> {
    let summary = printed.lines().find_map(|line| line.strip_prefix("requests: ")).context("h2load counted nothing")?;
    let count = |what: &str| {
        let part = summary.split(", ").find_map(|part| part.strip_suffix(what));
        part.and_then(|number| number.trim().parse::<u64>().ok()).with_context(|| format!("h2load counted no{what}"))
    };
    let failed = count(" failed")? + count(" errored")? + count(" timeout")?;
    let finished =
        printed.lines().find_map(|line| line.strip_prefix("finished in ")).context("h2load did not finish")?;
    let duration = duration(finished.split(',').next().unwrap_or_default())?;
    let mut times = Vec::new();
    for line in log.lines() {
        let mut columns = line.split('\t');
        let (_, status, time) = (columns.next(), columns.next(), columns.next());
        if status != Some("200") {
            bail!("an answer with status {}", status.unwrap_or("unknown"));
        }
        times.push(time.and_then(|time| time.parse().ok()).context("h2load's log has no times")?);
    }
    let requests = count(" done")?;
    if failed > 0 || requests == 0 || times.is_empty() {
        bail!("{failed} failed and {requests} answered requests:\n{printed}");
    }
    times.sort_unstable();
    let at = |percent: usize| Duration::from_micros(times[(times.len() - 1) * percent / 100]);
    Ok(Seen { requests, duration, p50: at(50), p99: at(99) })
}

/// A time as h2load prints it: `3.00s`, `812.4ms`, `95us`.
fn duration(text: &str) -> Result<Duration> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)].into_iter();
    let mut matching = units.filter_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    let seconds = matching.next().with_context(|| format!("`{text}` is no time"))?;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("`{text}` is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn wrk_is_read() {
        let printed = "Running 3s test\n  2 threads\nfigures 1000 3000000 0 900 4000\n";
        let seen = Seen { requests: 1000, duration: MICRO(3_000_000), p50: MICRO(900), p99: MICRO(4000) };
        assert_eq!(read_wrk(printed).unwrap(), seen);
    }

    #[test]
    fn a_failed_request_is_no_figure() {
        assert!(read_wrk("figures 1000 3000000 1 900 4000\n").is_err());
        assert!(read_wrk("figures 0 3000000 0 0 0\n").is_err());
        assert!(read_wrk("unable to connect\n").is_err());
    }

    const SUMMARY: &str = "\nfinished in 3.00s, 1.00 req/s, 1.0KB/s\n\
        requests: 3 total, 5 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout\n";

    #[test]
    fn h2load_is_read() {
        let seen = Seen { requests: 3, duration: MICRO(3_000_000), p50: MICRO(20), p99: MICRO(20) };
        assert_eq!(read_h2load(SUMMARY, "1\t200\t20\n2\t200\t10\n3\t200\t30\n").unwrap(), seen);
    }

    #[test]
    fn an_answer_of_another_status_is_no_figure() {
        let error = read_h2load(SUMMARY, "1\t200\t20\n2\t503\t10\n").unwrap_err();
        assert_eq!(error.to_string(), "an answer with status 503");
        assert!(read_h2load(&SUMMARY.replace("0 errored", "1 errored"), "1\t200\t20\n").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("812.4ms").unwrap(), MICRO(812_400));
        assert!(duration("3 s").is_err() && duration("-1s").is_err());
    }
}
