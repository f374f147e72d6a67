//! Questions to resolvers that are spoken to encrypted: DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484).
//!
//! Each upstream has one connection, made when something is asked and kept while it is used; many questions are on their way
//! at a time, and answers come in any order. A question without an answer is given up alone; a connection in which nothing at
//! all is heard while something is asked is dead. What a connection that had answered before leaves unanswered is asked once
//! more in another one: servers close those of which they hear nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dualgate_core::machine::resolver::{AttemptId, GIVE_UP};
use dualgate_core::plan::dns::{Upstream, UpstreamProtocol};
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::forward::Event;
use super::tcp;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(4);
/// A connection on which nothing is asked for so long ends.
const IDLE: Duration = Duration::from_secs(30);
/// One that has answered before, and in which nothing is heard for so long while something is asked, is dead. Whoever asks is
/// still there when another one has answered. A new one has just shown that it lives: it has as long as whoever asks.
const SILENT: Duration = Duration::from_millis(1800);
/// How many questions are on their way in a connection: as many streams as most servers take.
const PIPELINE: usize = 100;
/// How long the answers of a connection that takes no more questions are waited for.
const REST: Duration = Duration::from_millis(200);
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
    /// Who may be asked.
    upstreams: BTreeSet<Arc<Upstream>>,
    lines: BTreeMap<Arc<Upstream>, mpsc::Sender<Wanted>>,
    happened: mpsc::Sender<Event>,
}

/// A question on its way.
struct Wanted {
    attempt: AttemptId,
    message: Vec<u8>,
    since: Instant,
    /// Whether it was sent before, in a connection that ended.
    again: bool,
}

impl Wanted {
    /// Whether whoever asked waits for it.
    fn is_wanted(&self) -> bool {
        self.since.elapsed() < GIVE_UP
    }
}

impl Connections {
    /// None yet; what comes of questions goes there.
    pub fn new(happened: mpsc::Sender<Event>) -> Self {
        Self { trust: None, upstreams: BTreeSet::new(), lines: BTreeMap::new(), happened }
    }

    /// Whom to ask from now on, and whom of them to believe: with others to believe than before, each connection is made
    /// again.
    pub fn follow(&mut self, upstreams: BTreeSet<Arc<Upstream>>, trust: Option<Arc<Trust>>) {
        let is_same = match (&self.trust, &trust) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.lines.retain(|upstream, _| is_same && upstreams.contains(upstream));
        (self.upstreams, self.trust) = (upstreams, trust);
    }

    /// Asks; `false` if that cannot be done.
    pub fn ask(&mut self, attempt: AttemptId, to: &Arc<Upstream>, message: Vec<u8>) -> bool {
        let Some(trust) = self.trust.as_ref().filter(|_| self.upstreams.contains(to)) else { return false };
        let line = self.lines.entry(to.clone()).or_insert_with(|| {
            let (line, wanted) = mpsc::channel(WAITING);
            tokio::task::spawn_local(Line::new(to.clone(), trust.clone(), wanted, self.happened.clone()).run());
            line
        });
        line.try_send(Wanted { attempt, message, since: Instant::now(), again: false }).is_ok()
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
    /// What was sent in this connection, by its number there.
    open: BTreeMap<u16, Wanted>,
    /// The number of what is sent next: none is soon given again, so that no late answer is taken for another one.
    next: u16,
    /// What went wrong since something was answered, so that it is told once.
    trouble: Option<String>,
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody wants anything more of this upstream.
    Unwanted,
    /// Nothing was asked for a while.
    Idle,
    /// It was never there, or answered nothing before it broke.
    Useless,
    /// It broke, or was closed, after it had answered something.
    Broken,
}

impl Line {
    fn new(
        to: Arc<Upstream>,
        trust: Arc<Trust>,
        wanted: mpsc::Receiver<Wanted>,
        happened: mpsc::Sender<Event>,
    ) -> Self {
        let (queue, open, next, trouble) = (VecDeque::new(), BTreeMap::new(), 0, None);
        Self { to, trust, wanted, happened, queue, open, next, trouble }
    }

    /// Until nobody wants anything of this upstream.
    async fn run(mut self) {
        loop {
            if self.queue.is_empty() {
                let Some(first) = self.wanted.recv().await else { return };
                self.queue.push_back(first);
            }
            match self.connect().await {
                End::Idle => {}
                End::Broken => self.ask_again().await,
                End::Useless => self.fail().await,
                End::Unwanted => return self.fail().await,
            }
        }
    }

    fn tell(&mut self, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            tracing::warn!(upstream = %self.to, %trouble, "a resolver cannot be asked");
            self.trouble = Some(trouble.to_owned());
        }
    }

