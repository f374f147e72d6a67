//! What a table must be so that it can be said in netlink and in nft's words.
//!
//! The kernel checks the rest when it is asked; this names what would become another ruleset or none on the way there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::batch::Change;
use super::rule::{
    Action, Fragment, Interface, Limit, Match, Meter, Meters, Of, Prefixed, Reject, Rule, Select, Statement,
};
use super::set::{Elements, Set, SetKind, Span, Value};
use super::table::{Family, HookPoint, Table};

/// Why a change cannot be written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name that nft could not read back.
    #[error("{at}: `{name}` is no name: letters, digits, `_`, `-`, `.` and `/`, beginning with a letter or `_`")]
    Name {
        /// Where.
        at: String,
        /// The name.
        name: String,
    },
    /// A name that no interface can have.
    #[error("{at}: `{name}` is no interface: 1 to 15 octets without space, quotation mark, `*` and `/`")]
    Interface {
        /// Where.
        at: String,
        /// The name.
        name: String,
    },
    /// A comment that nft could not read back.
    #[error("{at}: a comment has at most 128 octets, no quotation mark and no line end")]
    Comment {
        /// Where.
        at: String,
    },
    /// A match or a set that holds nothing where something is needed, or ranges where none can be.
    #[error("{at}: {what}")]
    Values {
        /// Where.
        at: String,
        /// What is wrong.
        what: &'static str,
    },
    /// More than netlink's lengths can say.
    #[error("{at} is too long for netlink")]
    TooLong {
        /// Where.
        at: String,
    },
}

type Checked = Result<(), Invalid>;

pub(super) fn change(change: &Change) -> Checked {
    match change {
        Change::Replace(wanted) => table(wanted),
        Change::Delete { family, name: table } => name(&format!("table {family} {table}"), table),
        Change::AddElements { table, set, kind, elements: wanted, .. }
        | Change::DeleteElements { table, set, kind, elements: wanted, .. } => {
            let at = format!("set {set}");
            name(&at, table)?;
            name(&at, set)?;
            elements(&at, *kind, wanted)
        }
    }
}

fn table(table: &Table) -> Checked {
    let at = format!("table {} {}", table.family, table.name);
    name(&at, &table.name)?;
    comment(&at, table.comment.as_deref())?;
    unique(&at, table.sets.iter().map(|set| &set.name), "two sets of one name")?;
    unique(&at, table.chains.iter().map(|chain| &chain.name), "two chains of one name")?;
    for set in &table.sets {
        self::set(&format!("{at}, set {}", set.name), set)?;
    }
    for chain in &table.chains {
        let at = format!("{at}, chain {}", chain.name);
        name(&at, &chain.name)?;
        if let Some(HookPoint::Ingress { device }) = chain.hook.as_ref().map(|hook| &hook.at) {
            interface(&at, device)?;
        }
        for (index, rule) in chain.rules.iter().enumerate() {
            let at = format!("{at}, rule {}", index + 1);
            self::rule(&at, rule)?;
            family(&at, table.family, rule)?;
        }
    }
    Ok(())
}

/// The kernel would take the second for a change of the first.
fn unique<'a>(at: &str, mut names: impl Iterator<Item = &'a String>, what: &'static str) -> Checked {
    let mut seen = BTreeSet::new();
    if names.all(|name| seen.insert(name)) { Ok(()) } else { Err(values(at, what)) }
}

fn set(at: &str, set: &Set) -> Checked {
    name(at, &set.name)?;
    elements(at, set.kind, &set.elements)
}

