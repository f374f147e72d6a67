//! Names of the DNS.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The most octets of a name on the wire.
const MAX: usize = 255;
const MAX_LABEL: usize = 63;
/// As many labels as fit, each with its length.
const MAX_LABELS: usize = 128;

/// A name in wire form and lower case: each label after its length, the root's empty label last.
///
/// The order is the canonical one (RFC 4034 6.1): by labels from the right, so that a zone's names stand together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// No label at all, or an empty one in between.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("a label has more than 63 octets")]
    LongLabel,
    /// More than 255 octets.
    #[error("it has more than 255 octets")]
    Long,
    /// A backslash without what it escapes.
    #[error("a backslash escapes nothing")]
    Escape,
}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// From a name in wire form that is not compressed and ends where the octets do; letters become small ones.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        (length(wire)? == wire.len()).then(|| Self(wire.to_ascii_lowercase().into()))
    }

    /// The wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from the left, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// The name above; the root has none.
    pub fn parent(&self) -> Option<Self> {
        suffixes(&self.0).nth(1).map(|above| Self(above.into()))
    }

    /// Whether it is `above`, or below it.
    pub fn is_within(&self, above: &Self) -> bool {
        self.0.len() >= above.0.len() && suffixes(&self.0).any(|suffix| suffix == &*above.0)
    }

    /// With one more label at the left.
    pub fn child(&self, label: &[u8]) -> Option<Self> {
        if label.is_empty() || label.len() > MAX_LABEL || self.0.len() + 1 + label.len() > MAX {
            return None;
        }
        let mut wire = vec![label.len() as u8];
        wire.extend(label.to_ascii_lowercase());
        wire.extend_from_slice(&self.0);
        Some(Self(wire.into()))
    }

    /// Whether its first label is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }

    /// The name of an address in `in-addr.arpa` or `ip6.arpa`.
    pub fn reverse(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::reverse_prefix(address, v4.octets().len() as u8 * 8),
            IpAddr::V6(_) => Self::reverse_prefix(address, 128),
        }
    }

    /// The name of a network: whole octets of IPv4, whole half octets of IPv6; what `bits` has beyond that is left out.
    pub fn reverse_prefix(address: IpAddr, bits: u8) -> Self {
        let bits = usize::from(bits);
        let text: String = match address {
            IpAddr::V4(v4) => {
                let octets = &v4.octets()[..bits.min(32) / 8];
                octets.iter().rev().map(|octet| format!("{octet}.")).chain(["in-addr.arpa".to_owned()]).collect()
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                let kept: Vec<u8> = nibbles.take(bits.min(128) / 4).collect();
                kept.iter().rev().map(|nibble| format!("{nibble:x}.")).chain(["ip6.arpa".to_owned()]).collect()
            }
        };
        // 32 labels of one character and `ip6.arpa` fit.
        text.parse().unwrap_or_else(|_| Self::root())
    }
}

/// The length of the name that a wire form begins with; `None` if it is compressed, too long or cut off.
pub(super) fn length(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let octets = usize::from(*wire.get(at)?);
        at += 1 + octets;
        if octets > MAX_LABEL || at > MAX {
            return None;
        }
        if octets == 0 {
            return Some(at);
        }
    }
}

/// The labels of a name in wire form from the left, without the root's.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    suffixes(wire).filter_map(|suffix| match suffix {
        [octets, rest @ ..] if *octets != 0 => rest.get(..usize::from(*octets)),
        _ => None,
    })
}

/// A name in wire form and all that is above it, down to the root.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors((!wire.is_empty()).then_some(wire), |suffix| above(suffix))
}

fn above(wire: &[u8]) -> Option<&[u8]> {
    match wire {
        [0, ..] | [] => None,
        [octets, ..] => wire.get(1 + usize::from(*octets)..),
    }
}

/// Copies a name in small letters; the octets of lengths are below those of letters.
pub fn lower<'a>(wire: &[u8], into: &'a mut [u8; MAX]) -> &'a [u8] {
    let copied = &mut into[..wire.len().min(MAX)];
    copied.copy_from_slice(&wire[..wire.len().min(MAX)]);
    copied.make_ascii_lowercase();
    copied
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut one, mut two) = ([0; MAX_LABELS], [0; MAX_LABELS]);
        let (ones, twos) = (starts(&self.0, &mut one), starts(&other.0, &mut two));
        let label = |wire: &'_ [u8], at: u8| -> (usize, usize) {
            let at = usize::from(at);
            (at + 1, at + 1 + usize::from(wire[at]))
        };
        for (a, b) in ones.iter().rev().zip(twos.iter().rev()) {
            let ((a, a_end), (b, b_end)) = (label(&self.0, *a), label(&other.0, *b));
            match self.0[a..a_end].cmp(&other.0[b..b_end]) {
                Ordering::Equal => {}
                differs => return differs,
            }
        }
        ones.len().cmp(&twos.len())
    }
}

