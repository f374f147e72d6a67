//! Answers to questions, as text: a site, objects, and what a node answers octet by octet. What comes back is read by
//! `domain`, which nobody here wrote.
//!
//! A case is an ordinary one (`core/src/case.rs`) with a section `== dns`, which may name families (`== dns v4`):
//!
//! ```text
//! assign apps/grafana 192.168.178.11 fda8:a1db:5685::11
//! ? grafana.example.org A @home1
//! NOERROR aa
//! grafana.example.org 60 A 192.168.178.10
//! authority example.org 60 SOA ...
//! ```
//!
//! `cookie=HEX` sends what it says as the option COOKIE, `cookie=HEX@AGE` a client cookie with the server cookie that was made
//! for it so many seconds ago; then the answer's cookies are shown, and whether they have proven who asks.
//!
//! After the node: `from=ADDRESS`, `tcp`, `size=N` (EDNS(0)), `do`, `norec`, `class=N`, `edns=VERSION`. `-> forward` and
//! `-> silence` stand for the verdicts without an answer.
//!
//! `silent NODE` is an edge that home does not hear. Where a case says what others know (`elsewhere NAME TTL TYPE DATA`), they are asked, and what the client hears is written
//! there; `asked NAME` is a question to them.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use domain::base::iana::{Class, OptionCode};
use domain::base::opt::Cookie;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::AllRecordData;
use dualgate_core::case::{Case, Families};
use dualgate_core::machine::dns::{Responder, Transport, Verdict};
use dualgate_core::model::snapshot::Facts;
use dualgate_core::model::{NodeName, ObjectName, Snapshot};
use dualgate_core::plan::{self, public};
use dualgate_wire::dns::cookie::{Asked, CookieSecret};

#[path = "dns/elsewhere.rs"]
mod elsewhere;
#[path = "dns/properties.rs"]
mod properties;

use elsewhere::Elsewhere;

/// In seconds since 1970.
const NOW: u64 = 1_795_305_600;
const SECRET: CookieSecret = CookieSecret { current: [7; 16], previous: None };

/// A case with its questions.
struct Script {
    snapshot: Snapshot,
    elsewhere: Elsewhere,
    questions: Vec<(String, Vec<String>)>,
}

fn script(path: &Path) -> Script {
    let text = fs::read_to_string(path).unwrap();
    let (case, dns) = text.split_once("\n== dns").unwrap_or_else(|| panic!("{}: no `== dns`", path.display()));
    let (families, lines) = dns.split_once('\n').unwrap();
    let families = match families.trim() {
        "" => Families::Both,
        "v4" => Families::V4,
        "v6" => Families::V6,
        other => panic!("{}: `{other}` are no families", path.display()),
    };
    let mut snapshot = Case::parse("dns", case).unwrap().snapshot(families).unwrap();
    let mut questions: Vec<(String, Vec<String>)> = Vec::new();
    let (mut assigned, mut elsewhere) = (Vec::new(), Elsewhere::default());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(words) = line.strip_prefix("assign ") {
            let mut words = words.split_whitespace();
            let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
            let addresses = words.map(|word| word.parse().unwrap()).collect();
            assigned.push((ObjectName::new(namespace, name), addresses));
        } else if let Some(edge) = line.strip_prefix("silent ") {
            Arc::make_mut(&mut snapshot.facts.silent_edges).insert(NodeName::new(edge));
        } else if let Some(record) = line.strip_prefix("elsewhere ") {
            elsewhere.add(record);
        } else if let Some(question) = line.strip_prefix("? ") {
            questions.push((question.to_owned(), Vec::new()));
        } else {
            questions.last_mut().expect("an answer follows a question").1.push(line.to_owned());
        }
    }
    snapshot.facts.assigned = Arc::new(assigned.into_iter().collect());
    Script { snapshot, elsewhere, questions }
}

