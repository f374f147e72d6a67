//! WireGuard's public keys: who a peer is. Private and preshared keys are `Secret`s and lie with the host.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// A public key of Curve25519, written in base64 as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its octets.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// Its octets, as netlink wants them.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = STANDARD.decode(text).ok().and_then(|octets| <[u8; 32]>::try_from(octets).ok());
        match octets {
            Some(octets) if octets != [0; 32] => Ok(Self(octets)),
            // The point at infinity: WireGuard means "no key" by it.
            Some(_) => Err("a key of zeros is nobody's".to_owned()),
            None => Err(format!("`{text}` is not a WireGuard key: 32 octets in base64, 44 characters that end in `=`")),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is known of one node's public keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKeys {
    /// Nothing: it cannot be a peer.
    #[default]
    Unknown,
    /// One key.
    Current(PublicKey),
    /// During a rotation: the one in use, and the one that it changes to at any moment.
    Rotating {
        /// In use.
        current: PublicKey,
        /// In use from the first handshake with it.
        next: PublicKey,
    },
}

impl PublicKeys {
    /// Every key, the one in use first.
    pub fn iter(&self) -> impl Iterator<Item = PublicKey> + use<> {
        let (current, next) = match *self {
            Self::Unknown => (None, None),
            Self::Current(current) => (Some(current), None),
            Self::Rotating { current, next } => (Some(current), Some(next)),
        };
        current.into_iter().chain(next)
    }

    /// The key in use.
    pub fn current(&self) -> Option<PublicKey> {
        self.iter().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_key_reads_what_it_prints() {
        assert_eq!(KEY.parse::<PublicKey>().unwrap().to_string(), KEY);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let zeros = "A".repeat(43) + "=";
        for wrong in ["", "x", &KEY[..43], &KEY[..42], &zeros, &format!("{KEY}\n"), &KEY.replace("o=", "p=")] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong:?}");
        }
    }
}
