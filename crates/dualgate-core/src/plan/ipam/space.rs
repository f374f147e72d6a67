//! Addresses as intervals: a pool of IPv6 has more of them than a list could hold.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Family, IpRange};

/// Addresses of one family as numbers: ranges in order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space(Vec<(u128, u128)>);

impl Space {
    /// The addresses of the ranges that are of this family.
    pub(crate) fn of<'r>(ranges: impl IntoIterator<Item = &'r IpRange>, family: Family) -> Self {
        let ranges = ranges.into_iter().filter(|range| range.family() == family);
        let mut all: Vec<_> = ranges.map(|range| (number(range.first()), number(range.last()))).collect();
        all.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::new();
        for (first, last) in all {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                Some(_) | None => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of it is not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            let cuts = other.0.partition_point(|&(_, end)| end < first);
            for &(cut, end) in other.0[cuts..].iter().take_while(|&&(cut, _)| cut <= last) {
                rest.extend(from.filter(|from| *from < cut).map(|from| (from, cut - 1)));
                from = (end < last).then(|| end + 1);
            }
            rest.extend(from.map(|from| (from, last)));
        }
        Self(rest)
    }

    /// What of it is in `other` as well.
    pub(super) fn and(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    pub(super) fn contains(&self, number: u128) -> bool {
        self.next(number) == Some(number)
    }

    /// The lowest one from `from` on.
    pub(super) fn next(&self, from: u128) -> Option<u128> {
        let range = self.0.get(self.0.partition_point(|&(_, last)| last < from))?;
        Some(range.0.max(from))
    }

    /// How many they are, saturating.
    pub(super) fn count(&self) -> u128 {
        let counts = self.0.iter().map(|&(first, last)| (last - first).saturating_add(1));
        counts.fold(0, u128::saturating_add)
    }

    /// How many of them end in .0 or .255, if it is of IPv4.
    pub(super) fn count_buggy(&self) -> u128 {
        let below = |end: u128| end / 256 + end.div_ceil(256);
        self.0.iter().map(|&(first, last)| below(last.saturating_add(1)) - below(first)).sum()
    }
}

/// Whether old devices take it for a network or a broadcast.
pub(super) fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub(super) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(family: Family, ranges: &[&str]) -> Space {
        let ranges: Vec<IpRange> = ranges.iter().map(|text| text.parse().unwrap()).collect();
        Space::of(&ranges, family)
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let joined = space(Family::V4, &["10.0.0.8-10.0.0.9", "10.0.0.0/29", "10.0.0.4", "fd00::1"]);
        assert_eq!(joined, space(Family::V4, &["10.0.0.0-10.0.0.9"]));
        assert_eq!(joined.count(), 10);
    }

    #[test]
    fn what_is_taken_away_leaves_what_lies_around_it() {
        let whole = space(Family::V6, &["fd00::/120", "fd00::200/120"]);
        let cuts = space(Family::V6, &["fd00::/127", "fd00::10", "fd00::80-fd00::280", "fd00::2ff"]);
        let rest = space(Family::V6, &["fd00::2-fd00::f", "fd00::11-fd00::7f", "fd00::281-fd00::2fe"]);
        assert_eq!(whole.without(&cuts), rest);
        assert_eq!(whole.and(&cuts).count() + rest.count(), whole.count());
        assert!(whole.without(&whole).is_empty() && whole.and(&Space::default()).is_empty());
    }

    #[test]
    fn the_whole_of_ipv6_overflows_nothing() {
        let whole = space(Family::V6, &["::/0"]);
        assert_eq!((whole.count(), whole.next(u128::MAX)), (u128::MAX, Some(u128::MAX)));
        let end = space(Family::V6, &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        assert_eq!(whole.without(&end).count(), u128::MAX);
        assert_eq!(whole.without(&end).next(u128::MAX), None);
    }

    #[test]
    fn addresses_that_end_in_0_and_255_are_counted_as_they_are_found() {
        for range in ["10.0.0.0/8", "10.0.0.1-10.0.0.254", "10.0.0.255-10.0.1.0", "10.0.0.0", "10.0.0.250-10.0.2.3"] {
            let space = space(Family::V4, &[range]);
            let range: IpRange = range.parse().unwrap();
            let all = number(range.first())..=number(range.last());
            let found = all.filter(|number| is_buggy(address(Family::V4, *number))).count();
            assert_eq!(space.count_buggy(), found as u128, "{range}");
        }
        assert_eq!(space(Family::V4, &["0.0.0.0/0"]).count_buggy(), 2 << 24);
    }
}
