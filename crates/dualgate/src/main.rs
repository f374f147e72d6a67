//! dualgate: two gates, one home.
//!
//! The binary composes: [`cli`] says what can be asked, [`commands`] has one file per command, [`river`] carries
//! changes from the source to the actuators, [`admin`] shows what runs.

mod admin;
mod cli;
mod cluster;
mod commands;
mod describe;
mod dns;
mod exchange;
mod file_version;
mod inputs;
mod last_good;
mod output;
mod publishing;
mod river;
mod service;
mod source;
mod state;
mod virtual_ips;
mod wall;

use std::process::ExitCode;

use clap::Parser as _;

/// The data plane allocates for HTTP/2 and for bodies; this allocator gives memory back and costs less than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(output::COULD_NOT_TELL)
        }
    }
}
