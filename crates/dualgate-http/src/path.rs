//! The one form of a path that is routed by, checked against policies, and forwarded.
//!
//! Two parsers that see two different paths in the same bytes are a way around every rule that names a path
//! (CVE-2026-40912, CVE-2026-48020, CVE-2025-66490). So there is one form, computed once. Where servers are known to
//! disagree about what bytes mean, there is none, and the request is refused.

use std::borrow::Borrow;

use crate::syntax::{hex, is_visible};

/// A path in canonical form:
///
/// - begins with `/`, has no empty segment but perhaps the last, and no segment `.` or `..`;
/// - unreserved characters (RFC 3986 2.3) are themselves, everything else that was encoded is `%XX` in upper case;
/// - `%2F` is a byte of its segment, never a separator;
/// - all of it is visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath<'a>(&'a [u8]);

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("path does not begin with a slash")]
    NotAbsolute,
    /// `..` above the root.
    #[error("path climbs above its root")]
    AboveRoot,
    /// `%` without two hexadecimal digits.
    #[error("malformed percent-encoding")]
    Percent,
    /// `%00`.
    #[error("encoded NUL")]
    Nul,
    /// `\` or `%5C`, which some servers take for `/`.
    #[error("backslash")]
    Backslash,
    /// A raw control byte, space, `#`, or byte outside of ASCII.
    #[error("byte that must be encoded")]
    Byte,
    /// A dot segment that only some servers see: `..;x`, `..%2F`.
    #[error("hidden dot segment")]
    HiddenDots,
}

impl<'a> CanonicalPath<'a> {
    /// Brings `path`, without query, into canonical form. A path that has it already is borrowed; `scratch` holds any
    /// other.
    pub fn new(path: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, PathError> {
        if path.is_empty() {
            return Ok(Self(b"/"));
        }
        if is_plainly_canonical(path) {
            return Ok(Self(path));
        }
        scratch.clear();
        canonicalise(path, scratch)?;
        Ok(Self(scratch))
    }

    /// The bytes, all visible ASCII.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The path as text.
    pub fn as_str(self) -> &'a str {
        str::from_utf8(self.0).unwrap_or("/")
    }

    /// The path below `prefix`, by whole segments: `/api` takes `/api/x` to `/x`, and leaves `/apix` alone. What is
    /// left is canonical again, because it is cut from a canonical path at a slash (CVE-2026-48020).
    pub fn below(self, prefix: CanonicalPath<'_>) -> Option<Self> {
        let prefix = prefix.0.strip_suffix(b"/").unwrap_or(prefix.0);
        match self.0.strip_prefix(prefix)? {
            [] => Some(Self(b"/")),
            rest @ [b'/', ..] => Some(Self(rest)),
            _ => None,
        }
    }
}

impl Borrow<[u8]> for CanonicalPath<'_> {
    fn borrow(&self) -> &[u8] {
        self.0
    }
}

/// A path and the query behind the first `?`.
pub fn split_query(path_and_query: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path_and_query.iter().position(|byte| *byte == b'?') {
        None => (path_and_query, None),
        Some(mark) => (&path_and_query[..mark], Some(&path_and_query[mark + 1..])),
    }
}

/// A query is forwarded as it is, and so must be nothing but visible ASCII without `#`.
pub fn check_query(query: &[u8]) -> Result<(), PathError> {
    if is_visible(query) && !query.contains(&b'#') { Ok(()) } else { Err(PathError::Byte) }
}

/// One pass that knows most paths: plain bytes, and no slash that a dot or a slash follows.
fn is_plainly_canonical(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match class(*byte) {
            Class::Plain => after_slash = false,
            Class::Slash | Class::Dot if after_slash => return false,
            Class::Slash => after_slash = true,
            Class::Dot => {}
            Class::Percent | Class::Backslash | Class::Refused => return false,
        }
    }
    path.starts_with(b"/")
}

