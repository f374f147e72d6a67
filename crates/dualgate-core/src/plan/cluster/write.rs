//! One write: which fields of which object get which values, and the request that says so.
//!
//! A write names all fields of the object that are to be ours. What it does not name and was ours before, the API server
//! removes (server-side apply).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::model::object::{ADDRESS_ASSIGNED, Condition, Ingress, Object, Published, Service};
use crate::model::{ObjectKey, ObjectName, Text, Uid};
use crate::parse::time;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose fields.
    pub object: ObjectKey,
    /// All that are to be ours.
    pub fields: Fields,
    /// Who wrote what it replaces, where that was not us.
    pub replaces: Option<Text>,
    /// When the condition that it says began to be as it is, where it stands already.
    since: Option<Text>,
    /// Which object of that name is meant, where an apply would make one that is not there.
    uid: Uid,
}

/// The fields of an object that are to be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Of `status`.
    Status {
        /// `loadBalancer.ingress`; none is not ours.
        addresses: Arc<[IpAddr]>,
        /// The condition [`ADDRESS_ASSIGNED`].
        transition: Option<Arc<Transition>>,
    },
    /// `metadata.labels`.
    Labels(Arc<BTreeMap<&'static str, &'static str>>),
}

impl Fields {
    /// The resource of an object that has them, as rights name it.
    pub fn resource(&self, object: &ObjectKey) -> String {
        let (_, plural) = kind(object);
        match self {
            Self::Status { .. } => format!("{plural}/status"),
            Self::Labels(_) => plural.to_owned(),
        }
    }

    /// Whether labels of ours are to go, and none is to stay.
    pub fn takes_labels_back(&self) -> bool {
        match self {
            Self::Status { .. } => false,
            Self::Labels(labels) => labels.is_empty(),
        }
    }
}

/// What a condition says, without when that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether `status` is `True`.
    pub is_true: bool,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
}

impl Transition {
    fn is_said_by(&self, condition: Option<&Condition>) -> bool {
        condition.is_some_and(|said| {
            said.is_true == self.is_true && *said.reason == *self.reason && *said.message == *self.message
        })
    }
}

/// `None` for one that is not served.
pub(super) fn of_ingress(object: &Object, ingress: &Ingress, addresses: Option<&Arc<[IpAddr]>>) -> Option<Write> {
    let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) else { return nothing(object) };
    (!says(&ingress.published, addresses)).then(|| status(object, addresses.clone(), None))
}

pub(super) fn of_service(
    object: &Object,
    service: &Service,
    addresses: &Arc<[IpAddr]>,
    transition: &Arc<Transition>,
) -> Option<Write> {
    let condition = service.address_assigned.as_deref();
    let is_published = match addresses.is_empty() {
        true => !object.managed.is_load_balancer_ours,
        false => says(&service.published, addresses),
    };
    if is_published && transition.is_said_by(condition) {
        return None;
    }
    let since = condition.filter(|said| said.is_true == transition.is_true).map(|said| said.since.clone());
    Some(Write { since, ..status(object, addresses.clone(), Some(transition.clone())) })
}

/// Takes back what was ours.
pub(super) fn nothing(object: &Object) -> Option<Write> {
    object.managed.is_status_ours.then(|| status(object, Arc::default(), None))
}

pub(super) fn of_node(object: &Object, labels: BTreeMap<&'static str, &'static str>) -> Option<Write> {
    let has = |key: &&str| object.meta.labels.get(key);
    let is_there = labels.iter().all(|(key, value)| has(key) == Some(value));
    let ours = || object.managed.labels.iter().flat_map(|labels| labels.iter());
    let is_ours = |key: &&str| ours().any(|ours| **ours == **key);
    let is_more = ours().any(|ours| !labels.contains_key(&**ours));
    if is_there && !is_more {
        return None;
    }
    let replaces = labels.keys().any(|key| has(key).is_some() && !is_ours(key));
    Some(Write {
        object: object.key.clone(),
        replaces: replaces.then(|| "another field manager".into()),
        fields: Fields::Labels(labels.into()),
        since: None,
        uid: object.meta.uid.clone(),
    })
}

