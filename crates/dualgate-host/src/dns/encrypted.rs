//! Questions to resolvers that are spoken to encrypted: DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484).
//!
//! Each upstream has one connection, made when something is asked and kept while it is used; many questions are on their way
//! at a time, and answers come in any order. What a connection that had answered before leaves unanswered is asked once more
//! in another one: servers close those of which they hear nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dualgate_core::machine::resolver::AttemptId;
use dualgate_core::plan::dns::{Upstream, UpstreamProtocol};
use h2::client::SendRequest;
use http::{Request, StatusCode, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::forward::Event;
use super::tcp;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(4);
/// A connection on which nothing is asked for so long ends.
const IDLE: Duration = Duration::from_secs(30);
/// One that leaves questions unanswered for so long is dead.
const SILENT: Duration = Duration::from_secs(5);
/// How many questions are on their way in a connection.
const PIPELINE: usize = 128;
/// How many wait for one.
const WAITING: usize = 256;
/// No answer is longer.
const LONGEST: usize = 65_535;
const MESSAGE: &str = "application/dns-message";

/// Whom we believe to be who they say.
#[derive(Debug)]
pub(super) struct Trust {
    tls: Arc<ClientConfig>,
    https: Arc<ClientConfig>,
}

impl Trust {
    /// In those who are certified by the authorities of a file, or by the system's.
    pub fn load(authorities: Option<&Path>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificates = match authorities {
            Some(file) => {
                let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                read.map_err(|error| io::Error::other(format!("read `{}`: {error}", file.display())))?
            }
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() {
            let at = authorities.map_or("the system".to_owned(), |file| format!("`{}`", file.display()));
            return Err(io::Error::other(format!("{at} has no certificate of an authority")));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        let mut https = tls.clone();
        https.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { tls: Arc::new(tls), https: Arc::new(https) })
    }

    /// Connects, and looks at whose certificate is shown.
    async fn connect(&self, to: &Upstream) -> io::Result<TlsStream<TcpStream>> {
        let config = match to.protocol {
            UpstreamProtocol::Https { .. } => &self.https,
            UpstreamProtocol::Plain | UpstreamProtocol::Tls { .. } => &self.tls,
        };
        let name = ServerName::try_from(to.certified().unwrap_or_default()).map_err(io::Error::other)?;
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config.clone()).connect(name, stream).await
    }
}

/// The connections to all upstreams.
pub(super) struct Connections {
    trust: Option<Arc<Trust>>,
    lines: BTreeMap<Arc<Upstream>, mpsc::Sender<Wanted>>,
    happened: mpsc::Sender<Event>,
}

/// A question on its way.
struct Wanted {
    attempt: AttemptId,
    message: Vec<u8>,
    /// Whether it was sent before, in a connection that ended.
    again: bool,
}

impl Connections {
    /// None yet; what comes of questions goes there.
    pub fn new(happened: mpsc::Sender<Event>) -> Self {
        Self { trust: None, lines: BTreeMap::new(), happened }
    }

    /// Whom to believe from now on: with others than before, each connection is made again.
    pub fn trust(&mut self, trust: Option<Arc<Trust>>) {
        let is_same = match (&self.trust, &trust) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            self.lines.clear();
            self.trust = trust;
        }
    }

    /// Asks; `false` if that cannot be done.
    pub fn ask(&mut self, attempt: AttemptId, to: &Arc<Upstream>, message: Vec<u8>) -> bool {
        let Some(trust) = &self.trust else { return false };
        let line = self.lines.entry(to.clone()).or_insert_with(|| {
            let (line, wanted) = mpsc::channel(WAITING);
            tokio::task::spawn_local(Line::new(to.clone(), trust.clone(), wanted, self.happened.clone()).run());
            line
        });
        line.try_send(Wanted { attempt, message, again: false }).is_ok()
    }
}

/// All that is asked of one upstream, through one connection after the other.
struct Line {
    to: Arc<Upstream>,
    trust: Arc<Trust>,
    wanted: mpsc::Receiver<Wanted>,
    happened: mpsc::Sender<Event>,
    /// What is to be sent next.
    queue: VecDeque<Wanted>,
    /// Whether this connection has answered anything.
    has_answered: bool,
    /// What went wrong the last time, so that it is told once.
    trouble: Option<String>,
}

/// Why a connection ended.
enum End {
    /// Nobody wants anything more of this upstream.
    Unwanted,
    /// Nothing was asked for a while.
    Idle,
    /// It broke, or was closed; these were not answered.
    Broken(Vec<Wanted>),
}

