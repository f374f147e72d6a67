//! Who asks, and what they may do.

use dualgate_apiserver::{ApiServer, Authorization, Options, User};
use serde_json::{Value, json};

use crate::support::{APPLY, Answer, MERGE, STRATEGIC, ask, server_with};

const GROUP: &str = "rbac.authorization.k8s.io";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";

struct Guarded(ApiServer);

impl Guarded {
    /// With the namespaces `apps` and `other`, and an Ingress and a Service in each.
    fn new() -> Self {
        let server = server_with(Options { authorization: Authorization::Rbac, ..Options::default() });
        for namespace in ["apps", "other"] {
            let all = [
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                       "metadata": {"name": "shop", "namespace": namespace},
                       "spec": {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}}),
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": namespace},
                       "spec": {"ports": [{"port": 80}]}}),
            ];
            all.into_iter().for_each(|object| drop(server.objects().create(object).unwrap()));
        }
        Self(server)
    }

    /// A role of the cluster, or of a namespace, for these subjects.
    fn grant(&self, namespace: &str, name: &str, rules: Value, subjects: Value) {
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        let metadata = json!({"name": name, "namespace": namespace});
        let version = format!("{GROUP}/v1");
        let objects = self.0.objects();
        objects.apply(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules})).unwrap();
        let role = json!({"apiGroup": GROUP, "kind": kind, "name": name});
        let kind = format!("{kind}Binding");
        let binding = json!({
            "apiVersion": version, "kind": kind, "metadata": metadata, "roleRef": role, "subjects": subjects,
        });
        objects.apply(binding).unwrap();
    }

    fn ask(&self, token: &str, method: &str, path: &str, content_type: &str, body: Value) -> Answer {
        // The head's next line.
        let content_type = format!("{content_type}\r\nauthorization: Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(&self.0, method, path, &content_type, &body)
    }

    fn get(&self, token: &str, path: &str) -> Answer {
        self.ask(token, "GET", path, "application/json", Value::Null)
    }
}

fn account() -> Value {
    json!([{"kind": "ServiceAccount", "name": "reader", "namespace": "apps"}])
}

#[test]
fn who_is_not_known_is_asked_who_they_are_and_an_admin_may_do_everything() {
    let guarded = Guarded::new();
    for path in [INGRESSES, "/api/v1/namespaces", "/version", "/nowhere"] {
        let refused = ask(&guarded.0, "GET", path, "application/json", "");
        assert_eq!((refused.code, refused.message()), (401, "Unauthorized".to_owned()), "{path}");
        assert_eq!(guarded.get("wrong", path).code, 401, "{path}");
    }
    let whole = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
        "reason": "Unauthorized", "code": 401,
    });
    assert_eq!(guarded.get("wrong", INGRESSES).json(), whole);
    let admin = guarded.0.token(User::admin());
    assert_eq!(guarded.get(&admin, INGRESSES).expect(200)["items"].as_array().unwrap().len(), 2);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "more"}});
    guarded.ask(&admin, "POST", "/api/v1/namespaces", "application/json", space).expect(201);
    guarded.0.revoke(&admin);
    assert_eq!(guarded.get(&admin, INGRESSES).code, 401);
    let users: Vec<String> = guarded.0.requests().into_iter().map(|request| request.user).collect();
    assert_eq!(users[users.len() - 2..], ["kubernetes-admin", ""]);
}

