//! Findings as Events: how many, how often, and what they say.

use std::sync::Arc;
use std::time::Duration;

use dualgate_core::case::NOW;
use dualgate_core::machine::writes::events::{Answer, BURST, EACH, Events, Request};
use dualgate_core::model::finding::{Code, Finding, Place, Severity};
use dualgate_core::model::{ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse::object::object;
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn key(kind: &str, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { kind: kind.into(), name: ObjectName::new(namespace, name) }
}

fn finding(number: u32, message: &str) -> Finding {
    let place = Place::field(&key("Ingress", "apps", &format!("i{number}")), "spec.rules[0]");
    Finding::new(Code::IngressUnknownService, place, message).help("make it")
}

/// Says all that can be said for so many seconds.
fn run(events: &mut Events, from: u32, seconds: u32) -> Vec<(u32, Request)> {
    let mut said = Vec::new();
    for second in from..from + seconds {
        while let Some(request) = events.poll_request(SECOND * second, NOW + i64::from(second)) {
            said.push((second, request));
            assert_eq!(events.poll_request(SECOND * second, NOW), None, "one is under way");
            events.handle_answer(Answer::Made, SECOND * second);
        }
    }
    said
}

#[test]
fn an_event_is_of_v1_and_names_its_object_with_its_uid() {
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "i1", "namespace": "apps", "uid": "11-22"}, "spec": {"rules": [{}]},
    });
    let objects = object(&ingress, None).objects.into_iter().map(Arc::new).collect();
    let objects = ObjectSet { objects, findings: Vec::new() };
    let mut events = Events::new("home1");
    let found = [finding(1, "`x` is missing"), finding(1, "`y` is missing")];
    events.want(found.iter(), &objects, SECOND);
    let said = run(&mut events, 1, 60);
    let [(1, Request::Create { namespace, event })] = said.as_slice() else { panic!("{said:?}") };
    let name = event["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("i1.") && name.len() == 19, "{name}");
    assert_eq!(&**namespace, "apps");
    assert_eq!(
        *event,
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "apps"},
            "involvedObject": {
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "apps", "name": "i1", "uid": "11-22",
            },
            "type": "Warning", "reason": "IngressUnknownService",
            "message": "spec.rules[0]: `x` is missing; make it (and 1 more)",
            "count": 1, "firstTimestamp": "2026-11-22T00:00:01Z", "lastTimestamp": "2026-11-22T00:00:01Z",
            "source": {"component": "dualgate", "host": "home1"},
            "reportingComponent": "dualgate", "reportingInstance": "home1",
        })
    );
}

/// `kubectl describe` shows the Events of the object that is there, not those of its predecessor.
#[test]
fn an_object_that_is_made_anew_gets_an_event_of_its_own() {
    let set = |uid: &str| {
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "i1", "namespace": "apps", "uid": uid}, "spec": {"rules": [{}]},
        });
        let objects = object(&ingress, None).objects.into_iter().map(Arc::new).collect();
        ObjectSet { objects, findings: Vec::new() }
    };
    let (mut events, found) = (Events::new("home1"), [finding(1, "`x` is missing")]);
    let mut names = Vec::new();
    for (uid, second) in [("11-22", 1), ("33-44", 10)] {
        events.want(found.iter(), &set(uid), SECOND * second);
        let said = run(&mut events, second, 5);
        let [(_, Request::Create { event, .. })] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(event["involvedObject"]["uid"], uid);
        names.push(event["metadata"]["name"].clone());
    }
    assert_ne!(names[0], names[1]);
}

