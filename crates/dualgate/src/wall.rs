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
    /// Nothing is done before there is a plan: the rules of the process before stay in force until then.
    planned: Planned,
    /// Open while there are rules to keep.
    firewall: Option<Firewall>,
    changes: Option<Changes>,
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

impl Wall {
    /// Nothing is planned yet. What is in force is written down in the state directory.
    pub fn new(state: PathBuf) -> Self {
        let (plan, planned) = (Arc::default(), Planned::Nothing);
        Self { state, plan, planned, firewall: None, changes: None, trouble: None }
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
            Ok(()) => (self.trouble, self.planned) = (None, Planned::Made),
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
