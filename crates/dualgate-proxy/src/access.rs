//! The access log: one line a request, written by a thread of its own.
//!
//! A worker never waits for the disk: lines go through a bounded queue, and what does not fit is lost and counted.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dualgate_core::model::site::{AccessLog, AccessLogFormat, EntryProtocol};
use dualgate_core::route::Route;
use dualgate_http::HeadView;

use crate::forward::Outcome;
use crate::headers::Peer;
use crate::listener::ListenerState;

/// Lines that wait for the disk.
const QUEUE: usize = 8192;
/// How often the writer looks whether its file was moved away.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of a request while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    started: Instant,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub version: &'static str,
    /// Octets of the answer's body.
    pub bytes_out: u64,
}

impl Record {
    /// Of a request that begins now.
    pub fn begin(version: &'static str) -> Self {
        Self { started: Instant::now(), version, bytes_out: 0 }
    }

    /// Since the request began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// All that a line says.
#[derive(Debug)]
pub struct Line<'a, H> {
    /// Whose request.
    pub peer: &'a Peer,
    /// Where it came in.
    pub listener: &'a ListenerState,
    /// What it asked.
    pub head: &'a H,
    /// Version and size.
    pub record: &'a Record,
    /// How long it took.
    pub duration: Duration,
    /// The route that served it.
    pub route: Option<&'a Route>,
    /// How it ended.
    pub outcome: &'a Outcome,
}

/// The worker's end of the log.
#[derive(Clone, Debug)]
pub struct LogSender {
    format: AccessLogFormat,
    lines: SyncSender<String>,
}

impl LogSender {
    /// Writes a line; `false` if it was lost.
    pub fn write(&self, line: &Line<'_, impl HeadView>) -> bool {
        let text = match self.format {
            AccessLogFormat::Json => json(line, SystemTime::now()),
            AccessLogFormat::Common => common(line, SystemTime::now()),
        };
        self.lines.try_send(text).is_ok()
    }
}

/// Opens the log and starts its writer, which ends when every sender is gone.
pub fn open(log: &AccessLog) -> io::Result<LogSender> {
    let (lines, queue) = sync_channel(QUEUE);
    let target = Target::open(&log.path)?;
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || run(target, &queue))?;
    Ok(LogSender { format: log.format, lines })
}

enum Target {
    Stdout,
    File { path: String, file: BufWriter<File> },
}

