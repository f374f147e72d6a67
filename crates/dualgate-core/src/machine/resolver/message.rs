//! Messages between us and an upstream: what is asked, what of an answer is kept, and how it is told to an asker.
//!
//! An answer is kept as it came, so that its compressed names stay right; only the record OPT is cut off, and the times to
//! live are patched where they are.

use std::ops::Range;

use dualgate_wire::dns::cookie;

use crate::machine::dns;

/// The header's length (RFC 1035 4.1.1).
const HEADER: usize = 12;
/// The largest answer that we ask for by UDP, and that passes everywhere.
pub const SIZE: u16 = 1232;
/// Record types that matter here.
pub const A: u16 = 1;
/// See [`A`].
pub const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
/// See [`A`].
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
/// See [`A`].
pub const SVCB: u16 = 64;
/// See [`A`].
pub const HTTPS: u16 = 65;
/// The class of the Internet.
pub const IN: u16 = 1;
/// Response codes (RFC 1035 4.1.1).
pub const NOERROR: u8 = 0;
/// See [`NOERROR`].
pub const SERVFAIL: u8 = 2;
/// See [`NOERROR`].
pub const NXDOMAIN: u8 = 3;
/// The option that says more of an error (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// What somebody asks, and how they want to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name in wire form, in the letters that it was asked with.
    pub name: Box<[u8]>,
    /// The record type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// The asker's number of it.
    pub id: u16,
    /// Whether recursion is desired: said again in the answer.
    pub recursion: bool,
    /// Whether unvalidated answers are welcome (CD).
    pub checking_disabled: bool,
    /// Whether the asker speaks EDNS(0), and then whether it wants signatures (DO).
    pub edns: Option<DnssecOk>,
    /// The cookies of its answer (RFC 7873), if it has sent one.
    pub cookie: Option<[u8; cookie::LENGTH]>,
    /// The largest answer that it takes.
    pub limit: usize,
}

impl From<dns::Question> for Question {
    fn from(question: dns::Question) -> Self {
        let dnssec_ok = if question.dnssec_ok { DnssecOk::Yes } else { DnssecOk::No };
        Self {
            name: question.written,
            rtype: question.rtype.0,
            class: IN,
            id: question.id,
            recursion: true,
            checking_disabled: question.checking_disabled,
            edns: question.opt.map(|_| dnssec_ok),
            cookie: question.opt.and_then(|opt| opt.cookie),
            limit: question.limit,
        }
    }
}

/// Whether signatures are wanted (RFC 3225).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnssecOk {
    /// They are.
    Yes,
    /// They are not.
    No,
}

/// Why an answer is not what the upstream says now (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It is older than it may be, as nobody answers.
    Stale = 3,
    /// It pointed into the home network.
    Blocked = 15,
    /// No upstream answers.
    Unreachable = 22,
}

/// What an upstream answered, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The response code.
    pub code: u8,
    /// Whether the upstream has validated it (AD).
    authenticated: bool,
    /// The counts of answers, authorities and additional records.
    counts: [u16; 3],
    /// All octets, with the question; without OPT.
    octets: Box<[u8]>,
    /// Where the records begin.
    records: usize,
    /// Where a time to live is, and what it was.
    ttls: Box<[(u32, u32)]>,
    /// How long it may be kept, in seconds: nothing for what may not.
    pub ttl: u32,
}

impl Kept {
    /// An answer without records that nobody gave.
    pub fn made(code: u8, ttl: u32) -> Self {
        let (octets, ttls) = (Box::default(), Box::default());
        Self { code, authenticated: false, counts: [0; 3], octets, records: 0, ttls, ttl }
    }

    /// How many octets it takes to keep it.
    pub fn size(&self) -> usize {
        self.octets.len() + self.ttls.len() * 8 + size_of::<Self>()
    }

    /// The answer for an asker. Times to live are `age` seconds less; of a stale answer they are `stale`.
    pub fn answer(&self, question: &Question, age: u32, remark: Option<Remark>, into: &mut Vec<u8>) {
        let flags = Flags { truncated: false, authenticated: self.authenticated, code: self.code };
        head(question, flags, self.counts, remark, into);
        let body = into.len();
        into.extend_from_slice(&self.octets[self.records..]);
        for (at, ttl) in &self.ttls {
            let at = *at as usize - self.records + body;
            let left = if remark == Some(Remark::Stale) { STALE_TTL } else { ttl.saturating_sub(age) };
            if let Some(place) = into.get_mut(at..at + 4) {
                place.copy_from_slice(&left.to_be_bytes());
            }
        }
        finish(question, remark, into);
        if into.len() > question.limit {
            into.clear();
            head(question, Flags { truncated: true, ..flags }, [0; 3], remark, into);
            finish(question, remark, into);
        }
    }

