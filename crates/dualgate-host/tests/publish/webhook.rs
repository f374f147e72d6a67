//! The webhook protocol of external-dns, against a server that keeps records as a provider would, and takes no other media type.

use std::sync::{Arc, Mutex};

use dualgate_core::model::site::ProviderAccess;
use serde_json::{Value, json};

use super::server::{Answer, Request, serve};
use super::{made, publication, synced};

const MEDIA_TYPE: &str = "application/external.dns.webhook+json;version=1";

/// What it has, and how it behaves.
struct Webhook {
    records: Vec<Value>,
    domains: Vec<&'static str>,
    media_type: &'static str,
    fails: bool,
    /// No time to live is shorter.
    shortest: u64,
    /// What it refuses when it is to keep it.
    refuses: &'static str,
    /// What it does not even want.
    drops: &'static str,
}

type Shared = Arc<Mutex<Webhook>>;

fn start(records: Vec<Value>) -> (ProviderAccess, Shared) {
    let (domains, media_type) = (vec!["example.org"], MEDIA_TYPE);
    let webhook = Webhook { records, domains, media_type, fails: false, shortest: 1, refuses: "none", drops: "none" };
    let shared = Arc::new(Mutex::new(webhook));
    let served = shared.clone();
    let at = serve(move |request| answer(&mut served.lock().unwrap(), &request));
    (ProviderAccess::Webhook { url: format!("http://{at}") }, shared)
}

fn answer(webhook: &mut Webhook, request: &Request) -> Answer {
    let field = |name: &str| request.fields.get(name).map(String::as_str);
    let is_post = request.line.starts_with("POST");
    if field("accept") != Some(MEDIA_TYPE) || is_post && field("content-type") != Some(MEDIA_TYPE) {
        return (415, Vec::new(), format!("{:?}", request.fields));
    }
    let told = |value: Value| (200, vec![("Content-Type", webhook.media_type.to_owned())], value.to_string());
    let asked: Value = serde_json::from_str(&request.body).unwrap_or(Value::Null);
    match request.line.as_str() {
        "GET /" => told(json!({"include": webhook.domains})),
        "GET /records" => told(Value::Array(webhook.records.clone())),
        "POST /adjustendpoints" => {
            let mut wanted = asked;
            let list = wanted.as_array_mut().unwrap();
            list.retain(|one| !one["dnsName"].as_str().unwrap().contains(webhook.drops));
            for one in list {
                one["providerSpecific"] = json!([{"name": "webhook/comment", "value": "kept"}]);
                one["recordTTL"] = one["recordTTL"].as_u64().unwrap().max(webhook.shortest).into();
            }
            told(wanted)
        }
        "POST /records" if webhook.fails => (500, Vec::new(), "the zone is locked".to_owned()),
        "POST /records" if request.body.contains(webhook.refuses) => {
            (500, Vec::new(), format!("{} is a bad word", webhook.refuses))
        }
        "POST /records" => change(&mut webhook.records, &asked)
            .map_or_else(|why| (500, Vec::new(), why), |()| (204, Vec::new(), String::new())),
        other => (404, Vec::new(), other.to_owned()),
    }
}

/// A provider that knows what it has, and keeps what it was told to.
fn change(records: &mut Vec<Value>, changes: &Value) -> Result<(), String> {
    let list = |name: &str| changes[name].as_array().cloned().unwrap_or_default();
    let is_same =
        |one: &Value, other: &Value| one["dnsName"] == other["dnsName"] && one["recordType"] == other["recordType"];
    for old in list("delete").into_iter().chain(list("updateOld")) {
        let at = records.iter().position(|known| is_same(known, &old) && known["targets"] == old["targets"]);
        records.remove(at.ok_or(format!("nothing to remove: {old}"))?);
    }
    for record in list("create").into_iter().chain(list("updateNew")) {
        if record["providerSpecific"][0]["value"] != "kept" {
            return Err(format!("not adjusted: {record}"));
        }
        if records.iter().any(|known| is_same(known, &record)) {
            return Err(format!("it is there: {record}"));
        }
        records.push(record);
    }
    Ok(())
}

fn record(name: &str, rtype: &str, target: &str) -> Value {
    json!({"dnsName": name, "targets": [target], "recordType": rtype, "recordTTL": 60})
}

