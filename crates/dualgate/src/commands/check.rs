//! `dualgate check`: looks for mistakes, and touches nothing.

use std::collections::BTreeSet;
use std::process::ExitCode;

use dualgate_core::model::finding::Severity;

use crate::cli::{Check, Format, SourceArgument};
use crate::inputs::Loaded;
use crate::output::finding::{self, Files, Shown, Tally};
use crate::output::{self, Colour, Style, count};

/// 0 without errors and warnings, else 1.
pub fn run(args: &Check) -> anyhow::Result<ExitCode> {
    let loaded = args.inputs.load()?;
    let is_shown = |severity: Severity| args.notes || severity != Severity::Note;
    let clean = loaded.findings.iter().all(|finding| finding.severity == Severity::Note);
    match args.output.output {
        Format::Json => {
            let findings: Vec<_> = loaded.findings.iter().filter(|finding| is_shown(finding.severity)).collect();
            output::json(&findings)?;
        }
        Format::Text => {
            let (style, site) = (Style::stdout(), args.inputs.site.display().to_string());
            let mut findings: Vec<Shown> = loaded.findings.iter().map(Shown::from).collect();
            let tally = Tally::of(&findings);
            findings.retain(|finding| args.notes || !finding.is_note());
            let mut page = finding::render(&mut findings, style, &mut Files::on_disk());
            if !page.is_empty() {
                page.push('\n');
            }
            let objects = match args.inputs.source() {
                SourceArgument::Cluster(_) => {
                    format!("{} of the cluster", count(loaded.objects.objects.len(), "object"))
                }
                SourceArgument::Folder(_) | SourceArgument::Home => count(manifests(&loaded, &site), "manifest"),
            };
            let place = format!("in {} and {objects}", output::one_line(&site));
            page += &summary(tally, &place, args.notes, style);
            if loaded.snapshot.is_none() {
                page += "the site file cannot be used as it is: what the manifests mean to it is not checked\n";
            }
            output::text(&page)?;
        }
    }
    Ok(output::verdict(clean))
}

/// How many files of the source said something, be it only something wrong.
fn manifests(loaded: &Loaded, site: &str) -> usize {
    let of_objects = loaded.objects.objects.iter().filter_map(|object| Some(&*object.origin.as_ref()?.file));
    let of_findings = loaded.findings.iter().filter_map(|finding| finding.at.file.as_deref());
    of_objects.chain(of_findings).filter(|file| *file != site).collect::<BTreeSet<&str>>().len()
}

fn summary(tally: Tally, place: &str, with_notes: bool, style: Style) -> String {
    let counts = [(tally.errors, "error"), (tally.warnings, "warning")];
    let found: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n, noun)).collect();
    let verdict = match (tally.errors, tally.warnings) {
        (0, 0) => style.paint(Colour::Green, "no mistakes found"),
        (0, _) => style.paint(Colour::Yellow, &found.join(", ")),
        _ => style.paint(Colour::Red, &found.join(", ")),
    };
    let notes = match tally.notes {
        0 => String::new(),
        some if with_notes => format!(", {}", count(some, "note")),
        some => format!(" ({}: --notes prints {})", count(some, "note"), if some == 1 { "it" } else { "them" }),
    };
    if with_notes { format!("{verdict}{notes} {place}\n") } else { format!("{verdict} {place}{notes}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let line = |errors, warnings, notes, with_notes| {
            summary(Tally { errors, warnings, notes }, "in site.yaml and 3 manifests", with_notes, Style::Plain)
        };
        assert_eq!(line(2, 1, 0, false), "2 errors, 1 warning in site.yaml and 3 manifests\n");
        assert_eq!(line(0, 2, 1, true), "2 warnings, 1 note in site.yaml and 3 manifests\n");
        assert_eq!(line(0, 0, 0, false), "no mistakes found in site.yaml and 3 manifests\n");
        let hidden = line(0, 0, 2, false);
        assert_eq!(hidden, "no mistakes found in site.yaml and 3 manifests (2 notes: --notes prints them)\n");
    }
}
