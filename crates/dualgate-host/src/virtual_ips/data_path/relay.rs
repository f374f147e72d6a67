//! `ip dualgate` and `ip6 dualgate`: what came to another node before stays there, and what goes to an edge goes in this
//! node's name.
//!
//! **Relay.** After a planned move, packets of flows that are open at the former owner come here. Connection tracking knows
//! what began here: a packet of TCP that opens nothing, of a flow of which no answer was seen, did not. It goes to the
//! former owner as it is (`dup`, then `drop`), which has the socket and answers the client by itself. The original is
//! dropped before its flow is entered into the table: so no such flow is ever known here, each of its packets is judged in
//! the same way, and nothing is left when it ends. As the kernel knows no beginning of these flows, their ends (FIN, RST)
//! are `invalid`, as are ICMP errors about them.
//!
//! Tracking is on from the moment that an address may come here, not only while there are relays: a flow that began here
//! is still known when its address goes away and comes back. In `docs/decisions/0009` is why it is done in this way.
//!
//! **Edges.** Their private addresses are in the LAN, and their peers let only nodes speak
//! ([`dualgate_core::plan::tunnel`]): other machines speak in the name of the node that they come through.

use std::net::IpAddr;

use dualgate_wire::nftables::{
    Action, Chain, ChainType, ConnectionStates, End, Family, Hook, HookPoint, Icmp6Type, IcmpType, Match, Policy, Rule,
    Select, Statement, Table, TcpFlags,
};

use super::{DataPath, Tunnelled};

/// After connection tracking (-200), before any translation of destinations (-100).
const BEFORE_TRANSLATION: i32 = -150;
/// Before what others do to sources (100): the first one that translates decides.
const BEFORE_OTHERS: i32 = 99;

/// The table of one family of addresses, [`Family::Ip`] or [`Family::Ip6`]; nothing where it has nothing to say.
pub(super) fn table(family: Family, path: &DataPath) -> Option<Table> {
    let of_family = |address: &IpAddr| address.is_ipv4() == (family == Family::Ip);
    let mut table = super::table(family);
    let relays: Vec<_> = path.relays.iter().filter(|(address, _)| of_family(address)).collect();
    if !relays.is_empty() || path.local.iter().any(of_family) {
        let known = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
        let mut rules = vec![Rule::new(vec![Match::ConnectionState(known)], Action::Accept)];
        rules.extend(relays.into_iter().flat_map(|(address, former)| relay(*address, *former)));
        table.chains.push(Chain::base(
            "relay",
            hook(ChainType::Filter, HookPoint::Prerouting, BEFORE_TRANSLATION),
            rules,
        ));
    }
    let mut tunnelled: Vec<_> = path.tunnelled.iter().filter(|tunnelled| of_family(&tunnelled.address)).collect();
    tunnelled.sort();
    tunnelled.dedup();
    if !tunnelled.is_empty() {
        let rules = tunnelled.into_iter().map(speak).collect();
        table.chains.push(Chain::base("edges", hook(ChainType::Nat, HookPoint::Postrouting, BEFORE_OTHERS), rules));
    }
    (!table.chains.is_empty()).then_some(table)
}

fn relay(address: IpAddr, former: IpAddr) -> Vec<Rule> {
    let rule = |tests: [Match; 2], action| {
        let matches = [vec![to(address)], tests.to_vec()].concat();
        let statements = vec![Statement::Counter, Statement::Duplicate(former)];
        Rule { matches, statements, action, comment: Some("relay".to_owned()) }
    };
    let flags = |flag: TcpFlags, set| Match::TcpFlags { mask: flag.or(TcpFlags::SYN), set };
    let unknown = |test| [test, Match::ConnectionState(ConnectionStates::INVALID)];
    vec![
        rule(
            [
                Match::TcpFlags { mask: TcpFlags::SYN, set: TcpFlags::NONE },
                Match::ConnectionState(ConnectionStates::NEW),
            ],
            Some(Action::Drop),
        ),
        rule(unknown(flags(TcpFlags::FIN, TcpFlags::FIN)), Some(Action::Drop)),
        rule(unknown(flags(TcpFlags::RST, TcpFlags::RST)), Some(Action::Drop)),
        // It may be about anything: the host sees it, too.
        rule(unknown(too_large(address)), None),
    ]
}

/// An ICMP error that says how large packets may be.
fn too_large(address: IpAddr) -> Match {
    match address {
        IpAddr::V4(_) => Match::Icmp(Select::one(IcmpType(3))),
        IpAddr::V6(_) => Match::Icmp6(Select::one(Icmp6Type(2))),
    }
}

fn speak(tunnelled: &Tunnelled) -> Rule {
    let Tunnelled { address, interface, source } = tunnelled;
    let out = Match::OutputInterface(Select::one(interface.as_str()));
    Rule::new(vec![out, to(*address), not_from(*source)], Action::Snat { to: *source, port: None })
        .counted()
        .named("edge")
}

fn to(address: IpAddr) -> Match {
    match address {
        IpAddr::V4(address) => Match::Ip(End::Destination, Select::one(address)),
        IpAddr::V6(address) => Match::Ip6(End::Destination, Select::one(address)),
    }
}

fn not_from(address: IpAddr) -> Match {
    match address {
        IpAddr::V4(address) => Match::Ip(End::Source, Select::one(address).negated()),
        IpAddr::V6(address) => Match::Ip6(End::Source, Select::one(address).negated()),
    }
}

const fn hook(kind: ChainType, at: HookPoint, priority: i32) -> Hook {
    Hook { kind, at, priority, policy: Policy::Accept }
}
