//! `dualgate explain` and `dualgate exposure`, on the laptop example.

use crate::support::{Folder, Outcome, dualgate};

const LAPTOP: [&str; 2] = ["--site", "examples/laptop/site.yaml"];

fn laptop(args: &[&str]) -> Outcome {
    dualgate(&[args, &LAPTOP].concat())
}

#[test]
fn a_public_application_is_explained_at_both_gates() {
    let outcome = laptop(&["explain", "https://grafana.example.org/login"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let (internal, external) = outcome.out.split_once("\n\n").expect("one page for each gate");
    for (page, gate, port) in [(internal, "internal", 8443), (external, "external", 9443)] {
        let first = format!("https://grafana.example.org:{port}/login at the {gate} gate\n");
        assert!(page.starts_with(&first), "{page}");
        let point = format!("websecure (https): 127.0.0.1:{port}, [::1]:{port} (laptop)");
        for part in [
            "it goes to the one server of apps/grafana:80",
            &*point,
            "host         grafana.example.org",
            "path         Prefix /",
            "apps/grafana spec.rules[0].http.paths[0] (examples/laptop/manifests/grafana.yaml:56)",
            "server     127.0.0.1:9001, [::1]:9001",
        ] {
            assert!(page.contains(part), "no `{part}` in\n{page}");
        }
    }
}

#[test]
fn what_is_at_home_only_is_not_found_outside() {
    let outside = laptop(&["explain", "http://paperless.example.org", "--from", "external"]);
    assert_eq!(outside.code, 1);
    let expected = "\
http://paperless.example.org:9080/ at the external gate
  404: a route matches, but it is not served at entry point `web` of the external gate
";
    assert!(outside.out.starts_with(expected), "{}", outside.out);
    assert_eq!(laptop(&["explain", "http://paperless.example.org", "--from", "internal"]).code, 0);
    assert_eq!(laptop(&["explain", "http://paperless.example.org"]).code, 0, "one gate serves it");
    assert_eq!(laptop(&["explain", "http://nobody.example.org"]).code, 1);
}

#[test]
fn a_port_that_is_named_is_the_one_that_is_asked() {
    let outcome = laptop(&["explain", "http://grafana.example.org:8080/", "-o", "json"]);
    assert_eq!(outcome.code, 0);
    let pages = outcome.json();
    let outcomes: Vec<_> = pages.as_array().unwrap().iter().map(|page| (&page["gate"], &page["outcome"])).collect();
    assert_eq!(outcomes, [(&"internal".into(), &"forwarded".into()), (&"external".into(), &"not-listening".into())]);
    assert_eq!(pages[0]["backend"]["servers"][0]["at"], serde_json::json!(["127.0.0.1:9001", "[::1]:9001"]));
}

#[test]
fn a_path_is_asked_as_a_gate_would_read_it() {
    let outcome = laptop(&["explain", "http://grafana.example.org/a/../b%7e//c", "--from", "internal"]);
    assert!(outcome.out.starts_with("http://grafana.example.org:8080/b~/c at"), "{}", outcome.out);
    let outcome = laptop(&["explain", "http://grafana.example.org/a/..%2fb"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert_eq!(outcome.err, "error: a gate refuses the path `/a/..%2fb` with 400: hidden dot segment\n");
}

#[test]
fn what_is_no_url_cannot_be_told() {
    let outcome = laptop(&["explain", "/login"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert_eq!(outcome.err, "error: `/login` is not a URL: `https://host/path`\n");
    let outcome = laptop(&["explain", "ftp://grafana.example.org"]);
    assert_eq!((outcome.code, &*outcome.err), (2, "error: `ftp` is not `http` or `https`\n"));
}

#[test]
fn a_name_alone_is_asked_with_https() {
    let whole = laptop(&["explain", "https://grafana.example.org/"]);
    assert_eq!(laptop(&["explain", "grafana.example.org"]).out, whole.out);
    assert!(whole.out.starts_with("https://grafana.example.org"), "{}", whole.out);
}

#[test]
fn a_backend_without_endpoints_is_not_served() {
    let manifest = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: apps}
spec:
  defaultBackend: {service: {name: web, port: {number: 80}}}
";
    let folder = Folder::with(&[("manifests/web.yaml", manifest)]);
    let source = format!("folder:{}", folder.path().join("manifests").display());
    let outcome = laptop(&["explain", "http://any.example.org", "--source", &source, "--from", "internal"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("\n  503: apps/web:80 has no endpoint that is ready\n"), "{}", outcome.out);
}

#[test]
fn exposure_lists_what_is_public_and_why() {
    let outcome = laptop(&["exposure"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let expected = "\
HOST                 PATH      ENTRY POINTS   INGRESS       WHY
grafana.example.org  Prefix /  web,websecure  apps/grafana  traefik.ingress.kubernetes.io/router.entrypoints
";
    assert_eq!(outcome.out, expected);
    let expected = serde_json::json!({"routes": [{
        "host": "grafana.example.org",
        "path": "Prefix /",
        "entry_points": ["web", "websecure"],
        "ingress": "apps/grafana",
        "why": "traefik.ingress.kubernetes.io/router.entrypoints",
        "at": "examples/laptop/manifests/grafana.yaml:56",
    }]});
    assert_eq!(laptop(&["exposure", "--output", "json"]).json(), expected);
}

#[test]
fn a_site_file_that_cannot_be_used_ends_every_question() {
    let folder = Folder::with(&[("site.yaml", "nodes: [\n"), ("manifests/none.yaml", "")]);
    for args in [&["explain", "http://a.example.org"][..], &["exposure"], &["plan"]] {
        let outcome = folder.dualgate(args);
        assert_eq!((outcome.code, &*outcome.out), (2, ""), "{args:?}");
        assert!(
            outcome.err.starts_with("error: the site file `site.yaml` cannot be used:\n  site.yaml:"),
            "{outcome:?}"
        );
    }
}
