//! Rules, generated pages and measurements of the dualgate workspace: `cargo xtask COMMAND`.
//!
//! Exit codes: 0 as it should be, 1 something differs or breaks a rule, 2 could not tell.

mod arch;
mod bench;
mod breach;
mod build_cost;
mod docs;
mod guest;
mod image;
mod licences;
mod process;
mod source;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use breach::Breach;
use workspace::Workspace;

const USAGE: &str = "\
Rules, generated pages and measurements of this workspace.

Usage: cargo xtask COMMAND

Commands:
  arch            Check the rules: dependency direction, purity, sizes, names, leftovers
  docs [--check]  Write the generated pages of docs/reference/, or compare them
  licences        Check every linked crate against deny.toml: licence, one version, source
  build-cost      Print what each dependency costs of a cold build with tests (takes minutes)
  bench           Measure dualgate beside nginx and HAProxy; `bench --help` says how
  image           Make the container image, without a container engine; `image --help` says how
  guest           Run the tests that ask much of a kernel in an emulated machine; `guest --help` says how
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(breaches) if breaches.is_empty() => ExitCode::SUCCESS,
        Ok(breaches) => {
            for breach in &breaches {
                eprintln!("{breach}\n");
            }
            let end = if breaches.len() == 1 { "" } else { "es" };
            eprintln!("xtask: {} breach{end}", breaches.len());
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<Vec<Breach>> {
    match arguments {
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            Ok(Vec::new())
        }
        ["arch"] => arch::check(&Workspace::here()?),
        ["docs"] => docs::write(&Workspace::here()?),
        ["docs", "--check"] => docs::check(&Workspace::here()?),
        ["licences"] => licences::check(&Workspace::here()?),
        ["build-cost"] => build_cost::run(&Workspace::here()?).map(|()| Vec::new()),
        ["bench", options @ ..] => bench::run(&Workspace::here()?, options).map(|()| Vec::new()),
        ["guest", options @ ..] => guest::run(&Workspace::here()?, options),
        ["image", options @ ..] => image::run(&Workspace::here()?, options),
        // What the emulated machine of `guest` starts.
        [guest::init::COMMAND] => guest::init::run().map(|()| Vec::new()),
        // What `bench` measures against; it starts this itself.
        ["backend"] => bench::backend::run().map(|()| Vec::new()),
        [command, ..] => bail!("cannot run `{command}` like this\n\n{USAGE}"),
    }
}
