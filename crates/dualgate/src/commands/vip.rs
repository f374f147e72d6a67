//! `dualgate vip`: who holds which address of the LAN, why, and giving it to another node.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use dualgate_core::model::{NodeName, ObjectName, Snapshot};
use dualgate_core::plan::ipam;
use dualgate_core::plan::virtual_ips::virtual_ips;
use dualgate_host::virtual_ips::control::{Answer, Order, order};
use dualgate_host::virtual_ips::{Conflict, GroupReport, PeerReport, Report};
use serde_json::json;

use crate::cli::vip::{Running, Vip, VipCommand, VipDrain, VipExplain, VipList, VipMove};
use crate::cli::{Format, Output};
use crate::commands::status::running_state;
use crate::inputs::{choose_node, usable_site};
use crate::output::{self, Colour, Style};
use crate::state::Report as Status;

/// As the subcommand says.
pub fn run(args: &Vip) -> anyhow::Result<ExitCode> {
    match &args.command {
        VipCommand::List(args) => list(args),
        VipCommand::Explain(args) => explain(args),
        VipCommand::Move(args) => give(args),
        VipCommand::Drain(args) => drain(args),
    }
}

fn list(args: &VipList) -> anyhow::Result<ExitCode> {
    let status = super::status::ask(args.admin)?;
    let report = &status.virtual_ips;
    // A Service without pods is held by nobody, as it should be.
    let is_held = |group: &GroupReport| group.owner.is_some() || group.candidates.is_empty();
    let well = report.on && report.conflicts.is_empty() && report.groups.iter().all(is_held);
    match args.output.output {
        Format::Json => output::json(&json!({"node": status.node, "virtual_ips": report}))?,
        Format::Text => {
            let mut page = page(report, Style::stdout());
            for message in troubles(&status) {
                let _ = writeln!(page, "{}", Style::stdout().paint(Colour::Red, &message));
            }
            output::text(&output::visible(&page))?;
        }
    }
    Ok(output::verdict(well))
}

/// What is wrong with the virtual IPs, as the node says.
fn troubles(status: &Status) -> Vec<String> {
    let of_virtual_ips = |finding: &&serde_json::Value| {
        finding["code"].as_str().is_some_and(|code| code.starts_with("virtual-ips") && code != "virtual-ips-conflict")
    };
    let message = |finding: &serde_json::Value| Some(finding["message"].as_str()?.to_owned());
    status.findings.iter().filter(of_virtual_ips).filter_map(message).collect()
}

/// A table of the groups, the voters, and what is wrong.
fn page(report: &Report, style: Style) -> String {
    if !report.on {
        return "this node has no part in virtual IPs (the role `virtual-ips`)\n".to_owned();
    }
    let mut page = String::new();
    let rows: Vec<[String; 4]> = report.groups.iter().map(row).collect();
    let head = ["addresses", "held by", "for", "others"].map(str::to_owned);
    let width = |column: usize| {
        std::iter::once(&head).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [addresses, owner, users, others] = row;
        format!("{addresses:a$}  {owner:o$}  {users:u$}  {others}", a = widths[0], o = widths[1], u = widths[2])
    };
    let _ = writeln!(page, "{}", style.paint(Colour::Bold, line(&head).trim_end()));
    for (row, group) in rows.iter().zip(&report.groups) {
        let text = line(row);
        let text = text.trim_end();
        let _ = match (&group.owner, group.held) {
            (Some(_), true) => writeln!(page, "{}", style.paint(Colour::Green, text)),
            (Some(_), false) => writeln!(page, "{text}"),
            (None, _) => writeln!(page, "{}", style.paint(Colour::Red, text)),
        };
    }
    if report.groups.is_empty() {
        page.push_str("there is nothing to hold: no gate, edge or Service has an address of the LAN\n");
    }
    let heard = |peer: &PeerReport| match (peer.alive, peer.heard_ms) {
        _ if peer.other_key => format!("{} has another key", peer.name),
        (true, _) => format!("{} is heard", peer.name),
        (false, Some(age)) => format!("{} not heard for {} s", peer.name, age.div_ceil(1000)),
        (false, None) => format!("{} not heard", peer.name),
    };
    let peers: Vec<String> = report.peers.iter().map(heard).collect();
    if !peers.is_empty() {
        let _ = writeln!(page, "\nvoters: this node, {}", peers.join(", "));
    }
    if let Some(holder) = &report.assigned_by {
        let _ = writeln!(page, "addresses are assigned by {holder}");
    }
    if report.drained {
        let _ = writeln!(page, "{}", style.paint(Colour::Yellow, "this node is drained: it takes nothing"));
    }
    for conflict in &report.conflicts {
        let _ = writeln!(page, "{}", style.paint(Colour::Red, &conflicting(conflict)));
    }
    page
}

