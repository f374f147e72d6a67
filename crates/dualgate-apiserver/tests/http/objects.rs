//! Creating, reading, changing and deleting objects, and what is refused.

use dualgate_apiserver::ApiServer;
use serde_json::{Value, json};

use crate::support::{APPLY, MERGE, STRATEGIC, ask, delete, get, patch, post, put, server};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn ingress(name: &str, host: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    json!({"metadata": {"name": name}, "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}})
}

#[test]
fn an_object_lives_from_its_creation_to_its_deletion() {
    let server = server();
    let path = "/api/v1/namespaces/default/configmaps";
    let created = post(&server, path, config_map("one", "1")).expect(201);
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(created["metadata"]["namespace"], "default");
    assert!(
        created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string(),
        "{created}"
    );
    assert_eq!(get(&server, &format!("{path}/one")).expect(200), created);

    let mut changed = created.clone();
    changed["data"]["key"] = json!("2");
    let replaced = put(&server, &format!("{path}/one"), changed.clone()).expect(200);
    assert_ne!(replaced["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!(replaced["metadata"]["uid"], created["metadata"]["uid"]);

    let conflict = put(&server, &format!("{path}/one"), changed);
    assert_eq!(conflict.expect(409)["reason"], "Conflict");
    assert_eq!(
        conflict.message(),
        "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    assert_eq!(delete(&server, &format!("{path}/one")).expect(200)["status"], "Success");
    let gone = get(&server, &format!("{path}/one"));
    assert_eq!(gone.expect(404)["details"], json!({"name": "one", "group": "", "kind": "configmaps"}));
    assert_eq!(gone.message(), "configmaps \"one\" not found");
}

#[test]
fn writing_the_same_again_is_no_write() {
    let server = server();
    let path = "/api/v1/namespaces/default/configmaps/one";
    let first = post(&server, "/api/v1/namespaces/default/configmaps", config_map("one", "1")).expect(201);
    assert_eq!(put(&server, path, config_map("one", "1")).expect(200), first);
    assert_eq!(patch(&server, path, MERGE, json!({"data": {"key": "1", "none": null}})).expect(200), first);
    let applied = patch(&server, &format!("{path}?fieldManager=me"), APPLY, config_map("one", "1")).expect(200);
    assert_eq!(patch(&server, &format!("{path}?fieldManager=me"), APPLY, config_map("one", "1")).expect(200), applied);
    assert_ne!(applied["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[test]
fn a_dry_run_says_what_would_be_and_leaves_everything_as_it_is() {
    let server = server();
    let path = "/api/v1/namespaces/default/configmaps";
    let made = post(&server, &format!("{path}?dryRun=All"), config_map("one", "1")).expect(201);
    assert_eq!(made["data"]["key"], "1");
    assert_eq!(get(&server, &format!("{path}/one")).code, 404);
    post(&server, path, config_map("one", "1")).expect(201);
    let version = server.objects().version();
    let patched = patch(&server, &format!("{path}/one?dryRun=All"), MERGE, json!({"data": {"key": "2"}})).expect(200);
    assert_eq!(patched["data"]["key"], "2");
    assert_eq!(ask(&server, "DELETE", &format!("{path}/one"), "application/json", r#"{"dryRun": ["All"]}"#).code, 200);
    assert_eq!(server.objects().version(), version);
}

#[test]
fn mistakes_are_answered_in_the_words_of_kubernetes() {
    let server = server();
    post(&server, SERVICES, service("web", json!({"ports": [{"port": 80}]}))).expect(201);
    let without_type = json!({"metadata": {"name": "web"}, "spec": {"rules": [{"http": {"paths": [
        {"path": "/", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
    ]}}]}});
    let cases: [(&str, Value, u16, &str); 9] = [
        (SERVICES, service("web", json!({"ports": [{"port": 80}]})), 409, "services \"web\" already exists"),
        (
            SERVICES,
            service("Web", json!({"ports": [{"port": 80}]})),
            422,
            "Service \"Web\" is invalid: metadata.name: Invalid value: \"Web\": a DNS-1035 label",
        ),
        (SERVICES, service("db", json!({})), 422, "Service \"db\" is invalid: spec.ports: Required value"),
        (
            SERVICES,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}),
            400,
            "Pod in version \"v1\" cannot be handled as a Service",
        ),
        (
            "/api/v1/namespaces/none/services",
            service("web", json!({"ports": [{"port": 80}]})),
            404,
            "namespaces \"none\" not found",
        ),
        (
            INGRESSES,
            without_type,
            422,
            "Ingress.networking.k8s.io \"web\" is invalid: spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        ),
        (
            "/api/v1/services",
            service("db", json!({"ports": [{"port": 80}]})),
            405,
            "the server does not allow this method",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "x"}, "spec": {}}),
            422,
            "Deployment.apps \"x\" is invalid: [spec.selector: Required value, spec.template.spec.containers: Required value",
        ),
        ("/api/v1/namespaces/default/things", json!({}), 404, "the server could not find the requested resource"),
    ];
    for (path, object, code, message) in cases {
        let refused = post(&server, path, object);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message().starts_with(message), "{}", refused.message());
        assert_eq!(refused.json()["status"], "Failure");
    }
}

#[test]
fn a_service_gets_addresses_of_its_families_and_keeps_them() {
    let server = server();
    let one = post(&server, SERVICES, service("one", json!({"ports": [{"port": 80}]}))).expect(201);
    assert_eq!(one["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(one["spec"]["clusterIPs"], json!([one["spec"]["clusterIP"]]));
    assert_eq!(one["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    let dual =
        json!({"type": "LoadBalancer", "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80, "name": "http"}]});
    let dual = post(&server, SERVICES, service("dual", dual)).expect(201);
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let addresses: Vec<&str> =
        dual["spec"]["clusterIPs"].as_array().unwrap().iter().map(|of| of.as_str().unwrap()).collect();
    assert!(addresses[0].starts_with("10.43.") && addresses[1].starts_with("fd43:43::"), "{addresses:?}");
    assert_ne!(one["spec"]["clusterIP"], dual["spec"]["clusterIP"]);
    assert!(dual["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30_000);

    let update =
        json!({"type": "LoadBalancer", "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80, "name": "web"}]});
    let updated = put(&server, &format!("{SERVICES}/dual"), service("dual", update)).expect(200);
    assert_eq!(updated["spec"]["clusterIPs"], dual["spec"]["clusterIPs"]);
    assert_eq!(updated["spec"]["ports"][0]["nodePort"], dual["spec"]["ports"][0]["nodePort"]);
    let moved = patch(
        &server,
        &format!("{SERVICES}/dual"),
        MERGE,
        json!({"spec": {"clusterIP": "10.43.9.9", "clusterIPs": null}}),
    );
    assert!(moved.message().ends_with("may not change once set"), "{moved:?}");
    let headless =
        post(&server, SERVICES, service("none", json!({"clusterIP": "None", "ports": [{"port": 80}]}))).expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let server = server();
    let path = &format!("{INGRESSES}/web");
    post(&server, INGRESSES, ingress("web", "a.example")).expect(201);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, "spec": {"rules": []}});
    let written = patch(&server, &format!("{path}/status"), MERGE, status.clone()).expect(200);
    assert_eq!(written["status"], status["status"]);
    assert_eq!(written["spec"]["rules"][0]["host"], "a.example");
    assert_eq!(written["metadata"]["generation"], 1);
    let mut changed = ingress("web", "b.example");
    changed["status"] = json!({"loadBalancer": {}});
    let replaced = put(&server, path, changed).expect(200);
    assert_eq!(replaced["status"], status["status"]);
    assert_eq!(replaced["metadata"]["generation"], 2);
    assert_eq!(get(&server, &format!("{path}/status")).expect(200), replaced);
}

#[test]
fn the_status_of_a_service_without_balancer_stays_empty() {
    let server = server();
    post(&server, SERVICES, service("web", json!({"ports": [{"port": 80}]}))).expect(201);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": [{"type": "x"}]}});
    let written = patch(&server, &format!("{SERVICES}/web/status"), STRATEGIC, status).expect(200);
    assert_eq!(written["status"], json!({"loadBalancer": {}, "conditions": [{"type": "x"}]}));
}

#[test]
fn finalizers_hold_an_object_back() {
    let server = server();
    let path = "/api/v1/namespaces/default/configmaps/one";
    let mut object = config_map("one", "1");
    object["metadata"]["finalizers"] = json!(["example.org/wait"]);
    post(&server, "/api/v1/namespaces/default/configmaps", object).expect(201);
    assert!(delete(&server, path).expect(200)["metadata"]["deletionTimestamp"].is_string());
    assert!(get(&server, path).expect(200)["metadata"]["deletionTimestamp"].is_string());
    patch(&server, path, MERGE, json!({"metadata": {"finalizers": null}})).expect(200);
    assert_eq!(get(&server, path).code, 404);
}

#[test]
fn a_namespace_takes_its_objects_along() {
    let server = server();
    post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "apps"}})).expect(201);
    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.org/wait"]);
    post(&server, "/api/v1/namespaces/apps/configmaps", config_map("free", "1")).expect(201);
    post(&server, "/api/v1/namespaces/apps/configmaps", held).expect(201);
    assert_eq!(delete(&server, "/api/v1/namespaces/apps").expect(200)["status"]["phase"], "Terminating");
    assert_eq!(get(&server, "/api/v1/namespaces/apps/configmaps/free").code, 404);
    let refused = post(&server, "/api/v1/namespaces/apps/configmaps", config_map("late", "1"));
    assert_eq!(refused.expect(403)["reason"], "Forbidden");
    patch(&server, "/api/v1/namespaces/apps/configmaps/held", MERGE, json!({"metadata": {"finalizers": []}}))
        .expect(200);
    assert_eq!(get(&server, "/api/v1/namespaces/apps").code, 404);
}

#[test]
fn deletions_have_conditions() {
    let server = server();
    let path = "/api/v1/namespaces/default/configmaps/one";
    let made = post(&server, "/api/v1/namespaces/default/configmaps", config_map("one", "1")).expect(201);
    let with = |conditions: Value| {
        let body = json!({"preconditions": conditions}).to_string();
        ask(&server, "DELETE", path, "application/json", &body).code
    };
    assert_eq!(with(json!({"uid": "other"})), 409);
    assert_eq!(with(json!({"resourceVersion": "1"})), 409);
    assert_eq!(
        with(json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]})),
        200
    );
}

#[test]
fn a_collection_is_deleted_by_its_labels() {
    let server = server();
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = config_map(name, "1");
        object["metadata"]["labels"] = json!({"app": app});
        post(&server, "/api/v1/namespaces/default/configmaps", object).expect(201);
    }
    delete(&server, "/api/v1/namespaces/default/configmaps?labelSelector=app%3Dweb").expect(200);
    let left = server.objects().list("ConfigMap", Some("default"));
    assert_eq!(left.iter().map(|of| &of["metadata"]["name"]).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_lease_goes_to_the_one_who_saw_its_last_version() {
    let server = server();
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "dualgate"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}});
    let made = post(&server, path, lease.clone()).expect(201);
    let mut by_b = made.clone();
    by_b["spec"]["holderIdentity"] = json!("b");
    let mut by_c = made;
    by_c["spec"]["holderIdentity"] = json!("c");
    assert_eq!(put(&server, &format!("{path}/dualgate"), by_b).code, 200);
    assert_eq!(put(&server, &format!("{path}/dualgate"), by_c).code, 409);
    let blind = put(&server, &format!("{path}/dualgate"), lease);
    assert!(blind.message().contains("must be specified for an update"), "{blind:?}");
    assert_eq!(server.objects().get("Lease", "default", "dualgate").unwrap()["spec"]["holderIdentity"], "b");
}

#[test]
fn secrets_are_encoded_and_checked() {
    let server = server();
    let path = "/api/v1/namespaces/default/secrets";
    let made =
        post(&server, path, json!({"metadata": {"name": "s"}, "stringData": {"password": "change-me"}})).expect(201);
    assert_eq!(made["data"], json!({"password": "Y2hhbmdlLW1l"}));
    assert_eq!((&made["type"], &made["stringData"]), (&json!("Opaque"), &Value::Null));
    let tls = json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "YQ=="}});
    assert!(post(&server, path, tls).message().contains("data[tls.key]: Required value"));
    assert_eq!(post(&server, path, json!({"metadata": {"name": "u"}, "data": {"a": "!"}})).code, 422);
}

#[test]
fn a_generated_name_is_new_each_time() {
    let server = server();
    let event = json!({"metadata": {"generateName": "web."}, "involvedObject": {"kind": "Ingress", "name": "web"}});
    let path = "/api/v1/namespaces/default/events";
    let names = [post(&server, path, event.clone()).expect(201), post(&server, path, event).expect(201)];
    let names = names.map(|of| of["metadata"]["name"].as_str().unwrap().to_owned());
    assert!(names.iter().all(|name| name.len() == 9 && name.starts_with("web.")) && names[0] != names[1], "{names:?}");
    let found = get(&server, &format!("{path}?fieldSelector=involvedObject.name%3Dweb")).expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
}

#[test]
fn the_default_class_goes_to_ingresses_that_name_none() {
    let server = server();
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {
        "name": "dualgate", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
    }, "spec": {"controller": "dualgate.dev/ingress-controller"}});
    assert_eq!(
        post(&server, INGRESSES, ingress("before", "a.example")).expect(201)["spec"]["ingressClassName"],
        Value::Null
    );
    server.objects().apply(class).unwrap();
    assert_eq!(
        post(&server, INGRESSES, ingress("after", "a.example")).expect(201)["spec"]["ingressClassName"],
        "dualgate"
    );
    let mut old_style = ingress("old", "a.example");
    old_style["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "traefik"});
    assert_eq!(post(&server, INGRESSES, old_style).expect(201)["spec"]["ingressClassName"], Value::Null);
}

#[test]
fn a_definition_brings_a_kind_and_takes_it_away() {
    let server = server();
    let path = "/apis/traefik.io/v1alpha1/namespaces/default/middlewares";
    assert_eq!(get(&server, path).code, 404);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "middlewares.traefik.io"},
        "spec": {
            "group": "traefik.io", "scope": "Namespaced", "names": {"kind": "Middleware", "plural": "middlewares"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true}],
        },
    });
    let applied = server.objects().apply(definition).unwrap();
    assert_eq!(applied["status"]["conditions"][1]["type"], "Established");
    let object =
        json!({"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": "m"}, "spec": {"x": 1}});
    post(&server, path, object).expect(201);
    let list = get(&server, path).expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("MiddlewareList"), &json!("Middleware")));
    assert_eq!(get(&server, "/apis/traefik.io/v1alpha1").expect(200)["resources"][0]["name"], "middlewares");
    delete(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/middlewares.traefik.io").expect(200);
    assert_eq!(get(&server, path).code, 404);
}

