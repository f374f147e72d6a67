//! The data of records as APIs over HTTP have it: names without their last dot, texts without or with quotation marks.

use dualgate_wire::dns::{Name, Rdata, RecordType};

/// Octets of one text of a TXT record.
const TEXT: usize = 255;
/// No record has it (RFC 6895 3.1).
const UNKNOWN: RecordType = RecordType(65_535);

/// A TXT record whose text is cut as an API would cut it: that keeps one text and not several.
pub fn joined(data: &Rdata) -> Rdata {
    match data {
        Rdata::Txt(texts) => {
            let whole: Vec<u8> = texts.iter().flat_map(|text| text.iter().copied()).collect();
            let mut texts: Vec<Box<[u8]>> = whole.chunks(TEXT).map(Into::into).collect();
            if texts.is_empty() {
                texts.push([].into());
            }
            Rdata::Txt(texts)
        }
        other => other.clone(),
    }
}

/// A type as an API names it. One that has no name here is one that is never written here, and stands for any of those.
pub fn rtype(text: &str) -> RecordType {
    text.parse().unwrap_or(UNKNOWN)
}

/// What an API says; `None` if it is no such record.
pub fn read(rtype: RecordType, text: &str) -> Option<Rdata> {
    match rtype {
        RecordType::TXT if !text.starts_with('"') => Some(joined(&Rdata::Txt(vec![text.as_bytes().into()]))),
        _ => Rdata::parse(rtype, text).ok().map(|data| joined(&data)),
    }
}

/// As an API wants it.
pub fn write(data: &Rdata) -> String {
    let plain = |name: &Name| name.to_string();
    match data {
        Rdata::Ns(name) | Rdata::Cname(name) | Rdata::Ptr(name) => plain(name),
        Rdata::Mx { preference, exchange } => format!("{preference} {}", plain(exchange)),
        Rdata::Srv { priority, weight, port, target } => format!("{priority} {weight} {port} {}", plain(target)),
        Rdata::Txt(texts) => {
            let whole: Vec<u8> = texts.iter().flat_map(|text| text.iter().copied()).collect();
            let mut texts = vec![String::new()];
            let mut length = 0;
            for c in String::from_utf8_lossy(&whole).chars() {
                length += c.len_utf8();
                if length > TEXT {
                    length = c.len_utf8();
                    texts.push(String::new());
                }
                let text = texts.last_mut().into_iter();
                text.for_each(|text| text.extend(matches!(c, '\\' | '"').then_some('\\').into_iter().chain([c])));
            }
            texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (rtype, text, written) in [
            ("A", "192.0.2.1", "192.0.2.1"),
            ("CNAME", "www.example.net", "www.example.net"),
            ("MX", "10 mail.example.net", "10 mail.example.net"),
            ("SRV", "1 2 443 host.example.net", "1 2 443 host.example.net"),
            ("TXT", r#""v=spf1 -all""#, r#""v=spf1 -all""#),
            ("TXT", r#""a \"b\"" "c""#, r#""a \"b\"c""#),
        ] {
            let rtype: RecordType = rtype.parse().unwrap();
            let data = joined(&Rdata::parse(rtype, text).unwrap());
            assert_eq!(write(&data), written);
            assert_eq!(read(rtype, written), Some(data), "{written}");
        }
        assert_eq!(read(RecordType::TXT, "v=spf1 -all").map(|data| write(&data)), Some(r#""v=spf1 -all""#.to_owned()));
        assert_eq!(read(RecordType::A, "no address"), None);
        // Whatever the parts of an API's text, it is the same; and nothing is cut within a letter.
        for whole in ["x".repeat(400), "ä".repeat(300), format!("{}\\\"", "x".repeat(254))] {
            let data = joined(&Rdata::Txt(whole.as_bytes().chunks(200).map(Into::into).collect()));
            let written = write(&data);
            let parts: Vec<&str> = written.trim_matches('"').split("\" \"").collect();
            assert!(parts.iter().all(|part| part.replace('\\', "").len() <= 255), "{written}");
            assert_eq!(read(RecordType::TXT, &written), Some(data.clone()), "{written}");
            assert_eq!(read(RecordType::TXT, &written.replace("\" \"", "")), Some(data), "{written}");
        }
        let long = Rdata::Txt(vec![vec![b'x'; 200].into(), vec![b'y'; 200].into()]);
        let Rdata::Txt(texts) = joined(&long) else { panic!() };
        assert_eq!(texts.iter().map(|text| text.len()).collect::<Vec<_>>(), [255, 145]);
    }
}
