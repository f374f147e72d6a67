//! Lists: whole, in pages, of a version, and of many objects.

use std::time::{Duration, Instant};

use dualgate_apiserver::ApiServer;
use serde_json::{Value, json};

use crate::support::{Answer, get, server};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn fill(server: &ApiServer, names: &[&str]) {
    for name in names {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        server.objects().create(object).unwrap();
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn page(server: &ApiServer, token: &Value) -> Answer {
    get(server, &format!("{PATH}?limit=2&continue={}", token.as_str().unwrap()))
}

#[test]
fn a_list_says_its_version_and_its_items_not_what_they_are() {
    let server = server();
    fill(&server, &["b", "a"]);
    let list = get(&server, PATH).expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(list["metadata"], json!({"resourceVersion": server.objects().version().to_string()}));
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!((&list["items"][0]["kind"], &list["items"][0]["apiVersion"]), (&Value::Null, &Value::Null));
}

#[test]
fn pages_are_of_one_version_whatever_happens_meanwhile() {
    let server = server();
    fill(&server, &["a", "b", "c", "d", "e"]);
    let first = get(&server, &format!("{PATH}?limit=2")).expect(200);
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    server.objects().delete("ConfigMap", "default", "c").unwrap();
    fill(&server, &["bb"]);
    let second = page(&server, &first["metadata"]["continue"]).expect(200);
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c", "d"], &json!(1)));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let third = page(&server, &second["metadata"]["continue"]).expect(200);
    assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["e"], &Value::Null));
}

#[test]
fn a_token_that_is_too_old_expires() {
    let server = server();
    fill(&server, &["a", "b", "c"]);
    let first = get(&server, &format!("{PATH}?limit=2")).expect(200);
    server.faults().compact();
    fill(&server, &["d"]);
    server.faults().compact();
    let expired = page(&server, &first["metadata"]["continue"]).expect(410);
    assert_eq!(expired["reason"], "Expired");
    let token = expired["metadata"]["continue"].clone();
    assert_eq!(names(&page(&server, &token).expect(200)), ["c", "d"], "a reader that takes gaps can go on");
    assert_eq!(get(&server, &format!("{PATH}?continue=nonsense")).code, 400);
}

#[test]
fn a_version_can_be_asked_for() {
    let server = server();
    fill(&server, &["a"]);
    let then = server.objects().version();
    fill(&server, &["b"]);
    let list = |query: &str| get(&server, &format!("{PATH}?{query}"));
    let exact = list(&format!("resourceVersion={then}&resourceVersionMatch=Exact")).expect(200);
    assert_eq!((names(&exact), &exact["metadata"]["resourceVersion"]), (vec!["a"], &json!(then.to_string())));
    let at_least = list(&format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan")).expect(200);
    assert_eq!(names(&at_least), ["a", "b"]);
    assert_eq!(names(&list("resourceVersion=0&limit=1").expect(200)), ["a", "b"], "any version has no pages");
    assert_eq!(list("resourceVersion=99999").expect(504)["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(list("resourceVersionMatch=Exact").code, 422);
    assert_eq!(list("resourceVersion=x").code, 422);
    server.faults().compact();
    assert_eq!(list(&format!("resourceVersion={then}&resourceVersionMatch=Exact")).code, 410);
}

#[test]
fn ten_thousand_ingresses_and_slices_are_listed_in_pages() {
    let server = server();
    let objects = server.objects();
    let began = Instant::now();
    for number in 0..10_000 {
        let name = format!("app-{number:05}");
        let backend = json!({"service": {"name": name, "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        let rule = json!({"host": format!("{name}.example.org"), "http": {"paths": [path]}});
        let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": {"rules": [rule]}});
        objects.create(ingress).unwrap();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.42.0.9"], "conditions": {"ready": true}}], "ports": [{"port": 8080}],
        });
        objects.create(slice).unwrap();
    }
    let made = began.elapsed();
    let (mut octets, mut answering) = (0, Duration::ZERO);
    for path in ["/apis/networking.k8s.io/v1/ingresses", "/apis/discovery.k8s.io/v1/endpointslices"] {
        let (mut token, mut count) = (String::new(), 0);
        loop {
            let began = Instant::now();
            let page = get(&server, &format!("{path}?limit=500&continue={token}"));
            answering += began.elapsed();
            octets += page.text.len();
            let list = page.expect(200);
            count += list["items"].as_array().unwrap().len();
            let Some(next) = list["metadata"]["continue"].as_str() else { break };
            token = next.to_owned();
        }
        assert_eq!(count, 10_000, "{path}");
    }
    println!("20,000 objects: made in {made:?}; {octets} octets listed in {answering:?}");
}