    /// The records of these types among the answers: what an address is told with.
    pub fn data(&self, types: &[u16]) -> impl Iterator<Item = (u16, &[u8])> {
        let answers = Records { octets: &self.octets, at: self.records, left: usize::from(self.counts[0]) };
        let wanted = answers.filter_map(|record| record.filter(|record| types.contains(&record.rtype)));
        wanted.filter_map(|record| Some((record.rtype, self.octets.get(record.data)?)))
    }
}

/// What a stale answer says that it may be kept for (RFC 8767 4).
const STALE_TTL: u32 = 30;

#[derive(Clone, Copy)]
struct Flags {
    truncated: bool,
    authenticated: bool,
    code: u8,
}

/// Header and question.
fn head(question: &Question, flags: Flags, counts: [u16; 3], remark: Option<Remark>, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&question.id.to_be_bytes());
    let wants_signatures = question.edns == Some(DnssecOk::Yes);
    let first = 0x80 | u8::from(flags.truncated) << 1 | u8::from(question.recursion);
    let validated = flags.authenticated && wants_signatures && remark.is_none();
    let second = 0x80 | u8::from(validated) << 5 | u8::from(question.checking_disabled) << 4 | flags.code;
    into.extend_from_slice(&[first, second, 0, 1]);
    let additional = counts[2] + u16::from(question.edns.is_some());
    for count in [counts[0], counts[1], additional] {
        into.extend_from_slice(&count.to_be_bytes());
    }
    push_question(&question.name, question.rtype, question.class, into);
}

fn finish(question: &Question, remark: Option<Remark>, into: &mut Vec<u8>) {
    if let Some(dnssec_ok) = question.edns {
        push_opt(dnssec_ok, remark, question.cookie.as_ref(), into);
    }
}

fn push_question(name: &[u8], rtype: u16, class: u16, into: &mut Vec<u8>) {
    into.extend_from_slice(name);
    into.extend_from_slice(&rtype.to_be_bytes());
    into.extend_from_slice(&class.to_be_bytes());
}

/// RFC 6891 6.1.2.
fn push_opt(dnssec_ok: DnssecOk, remark: Option<Remark>, cookie: Option<&[u8; cookie::LENGTH]>, into: &mut Vec<u8>) {
    into.push(0);
    into.extend_from_slice(&OPT.to_be_bytes());
    into.extend_from_slice(&SIZE.to_be_bytes());
    into.extend_from_slice(&[0, 0, if dnssec_ok == DnssecOk::Yes { 0x80 } else { 0 }, 0]);
    let mut options = Vec::new();
    for (option, value) in [
        (cookie::OPTION, cookie.map(|cookie| cookie.to_vec())),
        (EXTENDED_ERROR, remark.map(|remark| (remark as u16).to_be_bytes().to_vec())),
    ] {
        if let Some(value) = value {
            options.extend_from_slice(&option.to_be_bytes());
            options.extend_from_slice(&(value.len() as u16).to_be_bytes());
            options.extend_from_slice(&value);
        }
    }
    into.extend_from_slice(&(options.len() as u16).to_be_bytes());
    into.extend_from_slice(&options);
}

/// What is asked of an upstream.
pub fn query(id: u16, name: &[u8], rtype: u16, class: u16, edns: (DnssecOk, bool)) -> Vec<u8> {
    let (dnssec_ok, checking_disabled) = edns;
    let mut query = Vec::with_capacity(HEADER + name.len() + 15);
    query.extend_from_slice(&id.to_be_bytes());
    query.extend_from_slice(&[1, u8::from(checking_disabled) << 4, 0, 1, 0, 0, 0, 0, 0, 1]);
    push_question(name, rtype, class, &mut query);
    push_opt(dnssec_ok, None, None, &mut query);
    query
}

/// What an upstream's message is for the question that it is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing that was asked for: somebody else's word.
    Foreign,
    /// It answers another spelling of the name: a resolver that does not keep letters, or somebody who guesses.
    OtherLetters,
    /// It is cut: TCP has the rest.
    Truncated,
    /// The upstream does not, or cannot, say.
    Refused,
    /// An answer.
    Answer(Kept),
}

/// Reads what came back for this question.
pub fn reply(message: &[u8], id: u16, name: &[u8], rtype: u16, class: u16) -> Reply {
    read(message, id, name, rtype, class).unwrap_or(Reply::Foreign)
}