fn elements(at: &str, kind: SetKind, elements: &Elements) -> Checked {
    let ranges = match elements {
        Elements::Ip(spans) => any_range(spans),
        Elements::Ip6(spans) => any_range(spans),
        Elements::Port(spans) => any_range(spans),
        Elements::Mark(_) | Elements::Ether(_) | Elements::Interface(_) => false,
    };
    if let Elements::Interface(names) = elements {
        names.iter().try_for_each(|name| interface(at, name))?;
    }
    let single = matches!(elements, Elements::Mark(_) | Elements::Ether(_) | Elements::Interface(_));
    match kind {
        SetKind::Values if ranges => Err(values(at, "ranges are for a set of intervals")),
        SetKind::Intervals if single => Err(values(at, "this type has no intervals")),
        SetKind::Dynamic { .. } if ranges => Err(values(at, "ranges are for a set of intervals")),
        SetKind::Values | SetKind::Intervals | SetKind::Dynamic { .. } => Ok(()),
    }
}

fn any_range<T: Value>(spans: &[Span<T>]) -> bool {
    !spans.iter().all(Span::is_one)
}

fn rule(at: &str, rule: &Rule) -> Checked {
    comment(at, rule.comment.as_deref())?;
    for test in &rule.matches {
        self::test(at, test)?;
    }
    match &rule.action {
        Some(Action::Jump(chain) | Action::Goto(chain)) => name(at, chain),
        Some(
            Action::Accept
            | Action::Drop
            | Action::Reject(_)
            | Action::Return
            | Action::Masquerade
            | Action::Snat { .. }
            | Action::Dnat { .. },
        )
        | None => Ok(()),
    }
}

fn test(at: &str, test: &Match) -> Checked {
    match test {
        Match::InputInterface(select) | Match::OutputInterface(select) => interfaces(at, select),
        Match::Protocol(select) => some(at, select),
        Match::Ip(_, select) | Match::ArpTarget(select) | Match::ArpSender(select) => some(at, select),
        Match::Ip6(_, select) => some(at, select),
        Match::Port(_, _, select) | Match::OriginalPort(select) => some(at, select),
        Match::Icmp(select) => some(at, select),
        Match::Icmp6(select) => some(at, select),
        Match::HopLimit(select) => some(at, select),
        Match::Limit(_, limit) => rate(at, *limit),
        Match::Meter(meter) => self::meter(at, meter),
        Match::IpFamily(_)
        | Match::ConnectionState(_)
        | Match::ConnectionStatus(_)
        | Match::ConnectionMark(_)
        | Match::PacketMark(_)
        | Match::Fragment(_)
        | Match::AddressType(..)
        | Match::TcpFlags { .. }
        | Match::ArpOperation(_)
        | Match::Socket(_) => Ok(()),
    }
}

fn meter(at: &str, meter: &Meter) -> Checked {
    name(at, &meter.set)?;
    match meter.source {
        Prefixed::Ip(1..=32) | Prefixed::Ip6(1..=128) => {}
        Prefixed::Ip(_) | Prefixed::Ip6(_) => return Err(values(at, "no such prefix length")),
    }
    match meter.test {
        Meters::Rate(_, limit) => rate(at, limit),
        Meters::ConnectionsOver(_) => Ok(()),
    }
}

fn rate(at: &str, limit: Limit) -> Checked {
    if limit.rate == 0 { Err(values(at, "a rate is at least 1")) } else { Ok(()) }
}

