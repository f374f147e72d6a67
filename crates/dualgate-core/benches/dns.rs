//! What names cost: a zone of many hosts planned, changed, encoded, asked. `cargo bench -p dualgate-core --bench dns`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use domain::base::{MessageBuilder, StaticCompressor, ToName as _};
use domain::rdata::A;
use dualgate_core::case::{Case, Families};
use dualgate_core::lower::Lowered;
use dualgate_core::machine::dns::{Responder, Transport};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::plan::dns::Memo;
use dualgate_wire::dns::Name;
use dualgate_wire::dns::cookie::CookieSecret;

const HOSTS: usize = 10_000;
const ROUNDS: usize = 10;
const QUESTIONS: usize = 2_000_000;

fn main() {
    let case = match Case::parse("bench", &manifests()) {
        Ok(case) => case,
        Err(error) => return eprintln!("{error}"),
    };
    let snapshot = match case.snapshot(Families::Both) {
        Ok(snapshot) => snapshot,
        Err(error) => return eprintln!("{error}"),
    };
    println!("a zone with {HOSTS} hosts, A and AAAA each, the best of {ROUNDS}:");
    let names: [(&str, [Duration; 4]); 2] = [("home1", [Duration::MAX; 4]), ("edge", [Duration::MAX; 4])];
    for (node, mut best) in names {
        let node = NodeName::new(node);
        for round in 0..ROUNDS {
            let without = without(&snapshot, round);
            let (mut lowered, mut memo) = (Lowered::default(), Memo::default());
            lowered.update_to(&snapshot);
            best[0] = best[0].min(time(|| memo.select(&snapshot, &lowered, &node)).1);
            best[1] = best[1].min(time(|| memo.select(&snapshot, &lowered, &node)).1);
            let ((), lower) = time(|| lowered.update_to(&without));
            let (plan, select) = time(|| memo.select(&without, &lowered, &node));
            best[2] = best[2].min(lower + select);
            best[3] = best[3].min(time(|| Responder::new(&plan)).1);
            if round == 0 {
                ask(&node, &Responder::new(&plan));
            }
        }
        for (what, took) in ["plan", "plan again", "one host less", "encode"].iter().zip(best) {
            println!("{node:6} {what:14} {took:>10.1?}");
        }
    }
}

/// The snapshot without one of the Ingresses.
fn without(snapshot: &Snapshot, number: usize) -> Snapshot {
    let gone = format!("app{}", number * 7 + 3);
    let is_gone = |object: &Arc<_>| {
        let object: &dualgate_core::model::Object = object;
        &*object.key.kind == "Ingress" && *object.key.name.name == *gone
    };
    let objects = snapshot.objects.objects.iter().filter(|object| !is_gone(object)).cloned().collect();
    let mut after = Snapshot { objects: Arc::new(ObjectSet { objects, findings: Vec::new() }), ..snapshot.clone() };
    after.facts.now += 60;
    after
}

fn ask(node: &NodeName, responder: &Responder) {
    let questions: Vec<Vec<u8>> = (0..HOSTS).map(|number| question(&format!("app{number}.example.org"))).collect();
    let missing: Vec<Vec<u8>> = (0..HOSTS).map(|number| question(&format!("no{number}.deep.example.org"))).collect();
    let secret = CookieSecret { current: [7; 16], previous: None };
    let from = IpAddr::V4(Ipv4Addr::new(192, 168, 178, 50));
    for (what, questions) in [("names that exist", &questions), ("names that do not", &missing)] {
        let mut answer = Vec::with_capacity(2048);
        let ((), took) = time(|| {
            for number in 0..QUESTIONS {
                let question = &questions[number % questions.len()];
                black_box(responder.answer(question, from, Transport::Udp, &secret, 1, &mut answer));
            }
        });
        println!("{node:6} {what:18} {:>6.0} ns an answer", took.as_nanos() as f64 / QUESTIONS as f64);
    }
    let zone: BTreeMap<Vec<u8>, Ipv4Addr> = (0..HOSTS)
        .filter_map(|number| format!("app{number}.example.org").parse::<Name>().ok())
        .map(|name| (name.as_wire().to_vec(), Ipv4Addr::new(203, 0, 113, 10)))
        .collect();
    let ((), took) = time(|| {
        for number in 0..QUESTIONS {
            black_box(by_domain(&zone, &questions[number % questions.len()]));
        }
    });
    println!("       the same by `domain`  {:>6.0} ns an answer", took.as_nanos() as f64 / QUESTIONS as f64);
}

/// Reads a question and answers it with the crate `domain`: what a loop of one's own around it would do at least, with
/// the look-up in a map of names.
fn by_domain(zone: &BTreeMap<Vec<u8>, Ipv4Addr>, question: &[u8]) -> Option<usize> {
    let message = domain::base::Message::from_octets(question).ok()?;
    let asked = message.sole_question().ok()?;
    let size = message.opt()?.udp_payload_size();
    let mut name = asked.qname().to_name::<Vec<u8>>().into_octets();
    name.make_ascii_lowercase();
    let address = zone.get(name.as_slice())?;
    let target = StaticCompressor::new(Vec::with_capacity(512));
    let mut answer = MessageBuilder::from_target(target).ok()?.start_answer(&message, Rcode::NOERROR).ok()?;
    answer.header_mut().set_aa(true);
    answer.push((asked.qname(), 60, A::new(*address))).ok()?;
    let mut additional = answer.additional();
    additional
        .opt(|opt| {
            opt.set_udp_payload_size(size.min(1232));
            Ok(())
        })
        .ok()?;
    Some(additional.finish().into_target().len())
}

/// As resolvers ask: with EDNS(0).
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(name.parse::<Name>().unwrap_or_else(|_| Name::root()).as_wire());
    message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    message
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark does")]
fn time<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn manifests() -> String {
    let mut text =
        "== site\ndns: {public: true, forward: [192.168.178.1], zones: [{name: example.org, publish: edge}]}\n\
                    exposure: {default: [internal, external]}\n== services\nweb http=80\n== objects\n"
            .to_owned();
    for number in 0..HOSTS {
        _ = writeln!(
            text,
            "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: app{number}, namespace: default}}
spec: {{rules: [{{host: app{number}.example.org, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{name: http}}}}}}}}]}}}}]}}"
        );
    }
    text
}
