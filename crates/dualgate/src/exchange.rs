//! Who is told what: home tells every edge what is public, and an edge listens to home. Composed here from the site file,
//! the keys on disk and the plan; `dualgate_host::exchange` does the talking.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use dualgate_core::lower::Lowered;
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::{Digest, NodeName, PublicKeys, Snapshot};
use dualgate_core::plan::public;
use dualgate_core::plan::tunnel::{Pair, PeerName};
use dualgate_host::exchange::{
    self, Author, Cut, Identity, Link, Listener, LocalFacts, Peer, PeerFacts, PeerKey, Sign, Teller,
};
use dualgate_host::keys::{Keys, Slot, read_file};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Seconds after which an edge that does not answer is worth another way to it.
const SILENT: i64 = 10;

/// How the exchange is, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// At home: how each edge is.
    pub edges: Vec<EdgeReport>,
    /// At an edge: whose word it serves; `None` where nobody has told it anything since its start.
    pub told_by: Option<String>,
    /// At an edge: the home nodes that are connected, the most senior first.
    pub connected: Vec<String>,
}

/// How an edge is, as home sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeReport {
    /// Its name.
    pub node: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it serves what it was told last.
    pub up_to_date: bool,
    /// Why it is not connected; empty when it is.
    pub why: String,
    /// How many findings it has, notes apart.
    pub findings: u32,
    /// The version of dualgate that it runs.
    pub version: String,
}

/// What the tellers were made from: another one needs others.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    site: String,
    own: PublicKeys,
    edges: Vec<(NodeName, PublicKeys, Vec<SocketAddr>)>,
    preshared: bool,
    /// Of the keys on disk.
    keys: Option<Digest>,
}

/// What the keys on disk are, without saying them; `None` where they cannot be read.
pub fn keys_on_disk(state: &Path) -> Option<Digest> {
    let keys = Keys::open(state).ok()?;
    let mut secrets = vec![keys.current(&Slot::Private).ok()?];
    let pairs = keys.pairs().ok()?;
    secrets.extend(pairs.iter().filter_map(|pair| read_file(&keys.path().join("preshared").join(pair)).ok()));
    Some(Digest::of_parts(secrets.iter().map(|key| key.secret().expose())))
}

/// Home's tellers: one for each edge.
pub struct Tellers {
    node: NodeName,
    state: PathBuf,
    made: Option<Made>,
    edges: Vec<Edge>,
    /// What they were told last was made from it.
    told: public::Memo,
    trouble: Option<String>,
}

struct Edge {
    node: NodeName,
    author: Author,
    cuts: watch::Sender<Option<Arc<Cut>>>,
    facts: watch::Receiver<PeerFacts>,
    task: JoinHandle<()>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tellers {
    /// Of a node whose keys lie in a state directory; nobody is told anything yet.
    pub fn new(node: NodeName, state: PathBuf) -> Self {
        Self { node, state, made: None, edges: Vec::new(), told: public::Memo::default(), trouble: None }
    }

    /// Tells every edge what is public at this moment.
    pub fn tell(&mut self, snapshot: &Snapshot, lowered: &Lowered) {
        let site = &*snapshot.site;
        let Some(own) = site.node(&self.node).filter(|own| !own.is_edge() && site.tunnel.is_some()) else {
            (self.edges, self.made, self.trouble) = (Vec::new(), None, None);
            return;
        };
        let wanted = made(site, own, &self.state);
        if self.made.as_ref() != Some(&wanted) {
            match start(site, own, &self.state) {
                Ok(edges) => (self.edges, self.made, self.trouble) = (edges, Some(wanted), None),
                Err(error) => {
                    (self.edges, self.made) = (Vec::new(), None);
                    self.trouble = Some(format!("{error:#}"));
                }
            }
        }
        let may_differ = self.told.may_differ(snapshot, lowered);
        for edge in self.edges.iter_mut().filter(|edge| may_differ || edge.cuts.borrow().is_none()) {
            match edge.author.write(&public::select(snapshot, lowered, &edge.node)) {
                Ok(cut) => drop(edge.cuts.send_replace(Some(cut))),
                Err(error) => self.trouble = Some(error.to_string()),
            }
        }
    }

    /// Whether the keys on disk are others than those that are used; then everybody is to be told again.
    pub fn has_old_keys(&self) -> bool {
        let used = self.made.as_ref().map(|made| made.keys);
        match (used, &self.trouble) {
            (Some(used), _) => used != keys_on_disk(&self.state),
            (None, Some(_)) => true,
            (None, None) => false,
        }
    }

    /// What is wrong.
    pub fn findings(&self) -> Vec<Finding> {
        let help = "make this node's keys with `dualgate keys init`, and write the public ones into the site file";
        let trouble = self.trouble.iter().map(|why| format!("the edges are told nothing: {why}"));
        trouble.map(|message| Finding::new(Code::TunnelFailed, Place::default(), message).help(help)).collect()
    }

    /// The edges from which nothing has come back for a while: another way may lead to them.
    pub fn unheard(&self) -> Vec<NodeName> {
        self.away(|sign| sign == Sign::None)
    }

    /// The edges that have not been there for a while: nobody is to be led to them.
    pub fn silent(&self) -> Vec<NodeName> {
        self.away(|sign| sign != Sign::Life)
    }

    fn away(&self, is_away: impl Fn(Sign) -> bool) -> Vec<NodeName> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let is_silent = |edge: &&Edge| match edge.facts.borrow().link {
            Link::Connected { .. } => false,
            Link::Away { since, sign, .. } => is_away(sign) && now - since >= SILENT,
        };
        self.edges.iter().filter(is_silent).map(|edge| edge.node.clone()).collect()
    }

