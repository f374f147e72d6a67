//! HTTP/1.1 from a host: one request at an address that is named apart from the host that it asks for, as with
//! `curl -H "Host: …" http://ADDRESS/`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_http::{BodyDecoder, BodyLength, HeadLimits, Progress, ResponseHead, Scheme, TrailerLimits};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::Deserialize;

use super::Trouble;
use super::certificate::{self, Shown};
use super::tcp::{connect, left};

/// The largest body that is read.
const MAX_BODY: usize = 1 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where: the gate's address and port.
    pub to: SocketAddr,
    /// Whether it goes through TLS. The server name is the host; any certificate is taken.
    pub scheme: Scheme,
    /// The Host field.
    pub host: String,
    /// The path, with its query.
    pub path: String,
}

impl Request {
    /// `GET /` over plain HTTP.
    pub fn new(to: SocketAddr, host: impl Into<String>) -> Self {
        Self { to, scheme: Scheme::Http, host: host.into(), path: "/".to_owned() }
    }

    /// The same through TLS.
    pub fn over_tls(self) -> Self {
        Self { scheme: Scheme::Https, ..self }
    }

    /// The same for another path.
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The address that the request was sent from.
    pub local: SocketAddr,
    /// What was shown in the handshake, through TLS.
    pub certificate: Option<Shown>,
    /// From before the connection was opened, or from the request on a kept one, to the body's end.
    pub took: Duration,
}

impl Answer {
    /// The first value of a field; its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    /// What the pod says that it saw, if an echo backend answered.
    pub fn echo(&self) -> Option<Echo> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What an echo backend says that it saw (`crate::echo`), as far as probes want to know it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Echo {
    /// The pod that answers.
    pub pod: String,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Who opened the connection: the gate.
    pub peer: Option<SocketAddr>,
    /// The client, as the gate named it.
    pub client: Option<String>,
    /// The Host field that it saw.
    #[serde(default)]
    pub host: String,
    /// The target that it saw.
    #[serde(default)]
    pub path: String,
}

impl Echo {
    /// The client's address, without the brackets and the port that `Forwarded` may give it (RFC 7239 6).
    pub fn client_address(&self) -> Option<IpAddr> {
        let client = self.client.as_deref()?;
        let bare = client.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(client, |(bare, _)| bare);
        bare.parse().ok().or_else(|| client.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
    }
}

/// One request on a connection of its own.
pub fn get(from: &Namespace, request: &Request, patience: Duration) -> Result<Answer, Trouble> {
    let started = Instant::now();
    let mut connection = Connection::open(from, request, patience)?;
    let answer = connection.get(request, left(started + patience)).map_err(|trouble| match trouble {
        Trouble::Silent(_) => Trouble::Silent(patience.as_millis()),
        other => other,
    })?;
    Ok(Answer { took: started.elapsed(), ..answer })
}

/// A connection that may serve several requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    local: SocketAddr,
    certificate: Option<Shown>,
    /// Read, and not used yet.
    read: Vec<u8>,
    keeps: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(Wire),
    Tls(Box<StreamOwned<ClientConnection, Wire>>),
}

impl Connection {
    /// Opens it to where the request goes, handshake included.
    pub fn open(from: &Namespace, request: &Request, patience: Duration) -> Result<Self, Trouble> {
        let until = Instant::now() + patience;
        let tcp = connect(from, request.to, patience)?;
        let trouble = |error: io::Error| Trouble::of(&error, patience);
        // Each request is one write; nothing is gained by waiting for more.
        tcp.set_nodelay(true).map_err(trouble)?;
        let local = tcp.local_addr().map_err(trouble)?;
        let wire = Wire { stream: tcp, until };
        let (stream, certificate) = match request.scheme {
            Scheme::Http => (Stream::Plain(wire), None),
            Scheme::Https => handshake(wire, &request.host, patience)?,
        };
        Ok(Self { stream, local, certificate, read: Vec::new(), keeps: true })
    }

