//! What the API gives a Service: cluster addresses of each of its families, and node ports.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::{Api, Target, fields, items, text};
use crate::failure::Cause;
use crate::store::Key;

/// `10.43.0.0/16` without its first addresses, which are the cluster's own (`.1` the API server, `.10` DNS).
const V4: (u32, u32) = (0x0a2b_0064, 0x0a2b_fffe);
/// `fd43:43::/112`.
const V6_PREFIX: u128 = 0xfd43_0043 << 96;
const NODE_PORTS: (u64, u64) = (30_000, 32_767);

/// Which Service has what only one can have. Looked up, as there may be tens of thousands of them.
#[derive(Debug, Default)]
pub(super) struct Given {
    addresses: BTreeMap<String, Key>,
    ports: BTreeMap<u64, Key>,
}

impl Given {
    /// A Service is another one than before, came, or went.
    pub(super) fn replace(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        if let Some(service) = before {
            addresses(service).for_each(|address| drop(self.addresses.remove(address)));
            ports(service).for_each(|port| drop(self.ports.remove(&port)));
        }
        if let Some(service) = after {
            self.addresses.extend(addresses(service).map(|address| (address.to_owned(), key.clone())));
            self.ports.extend(ports(service).map(|port| (port, key.clone())));
        }
    }

    fn has_address_of_another(&self, address: &str, key: &Key) -> bool {
        self.addresses.get(address).is_some_and(|holder| holder != key)
    }

    fn has_port_of_another(&self, port: u64, key: &Key) -> bool {
        self.ports.get(&port).is_some_and(|holder| holder != key)
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = &str> {
    items(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).filter(|address| *address != "None")
}

fn ports(service: &Value) -> impl Iterator<Item = u64> {
    let ports = items(service, "/spec/ports").iter().filter_map(|port| port.get("nodePort"));
    ports.chain(service.pointer("/spec/healthCheckNodePort")).filter_map(Value::as_u64)
}

impl Api {
    /// Gives a Service what it needs and does not have. What it had, it keeps.
    pub(super) fn allocate(&mut self, target: &Target, service: &mut Value, live: Option<&Value>) -> Vec<Cause> {
        if let Some(live) = live {
            carry_over(service, live);
        }
        if text(service, "/spec/type") == "ExternalName" {
            for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                fields(&mut service["spec"]).remove(name);
            }
            return Vec::new();
        }
        let mut causes = self.cluster_addresses(target, service, live);
        causes.extend(self.node_ports(target, service));
        causes
    }

    fn cluster_addresses(&self, target: &Target, service: &mut Value, live: Option<&Value>) -> Vec<Cause> {
        let families = families(fields(&mut service["spec"]));
        let mut addresses: Vec<Value> = items(service, "/spec/clusterIPs").to_vec();
        let first = text(service, "/spec/clusterIP").to_owned();
        if !first.is_empty() && addresses.first().is_none_or(|of| *of != first) {
            addresses = vec![json!(first)];
        }
        if let Some(live) = live {
            let (was, is) =
                (text(live, "/spec/clusterIP"), addresses.first().and_then(Value::as_str).unwrap_or_default());
            if !was.is_empty() && was != is {
                let cause = Cause::invalid("spec.clusterIPs[0]", &json!(addresses), "may not change once set");
                return vec![cause];
            }
        }
        let spec = fields(&mut service["spec"]);
        spec.insert("ipFamilies".into(), json!(families));
        if addresses.first().is_some_and(|address| *address == "None") {
            spec.insert("clusterIP".into(), json!("None"));
            spec.insert("clusterIPs".into(), json!(["None"]));
            return Vec::new();
        }
        let key = target.key();
        let is_taken = |address: &str| self.given.has_address_of_another(address, &key);
        let mut given = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let wanted = addresses.get(index).and_then(Value::as_str).filter(|address| is_of(address, family));
            let address = wanted.map_or_else(|| free(family, &is_taken), |wanted| Some(wanted.to_owned()));
            let Some(address) = address else {
                return vec![Cause::invalid("spec.clusterIPs", &json!([]), "failed to allocate an IP: range is full")];
            };
            if is_taken(&address) {
                let why = "failed to allocate IP: provided IP is already allocated";
                return vec![Cause::invalid("spec.clusterIPs", &json!([address]), why)];
            }
            given.push(address);
        }
        spec.insert("clusterIP".into(), json!(given[0]));
        spec.insert("clusterIPs".into(), json!(given));
        Vec::new()
    }

