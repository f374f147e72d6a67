//! Tables and chains.

use super::rule::Rule;
use super::set::Set;

/// A table: everything that belongs together and is replaced together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name, unique in its family.
    pub name: String,
    /// Who may change it.
    pub ownership: Ownership,
    /// A line for people, kept with the table.
    pub comment: Option<String>,
    /// Its named sets.
    pub sets: Vec<Set>,
    /// Its chains. A chain that another one jumps to may stand anywhere.
    pub chains: Vec<Chain>,
}

impl Table {
    /// A table that anybody may change, with nothing in it.
    #[must_use]
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        let (sets, chains) = (Vec::new(), Vec::new());
        Self { family, name: name.into(), ownership: Ownership::Shared, comment: None, sets, chains }
    }
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// Frames as a device delivers them.
    Netdev,
    /// Frames that cross a bridge.
    Bridge,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [Self::Inet, Self::Ip, Self::Ip6, Self::Arp, Self::Netdev, Self::Bridge];

    /// The kernel's number, `NFPROTO_*`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
        }
    }

    /// The family of a kernel's number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }
}

/// Who may change a table, and what becomes of it when that socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Anybody with the right to change rules; it stays.
    Shared,
    /// Only the netlink socket that made it; the table goes when the socket is closed. Linux 5.12.
    Owner,
    /// Only the netlink socket that made it; the table stays when the socket is closed, and may then be adopted (or
    /// flushed) by anybody. Linux 6.9.
    OwnerPersist,
}

impl Ownership {
    /// The kernel's flags, `NFT_TABLE_F_*`.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Shared => 0,
            Self::Owner => 2,
            Self::OwnerPersist => 2 | 4,
        }
    }
}

/// A list of rules, tried in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in its table.
    pub name: String,
    /// Where packets enter it. Without, it is entered by jumps only.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that packets enter at a hook.
    #[must_use]
    pub fn base(name: impl Into<String>, hook: Hook, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: Some(hook), rules }
    }

    /// A chain that is entered by jumps only.
    #[must_use]
    pub fn regular(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: None, rules }
    }
}

/// Where packets enter a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do.
    pub kind: ChainType,
    /// The place on a packet's way.
    pub at: HookPoint,
    /// The order among all chains at this place, lowest first.
    pub priority: i32,
    /// What becomes of a packet that no rule has decided. It is final only if it is a drop: an accepted packet still
    /// meets the other tables.
    pub policy: Policy,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainType {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees the first packet of each connection only.
    Nat,
    /// Have a packet of this host routed again if its mark has changed.
    Route,
}

impl ChainType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// The place on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// As a device delivers it. Families netdev and inet only.
    Ingress {
        /// The device.
        device: String,
    },
    /// Before it is routed.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// On its way out.
    Postrouting,
}

impl HookPoint {
    /// The kernel's number in this family.
    pub(super) const fn number(&self, family: Family) -> u32 {
        match (family, self) {
            (Family::Netdev, Self::Ingress { .. }) | (Family::Arp, Self::Input) => 0,
            (Family::Arp, Self::Output) => 1,
            (_, Self::Ingress { .. }) => 5,
            (_, Self::Prerouting) => 0,
            (_, Self::Input) => 1,
            (_, Self::Forward) => 2,
            (_, Self::Output) => 3,
            (_, Self::Postrouting) => 4,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ingress { .. } => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// What becomes of a packet that no rule has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It ends here.
    Drop,
}

impl Policy {
    /// The kernel's number, `NF_ACCEPT` or `NF_DROP`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Accept => 1,
            Self::Drop => 0,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}
