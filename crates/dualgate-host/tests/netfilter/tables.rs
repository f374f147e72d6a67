//! Tables go in, come out as they were written, and are what nft reads and lists.

use std::net::Ipv4Addr;

use dualgate_host::netfilter::{Netfilter, NetfilterError};
use dualgate_wire::nftables::{
    Action, Chain, Change, Difference, Elements, Family, Policy, Rule, Set, SetKind, Span, Table,
};

use crate::compare::same_for_nft;
use crate::examples::{arp, every_word, relays, router};

pub fn a_home_router_is_what_was_written() {
    let router = router();
    written(&router);
    same_for_nft(&router);
}

pub fn every_word_is_what_was_written() {
    let table = every_word();
    written(&table);
    same_for_nft(&table);
}

pub fn a_table_for_arp_is_what_was_written() {
    written(&arp());
    same_for_nft(&arp());
}

pub fn a_table_that_hands_packets_to_a_neighbour_is_what_was_written() {
    for table in relays() {
        written(&table);
        same_for_nft(&table);
    }
}

pub fn a_single_chain_is_asked_for() {
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.apply(&[Change::Replace(router())]).expect("the router's rules");
    for (family, table, chain, there) in [
        (Family::Inet, "router", "forward", true),
        (Family::Inet, "router", "KUBE-SERVICES", false),
        (Family::Inet, "nat", "forward", false),
        (Family::Ip, "router", "forward", false),
    ] {
        assert_eq!(netfilter.has_chain(family, table, chain).expect("an answer"), there, "{family} {table} {chain}");
    }
}

pub fn a_refused_rule_is_named_and_nothing_changes() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let before = router();
    netfilter.apply(&[Change::Replace(before.clone())]).expect("the router's rules");
    let mut bad = before.clone();
    bad.chains[0].rules.push(Rule::new(vec![], Action::Jump("nowhere".into())));
    let other = Change::Replace(Table::new(Family::Inet, "other"));
    let refused = netfilter.apply(&[other, Change::Replace(bad)]).expect_err("a jump to nowhere");
    assert!(matches!(refused, NetfilterError::Refused { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("table inet router, chain forward, rule 3 (jump nowhere)"), "{text}");
    assert!(text.contains("does not exist"), "{text}");
    assert_eq!(netfilter.differences(&before).expect("a listing"), []);
    assert_eq!(netfilter.observe(Family::Inet, "other").expect("a listing"), None);
}

pub fn what_cannot_be_said_is_named() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let mut table = Table::new(Family::Inet, "x");
    table.chains.push(Chain::regular("a", vec![Rule::new(vec![], Action::Drop).named("a \"b\"")]));
    let refused = netfilter.apply(&[Change::Replace(table)]).expect_err("a quotation mark");
    assert!(refused.to_string().starts_with("table inet x, chain a, rule 1: a comment has"), "{refused}");
    assert_eq!(netfilter.tables().expect("a listing"), []);
}

pub fn a_check_changes_nothing() {
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.check(&[Change::Replace(every_word())]).expect("the kernel would take it");
    assert_eq!(netfilter.tables().expect("a listing"), []);
    let mut bad = Table::new(Family::Inet, "x");
    bad.chains.push(Chain::regular("a", vec![Rule::new(vec![], Action::Goto("nowhere".into()))]));
    netfilter.check(&[Change::Replace(bad)]).expect_err("a chain that is not there");
}

pub fn a_table_that_is_not_there_can_be_deleted() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let delete = Change::Delete { family: Family::Inet, name: "router".into() };
    netfilter.apply(std::slice::from_ref(&delete)).expect("nothing to do");
    netfilter.apply(&[Change::Replace(router())]).expect("the router's rules");
    netfilter.apply(&[delete]).expect("the table goes");
    assert_eq!(netfilter.tables().expect("a listing"), []);
    assert_eq!(netfilter.differences(&router()).expect("a listing"), [Difference::TableAbsent]);
}