fn status(object: &Object, addresses: Arc<[IpAddr]>, transition: Option<Arc<Transition>>) -> Write {
    let other = object.managed.load_balancer.clone();
    Write {
        object: object.key.clone(),
        replaces: other.filter(|_| !addresses.is_empty()),
        fields: Fields::Status { addresses, transition },
        since: None,
        uid: Uid::None,
    }
}

fn says(published: &[Published], addresses: &[IpAddr]) -> bool {
    let is = |(published, address): (&Published, &IpAddr)| match published {
        Published::Ip(ip) => ip == address,
        Published::Hostname(_) => false,
    };
    published.len() == addresses.len() && published.iter().zip(addresses).all(is)
}

impl Write {
    /// The resource that it patches, as rights name it: `ingresses/status`.
    pub fn resource(&self) -> String {
        self.fields.resource(&self.object)
    }

    /// What of the object it is about, for people.
    pub fn what(&self) -> &'static str {
        match self.fields {
            Fields::Status { .. } => "status",
            Fields::Labels(_) => "labels",
        }
    }

    /// The path of the request.
    pub fn path(&self) -> String {
        let (version, plural) = kind(&self.object);
        let api = if version.contains('/') { "apis" } else { "api" };
        let ObjectName { namespace, name } = &self.object.name;
        let namespace = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let subresource = match self.fields {
            Fields::Status { .. } => "/status",
            Fields::Labels(_) => "",
        };
        format!("/{api}/{version}{namespace}/{plural}/{name}{subresource}")
    }

    /// The body of the request, at `now` in seconds since 1970.
    pub fn body(&self, now: i64) -> Value {
        let (version, _) = kind(&self.object);
        let mut metadata = Map::from_iter([("name".to_owned(), Value::from(&*self.object.name.name))]);
        if !self.object.name.namespace.is_empty() {
            metadata.insert("namespace".into(), (*self.object.name.namespace).into());
        }
        if !self.uid.is_none() {
            metadata.insert("uid".into(), self.uid.to_string().into());
        }
        let mut body = json!({ "apiVersion": version, "kind": &*self.object.kind });
        match &self.fields {
            Fields::Labels(labels) => drop(metadata.insert("labels".into(), json!(**labels))),
            Fields::Status { addresses, transition } => {
                let status = self.status(addresses, transition.as_deref(), now);
                if !status.is_empty() {
                    body["status"] = status.into();
                }
            }
        }
        body["metadata"] = metadata.into();
        body
    }

    fn status(&self, addresses: &[IpAddr], transition: Option<&Transition>, now: i64) -> Map<String, Value> {
        let mut status = Map::new();
        let is_service = *self.object.kind == *"Service";
        let entry = |address: &IpAddr| match is_service {
            true => json!({ "ip": address, "ipMode": "VIP" }),
            false => json!({ "ip": address }),
        };
        if !addresses.is_empty() {
            let entries: Vec<Value> = addresses.iter().map(entry).collect();
            status.insert("loadBalancer".into(), json!({ "ingress": entries }));
        }
        if let Some(Transition { is_true, reason, message }) = transition {
            let since = self.since.as_deref().map_or_else(|| time::rfc3339(now), str::to_owned);
            let condition = json!({
                "type": ADDRESS_ASSIGNED, "status": if *is_true { "True" } else { "False" },
                "reason": reason, "message": message, "lastTransitionTime": since,
            });
            status.insert("conditions".into(), json!([condition]));
        }
        status
    }
}

/// API version and plural of the kinds that are written.
fn kind(object: &ObjectKey) -> (&'static str, &'static str) {
    match &*object.kind {
        "Ingress" => ("networking.k8s.io/v1", "ingresses"),
        "Service" => ("v1", "services"),
        _ => ("v1", "nodes"),
    }
}

/// For people: `Ingress apps/grafana: 192.168.178.10, fda8::10`.
impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        let shown: Vec<String> = match &self.fields {
            Fields::Status { addresses, transition } => {
                let why = transition.iter().map(|transition| format!("{} ({})", transition.reason, transition.message));
                addresses.iter().map(ToString::to_string).chain(why).collect()
            }
            Fields::Labels(labels) => labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        f.write_str(if shown.is_empty() { "nothing of ours" } else { "" })?;
        f.write_str(&shown.join(", "))
    }
}
