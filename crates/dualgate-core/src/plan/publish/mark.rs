//! Marks: TXT records that say whose a set of records is, as external-dns' TXT registry writes them.
//!
//! `grafana.example.org A` is marked at `_dualgate-a.grafana.example.org` (external-dns: `--txt-prefix=_dualgate-%{record_type}.`
//! and `--txt-wildcard-replacement=_wildcard`): unlike external-dns' usual `a-grafana.example.org` that name lies within the
//! zone also for the zone itself. Marks in the usual place are read, too, so that an owner can move from there.

use dualgate_wire::dns::{Name, Rdata, RecordType};

use super::{Set, SetKey};

const PREFIX: &[u8] = b"_dualgate-";
const WILDCARD: &[u8] = b"_wildcard";
const HERITAGE: &str = "heritage=external-dns";
const OWNER: &str = "external-dns/owner=";
const RESOURCE: &str = "external-dns/resource=";
/// Octets of one text of a TXT record.
const TEXT: usize = 255;

/// What a TXT set says of ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is the mark of this owner.
    Of(String),
    /// It is something else.
    Not,
}

impl Mark {
    /// Of a set.
    pub fn read(set: &Set) -> Self {
        let [Rdata::Txt(texts)] = set.data.iter().collect::<Vec<_>>()[..] else { return Self::Not };
        let octets: Vec<u8> = texts.iter().flat_map(|text| text.iter().copied()).collect();
        let text = String::from_utf8_lossy(&octets);
        // Some providers give back the quotation marks.
        let mut words = text.trim_matches('"').split(',');
        if words.next() != Some(HERITAGE) {
            return Self::Not;
        }
        words.find_map(|word| word.strip_prefix(OWNER)).map_or(Self::Not, |owner| Self::Of(owner.to_owned()))
    }

    /// The set that says it.
    pub fn write(owner: &str, from: &str, ttl: u32) -> Set {
        let text = format!("{HERITAGE},{OWNER}{owner},{RESOURCE}{from}");
        let texts = text.as_bytes().chunks(TEXT).map(Into::into).collect();
        Set { ttl, data: [Rdata::Txt(texts)].into() }
    }
}

/// Whether a name's mark would stand where a wildcard's does.
pub(super) fn is_reserved(name: &Name) -> bool {
    name.labels().next().is_some_and(|first| first.eq_ignore_ascii_case(WILDCARD))
}

/// Where the mark of a set stands; `None` if its name would be too long, or is reserved.
pub fn mark_name(key: &SetKey) -> Option<SetKey> {
    if is_reserved(&key.name) {
        return None;
    }
    let first = [PREFIX, key.rtype.to_string().to_ascii_lowercase().as_bytes()].concat();
    let plain = match key.name.is_wildcard() {
        true => key.name.parent()?.child(WILDCARD)?,
        false => key.name.clone(),
    };
    Some(SetKey::new(plain.child(&first)?, RecordType::TXT))
}

/// Where a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where we write it.
    Ours,
    /// Where external-dns does unless told otherwise.
    Usual,
}

/// What a mark at this name is of.
pub(super) fn marked(at: &Name, place: Place) -> Option<SetKey> {
    let (first, above) = (at.labels().next()?, at.parent()?);
    let rtype = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<RecordType>().ok();
    match place {
        Place::Ours => {
            let word = first.strip_prefix(PREFIX)?;
            let plain = !is_reserved(&above);
            let name = if plain { above } else { above.parent()?.child(b"*")? };
            let of = SetKey::new(name, rtype(word)?);
            mark_name(&of).is_some_and(|mark| mark.name == *at).then_some(of)
        }
        Place::Usual => {
            let end = first.iter().position(|octet| *octet == b'-')?;
            Some(SetKey::new(above.child(&first[end + 1..])?, rtype(&first[..end])?))
        }
    }
}

/// Whether a set stands where marks do: those have no marks of their own.
pub(super) fn is_mark(key: &SetKey, place: Place) -> bool {
    key.rtype == RecordType::TXT
        && match place {
            Place::Ours => key.name.labels().next().is_some_and(|first| first.starts_with(PREFIX)),
            Place::Usual => is_mark(key, Place::Ours) || marked(&key.name, Place::Usual).is_some(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, rtype: RecordType) -> SetKey {
        SetKey::new(name.parse().unwrap(), rtype)
    }

    #[test]
    fn a_mark_lies_within_the_zone_and_leads_back_to_what_it_marks() {
        for (name, rtype, at) in [
            ("grafana.example.org", RecordType::A, "_dualgate-a.grafana.example.org"),
            ("example.org", RecordType::MX, "_dualgate-mx.example.org"),
            ("*.apps.example.org", RecordType::HTTPS, "_dualgate-https._wildcard.apps.example.org"),
            ("a.example.org", RecordType(65400), "_dualgate-type65400.a.example.org"),
        ] {
            let marked_key = key(name, rtype);
            assert_eq!(mark_name(&marked_key), Some(key(at, RecordType::TXT)));
            assert_eq!(marked(&at.parse().unwrap(), Place::Ours), Some(marked_key));
        }
        let usual = |text: &str| marked(&text.parse().unwrap(), Place::Usual);
        assert_eq!(usual("aaaa-grafana.example.org"), Some(key("grafana.example.org", RecordType::AAAA)));
        assert_eq!(usual("a-*.example.org"), Some(key("*.example.org", RecordType::A)));
        for other in ["grafana.example.org", "my-app.example.org", "_dualgate-x.example.org", "a-"] {
            assert_eq!(usual(other), None, "{other}");
            assert_eq!(marked(&other.parse().unwrap(), Place::Ours), None, "{other}");
        }
        let long = vec!["a".repeat(60); 4].join(".");
        assert_eq!(mark_name(&key(&long, RecordType::A)), None);
        assert_eq!(mark_name(&key("_wildcard.example.org", RecordType::A)), None);
    }

    #[test]
    fn marks_are_written_and_read_as_external_dns_does() {
        let set = Mark::write("home", "ingress/apps/grafana", 60);
        let shown: Vec<String> = set.data.iter().map(ToString::to_string).collect();
        let expected = "heritage=external-dns,external-dns/owner=home,external-dns/resource=ingress/apps/grafana";
        assert_eq!(shown, [format!("\"{expected}\"")]);
        assert_eq!(Mark::read(&set), Mark::Of("home".to_owned()));
        let text = |text: &str| Set { ttl: 1, data: [Rdata::Txt(vec![text.as_bytes().into()])].into() };
        assert_eq!(Mark::read(&text(&format!("\"{expected}\""))), Mark::Of("home".to_owned()));
        assert_eq!(Mark::read(&text("heritage=external-dns,external-dns/resource=x")), Mark::Not);
        assert_eq!(Mark::read(&text("v=spf1 -all")), Mark::Not);
        let mut two = text(expected);
        two.data.extend(text("other").data);
        assert_eq!(Mark::read(&two), Mark::Not, "somebody else's text stands beside it");
        let long = Mark::write("home", &"x".repeat(300), 60);
        assert_eq!(Mark::read(&long), Mark::Of("home".to_owned()));
    }
}
