//! Answers questions from a plan: octets in, octets out, nothing else.
//!
//! All that can be said of a name is encoded when the plan is taken over; an answer is one look-up by hash and a few
//! copies, and allocates nothing. What is not ours is handed on for clients at home, and refused for everybody else.
//!
//! Sources: RFC 1034 4.3.2 (the algorithm), RFC 2308 (what is not there), RFC 4592 (wildcards), RFC 6891 (EDNS), RFC 7873
//! (cookies), RFC 8020 (nothing below a name that does not exist), RFC 8482 (ANY), RFC 9460 (HTTPS).

mod chain;
pub mod rate;
mod table;

use std::net::IpAddr;

use dualgate_wire::dns::cookie::{Asker, CookieSecret};
use dualgate_wire::dns::{
    Class, Flags, Full, HEADER, Name, Opt, PLAIN_UDP_LIMIT, QUESTION, Query, Rcode, RecordType, Section, UDP_LIMIT,
    Unreadable, Writer, failure, lower,
};

use crate::plan::dns::{DnsPlan, ResolverPlan, View};
pub use chain::{Chain, MAX_CHAIN};
use table::{Found, Kind, Node, Table, ZoneEntry};

const MAX_TCP: usize = 65_535;

/// What a node answers, made from its plan once. Immutable: threads share it.
#[derive(Debug, Default)]
pub struct Responder {
    table: Table,
    view: View,
    /// Whose other questions are handed on, and to whom; the empty one hands on nobody's.
    resolver: ResolverPlan,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// Over a connection: who asks is who it says.
    Tcp,
}

/// What is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Answer {
        /// How.
        of: Outcome,
        /// Whether the asker has shown that its address is its own: then no limit of rate applies.
        asker: Asker,
        /// What it is about, for [`rate::Limiter`]: names that do not exist are all one.
        name_hash: u64,
    },
    /// Nothing is sent.
    Silence,
    /// Others are asked.
    Forward(Question),
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// With records.
    NoError,
    /// The name is there, the type is not.
    NoData,
    /// There is no such name.
    NxDomain,
    /// With the servers of a part of the zone that is elsewhere.
    Referral,
    /// It is not answered for this asker.
    Refused,
    /// It cannot be read.
    FormErr,
    /// It is not done here.
    NotImp,
    /// An unknown version of EDNS.
    BadVers,
    /// It did not fit: ask over TCP.
    Truncated,
}

impl Outcome {
    /// Every one with its word in metrics.
    pub const WORDS: [(&'static str, Self); 9] = [
        ("noerror", Self::NoError),
        ("nodata", Self::NoData),
        ("nxdomain", Self::NxDomain),
        ("referral", Self::Referral),
        ("refused", Self::Refused),
        ("formerr", Self::FormErr),
        ("notimp", Self::NotImp),
        ("badvers", Self::BadVers),
        ("truncated", Self::Truncated),
    ];
}

/// A question that others are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The number of the client's message.
    pub id: u16,
    /// The name that others are asked about, in small letters: the client's, or what that stands for.
    pub name: Name,
    /// The client's name in wire form as it was written: so it goes back.
    pub written: Box<[u8]>,
    /// How the one led to the other.
    pub chain: Chain,
    /// The type.
    pub rtype: RecordType,
    /// Whether the client validates signatures itself.
    pub checking_disabled: bool,
    /// What the answer says by EDNS(0); `None` if the client does not speak it.
    pub opt: Option<Opt>,
    /// How large the answer may be.
    pub limit: usize,
}

impl Question {
    /// As it stands at the beginning of its answer.
    pub fn query(&self) -> Query<'_> {
        Query {
            id: self.id,
            recursion_desired: true,
            checking_disabled: self.checking_disabled,
            name: &self.written,
            rtype: self.rtype,
            class: Class::IN,
            edns: None,
        }
    }

    /// What its answer says of itself.
    pub fn flags(&self) -> Flags {
        Flags {
            authoritative: self.chain.is_authoritative(),
            recursion_available: true,
            checking_disabled: self.checking_disabled,
            ..Flags::default()
        }
    }
}

/// One question while it is answered.
struct Asked<'q> {
    query: Query<'q>,
    opt: Option<Opt>,
    asker: Asker,
    limit: usize,
    flags: Flags,
    /// Whether others are asked for this asker.
    forwards: bool,
}

impl Responder {
    /// Encodes a plan.
    pub fn new(plan: &DnsPlan) -> Self {
        Self::default().followed_by(plan)
    }