fn read(message: &[u8], id: u16, name: &[u8], rtype: u16, class: u16) -> Option<Reply> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (is_response, opcode) = (header[2] & 0x80 != 0, header[2] >> 3 & 0xf);
    if number(0) != id || !is_response || opcode != 0 || number(4) != 1 {
        return None;
    }
    let asked = message.get(HEADER..HEADER + name.len())?;
    let records = HEADER + name.len() + 4;
    let kind = message.get(HEADER + name.len()..records)?;
    if !asked.eq_ignore_ascii_case(name) || kind[..2] != rtype.to_be_bytes() || kind[2..] != class.to_be_bytes() {
        return None;
    }
    if asked != name {
        return Some(Reply::OtherLetters);
    }
    if header[2] & 2 != 0 {
        return Some(Reply::Truncated);
    }
    let code = header[3] & 0xf;
    if code != NOERROR && code != NXDOMAIN {
        return Some(Reply::Refused);
    }
    let kept = keep(message, code, header[3] & 0x20 != 0, [number(6), number(8), number(10)], records, rtype);
    // A message that ends within a record is no answer; another upstream may have one.
    Some(kept.map_or(Reply::Refused, Reply::Answer))
}

fn keep(message: &[u8], code: u8, authenticated: bool, counts: [u16; 3], start: usize, rtype: u16) -> Option<Kept> {
    let (mut ttls, mut end, mut kept) = (Vec::new(), start, [0_u16; 3]);
    let (mut lowest, mut denial, mut is_answered) = (u32::MAX, None, false);
    'sections: for (section, count) in counts.into_iter().enumerate() {
        for record in (Records { octets: message, at: end, left: usize::from(count) }) {
            let record = record?;
            if record.rtype == OPT {
                // An extended code is an error of EDNS itself (RFC 6891 6.1.3). Records behind it only add.
                if section != 2 || record.ttl >> 24 != 0 {
                    return None;
                }
                break 'sections;
            }
            let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
            match section {
                0 => is_answered |= record.rtype == rtype || rtype == 255 && record.rtype != CNAME,
                1 if record.rtype == SOA => {
                    let minimum = message.get(record.data.clone())?.last_chunk::<4>()?;
                    denial = Some(ttl.min(u32::from_be_bytes(*minimum)));
                }
                _ => {}
            }
            lowest = lowest.min(ttl);
            ttls.push((u32::try_from(record.ttl_at).ok()?, ttl));
            (end, kept[section]) = (record.end, kept[section] + 1);
        }
    }
    // RFC 2308 5: a denial lasts as long as its SOA says, and without one only for who asked.
    let ttl = match (code, is_answered) {
        (NOERROR, true) => lowest.min(LONGEST),
        _ => denial.unwrap_or(0).min(lowest).min(LONGEST_DENIAL),
    };
    let (octets, ttls) = (message[..end].into(), ttls.into());
    Some(Kept { code, authenticated, counts: kept, octets, records: start, ttls, ttl })
}

/// Nothing is kept for longer than a day, and no denial for longer than an hour.
const LONGEST: u32 = 86_400;
/// See [`LONGEST`].
const LONGEST_DENIAL: u32 = 3_600;

/// A resource record by where it is.
struct Record {
    rtype: u16,
    ttl: u32,
    ttl_at: usize,
    data: Range<usize>,
    end: usize,
}

/// The records of a section. The last one is `None` where the message ends within it.
struct Records<'a> {
    octets: &'a [u8],
    at: usize,
    left: usize,
}

impl Iterator for Records<'_> {
    type Item = Option<Record>;

    fn next(&mut self) -> Option<Option<Record>> {
        self.left = self.left.checked_sub(1)?;
        let record = record(self.octets, self.at);
        match &record {
            Some(record) => self.at = record.end,
            None => self.left = 0,
        }
        Some(record)
    }
}

fn record(octets: &[u8], start: usize) -> Option<Record> {
    let fixed = name_end(octets, start)?;
    let head: &[u8; 10] = octets.get(fixed..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let data = fixed + 10..fixed + 10 + length;
    octets.get(data.clone())?;
    Some(Record {
        rtype: u16::from_be_bytes([head[0], head[1]]),
        ttl: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        ttl_at: fixed + 4,
        end: data.end,
        data,
    })
}

/// Where a name ends that begins here: a pointer ends it, wherever it leads.
fn name_end(octets: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xC0.. => return (at + 1 < octets.len()).then_some(at + 2),
            _ => return None,
        }
        if at - start > 255 {
            return None;
        }
    }
}
