//! Which peer an address belongs to: the most specific allowed network wins.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks, by length, the longest first.
#[derive(Debug, Default)]
pub struct AllowedIps {
    v4: Vec<Level>,
    v6: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    mask: u128,
    /// Sorted by network.
    networks: Vec<(u128, usize)>,
}

impl AllowedIps {
    /// Of networks and the peers that they belong to. A network stands here once.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, usize)>) -> Self {
        let mut allowed = Self::default();
        for (network, peer) in networks {
            let (levels, width) = match network {
                IpNet::V4(_) => (&mut allowed.v4, 32),
                IpNet::V6(_) => (&mut allowed.v6, 128),
            };
            let mask = mask(width - network.prefix_len());
            let at = levels.binary_search_by(|level| mask.cmp(&level.mask));
            let at = at.unwrap_or_else(|at| {
                levels.insert(at, Level { mask, networks: Vec::new() });
                at
            });
            levels[at].networks.push((bits(network.network()), peer));
        }
        allowed.v4.iter_mut().chain(&mut allowed.v6).for_each(|level| level.networks.sort_unstable());
        allowed
    }

    /// The peer of an address.
    pub fn find(&self, address: IpAddr) -> Option<usize> {
        let (levels, address) = (if address.is_ipv4() { &self.v4 } else { &self.v6 }, bits(address));
        levels.iter().find_map(|level| {
            let at = level.networks.binary_search_by_key(&(address & level.mask), |(network, _)| *network);
            at.ok().map(|at| level.networks[at].1)
        })
    }
}

/// All ones, but for the last `open` bits.
fn mask(open: u8) -> u128 {
    u128::MAX.checked_shl(open.into()).unwrap_or(0)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_network_wins_in_each_family() {
        let networks =
            [("10.42.0.0/24", 0), ("10.42.0.7/32", 1), ("0.0.0.0/0", 2), ("fd01::/64", 0), ("fd01::7/128", 1)];
        let allowed = AllowedIps::new(networks.map(|(network, peer)| (network.parse().unwrap(), peer)));
        let find = |address: &str| allowed.find(address.parse().unwrap());
        assert_eq!(find("10.42.0.1"), Some(0));
        assert_eq!(find("10.42.0.7"), Some(1));
        assert_eq!(find("10.43.0.7"), Some(2));
        assert_eq!(find("fd01::1"), Some(0));
        assert_eq!(find("fd01::7"), Some(1));
        assert_eq!(find("fd02::7"), None);
        // An IPv4 network says nothing of IPv6 addresses with the same bits.
        assert_eq!(find("::10.42.0.7"), None);
    }
}
