//! `dualgate edge`: what an edge needs, packed so that one copy is enough.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use dualgate_core::model::site::{Node, Role};
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{Code, Finding, NodeName, Place, PublicKeys, Severity, Site};
use dualgate_core::parse::site::Marks;
use dualgate_core::plan::tunnel::{self, Pair, Peer, PeerName};
use dualgate_core::render::bundle::{self, Content, Entry, Made};
use dualgate_core::render::elf::{self, Program};
use dualgate_core::render::k3s::{self, Wishes};
use dualgate_core::render::unit;
use dualgate_host::Keys;
use dualgate_host::keys::{Outcome, Slot};
use serde_json::json;

use super::keys::Owner;
use super::render::{steps, tell};
use crate::cli::Format;
use crate::cli::edge::{Edge, EdgeBundle, EdgeCommand};
use crate::inputs::{snapshot, usable_reading};
use crate::output;

/// When every file was changed last, so that the same inputs make the same octets: 2000-01-01. GNU tar warns of 1970.
const CHANGED: u64 = 946_684_800;

/// 0, or an error when there is nothing to pack.
pub fn run(args: &Edge) -> anyhow::Result<ExitCode> {
    match &args.command {
        EdgeCommand::Bundle(args) => bundle(args),
    }
}

fn bundle(args: &EdgeBundle) -> anyhow::Result<ExitCode> {
    let (site, marks) = usable_reading(&args.site)?;
    let edge = choose_edge(&site, args.node.as_ref())?.clone();
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{}.tar", edge.name)));
    let plan = tunnel::tunnel(&snapshot(Generation(0), Arc::new(site.clone()), Arc::default()), &edge.name);
    let Some(interface) = plan.interface else {
        bail!("no tunnel leads to `{}`: add `tunnel: {{}}` to the site file", edge.name);
    };
    let mut findings = strangers(&site, &marks, &interface.peers);
    let config = config(&site, &marks, &edge, &mut findings)?;
    let name = to.file_name().and_then(|name| name.to_str()).context("the bundle's name is not UTF-8")?;
    let entries = bundle::entries(&site, &edge, &Made { name, peers: &interface.peers, k3s: config });
    let program = read_program(args.binary.as_deref(), &mut findings)?;
    // All that can be refused is refused by now; keys are made last.
    let destination = Destination::of(&to, args.force)?;
    let owner = Owner::new(site.clone(), PeerName::Node(edge.name.clone()), args.state.as_deref());
    let keys = SharedKeys::make(&owner.state, &interface.peers)?;
    let files = Files { site: std::fs::read(&args.site)?, program, keys: &keys };
    destination.write(&entries, &files)?;
    let steps_of = next_steps(&edge, &to, &keys, &owner.state, &interface.peers);
    match args.output.output {
        Format::Json => output::json(&json!({
            "node": edge.name.as_str(),
            "bundle": to,
            "files": entries.iter().map(described).collect::<Vec<_>>(),
            "madeKeys": keys.made.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "findings": findings,
            "steps": steps_of,
        }))?,
        Format::Text => {
            tell(&findings)?;
            output::text(&output::visible(&page(&to, &entries)))?;
            steps(&steps_of);
        }
    }
    Ok(output::verdict(true))
}

/// The edge that is named, or the only one.
fn choose_edge<'a>(site: &'a Site, named: Option<&NodeName>) -> anyhow::Result<&'a Node> {
    let edges: Vec<&Node> = site.nodes.iter().filter(|node| node.is_edge()).collect();
    let known = || edges.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, edges.as_slice()) {
        (_, []) => bail!("the site has no edge: a node with the role `external-gate` that is not at home"),
        (None, [only]) => Ok(only),
        (None, _) => bail!("the site has several edges; say which with --node ({})", known()),
        (Some(name), _) => match edges.iter().find(|node| node.name == *name) {
            Some(edge) => Ok(edge),
            None => bail!("`{name}` is no edge of the site; there is {}", known()),
        },
    }
}

/// Ends at home whose public keys the edge would not know.
fn strangers(site: &Site, marks: &Marks, peers: &[Peer]) -> Vec<Finding> {
    let unknown = peers.iter().filter(|peer| peer.public_keys == PublicKeys::Unknown);
    let of_peer = |peer: &Peer| {
        let (field, whose) = match &peer.name {
            PeerName::Node(name) => {
                let index = site.nodes.iter().position(|node| node.name == *name).unwrap_or_default();
                (format!("nodes[{index}]"), format!("--node {name}"))
            }
            PeerName::Router => ("lan.router".to_owned(), "--router".to_owned()),
        };
        let message = format!("the public key of `{}` is not known: the edge will not hear it", peer.name);
        let help =
            format!("run `dualgate keys init {whose}` there, write `publicKeys` here, and make the bundle again");
        let finding = Finding::new(Code::TunnelKey, marks.place(&field), message).help(help);
        Finding { severity: Severity::Warning, ..finding }
    };
    unknown.map(of_peer).collect()
}

