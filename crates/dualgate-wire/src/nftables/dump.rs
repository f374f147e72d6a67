//! What the kernel lists: tables, chains, rules with their counters, sets.
//!
//! Only what is needed to recognise an own table, to compare it and to read its counters. Nothing here panics on any
//! input; what cannot be read is left out.

use super::attribute::{Header, Message, Writer, array, attributes, messages, read_text, read_u32, read_u64};
use super::batch::{ACKNOWLEDGE, ERROR, REQUEST, SUBSYSTEM, USERDATA_COMMENT, USERDATA_DIGEST};
use super::table::Family;

const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const DONE: u16 = 3;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All tables.
    Tables,
    /// All chains of a family.
    Chains(Family),
    /// The chain of this name in this table, if it is there.
    Chain(Family, String, String),
    /// All rules of a table.
    Rules(Family, String),
    /// All sets of a table.
    Sets(Family, String),
    /// All elements of a set.
    Elements(Family, String, String),
}

/// The message that asks for it.
#[must_use]
pub fn request(listing: &Listing, sequence: u32) -> Vec<u8> {
    let (kind, family, table, part, flags) = match listing {
        Listing::Tables => (1, 0, None, None, DUMP),
        Listing::Chains(family) => (4, family.number(), None, None, DUMP),
        Listing::Chain(family, table, chain) => (4, family.number(), Some(table), Some((3, chain)), ACKNOWLEDGE),
        Listing::Rules(family, table) => (7, family.number(), Some(table), None, DUMP),
        Listing::Sets(family, table) => (10, family.number(), Some(table), None, DUMP),
        Listing::Elements(family, table, set) => (13, family.number(), Some(table), Some((2, set)), DUMP),
    };
    let mut writer = Writer::default();
    let header = Header { kind: SUBSYSTEM | kind, flags: REQUEST | flags, sequence, family, resource: 0 };
    writer.message(header, |writer| {
        table.into_iter().for_each(|table| writer.text(1, table));
        part.into_iter().for_each(|(attribute, name)| writer.text(attribute, name));
    });
    writer.finish().unwrap_or_default()
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dumped {
    /// A table.
    Table(ObservedTable),
    /// A chain.
    Chain(ObservedChain),
    /// A rule.
    Rule(ObservedRule),
    /// A set.
    Set(ObservedSet),
    /// Elements of the set that was asked for.
    Elements(Vec<ObservedElement>),
    /// That was all.
    Done,
    /// The rulesets changed meanwhile: what was listed does not belong together.
    Interrupted,
    /// The request was refused.
    Refused {
        /// The error's number, as `errno` has it.
        errno: i32,
    },
}

/// A table with all that is in it, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The table.
    pub table: ObservedTable,
    /// Its chains.
    pub chains: Vec<ObservedChain>,
    /// The rules of all its chains, those of one chain in their order.
    pub rules: Vec<ObservedRule>,
    /// Its sets, with what they hold.
    pub sets: Vec<(ObservedSet, Vec<ObservedElement>)>,
}

/// A table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Unique for as long as the kernel runs: a table that was made again has another one.
    pub handle: u64,
    /// The port of the netlink socket that owns it.
    pub owner: Option<u32>,
    /// Whether it stays when its owner goes. Without an owner: it has lost one.
    pub persists: bool,
    /// Its comment.
    pub comment: Option<String>,
}

/// A chain as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChain {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets enter it.
    pub hook: Option<ObservedHook>,
}

/// Where packets enter a chain, in the kernel's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedHook {
    /// `filter`, `nat`, `route`.
    pub kind: String,
    /// The place, as the family counts them.
    pub number: u32,
    /// The order.
    pub priority: i32,
    /// 1 accepts, 0 drops.
    pub policy: u32,
}

/// A rule as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRule {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain. Rules of one chain are listed in their order.
    pub chain: String,
    /// Unique in its table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// What was written of it, if this module wrote it.
    pub digest: Option<u64>,
    /// What its first counter has counted.
    pub counted: Option<Counted>,
}

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Octets, with all headers of IP.
    pub octets: u64,
}

/// A set as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// Its name; a set without a name has one that begins with `__`.
    pub name: String,
    /// nft's number of its type.
    pub key_type: u32,
    /// `NFT_SET_*`.
    pub flags: u32,
}

/// An element of a set as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservedElement {
    /// Its octets.
    pub key: Vec<u8>,
    /// Whether it is the first key beyond an interval, not one of the set.
    pub ends_interval: bool,
}

/// The answers in a datagram.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Dumped> {
    messages(bytes).flat_map(|message| {
        let interrupted = (message.flags & DUMP_INTERRUPTED != 0).then_some(Dumped::Interrupted);
        interrupted.into_iter().chain(read(&message))
    })
}

