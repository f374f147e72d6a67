//! What can be asked of `dualgate edge`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dualgate_core::model::NodeName;

use super::{Output, parse_node};

/// What stands below its help.
pub const EDGE: &str = "\
Example:
  dualgate edge bundle --node ionos --site examples/home/site.yaml";

const EDGE_BUNDLE: &str = "\
The bundle holds the program, the site file, the unit of systemd and the preshared keys: all that the edge needs, and \
nothing that only home should know. The edge's private key is not in it: the edge makes it at its first start. Preshared \
keys come from the state directory, where those that are missing are made; each home node needs its own of them.

Exit code: 0 the bundle is written, 2 it is not.

Examples:
  dualgate edge bundle --node ionos --site examples/home/site.yaml
  dualgate edge bundle --node ionos --to ionos.tar --binary dualgate-static";

/// `dualgate edge`
#[derive(Debug, Args)]
pub struct Edge {
    /// What to do for it.
    #[command(subcommand)]
    pub command: EdgeCommand,
}

/// What to do for an edge.
#[derive(Debug, Subcommand)]
pub enum EdgeCommand {
    /// Pack everything that has to be copied to an edge.
    #[command(after_help = EDGE_BUNDLE)]
    Bundle(EdgeBundle),
}

/// `dualgate edge bundle`
#[derive(Debug, Args)]
pub struct EdgeBundle {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// For which edge [default: the only one].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The bundle: a file that ends in `.tar`, or a folder that becomes the edge's `/` [default: NODE.tar].
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// The program for the edge [default: this one].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// The state directory with the preshared keys, such as that of a home node [default: as for `dualgate keys`].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Write over a bundle that is there.
    #[arg(long)]
    pub force: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
