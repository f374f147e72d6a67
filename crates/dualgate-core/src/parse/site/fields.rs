//! The machine under the schema: reads declared keys from a mapping, or lists them for the reference page.
//!
//! A type that can stand in the file implements [`Read`]; a mapping of declared keys implements [`Section`].
//! While a page is described, sections are run without a document: every key registers itself and none is
//! missed.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Marks;
use crate::model::{Code, Finding};
use crate::parse::yaml::{Key, Node, Value, item_path, key_path};

/// A value that can stand in the site file.
pub(super) trait Read: Sized {
    /// What has to be written, for people.
    fn form() -> String;

    /// Examples of it, where the form alone is not clear.
    fn example() -> &'static str {
        ""
    }

    /// Reads it; what is wrong goes to the sink.
    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self>;

    /// As it would be written, to show a default.
    fn show(&self) -> String {
        String::new()
    }

    /// Adds the sections below it to the page.
    fn describe(_path: &str, _sink: &mut Sink) {}
}

/// A mapping with declared keys.
pub(super) trait Section: Sized {
    /// What it is for.
    const DOC: &'static str;

    /// Declares and takes the keys.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// A mapping's key that is a name.
pub(super) trait Name: Ord + Sized {
    /// What stands for it on the page.
    const PLACEHOLDER: &'static str;

    /// Reads it. The error is a message and a help.
    fn parse(text: &str) -> Result<Self, (Code, String, String)>;

    /// As it is written.
    fn show(&self) -> String;
}

/// Where mistakes go, or the described sections.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) findings: Vec<Mistake>,
    page: Option<Page>,
}

/// A finding whose place is still a path.
pub(super) struct Mistake {
    code: Code,
    path: String,
    message: String,
    help: String,
}

impl Mistake {
    /// As a finding with its place.
    pub(super) fn at(self, marks: &Marks) -> Finding {
        Finding::new(self.code, marks.place(&self.path), self.message).help(self.help)
    }
}

impl Sink {
    pub(super) fn mistake(&mut self, code: Code, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Mistake { code, path: path.to_owned(), message: message.into(), help: help.into() });
    }

    /// Another kind of value stands there than is needed.
    pub(super) fn wrong_kind<T: Read>(&mut self, node: &Node, path: &str) {
        let help = match node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if T::form() == "text" => {
                "put it in quotes".to_owned()
            }
            Value::Null => "write a value or remove the key".to_owned(),
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Sequence(_)
            | Value::Mapping(_) => such_as::<T>(),
        };
        self.mistake(Code::SiteValue, path, format!("expected {}, found {}", T::form(), node.value.kind()), help);
    }

    /// The kind is right, the value is not.
    pub(super) fn wrong_value<T: Read>(&mut self, path: &str, message: impl Into<String>) {
        let help = if T::example().is_empty() { format!("write {}", T::form()) } else { such_as::<T>() };
        self.mistake(Code::SiteValue, path, message, help);
    }
}

fn such_as<T: Read>() -> String {
    match T::example() {
        "" => String::new(),
        example => format!("write {}, such as {example}", T::form()),
    }
}

/// The keys of one mapping while they are read.
pub(super) struct Fields<'a> {
    path: String,
    given: &'a [(Key, Node)],
    known: Vec<&'static str>,
    sink: &'a mut Sink,
}

