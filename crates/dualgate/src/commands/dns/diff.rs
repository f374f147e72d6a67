//! `dualgate dns diff`: what providers have, beside what they should have. Nothing is changed.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use dualgate_core::lower;
use dualgate_core::plan::publish::{Change, Conflict, Diff, Edit, Publication, Set, SetKey, publish};
use dualgate_host::publish::{Failure, look, open};
use serde::Serialize;

use crate::cli::Format;
use crate::cli::dns::DnsDiff;
use crate::output::{self, Colour, Style};

/// 0 as wanted, 1 something differs, 2 a provider could not be read.
pub fn run(args: &DnsDiff) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot()?;
    let mut zones = publish(&snapshot, &lower::snapshot(&snapshot));
    if let Some(wanted) = &args.zone {
        let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
        let known: Vec<String> = zones.iter().map(|zone| zone.zone.to_string()).collect();
        zones.retain(|zone| zone.zone.to_string() == wanted);
        if zones.is_empty() {
            let known = if known.is_empty() { "no zone does".to_owned() } else { known.join(", ") };
            bail!("zone `{wanted}` lives at no provider of `dns.providers`; of the site's zones: {known}");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let found: Vec<Report> =
        zones.iter().map(|zone| Report::of(zone, runtime.block_on(async { look(&open(zone)?, zone).await }))).collect();
    match args.output.output {
        Format::Json => output::json(&found)?,
        Format::Text => output::text(&output::visible(&page(&found)))?,
    }
    for report in found.iter().filter_map(|report| report.error.as_ref()) {
        output::error(&anyhow::anyhow!("{report}"));
    }
    Ok(match found.iter().any(|report| report.error.is_some()) {
        true => ExitCode::from(output::COULD_NOT_TELL),
        false => output::verdict(found.iter().all(|report| report.changes.is_empty() && report.conflicts.is_empty())),
    })
}

/// One zone at its provider.
#[derive(Serialize)]
struct Report {
    zone: String,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    changes: Vec<ChangeView>,
    conflicts: Vec<ConflictView>,
    kept: Vec<String>,
    unfit: Vec<String>,
}

#[derive(Serialize)]
struct ChangeView {
    what: &'static str,
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    before: Option<SetView>,
    after: Option<SetView>,
    from: String,
    marks: Vec<String>,
}

#[derive(Serialize)]
struct SetView {
    ttl: u32,
    data: Vec<String>,
}

#[derive(Serialize)]
struct ConflictView {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    message: String,
    help: &'static str,
}

impl Report {
    fn of(publication: &Publication, found: Result<Diff, Failure>) -> Self {
        let (diff, error) = match found {
            Ok(diff) => (diff, None),
            Err(failure) => (Diff::default(), Some(failure.to_string())),
        };
        let shown = |keys: &[SetKey]| keys.iter().map(ToString::to_string).collect();
        let change = |change: &Change| ChangeView {
            what: change.kind.as_str(),
            name: change.record.key.name.to_string(),
            rtype: change.record.key.rtype.to_string(),
            before: change.record.before.as_ref().map(SetView::of),
            after: change.record.after.as_ref().map(SetView::of),
            from: change.from.to_string(),
            marks: change.marks.iter().filter(|mark| mark.before != mark.after).map(mark).collect(),
        };
        let conflict = |conflict: &Conflict| ConflictView {
            name: conflict.key.name.to_string(),
            rtype: conflict.key.rtype.to_string(),
            message: conflict.to_string(),
            help: conflict.why.help(),
        };
        Self {
            zone: publication.zone.to_string(),
            provider: publication.name.to_string(),
            error,
            changes: diff.changes.iter().map(change).collect(),
            conflicts: diff.conflicts.iter().map(conflict).collect(),
            kept: shown(&diff.kept),
            unfit: shown(&diff.unfit),
        }
    }
}

impl SetView {
    fn of(set: &Set) -> Self {
        Self { ttl: set.ttl, data: set.data.iter().map(ToString::to_string).collect() }
    }
}

fn mark(edit: &Edit) -> String {
    let sign = match (&edit.before, &edit.after) {
        (None, _) => '+',
        (_, None) => '-',
        (Some(_), Some(_)) => '~',
    };
    format!("{sign} {}", edit.key)
}

fn page(reports: &[Report]) -> String {
    if reports.is_empty() {
        return "no zone lives at a provider of `dns.providers`\n".to_owned();
    }
    let style = Style::stdout();
    let mut page = String::new();
    for report in reports.iter().filter(|report| report.error.is_none()) {
        let _ = writeln!(page, "{}", style.paint(Colour::Bold, &format!("{} at {}", report.zone, report.provider)));
        for change in &report.changes {
            lines(&mut page, style, change);
        }
        for ConflictView { name, rtype, message, help } in &report.conflicts {
            let _ = writeln!(page, "{} {name} {rtype}: {message}\n    {help}", style.paint(Colour::Yellow, "!"));
        }
        for key in &report.kept {
            let _ = writeln!(page, "  {key}: no longer wanted, kept");
        }
        for key in &report.unfit {
            let _ = writeln!(page, "  {key}: {} does not take this type", report.provider);
        }
        if report.changes.is_empty() && report.conflicts.is_empty() {
            page.push_str("  as wanted\n");
        }
    }
    page
}

fn lines(page: &mut String, style: Style, change: &ChangeView) {
    let head = format!("{} {}", change.name, change.rtype);
    let from = if change.from.is_empty() { String::new() } else { format!("  {}", change.from) };
    let say = |set: &SetView| format!("{} s {}", set.ttl, set.data.join(", "));
    let (sign, colour, text) = match (&change.before, &change.after) {
        (None, Some(after)) => ("+", Colour::Green, say(after)),
        (Some(before), None) => ("-", Colour::Red, say(before)),
        (Some(before), Some(after)) if before.data == after.data && before.ttl == after.ttl => {
            ("~", Colour::Blue, "its mark".to_owned())
        }
        (Some(before), Some(after)) => ("~", Colour::Blue, format!("{} -> {}", say(before), say(after))),
        (None, None) => ("-", Colour::Red, "the mark of a record that is gone".to_owned()),
    };
    let _ = writeln!(page, "{} {head}: {text}{from}", style.paint(colour, sign));
}
