//! What can be asked of `dualgate install` and `dualgate uninstall`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dualgate_core::model::NodeName;

use super::{Output, firewall, parse_node};

/// What stands below its help.
pub const INSTALL: &str = "\
Prints what would change in the cluster, object by object and line by line, asks, and applies it (server-side, as field \
manager `dualgate`). What was installed before and is not part of it any more is listed, and removed with --prune. Fields \
that somebody else has written are told with their owner, and nothing is applied. If it is ended in the middle, run it \
again.

It installs the namespace `dualgate-system` with the site file as a ConfigMap, accounts with the least rights, the Ingress \
classes of the site, and a DaemonSet for the home nodes: those with the role `server` or `agent`. A changed site file reaches \
the pods within two minutes, without a restart.

Exit code: 0 the cluster is as wanted, 1 it is not (--dry-run: something would change), 2 it could not be told or done.

Examples:
  dualgate install --site examples/home/site.yaml --print
  dualgate install --site site.yaml --dry-run
  dualgate install --site site.yaml --prune --yes --wait";

/// What stands below its help.
pub const UNINSTALL: &str = "\
Lists what `dualgate install` has put into the cluster and what dualgate has written into statuses and labels of other \
objects, asks, removes the one and takes the other back. The namespace stays, and on the nodes their keys and state below \
/var/lib/dualgate do.

Exit code: 0 nothing of it is left, 1 something is, 2 it could not be told or done.

Example:
  dualgate uninstall --dry-run";

/// Which cluster.
#[derive(Debug, Args)]
pub struct Cluster {
    /// The kubeconfig file [default: $KUBECONFIG, else the pod's service account, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of it [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// How it is gone about.
#[derive(Debug, Args)]
pub struct Consent {
    /// Only print what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Also remove what takes more with it than itself, such as the namespace with all that is in it.
    #[arg(long)]
    pub prune_protected: bool,
}

/// `dualgate install`
#[derive(Debug, Args)]
pub struct Install {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// The container image.
    #[arg(long, value_name = "REFERENCE", default_value = concat!("localhost/dualgate:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// Run the gate of this edge, a K3s agent, as a pod as well; several are separated by `,`. The safer way is a service of
    /// its host, which needs no cluster to start.
    #[arg(long, value_name = "NODE", value_delimiter = ',', value_parser = parse_node)]
    pub edge_daemonset: Vec<NodeName>,
    /// Leave this home node out, because dualgate runs there as a service of the host, which starts without the cluster; several
    /// are separated by `,`.
    #[arg(long, value_name = "NODE", value_delimiter = ',', value_parser = parse_node)]
    pub host_service: Vec<NodeName>,
    /// Only write the objects as YAML; no cluster is asked.
    #[arg(long, conflicts_with_all = ["dry_run", "prune", "yes", "wait", "output"])]
    pub print: bool,
    /// Remove what was installed before and is not part of it any more.
    #[arg(long)]
    pub prune: bool,
    /// Write fields that somebody else has written.
    #[arg(long)]
    pub force_conflicts: bool,
    /// Wait until every node runs it.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = firewall::parse_patience)]
    pub timeout: Duration,
    /// How it is gone about.
    #[command(flatten)]
    pub consent: Consent,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate uninstall`
#[derive(Debug, Args)]
pub struct Uninstall {
    /// How it is gone about.
    #[command(flatten)]
    pub consent: Consent,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
