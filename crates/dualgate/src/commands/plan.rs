//! `dualgate plan`: what would change on a running node, if it read these inputs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use dualgate_core::model::{GateName, NodeName};
use dualgate_core::plan::{self, ipam};
use serde::Serialize;

use super::status;
use crate::cli::{Format, Plan};
use crate::describe;
use crate::inputs::choose_node;
use crate::output::{self, Colour, Style};
use crate::state::Report;

/// 0 when nothing would change, 1 when something would, 2 when the node could not be asked.
pub fn run(args: &Plan) -> anyhow::Result<ExitCode> {
    let mut snapshot = args.inputs.snapshot()?;
    let node = choose_node(&snapshot.site, args.node.as_ref())?;
    let admin = match args.admin.or(snapshot.site.admin.listen.first().copied()) {
        Some(admin) => admin,
        None => bail!("the site file gives {node} no admin listener: name one with --admin"),
    };
    let (changes, code) = match ask(admin, &node) {
        Ok(report) => {
            // What Services have stays theirs.
            snapshot.facts.assigned = Arc::new(report.virtual_ips.assigned.clone());
            snapshot.facts.assigned = Arc::new(ipam::assign(&snapshot).assignments);
            let desired = describe::node(&plan::node(&snapshot, &node));
            let changes = Changes::between(&node, Some(&report), desired);
            let same = changes.add.is_empty() && changes.remove.is_empty();
            (changes, output::verdict(same))
        }
        Err(error) => {
            output::error(&error);
            let desired = describe::node(&plan::node(&snapshot, &node));
            (Changes::between(&node, None, desired), ExitCode::from(output::COULD_NOT_TELL))
        }
    };
    match args.output.output {
        Format::Json => output::json(&changes)?,
        Format::Text => output::text(&changes.page(Style::stdout()))?,
    }
    Ok(code)
}

fn ask(admin: SocketAddr, node: &NodeName) -> anyhow::Result<Report> {
    let report = status::ask(admin)?;
    if report.node != node.as_str() {
        bail!("the node at {admin} is `{}`, not `{node}`: name its admin listener with --admin", report.node);
    }
    Ok(report)
}

/// What would change.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changes {
    node: String,
    /// The snapshot that the node serves; absent if it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    add: Vec<String>,
    remove: Vec<String>,
    /// What of `add` the Internet could reach from then on.
    public: Vec<String>,
}

impl Changes {
    fn between(node: &NodeName, running: Option<&Report>, desired: BTreeSet<String>) -> Self {
        let nothing = BTreeSet::new();
        let observed = running.map_or(&nothing, |report| &report.plan);
        let already: BTreeSet<_> = observed.iter().flat_map(|line| public(line)).collect();
        let add: Vec<String> = desired.difference(observed).cloned().collect();
        let is_newly_public = |line: &&String| public(line).iter().any(|pair| !already.contains(pair));
        Self {
            node: node.to_string(),
            generation: running.map(|report| report.generation),
            public: add.iter().filter(is_newly_public).cloned().collect(),
            remove: observed.difference(&desired).cloned().collect(),
            add,
        }
    }

    fn page(&self, style: Style) -> String {
        let mut page = String::new();
        let mut section = |title: &str, sign: &str, colour: Colour, lines: &[String]| {
            if !title.is_empty() && !lines.is_empty() {
                let _ = writeln!(page, "\n{}", style.paint(Colour::Bold, title));
            }
            for line in lines {
                let _ = writeln!(page, "{}", style.paint(colour, &format!("{sign} {}", output::one_line(line))));
            }
        };
        section("", "-", Colour::Red, &self.remove);
        section("", "+", Colour::Green, &self.add);
        section("From then on reachable from the Internet:", "!", Colour::Yellow, &self.public);
        let (add, remove) = (self.add.len(), self.remove.len());
        let _ = match (self.generation, add, remove) {
            (None, _, _) => writeln!(page, "\n{} could not be asked: this is its whole plan", self.node),
            (Some(_), 0, 0) => writeln!(page, "{} serves this already", self.node),
            (Some(_), _, _) => writeln!(page, "\n{}: {add} to add, {remove} to remove", self.node),
        };
        page
    }
}

