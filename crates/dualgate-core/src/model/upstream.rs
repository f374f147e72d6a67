//! A resolver that others are asked through, as a person writes it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::Host;
use super::text::Text;

const DNS: u16 = 53;
/// RFC 7858 3.1.
const DNS_OVER_TLS: u16 = 853;
const HTTPS: u16 = 443;
/// What RFC 8484 has in its examples, and everybody uses.
const PATH: &str = "/dns-query";

/// A resolver that is asked. Always by its address: nobody else is there who could say it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: UpstreamProtocol,
}

/// How a resolver is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpstreamProtocol {
    /// UDP, and TCP for what does not fit.
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// Whose certificate it must have; `None` is that of its address.
        name: Option<Text>,
    },
    /// DNS over HTTPS (RFC 8484), by HTTP/2.
    Https {
        /// Whose certificate it must have; `None` is that of its address.
        name: Option<Text>,
        /// The path of its URL.
        path: Text,
    },
}

impl Upstream {
    /// Spoken to without encryption.
    pub fn plain(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, protocol: UpstreamProtocol::Plain })
    }

    /// Whose certificate it must have, if it is spoken to encrypted: a name, or an address.
    pub fn certified(&self) -> Option<String> {
        match &self.protocol {
            UpstreamProtocol::Plain => None,
            UpstreamProtocol::Tls { name } | UpstreamProtocol::Https { name, .. } => {
                Some(name.as_ref().map_or_else(|| self.address.ip().to_string(), ToString::to_string))
            }
        }
    }

    /// The port that goes without saying.
    fn usual_port(&self) -> u16 {
        match self.protocol {
            UpstreamProtocol::Plain => DNS,
            UpstreamProtocol::Tls { .. } => DNS_OVER_TLS,
            UpstreamProtocol::Https { .. } => HTTPS,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, name) = match &self.protocol {
            UpstreamProtocol::Plain => ("", "", None),
            UpstreamProtocol::Tls { name } => ("tls://", "", name.as_ref()),
            UpstreamProtocol::Https { name, path } => ("https://", &**path, name.as_ref()),
        };
        f.write_str(scheme)?;
        match (self.address.ip(), self.address.port()) {
            (IpAddr::V6(ip), port) if port == self.usual_port() && !scheme.is_empty() => write!(f, "[{ip}]")?,
            (ip, port) if port == self.usual_port() => write!(f, "{ip}")?,
            _ => write!(f, "{}", self.address)?,
        }
        f.write_str(path)?;
        name.map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

impl FromStr for Upstream {
    type Err = String;

    /// `ADDRESS`, `tls://ADDRESS#NAME` or `https://ADDRESS/PATH#NAME`, each with `:PORT` after the address or without.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (written, name) = match text.split_once('#') {
            Some((written, name)) => (written, Some(name)),
            None => (text, None),
        };
        if let Some(written) = written.strip_prefix("tls://") {
            let (address, name) = (address(written, DNS_OVER_TLS, text)?, certified(name, text)?);
            return Ok(Self { address, protocol: UpstreamProtocol::Tls { name } });
        }
        if let Some(written) = written.strip_prefix("https://") {
            let (written, path) = written.split_at(written.find('/').unwrap_or(written.len()));
            let path = if path.is_empty() { PATH } else { path };
            if !path.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err(format!("`{path}` is no path of a URL"));
            }
            let (address, name) = (address(written, HTTPS, text)?, certified(name, text)?);
            return Ok(Self { address, protocol: UpstreamProtocol::Https { name, path: path.into() } });
        }
        if name.is_some() {
            return Err(format!("`{text}` has a name but no `tls://` or `https://`: nobody would look at it"));
        }
        let bare = written.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS)).or_else(|_| written.parse());
        let address = bare.map_err(|_| format!("`{text}` is not an address of a resolver"))?;
        Ok(Self { address, protocol: UpstreamProtocol::Plain })
    }
}

fn address(written: &str, usual: u16, text: &str) -> Result<SocketAddr, String> {
    let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
    let read = bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, usual)).or_else(|_| written.parse());
    read.map_err(|_| {
        let name = written.rsplit_once(':').map_or(written, |(name, _)| name);
        match name.parse::<Host>() {
            Ok(name) => format!(
                "`{text}` names a resolver that somebody else would have to find first: write its address, and `#{name}` behind it"
            ),
            Err(_) => format!("`{written}` in `{text}` is not an address of a resolver"),
        }
    })
}

fn certified(name: Option<&str>, text: &str) -> Result<Option<Text>, String> {
    let read = |name: &str| match name.parse::<Host>() {
        Ok(host) => Ok(host.as_str().into()),
        Err(_) => Err(format!("`{name}` in `{text}` is no name that a certificate could be for")),
    };
    name.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_written_as_it_is_read() {
        for (text, address, shown) in [
            ("192.168.178.1", "192.168.178.1:53", "192.168.178.1"),
            ("127.0.0.1:5353", "127.0.0.1:5353", "127.0.0.1:5353"),
            ("fd00:1::1", "[fd00:1::1]:53", "fd00:1::1"),
            ("tls://9.9.9.9#Dns.Quad9.net", "9.9.9.9:853", "tls://9.9.9.9#dns.quad9.net"),
            ("tls://[2620:fe::fe]#dns.quad9.net", "[2620:fe::fe]:853", "tls://[2620:fe::fe]#dns.quad9.net"),
            ("tls://2620:fe::fe", "[2620:fe::fe]:853", "tls://[2620:fe::fe]"),
            ("tls://1.1.1.1:8853", "1.1.1.1:8853", "tls://1.1.1.1:8853"),
            ("https://9.9.9.9", "9.9.9.9:443", "https://9.9.9.9/dns-query"),
            (
                "https://[2620:fe::fe]:8443/q#dns.quad9.net",
                "[2620:fe::fe]:8443",
                "https://[2620:fe::fe]:8443/q#dns.quad9.net",
            ),
        ] {
            let read: Upstream = text.parse().unwrap();
            assert_eq!((read.address.to_string().as_str(), read.to_string().as_str()), (address, shown), "{text}");
            assert_eq!(shown.parse(), Ok(read), "{text}");
        }
        for (text, why) in [
            ("tls://dns.quad9.net", "`#dns.quad9.net` behind it"),
            ("https://dns.quad9.net/dns-query", "`#dns.quad9.net` behind it"),
            ("192.168.178.1#fritz.box", "no `tls://`"),
            ("tls://9.9.9.9#a b", "no name that a certificate"),
            ("tls://[9.9.9.9", "not an address"),
            ("one.one.one.one", "not an address of a resolver"),
            ("", "not an address of a resolver"),
        ] {
            let error = text.parse::<Upstream>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
