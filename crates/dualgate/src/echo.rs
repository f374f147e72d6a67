//! The echo backend: answers every HTTP request with what was asked, as JSON.
//!
//! It stands behind a gate, to see what an application would see: which path, which fields, which client, over which
//! family. It is hyper on purpose, so that what the gates say is read by somebody else's parser. It never answers for
//! a gate itself.

mod body;
mod knobs;
mod report;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use self::body::Body;
use self::knobs::{Form, Knobs};
use self::report::{Identity, Report};

/// How long a connection may be silent before a request's head has arrived.
const PATIENCE: Duration = Duration::from_secs(120);
/// Open connections of one listener.
const CONNECTIONS: usize = 4096;
const BACKLOG: i32 = 1024;

/// Listens on every address and answers, on tasks of the runtime that this is called in.
///
/// An address of a family that this machine does not have is left out, if another one is left.
pub async fn start(addresses: &[SocketAddr], name: &str) -> anyhow::Result<()> {
    let identity = Arc::new(Identity::from_environment(name));
    let mut listening = 0;
    for (number, address) in (1..).zip(addresses) {
        match listen(*address) {
            Ok(listener) => {
                listening += 1;
                let address = listener.local_addr().context("ask for the address of the echo backend")?;
                tracing::info!("the echo backend answers at http://{address}/");
                tokio::spawn(accept(listener, identity.clone()));
            }
            Err(error) if is_absent(&error) && (listening > 0 || number < addresses.len()) => {
                tracing::warn!(%address, %error, "the echo backend does not answer there");
            }
            Err(error) => return Err(error).with_context(|| format!("listen as echo backend on {address}")),
        }
    }
    Ok(())
}

/// Whether the address is none of this machine's, as `::1` without IPv6.
fn is_absent(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Each family has a socket of its own, so that `0.0.0.0` and `::` can both be had.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, identity: Arc<Identity>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer, identity.clone(), permit));
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
    /// Held until the connection, or the WebSocket that it became, has ended.
    _permit: OwnedSemaphorePermit,
}

async fn serve(stream: TcpStream, peer: SocketAddr, identity: Arc<Identity>, permit: OwnedSemaphorePermit) {
    let Ok(local) = stream.local_addr() else { return };
    // Which version is spoken is seen from the first octets; hyper waits for them without a limit.
    if !matches!(timeout(PATIENCE, stream.peek(&mut [0])).await, Ok(Ok(_))) {
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let connection = Arc::new(Connection { peer, local, identity, _permit: permit });
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
