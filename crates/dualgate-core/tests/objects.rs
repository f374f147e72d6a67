//! Reads every `cases/objects/*.case`: manifests, then what they mean and what is wrong with them.
//!
//! `=== NAME` starts a file; `=== objects` and `=== findings` hold what is expected. With `BLESS=1` in the
//! environment the expectations are written instead of compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use dualgate_core::model::object::*;
use dualgate_core::model::{Digest, Finding, Secret};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::object::{Parsed, dump_text, object, object_with};
use proptest::prelude::*;

#[test]
fn every_case_reads_as_it_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/objects");
    let mut paths: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    assert!(paths.len() >= 60, "{} cases", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        let actual = run(&text, &name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, actual).unwrap();
        } else if actual != text {
            write!(wrong, "\n--- {name}: expected\n{text}\n--- {name}: is\n{actual}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The case with its expectations replaced by what is.
fn run(case: &str, name: &str) -> String {
    let (title, rest) = case.split_once("\n=== ").expect("a case has a title and a file");
    let mut output = format!("{title}\n");
    let mut files = Vec::new();
    for section in rest.split("\n=== ") {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        if heading == "objects" || heading == "findings" {
            continue;
        }
        writeln!(output, "=== {heading}\n{}", body.trim_end_matches('\n')).unwrap();
        files.push(file(heading, body));
    }
    let set = assemble(files.iter());
    output.push_str("=== objects\n");
    for object in &set.objects {
        assert_dump_reads_back(object, name);
        output.push_str(&summary(object));
    }
    for key in files.iter().flat_map(|file| &file.refused) {
        writeln!(output, "refused: {key}").unwrap();
    }
    output.push_str("=== findings\n");
    for finding in &set.findings {
        writeln!(output, "{finding}").unwrap();
        if !finding.help.is_empty() {
            writeln!(output, "    {}", finding.help).unwrap();
        }
    }
    output
}

/// A dump shows no secret, and reads as the same object.
fn assert_dump_reads_back(object: &Object, name: &str) {
    let mut known = BTreeMap::<Digest, Secret>::new();
    if let Body::Secret(secret) = &object.body {
        known.extend(secret.data.values().map(|secret| (secret.digest(), secret.clone())));
    }
    let dump = dump_text(object).into_owned();
    for secret in known.values().filter(|secret| secret.expose().len() > 3) {
        let text = String::from_utf8_lossy(secret.expose()).into_owned();
        assert!(!dump.contains(text.trim_end()), "{name}: the dump shows a secret: {dump}");
    }
    let read = object_with(&serde_json::from_str(&dump).unwrap(), None, &|digest| known.get(digest).cloned());
    let [again] = read.objects.as_slice() else { panic!("{name}: the dump is not one object: {dump}") };
    assert!(!dump.contains("managedFields"), "{name}: {dump}");
    let written = again.written.clone();
    assert_eq!(*again, Object { origin: None, managed: Managed::default(), written, ..object.clone() }, "{name}");
    assert_can_be_made(again, &known, name);
}

/// What no file has said is not kept as text: it is made again, and reads as the same object.
fn assert_can_be_made(object: &Object, known: &BTreeMap<Digest, Secret>, name: &str) {
    let secret = |digest: &Digest| known.get(digest).cloned();
    let made = dump_text(object).into_owned();
    let read = object_with(&serde_json::from_str(&made).unwrap(), None, &secret);
    assert_eq!(read.objects, [Object { managed: Default::default(), ..object.clone() }], "{name}: {made}");
    let is_bulk = matches!(object.body, Body::Ingress(_) | Body::Service(_) | Body::EndpointSlice(_));
    assert!(object.written.is_some() || (is_bulk && read.findings.is_empty()), "{name}: {made}\n{:?}", read.findings);
}

fn summary(object: &Object) -> String {
    let place = object.place("");
    let (file, line) = (place.file.unwrap_or_default(), place.line.unwrap_or_default());
    let mut lines = vec![format!("{} ({file}:{line})", object.key)];
    let meta = &object.meta;
    lines.extend(meta.labels.iter().map(|(key, value)| format!("label {key}={value}")));
    lines.extend(meta.annotations.iter().map(|(key, value)| format!("annotation {key}={value}")));
    lines.extend(meta.created.seconds().map(|created| format!("created {created}")));
    if !meta.uid.is_none() {
        lines.push(format!("uid {}", meta.uid));
    }
    if object.managed != Managed::default() {
        let Managed { is_status_ours, is_load_balancer_ours, load_balancer, labels } = &object.managed;
        let other = load_balancer.as_deref().unwrap_or("nobody else");
        let labels: Vec<_> = labels.iter().flat_map(|labels| labels.iter()).collect();
        lines.push(format!("ours: status {is_status_ours}, load balancer {is_load_balancer_ours}, labels {labels:?}"));
        lines.push(format!("load balancer of {other}"));
    }
    match &object.body {
        Body::Ingress(ingress) => summarise_ingress(ingress, &mut lines),
        Body::IngressClass(class) => {
            lines.push(format!("controller {} default {}", class.controller, class.is_default))
        }
        Body::Service(service) => summarise_service(service, &mut lines),
        Body::EndpointSlice(slice) => summarise_slice(slice, &mut lines),
        Body::Secret(secret) => {
            lines.push(format!("type {}", secret.kind));
            for (key, digest) in &secret.digests {
                let known = if secret.data.contains_key(key) { "known" } else { "elsewhere" };
                lines.push(format!("{key} {:.12} {known}", digest.to_string()));
            }
        }
        Body::ConfigMap(data) => lines.extend(data.iter().map(|(key, value)| format!("{key}={value:?}"))),
        Body::Namespace => lines.push("namespace".into()),
        Body::Node(node) => {
            lines.push(format!("pods {:?} addresses {:?} ready {:?}", node.pod_cidrs, node.addresses, node.ready));
            if node.network_unavailable {
                lines.push("network unavailable".into());
            }
        }
        Body::Other => lines.push("other".into()),
    }
    lines.join("\n    ") + "\n"
}

fn summarise_ingress(ingress: &Ingress, lines: &mut Vec<String>) {
    lines.extend(ingress.class.iter().map(|class| format!("class {class}")));
    lines.extend(ingress.default_backend.iter().map(|backend| format!("default -> {}", backend_text(backend))));
    for tls in &ingress.tls {
        let hosts: Vec<_> = tls.hosts.iter().map(ToString::to_string).collect();
        let secret = tls.secret.as_deref().unwrap_or("none");
        lines.push(format!("tls {} [{}] secret {secret}", tls.index, hosts.join(", ")));
    }
    summarise_published(&ingress.published, lines);
    for rule in &ingress.rules {
        let Some(paths) = &rule.paths else {
            lines.push(format!("rule {} {} without http", rule.index, rule.host));
            continue;
        };
        lines.push(format!("rule {} {} with {} paths", rule.index, rule.host, paths.len()));
        for path in paths {
            let backend = backend_text(&path.backend);
            lines.push(format!("  path {} {:?} {:?} -> {backend}", path.index, path.path_type, path.path));
        }
    }
}

fn backend_text(backend: &IngressBackend) -> String {
    match backend {
        IngressBackend::Service { name, port: PortRef::Number(port) } => format!("{name}:{port}"),
        IngressBackend::Service { name, port: PortRef::Name(port) } => format!("{name}:{port:?}"),
        IngressBackend::Resource { what } => format!("resource {what}"),
    }
}

fn summarise_service(service: &Service, lines: &mut Vec<String>) {
    lines.push(format!("{:?} addresses {:?}", service.kind, service.cluster_ips));
    lines.extend(service.external_name.iter().map(|name| format!("external {name}")));
    lines.extend(service.selector.iter().map(|(key, value)| format!("selects {key}={value}")));
    for port in &service.ports {
        let app = port.app_protocol.as_deref().unwrap_or("none");
        let (name, number, protocol) = (&port.name, port.port, port.protocol);
        lines.push(format!("port {name:?} {number} {protocol:?} -> {:?} app {app}", port.target));
    }
    if service.family_policy != FamilyPolicy::SingleStack || !service.families.is_empty() {
        lines.push(format!("families {:?} {:?}", service.family_policy, service.families));
    }
    lines.extend(service.load_balancer_class().iter().map(|class| format!("load balancer class {class}")));
    lines.extend(service.load_balancer_ip().iter().map(|address| format!("load balancer address {address}")));
    if service.traffic_policy != TrafficPolicy::Cluster {
        lines.push(format!("external traffic {:?}", service.traffic_policy));
    }
    lines.extend(service.client_affinity.iter().map(|time| format!("client affinity {time:?}")));
    if !service.source_ranges().is_empty() {
        lines.push(format!("from {:?}", service.source_ranges()));
    }
    summarise_published(&service.published, lines);
    if let Some(condition) = &service.address_assigned {
        let Condition { is_true, reason, message, since } = &**condition;
        lines.push(format!("address assigned {is_true} {reason} since {since}: {message}"));
    }
}

fn summarise_published(published: &[Published], lines: &mut Vec<String>) {
    let shown = published.iter().map(|published| match published {
        Published::Ip(address) => address.to_string(),
        Published::Hostname(name) => name.to_string(),
    });
    let shown: Vec<String> = shown.collect();
    if !shown.is_empty() {
        lines.push(format!("published [{}]", shown.join(", ")));
    }
}

fn summarise_slice(slice: &EndpointSlice, lines: &mut Vec<String>) {
    lines.push(format!("{:?} of {}", slice.address_type, slice.service.as_deref().unwrap_or("no service")));
    for endpoint in &slice.endpoints {
        let target = endpoint.target.as_ref().map_or("none".to_owned(), ToString::to_string);
        lines.push(format!(
            "endpoint {} ready {} serving {} terminating {} target {target} node {}",
            endpoint.address,
            endpoint.ready,
            endpoint.serving,
            endpoint.terminating,
            endpoint.node.as_deref().unwrap_or("none"),
        ));
    }
    lines.extend(slice.ports.iter().map(|port| format!("port {:?} {:?} {:?}", port.name, port.port, port.protocol)));
}

#[test]
fn what_an_api_server_hands_out_has_no_places_and_no_typing_errors() {
    let json = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "a", "fieldOf2031": 1},
        "spec": {"controller": "wrong"}
    });
    let Parsed { objects, refused, findings } = object(&json, None);
    assert!(objects.is_empty());
    assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), ["IngressClass a"]);
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["IngressClass a spec.controller: error[object-invalid]: `wrong` is not valid: a domain, `/` and a path are \
          needed, such as `acme.io/foo`, at most 250 characters"]
    );
}