    /// Whether another request can be sent.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Sends a request and reads its answer. After an error the connection is of no more use.
    pub fn get(&mut self, request: &Request, patience: Duration) -> Result<Answer, Trouble> {
        let started = Instant::now();
        self.set_deadline(started + patience);
        self.keeps = false;
        let Request { host, path, .. } = request;
        let message = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dualgate-lab\r\nAccept: */*\r\n\r\n");
        // A server that has ended the connection may have answered before: the answer counts.
        let sent = self.write(message.as_bytes()).map_err(|error| Trouble::of(&error, patience));
        let (head, length, keeps) = match (self.head(patience), sent) {
            (Ok(head), _) => head,
            (Err(Trouble::Ended), Err(trouble)) | (Err(trouble), _) => return Err(trouble),
        };
        let body = self.body(length, patience)?;
        self.keeps = keeps && length != BodyLength::UntilClose;
        let certificate = self.certificate.clone();
        Ok(Answer { body, local: self.local, certificate, took: started.elapsed(), ..head })
    }

    fn set_deadline(&mut self, until: Instant) {
        match &mut self.stream {
            Stream::Plain(wire) => wire.until = until,
            Stream::Tls(stream) => stream.sock.until = until,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(wire) => wire.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// The head of the final answer, how its body ends, and whether the connection stays.
    fn head(&mut self, patience: Duration) -> Result<(Answer, BodyLength, bool), Trouble> {
        let (mut index, limits) = (ResponseHead::new(), HeadLimits::default());
        loop {
            let progress = index.parse(&self.read, &limits);
            match progress.map_err(|error| Trouble::Broken(format!("the answer's head is broken: {error}")))? {
                Progress::Partial => {
                    let begun = !self.read.is_empty();
                    if !self.more(patience)? {
                        let broken = || Trouble::Broken("the connection ended within the answer's head".to_owned());
                        return Err(if begun { broken() } else { Trouble::Ended });
                    }
                }
                Progress::Complete { len } => {
                    let view = index.view(&self.read);
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let fields = view.fields().map(|field| (text(field.name).to_ascii_lowercase(), text(field.value)));
                    let head = Answer {
                        status: view.status(),
                        fields: fields.collect(),
                        body: Vec::new(),
                        local: self.local,
                        certificate: None,
                        took: Duration::ZERO,
                    };
                    let (interim, length, keeps) = (view.is_interim(), view.body("GET"), view.keep_alive());
                    self.read.drain(..len);
                    if !interim {
                        return Ok((head, length, keeps));
                    }
                }
            }
        }
    }

    fn body(&mut self, length: BodyLength, patience: Duration) -> Result<Vec<u8>, Trouble> {
        let broken = |error| Trouble::Broken(format!("the answer's body is broken: {error}"));
        let within = |trouble| match trouble {
            Trouble::Ended => Trouble::Broken("the connection ended within the answer's body".to_owned()),
            other => other,
        };
        let mut decoder = BodyDecoder::new(length, &TrailerLimits::default());
        let mut body = Vec::new();
        loop {
            let step = decoder.decode(&self.read).map_err(broken)?;
            body.extend_from_slice(&self.read[step.data.clone()]);
            self.read.drain(..step.consumed);
            if step.done {
                return Ok(body);
            }
            if body.len() > MAX_BODY {
                return Err(Trouble::Broken(format!("the answer's body is larger than {MAX_BODY} octets")));
            }
            if (step.consumed == 0 || self.read.is_empty()) && !self.more(patience).map_err(within)? {
                return decoder.end_of_input().map(|()| body).map_err(broken);
            }
        }
    }

    /// Reads more; whether there was more.
    fn more(&mut self, patience: Duration) -> Result<bool, Trouble> {
        let mut space = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(wire) => wire.read(&mut space),
            Stream::Tls(stream) => stream.read(&mut space),
        };
        match read {
            Ok(count) => {
                self.read.extend_from_slice(&space[..count]);
                Ok(count > 0)
            }
            Err(error) => match Trouble::of(&error, patience) {
                Trouble::Ended if !self.read.is_empty() => {
                    Err(Trouble::Broken("the connection broke within an answer".to_owned()))
                }
                trouble => Err(trouble),
            },
        }
    }
}

fn handshake(wire: Wire, host: &str, patience: Duration) -> Result<(Stream, Option<Shown>), Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::Failed(format!("no TLS client for `{host}`: {error}"));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    let config = certificate::any().map_err(|error| failed(&error))?;
    let session = ClientConnection::new(config, name).map_err(|error| failed(&error))?;
    let mut stream = StreamOwned::new(session, wire);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| match error.get_ref() {
            Some(fault) if fault.is::<rustls::Error>() => Trouble::Broken(format!("the TLS handshake failed: {fault}")),
            _ => Trouble::of(&error, patience),
        })?;
    }
    let shown = stream.conn.peer_certificates().and_then(|chain| Shown::read(chain.first()?));
    Ok((Stream::Tls(Box::new(stream)), shown))
}

/// A TCP connection with a deadline for everything that is done on it.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    until: Instant,
}

impl Wire {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Wire {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(space) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // rustls takes "would block" for "later", and there is no later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                outcome => return outcome,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        match self.stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            outcome => outcome,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_that_a_pod_was_told_may_have_brackets_and_a_port() {
        let echo = |client: &str| Echo {
            pod: "p".to_owned(),
            node: None,
            peer: None,
            client: Some(client.to_owned()),
            host: String::new(),
            path: String::new(),
        };
        for (told, address) in [
            ("192.168.178.50", Some("192.168.178.50")),
            ("192.168.178.50:4711", Some("192.168.178.50")),
            ("fd00::5", Some("fd00::5")),
            ("[fd00::5]", Some("fd00::5")),
            ("[fd00::5]:4711", Some("fd00::5")),
            ("_hidden", None),
            ("unknown", None),
        ] {
            assert_eq!(echo(told).client_address(), address.map(|a| a.parse().unwrap()), "{told}");
        }
    }
}
