//! Signatures of messages by a shared secret (RFC 8945).
//!
//! What is signed is put together here; the digest itself is a function that the caller brings, so that nothing secret is
//! kept here.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::records::{BadMessage, Record, expand, records};
use super::{Class, HEADER, Name, RecordType};

/// How far clocks may differ, in seconds (RFC 8945 10).
pub const FUDGE: u16 = 300;
/// An answer of many messages is signed at least this often (RFC 8945 5.3.1).
const UNSIGNED: usize = 99;
/// As many octets of answers wait for a signature at most.
const UNSIGNED_OCTETS: usize = 8 << 20;

const BAD_SIGNATURE: u16 = 16;
const BAD_KEY: u16 = 17;
const BAD_TIME: u16 = 18;

/// How a digest is made. HMAC-MD5 and HMAC-SHA1 are not among them (RFC 8945 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `hmac-sha256`
    HmacSha256,
    /// `hmac-sha384`
    HmacSha384,
    /// `hmac-sha512`
    HmacSha512,
}

impl Algorithm {
    /// Each with its name.
    pub const WORDS: &[(&str, Self)] =
        &[("hmac-sha256", Self::HmacSha256), ("hmac-sha384", Self::HmacSha384), ("hmac-sha512", Self::HmacSha512)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }

    fn wire(self) -> Vec<u8> {
        let name = self.as_str().as_bytes();
        [&[name.len() as u8], name, &[0]].concat()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, algorithm)| *algorithm);
        found.ok_or_else(|| format!("`{text}` is no algorithm of TSIG that is used here"))
    }
}

/// A key: its name, and what makes digests with its secret.
pub struct Key<D> {
    /// As both sides call it.
    pub name: Name,
    /// Which digest `digest` makes.
    pub algorithm: Algorithm,
    /// Makes the digest of some octets.
    pub digest: D,
}

impl<D> fmt::Debug for Key<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {})", self.name, self.algorithm)
    }
}

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TsigError {
    /// It cannot be read.
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// It has no signature.
    #[error("the answer is not signed")]
    Unsigned,
    /// Its signature is wrong.
    #[error("the answer's signature is wrong")]
    Forged,
    /// It was made too long ago, or will be.
    #[error("the answer's time differs by more than {FUDGE} s: one of both clocks is wrong")]
    Time,
    /// The server says that it does not know the key.
    #[error("the server does not know this key, or not with this algorithm (BADKEY)")]
    BadKey,
    /// The server says that it comes to another digest.
    #[error("the server has another secret for this key (BADSIG)")]
    BadSignature,
    /// The server says that its clock shows another time.
    #[error("the server's clock differs by more than {FUDGE} s (BADTIME)")]
    BadTime,
    /// Too much came without a signature.
    #[error("too much of the answer is not signed")]
    Long,
}

/// Signs a message at `now`, in seconds since 1970; returns the digest, which the answer's covers, too.
pub fn sign<D: Fn(&[u8]) -> Vec<u8>>(message: &mut Vec<u8>, key: &Key<D>, now: u64) -> Vec<u8> {
    let digest = (key.digest)(&[message.as_slice(), &variables(key, timers(now, FUDGE), 0, &[])].concat());
    let id = [message[0], message[1]];
    append(message, key, now, &digest, id);
    digest
}

fn append<D>(message: &mut Vec<u8>, key: &Key<D>, now: u64, digest: &[u8], id: [u8; 2]) {
    message.extend_from_slice(key.name.as_wire());
    message.extend(RecordType::TSIG.0.to_be_bytes());
    message.extend(Class::ANY.0.to_be_bytes());
    message.extend([0; 4]);
    let mut data = key.algorithm.wire();
    data.extend(timers(now, FUDGE));
    data.extend((digest.len() as u16).to_be_bytes());
    data.extend_from_slice(digest);
    data.extend(id);
    data.extend([0; 4]);
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
    let count = u16::from_be_bytes([message[10], message[11]]).saturating_add(1);
    message[10..12].copy_from_slice(&count.to_be_bytes());
}

fn timers(now: u64, fudge: u16) -> [u8; 8] {
    let (now, fudge) = (now.to_be_bytes(), fudge.to_be_bytes());
    [now[2], now[3], now[4], now[5], now[6], now[7], fudge[0], fudge[1]]
}

fn variables<D>(key: &Key<D>, timers: [u8; 8], error: u16, other: &[u8]) -> Vec<u8> {
    let mut out = key.name.as_wire().to_vec();
    out.extend(Class::ANY.0.to_be_bytes());
    out.extend([0; 4]);
    out.extend(key.algorithm.wire());
    out.extend(timers);
    out.extend(error.to_be_bytes());
    out.extend((other.len() as u16).to_be_bytes());
    out.extend_from_slice(other);
    out
}

/// Checks the messages of one answer, in their order.
#[derive(Debug)]
pub struct Verifier<'k, D> {
    key: &'k Key<D>,
    /// The digest of the message before, with its length before it.
    before: Vec<u8>,
    /// Messages since then, which the next signature covers.
    waiting: Vec<u8>,
    unsigned: usize,
    is_first: bool,
}

