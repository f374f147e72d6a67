//! The emulated machine.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::init;

const QEMU: &str = "qemu-system-x86_64";
/// What its kernel says of a processor that has been in one place of the kernel for long.
const STUCK: &str = "watchdog: BUG: soft lockup";

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All tests passed.
    Passed,
    /// Those of these files did not.
    Failed(Vec<String>),
    /// It took too long.
    Late,
    /// One of its processors does nothing any more: emulated ones do that now and then.
    Stuck,
    /// It ended in between.
    Died,
}

/// Whether there is one to be had here; if not, why.
pub fn is_there() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guest is an x86_64 machine, this is {}", std::env::consts::ARCH);
    }
    find(QEMU).map(drop).with_context(|| format!("{QEMU} is not installed (Debian: qemu-system-x86)"))
}

/// Where a program is, also one for administrators.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Starts the machine and shows what it prints, until it ends.
pub fn run(image: &Path, initrd: &Path, told: &Path, limit: Duration) -> Result<Verdict> {
    // It is written by the machine's second serial port.
    std::fs::write(told, "").with_context(|| format!("write `{}`", told.display()))?;
    let mut serial = std::ffi::OsString::from("file:");
    serial.push(told);
    let mut command = Command::new(QEMU);
    command
        .args(["-machine", "pc,accel=tcg", "-cpu", "qemu64", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
        .args([OsStr::new("-kernel"), image.as_os_str(), OsStr::new("-initrd"), initrd.as_os_str()])
        .args(["-append", &command_line(), "-serial", "stdio", "-serial"])
        .arg(serial)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {QEMU}"))?;
    let output = child.stdout.take().context("its output")?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("its process")?;
    let (ended, end) = sync_channel::<()>(1);
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if late {
            // It has not been waited for, so the number is its own.
            let _ = kill_process(pid, Signal::KILL);
        }
        late
    });
    let shown = show(output);
    if shown.as_ref().is_ok_and(|shown| *shown == Shown::Stuck) {
        // It is waited for below.
        let _ = kill_process(pid, Signal::KILL);
    }
    drop(ended);
    let late = watch.join().unwrap_or(false);
    let status = child.wait().with_context(|| format!("wait for {QEMU}"))?;
    if shown.context("show what the guest prints")? == Shown::Stuck {
        return Ok(Verdict::Stuck);
    }
    if late {
        return Ok(Verdict::Late);
    }
    if !status.success() {
        bail!("{QEMU}: {status}");
    }
    let told = std::fs::read_to_string(told).with_context(|| format!("read `{}`", told.display()))?;
    Ok(verdict(&told))
}

/// The kernel's arguments. What it does not know it hands to its first process: variables, and what follows `--`.
fn command_line() -> String {
    let mut line = "console=ttyS0 quiet panic=-1 HOME=/root RUST_BACKTRACE=1 DUALGATE_GUEST=1".to_owned();
    if let Ok(value) = std::env::var("DUALGATE_REQUIRE_TOOLS") {
        line += &format!(" DUALGATE_REQUIRE_TOOLS={value}");
    }
    line + " -- " + init::COMMAND
}

/// Until when the machine was listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Until it ended.
    Whole,
    /// Until it was stuck.
    Stuck,
}

/// Line by line, as they come.
fn show(output: impl Read) -> std::io::Result<Shown> {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches(['\r', '\n']))?;
        out.flush()?;
        if text.contains(STUCK) {
            return Ok(Shown::Stuck);
        }
        line.clear();
    }
    Ok(Shown::Whole)
}

/// What the first process told at the end: a line for each file that failed, then that it was the end.
fn verdict(told: &str) -> Verdict {
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    match &lines[..] {
        [init::END] => Verdict::Passed,
        [files @ .., init::END] => Verdict::Failed(files.iter().map(|file| (*file).to_owned()).collect()),
        _ => Verdict::Died,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_stuck_when_its_kernel_says_so() {
        let stuck = "test one ... ok\r\n[  184.8] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [firewall:468]\r\n";
        assert_eq!(show(stuck.as_bytes()).unwrap(), Shown::Stuck);
        assert_eq!(show(&b"test one ... ok\r\n"[..]).unwrap(), Shown::Whole);
    }

    #[test]
    fn only_an_end_without_failures_is_a_pass() {
        assert_eq!(verdict("end\r\n"), Verdict::Passed);
        assert_eq!(verdict("tunnel\r\nend\r\n"), Verdict::Failed(vec!["tunnel".to_owned()]));
        assert_eq!(verdict("tunnel\r\n"), Verdict::Died);
        assert_eq!(verdict(""), Verdict::Died);
    }
}
