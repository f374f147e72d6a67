//! How a question came from the name that was asked for to the one that has the answer, when others have a part in it.

use dualgate_wire::dns::{Class, Name, RecordType};

/// A name that stands for another is followed this often, through our zones and those of others together.
pub const MAX_CHAIN: usize = 16;

/// The CNAMEs of an answer so far: each record stands for itself, or points back to what is before it in the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    octets: Vec<u8>,
    /// The names that are behind us, one for each record.
    passed: Vec<Name>,
    authoritative: bool,
}

impl Chain {
    /// What our own zones said: the records as they stand behind the question, and whose they are.
    pub(super) fn ours(octets: &[u8], passed: Vec<Name>, authoritative: bool) -> Self {
        Self { octets: octets.to_vec(), passed, authoritative }
    }

    /// One more, of others.
    pub fn push(&mut self, owner: &Name, ttl: u32, target: &Name) {
        self.octets.extend_from_slice(owner.as_wire());
        self.octets.extend_from_slice(&RecordType::CNAME.0.to_be_bytes());
        self.octets.extend_from_slice(&Class::IN.0.to_be_bytes());
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        self.octets.extend_from_slice(&(target.as_wire().len() as u16).to_be_bytes());
        self.octets.extend_from_slice(target.as_wire());
        self.passed.push(owner.clone());
    }

    /// The records as they go behind the question.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// How many there are.
    pub fn records(&self) -> u16 {
        // At most as many as are followed.
        self.passed.len() as u16
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }

    /// Whether it goes no further with this name: it is in it already, or there are too many.
    pub fn ends_at(&self, name: &[u8]) -> bool {
        self.passed.len() >= MAX_CHAIN || self.passed.iter().any(|passed| passed.as_wire() == name)
    }

    /// Whether it began in our zones: what the answer says of its first name is authoritative (RFC 1035 4.1.1).
    pub fn is_authoritative(&self) -> bool {
        self.authoritative
    }

    /// The name that was asked for, if it is behind us.
    pub fn first(&self) -> Option<&Name> {
        self.passed.first()
    }

    pub(super) fn passed(&self) -> &[Name] {
        &self.passed
    }
}
