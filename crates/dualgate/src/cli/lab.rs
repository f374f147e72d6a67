//! `dualgate lab` and what can be asked of a lab that runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use dualgate_lab::control::LabName;

use super::Format;

/// What is printed below the help.
pub const LAB: &str = "\
Builds every host of the site from namespaces of this machine, without root: the nodes with one `dualgate run` each, the \
home router, the Internet and a client on it; and an echo backend for each pod of the manifests. Nothing outside of it is \
touched, and it ends with this command.

Without --site and without a `site.yaml` here, it builds the home example that is part of the program.

Exit code: 0; with --once 1 if a check fails; 2 if the lab could not be built.

Examples:
  dualgate lab
  dualgate lab --site site.yaml --source folder:apps --once --output json
  dualgate lab --kubernetes
In another terminal:
  dualgate lab exec internet-client -- curl -s http://203.0.113.10/
  dualgate lab fail k3s-node1
  dualgate lab exec k3s-node1 -- kubectl get ingresses -A";

const EXEC: &str = "\
The exit code is the command's; 128 and the signal's number if a signal ended it; 127 if there is no such command.

Example:
  dualgate lab exec internet-client -- curl -s -H 'Host: grafana.yourdomain.com' http://203.0.113.10/";

/// `dualgate lab`
#[derive(Debug, Args)]
pub struct Lab {
    /// What to do with a lab that runs; without it, one is started.
    #[command(subcommand)]
    pub command: Option<LabCommand>,
    /// The site file [default: `site.yaml`; where there is none, the built-in home example].
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Which manifests there are: `folder:DIR`, or `example`, those of the built-in home example [default: `folder:manifests`
    /// beside the site file].
    #[arg(long, value_name = "MANIFESTS")]
    pub source: Option<Manifests>,
    /// Give the nodes a Kubernetes API as their source, with the manifests in it, to be used with `kubectl`.
    #[arg(long)]
    pub kubernetes: bool,
    /// The lab's name [default: the site's; for a command, the only lab that runs].
    #[arg(long, value_name = "NAME", global = true)]
    pub name: Option<LabName>,
    /// Look at everything once, print the report and end.
    #[arg(long)]
    pub once: bool,
    /// How results are printed: `text`, or `json` for programs.
    #[arg(long, short, value_name = "FORMAT", default_value = "text", hide_possible_values = true, global = true)]
    pub output: Format,
}

/// The manifests of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifests {
    /// A folder of them.
    Folder(PathBuf),
    /// Those that are part of the program.
    Example,
}

impl FromStr for Manifests {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "example" => Ok(Self::Example),
            Some(("folder", directory)) if !directory.is_empty() => Ok(Self::Folder(directory.into())),
            _ => Err(format!("`{text}` are no manifests; use `folder:DIR`, such as `folder:manifests`, or `example`")),
        }
    }
}

/// What to do with a lab that runs.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Show the picture and the checks: 0 if none fails, else 1.
    Status,
    /// Run a command on a host, in this terminal.
    #[command(after_help = EXEC)]
    Exec {
        /// The host, such as `internet-client`.
        host: String,
        /// The command with its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Open a shell on a host: $SHELL, or /bin/sh.
    Shell {
        /// The host.
        host: String,
    },
    /// Pull a host's plug.
    Fail {
        /// The host, such as `k3s-node1`.
        node: String,
    },
    /// Switch a host on again, or mend a link.
    Heal {
        /// The host or the link.
        #[arg(value_name = "NODE|LINK")]
        what: String,
    },
    /// Pull a cable.
    Cut {
        /// The link, such as `lan/k3s-node1`.
        link: String,
    },
    /// End a pod; its workload starts another.
    Kill {
        /// The pod, as `namespace/name`.
        pod: String,
    },
    /// Run another number of a workload's pods.
    Scale {
        /// The workload, as `namespace/name`.
        workload: String,
        /// How many pods.
        replicas: u32,
    },
    /// Print what a node's `dualgate run` has logged.
    Log {
        /// The node.
        host: String,
    },
    /// End the lab, and wait until it has.
    Down,
    /// The lab's first process: `dualgate lab` starts it.
    #[command(hide = true)]
    Init,
}
