//! v1 Secret. No finding shows a value.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::Secrets;
use super::read::{Field, LeftOut, Read, Reader};
use super::syntax;
use crate::model::finding::Code;
use crate::model::object::SecretBody;
use crate::model::secret::{Digest, Secret};

const TLS_TYPE: &str = "kubernetes.io/tls";
const MAX_SIZE: usize = 1 << 20;

/// As Go reads it: padding is required, spare bits are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

pub(super) fn secret(read: &mut Reader<'_>, root: Field<'_>, secrets: Secrets<'_>) -> Read<SecretBody> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"])?;
    let kind = read.text(root.get("type"))?.unwrap_or("Opaque");
    let mut values = BTreeMap::new();
    for (list, value) in [("data", from_base64 as ReadValue), ("stringData", from_text as ReadValue)] {
        let field = root.get(list);
        for (key, field) in read.entries(&field)? {
            let value = read.check(field, key, syntax::data_key).and_then(|()| value(read, field, secrets));
            values.extend(value.map(|value| (key.to_owned(), value)));
        }
    }
    let size: usize = values.values().filter_map(|(_, secret)| secret.as_ref()).map(|s| s.expose().len()).sum();
    if size > MAX_SIZE {
        return read.refuse(root.get("data"), format!("the values have {size} octets; {MAX_SIZE} are allowed"), "");
    }
    if kind == TLS_TYPE {
        tls(read, root, &values)?;
    }
    let digests = values.iter().map(|(key, (digest, _))| (key.clone(), *digest)).collect();
    let data = values.into_iter().filter_map(|(key, (_, secret))| Some((key, secret?))).collect();
    Ok(SecretBody { kind: kind.into(), data, digests })
}

type KeyValue = (Digest, Option<Secret>);
type ReadValue = fn(&mut Reader<'_>, Field<'_>, Secrets<'_>) -> Read<KeyValue>;

/// Base64, or in a dump the digest of a value that is kept elsewhere.
fn from_base64(read: &mut Reader<'_>, field: Field<'_>, secrets: Secrets<'_>) -> Read<KeyValue> {
    if let Value::Object(map) = field.json() {
        let digest = map.get("sha256").and_then(Value::as_str).and_then(|text| text.parse::<Digest>().ok());
        return match digest {
            Some(digest) => Ok((digest, secrets(&digest).filter(|secret| secret.digest() == digest))),
            None => read.refuse(field, format!("{field} is a mapping; base64 text is needed"), ""),
        };
    }
    let text: String = read.text(field)?.unwrap_or_default().chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match BASE64.decode(text) {
        Ok(bytes) => Ok(known(&bytes)),
        Err(_) => read.refuse(
            field,
            format!("{field} is not base64"),
            "write plain text under `stringData` instead of `data`",
        ),
    }
}

fn from_text(read: &mut Reader<'_>, field: Field<'_>, _: Secrets<'_>) -> Read<KeyValue> {
    Ok(known(read.text(field)?.unwrap_or_default().as_bytes()))
}

fn known(bytes: &[u8]) -> KeyValue {
    let secret = Secret::new(bytes);
    (secret.digest(), Some(secret))
}

fn tls(read: &mut Reader<'_>, root: Field<'_>, values: &BTreeMap<String, KeyValue>) -> Read<()> {
    let missing: Vec<_> = ["tls.crt", "tls.key"].into_iter().filter(|key| !values.contains_key(*key)).collect();
    let is_written = |key: &&&str| ["data", "stringData"].iter().any(|list| root.json()[list].get(**key).is_some());
    for key in missing.iter().filter(|key| !is_written(key)) {
        let data = root.get("data");
        read.note(data.get(key), Code::SecretInvalid, format!("a Secret of type `{TLS_TYPE}` needs the key `{key}`"));
    }
    if missing.is_empty() { Ok(()) } else { Err(LeftOut) }
}
