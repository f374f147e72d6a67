//! `metadata`: who an object is.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::read::{Field, Read, Reader, shown};
use super::syntax;
use crate::model::finding::{Code, Severity};
use crate::model::names::{ObjectKey, ObjectName};
use crate::model::object::Meta;

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

/// Reads `metadata`; also what a dump shows of it. The key is known to `read` from here on.
pub(super) fn meta(
    read: &mut Reader<'_>,
    metadata: Field<'_>,
    kind: &str,
    scope: Scope,
) -> Read<(ObjectKey, Meta, Value)> {
    let _ = read.entries(&metadata)?;
    let key = key(read, metadata, kind, scope)?;
    let mut dump = Map::from_iter([("name".to_owned(), Value::from(&*key.name.name))]);
    if !key.name.namespace.is_empty() {
        dump.insert("namespace".into(), (*key.name.namespace).into());
    }
    if matches!(scope, Scope::Unknown) {
        return Ok((key, Meta::default(), Value::Object(dump)));
    }
    read.mapping(metadata, FIELDS)?;
    let labels = read.texts(metadata.get("labels"));
    let mut annotations = read.texts(metadata.get("annotations"));
    annotations.retain(|name, _| match scope {
        Scope::PrivateNamespace(_) => name.starts_with("dualgate.dev/"),
        Scope::Cluster(_) | Scope::Namespace(_) | Scope::Unknown => !COPIES.contains(&name.as_str()),
    });
    let created = created(read, metadata.get("creationTimestamp"));
    let uid: Arc<str> = read.text(metadata.get("uid")).unwrap_or_default().unwrap_or_default().into();
    for (name, texts) in [("labels", &labels), ("annotations", &annotations)] {
        if !texts.is_empty() {
            dump.insert(name.into(), to_json(texts));
        }
    }
    if created.is_some() {
        dump.insert("creationTimestamp".into(), metadata.get("creationTimestamp").json().clone());
    }
    if !uid.is_empty() {
        dump.insert("uid".into(), (*uid).into());
    }
    Ok((key, Meta { labels, annotations, created, uid }, Value::Object(dump)))
}

fn to_json(texts: &BTreeMap<String, String>) -> Value {
    texts.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect()
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

fn created(read: &mut Reader<'_>, field: Field<'_>) -> Option<i64> {
    let text = read.text(field).ok()??;
    let seconds = rfc3339(text);
    if seconds.is_none() {
        let message = format!("{} is no time of the form `2006-01-02T15:04:05Z`; it is ignored", shown(text));
        read.note(field, Code::ObjectInvalid, message);
    }
    seconds
}

/// RFC 3339 to seconds since 1970; a fraction is dropped.
fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, what: &[u8]| bytes.get(at).is_some_and(|b| what.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = 19;
    if is(zone, b".") {
        let fraction = bytes[zone + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        zone += 1 + fraction;
        (fraction > 0).then_some(())?;
    }
    let offset = match bytes.get(zone)? {
        b'Z' | b'z' => (zone + 1 == bytes.len()).then_some(0)?,
        sign @ (b'+' | b'-') if is(zone + 3, b":") && zone + 6 == bytes.len() => {
            let (hours, minutes) = (digits(zone + 1, zone + 3)?, digits(zone + 4, zone + 6)?);
            (hours <= 23 && minutes <= 59).then_some(())?;
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// In the proleptic Gregorian calendar: years start in March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-22T09:30:00Z", Some(1_795_339_800)),
            ("2026-11-22T10:30:00+01:00", Some(1_795_339_800)),
            ("2026-11-22T09:30:00.123456Z", Some(1_795_339_800)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22", None),
            ("2026-11-22T09:30:00", None),
            ("2026-11-22T09:30:00.Z", None),
            ("2026-11-22T09:30:00Zx", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), seconds, "{text}");
        }
    }
}
