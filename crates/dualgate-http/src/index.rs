//! The fields of a head as ranges into the caller's buffer, and the framing rules that hold for both directions.
//!
//! `httparse` finds the tokens; [`FieldIndex::index`] walks them once and refuses what `httparse` is lenient about.

use crate::error::HeadError;
use crate::field::{Field, FieldKind, is_protected};
use crate::syntax::{decimal, list};

/// Whether a head is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is the first `len` bytes; the body begins behind it.
    Complete {
        /// Bytes from the start of the buffer, a leading empty line included.
        len: usize,
    },
}

/// The versions this codec speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the version of its name")]
pub enum Version {
    Http10,
    Http11,
}

/// A range of the caller's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `buffer`, lies in it.
    pub(crate) fn of(buffer: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(buffer.as_ptr().addr());
        debug_assert!(start + part.len() <= buffer.len(), "a part of the buffer");
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    /// The bytes; none if `buffer` is not the one that was indexed.
    pub(crate) fn in_buffer(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// How often a field is there that makes sense only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Occurrence {
    #[default]
    None,
    One(Span),
    Many,
}

impl Occurrence {
    fn and(self, value: Span) -> Self {
        match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Many => Self::Many,
        }
    }
}

/// The fields of one head. Kept between messages, so that a warm connection allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct FieldIndex {
    entries: Vec<Entry>,
    pub(crate) content_length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) host: Occurrence,
    pub(crate) upgrade: Occurrence,
    pub(crate) expect: Occurrence,
    pub(crate) connection: Connection,
}

/// What the `Connection` fields say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connection {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// It names a field that it has no right to remove; the field stays.
    pub(crate) names_protected: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
    kind: FieldKind,
    nominated: bool,
}

/// Enough for every sender that means well; a bound on `options x fields` comparisons.
const MAX_CONNECTION_OPTIONS: usize = 16;

impl FieldIndex {
    pub(crate) fn clear(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        *self = Self { entries, ..Self::default() };
    }

    /// Indexes the tokens of a complete head: `head` is the whole of it, `tokens` are slices of it.
    pub(crate) fn index(
        &mut self,
        head: &[u8],
        tokens: &[httparse::Header<'_>],
        version: Version,
    ) -> Result<(), HeadError> {
        let mut has_connection = false;
        for token in tokens {
            let name = Span::of(head, token.name.as_bytes());
            let value = Span::of(head, token.value);
            follows_crlf(head, name.start())?;
            let kind = FieldKind::of(token.name.as_bytes());
            match kind {
                FieldKind::Other => {}
                FieldKind::Host => self.host = self.host.and(value),
                FieldKind::ContentLength => self.content_length(token.value)?,
                FieldKind::TransferEncoding => self.transfer_encoding(token.value)?,
                FieldKind::Connection => has_connection = true,
                FieldKind::Upgrade => self.upgrade = self.upgrade.and(value),
                FieldKind::Expect => self.expect = self.expect.and(value),
                FieldKind::Te
                | FieldKind::KeepAlive
                | FieldKind::ProxyConnection
                | FieldKind::ProxyAuthorization
                | FieldKind::ProxyAuthenticate
                | FieldKind::Http2Settings => {}
            }
            self.entries.push(Entry { name, value, kind, nominated: false });
        }
        if !head.ends_with(b"\r\n\r\n") {
            return Err(HeadError::BareLineFeed);
        }
        if self.chunked && version == Version::Http10 {
            return Err(HeadError::TransferEncodingHttp10);
        }
        if self.chunked && self.content_length.is_some() {
            return Err(HeadError::LengthConflict);
        }
        if has_connection { self.connection(head) } else { Ok(()) }
    }

    pub(crate) fn fields<'a>(&'a self, buffer: &'a [u8]) -> impl Iterator<Item = Field<'a>> + 'a {
        self.entries.iter().map(|entry| Field {
            name: entry.name.in_buffer(buffer),
            value: entry.value.in_buffer(buffer),
            kind: entry.kind,
            nominated: entry.nominated,
        })
    }

    /// Does the connection stay open after this message (RFC 9112 9.3)?
    pub(crate) fn keep_alive(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.content_length.is_some() {
            return Err(HeadError::ContentLengthDuplicate);
        }
        self.content_length = Some(decimal(value).ok_or(HeadError::ContentLength)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn connection(&mut self, head: &[u8]) -> Result<(), HeadError> {
        let mut options = 0;
        for at in 0..self.entries.len() {
            let Entry { value, kind: FieldKind::Connection, .. } = self.entries[at] else { continue };
            for option in list(value.in_buffer(head)) {
                options += 1;
                if options > MAX_CONNECTION_OPTIONS {
                    return Err(HeadError::TooManyConnectionOptions);
                }
                self.connection_option(head, option);
            }
        }
        Ok(())
    }

    fn connection_option(&mut self, head: &[u8], option: &[u8]) {
        if option.eq_ignore_ascii_case(b"keep-alive") {
            self.connection.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"close") {
            self.connection.close = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.connection.upgrade = true;
        } else if is_protected(option) {
            self.connection.names_protected = true;
        } else {
            for entry in &mut self.entries {
                entry.nominated |= entry.name.in_buffer(head).eq_ignore_ascii_case(option);
            }
        }
    }
}

/// `httparse` takes a bare LF for a line end, and lets nothing else stand there: a CR two bytes before a field name
/// says that the line before it ended in CRLF.
fn follows_crlf(head: &[u8], at: usize) -> Result<(), HeadError> {
    match at.checked_sub(2).and_then(|cr| head.get(cr)) {
        Some(b'\r') => Ok(()),
        _ => Err(HeadError::BareLineFeed),
    }
}

/// The name of the rule that `httparse` saw broken. Only for a head that is refused anyway.
#[cold]
pub(crate) fn explain(head: &[u8], error: httparse::Error, start_line: HeadError) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Token | httparse::Error::Status => start_line,
        httparse::Error::NewLine => HeadError::BareCarriageReturn,
        httparse::Error::HeaderValue if has_bare_cr(head) => HeadError::BareCarriageReturn,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::HeaderName => {
            head.split_inclusive(|byte| *byte == b'\n').skip(1).find_map(fault_of_name).unwrap_or(HeadError::FieldName)
        }
    }
}

fn fault_of_name(line: &[u8]) -> Option<HeadError> {
    let name = &line[..line.iter().position(|byte| *byte == b':').unwrap_or(line.len())];
    match name {
        [] => Some(HeadError::EmptyFieldName),
        [b' ' | b'\t', ..] => Some(HeadError::ObsoleteFold),
        [.., b' ' | b'\t'] => Some(HeadError::SpaceBeforeColon),
        _ => None,
    }
}

fn has_bare_cr(head: &[u8]) -> bool {
    head.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n')
}
