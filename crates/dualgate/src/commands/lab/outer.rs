//! The process that a person starts: it takes the lab's name, starts the lab's first process and waits for it.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, anyhow};
use dualgate_lab::control::{self, LabName};

use super::example::Choice;
use super::{show, wait};
use crate::cli::Format;
use crate::cli::lab::Lab;

/// Starts the lab and passes on how it ended. Nothing of it outlives this process.
pub fn run(args: &Lab) -> anyhow::Result<ExitCode> {
    let choice = Choice::of(args);
    choice.be_visible()?;
    let site = choice.site()?;
    let name: LabName = match &args.name {
        Some(name) => name.clone(),
        None => site.name.parse().map_err(|why| anyhow!("name the lab with --name: {why}"))?,
    };
    let listener = control::bind(&name)?;
    let (near, far) = UnixStream::pair().context("make a pair of sockets")?;
    control::give_listener(&near, &listener).context("hand over the control socket")?;
    drop(listener);
    if args.output == Format::Text && !args.once {
        say(&format!("building lab {name}\n"));
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dualgate").args(std::env::args_os().skip(1)).arg("init").stdin(Stdio::from(OwnedFd::from(far)));
    let child = dualgate_lab::init::start(&mut command)?;
    // The first process holds the only other end: when `near` is closed, it knows that this process has ended.
    drop(command);
    let status = wait::wait(child, if args.once { wait::End::AtOnce } else { wait::End::Soon })?;
    if !status.success() && io::stdout().is_terminal() {
        // It may have had no time to show the cursor again.
        say(show::CURSOR_ON);
    }
    drop(near);
    Ok(wait::exit_code(status))
}

/// Says something to a person; nobody may be listening.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
