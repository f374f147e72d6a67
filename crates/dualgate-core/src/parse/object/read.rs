//! Reading the fields of one object, and noting what is wrong with them and where.
//!
//! A part that cannot be read is left out, with a finding: its parse function returns [`LeftOut`], which
//! `?` hands up to the list or the object that the part belongs to. Nothing else is lost.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::syntax;
use crate::model::finding::{Code, Finding};
use crate::model::names::ObjectKey;
use crate::model::object::Origin;
use crate::parse::yaml;

/// A finding says why; what it concerns is left out.
#[derive(Debug)]
pub(super) struct LeftOut;

/// What was read, or left out with a finding.
pub(super) type Read<T> = Result<T, LeftOut>;

/// A JSON value and the path to it. `null` and an absent field are the same, as they are to the API server.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    json: &'a Value,
    path: Path<'a>,
}

/// Rendered only when something is wrong.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn render(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(parent, key) => yaml::key_path(&parent.render(), key),
            Self::Item(parent, index) => yaml::item_path(&parent.render(), *index),
        }
    }
}

impl<'a> Field<'a> {
    /// The object as a whole.
    pub(super) fn root(json: &'a Value) -> Self {
        Self { json, path: Path::Root }
    }

    /// The value itself.
    pub(super) fn json(&self) -> &'a Value {
        self.json
    }

    /// A field of this mapping.
    pub(super) fn get<'b>(&'b self, key: &'b str) -> Field<'b> {
        Field { json: self.json.get(key).unwrap_or(&Value::Null), path: Path::Key(&self.path, key) }
    }

    fn item<'b>(&'b self, index: usize, json: &'b Value) -> Field<'b> {
        Field { json, path: Path::Item(&self.path, index) }
    }

    pub(super) fn is_absent(&self) -> bool {
        self.json.is_null()
    }
}

/// How a message calls it: by its own name; the place has the whole path.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Path::Root => f.write_str("the object"),
            Path::Key(_, key) => f.write_str(&shown(key)),
            Path::Item(Path::Key(_, key), index) => f.write_str(&shown(&yaml::item_path(key, index))),
            Path::Item(Path::Root | Path::Item(..), index) => write!(f, "item {index}"),
        }
    }
}

