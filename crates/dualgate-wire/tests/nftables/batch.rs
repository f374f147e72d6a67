//! Changes as bytes.

use std::net::Ipv4Addr;

use dualgate_wire::nftables::{Batch, Change, Dialect, Elements, Family, Ownership, Purpose, Reply, SetKind, Span};

use crate::examples::{every_word, router};

/// What the header of a message says.
#[derive(Debug, PartialEq)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
}

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = 0xa00;
const DELETE_TABLE: u16 = 0xa02;
const DESTROY_TABLE: u16 = 0xa1a;
const NEW_CHAIN: u16 = 0xa03;
const NEW_RULE: u16 = 0xa06;
const NEW_ELEMENTS: u16 = 0xa0c;
const ACKNOWLEDGE: u16 = 4;

fn headers(batch: &Batch) -> Vec<Header> {
    let mut rest = batch.bytes();
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        assert_eq!(length % 4, 0, "messages are aligned");
        headers.push(Header {
            kind: u16::from_ne_bytes(rest[4..6].try_into().unwrap()),
            flags: u16::from_ne_bytes(rest[6..8].try_into().unwrap()),
            sequence: u32::from_ne_bytes(rest[8..12].try_into().unwrap()),
            family: rest[16],
        });
        rest = &rest[length..];
    }
    headers
}

fn encode(changes: &[Change], dialect: Dialect, purpose: Purpose) -> Batch {
    Batch::encode(changes, dialect, purpose).expect("a change that can be said")
}

#[test]
fn a_deletion_is_these_bytes() {
    let delete = Change::Delete { family: Family::Inet, name: "gate".into() };
    let batch = encode(&[delete], Dialect::Owners, Purpose::Apply);
    let mut expected = Vec::new();
    let mut message = |kind: u16, flags: u16, sequence: u32, rest: &[u8]| {
        expected.extend((16 + rest.len() as u32).to_ne_bytes());
        expected.extend(kind.to_ne_bytes());
        expected.extend(flags.to_ne_bytes());
        expected.extend(sequence.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend(rest);
    };
    message(BEGIN, 1, 1, &[0, 0, 0, 10]);
    let mut attribute = vec![1, 0, 0, 0];
    attribute.extend(9_u16.to_ne_bytes());
    attribute.extend(1_u16.to_ne_bytes());
    attribute.extend(b"gate\0\0\0\0");
    message(DESTROY_TABLE, 1 | ACKNOWLEDGE, 2, &attribute);
    message(END, 1, 3, &[0, 0, 0, 10]);
    assert_eq!(batch.bytes(), expected);
}

#[test]
fn messages_are_numbered_and_the_last_one_asks_for_an_answer() {
    for dialect in [Dialect::Owners, Dialect::Shared] {
        let batch = encode(&[Change::Replace(every_word())], dialect, Purpose::Apply);
        let headers = headers(&batch);
        assert!(headers.iter().zip(1..).all(|(header, number)| header.sequence == number));
        let [first, .., before, last] = headers.as_slice() else { panic!("four messages at least") };
        assert_eq!((first.kind, before.kind, last.kind), (BEGIN, NEW_RULE, END));
        let answered: Vec<_> = headers.iter().filter(|header| header.flags & ACKNOWLEDGE != 0).collect();
        assert_eq!(answered, [before]);
        assert!(headers[1..headers.len() - 1].iter().all(|header| header.family == 1));
    }
}

#[test]
fn a_check_is_a_transaction_without_end() {
    let changes = [Change::Replace(router())];
    let apply = encode(&changes, Dialect::Owners, Purpose::Apply);
    let check = encode(&changes, Dialect::Owners, Purpose::Check);
    assert_eq!(check.bytes(), &apply.bytes()[..apply.bytes().len() - 20]);
}

#[test]
fn a_kernel_without_owners_gets_a_shared_table() {
    let mut table = router();
    table.ownership = Ownership::OwnerPersist;
    let kinds = |table, dialect| -> Vec<u16> {
        let batch = encode(&[Change::Replace(table)], dialect, Purpose::Apply);
        headers(&batch).into_iter().map(|header| header.kind).filter(|kind| *kind & 0xf != 6).collect()
    };
    let owners = [BEGIN, DESTROY_TABLE, NEW_TABLE, NEW_CHAIN, NEW_CHAIN, END];
    assert_eq!(kinds(table.clone(), Dialect::Owners), owners);
    let shared = [BEGIN, NEW_TABLE, DELETE_TABLE, NEW_TABLE, NEW_CHAIN, NEW_CHAIN, END];
    assert_eq!(kinds(table.clone(), Dialect::Shared), shared);
    let as_shared = encode(&[Change::Replace(router())], Dialect::Shared, Purpose::Apply);
    assert_eq!(encode(&[Change::Replace(table)], Dialect::Shared, Purpose::Apply), as_shared);
}

#[test]
fn a_number_names_what_its_message_is_about() {
    let batch = encode(&[Change::Replace(router())], Dialect::Owners, Purpose::Apply);
    let subjects: Vec<_> = headers(&batch).iter().map(|header| batch.subject(header.sequence).to_owned()).collect();
    let expected = [
        "the transaction",
        "table inet router",
        "table inet router",
        "table inet router, chain forward",
        "table inet router, chain postrouting",
        "table inet router, chain forward, rule 1 (iifname \"wan\" ct state established,related accept)",
        "table inet router, chain forward, rule 2 (iifname \"wan\" counter drop comment \"unasked\")",
        "table inet router, chain postrouting, rule 1 (oifname \"wan\" meta nfproto ipv4 masquerade)",
        "the transaction",
    ];
    assert_eq!(subjects, expected);
    assert_eq!(batch.subject(0), "the transaction");
    assert_eq!(batch.subject(u32::MAX), "the transaction");
}

#[test]
fn many_elements_are_several_messages() {
    let elements = Elements::Ip((0..1001).map(|n| Span::one(Ipv4Addr::from_bits(n * 2))).collect());
    let (family, table, set, kind) = (Family::Inet, "x".to_owned(), "bad".to_owned(), SetKind::Intervals);
    let add = Change::AddElements { family, table, set, kind, elements };
    let headers = headers(&encode(&[add], Dialect::Owners, Purpose::Apply));
    assert_eq!(headers.iter().filter(|header| header.kind == NEW_ELEMENTS).count(), 3);
}

#[test]
fn an_answer_is_done_or_names_the_message() {
    let answer = |code: i32| {
        let mut bytes = Vec::new();
        bytes.extend(36_u32.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    };
    let read = |bytes: &[u8]| dualgate_wire::nftables::replies(bytes).collect::<Vec<_>>();
    assert_eq!(read(&answer(0)), [Reply::Done]);
    assert_eq!(read(&answer(-2)), [Reply::Refused { sequence: 7, errno: 2 }]);
    assert_eq!(read(&answer(i32::MIN)), [Reply::Refused { sequence: 7, errno: i32::MAX }]);
    assert_eq!(read(&[answer(-1), answer(0)].concat()), [Reply::Refused { sequence: 7, errno: 1 }, Reply::Done]);
    assert_eq!(read(&answer(0)[..35]), []);
}
