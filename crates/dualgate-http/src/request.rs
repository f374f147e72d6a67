//! The head of a request: start line, fields, and the few facts that decide how it is handled.
//!
//! From: the bytes a client sent. To: routing and forwarding, as a [`RequestView`].

use std::mem::MaybeUninit;

use crate::authority::{AuthorityError, parse_authority};
use crate::body::BodyLength;
use crate::error::HeadError;
use crate::field::{Field, FieldKind};
use crate::index::{FieldIndex, Occurrence, Progress, Span, Version, explain};
use crate::limits::{HeadLimits, MAX_FIELDS};
use crate::target::{Target, TargetIndex};

/// A reusable index of one request head. It holds no bytes, only where they are in the caller's buffer.
#[derive(Debug)]
pub struct RequestHead {
    method: Span,
    target: TargetIndex,
    version: Version,
    authority: Span,
    fields: FieldIndex,
}

impl RequestHead {
    /// An empty index; parse something before you view it.
    pub fn new() -> Self {
        Self {
            method: Span::default(),
            target: TargetIndex::default(),
            version: Version::Http11,
            authority: Span::default(),
            fields: FieldIndex::default(),
        }
    }

    /// Reads the head at the start of `buffer`; what follows it is left alone.
    ///
    /// After `Partial`, call again with the same bytes and more. Nothing is remembered between calls: what a client can
    /// make us read again is bounded by `max_bytes`.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Progress, HeadError> {
        self.fields.clear();
        let window = &buffer[..buffer.len().min(limits.max_bytes).min(u32::MAX as usize)];
        let progress = match leading_empty_line(window)? {
            Some(start) => self.parse_window(window, start, limits)?,
            None => Progress::Partial,
        };
        match progress {
            Progress::Partial if buffer.len() >= limits.max_bytes => Err(HeadError::TooLarge),
            progress => Ok(progress),
        }
    }

    /// The head that was parsed, in the buffer it was parsed from.
    pub fn view<'a>(&'a self, buffer: &'a [u8]) -> RequestView<'a> {
        RequestView { head: self, buffer }
    }

    fn parse_window(&mut self, window: &[u8], start: usize, limits: &HeadLimits) -> Result<Progress, HeadError> {
        let mut tokens = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let outcome =
            request.parse_with_uninit_headers(&window[start..], &mut tokens[..limits.max_fields.min(MAX_FIELDS)]);
        let target_len = match (request.method, request.path, outcome) {
            (_, Some(target), _) => target.len(),
            (Some(method), None, Ok(_)) => window.len().saturating_sub(start + method.len() + 1),
            (_, None, _) => 0,
        };
        if target_len > limits.max_target {
            return Err(HeadError::TargetTooLong);
        }
        let len = match outcome {
            Ok(httparse::Status::Complete(len)) => start + len,
            Ok(httparse::Status::Partial) => return Ok(Progress::Partial),
            Err(error) => return Err(explain_request(window, &request, error)),
        };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HeadError::RequestLine);
        };
        let head = &window[..len];
        self.method = Span::of(head, method.as_bytes());
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        self.fields.index(head, request.headers, self.version)?;
        self.target = TargetIndex::parse(head, method.as_bytes(), target.as_bytes())?;
        self.authority = self.effective_authority(head)?;
        if self.fields.connection.names_protected {
            return Err(HeadError::ConnectionOption);
        }
        Ok(Progress::Complete { len })
    }

    /// `Host`, which the absolute form must repeat; RFC 9112 3.2.2 would let the two differ.
    fn effective_authority(&self, head: &[u8]) -> Result<Span, HeadError> {
        let host = match self.fields.host {
            Occurrence::One(host) => Some(host),
            Occurrence::None if self.version == Version::Http10 => None,
            Occurrence::None => return Err(HeadError::HostMissing),
            Occurrence::Many => return Err(HeadError::HostDuplicate),
        };
        let named = match self.target {
            TargetIndex::Absolute { authority, .. } => Some(authority),
            TargetIndex::Origin(_) | TargetIndex::Asterisk => None,
        };
        if let (Some(host), Some(named)) = (host, named)
            && !host.in_buffer(head).eq_ignore_ascii_case(named.in_buffer(head))
        {
            return Err(HeadError::HostMismatch);
        }
        let Some(authority) = host.or(named) else { return Ok(Span::default()) };
        match parse_authority(authority.in_buffer(head)) {
            Ok(_) => Ok(authority),
            Err(AuthorityError::UserInfo) => Err(HeadError::UserInfo),
            Err(_) => Err(HeadError::HostInvalid),
        }
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

/// A parsed request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    head: &'a RequestHead,
    buffer: &'a [u8],
}

