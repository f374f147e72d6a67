//! `docs/security-matrix.md` names tests; this one looks whether they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_of_the_matrix_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let matrix = fs::read_to_string(crates.parent().unwrap().join("docs/security-matrix.md")).unwrap();
    let named: BTreeSet<&str> = matrix.split('`').skip(1).step_by(2).filter(|span| is_a_test(span)).collect();
    assert!(named.len() > 80, "only {} tests are named: is the form of the page another one?", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !exists(crates, name)).collect();
    assert!(missing.is_empty(), "named in the matrix and not in the tree: {missing:#?}");
}

#[test]
fn a_test_that_does_not_exist_is_missed() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(exists(crates, "dualgate-proxy::matrix::every_test_of_the_matrix_exists"));
    for name in ["dualgate-proxy::matrix::nothing", "dualgate-proxy::nowhere::f", "dualgate-http::path.case::nothing"] {
        assert!(!exists(crates, name), "{name}");
    }
}

fn is_a_test(span: &str) -> bool {
    span.starts_with("dualgate-") && span.contains("::")
}

/// `crate::file::function`, `crate::file.case` or `crate::file.case::title`.
fn exists(crates: &Path, name: &str) -> bool {
    let mut parts = name.splitn(3, "::");
    let (Some(package), Some(file), test) = (parts.next(), parts.next(), parts.next()) else { return false };
    let (file, wanted) = match (file.ends_with(".case"), test) {
        (true, None) => return files(&crates.join(package).join("tests/cases"), file).next().is_some(),
        (true, Some(title)) => (file.to_owned(), format!("== {title}\n")),
        (false, Some(function)) => (format!("{file}.rs"), format!("fn {function}(")),
        (false, None) => return false,
    };
    files(&crates.join(package), &file).any(|path| fs::read_to_string(path).unwrap().contains(&wanted))
}

/// All files of this name below a folder.
fn files(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name() == name {
                found.push(path);
            }
        }
    }
    found.into_iter()
}
