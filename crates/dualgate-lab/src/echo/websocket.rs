//! The WebSocket side of the echo backend (RFC 6455): every message comes back as it was sent, frame by frame.
//!
//! Payloads pass through a small buffer, whatever the length of a frame. Text is not checked for UTF-8.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream};

use super::Connection;
use super::body::Body;

/// RFC 6455 1.3.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// RFC 6455 7.4.1: a protocol error.
const PROTOCOL_ERROR: u16 = 1002;
/// RFC 6455 5.5: the longest payload of a control frame.
const MAX_CONTROL: u64 = 125;
const BUFFER: usize = 16 * 1024;

/// Whether a request wants to become a WebSocket.
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11 && has_token(request.headers(), UPGRADE.as_str(), "websocket")
}

/// Answers the handshake; the frames are echoed by a task that ends with the connection.
pub(super) fn accept(
    request: &mut Request<Incoming>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, &'static str> {
    let accept = handshake(request)?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(connection.stopped.clone().or(async move {
        let ended = match upgrade.await {
            Ok(stream) => echo(BufStream::new(TokioIo::new(stream))).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %connection.peer, %error, "echo WebSocket ended");
        }
    }));
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// RFC 6455 4.2.1 and 4.2.2.
fn handshake<B>(request: &Request<B>) -> Result<HeaderValue, &'static str> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err("a WebSocket is asked for with GET");
    }
    if !has_token(headers, CONNECTION.as_str(), "upgrade") {
        return Err("`Connection` does not hold `Upgrade`");
    }
    if !has_token(headers, "sec-websocket-version", "13") {
        return Err("`Sec-WebSocket-Version` is not 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("there is no `Sec-WebSocket-Key`")?.as_bytes();
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err("`Sec-WebSocket-Key` is not 16 octets in base64");
    }
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT).finalize());
    HeaderValue::try_from(accept).map_err(|_| "`Sec-WebSocket-Key` cannot be answered")
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// RFC 6455 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// The head of a frame from the client.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_last: bool,
    opcode: Opcode,
    length: u64,
    mask: [u8; 4],
}

/// Where a message stands between two data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Ended,
    Open,
}

/// Echoes until either side closes.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut message = Message::Ended;
    while let Some(first) = first_octet(&mut stream).await? {
        let Some(head) = read_head(&mut stream, first, message).await? else {
            write_head(&mut stream, true, Opcode::Close, 2).await?;
            stream.write_all(&PROTOCOL_ERROR.to_be_bytes()).await?;
            return stream.shutdown().await;
        };
        match head.opcode {
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                message = if head.is_last { Message::Ended } else { Message::Open };
                write_head(&mut stream, head.is_last, head.opcode, head.length).await?;
                copy(&mut stream, &head).await?;
            }
            Opcode::Ping => {
                write_head(&mut stream, true, Opcode::Pong, head.length).await?;
                copy(&mut stream, &head).await?;
            }
            Opcode::Pong => {
                stream.read_exact(&mut [0; MAX_CONTROL as usize][..head.length as usize]).await?;
            }
            Opcode::Close => {
                write_head(&mut stream, true, Opcode::Close, head.length).await?;
                copy(&mut stream, &head).await?;
                return stream.shutdown().await;
            }
        }
        stream.flush().await?;
    }
    Ok(())
}

/// `None` at the end of the connection.
async fn first_octet<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<u8>> {
    let mut octet = [0];
    Ok((stream.read(&mut octet).await? > 0).then_some(octet[0]))
}

/// `None` if the client broke the protocol.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, first: u8, message: Message) -> io::Result<Option<Head>> {
    let second = stream.read_u8().await?;
    let length = match second & 0x7F {
        126 => stream.read_u16().await?.into(),
        127 => stream.read_u64().await?,
        length => length.into(),
    };
    let is_masked = second & 0x80 != 0;
    let has_extension = first & 0x70 != 0;
    let Some(opcode) = Opcode::of(first & 0x0F) else { return Ok(None) };
    let is_last = first & 0x80 != 0;
    let is_in_order = match (opcode, message) {
        (Opcode::Continuation, Message::Open) | (Opcode::Text | Opcode::Binary, Message::Ended) => true,
        (Opcode::Continuation, Message::Ended) | (Opcode::Text | Opcode::Binary, Message::Open) => false,
        (Opcode::Close | Opcode::Ping | Opcode::Pong, Message::Open | Message::Ended) => true,
    };
    let is_too_long = length > if opcode.is_control() { MAX_CONTROL } else { i64::MAX as u64 };
    let is_cut = opcode.is_control() && !is_last;
    if !is_masked || has_extension || !is_in_order || is_too_long || is_cut {
        return Ok(None);
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    Ok(Some(Head { is_last, opcode, length, mask }))
}

