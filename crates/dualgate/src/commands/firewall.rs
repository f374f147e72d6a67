//! `dualgate firewall`: what is let in, by plan and in the kernel.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use dualgate_core::model::NodeName;
use dualgate_core::plan::firewall::{self, FirewallPlan, diff};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{Counter, FirewallError, Inspection, Outcome, confirm, inspect, stand_guard};
use serde_json::json;

use crate::cli::firewall::{
    Firewall, FirewallApply, FirewallCommand, FirewallConfirm, FirewallGuard, FirewallShow, FirewallStatus,
};
use crate::cli::{Format, Inputs};
use crate::inputs::{choose_node, state_directory, usable_site};
use crate::output::{self, Colour, Style};

/// As the subcommand says.
pub fn run(args: &Firewall) -> anyhow::Result<ExitCode> {
    match &args.command {
        FirewallCommand::Show(args) => show(args),
        FirewallCommand::Status(args) => status(args),
        FirewallCommand::Apply(args) => apply(args),
        FirewallCommand::Confirm(args) => confirmed(args),
        FirewallCommand::Guard(args) => guard(args),
    }
}

fn planned(inputs: &Inputs, node: Option<&NodeName>) -> anyhow::Result<(NodeName, FirewallPlan)> {
    let snapshot = inputs.snapshot_of_site()?;
    let node = choose_node(&snapshot.site, node)?;
    let plan = firewall::firewall(&snapshot, &node);
    Ok((node, plan))
}

fn show(args: &FirewallShow) -> anyhow::Result<ExitCode> {
    let (node, plan) = planned(&args.inputs, args.node.as_ref())?;
    let openings: Vec<String> = plan.openings.iter().map(ToString::to_string).collect();
    match (args.output.output, args.openings) {
        (Format::Json, _) => {
            let table = plan.table.as_ref().map(ToString::to_string);
            output::json(&json!({"node": node.as_str(), "table": table, "openings": openings}))?;
        }
        (Format::Text, _) if plan.table.is_none() => {
            output::text(&format!("# {node} has no firewall: nothing is shut here, and nothing needs to be open\n"))?;
        }
        (Format::Text, true) => output::text(&openings.iter().map(|line| format!("{line}\n")).collect::<String>())?,
        (Format::Text, false) => output::text(&plan.to_string())?,
    }
    Ok(output::verdict(true))
}

fn status(args: &FirewallStatus) -> anyhow::Result<ExitCode> {
    let (node, plan) = planned(&args.inputs, args.node.as_ref())?;
    let Inspection { differences, owner, counters } = inspect(&plan)?;
    let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
    match args.output.output {
        Format::Json => {
            let counter = |Counter { chain, rule, counted }: &Counter| json!({"chain": chain, "rule": rule, "packets": counted.packets, "octets": counted.octets});
            let counters: Vec<_> = counters.iter().map(counter).collect();
            output::json(&json!({
                "node": node.as_str(), "differences": differences, "owner": owner, "counters": counters,
            }))?;
        }
        Format::Text => output::text(&page(&node, &differences, owner, &counters))?,
    }
    Ok(output::verdict(differences.is_empty()))
}

fn page(node: &NodeName, differences: &[String], owner: Option<u32>, counters: &[Counter]) -> String {
    let style = Style::stdout();
    let mut page = String::new();
    let _ = match differences {
        [] => writeln!(page, "{node}: {}", style.paint(Colour::Green, "the kernel has the planned rules")),
        _ => writeln!(page, "{node}: {}", style.paint(Colour::Red, "the kernel's rules are not the planned ones")),
    };
    for difference in differences {
        let _ = writeln!(page, "  {}", output::one_line(difference));
    }
    let _ = match owner {
        Some(port) => writeln!(page, "  a running process owns the table (netlink port {port})"),
        None => writeln!(page, "  no running process owns the table"),
    };
    let title = format!("\n{:<12}{:<24}{:>12}{:>16}", "chain", "rule", "packets", "octets");
    if !counters.is_empty() {
        let _ = writeln!(page, "{}", style.paint(Colour::Bold, &title));
    }
    for Counter { chain, rule, counted } in counters {
        let (chain, rule) = (output::one_line(chain), output::one_line(rule));
        let _ = writeln!(page, "{chain:<12}{rule:<24}{:>12}{:>16}", counted.packets, counted.octets);
    }
    page
}

fn apply(args: &FirewallApply) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot_of_site()?;
    let node = choose_node(&snapshot.site, args.node.as_ref())?;
    let state = state_directory(args.state.as_deref(), &snapshot.site, &node);
    let desired = Arc::new(firewall::firewall(&snapshot, &node));
    let mut firewall = dualgate_host::firewall::Firewall::open(Some(&state))?;
    if inspect(&desired)?.differences.is_empty() {
        say(&format!("{node} has the planned rules already"));
        return Ok(output::verdict(true));
    }
    let observed = runtime()?.block_on(firewall.observe())?;
    for change in diff(&observed, &desired) {
        output::text(&format!("{}\n", output::one_line(&change.to_string())))?;
    }
    std::fs::create_dir_all(&state).with_context(|| format!("make the state directory `{}`", state.display()))?;
    let mut guard = firewall.apply_on_trial(&desired, args.confirm, &state, &mut guard_command(&state)?)?;
    say(&format!(
        "the rules are on trial for {} s: open a new connection to {node} and run `dualgate firewall confirm` there",
        args.confirm.as_secs()
    ));
    match guard.wait()? {
        Outcome::Confirmed => {
            say("confirmed: the rules stay");
            Ok(output::verdict(true))
        }
        Outcome::Undone => {
            output::error(&FirewallError::Undone.into());
            Ok(output::verdict(false))
        }
    }
}

/// This program, in a process that needs nothing of this one.
fn guard_command(state: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(["firewall", "guard", "--state"]).arg(state).stderr(Stdio::null());
    Ok(command)
}

fn confirmed(args: &FirewallConfirm) -> anyhow::Result<ExitCode> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => {
            let site = usable_site(&args.site)?;
            let node = choose_node(&site, args.node.as_ref())?;
            state_directory(None, &site, &node)
        }
    };
    match confirm(&state) {
        Ok(()) => {
            say("confirmed: the rules stay");
            Ok(output::verdict(true))
        }
        Err(error @ FirewallError::Undone) => {
            output::error(&error.into());
            Ok(output::verdict(false))
        }
        Err(error) => Err(error.into()),
    }
}

fn guard(args: &FirewallGuard) -> anyhow::Result<ExitCode> {
    let outcome = runtime()?.block_on(stand_guard(&args.state))?;
    Ok(ExitCode::from(outcome.exit_code()))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

/// To people; what programs read stays alone on standard output.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
