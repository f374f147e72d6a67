//! What connections cost while they wait: a buffer is there only while there is something in it.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::Method;
use support::h2::{H2Client, request};
use support::{Gate, Plan, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The memory is that of the process, so one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const CONNECTIONS: usize = 300;
const KIB: usize = 1024;

/// Resident memory of this process, in octets.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * KIB
}

/// A pod that needs next to no memory itself; it counts the requests.
async fn pod(serve: fn(&str) -> Then) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = [0; KIB];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                counted.fetch_add(1, Relaxed);
                match serve(&String::from_utf8_lossy(&buffer[..count])) {
                    Then::Wait => while let Ok(1..) = stream.read(&mut buffer).await {},
                    Then::Echo => {
                        let upgraded = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
                        stream.write_all(upgraded).await.unwrap();
                        let (mut read, mut write) = stream.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    }
                    Then::Pour => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
                        // More than all buffers of the gate hold, and not more than the kernel likes to keep.
                        for _ in 0..24 {
                            let _ = stream.write_all(&[0; 16 * KIB]).await;
                        }
                        while let Ok(1..) = stream.read(&mut buffer).await {}
                    }
                }
            });
        }
    });
    (address, requests)
}

enum Then {
    Wait,
    Echo,
    Pour,
}

async fn connect(gate: &Gate, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

#[tokio::test]
async fn a_request_that_waits_for_its_pod_holds_no_buffer() {
    let _alone = ALONE.lock().await;
    let (address, requests) = pod(|_| Then::Wait).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[address])).await;
    let mut clients = Vec::new();
    let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", 300 * KIB);
    let request = [head.as_bytes(), &[b'x'; 300 * KIB]].concat();
    clients.push(connect(&gate, &request).await);
    until(|| requests.load(Relaxed) == 1).await;
    let before = resident();
    for _ in 0..CONNECTIONS {
        clients.push(connect(&gate, &request).await);
    }
    until(|| requests.load(Relaxed) == 1 + CONNECTIONS).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let each = resident().saturating_sub(before) / CONNECTIONS;
    assert!(each < 40 * KIB, "{each} octets each");
}

#[tokio::test]
async fn an_idle_connection_forgets_its_last_request() {
    let _alone = ALONE.lock().await;
    let gate = Gate::start(&Plan::default()).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "x".repeat(30 * KIB));
    let open = async || {
        let mut client = connect(&gate, request.as_bytes()).await;
        let mut answer = [0; KIB];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        client
    };
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open().await);
    }
    let before = resident();
    for _ in 0..CONNECTIONS {
        clients.push(open().await);
    }
    let each = resident().saturating_sub(before) / CONNECTIONS;
    assert!(each < 24 * KIB, "{each} octets each");
}

#[tokio::test]
async fn a_tunnel_that_is_silent_holds_no_buffer() {
    let _alone = ALONE.lock().await;
    let (address, _) = pod(|_| Then::Echo).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[address])).await;
    let message = Arc::new(vec![b'x'; 512 * KIB]);
    let open = async || {
        let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        let mut client = connect(&gate, request).await;
        let mut head = [0; 512];
        assert!(client.read(&mut head).await.unwrap() > 0);
        let (mut read, mut write) = client.split();
        let back = async {
            let mut piece = [0; 16 * KIB];
            let mut left = message.len();
            while left > 0 {
                left -= read.read(&mut piece).await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(write.write_all(&message), back);
        sent.unwrap();
        client
    };
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open().await);
    }
    let before = resident();
    for _ in 0..CONNECTIONS {
        clients.push(open().await);
    }
    let each = resident().saturating_sub(before) / CONNECTIONS;
    assert!(each < 36 * KIB, "{each} octets each");
}

/// The most that one client can make us keep: a hundred streams of large answers that it does not read.
#[tokio::test]
async fn a_client_with_a_hundred_unread_answers_costs_a_bounded_amount() {
    const CLIENTS: usize = 3;
    let _alone = ALONE.lock().await;
    let (address, requests) = pod(|_| Then::Pour).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[address])).await;
    let before = resident();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1);
        let stream = TcpStream::connect(gate.address).await.unwrap();
        let mut client = H2Client::over(stream, builder).await;
        let mut answers = Vec::new();
        for _ in 0..100 {
            answers.push(client.send(request(Method::GET, "a.example", "/"), true).await);
        }
        clients.push((client, answers));
    }
    until(|| requests.load(Relaxed) == 100 * CLIENTS).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let each = resident().saturating_sub(before) / CLIENTS;
    assert!(each < 8 * KIB * KIB, "{each} octets each");
}
