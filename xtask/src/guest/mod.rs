//! `cargo xtask guest`: the tests that ask much of a kernel, in one of Debian 12.
//!
//! The kernel of the machine that builds may have no WireGuard, and may have features that older ones lack. So the test
//! files run once more as the only programs of an emulated machine: qemu without KVM, which needs no privilege, with
//! Debian's kernel, the modules it needs and what the files are linked to. The machine has no disk and no network.

mod archive;
pub mod init;
mod kernel;
mod machine;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::breach::Breach;
use crate::workspace::Workspace;
use archive::Archive;
use kernel::Kernel;
use machine::Verdict;

/// So often the machine is started at most: what gets stuck each time is not the emulation's.
const ATTEMPTS: usize = 3;

const USAGE: &str = "\
Run test files in an emulated machine with the kernel of Debian 12.

Usage: cargo xtask guest [--test FILTER]... [--seconds N]

Options:
  --test FILTER  Only tests whose names hold one of these
  --seconds N    End the machine after so long [default: 400]

It needs Debian's qemu-system-x86 and takes the kernel's package from apt once, into target/guest. What it lacks is said, and
then it passes; with DUALGATE_REQUIRE_TOOLS=1 it fails.
";

/// A test file that runs in there.
struct File {
    package: &'static str,
    name: &'static str,
    /// How it is called when all its tests are to run: without those that ask nothing of a kernel, as all takes long there.
    arguments: &'static str,
}

const FILES: [File; 3] = [
    File {
        package: "dualgate-tunnel",
        name: "tunnel",
        arguments: "--test-threads=4 --skip through_a_cable --skip through_a_tun_device --skip the_socket --skip wireguard_go",
    },
    File { package: "dualgate-host", name: "netfilter", arguments: "" },
    File { package: "dualgate-host", name: "firewall", arguments: "" },
];
/// Programs that tests use where they are installed.
const PROGRAMS: [&str; 2] = ["nft", "wg"];

struct Options {
    filters: Vec<String>,
    limit: Duration,
}

impl Options {
    fn read(arguments: &[&str]) -> Result<Option<Self>> {
        let mut read = Self { filters: Vec::new(), limit: Duration::from_secs(400) };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("`{name}` lacks its value"));
            match *name {
                "-h" | "--help" => return Ok(None),
                "--test" => read.filters.push((*value()?).to_owned()),
                "--seconds" => {
                    let seconds = value()?;
                    let number = seconds.parse().with_context(|| format!("`{seconds}` is no number of seconds"))?;
                    read.limit = Duration::from_secs(number);
                }
                name => bail!("there is no option `{name}`\n\n{USAGE}"),
            }
        }
        if let Some(odd) = read.filters.iter().find(|filter| filter.contains(char::is_whitespace)) {
            bail!("`{odd}`: a filter is a part of a test's name");
        }
        Ok(Some(read))
    }
}

/// Runs the tests; a breach is what failed.
pub fn run(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<Breach>> {
    let Some(options) = Options::read(arguments)? else {
        print!("{USAGE}");
        return Ok(Vec::new());
    };
    let folder = workspace.target.join("guest");
    std::fs::create_dir_all(&folder).with_context(|| format!("make `{}`", folder.display()))?;
    let found = machine::is_there().and_then(|()| Kernel::find(&folder));
    let kernel = match found {
        Ok(kernel) => kernel,
        Err(why) if std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1") => return Err(why),
        Err(why) => {
            eprintln!("SKIPPED: guest: {why:#}");
            return Ok(Vec::new());
        }
    };
    let initrd = folder.join("initrd");
    pack(workspace, &kernel, &folder, &options.filters)?.write(&initrd)?;
    println!("guest: Linux {}", kernel.release);
    let once = || machine::run(&kernel.image, &initrd, &folder.join("verdict"), options.limit);
    let mut verdict = once()?;
    for _ in 1..ATTEMPTS {
        if verdict != Verdict::Stuck {
            break;
        }
        println!("guest: a processor of it is stuck; it is started again");
        verdict = once()?;
    }
    let broken = |message: String, help| vec![Breach::new("guest", "target/guest", 0, message, help)];
    Ok(match verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Failed(files) => broken(
            format!("tests failed with the kernel {}: {}", kernel.release, files.join(", ")),
            "what they printed is above; `cargo xtask guest --test NAME` runs one",
        ),
        Verdict::Late => broken(
            format!("the guest was ended after {} s", options.limit.as_secs()),
            "a test waits for ever, or this machine is slow: `--seconds` gives it more",
        ),
        Verdict::Stuck => broken(
            format!("a processor of the guest was stuck, {ATTEMPTS} times"),
            "the test after the last one that is printed hangs in the kernel",
        ),
        Verdict::Died => broken("the guest ended without a verdict".to_owned(), "its last words are above"),
    })
}

