//! Response-rate limiting: whoever sends questions in another's name finds here no amplifier.
//!
//! Counted is by the network of the asker, what is answered, and about which name; and by the network alone, so that many
//! names are no way around. Beyond the limit every second answer is dropped, and the others say "ask over TCP", which an
//! asker with an address of its own can do. Memory is fixed: networks share buckets when there are more of them.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::Outcome;

/// Answers of one kind about one name to one network, in a second.
pub const RATE: u32 = 20;
/// Answers to one network, in a second: a household behind one address asks for many names.
pub const RATE_OF_NETWORK: u32 = 200;
/// A pause is worth the answers of this many seconds.
const BURST: u32 = 2;
const BUCKETS: usize = 1 << 14;

/// What is done with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// It is sent.
    Send,
    /// It is sent without records: ask over TCP.
    Slip,
    /// It is not sent.
    Drop,
}

/// Counts answers.
#[derive(Debug)]
pub struct Limiter {
    hasher: FixedState,
    /// Of answers alike.
    alike: Box<[Bucket]>,
    /// Of networks: apart, so that many names do not push their network out of its bucket.
    networks: Box<[Bucket]>,
    turn: u32,
}

/// Of one key: what is left, in thousandths of answers.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    key: u64,
    left: u32,
    /// In milliseconds.
    at: u64,
}

impl Limiter {
    /// `seed` is random, another one for each process: nobody can choose names that share a bucket.
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            alike: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            networks: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            turn: 0,
        }
    }

    /// Judges an answer to somebody who has not shown that its address is its own; `now` on any clock that runs on.
    pub fn judge(&mut self, from: IpAddr, of: Outcome, name_hash: u64, now: Duration) -> Rate {
        let network = network(from);
        let now = now.as_millis() as u64;
        let alike = take(&mut self.alike, self.hasher.hash_one((network, of, name_hash)), RATE, now);
        let all = take(&mut self.networks, self.hasher.hash_one(network), RATE_OF_NETWORK, now);
        if alike && all {
            return Rate::Send;
        }
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(2) { Rate::Drop } else { Rate::Slip }
    }
}

fn take(buckets: &mut [Bucket], key: u64, rate: u32, now: u64) -> bool {
    let full = rate * BURST * 1000;
    let at = key as usize % buckets.len();
    let bucket = &mut buckets[at];
    if bucket.key != key {
        *bucket = Bucket { key, left: full, at: now };
    }
    let gained = now.saturating_sub(bucket.at).min(u64::from(BURST) * 1000) as u32 * rate;
    bucket.left = bucket.left.saturating_add(gained).min(full);
    bucket.at = bucket.at.max(now);
    match bucket.left.checked_sub(1000) {
        Some(left) => {
            bucket.left = left;
            true
        }
        None => false,
    }
}

/// A /24, or a /56: what one customer has.
fn network(from: IpAddr) -> u128 {
    match from.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits() >> 8),
        // Beyond all of IPv4's.
        IpAddr::V6(v6) => v6.to_bits() >> 72 | 1 << 127,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(limiter: &mut Limiter, count: u32, seconds: u32, from: &str, name: impl Fn(u32) -> u64) -> [u32; 3] {
        let mut counts = [0; 3];
        for number in 0..count {
            let now = Duration::from_secs(1000) + Duration::from_secs(u64::from(seconds)) * number / count;
            let at = match limiter.judge(from.parse().unwrap(), Outcome::NoError, name(number), now) {
                Rate::Send => 0,
                Rate::Slip => 1,
                Rate::Drop => 2,
            };
            counts[at] += 1;
        }
        counts
    }

    #[test]
    fn a_flood_for_one_network_is_damped_and_half_of_the_rest_says_ask_over_tcp() {
        let mut limiter = Limiter::new(7);
        let [sent, slipped, dropped] = flood(&mut limiter, 100_000, 10, "198.51.100.7", |_| 1);
        assert!((220..=245).contains(&sent), "{sent}: 20 a second, and a burst");
        assert!(slipped.abs_diff(dropped) <= 1 && sent + slipped + dropped == 100_000);
        assert_eq!(
            limiter.judge("198.51.101.7".parse().unwrap(), Outcome::NoError, 1, Duration::from_secs(1010)),
            Rate::Send
        );
    }

    #[test]
    fn many_names_are_no_way_around() {
        let [sent, ..] = flood(&mut Limiter::new(7), 100_000, 10, "2001:db8:1:2::1", u64::from);
        assert!((2000..=2450).contains(&sent), "{sent}: 200 a second, and a burst");
    }

    #[test]
    fn who_asks_now_and_then_is_never_limited() {
        assert_eq!(flood(&mut Limiter::new(7), 190, 10, "198.51.100.7", |_| 1), [190, 0, 0]);
    }

    #[test]
    fn networks_are_told_apart_by_family_and_prefix() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:ff::2"));
        assert_ne!(of("2001:db8:0:100::1"), of("2001:db8:0:ff::2"));
        assert_eq!(of("198.51.100.1"), of("::ffff:198.51.100.2"));
        assert_ne!(of("0.0.0.1"), of("::1"));
    }
}
