//! `dualgate render`: files for other programs, written from the site file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use dualgate_core::model::site::Node;
use dualgate_core::model::{Finding, Secret, Severity, Site};
use dualgate_core::render::k3s::{self, Config, Value, Wishes};
use dualgate_core::render::unit::{self, Origin};
use dualgate_host::keys;
use dualgate_kube::access::{Access, connect};
use dualgate_kube::install::account;
use serde_json::json;

use crate::cli::Format;
use crate::cli::render::{Destination, Render, RenderCommand, RenderK3s, RenderKubeconfig, RenderUnit, UnitSource};
use crate::inputs::{choose_node, usable_reading};
use crate::output::finding::{self, Files, Shown};
use crate::output::{self, Style};

/// The kubeconfig that K3s writes for an administrator.
const K3S_KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// 0, or an error when there is nothing to write.
pub fn run(args: &Render) -> anyhow::Result<ExitCode> {
    match &args.command {
        RenderCommand::K3s(args) => k3s(args),
        RenderCommand::Unit(args) => unit(args),
        RenderCommand::Kubeconfig(args) => kubeconfig(args),
    }
}

fn k3s(args: &RenderK3s) -> anyhow::Result<ExitCode> {
    let (site, marks) = usable_reading(&args.target.site)?;
    let node = choose_node(&site, args.target.node.as_ref())?;
    let wishes = Wishes {
        first: args.first.clone(),
        tls_san: args.tls_san.clone(),
        node_label: args.node_label.clone(),
        node_taint: args.node_taint.clone(),
    };
    let rendered = k3s::k3s(&site, &marks, &node, &wishes);
    let format = args.target.output.output;
    if format == Format::Text {
        tell(&rendered.findings)?;
    }
    let Some(config) = rendered.config else {
        if format == Format::Json {
            output::json(&json!({"node": node.as_str(), "path": k3s::PATH, "findings": rendered.findings}))?;
        }
        let errors = rendered.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        bail!("nothing is written for `{node}`: {} to mend first", output::count(errors, "error"));
    };
    let text = config.to_yaml();
    let written = deliver(&args.target.destination, &text)?;
    match format {
        Format::Json => output::json(&json!({
            "node": node.as_str(),
            "part": config.part.program(),
            "path": k3s::PATH,
            "written": written,
            "config": values(&config),
            "text": text,
            "findings": rendered.findings,
            "steps": rendered.steps,
        }))?,
        Format::Text => {
            print(&text, written.as_deref())?;
            steps(&rendered.steps);
        }
    }
    Ok(output::verdict(true))
}

/// As K3s reads it.
fn values(config: &Config) -> serde_json::Map<String, serde_json::Value> {
    let value = |value: &Value| match value {
        Value::Yes => json!(true),
        Value::Text(text) => json!(text),
        Value::List(items) => json!(items),
    };
    config.entries.iter().map(|entry| (entry.key.name.to_owned(), value(&entry.value))).collect()
}

fn unit(args: &RenderUnit) -> anyhow::Result<ExitCode> {
    let (site, _) = usable_reading(&args.target.site)?;
    let name = choose_node(&site, args.target.node.as_ref())?;
    let node: &Node = site.node(&name).context("the node is one of the site")?;
    let origin = match args.source {
        Some(_) if node.is_edge() => {
            bail!("`{name}` is an edge, which hears from home what is public: leave --source out")
        }
        Some(UnitSource::Cluster) => Origin::Cluster,
        Some(UnitSource::Folder) | None => Origin::of(node),
    };
    let text = unit::unit(&site, node, origin);
    let written = deliver(&args.target.destination, &text)?;
    let steps_of = unit_steps(&site, node, origin);
    match args.target.output.output {
        Format::Json => {
            let name = name.as_str();
            output::json(
                &json!({"node": name, "path": unit::PATH, "written": written, "text": text, "steps": steps_of}),
            )?;
        }
        Format::Text => {
            print(&text, written.as_deref())?;
            steps(&steps_of);
        }
    }
    Ok(output::verdict(true))
}

