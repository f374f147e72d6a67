//! Backends on loopback that say who they are and what they saw.
//!
//! They are hyper's servers, so that what a gate sends is read by somebody else's parser.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Interval;
use tokio_rustls::TlsAcceptor;

/// How much of a download is sent at once.
const PIECE: usize = 32 * 1024;

/// What a pod saw of a request: the body of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Who answers.
    pub pod: String,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The Host field.
    pub host: String,
    /// How long the body was.
    pub length: u64,
}

/// A backend.
///
/// It answers everything at once, but `/-/hold` only when it is told to, and `/-/download/OCTETS/MILLISECONDS` with so
/// many octets, spread over so much time.
pub struct Pod {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    name: String,
    /// How many requests are held back.
    held: watch::Sender<u32>,
    released: watch::Sender<bool>,
}

impl Pod {
    /// One that listens on these addresses, each with a port of its own.
    pub fn start(name: &str, addresses: &[IpAddr]) -> Self {
        Self::start_with(name, addresses, None)
    }

    /// The same with TLS.
    pub fn start_tls(name: &str, addresses: &[IpAddr]) -> Self {
        Self::start_with(name, addresses, Some(acceptor()))
    }

    fn start_with(name: &str, addresses: &[IpAddr], tls: Option<TlsAcceptor>) -> Self {
        let shared = Shared { name: name.to_owned(), held: watch::channel(0).0, released: watch::channel(false).0 };
        let shared = Arc::new(shared);
        let listen = |address: &IpAddr| {
            let socket = Socket::new(Domain::for_address((*address, 0).into()), Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(*address, 0).into()).unwrap();
            // Hundreds of connections at once wait for their turn; a shorter queue would make them try again.
            socket.listen(4096).unwrap();
            socket.set_nonblocking(true).unwrap();
            let listener = std::net::TcpListener::from(socket);
            (listener.local_addr().unwrap(), runtime().spawn(accept(listener, tls.clone(), shared.clone())))
        };
        let (addresses, tasks) = addresses.iter().map(listen).unzip();
        Self { addresses, shared, tasks }
    }

    /// As `dualgate.dev/endpoints` names one server.
    pub fn endpoint(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
    }

    /// Waits until `count` requests are held back.
    pub fn wait_until_held(&self, count: u32) {
        let mut held = self.shared.held.subscribe();
        let (done, arrived) = std::sync::mpsc::sync_channel(1);
        runtime().spawn(async move {
            let _ = held.wait_for(|held| *held >= count).await;
            let _ = done.send(());
        });
        arrived.recv_timeout(super::PATIENCE).expect("the request did not arrive at the pod");
    }

    /// Answers what is held back, and no longer holds anything.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One thread serves all pods of a process.
pub(super) fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

fn acceptor() -> TlsAcceptor {
    static ACCEPTOR: OnceLock<TlsAcceptor> = OnceLock::new();
    let make = || {
        let issued = rcgen::generate_simple_self_signed(vec!["pod.invalid".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    };
    ACCEPTOR.get_or_init(make).clone()
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, shared.clone()));
            let server = auto::Builder::new(TokioExecutor::new());
            // What a client does with its connection is its own affair.
            let _ = match tls {
                None => server.serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
            };
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Content>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let mut content = None;
    if target == "/-/hold" {
        shared.held.send_modify(|held| *held += 1);
        let _ = shared.released.subscribe().wait_for(|released| *released).await;
    } else if let Some(download) = target.strip_prefix("/-/download/") {
        let (octets, time) = download.split_once('/').unwrap_or((download, "0"));
        let time = Duration::from_millis(time.parse().unwrap_or(0));
        content = Some(Content::paced(octets.parse().unwrap_or(0), time));
    }
    let host = head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let host = host.or_else(|| head.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let seen = Seen { pod: shared.name.clone(), method: head.method.to_string(), target, host, length };
    let content = content.unwrap_or_else(|| Content::Whole(Some(serde_json::to_vec(&seen).unwrap().into())));
    let mut response = Response::new(content);
    response.headers_mut().insert("x-pod", HeaderValue::from_str(&shared.name).unwrap());
    Ok(response)
}

/// The content of an answer.
enum Content {
    /// All at once.
    Whole(Option<Bytes>),
    /// So many octets, a piece at each tick.
    Paced { left: usize, ticks: Option<Pin<Box<Interval>>> },
}

impl Content {
    fn paced(octets: usize, time: Duration) -> Self {
        let pieces = octets.div_ceil(PIECE);
        let tick = time.checked_div(u32::try_from(pieces).unwrap_or(u32::MAX)).unwrap_or_default();
        let ticks = (!tick.is_zero()).then(|| Box::pin(tokio::time::interval(tick)));
        Self::Paced { left: octets, ticks }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Paced { left: 0, .. } => Poll::Ready(None),
            Self::Paced { left, ticks } => {
                if let Some(ticks) = ticks {
                    ready!(ticks.poll_tick(cx));
                }
                // However much is asked for, one piece of memory holds it.
                static FILLER: [u8; PIECE] = [b'x'; PIECE];
                let now = (*left).min(PIECE);
                *left -= now;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FILLER[..now])))))
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Paced { left, .. } => hyper::body::SizeHint::with_exact(*left as u64),
        }
    }
}
