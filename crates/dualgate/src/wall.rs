//! This node's firewall, kept as planned beside the gates: what it cannot do is a finding, and stops nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use dualgate_core::model::Finding;
use dualgate_core::plan::firewall::FirewallPlan;
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{Changes, Counter, Firewall, FirewallError, Protection};
use serde::{Deserialize, Serialize};

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
    plan: Arc<FirewallPlan>,
    /// Open while there are rules to keep.
    firewall: Option<Firewall>,
    changes: Option<Changes>,
    looked: Looked,
    trouble: Option<Finding>,
}

/// Whether the kernel was looked at since the start: a process before this one may have left its rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Never,
    Before,
}

impl Wall {
    /// Nothing is planned yet. What is in force is written down in the state directory.
    pub fn new(state: PathBuf) -> Self {
        let (plan, looked) = (Arc::default(), Looked::Never);
        Self { state, plan, firewall: None, changes: None, looked, trouble: None }
    }

    /// What is to be from now on.
    pub async fn plan(&mut self, plan: FirewallPlan) {
        if plan != *self.plan {
            self.plan = Arc::new(plan);
            self.converge().await;
        } else if self.looked == Looked::Never {
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
        if !is_wanted && self.firewall.is_none() && self.looked == Looked::Before {
            return;
        }
        self.looked = Looked::Before;
        match self.keep().await {
            Ok(()) => self.trouble = None,
            // Where nothing is wanted, what cannot be looked at is nobody's business.
            Err(_) if !is_wanted => self.trouble = None,
            Err(error) => {
                let finding = error.finding();
                if self.trouble.as_ref() != Some(&finding) {
                    tracing::warn!(code = finding.code.id(), "{}", finding.message);
                }
                self.trouble = Some(finding);
            }
        }
        if !is_wanted {
            (self.firewall, self.changes) = (None, None);
        }
    }

    async fn keep(&mut self) -> Result<(), FirewallError> {
        let firewall = match &mut self.firewall {
            Some(firewall) => firewall,
            None => {
                self.changes = Some(Changes::open());
                self.firewall.insert(Firewall::open(Some(&self.state))?)
            }
        };
        let observed = firewall.observe().await?;
        let changes = Firewall::diff(&observed, &self.plan);
        if !changes.is_empty() {
            firewall.apply(&self.plan, &changes).await?;
            tracing::info!(changes = changes.len(), "the firewall is as planned");
            changes.iter().for_each(|change| tracing::debug!("{change}"));
        }
        Ok(())
    }

    /// Waits until somebody has changed rules of this host. For ever, while there are none to keep.
    pub async fn changed(&mut self) {
        match &mut self.changes {
            Some(changes) if self.plan.table.is_some() => changes.next().await,
            Some(_) | None => std::future::pending().await,
        }
    }

    /// What is wrong.
    pub fn findings(&self) -> Vec<Finding> {
        self.trouble.iter().cloned().collect()
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
