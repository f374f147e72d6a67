//! Messages between us and an upstream: what is asked, what of an answer is kept, and how it is told to an asker.
//!
//! An answer is kept as it came, so that its compressed names stay right; only the record OPT is cut off, and the times to
//! live are patched where they are. Where it is only the end of a chain of names, its records are written out instead.

use dualgate_wire::dns::{
    Class, Flags, Full, HEADER, Name, Opt, Rcode, Record, RecordType, Section, UDP_LIMIT, Writer, records,
};

use super::Telling;
use crate::machine::dns::{Chain, MAX_CHAIN, Question};

/// Octets of the head of an option.
const OPTION: usize = 4;
/// The option that makes messages equally long (RFC 7830).
const PADDING: u16 = 12;
/// How long an encrypted question is: a multiple of this (RFC 8467 4.1).
const BLOCK: usize = 128;

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
    /// How it went: well, there is no such name, or nobody answered.
    pub code: Rcode,
    /// Whether the upstream has validated it (AD).
    pub authenticated: bool,
    /// How many answers, authorities and additional records there are, and where each part ends.
    sections: [(u16, usize); 3],
    /// All octets, with the question; without OPT.
    octets: Box<[u8]>,
    /// Where the records begin.
    start: usize,
    /// Where a time to live is, and what it was.
    ttls: Box<[(u32, u32)]>,
    /// How long it may be kept, in seconds: nothing for what may not.
    pub ttl: u32,
    /// How long all of it may be told.
    pub whole: u32,
    /// Through which names it leads, from the one that was asked for.
    aliases: Box<[Alias]>,
    /// How many of these lead to a name that is ours: where the chain began in our zones, what follows is for us to say.
    pub home: Option<usize>,
    /// Whether it tells an address of the home network, which is told to nobody.
    pub is_blocked: bool,
}

/// A CNAME.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    owner: Name,
    ttl: u32,
    target: Name,
}

impl Kept {
    /// An answer without records that nobody gave.
    pub fn made(code: Rcode, ttl: u32) -> Self {
        Self {
            code,
            authenticated: false,
            sections: [(0, 0); 3],
            octets: Box::default(),
            start: 0,
            ttls: Box::default(),
            ttl,
            whole: ttl,
            aliases: Box::default(),
            home: None,
            is_blocked: false,
        }
    }

    /// Somebody has kept it for so many seconds.
    pub fn grow_older(&mut self, age: u32) {
        let ttls = self.ttls.iter_mut().map(|(_, ttl)| ttl);
        let of_aliases = self.aliases.iter_mut().map(|alias| &mut alias.ttl);
        ttls.chain(of_aliases).chain([&mut self.ttl, &mut self.whole]).for_each(|ttl| *ttl = ttl.saturating_sub(age));
    }

    /// How many octets it takes to keep it.
    pub fn size(&self) -> usize {
        let names = self.aliases.iter().map(|alias| size_of::<Alias>() + 2 * alias.target.as_wire().len());
        self.octets.len() + self.ttls.len() * 8 + names.sum::<usize>() + size_of::<Self>()
    }

    /// How many of its aliases lead to the first name that is ours.
    pub fn leads_home(&self, is_ours: impl Fn(&Name) -> bool) -> Option<usize> {
        self.aliases.iter().position(|alias| is_ours(&alias.target)).map(|index| index + 1)
    }

    /// From so many of its aliases on it is for us to say, where the chain began with us: for that it may be kept as long as
    /// these say.
    pub fn ends_at_home(&mut self, aliases: usize) {
        self.home = Some(aliases);
        let of_aliases = self.aliases[..aliases].iter().map(|alias| alias.ttl).min().unwrap_or(0);
        self.ttl = self.ttl.max(of_aliases.min(LONGEST));
    }

    /// Adds so many of its aliases to a question's chain, which then asks for what the last one stands for.
    pub fn follow(&self, aliases: usize, telling: Telling, question: &mut Question) {
        for alias in &self.aliases[..aliases] {
            if question.chain.ends_at(alias.owner.as_wire()) {
                break;
            }
            question.chain.push(&alias.owner, telling.left(alias.ttl), &alias.target);
            question.name = alias.target.clone();
        }
    }

