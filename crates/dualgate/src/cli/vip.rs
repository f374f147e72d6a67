//! What can be asked of `dualgate vip`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dualgate_core::model::NodeName;

use super::{Inputs, Output, parse_node};

/// What stands below its help.
pub const VIP: &str = "\
Examples:
  dualgate vip list
  dualgate vip explain 192.168.178.10
  dualgate vip move 192.168.178.10 --to k3s-node2";

const VIP_LIST: &str = "\
Every group of addresses that are at one node together: what they are for, who holds them, who else may.

Exit code: 0 somebody holds each of them and nobody else answers for it, 1 otherwise, 2 the node could not be asked.

Example:
  dualgate vip list --output json";

const VIP_EXPLAIN: &str = "\
Says what an address is for, where it comes from, who holds it and why this node does or could not, how packets to it go \
on, and who else answers for it.

Exit code: 0 it is held, 1 it is not or nothing is known of it, 2 it could not be told.

Example:
  dualgate vip explain fda8:a1db:5685::10 --site examples/home/site.yaml";

const VIP_MOVE: &str = "\
Addresses that are together move together. Connections that are open stay with this node until they end; the node that \
takes over hands their packets on. Only the node that holds an address can give it away: run it there.

Exit code: 0 it was begun, 1 it was refused, 2 the node could not be asked.

Example:
  dualgate vip move 192.168.178.10 --to k3s-node2";

const VIP_DRAIN: &str = "\
This node gives away all that another can take, and takes nothing until `--undo` or a restart: before an upgrade of the \
machine, for instance.

Exit code: 0 it was begun, 2 the node could not be asked.

Example:
  dualgate vip drain --node k3s-node1";

/// `dualgate vip`
#[derive(Debug, Args)]
pub struct Vip {
    /// What to do.
    #[command(subcommand)]
    pub command: VipCommand,
}

/// What to do with virtual IPs.
#[derive(Debug, Subcommand)]
pub enum VipCommand {
    /// Show who holds which address.
    #[command(after_help = VIP_LIST)]
    List(VipList),
    /// Say all that is known of one address.
    #[command(after_help = VIP_EXPLAIN)]
    Explain(VipExplain),
    /// Give an address to another node.
    #[command(after_help = VIP_MOVE)]
    Move(VipMove),
    /// Give all addresses of this node away.
    #[command(after_help = VIP_DRAIN)]
    Drain(VipDrain),
}

/// `dualgate vip list`
#[derive(Debug, Args)]
pub struct VipList {
    /// The node's admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate vip explain`
#[derive(Debug, Args)]
pub struct VipExplain {
    /// The address.
    pub address: IpAddr,
    /// The node's admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// Whose state directory, which the order goes to.
#[derive(Debug, Args)]
pub struct Running {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// Which node of the site this is [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The state directory of `dualgate run` [default: $STATE_DIRECTORY, else the user's state directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// `dualgate vip move`
#[derive(Debug, Args)]
pub struct VipMove {
    /// An address of the group.
    pub address: IpAddr,
    /// The node that is to hold it.
    #[arg(long, value_name = "NODE", value_parser = parse_node)]
    pub to: NodeName,
    /// Where.
    #[command(flatten)]
    pub running: Running,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate vip drain`
#[derive(Debug, Args)]
pub struct VipDrain {
    /// Take addresses again.
    #[arg(long)]
    pub undo: bool,
    /// Where.
    #[command(flatten)]
    pub running: Running,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
