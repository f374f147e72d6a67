//! An HTTP/1.1 server for one test: a function from requests to answers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// What was asked.
#[derive(Debug)]
pub struct Request {
    /// `METHOD PATH`.
    pub line: String,
    /// Fields by their names in small letters.
    pub fields: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// A status, fields, and a body.
pub type Answer = (u16, Vec<(&'static str, String)>, String);

/// Serves until the process ends; a connection is one request.
pub fn serve(mut answer: impl FnMut(Request) -> Answer + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Some(request) = read(&stream) else { continue };
            write(&stream, answer(request));
        }
    });
    address
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let mut fields = BTreeMap::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        let Some((name, value)) = field.trim_end().split_once(':') else { break };
        fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = fields.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, fields, body: String::from_utf8(body).ok()? })
}

fn write(mut stream: &TcpStream, (status, fields, body): Answer) {
    let mut head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    // Who asked may have gone.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
}
