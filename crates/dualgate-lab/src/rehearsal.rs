//! The site file as the lab's nodes get it: with WireGuard keys made for the lab alone.
//!
//! Real keys never enter a lab. Each node gets a key of its own and a preshared one for each of its pairs, where
//! `dualgate keys` would put them; the public ones take the place of those in the site file.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dualgate_core::model::site::{HomeEnd, Role, Site};
use dualgate_core::model::{NodeName, PublicKey};
use dualgate_core::parse::yaml;
use dualgate_core::plan::tunnel::{Pair, PeerName};
use dualgate_host::keys::{Key, Keys, KeysError, Slot};
use serde_json::{Value, json};

/// Whose the tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// The nodes make it, as on a real site.
    Real,
    /// A plain segment stands in for it: the site has none, or the home router would hold its end.
    StandIn,
}

impl Tunnel {
    /// Whether the nodes of a site make their tunnel themselves.
    pub fn of(site: &Site) -> Self {
        match site.tunnel.as_ref().map(|tunnel| tunnel.home_end) {
            Some(HomeEnd::Nodes) => Self::Real,
            Some(HomeEnd::Router) | None => Self::StandIn,
        }
    }
}

/// The nodes' public keys.
pub type PublicKeys = BTreeMap<NodeName, PublicKey>;

/// Makes the WireGuard keys of every node, in its state directory.
pub fn make_keys(site: &Site, state: impl Fn(&NodeName) -> PathBuf) -> Result<PublicKeys, KeysError> {
    let mut folders = BTreeMap::new();
    for node in &site.nodes {
        folders.insert(&node.name, folder(&state(&node.name))?);
    }
    let mut public = PublicKeys::new();
    for (name, keys) in &folders {
        keys.init(&Slot::Private)?;
        public.insert((*name).clone(), keys.current(&Slot::Private)?.public()?);
    }
    for edge in site.nodes.iter().filter(|node| node.is_edge()) {
        for home in site.nodes.iter().filter(|node| !node.is_edge()) {
            let names = [&edge.name, &home.name].map(|name| PeerName::Node(name.clone()));
            let [one, other] = names;
            let slot = Slot::Preshared(Pair::new(one, other));
            folders[&home.name].init(&slot)?;
            folders[&edge.name].adopt(&slot, &folders[&home.name].current(&slot)?)?;
        }
    }
    Ok(public)
}

/// Makes the key of the home nodes' heartbeats, in the state directory of each.
pub fn make_heartbeat_key(site: &Site, state: impl Fn(&NodeName) -> PathBuf) -> Result<(), KeysError> {
    let key = Key::preshared()?;
    for node in site.nodes.iter().filter(|node| node.has(Role::VirtualIps) && !node.is_edge()) {
        folder(&state(&node.name))?.adopt(&Slot::Heartbeat, &key)?;
    }
    Ok(())
}

fn folder(state: &Path) -> Result<Keys, KeysError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|source| KeysError::Open { path: state.to_owned(), source })?;
    Keys::create(state)
}

/// The site file with the lab's public keys in place of all others. It comes out as JSON, which is YAML too.
pub fn site_file(text: &str, public: &PublicKeys) -> io::Result<String> {
    if public.is_empty() {
        return Ok(text.to_owned());
    }
    let read = yaml::documents(text);
    if read.error.is_some() {
        // A node says itself what is wrong with it.
        return Ok(text.to_owned());
    }
    let documents = read.documents;
    let mut site = documents.first().map(yaml::Node::to_json).unwrap_or_default();
    let nodes = site.get_mut("nodes").and_then(Value::as_array_mut);
    for node in nodes.into_iter().flatten() {
        let key = node["name"].as_str().and_then(|name| public.get(&NodeName::new(name)));
        if let (Some(key), Some(node)) = (key, node.as_object_mut()) {
            node.insert("publicKeys".to_owned(), json!([key.to_string()]));
        }
    }
    serde_json::to_string_pretty(&site).map_err(io::Error::other)
}
