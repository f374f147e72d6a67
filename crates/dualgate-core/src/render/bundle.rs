//! What has to be copied to an edge, and nothing else: which files, with which rights, and what is done with them there.
//!
//! Pure: it names files and writes the texts among them. Who packs it adds the program, the site file as it is, and the
//! preshared keys. The edge's private key is no part of it: it is made on the edge, and never leaves it.

use crate::model::Site;
use crate::model::site::Node;
use crate::plan::tunnel::{Pair, Peer};
use crate::render::{k3s, unit};

/// Where the instructions lie.
pub const INSTALL: &str = "etc/dualgate/INSTALL";

/// A file of the bundle, relative to `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path without the leading `/`.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What it holds.
    pub content: Content,
    /// What it is for.
    pub what: String,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// The program.
    Program,
    /// The site file, as it is.
    Site,
    /// The preshared key of a pair.
    Preshared(Pair),
    /// This text.
    Text(String),
}

/// What an edge's bundle is made from, beside the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made<'a> {
    /// What the bundle is called where it is copied.
    pub name: &'a str,
    /// The other ends of its tunnel, of its tunnel's plan.
    pub peers: &'a [Peer],
    /// K3s' configuration, where the edge is an agent.
    pub k3s: Option<String>,
}

/// The files, folders before what is in them.
pub fn entries(site: &Site, edge: &Node, made: &Made<'_>) -> Vec<Entry> {
    let folder = |path: &str, mode: u32, what: &str| entry(path, mode, Content::Folder, what);
    let mut entries = vec![
        entry(unit::PROGRAM, 0o755, Content::Program, "the program"),
        entry(
            unit::PATH,
            0o644,
            Content::Text(unit::unit(site, edge, unit::Origin::of(edge))),
            "runs it, and starts it again",
        ),
        folder("/etc/dualgate", 0o755, "what it is told"),
        entry(unit::SITE, 0o644, Content::Site, "the site file; nothing in it is secret"),
    ];
    entries.push(entry(INSTALL, 0o644, Content::Text(install(edge, made)), "how it is installed"));
    let state = |below: &str| format!("{}/{below}", unit::STATE);
    entries.push(folder(unit::STATE, 0o700, "its state"));
    if made.pairs().next().is_some() {
        entries.push(folder(&state("wireguard"), 0o700, "its keys"));
        entries.push(folder(&state("wireguard/preshared"), 0o700, "those that it shares"));
    }
    for pair in made.pairs() {
        let path = state(&format!("wireguard/preshared/{pair}"));
        entries.push(entry(&path, 0o600, Content::Preshared(pair.clone()), "a preshared key: secret"));
    }
    if let Some(config) = &made.k3s {
        entries.push(folder("/etc/rancher", 0o755, "what K3s is told"));
        entries.push(folder("/etc/rancher/k3s", 0o755, "what K3s is told"));
        entries.push(entry(k3s::PATH, 0o600, Content::Text(config.clone()), "K3s' configuration, without its token"));
    }
    entries
}

fn entry(path: &str, mode: u32, content: Content, what: &str) -> Entry {
    Entry { path: path.trim_start_matches('/').to_owned(), mode, content, what: what.to_owned() }
}

impl Made<'_> {
    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.peers.iter().filter_map(|peer| peer.preshared_key.as_ref())
    }
}

/// What is done with it, in order; each line of commands stands by itself, four blanks in.
pub fn install(edge: &Node, made: &Made<'_>) -> String {
    let (name, bundle) = (&edge.name, made.name);
    let address = edge.public_addresses.first().map_or_else(|| name.to_string(), ToString::to_string);
    let at = if address.contains(':') { format!("[{address}]") } else { address };
    let show = format!("dualgate keys show-public --site {} --node {name} --state {}", unit::SITE, unit::STATE);
    let mut text = format!(
        "\
dualgate on the edge {name}
{line}

1. Copy this bundle to the edge:

    scp {bundle} root@{at}:

2. There, as root:

    tar -C / -xpf {bundle}
    systemctl enable --now dualgate

The first start makes the edge's private key, which never leaves it. Its public part stands in the log; it is also said by

    {show}

3. At home, write this public key into the site file:

    nodes:
      - name: {name}
        publicKeys: [\"THE KEY\"]

Each home node takes it up by itself, and dials. `dualgate tunnel status` says at either end whether they hear each other.
",
        line = "=".repeat(21 + name.as_str().len()),
    );
    if made.k3s.is_some() {
        text.push_str(&format!(
            "
4. K3s starts after the tunnel. Copy /var/lib/rancher/k3s/server/agent-token of a server to {} (mode 0600), never
   the servers' own token, and install K3s as `agent` once `ip -brief address show dualgate` shows the edge's addresses.
",
            k3s::AGENT_TOKEN
        ));
    }
    if made.pairs().next().is_some() {
        text.push_str("\nThe bundle holds preshared keys: remove it at both places when the edge runs.\n");
    }
    text.push_str(
        "\nA later bundle is unpacked in the same way; then `systemctl daemon-reload && systemctl restart dualgate`. The \
         private key and the state stay; preshared keys become those of the bundle.\n",
    );
    text
}
