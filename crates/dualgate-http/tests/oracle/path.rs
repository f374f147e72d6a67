//! What holds for any bytes given to [`CanonicalPath`].

use dualgate_http::CanonicalPath;

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    let mut scratch = Vec::new();
    let Ok(path) = CanonicalPath::new(input, &mut scratch) else { return };
    assert_is_canonical(path);
    let bytes = path.as_bytes();
    for slash in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
        let mut of_prefix = Vec::new();
        let prefix = CanonicalPath::new(&bytes[..slash], &mut of_prefix).expect("a part up to a slash");
        let below = path.below(prefix).expect("a prefix");
        assert_is_canonical(below);
        assert!(bytes.ends_with(below.as_bytes()));
    }
}

fn assert_is_canonical(path: CanonicalPath<'_>) {
    let mut scratch = Vec::new();
    assert_eq!(CanonicalPath::new(path.as_bytes(), &mut scratch), Ok(path), "idempotent");
    let text = path.as_str();
    assert_eq!(text.as_bytes(), path.as_bytes());
    assert!(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    assert!(!text.contains("//") && !text.contains(['\\', '#', '?']), "{text}");
    for segment in text.split('/') {
        // A server that decodes `%2F`, cuts parameters off, or decodes everything, sees no dot segment either.
        for part in segment.split("%2F") {
            let name = part.split(';').next().unwrap_or_default().split("%3B").next().unwrap_or_default();
            assert!(!matches!((name, part), ("." | "..", _)), "{text}");
        }
    }
    for (at, _) in text.match_indices('%') {
        let triplet = &text[at + 1..at + 3];
        let byte = u8::from_str_radix(triplet, 16).expect("two digits");
        assert_eq!(triplet, triplet.to_ascii_uppercase());
        assert!(!(byte.is_ascii_alphanumeric() || b"-._~\\\0".contains(&byte)), "{text}");
    }
}