fn row(group: &GroupReport) -> [String; 4] {
    let joined = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let others = group.candidates.iter().filter(|name| Some(*name) != group.owner.as_ref());
    let owner = match (&group.owner, &group.relayed_to) {
        (Some(owner), Some(former)) => format!("{owner} (older connections at {former})"),
        (Some(owner), None) => owner.clone(),
        (None, _) if group.candidates.is_empty() => "nobody can".to_owned(),
        (None, _) => "nobody".to_owned(),
    };
    let others = others.cloned().collect::<Vec<_>>().join(", ");
    [joined(&group.addresses), owner, group.users.join(", "), others]
}

fn conflicting(Conflict { address, mac, node, heard_seconds }: &Conflict) -> String {
    match node {
        Some(node) => format!("{node} ({mac}) answers for {address}, too; heard {heard_seconds} s ago"),
        None => format!("somebody with {mac} answers for {address}, too; heard {heard_seconds} s ago"),
    }
}

fn explain(args: &VipExplain) -> anyhow::Result<ExitCode> {
    let status = super::status::ask(args.admin)?;
    let report = &status.virtual_ips;
    let address = args.address;
    let group = report.groups.iter().find(|group| group.addresses.contains(&address));
    let conflicts: Vec<&Conflict> = report.conflicts.iter().filter(|conflict| conflict.address == address).collect();
    let origin = match args.inputs.snapshot() {
        Ok(snapshot) => origin(snapshot, address, &status),
        Err(error) => {
            let why = format!("{error:#}");
            vec![format!("where it comes from is not told: {}", why.lines().next().unwrap_or_default())]
        }
    };
    match args.output.output {
        Format::Json => output::json(&json!({
            "node": status.node, "address": address, "group": group, "conflicts": conflicts, "origin": origin,
        }))?,
        Format::Text => {
            let mut page = match report.on {
                true => explained(address, group, Style::stdout()),
                false => {
                    format!("{} has no part in virtual IPs: ask a home node with the role `virtual-ips`\n", status.node)
                }
            };
            if group.is_some_and(|group| group.owner.is_none()) {
                for message in troubles(&status) {
                    let _ = writeln!(page, "  {message}");
                }
            }
            let conflicts = conflicts.iter().map(|conflict| conflicting(conflict));
            for line in origin.iter().cloned().chain(conflicts) {
                let _ = writeln!(page, "  {line}");
            }
            output::text(&output::visible(&page))?;
        }
    }
    Ok(output::verdict(conflicts.is_empty() && group.is_some_and(|group| group.owner.is_some())))
}

fn explained(address: IpAddr, group: Option<&GroupReport>, style: Style) -> String {
    let mut page = format!("{}\n", style.paint(Colour::Bold, &address.to_string()));
    let Some(group) = group else {
        page.push_str("  no gate, edge or Service has it, as far as this node knows\n");
        return page;
    };
    let _ = writeln!(page, "  for {}", group.users.join(", "));
    let _ = match (&group.owner, group.held) {
        (Some(_), true) => writeln!(page, "  held by this node, which answers ARP or NDP for it"),
        (Some(owner), false) => writeln!(page, "  held by {owner}"),
        (None, _) => writeln!(page, "  {}", style.paint(Colour::Red, "held by nobody: nobody answers for it")),
    };
    let _ = match group.ready {
        true => writeln!(page, "  packets to it would be served by this node: {}", way(group)),
        false => writeln!(page, "  this node could not hold it: {}", group.why_not),
    };
    let candidates = match group.candidates.as_slice() {
        [] => "no node: its Service has no pod that is ready, or its pool allows no node".to_owned(),
        names => names.join(", "),
    };
    let _ = writeln!(page, "  may be held by (best first): {candidates}");
    let together: Vec<String> =
        group.addresses.iter().filter(|other| **other != address).map(ToString::to_string).collect();
    if !together.is_empty() {
        let _ = writeln!(page, "  moves together with {}", together.join(", "));
    }
    if let Some(former) = &group.relayed_to {
        let _ = writeln!(page, "  connections that were open when it came here are handed on to {former}");
    }
    page
}

