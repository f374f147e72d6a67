//! What can be asked of `dualgate render`.

use std::path::PathBuf;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use dualgate_core::model::NodeName;

use super::install::Cluster;
use super::{Output, parse_node};

/// What stands below its help.
pub const RENDER: &str = "\
Nothing is changed on any machine: a file is printed, or written where --to says.

Examples:
  dualgate render k3s --node k3s-node1 --site examples/home/site.yaml
  dualgate render unit --node ionos --site examples/home/site.yaml
  dualgate render kubeconfig --to kubeconfig";

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
  dualgate render unit --node k3s-node1 --to dualgate.service
  dualgate render unit --node k3s-node1 --source cluster --to dualgate.service";

const RENDER_KUBECONFIG: &str = "\
A service of a host that has the cluster as its source asks with it. It holds a token of the account that the pods have, so \
the service may do what they may, and no more; `dualgate uninstall` ends it. The API server is asked for the token as an \
administrator, and nothing is stored there. Write a new file before the token ends: it is read again by itself.

Exit code: 0 the file is written, 2 it is not.

Examples:
  dualgate render kubeconfig --kubeconfig /etc/rancher/k3s/k3s.yaml --to /etc/dualgate/kubeconfig
  dualgate render kubeconfig --server https://127.0.0.1:6444 --duration 365d --to kubeconfig";

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
    /// Write the kubeconfig of a service whose source is the cluster.
    #[command(after_help = RENDER_KUBECONFIG)]
    Kubeconfig(RenderKubeconfig),
}

/// Where a file goes to.
#[derive(Debug, Args)]
pub struct Destination {
    /// Write it into this file instead of standard output; one that says something else is left alone.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Write over a file that says something else.
    #[arg(long, requires = "to")]
    pub force: bool,
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
    /// Where to.
    #[command(flatten)]
    pub destination: Destination,
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
    /// Where a home node gets its objects from [default: `folder`]; an edge gets them from home.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<UnitSource>,
}

/// Where a home node gets its objects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnitSource {
    /// From the manifests below /etc/dualgate/manifests.
    Folder,
    /// From the Kubernetes API, with /etc/dualgate/kubeconfig.
    Cluster,
}

/// `dualgate render kubeconfig`
#[derive(Debug, Args)]
pub struct RenderKubeconfig {
    /// As whom the API server is asked.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Where the service finds the API server [default: where it is asked now].
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    pub server: Option<String>,
    /// How long the token is good.
    #[arg(long, value_name = "TIME", default_value = "3650d", value_parser = parse_duration)]
    pub duration: Duration,
    /// Where to.
    #[command(flatten)]
    pub destination: Destination,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

fn parse_server(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    match host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && !host.contains(char::is_whitespace) {
        true => Ok(text.to_owned()),
        false => Err("say where it is with its scheme, such as `https://127.0.0.1:6443`".to_owned()),
    }
}

/// One hour to a hundred years.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('h') {
        Some(number) => (number, 3600),
        None => (text.strip_suffix('d').ok_or("say hours or days, such as `24h` or `365d`")?, 86_400),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (3600..=36_500 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not between `1h` and `36500d`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_an_hour_to_a_hundred_years() {
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("365d"), Ok(Duration::from_secs(365 * 86_400)));
        for wrong in ["", "d", "0h", "36501d", "1y", "60", "-1d", "99999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_has_a_scheme_and_a_host() {
        for right in ["https://127.0.0.1:6443", "https://[fd00::1]:6443", "http://k3s.home.arpa"] {
            assert_eq!(parse_server(right).as_deref(), Ok(right));
        }
        for wrong in ["", "127.0.0.1:6443", "https://", "ftp://a", "https:// a", "https://a b"] {
            assert!(parse_server(wrong).is_err(), "{wrong}");
        }
    }
}
