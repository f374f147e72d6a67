//! A data plane with real sockets, backends whose every byte the test decides, and clients that say what they want.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod h2;
pub mod service;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dualgate_core::model::site::{EntryProtocol, ProxySettings, Reading};
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{Created, EntryPointName, GateName, ObjectName, Sockets};
use dualgate_core::plan::proxy::{Backend, BackendId, Listener, ProxyPlan, Scheme, Server, ServerAddress};
use dualgate_core::route::{
    Action, BackendIndex, EntryPointIndex, EntryPointSet, PathPattern, Route, RouteOrigin, RoutePart, Table,
};
use dualgate_core::seam::Actuator as _;
use dualgate_proxy::Proxy;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a test serves: one entry point, routes by host.
pub struct Plan {
    pub settings: ProxySettings,
    pub protocol: EntryProtocol,
    pub address: IpAddr,
    pub trusted: Vec<ipnet::IpNet>,
    pub forbidden: Vec<SocketAddr>,
    pub proxy_protocol: Vec<ipnet::IpNet>,
    pub certificates: Vec<dualgate_core::plan::proxy::Certificate>,
    pub sites: Vec<(String, Scheme, Vec<ServerAddress>)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            settings: ProxySettings::default(),
            protocol: EntryProtocol::Http,
            address: [127, 0, 0, 1].into(),
            trusted: Vec::new(),
            forbidden: Vec::new(),
            proxy_protocol: Vec::new(),
            certificates: Vec::new(),
            sites: Vec::new(),
        }
    }
}

impl Plan {
    /// Serves `host` from these servers.
    pub fn site(mut self, host: &str, servers: &[SocketAddr]) -> Self {
        let servers = servers.iter().map(|address| ServerAddress::Sockets(dual(*address))).collect();
        self.sites.push((host.to_owned(), Scheme::Http, servers));
        self
    }

    /// Serves `host` with another scheme or another kind of address.
    pub fn site_at(mut self, host: &str, scheme: Scheme, servers: Vec<ServerAddress>) -> Self {
        self.sites.push((host.to_owned(), scheme, servers));
        self
    }

    pub fn build(&self, port: u16, generation: u64) -> Arc<ProxyPlan> {
        let index = EntryPointIndex(0);
        let entry_points: EntryPointSet = [index].into_iter().collect();
        let listener = Listener {
            index,
            gate: GateName::Internal,
            entry_point: EntryPointName::new("web"),
            address: SocketAddr::new(self.address, port),
            protocol: self.protocol,
            address_may_be_absent: false,
            trusted: self.trusted.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
        };
        let (mut routes, mut backends) = (Vec::new(), Vec::new());
        for (number, (host, scheme, servers)) in self.sites.iter().enumerate() {
            routes.push(Route {
                host: host.parse().unwrap(),
                path: PathPattern::Prefix { written: "/".into() },
                entry_points,
                priority: None,
                origin: RouteOrigin {
                    created: Created::UNKNOWN,
                    ingress: ObjectName::new("apps", format!("i{number}")),
                    part: RoutePart::Path { rule: 0, path: 0 },
                    reading: Reading::Specification,
                    service: format!("s{number}").into(),
                },
                action: Action::Forward(BackendIndex(number as u32)),
            });
            let servers = servers.iter().enumerate();
            backends.push(Arc::new(Backend {
                id: BackendId { service: ObjectName::new("apps", format!("s{number}")), port: 80 },
                scheme: *scheme,
                pass_host: true,
                servers: servers.map(|(n, at)| Server { id: format!("pod{n}").into(), at: at.clone() }).collect(),
            }));
        }
        Arc::new(ProxyPlan {
            generation: Generation(generation),
            listeners: vec![listener],
            table: Arc::new(Table::new(routes.into_iter().map(Arc::new))),
            backends: backends.into_iter().collect(),
            certificates: self.certificates.iter().cloned().map(Arc::new).collect(),
            forwards: Vec::new(),
            settings: self.settings.clone(),
            forbidden: self.forbidden.as_slice().into(),
        })
    }
}

/// One address as what a server has.
pub fn dual(address: SocketAddr) -> Sockets {
    address.into()
}

