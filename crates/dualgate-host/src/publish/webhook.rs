//! A provider behind external-dns' webhook protocol: every provider that has such a webhook is one of dualgate's.
//!
//! `GET /` tells which domains it serves, `GET /records` what it has, `POST /adjustendpoints` how it would keep what is
//! wanted, and `POST /records` changes it. A webhook sees whole sets; most of them keep A, AAAA, CNAME, TXT, MX, SRV and NS
//! alone, so nothing else is handed over.

use std::collections::{BTreeMap, BTreeSet};

use dualgate_core::plan::publish::{Change, Mark, Publication, Set, SetKey, Sets, mark_name};
use dualgate_wire::dns::{Name, Rdata, RecordType};
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::http::{Answer, Ask, Endpoint, ask};
use super::{Applied, Failure, Provider, There, is_as_read, text};

/// What every message is, in both directions.
const MEDIA_TYPE: &str = "application/external.dns.webhook+json;version=1";
/// What external-dns itself hands to webhooks.
const TYPES: [RecordType; 7] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::MX,
    RecordType::SRV,
    RecordType::NS,
];

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    endpoint: Endpoint,
}

/// A set of records as webhooks have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoints {
    dns_name: String,
    targets: Vec<String>,
    record_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    set_identifier: String,
    #[serde(rename = "recordTTL")]
    ttl: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    provider_specific: Vec<Property>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Property {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    create: Vec<Endpoints>,
    update_old: Vec<Endpoints>,
    update_new: Vec<Endpoints>,
    delete: Vec<Endpoints>,
}

impl Webhook {
    /// At this URL.
    pub fn open(url: &str) -> Result<Self, Failure> {
        Ok(Self { endpoint: Endpoint::new(url)? })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer, Failure> {
        let mut fields = vec![("accept", MEDIA_TYPE.to_owned())];
        if body.is_some() {
            fields.push(("content-type", MEDIA_TYPE.to_owned()));
        }
        ask(&self.endpoint, Ask { method, path, fields: &fields, body }).await
    }

    fn document<T: for<'a> Deserialize<'a>>(&self, answer: &Answer) -> Result<T, Failure> {
        let help = "see whether it is a webhook of external-dns with version 1 of its protocol";
        let plain: String = answer.media_type.chars().filter(|c| !c.is_whitespace()).collect();
        if !plain.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(Failure::new(format!("{} answers with `{}`", self.endpoint, answer.media_type), help));
        }
        // Go's empty list.
        let body = if answer.body.trim_ascii() == b"null" { b"[]".as_slice() } else { &answer.body };
        serde_json::from_slice(body).map_err(|error| Failure::new(format!("{}: {error}", self.endpoint), help))
    }

    /// Whether it serves the zone at all.
    async fn negotiate(&self, publication: &Publication) -> Result<(), Failure> {
        let answer = self.ask(Method::GET, "/", None).await?;
        let filter: serde_json::Value = self.document(&answer)?;
        let lists = ["include", "filters"].map(|key| filter[key].as_array());
        let names: Vec<&str> = lists
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(serde_json::Value::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        let holds = |name: &&str| {
            let name: Option<Name> = name.trim_start_matches('.').parse().ok();
            name.is_some_and(|name| publication.zone.is_within(&name))
        };
        if names.is_empty() || names.iter().any(holds) {
            return Ok(());
        }
        let what = format!("{} serves {}, not `{}`", self.endpoint, names.join(", "), publication.zone);
        Err(Failure::new(what, "set its domain filter to hold the zone"))
    }
}

impl Provider for Webhook {
    async fn read(&self, publication: &Publication) -> Result<There, Failure> {
        self.negotiate(publication).await?;
        let kept = self.kept(publication).await?;
        let sets = self.sets(&kept).await?;
        let fit = move |key: &SetKey, set: &Set| {
            let ttl = kept.get(key).map_or(Some(set.ttl), |ttl| *ttl)?;
            TYPES.contains(&key.rtype).then(|| Set { ttl, data: set.data.iter().map(text::joined).collect() })
        };
        Ok(There { sets, fit: Box::new(fit) })
    }

