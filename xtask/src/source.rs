//! A Rust file taken apart just far enough for rules: code, comments, test code, functions, paths.
//!
//! This is no parser. It knows comments, literals, braces and `use` trees, and that the code is formatted by
//! rustfmt; what a rule needs beyond that belongs in clippy.

use std::collections::BTreeMap;
use std::ops::Range;

/// One Rust file. `code` and `comments` have the text's own offsets; what does not belong is blanked.
pub struct Source {
    /// Path from the root of the workspace.
    pub path: String,
    /// The text as it stands.
    pub text: String,
    /// Without comments and without what stands in literals.
    pub code: String,
    /// Only the comments.
    pub comments: String,
    tests: Vec<Range<usize>>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
    /// Whether it is test code.
    pub is_test: bool,
}

/// A path such as `std::fs::read`, with imports of the file resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathUse {
    /// Its line, from 1.
    pub line: usize,
    /// The path; a glob ends in `*`.
    pub path: String,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let tests = if is_test_file(path) { std::iter::once(0..text.len()).collect() } else { test_ranges(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, comments, tests }
    }

    /// The line, from 1, of an offset.
    pub fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Whether the offset lies in test code.
    pub fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Lines of the file without its test code.
    pub fn lines_without_tests(&self) -> usize {
        let tests: usize = self.tests.iter().map(|range| lines(&self.text[range.clone()])).sum();
        lines(&self.text).saturating_sub(tests)
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let words = words(&self.code);
        let pairs = words.iter().zip(words.iter().skip(1));
        pairs
            .filter(|(first, second)| {
                &self.code[(*first).clone()] == "fn" && self.code[first.end..second.start].trim().is_empty()
            })
            .filter_map(|(first, second)| {
                let body = self.body(second.end)?;
                Some(Function {
                    name: self.code[second.clone()].to_owned(),
                    line: self.line(first.start),
                    lines: lines(&self.code[first.start..body.end]),
                    is_test: self.is_test(first.start),
                })
            })
            .collect()
    }

    fn body(&self, from: usize) -> Option<Range<usize>> {
        let mut depth = 0_usize;
        for (at, byte) in self.code.bytes().enumerate().skip(from) {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                b';' if depth == 0 => return None,
                b'{' if depth == 0 => return Some(at..closing_brace(&self.code, at)),
                _ => {}
            }
        }
        None
    }

    /// The paths in the code that is not test code.
    pub fn paths(&self) -> Vec<PathUse> {
        let (imports, rest) = self.imports();
        let names: BTreeMap<&str, &str> =
            imports.iter().map(|(name, path, _)| (name.as_str(), path.as_str())).collect();
        let used = path_ranges(&rest).into_iter().map(|range| {
            let path: String = rest[range.clone()].split_whitespace().collect();
            let (first, tail) = path.split_once("::").unwrap_or((&path, ""));
            let path = match names.get(first) {
                Some(import) if tail.is_empty() => (*import).to_owned(),
                Some(import) => format!("{import}::{tail}"),
                None => path,
            };
            (path, range.start)
        });
        let imported = imports.iter().map(|(_, path, at)| (path.clone(), *at));
        let mut paths: Vec<_> = imported
            .chain(used)
            .filter(|(path, at)| path.contains("::") && !self.is_test(*at))
            .map(|(path, at)| PathUse { line: self.line(at), path })
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The imports as (name, path, offset), and the code without them.
    fn imports(&self) -> (Vec<(String, String, usize)>, String) {
        let mut imports = Vec::new();
        let mut rest = self.code.clone();
        for word in words(&self.code).into_iter().filter(|word| &self.code[word.clone()] == "use") {
            let tail = &self.code[word.end..];
            let Some(length) = tail.find(';').filter(|_| !tail.trim_start().starts_with('<')) else { continue };
            let tree = &tail[..length];
            expand("", tree, &mut |path| {
                let (path, name) = path.split_once(" as ").unwrap_or((path, path));
                let name = name.rsplit("::").next().unwrap_or(name);
                imports.push((name.to_owned(), path.to_owned(), word.start));
            });
            rest.replace_range(word.start..word.end + length, &blank(&self.code[word.start..word.end + length]));
        }
        (imports, rest)
    }

    /// The offsets of calls of a macro: its name followed by `!`.
    pub fn macro_calls(&self, name: &str) -> Vec<usize> {
        let words = words(&self.code).into_iter();
        words
            .filter(|word| &self.code[word.clone()] == name && self.code[word.end..].starts_with('!'))
            .map(|word| word.start)
            .collect()
    }

    /// The offsets of a word in the code.
    pub fn word(&self, word: &str) -> Vec<usize> {
        words(&self.code)
            .into_iter()
            .filter(|range| &self.code[range.clone()] == word)
            .map(|range| range.start)
            .collect()
    }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || ["/tests/", "/benches/", "/examples/"].iter().any(|part| path.contains(part))
}

fn lines(text: &str) -> usize {
    text.lines().count()
}

fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Splits a text into code and comments, each with the text's offsets.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut code = blank(text).into_bytes();
    let mut comments = code.clone();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && is_word(bytes[at - 1]);
        let end = if rest.starts_with(b"//") || rest.starts_with(b"/*") {
            let end = at + comment(rest);
            comments[at..end].copy_from_slice(&bytes[at..end]);
            end
        } else if let Some(length) = raw_string(rest).filter(|_| !word_before) {
            at + length
        } else if rest[0] == b'"' {
            at + string(rest)
        } else if let Some(length) = text.get(at..).and_then(character) {
            at + length
        } else {
            code[at] = bytes[at];
            at + 1
        };
        at = end;
    }
    // Blanks are ASCII and whole characters were copied byte by byte, comments by their ASCII limits.
    (String::from_utf8_lossy(&code).into_owned(), String::from_utf8_lossy(&comments).into_owned())
}

fn comment(rest: &[u8]) -> usize {
    if rest.starts_with(b"//") {
        return rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string that begins here, prefix included.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let hashes = rest[prefix.len()..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix.len() + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = rest[open + 1..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| open + 1 + length + end.len()))
}

/// The length of a character literal that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let mut characters = inner.chars();
    match characters.next()? {
        '\\' => inner[2.min(inner.len())..].find('\'').map(|length| 1 + 2 + length + 1),
        first => (characters.next() == Some('\'')).then(|| 2 + first.len_utf8()),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn words(code: &str) -> Vec<Range<usize>> {
    let bytes = code.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        if length > 0 {
            words.push(at..at + length);
        }
        at += length.max(1);
    }
    words
}

/// Where paths stand: words joined by `::`.
fn path_ranges(code: &str) -> Vec<Range<usize>> {
    let mut paths: Vec<Range<usize>> = Vec::new();
    for word in words(code) {
        match paths.last_mut() {
            Some(last) if code[last.end..word.start].trim() == "::" => last.end = word.end,
            _ => paths.push(word),
        }
    }
    paths
}

/// Calls `with` for every path of a `use` tree.
fn expand(prefix: &str, tree: &str, with: &mut dyn FnMut(&str)) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let prefix = format!("{prefix}{}", tree[..open].trim());
        let close = closing_brace(tree, open) - 1;
        for part in commas(&tree[open + 1..close]) {
            expand(&prefix, part, with);
        }
    } else if tree == "self" {
        with(prefix.trim_end_matches("::"));
    } else if !tree.is_empty() {
        with(&format!("{prefix}{tree}"));
    }
}

fn commas(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

/// The offset behind the brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The items behind `#[cfg(test)]`.
fn test_ranges(code: &str) -> Vec<Range<usize>> {
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    starts
        .map(|start| {
            let end = code[start..].find(['{', ';']).map_or(code.len(), |length| start + length);
            let is_block = code.as_bytes().get(end) == Some(&b'{');
            start..if is_block { closing_brace(code, end) } else { end }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Source::new("src/a.rs", text).paths().into_iter().map(|used| used.path).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let source =
            Source::new("a.rs", "let a = \"x // y\"; // note\nlet c = '\"'; /* in /* in */ */ r#\"\"q\"# 'a: loop {}");
        let code: Vec<_> = source.code.split_whitespace().collect();
        assert_eq!(code.join(" "), "let a = ; let c = ; 'a: loop {}");
        let comments: Vec<_> = source.comments.split_whitespace().collect();
        assert_eq!(comments.join(" "), "// note /* in /* in */ */");
        assert_eq!((source.code.len(), source.comments.len()), (source.text.len(), source.text.len()));
    }

    #[test]
    fn a_text_that_is_not_ascii_keeps_its_offsets() {
        let source = Source::new("a.rs", "let ä = 'ä'; // ö\nfn f() {}\n");
        assert_eq!(source.code.len(), source.text.len());
        assert_eq!(source.functions()[0].line, 2);
    }

    #[test]
    fn use_trees_and_aliases_are_resolved() {
        assert_eq!(
            paths("use std::{fs::{self, File}, time as t};\nfn f() { fs::read(a); t::Instant::now() }"),
            ["std::fs", "std::fs::File", "std::time", "std::fs::read", "std::time::Instant::now"]
        );
        assert_eq!(paths("use std::time::*;"), ["std::time::*"]);
    }

    #[test]
    fn precise_capturing_is_no_import() {
        assert_eq!(paths("fn f<'a>() -> impl Fn() + use<'a> { std::env::var(x) }"), ["std::env::var"]);
    }

    #[test]
    fn test_code_is_told_apart() {
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn b() { std::fs::read(x) }\n}\n";
        let source = Source::new("src/a.rs", text);
        assert_eq!(source.paths(), []);
        assert_eq!(source.lines_without_tests(), 2);
        let tests: Vec<_> = source.functions().into_iter().map(|function| (function.name, function.is_test)).collect();
        assert_eq!(tests, [("a".to_owned(), false), ("b".to_owned(), true)]);
        assert!(Source::new("crates/a/tests/b.rs", "fn c() {}").functions()[0].is_test);
    }

    #[test]
    fn functions_are_measured_and_pointers_to_them_are_not() {
        let source =
            Source::new("src/a.rs", "trait T { fn d(&self); }\nfn e(f: fn(u8) -> [u8; 2]) {\n    if x { y }\n}\n");
        let function = Function { name: "e".into(), line: 2, lines: 3, is_test: false };
        assert_eq!(source.functions(), [function]);
    }
}
