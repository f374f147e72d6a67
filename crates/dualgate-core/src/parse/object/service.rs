//! v1 Service.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::read::{Field, Read, Reader, shown};
use super::{status, syntax};
use crate::model::address::Family;
use crate::model::exact::exact;
use crate::model::finding::{Code, Severity};
use crate::model::object::{
    ADDRESS_ASSIGNED, FamilyPolicy, LoadBalancer, PortRef, Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
};
use crate::model::text::Text;

const SPEC: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

pub(super) const PROTOCOLS: [(&str, Protocol); 3] =
    [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

pub(super) const TYPES: [(&str, ServiceType); 4] = [
    ("ClusterIP", ServiceType::ClusterIp),
    ("NodePort", ServiceType::NodePort),
    ("LoadBalancer", ServiceType::LoadBalancer),
    ("ExternalName", ServiceType::ExternalName),
];

pub(super) const FAMILY_POLICIES: [(&str, FamilyPolicy); 3] = [
    ("SingleStack", FamilyPolicy::SingleStack),
    ("PreferDualStack", FamilyPolicy::PreferDualStack),
    ("RequireDualStack", FamilyPolicy::RequireDualStack),
];

pub(super) const TRAFFIC_POLICIES: [(&str, TrafficPolicy); 2] =
    [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];

/// How long a client stays with its pod unless the Service says so.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// The longest that the API server accepts, in seconds.
const LONGEST_AFFINITY: u64 = 86_400;

pub(super) fn service(read: &mut Reader<'_>, root: Field<'_>) -> Read<Service> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let spec = root.get("spec");
    read.mapping(spec, SPEC)?;
    let kind = read.word(spec.get("type"), &TYPES)?.unwrap_or_default();
    let external_name = external_name(read, spec.get("externalName"), kind)?;
    let cluster_ips = cluster_ips(read, spec, kind).unwrap_or_default();
    let (family_policy, families) = families(read, spec, &cluster_ips.addresses);
    let load_balancer = load_balancer(read, spec)?;
    let ports_field = spec.get("ports");
    let fields: Vec<_> = read.list(&ports_field)?.collect();
    let may_lack_ports = cluster_ips.is_headless || kind == ServiceType::ExternalName;
    if fields.is_empty() && !may_lack_ports {
        return read.refuse(ports_field, "`ports` is required", "");
    }
    let ports = ports(read, &fields);
    let selector = read.texts(spec.get("selector")).into_iter().collect();
    Ok(Service {
        kind,
        selector,
        ports: exact(ports),
        cluster_ips: exact(cluster_ips.addresses),
        external_name,
        family_policy,
        families: exact(families),
        load_balancer: load_balancer.map(Box::new),
        traffic_policy: read
            .word(spec.get("externalTrafficPolicy"), &TRAFFIC_POLICIES)
            .unwrap_or_default()
            .unwrap_or_default(),
        client_affinity: client_affinity(read, spec),
        published: status::published(read, root),
        address_assigned: status::condition(read, root, ADDRESS_ASSIGNED).map(Box::new),
    })
}

