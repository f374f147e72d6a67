//! JSON value to [`Object`]: the one parser of Kubernetes objects, whatever the source was.
//!
//! It repeats what the Kubernetes API server checks and fills in, because a folder has no API server, and
//! because a dump must read the same as what it was taken from. A part that is wrong is left out with a
//! finding; an object is refused only when the part is what the object cannot be without.

use serde_json::{Map, Value, json};

use self::meta::Scope;
use self::read::{Field, LeftOut, Read, Reader, shown};
use crate::model::finding::{Code, Finding, Severity};
use crate::model::names::ObjectKey;
use crate::model::object::{Body, Meta, Object, Origin};
use crate::model::secret::{Digest, Secret};

mod config_map;
mod endpoint_slice;
mod ingress;
mod ingress_class;
mod managed;
mod meta;
mod node;
mod read;
mod secret;
mod service;
mod status;
pub(super) mod syntax;
mod write;

pub use self::syntax::nearest;
pub use self::write::{dump, dump_text};

/// How deep lists may stand in lists.
const MAX_LIST_DEPTH: usize = 4;

/// What became of one JSON value.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The object, or the items of a list.
    pub objects: Vec<Object>,
    /// The objects that were refused, as far as they say who they are.
    pub refused: Vec<ObjectKey>,
    /// Why something was refused, left out or is probably not as meant.
    pub findings: Vec<Finding>,
}

/// Parses one object, or a list of objects. `origin` is where it was written.
pub fn object(json: &Value, origin: Option<Origin>) -> Parsed {
    object_with(json, origin, &|_| None)
}

/// The same for a dump, whose Secrets hold digests: `secrets` knows the values.
pub fn object_with(json: &Value, origin: Option<Origin>, secrets: &dyn Fn(&Digest) -> Option<Secret>) -> Parsed {
    let mut parsed = Parsed::default();
    parsed.add(json, origin, secrets, 0);
    parsed
}

impl Parsed {
    fn add(&mut self, json: &Value, origin: Option<Origin>, secrets: Secrets<'_>, depth: usize) {
        if let Some(items) = list_items(json) {
            return self.add_list(json, items, origin, secrets, depth);
        }
        let mut read = Reader::new(origin.as_ref());
        match one(&mut read, Field::root(json), secrets) {
            Ok((key, body, meta)) => {
                let managed = managed::managed(json, &body);
                let findings = read.into_findings();
                let is_whole = write::is_whole(&body) && origin.is_none() && findings.is_empty();
                let written = (!is_whole).then(|| shown_of(json, &key, &meta, &body).to_string().into());
                self.findings.extend(findings);
                self.objects.push(Object { key, meta, body, origin: origin.map(Box::new), managed, written });
            }
            Err(LeftOut) => {
                self.refused.extend(read.key.clone());
                self.findings.extend(read.into_findings());
            }
        }
    }

    /// `List` and `IngressList` and so on: each item is an object of its own. What an API server lists has
    /// kind and version only on the list.
    fn add_list(&mut self, json: &Value, items: &[Value], origin: Option<Origin>, secrets: Secrets<'_>, depth: usize) {
        if depth >= MAX_LIST_DEPTH {
            let at = Origin::place(origin.as_ref(), None, String::new());
            let message = format!("lists stand in lists more than {MAX_LIST_DEPTH} deep");
            self.findings.push(Finding::new(Code::ObjectInvalid, at, message));
            return;
        }
        let item_kind =
            json["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
        for (index, item) in items.iter().enumerate() {
            let origin = origin.as_ref().map(|origin| origin.below(&format!("items[{index}]")));
            match (item, item_kind) {
                (Value::Object(map), Some(kind)) if !map.contains_key("kind") => {
                    let mut map = map.clone();
                    map.insert("kind".into(), kind.into());
                    map.insert("apiVersion".into(), json["apiVersion"].clone());
                    self.add(&Value::Object(map), origin, secrets, depth + 1);
                }
                _ => self.add(item, origin, secrets, depth + 1),
            }
        }
    }
}

type Secrets<'a> = &'a dyn Fn(&Digest) -> Option<Secret>;

fn list_items(json: &Value) -> Option<&[Value]> {
    json.get("kind")?.as_str()?.ends_with("List").then_some(())?;
    match json.get("items")? {
        Value::Array(items) => Some(items),
        Value::Null => Some(&[]),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => None,
    }
}

fn one(read: &mut Reader<'_>, root: Field<'_>, secrets: Secrets<'_>) -> Read<(ObjectKey, Body, Meta)> {
    let (kind, name) = kind(read, root)?;
    let (key, meta) = meta::meta(read, root.get("metadata"), &name, scope(kind))?;
    warn_of_typing_error(read, root, kind);
    let body = match kind {
        Kind::Ingress => Body::Ingress(Box::new(ingress::ingress(read, root, &meta)?)),
        Kind::IngressClass => Body::IngressClass(Box::new(ingress_class::ingress_class(read, root, &meta)?)),
        Kind::Service => Body::Service(Box::new(service::service(read, root)?)),
        Kind::EndpointSlice => Body::EndpointSlice(Box::new(endpoint_slice::endpoint_slice(read, root, &key, &meta)?)),
        Kind::Secret => Body::Secret(Box::new(secret::secret(read, root, secrets)?)),
        Kind::ConfigMap => Body::ConfigMap(Box::new(config_map::config_map(read, root)?)),
        Kind::Namespace => Body::Namespace,
        Kind::Node => Body::Node(Box::new(node::node(read, root)?)),
        Kind::Other => Body::Other,
    };
    Ok((key, body, meta))
}

/// The kinds that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ingress,
    IngressClass,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
    Node,
    Other,
}

