//! An upgrade under load: one process takes over from another, and no request notices.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_site(directory: &Path, gate: u16, admin: u16, pod: SocketAddr) {
    std::fs::create_dir_all(directory.join("manifests")).unwrap();
    let site = format!(
        "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: takeover\nnodes:\n  - name: here\n    \
         addresses: [127.0.0.1]\n    roles: [internal-gate]\ngates:\n  internal:\n    addresses: [127.0.0.1]\n    \
         entryPoints: {{web: {gate}}}\nadmin: {{listen: [\"127.0.0.1:{admin}\"]}}\n"
    );
    std::fs::write(directory.join("site.yaml"), site).unwrap();
    let objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{dualgate.dev/endpoints: \"{pod}\"}}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: a}}\n\
         spec: {{rules: [{{host: a.example.org, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: a, \
         port: {{number: 80}}}}}}}}]}}}}]}}\n"
    );
    std::fs::write(directory.join("manifests/a.yaml"), objects).unwrap();
}

fn start(directory: &Path, take_over: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    command.arg("run").arg("--site").arg(directory.join("site.yaml")).arg("--state").arg(directory.join("state"));
    if take_over {
        command.arg("--take-over");
    }
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Answers every request on every connection.
fn start_pod() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                    if line == "\r\n" && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// One request; whether the answer was whole, and whether the connection may be used again.
fn ask(stream: &mut TcpStream) -> Result<bool, String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n").map_err(|error| format!("write: {error}"))?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\r\n\r\nok") {
        match stream.read(&mut buffer).map_err(|error| format!("read: {error}"))? {
            0 => return Err(format!("ended after {:?}", String::from_utf8_lossy(&answer))),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(answer);
    }
    Ok(!answer.contains("Connection: close"))
}

fn connect(gate: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(gate).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn two_upgrades_under_load_lose_no_request() {
    let directory = Directory(std::env::temp_dir().join(format!("dualgate-takeover-{}", std::process::id())));
    let (gate, pod) = (free_port(), start_pod());
    write_site(&directory.0, gate, free_port(), pod);
    let gate = SocketAddr::from(([127, 0, 0, 1], gate));
    let mut running = start(&directory.0, false);
    let begun = Instant::now();
    while TcpStream::connect(gate).map_or(true, |mut stream| ask(&mut stream).is_err()) {
        assert!(begun.elapsed() < PATIENCE, "the first process does not serve");
        std::thread::yield_now();
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut kept = None;
                while !stop.load(Relaxed) {
                    let mut stream = kept.take().unwrap_or_else(|| connect(gate));
                    // A kept connection that the old process closes while it is idle is no loss; a new one is.
                    let again = ask(&mut stream);
                    done.fetch_add(1, Relaxed);
                    match again {
                        Ok(true) if number % 2 == 0 => kept = Some(stream),
                        Ok(_) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for _ in 0..2 {
        let before = done.load(Relaxed);
        while done.load(Relaxed) < before + 500 {
            std::thread::yield_now();
        }
        let successor = start(&directory.0, true);
        let status = running.wait().unwrap();
        assert_eq!(status.code(), Some(0), "the old process ends well");
        running = successor;
    }
    let before = done.load(Relaxed);
    while done.load(Relaxed) < before + 500 {
        std::thread::yield_now();
    }
    stop.store(true, Relaxed);
    let lost: Vec<String> = clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(lost, Vec::<String>::new(), "of {} requests", done.load(Relaxed));
}

#[test]
fn a_second_process_is_refused_unless_it_takes_over() {
    let directory = Directory(std::env::temp_dir().join(format!("dualgate-second-{}", std::process::id())));
    let gate = free_port();
    write_site(&directory.0, gate, free_port(), start_pod());
    let gate = SocketAddr::from(([127, 0, 0, 1], gate));
    let mut running = start(&directory.0, false);
    let begun = Instant::now();
    while TcpStream::connect(gate).is_err() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let second = Command::new(env!("CARGO_BIN_EXE_dualgate"))
        .arg("run")
        .arg("--site")
        .arg(directory.0.join("site.yaml"))
        .arg("--state")
        .arg(directory.0.join("state"))
        .output()
        .unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{message}");
    assert!(message.contains("another dualgate runs") && message.contains("--take-over"), "{message}");
}
