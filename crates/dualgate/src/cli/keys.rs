//! What can be asked of `dualgate keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dualgate_core::model::NodeName;

use super::{Output, parse_node};

/// What stands below its help.
pub const KEYS: &str = "\
Keys lie in the state directory of `dualgate run`, in files that only their owner can read. Only public keys are ever \
printed; they go into the site file.

Examples:
  dualgate keys init --node k3s-node1 --preshared-with ionos
  dualgate keys show-public --node k3s-node1";

const KEYS_INIT: &str = "\
A key that is there already stays. A preshared key has to be the same at both nodes: make it at one, and take its file \
to the other with --adopt-preshared. The key of the heartbeats, by which home nodes agree on who holds which virtual IP, \
has to be the same at all of them.

Exit code: 0 the keys are there, 2 they are not.

Examples:
  dualgate keys init --node k3s-node1
  dualgate keys init --node k3s-node1 --adopt /etc/wireguard/private.key
  wg show wg0 private-key | dualgate keys init --node k3s-node1 --adopt -
  dualgate keys init --node ionos --preshared-with k3s-node1 --adopt-preshared ionos+k3s-node1
  dualgate keys init --node k3s-node1 --heartbeat
  dualgate keys init --node k3s-node2 --adopt-heartbeat heartbeat";

const KEYS_ROTATE: &str = "\
First makes the next key beside the one in use, which changes nothing yet. Then the next public key is written into the \
site file behind the one in use, so that the other ends know it. Then --finish puts it in its place; at last the former \
one is removed from the site file.

Exit code: 0 done, 2 not.

Examples:
  dualgate keys rotate --node k3s-node1
  dualgate keys rotate --node k3s-node1 --finish
  dualgate keys rotate --node k3s-node1 --preshared-with ionos";

const KEYS_SHOW_PUBLIC: &str = "\
Exit code: 0 the site file names these keys, 1 it names others or none, 2 there is no key.

Example:
  dualgate keys show-public --node k3s-node1";

/// `dualgate keys`
#[derive(Debug, Args)]
pub struct Keys {
    /// What to do with them.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make this node's private key, or take over an existing one.
    #[command(after_help = KEYS_INIT)]
    Init(KeysInit),
    /// Change a key without an outage.
    #[command(after_help = KEYS_ROTATE)]
    Rotate(KeysRotate),
    /// Show this node's public keys, and which preshared keys it has.
    #[command(after_help = KEYS_SHOW_PUBLIC)]
    ShowPublic(KeysShowPublic),
}

/// Whose keys.
#[derive(Clone, Debug, Args)]
pub struct KeyOwner {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// Which node of the site this is [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The home router's keys, which are kept here for `dualgate tunnel export` in a folder of their own.
    #[arg(long, conflicts_with = "node")]
    pub router: bool,
    /// The state directory of `dualgate run` [default: $STATE_DIRECTORY, else the user's state directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// `dualgate keys init`
#[derive(Debug, Args)]
pub struct KeysInit {
    /// Whose keys.
    #[command(flatten)]
    pub owner: KeyOwner,
    /// Take this private key, a file as `wg genkey` writes it; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub adopt: Option<PathBuf>,
    /// Also make the preshared key of the pair with this node (`router` where that holds home's end).
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub preshared_with: Option<NodeName>,
    /// Take this preshared key, a file as `wg genpsk` writes it, instead of making one.
    #[arg(long, value_name = "FILE", requires = "preshared_with")]
    pub adopt_preshared: Option<PathBuf>,
    /// Also make the key of the home nodes' heartbeats.
    #[arg(long, conflicts_with = "router")]
    pub heartbeat: bool,
    /// Take this key of the heartbeats, which another home node has made.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["router", "heartbeat"])]
    pub adopt_heartbeat: Option<PathBuf>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate keys rotate`
#[derive(Debug, Args)]
pub struct KeysRotate {
    /// Whose keys.
    #[command(flatten)]
    pub owner: KeyOwner,
    /// Change the preshared key of the pair with this node, not the private key.
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub preshared_with: Option<NodeName>,
    /// Take this next preshared key, which the other node has made.
    #[arg(long, value_name = "FILE", requires = "preshared_with", conflicts_with_all = ["finish", "cancel"])]
    pub adopt_preshared: Option<PathBuf>,
    /// Change the key of the home nodes' heartbeats, not the private key: prepare it at all of them, then finish.
    #[arg(long, conflicts_with_all = ["preshared_with", "router"])]
    pub heartbeat: bool,
    /// Take this next key of the heartbeats, which another home node has made.
    #[arg(long, value_name = "FILE", requires = "heartbeat", conflicts_with_all = ["finish", "cancel"])]
    pub adopt_heartbeat: Option<PathBuf>,
    /// Put the next key in the place of the one in use, which is gone then.
    #[arg(long, conflicts_with = "cancel")]
    pub finish: bool,
    /// Remove the next key; the one in use stays.
    #[arg(long)]
    pub cancel: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate keys show-public`
#[derive(Debug, Args)]
pub struct KeysShowPublic {
    /// Whose keys.
    #[command(flatten)]
    pub owner: KeyOwner,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
