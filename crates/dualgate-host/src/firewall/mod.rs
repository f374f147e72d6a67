//! Makes the kernel's table `inet dualgate` equal to its plan, and no other table.
//!
//! Each change is one transaction: there is no moment with half of it, and none without rules between the old and the
//! new ones. Where only pods come and go, only elements of sets change, so that rules keep what they have counted.
//!
//! **Who guards the table.** Kernels from 6.9 on let a socket own it, and it stays when its owner ends: nobody else
//! changes it, `nft flush ruleset` passes it by, a crash leaves it in force, and the next process takes it over. On
//! older kernels anybody may change it; [`Changes`] tells when somebody did, and the next round restores it.
//!
//! **A successor** that gets the descriptor ([`Firewall::descriptor`], [`Firewall::adopt`]) owns the table from then on;
//! whoever handed it over must not use it any more.
//!
//! A table of this name that does not carry dualgate's mark is somebody else's and is left alone: an error says so.

mod changes;
mod connections;
mod guard;
mod held;
mod record;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::plan::firewall::{FirewallChange, FirewallPlan, MARK, Moved, TABLE, Ways, diff, moved};
use dualgate_core::seam::Actuator;
use dualgate_wire::nftables::{
    Chain, Change, Counted, Dialect, Difference, Elements, Family, Observed, Ownership, Set, SetKind, Table,
    differences,
};

use crate::netfilter::{Netfilter, NetfilterError};

pub use changes::Changes;
pub use connections::connections;
pub use guard::{Guard, Outcome, confirm, is_on_trial, remaining, stand_guard};
pub use held::Held;

/// Why the firewall could not be made as planned. The former rules are in force.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The kernel.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// Somebody else's table.
    #[error(
        "the table `inet {TABLE}` of this host was not made by dualgate, which leaves it alone: give it another name, or \
         remove it (`nft delete table inet {TABLE}`)"
    )]
    Foreign,
    /// Another process of ours holds it.
    #[error(
        "the table `inet {TABLE}` belongs to another running process (netlink port {port}): a `dualgate run`, which \
         follows its site file by itself and puts on trial what would shut somebody out, or a guard that waits for \
         `dualgate firewall confirm`"
    )]
    Taken {
        /// The owner's netlink port: often its process's number.
        port: u32,
    },
    /// There is a change that nobody has confirmed yet.
    #[error(
        "a change waits for its confirmation: confirm it (`dualgate firewall confirm`), or wait until it is undone"
    )]
    Pending,
    /// There is no such change.
    #[error("no change waits for a confirmation (looked for `{0}`)")]
    NothingToConfirm(PathBuf),
    /// It was not confirmed in time.
    #[error("the change was not confirmed in time: the former rules are in force again")]
    Undone,
    /// The process that undoes changes.
    #[error("{what} of the firewall's guard")]
    Guard {
        /// What could not be done.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list of who is connected.
    #[error("list the connections of this host")]
    Connections(#[source] io::Error),
    /// What is kept of the rules.
    #[error("{what} `{path}`")]
    Record {
        /// What could not be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FirewallError {
    /// As a finding of this node.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let at = Place { field: "firewall".to_owned(), ..Place::default() };
        let (code, help) = match self {
            Self::Undone => (Code::FirewallUnconfirmed, "apply it again, and confirm it from a connection made since"),
            Self::Netfilter(_)
            | Self::Foreign
            | Self::Taken { .. }
            | Self::Pending
            | Self::NothingToConfirm(_)
            | Self::Guard { .. }
            | Self::Connections(_)
            | Self::Record { .. } => (Code::FirewallFailed, ""),
        };
        Finding::new(code, at, self.to_string()).help(help)
    }
}

/// How the table is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The kernel lets nobody else change it.
    Owned,
    /// Anybody may change it: it is watched and restored.
    Watched,
}

/// The firewall of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Firewall {
    netfilter: Netfilter,
    /// What this process has put into the kernel.
    applied: Option<Arc<FirewallPlan>>,
    /// Whether the kernel had just that when it was looked at last.
    intact: bool,
    /// Where the rules in force are written down, for whoever has to restore them.
    state: Option<PathBuf>,
}

/// What the rules of one name have counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The chain.
    pub chain: String,
    /// The rules' name.
    pub rule: String,
    /// Packets and octets.
    pub counted: Counted,
}

