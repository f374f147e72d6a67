//! Cloudflare's API (`https://api.cloudflare.com/client/v4`): zones and records with identifiers, a token, and batches that
//! are one transaction. Records are written unproxied: a gate at the edge is what stands in front here.

use std::fmt;

use dualgate_core::plan::publish::{Change, Publication, Set, SetKey};
use dualgate_wire::dns::{Rdata, RecordType};
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{Ask, Endpoint, ask, secret};
use super::records::{Record, sets, steps};
use super::{Applied, Failure, Provider, There, is_as_read, text};

/// Where the API is.
pub const URL: &str = "https://api.cloudflare.com/client/v4";
/// The shortest time to live, but for enterprises.
const TTL: u32 = 60;
/// The longest one.
const LONGEST: u32 = 86_400;
/// Records of one page.
const PAGE: usize = 1000;
/// Pages at most.
const PAGES: usize = 100;
/// What a batch may do on the smallest plan.
const BATCH: usize = 200;
/// Types that are written here.
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
pub struct Cloudflare {
    endpoint: Endpoint,
    token: String,
}

impl fmt::Debug for Cloudflare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cloudflare({})", self.endpoint)
    }
}

/// Around everything.
#[derive(Deserialize)]
struct Envelope<T> {
    result: T,
}

/// Around one page of something.
#[derive(Deserialize)]
struct Page<T> {
    result: Vec<T>,
    result_info: Pages,
}

#[derive(Deserialize)]
struct Pages {
    total_pages: usize,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Told {
    id: String,
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    #[serde(default)]
    content: String,
    ttl: u32,
    #[serde(default)]
    priority: Option<u16>,
    #[serde(default)]
    data: Value,
}

impl Cloudflare {
    /// With the token of a file.
    pub fn open(url: &str, file: &str) -> Result<Self, Failure> {
        Ok(Self { endpoint: Endpoint::new(url)?, token: secret(file)? })
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T, Failure> {
        let mut fields = vec![("authorization", format!("Bearer {}", self.token))];
        if body.is_some() {
            fields.push(("content-type", "application/json".to_owned()));
        }
        let body = body.map(|body| body.to_string().into_bytes());
        ask(&self.endpoint, Ask { method, path, fields: &fields, body }).await?.json()
    }

    async fn zone(&self, publication: &Publication) -> Result<(String, Vec<Record>), Failure> {
        let at = publication.at.to_string();
        let zones: Envelope<Vec<Zone>> = self.ask(Method::GET, &format!("/zones?name={at}"), None).await?;
        let zone = zones.result.into_iter().find(|zone| zone.name == at).ok_or_else(|| {
            let help =
                "let the token read it (Zone:Read, DNS:Edit), or name the one that holds it: `zone` of the provider";
            Failure::new(format!("the token sees no zone `{at}`"), help)
        })?;
        let mut records = Vec::new();
        for page in 1..=PAGES {
            let path = format!("/zones/{}/dns_records?per_page={PAGE}&page={page}", zone.id);
            let told: Page<Told> = self.ask(Method::GET, &path, None).await?;
            records.extend(told.result.iter().filter_map(read));
            if page >= told.result_info.total_pages {
                return Ok((zone.id, records));
            }
        }
        Err(Failure::new(format!("zone `{at}` has more than {} records", PAGE * PAGES), "publish a smaller zone"))
    }
}

fn read(told: &Told) -> Option<Record> {
    let key = SetKey::new(told.name.parse().ok()?, text::rtype(&told.rtype));
    let content = match (key.rtype, told.priority) {
        (RecordType::MX, Some(priority)) => Some(format!("{priority} {}", told.content)),
        (RecordType::SRV, _) => service(&told.data),
        _ => Some(told.content.clone()),
    };
    let data = content.and_then(|content| text::read(key.rtype, &content));
    Some(Record { id: told.id.clone(), ttl: told.ttl, data, key })
}

fn service(data: &Value) -> Option<String> {
    let [priority, weight, port] = ["priority", "weight", "port"].map(|name| data[name].as_u64());
    Some(format!("{} {} {} {}", priority?, weight?, port?, data["target"].as_str()?))
}

/// As it is posted. Some types have their parts one by one.
fn write(key: &SetKey, ttl: u32, data: &Rdata) -> Value {
    let (name, rtype, whole) = (key.name.to_string(), key.rtype.to_string(), text::write(data));
    let mut record = json!({"name": name, "type": rtype, "ttl": ttl});
    match data {
        Rdata::A(_) | Rdata::Aaaa(_) | Rdata::Cname(_) => {
            record["content"] = whole.into();
            record["proxied"] = false.into();
        }
        Rdata::Mx { preference, exchange } => {
            record["content"] = exchange.to_string().into();
            record["priority"] = (*preference).into();
        }
        Rdata::Srv { priority, weight, port, target } => {
            record["data"] =
                json!({"priority": priority, "weight": weight, "port": port, "target": target.to_string()});
        }
        Rdata::Caa { flags, tag, value } => {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            record["data"] = json!({"flags": flags, "tag": text(tag), "value": text(value)});
        }
        Rdata::Https(binding) | Rdata::Svcb(binding) => {
            let value = quoted(whole.splitn(3, ' ').nth(2).unwrap_or_default());
            let target = if binding.target.as_wire() == [0] { ".".to_owned() } else { binding.target.to_string() };
            record["data"] = json!({"priority": binding.priority, "target": target, "value": value});
        }
        Rdata::Ns(_) | Rdata::Ptr(_) | Rdata::Soa { .. } | Rdata::Txt(_) | Rdata::Other(..) => {
            record["content"] = whole.into();
        }
    }
    record
}

/// The parameters of a binding, each value in quotation marks.
fn quoted(parameters: &str) -> String {
    let one = |word: &str| match word.split_once('=') {
        Some((key, value)) if !value.starts_with('"') => format!("{key}=\"{value}\""),
        Some(_) | None => word.to_owned(),
    };
    parameters.split(' ').map(one).collect::<Vec<_>>().join(" ")
}

impl Provider for Cloudflare {
    async fn read(&self, publication: &Publication) -> Result<There, Failure> {
        Ok(There { sets: sets(&self.zone(publication).await?.1), fit: Box::new(fit) })
    }

