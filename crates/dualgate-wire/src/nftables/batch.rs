//! Changes as one transaction of netlink messages.

use super::attribute::{self, Header, Writer, messages};
use super::check::{self, Invalid};
use super::compare::digest;
use super::lower::{AnonymousSet, lower_rule};
use super::rule::Rule;
use super::set::{Elements, Key, Range, Set, SetKind, successor};
use super::table::{Chain, Family, HookPoint, Ownership, Table};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;
const DESTROY_TABLE: u16 = SUBSYSTEM | 26;

pub(super) const USERDATA_COMMENT: u8 = 0;
/// Not a number of nft's, which passes over what it does not know.
pub(super) const USERDATA_DIGEST: u8 = 100;

/// Ranges in one message: an attribute cannot hold more than 64 KiB.
const RANGES_PER_MESSAGE: usize = 500;

/// One change of the kernel's rulesets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The table is so, whatever it was; counters begin at zero.
    Replace(Table),
    /// The table is not there.
    Delete {
        /// Its family.
        family: Family,
        /// Its name.
        name: String,
    },
    /// These are in the set. No interval overlaps one that is there and differs.
    AddElements {
        /// The table's family.
        family: Family,
        /// The table.
        table: String,
        /// The set.
        set: String,
        /// As the set was made.
        kind: SetKind,
        /// What is added.
        elements: Elements,
    },
    /// These, all of which are in the set, leave it.
    DeleteElements {
        /// The table's family.
        family: Family,
        /// The table.
        table: String,
        /// The set.
        set: String,
        /// As the set was made.
        kind: SetKind,
        /// What is removed. A range is removed as it was added.
        elements: Elements,
    },
}

/// What the kernel understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Owners whose tables persist, and the removal of what may be absent: Linux 6.9.
    Owners,
    /// Neither: all tables are shared.
    Shared,
}

/// What becomes of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It is carried out.
    Apply,
    /// The kernel checks it and forgets it.
    Check,
}

/// A transaction: all of it happens or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    subjects: Vec<String>,
}

impl Batch {
    /// Writes the changes down.
    ///
    /// # Errors
    ///
    /// If a value cannot be said in netlink or in nft's words.
    pub fn encode(changes: &[Change], dialect: Dialect, purpose: Purpose) -> Result<Self, Invalid> {
        changes.iter().try_for_each(check::change)?;
        let writer = Writer::default();
        let mut encoder = Encoder { writer, subjects: Vec::new(), last: 0, set_ids: 0, dialect };
        encoder.frame(BATCH_BEGIN);
        changes.iter().for_each(|change| encoder.change(change));
        encoder.writer.add_flags(encoder.last, ACKNOWLEDGE);
        if purpose == Purpose::Apply {
            encoder.frame(BATCH_END);
        }
        let Encoder { writer, subjects, .. } = encoder;
        let bytes = writer.finish().ok_or_else(|| Invalid::TooLong { at: "the transaction".to_owned() })?;
        Ok(Self { bytes, subjects })
    }

    /// What is sent, in one datagram.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the message of this number is about. Numbers that are not of this batch are about the whole.
    #[must_use]
    pub fn subject(&self, sequence: u32) -> &str {
        let index = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
        index.and_then(|index| self.subjects.get(index)).map_or(WHOLE, String::as_str)
    }
}

const WHOLE: &str = "the transaction";

/// What the kernel says of one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Every message was right. For [`Purpose::Apply`]: and is in force.
    Done,
    /// This message was refused, and with it the batch.
    Refused {
        /// The message's number.
        sequence: u32,
        /// The error's number, as `errno` has it.
        errno: i32,
    },
}

/// The replies in a datagram.
pub fn replies(bytes: &[u8]) -> impl Iterator<Item = Reply> {
    messages(bytes).filter(|message| message.kind == ERROR).filter_map(|message| {
        let code = i32::from_ne_bytes(attribute::array(message.body, 0)?);
        Some(match code.checked_neg() {
            Some(0) => Reply::Done,
            Some(errno) => Reply::Refused { sequence: message.sequence, errno },
            None => Reply::Refused { sequence: message.sequence, errno: i32::MAX },
        })
    })
}

pub(super) const ERROR: u16 = 2;

struct Encoder {
    writer: Writer,
    subjects: Vec<String>,
    /// Where the last message starts; it is the one that asks for an acknowledgement.
    last: usize,
    set_ids: u32,
    dialect: Dialect,
}

impl Encoder {
    /// The begin or the end of the batch.
    fn frame(&mut self, kind: u16) {
        let sequence = self.number(WHOLE.to_owned());
        let header = Header { kind, flags: REQUEST, sequence, family: 0, resource: SUBSYSTEM >> 8 };
        self.writer.message(header, |_| {});
    }