#[test]
fn what_comes_and_goes_is_counted_up_and_what_stays_is_said_again_before_it_is_forgotten() {
    let (objects, mut events) = (ObjectSet::default(), Events::new("home1"));
    let found = [finding(1, "`x` is missing")];
    let mut said = Vec::new();
    for minute in 0..60 {
        let at = minute * 60 + 1;
        // Every second minute it is not there.
        let now = if minute % 2 == 0 { &found[..] } else { &[] };
        events.want(now.iter(), &objects, SECOND * at);
        said.extend(run(&mut events, at, 60));
    }
    assert!(matches!(said[0].1, Request::Create { .. }));
    let Request::Count { patch, .. } = &said.last().unwrap().1 else { panic!("{said:?}") };
    assert_eq!(patch["count"], said.len());
    assert!((8..=12).contains(&said.len()), "at most every five minutes: {}", said.len());

    let mut events = Events::new("home1");
    events.want(found.iter(), &objects, SECOND);
    let said = run(&mut events, 1, 3 * 3600);
    let times: Vec<u32> = said.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [1, 3001, 6001, 9001]);
}

#[test]
fn however_many_there_are_the_rate_is_bounded_and_all_are_said_in_the_end() {
    let (objects, mut events) = (ObjectSet::default(), Events::new("home1"));
    let found: Vec<Finding> = (0..300).map(|number| finding(number, "`x` is missing")).collect();
    events.want(found.iter(), &objects, SECOND);
    let said = run(&mut events, 1, 60);
    assert_eq!(said.len(), BURST as usize + 59 / EACH.as_secs() as usize);
    let rest = run(&mut events, 61, 1800);
    assert_eq!(said.len() + rest.len(), 300);
}

#[test]
fn notes_and_what_is_about_no_object_make_no_event() {
    let (objects, mut events) = (ObjectSet::default(), Events::new("home1"));
    let mut note = finding(1, "worth knowing");
    note.severity = Severity::Note;
    let nowhere = Finding::new(Code::Syntax, Place::default(), "not YAML");
    let other = Finding::new(Code::ObjectInvalid, Place::object(&key("Widget.example.org", "a", "b")), "wrong");
    events.want([note, nowhere, other].iter(), &objects, SECOND);
    assert_eq!(events.poll_timeout(), None);
}

#[test]
fn an_event_of_a_predecessor_is_left_and_one_that_is_gone_is_made_again() {
    let (objects, mut events) = (ObjectSet::default(), Events::new("home1"));
    let node = Finding::new(Code::SiteTrap, Place::object(&key("Node", "", "edge")), "a trap");
    events.want([node].iter(), &objects, SECOND);
    let request = events.poll_request(SECOND, NOW).unwrap();
    let Request::Create { namespace, .. } = request else { panic!("{request:?}") };
    assert_eq!(&*namespace, "default");
    events.handle_answer(Answer::Exists, SECOND);
    assert_eq!(events.made(), 0);
    let later = SECOND * 3001;
    assert!(matches!(events.poll_request(later, NOW), Some(Request::Count { .. })));
    events.handle_answer(Answer::Gone, later);
    assert!(matches!(events.poll_request(later, NOW), Some(Request::Create { .. })));
    events.handle_answer(Answer::Failed, later);
    assert_eq!(events.poll_request(later, NOW), None, "a failure is a pause");
    assert!(matches!(events.poll_request(later + SECOND, NOW), Some(Request::Create { .. })));
    events.handle_answer(Answer::Made, later);
    assert_eq!(events.made(), 1);
}

#[test]
fn an_event_that_will_not_be_made_costs_one_request_and_keeps_no_other_one_waiting() {
    let (objects, mut events) = (ObjectSet::default(), Events::new("home1"));
    events.want([finding(1, "a"), finding(2, "b")].iter(), &objects, SECOND);
    assert!(matches!(events.poll_request(SECOND, NOW), Some(Request::Create { .. })));
    events.handle_answer(Answer::Refused, SECOND);
    let said = run(&mut events, 1, 3000);
    assert!(matches!(said.as_slice(), [(1, Request::Create { .. })]), "{said:?}");
    // Before the other one is forgotten it is tried again: what was wrong may be right by then.
    assert!(matches!(events.poll_request(SECOND * 3002, NOW), Some(Request::Create { .. })));
    assert_eq!(events.made(), 1);
}
