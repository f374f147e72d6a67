//! What holds for any bytes given to [`RequestHead`].

use dualgate_http::{
    BodyLength, HeadError, HeadLimits, Progress, RequestHead, RequestView, Version, try_write_field, write_request_line,
};

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    let limits = HeadLimits { max_bytes: 1024, max_fields: 16, max_target: 128 };
    let mut head = RequestHead::new();
    let outcome = head.parse(input, &limits);
    assert_same_in_pieces(input, &limits, outcome);
    if let Ok(Progress::Complete { len }) = outcome {
        assert!(len <= limits.max_bytes);
        let view = head.view(input);
        assert_agrees_with_a_naive_reader(&input[..len], &view);
        assert_survives_writing(&view, &limits);
    }
}

/// Every prefix is partial until the head is complete. A fault may be seen early, and then bear another name.
fn assert_same_in_pieces(input: &[u8], limits: &HeadLimits, whole: Result<Progress, HeadError>) {
    let mut head = RequestHead::new();
    let first = (0..=input.len())
        .map(|len| head.parse(&input[..len], limits))
        .find(|outcome| *outcome != Ok(Progress::Partial))
        .unwrap_or(Ok(Progress::Partial));
    match (whole, first) {
        (Err(_), Err(_)) => {}
        (whole, first) => assert_eq!(whole, first),
    }
}

/// A second reader that knows nothing but lines and colons finds the same fields and the same length.
fn assert_agrees_with_a_naive_reader(head: &[u8], view: &RequestView<'_>) {
    let text: Vec<u8> = head.strip_prefix(b"\r\n").unwrap_or(head).to_vec();
    let text = String::from_utf8_lossy(&text).into_owned();
    let text = text.strip_suffix("\r\n\r\n").expect("an empty line");
    let mut lines = text.split("\r\n");
    let start: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert_eq!((start.len(), start[0]), (3, view.method()));

    let fields: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("a colon"))
        .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    let seen: Vec<(String, String)> = view.fields().map(|field| (lossy(field.name), lossy(field.value))).collect();
    assert_eq!(fields, seen);
    for (name, value) in &fields {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?}");
        assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
    }

    let values = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| &**value).collect()
    };
    let body = match (&*values("content-length"), &*values("transfer-encoding")) {
        ([], []) => BodyLength::Empty,
        ([length], []) => BodyLength::Length(length.parse().expect("a number")),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => BodyLength::Chunked,
        framing => panic!("{framing:?}"),
    };
    assert_eq!(body, view.body());
    match &*values("host") {
        [host] => assert_eq!(lossy(view.authority()), *host),
        [] => assert_eq!(view.version(), Version::Http10),
        hosts => panic!("{hosts:?}"),
    }
}

/// What was read can be written, and reads the same again.
fn assert_survives_writing(view: &RequestView<'_>, limits: &HeadLimits) {
    let mut written = Vec::new();
    write_request_line(view.method(), view.path_and_query(), &mut written);
    written.extend_from_slice(b"Host: again\r\n");
    for field in view.end_to_end_fields() {
        try_write_field(field.name, field.value, &mut written).expect("a parsed field");
    }
    written.extend_from_slice(b"\r\n");
    let wider = HeadLimits { max_bytes: 2 * limits.max_bytes, max_fields: limits.max_fields + 1, ..*limits };
    let mut head = RequestHead::new();
    assert_eq!(head.parse(&written, &wider), Ok(Progress::Complete { len: written.len() }));
    let again = head.view(&written);
    let pairs = |view: &RequestView<'_>| -> Vec<_> {
        view.end_to_end_fields().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
    };
    assert_eq!((pairs(view), view.path_and_query()), (pairs(&again), again.path_and_query()));
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
