//! nftables: a ruleset as a value, the same in nft's own words, and the netlink messages that put it into the kernel.
//!
//! A [`Table`] is a plain value. Its `Display` is what `nft -f -` reads, as long as no name is one of nft's own words.
//! [`Batch::encode`] turns changes into one transaction: the kernel takes all of it or nothing, and each message has a
//! number, so that a refusal names the value it is about. [`decode`] reads what the kernel lists, and [`differences`]
//! compares a table with it.
//!
//! This module neither opens sockets nor knows what a good firewall is. Sources: the kernel's
//! `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`; the lowering of matches to the kernel's expressions is
//! the one that `nft --debug=netlink` shows.

mod batch;
mod check;
mod compare;
mod dump;
mod expression;
mod lower;
mod rule;
mod set;
mod table;
mod text;

use crate::netlink as attribute;

pub use batch::{Batch, Change, Dialect, Purpose, Reply, replies};
pub use check::Invalid;
pub use compare::{Difference, differences};
pub use dump::{
    Counted, Dumped, Listing, Observed, ObservedChain, ObservedElement, ObservedHook, ObservedRule, ObservedSet,
    ObservedTable, decode, request,
};
pub use expression::Expression;
pub use lower::lower;
pub use rule::{
    Action, AddressType, ConnectionStates, ConnectionStatus, End, Fragment, Icmp6Type, IcmpType, Interface, IpFamily,
    Limit, Mark, Match, MaximumSegment, Meter, Meters, Of, Prefixed, Protocol, Reject, Rule, Select, SocketTest,
    Statement, TcpFlags, Transport, Unit, When,
};
pub use set::{Elements, Set, SetKind, Span, Value};
pub use table::{Chain, ChainType, Family, Hook, HookPoint, Ownership, Policy, Table};
