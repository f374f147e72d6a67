//! Whether the kernel has a table as it was written.
//!
//! Chains, hooks and named sets are compared as they are. A rule carries a digest of its words, so that a rule that
//! was replaced, added, moved or removed by others shows, without reading the kernel's expressions back.

use std::fmt;

use super::dump::{ObservedChain, ObservedHook, ObservedRule, ObservedSet, ObservedTable};
use super::rule::Rule;
use super::table::{Chain, Family, Table};

/// How the kernel's table differs from the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    TableAbsent,
    /// Its comment is another one.
    Comment,
    /// This chain is not there, or enters elsewhere.
    Chain(String),
    /// This chain is there and should not be.
    StrangeChain(String),
    /// The rules of this chain are others, or in another order.
    Rules(String),
    /// This set is not there, or of another type.
    Set(String),
    /// This set is there and should not be.
    StrangeSet(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableAbsent => f.write_str("the table is not there"),
            Self::Comment => f.write_str("the table's comment differs"),
            Self::Chain(name) => write!(f, "chain {name} is absent or enters elsewhere"),
            Self::StrangeChain(name) => write!(f, "chain {name} was added by others"),
            Self::Rules(chain) => write!(f, "the rules of chain {chain} differ"),
            Self::Set(name) => write!(f, "set {name} is absent or of another type"),
            Self::StrangeSet(name) => write!(f, "set {name} was added by others"),
        }
    }
}

/// Compares a table with what the kernel lists; what is listed of other tables does not count. What sets hold is not
/// compared: they are changed one element at a time.
#[must_use]
pub fn differences(
    wanted: &Table,
    tables: &[ObservedTable],
    chains: &[ObservedChain],
    rules: &[ObservedRule],
    sets: &[ObservedSet],
) -> Vec<Difference> {
    let here = |family: Family, table: &str| family == wanted.family && table == wanted.name;
    let Some(table) = tables.iter().find(|table| here(table.family, &table.name)) else {
        return vec![Difference::TableAbsent];
    };
    let mut differences = Vec::new();
    if table.comment != wanted.comment {
        differences.push(Difference::Comment);
    }
    let chains: Vec<_> = chains.iter().filter(|chain| here(chain.family, &chain.table)).collect();
    for chain in &wanted.chains {
        if !chains.iter().any(|observed| observed.name == chain.name && observed.hook == hook(wanted.family, chain)) {
            differences.push(Difference::Chain(chain.name.clone()));
        }
        let rules = rules.iter().filter(|rule| here(rule.family, &rule.table) && rule.chain == chain.name);
        if !rules.map(|rule| rule.digest).eq(chain.rules.iter().map(|rule| Some(digest(rule)))) {
            differences.push(Difference::Rules(chain.name.clone()));
        }
    }
    let strange = chains.iter().filter(|observed| !wanted.chains.iter().any(|chain| chain.name == observed.name));
    differences.extend(strange.map(|chain| Difference::StrangeChain(chain.name.clone())));
    let named = |set: &&ObservedSet| here(set.family, &set.table) && set.flags & SET_ANONYMOUS == 0;
    let sets: Vec<_> = sets.iter().filter(named).collect();
    for set in &wanted.sets {
        let key_type = set.elements.key().number();
        if !sets.iter().any(|observed| observed.name == set.name && observed.key_type == key_type) {
            differences.push(Difference::Set(set.name.clone()));
        }
    }
    let strange = sets.iter().filter(|observed| !wanted.sets.iter().any(|set| set.name == observed.name));
    differences.extend(strange.map(|set| Difference::StrangeSet(set.name.clone())));
    differences
}

const SET_ANONYMOUS: u32 = 1;

fn hook(family: Family, chain: &Chain) -> Option<ObservedHook> {
    chain.hook.as_ref().map(|hook| ObservedHook {
        kind: hook.kind.name().to_owned(),
        number: hook.at.number(family),
        priority: hook.priority,
        policy: hook.policy.number(),
    })
}

/// Changes when the same words come to mean other expressions.
const LOWERING: u8 = 1;

/// What was written of a rule: FNV-1a of its words. It guards against accidents, not against malice: who may write
/// rules may write this, too.
pub(super) fn digest(rule: &Rule) -> u64 {
    let words = rule.to_string();
    let octets = std::iter::once(LOWERING).chain(words.bytes());
    octets.fold(0xcbf2_9ce4_8422_2325, |digest, octet| (digest ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}
