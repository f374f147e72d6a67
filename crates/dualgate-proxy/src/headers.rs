//! What happens to the fields of a request and of an answer on their way through.
//!
//! Clients are not believed about who they are: forwarding fields are made from the connection. Only a peer that the
//! site trusts may speak for others, and then the connection's address is appended to what it said.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use dualgate_core::model::site::{EntryProtocol, Underscores};
use dualgate_http::{
    BodyLength, FieldKind, Forwarded, HeadView, Scheme, is_forwarding_header, write_date, write_decimal, write_field,
    write_forwarded, write_ip, write_status_line,
};

use http::header::{DATE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::transaction::ReplyHead;

/// What is known of the connection that a request came over.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address, as the connection or its PROXY header says.
    pub address: SocketAddr,
    /// Whether its forwarding fields are believed.
    pub trust: Trust,
    /// What the entry point speaks.
    pub protocol: EntryProtocol,
    /// The forwarding fields of its last request.
    pub forwarding: RefCell<Forwarding>,
}

/// The forwarding fields that were written last: for a client, they change only with the authority that it asks for.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    authority: Vec<u8>,
    fields: Vec<u8>,
}

/// Whether a peer's forwarding fields are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is a client: they are dropped.
    Client,
    /// It is a proxy of ours: they are handed on and extended.
    Proxy,
}

/// What a request becomes at the server.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Canonical path, with the query.
    pub path_and_query: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// The protocol to change to.
    pub upgrade: Option<&'a [u8]>,
    /// What becomes of fields with an underscore; a request that is refused for them is not here.
    pub underscores: Underscores,
}

/// Whether a request's field is handed on.
pub fn passes(name: &[u8], peer: &Peer, underscores: Underscores) -> bool {
    if name.contains(&b'_') && (underscores != Underscores::Keep || is_forwarding_header(name)) {
        return false;
    }
    match peer.trust {
        Trust::Client => !is_forwarding_header(name),
        // These three are written anew, with what they held in front.
        Trust::Proxy => !is_extended(name),
    }
}

fn is_extended(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"x-forwarded-for") || name.eq_ignore_ascii_case(b"forwarded")
}

