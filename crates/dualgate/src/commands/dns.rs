//! `dualgate dns`: the names of both views, as a table or a zone file, what providers have of them, and what is to be set
//! elsewhere.

mod diff;

use std::fmt::Write as _;
use std::process::ExitCode;

use dualgate_core::explain::{RecordView, records};
use dualgate_core::lower;
use dualgate_core::model::Snapshot;
use dualgate_core::plan::dns::{View, Zone, zones};
use dualgate_core::render::router_steps;

use crate::cli::Format;
use crate::cli::dns::{Dns, DnsCommand, DnsExport, DnsRouterSteps, DnsShow, ViewArgument};
use crate::output;

/// 0, or 1 where there is no such zone.
pub fn run(args: &Dns) -> anyhow::Result<ExitCode> {
    match &args.command {
        DnsCommand::Show(args) => show(args),
        DnsCommand::Export(args) => export(args),
        DnsCommand::Diff(args) => diff::run(args),
        DnsCommand::RouterSteps(args) => steps(args),
    }
}

fn show(args: &DnsShow) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot()?;
    let views = match args.view {
        Some(view) => vec![of(view)],
        None => vec![View::Home, View::Public],
    };
    let records: Vec<RecordView> =
        views.into_iter().flat_map(|view| records(&settled(&snapshot, view), view)).collect();
    match args.output.output {
        Format::Json => output::json(&records)?,
        Format::Text => output::text(&output::visible(&table(&records)))?,
    }
    Ok(output::verdict(true))
}

fn table(records: &[RecordView]) -> String {
    if records.is_empty() {
        return "the site has no names: `dns.zones` is empty\n".to_owned();
    }
    let head = ["VIEW", "NAME", "TTL", "TYPE", "DATA", "FROM"].map(str::to_owned);
    let rows = records.iter().map(|record| {
        let RecordView { view, zone: _, name, ttl, rtype, data, from } = record.clone();
        [view, name, ttl.to_string(), rtype, data, from]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut page = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(page, "{cell:width$}  ");
        }
        page.push_str(&row[5]);
        page.push('\n');
    }
    page
}

fn export(args: &DnsExport) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot()?;
    let view = of(args.view);
    let wanted = args.zone.trim_end_matches('.').to_ascii_lowercase();
    let zones = settled(&snapshot, view);
    let Some(zone) = zones.iter().find(|zone| zone.name.to_string() == wanted) else {
        let known: Vec<String> = zones.iter().map(|zone| zone.name.to_string()).collect();
        let known = if known.is_empty() { "no zones".to_owned() } else { known.join(", ") };
        output::error(&anyhow::anyhow!("the {view} view has no zone `{wanted}`; it has {known}"));
        return Ok(output::verdict(false));
    };
    output::text(&output::visible(&zone_file(zone)))?;
    Ok(output::verdict(true))
}

/// RFC 1035 5: one record a line, its start first.
fn zone_file(zone: &Zone) -> String {
    let mut page = String::new();
    let absolute = |name: &dyn std::fmt::Display| format!("{name}.");
    let _ = writeln!(page, "$ORIGIN {}", absolute(&zone.name));
    let mut lines: Vec<(u8, String)> = Vec::new();
    for (name, sets) in &zone.sets {
        for set in sets.iter() {
            let first = if set.data.iter().any(|data| data == &zone.soa.data[0]) { 0 } else { 1 };
            for data in set.data.iter() {
                lines.push((first, format!("{} {} IN {} {data}", absolute(name), set.ttl, set.rtype)));
            }
        }
    }
    lines.sort_by_key(|(first, _)| *first);
    lines.iter().for_each(|(_, line)| {
        let _ = writeln!(page, "{line}");
    });
    page
}

fn steps(args: &DnsRouterSteps) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot_of_site()?;
    let steps = router_steps::steps(&snapshot, &lower::snapshot(&snapshot));
    match args.output.output {
        Format::Json => output::json(&steps)?,
        Format::Text => output::text(&output::visible(&steps.to_string()))?,
    }
    Ok(output::verdict(true))
}

fn of(view: ViewArgument) -> View {
    match view {
        ViewArgument::Home => View::Home,
        ViewArgument::Public => View::Public,
    }
}

/// The zones with the serial number that a node that starts now would give them.
fn settled(snapshot: &Snapshot, view: View) -> Vec<Zone> {
    let now = u32::try_from(snapshot.facts.now).unwrap_or(u32::MAX);
    let zones = zones(snapshot, &lower::snapshot(snapshot), view);
    zones.into_iter().map(|zone| zone.with_serial(now)).collect()
}
