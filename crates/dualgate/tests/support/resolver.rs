//! Names: whoever asks for one, and a resolver that is asked.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The response code.
    pub code: u8,
    /// Whether it is cut.
    pub truncated: bool,
    /// Whether it is authoritative.
    pub authoritative: bool,
    /// The addresses among the answers.
    pub addresses: Vec<IpAddr>,
    /// How many octets it has.
    pub length: usize,
}

/// A question with EDNS(0); `rtype` is 1 for A, 28 for AAAA.
pub fn question(id: u16, name: &str, rtype: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&[0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    message
}

/// Asks by UDP, once.
pub fn by_udp(server: SocketAddr, name: &str, rtype: u16) -> Result<Resolved, String> {
    by_udp_within(Duration::from_secs(5), server, name, rtype)
}

/// Asks by UDP, once, and waits so long.
pub fn by_udp_within(limit: Duration, server: SocketAddr, name: &str, rtype: u16) -> Result<Resolved, String> {
    let text = |error: io::Error| format!("{server} by UDP: {error}");
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).map_err(text)?;
    socket.connect(server).map_err(text)?;
    socket.set_read_timeout(Some(limit)).map_err(text)?;
    let asked = question(fresh(), name, rtype);
    socket.send(&asked).map_err(text)?;
    let mut space = [0; 4096];
    let length = socket.recv(&mut space).map_err(text)?;
    read(&asked, &space[..length])
}

/// Asks by TCP.
pub fn by_tcp(server: SocketAddr, name: &str, rtype: u16) -> Result<Resolved, String> {
    let text = |error: io::Error| format!("{server} by TCP: {error}");
    let mut stream = TcpStream::connect(server).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(text)?;
    let asked = question(fresh(), name, rtype);
    let length = u16::try_from(asked.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &asked].concat()).map_err(text)?;
    read(&asked, &framed(&mut stream).map_err(text)?)
}

fn framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn fresh() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(7919, Relaxed) as u16
}

fn read(asked: &[u8], message: &[u8]) -> Result<Resolved, String> {
    let wrong = || format!("{message:02x?} answers something else");
    let question = asked.len() - 11;
    if message.len() < question || message[..2] != asked[..2] || message[12..question] != asked[12..question] {
        return Err(wrong());
    }
    let mut addresses = Vec::new();
    let mut rest = &message[question..];
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        let owner = match rest.first().ok_or_else(wrong)? {
            0xc0.. => 2,
            _ => rest.iter().position(|octet| *octet == 0).ok_or_else(wrong)? + 1,
        };
        let (head, after) = rest[owner..].split_first_chunk::<10>().ok_or_else(wrong)?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let (data, after) = after.split_at_checked(length).ok_or_else(wrong)?;
        match (u16::from_be_bytes([head[0], head[1]]), data.as_array::<4>(), data.as_array::<16>()) {
            (1, Some(octets), _) => addresses.push(IpAddr::from(*octets)),
            (28, _, Some(octets)) => addresses.push(IpAddr::from(*octets)),
            _ => {}
        }
        rest = after;
    }
    let (truncated, authoritative) = (message[2] & 2 != 0, message[2] & 4 != 0);
    Ok(Resolved { code: message[3] & 15, truncated, authoritative, addresses, length: message.len() })
}

/// A resolver that gives every name the same address, by way of `web.example.org` where it begins with `back`; over UDP it
/// cuts answers for names that begin with `long`.
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers everything with 203.0.113.99, for a minute.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        std::thread::spawn(move || {
            let mut space = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut space) {
                counted.fetch_add(1, Relaxed);
                let _ = socket.send_to(&answer(&space[..length], true), from);
            }
        });
        let counted = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Relaxed);
                let Ok(question) = framed(&mut stream) else { continue };
                let answer = answer(&question, false);
                let length = u16::try_from(answer.len()).unwrap();
                let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
            }
        });
        Self { address, asked }
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

/// Its answer to a question.
pub fn answer(question: &[u8], by_udp: bool) -> Vec<u8> {
    let name = question[12..].iter().position(|octet| *octet == 0).unwrap_or(0);
    let mut answer = question[..12 + name + 5].to_vec();
    let begins = |with: &[u8]| question[13..].to_ascii_lowercase().starts_with(with);
    let (cut, leads_back) = (by_udp && begins(b"long"), begins(b"back"));
    (answer[2], answer[3], answer[11]) = (0x81 | if cut { 2 } else { 0 }, 0x80, 0);
    if leads_back {
        answer[7] = 2;
        let web = b"\x03web\x07example\x03org\0";
        answer.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, web.len() as u8]);
        let at = answer.len() as u8;
        answer.extend_from_slice(web);
        answer.extend_from_slice(&[0xc0, at, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 99]);
    } else if !cut {
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 99]);
    }
    answer
}