/// What a node says to a question of a case.
fn ask(snapshot: &Snapshot, elsewhere: &Elsewhere, question: &str) -> Vec<String> {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [name, rtype, node, options @ ..] = words.as_slice() else { panic!("{question}") };
    let node = NodeName::new(node.strip_prefix('@').expect("@NODE"));
    let option = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
    let number = |key: &str| option(key).map(|text| text.parse::<u16>().unwrap());
    let from: IpAddr = option("from=").unwrap_or("192.168.178.50").parse().unwrap();
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(!options.contains(&"norec"));
    let class = Class::from_int(number("class=").unwrap_or(1));
    builder.push((name.parse::<Name<Vec<u8>>>().unwrap(), rtype.parse::<Rtype>().unwrap(), class)).unwrap();
    let mut builder = builder.additional();
    let cookie = option("cookie=").map(|cookie| sent(cookie, from));
    if option("size=").is_some() || option("edns=").is_some() || cookie.is_some() || options.contains(&"do") {
        builder
            .opt(|opt| {
                opt.set_udp_payload_size(number("size=").unwrap_or(1232));
                opt.set_version(number("edns=").unwrap_or(0) as u8);
                opt.set_dnssec_ok(options.contains(&"do"));
                match &cookie {
                    Some(cookie) => opt.push_raw_option(OptionCode::COOKIE, cookie.len() as u16, |to| {
                        to.extend_from_slice(cookie);
                        Ok(())
                    }),
                    None => Ok(()),
                }
            })
            .unwrap();
    }
    let over = if options.contains(&"tcp") { Transport::Tcp } else { Transport::Udp };
    let responder = Responder::new(&plan::node(&known_to(snapshot, &node), &node).dns);
    let mut answer = Vec::new();
    match responder.answer(&builder.finish(), from, over, &SECRET, NOW, &mut answer) {
        Verdict::Answer { asker, .. } if cookie.is_some() => {
            shown(&answer).into_iter().chain(cookies(&answer)).chain([format!("asker {asker:?}")]).collect()
        }
        Verdict::Answer { .. } => shown(&answer),
        Verdict::Silence => vec!["-> silence".to_owned()],
        Verdict::Forward(_) if elsewhere.0.is_empty() => vec!["-> forward".to_owned()],
        Verdict::Forward(question) => elsewhere.resolve(responder, question),
    }
}

/// An edge knows what home tells it, and hears no other edge.
fn known_to(snapshot: &Snapshot, node: &NodeName) -> Snapshot {
    if snapshot.site.tunnel.is_none() || !snapshot.site.node(node).is_some_and(|node| node.is_edge()) {
        return snapshot.clone();
    }
    let objects = Arc::new(public::public(snapshot, node));
    let facts = Facts { silent_edges: Arc::default(), ..snapshot.facts.clone() };
    Snapshot { objects, facts, ..snapshot.clone() }
}

/// What an asker sends as its cookies.
fn sent(cookie: &str, from: IpAddr) -> Vec<u8> {
    let (hex, age) = cookie.split_once('@').map_or((cookie, None), |(hex, age)| (hex, Some(age)));
    let client: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let Some(age) = age else { return client };
    let made = NOW as u32 - age.parse::<u32>().unwrap();
    let asked = Asked { client: client.as_slice().try_into().unwrap(), server: &[] };
    SECRET.answer(asked, from, made).1.to_vec()
}

/// The cookies of an answer: the client's, and how old the server's is.
fn cookies(answer: &[u8]) -> Option<String> {
    let message = Message::from_octets(answer).unwrap();
    let opt = message.opt()?;
    let cookie = opt.opt().iter::<Cookie>().next()?.unwrap();
    let server: &[u8] = cookie.server()?.as_ref();
    let made = u32::from_be_bytes(server[4..8].try_into().unwrap());
    Some(format!("cookie {} made {} s ago", cookie.client(), NOW as u32 - made))
}

/// An answer as `domain` reads it.
fn shown(answer: &[u8]) -> Vec<String> {
    let message = Message::from_octets(answer).expect("a header");
    let header = message.header();
    assert!(header.qr() && header.id() == 4711);
    let flags = [(header.aa(), " aa"), (header.tc(), " tc"), (header.ra(), " ra"), (header.ad(), " ad")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
    let rcode = message.opt_rcode();
    let mut lines = vec![format!("{rcode}{flags}")];
    let (answers, authority, additional) =
        (message.answer().unwrap(), message.authority().unwrap(), message.additional().unwrap());
    for (section, prefix) in [(answers, ""), (authority, "authority "), (additional, "additional ")] {
        for record in section.limit_to::<AllRecordData<_, _>>() {
            let record = record.expect("a record that can be read");
            match record.data() {
                AllRecordData::Opt(opt) => {
                    let options = opt.iter::<domain::base::opt::AllOptData<_, _>>().count();
                    lines.push(format!("opt do={} options={options}", message.opt().unwrap().dnssec_ok()));
                }
                data => lines.push(format!(
                    "{prefix}{} {} {} {data}",
                    record.owner(),
                    record.ttl().as_secs(),
                    record.rtype()
                )),
            }
        }
    }
    lines
}

#[test]
fn every_question_of_the_cases_gets_the_answer_that_is_written_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/dns");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = Vec::new();
    for path in paths {
        let script = script(&path);
        assert!(!script.questions.is_empty(), "{}", path.display());
        for (question, expected) in &script.questions {
            let found = ask(&script.snapshot, &script.elsewhere, question);
            if found.iter().map(|line| line.trim_end()).ne(expected) {
                let name = path.file_name().unwrap().display();
                wrong.push(format!("{name}\n? {question}\n{}\n", found.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