#[test]
fn a_role_of_the_cluster_counts_everywhere_and_one_of_a_namespace_there() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let refused = guarded.get(&token, INGRESSES);
    let words = "ingresses.networking.k8s.io is forbidden: User \"system:serviceaccount:apps:reader\" cannot list resource \
                 \"ingresses\" in API group \"networking.k8s.io\" at the cluster scope";
    assert_eq!((refused.code, refused.message()), (403, words.to_owned()));
    assert_eq!(refused.json()["reason"], "Forbidden");
    guarded.get(&token, "/version").expect(200);
    guarded.get(&token, "/apis/networking.k8s.io/v1").expect(200);

    let rules = json!([{"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["get", "list"]}]);
    guarded.grant("apps", "here", rules.clone(), account());
    guarded.get(&token, "/apis/networking.k8s.io/v1/namespaces/apps/ingresses").expect(200);
    guarded.get(&token, "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/shop").expect(200);
    for path in [
        INGRESSES,
        "/apis/networking.k8s.io/v1/namespaces/other/ingresses",
        "/apis/networking.k8s.io/v1/namespaces/apps/ingresses?watch=true&timeoutSeconds=1",
        "/api/v1/namespaces/apps/services",
    ] {
        assert_eq!(guarded.get(&token, path).code, 403, "{path}");
    }
    let refused = guarded.get(&token, "/apis/networking.k8s.io/v1/namespaces/other/ingresses/shop");
    let words = "ingresses.networking.k8s.io \"shop\" is forbidden: User \"system:serviceaccount:apps:reader\" cannot get \
                 resource \"ingresses\" in API group \"networking.k8s.io\" in the namespace \"other\"";
    assert_eq!((refused.code, refused.message()), (403, words.to_owned()));

    guarded.grant("", "everywhere", rules, json!([{"kind": "Group", "name": "system:serviceaccounts:apps"}]));
    guarded.get(&token, INGRESSES).expect(200);
    guarded.0.objects().delete("ClusterRole", "", "everywhere").unwrap();
    assert_eq!(guarded.get(&token, INGRESSES).code, 403, "what is taken away counts at once");
}

#[test]
fn a_binding_of_a_namespace_may_give_a_role_of_the_cluster_there() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::new("maria", &[]));
    let rules = json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}]);
    guarded.grant("", "all", rules, json!([{"kind": "User", "name": "nobody"}]));
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": {"name": "all", "namespace": "apps"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "all"},
        "subjects": [{"kind": "User", "name": "maria"}],
    });
    guarded.0.objects().apply(binding).unwrap();
    guarded.get(&token, "/api/v1/namespaces/apps/services").expect(200);
    guarded.get(&token, "/api/v1/namespaces/apps").expect(200);
    for path in ["/api/v1/services", "/api/v1/namespaces/other/services", "/api/v1/namespaces/other", INGRESSES] {
        assert_eq!(guarded.get(&token, path).code, 403, "{path}");
    }
}

#[test]
fn rules_name_parts_of_objects_and_single_objects() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let rules = json!([
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["*/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get", "list", "create", "patch"]},
    ]);
    guarded.grant("", "parts", rules, account());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.168.178.10"}]}}});
    for path in ["/api/v1/namespaces/apps/services/shop", "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/shop"] {
        guarded.ask(&token, "PATCH", &format!("{path}/status"), MERGE, status.clone()).expect(200);
        assert_eq!(guarded.ask(&token, "PATCH", path, MERGE, json!({})).code, 403, "{path}");
        assert_eq!(
            guarded.ask(&token, "PUT", &format!("{path}/status"), "application/json", json!({})).code,
            403,
            "{path}"
        );
    }
    let secrets = "/api/v1/namespaces/apps/secrets";
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    assert_eq!(guarded.ask(&token, "POST", secrets, "application/json", secret("one")).code, 403, "it has no name yet");
    let apply =
        |name: &str| guarded.ask(&token, "PATCH", &format!("{secrets}/{name}?fieldManager=me"), APPLY, secret(name));
    apply("one").expect(201);
    assert_eq!(apply("two").code, 403);
    guarded.get(&token, &format!("{secrets}/one")).expect(200);
    guarded.get(&token, &format!("{secrets}?fieldSelector=metadata.name%3Done")).expect(200);
    assert_eq!(guarded.get(&token, secrets).code, 403);
}

#[test]
fn applying_what_is_not_there_needs_the_right_to_create_it() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let may = |verbs: Value| {
        let rules = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": verbs}]);
        guarded.grant("", "nodes", rules, account());
    };
    let apply = || {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
        guarded.ask(&token, "PATCH", "/api/v1/nodes/a?fieldManager=me", APPLY, node)
    };
    may(json!(["patch"]));
    let refused = apply();
    // That is all that an API server says of it.
    assert_eq!((refused.code, refused.message()), (403, "nodes \"a\" is forbidden: ".to_owned()));
    may(json!(["patch", "create"]));
    apply().expect(201);
    may(json!(["patch"]));
    apply().expect(200);
    let review = |verb: &str| {
        let spec = json!({"resourceAttributes": {"verb": verb, "resource": "nodes", "name": "a"}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        guarded.ask(&token, "POST", path, "application/json", json!({"spec": spec})).expect(201)["status"].clone()
    };
    assert_eq!((review("patch"), review("create")), (json!({"allowed": true}), json!({"allowed": false})));
}

#[test]
fn each_way_to_ask_needs_the_verb_of_its_own() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let all = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses";
    let one = format!("{all}/shop");
    let ingress = |name: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
               "spec": {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}})
    };
    let nothing = Value::Null;
    let asks = [
        ("get", "GET", one.clone(), "application/json", nothing.clone(), 200),
        ("list", "GET", all.to_owned(), "application/json", nothing.clone(), 200),
        ("list", "GET", format!("{all}?watch=false"), "application/json", nothing.clone(), 200),
        ("watch", "GET", format!("{all}?watch=true&timeoutSeconds=1"), "application/json", nothing.clone(), 200),
        ("create", "POST", all.to_owned(), "application/json", ingress("new"), 201),
        ("update", "PUT", one.clone(), "application/json", ingress("shop"), 200),
        ("patch", "PATCH", one.clone(), MERGE, json!({"metadata": {"labels": {"a": "b"}}}), 200),
        ("patch", "PATCH", one.clone(), STRATEGIC, json!({"metadata": {"labels": {"a": "c"}}}), 200),
        ("patch", "PATCH", format!("{one}?fieldManager=me&force=true"), APPLY, ingress("shop"), 200),
        ("delete", "DELETE", format!("{all}/new"), "application/json", nothing.clone(), 200),
        ("deletecollection", "DELETE", all.to_owned(), "application/json", nothing, 200),
    ];
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let grant = |verbs: &[&str]| {
        let rules = json!([{"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": verbs}]);
        guarded.grant("", "reader", rules, account());
    };
    for (verb, method, path, content_type, body, code) in asks {
        let others: Vec<&str> = verbs.into_iter().filter(|other| *other != verb).collect();
        grant(&others);
        let refused = guarded.ask(&token, method, &path, content_type, body.clone());
        assert_eq!(refused.code, 403, "{method} {path}");
        assert!(refused.message().contains(&format!("cannot {verb} resource \"ingresses\"")), "{}", refused.message());
        grant(&[verb]);
        guarded.ask(&token, method, &path, content_type, body).expect_code(code);
    }
    let refused = guarded.0.count(|request| request.code == 403 && request.resource == "ingresses.networking.k8s.io");
    assert_eq!(refused, 11, "what is refused was asked");
}

