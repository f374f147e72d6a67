//! What can be asked of `dualgate dns`.

use clap::{Args, Subcommand, ValueEnum};

use super::{Inputs, Output};

/// What stands below its help.
pub const DNS: &str = "\
Names follow the same objects as the gates: nothing is typed twice. Clients at home and the Internet get different answers.

Examples:
  dualgate dns show --site examples/home/site.yaml
  dualgate dns export yourdomain.com --view public --site examples/home/site.yaml
  dualgate dns diff --site examples/home/site.yaml
  dualgate dns router-steps --site examples/home/site.yaml";

const DNS_SHOW: &str = "\
Exit code: 0, or 2 if the inputs could not be read.

Examples:
  dualgate dns show --site examples/home/site.yaml
  dualgate dns show --view public --output json";

const DNS_EXPORT: &str = "\
Exit code: 0 it is printed, 1 the view has no such zone, 2 the inputs could not be read.

Example:
  dualgate dns export yourdomain.com --view public --site examples/home/site.yaml > yourdomain.com.zone";

const DNS_DIFF: &str = "\
Reads what providers have; nothing is changed there. `+` would be written, `~` changed, `-` removed; `!` is somebody else's and
stays. `dualgate run` makes the same changes.

Exit code: 0 providers have what is wanted, 1 something differs, 2 the inputs or a provider could not be read.

Examples:
  dualgate dns diff --site examples/home/site.yaml
  dualgate dns diff --zone yourdomain.com --output json";

const DNS_ROUTER_STEPS: &str = "\
Exit code: 0, or 2 if the inputs could not be read.

Example:
  dualgate dns router-steps --site examples/home/site.yaml";

/// `dualgate dns`
#[derive(Debug, Args)]
pub struct Dns {
    /// What to do with names.
    #[command(subcommand)]
    pub command: DnsCommand,
}

/// What to do with names.
#[derive(Debug, Subcommand)]
pub enum DnsCommand {
    /// Show every record of both views, and where it comes from.
    #[command(after_help = DNS_SHOW)]
    Show(DnsShow),
    /// Write a zone as a zone file, for another name server.
    #[command(after_help = DNS_EXPORT)]
    Export(DnsExport),
    /// Compare zones that live at providers with what should stand there.
    #[command(after_help = DNS_DIFF)]
    Diff(DnsDiff),
    /// Show what a person has to set at the router and where the domain is registered.
    #[command(after_help = DNS_ROUTER_STEPS)]
    RouterSteps(DnsRouterSteps),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ViewArgument {
    /// Clients at home.
    Home,
    /// The Internet.
    Public,
}

/// `dualgate dns show`
#[derive(Debug, Args)]
pub struct DnsShow {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Only this view.
    #[arg(long, value_name = "VIEW")]
    pub view: Option<ViewArgument>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate dns export`
#[derive(Debug, Args)]
pub struct DnsExport {
    /// The zone.
    #[arg(value_name = "ZONE")]
    pub zone: String,
    /// Which view of it.
    #[arg(long, value_name = "VIEW", default_value = "public")]
    pub view: ViewArgument,
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
}

/// `dualgate dns diff`
#[derive(Debug, Args)]
pub struct DnsDiff {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Only this zone.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate dns router-steps`
#[derive(Debug, Args)]
pub struct DnsRouterSteps {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}