    fn message(&mut self, family: Family, kind: u16, flags: u16, subject: String, body: impl FnOnce(&mut Writer)) {
        let sequence = self.number(subject);
        let flags = REQUEST | flags;
        let header = Header { kind, flags, sequence, family: family.number(), resource: 0 };
        self.last = self.writer.message(header, body);
    }

    fn number(&mut self, subject: String) -> u32 {
        self.subjects.push(subject);
        u32::try_from(self.subjects.len()).unwrap_or(u32::MAX)
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Replace(table) => self.replace(table),
            Change::Delete { family, name } => self.delete(*family, name),
            Change::AddElements { family, table, set, kind, elements } => {
                let (place, name) = (Place { family: *family, table }, SetName { name: set, id: None });
                self.elements(&place, NEW_ELEMENTS, &name, &elements.ranges(*kind), *kind == SetKind::Intervals);
            }
            Change::DeleteElements { family, table, set, kind, elements } => {
                let (place, name) = (Place { family: *family, table }, SetName { name: set, id: None });
                self.elements(&place, DELETE_ELEMENTS, &name, &elements.ranges(*kind), *kind == SetKind::Intervals);
            }
        }
    }

    /// Where the kernel cannot remove what may be absent, the table is made before it is removed.
    fn delete(&mut self, family: Family, table: &str) {
        let subject = format!("table {family} {table}");
        if self.dialect == Dialect::Shared {
            self.message(family, NEW_TABLE, CREATE, subject.clone(), |writer| {
                writer.text(1, table);
                writer.u32(2, 0);
            });
        }
        let kind = match self.dialect {
            Dialect::Owners => DESTROY_TABLE,
            Dialect::Shared => DELETE_TABLE,
        };
        self.message(family, kind, 0, subject, |writer| writer.text(1, table));
    }

    fn replace(&mut self, table: &Table) {
        self.delete(table.family, &table.name);
        let ownership = match self.dialect {
            Dialect::Owners => table.ownership,
            Dialect::Shared => Ownership::Shared,
        };
        let place = Place { family: table.family, table: &table.name };
        self.message(place.family, NEW_TABLE, CREATE, place.subject(), |writer| {
            writer.text(1, &table.name);
            writer.u32(2, ownership.flags());
            if let Some(comment) = &table.comment {
                writer.attribute(6, &userdata_text(USERDATA_COMMENT, comment));
            }
        });
        table.chains.iter().for_each(|chain| self.chain(&place, chain));
        table.sets.iter().for_each(|set| self.set(&place, set));
        for chain in &table.chains {
            for (index, rule) in chain.rules.iter().enumerate() {
                self.rule(&place, chain, index + 1, rule);
            }
        }
    }

    fn chain(&mut self, place: &Place<'_>, chain: &Chain) {
        let subject = format!("{}, chain {}", place.subject(), chain.name);
        self.message(place.family, NEW_CHAIN, CREATE, subject, |writer| {
            writer.text(1, place.table);
            writer.text(3, &chain.name);
            let Some(hook) = &chain.hook else { return };
            writer.nested(4, |writer| {
                writer.u32(1, hook.at.number(place.family));
                writer.attribute(2, &hook.priority.to_be_bytes());
                if let HookPoint::Ingress { device } = &hook.at {
                    writer.text(3, device);
                }
            });
            writer.u32(5, hook.policy.number());
            writer.text(7, hook.kind.name());
        });
    }

    fn set(&mut self, place: &Place<'_>, set: &Set) {
        let key = set.elements.key();
        let (flags, size, timeout) = match set.kind {
            SetKind::Values => (0, None, None),
            SetKind::Intervals => (SET_INTERVAL, None, None),
            SetKind::Dynamic { size, timeout_seconds: None } => (SET_EVAL, Some(size), None),
            SetKind::Dynamic { size, timeout_seconds } => (SET_EVAL | SET_TIMEOUT, Some(size), timeout_seconds),
        };
        let id = self.set_id();
        let subject = format!("{}, set {}", place.subject(), set.name);
        self.message(place.family, NEW_SET, CREATE, subject, |writer| {
            writer.text(1, place.table);
            writer.text(2, &set.name);
            writer.u32(3, flags);
            writer.u32(4, key.number());
            writer.u32(5, key.length());
            if let Some(size) = size {
                writer.nested(9, |writer| writer.u32(1, size));
            }
            writer.u32(10, id);
            if let Some(timeout) = timeout {
                writer.u64(11, u64::from(timeout) * 1000);
            }
            write_byte_order(writer, key);
        });
        let name = SetName { name: &set.name, id: None };
        self.elements(place, NEW_ELEMENTS, &name, &set.elements.ranges(set.kind), set.kind == SetKind::Intervals);
    }

    fn set_id(&mut self) -> u32 {
        self.set_ids += 1;
        self.set_ids
    }

    fn elements(&mut self, place: &Place<'_>, kind: u16, set: &SetName<'_>, ranges: &[Range], intervals: bool) {
        let flags = if kind == NEW_ELEMENTS { CREATE } else { 0 };
        for ranges in ranges.chunks(RANGES_PER_MESSAGE) {
            let subject = format!("{}, set {}", place.subject(), set.name);
            self.message(place.family, kind, flags, subject, |writer| {
                writer.text(1, place.table);
                writer.text(2, set.name);
                writer.nested(3, |writer| ranges.iter().for_each(|range| write_range(writer, range, intervals)));
                if let Some(id) = set.id {
                    writer.u32(4, id);
                }
            });
        }
    }

    fn anonymous_set(&mut self, place: &Place<'_>, subject: &str, set: &AnonymousSet) -> u32 {
        let id = self.set_id();
        let intervals = set.has_intervals();
        let flags = SET_ANONYMOUS | SET_CONSTANT | if intervals { SET_INTERVAL } else { 0 };
        self.message(place.family, NEW_SET, CREATE, subject.to_owned(), |writer| {
            writer.text(1, place.table);
            writer.text(2, ANONYMOUS);
            writer.u32(3, flags);
            writer.u32(4, set.key.number());
            writer.u32(5, set.key.length());
            writer.u32(10, id);
            write_byte_order(writer, set.key);
        });
        let name = SetName { name: ANONYMOUS, id: Some(id) };
        self.elements(place, NEW_ELEMENTS, &name, &set.ranges, intervals);
        id
    }

    fn rule(&mut self, place: &Place<'_>, chain: &Chain, number: usize, rule: &Rule) {
        let subject = format!("{}, chain {}, rule {number} ({rule})", place.subject(), chain.name);
        let lowered = lower_rule(place.family, rule);
        let ids: Vec<u32> = lowered.sets.iter().map(|set| self.anonymous_set(place, &subject, set)).collect();
        self.message(place.family, NEW_RULE, CREATE | APPEND, subject, |writer| {
            writer.text(1, place.table);
            writer.text(2, &chain.name);
            writer.nested(4, |writer| {
                for expression in &lowered.expressions {
                    expression.write(writer, |index| (ANONYMOUS, ids.get(index).copied().unwrap_or_default()));
                }
            });
            let mut userdata =
                rule.comment.iter().flat_map(|comment| userdata_text(USERDATA_COMMENT, comment)).collect();
            userdata_entry(&mut userdata, USERDATA_DIGEST, &digest(rule).to_be_bytes());
            writer.attribute(7, &userdata);
        });
    }
}

