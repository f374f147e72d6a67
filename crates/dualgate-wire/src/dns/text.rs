//! The data of records as people write it: presentation form (RFC 1035 5.1, RFC 3597, RFC 9460 2.1).

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use super::name::escaped;
use super::{Rdata, RecordType, ServiceBinding};

/// Why a text is not the data of a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RdataError {
    /// Another form is needed.
    #[error("`{0}` is needed")]
    Form(&'static str),
    /// One of its words is wrong.
    #[error("`{word}` is not {what}")]
    Word {
        /// The word.
        word: String,
        /// What it should be.
        what: &'static str,
    },
    /// More than a record can hold.
    #[error("it is too long")]
    Long,
    /// Nobody writes such records.
    #[error("records of type {0} cannot be written as text here; RFC 3597's form `\\# LENGTH HEX` can")]
    Type(RecordType),
}

const MAX_TEXT: usize = 255;

impl Rdata {
    /// Reads the data of a record of this type. Names are whole ones, with or without the last dot. A TXT that does not
    /// begin with a quotation mark is one text, spaces and all.
    pub fn parse(rtype: RecordType, text: &str) -> Result<Self, RdataError> {
        let words = words(text)?;
        let form = |form: &'static str| RdataError::Form(form);
        if let [hash, length, digits @ ..] = words.as_slice()
            && hash.0 == b"\\#"
        {
            return unknown(rtype, length, digits);
        }
        let whole = match (rtype, words.as_slice()) {
            (RecordType::A, [one]) => Self::A(read(one, "an IPv4 address")?),
            (RecordType::AAAA, [one]) => Self::Aaaa(read(one, "an IPv6 address")?),
            (RecordType::NS, [one]) => Self::Ns(read(one, "a name")?),
            (RecordType::CNAME, [one]) => Self::Cname(read(one, "a name")?),
            (RecordType::PTR, [one]) => Self::Ptr(read(one, "a name")?),
            (RecordType::A | RecordType::AAAA, _) => return Err(form("ADDRESS")),
            (RecordType::NS | RecordType::CNAME | RecordType::PTR, _) => return Err(form("NAME")),
            (RecordType::MX, [preference, exchange]) => {
                Self::Mx { preference: number(preference)?, exchange: read(exchange, "a name")? }
            }
            (RecordType::MX, _) => return Err(form("PREFERENCE NAME")),
            (RecordType::SRV, [priority, weight, port, target]) => Self::Srv {
                priority: number(priority)?,
                weight: number(weight)?,
                port: number(port)?,
                target: read(target, "a name")?,
            },
            (RecordType::SRV, _) => return Err(form("PRIORITY WEIGHT PORT NAME")),
            (RecordType::TXT, words) => Self::Txt(texts(text, words)),
            (RecordType::CAA, [flags, tag, value]) => caa(flags, tag, value)?,
            (RecordType::CAA, _) => return Err(form("FLAGS TAG VALUE")),
            (RecordType::SVCB, words) => Self::Svcb(binding(words)?),
            (RecordType::HTTPS, words) => Self::Https(binding(words)?),
            _ => return Err(RdataError::Type(rtype)),
        };
        let mut octets = Vec::new();
        whole.encode(&mut octets);
        if octets.len() > usize::from(u16::MAX) { Err(RdataError::Long) } else { Ok(whole) }
    }
}

/// A word, and whether it stood in quotation marks.
struct Word(Vec<u8>, Quotes);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Without,
    Within,
}

impl Word {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Escapes of names stay, as names are read with them; those of quoted texts are read here.
fn words(text: &str) -> Result<Vec<Word>, RdataError> {
    let mut words: Vec<Word> = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else { return Ok(words) };
        if *first != b'"' {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            // `key="a b"` is one word.
            let quoted = rest[..end].windows(2).position(|pair| pair == b"=\"");
            let Some(at) = quoted else {
                words.push(Word(rest[..end].to_vec(), Quotes::Without));
                rest = &rest[end..];
                continue;
            };
            let (value, after) = unquote(&rest[at + 2..])?;
            let mut word = rest[..=at].to_vec();
            word.extend(value);
            words.push(Word(word, Quotes::Without));
            rest = after;
            continue;
        }
        let (word, after) = unquote(&rest[1..])?;
        words.push(Word(word, Quotes::Within));
        rest = after;
    }
}

fn unquote(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), RdataError> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Err(RdataError::Form("a closing quotation mark")),
            [b'"', after @ ..] => return Ok((word, after)),
            [b'\\', after @ ..] => {
                let (octet, length) = escaped(after).ok_or(RdataError::Form("a character after each backslash"))?;
                word.push(octet);
                rest = &after[length..];
            }
            [octet, after @ ..] => {
                word.push(*octet);
                rest = after;
            }
        }
    }
}