/// Where each label begins.
fn starts<'a>(wire: &[u8], into: &'a mut [u8; MAX_LABELS]) -> &'a [u8] {
    let (mut at, mut count) = (0, 0);
    while wire[at] != 0 {
        into[count] = at as u8;
        count += 1;
        at += 1 + usize::from(wire[at]);
    }
    &into[..count]
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Presentation form (RFC 1035 5.1) with or without the last dot; `.` is the root.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        if bytes == b"." {
            return Ok(Self::root());
        }
        let mut wire = Vec::with_capacity(bytes.len() + 2);
        let mut start = 0;
        wire.push(0);
        let mut at = 0;
        while at < bytes.len() {
            let octet = match bytes[at] {
                b'.' => {
                    close(&mut wire, start)?;
                    start = wire.len();
                    wire.push(0);
                    at += 1;
                    continue;
                }
                b'\\' => {
                    let (octet, length) = escaped(&bytes[at + 1..]).ok_or(NameError::Escape)?;
                    at += length;
                    octet
                }
                octet => octet,
            };
            wire.push(octet.to_ascii_lowercase());
            at += 1;
        }
        if wire.len() - start > 1 {
            close(&mut wire, start)?;
            wire.push(0);
        } else if start == 0 {
            return Err(NameError::EmptyLabel);
        }
        if wire.len() > MAX { Err(NameError::Long) } else { Ok(Self(wire.into())) }
    }
}

fn close(wire: &mut [u8], start: usize) -> Result<(), NameError> {
    match wire.len() - start - 1 {
        0 => Err(NameError::EmptyLabel),
        length if length > MAX_LABEL => Err(NameError::LongLabel),
        length => {
            wire[start] = length as u8;
            Ok(())
        }
    }
}

/// What follows a backslash, and how many octets it takes: three digits, or one character.
pub(super) fn escaped(rest: &[u8]) -> Option<(u8, usize)> {
    match rest {
        [a, b, c, ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => {
            let number = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
            u8::try_from(number).ok().map(|octet| (octet, 3))
        }
        [digit, ..] if digit.is_ascii_digit() => None,
        [octet, ..] => Some((*octet, 1)),
        [] => None,
    }
}

impl fmt::Display for Name {
    /// Presentation form without the last dot; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(*octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_in_small_letters_and_shown_without_the_last_dot() {
        assert_eq!(name("Grafana.Example.ORG."), name("grafana.example.org"));
        assert_eq!(name("a.b").as_wire(), b"\x01a\x01b\x00");
        assert_eq!((name(".").to_string(), name(r"a\.b\032c.d").to_string()), (".".into(), r"a\.b\032c.d".into()));
        let long = "a".repeat(64);
        let too_long = vec!["a".repeat(63); 4].join(".");
        let wrong = [
            ("", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            (r"a\", NameError::Escape),
        ];
        for (text, why) in wrong.into_iter().chain([(&*long, NameError::LongLabel), (&*too_long, NameError::Long)]) {
            assert_eq!(text.parse::<Name>(), Err(why), "{text}");
        }
    }

    #[test]
    fn the_order_is_the_canonical_one() {
        // The example of RFC 4034 6.1.
        let ordered = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "z.a.example",
            "zabc.a.example",
            "z.example",
            r"\001.z.example",
            "*.z.example",
            r"\200.z.example",
        ];
        let mut names: Vec<Name> = ordered.iter().rev().map(|text| name(text)).collect();
        names.sort();
        assert_eq!(names, ordered.map(name));
    }

    #[test]
    fn addresses_have_names_in_the_reverse_trees() {
        assert_eq!(Name::reverse("192.168.178.10".parse().unwrap()), name("10.178.168.192.in-addr.arpa"));
        let v6 = Name::reverse("fda8:a1db:5685::10".parse().unwrap());
        assert_eq!(v6, name("0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.8.6.5.b.d.1.a.8.a.d.f.ip6.arpa"));
        let zone = Name::reverse_prefix("fda8:a1db:5685::10".parse().unwrap(), 64);
        assert!(v6.is_within(&zone) && zone.labels().count() == 18);
    }

    #[test]
    fn a_name_is_within_itself_and_what_is_above_but_not_within_what_ends_alike() {
        assert!(name("a.example.org").is_within(&name("example.org")) && name("a").is_within(&Name::root()));
        assert!(name("example.org").is_within(&name("example.org")));
        assert!(!name("badexample.org").is_within(&name("example.org")) && !name("org").is_within(&name("a.org")));
        assert_eq!(name("a.b").parent().and_then(|above| above.parent()), Some(Name::root()));
        assert_eq!(Name::root().parent(), None);
        assert_eq!(name("b").child(b"A"), Some(name("a.b")));
    }
}
