//! Whether the kernel has a table as it was written.
//!
//! Chains, hooks and named sets are compared as they are. A rule carries a digest of its words, so that a rule that
//! was replaced, added, moved or removed by others shows, without reading the kernel's expressions back.

use std::fmt;

use super::dump::{Observed, ObservedChain, ObservedElement, ObservedHook};
use super::rule::Rule;
use super::set::{Range, SetKind, successor};
use super::table::{Chain, Family, Table};

/// How the kernel's table differs from the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    TableAbsent,
    /// It belongs to nobody or to another socket.
    Owner,
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
    /// This set holds other elements.
    Elements(String),
    /// This set is there and should not be.
    StrangeSet(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableAbsent => f.write_str("the table is not there"),
            Self::Owner => f.write_str("the table belongs to nobody or to another socket"),
            Self::Comment => f.write_str("the table's comment differs"),
            Self::Chain(name) => write!(f, "chain {name} is absent or enters elsewhere"),
            Self::StrangeChain(name) => write!(f, "chain {name} was added by others"),
            Self::Rules(chain) => write!(f, "the rules of chain {chain} differ"),
            Self::Set(name) => write!(f, "set {name} is absent or of another type"),
            Self::Elements(name) => write!(f, "set {name} holds other elements"),
            Self::StrangeSet(name) => write!(f, "set {name} was added by others"),
        }
    }
}

/// Compares a table with what the kernel has under its name. `owner` is the port of the netlink socket that should own
/// it. What dynamic sets hold is not compared.
#[must_use]
pub fn differences(wanted: &Table, observed: Option<&Observed>, owner: Option<u32>) -> Vec<Difference> {
    let Some(observed) = observed else { return vec![Difference::TableAbsent] };
    let mut differences = Vec::new();
    if observed.table.owner != owner {
        differences.push(Difference::Owner);
    }
    if observed.table.comment != wanted.comment {
        differences.push(Difference::Comment);
    }
    compare_chains(wanted, observed, &mut differences);
    compare_sets(wanted, observed, &mut differences);
    differences
}

fn compare_chains(wanted: &Table, observed: &Observed, differences: &mut Vec<Difference>) {
    for chain in &wanted.chains {
        let expected = hook(wanted.family, chain);
        if !observed.chains.iter().any(|observed| observed.name == chain.name && observed.hook == expected) {
            differences.push(Difference::Chain(chain.name.clone()));
        }
        let rules = observed.rules.iter().filter(|rule| rule.chain == chain.name);
        if !rules.map(|rule| rule.digest).eq(chain.rules.iter().map(|rule| Some(digest(rule)))) {
            differences.push(Difference::Rules(chain.name.clone()));
        }
    }
    let is_strange = |observed: &&ObservedChain| !wanted.chains.iter().any(|chain| chain.name == observed.name);
    let strange = observed.chains.iter().filter(is_strange);
    differences.extend(strange.map(|chain| Difference::StrangeChain(chain.name.clone())));
}

fn compare_sets(wanted: &Table, observed: &Observed, differences: &mut Vec<Difference>) {
    let sets: Vec<_> = observed.sets.iter().filter(|(set, _)| set.flags & SET_ANONYMOUS == 0).collect();
    for set in &wanted.sets {
        let key_type = set.elements.key().number();
        let same = sets.iter().find(|(observed, _)| observed.name == set.name && observed.key_type == key_type);
        match (same, set.kind) {
            (None, _) => differences.push(Difference::Set(set.name.clone())),
            (Some(_), SetKind::Dynamic { .. }) => {}
            (Some((_, elements)), SetKind::Values | SetKind::Intervals) => {
                let mut elements = elements.clone();
                elements.sort();
                if elements != boundaries(&set.elements.ranges(set.kind), set.kind) {
                    differences.push(Difference::Elements(set.name.clone()));
                }
            }
        }
    }
    let strange = sets.iter().filter(|(observed, _)| !wanted.sets.iter().any(|set| set.name == observed.name));
    differences.extend(strange.map(|(set, _)| Difference::StrangeSet(set.name.clone())));
}

/// The elements as the kernel keeps them, in order.
fn boundaries(ranges: &[Range], kind: SetKind) -> Vec<ObservedElement> {
    let start = |range: &Range| Some(ObservedElement { key: range.first.clone(), ends_interval: false });
    let end = |range: &Range| {
        let key = successor(&range.last).filter(|_| kind == SetKind::Intervals);
        key.map(|key| ObservedElement { key, ends_interval: true })
    };
    let mut boundaries: Vec<_> = ranges.iter().flat_map(|range| [start(range), end(range)]).flatten().collect();
    boundaries.sort();
    boundaries
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