/// K3s' configuration, where the edge is part of the cluster.
fn config(site: &Site, marks: &Marks, edge: &Node, findings: &mut Vec<Finding>) -> anyhow::Result<Option<String>> {
    if !edge.has(Role::Agent) && !edge.has(Role::Server) {
        return Ok(None);
    }
    let rendered = k3s::k3s(site, marks, &edge.name, &Wishes::default());
    let Some(config) = rendered.config else {
        tell(&rendered.findings)?;
        bail!("`{}` is part of the K3s cluster, and cannot be as the site file has it", edge.name);
    };
    findings.extend(rendered.findings);
    Ok(Some(config.to_yaml()))
}

/// The program for the edge; what it needs there that the bundle does not hold is a finding.
fn read_program(named: Option<&Path>, findings: &mut Vec<Finding>) -> anyhow::Result<Vec<u8>> {
    let (path, mut file) = match named {
        Some(path) => (path.to_owned(), File::open(path)),
        // The program of this process, also when an upgrade has put another in its place.
        None => (std::env::current_exe().unwrap_or_default(), File::open("/proc/self/exe")),
    };
    let shown = path.display().to_string();
    let mut octets = Vec::new();
    let read = file
        .as_mut()
        .map_err(|error| std::io::Error::from(error.kind()))
        .and_then(|file| file.read_to_end(&mut octets));
    read.with_context(|| format!("read the program `{shown}`"))?;
    let program = elf::program(&octets).with_context(|| format!("`{shown}` is no program for an edge (--binary)"))?;
    let Program { machine, loader, libraries } = program;
    if let Some(loader) = loader {
        let place = Place { file: Some(shown.as_str().into()), ..Place::default() };
        let message = format!(
            "the program needs {loader} and {} of the edge, in these versions or later ones ({machine})",
            libraries.join(", ")
        );
        let help = "take a static one with --binary; or an edge with the same distribution as this machine";
        findings.push(Finding::new(Code::BundleProgram, place, message).help(help));
    }
    Ok(octets)
}

/// The preshared keys of the edge's pairs.
struct SharedKeys {
    keys: Option<Keys>,
    made: Vec<Pair>,
}

impl SharedKeys {
    /// Those in a state directory; what is missing is made there.
    fn make(state: &Path, peers: &[Peer]) -> anyhow::Result<Self> {
        let pairs: Vec<&Pair> = peers.iter().filter_map(|peer| peer.preshared_key.as_ref()).collect();
        let keys = if pairs.is_empty() { None } else { Some(Keys::create(state)?) };
        let mut made = Vec::new();
        for pair in pairs {
            let outcome = keys.as_ref().map(|keys| keys.init(&Slot::Preshared(pair.clone()))).transpose()?;
            if outcome == Some(Outcome::Written) {
                made.push(pair.clone());
            }
        }
        Ok(Self { keys, made })
    }

    /// As its file holds it.
    fn file(&self, pair: &Pair) -> anyhow::Result<Vec<u8>> {
        let keys = self.keys.as_ref().context("a pair has a key")?;
        // Exposed to a file that only its owner can read, and to a bundle of the same kind.
        Ok([keys.current(&Slot::Preshared(pair.clone()))?.to_base64().expose(), b"\n"].concat())
    }
}

/// What the files hold.
struct Files<'a> {
    site: Vec<u8>,
    program: Vec<u8>,
    keys: &'a SharedKeys,
}

impl Files<'_> {
    /// `None` for a folder.
    fn octets(&self, entry: &Entry) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(Some(match &entry.content {
            Content::Folder => return Ok(None),
            Content::Program => self.program.clone(),
            Content::Site => self.site.clone(),
            Content::Preshared(pair) => self.keys.file(pair)?,
            Content::Text(text) => text.clone().into_bytes(),
        }))
    }
}

/// Where the bundle is written.
enum Destination {
    /// Into a file.
    Tar(PathBuf),
    /// Below a folder.
    Folder(PathBuf),
}

impl Destination {
    /// What is there stays there, unless it is forced.
    fn of(to: &Path, force: bool) -> anyhow::Result<Self> {
        let shown = to.display();
        let is_empty = || to.read_dir().is_ok_and(|mut entries| entries.next().is_none());
        if !force && to.symlink_metadata().is_ok() && !is_empty() {
            bail!("`{shown}` is there: --force writes over it, --to names another place");
        }
        Ok(match to.extension().is_some_and(|extension| extension == "tar") {
            true => Self::Tar(to.to_owned()),
            false => Self::Folder(to.to_owned()),
        })
    }