    /// What was left open is asked in another connection; what was so once before has failed.
    async fn ask_again(&mut self) {
        let open = std::mem::take(&mut self.open).into_values().filter(Wanted::is_wanted);
        let (failed, again): (Vec<_>, Vec<_>) = open.partition(|wanted| wanted.again);
        for wanted in again.into_iter().rev() {
            self.queue.push_front(Wanted { again: true, ..wanted });
        }
        for wanted in failed {
            let _ = self.happened.send(Event::Failed(wanted.attempt)).await;
        }
    }

    /// Nothing that was asked until now is answered here.
    async fn fail(&mut self) {
        let open = std::mem::take(&mut self.open).into_values();
        for wanted in open.chain(self.queue.drain(..)) {
            let _ = self.happened.send(Event::Failed(wanted.attempt)).await;
        }
    }

    async fn connect(&mut self) -> End {
        let (trust, to) = (self.trust.clone(), self.to.clone());
        let mut connecting = pin!(timeout(CONNECT, Connection::make(&trust, &to)));
        let connected = loop {
            tokio::select! {
                connected = &mut connecting => break connected,
                wanted = self.wanted.recv(), if self.queue.len() < WAITING => match wanted {
                    Some(wanted) => self.queue.push_back(wanted),
                    None => return End::Unwanted,
                },
            }
        };
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => self.converse(connection).await,
            Err(error) => {
                self.tell(&error.to_string());
                End::Useless
            }
        }
    }

    async fn converse(&mut self, mut connection: Connection) -> End {
        let (mut heard, mut end) = (Instant::now(), End::Useless);
        loop {
            // Others were asked meanwhile, or it was given up.
            self.open.retain(|_, wanted| wanted.is_wanted());
            self.queue.retain(Wanted::is_wanted);
            while self.open.len() < PIPELINE
                && let Ok(place) = connection.questions.try_reserve()
                && let Some(wanted) = self.queue.pop_front()
            {
                if self.open.is_empty() {
                    heard = Instant::now();
                }
                place.send((self.next, wanted.message.clone()));
                self.open.insert(self.next, wanted);
                self.next = self.next.wrapping_add(1);
            }
            let patience = match end {
                _ if self.open.is_empty() => IDLE,
                End::Broken => SILENT,
                End::Unwanted | End::Idle | End::Useless => GIVE_UP,
            };
            tokio::select! {
                wanted = self.wanted.recv(), if self.queue.len() < WAITING => match wanted {
                    Some(wanted) => self.queue.push_back(wanted),
                    None => return End::Unwanted,
                },
                answer = connection.answers.recv() => {
                    let Some((number, answer)) = answer else { return end };
                    heard = Instant::now();
                    let Some(wanted) = self.open.remove(&number) else { continue };
                    match answer {
                        Ok(answer) => {
                            end = End::Broken;
                            self.answered(wanted, answer).await;
                        }
                        Err(why) => {
                            self.tell(&why);
                            let _ = self.happened.send(Event::Failed(wanted.attempt)).await;
                        }
                    }
                }
                () = sleep_until(heard + patience) => {
                    if self.open.is_empty() {
                        return End::Idle;
                    }
                    self.open.retain(|_, wanted| wanted.is_wanted());
                    if end == End::Useless || !self.open.is_empty() {
                        return End::Broken;
                    }
                }
            }
        }
    }

    async fn answered(&mut self, wanted: Wanted, answer: Answer) {
        if self.trouble.take().is_some() {
            tracing::info!(upstream = %self.to, "a resolver answers again");
        }
        let asked = wanted.message.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
        let event = match numbered(&answer.message, asked) {
            Some(message) => Event::Arrived { attempt: wanted.attempt, message, age: answer.age },
            None => Event::Failed(wanted.attempt),
        };
        let _ = self.happened.send(event).await;
    }
}

/// What an upstream answered.
struct Answer {
    message: Vec<u8>,
    /// For how many seconds somebody on the way has kept it.
    age: u32,
}

/// A question's number in this connection, and what came of it: an answer, or why there is none.
type Answered = (u16, Result<Answer, String>);

/// A connection while it lasts; questions have numbers of ours in it, as those of askers may meet.
struct Connection {
    questions: mpsc::Sender<(u16, Vec<u8>)>,
    /// Ends with the connection.
    answers: mpsc::Receiver<Answered>,
    _tasks: JoinSet<()>,
}

