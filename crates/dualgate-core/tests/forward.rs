//! What is forwarded for Services of type LoadBalancer, by whom, and what is said where it is not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::case::{Case, Families};
use dualgate_core::lower;
use dualgate_core::model::object::TrafficPolicy;
use dualgate_core::model::snapshot::ServiceProxy;
use dualgate_core::model::{Assignments, Code, Family, NodeName, ObjectName, Snapshot};
use dualgate_core::plan;
use dualgate_core::plan::forward::{Forward, Transport};
use dualgate_core::plan::proxy::{Server, ServerAddress};

/// A name server for both transports, with a pod on each home node.
const DNS: &str = "== objects
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: apps}
spec:
  type: LoadBalancer
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 5353}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-4, namespace: apps, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 5353, protocol: TCP}]
endpoints:
- {addresses: [10.42.1.2], nodeName: home1, targetRef: {kind: Pod, name: dns-a, namespace: apps}}
- {addresses: [10.42.2.2], nodeName: home2, targetRef: {kind: Pod, name: dns-b, namespace: apps}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-6, namespace: apps, labels: {kubernetes.io/service-name: dns}}
addressType: IPv6
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 5353, protocol: TCP}]
endpoints:
- {addresses: ['fd01:1::2'], nodeName: home1, targetRef: {kind: Pod, name: dns-a, namespace: apps}}
- {addresses: ['fd01:2::2'], nodeName: home2, targetRef: {kind: Pod, name: dns-b, namespace: apps}}
";

const V4: &str = "192.168.178.11";
const V6: &str = "fda8:a1db:5685::11";

fn addresses(families: Families) -> Vec<IpAddr> {
    let of = |family, text: &str| families.has(family).then(|| text.parse().unwrap());
    [of(Family::V4, V4), of(Family::V6, V6)].into_iter().flatten().collect()
}

/// A snapshot in which Services of `apps` have these addresses.
fn snapshot(text: &str, families: Families, assigned: &[(&str, Vec<IpAddr>)]) -> Snapshot {
    let mut snapshot = Case::parse("test", text).unwrap().snapshot(families).unwrap();
    let assigned = assigned.iter().map(|(name, addresses)| (ObjectName::new("apps", *name), addresses.clone()));
    snapshot.facts.assigned = Arc::new(Assignments::from_iter(assigned));
    snapshot
}

fn forwards(snapshot: &Snapshot, node: &str) -> Vec<Forward> {
    plan::proxy::proxy(snapshot, &NodeName::new(node)).forwards
}

/// `id at sockets: servers`.
fn line(forward: &Forward) -> String {
    let listen: Vec<String> = forward.listen.iter().map(SocketAddr::to_string).collect();
    let servers: Vec<String> = forward.servers.iter().map(server).collect();
    format!("{} at {}: {}", forward.id, listen.join(" "), servers.join(" "))
}

fn server(server: &Server) -> String {
    match &server.at {
        ServerAddress::Sockets(sockets) => sockets.to_string(),
        ServerAddress::Name { host, port } => format!("{host}:{port}"),
    }
}

fn lines(snapshot: &Snapshot, node: &str) -> Vec<String> {
    forwards(snapshot, node).iter().map(line).collect()
}

/// Code and message of everything that is said while objects are lowered.
fn said(snapshot: &Snapshot) -> Vec<(Code, String)> {
    let findings = lower::snapshot(snapshot).findings().into_iter();
    findings.map(|finding| (finding.code, finding.message)).collect()
}

#[test]
fn every_port_of_a_service_with_addresses_is_forwarded_at_every_home_node_over_the_families_that_there_are() {
    for (families, expected) in [
        (
            Families::V4,
            [
                "apps/dns:53/udp at 192.168.178.11:53: 10.42.1.2:53 10.42.2.2:53",
                "apps/dns:53/tcp at 192.168.178.11:53: 10.42.1.2:5353 10.42.2.2:5353",
            ],
        ),
        (
            Families::V6,
            [
                "apps/dns:53/udp at [fda8:a1db:5685::11]:53: [fd01:1::2]:53 [fd01:2::2]:53",
                "apps/dns:53/tcp at [fda8:a1db:5685::11]:53: [fd01:1::2]:5353 [fd01:2::2]:5353",
            ],
        ),
        (
            Families::Both,
            [
                "apps/dns:53/udp at 192.168.178.11:53 [fda8:a1db:5685::11]:53: 10.42.1.2:53+[fd01:1::2]:53 10.42.2.2:53+[fd01:2::2]:53",
                "apps/dns:53/tcp at 192.168.178.11:53 [fda8:a1db:5685::11]:53: 10.42.1.2:5353+[fd01:1::2]:5353 10.42.2.2:5353+[fd01:2::2]:5353",
            ],
        ),
    ] {
        let manifests = of_families(families);
        let snapshot = snapshot(&manifests, families, &[("dns", addresses(families))]);
        for node in ["home1", "home2"] {
            assert_eq!(lines(&snapshot, node), expected, "{node}");
        }
        assert_eq!(forwards(&snapshot, "edge"), []);
        assert_eq!(said(&snapshot), []);
    }
}