#[test]
fn an_ingress_without_end_is_refused() {
    let rules = vec![serde_json::json!({}); 70_000];
    let json = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"}, "spec": {"rules": rules}
    });
    let Parsed { objects, findings, .. } = object(&json, None);
    let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!((objects.len(), messages), (0, vec!["`rules` holds 70000 items; 65535 are allowed"]));
}

#[test]
fn a_digest_whose_value_differs_stays_unknown() {
    let digest = Digest::of(b"right").to_string();
    let json = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": {"sha256": digest}}
    });
    let read = |value: &'static [u8]| object_with(&json, None, &|_| Some(Secret::new(value)));
    let [Object { body: Body::Secret(secret), .. }] = &read(b"wrong").objects[..] else { panic!() };
    assert!(secret.data.is_empty() && secret.digests.len() == 1);
    let [Object { body: Body::Secret(secret), .. }] = &read(b"right").objects[..] else { panic!() };
    assert_eq!(secret.data["key"].expose(), b"right");
}

#[test]
fn no_finding_about_a_secret_shows_a_value() {
    let json = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "a", "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "hunter2", "kapp.k14s.io/original": "hunter2"}},
        "data": {"a": "hunter2!", "b": {"x": "hunter2"}, "c": ["hunter2"]},
        "stringData": {"d": 47_110_815, "e": "hunter2"}, "stringdata": {"f": "hunter2"}, "type": "Opaque"
    });
    let origin = Origin { file: "a.yaml".into(), fields: Default::default() };
    let Parsed { objects, findings, .. } = object(&json, Some(origin));
    let shown = format!("{findings:?} {objects:?}");
    assert_eq!((objects.len(), findings.len()), (1, 5), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("47110815"), "{shown}");
}

