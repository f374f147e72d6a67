//! Labels and the like: texts by text, few of them, in many objects.

use std::collections::BTreeMap;
use std::fmt;

use super::text::Text;

/// Texts by text, sorted by key, each key once.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Texts(Box<[(Text, Text)]>);

impl Texts {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// All of them, in no order.
    pub(super) fn texts_mut(&mut self) -> impl Iterator<Item = &mut Text> {
        self.0.iter_mut().flat_map(|(key, value)| [key, value])
    }
}

/// Of a key that comes twice, the last value counts.
impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Texts {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<Text, Text> = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Texts;

    #[test]
    fn texts_are_found_by_their_keys_and_come_in_the_order_of_keys() {
        let texts: Texts = [("b", "2"), ("a", "1"), ("empty", ""), ("b", "3")].into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3"), ("empty", "")]);
        assert_eq!((texts.get("b"), texts.get("empty"), texts.get("c")), (Some("3"), Some(""), None));
        assert!(Texts::default().is_empty() && !texts.is_empty() && texts.contains_key("a"));
    }
}
