//! The catalogue of findings keeps its word: every code is raised somewhere and explained in the docs.

use std::collections::BTreeSet;

use dualgate_core::model::Code;

use crate::breach::Breach;
use crate::docs::FINDINGS_PAGE;
use crate::source::Source;

const CATALOGUE: &str = "crates/dualgate-core/src/model/finding.rs";

/// Checks every code of the catalogue.
pub fn check(files: &[(String, String)], sources: &[Source]) -> Vec<Breach> {
    let page = files.iter().find(|(path, _)| path == FINDINGS_PAGE).map_or("", |(_, text)| text);
    let sources = sources.iter().filter(|source| source.path.starts_with("crates/") && source.path != CATALOGUE);
    let named: BTreeSet<String> = sources
        .flat_map(Source::paths)
        .filter_map(|used| Some(used.path[used.path.rfind("Code::")?..].to_owned()))
        .collect();
    let raised = |variant: &str| named.contains(&format!("Code::{variant}"));
    let codes: Vec<(String, &str)> = Code::ALL.iter().map(|code| (format!("{code:?}"), code.id())).collect();
    kept(&codes, page, raised)
}

/// The codes, as (variant, identifier), that nothing raises or that the page does not explain.
fn kept(codes: &[(String, &str)], page: &str, raised: impl Fn(&str) -> bool) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (variant, id) in codes {
        if !page.contains(&format!("`{id}`")) {
            let message = format!("the finding `{id}` is not explained");
            breaches.push(Breach::new("catalogue", FINDINGS_PAGE, 0, message, "run `cargo xtask docs`"));
        }
        if !raised(variant) {
            let message = format!("nothing raises the finding `{id}`");
            let help = "raise it where the mistake is seen, or take it out of the catalogue";
            breaches.push(Breach::new("catalogue", CATALOGUE, 0, message, help));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_raised_and_explained() {
        let codes = [("Syntax".to_owned(), "syntax"), ("Stale".to_owned(), "stale")];
        assert_eq!(kept(&codes, "`syntax` `stale`", |_| true), []);
        let broken = kept(&codes, "`syntax`", |variant| variant == "Stale");
        let messages: Vec<_> = broken.iter().map(|breach| breach.message.as_str()).collect();
        assert_eq!(messages, ["nothing raises the finding `syntax`", "the finding `stale` is not explained"]);
    }
}