const KINDS: [(Kind, &str, &str); 8] = [
    (Kind::Ingress, "Ingress", "networking.k8s.io/v1"),
    (Kind::IngressClass, "IngressClass", "networking.k8s.io/v1"),
    (Kind::Service, "Service", "v1"),
    (Kind::EndpointSlice, "EndpointSlice", "discovery.k8s.io/v1"),
    (Kind::Secret, "Secret", "v1"),
    (Kind::ConfigMap, "ConfigMap", "v1"),
    (Kind::Namespace, "Namespace", "v1"),
    (Kind::Node, "Node", "v1"),
];

/// The API version of a kind that is read.
pub fn api_version(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(_, name, _)| *name == kind).map(|(_, _, version)| *version)
}

fn scope(kind: Kind) -> Scope {
    match kind {
        Kind::IngressClass | Kind::Node => Scope::Cluster(syntax::subdomain),
        Kind::Namespace => Scope::Cluster(syntax::label),
        Kind::Service => Scope::Namespace(syntax::label),
        Kind::Ingress | Kind::EndpointSlice => Scope::Namespace(syntax::subdomain),
        Kind::Secret => Scope::PrivateNamespace(syntax::subdomain),
        Kind::ConfigMap => Scope::Namespace(syntax::subdomain),
        Kind::Other => Scope::Unknown,
    }
}

/// Which kind it is, and what its key calls it: kinds that are read by their bare name, others with their
/// group, because a Service of Knative is not a Service.
fn kind(read: &mut Reader<'_>, root: Field<'_>) -> Read<(Kind, String)> {
    let (kind_field, version_field) = (root.get("kind"), root.get("apiVersion"));
    if kind_field.is_absent() && version_field.is_absent() && root.json().is_object() {
        let finding =
            read.note(root, Code::ObjectInvalid, "not a Kubernetes object: it has no `apiVersion` and `kind`");
        finding.severity = Severity::Warning;
        finding.help = "move files that are not manifests out of the folder".into();
        return Err(LeftOut);
    }
    if !root.json().is_object() {
        return read.refuse(root, "not a Kubernetes object: a mapping is needed", "");
    }
    let kind = read.name(kind_field, syntax::kind)?;
    let version = read.name(version_field, syntax::api_version)?;
    if let Some((known, name, _)) = KINDS.iter().find(|(_, name, right)| *name == kind && *right == version) {
        return Ok((*known, (*name).to_owned()));
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let is_own_group = group.ends_with(".k8s.io") || !group.contains('.');
    if let Some((known, name, right)) = KINDS.iter().find(|(_, name, _)| *name == kind && is_own_group) {
        meta::key(read, root.get("metadata"), name, scope(*known))?;
        let message = format!("Kubernetes has no {} in {}", shown(kind), shown(version));
        return read.refuse(version_field, message, &version_help(kind, right));
    }
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    Ok((Kind::Other, qualified))
}

/// A kind of our groups whose name is nearly one that is read.
fn warn_of_typing_error(read: &mut Reader<'_>, root: Field<'_>, kind: Kind) {
    let (Kind::Other, Some(written), Some(version)) =
        (kind, root.json()["kind"].as_str(), root.json()["apiVersion"].as_str())
    else {
        return;
    };
    let near = |name: &str| written.len().abs_diff(name.len()) <= 1 && syntax::nearest(written, &[name]).is_some();
    if let Some((_, meant, _)) = KINDS.iter().find(|(_, name, right)| *right == version && near(name)) {
        let message = format!("Kubernetes has no {} in {}; it is ignored", shown(written), shown(version));
        read.note(root.get("kind"), Code::ObjectField, message).help = format!("did you mean `{meant}`?");
    }
}

fn version_help(kind: &str, right: &str) -> String {
    let shape = "; each path has a `pathType`, and `serviceName`, `servicePort` become `service.name`, `service.port`";
    format!("write `apiVersion: {right}`{}", if kind == "Ingress" { shape } else { "" })
}

/// What a dump shows: no secret, nothing that only the API server's bookkeeping needs, and of kinds that do
/// not matter only who they are.
fn shown_of(json: &Value, key: &ObjectKey, meta: &Meta, body: &Body) -> Value {
    let mut dump = Map::new();
    match body {
        Body::Secret(secret) => {
            let digest = |(key, digest): (&String, &Digest)| (key.clone(), json!({ "sha256": digest.to_string() }));
            dump.insert("type".into(), secret.kind.as_str().into());
            dump.insert("data".into(), Value::Object(secret.digests.iter().map(digest).collect()));
        }
        Body::Namespace | Body::Other => {}
        Body::Ingress(_)
        | Body::IngressClass(_)
        | Body::Service(_)
        | Body::EndpointSlice(_)
        | Body::ConfigMap(_)
        | Body::Node(_) => {
            let fields = json.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata");
            dump.extend(fields.map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    for key in ["apiVersion", "kind"] {
        dump.insert(key.into(), json[key].clone());
    }
    dump.insert("metadata".into(), meta::dump(key, meta));
    Value::Object(dump)
}