    /// The one for another plan; what did not change is not encoded again.
    pub fn followed_by(&self, plan: &DnsPlan) -> Self {
        let resolver = plan.resolver.clone().unwrap_or_default();
        Self { table: Table::new(&plan.zones, &self.table), view: plan.view, resolver }
    }

    /// Whom it answers.
    pub fn view(&self) -> View {
        self.view
    }

    /// Whom it hands questions on to.
    pub fn resolver(&self) -> &ResolverPlan {
        &self.resolver
    }

    /// Whether what is said of a name is ours to say.
    pub fn is_ours(&self, name: &Name, rtype: RecordType) -> bool {
        match self.table.find(name.as_wire(), rtype) {
            Found::Node(_) | Found::Wildcard(_) | Found::Missing(_) => true,
            Found::Cut(_) | Found::Outside => false,
        }
    }

    /// Goes on with a question whose chain has come back to a name of ours. [`Verdict::Forward`] if it leads out again.
    pub fn resume(&self, question: &Question, answer: &mut Vec<u8>) -> Verdict {
        let (query, opt, flags) = (question.query(), question.opt, question.flags());
        let asked = Asked { query, opt, asker: Asker::Proven, limit: question.limit, flags, forwards: true };
        let (chain, name) = (&question.chain, question.name.as_wire());
        let mut writer = asked.writer(answer);
        let began = writer.raw(Section::Answer, chain.octets(), chain.records());
        // The target of the last record is written out.
        let owner = 0xc000 | (writer.len() - name.len()) as u16;
        let answering = Answering { table: &self.table, asked: &asked, writer, chain };
        match began {
            Err(Full) => answering.finish(Err(Full), flags, 0),
            Ok(_) if chain.ends_at(name) => answering.finish(Ok(Step::Follow(name, owner)), flags, 0),
            Ok(_) => answering.run(name, owner, self.table.find(name, question.rtype), flags),
        }
    }

    /// Answers one message; `answer` is overwritten, and grows only until it has had its largest answer. `now_seconds`
    /// since 1970, for cookies.
    pub fn answer(
        &self,
        message: &[u8],
        from: IpAddr,
        over: Transport,
        secret: &CookieSecret,
        now_seconds: u64,
        answer: &mut Vec<u8>,
    ) -> Verdict {
        answer.clear();
        let proven = match over {
            Transport::Udp => Asker::Unproven,
            Transport::Tcp => Asker::Proven,
        };
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Unreadable::Silence) => return Verdict::Silence,
            Err(Unreadable::Malformed) => {
                failure(message, Rcode::FormErr, answer);
                return Verdict::Answer { of: Outcome::FormErr, asker: proven, name_hash: 0 };
            }
            Err(Unreadable::Unknown) => {
                failure(message, Rcode::NotImp, answer);
                return Verdict::Answer { of: Outcome::NotImp, asker: proven, name_hash: 0 };
            }
        };
        let (mut asker, mut opt) = (proven, None);
        let mut limit = match over {
            Transport::Udp => PLAIN_UDP_LIMIT,
            Transport::Tcp => MAX_TCP,
        };
        if let Some(edns) = query.edns {
            let cookie = edns.cookie.map(|asked| secret.answer(asked, from, now_seconds as u32));
            if let Some((Asker::Proven, _)) = cookie {
                asker = Asker::Proven;
            }
            opt = Some(Opt { dnssec_ok: edns.dnssec_ok, cookie: cookie.map(|(_, cookie)| cookie), error: None });
            limit = limit.max(usize::from(edns.size).min(UDP_LIMIT));
        }
        let is_client = self.resolver.clients.iter().any(|net| net.contains(&from.to_canonical()));
        let flags = Flags { recursion_available: is_client, ..Flags::default() };
        let forwards = is_client && query.recursion_desired;
        self.judge(&Asked { query, opt, asker, limit, flags, forwards }, answer)
    }

    fn judge(&self, asked: &Asked<'_>, answer: &mut Vec<u8>) -> Verdict {
        let query = &asked.query;
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return asked.fail(Rcode::BadVers, Outcome::BadVers, answer);
        }
        if query.class != Class::IN {
            return asked.fail(Rcode::Refused, Outcome::Refused, answer);
        }
        match query.rtype {
            RecordType::AXFR | RecordType::IXFR => return asked.fail(Rcode::Refused, Outcome::Refused, answer),
            RecordType::OPT | RecordType(0) => return asked.fail(Rcode::FormErr, Outcome::FormErr, answer),
            // RFC 6895 3.1: types of questions and of messages.
            RecordType(128..=250 | 253 | 254) => return asked.fail(Rcode::NotImp, Outcome::NotImp, answer),
            RecordType(_) => {}
        }
        let mut buffer = [0; 255];
        let name = lower(query.name, &mut buffer);
        match self.table.find(name, query.rtype) {
            Found::Outside | Found::Cut(_) if asked.forwards => {
                Verdict::Forward(asked.question(name, Chain::default()))
            }
            Found::Outside => asked.fail(Rcode::Refused, Outcome::Refused, answer),
            found => {
                let flags = Flags { authoritative: !matches!(found, Found::Cut(_)), ..asked.flags };
                let (writer, chain) = (asked.writer(answer), &Chain::default());
                Answering { table: &self.table, asked, writer, chain }.run(name, QUESTION, found, flags)
            }
        }
    }
}