#[test]
fn a_name_in_a_selector_is_one_for_lists_and_watches_alone() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let verbs = json!(["list", "watch", "create", "deletecollection"]);
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": verbs}]);
    guarded.grant("apps", "one", rules, account());
    let secrets = "/api/v1/namespaces/apps/secrets";
    for selector in ["metadata.name%3Done", "metadata.name%3D%3Done", "type%3DOpaque,metadata.name%3Done"] {
        guarded.get(&token, &format!("{secrets}?fieldSelector={selector}")).expect(200);
        let watch = format!("{secrets}?watch=true&timeoutSeconds=1&fieldSelector={selector}");
        guarded.get(&token, &watch).expect_code(200);
    }
    for selector in ["metadata.name!%3Done", "metadata.name%3Dtwo", "type%3DOpaque", "metadata.name%3Done,nonsense"] {
        let refused = guarded.get(&token, &format!("{secrets}?fieldSelector={selector}"));
        assert_eq!(refused.code, 403, "{selector}");
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "two"}});
    let named = format!("{secrets}?fieldSelector=metadata.name%3Done");
    assert_eq!(guarded.ask(&token, "POST", &named, "application/json", secret).code, 403);
    assert_eq!(guarded.ask(&token, "DELETE", &named, "application/json", Value::Null).code, 403);
}

#[test]
fn a_status_of_what_is_not_there_and_a_patch_of_it_need_no_right_to_create_it() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let rules = json!([
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["patch", "update"]},
    ]);
    guarded.grant("", "writer", rules, account());
    let gone = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/gone/status?fieldManager=me";
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "gone"}});
    assert_eq!(guarded.ask(&token, "PATCH", gone, APPLY, ingress).code, 404);
    let event = "/api/v1/namespaces/apps/events/gone";
    assert_eq!(guarded.ask(&token, "PATCH", event, MERGE, json!({"count": 2})).code, 404);
    // An Event is one of those that an update makes.
    let whole = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "gone", "namespace": "apps"}});
    assert_eq!(guarded.ask(&token, "PUT", event, "application/json", whole).code, 403);
}

#[test]
fn who_may_not_ask_for_a_kind_is_not_told_whether_there_is_one() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    let admin = guarded.0.token(User::admin());
    let routes = "/apis/gateway.networking.k8s.io/v1/namespaces/apps/httproutes";
    let words = "httproutes.gateway.networking.k8s.io is forbidden: User \"system:serviceaccount:apps:reader\" cannot list \
                 resource \"httproutes\" in API group \"gateway.networking.k8s.io\" in the namespace \"apps\"";
    let refused = guarded.get(&token, routes);
    assert_eq!((refused.code, refused.message()), (403, words.to_owned()));
    assert_eq!(guarded.get(&admin, routes).code, 404);
    let rules = json!([{"apiGroups": ["*"], "resources": ["httproutes"], "verbs": ["*"]}]);
    guarded.grant("apps", "routes", rules, account());
    assert_eq!(guarded.get(&token, routes).code, 404);
    assert_eq!(guarded.get(&token, &format!("{routes}/one/status")).code, 403, "a part of it is another resource");
    assert_eq!(guarded.get(&token, "/api/v1/namespaces/apps/tables").code, 403);
}