#[test]
fn the_server_says_what_it_serves() {
    let server = server();
    for path in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(get(&server, path).text, "ok");
    }
    assert_eq!(get(&server, "/version").expect(200)["major"], "1");
    assert_eq!(get(&server, "/api").expect(200)["versions"], json!(["v1"]));
    let groups = get(&server, "/apis").expect(200);
    let names: Vec<&Value> = groups["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert!(names.contains(&&json!("networking.k8s.io")) && !names.contains(&&json!("")), "{names:?}");
    let core = get(&server, "/api/v1").expect(200);
    let services = core["resources"].as_array().unwrap().iter().filter(|of| of["kind"] == "Service");
    assert_eq!(services.map(|of| &of["name"]).collect::<Vec<_>>(), ["services", "services/status"]);
    assert_eq!(get(&server, "/openapi/v2").expect(200)["swagger"], "2.0");
    assert_eq!(get(&server, "/openapi/v3").code, 404);
}

#[test]
fn no_body_brings_the_server_down() {
    let server = server();
    let places = [
        "/metadata",
        "/metadata/labels",
        "/metadata/finalizers",
        "/metadata/managedFields",
        "/metadata/ownerReferences",
        "/spec",
        "/status",
        "/data",
        "/stringData",
        "/type",
        "/rules",
        "/roleRef",
        "/subjects",
        "/endpoints",
        "/ports",
        "/spec/ports",
        "/spec/type",
        "/spec/clusterIPs",
        "/spec/ipFamilies",
        "/spec/selector",
        "/spec/strategy",
        "/spec/template",
        "/spec/template/spec",
        "/spec/template/spec/containers",
        "/spec/containers",
        "/spec/rules",
        "/spec/tls",
        "/spec/defaultBackend",
        "/spec/names",
        "/spec/versions",
        "/spec/podCIDRs",
        "/spec/egress",
        "/spec/parameters",
    ];
    let odd = [json!(null), json!(7), json!("x"), json!([]), json!([7, "x", {}]), json!({}), json!({"x": {"y": [1]}})];
    let kinds = [
        "Namespace",
        "Node",
        "Service",
        "Secret",
        "Pod",
        "Event",
        "PersistentVolumeClaim",
        "Deployment",
        "DaemonSet",
        "StatefulSet",
        "Ingress",
        "IngressClass",
        "NetworkPolicy",
        "EndpointSlice",
        "Lease",
        "RoleBinding",
        "CustomResourceDefinition",
    ];
    for resource in resources(&server).iter().filter(|of| kinds.contains(&text(&of["kind"]))) {
        for (place, value) in places.iter().flat_map(|place| odd.iter().map(move |value| (place, value))) {
            let mut object =
                json!({"metadata": {"name": "x"}, "kind": resource["kind"], "apiVersion": resource["version"]});
            let at = place.split('/').skip(1).fold(&mut object, |at, name| &mut at[name]);
            *at = value.clone();
            let path = text(&resource["path"]);
            ask(&server, "POST", path, "application/json", &object.to_string());
            ask(&server, "PUT", &format!("{path}/x"), "application/json", &object.to_string());
            patch(&server, &format!("{path}/x?fieldManager=me&force=true"), APPLY, object);
        }
    }
    assert_eq!(get(&server, "/healthz").text, "ok");
}

/// Every resource that has a collection: its `kind`, its `version` and the `path` of that collection.
fn resources(server: &ApiServer) -> Vec<Value> {
    let groups = get(server, "/apis").expect(200);
    let groups = groups["groups"].as_array().unwrap().iter();
    let versions =
        groups.map(|group| text(&group["preferredVersion"]["groupVersion"]).to_owned()).chain(["v1".to_owned()]);
    let of_version = |version: String| {
        let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        let described = get(server, &root).expect(200);
        let resources = described["resources"].as_array().unwrap().iter().filter(|of| !text(&of["name"]).contains('/'));
        let resource = |of: &Value| {
            let namespace = if of["namespaced"] == true { "/namespaces/default" } else { "" };
            let path = format!("{root}{namespace}/{}", text(&of["name"]));
            json!({"kind": of["kind"], "version": version, "path": path})
        };
        resources.map(resource).collect::<Vec<_>>()
    };
    versions.flat_map(of_version).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
