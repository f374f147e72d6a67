//! Random homes: public and private applications that share some of what they are made of.
//!
//! Whatever only a private application has bears a word of [`private_words`]; so has everything around the public
//! ones that no plan follows from.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dualgate_core::case::{Case, Families};
use dualgate_core::model::object::Body;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A home.
#[derive(Clone, Debug)]
pub struct Mix {
    apps: Vec<App>,
    /// Two for each of [`POOLS`].
    services: Vec<Service>,
    classes: Classes,
}

/// Who may use a Service or a Secret: public applications, private ones, both.
const POOLS: [&str; 3] = ["public", "private", "shared"];

/// An Ingress.
#[derive(Clone, Debug)]
struct App {
    exposure: Exposure,
    class: Option<&'static str>,
    rules: Vec<Rule>,
    default_backend: Option<(Pool, usize)>,
    tls: Option<Tls>,
    matcher: Option<&'static str>,
    priority: Option<i64>,
    created: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Exposure {
    Policy,
    Internal,
    GuardedByMiddlewares,
    External,
    Both,
    Websecure,
    InSpiteOfMiddlewares,
}

impl Exposure {
    fn is_public(self) -> bool {
        match self {
            Self::Policy | Self::Internal | Self::GuardedByMiddlewares => false,
            Self::External | Self::Both | Self::Websecure | Self::InSpiteOfMiddlewares => true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Pool {
    Own,
    Shared,
}

#[derive(Clone, Debug)]
struct Rule {
    host: Host,
    /// `None` for a rule without `http`.
    paths: Option<Vec<RulePath>>,
}

#[derive(Clone, Copy, Debug)]
enum Host {
    Own,
    /// One that others have, too.
    Same,
    Wildcard,
    Any,
}

#[derive(Clone, Debug)]
struct RulePath {
    path: &'static str,
    path_type: &'static str,
    service: (Pool, usize),
    port: Port,
}

#[derive(Clone, Copy, Debug)]
enum Port {
    Number,
    Name,
    Second,
    Missing,
}

#[derive(Clone, Copy, Debug)]
struct Tls {
    secret: Pool,
    hosts: bool,
}

#[derive(Clone, Copy, Debug)]
enum Classes {
    None,
    Ours,
    OursByDefault,
}

#[derive(Clone, Debug)]
struct Service {
    kind: Kind,
    scheme: Option<&'static str>,
    app_protocol: Option<&'static str>,
    pass_host: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Pods,
    /// Without `targetRef`.
    Machines,
    Terminating,
    NobodyReady,
    Endpoints,
    EndpointsAtTargetPort,
    EndpointsWrong,
    ExternalName,
    ExternalNameWithoutPorts,
    Absent,
}

/// What no edge may learn.
pub fn private_words() -> impl Iterator<Item = &'static str> {
    let key = PEM[1].1.as_str();
    ["private", "hidden", "10.99.", "fd99:", "home.arpa", &key[120..160]].into_iter()
}

pub fn mix() -> impl Strategy<Value = Mix> {
    let classes = prop_oneof![Just(Classes::None), Just(Classes::Ours), Just(Classes::OursByDefault)];
    (prop::collection::vec(app(), 1..6), prop::collection::vec(service(), 6..=6), classes)
        .prop_map(|(apps, services, classes)| Mix { apps, services, classes })
}

fn app() -> impl Strategy<Value = App> {
    use Exposure::*;
    let exposure = prop::sample::select(vec![
        Policy,
        Internal,
        GuardedByMiddlewares,
        External,
        Both,
        Websecure,
        InSpiteOfMiddlewares,
    ]);
    let tls = (pool(), any::<bool>()).prop_map(|(secret, hosts)| Tls { secret, hosts });
    (
        exposure,
        prop::option::of(prop::sample::select(vec!["dualgate", "traefik", "private-class"])),
        prop::collection::vec(rule(), 0..3),
        prop::option::weighted(0.3, (pool(), 0..2_usize)),
        prop::option::of(tls),
        prop::option::weighted(0.3, prop::sample::select(vec!["Path", "PathPrefix", "PathRegexp"])),
        prop::option::weighted(0.2, -3..3_i64),
        prop::option::of(0..3_u8),
    )
        .prop_map(|(exposure, class, rules, default_backend, tls, matcher, priority, created)| App {
            exposure,
            class,
            rules,
            default_backend,
            tls,
            matcher,
            priority,
            created,
        })
}

fn pool() -> impl Strategy<Value = Pool> {
    prop_oneof![Just(Pool::Own), Just(Pool::Shared)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let host =
        prop_oneof![4 => Just(Host::Own), 2 => Just(Host::Same), 1 => Just(Host::Wildcard), 1 => Just(Host::Any)];
    let paths = prop::option::weighted(0.85, prop::collection::vec(path(), 1..4));
    (host, paths).prop_map(|(host, paths)| Rule { host, paths })
}

fn path() -> impl Strategy<Value = RulePath> {
    // The last three are left out: two are no paths, and one is no regular expression.
    let path = prop::sample::select(vec!["/", "/app", "/app/", "", "/a b", "/private//x", "hidden", "/hidden("]);
    let path_type = prop::sample::select(vec!["Prefix", "Exact", "ImplementationSpecific"]);
    let port =
        prop_oneof![3 => Just(Port::Number), 3 => Just(Port::Name), 1 => Just(Port::Second), 1 => Just(Port::Missing)];
    (path, path_type, (pool(), 0..2_usize), port).prop_map(|(path, path_type, service, port)| RulePath {
        path,
        path_type,
        service,
        port,
    })
}

fn service() -> impl Strategy<Value = Service> {
    use Kind::*;
    let kind = prop_oneof![
        6 => Just(Pods),
        1 => Just(Machines),
        1 => Just(Terminating),
        1 => Just(NobodyReady),
        1 => Just(Endpoints),
        1 => Just(EndpointsAtTargetPort),
        1 => Just(EndpointsWrong),
        1 => Just(ExternalName),
        1 => Just(ExternalNameWithoutPorts),
        1 => Just(Absent),
    ];
    (
        kind,
        prop::option::weighted(0.3, prop::sample::select(vec!["http", "https", "h2c", "hidden"])),
        prop::option::weighted(
            0.3,
            prop::sample::select(vec!["http", "https", "kubernetes.io/h2c", "kubernetes.io/ws"]),
        ),
        prop::option::weighted(0.3, prop::sample::select(vec!["true", "false"])),
    )
        .prop_map(|(kind, scheme, app_protocol, pass_host)| Service { kind, scheme, app_protocol, pass_host })
}

impl Mix {
    /// Whether a Service has addresses of both families, whatever the families of the home are.
    pub fn writes_endpoints(&self) -> bool {
        self.services.iter().any(|s| matches!(s.kind, Kind::Endpoints | Kind::EndpointsAtTargetPort))
    }

    /// As a case.
    pub fn case(&self) -> String {
        let mut objects = self.class_objects();
        objects.extend(self.apps.iter().enumerate().map(|(number, app)| app.object(number)));
        for (number, service) in self.services.iter().enumerate() {
            service.objects(POOLS[number / 2], number, &mut objects);
        }
        for (pool, (chain, key)) in POOLS.iter().zip(PEM.iter()) {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": format!("{pool}-tls"), "namespace": "apps", "labels": {"hidden": "label"}},
                "data": {"tls.crt": chain, "tls.key": key, "hidden": "aGlkZGVu"},
            }));
        }
        let objects: Vec<String> = objects.iter().map(Value::to_string).collect();
        format!(
            "== site
aliases: [{{domain: example.org, home: home.arpa}}]
dns: {{public: true, zones: [{{name: example.org, publish: edge}}, {{name: home.arpa}}]}}
ingressClasses:
- {{controller: dualgate.dev/ingress-controller}}
- {{name: traefik, controller: traefik.io/ingress-controller, compat: traefik}}
== objects
{}
",
            objects.join("\n---\n")
        )
    }