impl<'k, D: Fn(&[u8]) -> Vec<u8>> Verifier<'k, D> {
    /// Of the answer to a request with this digest.
    pub fn new(key: &'k Key<D>, request: &[u8]) -> Self {
        Self { key, before: with_length(request), waiting: Vec::new(), unsigned: 0, is_first: true }
    }

    /// Takes the next message. What it says counts once [`Verifier::end`] has agreed.
    pub fn message(&mut self, message: &[u8], now: u64) -> Result<(), TsigError> {
        let Some(found) = find(message)? else {
            if self.is_first {
                return Err(TsigError::Unsigned);
            }
            self.waiting.extend_from_slice(message);
            self.unsigned += 1;
            let is_long = self.unsigned > UNSIGNED || self.waiting.len() > UNSIGNED_OCTETS;
            return if is_long { Err(TsigError::Long) } else { Ok(()) };
        };
        match found.error {
            // These come without a digest: the server could not make one. They can only say that it failed.
            BAD_KEY => return Err(TsigError::BadKey),
            BAD_SIGNATURE => return Err(TsigError::BadSignature),
            _ => {}
        }
        if found.name != self.key.name || found.algorithm != self.key.algorithm.wire() {
            return Err(TsigError::Forged);
        }
        let mut plain = message[..found.at].to_vec();
        plain[..2].copy_from_slice(&found.id);
        let additional = u16::from_be_bytes([plain[10], plain[11]]).saturating_sub(1);
        plain[10..12].copy_from_slice(&additional.to_be_bytes());
        let covered = match self.is_first {
            true => variables(self.key, timers(found.time, found.fudge), found.error, found.other),
            false => timers(found.time, found.fudge).to_vec(),
        };
        let signed = [self.before.as_slice(), &self.waiting, &plain, &covered].concat();
        if !is_same(&(self.key.digest)(&signed), found.digest) {
            return Err(TsigError::Forged);
        }
        if found.error == BAD_TIME {
            return Err(TsigError::BadTime);
        }
        if found.time.abs_diff(now) > u64::from(found.fudge) {
            return Err(TsigError::Time);
        }
        self.before = with_length(found.digest);
        self.waiting.clear();
        (self.unsigned, self.is_first) = (0, false);
        Ok(())
    }

    /// After the last message, which has to be signed.
    pub fn end(&self) -> Result<(), TsigError> {
        if self.is_first || self.unsigned > 0 { Err(TsigError::Unsigned) } else { Ok(()) }
    }
}

fn with_length(digest: &[u8]) -> Vec<u8> {
    [&(digest.len() as u16).to_be_bytes(), digest].concat()
}

/// Takes as long wherever two digests differ. Shortened ones are not taken.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (one, other)| sum | one ^ other) == 0
}

/// A signature where it stands.
struct Found<'a> {
    at: usize,
    name: Name,
    algorithm: Vec<u8>,
    time: u64,
    fudge: u16,
    digest: &'a [u8],
    id: [u8; 2],
    error: u16,
    other: &'a [u8],
}

/// The signature of a message: the last of its records, and the only one.
fn find(message: &[u8]) -> Result<Option<Found<'_>>, BadMessage> {
    if message.len() < HEADER {
        return Err(BadMessage);
    }
    let mut found: Option<Record<'_>> = None;
    for record in records(message)? {
        if found.is_some() {
            return Err(BadMessage);
        }
        found = Some(record?).filter(|record| record.rtype == RecordType::TSIG);
    }
    found.map(|record| read(&record)).transpose()
}

fn read<'a>(record: &Record<'a>) -> Result<Found<'a>, BadMessage> {
    if record.class != Class::ANY || record.ttl != 0 {
        return Err(BadMessage);
    }
    let (message, end) = (record.message, record.data_at + record.data.len());
    let (algorithm, at) = expand(message, record.data_at)?;
    let fixed = message.get(at..end).and_then(<[u8]>::first_chunk::<10>).ok_or(BadMessage)?;
    let [a, b, c, d, e, f, fudge @ .., size_high, size_low] = *fixed;
    let digest_at = at + fixed.len();
    let digest_end = digest_at + usize::from(u16::from_be_bytes([size_high, size_low]));
    let digest = message.get(digest_at..digest_end).ok_or(BadMessage)?;
    let rest = message.get(digest_end..end).ok_or(BadMessage)?;
    let [id_high, id_low, error_high, error_low, length_high, length_low, other @ ..] = rest else {
        return Err(BadMessage);
    };
    if usize::from(u16::from_be_bytes([*length_high, *length_low])) != other.len() {
        return Err(BadMessage);
    }
    Ok(Found {
        at: record.owner,
        name: record.name()?,
        algorithm: algorithm.as_wire().to_vec(),
        time: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
        fudge: u16::from_be_bytes(fudge),
        digest,
        id: [*id_high, *id_low],
        error: u16::from_be_bytes([*error_high, *error_low]),
        other,
    })
}

#[cfg(test)]
mod tests {
    use super::super::update::{Update, transfer};
    use super::*;

