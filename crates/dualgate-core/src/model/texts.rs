//! Labels and the like: texts by text, few of them, in many objects.

use std::fmt;

/// Texts by text, sorted by key, each key once. All of them are in one piece of memory, as there are tens of thousands
/// of such mappings.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Texts {
    text: Box<str>,
    /// Where each key and each value ends, alternating.
    ends: Box<[u32]>,
}

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
        self.ends.is_empty()
    }

    /// Keys and values in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |ends| {
            let (key, value) = (ends[0] as usize, ends[1] as usize);
            let found = (&self.text[start..key], &self.text[key..value]);
            start = value;
            found
        })
    }
}

/// Of a key that comes twice, the last value counts.
impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Texts {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: std::collections::BTreeMap<String, String> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let mut text = String::with_capacity(sorted.iter().map(|(key, value)| key.len() + value.len()).sum());
        let mut ends = Vec::with_capacity(sorted.len() * 2);
        for part in sorted.iter().flat_map(|(key, value)| [key, value]) {
            text.push_str(part);
            // An object of an API server has at most a few MiB, and a file is not larger than that.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { text: text.into(), ends: ends.into() }
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