impl Asked<'_> {
    fn writer<'b>(&self, answer: &'b mut Vec<u8>) -> Writer<'b> {
        Writer::new(answer, &self.query, self.limit, self.opt)
    }

    fn fail(&self, rcode: Rcode, of: Outcome, answer: &mut Vec<u8>) -> Verdict {
        self.writer(answer).finish(self.flags, rcode);
        Verdict::Answer { of, asker: self.asker, name_hash: 0 }
    }

    fn question(&self, name: &[u8], chain: Chain) -> Question {
        Question {
            id: self.query.id,
            name: Name::from_wire(name).unwrap_or_else(Name::root),
            written: self.query.name.into(),
            chain,
            rtype: self.query.rtype,
            checking_disabled: self.query.checking_disabled,
            opt: self.opt,
            limit: self.limit,
        }
    }
}

/// An answer from our zones while it is written.
struct Answering<'r, 'a, 'q, 'b> {
    table: &'r Table,
    asked: &'a Asked<'q>,
    writer: Writer<'b>,
    /// What others had to say before.
    chain: &'a Chain,
}

/// Where an answer has come to.
enum Step<'r> {
    /// It is whole.
    Done(Outcome, Rcode),
    /// It goes on at the name that a CNAME stands for: its wire form, and where it stands in the message.
    Follow(&'r [u8], u16),
}

