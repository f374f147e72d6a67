//! DNS messages: octets and what they mean (RFC 1035, RFC 6891, RFC 7873, RFC 9460).
//!
//! What is asked is read without a copy ([`Query`]), what is answered is written into a buffer that the caller keeps
//! ([`Writer`]); neither allocates. Messages of others, whose names may be compressed, are walked record by record
//! ([`records`]). What a name leads to is not known here.

pub mod cookie;
mod decode;
mod name;
mod query;
mod rdata;
mod records;
mod text;
pub mod tsig;
pub mod update;
mod writer;

use std::fmt;
use std::str::FromStr;

pub use name::{Name, NameError, labels, lower, suffixes};
pub use query::{Edns, Query, Unreadable};
pub use rdata::{Rdata, ServiceBinding};
pub use records::{BadMessage, Record, Records, expand, records};
pub use text::RdataError;
pub use writer::{Flags, Full, Opt, QUESTION, Section, Writer, encode, failure, slip};

/// Octets of a message's header.
pub const HEADER: usize = 12;
/// The most that an answer over UDP has: it passes every line without fragments (RFC 9715 3).
pub const UDP_LIMIT: usize = 1232;
/// The most that an answer over UDP has for those who do not speak EDNS(0) (RFC 1035 4.2.1).
pub const PLAIN_UDP_LIMIT: usize = 512;

/// The type of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

macro_rules! record_types {
    ($($(#[$doc:meta])+ $name:ident = $number:literal;)+) => {
        impl RecordType {
            $($(#[$doc])+ pub const $name: Self = Self($number);)+

            const NAMES: &[(&str, Self)] = &[$((stringify!($name), Self::$name),)+];
        }
    };
}

record_types! {
    /// An IPv4 address.
    A = 1;
    /// A name server.
    NS = 2;
    /// Another name for the same.
    CNAME = 5;
    /// The start of a zone.
    SOA = 6;
    /// A name for an address.
    PTR = 12;
    /// What RFC 8482 answers instead of everything.
    HINFO = 13;
    /// A mail server.
    MX = 15;
    /// Text.
    TXT = 16;
    /// An IPv6 address.
    AAAA = 28;
    /// Where a service is.
    SRV = 33;
    /// Another name for everything below.
    DNAME = 39;
    /// EDNS(0).
    OPT = 41;
    /// What the parent knows of a child's keys.
    DS = 43;
    /// A signature.
    RRSIG = 46;
    /// What does not exist.
    NSEC = 47;
    /// A key.
    DNSKEY = 48;
    /// Which certificate a TLS server has.
    TLSA = 52;
    /// Where a service is, and how it is spoken to.
    SVCB = 64;
    /// The same for HTTP.
    HTTPS = 65;
    /// A key of a transaction.
    TKEY = 249;
    /// A signature of a transaction.
    TSIG = 250;
    /// A part of a zone.
    IXFR = 251;
    /// A whole zone.
    AXFR = 252;
    /// Every type.
    ANY = 255;
    /// Who may issue certificates.
    CAA = 257;
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, known)| known == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecordType {
    type Err = String;

    /// A mnemonic, or `TYPE` with a number (RFC 3597).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let known = Self::NAMES.iter().find(|(name, _)| *name == upper).map(|(_, known)| *known);
        let number = || upper.strip_prefix("TYPE").and_then(|number| number.parse().ok()).map(Self);
        known.or_else(number).ok_or_else(|| format!("`{text}` is not a type of records"))
    }
}

/// The class of a record: the Internet's, or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u16);

impl Class {
    /// The Internet.
    pub const IN: Self = Self(1);
    /// Chaosnet: what servers say of themselves.
    pub const CH: Self = Self(3);
    /// Every class.
    pub const ANY: Self = Self(255);
}

/// How a question went; the upper bits travel in EDNS(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rcode {
    /// It went well.
    NoError,
    /// The question cannot be read.
    FormErr,
    /// It could not be answered.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// That is not done here.
    NotImp,
    /// It is not answered for this asker.
    Refused,
    /// An unknown version of EDNS.
    BadVers,
}

impl Rcode {
    /// On the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }
}
