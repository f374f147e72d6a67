//! `dualgate dns`, and what `explain` says of names: on the home example, and on a small site.

use crate::support::{Folder, Outcome, dualgate};

const SITE: &str = "\
apiVersion: dualgate.dev/v1alpha1
kind: Site
lan: {subnets: [192.168.178.0/24, 'fda8::/64'], router: {kind: fritzbox, addresses: [192.168.178.1], uplink: ds-lite}}
nodes:
- {name: home, roles: [internal-gate, virtual-ips, dns], addresses: [192.168.178.5, 'fda8::5']}
- {name: edge, roles: [external-gate, dns], addresses: [192.168.178.201, 'fda8::201'], publicAddresses: [203.0.113.10, '2001:db8::10']}
gates: {internal: {addresses: [192.168.178.10, 'fda8::10']}, external: {}}
aliases: [{domain: example.org, home: home.arpa}]
dns:
  public: true
  forward: [192.168.178.1]
  zones:
  - name: example.org
    publish: edge
    records: [{name: '@', type: MX, value: 10 mail.example.net, view: public}]
  - {name: home.arpa}
";

const APPS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: grafana, namespace: apps, annotations: {dualgate.dev/gates: 'internal,external'}}
spec: {rules: [{host: grafana.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: paperless, namespace: apps}
spec: {rules: [{host: paperless.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
";

fn folder() -> Folder {
    Folder::with(&[("site.yaml", SITE), ("manifests/apps.yaml", APPS)])
}

/// The lines of a page with single spaces.
fn lines(outcome: &Outcome) -> Vec<String> {
    outcome.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn show_lists_both_views_and_where_each_record_comes_from() {
    let outcome = folder().dualgate(&["dns", "show"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let lines = lines(&outcome);
    for expected in [
        "VIEW NAME TTL TYPE DATA FROM",
        "home grafana.example.org 60 A 192.168.178.10 Ingress apps/grafana",
        "home grafana.home.arpa 60 AAAA fda8::10 Ingress apps/grafana",
        "home paperless.example.org 60 A 192.168.178.10 Ingress apps/paperless",
        "home 10.178.168.192.in-addr.arpa 60 PTR ns1.example.org. the internal gate",
        "public grafana.example.org 60 AAAA 2001:db8::10 Ingress apps/grafana",
        "public example.org 60 MX 10 mail.example.net. dns.zones[0].records[0]",
    ] {
        assert!(lines.iter().any(|line| line == expected), "no `{expected}` in\n{}", outcome.out);
    }
    let public: Vec<_> = lines.iter().filter(|line| line.starts_with("public ")).collect();
    assert!(public.iter().all(|line| !line.contains("paperless") && !line.contains("home.arpa")), "{public:#?}");
    assert!(public.iter().all(|line| !line.contains("192.168.") && !line.contains("fda8:")), "{public:#?}");
}

#[test]
fn show_as_json_has_one_entry_for_each_record_of_the_view() {
    let outcome = folder().dualgate(&["dns", "show", "--view", "public", "-o", "json"]);
    let records = outcome.json();
    let records = records.as_array().unwrap();
    assert!(records.iter().all(|record| record["view"] == "public" && record["zone"] == "example.org"));
    let of_host = records.iter().filter(|record| record["name"] == "grafana.example.org");
    let data: Vec<_> = of_host.map(|record| (&record["type"], &record["data"], &record["ttl"])).collect();
    assert_eq!(
        data,
        [(&"A".into(), &"203.0.113.10".into(), &60.into()), (&"AAAA".into(), &"2001:db8::10".into(), &60.into())]
    );
}

#[test]
fn export_writes_a_zone_file_that_begins_with_the_zone() {
    let folder = folder();
    let outcome = folder.dualgate(&["dns", "export", "Example.ORG."]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let lines = lines(&outcome);
    assert_eq!(lines[0], "$ORIGIN example.org.");
    assert!(lines[1].starts_with("example.org. 60 IN SOA ns1.example.org. hostmaster.example.org. "), "{}", lines[1]);
    assert!(lines.iter().any(|line| line == "grafana.example.org. 60 IN A 203.0.113.10"), "{}", outcome.out);
    let none = folder.dualgate(&["dns", "export", "home.arpa"]);
    assert_eq!((none.code, &*none.out), (1, ""));
    assert!(none.err.contains("the public view has no zone `home.arpa`; it has example.org"), "{}", none.err);
    assert_eq!(folder.dualgate(&["dns", "export", "home.arpa", "--view", "home"]).code, 0);
}

#[test]
fn explain_says_what_both_views_answer() {
    let outcome = folder().dualgate(&["explain", "http://paperless.example.org"]);
    assert_eq!(outcome.code, 1, "no server is ready");
    let (internal, external) = outcome.out.split_once("\n\n").expect("one page for each gate");
    assert!(internal.contains("name         home view: zone `example.org`\n"), "{internal}");
    assert!(internal.contains("  A          192.168.178.10 (60 s, Ingress apps/paperless)\n"), "{internal}");
    let none = "name         public view: no such name in zone `example.org`: the external gate does not serve it\n";
    assert!(external.contains(none), "{external}");
    let elsewhere = folder().dualgate(&["explain", "http://www.example.com"]);
    assert!(
        elsewhere.out.contains("home view: in no zone of the site file: asked for at 192.168.178.1\n"),
        "{}",
        elsewhere.out
    );
    assert!(
        elsewhere.out.contains("public view: in no zone of the site file: refused at the edge"),
        "{}",
        elsewhere.out
    );
}

#[test]
fn router_steps_name_this_sites_addresses_and_the_traps() {
    let outcome = folder().dualgate(&["dns", "router-steps"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    for part in [
        "set `Lokaler DNS-Server` (Local DNS server) to 192.168.178.10.",
        "always assign unique local addresses (ULA), with the prefix fda8::/64",
        "set `Lokaler DNSv6-Server` (Local DNSv6 server) to fda8::10, and tick",
        "DNS-Rebind-Schutz (DNS rebind protection): add example.org, home.arpa.",
        "let `dns.forward` name resolvers of the Internet and not the box",
        "Name server `ns1.example.org` with the addresses (glue) 203.0.113.10 and 2001:db8::10.",
        "Open port 53, UDP and TCP",
    ] {
        assert!(outcome.out.contains(part), "no `{part}` in\n{}", outcome.out);
    }
}

#[test]
fn the_home_example_has_names_and_steps() {
    let outcome = dualgate(&["dns", "router-steps", "--site", "examples/home/site.yaml", "-o", "json"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(outcome.json().as_array().map(Vec::len), Some(3), "{}", outcome.out);
    let laptop = dualgate(&["dns", "router-steps", "--site", "examples/laptop/site.yaml"]);
    assert_eq!(laptop.out, "nothing is to be set elsewhere: no home node answers DNS, and no edge does\n");
}

#[test]
fn diff_says_where_nobody_is_asked_and_what_cannot_be() {
    let outcome = folder().dualgate(&["dns", "diff"]);
    assert_eq!(
        (outcome.code, &*outcome.out),
        (0, "no zone lives at a provider of `dns.providers`\n"),
        "{}",
        outcome.err
    );
    let none = folder().dualgate(&["dns", "diff", "--zone", "example.org"]);
    let expected = "zone `example.org` lives at no provider of `dns.providers`; of the site's zones: no zone does";
    assert_eq!(none.code, 2);
    assert!(none.err.contains(expected), "{}", none.err);
    let provider = "  providers: {hook: {type: webhook, url: 'http://127.0.0.1:1'}}\n  zones:\n";
    let site = SITE.replace("  zones:\n", provider).replace("publish: edge", "publish: 'provider:hook'");
    let elsewhere = Folder::with(&[("site.yaml", &site), ("manifests/apps.yaml", APPS)]);
    let outcome = elsewhere.dualgate(&["dns", "diff", "--zone", "Example.ORG.", "-o", "json"]);
    assert_eq!(outcome.code, 2, "{}", outcome.out);
    let what = "hook: read zone `example.org`: GET http://127.0.0.1:1/: connect: ";
    assert!(outcome.json()[0]["error"].as_str().unwrap().starts_with(what), "{}", outcome.out);
    assert!(outcome.err.contains(what), "{}", outcome.err);
}
