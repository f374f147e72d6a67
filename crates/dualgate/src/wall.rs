//! This node's firewall, kept as planned beside the gates: what it cannot do is a finding, and stops nothing else.
//!
//! A change that would shut out somebody who is connected is on trial first. What it opens is open at once; what it shuts
//! is shut under the eyes of a guard, a process of its own that opens it again unless the change is confirmed in time.
//! Then it is *held*: the former ways in stay open beside what is planned, until the site file says otherwise. That it is
//! held lies on disk, so that no restart makes a change that nobody has confirmed.
//!
//! ```text
//!            shuts nobody out
//! planned ──────────────────────────────────────> in force
//!    │                                               ^
//!    │ shuts somebody out              confirmed     │
//!    └────────────────────> on trial ────────────────┘
//!                              │ not confirmed: time, signals, a reboot
//!                              └─────────────────> held, until other ways in are planned
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::Finding;
use dualgate_core::model::finding::{Code, Place};
use dualgate_core::plan::firewall::{Connection, FirewallPlan, Way, Ways, names};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{
    Changes, Counter, Firewall, FirewallError, Guard, Held, Outcome, Protection, connections, is_on_trial,
};
use serde::{Deserialize, Serialize};

use crate::river::Chain;

/// How often to look whether a trial has ended.
const LOOK: Duration = Duration::from_millis(200);
/// What to do while a change is on trial.
const CONFIRM: &str = "`dualgate firewall confirm` at a new connection keeps it; without, it is undone";

/// How the firewall is, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether rules are in force.
    pub on: bool,
    /// `owned` where the kernel lets nobody else change them, else `watched`.
    pub protection: String,
    /// What they have counted, by chain and rule.
    pub counters: Vec<Count>,
}

/// What the rules of one name have counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The chain.
    pub chain: String,
    /// The rules' name.
    pub rule: String,
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// The firewall with what is wanted of it.
pub struct Wall {
    state: PathBuf,
    /// How long a change is on trial.
    patience: Duration,
    plan: Arc<FirewallPlan>,
    /// Nothing is done before there is a plan: the rules of the process before stay in force until then.
    planned: Planned,
    /// Open while there are rules to keep.
    firewall: Option<Firewall>,
    changes: Option<Changes>,
    trial: Trial,
    /// The change that is on trial, or was not confirmed.
    held: Option<Held>,
    trouble: Option<Finding>,
}

/// How far the plan has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planned {
    /// There is none yet.
    Nothing,
    /// There is one, and it may not be so yet: a process before this one may have left its rules.
    Wanted,
    /// It was made so.
    Made,
}

/// Whether a change is on trial: until it ends, nothing else is done.
enum Trial {
    /// None is.
    Nothing,
    /// One of this process.
    Own(Guard),
    /// One of the process before this one, or of `dualgate firewall apply`.
    Others,
}

/// Guards a change in a process that needs nothing of this one.
pub fn guard_command(state: &Path) -> Command {
    // The program of this process, also when an upgrade has put another in its place.
    let mut command = Command::new("/proc/self/exe");
    command.args(["firewall", "guard", "--state"]).arg(state).stderr(Stdio::null());
    command
}

impl Wall {
    /// Nothing is planned yet. What is in force is written down in the state directory; a change that would shut somebody
    /// out is on trial for this long.
    pub fn new(state: PathBuf, patience: Duration) -> Self {
        Self {
            state,
            patience,
            plan: Arc::default(),
            planned: Planned::Nothing,
            firewall: None,
            changes: None,
            trial: Trial::Nothing,
            held: None,
            trouble: None,
        }
    }

    /// What is to be from now on.
    pub async fn plan(&mut self, plan: FirewallPlan) {
        if plan != *self.plan || self.planned == Planned::Nothing {
            (self.plan, self.planned) = (Arc::new(plan), Planned::Wanted);
            self.converge().await;
        }
    }

    /// What is wanted.
    pub fn planned(&self) -> &FirewallPlan {
        &self.plan
    }

