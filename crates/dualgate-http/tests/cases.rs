//! Runs `cases/*.case`: what is on the wire, and what is made of it.
//!
//! ```text
//! == a sentence that names the case
//! ? HEAD                 the method that a response answers, GET if absent
//! > GET / HTTP/1.1\r\n   input; the lines are joined, \r \n \t \\ \xNN are bytes
//! = TooLarge 431         what comes of it
//! ```
//!
//! The file name up to the first `-` says what the input is. Each input is given in one piece and byte by byte; a
//! message must be read the same way, a fault be a fault. A new case needs no code.

use std::fmt::Write;
use std::path::Path;

use dualgate_http::{
    BodyDecoder, BodyLength, CanonicalPath, Field, HeadLimits, Progress, RequestHead, ResponseHead, TrailerLimits,
    Version,
};

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut failures) = (0, String::new());
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        for case in cases(&std::fs::read_to_string(file).unwrap()) {
            count += 1;
            for pieces in [Pieces::One, Pieces::Bytes] {
                let outcome = read(name, &case, pieces);
                if outcome != case.expected {
                    writeln!(failures, "{name}: {}, {pieces:?}\n  - {}\n  + {outcome}", case.name, case.expected)
                        .unwrap();
                }
            }
        }
    }
    assert!(count > 0 && failures.is_empty(), "of {count} cases:\n{failures}");
}

#[derive(Default)]
struct Case {
    name: String,
    method: String,
    input: Vec<u8>,
    expected: String,
}

#[derive(Clone, Copy, Debug)]
enum Pieces {
    One,
    Bytes,
}

impl Pieces {
    /// How much of the input the reader has each time it tries.
    fn lengths(self, input: &[u8]) -> impl Iterator<Item = usize> + use<> {
        match self {
            Self::One => input.len()..=input.len(),
            Self::Bytes => 0..=input.len(),
        }
    }
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases = Vec::<Case>::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.into(), method: "GET".into(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a name in front of a case");
        match line.split_at(line.len().min(2)) {
            ("? ", method) => case.method = method.into(),
            ("> " | ">", input) => unescape(input, &mut case.input),
            ("= ", expected) => case.expected = expected.into(),
            _ => panic!("no line of a case: {line}"),
        }
    }
    cases
}

fn read(file: &str, case: &Case, pieces: Pieces) -> String {
    match file.split(['-', '.']).next() {
        Some("request") => request(case, pieces),
        Some("response") => response(case, pieces),
        Some("chunked") => chunked(case, pieces),
        Some("path") => path(&case.input),
        _ => panic!("no kind of case: {file}"),
    }
}

fn request(case: &Case, pieces: Pieces) -> String {
    let mut head = RequestHead::new();
    for len in pieces.lengths(&case.input) {
        match head.parse(&case.input[..len], &HeadLimits::default()) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete { len }) => return render_request(&head, case, len),
            Err(error) => return format!("{error:?} {}", error.status()),
        }
    }
    "partial".into()
}

fn render_request(head: &RequestHead, case: &Case, len: usize) -> String {
    let view = head.view(&case.input);
    let path_and_query = String::from_utf8_lossy(view.path_and_query());
    let authority = String::from_utf8_lossy(view.authority());
    let mut out = format!("{} {path_and_query} host={authority} {}", view.method(), body(view.body()));
    render_connection(&mut out, view.version(), view.keep_alive(), view.upgrade());
    if view.expects_continue() {
        out += " continue";
    }
    render_hop_by_hop(&mut out, view.fields());
    render_rest(&mut out, &case.input[len..]);
    out
}

fn response(case: &Case, pieces: Pieces) -> String {
    let mut head = ResponseHead::new();
    for len in pieces.lengths(&case.input) {
        match head.parse(&case.input[..len], &HeadLimits::default()) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete { len }) => return render_response(&head, case, len),
            Err(error) => return format!("{error:?}"),
        }
    }
    "partial".into()
}

fn render_response(head: &ResponseHead, case: &Case, len: usize) -> String {
    let view = head.view(&case.input);
    let mut out = format!("{} [{}] {}", view.status(), escape(view.reason()), body(view.body(&case.method)));
    render_connection(&mut out, view.version(), view.keep_alive(), view.upgrade());
    if view.is_interim() {
        out += " interim";
    }
    render_hop_by_hop(&mut out, view.fields());
    render_rest(&mut out, &case.input[len..]);
    out
}

fn body(length: BodyLength) -> String {
    match length {
        BodyLength::Empty => "empty".into(),
        BodyLength::Length(length) => format!("length={length}"),
        BodyLength::Chunked => "chunked".into(),
        BodyLength::UntilClose => "until-close".into(),
    }
}

fn render_connection(out: &mut String, version: Version, keep_alive: bool, upgrade: Option<&[u8]>) {
    out.push_str(match (version, keep_alive) {
        (Version::Http10, true) => " 1.0 keep-alive",
        (Version::Http10, false) => " 1.0",
        (Version::Http11, true) => "",
        (Version::Http11, false) => " close",
    });
    if let Some(upgrade) = upgrade {
        write!(out, " upgrade={}", escape(upgrade)).unwrap();
    }
}

fn render_hop_by_hop<'a>(out: &mut String, fields: impl Iterator<Item = Field<'a>>) {
    let names: Vec<_> = fields.filter(|field| field.is_hop_by_hop()).map(|field| escape(field.name)).collect();
    if !names.is_empty() {
        write!(out, " drops={}", names.join(",")).unwrap();
    }
}

fn render_rest(out: &mut String, rest: &[u8]) {
    if !rest.is_empty() {
        write!(out, " rest={}", escape(rest)).unwrap();
    }
}

fn chunked(case: &Case, pieces: Pieces) -> String {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &TrailerLimits::default());
    let (mut at, mut data) = (0, Vec::new());
    for len in pieces.lengths(&case.input) {
        while at < len && !decoder.is_done() {
            match decoder.decode(&case.input[at..len]) {
                Ok(step) => {
                    data.extend_from_slice(&case.input[at..len][step.data]);
                    at += step.consumed;
                }
                Err(error) => return format!("{error:?}"),
            }
        }
    }
    let mut out = format!("{} [{}]", if decoder.is_done() { "done" } else { "more" }, escape(&data));
    for (name, value) in decoder.trailers() {
        write!(out, " {}: {}", escape(name), escape(value)).unwrap();
    }
    render_rest(&mut out, &case.input[at..]);
    out
}

fn path(input: &[u8]) -> String {
    let mut scratch = Vec::new();
    match CanonicalPath::new(input, &mut scratch) {
        Ok(path) => path.as_str().to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn unescape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (byte, len) = match after.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', ..] => (u8::from_str_radix(&after[1..3], 16).expect("two digits"), 3),
            _ => panic!("no escape: \\{after}"),
        };
        out.push(byte);
        rest = &after[len..];
    }
    out.extend_from_slice(rest.as_bytes());
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
