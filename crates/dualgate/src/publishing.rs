//! Zones at their providers beside the gates: one node writes them, and how they are is shown and counted.

use std::fmt::Write as _;

use dualgate_core::lower::Lowered;
use dualgate_core::model::site::Node;
use dualgate_core::model::{Finding, NodeName, Snapshot};
use dualgate_core::plan;
use dualgate_host::publish::publisher::{Publisher, Report, View};

/// What this node writes.
#[derive(Default)]
pub struct Publishing(Publisher);

impl Publishing {
    /// Plans what is to stand at providers, if this node writes. An edge never does: it has no keys of providers.
    pub fn plan(&mut self, snapshot: &Snapshot, lowered: &Lowered, node: &NodeName, writes: bool) {
        let is_home = snapshot.site.node(node).is_some_and(|node| !Node::is_edge(node));
        let wanted = if writes && is_home { plan::publish::publish(snapshot, lowered) } else { Vec::new() };
        self.0.want(wanted);
    }

    /// For whoever shows how it is.
    pub fn view(&self) -> View {
        self.0.view()
    }

    /// What could not be written, and what others have.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.findings()
    }

    /// Waits until something else is wrong.
    pub async fn changed(&mut self) {
        self.0.changed().await;
    }
}

/// How a zone is, for people; `now` in seconds since 1970.
pub fn line(report: &Report, now: u64) -> String {
    let Report { zone, provider, wanted, conflicts, .. } = report;
    let state = match (&report.error, report.synced) {
        (None, Some(at)) => format!("as wanted {} s ago", now.saturating_sub(at)),
        (None, None) => "not written yet".to_owned(),
        (Some(error), Some(at)) => format!("{error}; as wanted {} s ago", now.saturating_sub(at)),
        (Some(error), None) => error.clone(),
    };
    let mut line = format!("{zone} at {provider}: {wanted} sets of records, {state}");
    if *conflicts > 0 {
        let _ = write!(line, "; {conflicts} of them are somebody else's");
    }
    if !report.refused.is_empty() {
        let _ = write!(line, "; refused there: {}", report.refused.join(", "));
    }
    if !report.unfit.is_empty() {
        let _ = write!(line, "; not taken there: {}", report.unfit.join(", "));
    }
    if !report.kept.is_empty() {
        let _ = write!(line, "; kept: {}", report.kept.join(", "));
    }
    line
}

/// The metrics of the zones that this node writes.
pub fn write_metrics(out: &mut String, reports: &[Report]) {
    let mut family = |name: &str, kind: &str, help: &str, values: &dyn Fn(&Report) -> Vec<(String, u64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for report in reports {
            let zone = format!("zone=\"{}\",provider=\"{}\"", report.zone, report.provider);
            for (label, value) in values(report) {
                let _ = writeln!(out, "{name}{{{zone}{label}}} {value}");
            }
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let name = "dualgate_dns_published_sets";
    family(name, "gauge", "Sets of records that are wanted at a provider.", &|report| one(report.wanted as u64));
    let name = "dualgate_dns_publish_conflicts";
    family(name, "gauge", "Sets of records that are wanted and somebody else's.", &|report| {
        one(report.conflicts as u64)
    });
    let name = "dualgate_dns_publish_changes_total";
    family(name, "counter", "Changes that were made at a provider.", &|report| {
        let kinds = [("create", report.created), ("update", report.updated), ("delete", report.deleted)];
        kinds.map(|(kind, value)| (format!(",kind=\"{kind}\""), value)).to_vec()
    });
    let name = "dualgate_dns_publish_failures_total";
    family(name, "counter", "Times that a provider could not be read or written.", &|report| one(report.failures));
    let name = "dualgate_dns_publish_success_timestamp_seconds";
    family(name, "gauge", "When a zone last was as wanted at its provider.", &|report| {
        report.synced.map(|at| (String::new(), at)).into_iter().collect()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_how_a_zone_is_at_its_provider() {
        let report = Report { zone: "example.org".into(), provider: "knot".into(), wanted: 3, ..Report::default() };
        assert_eq!(line(&report, 100), "example.org at knot: 3 sets of records, not written yet");
        let synced =
            Report { synced: Some(90), conflicts: 1, unfit: vec!["a.example.org HTTPS".into()], ..report.clone() };
        let expected = "example.org at knot: 3 sets of records, as wanted 10 s ago; 1 of them are somebody else's; not taken \
                        there: a.example.org HTTPS";
        assert_eq!(line(&synced, 100), expected);
        let failed = Report { synced: Some(90), error: Some("no answer".into()), kept: vec!["b A".into()], ..report };
        let expected = "example.org at knot: 3 sets of records, no answer; as wanted 10 s ago; kept: b A";
        assert_eq!(line(&failed, 100), expected);
    }

    #[test]
    fn a_zone_that_was_never_written_has_no_time_of_it() {
        let report = Report { zone: "example.org".into(), provider: "knot".into(), created: 2, ..Report::default() };
        let mut out = String::new();
        write_metrics(&mut out, &[report]);
        let created = "dualgate_dns_publish_changes_total{zone=\"example.org\",provider=\"knot\",kind=\"create\"} 2";
        assert!(out.lines().any(|line| line == created), "{out}");
        assert!(!out.contains("dualgate_dns_publish_success_timestamp_seconds{"), "{out}");
    }
}
