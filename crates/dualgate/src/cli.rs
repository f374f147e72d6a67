//! What can be asked of dualgate on the command line.

pub mod dns;
pub mod edge;
pub mod firewall;
pub mod install;
pub mod keys;
pub mod lab;
pub mod render;
pub mod tunnel;
pub mod vip;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dualgate_core::model::{GateName, NodeName};

/// Two gates for one home: the same applications at home and from the Internet, over IPv4 and IPv6.
///
/// dualgate serves Kubernetes Ingresses at an internal gate (the LAN) and an external gate (a cloud server with public
/// addresses). One site file describes the home; the objects come from a folder of manifests or from a Kubernetes API.
///
/// Exit codes: 0 as it should be, 1 something differs or was found, 2 it could not be told.
#[derive(Debug, Parser)]
#[command(name = "dualgate", version, max_term_width = 100, after_help = START)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node's gates until SIGTERM.
    #[command(after_help = RUN)]
    Run(Run),
    /// Look for mistakes in the site file and the manifests, without touching anything.
    #[command(after_help = CHECK)]
    Check(Check),
    /// Say what happens to a request for this URL, and why.
    #[command(after_help = EXPLAIN)]
    Explain(Explain),
    /// List what is reachable from the Internet, and why.
    #[command(after_help = EXPOSURE)]
    Exposure(Exposure),
    /// Show what would change on a running node.
    #[command(after_help = PLAN)]
    Plan(Plan),
    /// Show what a running node serves and what is wrong with it.
    #[command(after_help = STATUS)]
    Status(Status),
    /// Make, change and show the keys of this node.
    #[command(after_help = keys::KEYS)]
    Keys(keys::Keys),
    /// Write this node's end of the tunnel for something else to make it.
    #[command(after_help = tunnel::TUNNEL)]
    Tunnel(tunnel::Tunnel),
    /// Show the firewall of a node, compare it with the kernel's, and try a change of it.
    #[command(after_help = firewall::FIREWALL)]
    Firewall(firewall::Firewall),
    /// Show who holds which address of the LAN, and give one to another node.
    #[command(after_help = vip::VIP)]
    Vip(vip::Vip),
    /// Show the names of both views, and what has to be set for them elsewhere.
    #[command(after_help = dns::DNS)]
    Dns(dns::Dns),
    /// Write K3s' configuration, or a unit of systemd, from the site file.
    #[command(after_help = render::RENDER)]
    Render(render::Render),
    /// Pack what has to be copied to an edge.
    #[command(after_help = edge::EDGE)]
    Edge(edge::Edge),
    /// Put dualgate into a Kubernetes cluster, or change what was put there.
    #[command(after_help = install::INSTALL)]
    Install(install::Install),
    /// Remove from a cluster what was installed there.
    #[command(after_help = install::UNINSTALL)]
    Uninstall(install::Uninstall),
    /// Answer HTTP requests with what was asked: a backend to try things with.
    #[command(after_help = ECHO)]
    Echo(Echo),
    /// Build the whole site on this machine, to look at it and to break it.
    #[command(after_help = lab::LAB)]
    Lab(lab::Lab),
}

const START: &str = "\
To begin, without a cluster and without root:
  dualgate run --site examples/laptop/site.yaml --echo '127.0.0.1:9001,[::1]:9001'";

const RUN: &str = "\
Serves until SIGTERM or Ctrl-C, then lets open requests end. Changes of the site file and of the manifests are \
taken up while it serves. The log goes to standard error.

Example:
  dualgate run --site examples/laptop/site.yaml --echo '127.0.0.1:9001,[::1]:9001'";

const CHECK: &str = "\
Prints each mistake with its place, the line and what to do about it; the last line counts them.

Exit code: 0 no error and no warning, 1 some, 2 the inputs could not be read.

Examples:
  dualgate check --site examples/laptop/site.yaml
  dualgate check --site site.yaml --source folder:apps --notes
  dualgate check --site site.yaml --source cluster --kubeconfig /etc/rancher/k3s/k3s.yaml";

const EXPLAIN: &str = "\
Prints, for each gate: entry point, certificate, the route that matches and where it is written, its servers, and the \
routes that lost, with the reason. A URL without a port means the entry point of its scheme, also where that has \
another port than 80 or 443.

Exit code: 0 a gate serves it, 1 none does, 2 it could not be told.

Examples:
  dualgate explain https://grafana.example.org/login --site examples/laptop/site.yaml
  dualgate explain http://paperless.example.org --from external --site examples/laptop/site.yaml";

const EXPOSURE: &str = "\
Prints every host and path of the external gate, its entry points, the Ingress, and what made it public.

