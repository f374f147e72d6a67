//! What can be asked of `dualgate firewall`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use dualgate_core::model::NodeName;

use super::{Inputs, Output, parse_node};

/// What stands below its help.
pub const FIREWALL: &str = "\
`dualgate run` puts the rules into the kernel by itself and keeps them there. These commands look at them, and try them \
by hand.

Examples:
  dualgate firewall show --node ionos --site examples/home/site.yaml
  dualgate firewall status --node ionos";

const FIREWALL_SHOW: &str = "\
Prints the rules that the node is to have, in nft's words; no rights are needed, and nothing is changed. A home node's \
rules name the pods of the source; without a source, there are none yet. With `--openings`, only what is let in, from \
whom and why.

Exit code: 0, or 2 if it could not be told.

Examples:
  dualgate firewall show --node ionos --site examples/home/site.yaml
  dualgate firewall show --node ionos --openings";

const FIREWALL_STATUS: &str = "\
Compares the rules that the inputs ask for with those in the kernel, and prints what the latter have counted; whether \
a change is on trial and for how long it can still be confirmed, or what stays open because nobody has confirmed. It \
needs the right to look at the kernel's rules (CAP_NET_ADMIN).

Exit code: 0 the kernel has the planned rules, 1 it has others or none, 2 it could not be told.

Example:
  sudo dualgate firewall status --node ionos";

const FIREWALL_APPLY: &str = "\
Puts the planned rules into the kernel on trial. Unless `dualgate firewall confirm` is run in time, the former rules \
come back: by a process of its own, also if this command is killed or the connection breaks. Open a new connection to \
the node, to see that there is still a way in, and confirm there.

A node where `dualgate run` guards the firewall refuses: that process follows its site file by itself, and puts on \
trial what would shut out somebody who is connected.

Exit code: 0 confirmed, or nothing to change; 1 undone; 2 the rules could not be put in place.

Example:
  sudo dualgate firewall apply --confirm 60s --node ionos
and in a new connection:
  sudo dualgate firewall confirm --node ionos";

const FIREWALL_CONFIRM: &str = "\
Keeps the change that is on trial, made by `dualgate firewall apply` or by `dualgate run`. Run it at a connection that \
was made since: that proves that there is still a way in.

Exit code: 0 the change stays, 1 it was undone before, 2 there is no change on trial.

Example:
  sudo dualgate firewall confirm --node ionos";

/// `dualgate firewall`
#[derive(Debug, Args)]
pub struct Firewall {
    /// What to do with it.
    #[command(subcommand)]
    pub command: FirewallCommand,
}

/// What to do with the firewall.
#[derive(Debug, Subcommand)]
pub enum FirewallCommand {
    /// Print the planned rules in nft's words.
    #[command(after_help = FIREWALL_SHOW)]
    Show(FirewallShow),
    /// Compare the kernel's rules with the planned ones, and print what they have counted.
    #[command(after_help = FIREWALL_STATUS)]
    Status(FirewallStatus),
    /// Put the planned rules into the kernel until they are confirmed, or else the former ones again.
    #[command(after_help = FIREWALL_APPLY)]
    Apply(FirewallApply),
    /// Keep the rules that are on trial.
    #[command(after_help = FIREWALL_CONFIRM)]
    Confirm(FirewallConfirm),
    /// What `apply` starts to restore the former rules.
    #[command(hide = true)]
    Guard(FirewallGuard),
}

/// `dualgate firewall show`
#[derive(Debug, Args)]
pub struct FirewallShow {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Whose rules [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// What is let in, from whom and why, instead of the rules.
    #[arg(long)]
    pub openings: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate firewall status`
#[derive(Debug, Args)]
pub struct FirewallStatus {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Which node of the site this is [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The state directory of `dualgate run` [default: $STATE_DIRECTORY, else the user's state directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How results are printed.
    #[command(flatten)]
    pub output: Output,
}

/// `dualgate firewall apply`
#[derive(Debug, Args)]
pub struct FirewallApply {
    /// The inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Which node of the site this is [default: the host name, or the only node].
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    pub node: Option<NodeName>,
    /// The state directory of `dualgate run` [default: $STATE_DIRECTORY, else the user's state directory].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How long to wait for the confirmation, such as `90s` or `5m`.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_patience)]
    pub confirm: Duration,
}

/// `dualgate firewall confirm`
#[derive(Debug, Args)]
pub struct FirewallConfirm {
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

/// `dualgate firewall guard`
#[derive(Debug, Args)]
pub struct FirewallGuard {
    /// The state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// One second to one hour.
pub fn parse_patience(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('s') {
        Some(number) => (number, 1),
        None => (text.strip_suffix('m').ok_or("say seconds or minutes, such as `60s` or `5m`")?, 60),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not between `1s` and `60m`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_between_a_second_and_an_hour() {
        assert_eq!(parse_patience("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_patience("60m"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "0s", "61m", "1h", "60", "-1s", "99999999999999999999m"] {
            assert!(parse_patience(wrong).is_err(), "{wrong}");
        }
    }
}
