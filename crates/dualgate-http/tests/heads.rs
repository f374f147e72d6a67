//! What the case files cannot say: limits, reuse, and the view of routing.

use dualgate_http::{
    BodyLength, HeadError, HeadLimits, HeadView, Progress, RequestHead, ResponseHead, Target, Version,
};

const BROWSER: &[u8] = b"GET /search?q=1 HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\
    Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nTE: trailers\r\nProxy-Authorization: x\r\n\r\n";

#[test]
fn a_head_is_viewed_in_the_buffer_it_came_in() {
    let mut head = RequestHead::new();
    let progress = head.parse(BROWSER, &HeadLimits::default());
    assert_eq!(progress, Ok(Progress::Complete { len: BROWSER.len() }));
    let view = head.view(BROWSER);
    assert_eq!(view.method(), "GET");
    assert_eq!(view.target(), Target::Origin { path_and_query: b"/search?q=1" });
    assert_eq!(view.version(), Version::Http11);
    assert_eq!(view.authority(), b"example.com");
    assert_eq!(view.body(), BodyLength::Empty);
    assert!(view.keep_alive());
}

#[test]
fn only_end_to_end_fields_are_forwarded_and_matched() {
    let mut head = RequestHead::new();
    head.parse(BROWSER, &HeadLimits::default()).unwrap();
    let view = head.view(BROWSER);
    let mut forwarded = Vec::new();
    view.for_each_field(&mut |name, value| forwarded.push((name.to_vec(), value.to_vec())));
    assert_eq!(forwarded, [(b"Accept".to_vec(), b"*/*".to_vec()), (b"X-Other".to_vec(), b"2".to_vec())]);
    assert_eq!(HeadView::field(&view, "x-other"), Some(&b"2"[..]));
    assert_eq!(HeadView::field(&view, "x-mine"), None);
}

#[test]
fn an_index_is_used_again_and_forgets_what_was_before() {
    let mut head = RequestHead::new();
    let limits = HeadLimits::default();
    head.parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", &limits).unwrap();
    head.parse(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", &limits).unwrap();
    let view = head.view(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!((view.body(), view.keep_alive(), view.fields().count()), (BodyLength::Empty, true, 1));
}

#[test]
fn a_view_of_another_buffer_is_wrong_but_does_not_panic() {
    let mut head = RequestHead::new();
    head.parse(BROWSER, &HeadLimits::default()).unwrap();
    let view = head.view(b"short");
    assert_eq!(view.fields().filter(|field| !field.value.is_empty()).count(), 0);
    assert_eq!((view.authority(), HeadView::field(&view, "accept")), (&b""[..], None));
}

#[test]
fn what_is_behind_a_head_is_left_alone() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET \0garbage";
    assert_eq!(RequestHead::new().parse(request, &HeadLimits::default()), Ok(Progress::Complete { len: 27 }));
    let response = b"HTTP/1.1 200 OK\r\n\r\n\0garbage";
    assert_eq!(ResponseHead::new().parse(response, &HeadLimits::default()), Ok(Progress::Complete { len: 19 }));
}

#[test]
fn a_head_that_cannot_end_within_its_budget_is_refused_before_it_ends() {
    let limits = HeadLimits { max_bytes: 64, ..HeadLimits::default() };
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    request.resize(63, b'x');
    assert_eq!(RequestHead::new().parse(&request, &limits), Ok(Progress::Partial));
    request.push(b'x');
    assert_eq!(RequestHead::new().parse(&request, &limits), Err(HeadError::TooLarge));

    let exact = [&request[..60], b"\r\n\r\n"].concat();
    assert_eq!(RequestHead::new().parse(&exact, &limits), Ok(Progress::Complete { len: 64 }));
    let over = [&request[..61], b"\r\n\r\n"].concat();
    assert_eq!(RequestHead::new().parse(&over, &limits), Err(HeadError::TooLarge));
}

#[test]
fn the_number_of_fields_is_limited() {
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(fields - 1));
    let limits = HeadLimits::default();
    assert!(RequestHead::new().parse(head(100).as_bytes(), &limits).is_ok());
    assert_eq!(RequestHead::new().parse(head(101).as_bytes(), &limits), Err(HeadError::TooManyFields));

    let more_than_the_stack_holds = HeadLimits { max_fields: 1000, ..limits };
    let outcome = RequestHead::new().parse(head(257).as_bytes(), &more_than_the_stack_holds);
    assert_eq!(outcome, Err(HeadError::TooManyFields));
}

#[test]
fn a_target_is_refused_as_soon_as_it_is_too_long() {
    let limits = HeadLimits { max_target: 16, ..HeadLimits::default() };
    let parse = |request: &str| RequestHead::new().parse(request.as_bytes(), &limits);
    assert_eq!(parse("GET /23456789abcdef0"), Ok(Progress::Partial));
    assert_eq!(parse("GET /23456789abcdef01"), Err(HeadError::TargetTooLong));
    assert_eq!(parse("GET /23456789abcdef01 HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::TargetTooLong));
    assert!(parse("GET /23456789abcdef0 HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn no_control_byte_passes_in_a_value_wherever_it_stands() {
    // Long values go through the vector loops of the tokeniser, short ones and their ends do not.
    for len in [1, 2, 15, 16, 17, 31, 32, 33, 70] {
        for at in 0..len {
            for byte in (0..=u8::MAX).filter(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f) {
                let mut value = vec![b'v'; len];
                value[at] = byte;
                let request = [&b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..], &value, b"\r\n\r\n"].concat();
                let outcome = RequestHead::new().parse(&request, &HeadLimits::default());
                assert!(outcome.is_err(), "{byte:#x} at {at} of {len}: {outcome:?}");
            }
        }
    }
}
