//! The data of records in messages of others, typed: what [`Rdata::encode`] writes, and names that are compressed.

use std::collections::BTreeMap;

use super::records::{BadMessage, Record, expand};
use super::{Name, Rdata, RecordType, ServiceBinding};

impl Rdata {
    /// Reads the data of a record; a type that is not known here stays as octets.
    pub fn decode(record: &Record<'_>) -> Result<Self, BadMessage> {
        let data = record.data;
        let mut names = Names { record, at: record.data_at };
        let decoded = match record.rtype {
            RecordType::A => Self::A(data.first_chunk::<4>().copied().ok_or(BadMessage)?.into()),
            RecordType::AAAA => Self::Aaaa(data.first_chunk::<16>().copied().ok_or(BadMessage)?.into()),
            RecordType::NS => Self::Ns(names.name()?),
            RecordType::CNAME => Self::Cname(names.name()?),
            RecordType::PTR => Self::Ptr(names.name()?),
            RecordType::SOA => Self::Soa {
                server: names.name()?,
                mailbox: names.name()?,
                serial: names.u32()?,
                refresh: names.u32()?,
                retry: names.u32()?,
                expire: names.u32()?,
                minimum: names.u32()?,
            },
            RecordType::MX => Self::Mx { preference: names.u16()?, exchange: names.name()? },
            RecordType::TXT => Self::Txt(texts(data)?),
            RecordType::SRV => {
                Self::Srv { priority: names.u16()?, weight: names.u16()?, port: names.u16()?, target: names.name()? }
            }
            RecordType::CAA => {
                let [flags, length, rest @ ..] = data else { return Err(BadMessage) };
                let (tag, value) = rest.split_at_checked(usize::from(*length)).ok_or(BadMessage)?;
                Self::Caa { flags: *flags, tag: tag.into(), value: value.into() }
            }
            RecordType::SVCB => Self::Svcb(names.binding()?),
            RecordType::HTTPS => Self::Https(names.binding()?),
            other => return Ok(Self::Other(other, data.into())),
        };
        let (fixed, is_whole) = match record.rtype {
            RecordType::A => (4, true),
            RecordType::AAAA => (16, true),
            RecordType::TXT | RecordType::CAA => (data.len(), true),
            _ => (names.at - record.data_at, names.at >= record.data_at),
        };
        if is_whole && fixed == data.len() { Ok(decoded) } else { Err(BadMessage) }
    }
}

fn texts(mut data: &[u8]) -> Result<Vec<Box<[u8]>>, BadMessage> {
    let mut texts = Vec::new();
    while let [length, rest @ ..] = data {
        let (text, after) = rest.split_at_checked(usize::from(*length)).ok_or(BadMessage)?;
        texts.push(text.into());
        data = after;
    }
    if texts.is_empty() { Err(BadMessage) } else { Ok(texts) }
}

/// What is read one after the other from a record's data.
struct Names<'a, 'm> {
    record: &'a Record<'m>,
    at: usize,
}

impl Names<'_, '_> {
    fn name(&mut self) -> Result<Name, BadMessage> {
        let (name, end) = expand(self.record.message, self.at)?;
        self.at = end;
        Ok(name)
    }

    fn take(&mut self, octets: usize) -> Result<&[u8], BadMessage> {
        let end = self.record.data_at + self.record.data.len();
        let taken = self.record.message.get(self.at..self.at + octets).ok_or(BadMessage)?;
        self.at += octets;
        if self.at > end { Err(BadMessage) } else { Ok(taken) }
    }

    fn u16(&mut self) -> Result<u16, BadMessage> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn u32(&mut self) -> Result<u32, BadMessage> {
        self.take(4).map(|octets| u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
    }

    fn binding(&mut self) -> Result<ServiceBinding, BadMessage> {
        let (priority, target) = (self.u16()?, self.name()?);
        let end = self.record.data_at + self.record.data.len();
        let mut parameters = BTreeMap::new();
        while self.at < end {
            let (key, length) = (self.u16()?, self.u16()?);
            parameters.insert(key, self.take(usize::from(length))?.into());
        }
        Ok(ServiceBinding { priority, target, parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HEADER, records};
    use super::*;

    /// A message with this one record in it.
    fn message(rtype: RecordType, data: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[7] = 1;
        message.extend(b"\x07example\x03org\x00");
        message.extend(rtype.0.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        message
    }

    fn decoded(rtype: RecordType, data: &[u8]) -> Result<Rdata, BadMessage> {
        let message = message(rtype, data);
        let record = records(&message).unwrap().next().unwrap().unwrap();
        Rdata::decode(&record)
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_shorter_or_longer() {
        for (rtype, text) in [
            ("A", "192.0.2.1"),
            ("AAAA", "2001:db8::1"),
            ("NS", "ns1.example.net"),
            ("CNAME", "www.example.net"),
            ("PTR", "host.example.net"),
            ("MX", "10 mail.example.net"),
            ("TXT", r#""one" "two""#),
            ("SRV", "1 2 443 host.example.net"),
            ("CAA", r#"0 issue "ca.example""#),
            ("HTTPS", "1 . alpn=h2,http/1.1 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"),
            ("TYPE65400", r"\# 3 0a0b0c"),
        ] {
            let rtype: RecordType = rtype.parse().unwrap();
            let data = Rdata::parse(rtype, text).unwrap();
            let mut octets = Vec::new();
            data.encode(&mut octets);
            assert_eq!(decoded(rtype, &octets), Ok(data.clone()), "{rtype} {text}");
            if !matches!(data, Rdata::Other(..) | Rdata::Txt(_) | Rdata::Caa { .. }) {
                for wrong in [&octets[..octets.len() - 1], &[octets.as_slice(), b"x"].concat()] {
                    assert_eq!(decoded(rtype, wrong), Err(BadMessage), "{rtype} {wrong:?}");
                }
            }
        }
    }

    #[test]
    fn compressed_names_are_followed() {
        let name = decoded(RecordType::MX, b"\x00\x0a\x04mail\xc0\x0c");
        assert_eq!(name, Rdata::parse(RecordType::MX, "10 mail.example.org").map_err(|_| BadMessage));
        let soa = b"\x02ns\xc0\x0c\x04host\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
        let Ok(Rdata::Soa { server, serial: 1, minimum: 5, .. }) = decoded(RecordType::SOA, soa) else { panic!() };
        assert_eq!(server.to_string(), "ns.example.org");
    }
}