/// What the Internet reaches by a line of a plan: host and path, once for each entry point of the external gate; or a port
/// that the firewall opens for everybody.
fn public(line: &str) -> Vec<(&str, &str)> {
    if let Some((port, why)) = line.strip_prefix("open ").and_then(|line| line.split_once(" for everybody")) {
        return vec![(port, why)];
    }
    let external = format!("{}/", GateName::External);
    let places = line.strip_prefix("route ").and_then(|line| line.split_once(" -> ")?.0.rsplit_once(" at "));
    let Some((route, places)) = places else { return Vec::new() };
    places.split(',').filter(|place| place.starts_with(&external)).map(|place| (route, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "route a.example.org Prefix / at internal/web -> apps/a:80 (Ingress apps/a)";
    const WEB: &str = "route a.example.org Prefix / at external/web,internal/web -> apps/a:80 (Ingress apps/a)";
    const BOTH: &str =
        "route a.example.org Prefix / at external/web,external/websecure,internal/web -> apps/a:80 (Ingress apps/a)";
    const MOVED: &str = "route a.example.org Prefix / at external/web,internal/web -> apps/b:80 (Ingress apps/a)";

    fn between(observed: &[&str], desired: &[&str]) -> Changes {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        let report = Report {
            site: "test".into(),
            node: "node".into(),
            state: std::path::PathBuf::new(),
            phase: "serving".into(),
            objects_from: "source".into(),
            source: crate::source::Report::default(),
            statuses: None,
            ready: true,
            not_ready: Vec::new(),
            generation: 7,
            uptime_seconds: 0,
            objects: 0,
            connections: 0,
            plan: set(observed),
            virtual_ips: dualgate_host::virtual_ips::Report::default(),
            tunnel: dualgate_tunnel::Report::default(),
            published: Vec::new(),
            dns: Default::default(),
            exchange: crate::exchange::Report::default(),
            firewall: crate::wall::Report::default(),
            findings: Vec::new(),
        };
        Changes::between(&NodeName::new("node"), Some(&report), set(desired))
    }

    #[test]
    fn a_port_that_opens_for_everybody_is_said_once_more() {
        let opened = "open tcp 2222 for everybody: SSH";
        let changes =
            between(&["open tcp 22 for everybody: SSH"], &[opened, "open tcp 9181 by the tunnel for 10.0.0.5: x"]);
        assert_eq!((changes.add.len(), changes.remove.len()), (2, 1));
        assert_eq!(changes.public, [opened]);
    }

    #[test]
    fn the_same_plan_changes_nothing() {
        let changes = between(&[WEB, "listen 127.0.0.1:80"], &[WEB, "listen 127.0.0.1:80"]);
        assert_eq!((changes.add.len(), changes.remove.len(), changes.public.len()), (0, 0, 0));
        assert_eq!(changes.page(Style::Plain), "node serves this already\n");
    }

    #[test]
    fn what_becomes_public_is_pointed_out() {
        let page = between(&[HOME], &[WEB]).page(Style::Plain);
        let expected = format!(
            "- {HOME}\n+ {WEB}\n\nFrom then on reachable from the Internet:\n! {WEB}\n\nnode: 1 to add, 1 to remove\n"
        );
        assert_eq!(page, expected);
    }

    #[test]
    fn a_further_public_entry_point_is_new_and_another_backend_is_not() {
        assert_eq!(between(&[WEB], &[BOTH]).public, [BOTH]);
        assert_eq!(between(&[BOTH], &[WEB]).public, [""; 0]);
        assert_eq!(between(&[WEB], &[MOVED]).public, [""; 0]);
        assert_eq!(between(&[], &[HOME, "listen 203.0.113.1:80 for external/web (http)"]).public, [""; 0]);
    }
}
