//! What can be asked of `dualgate render`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dualgate_core::model::NodeName;

use super::{Output, parse_node};

/// What stands below its help.
pub const RENDER: &str = "\
Nothing is changed on any machine: a file is printed, or written where --to says.

Examples:
  dualgate render k3s --node k3s-node1 --site examples/home/site.yaml
  dualgate render unit --node ionos --site examples/home/site.yaml";

const RENDER_K3S: &str = "\
The first node of the site file with the role `server` starts the cluster, further servers and agents join it. What is \
wrong, what has to be known, and what is to be done with the file goes to standard error. A mistake that would stay in the \
cluster for good is an error: then nothing is written.

Exit code: 0 the file is written, 2 it is not.

Examples:
  dualgate render k3s --node k3s-node1 --site examples/home/site.yaml
  dualgate render k3s --node k3s-node1 --first k3s-node2 --to config.yaml";

const RENDER_UNIT: &str = "\
The unit runs `dualgate run` as root without root's powers: with three capabilities, and a file system that it cannot \
write to but for its state. It goes to /etc/systemd/system/dualgate.service.

Exit code: 0 the file is written, 2 it is not.

Examples:
  dualgate render unit --node ionos --site examples/home/site.yaml
  dualgate render unit --node k3s-node1 --to dualgate.service";

/// `dualgate render`
#[derive(Debug, Args)]
pub struct Render {
    /// What to write.
    #[command(subcommand)]
    pub command: RenderCommand,
}

/// What to write.
#[derive(Debug, Subcommand)]
pub enum RenderCommand {
    /// Write a node's `/etc/rancher/k3s/config.yaml`.
    #[command(after_help = RENDER_K3S)]
    K3s(RenderK3s),
    /// Write the systemd unit that runs dualgate on a node.
    #[command(after_help = RENDER_UNIT)]
    Unit(RenderUnit),
}

/// For which node, and where to.
#[derive(Debug, Args)]
pub struct Target {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// For which node of the site [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// Write it into this file instead of standard output; one that says something else is left alone.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Write over a file that says something else.
    #[arg(long, requires = "to")]
    pub force: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate render k3s`
#[derive(Debug, Args)]
pub struct RenderK3s {
    /// For whom.
    #[command(flatten)]
    pub target: Target,
    /// The server that the others join [default: the first one of the site file].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub first: Option<NodeName>,
    /// A further name or address by which the Kubernetes API is called; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// A further label that the node sets on itself, `key=value`; may be repeated.
    #[arg(long, value_name = "LABEL")]
    pub node_label: Vec<String>,
    /// A further taint that the node joins with, `key=value:effect`; may be repeated.
    #[arg(long, value_name = "TAINT")]
    pub node_taint: Vec<String>,
}

/// `dualgate render unit`
#[derive(Debug, Args)]
pub struct RenderUnit {
    /// For whom.
    #[command(flatten)]
    pub target: Target,
}
