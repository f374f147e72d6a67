//! The packet filter of a home router and of a carrier's translation, as nftables.

use dualgate_wire::nftables::{
    Action, Chain, ChainType, Change, ConnectionStates, Family, Hook, HookPoint, IpFamily, Match, Policy, Rule, Select,
    Table,
};

/// Only answers come in from outside; IPv4 on its way out may take this host's address.
pub fn router(outside: &str, masquerade: bool) -> Vec<Change> {
    let from_outside = || Match::InputInterface(Select::one(outside));
    let answers = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
    let base =
        |name, kind, at, priority, rules| Chain::base(name, Hook { kind, at, priority, policy: Policy::Accept }, rules);
    let shut = vec![
        Rule::new(vec![from_outside(), Match::ConnectionState(answers)], Action::Accept),
        Rule::new(vec![from_outside()], Action::Drop).counted(),
    ];
    let mut table = Table::new(Family::Inet, "router");
    table.chains.push(base("forward", ChainType::Filter, HookPoint::Forward, 0, shut));
    if masquerade {
        let out = Match::OutputInterface(Select::one(outside));
        let translate = vec![Rule::new(vec![out, Match::IpFamily(IpFamily::V4)], Action::Masquerade)];
        table.chains.push(base("postrouting", ChainType::Nat, HookPoint::Postrouting, 100, translate));
    }
    vec![Change::Replace(table)]
}
