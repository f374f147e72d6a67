//! `dualgate lab exec` and `shell`: a command on a host of the lab, in this terminal.
//!
//! This process joins the host's namespaces itself and starts the command from there: terminals, job control and pipes
//! are as for any other child.

use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use dualgate_lab::control::{Answer, Entrance, Request};

use super::wait::{End, exit_code, wait};
use crate::cli::lab::Lab;
use crate::output;

/// What a shell answers for a command that it does not find, and for one that it may not start.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;

/// The user's shell.
pub fn shell() -> OsString {
    std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// Runs a command on a host; its exit code is this command's.
pub fn run(args: &Lab, host: &str, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = command else { bail!("name a command") };
    let Answer::Enter(entrance) = super::ask(args, &Request::Enter { host: host.to_owned() })? else {
        bail!("the lab answers something else than was asked; is it of another version?");
    };
    let here = std::env::current_dir();
    entrance.join().with_context(|| format!("enter the host `{host}`"))?;
    settle(&here, &entrance)?;
    let environment = entrance.environment.iter().map(|(name, value)| (name, value));
    let child = Command::new(program).args(arguments).envs(environment).spawn();
    drop(entrance);
    match child {
        Ok(child) => Ok(exit_code(wait(child, End::Its)?)),
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED };
            let error = anyhow::Error::new(error).context(format!("start `{}` on {host}", program.display()));
            output::error(&error);
            Ok(ExitCode::from(code))
        }
    }
}

/// Goes where this process was, if that exists on the host.
fn settle(here: &io::Result<std::path::PathBuf>, entrance: &Entrance) -> anyhow::Result<()> {
    let same = here.as_ref().is_ok_and(|here| std::env::set_current_dir(here).is_ok());
    if !same {
        let directory = &entrance.directory;
        std::env::set_current_dir(directory).with_context(|| format!("enter the folder `{directory}`"))?;
    }
    Ok(())
}