/// Reads fields of one object and collects the findings about it.
pub(super) struct Reader<'a> {
    /// Whom the findings are about, as soon as that is known.
    pub(super) key: Option<ObjectKey>,
    origin: Option<&'a Origin>,
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(origin: Option<&'a Origin>) -> Self {
        Self { key: None, origin, findings: Vec::new() }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Whether the object came from a file, so that nobody has checked it yet.
    pub(super) fn is_from_file(&self) -> bool {
        self.origin.is_some()
    }

    /// Notes a finding; the caller may add help or change the severity.
    pub(super) fn note(&mut self, field: Field<'_>, code: Code, message: impl Into<String>) -> &mut Finding {
        let at = Origin::place(self.origin, self.key.as_ref(), field.path.render());
        self.findings.push(Finding::new(code, at, message));
        self.findings.last_mut().expect("just pushed")
    }

    /// Notes why a part is left out.
    pub(super) fn refuse<T>(&mut self, field: Field<'_>, message: impl Into<String>, help: &str) -> Read<T> {
        self.note(field, Code::ObjectInvalid, message).help = help.into();
        Err(LeftOut)
    }

    fn refuse_kind<T>(&mut self, field: Field<'_>, needed: &str, help: &str) -> Read<T> {
        let message = format!("{field} is {}; {needed} is needed", kind_of(field.json));
        self.refuse(field, message, help)
    }

    /// A mapping, or nothing; warns of keys that are not in `known`.
    pub(super) fn mapping(&mut self, field: Field<'_>, known: &[&str]) -> Read<()> {
        let from_file = self.is_from_file();
        for (key, field) in self.entries(&field)? {
            // What an API server hands out is of a later version at worst; only people make typing errors.
            if from_file && !known.contains(&key) {
                let help = syntax::nearest(key, known).map(|known| format!("did you mean `{known}`?"));
                let message = format!("unknown field {field}; it is ignored");
                self.note(field, Code::ObjectField, message).help = help.unwrap_or_default();
            }
        }
        Ok(())
    }

    /// A mapping's entries; none when it is absent.
    pub(super) fn entries<'b>(
        &mut self,
        field: &'b Field<'_>,
    ) -> Read<impl Iterator<Item = (&'b str, Field<'b>)> + use<'b>> {
        let map = match field.json {
            Value::Null => None,
            Value::Object(map) => Some(map),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return self.refuse_kind(*field, "a mapping", "");
            }
        };
        Ok(map.into_iter().flatten().map(|(key, _)| (key.as_str(), field.get(key))))
    }

    /// A list's items; none when it is absent.
    pub(super) fn list<'b>(&mut self, field: &'b Field<'_>) -> Read<impl Iterator<Item = Field<'b>> + use<'b>> {
        let items: &[Value] = match field.json {
            Value::Null => &[],
            Value::Array(items) => items,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                return self.refuse_kind(*field, "a list", "each item starts with `- `");
            }
        };
        Ok(items.iter().enumerate().map(|(index, json)| field.item(index, json)))
    }

    /// Text; empty text counts as absent, as in the API's own types.
    pub(super) fn text<'b>(&mut self, field: Field<'b>) -> Read<Option<&'b str>> {
        match field.json {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Value::Bool(_) | Value::Number(_) => self.refuse_kind(field, "text", "put the value in quotes"),
            Value::Array(_) | Value::Object(_) => self.refuse_kind(field, "text", ""),
        }
    }

    /// Text that must be there.
    pub(super) fn required<'b>(&mut self, field: Field<'b>) -> Read<&'b str> {
        match self.text(field)? {
            Some(text) => Ok(text),
            None => self.refuse(field, format!("{field} is required"), ""),
        }
    }

    /// Text that must be there and satisfy `check`, which says what is needed otherwise.
    pub(super) fn name<'b>(&mut self, field: Field<'b>, check: fn(&str) -> Result<(), &'static str>) -> Read<&'b str> {
        let text = self.required(field)?;
        self.check(field, text, check)?;
        Ok(text)
    }

    /// Refuses `text` unless it satisfies `check`.
    pub(super) fn check(
        &mut self,
        field: Field<'_>,
        text: &str,
        check: fn(&str) -> Result<(), &'static str>,
    ) -> Read<()> {
        match check(text) {
            Ok(()) => Ok(()),
            Err(needed) => self.refuse(field, format!("{} is not valid: {needed}", shown(text)), ""),
        }
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&mut self, field: Field<'_>, words: &[(&str, T)]) -> Read<Option<T>> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let list: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let help = syntax::nearest(text, &known).map(|word| format!("did you mean `{word}`?")).unwrap_or_default();
        self.refuse(field, format!("{} is none of {}", shown(text), list.join(", ")), &help)
    }

    pub(super) fn boolean(&mut self, field: Field<'_>) -> Read<Option<bool>> {
        match field.json {
            Value::Null => Ok(None),
            Value::Bool(bool) => Ok(Some(*bool)),
            Value::String(_) => self.refuse_kind(field, "`true` or `false`", "write it without quotes"),
            Value::Number(_) | Value::Array(_) | Value::Object(_) => self.refuse_kind(field, "`true` or `false`", ""),
        }
    }

    /// A port number.
    pub(super) fn port(&mut self, field: Field<'_>) -> Read<Option<u16>> {
        let number = match field.json {
            Value::Null => return Ok(None),
            Value::Number(number) => number,
            Value::String(_) => return self.refuse_kind(field, "a whole number", "write it without quotes"),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return self.refuse_kind(field, "a whole number", "");
            }
        };
        match number.as_u64().and_then(|number| u16::try_from(number).ok()) {
            Some(port) if port > 0 => Ok(Some(port)),
            Some(_) | None => self.refuse(field, format!("{number} is not a port: 1 to 65535"), ""),
        }
    }

    /// A mapping of text to text; entries that are not are left out, one by one.
    pub(super) fn texts(&mut self, field: Field<'_>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, field) in self.entries(&field).into_iter().flatten() {
            let text = self.text(field).map(Option::unwrap_or_default);
            texts.extend(text.map(|text| (key.to_owned(), text.to_owned())));
        }
        texts
    }
}

/// A user's text in a message: quoted, and not longer than a line can show.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", text[..end].escape_debug()),
        None => format!("`{}`", text.escape_debug()),
    }
}

fn kind_of(json: &Value) -> &'static str {
    match json {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
