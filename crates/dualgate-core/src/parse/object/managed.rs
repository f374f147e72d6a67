//! `metadata.managedFields`: whose the fields are that we may write.
//!
//! Written by API servers only, so what cannot be read is nobody's mistake and means nothing. The list itself is not
//! kept: it is often longer than the object.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::Text;
use crate::model::object::{Body, FIELD_MANAGER, Managed};

pub(super) fn managed(json: &Value, body: &Body) -> Managed {
    let entries = json["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    match body {
        Body::Ingress(_) | Body::Service(_) => status(entries),
        Body::Node(_) => labels(entries),
        Body::IngressClass(_)
        | Body::EndpointSlice(_)
        | Body::Secret(_)
        | Body::ConfigMap(_)
        | Body::Namespace
        | Body::Other => Managed::default(),
    }
}

fn status(entries: &[Value]) -> Managed {
    let mut managed = Managed::default();
    for entry in entries {
        let fields = &entry["fieldsV1"]["f:status"];
        let has_load_balancer = !fields["f:loadBalancer"]["f:ingress"].is_null();
        if is_ours(entry) && entry["subresource"] == "status" {
            managed.is_status_ours |= fields.is_object();
            managed.is_load_balancer_ours |= has_load_balancer;
        } else if has_load_balancer {
            managed.load_balancer = entry["manager"].as_str().map(Into::into);
        }
    }
    managed
}

fn labels(entries: &[Value]) -> Managed {
    let ours = entries.iter().filter(|entry| is_ours(entry) && entry["subresource"].is_null());
    let keys =
        ours.flat_map(|entry| entry["fieldsV1"]["f:metadata"]["f:labels"].as_object()).flat_map(|map| map.keys());
    let labels: BTreeSet<Text> = keys.filter_map(|key| Some(key.strip_prefix("f:")?.into())).collect();
    Managed { labels: (!labels.is_empty()).then(|| Box::new(labels)), ..Managed::default() }
}

fn is_ours(entry: &Value) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply"
}
