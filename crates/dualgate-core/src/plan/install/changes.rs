//! What an installation would change in a cluster, as lines for a person.
//!
//! Compared are two answers of the API server: the object as it is, and as it would be (a server-side apply with
//! `dryRun=All`). Both have the server's defaults, so that what differs is what was asked for. What the server keeps for
//! itself is left out.

use serde_json::Value;

use super::object::ObjectId;
use crate::yaml;

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub id: ObjectId,
    /// What becomes of it.
    pub action: Action,
    /// The lines of it, as YAML: those that differ, with some around them.
    pub lines: Vec<Line>,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It becomes another.
    Update,
    /// It is removed.
    Delete,
}

/// A line of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Stays.
    Same(String),
    /// Goes.
    Gone(String),
    /// Comes.
    Come(String),
    /// Some that stay and are not shown.
    Skipped,
}

/// How many lines that stay are shown around one that does not.
const CONTEXT: usize = 3;

/// Two texts are compared line by line as long as this many pairs suffice; larger ones are replaced as a whole.
const MAX_PAIRS: usize = 1 << 24;

/// What only the server writes, and writes by itself.
const SERVERS: [&str; 6] = ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];
/// A count of changes that the server keeps as an annotation.
const SERVERS_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// An object that is not there yet, as it is asked for.
pub fn create(id: &ObjectId, desired: &Value) -> Change {
    let lines = text(desired).lines().map(|line| Line::Come(line.to_owned())).collect();
    Change { id: id.clone(), action: Action::Create, lines }
}

/// An object as it is and as it would be; nothing if that is the same.
pub fn update(id: &ObjectId, live: &Value, dry_run: &Value) -> Option<Change> {
    let (live, dry_run) = (text(live), text(dry_run));
    (live != dry_run).then(|| Change { id: id.clone(), action: Action::Update, lines: differences(&live, &dry_run) })
}

/// An object that goes.
pub fn delete(id: &ObjectId) -> Change {
    Change { id: id.clone(), action: Action::Delete, lines: Vec::new() }
}

/// What of an object somebody has written.
fn text(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| !SERVERS.contains(&key.as_str()));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(SERVERS_ANNOTATION);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    yaml::document(&object)
}

fn differences(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let before = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - after], &new_rest[..new_rest.len() - after]);
    let same = |line: &&str| Line::Same((*line).to_owned());
    let mut lines: Vec<Line> = old[..before].iter().map(same).collect();
    lines.extend(middle(old_middle, new_middle));
    lines.extend(old_rest[old_rest.len() - after..].iter().map(same));
    shortened(lines)
}

/// By the longest common subsequence.
fn middle(old: &[&str], new: &[&str]) -> Vec<Line> {
    let gone = |line: &&str| Line::Gone((*line).to_owned());
    let come = |line: &&str| Line::Come((*line).to_owned());
    if old.len().saturating_mul(new.len()) > MAX_PAIRS {
        return old.iter().map(gone).chain(new.iter().map(come)).collect();
    }
    // `common[o][n]`: how many lines the rests from `o` and `n` on have in common.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            common[o * width + n] = match old[o] == new[n] {
                true => common[(o + 1) * width + n + 1] + 1,
                false => common[(o + 1) * width + n].max(common[o * width + n + 1]),
            };
        }
    }
    let (mut lines, mut o, mut n) = (Vec::new(), 0, 0);
    while o < old.len() && n < new.len() {
        if old[o] == new[n] {
            lines.push(Line::Same(old[o].to_owned()));
            (o, n) = (o + 1, n + 1);
        } else if common[(o + 1) * width + n] >= common[o * width + n + 1] {
            lines.push(gone(&old[o]));
            o += 1;
        } else {
            lines.push(come(&new[n]));
            n += 1;
        }
    }
    lines.extend(old[o..].iter().map(gone).chain(new[n..].iter().map(come)));
    lines
}

/// Without the lines that are far from every difference.
fn shortened(lines: Vec<Line>) -> Vec<Line> {
    let differs: Vec<bool> = lines.iter().map(|line| !matches!(line, Line::Same(_))).collect();
    let mut shown = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        let near = at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(differs.len());
        if differs[near].contains(&true) {
            shown.push(line);
        } else if shown.last() != Some(&Line::Skipped) {
            shown.push(Line::Skipped);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id() -> ObjectId {
        ObjectId::of(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})).unwrap()
    }

    fn shown(change: &Change) -> String {
        let line = |line: &Line| match line {
            Line::Same(text) => format!("  {text}\n"),
            Line::Gone(text) => format!("- {text}\n"),
            Line::Come(text) => format!("+ {text}\n"),
            Line::Skipped => "...\n".to_owned(),
        };
        change.lines.iter().map(line).collect()
    }

    #[test]
    fn what_the_server_keeps_for_itself_is_no_change() {
        let live = json!({
            "metadata": {
                "name": "a", "uid": "1", "resourceVersion": "5", "generation": 1, "managedFields": [1],
                "annotations": {SERVERS_ANNOTATION: "1"},
            },
            "status": {"x": 1},
        });
        assert_eq!(update(&id(), &live, &json!({"metadata": {"name": "a", "generation": 2}})), None);
        assert!(update(&id(), &live, &json!({"metadata": {"name": "b"}})).is_some());
    }

    #[test]
    fn lines_that_differ_are_shown_with_some_around_them() {
        let file = |change: &[(usize, &str)]| {
            let line = |number: usize| change.iter().find(|(at, _)| *at == number).map(|(_, text)| (*text).to_owned());
            let text: String = (0..20).map(|number| line(number).unwrap_or(format!("line{number}")) + "\n").collect();
            json!({"data": {"site.yaml": text}})
        };
        let change = update(&id(), &file(&[(4, "first\nsecond")]), &file(&[(5, "other"), (19, "end")])).unwrap();
        let expected = "\
...
      line1
      line2
      line3
-     first
-     second
-     line5
+     line4
+     other
      line6
      line7
      line8
...
      line16
      line17
      line18
-     line19
+     end
";
        assert_eq!(shown(&change), expected);
    }

    #[test]
    fn texts_that_are_too_long_to_compare_are_replaced() {
        let many = |letter| vec![letter; 5000];
        assert_eq!(middle(&many("a"), &many("b")).len(), 10_000);
        assert_eq!(middle(&["x", "a"], &["b", "x"]).len(), 3);
    }

    #[test]
    fn an_object_that_comes_is_shown_whole() {
        let change = create(&id(), &json!({"kind": "Namespace", "metadata": {"name": "a"}}));
        assert_eq!(shown(&change), "+ kind: Namespace\n+ metadata:\n+   name: a\n");
        assert_eq!((delete(&id()).action, delete(&id()).lines), (Action::Delete, vec![]));
    }
}