impl Firewall {
    /// Opens the network of the calling thread. In `state` is written down what is in force.
    ///
    /// # Errors
    ///
    /// If this process may not change rules there, or the kernel has no nftables.
    pub fn open(state: Option<&Path>) -> Result<Self, FirewallError> {
        Ok(Self::with(Netfilter::open()?, state))
    }

    /// The same as on a kernel without owners.
    ///
    /// # Errors
    ///
    /// As [`Firewall::open`].
    pub fn open_shared(state: Option<&Path>) -> Result<Self, FirewallError> {
        Ok(Self::with(Netfilter::open_shared()?, state))
    }

    /// Goes on with the descriptor of a predecessor, and so with the table that it owns.
    ///
    /// # Errors
    ///
    /// As [`Firewall::open`].
    pub fn adopt(descriptor: OwnedFd, state: Option<&Path>) -> Result<Self, FirewallError> {
        Ok(Self::with(Netfilter::adopt(descriptor)?, state))
    }

    fn with(netfilter: Netfilter, state: Option<&Path>) -> Self {
        Self { netfilter, applied: None, intact: false, state: state.map(Path::to_owned) }
    }

    /// For a successor.
    ///
    /// # Errors
    ///
    /// If there are too many descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.netfilter.as_fd().try_clone_to_owned()
    }

    /// How the table is kept from others.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        match self.netfilter.dialect() {
            Dialect::Owners => Protection::Owned,
            Dialect::Shared => Protection::Watched,
        }
    }

    /// What the rules have counted since they were made, by chain and name.
    ///
    /// # Errors
    ///
    /// If the kernel does not list them.
    pub fn counters(&mut self) -> Result<Vec<Counter>, FirewallError> {
        counters(&mut self.netfilter)
    }

    /// What was open to people before whatever this process applies next: what it applied last, or else what the process
    /// before it has written down.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn former(&self) -> Result<Ways, FirewallError> {
        if let Some(applied) = &self.applied {
            return Ok(applied.ways());
        }
        let record = self.state.as_deref().map(record::read).transpose()?.flatten();
        Ok(record.map_or(Ways::All, |record| record.ways))
    }

    /// What is in the kernel, as far as it can be told: what was applied, without the parts that differ.
    fn look(&mut self) -> Result<FirewallPlan, FirewallError> {
        self.intact = false;
        let Some(observed) = self.netfilter.observe(Family::Inet, TABLE)? else { return Ok(FirewallPlan::default()) };
        let own = self.own_port()?;
        belongs_to(&observed, own)?;
        let known = self.applied.as_deref().cloned().unwrap_or_default();
        let table = known.table.unwrap_or_else(|| Table::new(Family::Inet, TABLE));
        let found = differences(&table, Some(&observed), own);
        if let (Some(applied), []) = (&self.applied, found.as_slice()) {
            self.intact = true;
            return Ok((**applied).clone());
        }
        if self.applied.is_some() {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            tracing::warn!(found = found.join("; "), "the firewall was changed by others; it is restored");
        }
        Ok(FirewallPlan { table: Some(without(table, &found)), openings: known.openings })
    }

    fn own_port(&self) -> Result<Option<u32>, FirewallError> {
        match self.netfilter.dialect() {
            Dialect::Owners => Ok(Some(self.netfilter.port()?)),
            Dialect::Shared => Ok(None),
        }
    }

    /// Puts the plan into the kernel.
    fn put(&mut self, desired: &Arc<FirewallPlan>) -> Result<(), FirewallError> {
        let changes = self.transaction(desired);
        match self.netfilter.apply(&changes) {
            Ok(()) => {}
            // Somebody else took the answer, perhaps: the kernel itself knows.
            Err(NetfilterError::Unanswered) if self.has(desired)? => {}
            Err(error) => return Err(error.into()),
        }
        self.applied = Some(desired.clone());
        self.intact = true;
        Ok(())
    }

    fn transaction(&self, desired: &FirewallPlan) -> Vec<Change> {
        let Some(table) = &desired.table else { return vec![delete()] };
        let before = self.applied.as_ref().filter(|_| self.intact).and_then(|applied| applied.table.as_ref());
        match before.and_then(|before| moved(before, table)) {
            Some(sets) => sets.into_iter().flat_map(elements).collect(),
            None => vec![Change::Replace(table.clone())],
        }
    }

    fn has(&mut self, plan: &FirewallPlan) -> Result<bool, FirewallError> {
        Ok(match &plan.table {
            Some(table) => self.netfilter.differences(table)?.is_empty(),
            None => self.netfilter.observe(Family::Inet, TABLE)?.is_none(),
        })
    }
}