/// The manifests without the EndpointSlices of a family that is not there.
fn of_families(families: Families) -> String {
    let documents = DNS.split("---\n").filter(|document| {
        let lacks = |family, word: &str| !families.has(family) && document.contains(word);
        !lacks(Family::V4, "addressType: IPv4") && !lacks(Family::V6, "addressType: IPv6")
    });
    documents.collect::<Vec<_>>().join("---\n")
}

#[test]
fn what_the_service_says_of_clients_and_nodes_is_in_the_plan() {
    let text = DNS.replace(
        "  type: LoadBalancer\n",
        "  type: LoadBalancer
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}
  loadBalancerSourceRanges: [192.168.178.0/24]
",
    );
    let snapshot = snapshot(&text, Families::Both, &[("dns", addresses(Families::Both))]);
    for (node, pods) in [("home1", "10.42.1.2:53+[fd01:1::2]:53"), ("home2", "10.42.2.2:53+[fd01:2::2]:53")] {
        let [udp, tcp] = forwards(&snapshot, node).try_into().unwrap();
        assert_eq!(udp.servers.iter().map(server).collect::<Vec<_>>(), [pods]);
        for forward in [&udp, &tcp] {
            assert_eq!(forward.policy, TrafficPolicy::Local);
            assert_eq!(forward.client_affinity, Some(Duration::from_secs(600)));
            assert_eq!(forward.source_ranges, ["192.168.178.0/24".parse().unwrap()]);
        }
        assert_eq!(
            [(&*udp.port_name, udp.id.transport), (&*tcp.port_name, tcp.id.transport)],
            [("dns", Transport::Udp), ("dns-tcp", Transport::Tcp)]
        );
    }
    assert_eq!(said(&snapshot), []);
}

#[test]
fn a_node_whose_own_pods_only_end_still_uses_them_under_the_policy_local() {
    let text = DNS
        .replace("  type: LoadBalancer\n", "  type: LoadBalancer\n  externalTrafficPolicy: Local\n")
        .replace("nodeName: home1,", "nodeName: home1, conditions: {ready: false, serving: true, terminating: true},");
    let snapshot = snapshot(&text, Families::Both, &[("dns", addresses(Families::Both))]);
    let servers = |node| forwards(&snapshot, node)[0].servers.iter().map(server).collect::<Vec<_>>();
    assert_eq!(servers("home1"), ["10.42.1.2:53+[fd01:1::2]:53"]);
    assert_eq!(servers("home2"), ["10.42.2.2:53+[fd01:2::2]:53"]);
}

#[test]
fn servers_of_the_annotation_are_on_no_node_and_serve_every_one() {
    let text = "== objects
apiVersion: v1
kind: Service
metadata: {name: nas, namespace: apps, annotations: {dualgate.dev/endpoints: '192.168.178.40:22+[fda8::40]:22'}}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 22}]}
";
    let snapshot = snapshot(text, Families::Both, &[("nas", addresses(Families::Both))]);
    for node in ["home1", "home2"] {
        let expected = "apps/nas:22/tcp at 192.168.178.11:22 [fda8:a1db:5685::11]:22: 192.168.178.40:22+[fda8::40]:22";
        assert_eq!(lines(&snapshot, node), [expected]);
    }
}

#[test]
fn nothing_is_forwarded_where_kube_proxy_does_or_without_addresses_or_for_another_type() {
    let with = |text: &str| snapshot(text, Families::Both, &[("dns", addresses(Families::Both))]);
    for service_proxy in [ServiceProxy::Translating, ServiceProxy::Ipvs { strict_arp: true }] {
        let mut snapshot = with(&DNS.replace("protocol: UDP}, {name: dns-tcp", "protocol: SCTP}, {name: dns-tcp"));
        snapshot.facts.service_proxy = service_proxy;
        assert_eq!(forwards(&snapshot, "home1"), []);
        assert_eq!(said(&snapshot), [], "what kube-proxy forwards is not our concern");
    }
    assert_eq!(forwards(&snapshot(DNS, Families::Both, &[]), "home1"), []);
    assert_eq!(forwards(&with(&DNS.replace("type: LoadBalancer", "type: ClusterIP")), "home1"), []);
    assert_eq!(forwards(&with("== objects\n"), "home1"), [], "its Service is gone");
}

