//! One field of a head, and what its name means to a gateway.

use crate::forwarded::is_forwarding_header;

/// A field as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// A token, in the spelling of the sender.
    pub name: &'a [u8],
    /// Without the white space around it; bytes above ASCII are opaque.
    pub value: &'a [u8],
    pub(crate) kind: FieldKind,
    pub(crate) nominated: bool,
}

impl Field<'_> {
    /// What the name means.
    pub fn kind(&self) -> FieldKind {
        self.kind
    }

    /// Is `lower_case` the name, whatever the sender's spelling?
    pub fn is(&self, lower_case: &str) -> bool {
        self.name.eq_ignore_ascii_case(lower_case.as_bytes())
    }

    /// The field ends at this hop: by its name, or because `Connection` names it (RFC 9110 7.6.1).
    pub fn is_hop_by_hop(&self) -> bool {
        self.nominated || self.kind.is_hop_by_hop()
    }

    /// Servers that put fields in environment variables read `x_y` as `x-y`.
    pub fn has_underscore(&self) -> bool {
        self.name.contains(&b'_')
    }
}

/// What to do with a field whose name has an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscore {
    /// Refuse the request.
    #[default]
    Reject,
    /// Forward the request without the field.
    Drop,
    /// Forward the field, unless it is an alias of a forwarding header.
    Keep,
}

/// The names that a gateway treats in a way of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the field of its name")]
pub enum FieldKind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
    KeepAlive,
    ProxyConnection,
    ProxyAuthorization,
    ProxyAuthenticate,
    Http2Settings,
    /// Any other name.
    Other,
}

impl FieldKind {
    /// The meaning of a name. Length and first letter leave at most one name to compare with.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        let (candidate, kind) = match (name.len(), first | 0x20) {
            (2, b't') => ("te", Self::Te),
            (4, b'h') => ("host", Self::Host),
            (6, b'e') => ("expect", Self::Expect),
            (7, b'u') => ("upgrade", Self::Upgrade),
            (10, b'c') => ("connection", Self::Connection),
            (10, b'k') => ("keep-alive", Self::KeepAlive),
            (14, b'c') => ("content-length", Self::ContentLength),
            (14, b'h') => ("http2-settings", Self::Http2Settings),
            (16, b'p') => ("proxy-connection", Self::ProxyConnection),
            (17, b't') => ("transfer-encoding", Self::TransferEncoding),
            (18, b'p') => ("proxy-authenticate", Self::ProxyAuthenticate),
            (19, b'p') => ("proxy-authorization", Self::ProxyAuthorization),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(candidate.as_bytes()) { kind } else { Self::Other }
    }

    /// Never forwarded. `Trailer` is: this gateway relays trailers.
    pub fn is_hop_by_hop(self) -> bool {
        match self {
            Self::Host | Self::ContentLength | Self::Expect | Self::Other => false,
            Self::TransferEncoding
            | Self::Connection
            | Self::Upgrade
            | Self::Te
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::ProxyAuthorization
            | Self::ProxyAuthenticate
            | Self::Http2Settings => true,
        }
    }
}

/// Fields that `Connection` cannot take out of a message: framing, routing, credentials, and what proxies before us
/// tell about the client (CVE-2024-45410).
pub(crate) fn is_protected(name: &[u8]) -> bool {
    const PROTECTED: [&str; 12] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "origin",
        "set-cookie",
        "transfer-encoding",
    ];
    PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected.as_bytes())) || is_forwarding_header(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_same_in_any_spelling() {
        assert_eq!(FieldKind::of(b"HOST"), FieldKind::Host);
        assert_eq!(FieldKind::of(b"tRANSFER-eNCODING"), FieldKind::TransferEncoding);
        assert_eq!(FieldKind::of(b"proxy-authorization"), FieldKind::ProxyAuthorization);
    }

    #[test]
    fn a_name_of_the_same_length_and_letter_is_another_field() {
        for name in ["hops", "content-lengti", "transfer_encoding", "", "h"] {
            assert_eq!(FieldKind::of(name.as_bytes()), FieldKind::Other, "{name}");
        }
    }

    #[test]
    fn forwarding_fields_and_their_aliases_are_protected() {
        assert!(is_protected(b"X-Forwarded-Host"));
        assert!(is_protected(b"x_forwarded_proto"));
        assert!(is_protected(b"Cookie"));
        assert!(!is_protected(b"x-mine"));
    }
}
