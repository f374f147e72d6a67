//! What cannot be said is refused, and named.

use std::net::{Ipv4Addr, Ipv6Addr};

use dualgate_wire::nftables::{
    Action, Batch, Chain, ChainType, Change, Dialect, Elements, End, Family, Hook, HookPoint, IcmpType, Limit, Match,
    Meter, Meters, Of, Policy, Prefixed, Purpose, Reject, Rule, Select, Set, SetKind, Span, Statement, Table, Unit,
    When,
};

fn refusal(table: Table) -> String {
    let changes = [Change::Replace(table)];
    Batch::encode(&changes, Dialect::Owners, Purpose::Apply).expect_err("cannot be said").to_string()
}

fn of_rule(family: Family, rule: Rule) -> String {
    let mut table = Table::new(family, "t");
    table.chains.push(Chain::regular("c", vec![Rule::new(vec![], Action::Accept), rule]));
    refusal(table).strip_prefix(&format!("table {family} t, chain c, rule 2: ")).expect("the place").to_owned()
}

fn of_match(family: Family, test: Match) -> String {
    of_rule(family, Rule::new(vec![test], Action::Accept))
}

fn of_set(kind: SetKind, elements: Elements) -> String {
    let mut table = Table::new(Family::Inet, "t");
    table.sets.push(Set { name: "s".into(), kind, elements });
    refusal(table).strip_prefix("table inet t, set s: ").expect("the place").to_owned()
}

#[test]
fn names_are_names() {
    let long = "x".repeat(256);
    for name in ["", "a b", "1a", "a\"", "a;", "ü", long.as_str()] {
        let text = refusal(Table::new(Family::Inet, name));
        assert!(text.starts_with(&format!("table inet {name}: `{name}` is no name:")), "{text}");
        let text = of_rule(Family::Inet, Rule::new(vec![], Action::Jump(name.into())));
        assert!(text.contains("is no name"), "{text}");
        let text = of_match(Family::Inet, Match::Ip(End::Source, Select::set(name)));
        assert!(text.contains("is no name"), "{text}");
    }
}

#[test]
fn interfaces_are_interfaces() {
    for name in ["", "*", "a b", "a/b", "a\"b", "sixteen-octets-x", "a**"] {
        let text = of_match(Family::Inet, Match::InputInterface(Select::one(name)));
        assert!(text.contains("is no interface"), "{name}: {text}");
        let mut table = Table::new(Family::Netdev, "t");
        let at = HookPoint::Ingress { device: name.into() };
        let hook = Hook { kind: ChainType::Filter, at, priority: 0, policy: Policy::Accept };
        table.chains.push(Chain::base("c", hook, vec![]));
        assert!(refusal(table).contains("is no interface"), "{name}");
    }
    let text = of_match(Family::Inet, Match::InputInterface(Select::any(["a", "b*"])));
    assert_eq!(text, "a name with `*` stands alone");
}

#[test]
fn comments_can_be_read_back() {
    let long = "x".repeat(129);
    for comment in ["\"", "a\nb", "\0", long.as_str()] {
        let text = of_rule(Family::Inet, Rule::new(vec![], Action::Drop).named(comment));
        assert!(text.starts_with("a comment has"), "{text}");
        let mut table = Table::new(Family::Inet, "t");
        table.comment = Some(comment.into());
        assert!(refusal(table).starts_with("table inet t: a comment has"));
    }
}

#[test]
fn sets_hold_what_their_kind_can_hold() {
    let range = || Elements::Port(vec![Span::between(1, 2)]);
    assert_eq!(of_set(SetKind::Values, range()), "ranges are for a set of intervals");
    let dynamic = SetKind::Dynamic { size: 1, timeout_seconds: None };
    assert_eq!(of_set(dynamic, range()), "ranges are for a set of intervals");
    assert_eq!(of_set(SetKind::Intervals, Elements::Mark(vec![1])), "this type has no intervals");
    assert!(of_set(SetKind::Values, Elements::Interface(vec!["eth*".into()])).contains("is no interface"));
}

#[test]
fn names_are_unique() {
    let mut table = Table::new(Family::Inet, "t");
    table.chains = vec![Chain::regular("c", vec![]), Chain::regular("c", vec![])];
    assert_eq!(refusal(table), "table inet t: two chains of one name");
    let mut table = Table::new(Family::Inet, "t");
    let set = Set { name: "s".into(), kind: SetKind::Values, elements: Elements::Port(vec![]) };
    table.sets = vec![set.clone(), set];
    assert_eq!(refusal(table), "table inet t: two sets of one name");
}

#[test]
fn a_match_has_values() {
    let none = Select::Is(Of::<Span<u16>>::Values(vec![]));
    assert_eq!(of_match(Family::Inet, Match::OriginalPort(none)), "a match without values");
    let limit = Limit { rate: 0, per: Unit::Second, burst: 1 };
    assert_eq!(of_match(Family::Inet, Match::Limit(When::Over, limit)), "a rate is at least 1");
    for source in [Prefixed::Ip(0), Prefixed::Ip(33), Prefixed::Ip6(0), Prefixed::Ip6(129)] {
        let meter = |test| Match::Meter(Meter { set: "s".into(), source, test });
        assert_eq!(of_match(Family::Inet, meter(Meters::ConnectionsOver(1))), "no such prefix length");
    }
    let source = Prefixed::Ip(32);
    let meter = Match::Meter(Meter { set: "s".into(), source, test: Meters::Rate(When::Over, limit) });
    assert_eq!(of_match(Family::Inet, meter), "a rate is at least 1");
}

#[test]
fn a_table_of_one_family_says_nothing_of_another() {
    let unseen = "a table of this family does not see such packets";
    let ip = || Match::Ip(End::Source, Select::one(Ipv4Addr::LOCALHOST));
    let ip6 = || Match::Ip6(End::Source, Select::one(Ipv6Addr::LOCALHOST));
    assert_eq!(of_match(Family::Ip6, ip()), unseen);
    assert_eq!(of_match(Family::Arp, ip()), unseen);
    assert_eq!(of_match(Family::Ip, ip6()), unseen);
    let does = |family, statement| of_rule(family, Rule::passing(vec![], vec![statement]));
    assert_eq!(does(Family::Inet, Statement::SetArpSender(Ipv4Addr::LOCALHOST)), unseen);
    assert_eq!(does(Family::Ip, Statement::Duplicate(Ipv6Addr::LOCALHOST.into())), unseen);
    assert_eq!(does(Family::Ip6, Statement::Duplicate(Ipv4Addr::LOCALHOST.into())), unseen);
    assert_eq!(does(Family::Inet, Statement::Duplicate(Ipv4Addr::LOCALHOST.into())), unseen);
    let sender = Match::ArpSender(Select::one(Ipv4Addr::LOCALHOST));
    assert_eq!(of_match(Family::Ip, sender), unseen);
    assert_eq!(of_match(Family::Inet, Match::ArpOperation(1)), unseen);
    assert_eq!(of_match(Family::Ip6, Match::Icmp(Select::one(IcmpType(8)))), unseen);
    let dnat = Action::Dnat { to: Ipv4Addr::LOCALHOST.into(), port: None };
    assert_eq!(of_rule(Family::Ip6, Rule::new(vec![], dnat)), unseen);
    let reject = Rule::new(vec![], Action::Reject(Reject::AdminProhibited));
    assert_eq!(of_rule(Family::Ip, reject), "this rejection is for tables that see both IPv4 and IPv6");
}
