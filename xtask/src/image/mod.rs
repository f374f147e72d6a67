//! `cargo xtask image`: the container image, without any container engine.
//!
//! One static program and nothing else: no shell, no library, no file of a distribution. The archive is the same octets
//! for the same program, whoever makes it and when.

mod archive;
mod oci;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use dualgate_core::render::elf;

use crate::breach::Breach;
use crate::workspace::Workspace;

const USAGE: &str = "\
Make the container image as an OCI archive, without a container engine.

Usage: cargo xtask image [--binary FILE] [--name REFERENCE] [--output FILE]

Options:
  --binary FILE     Pack this program, which must be static; without it, one is built (profile `dist`, takes minutes)
  --name REFERENCE  What the image is called [default: localhost/dualgate:VERSION]
  --output FILE     The archive [default: target/image/dualgate-VERSION-ARCHITECTURE.tar]

`deploy/README.md` says how it comes to the nodes.
";

/// What an image may have, in octets.
const LIMIT: usize = 25_000_000;

#[derive(Default)]
struct Options {
    binary: Option<PathBuf>,
    name: Option<String>,
    output: Option<PathBuf>,
}

/// Makes the image; an image that is too large is a breach.
pub fn run(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<Breach>> {
    let Some(options) = options(arguments)? else {
        print!("{USAGE}");
        return Ok(Vec::new());
    };
    let version = env!("CARGO_PKG_VERSION");
    let binary = match options.binary {
        Some(binary) => binary,
        None => build(workspace)?,
    };
    let program = std::fs::read(&binary).with_context(|| format!("read `{}`", binary.display()))?;
    let architecture =
        architecture(&program).with_context(|| format!("use `{}` as the image's program", binary.display()))?;
    let name = options.name.unwrap_or_else(|| format!("localhost/dualgate:{version}"));
    let image = oci::image(&program, &oci::Labels { name: &name, version, architecture })?;
    let file = format!("dualgate-{version}-{architecture}.tar");
    let output = options.output.unwrap_or_else(|| workspace.root.join("target/image").join(file));
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder `{}`", folder.display()))?;
    }
    std::fs::write(&output, &image.archive).with_context(|| format!("write `{}`", output.display()))?;
    println!("{} {} in {}", name, image.digest, output.display());
    println!("program {} octets, archive {} octets", program.len(), image.archive.len());
    Ok(too_large(image.archive.len()))
}

/// What a program runs on, in the words of images; an error if it needs anything that the image does not have.
fn architecture(program: &[u8]) -> Result<&'static str> {
    let program = elf::program(program)?;
    ensure!(
        program.loader.is_none() && program.libraries.is_empty(),
        "it is not static: it asks for a loader or libraries, which the image does not have"
    );
    match program.machine.as_str() {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("it is for {other}; images are made for x86-64 and AArch64"),
    }
}

fn too_large(size: usize) -> Vec<Breach> {
    let message = format!("the image has {size} octets; {LIMIT} are allowed");
    let help = "look at what was added (`cargo tree -p dualgate`), or at the profile `dist`";
    let breach = (size > LIMIT).then(|| Breach::new("image", "deploy/Containerfile", 1, message, help));
    breach.into_iter().collect()
}

fn options(arguments: &[&str]) -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("`{argument}` needs a value\n\n{USAGE}"));
        match *argument {
            "--help" | "-h" => return Ok(None),
            "--binary" => options.binary = Some(value()?.into()),
            "--name" => options.name = Some((*value()?).to_owned()),
            "--output" => options.output = Some(value()?.into()),
            other => bail!("cannot use `{other}`\n\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

/// Builds it for this machine's kind: static, and without the paths of this machine.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let target = host()?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    flags.extend(cargo_home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags.push(format!("--remap-path-prefix={}=dualgate", workspace.root.display()));
    let status = Command::new(env!("CARGO"))
        .current_dir(&workspace.root)
        // With a target named, these are for the program and not for what builds it.
        .args(["build", "--locked", "--profile", "dist", "--package", "dualgate", "--bin", "dualgate"])
        .args(["--target", &target, "--target-dir", "target"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("the program was not built: {status}");
    }
    Ok(workspace.root.join("target").join(target).join("dist/dualgate"))
}

/// `x86_64-unknown-linux-gnu`, for example.
fn host() -> Result<String> {
    let told = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output();
    let told = String::from_utf8(told.context("start rustc")?.stdout).context("read what rustc says")?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let read = options(&["--binary", "a", "--name", "b:1", "--output", "c"]).unwrap().unwrap();
        let read = (read.binary, read.name, read.output);
        assert_eq!(read, (Some("a".into()), Some("b:1".to_owned()), Some("c".into())));
        assert!(options(&["--help"]).unwrap().is_none());
        assert!(options(&["--binary"]).is_err() && options(&["--size"]).is_err());
    }

    /// The head of an ELF file, and a segment of this kind.
    fn program(machine: u16, segment: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        let mut put = |at: usize, value: &[u8]| file[at..at + value.len()].copy_from_slice(value);
        put(0, b"\x7fELF\x02\x01");
        put(16, &2_u16.to_le_bytes());
        put(18, &machine.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &1_u16.to_le_bytes());
        put(64, &segment.to_le_bytes());
        file
    }

    #[test]
    fn only_a_static_program_of_a_known_machine_becomes_an_image() {
        let (load, interpreter) = (1, 3);
        assert_eq!(architecture(&program(62, load)).unwrap(), "amd64");
        assert_eq!(architecture(&program(183, load)).unwrap(), "arm64");
        let refused = |program: &[u8]| architecture(program).unwrap_err().to_string();
        assert!(refused(&program(62, interpreter)).contains("not static"));
        assert!(refused(&program(243, load)).contains("it is for riscv64"));
        assert!(refused(b"#!/bin/sh\n").contains("no ELF file"));
    }

    #[test]
    fn an_image_has_a_limit() {
        assert_eq!(too_large(LIMIT), []);
        assert_eq!(too_large(LIMIT + 1).len(), 1);
    }
}
