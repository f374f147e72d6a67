//! `dualgate tunnel`: the ends of the tunnel, written for what else can make them.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use dualgate_core::model::Secret;
use dualgate_core::plan::tunnel::PeerName;
use dualgate_core::plan::tunnel::export::{self, Export, File, Key};
use dualgate_host::Keys;
use dualgate_host::keys::{KeysError, Slot, write_file};
use serde_json::json;

use super::keys::Owner;
use crate::cli::Format;
use crate::cli::tunnel::{Tunnel, TunnelCommand, TunnelExport, TunnelFormat};
use crate::inputs::choose_node;
use crate::output;

/// 0, or an error when there is nothing to export.
pub fn run(args: &Tunnel) -> anyhow::Result<ExitCode> {
    match &args.command {
        TunnelCommand::Export(args) => export(args),
    }
}

fn export(args: &TunnelExport) -> anyhow::Result<ExitCode> {
    let snapshot = args.inputs.snapshot_of_site()?;
    let name = match args.router || args.format == TunnelFormat::Fritzbox {
        true => PeerName::Router,
        false => PeerName::Node(choose_node(&snapshot.site, args.node.as_ref())?),
    };
    let owner = Owner::new((*snapshot.site).clone(), name, args.state.as_deref());
    let format = match args.format {
        TunnelFormat::Fritzbox => export::Format::Fritzbox,
        TunnelFormat::WgQuick => export::Format::WgQuick,
        TunnelFormat::Networkd => export::Format::Networkd,
        TunnelFormat::Nixos => export::Format::Nixos,
    };
    let keys = Keys::directory(&owner.state);
    let keys = keys.to_str().context("the state directory's path is not UTF-8: name another with --state")?;
    let export = export::export(&snapshot, &owner.name, format, keys, args.edge.as_ref())?;
    let written = match &args.with_keys {
        Some(folder) => Some(write(&export, &owner, folder)?),
        None => None,
    };
    match args.output.output {
        Format::Json => output::json(&document(&export, written.as_deref()))?,
        Format::Text => print(&export, written.as_deref())?,
    }
    Ok(output::verdict(true))
}

/// Writes the files with their keys; their paths.
fn write(export: &Export, owner: &Owner, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut written = Vec::new();
    for file in &export.files {
        let path = folder.join(&file.name);
        write_file(&path, &filled(file, owner)?)?;
        written.push(path.display().to_string());
    }
    Ok(written)
}

fn filled(file: &File, owner: &Owner) -> Result<Secret, KeysError> {
    file.with_keys(|key| {
        let slot = match key {
            Key::Private => Slot::Private,
            Key::Preshared(pair) => Slot::Preshared(pair.clone()),
        };
        Ok(Keys::open(&owner.state)?.current(&slot)?.to_base64())
    })
}

/// With keys in them, only the paths are named.
fn document(export: &Export, written: Option<&[String]>) -> serde_json::Value {
    match written {
        Some(written) => json!({"written": written, "steps": export.steps}),
        None => {
            let file = |file: &File| json!({"name": file.name, "text": file.text()});
            let files: Vec<_> = export.files.iter().map(file).collect();
            json!({"files": files, "marks": export.marks, "steps": export.steps})
        }
    }
}

/// The files can be sent into a file as they are; what else has to be done would not belong into it.
fn print(export: &Export, written: Option<&[String]>) -> anyhow::Result<()> {
    let page = match (written, export.files.as_slice()) {
        (Some(written), _) => written.iter().map(|path| format!("wrote {path}\n")).collect(),
        (None, [only]) => only.text(),
        (None, several) => several.iter().map(|file| format!("# {}\n{}\n", file.name, file.text())).collect(),
    };
    output::text(&output::visible(&page))?;
    let marks = export.marks.iter().filter(|_| written.is_none());
    for (number, step) in (1..).zip(marks.chain(&export.steps)) {
        let _ = writeln!(std::io::stderr(), "{number}. {}", output::one_line(step));
    }
    Ok(())
}
