//! The first process of the guest: loads modules, runs the test files one after the other, tells how they ended, and
//! switches the machine off.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::getpid;
use rustix::system::{RebootCommand, finit_module, reboot};

/// What xtask is called with in there.
pub const COMMAND: &str = "guest-init";
/// The last line that is told.
pub const END: &str = "end";
/// Modules, in the order of their names.
pub const MODULE_FOLDER: &str = "guest/modules";
/// Test files by their names.
pub const TEST_FOLDER: &str = "guest/tests";
/// The test files in their order: a line each, its name and its arguments.
pub const PLAN: &str = "guest/plan";
/// What tests need of the kernel; `*` stands for the rest of a name. Debian builds it as modules, and nobody in there could
/// load them later.
pub const MODULES: &[&str] = &["wireguard", "tun", "veth", "bridge", "nf_tables", "nft_*"];

/// Runs the guest. It never comes back to a kernel that goes on.
pub fn run() -> Result<()> {
    anyhow::ensure!(getpid().is_init(), "`{COMMAND}` is what runs in the guest of `cargo xtask guest`");
    let outcome = tests().and_then(|failed| tell(&failed));
    if let Err(error) = &outcome {
        // On the console; without a verdict the guest has failed.
        println!("guest: {error:#}");
    }
    reboot(RebootCommand::PowerOff).context("switch the machine off")
}

/// Runs the test files; which of them failed.
fn tests() -> Result<Vec<String>> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        mount(kind, target, kind, MountFlags::empty(), None).with_context(|| format!("mount {target}"))?;
    }
    // Where programs look for sockets of WireGuard.
    symlink("/run", "/var/run").context("make /var/run")?;
    for module in entries(MODULE_FOLDER)? {
        let file = File::open(&module).with_context(|| format!("open {}", module.display()))?;
        finit_module(&file, c"", 0).with_context(|| format!("load {}", module.display()))?;
    }
    let plan = std::fs::read_to_string(Path::new("/").join(PLAN)).context("read the plan")?;
    let mut failed = Vec::new();
    for line in plan.lines() {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let started = Instant::now();
        let mut command = Command::new(Path::new("/").join(TEST_FOLDER).join(name));
        command.args(arguments.split_whitespace()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let status = command.status().with_context(|| format!("start {name}"))?;
        println!("guest: {name}: {status} after {:.0} s\n", started.elapsed().as_secs_f32());
        if !status.success() {
            failed.push(name.to_owned());
        }
    }
    Ok(failed)
}

/// The files of a folder, by name.
fn entries(folder: &str) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(Path::new("/").join(folder))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    };
    read().with_context(|| format!("read /{folder}"))
}

/// By the second serial port, which nothing else writes to.
fn tell(failed: &[String]) -> Result<()> {
    let tell = || -> std::io::Result<()> {
        let mut port = File::options().write(true).open("/dev/ttyS1")?;
        for name in failed {
            writeln!(port, "{name}")?;
        }
        writeln!(port, "{END}")?;
        Ok(rustix::termios::tcdrain(&port)?)
    };
    tell().context("tell how the tests ended")
}
