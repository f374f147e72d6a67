//! Clients that were not written here.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that a test needs, or a package of Python's.
#[derive(Clone, Copy)]
pub enum Tool {
    /// By its name.
    Program(&'static str),
    /// By the name that is imported.
    Python(&'static str),
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

/// Whether a test can run. If not it says so, and fails where all tools are required.
pub fn has(test: &str, tools: &[Tool]) -> bool {
    let missing: Vec<String> = tools.iter().filter_map(Tool::missing).collect();
    if missing.is_empty() {
        return true;
    }
    let why = missing.join(", ");
    assert!(std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_none_or(|value| value != "1"), "{test}: there is {why}");
    println!("SKIPPED: outside::{test}: there is {why}");
    false
}

impl Tool {
    fn missing(&self) -> Option<String> {
        let status = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
        };
        match self {
            // What it makes of the option is its own affair.
            Self::Program(name) => status(name, &["-h"]).is_err().then(|| format!("no program `{name}`")),
            Self::Python(package) => {
                let imported = status("python3", &["-c", &format!("import {package}")]);
                (!imported.is_ok_and(|status| status.success())).then(|| format!("no Python package `{package}`"))
            }
        }
    }
}

/// A script of this folder.
pub fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/outside").join(name).display().to_string()
}

/// Runs a program; it is killed at the limit.
#[track_caller]
pub fn run(limit: Duration, program: &str, arguments: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {program}: {error}"));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_out = std::thread::spawn(move || text(&mut out));
    let read_err = std::thread::spawn(move || text(&mut err));
    let deadline = Instant::now() + limit;
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(5)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
        }
    };
    Said { code, out: read_out.join().unwrap(), err: read_err.join().unwrap() }
}

fn text(from: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What was read before a fault still says something.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
