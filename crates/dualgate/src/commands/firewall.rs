//! `dualgate firewall`: what is let in, by plan and in the kernel.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dualgate_core::model::NodeName;
use dualgate_core::plan::firewall::{self, FirewallPlan, Way, diff};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{
    Counter, FirewallError, Held, Inspection, Outcome, confirm, inspect, is_on_trial, remaining, stand_guard,
};
use serde_json::json;

use crate::cli::firewall::{
    Firewall, FirewallApply, FirewallCommand, FirewallConfirm, FirewallGuard, FirewallShow, FirewallStatus,
};
use crate::cli::{Format, Inputs};
use crate::commands::status::running_state;
use crate::inputs::{choose_node, usable_site};
use crate::output::{self, Colour, Style};
use crate::wall::guard_command;

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
    let snapshot = args.inputs.snapshot_of_site()?;
    let node = choose_node(&snapshot.site, args.node.as_ref())?;
    let plan = firewall::firewall(&snapshot, &node);
    let state = running_state(args.state.as_deref(), &snapshot.site, &node);
    let Inspection { differences, owner, counters } = inspect(&plan)?;
    let seen = Seen {
        node,
        differences: differences.iter().map(ToString::to_string).collect(),
        owner,
        counters,
        remaining: remaining(&state),
        held: Held::read(&state)?,
    };
    match args.output.output {
        Format::Json => output::json(&seen.json())?,
        Format::Text => output::text(&seen.page())?,
    }
    Ok(output::verdict(seen.differences.is_empty()))
}

/// What `status` tells.
struct Seen {
    node: NodeName,
    differences: Vec<String>,
    owner: Option<u32>,
    counters: Vec<Counter>,
    /// How long the change that is on trial can be confirmed.
    remaining: Option<Duration>,
    /// The change that is on trial, or was not confirmed.
    held: Option<Held>,
}

impl Seen {
    fn json(&self) -> serde_json::Value {
        let counter = |Counter { chain, rule, counted }: &Counter| json!({"chain": chain, "rule": rule, "packets": counted.packets, "octets": counted.octets});
        let unconfirmed = |held: &Held| json!({"shuts_out": held.who, "kept": words(&held.kept)});
        json!({
            "node": self.node.as_str(),
            "differences": self.differences,
            "owner": self.owner,
            "trial_remaining_seconds": self.remaining.map(|left| left.as_secs()),
            "unconfirmed": self.held.as_ref().map(unconfirmed),
            "counters": self.counters.iter().map(counter).collect::<Vec<_>>(),
        })
    }

    fn page(&self) -> String {
        let style = Style::stdout();
        let mut page = String::new();
        let node = &self.node;
        let _ = match self.differences.as_slice() {
            [] => writeln!(page, "{node}: {}", style.paint(Colour::Green, "the kernel has the planned rules")),
            _ => writeln!(page, "{node}: {}", style.paint(Colour::Red, "the kernel's rules are not the planned ones")),
        };
        for difference in &self.differences {
            let _ = writeln!(page, "  {}", output::one_line(difference));
        }
        if let Some(trial) = self.trial() {
            let _ = writeln!(page, "  {}", style.paint(Colour::Yellow, &output::one_line(&trial)));
        }
        let _ = match self.owner {
            Some(port) => writeln!(page, "  a running process owns the table (netlink port {port})"),
            None => writeln!(page, "  no running process owns the table"),
        };
        let title = format!("\n{:<12}{:<24}{:>12}{:>16}", "chain", "rule", "packets", "octets");
        if !self.counters.is_empty() {
            let _ = writeln!(page, "{}", style.paint(Colour::Bold, &title));
        }
        for Counter { chain, rule, counted } in &self.counters {
            let (chain, rule) = (output::one_line(chain), output::one_line(rule));
            let _ = writeln!(page, "{chain:<12}{rule:<24}{:>12}{:>16}", counted.packets, counted.octets);
        }
        page
    }

    fn trial(&self) -> Option<String> {
        let who = self.held.as_ref().map_or_else(String::new, |held| format!(" would shut out {}, and", held.who));
        match (self.remaining, &self.held) {
            (Some(left), _) => Some(format!(
                "a change{who} is on trial for {} s more: `dualgate firewall confirm` at a new connection keeps it",
                left.as_secs()
            )),
            (None, Some(held)) => {
                Some(format!("a change{who} was not confirmed; open besides: {}", words(&held.kept).join(", ")))
            }
            (None, None) => None,
        }
    }
}

fn words(kept: &[Way]) -> Vec<String> {
    kept.iter().map(ToString::to_string).collect()
}

fn apply(args: &FirewallApply) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot_of_site()?;
    let node = choose_node(&snapshot.site, args.node.as_ref())?;
    let state = running_state(args.state.as_deref(), &snapshot.site, &node);
    let desired = Arc::new(firewall::firewall(&snapshot, &node));
    if is_on_trial(&state) {
        return Err(FirewallError::Pending.into());
    }
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
    let mut guard = firewall.apply_on_trial(&desired, args.confirm, &state, &mut guard_command(&state))?;
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

fn confirmed(args: &FirewallConfirm) -> anyhow::Result<ExitCode> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => {
            let site = usable_site(&args.site)?;
            let node = choose_node(&site, args.node.as_ref())?;
            running_state(None, &site, &node)
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
