//! `dualgate plan`: what would change on a running node, if it read these inputs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use dualgate_core::model::{GateName, NodeName};
use dualgate_core::plan;
use serde::Serialize;

use super::status;
use crate::cli::{Format, Plan};
use crate::inputs::choose_node;
use crate::output::{self, Colour, Style};
use crate::state::Report;
use crate::{describe, inputs};

/// 0 when nothing would change, 1 when something would, 2 when the node could not be asked.
pub fn run(args: &Plan) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot()?;
    let node = choose_node(&snapshot.site, args.node.as_ref())?;
    let desired = describe::proxy(&plan::node(&snapshot, &node).proxy);
    let admin = match args.admin.or(snapshot.site.admin.listen.first().copied()) {
        Some(admin) => admin,
        None => bail!("the site file gives {node} no admin listener: name one with --admin"),
    };
    let (changes, code) = match ask(admin, &node) {
        Ok(report) => {
            let changes = Changes::between(&node, Some(&report), desired);
            let same = changes.add.is_empty() && changes.remove.is_empty();
            (changes, output::verdict(same))
        }
        Err(error) => {
            output::error(&error);
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
