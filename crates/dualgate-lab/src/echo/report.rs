//! What the echo backend says about a request.
//!
//! The first names are those of the echo server of the Ingress conformance suite: path, host, method, proto, headers,
//! namespace, ingress, service, pod.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Version};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use sha2::{Digest as _, Sha256};

use super::{Connection, Identity};

/// How much of a request's body is shown.
const SHOWN: usize = 1024;

/// What was asked.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The request target, with its query.
    path: String,
    host: String,
    method: &'a str,
    proto: &'static str,
    /// In lower case, with all values in their order.
    headers: BTreeMap<&'a str, Vec<String>>,
    #[serde(flatten)]
    identity: &'a Identity,
    /// Who opened the connection: the gate.
    peer: SocketAddr,
    /// Where it was accepted: shows the family.
    local: SocketAddr,
    /// The client, as the gate says.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<BodyReport>,
}

/// What a request's body was.
#[derive(Debug, Serialize)]
pub struct BodyReport {
    /// In octets.
    length: u64,
    sha256: String,
    /// The first KiB.
    start: String,
}

impl<'a> Report<'a> {
    /// Of one request.
    pub(super) fn of<B>(request: &'a Request<B>, connection: &'a Connection, body: Option<BodyReport>) -> Self {
        let headers = request.headers();
        let uri = request.uri();
        let authority = || uri.authority().map(ToString::to_string);
        Self {
            path: match (request.version(), uri.path_and_query()) {
                // There the target is made of fields; a scheme in it is not the client's.
                (Version::HTTP_2, Some(path)) => path.to_string(),
                _ => uri.to_string(),
            },
            host: headers.get(HOST).map(text).or_else(authority).unwrap_or_default(),
            method: request.method().as_str(),
            proto: proto(request.version()),
            headers: headers.keys().map(|name| (name.as_str(), values(headers, name.as_str()))).collect(),
            identity: &connection.identity,
            peer: connection.peer,
            local: connection.local,
            client: client(headers),
            body,
        }
    }

    /// As a document.
    pub fn to_json(&self) -> Bytes {
        let mut document = Vec::with_capacity(1024);
        let mut serializer = serde_json::Serializer::with_formatter(&mut document, Layout::default());
        if let Err(error) = self.serialize(&mut serializer) {
            tracing::warn!(%error, "a request cannot be shown");
        }
        document.push(b'\n');
        document.into()
    }
}

/// Indented, but with a list on one line: most fields have one value.
#[derive(Default)]
struct Layout(PrettyFormatter<'static>);

impl Formatter for Layout {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"[")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"]")
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }
}

/// Reads a body to its end; `None` if it is empty.
pub async fn read(body: &mut Incoming) -> Result<Option<BodyReport>, hyper::Error> {
    let (mut length, mut hash, mut start) = (0, Sha256::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len() as u64;
        hash.update(&data);
        start.extend_from_slice(&data[..data.len().min(SHOWN - start.len())]);
    }
    Ok((length > 0).then(|| BodyReport {
        length,
        sha256: hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect(),
        start: String::from_utf8_lossy(&start).into_owned(),
    }))
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP",
    }
}

fn text(value: &hyper::header::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(text).collect()
}

/// The first address of `X-Forwarded-For`, else of `Forwarded` (RFC 7239 5.2), else `X-Real-Ip`.
fn client(headers: &HeaderMap) -> Option<String> {
    let named = |client: &String| !client.is_empty();
    let first = |name: &str| {
        let client = values(headers, name).first()?.split(',').next().map(|value| value.trim().to_owned());
        client.filter(named)
    };
    let of_forwarded = || {
        let client = first("forwarded")?.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"').to_owned())
        });
        client.filter(named)
    };
    first("x-forwarded-for").or_else(of_forwarded).or_else(|| first("x-real-ip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_lists_on_one_line() {
        let mut document = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut document, Layout::default());
        let value = serde_json::json!({"headers": {"accept": ["a", "b"], "none": []}, "pod": "x"});
        value.serialize(&mut serializer).unwrap();
        let expected = "\
{
  \"headers\": {
    \"accept\": [\"a\", \"b\"],
    \"none\": []
  },
  \"pod\": \"x\"
}";
        assert_eq!(String::from_utf8(document).unwrap(), expected);
    }

    #[test]
    fn the_client_is_the_first_one_that_is_named() {
        let client = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            client(&headers)
        };
        assert_eq!(client(&[]), None);
        assert_eq!(client(&[("x-forwarded-for", "fd00::5, 10.0.0.1")]).as_deref(), Some("fd00::5"));
        assert_eq!(
            client(&[("forwarded", "proto=https;For=\"[fd00::5]\";by=_x, for=10.0.0.1")]).as_deref(),
            Some("[fd00::5]")
        );
        assert_eq!(
            client(&[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.2")]).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(client(&[("x-real-ip", "fd00::5"), ("x-forwarded-for", "")]).as_deref(), Some("fd00::5"));
        assert_eq!(client(&[("x-real-ip", "fd00::5"), ("forwarded", "for=fd00::6")]).as_deref(), Some("fd00::6"));
    }
}
