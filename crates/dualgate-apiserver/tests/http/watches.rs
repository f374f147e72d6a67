//! Watches: where they begin, what they say, and how they end.

use std::time::Duration;

use dualgate_apiserver::{ApiServer, Options};
use serde_json::{Value, json};

use crate::support::{Next, Watch, get, server, server_with};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": app}}})
}

fn put(server: &ApiServer, name: &str, app: &str) {
    server.objects().apply(config_map(name, app)).unwrap();
}

#[test]
fn a_watch_goes_on_from_the_version_of_a_list() {
    let server = server();
    put(&server, "a", "web");
    let version = get(&server, PATH).expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    put(&server, "b", "web");
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true&resourceVersion={version}"));
    assert_eq!(watch.event(), "ADDED b");
    put(&server, "a", "db");
    server.objects().delete("ConfigMap", "default", "b").unwrap();
    assert_eq!(watch.event(), "MODIFIED a");
    let Next::Event(what, object) = watch.next() else { panic!("the watch ended") };
    assert_eq!((what.as_str(), &object["kind"]), ("DELETED b", &json!("ConfigMap")));
    assert_eq!(object["metadata"]["resourceVersion"], server.objects().version().to_string());
}

#[test]
fn a_watch_without_a_version_begins_with_what_is_there() {
    let server = server();
    put(&server, "a", "web");
    put(&server, "b", "web");
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut watch = Watch::open(&server, &format!("{PATH}?{query}"));
        assert_eq!(watch.events(2), ["ADDED a", "ADDED b"], "{query}");
        put(&server, "a", query.split('=').next_back().unwrap());
        assert_eq!(watch.event(), "MODIFIED a", "{query}");
    }
}

#[test]
fn a_streamed_list_ends_with_a_bookmark() {
    let server = server();
    put(&server, "a", "web");
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::open(&server, &format!("{PATH}?{query}"));
    assert_eq!(watch.event(), "ADDED a");
    let Next::Event(what, object) = watch.next() else { panic!("the watch ended") };
    assert_eq!(what, "BOOKMARK");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(object["metadata"]["resourceVersion"], server.objects().version().to_string());
    let refused = get(&server, &format!("{PATH}?watch=true&sendInitialEvents=true"));
    assert_eq!(refused.code, 422, "{refused:?}");
}

#[test]
fn what_stops_to_match_is_deleted_for_the_watch() {
    let server = server();
    put(&server, "a", "web");
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true&labelSelector=app%3Dweb"));
    assert_eq!(watch.event(), "ADDED a");
    put(&server, "b", "db");
    put(&server, "a", "db");
    put(&server, "b", "web");
    assert_eq!(watch.events(2), ["DELETED a", "ADDED b"]);
    let mut one = Watch::open(&server, &format!("{PATH}/b?watch=true"));
    assert_eq!(one.event(), "ADDED b");
}

#[test]
fn bookmarks_come_from_time_to_time_and_at_the_end() {
    let options = Options { bookmark_interval: Duration::from_millis(20), ..Options::default() };
    let server = server_with(options);
    let version = server.objects().version();
    let mut watch = Watch::open(
        &server,
        &format!("{PATH}?watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1"),
    );
    let mut last = None;
    let end = loop {
        match watch.next() {
            Next::Event(what, object) => {
                assert_eq!((what.as_str(), &object["kind"]), ("BOOKMARK", &json!("ConfigMap")));
                last = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            }
            other => break other,
        }
    };
    assert_eq!((end, last), (Next::End, Some(version.to_string())));
}

#[test]
fn a_version_that_is_forgotten_is_gone() {
    let server = server();
    put(&server, "a", "web");
    let version = server.objects().version();
    put(&server, "b", "web");
    server.faults().compact();
    let gone = get(&server, &format!("{PATH}?watch=true&resourceVersion={version}")).expect(410);
    assert_eq!((&gone["kind"], &gone["reason"]), (&json!("Status"), &json!("Expired")));
    assert_eq!(get(&server, &format!("{PATH}?watch=true&resourceVersion=999999")).code, 504);
}
