//! What holds for any message to a resolver: the target `dns` in `fuzz/`.

use std::net::IpAddr;
use std::sync::LazyLock;

use dualgate_core::case::{Case, Families};
use dualgate_core::machine::dns::{Question, Responder, Transport, Verdict};
use dualgate_core::model::NodeName;
use dualgate_core::plan;
use dualgate_wire::dns::cookie::CookieSecret;
use dualgate_wire::dns::{Rdata, RecordType, records, slip};

const CASE: &str = "\
== site
dns:
  public: true
  forward: [192.168.178.1]
  zones:
  - name: example.org
    publish: edge
    records:
    - {name: '*.w', type: TXT, value: wild}
    - {name: a, type: CNAME, value: b.example.org}
    - {name: b, type: CNAME, value: a.example.org}
    - {name: x.y, type: MX, value: 1 a.example.org}
    - {name: out, type: CNAME, value: www.example.net}
    - {name: sub, type: NS, value: ns.sub.example.org}
    - {name: ns.sub, type: A, value: 198.51.100.1}
  - {name: provided.example, publish: 'provider:desec'}
";

static RESPONDERS: LazyLock<Vec<Responder>> = LazyLock::new(|| {
    let snapshot = Case::parse("fuzz", CASE).unwrap().snapshot(Families::Both).unwrap();
    ["home1", "edge"].map(|node| Responder::new(&plan::node(&snapshot, &NodeName::new(node)).dns)).into()
});

const SECRET: CookieSecret = CookieSecret { current: [7; 16], previous: Some([8; 16]) };

/// Whatever is asked of others: should it lead to a name of ours, the answer can be walked, too.
fn come_back(responder: &Responder, mut question: Question) {
    assert!(!question.chain.is_empty() || question.name.as_wire().len() == question.written.len());
    for target in ["a.example.org", "x.y.example.org", "none.example.org", "out.example.org"] {
        let target = target.parse().unwrap();
        question.chain.push(&question.name, 60, &target);
        question.name = target;
        let mut answer = Vec::new();
        match responder.resume(&question, &mut answer) {
            Verdict::Answer { .. } => {
                assert!(answer.len() <= question.limit);
                records(&answer).unwrap().for_each(|record| drop(record.unwrap().name().unwrap()));
            }
            Verdict::Forward(_) => {}
            Verdict::Silence => panic!("a question has an answer"),
        }
    }
}

/// Nothing panics; every answer can be walked, has the number of its question and no more octets than it may.
pub fn check(message: &[u8]) {
    for responder in RESPONDERS.iter() {
        for from in ["192.168.178.50", "2001:db8::1"] {
            let from: IpAddr = from.parse().unwrap();
            for over in [Transport::Udp, Transport::Tcp] {
                let mut answer = Vec::new();
                match responder.answer(message, from, over, &SECRET, 1_795_305_600, &mut answer) {
                    Verdict::Answer { .. } => {
                        assert!(answer[..2] == message[..2] && answer[2] & 0x80 != 0);
                        assert!(over == Transport::Tcp || answer.len() <= 1232);
                        records(&answer).unwrap().for_each(|record| drop(record.unwrap().name().unwrap()));
                        slip(&mut answer);
                        assert!(records(&answer).unwrap().all(|record| record.is_ok()));
                    }
                    Verdict::Silence => assert!(message.len() < 12 || message[2] & 0x80 != 0),
                    Verdict::Forward(question) => come_back(responder, question),
                }
            }
        }
    }
    if let Ok(all) = records(message) {
        all.flatten().for_each(|record| drop((record.name(), Rdata::decode(&record))));
    }
    // The same octets as what a person writes: what is read shows itself as what is read again.
    if let Some((kind, text)) = message.split_first()
        && let Ok(text) = std::str::from_utf8(text)
    {
        let rtype =
            [RecordType::TXT, RecordType::MX, RecordType::CAA, RecordType::HTTPS, RecordType::SRV, RecordType::A];
        let rtype = rtype[usize::from(*kind) % rtype.len()];
        if let Ok(data) = Rdata::parse(rtype, text) {
            let shown = data.to_string();
            assert_eq!(Rdata::parse(rtype, &shown).as_ref(), Ok(&data), "{shown}");
        }
    }
}
