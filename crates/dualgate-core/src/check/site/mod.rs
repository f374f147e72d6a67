//! What the keys of the site file mean together: networks, addresses, roles, ports, tunnel and names.
//!
//! Reads a whole [`Site`] (`parse::site` reports mistakes of form before) and the places of its fields.
//! Every rule adds findings and none depends on another's.

mod address;
mod edge;
mod firewall;
mod name;
mod network;
mod pool;
mod role;
mod tunnel;

use crate::model::{Code, Finding, Severity, Site};
use crate::parse::site::Marks;

/// Everything that is wrong with a site, in the order of its file.
pub fn site(site: &Site, marks: &Marks) -> Vec<Finding> {
    let mut report = Report { marks, findings: Vec::new() };
    network::check(site, &mut report);
    address::check(site, &mut report);
    pool::check(site, &mut report);
    role::check(site, &mut report);
    edge::check(site, &mut report);
    name::check(site, &mut report);
    tunnel::check(site, &mut report);
    firewall::check(site, &mut report);
    report.findings.sort_by_key(|finding| (finding.at.line, finding.at.column));
    report.findings
}

/// Where the rules put what they find.
struct Report<'a> {
    marks: &'a Marks,
    findings: Vec<Finding>,
}

impl Report<'_> {
    /// With the catalogue's severity.
    fn add(&mut self, code: Code, field: impl AsRef<str>, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Finding::new(code, self.marks.place(field.as_ref()), message).help(help));
    }

    /// Worth knowing; nothing is wrong.
    fn note(&mut self, code: Code, field: impl AsRef<str>, message: impl Into<String>, help: impl Into<String>) {
        let finding = Finding::new(code, self.marks.place(field.as_ref()), message).help(help);
        self.findings.push(Finding { severity: Severity::Note, ..finding });
    }
}

/// "a, b and c".
fn enumerate(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
