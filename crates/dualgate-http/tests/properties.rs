//! The no-panic contract, and what else holds for any input: for random bytes, for random pieces of real messages, and
//! for the corpus of the fuzz targets, which check the same (`fuzz/`).

#[path = "oracle/chunked.rs"]
mod chunked;
#[path = "oracle/path.rs"]
mod path;
#[path = "oracle/request_head.rs"]
mod request_head;
#[path = "oracle/response_head.rs"]
mod response_head;

use std::path::Path;

use dualgate_http::{check_query, is_forbidden_trailer, is_forwarding_header, parse_authority, split_query};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const FIELDS: &[&str] = &[
    "Host: a",
    "host: b",
    "Host:a:80",
    "Content-Length: 5",
    "Content-Length: 5, 5",
    "content-length:\t7 ",
    "Transfer-Encoding: chunked",
    "transfer-encoding: chunked, identity",
    "Connection: close",
    "Connection: x, keep-alive",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "X: 1",
    "X-Y:",
    "x_y: \u{e4}",
    " folded",
    "X : 1",
    ": 1",
    "X: \0",
    "Cookie: a=b; c=d",
    "TE: trailers",
];
const ENDS: &[&str] = &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", ""];
const STARTS: &[&str] = &[
    "GET / HTTP/1.1",
    "GET / HTTP/1.1",
    "POST /a?b HTTP/1.1",
    "GET http://a/ HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET / HTTP/1.0",
    "GET /  HTTP/1.1",
    "\r\nGET / HTTP/1.1",
    "\nGET / HTTP/1.1",
    "GET /# HTTP/1.1",
    "CONNECT a:1 HTTP/1.1",
    "GET / HTTP/2.0",
];
const STATUSES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 404 Not Found",
    "HTTP/1.1 101 x",
    "HTTP/1.1 204 ",
    "HTTP/1.1 304 y",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 099 z",
    "HTTP/1.1  200",
    "HTTP/2 200",
    "HTTP/1.1 200 \u{e4}",
];
const CHUNKS: &[&str] = &[
    "5\r\nhello\r\n",
    "1;a=b\r\nx\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "\r\n",
    "a",
    "X: y\r\n",
    "Host: b\r\n",
    "5",
    ";",
    "\n",
    "\r",
    " ",
    "0",
    "hello",
    "ffffffffffffffff\r\n",
    "\0",
];
const PATHS: &[&str] = &[
    "/", "/", "a", "b", ".", "..", "%2e", "%2E", "%2f", "%2F", ";", "%3b", "%41", "%c3", "%", "%0", "%00", "%5c", "\\",
    "?", "#", " ", "~", "api", "\u{e4}",
];

fn head(starts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let line = (select(FIELDS), select(ENDS)).prop_map(|(field, end)| [field, end].concat());
    (select(starts), select(ENDS), vec(line, 0..8), select(&["\r\n", "\r\n", "\r\n", "\n", ""][..]), any::<[u8; 2]>())
        .prop_map(|(start, end, lines, last, rest)| {
            let text = [start, end, &lines.concat(), last].concat();
            [text.as_bytes(), &rest].concat()
        })
}

fn pieces(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(of), 0..16).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic_and_the_same_in_pieces(input in vec(any::<u8>(), 0..200)) {
        check_all(&input);
    }

    #[test]
    fn request_heads_keep_their_promises(input in head(STARTS)) {
        request_head::check(&input);
    }

    #[test]
    fn response_heads_keep_their_promises(input in head(STATUSES)) {
        response_head::check(&input);
    }

    #[test]
    fn chunked_bodies_keep_their_promises(input in pieces(CHUNKS)) {
        chunked::check(&input);
    }

    #[test]
    fn canonical_paths_keep_their_promises(input in pieces(PATHS)) {
        path::check(&input);
        path::check(&[b"/", &input[..]].concat());
    }
}

#[test]
fn the_corpus_of_the_fuzz_targets_keeps_its_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, check) in [
        ("request_head", request_head::check as fn(&[u8])),
        ("response_head", response_head::check),
        ("chunked", chunked::check),
        ("path", path::check),
    ] {
        let folder = corpus.join(target);
        let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{}", folder.display());
        for input in inputs {
            check(&std::fs::read(input).unwrap());
        }
    }
}

fn check_all(input: &[u8]) {
    request_head::check(input);
    response_head::check(input);
    chunked::check(input);
    path::check(input);
    let (path, query) = split_query(input);
    let _ = (check_query(query.unwrap_or(path)), is_forwarding_header(input), is_forbidden_trailer(input));
    if let Ok(authority) = parse_authority(input) {
        let mut host = Vec::new();
        authority.normalised_host(&mut host);
        let again = parse_authority(&host).expect("a host is an authority");
        let mut host_again = Vec::new();
        again.normalised_host(&mut host_again);
        assert_eq!(host, host_again);
    }
}
