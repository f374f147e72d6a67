//! `dualgate keys`: this node's keys, of WireGuard and of the heartbeats. Only public ones are ever printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use dualgate_core::model::site::{Role, Site};
use dualgate_core::model::{NodeName, PublicKeys};
use dualgate_core::plan::tunnel::{Pair, PeerName};
use dualgate_host::keys::{self, Key, Outcome, Slot};
use serde::Serialize;

use crate::cli::keys::{KeyOwner, Keys, KeysCommand, KeysInit, KeysRotate, KeysShowPublic};
use crate::cli::{Format, Output};
use crate::inputs::{choose_node, state_directory, usable_site};
use crate::output::{self, Colour, Style};

/// The folder of the router's keys below the state directory.
const ROUTER: &str = "router";

/// 0 when it is done; `show-public` compares with the site file.
pub fn run(args: &Keys) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeysCommand::Init(args) => init(args),
        KeysCommand::Rotate(args) => rotate(args),
        KeysCommand::ShowPublic(args) => show_public(args),
    }
}

/// Whose keys are meant, and where they lie.
pub struct Owner {
    site: Site,
    /// The end of the tunnel.
    pub name: PeerName,
    /// Its state directory.
    pub state: PathBuf,
}

impl Owner {
    fn of(args: &KeyOwner) -> anyhow::Result<Self> {
        let site = usable_site(&args.site)?;
        let name = match args.router {
            true => PeerName::Router,
            false => PeerName::Node(choose_node(&site, args.node.as_ref())?),
        };
        Ok(Self::new(site, name, args.state.as_deref()))
    }

    /// The owner of this name.
    pub fn new(site: Site, name: PeerName, state: Option<&Path>) -> Self {
        let state = match &name {
            PeerName::Node(node) => state_directory(state, &site, node),
            PeerName::Router => match state {
                Some(state) => state.join(ROUTER),
                None => state_directory(None, &site, &NodeName::new(ROUTER)),
            },
        };
        Self { site, name, state }
    }

    /// What the site file says of its keys.
    fn in_site(&self) -> PublicKeys {
        match &self.name {
            PeerName::Node(node) => self.site.node(node).map(|node| node.public_keys).unwrap_or_default(),
            PeerName::Router => self.site.lan.router.as_ref().map(|router| router.public_keys).unwrap_or_default(),
        }
    }

    /// Only home nodes that hold virtual IPs have a key of the heartbeats.
    fn check_heartbeat(&self, wanted: bool) -> anyhow::Result<()> {
        let PeerName::Node(name) = &self.name else { return Ok(()) };
        let votes = self.site.node(name).is_some_and(|node| node.has(Role::VirtualIps) && !node.is_edge());
        match wanted && !votes {
            true => bail!("{name} has no heartbeats: they are between home nodes with the role `virtual-ips`"),
            false => Ok(()),
        }
    }

    fn field(&self) -> &'static str {
        match self.name {
            PeerName::Node(_) => "nodes[].publicKeys",
            PeerName::Router => "lan.router.publicKeys",
        }
    }

    /// The slot of the pair with a node; without one, of the private key.
    fn slot(&self, preshared_with: Option<&NodeName>) -> anyhow::Result<Slot> {
        let Some(other) = preshared_with else { return Ok(Slot::Private) };
        let other = match self.site.node(other) {
            Some(node) => PeerName::Node(node.name.clone()),
            None if other.as_str() == ROUTER => PeerName::Router,
            None => bail!("the site has no node `{other}` (`router` is the home router)"),
        };
        if other == self.name {
            bail!("`{other}` is no pair with itself: name the other end with --preshared-with");
        }
        Ok(Slot::Preshared(Pair::new(self.name.clone(), other)))
    }
}

/// What there is, for people and programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    node: String,
    directory: PathBuf,
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_public_key: Option<String>,
    /// The pairs.
    preshared_keys: Vec<String>,
    /// Whether the site file names these public keys.
    in_site_file: bool,
    /// What was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
}

impl Report {
    fn of(owner: &Owner, keys: &dualgate_host::Keys, done: Vec<String>) -> anyhow::Result<Self> {
        let public = keys.public()?;
        let mut shown = public.iter().map(|key| key.to_string());
        Ok(Self {
            node: owner.name.to_string(),
            directory: keys.path().to_owned(),
            public_key: shown.next().unwrap_or_default(),
            next_public_key: shown.next(),
            preshared_keys: keys.pairs()?,
            in_site_file: owner.in_site() == public,
            done,
        })
    }

    fn print(&self, owner: &Owner, format: Output) -> anyhow::Result<()> {
        match format.output {
            Format::Json => output::json(self),
            Format::Text => output::text(&output::visible(&self.page(owner, Style::stdout()))),
        }
    }

