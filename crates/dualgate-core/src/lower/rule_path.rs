//! The path of a rule in the form in which requests' paths are compared.
//!
//! A request's path is compared in its canonical form: unreserved characters (RFC 3986 2.3) stand for
//! themselves, everything else that needs it is `%XX` in upper case. A rule may be written either way.

use crate::model::Text;

/// In canonical form. Slashes and dots stay as they are: the parser has refused `//` and dot segments.
pub(super) fn canonical(path: &Text) -> Text {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], escape(&bytes[at..])) {
            (b'%', Some(byte)) => {
                push(&mut out, byte, is_unreserved(byte));
                at += 3;
            }
            (byte, _) => {
                push(&mut out, byte, byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#' | b'\\'));
                at += 1;
            }
        }
    }
    // Nearly every path is written that way.
    if out == **path { path.clone() } else { out.into() }
}

fn escape(bytes: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(bytes.get(1..3)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push(out: &mut String, byte: u8, plain: bool) {
    if plain {
        out.push(char::from(byte));
    } else {
        out.push_str(&format!("%{byte:02X}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::canonical;

    proptest! {
        #[test]
        fn a_canonical_path_stays_as_it_is(path in any::<String>()) {
            let once = canonical(&path.into());
            prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(canonical(&once), once);
        }
    }

    #[test]
    fn a_rule_may_be_written_encoded_or_not() {
        for (written, expected) in [
            ("/foo", "/foo"),
            ("/%66oo", "/foo"),
            ("/a%2fb", "/a%2Fb"),
            ("/a b", "/a%20b"),
            ("/ü", "/%C3%BC"),
            ("/%c3%bc", "/%C3%BC"),
            ("/100%", "/100%25"),
            ("/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+"),
            ("/%+1", "/%25+1"),
        ] {
            assert_eq!(&*canonical(&written.into()), expected, "{written}");
        }
    }
}
