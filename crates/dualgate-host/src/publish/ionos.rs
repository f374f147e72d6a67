//! IONOS' DNS API (`https://api.hosting.ionos.com/dns/v1`, described at developer.hosting.ionos.com): zones and records
//! with identifiers, a key in a field of the head. Records are changed one by one; creations of one set go together.

use std::fmt;

use dualgate_core::plan::publish::{Change, Edit, Publication, Set, SetKey};
use dualgate_wire::dns::{Rdata, RecordType};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Ask, Endpoint, ask, secret};
use super::records::{Record, sets, steps};
use super::{Applied, Failure, Provider, There, is_as_read, text};

/// Where the API is.
pub const URL: &str = "https://api.hosting.ionos.com/dns/v1";
/// The shortest time to live that it keeps.
const TTL: u32 = 60;
/// Types that it keeps and that are written here.
const TYPES: [RecordType; 9] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::MX,
    RecordType::SRV,
    RecordType::NS,
    RecordType::CAA,
    RecordType::HTTPS,
];

/// An account.
pub struct Ionos {
    endpoint: Endpoint,
    key: String,
}

impl fmt::Debug for Ionos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ionos({})", self.endpoint)
    }
}

/// A zone of the list.
#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Zone {
    records: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    id: String,
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    content: String,
    ttl: u32,
    #[serde(default)]
    prio: Option<u16>,
    /// It is kept there, and told to nobody.
    #[serde(default)]
    disabled: bool,
}

impl Ionos {
    /// With the API key of a file: `PREFIX.SECRET`.
    pub fn open(url: &str, file: &str) -> Result<Self, Failure> {
        Ok(Self { endpoint: Endpoint::new(url)?, key: secret(file)? })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Failure> {
        let mut fields = vec![("accept", "application/json".to_owned()), ("x-api-key", self.key.clone())];
        if body.is_some() {
            fields.push(("content-type", "application/json".to_owned()));
        }
        let body = body.map(|body| body.to_string().into_bytes());
        ask(&self.endpoint, Ask { method, path, fields: &fields, body }).await
    }

    async fn zone(&self, publication: &Publication) -> Result<(String, Vec<Record>), Failure> {
        let answer = self.ask(Method::GET, "/zones", None).await?;
        let zones: Vec<Listed> = answer.json()?;
        let at = publication.at.to_string();
        let zone = zones.into_iter().find(|zone| zone.name.eq_ignore_ascii_case(&at)).ok_or_else(|| {
            Failure::new(
                format!("the account has no zone `{at}`"),
                "name the one that holds it: `zone` of the provider",
            )
        })?;
        let answer = self.ask(Method::GET, &format!("/zones/{}", zone.id), None).await?;
        let whole: Zone = answer.json()?;
        Ok((zone.id, whole.records.iter().filter_map(read).collect()))
    }
}

fn read(told: &Told) -> Option<Record> {
    let key = SetKey::new(told.name.parse().ok()?, text::rtype(&told.rtype));
    let content = match (key.rtype, told.prio) {
        (RecordType::MX | RecordType::SRV, Some(prio)) => format!("{prio} {}", told.content),
        _ => told.content.clone(),
    };
    let data = text::read(key.rtype, &content).filter(|_| !told.disabled);
    Some(Record { id: told.id.clone(), ttl: told.ttl, data, key })
}

/// What it says, and the number that stands beside it.
fn content(data: &Rdata) -> (String, u16) {
    let whole = text::write(data);
    match data {
        Rdata::Mx { preference: first, .. } | Rdata::Srv { priority: first, .. } => {
            (whole.split_once(' ').map_or_else(String::new, |(_, rest)| rest.to_owned()), *first)
        }
        _ => (whole, 0),
    }
}

impl Provider for Ionos {
    async fn read(&self, publication: &Publication) -> Result<There, Failure> {
        Ok(There { sets: sets(&self.zone(publication).await?.1), fit: Box::new(fit) })
    }

    async fn apply(&self, publication: &Publication, changes: &[Change]) -> Result<Applied, Failure> {
        let (zone, records) = self.zone(publication).await?;
        if !is_as_read(&sets(&records), changes) {
            return Ok(Applied::Part(0));
        }
        for (done, change) in changes.iter().enumerate() {
            for edit in change.edits() {
                match self.edit(&zone, &records, edit).await {
                    Ok(()) => {}
                    Err(failure) if failure.is_refusal && done > 0 => return Ok(Applied::Part(done)),
                    Err(failure) => return Err(failure.during(&edit.key)),
                }
            }
        }
        Ok(Applied::All)
    }
}

impl Ionos {
    async fn edit(&self, zone: &str, records: &[Record], edit: &Edit) -> Result<(), Failure> {
        let steps = steps(records, edit);
        for (id, _, ttl, data) in &steps.replace {
            let (content, prio) = content(data);
            let body = json!({"content": content, "ttl": ttl, "prio": prio, "disabled": false});
            self.ask(Method::PUT, &format!("/zones/{zone}/records/{id}"), Some(body)).await?;
        }
        let create: Vec<Value> = (steps.create.iter())
            .map(|(key, ttl, data)| {
                let (content, prio) = content(data);
                let (name, rtype) = (key.name.to_string(), key.rtype.to_string());
                json!({"name": name, "type": rtype, "content": content, "ttl": ttl, "prio": prio, "disabled": false})
            })
            .collect();
        if !create.is_empty() {
            self.ask(Method::POST, &format!("/zones/{zone}/records"), Some(Value::Array(create))).await?;
        }
        for id in &steps.delete {
            self.ask(Method::DELETE, &format!("/zones/{zone}/records/{id}"), None).await?;
        }
        Ok(())
    }
}

fn fit(key: &SetKey, set: &Set) -> Option<Set> {
    let data = set.data.iter().map(text::joined).collect();
    TYPES.contains(&key.rtype).then_some(Set { ttl: set.ttl.max(TTL), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rtype: &str, content: &str, disabled: bool) -> Record {
        let told = json!({"id": "1", "name": "a.example.org", "type": rtype, "content": content, "ttl": 60, "disabled": disabled});
        read(&serde_json::from_value(told).unwrap()).unwrap()
    }

    #[test]
    fn what_is_switched_off_or_unknown_is_there_and_says_nothing() {
        assert!(record("A", "192.0.2.1", false).data.is_some());
        assert_eq!(record("A", "192.0.2.1", true).data, None);
        let unknown = record("NEW", "words", false);
        assert_eq!((unknown.key.rtype, unknown.data), (RecordType(65_535), None));
    }

    #[test]
    fn a_zone_without_its_records_is_not_taken_for_an_empty_one() {
        assert!(serde_json::from_str::<Zone>(r#"{"id": "1", "name": "example.org"}"#).is_err());
    }
}
