//! YAML (and JSON) text to a tree that knows where everything was written.
//!
//! The readers of the site file and of manifests start from [`documents`]. Scalars mean what they mean to
//! `kubectl` and every other user of sigs.k8s.io/yaml, which is YAML 1.1: plain `yes`, `on` and `y` are
//! booleans, `010` is 8, `1_000` is 1000. `.inf` and `.nan` stay text, as JSON has no such numbers. A key is
//! always text: `80:` and `"80":` are the same key. Anchors, aliases and merge keys (`<<`) work within a
//! budget, so a small text cannot become a large tree.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

/// How deep a document may be nested.
pub const MAX_DEPTH: usize = 100;

/// How much aliases may add to one text, in octets of text plus [`NODE_COST`] per node.
pub const ALIAS_BUDGET: usize = 4 << 20;

const NODE_COST: usize = 64;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The documents before the first syntax error; empty ones are left out.
    pub documents: Vec<Node>,
    /// Keys that were written twice in one mapping.
    pub duplicates: Vec<Duplicate>,
    /// What ended the reading early.
    pub error: Option<SyntaxError>,
}

/// A key written twice in one mapping. The later value counts, as it does for `kubectl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The key.
    pub key: String,
    /// Where it stands again.
    pub at: Mark,
    /// Where it stood first.
    pub first: Mark,
}

/// Why a text is not YAML that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub at: Mark,
    /// What it is.
    pub value: Value,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key as text.
    pub text: String,
    /// Where it was written.
    pub at: Mark,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without fraction that fits.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in the order of the text, each key once.
    Mapping(Vec<(Key, Node)>),
}

impl Value {
    /// What a person calls it, such as `list`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "boolean",
            Self::Integer(_) | Self::Float(_) => "number",
            Self::String(_) => "text",
            Self::Sequence(_) => "list",
            Self::Mapping(_) => "mapping",
        }
    }
}

impl Node {
    /// The value of a key, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(candidate, _)| candidate.text == key).map(|(_, node)| node)
    }

    /// The same as JSON, without the places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(bool) => (*bool).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::String(text) => text.as_str().into(),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect(),
        }
    }

    /// Where each field was written, by its path: the key of a mapping's entry, the start of a list's item.
    /// The document itself is at `""`.
    pub fn fields(&self) -> BTreeMap<String, (u32, u32)> {
        let mut fields = BTreeMap::from([(String::new(), (self.at.line, self.at.column))]);
        self.collect_fields("", &mut fields);
        fields
    }

    fn collect_fields(&self, path: &str, fields: &mut BTreeMap<String, (u32, u32)>) {
        let mut field = |path: String, at: Mark, node: &Self| {
            node.collect_fields(&path, fields);
            fields.insert(path, (at.line, at.column));
        };
        match &self.value {
            Value::Sequence(items) => {
                items.iter().enumerate().for_each(|(index, node)| field(item_path(path, index), node.at, node));
            }
            Value::Mapping(entries) => {
                entries.iter().for_each(|(key, node)| field(key_path(path, &key.text), key.at, node));
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => {}
        }
    }
}

/// The path of a mapping's entry: `spec.rules`, or `metadata.annotations[a.b/c]` when the key is not a word.
pub fn key_path(path: &str, key: &str) -> String {
    let word = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (word, path) {
        (true, "") => key.to_owned(),
        (true, _) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key}]"),
    }
}

/// The path of a list's item: `spec.rules[0]`.
pub fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Reads every document of a text.
pub fn documents(text: &str) -> Documents {
    let mut builder = Builder::default();
    if let Some(before) = text.find('\0') {
        builder.read.error = Some(nul_error(&text[..before]));
        return builder.read;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = if text.trim_start().starts_with('{') { join_surrogates(text) } else { text.into() };
    let mut parser = Parser::new_from_str(&text);
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.event(event, mark(span.start)),
            Err(error) => Err(SyntaxError::new(mark(*error.marker()), error.info())),
        };
        if let Err(error) = step {
            builder.read.error = Some(error);
            break;
        }
    }
    builder.read
}

impl SyntaxError {
    fn new(at: Mark, message: impl Into<String>) -> Self {
        Self { line: at.line, column: at.column, message: message.into() }
    }
}

fn mark(marker: Marker) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

fn nul_error(before: &str) -> SyntaxError {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    SyntaxError::new(Mark { line: count(line), column: count(column) }, "the text holds a NUL character")
}

