//! Which rows sites have, and what these ask.

use dualgate_core::case::{Case, Families};
use dualgate_core::model::Snapshot;
use dualgate_core::parse;
use dualgate_http::Scheme;

use super::*;
use crate::checks::Servers;
use crate::topology::build;

const APPLICATIONS: &str = "\
== services
apps/grafana 80 pods=2
apps/paperless 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: grafana, namespace: apps, annotations: {dualgate.dev/gates: 'internal,external'}}
spec:
  rules:
  - host: grafana.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: grafana, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: paperless, namespace: apps}
spec:
  rules:
  - host: paperless.example.org
    http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: paperless, port: {number: 80}}}}]}
";

fn snapshot(text: &str, families: Families) -> Snapshot {
    Case::parse("test", text).unwrap().snapshot(families).unwrap()
}

fn of(text: &str, families: Families) -> Vec<PlannedCheck> {
    let snapshot = snapshot(text, families);
    plan(&build(&snapshot.site, crate::rehearsal::Tunnel::StandIn).unwrap(), &snapshot)
}

fn find<'a>(rows: &'a [PlannedCheck], id: &str) -> &'a PlannedCheck {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    rows.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("no {id} in {ids:?}"))
}

#[track_caller]
fn probes(planned: &Planned) -> &[Probe] {
    match planned {
        Planned::Look(probes) => probes,
        other => panic!("{other:?}"),
    }
}

fn lines(planned: &Planned) -> Vec<String> {
    probes(planned).iter().map(ToString::to_string).collect()
}

#[test]
fn every_row_of_a_home_with_an_edge() {
    let rows = of(APPLICATIONS, Families::Both);
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let expected = [
        "ready/edge",
        "ready/home1",
        "ready/home2",
        "lan/nodes",
        "lan/router",
        "uplink/home",
        "shut/home",
        "edge/nodes",
        "edge/pods",
        "home/grafana.example.org",
        "home/paperless.example.org/api",
        "internet/grafana.example.org",
        "stays-home/paperless.example.org/api",
        "home-https/grafana.example.org",
        "home-https/paperless.example.org/api",
        "internet-https/grafana.example.org",
        "certificate/grafana.example.org",
        "certificate/paperless.example.org",
        "virtual-ips",
        "tunnel",
        "firewall",
    ];
    assert_eq!(ids, expected);
}

#[test]
fn a_family_that_the_site_does_not_have_is_absent_everywhere() {
    for row in of(APPLICATIONS, Families::V4) {
        assert_eq!(row.v6, Planned::Absent, "{}", row.id);
    }
    for row in of(APPLICATIONS, Families::V6) {
        assert_eq!(row.v4, Planned::Absent, "{}", row.id);
        let looks = [&row.v6].into_iter().filter(|planned| matches!(planned, Planned::Look(_)));
        assert!(looks.flat_map(lines).all(|line| !line.contains("192.")), "{}", row.id);
    }
}

#[test]
fn an_application_at_home_is_asked_for_at_the_virtual_ip_and_expects_its_pods() {
    let rows = of(APPLICATIONS, Families::Both);
    let row = find(&rows, "home/grafana.example.org");
    assert_eq!(row.title, "grafana.example.org at home");
    let expect = Expectation::Served {
        service: "apps/grafana".to_owned(),
        by: Servers::Pods(vec!["grafana-1".to_owned(), "grafana-2".to_owned()]),
    };
    let asked = |address: &str, port: u16, scheme| {
        let request = crate::probe::Request::new(SocketAddrs::of(address, port), "grafana.example.org");
        let ask = Ask::Get(crate::probe::Request { scheme, ..request });
        Planned::Look(vec![Probe { from: "lan-client".to_owned(), ask, expect: expect.clone() }])
    };
    assert_eq!(row.v4, asked("192.168.178.10", 80, Scheme::Http));
    assert_eq!(row.v6, asked("fda8:a1db:5685::10", 80, Scheme::Http));
    assert_eq!(find(&rows, "home-https/grafana.example.org").v4, asked("192.168.178.10", 443, Scheme::Https));
}

struct SocketAddrs;

impl SocketAddrs {
    fn of(address: &str, port: u16) -> std::net::SocketAddr {
        std::net::SocketAddr::new(address.parse().unwrap(), port)
    }
}

#[test]
fn what_is_not_public_is_asked_for_at_every_port_of_the_edge_and_expects_404() {
    let rows = of(APPLICATIONS, Families::Both);
    let row = find(&rows, "stays-home/paperless.example.org/api");
    assert_eq!(lines(&row.v4), ["internet-client to 203.0.113.10:80", "internet-client to 203.0.113.10:443"]);
    assert_eq!(lines(&row.v6), ["internet-client to [2001:db8:1::10]:80", "internet-client to [2001:db8:1::10]:443"]);
    for probe in probes(&row.v4) {
        let Ask::Get(request) = &probe.ask else { panic!("{probe:?}") };
        assert_eq!((request.path.as_str(), &probe.expect), ("/api", &Expectation::NotFound));
    }
}

