//! What can be made to go wrong.

use std::time::{Duration, Instant};

use dualgate_apiserver::{ApiServer, Refusal, Verb};
use serde_json::json;

use crate::support::{LIMIT, Next, Watch, field, get, post, server, try_ask};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn put(server: &ApiServer, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    server.objects().create(object).unwrap();
}

#[test]
fn a_server_that_is_down_cuts_everything_until_it_is_up() {
    let server = server();
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    server.faults().down();
    assert_eq!(watch.next(), Next::Cut);
    assert!(try_ask(server.address(), "GET", PATH, "", "").is_err());
    server.faults().up();
    assert_eq!(get(&server, PATH).code, 200);
}

#[test]
fn connections_are_cut_and_new_ones_are_let_in() {
    let server = server();
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    server.faults().cut_connections();
    assert_eq!(watch.next(), Next::Cut);
    assert_eq!(get(&server, PATH).code, 200);
}

#[test]
fn watches_are_cut_after_so_many_events() {
    let server = server();
    server.faults().cut_watches_after(2);
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    for name in ["a", "b", "c"] {
        put(&server, name);
    }
    assert_eq!(watch.events(2), ["ADDED a", "ADDED b"]);
    assert_eq!(watch.next(), Next::Cut);
    server.faults().clear();
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    assert_eq!(watch.events(3), ["ADDED a", "ADDED b", "ADDED c"]);
}

#[test]
fn a_stale_watch_says_later_what_it_held_back() {
    let server = server();
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    let mut other = Watch::open(&server, &format!("{PATH}?watch=true"));
    put(&server, "a");
    assert_eq!((watch.event(), other.event()), ("ADDED a".into(), "ADDED a".into()));
    server.faults().hold_watches();
    put(&server, "b");
    assert_eq!(get(&server, PATH).expect(200)["items"].as_array().unwrap().len(), 2, "lists know it");
    server.faults().release_watches();
    assert_eq!((watch.event(), other.event()), ("ADDED b".into(), "ADDED b".into()));
}

#[test]
fn a_watch_that_falls_behind_the_history_gets_an_error_event() {
    let server = server();
    put(&server, "a");
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    assert_eq!(watch.event(), "ADDED a");
    server.faults().hold_watches();
    put(&server, "b");
    server.faults().compact();
    server.faults().release_watches();
    let Next::Event(what, status) = watch.next() else { panic!("the watch ended") };
    assert_eq!((what.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(watch.next(), Next::End);
}

#[test]
fn requests_that_fit_are_refused_so_many_times() {
    let server = server();
    let refusal = Refusal { verb: Some(Verb::List), path: "/configmaps".into(), times: 2, ..Refusal::once(503) };
    server.faults().refuse(refusal);
    server.faults().refuse(Refusal { retry_after: Some(7), verb: Some(Verb::Create), ..Refusal::once(429) });
    assert_eq!(get(&server, "/api/v1/secrets").code, 200);
    let codes: Vec<u16> = (0..3).map(|_| get(&server, PATH).code).collect();
    assert_eq!(codes, [503, 503, 200]);
    let refused = post(&server, PATH, json!({"metadata": {"name": "a"}}));
    assert_eq!((refused.code, field(&refused.head, "retry-after").as_deref()), (429, Some("7")));
    assert_eq!(post(&server, PATH, json!({"metadata": {"name": "a"}})).code, 201);
}

#[test]
fn lists_are_slow_and_other_requests_are_not_in_their_way() {
    let server = server();
    server.faults().slow_lists(Duration::from_millis(300));
    let began = Instant::now();
    assert_eq!(get(&server, PATH).code, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn requests_are_remembered_with_who_asked_and_how_it_ended() {
    let server = server();
    let address = server.address();
    let asking = std::thread::spawn(move || {
        let body = r#"{"metadata": {"name": "a"}}"#;
        try_ask(address, "POST", &format!("{PATH}?fieldManager=me"), "application/json", body).unwrap();
        try_ask(address, "POST", &format!("{PATH}?fieldManager=me"), "application/json", body).unwrap();
    });
    let seen = server.wait_for(LIMIT, |requests| (requests.len() == 2).then(|| requests.to_vec())).unwrap();
    asking.join().unwrap();
    let shown = seen.iter().map(|of| {
        (
            of.verb,
            of.resource.as_str(),
            of.namespace.as_str(),
            of.field_manager.as_str(),
            of.user_agent.as_str(),
            of.code,
        )
    });
    let expected = |code| (Verb::Create, "configmaps", "default", "me", "tests/1", code);
    assert_eq!(shown.collect::<Vec<_>>(), [expected(201), expected(409)]);
    assert_eq!(server.count(dualgate_apiserver::Request::has_written), 1);
    server.forget_requests();
    assert_eq!(server.requests(), []);
}

#[test]
fn dropping_the_server_ends_hanging_watches() {
    let server = server();
    let mut watch = Watch::open(&server, &format!("{PATH}?watch=true"));
    let address = server.address();
    drop(server);
    assert_eq!(watch.next(), Next::Cut);
    assert!(try_ask(address, "GET", PATH, "", "").is_err());
}