fn external_name(read: &mut Reader<'_>, field: Field<'_>, kind: ServiceType) -> Read<Option<Text>> {
    let Some(text) = read.text(field)? else {
        return match kind {
            ServiceType::ExternalName => {
                read.refuse(field, format!("{field} is required for the type `ExternalName`"), "")
            }
            ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => Ok(None),
        };
    };
    match kind {
        ServiceType::ExternalName => {}
        ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => return Ok(None),
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    read.check(field, name, syntax::subdomain)?;
    if name.parse::<IpAddr>().is_ok() {
        let message = format!("{} is an address, which no DNS server knows as a name", shown(text));
        let finding = read.note(field, Code::ObjectInvalid, message);
        finding.help = "write an EndpointSlice with the address, or the annotation `dualgate.dev/endpoints`".into();
        finding.severity = Severity::Warning;
    }
    Ok(Some(name.into()))
}

/// Only shown, so wrong ones are left out.
#[derive(Default)]
struct ClusterIps {
    addresses: Vec<IpAddr>,
    is_headless: bool,
}

fn cluster_ips(read: &mut Reader<'_>, spec: Field<'_>, kind: ServiceType) -> Read<ClusterIps> {
    let (list_field, one_field) = (spec.get("clusterIPs"), spec.get("clusterIP"));
    let mut read_ips = ClusterIps::default();
    let one = read.text(one_field)?;
    let mut fields: Vec<_> = read.list(&list_field)?.collect();
    if let (Some(one), Some(first)) = (one, fields.first())
        && first.json().as_str() != Some(one)
    {
        return read.refuse(
            *first,
            format!("`clusterIPs` and `clusterIP`, which is {}, contradict each other", shown(one)),
            "",
        );
    }
    if fields.is_empty() && one.is_some() {
        fields.push(one_field);
    }
    for field in &fields {
        match read.required(*field)? {
            "None" if fields.len() == 1 => read_ips.is_headless = true,
            text => match text.parse::<IpAddr>() {
                Ok(address) => read_ips.addresses.push(address),
                Err(_) => return read.refuse(*field, format!("{} is not an IP address", shown(text)), ""),
            },
        }
    }
    if kind == ServiceType::ExternalName && !fields.is_empty() {
        return read.refuse(fields[0], format!("{} may not be set for the type `ExternalName`", fields[0]), "");
    }
    match *read_ips.addresses.as_slice() {
        [] | [_] => Ok(read_ips),
        [first, second] if Family::of(first) != Family::of(second) => Ok(read_ips),
        [..] => read.refuse(list_field, "`clusterIPs` holds more than one address of a family", ""),
    }
}

/// The policy, and the families in order: those that are written, else those of the cluster's addresses.
fn families(read: &mut Reader<'_>, spec: Field<'_>, cluster_ips: &[IpAddr]) -> (FamilyPolicy, Vec<Family>) {
    let policy = read.word(spec.get("ipFamilyPolicy"), &FAMILY_POLICIES).unwrap_or_default().unwrap_or_default();
    let field = spec.get("ipFamilies");
    let mut families = Vec::new();
    for field in read.list(&field).into_iter().flatten() {
        let Ok(Some(family)) = read.word(field, &[("IPv4", Family::V4), ("IPv6", Family::V6)]) else { continue };
        if families.contains(&family) {
            read.note(field, Code::ObjectInvalid, format!("{family} is named twice"));
        } else {
            families.push(family);
        }
    }
    if policy == FamilyPolicy::SingleStack && families.len() > 1 {
        let message = format!("two families need another `ipFamilyPolicy` than `SingleStack`; {} counts", families[0]);
        read.note(field, Code::ObjectInvalid, message).help =
            "write `ipFamilyPolicy: PreferDualStack` or `RequireDualStack`".into();
        families.truncate(1);
    }
    if families.is_empty() {
        families.extend(cluster_ips.iter().map(|address| Family::of(*address)));
    }
    (policy, families)
}

fn load_balancer(read: &mut Reader<'_>, spec: Field<'_>) -> Read<Option<LoadBalancer>> {
    let load_balancer = LoadBalancer {
        class: load_balancer_class(read, spec)?,
        ip: address(read, spec.get("loadBalancerIP")),
        source_ranges: exact(source_ranges(read, spec)?),
    };
    Ok(Some(load_balancer).filter(|load_balancer| *load_balancer != LoadBalancer::default()))
}

/// Nobody's Service becomes somebody's because its class cannot be read.
fn load_balancer_class(read: &mut Reader<'_>, spec: Field<'_>) -> Read<Option<Text>> {
    let field = spec.get("loadBalancerClass");
    let Some(class) = read.text(field)? else { return Ok(None) };
    read.check(field, class, syntax::qualified)?;
    Ok(Some(class.into()))
}

pub(super) fn address(read: &mut Reader<'_>, field: Field<'_>) -> Option<IpAddr> {
    let text = read.text(field).ok()??;
    let address = text.parse().ok();
    if address.is_none() {
        read.note(field, Code::ObjectInvalid, format!("{} is not an IP address", shown(text)));
    }
    address
}

/// A wrong range refuses the Service: without it, others could come in.
fn source_ranges(read: &mut Reader<'_>, spec: Field<'_>) -> Read<Vec<IpNet>> {
    let list_field = spec.get("loadBalancerSourceRanges");
    let mut ranges = Vec::new();
    for field in read.list(&list_field)? {
        let text = read.required(field)?;
        match text.trim().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => return read.refuse(field, format!("{} is not a CIDR", shown(text)), ""),
        }
    }
    Ok(ranges)
}