impl Line {
    fn new(
        to: Arc<Upstream>,
        trust: Arc<Trust>,
        wanted: mpsc::Receiver<Wanted>,
        happened: mpsc::Sender<Event>,
    ) -> Self {
        let (queue, has_answered, trouble) = (VecDeque::new(), false, None);
        Self { to, trust, wanted, happened, queue, has_answered, trouble }
    }

    /// Until nobody wants anything of this upstream.
    async fn run(mut self) {
        loop {
            if self.queue.is_empty() {
                let Some(first) = self.wanted.recv().await else { return };
                self.queue.push_back(first);
            }
            self.has_answered = false;
            let connected = match timeout(CONNECT, self.trust.connect(&self.to)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let end = match connected {
                Ok(stream) => {
                    self.trouble = None;
                    match self.to.protocol.clone() {
                        UpstreamProtocol::Https { path, .. } => self.by_https(stream, &path).await,
                        UpstreamProtocol::Plain | UpstreamProtocol::Tls { .. } => self.by_tls(stream).await,
                    }
                }
                Err(error) => {
                    self.tell(&error.to_string());
                    while let Ok(wanted) = self.wanted.try_recv() {
                        self.queue.push_back(wanted);
                    }
                    End::Broken(Vec::new())
                }
            };
            match end {
                End::Unwanted => return,
                End::Idle => {}
                End::Broken(unanswered) => self.broken(unanswered).await,
            }
        }
    }

    fn tell(&mut self, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            tracing::warn!(upstream = %self.to, %trouble, "a resolver cannot be asked");
            self.trouble = Some(trouble.to_owned());
        }
    }

    /// What a connection that served before leaves open is asked in another one; the rest has failed.
    async fn broken(&mut self, unanswered: Vec<Wanted>) {
        let mut later = VecDeque::new();
        for wanted in unanswered.into_iter().chain(self.queue.drain(..)) {
            if self.has_answered && !wanted.again {
                later.push_back(Wanted { again: true, ..wanted });
            } else {
                let _ = self.happened.send(Event::Failed(wanted.attempt)).await;
            }
        }
        self.queue = later;
    }

    async fn answered(&mut self, attempt: AttemptId, message: Vec<u8>) {
        self.has_answered = true;
        let _ = self.happened.send(Event::Arrived(attempt, message)).await;
    }

    async fn by_tls(&mut self, stream: TlsStream<TcpStream>) -> End {
        let (mut reading, mut writing) = split(stream);
        let (read, mut answers) = mpsc::channel(PIPELINE);
        let mut reader = JoinSet::new();
        reader.spawn_local(async move {
            while let Ok(message) = tcp::message(&mut reading).await {
                if read.send(message).await.is_err() {
                    return;
                }
            }
        });
        // Numbers are ours here: those of questions may meet.
        let (mut open, mut next) = (BTreeMap::<u16, Wanted>::new(), 0_u16);
        let mut heard = Instant::now();
        let unanswered = |open: BTreeMap<u16, Wanted>| End::Broken(open.into_values().collect());
        loop {
            while open.len() < PIPELINE
                && let Some(wanted) = self.queue.pop_front()
            {
                while open.contains_key(&next) {
                    next = next.wrapping_add(1);
                }
                if open.is_empty() {
                    heard = Instant::now();
                }
                let framed = numbered(&wanted.message, next).and_then(|message| tcp::framed(&message));
                let Some(framed) = framed else { continue };
                open.insert(next, wanted);
                match timeout(SILENT, write(&mut writing, &framed)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return unanswered(open),
                }
            }
            let patience = if open.is_empty() { IDLE } else { SILENT };
            tokio::select! {
                wanted = self.wanted.recv(), if open.len() < PIPELINE => match wanted {
                    Some(wanted) => self.queue.push_back(wanted),
                    None => return End::Unwanted,
                },
                message = answers.recv() => {
                    let Some(message) = message else { return unanswered(open) };
                    heard = Instant::now();
                    let number = message.first_chunk().map(|number| u16::from_be_bytes(*number));
                    let Some(wanted) = number.and_then(|number| open.remove(&number)) else { continue };
                    let asked = wanted.message.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
                    if let Some(message) = numbered(&message, asked) {
                        self.answered(wanted.attempt, message).await;
                    }
                }
                () = sleep_until(heard + patience) => match open.is_empty() {
                    true => return End::Idle,
                    false => return unanswered(open),
                },
            }
        }
    }

