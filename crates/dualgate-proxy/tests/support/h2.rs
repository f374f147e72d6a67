//! HTTP/2 for tests: the `h2` crate as client and as pod, and frames by hand for what no library would send.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Gate, PATIENCE};

/// A client's connection.
pub struct H2Client {
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A complete answer.
#[derive(Debug)]
pub struct H2Answer {
    pub status: u16,
    pub head: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl H2Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.get(name)?.to_str().ok()
    }
}

impl Gate {
    /// With prior knowledge.
    pub async fn h2(&self) -> H2Client {
        H2Client::over(TcpStream::connect(self.address).await.unwrap(), h2::client::Builder::new()).await
    }
}

impl H2Client {
    pub async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        builder: h2::client::Builder,
    ) -> Self {
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Sends a head; the body, if it does not end here, through the stream.
    pub async fn send(&mut self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        poll_fn(|cx| self.sender.poll_ready(cx)).await.unwrap();
        self.sender.send_request(request, end).unwrap()
    }

    pub async fn try_ask(&mut self, request: Request<()>) -> Result<H2Answer, h2::Error> {
        let (answer, _) = self.send(request, true).await;
        read(answer).await
    }

    pub async fn ask(&mut self, request: Request<()>) -> H2Answer {
        self.try_ask(request).await.unwrap()
    }

    pub async fn get(&mut self, host: &str, path: &str) -> H2Answer {
        self.ask(request(Method::GET, host, path)).await
    }

    /// A request with a body, and its answer.
    pub async fn post(&mut self, request: Request<()>, body: &[u8]) -> Result<H2Answer, h2::Error> {
        let (answer, mut stream) = self.send(request, false).await;
        let body = Bytes::copy_from_slice(body);
        let upload = async move {
            upload(&mut stream, body).await;
            let _ = stream.send_data(Bytes::new(), true);
        };
        tokio::join!(upload, read(answer)).1
    }
}

pub fn request(method: Method, host: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://{host}{path}")).body(()).unwrap()
}

/// Sends as much as the peer takes.
pub async fn upload(stream: &mut SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(capacity)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        if stream.send_data(body.split_to(capacity.min(body.len())), false).is_err() {
            return;
        }
    }
}

/// The whole answer.
pub async fn read(answer: ResponseFuture) -> Result<H2Answer, h2::Error> {
    timeout(PATIENCE, async {
        let (head, mut stream) = answer.await?.into_parts();
        let (body, trailers) = read_body(&mut stream).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(H2Answer { status: head.status.as_u16(), head: head.headers, body, trailers })
    })
    .await
    .expect("no answer in time")
}

async fn read_body(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?))
}

/// A pod that speaks HTTP/2 with prior knowledge. What it does is in the path: see `serve`.
pub struct H2Pod {
    pub address: std::net::SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicU64>,
    /// Requests that were reset while they hung.
    pub ends: Arc<AtomicU64>,
}

impl H2Pod {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pod = Self { address, connections: Arc::default(), requests: Arc::default(), ends: Arc::default() };
        let (connections, requests, ends) = (pod.connections.clone(), pod.requests.clone(), pod.ends.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (requests, ends) = (requests.clone(), ends.clone());
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        requests.fetch_add(1, Ordering::Relaxed);
                        if request.uri().path() == "/leave" {
                            return;
                        }
                        tokio::spawn(serve(request, respond, ends.clone()));
                    }
                });
            }
        });
        pod
    }
}

async fn serve(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>, ends: Arc<AtomicU64>) {
    let (head, mut stream) = request.into_parts();
    let response = |status: u16| Response::builder().status(status).body(()).unwrap();
    match head.uri.path() {
        "/hang" => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
            ends.fetch_add(1, Ordering::Relaxed);
        }
        "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "/refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        "/204" => {
            let mut stream = respond.send_response(response(204), false).unwrap();
            let _ = stream.send_data(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n"), true);
        }
        "/announced" => {
            let mut response = response(200);
            response.headers_mut().insert("content-length", "2".parse().unwrap());
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from_static(b"ok"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
        "/trailers-only" => {
            let mut response = response(200);
            response.headers_mut().insert("grpc-status", "5".parse().unwrap());
            respond.send_response(response, true).unwrap();
        }
        path => {
            if path == "/hint" {
                let mut hint = response(103);
                hint.headers_mut().insert("link", "<x>".parse().unwrap());
                respond.send_informational(hint).unwrap();
            }
            if head.headers.contains_key("expect") {
                respond.send_informational(response(100)).unwrap();
            }
            let Ok((body, trailers)) = read_body(&mut stream).await else { return };
            let mut told = format!("{} {}\n", head.method, head.uri).into_bytes();
            for (name, value) in head.headers.iter().chain(trailers.iter().flatten()) {
                told.extend_from_slice(format!("{name}: {}\n", value.to_str().unwrap()).as_bytes());
            }
            told.extend_from_slice(&body);
            let mut stream = respond.send_response(response(200), false).unwrap();
            upload(&mut stream, told.into()).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = stream.send_trailers(trailers);
        }
    }
}

/// Kinds of frames (RFC 9113 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Their flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A block of fields in the plainest form of HPACK: nothing indexed, nothing compressed, nothing checked.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), 7, 0, &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of so many bits (RFC 7541 5.1).
pub fn integer(mut value: usize, bits: u8, first: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    value -= most;
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What every request needs.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")];

/// A client that sends frames by hand.
pub struct RawClient {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A frame that arrived.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of RST_STREAM and GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl RawClient {
    /// Has said its preface and empty settings.
    pub async fn connect(gate: &Gate) -> Self {
        let mut client = Self { stream: TcpStream::connect(gate.address).await.unwrap(), read: Vec::new() };
        client.stream.set_nodelay(true).unwrap();
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        client
    }

    /// Sends; whether the connection still took it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` at the end.
    pub async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, async {
            loop {
                if let Some(length) = self.complete() {
                    let mut frame: Vec<u8> = self.read.drain(..length).collect();
                    let payload = frame.split_off(9);
                    let stream = u32::from_be_bytes(frame[5..9].try_into().unwrap());
                    return Some(Frame { kind: frame[3], flags: frame[4], stream, payload });
                }
                let mut buffer = [0; 64 * 1024];
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                }
            }
        })
        .await
        .expect("no frame in time")
    }

    fn complete(&self) -> Option<usize> {
        let head = self.read.get(..9)?;
        let length = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        (self.read.len() >= length).then_some(length)
    }

    /// All frames of these kinds until the end.
    pub async fn rest(&mut self, kinds: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            if kinds.contains(&frame.kind) {
                frames.push(frame);
            }
        }
        frames
    }

    /// The first frame of one of these kinds.
    pub async fn first(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            match self.frame().await {
                Some(frame) if kinds.contains(&frame.kind) => return Some(frame),
                Some(_) => {}
                None => return None,
            }
        }
    }
}