    /// The answer for an asker.
    pub fn answer(&self, question: &Question, telling: Telling, into: &mut Vec<u8>) {
        let remark = telling.remark;
        let opt = question.opt.map(|opt| Opt { error: remark.map(|remark| remark as u16), ..opt });
        let wants_signatures = opt.is_some_and(|opt| opt.dnssec_ok);
        let is_whole = question.chain.is_empty();
        let authenticated = self.authenticated && wants_signatures && remark.is_none() && is_whole;
        let mut flags = Flags { authenticated, ..question.flags() };
        let mut writer = Writer::new(into, &question.query(), question.limit, opt);
        let left = |ttl: u32| telling.left(ttl);
        let written = match (is_whole, self.code) {
            (true, _) => self.copy(&mut writer),
            // Nothing is said of a part only.
            (false, Rcode::ServFail) => Ok(()),
            (false, _) => self.write_out(&question.chain, left, &mut writer),
        };
        if written.is_err() {
            writer.truncate(question.written.len());
            flags.truncated = true;
        }
        writer.finish(flags, self.code);
        if is_whole && written.is_ok() {
            for (at, ttl) in &self.ttls {
                if let Some(place) = into.get_mut(*at as usize..*at as usize + 4) {
                    place.copy_from_slice(&left(*ttl).to_be_bytes());
                }
            }
        }
    }

    /// All of it, as it came: the question before it is as long as the one that it answered.
    fn copy(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let mut start = self.start;
        for (section, (count, end)) in SECTIONS.into_iter().zip(self.sections) {
            writer.raw(section, &self.octets[start..end], count)?;
            start = end;
        }
        Ok(())
    }

    /// The end of a chain: answers, and what says that there are none.
    fn write_out(&self, chain: &Chain, left: impl Fn(u32) -> u32, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.raw(Section::Answer, chain.octets(), chain.records())?;
        let mut octets = Vec::new();
        for record in self.records().filter(|record| record.section < 3) {
            octets.clear();
            // It was read when it was kept; what could not be is left out.
            if record.append_to(left(ttl(&record)), &mut octets).is_ok() {
                writer.raw(SECTIONS[usize::from(record.section) - 1], &octets, 1)?;
            }
        }
        Ok(())
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        records(&self.octets).into_iter().flatten().map_while(Result::ok)
    }

    /// The records of these types among the answers: what an address is told with.
    pub fn data(&self, types: &[RecordType]) -> impl Iterator<Item = (RecordType, &[u8])> {
        let answers = self.records().filter(|record| record.section == 1);
        answers.filter(|record| types.contains(&record.rtype)).map(|record| (record.rtype, record.data))
    }
}

const SECTIONS: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];

/// Whether a question is encrypted on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Its length tells something (RFC 8467).
    Padded,
    /// Who sees it reads it anyway.
    None,
}

/// What is asked of an upstream, and how.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The number of the message.
    pub id: u16,
    /// In the letters that are sent, in wire form.
    pub name: &'a [u8],
    /// Whether these letters are to come back.
    pub letters: Letters,
    /// The type.
    pub rtype: RecordType,
}

/// In which letters the name comes back in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// In those that nobody could guess.
    AsSent,
    /// In any: something else shows who answers, or nothing can.
    Any,
}

