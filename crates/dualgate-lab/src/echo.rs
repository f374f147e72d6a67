//! The echo backend: answers every HTTP request with what was asked, as JSON.
//!
//! It stands behind a gate, to see what an application would see: which path, which fields, which client, over which
//! family. It is every pod of a lab, and `dualgate echo`. It is hyper on purpose, so that what the gates say is read by
//! somebody else's parser. It never answers for a gate itself.

mod body;
mod identity;
mod knobs;
mod report;
mod websocket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::body::Body;
pub use self::identity::Identity;
use self::knobs::{Form, Knobs};
use self::report::Report;

/// How long a connection may be silent before a request's head has arrived.
const PATIENCE: Duration = Duration::from_secs(120);
/// Open connections of one listener.
const CONNECTIONS: usize = 4096;
const BACKLOG: i32 = 1024;

/// Why an echo backend does not answer.
#[derive(Debug, thiserror::Error)]
pub enum EchoError {
    /// Its address cannot be had.
    #[error("listen as echo backend on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A listener cannot be used.
    #[error("use a listener of the echo backend")]
    Listener(#[source] io::Error),
}

/// Listens on every address and answers as `name`, or as the environment says.
///
/// An address of a family that this machine does not have is left out, if another one is left. Call it in a runtime.
pub fn start(addresses: &[SocketAddr], name: &str) -> Result<Backend, EchoError> {
    let backend = Backend::new(Identity::from_environment(name));
    let mut listening = 0;
    for (number, &address) in (1..).zip(addresses) {
        match listen(address) {
            Ok(listener) => {
                listening += 1;
                let address = backend.serve(listener.into())?;
                tracing::info!("the echo backend answers at http://{address}/");
            }
            Err(error) if is_absent(&error) && (listening > 0 || number < addresses.len()) => {
                tracing::warn!(%address, %error, "the echo backend does not answer there");
            }
            Err(source) => return Err(EchoError::Listen { address, source }),
        }
    }
    Ok(backend)
}

/// Whether the address is none of this machine's, as `::1` without IPv6.
fn is_absent(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Each family has a socket of its own, so that `0.0.0.0` and `::` can both be had.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A backend. Dropping it ends its listeners, its connections and its WebSockets, in the middle of an answer if need be, as
/// the end of a pod does.
#[derive(Debug)]
#[must_use = "the backend stops when this is dropped"]
pub struct Backend {
    identity: Arc<Identity>,
    stop: watch::Sender<()>,
}

impl Backend {
    /// One that answers nowhere yet.
    pub fn new(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), stop: watch::Sender::new(()) }
    }

    /// Answers on a listener that somebody opened, maybe in another network namespace; on tasks of the runtime that this
    /// is called in. The address of the listener comes back.
    pub fn serve(&self, listener: std::net::TcpListener) -> Result<SocketAddr, EchoError> {
        let usable = || {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((TcpListener::from_std(listener)?, address))
        };
        let (listener, address) = usable().map_err(EchoError::Listener)?;
        let stopped = Stopped(self.stop.subscribe());
        tokio::spawn(stopped.clone().or(accept(listener, self.identity.clone(), stopped)));
        Ok(address)
    }
}

/// Ends when the backend does.
#[derive(Clone)]
struct Stopped(watch::Receiver<()>);

impl Stopped {
    /// Does the work until the backend ends.
    async fn or(mut self, work: impl Future<Output = ()>) {
        tokio::select! {
            // Nothing is ever sent: it changes when the sender is gone.
            _ = self.0.changed() => {}
            () = work => {}
        }
    }
}

async fn accept(listener: TcpListener, identity: Arc<Identity>, stopped: Stopped) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let of_connection = stopped.clone();
                tokio::spawn(stopped.clone().or(serve(stream, peer, identity.clone(), permit, of_connection)));
            }
            Err(error) => {
                // The usual reason is that there are no descriptors left: some will be given back.
                tracing::debug!(%error, "accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What is known of a connection.
struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    identity: Arc<Identity>,
    stopped: Stopped,
    /// Held until the connection, or the WebSocket that it became, has ended.
    _permit: OwnedSemaphorePermit,
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    identity: Arc<Identity>,
    permit: OwnedSemaphorePermit,
    stopped: Stopped,
) {
    let Ok(local) = stream.local_addr() else { return };
    // Which version is spoken is seen from the first octets; hyper waits for them without a limit.
    if !matches!(timeout(PATIENCE, stream.peek(&mut [0])).await, Ok(Ok(_))) {
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let connection = Arc::new(Connection { peer, local, identity, stopped, _permit: permit });
    let service = service_fn(move |request| answer(request, connection.clone()));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(PATIENCE);
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, %error, "echo connection ended");
    }
}

