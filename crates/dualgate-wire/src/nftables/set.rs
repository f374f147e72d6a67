//! Sets, and the values that sets and matches are made of.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::rule::{Icmp6Type, IcmpType, Interface, Protocol};

/// A named set, which rules ask with `@name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in its table.
    pub name: String,
    /// How it is kept.
    pub kind: SetKind,
    /// What it holds at first; also its type.
    pub elements: Elements,
}

/// How a set is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetKind {
    /// Single values.
    Values,
    /// Ranges and prefixes.
    Intervals,
    /// Filled by rules: one limit for each value that was seen.
    Dynamic {
        /// The most values it takes; then its rules no longer match.
        size: u32,
        /// How long a value is kept after it was last seen. Without, until the last connection of it ends.
        timeout_seconds: Option<u32>,
    },
}

impl SetKind {
    /// The elements as such a set holds them.
    pub(super) fn ordered<T: Value>(self, spans: &[Span<T>]) -> Vec<Span<T>> {
        match self {
            Self::Values | Self::Dynamic { .. } => canonical(spans),
            Self::Intervals => merged(spans.to_vec()),
        }
    }
}

/// The elements of a set, all of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// `ipv4_addr`.
    Ip(Vec<Span<Ipv4Addr>>),
    /// `ipv6_addr`.
    Ip6(Vec<Span<Ipv6Addr>>),
    /// `inet_service`.
    Port(Vec<Span<u16>>),
    /// `mark`. Single values only.
    Mark(Vec<u32>),
    /// `ether_addr`.
    Ether(Vec<[u8; 6]>),
    /// `ifname`. Whole names only.
    Interface(Vec<String>),
}

impl Elements {
    /// Their type.
    pub(super) const fn key(&self) -> Key {
        match self {
            Self::Ip(_) => Key::Ip,
            Self::Ip6(_) => Key::Ip6,
            Self::Port(_) => Key::Port,
            Self::Mark(_) => Key::Mark,
            Self::Ether(_) => Key::Ether,
            Self::Interface(_) => Key::Interface,
        }
    }

    /// As ranges of octets, as the kernel compares them.
    pub(super) fn ranges(&self, kind: SetKind) -> Vec<Range> {
        match self {
            Self::Ip(spans) => Range::all(spans, kind),
            Self::Ip6(spans) => Range::all(spans, kind),
            Self::Port(spans) => Range::all(spans, kind),
            Self::Mark(marks) => singles(sorted(marks), |mark| mark.to_ne_bytes().to_vec()),
            Self::Ether(addresses) => singles(sorted(addresses), |address| address.to_vec()),
            Self::Interface(names) => singles(sorted(names), |name| Interface::Exact(name).octets()),
        }
    }
}

fn singles<T>(values: Vec<T>, key: impl Fn(T) -> Vec<u8>) -> Vec<Range> {
    values.into_iter().map(|value| Range::single(key(value))).collect()
}

/// In order, without repetition.
pub(super) fn sorted<T: Ord + Clone>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort();
    values.dedup();
    values
}

/// From the first to the last value, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span<T> {
    first: T,
    last: T,
}

impl<T: Value> Span<T> {
    /// One value.
    #[must_use]
    pub const fn one(value: T) -> Self {
        Self { first: value, last: value }
    }

    /// From the smaller of two values to the larger one.
    #[must_use]
    pub fn between(one: T, other: T) -> Self {
        Self { first: one.min(other), last: one.max(other) }
    }

    /// Whether it is one value.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.first == self.last
    }

    /// Whether the other one, which does not start before this one, overlaps it or follows without a gap.
    fn reaches(&self, other: &Self) -> bool {
        other.first <= self.last || successor(&self.last.key()).is_some_and(|next| next == other.first.key())
    }

    /// The first value.
    #[must_use]
    pub const fn first(&self) -> T {
        self.first
    }

    /// The last value.
    #[must_use]
    pub const fn last(&self) -> T {
        self.last
    }
}

impl Span<Ipv4Addr> {
    /// The addresses that share their first `length` bits with this one; more than 32 count as 32.
    #[must_use]
    pub fn prefix(address: Ipv4Addr, length: u8) -> Self {
        let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let first = address.to_bits() & !host;
        Self { first: Ipv4Addr::from_bits(first), last: Ipv4Addr::from_bits(first | host) }
    }
}