    fn page(&self, owner: &Owner, style: Style) -> String {
        let mut page: String = self.done.iter().map(|done| format!("{done}\n")).collect();
        if !self.done.is_empty() {
            page.push('\n');
        }
        let _ = writeln!(page, "{} in {}", style.paint(Colour::Bold, &self.node), self.directory.display());
        let _ = writeln!(page, "  public key      {}", self.public_key);
        if let Some(next) = &self.next_public_key {
            let _ = writeln!(page, "  next public key {next}");
        }
        if !self.preshared_keys.is_empty() {
            let _ = writeln!(page, "  preshared keys  {}", self.preshared_keys.join(", "));
        }
        if !self.in_site_file {
            let keys = [Some(&self.public_key), self.next_public_key.as_ref()];
            let keys: Vec<String> = keys.into_iter().flatten().map(|key| format!("\"{key}\"")).collect();
            let _ = writeln!(page, "\nThe site file says otherwise. In `{}` belongs:", owner.field());
            let _ = writeln!(page, "  publicKeys: [{}]", keys.join(", "));
        }
        page
    }
}

fn init(args: &KeysInit) -> anyhow::Result<ExitCode> {
    let owner = Owner::of(&args.owner)?;
    let pair = args.preshared_with.as_ref().map(|other| owner.slot(Some(other))).transpose()?;
    // What cannot be read is told before anything is made.
    let adopted = args.adopt.as_deref().map(adopted).transpose()?;
    let preshared = args.adopt_preshared.as_deref().map(self::adopted).transpose()?;
    let beat = args.adopt_heartbeat.as_deref().map(self::adopted).transpose()?;
    owner.check_heartbeat(args.heartbeat || beat.is_some())?;
    let heartbeat = (args.heartbeat || beat.is_some()).then_some(Slot::Heartbeat);
    let keys = dualgate_host::Keys::create(&owner.state)?;
    let mut done = Vec::new();
    for (slot, key) in [(Some(Slot::Private), adopted), (pair, preshared), (heartbeat, beat)] {
        let Some(slot) = slot else { continue };
        let outcome = match &key {
            Some(key) => keys.adopt(&slot, key)?,
            None => keys.init(&slot)?,
        };
        done.push(match (outcome, key.is_some()) {
            (Outcome::Written, true) => format!("adopted {}", called(&owner, &slot)),
            (Outcome::Written, false) => format!("made {}", called(&owner, &slot)),
            (Outcome::Already, _) => format!("{} is there already", called(&owner, &slot)),
        });
        if let (Outcome::Written, None) = (outcome, &key) {
            let file = keys.file(&slot)?;
            match slot {
                Slot::Private => {}
                Slot::Preshared(_) => {
                    done.push(format!("take {} to the other end, where --adopt-preshared reads it", file.display()));
                }
                Slot::Heartbeat => {
                    let what = "to every other home node, where --adopt-heartbeat reads it";
                    done.push(format!("take {} {what}", file.display()));
                }
            }
        }
    }
    Report::of(&owner, &keys, done)?.print(&owner, args.output)?;
    Ok(output::verdict(true))
}

fn rotate(args: &KeysRotate) -> anyhow::Result<ExitCode> {
    let owner = Owner::of(&args.owner)?;
    let slot = match args.heartbeat {
        true => Slot::Heartbeat,
        false => owner.slot(args.preshared_with.as_ref())?,
    };
    let adopted = args.adopt_preshared.as_deref().or(args.adopt_heartbeat.as_deref()).map(adopted).transpose()?;
    let keys = dualgate_host::Keys::open(&owner.state)?;
    let key = called(&owner, &slot);
    let done = match (args.finish, args.cancel) {
        (true, _) => keys.finish(&slot).map(|()| format!("{key} is the next one from now on"))?,
        (false, true) => keys.cancel(&slot).map(|()| format!("{key} stays; the next one is removed"))?,
        (false, false) => match keys.prepare(&slot, adopted.as_ref())? {
            Outcome::Written => format!("{key} has a next one beside it; it is in use after --finish"),
            Outcome::Already => format!("{key} has a next one already; it is in use after --finish"),
        },
    };
    Report::of(&owner, &keys, vec![done])?.print(&owner, args.output)?;
    Ok(output::verdict(true))
}

fn show_public(args: &KeysShowPublic) -> anyhow::Result<ExitCode> {
    let owner = Owner::of(&args.owner)?;
    let report = Report::of(&owner, &dualgate_host::Keys::open(&owner.state)?, Vec::new())?;
    report.print(&owner, args.output)?;
    Ok(output::verdict(report.in_site_file))
}

fn called(owner: &Owner, slot: &Slot) -> String {
    match slot {
        Slot::Private => format!("the private key of {}", owner.name),
        Slot::Preshared(pair) => format!("the preshared key of {pair}"),
        Slot::Heartbeat => "the key of the heartbeats".to_owned(),
    }
}

/// A key that was made elsewhere.
fn adopted(path: &Path) -> anyhow::Result<Key> {
    if path != Path::new("-") {
        return Ok(keys::read_file(path)?);
    }
    let key = Key::read(std::io::stdin()).context("read a key from standard input")?;
    key.context("standard input holds no WireGuard key, as `wg genkey` prints it")
}