impl Fields<'_> {
    /// A key that must be there.
    pub(super) fn required<T: Read>(&mut self, name: &'static str, doc: &'static str) -> Option<T> {
        let value = self.take(name, "required", doc);
        if value.is_none() && self.node(name).is_none() && self.sink.page.is_none() {
            let (path, message) = (key_path(&self.path, name), format!("`{name}` is missing"));
            self.sink.mistake(Code::SiteMissing, &path, message, format!("add `{name}`: {}", T::form()));
        }
        value
    }

    /// A key that may be left out; `absent` says what that means.
    pub(super) fn optional<T: Read>(
        &mut self,
        name: &'static str,
        absent: &'static str,
        doc: &'static str,
    ) -> Option<T> {
        self.take(name, absent, doc)
    }

    /// A key with a default.
    pub(super) fn or<T: Read>(&mut self, name: &'static str, default: T, doc: &'static str) -> T {
        let shown = format!("`{}`", default.show());
        self.take(name, &shown, doc).unwrap_or(default)
    }

    /// A list that may be left out.
    pub(super) fn list<T: Read>(&mut self, name: &'static str, doc: &'static str) -> Vec<T> {
        self.or(name, Vec::new(), doc)
    }

    /// A section that is there with its defaults when it is left out.
    pub(super) fn section<T: Section>(&mut self, name: &'static str, doc: &'static str) -> Option<T> {
        let absent = self.node(name).is_none() && self.sink.page.is_none();
        if absent {
            self.known.push(name);
            return run::<T>(&[], &key_path(&self.path, name), self.sink);
        }
        self.take(name, "its defaults", doc)
    }

    /// The last part of the mapping's path, such as the name of an entry point.
    pub(super) fn own_name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Something is wrong with the value of a key, or with the mapping when the name is empty.
    pub(super) fn mistake(&mut self, code: Code, name: &str, message: impl Into<String>, help: &str) {
        let path = if name.is_empty() { self.path.clone() } else { key_path(&self.path, name) };
        if self.sink.page.is_none() {
            self.sink.mistake(code, &path, message, help);
        }
    }

    /// Whether the key is written, whatever its value.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.node(name).is_some()
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.given.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    fn take<T: Read>(&mut self, name: &'static str, absent: &str, doc: &'static str) -> Option<T> {
        self.known.push(name);
        let path = key_path(&self.path, name);
        if let Some(page) = &mut self.sink.page {
            page.row(&self.path, Row { name, form: T::form(), absent: absent.to_owned(), doc });
            page.example::<T>();
            T::describe(&path, self.sink);
            return None;
        }
        let node = self.given.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)?;
        T::read(node, &path, self.sink)
    }

    fn report_unknown(&mut self) {
        for (key, _) in self.given.iter().filter(|(key, _)| !self.known.contains(&key.text.as_str())) {
            let help = match nearest(&key.text, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", words(self.known.iter().copied())),
            };
            let path = key_path(&self.path, &key.text);
            self.sink.mistake(Code::SiteUnknownKey, &path, format!("`{}` is not known here", key.text), help);
        }
    }
}

impl<T: Section> Read for T {
    fn form() -> String {
        "mapping".to_owned()
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        read_section(node, path, sink)
    }

    fn describe(path: &str, sink: &mut Sink) {
        if let Some(page) = &mut sink.page {
            page.sections.push(Described { path: path.to_owned(), doc: T::DOC, rows: Vec::new() });
        }
        run::<T>(&[], path, sink);
    }
}

/// Reads a section from a node.
pub(super) fn read_section<T: Section>(node: &Node, path: &str, sink: &mut Sink) -> Option<T> {
    let Value::Mapping(entries) = &node.value else {
        sink.wrong_kind::<T>(node, path);
        return None;
    };
    run(entries, path, sink)
}

fn run<T: Section>(given: &[(Key, Node)], path: &str, sink: &mut Sink) -> Option<T> {
    let mut fields = Fields { path: path.to_owned(), given, known: Vec::new(), sink };
    let value = T::read(&mut fields);
    fields.report_unknown();
    value
}

impl<T: Read> Read for Vec<T> {
    fn form() -> String {
        format!("list of {}", T::form())
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            sink.wrong_kind::<Self>(node, path);
            return None;
        };
        let read = |(index, item)| T::read(item, &item_path(path, index), sink);
        let items: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        items.into_iter().collect()
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }

    fn describe(path: &str, sink: &mut Sink) {
        if let Some(page) = &mut sink.page {
            page.example::<T>();
        }
        T::describe(&format!("{path}[]"), sink);
    }
}

