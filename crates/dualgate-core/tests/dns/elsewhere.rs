//! The names of others: a resolver that knows them, and ours that asks it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::machine::dns::{Question, Responder};
use dualgate_core::machine::resolver::{Action, Resolver};
use dualgate_wire::dns::{Class, Name, Query, Rdata, RecordType, encode};

/// What others know.
#[derive(Debug, Default)]
pub struct Elsewhere(pub BTreeMap<Name, Vec<(u32, Rdata)>>);

impl Elsewhere {
    /// A record as text: name, time to live, type, data.
    pub fn add(&mut self, text: &str) {
        let [name, ttl, rtype, data] = text.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let data = Rdata::parse(rtype.parse().unwrap(), data).unwrap();
        self.0.entry(name.parse().unwrap()).or_default().push((ttl.parse().unwrap(), data));
    }

    /// What a client hears of a question that was handed on, after what was asked for it.
    pub fn resolve(&self, responder: Responder, question: Question) -> Vec<String> {
        let mut numbers = 7_u64;
        let random = move || {
            numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(numbers ^ numbers >> 29)
        };
        let mut resolver = Resolver::new(1 << 20, Box::new(random));
        resolver.follow(Arc::new(responder));
        let now = Duration::from_secs(1);
        resolver.ask(question, (), now);
        let mut said = Vec::new();
        while let Some(action) = resolver.action() {
            match action {
                Action::Send { attempt, message, .. } => {
                    let query = Query::parse(&message).unwrap();
                    said.push(format!("asked {}", Name::from_wire(query.name).unwrap()));
                    resolver.arrived(attempt, &self.answer(&message, &query), 0, now);
                }
                Action::Forget(_) => {}
                Action::Answer { message, .. } => said.extend(super::shown(&message)),
            }
        }
        said
    }

    /// As a resolver answers: the whole chain, or that there is no such name.
    fn answer(&self, message: &[u8], query: &Query<'_>) -> Vec<u8> {
        let mut answer = message[..12 + query.name.len() + 4].to_vec();
        let mut name = Name::from_wire(query.name).unwrap();
        let (mut count, mut code) = (0, 0);
        for _ in 0..20 {
            let known = self.0.get(&name).map(Vec::as_slice).unwrap_or_default();
            if known.is_empty() {
                code = 3;
            }
            let alias = known.iter().find(|(_, data)| data.record_type() == RecordType::CNAME);
            let wanted = known.iter().filter(|(_, data)| data.record_type() == query.rtype);
            for (ttl, data) in wanted.chain(alias.filter(|_| query.rtype != RecordType::CNAME)) {
                let mut record = Vec::new();
                encode(data.record_type(), *ttl, [data], &mut record);
                answer.extend_from_slice(name.as_wire());
                answer.extend_from_slice(&record[2..]);
                count += 1;
            }
            match alias {
                Some((_, Rdata::Cname(target))) if query.rtype != RecordType::CNAME => name = target.clone(),
                _ => break,
            }
        }
        assert_eq!(query.class, Class::IN);
        (answer[2], answer[3], answer[7], answer[11]) = (0x81, 0x80 | code, count, 0);
        answer
    }
}