/// How packets go on at a node that holds the group.
fn way(group: &GroupReport) -> &'static str {
    match group.path.as_str() {
        "tunnel" => "they go into the tunnel",
        "translated" => "kube-proxy hands them to pods",
        _ => "it listens there",
    }
}

/// Where the address comes from, by the site file and the objects that are here: pool, assignment, and what is wrong with it.
/// The running node may have others; then that is said.
fn origin(mut snapshot: Snapshot, address: IpAddr, status: &Status) -> Vec<String> {
    let node = NodeName::new(status.node.as_str());
    if snapshot.site.name != status.site || snapshot.site.node(&node).is_none() {
        let (here, there) = (&snapshot.site.name, &status.site);
        return vec![match here == there {
            true => format!("where it comes from is not told: the site file has no node {node}, which was asked"),
            false => {
                format!("where it comes from is not told: the site file is that of {here}, and {node} is of {there}")
            }
        }];
    }
    let group = status.virtual_ips.groups.iter().find(|group| group.addresses.contains(&address));
    snapshot.facts.assigned = Arc::new(status.virtual_ips.assigned.clone());
    let mut lines = of_pools(&snapshot, address, group);
    lines.extend(other_plan(&snapshot, &node, address, group));
    lines
}

/// What the site file and the objects here would make of the address, if the running node has made something else of it.
fn other_plan(snapshot: &Snapshot, node: &NodeName, address: IpAddr, running: Option<&GroupReport>) -> Option<String> {
    let plan = virtual_ips(snapshot, node);
    let words = |addresses: &[IpAddr], users: Vec<String>| {
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{} for {}", shown.join(", "), users.join(", "))
    };
    let here = plan.group_of(address).map(|group| {
        let users = group.users.iter().map(ToString::to_string).collect();
        words(&group.addresses, users)
    });
    let there = running.map(|group| words(&group.addresses, group.users.clone()));
    (here != there).then(|| {
        let here = here.unwrap_or_else(|| "nothing".to_owned());
        format!("{node} runs with another site file or other objects than these, of which would come: {here}")
    })
}

fn of_pools(snapshot: &Snapshot, address: IpAddr, group: Option<&GroupReport>) -> Vec<String> {
    let pools = snapshot.site.pools.iter();
    let pool = pools.filter(|pool| pool.ranges.iter().any(|range| range.contains(address)));
    let mut lines: Vec<String> = pool.map(|pool| format!("from the pool `{}`", pool.name)).collect();
    let is_own = snapshot.site.nodes.iter().find(|node| node.addresses.contains(&address));
    lines.extend(is_own.map(|node| format!("an address of the node {}", node.name)));
    let services = group.iter().flat_map(|group| &group.users).filter_map(|user| user.strip_prefix("Service "));
    let named: Vec<ObjectName> = services
        .filter_map(|name| name.split_once('/'))
        .map(|(namespace, name)| ObjectName::new(namespace, name))
        .collect();
    let findings = ipam::assign(snapshot).findings.into_iter();
    let of_group =
        findings.filter(|finding| finding.at.object.as_ref().is_some_and(|object| named.contains(&object.name)));
    lines.extend(of_group.map(|finding| finding.to_string()));
    lines
}

fn give(args: &VipMove) -> anyhow::Result<ExitCode> {
    choose_node(&usable_site(&args.running.site)?, Some(&args.to))?;
    tell(&args.running, &Order::Move { address: args.address, to: args.to.clone() }, args.output)
}

fn drain(args: &VipDrain) -> anyhow::Result<ExitCode> {
    tell(&args.running, if args.undo { &Order::Undrain } else { &Order::Drain }, args.output)
}

fn tell(running: &Running, what: &Order, format: Output) -> anyhow::Result<ExitCode> {
    let site = usable_site(&running.site)?;
    let node = choose_node(&site, running.node.as_ref())?;
    let state = running_state(running.state.as_deref(), &site, &node);
    let answer = match order(&state, what) {
        Ok(answer) => answer,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => bail!(
            "no `dualgate run` with a part in virtual IPs runs with the state directory `{}` (name another with --state)",
            state.display()
        ),
        Err(error) => return Err(error).context("ask the running dualgate"),
    };
    match (format.output, &answer) {
        (Format::Json, _) => output::json(&answer)?,
        (Format::Text, Answer::Done(text)) => output::text(&format!("{text}\n"))?,
        (Format::Text, Answer::Refused(why)) => output::error(&anyhow::anyhow!("{why}")),
    }
    Ok(output::verdict(matches!(answer, Answer::Done(_))))
}
