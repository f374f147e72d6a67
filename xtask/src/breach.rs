//! A broken rule: where, which, what is wrong, what to do.

use std::fmt;

/// One broken rule, printed like a compiler's error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// Path from the root of the workspace.
    pub path: String,
    /// Line, from 1; 0 is the file as a whole.
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong, with the values.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Breach {
    /// A rule broken at a line, or by the file as a whole (line 0).
    pub fn new(rule: &'static str, path: &str, line: usize, message: impl Into<String>, help: &str) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into(), help: help.to_owned() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}\n  --> {}", self.rule, self.message, self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, "\n   = help: {}", self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_a_compilers_error() {
        let breach = Breach::new("purity", "crates/a/src/lib.rs", 7, "`std::fs` in a pure crate", "hand in the text");
        assert_eq!(
            breach.to_string(),
            "error[purity]: `std::fs` in a pure crate\n  --> crates/a/src/lib.rs:7\n   = help: hand in the text"
        );
    }
}