fn read(message: &Message<'_>) -> Option<Dumped> {
    const NEW_TABLE: u16 = SUBSYSTEM;
    const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    const NEW_RULE: u16 = SUBSYSTEM | 6;
    const NEW_SET: u16 = SUBSYSTEM | 9;
    const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
    match message.kind {
        NEW_TABLE => table(message).map(Dumped::Table),
        NEW_CHAIN => chain(message).map(Dumped::Chain),
        NEW_RULE => rule(message).map(Dumped::Rule),
        NEW_SET => set(message).map(Dumped::Set),
        NEW_ELEMENTS => Some(Dumped::Elements(elements(message))),
        DONE => Some(Dumped::Done),
        ERROR => outcome(message),
        _ => None,
    }
}

fn outcome(message: &Message<'_>) -> Option<Dumped> {
    match i32::from_ne_bytes(array(message.body, 0)?) {
        0 => Some(Dumped::Done),
        code => Some(Dumped::Refused { errno: code.checked_neg().unwrap_or(i32::MAX) }),
    }
}

fn table(message: &Message<'_>) -> Option<ObservedTable> {
    let mut table = ObservedTable {
        family: Family::from_number(message.family()?)?,
        name: String::new(),
        handle: 0,
        owner: None,
        persists: false,
        comment: None,
    };
    for (kind, value) in message.attributes() {
        match kind {
            1 => table.name = read_text(value),
            2 => table.persists = read_u32(value)? & 4 != 0,
            4 => table.handle = read_u64(value)?,
            6 => table.comment = userdata(value, USERDATA_COMMENT).map(read_text),
            7 => table.owner = Some(read_u32(value)?),
            _ => {}
        }
    }
    Some(table)
}

fn chain(message: &Message<'_>) -> Option<ObservedChain> {
    let family = Family::from_number(message.family()?)?;
    let mut chain = ObservedChain { family, table: String::new(), name: String::new(), hook: None };
    let mut hook = ObservedHook { kind: String::new(), number: 0, priority: 0, policy: 0 };
    let mut is_base = false;
    for (kind, value) in message.attributes() {
        match kind {
            1 => chain.table = read_text(value),
            3 => chain.name = read_text(value),
            4 => {
                is_base = true;
                for (kind, value) in attributes(value) {
                    match kind {
                        1 => hook.number = read_u32(value)?,
                        2 => hook.priority = read_u32(value)?.cast_signed(),
                        _ => {}
                    }
                }
            }
            5 => hook.policy = read_u32(value)?,
            7 => hook.kind = read_text(value),
            _ => {}
        }
    }
    chain.hook = is_base.then_some(hook);
    Some(chain)
}

fn rule(message: &Message<'_>) -> Option<ObservedRule> {
    let mut rule = ObservedRule {
        family: Family::from_number(message.family()?)?,
        table: String::new(),
        chain: String::new(),
        handle: 0,
        comment: None,
        digest: None,
        counted: None,
    };
    for (kind, value) in message.attributes() {
        match kind {
            1 => rule.table = read_text(value),
            2 => rule.chain = read_text(value),
            3 => rule.handle = read_u64(value)?,
            4 => rule.counted = attributes(value).find_map(|(_, expression)| counter(expression)),
            7 => {
                rule.comment = userdata(value, USERDATA_COMMENT).map(read_text);
                rule.digest = userdata(value, USERDATA_DIGEST).and_then(read_u64);
            }
            _ => {}
        }
    }
    Some(rule)
}

fn counter(expression: &[u8]) -> Option<Counted> {
    let mut parts = attributes(expression);
    parts.find(|(kind, name)| *kind == 1 && read_text(name) == "counter")?;
    let (_, data) = parts.find(|(kind, _)| *kind == 2)?;
    let mut counted = Counted::default();
    for (kind, value) in attributes(data) {
        match kind {
            1 => counted.octets = read_u64(value)?,
            2 => counted.packets = read_u64(value)?,
            _ => {}
        }
    }
    Some(counted)
}

fn set(message: &Message<'_>) -> Option<ObservedSet> {
    let family = Family::from_number(message.family()?)?;
    let mut set = ObservedSet { family, table: String::new(), name: String::new(), key_type: 0, flags: 0 };
    for (kind, value) in message.attributes() {
        match kind {
            1 => set.table = read_text(value),
            2 => set.name = read_text(value),
            3 => set.flags = read_u32(value)?,
            4 => set.key_type = read_u32(value)?,
            _ => {}
        }
    }
    Some(set)
}

fn elements(message: &Message<'_>) -> Vec<ObservedElement> {
    let lists = message.attributes().filter(|(kind, _)| *kind == 3);
    lists.flat_map(|(_, list)| attributes(list)).filter_map(|(_, element)| read_element(element)).collect()
}

fn read_element(element: &[u8]) -> Option<ObservedElement> {
    let mut key = None;
    let mut ends_interval = false;
    for (kind, value) in attributes(element) {
        match kind {
            1 => key = attributes(value).find(|(kind, _)| *kind == 1).map(|(_, octets)| octets.to_vec()),
            3 => ends_interval = read_u32(value)? & 1 != 0,
            _ => {}
        }
    }
    Some(ObservedElement { key: key?, ends_interval })
}

/// The value of this kind in nft's own notes, each of which is a kind, a length and so many octets.
fn userdata(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let [kind, length] = array(bytes, 0)?;
        let end = 2 + usize::from(length);
        let value = bytes.get(2..end)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(end..)?;
    }
}
