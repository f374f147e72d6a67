//! Who asks, and what they may do.

use dualgate_apiserver::{ApiServer, Authorization, Options, User};
use serde_json::{Value, json};

use crate::support::{APPLY, Answer, MERGE, ask, server_with};

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
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("cannot create resource \"nodes\""), "{}", refused.message());
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