impl Span<Ipv6Addr> {
    /// The addresses that share their first `length` bits with this one; more than 128 count as 128.
    #[must_use]
    pub fn prefix(address: Ipv6Addr, length: u8) -> Self {
        let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let first = address.to_bits() & !host;
        Self { first: Ipv6Addr::from_bits(first), last: Ipv6Addr::from_bits(first | host) }
    }
}

impl<T: Value> From<T> for Span<T> {
    fn from(value: T) -> Self {
        Self::one(value)
    }
}

/// A value that a packet's field can be compared with.
pub trait Value: Copy + Ord + fmt::Display + sealed::Sealed {
    /// In the order of the packet, which is the order in which the kernel compares.
    fn key(self) -> Vec<u8>;
    /// As an end of a range, where nft wants a number instead of a name.
    fn bound(self) -> String;
    #[doc(hidden)]
    const KEY: Key;
}

mod sealed {
    /// Which values there are is decided here.
    pub trait Sealed {}
}

macro_rules! value {
    ($($type:ty => $key:ident, |$value:ident| $octets:expr, $bound:expr;)*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Value for $type {
                const KEY: Key = Key::$key;
                fn key(self) -> Vec<u8> {
                    let $value = self;
                    $octets.to_vec()
                }
                fn bound(self) -> String {
                    let $value = self;
                    $bound.to_string()
                }
            }
        )*
    };
}

value! {
    Ipv4Addr => Ip, |address| address.octets(), address;
    Ipv6Addr => Ip6, |address| address.octets(), address;
    u16 => Port, |port| port.to_be_bytes(), port;
    u8 => Integer, |number| [number], number;
    Protocol => Protocol, |protocol| [protocol.0], protocol.0;
    IcmpType => Icmp, |kind| [kind.0], kind.0;
    Icmp6Type => Icmp6, |kind| [kind.0], kind.0;
}

/// The type of a set's elements.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A number of one octet.
    Integer,
    /// `ipv4_addr`.
    Ip,
    /// `ipv6_addr`.
    Ip6,
    /// `ether_addr`.
    Ether,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `icmp_type`.
    Icmp,
    /// `icmpv6_type`.
    Icmp6,
    /// `mark`.
    Mark,
    /// `ifname`.
    Interface,
}

impl Key {
    /// nft's number of the type; the kernel only keeps it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ip => 7,
            Self::Ip6 => 8,
            Self::Ether => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Icmp => 14,
            Self::Mark => 19,
            Self::Icmp6 => 29,
            Self::Interface => 41,
        }
    }

    /// In octets.
    pub(super) const fn length(self) -> u32 {
        match self {
            Self::Integer | Self::Protocol | Self::Icmp | Self::Icmp6 => 1,
            Self::Port => 2,
            Self::Ip | Self::Mark => 4,
            Self::Ether => 6,
            Self::Ip6 | Self::Interface => 16,
        }
    }

    /// Whether values are in the host's byte order, or are text, which nft treats alike.
    pub(super) const fn is_host_order(self) -> bool {
        matches!(self, Self::Mark | Self::Interface)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Ip => "ipv4_addr",
            Self::Ip6 => "ipv6_addr",
            Self::Ether => "ether_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Icmp => "icmp_type",
            Self::Mark => "mark",
            Self::Icmp6 => "icmpv6_type",
            Self::Interface => "ifname",
        }
    }
}

/// From the first to the last key of equal length, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
}

impl Range {
    pub(super) fn of<T: Value>(span: &Span<T>) -> Self {
        Self { first: span.first.key(), last: span.last.key() }
    }

    fn all<T: Value>(spans: &[Span<T>], kind: SetKind) -> Vec<Self> {
        kind.ordered(spans).iter().map(Self::of).collect()
    }

    pub(super) fn single(key: Vec<u8>) -> Self {
        Self { first: key.clone(), last: key }
    }