impl<'r> Answering<'r, '_, '_, '_> {
    fn run(mut self, name: &[u8], owner: u16, found: Found<'r>, flags: Flags) -> Verdict {
        let name_hash = match &found {
            Found::Node(node) | Found::Wildcard(node) | Found::Cut(node) => node.hash,
            Found::Missing(zone) => zone.hash,
            Found::Outside => 0,
        };
        let mut step = self.step(name, owner, found);
        let (mut passed, mut names) = ([name_hash; MAX_CHAIN], [name; MAX_CHAIN]);
        for count in 1..MAX_CHAIN {
            let Ok(Step::Follow(target, owner)) = step else { break };
            let found = self.table.find(target, self.asked.query.rtype);
            match &found {
                Found::Outside | Found::Cut(_) if self.asked.forwards => {
                    return self.forward(target, &names[..count], flags);
                }
                // It is asked for by the client.
                Found::Outside | Found::Cut(_) => break,
                Found::Node(node) | Found::Wildcard(node) if passed[..count].contains(&node.hash) => break,
                Found::Node(_) | Found::Wildcard(_) if self.chain.ends_at(target) => break,
                Found::Node(node) | Found::Wildcard(node) => (passed[count], names[count]) = (node.hash, target),
                Found::Missing(_) => {}
            }
            step = self.step(target, owner, found);
        }
        self.finish(step, flags, name_hash)
    }

    /// Others are asked what a name of ours stands for, unless it leads in a circle.
    fn forward(self, target: &[u8], names: &[&[u8]], flags: Flags) -> Verdict {
        let names = names.iter().filter_map(|name| Name::from_wire(name));
        let passed = self.chain.passed().iter().cloned().chain(names).collect();
        let records = self.writer.octets().get(HEADER + self.asked.query.name.len() + 4..).unwrap_or_default();
        let chain = Chain::ours(records, passed, flags.authoritative);
        match chain.ends_at(target) {
            true => self.finish(Ok(Step::Follow(&[], 0)), flags, 0),
            false => Verdict::Forward(self.asked.question(target, chain)),
        }
    }

    fn finish(mut self, step: Result<Step<'_>, Full>, mut flags: Flags, name_hash: u64) -> Verdict {
        let (of, rcode) = match step {
            Ok(Step::Done(of, rcode)) => (of, rcode),
            Ok(Step::Follow(..)) => (Outcome::NoError, Rcode::NoError),
            Err(Full) => {
                self.writer.truncate(self.asked.query.name.len());
                flags.truncated = true;
                (Outcome::Truncated, Rcode::NoError)
            }
        };
        self.writer.finish(flags, rcode);
        Verdict::Answer { of, asker: self.asked.asker, name_hash }
    }

    /// What is said of one name; `owner` points to where it stands in the message.
    fn step(&mut self, name: &[u8], owner: u16, found: Found<'r>) -> Result<Step<'r>, Full> {
        match found {
            Found::Node(node) | Found::Wildcard(node) => self.node(name, owner, node),
            Found::Cut(node) => self.referral(name, owner, node),
            Found::Missing(zone) => {
                self.nothing(name, owner, zone)?;
                Ok(Step::Done(Outcome::NxDomain, Rcode::NxDomain))
            }
            Found::Outside => Ok(Step::Done(Outcome::Refused, Rcode::Refused)),
        }
    }

    fn node(&mut self, name: &[u8], owner: u16, node: &'r Node) -> Result<Step<'r>, Full> {
        let rtype = self.asked.query.rtype;
        let zone = self.table.zone(node, name, rtype);
        if rtype == RecordType::ANY {
            // RFC 8482 4.1: one set of records is enough of an answer.
            return match self.table.sets(node).first() {
                Some(set) => {
                    self.writer.set(Section::Answer, owner, self.table.octets(set.at), set.records)?;
                    Ok(Step::Done(Outcome::NoError, Rcode::NoError))
                }
                None => self.no_data(name, owner, zone),
            };
        }
        if let Some(set) = self.table.set(node, rtype) {
            self.writer.set(Section::Answer, owner, self.table.octets(set.at), set.records)?;
            if rtype == RecordType::NS {
                self.glue(node);
            }
            return Ok(Step::Done(Outcome::NoError, Rcode::NoError));
        }
        let Some(set) = self.table.set(node, RecordType::CNAME) else { return self.no_data(name, owner, zone) };
        let octets = self.table.octets(set.at);
        let at = self.writer.len() + octets.len() - set.target_length();
        self.writer.set(Section::Answer, owner, octets, set.records)?;
        Ok(Step::Follow(&octets[octets.len() - set.target_length()..], 0xc000 | at as u16))
    }

    fn no_data(&mut self, name: &[u8], owner: u16, zone: &ZoneEntry) -> Result<Step<'r>, Full> {
        self.nothing(name, owner, zone)?;
        Ok(Step::Done(Outcome::NoData, Rcode::NoError))
    }

    /// The start of the zone says for how long something is not there.
    fn nothing(&mut self, name: &[u8], owner: u16, zone: &ZoneEntry) -> Result<(), Full> {
        let apex = owner + (name.len() - zone.apex_length) as u16;
        self.writer.set(Section::Authority, apex, self.table.octets(zone.negative), 1)
    }

    /// RFC 1034 4.3.2, 3b: who knows instead.
    fn referral(&mut self, name: &[u8], owner: u16, node: &'r Node) -> Result<Step<'r>, Full> {
        if let Some(set) = self.table.set(node, RecordType::NS) {
            let cut = owner + (name.len() - node.length()) as u16;
            self.writer.set(Section::Authority, cut, self.table.octets(set.at), set.records)?;
            // RFC 9471: without its glue a referral is not whole.
            match node.kind {
                Kind::Cut { glue, records } => {
                    self.writer.raw(Section::Additional, self.table.octets(glue), records)?;
                }
                Kind::Apex { .. } | Kind::Plain => {}
            }
        }
        Ok(Step::Done(Outcome::Referral, Rcode::NoError))
    }

    /// The addresses of the zone's own servers, where there is room.
    fn glue(&mut self, node: &Node) {
        match node.kind {
            Kind::Apex { glue, records } => {
                // Where there is none, the client asks for them.
                let (Ok(_) | Err(Full)) = self.writer.raw(Section::Additional, self.table.octets(glue), records);
            }
            Kind::Cut { .. } | Kind::Plain => {}
        }
    }
}

const _: () = assert!(QUESTION as usize == 0xc000 | HEADER);
