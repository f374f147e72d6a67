//! Writes an answer into a buffer, within a limit.

use super::{Class, HEADER, Query, Rcode, Rdata, RecordType, cookie};

/// A pointer to the name of the question.
pub const QUESTION: u16 = 0xc000 | HEADER as u16;

/// Octets of an OPT without options.
const OPT: usize = 11;
const OPTION_HEADER: usize = 4;
/// The option that says more of an error (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// There is no room for it; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who knows, or why there is nothing.
    Authority,
    /// What is needed next.
    Additional,
}

/// What an answer says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It comes from the zone itself.
    pub authoritative: bool,
    /// It is not all.
    pub truncated: bool,
    /// Others are asked for this asker.
    pub recursion_available: bool,
    /// Whoever was asked has validated it.
    pub authenticated: bool,
    /// The asker validates itself: its wish, given back.
    pub checking_disabled: bool,
}

/// What is said by EDNS(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// The question's wish, given back (RFC 3225).
    pub dnssec_ok: bool,
    /// Both cookies.
    pub cookie: Option<[u8; cookie::LENGTH]>,
    /// More about what went wrong: a number of RFC 8914.
    pub error: Option<u16>,
}

impl Opt {
    /// Octets of its options.
    fn options(&self) -> usize {
        let cookie = self.cookie.map_or(0, |cookie| OPTION_HEADER + cookie.len());
        cookie + self.error.map_or(0, |_| OPTION_HEADER + 2)
    }
}

/// An answer that is being written.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    limit: usize,
    opt: Option<Opt>,
    counts: [u16; 3],
}

impl<'b> Writer<'b> {
    /// Begins with the question as it was asked; room for EDNS(0) is kept.
    pub fn new(out: &'b mut Vec<u8>, query: &Query<'_>, limit: usize, opt: Option<Opt>) -> Self {
        out.clear();
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&[u8::from(query.recursion_desired), 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.name);
        out.extend_from_slice(&query.rtype.0.to_be_bytes());
        out.extend_from_slice(&query.class.0.to_be_bytes());
        let kept = opt.map_or(0, |opt| OPT + opt.options());
        Self { out, limit: limit.saturating_sub(kept), opt, counts: [0; 3] }
    }

    /// What is written so far, from the header on.
    pub fn octets(&self) -> &[u8] {
        self.out
    }

    /// How many octets there are.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Never: there is a question.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Adds records as [`encode`] made them, all or none. `owner` is a pointer to their name.
    pub fn set(&mut self, section: Section, owner: u16, encoded: &[u8], records: u16) -> Result<(), Full> {
        let start = self.raw(section, encoded, records)?;
        if owner != QUESTION {
            let mut at = start;
            while let Some(head) = self.out.get_mut(at..at + 12) {
                head[..2].copy_from_slice(&owner.to_be_bytes());
                at += 12 + usize::from(u16::from_be_bytes([head[10], head[11]]));
            }
        }
        Ok(())
    }

    /// Adds records that have their owners in themselves; says where they begin.
    pub fn raw(&mut self, section: Section, encoded: &[u8], records: u16) -> Result<usize, Full> {
        let start = self.out.len();
        if start + encoded.len() > self.limit {
            return Err(Full);
        }
        self.out.extend_from_slice(encoded);
        let count = match section {
            Section::Answer => &mut self.counts[0],
            Section::Authority => &mut self.counts[1],
            Section::Additional => &mut self.counts[2],
        };
        *count = count.saturating_add(records);
        Ok(start)
    }

    /// Leaves out all records again.
    pub fn truncate(&mut self, question: usize) {
        self.out.truncate(HEADER + question + 4);
        self.counts = [0; 3];
    }

    /// Ends the answer. `limit` of [`Writer::new`] holds with EDNS(0), too.
    pub fn finish(mut self, flags: Flags, rcode: Rcode) {
        let number = rcode.number();
        if let Some(opt) = self.opt {
            self.counts[2] = self.counts[2].saturating_add(1);
            let size = super::UDP_LIMIT as u16;
            let [high, low] = RecordType::OPT.0.to_be_bytes();
            self.out.extend_from_slice(&[0, high, low]);
            self.out.extend_from_slice(&size.to_be_bytes());
            self.out.extend_from_slice(&[(number >> 4) as u8, 0, u8::from(opt.dnssec_ok) << 7, 0]);
            self.out.extend_from_slice(&(opt.options() as u16).to_be_bytes());
            if let Some(cookie) = opt.cookie {
                self.option(cookie::OPTION, &cookie);
            }
            if let Some(error) = opt.error {
                self.option(EXTENDED_ERROR, &error.to_be_bytes());
            }
        }
        let head = &mut self.out[..HEADER];
        head[2] |= 0x80 | u8::from(flags.authoritative) << 2 | u8::from(flags.truncated) << 1;
        head[3] = u8::from(flags.recursion_available) << 7
            | u8::from(flags.authenticated) << 5
            | u8::from(flags.checking_disabled) << 4
            | (number & 15) as u8;
        for (at, count) in [6, 8, 10].into_iter().zip(self.counts) {
            head[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.out.extend_from_slice(&code.to_be_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.out.extend_from_slice(value);
    }
}

/// Encodes the records of one set for [`Writer::set`]; their owner is the name of the question until then.
pub fn encode<'a>(rtype: RecordType, ttl: u32, data: impl IntoIterator<Item = &'a Rdata>, out: &mut Vec<u8>) -> u16 {
    let mut records = 0;
    for rdata in data {
        out.extend_from_slice(&QUESTION.to_be_bytes());
        out.extend_from_slice(&rtype.0.to_be_bytes());
        out.extend_from_slice(&Class::IN.0.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0, 0]);
        rdata.encode(out);
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        records += 1;
    }
    records
}

/// Says of a message that cannot be read, or is no question, what is wrong: without a question, as there may be none.
pub fn failure(message: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    out.clear();
    let head = message.get(..4).unwrap_or(&[0; 4]);
    out.extend_from_slice(&head[..2]);
    out.extend_from_slice(&[0x80 | head[2] & 0x79, (rcode.number() & 15) as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// Makes an answer one that says only "ask again over TCP": the question and EDNS(0) stay.
pub fn slip(answer: &mut Vec<u8>) {
    let opt = super::records(answer).ok().and_then(|records| {
        let mut found = records.filter_map(Result::ok).filter(|record| record.rtype == RecordType::OPT);
        found.next().map(|record| (record.owner, record.data_at + record.data.len()))
    });
    let question = answer.get(HEADER..).and_then(super::name::length);
    let (Some(question), [_, _, _, _, 0, 1, ..]) = (question, answer.as_slice()) else { return };
    let end = HEADER + question + 4;
    if answer.len() < end {
        return;
    }
    let kept = opt.filter(|(start, _)| *start >= end);
    if let Some((start, stop)) = kept {
        answer.copy_within(start..stop, end);
        answer.truncate(end + stop - start);
    } else {
        answer.truncate(end);
    }
    answer[2] |= 2;
    answer[3] &= 0xf0;
    answer[6..HEADER].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(kept.is_some())]);
}