    async fn by_https(&mut self, stream: TlsStream<TcpStream>, path: &str) -> End {
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            self.tell("it does not speak HTTP/2");
            return End::Broken(Vec::new());
        }
        let (sender, connection) = match timeout(CONNECT, h2::client::handshake(stream)).await {
            Ok(Ok(both)) => both,
            Ok(Err(_)) | Err(_) => return End::Broken(Vec::new()),
        };
        let mut driver = JoinSet::new();
        driver.spawn_local(connection);
        let mut open = Asking::new();
        let url = url(&self.to, path);
        loop {
            while open.len() < PIPELINE
                && let Some(wanted) = self.queue.pop_front()
            {
                let (sender, url) = (sender.clone(), url.clone());
                open.spawn_local(async move {
                    let asked = timeout(SILENT, post(sender, &url, &wanted.message)).await;
                    (wanted, asked.unwrap_or(Err(Unanswered::Broken)))
                });
            }
            tokio::select! {
                wanted = self.wanted.recv(), if open.len() < PIPELINE => match wanted {
                    Some(wanted) => self.queue.push_back(wanted),
                    None => return End::Unwanted,
                },
                Some(Ok((wanted, answer))) = open.join_next() => match answer {
                    Ok(message) => self.answered(wanted.attempt, message).await,
                    Err(Unanswered::Refused(why)) => {
                        self.tell(&why);
                        let _ = self.happened.send(Event::Failed(wanted.attempt)).await;
                    }
                    Err(Unanswered::Broken) => return self.rest(open, Some(wanted)).await,
                },
                // Each open question ends with it.
                _ = driver.join_next() => return self.rest(open, None).await,
                () = tokio::time::sleep(IDLE), if open.is_empty() => return End::Idle,
            }
        }
    }

    /// A connection has ended: what of its questions is answered all the same, and what is not.
    async fn rest(&mut self, mut open: Asking, unanswered: Option<Wanted>) -> End {
        let mut unanswered: Vec<Wanted> = unanswered.into_iter().collect();
        while let Some(ended) = open.join_next().await {
            match ended {
                Ok((wanted, Ok(message))) => self.answered(wanted.attempt, message).await,
                Ok((wanted, Err(_))) => unanswered.push(wanted),
                Err(_) => {}
            }
        }
        End::Broken(unanswered)
    }
}

/// Questions over HTTPS with what came of them.
type Asking = JoinSet<(Wanted, Result<Vec<u8>, Unanswered>)>;

/// Why a question over HTTPS has no answer.
enum Unanswered {
    /// The server does not want to.
    Refused(String),
    /// The connection cannot be used any more.
    Broken,
}

impl From<h2::Error> for Unanswered {
    fn from(_: h2::Error) -> Self {
        Self::Broken
    }
}

/// Asks by POST, which nobody on the way keeps (RFC 8484 4.1).
async fn post(sender: SendRequest<Bytes>, url: &str, message: &[u8]) -> Result<Vec<u8>, Unanswered> {
    let number = message.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
    let body = numbered(message, 0).ok_or(Unanswered::Broken)?;
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, MESSAGE)
        .header(header::ACCEPT, MESSAGE)
        .header(header::CONTENT_LENGTH, body.len())
        .body(())
        .map_err(|error| Unanswered::Refused(error.to_string()))?;
    let mut sender = sender.ready().await?;
    let (response, mut sending) = sender.send_request(request, false)?;
    sending.send_data(body.into(), true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Unanswered::Refused(format!("it answers {} to questions", head.status)));
    }
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind.as_bytes() != MESSAGE.as_bytes()) {
        return Err(Unanswered::Refused("it answers something else than DNS messages".to_owned()));
    }
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        if answer.len() + piece.len() > LONGEST {
            return Err(Unanswered::Refused("it answers more than a DNS message may have".to_owned()));
        }
        answer.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    numbered(&answer, number).ok_or_else(|| Unanswered::Refused("it answers no DNS message".to_owned()))
}

fn url(to: &Upstream, path: &str) -> String {
    let authority = match (to.certified(), to.address.port()) {
        (Some(name), port) if name.contains(':') => format!("[{name}]:{port}"),
        (Some(name), 443) => name,
        (name, port) => format!("{}:{port}", name.unwrap_or_default()),
    };
    format!("https://{authority}{path}")
}

/// The message with another number.
fn numbered(message: &[u8], number: u16) -> Option<Vec<u8>> {
    let mut message = message.to_vec();
    message.get_mut(..2)?.copy_from_slice(&number.to_be_bytes());
    Some(message)
}

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), octets: &[u8]) -> io::Result<()> {
    to.write_all(octets).await?;
    to.flush().await
}