    /// No digest that anybody should use: it depends on every octet and its place.
    fn digest(secret: u64) -> impl Fn(&[u8]) -> Vec<u8> {
        move |octets| {
            let sum = octets
                .iter()
                .fold(secret, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3).rotate_left(7));
            sum.to_be_bytes().to_vec()
        }
    }

    fn key(secret: u64) -> Key<impl Fn(&[u8]) -> Vec<u8>> {
        Key { name: "key.example".parse().unwrap(), algorithm: Algorithm::HmacSha256, digest: digest(secret) }
    }

    /// What a server with this key answers: each message after a digest, the first one with all variables.
    fn answer<D: Fn(&[u8]) -> Vec<u8>>(key: &Key<D>, request: &[u8], plain: &[&[u8]], now: u64) -> Vec<Vec<u8>> {
        let mut before = with_length(request);
        let mut first = true;
        let sign = |message: &&[u8]| {
            let covered = if first { variables(key, timers(now, FUDGE), 0, &[]) } else { timers(now, FUDGE).to_vec() };
            let made = (key.digest)(&[before.as_slice(), message, &covered].concat());
            let mut signed = message.to_vec();
            append(&mut signed, key, now, &made, [message[0], message[1]]);
            (before, first) = (with_length(&made), false);
            signed
        };
        plain.iter().map(sign).collect()
    }

    fn request<D: Fn(&[u8]) -> Vec<u8>>(key: &Key<D>) -> (Vec<u8>, Vec<u8>) {
        let mut message = transfer(7, &"example.org".parse().unwrap());
        let digest = sign(&mut message, key, 1000);
        (message, digest)
    }

    #[test]
    fn a_signed_message_ends_with_a_record_of_its_key() {
        let key = key(1);
        let mut message = Update::new("example.org".parse().unwrap()).finish(7);
        let plain = message.clone();
        let digest = sign(&mut message, &key, 0x0102_0304_0506);
        let found = find(&message).unwrap().unwrap();
        assert_eq!((found.at, found.time, found.fudge, found.error), (plain.len(), 0x0102_0304_0506, 300, 0));
        assert_eq!((found.name.to_string(), found.id, found.digest), ("key.example".to_owned(), [0, 7], &*digest));
        assert_eq!(&message[10..12], [0, 1]);
        assert_eq!(find(&plain).unwrap().map(|found| found.at), None);
    }

    #[test]
    fn an_answer_of_several_messages_is_believed_as_a_whole_or_not_at_all() {
        let key = key(1);
        let (_, asked) = request(&key);
        let plain = [[0, 7, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 7, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
        let messages = answer(&key, &asked, &[&plain[0], &plain[1]], 1010);
        let mut verifier = Verifier::new(&key, &asked);
        assert_eq!(verifier.end(), Err(TsigError::Unsigned));
        for message in &messages {
            assert_eq!(verifier.message(message, 1020), Ok(()));
        }
        assert_eq!(verifier.end(), Ok(()));
        // One after the last signature does not count.
        assert_eq!(verifier.message(&plain[0], 1020), Ok(()));
        assert_eq!(verifier.end(), Err(TsigError::Unsigned));
        // Nor do messages in another order, or those of another request.
        assert_eq!(Verifier::new(&key, &asked).message(&messages[1], 1020), Err(TsigError::Forged));
        assert_eq!(Verifier::new(&key, b"other").message(&messages[0], 1020), Err(TsigError::Forged));
        assert_eq!(Verifier::new(&key, &asked).message(&plain[0], 1020), Err(TsigError::Unsigned));
        assert_eq!(Verifier::new(&key, &asked).message(&messages[0], 1311), Err(TsigError::Time));
    }

    #[test]
    fn no_octet_of_an_answer_can_be_changed() {
        let key = key(1);
        let (_, asked) = request(&key);
        let message = &answer(&key, &asked, &[&[0, 7, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0]], 1010)[0];
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let mut verifier = Verifier::new(&key, &asked);
            // The number of the message itself is not signed, the original one is.
            let believed = verifier.message(&changed, 1010).is_ok() && verifier.end().is_ok();
            assert_eq!(believed, at < 2, "octet {at}");
        }
    }

    #[test]
    fn another_secret_is_told_from_an_unknown_key() {
        let (ours, theirs) = (key(1), key(2));
        let (_, asked) = request(&ours);
        let message = &answer(&theirs, &asked, &[&[0, 7, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0]], 1010)[0];
        assert_eq!(Verifier::new(&ours, &asked).message(message, 1010), Err(TsigError::Forged));
        for (error, expected) in [(BAD_KEY, TsigError::BadKey), (BAD_SIGNATURE, TsigError::BadSignature)] {
            let mut message = vec![0, 7, 0x84, 9, 0, 0, 0, 0, 0, 0, 0, 0];
            append(&mut message, &ours, 1010, &[], [0, 7]);
            let at = message.len() - 4;
            message[at..at + 2].copy_from_slice(&error.to_be_bytes());
            assert_eq!(Verifier::new(&ours, &asked).message(&message, 1010), Err(expected));
        }
    }
}