    async fn apply(&self, publication: &Publication, changes: &[Change]) -> Result<Applied, Failure> {
        let (zone, records) = self.zone(publication).await?;
        if !is_as_read(&sets(&records), changes) {
            return Ok(Applied::Part(0));
        }
        let mut done = 0;
        while done < changes.len() {
            let (body, count) = batch(&records, &changes[done..]);
            let path = format!("/zones/{zone}/dns_records/batch");
            let made: Result<Envelope<Value>, Failure> = self.ask(Method::POST, &path, Some(body)).await;
            match made {
                Ok(_) => done += count,
                Err(failure) if failure.is_refusal && done > 0 => return Ok(Applied::Part(done)),
                Err(failure) => return Err(failure.during(&changes[done].record.key)),
            }
        }
        Ok(Applied::All)
    }
}

fn fit(key: &SetKey, set: &Set) -> Option<Set> {
    let data = set.data.iter().map(text::joined).collect();
    TYPES.contains(&key.rtype).then_some(Set { ttl: set.ttl.clamp(TTL, LONGEST), data })
}

/// As many changes as one batch takes; a set and its mark stay together.
fn batch(records: &[Record], changes: &[Change]) -> (Value, usize) {
    let (mut deletes, mut puts, mut posts) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0;
    for change in changes {
        let steps: Vec<_> = change.edits().into_iter().map(|edit| steps(records, edit)).collect();
        let more: usize = steps.iter().map(|step| step.delete.len() + step.replace.len() + step.create.len()).sum();
        if count > 0 && deletes.len() + puts.len() + posts.len() + more > BATCH {
            break;
        }
        for step in steps {
            deletes.extend(step.delete.into_iter().map(|id| json!({"id": id})));
            puts.extend(step.replace.iter().map(|(id, key, ttl, data)| {
                let mut record = write(key, *ttl, data);
                record["id"] = id.as_str().into();
                record
            }));
            posts.extend(step.create.iter().map(|(key, ttl, data)| write(key, *ttl, data)));
        }
        count += 1;
    }
    (json!({"deletes": deletes, "puts": puts, "posts": posts}), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_one_that_cloudflare_takes() {
        let key = SetKey::new("a.example.org".parse().unwrap(), RecordType::A);
        let kept = |ttl| fit(&key, &Set { ttl, data: [Rdata::A([192, 0, 2, 1].into())].into() }).map(|set| set.ttl);
        assert_eq!([30, 3600, 604_800].map(kept), [Some(60), Some(3600), Some(86_400)]);
    }
}