/// A running data plane with one worker.
pub struct Gate {
    pub proxy: Proxy,
    pub address: SocketAddr,
    generation: u64,
}

impl Gate {
    pub async fn start(plan: &Plan) -> Self {
        Self::start_with(plan, 1).await
    }

    pub async fn start_with(plan: &Plan, workers: usize) -> Self {
        let mut proxy = Proxy::start(workers).unwrap();
        let port = free_port(plan.address);
        let desired = plan.build(port, 1);
        let changes = Proxy::diff(&proxy.observe().await.unwrap(), &desired);
        proxy.apply(&desired, &changes).await.unwrap();
        assert_eq!(proxy.findings(), [], "everything must be served");
        Self { proxy, address: SocketAddr::new(plan.address, port), generation: 1 }
    }

    pub async fn change(&mut self, plan: &Plan) {
        self.generation += 1;
        let desired = plan.build(self.address.port(), self.generation);
        let changes = Proxy::diff(&self.proxy.observe().await.unwrap(), &desired);
        self.proxy.apply(&desired, &changes).await.unwrap();
    }

    pub async fn client(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }
}

/// Waits until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("what was waited for did not happen");
}

/// A port that was free a moment ago.
pub fn free_port(address: IpAddr) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// A client that writes bytes and reads answers.
pub struct Client<S = TcpStream> {
    pub stream: S,
    read: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &str) -> &mut Self {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        self
    }

    /// One more answer, by its own framing.
    pub async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.read_answer()).await.expect("no answer in time")
    }

    /// A request, and its answer.
    pub async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await.answer().await
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    async fn read_answer(&mut self) -> Answer {
        let head = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
                break head;
            }
            assert!(self.more().await, "the connection ended within a head: {:?}", String::from_utf8_lossy(&self.read));
        };
        let answer = Answer { head, body: String::new() };
        let status = answer.status();
        let body = if status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if let Some(length) = answer.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.read.len() < length {
                assert!(self.more().await, "the connection ended within a body");
            }
            self.read.drain(..length).collect()
        } else if answer.field("transfer-encoding").is_some() {
            loop {
                if let Some(end) = find(&self.read, b"0\r\n\r\n") {
                    break self.read.drain(..end + 5).collect();
                }
                assert!(self.more().await, "the connection ended within chunks");
            }
        } else {
            while self.more().await {}
            std::mem::take(&mut self.read)
        };
        Answer { body: String::from_utf8_lossy(&body).into_owned(), ..answer }
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }

    /// All that still comes until the connection ends.
    pub async fn rest(&mut self) -> String {
        timeout(PATIENCE, async { while self.more().await {} }).await.expect("the connection stays open");
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A backend that answers every request with what it saw, over keep-alive connections.
pub struct Pod {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicU64>,
    /// How often a client's end was seen by [`Script::then_await_end`].
    pub ends: Arc<AtomicU64>,
    /// Octets that its scripts have sent.
    pub sent: Arc<AtomicU64>,
}

/// What a pod's connections count.
#[derive(Clone, Default)]
struct Counts {
    requests: Arc<AtomicU64>,
    ends: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

/// Anything that bytes go through.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

impl Pod {
    /// The answer's body is the request's head, as it arrived, after the pod's name.
    pub async fn start(name: &str) -> Self {
        Self::start_on([127, 0, 0, 1].into(), name).await
    }

    pub async fn start_on(address: IpAddr, name: &str) -> Self {
        let name = name.to_owned();
        Self::scripted_on(address, move |head, _| {
            let body = format!("{name}\n{head}");
            Script::reply(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        })
        .await
    }

    /// Answers each request as `script` says; it gets the head and how many requests there were before.
    pub async fn scripted(script: impl Fn(&str, u64) -> Script + Send + Sync + 'static) -> Self {
        Self::scripted_on([127, 0, 0, 1].into(), script).await
    }

    pub async fn scripted_on(address: IpAddr, script: impl Fn(&str, u64) -> Script + Send + Sync + 'static) -> Self {
        Self::listen(address, None, script).await
    }

    /// The same over TLS, with a certificate that nobody has signed.
    pub async fn tls(script: impl Fn(&str, u64) -> Script + Send + Sync + 'static) -> Self {
        Self::listen([127, 0, 0, 1].into(), Some(tls::acceptor(&tls::Made::new(&["pod.invalid"]))), script).await
    }

    async fn listen(
        address: IpAddr,
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&str, u64) -> Script + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counts, connections, script) = (Counts::default(), Arc::new(AtomicUsize::new(0)), Arc::new(script));
        let Counts { requests, ends, sent } = counts.clone();
        let pod = Self { address, connections: connections.clone(), requests, ends, sent };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (counts, script, tls) = (counts.clone(), script.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve_pod(stream, counts, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve_pod(stream, counts, script).await;
                            }
                        }
                    }
                });
            }
        });
        pod
    }
}