    fn node_ports(&self, target: &Target, service: &mut Value) -> Vec<Cause> {
        let kind = text(service, "/spec/type").to_owned();
        let is_given = kind == "NodePort"
            || (kind == "LoadBalancer"
                && service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false)));
        let needs_check = kind == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local";
        let key = target.key();
        let mut candidates = (NODE_PORTS.0..=NODE_PORTS.1).filter(|port| !self.given.has_port_of_another(*port, &key));
        let mut next = || candidates.next();
        let spec = fields(&mut service["spec"]);
        if needs_check && !spec.contains_key("healthCheckNodePort") {
            spec.insert("healthCheckNodePort".into(), json!(next()));
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            if kind == "ClusterIP" {
                port.remove("nodePort");
            } else if is_given && port.get("nodePort").is_none_or(|port| port == 0) {
                port.insert("nodePort".into(), json!(next()));
            }
        }
        let given: Vec<&Value> = items(service, "/spec/ports").iter().filter_map(|port| port.get("nodePort")).collect();
        let is_taken = |port: &Value| port.as_u64().is_some_and(|port| self.given.has_port_of_another(port, &key));
        let used = given.iter().find(|port| is_taken(port));
        used.map(|port| Cause::invalid("spec.ports[0].nodePort", port, "provided port is already allocated"))
            .into_iter()
            .collect()
    }
}

/// What an update may leave out, since only the server could have known it.
fn carry_over(service: &mut Value, live: &Value) {
    let was_named = text(live, "/spec/type") == "ExternalName";
    let kind = text(service, "/spec/type").to_owned();
    let is_local = kind == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local";
    let spec = fields(&mut service["spec"]);
    for name in ["clusterIP", "clusterIPs", "ipFamilyPolicy", "ipFamilies"] {
        if !was_named
            && !spec.contains_key(name)
            && let Some(value) = live["spec"].get(name)
        {
            spec.insert(name.into(), value.clone());
        }
    }
    match live["spec"].get("healthCheckNodePort") {
        Some(port) if is_local => drop(spec.entry("healthCheckNodePort").or_insert_with(|| port.clone())),
        _ if !is_local => drop(spec.remove("healthCheckNodePort")),
        _ => {}
    }
    if kind == "ClusterIP" || kind == "ExternalName" {
        spec.remove("externalTrafficPolicy");
    }
    if kind != "LoadBalancer" {
        spec.remove("allocateLoadBalancerNodePorts");
    }
    let known = items(live, "/spec/ports");
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    for port in ports.filter(|port| port.is_object()) {
        let is_it = |of: &&Value| of["port"] == port["port"] && of["protocol"] == port["protocol"];
        if port.get("nodePort").is_none()
            && let Some(number) = known.iter().find(is_it).and_then(|of| of.get("nodePort"))
        {
            port["nodePort"] = number.clone();
        }
    }
}

/// The families that the policy leads to; the policy itself is filled in.
fn families(spec: &mut Map<String, Value>) -> Vec<String> {
    let asked = spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    let asked: Vec<String> = asked.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let given = spec.get("clusterIPs").and_then(Value::as_array).cloned().unwrap_or_default();
    let single = asked.len() < 2 && given.len() < 2;
    let is_headless = spec.get("clusterIP").is_some_and(|address| address == "None");
    let has_selector =
        spec.get("selector").is_some_and(|selector| selector.as_object().is_some_and(|of| !of.is_empty()));
    let policy = match (is_headless && !has_selector && asked.is_empty(), single) {
        (true, _) | (false, false) => "RequireDualStack",
        (false, true) => "SingleStack",
    };
    let policy = spec.entry("ipFamilyPolicy").or_insert_with(|| json!(policy)).clone();
    let first = asked.first().cloned().unwrap_or_else(|| {
        let address = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default();
        if address.contains(':') { "IPv6".to_owned() } else { "IPv4".to_owned() }
    });
    let other = if first == "IPv4" { "IPv6" } else { "IPv4" };
    if policy == "SingleStack" { vec![first] } else { vec![first, other.to_owned()] }
}

fn is_of(address: &str, family: &str) -> bool {
    address.contains(':') == (family == "IPv6")
}

fn free(family: &str, is_taken: &impl Fn(&str) -> bool) -> Option<String> {
    // Each Service takes one at most, so that a free one is found after as many steps as there are Services.
    let mut candidates = (V4.0..=V4.1).map(|number| match family {
        "IPv6" => Ipv6Addr::from(V6_PREFIX | u128::from(number & 0xffff)).to_string(),
        _ => Ipv4Addr::from(number).to_string(),
    });
    candidates.find(|address| !is_taken(address))
}