/// Invariant: `out` is a canonical path without the slash that may end it; empty is the root.
fn canonicalise(path: &[u8], out: &mut Vec<u8>) -> Result<(), PathError> {
    let path = path.strip_prefix(b"/").ok_or(PathError::NotAbsolute)?;
    let mut ends_in_slash = true;
    for segment in path.split(|byte| *byte == b'/') {
        let before = out.len();
        out.push(b'/');
        decode_segment(segment, out)?;
        ends_in_slash = true;
        match &out[before + 1..] {
            b"" | b"." => out.truncate(before),
            b".." => {
                let parent = out[..before].iter().rposition(|byte| *byte == b'/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent);
            }
            segment if hides_dots(segment) => return Err(PathError::HiddenDots),
            _ => ends_in_slash = false,
        }
    }
    if ends_in_slash {
        out.push(b'/');
    }
    Ok(())
}

fn decode_segment(mut segment: &[u8], out: &mut Vec<u8>) -> Result<(), PathError> {
    while let [byte, rest @ ..] = segment {
        segment = match class(*byte) {
            Class::Plain | Class::Dot | Class::Slash => {
                out.push(*byte);
                rest
            }
            Class::Percent => {
                let [high, low, rest @ ..] = rest else { return Err(PathError::Percent) };
                write_decoded(hex(*high).zip(hex(*low)).ok_or(PathError::Percent)?, out)?;
                rest
            }
            Class::Backslash => return Err(PathError::Backslash),
            Class::Refused => return Err(PathError::Byte),
        };
    }
    Ok(())
}

fn write_decoded((high, low): (u8, u8), out: &mut Vec<u8>) -> Result<(), PathError> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match high << 4 | low {
        0 => return Err(PathError::Nul),
        b'\\' => return Err(PathError::Backslash),
        byte @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => out.push(byte),
        _ => out.extend_from_slice(&[b'%', DIGITS[usize::from(high)], DIGITS[usize::from(low)]]),
    }
    Ok(())
}

/// Would a server that cuts path parameters off, or decodes `%2F`, see a dot segment here?
fn hides_dots(segment: &[u8]) -> bool {
    let mut part = segment;
    loop {
        let next = part.windows(3).position(|triplet| triplet == b"%2F");
        let piece = &part[..next.unwrap_or(part.len())];
        let after_dots = piece.strip_prefix(b"..").or(piece.strip_prefix(b"."));
        if let Some([] | [b';', ..] | [b'%', b'3', b'B', ..]) = after_dots {
            return true;
        }
        match next {
            Some(next) => part = &part[next + 3..],
            None => return false,
        }
    }
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Dot,
    Percent,
    Backslash,
    Refused,
}

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

static CLASSES: [Class; 256] = {
    let mut table = [Class::Refused; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'#' | b'?' => Class::Refused,
            b'!'..=b'~' => Class::Plain,
            _ => Class::Refused,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canonical_path_is_borrowed() {
        let mut scratch = Vec::new();
        let path = b"/api/v1/a;b=c/x.y";
        let canonical = CanonicalPath::new(path, &mut scratch).unwrap();
        assert!(std::ptr::eq(canonical.as_bytes(), path));
        assert_eq!(scratch.capacity(), 0);
    }

    #[test]
    fn a_prefix_is_cut_off_by_whole_segments() {
        let (mut of_path, mut of_prefix) = (Vec::new(), Vec::new());
        let mut below = |path: &str, prefix: &str| {
            let path = CanonicalPath::new(path.as_bytes(), &mut of_path).unwrap();
            let prefix = CanonicalPath::new(prefix.as_bytes(), &mut of_prefix).unwrap();
            path.below(prefix).map(|path| path.as_str().to_owned())
        };
        assert_eq!(below("/api/x", "/api").as_deref(), Some("/x"));
        assert_eq!(below("/api/x/", "/api/").as_deref(), Some("/x/"));
        assert_eq!(below("/api", "/api").as_deref(), Some("/"));
        assert_eq!(below("/x", "/").as_deref(), Some("/x"));
        assert_eq!(below("/apix", "/api"), None);
        assert_eq!(below("/api../admin", "/api"), None);
    }

    #[test]
    fn a_query_begins_at_the_first_question_mark() {
        assert_eq!(split_query(b"/a?b?c"), (&b"/a"[..], Some(&b"b?c"[..])));
        assert_eq!(split_query(b"/a?"), (&b"/a"[..], Some(&b""[..])));
        assert_eq!(split_query(b"/a"), (&b"/a"[..], None));
    }

    #[test]
    fn a_query_is_visible_ascii() {
        assert_eq!(check_query(b"a=%zz&b=[]|^"), Ok(()));
        for query in [&b"a b"[..], b"a#b", b"\x7f", b"\xc3\xa4", b"\r\n"] {
            assert_eq!(check_query(query), Err(PathError::Byte));
        }
    }
}
