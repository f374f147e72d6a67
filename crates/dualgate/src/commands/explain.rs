//! `dualgate explain`: what happens to a request for a URL, and why.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use dualgate_core::explain::{Explanation, Outcome, Question, UrlScheme, explain};
use dualgate_core::model::site::{EntryProtocol, Site};
use dualgate_core::model::{GateName, Snapshot};
use dualgate_http::CanonicalPath;

use crate::cli::{Explain, Format};
use crate::output;

/// 0 if one of the gates that were asked serves it, else 1.
pub fn run(args: &Explain) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot()?;
    let gates: Vec<GateName> = match args.from {
        Some(gate) => vec![gate],
        None => snapshot.site.gates.keys().copied().collect(),
    };
    let explanations = gates.into_iter().map(|gate| ask(&snapshot, &args.url, gate));
    let explanations: Vec<Explanation> = explanations.collect::<anyhow::Result<_>>()?;
    match args.output.output {
        Format::Json => output::json(&explanations)?,
        Format::Text => {
            let pages: Vec<String> = explanations.iter().map(ToString::to_string).collect();
            output::text(&output::visible(&pages.join("\n")))?;
        }
    }
    Ok(output::verdict(explanations.iter().any(|explanation| explanation.outcome == Outcome::Forwarded)))
}

fn ask(snapshot: &Snapshot, url: &str, gate: GateName) -> anyhow::Result<Explanation> {
    let mut question = Question::parse(url, gate).map_err(|why| anyhow!(why))?;
    let mut scratch = Vec::new();
    let path = CanonicalPath::new(question.path.as_bytes(), &mut scratch)
        .with_context(|| format!("a gate refuses the path `{}` with 400", question.path))?;
    question.path = path.as_str().to_owned();
    question.port = port(&snapshot.site, &question);
    Ok(explain(snapshot, &question))
}

/// The port that is asked. Where a gate has other ports than 80 and 443, a URL without a port means the one that speaks
/// its scheme, so that one URL can be asked at both gates.
fn port(site: &Site, question: &Question) -> u16 {
    let entry_points = || site.gates.get(&question.gate).into_iter().flat_map(|gate| gate.entry_points.values());
    let is_known = entry_points().any(|point| point.port == question.port);
    if is_known || question.port != question.scheme.default_port() {
        return question.port;
    }
    let speaks = |protocol| match (protocol, question.scheme) {
        (EntryProtocol::Http, UrlScheme::Http) | (EntryProtocol::Https, UrlScheme::Https) => true,
        (EntryProtocol::Http, UrlScheme::Https) | (EntryProtocol::Https, UrlScheme::Http) => false,
    };
    entry_points().find(|point| speaks(point.protocol)).map_or(question.port, |point| point.port)
}