    fn class_objects(&self) -> Vec<Value> {
        let class = |name: &str, controller: &str, is_default: bool| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                "metadata": {
                    "name": name, "labels": {"hidden": "label"},
                    "annotations": {"ingressclass.kubernetes.io/is-default-class": is_default.to_string()},
                },
                "spec": {"controller": controller, "parameters": {"kind": "Hidden", "name": "hidden"}},
            })
        };
        let ours = |is_default| {
            vec![
                class("dualgate", "dualgate.dev/ingress-controller", is_default),
                class("traefik", "traefik.io/ingress-controller", false),
                class("private-class", "example.org/private", false),
            ]
        };
        match self.classes {
            Classes::None => Vec::new(),
            Classes::Ours => ours(false),
            Classes::OursByDefault => ours(true),
        }
    }
}

impl App {
    fn pool(&self, pool: Pool) -> &'static str {
        match (pool, self.exposure.is_public()) {
            (Pool::Own, true) => "public",
            (Pool::Own, false) => "private",
            (Pool::Shared, _) => "shared",
        }
    }

    fn host(&self, host: Host, number: usize) -> Option<String> {
        let mine = if self.exposure.is_public() { "app" } else { "private" };
        match host {
            Host::Own => Some(format!("{mine}{number}.example.org")),
            Host::Same => Some("same.example.org".to_owned()),
            Host::Wildcard => Some(format!("*.{mine}.example.org")),
            Host::Any => None,
        }
    }

    fn object(&self, number: usize) -> Value {
        let mine = if self.exposure.is_public() { "app" } else { "private" };
        let mut metadata = json!({
            "name": format!("{mine}-{number}"), "namespace": "apps", "uid": "hidden", "labels": {"hidden": "label"},
            "annotations": self.annotations(),
        });
        if let Some(day) = self.created {
            metadata["creationTimestamp"] = format!("2026-01-0{}T00:00:00Z", day + 1).into();
        }
        let mut spec = Map::new();
        let rules: Vec<Value> = self.rules.iter().map(|rule| self.rule(rule, number)).collect();
        if let Some((pool, index)) = self.default_backend {
            spec.insert("defaultBackend".into(), self.backend((pool, index), Port::Number));
        } else if rules.is_empty() {
            spec.insert("defaultBackend".into(), self.backend((Pool::Own, 0), Port::Number));
        }
        spec.insert("rules".into(), rules.into());
        if let Some(tls) = self.tls {
            let mut section = json!({"secretName": format!("{}-tls", self.pool(tls.secret))});
            if tls.hosts {
                section["hosts"] = json!([self.host(Host::Own, number)]);
            }
            spec.insert("tls".into(), json!([section, {"hosts": ["hidden.example.org"], "secretName": "hidden"}]));
        }
        if let Some(class) = self.class {
            spec.insert("ingressClassName".into(), class.into());
        }
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec})
    }

    fn annotations(&self) -> Map<String, Value> {
        let mut annotations = Map::from_iter([("hidden.example.org/hidden".to_owned(), json!("hidden"))]);
        let gates = match self.exposure {
            Exposure::Policy | Exposure::GuardedByMiddlewares | Exposure::Websecure => None,
            Exposure::Internal => Some("internal"),
            Exposure::External => Some("external"),
            Exposure::Both | Exposure::InSpiteOfMiddlewares => Some("internal,external"),
        };
        let middlewares = match self.exposure {
            Exposure::GuardedByMiddlewares | Exposure::InSpiteOfMiddlewares => Some("hidden-auth@kubernetescrd"),
            Exposure::Policy | Exposure::Internal | Exposure::External | Exposure::Both | Exposure::Websecure => None,
        };
        let points = match self.exposure {
            Exposure::GuardedByMiddlewares | Exposure::Websecure => Some("websecure"),
            Exposure::Policy
            | Exposure::Internal
            | Exposure::External
            | Exposure::Both
            | Exposure::InSpiteOfMiddlewares => None,
        };
        for (key, value) in [
            ("dualgate.dev/gates", gates.map(str::to_owned)),
            ("traefik.ingress.kubernetes.io/router.middlewares", middlewares.map(str::to_owned)),
            ("traefik.ingress.kubernetes.io/Router.Entrypoints", points.map(str::to_owned)),
            ("traefik.ingress.kubernetes.io/router.pathmatcher", self.matcher.map(str::to_owned)),
            ("traefik.ingress.kubernetes.io/router.priority", self.priority.map(|priority| priority.to_string())),
        ] {
            annotations.extend(value.map(|value| (key.to_owned(), value.into())));
        }
        annotations
    }

    fn rule(&self, rule: &Rule, number: usize) -> Value {
        let mut value = Map::new();
        value.extend(self.host(rule.host, number).map(|host| ("host".to_owned(), host.into())));
        if let Some(paths) = &rule.paths {
            let paths: Vec<Value> = paths.iter().map(|path| self.path(path)).collect();
            value.insert("http".into(), json!({ "paths": paths }));
        }
        value.into()
    }

    fn path(&self, path: &RulePath) -> Value {
        let is_free = path.path_type == "ImplementationSpecific";
        let is_left_out = match path.path {
            "/private//x" => !is_free,
            "/hidden(" => is_free && self.matcher == Some("PathRegexp"),
            "hidden" => true,
            _ => false,
        };
        // What is left out may name anything. What is not may be shown.
        let pool = if is_left_out { "private" } else { self.pool(path.service.0) };
        let text = match path.path {
            "/private//x" | "/hidden(" if !is_left_out && self.exposure.is_public() => "/shown",
            text => text,
        };
        json!({"path": text, "pathType": path.path_type, "backend": backend(pool, path.service.1, path.port)})
    }

    fn backend(&self, (pool, index): (Pool, usize), port: Port) -> Value {
        backend(self.pool(pool), index, port)
    }
}

