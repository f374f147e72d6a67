//! `dualgate lab`: a whole site on this machine, to look at and to break.
//!
//! [`outer`] is the process that a person starts: it takes the lab's name, enters namespaces and waits. [`init`] is the
//! first process in there: it owns the lab, answers requests and shows how it is. All other commands are clients.

mod enter;
mod example;
mod init;
mod outer;
mod show;
mod wait;

use std::process::ExitCode;

use dualgate_lab::control::{self, Answer, Request};
use dualgate_lab::report::{Status, Verdict};

use crate::cli::Format;
use crate::cli::lab::{Lab, LabCommand};
use crate::output;

/// Starts a lab, or asks one.
pub fn run(args: &Lab) -> anyhow::Result<ExitCode> {
    let request = match &args.command {
        None => return outer::run(args),
        Some(LabCommand::Init) => return init::run(args),
        Some(LabCommand::Exec { host, command }) => return enter::run(args, host, command),
        Some(LabCommand::Shell { host }) => return enter::run(args, host, &[enter::shell()]),
        Some(LabCommand::Status) => Request::Status,
        Some(LabCommand::Fail { node }) => Request::Fail { host: node.clone() },
        Some(LabCommand::Heal { what }) => Request::Heal { what: what.clone() },
        Some(LabCommand::Cut { link }) => Request::Cut { link: link.clone() },
        Some(LabCommand::Kill { pod }) => Request::Kill { pod: pod.clone() },
        Some(LabCommand::Scale { workload, replicas }) => {
            Request::Scale { workload: workload.clone(), replicas: *replicas }
        }
        Some(LabCommand::Log { host }) => Request::Log { host: host.clone() },
        Some(LabCommand::Down) => Request::Down,
    };
    match ask(args, &request)? {
        Answer::Status(status) => {
            report(&status, args.output)?;
            match is_looked_at(&status) {
                true => Ok(output::verdict(nothing_fails(&status))),
                false => Ok(ExitCode::from(output::COULD_NOT_TELL)),
            }
        }
        Answer::Done { message } => {
            say(args.output, &serde_json::json!({ "done": message }), &(message.clone() + "\n"))
        }
        Answer::Log { text } => say(args.output, &serde_json::json!({ "log": text }), &output::visible(&text)),
        Answer::Enter(_) => anyhow::bail!("the lab answers something else than was asked; is it of another version?"),
    }
}

/// Asks the lab that is meant.
fn ask(args: &Lab, request: &Request) -> anyhow::Result<Answer> {
    let name = control::choose(args.name.as_ref(), control::running()?)?;
    Ok(control::ask(&name, request)?)
}

fn say(format: Format, json: &serde_json::Value, text: &str) -> anyhow::Result<ExitCode> {
    match format {
        Format::Json => output::json(json)?,
        Format::Text => output::text(text)?,
    }
    Ok(output::verdict(true))
}

/// Prints how a lab is.
fn report(status: &Status, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(status),
        Format::Text => output::text(&show::page(status)),
    }
}

/// Whether every check was looked at since something changed.
fn is_looked_at(status: &Status) -> bool {
    let mut verdicts = status.checks.iter().flat_map(|check| [&check.v4, &check.v6]);
    !status.checks.is_empty() && !verdicts.any(|verdict| *verdict == Verdict::Waiting)
}

fn nothing_fails(status: &Status) -> bool {
    let mut verdicts = status.checks.iter().flat_map(|check| [&check.v4, &check.v6]);
    !verdicts.any(|verdict| matches!(verdict, Verdict::Fail(_)))
}