    /// How the edges are.
    pub fn report(&self) -> Vec<EdgeReport> {
        self.edges.iter().map(|edge| edge_report(&edge.facts.borrow())).collect()
    }
}

fn edge_report(known: &PeerFacts) -> EdgeReport {
    let why = match &known.link {
        Link::Connected { .. } => String::new(),
        Link::Away { why, .. } => why.clone(),
    };
    EdgeReport {
        node: known.node.to_string(),
        connected: why.is_empty(),
        up_to_date: known.is_up_to_date(),
        why,
        findings: known.facts.as_ref().map_or(0, |facts| facts.findings),
        version: known.facts.as_ref().map(|facts| facts.version.clone()).unwrap_or_default(),
    }
}

fn made(site: &Site, own: &Node, state: &Path) -> Made {
    let edges = site.nodes.iter().filter(|node| node.is_edge());
    Made {
        site: site.name.clone(),
        own: own.public_keys,
        edges: edges.map(|edge| (edge.name.clone(), edge.public_keys, addresses(edge))).collect(),
        preshared: site.tunnel.as_ref().is_some_and(|tunnel| tunnel.preshared_keys),
        keys: keys_on_disk(state),
    }
}

fn start(site: &Site, own: &Node, state: &Path) -> anyhow::Result<Vec<Edge>> {
    let keys = Keys::open(state)?;
    let identity = Arc::new(identity(site, own, &keys)?);
    let edge = |node: &Node| {
        let (cuts, told) = watch::channel(None);
        let (teller, facts) = Teller::new(identity.clone(), peer(site, own, node, &keys)?, addresses(node), told);
        let task = tokio::task::spawn_local(teller.run());
        anyhow::Ok(Edge { node: node.name.clone(), author: Author::new(&identity), cuts, facts, task })
    };
    let edges = site.nodes.iter().filter(|node| node.is_edge()).map(edge);
    some(edges, "an edge is told nothing")
}

/// Those that can be had; the error of the last one that cannot, if there is none at all.
fn some<T>(all: impl Iterator<Item = anyhow::Result<T>>, without: &str) -> anyhow::Result<Vec<T>> {
    let (mut had, mut failed) = (Vec::new(), None);
    for one in all {
        match one {
            Ok(one) => had.push(one),
            Err(error) => {
                tracing::warn!("{without}: {error:#}");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if had.is_empty() => Err(error),
        Some(_) | None => Ok(had),
    }
}

/// An edge's ear: it hears every home node of the site.
pub fn listen(
    site: &Site,
    node: &NodeName,
    state: &Path,
    facts: watch::Receiver<LocalFacts>,
) -> anyhow::Result<Listener> {
    let own = site.node(node).with_context(|| format!("the site has no node `{node}`"))?;
    let keys = Keys::open(state)?;
    let home = site.nodes.iter().filter(|node| !node.is_edge());
    let home = some(home.map(|node| peer(site, own, node, &keys)), "a home node is not heard")?;
    Ok(Listener::bind(&addresses(own), identity(site, own, &keys)?, home, facts)?)
}

/// Whether an edge hears the same home nodes, known by the same keys, in both of these.
pub fn hears_the_same(one: &Site, other: &Site, node: &NodeName) -> bool {
    let hears = |site: &Site| {
        let home = site.nodes.iter().filter(|node| !node.is_edge());
        let home: Vec<_> = home.map(|node| (node.name.clone(), node.public_keys)).collect();
        let own = site.node(node).map(|own| (own.addresses.clone(), own.public_keys));
        let preshared = site.tunnel.as_ref().is_some_and(|tunnel| tunnel.preshared_keys);
        (site.name.clone(), own, home, preshared)
    };
    hears(one) == hears(other)
}

fn identity(site: &Site, own: &Node, keys: &Keys) -> anyhow::Result<Identity> {
    let private = keys.current(&Slot::Private)?;
    Ok(Identity { site: site.name.clone(), node: own.name.clone(), private })
}

/// Another node with every key that it may use at present.
fn peer(site: &Site, own: &Node, other: &Node, keys: &Keys) -> anyhow::Result<Peer> {
    let with_preshared = site.tunnel.as_ref().is_some_and(|tunnel| tunnel.preshared_keys);
    let pair = Pair::new(PeerName::Node(own.name.clone()), PeerName::Node(other.name.clone()));
    let preshared = match with_preshared {
        true => Some(keys.current(&Slot::Preshared(pair))?),
        false => None,
    };
    let known = other.public_keys.iter().map(|public| PeerKey { public, preshared: preshared.clone() });
    Ok(Peer { node: other.name.clone(), keys: known.collect() })
}

fn addresses(node: &Node) -> Vec<SocketAddr> {
    node.addresses.iter().map(|address| SocketAddr::new(*address, exchange::PORT)).collect()
}