/// In a table of one family, the fields of another one would be read from octets that mean something else.
fn family(at: &str, family: Family, rule: &Rule) -> Checked {
    let v4 = matches!(family, Family::Inet | Family::Ip | Family::Netdev | Family::Bridge);
    let v6 = matches!(family, Family::Inet | Family::Ip6 | Family::Netdev | Family::Bridge);
    let ip = v4 || v6;
    let fits = |test: &Match| match test {
        Match::Ip(..) | Match::Icmp(_) | Match::Fragment(Fragment::IpFollowing) => v4,
        Match::Meter(Meter { source: Prefixed::Ip(_), .. }) => v4,
        Match::Ip6(..) | Match::Icmp6(_) | Match::HopLimit(_) | Match::Fragment(Fragment::Ip6) => v6,
        Match::Meter(Meter { source: Prefixed::Ip6(_), .. }) => v6,
        Match::Protocol(_) | Match::Port(..) | Match::TcpFlags { .. } => ip,
        Match::ArpOperation(_) | Match::ArpTarget(_) | Match::ArpSender(_) => family == Family::Arp,
        Match::InputInterface(_)
        | Match::OutputInterface(_)
        | Match::IpFamily(_)
        | Match::OriginalPort(_)
        | Match::ConnectionState(_)
        | Match::ConnectionStatus(_)
        | Match::ConnectionMark(_)
        | Match::PacketMark(_)
        | Match::AddressType(..)
        | Match::Limit(..)
        | Match::Socket(_) => true,
    };
    let possible = |statement: &Statement| match statement {
        Statement::SetArpSender(_) => family == Family::Arp,
        Statement::Duplicate(IpAddr::V4(_)) => family == Family::Ip,
        Statement::Duplicate(IpAddr::V6(_)) => family == Family::Ip6,
        Statement::MaximumSegment(_) => ip,
        Statement::Counter
        | Statement::SetPacketMark(_)
        | Statement::SetConnectionMark(_)
        | Statement::SaveMark
        | Statement::RestoreMark
        | Statement::NoTrack => true,
    };
    if !rule.matches.iter().all(fits) || !rule.statements.iter().all(possible) {
        return Err(values(at, "a table of this family does not see such packets"));
    }
    match &rule.action {
        Some(Action::Reject(Reject::AdminProhibited | Reject::PortUnreachable)) if !(v4 && v6) => {
            Err(values(at, "this rejection is for tables that see both IPv4 and IPv6"))
        }
        Some(Action::Snat { to, .. } | Action::Dnat { to, .. }) if !(if to.is_ipv4() { v4 } else { v6 }) => {
            Err(values(at, "a table of this family does not see such packets"))
        }
        Some(_) | None => Ok(()),
    }
}

fn some<T>(at: &str, select: &Select<T>) -> Checked {
    match select.of() {
        Of::Values(values) if values.is_empty() => Err(self::values(at, "a match without values")),
        Of::Values(_) => Ok(()),
        Of::Set(set) => name(at, set),
    }
}

fn interfaces(at: &str, select: &Select<Interface>) -> Checked {
    some(at, select)?;
    let Of::Values(names) = select.of() else { return Ok(()) };
    names.iter().try_for_each(|name| match name {
        Interface::Prefix(_) if names.len() > 1 => Err(values(at, "a name with `*` stands alone")),
        Interface::Exact(name) | Interface::Prefix(name) => interface(at, name),
    })
}

fn values(at: &str, what: &'static str) -> Invalid {
    Invalid::Values { at: at.to_owned(), what }
}

fn name(at: &str, name: &str) -> Checked {
    let first = |octet: u8| octet.is_ascii_alphabetic() || octet == b'_';
    let octets = name.as_bytes();
    let fits = octets.len() < 256
        && octets.first().is_some_and(|&octet| first(octet))
        && octets.iter().all(|&octet| first(octet) || octet.is_ascii_digit() || b"-./".contains(&octet));
    fits.then_some(()).ok_or_else(|| Invalid::Name { at: at.to_owned(), name: name.to_owned() })
}

fn interface(at: &str, name: &str) -> Checked {
    let bad = |octet: u8| octet.is_ascii_whitespace() || octet.is_ascii_control() || b"\"*/\\".contains(&octet);
    let fits = (1..16).contains(&name.len()) && !name.bytes().any(bad);
    fits.then_some(()).ok_or_else(|| Invalid::Interface { at: at.to_owned(), name: name.to_owned() })
}

fn comment(at: &str, comment: Option<&str>) -> Checked {
    let fits = |comment: &str| comment.len() <= 128 && !comment.chars().any(|c| c == '"' || c.is_control());
    comment.is_none_or(fits).then_some(()).ok_or_else(|| Invalid::Comment { at: at.to_owned() })
}