#[test]
fn what_is_said_of_the_server_is_open_to_all_who_are_known_and_other_paths_have_rules() {
    let guarded = Guarded::new();
    let token = guarded.0.token(User::service_account("apps", "reader"));
    for path in ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/openapi/v2"] {
        guarded.get(&token, path).expect(200);
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        guarded.get(&token, path).expect_code(200);
    }
    let refused = guarded.get(&token, "/metrics");
    let words = "forbidden: User \"system:serviceaccount:apps:reader\" cannot get path \"/metrics\"";
    assert_eq!((refused.code, refused.message()), (403, words.to_owned()));
    let posted = guarded.ask(&token, "POST", "/version", "application/json", json!({}));
    let words = "forbidden: User \"system:serviceaccount:apps:reader\" cannot post path \"/version\"";
    assert_eq!((posted.code, posted.message()), (403, words.to_owned()));
    guarded.grant("", "paths", json!([{"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]}]), account());
    for (path, code) in [("/metrics", 404), ("/debug/pprof", 404), ("/metrics/cadvisor", 403), ("/debug", 403)] {
        assert_eq!(guarded.get(&token, path).code, code, "{path}");
    }
}

#[test]
fn a_subject_is_a_user_a_group_or_an_account_and_a_binding_without_its_role_gives_nothing() {
    let guarded = Guarded::new();
    let account = guarded.0.token(User::service_account("apps", "reader"));
    let namesake = guarded.0.token(User::service_account("other", "reader"));
    let maria = guarded.0.token(User::new("maria", &["people"]));
    let rules = json!([{"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["list"]}]);
    let may = |subject: Value| {
        guarded.grant("", "read", rules.clone(), json!([subject]));
        [&account, &namesake, &maria].map(|token| guarded.get(token, INGRESSES).code == 200)
    };
    let of = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    assert_eq!(may(of("User", "maria")), [false, false, true]);
    assert_eq!(may(of("User", "system:serviceaccount:apps:reader")), [true, false, false]);
    assert_eq!(may(of("Group", "people")), [false, false, true]);
    assert_eq!(may(of("Group", "system:serviceaccounts")), [true, true, false]);
    assert_eq!(may(of("Group", "system:serviceaccounts:other")), [false, true, false]);
    assert_eq!(may(of("Group", "system:authenticated")), [true, true, true]);
    assert_eq!(may(of("Group", "maria")), [false, false, false], "a user is no group");
    assert_eq!(may(json!({"kind": "ServiceAccount", "name": "reader", "namespace": "other"})), [false, true, false]);
    assert_eq!(may(of("Group", "system:authenticated")), [true, true, true]);
    guarded.0.objects().delete("ClusterRoleBinding", "", "read").unwrap();
    assert_eq!(guarded.get(&account, INGRESSES).code, 403, "a role alone gives nothing");
}

#[test]
fn everybody_may_do_everything_where_nobody_is_asked_who_they_are() {
    let server = server_with(Options::default());
    let token = server.token(User::service_account("apps", "reader"));
    for token in [token.as_str(), "wrong"] {
        let content_type = format!("application/json\r\nauthorization: Bearer {token}");
        ask(&server, "GET", "/api/v1/secrets", &content_type, "").expect(200);
    }
    assert!(server.requests().iter().all(|request| request.user.is_empty()), "nobody was asked");
}

#[test]
fn a_token_of_an_account_is_handed_out_to_whoever_may_ask_for_it() {
    let guarded = Guarded::new();
    let (admin, path) = (guarded.0.token(User::admin()), "/api/v1/namespaces/apps/serviceaccounts/reader/token");
    let request = |seconds: u32| json!({"spec": {"expirationSeconds": seconds}});
    let asked = |token: &str, body: Value| guarded.ask(token, "POST", path, "application/json", body);
    assert_eq!(asked(&admin, request(3600)).code, 404, "there is no such account");
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "apps"}});
    guarded.0.objects().create(account).unwrap();
    guarded.grant(
        "",
        "look",
        json!([{"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["list"]}]),
        self::account(),
    );
    let handed = asked(&admin, request(3600)).expect(201);
    assert_eq!(handed["kind"], "TokenRequest");
    let token = handed["status"]["token"].as_str().unwrap();
    guarded.get(token, INGRESSES).expect(200);
    assert_eq!(guarded.get(token, "/api/v1/services").code, 403, "it may what its account may");
    let refused = asked(token, request(3600));
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("cannot create resource \"serviceaccounts/token\""), "{}", refused.message());
    assert_eq!(asked(&admin, request(60)).code, 400, "ten minutes at least");
}