#[test]
fn a_service_without_pods_is_expected_to_fail_with_its_reason() {
    let text = APPLICATIONS.replace("apps/paperless 80\n", "");
    let rows = of(&text, Families::Both);
    let [probe] = probes(&find(&rows, "home/paperless.example.org/api").v4) else { panic!() };
    let Expectation::Served { by: Servers::Nobody(why), .. } = &probe.expect else { panic!("{probe:?}") };
    assert!(why.contains("paperless"), "{why}");
    let rows = of(&APPLICATIONS.replace("apps/paperless 80", "apps/paperless 80 pods=0"), Families::Both);
    let [probe] = probes(&find(&rows, "home/paperless.example.org/api").v4) else { panic!() };
    let Expectation::Served { by, .. } = &probe.expect else { panic!("{probe:?}") };
    assert_eq!(*by, Servers::Nobody("no pod of apps/paperless is ready".to_owned()));
}

#[test]
fn an_application_that_answers_over_tls_alone_has_no_row_without() {
    let annotation = "dualgate.dev/gates: 'internal,external'";
    let tls = format!("{annotation}, traefik.ingress.kubernetes.io/router.tls: 'true'");
    let rows = of(&APPLICATIONS.replace(annotation, &tls), Families::Both);
    let of_grafana = rows.iter().filter(|row| row.id.contains("grafana")).map(|row| row.id.as_str());
    let expected =
        ["home-https/grafana.example.org", "internet-https/grafana.example.org", "certificate/grafana.example.org"];
    assert_eq!(of_grafana.collect::<Vec<_>>(), expected);
}

#[test]
fn a_home_name_is_served_at_home_and_stays_there() {
    let text = format!("== site\naliases: [{{domain: example.org, home: home.arpa}}]\n{APPLICATIONS}");
    let rows = of(&text, Families::Both);
    find(&rows, "home/grafana.home.arpa");
    find(&rows, "stays-home/grafana.home.arpa");
    assert!(!rows.iter().any(|row| row.id == "internet/grafana.home.arpa"));
}

#[test]
fn a_wildcard_and_any_host_are_asked_for_by_an_example() {
    let text = APPLICATIONS
        .replace("host: grafana.example.org", "host: '*.example.org'")
        .replace("  - host: paperless.example.org\n    http:", "  - http:");
    let rows = of(&text, Families::V4);
    let host = |id: &str| match &probes(&find(&rows, id).v4)[0].ask {
        Ask::Get(request) => request.host.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(host("home/*.example.org"), "anything.example.org");
    assert_eq!(host("home/*/api"), "anything.invalid");
    assert!(!rows.iter().any(|row| row.id == "certificate/*"), "no certificate names every host");
}

#[test]
fn without_a_gate_address_of_its_own_every_node_of_the_gate_is_asked() {
    let text = format!("== site\ngates: {{internal: {{}}, external: {{}}}}\n{APPLICATIONS}");
    let rows = of(&text, Families::Both);
    let row = find(&rows, "home/grafana.example.org");
    assert_eq!(lines(&row.v4), ["lan-client to 192.168.178.5:80", "lan-client to 192.168.178.6:80"]);
    assert!(!rows.iter().any(|row| row.id == "virtual-ips"));
}

#[test]
fn the_uplink_says_whom_the_internet_sees() {
    let uplink = |word: &str| {
        let lan = format!(
            "lan: {{subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64'], router: {{addresses: [192.168.178.1, 'fda8:a1db:5685::1'], uplink: {word}}}}}"
        );
        let case = Case::parse("test", APPLICATIONS).unwrap();
        let lines = case.site(Families::Both);
        let lines = lines.lines().map(|line| if line.starts_with("lan:") { lan.as_str() } else { line });
        let text = lines.collect::<Vec<_>>().join("\n");
        let (site, findings) = parse::site::site("test", &text);
        let mut snapshot = snapshot(APPLICATIONS, Families::Both);
        snapshot.site = std::sync::Arc::new(site.unwrap_or_else(|| panic!("{findings:?}")));
        let rows = plan(&build(&snapshot.site, crate::rehearsal::Tunnel::StandIn).unwrap(), &snapshot);
        find(&rows, "uplink/home").clone()
    };
    let expects = |planned: &Planned| probes(planned)[0].expect.clone();
    let seen_as = |address: &str| Expectation::SeenAs(vec![address.parse().unwrap()]);
    for word in ["ds-lite", "cgnat"] {
        let row = uplink(word);
        assert_eq!(expects(&row.v4), seen_as("192.0.2.1"), "{word}: the carrier's");
        assert_eq!(expects(&row.v6), Expectation::SeenAsItself, "{word}");
        assert_eq!(probes(&row.v4).len(), 3, "both nodes and the LAN client");
    }
    let row = uplink("dual-stack");
    assert_eq!((expects(&row.v4), expects(&row.v6)), (seen_as("192.0.2.2"), Expectation::SeenAsItself));
    let row = uplink("ipv4-only");
    assert_eq!((expects(&row.v4), &row.v6), (seen_as("192.0.2.2"), &Planned::Absent));
    let row = uplink("ipv6-only");
    assert_eq!((&row.v4, expects(&row.v6)), (&Planned::Absent, Expectation::SeenAsItself));
}

#[test]
fn every_address_at_home_is_dialled_from_the_internet_and_must_stay_silent() {
    let rows = of(APPLICATIONS, Families::Both);
    let row = find(&rows, "shut/home");
    let (v4, v6) = (lines(&row.v4), lines(&row.v6));
    assert!(v4.contains(&"internet-client to home1 (192.168.178.5)".to_owned()), "{v4:?}");
    assert!(v4.contains(&"internet-client to 192.0.2.1:80".to_owned()), "the carrier: {v4:?}");
    assert!(v6.contains(&"internet-client to home2 (fda8:a1db:5685::6)".to_owned()), "{v6:?}");
    let global = v6.iter().filter(|line| line.contains("to home") && line.contains("(2001:db8:100:1:"));
    assert_eq!(global.count(), 2, "{v6:?}");
    assert!(!v4.iter().any(|line| line.contains("192.168.178.10")), "a virtual IP moves: {v4:?}");
    assert!(!v4.iter().any(|line| line.contains("192.0.0.")), "nobody routes the softwire: {v4:?}");
    let all = probes(&row.v4).iter().chain(probes(&row.v6));
    assert!(all.into_iter().all(|probe| probe.expect == Expectation::Blocked));
}

#[test]
fn the_lan_is_asked_who_has_each_virtual_ip_and_expects_a_home_node() {
    let rows = of(APPLICATIONS, Families::Both);
    let row = find(&rows, "virtual-ips");
    assert_eq!(lines(&row.v4), ["lan-client to whoever has 192.168.178.10"]);
    assert_eq!(lines(&row.v6), ["lan-client to whoever has fda8:a1db:5685::10"]);
    for probe in probes(&row.v4) {
        let Expectation::OneOf(stations) = &probe.expect else { panic!("{probe:?}") };
        let names: Vec<&str> = stations.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["home1", "home2"]);
    }
}

