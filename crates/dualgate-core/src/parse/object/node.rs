//! v1 Node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::read::{Field, Read, Reader, shown};
use crate::model::finding::Code;
use crate::model::object::NodeBody;

/// Nodes are written by kubelets, so unknown fields are of a later version and not worth a word.
pub(super) fn node(read: &mut Reader<'_>, root: Field<'_>) -> Read<NodeBody> {
    let (spec, status) = (root.get("spec"), root.get("status"));
    Ok(NodeBody {
        pod_cidrs: pod_cidrs(read, spec).unwrap_or_default(),
        addresses: addresses(read, status).unwrap_or_default(),
        ready: condition(read, status, "Ready"),
        network_unavailable: condition(read, status, "NetworkUnavailable") == Some(true),
    })
}

fn pod_cidrs(read: &mut Reader<'_>, spec: Field<'_>) -> Read<Vec<IpNet>> {
    let (list_field, one_field) = (spec.get("podCIDRs"), spec.get("podCIDR"));
    if list_field.is_absent() {
        return Ok(cidr(read, one_field).ok().flatten().into_iter().collect());
    }
    let mut cidrs = Vec::new();
    for field in read.list(&list_field)? {
        cidrs.extend(cidr(read, field).ok().flatten());
    }
    Ok(cidrs)
}

fn cidr(read: &mut Reader<'_>, field: Field<'_>) -> Read<Option<IpNet>> {
    let Some(text) = read.text(field)? else { return Ok(None) };
    match text.parse() {
        Ok(cidr) => Ok(Some(cidr)),
        Err(_) => read.refuse(field, format!("{} is not a CIDR", shown(text)), ""),
    }
}

fn addresses(read: &mut Reader<'_>, status: Field<'_>) -> Read<Vec<IpAddr>> {
    let list_field = status.get("addresses");
    let mut addresses = Vec::new();
    for field in read.list(&list_field)? {
        if !matches!(read.text(field.get("type")), Ok(Some("InternalIP" | "ExternalIP"))) {
            continue;
        }
        let address_field = field.get("address");
        let Ok(text) = read.required(address_field) else { continue };
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => {
                read.note(address_field, Code::ObjectInvalid, format!("{} is not an IP address", shown(text)));
            }
        }
    }
    Ok(addresses)
}

/// The value of a condition; `None` when it is not there.
fn condition(read: &mut Reader<'_>, status: Field<'_>, kind: &str) -> Option<bool> {
    let conditions = status.get("conditions");
    for field in read.list(&conditions).ok()? {
        if read.text(field.get("type")).is_ok_and(|of| of == Some(kind)) {
            return read.text(field.get("status")).ok()?.map(|status| status == "True");
        }
    }
    None
}
