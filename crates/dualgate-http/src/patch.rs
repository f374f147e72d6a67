//! What a route does to the fields of a message, compiled once: a set of names to leave out, and bytes to append.
//!
//! From: filters and middlewares of the configuration. To: the forwarding loop, which asks [`HeaderPatch::removes`] of
//! each field and then appends [`HeaderPatch::additions`].

use crate::field::FieldKind;
use crate::syntax::trim_ows;
use crate::write::{WriteError, try_write_field};

/// A compiled list of field operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPatch {
    removed: Vec<Box<str>>,
    added: Vec<(Box<str>, Box<[u8]>)>,
    encoded: Vec<u8>,
}

/// An operation that a patch cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The field cannot be written.
    #[error("field `{name}`: {source}")]
    Field {
        /// As configured.
        name: String,
        /// Why not.
        source: WriteError,
    },
    /// The field belongs to the connection or to the framing, or is `Host`, which decides where a request goes.
    #[error("field `{name}` is the gateway's own")]
    Reserved {
        /// As configured.
        name: String,
    },
}

impl HeaderPatch {
    /// A patch that does nothing yet.
    pub fn builder() -> HeaderPatchBuilder {
        HeaderPatchBuilder::default()
    }

    /// Is a field of this name, in any spelling, left out?
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The fields to append, as bytes of a head.
    pub fn additions(&self) -> &[u8] {
        &self.encoded
    }

    /// The fields to append, one by one; names in lower case.
    pub fn added_fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.added.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Nothing is left out and nothing appended.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// Collects operations in the order they are to have effect.
#[derive(Clone, Debug, Default)]
pub struct HeaderPatchBuilder {
    removed: Vec<Box<str>>,
    added: Vec<(Box<str>, Box<[u8]>)>,
}

impl HeaderPatchBuilder {
    /// The field has this value and no other.
    pub fn set(self, name: &str, value: &str) -> Result<Self, PatchError> {
        self.remove(name)?.add(name, value)
    }

    /// The field has this value besides those it has.
    pub fn add(mut self, name: &str, value: &str) -> Result<Self, PatchError> {
        let name = field_name(name)?;
        let value = trim_ows(value.as_bytes());
        checked(&name, value)?;
        self.added.push((name, value.into()));
        Ok(self)
    }

    /// The field has no value, not even one that was added before.
    pub fn remove(mut self, name: &str) -> Result<Self, PatchError> {
        let name = field_name(name)?;
        self.added.retain(|(added, _)| *added != name);
        if !self.removed.contains(&name) {
            self.removed.push(name);
        }
        Ok(self)
    }

    /// The compiled patch.
    pub fn build(self) -> HeaderPatch {
        let mut encoded = Vec::new();
        for (name, value) in &self.added {
            // Checked by `add`.
            let _ = try_write_field(name.as_bytes(), value, &mut encoded);
        }
        HeaderPatch { removed: self.removed, added: self.added, encoded }
    }
}

fn field_name(name: &str) -> Result<Box<str>, PatchError> {
    checked(name, b"")?;
    let kind = FieldKind::of(name.as_bytes());
    let reserved = match kind {
        FieldKind::Host | FieldKind::ContentLength | FieldKind::Expect => true,
        // Credentials for a proxy in front of the upstream: a route may well hold them.
        FieldKind::ProxyAuthorization | FieldKind::ProxyAuthenticate => false,
        FieldKind::TransferEncoding
        | FieldKind::Connection
        | FieldKind::Upgrade
        | FieldKind::Te
        | FieldKind::KeepAlive
        | FieldKind::ProxyConnection
        | FieldKind::Http2Settings => true,
        FieldKind::Other => name.eq_ignore_ascii_case("trailer"),
    };
    if reserved {
        return Err(PatchError::Reserved { name: name.to_owned() });
    }
    Ok(name.to_ascii_lowercase().into())
}

fn checked(name: &str, value: &[u8]) -> Result<(), PatchError> {
    try_write_field(name.as_bytes(), value, &mut Vec::new())
        .map_err(|source| PatchError::Field { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_field_replaces_what_was_sent() {
        let patch = HeaderPatch::builder().set("X-Foo", " bar ").unwrap().build();
        assert!(patch.removes(b"x-FOO"));
        assert_eq!(patch.additions(), b"x-foo: bar\r\n");
    }

    #[test]
    fn an_added_field_stands_beside_what_was_sent() {
        let patch = HeaderPatch::builder().add("a", "1").unwrap().add("a", "2").unwrap().build();
        assert!(!patch.removes(b"a"));
        assert_eq!(patch.added_fields().collect::<Vec<_>>(), [("a", &b"1"[..]), ("a", b"2")]);
    }

    #[test]
    fn a_later_operation_wins() {
        let patch = HeaderPatch::builder().add("a", "1").unwrap().set("A", "2").unwrap().build();
        assert_eq!(patch.additions(), b"a: 2\r\n");
        let patch = HeaderPatch::builder().set("a", "1").unwrap().remove("a").unwrap().build();
        assert!(patch.removes(b"a") && patch.additions().is_empty());
    }

    #[test]
    fn a_value_of_the_configuration_cannot_begin_a_new_line() {
        let error = HeaderPatch::builder().set("x", "a\r\nevil: 1").unwrap_err();
        assert_eq!(error, PatchError::Field { name: "x".into(), source: WriteError::Value });
        assert_eq!(error.to_string(), "field `x`: control byte in a field value");
    }

    #[test]
    fn framing_and_host_are_not_for_a_patch() {
        for name in ["Content-Length", "transfer-encoding", "Connection", "host", "Upgrade", "Trailer", "TE"] {
            let error = HeaderPatch::builder().remove(name).unwrap_err();
            assert_eq!(error, PatchError::Reserved { name: name.into() });
        }
    }
}