fn read<T: std::str::FromStr>(word: &Word, what: &'static str) -> Result<T, RdataError> {
    let text = word.text();
    text.parse().map_err(|_| RdataError::Word { word: text, what })
}

fn number(word: &Word) -> Result<u16, RdataError> {
    read(word, "a number from 0 to 65535")
}

/// What is longer than one text can be is cut, as whoever reads it puts the parts together again.
fn texts(text: &str, words: &[Word]) -> Vec<Box<[u8]>> {
    let quoted = words.first().is_some_and(|word| word.1 == Quotes::Within);
    let cut = |octets: &[u8]| octets.chunks(MAX_TEXT).map(Into::into).collect::<Vec<_>>();
    let whole = |word: &Word| if word.0.is_empty() { vec![Box::default()] } else { cut(&word.0) };
    let texts = if quoted { words.iter().flat_map(whole).collect() } else { cut(text.trim().as_bytes()) };
    if texts.is_empty() { vec![Box::default()] } else { texts }
}

fn caa(flags: &Word, tag: &Word, value: &Word) -> Result<Rdata, RdataError> {
    let is_tag = !tag.0.is_empty() && tag.0.len() <= MAX_TEXT && tag.0.iter().all(u8::is_ascii_alphanumeric);
    if !is_tag {
        return Err(RdataError::Word { word: tag.text(), what: "a tag of letters and digits" });
    }
    let flags = read(flags, "a number from 0 to 255")?;
    Ok(Rdata::Caa { flags, tag: tag.0.to_ascii_lowercase().into(), value: value.0.as_slice().into() })
}

/// Types that have a form of their own are written in it, and what holds addresses is written as addresses: whoever
/// looks for addresses must see them.
fn unknown(rtype: RecordType, length: &Word, digits: &[Word]) -> Result<Rdata, RdataError> {
    const WITH_ADDRESSES: [u16; 7] = [11, 38, 42, 45, 55, 105, 260];
    let is_typed = match rtype {
        RecordType::A
        | RecordType::AAAA
        | RecordType::NS
        | RecordType::CNAME
        | RecordType::PTR
        | RecordType::SOA
        | RecordType::MX
        | RecordType::TXT
        | RecordType::SRV
        | RecordType::CAA
        | RecordType::SVCB
        | RecordType::HTTPS => true,
        RecordType(number) => number == 0 || (128..=255).contains(&number) || number == RecordType::OPT.0,
    };
    if is_typed || WITH_ADDRESSES.contains(&rtype.0) {
        return Err(RdataError::Form("the type's own form"));
    }
    let hex: Vec<u8> = digits.iter().flat_map(|word| word.0.iter().copied()).collect();
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    let octets: Option<Vec<u8>> = hex
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let octets = octets.ok_or(RdataError::Form("an even number of hexadecimal digits"))?;
    if usize::from(number(length)?) != octets.len() {
        return Err(RdataError::Word { word: length.text(), what: "the number of the octets that follow" });
    }
    Ok(Rdata::Other(rtype, octets.into()))
}

fn binding(words: &[Word]) -> Result<ServiceBinding, RdataError> {
    let [priority, target, rest @ ..] = words else { return Err(RdataError::Form("PRIORITY NAME [KEY=VALUE]...")) };
    let (priority, target) = (number(priority)?, read(target, "a name")?);
    let mut parameters = BTreeMap::new();
    for word in rest {
        let text = word.text();
        let (key, value) = text.split_once('=').map_or((&*text, ""), |(key, value)| (key, value));
        let number = key_number(key).ok_or(RdataError::Word { word: key.to_owned(), what: "a parameter" })?;
        if parameters.insert(number, parameter(number, value)?).is_some() {
            return Err(RdataError::Word { word: key.to_owned(), what: "written once" });
        }
    }
    Ok(ServiceBinding { priority, target, parameters })
}

fn key_number(key: &str) -> Option<u16> {
    match key {
        "mandatory" => Some(ServiceBinding::MANDATORY),
        "alpn" => Some(ServiceBinding::ALPN),
        "no-default-alpn" => Some(ServiceBinding::NO_DEFAULT_ALPN),
        "port" => Some(ServiceBinding::PORT),
        "ipv4hint" => Some(ServiceBinding::IPV4_HINT),
        "ipv6hint" => Some(ServiceBinding::IPV6_HINT),
        _ => key.strip_prefix("key").and_then(|number| number.parse().ok()),
    }
}

