//! Asks an API over HTTP/1.1: one connection for each request, with TLS by the system's authorities.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Failure;

/// How long a request may take, with its connection and its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// The longest answer.
const ANSWER: usize = 64 << 20;
/// What of an answer's text is shown.
const SHOWN: usize = 300;

/// Where an API is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `None` without TLS.
    tls: Option<Arc<ClientConfig>>,
    host: String,
    port: u16,
    /// With what paths begin; no slash at its end.
    base: String,
}

impl Endpoint {
    /// From a URL.
    pub fn new(url: &str) -> Result<Self, Failure> {
        let broken = || Failure::new(format!("`{url}` is not a URL"), "write one with http or https and a host");
        let uri: Uri = url.parse().map_err(|_| broken())?;
        let host = uri.host().ok_or_else(broken)?.trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => Some(Arc::new(tls()?)),
            Some("http") => None,
            _ => return Err(broken()),
        };
        let (_, usual) = scheme(tls.as_ref());
        let (port, base) = (uri.port_u16().unwrap_or(usual), uri.path().trim_end_matches('/').to_owned());
        Ok(Self { tls, host, port, base })
    }

    /// As URLs and requests name it: with its port only if that is not the usual one.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let (_, usual) = scheme(self.tls.as_ref());
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// With the port that goes without saying.
fn scheme(tls: Option<&Arc<ClientConfig>>) -> (&'static str, u16) {
    if tls.is_some() { ("https", 443) } else { ("http", 80) }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", scheme(self.tls.as_ref()).0, self.authority(), self.base)
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Ask<'a> {
    /// How.
    pub method: Method,
    /// What, below the endpoint.
    pub path: &'a str,
    /// More of the head; values may be secret and are never shown.
    pub fields: &'a [(&'static str, String)],
    /// What is sent with it.
    pub body: Option<Vec<u8>>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The type of the body.
    pub media_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The document that it is.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(format!("an answer that cannot be read: {error}"), "see whether its API has changed")
        })
    }

    /// The beginning of its text on one line, for people.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
    }
}

/// A token from a file that holds nothing else.
pub fn secret(file: &str) -> Result<String, Failure> {
    let help = "write the provider's token there, and nothing else";
    let text = std::fs::read_to_string(file).map_err(|error| Failure::new(format!("read `{file}`: {error}"), help))?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|octet| octet.is_ascii_graphic());
    if is_token { Ok(token.to_owned()) } else { Err(Failure::new(format!("`{file}` holds no token"), help)) }
}

/// Asks once. Whatever is no success becomes a failure with what the API says.
pub async fn ask(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Answer, Failure> {
    let what = format!("{} {endpoint}{}", ask.method, ask.path);
    let answered = timeout(REQUEST, exchange(endpoint, ask)).await;
    let late = || Err(Failure::new(format!("no answer within {} s", REQUEST.as_secs()), "it is tried again"));
    answered.unwrap_or_else(|_| late()).map_err(|failure| failure.during(what))
}

async fn exchange(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Answer, Failure> {
    let reach = "see whether it is reached from here";
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
    let tcp = tcp.map_err(|error| Failure::new(format!("connect: {error}"), reach))?;
    let Some(tls) = &endpoint.tls else { return send(endpoint, ask, tcp).await };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| Failure::new("its host has no name for TLS", "write a host name"))?;
    let tls = TlsConnector::from(tls.clone()).connect(name, tcp).await;
    let tls = tls.map_err(|error| Failure::new(format!("TLS: {error}"), "see whether it is the right host"))?;
    send(endpoint, ask, tls).await
}

fn tls() -> Result<ClientConfig, Failure> {
    let broken = |why: &dyn fmt::Display| Failure::new(format!("TLS: {why}"), "install ca-certificates");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(broken(&"the system has no authorities"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| broken(&error))?.with_root_certificates(roots).with_no_client_auth())
}

async fn send<S>(endpoint: &Endpoint, ask: Ask<'_>, stream: S) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let broken = |error: &dyn fmt::Display| Failure::new(error.to_string(), "it is tried again");
    let mut request = Request::builder()
        .method(ask.method)
        .uri(format!("{}{}", endpoint.base, ask.path))
        .header(header::HOST, endpoint.authority())
        .header(header::USER_AGENT, concat!("dualgate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    for (name, value) in ask.fields {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(ask.body.unwrap_or_default()))).map_err(|_| {
        Failure::new("a field of the request cannot be written", "see whether the token's file holds the token alone")
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER).collect().await.map_err(|error| broken(&error))?;
        let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let after = field(header::RETRY_AFTER);
        let answer =
            Answer { status: head.status, media_type: field(header::CONTENT_TYPE), body: body.to_bytes().to_vec() };
        judge(answer, &after)
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // It ends with the last octet that it read; what it read is still there.
        _ = connection => exchange.await,
    }
}

fn judge(answer: Answer, retry_after: &str) -> Result<Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let what = format!("{}: {}", answer.status, answer.text());
    let help = match answer.status.as_u16() {
        401 | 403 => "see whether the token is right and may change this zone",
        404 => "see whether the provider has this zone",
        429 => "it is asked again later",
        400..500 => "see what the provider says",
        _ => "it is tried again",
    };
    let mut failure = Failure::new(what, help);
    // The others are about who asks, or what is asked of, and not about what. Webhooks have 500 for whatever they do not want.
    let status = answer.status.as_u16();
    failure.is_refusal = (400..=500).contains(&status) && ![401, 403, 404, 408, 429].contains(&status);
    failure.after = match (answer.status.as_u16(), retry_after.parse().ok()) {
        (429 | 503, Some(seconds)) => Some(Duration::from_secs(seconds)),
        // A date, or nothing at all.
        (429, None) => Some(Duration::from_secs(60)),
        _ => None,
    };
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_host() {
        let shown = |url: &str| Endpoint::new(url).map(|endpoint| endpoint.to_string()).ok();
        assert_eq!(shown("https://api.example.org/v1/"), Some("https://api.example.org/v1".to_owned()));
        assert_eq!(shown("http://[::1]:8888"), Some("http://[::1]:8888".to_owned()));
        assert_eq!((shown("ftp://example.org"), shown("localhost:8888"), shown("")), (None, None, None));
    }

    #[test]
    fn who_is_asked_too_often_says_when_to_come_again() {
        let answer = |status: u16| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            media_type: String::new(),
            body: b"slow\ndown".to_vec(),
        };
        assert!(judge(answer(204), "").is_ok());
        let after = |status, text| judge(answer(status), text).unwrap_err().after.map(|after| after.as_secs());
        assert_eq!((after(429, "7"), after(429, "Wed, 21 Oct 2026"), after(503, "9")), (Some(7), Some(60), Some(9)));
        assert_eq!((after(503, ""), after(500, "7")), (None, None));
        let is_refusal = |status| judge(answer(status), "").unwrap_err().is_refusal;
        assert_eq!([400, 409, 422, 500].map(is_refusal), [true; 4]);
        assert_eq!([401, 403, 404, 429, 502, 503].map(is_refusal), [false; 6]);
        assert_eq!(judge(answer(429), "7").unwrap_err().what, "429 Too Many Requests: slow down");
    }
}
