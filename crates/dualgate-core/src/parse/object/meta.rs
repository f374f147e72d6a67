//! `metadata`: who an object is.

use serde_json::{Map, Value};

use super::read::{Field, Read, Reader, shown};
use super::syntax;
use crate::model::created::Created;
use crate::model::finding::{Code, Severity};
use crate::model::names::{ObjectKey, ObjectName};
use crate::model::object::Meta;
use crate::model::texts::Texts;
use crate::model::uid::Uid;
use crate::parse::time;

/// Before there was `spec.ingressClassName`.
pub(super) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Annotations in which tools keep a copy of the whole object.
const COPIES: [&str; 2] = ["kubectl.kubernetes.io/last-applied-configuration", "objectset.rio.cattle.io/applied"];

/// Whether a kind has namespaces, and the form of its names.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    /// Without namespaces.
    Cluster(fn(&str) -> Result<(), &'static str>),
    /// With namespaces.
    Namespace(fn(&str) -> Result<(), &'static str>),
    /// With namespaces; only our own annotations are kept, because tools keep copies of Secrets in theirs.
    PrivateNamespace(fn(&str) -> Result<(), &'static str>),
    /// A kind that does not matter here: only its name is kept.
    Unknown,
}

/// Reads `metadata`. The key is known to `read` from here on.
pub(super) fn meta(read: &mut Reader<'_>, metadata: Field<'_>, kind: &str, scope: Scope) -> Read<(ObjectKey, Meta)> {
    let _ = read.entries(&metadata)?;
    let key = key(read, metadata, kind, scope)?;
    if matches!(scope, Scope::Unknown) {
        return Ok((key, Meta::default()));
    }
    read.mapping(metadata, FIELDS)?;
    let labels = read.texts(metadata.get("labels"));
    let mut annotations = read.texts(metadata.get("annotations"));
    annotations.retain(|name, _| match scope {
        Scope::PrivateNamespace(_) => name.starts_with("dualgate.dev/"),
        Scope::Cluster(_) | Scope::Namespace(_) | Scope::Unknown => !COPIES.contains(&name.as_str()),
    });
    let (labels, annotations): (Texts, Texts) = (labels.into_iter().collect(), annotations.into_iter().collect());
    let created = created(read, metadata.get("creationTimestamp"));
    let uid = Uid::new(read.text(metadata.get("uid")).unwrap_or_default().unwrap_or_default());
    Ok((key, Meta { labels, annotations, created, uid }))
}

/// What a dump shows of `metadata`.
pub(super) fn dump(key: &ObjectKey, meta: &Meta) -> Value {
    let Meta { labels, annotations, created, uid } = meta;
    let mut dump = Map::from_iter([("name".to_owned(), Value::from(&*key.name.name))]);
    if !key.name.namespace.is_empty() {
        dump.insert("namespace".into(), (*key.name.namespace).into());
    }
    for (name, of) in [("labels", labels), ("annotations", annotations)] {
        if !of.is_empty() {
            dump.insert(name.into(), texts(of));
        }
    }
    if let Some(created) = created.seconds() {
        dump.insert("creationTimestamp".into(), time::rfc3339(created).into());
    }
    if !uid.is_none() {
        dump.insert("uid".into(), uid.to_string().into());
    }
    Value::Object(dump)
}

/// A mapping of texts.
pub(super) fn texts(texts: &Texts) -> Value {
    texts.iter().map(|(key, text)| (key.to_owned(), Value::from(text))).collect()
}

/// The class of an Ingress, as it was named before there was a field.
pub(super) fn class_annotation(meta: &Meta) -> Option<&str> {
    meta.annotations.get(CLASS_ANNOTATION).filter(|class| !class.is_empty())
}

/// Who the object is, even if the rest of it cannot be read.
pub(super) fn key(read: &mut Reader<'_>, metadata: Field<'_>, kind: &str, scope: Scope) -> Read<ObjectKey> {
    let (name_field, namespace_field) = (metadata.get("name"), metadata.get("namespace"));
    let form = match scope {
        Scope::Cluster(form) | Scope::Namespace(form) | Scope::PrivateNamespace(form) => form,
        Scope::Unknown => syntax::path_segment,
    };
    let name = match read.text(name_field)? {
        Some(name) => name,
        None if metadata.get("generateName").is_absent() => return read.refuse(name_field, "`name` is required", ""),
        None => {
            return read.refuse(
                name_field,
                "`name` is required",
                "`generateName` has no meaning in a file: write `name`",
            );
        }
    };
    let namespace = match scope {
        Scope::Cluster(_) => "",
        Scope::Namespace(_) | Scope::PrivateNamespace(_) => read.text(namespace_field)?.unwrap_or("default"),
        Scope::Unknown => read.text(namespace_field)?.unwrap_or_default(),
    };
    let key = ObjectKey { kind: kind.into(), name: ObjectName::new(namespace, name) };
    // Whatever a message shows of a name must be fit for a terminal.
    read.check(name_field, name, syntax::path_segment)?;
    if !namespace.is_empty() {
        read.check(namespace_field, namespace, syntax::path_segment)?;
    }
    read.key = Some(key.clone());
    read.check(name_field, name, form)?;
    if !namespace.is_empty() {
        read.check(namespace_field, namespace, syntax::label)?;
    }
    if matches!(scope, Scope::Cluster(_)) && !namespace_field.is_absent() {
        let finding = read.note(namespace_field, Code::ObjectField, format!("{kind} has no namespace; it is ignored"));
        finding.severity = Severity::Note;
    }
    Ok(key)
}

fn created(read: &mut Reader<'_>, field: Field<'_>) -> Created {
    let Ok(Some(text)) = read.text(field) else { return Created::UNKNOWN };
    let seconds = time::seconds(text);
    if seconds.is_none() {
        let message = format!("{} is no time of the form `2006-01-02T15:04:05Z`; it is ignored", shown(text));
        read.note(field, Code::ObjectInvalid, message);
    }
    seconds.into()
}
