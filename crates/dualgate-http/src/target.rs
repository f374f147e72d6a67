//! The request target and its forms (RFC 9112 3.2).

use crate::error::HeadError;
use crate::index::Span;

/// What a request asks for. CONNECT's form is missing: it is refused before it has a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/path?query`, not yet canonical.
    Origin {
        /// Begins with `/`.
        path_and_query: &'a [u8],
    },
    /// `http://host/path?query`.
    Absolute {
        /// The scheme it names; whether the connection agrees is for the caller to say.
        scheme: Scheme,
        /// Equal to `Host`, if there is one.
        authority: &'a [u8],
        /// Begins with `/`; `/` if the target has no path.
        path_and_query: &'a [u8],
    },
    /// `*`, of an OPTIONS request.
    Asterisk,
}

/// The schemes a gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the scheme of its name")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A target as ranges of the caller's buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum TargetIndex {
    Origin(Span),
    Absolute {
        scheme: Scheme,
        authority: Span,
        path_and_query: Span,
    },
    #[default]
    Asterisk,
}

impl TargetIndex {
    pub(crate) fn parse(head: &[u8], method: &[u8], target: &[u8]) -> Result<Self, HeadError> {
        if method == b"CONNECT" {
            return Err(HeadError::Connect);
        }
        check_bytes(target)?;
        match target {
            [b'/', ..] => Ok(Self::Origin(Span::of(head, target))),
            b"*" if method == b"OPTIONS" => Ok(Self::Asterisk),
            _ => Self::absolute(head, target),
        }
    }

    pub(crate) fn in_buffer(self, buffer: &[u8]) -> Target<'_> {
        match self {
            Self::Origin(path_and_query) => Target::Origin { path_and_query: path_and_query.in_buffer(buffer) },
            Self::Absolute { scheme, authority, path_and_query } => Target::Absolute {
                scheme,
                authority: authority.in_buffer(buffer),
                path_and_query: match path_and_query.in_buffer(buffer) {
                    [] => b"/",
                    path_and_query => path_and_query,
                },
            },
            Self::Asterisk => Target::Asterisk,
        }
    }

    fn absolute(head: &[u8], target: &[u8]) -> Result<Self, HeadError> {
        let (scheme, rest) = if let Some(rest) = strip_scheme(target, b"http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = strip_scheme(target, b"https://") {
            (Scheme::Https, rest)
        } else {
            return Err(HeadError::Target);
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(end);
        if path_and_query.starts_with(b"?") {
            return Err(HeadError::Target);
        }
        Ok(Self::Absolute {
            scheme,
            authority: Span::of(head, authority),
            path_and_query: Span::of(head, path_and_query),
        })
    }
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `httparse` lets UTF-8 and `#` pass.
fn check_bytes(target: &[u8]) -> Result<(), HeadError> {
    let clean = target.iter().fold(true, |clean, byte| clean & byte.is_ascii_graphic() & (*byte != b'#'));
    match clean {
        true => Ok(()),
        false if target.contains(&b'#') => Err(HeadError::Fragment),
        false => Err(HeadError::TargetByte),
    }
}
