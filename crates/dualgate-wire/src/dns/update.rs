//! Messages that change a zone elsewhere (RFC 2136), and those that ask for all of it (RFC 5936).
//!
//! A change is all or nothing: what its writer believes of the zone stands in it, and the server refuses it where that does
//! not hold. Over TCP only; a signature is put behind it by [`super::tsig`].

use std::fmt;

use super::{Class, HEADER, Name, Rdata, RecordType};

const OPCODE_UPDATE: u8 = 5 << 3;
/// "None of them" in prerequisites, "this one not" in changes.
const NONE: Class = Class(254);

/// A change that is being written.
#[derive(Clone, Debug)]
pub struct Update {
    zone: Name,
    prerequisites: Vec<u8>,
    changes: Vec<u8>,
    counts: [u16; 2],
}

impl Update {
    /// Of this zone: nothing yet.
    pub fn new(zone: Name) -> Self {
        Self { zone, prerequisites: Vec::new(), changes: Vec::new(), counts: [0; 2] }
    }

    /// How many octets it has, but for a signature.
    pub fn len(&self) -> usize {
        HEADER + self.zone.as_wire().len() + 4 + self.prerequisites.len() + self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.counts[1] == 0
    }

    /// Only if the set is exactly this (RFC 2136 2.4.2); its time to live does not count.
    pub fn only_if_set<'a>(&mut self, name: &Name, data: impl IntoIterator<Item = &'a Rdata>) {
        for data in data {
            write(&mut self.prerequisites, name, data.record_type(), Class::IN, 0, Some(data));
            self.counts[0] += 1;
        }
    }

    /// Only if there is no such set (RFC 2136 2.4.3).
    pub fn only_if_absent(&mut self, name: &Name, rtype: RecordType) {
        write(&mut self.prerequisites, name, rtype, NONE, 0, None);
        self.counts[0] += 1;
    }

    /// The set goes (RFC 2136 2.5.2).
    pub fn delete_set(&mut self, name: &Name, rtype: RecordType) {
        write(&mut self.changes, name, rtype, Class::ANY, 0, None);
        self.counts[1] += 1;
    }

    /// A record comes (RFC 2136 2.5.1).
    pub fn add(&mut self, name: &Name, ttl: u32, data: &Rdata) {
        write(&mut self.changes, name, data.record_type(), Class::IN, ttl, Some(data));
        self.counts[1] += 1;
    }

    /// The message.
    pub fn finish(self, id: u16) -> Vec<u8> {
        let mut out = head(id, OPCODE_UPDATE, &self.zone, RecordType::SOA);
        for (at, count) in [6, 8].into_iter().zip(self.counts) {
            out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        out.extend(self.prerequisites);
        out.extend(self.changes);
        out
    }
}

/// Asks for a whole zone.
pub fn transfer(id: u16, zone: &Name) -> Vec<u8> {
    head(id, 0, zone, RecordType::AXFR)
}

fn head(id: u16, opcode: u8, zone: &Name, rtype: RecordType) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend(id.to_be_bytes());
    out.extend([opcode, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(zone.as_wire());
    out.extend(rtype.0.to_be_bytes());
    out.extend(Class::IN.0.to_be_bytes());
    out
}

fn write(out: &mut Vec<u8>, name: &Name, rtype: RecordType, class: Class, ttl: u32, data: Option<&Rdata>) {
    out.extend_from_slice(name.as_wire());
    out.extend(rtype.0.to_be_bytes());
    out.extend(class.0.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    let length_at = out.len();
    out.extend([0, 0]);
    if let Some(data) = data {
        data.encode(out);
    }
    let length = (out.len() - length_at - 2) as u16;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

/// What a server says of a message: the number in its answer's header (RFC 2136 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(pub u8);

impl Verdict {
    /// It is done.
    pub const NO_ERROR: Self = Self(0);
    /// Something went wrong there.
    pub const SERV_FAIL: Self = Self(2);
    /// A set is there that should not be.
    pub const YX_RRSET: Self = Self(7);
    /// A set is not as it should be.
    pub const NX_RRSET: Self = Self(8);
    /// Not this server's zone, or not this key's.
    pub const NOT_AUTH: Self = Self(9);

    /// Of the answer to `request`; `None` if it is the answer to something else.
    pub fn of(request: &[u8], answer: &[u8]) -> Option<Self> {
        let (asked, said) = (request.first_chunk::<4>()?, answer.first_chunk::<HEADER>()?);
        let is_answer = said[2] & 0x80 != 0 && (asked[2] ^ said[2]) & 0x78 == 0;
        (asked[..2] == said[..2] && is_answer).then_some(Self(said[3] & 15))
    }

    /// Whether the zone was not as its writer believed: it is to be read again.
    pub fn is_outdated(self) -> bool {
        self == Self::YX_RRSET || self == Self::NX_RRSET || self == Self(6) || self == Self(3)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            number => return write!(f, "RCODE{number}"),
        };
        f.write_str(word)
    }
}

#[cfg(test)]
mod tests {
    use super::super::records;
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_change_has_its_zone_its_conditions_and_then_what_it_does() {
        let mut update = Update::new(name("example.org"));
        assert!(update.is_empty());
        let (a, b) = (Rdata::A([192, 0, 2, 1].into()), Rdata::A([192, 0, 2, 2].into()));
        update.delete_set(&name("a.example.org"), RecordType::A);
        update.only_if_set(&name("a.example.org"), [&a]);
        update.only_if_absent(&name("a.example.org"), RecordType::CNAME);
        update.add(&name("a.example.org"), 60, &b);
        let length = update.len();
        let message = update.finish(0x1234);
        assert_eq!(message.len(), length);
        assert_eq!(&message[..12], [0x12, 0x34, 0x28, 0, 0, 1, 0, 2, 0, 2, 0, 0]);
        assert_eq!(&message[12..29], b"\x07example\x03org\x00\x00\x06\x00\x01");
        let told: Vec<_> = records(&message)
            .unwrap()
            .map(Result::unwrap)
            .map(|record| (record.section, record.rtype, record.class.0, record.ttl, record.data.to_vec()))
            .collect();
        assert_eq!(
            told,
            [
                (1, RecordType::A, 1, 0, vec![192, 0, 2, 1]),
                (1, RecordType::CNAME, 254, 0, vec![]),
                (2, RecordType::A, 255, 0, vec![]),
                (2, RecordType::A, 1, 60, vec![192, 0, 2, 2]),
            ]
        );
    }

    #[test]
    fn only_the_answer_to_a_message_says_what_became_of_it() {
        let asked = Update::new(name("example.org")).finish(7);
        let answer = |id: u8, second: u8, third: u8| [&[0, id, second, third], [0; 8].as_slice()].concat();
        assert_eq!(Verdict::of(&asked, &answer(7, 0xa8, 8)), Some(Verdict::NX_RRSET));
        assert_eq!(Verdict::of(&asked, &answer(8, 0xa8, 0)), None, "another number");
        assert_eq!(Verdict::of(&asked, &answer(7, 0x80, 0)), None, "another kind of message");
        assert_eq!(Verdict::of(&asked, &answer(7, 0x28, 0)), None, "a question");
        assert_eq!(Verdict::of(&asked, b"\0\x07\xa8"), None, "cut off");
        assert_eq!(Verdict(9).to_string(), "NOTAUTH");
    }
}
