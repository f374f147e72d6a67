//! What is asked: a URL at a gate.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::GateName;

/// A URL as a client at one gate would ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The gate.
    pub gate: GateName,
    /// The scheme of the URL.
    pub scheme: UrlScheme,
    /// The host: lower case, without port and trailing dot; a literal IPv6 address without brackets.
    pub host: String,
    /// The port of the entry point.
    pub port: u16,
    /// The path, canonical, without query.
    pub path: String,
}

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UrlScheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl UrlScheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Question {
    /// From a URL; one without a scheme is of `https`. Its path must be canonical already; user information, query and fragment
    /// take no part.
    pub fn parse(url: &str, gate: GateName) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => UrlScheme::Http,
            "https" => UrlScheme::Https,
            other => return Err(format!("`{other}` is not `http` or `https`")),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return Err(format!("`{url}` is not a URL: `https://host/path`"));
        }
        let port = match port {
            None | Some("") => scheme.default_port(),
            Some(port) => port.parse().map_err(|_| format!("`{port}` is not a port"))?,
        };
        let path = target.split(['?', '#']).next().filter(|path| !path.is_empty()).unwrap_or("/");
        Ok(Self { gate, scheme, host: normal_host(host), port, path: path.to_owned() })
    }

    /// The same with another Host field.
    pub fn with_host_field(self, field: &str) -> Self {
        Self { host: normal_host(split_port(field).0), ..self }
    }

    /// What a client sends as server name (SNI): never an address.
    pub fn server_name(&self) -> Option<&str> {
        (!self.host.is_empty() && self.host.parse::<IpAddr>().is_err()).then_some(self.host.as_str())
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

/// Host and port of an authority; the colons of an IPv6 literal in brackets are its own.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    }
}

fn normal_host(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_a_client_would() {
        for (url, host, port, path) in [
            ("http://A.Example.org.", "a.example.org", 80, "/"),
            ("https://a.b/c?d#e", "a.b", 443, "/c"),
            ("http://u:p@a.b:8080?x", "a.b", 8080, "/"),
            ("http://[FD00::5]:81/", "fd00::5", 81, "/"),
            ("https://[::1]/x", "::1", 443, "/x"),
            ("a.b", "a.b", 443, "/"),
            ("a.b:8443/c", "a.b", 8443, "/c"),
            ("[::1]", "::1", 443, "/"),
        ] {
            let question = Question::parse(url, GateName::Internal).unwrap();
            assert_eq!((&*question.host, question.port, &*question.path), (host, port, path), "{url}");
        }
        for wrong in ["", "/a", "http://", "ftp://a.b", "http://a.b:x/"] {
            assert!(Question::parse(wrong, GateName::Internal).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_no_server_name() {
        let name = |url| Question::parse(url, GateName::Internal).unwrap().server_name().map(str::to_owned);
        assert_eq!((name("https://[::1]/"), name("https://10.0.0.1/")), (None, None));
        assert_eq!(name("https://a.b/").as_deref(), Some("a.b"));
    }
}