    pub(super) fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// How many leading bits are fixed, if the range is exactly all addresses that share them. Ports and other numbers
    /// have no prefixes.
    pub(super) fn prefix_length(&self) -> Option<usize> {
        if self.first.len() <= 2 {
            return None;
        }
        let difference: Vec<u8> = self.first.iter().zip(&self.last).map(|(first, last)| first ^ last).collect();
        let fixed = difference.iter().position(|&bits| bits != 0).map_or(difference.len() * 8, |at| {
            at * 8 + difference.get(at).map_or(0, |bits| bits.leading_zeros() as usize)
        });
        let mask = mask(self.first.len(), fixed);
        let whole = self.first.iter().zip(&mask).all(|(bits, mask)| bits & !mask == 0)
            && self.last.iter().zip(&mask).all(|(bits, mask)| bits | mask == 0xff);
        whole.then_some(fixed)
    }
}

/// In order, without repetition; if there is a range among them, those that touch are made one, as the kernel wants it.
pub(super) fn canonical<T: Value>(spans: &[Span<T>]) -> Vec<Span<T>> {
    let spans = sorted(spans);
    if spans.iter().all(Span::is_one) { spans } else { merged(spans) }
}

/// In order, those that touch made one.
pub(super) fn merged<T: Value>(mut spans: Vec<Span<T>>) -> Vec<Span<T>> {
    spans.sort();
    let mut merged: Vec<Span<T>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(before) if before.reaches(&span) => before.last = before.last.max(span.last),
            _ => merged.push(span),
        }
    }
    merged
}

/// The next key, unless this one is the last.
pub(super) fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for octet in next.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            return Some(next);
        }
    }
    None
}

/// So many octets, of which the first bits are ones.
pub(super) fn mask(octets: usize, bits: usize) -> Vec<u8> {
    (0..octets)
        .map(|at| match bits.saturating_sub(at * 8) {
            0 => 0,
            ones @ 1..8 => 0xff << (8 - ones),
            _ => 0xff,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(spans: &[Span<u16>], value: u16) -> bool {
        spans.iter().any(|span| (span.first..=span.last).contains(&value))
    }

    proptest! {
        #[test]
        fn the_canonical_form_holds_the_same_values(
            spans in proptest::collection::vec((0_u16..60, 0_u16..60), 0..8),
            edges in proptest::collection::vec(65_500_u16.., 0..4),
        ) {
            let mut spans: Vec<_> = spans.into_iter().map(|(one, other)| Span::between(one, other)).collect();
            spans.extend(edges.into_iter().map(|first| Span::between(first, u16::MAX)));
            let canonical = canonical(&spans);
            for value in (0..70).chain(65_400..=u16::MAX) {
                prop_assert_eq!(contains(&canonical, value), contains(&spans, value));
            }
            let has_ranges = !canonical.iter().all(Span::is_one);
            for two in canonical.windows(2) {
                prop_assert!(two[0].last < two[1].first);
                prop_assert!(!has_ranges || two[0].last + 1 < two[1].first, "ranges that touch: {:?}", two);
            }
        }

        #[test]
        fn a_prefix_is_recognised(address in any::<u128>(), length in 0_u8..=128) {
            let span = Span::<Ipv6Addr>::prefix(Ipv6Addr::from_bits(address), length);
            prop_assert_eq!(Range::of(&span).prefix_length(), Some(usize::from(length)));
            let bits = mask(16, usize::from(length));
            let mask = u128::from_be_bytes(bits.try_into().unwrap());
            prop_assert_eq!(span.first.to_bits(), address & mask);
            prop_assert_eq!(span.last.to_bits(), address | !mask);
        }

        #[test]
        fn the_successor_is_one_more(number in any::<u32>()) {
            let next = number.checked_add(1).map(|next| next.to_be_bytes().to_vec());
            prop_assert_eq!(successor(&number.to_be_bytes()), next);
        }
    }

    #[test]
    fn a_range_that_is_no_prefix_is_none() {
        for (first, last) in [(1, 2), (0, 2), (4, 11), (1, 3)] {
            let range = Range::of(&Span::between(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last)));
            assert_eq!(range.prefix_length(), None, "{first}-{last}");
        }
        assert_eq!(Range::of(&Span::<u16>::between(0, 1)).prefix_length(), None);
    }

    #[test]
    fn the_last_of_all_keys_has_no_successor() {
        assert_eq!(successor(&[0xff; 4]), None);
        assert_eq!(successor(&[0, 0xff]), Some(vec![1, 0]));
    }
}