fn backend(pool: &str, index: usize, port: Port) -> Value {
    let port = match port {
        Port::Number => json!({"number": 80}),
        Port::Name => json!({"name": "web"}),
        Port::Second => json!({"name": "second"}),
        Port::Missing => json!({"name": "missing"}),
    };
    json!({"service": {"name": format!("{pool}-{index}"), "port": port}})
}

impl Service {
    fn objects(&self, pool: &str, number: usize, objects: &mut Vec<Value>) {
        let name = format!("{pool}-{}", number % 2);
        let mut annotations = Map::from_iter([("hidden".to_owned(), json!("hidden"))]);
        let net = if pool == "private" { ("10.99.0", "fd99:") } else { ("10.42.0", "fd01:") };
        let (v4, v6) = (format!("{}.{}", net.0, number + 10), format!("{}:{}", net.1, number + 10));
        let endpoints = match self.kind {
            Kind::Endpoints => Some(format!("{v4}:3000+[{v6}]:3000,{}.200:3000", net.0)),
            Kind::EndpointsAtTargetPort => Some(format!("{v4}+[{v6}]")),
            Kind::EndpointsWrong => Some("hidden".to_owned()),
            Kind::Absent => return,
            Kind::Pods
            | Kind::Machines
            | Kind::Terminating
            | Kind::NobodyReady
            | Kind::ExternalName
            | Kind::ExternalNameWithoutPorts => None,
        };
        for (key, value) in [
            ("dualgate.dev/endpoints", endpoints.as_deref()),
            ("traefik.ingress.kubernetes.io/service.serversscheme", self.scheme),
            ("traefik.ingress.kubernetes.io/service.passhostheader", self.pass_host),
        ] {
            annotations.extend(value.map(|value| (key.to_owned(), value.into())));
        }
        let mut web = json!({"name": "web", "port": 80, "targetPort": 8080});
        if let Some(protocol) = self.app_protocol {
            web["appProtocol"] = protocol.into();
        }
        let second = json!({"name": "second", "port": 443, "targetPort": "named"});
        let ports = json!([{"name": "hidden", "port": 9909}, web, second]);
        let spec = match self.kind {
            Kind::ExternalName => {
                json!({"type": "ExternalName", "externalName": format!("{pool}.example.net"), "ports": ports})
            }
            Kind::ExternalNameWithoutPorts => {
                json!({"type": "ExternalName", "externalName": format!("{pool}.example.net")})
            }
            _ => json!({"clusterIP": "10.99.43.1", "selector": {"hidden": "selector"}, "ports": ports}),
        };
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": name, "namespace": "apps", "labels": {"hidden": "label"}, "annotations": annotations},
        }));
        for (family, address, unready) in [("IPv4", v4, "10.99.1.1"), ("IPv6", v6, "fd99::1")] {
            objects.push(self.slice(&name, family, &address, unready));
        }
    }

    fn slice(&self, service: &str, family: &str, address: &str, unready: &str) -> Value {
        let conditions = match self.kind {
            Kind::Terminating => json!({"ready": false, "serving": true, "terminating": true}),
            Kind::NobodyReady => json!({"ready": false}),
            _ => json!({"ready": true}),
        };
        let address = if self.kind == Kind::NobodyReady { unready } else { address };
        let mut endpoint =
            json!({"addresses": [address], "conditions": conditions, "nodeName": "hidden", "zone": "hidden"});
        if self.kind != Kind::Machines {
            let name = if self.kind == Kind::NobodyReady { "hidden".to_owned() } else { format!("{service}-pod") };
            endpoint["targetRef"] = json!({"kind": "Pod", "name": name, "namespace": "apps", "uid": "hidden"});
        }
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("hidden-{service}-{}", family.to_lowercase()), "namespace": "apps",
                "labels": {"kubernetes.io/service-name": service, "hidden": "label"},
            },
            "ports": [{"name": "web", "port": 8080}, {"name": "hidden", "port": 9909}, {"name": "second", "port": 8443}],
            "endpoints": [
                endpoint,
                {"addresses": [unready], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "hidden"}},
            ],
        })
    }
}

/// Chain and key of three certificates in base64: public, private, shared.
static PEM: LazyLock<[(String, String); 3]> = LazyLock::new(|| {
    let text = include_str!("../cases/ingress/certificates.case");
    let snapshot = Case::parse("certificates", text).unwrap().snapshot(Families::Both).unwrap();
    ["wildcard", "grafana", "expired"].map(|name| {
        let mut objects = snapshot.objects.objects.iter();
        let body = objects.find_map(|object| match &object.body {
            Body::Secret(body) if &*object.key.name.name == name => Some(body),
            _ => None,
        });
        let data = &body.unwrap().data;
        let [chain, key] = ["tls.crt", "tls.key"].map(|part| STANDARD.encode(data[part].expose()));
        (chain, key)
    })
});