impl Connection {
    async fn make(trust: &Trust, to: &Upstream) -> io::Result<Self> {
        let stream = trust.connect(to).await?;
        let (questions, asked) = mpsc::channel(PIPELINE);
        let (answered, answers) = mpsc::channel(PIPELINE);
        let mut tasks = JoinSet::new();
        match &to.protocol {
            UpstreamProtocol::Https { path, .. } => {
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("it does not speak HTTP/2"));
                }
                // What servers would tell without being asked is of no use here.
                let handshake =
                    h2::client::Builder::new().enable_push(false).initial_max_send_streams(PIPELINE).handshake(stream);
                let (sender, driver) = handshake.await.map_err(io::Error::other)?;
                tasks.spawn_local(by_https(sender, driver, url(to, path), asked, answered));
            }
            UpstreamProtocol::Plain | UpstreamProtocol::Tls { .. } => {
                let (reading, writing) = split(stream);
                tasks.spawn_local(async move {
                    tokio::select! {
                        () = write(writing, asked) => {}
                        () = read(reading, answered) => {}
                    }
                });
            }
        }
        Ok(Self { questions, answers, _tasks: tasks })
    }
}

/// Ends when nothing more can be written.
async fn write(mut to: WriteHalf<TlsStream<TcpStream>>, mut asked: mpsc::Receiver<(u16, Vec<u8>)>) {
    while let Some((number, message)) = asked.recv().await {
        let Some(framed) = numbered(&message, number).and_then(|message| tcp::framed(&message)) else { continue };
        if to.write_all(&framed).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Ends when nothing more can be read.
async fn read(mut from: ReadHalf<TlsStream<TcpStream>>, answered: mpsc::Sender<Answered>) {
    while let Ok(message) = tcp::message(&mut from).await {
        let Some(number) = message.first_chunk().map(|number| u16::from_be_bytes(*number)) else { return };
        if answered.send((number, Ok(Answer { message, age: 0 }))).await.is_err() {
            return;
        }
    }
}

/// Ends when nothing more can be asked, and what was answered until then is handed on.
async fn by_https(
    sender: SendRequest<Bytes>,
    driver: impl Future<Output = Result<(), h2::Error>>,
    url: String,
    mut asked: mpsc::Receiver<(u16, Vec<u8>)>,
    answered: mpsc::Sender<Answered>,
) {
    let mut open = JoinSet::new();
    let (mut driver, mut driven) = (pin!(driver), true);
    let mut end = pin!(sleep(Duration::MAX));
    let mut is_open = true;
    loop {
        if !is_open && open.is_empty() {
            return;
        }
        tokio::select! {
            _ = &mut driver, if driven => (driven, is_open) = (false, false),
            () = &mut end, if !is_open && driven => return,
            question = asked.recv(), if is_open => {
                let Some((number, message)) = question else { return };
                let (sender, url) = (sender.clone(), url.clone());
                open.spawn_local(async move { (number, timeout(GIVE_UP, post(sender, &url, &message)).await) });
            }
            Some(Ok((number, came))) = open.join_next() => {
                let came = match came {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(Unanswered::Refused(why))) => Err(why),
                    Ok(Err(Unanswered::Broken)) => {
                        if std::mem::replace(&mut is_open, false) {
                            end.as_mut().reset(Instant::now() + REST);
                        }
                        continue;
                    }
                    // Whoever asked it knows.
                    Err(_) => continue,
                };
                if answered.send((number, came)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Why a question over HTTPS has no answer.
enum Unanswered {
    /// The server does not want to.
    Refused(String),
    /// The connection cannot be used any more.
    Broken,
}

impl From<h2::Error> for Unanswered {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            // It was not looked at (RFC 9113 8.7).
            Some(h2::Reason::REFUSED_STREAM) => Self::Broken,
            // Of this stream alone.
            Some(reason) if error.is_reset() => Self::Refused(format!("it ends questions: {reason}")),
            _ => Self::Broken,
        }
    }
}

/// Asks by POST, which nobody on the way keeps (RFC 8484 4.1).
async fn post(sender: SendRequest<Bytes>, url: &str, message: &[u8]) -> Result<Answer, Unanswered> {
    let refused = |why: &str| Err(Unanswered::Refused(why.to_owned()));
    let Some(body) = numbered(message, 0) else { return refused("no message") };
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
    if !is_message(&head.headers) {
        return refused("it answers something else than DNS messages");
    }
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        if answer.len() + piece.len() > LONGEST {
            return refused("it answers more than a DNS message may have");
        }
        answer.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    let age = head.headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    Ok(Answer { message: answer, age: age.unwrap_or(0) })
}

/// By its media type, which is spelt in any letters and may have parameters (RFC 9110 8.3.1).
fn is_message(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MESSAGE))
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