fn elements(Moved { set, gone, come }: Moved) -> impl Iterator<Item = Change> {
    let (family, table, kind) = (Family::Inet, TABLE.to_owned(), SetKind::Values);
    let delete = |elements| Change::DeleteElements { family, table: table.clone(), set: set.clone(), kind, elements };
    let gone = gone.map(delete);
    let come = come.map(|elements| Change::AddElements { family, table, set, kind, elements });
    gone.into_iter().chain(come)
}

fn delete() -> Change {
    Change::Delete { family: Family::Inet, name: TABLE.to_owned() }
}

/// Whether the table is ours to change: marked, and nobody else's.
fn belongs_to(observed: &Observed, own: Option<u32>) -> Result<(), FirewallError> {
    if observed.table.comment.as_deref() != Some(MARK) {
        return Err(FirewallError::Foreign);
    }
    match observed.table.owner {
        Some(port) if Some(port) != own => Err(FirewallError::Taken { port }),
        Some(_) | None => Ok(()),
    }
}

/// The table without the parts that the kernel has otherwise.
fn without(mut table: Table, found: &[Difference]) -> Table {
    for difference in found {
        match difference {
            Difference::TableAbsent => {}
            Difference::Owner => table.ownership = Ownership::Shared,
            Difference::Comment => table.comment = None,
            Difference::Chain(name) => table.chains.retain(|chain| chain.name != *name),
            Difference::StrangeChain(name) => table.chains.push(Chain::regular(name.as_str(), Vec::new())),
            Difference::Rules(name) => {
                let of_name = table.chains.iter_mut().filter(|chain| chain.name == *name);
                of_name.for_each(|chain| chain.rules.clear());
            }
            Difference::Set(name) | Difference::Elements(name) => table.sets.retain(|set| set.name != *name),
            Difference::StrangeSet(name) => {
                table.sets.push(Set { name: name.clone(), kind: SetKind::Values, elements: Elements::Ip(Vec::new()) });
            }
        }
    }
    table
}

impl Actuator for Firewall {
    type Plan = FirewallPlan;
    type Change = FirewallChange;
    type Error = FirewallError;

    async fn observe(&mut self) -> Result<FirewallPlan, FirewallError> {
        self.look()
    }

    fn diff(observed: &FirewallPlan, desired: &FirewallPlan) -> Vec<FirewallChange> {
        diff(observed, desired)
    }

    async fn apply(&mut self, desired: &Arc<FirewallPlan>, changes: &[FirewallChange]) -> Result<(), FirewallError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.put(desired)?;
        match &self.state {
            Some(state) => record::write(state, desired, self.netfilter.dialect()),
            None => Ok(()),
        }
    }
}

/// What the kernel has, for whoever only looks.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// How it differs from the plan, whoever owns it.
    pub differences: Vec<Difference>,
    /// The netlink port of the process that owns the table.
    pub owner: Option<u32>,
    /// What the rules have counted.
    pub counters: Vec<Counter>,
}

/// Looks at the table of the calling thread's network, and changes nothing.
///
/// # Errors
///
/// If the kernel does not list it, or the table is somebody else's.
pub fn inspect(plan: &FirewallPlan) -> Result<Inspection, FirewallError> {
    let mut netfilter = Netfilter::open()?;
    let observed = netfilter.observe(Family::Inet, TABLE)?;
    if observed.as_ref().is_some_and(|observed| observed.table.comment.as_deref() != Some(MARK)) {
        return Err(FirewallError::Foreign);
    }
    let owner = observed.as_ref().and_then(|observed| observed.table.owner);
    let differences = match (&plan.table, &observed) {
        (Some(table), observed) => differences(table, observed.as_ref(), owner),
        (None, None) => Vec::new(),
        (None, Some(observed)) => differences(&Table::new(Family::Inet, TABLE), Some(observed), owner),
    };
    Ok(Inspection { differences, owner, counters: counters(&mut netfilter)? })
}

fn counters(netfilter: &mut Netfilter) -> Result<Vec<Counter>, FirewallError> {
    let mut sums: BTreeMap<(String, String), Counted> = BTreeMap::new();
    for rule in netfilter.rules(Family::Inet, TABLE)? {
        if let (Some(name), Some(counted)) = (rule.comment, rule.counted) {
            let sum = sums.entry((rule.chain, name)).or_default();
            sum.packets += counted.packets;
            sum.octets += counted.octets;
        }
    }
    Ok(sums.into_iter().map(|((chain, rule), counted)| Counter { chain, rule, counted }).collect())
}
