//! Server-side apply: who owns what.

use dualgate_apiserver::ApiServer;
use serde_json::{Value, json};

use crate::support::{APPLY, Answer, MERGE, patch, post, server};

const SERVICE: &str = "/api/v1/namespaces/default/services/web";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn apply(server: &ApiServer, path: &str, manager: &str, object: Value) -> Answer {
    patch(server, &format!("{path}?fieldManager={manager}"), APPLY, object)
}

fn force(server: &ApiServer, path: &str, manager: &str, object: Value) -> Answer {
    patch(server, &format!("{path}?force=true&fieldManager={manager}"), APPLY, object)
}

fn service(metadata: Value, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    for (name, value) in metadata.as_object().unwrap() {
        object["metadata"][name] = value.clone();
    }
    object
}

fn deployment(containers: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn fields(object: &Value, manager: &str, operation: &str, subresource: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let is_it = |entry: &&Value| {
        let part = entry["subresource"].as_str().unwrap_or_default();
        entry["manager"] == manager && entry["operation"] == operation && part == subresource
    };
    entries.filter(is_it).map(|entry| entry["fieldsV1"].clone()).next().unwrap_or_default()
}

#[test]
fn an_applier_owns_exactly_what_it_says() {
    let server = server();
    let wanted =
        service(json!({"labels": {"app": "web"}}), json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    let made = apply(&server, SERVICE, "me", wanted.clone()).expect(201);
    assert_eq!(
        fields(&made, "me", "Apply", ""),
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:selector": {}},
        })
    );
    assert_eq!(made["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    let again = apply(&server, SERVICE, "me", wanted).expect(200);
    assert_eq!(again, made);
}

#[test]
fn a_field_of_another_is_a_conflict_that_force_takes_over() {
    let server = server();
    apply(
        &server,
        SERVICE,
        "helm",
        service(json!({}), json!({"type": "NodePort", "ports": [{"port": 80, "name": "http"}]})),
    )
    .expect(201);
    let wanted = service(json!({}), json!({"type": "LoadBalancer", "ports": [{"port": 80, "name": "web"}]}));
    let refused = apply(&server, SERVICE, "me", wanted.clone());
    let status = refused.expect(409);
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(
        status["details"]["causes"],
        json!([
            {"reason": "FieldManagerConflict", "message": "conflict with \"helm\"", "field": ".spec.ports[port=80,protocol=\"TCP\"].name"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"helm\"", "field": ".spec.type"},
        ])
    );
    assert_eq!(
        refused.message(),
        "Apply failed with 2 conflicts: conflicts with \"helm\":\n- .spec.ports[port=80,protocol=\"TCP\"].name\n- .spec.type"
    );
    let taken = force(&server, SERVICE, "me", wanted).expect(200);
    assert_eq!((&taken["spec"]["type"], &taken["spec"]["ports"][0]["name"]), (&json!("LoadBalancer"), &json!("web")));
    assert_eq!(
        fields(&taken, "helm", "Apply", ""),
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
}

#[test]
fn what_is_left_out_goes_unless_another_owns_it() {
    let server = server();
    let labels = |labels: Value| service(json!({"labels": labels}), json!({"ports": [{"port": 80}]}));
    apply(&server, SERVICE, "me", labels(json!({"mine": "1", "ours": "2"}))).expect(201);
    apply(&server, SERVICE, "you", labels(json!({"ours": "2", "yours": "3"}))).expect(200);
    patch(&server, &format!("{SERVICE}?fieldManager=they"), MERGE, json!({"metadata": {"labels": {"theirs": "4"}}}))
        .expect(200);
    let left = apply(&server, SERVICE, "me", labels(json!({}))).expect(200);
    assert_eq!(left["metadata"]["labels"], json!({"ours": "2", "yours": "3", "theirs": "4"}));
    let left = apply(&server, SERVICE, "you", labels(json!({"ours": "5"}))).expect(200);
    assert_eq!(left["metadata"]["labels"], json!({"ours": "5", "theirs": "4"}));
}

#[test]
fn items_of_lists_are_told_apart_by_their_keys() {
    let server = server();
    let side = json!([{"name": "web", "image": "web:1"}, {"name": "side", "image": "side:1", "env": [{"name": "A", "value": "1"}]}]);
    apply(&server, DEPLOYMENT, "me", deployment(side)).expect(201);
    let env = json!([{"name": "side", "image": "side:1", "env": [{"name": "B", "value": "2"}]}]);
    let both = apply(&server, DEPLOYMENT, "you", deployment(env)).expect(200);
    let container = &both["spec"]["template"]["spec"]["containers"][1];
    assert_eq!(container["env"], json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    let without = json!([{"name": "web", "image": "web:2"}]);
    let left = apply(&server, DEPLOYMENT, "me", deployment(without)).expect(200);
    let containers = left["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers[0]["image"], "web:2");
    assert_eq!(
        (&containers[1]["image"], &containers[1]["env"]),
        (&json!("side:1"), &json!([{"name": "B", "value": "2"}]))
    );
}

#[test]
fn a_container_that_nobody_wants_is_gone() {
    let server = server();
    let two = json!([{"name": "web", "image": "web:1"}, {"name": "side", "image": "side:1"}]);
    apply(&server, DEPLOYMENT, "me", deployment(two)).expect(201);
    let left = apply(&server, DEPLOYMENT, "me", deployment(json!([{"name": "web", "image": "web:1"}]))).expect(200);
    let names: Vec<&Value> =
        left["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|of| &of["name"]).collect();
    assert_eq!(names, ["web"], "also what was filled in goes with it");
    assert_eq!(left["metadata"]["generation"], 2);
}

#[test]
fn an_atomic_list_has_one_owner() {
    let server = server();
    server
        .objects()
        .create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}))
        .unwrap();
    let status = |ip: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
    let path = format!("{SERVICE}/status");
    let written = apply(&server, &path, "dualgate", status("192.0.2.1")).expect(200);
    assert_eq!(
        fields(&written, "dualgate", "Apply", "status"),
        json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}})
    );
    let refused = apply(&server, &path, "metallb", status("192.0.2.2"));
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"dualgate\" with subresource \"status\": .status.loadBalancer.ingress"
    );
    let empty = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
    let cleared = apply(&server, &path, "dualgate", empty).expect(200);
    assert_eq!(cleared["status"], json!({"loadBalancer": {}}));
    assert_eq!(fields(&cleared, "dualgate", "Apply", "status"), Value::Null);
}