fn parameter(key: u16, value: &str) -> Result<Box<[u8]>, RdataError> {
    let wrong = |word: &str, what| RdataError::Word { word: word.to_owned(), what };
    let mut octets = Vec::new();
    match key {
        ServiceBinding::MANDATORY => {
            let mut keys = Vec::new();
            for name in value.split(',') {
                keys.push(key_number(name).ok_or_else(|| wrong(name, "a parameter"))?);
            }
            keys.sort_unstable();
            keys.iter().for_each(|key| octets.extend(key.to_be_bytes()));
        }
        ServiceBinding::ALPN => {
            for protocol in value.split(',') {
                let length = u8::try_from(protocol.len()).ok().filter(|length| *length > 0);
                octets.push(length.ok_or_else(|| wrong(protocol, "a protocol such as `h2`"))?);
                octets.extend_from_slice(protocol.as_bytes());
            }
        }
        ServiceBinding::NO_DEFAULT_ALPN if !value.is_empty() => {
            return Err(wrong(value, "expected after `no-default-alpn`"));
        }
        ServiceBinding::PORT => {
            octets.extend(value.parse::<u16>().map_err(|_| wrong(value, "a port"))?.to_be_bytes());
        }
        ServiceBinding::IPV4_HINT | ServiceBinding::IPV6_HINT => {
            for word in value.split(',') {
                match (key, word.parse::<IpAddr>()) {
                    (ServiceBinding::IPV4_HINT, Ok(IpAddr::V4(v4))) => octets.extend(v4.octets()),
                    (ServiceBinding::IPV6_HINT, Ok(IpAddr::V6(v6))) => octets.extend(v6.octets()),
                    _ => return Err(wrong(word, "an address of this family")),
                }
            }
        }
        _ => octets.extend_from_slice(value.as_bytes()),
    }
    Ok(octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rtype: &str, text: &str) -> Result<String, String> {
        let data = Rdata::parse(rtype.parse().unwrap(), text);
        data.map(|data| data.to_string()).map_err(|why| why.to_string())
    }

    #[test]
    fn what_is_written_is_shown_as_zone_files_show_it() {
        for (rtype, written, expected) in [
            ("A", "192.0.2.1", "192.0.2.1"),
            ("AAAA", "2001:DB8::1", "2001:db8::1"),
            ("CNAME", "Example.org", "example.org."),
            ("MX", "10 mail.example.org.", "10 mail.example.org."),
            ("MX", "0 .", "0 ."),
            ("TXT", "v=spf1 -all", "\"v=spf1 -all\""),
            ("TXT", r#""a \"b\"" "c\032d""#, r#""a \"b\"" "c d""#),
            ("TXT", "", "\"\""),
            ("SRV", "0 5 443 a.example.org", "0 5 443 a.example.org."),
            ("CAA", "0 issue letsencrypt.org", "0 issue \"letsencrypt.org\""),
            ("CAA", r#"128 Issue "ca.example; policy=ev""#, r#"128 issue "ca.example; policy=ev""#),
            (
                "HTTPS",
                "1 . alpn=h2,http/1.1 ipv6hint=2001:db8::1 ipv4hint=192.0.2.1,192.0.2.2",
                "1 . alpn=h2,http/1.1 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1",
            ),
            ("SVCB", r#"0 other.example.org key65333="a b""#, r#"0 other.example.org. key65333="a b""#),
            ("TYPE65400", r"\# 3 0a0B 0c", r"\# 3 0a0b0c"),
        ] {
            assert_eq!(shown(rtype, written).as_deref(), Ok(expected), "{rtype} {written}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_the_word_that_is_wrong() {
        for (rtype, written, expected) in [
            ("A", "2001:db8::1", "`2001:db8::1` is not an IPv4 address"),
            ("A", "192.0.2.1 192.0.2.2", "`ADDRESS` is needed"),
            ("MX", "mail.example.org", "`PREFERENCE NAME` is needed"),
            ("MX", "70000 a", "`70000` is not a number from 0 to 65535"),
            ("TXT", r#""a"#, "`a closing quotation mark` is needed"),
            ("CAA", "0 is-sue a", "`is-sue` is not a tag of letters and digits"),
            ("HTTPS", "1 . alpn=h2 alpn=h3", "`alpn` is not written once"),
            ("HTTPS", "1 . ipv4hint=::1", "`::1` is not an address of this family"),
            ("A", r"\# 4 0a000001", "`the type's own form` is needed"),
            ("TYPE300", r"\# 2 00", "`2` is not the number of the octets that follow"),
            (
                "SOA",
                "a b 1 2 3 4 5",
                r"records of type SOA cannot be written as text here; RFC 3597's form `\# LENGTH HEX` can",
            ),
        ] {
            assert_eq!(shown(rtype, written), Err(expected.to_owned()), "{rtype} {written}");
        }
    }
}