const USERDATA_KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;
/// The name of a set that the kernel is to name.
const ANONYMOUS: &str = "__set%d";
const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_INTERVAL: u32 = 0x4;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const ELEMENT_INTERVAL_END: u32 = 0x1;

struct Place<'a> {
    family: Family,
    table: &'a str,
}

impl Place<'_> {
    fn subject(&self) -> String {
        format!("table {} {}", self.family, self.table)
    }
}

struct SetName<'a> {
    name: &'a str,
    id: Option<u32>,
}

/// A note for nft, which otherwise shows such values turned round.
fn write_byte_order(writer: &mut Writer, key: Key) {
    if key.is_host_order() {
        let mut userdata = Vec::new();
        userdata_entry(&mut userdata, USERDATA_KEY_BYTE_ORDER, &HOST_ORDER.to_ne_bytes());
        writer.attribute(13, &userdata);
    }
}

/// In a set of intervals the end is an element of its own, one beyond the last key. The last of all keys needs none.
fn write_range(writer: &mut Writer, range: &Range, intervals: bool) {
    write_element(writer, &range.first, 0);
    if let (true, Some(end)) = (intervals, successor(&range.last)) {
        write_element(writer, &end, ELEMENT_INTERVAL_END);
    }
}

fn write_element(writer: &mut Writer, key: &[u8], flags: u32) {
    writer.nested(1, |writer| {
        writer.nested(1, |writer| writer.attribute(1, key));
        if flags != 0 {
            writer.u32(3, flags);
        }
    });
}

fn userdata_text(kind: u8, text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    let mut userdata = Vec::new();
    userdata_entry(&mut userdata, kind, &value);
    userdata
}

/// The lengths are checked before: a comment has at most 128 octets.
fn userdata_entry(userdata: &mut Vec<u8>, kind: u8, value: &[u8]) {
    userdata.push(kind);
    userdata.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
    userdata.extend(value);
}
