//! The bodies that a `kubectl` of today sends as protobuf: what `kubectl create` makes of a few words. All else that it
//! sends is JSON, and every answer is. A kind whose message is not in the table is refused with 415.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::access::{JSON, PROTOBUF};
use crate::failure::Failure;

/// In front of every body.
const MAGIC: &[u8] = b"k8s\0";

/// `MESSAGE NUMBER FIELD TYPE`. Fields that only the server writes are left out.
const FIELDS: &str = "
    TypeMeta        1  apiVersion         text
    TypeMeta        2  kind               text
    ObjectMeta      1  name               text
    ObjectMeta      2  generateName       text
    ObjectMeta      3  namespace          text
    ObjectMeta      11 labels             texts
    ObjectMeta      12 annotations        texts
    ObjectMeta      14 finalizers         list
    Namespace       1  metadata           ObjectMeta
    ServiceAccount  1  metadata           ObjectMeta
    ConfigMap       1  metadata           ObjectMeta
    ConfigMap       2  data               texts
    ConfigMap       3  binaryData         octets
    Secret          1  metadata           ObjectMeta
    Secret          2  data               octets
    Secret          3  type               text
    Secret          4  stringData         texts
";

/// The object of such a body.
pub(super) fn read(body: &[u8]) -> Result<Value, Failure> {
    let unreadable = || Failure::bad_request("the object provided is unrecognized: it is no protobuf of Kubernetes");
    let envelope = body.strip_prefix(MAGIC).ok_or_else(unreadable)?;
    let (mut raw, mut kind, mut api_version) = (&[][..], String::new(), String::new());
    for field in Fields(envelope) {
        let (number, bytes) = field.ok_or_else(unreadable)?;
        match number {
            1 => {
                let typed = message("TypeMeta", bytes).ok_or_else(unreadable)?;
                let word = |name: &str| typed[name].as_str().unwrap_or_default().to_owned();
                (kind, api_version) = (word("kind"), word("apiVersion"));
            }
            2 => raw = bytes,
            _ => {}
        }
    }
    if rows(&kind).next().is_none() {
        let what = format!("{PROTOBUF}, of a {kind}");
        return Err(Failure::unsupported_media_type(&what, &[JSON]));
    }
    let mut object = message(&kind, raw).ok_or_else(unreadable)?;
    object["kind"] = json!(kind);
    object["apiVersion"] = json!(api_version);
    Ok(object)
}

/// The table's rows of a message: number, field, type.
fn rows(message: &str) -> impl Iterator<Item = (u64, &'static str, &'static str)> {
    let rows = FIELDS.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(move |row| match row[..] {
        [of, number, field, kind] if of == message => Some((number.parse().ok()?, field, kind)),
        _ => None,
    })
}

/// Reads a message of the table. What is empty counts as absent: the encoding writes also what was not said.
fn message(name: &str, bytes: &[u8]) -> Option<Value> {
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, bytes) = field?;
        let Some((_, field, kind)) = rows(name).find(|(of, ..)| *of == number) else { continue };
        if bytes.is_empty() {
            continue;
        }
        let slot = object.entry(field).or_insert(Value::Null);
        match kind {
            "text" => *slot = json!(text(bytes)?),
            "list" => {
                let mut items = slot.as_array().cloned().unwrap_or_default();
                items.push(json!(text(bytes)?));
                *slot = Value::Array(items);
            }
            "texts" | "octets" => {
                let (key, value) = pair(bytes)?;
                slot[key] = if kind == "texts" { json!(text(value)?) } else { json!(STANDARD.encode(value)) };
            }
            message_of => *slot = message(message_of, bytes)?,
        }
    }
    Some(Value::Object(object))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// An entry of a map.
fn pair(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (mut key, mut value) = ("", &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, bytes) => key = text(bytes)?,
            (2, bytes) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

/// The fields of a message, numbered; those that are no bytes have none. Ends with `None` where it cannot be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, &'a [u8])> {
        let tag = self.number()?;
        let bytes = match tag & 7 {
            0 => {
                self.number()?;
                &[]
            }
            1 => self.take(8).map(|_| &[][..])?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                self.take(length)?
            }
            5 => self.take(4).map(|_| &[][..])?,
            _ => return None,
        };
        Some((tag >> 3, bytes))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let typed = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &typed), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn a_secret_is_read_with_its_octets() {
        let label = field(11, &[field(1, b"app"), field(2, b"web")].concat());
        // `generation`, a number, and an empty `creationTimestamp` stand among the texts.
        let metadata = [field(1, b"s"), field(2, b""), vec![7 << 3, 0], field(8, b""), label].concat();
        let data = field(2, &[field(1, b"key"), field(2, b"\xff\x00")].concat());
        let raw = [field(1, &metadata), data, field(3, b"Opaque")].concat();
        assert_eq!(
            read(&body("Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"app": "web"}},
                "data": {"key": "/wA="}, "type": "Opaque",
            })
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(read(b"nothing").unwrap_err().code, 400);
        assert_eq!(read(&body("Pod", b"")).unwrap_err().code, 415);
        assert_eq!(read(&body("Namespace", &[0x0a, 0xff])).unwrap_err().code, 400);
        let whole = body("Namespace", &field(1, &field(1, b"apps")));
        for length in 0..whole.len() {
            // Wherever it is cut off, it is an answer and no panic.
            let _ = read(&whole[..length]);
        }
    }
}
