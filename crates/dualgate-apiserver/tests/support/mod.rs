//! A small HTTP client and a server to ask.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use dualgate_apiserver::{ApiServer, Options};
use serde_json::Value;

/// No answer may take longer.
pub const LIMIT: Duration = Duration::from_secs(30);

pub const APPLY: &str = "application/apply-patch+yaml";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

pub fn server() -> ApiServer {
    server_with(Options::default())
}

pub fn server_with(options: Options) -> ApiServer {
    ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], options).unwrap()
}

/// An answer whose body is complete.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of an answer of this code.
    #[track_caller]
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        self.json()
    }

    /// For answers that are not one JSON document.
    #[track_caller]
    pub fn expect_code(&self, code: u16) {
        assert_eq!(self.code, code, "{self:?}");
    }

    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

pub fn get(server: &ApiServer, path: &str) -> Answer {
    ask(server, "GET", path, "application/json", "")
}

pub fn post(server: &ApiServer, path: &str, object: Value) -> Answer {
    ask(server, "POST", path, "application/json", &object.to_string())
}

pub fn put(server: &ApiServer, path: &str, object: Value) -> Answer {
    ask(server, "PUT", path, "application/json", &object.to_string())
}

pub fn patch(server: &ApiServer, path: &str, language: &str, patch: Value) -> Answer {
    ask(server, "PATCH", path, language, &patch.to_string())
}

pub fn delete(server: &ApiServer, path: &str) -> Answer {
    ask(server, "DELETE", path, "application/json", "")
}

pub fn ask(server: &ApiServer, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
    try_ask(server.address(), method, path, content_type, body).unwrap()
}

pub fn try_ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let (code, head, mut stream) = open(address, method, path, content_type, body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).unwrap();
    if let Some(length) = field(&head, "content-length") {
        assert_eq!(length, text.len().to_string(), "{head}");
    }
    Ok(Answer { code, head, text })
}

/// A field of a head.
pub fn field(head: &str, name: &str) -> Option<String> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> std::io::Result<(u16, String, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: api\r\nuser-agent: tests/1\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    Ok((code, head, stream))
}

/// A watch that is read line by line.
pub struct Watch {
    stream: BufReader<TcpStream>,
    /// What is left of the last chunk.
    chunk: Vec<u8>,
}

/// How a watch goes on.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// `TYPE NAME`, and the object.
    Event(String, Value),
    /// The server ended it.
    End,
    /// The connection was cut.
    Cut,
}

impl Watch {
    #[track_caller]
    pub fn open(server: &ApiServer, path: &str) -> Self {
        let (code, head, stream) = open(server.address(), "GET", path, "application/json", "").unwrap();
        assert_eq!(code, 200, "{head}");
        assert_eq!(field(&head, "transfer-encoding").as_deref(), Some("chunked"), "{head}");
        Self { stream, chunk: Vec::new() }
    }

    pub fn next(&mut self) -> Next {
        loop {
            if let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.chunk.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                let object = event["object"].take();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                return Next::Event(format!("{} {name}", event["type"].as_str().unwrap()).trim().to_owned(), object);
            }
            let mut size = String::new();
            match self.stream.read_line(&mut size) {
                Ok(0) | Err(_) => return Next::Cut,
                Ok(_) => {}
            }
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            if self.stream.read_exact(&mut chunk).is_err() {
                return Next::Cut;
            }
            if size == 0 {
                return Next::End;
            }
            self.chunk.extend_from_slice(&chunk[..size]);
        }
    }

    /// The next event, without its object.
    #[track_caller]
    pub fn event(&mut self) -> String {
        match self.next() {
            Next::Event(event, _) => event,
            other => panic!("the watch went on with {other:?}"),
        }
    }

    /// The next events, until one is a bookmark; the version that it names is the last.
    #[track_caller]
    pub fn events(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event()).collect()
    }
}
