//! The fields by which a gateway tells an upstream who asked it for what.
//!
//! Whoever can send them himself can pretend to be another client, host or scheme: from an untrusted peer all of them
//! are dropped, in every spelling that some server reads as one of them.

use std::net::IpAddr;

use crate::syntax::is_token;
use crate::target::Scheme;

/// Does a server behind a gateway take this field for the gateway's word about the client, the host, the scheme or the
/// path? `_` counts as `-` (GHSA-5m6w-wvh7-57vm).
///
/// `Forwarded`, `X-Forwarded` and everything that begins with `X-Forwarded-`; the fields of other proxies and CDNs for
/// the client's address; `X-Original-URL` and `X-Rewrite-URL`, which some servers route by.
pub fn is_forwarding_header(name: &[u8]) -> bool {
    const NAMES: [&str; 15] = [
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "fastly-client-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-forwarded",
        "x-original-forwarded-for",
        "x-original-host",
        "x-original-url",
        "x-proxyuser-ip",
        "x-real-ip",
        "x-rewrite-url",
    ];
    let Some(first) = name.first() else { return false };
    if !matches!(first | 0x20, b'c' | b'f' | b't' | b'x') {
        return false;
    }
    starts_with(name, "x-forwarded-") || NAMES.iter().any(|known| known.len() == name.len() && starts_with(name, known))
}

/// One element of `Forwarded` (RFC 7239 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The client.
    pub client: IpAddr,
    /// Our address, if the upstream is to know it.
    pub by: Option<IpAddr>,
    /// The authority of the request; left out if empty.
    pub host: &'a [u8],
    /// The scheme of the request.
    pub proto: Scheme,
}

/// Writes `for=…;by=…;host=…;proto=…`, without a field name.
pub fn write_forwarded(forwarded: &Forwarded<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"for=");
    write_node(forwarded.client, out);
    if let Some(by) = forwarded.by {
        out.extend_from_slice(b";by=");
        write_node(by, out);
    }
    if !forwarded.host.is_empty() {
        out.extend_from_slice(b";host=");
        write_token_or_quoted(forwarded.host, out);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(forwarded.proto.as_str().as_bytes());
}

/// Writes an address as in `X-Forwarded-For`: bare, an IPv4-mapped one as IPv4.
pub fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    // A vector takes everything.
    let _ = write!(out, "{}", address.to_canonical());
}

/// RFC 7239 6: an IPv6 address is in brackets, and so in quotes.
fn write_node(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => write_ip(v4, out),
        v6 @ IpAddr::V6(_) => {
            out.extend_from_slice(b"\"[");
            write_ip(v6, out);
            out.extend_from_slice(b"]\"");
        }
    }
}

fn write_token_or_quoted(value: &[u8], out: &mut Vec<u8>) {
    if is_token(value) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            // No authority has such a byte, and no quoted string may.
            _ => {}
        }
    }
    out.push(b'"');
}

/// `lower_case` is the beginning of `name`, with `_` taken for `-`.
fn starts_with(name: &[u8], lower_case: &str) -> bool {
    name.get(..lower_case.len()).is_some_and(|start| {
        start.iter().zip(lower_case.bytes()).all(|(byte, expected)| match byte {
            b'_' => expected == b'-',
            byte => byte.to_ascii_lowercase() == expected,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_headers_are_known_in_every_spelling() {
        let names = [
            "X-Forwarded-For",
            "x_forwarded_proto",
            "X-Forwarded_Prefix",
            "x-forwarded-tls-client-cert",
            "X-Forwarded",
            "Forwarded",
            "X_Real_IP",
            "True-Client-IP",
            "X-Original-URL",
        ];
        for name in names {
            assert!(is_forwarding_header(name.as_bytes()), "{name}");
        }
        for name in ["x-forward", "x-forwardedfor", "forwarded-x", "x-request-id", "from", ""] {
            assert!(!is_forwarding_header(name.as_bytes()), "{name}");
        }
    }

    fn written(forwarded: Forwarded<'_>) -> String {
        let mut out = Vec::new();
        write_forwarded(&forwarded, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_ipv4_client_is_a_token() {
        let forwarded =
            Forwarded { client: "192.0.2.1".parse().unwrap(), by: None, host: b"example.com", proto: Scheme::Https };
        assert_eq!(written(forwarded), "for=192.0.2.1;host=example.com;proto=https");
    }

    #[test]
    fn an_ipv6_client_is_in_brackets_and_quotes() {
        let forwarded = Forwarded {
            client: "2001:db8::1".parse().unwrap(),
            by: Some("2001:db8::2".parse().unwrap()),
            host: b"[2001:db8::3]:8443",
            proto: Scheme::Http,
        };
        let expected = r#"for="[2001:db8::1]";by="[2001:db8::2]";host="[2001:db8::3]:8443";proto=http"#;
        assert_eq!(written(forwarded), expected);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client() {
        let forwarded =
            Forwarded { client: "::ffff:192.0.2.1".parse().unwrap(), by: None, host: b"", proto: Scheme::Http };
        assert_eq!(written(forwarded), "for=192.0.2.1;proto=http");
    }
}
