//! `host[:port]`, of a `Host` field or a target (RFC 3986 3.2).
//!
//! Narrower than the RFC: a registered name is made of letters, digits, `-`, `_` and `.`; user information and
//! percent-encoding are refused. What two programs could take for two different hosts is no host.

use std::net::Ipv6Addr;

use crate::syntax::decimal;

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Where to.
    pub host: Host<'a>,
    /// 1 to 65535.
    pub port: Option<u16>,
}

/// The host of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name or an IPv4 address, as sent, without the dot that may end it.
    Name(&'a [u8]),
    /// An IPv6 literal, which was in brackets.
    Ipv6(Ipv6Addr),
}

/// Why something is no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No host.
    #[error("empty host")]
    Empty,
    /// `user@host`.
    #[error("user information in the authority")]
    UserInfo,
    /// A byte that no host name has, an empty label, or more than 253 bytes.
    #[error("malformed host name")]
    Name,
    /// What is in the brackets is no IPv6 address, or they do not close.
    #[error("malformed IPv6 literal")]
    Ipv6,
    /// Not a number from 1 to 65535.
    #[error("malformed port")]
    Port,
}

impl Authority<'_> {
    /// Appends the form that hosts are compared in: lower case, no port, no final dot, IPv6 in brackets and shortest.
    pub fn normalised_host(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        match self.host {
            Host::Name(name) => out.extend(name.iter().map(u8::to_ascii_lowercase)),
            Host::Ipv6(address) => {
                // A vector takes everything.
                let _ = write!(out, "[{address}]");
            }
        }
    }
}

/// Reads an authority; nothing else may be around it.
pub fn parse_authority(authority: &[u8]) -> Result<Authority<'_>, AuthorityError> {
    let parsed = match authority {
        [b'[', literal @ ..] => ipv6(literal),
        _ => name(authority),
    };
    parsed.map_err(|error| if authority.contains(&b'@') { AuthorityError::UserInfo } else { error })
}

fn ipv6(literal: &[u8]) -> Result<Authority<'_>, AuthorityError> {
    let end = literal.iter().position(|byte| *byte == b']').ok_or(AuthorityError::Ipv6)?;
    let address =
        str::from_utf8(&literal[..end]).ok().and_then(|text| text.parse().ok()).ok_or(AuthorityError::Ipv6)?;
    let port = match &literal[end + 1..] {
        [] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err(AuthorityError::Ipv6),
    };
    Ok(Authority { host: Host::Ipv6(address), port })
}

fn name(authority: &[u8]) -> Result<Authority<'_>, AuthorityError> {
    const MAX_NAME: usize = 253;
    let mut end = authority.len();
    let mut in_label = false;
    for (at, byte) in authority.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => in_label = true,
            b'.' if in_label => in_label = false,
            b':' => {
                end = at;
                break;
            }
            _ => return Err(AuthorityError::Name),
        }
    }
    let name = if in_label { &authority[..end] } else { &authority[..end.saturating_sub(1)] };
    let port = match &authority[end..] {
        [_, digits @ ..] => Some(port(digits)?),
        [] => None,
    };
    match name.len() {
        0 => Err(AuthorityError::Empty),
        1..=MAX_NAME => Ok(Authority { host: Host::Name(name), port }),
        _ => Err(AuthorityError::Name),
    }
}

fn port(digits: &[u8]) -> Result<u16, AuthorityError> {
    const MAX_DIGITS: usize = 5;
    if digits.len() > MAX_DIGITS {
        return Err(AuthorityError::Port);
    }
    let number = decimal(digits).and_then(|number| u16::try_from(number).ok());
    number.filter(|port| *port != 0).ok_or(AuthorityError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(authority: &str) -> Result<(String, Option<u16>), AuthorityError> {
        let authority = parse_authority(authority.as_bytes())?;
        let mut host = Vec::new();
        authority.normalised_host(&mut host);
        Ok((String::from_utf8(host).unwrap(), authority.port))
    }

    #[test]
    fn hosts_that_are_the_same_compare_equal() {
        for same in ["example.com", "EXAMPLE.com", "example.com."] {
            assert_eq!(normalised(same), Ok(("example.com".into(), None)));
        }
        assert_eq!(normalised("Example.com.:8080"), Ok(("example.com".into(), Some(8080))));
        assert_eq!(normalised("192.0.2.1:80"), Ok(("192.0.2.1".into(), Some(80))));
        assert_eq!(normalised("[2001:DB8:0::1]:443"), Ok(("[2001:db8::1]".into(), Some(443))));
    }

    #[test]
    fn what_is_no_host_is_refused_by_name() {
        let cases = [
            ("", AuthorityError::Empty),
            (".", AuthorityError::Name),
            ("a:80@b", AuthorityError::UserInfo),
            ("a.:80:", AuthorityError::Port),
            (":80", AuthorityError::Empty),
            ("user@host", AuthorityError::UserInfo),
            ("a b", AuthorityError::Name),
            ("a%2eb", AuthorityError::Name),
            ("a..b", AuthorityError::Name),
            (".a", AuthorityError::Name),
            ("a,b", AuthorityError::Name),
            ("a/b", AuthorityError::Name),
            ("2001:db8::1", AuthorityError::Port),
            ("[2001:db8::1", AuthorityError::Ipv6),
            ("[192.0.2.1]", AuthorityError::Ipv6),
            ("[::1%eth0]", AuthorityError::Ipv6),
            ("[::1]x", AuthorityError::Ipv6),
            ("a:", AuthorityError::Port),
            ("a:0", AuthorityError::Port),
            ("a:65536", AuthorityError::Port),
            ("a:+80", AuthorityError::Port),
            ("a:000080", AuthorityError::Port),
        ];
        for (authority, expected) in cases {
            assert_eq!(normalised(authority), Err(expected), "{authority:?}");
        }
        assert_eq!(normalised(&"a".repeat(254)), Err(AuthorityError::Name));
    }
}
