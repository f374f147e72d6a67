//! What is asked of every candidate.

use super::backend::LARGE_PATH;

/// One kind of traffic.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for a person.
    pub about: &'static str,
    pub scheme: Scheme,
    pub client: Client,
    pub path: &'static str,
    /// Whether it runs when nobody names workloads.
    pub usual: bool,
}

/// How the client speaks to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Which program makes the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// HTTP/1.1, one request at a time on each connection.
    Wrk {
        connections: u32,
        /// A connection for each request.
        close: bool,
    },
    /// HTTP/2.
    H2load {
        connections: u32,
        /// Requests at a time on each connection.
        streams: u32,
    },
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Every workload.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "h1",
        about: "HTTP/1.1, 64 connections kept open, 1 KiB",
        scheme: Scheme::Http,
        client: Client::Wrk { connections: 64, close: false },
        path: "/",
        usual: true,
    },
    Workload {
        name: "tls",
        about: "HTTP/1.1 over TLS 1.3, 64 connections kept open, 1 KiB",
        scheme: Scheme::Https,
        client: Client::Wrk { connections: 64, close: false },
        path: "/",
        usual: true,
    },
    Workload {
        name: "h2",
        about: "HTTP/2 over TLS 1.3, 16 connections with 16 streams, 1 KiB",
        scheme: Scheme::Https,
        client: Client::H2load { connections: 16, streams: 16 },
        path: "/",
        usual: true,
    },
    Workload {
        name: "h1-256",
        about: "HTTP/1.1, 256 connections kept open, 1 KiB",
        scheme: Scheme::Http,
        client: Client::Wrk { connections: 256, close: false },
        path: "/",
        usual: false,
    },
    Workload {
        name: "handshake",
        about: "a TLS 1.3 connection for each request, 16 at a time, 1 KiB",
        scheme: Scheme::Https,
        client: Client::Wrk { connections: 16, close: true },
        path: "/",
        usual: false,
    },
    Workload {
        name: "large",
        about: "HTTP/1.1, 16 connections kept open, 1 MiB",
        scheme: Scheme::Http,
        client: Client::Wrk { connections: 16, close: false },
        path: LARGE_PATH,
        usual: false,
    },
    Workload {
        name: "large-tls",
        about: "HTTP/1.1 over TLS 1.3, 16 connections kept open, 1 MiB",
        scheme: Scheme::Https,
        client: Client::Wrk { connections: 16, close: false },
        path: LARGE_PATH,
        usual: false,
    },
];