impl Asked<'_> {
    /// The message.
    pub fn message(&self, dnssec_ok: bool, checking_disabled: bool, padding: Padding) -> Vec<u8> {
        let mut query = Vec::with_capacity(BLOCK);
        query.extend_from_slice(&self.id.to_be_bytes());
        query.extend_from_slice(&[1, u8::from(checking_disabled) << 4, 0, 1, 0, 0, 0, 0, 0, 1]);
        query.extend_from_slice(self.name);
        query.extend_from_slice(&self.rtype.0.to_be_bytes());
        query.extend_from_slice(&Class::IN.0.to_be_bytes());
        // RFC 6891 6.1.2.
        query.push(0);
        query.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
        query.extend_from_slice(&(UDP_LIMIT as u16).to_be_bytes());
        query.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0]);
        match padding {
            Padding::None => query.extend_from_slice(&[0, 0]),
            Padding::Padded => {
                let padding = (query.len() + 2 + OPTION).next_multiple_of(BLOCK) - (query.len() + 2 + OPTION);
                query.extend_from_slice(&((OPTION + padding) as u16).to_be_bytes());
                query.extend_from_slice(&PADDING.to_be_bytes());
                query.extend_from_slice(&(padding as u16).to_be_bytes());
                query.resize(query.len() + padding, 0);
            }
        }
        query
    }

    /// Reads what came back.
    pub fn reply(&self, message: &[u8]) -> Reply {
        self.read(message).unwrap_or(Reply::Foreign)
    }

    fn read(&self, message: &[u8]) -> Option<Reply> {
        let header: &[u8; HEADER] = message.first_chunk()?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (is_response, opcode) = (header[2] & 0x80 != 0, header[2] >> 3 & 0xf);
        if number(0) != self.id || !is_response || opcode != 0 || number(4) != 1 {
            return None;
        }
        let asked = message.get(HEADER..HEADER + self.name.len())?;
        let start = HEADER + self.name.len() + 4;
        let kind = message.get(HEADER + self.name.len()..start)?;
        let is_kind = kind[..2] == self.rtype.0.to_be_bytes() && kind[2..] == Class::IN.0.to_be_bytes();
        if !asked.eq_ignore_ascii_case(self.name) || !is_kind {
            return None;
        }
        if self.letters == Letters::AsSent && asked != self.name {
            return Some(Reply::OtherLetters);
        }
        if header[2] & 2 != 0 {
            return Some(Reply::Truncated);
        }
        let code = match header[3] & 0xf {
            0 => Rcode::NoError,
            3 => Rcode::NxDomain,
            _ => return Some(Reply::Refused),
        };
        // A message that ends within a record is no answer; another upstream may have one.
        Some(self.keep(message, code, start).map_or(Reply::Refused, Reply::Answer))
    }

    fn keep(&self, message: &[u8], code: Rcode, start: usize) -> Option<Kept> {
        let (mut ttls, mut end, mut sections) = (Vec::new(), start, [(0_u16, start); 3]);
        let (mut lowest, mut denial, mut is_answered) = (u32::MAX, None, false);
        for record in records(message).ok()? {
            let record = record.ok()?;
            let (section, rtype) = (usize::from(record.section) - 1, record.rtype);
            if rtype == RecordType::OPT {
                // An extended code is an error of EDNS itself (RFC 6891 6.1.3). Records behind it only add.
                if section != 2 || record.ttl >> 24 != 0 {
                    return None;
                }
                break;
            }
            let ttl = ttl(&record);
            match section {
                0 => {
                    let is_any = self.rtype == RecordType::ANY && rtype != RecordType::CNAME;
                    is_answered |= rtype == self.rtype || is_any;
                }
                1 if rtype == RecordType::SOA => {
                    denial = Some(ttl.min(u32::from_be_bytes(*record.data.last_chunk::<4>()?)));
                }
                _ => {}
            }
            lowest = lowest.min(ttl);
            ttls.push((u32::try_from(record.ttl_at).ok()?, ttl));
            end = record.data_at + record.data.len();
            sections[section].0 += 1;
            sections[section..].iter_mut().for_each(|(_, until)| *until = end);
        }
        // RFC 2308 5: a denial lasts as long as its SOA says, and without one only for who asked.
        let ttl = match (code, is_answered) {
            (Rcode::NoError, true) => lowest.min(LONGEST),
            _ => denial.unwrap_or(0).min(lowest).min(LONGEST_DENIAL),
        };
        Some(Kept {
            code,
            authenticated: message[3] & 0x20 != 0,
            sections,
            octets: message[..end].into(),
            start,
            ttls: ttls.into(),
            ttl,
            whole: ttl,
            aliases: self.aliases(message),
            home: None,
            is_blocked: false,
        })
    }

    /// The names that the answer leads through, from the one that was asked for.
    fn aliases(&self, message: &[u8]) -> Box<[Alias]> {
        let all = records(message).into_iter().flatten().map_while(Result::ok);
        let aliases = all.filter(|record| record.section == 1 && record.rtype == RecordType::CNAME);
        let read = aliases.take(MAX_CHAIN).filter_map(|record| {
            let mut alone = Vec::new();
            record.append_to(0, &mut alone).ok()?;
            let owner = record.name().ok()?;
            let target = Name::from_wire(alone.get(owner.as_wire().len() + FIXED..)?)?;
            Some(Alias { owner, ttl: ttl(&record), target })
        });
        let mut unordered: Vec<Alias> = read.collect();
        let mut ordered = Vec::new();
        // Whoever asks for a CNAME wants that, and not what it stands for.
        let mut next = (self.rtype != RecordType::CNAME).then(|| Name::from_wire(self.name)).flatten();
        while let Some(name) = next {
            let at = unordered.iter().position(|alias| alias.owner == name);
            next = at.map(|at| {
                ordered.push(unordered.swap_remove(at));
                ordered[ordered.len() - 1].target.clone()
            });
        }
        ordered.into()
    }
}

/// Type, class, time to live and length of a record.
const FIXED: usize = 10;

/// RFC 2181 8: what would be negative is nothing.
fn ttl(record: &Record<'_>) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
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

/// Nothing is kept for longer than a day, and no denial for longer than an hour.
const LONGEST: u32 = 86_400;
/// See [`LONGEST`].
const LONGEST_DENIAL: u32 = 3_600;