fn client_affinity(read: &mut Reader<'_>, spec: Field<'_>) -> Option<Duration> {
    let is_by_client = read.word(spec.get("sessionAffinity"), &[("None", false), ("ClientIP", true)]).ok()??;
    if !is_by_client {
        return None;
    }
    let config = spec.get("sessionAffinityConfig");
    let by_client = config.get("clientIP");
    let field = by_client.get("timeoutSeconds");
    if field.is_absent() {
        return Some(DEFAULT_AFFINITY);
    }
    match field.json().as_u64() {
        Some(seconds) if (1..=LONGEST_AFFINITY).contains(&seconds) => Some(Duration::from_secs(seconds)),
        Some(_) | None => {
            let message = format!("{field} is not a number of seconds from 1 to {LONGEST_AFFINITY}; 10800 is used");
            read.note(field, Code::ObjectInvalid, message);
            Some(DEFAULT_AFFINITY)
        }
    }
}

fn ports(read: &mut Reader<'_>, fields: &[Field<'_>]) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for field in fields {
        let Ok(port) = port(read, *field) else { continue };
        let is_repeated = ports.iter().any(|other| other.name == port.name);
        let left_out = if is_repeated { "; this one is left out" } else { "" };
        if port.name.is_empty() && fields.len() > 1 {
            let message = format!("`name` is required, because the Service has several ports{left_out}");
            read.note(field.get("name"), Code::ObjectInvalid, message);
        } else if is_repeated {
            let message = format!("{} names an earlier port{left_out}", shown(&port.name));
            read.note(field.get("name"), Code::ObjectInvalid, message);
        }
        if is_repeated {
            continue;
        }
        if ports.iter().any(|other| other.port == port.port && other.protocol == port.protocol) {
            let message = format!("{} is an earlier port's number too", port.port);
            read.note(field.get("port"), Code::ObjectInvalid, message).severity = Severity::Warning;
        }
        ports.push(port);
    }
    ports
}

fn port(read: &mut Reader<'_>, field: Field<'_>) -> Read<ServicePort> {
    read.mapping(field, &["name", "protocol", "appProtocol", "port", "targetPort", "nodePort"])?;
    let name_field = field.get("name");
    let name = read.text(name_field)?.unwrap_or_default();
    if !name.is_empty() {
        read.check(name_field, name, syntax::label)?;
    }
    let port_field = field.get("port");
    let Some(port) = read.port(port_field)? else { return read.refuse(port_field, "`port` is required", "") };
    let protocol = read.word(field.get("protocol"), &PROTOCOLS)?.unwrap_or_default();
    let target = target(read, field.get("targetPort"))?.unwrap_or(PortRef::Number(port));
    let _ = read.port(field.get("nodePort"));
    let app_field = field.get("appProtocol");
    let app_protocol = read.text(app_field)?;
    if let Some(text) = app_protocol {
        read.check(app_field, text, syntax::qualified)?;
    }
    Ok(ServicePort { name: name.into(), port, target, protocol, app_protocol: app_protocol.map(Into::into) })
}

fn target(read: &mut Reader<'_>, field: Field<'_>) -> Read<Option<PortRef>> {
    if !field.json().is_string() {
        return Ok(read.port(field)?.map(PortRef::Number));
    }
    let Some(text) = read.text(field)? else { return Ok(None) };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return read.refuse(
            field,
            format!("{} is text, so it is a port's name", shown(text)),
            "write it without quotes",
        );
    }
    read.check(field, text, syntax::port_name)?;
    Ok(Some(PortRef::Name(text.into())))
}