#[test]
fn kube_proxy_that_answers_arp_for_every_address_is_told_of() {
    for (service_proxy, said) in [
        (ServiceProxy::Ipvs { strict_arp: false }, 1),
        (ServiceProxy::Ipvs { strict_arp: true }, 0),
        (ServiceProxy::Translating, 0),
        (ServiceProxy::Absent, 0),
    ] {
        let mut snapshot = snapshot(DNS, Families::Both, &[("dns", addresses(Families::Both))]);
        snapshot.facts.service_proxy = service_proxy;
        let plan = plan::virtual_ips::virtual_ips(&snapshot, &NodeName::new("home1"));
        let findings = plan::virtual_ips::findings(&snapshot, &plan);
        assert_eq!(findings.iter().filter(|finding| finding.code == Code::VirtualIpsStrictArp).count(), said);
    }
}

#[test]
fn sctp_is_not_forwarded_and_the_other_ports_are() {
    let text = DNS.replace(
        "{name: dns, port: 53, protocol: UDP}, {name: dns-tcp",
        "{name: dns, port: 53, protocol: SCTP}, {name: dns-tcp",
    );
    let snapshot = snapshot(&text, Families::Both, &[("dns", addresses(Families::Both))]);
    let ids: Vec<String> = forwards(&snapshot, "home1").iter().map(|forward| forward.id.to_string()).collect();
    assert_eq!(ids, ["apps/dns:53/tcp"]);
    let why = "port 53 is not forwarded: dualgate forwards TCP and UDP, not SCTP";
    assert_eq!(said(&snapshot), [(Code::ServicePort, why.to_owned())]);
}

#[test]
fn a_gate_keeps_what_it_listens_on_and_so_does_the_first_of_two_services() {
    let service = |name: &str, port: u16| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: apps, annotations: {{dualgate.dev/endpoints: '10.0.0.9:80'}}}}\nspec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
        )
    };
    let gate: Vec<IpAddr> = vec!["192.168.178.10".parse().unwrap(), "fda8:a1db:5685::12".parse().unwrap()];
    let text = format!("== objects\n{}{}{}", service("a", 443), service("b", 8080), service("c", 8080));
    let text = text.replacen("---\n", "", 1);
    let assigned = [("a", gate.clone()), ("b", addresses(Families::Both)), ("c", addresses(Families::Both))];
    let snapshot = snapshot(&text, Families::Both, &assigned);
    assert_eq!(
        lines(&snapshot, "home1"),
        [
            "apps/a:443/tcp at [fda8:a1db:5685::12]:443: 10.0.0.9:80",
            "apps/b:8080/tcp at 192.168.178.11:8080 [fda8:a1db:5685::11]:8080: 10.0.0.9:80",
        ]
    );
    let gate = "port 443 is not forwarded at 192.168.178.10: the entry point internal/websecure listens there";
    let v4 = "port 8080 is not forwarded at 192.168.178.11: Service apps/b listens there";
    let v6 = "port 8080 is not forwarded at fda8:a1db:5685::11: Service apps/b listens there";
    assert_eq!(said(&snapshot), [gate, v4, v6].map(|text| (Code::ServicePort, text.to_owned())));
}

#[test]
fn a_service_without_servers_is_forwarded_to_nobody_and_said() {
    let text =
        DNS.split("---\n").next().unwrap().replace("type: LoadBalancer", "type: LoadBalancer\n  selector: {a: b}");
    let snapshot = snapshot(&text, Families::V4, &[("dns", addresses(Families::V4))]);
    assert_eq!(
        lines(&snapshot, "home1"),
        ["apps/dns:53/udp at 192.168.178.11:53: ", "apps/dns:53/tcp at 192.168.178.11:53: "]
    );
    assert_eq!(
        said(&snapshot),
        [
            (Code::ServiceNoEndpoints, "port 53 (dns): it has no EndpointSlice; its datagrams are dropped".to_owned()),
            (
                Code::ServiceNoEndpoints,
                "port 53 (dns-tcp): it has no EndpointSlice; nobody answers for its addresses".to_owned()
            ),
        ]
    );
}

#[test]
fn no_server_is_an_address_that_is_forwarded() {
    for endpoints in ["192.168.178.11:80,10.0.0.9:80", "'10.0.0.9:80,10.0.0.8:80+[fda8:a1db:5685::11]:81'"] {
        let text = format!(
            "== objects\napiVersion: v1\nkind: Service\nmetadata: {{name: loop, namespace: apps, annotations: {{dualgate.dev/endpoints: {endpoints:?}}}}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n",
            endpoints = endpoints.trim_matches('\'')
        );
        let snapshot = snapshot(&text, Families::Both, &[("loop", addresses(Families::Both))]);
        let servers = forwards(&snapshot, "home1")[0].servers.iter().map(server).collect::<Vec<_>>();
        assert_eq!(servers, ["10.0.0.9:80"], "{endpoints}");
        assert_eq!(said(&snapshot).len(), 1);
        assert_eq!(said(&snapshot)[0].0, Code::ServiceEndpoints);
    }
}
