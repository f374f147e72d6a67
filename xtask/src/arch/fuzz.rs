//! Every fuzz target has a corpus that plain tests replay.

use std::path::Path;

use crate::breach::Breach;

const TARGETS: &str = "fuzz/fuzz_targets/";

/// Looks for a corpus that is not empty beside each target.
pub fn check(root: &Path, files: &[(String, String)]) -> Vec<Breach> {
    let has_corpus = |name: &str| {
        let corpus = std::fs::read_dir(root.join("fuzz/corpus").join(name));
        corpus.is_ok_and(|mut entries| entries.next().is_some())
    };
    without_corpus(files, has_corpus)
}

fn without_corpus(files: &[(String, String)], has_corpus: impl Fn(&str) -> bool) -> Vec<Breach> {
    let targets = files.iter().filter_map(|(path, _)| path.strip_prefix(TARGETS)?.strip_suffix(".rs"));
    let bare = targets.filter(|name| !has_corpus(name));
    bare.map(|name| {
        let help = format!("commit inputs that reach its branches in fuzz/corpus/{name}/, and replay them in a test");
        Breach::new("corpus", &format!("{TARGETS}{name}.rs"), 0, format!("`{name}` has no corpus"), &help)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_inputs_is_named() {
        let files = ["fuzz/fuzz_targets/head.rs", "fuzz/fuzz_targets/path.rs", "crates/a/src/lib.rs"];
        let files = files.map(|path| (path.to_owned(), String::new()));
        let breaches = without_corpus(&files, |name| name == "head");
        assert_eq!(breaches.iter().map(|breach| breach.message.as_str()).collect::<Vec<_>>(), ["`path` has no corpus"]);
    }
}
