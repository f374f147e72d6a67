//! One file per command.

mod check;
mod dns;
mod echo;
mod edge;
mod explain;
mod exposure;
mod firewall;
mod install;
mod keys;
mod lab;
mod plan;
mod render;
mod run;
mod status;
mod tunnel;
mod vip;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// Runs what was asked; the exit code says how it is (0), that something was found (1), or that it could not be told.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Exposure(args) => exposure::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Tunnel(args) => tunnel::run(&args),
        Command::Firewall(args) => firewall::run(&args),
        Command::Vip(args) => vip::run(&args),
        Command::Dns(args) => dns::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Edge(args) => edge::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Echo(args) => echo::run(&args),
        Command::Lab(args) => lab::run(&args),
    }
}
