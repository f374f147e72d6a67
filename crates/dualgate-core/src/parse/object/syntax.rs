//! The forms of names in Kubernetes. A check says in its error what is needed.

/// RFC 1123 label: most names.
pub(in crate::parse) fn label(text: &str) -> Result<(), &'static str> {
    if is_label(text, 63) {
        Ok(())
    } else {
        Err("1 to 63 lower-case letters, digits or inner hyphens are needed (RFC 1123 label)")
    }
}

/// RFC 1123 subdomain: labels with dots between them.
pub(super) fn subdomain(text: &str) -> Result<(), &'static str> {
    if text.len() <= 253 && text.split('.').all(|part| is_label(part, 253)) {
        Ok(())
    } else {
        Err(
            "lower-case letters, digits, inner hyphens and dots are needed, at most 253 characters (RFC 1123 subdomain)",
        )
    }
}

/// `IANA_SVC_NAME`: what `targetPort` and an Ingress call a port.
pub(super) fn port_name(text: &str) -> Result<(), &'static str> {
    if is_label(text, 15) && text.bytes().any(|b| b.is_ascii_lowercase()) && !text.contains("--") {
        Ok(())
    } else {
        Err("1 to 15 lower-case letters, digits or single inner hyphens are needed, one letter at least")
    }
}

/// `prefix/name` with an optional DNS prefix: what `appProtocol` is.
pub(in crate::parse) fn qualified(text: &str) -> Result<(), &'static str> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    if ends && bytes.len() <= 63 && name.bytes().all(inner) && prefix.is_none_or(|prefix| subdomain(prefix).is_ok()) {
        Ok(())
    } else {
        Err("a name of at most 63 letters, digits, `-`, `_` and `.` is needed, with an optional `prefix/`")
    }
}

/// `example.com/name`: what `IngressClass.spec.controller` is.
pub(super) fn domain_path(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'~' | b'%');
    match text.split_once('/') {
        Some((domain, path))
            if text.len() <= 250
                && subdomain(domain).is_ok()
                && !path.is_empty()
                && !path.starts_with('/')
                && path.bytes().all(allowed) =>
        {
            Ok(())
        }
        Some(_) | None => Err("a domain, `/` and a path are needed, such as `acme.io/foo`, at most 250 characters"),
    }
}

/// `kind`.
pub(super) fn kind(text: &str) -> Result<(), &'static str> {
    if text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err("1 to 63 letters and digits are needed")
    }
}

/// `apiVersion`: a version, or a group and a version.
pub(super) fn api_version(text: &str) -> Result<(), &'static str> {
    let (group, version) = text.split_once('/').map_or((None, text), |(group, version)| (Some(group), version));
    if group.is_none_or(|group| subdomain(group).is_ok()) && label(version).is_ok() {
        Ok(())
    } else {
        Err("a version such as `v1` is needed, or a group and a version such as `apps/v1`")
    }
}

/// A key of a ConfigMap or Secret.
pub(super) fn data_key(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed) && text != "." && !text.starts_with("..") {
        Ok(())
    } else {
        Err("1 to 253 letters, digits, `-`, `_` and `.` are needed, not starting with `..`")
    }
}

/// Any name that can stand in the path of a URL: the least that every kind asks for.
pub(super) fn path_segment(text: &str) -> Result<(), &'static str> {
    if matches!(text, "." | "..") || text.contains(['/', '%']) || text.contains(char::is_control) || text.len() > 253 {
        Err("it may not be `.` or `..` nor contain `/`, `%` or control characters, nor have more than 253 characters")
    } else {
        Ok(())
    }
}

fn is_label(text: &str, longest: usize) -> bool {
    let bytes = text.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    bytes.len() <= longest
        && end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// The word that `written` was probably meant to be: the same but for case, or a few letters off.
pub fn nearest<'a>(written: &str, words: &[&'a str]) -> Option<&'a str> {
    if written.len() > 64 {
        return None;
    }
    let allowed = match written.len() {
        0..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    let distance = |word: &str| edit_distance(&written.to_ascii_lowercase(), &word.to_ascii_lowercase());
    let near = words.iter().map(|word| (distance(word), *word)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, word)| *distance <= allowed && *distance < word.len()).map(|(_, word)| word)
}

/// How many letters have to be inserted, removed, replaced or swapped with their neighbour.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_suggested_when_it_is_a_few_letters_off() {
        let words = ["service", "serviceName", "pathType", "path", "port"];
        for (written, meant) in [
            ("servicName", Some("serviceName")),
            ("pathtype", Some("pathType")),
            ("Path", Some("path")),
            ("prot", Some("port")),
            ("backend", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, &words), meant, "{written}");
        }
    }

    #[test]
    fn names_have_the_forms_of_the_api_server() {
        type Check = fn(&str) -> Result<(), &'static str>;
        let table: [(Check, &[&str], &[&str]); 6] = [
            (label, &["a", "1a", "a-b", &"a".repeat(63)], &["", "A", "-a", "a-", "a.b", "a_b", &"a".repeat(64)]),
            (subdomain, &["a", "a.b", "1.2", &"a".repeat(253)], &["", ".", "a..b", "a.", "-a.b", &"a".repeat(254)]),
            (port_name, &["http", "a1", "1a", "a-b"], &["", "80", "a--b", "-a", "HTTP", &"a".repeat(16)]),
            (qualified, &["http", "kubernetes.io/h2c", "a_B.c"], &["", "a/", "/a", "A!/b", "-a", "a/b/c"]),
            (domain_path, &["traefik.io/ingress-controller", "a.b/c/d"], &["", "a", "a/", "/a", "A.b/c", "a.b//c"]),
            (data_key, &["tls.crt", ".x", "a_b"], &["", ".", "..", "..a", "a/b", "ä"]),
        ];
        for (check, good, bad) in table {
            good.iter().for_each(|text| assert!(check(text).is_ok(), "{text}"));
            bad.iter().for_each(|text| assert!(check(text).is_err(), "{text}"));
        }
    }
}
