//! The back end of the benchmark: one thread, one epoll, answers made in advance.
//!
//! It must be cheaper than any proxy, so it knows no more HTTP than the benchmark needs: requests without a body.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

/// Endpoints, each a port of its own.
pub const ENDPOINTS: usize = 4;
/// The path whose answer is `LARGE` bytes.
pub const LARGE_PATH: &str = "/large";
/// The path whose answer is the head of the request.
pub const CHECK_PATH: &str = "/check";

const SMALL: usize = 1 << 10;
const LARGE: usize = 1 << 20;
/// More than any head that a proxy sends here.
const MAX_INPUT: usize = 64 << 10;

/// Serves until it is ended. Prints the address of each endpoint on a line of its own.
pub fn run() -> Result<()> {
    let listeners: Vec<TcpListener> = (0..ENDPOINTS).map(|_| listen()).collect::<Result<_>>()?;
    let mut addresses = String::new();
    for listener in &listeners {
        addresses += &format!("{}\n", listener.local_addr()?);
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(addresses.as_bytes()).and_then(|()| stdout.flush()).context("print the addresses")?;
    Backend { listeners, answers: Answers::new(), connections: Vec::new(), free: Vec::new() }.serve()
}

fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("listen on loopback")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Answers {
    small: &'static [u8],
    large: &'static [u8],
}

impl Answers {
    /// The process answers with these until it ends.
    fn new() -> Self {
        Self { small: answer(&vec![b'x'; SMALL]).leak(), large: answer(&vec![b'x'; LARGE]).leak() }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\nVary: Accept-Encoding\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

struct Backend {
    listeners: Vec<TcpListener>,
    answers: Answers,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Backend {
    fn serve(mut self) -> Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("create an epoll")?;
        for (number, listener) in (0..).zip(&self.listeners) {
            epoll::add(&epoll, listener, EventData::new_u64(number), EventFlags::IN)?;
        }
        let mut events = Vec::with_capacity(256);
        let mut scratch = vec![0; MAX_INPUT];
        loop {
            match epoll::wait(&epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for events"),
            }
            for event in events.drain(..) {
                let number = usize::try_from(event.data.u64())?;
                if number < ENDPOINTS {
                    self.accept(&epoll, number)?;
                } else {
                    self.turn(&epoll, number - ENDPOINTS, &mut scratch)?;
                }
            }
        }
    }

    fn accept(&mut self, epoll: &OwnedFd, listener: usize) -> Result<()> {
        loop {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.connections.len());
            let data = EventData::new_u64((place + ENDPOINTS) as u64);
            epoll::add(epoll, &stream, data, EventFlags::IN)?;
            let connection = Connection { stream, input: Vec::new(), output: VecDeque::new(), waits: false };
            match self.connections.get_mut(place) {
                Some(free) => *free = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
    }

    fn turn(&mut self, epoll: &OwnedFd, place: usize, scratch: &mut [u8]) -> Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        if connection.turn(&self.answers, scratch).is_err() {
            // Closing the socket takes it out of the epoll.
            self.connections[place] = None;
            self.free.push(place);
            return Ok(());
        }
        let waits = !connection.output.is_empty();
        if waits != connection.waits {
            connection.waits = waits;
            let flags = if waits { EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, &connection.stream, EventData::new_u64((place + ENDPOINTS) as u64), flags)?;
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a head whose end has not come.
    input: Vec<u8>,
    output: VecDeque<Piece>,
    /// Whether it waits to write and does not read.
    waits: bool,
}

enum Piece {
    Made(&'static [u8]),
    Own(Vec<u8>),
}

impl Connection {
    fn turn(&mut self, answers: &Answers, scratch: &mut [u8]) -> std::io::Result<()> {
        if self.output.is_empty() {
            self.read(answers, scratch)?;
        }
        self.write()
    }

    fn read(&mut self, answers: &Answers, scratch: &mut [u8]) -> std::io::Result<()> {
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.input.is_empty() {
            let rest = answer_all(&scratch[..length], answers, &mut self.output);
            self.input.extend_from_slice(rest);
        } else {
            self.input.extend_from_slice(&scratch[..length]);
            let input = std::mem::take(&mut self.input);
            self.input.extend_from_slice(answer_all(&input, answers, &mut self.output));
        }
        if self.input.len() > MAX_INPUT { Err(ErrorKind::InvalidData.into()) } else { Ok(()) }
    }

    fn write(&mut self) -> std::io::Result<()> {
        while let Some(piece) = self.output.front_mut() {
            let bytes: &[u8] = match piece {
                Piece::Made(bytes) => bytes,
                Piece::Own(bytes) => bytes,
            };
            let length = match self.stream.write(bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if length == bytes.len() {
                self.output.pop_front();
                continue;
            }
            match piece {
                Piece::Made(bytes) => *bytes = &bytes[length..],
                Piece::Own(bytes) => drop(bytes.drain(..length)),
            }
        }
        Ok(())
    }
}

/// Answers every whole head, and returns what is left.
fn answer_all<'a>(mut input: &'a [u8], answers: &Answers, output: &mut VecDeque<Piece>) -> &'a [u8] {
    while let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
        let (head, rest) = input.split_at(end + 4);
        let path = head.strip_prefix(b"GET ").unwrap_or_default();
        output.push_back(if path.starts_with(LARGE_PATH.as_bytes()) {
            Piece::Made(answers.large)
        } else if path.starts_with(CHECK_PATH.as_bytes()) {
            Piece::Own(answer(head))
        } else {
            Piece::Made(answers.small)
        });
        input = rest;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_heads_are_answered_and_the_rest_is_kept() {
        let answers = Answers { small: b"small", large: b"large" };
        let mut output = VecDeque::new();
        let rest = answer_all(b"GET / HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\n\r\nGET /", &answers, &mut output);
        assert_eq!(rest, b"GET /");
        let made: Vec<&[u8]> = output
            .iter()
            .map(|piece| match piece {
                Piece::Made(bytes) => *bytes,
                Piece::Own(bytes) => bytes,
            })
            .collect();
        assert_eq!(made, [b"small", b"large"]);
    }

    #[test]
    fn the_check_shows_what_a_proxy_sent() {
        let mut output = VecDeque::new();
        let answers = Answers { small: b"", large: b"" };
        answer_all(b"GET /check HTTP/1.1\r\nX-Forwarded-Proto: http\r\n\r\n", &answers, &mut output);
        let Some(Piece::Own(answer)) = output.pop_front() else { panic!("not made for the request") };
        assert!(answer.ends_with(b"\r\n\r\nGET /check HTTP/1.1\r\nX-Forwarded-Proto: http\r\n\r\n"));
    }
}