    /// Makes the rules as planned, if they are not.
    pub async fn converge(&mut self) {
        let is_wanted = self.plan.table.is_some();
        match self.planned {
            Planned::Nothing => return,
            Planned::Made if !is_wanted => return,
            Planned::Wanted | Planned::Made => {}
        }
        match self.keep().await {
            Ok(Kept::Later) => self.trouble = None,
            Ok(Kept::Done) => (self.trouble, self.planned) = (None, Planned::Made),
            // Where nothing is wanted and nothing may be looked at, nothing of ours is there.
            Err(FirewallError::Netfilter(_) | FirewallError::Foreign) if !is_wanted => {
                (self.trouble, self.planned) = (None, Planned::Made);
            }
            Err(error) => {
                let finding = error.finding();
                if self.trouble.as_ref() != Some(&finding) {
                    tracing::warn!(code = finding.code.id(), "{}", finding.message);
                }
                self.trouble = Some(finding);
            }
        }
        if !is_wanted && self.planned == Planned::Made {
            (self.firewall, self.changes) = (None, None);
        }
    }

    async fn keep(&mut self) -> Result<Kept, FirewallError> {
        self.end_trial();
        if !matches!(self.trial, Trial::Nothing) {
            return Ok(Kept::Later);
        }
        let firewall = match &mut self.firewall {
            Some(firewall) => firewall,
            None => {
                self.changes = Some(Changes::open());
                self.firewall.insert(Firewall::open(Some(&self.state))?)
            }
        };
        let observed = firewall.observe().await?;
        if self.planned == Planned::Wanted {
            self.held = Held::read(&self.state)?;
        }
        let is_held = self.held.as_ref().is_some_and(|held| held.refused == self.plan.ways());
        let desired = match self.held.as_ref().filter(|_| is_held) {
            Some(held) => Arc::new(self.plan.keeping(&held.kept)),
            None => self.plan.clone(),
        };
        let changes = Firewall::diff(&observed, &desired);
        if !changes.is_empty() {
            let former = firewall.former()?;
            let shut_out = if is_held { Vec::new() } else { shut_out(&former, &desired) };
            if !shut_out.is_empty() {
                return self.put_on_trial(&observed, &former, &shut_out).await;
            }
            firewall.apply(&desired, &changes).await?;
            tracing::info!(changes = changes.len(), "the firewall is as planned");
            changes.iter().for_each(|change| tracing::debug!("{change}"));
        }
        if !is_held && self.held.take().is_some() {
            Held::forget(&self.state)?;
        }
        Ok(Kept::Done)
    }

    /// Opens what the plan opens, and shuts the rest on trial.
    async fn put_on_trial(
        &mut self,
        observed: &FirewallPlan,
        former: &Ways,
        shut_out: &[Connection],
    ) -> Result<Kept, FirewallError> {
        let Some(firewall) = &mut self.firewall else { return Ok(Kept::Later) };
        let kept = self.plan.missing(former, shut_out);
        let before = Arc::new(self.plan.keeping(&kept));
        firewall.apply(&before, &Firewall::diff(observed, &before)).await?;
        let held = Held { refused: self.plan.ways(), kept, who: names(shut_out) };
        held.write(&self.state)?;
        match firewall.apply_on_trial(&self.plan, self.patience, &self.state, &mut guard_command(&self.state)) {
            Ok(guard) => {
                tracing::info!(time = ?self.patience, "a change of the firewall is on trial");
                (self.trial, self.held) = (Trial::Own(guard), Some(held));
                Ok(Kept::Later)
            }
            Err(error) => {
                // It was not tried: it is not to be held for that.
                Held::forget(&self.state)?;
                Err(error)
            }
        }
    }