fn told(shared: &Shared) -> Vec<String> {
    let webhook = shared.lock().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line =
        |one: &Value| format!("{} {} {}", text(&one["dnsName"]), text(&one["recordType"]), text(&one["targets"][0]));
    let mut lines: Vec<String> = webhook.records.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn a_webhook_has_what_is_wanted_and_what_others_made_stays() {
    let foreign = [record("www.example.org", "A", "198.51.100.1"), record("taken.example.org", "A", "198.51.100.2")];
    let (access, webhook) = start(foreign.to_vec());
    let wanted = [
        "app.example.org 60 A 203.0.113.10",
        "app.example.org 60 HTTPS 1 . alpn=h2",
        "taken.example.org 60 A 203.0.113.10",
        "example.org 60 TXT \"v=spf1 -all\"",
    ];
    let all = publication(access.clone(), &wanted);
    let first = synced(&all).unwrap();
    assert_eq!(made(&first), ["create example.org TXT", "create app.example.org A"]);
    assert_eq!(first.left.conflicts.len(), 1);
    assert_eq!(first.left.unfit.iter().map(ToString::to_string).collect::<Vec<_>>(), ["app.example.org HTTPS"]);
    let mark = "\"heritage=external-dns,external-dns/owner=home,external-dns/resource=ingress/apps/app\"";
    let expected = [
        format!("_dualgate-a.app.example.org TXT {mark}"),
        format!("_dualgate-txt.example.org TXT {mark}"),
        "app.example.org A 203.0.113.10".to_owned(),
        "example.org TXT \"v=spf1 -all\"".to_owned(),
        "taken.example.org A 198.51.100.2".to_owned(),
        "www.example.org A 198.51.100.1".to_owned(),
    ];
    assert_eq!(told(&webhook), expected);
    assert!(made(&synced(&all).unwrap()).is_empty());

    // Somebody changes what is ours. Providers that know no time to live differ in none.
    for one in &mut webhook.lock().unwrap().records {
        one["recordTTL"] = json!(0);
        if one["dnsName"] == "app.example.org" {
            one["targets"] = json!(["198.51.100.9"]);
        }
    }
    assert_eq!(made(&synced(&all).unwrap()), ["update app.example.org A"]);
    assert!(told(&webhook).contains(&"app.example.org A 203.0.113.10".to_owned()));

    let none = publication(access, &[]);
    assert_eq!(made(&synced(&none).unwrap()), ["delete example.org TXT", "delete app.example.org A"]);
    assert_eq!(told(&webhook), expected[4..]);
}

#[test]
fn what_a_webhook_keeps_otherwise_is_as_wanted() {
    let (access, webhook) = start(Vec::new());
    webhook.lock().unwrap().shortest = 300;
    let wanted = publication(access, &["app.example.org 60 A 203.0.113.10", "other.example.org 600 A 203.0.113.10"]);
    assert_eq!(made(&synced(&wanted).unwrap()), ["create app.example.org A", "create other.example.org A"]);
    let ttls: Vec<u64> = webhook.lock().unwrap().records.iter().map(|one| one["recordTTL"].as_u64().unwrap()).collect();
    assert_eq!(ttls, [300, 300, 600, 600]);
    assert!(made(&synced(&wanted).unwrap()).is_empty());
}

#[test]
fn what_is_refused_keeps_nothing_else_from_being_written() {
    let names: Vec<String> = (0..40).map(|n| format!("app{n:02}.example.org 60 A 203.0.113.10")).collect();
    let lines: Vec<&str> = names.iter().map(String::as_str).chain(["drop.example.org 60 A 203.0.113.10"]).collect();
    let (access, webhook) = start(Vec::new());
    {
        let mut webhook = webhook.lock().unwrap();
        (webhook.refuses, webhook.drops) = ("app17.", "drop.");
    }
    let all = publication(access, &lines);
    for round in 0..2 {
        let synced = synced(&all);
        if round == 1 {
            let failure = synced.unwrap_err();
            assert!(
                failure.is_refusal && failure.what.ends_with("500 Internal Server Error: app17. is a bad word"),
                "{failure}"
            );
            continue;
        }
        let synced = synced.unwrap();
        assert_eq!(synced.made.len(), 39);
        let refused: Vec<String> = synced.refused.iter().map(|(key, why)| format!("{key}: {}", why.what)).collect();
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("app17.example.org A: POST http://"), "{refused:?}");
        assert_eq!(synced.left.unfit.iter().map(ToString::to_string).collect::<Vec<_>>(), ["drop.example.org A"]);
    }
    // Those that are refused again and again keep nobody who comes later out, either.
    let worse: Vec<&str> =
        lines.iter().copied().filter(|line| !line.starts_with("app1") || line.contains("17")).collect();
    assert_eq!(synced(&publication(all.provider.access.clone(), &worse)).unwrap().made.len(), 9);
    webhook.lock().unwrap().refuses = "app1";
    let some = synced(&publication(
        all.provider.access.clone(),
        &[&lines[..], &["zzz.example.org 60 A 203.0.113.10"]].concat(),
    ));
    let some = some.unwrap();
    assert_eq!((made(&some), some.refused.len()), (vec!["create zzz.example.org A".to_owned()], 10));
    webhook.lock().unwrap().refuses = "none";
    assert_eq!(made(&synced(&publication(all.provider.access.clone(), &lines)).unwrap()).len(), 11);
    assert_eq!(made(&synced(&all).unwrap()), Vec::<String>::new());
    // What it took once and would not take again stays.
    webhook.lock().unwrap().drops = "app";
    let left = synced(&all).unwrap();
    assert_eq!((made(&left), left.left.kept.len()), (vec!["create drop.example.org A".to_owned()], 40));
    assert_eq!(told(&webhook).len(), 82);
    webhook.lock().unwrap().drops = "none";
    // Who refuses everything is not asked about each single one.
    webhook.lock().unwrap().fails = true;
    let none = publication(all.provider.access.clone(), &[]);
    assert!(synced(&none).unwrap_err().what.ends_with("the zone is locked"));
    assert_eq!(told(&webhook).len(), 82);
}

#[test]
fn what_a_webhook_says_is_told_with_its_address() {
    let (access, webhook) = start(Vec::new());
    let wanted = publication(access, &["app.example.org 60 A 203.0.113.10"]);
    webhook.lock().unwrap().fails = true;
    let failure = synced(&wanted).unwrap_err();
    assert!(failure.what.starts_with("provider: change zone `example.org`: POST http://127.0.0.1:"), "{failure}");
    assert!(failure.what.ends_with("/records: 500 Internal Server Error: the zone is locked"), "{failure}");
    webhook.lock().unwrap().domains = vec!["example.net", "other.example"];
    let failure = synced(&wanted).unwrap_err();
    assert!(failure.what.ends_with("serves example.net, other.example, not `example.org`"), "{failure}");
    webhook.lock().unwrap().domains.clear();
    webhook.lock().unwrap().media_type = "text/html";
    let failure = synced(&wanted).unwrap_err();
    assert!(failure.what.ends_with("answers with `text/html`"), "{failure}");
    assert!(told(&webhook).is_empty());
}
