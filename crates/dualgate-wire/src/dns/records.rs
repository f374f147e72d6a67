//! The records of any message, also of one that somebody else wrote: names may be compressed, and lie.

use thiserror::Error;

use super::{Class, HEADER, Name, RecordType};

/// A pointer leads back at most this often (there are no more labels in a name).
const MAX_POINTERS: usize = 127;

/// A message that cannot be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message is malformed")]
pub struct BadMessage;

/// One record where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The message around it, for names in its data.
    pub message: &'a [u8],
    /// Which part of the message: 1 is the answer, 2 the authority, 3 what is additional.
    pub section: u8,
    /// Where its owner begins.
    pub owner: usize,
    /// Its type.
    pub rtype: RecordType,
    /// Its class.
    pub class: Class,
    /// Where its time to live stands: four octets.
    pub ttl_at: usize,
    /// Its time to live.
    pub ttl: u32,
    /// Where its data begins.
    pub data_at: usize,
    /// Its data.
    pub data: &'a [u8],
}

impl Record<'_> {
    /// Its owner, not compressed.
    pub fn name(&self) -> Result<Name, BadMessage> {
        expand(self.message, self.owner).map(|(name, _)| name)
    }

    /// Writes it so that it stands for itself in another message: with whole names, and this time to live.
    pub fn append_to(&self, ttl: u32, out: &mut Vec<u8>) -> Result<(), BadMessage> {
        out.extend_from_slice(self.name()?.as_wire());
        out.extend_from_slice(&self.rtype.0.to_be_bytes());
        out.extend_from_slice(&self.class.0.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0, 0]);
        let (before, names) = compressible(self.rtype);
        out.extend_from_slice(self.data.get(..before).ok_or(BadMessage)?);
        let (mut at, end) = (self.data_at + before, self.data_at + self.data.len());
        for _ in 0..names {
            let (name, after) = expand(self.message, at)?;
            out.extend_from_slice(name.as_wire());
            at = after;
        }
        out.extend_from_slice(self.message.get(at..end).ok_or(BadMessage)?);
        let length = u16::try_from(out.len() - length_at - 2).map_err(|_| BadMessage)?;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

/// How many octets stand before the names in a record's data, and how many names there are that may be compressed
/// (RFC 3597 4).
fn compressible(rtype: RecordType) -> (usize, usize) {
    match rtype.0 {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2..=5 | 7..=9 | 12 | 39 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT
        15 | 18 | 21 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        _ => (0, 0),
    }
}

/// Walks the records of a message, after its questions.
pub fn records(message: &[u8]) -> Result<Records<'_>, BadMessage> {
    let header = message.first_chunk::<HEADER>().ok_or(BadMessage)?;
    let [questions, answers, authorities, additionals] =
        [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip(message, at)? + 4;
    }
    if at > message.len() {
        return Err(BadMessage);
    }
    Ok(Records { message, at, left: [answers, authorities, additionals], section: 0 })
}

/// The records that are left; after one that cannot be read there are none.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
    section: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        while *self.left.get(self.section)? == 0 {
            self.section += 1;
        }
        self.left[self.section] -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, BadMessage> {
        let owner = self.at;
        let fixed_at = skip(self.message, owner)?;
        let fixed = self.message.get(fixed_at..).and_then(<[u8]>::first_chunk::<10>).ok_or(BadMessage)?;
        let data_at = fixed_at + fixed.len();
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = self.message.get(data_at..data_at + length).ok_or(BadMessage)?;
        self.at = data_at + length;
        Ok(Record {
            message: self.message,
            section: self.section as u8 + 1,
            owner,
            rtype: RecordType(u16::from_be_bytes([fixed[0], fixed[1]])),
            class: Class(u16::from_be_bytes([fixed[2], fixed[3]])),
            ttl_at: fixed_at + 4,
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            data_at,
            data,
        })
    }
}

/// Where what follows a name begins.
fn skip(message: &[u8], mut at: usize) -> Result<usize, BadMessage> {
    loop {
        match *message.get(at).ok_or(BadMessage)? {
            0 => return Ok(at + 1),
            octets @ 1..=63 => at += 1 + usize::from(octets),
            0xc0.. => return Ok(at + 2),
            _ => return Err(BadMessage),
        }
    }
}

/// A name in a message, and where what follows it begins. Pointers lead back only, and not without end.
pub fn expand(message: &[u8], start: usize) -> Result<(Name, usize), BadMessage> {
    let mut wire = [0; 255];
    let (mut length, mut at, mut end, mut pointers) = (0, start, None, 0);
    loop {
        let octets = *message.get(at).ok_or(BadMessage)?;
        match octets {
            0..=63 => {
                let label = message.get(at..=at + usize::from(octets)).ok_or(BadMessage)?;
                wire.get_mut(length..length + label.len()).ok_or(BadMessage)?.copy_from_slice(label);
                length += label.len();
                at += label.len();
                if octets == 0 {
                    let name = Name::from_wire(&wire[..length]).ok_or(BadMessage)?;
                    return Ok((name, end.unwrap_or(at)));
                }
            }
            0xc0.. => {
                let low = *message.get(at + 1).ok_or(BadMessage)?;
                let target = usize::from(u16::from_be_bytes([octets & 0x3f, low]));
                pointers += 1;
                if target >= at || pointers > MAX_POINTERS {
                    return Err(BadMessage);
                }
                end = end.or(Some(at + 2));
                at = target;
            }
            _ => return Err(BadMessage),
        }
    }
}
