//! Fields behind a body: which of them mean anything there (RFC 9110 6.5).

use crate::field::{FieldKind, is_protected};
use crate::syntax::{is_field_value, is_token, trim_ows};

/// Name and value.
pub type Trailer = (Vec<u8>, Vec<u8>);

/// A field that decides how a message is framed, routed, authorised or read comes too late in a trailer: whoever merges
/// it into the head acts on something that was never checked. Such fields are dropped, not refused (RFC 9110 6.5.1).
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 15] = [
        "age",
        "date",
        "expires",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authentication-info",
        "range",
        "retry-after",
        "strict-transport-security",
        "trailer",
        "vary",
        "via",
        "warning",
        "www-authenticate",
    ];
    FieldKind::of(name) != FieldKind::Other
        || is_protected(name)
        || FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
        || name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"if-"))
}

/// Name and value of a field line without its CRLF; none if it is not a field line.
pub(crate) fn parse_trailer(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], trim_ows(&line[colon + 1..]));
    (is_token(name) && is_field_value(value)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_routing_and_credentials_are_no_trailers() {
        for name in ["Transfer-Encoding", "content-length", "Host", "Cookie", "x_forwarded_for", "If-Match", "TE"] {
            assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "Server-Timing", "digest", "if"] {
            assert!(!is_forbidden_trailer(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_trailer_line_is_a_field_line() {
        assert_eq!(parse_trailer(b"a:\t b "), Some((&b"a"[..], &b"b"[..])));
        for line in ["a", ": b", "a : b", " a: b", "a: \0", ""] {
            assert_eq!(parse_trailer(line.as_bytes()), None, "{line:?}");
        }
    }
}
