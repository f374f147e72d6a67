//! A plain HTTP/1.1 client, written for these tests: it sends what it is told, byte by byte, and believes nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::{PATIENCE, Seen};

/// One connection.
pub struct Client {
    stream: Stream,
    read: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    /// What the pod saw, if a pod answered.
    pub fn seen(&self) -> Option<Seen> {
        self.field("x-pod")?;
        serde_json::from_slice(&self.body).ok()
    }

    /// Which pod answered.
    pub fn pod(&self) -> Option<&str> {
        self.field("x-pod")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Without TLS.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: Stream::Plain(tcp(address)?), read: Vec::new() })
    }

    /// With TLS; any certificate will do. The handshake is done when this returns.
    pub fn connect_tls(address: SocketAddr, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(config(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp(address)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(stream)), read: Vec::new() })
    }

    /// The certificate that was shown.
    pub fn certificate(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.conn.peer_certificates()?.first().map(|certificate| &**certificate),
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// A request without fields of its own, and its answer.
    pub fn get(&mut self, host: &str, target: &str) -> io::Result<Answer> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.answer("GET")
    }

    /// The next final answer, to a request of this method.
    pub fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head()?;
        while (100..200).contains(&answer.status) && answer.status != 101 {
            answer = self.head()?;
        }
        let has_no_body = method == "HEAD" || matches!(answer.status, 101 | 204 | 304);
        if has_no_body {
            return Ok(answer);
        }
        if answer.field("transfer-encoding").is_some() {
            answer.body = self.chunks()?;
        } else if let Some(length) = answer.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.fill(|read| read.len() >= length)?;
            answer.body = self.read.drain(..length).collect();
        } else {
            while self.more()? {}
            answer.body = std::mem::take(&mut self.read);
        }
        Ok(answer)
    }

    fn head(&mut self) -> io::Result<Answer> {
        self.fill(|read| find(read, b"\r\n\r\n").is_some())?;
        let end = find(&self.read, b"\r\n\r\n").unwrap_or_default();
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let fields = lines.filter_map(|line| line.split_once(':'));
        Ok(Answer {
            status: status.ok_or_else(|| io::Error::other(format!("no answer of HTTP/1: {head:?}")))?,
            fields: fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
            body: Vec::new(),
        })
    }

    /// RFC 9112 7.1.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            self.fill(|read| find(read, b"\r\n").is_some())?;
            let end = find(&self.read, b"\r\n").unwrap_or_default();
            let line: Vec<u8> = self.read.drain(..end + 2).collect();
            let size = std::str::from_utf8(&line[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| io::Error::other(format!("no size of a chunk: {line:?}")))?;
            self.fill(|read| read.len() >= size + 2)?;
            body.extend(self.read.drain(..size));
            if self.read.drain(..2).ne(*b"\r\n") {
                return Err(io::Error::other("a chunk does not end where it says"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Whether the other side has ended the connection; bytes that still come are thrown away.
    pub fn is_ended(&mut self) -> bool {
        loop {
            match self.more() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }

    fn fill(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        while !is_enough(&self.read) {
            if !self.more()? {
                let read = String::from_utf8_lossy(&self.read[..self.read.len().min(200)]).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("ended after {read:?}")));
            }
        }
        Ok(())
    }

    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut buffer)?,
            Stream::Tls(stream) => stream.read(&mut buffer)?,
        };
        self.read.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider knows both versions of TLS");
        let verifier = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = verifier.with_no_client_auth();
        // Each handshake shows its certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

/// Believes every certificate: which one was shown is for the test to compare.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