/// What the machine finds when it starts: this program as its first process, modules, the test files, and their libraries.
fn pack(workspace: &Workspace, kernel: &Kernel, folder: &Path, filters: &[String]) -> Result<Archive> {
    let mut archive = Archive::default();
    for path in ["proc", "sys", "dev", "tmp", "run", "var", "root", "etc"] {
        archive.directory(path);
    }
    for (number, module) in kernel.modules(init::MODULES)?.iter().enumerate() {
        archive.file(&format!("{}/{number:02}.ko", init::MODULE_FOLDER), module);
    }
    let itself = std::env::current_exe().context("find this program")?;
    let mut programs = vec![(itself, "init".to_owned())];
    for (file, executable) in FILES.iter().zip(test_files(workspace)?) {
        programs.push((executable, format!("{}/{}", init::TEST_FOLDER, file.name)));
    }
    let plan = folder.join("plan");
    std::fs::write(&plan, lines(filters)).with_context(|| format!("write `{}`", plan.display()))?;
    archive.file(init::PLAN, &plan);
    programs.extend(PROGRAMS.iter().filter_map(|name| {
        let path = machine::find(name)?;
        let place = path.to_string_lossy().trim_start_matches('/').to_owned();
        Some((path, place))
    }));
    for (program, place) in &programs {
        archive.file(place, &stripped(program, &folder.join(place.replace('/', "_"))));
    }
    for library in libraries(programs.iter().map(|(program, _)| program.as_path()))? {
        archive.file(library.to_string_lossy().trim_start_matches('/'), &library);
    }
    Ok(archive)
}

/// The plan of the first process.
fn lines(filters: &[String]) -> String {
    let arguments = |file: &File| if filters.is_empty() { file.arguments.to_owned() } else { filters.join(" ") };
    FILES.iter().map(|file| format!("{} {}\n", file.name, arguments(file))).collect()
}

/// Builds the test files, and says where they are.
fn test_files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut arguments = vec!["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"];
    let mut packages: Vec<&str> = FILES.iter().map(|file| file.package).collect();
    packages.dedup();
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    arguments.extend(FILES.iter().flat_map(|file| ["--test", file.name]));
    let told = workspace.cargo(&arguments)?;
    let messages: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let executable = |file: &File| {
        let built = messages.iter().find(|message| {
            let target = &message["target"];
            target["name"] == file.name && target["kind"][0] == "test" && message["executable"].is_string()
        });
        built.and_then(|message| Some(message["executable"].as_str()?.into()))
    };
    FILES.iter().map(executable).collect::<Option<_>>().context("cargo does not say where it built the test files")
}

/// Without what only a debugger reads, which is most of it; as it is where there is no `strip`.
fn stripped(program: &Path, small: &Path) -> PathBuf {
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(small).arg(program).status();
    if status.is_ok_and(|status| status.success()) { small } else { program }.to_owned()
}

/// The loader and the libraries that programs name, each where it is looked for.
fn libraries<'a>(programs: impl Iterator<Item = &'a Path>) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").args(programs).output().context("start ldd")?;
    let text = String::from_utf8_lossy(&told.stdout);
    let mut paths: Vec<PathBuf> = text.lines().filter_map(library).map(PathBuf::from).collect();
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        bail!("ldd names no library: {}", String::from_utf8_lossy(&told.stderr).trim());
    }
    Ok(paths)
}

/// The path in a line of ldd: `libc.so.6 => /lib/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library(line: &str) -> Option<&str> {
    let named = line.split_once("=>").map_or(line, |(_, path)| path).trim();
    named.split_once(" (0x").map(|(path, _)| path).filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_in_two_ways() {
        assert_eq!(
            library("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2"));
        for nothing in ["\tlinux-vdso.so.1 (0x00007f)", "/tests/tunnel:", "\tlibx.so => not found"] {
            assert_eq!(library(nothing), None);
        }
    }
}