impl<K: Name, V: Read> Read for BTreeMap<K, V> {
    fn form() -> String {
        format!("mapping from `{}` to {}", K::PLACEHOLDER, V::form())
    }

    fn read(node: &Node, path: &str, sink: &mut Sink) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            sink.wrong_kind::<Self>(node, path);
            return None;
        };
        let mut all = Some(Self::new());
        for (key, node) in entries {
            let path = key_path(path, &key.text);
            let name =
                K::parse(&key.text).map_err(|(code, message, help)| sink.mistake(code, &path, message, help)).ok();
            let entry = name.zip(V::read(node, &path, sink));
            all = all.zip(entry).map(|(mut all, (name, value))| {
                all.insert(name, value);
                all
            });
        }
        all
    }

    fn show(&self) -> String {
        let entries: Vec<_> = self.iter().map(|(name, value)| format!("{}: {}", name.show(), value.show())).collect();
        format!("{{{}}}", entries.join(", "))
    }

    fn describe(path: &str, sink: &mut Sink) {
        V::describe(&format!("{path}.{}", K::PLACEHOLDER), sink);
    }
}

/// The name that was probably meant: the nearest one that is not too far.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| edit_distance(&text.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let close = |(distance, name): &(usize, &str)| *distance <= name.len().max(3) / 3;
    names.map(|name| (distance(name), name)).filter(close).min().map(|(_, name)| name)
}

/// Levenshtein's distance between the first 64 characters of both.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// "`a`, `b`, `c`".
pub(super) fn words<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The reference page while it is collected.
#[derive(Default)]
pub(super) struct Page {
    sections: Vec<Described>,
    examples: BTreeMap<String, &'static str>,
}

struct Described {
    path: String,
    doc: &'static str,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    form: String,
    absent: String,
    doc: &'static str,
}

impl Page {
    /// Describes everything below one section.
    pub(super) fn of<T: Section>() -> Self {
        let mut sink = Sink { page: Some(Self::default()), ..Sink::default() };
        <T as Read>::describe("", &mut sink);
        sink.page.unwrap_or_default()
    }

    fn row(&mut self, path: &str, row: Row) {
        if let Some(section) = self.sections.iter_mut().rfind(|section| section.path == path) {
            section.rows.push(row);
        }
    }

    fn example<T: Read>(&mut self) {
        // A size's bounds say nothing about how it is written.
        let form = T::form().split(" from ").next().unwrap_or_default().to_owned();
        if !T::example().is_empty() {
            self.examples.insert(form, T::example());
        }
    }

    /// As Markdown.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = String::from("# The site file\n\n<!-- Written by `cargo xtask docs`. -->\n");
        for section in &self.sections {
            if !section.path.is_empty() {
                let _ = write!(text, "\n## `{}`\n", section.path);
            }
            let _ = write!(text, "\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n", section.doc);
            for Row { name, form, absent, doc } in &section.rows {
                let cell = |text: &str| text.replace('|', "\\|");
                let _ = writeln!(text, "| `{name}` | {} | {} | {} |", cell(form), cell(absent), cell(doc));
            }
        }
        text.push_str("\n## Values\n\n| value | examples |\n|---|---|\n");
        for (form, example) in &self.examples {
            let _ = writeln!(text, "| {form} | {example} |");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_unless_nothing_is_near() {
        let names = || ["podCIDRs", "serviceCIDRs", "domain"].into_iter();
        assert_eq!(nearest("podCidr", names()), Some("podCIDRs"));
        assert_eq!(nearest("domian", names()), Some("domain"));
        assert_eq!(nearest("tunnel", names()), None);
        assert_eq!(nearest("", names()), None);
    }

    #[test]
    fn edit_distance_counts_single_characters() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