pub fn elements_come_and_go() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let prefix = |third| Span::<Ipv4Addr>::prefix(Ipv4Addr::new(198, 51, third, 0), 24);
    let with = |spans: Vec<Span<Ipv4Addr>>| {
        let mut table = Table::new(Family::Inet, "x");
        let (name, kind) = ("bad".to_owned(), SetKind::Intervals);
        table.sets.push(Set { name, kind, elements: Elements::Ip(spans) });
        table
    };
    netfilter.apply(&[Change::Replace(with(vec![prefix(1)]))]).expect("a set");
    let (family, table, set, kind) = (Family::Inet, "x".to_owned(), "bad".to_owned(), SetKind::Intervals);
    // Every second one, so that none touches the next; more than one message holds.
    let many: Vec<_> =
        (0..1200).map(|n| Span::<Ipv4Addr>::prefix(Ipv4Addr::from_bits((10 << 24) + n * 512), 24)).collect();
    let mut add = many.clone();
    add.push(prefix(3));
    let elements = Elements::Ip(add);
    let (table_name, set_name) = (table.clone(), set.clone());
    netfilter
        .apply(&[Change::AddElements { family, table: table_name, set: set_name, kind, elements }])
        .expect("more elements");
    let all = many.iter().copied().chain([prefix(1), prefix(3)]).collect();
    assert_eq!(netfilter.differences(&with(all)).expect("a listing"), []);
    let elements = Elements::Ip(many);
    netfilter.apply(&[Change::DeleteElements { family, table, set, kind, elements }]).expect("fewer elements");
    assert_eq!(netfilter.differences(&with(vec![prefix(3), prefix(1)])).expect("a listing"), []);
    let missing = netfilter.differences(&with(vec![prefix(1)])).expect("a listing");
    assert_eq!(missing, [Difference::Elements("bad".into())]);
}

pub fn a_change_that_is_too_large_is_named() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let mut table = Table::new(Family::Inet, "x");
    let many = (0..500_000).map(|n| Span::one(Ipv4Addr::from_bits(n * 2))).collect();
    table.sets.push(Set { name: "many".into(), kind: SetKind::Intervals, elements: Elements::Ip(many) });
    let refused = netfilter.apply(&[Change::Replace(table)]).expect_err("20 MB");
    assert!(matches!(refused, NetfilterError::TooLarge { .. }), "{refused}");
    assert_eq!(netfilter.tables().expect("a listing"), []);
}

pub fn what_others_change_is_seen() {
    let mut netfilter = Netfilter::open().expect("nftables");
    let wanted = router();
    let (one, two) = (wanted.chains[0].rules[0].clone(), wanted.chains[0].rules[1].clone());
    let with = |rules: Vec<Rule>| {
        let mut table = wanted.clone();
        table.chains[0].rules = rules;
        table
    };
    let rules = Difference::Rules("forward".into());
    let mut policy = wanted.clone();
    policy.chains[0].hook.as_mut().expect("a base chain").policy = Policy::Drop;
    let mut fewer = wanted.clone();
    fewer.chains.pop();
    let mut more = wanted.clone();
    more.chains.push(Chain::regular("theirs", vec![]));
    more.sets.push(Set { name: "theirs".into(), kind: SetKind::Values, elements: Elements::Port(vec![]) });
    let mut comment = wanted.clone();
    comment.comment = Some("theirs".into());
    let cases = [
        (wanted.clone(), vec![]),
        (with(vec![two.clone(), one.clone()]), vec![rules.clone()]),
        (with(vec![one.clone()]), vec![rules.clone()]),
        (with(vec![one.clone(), two.clone(), two]), vec![rules.clone()]),
        (with(vec![one.clone(), Rule::new(vec![], Action::Accept)]), vec![rules]),
        (policy, vec![Difference::Chain("forward".into())]),
        (fewer, vec![Difference::Chain("postrouting".into()), Difference::Rules("postrouting".into())]),
        (more, vec![Difference::StrangeChain("theirs".into()), Difference::StrangeSet("theirs".into())]),
        (comment, vec![Difference::Comment]),
    ];
    for (there, expected) in cases {
        netfilter.apply(&[Change::Replace(there)]).expect("a table");
        assert_eq!(netfilter.differences(&wanted).expect("a listing"), expected);
    }
}

/// The kernel has the table as it was written, also the second time.
fn written(table: &Table) {
    let mut netfilter = Netfilter::open().expect("nftables");
    for _ in 0..2 {
        netfilter.apply(&[Change::Replace(table.clone())]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(netfilter.differences(table).expect("a listing"), []);
    }
}