impl Target {
    fn open(path: &str) -> io::Result<Self> {
        if path == "-" {
            return Ok(Self::Stdout);
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::File { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Self::File { file, .. } => file.write_all(line.as_bytes()),
        }
    }

    /// Writes out what is held back, and opens the file anew if it was moved away.
    fn rest(&mut self) -> io::Result<()> {
        let Self::File { path, file } = self else { return Ok(()) };
        file.flush()?;
        if !std::path::Path::new(path).exists() {
            let path = std::mem::take(path);
            *self = Self::open(&path).inspect_err(|error| tracing::warn!(path, %error, "open the access log"))?;
        }
        Ok(())
    }
}

fn run(mut target: Target, queue: &Receiver<String>) {
    let mut complained = false;
    let mut complain = |outcome: io::Result<()>| match outcome {
        Ok(()) => complained = false,
        Err(error) if !complained => {
            complained = true;
            tracing::warn!(%error, "the access log cannot be written");
        }
        Err(_) => {}
    };
    loop {
        let line = match queue.try_recv() {
            Ok(line) => Ok(line),
            Err(_) => {
                complain(target.rest());
                queue.recv_timeout(LOOK)
            }
        };
        match line {
            Ok(line) => complain(target.write(&line)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return complain(target.rest()),
        }
    }
}

fn json(line: &Line<'_, impl HeadView>, now: SystemTime) -> String {
    let Line { peer, listener, head, record, duration, route, outcome } = line;
    let mut out = String::with_capacity(512);
    let mut text = |name: &str, value: &str| {
        out.push(if out.is_empty() { '{' } else { ',' });
        let _ = write!(out, "\"{name}\":\"");
        escape(value, &mut out);
        out.push('"');
    };
    text("time", &rfc3339(now));
    text("client", &peer.address.ip().to_canonical().to_string());
    text("gate", listener.id.gate.as_str());
    text("entryPoint", listener.id.entry_point.as_str());
    text("scheme", scheme(peer));
    text("protocol", record.version);
    text("method", head.method());
    text("host", &String::from_utf8_lossy(head.authority()));
    text("path", &String::from_utf8_lossy(head.path_and_query()));
    if let Some(route) = route {
        text("ingress", &route.origin.ingress.to_string());
        text("service", &route.origin.service);
    }
    if let Some(server) = &outcome.server {
        text("server", server);
    }
    if let Some(trouble) = outcome.trouble {
        text("trouble", trouble);
    }
    for (name, field) in [("userAgent", "user-agent"), ("referer", "referer")] {
        if let Some(value) = head.field(field) {
            text(name, &String::from_utf8_lossy(value));
        }
    }
    let _ = writeln!(
        out,
        ",\"status\":{},\"bytesIn\":{},\"bytesOut\":{},\"durationMs\":{:.3},\"retries\":{},\"aborted\":{}}}",
        outcome.status,
        outcome.bytes_in,
        record.bytes_out,
        duration.as_secs_f64() * 1e3,
        outcome.retries,
        outcome.aborted
    );
    out
}

fn common(line: &Line<'_, impl HeadView>, now: SystemTime) -> String {
    let Line { peer, head, record, duration, outcome, .. } = line;
    let mut out = String::with_capacity(256);
    let _ = write!(out, "{} - - [{}] \"{} ", peer.address.ip().to_canonical(), clf_time(now), head.method());
    escape(&String::from_utf8_lossy(head.path_and_query()), &mut out);
    let _ = write!(out, " {}\" {} {}", record.version, outcome.status, record.bytes_out);
    for field in ["referer", "user-agent"] {
        out.push_str(" \"");
        escape(&head.field(field).map_or("-".into(), String::from_utf8_lossy), &mut out);
        out.push('"');
    }
    let _ = writeln!(out, " {:.3}", duration.as_secs_f64());
    out
}

fn scheme(peer: &Peer) -> &'static str {
    match peer.protocol {
        EntryProtocol::Http => "http",
        EntryProtocol::Https => "https",
    }
}

/// As JSON wants it; also keeps a line of the common format one line.
fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => drop(write!(out, "\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
}

/// Year, month, day, hour, minute, second.
fn civil(now: SystemTime) -> (i64, usize, u64, u64, u64, u64) {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The proleptic Gregorian calendar, counted in years that begin in March.
    let z = days as i64 + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u64;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day, rest / 3600, rest / 60 % 60, rest % 60)
}

fn rfc3339(now: SystemTime) -> String {
    let (year, month, day, hour, minute, second) = civil(now);
    let millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn clf_time(now: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = civil(now);
    format!("{day:02}/{}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000", MONTHS[(month - 1) % 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_both_forms() {
        let leap_day = UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        assert_eq!(rfc3339(leap_day), "2024-02-29T12:34:56.789Z");
        assert_eq!(clf_time(leap_day), "29/Feb/2024:12:34:56 +0000");
    }

    #[test]
    fn what_a_client_sends_cannot_end_a_line() {
        let mut out = String::new();
        escape("a\"b\\c\nd\u{1b}", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\u000ad\\u001b");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = std::env::temp_dir().join(format!("dualgate-access-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("access.log").to_string_lossy().into_owned();
        let mut target = Target::open(&path).unwrap();
        target.write("one\n").unwrap();
        target.rest().unwrap();
        std::fs::rename(&path, format!("{path}.1")).unwrap();
        target.rest().unwrap();
        target.write("two\n").unwrap();
        target.rest().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(format!("{path}.1")).unwrap(), "one\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
