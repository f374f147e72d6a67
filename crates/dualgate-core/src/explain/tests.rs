//! What people read, whole.

use super::*;
use crate::case::{Case, Families};

const OBJECTS: &str = "\
== site
aliases: [{domain: example.org, home: home.arpa}]
== services
web http=3000 pods=2
api 80
empty 80 pods=0
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: default
  annotations:
    traefik.ingress.kubernetes.io/router.entrypoints: websecure
spec:
  rules:
  - host: web.example.org
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web, port: {name: http}}}
      - path: /api
        pathType: Prefix
        backend: {service: {name: api, port: {number: 80}}}
      - path: /gone
        pathType: Exact
        backend: {service: {name: gone, port: {number: 80}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: home, namespace: default}
spec:
  rules:
  - host: '*.example.org'
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: empty, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: theirs, namespace: default}
spec:
  ingressClassName: nginx
  rules:
  - host: theirs.example.net
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 3000}}}}]}
";

fn snapshot() -> Snapshot {
    Case::parse("apps.yaml", OBJECTS).unwrap().snapshot(Families::Both).unwrap()
}

fn ask(url: &str, gate: GateName) -> String {
    explain(&snapshot(), &Question::parse(url, gate).unwrap()).to_string()
}

#[test]
fn a_request_that_is_served() {
    assert_eq!(
        ask("https://web.example.org/api/v1", GateName::Internal),
        "\
https://web.example.org/api/v1 at the internal gate
  it goes to the one server of default/api:80
entry point  websecure (https): 192.168.178.10:443, [fda8:a1db:5685::10]:443 (one of home1, home2)
certificate  default: no usable tls section names `web.example.org`: the default certificate
host         web.example.org
path         Prefix /api
Ingress      default/web spec.rules[0].http.paths[1] (apps.yaml:23)
class        no class named, and no IngressClass exists
backend      default/api:80 over http, with the client's Host
  server     api-1: 10.42.0.3:80, [fd01::3]:80
not chosen
  web.example.org Prefix / -> web:http: its path is shorter
    default/web spec.rules[0].http.paths[0] (apps.yaml:20), served at internal: websecure; external: websecure
  *.example.org Prefix / -> empty:80: its host is less specific
    default/home spec.rules[0].http.paths[0] (apps.yaml:36), served at internal: web, websecure
  web.example.org Exact /gone -> gone:80: its path does not match
    default/web spec.rules[0].http.paths[2] (apps.yaml:26), served at internal: websecure; external: websecure
"
    );
}

#[test]
fn a_request_without_anybody_behind_its_route() {
    let text = ask("http://other.example.org/", GateName::Internal);
    assert!(text.contains("503: default/empty:80 has no endpoint that is ready"), "{text}");
    let text = ask("https://web.example.org/gone", GateName::External);
    assert!(text.contains("503: there is no Service `gone` in namespace `default`"), "{text}");
}

#[test]
fn a_request_that_nobody_serves_says_what_came_close() {
    let text = ask("http://web.example.org/", GateName::External);
    assert!(
        text.contains("404: a route matches, but it is not served at entry point `web` of the external gate"),
        "{text}"
    );
    assert!(text.contains("web.example.org Prefix / -> web:http: it is not served at this entry point"), "{text}");
    let text = ask("http://a.b.example.org/", GateName::Internal);
    assert!(text.contains("404: no route at entry point `web` of the internal gate has this host"), "{text}");
    assert!(text.contains("*.example.org Prefix / -> empty:80: its host does not match"), "{text}");
    let text = ask("http://theirs.example.net/", GateName::Internal);
    assert!(
        text.contains("note         Ingress default/theirs matches the host, but class `nginx` is not ours"),
        "{text}"
    );
    let text = ask("https://web.home.arpa/", GateName::External);
    assert!(text.contains("home names are served at the internal gate only"), "{text}");
}

#[test]
fn a_request_to_a_port_where_nobody_listens() {
    let text = ask("http://web.example.org:81/", GateName::External);
    assert!(text.contains("the external gate has no entry point on port 81 (web on 80, websecure on 443)"), "{text}");
    let text = ask("https://web.example.org:80/", GateName::External);
    assert!(text.contains("the entry point `web` on port 80 speaks plain HTTP, no TLS"), "{text}");
}

#[test]
fn an_explanation_as_json_leaves_out_what_is_unknown() {
    let question = Question::parse("http://web.example.org:81/", GateName::External).unwrap();
    assert_eq!(
        serde_json::to_value(explain(&snapshot(), &question)).unwrap(),
        serde_json::json!({
            "url": "http://web.example.org:81/",
            "gate": "external",
            "outcome": "not-listening",
            "because": "the external gate has no entry point on port 81 (web on 80, websecure on 443)",
            "lost": [],
            "lost_more": 0,
            "hints": [],
        })
    );
}

#[test]
fn everything_public_is_in_one_table() {
    assert_eq!(
        exposure(&snapshot()).to_string(),
        "\
HOST             PATH         ENTRY POINTS  INGRESS      WHY
web.example.org  Exact /gone  websecure     default/web  traefik.ingress.kubernetes.io/router.entrypoints
web.example.org  Prefix /     websecure     default/web  traefik.ingress.kubernetes.io/router.entrypoints
web.example.org  Prefix /api  websecure     default/web  traefik.ingress.kubernetes.io/router.entrypoints
"
    );
    let nothing = Case::default().snapshot(Families::V4).unwrap();
    assert_eq!(exposure(&nothing).to_string(), "nothing is public\n");
}