    async fn apply(&self, publication: &Publication, changes: &[Change]) -> Result<Applied, Failure> {
        if !is_as_read(&self.sets(&self.kept(publication).await?).await?, changes) {
            return Ok(Applied::Part(0));
        }
        let mut told = Changes::default();
        for edit in changes.iter().flat_map(Change::edits) {
            match (&edit.before, &edit.after) {
                (None, Some(after)) => told.create.push(write(&edit.key, after)),
                (Some(before), Some(after)) => {
                    told.update_old.push(write(&edit.key, before));
                    told.update_new.push(write(&edit.key, after));
                }
                (Some(before), None) => told.delete.push(write(&edit.key, before)),
                (None, None) => {}
            }
        }
        for wanted in [&mut told.create, &mut told.update_new] {
            *wanted = self.adjusted(std::mem::take(wanted)).await?;
        }
        let body = serde_json::to_vec(&told).map_err(|error| Failure::new(error.to_string(), "it is tried again"))?;
        self.ask(Method::POST, "/records", Some(body)).await?;
        Ok(Applied::All)
    }
}

/// How long the provider would have each set told that is wanted, and each mark; `None` for those that it does not take.
type Kept = BTreeMap<SetKey, Option<u32>>;

impl Webhook {
    async fn sets(&self, kept: &Kept) -> Result<Sets, Failure> {
        let answer = self.ask(Method::GET, "/records", None).await?;
        let endpoints: Vec<Endpoints> = self.document(&answer)?;
        let mut sets = Sets::new();
        for endpoint in endpoints {
            let Some((key, mut set)) = read(&endpoint) else { continue };
            // Where a provider has no time to live, or does not tell it, it cannot differ.
            if set.ttl == 0 {
                set.ttl = kept.get(&key).copied().flatten().unwrap_or_default();
            }
            let known = sets.entry(key).or_insert_with(|| Set { ttl: set.ttl, data: BTreeSet::new() });
            known.data.extend(set.data);
        }
        Ok(sets)
    }

    async fn kept(&self, publication: &Publication) -> Result<Kept, Failure> {
        let wanted = publication.wanted.iter().filter(|(key, _)| TYPES.contains(&key.rtype));
        let with_mark = wanted.flat_map(|(key, one)| {
            let mark = mark_name(key).map(|mark| (mark, Mark::write(&publication.owner, &one.from, one.set.ttl)));
            std::iter::once((key.clone(), one.set.clone())).chain(mark)
        });
        let wanted: BTreeMap<SetKey, Set> = with_mark.collect();
        let asked: Vec<Endpoints> = wanted.iter().map(|(key, set)| write(key, set)).collect();
        let adjusted = match self.adjust(&asked).await {
            Ok(adjusted) => adjusted,
            // Whatever it is that it does not want is found out by halves.
            Err(failure) if failure.is_refusal => return Ok(Kept::new()),
            Err(failure) => return Err(failure),
        };
        let mut kept: Kept = wanted.keys().map(|key| (key.clone(), None)).collect();
        for (key, set) in adjusted.iter().filter_map(read) {
            let ttl = if set.ttl == 0 { wanted.get(&key).map(|wanted| wanted.ttl) } else { Some(set.ttl) };
            kept.insert(key, ttl);
        }
        Ok(kept)
    }

    /// As the provider wants them: some need properties of their own.
    async fn adjusted(&self, wanted: Vec<Endpoints>) -> Result<Vec<Endpoints>, Failure> {
        let adjusted = self.adjust(&wanted).await?;
        let is_same = adjusted.len() == wanted.len()
            && wanted.iter().all(|one| {
                adjusted.iter().any(|other| other.dns_name == one.dns_name && other.record_type == one.record_type)
            });
        if !is_same {
            let what = format!("{} leaves out some of what is wanted", self.endpoint);
            let failure = Failure::new(what, "see its log: it may not take some of these records");
            return Err(Failure { is_refusal: true, ..failure });
        }
        Ok(adjusted)
    }

    async fn adjust(&self, wanted: &[Endpoints]) -> Result<Vec<Endpoints>, Failure> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let body = serde_json::to_vec(wanted).map_err(|error| Failure::new(error.to_string(), "it is tried again"))?;
        let answer = self.ask(Method::POST, "/adjustendpoints", Some(body)).await?;
        self.document(&answer)
    }
}

/// What has an identifier is one of several sets of the same name, and in no case ours; as a set it stays foreign.
fn read(endpoint: &Endpoints) -> Option<(SetKey, Set)> {
    let key = SetKey::new(endpoint.dns_name.parse().ok()?, text::rtype(&endpoint.record_type));
    let data: BTreeSet<Rdata> = endpoint
        .targets
        .iter()
        .filter_map(|target| text::read(key.rtype, target))
        .map(|data| text::joined(&data))
        .collect();
    Some((key, Set { ttl: endpoint.ttl, data }))
}

fn write(key: &SetKey, set: &Set) -> Endpoints {
    Endpoints {
        dns_name: key.name.to_string(),
        targets: set.data.iter().map(text::write).collect(),
        record_type: key.rtype.to_string(),
        ttl: set.ttl,
        ..Endpoints::default()
    }
}
