//! Cookies: they show that an asker receives what is sent to its address (RFC 7873, RFC 9018).

use std::net::IpAddr;

/// The number of the option.
pub const OPTION: u16 = 10;
/// The octets of both cookies together.
pub const LENGTH: usize = CLIENT + SERVER;
const CLIENT: usize = 8;
const SERVER: usize = 16;
const VERSION: u8 = 1;
/// How old a cookie may be, in seconds, and how far in the future (RFC 9018 4.3).
const MAX_AGE: u32 = 3600;
const MAX_AHEAD: u32 = 300;
/// From this age on the asker gets another.
const RENEW: u32 = 1800;

/// What an asker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its own.
    pub client: &'a [u8; CLIENT],
    /// What a server gave it before, 8 to 32 octets; empty if it has none.
    pub server: &'a [u8],
}

impl<'a> Asked<'a> {
    /// `None` where RFC 7873 5.2.2 wants FORMERR.
    pub(super) fn parse(option: &'a [u8]) -> Option<Self> {
        let (client, server) = option.split_first_chunk()?;
        matches!(server.len(), 0 | 8..=32).then_some(Self { client, server })
    }
}

/// What cookies are made with: random, the same on all servers that answer at one address.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieSecret {
    /// What cookies are made with.
    pub current: [u8; 16],
    /// What they were made with before: those are still good.
    pub previous: Option<[u8; 16]>,
}

impl std::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret")
    }
}

/// Whether an asker receives what is sent to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// It has shown it.
    Proven,
    /// The address may be anybody's.
    Unproven,
}

impl CookieSecret {
    /// Judges what was asked with, and makes the cookies of the answer; `now` in seconds since 1970.
    pub fn answer(&self, asked: Asked<'_>, from: IpAddr, now: u32) -> (Asker, [u8; LENGTH]) {
        let mut answer = [0; LENGTH];
        answer[..CLIENT].copy_from_slice(asked.client);
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let good = keys.into_iter().position(|key| is_good(key, asked, from, now));
        if let (Some(0), Ok(server)) = (good, <[u8; SERVER]>::try_from(asked.server))
            && now.wrapping_sub(time(&server)) < RENEW
        {
            answer[CLIENT..].copy_from_slice(&server);
        } else {
            answer[CLIENT..].copy_from_slice(&make(&self.current, asked.client, from, now));
        }
        (if good.is_some() { Asker::Proven } else { Asker::Unproven }, answer)
    }
}

fn time(server: &[u8; SERVER]) -> u32 {
    u32::from_be_bytes([server[4], server[5], server[6], server[7]])
}

fn is_good(key: &[u8; 16], asked: Asked<'_>, from: IpAddr, now: u32) -> bool {
    let Ok(server) = <[u8; SERVER]>::try_from(asked.server) else { return false };
    let made = time(&server);
    // Serial arithmetic, as the stamp has 32 bits.
    let age = now.wrapping_sub(made);
    let in_time = age <= MAX_AGE || made.wrapping_sub(now) <= MAX_AHEAD;
    server[0] == VERSION && in_time && differ(&make(key, asked.client, from, made), &server) == 0
}

/// In a time that tells nothing of where they differ.
fn differ(one: &[u8; SERVER], other: &[u8; SERVER]) -> u8 {
    one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b))
}

/// RFC 9018 4: version, three reserved octets, time, hash.
fn make(key: &[u8; 16], client: &[u8; CLIENT], from: IpAddr, now: u32) -> [u8; SERVER] {
    let mut server = [0; SERVER];
    server[0] = VERSION;
    server[4..8].copy_from_slice(&now.to_be_bytes());
    let mut hashed = [0; 32];
    hashed[..CLIENT].copy_from_slice(client);
    hashed[CLIENT..16].copy_from_slice(&server[..8]);
    let length = match from {
        IpAddr::V4(v4) => {
            hashed[16..20].copy_from_slice(&v4.octets());
            20
        }
        IpAddr::V6(v6) => {
            hashed[16..].copy_from_slice(&v6.octets());
            32
        }
    };
    server[8..].copy_from_slice(&siphash(key, &hashed[..length]).to_le_bytes());
    server
}

/// SipHash-2-4.
fn siphash(key: &[u8; 16], message: &[u8]) -> u64 {
    let word = |octets: &[u8]| octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut words = message.chunks_exact(8);
    for chunk in &mut words {
        absorb(&mut state, word(chunk));
    }
    absorb(&mut state, word(words.remainder()) | (message.len() as u64) << 56);
    state[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    *state = [a, b, c.rotate_left(32), d];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let octets: Vec<u8> = (0..N).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect();
        octets.try_into().unwrap()
    }

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The reference vector of its paper.
        let key = std::array::from_fn(|at| at as u8);
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(&key, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn cookies_are_those_of_rfc_9018() {
        // Appendix A.1 and A.2: learned, then renewed.
        let secret = CookieSecret { current: hex("e5e973e5a6b2a43f48e7dc849e37bfcf"), previous: None };
        let client = hex("2464c4abcf10c957");
        let from = "198.51.100.100".parse().unwrap();
        let (asker, learned) = secret.answer(Asked { client: &client, server: &[] }, from, 1_559_731_985);
        assert_eq!(
            (asker, learned[8..].to_vec()),
            (Asker::Unproven, hex::<16>("010000005cf79f111f8130c3eee29480").to_vec())
        );
        let ask = |now| secret.answer(Asked { client: &client, server: &learned[8..] }, from, now);
        assert_eq!(ask(1_559_731_985 + 60), (Asker::Proven, learned));
        let (asker, renewed) = ask(1_559_731_985 + 1801);
        assert!(asker == Asker::Proven && renewed != learned);
        assert_eq!(ask(1_559_731_985 + 3601).0, Asker::Unproven);
        assert_eq!(ask(1_559_731_985 - 301).0, Asker::Unproven);
    }

    #[test]
    fn cookies_of_ipv6_and_of_the_secret_before_are_good_at_their_address_only() {
        // Appendix A.4.
        let old = hex("dd3bdf9344b678b185a6f5cb60fca715");
        let secret = CookieSecret { current: hex("445536bcd2513298075a5d379663c962"), previous: Some(old) };
        let client = hex("22681ab97d52c298");
        let server: [u8; 16] = hex("010000005cf7c57926556bd0934c72f8");
        let from = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let asked = Asked { client: &client, server: &server };
        let (asker, renewed) = secret.answer(asked, from, 1_559_741_961);
        assert_eq!(
            (asker, renewed[8..].to_vec()),
            (Asker::Proven, hex::<16>("010000005cf7c609a6bb79d16625507a").to_vec())
        );
        assert_eq!(secret.answer(asked, "2001:db8::1".parse().unwrap(), 1_559_741_961).0, Asker::Unproven);
    }
}