    /// Learns how a trial has ended, if it has.
    fn end_trial(&mut self) {
        match &mut self.trial {
            Trial::Own(guard) => {
                let outcome = match guard.outcome() {
                    Ok(None) => return,
                    Ok(Some(outcome)) => outcome,
                    Err(error) => {
                        tracing::warn!(%error, "the former rules are restored in its place");
                        Outcome::Undone
                    }
                };
                if let Some(firewall) = &mut self.firewall {
                    firewall.concluded(guard, outcome);
                }
                match outcome {
                    Outcome::Confirmed => tracing::info!("the change of the firewall was confirmed and stays"),
                    Outcome::Undone => tracing::warn!("the change of the firewall was not confirmed and is undone"),
                }
            }
            Trial::Nothing | Trial::Others if is_on_trial(&self.state) => {
                self.trial = Trial::Others;
                // What cannot be read is told when the trial has ended.
                self.held = Held::read(&self.state).ok().flatten();
                return;
            }
            Trial::Nothing => return,
            Trial::Others => {}
        }
        (self.trial, self.planned) = (Trial::Nothing, Planned::Wanted);
    }

    /// Waits until somebody has changed rules of this host, or it is time to look after a trial. For ever, while there is
    /// nothing to look after.
    pub async fn changed(&mut self) {
        let is_wanted = self.plan.table.is_some();
        let told = async {
            match &mut self.changes {
                Some(changes) if is_wanted => changes.next().await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let time = async {
            match self.trial {
                Trial::Own(_) | Trial::Others => tokio::time::sleep(LOOK).await,
                Trial::Nothing => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = time => {}
        }
    }

    /// What is wrong.
    pub fn findings(&self) -> Vec<Finding> {
        self.trouble.iter().cloned().chain(self.unconfirmed()).collect()
    }

    /// What waits for a confirmation, or has not got it.
    fn unconfirmed(&self) -> Option<Finding> {
        let (message, help) = match (&self.trial, &self.held) {
            (Trial::Nothing, None) => return None,
            (Trial::Own(_) | Trial::Others, None) => ("a change of the firewall is on trial".to_owned(), CONFIRM),
            (Trial::Own(_), Some(held)) => (
                format!("this change would shut out {}: it is on trial for {} s", held.who, self.patience.as_secs()),
                CONFIRM,
            ),
            (Trial::Others, Some(held)) => (
                format!("this change would shut out {}: it is on trial, since before this process began", held.who),
                CONFIRM,
            ),
            (Trial::Nothing, Some(held)) => (
                format!(
                    "this change would shut out {}, and was not confirmed in time: what was open before stays open{}",
                    held.who,
                    list(&held.kept)
                ),
                "let them in, in the site file; or take the change back there and make it again, to confirm it with \
                 `dualgate firewall confirm`",
            ),
        };
        let at = Place { field: "firewall".to_owned(), ..Place::default() };
        Some(Finding::new(Code::FirewallUnconfirmed, at, message).help(help))
    }

    /// How it is at this moment.
    pub fn report(&mut self) -> Report {
        let Some(firewall) = self.firewall.as_mut().filter(|_| self.plan.table.is_some()) else {
            return Report::default();
        };
        let protection = match firewall.protection() {
            Protection::Owned => "owned",
            Protection::Watched => "watched",
        };
        let count = |counter: Counter| Count {
            chain: counter.chain,
            rule: counter.rule,
            packets: counter.counted.packets,
            bytes: counter.counted.octets,
        };
        // Counters that cannot be read are missing for a moment.
        let counters = firewall.counters().unwrap_or_default().into_iter().map(count).collect();
        Report { on: self.trouble.is_none(), protection: protection.to_owned(), counters }
    }
}

/// How far a round has come.
enum Kept {
    /// The rules are as planned, or held.
    Done,
    /// A change is on trial: the rest waits for its end.
    Later,
}

/// Whom a plan would shut out. Where that cannot be told, nobody waits for a confirmation that nobody expects.
fn shut_out(former: &Ways, plan: &FirewallPlan) -> Vec<Connection> {
    // The kernel's list can be long.
    if *former == plan.ways() {
        return Vec::new();
    }
    match connections() {
        Ok(connections) => plan.shut_out(former, &connections),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "a change of the firewall is made without a trial");
            Vec::new()
        }
    }
}

fn list(kept: &[Way]) -> String {
    match kept {
        [] => String::new(),
        kept => format!(" ({})", kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
