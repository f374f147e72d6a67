//! One question, as somebody asks it.

use super::name::length;
use super::{Class, HEADER, RecordType, cookie};

const RESPONSE: u8 = 0x80;
const RECURSION_DESIRED: u8 = 0x01;
const CHECKING_DISABLED: u8 = 0x10;
const DNSSEC_OK: u8 = 0x80;

/// A question with what matters of the message around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The message's number.
    pub id: u16,
    /// Whether the asker wants others to be asked, too.
    pub recursion_desired: bool,
    /// Whether the asker validates signatures itself.
    pub checking_disabled: bool,
    /// The name as it was written, in wire form: small and large letters come back as they came (0x20).
    pub name: &'a [u8],
    /// The type.
    pub rtype: RecordType,
    /// The class.
    pub class: Class,
    /// EDNS(0), if it is spoken.
    pub edns: Option<Edns<'a>>,
}

/// What the asker says by EDNS(0) (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// How large an answer over UDP may be.
    pub size: u16,
    /// 0 is the only one that there is.
    pub version: u8,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
    /// The cookies (RFC 7873).
    pub cookie: Option<cookie::Asked<'a>>,
}

/// What is said to a message that is no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing: it is an answer, or no message at all.
    Silence,
    /// FORMERR.
    Malformed,
    /// NOTIMP: neither a question nor an answer.
    Unknown,
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub fn parse(message: &'a [u8]) -> Result<Self, Unreadable> {
        let [id_high, id_low, flags, more_flags, counts @ ..] =
            message.first_chunk::<HEADER>().ok_or(Unreadable::Silence)?;
        if flags & RESPONSE != 0 {
            return Err(Unreadable::Silence);
        }
        if flags >> 3 & 15 != 0 {
            return Err(Unreadable::Unknown);
        }
        let [questions, answers, authorities, additionals] =
            [0, 2, 4, 6].map(|at| u16::from_be_bytes([counts[at], counts[at + 1]]));
        let body = &message[HEADER..];
        let name = length(body).and_then(|length| body.get(..length)).ok_or(Unreadable::Malformed)?;
        let Some(([t1, t2, c1, c2], rest)) = body[name.len()..].split_first_chunk() else {
            return Err(Unreadable::Malformed);
        };
        // A question has no answers, and asks one thing (RFC 9619).
        if questions != 1 || answers != 0 || authorities != 0 {
            return Err(Unreadable::Malformed);
        }
        Ok(Self {
            id: u16::from_be_bytes([*id_high, *id_low]),
            recursion_desired: flags & RECURSION_DESIRED != 0,
            checking_disabled: more_flags & CHECKING_DISABLED != 0,
            name,
            rtype: RecordType(u16::from_be_bytes([*t1, *t2])),
            class: Class(u16::from_be_bytes([*c1, *c2])),
            edns: additional(rest, additionals)?,
        })
    }
}

/// The records after the question: at most one OPT, others count for nothing.
fn additional(mut rest: &[u8], records: u16) -> Result<Option<Edns<'_>>, Unreadable> {
    let mut edns = None;
    for _ in 0..records {
        let owner = owner(rest).ok_or(Unreadable::Malformed)?;
        let Some((fixed, after)) = rest[owner..].split_first_chunk::<10>() else { return Err(Unreadable::Malformed) };
        let data = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = after.get(..data).ok_or(Unreadable::Malformed)?;
        if RecordType(u16::from_be_bytes([fixed[0], fixed[1]])) == RecordType::OPT {
            if owner != 1 || rest[0] != 0 || edns.is_some() {
                return Err(Unreadable::Malformed);
            }
            edns = Some(Edns {
                size: u16::from_be_bytes([fixed[2], fixed[3]]),
                version: fixed[5],
                dnssec_ok: fixed[6] & DNSSEC_OK != 0,
                cookie: cookie(data)?,
            });
        }
        rest = &after[data.len()..];
    }
    if rest.is_empty() { Ok(edns) } else { Err(Unreadable::Malformed) }
}

/// The length of an owner, which may end with a pointer.
fn owner(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *wire.get(at)? {
            0 => return Some(at + 1),
            octets @ 1..=63 => at += 1 + usize::from(octets),
            0xc0..=0xff => return (wire.len() >= at + 2).then_some(at + 2),
            _ => return None,
        }
    }
}

fn cookie(mut options: &[u8]) -> Result<Option<cookie::Asked<'_>>, Unreadable> {
    let mut found = None;
    while !options.is_empty() {
        let Some(([c1, c2, l1, l2], rest)) = options.split_first_chunk() else { return Err(Unreadable::Malformed) };
        let length = usize::from(u16::from_be_bytes([*l1, *l2]));
        let value = rest.get(..length).ok_or(Unreadable::Malformed)?;
        if u16::from_be_bytes([*c1, *c2]) == cookie::OPTION && found.is_none() {
            found = Some(cookie::Asked::parse(value).ok_or(Unreadable::Malformed)?);
        }
        options = &rest[length..];
    }
    Ok(found)
}
