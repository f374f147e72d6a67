//! Where an object was written.

use std::collections::BTreeMap;
use std::fmt;

use super::finding::Place;
use super::names::ObjectKey;
use super::text::Text;

/// Where an object stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path as the user gave it.
    pub file: Text,
    /// Where every field stands.
    pub fields: Positions,
}

impl Origin {
    /// The place of a field of an object, as exactly as it is known: a field that was not written stands
    /// where the nearest field around it does.
    pub fn place(origin: Option<&Self>, key: Option<&ObjectKey>, field: String) -> Place {
        let mut place = Place { object: key.cloned(), field, ..Place::default() };
        if let Some(origin) = origin {
            place.file = Some(origin.file.clone());
            if let Some((line, column)) = origin.nearest(&place.field) {
                (place.line, place.column) = (Some(line), Some(column));
            }
        }
        place
    }

    /// The origin of what stands at `prefix`, such as `items[0]`.
    pub fn below(&self, prefix: &str) -> Self {
        let inner = self.fields.to_map().into_iter().filter_map(|(path, at)| match path.strip_prefix(prefix)? {
            rest if rest.is_empty() || rest.starts_with('[') => Some((rest.to_owned(), at)),
            rest => Some((rest.strip_prefix('.')?.to_owned(), at)),
        });
        Self { file: self.file.clone(), fields: Positions::new(&inner.collect()) }
    }

    fn nearest(&self, field: &str) -> Option<(u32, u32)> {
        let fields = self.fields.to_map();
        let ends = field.char_indices().rev().filter(|(_, c)| matches!(c, '.' | '[')).map(|(end, _)| end);
        let mut around = std::iter::once(field.len()).chain(ends).chain(std::iter::once(0)).map(|end| &field[..end]);
        around.find_map(|path| fields.get(path).copied())
    }
}

/// Line and column (from 1) of every field of a document, by field path; the empty path is the document.
///
/// They are asked for only when something is wrong, and kept for every object. So they are packed, as the paths of
/// neighbours begin alike: of each path there is only what differs from the one before it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Positions(Box<[u8]>);

impl Positions {
    /// From the paths in their order.
    pub fn new(fields: &BTreeMap<String, (u32, u32)>) -> Self {
        let mut packed = Vec::new();
        let mut before = "";
        for (path, (line, column)) in fields {
            let alike = path.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
            let shared = alike.map_or(path.len().min(before.len()), |((at, _), _)| at);
            let rest = &path[shared..];
            for number in [shared, rest.len(), *line as usize, *column as usize] {
                pack(number, &mut packed);
            }
            packed.extend_from_slice(rest.as_bytes());
            before = path;
        }
        Self(packed.into())
    }

    fn to_map(&self) -> BTreeMap<String, (u32, u32)> {
        let mut fields = BTreeMap::new();
        let mut path = String::new();
        let mut left = &*self.0;
        while let [Some(shared), Some(length), Some(line), Some(column)] = [(); 4].map(|()| unpack(&mut left)) {
            let Some((rest, after)) = left.split_at_checked(length) else { break };
            path.truncate(shared);
            path.push_str(&String::from_utf8_lossy(rest));
            fields.insert(path.clone(), (line as u32, column as u32));
            left = after;
        }
        fields
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_map().fmt(f)
    }
}

/// Seven bits in each octet, the lowest first; the highest bit says that there is more.
fn pack(mut number: usize, packed: &mut Vec<u8>) {
    while number >= 0x80 {
        packed.push(number as u8 | 0x80);
        number >>= 7;
    }
    packed.push(number as u8);
}

fn unpack(left: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (octet, after) = left.split_first()?;
        *left = after;
        number |= usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_packed_is_found_again(
            fields in prop::collection::btree_map("[a-cä.\\[\\]]{0,12}|.{0,200}", any::<(u32, u32)>(), 0..20)
        ) {
            prop_assert_eq!(Positions::new(&fields).to_map(), fields);
        }
    }

    #[test]
    fn a_field_that_was_not_written_stands_where_the_nearest_around_it_does() {
        let fields = [("", (1, 1)), ("spec", (3, 1)), ("spec.rules", (4, 3)), ("spec.rules[0]", (5, 5))];
        let fields = fields.map(|(path, at)| (path.to_owned(), at)).into_iter().collect();
        let origin = Origin { file: "a.yaml".into(), fields: Positions::new(&fields) };
        let line = |field: &str| Origin::place(Some(&origin), None, field.to_owned()).line;
        assert_eq!([line("spec.rules[0].host"), line("spec.tls[0]"), line("metadata")], [Some(5), Some(3), Some(1)]);
        let below = origin.below("spec.rules");
        assert_eq!(Origin::place(Some(&below), None, "[0]".to_owned()).line, Some(5));
    }
}
