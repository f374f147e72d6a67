//! What can be asked of `dualgate tunnel`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dualgate_core::model::NodeName;

use super::{Inputs, Output, parse_node};

/// What stands below its help.
pub const TUNNEL: &str = "\
Examples:
  dualgate tunnel status
  dualgate tunnel export --for wg-quick --node ionos --site examples/home/site.yaml";

const TUNNEL_STATUS: &str = "\
Exit code: 0 every peer was heard within three minutes, 1 one was not, or there is no tunnel, 2 the node could not be asked.

Example:
  dualgate tunnel status --output json";

const TUNNEL_EXPORT: &str = "\
Files go to standard output, with marks where keys belong, and what else is to be done goes to standard error. With \
--with-keys the files are written with the keys in them, for their owner alone. Pod networks come from the Node objects \
of the source, if it has any, else from the site file.

Exit code: 0, or 2 if this is no end of a tunnel.

Examples:
  dualgate tunnel export --for wg-quick --node ionos --site examples/home/site.yaml
  dualgate tunnel export --for nixos --node k3s-node1 --site examples/home/site.yaml
  dualgate tunnel export --for fritzbox --with-keys . > /dev/null";

/// `dualgate tunnel`
#[derive(Debug, Args)]
pub struct Tunnel {
    /// What to do with it.
    #[command(subcommand)]
    pub command: TunnelCommand,
}

/// What to do with the tunnel.
#[derive(Debug, Subcommand)]
pub enum TunnelCommand {
    /// Show how this node's end is: peers, handshakes, where they are dialled.
    #[command(after_help = TUNNEL_STATUS)]
    Status(TunnelStatus),
    /// Write this node's end for a router, wg-quick, systemd-networkd or NixOS.
    #[command(after_help = TUNNEL_EXPORT)]
    Export(TunnelExport),
}

/// In whose words an end of the tunnel is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TunnelFormat {
    /// The file that a FRITZ!Box imports: the router's end.
    Fritzbox,
    /// A file of wg-quick.
    WgQuick,
    /// Files of systemd-networkd.
    Networkd,
    /// A module of NixOS.
    Nixos,
}

/// `dualgate tunnel status`
#[derive(Debug, Args)]
pub struct TunnelStatus {
    /// The node's admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate tunnel export`
#[derive(Debug, Args)]
pub struct TunnelExport {
    /// For what: `fritzbox`, `wg-quick`, `networkd` or `nixos`.
    #[arg(long = "for", value_name = "SYSTEM", hide_possible_values = true)]
    pub format: TunnelFormat,
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Whose end [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The home router's end, where it holds home's (`tunnel.homeEnd`); for `fritzbox` it is meant anyway.
    #[arg(long, conflicts_with = "node")]
    pub router: bool,
    /// Only the tunnel to this edge.
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub edge: Option<NodeName>,
    /// The state directory with the keys [default: as for `dualgate keys`].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Write the files into this folder, with the keys in them.
    #[arg(long, value_name = "DIR")]
    pub with_keys: Option<PathBuf>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
