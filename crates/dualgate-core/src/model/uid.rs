//! `metadata.uid`.

use std::fmt::{self, Write as _};

use super::text::Text;

/// What tells an object from an earlier one of its name. API servers write a UUID, of which the octets are kept, as there
/// are tens of thousands of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uid {
    /// None is written.
    #[default]
    None,
    /// A UUID in its usual form: lower case, with hyphens.
    Uuid([u8; 16]),
    /// Any other text.
    Text(Text),
}

/// Where hyphens stand, by the octet that follows.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

impl Uid {
    /// As text says it; an empty one says nothing.
    pub fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self::None;
        }
        let digits: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
        let octets: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit)).collect();
        let uuid = octets.try_into().ok().map(Self::Uuid);
        // Only what reads again as it was written.
        uuid.filter(|uuid| uuid.to_string() == text).unwrap_or_else(|| Self::Text(text.into()))
    }

    /// Whether none is written.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Uuid(octets) => octets.iter().enumerate().try_for_each(|(at, octet)| {
                if HYPHENS.contains(&at) {
                    f.write_char('-')?;
                }
                write!(f, "{octet:02x}")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Uid;

    #[test]
    fn a_uid_reads_as_it_was_written_whatever_it_is() {
        for text in [
            "",
            "5b1e2f00-3d1c-4d8e-9a55-000000002710",
            "5B1E2F00-3d1c-4d8e-9a55-000000002710",
            "5b1e2f003d1c4d8e9a55000000002710",
            "5b1e2f0-03d1c-4d8e-9a55-000000002710",
            "5b1e2f00",
            "äöü",
        ] {
            assert_eq!(Uid::new(text).to_string(), text);
        }
        assert!(matches!(Uid::new("5b1e2f00-3d1c-4d8e-9a55-000000002710"), Uid::Uuid(_)));
        assert!(Uid::new("").is_none() && !Uid::new("x").is_none());
    }
}
