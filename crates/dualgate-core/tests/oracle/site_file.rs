//! What holds for any text given as a site file.

use dualgate_core::check;
use dualgate_core::model::Severity;
use dualgate_core::parse::site;

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = site::read("site.yaml", text);
    let errors = file.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    assert_eq!(file.site.is_none(), errors > 0, "a site comes out exactly when nothing is an error");
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX) + 1;
    let mut findings = file.findings;
    if let Some(site) = &file.site {
        findings.extend(check::site::site(site, &file.marks));
    }
    for finding in findings {
        assert!(finding.at.line.is_none_or(|line| (1..=lines).contains(&line)), "{finding}");
    }
}