Exit code: 0, or 2 if it could not be told.

Example:
  dualgate exposure --site examples/laptop/site.yaml";

const PLAN: &str = "\
Compares what these inputs ask for with what the node serves: lines with `-` would go, lines with `+` would come, and \
what the Internet could reach from then on is listed once more. Nothing is changed.

Exit code: 0 nothing would change, 1 something would, 2 the node could not be asked.

Example:
  dualgate plan --site examples/laptop/site.yaml";

const STATUS: &str = "\
Prints whether the node is ready, and why not; its listeners, routes, backends and certificates; what is wrong.

Exit code: 0 ready and without errors, 1 not, 2 the node could not be asked.

Example:
  dualgate status --admin '[::1]:9180'";

const ECHO: &str = "\
Answers with JSON: path, host, method, version, fields, the client as the gate named it, and a digest of the body. \
WebSockets are echoed. A query tries more: ?status=503, ?delay=2s, ?size=1MiB, ?stream=5 (a chunk each 200 ms). \
NAMESPACE, INGRESS_NAME, SERVICE_NAME and POD_NAME of the environment are part of the answer.

Examples:
  dualgate echo --listen '127.0.0.1:9001,[::1]:9001'
  curl -d hello 'http://127.0.0.1:9001/some/path?status=201'";

/// Where the site and its objects come from.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.yaml")]
    pub site: PathBuf,
    /// Where objects come from: `folder:DIR`, a folder of manifests; `cluster` or `cluster:CONTEXT`, a Kubernetes API; or
    /// `home`: this node is an edge, and home tells it what is public [default: the folder `manifests` beside the site file].
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<SourceArgument>,
    /// How to reach the cluster [default: $KUBECONFIG, else the pod's service account, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A source of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceArgument {
    /// A folder of manifests.
    Folder(PathBuf),
    /// A Kubernetes API, by a context of the kubeconfig; `None` is its current one.
    Cluster(Option<String>),
    /// What home tells an edge.
    Home,
}

impl FromStr for SourceArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "home" => Ok(Self::Home),
            Some(("folder", directory)) if !directory.is_empty() => Ok(Self::Folder(directory.into())),
            None if text == "cluster" => Ok(Self::Cluster(None)),
            Some(("cluster", context)) if !context.is_empty() => Ok(Self::Cluster(Some(context.to_owned()))),
            _ => Err(format!(
                "`{text}` is no source; use `folder:DIR`, such as `folder:manifests`, `cluster`, `cluster:CONTEXT`, or \
                 `home` on an edge"
            )),
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// How results are printed: `text`, or `json` for programs.
    #[arg(long, short, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub output: Format,
}

/// `dualgate run`
#[derive(Debug, Args)]
pub struct Run {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Which node of the site this is [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// Where state is kept [default: $STATE_DIRECTORY, else the user's state directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Take over from the process that runs with the same state directory: its sockets change hands, so that an upgrade
    /// loses no connection.
    #[arg(long)]
    pub take_over: bool,
    /// How long a change of the firewall that shuts somebody out waits for `dualgate firewall confirm`.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = firewall::parse_patience, hide = true)]
    pub confirm: Duration,
    /// Threads that serve [default: one for each core].
    #[arg(long, value_name = "COUNT")]
    pub workers: Option<usize>,
    /// Also answer as a backend on these addresses, to try things with.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub echo: Vec<SocketAddr>,
    /// How the log is written: `text`, or `json`, one object a line.
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub log: Format,
    /// Log more: once for debugging, twice for everything.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `dualgate check`
#[derive(Debug, Args)]
pub struct Check {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Print notes too; without it only warnings and errors are printed.
    #[arg(long)]
    pub notes: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The URL, such as `https://grafana.example.org/login`; `https` where it names no scheme.
    pub url: String,
    /// Ask at one gate only: `internal` or `external`.
    #[arg(long, value_name = "GATE")]
    pub from: Option<GateName>,
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate exposure`
#[derive(Debug, Args)]
pub struct Exposure {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Which node of the site is meant [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// Where that node's admin listener is [default: as the site file says].
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate status`
#[derive(Debug, Args)]
pub struct Status {
    /// The node's admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate echo`
#[derive(Debug, Args)]
pub struct Echo {
    /// Where to listen; several addresses are separated by `,`.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_values = ["127.0.0.1:9001", "[::1]:9001"])]
    pub listen: Vec<SocketAddr>,
    /// The name to answer with [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

fn parse_node(text: &str) -> Result<NodeName, String> {
    if text.is_empty() { Err("a node's name is not empty".to_owned()) } else { Ok(NodeName::new(text)) }
}