/// JSON writes characters beyond U+FFFF as two escapes, which YAML does not know.
fn join_surrogates(text: &str) -> std::borrow::Cow<'_, str> {
    let unit = |text: &str| {
        let hex = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(hex, 16).ok()
    };
    let (mut joined, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let pair = unit(&text[at..]).zip(text.get(at + 6..).and_then(unit));
        let decoded = pair.and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        match decoded {
            Some(character) if character > '\u{ffff}' => {
                joined.push_str(&text[copied..at]);
                joined.push_str(&format!("\\U{:08X}", u32::from(character)));
                at += 12;
                copied = at;
            }
            // The escaped character must not be taken for the start of an escape.
            _ => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    if copied == 0 {
        return text.into();
    }
    joined.push_str(&text[copied..]);
    joined.into()
}

/// Turns events into nodes. Open collections are a stack, so that depth costs no stack of ours.
#[derive(Default)]
struct Builder {
    read: Documents,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    alias_cost: usize,
}

struct Anchored {
    node: Node,
    cost: usize,
    depth: usize,
}

/// A collection whose end has not come yet.
struct Open {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Entries, key: Option<PendingKey> },
}

enum PendingKey {
    Key(Key),
    Merge,
}

/// A mapping's entries in order, with an index so that many keys stay cheap.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Node)>,
    index: BTreeMap<String, usize>,
    merged: Vec<(Key, Node)>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Mark) -> Result<(), SyntaxError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) | Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|message| SyntaxError::new(at, message))?;
                if style == ScalarStyle::Plain && text == "<<" && self.expects_key() {
                    self.set_key(PendingKey::Merge);
                    return Ok(());
                }
                self.finish(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Content::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.open(at, anchor, Content::Mapping { entries: Entries::default(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Mapping { key: None, .. }, .. }))
    }

    fn set_key(&mut self, pending: PendingKey) {
        if let Some(Open { content: Content::Mapping { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(pending);
        }
    }

    fn open(&mut self, at: Mark, anchor: usize, content: Content) -> Result<(), SyntaxError> {
        if self.expects_key() {
            return Err(SyntaxError::new(at, "a key must be text, not a list or a mapping"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(SyntaxError::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(Open { at, anchor, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, .. } => Value::Mapping(entries.finish()),
        };
        self.finish(Node { at, value }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(at, "this alias stands inside what it names"));
        };
        self.alias_cost = self.alias_cost.saturating_add(anchored.cost);
        if self.alias_cost > ALIAS_BUDGET {
            return Err(SyntaxError::new(at, "aliases make the document too large"));
        }
        if self.open.len() + anchored.depth > MAX_DEPTH {
            return Err(SyntaxError::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let node = Node { at, value: anchored.node.value.clone() };
        self.finish(node, 0)
    }

    /// A node is complete: it goes to its anchor and into the collection that it stands in.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.anchor(&node, anchor)?;
        }
        let Some(open) = self.open.last_mut() else {
            if node.value != Value::Null {
                self.read.documents.push(node);
            }
            return Ok(());
        };
        match &mut open.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key } => match key.take() {
                None => *key = Some(PendingKey::Key(as_key(node)?)),
                Some(PendingKey::Merge) => entries.merge(node)?,
                Some(PendingKey::Key(key)) => {
                    if let Some(duplicate) = entries.insert(key, node) {
                        self.read.duplicates.push(duplicate);
                    }
                }
            },
        }
        Ok(())
    }

    /// Keeping the copy counts too: anchors inside anchors would else be copied without a bound.
    fn anchor(&mut self, node: &Node, anchor: usize) -> Result<(), SyntaxError> {
        let (cost, depth) = measure(node);
        self.alias_cost = self.alias_cost.saturating_add(cost);
        if self.alias_cost > ALIAS_BUDGET {
            return Err(SyntaxError::new(node.at, "anchors make the document too large"));
        }
        self.anchors.insert(anchor, Anchored { node: node.clone(), cost, depth });
        Ok(())
    }
}

impl Entries {
    fn insert(&mut self, key: Key, node: Node) -> Option<Duplicate> {
        let Some(&index) = self.index.get(&key.text) else {
            self.index.insert(key.text.clone(), self.list.len());
            self.list.push((key, node));
            return None;
        };
        let first = self.list[index].0.at;
        let duplicate = Duplicate { key: key.text.clone(), at: key.at, first };
        self.list[index] = (key, node);
        Some(duplicate)
    }

    fn merge(&mut self, node: Node) -> Result<(), SyntaxError> {
        let refuse = |at| Err(SyntaxError::new(at, "`<<` needs a mapping or a list of mappings"));
        match node.value {
            Value::Mapping(entries) => self.merged.extend(entries),
            Value::Sequence(items) => {
                for item in items {
                    let Value::Mapping(entries) = item.value else { return refuse(item.at) };
                    self.merged.extend(entries);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => {
                return refuse(node.at);
            }
        }
        Ok(())
    }

    /// Own entries go before merged ones, earlier merged ones before later ones.
    fn finish(mut self) -> Vec<(Key, Node)> {
        for (key, node) in std::mem::take(&mut self.merged) {
            if !self.index.contains_key(&key.text) {
                self.insert(key, node);
            }
        }
        self.list
    }
}

fn as_key(node: Node) -> Result<Key, SyntaxError> {
    let text = match node.value {
        Value::String(text) => text,
        Value::Bool(bool) => bool.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
            return Err(SyntaxError::new(node.at, format!("a key must be text, not {}", node.value.kind())));
        }
    };
    Ok(Key { text, at: node.at })
}

/// Cost and depth of a copy.
fn measure(node: &Node) -> (usize, usize) {
    let below = |parts: &mut dyn Iterator<Item = (usize, &Node)>| {
        parts.fold((NODE_COST, 0), |(cost, depth), (own, child)| {
            let (child_cost, child_depth) = measure(child);
            (cost + own + child_cost, depth.max(child_depth))
        })
    };
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => (NODE_COST, 0),
        Value::String(text) => (NODE_COST + text.len(), 0),
        Value::Sequence(items) => {
            let (cost, depth) = below(&mut items.iter().map(|item| (0, item)));
            (cost, depth + 1)
        }
        Value::Mapping(entries) => {
            let (cost, depth) = below(&mut entries.iter().map(|(key, child)| (key.text.len(), child)));
            (cost, depth + 1)
        }
    }
}

/// What a scalar means, by its tag if it has one, else by its form.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = || if style == ScalarStyle::Plain { resolve(text) } else { Value::String(text.to_owned()) };
    let Some(tag) = tag else { return Ok(plain()) };
    if !tag.is_yaml_core_schema() {
        // As `kubectl`: an application's own tag means nothing here.
        return Ok(Value::String(text.to_owned()));
    }
    let value = match (tag.suffix.as_str(), resolve(text)) {
        ("str", _) => Some(Value::String(text.to_owned())),
        ("null", Value::Null) => Some(Value::Null),
        ("bool", value @ Value::Bool(_)) | ("int", value @ Value::Integer(_)) | ("float", value @ Value::Float(_)) => {
            Some(value)
        }
        #[allow(clippy::cast_precision_loss)]
        ("float", Value::Integer(number)) => Some(Value::Float(number as f64)),
        (_, _) => None,
    };
    value.ok_or_else(|| format!("`!!{} {text}` cannot be read", tag.suffix))
}

fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            number(&text.replace('_', "")).unwrap_or_else(|| Value::String(text.to_owned()))
        }
        _ => Value::String(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Value> {
    if let Some(integer) = integer(text) {
        return Some(Value::Integer(integer));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let float = text.parse::<f64>().ok().filter(|float| decimal && float.is_finite())?;
    Some(Value::Float(float))
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        let read = documents(text);
        assert_eq!(read.error, None, "{text}");
        read.documents.iter().map(Node::to_json).collect()
    }

    fn error(text: &str) -> String {
        let error = documents(text).error.unwrap_or_else(|| panic!("{text} was read"));
        format!("{}:{}: {}", error.line, error.column, error.message)
    }

    /// The right column is what `kubectl label --local -f FILE x=y -o json` (1.32) prints.
    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        let table = [
            ("yes", "true"),
            ("On", "true"),
            ("y", "true"),
            ("off", "false"),
            ("N", "false"),
            ("010", "8"),
            ("0o10", "8"),
            ("0x1F", "31"),
            ("0X1F", "31"),
            ("-0x1F", "-31"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("08", "8.0"),
            ("99999999999999999999", "1e20"),
            ("9223372036854775808", "9223372036854775808.0"),
            ("1e3", "1000.0"),
            (".5", "0.5"),
            ("1.", "1.0"),
            ("-.5", "-0.5"),
            ("1_0.5", "10.5"),
            ("0x1p-2", "\"0x1p-2\""),
            ("1:30", "\"1:30\""),
            ("~", "null"),
            ("Null", "null"),
            ("2001-01-01", "\"2001-01-01\""),
            ("\"yes\"", "\"yes\""),
            ("'on'", "\"on\""),
            ("=", "\"=\""),
            ("0xfg", "\"0xfg\""),
            ("+.inf2", "\"+.inf2\""),
            ("0x", "\"0x\""),
            ("1e5x", "\"1e5x\""),
            ("!!str 5", "\"5\""),
            ("!!int \"7\"", "7"),
            ("!!float 3", "3.0"),
            ("!foo 5", "\"5\""),
            ("10.0.0.1", "\"10.0.0.1\""),
            ("::1", "\"::1\""),
            ("fd00::/64", "\"fd00::/64\""),
            ("-", "[null]"),
            ("+", "\"+\""),
        ];
        for (yaml, expected) in table {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            assert_eq!(json(&format!("a: {yaml}\n").replace(": -\n", ":\n- \n"))[0]["a"], expected, "{yaml}");
        }
    }

    #[test]
    fn keys_are_text() {
        let expected = serde_json::json!([{"80": 1, "true": 2, "1.5": 3}]);
        assert_eq!(json("80: 1\non: 2\n1.5: 3\n"), expected);
        assert_eq!(error("~: 1\n"), "1:1: a key must be text, not nothing");
        assert_eq!(error("? [a]\n: 1\n"), "1:3: a key must be text, not a list or a mapping");
    }

    #[test]
    fn every_field_knows_its_place() {
        let text =
            "---\nspec:\n  rules:\n  - host: a\n    paths: [{path: /}]\nmetadata:\n  annotations:\n    a.b/c: d\n";
        let fields = documents(text).documents[0].fields();
        let expected = [
            ("", (2, 1)),
            ("metadata", (6, 1)),
            ("metadata.annotations", (7, 3)),
            ("metadata.annotations[a.b/c]", (8, 5)),
            ("spec", (2, 1)),
            ("spec.rules", (3, 3)),
            ("spec.rules[0]", (4, 5)),
            ("spec.rules[0].host", (4, 5)),
            ("spec.rules[0].paths", (5, 5)),
            ("spec.rules[0].paths[0]", (5, 13)),
            ("spec.rules[0].paths[0].path", (5, 14)),
        ];
        assert_eq!(fields, expected.map(|(path, at)| (path.to_owned(), at)).into());
    }

    #[test]
    fn documents_before_a_syntax_error_are_kept_and_empty_ones_left_out() {
        let read = documents("a: 1\n---\n---\n# nothing\n---\nb: 2\n---\nc: [1\n---\nd: 4\n");
        let expected = serde_json::json!([{"a": 1}, {"b": 2}]);
        assert_eq!(read.documents.iter().map(Node::to_json).collect::<serde_json::Value>(), expected);
        assert_eq!(read.error.map(|error| error.line), Some(9));
        assert_eq!(documents(""), Documents::default());
        assert_eq!(documents("# only a comment\n"), Documents::default());
    }

    #[test]
    fn a_key_written_twice_is_told_and_the_later_value_counts() {
        let read = documents("a: 1\nb: 2\na: 3\n");
        assert_eq!(read.documents[0].to_json(), serde_json::json!({"a": 3, "b": 2}));
        let (at, first) = (Mark { line: 3, column: 1 }, Mark { line: 1, column: 1 });
        assert_eq!(read.duplicates, [Duplicate { key: "a".into(), at, first }]);
    }

    #[test]
    fn aliases_and_merge_keys_work() {
        let text = "base: &b {x: 1, k: 2}\nmore: *b\nown: {<<: *b, k: 3}\nlist: {<<: [*b, {x: 9, z: 4}]}\n";
        let expected = serde_json::json!([{
            "base": {"x": 1, "k": 2}, "more": {"x": 1, "k": 2}, "own": {"x": 1, "k": 3},
            "list": {"x": 1, "k": 2, "z": 4},
        }]);
        assert_eq!(json(text), expected);
        assert_eq!(error("a: {<<: 1}\n"), "1:9: `<<` needs a mapping or a list of mappings");
    }

    #[test]
    fn a_small_text_cannot_become_a_large_tree() {
        let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let previous = level - 1;
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{previous}"); 10].join(", ")));
        }
        assert!(error(&laughs).ends_with("make the document too large"), "{}", error(&laughs));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 16), vec!["*a"; 1000].join(", "));
        assert!(error(&long).ends_with("aliases make the document too large"));
        assert_eq!(error("a: &a [*a]\n"), "1:8: this alias stands inside what it names");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "- ".repeat(levels), "x\n");
        assert_eq!(documents(&nested(MAX_DEPTH)).error, None);
        assert!(error(&nested(MAX_DEPTH + 1)).ends_with("nested deeper than 100 levels"));
        assert!(documents(&"[".repeat(100_000)).error.is_some());
        let half = "[".repeat(60) + &"]".repeat(60);
        let joined = format!("a: &a {half}\nb: {}*a{}\n", "[".repeat(60), "]".repeat(60));
        assert!(error(&joined).ends_with("nested deeper than 100 levels"));
    }

    #[test]
    fn json_is_read_with_its_escapes_and_tabs() {
        let text = "{\n\t\"a\": \"\\ud83d\\ude00 \\\\ud83d \\u00e9 \\/\",\n\t\"b\": [1, 2.5, true, null, {}]\n}\n";
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json(text), serde_json::json!([expected]));
    }

    #[test]
    fn line_ends_byte_order_mark_and_nul_are_handled() {
        assert_eq!(json("\u{feff}a: 1\r\nb: x\r\n"), serde_json::json!([{"a": 1, "b": "x"}]));
        assert_eq!(error("a: 1\nb: \0 2\n"), "2:4: the text holds a NUL character");
    }
}
