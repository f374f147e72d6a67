//! What the pure crates must not touch, and where `unsafe` may stand.
//!
//! Test code is free to read case files. What clippy can forbid by type stands in the crates' `clippy.toml`.

use crate::breach::Breach;
use crate::source::Source;

const PURE: &[&str] = &["crates/dualgate-core/src/", "crates/dualgate-wire/src/", "crates/dualgate-http/src/"];

/// Where `unsafe` may stand, each with a `SAFETY:` comment.
const UNSAFE: &[&str] = &["crates/dualgate-wire/src/", "crates/dualgate-host/src/", "crates/dualgate-tunnel/src/"];

/// Paths that a pure crate must not name, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("std::env", "take the value as an argument"),
    ("std::fs", "take the text as an argument"),
    ("std::io::stderr", "return the value"),
    ("std::io::stdin", "take the text as an argument"),
    ("std::io::stdout", "return the value"),
    ("std::net::TcpListener", "sockets live in dualgate-proxy and dualgate-host"),
    ("std::net::TcpStream", "sockets live in dualgate-proxy and dualgate-host"),
    ("std::net::UdpSocket", "sockets live in dualgate-proxy and dualgate-host"),
    ("std::os", "the operating system ends in dualgate-host"),
    ("std::process", "return an error; the binary decides"),
    ("std::sync::Mutex", "take `&mut self`; whoever shares it locks it"),
    ("std::sync::RwLock", "take `&mut self`; whoever shares it locks it"),
    ("std::sync::atomic", "take `&mut self`; counters live in dualgate-proxy"),
    ("std::thread", "return what is to be done; the caller runs it"),
    ("std::time::Instant", "take `now` as an argument"),
    ("std::time::SystemTime", "take `now` as an argument"),
];

const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];

/// Checks one file.
pub fn check(source: &Source) -> Vec<Breach> {
    let mut breaches = unsafe_code(source);
    if PURE.iter().any(|folder| source.path.starts_with(folder)) {
        breaches.extend(forbidden_paths(source));
        breaches.extend(forbidden_macros(source));
    }
    breaches
}

fn forbidden_paths(source: &Source) -> Vec<Breach> {
    let forbidden = |path: &str| FORBIDDEN.iter().find(|(forbidden, _)| names(path, forbidden));
    let uses = source.paths().into_iter();
    uses.filter_map(|used| {
        let (name, help) = forbidden(&used.path)?;
        Some(Breach::new("purity", &source.path, used.line, format!("`{name}` in a pure crate"), help))
    })
    .collect()
}

/// Whether `path` is, or leads through, `forbidden`; a glob names all that is in it.
fn names(path: &str, forbidden: &str) -> bool {
    let within = |path: &str, parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.starts_with("::"));
    match path.strip_suffix("::*") {
        Some(glob) => glob == forbidden || within(forbidden, glob) || within(glob, forbidden),
        None => path == forbidden || within(path, forbidden),
    }
}

fn forbidden_macros(source: &Source) -> Vec<Breach> {
    let printing = PRINTING.iter().map(|name| (*name, "return the value, or a Finding"));
    let globals = [("thread_local", "no globals: pass the value")].into_iter();
    let calls = printing
        .chain(globals)
        .flat_map(|(name, help)| source.macro_calls(name).into_iter().map(move |at| (at, name, help)));
    calls
        .filter(|(at, ..)| !source.is_test(*at))
        .map(|(at, name, help)| {
            Breach::new("purity", &source.path, source.line(at), format!("`{name}!` in a pure crate"), help)
        })
        .collect()
}

fn unsafe_code(source: &Source) -> Vec<Breach> {
    let may = UNSAFE.iter().any(|folder| source.path.starts_with(folder));
    let blocks = source.word("unsafe").into_iter().map(|at| source.line(at));
    blocks
        .filter_map(|line| {
            let (message, help) = if !may {
                ("`unsafe` outside dualgate-wire, -host and -tunnel", "use a safe wrapper such as rustix or socket2")
            } else if !is_explained(source, line) {
                ("`unsafe` without its reason", "say in a `SAFETY:` comment above why it holds")
            } else {
                return None;
            };
            Some(Breach::new("unsafe", &source.path, line, message, help))
        })
        .collect()
}

/// Whether a `SAFETY:` comment stands on the line, or on the comment lines above it.
fn is_explained(source: &Source, line: usize) -> bool {
    let lines: Vec<&str> = source.comments.lines().take(line).collect();
    let above = lines.iter().rev().skip(1).take_while(|comment| !comment.trim().is_empty());
    lines.last().into_iter().chain(above).any(|comment| comment.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<(usize, String)> {
        check(&Source::new(path, text)).into_iter().map(|breach| (breach.line, breach.message)).collect()
    }

    const CORE: &str = "crates/dualgate-core/src/a.rs";

    #[test]
    fn values_and_text_are_pure() {
        let text = "use std::net::IpAddr;\nuse std::time::Duration;\nfn f(now: Duration) { format!(\"println!\") }\n";
        assert_eq!(broken(CORE, text), []);
    }

    #[test]
    fn clocks_files_and_sockets_are_not() {
        let text = "use std::time::{Duration, Instant};\nfn f() {\n    std::fs::read(x);\n    println!();\n}\n";
        let expected = [(1, "`std::time::Instant`"), (3, "`std::fs`"), (4, "`println!`")];
        let expected = expected.map(|(line, name)| (line, format!("{name} in a pure crate")));
        assert_eq!(broken(CORE, text), expected);
        assert_eq!(broken("crates/dualgate-host/src/a.rs", text), []);
    }

    #[test]
    fn a_glob_or_an_alias_hides_nothing() {
        let glob = [(1, "`std::time::Instant` in a pure crate".to_owned())];
        assert_eq!(broken(CORE, "use std::time::*;"), glob);
        let alias = [(1, "`std::thread` in a pure crate".to_owned()), (1, "`std::thread` in a pure crate".to_owned())];
        assert_eq!(broken(CORE, "use std::thread as t; fn f() { t::spawn(x) }"), alias);
    }

    #[test]
    fn tests_of_a_pure_crate_may_read_files() {
        assert_eq!(broken(CORE, "#[cfg(test)]\nmod tests {\n    fn f() { std::fs::read(x); println!() }\n}\n"), []);
    }

    #[test]
    fn unsafe_has_its_place_and_its_reason() {
        let explained = "// SAFETY: the length was checked.\n// Twice.\nunsafe { x() }\n";
        assert_eq!(broken("crates/dualgate-wire/src/a.rs", explained), []);
        let expected = [(1, "`unsafe` without its reason".to_owned())];
        assert_eq!(broken("crates/dualgate-wire/src/a.rs", "unsafe { x() }"), expected);
        let expected = [(3, "`unsafe` outside dualgate-wire, -host and -tunnel".to_owned())];
        assert_eq!(broken("crates/dualgate-proxy/src/a.rs", explained), expected);
    }
}
