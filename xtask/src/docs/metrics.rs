//! The page of the metrics: what a running dualgate says about its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{Running, ask, free_ports};
use crate::workspace::Workspace;

/// One family, as Prometheus' text form describes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Runs dualgate with one route, asks it once, and reads its metrics.
pub fn page(workspace: &Workspace) -> Result<String> {
    let metrics = read(&scrape(workspace)?);
    if metrics.is_empty() {
        bail!("dualgate describes no metrics");
    }
    let mut page = String::from(
        "# Metrics\n\n<!-- Written by `cargo xtask docs`. -->\n\n\
         In Prometheus' text form at `/metrics` of the admin listener. Units are seconds and bytes; labels are bounded.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for (name, Metric { kind, help, labels }) in &metrics {
        if let Some(mistake) = misnamed(name, kind) {
            bail!("`{name}` {mistake}");
        }
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    Ok(page)
}

/// Names are `dualgate_<area>_<noun>_<unit>[_total]`.
fn misnamed(name: &str, kind: &str) -> Option<&'static str> {
    if !name.starts_with("dualgate_") {
        Some("does not begin with dualgate_")
    } else if (kind == "counter") != name.ends_with("_total") {
        Some("must end in _total if it is a counter, and only then")
    } else if name.contains("millis") || name.contains("kilo") {
        Some("is not in base units")
    } else {
        None
    }
}

fn read(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{') {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let family = family.filter(|family| metrics.contains_key(*family)).unwrap_or(name);
            let Some(metric) = metrics.get_mut(family) else { continue };
            let names = labels.split('=').filter_map(|part| part.rsplit([',', '{']).next());
            let names = names.filter(|name| !name.contains(['}', '"']) && *name != "le");
            metric.labels.extend(names.map(str::to_owned));
        }
    }
    metrics
}

fn scrape(workspace: &Workspace) -> Result<String> {
    let program = workspace.binary("dualgate", "dev")?;
    let [gate, admin, echo] = free_ports()?;
    let folder = workspace.target.join("docs");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty `{}`", folder.display()))?;
    }
    std::fs::create_dir_all(folder.join("objects"))?;
    std::fs::write(folder.join("site.yaml"), site(gate, admin))?;
    std::fs::write(folder.join("objects/objects.yaml"), objects(echo))?;

    let mut command = Command::new(program);
    command.current_dir(&folder).args(["run", "--site", "site.yaml", "--source", "folder:objects", "--state", "state"]);
    command.args(["--echo", &format!("127.0.0.1:{echo}"), "--workers", "1"]);
    let mut dualgate =
        Running::start("dualgate", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    dualgate
        .wait_until(|| ask(gate, "docs.example.org", "/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))?;
    let answer = ask(admin, "127.0.0.1", "/metrics")?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        Some(_) | None => bail!("the admin listener answered:\n{answer}"),
    }
}

fn site(gate: u16, admin: u16) -> String {
    format!(
        "apiVersion: dualgate.dev/v1alpha1\nkind: Site\n\
         nodes: [{{name: docs, addresses: [127.0.0.1], roles: [internal-gate]}}]\n\
         gates: {{internal: {{addresses: [127.0.0.1], entryPoints: {{web: {gate}}}}}}}\n\
         admin: {{listen: ['127.0.0.1:{admin}']}}\n"
    )
}

/// A route, and one that leads nowhere, so that there is a finding to count.
fn objects(echo: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{name: echo, namespace: docs, annotations: {{dualgate.dev/endpoints: '127.0.0.1:{echo}'}}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n\
         ---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: echo, namespace: docs}}\n\
         spec: {{defaultBackend: {{service: {{name: echo, port: {{number: 80}}}}}}}}\n\
         ---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: gone, namespace: docs}}\n\
         spec: {{rules: [{{host: gone.example.org, http: {{paths: [{{path: /, pathType: Prefix, \
         backend: {{service: {{name: gone, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_with_the_labels_of_their_samples() {
        let text = "# HELP dualgate_a_total As.\n# TYPE dualgate_a_total counter\ndualgate_a_total{gate=\"x\",code=\"{}=\"} 1\n\
            # HELP dualgate_b_seconds How long.\n# TYPE dualgate_b_seconds histogram\ndualgate_b_seconds_bucket{gate=\"x\",le=\"1\"} 1\n\
            dualgate_b_seconds_sum{gate=\"x\"} 2\n# HELP dualgate_c C.\n# TYPE dualgate_c gauge\ndualgate_c 1\n";
        let metric = |kind: &str, help: &str, labels: &[&str]| Metric {
            kind: kind.into(),
            help: help.into(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        let expected = BTreeMap::from([
            ("dualgate_a_total".to_owned(), metric("counter", "As.", &["code", "gate"])),
            ("dualgate_b_seconds".to_owned(), metric("histogram", "How long.", &["gate"])),
            ("dualgate_c".to_owned(), metric("gauge", "C.", &[])),
        ]);
        assert_eq!(read(text), expected);
    }

    #[test]
    fn names_follow_the_form() {
        assert_eq!(misnamed("dualgate_requests_total", "counter"), None);
        assert_eq!(misnamed("dualgate_connections", "gauge"), None);
        assert!(misnamed("requests_total", "counter").is_some());
        assert!(misnamed("dualgate_requests", "counter").is_some());
        assert!(misnamed("dualgate_open_total", "gauge").is_some());
        assert!(misnamed("dualgate_wait_milliseconds", "histogram").is_some());
    }
}
