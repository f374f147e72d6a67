//! Findings as a compiler would print them: what, where, the line itself, and what to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dualgate_core::model::Finding;
use serde::Deserialize;

use super::{Colour, Style, one_line};

/// The longest source line that is printed whole, in characters.
const WIDTH: usize = 110;
/// What is printed of a longer one to the left of its mark.
const BEFORE_MARK: usize = 40;

/// A finding as it is shown: from this process, or from the admin listener of another one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Shown {
    severity: String,
    code: String,
    at: Place,
    message: String,
    #[serde(default)]
    help: String,
}

/// Where it is; each part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Place {
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    object: Option<String>,
    field: String,
}

impl From<&Finding> for Shown {
    fn from(finding: &Finding) -> Self {
        let at = &finding.at;
        Self {
            severity: finding.severity.to_string(),
            code: finding.code.to_string(),
            at: Place {
                file: at.file.as_deref().map(str::to_owned),
                line: at.line,
                column: at.column,
                object: at.object.as_ref().map(ToString::to_string),
                field: at.field.clone(),
            },
            message: finding.message.clone(),
            help: finding.help.clone(),
        }
    }
}

/// How many there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What does not work.
    pub errors: usize,
    /// What is probably not meant.
    pub warnings: usize,
    /// What is worth knowing.
    pub notes: usize,
}

impl Tally {
    /// Of these.
    pub fn of(findings: &[Shown]) -> Self {
        let of = |severity: &str| findings.iter().filter(|finding| finding.severity == severity).count();
        Self { errors: of("error"), warnings: of("warning"), notes: of("note") }
    }
}

impl Shown {
    /// Whether it is only worth knowing.
    pub fn is_note(&self) -> bool {
        self.severity == "note"
    }

    /// In several lines, with a line end; the source line too if `files` has it.
    pub fn render(&self, style: Style, files: &mut Files) -> String {
        let colour = match self.severity.as_str() {
            "error" => Colour::Red,
            "warning" => Colour::Yellow,
            _ => Colour::Bold,
        };
        let mut out = String::new();
        let title = style.paint(colour, &format!("{}[{}]", self.severity, self.code));
        let _ = writeln!(out, "{title}{}", style.paint(Colour::Bold, &format!(": {}", one_line(&self.message))));
        let number = self.at.line.map(|line| line.to_string()).unwrap_or_default();
        let indent = " ".repeat(number.len());
        if let Some(file) = &self.at.file {
            let position = |part: Option<u32>| part.map(|part| format!(":{part}")).unwrap_or_default();
            let (line, column) = (position(self.at.line), position(self.at.column));
            let _ = writeln!(out, "{indent}{} {}{line}{column}", style.paint(Colour::Blue, "-->"), one_line(file));
        }
        let bar = style.paint(Colour::Blue, "|");
        if let Some((line, mark)) = self.excerpt(files) {
            let number = style.paint(Colour::Blue, &number);
            let mark = style.paint(colour, &mark);
            let _ = writeln!(out, "{indent} {bar}\n{number} {bar} {line}\n{indent} {bar} {mark}");
        }
        let mut remark = |word: &str, text: &str| {
            if !text.is_empty() {
                let _ = writeln!(out, "{indent} {} {word}: {}", style.paint(Colour::Blue, "="), one_line(text));
            }
        };
        match &self.at.object {
            Some(object) => remark("object", format!("{object} {}", self.at.field).trim_end()),
            None => remark("field", &self.at.field),
        }
        remark("help", &self.help);
        out
    }

    /// The line, and a caret below the column.
    fn excerpt(&self, files: &mut Files) -> Option<(String, String)> {
        let (file, number) = (self.at.file.as_ref()?, self.at.line?);
        let line = files.line(file, number)?;
        let column = self.at.column.map_or(0, |column| (column as usize).saturating_sub(1));
        let (line, column) = window(line, column);
        // A tab is as wide as the terminal says: the caret stands under it behind the same tabs.
        let before = line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' });
        let mark = before.chain(std::iter::once('^')).collect();
        Some((line, mark))
    }
}

/// What fits of a line, with the column in it.
fn window(line: &str, column: usize) -> (String, usize) {
    // Every hidden character takes one place, so that columns stay where they are.
    let line: Vec<char> = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    let column = column.min(line.len());
    if line.len() <= WIDTH {
        return (line.into_iter().collect(), column);
    }
    let start = column.saturating_sub(BEFORE_MARK);
    let end = (start + WIDTH).min(line.len());
    let left = if start > 0 { "…" } else { "" };
    let right = if end < line.len() { "…" } else { "" };
    let shown: String = line[start..end].iter().collect();
    (format!("{left}{shown}{right}"), column - start + left.chars().count())
}

/// The files that findings are about.
#[derive(Debug)]
pub struct Files {
    read: fn(&str) -> Option<String>,
    texts: BTreeMap<String, Option<String>>,
}

impl Files {
    /// As they are on disk, read when they are asked for.
    pub fn on_disk() -> Self {
        Self { read: |path| std::fs::read_to_string(path).ok(), texts: BTreeMap::new() }
    }

