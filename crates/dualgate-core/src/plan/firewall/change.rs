//! What has to change, in words for people; and whether it can be done without making the table again.

use std::collections::BTreeMap;
use std::fmt;

use dualgate_wire::nftables::{Elements, Set, SetKind, Table};

use super::FirewallPlan;

/// One difference between what is and what is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirewallChange {
    /// This line is to come.
    Add(Line),
    /// This line is to go.
    Remove(Line),
    /// The lines are the same, in another order.
    Order,
}

/// A line of a table, and the chain or set that it stands in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The chain or set; empty is the table itself.
    pub place: String,
    /// In nft's words.
    pub text: String,
}

impl fmt::Display for FirewallChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(line) => write!(f, "+ firewall {line}"),
            Self::Remove(line) => write!(f, "- firewall {line}"),
            Self::Order => f.write_str("~ firewall: the same rules in another order"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.place, self.text) }
    }
}

/// What has to change.
pub fn diff(observed: &FirewallPlan, desired: &FirewallPlan) -> Vec<FirewallChange> {
    if observed.table == desired.table {
        return Vec::new();
    }
    let lines = |plan: &FirewallPlan| plan.table.as_ref().map(lines).unwrap_or_default();
    let (before, after) = (counted(lines(observed)), counted(lines(desired)));
    let more = |some: &BTreeMap<Line, usize>, others: &BTreeMap<Line, usize>| -> Vec<Line> {
        let missing = |(line, count): (&Line, &usize)| {
            let missing = count.saturating_sub(others.get(line).copied().unwrap_or_default());
            std::iter::repeat_n(line.clone(), missing).collect::<Vec<_>>()
        };
        some.iter().flat_map(missing).collect()
    };
    let mut changes: Vec<_> = more(&before, &after).into_iter().map(FirewallChange::Remove).collect();
    changes.extend(more(&after, &before).into_iter().map(FirewallChange::Add));
    if changes.is_empty() {
        changes.push(FirewallChange::Order);
    }
    changes
}

fn counted(lines: Vec<Line>) -> BTreeMap<Line, usize> {
    let mut counted = BTreeMap::new();
    lines.into_iter().for_each(|line| *counted.entry(line).or_insert(0) += 1);
    counted
}

/// Every line of a table but the braces.
fn lines(table: &Table) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut place = String::new();
    for line in table.to_string().lines() {
        match (line.strip_prefix("\t\t"), line.strip_prefix('\t')) {
            (Some(inner), _) => lines.push(Line { place: place.clone(), text: inner.to_owned() }),
            (None, Some("}")) => place.clear(),
            (None, Some(outer)) => match outer.strip_suffix(" {") {
                Some(opened) => {
                    opened.clone_into(&mut place);
                    lines.push(Line { place: String::new(), text: opened.to_owned() });
                }
                None => lines.push(Line { place: String::new(), text: outer.to_owned() }),
            },
            (None, None) => {
                let opened = line.strip_suffix(" {").into_iter();
                lines.extend(opened.map(|text| Line { place: String::new(), text: text.to_owned() }));
            }
        }
    }
    lines
}

/// One set whose elements change: what leaves it and what comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The set.
    pub set: String,
    /// What leaves.
    pub gone: Option<Elements>,
    /// What comes.
    pub come: Option<Elements>,
}

/// The sets that change, if nothing but elements of sets does: then rules, and what they have counted, stay.
pub fn moved(before: &Table, after: &Table) -> Option<Vec<Moved>> {
    let emptied = |table: &Table| {
        let mut table = table.clone();
        table.sets.iter_mut().for_each(empty);
        table
    };
    if emptied(before) != emptied(after) {
        return None;
    }
    let pairs = before.sets.iter().zip(&after.sets);
    pairs
        .filter(|(before, after)| before.elements != after.elements)
        .map(|(before, after)| between(before, after))
        .collect()
}

fn empty(set: &mut Set) {
    match (&mut set.elements, set.kind) {
        (Elements::Ip(spans), SetKind::Values) => spans.clear(),
        (Elements::Ip6(spans), SetKind::Values) => spans.clear(),
        (Elements::Ip(_) | Elements::Ip6(_), SetKind::Intervals | SetKind::Dynamic { .. })
        | (Elements::Port(_) | Elements::Mark(_) | Elements::Ether(_) | Elements::Interface(_), _) => {}
    }
}

fn between(before: &Set, after: &Set) -> Option<Moved> {
    fn less<T: Copy + PartialEq>(some: &[T], others: &[T]) -> Vec<T> {
        some.iter().copied().filter(|one| !others.contains(one)).collect()
    }
    let (gone, come) = match (&before.elements, &after.elements) {
        (Elements::Ip(b), Elements::Ip(a)) => (Elements::Ip(less(b, a)), Elements::Ip(less(a, b))),
        (Elements::Ip6(b), Elements::Ip6(a)) => (Elements::Ip6(less(b, a)), Elements::Ip6(less(a, b))),
        _ => return None,
    };
    let some = |elements: Elements| match &elements {
        Elements::Ip(spans) if spans.is_empty() => None,
        Elements::Ip6(spans) if spans.is_empty() => None,
        _ => Some(elements),
    };
    Some(Moved { set: after.name.clone(), gone: some(gone), come: some(come) })
}
