//! What must not stay behind: unfinished code, tests that do not run, traces of the machine it was written on.

use std::path::Path;

use crate::breach::Breach;
use crate::source::Source;

const UNFINISHED_MACROS: &[(&str, &str)] = &[
    ("todo", "write it, or leave the caller out too"),
    ("unimplemented", "write it, or make the case impossible by type"),
    ("dbg", "take it out, or log a field with tracing"),
];

/// Marks of unfinished work in comments. Written in two parts, so that this file has none.
const MARKS: &[[&str; 2]] = &[["FIX", "ME"], ["XX", "X"], ["TO", "DO"], ["Being ", "written"]];

/// Registries that package clients know by themselves. In labels, so that this file names none.
const REGISTRIES: &[&[&str]] = &[
    &["deb", "debian", "org"],
    &["security", "debian", "org"],
    &["static", "crates", "io"],
    &["index", "crates", "io"],
    &["pypi", "org"],
    &["files", "pythonhosted", "org"],
    &["registry", "npmjs", "org"],
    &["proxy", "golang", "org"],
    &["sum", "golang", "org"],
];

/// Where people and machines have their own files.
const HOMES: &[&str] = &["/home/", "/root/", "/Users/"];

/// Folders that every system has, which documents may name.
const COMMON: &[&str] = &["/", "/etc", "/mnt", "/opt", "/run", "/srv", "/tmp", "/usr", "/usr/src", "/var", "/var/tmp"];

/// Checks the code and the comments of one file.
pub fn in_code(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, help) in UNFINISHED_MACROS {
        for at in source.macro_calls(name) {
            let message = format!("`{name}!` is not finished");
            breaches.push(Breach::new("leftover", &source.path, source.line(at), message, help));
        }
    }
    for (at, _) in source.code.match_indices("#[ignore") {
        let help = "make it run, or take it out; a test that cannot run here prints `SKIPPED: name: why`";
        breaches.push(Breach::new("leftover", &source.path, source.line(at), "a test that never runs", help));
    }
    for mark in MARKS {
        let mark = mark.concat();
        for (at, _) in source.comments.match_indices(&mark) {
            let message = format!("`{mark}`: something is not finished");
            breaches.push(Breach::new("leftover", &source.path, source.line(at), message, "finish it, or take it out"));
        }
    }
    breaches
}

/// Checks every text file for traces of the machine.
pub fn in_text(root: &Path, files: &[(String, String)]) -> Vec<Breach> {
    let checkout = machine_folder(root);
    let folders: Vec<&str> = HOMES.iter().copied().chain([checkout.as_str()]).collect();
    let registries: Vec<String> = REGISTRIES.iter().map(|labels| labels.join(".")).collect();
    let mut breaches = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(folder) = folders.iter().find(|folder| has_folder(text, folder)) {
                let message = format!("a path of somebody's machine, below `{folder}`");
                breaches.push(Breach::new("machine", path, line, message, "write it relative to the checkout"));
            }
            if let Some(host) = registries.iter().find(|host| text.contains(host.as_str())) {
                let message = format!("the host name of a registry, `{host}`");
                let help = "name the package; its client knows where to ask";
                breaches.push(Breach::new("machine", path, line, message, help));
            }
        }
    }
    breaches
}

/// The folder that only this machine has: the one around the checkout, or the checkout where every system has that one.
fn machine_folder(root: &Path) -> String {
    let around = root.parent().filter(|folder| !COMMON.iter().any(|common| Path::new(common) == *folder));
    format!("{}/", around.unwrap_or(root).display())
}

/// Whether an absolute path below `folder` stands in the line; `examples/home/` has none.
fn has_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = line[at + folder.len()..].chars().next();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '}' | ')');
        !before.is_some_and(is_part) && behind.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        in_code(&Source::new("src/a.rs", text)).into_iter().map(|breach| breach.message).collect()
    }

    fn text(line: &str) -> Vec<String> {
        let files = [("docs/a.md".to_owned(), line.to_owned())];
        in_text(Path::new("/build/checkout"), &files).into_iter().map(|breach| breach.message).collect()
    }

    #[test]
    fn finished_code_passes() {
        assert_eq!(code("// All of it.\nfn f() { let s = \"todo\"; todo(s) }"), Vec::<String>::new());
    }

    #[test]
    fn unfinished_code_is_named() {
        let macros = format!("fn f() {{ {}!() }}", "todo");
        assert_eq!(code(&macros), ["`todo!` is not finished"]);
        let ignored = format!("#[{}]\nfn f() {{}}", "ignore");
        assert_eq!(code(&ignored), ["a test that never runs"]);
        let mark = MARKS[0].concat();
        assert_eq!(code(&format!("// {mark}: later")), [format!("`{mark}`: something is not finished")]);
    }

    #[test]
    fn paths_of_a_machine_are_told_from_paths_of_the_project() {
        assert_eq!(text("see examples/home/site.yaml and https://example.org/home/x"), Vec::<String>::new());
        let path = ["", "home", "max", "x"].join("/");
        assert_eq!(text(&format!("cd {path}")), ["a path of somebody's machine, below `/home/`"]);
        assert_eq!(machine_folder(Path::new("/tmp/checkout")), "/tmp/checkout/");
        assert_eq!(text("in /build/other/x"), ["a path of somebody's machine, below `/build/`"]);
    }

    #[test]
    fn a_registry_is_known_to_its_client() {
        let host = REGISTRIES[4].join(".");
        assert_eq!(text(&format!("from {host} by hand")), [format!("the host name of a registry, `{host}`")]);
    }
}