    /// Of another process: what has the same path here may be another file.
    pub fn elsewhere() -> Self {
        Self { read: |_| None, texts: BTreeMap::new() }
    }

    fn line(&mut self, path: &str, number: u32) -> Option<&str> {
        let text = self.texts.entry(path.to_owned()).or_insert_with(|| (self.read)(path));
        text.as_deref()?.lines().nth((number as usize).checked_sub(1)?)
    }
}

/// What a list of findings looks like for people: those of a file together, in its order; those of no file last.
pub fn render(findings: &mut [Shown], style: Style, files: &mut Files) -> String {
    let unknown_last = |finding: &Shown| (finding.at.file.is_none(), finding.at.clone(), finding.message.clone());
    findings.sort_by_cached_key(unknown_last);
    let blocks: Vec<String> = findings.iter().map(|finding| finding.render(style, files)).collect();
    blocks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: Option<u32>, column: Option<u32>) -> Shown {
        Shown {
            severity: "error".into(),
            code: "ingress-unknown-service".into(),
            at: Place {
                file: Some("apps.yaml".into()),
                line,
                column,
                object: Some("Ingress apps/grafana".into()),
                field: "spec.rules[0]".into(),
            },
            message: "there is no Service `gone`".into(),
            help: "write one".into(),
        }
    }

    fn file(text: &str) -> Files {
        Files { texts: BTreeMap::from([("apps.yaml".to_owned(), Some(text.to_owned()))]), ..Files::elsewhere() }
    }

    #[test]
    fn a_finding_is_shown_with_its_line_and_a_caret_under_its_column() {
        let mut files = file("spec:\r\n\t- gone\r\n");
        assert_eq!(
            shown(Some(2), Some(4)).render(Style::Plain, &mut files),
            "\
error[ingress-unknown-service]: there is no Service `gone`
 --> apps.yaml:2:4
  |
2 | \t- gone
  | \t  ^
  = object: Ingress apps/grafana spec.rules[0]
  = help: write one
"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut files = Files::elsewhere();
        assert_eq!(
            shown(Some(12), None).render(Style::Plain, &mut files),
            "\
error[ingress-unknown-service]: there is no Service `gone`
  --> apps.yaml:12
   = object: Ingress apps/grafana spec.rules[0]
   = help: write one
"
        );
        let bare = Shown { at: Place::default(), help: String::new(), ..shown(None, None) };
        assert_eq!(
            bare.render(Style::Plain, &mut files),
            "error[ingress-unknown-service]: there is no Service `gone`\n"
        );
    }

    #[test]
    fn of_a_long_line_the_part_around_the_column_is_shown() {
        let line = format!("{}X{}", "a".repeat(300), "b".repeat(300));
        let (shown, column) = window(&line, 300);
        assert_eq!(shown.chars().nth(column), Some('X'));
        assert_eq!(shown.chars().count(), WIDTH + 2);
        assert!(shown.starts_with("…a") && shown.ends_with("b…"));
        let (shown, column) = window(&line, 0);
        assert!(shown.starts_with("aaa") && shown.ends_with("a…") && column == 0);
        let (shown, column) = window(&line, 10_000);
        assert!(shown.starts_with('…') && shown.ends_with('b') && column == shown.chars().count());
    }

    #[test]
    fn nothing_in_a_file_reaches_the_terminal_as_a_control_sequence() {
        let mut files = file("a: \u{1b}[2J\u{7}");
        let mut finding = shown(Some(1), Some(4));
        finding.message = "`\u{1b}[2J\nerror: x` is wrong".into();
        let text = finding.render(Style::Plain, &mut files);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        assert!(text.contains(r"`\u{1b}[2J\u{a}error: x` is wrong"), "{text}");
    }

    #[test]
    fn findings_of_a_file_stand_together_in_its_order() {
        let mut without = shown(None, None);
        without.at.file = None;
        let mut other = shown(Some(1), Some(1));
        other.at.file = Some("b.yaml".into());
        let mut findings = [without, other, shown(Some(10), Some(1)), shown(Some(9), Some(5))];
        let text = render(&mut findings, Style::Plain, &mut Files::elsewhere());
        let places: Vec<&str> = text.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
        assert_eq!(places, ["apps.yaml:9:5", "apps.yaml:10:1", "b.yaml:1:1"]);
        assert_eq!(text.matches("\n\n").count(), 3, "a line between findings");
    }

    #[test]
    fn what_the_admin_listener_sends_is_what_this_process_would_show() {
        use dualgate_core::model::{Code, ObjectKey, ObjectName, Place as At};
        let key = ObjectKey { kind: "Ingress".into(), name: ObjectName::new("apps", "grafana") };
        let at = At { file: Some("a.yaml".into()), line: Some(3), column: Some(5), ..At::field(&key, "spec") };
        for at in [at, At::default()] {
            let finding = Finding::new(Code::ObjectInvalid, at, "it is wrong");
            let sent = serde_json::to_string(&finding).unwrap();
            assert_eq!(serde_json::from_str::<Shown>(&sent).unwrap(), Shown::from(&finding));
        }
    }
}
