//! `dualgate echo`: a backend to try things with.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use dualgate_lab::echo;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Echo;
use crate::inputs::host_name;
use crate::output;

/// Answers until SIGTERM or SIGINT.
pub fn run(args: &Echo) -> anyhow::Result<ExitCode> {
    let coloured = output::Style::of(&io::stderr()) == output::Style::Coloured;
    tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).with_ansi(coloured).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let _backend = echo::start(&args.listen, &args.name.clone().unwrap_or_else(host_name))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(output::verdict(true))
    })
}
