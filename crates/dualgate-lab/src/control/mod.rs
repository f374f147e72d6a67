//! Looking at a running lab from outside, and breaking things in it.
//!
//! A lab listens on an abstract Unix socket of the machine, `dualgate-lab/UID/NAME`: nothing of it stays behind, whatever
//! ends the lab. Each connection carries one request and one answer, a JSON line each way; with [`Answer::Enter`] come
//! the descriptors of a host's namespaces. Both sides speak only with processes of the same user.
//!
//! What is done is the [`Operator`]'s matter: the lab's, or a test's that keeps state.

mod client;
mod entrance;
mod name;
mod server;
mod wire;

use serde::{Deserialize, Serialize};

pub use self::client::{ControlError, ask, bind, choose, running};
pub use self::entrance::{Entrance, NamespaceKind};
pub use self::name::LabName;
pub use self::server::{Event, Server};
pub use self::wire::{give_listener, take_listener};
use crate::report::Status;

/// What can be asked of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// How it is.
    Status,
    /// Pull a host's plug.
    Fail {
        /// The host.
        host: String,
    },
    /// Switch a host on again, or mend a link.
    Heal {
        /// The host or the link.
        what: String,
    },
    /// Pull a cable.
    Cut {
        /// The link.
        link: String,
    },
    /// End a pod; its workload starts another.
    Kill {
        /// The pod, `namespace/name`.
        pod: String,
    },
    /// Run another number of a workload's pods.
    Scale {
        /// The workload, `namespace/name`.
        workload: String,
        /// How many.
        replicas: u32,
    },
    /// Hand out a host's namespaces.
    Enter {
        /// The host.
        host: String,
    },
    /// What a host's `dualgate run` has logged.
    Log {
        /// The host.
        host: String,
    },
    /// End the lab.
    Down,
}

/// What a lab answers.
#[derive(Debug)]
pub enum Answer {
    /// It was done.
    Done {
        /// What is different, as a sentence.
        message: String,
    },
    /// How it is.
    Status(Box<Status>),
    /// What was logged.
    Log {
        /// The last lines.
        text: String,
    },
    /// A way into a host.
    Enter(Entrance),
}

/// Why a lab does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}{help}", if help.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// What is wrong with it.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// There is no `kind` of this name. What there is, is listed, the likeliest first.
    pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let meant = dualgate_core::parse::object::nearest(name, &known);
        let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        let help = match known.as_slice() {
            [] => format!("the lab has no {kind}s"),
            _ => format!("{meant}the {kind}s are {}", known.join(", ")),
        };
        Self::new(format!("there is no {kind} `{name}`"), help)
    }
}

/// Who does what is asked: the lab. Its methods may be called from several threads at once, and may take seconds.
pub trait Operator: Send + Sync {
    /// How the lab is; at once.
    fn status(&self) -> Status;
    /// Looks at all that is checked, once; [`status`](Self::status) tells what was seen from then on.
    fn look(&self);
    /// Pulls a host's plug.
    fn fail(&self, host: &str) -> Result<String, Refusal>;
    /// Switches a host on again, or mends a link.
    fn heal(&self, what: &str) -> Result<String, Refusal>;
    /// Pulls a cable.
    fn cut(&self, link: &str) -> Result<String, Refusal>;
    /// Ends a pod.
    fn kill(&self, pod: &str) -> Result<String, Refusal>;
    /// Runs another number of a workload's pods.
    fn scale(&self, workload: &str, replicas: u32) -> Result<String, Refusal>;
    /// What a host's `dualgate run` has logged lately.
    fn log(&self, host: &str) -> Result<String, Refusal>;
    /// A way into a host.
    fn enter(&self, host: &str) -> Result<Entrance, Refusal>;
    /// Ends all that runs in the lab. Called once, by whoever owns it.
    fn down(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_those_that_exist() {
        let refusal = Refusal::unknown("host", "k3s-nod1", ["ionos", "k3s-node1", "k3s-node2"]);
        assert_eq!(
            refusal.to_string(),
            "there is no host `k3s-nod1`: did you mean `k3s-node1`? the hosts are ionos, k3s-node1, k3s-node2"
        );
        assert_eq!(Refusal::unknown("pod", "x", []).to_string(), "there is no pod `x`: the lab has no pods");
        assert_eq!(Refusal::new("it is off", "").to_string(), "it is off");
    }

    #[test]
    fn a_request_is_one_line_of_json_that_says_what_it_is() {
        let line = |request: &Request| serde_json::to_string(request).unwrap();
        let scale = Request::Scale { workload: "apps/grafana".into(), replicas: 3 };
        assert_eq!(line(&scale), r#"{"request":"scale","workload":"apps/grafana","replicas":3}"#);
        assert_eq!(line(&Request::Down), r#"{"request":"down"}"#);
    }
}
