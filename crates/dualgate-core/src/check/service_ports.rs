//! Services that have the addresses of nodes: K3s' servicelb gives them those, and opens the Service's ports at every address
//! of these nodes. A gate there hears nothing at the same ports, also at virtual IPs: packets are taken before it could.

use std::collections::BTreeSet;

use crate::model::object::{Body, Protocol, Published, Service, ServiceType};
use crate::model::site::{Gate, Node, Role, Site};
use crate::model::{Code, Finding, GateName, Object, Snapshot};

/// What stands in a gate's way.
pub(super) fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let services = snapshot.objects.of_kind("Service").iter().filter_map(|object| match &object.body {
        Body::Service(service) if !service.published.is_empty() => Some((object, service)),
        _ => None,
    });
    services.filter_map(|(object, service)| of_service(&snapshot.site, object, service)).collect()
}

fn of_service(site: &Site, object: &Object, service: &Service) -> Option<Finding> {
    if service.kind != ServiceType::LoadBalancer || object.managed.is_load_balancer_ours {
        return None;
    }
    let nodes: Vec<&Node> = site.nodes.iter().filter(|node| has_address_of(service, node)).collect();
    for (name, gate) in &site.gates {
        let ports = shared(gate, service);
        let of_gate: Vec<&str> =
            nodes.iter().filter(|node| node.has(Role::of_gate(*name))).map(|node| node.name.as_str()).collect();
        if !ports.is_empty() && !of_gate.is_empty() {
            return Some(finding(object, *name, &ports, &of_gate));
        }
    }
    None
}

fn has_address_of(service: &Service, node: &Node) -> bool {
    service.published.iter().any(|published| match published {
        Published::Ip(ip) => node.addresses.contains(ip) || node.public_addresses.contains(ip),
        Published::Hostname(_) => false,
    })
}

/// The ports that both want.
fn shared(gate: &Gate, service: &Service) -> BTreeSet<u16> {
    let wanted: BTreeSet<u16> = gate.entry_points.values().map(|point| point.port).collect();
    let of_tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    of_tcp.filter(|port| wanted.contains(port)).collect()
}

fn finding(object: &Object, gate: GateName, ports: &BTreeSet<u16>, nodes: &[&str]) -> Finding {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let message = format!(
        "it has addresses of {}, as K3s' servicelb gives them: its port {} is taken at every address of such a node, and the \
         {gate} gate hears nothing there",
        nodes.join(", "),
        ports.join(", "),
    );
    let name = &object.key.name;
    let help = format!(
        "`disable: [servicelb]` in the config of every K3s server, or make it a Service of another type: `kubectl -n {} patch \
         service {} -p '{{\"spec\":{{\"type\":\"ClusterIP\"}}}}'`",
        name.namespace, name.name
    );
    Finding::new(Code::ServiceTakesPorts, object.place("status.loadBalancer"), message).help(help)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::ObjectSet;
    use crate::model::snapshot::{Facts, Generation};
    use crate::parse;

    const SITE: &str = "apiVersion: dualgate.dev/v1alpha1
kind: Site
gates:
  internal: {addresses: [192.168.178.9]}
  external: {}
nodes:
  - {name: home1, roles: [server, internal-gate], addresses: [192.168.178.5, 'fd00::5']}
  - {name: home2, roles: [server], addresses: [192.168.178.6]}
  - {name: edge, roles: [agent, external-gate], addresses: [10.44.0.2], publicAddresses: [192.0.2.1]}
";

    /// What is said of a Service with these addresses in its status.
    fn said(kind: &str, protocol: &str, port: u16, addresses: &[&str], manager: &str) -> Vec<String> {
        let entries: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "traefik", "namespace": "kube-system", "managedFields": [
                {"manager": manager, "operation": "Apply", "subresource": "status", "fieldsV1": fields},
            ]},
            "spec": {"type": kind, "ports": [{"port": port, "protocol": protocol}]},
            "status": {"loadBalancer": {"ingress": entries}},
        });
        let site = parse::site::site("site.yaml", SITE).0.expect("a site");
        let objects = parse::object::object(&service, None).objects.into_iter().map(Arc::new).collect();
        let objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
        let snapshot = Snapshot { generation: Generation(1), site: Arc::new(site), objects, facts: Facts::default() };
        findings(&snapshot).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_service_with_the_addresses_of_a_gate_s_node_is_told_and_no_other() {
        let k3s = "deploy@k3s";
        let told = said("LoadBalancer", "TCP", 80, &["192.168.178.5", "192.168.178.6"], k3s);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("it has addresses of home1, as K3s' servicelb gives them: its port 80 is"),
            "{told:?}"
        );
        assert!(told[0].contains("the internal gate hears nothing"), "{told:?}");
        assert_eq!(said("LoadBalancer", "TCP", 443, &["fd00::5"], k3s).len(), 1);
        assert!(said("LoadBalancer", "TCP", 443, &["192.0.2.1"], k3s)[0].contains("of edge, as"));
        for (kind, protocol, port, address, manager) in [
            ("ClusterIP", "TCP", 80, "192.168.178.5", k3s),
            ("LoadBalancer", "UDP", 443, "192.168.178.5", k3s),
            ("LoadBalancer", "TCP", 8080, "192.168.178.5", k3s),
            ("LoadBalancer", "TCP", 80, "192.168.178.200", k3s),
            // Nobody has a gate there.
            ("LoadBalancer", "TCP", 80, "192.168.178.6", k3s),
            ("LoadBalancer", "TCP", 80, "192.168.178.5", "dualgate"),
        ] {
            assert_eq!(
                said(kind, protocol, port, &[address], manager),
                Vec::<String>::new(),
                "{kind} {protocol} {port}"
            );
        }
    }
}