impl<'a> RequestView<'a> {
    /// A token, case-sensitive.
    pub fn method(&self) -> &'a str {
        str::from_utf8(self.head.method.in_buffer(self.buffer)).unwrap_or_default()
    }

    /// The target in the form it was sent.
    pub fn target(&self) -> Target<'a> {
        self.head.target.in_buffer(self.buffer)
    }

    /// Path and query of the target, not yet canonical; `*` for the asterisk form.
    pub fn path_and_query(&self) -> &'a [u8] {
        match self.target() {
            Target::Origin { path_and_query } | Target::Absolute { path_and_query, .. } => path_and_query,
            Target::Asterisk => b"*",
        }
    }

    /// The version of the sender.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Every field in the order sent, hop-by-hop ones too.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + 'a {
        self.head.fields.fields(self.buffer)
    }

    /// The fields that go on to the upstream: neither hop-by-hop nor `Host`, which is [`Self::authority`].
    pub fn end_to_end_fields(&self) -> impl Iterator<Item = Field<'a>> + 'a {
        self.fields().filter(|field| !field.is_hop_by_hop() && field.kind() != FieldKind::Host)
    }

    /// How the body ends.
    pub fn body(&self) -> BodyLength {
        match (self.head.fields.chunked, self.head.fields.content_length) {
            (true, _) => BodyLength::Chunked,
            (false, Some(length)) => BodyLength::Length(length),
            (false, None) => BodyLength::Empty,
        }
    }

    /// The host and port that the request is for; empty only in HTTP/1.0 without `Host`.
    pub fn authority(&self) -> &'a [u8] {
        self.head.authority.in_buffer(self.buffer)
    }

    /// Does the client want to send another request on this connection?
    pub fn keep_alive(&self) -> bool {
        self.head.fields.keep_alive(self.head.version)
    }

    /// Does the client wait for a 100 before it sends the body (RFC 9110 10.1.1)?
    pub fn expects_continue(&self) -> bool {
        let Occurrence::One(expect) = self.head.fields.expect else { return false };
        self.head.version == Version::Http11 && expect.in_buffer(self.buffer).eq_ignore_ascii_case(b"100-continue")
    }

    /// The one protocol that the client wants to change to, such as `websocket`.
    ///
    /// None unless `Connection` says so too, in HTTP/1.1, without a body. A list of protocols is not taken up, and
    /// `h2c` never: behind it requests pass the gateway unseen. Change only after the upstream's 101.
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let Occurrence::One(upgrade) = self.head.fields.upgrade else { return None };
        let protocol = upgrade.in_buffer(self.buffer);
        let offered = self.head.fields.connection.upgrade
            && self.head.version == Version::Http11
            && self.body().is_empty()
            && !protocol.is_empty()
            && !protocol.contains(&b',')
            && !protocol.eq_ignore_ascii_case(b"h2c");
        offered.then_some(protocol)
    }
}

/// RFC 9112 2.2: a server ignores an empty line before the request line. One, and none of any other kind.
/// Returns where the request line begins.
fn leading_empty_line(window: &[u8]) -> Result<Option<usize>, HeadError> {
    match window {
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(HeadError::RequestLine),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r', ..] => Err(HeadError::BareCarriageReturn),
        [b'\n', ..] => Err(HeadError::BareLineFeed),
        _ => Ok(Some(0)),
    }
}

/// `httparse` says `Version` of whatever stands behind the second space.
#[cold]
fn explain_request(window: &[u8], request: &httparse::Request<'_, '_>, error: httparse::Error) -> HeadError {
    let before_fields = request.version.is_none();
    if let (Some(target), httparse::Error::Version) = (request.path, error) {
        let version = Span::of(window, target.as_bytes()).start() + target.len() + 1;
        let named = window.get(version..).is_some_and(|rest| rest.starts_with(b"HTTP/"));
        return if named { HeadError::Version } else { HeadError::RequestLine };
    }
    if before_fields && request.method.is_some() && window.iter().any(|byte| !byte.is_ascii()) {
        return HeadError::TargetByte;
    }
    explain(window, error, HeadError::RequestLine)
}
