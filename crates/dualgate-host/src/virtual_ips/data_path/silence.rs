//! `arp dualgate`: keeps the kernel from speaking of virtual IPs on the LAN.
//!
//! Linux answers ARP for every address that is its own, on every node that has the route. And it asks for neighbours with
//! the source of the packet that waits: whoever answers learns from the question, and would take a node that only has a
//! connection of a virtual IP for the one that holds it. So questions go out in the node's own name.
//!
//! IPv6 has need of neither: the kernel answers a Neighbor Solicitation only for addresses of the interface, and asks with
//! the packet's source only if it is one (RFC 4861 7.2.2 leaves the choice), else with its link-local address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use dualgate_wire::nftables::{
    Action, Chain, ChainType, Elements, Family, Hook, HookPoint, Match, Policy, Rule, Select, Set, SetKind, Span,
    Statement, Table,
};

const SET: &str = "silent";
/// `ARPOP_REQUEST`.
const REQUEST: u16 = 1;

/// Nothing where nothing is to be silent. `own` is, of each interface, the node's own address.
pub(super) fn table(silent: &BTreeSet<Ipv4Addr>, own: &BTreeMap<String, Ipv4Addr>) -> Option<Table> {
    if silent.is_empty() {
        return None;
    }
    let mut table = super::table(Family::Arp);
    let elements = Elements::Ip(silent.iter().copied().map(Span::one).collect());
    table.sets.push(Set { name: SET.to_owned(), kind: SetKind::Values, elements });
    let asked = vec![Match::ArpOperation(REQUEST), Match::ArpTarget(Select::set(SET))];
    let input = vec![Rule::new(asked, Action::Drop).counted().named("silent")];
    let output = own.iter().map(|(interface, own)| speak(interface, *own)).collect();
    table.chains.push(Chain::base("input", hook(HookPoint::Input), input));
    table.chains.push(Chain::base("output", hook(HookPoint::Output), output));
    Some(table)
}

fn speak(interface: &str, own: Ipv4Addr) -> Rule {
    let asks = vec![
        Match::OutputInterface(Select::one(interface)),
        Match::ArpOperation(REQUEST),
        Match::ArpSender(Select::set(SET)),
    ];
    Rule::passing(asks, vec![Statement::SetArpSender(own)]).counted().named("own-name")
}

const fn hook(at: HookPoint) -> Hook {
    Hook { kind: ChainType::Filter, at, priority: 0, policy: Policy::Accept }
}
