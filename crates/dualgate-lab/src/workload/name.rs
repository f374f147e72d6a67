//! Names that Kubernetes makes up: they look random and are not.

/// What Kubernetes makes such names of: no vowels, so no words; nothing that is taken for something else.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The longest name that a suffix of five characters is put to.
const MAX_BASE: usize = 58;

/// FNV-1a over parts, each ended: the same on every machine and in every version.
pub(super) fn digest(parts: &[&str]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// `base`, cut if need be, and five characters: what `generateName` makes.
pub(super) fn generated(base: &str, digest: u64) -> String {
    let end = (0..=base.len().min(MAX_BASE)).rev().find(|end| base.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{}", &base[..end], encoded(digest, 5))
}

/// So many characters of a digest.
pub(super) fn encoded(digest: u64, length: usize) -> String {
    let base = ALPHABET.len() as u64;
    // The low bits of FNV alone are weak.
    let mut rest = (digest ^ (digest >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        let letter = ALPHABET[(rest % base) as usize];
        rest /= base;
        char::from(letter)
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_so_that_a_label_can_hold_it() {
        let name = generated(&"a".repeat(100), 7);
        assert_eq!((name.len(), &name[..MAX_BASE]), (63, &*"a".repeat(MAX_BASE)));
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(encoded(digest(&["1"]), 5), encoded(digest(&["2"]), 5));
    }
}
