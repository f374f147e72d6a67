//! Waiting for a child that has the terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::output;

/// What becomes of the child when this process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It decides itself: a command with the terminal.
    Its,
    /// It may draw its last page; soon it is ended. The first process of a lab hears no signal that it does not wait for.
    Soon,
    /// It is ended at once.
    AtOnce,
}

/// How long a child may take for its last page.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// Waits until the child has ended. Ctrl-C and Ctrl-\ reach it by themselves; what else is meant to end this process is
/// passed on.
pub fn wait(mut child: Child, end: End) -> anyhow::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the child has no number")?;
    // What it runs has signals of its own again: handlers do not outlive the start of a program.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::child())?;
        let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
        let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        let mut last_page: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait().context("wait for the child")? {
                return Ok(status);
            }
            let signal = tokio::select! {
                _ = ended.recv() => None,
                _ = interrupt.recv() => Some(Signal::INT),
                _ = quit.recv() => Some(Signal::QUIT),
                _ = terminate.recv() => Some(Signal::TERM),
                _ = hang_up.recv() => Some(Signal::HUP),
                () = until(last_page) => Some(Signal::KILL),
            };
            match (signal, end) {
                (None, _) => {}
                (Some(Signal::INT | Signal::QUIT), End::Its) => {}
                (Some(signal), End::Its) => pass_on(pid, signal),
                (Some(Signal::KILL), End::Soon) | (Some(_), End::AtOnce) => pass_on(pid, Signal::KILL),
                (Some(signal), End::Soon) => {
                    if !matches!(signal, Signal::INT | Signal::QUIT) {
                        pass_on(pid, signal);
                    }
                    last_page.get_or_insert(Instant::now() + LAST_PAGE);
                }
            }
        }
    })
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn pass_on(pid: Pid, signal: Signal) {
    // It may have ended this moment, which is seen next.
    let _ = kill_process(pid, signal);
}

/// A process's exit code, as a shell tells it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(output::COULD_NOT_TELL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_what_a_shell_would_tell() {
        let codes = [0x0000, 0x0300, 0x0009, 0x000f].map(ExitStatus::from_raw).map(exit_code);
        assert_eq!(format!("{codes:?}"), format!("{:?}", [0_u8, 3, 137, 143].map(ExitCode::from)));
    }
}
