//! Services: a data plane that forwards, servers that say who they are, and what is counted.

use std::net::SocketAddr;
use std::sync::Arc;

use dualgate_core::model::object::TrafficPolicy;
use dualgate_core::model::site::ProxySettings;
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{ObjectName, Sockets};
use dualgate_core::plan::forward::{Forward, ForwardId, Transport};
use dualgate_core::plan::proxy::{ProxyPlan, Server, ServerAddress};
use dualgate_core::seam::Actuator as _;
use dualgate_proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Loopback addresses of each family.
pub const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// A data plane that forwards.
pub struct Forwarder {
    pub proxy: Proxy,
    pub settings: ProxySettings,
    generation: u64,
}

impl Forwarder {
    pub async fn start(forwards: &[Forward]) -> Self {
        Self::start_with(forwards, ProxySettings::default(), 1).await
    }

    pub async fn start_with(forwards: &[Forward], settings: ProxySettings, workers: usize) -> Self {
        let mut forwarder = Self { settings, ..Self::idle(workers) };
        forwarder.change(forwards).await;
        assert_eq!(forwarder.proxy.findings(), [], "everything must be served");
        forwarder
    }

    /// Serves nothing yet.
    pub fn idle(workers: usize) -> Self {
        Self { proxy: Proxy::start(workers).unwrap(), settings: ProxySettings::default(), generation: 0 }
    }

    pub fn plan(&mut self, forwards: &[Forward]) -> Arc<ProxyPlan> {
        self.generation += 1;
        Arc::new(ProxyPlan {
            generation: Generation(self.generation),
            forwards: forwards.to_vec(),
            settings: self.settings.clone(),
            ..ProxyPlan::default()
        })
    }

    /// Serves another plan.
    pub async fn change(&mut self, forwards: &[Forward]) {
        let desired = self.plan(forwards);
        let changes = Proxy::diff(&self.proxy.observe().await.unwrap(), &desired);
        self.proxy.apply(&desired, &changes).await.unwrap();
    }

    /// The sum of a metric's values over all label sets that have these parts.
    pub fn metric(&self, name: &str, parts: &[&str]) -> u64 {
        let mut text = String::new();
        self.proxy.view().write_metrics(&mut text);
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let fitting = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
        fitting.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// How many connections or datagrams got nowhere for this reason.
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric("dualgate_service_refused_total", &[&format!("reason=\"{reason}\"")])
    }

    pub fn active(&self) -> u64 {
        self.metric("dualgate_service_connections_active", &[])
    }
}

/// A port of the Service `apps/NAME`; its servers are named after their place in the list.
pub fn forward(name: &str, transport: Transport, listen: &[SocketAddr], servers: &[Sockets]) -> Forward {
    let server = |(number, at): (usize, &Sockets)| Server {
        id: format!("{name}-{number}").into(),
        at: ServerAddress::Sockets(*at),
    };
    Forward {
        id: ForwardId { service: ObjectName::new("apps", name), port: 7, transport },
        port_name: "".into(),
        listen: listen.to_vec(),
        servers: servers.iter().enumerate().map(server).collect(),
        policy: TrafficPolicy::Cluster,
        client_affinity: None,
        source_ranges: Vec::new(),
    }
}

/// An address with a port that was free a moment ago for both transports.
pub fn free(address: &str) -> SocketAddr {
    let address: SocketAddr = address.parse().unwrap();
    for _ in 0..100 {
        let tcp = std::net::TcpListener::bind(address).unwrap();
        let free = tcp.local_addr().unwrap();
        if std::net::UdpSocket::bind(free).is_ok() {
            return free;
        }
    }
    panic!("no port is free");
}

/// A server that says its name, then sends back what it gets, and ends when the client has.
pub async fn tcp_echo(address: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    address
}

/// Asks a server of [`tcp_echo`] for its name, and has `text` sent back.
pub async fn ask_tcp(address: SocketAddr, text: &str) -> std::io::Result<String> {
    ask_over(TcpStream::connect(address).await?, text).await
}

pub async fn ask_over(mut stream: TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.strip_suffix(text) {
        Some(name) => Ok(name.to_owned()),
        None => Err(std::io::Error::other(format!("`{answer}` does not end with `{text}`"))),
    }
}

/// A server that answers each datagram with its name and the datagram.
pub async fn udp_echo(address: &str, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut space = vec![0; 65_535];
        while let Ok((length, client)) = socket.recv_from(&mut space).await {
            let answer = [name.as_bytes(), &space[..length]].concat();
            let _ = socket.send_to(&answer, client).await;
        }
    });
    address
}
