//! `dualgate tunnel`: how this node's end is, and the ends written for what else can make them.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use dualgate_core::model::Secret;
use dualgate_core::plan::tunnel::PeerName;
use dualgate_core::plan::tunnel::export::{self, Export, File, Key};
use dualgate_host::Keys;
use dualgate_host::keys::{KeysError, Slot, write_file};
use dualgate_tunnel::{PathState, PeerReport, Report};
use serde_json::json;

use super::keys::Owner;
use crate::cli::Format;
use crate::cli::tunnel::{Tunnel, TunnelCommand, TunnelExport, TunnelFormat, TunnelStatus};
use crate::inputs::choose_node;
use crate::output::{self, Colour, Style};

/// 0, or an error when there is nothing to export.
pub fn run(args: &Tunnel) -> anyhow::Result<ExitCode> {
    match &args.command {
        TunnelCommand::Status(args) => status(args),
        TunnelCommand::Export(args) => export(args),
    }
}

/// WireGuard gives a session up after this many seconds without a handshake.
const SESSION: u64 = 180;

fn status(args: &TunnelStatus) -> anyhow::Result<ExitCode> {
    let report = super::status::ask(args.admin)?.tunnel;
    let hears = |peer: &PeerReport| peer.last_handshake_seconds.is_some_and(|age| age < SESSION);
    let well = report.backend.is_some() && report.peers.iter().all(hears);
    match args.output.output {
        Format::Json => output::json(&report)?,
        Format::Text => output::text(&page(&report, Style::stdout()))?,
    }
    Ok(output::verdict(well))
}

/// The tunnel for people: a line about the interface, then a table of the peers.
fn page(report: &Report, style: Style) -> String {
    let (Some(interface), Some(backend)) = (&report.interface, &report.backend) else {
        return match &report.interface {
            Some(interface) => format!("{interface}: not there; `dualgate status` says why\n"),
            None => "this node has no tunnel\n".to_owned(),
        };
    };
    let mut page =
        format!("{interface}: WireGuard by {backend}, UDP port {}, MTU {}\n", report.listen_port, report.mtu);
    if !report.why.is_empty() {
        page.push_str(&format!("  {}\n", report.why));
    }
    let width = report.peers.iter().map(|peer| peer.name.len()).chain([4]).max().unwrap_or_default();
    let head = format!(
        "{:width$}  {:12}  {:>10}  {:>10}  {:>6}  {:11}  endpoint",
        "peer", "handshake", "received", "sent", "rtt", "mtu"
    );
    page.push_str(&style.paint(Colour::Bold, &head));
    page.push('\n');
    for peer in &report.peers {
        let (colour, handshake) = match peer.last_handshake_seconds {
            Some(age) if age < SESSION => (Colour::Green, format!("{age} s ago")),
            Some(age) => (Colour::Red, format!("{age} s ago")),
            None => (Colour::Red, "never".to_owned()),
        };
        let handshake = style.paint(colour, &format!("{handshake:12}"));
        let endpoint = match (&peer.endpoint, peer.candidates.as_slice()) {
            (Some(endpoint), _) => endpoint.to_string(),
            (None, []) => "it dials us".to_owned(),
            (None, [first, ..]) => format!("to be dialled at {first}"),
        };
        let rtt = peer.round_trip_ms.map_or_else(String::new, |time| format!("{time} ms"));
        let (received, sent) = (octets(peer.received), octets(peer.sent));
        let mtu = mtu(peer, style);
        page.push_str(&format!(
            "{:width$}  {handshake}  {received:>10}  {sent:>10}  {rtt:>6}  {mtu}  {endpoint}\n",
            peer.name
        ));
    }
    for peer in &report.peers {
        if let Some(why) = &peer.path_unknown_because {
            page.push_str(&format!("  the path to {} is not probed: {}\n", peer.name, output::one_line(why)));
        }
    }
    page
}

/// The largest packet that is sent to a peer, as probes found it.
fn mtu(peer: &PeerReport, style: Style) -> String {
    let (colour, text) = match peer.path {
        PathState::Unknown | PathState::Unanswered => (None, "?".to_owned()),
        PathState::Whole => (None, peer.mtu.to_string()),
        PathState::Narrow => (Some(Colour::Yellow), format!("{} (path)", peer.mtu)),
        PathState::TooNarrow => (Some(Colour::Red), format!("< {}", peer.mtu)),
    };
    let text = format!("{text:11}");
    colour.map_or(text.clone(), |colour| style.paint(colour, &text))
}

/// Octets in the largest unit that leaves a whole number before the point.
fn octets(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len() - 1).take_while(|power| number >> (10 * (power + 1)) > 0).count();
    match power {
        0 => format!("{number} B"),
        _ => format!(
            "{:.1} {}",
            number as f64 / f64::from(1_u32 << 10).powi(i32::try_from(power).unwrap_or(0)),
            units[power]
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_have_a_unit_that_fits() {
        let shown = [0, 1023, 1024, 1_572_864, 5 << 40].map(octets);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"]);
    }

    #[test]
    fn a_peer_that_was_never_heard_says_where_it_is_dialled() {
        let peer = PeerReport {
            name: "ionos".to_owned(),
            candidates: vec!["203.0.113.10:56527".parse().unwrap()],
            ..PeerReport::default()
        };
        let report = Report {
            interface: Some("dualgate".to_owned()),
            backend: Some("kernel".to_owned()),
            listen_port: 56527,
            mtu: 1392,
            peers: vec![peer],
            ..Report::default()
        };
        let expected = "dualgate: WireGuard by kernel, UDP port 56527, MTU 1392\n\
                        peer   handshake       received        sent     rtt  mtu          endpoint\n\
                        ionos  never                0 B         0 B          ?            to be dialled at 203.0.113.10:56527\n";
        assert_eq!(page(&report, Style::Plain), expected);
        assert_eq!(page(&Report::default(), Style::Plain), "this node has no tunnel\n");
    }

    #[test]
    fn the_mtu_says_whether_the_path_takes_what_the_site_file_says() {
        let shown = |path, mtu| {
            let peer = PeerReport { path, mtu, ..PeerReport::default() };
            super::mtu(&peer, Style::Plain).trim_end().to_owned()
        };
        assert_eq!(shown(PathState::Unknown, 1392), "?");
        assert_eq!(shown(PathState::Unanswered, 1392), "?");
        assert_eq!(shown(PathState::Whole, 1392), "1392");
        assert_eq!(shown(PathState::Narrow, 1312), "1312 (path)");
        assert_eq!(shown(PathState::TooNarrow, 1280), "< 1280");
    }

    #[test]
    fn a_path_that_cannot_be_probed_says_why() {
        let peer = PeerReport {
            name: "ionos".to_owned(),
            path_unknown_because: Some("it answers no echo requests".to_owned()),
            ..PeerReport::default()
        };
        let (interface, backend) = (Some("dualgate".to_owned()), Some("tun".to_owned()));
        let page = page(&Report { interface, backend, peers: vec![peer], ..Report::default() }, Style::Plain);
        assert!(page.ends_with("  the path to ionos is not probed: it answers no echo requests\n"), "{page}");
    }
}