    fn write(&self, entries: &[Entry], files: &Files<'_>) -> anyhow::Result<()> {
        match self {
            Self::Tar(path) => write_tar(path, entries, files).with_context(|| format!("write `{}`", path.display())),
            Self::Folder(path) => {
                let written = entries.iter().try_for_each(|entry| write_below(path, entry, files));
                written.with_context(|| format!("write below `{}`", path.display()))
            }
        }
    }
}

/// Beside its place first, so that what stops in the middle leaves no half of it. It may hold keys.
fn write_tar(path: &Path, entries: &[Entry], files: &Files<'_>) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".tmp-{name}"));
    let _ = std::fs::remove_file(&temporary);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut archive = tar::Builder::new(file);
    let packed = entries.iter().try_for_each(|entry| pack(&mut archive, entry, files));
    let synced = packed.and_then(|()| Ok(archive.into_inner()?.sync_all()?));
    let renamed = synced.and_then(|()| Ok(std::fs::rename(&temporary, path)?));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    renamed
}

/// All belongs to root; whoever unpacks it as somebody else becomes the owner.
fn pack(archive: &mut tar::Builder<File>, entry: &Entry, files: &Files<'_>) -> anyhow::Result<()> {
    let octets = files.octets(entry)?;
    let mut header = tar::Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mtime(CHANGED);
    header.set_entry_type(if octets.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
    let octets = octets.unwrap_or_default();
    header.set_size(octets.len() as u64);
    let slash = if header.entry_type().is_dir() { "/" } else { "" };
    archive.append_data(&mut header, format!("{}{slash}", entry.path), octets.as_slice())?;
    Ok(())
}

fn write_below(root: &Path, entry: &Entry, files: &Files<'_>) -> anyhow::Result<()> {
    let path = root.join(&entry.path);
    let Some(octets) = files.octets(entry)? else {
        DirBuilder::new().recursive(true).mode(entry.mode).create(&path)?;
        // One that was there may have had others.
        return Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(entry.mode))?);
    };
    DirBuilder::new().recursive(true).create(path.parent().unwrap_or(root))?;
    // Its rights from its first octet on, and no link is followed.
    let _ = std::fs::remove_file(&path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(&octets)?;
    file.set_permissions(std::fs::Permissions::from_mode(entry.mode))?;
    Ok(file.sync_all()?)
}

fn described(entry: &Entry) -> serde_json::Value {
    json!({"path": format!("/{}", entry.path), "mode": format!("{:04o}", entry.mode), "what": entry.what})
}

fn page(to: &Path, entries: &[Entry]) -> String {
    let files = || entries.iter().filter(|entry| entry.content != Content::Folder);
    let width = files().map(|entry| entry.path.len()).max().unwrap_or_default();
    let line = |entry: &Entry| format!("  {:04o}  /{:width$}  {}\n", entry.mode, entry.path, entry.what);
    format!("wrote {}\n{}", to.display(), files().map(line).collect::<String>())
}

/// What comes next; the bundle says it as well.
fn next_steps(edge: &Node, to: &Path, keys: &SharedKeys, state: &Path, peers: &[Peer]) -> Vec<String> {
    let (name, shown) = (&edge.name, to.display());
    let mut steps = Vec::new();
    for pair in &keys.made {
        let peer = peers.iter().find(|peer| peer.preshared_key.as_ref() == Some(pair));
        let other = peer.map_or_else(String::new, |peer| peer.name.to_string());
        let file = Keys::directory(state).join("preshared").join(pair.to_string());
        let whose = if other == "router" { "--router".to_owned() } else { format!("--node {other}") };
        steps.push(format!(
            "take {} to {other}, and there: dualgate keys init {whose} --preshared-with {name} --adopt-preshared FILE",
            file.display()
        ));
    }
    let address = edge.public_addresses.first().map_or_else(|| name.to_string(), ToString::to_string);
    let at = if address.contains(':') { format!("[{address}]") } else { address };
    let bundle = to.file_name().unwrap_or_default().display();
    match to.extension().is_some_and(|extension| extension == "tar") {
        true => {
            steps.push(format!("scp {shown} root@{at}:"));
            steps.push(format!("there, as root: tar -C / -xpf {bundle}"));
        }
        false => steps.push(format!("copy what is in {shown} to / of {name}, with its rights, to belong to root")),
    }
    steps.push("there: systemctl enable --now dualgate".to_owned());
    steps.push(format!(
        "write the public key that it made into the site file at home (`nodes[].publicKeys`); there it is said by: dualgate keys \
         show-public --site {} --node {name} --state {}",
        unit::SITE,
        unit::STATE
    ));
    steps
}
