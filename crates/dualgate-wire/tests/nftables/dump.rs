//! What the kernel lists is read, and whatever else comes is no reason to panic.

use dualgate_wire::nftables::{
    Batch, Change, Counted, Dialect, Dumped, Family, Listing, ObservedChain, ObservedElement, ObservedHook,
    ObservedRule, ObservedSet, ObservedTable, Purpose, decode, replies, request,
};
use proptest::prelude::*;

use crate::examples::every_word;

/// An attribute: its kind and its octets.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    let mut bytes = Vec::new();
    bytes.extend((20 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn listed(bytes: &[u8]) -> Vec<Dumped> {
    decode(bytes).collect()
}

const NESTED: u16 = 0x8000;

#[test]
fn a_table_is_read_with_its_owner_and_comment() {
    let name = attribute(1, b"gate\0");
    let handle = attribute(4, &9_u64.to_be_bytes());
    let owned = [
        name.clone(),
        attribute(2, &6_u32.to_be_bytes()),
        attribute(3, &2_u32.to_be_bytes()),
        handle.clone(),
        attribute(6, b"\x00\x03hi\0"),
        attribute(7, &4711_u32.to_be_bytes()),
    ];
    let (family, name_text) = (Family::Inet, "gate".to_owned());
    let comment = Some("hi".to_owned());
    let table = ObservedTable { family, name: name_text, handle: 9, owner: Some(4711), persists: true, comment };
    let shared = [name, attribute(2, &0_u32.to_be_bytes()), handle];
    let other = ObservedTable { owner: None, persists: false, comment: None, ..table.clone() };
    let bytes = [message(0xa00, 2, 1, &owned), message(0xa00, 2, 1, &shared), message(3, 2, 0, &[])].concat();
    assert_eq!(listed(&bytes), [Dumped::Table(table), Dumped::Table(other), Dumped::Done]);
}

#[test]
fn a_rule_is_read_with_its_counter_and_digest() {
    let counter = [attribute(1, &640_u64.to_be_bytes()), attribute(2, &10_u64.to_be_bytes())].concat();
    let counter = [attribute(1, b"counter\0"), attribute(2 | NESTED, &counter)].concat();
    let compare = [attribute(1, b"cmp\0"), attribute(2 | NESTED, &[])].concat();
    let expressions = [attribute(1 | NESTED, &compare), attribute(1 | NESTED, &counter)].concat();
    let userdata = [b"\x00\x05shut\0".as_slice(), &[100, 8], &77_u64.to_be_bytes()].concat();
    let attributes = [
        attribute(1, b"gate\0"),
        attribute(2, b"input\0"),
        attribute(3, &5_u64.to_be_bytes()),
        attribute(4 | NESTED, &expressions),
        attribute(7, &userdata),
    ];
    let rule = ObservedRule {
        family: Family::Inet,
        table: "gate".into(),
        chain: "input".into(),
        handle: 5,
        comment: Some("shut".into()),
        digest: Some(77),
        counted: Some(Counted { packets: 10, octets: 640 }),
    };
    assert_eq!(listed(&message(0xa06, 2, 1, &attributes)), [Dumped::Rule(rule.clone())]);
    let foreign = ObservedRule { comment: None, digest: None, counted: None, ..rule };
    assert_eq!(listed(&message(0xa06, 2, 1, &attributes[..3])), [Dumped::Rule(foreign)]);
}

#[test]
fn chains_sets_and_elements_are_read() {
    let hook = [attribute(1, &2_u32.to_be_bytes()), attribute(2, &(-150_i32).to_be_bytes())].concat();
    let chain = [
        attribute(1, b"gate\0"),
        attribute(3, b"forward\0"),
        attribute(4 | NESTED, &hook),
        attribute(5, &1_u32.to_be_bytes()),
        attribute(7, b"filter\0"),
    ];
    let (family, table) = (Family::Ip6, "gate".to_owned());
    let observed_hook = ObservedHook { kind: "filter".into(), number: 2, priority: -150, policy: 1 };
    let observed = ObservedChain { family, table: table.clone(), name: "forward".into(), hook: Some(observed_hook) };
    let set = [
        attribute(1, b"gate\0"),
        attribute(2, b"bad\0"),
        attribute(3, &4_u32.to_be_bytes()),
        attribute(4, &7_u32.to_be_bytes()),
    ];
    let observed_set = ObservedSet { family, table, name: "bad".into(), key_type: 7, flags: 4 };
    let element = |key: &[u8], flags: &[Vec<u8>]| {
        let key = attribute(1 | NESTED, &attribute(1, key));
        attribute(1 | NESTED, &[vec![key], flags.to_vec()].concat().concat())
    };
    let ends = [attribute(3, &1_u32.to_be_bytes())];
    let list = [element(&[10, 0, 0, 0], &[]), element(&[11, 0, 0, 0], &ends)].concat();
    let elements = [attribute(1, b"gate\0"), attribute(2, b"bad\0"), attribute(3 | NESTED, &list)];
    let observed_elements = vec![
        ObservedElement { key: vec![10, 0, 0, 0], ends_interval: false },
        ObservedElement { key: vec![11, 0, 0, 0], ends_interval: true },
    ];
    let bytes = [message(0xa03, 2, 10, &chain), message(0xa09, 2, 10, &set), message(0xa0c, 2, 10, &elements)].concat();
    let expected = [Dumped::Chain(observed), Dumped::Set(observed_set), Dumped::Elements(observed_elements)];
    assert_eq!(listed(&bytes), expected);
}

#[test]
fn a_list_that_broke_off_says_so() {
    assert_eq!(listed(&message(3, 0x12, 0, &[])), [Dumped::Interrupted, Dumped::Done]);
    let refused = |errno: i32| [message(2, 0, 0, &[])[..16].to_vec(), errno.to_ne_bytes().to_vec()].concat();
    assert_eq!(listed(&refused(-1)), [Dumped::Refused { errno: 1 }]);
    assert_eq!(listed(&refused(i32::MIN)), [Dumped::Refused { errno: i32::MAX }]);
    // An acknowledgement ends an answer that is no list.
    assert_eq!(listed(&refused(0)), [Dumped::Done]);
}

#[test]
fn a_question_is_these_bytes() {
    let expected = [message(0xa07, 0x301, 1, &[attribute(1, b"gate\0")])];
    let mut question = request(&Listing::Rules(Family::Inet, "gate".into()), 7);
    assert_eq!(question[8..12], 7_u32.to_ne_bytes());
    question[8..12].fill(0);
    assert_eq!(question, expected.concat());
    let expected = [message(0xa04, 0x5, 2, &[attribute(1, b"nat\0"), attribute(3, b"KUBE-SERVICES\0")])];
    let mut question = request(&Listing::Chain(Family::Ip, "nat".into(), "KUBE-SERVICES".into()), 7);
    question[8..12].fill(0);
    assert_eq!(question, expected.concat());
}

fn real_messages() -> Vec<u8> {
    let batch = Batch::encode(&[Change::Replace(every_word())], Dialect::Owners, Purpose::Apply);
    batch.expect("a table that can be said").bytes().to_vec()
}

/// What is sent has the form of what is listed, but for handles: each table, chain, set and rule is found in it.
#[test]
fn what_is_sent_is_read_as_it_would_be_listed() {
    let table = every_word();
    let dumped = listed(&real_messages());
    let rules = dumped.iter().filter(|dumped| matches!(dumped, Dumped::Rule(rule) if rule.digest.is_some())).count();
    assert_eq!(rules, table.chains.iter().map(|chain| chain.rules.len()).sum::<usize>());
    let chains = dumped.iter().filter(|dumped| matches!(dumped, Dumped::Chain(_))).count();
    assert_eq!(chains, table.chains.len());
}

proptest! {
    #[test]
    fn no_octets_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        decode(&bytes).for_each(drop);
        replies(&bytes).for_each(drop);
    }

    #[test]
    fn no_damage_to_real_messages_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = real_messages();
        for (at, octet) in damage {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        decode(&bytes).for_each(drop);
        replies(&bytes).for_each(drop);
    }

    #[test]
    fn no_attributes_panic(
        kind in 0_u16..32,
        family in 0_u8..12,
        attributes in proptest::collection::vec((0_u16..16, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let attributes: Vec<_> = attributes.iter().map(|(kind, value)| attribute(*kind, value)).collect();
        decode(&message(0xa00 | kind, 2, family, &attributes)).for_each(drop);
    }
}