/// The head of a frame from the server: not masked.
async fn write_head<S: AsyncWrite + Unpin>(
    stream: &mut S,
    is_last: bool,
    opcode: Opcode,
    length: u64,
) -> io::Result<()> {
    stream.write_u8(u8::from(is_last) << 7 | opcode.bits()).await?;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => stream.write_u8(short).await,
        (_, Ok(medium)) => {
            stream.write_u8(126).await?;
            stream.write_u16(medium).await
        }
        _ => {
            stream.write_u8(127).await?;
            stream.write_u64(length).await
        }
    }
}

/// Sends a payload back without its mask.
async fn copy<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, head: &Head) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(usize::try_from(head.length).unwrap_or(BUFFER))];
    let mut mask = head.mask.iter().cycle();
    let mut left = head.length;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..room]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // `zip` takes from its second side only what the first side has.
        buffer[..read].iter_mut().zip(mask.by_ref()).for_each(|(octet, mask)| *octet ^= mask);
        stream.write_all(&buffer[..read]).await?;
        // What has come so far goes back: the client may wait for it before it sends the rest.
        stream.flush().await?;
        left -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back for some octets, after which the client says no more.
    fn answer(sent: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = echo(server).await;
            let mut came = Vec::new();
            client.read_to_end(&mut came).await.unwrap();
            came
        })
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..=125 => frame.push(0x80 | short as u8),
            medium @ ..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(octet, mask)| octet ^ mask));
        frame
    }

    #[test]
    fn the_accept_key_is_the_one_of_rfc_6455_1_3() {
        let request = |change: &dyn Fn(hyper::http::request::Builder) -> hyper::http::request::Builder| {
            let request = Request::get("/").header("upgrade", "WebSocket").header("sec-websocket-version", "13");
            change(request).body(()).unwrap()
        };
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let good = request(&|r| r.header("connection", "keep-alive, Upgrade").header("sec-websocket-key", key));
        assert!(is_asked_for(&good));
        assert_eq!(handshake(&good).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let no_connection = request(&|r| r.header("sec-websocket-key", key));
        assert_eq!(handshake(&no_connection), Err("`Connection` does not hold `Upgrade`"));
        let short_key = request(&|r| r.header("connection", "upgrade").header("sec-websocket-key", "AAAA"));
        assert_eq!(handshake(&short_key), Err("`Sec-WebSocket-Key` is not 16 octets in base64"));
    }

    #[test]
    fn messages_come_back_unmasked() {
        // RFC 6455 5.7.
        let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(answer(&hello), b"\x81\x05Hello");
        assert_eq!(answer(&frame(0x82, &[7; 126])), [&[0x82, 126, 0, 126][..], &[7; 126]].concat());
        let long = vec![9; 70_000];
        assert_eq!(answer(&frame(0x82, &long)), [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70][..], &long].concat());
    }

    #[test]
    fn fragments_come_back_as_fragments_with_control_frames_between_them() {
        let sent = [frame(0x01, b"Hel"), frame(0x89, b"?"), frame(0x8A, b"unasked"), frame(0x80, b"lo")].concat();
        assert_eq!(answer(&sent), b"\x01\x03Hel\x8A\x01?\x80\x02lo");
    }

    #[test]
    fn a_close_is_answered_with_its_own_code_and_ends_it() {
        let sent = [frame(0x88, b"\x03\xE8bye"), frame(0x81, b"late")].concat();
        assert_eq!(answer(&sent), b"\x88\x05\x03\xE8bye");
    }

    #[test]
    fn a_broken_frame_ends_it_with_1002() {
        for (what, sent) in [
            ("not masked", b"\x81\x05Hello".to_vec()),
            ("an extension's bit", frame(0xC1, b"x")),
            ("an unknown opcode", frame(0x83, b"x")),
            ("a continuation of nothing", frame(0x80, b"x")),
            ("a fragmented ping", frame(0x09, b"x")),
            ("a long ping", frame(0x89, &[0; 126])),
        ] {
            assert_eq!(answer(&sent), b"\x88\x02\x03\xEA", "{what}");
        }
        let two_messages = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        assert_eq!(answer(&two_messages), b"\x01\x01a\x88\x02\x03\xEA");
    }
}
