//! The page of the metrics: what a running dualgate says about its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
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

/// Runs dualgate with one route, asks it once, and reads its metrics; then once more with a cluster as its source.
pub fn page(workspace: &Workspace) -> Result<String> {
    let folder = workspace.target.join("docs");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty `{}`", folder.display()))?;
    }
    std::fs::create_dir_all(folder.join("objects"))?;
    let mut metrics = read(&scrape(workspace, &folder, Source::Folder)?);
    for (name, metric) in read(&scrape(workspace, &folder, Source::Cluster)?) {
        metrics.entry(name).or_insert(metric);
    }
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

/// Where the objects of a run come from.
#[derive(Clone, Copy)]
enum Source {
    Folder,
    /// One that does not answer: what the run before left on disk is served.
    Cluster,
}

fn scrape(workspace: &Workspace, folder: &Path, source: Source) -> Result<String> {
    let program = workspace.binary("dualgate", "dev")?;
    let [gate, admin, echo, api] = free_ports()?;
    std::fs::write(folder.join("site.yaml"), site(gate, admin))?;
    std::fs::write(folder.join("objects/objects.yaml"), objects(echo))?;
    std::fs::write(folder.join("kubeconfig"), kubeconfig(api))?;

    let mut command = Command::new(program);
    command.current_dir(folder).args(["run", "--site", "site.yaml", "--state", "state", "--workers", "1"]);
    command.args(["--echo", &format!("127.0.0.1:{echo}")]).args(match source {
        Source::Folder => ["--source", "folder:objects"].as_slice(),
        Source::Cluster => ["--source", "cluster", "--kubeconfig", "kubeconfig"].as_slice(),
    });
    let mut dualgate =
        Running::start("dualgate", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let is_served = |answer: String| match source {
        Source::Folder => answer.starts_with("HTTP/1.1 200"),
        // The echo's port of the run before is not this one's.
        Source::Cluster => answer.starts_with("HTTP/1.1 "),
    };
    dualgate.wait_until(|| ask(gate, "docs.example.org", "/").is_ok_and(is_served))?;
    // The source notices for itself that nobody answers.
    let has_tried = |answer: &String| answer.contains("code=\"cluster-away\"");
    let mut answer = String::new();
    dualgate.wait_until(|| {
        answer = ask(admin, "127.0.0.1", "/metrics").unwrap_or_default();
        match source {
            Source::Folder => !answer.is_empty(),
            Source::Cluster => has_tried(&answer),
        }
    })?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        Some(_) | None => bail!("the admin listener answered:\n{answer}"),
    }
}

/// How to reach an API server, which is not there.
fn kubeconfig(api: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: docs\nclusters: [{{name: docs, cluster: {{server: \
         'http://127.0.0.1:{api}'}}}}]\nusers: [{{name: docs, user: {{}}}}]\ncontexts: [{{name: docs, context: \
         {{cluster: docs, user: docs}}}}]\n"
    )
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
