//! What holds for any bytes given to [`ResponseHead`].

use dualgate_http::{BodyLength, HeadLimits, Progress, ResponseHead, write_status_line};

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    let limits = HeadLimits { max_bytes: 1024, max_fields: 16, max_target: 0 };
    let mut head = ResponseHead::new();
    let whole = head.parse(input, &limits);

    let mut growing = ResponseHead::new();
    let first = (0..=input.len())
        .map(|len| growing.parse(&input[..len], &limits))
        .find(|outcome| *outcome != Ok(Progress::Partial))
        .unwrap_or(Ok(Progress::Partial));
    match (whole, first) {
        (Err(_), Err(_)) => {}
        (whole, first) => assert_eq!(whole, first),
    }

    let Ok(Progress::Complete { len }) = whole else { return };
    let view = head.view(input);
    let lines = input[..len].iter().filter(|byte| **byte == b'\n').count();
    let ends = input[..len].windows(2).filter(|pair| *pair == b"\r\n").count();
    let returns = input[..len].iter().filter(|byte| **byte == b'\r').count();
    assert!(lines == ends && returns == ends, "every line ends in CRLF, and nothing else does");
    assert_eq!(view.fields().count() + 2, lines);
    assert!((100..1000).contains(&view.status()));
    assert_eq!(view.body("HEAD"), BodyLength::Empty);
    if view.is_interim() || matches!(view.status(), 101 | 204 | 304) {
        assert_eq!(view.body("GET"), BodyLength::Empty);
    }

    let mut written = Vec::new();
    write_status_line(view.status(), Some(view.reason()), &mut written);
    written.extend_from_slice(b"\r\n");
    let mut again = ResponseHead::new();
    assert_eq!(again.parse(&written, &limits), Ok(Progress::Complete { len: written.len() }));
    assert_eq!((again.view(&written).status(), again.view(&written).reason()), (view.status(), view.reason()));
}
