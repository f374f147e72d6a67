//! discovery.k8s.io/v1 EndpointSlice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::read::{Field, LeftOut, Read, Reader, shown};
use super::service::PROTOCOLS;
use super::syntax;
use crate::model::exact::exact;
use crate::model::finding::{Code, Severity};
use crate::model::names::{ObjectKey, ObjectName};
use crate::model::object::{AddressType, Endpoint, EndpointPort, EndpointSlice, Meta};
use crate::model::text::Text;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

const TYPES: [(&str, AddressType); 3] =
    [("IPv4", AddressType::V4), ("IPv6", AddressType::V6), ("FQDN", AddressType::Fqdn)];

const ENDPOINT: &[&str] =
    &["addresses", "conditions", "deprecatedTopology", "hints", "hostname", "nodeName", "targetRef", "zone"];

pub(super) fn endpoint_slice(
    read: &mut Reader<'_>,
    root: Field<'_>,
    key: &ObjectKey,
    meta: &Meta,
) -> Read<EndpointSlice> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"])?;
    let type_field = root.get("addressType");
    let Some(address_type) = read.word(type_field, &TYPES)? else {
        return read.refuse(
            type_field,
            "`addressType` is required",
            "write `IPv4` or `IPv6`; each family has a slice of its own",
        );
    };
    let service = service(read, root, meta);
    let endpoints_field = root.get("endpoints");
    let fields: Vec<_> = read.list(&endpoints_field)?.collect();
    if fields.len() > MAX_ENDPOINTS {
        return read.refuse(
            endpoints_field,
            format!("`endpoints` holds more than {MAX_ENDPOINTS}"),
            "use several slices",
        );
    }
    let mut endpoints = Vec::new();
    match address_type {
        AddressType::V4 | AddressType::V6 => {
            endpoints.extend(fields.into_iter().filter_map(|field| endpoint(read, field, address_type, key).ok()));
        }
        AddressType::Fqdn => {
            let finding = read.note(type_field, Code::ObjectInvalid, "`FQDN` slices are deprecated and not used");
            finding.severity = Severity::Warning;
            finding.help = "write a Service of the type `ExternalName`".into();
        }
    }
    let ports_field = root.get("ports");
    let mut ports: Vec<EndpointPort> = Vec::new();
    for field in read.list(&ports_field)? {
        let Ok(port) = port(read, field) else { continue };
        if ports.iter().any(|other| other.name == port.name) {
            let message = format!("{} names an earlier port; this one is left out", shown(&port.name));
            read.note(field.get("name"), Code::ObjectInvalid, message);
            continue;
        }
        ports.push(port);
    }
    Ok(EndpointSlice { service, address_type, endpoints: exact(endpoints), ports: exact(ports) })
}

fn service(read: &mut Reader<'_>, root: Field<'_>, meta: &Meta) -> Option<Text> {
    let service = meta.labels.get(SERVICE_LABEL).filter(|name| !name.is_empty());
    if service.is_none() && read.is_from_file() {
        let metadata = root.get("metadata");
        let finding = read.note(
            metadata.get("labels"),
            Code::ObjectInvalid,
            format!("the slice belongs to no Service: it has no label `{SERVICE_LABEL}`"),
        );
        finding.severity = Severity::Warning;
        finding.help = format!("write the Service's name into the label `{SERVICE_LABEL}`");
    }
    service.map(Into::into)
}

fn endpoint(read: &mut Reader<'_>, field: Field<'_>, address_type: AddressType, key: &ObjectKey) -> Read<Endpoint> {
    read.mapping(field, ENDPOINT)?;
    let address = first_address(read, field.get("addresses"), address_type)?;
    let conditions = field.get("conditions");
    read.mapping(conditions, &["ready", "serving", "terminating"])?;
    let ready = read.boolean(conditions.get("ready"))?.unwrap_or(true);
    let serving = read.boolean(conditions.get("serving"))?.unwrap_or(ready);
    let terminating = read.boolean(conditions.get("terminating"))?.unwrap_or(false);
    let target = target(read, field.get("targetRef"), key)?;
    let node = read.text(field.get("nodeName"))?.map(Into::into);
    Ok(Endpoint { address, ready, serving, terminating, target, node })
}

/// The first address of the slice's family; an endpoint without any is left out.
fn first_address(read: &mut Reader<'_>, list: Field<'_>, address_type: AddressType) -> Read<IpAddr> {
    let fields: Vec<_> = read.list(&list)?.collect();
    if fields.is_empty() || fields.len() > MAX_ADDRESSES {
        return read.refuse(list, format!("`addresses` holds {}; 1 to {MAX_ADDRESSES} are needed", fields.len()), "");
    }
    let addresses: Vec<_> = fields.into_iter().filter_map(|field| address(read, field, address_type).ok()).collect();
    addresses.first().copied().ok_or(LeftOut)
}

fn address(read: &mut Reader<'_>, field: Field<'_>, address_type: AddressType) -> Read<IpAddr> {
    let text = read.required(field)?;
    let address = match (text.parse::<IpAddr>(), address_type) {
        (Ok(address @ IpAddr::V4(_)), AddressType::V4) => address,
        (Ok(IpAddr::V6(v6)), AddressType::V6) if v6.to_ipv4_mapped().is_none() => IpAddr::V6(v6),
        (Ok(IpAddr::V4(_)), AddressType::V6 | AddressType::Fqdn) => {
            return read.refuse(
                field,
                format!("{} is not an IPv6 address", shown(text)),
                "it belongs into an IPv4 slice",
            );
        }
        (Ok(IpAddr::V6(_)), AddressType::V4 | AddressType::V6 | AddressType::Fqdn) => {
            let (wrong, right) = if address_type == AddressType::V4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let help = format!("it belongs into an {right} slice");
            return read.refuse(field, format!("{} is not an {wrong} address", shown(text)), &help);
        }
        (Err(_), AddressType::V4 | AddressType::V6 | AddressType::Fqdn) => {
            return read.refuse(field, format!("{} is not an IP address", shown(text)), "");
        }
    };
    match forbidden(address) {
        Some(what) => read.refuse(field, format!("{} is {what} address; it cannot be an endpoint", shown(text)), ""),
        None => Ok(address),
    }
}

/// What the API server forbids, except loopback: it forbids that to protect its nodes from tenants, and in a
/// folder the backend on the same machine is the simplest case.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        Some("the unspecified")
    } else if link_local {
        Some("a link-local")
    } else if address.is_multicast() {
        Some("a multicast")
    } else {
        None
    }
}

fn target(read: &mut Reader<'_>, field: Field<'_>, key: &ObjectKey) -> Read<Option<ObjectName>> {
    read.mapping(field, &["apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"])?;
    let Some(name) = read.text(field.get("name"))? else { return Ok(None) };
    // Nearly always the slice's own: then its name is kept once.
    let own = &key.name.namespace;
    let namespace = read.text(field.get("namespace"))?.filter(|given| *given != &**own);
    Ok(Some(ObjectName::new(namespace.map_or_else(|| own.clone(), Into::into), name)))
}

fn port(read: &mut Reader<'_>, field: Field<'_>) -> Read<EndpointPort> {
    read.mapping(field, &["name", "protocol", "port", "appProtocol"])?;
    let name_field = field.get("name");
    let name = read.text(name_field)?.unwrap_or_default();
    if !name.is_empty() {
        read.check(name_field, name, syntax::label)?;
    }
    let port = read.port(field.get("port"))?;
    let protocol = read.word(field.get("protocol"), &PROTOCOLS)?.unwrap_or_default();
    Ok(EndpointPort { name: name.into(), port, protocol })
}