/// Fragments of manifests: arbitrary text would hardly ever get past the first check.
fn manifest() -> impl Strategy<Value = serde_json::Value> {
    let words = prop_oneof![
        Just("networking.k8s.io/v1"),
        Just("discovery.k8s.io/v1"),
        Just("v1"),
        Just("Ingress"),
        Just("Service"),
        Just("EndpointSlice"),
        Just("Secret"),
        Just("ConfigMap"),
        Just("Node"),
        Just("List"),
        Just("IngressList"),
        Just("Prefix"),
        Just("/a"),
        Just("IPv4"),
        Just("10.0.0.1"),
        Just("a.example"),
        Just("kubernetes.io/tls"),
        Just("2026-11-22T09:30:00Z"),
    ];
    let keys = prop_oneof![
        Just("spec"),
        Just("rules"),
        Just("http"),
        Just("paths"),
        Just("path"),
        Just("pathType"),
        Just("backend"),
        Just("service"),
        Just("port"),
        Just("ports"),
        Just("number"),
        Just("name"),
        Just("host"),
        Just("tls"),
        Just("hosts"),
        Just("items"),
        Just("data"),
        Just("endpoints"),
        Just("addresses"),
        Just("addressType"),
        Just("clusterIPs"),
        Just("labels"),
        Just("creationTimestamp"),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (0u16..).prop_map(Into::into),
        words.prop_map(Into::into),
        ".*".prop_map(Into::into),
    ];
    let tree = leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((keys.clone(), inner), 0..4)
                .prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    });
    let kinds = prop::sample::select(vec![
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "IngressClass"),
        ("networking.k8s.io/v1", "IngressList"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("v1", "Service"),
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("v1", "Node"),
        ("v1", "List"),
    ]);
    (kinds, tree).prop_map(|((version, kind), tree)| {
        let mut object = match tree {
            serde_json::Value::Object(map) => map,
            other => serde_json::Map::from_iter([("spec".to_owned(), other)]),
        };
        object.insert("apiVersion".into(), version.into());
        object.insert("kind".into(), kind.into());
        object.insert("metadata".into(), serde_json::json!({"name": "a"}));
        serde_json::Value::Object(object)
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,400}") {
        let read = file("a.yaml", &text);
        assemble([&read].into_iter());
    }

    #[test]
    fn no_manifest_makes_the_parser_panic_and_every_dump_reads_back(json in manifest()) {
        let read = file("a.json", &json.to_string());
        for object in &read.objects {
            assert_dump_reads_back(object, "manifest");
        }
        let all_named = read.findings.iter().all(|Finding { at, .. }| at.file.as_deref() == Some("a.json"));
        prop_assert!(all_named, "{:?}", read.findings);
    }
}
