//! Texts, of which there are hundreds of thousands: names, labels, paths.

use std::borrow::{Borrow, Cow};
#[expect(clippy::disallowed_types, reason = "only asked; what is removed does not depend on the order")]
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;

use arcstr::ArcStr;
use foldhash::fast::RandomState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that never changes, as large as a pointer. A clone is the same text; what an [`Interner`] has seen is one text
/// wherever it stands.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(ArcStr);

impl Text {
    /// The empty text.
    pub const EMPTY: Self = Self(ArcStr::new());

    /// As it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// For look-ups by text.
impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        text.as_ref().into()
    }
}

impl From<&Text> for Text {
    fn from(text: &Text) -> Self {
        text.clone()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl From<&Text> for serde_json::Value {
    fn from(text: &Text) -> Self {
        text.as_str().into()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}

/// Makes equal texts one text. A name stands in many objects: that of an application in its Ingress, its Service, its
/// slices, and there in labels and selectors once more.
#[derive(Debug, Default)]
pub struct Interner {
    #[expect(clippy::disallowed_types, reason = "only asked; what is removed does not depend on the order")]
    known: HashSet<Text, RandomState>,
    /// From this number on those are looked for that nobody else has any more.
    full: usize,
}

impl Interner {
    /// How many texts are kept before any of them is let go of.
    const FEW: usize = 1024;

    /// The longest text that is kept, in octets. Longer ones hardly ever stand in two objects, and what is kept for nobody should
    /// not be much.
    const LONGEST: usize = 256;

    /// Takes the text that is known instead of an equal one.
    pub fn intern(&mut self, text: &mut Text) {
        if text.len() > Self::LONGEST {
            return;
        }
        match self.known.get(text) {
            Some(known) => text.clone_from(known),
            None => {
                if self.known.len() >= self.full {
                    self.known.retain(|known| ArcStr::strong_count(&known.0) != Some(1));
                    self.full = (self.known.len() * 2).max(Self::FEW);
                }
                self.known.insert(text.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_become_one_and_what_nobody_has_is_let_go_of() {
        let mut interner = Interner::default();
        let [mut one, mut other, mut third] = ["grafana", "grafana", "loki"].map(Text::from);
        let address = |text: &Text| text.as_ptr();
        assert_ne!(address(&one), address(&other));
        [&mut one, &mut other, &mut third].into_iter().for_each(|text| interner.intern(text));
        assert_eq!(address(&one), address(&other));
        assert_eq!((&*one, &*third), ("grafana", "loki"));
        for number in 0..10 * Interner::FEW {
            interner.intern(&mut number.to_string().into());
        }
        assert!(interner.known.len() <= Interner::FEW);
        interner.intern(&mut "x".repeat(Interner::LONGEST + 1).into());
        assert!(interner.known.iter().all(|text| text.len() <= Interner::LONGEST));
        let mut again = Text::from("grafana");
        interner.intern(&mut again);
        assert_eq!(address(&again), address(&one));
    }

    #[test]
    fn a_text_is_as_large_as_a_pointer_also_where_it_may_be_absent() {
        assert_eq!([size_of::<Text>(), size_of::<Option<Text>>()], [size_of::<usize>(); 2]);
    }
}