/// What a scripted pod does with a request.
#[derive(Clone, Default)]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    ReadBody,
    Wait(Duration),
    Close,
    HalfClose,
    AwaitOctets(usize),
    AwaitEnd,
    EchoForEver,
}

impl Script {
    pub fn reply(bytes: &str) -> Self {
        Self::default().then_body().then(bytes)
    }

    pub fn close() -> Self {
        Self { steps: vec![Step::Close] }
    }

    pub fn then(mut self, bytes: &str) -> Self {
        self.steps.push(Step::Send(bytes.as_bytes().to_vec()));
        self
    }

    pub fn then_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.steps.push(Step::Send(bytes));
        self
    }

    /// Reads the request's body, as its framing says.
    pub fn then_body(mut self) -> Self {
        self.steps.push(Step::ReadBody);
        self
    }

    pub fn then_wait(mut self, time: Duration) -> Self {
        self.steps.push(Step::Wait(time));
        self
    }

    pub fn then_close(mut self) -> Self {
        self.steps.push(Step::Close);
        self
    }

    /// Ends its own half.
    pub fn then_half_close(mut self) -> Self {
        self.steps.push(Step::HalfClose);
        self
    }

    /// Reads so many octets, or closes.
    pub fn then_await_octets(mut self, count: usize) -> Self {
        self.steps.push(Step::AwaitOctets(count));
        self
    }

    /// Reads until whoever asked has gone, and counts that.
    pub fn then_await_end(mut self) -> Self {
        self.steps.push(Step::AwaitEnd);
        self
    }

    /// Sends back every byte until the end.
    pub fn then_echo(mut self) -> Self {
        self.steps.push(Step::EchoForEver);
        self
    }
}

async fn serve_pod(
    mut stream: impl Wire,
    Counts { requests, ends, sent }: Counts,
    script: Arc<impl Fn(&str, u64) -> Script + Send + Sync>,
) {
    let mut read = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let end = loop {
            if let Some(end) = find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        let number = requests.fetch_add(1, Ordering::Relaxed);
        for step in script(&head, number).steps {
            match step {
                Step::Send(bytes) => {
                    for piece in bytes.chunks(64 * 1024) {
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    }
                    let _ = stream.flush().await;
                }
                Step::ReadBody => {
                    let lower = head.to_ascii_lowercase();
                    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    let complete = |read: &[u8]| match length {
                        Some(length) => (read.len() >= length).then_some(length),
                        None if lower.contains("transfer-encoding: chunked") => {
                            find(read, b"0\r\n\r\n").map(|at| at + 5)
                        }
                        None => Some(0),
                    };
                    let body = loop {
                        if let Some(length) = complete(&read) {
                            break length;
                        }
                        match stream.read(&mut buffer).await {
                            Ok(0) | Err(_) => return,
                            Ok(count) => read.extend_from_slice(&buffer[..count]),
                        }
                    };
                    read.drain(..body);
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Close => return drop(stream.shutdown().await),
                Step::HalfClose => drop(stream.shutdown().await),
                Step::AwaitOctets(count) => {
                    while read.len() < count {
                        match stream.read(&mut buffer).await {
                            Ok(0) | Err(_) => return,
                            Ok(count) => read.extend_from_slice(&buffer[..count]),
                        }
                    }
                }
                Step::AwaitEnd => {
                    while let Ok(1..) = stream.read(&mut buffer).await {}
                    ends.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Step::EchoForEver => {
                    if !read.is_empty() && stream.write_all(&read).await.is_err() {
                        return;
                    }
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..count]).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                    return drop(stream.shutdown().await);
                }
            }
        }
    }
}