#[test]
fn the_edge_is_asked_for_the_pods_of_public_services_alone() {
    let rows = of(APPLICATIONS, Families::Both);
    let row = find(&rows, "edge/pods");
    let [probe] = probes(&row.v4) else { panic!("{row:?}") };
    assert_eq!(
        (probe.to_string().as_str(), &probe.expect),
        ("edge to 10.42.0.1:80", &Expectation::Pod("grafana-1".to_owned()))
    );
    assert_eq!(lines(&row.v6), ["edge to [fd01::1]:80"]);
    assert_eq!(
        lines(&find(&rows, "edge/nodes").v4),
        ["edge to home1 (192.168.178.5)", "edge to home2 (192.168.178.6)"]
    );
}

#[test]
fn a_part_that_is_not_built_says_what_stands_in() {
    let rows = of(APPLICATIONS, Families::V4);
    let Planned::NotBuilt(instead) = &find(&rows, "tunnel").v4 else { panic!() };
    assert!(instead.contains("encrypted"), "{instead}");
}

#[test]
fn the_certificate_of_a_secret_is_expected_where_it_is_served() {
    let key = rcgen::KeyPair::generate().unwrap();
    let made =
        rcgen::CertificateParams::new(vec!["grafana.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
    let indent = |pem: String| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let text = format!(
        "{}---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {{name: grafana-tls, namespace: apps}}
stringData:
  tls.crt: |
{}  tls.key: |
{}",
        APPLICATIONS.replacen(
            "spec:\n",
            "spec:\n  tls: [{hosts: [grafana.example.org], secretName: grafana-tls}]\n",
            1
        ),
        indent(made.pem()),
        indent(key.serialize_pem()),
    );
    let rows = of(&text, Families::V4);
    let row = find(&rows, "certificate/grafana.example.org");
    assert_eq!(lines(&row.v4), ["lan-client to 192.168.178.10:443", "internet-client to 203.0.113.10:443"]);
    for probe in probes(&row.v4) {
        let Expectation::Certificate { promised: Some(promised), .. } = &probe.expect else { panic!("{probe:?}") };
        assert_eq!((promised.secret.as_str(), promised.der.as_slice()), ("apps/grafana-tls", made.der().as_ref()));
    }
    let [probe, ..] = probes(&find(&rows, "certificate/paperless.example.org").v4) else { panic!() };
    assert!(matches!(&probe.expect, Expectation::Certificate { promised: None, .. }), "{probe:?}");
}
