//! The head of a response: status line, fields, and how the body ends.
//!
//! From: the bytes a pod sent. To: the client, as a [`ResponseView`]. Every fault is a 502: a pod is not trusted with
//! framing either.

use std::mem::MaybeUninit;

use crate::body::BodyLength;
use crate::error::HeadError;
use crate::field::Field;
use crate::index::{FieldIndex, Occurrence, Progress, Span, Version, explain};
use crate::limits::{HeadLimits, MAX_FIELDS};

/// A reusable index of one response head. It holds no bytes, only where they are in the caller's buffer.
#[derive(Debug)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    fields: FieldIndex,
}

impl ResponseHead {
    /// An empty index; parse something before you view it.
    pub fn new() -> Self {
        Self { version: Version::Http11, status: 0, reason: Span::default(), fields: FieldIndex::default() }
    }

    /// Reads the head at the start of `buffer`; what follows it is left alone.
    ///
    /// After `Partial`, call again with the same bytes and more.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Progress, HeadError> {
        self.fields.clear();
        let window = &buffer[..buffer.len().min(limits.max_bytes).min(u32::MAX as usize)];
        match self.parse_window(window, limits)? {
            Progress::Partial if buffer.len() >= limits.max_bytes => Err(HeadError::TooLarge),
            progress => Ok(progress),
        }
    }

    /// The head that was parsed, in the buffer it was parsed from.
    pub fn view<'a>(&'a self, buffer: &'a [u8]) -> ResponseView<'a> {
        ResponseView { head: self, buffer }
    }

    fn parse_window(&mut self, window: &[u8], limits: &HeadLimits) -> Result<Progress, HeadError> {
        if let [b'\r' | b'\n', ..] = window {
            return Err(HeadError::StatusLine);
        }
        let mut tokens = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            window,
            &mut tokens[..limits.max_fields.min(MAX_FIELDS)],
        );
        let len = match outcome {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(Progress::Partial),
            Err(error) => return Err(explain(window, error, HeadError::StatusLine)),
        };
        let (Some(minor), Some(status @ 100..)) = (response.version, response.code) else {
            return Err(HeadError::StatusLine);
        };
        let head = &window[..len];
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        self.status = status;
        // An absent reason is a static string of httparse, not a part of the buffer.
        self.reason = match response.reason {
            None | Some("") => Span::default(),
            Some(reason) => Span::of(head, reason.as_bytes()),
        };
        self.fields.index(head, response.headers, self.version)?;
        Ok(Progress::Complete { len })
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

/// A parsed response head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    head: &'a ResponseHead,
    buffer: &'a [u8],
}

impl<'a> ResponseView<'a> {
    /// 100 to 999.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The reason phrase; empty if it is absent or not ASCII.
    pub fn reason(&self) -> &'a [u8] {
        self.head.reason.in_buffer(self.buffer)
    }

    /// The version of the sender.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Every field in the order sent, hop-by-hop ones too.
    ///
    /// A protected field that `Connection` names is not hop-by-hop: such a response harms no one but its sender.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + 'a {
        self.head.fields.fields(self.buffer)
    }

    /// Another response to the same request follows (RFC 9110 15.2); 101 is not interim, it ends HTTP.
    pub fn is_interim(&self) -> bool {
        self.head.status < 200 && self.head.status != 101
    }

    /// How the body of this response to a `request_method` request ends (RFC 9112 6.3).
    pub fn body(&self, request_method: &str) -> BodyLength {
        if request_method == "HEAD" || self.is_always_empty() || self.head.status == 304 {
            return BodyLength::Empty;
        }
        match (self.head.fields.chunked, self.head.fields.content_length) {
            (true, _) => BodyLength::Chunked,
            (false, Some(length)) => BodyLength::Length(length),
            (false, None) => BodyLength::UntilClose,
        }
    }

    /// Can the connection serve another request once the body has ended?
    ///
    /// Never after a response that cannot have a body and yet announces one: it may be followed by it.
    pub fn keep_alive(&self) -> bool {
        let fields = &self.head.fields;
        let announces_body = fields.chunked || fields.content_length.is_some_and(|length| length > 0);
        fields.keep_alive(self.head.version) && !(self.is_always_empty() && announces_body)
    }

    /// The protocol that a 101 changes to.
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        match self.head.fields.upgrade {
            Occurrence::One(protocol) if self.head.status == 101 && self.head.fields.connection.upgrade => {
                Some(protocol.in_buffer(self.buffer))
            }
            Occurrence::None | Occurrence::One(_) | Occurrence::Many => None,
        }
    }

    fn is_always_empty(&self) -> bool {
        self.head.status < 200 || self.head.status == 204
    }
}
