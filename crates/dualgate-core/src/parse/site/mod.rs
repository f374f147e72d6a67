//! The site file: strict reading into [`Site`], and its reference page.
//!
//! [`schema`] declares every key once: name, type, default and meaning. [`fields`] walks that declaration
//! over a document to read it, and over no document to write the reference page. What several keys together
//! must fulfil is `check::site`'s business.

mod fields;
mod provider;
mod scalars;
mod schema;

use std::collections::BTreeMap;

use fields::{Page, Sink, read_section};

use super::yaml;
use crate::model::{Code, Finding, Place, Site, Text};

/// Where the fields of a file were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    file: Text,
    fields: BTreeMap<String, (u32, u32)>,
}

impl Marks {
    /// The place of a field, such as `nodes[0].addresses[1]`; of what holds it when it was not written.
    pub fn place(&self, field: &str) -> Place {
        let mut nearest = field;
        let at = loop {
            match self.fields.get(nearest) {
                Some(at) => break Some(*at),
                None if nearest.is_empty() => break None,
                None => nearest = &nearest[..nearest.rfind(['.', '[']).unwrap_or(0)],
            }
        };
        Place {
            file: Some(self.file.clone()),
            line: at.map(|(line, _)| line),
            column: at.map(|(_, column)| column),
            object: None,
            field: field.to_owned(),
        }
    }
}

/// A site file as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteFile {
    /// The site; `None` when any finding is an error, as half a site must not be acted on.
    pub site: Option<Site>,
    /// Where its fields were written.
    pub marks: Marks,
    /// What is wrong, in the order of the file.
    pub findings: Vec<Finding>,
}

/// Reads a site file. `file` is its path as people know it. Every mistake of form is reported, not only the
/// first one; [`crate::check::site`] looks at what the keys mean together.
pub fn site(file: &str, text: &str) -> (Option<Site>, Vec<Finding>) {
    let SiteFile { site, findings, .. } = read(file, text);
    (site, findings)
}

/// As [`site`], with the places of all fields.
pub fn read(file: &str, text: &str) -> SiteFile {
    let documents = yaml::documents(text);
    let fields = documents.documents.first().map(yaml::Node::fields).unwrap_or_default();
    let marks = Marks { file: file.into(), fields };
    let mut findings = form_findings(&marks, &documents);
    let mut site = None;
    if let (Some(document), None) = (documents.documents.first(), &documents.error) {
        let mut sink = Sink::default();
        site = read_section::<schema::Document>(document, "", &mut sink).map(|document| document.0);
        findings.extend(sink.findings.into_iter().map(|mistake| mistake.at(&marks)));
    }
    findings.sort_by_key(|finding| (finding.at.line, finding.at.column));
    SiteFile { site: site.filter(|_| findings.is_empty()), marks, findings }
}

/// What is wrong before any key has a meaning.
fn form_findings(marks: &Marks, documents: &yaml::Documents) -> Vec<Finding> {
    let mut findings = Vec::new();
    let at = |line, column| Place { line: Some(line), column: Some(column), ..marks.place("") };
    if let Some(error) = &documents.error {
        findings.push(Finding::new(Code::Syntax, at(error.line, error.column), &*error.message));
    } else if documents.documents.is_empty() {
        let finding = Finding::new(Code::SiteMissing, at(1, 1), "the file holds no site");
        findings.push(finding.help("start from an example, such as examples/laptop/site.yaml"));
    }
    if let Some(second) = documents.documents.get(1) {
        let message = "a site file holds one document, this is a second one";
        findings.push(Finding::new(Code::SiteValue, at(second.at.line, second.at.column), message));
    }
    for yaml::Duplicate { key, at: again, first } in &documents.duplicates {
        let message = format!("`{key}` is written twice here, first in line {}", first.line);
        let finding = Finding::new(Code::SiteDuplicate, at(again.line, again.column), message);
        findings.push(finding.help("remove one of them"));
    }
    findings
}

/// The reference page of the site file, in Markdown: `docs/reference/site.md`.
pub fn reference() -> String {
    Page::of::<schema::Document>().to_markdown()
}
