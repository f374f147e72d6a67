//! `dualgate echo`, over both families.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Running, connect, has_ipv6, root};

/// The backend, and where it answers.
fn echo(listen: &str) -> (Running, String) {
    let running = Running::start(&root(), &["echo", "--listen", listen, "--name", "tester"]);
    let line = running.line_with("answers at http://");
    let (_, address) = line.split_once("http://").unwrap();
    (running, address.trim_end_matches('/').to_owned())
}

/// Head and body of an answer after which the connection ends.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.to_ascii_lowercase(), body.to_owned())
}

fn get(address: &str, target: &str) -> (String, String) {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_request_comes_back_as_it_was_asked_over_each_family() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if listen.starts_with('[') && !has_ipv6() {
            println!("SKIPPED: a_request_comes_back_as_it_was_asked_over_each_family: this machine has no ::1");
            continue;
        }
        let (_running, address) = echo(listen);
        let (head, body) = ask(
            &address,
            "POST /a%2Fb?c=d HTTP/1.1\r\nHost: A.example.org\r\nX-Twice: 1\r\nX-Forwarded-For: fd00::5, ::1\r\n\
             x-twice: 2\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        );
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert!(head.contains("content-type: application/json") && !head.contains("\nserver:"), "{head}");
        let mut report: Value = serde_json::from_str(&body).unwrap();
        let peer = report["peer"].take();
        assert_eq!(peer.as_str().unwrap().contains("::1"), listen.contains("::1"), "{peer}");
        let expected = json!({
            "path": "/a%2Fb?c=d",
            "host": "A.example.org",
            "method": "POST",
            "proto": "HTTP/1.1",
            "headers": {
                "connection": ["close"],
                "content-length": ["5"],
                "host": ["A.example.org"],
                "x-forwarded-for": ["fd00::5, ::1"],
                "x-twice": ["1", "2"],
            },
            "pod": "tester",
            "peer": null,
            "local": address,
            "client": "fd00::5",
            "body": {
                "length": 5,
                "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                "start": "hello",
            },
        });
        assert_eq!(report, expected);
    }
}

#[test]
fn a_query_tries_more() {
    let (_running, address) = echo("127.0.0.1:0");
    let (head, body) = get(&address, "/?status=503");
    assert!(head.starts_with("http/1.1 503 ") && body.contains("\"path\": \"/?status=503\""), "{head}\n{body}");
    let (head, body) = get(&address, "/?size=100KiB");
    assert!(head.contains("content-length: 102400") && body.len() == 102_400, "{head}");
    let (head, body) = get(&address, "/?stream=2");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(body.contains("chunk 1 of 2\n") && body.contains("chunk 2 of 2\n"), "{body}");
    let (head, body) = get(&address, "/?status=204");
    assert!(head.starts_with("http/1.1 204 ") && !head.contains("content-type") && body.is_empty(), "{head}");
    let before = Instant::now();
    let (head, _) = get(&address, "/?delay=300ms");
    assert!(head.starts_with("http/1.1 200 ") && before.elapsed() >= Duration::from_millis(300));
    let (head, body) = get(&address, "/?delay=1h");
    assert!(head.starts_with("http/1.1 400 ") && body.contains("delay `1h` is not a time up to 60s"), "{head}\n{body}");
}

#[test]
fn a_websocket_is_echoed() {
    let (_running, address) = echo("127.0.0.1:0");
    let mut stream = connect(&address);
    let handshake = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // RFC 6455 5.7: a masked `Hello`; then a close with 1000.
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
    stream.write_all(&[handshake.as_bytes(), &hello, &close].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert_eq!(answer[end..], *b"\x81\x05Hello\x88\x02\x03\xE8");
}

#[test]
fn an_address_in_use_is_said() {
    let (_running, address) = echo("127.0.0.1:0");
    let outcome = crate::support::dualgate(&["echo", "--listen", &format!("{address},127.0.0.1:0")]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains(&format!("error: listen as echo backend on {address}: ")), "{}", outcome.err);
}
