//! What load balancers and ingress controllers write under `status`: ours, and those that were there before.

use super::read::{Field, Reader};
use super::service::address;
use crate::model::exact::exact;
use crate::model::object::{Condition, Published};

pub(super) fn published(read: &mut Reader<'_>, root: Field<'_>) -> Box<[Published]> {
    let status = root.get("status");
    let load_balancer = status.get("loadBalancer");
    let list_field = load_balancer.get("ingress");
    let mut published = Vec::new();
    for field in read.list(&list_field).into_iter().flatten() {
        let hostname = read.text(field.get("hostname")).unwrap_or_default();
        match (address(read, field.get("ip")), hostname) {
            (Some(address), _) => published.push(Published::Ip(address)),
            (None, Some(hostname)) => published.push(Published::Hostname(hostname.into())),
            (None, None) => {}
        }
    }
    exact(published)
}

/// The condition of this type.
pub(super) fn condition(read: &mut Reader<'_>, root: Field<'_>, of_type: &str) -> Option<Condition> {
    let status = root.get("status");
    let list_field = status.get("conditions");
    for field in read.list(&list_field).ok()? {
        if field.get("type").json() == of_type {
            let text = |key: &str| field.get(key).json().as_str().unwrap_or_default().into();
            return Some(Condition {
                is_true: field.get("status").json() == "True",
                reason: text("reason"),
                message: text("message"),
                since: text("lastTransitionTime"),
            });
        }
    }
    None
}