#[test]
fn conditions_are_owned_one_by_one() {
    let server = server();
    apply(&server, SERVICE, "me", service(json!({}), json!({"ports": [{"port": 80}]}))).expect(201);
    let path = format!("{SERVICE}/status");
    let condition = |name: &str, status: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "status": {"conditions": [{"type": name, "status": status}]}});
    apply(&server, &path, "a", condition("A", "True")).expect(200);
    let both = apply(&server, &path, "b", condition("B", "False")).expect(200);
    assert_eq!(
        both["status"]["conditions"],
        json!([{"type": "A", "status": "True"}, {"type": "B", "status": "False"}])
    );
    assert_eq!(apply(&server, &path, "b", condition("A", "False")).code, 409);
    assert_eq!(apply(&server, &format!("{SERVICE}x/status"), "b", condition("A", "False")).code, 400, "another name");
}

#[test]
fn other_writes_own_what_they_changed() {
    let server = server();
    let made =
        post(&server, "/api/v1/namespaces/default/services", service(json!({}), json!({"ports": [{"port": 80}]})))
            .expect(201);
    assert_eq!(fields(&made, "tests", "Update", "")["f:spec"]["f:type"], json!({}), "by the name of the program");
    assert_eq!(fields(&made, "tests", "Update", "")["f:spec"]["f:clusterIP"], Value::Null, "nobody asked for this one");
    let patched =
        patch(&server, &format!("{SERVICE}?fieldManager=ui"), MERGE, json!({"spec": {"sessionAffinity": "ClientIP"}}))
            .expect(200);
    assert_eq!(fields(&patched, "ui", "Update", "")["f:spec"]["f:sessionAffinity"], json!({}));
    assert_eq!(fields(&patched, "tests", "Update", "")["f:spec"]["f:sessionAffinity"], Value::Null);
    let refused = apply(&server, SERVICE, "me", service(json!({}), json!({"sessionAffinity": "None"})));
    let message = refused.message();
    assert!(message.starts_with("Apply failed with 1 conflict: conflict with \"ui\" using v1 at "), "{message}");
    assert!(message.ends_with(": .spec.sessionAffinity"), "{message}");
}

#[test]
fn an_apply_must_say_who_and_what() {
    let server = server();
    let wanted = service(json!({}), json!({"ports": [{"port": 80}]}));
    assert!(patch(&server, SERVICE, APPLY, wanted.clone()).message().contains("fieldManager: Required value"));
    assert_eq!(apply(&server, SERVICE, "me", json!({"metadata": {"name": "web"}})).code, 400);
    let mut managed = wanted;
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&server, SERVICE, "me", managed).message(), "metadata.managedFields must be nil");
}

#[test]
fn finalizers_are_a_set_that_managers_share() {
    let server = server();
    let with = |finalizers: Value| service(json!({"finalizers": finalizers}), json!({"ports": [{"port": 80}]}));
    apply(&server, SERVICE, "a", with(json!(["x/a", "x/both"]))).expect(201);
    let both = apply(&server, SERVICE, "b", with(json!(["x/b", "x/both"]))).expect(200);
    assert_eq!(both["metadata"]["finalizers"], json!(["x/a", "x/b", "x/both"]));
    let left = apply(&server, SERVICE, "a", with(json!([]))).expect(200);
    assert_eq!(left["metadata"]["finalizers"], json!(["x/b", "x/both"]));
}
