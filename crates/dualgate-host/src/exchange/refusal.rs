//! Why a connection is refused or given up: each reason has a name and is counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection is refused or given up, in the order in which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Too many others are about to prove who they are.
    TooMany,
    /// It took too long to prove who it is.
    Late,
    /// It does not speak this protocol.
    Foreign,
    /// It speaks another version.
    Version,
    /// It is of another site.
    Site,
    /// It names a node that may not speak here.
    UnknownNode,
    /// It does not have that node's keys.
    WrongKey,
    /// Its proof was not made for this connection: somebody says again what another one said before.
    Replayed,
    /// A frame was altered, repeated, left out or moved.
    Forged,
    /// It says more than anybody should.
    TooLarge,
    /// What it says cannot be read.
    Malformed,
    /// It ends in the middle of a word.
    Truncated,
    /// It neither speaks nor listens.
    Silent,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::TooMany,
        Self::Late,
        Self::Foreign,
        Self::Version,
        Self::Site,
        Self::UnknownNode,
        Self::WrongKey,
        Self::Replayed,
        Self::Forged,
        Self::TooLarge,
        Self::Malformed,
        Self::Truncated,
        Self::Silent,
    ];

    /// Its name, for metrics.
    pub fn id(self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Late => "late",
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Site => "site",
            Self::UnknownNode => "unknown-node",
            Self::WrongKey => "wrong-key",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Silent => "silent",
        }
    }

    /// How it is told to the one who is refused. Zero is a welcome.
    pub(super) fn octet(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.octet() == octet)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "too many others are about to prove who they are",
            Self::Late => "it took too long to prove who it is",
            Self::Foreign => "it does not speak the exchange of dualgate",
            Self::Version => "it speaks another version of the exchange: run the same version of dualgate on both",
            Self::Site => "it is of another site: `name` must be the same in both site files",
            Self::UnknownNode => "it names a node that may not speak here: both site files must name the same home nodes",
            Self::WrongKey => {
                "the keys do not fit: compare `publicKeys` in both site files with `dualgate keys show-public`, and the \
                 preshared keys of the pair"
            }
            Self::Replayed => "its proof was not made for this connection",
            Self::Forged => "a frame was altered, repeated, left out or moved",
            Self::TooLarge => "it says more than is allowed",
            Self::Malformed => "what it says cannot be read",
            Self::Truncated => "it ends in the middle of a word",
            Self::Silent => "it neither speaks nor listens any more",
        })
    }
}

/// How often each was the reason.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// How often.
    pub fn count(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }

    /// Counts one more; how often it was before.
    pub(super) fn add(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_name_an_octet_and_a_count_of_its_own() {
        let refusals = Refusals::default();
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(Refusal::from_octet(refusal.octet()), Some(refusal));
            assert_eq!(Refusal::ALL.iter().filter(|other| other.id() == refusal.id()).count(), 1);
            (0..number).for_each(|before| assert_eq!(refusals.add(refusal), before as u64));
        }
        let counts: Vec<u64> = Refusal::ALL.into_iter().map(|refusal| refusals.count(refusal)).collect();
        assert_eq!(counts, (0..13).collect::<Vec<u64>>());
        assert_eq!((Refusal::from_octet(0), Refusal::from_octet(14)), (None, None));
    }
}
