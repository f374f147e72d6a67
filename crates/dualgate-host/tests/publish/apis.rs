//! IONOS and Cloudflare: what is asked, octet for octet of its JSON, and what their documentation answers.
//!
//! `exchanges/NAME.txt` has one exchange after the other: `> METHOD PATH`, the body that is sent, `< STATUS FIELD...`, the body
//! that comes back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dualgate_core::model::site::ProviderAccess;
use serde_json::Value;

use super::server::{Request, serve};
use super::{made, publication, synced};

struct Exchange {
    asked: String,
    body: String,
    status: u16,
    fields: Vec<(&'static str, String)>,
    answer: String,
}

/// What is still to be asked, and what was asked otherwise.
#[derive(Default)]
struct Script {
    left: VecDeque<Exchange>,
    wrong: Vec<String>,
}

fn read(name: &str) -> VecDeque<Exchange> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/publish/exchanges").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let exchange = |part: &str| {
        let (asked, answered) = part.split_once("\n< ").unwrap();
        let (line, body) = asked.split_once('\n').unwrap_or((asked, ""));
        let (head, answer) = answered.split_once('\n').unwrap_or((answered, ""));
        let mut head = head.split_whitespace();
        let status = head.next().unwrap().parse().unwrap();
        let fields = head.map(|after| ("Retry-After", after.to_owned())).collect();
        Exchange { asked: line.to_owned(), body: body.to_owned(), status, fields, answer: answer.to_owned() }
    };
    text.split("\n> ").skip(1).map(exchange).collect()
}

fn play(name: &str, field: &'static str, expected: &'static str) -> (SocketAddr, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script { left: read(name), wrong: Vec::new() }));
    let played = script.clone();
    let address = serve(move |request: Request| {
        let mut script = played.lock().unwrap();
        let Some(next) = script.left.pop_front() else {
            script.wrong.push(format!("{} after the end", request.line));
            return (500, Vec::new(), String::new());
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        if request.line != next.asked || json(&request.body) != json(&next.body) {
            script.wrong.push(format!("{} {}\nand not {} {}", request.line, request.body, next.asked, next.body));
        }
        if request.fields.get(field).map(String::as_str) != Some(expected) {
            script.wrong.push(format!("{}: {field} is {:?}", request.line, request.fields.get(field)));
        }
        (next.status, next.fields, next.answer)
    });
    (address, script)
}

fn ended(script: &Mutex<Script>) {
    let script = script.lock().unwrap();
    assert!(script.wrong.is_empty(), "{}", script.wrong.join("\n"));
    let left: Vec<&str> = script.left.iter().map(|exchange| exchange.asked.as_str()).collect();
    assert!(left.is_empty(), "not asked: {left:#?}");
}

/// A file with a token, which goes away with it.
struct Token(PathBuf);

impl Token {
    fn new(name: &str, token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dualgate-test-{}-{name}", std::process::id()));
        std::fs::write(&path, format!("{token}\n")).unwrap();
        Self(path)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn ionos_is_asked_as_its_documentation_says() {
    let (at, script) = play("ionos.txt", "x-api-key", "prefix.secret");
    let token = Token::new("ionos", "prefix.secret");
    let access =
        ProviderAccess::Ionos { token_file: token.0.display().to_string(), url: Some(format!("http://{at}/dns/v1")) };
    let wanted = ["app.example.org 60 A 203.0.113.10", "example.org 3600 MX 10 mail.example.net"];
    let publication = publication(access, &wanted);
    let first = synced(&publication).unwrap();
    assert_eq!(made(&first), ["delete gone.example.org CNAME", "update app.example.org A", "create example.org MX"]);
    assert_eq!(made(&synced(&publication).unwrap()), Vec::<String>::new());
    let refused = synced(&publication).unwrap_err();
    assert!(refused.what.starts_with("provider: read zone `example.org`: GET http://127.0.0.1:"), "{refused}");
    assert!(refused.what.contains("/dns/v1/zones: 401 Unauthorized: [{\"code\": \"UNAUTHORIZED\""), "{refused}");
    assert_eq!(refused.help, "see whether the token is right and may change this zone");
    assert!(!refused.to_string().contains("secret"), "{refused}");
    ended(&script);
}

#[test]
fn cloudflare_is_asked_as_its_documentation_says() {
    let (at, script) = play("cloudflare.txt", "authorization", "Bearer token");
    let token = Token::new("cloudflare", "token");
    let access = ProviderAccess::Cloudflare {
        token_file: token.0.display().to_string(),
        url: Some(format!("http://{at}/client/v4")),
    };
    let wanted = [
        "app.example.org 30 A 203.0.113.10",
        "app.example.org 60 HTTPS 1 . alpn=h2,http/1.1 ipv4hint=203.0.113.10",
        "_sip._tcp.example.org 60 SRV 1 2 5060 sip.example.net",
    ];
    let publication = publication(access, &wanted);
    let first = synced(&publication).unwrap();
    let expected = [
        "delete gone.example.org CNAME",
        "update app.example.org A",
        "create _sip._tcp.example.org SRV",
        "create app.example.org HTTPS",
    ];
    assert_eq!(made(&first), expected);
    assert_eq!(made(&synced(&publication).unwrap()), Vec::<String>::new());
    let limited = synced(&publication).unwrap_err();
    assert_eq!(limited.after, Some(Duration::from_secs(7)), "{limited}");
    ended(&script);
}

#[test]
fn a_token_that_is_none_is_told_before_anybody_is_asked() {
    let token = Token::new("empty", "two words");
    for (file, expected) in [
        (token.0.display().to_string(), "holds no token"),
        ("/nonexistent/token".to_owned(), "read `/nonexistent/token`: No such file"),
    ] {
        let access = ProviderAccess::Cloudflare { token_file: file, url: None };
        let failure = synced(&publication(access, &[])).unwrap_err();
        assert!(failure.what.contains(expected) && !failure.what.contains("words"), "{failure}");
    }
}