/// Writes the head of a request to an HTTP/1.1 server.
pub fn write_request(head: &impl HeadView, peer: &Peer, target: &Target<'_>, out: &mut Vec<u8>) {
    dualgate_http::write_request_line(head.method(), target.path_and_query, out);
    write_field(b"Host", target.host, out);
    head.for_each_field(&mut |name, value| {
        if passes(name, peer, target.underscores) {
            write_field(name, value, out);
        }
    });
    write_forwarding_fields(head, peer, out);
    if let Some(protocol) = target.upgrade {
        write_field(b"Connection", b"Upgrade", out);
        write_field(b"Upgrade", protocol, out);
    }
    match head.body() {
        BodyLength::Chunked | BodyLength::UntilClose => write_field(b"Transfer-Encoding", b"chunked", out),
        BodyLength::Empty | BodyLength::Length(_) => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn write_forwarding_fields(head: &impl HeadView, peer: &Peer, out: &mut Vec<u8>) {
    let write = |out: &mut Vec<u8>| {
        for_each_forwarding_field(head, peer, &mut |name, value| write_field(name.as_bytes(), value, out));
    };
    match peer.trust {
        // What a proxy said differs from request to request.
        Trust::Proxy => write(out),
        Trust::Client => {
            let mut last = peer.forwarding.borrow_mut();
            if last.fields.is_empty() || last.authority != head.authority() {
                last.fields.clear();
                last.authority.clear();
                last.authority.extend_from_slice(head.authority());
                write(&mut last.fields);
            }
            out.extend_from_slice(&last.fields);
        }
    }
}

/// The fields that say who the client is.
pub fn for_each_forwarding_field(head: &impl HeadView, peer: &Peer, visit: &mut dyn FnMut(&str, &[u8])) {
    let mut value = Vec::with_capacity(160);
    let (scheme, tls) = match peer.protocol {
        EntryProtocol::Http => (Scheme::Http, false),
        EntryProtocol::Https => (Scheme::Https, true),
    };
    let said = |name: &str| match peer.trust {
        Trust::Client => None,
        Trust::Proxy => head.field(name),
    };
    join(&mut value, head, peer, b"x-forwarded-for");
    write_ip(peer.address.ip(), &mut value);
    visit("X-Forwarded-For", &value);
    if said("x-forwarded-proto").is_none() {
        visit("X-Forwarded-Proto", scheme.as_str().as_bytes());
    }
    if said("x-forwarded-host").is_none() && !head.authority().is_empty() {
        visit("X-Forwarded-Host", head.authority());
    }
    if said("x-forwarded-port").is_none() {
        value.clear();
        let named = dualgate_http::parse_authority(head.authority()).ok().and_then(|authority| authority.port);
        write_decimal(u64::from(named.unwrap_or(if tls { 443 } else { 80 })), &mut value);
        visit("X-Forwarded-Port", &value);
    }
    if said("x-real-ip").is_none() {
        value.clear();
        write_ip(peer.address.ip(), &mut value);
        visit("X-Real-Ip", &value);
    }
    value.clear();
    join(&mut value, head, peer, b"forwarded");
    let forwarded = Forwarded { client: peer.address.ip(), by: None, host: head.authority(), proto: scheme };
    write_forwarded(&forwarded, &mut value);
    visit("Forwarded", &value);
}

/// What a trusted proxy said, in front of what we add; several fields are one list (RFC 9110 5.3).
fn join(value: &mut Vec<u8>, head: &impl HeadView, peer: &Peer, name: &[u8]) {
    if peer.trust == Trust::Proxy {
        head.for_each_field(&mut |field, said| {
            if field.eq_ignore_ascii_case(name) {
                value.extend_from_slice(said);
                value.extend_from_slice(b", ");
            }
        });
    }
}

/// How the body of an answer is framed for an HTTP/1.x client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As its `Content-Length` says, or there is none.
    Plain,
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

impl Framing {
    /// Of a request to an HTTP/1.1 server.
    pub fn of(body: BodyLength) -> Self {
        match body {
            BodyLength::Chunked | BodyLength::UntilClose => Self::Chunked,
            BodyLength::Empty | BodyLength::Length(_) => Self::Plain,
        }
    }
}

/// What the head of an answer says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReply {
    /// HTTP/1.1's default: it stays open.
    Stays,
    /// HTTP/1.0 asked that it stays open.
    StaysAsAsked,
    /// It will be closed.
    Closes,
    /// It becomes something else.
    Changes,
}

/// Writes the head of an answer to an HTTP/1.x client. `now` in seconds since 1970.
pub fn write_reply(head: &dyn ReplyHead, framing: Framing, after: AfterReply, now: u64, out: &mut Vec<u8>) {
    let status = head.status();
    write_status_line(status, None, out);
    // RFC 9110 8.6: these never have a length, and some clients would wait for it.
    let lengthless = framing != Framing::Plain || status < 200 || status == 204;
    let (mut dated, mut named) = (false, false);
    head.for_each_field(&mut |name, value| {
        match name.len() {
            4 => dated |= name.eq_ignore_ascii_case(b"date"),
            6 => named |= name.eq_ignore_ascii_case(b"server"),
            14 if lengthless && FieldKind::of(name) == FieldKind::ContentLength => return,
            _ => {}
        }
        write_field(name, value, out);
    });
    if status >= 200 && !dated {
        out.extend_from_slice(b"Date: ");
        write_date(now, out);
        out.extend_from_slice(b"\r\n");
    }
    if status >= 200 && !named {
        write_field(b"Server", b"dualgate", out);
    }
    if framing == Framing::Chunked {
        write_field(b"Transfer-Encoding", b"chunked", out);
    }
    match after {
        AfterReply::Stays | AfterReply::Changes => {}
        AfterReply::StaysAsAsked => write_field(b"Connection", b"keep-alive", out),
        AfterReply::Closes => write_field(b"Connection", b"close", out),
    }
    out.extend_from_slice(b"\r\n");
}

/// `host:port` of a server, for servers that want to see their own.
pub fn write_host(host: &str, port: u16, out: &mut Vec<u8>) {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => drop(write!(out, "[{v6}]:{port}")),
        Ok(IpAddr::V4(_)) | Err(_) if port == 80 => out.extend_from_slice(host.as_bytes()),
        Ok(IpAddr::V4(_)) | Err(_) => drop(write!(out, "{host}:{port}")),
    }
}

/// The head of a request to an HTTP/2 server; `None` if a field cannot be said in HTTP/2.
pub fn stream_request(
    head: &impl HeadView,
    peer: &Peer,
    host: &[u8],
    path_and_query: &[u8],
    underscores: Underscores,
) -> Option<Request<()>> {
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(path_and_query).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let fields = request.headers_mut();
    let mut sayable = true;
    let mut add = |name: &[u8], value: &[u8]| match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => drop(fields.try_append(name, value)),
        (Err(_), _) | (_, Err(_)) => sayable = false,
    };
    head.for_each_field(&mut |name, value| {
        if passes(name, peer, underscores) {
            add(name, value);
        }
    });
    for_each_forwarding_field(head, peer, &mut |name, value| add(name.as_bytes(), value));
    // Servers of gRPC insist on it.
    add(b"te", b"trailers");
    sayable.then_some(request)
}

/// What an answer over HTTP/2 must have and its server did not say.
pub fn complete(fields: &mut HeaderMap) {
    if !fields.contains_key(DATE) {
        let mut date = Vec::with_capacity(29);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        write_date(now, &mut date);
        if let Ok(date) = HeaderValue::from_bytes(&date) {
            fields.insert(DATE, date);
        }
    }
    if !fields.contains_key(SERVER) {
        fields.insert(SERVER, HeaderValue::from_static("dualgate"));
    }
}
