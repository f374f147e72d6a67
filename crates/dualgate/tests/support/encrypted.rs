//! A resolver that is spoken to encrypted.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Issued;
use super::pod::runtime;
use super::resolver::answer;

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS, at `/dns-query`.
    Https,
}

/// Answers as [`super::resolver::Upstream`] does; names that begin with `slow` once somebody asked for one that does not, and
/// those that begin with `never` never, with `tardy` after 2.5 s. Dropped, it is gone with all its connections.
pub struct Encrypted {
    /// Where it is.
    pub address: SocketAddr,
    kind: Kind,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    connections: AtomicUsize,
    /// The lengths of the questions.
    asked: Mutex<Vec<usize>>,
    /// Connections of another number than this one end.
    era: watch::Sender<usize>,
    /// So many of the first connections are not answered any more.
    deaf: AtomicUsize,
    /// Whether connections end after one answer.
    once: AtomicBool,
    /// How many names that are not slow were asked for.
    quick: watch::Sender<usize>,
}

impl Encrypted {
    /// With this certificate.
    pub fn start(kind: Kind, issued: &Issued) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            asked: Mutex::default(),
            era: watch::channel(0).0,
            deaf: AtomicUsize::new(0),
            once: AtomicBool::new(false),
            quick: watch::channel(0).0,
        });
        let task = runtime().spawn(accept(listener, acceptor(kind, issued), kind, shared.clone()));
        Self { address, kind, shared, task }
    }

    /// As the site file names it.
    pub fn url(&self, name: &str) -> String {
        match self.kind {
            Kind::Tls => format!("tls://{}#{name}", self.address),
            Kind::Https => format!("https://{}/dns-query#{name}", self.address),
        }
    }

    /// How many connections have shown a client who we are, and were believed.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }

    /// The lengths of all questions.
    pub fn asked(&self) -> Vec<usize> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Answers nothing any more in the connections that there are, and does not end them either.
    pub fn grow_deaf(&self) {
        self.shared.deaf.store(self.connections(), Relaxed);
    }

    /// Takes one question for each connection from now on.
    pub fn answer_once(&self) {
        self.shared.once.store(true, Relaxed);
    }

    /// Ends all connections; others can be made.
    pub fn close_connections(&self) {
        self.shared.era.send_modify(|era| *era += 1);
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.task.abort();
        self.close_connections();
    }
}

fn acceptor(kind: Kind, issued: &Issued) -> TlsAcceptor {
    let chain = vec![CertificateDer::from(issued.der.clone())];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    if kind == Kind::Https {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: StdListener, tls: TlsAcceptor, kind: Kind, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            let mut era = shared.era.subscribe();
            era.mark_unchanged();
            let Ok(stream) = tls.accept(stream).await else { return };
            tokio::select! {
                () = serve(stream, kind, shared) => {}
                _ = era.changed() => {}
            }
        });
    }
}

async fn serve(stream: TlsStream<TcpStream>, kind: Kind, shared: Arc<Shared>) {
    match kind {
        Kind::Tls => by_tls(stream, shared).await,
        Kind::Https => {
            let connection = shared.connections.fetch_add(1, Relaxed);
            let (answered, once) = (Arc::new(Notify::new()), shared.once.load(Relaxed));
            let asked = answered.clone();
            let service = service_fn(move |request| {
                asked.notify_one();
                by_https(request, connection, shared.clone())
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
            // What a client does with its connection is its own affair.
            tokio::select! {
                _ = serving.as_mut() => {}
                () = answered.notified(), if once => {
                    serving.as_mut().graceful_shutdown();
                    let _ = serving.await;
                }
            }
        }
    }
}

async fn by_tls(stream: TlsStream<TcpStream>, shared: Arc<Shared>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(64);
    tokio::spawn(async move {
        while let Some(answer) = ready.recv().await {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            if writing.write_all(&[&length[..], &answer].concat()).await.is_err() || writing.flush().await.is_err() {
                return;
            }
        }
    });
    let mut connection = None;
    while let Ok(length) = reading.read_u16().await {
        // Who does not believe a certificate says so after the handshake of this side, and asks nothing.
        let connection = *connection.get_or_insert_with(|| shared.connections.fetch_add(1, Relaxed));
        let mut question = vec![0; length.into()];
        if reading.read_exact(&mut question).await.is_err() {
            return;
        }
        let (shared, answers) = (shared.clone(), answers.clone());
        tokio::spawn(async move {
            let _ = answers.send(shared.answer(connection, &question).await).await;
        });
    }
}

async fn by_https(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_right = request.method() == Method::POST
        && request.uri().path() == "/dns-query"
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/dns-message");
    let question = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::default());
    if !is_right || question.len() < 17 {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    assert_eq!(question[..2], [0, 0], "RFC 8484 4.1: the same question is the same octets");
    *response.body_mut() = Full::from(shared.answer(connection, &question).await);
    response.headers_mut().insert(CONTENT_TYPE, "Application/DNS-Message; charset=none".parse().unwrap());
    Ok(response)
}

impl Shared {
    async fn answer(&self, connection: usize, question: &[u8]) -> Vec<u8> {
        self.asked.lock().unwrap().push(question.len());
        let is_never = question[13..].to_ascii_lowercase().starts_with(b"never");
        if is_never || connection < self.deaf.load(Relaxed) {
            return std::future::pending().await;
        }
        if question[13..].to_ascii_lowercase().starts_with(b"tardy") {
            tokio::time::sleep(Duration::from_millis(2500)).await;
        } else if question[13..].to_ascii_lowercase().starts_with(b"slow") {
            let _ = self.quick.subscribe().wait_for(|quick| *quick > 0).await;
        } else {
            self.quick.send_modify(|quick| *quick += 1);
        }
        answer(question, false)
    }
}
