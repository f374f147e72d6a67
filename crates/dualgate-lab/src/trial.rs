//! Tests that need a machine of their own: each runs as the first process of namespaces made for it, several at a time.
//!
//! A test file with `harness = false` hands its trials to [`main`]. What it prints and which arguments it takes is as in
//! any other test file: `cargo test --test lab -- NAME --show-output`.

use std::io::Read as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::init::{self, InitError};

/// A test: it gets the directory for the lab's files, and panics if something is not as it should be.
pub type Trial = (&'static str, fn(&Path));

/// Which trial a process is to run, in the process that enters namespaces and in the first process in there.
const ENTER: &str = "DUALGATE_TRIAL_ENTER";
const RUN: &str = "DUALGATE_TRIAL_RUN";
/// The exit code of a process that may not make namespaces.
const FORBIDDEN: u8 = 77;
/// No trial takes longer.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(10);

/// Runs the trials that the arguments ask for.
pub fn main(file: &str, trials: &[Trial]) -> ExitCode {
    if let Ok(name) = std::env::var(RUN) {
        return run(trials, &name);
    }
    if std::env::var_os(ENTER).is_some() {
        return enter();
    }
    let arguments = Arguments::read();
    let chosen: Vec<&Trial> = trials.iter().filter(|(name, _)| arguments.chooses(name)).collect();
    if arguments.list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests in namespaces of their own", chosen.len());
    let skipped = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1).min(chosen.len()) {
            scope.spawn(|| {
                while let Some((name, _)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match supervise(file, name, &arguments) {
                        Outcome::Passed => {}
                        Outcome::Skipped => drop(skipped.fetch_add(1, Ordering::Relaxed)),
                        Outcome::Failed(why) => {
                            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*name, why));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (name, output) in &failed {
        println!("\n---- {name} ----\n{output}");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let skipped = skipped.into_inner();
    let passed = chosen.len() - failed.len() - skipped;
    println!("\ntest result: {verdict}. {passed} passed; {} failed; {skipped} skipped\n", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

struct Arguments {
    names: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    show_output: bool,
    threads: usize,
}

impl Arguments {
    fn read() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Most of a trial is waiting.
        let mut read = Self {
            names: Vec::new(),
            skip: Vec::new(),
            exact: false,
            list: false,
            show_output: false,
            threads: cores.clamp(1, 4),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => read.exact = true,
                "--list" => read.list = true,
                "--show-output" | "--nocapture" => read.show_output = true,
                "--skip" => read.skip.extend(arguments.next()),
                "--test-threads" => read.threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1),
                other => match other.strip_prefix("--test-threads=") {
                    Some(number) => read.threads = number.parse().unwrap_or(1),
                    None if other.starts_with('-') => {}
                    None => read.names.push(other.to_owned()),
                },
            }
        }
        read
    }

    fn chooses(&self, name: &str) -> bool {
        let is_meant = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.names.is_empty() || self.names.iter().any(is_meant)) && !self.skip.iter().any(is_meant)
    }
}

/// How a trial ended.
enum Outcome {
    Passed,
    Skipped,
    /// With what it printed.
    Failed(String),
}

/// Runs one trial in a process of its own.
fn supervise(file: &str, name: &str, arguments: &Arguments) -> Outcome {
    let started = Instant::now();
    let (code, output) = match start(name) {
        Ok(child) => wait(child),
        Err(error) => (None, format!("start the trial: {error}")),
    };
    let (word, failed) = match code {
        Some(0) => ("ok", false),
        Some(code) if code == i32::from(FORBIDDEN) => {
            eprintln!("SKIPPED: {file}::{name}: {}", output.trim());
            return Outcome::Skipped;
        }
        Some(_) | None => ("FAILED", true),
    };
    println!("test {name} ... {word} ({:.1} s)", started.elapsed().as_secs_f32());
    if arguments.show_output && !failed && !output.is_empty() {
        println!("---- {name} ----\n{output}");
    }
    match (failed, started.elapsed() >= PATIENCE) {
        (false, _) => Outcome::Passed,
        (true, false) => Outcome::Failed(output),
        (true, true) => Outcome::Failed(format!("{output}\nit was ended after {} s", PATIENCE.as_secs())),
    }
}

fn start(name: &str) -> std::io::Result<Child> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ENTER, name).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    drop(command);
    // What is read from is kept where the child's own pipe would be.
    child.stdout = Some(std::process::ChildStdout::from(std::os::fd::OwnedFd::from(reader)));
    Ok(child)
}

/// Its exit code and what it printed.
fn wait(mut child: Child) -> (Option<i32>, String) {
    let mut output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until an error is shown as well.
        let _ = output.as_mut().map(|output| output.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code(),
            Ok(None) if Instant::now() < deadline => std::thread::park_timeout(LOOK),
            Ok(None) | Err(_) => {
                // Its namespaces, and all in them, end with it.
                let _ = child.kill();
                break child.wait().ok().and_then(|status| status.code());
            }
        }
    };
    (status, reader.join().unwrap_or_default())
}

/// The process in between: it enters namespaces and waits for the first process in there.
fn enter() -> ExitCode {
    let name = std::env::var(ENTER).unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    // Killed with the process that waits for it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    match init::start(Command::new(program).env_remove(ENTER).env(RUN, name)) {
        Ok(mut child) => {
            let code = child.wait().ok().and_then(|status| status.code());
            code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(InitError::Namespace(error @ dualgate_host::namespace::NamespaceError::Forbidden { .. })) => {
            println!("{error}");
            ExitCode::from(FORBIDDEN)
        }
        Err(error) => {
            println!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(trials: &[Trial], name: &str) -> ExitCode {
    let directory = match init::settle() {
        Ok(directory) => directory,
        Err(error) => {
            println!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let Some((_, trial)) = trials.iter().find(|(known, _)| *known == name) else { return ExitCode::FAILURE };
    match catch_unwind(|| trial(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(101),
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