fn unit_steps(site: &Site, node: &Node, origin: Origin) -> Vec<String> {
    let mut steps = vec![
        format!(
            "put the file to {} on {}, the site file to {}, this program to {}",
            unit::PATH,
            node.name,
            unit::SITE,
            unit::PROGRAM
        ),
        "there: systemctl daemon-reload && systemctl enable --now dualgate".to_owned(),
    ];
    match origin {
        Origin::Home => {
            steps.insert(0, format!("`dualgate edge bundle --node {}` does all of this in one file", node.name));
        }
        Origin::Folder => steps[0].push_str(&format!(", the manifests into {}", unit::MANIFESTS)),
        Origin::Cluster => {
            let make = format!("dualgate render kubeconfig --kubeconfig {K3S_KUBECONFIG} --to {}", unit::KUBECONFIG);
            steps.insert(1, format!("there: {make}"));
            steps.insert(2, format!("end its pod: dualgate install --host-service {}", node.name));
        }
    }
    if site.tunnel.is_some() {
        let show =
            format!("dualgate keys show-public --site {} --node {} --state {}", unit::SITE, node.name, unit::STATE);
        steps.push(format!("write the public key into the site file: {show}"));
    }
    steps
}

fn kubeconfig(args: &RenderKubeconfig) -> anyhow::Result<ExitCode> {
    let access = Access { kubeconfig: args.cluster.kubeconfig.clone(), context: args.cluster.context.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let made = runtime.block_on(async {
        let api = connect(&access).await?;
        let made = account(&api, args.server.as_deref(), args.duration).await;
        made.with_context(|| format!("ask the Kubernetes API {}", api.server))
    })?;
    let text = std::str::from_utf8(made.kubeconfig.expose()).context("a kubeconfig is text")?;
    let written = deliver(&args.destination, text)?;
    if made.is_shortened {
        eprintln!("note: the API server hands out no token that is good for longer than until {}", made.expires);
    }
    match args.output.output {
        // Whoever has it written to a file wants it nowhere else.
        Format::Json => output::json(&json!({
            "server": made.server, "expires": made.expires, "written": written,
            "text": written.is_none().then_some(text),
        }))?,
        Format::Text => {
            print(text, written.as_deref())?;
            steps(&[format!("write a new one before the token ends, {}: it is read again by itself", made.expires)]);
        }
    }
    Ok(output::verdict(true))
}

/// Writes the file, if it is to be one; its path.
fn deliver(target: &Destination, text: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = &target.to else { return Ok(None) };
    let shown = path.display();
    match std::fs::read(path) {
        Ok(there) if there == text.as_bytes() => return Ok(Some(path.clone())),
        Ok(_) if !target.force => bail!("`{shown}` is there and says something else: --force writes over it"),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read `{shown}`")),
    }
    keys::write_file(path, &Secret::new(text.as_bytes())).with_context(|| format!("write `{shown}`"))?;
    Ok(Some(path.clone()))
}

fn print(text: &str, written: Option<&Path>) -> anyhow::Result<()> {
    match written {
        Some(path) => output::text(&format!("wrote {}\n", output::one_line(&path.display().to_string()))),
        None => output::text(text),
    }
}

/// Findings go where they do not end up in the file.
pub fn tell(findings: &[Finding]) -> anyhow::Result<()> {
    let mut shown: Vec<Shown> = findings.iter().map(Shown::from).collect();
    let style = Style::of(&std::io::stderr());
    let mut page = finding::render(&mut shown, style, &mut Files::on_disk());
    if !page.is_empty() {
        page.push('\n');
    }
    std::io::stderr().write_all(page.as_bytes()).context("write to standard error")
}

/// What is to be done, numbered.
pub fn steps(steps: &[String]) {
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(std::io::stderr(), "{number}. {}", output::one_line(step));
    }
}
