//! Requests to a Kubernetes API, as its clients send them: JSON over HTTP/1.1, with TLS and a token.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer, in octets; a watch has no end.
const MAX_ANSWER: usize = 64 << 20;
/// The longest event of a watch, in octets.
const MAX_EVENT: usize = 8 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("connect to the Kubernetes API")]
    Connect(#[source] io::Error),
    /// What came was no answer.
    #[error("ask the Kubernetes API")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("write a request to the Kubernetes API")]
    Request(#[from] hyper::http::Error),
    /// It broke off, or is too long.
    #[error("read what the Kubernetes API says: {0}")]
    Body(String),
    /// Nothing came in time.
    #[error("the Kubernetes API says nothing for {} s", PATIENCE.as_secs())]
    Silent,
    /// It refused.
    #[error("{method} {path}: {status} {message}")]
    Refused {
        /// What was asked.
        method: Method,
        /// Where.
        path: String,
        /// Its answer.
        status: u16,
        /// Its reason.
        message: String,
    },
}

impl ClientError {
    /// Whether the API answered so.
    pub fn is(&self, expected: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == expected)
    }

    /// The API has no such kind; `path` is where it was looked for.
    pub(super) fn unknown_kind(path: String, version: &str, kind: &str) -> Self {
        let message = format!("there is no kind {kind} in {version}: load its CustomResourceDefinition first");
        Self::Refused { method: Method::GET, path, status: StatusCode::NOT_FOUND.as_u16(), message }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    method: Method,
    path: String,
    body: Option<(&'static str, Value)>,
}

impl Ask {
    /// What is there.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    /// Creates an object in a list.
    pub fn create(list: impl Into<String>, object: Value) -> Self {
        Self { method: Method::POST, path: list.into(), body: Some(("application/json", object)) }
    }

    /// Server-side apply, as `manager`; fields of others are taken over.
    pub fn apply(path: &str, manager: &str, object: Value) -> Self {
        let path = format!("{path}?fieldManager={manager}&force=true");
        // JSON is YAML, too.
        Self { method: Method::PATCH, path, body: Some(("application/apply-patch+yaml", object)) }
    }

    /// A merge patch (RFC 7396).
    pub fn merge(path: impl Into<String>, patch: Value) -> Self {
        Self { method: Method::PATCH, path: path.into(), body: Some(("application/merge-patch+json", patch)) }
    }

    /// Takes an object away.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: path.into(), body: None }
    }
}

/// Who asks, and whom they believe.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A bearer token.
    pub token: String,
    /// TLS with the API's authority.
    pub config: Arc<ClientConfig>,
}

impl Identity {
    /// Believes what this authority issued.
    pub fn new(token: String, authority: CertificateDer<'static>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { token, config: Arc::new(config) })
    }
}

/// A connection to an API, which serves one request after the other.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Says who asks: the value of `authorization`.
    who: String,
    /// Moves the octets; ends with the connection.
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Speaks HTTP on an open connection.
    pub async fn new(stream: TcpStream, identity: &Identity) -> Result<Self, ClientError> {
        let Identity { token, config } = identity;
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(ClientError::Connect)?;
        let connector = TlsConnector::from(config.clone());
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let stream = timeout(PATIENCE, connector.connect(name, stream)).await.map_err(|_| ClientError::Silent)?;
        let stream = stream.map_err(ClientError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // Whoever asks hears of it.
            let _ = connection.await;
        });
        Ok(Self { sender, who: format!("Bearer {token}"), driver: driver.abort_handle() })
    }

    /// Asks, and reads the whole answer.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Value, ClientError> {
        timeout(PATIENCE, self.answer(ask)).await.map_err(|_| ClientError::Silent)?
    }

    /// Asks for a stream of events.
    pub async fn watch(mut self, path: &str) -> Result<Watch, ClientError> {
        let ask = Ask::get(path);
        let (status, body) = timeout(PATIENCE, self.send(&ask)).await.map_err(|_| ClientError::Silent)??;
        if !status.is_success() {
            let answer = read(body).await?;
            return Err(refused(&ask, status, &answer));
        }
        Ok(Watch { _connection: self, body, read: Vec::new() })
    }

    async fn answer(&mut self, ask: &Ask) -> Result<Value, ClientError> {
        let (status, body) = self.send(ask).await?;
        let answer = read(body).await?;
        if status.is_success() { Ok(answer) } else { Err(refused(ask, status, &answer)) }
    }

    async fn send(&mut self, ask: &Ask) -> Result<(StatusCode, Incoming), ClientError> {
        self.sender.ready().await?;
        let mut request = hyper::Request::builder().method(&ask.method).uri(&ask.path).header(HOST, "kubernetes");
        request = request.header(AUTHORIZATION, &self.who);
        let mut body = Bytes::new();
        if let Some((kind, value)) = &ask.body {
            request = request.header(CONTENT_TYPE, *kind);
            body = value.to_string().into();
        }
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        Ok((answer.status(), answer.into_body()))
    }
}

/// What happens to the objects of a kind, line by line.
#[derive(Debug)]
pub struct Watch {
    _connection: Connection,
    body: Incoming,
    read: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the server ends the watch.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| ClientError::Body(error.to_string()));
            }
            if self.read.len() > MAX_EVENT {
                return Err(ClientError::Body(format!("an event of more than {MAX_EVENT} octets")));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            self.read.extend_from_slice(frame?.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
    }
}

/// One request on a connection of its own, for whoever waits.
pub fn ask(stream: TcpStream, identity: &Identity, ask: &Ask) -> Result<Value, ClientError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::Connect)?;
    runtime.block_on(async { Connection::new(stream, identity).await?.ask(ask).await })
}

async fn read(body: Incoming) -> Result<Value, ClientError> {
    let whole = Limited::new(body, MAX_ANSWER).collect().await;
    let whole = whole.map_err(|error| ClientError::Body(error.to_string()))?.to_bytes();
    // What is no JSON is a message of somebody in between.
    Ok(serde_json::from_slice(&whole).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&whole).into_owned())))
}

fn refused(ask: &Ask, status: StatusCode, answer: &Value) -> ClientError {
    let message = answer["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
    ClientError::Refused { method: ask.method.clone(), path: ask.path.clone(), status: status.as_u16(), message }
}