/// Answers one request. An error here is one of the request's body, and ends the connection.
async fn answer(mut request: Request<Incoming>, connection: Arc<Connection>) -> Result<Response<Body>, hyper::Error> {
    let knobs = match Knobs::parse(request.uri().query().unwrap_or_default()) {
        Ok(knobs) => knobs,
        Err(why) => return Ok(mistake(&why)),
    };
    if websocket::is_asked_for(&request) {
        return Ok(match websocket::accept(&mut request, connection) {
            Ok(response) => response,
            Err(why) => mistake(why),
        });
    }
    let body = report::read(request.body_mut()).await?;
    sleep(knobs.delay).await;
    let (content_type, content) = match knobs.form {
        Form::Report => ("application/json", Body::whole(Report::of(&request, &connection, body).to_json())),
        Form::Size(octets) => ("application/octet-stream", Body::filler(octets)),
        Form::Stream(chunks) => ("text/plain; charset=utf-8", Body::chunks(chunks)),
    };
    Ok(response(knobs.status, content_type, content))
}

fn mistake(why: &str) -> Response<Body> {
    let content = serde_json::json!({ "error": why });
    response(StatusCode::BAD_REQUEST, "application/json", Body::whole(format!("{content:#}\n").into()))
}

fn response(status: StatusCode, content_type: &'static str, content: Body) -> Response<Body> {
    let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(if has_content { content } else { Body::default() });
    *response.status_mut() = status;
    if has_content {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(DEADLINE, work).await.expect("within the deadline") })
    }

    fn listener() -> std::net::TcpListener {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap()
    }

    async fn connect(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Reads until `end` was read.
    async fn read_to(stream: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let octet = stream.read_u8().await.expect("an answer");
            text.push(char::from(octet));
        }
        text
    }

    #[test]
    fn a_pod_says_who_and_where_it_is_on_each_of_its_ports() {
        in_a_runtime(async {
            let identity = Identity {
                pod: "grafana-1".into(),
                namespace: Some("apps".into()),
                ingress: None,
                services: vec!["grafana".into(), "grafana-headless".into()],
                node: Some("k3s-node1".into()),
                addresses: vec!["10.42.0.2".parse().unwrap(), "fd01::2".parse().unwrap()],
            };
            let backend = Backend::new(identity);
            for _ in 0..2 {
                let address = backend.serve(listener()).unwrap();
                let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Real-Ip: fd00::5\r\nConnection: close\r\n\r\n";
                let mut stream = connect(address, request).await;
                let peer = stream.local_addr().unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let (_, body) = answer.split_once("\r\n\r\n").unwrap();
                let report: serde_json::Value = serde_json::from_str(body).unwrap();
                let expected = json!({
                    "path": "/", "host": "a", "method": "GET", "proto": "HTTP/1.1",
                    "headers": {"connection": ["close"], "host": ["a"], "x-real-ip": ["fd00::5"]},
                    "pod": "grafana-1", "namespace": "apps", "service": "grafana, grafana-headless", "node": "k3s-node1",
                    "addresses": ["10.42.0.2", "fd01::2"],
                    "peer": peer.to_string(), "local": address.to_string(), "client": "fd00::5",
                });
                assert_eq!(report, expected);
            }
        });
    }

    #[test]
    fn a_dropped_backend_ends_kept_connections_websockets_and_answers_under_way() {
        in_a_runtime(async {
            let backend = Backend::new(Identity::new("pod"));
            let address = backend.serve(listener()).unwrap();
            let mut kept = connect(address, "GET /?status=204 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            read_to(&mut kept, "\r\n\r\n").await;
            let mut websocket = connect(
                address,
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
            read_to(&mut websocket, "\r\n\r\n").await;
            // RFC 6455 5.7: a masked `Hello`.
            let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
            websocket.write_all(&hello).await.unwrap();
            read_to(&mut websocket, "Hello").await;
            let mut streaming = connect(address, "GET /?stream=300 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            read_to(&mut streaming, "chunk 1 of 300\n\r\n").await;
            drop(backend);
            for mut stream in [kept, websocket, streaming] {
                let mut rest = Vec::new();
                // Either end is one: an octet that nobody had read makes it a reset.
                let _ = stream.read_to_end(&mut rest).await;
                assert!(!String::from_utf8_lossy(&rest).contains("300 of 300"), "it was cut");
            }
            let mut refused = TcpStream::connect(address).await;
            // The listener's task ends when the runtime next looks at it.
            while let Ok(mut stream) = refused {
                let _ = stream.read_u8().await;
                refused = TcpStream::connect(address).await;
            }
        });
    }
}
