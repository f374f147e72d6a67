//! JSON values as YAML text, for people to read and for every reader of YAML to read back as the same values.
//!
//! Block style, two spaces, keys in the order of the map. A text is plain only if no reader of YAML 1.1 or 1.2 takes it
//! for anything else; several lines are a literal block. Reading is `parse::yaml`.

use std::fmt::Write as _;

use serde_json::Value;

/// Several documents, separated by `---`.
pub fn documents<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    let documents: Vec<String> = values.into_iter().map(document).collect();
    documents.join("---\n")
}

/// One document, with a line end.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => mapping(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, value, 0),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            scalar(&mut out, value, 0);
        }
    }
    out
}

/// The entries, each on its own line; the cursor stands where the first one begins.
fn mapping(out: &mut String, value: &Value, depth: usize) {
    for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push_str(&one_line(key));
        out.push(':');
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                mapping(out, value, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                sequence(out, value, depth + 1);
            }
            Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                out.push(' ');
                scalar(out, value, depth + 1);
            }
        }
    }
}

/// The items, each with a `-`; the cursor stands where the first one begins.
fn sequence(out: &mut String, value: &Value, depth: usize) {
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match value {
            Value::Object(entries) if !entries.is_empty() => mapping(out, value, depth + 1),
            Value::Array(items) if !items.is_empty() => sequence(out, value, depth + 1),
            Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                scalar(out, value, depth + 1);
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// What has no lines of its own, and the end of its line. A block of text stands at `depth`.
fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&with_point(number.to_string())),
        Value::String(text) if is_block(text) => return block(out, text, depth.max(1)),
        Value::String(text) => out.push_str(&one_line(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

/// JSON's `1e30` is a text in YAML 1.1, whose numbers with an exponent have a point and a sign.
fn with_point(number: String) -> String {
    match number.split_once('e') {
        None => number,
        Some((digits, exponent)) => {
            let point = if digits.contains('.') { "" } else { ".0" };
            let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
            format!("{digits}{point}e{sign}{exponent}")
        }
    }
}

/// Whether a text is written as a block: it has lines, and nothing that a block cannot hold.
fn is_block(text: &str) -> bool {
    let has_lines = text.trim_end_matches('\n').contains('\n') || (text.len() > 1 && text.ends_with('\n'));
    has_lines && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c)) && text.contains(|c| c != '\n')
}

fn block(out: &mut String, text: &str, depth: usize) {
    let lines = text.trim_end_matches('\n');
    let ends = text.len() - lines.len();
    out.push('|');
    // Without it, the first line that is not empty says how far the block is indented.
    if text.trim_start_matches('\n').starts_with(' ') || text.starts_with('\n') {
        out.push('2');
    }
    out.push_str(match ends {
        0 => "-",
        1 => "",
        _ => "+",
    });
    out.push('\n');
    for line in lines.split('\n') {
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
        out.push('\n');
    }
    out.extend(std::iter::repeat_n('\n', ends.saturating_sub(1)));
}

fn one_line(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// What YAML 1.1 takes for a boolean or for nothing, in whatever case.
const WORDS: [&str; 9] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null"];

fn is_plain(text: &str) -> bool {
    // What begins with a digit, a sign or a point may be a number or a moment of some reader.
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    let holds = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-+@=()$%:, ".contains(&b));
    let ends = !text.ends_with([':', ' ']) && !text.contains(": ");
    begins && holds && ends && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02X}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    code => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// `nb-char` of YAML 1.2 without the line separators that YAML 1.1 has beside the line feed, and without the byte order
/// mark, which some readers drop.
fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !matches!(code, 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::parse::yaml;

    #[test]
    fn an_object_looks_as_a_person_would_write_it() {
        let value = json!({
            "apiVersion": "v1",
            "data": {"site.yaml": "a: 1\n\n  # b\n", "short": "x"},
            "empty": [[], {}, null, ""],
            "list": [{"name": "a", "args": ["run", "--node", "$(NODE_NAME)"]}, ["nested", ["deeper"]], true, 1, -0.5],
            "0600": "0600",
            "words": ["no", "Yes", "~", "1e3", "a: b", "a #b", "10.0.0.0/8", "fd00::/8", "x:", " x", "1:30", "\u{7f}\u{1}"],
        });
        assert_eq!(
            document(&value),
            r#""0600": "0600"
apiVersion: v1
data:
  short: x
  site.yaml: |
    a: 1

      # b
empty:
  - []
  - {}
  - null
  - ""
list:
  - args:
      - run
      - "--node"
      - "$(NODE_NAME)"
    name: a
  - - nested
    - - deeper
  - true
  - 1
  - -0.5
words:
  - "no"
  - "Yes"
  - "~"
  - "1e3"
  - "a: b"
  - "a #b"
  - "10.0.0.0/8"
  - fd00::/8
  - "x:"
  - " x"
  - "1:30"
  - "\x7F\x01"
"#
        );
    }

    #[test]
    fn documents_are_separated() {
        assert_eq!(documents(&[json!({"a": 1}), json!({"b": "x\n"})]), "a: 1\n---\nb: |\n  x\n");
        assert_eq!(document(&json!("x\ny")), "|-\n  x\n  y\n");
        assert_eq!(document(&json!(1e30)), "1.0e+30\n");
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~\n]{0,12}",
            "[a-z0-9:# \n\t'\"-]{0,12}",
            "\\PC{0,6}",
            "[\u{0}-\u{ffff}]{0,4}",
            "(?:y|no|true|null|~|<<|=|1|0x1|1_0|.5|-|\\?|!a|&a|\\*a|%a|@a|`a|\\||>|---|\\.\\.\\.)",
        ]
        .prop_map(|text: String| text.replace('\0', ""));
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e40..1e40f64).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec(value(), 1..4)) {
            // A document of nothing is left out by the reader.
            let values: Vec<Value> = values.into_iter().filter(|value| !value.is_null()).collect();
            let text = documents(&values);
            let read = yaml::documents(&text);
            prop_assert_eq!(read.error, None, "{}", text);
            let read: Vec<Value> = read.documents.iter().map(yaml::Node::to_json).collect();
            prop_assert_eq!(read, values, "{}", text);
        }
    }
}
