//! How files and functions are shaped and named.

use crate::breach::Breach;
use crate::source::Source;

/// Lines of a file without its test code.
const FILE: usize = 900;
/// Lines of a file with its test code, and of a test file.
const FILE_WITH_TESTS: usize = 1500;
/// Lines of a function, signature and braces included.
const FUNCTION: usize = 90;
/// Lines of a test.
const TEST: usize = 150;

/// Functions that are longer, because cutting them would only hide a table.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Endings that say nothing about a type.
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Util", "Utils"];

/// Checks one file.
pub fn check(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    breaches.extend(module_doc(source));
    breaches.extend(file_size(source));
    breaches.extend(functions(source));
    breaches.extend(type_names(source));
    breaches
}

fn module_doc(source: &Source) -> Option<Breach> {
    let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    if first.is_some_and(|line| line.starts_with("//! ")) {
        return None;
    }
    let help = "open it with `//!`: what it is, what it is not, where its data comes from and goes";
    Some(Breach::new("module-doc", &source.path, 1, "the file does not say what it is", help))
}

fn file_size(source: &Source) -> Option<Breach> {
    let (code, all) = (source.lines_without_tests(), source.text.lines().count());
    let message = if code > FILE {
        format!("{code} lines of code, more than {FILE}")
    } else if all > FILE_WITH_TESTS {
        format!("{all} lines, more than {FILE_WITH_TESTS}")
    } else {
        return None;
    };
    Some(Breach::new("file-size", &source.path, 0, message, "this room wants to be two: split it by meaning"))
}

fn functions(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for function in source.functions() {
        let limit = if function.is_test { TEST } else { FUNCTION };
        let is_known = LONG_FUNCTIONS.contains(&(source.path.as_str(), function.name.as_str()));
        if function.lines > limit && !is_known {
            let message = format!("`{}` has {} lines, more than {limit}", function.name, function.lines);
            let help = "give its steps names of their own";
            breaches.push(Breach::new("function-size", &source.path, function.line, message, help));
        }
        if let Some(name) = function.name.strip_prefix("get_") {
            let message = format!("`{}` begins with get_", function.name);
            let help = format!("call it `{name}`");
            breaches.push(Breach::new("name", &source.path, function.line, message, &help));
        }
    }
    breaches
}

fn type_names(source: &Source) -> Vec<Breach> {
    let keywords = ["struct", "enum", "trait"].into_iter();
    let names = keywords.flat_map(|keyword| {
        source.word(keyword).into_iter().map(move |at| (at, source.code[at + keyword.len()..].trim_start()))
    });
    names
        .filter_map(|(at, rest)| {
            let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
            EMPTY_NAMES.iter().any(|ending| name.ends_with(ending)).then(|| {
                let help = "say what it does, in a word of the RFC, Kubernetes or the Gateway API";
                let message = format!("`{name}` is a name for anything");
                Breach::new("name", &source.path, source.line(at), message, help)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> Vec<String> {
        let breaches = check(&Source::new("crates/a/src/a.rs", text));
        breaches.into_iter().map(|breach| format!("{}: {}", breach.line, breach.message)).collect()
    }

    #[test]
    fn a_short_file_that_says_what_it_is_passes() {
        assert_eq!(broken("//! A thing.\n\nstruct Thing;\nfn thing() {}\n"), Vec::<String>::new());
        assert_eq!(broken("#![no_std]\n//! A thing.\n"), Vec::<String>::new());
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(broken("use a::b;\n"), ["1: the file does not say what it is"]);
        assert_eq!(broken(""), ["1: the file does not say what it is"]);
    }

    #[test]
    fn long_functions_and_files_are_named() {
        let function = format!("//! A thing.\nfn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION));
        assert_eq!(broken(&function), ["2: `long` has 92 lines, more than 90"]);
        let file = format!("//! A thing.\n{}", "const A: u8 = 1;\n".repeat(FILE));
        assert_eq!(broken(&file), ["0: 901 lines of code, more than 900"]);
    }

    #[test]
    fn tests_may_be_longer() {
        let body = "        x();\n".repeat(FUNCTION);
        let text = format!("//! A thing.\n#[cfg(test)]\nmod tests {{\n    fn long() {{\n{body}    }}\n}}\n");
        assert_eq!(broken(&text), Vec::<String>::new());
    }

    #[test]
    fn names_say_something() {
        let text = "//! A thing.\nstruct RouteManager;\nfn get_route() {}\n";
        assert_eq!(broken(text), ["3: `get_route` begins with get_", "2: `RouteManager` is a name for anything"]);
    }
}
